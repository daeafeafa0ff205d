"""cosim study paper|signal: the paper's evaluation, claim by claim, and what a carbon signal is worth; by one command.

    cosim study paper --tier rules --jobs 2
    cosim study paper --tier short --only table2,fig8 --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from cosim.agents.presets import PRESETS
from cosim.agents.recorded_jobs import add_recorded, recorded_of
from cosim.agents.study.paper import digest_of_study, write_paper
from cosim.agents.study.plan import PARTS, TIERS, cells_of
from cosim.agents.study.rates import with_estimates
from cosim.agents.study.signal import digest_of_signal, write_signal
from cosim.agents.study.signal_plan import FEEDERS, SIGNAL_TIERS, signal_cells
from cosim.campaign.cells import Cell, CellState
from cosim.campaign.mirror import mirrored
from cosim.campaign.runner import exit_code, listing, look_up, nobody, run_cells
from cosim.campaign.sweep_command import add_engine, check_engine
from cosim.console import add_debug, command_parser, plain_console, print_digest, run_command, say
from cosim.errors import ScenarioError, unknown


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("study", epilog="A study that was stopped goes on where it was; finished cells are skipped. "
                       "Exit codes: 0 all cells are done, else that of the first that failed.")
    commands = p.add_subparsers(dest="command", required=True, metavar="paper | signal")
    paper = commands.add_parser("paper", help="the paper's tables and figures, with a verdict on each of its claims")
    paper.add_argument("--tier", choices=TIERS, default="rules", help="; ".join(
        f"{name}: {tier.about}" for name, tier in TIERS.items()) + " (default: rules)")
    paper.add_argument("--preset", choices=PRESETS, default="ours", help="of cosim train, for the teams; paper: "
                       "Algorithm 1 as printed (default: ours)")
    paper.add_argument("--only", type=_parts, default=PARTS, metavar="PART,...", help=f"of {', '.join(PARTS)}")
    _shared(paper)
    signal = commands.add_parser("signal", help="what following a carbon signal saves, on three feeders, and where it "
                                 "raises emissions")
    signal.add_argument("--tier", choices=SIGNAL_TIERS, default="quick", help="; ".join(
        f"{name}: {tier.about}" for name, tier in SIGNAL_TIERS.items()) + " (default: quick)")
    signal.add_argument("--feeder", choices=FEEDERS, action="append", default=[], metavar="|".join(FEEDERS),
                        help="this one alone; repeatable (default: all)")
    add_recorded(signal, "at each feeder also: ")
    _shared(signal)
    return p


def _shared(p: argparse.ArgumentParser) -> None:
    """Options of every study."""
    add_engine(p, jobs=1)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the study (default: results/study-...)")
    p.add_argument("--dry-run", action="store_true", help="list the cells, with the time that they will take, and end")
    add_debug(p)


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(unknown("table or figure", name, PARTS))
    return names


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _study, argv, "stopped by the user; the same command goes on")


def _study(args: argparse.Namespace) -> int:
    check_engine(args)
    return {"paper": _paper, "signal": _signal}[args.command](args)


def _paper(args: argparse.Namespace) -> int:
    tier = replace(TIERS[args.tier], preset=args.preset)
    if args.preset != "ours" and not tier.episodes:
        raise ScenarioError(f"--preset {args.preset} is of trainings, and tier {tier.name} has none; leave it out")
    apart = f"-{args.preset}" if args.preset != "ours" else ""
    out = args.out or Path("results") / f"study-{args.tier}{apart}"
    cells = cells_of(args.only, tier)
    if tier.episodes and find_spec("torch") is None:
        raise ScenarioError(f"--tier {tier.name} trains teams, which needs torch; install aidc-cosim with the extra "
                            "'learn', or take --tier rules")
    if args.dry_run:
        return listed(cells, out, args)
    words = f"cosim study paper --tier {args.tier}" + (f" --preset {args.preset}" if apart else "") + (
        f" --only {','.join(args.only)}" if args.only != PARTS else "")
    with mirrored(out, args.copy_to) as ended:
        states = computed(cells, out, args, ended)
        made, ruled = write_paper(states, args.only, tier, out, words)
    print_digest(plain_console(), digest_of_study(ruled, states))
    say(plain_console(), f"page: {made}")
    return exit_code(states.values())


def _signal(args: argparse.Namespace) -> int:
    tier = SIGNAL_TIERS[args.tier]
    if args.feeder:
        tier = replace(tier, feeders=tuple(name for name in FEEDERS if name in args.feeder))
    tier = replace(tier, traces=recorded_of(args))
    out = args.out or Path("results") / f"study-signal-{args.tier}"
    cells = signal_cells(tier)
    if args.dry_run:
        return listed(cells, out, args)
    words = f"cosim study signal --tier {args.tier}" + "".join(f" --feeder {name}" for name in args.feeder) + "".join(
        f" --{what} {Path(path).name}" for what, path in tier.traces.items())
    with mirrored(out, args.copy_to) as ended:
        states = computed(cells, out, args, ended)
        made, results = write_signal(states, tier, out, words)
    print_digest(plain_console(), digest_of_signal(results, states))
    say(plain_console(), f"page: {made}")
    return exit_code(states.values())


def listed(cells: Sequence[Cell], out: Path, args: argparse.Namespace) -> int:
    """--dry-run: the cells, with the time that they will take."""
    before = look_up(cells, out)
    print_digest(plain_console(), listing(with_estimates(cells, before), before, args.jobs))
    return 0


def computed(cells: Sequence[Cell], out: Path, args: argparse.Namespace, ended: Callable[[str], None] = nobody
             ) -> dict[str, CellState]:
    """The states of the cells after all that can be have been computed; ended: as of `run_cells`."""
    return run_cells(with_estimates(cells, look_up(cells, out)), out, jobs=args.jobs, engine=args.engine,
                     address=args.address, ended=ended)


if __name__ == "__main__":
    sys.exit(main())
