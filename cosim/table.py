"""Tables of time series from CSV or Parquet files: a time column, and one column per port, entity or label.

    time_s,price_usd_per_kwh              the port of all entities
    time,bus8.nci_g_per_kwh,bus28....     of one entity each; times as dates (ISO 8601; without a zone UTC)
    time_s,grid.p_source_kw.gt6,...       one label of a vector each: what `python -m cosim.trace export` writes

Times: `time_s`, `time_min` or `time_h` count from the run's start; `time`, `date`, `datetime` or `timestamp` are dates.
The suffix of a column is its unit.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cosim.errors import ScenarioError, unknown
from cosim.units import format_time, split_unit, unit_of

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
_COUNTS = ("time_s", "time_min", "time_h")
_DATES = ("time", "date", "datetime", "timestamp")
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


Overflow = Literal["hold", "raise", "wrap"]
"""Past a table's last row: hold it, refuse, start again."""


def is_table(path: str | Path) -> bool:
    """Whether a file name says that it is a table."""
    return Path(path).suffix.lower() in SUFFIXES


class Table:
    """A table as read: `times_s` ascending, s since the run's start, and columns looked up by entity and port.

    start: ISO date of t = 0, for tables with dates. Raises ScenarioError naming the file, the line and what is allowed.
    """

    def __init__(self, path: str | Path, start: str) -> None:
        self.path = Path(path)
        self._names, self._cells = _cells(self.path)
        clock = next((n for n in self._names if n.strip().lower() in (*_COUNTS, *_DATES)), None)
        if clock is None:
            raise ScenarioError(f"{self.path} has no column of times; call it {', '.join(_COUNTS)} (since the run's "
                                f"start) or {', '.join(_DATES)} (ISO 8601); it has {', '.join(self._names)}")
        self.columns = [n for n in self._names if n != clock]
        times = self._times(clock, start)
        self._order = np.argsort(times, kind="stable")
        self.times_s = times[self._order]
        self._check_times()

    @property
    def end_s(self) -> float:
        """When the last row ends, s: it holds as long as the one before it."""
        last = float(self.times_s[-1])
        return last + (last - float(self.times_s[-2]) if len(self.times_s) > 1 else 0.0)

    def ports(self) -> list[str]:
        """Port names as the columns have them, in the file's order."""
        return list(dict.fromkeys(split_name(n)[1] for n in self.columns))

    def entities(self, port: str) -> list[str] | None:
        """Entities that have a column of their own for a port; None when one column serves all."""
        found = [entity for entity, p, _ in map(split_name, self.columns) if p == port]
        return None if None in found else list(dict.fromkeys(e for e in found if e))

    def match(self, port: str) -> tuple[str, float] | None:
        """(name here, factor) of a port: the same name, or the same but for the unit; None if there is none."""
        names = self.ports()
        if port in names:
            return port, 1.0
        stem, unit = split_unit(port)
        for name in names:
            here, other = split_unit(name)
            if here == stem and other.dimension == unit.dimension:
                return name, other.factor / unit.factor
        return None

    def labels(self, port: str) -> list[str]:
        """Labels of a vector port, in the file's order; [] for a scalar."""
        return list(dict.fromkeys(label for _, p, label in map(split_name, self.columns) if p == port and label))

    def values(self, port: str, entities: Sequence[str], factor: float = 1.0, gaps: bool = False) -> np.ndarray:
        """Values of a port (named as here) times `factor`, shape (time, entity) or (time, entity, label). With `gaps`,
        NaN and empty cells are NaN; without, they are refused."""
        labels = self.labels(port)
        by_entity = []
        for entity in entities:
            columns = [f"{entity}.{port}.{label}" for label in labels] if labels else [f"{entity}.{port}"]
            if not labels and columns[0] not in self.columns:
                columns = [port]
            missing = [c for c in columns if c not in self.columns]
            if missing:
                raise ScenarioError(f"{self.path}: {unknown('column', missing[0], self.columns)}")
            numbers = np.stack([self._numbers(c, gaps) for c in columns], axis=-1)
            by_entity.append(numbers if labels else numbers[:, 0])
        return np.stack(by_entity, axis=1)[self._order] * factor

    def _numbers(self, column: str, gaps: bool = False) -> np.ndarray:
        return np.array([self._number(column, row, cell, gaps) for row, cell in enumerate(self._cells[column])])

    def _number(self, column: str, row: int, cell: Any, gaps: bool) -> float:
        if gaps and cell in ("", None):
            return math.nan
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.inf
        if math.isfinite(value) or (gaps and math.isnan(value)):
            return value
        raise ScenarioError(f"{self.path}, row {row + 1}: {column} = {cell!r} is not a finite number; fill the gap or "
                            "leave the row out (a value holds until the next)")

    def _times(self, column: str, start: str) -> np.ndarray:
        name, cells = column.strip().lower(), self._cells[column]
        if not cells:
            raise ScenarioError(f"{self.path} has no rows; it needs at least one")
        if name in _COUNTS:
            return self._numbers(column) * unit_of(name).factor
        zero = _instant(start)
        try:
            return np.array([_instant(cell) - zero for cell in cells])
        except (TypeError, ValueError):
            wrong = next(c for c in cells if not _is_date(c))
            raise ScenarioError(f"{self.path}: {column} = {wrong!r} is no ISO 8601 date such as 2026-01-31T14:00; a "
                                f"column of numbers is called {', '.join(_COUNTS)}") from None

    def _check_times(self) -> None:
        twice = np.flatnonzero(np.diff(self.times_s) == 0)
        if len(twice):
            raise ScenarioError(f"{self.path} has two rows for {format_time(float(self.times_s[twice[0]]))}; keep one")
        if self.times_s[0] > 0:
            raise ScenarioError(f"{self.path} begins {format_time(float(self.times_s[0]))} after the run does; add a "
                                "row for the start, or --set start=DATE")


class Held:
    """One column of a table over time, each value held until the next row; times in s since the run's start.

    port    what is looked for, in its own unit or another of the same kind
    entity  whose column it is, where entities have columns of their own
    owner   field that names the table, for errors; `owner`_overflow is the one that says what its end means
    """

    def __init__(self, table: Table, port: str, entity: str, owner: str, overflow: Overflow) -> None:
        found = table.match(port)
        if found is None:
            raise ScenarioError(f"{owner}: {table.path} has no column {port}; it has {', '.join(table.columns)}")
        self.path, self.end_s, self.times_s = str(table.path), table.end_s, table.times_s.tolist()
        self.values = table.values(found[0], [entity], found[1])[:, 0].tolist()
        self._owner, self._overflow = owner, overflow

    def at(self, time_s: float, *, forecast: bool = False) -> float:
        """The value at a time; ScenarioError past the end where that is to be refused (a forecast is held)."""
        first = max(self.times_s[0], 0.0)
        if time_s >= self.end_s > first:
            if self._overflow == "wrap":
                time_s = first + (time_s - first) % (self.end_s - first)
            elif self._overflow == "raise" and not forecast:
                raise ScenarioError(f"{self._owner}: {self.path} ends at {format_time(self.end_s)}; a value at "
                                    f"{format_time(time_s)} is asked for: give a longer one, or set "
                                    f"{self._owner}_overflow=hold or wrap")
        return self.values[bisect_right(self.times_s, time_s) - 1]


def write_table(path: Path, columns: Mapping[str, Sequence]) -> None:
    """Write columns of one length as CSV or, by the file's ending, Parquet. Raises OSError, or ScenarioError when
    Parquet is asked for and pyarrow is not there."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
        return
    arrow, parquet = _arrow(path)
    parquet.write_table(arrow.table({name: np.asarray(values) if len(values) and not isinstance(values[0], str) else
                                     list(values) for name, values in columns.items()}), path)


def split_name(column: str) -> tuple[str | None, str, str | None]:
    """(entity, port, label) of a column's name 'port', 'entity.port' or 'entity.port.label'."""
    first, *rest = re.split(r"\.(?![^\[]*\])", column, maxsplit=2)  # no dot within [p.u.]
    return (first, rest[0], rest[1] if rest[1:] else None) if rest else (None, first, None)


def _instant(cell: Any) -> float:
    """Seconds since 1970 of a date or ISO text."""
    if not isinstance(cell, date):
        cell = datetime.fromisoformat(cell.strip())
    if not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day)
    return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()


def _is_date(cell: Any) -> bool:
    try:
        _instant(cell)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _cells(path: Path) -> tuple[list[str], dict[str, list]]:
    """(column names, columns as read). Read once as long as the file stays as it is."""
    try:
        stat = path.stat()
    except OSError as err:
        raise ScenarioError(f"cannot read table {path}: {err.strerror or err}") from None
    reader = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
    return _read(reader, str(path.resolve()), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(reader: Any, path: str, _mtime: int, _size: int) -> tuple[list[str], dict[str, list]]:
    names, columns = reader(Path(path))
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ScenarioError(f"{path} has two columns called '{twice[0]}'; keep one")
    return names, columns


def _read_csv(path: Path) -> tuple[list[str], dict[str, list]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise ScenarioError(f"cannot read table {path}: {err}; it has to be UTF-8 text") from None
    head = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except csv.Error as err:
        raise ScenarioError(f"{path} is no CSV: {err}") from None
    names = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise ScenarioError(f"{path}, row {number} has {len(row)} cells, its header {len(names)}; cells are "
                                f"separated by {_DELIMITERS[delimiter]} here")
    return names, {name: [row[k] for row in rows[1:]] for k, name in enumerate(names)}


def _read_parquet(path: Path) -> tuple[list[str], dict[str, list]]:
    arrow, parquet = _arrow(path)
    try:
        table = parquet.read_table(path)
    except (OSError, arrow.ArrowException) as err:
        raise ScenarioError(f"{path} is no Parquet file: {err}") from None
    return list(table.column_names), {n: table.column(n).to_pylist() for n in table.column_names}


def _arrow(path: Path) -> tuple[Any, Any]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ScenarioError(f"{path}: Parquet needs pyarrow; install it (extra 'parquet'), or use CSV")
    return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
