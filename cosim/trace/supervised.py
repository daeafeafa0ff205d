"""A file without a seal, read once by a child process before this one opens it.

HDF5 can hang or crash on bytes that it did not write, and no Python code gets in between. The child prints the name of
what it reads next; one that dies, or prints nothing for too long, has met such bytes there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import h5py

from cosim.errors import TraceError
from cosim.trace.file_scan import refuse_leading_out
from cosim.trace.seal import END_OF_FILE

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
"""What h5py raises on a file whose bytes are not what HDF5 wrote."""
RESCUE = "cosim trace rescue saves what is whole in it"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
PATIENCE_S = 20.0
"""How long a child may take for one part of a dataset."""
_ROWS = 1 << 16


def refuse_unreadable(path: Path) -> None:
    """TraceError for a file on which HDF5 hangs or crashes; every other defect is left to the reader. A file that did
    not change since the last check is not read again."""
    try:
        stat = path.stat()
        with path.open("rb") as file:
            head = file.read(96)
    except OSError:
        return
    if head[:9] == SIGNATURE + b"\0" and stat.st_size < int.from_bytes(head[END_OF_FILE], "little"):
        return  # cut short: HDF5 compares these two before it reads on, and refuses
    at, died = _looked(str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino)
    if died:
        raise TraceError(f"{path} is damaged: HDF5 {died} when it reads {at or 'it'}; {RESCUE}")


@lru_cache(maxsize=256)
def _looked(path: str, *_: int) -> tuple[str, str]:
    return supervised("cosim.trace.supervised", path)


def supervised(module: str, *words: str) -> tuple[str, str]:
    """Run a module's `main(words)` in a child process that imports what this one would. It prints a line before each
    thing it reads; returns the last one, and how the child died ('' when it ended well)."""
    command = [sys.executable, "-P", "-c", f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))",
               *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    last, lines = "", SimpleQueue[bytes]()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=env) as child:
        # a thread, as a pipe can be waited for with a time limit on POSIX systems alone
        Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
        try:
            while line := lines.get(timeout=PATIENCE_S):
                last = line.decode(errors="replace").rstrip("\r\n") if line.endswith(b"\n") else last
        except Empty:
            child.kill()
            return last, f"hangs (over {PATIENCE_S:g} s)"
        code = child.wait()
    return last, "" if code == 0 else f"crashes ({'signal' if code < 0 else 'exit'} {abs(code)})"


def _pass_on(pipe: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    """Put each line of a pipe into a queue, and an empty one at its end."""
    with suppress(OSError, ValueError):  # it is closed once its process was killed
        for line in pipe:
            lines.put(line)
    lines.put(b"")


# --- in the child -----------------------------------------------------------------------------------------------------


def look(path: Path) -> None:
    """Read everything that a reader may read, once: attributes, names, axes, values. Errors that h5py raises end what
    they concern, not the look. Nothing is read of a file that leads out of itself (TraceError)."""
    with h5py.File(path, "r", locking=False) as file:
        refuse_leading_out(file, path)
        found: list[tuple[str, Any]] = [("/", file)]
        file.visititems(lambda name, item: found.append((name, item)))
        for name, item in found:
            print(name, flush=True)
            with suppress(*DAMAGE):
                dict(item.attrs)
            if isinstance(item, h5py.Dataset):
                with suppress(*DAMAGE):
                    _ = item.is_scale or [axis[0].name for axis in item.dims]
                for part in parts(item, _ROWS):
                    print(name, flush=True)
                    with suppress(*DAMAGE):
                        item[part]


def parts(data: h5py.Dataset, rows: int = 1) -> Iterator[Any]:
    """Slices of whole chunks, the fewest that have at least `rows` rows; of what has no chunks, of many rows."""
    if not data.shape:
        yield ()
        return
    rows = max(rows - rows % -data.chunks[0], data.chunks[0]) if data.chunks else max(rows, _ROWS)
    for first in range(0, data.shape[0], rows):
        yield slice(first, min(first + rows, data.shape[0]))


def main(argv: list[str]) -> int:
    """The child's program; exit code 0 also for a file that the reader refuses in one line."""
    with suppress(*DAMAGE, TraceError):
        look(Path(argv[0]))
    return 0
