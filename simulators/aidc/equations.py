"""Power and cooling of an AI data centre: equations (12)-(13), (19)-(24) and what is derived from them.

Pure functions of power and temperature, no clock. They take floats, and numpy arrays of one shape alike. Powers are
in kW at the door; inside (20)-(23) they are in W, because c, rho and the airflows are in SI units.

Three settings of the cooling plant are named (model.md 2.7 and 5.1): CORRECTED (the default: heat balance holds, PUE
1.25 at 23 degC to 1.39 at 18 degC), LITERAL (Table I as printed: PUE 4 to 53) and TABLE2 (kW put into (20) where W
belongs, the one reading whose range covers Table II: PUE 1.07 to 1.64). In each of them chiller and fans need less
power the warmer the supply air is, so without a further term the warmest air allowed is always the cheapest.

Rows of the model: I28, M14, P32-42.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from cosim.params import params

W_PER_KW = 1000.0

PerRack = float | tuple[float, ...]
"""One number for all racks, or one per rack."""


@params
class Cooling:
    """The cooling plant of a site: rack offsets, chiller and cooling tower (lower part of Table I).

    The defaults are the corrected ones; the airflows fit 380 kW of IT power and scale with it. The last four fields
    choose between readings of the paper's equations.
    """

    supply_offset_degc: Annotated[PerRack, Field(description="dT_sup of (19): rack inlet above supply air")] = 4.0
    return_approach_degc: Annotated[PerRack, Field(description="dT_ret of (21): return air above rack outlet")] = -3.7
    inlet_max_degc: Annotated[PerRack, Field(description="limit of the rack inlet in (24)")] = 27.0
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
        float, Field(description="inlet up to which servers draw what (13) says; see `it_at_inlet_kw`")
    ] = 22.0
    server_leakage_per_k: Annotated[
        float, Field(ge=0, description="rise of server power by leakage per K of inlet above the reference")
    ] = 0.0
    server_fan_ratio: Annotated[float, Field(ge=0, le=1, description="share of server fans in P_IT at reference")] = 0.0
    server_fan_speed_per_k: Annotated[
        float, Field(ge=0, description="rise of their speed per K of inlet above the reference")
    ] = 0.0

    wet_bulb_degc: Annotated[
        float | None, Field(description="outside wet-bulb temperature, for free cooling; null: none, as printed")
    ] = None
    free_cooling_approach_k: Annotated[
        float, Field(gt=0, description="air cooled by the tower alone is warmer than the wet bulb by this")
    ] = 6.0
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
        worst = min(cop(t, self.cop) for t in (low, high, _vertex_degc(self.cop, low, high)))
        if worst <= 0:
            raise ValueError(f"the COP falls to {worst:g} between {low:g} and {high:g} degC; it must stay above 0")
        return self

    def rack_values(self) -> tuple[PerRack, PerRack, PerRack]:
        """The three fields that may be given per rack."""
        return self.supply_offset_degc, self.return_approach_degc, self.inlet_max_degc


@dataclass(frozen=True, slots=True)
class CracState:
    """What the cooling plant draws and the air temperatures that go with it; all powers >= 0, drawn.

    `inlet_degc` is that of the hottest rack, which (24) limits; outlet and return are means over the racks.
    """

    cooling_load_kw: float
    chiller_kw: float
    tower_kw: float
    inlet_degc: float
    outlet_degc: float
    return_degc: float

    @property
    def cooling_kw(self) -> float:
        """P_CRAC = P_chiller + P_CT (U06)."""
        return self.chiller_kw + self.tower_kw


def throughput_to_per_s(jobs: float, work_to: float, dt_min: float) -> float:
    """U03: y = j x / (60 dt), TO/s, of `jobs` jobs of `work_to` TO done in `dt_min` minutes."""
    return work_to * jobs / (dt_min * 60.0)


def gpu_throughput_to_per_s(gpus: float, to_per_gpu_min: float) -> float:
    """(14) solved for y: TO/s of `gpus` busy GPUs at xi = `to_per_gpu_min`."""
    return gpus * to_per_gpu_min / 60.0


def it_power_kw(idle_kw: float, throughput: Sequence[float], kw_per_to_s: Sequence[float]) -> float:
    """E13 (13): P_IT = P_idle + sum alpha_m y_m, kW; throughputs y_m in TO/s, alpha_m in kW/(TO/s), one per class."""
    power_kw = idle_kw
    for y, alpha in zip(throughput, kw_per_to_s, strict=True):
        power_kw = power_kw + alpha * y
    return power_kw


def it_at_inlet_kw(it_kw: float, supply_temp_degc: float, cooling: Cooling) -> float:
    """I12, off by default: IT power, kW, with what servers need more as their inlet is warmer, d K above the reference.

    P_IT [1 + a d + f ((1 + s d)^3 - 1)]: leakage grows by a per K, and fans of share f turn by s per K faster and draw
    the cube of that (affinity law). With it the warmest supply air is no longer the cheapest; see M. K. Patterson, The
    effect of data center temperature on energy efficiency, ITHERM 2008. d is that of the mean inlet, and >= 0.
    """
    above_k = supply_temp_degc + _mean(cooling.supply_offset_degc) - cooling.server_reference_degc
    above_k = _at_least_zero(above_k)
    fans = cooling.server_fan_ratio * ((1.0 + cooling.server_fan_speed_per_k * above_k) ** 3 - 1.0)
    return it_kw * (1.0 + cooling.server_leakage_per_k * above_k + fans)


def heat_imbalance_kw(it_kw: float, supply_temp_degc: float, cooling: Cooling) -> float:
    """Heat that the plant removes by (19)-(21), U05 beyond what IT gives off, kW; > 0 is heat from nowhere (2.7).

    Table I as printed: c rho Phi (4.0 + 3.7) K = 57 kW at every load; the corrected set: 7.9 kW, by 4.0 - 3.7.
    """
    return cooling_power_kw(it_kw, supply_temp_degc, cooling)[0] - it_kw


def aidc_power_kw(it_kw: float, cooling_kw: float) -> float:
    """E12 (12): what the site draws, kW."""
    return it_kw + cooling_kw


def reactive_power_kvar(p_kw: float, q_per_p_ratio: float) -> float:
    """eta P of E05 (5), P08: reactive power drawn, kvar."""
    return q_per_p_ratio * p_kw


def pue(p_kw: float, it_kw: float) -> float:
    """U19: power usage effectiveness P_AIDC / P_IT, >= 1."""
    return p_kw / it_kw


def cop(supply_temp_degc: float, coefficients: tuple[float, float, float]) -> float:
    """COP of the chiller in E22 (22), P40, at a supply temperature: a T^2 + b T + c, dimensionless."""
    a, b, c = coefficients
    return (a * supply_temp_degc + b) * supply_temp_degc + c


def supply_limits_degc(cooling: Cooling) -> tuple[float, float]:
    """E24 (24): lowest and highest supply temperature that keep the box and every rack's inlet limit."""
    racks = max(len(_racks(v)) for v in cooling.rack_values())
    offsets, limits = _racks(cooling.supply_offset_degc, racks), _racks(cooling.inlet_max_degc, racks)
    coolest = min(limit - offset for limit, offset in zip(limits, offsets, strict=True))
    return cooling.supply_min_degc, min(cooling.supply_max_degc, coolest)


def air_temperatures_degc(it_kw: float, supply_temp_degc: float, cooling: Cooling) -> tuple[float, float]:
    """E20 (20), E21 (21): mean rack outlet and CRAC return temperature at an IT power >= 0 and a supply temperature."""
    fan_w_per_k = cooling.air_heat_capacity_j_per_kg_k * cooling.air_density_kg_per_m3 * cooling.fan_flow_m3_per_s
    heat = it_kw * W_PER_KW if cooling.outlet_power_unit == "w" else it_kw
    outlet_degc = supply_temp_degc + _mean(cooling.supply_offset_degc) + heat / fan_w_per_k
    return outlet_degc, outlet_degc + _mean(cooling.return_approach_degc)


def cooling_power_kw(it_kw: float, supply_temp_degc: float, cooling: Cooling) -> tuple[float, float, float]:
    """E22 (22), E23 (23), U05: cooling load, chiller and tower-fan power, kW >= 0, at an IT power and a supply air.

    A negative cooling load, possible with a strongly negative return approach, counts as none. With a wet-bulb
    temperature the chiller does what `free_cooling_ratio` leaves to it.
    """
    w_per_k = cooling.air_heat_capacity_j_per_kg_k * cooling.air_density_kg_per_m3
    _, return_degc = air_temperatures_degc(it_kw, supply_temp_degc, cooling)
    load_w = w_per_k * cooling.fan_flow_m3_per_s * (return_degc - supply_temp_degc)
    load_kw = _at_least_zero(load_w) / W_PER_KW
    chiller_kw = load_kw / cop(supply_temp_degc, cooling.cop)
    if cooling.wet_bulb_degc is not None:
        chiller_kw = chiller_kw * (1.0 - free_cooling_ratio(supply_temp_degc, return_degc, cooling))
    rejected = chiller_kw if cooling.tower_load == "chiller" else load_kw + chiller_kw
    if cooling.tower_power_unit == "w":
        rejected = rejected * W_PER_KW
    flow_ratio = rejected / (w_per_k * cooling.tower_air_rise_degc * cooling.tower_flow_m3_per_s)
    if cooling.tower_clamp:
        flow_ratio = _at_most_one(flow_ratio)
    return load_kw, chiller_kw, cooling.tower_ref_kw * flow_ratio * flow_ratio * flow_ratio


def free_cooling_ratio(supply_temp_degc: float, return_degc: float, cooling: Cooling) -> float:
    """Share of the cooling load that the tower takes without the chiller, 0 to 1; off without a wet-bulb temperature.

    A water-side economiser in series with the chiller brings the return air down to the wet bulb plus an approach, as
    far as that is above the supply: (T_ret - T_wb - approach) / (T_ret - T_sup); EnergyPlus Engineering Reference,
    "Waterside economizer"; ASHRAE Handbook, HVAC Systems and Equipment, ch. Cooling Towers.
    """
    reached_degc = cooling.wet_bulb_degc + cooling.free_cooling_approach_k
    span_k = return_degc - supply_temp_degc
    if isinstance(span_k, float):
        return min(max((return_degc - reached_degc) / span_k, 0.0), 1.0) if span_k > 0.0 else 0.0
    some = span_k > 0.0
    return np.where(some, np.clip((return_degc - reached_degc) / np.where(some, span_k, 1.0), 0.0, 1.0), 0.0)


def distribution_loss_kw(it_kw: float, cooling: Cooling) -> float:
    """Losses of UPS and PDU, and auxiliaries, kW >= 0 (default 0): R (a + b x + c x^2) + auxiliary, x = P_IT / R.

    No-load, proportional and square-law loss: N. Rasmussen, Electrical efficiency modeling for data centers, APC White
    Paper 113. They are given off outside of the cooled rooms.
    """
    rated_kw = cooling.loss_rated_kw
    fixed_kw = cooling.loss_no_load_ratio * rated_kw + cooling.auxiliary_kw
    return fixed_kw + (cooling.loss_linear_ratio + cooling.loss_square_ratio * it_kw / rated_kw) * it_kw


def has_losses(cooling: Cooling) -> bool:
    """Whether `distribution_loss_kw` can be other than 0."""
    return any((cooling.loss_no_load_ratio, cooling.loss_linear_ratio, cooling.loss_square_ratio, cooling.auxiliary_kw))


def water_kg_per_h(heat_kw: float, concentration_cycles: float = 4.0) -> float:
    """Water (1 kg is 1 l) that a tower takes up to reject heat, kg/h >= 0: evaporation and blow-down, without drift.

    All heat leaves by evaporation at 2.45 MJ/kg (1.47 kg/kWh, an upper estimate: a part warms the air), and C cycles of
    concentration need C / (C - 1) of it: ASHRAE Handbook, HVAC Systems and Equipment, ch. Cooling Towers.
    """
    return heat_kw * 3.6 / 2.45 * concentration_cycles / (concentration_cycles - 1.0)


def crac(it_kw: float, supply_temp_degc: float, cooling: Cooling) -> CracState:
    """E19 (19) to E23 (23): the whole state of the cooling plant at an IT power (kW, >= 0) and a supply temperature."""
    load_kw, chiller_kw, tower_kw = cooling_power_kw(it_kw, supply_temp_degc, cooling)
    outlet_degc, return_degc = air_temperatures_degc(it_kw, supply_temp_degc, cooling)
    inlet_degc = supply_temp_degc + max(_racks(cooling.supply_offset_degc))
    return CracState(load_kw, chiller_kw, tower_kw, inlet_degc, outlet_degc, return_degc)


def _vertex_degc(coefficients: tuple[float, float, float], low: float, high: float) -> float:
    """Where the COP's parabola turns, brought into [low, high]."""
    a, b, _ = coefficients
    return min(max(-b / (2 * a), low), high) if a else low


def _racks(value: PerRack, racks: int = 1) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * racks


def _mean(value: PerRack) -> float:
    return math.fsum(value) / len(value) if isinstance(value, tuple) else value


def _at_least_zero(value: Any) -> Any:
    return max(value, 0.0) if isinstance(value, float) else np.maximum(value, 0.0)


def _at_most_one(value: Any) -> Any:
    return min(value, 1.0) if isinstance(value, float) else np.minimum(value, 1.0)


CORRECTED = Cooling()
"""model.md 5.1: heat balance holds."""

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

PRESETS = {"corrected": CORRECTED, "literal": LITERAL, "table2": TABLE2}
"""The three by the names that a scenario may give instead of single values."""
