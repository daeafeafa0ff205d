"""NCI caps inside the dispatch (U01, U02, (10)): against brute force, refusals, and what a scenario makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from worlds import run

from cosim.errors import ScenarioError, SolverError
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs
from cosim.simulators.grid.dispatch.nci_limits import NciLimits, size
from cosim.simulators.grid.dispatch.optimal_power_flow import ELASTIC, OPTIMAL, Dispatch, Source
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace
from cosim.trace.compare import first_difference

STAR = LineList(base_kv=10.0, lines=(Line(0, 1, 1.0, 1.0), Line(1, 2, 2.0, 1.0), Line(1, 3, 1.0, 2.0)))
SOURCES = {"substation": Source(0, 0.3), "dirty": Source(2, 0.9, 0.0, 600.0, 0.0, 0.0),
           "fair": Source(3, 0.5, 0.0, 400.0, 0.0, 0.0)}
P_KW, Q_KVAR = np.array([0.0, 100.0, 300.0, 250.0]), np.array([0.0, 30.0, 90.0, 75.0])


def capped(cap: dict[int, float], form: str, lam: float = 0.0, sources=SOURCES, net=STAR, **how) -> Dispatch:
    caps = NciLimits(np.array(list(cap), dtype=np.int64), np.array(list(cap.values())), form)
    try:
        return Dispatch(read_feeder(net), sources, Limits(1.0, 0.9, 1.1, lam), "gurobi", caps=caps, **how)
    except SolverError as err:
        if "not installed" in str(err) or "does not run here" in str(err):
            pytest.skip(str(err))
        raise


def brute_force(dispatch: Dispatch) -> tuple[float, np.ndarray]:
    """Least objective and set points (2,) of all on ever finer grids whose exact NCI keeps the caps."""
    low, high, best = np.zeros(2), np.array([600.0, 400.0]), (math.inf, np.zeros(2))
    for _ in range(5):
        for a in np.linspace(low[0], high[0], 25):
            for b in np.linspace(low[1], high[1], 25):
                x = np.zeros(dispatch.problem.at.size)
                x[dispatch.problem.at.p_source] = np.array([0.0, a, b]) / 1000.0
                got = dispatch._evaluate(dispatch.problem, x, P_KW, Q_KVAR, np.zeros(4))
                if got is None or got.objective_kw >= best[0]:
                    continue
                if (got.nci_kg_per_kwh[dispatch.caps.bus] <= dispatch.caps.kg_per_kwh + 1e-9).all():
                    best = got.objective_kw, np.array([a, b])
        span = (high - low) / 10.0
        low, high = np.maximum(best[1] - span, 0.0), np.minimum(best[1] + span, [600.0, 400.0])
    return best


@pytest.mark.long(after=1)
@pytest.mark.parametrize("form", ["big_m", "sos1"])
@pytest.mark.parametrize(("cap", "lam"), [({2: 0.5}, 0.0), ({1: 0.4, 2: 0.6}, 0.01)])
@pytest.mark.rows("E10", "U01", "U02")
def test_both_formulations_agree_with_brute_force(form: str, cap: dict, lam: float):
    dispatch = capped(cap, form, lam)
    got, (least, where) = dispatch.solve(P_KW, Q_KVAR), brute_force(dispatch)
    free = Dispatch(dispatch.feeder, SOURCES, dispatch.limits, "clarabel").solve(P_KW, Q_KVAR)
    assert got.status == OPTIMAL
    assert not got.inexact
    assert got.relaxation_gap_pu <= 1e-6
    assert got.global_gap_ratio <= 1e-6
    for bus, most in cap.items():
        assert got.nci_kg_per_kwh[bus] <= most + 1e-5
    assert dispatch.caps.excess(free.nci_kg_per_kwh) > 0.01  # the caps are not met by themselves,
    assert free.objective_kw < got.objective_kw - 1e-3  # it costs something,
    assert got.objective_kw == pytest.approx(least, rel=2e-3)  # no less than the best of the finest grid,
    assert got.objective_kw <= least * (1.0 + 1e-5)  # and no more
    assert got.p_source_kw[1:] == pytest.approx(where, abs=3.0)


@pytest.mark.parametrize("form", ["big_m", "sos1"])
@pytest.mark.rows("U02")
def test_a_cap_that_does_not_bind_changes_nothing(form: str):
    got = capped({2: 0.95}, form).solve(P_KW, Q_KVAR)
    free = Dispatch(read_feeder(STAR), SOURCES, Limits(1.0, 0.9, 1.1, 0.0), "clarabel").solve(P_KW, Q_KVAR)
    assert got.objective_kw == pytest.approx(free.objective_kw, rel=1e-5)
    assert got.p_source_kw == pytest.approx(free.p_source_kw, abs=0.5)


CHAIN = LineList(base_kv=10.0, lines=(Line(0, 1, 1.0, 1.0), Line(1, 2, 1.0, 1.0)))
MUST = {"substation": Source(0, 0.3), "dirty": Source(1, 0.9, 100.0, 100.0, 0.0, 0.0)}


def test_a_cap_met_only_by_losses_that_do_not_occur_is_refused():
    # 100 kW at 0.9 must run at bus 1; with 100 kW drawn there and 100 behind it, bus 1 mixes (90 + 30) / 200 = 0.6, and
    # no set point can change that. The relaxation burns 100 kW behind bus 1, which draws more clean power past it.
    dispatch, p = capped({1: 0.5}, "big_m", 0.01, MUST, CHAIN), np.array([0.0, 100.0, 100.0])
    relaxed = dispatch._capped.solve(balance_rhs(dispatch.feeder, p, 0 * p), p, exact=False)
    gap, _ = dispatch._gaps(relaxed.x, dispatch.problem)
    assert gap.max() > 1.0  # p.u.: what the cap rewards
    got = dispatch.solve(p, 0 * p)
    assert got.status == ELASTIC
    assert got.nci_kg_per_kwh[1] == pytest.approx(0.6, abs=1e-3)
    assert got.nci_cap_excess_kg_per_kwh == pytest.approx(got.nci_kg_per_kwh[1] - 0.5)
    assert dispatch.capped_status == "INFEASIBLE"
    calm = dispatch.solve(3 * p, 0 * p)  # (90 + 500 x 0.3) / 600 = 0.4
    assert (calm.status, calm.nci_cap_excess_kg_per_kwh) == (OPTIMAL, 0.0)


def test_export_and_local_generation_count():
    # 300 kW must run at 0.9 at bus 1, 50 are fed in at bus 2 without carbon; the rest is exported at bus 0, whose own
    # NCI is bus 1's: (300 x 0.9 + ~50 x 0) / 350. A second turbine at 0.2 at bus 1 brings it down to the cap.
    sources = {"grid": Source(0, 0.3, -5000.0), "must": Source(1, 0.9, 300.0, 300.0, 0.0, 0.0),
               "clean": Source(1, 0.2, 0.0, 900.0, 0.0, 0.0)}
    p = np.array([0.0, 0.0, -50.0])
    for form in ("big_m", "sos1"):
        got = capped({0: 0.6}, form, 0.0, sources, CHAIN).solve(p, 0 * p)
        # (270 + 0.2 c) / (350 + c) = 0.6 at c = 150, with the 50 kW less their loss on the way
        assert got.p_source_kw[2] == pytest.approx(150.0, abs=0.1)
        assert got.nci_kg_per_kwh[:2] == pytest.approx([0.6, 0.6], abs=1e-5)


@pytest.mark.rows("U02")
def test_who_cannot_do_it_says_so():
    caps = NciLimits(np.array([8]), np.array([0.4]), "sos1")
    limits, feeder = Limits(1.0, 0.9, 1.1, 0.01), read_feeder("case33bw")
    with pytest.raises(SolverError, match="nonconvex MIQCP, which clarabel does not solve: --set grid.solver=gurobi"):
        Dispatch(feeder, {"s": Source(0, 0.3)}, limits, "clarabel", caps=caps)
    # 131 variables of the dispatch with one source, 33 intensities, and p+, p- of 64 line ends
    dispatch = Dispatch(feeder, {"s": Source(0, 0.3)}, limits, "clarabel")
    assert size(dispatch.problem, feeder, dispatch.sources, "sos1") == 131 + 33 + 128
    try:
        Dispatch(feeder, {"s": Source(0, 0.3)}, limits, "gurobi", caps=caps)
    except SolverError as err:
        assert ("not installed" in str(err) or "does not run here" in str(err)  # noqa: PT017 - or it is licensed
                or "has 292 variables and Gurobi's size-limited licence allows 200" in str(err))


def test_the_size_counts_what_is_built():
    for form in ("big_m", "sos1"):
        dispatch = capped({2: 0.5}, form)
        model = dispatch._capped._model(dispatch.problem.rhs, P_KW, exact=False)
        model.update()
        assert model.NumVars == size(dispatch.problem, dispatch.feeder, dispatch.sources, form)


@pytest.mark.long
def test_a_scenario_with_a_cap_runs_alike_under_both_drivers(tmp_path):
    # two_bus with its turbine at 0.9 kg/kWh and lambda 0: it would run at its 50 kW to save loss. A share s of what
    # bus 1 draws gives 0.3 + 0.6 s = 0.4: s = 1/6, of 85, 99 and 100 kW (see test_two_bus).
    capped({1: 0.9}, "big_m", net=CHAIN, sources=MUST)  # skips without Gurobi
    scenario = override(find("two_bus"), {
        "grid.solver": "gurobi", "grid.nci_cap_kg_per_kwh": {"bus1": 0.4}, "grid.lambda_kw_per_kg_h": 0.0,
        "grid.sources.turbine.kg_per_kwh": 0.9})
    paths = [run(scenario, tmp_path / f"{d}.h5", driver=d).path for d in ("mosaik", "native")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        assert trace["grid/Grid/status"][:, 0].tolist() == [0.0] * 3
        assert trace["grid/Bus/nci_kg_per_kwh"][:, 1] == pytest.approx([0.4] * 3, abs=1e-4)
        assert trace["grid/Grid/p_source_kw"][:, 0, 1] == pytest.approx([85 / 6, 99 / 6, 100 / 6], abs=0.01)
        assert (trace["grid/Grid/global_gap_ratio"][:, 0] <= 1e-6).all()
        assert np.isnan(trace["grid/Bus/mci_kg_per_kwh"]).all()


def test_a_cap_that_cannot_be_met_is_named():
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, seed=1, network={"base_kv": 10.0, "lines": [
        {"from_bus": 0, "to_bus": 1, "r_ohm": 1.0, "x_ohm": 1.0}]}, sources={"s": {"node": 0, "kg_per_kwh": 0.3}},
        nci_cap_kg_per_kwh={"bus1": 0.2}, solver="gurobi")
    grid.create(1, "Bus", names=["bus1"])
    grid.create(1, "Grid", names=["grid"])
    try:
        grid.setup_done()
    except SolverError as err:
        pytest.skip(str(err))
    grid.step(0, {"bus1": {"p_load_kw": {"a": 100.0}}}, 15)
    out = grid.get_data({"grid": ["status", "nci_cap_excess_kg_per_kwh"]})["grid"]
    assert out == {"status": 1.0, "nci_cap_excess_kg_per_kwh": pytest.approx(0.1)}
    assert any("bus1 is 0.100 kg/kWh above its cap of 0.2" in line for line in grid.notes())
    with pytest.raises(ScenarioError, match="a cap is 0 or more"):
        CefDispatch().init("grid", 60.0, sources={"s": {"node": 0, "kg_per_kwh": 0.3}},
                           nci_cap_kg_per_kwh={"bus1": -0.1})


def test_a_time_limit_ends_a_solve_and_says_so():
    feeder = read_feeder(LineList(base_kv=10.0, loads=(BaseLoad(1, 100.0),), lines=(Line(0, 1, 1.0, 1.0),)))
    dispatch = Dispatch(feeder, {"s": Source(0, 0.3)}, Limits(1.0, 0.9, 1.1, 0.0), "clarabel", time_limit_s=1e-9)
    with pytest.raises(SolverError, match="time limit of 1e-09 s ended it; raise it by --set grid.time_limit_s"):
        dispatch.solve(feeder.p_kw, feeder.q_kvar)
