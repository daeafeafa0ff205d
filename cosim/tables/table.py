"""Tables of time series from CSV or Parquet files: a time column, and one column per port, entity or label.

    time_s,price_usd_per_kwh              the port of all entities
    time,bus8.nci_g_per_kwh,bus28....     of one entity each; times as dates (ISO 8601)
    time_s,grid.p_source_kw.gt6,...       one label of a vector each: what `cosim trace export` writes

Times: `time_s`, `time_min` or `time_h` count from the run's start; `time`, `date`, `datetime` or `timestamp` are dates,
read against the scenario's `start`. Dates without an offset are wall-clock times of the zone given, by default UTC.
`cosim.tables.axis` defines which row holds when. The suffix of a column is its unit; figures that cannot be in it are
refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from cosim.errors import ScenarioError, listed, unknown
from cosim.plausible import impossible, unusual
from cosim.tables.axis import Axis, Overflow, TwoRowsError
from cosim.tables.dates import DateError, Instants, SkippedError, instant, label, zone_of
from cosim.tables.files import SUFFIXES, read_columns, table_suffix
from cosim.tables.selection import select
from cosim.tables.services import clock_in
from cosim.units import DAY_S, HOUR_S, LONGEST_S, Unit, format_time, split_unit, unit_of

_COUNTS = ("time_s", "time_min", "time_h")
_DATES = ("time", "date", "datetime", "timestamp")
_LONG_STEP_S = 2 * DAY_S
_UNIX_S = 1e9
_UNIX = "it looks like a Unix time; write dates, or take the run's start off and call the column time_s"
_NUMBERS = f"a column of numbers is called {', '.join(_COUNTS)}"


@dataclass(frozen=True)
class TableOptions:
    """How a table is read.

    owner      what stands before `overflow` and `time_zone` in the names of its fields: 'tariff.prices_', 'grid.'
    start      ISO date of t = 0, UTC; None where it is not known: only counts can then be read
    time_zone  IANA name of the zone of dates without an offset; None: UTC, with a note
    clock      column of times; None: by its name
    where      column -> value: rows of another one are left out
    """

    owner: str
    start: str | None
    time_zone: str | None = None
    overflow: Overflow = "hold"
    clock: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


def is_table(path: str | Path) -> bool:
    """Whether a file name has the extension of a table."""
    return table_suffix(path) in SUFFIXES


def clock_of(names: Sequence[str]) -> str | None:
    """Which of a file's columns is that of times, by its name."""
    return next((n for n in names if n.lower() in (*_COUNTS, *_DATES)), None)


class DataTable:
    """A table as read, and its columns by entity and port.

    Raises ScenarioError naming the file, the row and what is allowed; for its times when they are first needed.
    """

    def __init__(self, path: str | Path, reading: TableOptions) -> None:
        self.path, self.reading = Path(path), reading
        whole = read_columns(self.path)
        self._selected = select(whole, reading.where, reading.owner)
        self._file = self._selected.columns
        names = self._file.names
        named = clock_in(names)
        clock = reading.clock or clock_of(names) or (named[0] if named else None)
        self._zone_in_name = named[1] if named and named[0] == clock else None
        if clock is None:
            raise ScenarioError(f"{self.path} has no column of times; call it {', '.join(_COUNTS)} (since the run's "
                                f"start) or {', '.join(_DATES)} (ISO 8601); it has {listed(names)}")
        if clock not in names:
            raise ScenarioError(f"{self.path}: {unknown('column', clock, names)}; --set {reading.owner}time_column")
        self.clock = clock
        self.columns = [n for n in names if n != clock]
        self._known = set(self.columns)
        self._ports: dict[str, dict[tuple[str | None, str | None], None]] = {}
        for entity, port, part in map(split_name, self.columns):
            self._ports.setdefault(port, {})[entity, part] = None
        self._odd: dict[str, None] = {}

    @property
    def figure(self) -> str | None:
        """Of a service's export the column of its figures, whose name states its unit; None of other tables."""
        return self._selected.figure

    @cached_property
    def axis(self) -> Axis:
        """When each row holds."""
        if not len(self._file):
            raise ScenarioError(f"{self.path} has no rows; it needs at least one")
        try:
            if self._instants is None:
                times_s = self._file.numbers(self.clock) * unit_of(self.clock).factor
                if (far := np.flatnonzero(np.abs(times_s) > LONGEST_S)).size:
                    raise ScenarioError(f"{self.path}, row {far[0] + 1}: {self.clock} is {times_s[far[0]]:.4g} s, more "
                                        f"than {LONGEST_S / DAY_S:g} d from the run's start; is it in another unit?")
                return Axis(times_s)
            if self.reading.start is None:
                raise ScenarioError(f"{self.path} has dates, and the date of t = 0 is not known to its reader; --set "
                                    "its scenario_start (a run fills it in for members of its own process)")
            zero_s = instant(self.reading.start)
            return Axis(self._instants.unix_s - zero_s, self._instants, zero_s)
        except TwoRowsError as err:
            zone = ("" if self._instants is None or not self._instants.unzoned or self.reading.time_zone else
                    f"; or, if the clocks go back there, tell them apart by --set {self.reading.owner}time_zone=NAME")
            raise ScenarioError(f"{self.path} {err}{zone}") from None
        except ValueError as err:
            raise ScenarioError(f"{self.path} {err}") from None

    @property
    def place(self) -> Mapping[str, float]:
        """Of a weather file: latitude_deg, longitude_deg (> 0 is east), altitude_m; {} of others."""
        return self._file.place

    @property
    def first_unix_s(self) -> float | None:
        """The instant of the first row; None of a table of counts, or of a typical year."""
        return None if self._instants is None or self.axis.typical else float(self.unix_s[0])

    @property
    def unix_s(self) -> np.ndarray:
        """When the rows begin, in the order of `times_s`, as instants: their dates as they stand in the file.
        ScenarioError for a table of counts."""
        if self._instants is None:
            raise ScenarioError(f"{self.path} counts its times from the run's start ({self.clock}); dates are needed")
        return self._instants.unix_s[self.axis.order]

    @property
    def times_s(self) -> np.ndarray:
        """When the rows begin, ascending, s since t = 0."""
        return self.axis.times_s

    @property
    def end_s(self) -> float:
        """When the last row ends, s: it holds as long as the one before it."""
        return self.axis.end_s

    def check(self, until_s: float) -> None:
        """ScenarioError for a table that does not cover a run until `until_s`: none of its rows is of its
        time, or, where overflow is to be refused, not all of it."""
        axis, how, field = self.axis, self.reading.overflow, f"--set {self.reading.owner}overflow"
        moved = self._moved_start(until_s)
        span = f"{axis.label(axis.begin_s)} to {axis.label(axis.end_s)}"
        if (how != "wrap" or axis.typical) and not axis.meets(until_s):
            mend = "give a whole year" if axis.typical else f"{moved}{field}=wrap to repeat it"
            if not self._instants and axis.begin_s > _UNIX_S:
                mend = "are these Unix times? write them as dates in a column `time`"
            raise ScenarioError(f"{self.path} covers {span}, the run {axis.run_label(0.0)} to "
                                f"{axis.run_label(until_s)}: no row is of its time; {mend}")
        if axis.typical:
            if how != "hold" and (axis.outside(0.0) or axis.outside(until_s)):
                raise ScenarioError(f"{self.path} covers {span} of a typical year, and not all of the run; give a "
                                    f"whole year, or {field}=hold")
        elif how == "raise" and axis.begin_s > 0.0:
            raise ScenarioError(f"{self.path} begins {format_time(axis.begin_s)} after the run does; add a row for the "
                                f"start, {moved}{field}=hold (or wrap)")
        elif how == "raise" and axis.end_s < until_s:
            shorter = "shorten it by --until, or " if axis.end_s > 0.0 else ""
            raise ScenarioError(f"{self.path} ends {format_time(axis.end_s)} after the run's start, the run lasts "
                                f"{format_time(until_s)}; {shorter}{field}=hold (or wrap)")

    def row(self, time_s: float, *, forecast: bool = False) -> int:
        """The row, in order of time, that holds at a time of the run; ScenarioError where there is none and that is to
        be refused (a forecast is held)."""
        how = self.reading.overflow
        row = self.axis.row(time_s, "hold" if forecast and how == "raise" else how)
        if row is None:
            axis = self.axis
            raise ScenarioError(f"{self.path} holds from {axis.label(axis.begin_s)} to {axis.label(axis.end_s)}; a "
                                f"value at {axis.run_label(time_s)} is asked for: give a longer one, or set "
                                f"{self.reading.owner}overflow=hold" + ("" if axis.typical else " or wrap"))
        return row

    def notes(self, low_s: float, high_s: float, step_s: float) -> list[str]:
        """Sentences on how the table was read, by a run that read times `low_s` to `high_s`, every `step_s`."""
        axis, reading, dates = self.axis, self.reading, self._instants
        said = [*self._taken(), *self._odd]
        closest_s = float(np.diff(axis.times_s).min(initial=math.inf))
        if closest_s < step_s:
            said.append(f"has rows {closest_s:g} s apart, and is read every {step_s:g} s: rows in between are skipped")
        if dates is not None and dates.unzoned and reading.time_zone is None:
            said.append(f"dates without an offset are read as UTC; --set {reading.owner}time_zone=NAME (Europe/Berlin, "
                        "or UTC) says what they are")
        if dates is not None and not dates.unzoned and reading.time_zone is not None:
            said.append(f"all dates have offsets of their own, beside which {reading.owner}time_zone has no effect")
        if axis.typical:
            said.append("its years differ from month to month, as in a typical year: month, day and time of day count")
        if dates is None and (max(_LONG_STEP_S, high_s) < axis.step_s or _in_ms(axis.step_s)):
            unit = "milliseconds" if self.clock.lower() == "time_s" and _in_ms(axis.step_s) else "another unit"
            said.append(f"rows are {format_time(axis.step_s)} apart; is {self.clock} in {unit}?")
        return [f"{self.path}: {text}" for text in (*said, *self._gap_notes(low_s, high_s),
                                                    *self._overflow_notes(low_s, high_s))]

    def ports(self) -> list[str]:
        """Port names as the columns have them, in the file's order."""
        return list(self._ports)

    def entities(self, port: str) -> list[str] | None:
        """Entities that have a column of their own for a port; None when one column serves all."""
        found = [entity for entity, _ in self._ports.get(port, ())]
        return None if None in found else list(dict.fromkeys(e for e in found if e))

    def match(self, port: str) -> tuple[str, float] | None:
        """(name here, factor) of a port: the same name, or the same but for the unit; None if there is none."""
        if port in self._ports:
            return port, 1.0
        stem, unit = split_unit(port)
        for name in self._ports:
            here, other = split_unit(name)
            if here == stem and other.dimension == unit.dimension:
                return name, other.factor / unit.factor
        return None

    def labels(self, port: str) -> list[str]:
        """Labels of a vector port, in the file's order; [] for a scalar."""
        return list(dict.fromkeys(label for _, label in self._ports.get(port, ()) if label))

    def values(self, port: str, entities: Sequence[str], factor: float = 1.0, gaps: bool = False) -> np.ndarray:
        """Values of a port (named as here) times `factor`, shape (time, entity) or (time, entity, label). With `gaps`,
        NaN and empty cells are NaN; without, they are refused. ScenarioError for figures that cannot be."""
        labels = self.labels(port)
        by_entity = []
        for entity in entities:
            columns = [f"{entity}.{port}.{label}" for label in labels] if labels else [f"{entity}.{port}"]
            if not labels and columns[0] not in self._known:
                columns = [port]
            missing = [c for c in columns if c not in self._known]
            if missing:
                raise ScenarioError(f"{self.path}: {unknown('column', missing[0], self.columns)}")
            numbers = np.stack([self.numbers(c, unit_of(port), port, gaps) for c in columns], axis=-1)
            by_entity.append(numbers if labels else numbers[:, 0])
        return np.stack(by_entity, axis=1) * factor

    def numbers(self, column: str, unit: Unit, name: str | None = None, gaps: bool = False) -> np.ndarray:
        """A column in order of time, in its own unit. ScenarioError for cells that are no numbers, and for figures that
        cannot be in that unit; name: of what is measured, by default the column's."""
        found = self._file.numbers(column, gaps)
        if (wrong := impossible(name or column, found, unit)) is not None:
            raise ScenarioError(f"{self.path}: {wrong}")
        if (odd := unusual(name or column, found, unit)) is not None:
            self._odd[odd] = None
        return found[self.axis.order]

    # --- inside -------------------------------------------------------------------------------------------------

    def _taken(self) -> list[str]:
        """What a file of a known form was taken as."""
        if self._file.form:
            place = self.place
            return [f"read as {self._file.form}, of {abs(place['latitude_deg']):.2f} "
                    f"{'N' if place['latitude_deg'] >= 0 else 'S'}, {abs(place['longitude_deg']):.2f} "
                    f"{'E' if place['longitude_deg'] >= 0 else 'W'}, {place['altitude_m']:g} m, in standard time"]
        return self._selected.sentence(self.clock, self._zone_in_name)

    @cached_property
    def _instants(self) -> Instants | None:
        """The dates; None for a column of counts."""
        if self.clock.lower() in _COUNTS:
            return None
        zone = zone_of(self.reading.time_zone, f"{self.reading.owner}time_zone")
        try:
            return self._file.instants(self.clock, zone, ZoneInfo(self._zone_in_name) if self._zone_in_name else None)
        except SkippedError as err:
            raise ScenarioError(f"{self.path}{err.row}: {self.clock} = {err}") from None
        except DateError as err:
            raise ScenarioError(f"{self.path}{err.row}: {self.clock} = {err}; "
                                f"{_UNIX if _is_unix(err.cell) else _NUMBERS}") from None

    def _moved_start(self, until_s: float) -> str:
        """The start of a run of this length that a table with dates fits: its first midnight; '' where none does."""
        axis = self.axis
        if not self._instants or axis.typical:
            return ""
        zero_s = instant(str(self.reading.start))
        begin_s = math.ceil((zero_s + axis.begin_s) / DAY_S) * DAY_S
        needed_s = until_s if self.reading.overflow == "raise" else 0.0
        return f"--set start={label(begin_s)[:10]}, or " if begin_s + needed_s < zero_s + axis.end_s + 1e-6 else ""

    def _gap_notes(self, low_s: float, high_s: float) -> list[str]:
        axis = self.axis
        everywhere = axis.typical or self.reading.overflow == "wrap"
        gaps = [(begin, length) for begin, length in axis.gaps
                if everywhere or (begin <= high_s and begin + length > low_s)]
        if not gaps:
            return []
        begin_s, longest_s = max(gaps, key=lambda gap: gap[1])
        return [f"rows are {format_time(axis.step_s)} apart, but for {len(gaps)} "
                f"gap{'s' if len(gaps) > 1 else ''}, the longest {format_time(longest_s)} from {axis.label(begin_s)}; "
                "the row before a gap is held"]

    def _overflow_notes(self, low_s: float, high_s: float) -> list[str]:
        axis, how = self.axis, self.reading.overflow
        said = []
        if axis.typical:
            if axis.outside(low_s) or axis.outside(high_s):
                said.append(f"it covers {axis.label(axis.begin_s)} to {axis.label(axis.end_s)} of a year; outside of "
                            "it the nearest row is held")
            return said
        if how == "wrap" and (low_s < axis.begin_s or high_s >= axis.end_s):
            return [f"it covers {axis.label(axis.begin_s)} to {axis.label(axis.end_s)} and is repeated {axis.kept()}"]
        if low_s < axis.begin_s:
            said.append(f"it begins at {axis.label(axis.begin_s)}; before it its first row is held")
        if high_s >= axis.end_s:
            said.append(f"it ends at {axis.label(axis.end_s)}, values to {axis.run_label(high_s)} were read; after it "
                        f"{'forecasts hold its last row' if how == 'raise' else 'its last row is held'}")
        return said


class TableSeries:
    """One column of a table over time, extended as its overflow defines; times in s since the run's start.

    port    what is looked for, in its own unit or another of the same kind
    entity  whose column it is, where entities have columns of their own
    owner   field that names the table, for errors; factor: what figures are multiplied by
    """

    def __init__(self, table: DataTable, port: str, entity: str, owner: str, factor: float = 1.0) -> None:
        found = table.match(port)
        if found is None:
            raise ScenarioError(f"{owner}: {table.path} has no column {port}; it has {listed(table.columns)}")
        self._hold(table, table.values(found[0], [entity], found[1] * factor)[:, 0].tolist())

    @classmethod
    def of(cls, table: DataTable, values: list[float]) -> TableSeries:
        """Values (row,) that are already read, in the table's order of time."""
        held = cls.__new__(cls)
        held._hold(table, values)
        return held

    def _hold(self, table: DataTable, values: list[float]) -> None:
        self.table, self.values = table, values
        self._low_s, self._high_s = math.inf, -math.inf

    def at(self, time_s: float, *, forecast: bool = False) -> float:
        """The value at a time; ScenarioError outside of a table where that is to be refused (a forecast is held)."""
        self._low_s, self._high_s = min(self._low_s, time_s), max(self._high_s, time_s)
        return self.values[self.table.row(time_s, forecast=forecast)]

    def notes(self, step_s: float) -> list[str]:
        """Sentences on how the table was read, every `step_s`."""
        return self.table.notes(self._low_s, self._high_s, step_s) if self._low_s <= self._high_s else []


def _in_ms(step_s: float) -> bool:
    """Whether a distance of rows is odd in seconds and usual in milliseconds: 60 000, 300 000."""
    return step_s > 0.0 and step_s % 1000 == 0.0 and (step_s > _LONG_STEP_S
                                                      or (DAY_S % step_s != 0.0 and step_s % HOUR_S != 0.0))


def _is_unix(cell: object) -> bool:
    try:
        return float(str(cell)) >= _UNIX_S
    except ValueError:
        return False


def split_name(column: str) -> tuple[str | None, str, str | None]:
    """(entity, port, label) of a column's name 'port', 'entity.port' or 'entity.port.label'."""
    first, *rest = re.split(r"\.(?![^\[]*\])", column, maxsplit=2)  # no dot within [p.u.]
    return (first, rest[0], rest[1] if rest[1:] else None) if rest else (None, first, None)
