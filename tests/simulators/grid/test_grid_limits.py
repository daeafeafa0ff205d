"""Limits of branches: an independent AC OPF (pandapower's own), differences of re-dispatches, and what cannot be met."""

from __future__ import annotations

import numpy as np
import pandapower
import pytest

from cosim.errors import ScenarioError, SolverError
from cosim.params import validate
from cosim.simulators.grid.dispatch.branch_limits import branch_limits
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.dispatch import ELASTIC, OPTIMAL, Dispatch
from cosim.simulators.grid.dispatch.mci import DERIVATIVE, MciOfDispatch
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import feeder_of, read_feeder
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
    for line in net.line.index[net.line.from_bus == 0][:1]:  # what the sources farther out can relieve, in part
        net.line.loc[line, "max_i_ka"] = float(rng.uniform(0.6, 1.1)) * float(net.load.p_mw.sum()) / (3**0.5 * 11.0)
    return net, sources


def ac_opf(net, sources) -> tuple[float, np.ndarray]:
    """Optimum of (11) by pandapower's interior-point AC OPF, kW, and P of the sources, kW.

    Losses are what all sources give less what is drawn, so that (11) is linear in the sources.
    """
    for name, s in list(sources.items())[1:]:
        pandapower.create_sgen(net, s.node, p_mw=0.2, q_mvar=0.0, controllable=True, min_p_mw=0.0, max_p_mw=0.9,
                               min_q_mvar=-0.3, max_q_mvar=0.3, name=name)
    net.ext_grid["min_p_mw"], net.ext_grid["max_p_mw"] = -100.0, 100.0
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


@pytest.mark.parametrize("seed", range(30))
def test_an_independent_ac_opf_has_the_same_optimum(seed):
    net, sources = random_net(seed)
    feeder = feeder_of(net, "random")
    got = limited(feeder, sources).solve(feeder.p_kw, feeder.q_kvar)
    assert got.status == OPTIMAL and not got.inexact
    objective_kw, p_kw = ac_opf(net, sources)
    assert got.objective_kw == pytest.approx(objective_kw, abs=1e-3 * max(1.0, objective_kw) ** 0.5)
    assert got.p_source_kw == pytest.approx(p_kw, abs=0.5)
    lines = net.res_line.loading_percent.to_numpy()[[int(np.flatnonzero(
        (net.line.from_bus == int(name.split("-")[0])) & (net.line.to_bus == int(name.split("-")[1])))[0])
        for name in feeder.line_names]]
    assert 100.0 * got.loading_ratio == pytest.approx(lines, abs=0.05)
