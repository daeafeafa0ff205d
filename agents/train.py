"""cosim train SCENARIO: train a team on a scenario, or on any PettingZoo ParallelEnv (--env).

    cosim train ieee33 --method mat --mode joint --episodes 1000 --seed 0 --envs 16 --workers 2
    cosim train ieee33 --preset paper --method mappo
    cosim train --resume results/training/ieee33-mat-joint-0
    cosim train --env package.module:function --method mappo --episodes 2000
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.agents.curves import steps_a_day
from cosim.agents.fleet.rewards import OBJECTIVE
from cosim.agents.learn.checkpoint import LAST, LOG
from cosim.agents.learn.config import Learning
from cosim.agents.learn.history import of_steps
from cosim.agents.learn.parallel_env import ParallelEnvs
from cosim.agents.learn.peers import Alone, Peers, shares_of
from cosim.agents.learn.spec import VectorEnv, credit_terms
from cosim.agents.request import scenario_of
from cosim.agents.train_request import default_out, parser, request_of
from cosim.console import plain_console, run_command, say
from cosim.errors import ScenarioError
from cosim.imports import load, optional
from cosim.learning.environment import engine_of, some_of, vector_env
from cosim.learning.vector import learning_scenario
from cosim.params import fields_of, validate
from cosim.progress import ProgressTask, working

if TYPE_CHECKING:
    from cosim.agents.learn.team import Team
    from cosim.agents.learn.training import Training


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, lambda args: _list() if args.list else _train(args), argv,
                       "stopped at once by the user; --resume goes on from the last checkpoint")


def _train(args: argparse.Namespace) -> int:
    request = request_of(args)
    with optional("learning", "learn"):
        from cosim.agents.learn.team import Team
        from cosim.agents.learn.training import Training, TrainingPlan
        from cosim.agents.together import OtherProcesses, begun
    request = {**request, "engine": _engine(request, args.trust)}
    learning = validate(Learning, request["learn"], "learn")
    plan = TrainingPlan(args.resume or args.out or default_out(request), request["episodes"], request["updates"],
                        args.save_every, request)
    with ExitStack() as opened:
        peers: Peers = Alone()
        with working("making the environments"):
            numbers = shares_of(request["envs"], learning.twins, _together(request, learning, args))
            if len(numbers) > 1:
                prepared = learning_scenario(scenario_of(request, args.trust))
                worlds = {"engine": request["engine"], "seed": request["seed"], "stagger_over": request["envs"],
                          "twins": learning.twins, "vary": request["vary"], "teacher": request["teacher"],
                          "split": learning.critic == "terms"}
                env: Any = of_steps(some_of(prepared, numbers[0], **worlds), learning.history_steps, numbers[0],
                                    goes_on=True)
                opened.callback(env.close)
                others = OtherProcesses(prepared, worlds, numbers, learning, plan, bool(args.resume))
                opened.callback(others.close)
                peers = others.peers
            else:
                env = of_steps(_make_env(request, args.workers, args.trust), learning.history_steps,
                               range(request["envs"]), goes_on=not request["env"])
                opened.callback(env.close)
        if args.resume:
            team = Team.load(plan.out / LAST, args.device, peers)
            _refuse_mixed(plan.out / LAST, request, learning, team)
            training = Training(team, env, plan)
            training.resume()
        else:
            team = Team(env.spec, learning, request["seed"], args.device, peers, credit_terms(env))
            training = Training(begun(team, request["start"]), env, plan)
            with working(beginning(request, learning.twins), 1.0) as progress:
                if not request["env"]:
                    env.on_way = progress.at
                training.begin()
        day = steps_a_day(request, args.trust)
        with (_stop_on_signal(training), working("the first update", 1.0, before=training.progress) as progress,
              _reporter(training, progress, day) as report):
            training.run(report)
    _say(training)
    return 130 if training.stop else 0


def _refuse_mixed(path: Path, request: Mapping[str, Any], asked: Learning, team: Team) -> None:
    """ScenarioError for a checkpoint whose team is not that of its request."""
    pairs = [("seed", request["seed"], team.seed),
             *((f"learn.{k}", getattr(asked, k), getattr(team.config, k)) for k in request["learn"])]
    for name, wanted, has in pairs:
        if wanted != has:
            raise ScenarioError(f"checkpoint '{path}': its request has {name} = {wanted}, its team {has}")


def _together(request: Mapping[str, Any], learning: Learning, args: argparse.Namespace) -> int:
    """How many processes learn together."""
    alone = request["env"] or args.device != "cpu" or learning.simplex == "dirichlet"
    return 1 if alone else max(args.workers, 1)


def beginning(request: Mapping[str, Any], twins: int) -> str:
    """What comes before the first update, in words.

    Environments of a scenario begin spread over the day, so that the few steps of a rollout hold all its hours: those
    of the k-th group of twins first play a share k twins / envs of their first day by the start action, together
    (envs - twins) / 2 days.
    """
    if request["env"] or request["envs"] == twins:
        return "beginning the first episodes"
    days = (request["envs"] - twins) / 2
    return f"before the first update, {request['envs']} environments play {days:g} days to stand spread over the day"


def _engine(request: Mapping[str, Any], trusted: Collection[str | Path]) -> str:
    """The engine of a request, chosen where it is left to us."""
    if request["teacher"]:
        return "simpy"
    if request["env"] or request["engine"] != "auto":  # a saved state goes on with the same one only
        return str(request["engine"])
    engine, why = engine_of(scenario_of(request, trusted))
    if why:
        print(f"cosim: learning on SimPy, not on the compiled engine, which is several times faster: {why}",
              file=sys.stderr)
    return engine


def _make_env(request: Mapping[str, Any], workers: int, trusted: Collection[str | Path] = ()) -> VectorEnv:
    """The environments of a request. trusted: traces whose scenario may name code of no installed package."""
    if request["env"]:
        made = load(request["env"], "environment")
        if not callable(made):
            raise ScenarioError(f"environment '{request['env']}' is not a function that makes a ParallelEnv")
        return ParallelEnvs(made, request["envs"], request["seed"])
    learning = validate(Learning, request["learn"], "learn")
    if request["teacher"]:
        return some_of(learning_scenario(scenario_of(request, trusted)), range(request["envs"]), "simpy",
                       request["seed"], stagger_over=request["envs"], teacher=request["teacher"], vary=request["vary"],
                       twins=learning.twins, split=learning.critic == "terms")
    return vector_env(scenario_of(request, trusted), n_envs=request["envs"], workers=workers, seed=request["seed"],
                      stagger=True, twins=learning.twins, engine=request.get("engine", "simpy"), vary=request["vary"],
                      split=learning.critic == "terms")


@contextmanager
def _reporter(training: Any, progress: ProgressTask, day: int | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows every update, and writes it to TensorBoard where that is installed."""
    board = None
    if find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
        first = training.tracker.steps + 1  # what a resumed run learns again is not there twice
        board = SummaryWriter(str(training.plan.out / "tensorboard"), purge_step=first)

    def report(record: dict[str, Any]) -> None:
        progress.at(training.progress, _line(record, training.progress, day))
        if board:
            for name, value in {**record, **{f"terms/{k}": v for k, v in record["terms"].items()}}.items():
                if isinstance(value, (int, float)):
                    board.add_scalar(name, value, record["steps"])

    try:
        yield report
    finally:
        if board:
            board.close()


def _line(record: Mapping[str, Any], progress: float, steps_a_day: int | None) -> str:
    """One update in a line: what is learned from (`reward`, per step, and of an episode), and (32) by the name and unit
    that it has in `cosim curves` and `cosim evaluate`."""
    spent = [record[f"{k}_s"] for k in ("environment", "decode", "waiting", "update")]
    names = ("env", "decode", "wait", "update")
    split = " ".join(f"{k} {100 * s / sum(spent):.0f} %" for k, s in zip(names, spent, strict=True))
    shown = {k: v for k, v in record["terms"].items() if k != OBJECTIVE or steps_a_day is None}
    terms = "  ".join(f"{k} {v:.3g}" for k, v in shown.items())
    if len(shown) < len(record["terms"]) and steps_a_day:
        terms = f"objective (32) per day {record['terms'][OBJECTIVE] * steps_a_day:.3f}  {terms}"
    of = f" of about {record['steps'] / progress:,.0f}" if progress else ""
    ended = "" if record["episode_reward"] is None else f"  episode {record['episode_reward']:.3f}"
    return (f"update {record['update']}  steps {record['steps']:,}{of}  episodes {record['episodes']}  "
            f"reward {record['reward']:.4f}{ended}  {terms}  "
            f"{record['steps_per_s']:.0f} steps/s ({split})")


def _say(training: Training) -> None:
    tracker, out = training.tracker, training.plan.out
    learned = "no episode ended" if tracker.episode_reward is None else (
        f"reward learned from in the last {len(tracker.ended)} episodes: {tracker.episode_reward:.4f}")
    console = plain_console()
    say(console, f"{training.team.updates} updates, {tracker.steps} steps, {tracker.episodes} episodes; {learned}")
    say(console, f"log {out / LOG}, checkpoint {out / LAST}")


def _list() -> int:
    console = plain_console()
    for name, field in fields_of(Learning).items():
        say(console, f"learn.{name} = {field.default}: {field.description}")
    return 0


@contextmanager
def _stop_on_signal(training: Training) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the run after the open update; a second one at once."""

    def stop(signum: int, _: Any) -> None:
        if training.stop:
            raise KeyboardInterrupt
        training.stop = True

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main())
