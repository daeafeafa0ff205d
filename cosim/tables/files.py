"""CSV and Parquet files as columns of cells: read once as long as a file stays as it is, and written."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any, TextIO, cast
from zoneinfo import ZoneInfo

import numpy as np

from cosim.errors import ScenarioError, cut, listed, shown
from cosim.limits import check_memory, is_file, reading_text
from cosim.plaintext import cell, text_of
from cosim.tables.dates import Instants, instants
from cosim.tables.weather_files import TMY3_HEADER, read_epw, read_tmy3

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".epw")
BYTES_PER_CELL = 40
"""Memory of a cell that was read: a Python number and its place in a list."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_IN_QUOTES, _MOST_HEAD = re.compile(r'"(?:[^"]|"")*"'), 100_000
_PART, _BYTES_PER_CHARACTER = 1 << 24, 8.0
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


def table_suffix(path: str | Path) -> str:
    """The ending of a file's name in lower case, without that of gzip: '.csv' of 'Jobs.CSV.gz'."""
    return Path(str(path).lower().removesuffix(".gz")).suffix


def open_text(path: str | Path, errors: str = "strict") -> TextIO:
    """A file of text, opened: UTF-8 with or without its mark, or UTF-16 with one; compressed by gzip or not, by its
    first bytes. Raises OSError."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else open(path, "rb") as file:
        mark = file.read(2)
    encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if packed:
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, errors=errors, newline=""))
    return open(path, encoding=encoding, errors=errors, newline="")


class Columns:
    """The cells of a file by column, text or values; numbers and instants are worked out once.

    place  of a weather file: latitude_deg, longitude_deg (> 0 is east), altitude_m; {} of others
    form   of a weather file: EPW or TMY3; '' of others
    """

    def __init__(self, path: Path, names: list[str], cells: Mapping[str, Sequence],
                 place: Mapping[str, float] | None = None, form: str = "") -> None:
        twice = sorted(n for n, times in Counter(names).items() if times > 1)
        if twice:
            raise ScenarioError(f"{path} has two columns called '{cut(twice[0])}'; keep one")
        self.path, self.names, self._cells, self.place = path, names, cells, place or {}
        self.form = form
        self._numbers: dict[str, np.ndarray] = {}
        self._instants: dict[tuple[str, str | None, str | None], Instants] = {}

    def __len__(self) -> int:
        return len(self._cells[self.names[0]]) if self.names else 0

    def rows(self, kept: Sequence[bool], also: Mapping[str, str]) -> Columns:
        """The columns of some rows, some of them under a second name, too."""
        cells = {name: list(compress(self._cells[name], kept)) for name in self.names}
        cells |= {second: cells[name] for name, second in also.items()}
        return Columns(self.path, list(cells), cells, self.place, self.form)

    def texts(self, column: str) -> list[str]:
        """A column as texts in the file's order."""
        return [str(cell) for cell in self._cells[column]]

    def numbers(self, column: str, gaps: bool = False) -> np.ndarray:
        """A column as numbers in the file's order. With `gaps`, NaN and empty cells are NaN; without, ScenarioError
        names the row."""
        found = self._numbers.get(column)
        if found is None:
            found = np.array([_number(cell) for cell in self._cells[column]], dtype=np.float64)
            found.setflags(write=False)
            self._numbers[column] = found
        wrong = np.flatnonzero(np.isinf(found) if gaps else ~np.isfinite(found))
        if wrong.size:
            row = int(wrong[0])
            found_cell = self._cells[column][row]
            mend = ("write decimals with a point"
                    if isinstance(found_cell, str) and _DECIMAL_COMMA.fullmatch(found_cell.strip())
                    else "fill the gap or leave the row out (a value holds until the next)")
            raise ScenarioError(f"{self.path}, row {row + 1}: {cut(column)} = {shown(found_cell)} is not a finite "
                                f"number; {mend}")
        return found

    def instants(self, column: str, zone: ZoneInfo | None, said: ZoneInfo | None = None) -> Instants:
        """A column of dates; see `cosim.tables.dates.instants`, whose DateError it raises."""
        key = (column, zone.key if zone else None, said.key if said else None)
        if key not in self._instants:
            self._instants[key] = instants(self._cells[column], zone, said)
        return self._instants[key]


def read_columns(path: Path) -> Columns:
    """The columns of a file. ScenarioError when it cannot be read in the format of its extension."""
    try:
        stat = path.stat()
    except OSError as err:
        raise ScenarioError(f"cannot read table {path}: {err.strerror or err}") from None
    if not is_file(path):
        raise ScenarioError(f"cannot read table {path}: it is a folder, a pipe or a device, no file")
    return _read(str(path), str(path.resolve()), stat.st_mtime_ns, stat.st_size)


def write_table(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray],
                about: Mapping[str, str] | None = None) -> None:
    """Write columns of one length as CSV or, by the file's ending, Parquet.

    about: what goes into a Parquet file's metadata, of a column's name also into that column's; a CSV has no place
    for it.

    Text in a CSV, names of columns too, is written so that no spreadsheet runs it (`cosim.plaintext.cell`), numbers as
    they are; `read_columns` gives back what was written. Raises OSError, or ScenarioError when Parquet is requested and
    pyarrow is not there.
    """
    if path.suffix.lower() not in (".parquet", ".pq"):
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            header = [cell(name) for name in columns]
            # a file that begins with ID is of another format to Excel; other delimiters would mislead its readers
            apart = header[:1] and header[0].startswith("ID") or any(d in name for name in header for d in _DELIMITERS)
            csv.writer(file, quoting=csv.QUOTE_ALL if apart else csv.QUOTE_MINIMAL).writerow(header)
            csv.writer(file).writerows(zip(*map(_cells, columns.values()), strict=True))
        return
    arrow, parquet = _arrow(path)
    table = arrow.table({name: np.asarray(values) if len(values) and not isinstance(values[0], str) else
                         list(values) for name, values in columns.items()})
    if about:
        fields = [f.with_metadata({"about": about[f.name]}) if f.name in about else f for f in table.schema]
        table = table.cast(arrow.schema(fields, metadata=dict(about)))
    parquet.write_table(table, path)


def _cells(values: Sequence[Any] | np.ndarray) -> Iterable[Any]:
    """What of a column is written: text as cells, the same text once."""
    if np.asarray(values).dtype.kind in "biuf":
        return values
    known: dict[str, str] = {}
    return [known.setdefault(v, cell(v)) if isinstance(v, str) else v for v in values]


@lru_cache(maxsize=16)
def _read(path: str, _resolved: str, _mtime: int, _size: int) -> Columns:
    file = Path(path)
    if table_suffix(file) in (".parquet", ".pq"):
        return Columns(file, *_read_parquet(file))
    try:
        weather = table_suffix(file) == ".epw"  # names of places in their headers are in any encoding
        with open_text(file, errors="replace" if weather else "strict") as opened:
            text = _all_of(opened, file)
    except (OSError, EOFError, UnicodeError, zlib.error) as err:
        raise ScenarioError(f"cannot read table {file}: {err}; it has to be UTF-8 text") from None
    with reading_text(path):
        if weather:
            return Columns(file, *read_epw(text, path), form="EPW")
        if TMY3_HEADER in text[:_MOST_HEAD].partition("\n")[2].partition("\n")[0]:
            return Columns(file, *read_tmy3(text, path), form="TMY3")
    return Columns(file, *_read_csv(file, text))


def _all_of(opened: TextIO, path: Path) -> str:
    """The text of a file; ScenarioError for one that unfolds to more than memory takes."""
    parts, length = [], 0
    while part := opened.read(_PART):
        parts.append(part)
        length += len(part)
        if length > _PART:
            check_memory(f"{path}", length, _BYTES_PER_CHARACTER, "read a shorter file")
    return "".join(parts)


def _read_csv(path: Path, text: str) -> tuple[list[str], dict[str, Sequence]]:
    head = io.StringIO(_IN_QUOTES.sub("", text[:_MOST_HEAD])).readline()
    delimiter = max(_DELIMITERS, key=head.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [row for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as err:
        raise ScenarioError(f"{path} is no CSV: {err}") from None
    if "'" in text:  # as `write_table` writes what begins like a formula
        rows = [[text_of(c) if "'" in c else c for c in row] for row in rows]
    names = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise ScenarioError(f"{path}, row {number} has {len(row)} cells, its header {len(names)}; cells are "
                                f"separated by {_DELIMITERS[delimiter]} here")
    return names, dict(zip(names, zip(*rows[1:], strict=True), strict=True)) if rows[1:] else {n: () for n in names}


def parquet_names(path: Path) -> list[str]:
    """Names of a Parquet file's columns. ScenarioError as `parquet_rows`."""
    arrow, parquet = _arrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            return [str(name) for name in file.schema_arrow.names]
    except (OSError, arrow.ArrowException, ValueError) as err:
        raise ScenarioError(f"{path} is no Parquet file that can be read: {cut(str(err), 160)}") from None


def parquet_rows(path: Path, names: Sequence[str] | None = None, at_once: int | None = None,
                 hint: str = "") -> Iterator[tuple[list[str], list[Sequence]]]:
    """(names, columns of cells) of a Parquet file, `at_once` rows at a time; None: all of them, at least once. names:
    the columns that are read (None: all); hint: what to do where one is missing.

    ScenarioError for a column that is missing, for what is no Parquet file or cannot be read, and for one that unfolds
    to more at once than memory takes: a million equal cells take a few bytes of such a file.
    """
    arrow, parquet = _arrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            found = [str(name) for name in file.schema_arrow.names]
            if missing := [name for name in names or () if name not in found]:
                raise ScenarioError(f"{path} has no column {listed(missing)}; it has {listed(found)}{hint}")
            wanted, rows = list(names or found), file.metadata.num_rows
            check_memory(f"{path}", min(rows, at_once or rows) * len(wanted), BYTES_PER_CELL, "read a shorter file")
            batches = [file.read(wanted)] if at_once is None else file.iter_batches(at_once, columns=wanted)
            for batch in batches:
                yield wanted, [column.to_pylist() for column in batch.columns]
    except (OSError, arrow.ArrowException, ValueError, TypeError, OverflowError) as err:  # dates beyond a calendar's
        raise ScenarioError(f"{path} is no Parquet file that can be read: {cut(str(err), 160)}") from None


def _read_parquet(path: Path) -> tuple[list[str], dict[str, Sequence]]:
    (names, columns), = parquet_rows(path)
    return names, dict(zip(names, columns, strict=True))


def _arrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ScenarioError(f"{path}: Parquet needs pyarrow; install it (extra 'parquet'), or use CSV") from None
    return pyarrow, pyarrow.parquet


def _number(cell: Any) -> float:
    """A number; infinity for what is none, NaN for an empty cell or NaN."""
    if cell is None or cell == "":
        return math.nan
    if isinstance(cell, bool | bytes):
        return math.inf
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.inf
