"""A grid that is a table: carbon intensity from a CSV or Parquet file with timestamps, as carbon services export it.

Rows: Z04.
"""

from __future__ import annotations

import math
import re
from dataclasses import field, replace
from typing import Annotated, Literal, get_args

from pydantic import Field

from cosim.adapter import ExogenousAdapter, Values
from cosim.errors import ScenarioError, listed, unknown
from cosim.limits import is_file
from cosim.params import params
from cosim.plausible import is_marginal, stated_intensity
from cosim.ports import Port
from cosim.scenario import DEFAULT_START, Scenario
from cosim.simulators.grid.columns import read_column
from cosim.tables.dates import label
from cosim.tables.table import DataTable, Overflow, TableOptions, TableSeries
from cosim.units import DAY_S, SUFFIXES

_INTENSITY = re.compile(r"carbon|intensity|nci|co2|co₂", re.IGNORECASE)
IntensityUnit = Literal["g_per_kwh", "kg_per_kwh", "lb_per_mwh", "kg_per_mwh", "t_per_mwh"]


@params
class SeriesParams:
    """The file, which of its columns is read for which bus, and in what unit."""

    path: Annotated[str, Field(min_length=1, description="CSV or Parquet file with a header line")]
    time_column: Annotated[str | None, Field(description="column of times: ISO 8601; time_s, time_min, time_h: since "
                                             "t = 0; null: by its name")] = None
    column: Annotated[str | None, Field(description="column of the carbon intensity, of all buses not named in "
                                        "`columns`; null: a service's, or the only one that is one by its name")] = None
    unit: Annotated[IntensityUnit | None, Field(description="of the file's figures; a column named for another unit is "
                                                "refused; null: that of its name")] = None
    columns: Annotated[dict[str, str] | None, Field(description="bus -> its own column, for several zones")] = None
    paths: Annotated[dict[str, str] | None, Field(description="bus -> its own file, for zones of a file each; it is "
                                                  "read as `path` is")] = None
    where: Annotated[dict[str, str], Field(description="column -> value: rows of another one are left out")] = field(
        default_factory=dict)
    marginal_column: Annotated[str | None, Field(description="column of a marginal intensity (MOER and the like), of "
                                                 "all buses: their mci; null: none")] = None
    marginal_path: Annotated[str | None, Field(description="file of the marginal intensity, where it is another than "
                                               "`path` (of WattTime, say)")] = None
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
    def completes(cls, member: str, given: SeriesParams, scenario: Scenario) -> Scenario:
        """A scenario of no start begins at the first midnight of the file, where that has dates."""
        if scenario.start is not None:
            return scenario
        table = _table(replace(given, scenario_start=DEFAULT_START), member, given.path)
        first_s = table.first_unix_s
        return scenario if first_s is None else scenario.replace(start=label(math.ceil(first_s / DAY_S) * DAY_S)[:10])

    @classmethod
    def check_horizon(cls, member: str, given: SeriesParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table that does not cover the run, as its overflow needs it."""
        for path in dict.fromkeys((given.path, *(given.paths or {}).values())):
            table = _table(given, member, path)
            _average(given, member, table)
            table.check(until_s)
        if given.marginal_path is not None:
            _table(given, member, given.marginal_path, own=True).check(until_s)

    def setup(self) -> None:
        """Read the columns; ScenarioError for one that is not there, that is in another unit than `unit`, or for a
        marginal intensity in the place of an average one."""
        p = self.params
        buses = self.entities["Bus"]
        named, files = p.columns or {}, p.paths or {}
        for field_name, given in (("columns", named), ("paths", files)):
            for bus in given:
                if bus not in buses:
                    raise ScenarioError(f"{self.sid}.{field_name}: {unknown('bus', bus, buses)}")
        self._tables = {path: _table(p, self.sid, path) for path in dict.fromkeys((p.path, *files.values()))}
        default = {path: _average(p, self.sid, table) for path, table in self._tables.items()}
        self._source = {bus: (path := files.get(bus, p.path), named.get(bus, default[path])) for bus in buses}
        wanted = sorted({*self._source.values(), (p.path, default[p.path])})
        self._values = {(path, column): self._read(self._tables[path], column) for path, column in wanted}
        self._marginal = self._read_marginal()
        self._low_s, self._high_s = math.inf, -math.inf

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The row that holds at `time_s`; ScenarioError where there is none and that is to be refused."""
        now_s = self.origin_s + time_s
        self._low_s, self._high_s = min(self._low_s, now_s), max(self._high_s, now_s)
        row = {path: table.row(now_s) for path, table in self._tables.items()}
        mci = math.nan if self._marginal is None else self._marginal.at(now_s)
        outputs: Values = {bus: {"nci_kg_per_kwh": self._values[source][row[source[0]]], "mci_kg_per_kwh": mci}
                           for bus, source in self._source.items()}
        load_kw = {bus: inputs[bus]["p_load_kw"] for bus in self._source}
        emission = math.fsum(outputs[bus]["nci_kg_per_kwh"] * kw for bus, kw in load_kw.items())
        for eid in self.entities["Grid"]:
            outputs[eid] = {"emission_kg_per_h": emission, "p_load_total_kw": math.fsum(load_kw.values())}
        return outputs

    def notes(self) -> list[str]:
        """How the tables were read, and which of their columns were taken without being named."""
        tables = list(self._tables.values())
        said = [text for table in tables for text in table.notes(self._low_s, self._high_s, self.step_s)]
        if self._marginal is not None and self._marginal.table not in tables:
            said += self._marginal.notes(self.step_s)
        if self.params.column is None:
            said += [f"{path}: average intensities are its column {column}"
                     for path, column in dict.fromkeys(self._source.values()) if self._tables[path].figure is None]
        return [f"{self.sid}: {text}" for text in said]

    # --- inside -------------------------------------------------------------------------------------------------

    def _read_marginal(self) -> TableSeries | None:
        p = self.params
        if p.marginal_column is None and p.marginal_path is None:
            return None
        table = self._tables[p.path] if p.marginal_path is None else _table(p, self.sid, p.marginal_path, own=True)
        found = [name for name in table.columns if is_marginal(name) and stated_intensity(name) is not None]
        column = p.marginal_column or table.figure or (found[0] if len(found) == 1 else None)
        if column is None:
            raise ScenarioError(f"{table.path}: which column is the marginal intensity? --set "
                                f"{self.sid}.marginal_column=NAME, one of {listed(found or table.columns)}")
        said = stated_intensity(column)
        own = next((name for name in get_args(IntensityUnit) if said is not None and SUFFIXES[name] == said), None)
        values = read_column(table, column, p.marginal_unit or own or p.unit, "mci_kg_per_kwh",
                             f"{self.sid}.marginal_unit")
        return TableSeries.of(table, values)

    def _read(self, table: DataTable, column: str) -> list[float]:
        if is_marginal(column):
            raise ScenarioError(f"{table.path}: column '{column}' is a marginal intensity, and CO2 is attributed by "
                                f"average ones; name a column of averages by {self.sid}.columns")
        return read_column(table, column, self.params.unit, "nci_kg_per_kwh", f"{self.sid}.unit")


def _table(p: SeriesParams, member: str, path: str, own: bool = False) -> DataTable:
    """A table of these parameters; own: of times, zones and rows of its own, by their names."""
    if not is_file(path):
        raise ScenarioError(f"{member}.path: no file at {path}; give the CSV by --set {member}.path=FILE.csv")
    clock = None if own else p.time_column
    where = {} if own else p.where
    return DataTable(path, TableOptions(f"{member}.", p.scenario_start, p.time_zone, p.overflow, clock, where))


def _average(p: SeriesParams, member: str, table: DataTable) -> str:
    """The column of average intensities: as given, a service's, or the only one that is one by its name. ScenarioError
    for a marginal one, and where it is not known."""
    found = [name for name in table.columns if not is_marginal(name) and (
        stated_intensity(name) is not None or _INTENSITY.search(name))]
    column = p.column or table.figure or (found[0] if len(found) == 1 else None)
    if column is None:
        raise ScenarioError(f"{table.path}: which column is the carbon intensity? --set {member}.column=NAME, one of "
                            f"{listed(found or table.columns)}")
    if is_marginal(column):
        raise ScenarioError(f"{table.path}: column '{column}' is a marginal intensity, and CO2 is attributed by "
                            f"average ones; --set {member}.marginal_path={table.path}, or {member}.marginal_column="
                            f"{column}, and give averages by {member}.path and {member}.column")
    return column
