"""A run in one call, from a script or a notebook."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cosim.console import plain_console, say
from cosim.experiment import Experiment
from cosim.progress import working
from cosim.request import changed, default_out, find
from cosim.result import Result
from cosim.scenario import Scenario
from cosim.units import parse_duration

File = str | os.PathLike[str]


def simulate(scenario: str | os.PathLike[str] | Scenario, *, until: str | float | None = None, seed: int | None = None,
             set: Mapping[str, Any] | None = None, use: Mapping[str, str] | None = None,
             replay: Mapping[str, File] | None = None, map: Mapping[str, str] | None = None, out: File | None = None,
             driver: str = "mosaik", overwrite: bool = False, trust: File | Collection[File] = (),
             progress: bool = True) -> Result:
    """Run a scenario to its end and return how it went; what `cosim run` does, with the same bytes in the trace.

    scenario   its name, its file, a trace to run again, or itself
    until      simulated time: '2h', or seconds (default: the scenario's)
    seed       the one seed of the run (default: the scenario's)
    set        path -> value of fields, as {'controller.policy': 'uniform'}
    use        member -> simulator in its place, 'package.module:Class'
    replay     member -> trace or table that plays its outputs
    map        our port or entity -> what the simulator in a member's place calls it
    out        the trace (default: results/<scenario>/<UTC time>.h5)
    driver     'mosaik' or 'native'
    overwrite  replace the trace if it exists
    trust      received file or files that may run the code they name
    progress   show progress and warnings on standard error

    It works where an event loop runs, too, as in Jupyter; it blocks that loop until the run has ended. Raises
    CosimError: ScenarioError for a request that cannot be, ModelError for a simulator that failed, TraceError.
    """
    trusted = [trust] if isinstance(trust, str | os.PathLike) else list(trust)
    until_s = parse_duration(until) if isinstance(until, str) else until
    with working("loading", quiet=not progress):
        found = scenario if isinstance(scenario, Scenario) else find(
            Path(scenario) if not isinstance(scenario, str) else scenario, [Path(file) for file in trusted],
            [*(use or {}), *(replay or {})])
        asked = changed(found, seed=seed, use=use, settings=set, replays=replay, names=map)
        experiment = Experiment(asked, driver, until_s, Path(out) if out is not None else default_out(asked), overwrite)
        before = experiment.preflight()
    if progress:
        for warning in before.warnings:
            say(plain_console(stderr=True), f"warning: {warning}", "yellow")
    label = experiment.resolved.clock.label
    with working(lambda step: f"{asked.name} {label(int(step))}", experiment.resolved.until,
                 quiet=not progress) as shown:
        experiment.control.on_progress = shown.at
        return experiment.run()
