"""What a team did in a stretch of T steps of B environments, and how good it was: numpy arrays, no torch.

Axes: T steps, B environments, n agents, K terms of the reward. Rewards are shared by the agents; values are each
agent's own, in real units, one or K of them.

Rows: L16, L18, T06, T07.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.agents.learn.peers import Alone, Peers
from cosim.agents.learn.spec import Stepped, TeamSpec


@dataclass(frozen=True)
class TeamStep:
    """One decision of the team: action (B, n, A), raw (B, n, R), log_prob (B, n), value (B, n) or (B, n, K), order
    (B, n)."""

    action: np.ndarray
    raw: np.ndarray
    log_prob: np.ndarray
    value: np.ndarray
    order: np.ndarray


class Rollout:
    """Storage of T steps; filled by `add`, closed by `end`.

    observation (T, B, n, O), context (T, B, n, C), raw (T, B, n, R), order (T, B, n), log_prob, value and next_value
    (T, B, n), reward (T, B), credit (T, B, n) what of it each agent learns from, terminated and truncated (T, B). With
    `terms` of the reward, value, next_value and credit are (T, B, n, terms), and so are the values that are given.
    shared: everyone learns from all of the reward, whatever an outcome credits; peers: with whom the arrays are filled.
    What is given to `add` and `end` is of the `n_envs` environments that are played here
    """

    def __init__(self, spec: TeamSpec, steps: int, n_envs: int, n_raw: int, twins: int = 1, shared: bool = False,
                 peers: Peers | None = None, terms: int = 0):
        peers = peers or Alone()
        seen, told, _ = spec.widths
        shape = (steps, peers.all_envs(n_envs), len(spec.agents))
        self.steps, self.filled, self.twins, self.shared, self._rows = steps, 0, twins, shared, peers.rows
        self.observation = peers.zeros("observation", (*shape, seen), np.float32)
        self.context = peers.zeros("context", (*shape, told), np.float32)
        self.raw = peers.zeros("raw", (*shape, n_raw), np.float32)
        self.order = peers.zeros("order", shape, np.int64)
        self.terms, worth = terms, (*shape, terms) if terms else shape
        self.log_prob = peers.zeros("log_prob", shape, np.float32)
        self.value, self.next_value, self.credit = (
            peers.zeros(name, worth, np.float32) for name in ("value", "next_value", "credit"))
        self.reward = peers.zeros("reward", shape[:2], np.float32)
        self.terminated, self.truncated = (peers.zeros(name, shape[:2], bool) for name in ("terminated", "truncated"))

    def add(self, observation: np.ndarray, context: np.ndarray, step: TeamStep, outcome: Stepped,
            final_value: np.ndarray | None) -> None:
        """One step and what came of it; `final_value` (B, n) is read where an episode was truncated."""
        t, rows = self.filled, self._rows
        for name, value in (("observation", observation), ("context", context), ("raw", step.raw),
                            ("order", step.order), ("log_prob", step.log_prob), ("value", step.value),
                            ("reward", outcome.reward), ("terminated", outcome.terminated),
                            ("truncated", outcome.truncated)):
            getattr(self, name)[t, rows] = value
        self.shared = self.shared or outcome.credit is None
        self.credit[t, rows] = self._credited(outcome)
        if t:
            self._follow(t - 1, step.value)
        ends = np.zeros(np.shape(step.value), np.float32) if final_value is None else final_value
        self.next_value[t, rows] = np.where(_along(np.asarray(outcome.truncated), ends), ends, 0.0)
        self.filled += 1

    def end(self, value: np.ndarray) -> None:
        """The value (B, n) of the observation after the last step, where its episode goes on."""
        self._follow(self.filled - 1, value)

    def _credited(self, outcome: Stepped) -> np.ndarray:
        """What each agent learns from, (B, n) or (B, 1, terms), (B, n, terms)."""
        if self.terms:
            assert outcome.by_term is not None, "an environment with credit_terms"
            return outcome.by_term[:, :1] if self.shared else outcome.by_term[:, 1:]
        return outcome.reward[:, None] if self.shared or outcome.credit is None else outcome.credit

    def _follow(self, t: int, value: np.ndarray) -> None:
        """The value of what step t led to, where its episode goes on."""
        over = self.terminated[t, self._rows] | self.truncated[t, self._rows]
        self.next_value[t, self._rows] = np.where(_along(over, value), self.next_value[t, self._rows], value)

    def advantages(self, discount: float, gae_lambda: float, value_lambda: float, usual: np.ndarray | float = 0.0
                   ) -> tuple[np.ndarray, np.ndarray]:
        """(advantage, return), (T, B, n), of what each agent is credited with less its `usual` (n,); the return is that
        of `value_lambda`. With terms: the sum of the terms' advantages, and (T, B, n, K) a return for each, less
        `usual` (n, K).

        Where all are credited with all, their values estimate one number, whose mean is less noisy than each.
        Of twins the advantage is less their mean, which holds the exogenous noise and none of the actions:
        what is left is what an environment's own actions did (Mao et al. 2019, input-driven baselines, here sampled).
        """
        value, next_value = ((np.repeat(x.mean(axis=2, keepdims=True), x.shape[2], 2) if self.shared else x)
                             for x in (self.value, self.next_value))
        seen = (self.credit - np.float32(usual), value, next_value, _along(self.terminated, value),
                _along(self.truncated, value), discount)
        advantage, _ = gae(*seen, gae_lambda)
        _, target = gae(*seen, value_lambda)
        if self.terms:
            advantage = advantage.sum(axis=3)
        if self.twins > 1:
            grouped = advantage.reshape(len(advantage), -1, self.twins, advantage.shape[2])
            advantage = (grouped - grouped.mean(axis=2, keepdims=True)).reshape(advantage.shape)
        return advantage, target


def _along(flags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Flags of environments with the further axes of `values`, to be broadcast along them."""
    return flags.reshape(*flags.shape, *(1,) * (values.ndim - flags.ndim))


def gae(reward: np.ndarray, value: np.ndarray, next_value: np.ndarray, terminated: np.ndarray, truncated: np.ndarray,
        discount: float, gae_lambda: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantages (Schulman et al. 2016) and value targets, (T, ...), along each environment's time line.

    next_value: of the state that a step led to, before any reset; a terminated state is worth 0, a truncated one the
    critic's value. No advantage crosses the end of an episode.
    """
    delta = reward + discount * np.where(terminated, 0.0, next_value) - value
    keep = discount * gae_lambda * ~(terminated | truncated)
    advantage = np.zeros(delta.shape, np.float64)
    later = np.zeros(delta.shape[1:], np.float64)
    for t in range(len(delta) - 1, -1, -1):
        later = delta[t] + keep[t] * later
        advantage[t] = later
    return advantage.astype(np.float32), (advantage + value).astype(np.float32)
