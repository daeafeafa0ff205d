"""cosim train SCENARIO: train a team on a scenario, or on any PettingZoo ParallelEnv (--env).

    cosim train ieee33 --method mat --mode joint --episodes 1000 --seed 0 --envs 16 --workers 2
    cosim train ieee33 --preset paper --method mappo
    cosim train --resume results/training/ieee33-mat-joint-0
    cosim train --env package.module:function --method mappo --episodes 2000
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.agents.curves import steps_a_day
from cosim.agents.fleet.policies import checkpoint_of
from cosim.agents.fleet.rewards import OBJECTIVE
from cosim.agents.learn.checkpoint import LAST, LOG
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.history import of_steps
from cosim.agents.learn.parallel_env import ParallelEnvs
from cosim.agents.learn.peers import Alone, Peers, shares_of
from cosim.agents.learn.spec import VectorEnv
from cosim.agents.presets import PRESETS
from cosim.agents.request import MODES, checked, refuse_strangers, scenario_of, stored
from cosim.console import (
    USE,
    add_names,
    add_settings,
    add_trust,
    add_use,
    assignments,
    command_parser,
    names_of,
    plain_console,
    run_command,
    say,
    settings_of,
)
from cosim.errors import ScenarioError
from cosim.imports import load, optional
from cosim.learning.environment import engine_of, some_of, vector_env
from cosim.learning.vector import learning_scenario
from cosim.params import fields_of, validate
from cosim.progress import ProgressTask, working

if TYPE_CHECKING:
    from cosim.agents.learn.team import Team
    from cosim.agents.learn.training import Training

_LEARN = "learn."
_USUAL_ENVS = 16
_FOREIGN = {"twins": 1, "discount": 0.99, "std_start": 1.0, "std_end": None,
            "gae_lambda": 0.95, "value_lambda": 0.95, "kl_limit": None}
"""Defaults with --env: a foreign environment cannot be repeated; its steps are no minutes of half a day [MAT]."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("train", epilog="In the --out folder: log.jsonl (a line per update), last and best.safetensors, "
                       "tensorboard (where it is installed). Exit codes as of cosim run.")
    p.add_argument("scenario", nargs="?", metavar="SCENARIO", help="a name from cosim run --list, or a file")
    p.add_argument("--env", metavar="PACKAGE.MODULE:FUNCTION", help="a function that makes a PettingZoo ParallelEnv")
    p.add_argument("--method", choices=METHODS, default=None, help="default: mat")
    p.add_argument("--mode", choices=MODES, default=None, help="joint: carbon is seen and counts; power: it is not "
                   "(default: the scenario's)")
    p.add_argument("--preset", choices=PRESETS, default=None, help="settings that go together, each of which --set "
                   "changes: " + "; ".join(f"{name}, {preset.about}" for name, preset in PRESETS.items()) +
                   " (default: ours)")
    p.add_argument("--episodes", type=_positive, metavar="N", help="days (episodes) of all environments together "
                   "(default: 1000)")
    p.add_argument("--updates", type=_whole, metavar="N", help="end after so many updates; 0: save the team as it "
                   "starts, to compare with what it learns")
    p.add_argument("--seed", type=int, default=None, metavar="N", help="default: 0")
    p.add_argument("--envs", type=_positive, default=None, metavar="B", help="environments side by side (default: 16)")
    p.add_argument("--workers", type=int, default=2, metavar="W", help="processes that play a scenario's environments "
                   "and compute the updates together, 0 or 1: this one; with cuda or Dirichlet shares they only play. "
                   "Another number of them adds up in another order (default: 2)")
    p.add_argument("--engine", choices=("auto", "compiled", "simpy"), default=None, help="compiled: all environments "
                   "of a process at once, several times faster, needs the extra fast; auto: where it can do the "
                   "scenario, else simpy (default: auto)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: results/training/<what>-<method>-<mode>-<seed>")
    add_settings(p, metavar="PATH=VALUE", about="a field of the scenario (controller.reward.c2_per_usd=0.02) or of the "
                 "learner (learn.entropy=0.01); repeatable")
    add_use(p, "another simulator in a member's place, as in cosim run")
    add_names(p, "as in cosim run")
    p.add_argument("--vary", action="append", default=[], metavar="PATH=RANGE", help="a field outside of the fleet "
                   "(load, prices, feeder, grid) that each environment draws anew every day: LOW:HIGH, or one of "
                   "A|B|C, e.g. workload.rate_scale=0.7:1.2; repeatable")
    p.add_argument("--teacher", metavar="POLICY", help="learn to do what this policy does (a rule, or a class of your "
                   "own), instead of from rewards; on SimPy. The team is then a --start of another training")
    p.add_argument("--start", metavar="TEAM", help="begin with what this team has learned, a checkpoint or one that "
                   "ships, of the same agents; exploration begins anew")
    p.add_argument("--save-every", type=_positive, default=10, metavar="N", help="updates per checkpoint (default: 10)")
    p.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR, as it was asked for; "
                   "--episodes, --updates, --workers and --device may differ")
    add_trust(p)
    p.add_argument("--list", action="store_true", help="list the learner's settings with their sources and end")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, lambda args: _list() if args.list else _train(args), argv,
                       "stopped at once by the user; --resume goes on from the last checkpoint")


def _train(args: argparse.Namespace) -> int:
    request = _request(args)
    with optional("learning", "learn"):
        from cosim.agents.learn.team import Team
        from cosim.agents.learn.training import Training, TrainingPlan
        from cosim.agents.together import OtherProcesses, begun
    request = {**request, "engine": _engine(request, args.trust)}
    learning = validate(Learning, request["learn"], "learn")
    plan = TrainingPlan(args.resume or args.out or _default_out(request), request["episodes"], request["updates"],
                        args.save_every, request)
    with ExitStack() as opened:
        peers: Peers = Alone()
        with working("making the environments"):
            numbers = shares_of(request["envs"], learning.twins, _together(request, learning, args))
            if len(numbers) > 1:
                prepared = learning_scenario(scenario_of(request, args.trust))
                worlds = {"engine": request["engine"], "seed": request["seed"], "stagger_over": request["envs"],
                          "twins": learning.twins, "vary": request["vary"], "teacher": request["teacher"]}
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
            training = Training(begun(Team(env.spec, learning, request["seed"], args.device, peers), request["start"]),
                                env, plan)
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


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """The request as plain data: from the command line, or from the run to resume."""
    if args.resume:
        given = [name for name in ("scenario", "env", "method", "mode", "preset", "seed", "envs", "engine",
                                        "out", "teacher", "start") if
                 getattr(args, name) is not None] + [name for name, given in (
                     ("set", args.settings), ("vary", args.vary), ("use", args.use), ("map", args.names)) if given]
        if given:
            raise ScenarioError(f"--resume goes on as the run was asked for; leave out {', '.join(given)}")
        request = stored(args.resume / LAST)
        refuse_strangers(request, args.resume, args.trust)
        if request["teacher"]:
            raise ScenarioError(f"{args.resume} learned from --teacher {request['teacher']}, and what a teacher "
                                "remembers is not saved; begin anew with another --out, or go on from rewards with "
                                f"--start {args.resume / LAST}")
        return {**request, **{k: getattr(args, k) for k in ("episodes", "updates")
                           if getattr(args, k) is not None}}
    if bool(args.scenario) == bool(args.env):
        raise ScenarioError("name either a scenario or --env package.module:function; see --help")
    preset = PRESETS[args.preset or "ours"]
    settings = {**preset.settings, **settings_of(args.settings)}
    if args.env:
        _refuse_with_env(args, settings)
    learn = {k.removeprefix(_LEARN): _value(k, v) for k, v in settings.items() if k.startswith(_LEARN)}
    if args.method and "method" in learn:
        raise ScenarioError("give the method once: --method or --set learn.method")
    learn.setdefault("method", args.method or "mat")
    learn = {**preset.learn, **preset.by_method.get(str(learn["method"]), {}), **learn}
    envs = args.envs or _USUAL_ENVS
    for name, value in _FOREIGN.items() if args.env else ():
        learn.setdefault(name, value)
    learn.setdefault("twins", math.gcd(Learning().twins, envs))
    if envs > _USUAL_ENVS and not args.env:  # as many steps an update: more of them are fewer updates
        learn.setdefault("rollout_steps", max(1, Learning().rollout_steps * _USUAL_ENVS // envs))
    learning = validate(Learning, learn, "learn")
    twins = learning.twins
    if args.env and twins > 1:
        raise ScenarioError(f"learn.twins = {twins} does not go with --env; leave it out")
    if envs % twins:
        raise ScenarioError(f"learn.twins = {twins} must divide --envs {envs}")
    if args.seed is not None and args.seed < 0:
        raise ScenarioError(f"--seed {args.seed} must be >= 0")
    return checked({"scenario": args.scenario, "env": args.env, "engine": args.engine or "auto", "mode": args.mode,
                    "learn": learn, "settings": {k: v for k, v in settings.items() if not k.startswith(_LEARN)},
                    "use": assignments(args.use, "--use", USE), "names": names_of(args.names),
                    "vary": _vary(args.vary, settings), **_taught(args, learning), "seed": args.seed or 0, "envs": envs,
                    "episodes": args.episodes or 1000, "updates": args.updates}, "request")


def _taught(args: argparse.Namespace, learning: Learning) -> dict[str, str | None]:
    """Teacher and start of a request. ScenarioError for a team that cannot be taught, or that is not there."""
    if args.teacher is not None:
        if checkpoint_of(args.teacher) is not None:
            raise ScenarioError(f"--teacher {args.teacher} is a team; a training begins where one is by --start")
        if learning.history_steps > 1:
            raise ScenarioError("--teacher is for teams without a past of their own; leave learn.history_steps at 1")
        if args.engine == "compiled":
            raise ScenarioError("--teacher decides on SimPy; leave --engine out")
    found = None if args.start is None else checkpoint_of(args.start)
    if args.start is not None and found is None:
        raise ScenarioError(f"--start {args.start} is no checkpoint and no team that ships; cosim pretrained lists "
                            "these")
    return {"teacher": args.teacher, "start": None if found is None else str(found)}


def _refuse_with_env(args: argparse.Namespace, settings: Mapping[str, str]) -> None:
    """ScenarioError for what a foreign environment has no use for."""
    if args.preset:
        raise ScenarioError(f"--preset {args.preset} sets a scenario's fields and does not go with --env; leave it out")
    if args.mode or any(not k.startswith(_LEARN) for k in settings):
        raise ScenarioError("--mode and --set of a scenario's fields do not go with --env; learn.* does")
    if args.use or args.names:
        raise ScenarioError("--use and --map are for members of a scenario and do not go with --env; leave them out")
    if args.teacher:
        raise ScenarioError("--teacher knows a scenario and does not go with --env; leave it out")
    if args.vary:
        raise ScenarioError("--vary draws a scenario's fields and does not go with --env; leave it out")
    if args.engine:
        raise ScenarioError("--engine does not go with --env; leave it out")


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
    if request["teacher"]:
        return some_of(learning_scenario(scenario_of(request, trusted)), range(request["envs"]), "simpy",
                       request["seed"], stagger_over=request["envs"], teacher=request["teacher"], vary=request["vary"],
                       twins=validate(Learning, request["learn"], "learn").twins)
    return vector_env(scenario_of(request, trusted), n_envs=request["envs"], workers=workers, seed=request["seed"],
                      stagger=True, twins=validate(Learning, request["learn"], "learn").twins,
                      engine=request.get("engine", "simpy"), vary=request["vary"])


def _vary(given: Sequence[str], settings: Mapping[str, str]) -> dict[str, str]:
    """What --vary gives, by path; a path that --set sets as well is refused."""
    found = assignments(given, "--vary", "member.field=LOW:HIGH, for example workload.rate_scale=0.7:1.2")
    if both := sorted(set(found) & set(settings)):
        raise ScenarioError(f"{both[0]} is set and varied; give --set or --vary")
    return found


def _value(path: str, text: str) -> Any:
    """A learner's setting; none is nothing, shares are written 1:2:7. What it may be is checked with the others."""
    if text in ("", "none", "null"):
        return None
    return text.split(":") if path == f"{_LEARN}frozen_leaders" else text


def _default_out(request: Mapping[str, Any]) -> Path:
    what = Path(request["scenario"]).stem if request["scenario"] else request["env"].rpartition(":")[2]
    parts = (what, request["learn"]["method"], request["mode"], request["seed"])
    return Path("results") / "training" / "-".join(str(p) for p in parts if p is not None)


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


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be >= 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be >= 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
