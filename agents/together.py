"""Several processes that learn one team: how the first starts the others, and their program (`python -m` this module).

Each plays some of the environments and computes some of every gradient, see `cosim.agents.learn.peers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cosim.agents.fleet.learned import differences, trained_spec
from cosim.agents.learn.checkpoint import LAST
from cosim.agents.learn.config import Learning
from cosim.agents.learn.history import of_steps, without_history
from cosim.agents.learn.peers import Together
from cosim.agents.learn.spec import credit_terms
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import Training, TrainingPlan
from cosim.collector import settle
from cosim.errors import CosimError, ScenarioError
from cosim.learning.environment import some_of
from cosim.learning.shared import (
    LENGTH,
    Child,
    SharedFolder,
    mapped,
    packed,
    received,
    say,
    say_failure,
    spoken_to,
    unpacked,
)
from cosim.scenario import Scenario


def begun(team: Team, start: str | None) -> Team:
    """The team with what that of a checkpoint has learned; None: as it is. ScenarioError for one that does not fit."""
    if start is None:
        return team
    trained = trained_spec(start)
    if found := differences(trained, without_history(team.spec, team.history_steps)):
        raise ScenarioError(f"--start {start} does not fit: {'; '.join(found)}; give one of the same scenario and "
                            "controller settings")
    team.begin_from(start)
    return team


class OtherProcesses:
    """The processes beside this one, which is the first; a `Channel` to them.

    scenario: a `learning_scenario`; worlds: what else `some_of` needs, as plain data; numbers: of the environments,
    process by process. ModelError when one ends by itself, and the error that one of them has.
    """

    def __init__(self, scenario: Scenario, worlds: Mapping[str, Any], numbers: Sequence[Sequence[int]],
                 learning: Learning, plan: TrainingPlan, resume: bool) -> None:
        self._folder = SharedFolder()
        self._children: list[Child] = []
        request = plan.request or {}
        start = {"scenario": scenario.to_json(), "worlds": dict(worlds), "numbers": [list(mine) for mine in numbers],
                 "learning": asdict(learning), "seed": worlds["seed"], "start": request.get("start"), "resume": resume,
                 "folder": str(self._folder.path),
                 "plan": {"out": str(plan.out), "episodes": plan.episodes, "updates": plan.updates,
                          "save_every": plan.save_every}}
        self.peers = Together(0, numbers, self)
        try:
            for rank, mine in enumerate(numbers[1:], 1):
                name = f"process {rank} (environments {', '.join(map(str, mine))})"
                self._children.append(Child("cosim.agents.together", name, {**start, "rank": rank}))
        except BaseException:
            self.close()
            raise

    def share(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """See `Channel`."""
        return mapped(self._folder.path, name, shape, dtype)

    def exchange(self, said: bytes) -> list[bytes]:
        """See `Channel`."""
        return [said, *self._heard(said)]

    def gather(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Channel`."""
        found = dict(arrays)
        for data in self._heard(b""):
            found |= unpacked(data)
        return found

    def close(self) -> None:
        """End the processes and free the memory."""
        for child in self._children:
            child.end()
        self._children = []
        self._folder.close()

    def _heard(self, said: bytes) -> list[bytes]:
        heard = [child.answer() for child in self._children]
        for child in self._children:
            child.send(LENGTH.pack(len(said)) + said)
        return heard


class FirstProcess:
    """The `Channel` of a process that is not the first."""

    def __init__(self, folder: Path, commands: BinaryIO, answers: BinaryIO) -> None:
        self._folder, self._commands, self._answers = folder, commands, answers

    def share(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """See `Channel`."""
        return mapped(self._folder, name, shape, dtype)

    def exchange(self, said: bytes) -> list[bytes]:
        """See `Channel`."""
        say(self._answers, said)
        return [received(self._commands)]

    def gather(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Channel`."""
        self.exchange(packed(arrays))
        return dict(arrays)


def main() -> int:
    """A process that learns beside the first, configured by its first line of input; it ends with the training, or when
    the first is gone."""
    commands, answers = spoken_to()
    start = json.loads(commands.readline())
    try:
        _learn(start, FirstProcess(Path(start["folder"]), commands, answers))
    except CosimError as err:
        say_failure(answers, err)
        return err.exit_code
    except (EOFError, BrokenPipeError):  # it ended before
        pass
    return 0


def _learn(start: Mapping[str, Any], channel: FirstProcess) -> None:
    rank, numbers = start["rank"], start["numbers"]
    peers = Together(rank, numbers, channel)
    env = of_steps(some_of(Scenario.from_json(start["scenario"]), numbers[rank], **start["worlds"]),
                   start["learning"]["history_steps"], numbers[rank], goes_on=True)
    plan = TrainingPlan(Path(start["plan"].pop("out")), **start["plan"])
    try:
        if start["resume"]:
            training = Training(Team.load(plan.out / LAST, peers=peers), env, plan)
            training.resume()
        else:
            team = Team(env.spec, Learning(**start["learning"]), start["seed"], peers=peers, terms=credit_terms(env))
            training = Training(begun(team, start["start"]), env, plan)
            training.begin()
        settle()
        training.run(lambda record: None)
    finally:
        env.close()


if __name__ == "__main__":
    sys.exit(main())
