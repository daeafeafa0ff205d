"""The request of a training run as plain data: the world it names, and whether that may be run.

A request is stored in the checkpoint of the run, so that it may come from another user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cosim.request import find, is_code
from cosim.scenario import Scenario, override
from cosim.trust import foreign, is_known, is_trusted, refuse_foreign

MODES = {"joint": {"controller.mode": "joint"}, "power": {"controller.mode": "power", "grid.lambda_kw_per_kg_h": "0"}}
"""What a mode sets: power mode has no carbon in the dispatch's objective, none in observations."""


def scenario_of(request: Mapping[str, Any], trusted: Collection[str | Path] = ()) -> Scenario:
    """The scenario of a request, as its mode and settings make it."""
    return override(find(request["scenario"], trusted), {**MODES.get(request["mode"], {}), **request["settings"]})


def refuse_strangers(request: Mapping[str, Any], folder: Path, trusted: Collection[str | Path], *,
                     drawn: bool = False) -> None:
    """ScenarioError for a training run, perhaps received from another user, that names code of no installed package.

    drawn: the run is looked at only, for which its scenario's environment class is loaded and nothing else.
    """
    if is_trusted(folder, trusted):
        return
    what, env, found = request["scenario"], request["env"], []
    if env and not drawn and not is_known("env", env):
        found.append(("env", env))
    if what and is_code(what):
        found.append(("scenario", what))  # to look at it is to run it
    elif what:
        found += [named for named in foreign(scenario_of(request, trusted)) if not drawn or named[0] == "environment"]
    refuse_foreign(found, folder, trusted)
