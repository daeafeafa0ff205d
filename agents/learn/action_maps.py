"""The sets on which actions live, as constants of matrices: simplexes in orthonormal log-ratio coordinates, intervals.

Arrays only, so that what learns (torch) and what only acts (numpy) share them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cosim.agents.learn.spec import Choice, Column, Interval, Part, Simplex, before_edge, width
from cosim.errors import ScenarioError

CONCENTRATION, CONCENTRATION_MIN = 4.0, 0.02
"""Of a Dirichlet, summed over shares and divided by their number: a fresh one's, and the least of one share."""
LOGIT_MAX = 60.0
"""exp() of it leaves room in float32; logits of one simplex sum to 0, so that the largest is never clipped to 0."""


def _eligible_of(part: Simplex) -> np.ndarray:
    """(size,) bool. ScenarioError where nothing is eligible or `start` does not fit."""
    mask = np.ones(part.size, bool) if part.eligible is None else np.asarray(part.eligible, bool)
    if mask.shape != (part.size,) or not mask.any():
        raise ScenarioError(f"shares '{part.name}': eligible needs {part.size} entries, at least one of them true")
    if part.start is not None and (len(part.start) != part.size or not np.all(np.asarray(part.start)[mask] > 0)):
        raise ScenarioError(f"shares '{part.name}': start = {part.start} needs {part.size} entries, > 0 where eligible")
    if not 0.0 <= part.edge * mask.sum() < 1.0:
        raise ScenarioError(f"shares '{part.name}': edge = {part.edge} of {mask.sum()} shares must be from 0 to less "
                            f"than {1.0 / mask.sum():g}")
    return mask


def basis(count: int) -> np.ndarray:
    """(count - 1, count) orthonormal rows, each summing to 0 (Helmert)."""
    rows = np.zeros((count - 1, count))
    for k in range(1, count):
        rows[k - 1, :k] = 1.0
        rows[k - 1, k] = -k
        rows[k - 1] /= np.sqrt(k * (k + 1))
    return rows


class ActionTables:
    """Constants of a type's simplexes and intervals, column by column; see `Actions._smooth`.

    around (O, Gaussians): what the scaled observation adds to the Gaussians' means; None: nothing
    edge, count (A,): `Simplex.edge` of each share, and how many are eligible beside it; zeros for intervals
    """

    def __init__(self, columns: int, observation: Sequence[Column] = ()):
        self._seen = {c.name: (k, c) for k, c in enumerate(observation)}
        self._around: dict[int, np.ndarray] = {}
        self.rows: list[np.ndarray] = []
        self.start: list[float] = []
        self.scatter: list[np.ndarray] = []
        self.concentration: list[float] = []
        self.dirichlets: list[tuple[int, int]] = []
        self.within = np.zeros((columns, columns))
        self.extra, self.low = np.zeros(columns), np.zeros(columns)
        self.free, self.span = np.ones(columns), np.ones(columns)
        self.edge, self.count = np.zeros(columns), np.zeros(columns)
        self.at = 0

    def add(self, part: Simplex | Interval, dirichlet: bool) -> None:
        """The next part's columns."""
        here = slice(self.at, self.at + width(part))
        if isinstance(part, Interval):
            self._interval(part, here.start)
        else:
            mask = _eligible_of(part)
            start = np.full(part.size, 1.0) if part.start is None else np.asarray(part.start, float)
            columns = here.start + np.nonzero(mask)[0]
            self.free[here] = mask
            start = before_edge(start[mask] / start[mask].sum(), mask.sum(), part.edge)
            self.edge[columns], self.count[columns] = part.edge, mask.sum()
            if dirichlet and len(columns) > 1:
                if part.edge:
                    raise ScenarioError(f"shares '{part.name}' have an edge, and simplex = dirichlet has none; use "
                                        "learn.simplex=gaussian")
                self._dirichlet(start, columns, here)
            else:
                self._simplex(start, columns, here)
                if part.around is not None:
                    self._follow(part, part.around, mask)
        self.at = here.stop

    @property
    def members(self) -> np.ndarray:
        """(A, A) which shares sum to 1 together; of intervals none."""
        return self.within * (self.count > 0)

    @property
    def around(self) -> np.ndarray | None:
        """See the class."""
        if not self._around:
            return None
        return np.stack([self._around.get(k, np.zeros(len(self._seen))) for k in range(len(self.rows))], axis=1)

    def _interval(self, part: Interval, column: int) -> None:
        span = part.high - part.low
        start = 0.5 if part.start is None else (part.start - part.low) / span if span > 0 else -1.0
        if not (span > 0 and 0.0 < start < 1.0):
            raise ScenarioError(f"interval '{part.name}': low = {part.low} < start = {part.start} < high = {part.high} "
                                "must hold")
        if part.around is not None:
            place, seen = self._column(part.name, part.around)
            self._around[len(self.rows)] = slope = np.zeros(len(self._seen))
            slope[place], logit = (seen.high - seen.low) / 2.0, (seen.high + seen.low) / 2.0
            start = 1.0 / (1.0 + math.exp(-logit))
        row = np.zeros(len(self.extra))
        row[column] = 1.0
        self.rows.append(row)
        self.start.append(float(np.log(start / (1.0 - start))))
        self.within[column, column] = self.extra[column] = 1.0
        self.low[column], self.span[column] = part.low, span

    def _simplex(self, start: np.ndarray, columns: np.ndarray, here: slice) -> None:
        table = np.zeros((len(columns) - 1, len(self.extra)))
        table[:, columns] = basis(len(columns))
        self.rows += list(table)
        self.start += (basis(len(columns)) @ np.log(start)).tolist()
        self.within[here, here] = 1.0

    def _follow(self, part: Simplex, around: tuple[str, ...], mask: np.ndarray) -> None:
        """The part's last coordinates start at the logarithms that its columns hold, given back from their scale."""
        if len(around) != part.size:
            raise ScenarioError(f"shares '{part.name}': around = {around} needs {part.size} of the observation's "
                                "columns")
        places, columns = zip(*[self._column(part.name, name) for name in around], strict=True)
        half, mid = (np.array([(c.high + sign * c.low) / 2.0 for c in columns])[mask] for sign in (-1.0, 1.0))
        first = len(self.rows) - (mask.sum() - 1)
        for k, row in enumerate(basis(mask.sum())):
            slope = np.zeros(len(self._seen))
            slope[np.array(places)[mask]] = row * half
            self._around[first + k] = slope
            self.start[first + k] = float(row @ mid)

    def _column(self, part: str, name: str) -> tuple[int, Column]:
        """Place of an observation's column that a part's actions are around, and the column."""
        place, column = self._seen.get(name, (0, None))
        if column is None or column.scale != "linear":
            raise ScenarioError(f"'{part}' is around '{name}', which must be a column of the observation with a linear "
                                "scale")
        return place, column

    def _dirichlet(self, start: np.ndarray, columns: np.ndarray, here: slice) -> None:
        self.dirichlets.append((len(self.scatter), len(columns)))
        table = np.zeros((len(columns), len(self.extra)))
        table[np.arange(len(columns)), columns] = 1.0
        self.scatter += list(table)
        self.concentration += np.log(np.expm1(CONCENTRATION * len(columns) * start - CONCENTRATION_MIN)).tolist()
        self.free[here] = 0.0
        self.extra[here] = 1.0


def places_of(parts: tuple[Part, ...], columns: int) -> list[int]:
    """Where each number of an action stands in (smooth columns, choices)."""
    places, smooth, choice = [], 0, columns
    for part in parts:
        if isinstance(part, Choice):
            places.append(choice)
            choice += 1
        else:
            places += range(smooth, smooth + width(part))
            smooth += width(part)
    return places
