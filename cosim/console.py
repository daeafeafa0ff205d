"""What the command lines share: errors in one line, tables that fit their output."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from cosim.collector import skip_the_last
from cosim.commands.names import COMMANDS
from cosim.digest import Digest, Table
from cosim.errors import CosimError, ScenarioError, cut, cut_line
from cosim.plaintext import kept_together, visible

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


def command_parser(name: str, **options: Any) -> OneLineParser:
    """The parser of the subcommand `name`, with what all of them have."""
    made = OneLineParser(prog=f"cosim {name}", description=COMMANDS[name].about, **options)
    add_debug(made)
    return made


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The option by which an error shows where it was raised; `run_command` acts on it."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


_began: list[float] = []


def run_command(parser: Callable[[], argparse.ArgumentParser] | None, body: Callable[[argparse.Namespace], int],
                argv: Sequence[str] | None, stopped: str = "stopped at once by the user") -> int:
    """Run a command and return its exit code: every error is one line on standard error.

    parser: makes the parser; None: there is nothing to parse here. body: gets what it read. argv None: that of the
    process. stopped: the line printed after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    skip_the_last()
    if not _began:
        _began.append(monotonic())
    try:
        return body(parser().parse_args(words) if parser else argparse.Namespace())
    except CosimError as err:
        if debug:
            traceback.print_exc()
        return fail(err)
    except KeyboardInterrupt:
        print(f"cosim: {stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stderr.close()
        return 1
    except Exception as err:
        if debug:
            traceback.print_exc()
        text = one_line(f"internal error: {type(err).__name__}: {err}; report it with what --debug shows")
        print(f"cosim: {text}", file=sys.stderr)
        return 1
    finally:
        _began.clear()


def command_began() -> float | None:
    """When the running command began (`time.monotonic`), to the first caller: its imports count as silence, too. None
    to later ones, and where no command runs."""
    return _began.pop() if _began else None


def add_settings(parser: argparse.ArgumentParser, *, metavar: str = "MEMBER.FIELD=VALUE",
                 about: str = "override any field, e.g. grid.lambda_kw_per_kg_h=0.1; repeatable; cosim run SCENARIO "
                 "--show lists them") -> None:
    """The option --set; `assignments` reads what it was given."""
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar=metavar, help=about)


def assignments(texts: Sequence[str], option: str, example: str) -> dict[str, str]:
    """'NAME=VALUE' texts of a repeatable option as a dict. ScenarioError for another form, and for a name with two
    values."""
    out: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name):
            raise ScenarioError(f"{option} {cut(text)}: write {example}")
        if out.setdefault(name, value) != value:
            raise ScenarioError(f"{option} {cut(name)} is given twice, as {cut(out[name])} and {cut(value)}; give it "
                                "once")
    return out


def settings_of(texts: Sequence[str]) -> dict[str, str]:
    """What --set was given: path -> value as text."""
    return assignments(texts, "--set", "member.field=value, for example grid.lambda_kw_per_kg_h=0.1")


USE = "member=package.module:Class, member=folder/file.py:Class, 'member=cmd: ...' or 'member=connect: host:port'"
"""What --use takes, for an error."""


def names_of(texts: Sequence[str]) -> dict[str, str]:
    """What --map was given: our port or entity -> what a simulator calls it."""
    return assignments(texts, "--map", "member.port=theirs, e.g. grid.p_load_kw='P_load[MW]'")


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


def add_use(parser: argparse.ArgumentParser, about: str) -> None:
    """The option --use; `assignments` with USE reads what it was given."""
    parser.add_argument("--use", action="append", default=[], metavar="MEMBER=SIMULATOR", help=about)


def add_names(parser: argparse.ArgumentParser, about: str) -> None:
    """The option --map; `names_of` reads what it was given."""
    parser.add_argument("--map", dest="names", action="append", default=[], metavar="MEMBER.PORT=THEIRS", help=about)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option by which a user consents to what a received file names."""
    parser.add_argument("--trust", action="append", default=[], metavar="FILE",
                        help="let this file, received from somebody, run the code that it names, for this once; "
                        "repeatable")


_WIDE = 160
"""Columns of an output that is no terminal, unless COLUMNS is set: nothing is cut in a file."""
_GAP = 2
_NEVER_DROPPED = 2


def plain_console(*, stderr: bool = False) -> Console:
    """A console on standard output (or error) that takes brackets and colons for what they are; wide where the output
    is not a terminal and COLUMNS of the environment not set, so that nothing is cut in a file."""
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=None if known else _WIDE)


def say(console: Console, text: str, style: str = "", indent: int = 2) -> None:
    """Print one line, whatever names from a file it holds; on a terminal in several that end between words, those after
    the first `indent` columns to the right."""
    shown = visible(text)
    if console.width < _WIDE:
        lead = shown[:len(shown) - len(shown.lstrip())]
        shown = "\n".join(_wrapped(shown.strip(), console.width, lead, " " * indent))
    console.print(Text(shown), style=style, soft_wrap=True)


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Lines that end between words; a number stays with its unit, and a word that is longer has a line of its own."""
    lines = textwrap.wrap(kept_together(text), width, initial_indent=first, subsequent_indent=rest,
                          break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines] or [""]


def fail(err: CosimError) -> int:
    """Say what went wrong, in one line, and return its exit code."""
    print(f"cosim: {one_line(str(err))}", file=sys.stderr)
    return err.exit_code


def one_line(text: str) -> str:
    """A text as one line that a terminal shows as it stands: what is not printable is written out, and what is too long
    loses its middle."""
    return cut_line(visible(" ".join(text.split())))


def print_digest(console: Console, digest: Digest) -> None:
    """Tables and warnings of a digest."""
    for table in digest.tables:
        _print_table(console, table)
    for warning in digest.warnings:
        say(console, f"warning: {warning}", "yellow")


def _print_table(console: Console, table: Table) -> None:
    """Cells wrap between words alone; where the columns have no room even so, the last ones drop out, and a line names
    them."""
    heads = [visible(column) for column in table.columns]
    rows = [[visible(text) for text in row] for row in table.rows]
    widths = _fitted([[head, *(row[k] for row in rows)] for k, head in enumerate(heads)], console.width)
    console.print()
    say(console, table.title, "bold")
    for number, texts in enumerate([heads, *rows] if any(heads) else rows):
        cells = [_wrapped(text, width) for text, width in zip(texts, widths, strict=False)]
        for parts in zip_longest(*cells, fillvalue=""):
            line = (" " * _GAP).join(part.rjust(width) if k else part.ljust(width)
                                     for k, (part, width) in enumerate(zip(parts, widths, strict=True)))
            console.print(Text(line.rstrip()), style="dim" if any(heads) and number == 0 else "", soft_wrap=True)
    if gone := heads[len(widths):]:
        say(console, f"no room in {console.width} columns for: {'; '.join(gone)}", "dim")
    for line in table.note.splitlines():
        say(console, line, "dim")


def _fitted(columns: list[list[str]], room: int) -> list[int]:
    """Widths of the columns that fit, from the left: as wide as their texts, or narrower but never than a word. The
    first two always do."""
    words = [max((len(w) for text in column for w in re.split(r"[ \t]", kept_together(text))), default=0)
             for column in columns]
    count = len(columns)
    while count > _NEVER_DROPPED and sum(words[:count]) + _GAP * (count - 1) > room:
        count -= 1
    widths = [max((len(text) for text in column), default=0) for column in columns[:count]]
    while sum(widths) + _GAP * (count - 1) > room and any(w > least for w, least in zip(widths, words, strict=False)):
        _, widest = max((width, k) for k, width in enumerate(widths) if width > words[k])
        widths[widest] -= 1
    return widths
