"""The dispatch (1)-(8), (11) as a second-order cone problem in arrays, independent of the solver.

    minimise cost x + x quadratic x / 2   subject to   equal x = rhs,  below x <= limit,  lower <= x <= upper,
                                   x[p]^2 + x[q]^2 <= x[l] x[u_parent]   for every branch,
                                   x[p_source]^2 + x[q_source]^2 <= s_max^2   for every source with such a capability
                                   (P_end x)^2 + (Q_end x)^2 <= x[full] (x[u_end] or 1)   for every limited branch end

x holds, in p.u., P, Q and the squared current l of every branch, the squared voltage u of every bus, and P, Q of every
source; the elastic form adds a voltage slack per bus and the unserved share of every load. What fills a limited end of
a branch (`branch_limits`) is its squared current or apparent power, below its limit. P and Q of a branch are what
enters it at its parent: with (1) this is the paper's P_ji = -P, received at the child P_ij = P - r l, and (6) holds at
one end exactly when it holds at the other.

Rows: E01-08, E11, I30, M03, M04.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack

from cosim.simulators.grid.dispatch.branch_limits import BranchLimits, EndRows, end_rows
from cosim.simulators.grid.equations import Floats, Ints
from cosim.simulators.grid.network.feeder import Feeder

ELASTIC_V_FLOOR_PU = 0.7
"""A voltage may give way down to here before power goes unserved; below, loads trip anyhow."""
SLACK_PENALTY = 1e3
"""Price of 1 p.u. of squared voltage outside its limits; 1 is 1 p.u. of power, lost and emitted at its dearest."""
UNSERVED_PENALTY = 1e5
"""Price of 1 p.u. of unserved power, in the same unit: far above what a low voltage at every bus costs."""
_LOSSLESS_COST = 1e-6  # of a branch with r = 0, whose current would otherwise cost nothing and be undefined


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """What feeds the network, the substation too: bus positions, kg/kWh, boxes in p.u., prices, all (n_source,).

    marginal_kg_per_kwh  of one more kWh, for consequential accounts; the dispatch itself weighs kg_per_kwh
    usd_per_kwh, usd_per_kwh_pu  an hour at P p.u. costs (usd_per_kwh + usd_per_kwh_pu P) P base_kw
    available_pu  most P it has, whatever p_max_pu (a ramp, say) leaves of it for an interval
    renewable    what it has and does not give counts as curtailed
    s_max_pu     rating of a circle, inf without; q_per_p_max: |Q| <= this x P, inf without
    ramp_pu_per_min  most change of P, inf without
    """

    bus: Ints
    kg_per_kwh: Floats
    marginal_kg_per_kwh: Floats
    p_min_pu: Floats
    p_max_pu: Floats
    q_min_pu: Floats
    q_max_pu: Floats
    available_pu: Floats
    usd_per_kwh: Floats
    usd_per_kwh_pu: Floats
    renewable: NDArray[np.bool_]
    s_max_pu: Floats
    q_per_p_max: Floats
    ramp_pu_per_min: Floats

    @property
    def boxes_only(self) -> bool:
        """Whether P and Q have no limits but their boxes."""
        return not (np.isfinite(self.s_max_pu).any() or np.isfinite(self.q_per_p_max).any())


    def capable(self, controls: Floats, without: int) -> Floats:
        """P and then Q of all sources but one, p.u., pulled to what rating and power factor allow."""
        rating, ratio = np.delete(self.s_max_pu, without), np.delete(self.q_per_p_max, without)
        p, q = np.split(controls, 2)
        p = np.clip(p, -rating, rating)
        least_factor = np.isfinite(ratio)
        of_factor = np.where(least_factor, np.where(least_factor, ratio, 0.0) * np.maximum(p, 0.0), np.inf)
        most = np.minimum(np.sqrt(np.maximum(rating**2 - p**2, 0.0)), of_factor)
        return np.concatenate([p, np.clip(q, -most, most)])


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Voltage at the substation, its limits elsewhere, p.u., the weights of the objective's terms, and what branches
    may carry (None: anything).

    With the weights as they are this is (11): loss + lambda x emission. The third term is the sources' energy cost,
    the fourth what renewable sources have and do not give, kW per kW.
    """

    v0_pu: float
    v_min_pu: float
    v_max_pu: float
    lambda_kw_per_kg_h: float
    loss_weight: float = 1.0
    cost_kw_per_usd_h: float = 0.0
    curtailment_weight: float = 0.0
    branches: BranchLimits | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where each quantity stands in x; `u_parent` holds, per branch, the index of u at its parent."""

    p: slice
    q: slice
    l: slice  # noqa: E741 - the paper's letter
    u: slice
    p_source: slice
    q_source: slice
    slack: slice
    unserved: slice
    full: slice
    size: int
    u_parent: Ints


@dataclass(frozen=True, slots=True, eq=False)
class ConicProblem:
    """A dispatch in the form above.

    below, limit  elastic voltage limits, and least power factors
    discs         indices of the sources with a rating, s_max_pu (n_disc,) beside it
    unit          what 1 p.u. of the objective is in `cost`
    ends          limited ends of branches
    """

    at: Layout
    cost: Floats
    equal: csr_array
    rhs: Floats
    below: csr_array
    limit: Floats
    lower: Floats
    upper: Floats
    quadratic: Floats
    discs: Ints
    s_max_pu: Floats
    unit: float
    ends: EndRows


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A solver's result: `status` in its own words, and x where it found an optimum, else None.

    gap    of a global search, to its proven bound, relative; None elsewhere
    price  d(optimal cost) / d(rhs), where the solver gives it: the nodal prices, in units of the scaled cost
    """

    status: str
    x: Floats | None
    price: Floats | None = None
    gap: float | None = None


def balance_rhs(feeder: Feeder, p_load_kw: Floats, q_load_kvar: Floats) -> Floats:
    """Right-hand side: demand of every bus, P then Q, p.u., and the zeros of the voltage drops."""
    return np.concatenate([p_load_kw, q_load_kvar, np.zeros(len(feeder.parent))]) / feeder.base_kw


def strict(feeder: Feeder, sources: Sources, limits: Limits) -> ConicProblem:
    """The dispatch as the paper states it, at base load; other loads change `rhs` alone."""
    at = _layout(feeder, len(sources.bus), 0, 0, limits)
    lower, upper = _bounds(sources, limits, at)
    at_root, scale = np.arange(feeder.n_bus) == feeder.substation, feeder.vm_ratio**2
    lower[at.u] = np.where(at_root, limits.v0_pu**2, limits.v_min_pu**2 / scale)
    upper[at.u] = np.where(at_root, limits.v0_pu**2, limits.v_max_pu**2 / scale)
    rhs = balance_rhs(feeder, feeder.p_kw, feeder.q_kvar)
    below = _power_factors(sources, at)
    unit = _cost_unit(sources, limits)
    cost, quadratic = costs(feeder, sources, limits, at, unit)
    return ConicProblem(at, cost, _equalities(feeder, sources, at, []), rhs, below, np.zeros(below.shape[0]), lower,
                        upper, quadratic, *_discs(sources), unit, _ends(feeder, limits, at))


def elastic(
    feeder: Feeder, sources: Sources, limits: Limits, p_load_kw: Floats, q_load_kvar: Floats, shed: Ints
) -> ConicProblem:
    """The dispatch that always has a solution as far as loads can make it so.

    Every bus has a voltage slack, and every bus in `shed` (p_load_kw > 0) an unserved share of its P and Q, each at an
    exact penalty: a feasible problem never pays it, because no constraint's own price comes near it.
    """
    n, m = feeder.n_bus, len(shed)
    at = _layout(feeder, len(sources.bus), n, m, limits)
    (lower, upper), unit = _bounds(sources, limits, at), _cost_unit(sources, limits)
    cost, quadratic = costs(feeder, sources, limits, at, unit)
    p_pu, q_pu = p_load_kw / feeder.base_kw, q_load_kvar / feeder.base_kw
    scale = feeder.vm_ratio**2
    lower[at.u] = min(ELASTIC_V_FLOOR_PU, limits.v_min_pu) ** 2 / scale
    upper[at.u] = np.inf
    lower[at.u.start + feeder.substation] = upper[at.u.start + feeder.substation] = limits.v0_pu**2
    lower[at.slack], upper[at.slack], cost[at.slack] = 0.0, np.inf, SLACK_PENALTY
    lower[at.unserved], upper[at.unserved] = 0.0, 1.0
    cost[at.unserved] = UNSERVED_PENALTY * p_pu[shed]
    unserved = np.arange(m) + at.unserved.start
    extra = [(shed, unserved, p_pu[shed]), (n + shed, unserved, q_pu[shed])]
    others = np.delete(np.arange(n), feeder.substation)
    rows, one = np.arange(n - 1), np.ones(n - 1)
    below = _matrix(2 * (n - 1), at.size, [
        (rows, at.u.start + others, -one), (rows, at.slack.start + others, -one),
        (n - 1 + rows, at.u.start + others, one), (n - 1 + rows, at.slack.start + others, -one),
    ])
    ratios = _power_factors(sources, at)
    per_pu = one / scale[others]
    limit = np.concatenate([-limits.v_min_pu**2 * per_pu, limits.v_max_pu**2 * per_pu, np.zeros(ratios.shape[0])])
    rhs = balance_rhs(feeder, p_load_kw, q_load_kvar)
    return ConicProblem(at, cost, _equalities(feeder, sources, at, extra), rhs, csr_array(vstack([below, ratios])),
                        limit, lower, upper, quadratic, *_discs(sources), unit, _ends(feeder, limits, at))


def layout(slices: Sequence[slice], u_parent: Ints) -> Layout:
    """Quantities one behind the other, in the order of the fields."""
    p, q, current, u, p_source, q_source, slack, unserved, full = slices
    return Layout(p, q, current, u, p_source, q_source, slack, unserved, full, full.stop, u_parent)


def _layout(feeder: Feeder, n_source: int, n_slack: int, n_unserved: int, limits: Limits) -> Layout:
    n_branch, end = len(feeder.parent), 0
    n_full = 0 if limits.branches is None else len(limits.branches.end_branch)
    slices: list[slice] = []
    for count in (n_branch, n_branch, n_branch, feeder.n_bus, n_source, n_source, n_slack, n_unserved, n_full):
        slices.append(slice(end, end + count))
        end += count
    return layout(slices, slices[3].start + feeder.parent)


def _ends(feeder: Feeder, limits: Limits, at: Layout) -> EndRows:
    return end_rows(feeder, limits.branches, at.p.start, at.q.start, at.l.start, at.u.start, at.full.start, at.size)


def _bounds(sources: Sources, limits: Limits, at: Layout) -> tuple[Floats, Floats]:
    """Bounds of everything but the voltages."""
    lower, upper = np.full(at.size, -np.inf), np.full(at.size, np.inf)
    lower[at.p_source], upper[at.p_source] = sources.p_min_pu, sources.p_max_pu
    lower[at.q_source], upper[at.q_source] = sources.q_min_pu, sources.q_max_pu
    lower[at.l] = 0.0
    if limits.branches is not None:
        rated = at.l.start + np.flatnonzero(np.isfinite(limits.branches.most_l_pu))
        lower[rated], upper[at.l], upper[at.full] = -np.inf, limits.branches.most_l_pu, limits.branches.most_full_pu
    return lower, upper


def _cost_unit(sources: Sources, limits: Limits) -> float:
    """1 p.u. lost or generated at its dearest: what costs are divided by for the solver's sake."""
    return 1.0 + float(np.abs(_of_energy(sources, limits)).max())


def costs(feeder: Feeder, sources: Sources, limits: Limits, at: Layout, unit: float) -> tuple[Floats, Floats]:
    """(11), or the weighted terms in its place: linear and quadratic cost of x, divided by `unit`."""
    cost, quadratic = np.zeros(at.size), np.zeros(at.size)
    cost[at.l] = np.maximum(limits.loss_weight * feeder.r_pu, _LOSSLESS_COST)
    cost[at.u] = limits.loss_weight * feeder.g_lost_pu
    cost[at.p_source] = _of_energy(sources, limits) - limits.curtailment_weight * sources.renewable
    quadratic[at.p_source] = 2.0 * limits.cost_kw_per_usd_h * sources.usd_per_kwh_pu
    return cost / unit, quadratic / unit


def _of_energy(sources: Sources, limits: Limits) -> Floats:
    return limits.lambda_kw_per_kg_h * sources.kg_per_kwh + limits.cost_kw_per_usd_h * sources.usd_per_kwh


def _power_factors(sources: Sources, at: Layout) -> csr_array:
    """Rows Q - ratio P <= 0 and -Q - ratio P <= 0 of every source with a least power factor."""
    s = np.flatnonzero(np.isfinite(sources.q_per_p_max))
    if not len(s):
        return csr_array((0, at.size))
    k, one, ratio = np.arange(len(s)), np.ones(len(s)), sources.q_per_p_max[s]
    return _matrix(2 * len(s), at.size, [
        (k, at.q_source.start + s, one), (k, at.p_source.start + s, -ratio),
        (len(s) + k, at.q_source.start + s, -one), (len(s) + k, at.p_source.start + s, -ratio)])


def _discs(sources: Sources) -> tuple[Ints, Floats]:
    rated = np.flatnonzero(np.isfinite(sources.s_max_pu))
    return rated, sources.s_max_pu[rated]


def _equalities(
    feeder: Feeder, sources: Sources, at: Layout, extra: Sequence[tuple[Ints, Ints, Floats]]
) -> csr_array:
    """Rows: balance (2), (4) of P, then (5) of Q at every bus (inflow - outflow + sources = load), then drops (3).

    (1) to (5).
    """
    n, k = feeder.n_bus, np.arange(len(feeder.parent))
    one, s = np.ones(len(k)), np.arange(len(sources.bus))
    r, x, parent, child, drop = feeder.r_pu, feeder.x_pu, feeder.parent, feeder.child, 2 * n + k
    buses = np.arange(n)
    return _matrix(2 * n + len(k), at.size, [
        (child, at.p.start + k, one), (child, at.l.start + k, -r), (parent, at.p.start + k, -one),
        (sources.bus, at.p_source.start + s, np.ones(len(s))),
        (n + child, at.q.start + k, one), (n + child, at.l.start + k, -x), (n + parent, at.q.start + k, -one),
        (n + sources.bus, at.q_source.start + s, np.ones(len(s))),
        (n + buses, at.u.start + buses, feeder.b_pu), (buses, at.u.start + buses, -feeder.g_pu),
        (drop, at.u.start + child, one), (drop, at.u.start + parent, -one),
        (drop, at.p.start + k, 2 * r), (drop, at.q.start + k, 2 * x), (drop, at.l.start + k, -(r**2 + x**2)),
        *extra,
    ])


def _matrix(rows: int, columns: int, entries: Sequence[tuple[Ints, Ints, Floats]]) -> csr_array:
    i, j, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = csr_array(coo_array((value, (i, j)), shape=(rows, columns)))
    matrix.eliminate_zeros()
    return matrix
