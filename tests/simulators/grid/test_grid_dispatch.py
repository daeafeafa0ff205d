"""The conic dispatch: published figures, closed forms, AC power flow, two solvers, and limits that cannot be met."""

from __future__ import annotations

import logging

import numpy as np
import pandapower
import pytest
from networktruth import branch_carbon

from cosim.errors import ScenarioError, SolverError
from cosim.params import validate
from cosim.simulators.grid.dispatch import gurobi_solver
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs, elastic
from cosim.simulators.grid.dispatch.optimal_power_flow import (
    ELASTIC,
    OPTIMAL,
    Dispatch,
    DispatchResult,
    InexactRelaxation,
    Source,
)
from cosim.simulators.grid.equations import generated_carbon
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder

SUBSTATION = {"substation": Source(0, 0.30)}
TABLE_I = {
    **SUBSTATION,
    "gt6": Source(6, 0.35, 0.0, 500.0, -300.0, 300.0),
    "gt25": Source(25, 0.65, 0.0, 500.0, -300.0, 300.0),
    "gt30": Source(30, 0.90, 0.0, 500.0, -300.0, 300.0),
}
LAMBDAS = (0.0, 0.01, 0.1, 1.0)
AIDCS = [8, 28, 32]
TWO_BUSES = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 4.0),), loads=(BaseLoad(1, 500.0, 200.0),))


def limits(lam: float = 0.01, v_min: float = 0.9, v_max: float = 1.1, v0: float = 1.0) -> Limits:
    return Limits(v0, v_min, v_max, lam)


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("case33bw")


@pytest.fixture(params=["clarabel", "gurobi"])
def solver(request):
    if request.param == "gurobi":
        try:
            Dispatch(read_feeder(TWO_BUSES), SUBSTATION, limits(), "gurobi")
        except SolverError as err:
            pytest.skip(str(err))
    return request.param


def operating_points(feeder, count: int, seed: int):
    """Loads x 0.3..1.0 and three data centres of 100..480 kW with 0.2 kvar/kW."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scale, aidc = rng.uniform(0.3, 1.0), rng.uniform(100.0, 480.0, 3)
        p, q = feeder.p_kw * scale, feeder.q_kvar * scale
        p[AIDCS] += aidc
        q[AIDCS] += 0.2 * aidc
        yield p, q


def assert_carbon_is_conserved(dispatch: Dispatch, r: DispatchResult) -> None:
    """Generated = drawn + lost + exported, in kg/h."""
    f, s = dispatch.feeder, dispatch.sources
    drawn = r.nci_kg_per_kwh @ np.maximum(r.p_load_kw, 0.0)
    exported = (r.nci_kg_per_kwh[s.bus] * np.maximum(-r.p_source_kw, 0.0)).sum()
    lost = np.sum(branch_carbon(r.nci_kg_per_kwh, f.parent, f.child, r.p_from_kw, r.p_to_kw))
    assert r.emission_kg_per_h == pytest.approx(generated_carbon(r.p_source_kw, s.kg_per_kwh), abs=1e-12)
    assert drawn + lost + exported == pytest.approx(r.emission_kg_per_h, abs=1e-6)


def test_nominal_load_with_the_substation_alone(feeder, solver):
    r = Dispatch(feeder, SUBSTATION, limits(), solver).solve(feeder.p_kw, feeder.q_kvar)
    assert r.status == OPTIMAL
    assert r.loss_kw == pytest.approx(202.68, abs=0.1)
    assert r.conic_loss_kw == pytest.approx(r.loss_kw, abs=1e-3)
    assert int(r.vm_pu.argmin()) == 17
    assert r.vm_pu[17] == pytest.approx(0.9131, abs=1e-4)
    assert r.nci_kg_per_kwh == pytest.approx(np.full(33, 0.30), abs=1e-12)


@pytest.mark.long(after=1)
@pytest.mark.rows("E01-03", "E06", "E08-10", "P02", "P03")
def test_dispatch_equals_ac_power_flow_at_200_operating_points(feeder, solver):
    ac = AcCheck("case33bw", [6, 25, 30], 1.0)
    for k, lam in enumerate(LAMBDAS):
        dispatch = Dispatch(feeder, TABLE_I, limits(lam), solver)
        for p, q in operating_points(feeder, 50, seed=k):
            r = dispatch.solve(p, q)
            flow = ac.run(p, q, r.p_source_kw[1:], r.q_source_kvar[1:], r.v_pu)
            p_source = np.concatenate([[flow.p_substation_kw], r.p_source_kw[1:]])
            nci = dispatch.nci(flow.p_from_kw, flow.p_to_kw, p_source, p)
            assert r.status == OPTIMAL
            assert np.abs(r.conic_vm_pu - flow.vm_pu).max() <= 1e-6
            assert np.abs(r.vm_pu - flow.vm_pu).max() <= 1e-9
            assert abs(r.conic_loss_kw - flow.loss_kw) <= 1e-3
            assert abs(r.loss_kw - flow.loss_kw) <= 1e-6
            assert np.abs(r.nci_kg_per_kwh - nci).max() <= 1e-6
            assert r.relaxation_gap_pu <= 1e-6
            assert not r.inexact
            assert_carbon_is_conserved(dispatch, r)


@pytest.mark.rows("I38")
def test_both_solvers_find_the_same_optimum(feeder):
    for k, lam in enumerate(LAMBDAS):
        try:
            one = Dispatch(feeder, TABLE_I, limits(lam), "gurobi")
        except SolverError as err:
            pytest.skip(str(err))
        other = Dispatch(feeder, TABLE_I, limits(lam), "clarabel")
        for p, q in operating_points(feeder, 15, seed=10 + k):
            a, b = one.solve(p, q), other.solve(p, q)
            assert a.objective_kw == pytest.approx(b.objective_kw, rel=1e-6)
            assert np.abs(a.nci_kg_per_kwh - b.nci_kg_per_kwh).max() <= 1e-3


def test_an_answer_depends_on_its_own_loads_only(feeder, solver):
    points = list(operating_points(feeder, 6, seed=5))
    dispatch = Dispatch(feeder, TABLE_I, limits(0.1), solver)
    forward = [dispatch.solve(p, q) for p, q in points]
    dispatch.solve(20 * feeder.p_kw, 20 * feeder.q_kvar)
    backward = [dispatch.solve(p, q) for p, q in reversed(points)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert a.nci_kg_per_kwh.tobytes() == b.nci_kg_per_kwh.tobytes()
        assert a.p_source_kw.tobytes() == b.p_source_kw.tobytes()


@pytest.mark.rows("E11", "I23", "P06")
def test_a_higher_price_of_carbon_trades_loss_for_emission(feeder):
    p, q = next(operating_points(feeder, 1, seed=2))
    results = [Dispatch(feeder, TABLE_I, limits(lam), "clarabel").solve(p, q) for lam in (0.0, 0.05, 0.2, 1.0, 10.0)]
    losses, emissions = [r.loss_kw for r in results], [r.emission_kg_per_h for r in results]
    assert losses == sorted(losses)
    assert emissions == sorted(emissions, reverse=True)
    assert losses[-1] > losses[0] + 10.0
    assert emissions[-1] < emissions[0] - 50.0


# --- two buses by hand ------------------------------------------------------------------------------------------------

def high_root(r: float, x: float, p: float, q: float) -> float:
    """u at the far end of one line under p + jq (p.u.), see test_grid_equations."""
    b = 1.0 - 2 * (r * p + x * q)
    return (b + np.sqrt(b * b - 4 * (r * r + x * x) * (p * p + q * q))) / 2


@pytest.mark.rows("E03", "E11")
def test_two_buses_without_a_choice(solver):
    # z = (2 + 4j) / 100 p.u., load 0.5 + 0.2j p.u.: everything comes from the substation at 0.3 kg/kWh.
    r, x, p, q = 0.02, 0.04, 0.5, 0.2
    u = high_root(r, x, p, q)
    loss = r * (p * p + q * q) / u * 1000.0
    got = Dispatch(read_feeder(TWO_BUSES), SUBSTATION, limits(0.01), solver).solve(np.array([0, 500.0]),
                                                                                   np.array([0, 200.0]))
    assert got.vm_pu == pytest.approx([1.0, np.sqrt(u)], abs=1e-12)
    assert got.loss_kw == pytest.approx(loss, abs=1e-9)
    assert got.p_source_kw == pytest.approx([500.0 + loss], abs=1e-9)
    assert got.q_source_kvar == pytest.approx([200.0 + 2 * loss], abs=1e-9)  # x = 2 r
    assert got.emission_kg_per_h == pytest.approx(0.3 * (500.0 + loss), abs=1e-9)
    assert got.objective_kw == pytest.approx(loss + 0.01 * 0.3 * (500.0 + loss), abs=1e-9)
    assert got.nci_kg_per_kwh == pytest.approx([0.3, 0.3], abs=1e-15)


@pytest.mark.rows("B08", "I22", "P06")
def test_two_buses_in_power_mode_generate_next_to_the_load(solver):
    # lambda = 0: each kW made at the load saves loss, so the generator runs at its 300 kW and 200 kvar. 200 kW arrive
    # over the line: w1 = (200 * 0.3 + 300 * 0.9) / 500 = 0.66.
    sources = {**SUBSTATION, "gt": Source(1, 0.9, 0.0, 300.0, -200.0, 200.0)}
    got = Dispatch(read_feeder(TWO_BUSES), sources, limits(0.0), solver).solve(np.array([0, 500.0]),
                                                                               np.array([0, 200.0]))
    loss = 0.02 * 0.2**2 / high_root(0.02, 0.04, 0.2, 0.0) * 1000.0
    assert got.p_source_kw == pytest.approx([200.0 + loss, 300.0], abs=1e-4)
    assert got.loss_kw == pytest.approx(loss, abs=1e-5)
    assert got.nci_kg_per_kwh == pytest.approx([0.3, 0.66], abs=1e-6)


def test_two_buses_where_carbon_decides(solver):
    # 1 kW more from the generator costs lambda (0.9 - 0.3) kW and saves at most dloss/dp < 0.03 kW: it stays off.
    sources = {**SUBSTATION, "gt": Source(1, 0.9, 0.0, 300.0, 0.0, 0.0)}
    got = Dispatch(read_feeder(TWO_BUSES), sources, limits(0.1), solver).solve(np.array([0, 500.0]),
                                                                               np.array([0, 200.0]))
    assert got.p_source_kw[1] == pytest.approx(0.0, abs=1e-4)
    assert got.nci_kg_per_kwh == pytest.approx([0.3, 0.3], abs=1e-6)


@pytest.mark.rows("M04")
def test_export_leaves_with_the_intensity_of_its_bus():
    # 3000 kW must be made at bus 1, 500 are drawn there, the rest goes back through the substation: all at 0.9.
    sources = {"grid": Source(0, 0.3, -5000.0), "gt": Source(1, 0.9, 3000.0, 3000.0, 0.0, 0.0)}
    dispatch = Dispatch(read_feeder(TWO_BUSES), sources, limits(0.0), "clarabel")
    got = dispatch.solve(np.array([0, 500.0]), np.array([0, 200.0]))
    assert got.p_source_kw[0] == pytest.approx(-2500.0 + got.loss_kw, abs=1e-9)
    assert got.nci_kg_per_kwh == pytest.approx([0.9, 0.9], abs=1e-12)
    assert_carbon_is_conserved(dispatch, got)


def test_negative_demand_is_generation_without_carbon():
    # 400 kW of the 500 drawn at bus 1 are matched by 300 kW fed in at bus 2 of a line without load of its own.
    net = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 4.0), Line(1, 2, 1e-6, 1e-6)))
    dispatch = Dispatch(read_feeder(net), SUBSTATION, limits(0.01), "clarabel")
    got = dispatch.solve(np.array([0.0, 500.0, -300.0]), np.zeros(3))
    assert got.nci_kg_per_kwh == pytest.approx([0.3, 0.3 * 200 / 500, 0.0], abs=1e-6)
    assert_carbon_is_conserved(dispatch, got)


def test_charged_cables_agree_with_ac_power_flow(tmp_path):
    # 20 km of cable at 10 kV and 300 nF/km feed about 190 kvar, some 40 % of what this load draws.
    net = pandapower.create_empty_network()
    pandapower.create_buses(net, 3, vn_kv=10.0)
    for bus in (0, 1):
        pandapower.create_line_from_parameters(net, bus, bus + 1, 10.0, 0.2, 0.12, 300.0, 1.0)
    pandapower.create_load(net, 2, p_mw=1.2, q_mvar=0.5)
    pandapower.create_ext_grid(net, 0)
    path = str(tmp_path / "cable.json")
    pandapower.to_json(net, path)
    feeder = read_feeder(path)
    got = Dispatch(feeder, SUBSTATION, limits(v_min=0.8), "clarabel").solve(feeder.p_kw, feeder.q_kvar)
    flow = AcCheck(path, [], 1.0).run(feeder.p_kw, feeder.q_kvar, np.zeros(0), np.zeros(0))
    assert got.conic_vm_pu == pytest.approx(flow.vm_pu, abs=1e-6)
    assert got.vm_pu == pytest.approx(flow.vm_pu, abs=1e-10)
    assert got.loss_kw == pytest.approx(flow.loss_kw, abs=1e-6)
    assert got.q_source_kvar[0] == pytest.approx(flow.q_slack_kvar.sum(), abs=1e-5)


# --- when limits cannot be met ----------------------------------------------------------------------------------------

def with_aidcs(feeder, each_kw: float):
    p, q = feeder.p_kw.copy(), feeder.q_kvar.copy()
    p[AIDCS] += each_kw
    q[AIDCS] += 0.2 * each_kw
    return p, q


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.rows("E07", "I06", "P01")
def test_the_edge_of_feasibility(feeder, solver, lam: float):
    # At nominal load three data centres of 627 kW still fit, of 629 no longer (V >= 0.9); power is never cut for that.
    dispatch = Dispatch(feeder, TABLE_I, limits(lam), solver)
    inside, outside = dispatch.solve(*with_aidcs(feeder, 627.0)), dispatch.solve(*with_aidcs(feeder, 629.0))
    assert (inside.status, inside.voltage_violation_pu, inside.unserved_kw.sum()) == (OPTIMAL, 0.0, 0.0)
    assert (outside.status, outside.unserved_kw.sum()) == (ELASTIC, 0.0)
    assert 1e-5 < outside.voltage_violation_pu < 1e-3
    assert outside.voltage_violation_pu == pytest.approx(0.9 - outside.vm_pu.min(), abs=1e-12)


@pytest.mark.rows("I06", "I30")
def test_three_times_five_megawatts(feeder, solver):
    dispatch = Dispatch(feeder, TABLE_I, limits(), solver)
    p, q = with_aidcs(feeder, 5000.0)
    r = dispatch.solve(p, q)
    assert r.status == ELASTIC
    assert 5000.0 < r.unserved_kw.sum() < 15000.0
    assert (r.unserved_kw >= 0.0).all()
    assert r.p_load_kw == pytest.approx(p - r.unserved_kw, abs=1e-9)
    assert r.q_load_kvar == pytest.approx(q * r.p_load_kw / np.where(p > 0, p, 1.0), abs=1e-9)
    assert r.vm_pu.min() == pytest.approx(0.7, abs=1e-4)
    assert_carbon_is_conserved(dispatch, r)
    flow = AcCheck("case33bw", [6, 25, 30], 1.0).run(r.p_load_kw, r.q_load_kvar, r.p_source_kw[1:],
                                                     r.q_source_kvar[1:])
    assert flow.vm_pu == pytest.approx(r.vm_pu, abs=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.rows("I30")
def test_a_feasible_problem_never_pays_the_penalties(feeder, lam: float):
    dispatch = Dispatch(feeder, TABLE_I, limits(lam), "clarabel")
    points = [*operating_points(feeder, 8, seed=20), *(with_aidcs(feeder, each) for each in (600.0, 620.0, 627.0))]
    for p, q in points:
        problem = elastic(feeder, dispatch.sources, dispatch.limits, p, q, np.flatnonzero(p > 0.0))
        x = ClarabelSolver(problem).solve(balance_rhs(feeder, p, q)).x
        assert np.abs(x[problem.at.slack]).max() <= 1e-7
        assert np.abs(x[problem.at.unserved]).max() <= 1e-7
        p_source = x[problem.at.p_source] * feeder.base_kw
        loss_kw = feeder.r_pu @ x[problem.at.l] * feeder.base_kw
        objective = loss_kw + lam * p_source @ dispatch.sources.kg_per_kwh
        assert objective == pytest.approx(dispatch.solve(p, q).objective_kw, rel=1e-5)


def test_too_high_a_voltage_is_flagged():
    # 3000 kW fed back over r = 0.02 p.u. lift bus 1 to about 1.05 p.u., and nothing can be done about it.
    sources = {"grid": Source(0, 0.3, -5000.0), "gt": Source(1, 0.9, 3000.0, 3000.0, 0.0, 0.0)}
    got = Dispatch(read_feeder(TWO_BUSES), sources, limits(0.0, v_max=1.02), "clarabel").solve(np.zeros(2), np.zeros(2))
    assert got.status == ELASTIC
    assert got.voltage_violation_pu == pytest.approx(got.vm_pu[1] - 1.02, abs=1e-12)
    assert 0.02 < got.voltage_violation_pu < 0.04


def test_more_generation_than_anybody_takes_has_no_solution(solver):
    sources = {**SUBSTATION, "gt": Source(1, 0.9, 3000.0, 3000.0)}
    dispatch = Dispatch(read_feeder(TWO_BUSES), sources, limits(), solver)
    with pytest.raises(SolverError, match="no solution, nor .*p_min_kw .* makes gt 3000 kW give more"):
        dispatch.solve(np.array([0, 500.0]), np.array([0, 200.0]))


# --- where the relaxation is not exact ------------------------------------------------------------------------------

def test_a_binding_upper_voltage_with_reverse_flow_is_recovered(solver):
    # Clean power at bus 1, dirty upstream, lambda 1: bus 1 exports what V1 <= 1.02 allows, at unity power factor. The
    # relaxation finds more, by a loss that lowers the voltage. Exactly, with P1 fed in and u1 = 1.02^2:
    # u1^2 - (1 + 2 r P1) u1 + |z|^2 P1^2 = 0, smaller root.
    r, x, u = 0.02, 0.04, 1.02**2
    zz = r * r + x * x
    limit_kw = (2 * r * u - np.sqrt((2 * r * u) ** 2 - 4 * zz * (u * u - u))) / (2 * zz) * 1000.0
    sources = {"grid": Source(0, 0.9, -5000.0), "pv": Source(1, 0.0, 0.0, 3000.0, 0.0, 0.0)}
    dispatch = Dispatch(read_feeder(TWO_BUSES), sources, limits(1.0, v_max=1.02), solver)
    got = dispatch.solve(np.zeros(2), np.zeros(2))
    assert (got.status, got.inexact) == (OPTIMAL, True)
    assert got.relaxation_gap_ratio.max() > 0.1
    assert got.conic_loss_kw > 2 * got.loss_kw  # what the relaxation burns, and what is lost
    assert got.p_source_kw[1] == pytest.approx(limit_kw, rel=1e-6)
    assert got.vm_pu[1] == pytest.approx(1.02, abs=1e-7)
    assert got.loss_kw == pytest.approx(r * (limit_kw / 1000.0) ** 2 / u * 1000.0, rel=1e-5)
    calm = dispatch.solve(np.array([0.0, 3000.0]), np.zeros(2))
    assert (calm.status, calm.inexact) == (OPTIMAL, False)


def test_recovered_set_points_are_a_local_optimum_that_ac_power_flow_confirms():
    # Up to 3 MW of clean power at the ends of two overhead laterals (x = 3 r), export allowed: V <= 1.02 binds.
    net = LineList(base_kv=10.0, lines=tuple(Line(a, b, 1.0, 3.0) for a, b in ((0, 1), (1, 2), (2, 3), (1, 4))))
    sources = {"substation": Source(0, 0.9, -9000.0), **{
        f"pv{k}": Source(k, 0.0, 0.0, 3000.0, -100.0, 100.0) for k in (3, 4)}}
    p, q = np.array([0.0, 200.0, 300.0, 100.0, 200.0]), np.array([0.0, 50.0, 100.0, 20.0, 60.0])
    dispatch = Dispatch(read_feeder(net), sources, limits(1.0, v_max=1.02), "clarabel")
    got = dispatch.solve(p, q)
    assert (got.status, got.inexact) == (OPTIMAL, True)
    flow = AcCheck(net, [3, 4], 1.0).run(p, q, got.p_source_kw[1:], got.q_source_kvar[1:])
    assert flow.vm_pu.max() == pytest.approx(1.02, abs=1e-6)
    assert flow.loss_kw == pytest.approx(got.loss_kw, abs=1e-5)
    rng, better = np.random.default_rng(0), 0
    for _ in range(300):
        s = got.p_source_kw[1:] + 1j * got.q_source_kvar[1:] + rng.normal(size=2) + 1j * rng.normal(size=2)
        if (s.real > 3000.0).any() or (abs(s.imag) > 100.0).any():
            continue
        state = dispatch.flow(np.concatenate([[0.0], s]) / 1000.0, p + 1j * q)
        loss = state.enter.real.sum() + state.leave.real.sum()
        objective = loss + 0.9 * state.source[0].real
        inside = np.abs(state.v_pu).max() <= 1.02
        better += bool(inside and objective < got.objective_kw - 1e-6)
    assert better == 0


def test_surplus_that_nobody_takes_is_told_apart_from_a_solution(solver):
    # 400 kW must run at bus 1, 100 are drawn and none may leave: the relaxation burns the other 300 in the line.
    sources = {**SUBSTATION, "gt": Source(1, 0.9, 400.0, 400.0, 0.0, 0.0)}
    dispatch = Dispatch(read_feeder(TWO_BUSES), sources, limits(), solver)
    with pytest.raises(InexactRelaxation, match="no solution, .*makes gt 400 kW give more than is drawn .100 kW."):
        dispatch.solve(np.array([0, 100.0]), np.zeros(2))
    assert not dispatch.solve(np.array([0, 500.0]), np.zeros(2)).inexact


# --- choosing a solver, and wrong requests ----------------------------------------------------------------------------

def chain(n_bus: int) -> LineList:
    return LineList(base_kv=10.0, lines=tuple(Line(k, k + 1, 0.02, 0.02) for k in range(n_bus - 1)),
                    loads=tuple(BaseLoad(k, 10.0, 3.0) for k in range(1, n_bus)))


def test_gurobi_beyond_its_licence_says_what_to_do():
    feeder = read_feeder(chain(60))  # 3 * 59 + 60 + 2 = 239 variables
    if Dispatch(feeder, SUBSTATION, limits(), "auto").solver_name == "gurobi":
        pytest.skip("this machine has a Gurobi licence without a size limit")
    with pytest.raises(SolverError, match="not installed|239 variables and .* 200 .*; use --set grid.solver=clarabel"):
        Dispatch(feeder, SUBSTATION, limits(), "gurobi")


@pytest.mark.long
def test_auto_takes_clarabel_with_one_line_when_gurobi_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(gurobi_solver, "gurobipy", None)
    feeder = read_feeder(chain(250))
    with caplog.at_level(logging.INFO):
        dispatch = Dispatch(feeder, SUBSTATION, limits(), "auto")
    assert dispatch.solver_name == "clarabel"
    assert dispatch.no_gurobi == "gurobipy is not installed"
    assert [r.getMessage() for r in caplog.records] == [
        "grid: dispatch by clarabel, because gurobipy is not installed"
    ]
    r = dispatch.solve(feeder.p_kw, feeder.q_kvar)
    flow = AcCheck(chain(250), [], 1.0).run(feeder.p_kw, feeder.q_kvar, np.zeros(0), np.zeros(0))
    assert r.conic_vm_pu == pytest.approx(flow.vm_pu, abs=1e-6)
    assert r.nci_kg_per_kwh == pytest.approx(np.full(250, 0.3), abs=1e-9)
    with pytest.raises(SolverError, match="not installed; use --set grid.solver=clarabel"):
        Dispatch(feeder, SUBSTATION, limits(), "gurobi")


def test_the_solver_that_is_asked_for_is_taken_quietly(feeder, solver, caplog, capfd):
    with caplog.at_level(logging.INFO):
        dispatch = Dispatch(feeder, TABLE_I, limits(), solver)
        dispatch.solve(feeder.p_kw, feeder.q_kvar)
    assert dispatch.solver_name == solver
    assert dispatch.no_gurobi == ""
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_sources_must_fit_the_network(feeder):
    with pytest.raises(ScenarioError, match="no source stands at bus 0, the slack bus of case33bw"):
        Dispatch(feeder, {"gt6": TABLE_I["gt6"]}, limits(), "clarabel")
    with pytest.raises(ScenarioError, match=r"sources.gt.node = 33 is not a bus of case33bw.* 0 to 32"):
        Dispatch(feeder, {**SUBSTATION, "gt": Source(33, 0.5)}, limits(), "clarabel")
    with pytest.raises(ScenarioError, match="p_min_kw = 5 is above its maximum 2"):
        validate(Source, {"node": 0, "kg_per_kwh": 0.1, "p_min_kw": 5, "p_max_kw": 2}, "grid.sources.gt")
