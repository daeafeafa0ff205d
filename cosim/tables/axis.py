"""The one clock of all tables: when their rows hold on a run's time axis, and what holds before, between and after.

Counts (`time_s`) start with the run; dates are read against the date of its t = 0. A row holds until the next, the last
one as long as the one before it. What holds outside of that span is the table's overflow:

    hold    the first row before the table, the last one after it
    raise   nothing: it is refused
    wrap    the table again and again over its own span, in step with its own times: a span of whole years keeps month,
            day and time of day, one of whole weeks the week day too, one of whole days the time of day

Of a typical year (EPW, TMY) month, day and time of day count, in every year.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta
from typing import Literal

import numpy as np

from cosim.tables.dates import Instants, TypicalYear, in_year, label, of_wall, wall, whole_years
from cosim.units import DAY_S, format_time

Overflow = Literal["hold", "raise", "wrap"]
"""What holds outside a table's rows: the nearest of them, nothing (it is refused), or the table again."""

GAP_STEPS = 1.5
"""Rows that are further apart than so many of a table's usual steps leave a gap."""

_LEAP_YEAR_S = 366 * DAY_S


class TwoRowsError(ValueError):
    """Two rows of the same time, named in the text."""


class Axis:
    """When each row of a table begins, s since t = 0.

    order      the file's rows in order of time, which begin at `times_s`
    begin_s, end_s   of the first and of the last row
    step_s     usual distance of two rows: that of most of them, else that of the last two; 0 of a single row
    gaps       (begin, length) of rows that hold longer than GAP_STEPS steps, s; none where no distance is usual
    typical    whether the rows are a typical year; their times are then instants of another year
    Raises TwoRowsError, or ValueError for a typical year that is none.
    """

    def __init__(self, times_s: np.ndarray, dates: Instants | None = None, zero_s: float = 0.0) -> None:
        """times_s: in the file's order; dates: the same as instants, of which `zero_s` is t = 0 (None: counts)."""
        self._dates, self._zero_s = dates, zero_s
        apart_s = np.diff(np.sort(times_s))
        self.step_s, regular = _usual(apart_s)
        self._year = None if dates is None else TypicalYear.of(dates)
        if self._year is not None:
            times_s = self._year.unix_s
        self.order = np.argsort(times_s, kind="stable")
        self.times_s = times_s[self.order]
        self._list_s: list[float] = self.times_s.tolist()
        apart_s = np.diff(self.times_s)
        if (twice := np.flatnonzero(apart_s == 0.0)).size:
            raise TwoRowsError(f"has two rows for {self.label(self._list_s[twice[0]])}; keep one")
        last_s = float(apart_s[-1]) if apart_s.size else 0.0
        if self._year is not None:
            apart_s = apart_s - self._year.missing_s(self.times_s[:-1], self.times_s[1:])
        gap = apart_s > GAP_STEPS * self.step_s if regular else np.zeros(apart_s.shape, bool)
        if gap.any() and gap[-1]:
            last_s = self.step_s
        self.gaps = list(zip(self.times_s[:-1][gap].tolist(), apart_s[gap].tolist(), strict=True))
        self.begin_s, self.end_s = self._list_s[0], self._list_s[-1] + last_s
        self._ends_s = self.times_s + np.append(np.where(gap, self.step_s, apart_s), last_s)  # gaps left out
        self._whole = (self._year is not None
                       and self.begin_s + _LEAP_YEAR_S - self._list_s[-1] <= DAY_S + GAP_STEPS * self.step_s)

    @property
    def typical(self) -> bool:
        """Whether the rows are a typical year."""
        return self._year is not None

    def label(self, time_s: float) -> str:
        """A time of `times_s` for people: a date (UTC; of a typical year its own) where the table has dates."""
        if self._year is not None:
            return label(time_s)[5:-1]
        return format_time(time_s) if self._dates is None else label(self._zero_s + time_s)

    def run_label(self, time_s: float) -> str:
        """A time of the run for people, written as the table's."""
        return format_time(time_s) if self._dates is None else label(self._zero_s + time_s)

    def row(self, time_s: float, overflow: Overflow) -> int | None:
        """The row, in order of time, that holds at a time of the run; None: there is none (`raise`)."""
        if self._year is not None:
            time_s = self._year.at(self._zero_s + time_s)
            if self._whole:
                return bisect_right(self._list_s, time_s) - 1  # before the first it is the last one
        if not self.begin_s <= time_s < self.end_s:
            if overflow == "raise" or (overflow == "wrap" and self.typical):
                return None
            if overflow == "wrap":
                time_s = self._wrapped_s(time_s)
        return max(0, bisect_right(self._list_s, time_s) - 1)

    def outside(self, time_s: float) -> bool:
        """Whether a time of the run is none of the table's."""
        at_s = time_s if self._year is None else self._year.at(self._zero_s + time_s)
        return not (self._whole or self.begin_s <= at_s < self.end_s)

    def meets(self, until_s: float) -> bool:
        """Whether any row holds at any time of a run that ends at `until_s`; what is held over a gap does not count."""
        if self._year is None:
            return self._any_row(0.0, until_s)
        first_s, last_s = (self._year.at(self._zero_s + t) for t in (0.0, until_s))
        if until_s >= _LEAP_YEAR_S or self._whole:
            return True
        if first_s <= last_s:
            return self._any_row(first_s, last_s)
        return self._any_row(first_s, np.inf) or self._any_row(-np.inf, last_s)  # over New Year

    def kept(self) -> str:
        """What a table that is repeated keeps, in words."""
        if self._years():
            return "by month, day and time of day"
        period_s = self._period_s()
        every = f"every {format_time(period_s)}"
        if period_s % DAY_S:
            return f"{every}: not a whole number of days, so that the time of day is not kept"
        return f"{every}: the time of day is kept" + ("" if period_s % (7 * DAY_S) else ", and the day of the week")

    # --- inside -------------------------------------------------------------------------------------------------

    def _any_row(self, begin_s: float, end_s: float) -> bool:
        single = len(self._list_s) == 1
        return bool(((self.times_s < end_s) & ((self._ends_s > begin_s) | (single & (self._ends_s >= begin_s)))).any())

    def _wrapped_s(self, time_s: float) -> float:
        """The time within the table that a time outside of it repeats."""
        if self.end_s <= self.begin_s:
            return self.begin_s
        if self._dates is None:
            return self.begin_s + (time_s - self.begin_s) % (self.end_s - self.begin_s)
        tz = self._dates.tz
        first, at = (wall(self._zero_s + t, tz) for t in (self.begin_s, time_s))
        years = self._years()
        if years:
            ahead = at.year - first.year - (in_year(at, first.year) < first)  # whole years since the first row
            at = in_year(at, at.year - ahead // years * years)
        else:
            at = first + timedelta(seconds=(at - first).total_seconds() % self._period_s())
        return of_wall(at, tz) - self._zero_s

    def _years(self) -> int:
        """How many whole years of the calendar the table is; 0 if none."""
        if self._dates is None:
            return 0
        return whole_years(*(wall(self._zero_s + t, self._dates.tz) for t in (self.begin_s, self.end_s)))

    def _period_s(self) -> float:
        """The span by the table's own wall clock, s."""
        if self._dates is None:
            return self.end_s - self.begin_s
        first, last = (wall(self._zero_s + t, self._dates.tz) for t in (self.begin_s, self.end_s))
        return (last - first).total_seconds()


def _usual(apart_s: np.ndarray) -> tuple[float, bool]:
    """(distance that most rows have, True), or (that of the last two, False) where no distance is usual."""
    if not apart_s.size:
        return 0.0, False
    lengths, counts = np.unique(np.round(apart_s, 3), return_counts=True)
    k = int(np.argmax(counts))
    if 2 * counts[k] > len(apart_s) and lengths[k] > 0.0:
        return float(lengths[k]), True
    return float(apart_s[-1]), False
