"""cosim pretrained [NAME]: the trained teams that ship, how each was made and how it learned."""

from __future__ import annotations

import argparse
import json
import sys

from cosim.agents.pretrained import shipped
from cosim.console import command_parser, plain_console, print_digest, run_command
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError, unknown

_CURVE = ("days", "objective per day", "USD/day", "attributed t/day", "dropped training jobs/day")


def about(name: str) -> Digest:
    """Tables of one shipped team from the JSON beside its checkpoint. ScenarioError for a name that is none."""
    files = shipped()
    if name not in files:
        raise ScenarioError(unknown("trained team", name, files))
    facts = json.loads(files[name].with_suffix(".json").read_text())
    curve = [tuple(f"{row[key]:g}" for key in _CURVE) for row in facts["curve"]]
    rows = [(metric, *values) for metric, *values in facts["evaluation"]["rows"]]
    probed = facts.get("probe")
    return Digest(tables=[
        Table(name, ("", ""), [(key, str(value)) for key, value in facts["made"].items()]),
        Table("While it learned, exploring: means of the days since the line above", _CURVE, curve),
        Table("Evaluated", ("", *facts["evaluation"]["policies"]), rows, facts["evaluation"]["note"]),
        *([Table("Probed", ("", ""), [tuple(row) for row in probed["rows"]], probed["command"])] if probed else [])])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("pretrained")
    p.add_argument("name", nargs="?", metavar="NAME", help="one of them (default: all)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _show, argv)


def _show(args: argparse.Namespace) -> int:
    for name in [args.name] if args.name else shipped():
        print_digest(plain_console(), about(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
