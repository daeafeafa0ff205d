"""One scenario as a PettingZoo ParallelEnv, over the same code as `cosim.learning.vector`, for other people's learners.

All agents act at once, so no agent receives the manager's decision: a site's action is made of ratios, which apply to
whatever jobs it is sent. Actions are flat boxes of [0, 1]: shares are divided by their sum over what is eligible, an
interval goes from its low to its high end. Observations are those of the team's spec, scaled into [-1, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.learning.vector import Environment, learning_scenario
from cosim.scenario import Scenario


class ScenarioEnv(ParallelEnv):
    """A day is an episode; its last step truncates. Every agent gets the team's reward; `infos` hold its terms.

    reset(seed=s) begins anew: empty data centers, first day of the scenario's seed s. reset() goes on with the next
    day, from the jobs of the last one if that was played to its end, else empty. options are not used.
    """

    metadata = {"name": "aidc_cosim_v0", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(self, scenario: Scenario) -> None:
        self._env = Environment(resolve(learning_scenario(scenario)), scenario.seed, scenario.episode)
        spec = self._env.steering.spec
        self.possible_agents = list(spec.names)
        self.agents: list[str] = []
        kinds = [spec.type_of(k) for k in range(len(spec.agents))]
        self._widths = [len(kind.observation) for kind in kinds]
        self.observation_spaces = {name: _box(-1.0, width)
                                   for name, width in zip(spec.names, self._widths, strict=True)}
        self.action_spaces = {name: _box(0.0, kind.action_width)
                              for name, kind in zip(spec.names, kinds, strict=True)}
        self.state_space = _box(-1.0, sum(self._widths))

    def observation_space(self, agent: str) -> Box:
        """The same object every time."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        """The same object every time."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None
              ) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        """(observations, infos) of a day's first minute; see the class."""
        if seed is not None:
            self._env.reset(int(seed))
        elif self.agents:
            self._env.next_day(carry=False)
        # else the day was played to its end, and the next one has begun; or nothing has been played yet
        self.agents = list(self.possible_agents)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """(observations, rewards, terminations, truncations, infos) of one minute.

        ScenarioError if an agent's action is missing or has the wrong number of values, or before reset().
        """
        if not self.agents:
            raise ScenarioError("step() before reset(), or after the day's end; call reset()")
        steering = self._env.steering
        joint = np.zeros(self._env.shape, np.float32)
        for k, agent in enumerate(self.agents):
            joint[k] = steering.from_unit(k, self._checked(agent, actions))
        reward, values, _, ended = self._env.step(joint)
        terms = dict(zip(steering.terms, values, strict=True))
        here = self.agents
        observations = self._observations()
        if ended:
            self.agents = []
        return (observations, dict.fromkeys(here, reward), dict.fromkeys(here, False), dict.fromkeys(here, ended),
                {agent: dict(terms) for agent in here})

    def state(self) -> np.ndarray:
        """All agents' observations together, one flat array, for a central critic."""
        return np.concatenate([row[:width] for row, width in zip(self._env.observation, self._widths, strict=True)])

    def close(self) -> None:
        """End the members."""
        self._env.close()

    def _observations(self) -> dict[str, np.ndarray]:
        return {agent: row[:width].copy() for agent, row, width in
                zip(self.possible_agents, self._env.observation, self._widths, strict=True)}

    def _checked(self, agent: str, actions: dict[str, Any]) -> np.ndarray:
        shape = self.action_spaces[agent].shape
        if agent not in actions or np.shape(actions[agent]) != shape:
            found = f"shape {np.shape(actions[agent])}" if agent in actions else "none"
            raise ScenarioError(f"the action of {agent} has {found}, not {shape}; give one to every agent")
        return np.asarray(actions[agent])


def _box(low: float, width: int) -> Box:
    return Box(low, 1.0, (width,), np.float32)
