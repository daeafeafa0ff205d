"""Errors with one clear line each, and the exit code of the command.

    CosimError            1   anything this project raises on purpose
    ├── ScenarioError     2   the request is wrong: scenario, field, type, range, file, wiring
    ├── ModelError        3   a simulator failed or its outputs are invalid; names the member and the time
    │   └── SolverError   4   the dispatch could not be solved
    └── TraceError        5   a trace cannot be written or read
        └── DiskError     5   a write to the disk failed; what was written before is whole

Ctrl-C ends with 130, as shells expect. A message names the field, its value, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from reprlib import Repr
from typing import Any

LONGEST = 400
"""Characters of an error's line; what is longer loses its middle. Its end states the remedy."""
_END = 150
_LONGEST_VALUE, _LONGEST_NAME, _LONGEST_LIST, _LONGEST_LINE = 80, 60, 230, 120
_MOST_NAMES = 10_000
"""Of more names none is proposed in the place of a misspelt one: it would take minutes."""
_BEGUN_RATIO = 0.85


class CosimError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns. As text it has LONGEST
    characters at most; `args[0]` is all of it."""

    exit_code = 1

    def __str__(self) -> str:
        return cut_line(super().__str__())


class ScenarioError(CosimError):
    """The scenario or the command line requests something impossible."""

    exit_code = 2


class ModelError(CosimError):
    """A simulator raised or returned something its contract does not allow."""

    exit_code = 3


class SolverError(ModelError):
    """An optimisation did not end at an optimum, and no flagged fallback applies."""

    exit_code = 4


class TraceError(CosimError):
    """A trace cannot be written, opened, or does not hold what was requested."""

    exit_code = 5


class DiskError(TraceError):
    """A write to the disk failed: no member's fault, and what was written before is whole."""


def cut_line(text: str) -> str:
    """An error's line of at most LONGEST characters, all of which a file takes."""
    return cut(text.encode(errors="backslashreplace").decode(), LONGEST, _END)


def cut(text: str, longest: int = _LONGEST_NAME, end: int = 0) -> str:
    """A text of at most `longest` characters: what is longer loses its middle, all but the last `end`."""
    return text if len(text) <= longest else f"{text[:longest - end - 5]} ... {text[len(text) - end:]}".rstrip()


def first_line(err: BaseException, longest: int = _LONGEST_LINE) -> str:
    """Text of a library's error, of which HDF5's and torch's go on for pages: its first line, short; the error's type
    where it has no text."""
    said = str(err.args[0] if isinstance(err, KeyError) and err.args else err)  # as text, a KeyError is its key's repr
    return cut(next((line for line in said.splitlines() if line.strip()), type(err).__name__), longest)


def shown(value: Any) -> str:
    """A value as a message shows it: its repr, short however long or deep it is."""
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 4, _LONGEST_VALUE, _LONGEST_VALUE, 40
    try:
        return cut(short.repr(value), _LONGEST_VALUE, 20)
    except ValueError:  # an integer of more digits than Python writes out
        return f"{type(value).__name__} of thousands of digits"


def listed(names: Iterable[Any], longest: int = _LONGEST_NAME) -> str:
    """Names in a sentence, of at most `longest` characters each; of many those that find room, and how many more there
    are."""
    found, room = [str(n) for n in names], _LONGEST_LIST
    for k, name in enumerate(found):
        room -= min(len(name), longest) + 2
        if k and room < 0:
            return f"{', '.join(cut(n, longest) for n in found[:k])} and {len(found) - k} more"
    return ", ".join(cut(n, longest) for n in found) or "none"


def _begun(name: str, names: Sequence[str]) -> list[str]:
    """The name that begins most as `name` is written, the units behind it left out (lambda_kw_per_kg_h for lamda)."""
    alike = {n: difflib.SequenceMatcher(None, name, n[:len(name) + 1]).ratio() for n in names}
    return [best] if len(name) > 2 and (best := max(alike, key=alike.__getitem__, default="")) and (
        alike[best] >= _BEGUN_RATIO) else []


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that does not exist: unknown WHAT 'NAME'; did you mean 'X'? Allowed: ..."""
    names, name = sorted(str(n) for n in allowed), cut(str(name))
    parts = [n for n in names if name in n.replace("-", "_").split("_")]  # sweep of lambda-sweep
    near = [n for n in names if n.lower() == name.lower()] or (parts if len(parts) == 1 else [])
    if not near and len(names) <= _MOST_NAMES:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5) or _begun(name, names)
    hint = f" did you mean '{cut(near[0])}'?" if near else ""
    return f"unknown {what} '{name}';{hint} allowed: {listed(names)}"
