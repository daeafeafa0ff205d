"""Ramp limits and the look-ahead: two buses by hand, loose limits change nothing, a forced surplus is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cosim.errors import ModelError, ScenarioError
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs, strict
from cosim.simulators.grid.dispatch.horizon import Ramps, joint
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.sources import Source, in_pu
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder

NETWORK = {"base_kv": 10.0, "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 2.0, "x_ohm": 4.0}],
           "loads": [{"bus": 1, "p_kw": 100.0}]}
# Carbon far above loss: the clean turbine gives what it may, the dirty substation the rest.
CLEAN = {"substation": {"node": 0, "kg_per_kwh": 0.9},
         "turbine": {"node": 1, "kg_per_kwh": 0.1, "p_max_kw": 500.0, "q_min_kvar": 0.0, "q_max_kvar": 0.0}}


def started(ramp_kw_per_min: float | None, steps: int = 1, **params: Any) -> CefDispatch:
    grid = CefDispatch()
    sources = {**CLEAN, "turbine": {**CLEAN["turbine"], "ramp_kw_per_min": ramp_kw_per_min}}
    grid.init("grid", 60.0, step_s=900.0, seed=1, network=NETWORK, lambda_kw_per_kg_h=1.0,
              **{"sources": sources, "lookahead_steps": steps, **params})
    grid.create(2, "Bus")
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid


def run(grid: CefDispatch, loads_kw: list[float], ahead: int = 0) -> list[dict]:
    """The Grid's outputs at each load of bus 1, which a forecast of `ahead` intervals foretells."""
    out = []
    for k, load in enumerate(loads_kw):
        given = {"p_load_kw": {"profile.bus1": load}}
        if ahead:
            coming = (loads_kw + [loads_kw[-1]] * ahead)[k + 1: k + 1 + ahead]
            given |= {"p_ahead_kw": {"profile.bus1": coming}, "q_ahead_kvar": {"profile.bus1": [0.0] * ahead}}
        grid.step(15 * k, {"bus1": given}, 15 * k + 15)
        names = [p.name for p in grid.MODELS["Grid"] if p.flow == "out"]
        out.append(grid.get_data({"grid": names, "bus1": ["mci_kg_per_kwh", "mci_status"]}))
    return out


def turbine(outputs: list[dict]) -> list[float]:
    return [o["grid"]["p_source_kw"][1] for o in outputs]


@pytest.mark.parametrize("solver", ["auto", "clarabel"])
def test_a_ramp_ties_set_points_to_those_executed_before(solver):
    # 10 kW/min are 150 kW per interval. Free, the turbine serves the load to the watt (no line to cross). The first
    # interval has none before it; then 100 -> 400 takes two steps of 150, and 400 -> 400 none.
    assert turbine(run(started(None, solver=solver), [100.0, 400.0, 400.0])) == pytest.approx([100, 400, 400], abs=0.02)
    got = run(started(10.0, solver=solver), [100.0, 400.0, 400.0, 400.0])
    assert turbine(got) == pytest.approx([100.0, 250.0, 400.0, 400.0], abs=0.02)
    # at the ramp's end the substation answers one more kW; before and after, the turbine
    assert [o["grid"]["marginal_sources"][1] for o in got] == [1.0, 0.0, 0.0, 1.0]
    assert got[1]["bus1"]["mci_kg_per_kwh"] >= 0.9
    assert got[3]["bus1"]["mci_kg_per_kwh"] == pytest.approx(0.1, abs=1e-6)


def test_a_look_ahead_ramps_before_a_step_that_it_sees():
    # Export is free and carries the turbine's own carbon: with p_min_kw = -1000 at the substation it may run ahead of
    # the load. 100, then 600: with 10 kW/min the turbine reaches 500, its most, only from 350 or more. One more kW at
    # 600 saves 0.9 kg at the substation for 0.1; the same kW too early exports, saves 0.9 as well: at lambda = 1 that
    # always pays, so export must cost here. Upstream takes power back at 0 kg (not at 0.9): a source of 0.9 at P >= 0
    # and a sink of 0. Then early power costs 0.1 + loss per kW and returns 0.8 in the interval after.
    sources = {"substation": {"node": 0, "kg_per_kwh": 0.9},
               "sink": {"node": 1, "kg_per_kwh": 0.0, "p_min_kw": -1000.0, "p_max_kw": 0.0, "q_min_kvar": 0.0,
                        "q_max_kvar": 0.0},
               "turbine": {**CLEAN["turbine"], "ramp_kw_per_min": 10.0}}
    blind = run(started(None, 1, sources=sources), [100.0, 100.0, 480.0])
    assert [o["grid"]["p_source_kw"][2] for o in blind] == pytest.approx([100.0, 100.0, 250.0], abs=0.02)
    seeing = run(started(None, 2, sources=sources), [100.0, 100.0, 480.0], ahead=1)
    assert [o["grid"]["p_source_kw"][2] for o in seeing] == pytest.approx([100.0, 250.0, 400.0], abs=0.02)
    # 250 is as far as the ramp goes in one interval. Two intervals ahead the first one sees the step, too: to be at 480
    # in the third it takes 180 in the first and 330 in the second, and no more, as what is early is wasted.
    far = run(started(None, 3, sources=sources), [100.0, 100.0, 480.0], ahead=2)
    assert [o["grid"]["p_source_kw"][2] for o in far] == pytest.approx([180.0, 330.0, 480.0], abs=0.02)
    assert [o["grid"]["p_source_kw"][1] for o in far] == pytest.approx([-80.0, -230.0, 0.0], abs=0.05)


def test_ramps_that_do_not_bind_change_nothing():
    loads = [100.0, 180.0, 420.0, 90.0]
    free, loose = (run(started(ramp, steps), loads, ahead) for ramp, steps, ahead in
                   ((None, 1, 0), (1000.0, 3, 2)))
    assert turbine(loose) == turbine(free)
    for a, b in zip(free, loose, strict=True):
        assert a["bus1"] == b["bus1"]
        assert a["grid"]["loss_kw"] == b["grid"]["loss_kw"]


@pytest.mark.rows("Z06")
def test_without_a_forecast_the_plan_holds_the_load():
    assert turbine(run(started(10.0, 3), [100.0, 400.0, 400.0])) == pytest.approx([100, 250, 400], abs=0.02)


@pytest.mark.rows("E11")
def test_a_joint_problem_without_ramps_is_the_intervals_one_by_one():
    feeder = read_feeder("case33bw")
    given = {"substation": Source(0, 0.3, q_min_kvar=-5000.0),
             **{f"gt{n}": Source(n, w, 0.0, 500.0, -300.0, 300.0) for n, w in ((6, 0.35), (25, 0.65), (30, 0.9))}}
    sources, limits = in_pu(feeder, given), Limits(1.0, 0.9, 1.1, 0.1)
    single = strict(feeder, sources, limits)
    three = joint(single, feeder.n_bus, 3, np.full(4, np.inf))
    factors = (0.3, 0.8, 0.5)
    rhs = [balance_rhs(feeder, f * feeder.p_kw, f * feeder.q_kvar) for f in factors]
    together = ClarabelSolver(three).solve(np.concatenate(rhs)).x
    for k, part in enumerate(rhs):
        alone = ClarabelSolver(single).solve(part).x
        assert together[three.at.p_source][4 * k: 4 * k + 4] == pytest.approx(alone[single.at.p_source], abs=2e-5)
        assert together[three.at.u][33 * k: 33 * k + 33] == pytest.approx(alone[single.at.u], abs=1e-6)


def test_plans_keep_ramps_and_limits_whatever_the_loads():
    network = LineList(10.0, (Line(0, 1, 2.0, 4.0),), (BaseLoad(1, 100.0),))
    sources = {"substation": Source(0, 0.9, p_min_kw=-2000.0),
               "turbine": Source(**{**CLEAN["turbine"], "ramp_kw_per_min": 5.0})}
    dispatch = Dispatch(read_feeder(network), sources, Limits(1.0, 0.9, 1.1, 0.1), "clarabel")
    ramps, rng, before = Ramps(dispatch, 15.0, 4), np.random.default_rng(4), None
    for _ in range(40):
        loads = [(np.array([0.0, p]), np.zeros(2)) for p in rng.uniform(0.0, 800.0, 4)]
        low, high, planned = ramps.boxes(before, 1, loads)
        assert planned
        assert (low <= high).all()
        dispatch.rebox(low, high)
        got = dispatch.solve(*loads[0])
        if before is not None:
            assert abs(got.p_source_kw[1] - before[1]) <= 75.0 + 1e-9
        assert 0.0 <= got.p_source_kw[1] <= 500.0
        assert (got.status, got.inexact) == (0, False)
        before = got.p_source_kw


def test_a_ramp_that_forces_surplus_is_told_and_the_ramp_goes_on():
    # 400 kW, then 50 kW: the ramp leaves 250 kW at least and nobody takes 200 kW back. No dispatch, whatever the
    # relaxation says: held and flagged. The next interval has two ramps' worth of room: 400 - 300 = 100 > 50, held
    # again; the one after reaches 0 and with it 50.
    got = run(started(10.0, solver="clarabel"), [400.0, 50.0, 50.0, 50.0])
    assert [o["grid"]["status"] for o in got] == [0.0, 2.0, 2.0, 0.0]
    assert turbine(got) == pytest.approx([400.0, 400.0, 400.0, 50.0], abs=0.02)
    assert [o["grid"]["inexact"] for o in got] == [0.0, 1.0, 1.0, 0.0]
    assert [o["bus1"]["mci_status"] for o in got][1:3] == [3.0, 3.0]


def test_wrong_ramps_and_forecasts_are_refused():
    with pytest.raises(ScenarioError, match="ramp_kw_per_min = 5 needs p_max_kw"):
        started(None, sources={"substation": {"node": 0, "kg_per_kwh": 0.3, "ramp_kw_per_min": 5.0}})
    with pytest.raises(ScenarioError, match="substation has ramp_kw_per_min; the substation balances"):
        started(None, sources={"substation": {"node": 0, "kg_per_kwh": 0.3, "p_max_kw": 9.0, "ramp_kw_per_min": 5.0}})
    with pytest.raises(ModelError, match="p_ahead_kw has 1 values and lookahead_steps = 3 needs 2"):
        run(started(10.0, 3), [100.0, 200.0], ahead=1)
    assert math.isnan(next(p.default for p in CefDispatch.MODELS["Bus"] if p.name == "p_ahead_kw"))


def test_a_step_down_that_is_seen_is_met_without_surplus():
    # 400 kW, then 200: blind, the ramp of 150 leaves 250 and nobody takes 50 back. A plan gives 350 in the interval
    # before, and the substation the missing 50.
    blind = run(started(10.0, 1, solver="clarabel"), [400.0, 400.0, 200.0])
    assert [o["grid"]["status"] for o in blind] == [0.0, 0.0, 2.0]
    seeing = run(started(10.0, 2, solver="clarabel"), [400.0, 400.0, 200.0], ahead=1)
    assert [o["grid"]["status"] for o in seeing] == [0.0, 0.0, 0.0]
    assert turbine(seeing) == pytest.approx([400.0, 350.0, 200.0], abs=0.02)
