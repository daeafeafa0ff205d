"""Marginal carbon intensity by three routes: the KKT adjoint, the mixed partial of nodal prices, and re-dispatch."""

from __future__ import annotations

import numpy as np
import pytest

from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs, strict
from cosim.simulators.grid.dispatch.mci import DERIVATIVE, NEAR_KINK, ONE_SIDED, STALE, MciOfDispatch, no_mci
from cosim.simulators.grid.dispatch.optimal_power_flow import OPTIMAL, Dispatch, Source
from cosim.simulators.grid.dispatch.results import marginal_sources
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder

TABLE_I = {
    "substation": Source(0, 0.30),
    "gt6": Source(6, 0.35, 0.0, 500.0, -300.0, 300.0),
    "gt25": Source(25, 0.65, 0.0, 500.0, -300.0, 300.0),
    "gt30": Source(30, 0.90, 0.0, 500.0, -300.0, 300.0),
}
AIDCS, ETA = [8, 28, 32], 0.2


def limits(lam: float, v_min: float = 0.9) -> Limits:
    return Limits(1.0, v_min, 1.1, lam)


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("case33bw")


def demand(feeder, scale: float, aidc_kw=(300.0, 250.0, 200.0)):
    """Base load x scale and three data centres with 0.2 kvar/kW."""
    p, q = feeder.p_kw * scale, feeder.q_kvar * scale
    p[AIDCS] += aidc_kw
    q[AIDCS] += ETA * np.array(aidc_kw)
    return p, q


def eta_at_aidcs(feeder) -> np.ndarray:
    q_per_p = np.zeros(feeder.n_bus)
    q_per_p[AIDCS] = ETA
    return q_per_p


class Case:
    """A dispatch in Clarabel and its mci."""

    def __init__(self, feeder, lam: float, sources=TABLE_I, v_min: float = 0.9, resolve=AIDCS, q_per_p=None) -> None:
        self.q_per_p = eta_at_aidcs(feeder) if q_per_p is None else q_per_p
        self.dispatch = Dispatch(feeder, sources, limits(lam, v_min), "clarabel")
        self.mci = MciOfDispatch(feeder, sources, limits(lam, v_min), self.q_per_p, resolve)

    def at(self, p, q):
        result = self.dispatch.solve(p, q)
        return result, self.mci.of(result)

    def emission(self, p, q, bus: int, step_kw: float):
        """(J2, which sources stand at which limit) with a step of demand at a bus."""
        p, q = p.copy(), q.copy()
        p[bus] += step_kw
        q[bus] += step_kw * self.q_per_p[bus]
        r, s = self.dispatch.solve(p, q), self.dispatch.sources
        base_kw = self.dispatch.feeder.base_kw
        at_limit = [*(r.p_source_kw / base_kw == s.p_min_pu), *(r.p_source_kw / base_kw == s.p_max_pu),
                    *(r.q_source_kvar / base_kw == s.q_min_pu), *(r.q_source_kvar / base_kw == s.q_max_pu)]
        assert r.status == OPTIMAL
        return r.emission_kg_per_h, at_limit


@pytest.mark.parametrize(("scale", "lam", "expected"), [
    (0.45, 0.01, (0.31, 0.31, 0.31)),  # all turbines at their limit: the substation, at 0.30, supplies it and the loss
    (0.45, 0.10, (0.64, 0.81, 0.91)),
    (0.30, 0.01, (0.63, 0.80, 0.90)),
])
def test_figures_of_the_study(feeder, scale: float, lam: float, expected):
    # Independent figures, to two digits (by another program on the same data).
    _, mci = Case(feeder, lam).at(*demand(feeder, scale))
    assert mci.status[AIDCS].tolist() == [DERIVATIVE] * 3
    assert mci.up_kg_per_kwh[AIDCS] == pytest.approx(expected, abs=0.0051)
    assert mci.down_kg_per_kwh.tobytes() == mci.up_kg_per_kwh.tobytes()


@pytest.mark.parametrize("lam", [0.01, 0.1])
@pytest.mark.rows("I31", "Z04")
def test_it_is_the_difference_of_two_dispatches(feeder, lam: float):
    # Steps of 10 kW, because a solver's tolerance leaves some 1e-3 kg/h; only where the same limits are in force.
    case, rng, compared = Case(feeder, lam, q_per_p=np.full(33, ETA)), np.random.default_rng(3), 0
    for scale in rng.uniform(0.25, 0.9, 12):
        p, q = demand(feeder, scale, rng.uniform(100.0, 450.0, 3))
        _, mci = case.at(p, q)
        for bus in (8, 17, 24, 28, 32):
            (less, a), (_, b), (more, c) = (case.emission(p, q, bus, step) for step in (-10.0, 0.0, 10.0))
            if a == b == c:
                compared += 1
                assert mci.status[bus] == DERIVATIVE
                assert (more - less) / 20.0 == pytest.approx(mci.up_kg_per_kwh[bus], abs=2e-3)
    assert compared > 30


@pytest.mark.parametrize(("scale", "lam"), [(0.45, 0.01), (0.45, 0.1), (0.3, 0.01), (0.6, 0.05), (0.8, 0.2)])
def test_it_is_how_nodal_prices_move_with_lambda(feeder, scale: float, lam: float):
    # dJ*/d(lambda) = J2* at the optimum, so d(dJ*/dP)/d(lambda) = dJ2*/dP, at every bus. The solver's cost is (11)
    # over 1 + lambda x 0.9, and rhs holds P of all buses, then Q.
    p, q = demand(feeder, scale)
    _, mci = Case(feeder, lam).at(p, q)
    eta, h = eta_at_aidcs(feeder), max(3e-4, 1e-3 * lam)

    def price(lam_):
        dispatch = Dispatch(feeder, TABLE_I, limits(lam_), "clarabel")
        solver = ClarabelSolver(strict(feeder, dispatch.sources, dispatch.limits))
        rows = solver.solve(balance_rhs(feeder, p, q)).price * (1.0 + lam_ * 0.9)
        return rows[:33] + eta * rows[33:66]

    mixed = (price(lam + h) - price(lam - h)) / (2 * h)
    assert np.abs(mixed - mci.up_kg_per_kwh).max() <= 2e-3


def test_the_nodal_price_of_carbon_is_another_thing(feeder):
    # dJ*/dP = dJ1*/dP + lambda dJ2*/dP: over lambda it counts the loss that carbon trades for, three times the carbon.
    p, q = demand(feeder, 0.30)
    dispatch = Dispatch(feeder, TABLE_I, limits(0.01), "clarabel")
    price = ClarabelSolver(strict(feeder, dispatch.sources, dispatch.limits)).solve(balance_rhs(feeder, p, q)).price
    dual = (price[8] + ETA * price[33 + 8]) * (1.0 + 0.01 * 0.9)
    _, mci = Case(feeder, 0.01).at(p, q)
    assert dual / 0.01 == pytest.approx(1.97, abs=0.02)
    assert mci.up_kg_per_kwh[8] == pytest.approx(0.63, abs=0.01)


@pytest.mark.parametrize(("lam", "scales", "low", "high", "free"), [
    (0.01, (0.38, 0.5, 0.65, 0.8), -0.235, 0.035, 0),
    (0.01, (0.25, 0.30, 0.35), 7.8, 24.5, 1),
    (0.10, (0.35, 0.38, 0.45, 0.65), 26.6, 38.0, 1),
])
@pytest.mark.rows("I31", "Z04")
def test_what_a_shift_of_load_saves_depends_on_the_marginal_source(feeder, lam: float, scales, low, high, free):
    # 100 kW from AIDC3 (bus 32) to AIDC1 (bus 8), 250 kW each before: what the system saves, kg/h (decision 12). With
    # every turbine at a limit the attributed account moves by 16 kg/h or more and the atmosphere does not.
    case = Case(feeder, lam)
    for scale in scales:
        before, mci = case.at(*demand(feeder, scale, (250.0, 250.0, 250.0)))
        after, mci_after = case.at(*demand(feeder, scale, (350.0, 250.0, 150.0)))
        saved = before.emission_kg_per_h - after.emission_kg_per_h
        assert low <= saved <= high
        assert (sum(marginal_sources(before, case.dispatch.feeder.base_kw)[1:]) >= 1) == bool(free)
        steps = [100.0 * (m.up_kg_per_kwh[32] - m.up_kg_per_kwh[8]) for m in (mci, mci_after)]
        assert min(steps) - 0.1 <= saved <= max(steps) + 0.1  # what the mci at either end says of it
        attributed = 100.0 * (before.nci_kg_per_kwh[32] - before.nci_kg_per_kwh[8])
        assert free or attributed > 16.0


def test_a_binding_voltage_limit_takes_part(feeder):
    # At 0.8 of nominal load and lambda 1 one turbine runs only as far as V >= 0.94 asks for.
    case = Case(feeder, 1.0, v_min=0.94, q_per_p=np.zeros(33))
    p, q = demand(feeder, 0.8)
    result, mci = case.at(p, q)
    assert result.vm_pu.min() == pytest.approx(0.94, abs=1e-7)
    assert marginal_sources(result, case.dispatch.feeder.base_kw) == [1.0, 0.0, 0.0, 1.0]
    for bus in (3, 8, 17, 32):
        (less, _), (more, _) = (case.emission(p, q, bus, step) for step in (-2.0, 2.0))
        assert (more - less) / 4.0 == pytest.approx(mci.up_kg_per_kwh[bus], abs=3e-3)


# --- two buses by hand ------------------------------------------------------------------------------------------------

TWO_BUSES = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 4.0),), loads=(BaseLoad(1, 500.0, 200.0),))


def test_without_a_choice_it_is_the_substation_and_its_marginal_loss():
    # u1 solves u^2 - b u + |z|^2 |s|^2 = 0, b = 1 - 2(rP + xQ); loss = r |s|^2 / u1. With dQ = 0.2 dP:
    # mci = 0.3 (1 + dloss/dP), by implicit differentiation of u1.
    r, x, p, q, eta = 0.02, 0.04, 0.5, 0.2, 0.2
    b, zz, ss = 1 - 2 * (r * p + x * q), r * r + x * x, p * p + q * q
    u = (b + np.sqrt(b * b - 4 * zz * ss)) / 2
    db, dss = -2 * (r + x * eta), 2 * (p + q * eta)
    du = (db * u - zz * dss) / (2 * u - b)
    expected = 0.3 * (1 + r * (dss / u - ss / u**2 * du))
    case = Case(read_feeder(TWO_BUSES), 0.01, {"substation": Source(0, 0.3)}, resolve=[1], q_per_p=np.array([0, eta]))
    _, mci = case.at(np.array([0, 500.0]), np.array([0, 200.0]))
    assert mci.up_kg_per_kwh == pytest.approx([0.3, expected], abs=1e-9)


SHORT = LineList(base_kv=10.0, lines=(Line(0, 1, 1e-2, 1e-2),), loads=(BaseLoad(1, 300.0),))
GENERATOR = {"substation": Source(0, 0.9), "gt": Source(1, 0.3, 0.0, 300.0, 0.0, 0.0)}


@pytest.mark.parametrize(("load_kw", "up", "down", "status"), [
    (250.0, 0.3, 0.3, DERIVATIVE),
    (300.0, 0.9, 0.3, ONE_SIDED),  # the substation's first kW, or the generator's last
    (300.4, 0.9, 0.4 * 0.9 + 0.6 * 0.3, ONE_SIDED),
    (299.7, 0.3 * 0.3 + 0.7 * 0.9, 0.3, ONE_SIDED),
    (310.0, 0.9, 0.9, DERIVATIVE),
])
def test_a_kink_is_told_from_both_sides(load_kw: float, up: float, down: float, status: int):
    # At lambda 1 the cleaner generator beside the load runs first, up to 300 kW; the line loses next to nothing.
    case = Case(read_feeder(SHORT), 1.0, GENERATOR, resolve=[1], q_per_p=np.zeros(2))
    result, mci = case.at(np.array([0, load_kw]), np.zeros(2))
    assert mci.status[1] == status
    assert mci.up_kg_per_kwh[1] == pytest.approx(up, abs=2e-3)
    assert mci.down_kg_per_kwh[1] == pytest.approx(down, abs=2e-3)
    assert marginal_sources(result, case.dispatch.feeder.base_kw)[1] == (1.0 if load_kw < 299.9 else 0.0)


def test_a_kink_at_a_bus_that_is_not_resolved_is_said():
    case = Case(read_feeder(SHORT), 1.0, GENERATOR, resolve=[], q_per_p=np.zeros(2))
    _, mci = case.at(np.array([0, 299.7]), np.zeros(2))
    assert mci.status[1] == NEAR_KINK
    assert mci.up_kg_per_kwh[1] == pytest.approx(0.3, abs=1e-3)


def test_export_at_the_edge_is_a_kink():
    # 300 kW made and drawn at bus 1, and the substation may take power back: what it takes is no emission of its own,
    # so one kW more costs 0.3 and one kW less, exported, saves nothing.
    sources = {"substation": Source(0, 0.3, -1000.0), "gt": Source(1, 0.9, 300.0, 300.0, 0.0, 0.0)}
    case = Case(read_feeder(SHORT), 0.0, sources, resolve=[1], q_per_p=np.zeros(2))
    _, mci = case.at(np.array([0, 300.0]), np.zeros(2))
    assert (mci.status[1], mci.down_kg_per_kwh[1]) == (ONE_SIDED, pytest.approx(0.0, abs=1e-3))
    assert mci.up_kg_per_kwh[1] == pytest.approx(0.3, abs=1e-3)


def test_no_mci_where_there_is_no_optimum(feeder):
    case = Case(feeder, 0.01)
    _, good = case.at(*demand(feeder, 0.5))
    result, none = case.at(*demand(feeder, 1.0, (5000.0, 5000.0, 5000.0)))
    assert result.status != OPTIMAL
    assert none is None
    assert set(good.stale().status) == {STALE}
    assert good.stale().up_kg_per_kwh.tobytes() == good.up_kg_per_kwh.tobytes()
    assert no_mci(33).stale().status.tobytes() == no_mci(33).status.tobytes()


def test_a_longer_feeder_takes_the_same_way():
    # 250 buses in a row, fed at the head only: mci grows from 0.30 along the feeder as losses do.
    chain = LineList(base_kv=20.0, lines=tuple(Line(k, k + 1, 0.02, 0.02) for k in range(249)),
                     loads=tuple(BaseLoad(k, 5.0, 1.0) for k in range(1, 250)))
    far = read_feeder(chain)
    case = Case(far, 0.01, {"substation": Source(0, 0.3)}, resolve=[], q_per_p=np.zeros(250))
    _, mci = case.at(far.p_kw, far.q_kvar)
    assert (np.diff(mci.up_kg_per_kwh) > 0.0).all()
    (less, _), (more, _) = (case.emission(far.p_kw, far.q_kvar, 249, step) for step in (-1.0, 1.0))
    assert (more - less) / 2.0 == pytest.approx(mci.up_kg_per_kwh[249], abs=1e-4)


def random_case(seed: int):
    """A random radial feeder of 3..30 buses with 0..4 turbines, some limits tight, export allowed or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 30))
    feeder = read_feeder(LineList(
        base_kv=10.0,
        lines=tuple(Line(int(rng.integers(max(0, k - 4), k)), k, float(rng.uniform(0.05, 0.6)),
                         float(rng.uniform(0.05, 0.9))) for k in range(1, n)),
        loads=tuple(BaseLoad(k, float(rng.uniform(0, 2500 / n)), float(rng.uniform(0, 900 / n))) for k in range(1, n))))
    sources = {"up": Source(0, float(rng.uniform(0, 1)), float(rng.choice([0.0, -3000.0])))}
    for j in range(int(rng.integers(0, 5))):
        sources[f"gt{j}"] = Source(int(rng.integers(1, n)), float(rng.uniform(0, 1)), 0.0, float(rng.uniform(50, 900)),
                                   -float(rng.uniform(0, 300)), float(rng.uniform(0, 300)))
    lam, v_min = float(rng.choice([0.01, 0.1, 1.0])), float(rng.choice([0.9, 0.96]))
    return Case(feeder, lam, sources, v_min, range(1, n), rng.uniform(0.0, 0.4, n)), feeder, rng


@pytest.mark.parametrize("seed", range(10))
def test_on_random_feeders_it_is_the_difference_of_two_optima(seed: int):
    # The solver's answers, each led to its optimum by the reduced conditions there, a step of 1 kW apart.
    case, feeder, rng = random_case(seed)
    result, mci = case.at(feeder.p_kw, feeder.q_kvar)
    if mci is None:
        assert result.status != OPTIMAL
        return
    assert np.isfinite(mci.up_kg_per_kwh[1:]).all()
    here = case.mci._emission(result, 0, 0.0)
    for bus in rng.choice(np.arange(1, feeder.n_bus), 2, replace=False):
        more, less = (case.mci._emission(result, bus, step) for step in (1.0, -1.0))
        if more is not None and less is not None:
            assert more - here == pytest.approx(mci.up_kg_per_kwh[bus], abs=5e-4)
            assert here - less == pytest.approx(mci.down_kg_per_kwh[bus], abs=5e-4)
