"""Child processes with shared arrays: the folder in shared memory, and the messages on their pipes.

A child is a module run as a program, so that nothing of the caller's main module is imported again. It communicates on
its standard input and output; a reply begins with 'k' or, with the error's kind and text as JSON, with 'e'. Where a
child ends by itself the next reply or command raises an error with its name and cause.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # no locks on this system: what a killed run leaves is left
    fcntl = None  # type: ignore[assignment]

import numpy as np

from cosim import errors
from cosim.drivers.remote import child_options
from cosim.errors import CosimError, ModelError

_MEMORY = Path("/dev/shm")
_PREFIX = "cosim-workers-"
_NEW_S = 60.0
"""Age in s from which a folder without a lock is abandoned."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of a process beside others like it; what a user has set goes before."""
LENGTH = struct.Struct("<Q")

FROM_CHECKPOINT = "go on from the last checkpoint, with fewer environments if memory ran out"


class SharedFolder:
    """A folder of arrays in shared memory, for as long as this process lives or until it is closed."""

    def __init__(self) -> None:
        clear_abandoned()
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_shared_memory())
        self.path = Path(self._folder.name)
        self._held = _hold(self.path)

    def close(self) -> None:
        """Free the memory."""
        self._held.close()
        self._folder.cleanup()


def mapped(folder: Path, name: str, shape: Sequence[int], dtype: type) -> np.ndarray:
    """The array of that name in a shared folder, zeros at first; an empty array, which cannot be mapped, is an ordinary
    one."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    path, size = folder / name, int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:
        file.truncate(size)  # whoever comes first makes it
    return np.memmap(path, dtype, "r+", shape=tuple(shape))


def clear_abandoned() -> None:
    """Remove what killed runs left in the shared memory: folders of this user that no process holds any more. One that
    is just being made is not yet held, and is left for a minute."""
    for folder in Path(_shared_memory()).glob(f"{_PREFIX}*") if fcntl else ():
        try:
            state = folder.stat()
            if state.st_uid != os.getuid() or time.time() - state.st_mtime < _NEW_S:
                continue
            with _hold(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody's, or gone meanwhile
            continue


def _shared_memory() -> str:
    return str(_MEMORY) if _MEMORY.is_dir() else tempfile.gettempdir()


def _hold(folder: Path) -> BinaryIO:
    """The folder's lock, which the system lets go of when its holder ends, however. OSError when another has it."""
    # not a trace's lock (cosim.trace.journal), which a file system without locks and a variable switch off: who
    # cannot hold this one must not remove what may be another's
    held = (folder / "held").open("wb")
    if fcntl:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.close()
            raise
    return held


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as one message."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy reads its own option into the names
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The inverse of `packed`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


class Child:
    """A process that runs `module`, given `start` as its first line.

    name: of the message when it has died; advice: what to do then; env: variables beside those of this process.
    Errors that it sends are raised here. It ends with this process, killed or, with `tidies`, by the end of its input
    alone, so that it can put away what it has made.
    """

    def __init__(self, module: str, name: str, start: Mapping[str, Any], advice: str = FROM_CHECKPOINT,
                 env: Mapping[str, str] | None = None, tidies: bool = False) -> None:
        self.name, self._advice = name, advice
        variables = {**ONE_THREAD, **os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                     **(env or {})}
        self._process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env=variables, **({} if tidies else child_options()))
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._commands, self._said = self._process.stdin, self._process.stdout
        self.send(json.dumps(start).encode() + b"\n")

    def send(self, message: bytes) -> None:
        """ModelError where it has died."""
        try:
            self._commands.write(message)
            self._commands.flush()
        except OSError:
            raise self._dead() from None

    def answer(self) -> bytes:
        """The content of its reply. Raises the child's own error, ModelError where it has died."""
        head = self._said.read(1 + LENGTH.size)
        if len(head) <= LENGTH.size:
            raise self._dead()
        data = self._said.read(LENGTH.unpack(head[1:])[0])
        if head[:1] == b"k":
            return data
        said = json.loads(data)
        kind = getattr(errors, said["kind"], ModelError)
        raise kind(said["text"])

    def end(self, patience_s: float = 10.0) -> None:
        """Closing its input ends it; it is killed after `patience_s` seconds."""
        try:
            self._commands.close()
        except OSError:
            self._process.kill()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def kill(self) -> None:
        """End it at once, whatever it does; who waits for its reply gets a ModelError."""
        self._process.kill()

    def _dead(self) -> ModelError:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ModelError(f"{self.name} ended by itself with {how}; {self._advice}")


def spoken_to() -> tuple[BinaryIO, BinaryIO]:
    """(commands, answers) of this process, a child; what libraries print goes to its standard error."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # and processes that this one starts must not hold the commands
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's; its end is ours
    return commands, answers


def say(answers: BinaryIO, data: bytes) -> None:
    """Answer."""
    _put(answers, b"k", data)


def say_failure(answers: BinaryIO, err: CosimError) -> None:
    """Answer with an error."""
    _put(answers, b"e", json.dumps({"kind": type(err).__name__, "text": str(err)}).encode())


def _put(answers: BinaryIO, kind: bytes, data: bytes) -> None:
    answers.write(kind + LENGTH.pack(len(data)) + data)
    answers.flush()


def received(commands: BinaryIO) -> bytes:
    """The next message, sent as `LENGTH` and as many bytes. EOFError where the sender has ended."""
    head = commands.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return commands.read(LENGTH.unpack(head)[0])
