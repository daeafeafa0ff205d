"""Ramp limits, and a look-ahead that anticipates steps in demand: what is left of each source's limits in an interval.

A plan of k intervals in one problem decides where each source has to be in the next interval; the interval itself is
then dispatched alone, between what its ramp leaves from the set point before and what it leaves towards that next one.
Both are the same optimum: with the later intervals at their optimum, the first one's part of the plan is optimal.

Rows: Z06.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import block_array, coo_array, csr_array, vstack

from cosim.simulators.grid.dispatch.branch_limits import EndRows
from cosim.simulators.grid.dispatch.changing import NARROWEST_PU
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Layout, Sources, balance_rhs, costs, layout
from cosim.simulators.grid.dispatch.optimal_power_flow import GAP_RATIO, LOSS_PRICES, PHANTOM_PU, Dispatch
from cosim.simulators.grid.dispatch.surplus import curtailed_kw
from cosim.simulators.grid.equations import Floats, Ints, cone_gap


class Ramps:
    """Limits of P of the sources in one interval: what their ramps, and a plan at the forecast loads, leave them.

    interval_min  length of an interval; steps: intervals of the plan, 1 for none
    """

    def __init__(self, dispatch: Dispatch, interval_min: float, steps: int) -> None:
        self._dispatch, self._steps = dispatch, steps
        self._ramp_pu = dispatch.sources.ramp_pu_per_min * interval_min
        self._p_min_pu = dispatch.sources.p_min_pu
        self._plan: ClarabelSolver | None = None
        self._joint: ConicProblem | None = None

    @property
    def any(self) -> bool:
        """Whether a source has a ramp at all."""
        return bool(np.isfinite(self._ramp_pu).any())

    def boxes(self, before_kw: Floats | None, intervals: int, demand: Sequence[tuple[Floats, Floats]],
              ahead: Sequence[Sources] = ()) -> tuple[Floats, Floats, bool]:
        """Least and most P (n_source,) p.u. in the interval to come, and whether a plan was used.

        before_kw  (n_source,) set points executed `intervals` ago, > 0 feeds the network; None: no ramp ties the first
        demand     (P kW, Q kvar) of every bus in this interval and those after it; without a solution for all of them
                   there is no plan, and the ramp from the set points before is all
        ahead      the sources in each of those after it; none: as they are now
        """
        low, high = self._p_min_pu, self._dispatch.sources.available_pu
        if before_kw is not None:
            before, reach = before_kw / self._dispatch.feeder.base_kw, self._ramp_pu * intervals
            low, high = np.clip(before - reach, low, high), np.clip(before + reach, low, high)
        if self._steps == 1 or len(demand) == 1:
            return low, high, True
        then = self._next(low, high, demand, ahead)
        if then is None:
            return low, high, False
        top = np.maximum(np.minimum(high, then + self._ramp_pu), np.minimum(low + NARROWEST_PU, high))
        return np.maximum(low, np.minimum(then - self._ramp_pu, top - NARROWEST_PU)), top, True

    def _next(self, low: Floats, high: Floats, demand: Sequence[tuple[Floats, Floats]], ahead: Sequence[Sources]
              ) -> Floats | None:
        """The plan's set points (n_source,) p.u. of the interval after this one; None without a plan."""
        d, k = self._dispatch, len(demand)
        single = d.problem
        if self._joint is None or self._plan is None or len(self._joint.rhs) != k * len(single.rhs):
            wide = single.lower.copy(), single.upper.copy()
            most = np.where(d.moves, self._p_min_pu + 1.0, d.sources.available_pu)
            wide[0][single.at.p_source], wide[1][single.at.p_source] = self._p_min_pu, most
            single = replace(single, lower=wide[0], upper=wide[1])
            self._joint = joint(single, d.feeder.n_bus, k, self._ramp_pu)
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
        plan.rebound(lower, upper)
        wide_open = replace(d.sources, p_min_pu=self._p_min_pu)
        rhs = np.concatenate([balance_rhs(d.feeder, p + curtailed_kw(p, wide_open, d.feeder.base_kw), q)
                              for p, q in demand])
        of_losses = cost[at.l].copy()
        for price in (1.0, *LOSS_PRICES):  # dearer where the plan would burn a surplus in losses that do not occur
            cost[at.l] = price * of_losses
            plan.reprice(cost)
            x = plan.solve(rhs).x
            if x is not None and self._exact(x, at, k):
                return x[at.p_source.start + n: at.p_source.start + 2 * n]
        return None

    def _exact(self, x: Floats, at: Layout, k: int) -> bool:
        """Whether no interval of a plan burns more than Ohm's law does, as `Dispatch` requires of one."""
        feeder = self._dispatch.feeder
        gap = cone_gap(x[at.p], x[at.q], x[at.u_parent], x[at.l])
        phantom = np.tile(feeder.r_pu + feeder.x_pu, k) * gap / x[at.u_parent]
        ratio = gap / np.maximum(x[at.l] * x[at.u_parent], 1e-6)
        return bool(ratio.max() <= GAP_RATIO or phantom.sum() <= PHANTOM_PU * k)


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
