"""The cooling plants of a run from its trace: their parameters, the air that servers got, what cooling took.

Rows: K06, X02.
"""

from __future__ import annotations

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.simulators.aidc.equations import air_kw_per_k, air_temperatures_degc, it_at_inlet_kw
from cosim.simulators.aidc.plant.cooling import PRESETS, Cooling, supply_limits_degc
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.fleet import Site
from cosim.trace import Trace
from cosim.trace.series import counted, recording_of, scenario_of
from cosim.units import KG_PER_T, KW_PER_MW, MIN_S


def needs_sites(trace: Trace, *ports: str, simulated: bool = True) -> None:
    """TraceError, with the reason, for a trace without minutes of the sites or without one of their ports; `simulated`:
    also for recorded sites, of which it has neither the plants nor what was inside when the recording begins."""
    if SITE not in trace.models():
        raise TraceError(f"no {SITE} in the trace")
    if simulated and (path := recording_of(trace, SITE.split("/")[0])) is not None:
        raise TraceError(f"the data centers are a recording, with jobs and plants of {path}: verify that")
    missing = [port for port in ports if not trace.has(f"{SITE}/{port}")]
    if missing:
        raise TraceError(f"no {SITE}/{missing[0]} in the trace")
    if not len(trace.time_s(SITE)):
        raise TraceError("no minute of the sites is in the trace")


def coolings(trace: Trace) -> list[Cooling]:
    """The plant of each site, as the scenario has it."""
    given = _params(trace)
    plants = {**dict.fromkeys(trace.names(SITE), given.get("cooling")), **given.get("site_cooling", {})}
    return [_cooling(plants[name]) for name in trace.names(SITE)]


def has_inertia(trace: Trace) -> bool:
    """Whether rooms took time to warm (thermal = first_order)."""
    return _params(trace).get("thermal") == "first_order"


def room_degc(trace: Trace) -> np.ndarray:
    """Temperature of the rooms at the begin and at each tick's end, (time + 1, site), of a run with inertia."""
    shared = scenario_of(trace)["shared"]
    given_degc = _params(trace).get("initial_supply_temp_degc", 23.0)
    begin = []
    for name, cooling in zip(trace.names(SITE), coolings(trace), strict=True):
        low, high = supply_limits_degc(cooling)
        set_degc = min(max(given_degc, low), high)
        idle_kw = it_at_inlet_kw(Site(**shared["sites"][name]).rest_kw, set_degc, cooling)
        begin.append(air_temperatures_degc(idle_kw, set_degc, cooling)[1])
    return np.vstack([begin, trace[f"{SITE}/return_degc"]])


def served_degc(trace: Trace) -> np.ndarray:
    """The supply air that servers follow in each tick, (time, site): the set point, or what a room at its temperature
    of the tick's begin gets from its plant."""
    if not has_inertia(trace):
        return trace[f"{SITE}/supply_temp_degc"]
    most_k = np.array([np.inf if c.capacity_kw is None else c.capacity_kw / air_kw_per_k(c) for c in coolings(trace)])
    room = room_degc(trace)[:-1]
    return np.minimum(room, np.maximum(trace[f"{SITE}/supply_set_degc"], room - most_k))


def cooling_table(trace: Trace, digest: Digest) -> None:
    """What cooling took and how warm it got, per site, over the counted time; none for a trace without it."""
    if not trace.has(f"{SITE}/heat_removed_kw"):
        return
    use, hours, share, begins = counted(trace, SITE)
    kwh = {name: hours @ trace[f"{SITE}/{name}_kw"][use] for name in ("p", "it", "cooling", "chiller", "loss")}
    level = {name: trace[f"{SITE}/{name}"][use] for name in
             ("heat_removed_kw", "free_cooling_ratio", "water_kg_per_h", "inlet_degc", "inlet_alarm_s",
              "clipped_commands", "wet_bulb_degc", "dry_bulb_degc")}
    heat_kwh = hours @ level["heat_removed_kw"]
    free_kwh = hours @ (level["heat_removed_kw"] * level["free_cooling_ratio"])
    water_kg, alarm_s = hours @ level["water_kg_per_h"], share @ level["inlet_alarm_s"]
    clipped = level["clipped_commands"][begins].sum(axis=0)
    rows = []
    for k, name in enumerate(trace.names(SITE)):
        bulb = next((f"{b[:, k].min():.1f} .. {b[:, k].max():.1f}" for b in (level["wet_bulb_degc"],
                     level["dry_bulb_degc"]) if np.isfinite(b[:, k]).all()), "-")
        rows.append((name, _per(kwh["it"][k] + kwh["cooling"][k], kwh["it"][k]), _per(kwh["p"][k], kwh["it"][k]),
                     f"{heat_kwh[k] / KW_PER_MW:.3f}", f"{kwh['chiller'][k] / KW_PER_MW:.3f}",
                     f"{100 * free_kwh[k] / max(heat_kwh[k], 1e-9):.0f} %", f"{water_kg[k] / KG_PER_T:.1f}",
                     _per(water_kg[k], kwh["it"][k]), bulb, f"{level['inlet_degc'][:, k].max():.1f}",
                     f"{alarm_s[k] / MIN_S:.0f}", f"{clipped[k]:.0f}"))
    totals = {name: float(values.sum()) for name, values in kwh.items()}
    digest.figures |= {
        "pue_cooling": (totals["it"] + totals["cooling"]) / totals["it"] if totals["it"] else float("nan"),
        "chiller_kwh": totals["chiller"], "loss_energy_kwh": totals["loss"], "heat_removed_kwh": float(heat_kwh.sum()),
        "free_cooling_kwh": float(free_kwh.sum()), "water_kg": float(water_kg.sum()),
        "inlet_alarm_s": float(alarm_s.sum()), "clipped_commands": float(clipped.sum())}
    digest.tables.append(Table(
        "Cooling", ("site", "PUE cooling", "PUE", "heat MWh", "chiller MWh", "free", "water m3", "l/kWh", "outside C",
                    "inlet max", "alarm min", "clipped"), rows,
        "PUE cooling is IT + cooling over IT, as in the paper; PUE adds losses and auxiliaries; l/kWh is water per IT"))


def _per(a: float, b: float) -> str:
    return f"{a / b:.3f}" if b else "-"


def _params(trace: Trace) -> dict:
    return scenario_of(trace)["members"]["aidc"]["params"]


def _cooling(value: str | dict | None) -> Cooling:
    return PRESETS[value or "balanced"] if value is None or isinstance(value, str) else Cooling(**value)
