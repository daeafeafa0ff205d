"""cosim check ROLE SIMULATOR: does a simulator keep the contract of its role?"""

from __future__ import annotations

import argparse
import sys

from cosim.conformance import check
from cosim.console import (
    Console,
    add_names,
    add_settings,
    add_trust,
    command_parser,
    names_of,
    plain_console,
    print_digest,
    run_command,
    say,
    settings_of,
)
from cosim.contracts import Check
from cosim.digest import Digest, Table
from cosim.progress import working
from cosim.request import changed, find


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("check", epilog="Exit codes: 0 all passed, 1 something failed, 2 wrong request.")
    p.add_argument("role", metavar="ROLE", help="member whose place it takes: grid, aidc, workload, ...")
    p.add_argument("simulator", nargs="?", metavar="SIMULATOR",
                   help="package.module:Class or folder/file.py:Class; default: the scenario's own")
    p.add_argument("--scenario", default="ieee33", help="scenario it is tried in, a name or a file (default: ieee33)")
    add_settings(p)
    add_names(p, "as in cosim run")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _check, argv)


def _check(args: argparse.Namespace) -> int:
    use = {args.role: args.simulator} if args.simulator else {}
    with working(f"checking {args.role}"):
        scenario = changed(find(args.scenario, args.trust, use), use=use, names=names_of(args.names),
                           settings=settings_of(args.settings))
        checks = check(scenario, args.role)
    _print(plain_console(), f"{args.role}: {scenario.members[args.role].simulator}", checks)
    return 0 if all(c.passed for c in checks) else 1


def _print(console: Console, title: str, checks: list[Check]) -> None:
    rows = [(c.what, "FAILED" if not c.passed else "passed" if c.checked else "not checked") for c in checks]
    print_digest(console, Digest(tables=[Table(title, ("", ""), rows)]))
    for c in checks:
        if not c.passed:
            say(console, f"FAILED {c.what}: {c.reason}")
            say(console, f"       fix: {c.fix}")
    for c in checks:
        if not c.checked:
            say(console, f"not checked: {c.what}: {c.reason}")
    failed, unchecked = sum(not c.passed for c in checks), sum(not c.checked for c in checks)
    say(console, f"{len(checks) - failed - unchecked} passed, {failed} failed"
        + (f", {unchecked} not checked" if unchecked else ""))


if __name__ == "__main__":
    sys.exit(main())
