"""A trace as tables: time stamps and units, wide or tidy, as CSV, Parquet or one Excel workbook; its summary; and a
descriptor for who publishes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cosim.digest import Digest
from cosim.errors import TraceError
from cosim.limits import check_memory
from cosim.plaintext import file_names
from cosim.tables.files import write_table
from cosim.tables.workbook import MOST_ROWS, Workbook
from cosim.trace.descriptor import DESCRIPTORS, FileAbout, TableColumn
from cosim.trace.reader import Trace
from cosim.trace.series import columns_of
from cosim.units import unit_of

Format = Literal["csv", "parquet", "xlsx"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "xlsx")
_BYTES_PER_CELL = 24
"""Of a tidy row, most cells are names that are there once."""
_COLUMNS = "columns"
"""The table of all columns: which table they are of, their unit and what they are."""
_TIME = {"time_s": ("s", "time since the start of the run"), "time_utc": ("", "the same as a date, UTC, ISO 8601")}
_TIDY = {**_TIME, "entity": ("", "whose value it is"), "port": ("", "what is measured"),
         "label": ("", "place on a further axis of the port, job_class for example; blank without one"),
         "value": ("", "in the unit beside it"), "unit": ("", "unit of the value; 1: a ratio or a state")}


@dataclass(frozen=True)
class TraceTable:
    """A table to be written: columns by name, and what is known of each, (unit, words)."""

    name: str
    columns: dict[str, Any]
    about: dict[str, tuple[str, str]]


def tables_of(trace: Trace, tidy: bool = False) -> Iterator[TraceTable]:
    """A table per model, wide (a column per entity and port) or tidy (a row per value), and each table of the trace.
    Raises TraceError where two columns would have one name."""
    for model in trace.models():
        yield _tidy(trace, model) if tidy else _wide(trace, model)
    for name in trace.tables():
        columns = trace.table(name)
        yield TraceTable(name, columns, {column: (_unit(column), "") for column in columns})


def export(trace: Trace, out: Path, form: Format = "csv", tidy: bool = False, describe: str | None = None
           ) -> dict[str, str]:
    """Write a trace's tables, and a table of their columns, into the folder `out`; returns table -> file.

    describe: 'frictionless' or 'croissant': with a descriptor of the files beside them. Raises OSError, TraceError for
    what does not fit, ScenarioError where an extra is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = [*tables_of(trace, tidy)]
    tables.append(_of_columns(tables))
    files = file_names(t.name for t in tables)
    if form == "xlsx":
        book = f"{Path(trace.path).stem}.xlsx"
        _write_book(out / book, tables, files)
        return dict.fromkeys(files, book)
    ending = f".{form}"
    for one in tables:
        columns = one.columns
        if form == "parquet" and "time_utc" in one.about:
            stamps = [stamp.removesuffix("Z") for stamp in columns["time_utc"]]
            columns = {**columns, "time_utc": np.array(stamps, "datetime64[ms]")}
        write_table(out / f"{files[one.name]}{ending}", columns)
    written = {name: f"{file}{ending}" for name, file in files.items()}
    if describe:
        abouts = [FileAbout(one.name, out / written[one.name], [
            TableColumn(name, np.asarray(values), *one.about[name]) for name, values in one.columns.items()])
            for one in tables]
        file, data = DESCRIPTORS[describe](_facts(trace), abouts)
        (out / file).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        written[f"{describe} descriptor"] = file
    return written


def write_summary(path: Path, digest: Digest, attrs: Mapping[str, Any]) -> None:
    """The figures of a run's summary as a file: CSV (figure, value, unit) or JSON (with what ran). Raises OSError."""
    if path.suffix.lower() == ".json":
        data = {"name": str(attrs["name"]), "seed": int(attrs["seed"]), "status": str(attrs["status"]),
                "created": str(attrs["created"]), "figures": {
                    name: {"value": value if np.isfinite(value) else None, "unit": _unit(name)}
                    for name, value in digest.figures.items()}, "warnings": digest.warnings}
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return
    figures = digest.figures
    write_table(path, {"figure": list(figures), "value": np.array(list(figures.values()), float),
                       "unit": [_unit(name) for name in figures]})


def _unit(name: str) -> str:
    symbol = unit_of(name).symbol
    return "" if symbol == "1" else symbol


def _dates(trace: Trace, time_s: np.ndarray) -> list[str]:
    """Time stamps of samples, UTC, ISO 8601; with fractions of a second where there are any."""
    moment = datetime.fromisoformat(str(trace.attrs["start"]))
    start = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    try:
        stamps = [start + timedelta(seconds=float(t)) for t in time_s]
    except OverflowError:
        raise TraceError(f"{trace.path} goes beyond the calendar's last year; it has no time stamps") from None
    return [stamp.isoformat().replace("+00:00", "Z") for stamp in stamps]


def _wide(trace: Trace, model: str) -> TraceTable:
    """Columns time_s, time_utc, then entity.port[.label] in the trace's order."""
    time_s = trace.time_s(model)
    columns: dict[str, Any] = {"time_s": time_s, "time_utc": _dates(trace, time_s)}
    about = dict(_TIME)
    for port in trace.ports(model):
        words, unit = trace.about(f"{model}/{port}")
        for (entity, *label), values in columns_of(trace, model, port):
            name = ".".join([entity, port, *label])
            if name in columns:
                raise TraceError(f"{trace.path}: two columns of {model} would be called '{name}'; write it tidy "
                                 "(--tidy), or read the file with h5py")
            columns[name] = values
            about[name] = ("" if unit == "1" else unit, words)
    return TraceTable(model, columns, about)


def _tidy(trace: Trace, model: str) -> TraceTable:
    """A row per value: time_s, time_utc, entity, port, label, value, unit."""
    time_s = trace.time_s(model)
    stamps, parts = np.array(_dates(trace, time_s)), []
    for port in trace.ports(model):
        unit = trace.about(f"{model}/{port}")[1]
        for (entity, *label), values in columns_of(trace, model, port):
            parts.append((entity, port, label[0] if label else "", np.asarray(values, float), unit))
    count = len(time_s)
    check_memory(f"{model} of {trace.path} as tidy rows", count * len(parts) * len(_TIDY), _BYTES_PER_CELL,
                 "write it wide, without --tidy")
    names = {key: [value for part in parts for value in [part[k]] * count]
             for k, key in ((0, "entity"), (1, "port"), (2, "label"), (4, "unit"))}
    columns = {"time_s": np.tile(time_s, len(parts)), "time_utc": np.tile(stamps, len(parts)).tolist(),
               "entity": names["entity"], "port": names["port"], "label": names["label"],
               "value": np.concatenate([part[3] for part in parts]) if parts else np.zeros(0), "unit": names["unit"]}
    return TraceTable(model, columns, dict(_TIDY))


def _of_columns(tables: list[TraceTable]) -> TraceTable:
    rows = [(one.name, column, *one.about[column]) for one in tables for column in one.columns]
    heads = {"table": ("", "which table the column is of"), "column": ("", "its name"),
             "unit": ("", "unit of its values"), "what": ("", "what it is")}
    named = {one.name for one in tables}
    name = next(n for k in range(len(named) + 1) if (n := _COLUMNS if k == 0 else f"{_COLUMNS}{k}") not in named)
    return TraceTable(name, {head: [row[k] for row in rows] for k, head in enumerate(heads)}, heads)


def _write_book(path: Path, tables: list[TraceTable], files: Mapping[str, str]) -> None:
    for one in tables:
        if (rows := len(next(iter(one.columns.values()), ()))) > MOST_ROWS:
            raise TraceError(f"{one.name} has {rows} rows, a sheet of Excel {MOST_ROWS}; write csv or parquet")
    with Workbook(path) as book:
        for one in tables:
            book.add(files[one.name], one.columns)


def _facts(trace: Trace) -> dict[str, str]:
    """What a descriptor has of the run."""
    scenario = json.loads(str(trace.attrs.get("scenario", "{}")))
    return {"name": str(trace.attrs["name"]), "about": str(scenario.get("about", "")), "seed": str(trace.attrs["seed"]),
            "created": str(trace.attrs["created"]), "status": str(trace.attrs["status"]),
            "versions": str(trace.attrs.get("versions", "{}"))}
