"""A battery on the feeder: what it may do in an interval, and the energy and carbon that it holds.

Power p is at the bus, > 0 where it discharges. Over h hours the energy in it changes by -p h / (its discharge
efficiency), or by -p h x (its charge efficiency) where it charges. Carbon follows the rule of the carbon emission flow,
that a loss has the intensity of what sends it: what charges has the intensity w of the bus, of which the energy that
arrives keeps w, and the loss takes w away; what discharges, its loss too, has the intensity of all that is stored. So
the stored intensity is the mix of what went in, and energy that is held keeps it.

Rows: E09, U18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field, model_validator

from cosim.params import params
from cosim.plausible import Intensity

_Kwh = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Kw = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


@params
class Battery:
    """A battery: where it stands, its limits and efficiencies, and how it begins and has to end."""

    node: Annotated[Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1, max_length=40)], Field(
        union_mode="left_to_right", description="bus number of the network, in OpenDSS the bus's name; a battery "
        "behind a data center's meter is one of aidc.batteries")]
    energy_max_kwh: Annotated[_Kwh, Field(gt=0, description="most energy in it, kWh")]
    p_charge_max_kw: Annotated[_Kw, Field(description="most power it draws at its bus, kW")]
    p_discharge_max_kw: Annotated[_Kw, Field(description="most power it feeds at its bus, kW")]
    energy_start_kwh: Annotated[_Kwh, Field(description="energy in it at t = 0, kWh")]
    start_kg_per_kwh: Annotated[Intensity, Field(allow_inf_nan=False, description="carbon intensity of that energy")]
    energy_min_kwh: Annotated[_Kwh, Field(description="least energy in it, kWh")] = 0.0
    energy_end_kwh: Annotated[_Kwh | None, Field(
        description="energy that a plan, and the run, ends with at least, kWh; null: energy_start_kwh")] = None
    charge_efficiency_ratio: Annotated[float, Field(gt=0, le=1, description="stored per kWh drawn")] = 0.95
    discharge_efficiency_ratio: Annotated[float, Field(gt=0, le=1, description="fed per kWh taken out")] = 0.95
    wear_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False, description="cost of its wear per kWh "
                                             "that it draws or feeds, for a dispatch that weighs cost")] = 0.0

    @model_validator(mode="after")
    def _energies_are_in_order(self) -> Battery:
        low, high = self.energy_min_kwh, self.energy_max_kwh
        if low >= high:
            raise ValueError(f"energy_min_kwh = {low:g} must be below energy_max_kwh = {high:g}")
        for name in ("energy_start_kwh", "energy_end_kwh"):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} = {value:g} is not between energy_min_kwh = {low:g} and energy_max_kwh = "
                                 f"{high:g}")
        return self

    @property
    def end_kwh(self) -> float:
        """Least energy at the end of a plan, and of the run."""
        return self.energy_start_kwh if self.energy_end_kwh is None else self.energy_end_kwh


@dataclass(frozen=True, slots=True)
class Store:
    """What is in a battery: energy, kWh, and carbon, kg."""

    energy_kwh: float
    carbon_kg: float
    kg_per_kwh: float

    @classmethod
    def begin(cls, battery: Battery) -> Store:
        """As the scenario has it at t = 0."""
        return cls.of(battery.energy_start_kwh, battery.energy_start_kwh * battery.start_kg_per_kwh,
                      battery.start_kg_per_kwh)

    @classmethod
    def of(cls, energy_kwh: float, carbon_kg: float, otherwise_kg_per_kwh: float) -> Store:
        """Energy and carbon; an empty store keeps an intensity, for the figures alone."""
        if energy_kwh <= 0.0:
            return cls(0.0, 0.0, otherwise_kg_per_kwh)
        return cls(energy_kwh, carbon_kg, carbon_kg / energy_kwh)

    def after(self, battery: Battery, p_kw: float, nci_kg_per_kwh: float, hours: float) -> Store:
        """What is in it when it has run at p_kw (> 0 discharges) for some hours, its bus at an intensity."""
        change = stored_kw(battery, p_kw) * hours
        intensity = nci_kg_per_kwh if change > 0.0 else self.kg_per_kwh
        return Store.of(self.energy_kwh + change, self.carbon_kg + change * intensity, self.kg_per_kwh)


class StorageLimits(Protocol):
    """What any battery has: limits of energy and power, and efficiencies."""

    @property
    def energy_min_kwh(self) -> float: ...
    @property
    def energy_max_kwh(self) -> float: ...
    @property
    def p_charge_max_kw(self) -> float: ...
    @property
    def p_discharge_max_kw(self) -> float: ...
    @property
    def charge_efficiency_ratio(self) -> float: ...
    @property
    def discharge_efficiency_ratio(self) -> float: ...


def stored_kw(battery: StorageLimits, p_kw: float) -> float:
    """By how much the energy in it rises, kW, at p_kw (> 0 discharges)."""
    return -p_kw / battery.discharge_efficiency_ratio if p_kw > 0.0 else -p_kw * battery.charge_efficiency_ratio


def reach_kw(battery: StorageLimits, energy_kwh: float, hours: float) -> tuple[float, float]:
    """Least and most p_kw that it can keep up for some hours: (<= 0, >= 0)."""
    room, left = max(battery.energy_max_kwh - energy_kwh, 0.0), max(energy_kwh - battery.energy_min_kwh, 0.0)
    return (-min(battery.p_charge_max_kw, room / hours / battery.charge_efficiency_ratio),
            min(battery.p_discharge_max_kw, left / hours * battery.discharge_efficiency_ratio))
