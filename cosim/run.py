"""cosim run SCENARIO: run a scenario, store its trace, print a summary."""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cosim.commands.show import shown_lines
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
from cosim.datafile import FORMATS, dump
from cosim.digest import Digest
from cosim.drivers.resolve import completed
from cosim.errors import CosimError, ScenarioError, TraceError
from cosim.experiment import DRIVERS, Experiment
from cosim.imports import old_names
from cosim.progress import working
from cosim.request import changed, default_out, find, shipped
from cosim.result import Result
from cosim.scenario import DEFAULT_START, Scenario
from cosim.trace import Trace
from cosim.trace.compare import compare
from cosim.trace.machine import tolerance
from cosim.trust import SIMULATORS, available
from cosim.units import format_time, parse_duration


def parser() -> argparse.ArgumentParser:
    """The command line. Nothing is computed here, so that docs can be made from it."""
    p = command_parser("run", epilog="Exit codes: 0 completed, 1 internal, 2 request, 3 simulator, 4 solver, 5 trace, "
                       "130 stopped.")
    p.add_argument("scenario", nargs="?", metavar="SCENARIO",
                   help="a name from --list, a .py, .yaml or .json file, or a trace (.h5) to run again and compare")
    p.add_argument("--until", metavar="TIME", help="simulated time to run, e.g. 90min, 24h, 7d")
    p.add_argument("--seed", type=int, metavar="N", help="the one seed of the run (default: the scenario's)")
    add_settings(p)
    add_use(p, "another simulator in a member's place: package.module:Class, folder/file.py:Class, 'cmd: ...', "
            "'connect: host:port'")
    add_names(p, "what that simulator calls our port, e.g. grid.p_load_kw='P_load[MW]' (scaled by the units; a name "
              "without one takes @FACTOR), or our entities: 'grid.bus*=Bus-*'")
    p.add_argument("--replay", action="append", default=[], metavar="MEMBER=FILE",
                   help="play a member's outputs from a trace, or a CSV or Parquet table, against the live others")
    add_trust(p)
    p.add_argument("--driver", choices=DRIVERS, default="mosaik", help="the bus (default: mosaik)")
    p.add_argument("--rt-factor", type=float, metavar="X",
                   help="keep pace: X wall-clock seconds per simulated second (1 is real time); the lag is reported")
    p.add_argument("--out", type=Path, metavar="FILE", help="trace (default: results/<scenario>/<UTC time>.h5)")
    p.add_argument("--force", action="store_true", help="overwrite the trace if it exists")
    p.add_argument("--fsync", action="store_true", help="bring each flush of the trace to the disk itself, against a "
                   "machine that loses its power")
    p.add_argument("--report", action="store_true", help="make a page of pictures beside the trace")
    p.add_argument("--open", action="store_true", help="make the page and open it in a browser")
    p.add_argument("--live", action="store_true", help="show sites, power, queues and speed while it runs (plain lines "
                   "where standard error is no terminal)")
    p.add_argument("--quiet", action="store_true", help="no progress, no summary")
    p.add_argument("--list", action="store_true", help="list the scenarios and end")
    p.add_argument("--show", action="store_true", help="show the resolved scenario and its wiring and end")
    p.add_argument("--format", choices=("text", *FORMATS), help="form of --show: lines to read with the wiring (text, "
                   "the default), or a scenario file that runs (yaml, json)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _run, _joined(sys.argv[1:] if argv is None else argv))


def _joined(argv: list[str]) -> list[str]:
    """'--until -1h' as '--until=-1h': argparse would take a negative value for an option and name the wrong mistake."""
    out: list[str] = []
    for word in argv:
        if out and out[-1] in ("--until", "--seed") and word[:1] == "-" and word[1:2].isdigit():
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


def _run(args: argparse.Namespace) -> int:
    console = plain_console()
    if args.list:
        _print_list(console)
        return 0
    if not args.scenario:
        raise ScenarioError("name a scenario; cosim run --list shows them")
    if args.format and not args.show:
        raise ScenarioError(f"--format {args.format} goes with --show")
    until_s = parse_duration(args.until) if args.until is not None else None
    again = args.scenario.endswith(".h5") and args.out is not None and args.out.exists()
    if again and args.out.samefile(args.scenario):
        raise TraceError(f"{args.out} is the trace to run again; choose another --out")
    with working(f"loading {args.scenario}", quiet=args.quiet):
        scenario = _as_asked(args)
        experiment = Experiment(scenario, args.driver, until_s, args.out or default_out(scenario), args.force,
                                rt_factor=args.rt_factor, durable=args.fsync)
        before = Digest() if args.show else experiment.preflight()
        plan = experiment.plan() if args.show and args.format in (None, "text") else None
    if plan is not None:
        set_here = [*settings_of(args.settings), *(["seed"] if args.seed is not None else []),
                    *(["until_s"] if until_s is not None else [])]
        for line in shown_lines(completed(scenario), experiment.resolved, plan, set_here):
            say(console, line)
        return 0
    if args.show:
        print(dump(experiment.resolved.scenario.model_dump(mode="json"), args.format), end="")
        return 0
    if not args.quiet:
        _print_header(console, experiment, settings_of(args.settings))
        print_digest(console, before)
    watched = _live(experiment, scenario) if args.live else _progress(experiment, args.quiet)
    with _stop_on_signal(experiment), watched:
        result = experiment.run()
    if not args.quiet:
        _print_result(console, result)
        if args.rt_factor is not None:
            say(console, f"real time x {args.rt_factor:g}: behind by at most {experiment.control.lag_s:.3f} s")
    if (args.report or args.open) and result.path is not None:
        from cosim.report import write_page

        with working("drawing the report", quiet=args.quiet):
            page = write_page([result.path], show=args.open, trusted=[result.path])
        say(console, f"report: {page}")
    return _compare(console, args, result)


def _live(experiment: Experiment, scenario: Scenario) -> AbstractContextManager[None]:
    """The live view of a run."""
    from cosim.reporting.definition import live_tables  # what pages are made of, which other runs do not need
    from cosim.reporting.live import live_view

    return live_view(experiment.control, experiment.scenario.name, experiment.resolved.until,
                     tables=live_tables(scenario.model_dump()))


def _as_asked(args: argparse.Namespace) -> Scenario:
    """The scenario with everything the command line changes in it."""
    use = assignments(args.use, "--use", USE)
    replays = assignments(args.replay, "--replay", "member=FILE, a trace or a table")
    return changed(find(args.scenario, args.trust, [*use, *replays]), seed=args.seed, use=use, replays=replays,
                   names=names_of(args.names), settings=settings_of(args.settings))


def _compare(console: Console, args: argparse.Namespace, result: Result) -> int:
    """After a trace was run again as it was: whether every number came out the same (0), or what did not (1). Where it
    was made on another machine or with other versions, the same within what `cosim.trace.machine` states."""
    other = args.use or args.names or args.replay or args.settings or args.until or args.seed is not None
    if not args.scenario.endswith(".h5") or other:
        return 0
    assert result.path is not None, "a run by this command has a trace"
    with Trace(args.scenario) as first, Trace(result.path) as second:
        tolerated = tolerance(first.attrs, second.attrs)
    found = compare(args.scenario, result.path, tolerated)
    if found.difference:
        say(console, f"differs from {args.scenario}: {found.difference}")
    else:
        say(console, f"{'identical to' if found.equal else 'within the tolerance of'} {args.scenario}")
    for text in found.words(tolerated) if tolerated else ():
        say(console, text)
    return 1 if found.difference else 0


@contextmanager
def _stop_on_signal(experiment: Experiment) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, or a terminal that closes) ends the run between two steps; a second one at once."""

    def stop(signum: int, _: Any) -> None:
        if experiment.control.stop:
            raise KeyboardInterrupt
        experiment.control.stop = True

    ends = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {s: signal.signal(s, stop) for s in ends if signal.getsignal(s) is not signal.SIG_IGN}  # nohup stays so
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(experiment: Experiment, quiet: bool) -> Iterator[None]:
    label, name = experiment.resolved.clock.label, experiment.scenario.name
    with working(lambda step: f"{name} {label(int(step))}", experiment.resolved.until, quiet=quiet) as progress:
        experiment.control.on_progress = progress.at
        yield


def _print_list(console: Console) -> None:
    for name in available():
        try:
            about = shipped(name).about
        except CosimError as err:
            about = f"cannot be loaded: {err}"
        say(console, f"{name:16s} {about}", indent=17)
    for entry in sorted(importlib.metadata.entry_points(group=SIMULATORS), key=lambda e: e.name):
        package = f" (from {entry.dist.name})" if entry.dist else ""
        say(console, f"simulator {entry.name}: --use MEMBER={entry.value}{package}")


def _print_header(console: Console, experiment: Experiment, settings: dict[str, str]) -> None:
    scenario = experiment.resolved.scenario
    until_s = scenario.until_s
    assert until_s is not None, "a resolved scenario has an end"
    say(console, f"{scenario.name}: {scenario.about}", "bold")
    since = "" if scenario.start == DEFAULT_START else f" from {str(scenario.start)[:10]} on"
    warmup = f" after {format_time(scenario.warmup_s)} of warm-up" if scenario.warmup_s else ""
    say(console, f"{format_time(until_s)} simulated{since}{warmup}, driver {experiment.driver}, "
        f"seed {scenario.seed}, trace {experiment.path}")
    if settings:
        say(console, f"here with {', '.join(f'{path} = {value}' for path, value in settings.items())}")


def _print_result(console: Console, result: Result) -> None:
    print_digest(console, result.digest)
    for note in (*result.notes, *old_names()):
        say(console, f"note: {note}")
    wall = result.wall_s
    split = {"bus": wall["bus"], **{n.removeprefix("member "): s for n, s in wall.items() if n.startswith("member ")},
             "trace": wall["trace"]}
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in split.items())
    console.print()
    say(console, f"wall time {wall['total']:.2f} s ({wall['start']:.2f} s to start): {parts}")
    say(console, f"trace: {result.path}")


if __name__ == "__main__":
    sys.exit(main())
