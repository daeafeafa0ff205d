"""Batteries in a plan of several intervals: what they draw and feed in each, and the energy that ties these together.

Beside the quantities of the plan stand, battery by battery and interval by interval, the power c >= 0 that it draws,
the power d >= 0 that it feeds, and the energy e at the interval's end, with e - e_before = h (eta_c c - d / eta_d).
Nothing in that forbids c and d at once. Where energy at its bus is worth anything that is never optimal, as less of
both stores the same and feeds more; where it is not (a negative price, a surplus) the relaxation would burn it.
Intervals in which both occur are then branched on, c = 0 or d = 0, best bound first, from a plan at hand in which each
battery keeps the direction that prevails.

Rows: Z06.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array, hstack, vstack

from cosim.simulators.grid.battery import Battery
from cosim.simulators.grid.dispatch.branch_limits import EndRows
from cosim.simulators.grid.dispatch.changing import NARROWEST_PU
from cosim.simulators.grid.dispatch.conic import ConicProblem, Limits
from cosim.simulators.grid.equations import Floats, Ints

BOTH_PU = 1e-5
"""So little drawn and fed at once is a solver's tolerance."""
MOST_NODES = 60
"""Problems solved at most to find the best directions; what is best so far stands then."""
GAP_RATIO = 1e-6
"""A plan that is proven to be that near the best is the best."""
_IDLE_COST = 1e-6
"""Of power drawn or fed, in units of the scaled cost: where nothing is gained by it, none flows."""
_REACH = 1e-6
"""By so much of what a battery can reach at most its plan may end lower: room for an interior point."""


@dataclass(frozen=True, slots=True, eq=False)
class StorageRows:
    """Where the batteries stand in a plan of k intervals: draws, feeds, energies, each (k, n_battery) indices of x; and
    the rows (n_battery,) of the right-hand side that hold the energies at the beginning."""

    draws: Ints
    feeds: Ints
    energy: Ints
    first: Ints


def with_batteries(plan: ConicProblem, k: int, n_bus: int, batteries: Sequence[Battery], buses: Ints, hours: float,
                   base_kw: float, limits: Limits) -> tuple[ConicProblem, StorageRows]:
    """A plan of k intervals (`horizon.joint`) with batteries at positions `buses` in it."""
    m, size, rows = len(batteries), plan.at.size, plan.equal.shape[0]
    draws = size + np.arange(k * m).reshape(k, m)
    feeds, energy = draws + k * m, draws + 2 * k * m
    wide = size + 3 * k * m
    balance = (rows // k) * np.arange(k)[:, None] + buses[None, :]
    store = rows + np.arange(k * m).reshape(k, m)
    into = np.array([b.charge_efficiency_ratio for b in batteries]) * hours
    out = hours / np.array([b.discharge_efficiency_ratio for b in batteries])
    one = np.ones(k * m)
    entries = [(balance, draws, -one), (balance, feeds, one), (store, energy, one), (store, draws, -np.tile(into, k)),
               (store, feeds, np.tile(out, k)), (store[1:], energy[:-1], -np.ones((k - 1) * m))]
    i, j, value = (np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*entries, strict=True))
    own = csr_array(coo_array((value, (i, j)), shape=(rows + k * m, wide)))
    equal = csr_array(vstack([_widened(plan.equal, wide), csr_array((k * m, wide))]) + own)
    wear = limits.cost_kw_per_usd_h * np.array([b.wear_usd_per_kwh for b in batteries]) / plan.unit + _IDLE_COST

    def each(of: Callable[[Battery], float]) -> Floats:
        return np.tile(np.array([of(b) for b in batteries]) / base_kw, k)

    nothing = np.zeros(k * m)
    lower = np.concatenate([plan.lower, nothing, nothing, each(lambda b: b.energy_min_kwh)])
    upper = np.concatenate([plan.upper, each(lambda b: b.p_charge_max_kw), each(lambda b: b.p_discharge_max_kw),
                            each(lambda b: b.energy_max_kwh)])
    ends = EndRows(_widened(plan.ends.p, wide), _widened(plan.ends.q, wide), plan.ends.full, plan.ends.u)
    made = replace(
        plan, at=replace(plan.at, size=wide), cost=np.concatenate([plan.cost, np.tile(wear, 2 * k), nothing]),
        equal=equal, rhs=np.concatenate([plan.rhs, nothing]), below=_widened(plan.below, wide), lower=lower,
        upper=upper, quadratic=np.concatenate([plan.quadratic, np.zeros(3 * k * m)]), ends=ends)
    return made, StorageRows(draws, feeds, energy, store[0])


def _widened(rows: csr_array, size: int) -> csr_array:
    return csr_array(hstack([rows, csr_array((rows.shape[0], size - rows.shape[1]))]))


def least_end(at: StorageRows, lower: Floats, batteries: Sequence[Battery], energy_kwh: Floats, hours: float,
              base_kw: float, last: int, planned: np.ndarray) -> None:
    """Raise the lower bounds of a plan to the energies at the end of interval `last`, or to what can be reached, of the
    batteries that are `planned` (n_battery,): what is commanded ends where it is commanded to."""
    for b, (battery, now) in enumerate(zip(batteries, energy_kwh, strict=True)):
        gain = (last + 1) * hours * battery.p_charge_max_kw * battery.charge_efficiency_ratio
        most = min(now + gain * (1.0 - _REACH), battery.energy_max_kwh * (1.0 - _REACH))
        if not planned[b]:
            continue
        index = at.energy[last, b]
        lower[index] = max(lower[index], min(battery.end_kwh, most) / base_kw)


def one_way(solve: Callable[[Floats], Floats | None], value: Callable[[Floats], float], at: StorageRows,
            upper: Floats) -> tuple[Floats | None, bool]:
    """x of the best plan in which no battery draws and feeds at once, None without one; and whether it is proven.

    solve  x at other upper bounds of it, None without a solution; value: of x, which is minimised
    """
    first = solve(upper)
    if first is None or not _both(first, at).any():
        return first, True
    best = _followed(solve, at, upper, first)
    open_nodes = [(value(first), 0, upper, first)]
    nodes = 0
    while open_nodes and nodes < MOST_NODES:
        bound, _, here, x = heapq.heappop(open_nodes)
        if best is not None and bound >= value(best) - GAP_RATIO * abs(value(best)):
            return best, True
        both = _both(x, at)
        i, b = np.unravel_index(int(np.where(both, np.minimum(x[at.draws], x[at.feeds]), 0.0).argmax()), both.shape)
        for off in (at.draws[i, b], at.feeds[i, b]):
            there = here.copy()
            there[off] = NARROWEST_PU
            nodes += 1
            if (found := solve(there)) is None:
                continue
            if _both(found, at).any():
                heapq.heappush(open_nodes, (value(found), nodes, there, found))
            elif best is None or value(found) < value(best):
                best = found
    return best, not open_nodes


def _both(x: Floats, at: StorageRows) -> np.ndarray:
    """(k, n_battery) whether it draws and feeds."""
    return np.minimum(x[at.draws], x[at.feeds]) > BOTH_PU


def _followed(solve: Callable[[Floats], Floats | None], at: StorageRows, upper: Floats, x: Floats) -> Floats | None:
    """A plan with the directions that prevail in x, wherever both occurred on the way to it."""
    upper, found = upper.copy(), x
    for _ in range(at.draws.shape[0]):
        if not (both := _both(found, at)).any():
            return found
        off = np.where(found[at.draws] > found[at.feeds], at.feeds, at.draws)[both]
        upper[off] = NARROWEST_PU
        if (again := solve(upper)) is None:
            return None
        found = again
    return None
