"""The cooling plant of a site as parameters, its named settings, and what follows from the parameters alone.

Settings are named (model.md 2.7 and 5.1): BALANCED (the default: at 380 kW PUE 1.25 at 23 degC to 1.37 at 18 degC),
CORRECTED (the same with -3.7 K of return air for -4.0 K, which leaves 7.9 kW of heat too much), LITERAL (Table I as
printed: PUE 4 to 53), TABLE2 (kW put into (20) where W belongs, the one reading whose range covers Table II: PUE 1.07
to 1.64). In each of them chiller and fans need less power the warmer the supply air is, so without a further term the
warmest air allowed is always the cheapest.

Rows: E24, I07-11, I28, M14, P32-42.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cosim.errors import unknown
from cosim.params import params

PerRack = float | tuple[float, ...]
"""One number for all racks, or one per rack."""


@params
class Cooling:
    """The cooling plant of a site: rack offsets, chiller and cooling tower (lower part of Table I).

    The defaults are the balanced ones; the airflows fit 380 kW of IT power and scale with it. Fields with names for
    values choose between readings of the paper's equations, or between kinds of plant.
    """

    supply_offset_degc: Annotated[PerRack, Field(description="dT_sup of (19): rack inlet above supply air")] = 4.0
    return_approach_degc: Annotated[PerRack, Field(description="dT_ret of (21): return air above rack outlet")] = -4.0
    inlet_max_degc: Annotated[PerRack, Field(description="limit of the rack inlet in (24)")] = 27.0
    inlet_trip_degc: Annotated[
        float, Field(description="inlet at which the site sheds its load, see `thermal`")] = 45.0
    supply_min_degc: Annotated[float, Field(description="coldest supply air allowed by (24)")] = 18.0
    supply_max_degc: Annotated[float, Field(description="warmest supply air allowed by (24)")] = 23.0
    air_heat_capacity_j_per_kg_k: Annotated[float, Field(gt=0, description="c of (20), J/(kg K)")] = 1006.0
    air_density_kg_per_m3: Annotated[float, Field(gt=0, description="rho of (20), kg/m3")] = 1.225
    fan_flow_m3_per_s: Annotated[float, Field(gt=0, description="Phi_sfan of (20), all server fans of the site")] = 21.5
    cop: Annotated[
        tuple[float, float, float], Field(description="COP(T) of (22), T in degC: factors of T^2, of T, and constant")
    ] = (0.0068, 0.008, 0.458)
    tower_ref_kw: Annotated[float, Field(ge=0, description="P_CT,REF of (23): fan power at the reference flow")] = 6.0
    tower_flow_m3_per_s: Annotated[float, Field(gt=0, description="Phi_CT,REF of (23)")] = 11.0
    tower_air_rise_degc: Annotated[float, Field(gt=0, description="dT_CT of (23): warming of the tower's air")] = 40.0
    tower_load: Annotated[
        Literal["chiller", "cooling_and_chiller"], Field(description="heat that drives (23); printed: chiller")
    ] = "cooling_and_chiller"
    tower_clamp: Annotated[bool, Field(description="fan at most at its reference flow; printed: no")] = True
    outlet_power_unit: Annotated[
        Literal["w", "kw"], Field(description="unit in which P_IT is put into (20); kw is a unit slip")
    ] = "w"
    tower_power_unit: Annotated[
        Literal["w", "kw"], Field(description="unit in which the heat is put into (23); kw is a unit slip")
    ] = "w"
    server_reference_degc: Annotated[
        float, Field(description="inlet up to which servers draw the power of (13); see `it_at_inlet_kw`")
    ] = 22.0
    server_leakage_per_k: Annotated[
        float, Field(ge=0, description="rise of server power by leakage per K of inlet above the reference")
    ] = 0.0
    server_fan_ratio: Annotated[float, Field(ge=0, le=1, description="share of server fans in P_IT at reference")] = 0.0
    server_fan_speed_per_k: Annotated[
        float, Field(ge=0, description="rise of their speed per K of inlet above the reference")
    ] = 0.0

    wet_bulb_degc: Annotated[
        float | None, Field(description="outside wet-bulb temperature, for free cooling; null: none, as printed. One "
                            "that changes: `ambient`")
    ] = None
    heat_rejection: Annotated[
        Literal["tower", "dry"], Field(description="wet tower, whose limit is the wet bulb, or dry coolers: dry bulb, "
                                       "no water")
    ] = "tower"
    free_cooling_approach_k: Annotated[
        float, Field(gt=0, description="air cooled without the chiller is warmer than outside by this: tower, heat "
                     "exchanger, coil")
    ] = 10.0
    cop_outside_degc: Annotated[
        float | None, Field(description="outside temperature at which the COP of (22) holds, see `cop_outside`; null: "
                            "it holds at any, as printed")
    ] = None
    condenser_approach_k: Annotated[float, Field(ge=0, description="condensing above the outside temperature")] = 15.0
    evaporator_approach_k: Annotated[float, Field(ge=0, description="evaporating below the supply air")] = 10.0
    least_lift_k: Annotated[float, Field(gt=0, description="least lift of the chiller, however cold outside")] = 10.0
    capacity_kw: Annotated[
        float | None, Field(gt=0, description="most heat the plant removes; null: no limit. For thermal = first_order")
    ] = None
    heat_capacity_kj_per_k: Annotated[
        float, Field(ge=100, description="thermal mass of room, racks and servers, see `thermal`")
    ] = 8000.0
    loss_rated_kw: Annotated[float, Field(gt=0, description="IT power that the losses below are relative to")] = 400.0
    loss_no_load_ratio: Annotated[float, Field(ge=0, le=1, description="UPS, PDU: loss at any load, of rated")] = 0.0
    loss_linear_ratio: Annotated[float, Field(ge=0, le=1, description="UPS, PDU: loss in proportion to P_IT")] = 0.0
    loss_square_ratio: Annotated[float, Field(ge=0, le=1, description="UPS, PDU: loss by its square, at rated")] = 0.0
    auxiliary_kw: Annotated[float, Field(ge=0, description="lighting, offices, security; always drawn")] = 0.0

    @model_validator(mode="after")
    def _can_be_held(self) -> Cooling:
        lengths = {len(v) for v in self.rack_values() if isinstance(v, tuple)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"values per rack have {sorted(lengths)} entries; give one per rack, or one number")
        low, high = supply_limits_degc(self)
        if low > high:
            raise ValueError(f"no supply temperature holds (24): at least {low:g}, at most {high:g} degC")
        hottest = max(per_rack(self.inlet_max_degc))
        if self.inlet_trip_degc < hottest:
            raise ValueError(f"inlet_trip_degc = {self.inlet_trip_degc:g} is below the inlet limit of {hottest:g} degC")
        worst = min(cop(t, self.cop) for t in (low, high, _vertex_degc(self.cop, low, high)))
        if worst <= 0:
            raise ValueError(f"the COP falls to {worst:g} between {low:g} and {high:g} degC; it must stay above 0")
        return self

    def rack_values(self) -> tuple[PerRack, PerRack, PerRack]:
        """The three fields that may be given per rack."""
        return self.supply_offset_degc, self.return_approach_degc, self.inlet_max_degc


def cop(supply_temp_degc: float, coefficients: tuple[float, float, float]) -> float:
    """COP of the chiller in (22), at a supply temperature: a T^2 + b T + c, dimensionless."""
    a, b, c = coefficients
    return (a * supply_temp_degc + b) * supply_temp_degc + c


def supply_limits_degc(cooling: Cooling) -> tuple[float, float]:
    """(24): lowest and highest supply temperature that keep the box and every rack's inlet limit."""
    racks = max(len(per_rack(v)) for v in cooling.rack_values())
    offsets, limits = per_rack(cooling.supply_offset_degc, racks), per_rack(cooling.inlet_max_degc, racks)
    coolest = min(limit - offset for limit, offset in zip(limits, offsets, strict=True))
    return cooling.supply_min_degc, min(cooling.supply_max_degc, coolest)


def per_rack(value: PerRack, racks: int = 1) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * racks


def mean_of_racks(value: PerRack) -> float:
    return math.fsum(value) / len(value) if isinstance(value, tuple) else value


def _vertex_degc(coefficients: tuple[float, float, float], low: float, high: float) -> float:
    """Where the COP's parabola turns, brought into [low, high]."""
    a, b, _ = coefficients
    return min(max(-b / (2 * a), low), high) if a else low


BALANCED = Cooling()
"""The return approach takes back the rack offset: heat removed is heat given off, to the watt."""

CORRECTED = replace(BALANCED, return_approach_degc=-3.7)
"""As BALANCED, with the offset of model.md 5.1, which is nearest to the printed one."""

LITERAL = Cooling(
    return_approach_degc=3.7,
    fan_flow_m3_per_s=6.0,
    tower_flow_m3_per_s=8.5,
    tower_air_rise_degc=1.0,
    tower_load="chiller",
    tower_clamp=False,
)
"""Table I and (19)-(23) as printed, powers in W."""

TABLE2 = replace(LITERAL, outlet_power_unit="kw")
"""Variant C of model.md 2.7: as LITERAL, with P_IT in kW in (20)."""

PRESETS = {"balanced": BALANCED, "corrected": CORRECTED, "literal": LITERAL, "table2": TABLE2}
"""They by the names that a scenario may give instead of single values."""


def _preset(value: Any) -> Any:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(unknown("cooling", value, PRESETS))
        return PRESETS[value]
    return value


CoolingChoice = Annotated[Cooling, BeforeValidator(_preset)]
"""A Cooling, or one of the presets by its name: balanced, corrected, literal, table2."""
