"""The picture of what limits the grid: every limit that binds, over the time."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Heat, Panel, Picture, missing
from cosim.reporting.text import listing, quantity, strong
from cosim.simulators.analysis.limiting import limits
from cosim.simulators.analysis.paths import GRID
from cosim.simulators.reporting.data import FleetRun

_KEY = "limits"
_MOST_ROWS = 16
_SAID = 3


def limiting(run: FleetRun) -> Picture:
    """Which limits bind when, those that bind longest on top."""
    found = [one for one in limits(run.trace) if one.enforced]
    path = f"{GRID}/p_source_kw"
    if not found or not run.has(path):
        return missing(_KEY, "No limit of the grid binds in this run, as far as its trace says.")
    shown, counts = found[:_MOST_ROWS], run.counts(path)
    hours = [float(counts.hours @ one.at[counts.use]) for one in found]
    time, z = run.means(path, np.array([one.at for one in shown], float).T)
    heat = Heat(time, tuple(one.words for one in shown[::-1]), z[:, ::-1].T, "share of time", run.end_s,
                scale="heat" if z.max() < 1.0 or ((z > 0.0) & (z < 1.0)).any() else "flag")
    says = "What limits the grid: " + listing([f"{one.words} for {quantity(h, 'h')}" for one, h in zip(
        found[:_SAID], hours, strict=False)]) + f", of {strong(quantity(float(counts.hours.sum()), 'h'))}"
    says += f"; {len(found) - _SAID} more bind at times." if len(found) > _SAID else "."
    note = f"The {_MOST_ROWS} that bind longest are shown." if len(found) > _MOST_ROWS else ""
    return Picture(_KEY, says, (Panel("Limits that bind", heat=heat, size=0.5 + 0.09 * len(shown)),),
                   (note + run.played("grid")).strip(), (Fact(f"longest limit: {found[0].words}", hours[0], "h"),))
