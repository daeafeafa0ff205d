"""Pictures of the sources: their intensities through the day, and what plants had beside what was taken of it."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import MARKS, Fact, Panel, Picture, Series, missing
from cosim.reporting.text import listing, number, quantity, strong
from cosim.simulators.analysis.paths import GRID
from cosim.simulators.reporting.data import FleetRun

_KEY, _TAKEN = "source_intensities", "availability"
_MOST_KW = f"{GRID}/source_p_max_kw"
_SERIES = ((f"{GRID}/source_kg_per_kwh", "Average intensity of what a source gives"),
           (f"{GRID}/source_marginal_kg_per_kwh", "Intensity of one more kWh of it"))


def any_varies(run: FleetRun) -> bool:
    """Whether sources of a run vary, and that is recorded."""
    return run.has(_SERIES[0][0])


def intensities(run: FleetRun) -> Picture:
    """What each source emits per kWh through the day, on average and of one more."""
    if not any_varies(run):
        return missing(_KEY, "Every source of this run has one intensity all the time.")
    names, panels, spans = run.trace.names(GRID, "source"), [], []
    for path, title in _SERIES:
        time, values = run.means(path)
        lines = tuple(Series(name, time, values[:, 0, k], "ink" if np.ptp(values[:, 0, k]) > 0.0 else "muted",
                             run.end_s, mark=MARKS[k % 3], label=name)
                      for k, name in enumerate(names) if np.isfinite(values[:, 0, k]).all())
        panels.append(Panel(title, "kg/kWh", lines, axis="source intensity", size=1.2))
        counted = run.of_counted(path)[:, 0]
        spans += [(name, title, float(counted[:, k].min()), float(counted[:, k].max())) for k, name in enumerate(names)
                  if np.ptp(counted[:, k]) > 0.0]
    if not spans:
        says = "No source changes its intensity in this run; what it has, or its price, does."
    else:
        low, high = min(s[2] for s in spans), max(s[3] for s in spans)
        said = listing(list(dict.fromkeys(s[0] for s in spans)))
        says = (f"Intensities that change: of {said}, between {number(low)} and {strong(f'{number(high)} kg/kWh')}, "
                "average or marginal.")
    return Picture(_KEY, says, tuple(panels), "Grey: one intensity all the time." + run.played("grid"))


def availability(run: FleetRun) -> Picture:
    """What each renewable plant had and gave; between the two lines is what was curtailed."""
    if not run.has(_MOST_KW):
        return missing(_TAKEN, "No source of this run varies, and what each had is a constant of the scenario.")
    given = run.params("grid").get("sources") or {}
    names = run.trace.names(GRID, "source")
    plants = [k for k, name in enumerate(names) if given.get(name, {}).get("renewable")]
    if not plants:
        return missing(_TAKEN, "No source of this run is renewable.")
    (time, had), (_, gave) = run.means(_MOST_KW), run.means(f"{GRID}/p_source_kw")
    panels = tuple(Panel(names[k], "kW", (
        Series("available", time, had[:, 0, k], "muted", run.end_s, mark="dash", label="available"),
        Series("taken", time, gave[:, 0, k], "ink", run.end_s, label="taken")), axis="power of plants") for k in plants)
    hours = run.counts(_MOST_KW).hours
    had_kwh, gave_kwh = (float((hours @ run.of_counted(path)[:, 0][:, plants]).sum())
                         for path in (_MOST_KW, f"{GRID}/p_source_kw"))
    lost = max(had_kwh - gave_kwh, 0.0)
    share = f" ({number(100.0 * lost / had_kwh)} %)" if had_kwh else ""
    says = (f"Plants had {quantity(had_kwh, 'kWh')}, of which {strong(quantity(gave_kwh, 'kWh'))} were taken and "
            f"{quantity(lost, 'kWh')}{share} curtailed.")
    return Picture(_TAKEN, says, panels, "Between the lines is what was curtailed." + run.played("grid"), (
        Fact("renewable energy available", had_kwh, "kWh"), Fact("renewable energy curtailed", lost, "kWh")),
        columns=True)
