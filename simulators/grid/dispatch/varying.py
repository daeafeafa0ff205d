"""Values of a source that change over time: a number, a day of numbers, a table, or what another member sends.

Four fields of a source may vary: `kg_per_kwh`, `marginal_kg_per_kwh`, `p_max_kw` (what is available of a renewable one)
and `usd_per_kwh`. A dispatch takes the value at its beginning and holds it until the next.

Rows: E08, Z04.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from cosim.errors import ScenarioError, shown
from cosim.limits import is_file
from cosim.params import explain, params
from cosim.plausible import impossible, is_marginal
from cosim.simulators.grid.columns import read_column
from cosim.tables.table import DataTable, Overflow, TableOptions, TableSeries
from cosim.units import DAY_S, format_time

LINKED = "linked"
MOST_POINTS = 86400
PORTS = {"kg_per_kwh": "average_kg_per_kwh", "marginal_kg_per_kwh": "marginal_kg_per_kwh", "p_max_kw": "available_kw",
         "usd_per_kwh": "energy_usd_per_kwh"}
"""What of a source may vary, and the port over which it comes where it is linked."""
Unit = Literal["g_per_kwh", "kg_per_kwh", "lb_per_mwh", "kg_per_mwh", "t_per_mwh", "usd_per_kwh", "usd_per_mwh", "w",
               "kw", "mw"]


@params
class ValueTable:
    """A column of a CSV or Parquet table over time, read as every table (`cosim.tables.axis`)."""

    path: Annotated[str, Field(min_length=1, description="CSV or Parquet file with a header line")]
    column: Annotated[str | None, Field(description="which; null: the one called like the field, e.g. kg_per_kwh or "
                                        "gt6.kg_per_kwh of source gt6, in any unit, or a service's figures")] = None
    unit: Annotated[Unit | None, Field(description="of `column`; null: that of its name")] = None
    factor: Annotated[float, Field(gt=0, description="what figures are multiplied by: the rating, for a column of "
                                   "capacity factors; USD per unit, for prices in another currency")] = 1.0
    time_column: Annotated[str | None, Field(description="column of times; null: by its name")] = None
    where: Annotated[dict[str, str], Field(description="column -> value: rows of another one are left out")] = Field(
        default_factory=dict)
    time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; null: UTC, "
                                           "with a note")] = None
    overflow: Annotated[
        Overflow, Field(description="outside of the table: hold its nearest row, raise, or wrap: repeat it")] = "raise"


Value = float | tuple[float, ...] | ValueTable | Literal["linked"]
_KINDS = "a number, a list of numbers over a day, {path: FILE.csv, ...}, or linked"


def may_vary(field: str) -> BeforeValidator:
    """Validator of a `Value` that stands for a field: its figures are possible ones of that field."""
    def read(given: Any) -> Any:
        if given is None or isinstance(given, ValueTable) or given == LINKED:
            return given
        if isinstance(given, Mapping):
            try:
                return TypeAdapter(ValueTable).validate_python(dict(given))
            except ValidationError as err:
                raise ValueError(explain(err, ValueTable, field, given)) from None
        day = isinstance(given, Sequence) and not isinstance(given, str)
        numbers = tuple(_number(v) for v in (given if day else [given]))
        if (wrong := [k for k, v in enumerate(numbers) if not math.isfinite(v)]) or not numbers:
            which = f"point {wrong[0] + 1} ({shown(given[wrong[0]])})" if day and wrong else "it"
            raise ValueError(f"{which} is no finite number; give {_KINDS}")
        if len(numbers) > MOST_POINTS:
            raise ValueError(f"{len(numbers)} points over a day; at most {MOST_POINTS}, one a second, are taken")
        if (odd := impossible(field, np.array(numbers))) is not None:
            raise ValueError(odd if day else odd.partition(": ")[2])
        return numbers if day else numbers[0]
    return BeforeValidator(read)


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def varies(value: Value | None) -> bool:
    """Whether it is anything but one number, or none."""
    return value is not None and not isinstance(value, float | int)


def number(value: Value, field: str) -> float:
    """A value that is one number; ScenarioError naming the field of one that varies."""
    if not isinstance(value, float | int):
        raise ScenarioError(f"{field} varies over time, which is not modelled here; give one number")
    return float(value)


def number_or_nan(value: Value) -> float:
    """A value that is one number, else NaN."""
    return float(value) if isinstance(value, float | int) else math.nan


def least_and_most(value: Value, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Of a number or a day of them; what is only known while a run goes on is `otherwise`."""
    if isinstance(value, tuple):
        return min(value), max(value)
    return (value, value) if isinstance(value, float | int) else otherwise


class Variable:
    """One field of one source over time.

    owner  its path for errors: 'grid.sources.gt6.kg_per_kwh'; start: ISO date of t = 0, None where it is not known
    ScenarioError for a table that does not fit; what is linked has no value of its own.
    """

    def __init__(self, value: Value | None, owner: str, source: str, field: str, start: str | None) -> None:
        self.owner, self.field, self._value = owner, field, value
        self.linked = value == LINKED
        self._held = _held(value, owner, source, field, start) if isinstance(value, ValueTable) else None

    def check(self, until_s: float) -> None:
        """ScenarioError for a table that does not cover a run until `until_s`, as its overflow needs it."""
        if self._held is not None:
            self._held.table.check(until_s)

    def at(self, time_s: float, *, forecast: bool = False) -> float:
        """Its value at a time, s since t = 0; NaN: none, or linked. ScenarioError past the end of a table that is to
        refuse (a forecast is held)."""
        value = self._value
        if self._held is not None:
            return self._held.at(time_s, forecast=forecast)
        if isinstance(value, tuple):
            return value[int(time_s % DAY_S * len(value) // DAY_S)]
        return value if isinstance(value, float | int) else math.nan

    def notes(self, step_s: float) -> list[str]:
        """How a table was read, and points of a day at which there is no dispatch."""
        if isinstance(self._value, tuple) and len(self._value) * step_s > DAY_S:
            return [f"{self.owner}: {len(self._value)} points a day, and a dispatch every {format_time(step_s)}: those "
                    "in between are skipped"]
        return [] if self._held is None else self._held.notes(step_s)

    def when(self, time_s: float) -> str:
        """A time for an error: where the value stands."""
        if isinstance(self._value, ValueTable) and self._held is not None:
            return f"{self._value.path}, {self._held.table.axis.run_label(time_s)}"
        return format_time(time_s)


def _held(value: ValueTable, owner: str, source: str, field: str, start: str | None) -> TableSeries:
    if not is_file(value.path):
        raise ScenarioError(f"{owner}.path: no file at {value.path}; give the CSV by --set {owner}.path=FILE.csv")
    table = DataTable(value.path, TableOptions(f"{owner}.", start, value.time_zone, value.overflow, value.time_column,
                                               value.where))
    column = value.column if value.column is not None or table.match(field) else table.figure
    if column is None:
        if value.unit is not None:
            raise ScenarioError(f"{owner}.unit = {value.unit} without a column; name one by {owner}.column, or leave "
                                "the unit out: that of the column's name counts")
        return TableSeries(table, field, source, owner, value.factor)
    if is_marginal(column) and field == "kg_per_kwh":
        raise ScenarioError(f"{value.path}: column '{column}' is a marginal intensity, and CO2 is attributed by "
                            f"average ones; give it by {owner.removesuffix(field)}marginal_kg_per_kwh, and a column of "
                            f"averages here")
    return TableSeries.of(table, read_column(table, column, value.unit, field, f"{owner}.unit", value.factor))
