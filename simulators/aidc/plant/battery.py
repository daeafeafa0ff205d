"""A battery behind a data center's meter (its UPS, used): what it may do, by which rule it runs, and what is in it.

It acts on what the facility draws within the same tick, so that the meter shows facility - battery; it feeds no
more than the facility draws, so that nothing is exported. Power > 0 discharges. Equations are those of a battery on the
feeder (`cosim.simulators.grid.battery`).
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from cosim.params import params
from cosim.simulators.grid.battery import reach_kw, stored_kw
from cosim.units import DAY_S, HOUR_S

_Kwh = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Kw = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


@params
class BatteryHours:
    """A power that holds every day from one hour to another; an end before the start lies on the next day."""

    start_h: Annotated[float, Field(ge=0, lt=24, description="hour of the day")]
    end_h: Annotated[float, Field(ge=0, le=24, description="hour of the day, 24 for midnight")]
    p_kw: Annotated[float, Field(allow_inf_nan=False, description="> 0 discharges, < 0 charges, as far as it can")]

    @model_validator(mode="after")
    def _has_length(self) -> BatteryHours:
        if self.start_h == self.end_h:
            raise ValueError(f"from {self.start_h:g} h to {self.end_h:g} h there is no time")
        return self

    def holds(self, time_s: float) -> bool:
        """Whether it holds at a time, s since midnight of day 0."""
        return (time_s - self.start_h * HOUR_S) % DAY_S < ((self.end_h - self.start_h) * HOUR_S % DAY_S or DAY_S)


@params
class SiteBattery:
    """A battery of one site: its limits and efficiencies, and the rule by which it runs where nothing commands it."""

    energy_max_kwh: Annotated[_Kwh, Field(gt=0, description="most energy in it, kWh")]
    p_charge_max_kw: Annotated[_Kw, Field(description="most power it draws, kW")]
    p_discharge_max_kw: Annotated[_Kw, Field(description="most power it feeds, kW")]
    energy_start_kwh: Annotated[_Kwh, Field(description="energy in it at t = 0, kWh")]
    energy_min_kwh: Annotated[_Kwh, Field(description="least energy in it, kWh: what is kept for an outage")] = 0.0
    charge_efficiency_ratio: Annotated[float, Field(gt=0, le=1, description="stored per kWh drawn")] = 0.95
    discharge_efficiency_ratio: Annotated[float, Field(gt=0, le=1, description="fed per kWh taken out")] = 0.95
    wear_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False, description="cost of its wear per kWh "
                                             "that it draws or feeds, for the summary")] = 0.0
    meter_max_kw: Annotated[float | None, Field(
        ge=0, allow_inf_nan=False, description="it discharges so that the meter shows no more, and charges with what "
        "is left below it; null: the meter has no part in it")] = None
    hours: Annotated[tuple[BatteryHours, ...], Field(max_length=100, description="what it does at which hours, the "
                                                     "first that holds; meter_max_kw goes first")] = ()

    @model_validator(mode="after")
    def _energies_are_in_order(self) -> SiteBattery:
        low, high, start = self.energy_min_kwh, self.energy_max_kwh, self.energy_start_kwh
        if low >= high:
            raise ValueError(f"energy_min_kwh = {low:g} must be below energy_max_kwh = {high:g}")
        if not low <= start <= high:
            raise ValueError(f"energy_start_kwh = {start:g} is not between energy_min_kwh = {low:g} and "
                             f"energy_max_kwh = {high:g}")
        return self


class BehindMeter:
    """The battery of a site through a run. energy_kwh: what is in it now."""

    def __init__(self, battery: SiteBattery) -> None:
        self.battery, self.energy_kwh = battery, battery.energy_start_kwh

    def run(self, facility_kw: float, set_kw: float, begin_s: float, step_s: float) -> float:
        """Its power in a tick that begins at begin_s, kW, > 0 discharges; its energy is that of the tick's end then.

        facility_kw  mean of what the facility draws in the tick; set_kw: a command, NaN for none
        """
        hours = step_s / HOUR_S
        low, high = reach_kw(self.battery, self.energy_kwh, hours)
        wanted = self._wanted_kw(facility_kw, begin_s) if math.isnan(set_kw) else set_kw
        p_kw = min(max(wanted, low), high, max(facility_kw, 0.0))
        self.energy_kwh += stored_kw(self.battery, p_kw) * hours
        return p_kw

    def _wanted_kw(self, facility_kw: float, begin_s: float) -> float:
        """What its rule has it do, its own limits aside."""
        battery = self.battery
        planned = next((h.p_kw for h in battery.hours if h.holds(begin_s)), None)
        if battery.meter_max_kw is None:
            return planned or 0.0
        least = facility_kw - battery.meter_max_kw  # below it the meter would show more
        if planned is None:
            planned = 0.0 if battery.hours else -battery.p_charge_max_kw
        return max(planned, least)
