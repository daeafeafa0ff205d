"""The request of a training run as plain data: the world it names, and whether that may be run.

A request is stored in the checkpoint of the run, so that it may come from another user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cosim.agents.learn import checkpoint
from cosim.errors import ScenarioError
from cosim.params import params, validate
from cosim.request import find, is_code
from cosim.scenario import Scenario, override
from cosim.trust import foreign, is_known, is_trusted, refuse_foreign

MODES = {"joint": {"controller.mode": "joint"}, "power": {"controller.mode": "power", "grid.lambda_kw_per_kg_h": "0"}}
"""What a mode sets: power mode has no carbon in the dispatch's objective, none in observations."""

_MOST_ENVS = 65536
"""Environments of a training; each has a row of every array."""


@params(kw_only=True)
class TrainingRequest:
    """Settings of a training run. Exactly one of `scenario` and `env` is there."""

    scenario: Annotated[str | None, Field(description="name or file of a scenario")] = None
    env: Annotated[str | None, Field(description="import string of a function that makes a ParallelEnv")] = None
    engine: Annotated[Literal["auto", "compiled", "simpy"], Field(description="who plays the sites")] = "simpy"
    mode: Annotated[Literal["joint", "power"] | None, Field(description="None: as the scenario has it")] = None
    learn: Annotated[dict[str, Any], Field(description="fields of the learner that were set")]
    settings: Annotated[dict[str, str], Field(description="fields of the scenario that were set")]
    vary: Annotated[dict[str, str], Field(default_factory=dict, description="fields of the scenario that each "
                                          "environment draws anew every day, and from what")]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63, description="of everything random")]
    envs: Annotated[int, Field(strict=True, ge=1, le=_MOST_ENVS, description="environments side by side")]
    episodes: Annotated[int, Field(strict=True, ge=1, description="after which training ends")] = 1000
    updates: Annotated[int | None, Field(strict=True, ge=0, description="the same in updates")] = None


def checked(request: Any, owner: str) -> dict[str, Any]:
    """A request as plain data. ScenarioError naming owner.field for a value that no request has. A run of old has no
    engine and had SimPy."""
    if not isinstance(request, Mapping):
        raise ScenarioError(f"{owner} is no table of a training's settings; train it again or fetch it anew")
    found = asdict(validate(TrainingRequest, request, owner, bounded=False))
    if bool(found["scenario"]) == bool(found["env"]):
        raise ScenarioError(f"{owner} names both or neither of scenario and env; it takes one")
    return found


def stored(path: Path) -> dict[str, Any]:
    """The request that the training run of a checkpoint keeps in it. ScenarioError where none is."""
    extra = checkpoint.read(path, "extra/")[1].get("extra")
    if not isinstance(extra, Mapping) or not extra.get("request"):
        raise ScenarioError(f"{path} does not say what its run was asked for; only runs of cosim train go on or are "
                            "drawn")
    try:
        return checked(extra["request"], "request")
    except ScenarioError as err:
        raise ScenarioError(f"checkpoint '{path}': {err}") from None


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
