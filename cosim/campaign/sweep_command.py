"""cosim sweep SCENARIO: run a scenario at points of its fields, over seeds, and compare its figures."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from cosim.campaign.cells import CellState
from cosim.campaign.mirror import mirrored
from cosim.campaign.points import grid, plan_of, seeds_of, values_of
from cosim.campaign.runner import ENGINES, exit_code, listing, look_up, said_of
from cosim.campaign.sweep import SweepPlan, compute, default_folder, planned, with_measured_rate
from cosim.campaign.sweep_table import RUNS, TABLE, Columns, lines_of, runs_of, tables_of
from cosim.console import (
    USE,
    Console,
    add_names,
    add_settings,
    add_trust,
    add_use,
    assignments,
    command_parser,
    names_of,
    plain_console,
    print_digest,
    run_command,
    say,
    settings_of,
)
from cosim.digest import Digest
from cosim.errors import ScenarioError, listed, unknown
from cosim.experiment import DRIVERS
from cosim.imports import optional
from cosim.plaintext import file_name
from cosim.progress import working
from cosim.request import find
from cosim.units import parse_duration, unit_of

_SHOWN = 4
_ENDINGS = (".svg", ".png")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("sweep", epilog="Exit codes: as of cosim run; where runs failed, that of the first, after all "
                       "others have ended.")
    p.add_argument("scenario", metavar="SCENARIO", help="a name from cosim run --list, a file, or a trace (.h5)")
    add_settings(p, metavar="MEMBER.FIELD=VALUE[,VALUE...]", about="values of a field, e.g. "
                 "grid.lambda_kw_per_kg_h=0,0.01,0.1; a comma within [], {} or double quotes belongs to a value; "
                 "repeatable, and all combinations are run; cosim run SCENARIO --show lists the fields")
    p.add_argument("--plan", type=Path, metavar="FILE", help="points from a file: .csv with a column per field and a "
                   "row per point, or .yaml or .json with grid: {field: [values]}, points: [{field: value}], or both; "
                   "--set multiplies them")
    p.add_argument("--seeds", metavar="FIRST:END", help="the seeds of every point, END not among them (0:5 is 0 to "
                   "4), or a list, as 1,5,9 (default: the scenario's one)")
    p.add_argument("--until", metavar="TIME", help="simulated time of each run, e.g. 90min, 24h, 7d")
    add_use(p, "as of cosim run")
    add_names(p, "as of cosim run")
    p.add_argument("--replay", action="append", default=[], metavar="MEMBER=FILE", help="as of cosim run")
    add_trust(p)
    p.add_argument("--driver", choices=DRIVERS, default="native", help="the bus; both give the same figures (default: "
                   "native, which is quicker; members in other processes need mosaik)")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the sweep; what it holds already is not run "
                   "again (default: results/<scenario>/sweep)")
    p.add_argument("--keep-traces", action="store_true", help="keep each run's trace, as DIR/cells/RUN/trace.h5")
    p.add_argument("--figures", metavar="NAME,NAME", help="figures to print (default: those of --plot, or the first "
                   f"{_SHOWN} that differ between points); the tables have all")
    p.add_argument("--plot", action="append", default=[], metavar="FIGURE:FIELD", help="draw a figure over a field, "
                   "with a line per combination of the others, into DIR (needs matplotlib); repeatable")
    p.add_argument("--dry-run", action="store_true", help="list the runs with the time they will take, measured by "
                   "finished ones or a short one, and end")
    add_engine(p)
    return p


def add_engine(p: argparse.ArgumentParser, jobs: int | None = None) -> None:
    """The options by which a command chooses where its cells are computed; jobs: usually at a time, None: as many as
    there are processors."""
    p.add_argument("--jobs", type=int, default=jobs or os.cpu_count() or 1, metavar="N", help="runs at a time, a "
                   "processor each (default: " + (f"{jobs})" if jobs else "the number of this machine's processors)"))
    p.add_argument("--engine", choices=ENGINES, default="local", help="processes of this machine, or tasks of Ray "
                   "(extra 'ray'; default: local)")
    p.add_argument("--address", metavar="HOST:PORT", help="of a running Ray cluster with the same folders "
                   "(default: one on this machine for this run)")
    p.add_argument("--copy-to", metavar="URL", help="copy the folder to an object store, or wherever fsspec writes "
                   "(s3://bucket/folder; extra 'store'), each run as it ends")


def check_engine(args: argparse.Namespace) -> None:
    """ScenarioError for what the options of `add_engine` cannot be."""
    if args.jobs < 1:
        raise ScenarioError(f"--jobs {args.jobs} must be 1 or more")


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _sweep, argv, "stopped by the user; the same command goes on")


def _sweep(args: argparse.Namespace) -> int:
    console = plain_console()
    with working(f"checking the points of {args.scenario}"):
        sweep = _asked(args)
        pictures = _pictures(args.plot, sweep)
    out = args.out or default_folder(sweep.scenarios[0])
    if args.dry_run:
        _print_listing(console, sweep, out, args.jobs)
        return 0
    print_digest(console, Digest(warnings=list(sweep.warnings)))
    with mirrored(out, args.copy_to) as ended:
        states = compute(sweep, out, jobs=args.jobs, engine=args.engine, address=args.address, ended=ended)
        runs = runs_of(sweep.points, sweep.seeds, list(states.values()))
        _print_result(console, args, sweep, states, runs)
        for figure, field in pictures:
            for path in _drawn(out, sweep, runs, figure, field):
                say(console, f"picture: {path}")
    if runs["figure"]:
        there = ", ".join(sorted(path.name for stem in (TABLE, RUNS) for path in out.glob(f"{stem}.*")))
        say(console, f"tables: {there} in {out}")
    return exit_code(states.values())


def _asked(args: argparse.Namespace) -> SweepPlan:
    """The sweep that the command line describes, checked."""
    check_engine(args)
    until_s = parse_duration(args.until) if args.until is not None else None
    use = assignments(args.use, "--use", USE)
    replays = assignments(args.replay, "--replay", "member=FILE, a trace or a table")
    axes, points = plan_of(args.plan) if args.plan else ({}, [])
    for name, text in settings_of(args.settings).items():
        if name in axes:
            raise ScenarioError(f"{name} stands in {args.plan} and in --set; state it once")
        axes[name] = values_of(name, text)
    asked = grid(axes, points)
    seeds = seeds_of(args.seeds) if args.seeds is not None else None
    scenario = find(args.scenario, args.trust, [*use, *replays])
    return planned(scenario, asked, seeds or [scenario.seed], until_s=until_s, driver=args.driver,
                   keep_traces=args.keep_traces, use=use, replays=replays, names=names_of(args.names))


def _pictures(texts: list[str], sweep: SweepPlan) -> list[tuple[str, str]]:
    """(figure, field) of each --plot. ScenarioError for a field that is not swept, and without matplotlib."""
    out = []
    for text in texts:
        figure, colon, field = text.partition(":")
        if not (figure and colon and field):
            raise ScenarioError(f"--plot {text}: write FIGURE:FIELD, where FIELD is one of "
                                f"{listed(sweep.varied)}")
        if field not in sweep.varied:
            raise ScenarioError(f"--plot {text}: {unknown('field of this sweep', field, sweep.varied)}")
        out.append((figure, field))
    if out:
        with optional("--plot", "plot"):
            if find_spec("matplotlib") is None:
                raise ImportError("No module named 'matplotlib'")
    return out


def _print_listing(console: Console, sweep: SweepPlan, out: Path, jobs: int) -> None:
    cells = sweep.cells()
    states = look_up(cells, out)
    if not any(state.state == "done" for state in states.values()):
        with working("measuring the rate by a short run"):
            cells = with_measured_rate(sweep, cells)
    found = listing(cells, states, jobs)
    print_digest(console, Digest(found.tables, [*sweep.warnings, *found.warnings]))


def _print_result(console: Console, args: argparse.Namespace, sweep: SweepPlan, states: Mapping[str, CellState],
                  runs: Columns) -> None:
    names = list(dict.fromkeys(runs["figure"]))
    drawn = [text.partition(":")[0] for text in args.plot]
    asked = args.figures.split(",") if args.figures else drawn
    for name in (*asked, *drawn):
        if names and name not in names:
            raise ScenarioError(f"{unknown('figure', name, names)}; all runs are done and stay")
    labels = {number: sweep.label(point) for number, point in enumerate(sweep.points, 1)}
    print_digest(console, Digest(tables_of(runs, list(dict.fromkeys(asked)) or _differing(runs), labels)))
    for text in said_of(states):
        say(console, text, "yellow")
    done = [state for state in states.values() if state.state == "done"]
    reused = sum(state.reused for state in done)
    console.print()
    say(console, f"{len(done)} of {len(states)} runs are done, {reused} of them from before; mean +- half of a 95 % t "
        f"interval over {len(sweep.seeds)} seed{'s' if len(sweep.seeds) > 1 else ''}, differences seed by seed")


def _differing(runs: Columns) -> list[str]:
    """The first figures whose finite values differ between points; where none does, the first ones."""
    values: dict[str, dict[int, set[float]]] = {}
    for figure, seed, value in zip(runs["figure"], runs["seed"], runs["value"], strict=True):
        if math.isfinite(value):
            values.setdefault(figure, {}).setdefault(seed, set()).add(value)
    found = [figure for figure, by_seed in values.items() if any(len(found) > 1 for found in by_seed.values())]
    return (found or list(values))[:_SHOWN]


def _drawn(out: Path, sweep: SweepPlan, runs: Columns, figure: str, field: str) -> list[Path]:
    with optional("--plot", "plot"):
        from cosim.reporting.panels import means
    others = [name for name in sweep.varied if name != field]
    lines = lines_of(runs, figure, field, others)
    unit = unit_of(figure).symbol
    return [means(out / f"{file_name(figure)} over {file_name(field)}{ending}", field,
                  f"{figure} [{unit}]" if unit != "1" else figure, lines) for ending in _ENDINGS]


if __name__ == "__main__":
    sys.exit(main())
