"""A grid that is a table: carbon intensity from a CSV or Parquet file with timestamps, as carbon services export it.

Rows: Z04.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

from pydantic import Field

from cosim.adapter import ExogenousAdapter, Values
from cosim.errors import ScenarioError, unknown
from cosim.limits import is_file
from cosim.params import params
from cosim.plausible import is_marginal, stated_intensity
from cosim.ports import Port
from cosim.simulators.grid.columns import read_column
from cosim.tables.table import DataTable, Overflow, TableOptions
from cosim.units import SUFFIXES

IntensityUnit = Literal["g_per_kwh", "kg_per_kwh", "lb_per_mwh", "kg_per_mwh", "t_per_mwh"]


@params
class SeriesParams:
    """The file, which of its columns is read for which bus, and in what unit."""

    path: Annotated[str, Field(min_length=1, description="CSV or Parquet file with a header line")]
    time_column: Annotated[str, Field(description="column of times: ISO 8601; time_s, time_min, time_h: since t = 0")]
    column: Annotated[str, Field(description="column of the carbon intensity, of all buses not named in `columns`")]
    unit: Annotated[IntensityUnit, Field(description="of the file's figures; a column named for another unit is "
                                         "refused")]
    columns: Annotated[dict[str, str] | None, Field(description="bus -> its own column, for several zones")] = None
    marginal_column: Annotated[str | None, Field(description="column of a marginal intensity (MOER and the like), of "
                                                 "all buses: their mci; null: none")] = None
    marginal_unit: Annotated[IntensityUnit | None, Field(description="of marginal_column; null: that of its name, else "
                                                         "`unit`")] = None
    overflow: Annotated[
        Overflow, Field(description="outside of the table: hold its nearest row, raise, or wrap: repeat it")] = "raise"
    time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; null: UTC, "
                                           "with a note")] = None
    scenario_start: Annotated[str | None, Field(description="date of t = 0; the run fills it in")] = None


_BUS = (
    Port("p_load_kw", "in", "active demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid"),
    Port("q_load_kvar", "in", "reactive demand; it has no effect here", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
    Port("nci_kg_per_kwh", "out", "the file's average carbon intensity, held until its next time"),
    Port("mci_kg_per_kwh", "out", "the file's marginal carbon intensity, likewise; NaN without one", nullable=True),
)
_GRID = (
    Port("emission_kg_per_h", "out", "demand at all buses times their intensity", sign="> 0 is emitted"),
    Port("p_load_total_kw", "out", "demand at all buses", sign="> 0 is drawn from the grid"),
)


class IntensitySeries(ExogenousAdapter):
    """Carbon intensity from a table, for users who have a carbon service's export and no network.

    Nothing depends on demand: neither losses nor voltages nor the intensity. Rows are read against the run's start as
    those of every table (`cosim.tables.axis`), in any order. In the worlds of a learner the table goes on day after
    day.
    """

    PARAMS = SeriesParams
    MODELS = {"Bus": _BUS, "Grid": _GRID}

    @classmethod
    def check_horizon(cls, member: str, given: SeriesParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table that does not cover the run, as its overflow needs it."""
        _table(given, member).check(until_s)

    def setup(self) -> None:
        """Read the columns; ScenarioError for one that is not there, that is in another unit than `unit`, or for a
        marginal intensity in the place of an average one."""
        p = self.params
        buses = self.entities["Bus"]
        named = p.columns or {}
        for bus in named:
            if bus not in buses:
                raise ScenarioError(f"{self.sid}.columns: {unknown('bus', bus, buses)}")
        self._column = {bus: named.get(bus, p.column) for bus in buses}
        self._table = _table(p, self.sid)
        averages = sorted({*self._column.values(), p.column})
        for column in averages:
            if is_marginal(column):
                raise ScenarioError(f"{p.path}: column '{column}' is a marginal intensity, and CO2 is attributed by "
                                    f"average ones; --set {self.sid}.marginal_column={column}, and name a column of "
                                    f"averages by {self.sid}.column")
        self._values = {column: self._read(column, p.unit) for column in averages}
        self._marginal = self._read_marginal()
        self._low_s, self._high_s = math.inf, -math.inf

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The row that holds at `time_s`; ScenarioError where there is none and that is to be refused."""
        now_s = self.origin_s + time_s
        k = self._table.row(now_s)
        self._low_s, self._high_s = min(self._low_s, now_s), max(self._high_s, now_s)
        mci = math.nan if self._marginal is None else self._marginal[k]
        outputs: Values = {bus: {"nci_kg_per_kwh": self._values[column][k], "mci_kg_per_kwh": mci}
                           for bus, column in self._column.items()}
        load_kw = {bus: inputs[bus]["p_load_kw"] for bus in self._column}
        emission = math.fsum(outputs[bus]["nci_kg_per_kwh"] * kw for bus, kw in load_kw.items())
        for eid in self.entities["Grid"]:
            outputs[eid] = {"emission_kg_per_h": emission, "p_load_total_kw": math.fsum(load_kw.values())}
        return outputs

    def notes(self) -> list[str]:
        """How the table was read."""
        return [f"{self.sid}: {text}" for text in self._table.notes(self._low_s, self._high_s, self.step_s)]

    def _read_marginal(self) -> list[float] | None:
        p = self.params
        if p.marginal_column is None:
            return None
        said = stated_intensity(p.marginal_column)
        own = next((name for name in get_args(IntensityUnit) if said is not None and SUFFIXES[name] == said), None)
        return self._read(p.marginal_column, p.marginal_unit or own or p.unit)

    def _read(self, column: str, suffix: IntensityUnit) -> list[float]:
        name, field = (("mci_kg_per_kwh", "marginal_unit") if column == self.params.marginal_column else
                       ("nci_kg_per_kwh", "unit"))
        return read_column(self._table, column, suffix, name, f"{self.sid}.{field}")


def _table(p: SeriesParams, member: str) -> DataTable:
    if not is_file(p.path):
        raise ScenarioError(f"{member}.path: no file at {p.path}; give the CSV by --set {member}.path=FILE.csv")
    return DataTable(p.path, TableOptions(f"{member}.", p.scenario_start, p.time_zone, p.overflow, p.time_column))
