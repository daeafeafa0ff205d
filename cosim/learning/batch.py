"""Many copies of a scenario that step together, their steered members played as arrays: the fast `Environments`.

A scenario's `environment` names in `batch` the class that steps its steered members in all copies at once. It has

    lacks(resolved, plan) -> what it cannot do of this scenario, [] if it can all
    plays, outside  members that it plays, and those whose data it takes itself, which depend on nothing that is done:
                    worlds do not step either (`elsewhere`), and worlds of a seed and an episode have it from the first
    cls(steering, simulators, plan, n_envs)     steering: as in `cosim.learning.vector`, of one started world
    ahead(time, world)          the world is about to run on to the step `time`: what it could compute beside others
    solve(due)                  what the worlds gave as that
    take(b, time, world, first)  what comes from outside before the step at `time`, of world b, and of the first that
                                meets the same from outside, which is taken from before it
    observe(time_s) -> (B, n, O)
    context(leaders' action) -> (B, n, C)
    step(action, going) -> rewards (B,), terms (B, terms), credit (B, n) or None
    by_term() -> (B, 1 + n, K) after `step`, where that class has it
    sends(time, b) -> connections to those members of world b that step at bus step `time`, and what they receive
    next_day(worlds), state() -> arrays, restore(arrays)

All other members of a world are its own, and run as always. Numbers are those of `Environments`, to the last digits
of sums that are added up in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld
from cosim.drivers.resolve import at, resolve
from cosim.errors import CosimError, ScenarioError
from cosim.imports import load
from cosim.learning.variation import variations_of, varied
from cosim.learning.vector import (
    Arrays,
    Step,
    carry_as_state,
    carry_of_state,
    failure_in,
    nobody,
    part_of,
    refuse_memory,
    refuse_unsplit,
    seed_of,
    steering_of,
    step_of,
    steps_ahead,
)
from cosim.scenario import Scenario


def lacking(scenario: Scenario) -> list[str]:
    """What `BatchEnvironments` cannot do of a `learning_scenario`, each in a few words; [] if it can all."""
    path = getattr(steering_of(scenario), "batch", None)
    if path is None:
        return [f"environment = {scenario.environment} steers one world at a time"]
    resolved = resolve(scenario)
    if resolved.remote:
        return [f"member '{resolved.remote[0]}' runs in another process"]
    world = NativeWorld(resolved, Control(resolved.clock, resolved.until), linked_only=True)
    try:
        world.start()
        return load(path, "environment").lacks(resolved, world.plan)
    finally:
        world.close()


class BatchEnvironments:
    """Environments side by side in this process: an `agents.learn.spec.VectorEnv`; arguments as of `Environments`.

    ScenarioError for a scenario of which something is `lacking`.
    """

    def __init__(self, scenario: Scenario, indices: Sequence[int], seed: int, episode: int = 0,
                 stagger_over: int = 0, twins: int = 1, vary: Mapping[str, str] | None = None, split: bool = False
                 ) -> None:
        if beyond := lacking(scenario):
            raise ScenarioError(f"{scenario.name} cannot be learnt on many worlds at once: {beyond[0]}; use the engine "
                                "simpy")
        if split:
            refuse_unsplit(scenario)
        self._resolved, self._class = resolve(scenario), steering_of(scenario)
        self._variations = variations_of(vary or {}, scenario)
        self._plays = load(self._class.batch, "environment")
        self._stagger_over, self._first_episode, self.twins = stagger_over, episode, twins
        self.on_way: Callable[[float], None] = nobody
        self._step = self._resolved.clock.steps(self._resolved.scenario.members[self._class.member].step_s)
        self._indices, self.n_envs = list(indices), len(indices)
        self._seeds = [seed_of(seed, b // twins) for b in indices]
        self._worlds: dict[int, NativeWorld] = {}
        self._batch = self._make_batch()
        self.spec, self.terms = self._batch.steering.spec, tuple(self._class.terms)
        self.credit_terms = tuple(self._batch.steering.credit_terms) if split else ()
        self._by_term: np.ndarray | None = None

    def reset(self) -> np.ndarray:
        """(B, n, O): all environments begin anew."""
        self.close()
        self._empty()
        for b in range(self.n_envs):
            self._begin(b, {})
        self._look(np.ones(self.n_envs, bool))
        steps_a_day = self._resolved.until // self._step
        ahead = np.array([steps_ahead(b, steps_a_day, self._stagger_over, self.twins) for b in self._indices])
        start = np.repeat(self._batch.steering.start()[None], self.n_envs, axis=0)
        for k in range(ahead.max()):
            self._go(start, ahead > k)
            self.on_way((k + 1) / ahead.max())
        return self.observation

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C); changes nothing."""
        return self._batch.context(np.asarray(leaders_action, np.float32))

    def step(self, action: np.ndarray) -> Step:
        """One step of all; a failure is sent with the environment's number, seed and episode where it is one's own."""
        (rewards, terms, credit), ended = self._go(np.asarray(action, np.float32), np.ones(self.n_envs, bool))
        return step_of(self.observation, rewards.astype(np.float32), terms, ended, self.terms,
                       None if credit is None else credit.astype(np.float32),
                       None if self._by_term is None else self._by_term.astype(np.float32))

    def state(self) -> Arrays:
        """What each day began with, what its world was sent since, and how its members stand that are played here,
        under the environments' numbers: '0/sent'."""
        out: Arrays = {}
        for b, (number, now) in enumerate(zip(self._indices, self._batch.state(), strict=True)):
            mine = {"seed": np.array(self._seeds[b]), "episode": np.array(self._episodes[b]),
                    "time": np.array(self._times[b]), "sent": np.array(self._sent[b], np.float64)}
            mine |= {f"now/{name}": array for name, array in now.items()}
            mine |= carry_as_state(self._carried[b])
            out |= {f"{number}/{name}": array for name, array in mine.items()}
        return out

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from `state`: the worlds play their open days again. ScenarioError as of `Environments`."""
        refuse_memory(self._batch.steering)
        self.close()
        self._empty()
        now: list[Arrays] = []
        sent: dict[int, np.ndarray] = {}
        for b, number in enumerate(self._indices):
            mine = part_of(state, number, "sent")
            self._seeds[b], self._episodes[b] = int(mine["seed"]), int(mine["episode"])
            self._begin(b, carry_of_state(mine))
            self._times[b], sent[b] = int(mine["time"]), mine["sent"]
            now.append({key.removeprefix("now/"): array for key, array in mine.items() if key.startswith("now/")})
        self._first = self._firsts()
        for b, rows in sent.items():
            self._replay(b, rows)
        self._batch.restore(now)
        self._watch()
        return self.observation

    def close(self) -> None:
        """End the members of all."""
        for world in self._worlds.values():
            world.close()
        self._worlds = {}

    # --- inside -------------------------------------------------------------------------------------------------

    def _empty(self) -> None:
        """Before the first day: no jobs inside, nothing sent."""
        self._batch = self._make_batch()
        self._episodes, self._times = [self._first_episode] * self.n_envs, np.zeros(self.n_envs, np.int64)
        self._carried: list[dict[str, Arrays]] = [{} for _ in self._seeds]
        self._sent: list[list[list[float]]] = [[] for _ in self._seeds]
        self._first = self._firsts()

    def _firsts(self) -> list[int]:
        """Of each environment the first that meets the same from outside: of its seed, gone on from the same, and as
        far."""
        first: dict[tuple[int | bytes, ...], int] = {}
        return [first.setdefault((self._seeds[b], self._episodes[b], int(self._times[b]), *(
                    array.tobytes() for name in self._batch.outside
                    for _, array in sorted(self._carried[b].get(name, {}).items()))), b) for b in range(self.n_envs)]

    def _make_batch(self) -> Any:
        """Who plays the steered members, sent of them by a world that is not stepped."""
        resolved = at(self._resolved, self._seeds[0], self._first_episode)
        world = NativeWorld(resolved, Control(resolved.clock, resolved.until), linked_only=True)
        world.start()
        return self._plays(self._class(world), world.simulators, world.plan, self.n_envs)

    def _begin(self, b: int, carried: dict[str, Arrays]) -> None:
        """A new day of one environment, whose world goes on from what is carried over."""
        seed, episode = self._seeds[b], self._episodes[b]
        resolved = varied(at(self._resolved, seed, episode), self._variations, seed, episode)
        world = NativeWorld(resolved, Control(resolved.clock, resolved.until), carried, linked_only=True,
                            elsewhere=self._batch.elsewhere)
        world.start()
        self._worlds[b], self._carried[b], self._sent[b], self._times[b] = world, carried, [], 0

    def _go(self, action: np.ndarray, going: np.ndarray) -> tuple[Any, np.ndarray]:
        """One step of some; what it gave, and which days ended."""
        outcome = self._batch.step(action, going)
        if self.credit_terms:
            self._by_term = self._batch.by_term()
        self._times[going] += self._step
        ended = going & (self._times >= self._resolved.until)
        over = np.flatnonzero(ended)
        if len(over):
            self._batch.next_day(over)
            self._next_days(over.tolist())
        self._look(going)
        return outcome, ended

    def _next_days(self, over: Sequence[int]) -> None:
        outside: dict[int, dict[str, Arrays]] = {}
        for b in over:
            world, batch, first = self._worlds[b], self._batch, self._first[b]
            with self._named(b):
                world.run(self._resolved.until)
                carried = world.carry(without=(*batch.plays, *(batch.outside if first != b else ())))
            outside[b] = {name: carried[name] for name in batch.outside if name in carried}
            world.close()
            self._episodes[b] += 1
            with self._named(b):
                self._begin(b, carried | outside[first])

    def _look(self, going: np.ndarray) -> None:
        """The worlds of some run up to the moment before the next step, and all are seen."""
        due, some = [], [(int(b), int(self._times[b]), self._worlds[int(b)]) for b in np.flatnonzero(going)]
        for b, time, world in some:
            connections, values = self._batch.sends(time, b)
            if connections:
                self._sent[b].append(values)
                world.send(connections, values)
            with self._named(b):
                due.append(self._batch.ahead(time, world))
        self._batch.solve(due)
        for b, time, world in some:
            self._take(b, time, world)
        self._watch()

    def _take(self, b: int, time: int, world: NativeWorld) -> None:
        """A world runs up to the moment before a step, and what comes from outside is taken from it."""
        with self._named(b):
            world.run(time + 1)
            self._batch.take(b, time, world, self._first[b])

    @contextmanager
    def _named(self, b: int) -> Iterator[None]:
        """What fails names the environment."""
        try:
            yield
        except CosimError as err:
            raise failure_in(self._indices[b], self._seeds[b], self._episodes[b], err) from err

    def _watch(self) -> None:
        self.observation = self._batch.observe(np.array([self._resolved.clock.seconds(int(t)) for t in self._times]))

    def _replay(self, b: int, sent: np.ndarray) -> None:
        """Run a world, at its day's start, to where it stood, and take what was taken from it."""
        rows = iter(sent.tolist())
        for time in range(0, int(self._times[b]) + 1, self._step):
            connections, _ = self._batch.sends(time, b)
            if connections:
                self._sent[b].append(values := next(rows))
                self._worlds[b].send(connections, values)
            self._take(b, time, self._worlds[b])
