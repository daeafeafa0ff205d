"""Ramp limits, and a look-ahead that anticipates steps in demand: what is left of each source's limits in an interval.

A plan of k intervals in one problem decides where each source has to be in the next interval; the interval itself is
then dispatched alone, between what its ramp leaves from the set point before and what it leaves towards that next one.
Both are the same optimum: with the later intervals at their optimum, the first one's part of the plan is optimal.

Rows: Z06.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import block_array, coo_array, csr_array, vstack

from cosim.simulators.grid.battery import Battery
from cosim.simulators.grid.dispatch.branch_limits import EndRows
from cosim.simulators.grid.dispatch.changing import NARROWEST_PU
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Layout, Sources, balance_rhs, costs, layout
from cosim.simulators.grid.dispatch.optimal_power_flow import GAP_RATIO, LOSS_PRICES, PHANTOM_PU, Dispatch
from cosim.simulators.grid.dispatch.storage import StorageRows, least_end, one_way, with_batteries
from cosim.simulators.grid.dispatch.surplus import curtailed_kw
from cosim.simulators.grid.equations import Floats, Ints, cone_gap
from cosim.units import HOUR_S, MIN_S


class Ramps:
    """Limits of P of the sources in one interval: what their ramps, and a plan at the forecast loads, leave them; and
    what the plan has batteries do.

    interval_min  length of an interval; steps: intervals of the plan, 1 for none
    batteries, buses  what is planned beside the sources, and where
    """

    def __init__(self, dispatch: Dispatch, interval_min: float, steps: int, batteries: Sequence[Battery] = (),
                 buses: Ints | None = None) -> None:
        self._dispatch, self._steps, self._hours = dispatch, steps, interval_min * MIN_S / HOUR_S
        self._batteries, self._buses = batteries, buses
        self._rows: StorageRows | None = None
        self._length = 0
        self.battery_kw: Floats | None = None  # of the plan's first interval; None without a plan
        self.proven = True
        self._ramp_pu = dispatch.sources.ramp_pu_per_min * interval_min
        self._p_min_pu = dispatch.sources.p_min_pu
        self._plan: ClarabelSolver | None = None
        self._joint: ConicProblem | None = None

    @property
    def any(self) -> bool:
        """Whether a source has a ramp at all."""
        return bool(np.isfinite(self._ramp_pu).any())

    def boxes(self, before_kw: Floats | None, intervals: int, demand: Sequence[tuple[Floats, Floats]],
              ahead: Sequence[Sources] = (), stored: StoredNow | None = None) -> tuple[Floats, Floats, bool]:
        """Least and most P (n_source,) p.u. in the interval to come, and whether a plan was used.

        before_kw  (n_source,) set points executed `intervals` ago, > 0 feeds the network; None: no ramp ties the first
        demand     (P kW, Q kvar) of every bus in this interval and those after it; without a solution for all of them
                   there is no plan, and the ramp from the set points before is all
        ahead      the sources in each of those after it; none: as they are now
        stored     of the batteries; `battery_kw` and `proven` are then what the plan has them do in the interval to
                   come, and whether the directions they take are proven to be the best
        """
        self.battery_kw, self.proven = None, True
        low, high = self._p_min_pu, self._dispatch.sources.available_pu
        if before_kw is not None:
            before, reach = before_kw / self._dispatch.feeder.base_kw, self._ramp_pu * intervals
            low, high = np.clip(before - reach, low, high), np.clip(before + reach, low, high)
        if self._steps == 1 or len(demand) == 1:
            return low, high, True
        then = self._next(low, high, demand, ahead, stored)
        if then is None:
            return low, high, False
        top = np.maximum(np.minimum(high, then + self._ramp_pu), np.minimum(low + NARROWEST_PU, high))
        return np.maximum(low, np.minimum(then - self._ramp_pu, top - NARROWEST_PU)), top, True

    def _next(self, low: Floats, high: Floats, demand: Sequence[tuple[Floats, Floats]], ahead: Sequence[Sources],
              stored: StoredNow | None) -> Floats | None:
        """The plan's set points (n_source,) p.u. of the interval after this one; None without a plan."""
        d, k = self._dispatch, len(demand)
        single = d.problem
        if self._joint is None or self._plan is None or self._length != k:
            self._length = k
            wide = single.lower.copy(), single.upper.copy()
            most = np.where(d.moves, self._p_min_pu + 1.0, d.sources.available_pu)
            wide[0][single.at.p_source], wide[1][single.at.p_source] = self._p_min_pu, most
            single = replace(single, lower=wide[0], upper=wide[1])
            self._joint = joint(single, d.feeder.n_bus, k, self._ramp_pu)
            if self._buses is not None:
                self._joint, self._rows = with_batteries(self._joint, k, d.feeder.n_bus, self._batteries, self._buses,
                                                         self._hours, d.feeder.base_kw, d.limits)
            self._plan = ClarabelSolver(self._joint, d.time_limit_s)
        plan, at, n = self._plan, self._joint.at, len(low)
        cost, lower, upper = self._joint.cost.copy(), self._joint.lower.copy(), self._joint.upper.copy()
        first = slice(at.p_source.start, at.p_source.start + n)
        then = ahead or [d.sources] * (k - 1)
        most = np.concatenate([np.maximum(s.available_pu, self._p_min_pu + d.moves * NARROWEST_PU) for s in then])
        cost[at.p_source] = np.concatenate([costs(d.feeder, s, d.limits, d.problem.at, d.problem.unit)[0][
            d.problem.at.p_source] for s in (d.sources, *then)])
        upper[at.p_source.start + n: at.p_source.stop] = most
        lower[first], upper[first] = low, np.maximum(high, low + d.moves * NARROWEST_PU)
        wide_open, absorbed_kw = replace(d.sources, p_min_pu=self._p_min_pu), sum(
            b.p_charge_max_kw for b in self._batteries)
        rhs = np.concatenate([balance_rhs(d.feeder, p + curtailed_kw(p, wide_open, d.feeder.base_kw, -absorbed_kw), q)
                              for p, q in demand])
        if stored is not None and self._rows is not None:
            rhs = stored.into(rhs, self._rows, lower, upper, self._batteries, self._hours, d.feeder.base_kw)
        of_losses = cost[at.l].copy()
        for price in (1.0, *LOSS_PRICES):  # dearer where the plan would burn a surplus in losses that do not occur
            cost[at.l] = price * of_losses
            plan.reprice(cost)
            x = self._planned(plan, rhs, cost, lower, upper)
            if x is not None and self._exact(x, at, k):
                if self._rows is not None:
                    rows = self._rows
                    self.battery_kw = (x[rows.feeds[0]] - x[rows.draws[0]]) * d.feeder.base_kw
                return x[at.p_source.start + n: at.p_source.start + 2 * n]
        return None

    def _planned(self, plan: ClarabelSolver, rhs: Floats, cost: Floats, lower: Floats, upper: Floats) -> Floats | None:
        """x of the best plan in which no battery charges and discharges at once; None without one."""
        def solve(most: Floats) -> Floats | None:
            plan.rebound(lower, most)
            return plan.solve(rhs).x

        if self._rows is None or self._joint is None:
            return solve(upper)
        quadratic = self._joint.quadratic
        x, self.proven = one_way(solve, lambda x: float(cost @ x + quadratic @ x**2 / 2.0), self._rows, upper)
        return x

    def _exact(self, x: Floats, at: Layout, k: int) -> bool:
        """Whether no interval of a plan burns more than Ohm's law does, as `Dispatch` requires of one."""
        feeder = self._dispatch.feeder
        gap = cone_gap(x[at.p], x[at.q], x[at.u_parent], x[at.l])
        phantom = np.tile(feeder.r_pu + feeder.x_pu, k) * gap / x[at.u_parent]
        ratio = gap / np.maximum(x[at.l] * x[at.u_parent], 1e-6)
        return bool(ratio.max() <= GAP_RATIO or phantom.sum() <= PHANTOM_PU * k)


@dataclass(frozen=True, slots=True, eq=False)
class StoredNow:
    """Of the batteries: energy_kwh (n_battery,) in them, fixed_kw (n_battery,) powers commanded from outside in the
    first interval (NaN: none), and `last`, the interval of the plan at whose end they hold what they have to."""

    energy_kwh: Floats
    fixed_kw: Floats
    last: int

    def into(self, rhs: Floats, rows: StorageRows, lower: Floats, upper: Floats, batteries: Sequence[Battery],
             hours: float, base_kw: float) -> Floats:
        """The right-hand side of a plan, its first energies included; the bounds are changed in place."""
        out = np.zeros(rows.first[0] + rows.draws.size)
        out[: len(rhs)] = rhs
        out[rows.first] = self.energy_kwh / base_kw
        least_end(rows, lower, batteries, self.energy_kwh, hours, base_kw, self.last, np.isnan(self.fixed_kw))
        for b in np.flatnonzero(np.isfinite(self.fixed_kw)):
            pu = self.fixed_kw[b] / base_kw
            for index, amount in ((rows.feeds[0, b], max(pu, 0.0)), (rows.draws[0, b], max(-pu, 0.0))):
                lower[index] = max(amount - NARROWEST_PU, 0.0)
                upper[index] = amount + NARROWEST_PU
        return out


def joint(problem: ConicProblem, n_bus: int, k: int, ramp_pu: Floats) -> ConicProblem:
    """k intervals of a dispatch as one problem: |P of a source - its P an interval before| <= ramp_pu (n_source,).

    Quantities stand by kind, then by interval; right-hand sides interval by interval. Sources without a ramp have inf.
    """
    one, kinds = problem.at, _kinds(problem.at)
    end = 0
    slices: list[slice] = []
    for kind in kinds:
        slices.append(slice(end, end + k * (kind.stop - kind.start)))
        end = slices[-1].stop
    where = np.empty((k, one.size), dtype=np.int64)
    for kind, stretch in zip(kinds, slices, strict=True):
        where[:, kind] = np.arange(stretch.start, stretch.stop).reshape(k, -1)
    parents = (slices[3].start + (one.u_parent - one.u.start) + n_bus * np.arange(k)[:, None]).ravel()
    at = layout(slices, parents)
    ramped = np.flatnonzero(np.isfinite(ramp_pu))
    ramps = _ramp_rows(at, len(ramp_pu), ramped, k)
    n_source, of_all = len(ramp_pu), where.ravel()
    spread = np.empty(end, dtype=np.int64)
    spread[of_all] = np.tile(np.arange(one.size), k)
    return ConicProblem(
        at=at, cost=problem.cost[spread], equal=_diagonal(problem.equal, k, of_all), rhs=np.tile(problem.rhs, k),
        below=csr_array(vstack([_diagonal(problem.below, k, of_all), ramps])),
        limit=np.concatenate([np.tile(problem.limit, k), np.tile(ramp_pu[ramped], 2 * (k - 1))]),
        lower=problem.lower[spread], upper=problem.upper[spread], quadratic=problem.quadratic[spread],
        discs=(problem.discs + n_source * np.arange(k)[:, None]).ravel(), s_max_pu=np.tile(problem.s_max_pu, k),
        unit=problem.unit, ends=EndRows(
            _diagonal(problem.ends.p, k, of_all), _diagonal(problem.ends.q, k, of_all),
            _spread(problem.ends.full, where),
            np.where(np.tile(problem.ends.u, k) < 0, -1, _spread(problem.ends.u, where))))


def _kinds(at: Layout) -> list[slice]:
    return [at.p, at.q, at.l, at.u, at.p_source, at.q_source, at.slack, at.unserved, at.full]


def _spread(indices: Ints, where: Ints) -> Ints:
    """Quantities of one interval, in every interval; `where` (k, size) is the joint place of each."""
    return where[:, indices].ravel()


def _diagonal(rows: csr_array, k: int, where: Ints) -> csr_array:
    """The same rows once per interval; `where` (k * size,) is the joint place of each interval's quantities."""
    if not rows.shape[0]:
        return csr_array((0, len(where)))
    blocks = block_array([[rows if i == j else None for j in range(k)] for i in range(k)]).tocoo()
    return csr_array(coo_array((blocks.data, (blocks.coords[0], where[blocks.coords[1]])), shape=blocks.shape))


def _ramp_rows(at: Layout, n_source: int, ramped: Ints, k: int) -> csr_array:
    """P(i + 1) - P(i) of each source with a ramp, then the same with the other sign, interval by interval."""
    m = len(ramped)
    row = np.arange(2 * (k - 1) * m).reshape(k - 1, 2, m)
    before = at.p_source.start + ramped + n_source * np.arange(k - 1)[:, None, None]
    after = before + n_source
    sign = np.array([1.0, -1.0])[None, :, None]
    value = np.broadcast_to(sign, row.shape)
    i = np.concatenate([row.ravel(), row.ravel()])
    j = np.concatenate([np.broadcast_to(after, row.shape).ravel(), np.broadcast_to(before, row.shape).ravel()])
    return csr_array(coo_array((np.concatenate([value.ravel(), -value.ravel()]), (i, j)),
                               shape=(2 * (k - 1) * m, at.size)))
