"""Pictures of batteries: what they charge and discharge, the energy in them, and its carbon intensity."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Panel, Picture, Series, missing
from cosim.reporting.text import number, quantity, strong
from cosim.simulators.analysis.paths import BATTERY
from cosim.simulators.reporting.data import FleetRun

_KEY = "batteries"


def any_stored(run: FleetRun) -> bool:
    """Whether a run has batteries that can be shown."""
    return run.has(f"{BATTERY}/soc_kwh")


def batteries(run: FleetRun) -> Picture:
    """Power, energy and stored intensity of each battery."""
    if not any_stored(run):
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
