"""The native driver: a scenario on a static schedule, in this process, without mosaik.

It calls the same simulator objects as mosaik would (init, create, step, get_data), at the same times with the same
inputs, and so writes the same trace; it only leaves out the bus. Members that run elsewhere need `--driver mosaik`.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from time import perf_counter
from typing import Any

from cosim.errors import ScenarioError
from cosim.plan import Connection, Plan, Sides, make_plan, sides_from_describe, sides_from_meta
from cosim.resolve import Resolved
from cosim.tap import Control, Tap, make_taps


def start_member(resolved: Resolved, name: str, simulator: Any) -> Sides:
    """init and create one simulator of this process, as mosaik does, and say what it offers."""
    simulator.init(name, time_resolution=resolved.clock.resolution_s, **resolved.init_params[name])
    models: dict[str, list[str]] = {}
    for model, spec in resolved.entities[name].items():
        count, arguments = creation(resolved, name, spec)
        collect(models, simulator.create(count, model, **arguments))
    if name in resolved.params:
        return sides_from_describe(models, simulator.describe())
    return sides_from_meta(models, simulator.meta)


def creation(resolved: Resolved, member: str, spec: Any) -> tuple[int, dict[str, Any]]:
    """(num, keyword arguments) of `create` for one entity spec."""
    if isinstance(spec, dict):
        return 1, spec
    ours = member in resolved.params or resolved.scenario.members[member].adapter
    return len(spec), {"names": spec} if ours else {}


def collect(models: dict[str, list[str]], entities: list[Mapping[str, Any]]) -> None:
    """Add created entities and their children to model -> entity ids."""
    for entity in entities:
        models.setdefault(entity["type"], []).append(entity["eid"])
        collect(models, entity.get("children", []))


class NativeWorld:
    """One scenario in one process. start(), run() (in as many parts as wanted), then close().

    Raises ScenarioError for a wiring that cannot work, ModelError naming the member that failed.
    """

    def __init__(self, resolved: Resolved, control: Control) -> None:
        if resolved.remote:
            raise ScenarioError(f"member '{resolved.remote[0]}' runs in another process; use --driver mosaik")
        self.resolved, self.control = resolved, control
        self.simulators: dict[str, Any] = {}
        self.plan = Plan([], [])
        self.taps: dict[str, Tap] = {}
        self._inputs: dict[str, dict] = {}
        self._next: dict[str, int] = {}
        self._direct: dict[str, list[Connection]] = {}
        self._shifted: dict[str, dict[int, list[Connection]]] = {}
        self._due: dict[str, list] = {}
        self._sent = 0

    def start(self) -> None:
        """Start all members, wire them, declare the trace."""
        sides = {}
        for name, cls in self.resolved.classes.items():
            begin = perf_counter()
            self.taps[name] = tap = Tap(name, self.resolved.scenario.members[name].simulator, self.control)
            self.simulators[name] = simulator = call(tap, "on start", cls)
            sides[name] = call(tap, "on start", start_member, self.resolved, name, simulator)
            tap.wall_s += perf_counter() - begin
        self.plan = plan = make_plan(self.resolved, sides)
        started = self.taps
        self.taps = make_taps(self.resolved, sides, plan, self.control)
        for name, tap in self.taps.items():
            tap.wall_s = tap.start_s = started[name].wall_s
            call(tap, "on start", self.simulators[name].setup_done)
        self._order = plan.order
        self._next = dict.fromkeys(plan.order, 0)
        self._inputs = {name: {} for name in plan.order}
        self._due = {name: [] for name in plan.order}
        for c in plan.connections:
            if c.shift:
                self._shifted.setdefault(c.source[0], {}).setdefault(c.shift, []).append(c)
                self._put(c, c.initial)
            else:
                self._direct.setdefault(c.source[0], []).append(c)

    def run(self, until: int) -> None:
        """Advance all members up to bus step `until` (exclusive)."""
        following = self._next
        while (time := min(following.values())) < until:
            self.control.tick(time)
            for name in self._order:
                if following[name] == time:
                    following[name] = self._step(name, time)

    def extra(self, member: str, method: str) -> Any:
        """Result of a method a simulator may have beyond mosaik's (closing, notes); None when it has none."""
        bound = getattr(self.simulators.get(member), method, None)
        return call(self.taps[member], f"in {method}()", bound) if bound else None

    def close(self) -> None:
        """finalize() every simulator that was started."""
        for name, simulator in self.simulators.items():
            if hasattr(simulator, "finalize"):
                call(self.taps[name], "in finalize()", simulator.finalize)

    def _step(self, name: str, time: int) -> int:
        tap, simulator = self.taps[name], self.simulators[name]
        due = self._due[name]
        while due and due[0][0] <= time:
            self._put(*heappop(due)[2:])
        begin = perf_counter()
        try:
            following = tap.check_step(time, simulator.step(time, self._inputs[name], self.resolved.until))
            data = tap.read(simulator.get_data(tap.request) if tap.request else {})
        except (Exception, SystemExit) as err:
            raise tap.failure(err, tap.at(time)) from err
        tap.wall_s += perf_counter() - begin
        tap.record(time, data)
        for c in self._direct.get(name, ()):
            self._put(c, data[c.source[1]][c.source[2]])
        for shift, connections in self._shifted.get(name, {}).items():
            for c in connections:
                self._sent += 1
                heappush(self._due[c.target[0]], (time + shift, self._sent, c, data[c.source[1]][c.source[2]]))
        return following

    def _put(self, c: Connection, value: Any) -> None:
        if c.transform is not None:
            value = c.transform(value)
        member, eid, port = c.target
        self._inputs[member].setdefault(eid, {}).setdefault(port, {})[f"{c.source[0]}.{c.source[1]}"] = value


def call(tap: Tap, doing: str, function: Any, *arguments: Any) -> Any:
    """Call a simulator's method; whatever it raises comes out as one line that names the member."""
    try:
        return function(*arguments)
    except ScenarioError:
        raise
    except (Exception, SystemExit) as err:
        raise tap.failure(err, doing) from err
