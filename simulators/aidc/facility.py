"""One AI data centre, event by event: queues, GPU blocks and power between two commands.

Time is SimPy's. An inference cohort's end is an event with a callback; deadlines, releases and ends of training jobs
set an alarm each. All events of one instant fire first, then the facility settles, in this order:

1. completions   inference in the order of starts, then training: GPUs come free; what ends at its deadline is finished
2. deadlines     waiting inference jobs and unfinished training jobs are dropped
3. releases      deferred training jobs become active
4. shrinking     training gives back blocks above its grant or its need; inference keeps its GPUs until its jobs end
5. starts        per inference class, in class order, jobs from the head of the line, within the grant, on free GPUs
6. growing       per training class, in class order, blocks within the grant, on free GPUs
7. allotting     each training class hands its blocks to its jobs, in the order of its class

So GPUs in use never exceed the site's, at no instant, though grants move at once and inference jobs do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import simpy

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.units import finite
from simulators.aidc.commands import admitted, whole_grants
from simulators.aidc.equations import (
    Cooling,
    cooling_power_kw,
    gpu_throughput_to_per_s,
    it_power_kw,
    supply_limits_degc,
)
from simulators.aidc.inference import Cohort, InferenceQueue
from simulators.aidc.interval import Interval, State
from simulators.aidc.jobs import RUN_COLUMNS, Row, batch_of, nearest_tick
from simulators.aidc.training import TrainingPool
from simulators.fleet import JobClass, Site

Watch = Callable[[float, tuple[int, ...]], None]
"""Called after every instant at which something happened, with the time in s and the GPUs in use per class."""

_KINDS = {"inf": InferenceQueue, "train": TrainingPool}
_MEMO_SIZE = 4096


class Facility:
    """A site with its own SimPy clock, driven by `submit`, `command` and `advance`.

    Job classes keep the order of `job_classes`, which is that of every list per class. Nothing is granted before the
    first command. `supply_temp_degc` is the supply temperature applied; outside its limits (24) it is clipped.
    """

    def __init__(
        self,
        name: str,
        site: Site,
        job_classes: Mapping[str, JobClass],
        cooling: Cooling,
        supply_temp_degc: float,
        start_s: float = 0.0,
        watch: Watch | None = None,
    ) -> None:
        self.name, self.gpus = name, site.gpus
        self._site, self._cooling, self._watch = site, cooling, watch
        self._job_classes = dict(job_classes)
        self._env = simpy.Environment(initial_time=nearest_tick(start_s))
        self._classes = [_KINDS[c.kind](m, name, c) for m, c in job_classes.items()]
        self._queues = [c for c in self._classes if isinstance(c, InferenceQueue)]
        self._pools = [c for c in self._classes if isinstance(c, TrainingPool)]
        self._to_per_gpu_min = [c.to_per_gpu_min for c in job_classes.values()]
        self._kw_per_to_s = [c.kw_per_to_s for c in job_classes.values()]
        self._index = {m: k for k, m in enumerate(job_classes)}
        self._alarm_s = math.inf
        self._ended: list[Cohort] = []
        self._regroup = False  # training may have a use for other blocks than it holds
        self._news = False  # jobs came in at this instant
        self._limits = supply_limits_degc(cooling)
        self.supply_temp_degc = self._clip(supply_temp_degc)
        self._power_memo: dict[tuple[int, ...], tuple[float, float, float]] = {}
        self._busy = (0,) * len(self._classes)
        self._since_s = self._env.now  # busy GPUs are accounted for up to here
        self._dwell_s: dict[tuple[int, ...], float] = {}  # seconds at each combination of busy GPUs
        self._reset()

    # --- what comes from outside --------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The facility's time, s."""
        return self._env.now

    def submit(self, batch: Mapping[str, list]) -> None:
        """Jobs arrive now; see `jobs_of` for the columns. Raises ModelError as `admitted` does."""
        now_s = self.now_s
        for name, jobs in admitted(batch, self.name, self._job_classes, now_s).items():
            k = self._index[name]
            self._classes[k].put(jobs, now_s)
            self._received[k] += len(jobs)
        self._news = True
        self._env.timeout(0)

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """From now on, GPUs granted per class and the supply temperature.

        Raises ModelError as `whole_grants` does. A supply temperature outside its limits is clipped and counted.
        """
        grants = whole_grants(gpus, self.name, self.gpus, self._job_classes)
        applied_degc = self._clip(finite(f"{self.name}: supply_temp_degc", supply_temp_degc))
        self._clipped += applied_degc != supply_temp_degc
        if applied_degc != self.supply_temp_degc:
            self._integrate()
            self._power_memo.clear()
            self.supply_temp_degc = applied_degc
        for job_class, grant in zip(self._classes, grants, strict=True):
            job_class.granted_gpus = grant
        self._regroup = True
        self._env.timeout(0)

    def advance(self, to_s: float) -> None:
        """Run to `to_s` and through everything that happens at that instant."""
        env, to_s = self._env, nearest_tick(to_s)
        if to_s < env.now:
            raise ModelError(f"{self.name}: cannot advance to {to_s:g} s, it is {env.now:g} s already")
        env.timeout(to_s - env.now)
        next_s = env.peek()
        while next_s <= to_s:
            env.step()
            now_s, next_s = next_s, env.peek()
            if next_s > now_s:
                self._settle(now_s)
                next_s = env.peek()

    # --- what can be read ---------------------------------------------------------------------------------------

    def read_interval(self) -> Interval:
        """What happened since the last read. Raises ModelError if no time has passed."""
        seconds = self._since_s - self._read_s
        if not seconds:
            raise ModelError(f"{self.name}: nothing to read, no time has passed since {self._read_s:g} s")
        self._integrate()
        for pool in self._pools:
            pool.count(self._since_s)
        interval = Interval(
            seconds,
            *(kws / seconds for kws in self._energy_kws),
            work_to=[
                gpu_throughput_to_per_s(gpu_s, xi) + c.trim_to
                for gpu_s, xi, c in zip(self._busy_gpu_s, self._to_per_gpu_min, self._classes, strict=True)
            ],
            busy_gpus=[gpu_s / seconds for gpu_s in self._busy_gpu_s],
            received_jobs=self._received,
            finished_jobs=self._finished,
            dropped_jobs=self._dropped,
            clipped_commands=self._clipped,
            left_jobs=batch_of(self._rows),
            runs=batch_of(chain.from_iterable(pool.runs for pool in self._pools), RUN_COLUMNS),
        )
        self._reset()
        return interval

    def state(self) -> State:
        """How things stand now."""
        classes, now_s = self._classes, self.now_s
        return State(
            queued_jobs=[c.queued_jobs for c in classes],
            deferred_jobs=[c.deferred_jobs for c in classes],
            running_jobs=[c.running_jobs for c in classes],
            pending_work_to=[c.pending_to(now_s) for c in classes],
            deferred_work_to=[c.deferred_to() for c in classes],
            busy_gpus=[c.busy_gpus for c in classes],
            granted_gpus=[c.granted_gpus for c in classes],
        )

    def unfinished_rows(self) -> Batch:
        """Rows of the jobs that are inside now, class by class; outcome 'unfinished'."""
        return batch_of(chain.from_iterable(c.unfinished(self.now_s) for c in self._classes))

    def open_runs(self) -> Batch:
        """GPUs that training jobs hold now, since when, as runs that end now."""
        return batch_of(chain.from_iterable(pool.open_runs(self.now_s) for pool in self._pools), RUN_COLUMNS)

    # --- one instant --------------------------------------------------------------------------------------------

    def _settle(self, now_s: float) -> None:
        """Everything that happens at this instant; the module says in which order."""
        self._account(now_s)
        for cohort in self._ended:
            self._left(cohort.queue, cohort.queue.finish(cohort), self._finished)
        self._ended.clear()
        if self._news or self._regroup or now_s >= self._alarm_s:
            self._settle_all(now_s)
        else:  # inference ended and nothing else can have happened
            self._start_inference(now_s)
        self._busy = tuple([c.busy_gpus for c in self._classes])
        if self._watch is not None:
            self._watch(now_s, self._busy)

    def _settle_all(self, now_s: float) -> None:
        """What is due, released or new, and who holds which GPUs then."""
        self._news = False
        due = [pool for pool in self._pools if pool.next_s <= now_s]
        for pool in due:
            self._left(pool, pool.finish(now_s), self._finished)
        for queue in self._queues:
            if queue.next_s <= now_s:
                self._left(queue, queue.expire(now_s), self._dropped)
        for pool in due:
            self._left(pool, pool.expire(now_s), self._dropped)
        for pool in due:
            pool.release(now_s)
        self._hand_out(now_s, self._regroup or bool(due))
        self._set_alarm(now_s)

    def _hand_out(self, now_s: float, regroup: bool) -> None:
        """Steps 4 to 7: who holds which GPUs from now on; without `regroup` training has no part in it."""
        if regroup:
            for pool in self._pools:
                pool.hold(min(pool.held_blocks, pool.wanted_blocks))
        free = self._start_inference(now_s)
        if regroup:
            self._regroup = False
            for pool in self._pools:
                more = min(pool.wanted_blocks - pool.held_blocks, free // pool.gpus_per_block)
                pool.hold(pool.held_blocks + more)
                free -= more * pool.gpus_per_block
                pool.allot(now_s)
                self._regroup |= pool.held_blocks < pool.wanted_blocks

    def _start_inference(self, now_s: float) -> int:
        """Step 5; the GPUs that are free then."""
        free = self.gpus - sum([c.busy_gpus for c in self._classes])
        for queue in self._queues:
            if queue.queued_jobs:
                before = queue.busy_gpus
                for cohort in queue.start(now_s, free):
                    end = self._env.timeout(cohort.end_s - now_s, cohort)
                    end.callbacks.append(self._cohort_ends)
                free -= queue.busy_gpus - before
        return free

    def _cohort_ends(self, event: simpy.Event) -> None:
        self._ended.append(event.value)

    def _set_alarm(self, now_s: float) -> None:
        """Make sure of an event at the next deadline, release or end of training; a superseded one does no harm."""
        next_s = min([c.next_s for c in self._classes])
        if next_s < self._alarm_s or self._alarm_s <= now_s:
            self._alarm_s = next_s
            if next_s < math.inf:
                self._env.timeout(next_s - now_s)

    # --- inside -------------------------------------------------------------------------------------------------

    def _clip(self, supply_temp_degc: float) -> float:
        low, high = self._limits
        return min(max(supply_temp_degc, low), high)

    def _left(self, job_class: InferenceQueue | TrainingPool, rows: list[Row], counts: list[int]) -> None:
        if rows:
            self._rows += rows
            counts[self._index[job_class.name]] += len(rows)

    def _account(self, now_s: float) -> None:
        """The busy GPUs of the last instant stood until now."""
        if now_s > self._since_s:
            self._dwell_s[self._busy] = self._dwell_s.get(self._busy, 0.0) + (now_s - self._since_s)
            self._since_s = now_s

    def _integrate(self) -> None:
        """Energy and GPU time up to now, exact: power is constant while the busy GPUs are."""
        for busy, seconds in self._dwell_s.items():
            if busy not in self._power_memo:
                if len(self._power_memo) >= _MEMO_SIZE:
                    self._power_memo.clear()
                self._power_memo[busy] = self._power_kw(busy)
            for k, kw in enumerate(self._power_memo[busy]):
                self._energy_kws[k] += kw * seconds
            for k, gpus in enumerate(busy):
                self._busy_gpu_s[k] += gpus * seconds
        self._dwell_s.clear()

    def _power_kw(self, busy: tuple[int, ...]) -> tuple[float, float, float]:
        """IT, chiller and cooling-tower power at these busy GPUs and the present supply temperature."""
        throughput = [gpu_throughput_to_per_s(n, xi) for n, xi in zip(busy, self._to_per_gpu_min, strict=True)]
        it_kw = it_power_kw(self._site.idle_kw, throughput, self._kw_per_to_s)
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, self.supply_temp_degc, self._cooling)
        return it_kw, chiller_kw, tower_kw

    def _reset(self) -> None:
        """Start the next interval."""
        zeros = [0] * len(self._classes)
        self._read_s = self._since_s
        self._energy_kws = [0.0, 0.0, 0.0]
        self._busy_gpu_s = [0.0] * len(self._classes)
        self._received, self._finished, self._dropped = zeros[:], zeros[:], zeros[:]
        self._clipped = 0
        self._rows: list[Row] = []
        for job_class in self._classes:
            job_class.trim_to = 0.0
        for pool in self._pools:
            pool.runs = []
