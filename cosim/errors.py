"""Errors with one clear line each, and the exit code that a shell sees.

    CosimError            1   anything this project raises on purpose
    ├── ScenarioError     2   the request is wrong: scenario, field, type, range, file, wiring
    ├── ModelError        3   a simulator failed or answered nonsense; names the member and the time
    │   └── SolverError   4   the dispatch could not be solved
    └── TraceError        5   a trace cannot be written or read
        └── DiskError     5   the disk refused what a run wanted to write; what was written before is whole

Ctrl-C ends with 130, as shells expect. A message says what, which value, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CosimError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class ScenarioError(CosimError):
    """The scenario or the command line asks for something that cannot be."""

    exit_code = 2


class ModelError(CosimError):
    """A simulator raised or returned something its contract does not allow."""

    exit_code = 3


class SolverError(ModelError):
    """An optimisation did not end at an optimum, and no flagged fallback applies."""

    exit_code = 4


class TraceError(CosimError):
    """A trace cannot be written, opened, or does not hold what was asked for."""

    exit_code = 5


class DiskError(TraceError):
    """The disk refused what a run wanted to write: no member's fault, and what was written before is whole."""


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that does not exist: unknown WHAT 'NAME'; did you mean 'X'? Allowed: ..."""
    names = sorted(str(n) for n in allowed)
    near = ([n for n in names if n.lower() == name.lower()]
            or difflib.get_close_matches(name, names, n=1, cutoff=0.5))
    hint = f" did you mean '{near[0]}'?" if near else ""
    return f"unknown {what} '{name}';{hint} allowed: {', '.join(names) or 'none'}"
