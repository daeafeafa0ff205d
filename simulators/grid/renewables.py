"""Photovoltaic plants and wind turbines in the weather of a file: what they can give, for a grid's sources.

Rows: Z04.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from cosim.adapter import CreateResult, ExogenousAdapter, Values
from cosim.errors import ScenarioError, unknown
from cosim.limits import is_file
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.forecast.horizon import HORIZON, HorizonS, HorizonStepS, horizon_steps, labels, leads_s
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.renewable_equations import (
    STANDARD_DENSITY_KG_PER_M3,
    at_hub,
    density_kg_per_m3,
    on_a_plane,
    pv_kw,
    sun,
    wind_kw,
)
from cosim.simulators.grid.weather_day import WeatherDay
from cosim.tables.table import DataTable, Overflow, TableOptions
from cosim.units import DAY_S, unit_of

_LIMITS = {"ghi_w_per_m2": (0.0, 1500.0), "dni_w_per_m2": (0.0, 1500.0), "dhi_w_per_m2": (0.0, 1000.0),
           "dry_bulb_degc": (-60.0, 60.0), "wind_speed_m_per_s": (0.0, 60.0), "pressure_pa": (40e3, 110e3)}
"""What weather can be."""


@params
class Photovoltaics:
    """A plant of one orientation. Defaults: modules of crystalline silicon on open racks."""

    rated_dc_kw: Annotated[float, Field(gt=0, le=1e9, description="of its modules, at 1000 W/m2 and 25 degC")]
    rated_ac_kw: Annotated[float | None, Field(gt=0, le=1e9, description="of its inverters, which clip; null: "
                                               "rated_dc_kw")] = None
    tilt_deg: Annotated[float, Field(ge=0, le=90, description="from the horizontal, degrees")] = 30.0
    azimuth_deg: Annotated[float, Field(ge=0, lt=360, description="where it looks to, clockwise from north: 90 is "
                                        "east, 180 south")] = 180.0
    power_per_k: Annotated[float, Field(ge=-0.02, le=0.0, description="relative change of power per K of cell "
                                        "temperature")] = -0.0035
    nominal_cell_degc: Annotated[float, Field(ge=20, le=80, description="nominal operating cell temperature (NOCT)"
                                              )] = 45.0
    loss_ratio: Annotated[float, Field(ge=0, lt=1, description="all that is lost behind the modules: soiling, "
                                       "mismatch, wiring, inverter")] = 0.17


@params
class Wind:
    """Turbines of one kind. Defaults: a turbine of 2 MW class at low-wind sites."""

    rated_kw: Annotated[float, Field(gt=0, le=1e9, description="of all of them")]
    cut_in_m_per_s: Annotated[float, Field(gt=0, le=60, description="least wind at the hub")] = 3.0
    rated_m_per_s: Annotated[float, Field(gt=0, le=60, description="wind at the hub at which they give their rating"
                                          )] = 12.0
    cut_out_m_per_s: Annotated[float, Field(gt=0, le=60, description="above it they stand still")] = 25.0
    hub_m: Annotated[float, Field(gt=0, le=300, description="height of the hub")] = 80.0
    measured_m: Annotated[float, Field(gt=0, le=300, description="height at which the file's wind was measured")] = 10.0
    shear_exponent: Annotated[float, Field(ge=0, le=1, description="of the power law between the heights")] = 1 / 7

    @model_validator(mode="after")
    def _speeds_ascend(self) -> Wind:
        if not self.cut_in_m_per_s < self.rated_m_per_s < self.cut_out_m_per_s:
            raise ValueError(f"cut-in {self.cut_in_m_per_s:g}, rated {self.rated_m_per_s:g} and cut-out speed "
                             f"{self.cut_out_m_per_s:g} m/s must ascend")
        return self


@params
class RenewablesParams:
    """The weather file, and the plants in it."""

    weather: Annotated[str | dict[str, tuple[float, ...]], Field(
        min_length=1, description="EPW or TMY3 file, or a table with dates and the columns ghi_w_per_m2, dni_w_per_m2, "
        "dhi_w_per_m2, dry_bulb_degc (for pv), wind_speed_m_per_s (for wind; pressure_pa counts, too); or these "
        "columns themselves, column -> as many values as the day, from midnight UTC, has equal parts")]
    pv: Annotated[dict[str, Photovoltaics], Field(description="photovoltaic plants by name")] = Field({})
    wind: Annotated[dict[str, Wind], Field(description="wind turbines by name")] = Field({})
    overflow: Annotated[
        Overflow, Field(description="outside of the file: hold its nearest row, raise, or wrap: repeat it")] = "raise"
    time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; null: UTC, "
                                           "with a note")] = None
    latitude_deg: Annotated[float | None, Field(ge=-90, le=90, description="> 0 is north; null: the file's")] = None
    longitude_deg: Annotated[float | None, Field(ge=-180, le=180, description="> 0 is east; null: the file's")] = None
    scenario_start: Annotated[str | None, Field(description="date of t = 0; the run fills it in")] = None

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> RenewablesParams:
        if not self.pv and not self.wind:
            raise ValueError("there is no plant; give pv or wind, by name")
        if twice := sorted(set(self.pv) & set(self.wind)):
            raise ValueError(f"pv and wind both have a plant {twice[0]}; names are unique")
        return self


class Renewables(ExogenousAdapter):
    """What plants can give in the weather of a file, row by row, for `p_max_kw` of a grid's sources.

    The sun of a row is that at the middle of its time, and the row's power holds for all of it. Shadows and snow are
    not modelled. In the worlds of a learner the weather goes on day after day.
    """

    PARAMS = RenewablesParams
    MODELS = {"Plant": (
        Port("available_kw", "out", "the most it can give in this weather", sign="> 0 feeds the network"),)}

    @classmethod
    def check_horizon(cls, member: str, given: RenewablesParams, step_s: float, until_s: float) -> None:
        """ScenarioError for weather that does not cover the run, lacks a column, or cannot be."""
        table = _table(given, member)
        table.check(until_s)
        _powers(given, member, table)

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: object
               ) -> list[CreateResult]:
        """Plants by name; ScenarioError for one that the parameters do not have."""
        plants = [*self.params.pv, *self.params.wind]
        for name in names or ():
            if name not in plants:
                raise ScenarioError(f"{self.sid}: {unknown('plant', name, plants)}")
        return super().create(num, model, names or plants[:num], **model_params)

    def setup(self) -> None:
        self._table = _table(self.params, self.sid)
        self._powers = {name: values.tolist() for name, values in _powers(self.params, self.sid, self._table).items()}
        self._low_s, self._high_s = math.inf, -math.inf

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The row that holds at `time_s`."""
        now_s = self.origin_s + time_s
        k = self._table.row(now_s)
        self._low_s, self._high_s = min(self._low_s, now_s), max(self._high_s, now_s)
        return {eid: {"available_kw": self._powers[eid][k]} for eid in self.entities["Plant"]}

    def notes(self) -> list[str]:
        """How the file was read."""
        if not hasattr(self, "_table") or self._low_s > self._high_s:
            return []
        return [f"{self.sid}: {text}" for text in self._table.notes(self._low_s, self._high_s, self.step_s)]


@params
class KnownRenewablesParams(RenewablesParams):
    """Plants and how far ahead what they can give is known, in which steps."""

    horizon_s: HorizonS = DAY_S
    horizon_step_s: HorizonStepS = 900.0


class KnownRenewables(Renewables):
    """`Renewables` that also export what plants will be able to give at every step of a horizon, by the weather that
    comes: for perfect forecasts, or those with an error. After the file's end the last row, or as overflow has it."""

    PARAMS = KnownRenewablesParams
    MODELS = {"Plant": (
        *Renewables.MODELS["Plant"],
        Port("available_future_kw", "out", "the most it can give now and at each step to come",
             sign="> 0 feeds the network", dims=(HORIZON,)))}

    @classmethod
    def check_horizon(cls, member: str, given: Any, step_s: float, until_s: float) -> None:
        """As `Renewables`; ScenarioError for a horizon that cannot be."""
        super().check_horizon(member, given, step_s, until_s)
        horizon_steps(member, given.horizon_s, given.horizon_step_s)

    def labels(self) -> dict[str, list[str]]:
        """Minutes from now."""
        return {HORIZON: labels(self.params.horizon_s, self.params.horizon_step_s)}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """As `Renewables`, and the rows to come."""
        outputs, now_s, given = super().advance(time_s, inputs), self.origin_s + time_s, self.params
        rows = [self._table.row(now_s + s, forecast=True) for s in leads_s(given.horizon_s, given.horizon_step_s)]
        for eid, of_plant in outputs.items():
            of_plant["available_future_kw"] = [self._powers[eid][k] for k in rows]
        return outputs


def _table(p: RenewablesParams, member: str) -> DataTable | WeatherDay:
    if not isinstance(p.weather, str):
        return WeatherDay(p.weather, f"{member}.weather", p.scenario_start or "2026-01-01")
    if not is_file(p.weather):
        raise ScenarioError(f"{member}.weather: no file at {p.weather}; give an EPW or TMY3 file by --set "
                            f"{member}.weather=FILE.epw")
    return DataTable(p.weather, TableOptions(f"{member}.", p.scenario_start, p.time_zone, p.overflow))


def _powers(p: RenewablesParams, member: str, table: DataTable | WeatherDay) -> dict[str, Floats]:
    """Plant -> kW (row,) in the table's order of time."""
    air = _column(table, "dry_bulb_degc", member)
    out: dict[str, Floats] = {}
    if p.pv:
        ghi, dni, dhi = (_column(table, f"{name}_w_per_m2", member) for name in ("ghi", "dni", "dhi"))
        elevation, azimuth = sun(table.unix_s + table.axis.step_s / 2.0, *_place(p, member, table))
        for name, plant in p.pv.items():
            plane = on_a_plane(ghi, dni, dhi, elevation, azimuth, plant.tilt_deg, plant.azimuth_deg)
            out[name] = pv_kw(plane, air, plant.rated_dc_kw, plant.rated_ac_kw or plant.rated_dc_kw, plant.power_per_k,
                              plant.nominal_cell_degc, plant.loss_ratio)
    if p.wind:
        speed = _column(table, "wind_speed_m_per_s", member)
        density = np.full(len(speed), STANDARD_DENSITY_KG_PER_M3)
        if "pressure_pa" in table.columns:
            density = density_kg_per_m3(_column(table, "pressure_pa", member), air)
        for name, turbine in p.wind.items():
            out[name] = wind_kw(at_hub(speed, turbine.measured_m, turbine.hub_m, turbine.shear_exponent), density,
                                turbine.rated_kw, turbine.cut_in_m_per_s, turbine.rated_m_per_s,
                                turbine.cut_out_m_per_s)
    return out


def _place(p: RenewablesParams, member: str, table: DataTable | WeatherDay) -> tuple[float, float]:
    found = []
    for field, given in (("latitude_deg", p.latitude_deg), ("longitude_deg", p.longitude_deg)):
        value = table.place.get(field) if given is None else given
        if value is None:
            raise ScenarioError(f"{table.path} does not say where it is; --set {member}.{field}=...")
        found.append(value)
    return found[0], found[1]


def _column(table: DataTable | WeatherDay, name: str, member: str) -> Floats:
    if name not in table.columns:
        raise ScenarioError(f"{member}.weather: {table.path} has no column {name}; it has {', '.join(table.columns)}")
    values, (low, high) = table.numbers(name, unit_of(name)), _LIMITS[name]
    if (wrong := np.flatnonzero((values < low) | (values > high))).size:
        raise ScenarioError(f"{table.path}: {name} = {values[wrong[0]]:g} at "
                            f"{table.axis.label(float(table.times_s[wrong[0]]))}; {low:g} to {high:g} are allowed (is "
                            "it in another unit?)")
    return np.asarray(values, dtype=np.float64)
