"""Weights over named terms (E11), capability curves (E08), and prices that change: by hand and by both solvers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from worlds import run

from cosim.errors import ScenarioError, SolverError
from cosim.params import validate
from cosim.run import find
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.mci import ONE_SIDED, MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch, Source
from cosim.simulators.grid.network.feeder import Line, LineList
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace

SHORT = LineList(base_kv=10.0, lines=(Line(0, 1, 1e-4, 1e-4),))
"""Two buses so near to each other that losses do not matter."""
LONG = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 4.0),))
P_KW, Q_KVAR = np.array([0.0, 500.0]), np.array([0.0, 200.0])
BY_COST = Limits(1.0, 0.9, 1.1, 0.0, loss_weight=0.0, cost_kw_per_usd_h=10.0)


@pytest.fixture(params=["clarabel", "gurobi"])
def solver(request):
    if request.param == "gurobi":
        try:
            Dispatch(read_feeder(SHORT), {"s": Source(0, 0.3)}, BY_COST, "gurobi")
        except SolverError as err:
            pytest.skip(str(err))
    return request.param


def priced(solver: str = "clarabel", limits: Limits = BY_COST, net: LineList = SHORT, **source) -> Dispatch:
    sources = {"substation": Source(0, 0.3, usd_per_kwh=0.10), "gt": Source(1, 0.6, **source)}
    return Dispatch(read_feeder(net), sources, limits, solver)


def test_a_quadratic_cost_is_run_up_to_where_a_further_kwh_costs_what_the_substations_does(solver):
    # 0.04 P + 1e-4 P^2 USD/h: marginal 0.04 + 2e-4 P = 0.10 at P = 300.
    got = priced(solver, p_max_kw=500.0, usd_per_kwh=0.04, usd_per_kw2h=1e-4).solve(P_KW, Q_KVAR)
    assert got.p_source_kw[1] == pytest.approx(300.0, abs=0.05)
    assert got.cost_usd_per_h == pytest.approx(0.04 * 300 + 1e-4 * 300**2 + 0.10 * 200, abs=1e-3)
    assert got.objective_kw == pytest.approx(10.0 * got.cost_usd_per_h, abs=1e-9)


def test_a_carbon_price_moves_that_point():
    # lambda / weight of cost = 0.5 / 10 = 0.05 USD/kg: 0.10 + 0.015 = 0.04 + 0.03 + 2e-4 P at P = 225.
    limits = replace(BY_COST, lambda_kw_per_kg_h=0.5)
    got = priced(limits=limits, p_max_kw=500.0, usd_per_kwh=0.04, usd_per_kw2h=1e-4).solve(P_KW, Q_KVAR)
    assert got.p_source_kw[1] == pytest.approx(225.0, abs=0.05)


def test_the_marginal_intensity_of_an_interior_quadratic_source_is_the_substations():
    # One more kW changes no marginal price, so it comes from the substation, at 0.3 (and hardly any loss). With a
    # quadratic cost at the substation, too, both answer in inverse proportion to their curvatures.
    sources = {"substation": Source(0, 0.3, usd_per_kwh=0.10),
               "gt": Source(1, 0.6, 0.0, 500.0, usd_per_kwh=0.04, usd_per_kw2h=1e-4)}
    for quadratic, expected in ((0.0, 0.3), (3e-4, 0.6 * 0.75 + 0.3 * 0.25)):
        given = {**sources, "substation": replace(sources["substation"], usd_per_kw2h=quadratic)}
        feeder = read_feeder(SHORT)
        mci = MciOfDispatch(feeder, given, BY_COST, np.zeros(2), [1])
        got = mci.of(Dispatch(feeder, given, BY_COST, "clarabel").solve(P_KW, Q_KVAR))
        assert got.up_kg_per_kwh[1] == pytest.approx(expected, abs=2e-3)


def test_another_price_at_the_substation_is_another_dispatch(solver):
    dispatch = priced(solver, p_max_kw=500.0, usd_per_kwh=0.04, usd_per_kw2h=1e-4)
    for usd_per_kwh, p_kw in ((0.10, 300.0), (0.06, 100.0), (0.03, 0.0), (0.10, 300.0)):
        dispatch.reprice(np.array([usd_per_kwh, 0.04]))
        assert dispatch.solve(P_KW, Q_KVAR).p_source_kw[1] == pytest.approx(p_kw, abs=0.05)


def test_curtailment_is_weighed_against_loss(solver):
    # 3000 kW of sun at the end of a long line where 500 kW are drawn, lambda 0: losses alone take 500 kW, and a weight
    # on what is left out more. Surplus leaves upstream, at most until a further kW loses the weight.
    sources = {"grid": Source(0, 0.3, -5000.0),
               "pv": Source(1, 0.0, 0.0, 3000.0, 0.0, 0.0, renewable=True)}
    found = []
    for weight in (0.0, 0.04, 1.0):
        limits = Limits(1.0, 0.9, 1.1, 0.0, curtailment_weight=weight)
        got = Dispatch(read_feeder(LONG), sources, limits, solver).solve(P_KW, 0 * Q_KVAR)
        assert got.curtailed_kw == pytest.approx(3000.0 - got.p_source_kw[1], abs=1e-9)
        assert got.objective_kw == pytest.approx(got.loss_kw + weight * got.curtailed_kw, abs=1e-9)
        found.append(got)
    none, some, all_of_it = found
    assert none.p_source_kw[1] == pytest.approx(500.0, abs=0.1)
    assert all_of_it.curtailed_kw == 0.0
    # 0.02 p.u. of resistance at unity power factor: d loss / dP = 2 r P to first order, 0.04 at 1 p.u. sent back
    assert some.p_source_kw[1] == pytest.approx(1500.0, rel=0.05)


@pytest.mark.parametrize(("capability", "q_kvar"), [
    ({"q_min_kvar": -300.0, "q_max_kvar": 300.0}, 300.0),
    ({"capability": "circle", "s_max_kva": 500.0}, 300.0),  # 400^2 + 300^2 = 500^2
    ({"capability": "power_factor", "power_factor_min": 0.8}, 300.0),  # tan(acos(0.8)) = 3/4
    ({"capability": "power_factor", "power_factor_min": 0.8, "q_max_kvar": 200.0}, 200.0),
])
@pytest.mark.rows("P03")
def test_capability(solver, capability: dict, q_kvar: float):
    # P is fixed at 400 kW; 900 kvar are drawn, and each kvar made here saves loss, so Q runs to its limit.
    got = priced(solver, Limits(1.0, 0.8, 1.1, 0.0), LONG, p_min_kw=400.0, p_max_kw=400.0, **capability).solve(
        P_KW, np.array([0.0, 900.0]))
    assert got.p_source_kw[1] == pytest.approx(400.0, abs=1e-3)
    assert got.q_source_kvar[1] == pytest.approx(q_kvar, abs=0.05)


def test_a_rating_is_shared_between_p_and_q_for_the_least_loss(solver):
    # Per kVA of rating, loss falls fastest along what is drawn: P : Q = 500 : 200 x 2.5 = 1 : 1 with x = r, so that a
    # rating of 300 kVA gives 300 / sqrt(2) of each.
    net = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 2.0),))
    got = priced(solver, Limits(1.0, 0.8, 1.1, 0.0), net, capability="circle", s_max_kva=300.0).solve(
        P_KW, np.array([0.0, 500.0]))
    assert math.hypot(got.p_source_kw[1], got.q_source_kvar[1]) == pytest.approx(300.0, abs=1e-2)
    assert got.p_source_kw[1] == pytest.approx(300.0 / math.sqrt(2.0), rel=1e-3)


def test_marginal_intensity_beside_a_circle_comes_from_dispatches_one_kw_apart():
    feeder = read_feeder(LONG)
    sources = {"substation": Source(0, 0.3), "gt": Source(1, 0.6, capability="circle", s_max_kva=300.0)}
    limits = Limits(1.0, 0.9, 1.1, 0.0)
    got = MciOfDispatch(feeder, sources, limits, np.zeros(2), [1]).of(
        Dispatch(feeder, sources, limits, "clarabel").solve(P_KW, Q_KVAR))
    assert got.status.tolist()[1] == ONE_SIDED
    assert got.up_kg_per_kwh[1] == pytest.approx(0.3, abs=0.05)
    assert got.down_kg_per_kwh[1] == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("given", "message"), [
    ({"capability": "circle"}, "capability = 'circle' and s_max_kva = None: s_max_kva belongs to"),
    ({"s_max_kva": 5.0}, "capability = 'box' and s_max_kva = 5.0: s_max_kva belongs to capability 'circle'"),
    ({"capability": "power_factor", "power_factor_min": 0.9, "p_min_kw": -5.0}, "which is for P >= 0"),
    ({"renewable": True}, "renewable needs p_max_kw"),
])
def test_wrong_sources_are_refused(given: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        validate(Source, {"node": 0, "kg_per_kwh": 0.1, **given}, "grid.sources.gt")


@pytest.mark.long
def test_the_economic_scenario_pays_the_tariff_at_its_substation(tmp_path):
    """Table I's tariff: 0.10 until 11:00, then 0.30 USD/kWh; with 25 USD/t gt25 (0.113) pays then, gt30 (0.224) too."""
    path = run(find("ieee33_economic"), tmp_path / "t.h5", driver="native", until_s=11.5 * 3600.0).path
    with Trace(path) as trace:
        names = trace.names("grid/Grid", "source")
        p = trace["grid/Grid/p_source_kw"][:, 0]
        before, after = (dict(zip(names, p[k], strict=True)) for k in (43, 44))
        assert before["gt30"] == 0.0
        assert 0.0 < before["gt25"] < 499.0
        assert after["gt25"] == after["gt6"] == 500.0
        assert after["gt30"] > 400.0
        cost = trace["grid/Grid/cost_usd_per_h"][44, 0]
        prices = {"substation": 0.30, "gt6": 0.052, "gt25": 0.0965, "gt30": 0.2022}
        assert cost == pytest.approx(sum(prices[n] * after[n] for n in names), rel=1e-9)
