"""The air outside of a data centre: wet-bulb and dry-bulb temperature over the day, from a table, or from the bus.

The wet bulb limits what a cooling tower reaches, the dry bulb what dry coolers do (`Cooling.heat_rejection`).
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from cosim.errors import ModelError, ScenarioError
from cosim.params import params
from cosim.plausible import OUTSIDE_DEGC
from cosim.tables.table import DataTable, Overflow, TableOptions, TableSeries
from cosim.units import DAY_S, HOUR_S

LOWEST_DEGC, HIGHEST_DEGC = OUTSIDE_DEGC.low, OUTSIDE_DEGC.high


class OutdoorAir(NamedTuple):
    """Temperatures of the outside air, degC; NaN: not known."""

    wet_bulb_degc: float = math.nan
    dry_bulb_degc: float = math.nan


Degc = Annotated[float, Field(ge=LOWEST_DEGC, le=HIGHEST_DEGC)]


@params
class Ambient:
    """Where the outside temperatures come from: a day's shape, a table, or a link to `wet_bulb_degc`, `dry_bulb_degc`.

    The shape is mean + swing cos(2 pi (t - peak) / 24 h), every day alike. A table has a column of times, and
    `wet_bulb_degc`, `dry_bulb_degc` or both; from `dry_bulb_degc` and `relative_humidity_ratio` the wet bulb follows.
    Columns may be of one site each ('aidc1.wet_bulb_degc').
    """

    wet_bulb_mean_degc: Annotated[Degc | None, Field(description="mean of the day; null: not known")] = None
    wet_bulb_swing_k: Annotated[float, Field(ge=0, le=30, description="how far it rises above its mean")] = 0.0
    dry_bulb_mean_degc: Annotated[Degc | None, Field(description="mean of the day; null: not known")] = None
    dry_bulb_swing_k: Annotated[float, Field(ge=0, le=30, description="how far it rises above its mean")] = 0.0
    peak_h: Annotated[float, Field(ge=0, lt=24, description="hour of the day at which it is warmest")] = 15.0
    table: Annotated[str | None, Field(min_length=1, description="CSV or Parquet table, EPW or TMY3 file, in "
                                       "place of the shape")] = None
    table_overflow: Annotated[
        Overflow, Field(description="outside of the table: hold its nearest row, raise, or wrap: repeat it")] = "hold"
    table_time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; "
                                                 "null: UTC, with a note")] = None
    linked: Annotated[bool, Field(description="temperatures come over the bus, from another member")] = False

    @model_validator(mode="after")
    def _one_source(self) -> Ambient:
        shape = self.wet_bulb_mean_degc is not None or self.dry_bulb_mean_degc is not None
        given = [name for name, there in (("a mean", shape and self.table is None), ("table", self.table is not None),
                                          ("linked", self.linked)) if there]
        if len(given) != 1:
            raise ValueError(f"ambient has {' and '.join(given) or 'no source'}; give one: wet_bulb_mean_degc or "
                             "dry_bulb_mean_degc, table, or linked")
        for name in ("wet_bulb", "dry_bulb"):
            if getattr(self, f"{name}_swing_k") and getattr(self, f"{name}_mean_degc") is None:
                raise ValueError(f"{name}_swing_k is {getattr(self, f'{name}_swing_k'):g} without {name}_mean_degc")
        if self.dry_bulb_mean_degc is not None and self.wet_bulb_mean_degc is not None:
            margin_k = self.dry_bulb_mean_degc - self.wet_bulb_mean_degc
            if margin_k < abs(self.dry_bulb_swing_k - self.wet_bulb_swing_k):
                raise ValueError("the wet bulb rises above the dry bulb, which cannot be; the means differ by "
                                 f"{margin_k:g} K, the swings by {self.dry_bulb_swing_k - self.wet_bulb_swing_k:g} K")
        return self


class Weather:
    """The outside temperatures at one site.

    origin_s  what the table's clock shows more than the world's: days gone before, see `Adapter.carry`
    Raises ScenarioError for a table that does not fit.
    """

    def __init__(self, ambient: Ambient, site: str, owner: str, start: str | None) -> None:
        self.ambient, self.origin_s, self._owner = ambient, 0.0, owner
        self._columns: dict[str, TableSeries] = {}
        if ambient.table is not None:
            table = _table(ambient.table, ambient, owner, start)
            columns = [n for n in ("wet_bulb_degc", "dry_bulb_degc", "relative_humidity_ratio") if table.match(n)]
            if not {"wet_bulb_degc", "dry_bulb_degc"} & set(columns):
                raise ScenarioError(f"{owner}.table: {ambient.table} has neither wet_bulb_degc nor dry_bulb_degc; it "
                                    f"has {', '.join(table.columns)}")
            self._columns = {n: TableSeries(table, n, site, f"{owner}.table") for n in columns}
            self._check(ambient.table)

    def at(self, time_s: float, linked: OutdoorAir) -> OutdoorAir:
        """At a time of the world, which begins at midnight; `linked` is what came over the bus.

        ModelError for a link that brings nothing or nonsense, ScenarioError past the end of a table that is to refuse.
        """
        p = self.ambient
        if p.linked:
            return self._checked(linked)
        if not self._columns:
            return OutdoorAir(_shape(p.wet_bulb_mean_degc, p.wet_bulb_swing_k, p.peak_h, time_s),
                              _shape(p.dry_bulb_mean_degc, p.dry_bulb_swing_k, p.peak_h, time_s))
        found = {name: held.at(self.origin_s + time_s) for name, held in self._columns.items()}
        dry = found.get("dry_bulb_degc", math.nan)
        if "wet_bulb_degc" in found:
            return OutdoorAir(found["wet_bulb_degc"], dry)
        humidity = found.get("relative_humidity_ratio")
        return OutdoorAir(math.nan if humidity is None else wet_bulb_degc(dry, humidity), dry)

    def notes(self, step_s: float) -> list[str]:
        """Sentences on how the table was read, every `step_s`, and which shape it takes the place of."""
        p, said = self.ambient, []
        shape = p.wet_bulb_mean_degc is not None or p.dry_bulb_mean_degc is not None
        if self._columns and (shape or any(held.table.place for held in self._columns.values())):
            derived = "" if "wet_bulb_degc" in self._columns or "relative_humidity_ratio" not in self._columns else (
                ", the wet bulb from both")
            instead = f", in place of the day's shape that {self._owner} has, too" if shape else ""
            said.append(f"{p.table}: outside air by its {' and '.join(self._columns)}{derived}{instead}")
        return said + list(dict.fromkeys(text for held in self._columns.values() for text in held.notes(step_s)))

    def _checked(self, linked: OutdoorAir) -> OutdoorAir:
        if all(math.isnan(v) for v in linked):
            raise ModelError(f"{self._owner}.linked is set and nothing is linked; link wet_bulb_degc or dry_bulb_degc "
                             "of the site to another member's output")
        for name, value in zip(OutdoorAir._fields, linked, strict=True):
            if not (math.isnan(value) or LOWEST_DEGC <= value <= HIGHEST_DEGC):
                raise ModelError(f"{self._owner}: {name} = {value:g} came over the bus; {LOWEST_DEGC:g} to "
                                 f"{HIGHEST_DEGC:g} degC are allowed")
        return linked

    def _check(self, path: str) -> None:
        for name, held in self._columns.items():
            low, high = (0.0, 1.0) if name == "relative_humidity_ratio" else (LOWEST_DEGC, HIGHEST_DEGC)
            rows = zip(held.table.times_s, held.values, strict=True)
            wrong = next(((t, v) for t, v in rows if not low <= v <= high), None)
            if wrong is not None:
                raise ScenarioError(f"{path}: {name} = {wrong[1]:g} at {held.table.axis.label(wrong[0])}; {low:g} to "
                                    f"{high:g} are allowed (is it in another unit?)")
        if {"wet_bulb_degc", "dry_bulb_degc"} <= self._columns.keys():
            wet, dry = self._columns["wet_bulb_degc"], self._columns["dry_bulb_degc"]
            for t, w, d in zip(wet.table.times_s, wet.values, dry.values, strict=True):
                if w > d:
                    raise ScenarioError(f"{path}: at {wet.table.axis.label(t)} the wet bulb is {w:g} degC, above the "
                                        f"dry bulb of {d:g}; correct the row")


def check_cover(ambient: Ambient, owner: str, start: str | None, until_s: float) -> None:
    """ScenarioError for a table that does not cover a run until `until_s`, as its overflow needs it."""
    if ambient.table is not None:
        _table(ambient.table, ambient, owner, start).check(until_s)


def _table(path: str, ambient: Ambient, owner: str, start: str | None) -> DataTable:
    return DataTable(path, TableOptions(f"{owner}.table_", start, ambient.table_time_zone, ambient.table_overflow))


def wet_bulb_degc(dry_bulb_degc: float, relative_humidity_ratio: float) -> float:
    """Wet bulb from dry bulb and relative humidity (0 to 1) at sea level, degC, within 1 K for 5 to 99 % and -20 to 50.

    The fit of R. Stull, Wet-bulb temperature from relative humidity and air temperature, J. Appl. Meteorol. Climatol.
    50 (2011) 2267, humidity kept within its range; never above the dry bulb.
    """
    percent = min(max(100.0 * relative_humidity_ratio, 5.0), 99.0)
    fitted = (dry_bulb_degc * math.atan(0.151977 * math.sqrt(percent + 8.313659)) + math.atan(dry_bulb_degc + percent)
              - math.atan(percent - 1.676331) + 0.00391838 * percent**1.5 * math.atan(0.023101 * percent) - 4.686035)
    return min(fitted, dry_bulb_degc)


def _shape(mean_degc: float | None, swing_k: float, peak_h: float, time_s: float) -> float:
    if mean_degc is None:
        return math.nan
    return mean_degc + swing_k * math.cos(2.0 * math.pi * (time_s - peak_h * HOUR_S) / DAY_S)
