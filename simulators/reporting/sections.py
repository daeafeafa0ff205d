"""The study's report: which pictures, under which headings, for one run or several, and what the live view shows.

Rows: X08.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from cosim.reporting.chart import Maps, Picture, Section, missing
from cosim.reporting.definition import LiveColumn, LiveTable, Report
from cosim.reporting.text import named
from cosim.simulators.reporting import air, batteries, carbon, events, flexibility, grid, jobs, limits, sites
from cosim.simulators.reporting.data import FleetRun

_SECTIONS: tuple[tuple[str, str, str, tuple[Callable[[FleetRun], Picture], ...]], ...] = (
    ("signal", "Signal", "Carbon signal and load", (sites.load_and_carbon,)),
    ("power", "Power", "Power and price", (sites.power,)),
    ("air", "Air", "Air and cooling", (air.air,)),
    ("carbon", "Carbon", "Two carbon accounts", (carbon.accounts,)),
    ("gpus", "GPUs", "GPUs and queues", (sites.gpus, sites.queues)),
    ("jobs", "Jobs", "Jobs: put off, waiting, due", (jobs.deferral, jobs.waits)),
    ("flexibility", "Flexibility", "Demand response", (flexibility.events,)),
    ("batteries", "Batteries", "Batteries", (batteries.batteries,)),
    ("network", "Network", "Voltages and lines", (grid.voltages, grid.loading, limits.limiting)),
    ("events", "Events", "Drops and alarms", (events.events,)),
    ("trust", "Trust", "Can it be trusted?", (grid.trust,)),
)


def sections(runs: list[FleetRun]) -> list[Section]:
    """All sections after the overview and the map, in order."""
    out = []
    for key, short, title, makers in _SECTIONS:
        if key == "flexibility" and not any(map(flexibility.called, runs)):
            continue
        if key == "batteries" and not any(map(batteries.any_stored, runs)):
            continue
        pictures = [[make(run) for run in runs] for make in makers]
        if key == "carbon":
            pictures += _marginals(runs)
        out.append(Section(key, short, title, pictures))
    return out


def maps(runs: list[FleetRun]) -> Maps:
    """The feeder, or in the place of a map that cannot be drawn a picture of the nodes' intensities."""
    made = [grid.feeder_map(run) for run in runs]
    substitutes = [] if all(network for _, network in made) else [
        grid.intensities(run) if network is None else missing("nodes", "See the map.")
        for run, (_, network) in zip(runs, made, strict=True)]
    return Maps("Feeder", "The feeder", [p for p, _ in made], [n for _, n in made], substitutes)


def _marginals(runs: list[FleetRun]) -> list[list[Picture]]:
    made = [carbon.marginal(run) for run in runs]
    if not any(made):
        return []
    return [[p or missing("marginal", "This trace holds no marginal intensity.") for p in made]]


# --- a run's figures, and what is shown while it goes on --------------------------------------------------------------

_TILES = ("co2_attributed_kg", "co2_system_kg", "energy_kwh", "cost_usd")


def tiles(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """The figures at the top of a run: (words, value)."""
    out = [named(name, figures[name]) for name in _TILES if name in figures]
    counts = {word: sum(v for n, v in figures.items() if n.startswith(f"{word}_") and n.endswith("_jobs"))
              for word in ("finished", "dropped", "unfinished")}
    if any(counts.values()):
        ended = counts["finished"] + counts["dropped"]
        share = _share(counts["finished"], ended)
        out.insert(0, ("of ended jobs finished in time", share))
        out.insert(1, ("jobs dropped", f"{counts['dropped']:,.0f}".replace(",", "\u202f")))
    if "it_energy_kwh" in figures and figures["it_energy_kwh"]:
        out.append(("PUE", f"{figures['energy_kwh'] / figures['it_energy_kwh']:.3f}"))
    if "vm_min_pu" in figures:
        out.append(("lowest voltage", f"{figures['vm_min_pu']:.4f}\u00a0p.u."))
    return out


def _share(part: float, whole: float) -> str:
    """Share in per cent, with as many digits as it takes for the remainder to 100 % to be visible (99.998 %, not
    100.0 %)."""
    if not whole:
        return "none"
    gone = 100.0 * (1.0 - part / whole)
    places = 1 if gone <= 0 else max(1, 1 - math.floor(math.log10(gone)))
    return f"{100.0 - gone:.{min(places, 6)}f}\u202f%"


_SITES = LiveTable(
    "aidc", "site", needs="p_kw",
    columns=(LiveColumn("NCI kg/kWh", "nci_kg_per_kwh", ".3f", received=True),
             LiveColumn("power kW", "p_kw", ".1f", total=True),
             LiveColumn("GPUs busy", "free_gpu_ratio", unit=" %", scale=-100.0, offset=100.0),
             LiveColumn("running", "running_jobs", absent=0.0, total=True),
             LiveColumn("queued", "queued_jobs", absent=0.0, total=True),
             LiveColumn("put off", "deferred_jobs", absent=0.0, total=True),
             LiveColumn("dropped", "dropped_jobs", absent=0.0, since_start=True, total=True, alarm=True)),
    line="{p_kw:.0f} kW at {nci_kg_per_kwh:.3f} kg/kWh, {queued_jobs:.0f} queued, {dropped_jobs:.0f} dropped")

REPORT = Report(sections, maps, FleetRun, tiles, facts=(("policy", "controller", "policy"),),
                made=("solved by", ": policy ", ": base load by "), live=(_SITES,))
"""What the study's scenarios name as their report."""
