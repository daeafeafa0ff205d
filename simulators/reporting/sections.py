"""The study's report: which pictures, under which headings, for one run or several, and what the live view shows.

Rows: X08.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from cosim.reporting.chart import Maps, Picture, Section, missing
from cosim.reporting.definition import Headline, LiveColumn, LiveTable, Report
from cosim.reporting.text import alike, named
from cosim.simulators.reporting import (
    air,
    batteries,
    carbon,
    events,
    flexibility,
    forecasts,
    gpus,
    grid,
    jobs,
    limits,
    serving,
    sites,
    sources,
    wan,
)
from cosim.simulators.reporting.data import FleetRun
from cosim.units import MIN_S

_SECTIONS: tuple[tuple[str, str, str, tuple[Callable[[FleetRun], Picture], ...]], ...] = (
    ("signal", "Signal", "Carbon signal and load", (sites.load_and_carbon,)),
    ("power", "Power", "Power and price", (sites.power,)),
    ("air", "Air", "Air and cooling", (air.air,)),
    ("carbon", "Carbon", "Two carbon accounts", (carbon.accounts,)),
    ("gpus", "GPUs", "GPUs and queues", (sites.gpus, sites.queues)),
    ("gpu_states", "States", "GPU types, sleep and power limits", (gpus.states, gpus.limits)),
    ("jobs", "Jobs", "Jobs: put off, waiting, due", (jobs.deferral, jobs.waits)),
    ("serving", "LLM", "LLM serving", (serving.latency, serving.energy)),
    ("llm_limits", "Limits", "Power limits of LLM replicas", (gpus.limits,)),
    ("wan", "WAN", "Wide-area network", (wan.network,)),
    ("flexibility", "Flexibility", "Demand response", (flexibility.events,)),
    ("sources", "Sources", "Sources and what is taken of them", (sources.intensities, sources.availability)),
    ("batteries", "Batteries", "Batteries", (batteries.batteries, batteries.behind_meters)),
    ("forecasts", "Forecasts", "Forecasts and what came", (forecasts.forecasts,)),
    ("network", "Network", "Voltages and lines", (grid.voltages, grid.loading, limits.limiting)),
    ("events", "Events", "Drops and alarms", (events.events,)),
    ("trust", "Trust", "Can it be trusted?", (grid.trust,)),
)


_WHERE = {"flexibility": flexibility.called, "sources": sources.any_varies, "batteries": batteries.any_stored,
          "forecasts": forecasts.any_made, "serving": serving.serves, "wan": wan.there, "gpu_states": gpus.typed,
          "llm_limits": gpus.limited}
"""Sections that only some runs have: whether one does."""


def sections(runs: list[FleetRun]) -> list[Section]:
    """All sections after the overview and the map, in order."""
    out = []
    for key, short, title, makers in _SECTIONS:
        if key in _WHERE and not any(map(_WHERE[key], runs)):
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
    carbon = [name for name in _TILES[:2] if name in figures]
    out = [(named(name, figures[name])[0], text) for name, text in
           zip(carbon, alike([figures[name] for name in carbon], "kg", 4), strict=True)]
    out += [named(name, figures[name]) for name in _TILES[2:] if name in figures]
    counts = {word: sum(v for n, v in figures.items() if n.startswith(f"{word}_") and n.endswith("_jobs"))
              for word in ("finished", "dropped", "unfinished")}
    if any(counts.values()):
        ended = counts["finished"] + counts["dropped"]
        share = _share(counts["finished"], ended)
        out.insert(0, ("of ended jobs finished in time", share))
        out.insert(1, ("jobs dropped", f"{counts['dropped']:,.0f}".replace(",", "\u202f")))
    if "it_energy_kwh" in figures and figures["it_energy_kwh"]:
        used_kwh = figures.get("facility_energy_kwh", figures["energy_kwh"])
        out.append(("PUE", f"{used_kwh / figures['it_energy_kwh']:.3f}"))
    if "vm_min_pu" in figures:
        out.append(("lowest voltage", f"{figures['vm_min_pu']:.4f}\u00a0p.u."))
    return out


_HEADLINE = (("energy_kwh", "energy", "kWh"), ("cost_usd", "cost", "USD"),
             ("co2_attributed_kg", "CO2 attributed", "kg"), ("co2_system_kg", "CO2 system", "kg"),
             ("peak_kw", "peak power", "kW"))
_PER_WORK = (("energy_kwh_per_gto", "energy per 1e9 TO served", "kWh"),
             ("cost_usd_per_gto", "cost per 1e9 TO served", "USD"),
             ("co2_attributed_kg_per_gto", "CO2 attributed per 1e9 TO served", "kg"))


def headline(figures: Mapping[str, float]) -> list[Headline]:
    """What runs are compared by first: energy, cost, both carbon accounts, peak, drops, the longest waits, and energy,
    cost and carbon per work served."""
    out = [Headline(words, figures[name], unit) for name, words, unit in _HEADLINE if name in figures]
    dropped = [v for n, v in figures.items() if n.startswith("dropped_") and n.endswith("_jobs")]
    if dropped:
        out.append(Headline("dropped", sum(dropped), "jobs"))
    classes = [n.removeprefix("dropped_").removesuffix("_jobs") for n in figures if n.startswith("dropped_")]
    out += [Headline(f"p99 wait {name}", figures[f"wait_p99_{name}_s"] / MIN_S, "min") for name in classes
            if f"wait_p99_{name}_s" in figures]
    return out + [Headline(words, figures[name], unit) for name, words, unit in _PER_WORK if name in figures]


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

_TERMS = (
    ("NCI", "nodal carbon intensity, the average intensity of the power drawn at a node of the grid"),
    ("MCI", "marginal carbon intensity, what one more kWh at a node would emit"),
    ("Marginal intensity", "what one more kWh at a node would emit"),
    ("CO2 attributed", "energy of the data centers times the average carbon intensity at their nodes"),
    ("t CO2", "here attributed: energy times the average carbon intensity at the site's node"),
    ("CO2 system", "emission of all sources of the grid, whoever consumes"),
    ("system account", "emission of all sources of the grid, whoever consumes"),
    ("TO", "10\u00b9\u00b2 operations, the unit of computing work"),
    ("SLO missed", "jobs that began later than the service level objective of their class, or never"),
    ("p50", "half of the jobs waited less"), ("p95", "95 % waited less"), ("p99", "99 % waited less"),
    ("PUE", "power usage effectiveness, all energy of a site over that of its servers"),
    ("p.u.", "per unit, of the nominal voltage"),
    ("IT", "the servers, without cooling and losses"),
    ("relaxation gap", "how far the dispatch's solution is from the power flow equation that it relaxes; 0 is exact"),
    ("AC power flow", "the exact equations of the grid, at the dispatch's set points"),
    ("inlet", "air that enters the servers"),
    ("put off", "kept from starting on purpose, until power is cleaner or cheaper"),
)
"""The terms of these pages, in the order in which they are explained where several stand together."""

REPORT = Report(sections, maps, FleetRun, tiles, headline, _TERMS, facts=(("policy", "controller", "policy"),),
                made=("solved by", ": policy ", ": base load by "), live=(_SITES,))
"""What the study's scenarios name as their report."""
