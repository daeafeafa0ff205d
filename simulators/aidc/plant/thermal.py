"""What a site's IT power makes of its air: the plant in balance at any instant, or a room that takes time to warm.

static       the air is at every instant where it would settle, (19)-(23)
first_order  one thermal mass C, at the temperature T of the return air, between servers and plant:

                 C dT/dt = S - Q      S = c rho Phi (T_static - T_sup): P_IT, with parameters that balance
                                      Q = c rho Phi (T - T_set), not below 0, not above the plant's capacity

S is what servers give off, leakage and fans included, and T_static the return air of (21). The supply air is
T - Q / (c rho Phi): the set point while the plant can keep it, warmer when it is at its capacity, and what returns when
it has nothing to do. Racks follow it at once, (19): the air before them is changed in seconds. Between two events power
stands and the course of T is known: an exponential of time constant C / (c rho Phi) towards T_static, or a straight
line at either limit; nothing is stepped. Power that depends on the inlet follows the supply air at the start of the
tick, as fans and chips need about a minute. At rest it is the static plant. Lumped capacity: F. P. Incropera, D. P.
DeWitt, Fundamentals of Heat and Mass Transfer, ch. 5.

The default C of 8000 kJ/K is that of 50 servers of 130 kg and 50 racks of 150 kg at 0.5 kJ/(kg K), and 1000 m3 of air;
with the default airflow the time constant is 302 s.

An inlet above its limit is an alarm. One that reaches `inlet_trip_degc` (45 degC, the warmest of ASHRAE TC 9.9, Thermal
Guidelines for Data Processing Environments, class A4) makes the site shed its load: no GPUs are granted until
all inlets are within their limits again; inference that runs is finished, training keeps its progress.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cosim.errors import ScenarioError
from cosim.simulators.aidc.engine.interval import Segment, SiteInterval
from cosim.simulators.aidc.equations import (
    W_PER_KW,
    air_kw_per_k,
    air_temperatures_degc,
    cooling_curve,
    cooling_power_kw,
    cop_outside,
    distribution_loss_kw,
    heat_imbalance_kw,
    inlet_factor,
    it_at_inlet_kw,
    plant_power_kw,
    water_kg_per_h,
)
from cosim.simulators.aidc.plant.ambient import OutdoorAir
from cosim.simulators.aidc.plant.cooling import Cooling, mean_of_racks, per_rack, supply_limits_degc

Thermal = Literal["static", "first_order"]
Alarm = tuple[float, float, float]
"""From when to when an inlet was above its limit, s, and the warmest supply air in between, degC."""

_SLACK_K = 1e-6
"""By which an inlet may pass its limit without an alarm: the limit itself is allowed, and rounding."""
_SLACK_S = 1e-6
"""Of times that are sums of lengths."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


@dataclass(frozen=True, slots=True)
class HeatBalance:
    """Power and air of a site over a tick; powers are means, kW >= 0, drawn.

    heat_removed_kw     what the plant took out of the air; free_ratio of it without the chiller
    supply_degc         supply air, and with it outlet and return (means over the racks), at the end of the tick; of the
                        static plant at the mean IT power
    inlet_degc          of the hottest rack, the highest in the tick
    imbalance_kw        heat by (19)-(21) beyond that of IT, see `heat_imbalance_kw`
    alarms              times of the tick at which an inlet was above its limit, in order
    segments            power over the tick between events; () if not requested
    """

    it_kw: float
    chiller_kw: float
    tower_kw: float
    loss_kw: float
    heat_removed_kw: float
    free_ratio: float
    water_kg_per_h: float
    supply_degc: float
    inlet_degc: float
    outlet_degc: float
    return_degc: float
    imbalance_kw: float
    alarms: tuple[Alarm, ...] = ()
    segments: Sequence[Segment] | np.ndarray = ()


class StaticPlant:
    """A plant in balance at any instant. `weathered`: the outside temperature changes from tick to tick, so that the
    facility does not have it and power is worked out from the segments of its IT power."""

    tripped = False
    """Whether the site sheds its load; never, as inlets are within their limits."""

    def __init__(self, cooling: Cooling, weathered: bool) -> None:
        self.cooling, self._weathered = cooling, weathered
        self._warmest_k = max(per_rack(cooling.supply_offset_degc))
        self._curve_degc, self._curve = math.nan, cooling_curve(supply_limits_degc(cooling)[0], cooling)

    @property
    def metered(self) -> bool:
        """Whether a tick draws the powers of the facility's interval and changes no state."""
        return not self._weathered

    def rest(self, it_kw: float, set_degc: float, outside: OutdoorAir) -> HeatBalance:
        """The site as it stands for ever at one IT power."""
        cooling = self.cooling
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, set_degc, cooling, self._degc(outside))
        return self._heat(it_kw, chiller_kw, tower_kw, distribution_loss_kw(it_kw, cooling), set_degc, outside, ())

    def tick(self, did: SiteInterval, end_s: float, set_degc: float, outside: OutdoorAir) -> HeatBalance:
        """A tick that ends at `end_s`, at a set point and outside temperatures that stood over it."""
        if not self._weathered:
            return self._heat(did.it_kw, did.chiller_kw, did.tower_kw, did.loss_kw, set_degc, outside, did.segments)
        table = _segments_of(did, end_s)
        it_kw = table[:, 2]
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, set_degc, self.cooling, self._degc(outside))
        kw = np.column_stack([it_kw, chiller_kw, tower_kw, distribution_loss_kw(it_kw, self.cooling)])
        it, chiller, tower, loss = ((table[:, 1] - table[:, 0]) @ kw / did.seconds).tolist()
        return self._heat(it, chiller, tower, loss, set_degc, outside, np.hstack([table[:, :2], kw]))

    def _heat(self, it_kw: float, chiller_kw: float, tower_kw: float, loss_kw: float, set_degc: float,
              outside: OutdoorAir, segments: Sequence[Segment] | np.ndarray) -> HeatBalance:
        """`load_kw` is linear in the IT power, so that its mean is that at the mean."""
        cooling = self.cooling
        if set_degc != self._curve_degc:  # it changes less often than the IT power
            self._curve_degc, self._curve = set_degc, cooling_curve(set_degc, cooling)
        load_kw = self._curve(it_kw)[0]
        outlet_degc, return_degc = air_temperatures_degc(it_kw, set_degc, cooling)
        chilled_kw = chiller_kw * cop_outside(set_degc, cooling, self._degc(outside))
        return HeatBalance(it_kw, chiller_kw, tower_kw, loss_kw, load_kw, _free_ratio(load_kw, chilled_kw),
                    _water(load_kw + chiller_kw, cooling), set_degc,
                    set_degc + self._warmest_k, outlet_degc, return_degc, load_kw - it_kw, segments=segments)

    def _degc(self, outside: OutdoorAir) -> float | None:
        return outside_degc(self.cooling, outside)


@dataclass(slots=True)
class _Course:
    """Pieces of the course of T, each under one law: begin within the tick and length, s; T at its begin; S and P_IT,
    kW; and the limit that holds: -1 nothing to cool, 0 none, 1 at capacity."""

    begin_s: list[float] = field(default_factory=list)
    length_s: list[float] = field(default_factory=list)
    from_degc: list[float] = field(default_factory=list)
    source_kw: list[float] = field(default_factory=list)
    it_kw: list[float] = field(default_factory=list)
    limit: list[int] = field(default_factory=list)

    def add(self, begin_s: float, length_s: float, from_degc: float, source_kw: float, it_kw: float,
            limit: int) -> None:
        """One more piece."""
        self.begin_s.append(begin_s)
        self.length_s.append(length_s)
        self.from_degc.append(from_degc)
        self.source_kw.append(source_kw)
        self.it_kw.append(it_kw)
        self.limit.append(limit)


class Room(StaticPlant):
    """One thermal mass. `return_degc` is its temperature T, its only state besides `tripped`.

    idle_kw: least IT power. ScenarioError where its heat is less than nothing, or more than the capacity with the
    hottest inlets that there can be: a site that has shed its load must cool down.
    """

    def __init__(self, cooling: Cooling, idle_kw: float, set_degc: float, where: str) -> None:
        super().__init__(cooling, True)
        self._kw_per_k = air_kw_per_k(cooling)
        self._tau_s = cooling.heat_capacity_kj_per_k / self._kw_per_k
        self._capacity_kw = math.inf if cooling.capacity_kw is None else cooling.capacity_kw
        self._limit_degc = supply_limits_degc(cooling)[1]
        self._offset_k = max(per_rack(cooling.supply_offset_degc))
        self._approach_k = mean_of_racks(cooling.return_approach_degc)
        least_kw = self._source_kw(it_at_inlet_kw(idle_kw, set_degc, cooling))
        if least_kw < 0.0:
            raise ScenarioError(f"{where}: by its rack offsets the plant removes {-least_kw:.4g} kW less than nothing "
                                "at idle power; thermal=first_order needs offsets that balance")
        hot_kw = self._source_kw(it_at_inlet_kw(idle_kw, cooling.inlet_trip_degc, cooling))
        if hot_kw > self._capacity_kw:
            raise ScenarioError(f"{where}.capacity_kw = {self._capacity_kw:g} is less than the {hot_kw:.4g} kW of heat "
                                f"that an idle site gives off at {cooling.inlet_trip_degc:g} degC; raise it above that")
        self.tripped = False
        self.return_degc = self.rest(it_at_inlet_kw(idle_kw, set_degc, cooling), set_degc, OutdoorAir()).return_degc

    def tick(self, did: SiteInterval, end_s: float, set_degc: float, outside: OutdoorAir) -> HeatBalance:
        """As of the static plant; the room goes on to the end of the tick."""
        out_degc = self._degc(outside)
        segments, tick_s = _segments_of(did, end_s), end_s - did.seconds
        segments[:, :2] -= tick_s  # in whole ticks of the clock, so exact: what follows does not depend on the date
        course = self._run(segments, self._inlet_change(set_degc), set_degc, out_degc)
        kw, removed_kw, chilled_kw = self._powers(course, set_degc, out_degc)
        begin_s, length_s = tick_s + np.array(course.begin_s), np.array(course.length_s)
        means = (length_s @ np.column_stack([kw, removed_kw, chilled_kw]) / did.seconds).tolist()
        it_kw, chiller_kw, tower_kw, loss_kw, load_kw, by_chiller_kw = means
        supply_degc = self._supply_degc(self.return_degc, set_degc)
        warmest_degc = self._supply_degc(max(*course.from_degc, self.return_degc), set_degc)
        self.tripped = (supply_degc > self._limit_degc + _SLACK_K if self.tripped else
                        warmest_degc + self._offset_k >= self.cooling.inlet_trip_degc)
        return HeatBalance(
            it_kw, chiller_kw, tower_kw, loss_kw, load_kw, _free_ratio(load_kw, by_chiller_kw),
            _water(load_kw + chiller_kw, self.cooling), supply_degc, warmest_degc + self._offset_k,
            self.return_degc - self._approach_k, self.return_degc,
            heat_imbalance_kw(it_kw, set_degc, self.cooling),
            tuple((tick_s + begin, tick_s + end, degc) for begin, end, degc in self._alarms(course, set_degc)),
            np.column_stack([begin_s, begin_s + length_s, kw]))

    # --- the course of T ----------------------------------------------------------------------------------------

    def _source_kw(self, it_kw: float) -> float:
        return self._kw_per_k * air_temperatures_degc(it_kw, 0.0, self.cooling)[1]

    def _supply_degc(self, degc: float, set_degc: float) -> float:
        """Supply air at a temperature T of the room."""
        return min(degc, max(set_degc, degc - self._capacity_kw / self._kw_per_k))

    def _inlet_change(self, set_degc: float) -> float:
        """Factor on IT power, which the facility worked out at the set point."""
        supply_degc = self._supply_degc(self.return_degc, set_degc)
        if supply_degc == set_degc:
            return 1.0
        return inlet_factor(supply_degc, self.cooling) / inlet_factor(set_degc, self.cooling)

    def _run(self, segments: np.ndarray, factor: float, set_degc: float, out_degc: float | None) -> _Course:
        """T through the segments, cut where it changes its law."""
        course, levels = _Course(), self._levels(set_degc, out_degc)
        for begin_s, end_s, it_kw in segments[:, :3].tolist():
            it_kw *= factor
            source_kw, now_s = self._source_kw(it_kw), begin_s
            while now_s < end_s:
                limit = self._limit_at(self.return_degc, source_kw, set_degc)
                length_s, degc = self._piece(limit, source_kw, set_degc, levels, end_s - now_s)
                if degc is None or now_s + length_s >= end_s:
                    length_s = end_s - now_s
                    degc = self._after(limit, source_kw, set_degc, length_s)
                if now_s + length_s > now_s:
                    course.add(now_s, length_s, self.return_degc, source_kw, it_kw, limit)
                now_s, self.return_degc = now_s + length_s, degc
        return course

    def _limit_at(self, degc: float, source_kw: float, set_degc: float) -> int:
        """Which law holds from T on."""
        if degc < set_degc:
            return -1
        full_degc = set_degc + self._capacity_kw / self._kw_per_k
        if degc > full_degc or (degc == full_degc and source_kw > self._capacity_kw):
            return 1
        return 0

    def _slope(self, limit: int, source_kw: float) -> float:
        """K/s on a straight line."""
        return (source_kw - (self._capacity_kw if limit > 0 else 0.0)) / self.cooling.heat_capacity_kj_per_k

    def _after(self, limit: int, source_kw: float, set_degc: float, length_s: float) -> float:
        """T after a time under one law."""
        if limit:
            return self.return_degc + self._slope(limit, source_kw) * length_s
        end_degc = set_degc + source_kw / self._kw_per_k
        return end_degc + (self.return_degc - end_degc) * math.exp(-length_s / self._tau_s)

    def _piece(self, limit: int, source_kw: float, set_degc: float, levels: Sequence[float],
               length_s: float) -> tuple[float, float | None]:
        """Time until T passes the next level on its way, and that level; (inf, None) if it does not within the time."""
        now_degc, end_degc = self.return_degc, self._after(limit, source_kw, set_degc, length_s)
        between = [v for v in levels if min(now_degc, end_degc) < v < max(now_degc, end_degc)]
        if not between:
            return math.inf, None
        level = min(between, key=lambda v: abs(v - now_degc))
        if limit:
            return (level - now_degc) / self._slope(limit, source_kw), level
        settled_degc = set_degc + source_kw / self._kw_per_k
        return self._tau_s * math.log((now_degc - settled_degc) / (level - settled_degc)), level

    def _levels(self, set_degc: float, out_degc: float | None) -> list[float]:
        """Temperatures T at which a law changes: that of T, of free cooling, of the tower's fans at their limit."""
        cooling, per_k = self.cooling, self._kw_per_k
        full_k = self._capacity_kw / per_k
        levels = [set_degc, set_degc + full_k, self._limit_degc + full_k]
        chilled_k = math.inf
        if out_degc is not None:
            reached_degc = out_degc + cooling.free_cooling_approach_k
            chilled_k = max(reached_degc - set_degc, 0.0)
            levels += [reached_degc, reached_degc + full_k]
        if cooling.tower_clamp:
            share = cop_outside(set_degc, cooling, out_degc)
            most_k = (W_PER_KW if cooling.tower_power_unit == "kw" else 1.0) * (
                cooling.tower_air_rise_degc * cooling.tower_flow_m3_per_s / cooling.fan_flow_m3_per_s)
            if cooling.tower_load == "chiller":
                levels.append(set_degc + most_k * share)
            else:
                under_k = most_k / (1.0 + 1.0 / share)
                levels.append(set_degc + (under_k if under_k <= chilled_k else most_k - chilled_k / share))
        return sorted(level for level in levels if level < math.inf)

    # --- what it draws ------------------------------------------------------------------------------------------

    def _powers(self, course: _Course, set_degc: float,
                out_degc: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means over the pieces, (n, 4) of IT, chiller, tower and losses, and (n,) of the heat removed and of that by
        the chiller, kW. Heat is exact; power is integrated by Gauss-Legendre in each piece, whose law is smooth."""
        length_s, limit = np.array(course.length_s), np.array(course.limit)
        it_kw, source_kw = np.array(course.it_kw), np.array(course.source_kw)
        cuts = np.maximum(np.ceil(length_s / self._tau_s), 1.0).max() if (limit == 0).any() else 1.0
        cut_ratio = (np.arange(cuts)[:, None] + 0.5 * (_NODES + 1.0)).ravel() / cuts
        weights = np.tile(0.5 * _WEIGHTS / cuts, int(cuts))
        time_s = length_s[:, None] * cut_ratio
        from_degc = np.array(course.from_degc)
        settled_degc = set_degc + source_kw / self._kw_per_k
        above_k = from_degc - settled_degc
        degc = np.where((limit == 0)[:, None], settled_degc[:, None] + above_k[:, None] * np.exp(-time_s / self._tau_s),
                        from_degc[:, None] + self._slopes(limit, source_kw)[:, None] * time_s)
        supply_degc = np.minimum(degc, np.maximum(set_degc, degc - self._capacity_kw / self._kw_per_k))
        load_kw = self._kw_per_k * (degc - supply_degc)
        chiller_kw, tower_kw = plant_power_kw(load_kw, degc, supply_degc, self.cooling, out_degc)
        chilled_kw = chiller_kw * cop_outside(supply_degc, self.cooling, out_degc)
        gone = -np.expm1(-length_s / self._tau_s) * self._tau_s / length_s
        removed_kw = np.select([limit == 0, limit > 0], [source_kw + self._kw_per_k * above_k * gone,
                                                         np.full(len(limit), self._capacity_kw)], 0.0)
        kw = np.column_stack([it_kw, chiller_kw @ weights, tower_kw @ weights,
                              distribution_loss_kw(it_kw, self.cooling)])
        return kw, removed_kw, chilled_kw @ weights

    def _slopes(self, limit: np.ndarray, source_kw: np.ndarray) -> np.ndarray:
        """K/s of straight lines; 0 for exponentials."""
        most_kw = np.where(limit > 0, self._capacity_kw, 0.0)
        return np.where(limit == 0, 0.0, source_kw - most_kw) / self.cooling.heat_capacity_kj_per_k

    def _alarms(self, course: _Course, set_degc: float) -> list[Alarm]:
        """Times above the limit; the course is cut where it is passed."""
        alarms: list[Alarm] = []
        ends_degc = [*course.from_degc[1:], self.return_degc]
        for begin_s, length_s, from_degc, to_degc in zip(course.begin_s, course.length_s, course.from_degc, ends_degc,
                                                         strict=True):
            warmest_degc = self._supply_degc(max(from_degc, to_degc), set_degc)
            if warmest_degc <= self._limit_degc + _SLACK_K:
                continue
            if alarms and alarms[-1][1] >= begin_s - _SLACK_S:
                begin_s, length_s = alarms[-1][0], length_s + begin_s - alarms[-1][0]
                warmest_degc = max(warmest_degc, alarms.pop()[2])
            alarms.append((begin_s, begin_s + length_s, warmest_degc))
        return alarms


def outside_degc(cooling: Cooling, outside: OutdoorAir) -> float | None:
    """The temperature that limits the plant's way to the outside; `cooling.wet_bulb_degc` where no weather is known."""
    degc = outside.dry_bulb_degc if cooling.heat_rejection == "dry" else outside.wet_bulb_degc
    return cooling.wet_bulb_degc if math.isnan(degc) else degc


def _segments_of(did: SiteInterval, end_s: float) -> np.ndarray:
    """Segments as an array (n, 5 or 6); one for all of the tick from a model of a site that has no events inside."""
    whole = (end_s - did.seconds, end_s, did.it_kw, did.chiller_kw, did.tower_kw, did.loss_kw)
    return np.array(did.segments or (whole,))


def _free_ratio(load_kw: float, chilled_kw: float) -> float:
    return min(max(1.0 - chilled_kw / load_kw, 0.0), 1.0) if load_kw > 0.0 else 0.0


def _water(heat_kw: float, cooling: Cooling) -> float:
    return water_kg_per_h(heat_kw) if cooling.heat_rejection == "tower" else 0.0
