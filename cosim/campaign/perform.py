"""One cell, computed in a process of its own kind: its folder, its result, its state.

The process that computes a cell writes its state itself, so that the end of the process that gave it the cell loses
none that has ended.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from cosim.campaign.cells import digest_of, json_text
from cosim.campaign.files import CELLS, RESULT, STATES, empty, only_worker, read_json, refuse_links, write_whole
from cosim.errors import CosimError, first_line
from cosim.imports import load, own_folders
from cosim.trace.machine import MACHINE, versions

try:
    import resource
except ImportError:  # no such count on this system
    resource = None  # type: ignore[assignment]

SOURCE = "source"
"""Among the versions of a state: a digest of this package's own modules, which may change while its version stays."""
Order = Mapping[str, Any]
"""What is to be done, as JSON data: out, key, call, arguments, identity; cwd, in which relative paths are found."""


def perform(order: Order) -> dict[str, Any]:
    """Compute a cell and return its stored state: `identity`, `state` ('done' or 'failed'), `versions`, `wall_s`,
    `cpu_s`, `error`, `result_digest`.

    A folder that an earlier computation of the same identity with the same versions left is kept; any other is emptied.
    What the function prints goes to the cell's log. Errors of the function are the cell's; DiskError where the state
    cannot be written, TraceError where an earlier campaign's process still computes the cell.
    """
    out, key = Path(order["out"]), order["key"]
    folder, place = out / CELLS / key, out / STATES / f"{key}.json"
    with only_worker(out / STATES / f"{key}.log") as log:
        here = current_versions()
        state: dict[str, Any] = {"key": key, "identity": order["identity"], "state": "running", "versions": here,
                                 "wall_s": None, "cpu_s": None, "error": "", "exit_code": 0, "result_digest": ""}
        if not is_of(stored_state(place), order["identity"], here) or not folder.is_dir() or folder.is_symlink():
            empty(folder)
        refuse_links(folder.rglob("*"))
        write_whole(place, json_text(state, str(place)))
        wall_s, cpu_s = time.perf_counter(), _cpu_s()
        try:
            with _printed_to(log):
                result = load(order["call"], f"cell {key}: call")(folder, **order["arguments"])
                text = json_text(result, f"result of cell {key}")
                write_whole(folder / RESULT, text)
            state |= {"state": "done", "result_digest": digest_of(text)}
        except CosimError as err:
            state |= {"state": "failed", "error": str(err), "exit_code": err.exit_code}
        except Exception as err:
            log.write(traceback.format_exc().encode(errors="replace"))
            state |= {"state": "failed", "exit_code": 1, "error": f"internal error: {type(err).__name__}: "
                      f"{first_line(err)}; the traceback is in {log.name}"}
        state |= {"wall_s": round(time.perf_counter() - wall_s, 3), "cpu_s": round(_cpu_s() - cpu_s, 3)}
        write_whole(place, json_text(state, str(place)))
    return state


def perform_text(order: str) -> str:
    """`perform` from JSON text to JSON text; an error is `kind` and `text`. It works in the campaign's folder."""
    given = json.loads(order)
    try:
        with suppress(OSError):  # another machine need not have it
            os.chdir(given["cwd"])
        return json.dumps(perform(given))
    except CosimError as err:
        return json.dumps({"kind": type(err).__name__, "text": str(err)})


def current_versions() -> dict[str, str]:
    """What a state keeps of the program that computed it: versions, machine, and a digest of this package's source."""
    return {**versions(), SOURCE: _source()}


@lru_cache(maxsize=1)
def _source() -> str:
    found = hashlib.sha256()
    for folder in own_folders():
        for path in sorted(folder.rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def stored_state(path: Path) -> dict[str, Any] | None:
    """A state that `perform` wrote; None where there is none, or something else."""
    stored = read_json(path)
    if stored is None:
        return None
    texts = [stored.get(name) for name in ("identity", "error", "result_digest")]
    seconds = [stored.get(name) for name in ("wall_s", "cpu_s")]
    versions_of, code = stored.get("versions"), stored.get("exit_code")
    fine = (stored.get("state") in ("running", "done", "failed") and all(isinstance(text, str) for text in texts)
            and all(s is None or isinstance(s, int | float) and math.isfinite(s) for s in seconds)
            and isinstance(code, int) and isinstance(versions_of, dict)
            and all(isinstance(version, str) for version in versions_of.values()))
    return stored if fine else None


def is_of(state: Mapping[str, Any] | None, identity: str, here: Mapping[str, str]) -> bool:
    """Whether a stored state is of a cell of this identity, computed with the versions that are here; another processor
    counts as the same."""
    return state is not None and state["identity"] == identity and not other_versions(state, here)


def other_versions(state: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Packages of which a stored state has another version, 'numpy 2.1.0, now 2.2.0'; neither another machine nor
    another source of the same version is one."""
    then = state["versions"]
    return [f"{name} {then.get(name, 'unknown')}, now {version}" for name, version in here.items()
            if name not in (*MACHINE, SOURCE) and then.get(name) != version]


@contextmanager
def _printed_to(log: BinaryIO) -> Iterator[None]:
    """What this process and its children print inside goes to a file."""
    before = [os.dup(number) for number in (1, 2)]
    _flush()
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _cpu_s() -> float:
    """Seconds of processors that this process and its ended children have taken."""
    mine = time.process_time()
    if resource is None:
        return mine
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine + children.ru_utime + children.ru_stime
