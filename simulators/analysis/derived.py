"""Recorded figures that follow from other recorded figures and the scenario's parameters, worked out anew.

Of sites: PUE, backlog, heat imbalance, chiller and tower power by (22) and (23), losses, water, missed work. Of grids:
cost, unserved demand, voltage violations, what was realised in the interval that ended.

Rows: E22, E23, U05, U19, M15.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.aidc.equations import (
    cooling_power_kw,
    cop_outside,
    distribution_loss_kw,
    heat_imbalance_kw,
    it_at_inlet_kw,
    water_kg_per_h,
)
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.analysis.balance import ALLOWED_PU, Finding, NothingToCheck
from cosim.simulators.analysis.cooling import coolings, has_inertia, needs_sites
from cosim.simulators.analysis.flows import (
    ALLOWED_KW,
    ALLOWED_RATIO,
    BUS,
    GRID,
    HELD,
    MEMBER,
    carried,
    grid_params,
    held,
    largest,
    links_to,
    needs,
    refuse_replayed,
    source_intensities,
    substation,
    where,
)
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.site_batteries import facility_kw
from cosim.simulators.fleet import JobClass, Site
from cosim.simulators.grid.dispatch.results import NEGLIGIBLE_PU
from cosim.trace import Trace
from cosim.trace.series import scenario_of, step_s
from cosim.units import HOUR_S

RATIO, ALLOWED_USD_PER_H = 1e-9, 1e-9
_PLANT = ("it_kw", "heat_imbalance_kw", "heat_removed_kw", "chiller_kw", "tower_kw", "loss_kw", "water_kg_per_h",
          "free_cooling_ratio", "supply_set_degc", "wet_bulb_degc", "dry_bulb_degc")


# --- sites ----------------------------------------------------------------------------------------------------------


def backlog(trace: Trace) -> float:
    """Backlog = queued + deferred jobs, at the end of every tick."""
    needs_sites(trace, "backlog_jobs", "queued_jobs", "deferred_jobs")
    return largest(trace[f"{SITE}/backlog_jobs"] - trace[f"{SITE}/queued_jobs"] - trace[f"{SITE}/deferred_jobs"])


def site_ratios(trace: Trace) -> Finding:
    """PUE = power / IT power; shares are within 0 and 1, GPUs that are up within 0 and those of the site."""
    needs_sites(trace, "pue", "p_kw", "it_kw", "free_gpu_ratio", "up_gpus", "free_cooling_ratio")
    it_kw = trace[f"{SITE}/it_kw"]
    on = it_kw > 0.0
    pue = trace[f"{SITE}/pue"]
    gpus = np.array([site.gpus for site in _sites(trace)])
    off = {"pue": np.where(on, pue - facility_kw(trace) / np.where(on, it_kw, 1.0), pue - 1.0) / np.maximum(pue, 1)}
    for name, values in (("free_gpu_ratio", trace[f"{SITE}/free_gpu_ratio"]),
                         ("free_cooling_ratio", trace[f"{SITE}/free_cooling_ratio"]),
                         ("up_gpus", trace[f"{SITE}/up_gpus"] / gpus)):
        off[name] = np.maximum(np.maximum(-values, values - 1.0), 0.0)
    return _worst(trace, off, RATIO)


def missed_work(trace: Trace, jobs: Mapping[str, np.ndarray], minutes: int) -> float:
    """Work done of jobs that were dropped, of the minutes and of the rows; relative."""
    needs_sites(trace, "missed_work_to")
    done = jobs["done_to"][jobs["outcome"] == "dropped"].sum()
    return abs(trace[f"{SITE}/missed_work_to"][:minutes].sum() - done) / max(done, 1.0)


def plant(trace: Trace) -> Finding:
    """Heat imbalance and water; chiller power = heat removed, less what left without it, / COP (22); relative. Tower
    power and losses, which bend over the IT power of a tick, within what their mean can be by (23)."""
    needs_sites(trace, *_PLANT)
    off: dict[str, np.ndarray] = {}
    columns = zip(trace.names(SITE), coolings(trace), _sites(trace), strict=True)
    for k, (name, cooling, site) in enumerate(columns):
        at = {p: trace[f"{SITE}/{p}"][:, k] for p in _PLANT}
        for what, deviation in _plant_of(at, cooling, site, _highest_kw(trace, site), has_inertia(trace)):
            off[f"{name}, {what}"] = deviation[:, None]
    left_out = ("tower power and losses inside a tick: they lie between what (23) and the loss curve give for a power "
                "that stands still and for one that jumps",)
    if has_inertia(trace):
        left_out = ("chiller and tower power of rooms with inertia, whose temperature changes inside a tick",)
    return _worst(trace, off, RATIO, left_out)


def _plant_of(at: Mapping[str, np.ndarray], cooling: Cooling, site: Site, highest_kw: float, inertia: bool
              ) -> Iterator[tuple[str, np.ndarray]]:
    """(port, deviation of each tick over its size) of one site."""
    it_kw, set_degc, removed, chiller = (at[p] for p in ("it_kw", "supply_set_degc", "heat_removed_kw", "chiller_kw"))
    imbalance = heat_imbalance_kw(it_kw, set_degc, cooling)
    yield "heat_imbalance_kw", (at["heat_imbalance_kw"] - imbalance) / np.maximum(it_kw, 1.0)
    water = water_kg_per_h(removed + chiller) if cooling.heat_rejection == "tower" else np.zeros_like(removed)
    yield "water_kg_per_h", (at["water_kg_per_h"] - water) / np.maximum(water, 1.0)
    low, high = (it_at_inlet_kw(kw, set_degc, cooling) for kw in (site.least_kw, highest_kw))
    if not inertia:
        outside = _outside_degc(at, cooling)
        least_kw = cooling_power_kw(low, set_degc, cooling, outside)[0]
        by_cop = removed * (1.0 - at["free_cooling_ratio"]) / cop_outside(set_degc, cooling, outside)
        if outside is None:
            by_cop = removed / cop_outside(set_degc, cooling, None)
        yield "chiller_kw", np.where(least_kw > 0.0, chiller - by_cop, 0.0) / np.maximum(by_cop, 1.0)
        yield "tower_kw", _outside_of(at["tower_kw"], *_tower_bounds_kw(removed, chiller, low, high, set_degc, cooling,
                                                                        outside))
        span = np.where(high > low, high - low, 1.0)
        ends = [distribution_loss_kw(kw, cooling) for kw in (low, high)]
        chord = ends[0] + (ends[1] - ends[0]) * (it_kw - low) / span
        yield "loss_kw", _outside_of(at["loss_kw"], distribution_loss_kw(it_kw, cooling), chord)


def _tower_bounds_kw(removed: np.ndarray, chiller: np.ndarray, low_kw: np.ndarray, high_kw: np.ndarray,
                     supply_degc: np.ndarray, cooling: Cooling, outside: np.ndarray | None
                     ) -> tuple[np.ndarray, np.ndarray]:
    """Least and most that the mean of P_REF min(r, 1)^3 (23) can be over a tick of which only the mean of the flow
    ratio r is known, by Jensen: r stays between its values at the lowest and the highest IT power."""
    per_kw = (1000.0 if cooling.tower_power_unit == "w" else 1.0) / (
        cooling.air_heat_capacity_j_per_kg_k * cooling.air_density_kg_per_m3 * cooling.tower_air_rise_degc
        * cooling.tower_flow_m3_per_s)

    def ratio(load: np.ndarray, chilled: np.ndarray) -> np.ndarray:
        return (chilled if cooling.tower_load == "chiller" else load + chilled) * per_kw

    r = ratio(removed, chiller)
    least, most = (ratio(*cooling_power_kw(kw, supply_degc, cooling, outside)[:2]) for kw in (low_kw, high_kw))
    least, most = np.minimum(least, r), np.maximum(most, r)
    if not cooling.tower_clamp:
        below, top = r**3, most
    else:
        top = np.minimum(most, 1.0)
        below = np.where(least >= 1.0, 1.0, np.where(most <= 1.0, r, r / np.maximum(most, 1.0)) ** 3)
    chord = least**3 + (top**3 - least**3) * (r - least) / np.where(top > least, top - least, 1.0)
    above = np.where(r >= top, top**3, chord)
    return cooling.tower_ref_kw * below, cooling.tower_ref_kw * above


def _outside_of(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far values are outside of two bounds, over the upper one."""
    return np.maximum(np.maximum(low - value, value - high), 0.0) / np.maximum(np.abs(high), 1.0)


def _outside_degc(at: Mapping[str, np.ndarray], cooling: Cooling) -> np.ndarray | None:
    """Outside temperature of each tick that limits the plant; None where the plant has none."""
    bulb = at["dry_bulb_degc" if cooling.heat_rejection == "dry" else "wet_bulb_degc"]
    if np.isnan(bulb).all():
        return None if cooling.wet_bulb_degc is None else np.full_like(bulb, cooling.wet_bulb_degc)
    return bulb


def _highest_kw(trace: Trace, site: Site) -> float:
    """IT power, before what warm inlets add, of a site all of whose GPUs work on the class that draws most."""
    classes = [JobClass(**c) for c in scenario_of(trace)["shared"]["job_classes"].values()]
    return site.most_kw(classes)


def _sites(trace: Trace) -> list[Site]:
    shared = scenario_of(trace)["shared"]
    return [Site(**shared["sites"][name]) for name in trace.names(SITE)]


def _worst(trace: Trace, off: Mapping[str, np.ndarray], allowed: float, left_out: tuple[str, ...] = (),
           model: str = SITE) -> Finding:
    """The largest of deviations (time, entity) by what they are of."""
    what = max(off, key=lambda name: largest(off[name]))
    return Finding(largest(off[what]), allowed, f"{what} {where(trace.time_s(model), np.abs(off[what]))}", left_out)


# --- grids ----------------------------------------------------------------------------------------------------------


def cost(trace: Trace) -> Finding:
    """Cost of the sources' energy: price x power + quadratic cost x power^2; the substation's price is the tariff's
    where one is linked. USD/h."""
    needs(trace, "cost_usd_per_h", "p_source_kw")
    refuse_replayed(trace)
    given = grid_params(trace).get("sources") or {}
    names, times, power = trace.names(GRID, "source"), trace.time_s(GRID), trace[f"{GRID}/p_source_kw"][:, 0]
    square, known = np.array([given.get(n, {}).get("usd_per_kw2h") or 0.0 for n in names]), ~held(trace)
    if trace.has(f"{GRID}/source_usd_per_kwh"):
        prices = trace[f"{GRID}/source_usd_per_kwh"][:, 0].copy()
    else:
        prices = np.tile([given.get(n, {}).get("usd_per_kwh") or 0.0 for n in names], (len(times), 1))
    for link in links_to(trace, MEMBER):
        if link.target.port == "price_usd_per_kwh":
            column, there = carried(trace, link, times)
            known &= there
            k = substation(trace)
            prices[:, k] = np.where(np.isnan(column), prices[:, k], column)
    if not known.any():
        raise TraceError("no interval whose price is in the trace")
    by_hand = (prices * power).sum(axis=1) + power**2 @ square
    off = np.where(known, np.abs(by_hand - trace[f"{GRID}/cost_usd_per_h"][:, 0]), 0.0)
    left_out = () if known.all() else (f"cost of {int((~known).sum())} of {len(times)} intervals, which repeat the one "
                                       "before or whose price is not in the trace",)
    return Finding(largest(off), ALLOWED_USD_PER_H + ALLOWED_RATIO * largest(prices * power), where(times, off),
                   left_out)


def unserved(trace: Trace) -> Finding:
    """Unserved demand = that of the buses; status 1 exactly where some is unserved, a voltage is outside or a branch
    above its limit."""
    needs(trace, "unserved_kw", "unserved_bus_kw")
    refuse_replayed(trace)
    total, buses = trace[f"{GRID}/unserved_kw"], trace[f"{GRID}/unserved_bus_kw"][:, 0]
    off = {"unserved_kw": np.abs(total - buses.sum(axis=1, keepdims=True))}
    if trace.has(f"{GRID}/status") and trace.has(f"{GRID}/voltage_violation_pu"):
        elastic = (buses != 0.0).any(axis=1) | (trace[f"{GRID}/voltage_violation_pu"][:, 0] > 0.0)
        if trace.has(f"{GRID}/overload_ratio"):
            elastic |= trace[f"{GRID}/overload_ratio"][:, 0] > 0.0
        status = trace[f"{GRID}/status"][:, 0]
        off["status"] = np.where(status == HELD, 0.0, np.abs(status - elastic))[:, None]
    return _worst(trace, off, ALLOWED_KW, model=GRID)


def violations(trace: Trace) -> Finding:
    """Largest distance of a voltage outside its limits, from the extremes and the limits, p.u.; per bus where the grid
    exports it, but for the substation, which holds its voltage."""
    needs(trace, "voltage_violation_pu", "vm_min_pu", "vm_max_pu")
    refuse_replayed(trace)
    given = grid_params(trace)
    if "vm_min_pu" not in given or "vm_max_pu" not in given:
        raise TraceError("the scenario gives no vm_min_pu and vm_max_pu of the grid")
    limits, left_out = (float(given["vm_min_pu"]), float(given["vm_max_pu"])), []
    off: dict[str, np.ndarray] = {}
    buses = trace.has(f"{GRID}/voltage_slack_bus_pu")  # a dispatch: it leaves the substation out, and noise
    for of in ("", "_realised"):
        ports = [f"{GRID}/{p}" for p in (f"voltage_violation{of}_pu", f"vm_min{of}_pu", f"vm_max{of}_pu")]
        if not all(map(trace.has, ports)):
            continue
        said, low, high = (trace[p] for p in ports)
        by_hand = np.maximum(np.maximum(limits[0] - low, high - limits[1]), 0.0)
        by_hand = np.where(by_hand <= NEGLIGIBLE_PU, 0.0, by_hand) if buses else by_hand
        if buses and not limits[0] - ALLOWED_PU <= (v0 := _v0_pu(trace, low, high)) <= limits[1] + ALLOWED_PU:
            left_out.append(f"violations of voltage{of}: the substation's own {v0:.4g} p.u. is outside the limits")
            continue
        both = np.isnan(said) & np.isnan(by_hand)
        off[f"voltage_violation{of}_pu"] = np.where(both, 0.0, np.abs(said - by_hand))
    if buses:
        off |= dict(_slacks(trace, limits))
    if not off:
        raise TraceError("; ".join(left_out))
    return _worst(trace, off, ALLOWED_PU, tuple(left_out), GRID)


def _slacks(trace: Trace, limits: tuple[float, float]) -> Iterator[tuple[str, np.ndarray]]:
    """Distance outside the limits of every bus whose voltage is recorded, and the largest of all."""
    slack, names = trace[f"{GRID}/voltage_slack_bus_pu"][:, 0], trace.names(GRID, "bus")
    said = trace[f"{GRID}/voltage_violation_pu"]
    yield "voltage_slack_bus_pu", np.abs(np.abs(slack).max(axis=1, keepdims=True) - said)
    if not trace.has(f"{BUS}/vm_pu"):
        return
    bus_of, substation = _bus_of(trace), _substation_bus(trace)
    for k, entity in enumerate(trace.names(BUS)):
        if (bus := bus_of.get(entity)) in names and bus != substation:
            vm = trace[f"{BUS}/vm_pu"][: len(slack), k]
            by_hand = np.maximum(vm - limits[1], 0.0) - np.maximum(limits[0] - vm, 0.0)
            by_hand = np.where(np.abs(by_hand) <= NEGLIGIBLE_PU, 0.0, by_hand)
            yield f"voltage_slack_bus_pu of {bus}", np.abs(slack[:, names.index(bus)] - by_hand)[:, None]


def _v0_pu(trace: Trace, low: np.ndarray, high: np.ndarray) -> float:
    """The substation's voltage: as the scenario gives it, else as its bus was recorded, else 1."""
    if (given := grid_params(trace).get("v0_pu")) is not None:
        return float(given)
    bus_of, substation = _bus_of(trace), _substation_bus(trace)
    at = [k for k, entity in enumerate(trace.names(BUS)) if bus_of.get(entity) == substation]
    return float(trace[f"{BUS}/vm_pu"][0, at[0]]) if at and trace.has(f"{BUS}/vm_pu") else 1.0


def realised(trace: Trace) -> Finding:
    """What was realised in the interval that ended: imbalance = the substation's energy beyond its set point; emission
    = what each source gave, the substation as it came, at its intensity."""
    needs(trace, "imbalance_kwh", "p_substation_realised_kw", "emission_realised_kg_per_h", "p_source_kw")
    refuse_replayed(trace)
    k, power = substation(trace), trace[f"{GRID}/p_source_kw"][:-1, 0]
    came = trace[f"{GRID}/p_substation_realised_kw"][1:, 0]
    if not np.isfinite(came).any():
        raise NothingToCheck("nothing was settled")
    energy = (came - power[:, k]) * step_s(trace, MEMBER) / HOUR_S
    gave = power.copy()
    gave[:, k] = came
    emitted = (np.maximum(gave, 0.0) * source_intensities(trace)[:-1]).sum(axis=1)
    off = {}
    for name, by_hand in (("imbalance_kwh", energy), ("emission_realised_kg_per_h", emitted)):
        said = trace[f"{GRID}/{name}"][1:, 0]
        off[name] = np.where(np.isnan(said) & np.isnan(by_hand), 0.0, np.abs(said - by_hand))[:, None]
    return _worst(trace, off, ALLOWED_KW + ALLOWED_RATIO * largest(power), (
        "losses and voltages that were realised, which need the demand of each bus in the interval that ended",), GRID)


def _bus_of(trace: Trace) -> dict[str, str]:
    """Bus entity -> bus, from the grid's outputs."""
    return dict(zip(*(trace.table(f"{MEMBER}.buses").get(c, ()) for c in ("entity", "bus")), strict=True))


def _substation_bus(trace: Trace) -> str:
    return trace.table(f"{MEMBER}.sources")["bus"][substation(trace)]
