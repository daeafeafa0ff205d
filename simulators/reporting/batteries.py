"""Pictures of batteries: what they charge and discharge, the energy in them, and its carbon intensity."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Panel, Picture, Series, missing
from cosim.reporting.text import number, quantity, strong
from cosim.simulators.analysis.paths import BATTERY, SITE
from cosim.simulators.analysis.site_batteries import ENERGY, POWER, given_batteries
from cosim.simulators.reporting.data import FleetRun

_KEY = "batteries"


def any_stored(run: FleetRun) -> bool:
    """Whether a run has batteries that can be shown."""
    return run.has(f"{BATTERY}/soc_kwh") or run.has(POWER)


def batteries(run: FleetRun) -> Picture:
    """Power, energy and stored intensity of each battery."""
    if not run.has(f"{BATTERY}/soc_kwh"):
        return missing(_KEY, "This run has no battery on the feeder.")
    names, time = run.trace.names(BATTERY), run.time_s(BATTERY).astype(float)
    panels = []
    for title, unit, port in (("Power, > 0 discharges", "kW", "p_kw"), ("Energy in it", "kWh", "soc_kwh"),
                              ("Intensity of the energy in it", "kg/kWh", "stored_kg_per_kwh")):
        values = run.get(f"{BATTERY}/{port}")
        panels += [Panel(f"{name}: {title[0].lower()}{title[1:]}", unit, (
            Series(name, time, values[:, k], "ink", run.end_s, label=name),), axis=port)
                   for k, name in enumerate(names)]
    path = f"{BATTERY}/p_kw"
    p_kw, hours = run.of_counted(path), run.counts(path).hours
    out_kwh, in_kwh = (float((hours @ np.maximum(sign * p_kw, 0.0)).sum()) for sign in (1.0, -1.0))
    intensity = run.of_counted(f"{BATTERY}/stored_kg_per_kwh")
    gave_kg = float((hours @ (np.maximum(p_kw, 0.0) * intensity)).sum())
    says = f"Batteries took {quantity(in_kwh, 'kWh')} and gave back {strong(quantity(out_kwh, 'kWh'))}"
    says += f", at {number(gave_kg / out_kwh)} kg/kWh on average." if out_kwh else "."
    note = "A battery charges at the intensity of its bus and discharges at the mix of what went in."
    return Picture(_KEY, says, tuple(panels), note + run.played("grid"), (
        Fact("batteries: charged", in_kwh, "kWh"), Fact("batteries: discharged", out_kwh, "kWh")), columns=True)


def behind_meters(run: FleetRun) -> Picture:
    """What facilities with batteries drew, what their meters showed, and the energy in the batteries."""
    key = "batteries_behind_meters"
    if not run.has(POWER):
        return missing(key, "No data center of this run has a battery behind its meter.")
    given = given_batteries(run.trace)
    time, metered = run.means(SITE, run.get(f"{SITE}/p_kw"))
    _, gave = run.means(SITE, run.get(POWER))
    _, energy = run.means(SITE, run.get(ENERGY))
    panels = []
    for k, site in enumerate(run.sites):
        if site not in given:
            continue
        panels += [
            Panel(f"{site}: power", "kW", (
                Series("facility", time, (metered + gave)[:, k], "muted", run.end_s, mark="dash", label="facility"),
                Series("meter", time, metered[:, k], run.colours[site], run.end_s, label="meter")), axis="meter"),
            Panel(f"{site}: energy in the battery", "kWh", (
                Series(site, time, energy[:, k], run.colours[site], run.end_s, label=site),), axis="site battery")]
    use, hours = run.counts(SITE).use, run.counts(SITE).hours
    p_kw, shown = run.get(POWER)[use], run.get(f"{SITE}/p_kw")[use]
    in_kwh, out_kwh = (float((hours @ np.maximum(sign * p_kw, 0.0)).sum()) for sign in (-1.0, 1.0))
    peaks = [float(values.sum(axis=1).max()) for values in (shown + p_kw, shown)]
    says = (f"Batteries behind the meters took {quantity(in_kwh, 'kWh')} and gave {strong(quantity(out_kwh, 'kWh'))}; "
            f"the sites' peak is {quantity(peaks[1], 'kW')} at the meters, {quantity(peaks[0], 'kW')} without them.")
    note = f"Cost and carbon are those of the meters. {run.averaging(SITE)}".strip()
    return Picture(key, says, tuple(panels), note, (Fact("behind meters: discharged", out_kwh, "kWh"),), columns=True)
