"""Small environments and teams for the learners' tests."""

from dataclasses import replace

import numpy as np

from cosim.agents.learn.spec import AgentType, Choice, Column, Interval, Outcome, Simplex, TeamSpec


def columns(count, name="o"):
    return tuple(Column(f"{name}{k}", scale="raw") for k in range(count))


USUAL = tuple(Column(f"u{k}", -4.0, 0.0) for k in range(4))
BOSS = AgentType("boss", (*columns(1), *USUAL),
                 (Simplex("to", 3, (True, False, True)), Simplex("of", 4, around=tuple(c.name for c in USUAL))))
SITE = AgentType("site", columns(7), (Simplex("when", 3), Interval("temp", 18.0, 23.0, 19.0), Choice("mode", 3)),
                 columns(2, "c"))
SHED = AgentType("shed", columns(2), (Interval("level", -1.0, 1.0),), columns(1, "c"))


def mixed_team():
    """A leader and two types of followers whose agents do not stand together; every kind of part; padding."""
    kinds = {k.name: k for k in (BOSS, SITE, SHED)}
    return TeamSpec((("b", "boss"), ("s1", "site"), ("h1", "shed"), ("s2", "site"), ("h2", "shed")), kinds, leaders=1)


def site_team(n_sites=3):
    """A leader and followers of one type."""
    return TeamSpec((("b", "boss"), *((f"s{k}", "site") for k in range(n_sites))), {"boss": BOSS, "site": SITE}, 1)


class Follow:
    """A walk with a state of its own, random pushes and days of 7 steps that truncate; the team should push x to 0.

    The leader's first share is passed on to the followers as context. `state` holds all of it, generators included.
    """

    def __init__(self, n_envs=3, seed=0):
        self.spec, self.n_envs, self.twins = site_team(2), n_envs, 1
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self):
        self.x, self.day = self.rng.normal(size=self.n_envs), np.arange(self.n_envs) % 7
        return self._view()

    def context(self, leaders_action):
        told = np.zeros((self.n_envs, 3, 2), np.float32)
        told[:, 1:, 0] = leaders_action[:, 0, :1]
        return told

    def step(self, action):
        self.x = 0.9 * self.x + 0.1 * (action[:, 1:, 3].mean(axis=1) - 20.5) + 0.1 * self.rng.normal(size=self.n_envs)
        self.day = self.day + 1
        truncated = self.day == 7
        self.day[truncated] = 0
        reward = (-np.abs(self.x)).astype(np.float32)
        view = self._view()
        return Outcome(view, reward, {"distance": np.abs(self.x)}, np.zeros(self.n_envs, bool), truncated, view)

    def state(self):
        state = self.rng.bit_generator.state["state"]
        words = [state[k] >> (64 * j) & (2**64 - 1) for k in ("state", "inc") for j in (0, 1)]
        return {"x": self.x, "day": self.day, "rng": np.array(words, np.uint64)}

    def restore(self, state):
        words = [int(w) for w in state["rng"]]
        self.rng.bit_generator.state = {"bit_generator": "PCG64", "has_uint32": 0, "uinteger": 0, "state": {
            "state": words[0] | words[1] << 64, "inc": words[2] | words[3] << 64}}
        self.x, self.day = state["x"].copy(), state["day"].copy()
        return self._view()

    def close(self):
        pass

    def _view(self):
        seen = np.zeros((self.n_envs, 3, 7), np.float32)
        seen[:, :, 0], seen[:, :, 1] = self.x[:, None], self.day[:, None] / 7
        return seen


class Split(Follow):
    """`Follow`, whose reward is that of the first term up to 1 and of the second beyond; of one term, all of it. The
    first follower has a quarter of each."""

    def __init__(self, credit_terms, n_envs=3, seed=0):
        self.credit_terms = credit_terms
        super().__init__(n_envs, seed)

    def step(self, action):
        outcome = super().step(action)
        near = np.maximum(outcome.reward, -1.0) if len(self.credit_terms) > 1 else outcome.reward
        team = np.stack([near, outcome.reward - near], axis=1)[:, :len(self.credit_terms)]
        by_term = team[:, None] * np.array([1.0, 1.0, 0.25, 0.75], np.float32)[:, None]
        return replace(outcome, by_term=by_term, credit=by_term[:, 1:].sum(axis=2))


def collected(team, env, observation):
    """(a rollout of a team on an environment from an observation on, the last observation)."""
    rollout = team.rollout(env.n_envs, env.twins)
    for _ in range(rollout.steps):
        step, told = team.act(observation, env.context)
        outcome = env.step(step.action)
        rollout.add(observation, told, step, outcome, team.value(outcome.final_observation))
        observation = outcome.observation
    rollout.end(team.value(observation))
    return rollout, observation
