"""A cell of a sweep: one scenario with one seed, run natively or on the bus, its figures as JSON data."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from cosim.campaign.cells import digest_of
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.scenario import Scenario

CALL = f"{__name__}:run_point"
SCENARIOS = "scenarios"
"""Beside the cells: the scenarios of a sweep's points, named by their digests."""
TRACE = "trace.h5"
_ROOM = "running"


def run_point(folder: Path, scenario: str, seed: int, until_s: float | None, driver: str, keep_trace: bool,
              **_: Any) -> dict[str, JsonValue]:
    """Run a scenario and return `figures` (name -> value, None where the summary has no number), `warnings` and
    `notes`.

    scenario    SHA-256 of its JSON text, which stands in SCENARIOS under this name; ScenarioError for another text
    keep_trace  leave the trace as `trace.h5` in `folder`
    """
    text = scenario_file(folder.parents[1], scenario).read_text(encoding="utf-8")
    if digest_of(text) != scenario:
        raise ScenarioError(f"{scenario_file(folder.parents[1], scenario)} was changed; start the sweep again")
    asked = Scenario.from_json(text).replace(seed=seed)
    room = folder / _ROOM
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    result = Experiment(asked, driver, until_s, room / TRACE).run()
    if keep_trace:
        (room / TRACE).replace(folder / TRACE)
    shutil.rmtree(room)
    figures: dict[str, JsonValue] = {name: value if math.isfinite(value) else None
                                     for name, value in result.figures.items()}
    return {"figures": figures, "warnings": list(result.digest.warnings), "notes": list(result.notes)}


def scenario_file(out: Path, digest: str) -> Path:
    """Where the scenario of a point stands in a sweep's folder."""
    return out / SCENARIOS / f"{digest}.json"
