"""Environments with a teacher: a policy by its name that decides in each of them, for a team to learn the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cosim.errors import ScenarioError
from cosim.learning.vector import Environments
from cosim.scenario import Scenario


class TaughtEnvironments(Environments):
    """`Environments` beside which a policy runs: an `cosim.agents.learn.spec.TaughtEnv`.

    Each environment has a teacher of its own, which goes on from day to day; its memory is not in `state`. The
    class by which agents act on the scenario must have teacher(name), lesson_lead(teacher) -> (leaders, A) and
    lesson(teacher, leaders' action) -> (n, A).
    """

    def __init__(self, teacher: str, scenario: Scenario, indices: Sequence[int], seed: int, episode: int = 0,
                 stagger_over: int = 0, twins: int = 1, vary: Mapping[str, str] | None = None, split: bool = False
                 ) -> None:
        super().__init__(scenario, indices, seed, episode, stagger_over, twins, vary, split)
        if not hasattr(self.envs[0].steering, "teacher"):
            raise ScenarioError(f"{scenario.name}: {scenario.environment} has no teacher; leave --teacher out")
        self._teachers: list[Any] = [env.steering.teacher(teacher) for env in self.envs]

    def lesson_lead(self) -> np.ndarray:
        """(B, leaders, A) the leaders' actions that the teachers choose in this step."""
        return np.stack([env.steering.lesson_lead(teacher)
                         for env, teacher in zip(self.envs, self._teachers, strict=True)])

    def lesson(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, A) the joint actions that they choose, given the leaders' of this step."""
        return np.stack([env.steering.lesson(teacher, lead) for env, teacher, lead in
                         zip(self.envs, self._teachers, leaders_action, strict=True)])

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """ScenarioError: the memory of teachers is in no state."""
        raise ScenarioError("a training by a teacher does not go on where it was; begin it anew, in another folder")
