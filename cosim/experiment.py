"""Run one scenario under a driver: trace, status, wall-clock split, summary of the run.

Rows: M07.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from cosim.collector import few_collections
from cosim.digest import Digest
from cosim.drivers.event_loop import beside_running_loop
from cosim.drivers.instrument import Control, Stopped, World, initial_values
from cosim.drivers.native import NativeWorld
from cosim.drivers.plan import Plan
from cosim.drivers.resolve import Resolved, resolve
from cosim.errors import ModelError, ScenarioError, TraceError, unknown
from cosim.imports import load
from cosim.limits import BYTES_PER_NUMBER, check_memory
from cosim.replay.recording import differing
from cosim.result import Result
from cosim.scenario import Scenario
from cosim.trace import Trace
from cosim.trace.machine import versions
from cosim.trace.writer import TraceWriter, annotate
from cosim.units import HOUR_S

_SLOWEST = 1e4
DRIVERS = ("mosaik", "native")


@dataclass
class Experiment:
    """One run, not started yet: construct it, optionally call `preflight()`, then `run()` once.

    out None runs without a trace (and without a summary). `control.stop = True`, from a signal handler, ends the run
    between two steps with what was computed kept. rt_factor is wall-clock seconds per simulated second (None: as fast
    as it goes); `control.lag_s` is afterwards the largest lag of the run. durable: what a flush of the
    trace has written outlasts a machine that loses its power (fsync).
    """

    scenario: Scenario
    driver: str = "mosaik"
    until_s: float | None = None
    out: str | PathLike[str] | None = None
    overwrite: bool = False
    on_progress: Callable[[int, int], None] | None = None
    rt_factor: float | None = None
    durable: bool = False
    resolved: Resolved = field(init=False)
    control: Control = field(init=False)
    path: Path | None = field(init=False)

    def __post_init__(self) -> None:
        self.path = None if self.out is None else Path(self.out)
        if self.driver not in DRIVERS:
            raise ScenarioError(unknown("driver", self.driver, DRIVERS))
        self.resolved = resolve(self.scenario, self.until_s)
        clock = self.resolved.clock
        flush_s = self.scenario.flush_s if self.rt_factor is None else min(self.scenario.flush_s, HOUR_S)
        self.control = Control(clock, max(1, clock.steps(flush_s, "flush_s")))
        if self.rt_factor is not None and not 0 < self.rt_factor <= _SLOWEST:
            raise ScenarioError(f"rt_factor = {self.rt_factor:g} must be > 0 and finite, {_SLOWEST:g} at most: "
                                "wall-clock seconds per simulated second")
        self.control.rt_factor = self.rt_factor
        if self.on_progress:
            report, until = self.on_progress, self.resolved.until
            self.control.on_progress = lambda time: report(time, until)

    def preflight(self) -> Digest:
        """Result of the scenario's check before the run, for example offered load against capacity."""
        return self._hook(self.resolved.scenario.preflight, self.resolved)

    def run(self) -> Result:
        """Run to the end. On any error the trace is closed as 'failed' with its text, and the error is raised."""
        return beside_running_loop(self._run, self._stop)

    def _stop(self) -> None:
        self.control.stop = True

    def _run(self) -> Result:
        begin = perf_counter()
        self._check_out()
        wall: dict[str, float] = {}
        notes: list[str] = []
        try:
            self._drive(begin, wall, notes)
            if writer := self.control.writer:
                last = perf_counter()
                writer.flush(final=True)
                wall["trace"] += perf_counter() - last
                wall["total"] += perf_counter() - last
                writer.finish("completed", attrs={"notes": json.dumps(notes), **_wall_attrs(wall)})
        except BaseException as err:
            if self.control.writer:
                self.control.writer.finish("failed", str(err) or type(err).__name__, _wall_attrs(wall))
            raise
        digest = Digest()
        if self.path is not None and self.resolved.scenario.summary:
            with Trace(self.path) as trace:
                digest = self._hook(self.resolved.scenario.summary, trace)
            annotate(self.path, {"summary": digest.to_json()})
        return Result(self.path, "completed", self.resolved, wall, notes, digest)

    def _check_out(self) -> None:
        """TraceError for a trace that may not be written there; a trace that this run reads is never overwritten."""
        if self.path is None:
            return
        if not float(self.scenario.resolution_s).is_integer():
            raise TraceError(f"resolution_s = {self.scenario.resolution_s:g}: a trace counts whole seconds; choose 1 s "
                             "or more, or run without a trace (Experiment(out=None))")
        try:
            exists = self.path.exists()
        except OSError as err:
            raise TraceError(f"cannot write {self.path}: {err.strerror or err}") from None
        sources = [m.params.get("path") for m in self.resolved.scenario.members.values()]
        if exists and any(isinstance(s, str) and Path(s).exists() and self.path.samefile(s) for s in sources):
            raise TraceError(f"{self.path} is read by this run; choose another --out")
        if exists and not self.overwrite:
            raise TraceError(f"{self.path} exists; choose another --out, or --force to overwrite it")

    def plan(self) -> Plan:
        """Start the members without running them and return the wiring."""
        return beside_running_loop(self._plan, self._stop)

    def _plan(self) -> Plan:
        world = self._world()
        try:
            world.start()
            return world.plan
        finally:
            world.close()

    def _drive(self, begin: float, wall: dict[str, float], notes: list[str]) -> None:
        world = self._world()
        try:
            with _stop_means_stopped(self.control):
                world.start()
                self.control.plan = world.plan
                wall["start"] = perf_counter() - begin
                self._open_trace(world)
                with few_collections():
                    world.run(self.resolved.until)
        finally:
            total = perf_counter() - begin
            try:
                if "start" in wall:  # what was never set up has nothing to say, and must not hide why
                    self._wind_up(world, notes)
            finally:
                wall.update({f"member {n}": probe.wall_s for n, probe in world.probes.items()})
                trace_s = self.control.writer.wall_s if self.control.writer else 0.0
                wall.update(total=total, trace=trace_s)
                members_running = sum(t.wall_s - t.start_s for t in world.probes.values())
                wall["bus"] = max(0.0, total - wall.get("start", total) - members_running - trace_s)
                world.close()

    def _wind_up(self, world: World, notes: list[str]) -> None:
        """Collect closing rows and notes from the members of this process; they are part of what was computed."""
        for name in world.probes:
            if said := world.closing(name):
                world.probes[name].close(said)
            notes += world.notes(name)
        notes += differing(self.resolved.scenario)

    def _world(self) -> World:
        if self.driver == "native":
            return NativeWorld(self.resolved, self.control)
        from cosim.drivers.mosaik_bus import MosaikWorld  # mosaik takes half a second, the native driver no mosaik
        return MosaikWorld(self.resolved, self.control)

    def _open_trace(self, world: World) -> None:
        """A trace is made once everything has started: a request that cannot run leaves no file."""
        if self.path is None:
            return
        self._check_memory(world)
        writer = TraceWriter(self.path, attrs=self._attrs(), start=str(self.resolved.scenario.start),
                             overwrite=self.overwrite, durable=self.durable)
        for probe in world.probes.values():
            probe.declare(writer)
        connections = world.plan.connections
        writer.write_table("wiring", {
            "source": [".".join(c.source) for c in connections],
            "target": [".".join(c.target) for c in connections],
            "shift_s": [self.resolved.clock.seconds(c.shift) for c in connections],
            "scale": [c.scale for c in connections],
        })
        if (before := initial_values(world.plan))["source"]:
            writer.write_table("initial", before)
        self.control.writer = writer

    def _check_memory(self, world: World) -> None:
        """ScenarioError where what is recorded between two flushes would not fit into memory."""
        clock, members, numbers = self.resolved.clock, self.resolved.scenario.members, 0.0
        span = min(self.control.flush_steps, self.resolved.until)
        for name, probe in world.probes.items():
            numbers += probe.numbers * span / clock.steps(members[name].step_s)
        check_memory(f"flush_s = {self.scenario.flush_s:g} s", numbers, BYTES_PER_NUMBER,
                     "write more often: --set flush_s=1h")

    def _attrs(self) -> dict[str, Any]:
        return {
            "scenario": self.resolved.scenario.to_json(), "name": self.resolved.scenario.name,
            "seed": self.resolved.scenario.seed, "driver": self.driver,
            "until_s": self.resolved.clock.seconds(self.resolved.until),
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "versions": json.dumps(versions()),
        }

    @staticmethod
    def _hook(path: str | None, argument: Any) -> Digest:
        return load(path, "hook")(argument) if path else Digest()


@contextmanager
def _stop_means_stopped(control: Control) -> Iterator[None]:
    """A member that dies because the user's Ctrl-C reached it too is not an error of that member."""
    try:
        yield
    except ModelError as err:
        if control.stop:
            raise Stopped(f"stopped by the user at {control.clock.label(max(control.time, 0))}") from err
        raise


def _wall_attrs(wall: dict[str, float]) -> dict[str, float]:
    return {f"wall_{name.replace(' ', '_')}_s": seconds for name, seconds in wall.items()}
