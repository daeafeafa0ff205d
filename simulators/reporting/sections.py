"""The report's order: which pictures, under which headings, for one run or several.

Rows of the model: X08.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cosim.reporting import air, carbon, events, grid, jobs, sites
from cosim.reporting.chart import Picture, Section, missing
from cosim.reporting.data import Run

_SECTIONS: tuple[tuple[str, str, str, tuple[Callable[[Run], Picture], ...]], ...] = (
    ("signal", "Signal", "Carbon signal and load", (sites.load_and_carbon,)),
    ("power", "Power", "Power and price", (sites.power,)),
    ("air", "Air", "Air and cooling", (air.air,)),
    ("carbon", "Carbon", "Two carbon accounts", (carbon.accounts,)),
    ("gpus", "GPUs", "GPUs and queues", (sites.gpus, sites.queues)),
    ("jobs", "Jobs", "Jobs: put off, waiting, due", (jobs.deferral, jobs.waits)),
    ("network", "Network", "Voltages and lines", (grid.voltages, grid.loading)),
    ("events", "Events", "Drops and alarms", (events.events,)),
    ("trust", "Trust", "Can it be trusted?", (grid.trust,)),
)


def sections(runs: list[Run]) -> list[Section]:
    """All sections after the overview and the map, in order."""
    out = []
    for key, short, title, makers in _SECTIONS:
        pictures = [[make(run) for run in runs] for make in makers]
        if key == "carbon":
            pictures += _marginals(runs)
        out.append(Section(key, short, title, pictures))
    return out


def maps(runs: list[Run]) -> tuple[list[Picture], list[dict[str, Any] | None], list[Picture]]:
    """(sentences, data, pictures in the place of a map that cannot be drawn) of the feeder."""
    made = [grid.feeder_map(run) for run in runs]
    substitutes = [] if all(data for _, data in made) else [
        grid.intensities(run) if data is None else missing("nodes", "See the map.")
        for run, (_, data) in zip(runs, made, strict=True)]
    return [p for p, _ in made], [d for _, d in made], substitutes


def _marginals(runs: list[Run]) -> list[list[Picture]]:
    made = [carbon.marginal(run) for run in runs]
    if not any(made):
        return []
    return [[p or missing("marginal", "This trace holds no marginal intensity.") for p in made]]
