"""cosim spaces: the sizes of the action spaces, Table III; `cosim.agents.fleet.spaces` counts them."""

from __future__ import annotations

import argparse
import sys

from cosim.agents.fleet.spaces import table3
from cosim.console import command_parser, run_command


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("spaces")
    p.add_argument("--table3", action="store_true", help="Table III, which is what is shown anyway")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _show, argv)


def _show(_: argparse.Namespace) -> int:
    print(table3())
    return 0


if __name__ == "__main__":
    sys.exit(main())
