"""Dates of a table's rows: ISO 8601 to instants, wall-clock times of a zone, the calendar, typical years.

An instant is a number of seconds since 1970-01-01T00:00Z. A wall-clock time is a datetime without a zone.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from cosim.errors import ScenarioError, shown
from cosim.units import DAY_S, HOUR_S, MIN_S

_YEARS = range(1800, 3001)
"""Years of dates; a run of the longest duration from there still ends in a year of four digits."""
_LEAP_YEAR = 2000
"""The year in which the rows of a typical year are put; it has a 29 February."""
_ENTSO_E = re.compile(r"(\d\d)([./])(\d\d)\2(\d{4}) (\d\d:\d\d(?::\d\d)?)(?:\s*\((\w+)\))? - \d\d\2\d\d\2\d{4} "
                      r"\d\d:\d\d(?::\d\d)?\s*(?:\((\w+(?:/\w+)?)\))?")
"""A market time unit of ENTSO-E's exports: day first, begin and end, at times with the zone: (UTC) or (CET/CEST), or of
each end its own, (CET) or (CEST)."""
_OFFSETS = {"UTC": "+00:00", "WET": "+00:00", "WEST": "+01:00", "CET": "+01:00", "CEST": "+02:00", "EET": "+02:00",
            "EEST": "+03:00"}
_ZONES_SAID = {"UTC": "UTC", "GMT": "UTC", "CET/CEST": "Europe/Brussels", "WET/WEST": "Europe/Lisbon",
               "EET/EEST": "Europe/Athens"}
_HALF_A_YEAR_S = 183 * DAY_S
_WEEK_S = 7 * DAY_S


class Instants(NamedTuple):
    """A column of dates in the file's order.

    unix_s   shape (row,)
    unzoned  how many cells had no offset of their own
    tz       whose wall clock they follow: the zone given, or their one offset, else UTC
    """

    unix_s: np.ndarray
    unzoned: int
    tz: tzinfo


class DateError(ValueError):
    """A cell that is no date, with the reason. `cell`: what it is; `row`: ', row 3', where it is known."""

    def __init__(self, text: str, cell: Any = None) -> None:
        super().__init__(text)
        self.cell, self.row = cell, ""


class SkippedError(DateError):
    """A wall-clock time that its zone does not have."""


def zone_of(name: str | None, field: str) -> ZoneInfo | None:
    """The zone of an IANA name; ScenarioError that names its field."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # what is not found is a KeyError
        raise ScenarioError(f"{field} = '{name}' is no time zone; give an IANA name such as Europe/Berlin, "
                            "America/Los_Angeles or UTC") from None


def instant(cell: Any) -> float:
    """The instant of a date or of ISO 8601 text; without an offset it is in UTC. DateError for anything else."""
    at = _parsed(cell)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def instants(cells: Sequence[Any], zone: ZoneInfo | None, said: ZoneInfo | None = None) -> Instants:
    """The instants of a column; cells without an offset of their own are wall-clock times of `zone` (None: UTC).

    Of a wall-clock time that a zone has twice, in autumn, the row that comes first in time is the earlier one and the
    next the later one; one that stands alone is the earlier, unless the later is a usual step after the row before and
    the earlier is not, as an hourly row where clocks go back by half an hour. Cells of ENTSO-E's layout may have their
    zone, or the name of their column (`said`). DateError for a cell that is no date, a stated zone that is another one,
    or a time that the clocks skip in spring.
    """
    parsed, said = [], _zone_said(cells) or said
    if said is not None and zone is not None and any(
            datetime(2026, month, 1, tzinfo=said).utcoffset() != datetime(2026, month, 1, tzinfo=zone).utcoffset()
            for month in (1, 7)):
        raise DateError(f"{shown(cells[0])} or the column's name says its zone; leave time_zone away, or set it to "
                        f"{said.key}", cells[0])
    zone = zone or said
    for number, cell in enumerate(cells, 1):
        try:
            parsed.append(_parsed(cell))
        except DateError as err:
            err.row = f", row {number}"
            raise
    unzoned = [k for k, at in enumerate(parsed) if at.tzinfo is None]
    if unzoned and parsed[unzoned[0]] > parsed[unzoned[-1]]:
        unzoned.reverse()  # newest first
    seen: set[datetime] = set()
    for k in unzoned:
        naive = parsed[k]
        parsed[k] = naive.replace(tzinfo=zone or UTC, fold=naive in seen)
        seen.add(naive)
        if zone is not None and wall(parsed[k].timestamp(), zone) != naive:
            skipped = SkippedError(f"{naive.isoformat(sep=' ')} does not exist in {zone.key}, as the clocks go forward "
                               "there; leave the row out, or give the zone that the dates are in (Etc/GMT+5 is 5 h "
                               "behind UTC all year)")
            skipped.row = f", row {k + 1}"
            raise skipped
    _take_later(parsed, unzoned)
    offsets = {at.utcoffset() for at in parsed}
    own = parsed[0].tzinfo if len(offsets) == 1 else UTC
    return Instants(np.array([at.timestamp() for at in parsed], dtype=np.float64), 0 if said else len(unzoned),
                    zone or own or UTC)


def _take_later(parsed: list[datetime], rows: Sequence[int]) -> None:
    """Wall-clock times that a zone has twice and the column once become the later one where that alone is a usual step
    after the row before. rows: the places of wall-clock times, ascending in time."""
    twice = [j for j, k in enumerate(rows) if j and not parsed[k].fold
             and parsed[k].utcoffset() != parsed[k].replace(fold=1).utcoffset()]
    if not twice:
        return
    naive = Counter(parsed[k].replace(tzinfo=None) for k in rows)
    steps = Counter(parsed[b].timestamp() - parsed[a].timestamp() for a, b in pairwise(rows))
    usual = steps.most_common(1)[0][0]
    for j in twice:
        at, before = parsed[rows[j]], parsed[rows[j - 1]].timestamp()
        later = at.replace(fold=1)
        if naive[at.replace(tzinfo=None)] == 1 and later.timestamp() - before == usual != at.timestamp() - before:
            parsed[rows[j]] = later


def _zone_said(cells: Sequence[Any]) -> ZoneInfo | None:
    """The zone in cells of ENTSO-E's layout, by the first of them; None where it has none that is known."""
    found = _ENTSO_E.fullmatch(cells[0].strip()) if len(cells) and isinstance(cells[0], str) else None
    return ZoneInfo(_ZONES_SAID[found[7]]) if found is not None and found[7] in _ZONES_SAID else None


def seconds_of_day(text: str) -> float | None:
    """Seconds since midnight of a date with its time, or of a time alone, as they are written; None for other text."""
    if ":" not in text:
        return None
    try:
        at = _parsed(text).time()
    except DateError:
        try:
            at = time.fromisoformat(text.strip())
        except ValueError:
            return None
    return at.hour * HOUR_S + at.minute * MIN_S + at.second + at.microsecond * 1e-6


def label(unix_s: float) -> str:
    """An instant for people, in UTC: '2026-01-31T14:00Z'."""
    at = datetime.fromtimestamp(unix_s, UTC)
    return at.strftime("%Y-%m-%dT%H:%MZ" if at.second == 0 else "%Y-%m-%dT%H:%M:%SZ")


def wall(unix_s: float, tz: tzinfo) -> datetime:
    """The wall-clock time of an instant."""
    return datetime.fromtimestamp(unix_s, tz).replace(tzinfo=None, fold=0)


def of_wall(at: datetime, tz: tzinfo) -> float:
    """The instant of a wall-clock time, the earlier one of two."""
    return at.replace(tzinfo=tz).timestamp()


def in_year(at: datetime, year: int) -> datetime:
    """The same month, day and time of day in another year; 29 February becomes 28 where there is none."""
    return at.replace(year=year, day=min(at.day, calendar.monthrange(year, at.month)[1]))


def whole_years(begin: datetime, end: datetime) -> int:
    """How many whole years lie between two wall-clock times; 0 if it is no whole number."""
    years = end.year - begin.year
    return years if years > 0 and in_year(begin, end.year) == end else 0


class TypicalYear:
    """Rows of which month, day and time of day count, but not the year: EPW and TMY weather, a month of each year.

    unix_s  instants of the rows as they stand in one leap year, in the file's order
    """

    def __init__(self, rows: Instants, placed: list[datetime]) -> None:
        self._tz = rows.tz
        self._leap_day = any((at.month, at.day) == (2, 29) for at in placed)
        self.unix_s = np.array([at.replace(tzinfo=UTC).timestamp() for at in placed])

    @classmethod
    def of(cls, rows: Instants) -> TypicalYear | None:
        """The typical year that rows are; None where their years are meant.

        It is one if rows are more than half a year apart which, without their years, follow each other within a week.
        ValueError if, without the years, a few rows are of one time (where many are, years are meant).
        """
        ordered = np.sort(rows.unix_s)
        longest_s = np.diff(ordered).max(initial=0.0)
        if len(ordered) < 3 or longest_s <= _WEEK_S:
            return None
        least = 1 if longest_s >= _HALF_A_YEAR_S else 2  # months of two years in turn leave no longer gap
        placed = [in_year(wall(t, rows.tz), _LEAP_YEAR) for t in rows.unix_s.tolist()]
        order = sorted(range(len(placed)), key=placed.__getitem__)
        apart_s = np.array([(placed[b] - placed[a]).total_seconds() for a, b in zip(order, order[1:], strict=False)])
        jump_s = np.abs(np.diff(rows.unix_s[order]))
        again = np.count_nonzero(apart_s == 0.0)
        joined = (jump_s > _HALF_A_YEAR_S) & (apart_s > 0.0) & (apart_s <= _WEEK_S)
        if np.count_nonzero(joined) < least or again > 0.01 * len(order):
            return None
        if again:
            k = int(np.argmin(apart_s))
            a, b = (label(float(rows.unix_s[order[k + j]])) for j in (0, 1))
            raise ValueError(f"has years that differ from month to month, as a typical year, but {a} and {b} are the "
                             "same hour of a year; keep one of them")
        return cls(rows, placed)

    def missing_s(self, begin_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
        """How much of the times between rows, s, is a 29 February that has no rows of its own."""
        day_s = datetime(_LEAP_YEAR, 2, 29, tzinfo=UTC).timestamp()
        return np.where((begin_s < day_s) & (end_s >= day_s + DAY_S) & (not self._leap_day), DAY_S, 0.0)

    def at(self, unix_s: float) -> float:
        """Where an instant lies among the rows; 29 February is like the 28th where it has no rows."""
        at = wall(unix_s, self._tz)
        if not self._leap_day and (at.month, at.day) == (2, 29):
            at -= timedelta(days=1)
        return at.replace(year=_LEAP_YEAR, tzinfo=UTC).timestamp()


def _parsed(cell: Any) -> datetime:
    if isinstance(cell, datetime):
        at = cell
    elif isinstance(cell, date):
        at = datetime(cell.year, cell.month, cell.day)
    else:
        try:
            if (unit := _ENTSO_E.fullmatch(cell.strip())) is not None:
                cell = f"{unit[4]}-{unit[3]}-{unit[1]} {unit[5]}{_OFFSETS.get(unit[6] or '', '')}"
            at = datetime.fromisoformat(cell.strip())
        except (AttributeError, TypeError, ValueError):
            raise DateError(f"{shown(cell)} is no ISO 8601 date such as 2026-01-31T14:00", cell) from None
    if at.year not in _YEARS:
        raise DateError(f"{at.isoformat()} is in the year {at.year}; dates from {_YEARS[0]} to {_YEARS[-1]} are read")
    return at
