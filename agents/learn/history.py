"""An agent's own last steps as columns of its observation: the present ones, then those of one step ago, and so on.

A team that attends over time alone is not Markov in what it is shown; this keeps what it was shown. Before there is a
past, the first observation stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cosim.agents.learn.spec import AgentType, Outcome, TeamSpec, VectorEnv, credit_terms
from cosim.errors import ScenarioError

_KEY = "history"


def with_history(spec: TeamSpec, steps: int) -> TeamSpec:
    """The spec whose agents observe `steps` steps: columns '<name> -1' are those of one step ago."""
    def of(kind: AgentType) -> AgentType:
        past = [replace(c, name=f"{c.name} -{ago}") for ago in range(1, steps) for c in kind.observation]
        return replace(kind, observation=(*kind.observation, *past))
    return replace(spec, types={name: of(kind) for name, kind in spec.types.items()})


def without_history(spec: TeamSpec, steps: int) -> TeamSpec:
    """The inverse of `with_history`. ScenarioError for a spec that is not of so many steps."""
    def of(kind: AgentType) -> AgentType:
        return replace(kind, observation=kind.observation[:len(kind.observation) // steps])
    found = replace(spec, types={name: of(kind) for name, kind in spec.types.items()})
    if with_history(found, steps) != spec:
        raise ScenarioError(f"a team of history_steps = {steps} observes its columns so many times, and this one does "
                            "not")
    return found


class Window:
    """The last `steps` observations (B, n, O) of B environments. spec: without history."""

    def __init__(self, spec: TeamSpec, steps: int, n_envs: int) -> None:
        self._widths = [len(spec.type_of(i).observation) for i in range(len(spec.agents))]
        self.held = np.zeros((n_envs, steps, len(spec.agents), spec.widths[0]), np.float32)

    def fill(self, observation: np.ndarray, rows: np.ndarray | slice = slice(None)) -> None:
        """Begin anew in some environments."""
        self.held[rows] = observation[rows][:, None]

    def pushed(self, observation: np.ndarray) -> np.ndarray:
        """(B, steps, n, O) with one more observation, the oldest left out; nothing is changed."""
        return np.concatenate((observation[:, None], self.held[:, :-1]), axis=1)

    def rows(self, held: np.ndarray | None = None) -> np.ndarray:
        """(B, n, steps O) observations of the spec with history."""
        held = self.held if held is None else held
        out = np.zeros((len(held), held.shape[2], held.shape[1] * held.shape[3]), np.float32)
        for i, width in enumerate(self._widths):
            mine = held[:, :, i, :width].reshape(len(held), -1)
            out[:, i, :mine.shape[1]] = mine
        return out


class WithHistory:
    """`env`, whose agents observe their last steps: a VectorEnv.

    numbers: of its environments, under which their state is saved; goes_on: whether an episode that is cut off goes on
    in the next one, as days of a scenario do; else the past ends with an episode.
    """

    def __init__(self, env: VectorEnv, steps: int, numbers: Sequence[int], goes_on: bool) -> None:
        self._env, self._numbers, self._goes_on = env, list(numbers), goes_on
        self.n_envs, self.twins, self.credit_terms = env.n_envs, env.twins, credit_terms(env)
        self._window = Window(env.spec, steps, env.n_envs)
        self.spec = with_history(env.spec, steps)

    @property
    def on_way(self) -> Callable[[float], None]:
        """Of the environments inside, where they have it: called during `reset` with how much of it is done."""
        return self._env.on_way  # type: ignore[attr-defined]

    @on_way.setter
    def on_way(self, called: Callable[[float], None]) -> None:
        self._env.on_way = called  # type: ignore[attr-defined]

    def reset(self) -> np.ndarray:
        """See VectorEnv."""
        self._window.fill(self._env.reset())
        return self._window.rows()

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """See VectorEnv."""
        return self._env.context(leaders_action)

    def step(self, action: np.ndarray) -> Outcome:
        """See VectorEnv."""
        outcome, window = self._env.step(action), self._window
        final = window.rows(window.pushed(outcome.final_observation)) if np.any(outcome.truncated) else None
        window.held = window.pushed(outcome.observation)
        anew = np.asarray(outcome.terminated) if self._goes_on else np.asarray(outcome.terminated) | outcome.truncated
        if anew.any():
            window.fill(outcome.observation, anew)
        seen = window.rows()
        return Outcome(seen, outcome.reward, outcome.terms, outcome.terminated, outcome.truncated,
                       seen if final is None else final, outcome.credit, outcome.by_term)

    def state(self) -> dict[str, np.ndarray]:
        """See VectorEnv."""
        mine = {f"{number}/{_KEY}": held for number, held in zip(self._numbers, self._window.held, strict=True)}
        return {**self._env.state(), **mine}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """See VectorEnv. ScenarioError for a state without a past, or with another team's."""
        self._env.restore({name: x for name, x in state.items() if not name.endswith(f"/{_KEY}")})
        shape = self._window.held.shape[1:]
        for b, number in enumerate(self._numbers):
            held = state.get(f"{number}/{_KEY}", np.zeros(0))
            if held.shape != shape or held.dtype.kind != "f" or not np.isfinite(held).all():
                raise ScenarioError(f"the saved state of environment {number} has no {shape[0]} past observations of "
                                    "this team")
            self._window.held[b] = held
        return self._window.rows()

    def close(self) -> None:
        """See VectorEnv."""
        self._env.close()


def of_steps(env: Any, steps: int, numbers: Sequence[int], goes_on: bool) -> Any:
    """`env` as a team of `history_steps` observes it; itself for one step."""
    return env if steps == 1 else WithHistory(env, steps, numbers, goes_on)
