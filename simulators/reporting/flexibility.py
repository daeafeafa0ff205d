"""Pictures of demand response: what was called of the fleet, and what it drew."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Band, Fact, Panel, Picture, Series, missing
from cosim.reporting.text import count, number, quantity, strong
from cosim.simulators.analysis.flexibility import settled
from cosim.simulators.analysis.paths import CALLS, SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import warmup

_KEY = "flexibility"


def called(run: FleetRun) -> bool:
    """Whether a run has demand response that can be shown."""
    return CALLS in run.models and run.has(f"{SITE}/p_kw")


def events(run: FleetRun) -> Picture:
    """Power of the sites that an event concerns, their baseline and what was called, and the reduction achieved."""
    if not called(run):
        return missing(_KEY, "This run has no demand response (member flexibility).")
    if run.played("flexibility"):
        return missing(_KEY, "Its events are those of a recorded run, and none is settled." + run.played("flexibility"))
    found = settled(run.trace)
    if not found:
        return missing(_KEY, "No demand-response event began in this run.")
    cap, base = run.get(f"{CALLS}/p_cap_kw"), run.get(f"{CALLS}/baseline_kw")
    time, drawn = run.means(SITE, run.get(f"{SITE}/p_kw"))
    call_time = run.time_s(CALLS).astype(float)
    bands = (*warmup(run), *(Band(e.start_s, min(e.end_s, run.end_s), 0.3, "event") for e in found))
    panels = []
    for k, site in enumerate(run.sites):
        at = run.trace.names(CALLS).index(site)
        panels.append(Panel(site, "kW", (
            Series("drawn", time, drawn[:, k], run.colours[site], run.end_s, label="drawn"),
            Series("baseline", call_time, base[:, at], "muted", run.end_s, mark="dash", label="baseline"),
            Series("cap", call_time, cap[:, at], "ink", run.end_s, mark="dot", label="cap")), axis="power called",
            bands=bands, quantity="power"))
    called_kwh, delivered = (float(sum(getattr(e, name) for e in found)) for name in ("called_kwh", "delivered_kwh"))
    ratio = 100.0 * delivered / called_kwh if called_kwh else 100.0
    least = min(float(e.achieved_kw.min()) / e.called_kw for e in found if e.called_kw) if called_kwh else 1.0
    says = (f"{count(float(len(found)), 'event')}: {strong(f'{number(ratio)} %')} of {quantity(called_kwh, 'kWh')} "
            f"called were delivered; the least reduction was {number(100.0 * least)} % of the one called.")
    rebound = float(sum(e.rebound_kwh for e in found))
    facts = (Fact("demand response: complied", ratio, "%"),
             Fact("demand response: shortfall", float(np.maximum(called_kwh - delivered, 0.0)), "kWh"),
             Fact("demand response: rebound", rebound, "kWh"))
    note = (f"In as long a time after the events, {quantity(rebound, 'kWh')} were drawn above the baseline. "
            f"{run.averaging(SITE)}")
    return Picture(_KEY, says, tuple(panels), note, facts, columns=True)
