"""The native driver: a scenario on a static schedule, in this process, without mosaik.

It calls the same simulator objects as mosaik would (init, create, step, get_data), at the same times with the same
inputs, and so writes the same trace; it only leaves out the bus. Members that run elsewhere need `--driver mosaik`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heappop, heappush
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from cosim.adapter import Adapter
from cosim.drivers.instrument import Control, MemberProbe, make_probes
from cosim.drivers.plan import (
    Connection,
    MemberInterface,
    Plan,
    interface_from_describe,
    interface_from_meta,
    make_plan,
)
from cosim.drivers.resolve import Resolved
from cosim.errors import ScenarioError
from cosim.hooks import Closing, HasClosing, HasNotes, Simulator

T = TypeVar("T")


def start_member(resolved: Resolved, name: str, simulator: Simulator,
                 carry: Mapping[str, np.ndarray] | None = None) -> MemberInterface:
    """init and create one simulator of this process, as mosaik does, and return its models.

    carry: what it goes on from (`cosim.adapter.Adapter.carry`); None: from the start.
    """
    simulator.init(name, time_resolution=resolved.clock.resolution_s, **resolved.init_params[name])
    models: dict[str, list[str]] = {}
    for model, spec in resolved.entities[name].items():
        count, arguments = creation(resolved, name, spec)
        collect(models, simulator.create(count, model, **arguments))
    if not isinstance(simulator, Adapter):
        return interface_from_meta(models, simulator.meta)
    if carry:
        simulator.setup_done()
        simulator.resume(carry)
    return interface_from_describe(models, simulator.describe())


def creation(resolved: Resolved, member: str, spec: Any) -> tuple[int, dict[str, Any]]:
    """(num, keyword arguments) of `create` for one entity spec."""
    if isinstance(spec, dict):
        return 1, spec
    ours = member in resolved.params or resolved.scenario.members[member].adapter
    return len(spec), {"names": spec} if ours else {}


def collect(models: dict[str, list[str]], entities: Sequence[Mapping[str, Any]]) -> None:
    """Add created entities and their children to model -> entity ids."""
    for entity in entities:
        models.setdefault(entity["type"], []).append(entity["eid"])
        collect(models, entity.get("children", []))


class NativeWorld:
    """One scenario in one process. start(), run() or run_to() (in any number of parts), then close().

    carry: member -> what it goes on from, as `carry()` of an earlier world gave it (members built on cosim.adapter).
    linked_only: fetch no output that no link carries, and let members spare themselves such (`Adapter.spare`); for
    worlds without a trace. elsewhere: members that are started and wired, but not stepped by `run`: their outputs come
    from elsewhere, through `send`, or are read after `step_alone`.
    Raises ScenarioError for a wiring that cannot work, ModelError naming the member that failed.
    """

    def __init__(self, resolved: Resolved, control: Control,
                 carry: Mapping[str, Mapping[str, np.ndarray]] | None = None, linked_only: bool = False,
                 elsewhere: Collection[str] = ()) -> None:
        if resolved.remote:
            raise ScenarioError(f"member '{resolved.remote[0]}' runs in another process; use --driver mosaik")
        self.resolved, self.control = resolved, control
        self._carry, self._linked_only, self._elsewhere = dict(carry or {}), linked_only, frozenset(elsewhere)
        self.simulators: dict[str, Simulator] = {}
        self.plan = Plan([], [])
        self.probes: dict[str, MemberProbe] = {}
        self._inputs: dict[str, Inputs] = {}
        self._next: dict[str, int] = {}
        self._direct: dict[str, list[_Wire]] = {}
        self._shifted: dict[str, list[tuple[str, int, list[_Wire]]]] = {}
        self._due: dict[str, list[tuple[int, int, list[_Wire], list[Any]]]] = {}
        self._sent = 0
        self._waiting: tuple[str, int] | None = None
        self._stepped: dict[str, int] = {}
        self._alone: dict[str, int] = {}

    def start(self) -> None:
        """Start all members, wire them, declare the trace."""
        interfaces = {}
        for name, cls in self.resolved.classes.items():
            begin = perf_counter()
            self.probes[name] = probe = MemberProbe(name, self.resolved.scenario.members[name].simulator, self.control)
            self.simulators[name] = simulator = call(probe, "on start", cls)
            interfaces[name] = call(probe, "on start", start_member, self.resolved, name, simulator,
                                    self._carry.get(name))
            probe.wall_s += perf_counter() - begin
        self.plan = plan = make_plan(self.resolved, interfaces)
        started = self.probes
        self.probes = make_probes(self.resolved, interfaces, plan, self.control)
        for name, probe in self.probes.items():
            probe.wall_s = probe.start_s = started[name].wall_s
            call(probe, "on start", self.simulators[name].setup_done)
        self._order = plan.order
        self._next = {name: 0 for name in plan.order if name not in self._elsewhere}
        self._inputs = {name: {} for name in plan.order}
        self._due = {name: [] for name in plan.order}
        if self._linked_only:
            self._fetch_links_only()
        bundles: dict[tuple[str, str, int], list[_Wire]] = {}
        for c in plan.connections:
            wire = self._wire(c)
            if c.shift:
                bundles.setdefault((c.source[0], c.target[0], c.shift), []).append(wire)
                put([wire], [c.initial])
            else:
                self._direct.setdefault(c.source[0], []).append(wire)
        for (source, target, shift), wires in bundles.items():
            self._shifted.setdefault(source, []).append((target, shift, wires))

    def run(self, until: int) -> None:
        """Advance all members up to bus step `until` (exclusive)."""
        following = self._next
        while (time := min(following.values(), default=until)) < until:
            self.control.tick(time)
            for name in self._order:
                if following.get(name) == time:
                    following[name] = self._step(name, time)

    def send(self, connections: Sequence[Connection], values: Sequence[Any]) -> None:
        """Put values of members that are not stepped here on their connections; they stand until others come."""
        put([self._wire(c) for c in connections], values)

    def run_to(self, member: str, until: int) -> int | None:
        """Advance to the next moment before bus step `until` at which `member` is about to step; None: there is none.

        At the returned step all inputs of `member` have arrived (`pending`), and nothing that waits for
        `member` has been stepped. The next call goes on with `member`'s step. Mixes with `run`.
        """
        following = self._next
        while (time := min(following.values(), default=until)) < until:
            self.control.tick(time)
            for name in self._order:
                if following.get(name) == time:
                    if name == member and self._waiting != (name, time):
                        self._waiting = (name, time)
                        self._deliver(name, time)
                        return time
                    following[name] = self._step(name, time)
        return None

    def pending(self, member: str) -> Inputs:
        """What `member` will get at its next step, as mosaik would give it; only whole at a stop of `run_to`."""
        return self._inputs[member]

    def step_alone(self, member: str, time: int) -> bool:
        """Step one of `elsewhere` that depends on no other, if it is due by then; whether it was."""
        if self._alone.get(member, 0) > time:
            return False
        self._alone[member] = self._step(member, time)
        return True

    def has_stepped(self, member: str, time: int) -> bool:
        """Whether the member's last step was at this bus step."""
        return self._stepped.get(member) == time

    def carry(self, without: Collection[str] = ()) -> dict[str, dict[str, np.ndarray]]:
        """What outlives this world, by member, once all have been run to the same time; for `carry` of the next.
        without: members that are left out."""
        kept = {name: call(self.probes[name], "in carry()", ours.carry) for name, ours in self._ours()
                if name not in without}
        return {name: arrays for name, arrays in kept.items() if arrays}

    def closing(self, member: str) -> Closing:
        """As `cosim.drivers.instrument.World`."""
        simulator = self.simulators.get(member)
        return call(self.probes[member], "in closing()", simulator.closing) if isinstance(simulator, HasClosing) else {}

    def notes(self, member: str) -> list[str]:
        """As `cosim.drivers.instrument.World`."""
        simulator = self.simulators.get(member)
        return call(self.probes[member], "in notes()", simulator.notes) if isinstance(simulator, HasNotes) else []

    def close(self) -> None:
        """finalize() every simulator that was started."""
        for name, simulator in self.simulators.items():
            call(self.probes[name], "in finalize()", simulator.finalize)

    def _ours(self) -> list[tuple[str, Adapter]]:
        return [(name, simulator) for name, simulator in self.simulators.items() if isinstance(simulator, Adapter)]

    def _step(self, name: str, time: int) -> int:
        probe, simulator = self.probes[name], self.simulators[name]
        self._deliver(name, time)
        begin = perf_counter()
        try:
            following = probe.check_step(time, simulator.step(time, self._inputs[name], self.resolved.until))
            data = simulator.get_data(probe.request) if probe.request else {}
            if probe.foreign:  # ours have checked what they give
                data = probe.read(data)
        except (Exception, SystemExit) as err:
            raise probe.failure(err, probe.at(time)) from err
        probe.wall_s += perf_counter() - begin
        self._stepped[name] = time
        probe.record(time, data)
        wires = self._direct.get(name, ())
        put(wires, [data[wire[0]][wire[1]] for wire in wires])
        for target, shift, wires in self._shifted.get(name, ()):
            self._sent += 1
            values = [data[wire[0]][wire[1]] for wire in wires]
            heappush(self._due[target], (time + shift, self._sent, wires, values))
        return following

    def _deliver(self, name: str, time: int) -> None:
        """Hand over what was sent to a member with a delay and is due."""
        due = self._due[name]
        while due and due[0][0] <= time:
            _, _, wires, values = heappop(due)
            put(wires, values)

    def _fetch_links_only(self) -> None:
        linked: dict[tuple[str, str], dict[str, None]] = {}
        for c in self.plan.connections:
            linked.setdefault((c.source[0], c.source[1]), {})[c.source[2]] = None
        for name, probe in self.probes.items():
            probe.request = {eid: list(linked[name, eid]) for eid in probe.request if (name, eid) in linked}
        for _, ours in self._ours():
            ours.spare = True

    def _wire(self, c: Connection) -> _Wire:
        member, eid, port = c.target
        return (c.source[1], c.source[2], c.transform, self._inputs[member], eid, port, f"{c.source[0]}.{c.source[1]}")


Inputs = dict[str, dict[str, dict[str, Any]]]
"""entity -> port -> source -> value, as mosaik gives it to `step`."""

_Wire = tuple[str, str, Callable[[Any], Any] | None, Inputs, str, str, str]
"""A connection as it is used every step: source entity and port, transform, the target member's inputs, target entity
and port, and how the target names the source."""


def put(wires: Sequence[_Wire], values: Sequence[Any]) -> None:
    """Hand each value to its wire's target."""
    for (_, _, transform, inputs, eid, port, source), value in zip(wires, values, strict=True):
        given = value if transform is None else transform(value)
        try:
            inputs[eid][port][source] = given
        except KeyError:  # the first value there
            inputs.setdefault(eid, {}).setdefault(port, {})[source] = given


def call(probe: MemberProbe, doing: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a simulator's method; whatever it raises comes out as one line that names the member."""
    try:
        return function(*arguments)
    except ScenarioError:
        raise
    except (Exception, SystemExit) as err:
        raise probe.failure(err, doing) from err
