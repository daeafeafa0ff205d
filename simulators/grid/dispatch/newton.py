"""The conic dispatch of a radial feeder by Newton steps in the set points, for many loads, prices and limits at once.

Where the relaxation is exact its optimum is one of the AC power flow: power and voltages follow from the set points z
(P and Q of all sources but the substation) by the sweep of `equations.radial_power_flow`, and the cost's gradient in z
by its adjoint. Steps use the curvature that losses have at no load, so that both sweeps and the set points converge
together, each step from the last one's state; limits of z are kept by projection.

What was found is given out only with a proof that it is the optimum of the conic problem: the set points' gradient is 0
up to `STATIONARY` or points out of their box, no limit on voltages, currents and the substation is in force, and the
prices of the cones that the nodal prices imply are not negative (they and the nodal prices are then multipliers of the
convex problem). Everywhere else, and for problems with more than boxes and series impedances, another solver has to
take over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Layout, Solution, Sources
from cosim.simulators.grid.equations import Complexes, Floats
from cosim.simulators.grid.network.feeder import Feeder

STATIONARY = 1e-9
"""Largest slope of the scaled cost in a set point inside its box, or into its box at its limit, per p.u.: the KKT
residual with which an optimum is given out. All others are 0 up to rounding."""
_STILL_PU, _FLOW_PU = 1e-11, 1e-13
"""Set points, and voltages and their adjoint, that move by less have arrived."""
_MOST_STEPS = 60
_SWEEPS = 2
"""of the power flow and of its adjoint per step."""
_ONE_THREAD = 32_768
"""Multiplications of complex numbers in one product up to which OpenBLAS takes one thread; several would spend most of
the time waiting for each other."""
_ROOM_PU = 1e-7
"""Distance of the state from its limits below which a proof is not attempted."""


class SourceTerms(NamedTuple):
    """What may differ from one dispatch to another, as columns: linear cost of the sources' P and Q, and their limits,
    (n_source, B) each; or as rows (n_source,) of one."""

    p_cost: Floats
    q_cost: Floats
    p_min: Floats
    p_max: Floats
    q_min: Floats
    q_max: Floats

    @classmethod
    def of(cls, at: Layout, cost: Floats, lower: Floats, upper: Floats) -> SourceTerms:
        """Those of one problem's cost and bounds of x."""
        p, q = at.p_source, at.q_source
        return cls(cost[p], cost[q], lower[p], upper[p], lower[q], upper[q])

    @classmethod
    def columns(cls, each: Sequence[SourceTerms]) -> SourceTerms:
        """Several side by side."""
        return cls(*(np.stack(column, axis=1) for column in zip(*each, strict=True)))

    def some(self, index: slice) -> SourceTerms:
        """Some of the columns."""
        return SourceTerms(*(column[:, index] for column in self))


class _SetPoints(NamedTuple):
    """Columns are loads: set points z (n_z, B), their slopes, voltages v, currents and the adjoint y (n_bus, B), the
    substation's marginal cost (B,)."""

    z: Floats
    slope: Floats
    v: Complexes
    current: Complexes
    y: Complexes
    marginal: Floats


class SetPointNewton:
    """The dispatches of one feeder with sources in boxes: they may differ in what is drawn and in `SourceTerms`. `made`
    is whether a problem is of that kind."""

    @classmethod
    def made(cls, problem: ConicProblem, feeder: Feeder, sources: Sources, substation: int) -> SetPointNewton | None:
        """For a problem of boxes, series impedances, and at most one source at a bus; None for others."""
        tree, others = feeder.tree, np.delete(sources.bus, substation)
        plain = (tree.drop is not None and not tree.y_pu.any() and tree.g_parent_pu is None and sources.boxes_only
                 and not problem.below.shape[0] and problem.at.full.start == problem.at.full.stop
                 and not problem.cost[problem.at.u].any()
                 and feeder.substation not in others and len(set(others.tolist())) == len(others) > 0
                 and tree.z_pu.real.min() > 0.0)
        return cls(problem, feeder, sources, substation) if plain else None

    def __init__(self, problem: ConicProblem, feeder: Feeder, sources: Sources, substation: int) -> None:
        tree, at = feeder.tree, problem.at
        assert tree.drop is not None, "made() looks"
        self._tree, self._drop, self._below, self._at = tree, tree.drop, np.asarray(tree.below), at
        self._quadratic, self._branch_cost = problem.quadratic, problem.cost[at.l]
        self._others = np.delete(np.arange(len(sources.bus)), substation)
        self._bus, self._substation, self._root = sources.bus[self._others], substation, feeder.substation
        self._lower, self._upper = problem.lower, problem.upper
        self._v0 = float(np.sqrt(problem.lower[at.u][self._root]))
        self._priced = self._below.T @ (self._branch_cost[:, None] * self._below)
        self._own_quadratic = np.concatenate([problem.quadratic[part][self._others]
                                              for part in (at.p_source, at.q_source)])

    def solve(self, rhs: Floats, terms: SourceTerms) -> list[Solution | None]:
        """The optimum for each row of right-hand sides (B, n_equal) as of `ConicProblem.rhs`, at the terms (n_source,
        B); None where it is not proven."""
        some = max(_ONE_THREAD // len(self._drop)**2, 1)
        return [found for k in range(0, len(rhs), some)
                for found in self._solve(rhs[k:k + some], terms.some(slice(k, k + some)))]

    def _solve(self, rhs: Floats, terms: SourceTerms) -> list[Solution | None]:
        n = len(self._drop)
        load = np.ascontiguousarray((rhs[:, :n] + 1j * rhs[:, n:2 * n]).T)
        with np.errstate(all="ignore"):  # a load that cannot be carried may overflow on its way to a refusal
            state = self._descend(load, terms)
            x = self._point(load, state)
            proven = self._proven(x, state, terms)
        return [Solution("optimal", np.ascontiguousarray(x[:, b])) if proven[b] else None for b in range(len(proven))]

    def _box(self, terms: SourceTerms) -> tuple[Floats, Floats]:
        """(n_z, B) each."""
        others = self._others
        return (np.concatenate([terms.p_min[others], terms.q_min[others]]),
                np.concatenate([terms.p_max[others], terms.q_max[others]]))

    def _descend(self, load: Complexes, terms: SourceTerms) -> _SetPoints:
        """Steps until all columns stand still, or until there were too many."""
        v0, (low, high) = self._v0, self._box(terms)
        z = np.clip(0.0, low, high)
        v, y = np.full(load.shape, v0, complex), np.zeros(load.shape, complex)
        hessian, conj_load, half = self._hessian(terms), np.conj(load), len(z) // 2
        own_cost = np.concatenate([terms.p_cost[self._others], terms.q_cost[self._others]])
        from_root = terms.p_cost[self._substation]
        for _ in range(_MOST_STEPS):
            net = conj_load.copy()
            net[self._bus] -= z[:half] - 1j * z[half:]
            for _ in range(_SWEEPS):
                before, v = v, v0 - self._drop @ (net / np.conj(v))
            current = net / np.conj(v)
            lost = self._drop.real @ current
            marginal = self._marginal(from_root, load, z, np.einsum("ib,ib->b", np.conj(current), lost).real)
            pull, ratio = 2.0 * (self._priced @ current + marginal * lost), np.conj(current) / v
            for _ in range(_SWEEPS):
                adjoint, y = y, pull + np.conj(self._drop @ (y * ratio))
            slope = self._slope(own_cost, z, v, y, marginal)
            free = ~(((z <= low) & (slope >= 0.0)) | ((z >= high) & (slope <= 0.0)))
            moved = np.clip(z - _solved(hessian, slope, free), low, high)
            still = (np.abs(moved - z).max() <= _STILL_PU and np.abs(v - before).max() <= _FLOW_PU
                     and np.abs(y - adjoint).max() <= _FLOW_PU)
            if still:
                break
            z = moved
        return _SetPoints(z, slope, v, current, y, marginal)

    def _hessian(self, terms: SourceTerms) -> Floats:
        """(B, n_z, n_z) curvature of the cost in z at no load."""
        at, k, here = self._at, len(self._others), np.ix_(self._bus, self._bus)
        from_root = terms.p_cost[self._substation][:, None, None]
        block = 2.0 * (self._priced[here] + from_root * self._drop.real[here]) / self._v0**2
        hessian = np.zeros((len(block), 2 * k, 2 * k))
        hessian[:, :k, :k] = block + self._quadratic[at.p_source][self._substation]
        hessian[:, k:, k:] = block
        return hessian + np.diag(self._own_quadratic)

    def _marginal(self, from_root: Floats, load: Complexes, z: Floats, loss: Floats) -> Floats:
        """(B,) cost of one more p.u. from the substation, whose linear cost is `from_root` (B,)."""
        power = load.real.sum(axis=0) - z[:len(self._others)].sum(axis=0) + loss
        return np.asarray(from_root + self._quadratic[self._at.p_source][self._substation] * power)

    def _slope(self, own_cost: Floats, z: Floats, v: Complexes, y: Complexes, marginal: Floats) -> Floats:
        """(n_z, B) of the cost in z, of which `own_cost` (n_z, B) are the linear terms."""
        others = self._others
        own = own_cost + z * self._own_quadratic[:, None]
        price = y[self._bus] / v[self._bus]
        own[:len(others)] -= price.real + marginal
        own[len(others):] += price.imag
        return np.asarray(own)

    def _point(self, load: Complexes, state: _SetPoints) -> Floats:
        """x (size, B) of the conic problem at the set points, by the power flow that they cause."""
        at, tree, k = self._at, self._tree, len(self._others)
        x, through = np.zeros((at.size, load.shape[1])), self._below @ state.current
        enter = state.v[tree.parent] * np.conj(through)
        x[at.p], x[at.q] = enter.real, enter.imag
        x[at.l], x[at.u] = np.abs(through)**2, np.abs(state.v)**2
        x[at.p_source.start + self._others], x[at.q_source.start + self._others] = state.z[:k], state.z[k:]
        given = load[self._root] + enter[tree.parent == self._root].sum(axis=0)
        x[at.p_source.start + self._substation] = given.real
        x[at.q_source.start + self._substation] = given.imag
        return x

    def _proven(self, x: Floats, state: _SetPoints, terms: SourceTerms) -> NDArray[np.bool_]:
        """(B,) whether all conditions of an optimum of the conic problem hold."""
        at, tree, (low, high), root = self._at, self._tree, self._box(terms), self._substation
        z, slope, v = state.z, state.slope, state.v
        inward = np.where(z <= low, -slope, np.where(z >= high, slope, np.abs(slope)))
        inward[low == high] = 0.0
        good = inward.max(axis=0) <= STATIONARY
        good &= np.abs(self._v0 - self._drop @ state.current - v).max(axis=0) <= 10.0 * _FLOW_PU
        limited = np.concatenate([np.delete(np.arange(at.u.start, at.u.stop), self._root),
                                  at.l.start + np.flatnonzero(np.isfinite(self._upper[at.l]))])
        good &= (x[limited] >= self._lower[limited][:, None] + _ROOM_PU).all(axis=0)
        good &= (x[limited] <= self._upper[limited][:, None] - _ROOM_PU).all(axis=0)
        for part, low, high in ((at.p_source, terms.p_min, terms.p_max), (at.q_source, terms.q_min, terms.q_max)):
            given = x[part.start + root]
            good &= (given >= low[root] + _ROOM_PU) & (given <= high[root] - _ROOM_PU)
        of_demand = state.y / v
        of_p, of_q = of_demand.real + state.marginal, -of_demand.imag
        r, reactance = tree.z_pu.real[:, None], tree.z_pu.imag[:, None]
        cone = self._branch_cost[:, None] + 0.5 * (r * (of_p[tree.parent] + of_p[tree.child])
                                                   + reactance * (of_q[tree.parent] + of_q[tree.child]))
        good &= (cone >= 0.0).all(axis=0)
        good &= (x[at.u_parent] - r * x[at.p] - reactance * x[at.q] > 0.0).all(axis=0)
        return np.asarray(good)


def _solved(hessian: Floats, slope: Floats, free: NDArray[np.bool_]) -> Floats:
    """(n_z, B) steps of the free set points; the others stay."""
    on, diagonal = free.T.astype(float), np.arange(len(slope))
    matrix = hessian * (on[:, :, None] * on[:, None, :])
    matrix[:, diagonal, diagonal] += 1.0 - on
    return np.asarray(np.linalg.solve(matrix, (slope * free).T[:, :, None])[:, :, 0].T)


class NewtonSolver:
    """A dispatch solver: Newton steps where they lead to a proven optimum, Clarabel elsewhere.

    newton: None for a problem of another kind; network: what two solvers must have in common to solve their problems
    together, all but `SourceTerms`
    """

    def __init__(self, newton: SetPointNewton | None, problem: ConicProblem, time_limit_s: float | None) -> None:
        self.newton, self._problem, self._time_limit_s = newton, problem, time_limit_s
        self._cost, self._bounds = problem.cost, (problem.lower, problem.upper)
        self._clarabel: ClarabelSolver | None = None
        self._ready: dict[bytes, Solution] = {}
        at, network = problem.at, (problem.equal.data, problem.equal.indices, problem.quadratic)
        self.network = *(array.tobytes() for array in network), *(
            array[part].tobytes() for array in (problem.cost, problem.lower, problem.upper) for part in (at.l, at.u))

    def solve(self, rhs: Floats) -> Solution:
        """Optimum for the equalities' right-hand side."""
        found = self._ready.pop(rhs.tobytes(), None)
        if found is None and self.newton is not None:
            found = self.newton.solve(rhs[None], SourceTerms.columns([self.terms]))[0]
        return found or self._instead().solve(rhs)

    def reprice(self, cost: Floats) -> None:
        """Another linear cost of x from now on."""
        self._cost = cost
        self._ready.clear()
        if self._clarabel is not None:
            self._clarabel.reprice(cost)

    def rebound(self, lower: Floats, upper: Floats) -> None:
        """Other bounds of x from now on; what was fixed or without a bound stays so."""
        self._bounds = lower, upper
        self._ready.clear()
        if self._clarabel is not None:
            self._clarabel.rebound(lower, upper)

    def prepare(self, rhs: Floats, found: Solution) -> None:
        """Keep the optimum for a right-hand side until it is needed, or until cost or bounds change."""
        self._ready = {rhs.tobytes(): found}

    @property
    def terms(self) -> SourceTerms:
        """Costs and limits of the sources as they are now."""
        return SourceTerms.of(self._problem.at, self._cost, *self._bounds)

    def _instead(self) -> ClarabelSolver:
        if self._clarabel is None:
            self._clarabel = ClarabelSolver(self._problem, self._time_limit_s)
            if self._cost is not self._problem.cost:
                self._clarabel.reprice(self._cost)
            self._clarabel.rebound(*self._bounds)
        return self._clarabel


def solve_together(problems: Sequence[tuple[NewtonSolver, Floats]]) -> None:
    """Solve many dispatches, each a solver and its right-hand side, side by side where they are of one network; what is
    proven is kept for each solver's next `solve`."""
    groups: dict[tuple[bytes, ...], list[tuple[NewtonSolver, Floats]]] = {}
    for solver, rhs in problems:
        if solver.newton is not None:
            groups.setdefault(solver.network, []).append((solver, rhs))
    for group in groups.values():
        newton = group[0][0].newton
        assert newton is not None, "others are left out"
        solved = newton.solve(np.stack([rhs for _, rhs in group]), SourceTerms.columns([one.terms for one, _ in group]))
        for (solver, rhs), found in zip(group, solved, strict=True):
            if found is not None:
                solver.prepare(rhs, found)
