"""Speed of the learners on a team of the study's size: python benchmarks/learning.py [--json FILE]

1. Decode: ms per joint decision of B environments, with draws, and at B = 1 of the modes (what a running policy does).
2. Update: samples a second through gradient steps, epochs counted, at 1440 samples a rollout.
3. The training loop on an environment that does nothing: steps a second and their split.

One thread, CPU seconds of this process; the least of several repeats, since other programs only ever add time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cosim.agents.learn.config import METHODS, Learning  # noqa: E402
from cosim.agents.learn.rollout import Rollout  # noqa: E402
from cosim.agents.learn.spec import AgentType, Column, Interval, Outcome, Simplex, TeamSpec  # noqa: E402
from cosim.agents.learn.team import Team  # noqa: E402
from cosim.agents.learn.training import Plan, Training  # noqa: E402

SITES, CLASSES, DEFERRALS, REPEATS = 3, 4, 6, 40


def team_spec() -> TeamSpec:
    """A manager and three sites with as many shares as in the study; 40 and 50 columns, 8 of context."""
    def columns(count: int) -> tuple[Column, ...]:
        return tuple(Column(f"c{k}") for k in range(count))

    manager = AgentType("manager", columns(40), tuple(Simplex(f"m{k}", SITES) for k in range(CLASSES)))
    site = AgentType("site", columns(50), (*(Simplex(f"d{k}", DEFERRALS) for k in range(2)),
                                           Simplex("gpus", CLASSES + 1), Interval("t", 18.0, 23.0)), columns(8))
    agents = (("manager", "manager"), *((f"site{k}", "site") for k in range(SITES)))
    return TeamSpec(agents, {"manager": manager, "site": site}, leaders=1)


class NullEnv:
    """Always the same observations; a day of 1440 steps."""

    def __init__(self, n_envs: int):
        self.spec, self.n_envs, self.twins, self.t = team_spec(), n_envs, 1, 0
        seen, told, _ = self.spec.widths
        rng = np.random.default_rng(0)
        self.seen = rng.standard_normal((n_envs, SITES + 1, seen)).astype(np.float32)
        self.told = rng.standard_normal((n_envs, SITES + 1, told)).astype(np.float32)

    def reset(self) -> np.ndarray:
        """See VectorEnv."""
        return self.seen

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """See VectorEnv."""
        return self.told

    def step(self, action: np.ndarray) -> Outcome:
        """See VectorEnv."""
        self.t += 1
        no = np.zeros(self.n_envs, bool)
        return Outcome(self.seen, np.ones(self.n_envs, np.float32), {}, no, no | (self.t % 1440 == 0), self.seen)

    def state(self) -> dict[str, np.ndarray]:
        """See VectorEnv."""
        return {}


def decode_ms(team: Team, n_envs: int, deterministic: bool) -> float:
    """Least time of a joint decision."""
    env, best = NullEnv(n_envs), np.inf
    for _ in range(REPEATS):
        begin = process_time()
        team.act(env.seen, env.context, deterministic=deterministic)
        best = min(best, process_time() - begin)
    return 1e3 * best


def loop(team: Team, n_envs: int, repeats: int = 4) -> dict[str, float]:
    """The best of some updates of the training loop: steps/s, share of decoding, samples/s of the update alone."""
    with tempfile.TemporaryDirectory() as out:
        training = Training(team, NullEnv(n_envs), Plan(Path(out), 10**9))
        training.begin()
        whole_s, update_s = np.inf, np.inf
        learn = team.learn

        def timed(rollout: Rollout, progress: float) -> dict[str, float]:
            nonlocal update_s
            begin = process_time()
            stats = learn(rollout, progress)
            update_s = min(update_s, process_time() - begin)
            return stats

        team.learn = timed
        for _ in range(repeats):
            begin = process_time()
            training.step()
            whole_s = min(whole_s, process_time() - begin)
    samples = team.config.rollout_steps * n_envs
    return {"steps_per_s": samples / whole_s, "decode_share": 1.0 - update_s / whole_s,
            "update_samples_per_s": samples * team.config.epochs / update_s}


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    found = {}
    print("method       parameters  decode ms: B=1 modes  B=1   B=8   B=64   B=256  | update samples/s  "
          "loop steps/s (B=8)")
    for method in METHODS:
        team = Team(team_spec(), Learning(method=method))
        count = sum(x.numel() for x in team.network.parameters())
        ms = [decode_ms(team, 1, True), *(decode_ms(team, b, False) for b in (1, 8, 64, 256))]
        speed = loop(team, 8)
        found[method] = {"parameters": count, "decode_ms": ms, **speed}
        print(f"{method:12s} {count:10d}  {ms[0]:20.2f}  {ms[1]:4.2f}  {ms[2]:4.2f}  {ms[3]:5.2f}  {ms[4]:6.2f} "
              f"| {speed['update_samples_per_s']:16.0f}  {speed['steps_per_s']:8.0f} "
              f"({speed['decode_share']:.0%} decode)")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
