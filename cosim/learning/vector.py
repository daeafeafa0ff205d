"""Many copies of a scenario that step together, for learning: day after day, without a reset at midnight.

A scenario names the class through which agents act on it (`environment`); this module runs its worlds. Such a class has

    member, terms     whose turn the world stops at; names of the figures of one step
    prepare(scenario, lean) -> scenario as it is learnt on
    cls(world)        for a started NativeWorld; then .spec (`cosim.agents.learn.spec.TeamSpec`)
    observe(time_s) -> (n, O), context(leaders' action) -> (n, C), decide(action)
    outcome() -> (reward, terms, (n,) credit or None)
    credit_terms, by_term()  optional: names of K terms; after `outcome`, (1 + n, K) the reward and the credits (the
                      reward where there are none) as sums of them
    start()           the joint action (n, A) from which a fresh policy starts
    go_on_from(before), has_memory  optional: goes on from the object of the day before; whether what it observes
                      depends on that, so that no `state` has it all
    steers, copies    members whose parameters agents are made for; member -> whose parameters it has, too: what a
                      training cannot vary, and what it varies with another (`cosim.learning.variation`)

An episode is the scenario from t = 0 to its end, one day in the study. Its end is a truncation: the next episode goes
on with everything that members carry over (`Adapter.carry`), with random numbers of its own.

Rows: L03, L05, L15.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld
from cosim.drivers.resolve import Resolved, at, resolve
from cosim.errors import CosimError, ScenarioError
from cosim.imports import load
from cosim.learning.variation import Variation, variations_of, varied
from cosim.scenario import Scenario

SEEDS_PER_RUN = 1000
"""Environment b of a run with seed s plays the scenario's seed 1000 (s + 1) + b // twins: no two runs share one, and
seeds below 1000, which simulations and evaluations use, are never trained on."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What one step of B environments gave; the fields of `cosim.agents.learn.spec.Outcome`. Terms are float64."""

    observation: np.ndarray
    reward: np.ndarray
    terms: Mapping[str, np.ndarray]
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: np.ndarray
    credit: np.ndarray | None
    by_term: np.ndarray | None = None


def learning_scenario(scenario: Scenario, lean: bool = True) -> Scenario:
    """The scenario as it is learnt on. lean: without what agents cannot notice. ScenarioError if it names no
    environment."""
    return steering_of(scenario).prepare(scenario, lean)


def seed_of(seed: int, index: int) -> int:
    """The scenario's seed in the `index`-th outside world of a run with `seed`; see SEEDS_PER_RUN."""
    return SEEDS_PER_RUN * (seed + 1) + index


class Environment:
    """One environment: a scenario's worlds, one after the other. `observation` (n, O) is always that of the next step.

    resolved: of a `learning_scenario`; its seed and episode do not matter. variations: see `cosim.learning.variation`.
    split: rewards are split, too; `by_term` (1 + n, K) is that of the step done last
    """

    def __init__(self, resolved: Resolved, seed: int, episode: int = 0, variations: Sequence[Variation] = (),
                 split: bool = False) -> None:
        if resolved.remote:
            raise ScenarioError(f"member '{resolved.remote[0]}' runs in another process; agents learn on scenarios "
                                "whose members all run in this one")
        self._resolved, self.seed, self.first_episode, self._variations = resolved, seed, episode, list(variations)
        self._steering_class = steering_of(resolved.scenario)
        self._split = split
        self.by_term: Sequence[Sequence[float]] = []
        self._world: NativeWorld | None = None
        self._actions: list[np.ndarray]
        self._carried: dict[str, Arrays]
        self.reset()

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin anew: empty, at the first episode; with another seed if one is given."""
        self.seed = self.seed if seed is None else seed
        self.episode = self.first_episode
        return self._begin({})

    def next_day(self, carry: bool) -> np.ndarray:
        """Begin the next episode, going on from where this one stands, or empty."""
        kept = self._open.carry() if carry else {}
        self.episode += 1
        return self._begin(kept)

    def step(self, action: np.ndarray) -> tuple[float, tuple[float, ...], Sequence[float] | None, bool]:
        """Execute (n, A); reward, values of the terms, credit, and whether the episode ended (the next has begun)."""
        self._actions.append(np.array(action, np.float32))
        self.steering.decide(self._actions[-1])
        time = self._open.run_to(self._steering_class.member, self._resolved.until)
        outcome = self.steering.outcome()
        if self._split:
            self.by_term = self.steering.by_term()
        if time is None:
            self.next_day(carry=True)
            return *outcome, True
        self.observation = self.steering.observe(self._resolved.clock.seconds(time))
        return *outcome, False

    def state(self) -> Arrays:
        """What the day began with, and what has been done since: all of it, as the rest follows from the seed."""
        state = {"seed": np.array(self.seed), "episode": np.array(self.episode),
                 "actions": np.array(self._actions, np.float32).reshape(-1, *self.shape)}
        return state | carry_as_state(self._carried)

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Play the open day again; the observation of that moment, bit for bit."""
        self.seed, self.episode = int(state["seed"]), int(state["episode"])
        self._begin(carry_of_state(state))
        if state["actions"].shape[1:] != self.shape or not np.isfinite(state["actions"]).all():
            raise ScenarioError(f"the saved state has actions {state['actions'].shape}; they take (steps, "
                                f"{self.shape[0]}, {self.shape[1]}) finite numbers")
        for action in state["actions"]:
            self.step(action)
        return self.observation

    def close(self) -> None:
        """End the members."""
        if self._world is not None:
            self._world.close()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, A) of an action."""
        return len(self.steering.spec.agents), self.steering.spec.widths[2]

    @property
    def _open(self) -> NativeWorld:
        """The world of the day."""
        assert self._world is not None, "reset() begins one"
        return self._world

    def _begin(self, carried: dict[str, Arrays]) -> np.ndarray:
        self.close()
        resolved = varied(at(self._resolved, self.seed, self.episode), self._variations, self.seed, self.episode)
        self._carried, self._actions = carried, []
        self._world = world = NativeWorld(resolved, Control(resolved.clock, resolved.until), carried, linked_only=True)
        world.start()
        before = getattr(self, "steering", None) if carried else None
        self.steering = self._steering_class(world)
        if before is not None and hasattr(before, "go_on_from"):
            self.steering.go_on_from(before)
        time = world.run_to(self._steering_class.member, resolved.until)
        if time is None:
            raise ScenarioError(f"{self._steering_class.member} never steps in {resolved.scenario.name}; "
                                "make it longer")
        self.observation = self.steering.observe(resolved.clock.seconds(time))
        return self.observation


class Environments:
    """Environments side by side in this process: an `cosim.agents.learn.spec.VectorEnv`.

    on_way: called during `reset` with how much of it is done, 0 to 1
    scenario: a `learning_scenario`; indices: the global numbers of these environments, which fix their seeds;
    stagger_over: with a number B, environment b plays b/B of its first day by the start action at `reset`, so that B of
    them are spread over the day; 0: all begin at its start. twins: so many environments in a row meet the same outside
    world, at the same minutes. vary: path -> what its values are (`cosim.learning.variation`); split: rewards and
    credits are given term by term, too, by the `credit_terms`
    """

    def __init__(self, scenario: Scenario, indices: Sequence[int], seed: int, episode: int = 0,
                 stagger_over: int = 0, twins: int = 1, vary: Mapping[str, str] | None = None, split: bool = False
                 ) -> None:
        resolved, variations = resolve(scenario), variations_of(vary or {}, scenario)
        self._stagger_over, self.twins = stagger_over, twins
        self.on_way: Callable[[float], None] = nobody
        self._steps_a_day = resolved.until // resolved.clock.steps(
            resolved.scenario.members[steering_of(scenario).member].step_s)
        if split:
            refuse_unsplit(scenario)
        self.envs = [Environment(resolved, seed_of(seed, b // twins), episode, variations, split) for b in indices]
        steering = self.envs[0].steering
        self.spec, self.n_envs, self._indices = steering.spec, len(self.envs), list(indices)
        self.terms, self.credit_terms = tuple(steering.terms), tuple(steering.credit_terms) if split else ()

    def reset(self) -> np.ndarray:
        """(B, n, O): all environments begin anew."""
        begun = []
        for k, (b, env) in enumerate(zip(self._indices, self.envs, strict=True)):
            begun.append(self._begin(b, env))
            self.on_way((k + 1) / self.n_envs)
        return np.stack(begun)

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C); changes nothing."""
        return np.stack([env.steering.context(a) for env, a in zip(self.envs, leaders_action, strict=True)])

    def step(self, action: np.ndarray) -> Step:
        """One step of all; a failure is raised with the environment's number, seed and episode."""
        results = []
        for b, env, mine in zip(self._indices, self.envs, action, strict=True):
            try:
                results.append(env.step(mine))
            except CosimError as err:
                raise failure_in(b, env.seed, env.episode, err) from err
        rewards, terms, credit, ended = zip(*results, strict=True)
        return step_of(np.stack([env.observation for env in self.envs]), np.array(rewards, np.float32),
                       np.array(terms), np.array(ended), self.terms,
                       None if credit[0] is None else np.array(credit, np.float32),
                       np.array([env.by_term for env in self.envs], np.float32) if self.credit_terms else None)

    def state(self) -> Arrays:
        """All environments', under their numbers: '0/actions'."""
        return {f"{b}/{name}": array for b, env in zip(self._indices, self.envs, strict=True)
                for name, array in env.state().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from `state`; ScenarioError if it lacks one of these environments, and as `refuse_memory`."""
        refuse_memory(self.envs[0].steering)
        return np.stack([env.restore(part_of(state, b, "actions"))
                         for b, env in zip(self._indices, self.envs, strict=True)])

    def close(self) -> None:
        """End the members of all."""
        for env in self.envs:
            env.close()

    def _begin(self, index: int, env: Environment) -> np.ndarray:
        env.reset()
        start = env.steering.start()
        for _ in range(steps_ahead(index, self._steps_a_day, self._stagger_over, self.twins)):
            env.step(start)
        return env.observation


def nobody(done: float) -> None:
    """No progress of `reset` is shown."""


def step_of(observation: np.ndarray, reward: np.ndarray, terms: np.ndarray, ended: np.ndarray,
            names: Sequence[str], credit: np.ndarray | None, by_term: np.ndarray | None = None) -> Step:
    """A Step from arrays (B, ...); terms (B, names). An ended day is truncated, and as the next one goes on from it,
    its final observation is the first of the next."""
    return Step(observation, reward, {name: terms[:, k] for k, name in enumerate(names)}, np.zeros(len(ended), bool),
                ended, observation, credit, by_term)


def steps_ahead(index: int, steps_a_day: int, stagger_over: int, twins: int) -> int:
    """Steps of its first day that an environment plays at `reset`; see `stagger_over` of `Environments`."""
    return steps_a_day * (index - index % twins) // stagger_over if stagger_over else 0


def failure_in(index: int, seed: int, episode: int, err: CosimError) -> CosimError:
    """An error of the same kind that names the environment."""
    return type(err)(f"environment {index} (seed {seed}, episode {episode}): {err}")


def part_of(state: Mapping[str, np.ndarray], index: int, least: str) -> Arrays:
    """What a saved state has of one environment, in which `least`, a whole seed and a whole episode are never missing.
    ScenarioError if one is."""
    prefix = f"{index}/"
    mine = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
    if least not in mine:
        raise ScenarioError(f"the saved state has no environment {index}; restore it with the same number of "
                            "environments")
    for name in ("seed", "episode"):
        if name not in mine or mine[name].dtype.kind not in "iu" or mine[name].shape or mine[name] < 0:
            raise ScenarioError(f"the saved state of environment {index} has no whole {name} >= 0; fetch it anew")
    if mine[least].dtype.kind not in "fiu":
        raise ScenarioError(f"the saved state of environment {index} has {mine[least].dtype} as {least}, not numbers; "
                            "fetch it anew")
    return mine


def refuse_memory(steering: Any) -> None:
    """ScenarioError where what agents observe follows from a memory of a rule, of which a state has nothing."""
    if getattr(steering, "has_memory", False):
        raise ScenarioError("what the rule around which this team learns remembers is not saved; begin anew with "
                            "another --out, and with --start from its last checkpoint for what it has learned")


def refuse_unsplit(scenario: Scenario) -> None:
    """ScenarioError where agents act through a class that does not split a reward by term."""
    if not hasattr(steering_of(scenario), "credit_terms"):
        raise ScenarioError(f"{scenario.name}: {scenario.environment} does not split its reward by term, which learn."
                            "critic = terms needs; leave learn.critic out")


def steering_of(scenario: Scenario) -> Any:
    if scenario.environment is None:
        raise ScenarioError(f"scenario {scenario.name} names no environment; agents learn on one that has "
                            "environment='package.module:Class'")
    return load(scenario.environment, "environment")


def carry_as_state(carried: Mapping[str, Arrays]) -> Arrays:
    """What members carry over, as 'carry/member/name' of a state."""
    return {f"carry/{member}/{name}": _numeric(array) for member, arrays in carried.items()
            for name, array in arrays.items()}


def carry_of_state(state: Mapping[str, np.ndarray]) -> dict[str, Arrays]:
    """The inverse of `carry_as_state`; other entries are passed over."""
    carried: dict[str, Arrays] = {}
    for key, array in state.items():
        if key.startswith("carry/"):
            _, member, name = key.split("/", 2)
            carried.setdefault(member, {})[name] = _text_or_numbers(array)
    return carried


def _numeric(array: np.ndarray) -> np.ndarray:
    """Text as the bytes of its JSON, so that a state is numbers throughout."""
    if array.dtype.kind != "U":
        return np.asarray(array)
    return np.frombuffer(json.dumps(array.tolist()).encode(), np.uint8)


def _text_or_numbers(array: np.ndarray) -> np.ndarray:
    return np.array(json.loads(array.tobytes())) if array.dtype == np.uint8 else array
