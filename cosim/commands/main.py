"""cosim COMMAND ...: the one command; `python -m cosim` is the same.

A subcommand's module is imported when it is called, so that `cosim --help` imports no heavy library.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap

from cosim import __version__
from cosim.commands.names import COMMANDS
from cosim.console import OneLineParser, fail, run_command
from cosim.errors import ScenarioError, unknown
from cosim.imports import load, refuse_shadows


def parser() -> argparse.ArgumentParser:
    """The command line before a subcommand takes over."""
    width, columns = max(map(len, COMMANDS)), shutil.get_terminal_size().columns - 2
    lines = [textwrap.fill(command.about, columns, initial_indent=f"  {name:{width}s}  ",
                           subsequent_indent=" " * (width + 4)) for name, command in COMMANDS.items()]
    p = OneLineParser(
        prog="cosim", usage="cosim [-h] [--version] COMMAND ...", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.fill("Co-simulation of AI data centers, distribution grids and the agents that steer "
                                  "them.", columns),
        epilog="\n".join(["commands:", *lines, "", textwrap.fill(
            "cosim COMMAND --help shows what a command takes; cosim run ieee33 is a first run.", columns)]))
    p.add_argument("--version", action="version", version=f"aidc-cosim {__version__}")
    p.add_argument("name", nargs="?", metavar="COMMAND", help="one of those below")
    p.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return run_command(None, lambda _: load(f"{COMMANDS[words[0]].module}:main", "command")(words[1:]), words)
    return run_command(parser, _no_command, words)


def script() -> int:
    """The console script: imports modules of the current folder first, as `python -m` does."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
        try:
            refuse_shadows()
        except ImportError as err:
            return fail(ScenarioError(str(err)))
    return main()


def _no_command(args: argparse.Namespace) -> int:
    """Help where no command is given; ScenarioError for a word that is no command."""
    if args.name is None:
        parser().print_help()
        return 0
    from cosim.request import FILES
    from cosim.trust import available

    if args.name.endswith(FILES) or args.name in available():
        raise ScenarioError(f"'{args.name}' is a scenario, no command; write cosim run {args.name}")
    raise ScenarioError(unknown("command", args.name, COMMANDS))
