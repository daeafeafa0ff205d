"""Docstrings of this project for mkdocstrings: their columns become a list.

Rows: X01.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

import griffe

_NAMES = r"[a-z_][\w.]*(?:, [a-z_][\w.]*)*"
_ROW = re.compile(rf"({_NAMES})  +(\S.*)")


def as_lists(text: str) -> str:
    """Lines `name  text`, with what continues them further in, as a list in Markdown; other lines as they are."""
    out: list[str] = []
    for blank, lines in groupby(text.splitlines(), key=lambda line: not line.strip()):
        out += [""] if blank else _paragraph(list(lines))
    return "\n".join(out)


def _paragraph(lines: list[str]) -> list[str]:
    """One paragraph; a row of columns is also a line whose name reaches to one space before the others' text."""
    found = [row for row in map(_ROW.fullmatch, lines) if row]
    column = min((row.start(2) for row in found), default=0)
    out: list[str] = []
    for line in lines:
        row = _ROW.fullmatch(line) or re.fullmatch(rf"(?=.{{{column}}}\S)({_NAMES}) (\S.*)", line) if column else None
        if row is not None and (row.start(2) == column or "  " in line[:row.start(2)]):
            out += [*[""] * (bool(out) and not out[-1].startswith((" ", "-"))),
                    f"- {', '.join(f'`{name}`' for name in row[1].split(', '))}: {row[2]}"]
        elif out and out[-1].startswith((" ", "-")) and line.startswith(" "):
            out.append(f"  {line.strip()}")
        else:
            out += [*[""] * (bool(out) and out[-1].startswith((" ", "-"))), line]
    return out


class Columns(griffe.Extension):
    """The extension of griffe that rewrites each docstring by `as_lists`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that griffe loads."""
        if obj.docstring:
            obj.docstring.value = as_lists(obj.docstring.value)
