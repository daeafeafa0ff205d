"""python -m benchmarks [SECTION ...]: what the framework costs, beside floors measured in the same process."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import record
from benchmarks.measure import Found, Say, Size, cpu_s, machine
from cosim.console import OneLineParser, fail, file_type, plain_console, print_digest, say
from cosim.digest import Digest
from cosim.errors import CosimError, ScenarioError, unknown
from cosim.imports import load

SECTIONS = {
    "day": "a simulated day by driver and policy, its split, its ratio to bare SimPy, solver and h5py",
    "start": "starting: imports, --help, --list, --show, a run of a minute",
    "memory": "memory of a run with and without its trace",
    "learn": "learning: steps a second and their split",
    "engine": "the data centers alone, on SimPy and compiled",
    "grid": "the dispatch alone, by solver and size",
    "growth": "growth with sites, GPUs, buses and hours: exponents",
    "scale": "ten million requests a day at ten sites: requests a second, memory",
    "peers": "other simulators, where they are installed: what a step of theirs costs and includes",
}
USUAL = ("day", "start", "memory", "learn", "engine", "grid")
REPEATS = {"quick": 1, "normal": 3, "full": 3}
UNTIL = {"quick": "1h", "normal": "24h", "full": "24h"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = OneLineParser(prog="python -m benchmarks", description="What the framework costs: CPU seconds, memory, and "
                      "ratios to floors measured in the same process.",
                      epilog="Nothing has a limit: the exit code is 0 whatever was measured. Machines differ, and one "
                      "differs from minute to minute: look at ratios and at their spread.")
    p.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: the first six, "
                   "with --full also growth and scale")
    p.add_argument("--quick", action="store_true", help="small versions, once each: about a minute")
    p.add_argument("--full", action="store_true", help="also the long rows: 256 environments, growth, days in a row")
    p.add_argument("--peers", nargs="?", const=sys.executable, metavar="PYTHON", help="also other simulators, as "
                   "installed for this Python or another (they are no dependencies)")
    p.add_argument("--scenario", default="ieee33", help="scenario of day, start, memory, learn and growth (default: "
                   "ieee33)")
    p.add_argument("--until", metavar="TIME", help="length of a run of day and memory (default: 24h, --quick 1h)")
    p.add_argument("--repeat", type=int, metavar="N", help="runs of which the least counts (default: 3, --quick 1)")
    p.add_argument("--device", default="cpu", help="cpu or cuda: section learn also there (default: cpu)")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="section learn also with so many processes that "
                   "learn together (with cuda: that play), on the wall clock (default: none)")
    p.add_argument("--torch-compile", action="store_true", help="section learn also with learn.torch_compile=true, "
                   "which needs a C++ compiler")
    p.add_argument("--out", type=file_type(".json"), metavar="FILE", help="put the figures into this JSON file; its "
                   "other sections stay")
    p.add_argument("--read", type=Path, nargs="?", const=record.BASELINE, metavar="FILE",
                   help="show the figures of a file instead of measuring (default: benchmarks/"
                   f"{record.BASELINE.name})")
    p.add_argument("--compare", type=Path, nargs="?", const=record.BASELINE, metavar="FILE",
                   help=f"set ratios beside those of a file (default: benchmarks/{record.BASELINE.name}) and warn of "
                   f"those that have grown by more than {record.WARN:.0%}%")
    p.add_argument("--list", action="store_true", help="list the sections and end")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(parser().parse_args(argv), argv)
    except CosimError as err:
        return fail(err)
    except KeyboardInterrupt:
        print("benchmarks: stopped by the user", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    console = plain_console()
    if args.list:
        for name, about in SECTIONS.items():
            say(console, f"{name:8s} {about}")
        return 0
    size, names = _size(args), _sections(args)
    if args.out and args.out.exists():
        record.read(args.out)
    before = record.read(args.compare) if args.compare else {}
    if args.read:
        held = record.read(args.read)
        for kind, sections in held.items():
            for name in args.sections or sections:
                if name in sections:
                    _show(name, kind, sections[name])
        shown = held.get(size.name) or next(iter(held.values()), {})
        now = {name: one for name, one in shown.items() if name in (args.sections or shown)}
    else:
        say(console, f"{machine()}; load average {_load()}")
        now = {}
        for name in names:
            now[name] = _measured(name, size, _command(argv))
            if args.out:  # after each, as they take minutes
                record.write(args.out, size.name, {name: now[name]})
        if args.out:
            say(console, f"figures: {args.out}")
    if args.compare:
        held = before.get(size.name) or (before.get("full", {}) if size.name == "normal" else {})
        table, warnings = record.compare(now, held)
        print_digest(console, Digest([table], warnings))
    return 0


def _command(argv: Sequence[str]) -> str:
    """The command line as it is stored: without the paths of this machine."""
    words = list(argv)
    for option, shown in (("--out", ""), ("--compare", ""), ("--peers", " PYTHON")):
        if option in words:
            at = words.index(option)
            given = words[at + 1: at + 2] if words[at + 1: at + 2] and not words[at + 1].startswith("-") else []
            words[at: at + 1 + len(given)] = [option + (shown if given else "")] if shown else []
    return " ".join(["python -m benchmarks", *words])


def _size(args: argparse.Namespace) -> Size:
    if args.quick and args.full:
        raise ScenarioError("--quick and --full exclude each other; give one")
    name = "quick" if args.quick else "full" if args.full else "normal"
    repeats = REPEATS[name] if args.repeat is None else args.repeat
    if repeats < 1 or args.workers < 0:
        raise ScenarioError(f"--repeat {repeats} must be >= 1 and --workers {args.workers} >= 0")
    return Size(name, args.scenario, args.until or UNTIL[name], repeats, args.device, args.workers,
                args.peers or sys.executable, args.torch_compile)


def _sections(args: argparse.Namespace) -> list[str]:
    for name in args.sections:
        if name not in SECTIONS:
            raise ScenarioError(unknown("section", name, SECTIONS))
    names = args.sections or [*USUAL, *(["growth", "scale"] if args.full else [])]
    return list(dict.fromkeys([*names, *(["peers"] if args.peers else [])]))


def _measured(name: str, size: Size, command: str) -> dict:
    """One section: measured, shown, and as plain data."""
    begin = cpu_s()
    with _progress(name) as report:
        try:
            found: Found = load(f"benchmarks.{name}:measure", "section")(size, report)
        except RuntimeError as err:
            raise ScenarioError(f"section {name}: {err}") from err
    section = record.record(found, command, cpu_s() - begin)
    _show(name, size.name, section)
    return section


def _show(name: str, size: str, section: dict) -> None:
    console = plain_console()
    say(console, f"== {name} ({size}): {section['command']}, {section['measured']}, {section['machine']}")
    print_digest(console, Digest(record.tables(section)))
    for text in section["skipped"]:
        say(console, f"left out: {text}")


@contextmanager
def _progress(section: str) -> Iterator[Say]:
    """What is measured next: a line that changes on a terminal, lines with the seconds that have passed elsewhere."""
    console, begin = plain_console(stderr=True), time.monotonic()
    if not console.is_terminal:
        yield lambda text: say(console, f"{time.monotonic() - begin:6.1f} s  {section}: {text}")
        return
    with console.status(section) as status:
        yield lambda text: status.update(f"{section}, {time.monotonic() - begin:.0f} s: {text}")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    sys.exit(main())
