"""python -m cosim.check ROLE SIMULATOR: does a simulator keep the contract of its role?"""

from __future__ import annotations

import argparse
import sys

from cosim.conformance import check
from cosim.console import Console, OneLineParser, add_trust, fail, plain_console, print_digest, say
from cosim.contracts import Check
from cosim.digest import Digest, Table
from cosim.drivers.resolve import fit, prune
from cosim.errors import CosimError
from cosim.run import find, settings_of
from cosim.scenario import override, plug, rename


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = OneLineParser(prog="python -m cosim.check", description="Check a simulator against the contract of its role.",
                      epilog="Exit codes: 0 all passed, 1 something failed, 2 wrong request.")
    p.add_argument("role", metavar="ROLE", help="member whose place it takes: grid, aidc, workload, ...")
    p.add_argument("simulator", nargs="?", metavar="SIMULATOR",
                   help="package.module:Class; default: the scenario's own")
    p.add_argument("--scenario", default="ieee33", help="scenario it is tried in (default: ieee33)")
    p.add_argument("--set", dest="settings", action="append", default=[], metavar="MEMBER.FIELD=VALUE",
                   help="as in cosim.run")
    p.add_argument("--map", dest="names", action="append", default=[], metavar="MEMBER.PORT=THEIRS",
                   help="as in cosim.run")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    try:
        args = parser().parse_args(argv)
        before = scenario = find(args.scenario, args.trust, [args.role] if args.simulator else [])
        if args.simulator:
            scenario = fit(plug(scenario, args.role, args.simulator), args.role)
        scenario = rename(scenario, dict(text.partition("=")[::2] for text in args.names))
        checks = check(prune(override(scenario, settings_of(args.settings)), before), args.role)
    except CosimError as err:
        return fail(err)
    console = plain_console()
    _print(console, f"{args.role}: {scenario.members[args.role].simulator}", checks)
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
