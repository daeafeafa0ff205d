"""The command line of `cosim train`, and the request that it makes, as plain data."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosim.agents.fleet.policies import checkpoint_of
from cosim.agents.learn.checkpoint import LAST
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.presets import PRESETS
from cosim.agents.request import MODES, checked, refuse_strangers, stored
from cosim.console import (
    USE,
    add_names,
    add_settings,
    add_trust,
    add_use,
    assignments,
    command_parser,
    names_of,
    settings_of,
)
from cosim.errors import ScenarioError
from cosim.params import validate

_LEARN = "learn."
_USUAL_ENVS = 16
FOREIGN = {"twins": 1, "discount": 0.99, "std_start": 1.0, "std_end": None, "permute": False, "entropy": 0.01,
           "gae_lambda": 0.95, "value_lambda": 0.95}
"""Defaults with --env: a foreign environment cannot be repeated; its steps are no minutes of half a day [MAT]. In an
order that is drawn anew in each step, who gives way to whom changes with every step."""


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


def request_of(args: argparse.Namespace) -> dict[str, Any]:
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
    for name, value in FOREIGN.items() if args.env else ():
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
    if settings.get("learn.critic") == "terms":
        raise ScenarioError("learn.critic = terms does not go with --env, whose reward has no known terms; leave it "
                            "out")
    if args.use or args.names:
        raise ScenarioError("--use and --map are for members of a scenario and do not go with --env; leave them out")
    if args.teacher:
        raise ScenarioError("--teacher knows a scenario and does not go with --env; leave it out")
    if args.vary:
        raise ScenarioError("--vary draws a scenario's fields and does not go with --env; leave it out")
    if args.engine:
        raise ScenarioError("--engine does not go with --env; leave it out")


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


def default_out(request: Mapping[str, Any]) -> Path:
    what = Path(request["scenario"]).stem if request["scenario"] else request["env"].rpartition(":")[2]
    parts = (what, request["learn"]["method"], request["mode"], request["seed"])
    return Path("results") / "training" / "-".join(str(p) for p in parts if p is not None)


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
