"""Power and cooling of an AI data centre: equations (12)-(13), (19)-(24) and what is derived from them.

Pure functions of power and temperature, no clock. They take floats, and numpy arrays of one shape alike. Powers are
in kW at the door; inside (20)-(23) they are in W, because c, rho and the airflows are in SI units.

Rows: E05, E12, E13, E19-23, I09-12, M14, P08, U05, U06, U19.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.simulators.aidc.plant.cooling import Cooling, cop, mean_of_racks, per_rack
from cosim.units import MIN_S

W_PER_KW = 1000.0


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
        """P_CRAC = P_chiller + P_CT."""
        return self.chiller_kw + self.tower_kw


Numbers = Any
"""A float, or an array of them: these equations hold element by element, and give back the kind they were given."""


def gpu_throughput_to_per_s(gpus: Numbers, to_per_gpu_min: Numbers) -> Numbers:
    """(14) solved for y: TO/s of `gpus` busy GPUs at xi = `to_per_gpu_min`."""
    return gpus * to_per_gpu_min / MIN_S


def it_power_kw(idle_kw: Numbers, throughput: Iterable[Numbers], kw_per_to_s: Iterable[Numbers]) -> Numbers:
    """(13): P_IT = P_idle + sum alpha_m y_m, kW; throughputs y_m in TO/s, alpha_m in kW/(TO/s), one per class."""
    power_kw = idle_kw
    for y, alpha in zip(throughput, kw_per_to_s, strict=True):
        power_kw = power_kw + alpha * y
    return power_kw


def it_at_inlet_kw(it_kw: Numbers, supply_temp_degc: Numbers, cooling: Cooling) -> Numbers:
    """Off by default: IT power, kW, with what servers need more as their inlet is warmer, d K above the reference.

    P_IT [1 + a d + f ((1 + s d)^3 - 1)]: leakage grows by a per K, and fans of share f turn by s per K faster and draw
    the cube of that (affinity law). With it the warmest supply air is no longer the cheapest; see M. K. Patterson, The
    effect of data center temperature on energy efficiency, ITHERM 2008. d is that of the mean inlet, and >= 0. What
    servers draw, leakage and fans included, is heat in the room.
    """
    return it_kw * inlet_factor(supply_temp_degc, cooling)


def inlet_factor(supply_temp_degc: Numbers, cooling: Cooling) -> Numbers:
    """The factor on IT power in `it_at_inlet_kw`, >= 1; at `inlet_trip_degc` it has reached its end."""
    inlet_degc = _at_most(supply_temp_degc + mean_of_racks(cooling.supply_offset_degc), cooling.inlet_trip_degc)
    above_k = _at_least_zero(inlet_degc - cooling.server_reference_degc)
    fans = cooling.server_fan_ratio * ((1.0 + cooling.server_fan_speed_per_k * above_k) ** 3 - 1.0)
    return 1.0 + cooling.server_leakage_per_k * above_k + fans


def heat_imbalance_kw(it_kw: Numbers, supply_temp_degc: Numbers, cooling: Cooling) -> Numbers:
    """Heat that the plant removes by (19)-(21) beyond what IT gives off, kW; > 0 is heat from nowhere (2.7).

    Table I as printed: c rho Phi (4.0 + 3.7) K = 57 kW at every load; the corrected set: 7.9 kW, by 4.0 - 3.7.
    """
    return cooling_power_kw(it_kw, supply_temp_degc, cooling)[0] - it_kw


def aidc_power_kw(it_kw: float, cooling_kw: float) -> float:
    """(12): what the site draws, kW."""
    return it_kw + cooling_kw


def reactive_power_kvar(p_kw: Numbers, q_per_p_ratio: Numbers) -> Numbers:
    """eta P of (5): reactive power drawn, kvar."""
    return q_per_p_ratio * p_kw


def pue(p_kw: float, it_kw: float) -> float:
    """Power usage effectiveness P_AIDC / P_IT, >= 1."""
    return p_kw / it_kw


def air_temperatures_degc(it_kw: Numbers, supply_temp_degc: Numbers, cooling: Cooling) -> tuple[Numbers, Numbers]:
    """(20), (21): mean rack outlet and CRAC return temperature at an IT power >= 0 and a supply temperature."""
    fan_w_per_k = _w_per_k(cooling) * cooling.fan_flow_m3_per_s
    heat = it_kw * W_PER_KW if cooling.outlet_power_unit == "w" else it_kw
    outlet_degc = supply_temp_degc + mean_of_racks(cooling.supply_offset_degc) + heat / fan_w_per_k
    return outlet_degc, outlet_degc + mean_of_racks(cooling.return_approach_degc)


def air_kw_per_k(cooling: Cooling) -> float:
    """c rho Phi of (20): heat that the site's air carries per K, kW/K."""
    return _w_per_k(cooling) * cooling.fan_flow_m3_per_s / W_PER_KW


def cooling_power_kw(
    it_kw: Numbers, supply_temp_degc: Numbers, cooling: Cooling, outside_degc: Numbers | None = None
) -> tuple[Numbers, Numbers, Numbers]:
    """(22), (23): cooling load, chiller and tower-fan power, kW >= 0, at an IT power and a supply air.

    A negative cooling load, possible with a strongly negative return approach, counts as none. `outside_degc` as in
    `plant_power_kw`; None: `cooling.wet_bulb_degc`.
    """
    return cooling_curve(supply_temp_degc, cooling, outside_degc)(it_kw)


def cooling_curve(
    supply_temp_degc: Numbers, cooling: Cooling, outside_degc: Numbers | None = None
) -> Callable[[Numbers], tuple[Numbers, Numbers, Numbers]]:
    """`cooling_power_kw` as a function of the IT power alone, for many of them at one supply air."""
    inlet_degc = supply_temp_degc + mean_of_racks(cooling.supply_offset_degc)
    approach_k = mean_of_racks(cooling.return_approach_degc)
    fan_w_per_k = _w_per_k(cooling) * cooling.fan_flow_m3_per_s
    heat_per_kw = W_PER_KW if cooling.outlet_power_unit == "w" else 1.0
    plant = _plant_curve(supply_temp_degc, cooling, cooling.wet_bulb_degc if outside_degc is None else outside_degc)

    def powers_kw(it_kw: float) -> tuple[float, float, float]:
        return_degc = inlet_degc + it_kw * heat_per_kw / fan_w_per_k + approach_k
        load_kw = _at_least(fan_w_per_k * (return_degc - supply_temp_degc), 0.0) / W_PER_KW
        return load_kw, *plant(load_kw, return_degc)
    return powers_kw


def plant_power_kw(
    load_kw: Numbers, return_degc: Numbers, supply_temp_degc: Numbers, cooling: Cooling, outside_degc: Numbers | None
) -> tuple[Numbers, Numbers]:
    """(22), (23): chiller and tower-fan power, kW >= 0, for a heat `load_kw` >= 0 taken from the return air.

    With an outside temperature (wet bulb, or dry bulb of dry coolers) the chiller does what `free_cooling_ratio` leaves
    to it, at the COP of `cop_outside`.
    """
    return _plant_curve(supply_temp_degc, cooling, outside_degc)(load_kw, return_degc)


def _plant_curve(
    supply_temp_degc: Numbers, cooling: Cooling, outside_degc: Numbers | None
) -> Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]:
    """`plant_power_kw` as a function of load and return air alone."""
    cop_here = cop_outside(supply_temp_degc, cooling, outside_degc)
    full_w = _w_per_k(cooling) * cooling.tower_air_rise_degc * cooling.tower_flow_m3_per_s
    heat_per_kw = W_PER_KW if cooling.tower_power_unit == "w" else 1.0
    of_chiller, clamped, ref_kw = cooling.tower_load == "chiller", cooling.tower_clamp, cooling.tower_ref_kw

    def powers_kw(load_kw: float, return_degc: float) -> tuple[float, float]:
        chiller_kw = load_kw / cop_here
        if outside_degc is not None:
            chiller_kw = chiller_kw * (1.0 - free_cooling_ratio(supply_temp_degc, return_degc, cooling, outside_degc))
        rejected_kw = chiller_kw if of_chiller else load_kw + chiller_kw
        flow_ratio = rejected_kw * heat_per_kw / full_w
        if clamped:
            flow_ratio = _at_most(flow_ratio, 1.0)
        return chiller_kw, ref_kw * flow_ratio * flow_ratio * flow_ratio
    return powers_kw


def cop_outside(supply_temp_degc: Numbers, cooling: Cooling, outside_degc: Numbers | None) -> Numbers:
    """COP of (22) at an outside temperature, > 0; (22) itself without one, or without `cooling.cop_outside_degc`.

    The chiller keeps its share of Carnot's COP T_evap / (T_cond - T_evap): the COP at the temperature where (22) holds,
    times the lift there over the lift here; evaporating and condensing lie by two approaches below the supply air and
    above the outside temperature. ASHRAE Handbook, Fundamentals, ch. Thermodynamics and Refrigeration Cycles.
    """
    printed = cop(supply_temp_degc, cooling.cop)
    if cooling.cop_outside_degc is None or outside_degc is None:
        return printed
    between_k = cooling.condenser_approach_k + cooling.evaporator_approach_k - supply_temp_degc
    lift_k = _at_least(outside_degc + between_k, cooling.least_lift_k)
    return printed * _at_least(cooling.cop_outside_degc + between_k, cooling.least_lift_k) / lift_k


def free_cooling_ratio(
    supply_temp_degc: Numbers, return_degc: Numbers, cooling: Cooling, outside_degc: Numbers
) -> Numbers:
    """Share of the cooling load that goes outside without the chiller, 0 to 1.

    A water-side economiser in series with the chiller brings the return air down to the wet bulb (of dry coolers: the
    dry bulb) plus an approach, as far as that is above the supply: (T_ret - T_out - approach) / (T_ret - T_sup);
    EnergyPlus Engineering Reference, "Waterside economizer"; ASHRAE Handbook, HVAC Systems and Equipment, ch. Cooling
    Towers.
    """
    reached_degc = outside_degc + cooling.free_cooling_approach_k
    span_k = return_degc - supply_temp_degc
    if isinstance(span_k, float):
        return min(max((return_degc - reached_degc) / span_k, 0.0), 1.0) if span_k > 0.0 else 0.0
    some = span_k > 0.0
    return np.where(some, np.clip((return_degc - reached_degc) / np.where(some, span_k, 1.0), 0.0, 1.0), 0.0)


def distribution_loss_kw(it_kw: Numbers, cooling: Cooling) -> Numbers:
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
    """(19) to (23): the whole state of the cooling plant at an IT power (kW, >= 0) and a supply temperature."""
    load_kw, chiller_kw, tower_kw = cooling_power_kw(it_kw, supply_temp_degc, cooling)
    outlet_degc, return_degc = air_temperatures_degc(it_kw, supply_temp_degc, cooling)
    inlet_degc = supply_temp_degc + max(per_rack(cooling.supply_offset_degc))
    return CracState(load_kw, chiller_kw, tower_kw, inlet_degc, outlet_degc, return_degc)


def _w_per_k(cooling: Cooling) -> float:
    """c rho: heat that a flow of 1 m3/s of air carries per K, W/K."""
    return cooling.air_heat_capacity_j_per_kg_k * cooling.air_density_kg_per_m3


def _at_least_zero(value: Any) -> Any:
    return _at_least(value, 0.0)


def _at_least(value: Any, least: float) -> Any:
    return max(value, least) if isinstance(value, float) else np.maximum(value, least)


def _at_most(value: Any, most: float) -> Any:
    return min(value, most) if isinstance(value, float) else np.minimum(value, most)
