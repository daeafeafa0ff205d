"""cosim curves RUN [RUN ...]: learning curves of training runs, as a table and, with --out, as a
picture.

RUN is a folder that `cosim.agents.train` wrote. Runs that differ by their seed alone are one curve: its mean, and
between the seeds +- one standard deviation. What is drawn is what exploring policies did, in a moving window of one day
of every environment; an evaluation of the modes is `cosim.agents.evaluate`. Figures are ratios of sums, per served
work, because a policy that postpones work also saves power.

Rows: X05, X13, Z05.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.fleet.rewards import OBJECTIVE
from cosim.agents.learn.checkpoint import LAST, LOG, complete_lines
from cosim.agents.request import refuse_strangers, stored, written
from cosim.console import (
    PICTURES,
    add_trust,
    command_parser,
    file_type,
    plain_console,
    print_digest,
    run_command,
)
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError
from cosim.imports import load, optional
from cosim.progress import working
from cosim.tables.files import write_table
from cosim.units import DAY_S, KG_PER_T, TO_PER_GTO

_PER_SERVED = "USD per 1e9 TO served"
_WINDOW = 16
"""Updates of a window where the length of a day is not known."""


@dataclass(frozen=True)
class TrainingRun:
    """One training run, from its log: about, its request without the seed; steps (U,), environment steps
    done at the end of each of U windows; episodes (U,) ended; figures: name -> (U,) in moving windows; short: its log
    is shorter than a window, which then is all of it."""

    about: Mapping[str, str]
    seed: int
    steps: np.ndarray
    episodes: np.ndarray
    figures: Mapping[str, np.ndarray]
    short: bool


@dataclass(frozen=True)
class Curve:
    """Runs that differ by their seed: name -> (U,) mean and standard deviation over seeds (0 of one seed)."""

    name: str
    seeds: tuple[int, ...]
    steps: np.ndarray
    episodes: np.ndarray
    mean: Mapping[str, np.ndarray]
    spread: Mapping[str, np.ndarray]


def read_run(folder: Path, trusted: Collection[str | Path] = ()) -> TrainingRun:
    """The run in a folder. ScenarioError where none is, where nothing has been learned yet, or where it names code that
    no installed package announces and the folder is not `trusted`."""
    request = stored(folder / LAST)
    try:
        lines = [json.loads(line) for line in complete_lines(folder / LOG)]
    except (OSError, ValueError) as err:
        raise ScenarioError(f"{folder / LOG} cannot be read: {err}") from None
    if not lines:
        raise ScenarioError(f"{folder / LOG} is empty: nothing has been learned yet")
    refuse_strangers(request, folder, trusted, drawn=True)
    day = steps_a_day(request, trusted)
    window = max(1, round(day * request["envs"] / lines[0]["steps"])) if day else _WINDOW
    short, window = len(lines) < window, min(window, len(lines))
    figures = _figures(lines, window, day)
    keep = slice(window - 1, None)
    steps, episodes = (np.array([line[key] for line in lines])[keep] for key in ("steps", "episodes"))
    return TrainingRun(_about(request), request["seed"], steps, episodes, figures, short)


def together(runs: Sequence[TrainingRun]) -> list[Curve]:
    """A curve per group of runs that differ by their seed, as long as the shortest of them; named by what differs
    between groups. ScenarioError for the same seed twice in a group."""
    groups: dict[tuple[tuple[str, str], ...], list[TrainingRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.about.items()), []).append(run)
    same = set.intersection(*map(set, groups)) if len(groups) > 1 else set(next(iter(groups)))
    curves = []
    for key, members in groups.items():
        apart = [value for of, value in key if (of, value) not in same and value]
        name = ", ".join(apart) or members[0].about["method"]
        seeds = tuple(sorted(run.seed for run in members))
        if len(set(seeds)) < len(seeds):
            raise ScenarioError(f"'{name}' is given with seeds {', '.join(map(str, seeds))}; each once")
        length = min(len(run.steps) for run in members)
        stacked = {figure: np.stack([run.figures[figure][:length] for run in members])
                   for figure in members[0].figures if all(figure in run.figures for run in members)}
        free = min(1, len(members) - 1)  # one seed spreads by 0
        curves.append(Curve(name, seeds, members[0].steps[:length], members[0].episodes[:length],
                            {k: x.mean(axis=0) for k, x in stacked.items()},
                            {k: x.std(axis=0, ddof=free) for k, x in stacked.items()}))
    return curves


def table(curves: Sequence[Curve]) -> Table:
    """Where the curves end."""
    names = _names(curves)
    rows = [(curve.name, " ".join(map(str, curve.seeds)), f"{curve.steps[-1]}",
             *(_cell(curve, name) for name in names)) for curve in curves]
    return Table("Learning curves, exploring: last window", ("", "seeds", "steps", *names), rows,
                 "mean over seeds +- their standard deviation; one seed has none")


def figure(curves: Sequence[Curve], path: Path) -> Path:
    """Fig. 6 and 12: a panel per figure over environment steps, a band of +- one standard deviation over seeds."""
    names = _names(curves)
    panels = [(name, [(c.name, (c.steps / 1000.0).tolist(), c.mean[name].tolist(), c.spread[name].tolist())
                      for c in curves if name in c.mean]) for name in names]
    with optional("a figure", "plot"):
        from cosim.reporting.panels import bands
    return bands(path, "environment steps, thousands", panels)


def _figures(lines: Sequence[Mapping[str, Any]], window: int, day: int | None) -> dict[str, np.ndarray]:
    """Name -> values of the windows."""
    def mean(values: Sequence[float]) -> np.ndarray:
        total = np.cumsum([0.0, *values])
        return (total[window:] - total[:-window]) / window

    terms = {name: mean([line["terms"][name] for line in lines]) for name in lines[0]["terms"]}
    if OBJECTIVE not in terms or day is None:
        ended = [np.nan if line["episode_reward"] is None else line["episode_reward"] for line in lines]
        return {"reward of ended episodes": np.array(ended[window - 1:])}
    figures = {"objective (32) per day": terms[OBJECTIVE] * day}
    if "served_to" in terms:
        served = np.where(terms["served_to"] > 0.0, terms["served_to"] / TO_PER_GTO, np.nan)
        figures |= {_PER_SERVED: terms["cost_usd"] / served,
                    "attributed kg CO2 per 1e9 TO served": terms["attributed_t"] * KG_PER_T / served}
    return {**figures, "dropped training jobs per day": terms["dropped_train_jobs"] * day}


def steps_a_day(request: Mapping[str, Any], trusted: Collection[str | Path]) -> int | None:
    """Steps of one environment in a day; None for a foreign world."""
    if request["scenario"] is None:
        return None
    scenario = written(request, trusted)
    if scenario.environment is None:
        return None
    member = load(scenario.environment, "environment").member
    return round(DAY_S / scenario.members[member].step_s)


def _about(request: Mapping[str, Any]) -> dict[str, str]:
    """Request of a run as texts, without its seed and length."""
    given = {"method": request["learn"]["method"], "what": request["scenario"] or request["env"],
             "mode": f"{request['mode']} mode" if request["mode"] else "", "envs": f"envs={request['envs']}"}
    learn = {f"learn.{k}": v for k, v in request["learn"].items() if k != "method"}
    settings = {**request["settings"], **{f"vary {k}": v for k, v in request["vary"].items()}, **learn}
    return given | {k: f"{k}={':'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in settings.items()}


def _warnings(run: TrainingRun) -> list[str]:
    said = []
    if run.short:
        said.append("less than a day of every environment; hours of the day differ in price and load")
    if "objective (32) per day" in run.figures and _PER_SERVED not in run.figures:
        said.append("its log knows no work served (served_to), so there are no figures per served work; work done, "
                    "which other logs have, counts jobs that are dropped later")
    return said


def _names(curves: Sequence[Curve]) -> list[str]:
    """Figures that any of them has."""
    return list(dict.fromkeys(name for curve in curves for name in curve.mean))


def _cell(curve: Curve, name: str) -> str:
    if name not in curve.mean:
        return ""
    spread = f" +- {curve.spread[name][-1]:.2f}" if len(curve.seeds) > 1 else ""
    return f"{curve.mean[name][-1]:.2f}{spread}"


def _columns(curves: Sequence[Curve]) -> dict[str, list[Any]]:
    """The curves as a table of one row per point."""
    rows = [(c.name, len(c.seeds), int(c.steps[k]), int(c.episodes[k]), name, float(c.mean[name][k]),
             float(c.spread[name][k])) for c in curves for name in c.mean for k in range(len(c.steps))]
    names = ("curve", "seeds", "steps", "episodes", "figure", "mean", "standard_deviation")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("curves")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder that cosim train wrote")
    p.add_argument("--out", type=file_type(*PICTURES, ".csv"), action="append", default=[], metavar="FILE",
                        help=f"draw into a file ({', '.join(PICTURES)}; needs matplotlib), or write the numbers (.csv)")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _show, argv)


def _show(args: argparse.Namespace) -> int:
    with working("reading logs"):
        runs = [read_run(folder, args.trust) for folder in args.runs]
        curves = together(runs)
    print_digest(plain_console(), Digest(tables=[table(curves)], warnings=[
        f"{folder}: {what}" for folder, run in zip(args.runs, runs, strict=True) for what in _warnings(run)]))
    try:
        with working("drawing"):
            for path in args.out:
                write_table(path, _columns(curves)) if path.suffix == ".csv" else figure(curves, path)
    except OSError as err:
        raise ScenarioError(f"cannot write {err.filename}: {err.strerror}; choose another --out") from err
    return 0


if __name__ == "__main__":
    sys.exit(main())
