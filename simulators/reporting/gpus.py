"""Pictures of GPU types: how many are busy, idle, waking up and asleep, what that draws; and of power limits, of types
and of replicas of language models.

Rows: X08.
"""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import MARKS, Fact, Panel, Picture, Series, missing
from cosim.reporting.text import listing, number, quantity, strong
from cosim.simulators.aidc.gpus.states import ASLEEP, BUSY, IDLE, STATES, WAKING
from cosim.simulators.analysis.gpu_states import by_state, gpu_types, has_types, type_figures
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.serving_limits import has_limits
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import lines, warmup
from cosim.units import HOUR_S

_COLOURS = {BUSY: "ink", IDLE: "ink/55", WAKING: "ink/30", ASLEEP: "ink/12"}


def typed(run: FleetRun) -> bool:
    """Whether there is anything to show."""
    return has_types(run.trace)


def states(run: FleetRun) -> Picture:
    """GPUs of each type, and the power of all, by state."""
    key = "gpu_states"
    if not typed(run):
        return missing(key, "The GPUs of this run have no types.")
    gpus = by_state(run.trace, "state_gpus").sum(axis=1)
    power = by_state(run.trace, "state_kw").sum(axis=(1, 2))
    panels = [_stack(run, f"{name}, all sites", "GPUs", gpus[:, t], f"gpus {name}")
              for t, name in enumerate(gpu_types(run.trace))]
    panels.append(_stack(run, "Power of GPUs and hosts", "kW", power, "power by state"))
    everything = type_figures(run.trace)[-1]
    hours, kwh = everything.gpu_h, everything.energy_kwh
    asleep = 100.0 * hours[ASLEEP] / max(sum(hours.values()), 1e-300)
    parts = listing([f"{quantity(kwh[state], 'kWh')} {state}" for state in STATES])
    says = f"GPUs were asleep {strong(f'{number(asleep, 3)} %')} of the time; with their hosts they drew {parts}."
    facts = (Fact("GPU time asleep", asleep, "%"), *(Fact(f"GPUs {state}", kwh[state], "kWh") for state in STATES))
    note = f"From bottom to top: {', '.join(STATES)}. {run.averaging(SITE)}".strip()
    return Picture(key, says, tuple(panels), note, facts, columns=True)


def limited(run: FleetRun) -> bool:
    """Whether replicas of language models have power limits."""
    return has_limits(run.trace)


def limits(run: FleetRun) -> Picture:
    """Power limits of each GPU type, or of each class of language models, and the time for which they slowed jobs."""
    key = "gpu_limits"
    if not (typed(run) or limited(run)):
        return missing(key, "The GPUs of this run have neither types nor power limits.")
    axis = gpu_types(run.trace) if typed(run) else run.classes
    limit_kw, slowed_s = run.get(f"{SITE}/gpu_limit_kw"), run.get(f"{SITE}/slowed_s")
    cap_h = float(run.total(f"{SITE}/cap_slowed_s").sum()) / HOUR_S
    slowed_h = run.total(f"{SITE}/slowed_s").sum(axis=0) / HOUR_S
    said = [f"{quantity(float(h), 'h')} {'on' if typed(run) else 'of'} {name}"
            for name, h in zip(axis, slowed_h, strict=True) if h]
    if not said:
        return missing(key, "No power limit slowed a job.")
    panels = []
    for t, name in enumerate(axis):
        if slowed_s[:, :, t].any():
            there = np.flatnonzero(limit_kw[:, :, t].any(axis=0))
            panels.append(Panel(f"Power limit of {name}", "kW", lines(run, SITE, limit_kw[:, there, t], [
                run.sites[k] for k in there]), axis=f"limit {name}", bands=warmup(run)))
    says = f"Power limits slowed jobs for {strong(listing(said))}, hours of all sites together"
    says += f"; {quantity(cap_h, 'h')} for a cap of the site." if cap_h else "."
    return Picture(key, says, tuple(panels), run.averaging(SITE), (Fact("slowed for a site's cap", cap_h, "h"),),
                   columns=True)


def _stack(run: FleetRun, title: str, unit: str, values: np.ndarray, axis: str) -> Panel:
    """Layers over the time, one per state."""
    time, y = run.means(SITE, values)
    layers = tuple(Series(state, time, y[:, k], _COLOURS[state], run.end_s, area=True, mark=MARKS[0], label=state)
                   for k, state in enumerate(STATES))
    return Panel(title, unit, layers, axis=axis, bands=warmup(run), size=1.1)
