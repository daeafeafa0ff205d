"""Names and notes that come from a file are text: what a terminal, a file system or a spreadsheet would make more of is
written out, so that it is seen and does nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_SPACE = "Zs"
_LONGEST_FILE = 100
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BEGINS = r"""(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20]|[ "']*[\t\r\n])"""
_FORMULA = re.compile(rf"(^|[;\t\r\n]){_BEGINS}")
_QUOTED = re.compile(rf"(^|[;\t\r\n])'{_BEGINS}")


def visible(text: str) -> str:
    r"""A text in one line that is shown as it stands: control characters (an escape sequence of a terminal, a line
    break), marks that turn the direction of writing and lone surrogates are written out, as in '\x1b[31m'."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == _SPACE
                   else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


_OF_UNIT = re.compile(r"(?<![\w.])(\d[\d.,\u202f]*"
                      r"(?:e[+-]?\d+|\u00d710[\u2070-\u207b\u00b9\u00b2\u00b3]+)?) (?=[%A-Za-z])")
_APART = re.compile(r"(?<=\bof) (?=\d)| (?=\.\. )|(?<=\.\.) | (?=(?:\+-|\u00b1) )|(?<=\+-) |(?<=\u00b1) ")


def kept_together(text: str) -> str:
    """The text with no-break spaces where no line may end: between a number and its unit, in '0 of 96', in a range, and
    before how far a number may be off."""
    return _APART.sub("\u00a0", _OF_UNIT.sub("\\1\u00a0", text))


def file_name(name: str) -> str:
    """A name as that of a file in the folder where it is requested, without its ending: separators, control characters
    and what Windows refuses become '_', as does a dot at its beginning; at most 100 characters."""
    plain = re.sub(r"[^\w.+ -]+", "_", name).strip(" ")
    plain = re.sub(r"^\.+|[. ]+$", "_", plain[:_LONGEST_FILE])
    return f"_{plain[:_LONGEST_FILE - 1]}" if not plain or _DEVICE.match(plain) or plain[0] == "-" else plain


def file_names(names: Iterable[str]) -> dict[str, str]:
    """name -> its file's name without an ending, with a model's '/' as a dot; no two are equal, whatever a file system
    makes of large letters."""
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = file_name(name.replace("/", "."))
        tried, number = plain, 1
        while unicodedata.normalize("NFC", tried.casefold()) in taken:
            number += 1
            tried = f"{plain}~{number}"
        taken.add(unicodedata.normalize("NFC", tried.casefold()))
        out[name] = tried
    return out


def cell(text: str) -> str:
    """A text as a cell that no spreadsheet runs: where it begins like a formula (=, +, -, @, a tab, a line break, also
    after blanks and quotes), at its beginning or behind what some spreadsheets take for the end of a cell (a semicolon,
    a tab, a line break), an apostrophe stands before it. A number stays as it is. `text_of` reads it back."""
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def text_of(written: str) -> str:
    """The text of a cell that `cell` wrote; any other cell as it is."""
    text = _QUOTED.sub(r"\1", written)
    return text if cell(text) == written else written
