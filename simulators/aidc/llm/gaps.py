"""Inter-token latency: how long after the one before it each token of an answer came, counted in narrow cells.

Cells are 1/32 of an octave wide (2.2 %), so that a day of tokens is some tens of numbers. While a batch stays the same
its iterations are an arithmetic series, whose members a cell has is a closed form.
"""

from __future__ import annotations

import math

CELLS_PER_OCTAVE = 32


def gap_cell(gap_s: float) -> int:
    """The cell of a latency > 0."""
    return math.floor(CELLS_PER_OCTAVE * math.log2(gap_s))


def cell_from_s(cell: int) -> float:
    """The least latency of a cell, s."""
    return 2.0 ** (cell / CELLS_PER_OCTAVE)


class Gaps(dict[int, int]):
    """Cell -> tokens."""

    def add(self, gap_s: float, tokens: int) -> None:
        """So many tokens came that long after the one before."""
        cell = gap_cell(gap_s)
        self[cell] = self.get(cell, 0) + tokens

    def add_series(self, first_s: float, more_s: float, steps: int, tokens: int) -> None:
        """`tokens` tokens in each of `steps` iterations, of which each takes `more_s` >= 0 longer than the one
        before."""
        while steps > 0:
            cell = gap_cell(first_s)
            here = steps
            if more_s > 0.0:
                here = min(steps, max(math.ceil((cell_from_s(cell + 1) - first_s) / more_s), 1))
            self[cell] = self.get(cell, 0) + here * tokens
            first_s += here * more_s
            steps -= here

    def taken(self) -> list[tuple[int, int]]:
        """(cell, tokens) so far, ascending; none is left."""
        found = sorted(self.items())
        self.clear()
        return found
