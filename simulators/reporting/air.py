"""Pictures of the air in the data centers: inlets, what returns, outside, and what cooling takes.

Rows: X02.
"""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Panel, Picture, missing
from cosim.reporting.text import count, number, quantity, strong
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import lines, warmup
from cosim.units import KG_PER_T, MIN_S

_LEVELS = (("inlet_degc", "Inlet of the hottest rack", "degC"), ("return_degc", "Return air", "degC"),
           ("wet_bulb_degc", "Outside, wet bulb", "degC"), ("dry_bulb_degc", "Outside, dry bulb", "degC"),
           ("cooling_kw", "Power of chiller and tower", "kW"))


def air(run: FleetRun) -> Picture:
    """Temperatures and cooling power per site; the share cooled without the chiller where there is any."""
    key = "air"
    if not run.has(f"{SITE}/inlet_degc"):
        return missing(key, "The trace records no temperatures (aidc/Site/inlet_degc)." if run.sites else
                       "The trace holds no data center (member aidc, model Site), so there is nothing to show here.")
    panels = []
    for port, title, unit in _LEVELS:
        path = f"{SITE}/{port}"
        if run.has(path) and np.isfinite(run.get(path)).any():
            panels.append(Panel(title, unit, lines(run, SITE, run.get(path), run.sites), axis=f"air {port}",
                                zero=unit != "degC", bands=warmup(run), size=0.7))
    free = run.get(f"{SITE}/free_cooling_ratio") if run.has(f"{SITE}/free_cooling_ratio") else np.zeros(1)
    if free.any():
        panels.append(Panel("Heat that leaves without the chiller", "%", lines(run, SITE, 100.0 * free, run.sites),
                            axis="air free", bands=warmup(run), size=0.7))
    says, facts = _says(run)
    return Picture(key, says, tuple(panels), run.averaging(SITE), facts, columns=True)


def _says(run: FleetRun) -> tuple[str, tuple[Fact, ...]]:
    inlet = run.of_counted(f"{SITE}/inlet_degc")
    warmest = int(inlet.max(axis=0).argmax())
    text = f"The warmest inlet is {strong(f'{number(inlet.max(), 3)} degC')} ({run.sites[warmest]})"
    facts = [Fact("warmest inlet", float(inlet.max()), "degC")]
    sums = {port: float(run.integral(f"{SITE}/{port}").sum()) for port in
            ("it_kw", "cooling_kw", "heat_removed_kw", "water_kg_per_h") if run.has(f"{SITE}/{port}")}
    if run.has(f"{SITE}/inlet_alarm_s"):
        minutes = float(run.total(f"{SITE}/inlet_alarm_s").sum()) / MIN_S
        text += f"; inlets are above their limit for {count(round(minutes), 'minute')} in all" if minutes else (
            "; none is above its limit")
        facts.append(Fact("inlets above their limit", minutes, "min"))
    text += "."
    if sums.get("it_kw") and "cooling_kw" in sums:
        ratio = sums["cooling_kw"] / sums["it_kw"]
        text += f" Cooling takes {number(100 * ratio, 3)} % of what IT does"
        facts.append(Fact("cooling per IT", 100 * ratio, "%"))
        if "water_kg_per_h" in sums:
            water = sums["water_kg_per_h"] / KG_PER_T
            text += f", and {quantity(water, 'm3')} of water"
            facts.append(Fact("water", water, "m3"))
        text += "."
    if sums.get("heat_removed_kw") and run.has(f"{SITE}/free_cooling_ratio"):
        free_kw = run.get(f"{SITE}/heat_removed_kw") * run.get(f"{SITE}/free_cooling_ratio")
        share = 100 * float(run.integral(SITE, free_kw).sum()) / sums["heat_removed_kw"]
        text += f" {number(share, 2)} % of the heat left without the chiller." if share > 0.05 else ""
        facts.append(Fact("cooled without the chiller", share, "%"))
    return text, tuple(facts)
