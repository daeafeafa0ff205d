"""Environments of `cosim.learning.vector` in worker processes: arrays in shared memory files, one byte a message.

A worker is this module run as a program (`cosim.learning.shared`). A command is one byte; states travel as numpy
archives.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cosim.collector import settle
from cosim.errors import CosimError, ScenarioError
from cosim.imports import load
from cosim.learning.shared import (
    LENGTH,
    Child,
    SharedFolder,
    mapped,
    packed,
    say,
    say_failure,
    spoken_to,
    unpacked,
)
from cosim.learning.vector import Arrays, Environments, Step, step_of
from cosim.scenario import Scenario


class Workers:
    """B environments in `workers` processes: an `cosim.agents.learn.spec.VectorEnv`; the numbers are those of
    `Environments`.

    scenario: a `cosim.learning.vector.learning_scenario`; made: class of the environments. ModelError when a
    worker ends by itself.
    """

    def __init__(self, scenario: Scenario, n_envs: int, workers: int, seed: int, episode: int = 0,
                 stagger_over: int = 0, twins: int = 1, made: type = Environments,
                 vary: Mapping[str, str] | None = None, split: bool = False) -> None:
        one = made(scenario, [0], seed, episode, vary=vary, split=split)
        one.close()
        self.spec, self.n_envs, self.twins = one.spec, n_envs, twins
        self._names, self.credit_terms = list(one.terms), one.credit_terms
        self._folder = SharedFolder()
        self._arrays = _arrays(self._folder.path, _shapes_of(one, n_envs))
        self._workers: list[Child] = []
        try:
            for part in parts_of(n_envs, workers):
                name = f"worker {len(self._workers)} (environments {', '.join(map(str, part))})"
                self._workers.append(Child("cosim.learning.workers", name, {
                    "scenario": scenario.to_json(), "first": part.start, "every": part.step, "n_envs": n_envs,
                    "seed": seed, "episode": episode, "stagger_over": stagger_over, "twins": twins,
                    "vary": dict(vary or {}), "split": split,
                    "made": f"{made.__module__}:{made.__qualname__}", "folder": str(self._folder.path)}))
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise

    def reset(self) -> np.ndarray:
        """(B, n, O): all environments begin anew."""
        self._all(b"r")
        return self._arrays["observation"].copy()

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C); changes nothing."""
        self._arrays["leaders"][:] = leaders_action
        self._all(b"c")
        return self._arrays["context"].copy()

    def step(self, action: np.ndarray) -> Step:
        """One step of all."""
        a = self._arrays
        a["action"][:] = action
        self._all(b"s")
        return step_of(a["observation"].copy(), a["reward"].copy(), a["terms"].copy(), a["ended"].copy(), self._names,
                       None if np.isnan(a["credit"]).any() else a["credit"].copy(),
                       a["by_term"].copy() if self.credit_terms else None)

    def state(self) -> Arrays:
        """All environments', as `Environments.state`."""
        self._send(b"g")
        state = {name: array for worker in self._workers for name, array in unpacked(worker.answer()).items()}
        return {name: state[name] for name in sorted(state, key=lambda name: int(name.partition("/")[0]))}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from `state`."""
        data = packed(state)
        for worker in self._workers:
            worker.send(b"p" + LENGTH.pack(len(data)) + data)
        self._answers()
        return self._arrays["observation"].copy()

    def close(self) -> None:
        """End the processes and free the memory."""
        for worker in self._workers:
            worker.end()
        self._workers = []
        self._arrays = {}
        self._folder.close()

    def _all(self, command: bytes) -> None:
        self._send(command)
        self._answers()

    def _send(self, command: bytes) -> None:
        for worker in self._workers:
            worker.send(command)

    def _answers(self) -> None:
        failures = []
        for worker in self._workers:  # every answer is read, or the next command would meet this one's
            try:
                worker.answer()
            except CosimError as err:
                failures.append(err)
        if failures:
            raise failures[0]


def parts_of(n_envs: int, workers: int) -> list[range]:
    """Indices of the environments of each worker, dealt out in turn (worker k: k, k + workers, ...).

    Neighbouring environments start at similar hours of the day; in contiguous blocks, one worker would get all the busy
    hours, and the others would wait for it in every step.
    """
    every = min(workers, n_envs)
    return [range(first, n_envs, every) for first in range(every)]


def _shapes_of(own: Any, n_envs: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shared arrays of `n_envs` environments like these: name -> (shape, dtype)."""
    spec, terms = own.spec, len(own.terms)
    n, (o, c, a) = len(spec.agents), spec.widths
    split = {"by_term": ((n_envs, 1 + n, len(own.credit_terms)), np.float32)} if own.credit_terms else {}
    return split | {
        "observation": ((n_envs, n, o), np.float32), "context": ((n_envs, n, c), np.float32),
        "action": ((n_envs, n, a), np.float32), "leaders": ((n_envs, spec.leaders, a), np.float32),
        "reward": ((n_envs,), np.float32), "credit": ((n_envs, n), np.float32),
        "terms": ((n_envs, terms), np.float64), "ended": ((n_envs,), np.bool_)}


def main() -> int:
    """A worker: builds the environments described by its first line, then runs commands until its input ends."""
    commands, answers = spoken_to()
    start = json.loads(commands.readline())
    try:
        desk = _Desk(start)
    except CosimError as err:
        say_failure(answers, err)
        return err.exit_code
    settle()
    say(answers, b"")
    while command := commands.read(1):
        try:
            say(answers, desk.do(command, commands))
        except CosimError as err:
            say_failure(answers, err)
    desk.close()
    return 0


class _Desk:
    """A worker's environments and its rows of the shared arrays."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        rows = slice(given["first"], None, given["every"])
        self._environments = own = load(given["made"], "environments")(
            Scenario.from_json(given["scenario"]), range(given["n_envs"])[rows], given["seed"], given["episode"],
            given["stagger_over"], given["twins"], given["vary"], given["split"])
        shapes = _shapes_of(own, given["n_envs"])
        self._mine = {name: array[rows] for name, array in _arrays(Path(given["folder"]), shapes).items()}

    def do(self, command: bytes, more: BinaryIO) -> bytes:
        """Obey one command; what goes with the answer."""
        own, mine = self._environments, self._mine
        if command == b"s":
            step = own.step(mine["action"])
            mine["observation"][:], mine["reward"][:], mine["ended"][:] = step.observation, step.reward, step.truncated
            mine["terms"][:] = np.stack(list(step.terms.values()), axis=1)
            mine["credit"][:] = np.nan if step.credit is None else step.credit
            if step.by_term is not None:
                mine["by_term"][:] = step.by_term
            if step.truncated.any():
                gc.collect()  # the worlds of a day that ended
        elif command == b"c":
            mine["context"][:] = own.context(mine["leaders"])
        elif command == b"r":
            mine["observation"][:] = own.reset()
        elif command == b"g":
            return packed(own.state())
        elif command == b"p":
            mine["observation"][:] = own.restore(unpacked(more.read(LENGTH.unpack(more.read(LENGTH.size))[0])))
        else:
            raise ScenarioError(f"unknown command {command!r} to a worker")
        return b""

    def close(self) -> None:
        """End the members."""
        self._environments.close()


def _arrays(folder: Path, shapes: Mapping[str, tuple[tuple[int, ...], type]]) -> Arrays:
    """Name -> array mapped from the file of that name in `folder`."""
    return {name: mapped(folder, name, shape, dtype) for name, (shape, dtype) in shapes.items()}


if __name__ == "__main__":
    sys.exit(main())
