"""Limits of branches: an independent AC OPF (pandapower's), differences of re-dispatches, and what cannot be met."""

from __future__ import annotations

import numpy as np
import pandapower
import pytest

from cosim.errors import ScenarioError, SolverError
from cosim.params import validate
from cosim.simulators.grid.dispatch.branch_limits import binding, branch_limits
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.mci import DERIVATIVE, MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import ELASTIC, OPTIMAL
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import feeder_of, read_feeder
from cosim.simulators.grid.network.tables import radial_data
from cosim.simulators.grid.params import GridParams

LAMBDA = 0.3


def random_net(seed: int):
    """An MV feeder of 6..12 buses with charging, two generators, and lines whose ratings bind at times."""
    rng = np.random.default_rng(seed)
    net = pandapower.create_empty_network(sn_mva=1.0)
    n = int(rng.integers(6, 13))
    for _ in range(n):
        pandapower.create_bus(net, vn_kv=11.0, min_vm_pu=0.9, max_vm_pu=1.1)
    for bus in range(1, n):
        r = float(rng.uniform(0.1, 0.6))
        pandapower.create_line_from_parameters(
            net, int(rng.integers(max(0, bus - 3), bus)), bus, length_km=float(rng.uniform(0.3, 2.0)), r_ohm_per_km=r,
            x_ohm_per_km=float(rng.uniform(0.5, 1.5)) * r, c_nf_per_km=float(rng.uniform(0.0, 300.0)),
            max_i_ka=0.3, max_loading_percent=100.0)
        pandapower.create_load(net, bus, p_mw=float(rng.uniform(0.05, 0.25)), q_mvar=float(rng.uniform(0.0, 0.1)))
    pandapower.create_ext_grid(net, 0, vm_pu=1.0)
    intensity = {"up": float(rng.uniform(0.1, 0.4))}
    sources = {"up": Source(0, intensity["up"])}
    for k, bus in enumerate(rng.choice(np.arange(1, n), 2, replace=False).tolist()):
        w = float(rng.uniform(0.3, 0.9))
        sources[f"g{k}"] = Source(bus, w, 0.0, 900.0, -300.0, 300.0)
    tighten(net, sources)
    return net, sources


def tighten(net, sources) -> None:
    """Rate the fullest line at as small a share of its current as the sources beyond it can still make up for."""
    free = limited(f := feeder_of(radial_data(net, "random")), sources).solve(f.p_kw, f.q_kvar)
    name = f.line_names[int(free.loading_ratio.argmax())]
    a, b = map(int, name.split("-"))
    line = net.line.index[(net.line.from_bus == a) & (net.line.to_bus == b)][0]
    for share in (0.7, 0.85, 0.95, 1.05):
        net.line.loc[line, "max_i_ka"] = 0.3 * share * float(free.loading_ratio.max())
        if limited(f := feeder_of(radial_data(net, "random")), sources).solve(f.p_kw, f.q_kvar).status == OPTIMAL:
            return


def ac_opf(net, sources) -> tuple[float, np.ndarray]:
    """Optimum of (11) by pandapower's interior-point AC OPF, kW, and P of the sources, kW.

    Losses are what all sources give less what is drawn, so that (11) is linear in the sources.
    """
    for name, s in list(sources.items())[1:]:
        pandapower.create_sgen(net, s.node, p_mw=0.2, q_mvar=0.0, controllable=True, min_p_mw=0.0, max_p_mw=0.9,
                               min_q_mvar=-0.3, max_q_mvar=0.3, name=name)
    net.ext_grid["min_p_mw"], net.ext_grid["max_p_mw"] = 0.0, 100.0
    net.ext_grid["min_q_mvar"], net.ext_grid["max_q_mvar"] = -100.0, 100.0
    weights = [1.0 + LAMBDA * s.kg_per_kwh for s in sources.values()]
    pandapower.create_poly_cost(net, 0, "ext_grid", cp1_eur_per_mw=weights[0])
    for k, weight in enumerate(weights[1:]):
        pandapower.create_poly_cost(net, k, "sgen", cp1_eur_per_mw=weight)
    pandapower.runopp(net, numba=False, PDIPM_COSTTOL=1e-10, PDIPM_GRADTOL=1e-8, PDIPM_COMPTOL=1e-10,
                      PDIPM_FEASTOL=1e-10, init="pf")
    p = np.append(net.res_ext_grid.p_mw, net.res_sgen.p_mw) * 1e3
    return float(p @ weights - 1e3 * net.load.p_mw.sum()), p


def limited(feeder, sources, solver="clarabel", **ratings):
    branches = branch_limits(feeder, ratings.get("current_a", {}), ratings.get("power_kva", {}), "grid", own=True)
    return Dispatch(feeder, sources, Limits(1.0, 0.9, 1.1, LAMBDA, branches=branches), solver)


@pytest.mark.long
@pytest.mark.parametrize("first", [0, 10, 20])
def test_an_independent_ac_opf_has_the_same_optimum(first):
    """Two feeders of each ten; all thirty agree, at seconds each."""
    bound = 0
    for seed in range(first, first + 2):
        net, sources = random_net(seed)
        feeder = feeder_of(radial_data(net, "random"))
        dispatch = limited(feeder, sources)
        got = dispatch.solve(feeder.p_kw, feeder.q_kvar)
        assert got.status == OPTIMAL
        assert not got.inexact
        bound += binding(dispatch.limits.branches, got.loading_ratio).any()
        objective_kw, p_kw = ac_opf(net, sources)
        assert got.objective_kw == pytest.approx(objective_kw, rel=2e-5)
        assert got.p_source_kw == pytest.approx(p_kw, abs=0.2)
        ends = {(int(line.from_bus), int(line.to_bus)): k for k, line in net.line.iterrows()}
        rows = [ends[tuple(map(int, name.split("-")))] for name in feeder.line_names]
        assert 100.0 * got.loading_ratio == pytest.approx(net.res_line.loading_percent.to_numpy()[rows], abs=0.05)
    assert bound


@pytest.mark.long(after=1)
@pytest.mark.parametrize("seed", [1, 4, 7])
def test_mci_is_the_difference_of_dispatches_where_a_line_binds(seed):
    net, sources = random_net(seed)
    feeder = feeder_of(radial_data(net, "random"))
    dispatch = limited(feeder, sources)
    got = dispatch.solve(feeder.p_kw, feeder.q_kvar)
    assert binding(dispatch.limits.branches, got.loading_ratio).any()
    free = Dispatch(feeder, sources, Limits(1.0, 0.9, 1.1, LAMBDA), "clarabel")
    buses, step_kw, moved = range(1, feeder.n_bus), 2.0, 0.0
    mci = MciOfDispatch(feeder, sources, dispatch.limits, np.zeros(feeder.n_bus), []).of(got)
    for at in buses:
        if mci.status[at] != DERIVATIVE:
            continue
        by_hand, unlimited = (_slope(d, feeder, at, step_kw) for d in (dispatch, free))
        assert mci.up_kg_per_kwh[at] == pytest.approx(by_hand, abs=2e-3)
        moved = max(moved, abs(by_hand - unlimited))
    assert moved > 0.05  # congestion shows


def _slope(dispatch, feeder, at: int, step_kw: float) -> float:
    found = []
    for step in (-step_kw, step_kw):
        p_kw = feeder.p_kw.copy()
        p_kw[at] += step
        found.append(dispatch.solve(p_kw, feeder.q_kvar).emission_kg_per_h)
    return (found[1] - found[0]) / (2.0 * step_kw)


def transformer_net(sn_mva: float = 0.4):
    net = pandapower.create_empty_network(sn_mva=1.0)
    hv, lv, far = (pandapower.create_bus(net, vn_kv=kv) for kv in (20.0, 0.4, 0.4))
    pandapower.create_ext_grid(net, hv)
    pandapower.create_transformer_from_parameters(net, hv, lv, sn_mva, 20.0, 0.4, 1.0, 6.0, 1.2, 0.3, tap_side="hv",
                                                  tap_pos=2, tap_neutral=0, tap_step_percent=2.5)
    pandapower.create_line_from_parameters(net, lv, far, 0.05, 0.1, 0.08, 0.0, 0.6)
    pandapower.create_load(net, far, p_mw=0.3, q_mvar=0.1)
    return net


@pytest.mark.long
def test_loading_of_a_transformer_with_taps_is_pandapowers():
    net = transformer_net()
    feeder = feeder_of(radial_data(net, "trafo"))
    got = limited(feeder, {"up": Source(0, 0.3)}).solve(feeder.p_kw, feeder.q_kvar)
    pandapower.runpp(net, trafo_loading="power")
    assert feeder.line_names == ["1-2", "0-1"]
    assert 100.0 * got.loading_ratio == pytest.approx(
        [net.res_line.loading_percent[0], net.res_trafo.loading_percent[0]], abs=1e-4)


@pytest.mark.parametrize("solver", ["clarabel", "gurobi"])
def test_a_full_transformer_makes_a_generator_behind_it_run(solver):
    net = transformer_net(0.25)
    feeder = feeder_of(radial_data(net, "trafo"))
    sources = {"up": Source(0, 0.3), "gen": Source(2, 0.9, 0.0, 200.0, -50.0, 50.0)}
    try:
        got = limited(feeder, sources, solver).solve(feeder.p_kw, feeder.q_kvar)
    except SolverError as err:
        pytest.skip(str(err))
    assert got.status == OPTIMAL
    assert got.loading_ratio[1] == pytest.approx(1.0, abs=1e-5)
    assert got.p_source_kw[1] > 40.0
    assert np.hypot(got.p_from_kw[1], got.q_from_kvar[1]) == pytest.approx(250.0, rel=5e-3)


TWO = LineList(base_kv=11.0, lines=(Line(0, 1, 0.5, 0.5, max_current_a=20.0), Line(1, 2, 0.5, 0.5)),
               loads=(BaseLoad(1, 100.0), BaseLoad(2, 400.0)))


def test_what_a_full_line_cannot_carry_goes_unserved():
    feeder = read_feeder(TWO)
    got = limited(feeder, {"up": Source(0, 0.3)}).solve(feeder.p_kw, feeder.q_kvar)
    assert got.status == ELASTIC
    assert got.loading_ratio[0] == pytest.approx(1.0, abs=1e-4)
    assert np.isnan(got.loading_ratio[1])
    carried_kw = 20.0 * 11.0 * 3**0.5  # at 1 p.u. and unity power factor
    assert got.p_source_kw[0] == pytest.approx(carried_kw, rel=1e-4)
    assert got.unserved_kw.sum() + carried_kw == pytest.approx(500.0 + got.loss_kw, abs=0.1)


def test_a_source_that_must_feed_more_than_a_line_carries_is_refused_by_the_line():
    feeder = read_feeder(TWO)
    sources = {"up": Source(0, 0.3, -5000.0), "must": Source(2, 0.5, 2000.0, 2000.0)}
    with pytest.raises(SolverError, match=r"branch 0-1 at \d+.* % of its rating; raise that limit"):
        limited(feeder, sources, current_a={"1-2": 100.0}).solve(feeder.p_kw, feeder.q_kvar)
    got = limited(feeder, sources).solve(feeder.p_kw, feeder.q_kvar)  # 1-2 may burn it, in the relaxation only
    assert got.status == ELASTIC
    assert got.inexact
    assert got.overload_ratio == pytest.approx(got.loading_ratio[0] - 1.0)
    assert got.overload_ratio > 1.0


@pytest.mark.long
def test_parallel_lines_are_full_when_the_first_of_them_is():
    net = pandapower.create_empty_network(sn_mva=1.0)
    for _ in range(2):
        pandapower.create_bus(net, vn_kv=11.0)
    pandapower.create_ext_grid(net, 0)
    for r, ka in ((0.2, 0.05), (0.4, 0.05)):
        pandapower.create_line_from_parameters(net, 0, 1, 1.0, r, r, 0.0, ka)
    pandapower.create_load(net, 1, p_mw=0.8)
    feeder = feeder_of(radial_data(net, "parallel"))
    got = limited(feeder, {"up": Source(0, 0.3)}).solve(feeder.p_kw, feeder.q_kvar)
    pandapower.runpp(net)
    assert 100.0 * got.loading_ratio[0] == pytest.approx(net.res_line.loading_percent.max(), abs=1e-4)


@pytest.mark.parametrize(("given", "message"), [
    ({"max_current_a": {"0-9": 5.0}}, "unknown branch of .*0-9"),
    ({"max_power_kva": {"1-0": 5.0}}, "unknown branch of .*1-0"),
])
def test_ratings_of_what_is_not_there_are_refused(given, message):
    feeder = read_feeder(TWO)
    with pytest.raises(ScenarioError, match=message):
        branch_limits(feeder, given.get("max_current_a", {}), given.get("max_power_kva", {}), "grid", own=True)


def test_a_network_without_ratings_and_a_current_of_a_transformer_are_refused():
    with pytest.raises(ScenarioError, match="case33bw states no ratings; give some by --set grid.max_current_a.0-1="):
        branch_limits(read_feeder("case33bw"), {}, {}, "grid", own=True)
    with pytest.raises(ScenarioError, match="0-1 is a transformer of trafo.*max_power_kva"):
        branch_limits(feeder_of(radial_data(transformer_net(), "trafo")), {"0-1": 5.0}, {}, "grid", own=True)


@pytest.mark.parametrize(("given", "message"), [
    ({"max_current_a": {"0-1": 5.0}}, "line_limits = none"),
    ({"max_current_a": {"0-1": 5.0}, "max_power_kva": {"0-1": 5.0}, "line_limits": "ratings"}, "give one of them"),
    ({"max_current_a": {"0-1": 0.0}, "line_limits": "ratings"}, "greater than 0|above 0|> 0"),
])
def test_ratings_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ScenarioError, match=message):
        validate(GridParams, {"sources": {"up": {"node": 0, "kg_per_kwh": 0.3}}, **given}, "grid")
