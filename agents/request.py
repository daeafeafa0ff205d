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
from cosim.drivers.resolve import command_of
from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.params import field_names, params, validate
from cosim.request import changed, find, is_code
from cosim.scenario import Scenario, override
from cosim.trust import foreign, is_foreign_text, is_known, is_trusted, refuse_foreign

MODES = {"joint": {"controller.mode": "joint"}, "power": {"controller.mode": "power", "grid.lambda_kw_per_kg_h": "0"}}
"""What a mode sets: power mode has no carbon in the dispatch's objective, none in observations. A grid whose objective
has no such weight is left as it is."""
_WEIGHT = "grid.lambda_kw_per_kg_h"

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
    use: Annotated[dict[str, str], Field(default_factory=dict, description="member -> simulator in its place")]
    names: Annotated[dict[str, str], Field(default_factory=dict, description="our port or entity -> what that "
                                           "simulator calls it")]
    vary: Annotated[dict[str, str], Field(default_factory=dict, description="fields of the scenario that each "
                                          "environment draws anew every day, and from what")]
    teacher: Annotated[str | None, Field(description="a policy whose decisions the team learns; None: it learns from "
                                         "rewards")] = None
    start: Annotated[str | None, Field(description="a checkpoint whose team is where this one begins")] = None
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
    """The scenario of a request, as its mode, settings and the simulators in members' places make it; the classes of
    these are loaded."""
    mode = dict(MODES.get(request["mode"], {}))
    weight = mode.pop(_WEIGHT, None)
    scenario = changed(find(request["scenario"], trusted, request["use"]), use=request["use"], names=request["names"],
                       settings={**mode, **request["settings"]})
    if weight is None or _WEIGHT in request["settings"] or not _weighs_carbon(scenario):
        return scenario
    return override(scenario, {_WEIGHT: weight})


def written(request: Mapping[str, Any], trusted: Collection[str | Path] = ()) -> Scenario:
    """The scenario of a request without the simulators in members' places, of which nothing is loaded."""
    return override(find(request["scenario"], trusted, request["use"]), request["settings"])


def _weighs_carbon(scenario: Scenario) -> bool:
    """Whether the grid that runs here has the weight that power mode sets to 0."""
    member, _, field = _WEIGHT.partition(".")
    grid = scenario.members.get(member)
    if grid is None or command_of(grid.simulator):
        return False
    return field in field_names(getattr(load(grid.simulator, f"simulator of member '{member}'"), "PARAMS", None))


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
        named = [*foreign(written(request, trusted), request["use"]),
                 *((f"{member}.simulator", simulator) for member, simulator in request["use"].items()
                   if not is_known(f"{member}.simulator", simulator)),
                 *((path, text) for path, text in request["settings"].items() if is_foreign_text(path, text))]
        found += [one for one in named if not drawn or one[0] == "environment"]
    refuse_foreign(found, folder, trusted)
