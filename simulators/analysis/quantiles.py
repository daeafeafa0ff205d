"""Quantiles of more values than memory should hold, exact: from parts, read once or twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
Parts = Callable[[], Iterator[tuple[K, np.ndarray]]]
"""Starts over at every call: (which group, some of its finite values), the same every time."""

KEPT = 1 << 18
"""Values of a group up to which all of them are kept (2 MiB)."""
_SHIFT = 44
"""Bits of a value that its cell leaves out: cells are 1/256 of an octave wide."""


@dataclass
class _Gathered:
    """What the first reading leaves: how many values; all of them, or how many are in each cell."""

    count: int = 0
    kept: list[np.ndarray] | None = field(default_factory=list)
    cells: dict[int, int] = field(default_factory=dict)

    def add(self, values: np.ndarray) -> None:
        self.count += len(values)
        if self.kept is not None:
            self.kept.append(values)
            if self.count <= KEPT:
                return
            values, self.kept = np.concatenate(self.kept), None
        for cell, number in zip(*np.unique(_cell(values), return_counts=True), strict=True):
            self.cells[int(cell)] = self.cells.get(int(cell), 0) + int(number)


def quantiles(parts: Parts[K], ratios: Sequence[float]) -> dict[K, tuple[int, tuple[float, ...]]]:
    """Group -> (how many values, their quantiles at `ratios`), as `numpy.quantile` has them: linear between the two
    values next to a rank. Groups without a value are not there.

    A group of more than KEPT values is read twice: first into a histogram of narrow cells; then the values of those
    cells alone in which a rank falls.
    """
    groups: dict[K, _Gathered] = {}
    for key, values in parts():
        if len(values):
            groups.setdefault(key, _Gathered()).add(values)
    large = {key: _ranks(group, ratios) for key, group in groups.items() if group.kept is None}
    inside: dict[K, dict[int, list[np.ndarray]]] = {
        key: {cell: [] for cell, _ in ranks.values()} for key, ranks in large.items()}
    if large:
        for key, values in parts():
            if key in large and len(values):
                cells = _cell(values)
                for cell, found in inside[key].items():
                    found.append(values[cells == cell])
    out: dict[K, tuple[int, tuple[float, ...]]] = {}
    for key, group in groups.items():
        if group.kept is not None:
            values = np.concatenate(group.kept)
            out[key] = group.count, tuple(np.quantile(values, ratios, overwrite_input=True).tolist())
        else:
            out[key] = group.count, _of_ranks(group.count, ratios, large[key], inside[key])
    return out


def _cell(values: np.ndarray) -> np.ndarray:
    """Cells in the order of the values: the upper bits of a float, those below 0 turned round."""
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    return np.where(bits < 0, -(bits & np.int64(0x7FFF_FFFF_FFFF_FFFF)), bits) >> _SHIFT


def _ranks(group: _Gathered, ratios: Sequence[float]) -> dict[int, tuple[int, int]]:
    """Rank -> (its cell, its place among the values of the cell), of the ranks on both sides of each quantile."""
    cells = sorted(group.cells)
    ends = np.cumsum([group.cells[cell] for cell in cells])
    out = {}
    for ratio in ratios:
        low = int(np.floor((group.count - 1) * ratio))
        for rank in (low, min(low + 1, group.count - 1)):
            k = int(np.searchsorted(ends, rank, side="right"))
            out[rank] = cells[k], rank - (int(ends[k - 1]) if k else 0)
    return out


def _of_ranks(count: int, ratios: Sequence[float], ranks: Mapping[int, tuple[int, int]],
              inside: Mapping[int, list[np.ndarray]]) -> tuple[float, ...]:
    in_order = {cell: np.sort(np.concatenate(found)) for cell, found in inside.items()}
    value = {rank: float(in_order[cell][place]) for rank, (cell, place) in ranks.items()}
    out = []
    for ratio in ratios:
        at = (count - 1) * ratio
        low = int(np.floor(at))
        pair = (value[low], value[min(low + 1, count - 1)])
        out.append(float(np.quantile(pair, at - low)))
    return tuple(out)
