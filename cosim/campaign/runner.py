"""Cells computed until all that can be are done: manifest, resumption, retries, progress.

The cells come from the caller. What a folder holds is compared with them and read as JSON; nothing that stands in it
decides what is run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple, Protocol

from cosim.campaign.cells import Cell, CellState, digest_of, json_text, states_of
from cosim.campaign.files import (
    CELLS,
    MANIFEST,
    RESULT,
    STATES,
    make_folders,
    only_campaign,
    read_json,
    write_whole,
)
from cosim.campaign.local import LocalEngine, WorkerDied
from cosim.campaign.perform import SOURCE, Order, current_versions, is_of, other_versions, stored_state
from cosim.campaign.ray_engine import RayEngine
from cosim.digest import Digest, Table
from cosim.drivers.remote import address_of
from cosim.errors import CosimError, ScenarioError, cut, unknown
from cosim.progress import ProgressTask, span, working
from cosim.trace.machine import MACHINE

ENGINES = ("local", "ray")
FORMAT = "aidc-cosim campaign 1"
_LOOK_EVERY_S = 0.5
"""Seconds after which a wait for cells ends anyway: Ctrl-C interrupts none where another thread got the signal."""
_MANIFEST_EVERY_S, _MANIFEST_SHARE = 1.0, 20.0
"""Seconds between manifests, more where writing one takes longer than this part of them."""
_SHOWN = 3


class Engine(Protocol):
    """Computes cells in processes."""

    def submit(self, order: Order) -> Future[dict[str, Any]]:
        """The stored state of the cell, later. WorkerDied where its process ends before."""

    def close(self) -> None:
        """End the processes, whatever they compute."""


def nobody(key: str) -> None:
    """Nothing follows the end of a cell."""


def run_cells(cells: Sequence[Cell], out: Path, *, jobs: int = 1, engine: Literal["local", "ray"] = "local",
              address: str | None = None, retries: int = 1, progress: bool = True,
              ended: Callable[[str], None] = nobody) -> dict[str, CellState]:
    """Compute cells and return their states by key, in the order of `cells`; those that are done already are skipped.

    out       folder of the campaign (`cosim.campaign.files`); one process at a time works on it
    jobs      cells at a time
    engine    'local': processes of this machine; 'ray': tasks of a Ray cluster
    address   of a running Ray cluster; None: one on this machine, started and stopped here
    retries   how often a cell is computed again after its process was killed
    progress  show progress on standard error
    ended     called with the key of each cell that ended here, done or failed

    A cell is skipped where the folder holds its result, made of the same call, arguments and files with the same
    versions; one that was being computed goes on in its folder. An error is its cell's (`CellState.error`), and the
    rest goes on. The manifest is brought up to date every second in which a cell changes; of very many, less often.
    """
    if jobs < 1 or retries < 0:
        raise ScenarioError(f"jobs = {jobs} must be 1 or more, retries = {retries} 0 or more")
    if engine not in ENGINES:
        raise ScenarioError(unknown("engine", engine, ENGINES))
    if address is not None and engine != "ray":
        raise ScenarioError(f"an address, {address}, is that of a Ray cluster; it goes with the engine 'ray'")
    if address not in (None, "auto") and address_of(address) is None:
        raise ScenarioError(f"address {cut(address)}: write HOST:PORT of a running Ray cluster, or auto for the one on "
                            "this machine")
    states, out = states_of(cells), Path(out).absolute()
    make_folders(out)
    with only_campaign(out):
        _look(states, out)
        campaign = _Campaign(states, out, retries, {cell.key: cell.estimate_s for cell in cells}, ended)
        campaign.write_manifest()
        try:
            if any(state.state != "done" for state in states.values()):
                with _started(engine, jobs, address, out, progress) as started, campaign.shown(quiet=not progress):
                    campaign.run(started, jobs)
        finally:
            campaign.stop()
    return {cell.key: states[cell.key] for cell in cells}


def look_up(cells: Sequence[Cell], out: Path) -> dict[str, CellState]:
    """The states of cells as a folder holds them, which is only read: what `run_cells` would skip is 'done'."""
    states = states_of(cells)
    _look(states, Path(out).absolute())
    return {cell.key: states[cell.key] for cell in cells}


class Estimate(NamedTuple):
    """Seconds that cells will take; `unknown`: how many of them have no estimate."""

    each_s: dict[str, float | None]
    total_s: float
    unknown: int


def estimated(cells: Sequence[Cell], states: Mapping[str, CellState]) -> Estimate:
    """Wall-clock seconds of the cells that are not done: the estimate that a cell has, or the mean of finished cells of
    the same call; None where there is neither."""
    measured: dict[str, list[float]] = {}
    for state in states.values():
        if state.state == "done" and state.wall_s is not None:
            measured.setdefault(state.call, []).append(state.wall_s)
    each = {cell.key: cell.estimate_s if cell.estimate_s is not None else
            fmean(measured[cell.call]) if cell.call in measured else None
            for cell in cells if states[cell.key].state != "done"}
    return Estimate(each, sum(s for s in each.values() if s is not None), sum(s is None for s in each.values()))


def listing(cells: Sequence[Cell], states: Mapping[str, CellState], jobs: int) -> Digest:
    """What --dry-run prints: every cell with its state and time, and what all of them will take on `jobs` processes."""
    estimate = estimated(cells, states)
    rows = []
    for cell in cells:
        state, seconds = states[cell.key], estimate.each_s.get(cell.key)
        rows.append((cell.key, "again" if state.again else state.state,
                     _seconds(state.wall_s if state.state == "done" else seconds), ", ".join(cell.needs) or "-"))
    note = (f"{len(estimate.each_s)} of {len(cells)} cells to compute: {span(estimate.total_s)} of one process, about "
            f"{span(estimate.total_s / jobs)} on {jobs}")
    if estimate.unknown:
        note += f"; {estimate.unknown} of them have no estimate and are not in it"
    return Digest([Table("Cells", ("cell", "state", "seconds", "needs"), rows, note)], said_of(states))


def said_of(states: Mapping[str, CellState]) -> list[str]:
    """Sentences on what was not as it should be: finished cells that are computed again, other machines, failures."""
    out = []
    again: dict[str, list[str]] = {}
    for state in states.values():
        if state.again:
            again.setdefault(state.again, []).append(state.key)
    out += [f"computed again: {_some(keys)}, because {why}" for why, keys in again.items()]
    done = [state for state in states.values() if state.state == "done"]
    here = current_versions()[SOURCE]
    if other := [state.key for state in done if state.versions.get(SOURCE) != here]:
        out.append(f"kept though another source of this version of aidc-cosim computed it: {_some(other)}; to compute "
                   "it again, remove its folder")
    machines = {tuple(state.versions.get(name, "") for name in MACHINE) for state in done}
    if len(machines) > 1:
        out.append(f"the cells were computed on {len(machines)} kinds of machine; their last bits may differ")
    failed = [state for state in states.values() if state.state == "failed"]
    out += [f"{state.key} failed: {state.error}" for state in failed]
    if left := [state.key for state in states.values() if state.state == "waiting" and state.error]:
        out.append(f"not computed, as what they need failed: {_some(left)}")
    return out


def exit_code(states: Iterable[CellState]) -> int:
    """0 where all cells are done, else that of the first error."""
    return next((state.exit_code or 1 for state in states if state.state != "done"), 0)


def _look(states: Mapping[str, CellState], out: Path) -> None:
    """Mark as done what the folder holds of these cells."""
    here = current_versions()
    for state in states.values():
        stored = stored_state(out / STATES / f"{state.key}.json")
        if stored is None:
            continue
        undone = [need for need in state.needs if states[need].state != "done"]
        if is_of(stored, state.identity, here):
            _take(state, stored)
            text = _text(out / CELLS / state.key / RESULT)
            if state.state == "done" and (text is None or digest_of(text) != stored.get("result_digest")):
                state.state, state.result, state.again = "waiting", None, "their results are missing or were changed"
            elif state.state == "done" and undone:
                state.state, state.result, state.again = "waiting", None, "what they need is computed again"
            elif state.state == "done":
                state.result, state.reused = read_json(out / CELLS / state.key / RESULT), True
            else:  # it goes on in its folder
                state.state, state.error, state.exit_code = "waiting", "", 0
        elif stored["state"] != "failed":
            other = other_versions(stored, here)
            state.again = ("their arguments, or files that these name, changed" if stored.get("identity") !=
                           state.identity else f"versions changed: {', '.join(other[:_SHOWN])}")


def _take(state: CellState, stored: Mapping[str, Any]) -> None:
    """Take over what a cell's own process wrote."""
    for name in ("state", "versions", "wall_s", "cpu_s", "error", "exit_code"):
        setattr(state, name, stored[name])


class _Campaign:
    """The cells of one run, and which of them are being computed."""

    def __init__(self, states: Mapping[str, CellState], out: Path, retries: int,
                 estimates: Mapping[str, float | None], ended: Callable[[str], None]) -> None:
        self.states, self.out, self.retries, self._ended = states, out, retries, ended
        known = [seconds for seconds in estimates.values() if seconds is not None]
        usual = fmean(known) if known else 1.0
        self._weights = {key: usual if seconds is None else max(seconds, 1e-3) for key, seconds in estimates.items()}
        self._tries = dict.fromkeys(states, 0)
        self._running: dict[Future[dict[str, Any]], str] = {}
        self._waiting = dict.fromkeys(key for key, state in states.items() if state.state == "waiting")
        self._count = {name: sum(s.state == name for s in states.values()) for name in ("done", "failed")}
        self._done = sum(self._weights[s.key] for s in states.values() if s.state == "done")
        self._written = self._writing_s = 0.0
        self._shown: ProgressTask | None = None

    @contextmanager
    def shown(self, quiet: bool) -> Iterator[None]:
        """Show inside how many cells are done."""
        with working("cells", sum(self._weights.values()), before=self._done, quiet=quiet) as self._shown:
            yield

    def run(self, engine: Engine, jobs: int) -> None:
        """Compute all cells that can be."""
        while True:
            for state in self._ready(jobs - len(self._running)):
                order = {"out": str(self.out), "key": state.key, "call": state.call,
                         "arguments": dict(state.arguments), "identity": state.identity, "cwd": os.getcwd()}
                self._running[engine.submit(order)] = state.key
                state.state = "running"
                del self._waiting[state.key]
            self._tell()
            if not self._running:
                break
            for future in wait(self._running, _LOOK_EVERY_S, FIRST_COMPLETED).done:
                self._end(self.states[self._running.pop(future)], future)
        for state in self.states.values():
            if state.state == "waiting":
                failed = [need for need in state.needs if self.states[need].state != "done"]
                state.error, state.exit_code = f"it needs {_some(failed)}, which failed", 1

    def stop(self) -> None:
        """What is not done waits for the next run; the manifest states it."""
        for state in self.states.values():
            if state.state == "running":
                state.state = "waiting"
        self.write_manifest()

    def write_manifest(self) -> None:
        """Bring the manifest up to date."""
        rows = {s.key: {"state": s.state, "call": s.call, "arguments": s.arguments, "seed": s.seed,
                        "needs": list(s.needs), "identity": s.identity, "versions": dict(s.versions),
                        "wall_s": s.wall_s, "cpu_s": s.cpu_s, "error": s.error} for s in self.states.values()}
        path, began = self.out / MANIFEST, time.monotonic()
        write_whole(path, json_text({"format": FORMAT, "cells": rows}, str(path)))
        self._written = time.monotonic()
        self._writing_s = self._written - began

    def _ready(self, room: int) -> list[CellState]:
        """The first cells of those that wait that can be computed, as many as there is room for."""
        ready: list[CellState] = []
        for key in self._waiting:
            if len(ready) == room:
                break
            if all(self.states[need].state == "done" for need in self.states[key].needs):
                ready.append(self.states[key])
        return ready

    def _end(self, state: CellState, future: Future[dict[str, Any]]) -> None:
        """Take what came of a cell; one whose process was killed waits again."""
        try:
            stored = future.result()
        except WorkerDied as err:
            self._tries[state.key] += 1
            again = self._tries[state.key] <= self.retries
            state.state, state.error, state.exit_code = ("waiting", "", 0) if again else (
                "failed", f"{err} (tried {self._tries[state.key]} times)", err.exit_code)
            if again:
                self._waiting[state.key] = None
        except CosimError as err:
            state.state, state.error, state.exit_code = "failed", str(err), err.exit_code
        else:
            _take(state, stored)
            if state.state == "done":
                state.result = read_json(self.out / CELLS / state.key / RESULT)
        if state.state in ("done", "failed"):
            self._count[state.state] += 1
            self._done += self._weights[state.key]
            self._ended(state.key)

    def _tell(self) -> None:
        """Progress and manifest, the latter once in a while: of thousands of cells it is long."""
        if self._shown is not None:
            failed = f", {self._count['failed']} failed" if self._count["failed"] else ""
            self._shown.at(self._done, f"{self._count['done']} of {len(self.states)} cells{failed}; computing "
                           f"{_some(self._running.values())}")
        if time.monotonic() - self._written >= max(_MANIFEST_EVERY_S, _MANIFEST_SHARE * self._writing_s):
            self.write_manifest()


@contextmanager
def _started(engine: str, jobs: int, address: str | None, out: Path, progress: bool
             ) -> Iterator[Engine]:
    started: Engine
    if engine == "local":
        started = LocalEngine(jobs)
    else:
        with working("starting Ray" if address is None else f"connecting to Ray at {address}", quiet=not progress):
            started = RayEngine(jobs, address, out)
    try:
        yield started
    finally:
        started.close()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.3g}"


def _some(keys: Iterable[str]) -> str:
    names = list(keys)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
