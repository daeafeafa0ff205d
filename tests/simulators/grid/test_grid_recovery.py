"""Where the relaxation is not exact: the best of all corners is found, and what is proven is said."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.recovery import ALL_CORNERS
from cosim.simulators.grid.dispatch.results import OPTIMAL
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.equations import radial_power_flow
from cosim.simulators.grid.network.feeder import Feeder, LineList
from cosim.simulators.grid.network.radial import read_feeder

LIMITS = Limits(1.0, 0.9, 1.1, 0.25, loss_weight=0.0, cost_kw_per_usd_h=10.0)
BOX = {"p_min_kw": 0.0, "q_min_kvar": -300.0, "q_max_kvar": 300.0}


def sources(nodes: dict[int, float], price: float, **more) -> dict[str, Source]:
    """A substation at `price` and a turbine at each node with its kg/kWh."""
    return {"up": Source(node=0, kg_per_kwh=0.3, p_min_kw=-10000.0), **{
        f"gt{n}": Source(node=n, kg_per_kwh=w, p_max_kw=500.0, usd_per_kwh=0.05 + 0.1 * w, **BOX, **more)
        for n, w in nodes.items()}}


def solved(feeder: Feeder, given: dict[str, Source], price: float, share: float):
    d = Dispatch(feeder, given, LIMITS, "clarabel")
    d.reprice(np.array([price, *(s.usd_per_kwh for name, s in given.items() if name != "up")]))
    return d.solve(share * feeder.p_kw, share * feeder.q_kvar)


def objective_kw(feeder: Feeder, given: dict[str, Source], price: float, share: float, p_kw, q_kvar) -> float:
    """Of set points, by the power flow alone; inf outside the voltage limits."""
    demand = share * (feeder.p_kw + 1j * feeder.q_kvar)
    turbines = [s for name, s in given.items() if name != "up"]
    for s, p, q in zip(turbines, p_kw, q_kvar, strict=True):
        demand[feeder.position(s.node, "")] -= p + 1j * q
    flow = radial_power_flow(feeder.tree, demand / feeder.base_kw, 1.0)
    if not flow.converged or np.abs(flow.v_pu).min() < 0.9 or np.abs(flow.v_pu).max() > 1.1:
        return np.inf
    up = flow.s_parent_pu.real[feeder.parent == feeder.substation].sum() * feeder.base_kw + demand[0].real
    kg = 0.3 * up + sum(s.kg_per_kwh * p for s, p in zip(turbines, p_kw, strict=True))
    usd = price * up + sum(s.usd_per_kwh * p for s, p in zip(turbines, p_kw, strict=True))
    return LIMITS.lambda_kw_per_kg_h * kg + LIMITS.cost_kw_per_usd_h * usd


@pytest.mark.rows("E06")
@pytest.mark.parametrize(("price", "share"), [(-0.2, 0.4), (-0.2, 1.0), (-0.02, 0.53)])
def test_at_a_negative_price_the_best_corner_of_ieee33_is_found(price, share):
    feeder, given = read_feeder("case33bw"), sources({6: 0.35, 25: 0.65, 30: 0.9}, price)
    got = solved(feeder, given, price, share)
    best = min(objective_kw(feeder, given, price, share, p, q)
               for p in product((0.0, 500.0), repeat=3) for q in product((-300.0, 300.0), repeat=3))
    assert got.inexact
    assert got.status == OPTIMAL
    assert got.objective_kw <= best + 1e-4
    assert got.q_source_kvar[1:].tolist() == [-300.0] * 3
    assert got.global_gap_ratio > 0.0  # and nobody claims that it is proven


CHAIN = LineList(base_kv=10.0, lines=[{"from_bus": k, "to_bus": k + 1, "r_ohm": 1.0, "x_ohm": 0.5} for k in range(6)],
                 loads=[{"bus": k, "p_kw": 100.0, "q_kvar": 30.0} for k in range(1, 7)])


@pytest.mark.rows("E06")
def test_more_controls_than_all_corners_are_searched_one_by_one():
    feeder, given = read_feeder(CHAIN), sources({1: 0.4, 2: 0.5, 3: 0.6, 5: 0.7, 6: 0.8}, -0.3)
    assert ALL_CORNERS < 2 * 5
    got = solved(feeder, given, -0.3, 1.0)
    best = min(objective_kw(feeder, given, -0.3, 1.0, [0.0] * 5, q) for q in product((-300.0, 300.0), repeat=5))
    assert got.inexact
    assert got.objective_kw <= best + 1e-4


@pytest.mark.parametrize("more", [{"capability": "circle", "s_max_kva": 250.0},
                                  {"capability": "power_factor", "power_factor_min": 0.8}])
def test_a_rating_or_a_power_factor_is_kept(more):
    feeder, given = read_feeder(CHAIN), sources({4: 0.4, 6: 0.8}, -0.3, **more)
    got = solved(feeder, given, -0.3, 1.0)
    most = 250.0 if more["capability"] == "circle" else 0.0
    best = min(objective_kw(feeder, given, -0.3, 1.0, [0.0, 0.0], q) for q in product((-most, most), repeat=2))
    assert got.objective_kw <= best + 1e-4
    p, q = got.p_source_kw[1:], got.q_source_kvar[1:]
    assert (np.hypot(p, q) <= 250.0 + 1e-6).all() if most else (np.abs(q) <= 0.75 * p + 1e-3).all()
