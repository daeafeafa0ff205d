"""Copies of a campaign's folder in an object store, or wherever fsspec writes: cells as they end, the rest at the end.

The campaign works in its own folder, which has locks and files that replace one another in one step; a copy has
neither, and nothing is read from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosim.campaign.files import CELLS, LOCK, PART, STATES, read_json, write_whole
from cosim.campaign.runner import nobody
from cosim.errors import CosimError, DiskError, ScenarioError, first_line
from cosim.imports import optional
from cosim.progress import working

COPIED = ".copied.json"
"""What was copied where: file -> [size, time of its last change], so that nothing is copied twice."""


class Mirror:
    """The copy of the folder `out` at a URL of fsspec (`s3://bucket/folder`, `gs://...`, `file:///...`).

    ScenarioError for a URL that nothing here can write to.
    """

    def __init__(self, out: Path, url: str, progress: bool = True) -> None:
        self._out, self.url, self._progress = Path(out), url.rstrip("/"), progress
        with optional("--copy-to", "store"):
            import fsspec
        try:
            self._store, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as err:
            raise ScenarioError(f"--copy-to {url}: {first_line(err, 150)}; install the package that it names") from None
        except Exception as err:  # a store's own errors have no common base
            raise ScenarioError(f"--copy-to {url}: {first_line(err, 150)}") from None
        known = read_json(self._out / COPIED) or {}
        self._copied: dict[str, Any] = dict(known.get("files", {})) if known.get("url") == self.url else {}
        self._thread = ThreadPoolExecutor(1, "cosim-mirror")
        self._open: list[Future[None]] = []

    def cell(self, key: str) -> None:
        """Copy what a cell that has ended left, beside what goes on here."""
        self._open.append(self._thread.submit(self._copy, [self._out / CELLS / key, self._out / STATES]))

    def finish(self) -> int:
        """Wait for the open copies, copy what is left, and return how many files the copy has. DiskError where one
        could not be written; all are in the folder still."""
        try:
            for copying in self._open:
                copying.result()
            with working(f"copying to {self.url}", quiet=not self._progress):
                self._copy([self._out])
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._keep()
        return len(self._copied)

    def _copy(self, places: Sequence[Path]) -> None:
        for path in sorted(found for place in places for found in _files(place)):
            name = path.relative_to(self._out).as_posix()
            try:
                now = path.stat()
            except FileNotFoundError:  # replaced at the moment: it is copied at the end
                continue
            stamp = [now.st_size, now.st_mtime_ns]
            if self._copied.get(name) == stamp:
                continue
            try:
                there = f"{self._root}/{name}"
                self._store.makedirs(os.path.dirname(there), exist_ok=True)
                self._store.put_file(str(path), there)
            except Exception as err:  # a store's own errors have no common base
                raise DiskError(f"{name} could not be copied to {self.url}: {first_line(err, 200)}; it is in "
                                f"{self._out}, and the same command copies what is missing") from None
            self._copied[name] = stamp

    def _keep(self) -> None:
        if self._out.is_dir():
            write_whole(self._out / COPIED, json.dumps({"url": self.url, "files": self._copied}) + "\n")


def _files(place: Path) -> Iterator[Path]:
    """Files in a folder, without links, locks and those that are written at the moment."""
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder) / name
            passing = name.startswith(".") or name.endswith(PART) or name == LOCK
            if not passing and not path.is_symlink() and path.is_file():
                yield path


@contextmanager
def mirrored(out: Path, url: str | None, progress: bool = True) -> Iterator[Callable[[str], None]]:
    """What `run_cells` calls at the end of each cell, for a folder that is copied to a URL; at the end of the block,
    however it ends, the copy has all of it. Nothing is copied without a URL. The error of a block that fails is raised,
    with a copy's own beside it where that fails, too."""
    if url is None:
        yield nobody
        return
    mirror = Mirror(out, url, progress)
    try:
        yield mirror.cell
    except BaseException as failure:
        try:
            mirror.finish()
        except DiskError as err:
            if not isinstance(failure, CosimError):
                raise
            failure.args = (f"{first_line(failure, 1000)}; and {first_line(err, 500)}", *failure.args[1:])
        raise
    mirror.finish()
