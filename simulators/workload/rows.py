"""What files of recorded work have in common: delimited lines, times, and how many rows may be left out."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TextIO

import numpy as np
from pydantic import Field

from cosim.errors import ScenarioError
from cosim.units import DAY_S, format_time

LeftOutRatio = Annotated[float, Field(ge=0, le=1, description="share of the trace's rows that may be left out because "
                                      "they cannot be read or lack what they used; more is refused")]
LEFT_OUT_RATIO = 0.01

Line = tuple[int, list[str] | None]
"""Number of a line in its file, and its fields; None where its quotes do not match."""

_DELIMITERS = ",;\t|"
_TIME = re.compile(r"\s*((?:19|20|21)\d\d-\d\d-\d\d)(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)?"
                   r"\s*(Z|UTC|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?)?\s*", re.IGNORECASE)
_EPOCH = {"ms": 1e3, "us": 1e6, "ns": 1e9}
_LATEST_S = 1e11
"""No count of seconds: the year 5138, if since 1970."""
_LONG_GAP_S = 2 * DAY_S


def delimited(file: TextIO, wanted: Sequence[str], path: str, hint: str = "") -> tuple[list[str], Iterator[Line]]:
    """Names of the columns, and the lines after them that are not blank.

    Fields are separated by what gives the first line its `wanted` columns: comma, semicolon, tab or bar; they may be
    quoted, within their line: a stray quote spoils its own row, not the rest of the file. A column of `wanted` may
    be written in another case, where none has its own. ScenarioError (with a `hint`) for a file without one of the
    columns, or with two of that name.
    """
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    _, first = next(lines, (1, ""))
    heads = {mark: _as_wanted([name.strip() for name in split_fields(first, mark) or ()], wanted)
             for mark in _DELIMITERS}
    mark = max(heads, key=lambda m: (len(set(wanted) & set(heads[m])), len(heads[m])))
    header = heads[mark]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ScenarioError(f"trace {path} " + (
            f"has no column {', '.join(missing)}; its first line is '{first.strip()[:80]}'{hint}" if first else
            f"is empty; its first line must name {','.join(wanted)}"))
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        raise ScenarioError(f"trace {path} has two columns called {twice[0]}; keep one")
    return header, ((number, split_fields(line, mark)) for number, line in lines)


def _as_wanted(names: list[str], wanted: Sequence[str]) -> list[str]:
    """The names of a header, those of the columns that are read as the reader has them."""
    by_case = {name.lower(): name for name in wanted if name not in names}
    return [name if name in wanted else by_case.get(name.lower(), name) for name in names]


def split_fields(line: str, mark: str) -> list[str] | None:
    """The fields of a line, which may be quoted; None where its quotes do not match."""
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(mark)
    try:
        return next(csv.reader([line], delimiter=mark, strict=True, skipinitialspace=True))
    except csv.Error:
        return None


def instants(texts: Sequence[str]) -> np.ndarray | None:
    """ISO dates and times as datetime64[ns] in UTC; None if one of them is none.

    Fractions of a second have up to nine digits; without an offset (Z, +02:00) they are taken as UTC; a date alone is
    its midnight. Years 1900 to 2199.
    """
    # not cosim.tables.dates: these are millions of rows, to the nanosecond, and one that is no date is its caller's
    # to count
    rows = [match.groups() for text in texts if (match := _TIME.fullmatch(text))]
    if len(rows) < len(texts):
        return None
    try:
        times = np.array([f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}.{part or '0'}"
                          for day, hour, minute, second, part, _ in rows], dtype="datetime64[ns]")
    except ValueError:  # 31 February
        return None
    ahead_s = [_offset_s(zone) if zone else 0 for *_, zone in rows]
    return times - np.array(ahead_s, dtype="timedelta64[s]") if any(ahead_s) else times


def has_offset(text: str) -> bool:
    """Whether an ISO time states how far its clock is from UTC."""
    found = _TIME.fullmatch(text)
    return found is not None and found[6] is not None


def _offset_s(zone: str) -> int:
    """'+02:00' -> 7200, 'Z' -> 0."""
    digits = zone[1:].replace(":", "")
    if not digits.isdigit():
        return 0
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60)


def likely_unit(count: float) -> str | None:
    """The unit in which a number is a time since 1970, where it is too large to be one in seconds; None: it is not."""
    if count < _LATEST_S:
        return None
    return next((unit for unit, per_s in _EPOCH.items() if count / per_s < _LATEST_S), "ns")


def gap_note(gap_s: float, after_s: float, span_s: float) -> str | None:
    """What is odd about a trace whose longest time without a row begins `after_s` its first; None if nothing is: it
    lasts less than two days, or less than half of the whole trace (`span_s`)."""
    if gap_s < max(_LONG_GAP_S, span_s / 2.0):
        return None
    return (f"nothing comes for {gap_s / DAY_S:.4g} days from {format_time(after_s)} on, more than half of the trace; "
            "are all its times right?")


@dataclass(slots=True)
class SkippedRows:
    """Rows of a trace that no job was made of although they may stand for one.

    kinds   reason -> rows
    first   line of the first of them, and what is wrong there; None: no such row
    """

    kinds: Counter[str] = field(default_factory=Counter)
    first: tuple[int, str] | None = None

    def add(self, kind: str, line: int, what: str, rows: int = 1) -> None:
        """One more row: its kind, its line, and what is wrong with it."""
        self.kinds[kind] += rows
        if self.first is None or line < self.first[0]:
            self.first = line, what

    @property
    def rows(self) -> int:
        """All of them."""
        return self.kinds.total()

    def about(self) -> str:
        """'3 malformed, 1 of unknown run time; the first is line 7: ...'."""
        assert self.first is not None, "there is something to say"
        line, what = self.first
        return ", ".join(f"{n} {kind}" for kind, n in self.kinds.items()) + f"; the first is line {line}: {what}"

    def check(self, path: str, rows: int, allowed_ratio: float) -> None:
        """ScenarioError where more of the trace's `rows` are left out than is allowed."""
        if self.rows > allowed_ratio * rows:
            share = self.rows / rows
            raise ScenarioError(
                f"trace {path}: {self.rows} of {rows} rows would be left out ({100 * share:.3g} %, and "
                f"max_left_out_ratio is {allowed_ratio:g}): {self.about()}. Correct them, or go on without them by "
                f"--set workload.max_left_out_ratio={min(1.0, float(np.ceil(1000 * share)) / 1000):g}")
