"""More local generation than can go anywhere: what is curtailed, and who is named."""

from __future__ import annotations

import numpy as np
import pytest

from cosim.errors import SolverError
from cosim.experiment import Experiment
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import OPTIMAL
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.network.feeder import LineList
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace

LINES = LineList(base_kv=10.0, lines=[{"from_bus": k, "to_bus": k + 1, "r_ohm": 0.4, "x_ohm": 0.4} for k in range(3)])
NOTHING = np.zeros(4)
WEIGHTS = ({}, {"loss_weight": 0.0, "cost_kw_per_usd_h": 1.0}, {"lambda_kw_per_kg_h": 0.0})


def dispatch(weights: dict | None = None, takes_kw: float = 0.0, **sources: Source) -> Dispatch:
    limits = Limits(**{"v0_pu": 1.0, "v_min_pu": 0.9, "v_max_pu": 1.1, "lambda_kw_per_kg_h": 0.01, **(weights or {})})
    up = Source(node=0, kg_per_kwh=0.3, usd_per_kwh=0.1, p_min_kw=-takes_kw)
    return Dispatch(read_feeder(LINES), {"up": up, **sources}, limits, "clarabel")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("takes_kw", [0.0, 50.0])
@pytest.mark.rows("E08", "M04")
def test_a_surplus_is_curtailed_to_what_is_drawn_and_taken_back(weights, takes_kw):
    got = dispatch(weights, takes_kw).solve(np.array([0.0, 0.0, 100.0, -300.0]), NOTHING)
    assert got.status == OPTIMAL
    assert got.curtailed_bus_kw == pytest.approx([0.0, 0.0, 0.0, 200.0 - takes_kw], abs=1e-9)
    assert got.curtailed_kw == pytest.approx(200.0 - takes_kw, abs=1e-9)
    assert got.p_source_kw[0] == pytest.approx(got.loss_kw - takes_kw, abs=1e-6)  # the substation covers losses
    assert got.p_load_kw.tolist() == pytest.approx([0.0, 0.0, 100.0, -100.0 - takes_kw])
    assert got.emission_kg_per_h == pytest.approx(0.3 * max(got.p_source_kw[0], 0.0), abs=1e-9)


@pytest.mark.rows("M04")
def test_export_is_one_field_and_then_nothing_is_curtailed():
    got = dispatch(takes_kw=300.0).solve(np.array([0.0, 0.0, 100.0, -300.0]), NOTHING)
    assert not got.curtailed_bus_kw.any()
    assert got.p_source_kw[0] == pytest.approx(-200.0 + got.loss_kw, abs=1e-6)


@pytest.mark.rows("E04")
def test_every_bus_that_feeds_loses_the_same_share():
    got = dispatch().solve(np.array([0.0, -100.0, 100.0, -300.0]), NOTHING)
    assert got.curtailed_bus_kw == pytest.approx([0.0, 75.0, 0.0, 225.0])


def test_sources_are_lowered_before_negative_demand():
    solar = Source(node=2, kg_per_kwh=0.0, p_max_kw=500.0, q_min_kvar=0.0, q_max_kvar=0.0, renewable=True)
    gas = Source(node=1, kg_per_kwh=0.5, p_min_kw=20.0, p_max_kw=80.0, q_min_kvar=0.0, q_max_kvar=0.0)
    d = dispatch(gas=gas, solar=solar)
    little = d.solve(np.array([0.0, 0.0, 150.0, -100.0]), NOTHING)  # the gas turbine must give 20 of the 50 kW
    assert not little.curtailed_bus_kw.any()
    assert little.p_source_kw[1] == pytest.approx(20.0, abs=0.02)
    assert little.p_source_kw[2] == pytest.approx(30.0, abs=1.0)
    much = d.solve(np.array([0.0, 0.0, 150.0, -200.0]), NOTHING)
    assert much.p_source_kw == pytest.approx([0.0, 20.0, much.loss_kw], abs=0.02)  # sun is cleaner than the substation
    assert much.curtailed_bus_kw.sum() == pytest.approx(70.0)
    assert much.curtailed_kw == pytest.approx(570.0 - much.p_source_kw[2])


def test_who_must_run_above_what_is_drawn_is_named_with_the_field_that_helps():
    gas = Source(node=1, kg_per_kwh=0.5, p_min_kw=400.0, p_max_kw=400.0, q_min_kvar=0.0, q_max_kvar=0.0)
    with pytest.raises(SolverError, match=r"gas 400 kW.*up takes back \(p_min_kw = 0\).*grid.sources.up.p_min_kw=-300"):
        dispatch(gas=gas).solve(np.array([0.0, 0.0, 100.0, -50.0]), NOTHING)
    up = Source(node=0, kg_per_kwh=0.3, p_min_kw=200.0)
    d = Dispatch(read_feeder(LINES), {"up": up}, Limits(1.0, 0.9, 1.1, 0.01), "clarabel")
    with pytest.raises(SolverError, match=r"up must give 200 kW \(p_min_kw\) and 100 kW are drawn"):
        d.solve(np.array([0.0, 0.0, 100.0, -50.0]), NOTHING)


def test_what_was_curtailed_is_not_there_when_the_interval_is_settled():
    d = dispatch()
    demand = np.array([0.0, 0.0, 100.0, -300.0])
    got = d.solve(demand, NOTHING)
    assert d.settle(got, demand, NOTHING).p_substation_kw == pytest.approx(got.p_source_kw[0], abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"grid.lookahead_steps": "3",
                                           "grid.sources.turbine.ramp_kw_per_min": "5"}])
def test_a_run_with_one_such_interval_says_how_much_and_who(tmp_path, settings):
    """-120 kW of base load from 00:15 on, some 37 kW drawn by the site at the same bus."""
    base = tmp_path / "base.csv"
    base.write_text("time_s,bus1.p_kw,bus1.q_kvar\n0,60,20\n900,-120,0\n1800,60,20\n2700,60,20\n")
    two = replay(override(find("two_bus"), settings), "profile", str(base))
    result = Experiment(two, "native", out=tmp_path / "t.h5").run()
    with Trace(result.path) as trace:
        lost = trace["grid/Grid/curtailed_bus_kw"][:, 0]
        site = trace["aidc/Site/p_window_kw"][14, 0]
        assert lost[[0, 2]].tolist() == [[0.0, 0.0], [0.0, 0.0]]
        assert lost[1] == pytest.approx([0.0, 120.0 - site], abs=1e-9)
        assert trace["grid/Grid/p_local_bus_kw"][1, 0].tolist() == [0.0, 0.0]
        assert verify(trace).broken == []
    assert result.digest.figures["curtailed_kwh"] == pytest.approx((120.0 - site) / 4)
    assert any("bus1 feeds" in note and "grid.sources.substation.p_min_kw" in note for note in result.notes)


def test_an_ac_power_flow_says_that_its_substation_takes_power_back():
    grid = AcPowerFlow()
    grid.init("grid", 60.0, step_s=900.0, network=LINES, sources={"up": {"node": 0, "kg_per_kwh": 0.3}})
    grid.create(1, "Bus", names=["bus3"])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    grid.step(0, {"bus3": {"p_load_kw": {"x": -300.0}}}, 15)
    (note,) = grid.notes()
    assert "up takes back power in 1 steps, at most 29" in note
