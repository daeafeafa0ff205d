"""How cost grows with sites, GPUs, buses and days: CPU seconds at several sizes, and the exponent that fits them.

Load grows with size: so many jobs per site and per GPU, so many kW per feeder. An exponent of 1 is proportional.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.day import one_day
from benchmarks.engine import cost_s
from benchmarks.grid import branching, measure_feeder, sources_of
from benchmarks.measure import Found, Say, Size, cpu_clock, exponent, number
from cosim.collector import few_collections
from cosim.digest import Table
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import Scenario, override
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.network.radial import read_feeder
from cosim.units import parse_duration

_SIZES: dict[str, dict[str, Sequence[int]]] = {
    "quick": {"sites": (3, 10), "GPUs a site": (400, 1600), "buses": (33, 66), "hours": (1, 2)},
    "normal": {"sites": (3, 10, 30), "GPUs a site": (400, 4000, 40_000), "buses": (33, 100, 300), "hours": (6, 12, 24)},
    "full": {"sites": (3, 10, 30, 100), "GPUs a site": (400, 4000, 40_000), "buses": (33, 100, 300, 900),
             "hours": (24, 48, 96, 192)},
}
"""Thing -> how many of it."""


def with_sites(scenario: Scenario, count: int) -> Scenario:
    """A scenario of the study with so many sites, at the buses in turn, each with as many jobs as before.

    The rule steers it, since a trained team has its own number of sites.
    """
    sites = {f"aidc{k + 1}": {"node": 1 + k % 32} for k in range(count)}
    more = {"workload.rate_scale": count / len(scenario.shared["sites"]), "controller.policy": "nci_priority"}
    wider = scenario.replace(shared={**scenario.shared, "sites": sites}, preflight=None, summary=None)
    return override(wider, more)


def sites_s(scenario: Scenario, count: int, until: str) -> dict[str, float]:
    """CPU s of a native run without a trace, its start left out, and of its members, their starts in."""
    experiment = Experiment(with_sites(scenario, count), "native", parse_duration(until))
    gc.collect()
    with cpu_clock():
        took = experiment.run().wall_s
    return {"run": took["total"] - took["start"], **{name: took[f"member {name}"] for name in ("aidc", "controller")}}


def buses_s(count: int, times: int) -> dict[str, float]:
    """CPU s to set up the dispatch of a feeder that was not read before, and of one dispatch and its parts."""
    begin = process_time()
    feeder, sources = read_feeder(branching(count)), sources_of(count)
    Dispatch(feeder, sources, Limits(1.0, 0.9, 1.1, 0.1), "clarabel")
    took = {"setting up": process_time() - begin}
    return took | {name: ms / 1e3 for name, ms in measure_feeder(feeder, sources, "clarabel", times).items()}


def minute_s(gpus: int, count: int) -> dict[str, float]:
    """CPU s of a minute of one site, with Python's collector as a run has it."""
    with few_collections():
        return {"a minute of a site": cost_s(gpus, count)}


def hours_s(scenario: Scenario, hours: int, folder: Path) -> dict[str, float]:
    """CPU s of a native run with its trace, and of its summary; the start left out."""
    took = one_day(scenario, "native", 3600.0 * hours, folder / "hours.h5")
    return {"run": took["total"] - took["start"] - took["summary"], "trace": took["trace"], "summary": took["summary"]}


def measure(size: Size, say: Say) -> Found:
    """A table per thing that grows."""
    found, scenario, sizes = Found(), find(size.scenario), _SIZES[size.name]
    until, times = ("30min", 5) if size.quick else ("2h", 30)
    with tempfile.TemporaryDirectory() as name:
        sites_s(scenario, 3, "15min")  # imports
        buses_s(20, 3)
        costs: dict[str, Callable[[int], dict[str, float]]] = {
            "sites": lambda n: sites_s(scenario, n, until),
            "GPUs a site": lambda n: minute_s(n, 10 if size.quick else 30),
            "buses": lambda n: buses_s(n, times if n < 500 else max(times // 5, 3)),
            "hours": lambda n: hours_s(scenario, n, Path(name)),
        }
        for thing, of in costs.items():
            _grow(thing, sizes[thing], of, found, say)
    return found


def _grow(thing: str, sizes: Sequence[int], cost: Callable[[int], dict[str, float]], found: Found, say: Say) -> None:
    took: list[dict[str, Any]] = []
    for n in sizes:
        say(f"growth: {n} {thing}")
        took.append(cost(n))
    rows = []
    for part in took[0]:
        spent = [one[part] for one in took]
        power, fits = exponent(sizes, spent)
        rows.append((part, *(number(s) for s in spent), f"{power:.2f}", f"{fits:.3f}"))
        found.figures |= {f"{n} {thing}: {part}, CPU s": s for n, s in zip(sizes, spent, strict=True)}
        found.ratios[f"growth with {thing}, {sizes[0]} to {sizes[-1]}: exponent of {part}"] = power
    found.tables.append(Table(f"Growth with {thing}: CPU s", ("part", *(str(n) for n in sizes), "exponent", "r2"),
                              rows))
