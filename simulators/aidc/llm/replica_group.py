"""Replicas of one job class at a site that are on: their states, who has least to do, and what they draw together,
integrated over time. What happens to one of many costs the logarithm of their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from cosim.simulators.aidc.llm.replica import Replica
from cosim.simulators.aidc.llm.request import Request

COUNTERS = ("decoded", "prefilled", "prompts", "undone", "preemptions")
"""Of a `Replica`."""


class Drawn(NamedTuple):
    """Integrals over a time: GPU s of replicas that are on and of those without work, energy of both above the GPUs'
    idle power, kW s; time for which a power limit slowed any of them, s."""

    gpu_s: float
    idle_gpu_s: float
    kws: float
    idle_kws: float
    slowed_s: float


class ReplicaGroup:
    """The replicas that are on, in the order in which they were switched on.

    gpus       of one replica
    busy_gpus  GPUs of those that are on, whether they have work or not
    kw         their power above the GPUs' idle power
    on         how many neither drain nor are off; ready of them take requests
    changed, freed   called when `kw` or `busy_gpus` has changed, with the time; when a replica has gone off
    """

    def __init__(self, gpus: int, now_s: float, changed: Callable[[float], None], freed: Callable[[], None]) -> None:
        self._gpus, self._changed, self._freed = gpus, changed, freed
        self._replicas: dict[int, Replica] = {}  # by `order`
        self._number = self.on = self.ready = 0
        self._least: list[tuple[int, int]] = []  # heap of (requests, order); entries of the past are skipped
        self._due: list[tuple[float, int]] = []  # heap of (deadline of a request that waits in its line, order)
        self.busy_gpus, self.kw = 0, 0.0
        self._idle_kw, self._idle_gpus = 0.0, 0  # of replicas without work
        self._since_s = now_s
        self._gpu_s = self._idle_gpu_s = self._kws = self._idle_kws = self._slowed_s = 0.0
        self._slowed: set[int] = set()  # by `order`
        self._gone = dict.fromkeys(COUNTERS, 0)  # by replicas that are off

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def __len__(self) -> int:
        return len(self._replicas)

    # --- states -----------------------------------------------------------------------------------------------------

    def add(self, replica: Replica, state: str) -> None:
        """A replica is switched on; `update` has to follow."""
        self._number += 1
        replica.order = self._number
        self._replicas[replica.order] = replica
        self.on += 1
        replica.state = "starting"
        if state == "ready":
            self.make_ready(replica)

    def make_ready(self, replica: Replica) -> None:
        """From now on it takes requests; one that has drained and gone off stays off."""
        if replica.order in self._replicas and replica.state != "ready":
            self.on += replica.state == "draining"
            self.ready += 1
            replica.state = "ready"
            heappush(self._least, (replica.outstanding, replica.order))

    def drain(self, replica: Replica, now_s: float) -> list[Request]:
        """From now on it takes none, and goes off with its last one; those of its line, which are to go elsewhere."""
        self.on -= 1
        self.ready -= replica.state == "ready"
        replica.state = "draining"
        moved = replica.take_waiting()
        self.update(now_s)
        return moved

    def draining(self) -> list[Replica]:
        """Those that drain."""
        return [replica for replica in self if replica.state == "draining"]

    def beyond(self, hold: int) -> list[Replica]:
        """Which are to be switched off so that `hold` stay: first those that start, then those with least to do."""
        if self.on <= hold:
            return []
        on = [replica for replica in self if replica.state != "draining"]
        return sorted(on, key=lambda r: (r.state != "starting", r.outstanding))[:self.on - hold]

    # --- requests ---------------------------------------------------------------------------------------------------

    def put(self, request: Request, now_s: float) -> Replica | None:
        """A request joins the ready replica with the fewest, the first of equals, which is given back; None: none is
        ready."""
        due, replicas = self._due, self._replicas
        while due and due[0][0] <= now_s:
            late = replicas.get(heappop(due)[1])
            if late is not None:
                late.expire(now_s)
        least = self._least
        while least:
            outstanding, order = heappop(least)
            best = replicas.get(order)
            if best is None or best.state != "ready" or best.outstanding != outstanding:
                continue
            best.put(request, now_s)
            heappush(least, (best.outstanding, order))
            if best.waiting and best.waiting[-1] is request:
                heappush(due, (request.due_s, order))
            return best
        return None

    def less(self, replica: Replica) -> None:
        """A replica has fewer requests than before."""
        if replica.state == "ready":
            heappush(self._least, (replica.outstanding, replica.order))
            if len(self._least) > 64 + 4 * len(self._replicas):
                self._least = [(r.outstanding, r.order) for r in self if r.state == "ready"]
                heapify(self._least)

    # --- power ------------------------------------------------------------------------------------------------------

    def replica_power(self, now_s: float, change_kw: float, was_idle: bool, replica: Replica) -> None:
        """One replica draws more or less from now on; one that drains and is done goes off."""
        if replica.state == "draining" and not replica.outstanding:
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
        if replica.slowed:
            self._slowed.add(replica.order)
        elif self._slowed:
            self._slowed.discard(replica.order)
        self._changed(now_s)

    def update(self, now_s: float) -> None:
        """The number of replicas is another from now on; drained ones go off."""
        self.integrate(now_s)
        done = [replica for replica in self.draining() if not replica.outstanding]
        for replica in done:
            del self._replicas[replica.order]
            self._slowed.discard(replica.order)
            for name in COUNTERS:  # what it did counts on
                self._gone[name] += getattr(replica, name)
        self._sum_up()
        self._changed(now_s)
        if done:
            self._freed()

    def _sum_up(self) -> None:
        """Power and GPUs anew from the replicas."""
        idle = [replica for replica in self if replica.idle]
        self.kw = sum([replica.kw for replica in self])
        self._idle_kw, self._idle_gpus = sum([replica.kw for replica in idle]), len(idle) * self._gpus
        self.busy_gpus = len(self) * self._gpus

    def integrate(self, now_s: float) -> None:
        """Bring the integrals up to now."""
        seconds = now_s - self._since_s
        if seconds > 0.0:
            self._gpu_s += self.busy_gpus * seconds
            self._kws += self.kw * seconds
            self._idle_gpu_s += self._idle_gpus * seconds
            self._idle_kws += self._idle_kw * seconds
            if self._slowed:
                self._slowed_s += seconds
            self._since_s = now_s

    # --- what can be read -------------------------------------------------------------------------------------------

    def drawn(self, now_s: float) -> Drawn:
        """Since the last call."""
        self.integrate(now_s)
        self._sum_up()  # what rounding left over ends with the tick
        found = Drawn(self._gpu_s, self._idle_gpu_s, self._kws, self._idle_kws, self._slowed_s)
        self._gpu_s = self._idle_gpu_s = self._kws = self._idle_kws = self._slowed_s = 0.0
        return found

    def totals(self, now_s: float) -> dict[str, int]:
        """COUNTERS of all replicas so far, those that are off too; runs of iterations under way counted up to now."""
        totals = dict(self._gone)
        for replica in self:
            for name in COUNTERS:
                totals[name] += getattr(replica, name)
            totals["decoded"] += replica.steps_now(now_s) * replica.decoding
        return totals
