"""Limits of a request: how deep its data are, how large its figures, how long it runs and what memory it takes.

Fields have limits of their own beside these (pydantic `Field`): counts, rates and steps, of which many would take
hours or all memory.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosim.errors import ScenarioError, cut, first_line, shown
from cosim.units import DAY_S, LONGEST_S, unit_of

MOST_DEPTH = 32
"""Levels of dicts and lists in a scenario's data."""
MOST_STEPS = 100_000_000
"""Bus steps of a run: 190 years of minutes."""
MOST_ENTITIES = 100_000
"""Entities of one member."""
BYTES_PER_NUMBER = 32
"""Memory of a recorded number that waits to be written: a Python float and its place in a list."""
_LARGEST = 1e15
_LARGEST_OF = {"time": LONGEST_S, "active power": 1e9, "reactive power": 1e9, "temperature": 1e4, "per unit": 1e3}
"""Largest magnitude of a figure by what it measures, in that dimension's base unit (kW: 1 TW), beyond _LARGEST."""
_MEMINFO = Path("/proc/meminfo")


def refuse_odd(value: Any, path: str = "") -> Any:
    """`value` as it is; ValueError where JSON data are deeper than MOST_DEPTH, or hold text that no file takes: half
    of a surrogate pair, or a NUL."""
    for where, inner, depth in _nodes(value, path):
        if depth > MOST_DEPTH:
            raise ValueError(f"{cut(where, 100)} is nested deeper than {MOST_DEPTH} levels")
        if isinstance(inner, str):
            if "\0" in inner:
                raise ValueError(f"{cut(where, 100)} = {shown(inner)} has a NUL character")
            try:
                inner.encode()
            except UnicodeEncodeError as err:
                raise ValueError(f"{cut(where, 100) or 'text'} = {ascii(cut(inner))} is no Unicode text: its character "
                                 f"{err.start} is half of a pair") from None
    return value


def refuse_magnitudes(params: Mapping[str, Any], owner: str) -> None:
    """ScenarioError for a number in a tree of parameters that is larger than anything of its unit (the suffix of the
    nearest name above it), and would overflow where it is multiplied."""
    for where, value, _ in _nodes(params, owner):
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            continue
        name = next(part for part in reversed(where.split(".")) if not part.isdigit())
        unit = unit_of(name)
        largest = _LARGEST_OF.get(unit.dimension, _LARGEST) / unit.factor
        if abs(value) > largest:
            raise ScenarioError(f"{cut(where, 160, 80)} = {shown(value)}: a number here lies within +-{largest:g}"
                                f"{' ' + unit.symbol if unit.symbol != '1' else ''}")


def is_file(path: str | Path) -> bool:
    """Whether a file is there; False, too, for a text that can be no file's name."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def reading_text(path: str | Path) -> Iterator[None]:
    """What is read inside is the text of a file, CSV perhaps: ScenarioError naming it where it cannot be read, is no
    text, or has a cell that no table has."""
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise ScenarioError(f"cannot read '{path}': {first_line(err, 150)}; it has to be UTF-8 text") from None


def check_steps(steps: int, resolution_s: float) -> None:
    """ScenarioError for a run of more than MOST_STEPS steps of the bus."""
    if steps > MOST_STEPS:
        raise ScenarioError(f"the run would have {steps:.3g} steps of {resolution_s:g} s, at most {MOST_STEPS:.0e} are "
                            f"taken ({MOST_STEPS * resolution_s / DAY_S:.0f} d): shorten it by --until, or raise "
                            "resolution_s")


def check_memory(what: str, numbers: float, bytes_each: float, do: str) -> None:
    """ScenarioError where `numbers` values would not fit into the memory that is free now; `do` names a remedy."""
    free = free_bytes()
    needed = numbers * bytes_each
    if free is not None and needed > free:
        raise ScenarioError(f"{what}: {numbers:.3g} numbers take {needed / 2**30:.3g} GiB of memory, "
                            f"{free / 2**30:.3g} GiB are free; {do}")


def free_bytes() -> int | None:
    """Memory that a process can still take, bytes: what Linux calls available, elsewhere all there is; None where the
    system does not report it."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _nodes(value: Any, path: str) -> Iterator[tuple[str, Any, int]]:
    """(path, node, depth) of every key, leaf, dict and list of a tree, without recursion; the last one too deep ends
    it."""
    stack = [(path, value, 0)]
    while stack:
        where, here, depth = stack.pop()
        yield where, here, depth
        if depth > MOST_DEPTH:
            continue
        if isinstance(here, Mapping):
            for key, inner in here.items():
                yield f"key of {where}", key, depth
                stack.append((f"{where}.{key}", inner, depth + 1))
        elif isinstance(here, list | tuple):
            stack += [(f"{where}.{k}", inner, depth + 1) for k, inner in enumerate(here)]
