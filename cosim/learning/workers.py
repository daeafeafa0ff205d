"""Environments of `cosim.learning.vector` in worker processes: arrays in shared memory files, one byte a message.

A worker is this module run as a program, so that nothing of the caller's main module is imported again. It communicates
on its standard input and output: a command is one byte, a reply 'k' or, with the error's kind and text as JSON, 'e';
states travel as numpy archives. Where a worker ends by itself the next command raises an error with its number and
cause.
"""

from __future__ import annotations

import gc
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
from typing import Any, BinaryIO, Literal

try:
    import fcntl
except ImportError:  # no locks on this system: what a killed run leaves is left
    fcntl = None  # type: ignore[assignment]

import numpy as np

from cosim import errors
from cosim.drivers.remote import child_options
from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.imports import load
from cosim.learning.vector import Arrays, Environments, Step, step_of
from cosim.scenario import Scenario

_MEMORY = Path("/dev/shm")
_PREFIX = "cosim-workers-"
_NEW_S = 60.0
"""Age in s from which a folder without a lock is abandoned."""
_LENGTH = struct.Struct("<Q")
_NET_OBJECTS = 100_000
"""Objects made and not freed after which a worker's garbage collector runs: jobs are in no cycles."""


class Workers:
    """B environments in `workers` processes: an `cosim.agents.learn.spec.VectorEnv`; the numbers are those of
    `Environments`.

    scenario: a `cosim.learning.vector.learning_scenario`; made: class of the environments. ModelError when a
    worker ends by itself.
    """

    def __init__(self, scenario: Scenario, n_envs: int, workers: int, seed: int, episode: int = 0,
                 stagger_over: int = 0, twins: int = 1, made: type = Environments) -> None:
        one = made(scenario, [0], seed, episode)
        one.close()
        self.spec, self.n_envs, self.twins = one.spec, n_envs, twins
        self._names = list(one.terms)
        clear_abandoned()
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_shared_memory())
        self._held = _hold(Path(self._folder.name))
        self._arrays = _arrays(Path(self._folder.name), shapes_of(self.spec, n_envs, len(self._names)), "w+")
        self._workers: list[_Worker] = []
        try:
            for part in parts_of(n_envs, workers):
                self._workers.append(_Worker(len(self._workers), part, {
                    "scenario": scenario.to_json(), "first": part.start, "every": part.step, "n_envs": n_envs,
                    "seed": seed, "episode": episode, "stagger_over": stagger_over, "twins": twins,
                    "made": f"{made.__module__}:{made.__qualname__}", "folder": self._folder.name, "path": sys.path}))
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise

    def reset(self) -> np.ndarray:
        """(B, n, O): all environments begin anew."""
        self._all(b"r")
        return self._arrays["observation"].copy()

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C); changes nothing."""
        self._arrays["leaders"][:] = leaders_action
        self._all(b"c")
        return self._arrays["context"].copy()

    def step(self, action: np.ndarray) -> Step:
        """One step of all."""
        a = self._arrays
        a["action"][:] = action
        self._all(b"s")
        return step_of(a["observation"].copy(), a["reward"].copy(), a["terms"].copy(), a["ended"].copy(), self._names,
                       None if np.isnan(a["credit"]).any() else a["credit"].copy())

    def state(self) -> Arrays:
        """All environments', as `Environments.state`."""
        self._send(b"g")
        state = {name: array for worker in self._workers for name, array in unpacked(worker.answer()).items()}
        return {name: state[name] for name in sorted(state, key=lambda name: int(name.partition("/")[0]))}

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from `state`."""
        data = packed(state)
        for worker in self._workers:
            worker.send(b"p" + _LENGTH.pack(len(data)) + data)
        self._answers()
        return self._arrays["observation"].copy()

    def close(self) -> None:
        """End the processes and free the memory."""
        for worker in self._workers:
            worker.end()
        self._workers = []
        self._arrays = {}
        self._held.close()
        self._folder.cleanup()

    def _all(self, command: bytes) -> None:
        self._send(command)
        self._answers()

    def _send(self, command: bytes) -> None:
        for worker in self._workers:
            worker.send(command)

    def _answers(self) -> None:
        failures = []
        for worker in self._workers:  # every answer is read, or the next command would meet this one's
            try:
                worker.answer()
            except CosimError as err:
                failures.append(err)
        if failures:
            raise failures[0]


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
        except OSError:  # in use, or gone meanwhile
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


class _Worker:
    """One process and its environments."""

    def __init__(self, number: int, part: range, start: dict[str, Any]) -> None:
        self._name = f"worker {number} (environments {', '.join(map(str, part))})"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in start["path"] if p)}
        for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(threads, "1")
        self._process = subprocess.Popen([sys.executable, "-m", "cosim.learning.workers"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=env, **child_options())
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._commands, self._said = self._process.stdin, self._process.stdout
        self.send(json.dumps(start).encode() + b"\n")

    def send(self, message: bytes) -> None:
        try:
            self._commands.write(message)
            self._commands.flush()
        except OSError:
            raise self._dead() from None

    def answer(self) -> bytes:
        """What came with the answer; the worker's own error, or that it is dead."""
        head = self._said.read(1 + _LENGTH.size)
        if len(head) <= _LENGTH.size:
            raise self._dead()
        data = self._said.read(_LENGTH.unpack(head[1:])[0])
        if head[:1] == b"k":
            return data
        said = json.loads(data)
        kind = getattr(errors, said["kind"], ModelError)
        raise kind(said["text"])

    def end(self) -> None:
        """Closing its input ends it."""
        try:
            self._commands.close()
        except OSError:
            self._process.kill()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _dead(self) -> ModelError:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ModelError(f"{self._name} ended by itself with {how}; go on from the last checkpoint, with fewer "
                          "environments if memory ran out")


def parts_of(n_envs: int, workers: int) -> list[range]:
    """Indices of the environments of each worker, dealt out in turn (worker k: k, k + workers, ...).

    Neighbouring environments start at similar hours of the day; in contiguous blocks, one worker would get all the busy
    hours, and the others would wait for it in every step.
    """
    every = min(workers, n_envs)
    return [range(first, n_envs, every) for first in range(every)]


def shapes_of(spec: Any, n_envs: int, terms: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shared arrays: name -> (shape, dtype)."""
    n, (o, c, a) = len(spec.agents), spec.widths
    return {
        "observation": ((n_envs, n, o), np.float32), "context": ((n_envs, n, c), np.float32),
        "action": ((n_envs, n, a), np.float32), "leaders": ((n_envs, spec.leaders, a), np.float32),
        "reward": ((n_envs,), np.float32), "credit": ((n_envs, n), np.float32),
        "terms": ((n_envs, terms), np.float64), "ended": ((n_envs,), np.bool_)}


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as one message."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy reads its own option into the names
    return buffer.getvalue()


def unpacked(data: bytes) -> Arrays:
    """The inverse of `packed`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def main() -> int:
    """A worker: builds the environments described by its first line, then runs commands until its input ends."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's; its end is ours
    start = json.loads(commands.readline())
    try:
        desk = _Desk(start)
    except CosimError as err:
        _say(answers, b"e", json.dumps({"kind": type(err).__name__, "text": str(err)}).encode())
        return err.exit_code
    gc.freeze()  # what is there now stays
    gc.set_threshold(_NET_OBJECTS)
    _say(answers, b"k", b"")
    while command := commands.read(1):
        try:
            _say(answers, b"k", desk.do(command, commands))
        except CosimError as err:
            _say(answers, b"e", json.dumps({"kind": type(err).__name__, "text": str(err)}).encode())
    desk.close()
    return 0


class _Desk:
    """A worker's environments and its rows of the shared arrays."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        rows = slice(given["first"], None, given["every"])
        self._environments = own = load(given["made"], "environments")(
            Scenario.from_json(given["scenario"]), range(given["n_envs"])[rows], given["seed"], given["episode"],
            given["stagger_over"], given["twins"])
        shapes = shapes_of(own.spec, given["n_envs"], len(own.terms))
        self._mine = {name: array[rows] for name, array in _arrays(Path(given["folder"]), shapes, "r+").items()}

    def do(self, command: bytes, more: BinaryIO) -> bytes:
        """Obey one command; what goes with the answer."""
        own, mine = self._environments, self._mine
        if command == b"s":
            step = own.step(mine["action"])
            mine["observation"][:], mine["reward"][:], mine["ended"][:] = step.observation, step.reward, step.truncated
            mine["terms"][:] = np.stack(list(step.terms.values()), axis=1)
            mine["credit"][:] = np.nan if step.credit is None else step.credit
            if step.truncated.any():
                gc.collect()  # the worlds of a day that ended
        elif command == b"c":
            mine["context"][:] = own.context(mine["leaders"])
        elif command == b"r":
            mine["observation"][:] = own.reset()
        elif command == b"g":
            return packed(own.state())
        elif command == b"p":
            mine["observation"][:] = own.restore(unpacked(more.read(_LENGTH.unpack(more.read(_LENGTH.size))[0])))
        else:
            raise ScenarioError(f"unknown command {command!r} to a worker")
        return b""

    def close(self) -> None:
        """End the members."""
        self._environments.close()


def _say(answers: BinaryIO, kind: bytes, data: bytes) -> None:
    answers.write(kind + _LENGTH.pack(len(data)) + data)
    answers.flush()


def _arrays(folder: Path, shapes: Mapping[str, tuple[Sequence[int], type]], mode: Literal["r+", "w+"]
            ) -> dict[str, np.ndarray]:
    """Name -> array mapped from the file of that name in `folder` (numpy.memmap); empty arrays, which cannot be mapped,
    are ordinary ones."""
    return {name: np.memmap(folder / name, dtype, mode, shape=tuple(shape)) if np.prod(shape) else
            np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}


if __name__ == "__main__":
    sys.exit(main())
