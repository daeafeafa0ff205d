"""python -m benchmarks.spread [CHANGE ...]: how fast a team learns a public task, simple_spread of mpe2, seed by seed.

Three agents are to cover three landmarks without bumping into each other, see `examples/simple_spread.py`. Here many
copies of it step at once, with the package's numbers (`tests/agents/test_spread.py`). The table has a row for what
`cosim train --env` does by default, and one for each CHANGE of it, with commas:

    python -m benchmarks.spread --seeds 3 entropy=0.001,permute=true,kl_limit=none

Figures are an episode's reward, mean over agents: of the exploring team in the last twentieth of its steps, and of what
it has then learned, without noise, in 400 episodes that none saw; mean and standard deviation over seeds. `assigned` is
what forces towards the landmarks of the shortest assignment get: no bound, but a program that works.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.coordination import rows_of, said
from cosim.agents.learn.config import Learning
from cosim.agents.learn.spec import AgentType, Column, Interval, Outcome, TeamSpec
from cosim.agents.train_request import FOREIGN
from cosim.console import OneLineParser, fail, plain_console, print_digest
from cosim.digest import Digest, Table
from cosim.errors import CosimError, ScenarioError
from cosim.imports import load
from cosim.seeds import stream

AGENTS, STEPS, COPIES = 3, 25, 32
FORCE, STEP_S, KEPT, PUSH, MARGIN, REACH = 5.0, 0.1, 0.75, 100.0, 1e-3, 0.3
"""Of mpe2's world: force per unit of action, length of a step, speed that friction leaves, contact force and margin,
and the distance at which two agents touch."""
SETUP: Mapping[str, Any] = {"method": "mat", **FOREIGN, "rollout_steps": STEPS}
"""Of the learner; else its defaults."""
UNSEEN, TRIALS, LAST = 10**6, 400, 0.05
"""Seed and number of the episodes after learning; share of the steps that count as the last."""
_SELF = np.eye(AGENTS, dtype=bool)


class Spread:
    """Copies of simple_spread with forces, in step: a `cosim.agents.learn.spec.VectorEnv` that is not resumed.

    place, speed (B, 3, 2) of the agents; landmark (B, 3, 2)
    """

    def __init__(self, n_envs: int, seed: int) -> None:
        columns = tuple(Column(f"o{k}", scale="raw") for k in range(18))
        kind = AgentType("agent", columns, tuple(Interval(f"a{k}", 0.0, 1.0) for k in range(5)))
        self.spec = TeamSpec(tuple((f"agent_{k}", "agent") for k in range(AGENTS)), {"agent": kind})
        self.n_envs, self.twins, self._seed, self._episode, self._step = n_envs, 1, seed, -1, 0
        self.place = self.speed = self.landmark = np.zeros((n_envs, AGENTS, 2))

    def reset(self) -> np.ndarray:
        """See VectorEnv."""
        self._episode, self._step = self._episode + 1, 0
        drawn = stream(self._seed, self._episode, "spread", "reset").uniform(-1.0, 1.0, (2, self.n_envs, AGENTS, 2))
        self.place, self.landmark, self.speed = drawn[0], drawn[1], np.zeros_like(drawn[0])
        return self.seen()

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """See VectorEnv."""
        return np.zeros((self.n_envs, AGENTS, 0), np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        """See VectorEnv."""
        reward = self.move(action).mean(axis=1).astype(np.float32)
        self._step += 1
        over = np.full(self.n_envs, self._step == STEPS)
        final = self.seen()
        return Outcome(self.reset() if over.any() else final, reward, {}, np.zeros_like(over), over, final)

    def state(self) -> dict[str, np.ndarray]:
        """Nothing: see above."""
        raise ScenarioError("benchmarks are not resumed; begin anew")

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Nothing: see above."""
        raise ScenarioError("benchmarks are not resumed; begin anew")

    def close(self) -> None:
        """See VectorEnv."""

    def move(self, action: np.ndarray) -> np.ndarray:
        """One step of forces (B, 3, 5); rewards (B, 3): half of the distances of all landmarks to their nearest agents,
        and half of an agent's own collisions."""
        drawn = np.stack([action[..., 2] - action[..., 1], action[..., 4] - action[..., 3]], axis=-1)
        own = FORCE * drawn.astype(np.float64)
        away, apart = self._distances()
        inside = np.logaddexp(0.0, -(apart - REACH) / MARGIN) * MARGIN
        pushed = PUSH * away / np.where(_SELF, 1.0, apart)[..., None] * np.where(_SELF, 0.0, inside)[..., None]
        self.place = self.place + self.speed * STEP_S
        self.speed = self.speed * KEPT + (own + pushed.sum(axis=2)) * STEP_S
        touching = ((self._distances()[1] < REACH) & ~_SELF).sum(axis=2)
        left = np.linalg.norm(self.landmark[:, :, None] - self.place[:, None], axis=-1).min(axis=2).sum(axis=1)
        return -0.5 * left[:, None] - 0.5 * touching

    def seen(self) -> np.ndarray:
        """(B, 3, 18) an agent's speed and place, then where landmarks and others are from it, then silence."""
        rows = []
        for k in range(AGENTS):
            others = [i for i in range(AGENTS) if i != k]
            here = self.place[:, k:k + 1]
            rows.append(np.concatenate([self.speed[:, k], self.place[:, k], (self.landmark - here).reshape(-1, 6),
                                        (self.place[:, others] - here).reshape(-1, 4), np.zeros((self.n_envs, 4))], 1))
        return np.stack(rows, axis=1).astype(np.float32)

    def _distances(self) -> tuple[np.ndarray, np.ndarray]:
        away = self.place[:, :, None] - self.place[:, None]
        return away, np.linalg.norm(away, axis=-1)


def assigned(world: Spread) -> np.ndarray:
    """(B, 3, 5) forces towards the landmarks of the assignment that is shortest in all, damped."""
    orders = np.array(list(itertools.permutations(range(AGENTS))))
    lengths = np.linalg.norm(world.place[:, None] - world.landmark[:, orders], axis=-1).sum(axis=2)
    goal = np.take_along_axis(world.landmark, orders[lengths.argmin(axis=1)][:, :, None], axis=1)
    force = np.clip(8.0 * (goal - world.place) - 3.0 * world.speed, -1.0, 1.0)
    ahead, back = np.maximum(force, 0.0), np.maximum(-force, 0.0)
    return np.stack([np.zeros_like(force[..., 0]), back[..., 0], ahead[..., 0], back[..., 1], ahead[..., 1]], axis=-1)


def trial(act: Any) -> float:
    """Mean reward of an episode in TRIALS that no training has; act: of (world, observation)."""
    world = Spread(TRIALS, UNSEEN)
    seen, total = world.reset(), 0.0
    for _ in range(STEPS):
        outcome = world.step(act(world, seen))
        seen, total = outcome.observation, total + float(outcome.reward.mean())
    return total


def learned(seed: int, updates: int, config: Learning, at: Any) -> tuple[float, float]:
    """(reward of an exploring team's episodes at the end, of what it learned); at: called with the updates done."""
    world = Spread(COPIES, seed)
    team = load("cosim.agents.learn.team:Team", "learner")(world.spec, config, seed)
    rewards, seen = [], world.reset()
    for done in range(updates):
        rollout = team.rollout(COPIES)
        for _ in range(STEPS):
            step, told = team.act(seen, world.context)
            outcome = world.step(step.action)
            rollout.add(seen, told, step, outcome,
                        team.value(outcome.final_observation) if outcome.truncated.any() else None)
            seen = outcome.observation
        rollout.end(team.value(seen))
        rewards.append(float(rollout.reward.mean()) * STEPS)
        team.learn(rollout, done / updates)
        at(done + 1)
    return (float(np.mean(rewards[-max(1, round(LAST * updates)):])),
            trial(lambda world, seen: team.act(seen, world.context, deterministic=True)[0].action))


def row(about: str, found: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """A line of the table."""
    both = np.array(found)
    spread = both.std(axis=0, ddof=1) if len(both) > 1 else [np.nan] * 2
    cells = (f"{m:.2f}" + (f" +- {s:.2f}" if len(both) > 1 else "") for m, s in zip(both.mean(axis=0), spread,
                                                                                    strict=True))
    return (about or "as it is", *cells, ", ".join(f"{x:.2f}" for x in both[:, 0]))


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    p = OneLineParser(prog="python -m benchmarks.spread", description="How fast a team learns simple_spread.")
    p.add_argument("changes", nargs="*", metavar="CHANGE", help="of the learner's settings, with commas")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="default: 3")
    p.add_argument("--updates", type=int, default=748, metavar="N", help=f"of {COPIES * STEPS} steps; default: 748, "
                   "598 400 steps, some four minutes a seed")
    p.add_argument("--only", action="store_true", help="leave the setup itself out")
    args = p.parse_args(argv)
    try:
        return _show(args)
    except CosimError as err:
        return fail(err)


def _show(args: argparse.Namespace) -> int:
    if args.seeds < 1 or args.updates < 1 or (args.only and not args.changes):
        raise ScenarioError(f"--seeds {args.seeds} and --updates {args.updates} must be >= 1, and --only leaves "
                            "nothing without a CHANGE")
    rows = rows_of(args.changes, args.only, SETUP, args.seeds, row, args.updates,
                   lambda seed, config, at: learned(seed, args.updates, config, at))
    rows.append(("assigned", "", f"{trial(lambda world, _: assigned(world)):.2f}", ""))
    table = Table(f"simple_spread, {args.updates * COPIES * STEPS:,} steps, seeds 0..{args.seeds - 1}",
                  ("", "exploring, at the end", "learned", "seed by seed, exploring"), rows, said(SETUP))
    print_digest(plain_console(), Digest([table]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
