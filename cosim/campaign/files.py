"""The folder of a campaign: files that are whole at any instant, locks, what a cell's folder holds.

    OUT/cells/KEY/          what a cell wrote, and its result.json; the same whenever and wherever it is computed
    OUT/states/KEY.json     its state as its own process wrote it, with seconds and versions; KEY.log: what it printed
    OUT/manifest.json       all states at a glance
    OUT/lock                held by the one campaign that works on the folder
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import JsonValue

from cosim.campaign.cells import json_text
from cosim.errors import DiskError, ScenarioError, TraceError

try:
    import fcntl
except ImportError:  # no locks on this system
    fcntl = None  # type: ignore[assignment]

CELLS, STATES, MANIFEST, RESULT, LOCK = "cells", "states", "manifest.json", "result.json", "lock"
PART = ".part"
_URL = re.compile(r"(?:^|/)([A-Za-z][A-Za-z0-9+.-]+):/")
"""What is left of a URL that was made a path, also an absolute one."""
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)
_EVERY_S = 0.05


def write_whole(path: Path, text: str) -> None:
    """Replace a file by a text in one step: whatever kills the process, the old one or the new one is there. One
    process at a time writes a file."""
    part = path.with_name(path.name + PART)
    try:
        part.unlink(missing_ok=True)  # of a killed process, or a link that somebody put there
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        raise DiskError(f"cannot write {path}: {err.strerror or err}") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file, or something else in it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def once(path: Path, make: Callable[[], Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    """The result of a step of a cell that is computed once: what the JSON file at `path` holds, or, where there is
    none yet, what `make` returns, written there. A cell of several steps goes on after the last one that ended."""
    if (found := read_json(path)) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json_text(dict(make()), str(path)))
        found = read_json(path)
        assert found is not None, "it was written just now"
    return found


def make_folders(out: Path, inside: Sequence[str] = (CELLS, STATES)) -> None:
    """Make a campaign's folders, `inside` those in it. ScenarioError where they cannot be, lead out of it, or are an
    object store's."""
    if found := _URL.search(str(out)):
        raise ScenarioError(f"{out}: a campaign's folder is a path; an object store ({found[1]}) has neither locks nor "
                            "files that replace one another in one step. Choose a folder, and a store by --copy-to")
    for folder in (out, *(out / name for name in inside)):
        if folder != out:
            refuse_links([folder])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with os.scandir(folder) as entries:
                refuse_links(entry.path for entry in entries if entry.is_symlink())
        except OSError as err:
            raise ScenarioError(f"cannot make the folder {folder}: {err.strerror or err}") from None


def refuse_links(paths: Iterable[str | Path]) -> None:
    """ScenarioError where one of the paths is a link: a folder that was received must not lead what is written
    elsewhere."""
    for path in paths:
        if Path(path).is_symlink():
            raise ScenarioError(f"{path} is a link; a campaign writes into its own folder alone, remove it")


def empty(folder: Path) -> None:
    """An empty folder of a cell in the place of what is there. ScenarioError for a link."""
    refuse_links([folder])
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


@contextmanager
def only_campaign(out: Path) -> Iterator[None]:
    """Holds a campaign's folder. ScenarioError where another process does."""
    try:
        opened = (out / LOCK).open("a+b")
    except OSError as err:
        raise ScenarioError(f"cannot write into {out}: {err.strerror or err}") from None
    with opened as file:
        if not _taken(file):
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            raise ScenarioError(f"{out} is being worked on by {holder or 'another process'}; wait for its end, or "
                                "choose another --out")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
        file.flush()
        yield


@contextmanager
def only_worker(path: Path, patience_s: float = 60.0) -> Iterator[BinaryIO]:
    """Holds a cell's log, open, while the cell is computed. A process of a campaign that was killed may live on for a
    moment, on another machine for longer: TraceError after `patience_s` seconds."""
    with path.open("a+b") as file:
        until = time.monotonic() + patience_s
        while not _taken(file):
            if time.monotonic() > until:
                raise TraceError(f"{path} is held by a process of an earlier campaign, which still computes this cell; "
                                 "end it, or wait for it")
            time.sleep(_EVERY_S)
        yield file


def _taken(file: BinaryIO) -> bool:
    """Whether the file's lock is ours now; True, too, where the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno not in _BUSY
    return True
