"""What the live view costs: its share of a day's wall time under both drivers.

    python benchmarks/live.py [HOURS]

The callbacks are timed within the run, so that other work on the machine falls on both sides of the ratio.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from rich.console import Console

from cosim.experiment import DRIVERS, Experiment
from cosim.reporting.definition import live_tables
from cosim.reporting.live import live_view
from cosim.run import find


def timed(function: Callable[..., None], spent: list[float]) -> Callable[..., None]:
    """`function`, with its wall time appended to `spent`."""
    def call(*arguments: Any) -> None:
        begin = perf_counter()
        function(*arguments)
        spent.append(perf_counter() - begin)

    return call


def share(driver: str, hours: float) -> tuple[float, float, int]:
    """(total s, s in the live view, pictures drawn) of a run of ieee33 without a trace."""
    scenario = find("ieee33")
    experiment = Experiment(scenario, driver, 3600.0 * hours)
    heard: list[float] = []
    drawn: list[float] = []
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with live_view(experiment.control, "ieee33", experiment.resolved.until, console,
                   live_tables(scenario.model_dump())):
        control = experiment.control
        control.on_record, control.on_progress = timed(control.on_record, heard), timed(control.on_progress, drawn)
        begin = perf_counter()
        experiment.run()
        total = perf_counter() - begin
    return total, sum(heard) + sum(drawn), sum(one > 1e-3 for one in drawn)


if __name__ == "__main__":
    for name in DRIVERS:
        wall_s, live_s, pictures = share(name, float(sys.argv[1]) if sys.argv[1:] else 24.0)
        print(f"{name}: {wall_s:.2f} s, live view {live_s:.3f} s ({100 * live_s / wall_s:.1f} %), {pictures} pictures")
