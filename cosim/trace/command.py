"""cosim trace ls|diff|export|summary|verify|rescue: inspect, compare, export and check traces without a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from cosim.console import (
    Console,
    add_debug,
    add_trust,
    command_parser,
    file_type,
    plain_console,
    print_digest,
    run_command,
    say,
)
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError, TraceError, cut
from cosim.imports import load
from cosim.progress import working
from cosim.reporting.overview import summary_of
from cosim.trace.compare import compare
from cosim.trace.descriptor import DESCRIPTORS
from cosim.trace.export import FORMATS, Format, export, write_summary
from cosim.trace.machine import Tolerance, tolerance
from cosim.trace.reader import Trace, reading
from cosim.trace.rescue import rescue
from cosim.trace.series import scenario_of
from cosim.trust import received_hook
from cosim.units import format_time

_SEALED = "every byte is as it was written"
_NOT_SEALED = ("the file has no seal (its run was killed, or another program has written it): a byte that was changed "
               "since is found only where numbers no longer fit their chunk's checksum, or a law breaks")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("trace", epilog="Exit codes: 0 fine, 1 a difference or a broken law, 2 wrong request, 5 no such "
                       "trace.")
    commands = p.add_subparsers(dest="command", required=True, metavar="ls | diff | export | summary | verify | "
                                     "rescue")
    one = commands.add_parser("ls", help="what the trace holds, and how its run ended")
    one.add_argument("trace")
    two = commands.add_parser("diff", help="the first difference of two traces, if any")
    two.add_argument("trace")
    two.add_argument("other")
    two.add_argument("--rtol", type=_share, metavar="X", help="let numbers differ by X of their value or of their "
                     "unit, 1e-9 for example; counts, states and names have to be equal (default: every byte)")
    out = commands.add_parser("export", help="one table per model and table, with time stamps and units")
    out.add_argument("trace")
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    out.add_argument("--format", dest="form", choices=FORMATS, help="csv (the default), parquet (extra parquet), or "
                     "xlsx: one Excel workbook (extra excel)")
    out.add_argument("--parquet", action="store_true", help="the same as --format parquet")
    out.add_argument("--tidy", action="store_true", help="of each model a row per value (time, entity, port, label, "
                     "value, unit) instead of a column per entity and port")
    out.add_argument("--describe", choices=tuple(DESCRIPTORS), help="write a descriptor of the files beside them, to "
                     "publish them with: a Frictionless Data Package, or Croissant")
    told = commands.add_parser("summary", help="the run's summary: its tables, or its figures as a file")
    told.add_argument("trace")
    told.add_argument("--out", type=file_type(".csv", ".json"), metavar="FILE", help="write the figures into a .csv "
                      "(figure, value, unit) or .json file")
    add_trust(told)
    laws = commands.add_parser("verify", help="check the conservation laws from the file alone")
    laws.add_argument("trace")
    add_trust(laws)
    saved = commands.add_parser("rescue", help="save what is whole in a damaged trace into a new one")
    saved.add_argument("trace")
    saved.add_argument("--out", type=Path, metavar="FILE.h5", help="default: beside it, TRACE-rescued.h5")
    for each in (one, two, out, told, laws, saved):
        add_debug(each)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _look, argv)


def _look(args: argparse.Namespace) -> int:
    with reading(args.trace):
        does = {"ls": _ls, "diff": _diff, "export": _export, "summary": _summary, "verify": _verify, "rescue": _rescue}
        return does[args.command](plain_console(), args)


def _ls(console: Console, args: argparse.Namespace) -> int:
    with working(f"reading {args.trace}"), Trace(args.trace) as trace:
        attrs, rows = trace.attrs, []
        for model in trace.models():
            times = trace.time_s(model)
            span = format_time(float(times[-1] - times[0])) if len(times) else "nothing"
            for port in trace.ports(model):
                about, unit = trace.about(f"{model}/{port}")
                shape = " x ".join(map(str, trace[f"{model}/{port}"].shape))
                rows.append((f"{model}/{port}", unit, shape, span, about))
        tables = [(name, str(len(next(iter(columns.values())))), ", ".join(columns))
                  for name in trace.tables() if (columns := trace.table(name))]
    error = f" ({attrs['error']})" if attrs["error"] else ""
    say(console, f"{attrs['name']}, seed {attrs['seed']}, driver {attrs['driver']}, {attrs['created']}: "
        f"{attrs['status']}{error}")
    print_digest(console, Digest(tables=[Table("Levels", ("port", "unit", "time x entity x ...", "span", "what"), rows),
                                         Table("Tables", ("table", "rows", "columns"), tables)]))
    return 0


def _diff(console: Console, args: argparse.Namespace) -> int:
    asked = None if args.rtol is None else Tolerance(args.rtol)
    with working("comparing"):
        found = compare(args.trace, args.other, asked)
    say(console, found.difference or ("identical" if found.equal else "within the tolerance"))
    for text in found.words(asked) if asked else ():
        say(console, text)
    if found.difference and asked is None:
        with Trace(args.trace) as first, Trace(args.other) as second:
            expected = tolerance(first.attrs, second.attrs)
        if expected:
            say(console, f"not made alike ({expected.why}): --rtol {expected.share:g} compares what should agree then")
    return 1 if found.difference else 0


def _share(text: str) -> float:
    """An argparse type: a share from 0 on, below 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise argparse.ArgumentTypeError(f"'{cut(text)}' is no tolerance; write a number from 0 to below 1, 1e-9 for "
                                         "example")
    return share


def _export(console: Console, args: argparse.Namespace) -> int:
    form: Format = args.form or ("parquet" if args.parquet else "csv")
    if args.parquet and form != "parquet":
        raise ScenarioError(f"--parquet and --format {form} exclude each other; give one")
    if args.describe and form == "xlsx":
        raise ScenarioError("--describe goes with csv and parquet: a workbook is no table that a descriptor can name")
    try:
        with working(f"writing into {args.out}"), Trace(args.trace) as trace:
            warmup_s = float(scenario_of(trace).get("warmup_s", 0.0))
            files = export(trace, args.out, form, args.tidy, args.describe)
    except OSError as err:
        raise TraceError(f"cannot write into {args.out}: {err.strerror or err}") from None
    written = list(dict.fromkeys(files.values()))
    say(console, f"wrote {len(written)} file{'s' * (len(written) > 1)} into {args.out}")
    for name, file in files.items():
        if Path(file).stem != name.replace("/", ".") and form != "xlsx":
            say(console, f"{name} is in {file}")
    if warmup_s:
        say(console, f"the first {format_time(warmup_s)} of time_s are the run's warm-up")
    return 0


def _summary(console: Console, args: argparse.Namespace) -> int:
    with working(f"reading {args.trace}"), Trace(args.trace) as trace:
        digest, said = summary_of(trace, scenario_of(trace), args.trust)
        attrs = trace.attrs
    if not digest.figures and said:
        raise TraceError(f"{args.trace}: {said[0]}")
    if args.out is None:
        print_digest(console, digest)
        return 0
    try:
        write_summary(args.out, digest, attrs)
    except OSError as err:
        raise TraceError(f"cannot write {args.out}: {err.strerror or err}") from None
    say(console, f"wrote {len(digest.figures)} figures into {args.out}")
    return 0


def _rescue(console: Console, args: argparse.Namespace) -> int:
    """1 when something is lost."""
    path = Path(args.trace)
    out = args.out or path.with_name(f"{path.stem}-rescued.h5")
    with working(f"rescuing {path}"):
        lost = rescue(path, out)
    for what in lost:
        say(console, f"lost: {what}")
    say(console, f"{'what is whole' if lost else 'all'} of {path} is in {out}")
    return 1 if lost else 0


def _verify(console: Console, args: argparse.Namespace) -> int:
    with working(f"verifying {args.trace}"), Trace(args.trace) as trace:
        hook = received_hook(trace.path, scenario_of(trace), "verify", args.trust)
        if not hook:
            raise TraceError(f"{args.trace}: its scenario names no laws (Scenario.verify); nothing to verify")
        digest = load(hook, "verify hook")(trace)
        sealed = trace.sealed
    print_digest(console, digest)
    say(console, _SEALED if sealed else _NOT_SEALED)
    for law in digest.broken:
        say(console, f"BROKEN {law}")
    return 1 if digest.broken else 0
