"""A grid that is a table: carbon intensity from a CSV with timestamps, as carbon services export it.

Rows of the model: Z04.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, SolverError, unknown
from cosim.params import params
from cosim.ports import Port
from cosim.units import SUFFIXES, Seconds, format_time, not_negative


@params
class SeriesParams:
    """The file, which of its columns is read for which bus, and when the run starts in it."""

    path: Annotated[str, Field(min_length=1, description="CSV file with a header line")]
    time_column: Annotated[str, Field(description="column of ISO 8601 times; without a zone they are UTC")]
    column: Annotated[str, Field(description="column of the carbon intensity, of all buses not named in `columns`")]
    unit: Annotated[Literal["g_per_kwh", "kg_per_kwh"], Field(description="of the file's figures")]
    columns: Annotated[dict[str, str] | None, Field(description="bus -> its own column, for several zones")] = None
    start: Annotated[str | None, Field(description="time in the file that t = 0 is, ISO 8601; null: its first")] = None
    max_gap_s: Annotated[Seconds, Field(gt=0, description="longest time that one figure may stand, s")] = 7200.0


_BUS = (
    Port("p_load_kw", "in", "active demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid"),
    Port("q_load_kvar", "in", "reactive demand; it has no effect here", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
    Port("nci_kg_per_kwh", "out", "the file's carbon intensity, held until its next time"),
)
_GRID = (
    Port("emission_kg_per_h", "out", "demand at all buses times their intensity", sign="> 0 is emitted"),
    Port("p_load_total_kw", "out", "demand at all buses", sign="> 0 is drawn from the grid"),
)


class IntensitySeries(Adapter):
    """Carbon intensity from a CSV, for users who have a carbon service's export and no network.

    Nothing answers demand: neither losses nor voltages nor the intensity. Rows may be unevenly spaced and in any order;
    a time that the file does not cover is an error that names it.
    """

    PARAMS = SeriesParams
    MODELS = {"Bus": _BUS, "Grid": _GRID}

    def setup(self) -> None:
        p = self.params
        buses = self.entities["Bus"]
        named = p.columns or {}
        for bus in named:
            if bus not in buses:
                raise ScenarioError(f"{self.sid}.columns: {unknown('bus', bus, buses)}")
        self._column = {bus: named.get(bus, p.column) for bus in buses}
        self._times, self._values = _read(p, sorted({*self._column.values(), p.column}), self.sid)
        self._zero = _time(p.start, f"{self.sid}.start") if p.start is not None else self._times[0]

    def advance(self, time_s: float, inputs: Values) -> Values:
        at = self._zero + time_s
        k = bisect_right(self._times, at) - 1
        if k < 0 or at - self._times[k] >= self.params.max_gap_s:
            first, last = (datetime.fromtimestamp(t, UTC).isoformat() for t in (self._times[0], self._times[-1]))
            raise SolverError(
                f"{self.sid} at {format_time(time_s)}: {self.params.path} has no figure for "
                f"{datetime.fromtimestamp(at, UTC).isoformat()} (it goes from {first} to {last}); set "
                f"{self.sid}.start, or {self.sid}.max_gap_s = {self.params.max_gap_s:g} if it has gaps")
        outputs: Values = {bus: {"nci_kg_per_kwh": self._values[column][k]} for bus, column in self._column.items()}
        load_kw = {bus: inputs[bus]["p_load_kw"] for bus in self._column}
        emission = math.fsum(outputs[bus]["nci_kg_per_kwh"] * kw for bus, kw in load_kw.items())
        for eid in self.entities["Grid"]:
            outputs[eid] = {"emission_kg_per_h": emission, "p_load_total_kw": math.fsum(load_kw.values())}
        return outputs


def _read(p: SeriesParams, columns: list[str], sid: str) -> tuple[list[float], dict[str, list[float]]]:
    """(times in s since 1970, ascending; column -> kg/kWh at each). ScenarioError names what is wrong, and its line."""
    path = Path(p.path)
    if not path.is_file():
        raise ScenarioError(f"{sid}.path: no file at {path}; give the CSV by --set {sid}.path=FILE.csv")
    factor = SUFFIXES[p.unit].factor
    rows: list[tuple[float, list[float]]] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for column in (p.time_column, *columns):
            if column not in (reader.fieldnames or ()):
                raise ScenarioError(f"{path}: {unknown('column', column, list(reader.fieldnames or ()))}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            time_s = _time(row[p.time_column], where)
            rows.append((time_s, [not_negative(row[c], "carbon intensity", f"{where}, {c}") * factor for c in columns]))
    if not rows:
        raise ScenarioError(f"{path} has no rows; it needs at least one time and figure")
    rows.sort(key=lambda row: row[0])
    for (a, _), (b, _) in zip(rows, rows[1:], strict=False):
        if a == b:
            raise ScenarioError(f"{path} has two rows for {datetime.fromtimestamp(a, UTC).isoformat()}; keep one")
    return [t for t, _ in rows], {c: [values[k] for _, values in rows] for k, c in enumerate(columns)}


def _time(text: str, where: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ScenarioError(f"{where}: '{text}' is no ISO 8601 time such as 2026-01-31T14:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
