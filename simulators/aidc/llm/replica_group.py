"""Replicas of one job class at a site that are on: their states, and what they draw together, integrated over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from cosim.simulators.aidc.engine.events import TimedSignal
from cosim.simulators.aidc.llm.replica import Replica

COUNTERS = ("decoded", "prefilled", "prompts", "undone", "preemptions")
"""Of a `Replica`."""


class ReplicaSlot:
    """A place of `gpus` GPUs for a replica. state: starting, ready or draining."""

    __slots__ = ("ready_at", "replica", "state")

    def __init__(self, replica: Replica, state: str) -> None:
        self.replica, self.state = replica, state
        self.ready_at: TimedSignal | None = None


class Drawn(NamedTuple):
    """Integrals over a time: GPU s of replicas that are on and of those without work, energy of both above the GPUs'
    idle power, kW s."""

    gpu_s: float
    idle_gpu_s: float
    kws: float
    idle_kws: float


class ReplicaGroup:
    """The replicas that are on, in the order in which they were switched on.

    gpus       of one replica
    busy_gpus  GPUs of those that are on, whether they have work or not
    kw         their power above the GPUs' idle power
    ready      those that take requests
    draining   whether one of them drains
    changed, freed   called when `kw` or `busy_gpus` has changed, with the time; when a replica has gone off
    """

    def __init__(self, gpus: int, now_s: float, changed: Callable[[float], None], freed: Callable[[], None]) -> None:
        self._gpus, self._changed, self._freed = gpus, changed, freed
        self.slots: list[ReplicaSlot] = []
        self.ready: list[Replica] = []
        self.draining = False
        self.busy_gpus, self.kw = 0, 0.0
        self._idle_kw, self._idle_gpus = 0.0, 0  # of replicas without work
        self._since_s = now_s
        self._gpu_s = self._idle_gpu_s = self._kws = self._idle_kws = 0.0
        self._gone = dict.fromkeys(COUNTERS, 0)  # by replicas that are off

    def in_state(self, *states: str) -> list[ReplicaSlot]:
        """Slots in one of these states."""
        return [slot for slot in self.slots if slot.state in states]

    def beyond(self, hold: int) -> list[ReplicaSlot]:
        """Which are to be switched off so that `hold` stay: first those that start, then those with least to do."""
        on = self.in_state("starting", "ready")
        return sorted(on, key=lambda s: (s.state != "starting", s.replica.outstanding))[:max(len(on) - hold, 0)]

    def replica_power(self, now_s: float, change_kw: float, was_idle: bool, replica: Replica) -> None:
        """One replica draws more or less from now on."""
        if self.draining:
            self.update(now_s)
            return
        self.integrate(now_s)
        self.kw += change_kw
        if was_idle:
            self._idle_kw -= replica.kw - change_kw
            self._idle_gpus -= self._gpus
        if replica.idle:
            self._idle_kw += replica.kw
            self._idle_gpus += self._gpus
        self._changed(now_s)

    def update(self, now_s: float) -> None:
        """Power or the number of replicas is another from now on; drained ones go off."""
        self.integrate(now_s)
        done = [slot for slot in self.in_state("draining") if not slot.replica.outstanding]
        for slot in done:
            self.slots.remove(slot)
            for name in COUNTERS:  # what it did counts on
                self._gone[name] += getattr(slot.replica, name)
        self.sum_up()
        self._changed(now_s)
        if done:
            self._freed()

    def sum_up(self) -> None:
        """Power and GPUs anew from the replicas."""
        idle = [slot.replica for slot in self.slots if slot.replica.idle]
        self.kw = sum([slot.replica.kw for slot in self.slots])
        self._idle_kw, self._idle_gpus = sum([replica.kw for replica in idle]), len(idle) * self._gpus
        self.busy_gpus = len(self.slots) * self._gpus
        self.ready = [slot.replica for slot in self.slots if slot.state == "ready"]
        self.draining = any(slot.state == "draining" for slot in self.slots)

    def integrate(self, now_s: float) -> None:
        """Bring the integrals up to now."""
        seconds = now_s - self._since_s
        if seconds > 0.0:
            self._gpu_s += self.busy_gpus * seconds
            self._kws += self.kw * seconds
            self._idle_gpu_s += self._idle_gpus * seconds
            self._idle_kws += self._idle_kw * seconds
            self._since_s = now_s

    def drawn(self, now_s: float) -> Drawn:
        """Since the last call."""
        self.integrate(now_s)
        self.sum_up()  # what rounding left over ends with the tick
        found = Drawn(self._gpu_s, self._idle_gpu_s, self._kws, self._idle_kws)
        self._gpu_s = self._idle_gpu_s = self._kws = self._idle_kws = 0.0
        return found

    def totals(self, now_s: float) -> dict[str, int]:
        """COUNTERS of all replicas so far, those that are off too; runs of iterations under way counted up to now."""
        totals = dict(self._gone)
        for replica in self.replicas():
            for name in COUNTERS:
                totals[name] += getattr(replica, name)
            totals["decoded"] += replica.steps_now(now_s) * replica.decoding
        return totals

    def replicas(self) -> Iterator[Replica]:
        """Those that are on."""
        for slot in self.slots:
            yield slot.replica
