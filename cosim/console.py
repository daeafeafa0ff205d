"""What the command lines share: errors in one line, tables that fit their output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table as RichTable

from cosim.digest import Digest, Table
from cosim.errors import CosimError, ScenarioError, cut, cut_line

PICTURES = (".png", ".svg", ".pdf")
"""Endings of the files that pictures for print are drawn into."""


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ScenarioError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever; ScenarioError for bytes that are no text, which nothing could print or store."""
        for word in sys.argv[1:] if args is None else args:
            if any("\ud800" <= c <= "\udfff" for c in word):
                raise ScenarioError(f"argument {ascii(cut(word))} is no UTF-8 text; rename it")
        return super().parse_known_args(args, namespace)


def file_type(*endings: str) -> Callable[[str], Path]:
    """An argparse type: a file to write, of one of these endings, in a folder that is there."""
    def path_of(text: str) -> Path:
        path = Path(text)
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"'{text}' must end in {', '.join(endings)}")
        if not path.absolute().parent.is_dir():
            raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
        return path
    return path_of


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option by which a user consents to what a received file names."""
    parser.add_argument("--trust", action="append", default=[], metavar="FILE",
                        help="let this file, received from somebody, run the code that it names, for this once; "
                        "repeatable")


def plain_console() -> Console:
    """A console for tables; wide where the output is not a terminal, so that nothing is cut in a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def fail(err: CosimError) -> int:
    """Say what went wrong, in one line, and return its exit code."""
    print(f"cosim: {one_line(str(err))}", file=sys.stderr)
    return err.exit_code


def one_line(text: str) -> str:
    """A text as one line that a terminal shows as it stands: what is not printable is written out, and what is too long
    loses its middle."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
                   for c in " ".join(text.split()))
    return cut_line(line)


def print_digest(console: Console, digest: Digest) -> None:
    """Tables and warnings of a digest."""
    for table in digest.tables:
        _print_table(console, table)
    for warning in digest.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _print_table(console: Console, table: Table) -> None:
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", header_style="dim", box=None,
                      pad_edge=False, show_header=any(table.columns))
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    console.print()
    console.print(shown)
    if table.note:
        console.print(table.note, style="dim", markup=False, soft_wrap=True)
