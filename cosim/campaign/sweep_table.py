"""Tables of a sweep: a row per run and figure; a row per point and figure with mean, interval and difference."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.campaign.cells import CellState
from cosim.campaign.points import Point
from cosim.campaign.statistics import interval, paired
from cosim.digest import Table
from cosim.errors import DiskError
from cosim.tables.files import write_table
from cosim.units import unit_of

if TYPE_CHECKING:
    import pandas as pd

RUNS, TABLE = "runs", "table"
"""Names of the two files, .csv and .parquet."""
_ABOUT = {
    "point": "number of the point, from 1", "seed": "of the run", "figure": "name in the summary of a run",
    "unit": "of the figure; 1: a number without a unit, or of none that is known", "value": "of one run",
    "runs": "number of seeds with a finite value", "mean": "over these seeds",
    "mean_low": "lower end of the 95 % t interval of the mean", "mean_high": "its upper end",
    "pairs": "number of seeds that the first point has, too",
    "difference": "mean over these seeds of the value less that of the first point with the same seed",
    "difference_low": "lower end of the 95 % t interval of the difference", "difference_high": "its upper end"}

Columns = dict[str, list[Any]]
"""Name -> values, all of one length."""


def runs_of(points: Sequence[Point], seeds: Sequence[int], states: Sequence[CellState]) -> Columns:
    """A row per run that is done and figure: point, a column per field, seed, figure, unit, value (NaN: no number).

    states: of the cells, seed after seed of each point
    """
    columns: Columns = {name: [] for name in ("point", *points[0], "seed", "figure", "unit", "value")}
    for (number, point, seed), state in zip(
            ((number, point, seed) for number, point in enumerate(points, 1) for seed in seeds), states, strict=True):
        figures: Any = (state.result or {}).get("figures")
        for name, value in sorted(figures.items()) if isinstance(figures, dict) else ():
            number_there = isinstance(value, int | float) and not isinstance(value, bool)
            row = {"point": number, **point, "seed": seed, "figure": name, "unit": unit_of(name).symbol,
                   "value": float(value) if number_there else math.nan}
            for column, entry in row.items():
                columns[column].append(entry)
    return columns


def statistics_of(runs: Columns) -> Columns:
    """A row per point and figure, with the statistics over its runs, and differences to the first point that is
    there."""
    fields = [name for name in runs if name not in _ABOUT]
    cells: dict[tuple[int, str], dict[int, float]] = {}
    rows: dict[tuple[int, str], int] = {}
    for row, (point, figure, seed, value) in enumerate(zip(*(runs[n] for n in ("point", "figure", "seed", "value")),
                                                           strict=True)):
        rows.setdefault((point, figure), row)
        found = cells.setdefault((point, figure), {})
        if math.isfinite(value):
            found[seed] = value
    out: Columns = {name: [] for name in ("point", *fields, "figure", "unit", "runs", "mean", "mean_low", "mean_high",
                                          "pairs", "difference", "difference_low", "difference_high")}
    for (point, figure), values in cells.items():
        differences = paired(values, cells.get((1, figure), {})) if point != 1 else []
        (mean, half), (difference, reach) = interval(list(values.values())), interval(differences)
        first = rows[point, figure]
        row_of = {"point": point, **{name: runs[name][first] for name in fields}, "figure": figure,
                  "unit": runs["unit"][first], "runs": len(values), "mean": mean, "mean_low": mean - half,
                  "mean_high": mean + half, "pairs": len(differences), "difference": difference,
                  "difference_low": difference - reach, "difference_high": difference + reach}
        for column, entry in row_of.items():
            out[column].append(entry)
    return out


def frame_of(columns: Columns) -> pd.DataFrame:
    """The columns as a DataFrame of pandas; `attrs` describe them."""
    import pandas as pd

    frame = pd.DataFrame(columns)
    frame.attrs = {"about": _about(columns)}
    return frame


def write_tables(out: Path, name: str, fields: Sequence[str], runs: Columns) -> list[Path]:
    """Write both tables as CSV, and as Parquet where pyarrow is there; returns the paths.

    A column has one type: a field with values of several kinds is text, a list or object in it JSON.
    """
    endings = (".csv", ".parquet") if find_spec("pyarrow") else (".csv",)
    written = []
    for stem, columns in ((RUNS, runs), (TABLE, statistics_of(runs))):
        plain = {column: uniform(values) if column in fields else values for column, values in columns.items()}
        about = {"scenario": name, **_about(columns)}
        for ending in endings:
            path = out / f"{stem}{ending}"
            part = path.with_name(f"{stem}.part{ending}")
            try:
                part.unlink(missing_ok=True)
                write_table(part, plain, about)
                part.replace(path)
            except OSError as err:
                raise DiskError(f"cannot write {path}: {err.strerror or err}") from None
            written.append(path)
    return written


def uniform(values: Sequence[Any]) -> list[Any]:
    """Values of one type: numbers as floats, truth values or texts as they are, of several kinds as text, other data as
    JSON."""
    kinds = {bool if isinstance(v, bool) else float if isinstance(v, int | float) else str if isinstance(v, str) else
             object for v in values}
    if kinds == {float}:
        return [float(v) for v in values]
    return list(values) if kinds in ({bool}, {str}) else [v if isinstance(v, str) else json.dumps(v) for v in values]


def tables_of(runs: Columns, figures: Sequence[str], labels: Mapping[int, str]) -> list[Table]:
    """For people: per figure a row per point, with mean and difference, each with half of its interval."""
    columns = statistics_of(runs)
    rows: dict[str, list[tuple[str, ...]]] = {figure: [] for figure in figures}
    units: dict[str, str] = {}
    for point, figure, unit, *numbers in zip(*(columns[n] for n in (
            "point", "figure", "unit", "runs", "mean", "mean_high", "difference", "difference_high")), strict=True):
        if figure in rows:
            runs_there, mean, high, difference, reach = numbers
            units[figure] = unit
            rows[figure].append((labels[point], str(runs_there), _number(mean, high - mean),
                                 "-" if point == 1 else _number(difference, reach - difference)))
    return [Table(f"{figure} [{units[figure]}]", ("", "runs", "mean", "less the first point"), rows[figure])
            for figure in figures if rows[figure]]


def lines_of(runs: Columns, figure: str, over: str, others: Sequence[str]) -> dict[str, list[tuple[Any, float, float]]]:
    """For a picture: a line per combination of the other fields, of (value of `over`, mean, half width)."""
    columns = statistics_of(runs)
    lines: dict[str, list[tuple[Any, float, float]]] = {}
    for row, name in enumerate(columns["figure"]):
        if name == figure:
            label = ", ".join(f"{other.rpartition('.')[2]} {columns[other][row]}" for other in others)
            half = columns["mean_high"][row] - columns["mean"][row]
            lines.setdefault(label, []).append((columns[over][row], columns["mean"][row],
                                                0.0 if math.isnan(half) else half))
    return lines


def _number(value: float, half: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.6g}" + ("" if math.isnan(half) else f" +- {half:.2g}")


def _about(columns: Iterable[str]) -> dict[str, str]:
    """Column -> what it is; of a field its unit."""
    out = {}
    for name in columns:
        unit = unit_of(name.rpartition(".")[2]).symbol
        out[name] = _ABOUT.get(name) or f"field of the scenario, {'without a unit' if unit == '1' else unit}"
    return out
