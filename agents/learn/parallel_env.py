"""Any PettingZoo ParallelEnv as a team's environments, by its methods and spaces alone (no package is needed here).

Box observations become columns (ranged where the space is bounded), bounded Box actions intervals, Discrete and
MultiDiscrete actions choices. Agents with equal spaces and names up to a trailing _number are of one type. There are no
leaders. The team's reward is the mean of its agents'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cosim.agents.learn.spec import AgentType, Choice, Column, Interval, Outcome, Part, TeamSpec, scaled
from cosim.errors import ScenarioError
from cosim.seeds import stream


class ParallelEnvs:
    """B copies of one environment, stepped in turn; a `VectorEnv`.

    Every episode of every copy is reset with a seed of its own, so that `state` can be the seed and the actions since.
    Episodes end when no agent is left: terminated if all of them ended for good, else truncated.
    """

    def __init__(self, make: Callable[[], Any], n_envs: int, seed: int):
        if n_envs < 1:
            raise ScenarioError(f"envs = {n_envs} must be >= 1")
        self.n_envs, self.twins = n_envs, 1  # a foreign environment's exogenous inputs are unknown
        self._copies = [_Copy(make(), seed, b) for b in range(n_envs)]
        self.spec = team_of(self._copies[0].env)

    def reset(self) -> np.ndarray:
        """See VectorEnv."""
        return self._views([copy.reset() for copy in self._copies])

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """Nothing: there are no leaders."""
        return np.zeros((self.n_envs, len(self.spec.agents), 0), np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        """See VectorEnv."""
        reward = np.zeros(self.n_envs, np.float32)
        ends = np.zeros((2, self.n_envs), bool)
        final, after = [], []
        for b, copy in enumerate(self._copies):
            seen, reward[b], ends[0, b], ends[1, b] = copy.step(action[b])
            final.append(seen)
            after.append(copy.reset() if ends[:, b].any() else seen)
        return Outcome(self._views(after), reward, {}, ends[0], ends[1], self._views(final))

    def state(self) -> dict[str, np.ndarray]:
        """See VectorEnv."""
        return {f"{b}/{name}": x for b, copy in enumerate(self._copies) for name, x in copy.state().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """See VectorEnv; the open episodes are played again."""
        return self._views([copy.restore(int(state[f"{b}/episode"]), state[f"{b}/actions"])
                            for b, copy in enumerate(self._copies)])

    def close(self) -> None:
        """See VectorEnv."""
        for copy in self._copies:
            copy.env.close()

    def _views(self, seen: list[Mapping[str, Any]]) -> np.ndarray:
        """(B, n, O) scaled; zeros for agents that have left."""
        out = np.zeros((self.n_envs, len(self.spec.agents), self.spec.widths[0]), np.float32)
        for b, observations in enumerate(seen):
            for i, name in enumerate(self.spec.names):
                if name in observations:
                    columns = self.spec.type_of(i).observation
                    out[b, i, :len(columns)] = scaled(np.ravel(observations[name]), columns)
        return out


class _Copy:
    """One environment and what it takes to be there again."""

    def __init__(self, env: Any, seed: int, index: int):
        self.env, self._seed, self._index, self._episode = env, seed, index, -1
        self._actions: list[np.ndarray] = []

    def reset(self) -> Mapping[str, Any]:
        """Begin the next episode."""
        self._episode += 1
        self._actions = []
        rng = stream(self._seed, self._episode, f"environment {self._index}", "reset")
        self._seen, _ = self.env.reset(seed=int(rng.integers(2**31)))
        return self._seen

    def step(self, action: np.ndarray) -> tuple[Mapping[str, Any], float, bool, bool]:
        """(observations, reward, terminated, truncated) of one joint action (n, A)."""
        env = self.env
        self._actions.append(np.array(action, np.float32))
        present = set(env.agents)
        orders = {name: _executable(env.action_space(name), action[i])
                  for i, name in enumerate(env.possible_agents) if name in present}
        seen, rewards, terminations, _, _ = env.step(orders)
        self._seen = seen
        over = not env.agents
        gone = over and all(terminations.get(name, False) for name in orders)
        return seen, float(sum(rewards.values())) / len(env.possible_agents), gone, over and not gone

    def state(self) -> dict[str, np.ndarray]:
        """Episode and actions since its start."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 0, 0), np.float32)
        return {"episode": np.array(self._episode), "actions": actions}

    def restore(self, episode: int, actions: np.ndarray) -> Mapping[str, Any]:
        """Play the episode again up to that moment."""
        self._episode = episode - 1
        seen = self.reset()
        for action in actions:
            seen = self.step(action)[0]
        return seen


def team_of(env: Any) -> TeamSpec:
    """Observations and actions of a ParallelEnv's agents. ScenarioError for a space that is not supported."""
    types: dict[str, AgentType] = {}
    agents = []
    for name in env.possible_agents:
        columns, parts = _columns(name, env.observation_space(name)), _parts(name, env.action_space(name))
        stem, _, number = name.rpartition("_")
        base = stem if stem and number.isdigit() else name
        kind = base
        while kind in types and (types[kind].observation, types[kind].action) != (columns, parts):
            kind += "'"
        types.setdefault(kind, AgentType(kind, columns, parts))
        agents.append((name, kind))
    return TeamSpec(tuple(agents), types)


def _columns(agent: str, space: Any) -> tuple[Column, ...]:
    if type(space).__name__ != "Box":
        raise ScenarioError(f"agent '{agent}' sees a {type(space).__name__}; a Box is needed (flatten it)")
    return tuple(Column(f"o{k}", float(low), float(high)) if high - low < 1e6 else Column(f"o{k}", scale="raw")
                 for k, (low, high) in enumerate(zip(np.ravel(space.low), np.ravel(space.high), strict=True)))


def _parts(agent: str, space: Any) -> tuple[Part, ...]:
    kind = type(space).__name__
    if kind == "Discrete":
        return (Choice("a", int(space.n)),)
    if kind == "MultiDiscrete":
        return tuple(Choice(f"a{k}", int(n)) for k, n in enumerate(np.ravel(space.nvec)))
    if kind != "Box" or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ScenarioError(f"agent '{agent}' acts in {space}; a bounded Box, Discrete or MultiDiscrete is needed")
    return tuple(Interval(f"a{k}", float(low), float(high))
                 for k, (low, high) in enumerate(zip(np.ravel(space.low), np.ravel(space.high), strict=True)))


def _executable(space: Any, row: np.ndarray) -> Any:
    """An action of the space's own shape and type from the front of a row."""
    kind = type(space).__name__
    if kind == "Discrete":
        return int(row[0]) + int(space.start)
    if kind == "MultiDiscrete":
        return np.asarray(row[:space.nvec.size], space.dtype).reshape(space.nvec.shape)
    size = int(np.prod(space.shape))
    return np.clip(np.asarray(row[:size], space.dtype).reshape(space.shape), space.low, space.high)
