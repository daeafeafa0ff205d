"""Cells of a campaign: what each computes, what identifies it, and in which state it is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from cosim.errors import ScenarioError, cut, shown, unknown
from cosim.imports import file_in
from cosim.limits import is_file, refuse_odd

State = Literal["waiting", "running", "done", "failed"]
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+@~-]{0,149}")
_CALL = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Cell:
    """One computation of a campaign.

    key         unique, and the name of its folder: letters, digits and ._=,+@~- ; two keys differ by more than case
    call        'package.module:function', a function f(folder, **arguments) -> dict of JSON data. It writes its files
                into `folder` (a Path) and returns its result. The same arguments give the same files and result.
                What it finds in the folder is what an earlier call with the same arguments left when it was killed;
                it goes on from there, or writes it again.
    arguments   JSON data, no NaN among them; `seed` is shown as the cell's seed
    needs       keys of cells whose folders it reads, as `folder.parent / key`; it is computed after them
    estimate_s  wall-clock seconds that it takes, from a measured rate; None: unknown
    """

    key: str
    call: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    estimate_s: float | None = None


@dataclass
class CellState:
    """How far a cell is, as the manifest holds it.

    state     'waiting', 'running', 'done' or 'failed'; a cell whose needs failed stays 'waiting', with the error
    identity  digest of call, arguments, the files that they name, and the identities of the cells it needs
    versions  of the packages and the machine that computed it (`cosim.trace.machine.versions`)
    wall_s    seconds of wall-clock time of the computation that ended; cpu_s: of processors, its child processes'
              included
    error     one line; '' where there is none; exit_code: of a command that had this error
    result    what the function returned; None unless done
    reused    whether an earlier campaign in the folder had finished it
    again     why a finished cell is computed again; '' where it is not
    """

    key: str
    call: str
    arguments: Mapping[str, JsonValue]
    needs: tuple[str, ...]
    identity: str
    state: State = "waiting"
    versions: Mapping[str, str] = field(default_factory=dict)
    wall_s: float | None = None
    cpu_s: float | None = None
    error: str = ""
    exit_code: int = 0
    result: dict[str, JsonValue] | None = None
    reused: bool = False
    again: str = ""

    @property
    def seed(self) -> JsonValue:
        """Its argument `seed`; None where it has none."""
        return self.arguments.get("seed")


def states_of(cells: Sequence[Cell]) -> dict[str, CellState]:
    """Cells in an order in which each comes after those it needs, waiting. ScenarioError for keys, calls, arguments or
    needs that cannot be."""
    named = _checked(cells)
    states: dict[str, CellState] = {}
    waiting = list(named.values())
    while waiting:
        ready = [cell for cell in waiting if all(need in states for need in cell.needs)]
        if not ready:
            raise ScenarioError(f"cells need one another in a circle: {waiting[0].key} needs "
                                f"{', '.join(waiting[0].needs)}")
        for cell in ready:
            identity = _identity(cell, [states[need].identity for need in cell.needs])
            states[cell.key] = CellState(cell.key, cell.call, dict(cell.arguments), cell.needs, identity)
        waiting = [cell for cell in waiting if cell.key not in states]
    return states


def json_text(data: Any, what: str) -> str:
    """Data as JSON text with sorted keys. ScenarioError naming `what` for what JSON cannot hold, NaN among it."""
    try:
        return json.dumps(refuse_odd(data), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as err:
        raise ScenarioError(f"{what} is no JSON data: {cut(str(err), 160)}; write None for a number that is not "
                            "there") from None


def digest_of(text: str | bytes) -> str:
    """SHA-256 of a text or of bytes, hexadecimal."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def files_of(data: Any) -> dict[str, str]:
    """Contents behind the names in a tree of JSON data: path -> SHA-256 of each text that is a file's path, import
    string -> SHA-256 of the module's file where it is no installed package's."""
    found = {}
    for text in _texts(data):
        if is_file(text):
            stat = Path(text).stat()
            found[text] = _digest_of_file(str(Path(text).resolve()), stat.st_mtime_ns, stat.st_size)
        elif place := _file_of_code(text):
            stat = place.stat()
            found[text] = _digest_of_file(str(place.resolve()), stat.st_mtime_ns, stat.st_size)
    return found


def _checked(cells: Sequence[Cell]) -> dict[str, Cell]:
    named: dict[str, Cell] = {}
    folded: dict[str, str] = {}
    for cell in cells:
        if not isinstance(cell.key, str) or not _KEY.fullmatch(cell.key):
            raise ScenarioError(f"cell {shown(cell.key)}: a key is a file's name of 1 to 150 letters, digits and "
                                "._=,+@~-, a letter or digit first")
        if (other := folded.setdefault(cell.key.casefold(), cell.key)) != cell.key or cell.key in named:
            raise ScenarioError(f"two cells are called {other} and {cell.key}; a key names one cell's folder, also "
                                "where case does not count")
        if not _CALL.fullmatch(cell.call):
            raise ScenarioError(f"cell {cell.key}: call = {shown(cell.call)}; write package.module:function")
        json_text(dict(cell.arguments), f"cell {cell.key}: arguments")
        named[cell.key] = cell
    for cell in cells:
        for need in cell.needs:
            if need not in named:
                raise ScenarioError(f"cell {cell.key} needs: {unknown('cell', need, named)}")
    return named


def _identity(cell: Cell, needs: Sequence[str]) -> str:
    arguments = dict(cell.arguments)
    return digest_of(json_text({"call": cell.call, "arguments": arguments, "needs": list(needs),
                                "files": files_of([cell.call, arguments])}, f"cell {cell.key}"))


def _texts(data: Any) -> Iterator[str]:
    stack = [data]
    while stack:
        here = stack.pop()
        if isinstance(here, str):
            yield here
        elif isinstance(here, Mapping):
            stack += here.values()
        elif isinstance(here, list | tuple):
            stack += here


@lru_cache(maxsize=1024)
def _digest_of_file(path: str, _mtime_ns: int, _size: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _file_of_code(text: str) -> Path | None:
    """The file behind an import string; None for one of an installed package, and for a text that is none."""
    if named := file_in(text):
        return Path(named[0]) if is_file(named[0]) else None
    return _own_module(text.partition(":")[0]) if _CALL.fullmatch(text) else None


@lru_cache(maxsize=1024)
def _own_module(name: str) -> Path | None:
    """The file of a module of the user's own; None for one of an installed package, of ours, or that is not there."""
    if name.partition(".")[0] == __name__.partition(".")[0]:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    place = Path(spec.origin) if spec and spec.origin else None
    own = place is not None and place.is_file() and not {"site-packages", "dist-packages"} & set(place.parts)
    return place if own else None
