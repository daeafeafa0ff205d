"""python -m benchmarks.coordination [CHANGE ...]: how reliably a team learns to take turns, seed by seed.

n agents that see the same and do not know who they are choose one of n; all win if all choices differ. Agents that do
not see each other's choices win at most n!/n^n of the games (n = 3: 0.22), those of a `mat` can win all. The table has
a row for the setup below, and one for each CHANGE of it, e.g. entropy=0.01, or kl_limit=0.02,entropy=0.01:

    python -m benchmarks.coordination --players 3 --seeds 10 entropy=0.01 kl_limit=0.02

    python -m benchmarks.coordination --when-won --updates 40 entropy=0 value_weight=0 entropy=0,value_weight=0

`reached`: seeds that won more than nine tenths of the games of five updates, and after how many updates (median, most);
`end`: those that do in the last five; `below`: of the updates since then, how many had won less. With --when-won the
table has what one more update does to a team that has just won every game of one, whose advantages are then all 0: of
as many games, how many are won after it as it is, and after it with each CHANGE.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.agents.learn.config import Learning
from cosim.agents.learn.spec import AgentType, Choice, Column, Outcome, TeamSpec
from cosim.console import OneLineParser, fail, plain_console, print_digest
from cosim.digest import Digest, Table
from cosim.errors import CosimError, ScenarioError
from cosim.imports import load
from cosim.params import validate
from cosim.progress import working

SETUP: Mapping[str, Any] = {"method": "mat", "rollout_steps": 1, "width": 16, "epochs": 6, "learning_rate": 1e-3,
                            "entropy": 0.05, "learning_rate_end": 1.0, "identity": False, "kl_limit": None}
"""Of the learner; else its defaults."""
GAMES, WON, WINDOW = 128, 0.9, 5
"""Games of an update; when it counts as solved, in the mean of so many updates."""
MOST_WON = 4
"""Updates of a seed that --when-won looks at."""


class Game:
    """One step per episode; n agents see the same and choose one of n; reward 1 if all choices differ."""

    def __init__(self, n: int, n_envs: int) -> None:
        kind = AgentType("player", (Column("o0", scale="raw"),), (Choice("pick", n),))
        self.spec = TeamSpec(tuple((f"p{k}", "player") for k in range(n)), {"player": kind})
        self.n_envs, self.twins, self.n = n_envs, 1, n
        self.same = np.ones((n_envs, n, 1), np.float32)

    def reset(self) -> np.ndarray:
        """See `cosim.agents.learn.spec.VectorEnv`."""
        return self.same

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """See VectorEnv."""
        return np.zeros((self.n_envs, self.n, 0), np.float32)

    def step(self, action: np.ndarray) -> Outcome:
        """See VectorEnv."""
        picks = np.sort(action[:, :, 0], axis=1)
        reward = (picks == np.arange(self.n)).all(axis=1).astype(np.float32)
        over = np.ones(self.n_envs, bool)
        return Outcome(self.same, reward, {}, over, ~over, self.same)


@dataclass(frozen=True)
class Course:
    """How one seed went. reached: updates until solved, None: never; end: share won in the last WINDOW updates; below:
    of the windows since it was solved, how many were not (1 where it never was)."""

    reached: int | None
    end: float
    below: float


def course(won: Sequence[float]) -> Course:
    """Of the shares won, update by update."""
    means = np.convolve(won, np.ones(WINDOW) / WINDOW, "valid")
    solved = np.flatnonzero(means > WON)
    if not len(solved):
        return Course(None, float(means[-1]), 1.0)
    first = int(solved[0])
    return Course(first + WINDOW, float(means[-1]), float((means[first:] <= WON).mean()))


def play(players: int, seed: int, updates: int, config: Learning) -> list[float]:
    """Share of the games won in each update."""
    env, won = Game(players, GAMES), []
    team = load("cosim.agents.learn.team:Team", "learner")(env.spec, config, seed)
    for _ in range(updates):
        rollout = played(team, env)
        won.append(float(rollout.reward.mean()))
        team.learn(rollout)
    return won


def played(team: Any, env: Game) -> Any:
    """A rollout of one step: GAMES games."""
    rollout, seen = team.rollout(env.n_envs), env.reset()
    step, told = team.act(seen, env.context)
    outcome = env.step(step.action)
    rollout.add(seen, told, step, outcome, team.value(outcome.final_observation))
    rollout.end(team.value(seen))
    return rollout


def after_wins(players: int, seed: int, updates: int, setups: Sequence[Learning]) -> list[list[float]]:
    """For each of some updates in which every game was won: share won after it, by setup; the first of them goes on."""
    env, found = Game(players, GAMES), []
    team = load("cosim.agents.learn.team:Team", "learner")(env.spec, setups[0], seed)
    for _ in range(updates):
        rollout = played(team, env)
        looked_at = rollout.reward.min() == 1.0 and len(found) < MOST_WON
        tried = [copy.deepcopy(team) for _ in setups[1:]] if looked_at else []
        team.learn(rollout)
        if not looked_at:
            continue
        for other, config in zip(tried, setups[1:], strict=True):
            other.config = config
            other.learn(rollout)
        found.append([float(played(copy.deepcopy(each), env).reward.mean()) for each in (team, *tried)])
    return found


def changed(text: str, setup: Mapping[str, Any] = SETUP) -> Learning:
    """A setup with the changes in a text, as 'entropy=0.01,kl_limit=none'. ScenarioError."""
    settings = dict(setup)
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ScenarioError(f"'{part}' changes nothing; write FIELD=VALUE, for example entropy=0.01")
        settings[name] = None if value in ("none", "null", "") else value
    return validate(Learning, settings, "learn")


def row(about: str, found: Sequence[Course]) -> tuple[str, ...]:
    """A line of the table."""
    reached = [c.reached for c in found if c.reached is not None]
    after = f"{np.median(reached):g}, {max(reached)}" if reached else "-"
    return (about or "as it is", f"{len(reached)} of {len(found)}", after,
            f"{sum(c.end > WON for c in found)} of {len(found)}", f"{min(c.end for c in found):.2f}",
            f"{100 * np.mean([c.below for c in found]):.1f} %")


def rows_of(changes: Sequence[str], only: bool, setup: Mapping[str, Any], seeds: int, as_row: Callable[..., Any],
            parts: int, learn: Callable[[int, Learning, Callable[[int], None]], Any]) -> list[tuple[str, ...]]:
    """A row, `as_row(change, what its seeds gave)`, for a setup (unless `only`) and each change of it, with progress.
    learn: of (seed, setup, what is called with how many of the `parts` of a seed are done)."""
    setups = {text: changed(text, setup) for text in ([] if only else [""]) + [*changes]}
    rows: list[tuple[str, ...]] = []
    runs = len(setups) * seeds
    with working(f"learning {runs} times", runs * parts) as progress:
        for text, config in setups.items():
            found = []
            for seed in range(seeds):
                past = (len(rows) * seeds + seed) * parts
                found.append(learn(seed, config, lambda done, past=past: progress.at(past + done)))
                progress.at(past + parts)
            rows.append(as_row(text, found))
    return rows


def said(setup: Mapping[str, Any]) -> str:
    """A setup as the note under a table."""
    return "as it is: " + ", ".join(f"{name}={'none' if value is None else value}" for name, value in setup.items())


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    p = OneLineParser(prog="python -m benchmarks.coordination", description="How reliably a team learns to take turns.")
    p.add_argument("changes", nargs="*", metavar="CHANGE", help="of the learner's settings, with commas")
    p.add_argument("--players", type=int, default=3, metavar="N", help="agents, and choices of each (default: 3)")
    p.add_argument("--seeds", type=int, default=10, metavar="N", help="default: 10")
    p.add_argument("--updates", type=int, default=100, metavar="N", help="default: 100; ten seconds a seed")
    p.add_argument("--only", action="store_true", help="leave the setup itself out")
    p.add_argument("--when-won", action="store_true", help="instead: what an update does after every game was won")
    args = p.parse_args(argv)
    try:
        return _show(args)
    except CosimError as err:
        return fail(err)


def _show(args: argparse.Namespace) -> int:
    if args.players < 2 or args.seeds < 1 or args.updates < WINDOW or (args.only and not args.changes):
        raise ScenarioError(f"--players {args.players} must be >= 2, --seeds {args.seeds} >= 1, --updates "
                            f"{args.updates} >= {WINDOW}, and --only leaves nothing without a CHANGE")
    if args.when_won:
        return _show_when_won(args)
    rows = rows_of(args.changes, args.only, SETUP, args.seeds, row, 1,
                   lambda seed, config, _: course(play(args.players, seed, args.updates, config)))
    table = Table(f"{args.players} players, {args.updates} updates of {GAMES} games, seeds 0..{args.seeds - 1}",
                  ("", "reached", "after", "end", "worst end", "below"), rows, said(SETUP))
    print_digest(plain_console(), Digest([table]))
    return 0


def _show_when_won(args: argparse.Namespace) -> int:
    setups = [changed(text) for text in ("", *args.changes)]
    with working(f"learning {args.seeds} times", args.seeds) as progress:
        found = []
        for seed in range(args.seeds):
            found += after_wins(args.players, seed, args.updates, setups)
            progress.at(seed + 1)
    won = np.array(found).reshape(-1, len(setups))
    rows = [(text or "as it is", f"{x.mean():.3f}" if len(x) else "-", f"{x.min():.3f}" if len(x) else "-",
             f"{(x < WON).sum()} of {len(x)}") for text, x in zip(("", *args.changes), won.T, strict=True)]
    table = Table(f"{args.players} players: one more update after every one of {GAMES} games was won; the first "
                  f"{MOST_WON} such updates of {args.updates}, seeds 0..{args.seeds - 1}",
                  ("", "won after, mean", "worst", f"less than {WON:g}"), rows, "nothing was lost, so that no "
                  "advantage moves the policy")
    print_digest(plain_console(), Digest([table]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
