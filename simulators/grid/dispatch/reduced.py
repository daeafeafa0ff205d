"""The dispatch in its controls: state of the feeder and cost (11) as functions of the set points.

Let f be the equations of the feeder (balances, drops, and the cones as equalities, which is Ohm's law), y the state
that they determine (flows, currents, voltages, substation power) and z the controls (P and Q of all other sources). One
sparse factorisation of df/dy at an operating point gives dy/dz, the gradient of the cost in z and, with the prices of
the cones, its curvature: all that the marginal carbon intensity and a local AC optimum need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import SuperLU, splu

from cosim.simulators.grid.dispatch.conic import Layout, Limits, Sources, strict
from cosim.simulators.grid.equations import Floats, Ints
from cosim.simulators.grid.network.feeder import Feeder


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """A dispatch in p.u.: power entering each branch at its parent, squared voltages, and what the sources inject."""

    p: Floats
    q: Floats
    u: Floats
    p_source: Floats
    q_source: Floats


@dataclass(frozen=True, slots=True, eq=False)
class LinearizedFeeder:
    """A feeder linearised at a point: `x` there, an LU of df/dy, dy/dz (n_y, n_z) and d(cost)/dz (n_z,)."""

    x: Floats
    inverse: SuperLU
    states: Floats
    gradient: Floats


class ReducedDispatch:
    """The dispatch of one feeder in its controls.

    z, y       indices in x of the controls (P of the sources but the substation, then Q) and of the state
    limited    indices in x of what is limited in the state: voltages, substation power
    place      where an index of x stands in y, -1 outside
    lower, upper, cost, quadratic  of x, as in the conic problem
    """

    def __init__(self, feeder: Feeder, sources: Sources, limits: Limits, substation: int) -> None:
        problem = strict(feeder, sources, limits)
        self.at = at = problem.at
        n_source = len(sources.bus)
        powers = np.arange(at.p_source.start, at.q_source.stop)
        upstream = powers[[substation, n_source + substation]]
        root = at.u.start + feeder.substation
        self.z = np.setdiff1d(powers, upstream)
        self.y = np.setdiff1d(np.arange(at.size), np.append(self.z, root))
        self.limited = np.concatenate([np.setdiff1d(np.arange(at.u.start, at.u.stop), [root]), upstream])
        self.place = np.full(at.size, -1)
        self.place[self.y] = np.arange(len(self.y))
        self.cost, self.lower, self.upper = problem.cost, problem.lower, problem.upper
        self.quadratic = problem.quadratic
        self._into = np.zeros((len(self.y), len(self.z)))
        self._into[: problem.equal.shape[0]] = -problem.equal[:, self.z].toarray()
        self._jacobian = _Jacobian(problem.equal[:, self.y].tocoo(), at.u_parent, at, self.place)

    def linear(self, point: OperatingPoint) -> LinearizedFeeder | None:
        """Linearised at a point whose flows and voltages solve the power flow; None where df/dy is singular."""
        at, x = self.at, np.empty(self.at.size)
        x[at.p], x[at.q], x[at.u], x[at.p_source], x[at.q_source] = (
            point.p, point.q, point.u, point.p_source, point.q_source)
        x[at.l] = (point.p**2 + point.q**2) / x[at.u_parent]
        inverse = self._jacobian.factorised(x)
        if inverse is None:
            return None
        states = inverse.solve(self._into)
        pull = self.cost + self.quadratic * x
        return LinearizedFeeder(x, inverse, states, pull[self.z] + states.T @ pull[self.y])

    def curvature(self, linear: LinearizedFeeder, limit_rows: Ints, limit_prices: Floats) -> tuple[Floats, Floats]:
        """Hessian of the Lagrangian in z (n_z, n_z), and the same with its left side in y (n_y, n_z).

        limit_rows, limit_prices  places in y, and multipliers, of the limits on the state that are in force
        """
        at, pull = self.at, (self.cost + self.quadratic * linear.x)[self.y]
        np.add.at(pull, limit_rows, limit_prices)
        price = -linear.inverse.solve(pull, "T")[self._jacobian.cones, None]
        ways = np.zeros((at.size, len(self.z)))
        ways[self.y], ways[self.z] = linear.states, np.eye(len(self.z))
        curved = self.quadratic[:, None] * ways  # beside the cost only the cones P^2 + Q^2 - l u are curved
        curved[at.p] += 2.0 * price * ways[at.p]
        curved[at.q] += 2.0 * price * ways[at.q]
        curved[at.l] -= price * ways[at.u_parent]
        np.subtract.at(curved, at.u_parent, price * ways[at.l])
        return ways.T @ curved, curved[self.y]


class _Jacobian:
    """df/dy of a feeder: balances and drops, which stay, over the cones, which depend on the point."""

    def __init__(self, fixed: coo_array, u_parent: Ints, at: Layout, place: Ints) -> None:
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
