"""A scenario as something to learn on: many copies side by side, or one PettingZoo ParallelEnv."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cosim.errors import ScenarioError, unknown
from cosim.imports import optional
from cosim.learning.batch import BatchEnvironments, lacking
from cosim.learning.lessons import TaughtEnvironments
from cosim.learning.vector import Environments, learning_scenario
from cosim.learning.workers import Workers
from cosim.request import find
from cosim.scenario import Scenario

if TYPE_CHECKING:
    from cosim.learning.pettingzoo import ScenarioEnv

Engine = Literal["auto", "compiled", "simpy"]
_CLASSES: dict[str, type[Environments] | type[BatchEnvironments]] = {
    "simpy": Environments, "compiled": BatchEnvironments}


def vector_env(scenario: str | Path | Scenario, n_envs: int = 8, workers: int = 2, seed: int = 0, episode: int = 0,
               lean: bool = True, stagger: bool = False, twins: int = 1, engine: Engine = "simpy",
               vary: Mapping[str, str] | None = None, split: bool = False
               ) -> Workers | Environments | BatchEnvironments:
    """`n_envs` environments that step together, an `cosim.agents.learn.spec.VectorEnv`.

    scenario: its name, its file, or itself; workers: processes that share the environments, 0: this one; the numbers do
    not depend on it. seed: environment b plays the scenario's seed 1000 (seed + 1) + b // twins
    (`cosim.learning.vector`); episode: number of the first day; lean: leave out what agents cannot notice (AC check,
    job log); stagger: `reset` lets environment b play b/n_envs of its first day by the start action, so that a short
    rollout of all of them covers the day; twins: so many environments in a row meet the same arrivals, prices and loads
    at the same minutes, so that they differ by what was decided alone. engine: compiled, controllers and data centers
    of all environments at once, as arrays: several times faster with the same numbers, for scenarios of which nothing
    is `lacking` (needs the extra `fast`); simpy: one world after the other, any scenario; auto: the choice of
    `engine_of`. vary: parameters outside of the fleet that each environment draws anew every day, path -> 'LOW:HIGH' or
    'A|B|C' (`cosim.learning.variation`). split: steps have `by_term`, rewards and credits term by term, by the
    environments' `credit_terms`, which a critic of each term needs. Raises ScenarioError.
    """
    if n_envs < 1 or workers < 0:
        raise ScenarioError(f"n_envs = {n_envs} must be >= 1 and workers = {workers} >= 0")
    if twins < 1 or n_envs % twins:
        raise ScenarioError(f"twins = {twins} must be >= 1 and divide n_envs = {n_envs}")
    if engine not in get_args(Engine):
        raise ScenarioError(unknown("engine", engine, get_args(Engine)))
    engine = engine_of(scenario, lean)[0] if engine == "auto" else engine
    prepared = learning_scenario(scenario_of(scenario), lean)
    over = n_envs if stagger else 0
    if workers:
        return Workers(prepared, n_envs, workers, seed, episode, over, twins, _CLASSES[engine], vary, split)
    return some_of(prepared, range(n_envs), engine, seed, episode, over, twins, vary, split=split)


def some_of(prepared: Scenario, numbers: Sequence[int], engine: str, seed: int = 0, episode: int = 0,
            stagger_over: int = 0, twins: int = 1, vary: Mapping[str, str] | None = None, teacher: str | None = None,
            split: bool = False) -> Environments | BatchEnvironments:
    """The environments of these numbers in this process, of however many: see `vector_env`.

    prepared: a `learning_scenario`; engine: compiled or simpy; stagger_over, vary, split: as of `Environments`;
    teacher: of `TaughtEnvironments`, on simpy whatever the engine; None: no teacher
    """
    if teacher is not None:
        return TaughtEnvironments(teacher, prepared, numbers, seed, episode, stagger_over, twins, vary, split)
    return _CLASSES[engine](prepared, numbers, seed, episode, stagger_over, twins, vary, split)


def engine_of(scenario: str | Path | Scenario, lean: bool = True) -> tuple[Engine, str]:
    """The fastest engine that can do a scenario, and why it is not the compiled one ('' where it is)."""
    if importlib.util.find_spec("numba") is None:
        return "simpy", "numba is not installed; pip install 'aidc-cosim[fast]'"
    beyond = lacking(learning_scenario(scenario_of(scenario), lean))
    return ("simpy", beyond[0]) if beyond else ("compiled", "")


def parallel_env(scenario: str | Path | Scenario) -> ScenarioEnv:
    """The scenario as a PettingZoo ParallelEnv (`cosim.learning.pettingzoo.ScenarioEnv`); needs pettingzoo."""
    with optional("a PettingZoo environment", "learn"):
        from cosim.learning.pettingzoo import ScenarioEnv
    return ScenarioEnv(scenario_of(scenario))


def scenario_of(scenario: str | Path | Scenario) -> Scenario:
    """A scenario from its name or file; one that is there already as it is."""
    return scenario if isinstance(scenario, Scenario) else find(scenario)
