"""What both drivers do around every tick of every member: name failures, count wall time, record outputs.

Recording happens here, beside the simulator, and not by a simulator on the bus: that would double the bus's cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any, Protocol

from cosim.clock import Clock
from cosim.drivers.plan import MemberInterface, Plan
from cosim.drivers.resolve import Resolved
from cosim.errors import CosimError, DiskError, ModelError
from cosim.hooks import Closing
from cosim.ports import Port
from cosim.trace.writer import TraceWriter
from cosim.units import finite

_CHUNK_ROWS, _CHUNK_ROWS_IN_REAL_TIME = 120, 30
"""Rows of a chunk of the trace at most. To write a chunk takes as long as some hundred of its numbers; in real time
what is written soon counts more."""


class Stopped(CosimError):
    """The run was stopped by the user (Ctrl-C); what was computed is kept."""

    exit_code = 130


@dataclass
class Control:
    """The run's clock as seen from outside: progress, the trace's flushes, real-time pace, and a wish to stop.

    `on_record` is called with (member, its outputs) after every step, `plan` is the wiring once all have started;
    `lag_s` is how far a real-time run was behind at worst.
    """

    clock: Clock
    flush_steps: int
    writer: TraceWriter | None = None
    on_progress: Callable[[int], None] | None = None
    on_record: Callable[[str, Mapping[str, Mapping[str, Any]]], None] | None = None
    plan: Plan | None = None
    rt_factor: float | None = None
    stop: bool = False
    time: int = -1
    lag_s: float = 0.0
    _next_flush: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)

    def tick(self, time: int) -> None:
        """Called before each member's step. Raises Stopped between two steps of the bus, never inside one."""
        if time <= self.time:
            return
        if self.stop:
            raise Stopped(f"stopped by the user at {self.clock.label(time)}")
        if self.rt_factor is not None:
            self._keep_pace(time, self.rt_factor)
        self.time = time
        if self.on_progress:
            self.on_progress(time)
        due = time >= self._next_flush
        if due:
            self._next_flush = time + self.flush_steps
        if self.writer and (due or self.writer.full):
            self.writer.flush()

    def _keep_pace(self, time: int, rt_factor: float) -> None:
        """Real time: wait until `rt_factor` wall-clock seconds have passed per simulated second, or note the lag."""
        if self.time < 0:
            self._began = perf_counter() - self.clock.seconds(time) * rt_factor
        ahead = self._began + self.clock.seconds(time) * rt_factor - perf_counter()
        if ahead > 0:
            sleep(ahead)
        else:
            self.lag_s = max(self.lag_s, -ahead)


@dataclass
class MemberProbe:
    """One member under watch; a foreign one, not built on cosim.adapter, has its numbers checked here.

    `request` is what to read after each step, as mosaik's get_data takes it; `wall_s` counts the seconds spent in the
    member, `start_s` of them before the first step.
    """

    member: str
    simulator: str
    control: Control
    request: dict[str, list[str]] = field(default_factory=dict)
    levels: list[str] = field(default_factory=list)
    tables: list[tuple[str, str, str]] = field(default_factory=list)
    foreign: bool = False
    chunk: int = 30
    layout: list[tuple[str, list[str], list[Port], dict[str, list[str]]]] = field(default_factory=list)
    fixed: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    wall_s: float = 0.0
    start_s: float = 0.0

    @property
    def numbers(self) -> int:
        """How many numbers are recorded at each of its steps."""
        return sum(len(eids) * math.prod(len(labels[d]) for d in port.dims)
                   for _, eids, ports, labels in self.layout for port in ports if port.kind == "level" and port.record)

    def failure(self, err: BaseException, doing: str, text: str | None = None) -> CosimError:
        """`err` as one line that names the member; a CosimError keeps its kind and exit code. A disk that refused to
        take the trace is not the member's failure."""
        if isinstance(err, DiskError):
            return err
        said = text if text is not None else str(err) if isinstance(err, CosimError) else f"{type(err).__name__}: {err}"
        kind = type(err) if isinstance(err, CosimError) else ModelError
        return kind(f"member '{self.member}' ({self.simulator}) failed {doing}: {said}")

    def at(self, time: int) -> str:
        """'at 01:15' for messages."""
        return f"at {self.control.clock.label(time)}"

    def check_step(self, time: int, following: Any) -> int:
        """The next step that a simulator requested, or a ModelError when it is no later whole step."""
        if not isinstance(following, int) or following <= time:
            raise ModelError(f"step() returned {following!r}; a time-based simulator returns its next step, "
                             f"an int > {time}")
        return following

    def declare(self, writer: TraceWriter) -> None:
        """Make this member's datasets, and write what stays as it is."""
        for model, eids, outs, labels in self.layout:
            writer.declare(self.member, model, eids, outs, labels, self.chunk)
        for name, columns in self.fixed.items():
            writer.write_table(f"{self.member}.{name}", columns)

    def record(self, time: int, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Store this step's outputs in the trace."""
        if self.control.on_record:
            self.control.on_record(self.member, data)
        writer = self.control.writer
        if writer is None:
            return
        time_s = self.control.clock.seconds(time)
        for model in self.levels:
            writer.append(self.member, model, time_s, data)
        for eid, port, table in self.tables:
            writer.extend(table, data[eid][port])

    def read(self, data: Any) -> dict:
        """A get_data answer, checked to hold everything that was requested."""
        for eid, names in self.request.items():
            for name in names:
                if eid not in data or name not in data[eid]:
                    raise ModelError(f"get_data() gave no value for {eid}.{name}")
                if self.foreign:
                    value = data[eid][name]
                    finite(f"{eid}.{name}", value)
        return data

    def close(self, closing: Closing) -> None:
        """Store the last values of event ports at the end."""
        if self.control.writer is None:
            return
        for eid, port, table in self.tables:
            self.control.writer.extend(table, closing.get(eid, {}).get(port, {}))


class World(Protocol):
    """A scenario under a driver: start(), run(), the members' last outputs and notes, then close()."""

    probes: dict[str, MemberProbe]
    plan: Plan

    def start(self) -> None:
        """Start all members, wire them, declare the trace."""

    def run(self, until: int) -> None:
        """Advance all members up to bus step `until` (exclusive)."""

    def closing(self, member: str) -> Closing:
        """As `cosim.hooks.HasClosing`; {} for a member that has none."""

    def notes(self, member: str) -> list[str]:
        """As `cosim.hooks.HasNotes`; [] for a member that has none."""

    def close(self) -> None:
        """End all members."""


def make_probes(resolved: Resolved, interfaces: Mapping[str, MemberInterface], plan: Plan, control: Control
                ) -> dict[str, MemberProbe]:
    """One probe per member: its recorded ports, or, for a simulator not built on cosim.adapter, its linked ports."""
    linked: dict[str, dict[tuple[str, str], None]] = {}
    for c in plan.connections:
        linked.setdefault(c.source[0], {})[c.source[1], c.source[2]] = None
    probes = {}
    for member, spec in resolved.scenario.members.items():
        interface = interfaces[member]
        probe = MemberProbe(member, spec.simulator, control, foreign=interface.foreign)
        # half a flush's lag at most: on the bus a member may be one step behind when the clock says flush
        rows = _CHUNK_ROWS if control.rt_factor is None else _CHUNK_ROWS_IN_REAL_TIME
        probe.chunk = max(1, min(rows, control.flush_steps // (2 * resolved.clock.steps(spec.step_s))))
        carried = linked.get(member, {})
        for model, eids in interface.models.items():
            outs = [p for ps in interface.ports[model].values() for p in ps if p.flow == "out"]
            if interface.foreign:  # META only: what is linked is what comes out
                names = {port for eid, port in carried if eid in eids}
                linked_eids = {eid for eid, _ in carried}
                eids = [e for e in eids if e in linked_eids]
                outs = [Port(n, "out", n) for n in sorted(names)]
            _watch(probe, model, eids, outs)
            probe.layout.append((model, eids, outs, interface.labels))
        probe.fixed = interface.tables
        probes[member] = probe
    return probes


def initial_values(plan: Plan) -> dict[str, list[Any]]:
    """What links that are shifted in time carry before their first value, a row per number: the source's port, the
    index along its axis (0 for a scalar), and the value before any conversion."""
    columns: dict[str, list[Any]] = {"source": [], "index": [], "value": []}
    for source, value in {c.source: c.initial for c in reversed(plan.connections) if c.shift}.items():
        if isinstance(value, dict):  # events: nothing has happened yet
            continue
        numbers = list(value) if isinstance(value, (list, tuple)) else [value]
        columns["source"] += [".".join(source)] * len(numbers)
        columns["index"] += range(len(numbers))
        columns["value"] += map(float, numbers)
    return columns


def _watch(probe: MemberProbe, model: str, eids: list[str], outs: list[Port]) -> None:
    if eids and any(p.kind == "level" and p.record for p in outs):
        probe.levels.append(model)
    for eid in eids:
        if outs:
            probe.request[eid] = [p.name for p in outs]
        probe.tables += [(eid, p.name, p.table) for p in outs if p.table]
