"""The dispatch in its controls: state of the feeder and cost (11) as functions of the set points.

Let f be the equations of the feeder (balances, drops, and the cones as equalities, which is Ohm's law), y the state
that they determine (flows, currents, voltages, substation power) and z the controls (P and Q of all other sources). One
sparse factorisation of df/dy at an operating point gives dy/dz, the gradient of the cost in z and, with the prices of
the cones, its curvature: all that the marginal carbon intensity and a local AC optimum need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.sparse.linalg import SuperLU, splu

from cosim.simulators.grid.dispatch.branch_limits import EndRows
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
    limited    indices in x of what is limited in the state: voltages, substation power, and what fills branches
    scale      (size,) how far a quantity moves with 1 p.u. of power or voltage: twice the limit of a current where its
               square is limited, else 1
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
        filled = np.append(at.l.start + np.flatnonzero(np.isfinite(problem.upper[at.l])),
                           np.arange(at.full.start, at.full.stop))
        self.limited = np.concatenate([np.setdiff1d(np.arange(at.u.start, at.u.stop), [root]), upstream, filled])
        self.scale = np.ones(at.size)
        self.scale[filled] = 2.0 * np.sqrt(problem.upper[filled])
        self.ends = problem.ends
        self.place = np.full(at.size, -1)
        self.place[self.y] = np.arange(len(self.y))
        self.cost, self.lower, self.upper = problem.cost, problem.lower, problem.upper
        self.quadratic = problem.quadratic
        self._into = np.zeros((len(self.y), len(self.z)))
        self._into[: problem.equal.shape[0]] = -problem.equal[:, self.z].toarray()
        self._jacobian = _Jacobian(problem.equal[:, self.y].tocoo(), at.u_parent, at, self.place, problem.ends)

    def quantities(self, point: OperatingPoint) -> Floats:
        """x (size,) at a point whose flows and voltages solve the power flow."""
        at, x = self.at, np.empty(self.at.size)
        x[at.p], x[at.q], x[at.u], x[at.p_source], x[at.q_source] = (
            point.p, point.q, point.u, point.p_source, point.q_source)
        x[at.l] = (point.p**2 + point.q**2) / x[at.u_parent]
        if len(self.ends.full):
            x[at.full] = 0.0
            p, q = self.ends.powers(x)
            x[at.full] = (p**2 + q**2) / self.ends.squared_voltage(x)
        return x

    def linear(self, point: OperatingPoint) -> LinearizedFeeder | None:
        """Linearised at a point whose flows and voltages solve the power flow; None where df/dy is singular."""
        x = self.quantities(point)
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
        prices = -linear.inverse.solve(pull, "T")[:, None]
        price = prices[self._jacobian.cones]
        ways = np.zeros((at.size, len(self.z)))
        ways[self.y], ways[self.z] = linear.states, np.eye(len(self.z))
        curved = self.quadratic[:, None] * ways  # beside the cost only the cones P^2 + Q^2 - l u are curved
        curved[at.p] += 2.0 * price * ways[at.p]
        curved[at.q] += 2.0 * price * ways[at.q]
        curved[at.l] -= price * ways[at.u_parent]
        np.subtract.at(curved, at.u_parent, price * ways[at.l])
        if len(self.ends.full):
            self._curve_ends(curved, ways, prices[self._jacobian.ends])
        return ways.T @ curved, curved[self.y]

    def _curve_ends(self, curved: Floats, ways: Floats, price: Floats) -> None:
        """Add the curvature of |S|^2 = full x u at the limited ends, at their prices (n_end, 1)."""
        ends, by_u = self.ends, np.flatnonzero(self.ends.u >= 0)
        for rows in (ends.p, ends.q):
            curved += rows.T @ (2.0 * price * (rows @ ways))
        np.subtract.at(curved, ends.full[by_u], price[by_u] * ways[ends.u[by_u]])
        np.subtract.at(curved, ends.u[by_u], price[by_u] * ways[ends.full[by_u]])


class _Jacobian:
    """df/dy of a feeder: balances and drops, which stay, over the cones and the limited ends, which depend on the
    point."""

    def __init__(self, fixed: coo_array, u_parent: Ints, at: Layout, place: Ints, ends: EndRows) -> None:
        k = np.arange(len(u_parent))
        self._at, size = at, fixed.shape[1]
        self.cones = slice(fixed.shape[0], fixed.shape[0] + len(k))
        self.ends = slice(self.cones.stop, self.cones.stop + len(ends.full))
        self._of_ends = _EndEntries(ends)
        columns = place[np.concatenate([at.p.start + k, at.q.start + k, at.l.start + k, u_parent,
                                        self._of_ends.column])]
        self._varying = np.flatnonzero(columns >= 0)  # the substation's voltage is given
        rows = np.concatenate([np.tile(self.cones.start + k, 4), self.ends.start + self._of_ends.row])
        i = np.concatenate([fixed.coords[0], rows[self._varying]])
        j = np.concatenate([fixed.coords[1], columns[self._varying]])
        numbered = csc_array(coo_array((np.arange(1.0, len(i) + 1), (i, j)), shape=(size, size)))
        order = numbered.data.astype(np.int64) - 1
        self._data = np.concatenate([fixed.data, np.zeros(len(self._varying))])
        self._order, self._indices, self._indptr = order, numbered.indices, numbered.indptr

    def factorised(self, x: Floats) -> SuperLU | None:
        """Its LU at a point; None where it is singular: at the nose of the voltage curve."""
        at = self._at
        cones = np.concatenate([2.0 * x[at.p], 2.0 * x[at.q], -x[at.u_parent], -x[at.l], self._of_ends.slopes(x)])
        self._data[-len(self._varying):] = cones[self._varying]
        size = len(self._indptr) - 1
        try:
            return splu(csc_array((self._data[self._order], self._indices, self._indptr), shape=(size, size)))
        except RuntimeError:
            return None


class _EndEntries:
    """d(|S|^2 - full u)/dx of every limited end, as entries (row, column), each once."""

    def __init__(self, ends: EndRows) -> None:
        self._ends, n = ends, len(ends.full)
        k, by_u = np.arange(n), np.flatnonzero(ends.u >= 0)
        size = ends.p.shape[1]
        own = csr_array(coo_array((np.ones(n + len(by_u)), (np.append(k, by_u), np.append(ends.full, ends.u[by_u]))),
                                  shape=(n, size)))
        pattern = (abs(ends.p) + abs(ends.q) + own).tocoo()
        self.row, self.column = pattern.coords[0].astype(np.int64), pattern.coords[1].astype(np.int64)
        self._p, self._q = (np.asarray(rows[self.row, self.column]).ravel() for rows in (ends.p, ends.q))
        self._is_full = self.column == ends.full[self.row]
        self._is_u = self.column == ends.u[self.row]

    def slopes(self, x: Floats) -> Floats:
        """The entries' values at x."""
        if not len(self.row):
            return np.zeros(0)
        (p, q), u, full = self._ends.powers(x), self._ends.squared_voltage(x), x[self._ends.full]
        return (2.0 * p[self.row] * self._p + 2.0 * q[self.row] * self._q - self._is_full * u[self.row]
                - self._is_u * full[self.row])
