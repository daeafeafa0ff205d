"""Marginal carbon intensity (mci): how the emission of all sources answers one more kW at a bus, re-dispatched.

Let f be the equations of the feeder (balances, drops, and the cones as equalities, which an exact relaxation makes
them), y the state that they determine (flows, currents, voltages, substation power) and z the controls (P and Q of all
other sources): the dispatch is  min c'(y, z)  with f(y, z) = demand  and limits on z and y. Its optimality conditions,
linearised with the limits in force as equalities, are the KKT adjoint's matrix K. Here f is eliminated from K: one
sparse factorisation of df/dy and a dense system no larger than the controls and their limits give every bus at once.

J2* is smooth only as long as the same limits are in force; `Marginal.spread_kg_per_kwh` says where that ends too soon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import SuperLU, splu

from simulators.grid.conic import Limits, Sources, strict
from simulators.grid.equations import Floats, Ints
from simulators.grid.feeder import Feeder

STEP_KW = 1.0
"""What 'one more kW' is: a limit that comes into or out of force within it makes a kink."""
AT_LIMIT_PU = 1e-5
"""So near a limit is on it."""
WATCH = 3.0
"""Limits on the state are watched from this many steps away; no voltage or substation power moves faster."""
MATTERS_KG_PER_KWH = 1e-3
"""A change of the limits in force that moves mci by no more than this is no kink."""
ILL_CONDITIONED = 1e12

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """A dispatch in p.u.: power entering each branch at its parent, squared voltages, and what the sources inject."""

    p: Floats
    q: Floats
    u: Floats
    p_source: Floats
    q_source: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Marginal:
    """mci (n_bus,) for the limits now in force, and how much another set of them within one kW would change it.

    The spread is 0 where nothing changes, inf where the conditions are singular or ill-conditioned (mci may be NaN).
    """

    mci_kg_per_kwh: Floats
    spread_kg_per_kwh: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Conditions:
    """The reduced conditions at a point; limits are those of the controls, then those of the state that are watched.

    hessian (n_z, n_z) of the Lagrangian and gradient (n_z,) of the cost, emission (n_z,) of J2
    slope (n_limit, n_z) of the limited quantities; room (n_limit,) to the nearer limit; side: -1 lower, 1 upper, 0 fixed
    by_demand (n_z + n_limit + 1, n_bus): how one more p.u. of demand moves gradient, limited quantities and J2
    """

    hessian: Floats
    gradient: Floats
    emission: Floats
    slope: Floats
    room: Floats
    side: Floats
    by_demand: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """mci (n_bus,), and per limit (n_limit, n_bus) the size of what moves towards its being in or out of force."""

    mci: Floats
    moves: Floats
    price: Floats


class MarginalCarbon:
    """mci of one feeder with given sources, limits and lambda.

    q_per_p  (n_bus,) kvar that come with each further kW at a bus
    """

    def __init__(self, feeder: Feeder, sources: Sources, limits: Limits, substation: int, q_per_p: Floats) -> None:
        problem = strict(feeder, sources, limits)
        at, n_source = problem.at, len(sources.bus)
        powers = np.arange(at.p_source.start, at.q_source.stop)
        upstream = powers[[substation, n_source + substation]]
        root = at.u.start + feeder.substation
        self._base_kw, self._q_per_p, self._n_bus, self._at = feeder.base_kw, q_per_p, feeder.n_bus, at
        self._kg_per_kwh, self._swings = sources.kg_per_kwh, (sources.p_min_pu < 0.0) & (sources.p_max_pu > 0.0)
        self._z = np.setdiff1d(powers, upstream)
        self._y = np.setdiff1d(np.arange(at.size), np.append(self._z, root))
        self._limited = np.concatenate([np.setdiff1d(np.arange(at.u.start, at.u.stop), [root]), upstream])
        self._place = np.full(at.size, -1)
        self._place[self._y] = np.arange(len(self._y))
        self._cost, self._lower, self._upper = problem.cost, problem.lower, problem.upper
        self._into = np.zeros((len(self._y), len(self._z)))
        self._into[: problem.equal.shape[0]] = -problem.equal[:, self._z].toarray()
        self._jacobian = _Jacobian(problem.equal[:, self._y].tocoo(), at.u_parent, at, self._place)

    def at(self, point: OperatingPoint) -> Marginal:
        """mci at an optimum whose flows and voltages solve the power flow."""
        unknown = np.full(self._n_bus, np.inf)
        here = self._conditions(point)
        if here is None:
            return Marginal(np.full(self._n_bus, np.nan), unknown)
        in_force = here.room <= AT_LIMIT_PU
        answer = _solve(here, in_force)
        if answer is None:
            return Marginal(np.full(self._n_bus, np.nan), unknown)
        step = STEP_KW / self._base_kw
        spread = np.zeros(self._n_bus)
        for k in np.flatnonzero(_may_change(here, in_force, answer, step)):
            changed = in_force.copy()
            changed[k] = not in_force[k]
            other = _solve(here, changed)
            spread = np.maximum(spread, unknown if other is None else np.abs(other.mci - answer.mci))
        spread[spread <= MATTERS_KG_PER_KWH] = 0.0
        if (self._swings & (np.abs(point.p_source) <= WATCH * step)).any():  # what emits above 0 kW absorbs below
            spread = unknown
        return Marginal(answer.mci, spread)

    def _conditions(self, point: OperatingPoint) -> _Conditions | None:
        at, x = self._at, np.empty(self._at.size)
        x[at.p], x[at.q], x[at.u], x[at.p_source], x[at.q_source] = (
            point.p, point.q, point.u, point.p_source, point.q_source)
        x[at.l] = (point.p**2 + point.q**2) / x[at.u_parent]
        room = np.minimum(x - self._lower, self._upper - x)
        watched = self._limited[room[self._limited] <= WATCH * STEP_KW / self._base_kw]
        inverse = self._jacobian.factorised(x)
        if inverse is None:
            return None
        n_z, rows = len(self._z), self._place[watched]
        states = inverse.solve(self._into)
        limited = np.concatenate([self._z, watched])
        slope = np.concatenate([np.eye(n_z), states[rows]])
        side = np.where(self._lower == self._upper, 0.0, np.where(x - self._lower <= self._upper - x, -1.0, 1.0))
        gradient = self._cost[self._z] + states.T @ self._cost[self._y]
        pull = self._cost[self._y].copy()
        on = room[limited] <= AT_LIMIT_PU
        price = np.linalg.lstsq(slope[on].T, -gradient, rcond=None)[0]
        np.add.at(pull, rows[on[n_z:]], price[np.count_nonzero(on[:n_z]):])
        cone_price = -inverse.solve(pull, "T")[self._jacobian.cones]
        directions = np.zeros((at.size, n_z))
        directions[self._y], directions[self._z] = states, np.eye(n_z)
        curved = _curvature(cone_price, directions, at)
        carbon = np.zeros(at.size)
        carbon[at.p_source] = np.where(point.p_source > 0.0, self._kg_per_kwh, 0.0)
        right = np.zeros((len(self._y), n_z + len(rows) + 1))
        right[:, :n_z] = curved[self._y]
        right[rows, n_z + np.arange(len(rows))] = 1.0
        right[:, -1] = carbon[self._y]
        shadow = inverse.solve(right, "T")
        by_demand = shadow[: self._n_bus] + self._q_per_p[:, None] * shadow[self._n_bus: 2 * self._n_bus]
        by_demand = np.insert(by_demand.T, np.full(n_z, n_z), 0.0, axis=0)  # controls move by decision only
        return _Conditions(directions.T @ curved, gradient, carbon[self._z] + states.T @ carbon[self._y], slope,
                           room[limited], side[limited], by_demand)


class _Jacobian:
    """df/dy of a feeder: balances and drops, which stay, over the cones, which depend on the point."""

    def __init__(self, fixed: coo_array, u_parent: Ints, at: object, place: Ints) -> None:
        k = np.arange(len(u_parent))
        self._at, size = at, fixed.shape[1]
        self.cones = slice(fixed.shape[0], fixed.shape[0] + len(k))
        columns = place[np.concatenate([at.p.start + k, at.q.start + k, at.l.start + k, u_parent])]
        self._varying = np.flatnonzero(columns >= 0)  # the substation's voltage is given
        i = np.concatenate([fixed.coords[0], np.tile(self.cones.start + k, 4)[self._varying]])
        j = np.concatenate([fixed.coords[1], columns[self._varying]])
        numbered = csc_array(coo_array((np.arange(1.0, len(i) + 1), (i, j)), shape=(size, size)))
        order = numbered.data.astype(np.int64) - 1
        self._data = np.concatenate([fixed.data, np.zeros(len(self._varying))])
        self._order, self._indices, self._indptr = order, numbered.indices, numbered.indptr

    def factorised(self, x: Floats) -> SuperLU | None:
        """Its LU at a point; None where it is singular: at the nose of the voltage curve."""
        at = self._at
        cones = np.concatenate([2.0 * x[at.p], 2.0 * x[at.q], -x[at.u_parent], -x[at.l]])
        self._data[-len(self._varying):] = cones[self._varying]
        size = len(self._indptr) - 1
        try:
            return splu(csc_array((self._data[self._order], self._indices, self._indptr), shape=(size, size)))
        except RuntimeError:
            return None


def _curvature(cone_price: Floats, directions: Floats, at: object) -> Floats:
    """Hessian of the Lagrangian times directions (size, n); only the cones P^2 + Q^2 - l u are curved."""
    price, out = cone_price[:, None], np.zeros_like(directions)
    out[at.p], out[at.q] = 2.0 * price * directions[at.p], 2.0 * price * directions[at.q]
    out[at.l] = -price * directions[at.u_parent]
    np.subtract.at(out, at.u_parent, price * directions[at.l])
    return out


def _solve(here: _Conditions, in_force: Flags) -> _Answer | None:
    """How controls and prices answer demand with these limits in force; None if that is not well determined."""
    n_z, active = len(here.hessian), here.slope[in_force]
    matrix = np.block([[here.hessian, active.T], [active, np.zeros((len(active), len(active)))]])
    if len(active) > n_z or np.linalg.cond(matrix) > ILL_CONDITIONED:
        return None
    of_gradient, of_limits, of_carbon = np.split(here.by_demand, [n_z, len(here.by_demand) - 1])
    answer = -np.linalg.solve(matrix, np.concatenate([of_gradient, of_limits[in_force]]))
    moves = here.slope @ answer[:n_z] + of_limits
    moves[in_force] = answer[n_z:]
    price = np.zeros(len(in_force))
    price[in_force] = np.linalg.lstsq(active.T, -here.gradient, rcond=None)[0]
    return _Answer(of_carbon[0] + here.emission @ answer[:n_z], moves, price)


def _may_change(here: _Conditions, in_force: Flags, answer: _Answer, step: float) -> Flags:
    """Limits that one step of demand at some bus brings into force, or whose price it, or less, takes away."""
    reach = np.abs(answer.moves).max(axis=1, initial=0.0) * step
    left = np.where(in_force, answer.price * here.side, here.room)
    return (left <= reach) & (here.side != 0.0)
