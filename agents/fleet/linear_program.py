"""Linear programs that are put together from arrays of variables and rows, and solved by HiGHS.

    lp = LinearProgram()
    x = lp.variables((3, 96), cost=price)           # indices, of the shape given
    lp.at_most([(x, 1.0)], limit)                   # a row for each element
    found = lp.solve()
    found.values[x]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosim.errors import ModelError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Terms = Sequence[tuple[Indices, ArrayLike]]
"""Variables and their factors, each of the shape of the rows; a variable of index NOTHING is left out."""

NOTHING = -1


class Optimum(NamedTuple):
    """Values of all variables (n,), and the least cost."""

    values: Floats
    cost: float


class LinearProgram:
    """Variables with bounds and costs, rows `sum of factor x variable <= or = bound`; the cost is made least."""

    def __init__(self) -> None:
        self._columns: list[tuple[Floats, Floats, Floats]] = []
        self._count = 0
        self._rows: dict[bool, list[tuple[Indices, Indices, Floats]]] = {False: [], True: []}
        self._bounds: dict[bool, list[Floats]] = {False: [], True: []}
        self._heights = {False: 0, True: 0}

    def variables(self, shape: tuple[int, ...], cost: ArrayLike = 0.0, low: ArrayLike = 0.0,
                  high: ArrayLike = np.inf) -> Indices:
        """Indices of new variables; cost, low and high are broadcast to their shape."""
        first = self._count
        cost_of, low_of, high_of = (np.broadcast_to(np.asarray(x, float), shape).ravel() for x in (cost, low, high))
        self._columns.append((cost_of, low_of, high_of))
        self._count += len(cost_of)
        return np.arange(first, self._count, dtype=np.int64).reshape(shape)

    def at_most(self, terms: Terms, bound: ArrayLike) -> None:
        """A row for each element of the terms' common shape: their sum is `bound` at most. Rows of an infinite bound
        are left out."""
        self._add(False, terms, bound)

    def equal(self, terms: Terms, bound: ArrayLike) -> None:
        """The same with an equality."""
        self._add(True, terms, bound)

    def solve(self) -> Optimum:
        """The least cost. ModelError where there is none, with the solver's reason."""
        from scipy.optimize import linprog  # a run without a planner starts sooner

        cost, low, high = (np.concatenate(parts) for parts in zip(*self._columns, strict=True))
        matrix = {kind: self._matrix(kind) for kind in (False, True)}
        found = linprog(cost, matrix[False][0], matrix[False][1], matrix[True][0], matrix[True][1],
                        np.column_stack([low, high]), method="highs")
        if not found.success:
            raise ModelError(f"a plan's linear program has no solution: {found.message}")
        return Optimum(found.x, float(found.fun))

    # --- inside -------------------------------------------------------------------------------------------------

    def _add(self, kind: bool, terms: Terms, bound: ArrayLike) -> None:
        shape = np.broadcast_shapes(*(np.shape(index) for index, _ in terms), np.shape(bound))
        bounds = np.broadcast_to(np.asarray(bound, float), shape).ravel()
        kept = np.flatnonzero(np.isfinite(bounds))
        for index, factor in terms:
            columns = np.broadcast_to(index, shape).ravel()[kept]
            factors = np.broadcast_to(np.asarray(factor, float), shape).ravel()[kept]
            use = np.flatnonzero((columns != NOTHING) & (factors != 0.0))
            self._rows[kind].append((self._heights[kind] + use, columns[use], factors[use]))
        self._bounds[kind].append(bounds[kept])
        self._heights[kind] += len(kept)

    def _matrix(self, kind: bool) -> tuple[Any, Any]:
        from scipy.sparse import csr_array

        if not self._heights[kind]:
            return None, None
        rows, columns, factors = (np.concatenate(parts) for parts in zip(*self._rows[kind], strict=True))
        shape = (self._heights[kind], self._count)
        return csr_array((factors, (rows, columns)), shape), np.concatenate(self._bounds[kind])


def before(index: Indices, steps: int = 1) -> Indices:
    """Variables of `steps` steps earlier along the last axis; NOTHING before the first."""
    out = np.full_like(index, NOTHING)
    if steps < index.shape[-1]:
        out[..., steps:] = index[..., : index.shape[-1] - steps]
    return out
