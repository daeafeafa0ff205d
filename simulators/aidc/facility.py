"""One AI data centre, event by event: queues, GPU blocks and power between two commands.

Time is SimPy's. An inference cohort's end is an event with a callback; deadlines, releases and ends of training jobs
set an alarm each. All events of one instant fire first, then the facility settles, in this order:

1. completions   inference in the order of starts, then training: GPUs come free; what ends at its deadline is finished
   failures      with `racks`: those that fail take their jobs with them, see `_strike`
2. deadlines     waiting inference jobs and unfinished training jobs are dropped
3. releases      deferred training jobs become active
4. shrinking     training gives back blocks above its grant or its need; inference keeps its GPUs until its jobs end
5. starts        per inference class, in class order, jobs from the head of the line, within the grant, on free GPUs
6. growing       per training class, in class order, blocks within the grant, on free GPUs
7. allotting     each training class hands its blocks to its jobs, in the order of its class

So GPUs in use never exceed the site's, at no instant, though grants move at once and inference jobs do not.

Rows of the model: I03, I17, L12, M08, M15, U12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
import simpy

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.units import finite
from simulators.aidc.carried import Memory
from simulators.aidc.commands import admitted, whole_grants
from simulators.aidc.equations import (
    Cooling,
    cooling_power_kw,
    distribution_loss_kw,
    gpu_throughput_to_per_s,
    has_losses,
    it_at_inlet_kw,
    it_power_kw,
    supply_limits_degc,
)
from simulators.aidc.inference import Cohort, InferenceQueue
from simulators.aidc.interval import Interval, Segment, State
from simulators.aidc.jobs import RUN_COLUMNS, Row, batch_of, nearest_tick
from simulators.aidc.racks import Racks
from simulators.aidc.training import TrainingPool
from simulators.fleet import JobClass, Site

Watch = Callable[[float, tuple[int, ...]], None]
"""Called after every instant at which something happened, with the time in s and the GPUs in use per class."""

_KINDS = {"inf": InferenceQueue, "train": TrainingPool}
_MEMO_SIZE, _MANY = 16384, 64


class _End(simpy.Event):
    """The end of a cohort, as short as an event can be: what happens then is one list for all of them."""

    def __init__(self, env: simpy.Environment, callbacks: list[Callable[[_End], None]], cohort: Cohort) -> None:
        self.env, self.callbacks, self.cohort, self._ok = env, callbacks, cohort, True


class Facility:
    """A site with its own SimPy clock, driven by `submit`, `command` and `advance`.

    Job classes keep the order of `job_classes`, which is that of every list per class. Nothing is granted before the
    first command. `supply_temp_degc` is the supply temperature applied; outside its limits (24) it is clipped. Without
    `job_log` the jobs that leave are counted and leave no rows. `resolve_power` puts power at every instant into the
    interval, beside its mean. With `racks` they fail and are repaired; one that is down has no GPUs to give, and its
    idle power stays.
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
        job_log: bool = True,
        resolve_power: bool = False,
        racks: Racks | None = None,
    ) -> None:
        self.name, self.gpus, self._up_gpus = name, site.gpus, site.gpus
        self._racks = racks
        self._site, self._cooling, self._watch = site, cooling, watch
        self._job_classes = dict(job_classes)
        self._env = simpy.Environment(initial_time=nearest_tick(start_s))
        self._rows: list[Row] | None = [] if job_log else None
        self._classes = [_KINDS[c.kind](m, name, c, self._rows) for m, c in job_classes.items()]
        self._queues = [c for c in self._classes if isinstance(c, InferenceQueue)]
        self._pools = [c for c in self._classes if isinstance(c, TrainingPool)]
        self._to_per_gpu_min = [c.to_per_gpu_min for c in job_classes.values()]
        self._kw_per_to_s = [c.kw_per_to_s for c in job_classes.values()]
        self._index = {m: k for k, m in enumerate(job_classes)}
        self._alarm_s = math.inf
        self._ended: list[Cohort] = []
        self._on_end = [self._cohort_ends]  # callbacks of every end of a cohort
        self._crowded = False  # grants and GPUs not yet given back exceed the site
        self._regroup = False  # training may have a use for other blocks than it holds
        self._news = False  # jobs came in at this instant
        self._limits = supply_limits_degc(cooling)
        self._loses = has_losses(cooling)
        self.supply_temp_degc = self._clip(supply_temp_degc)
        self._power_memo: dict[tuple[int, ...], tuple[float, ...]] = {}
        self._busy = (0,) * len(self._classes)
        self._segments: list[Segment] | None = [] if resolve_power else None
        self._since_s = self._env.now  # busy GPUs are accounted for up to here
        self._dwell_s: dict[tuple[int, ...], float] = {}  # seconds at each combination of busy GPUs
        self._reset()
        self._set_alarm(self._env.now)

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
        self._look_for_crowd()
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
        seconds = self.now_s - self._read_s
        if not seconds:
            raise ModelError(f"{self.name}: nothing to read, no time has passed since {self._read_s:g} s")
        self._integrate()
        for pool in self._pools:
            pool.count(self.now_s)
        interval = Interval(
            seconds,
            *(kws / seconds for kws in self._energy_kws[:3]),
            work_to=[
                gpu_throughput_to_per_s(gpu_s, xi) + c.trim_to
                for gpu_s, xi, c in zip(self._busy_gpu_s, self._to_per_gpu_min, self._classes, strict=True)
            ],
            busy_gpus=[gpu_s / seconds for gpu_s in self._busy_gpu_s],
            received_jobs=self._received,
            finished_jobs=[c.finished for c in self._classes],
            dropped_jobs=[c.dropped for c in self._classes],
            missed_to=[c.missed_to for c in self._classes],
            failed_to=[c.failed_to for c in self._classes],
            clipped_commands=self._clipped,
            left_jobs=batch_of(self._rows or ()),
            runs=batch_of(chain.from_iterable(c.runs for c in self._classes), RUN_COLUMNS),
            segments=tuple(self._segments or ()),
            loss_kw=self._energy_kws[3] / seconds if self._loses else 0.0,
        )
        self._reset()
        return interval

    def state(self) -> State:
        """How things stand now."""
        classes, now_s = self._classes, self.now_s
        laxities = [c.by_laxity(now_s) for c in classes]
        return State(
            queued_jobs=[c.queued_jobs for c in classes],
            deferred_jobs=[c.deferred_jobs for c in classes],
            running_jobs=[c.running_jobs for c in classes],
            pending_work_to=[c.pending_to(now_s) for c in classes],
            deferred_work_to=[c.deferred_to() for c in classes],
            busy_gpus=[c.busy_gpus for c in classes],
            granted_gpus=[c.granted_gpus for c in classes],
            late_jobs=[late for late, _ in laxities],
            urgent_jobs=[urgent for _, urgent in laxities],
            up_gpus=self._up_gpus,
        )

    def unfinished_rows(self) -> Batch:
        """Rows of the jobs that are inside now, class by class; outcome 'unfinished'."""
        if self._rows is None:
            return {}
        return batch_of(chain.from_iterable(c.unfinished(self.now_s) for c in self._classes))

    def open_runs(self) -> Batch:
        """GPUs that training jobs hold now, since when, as runs that end now."""
        if self._rows is None:
            return {}
        return batch_of(chain.from_iterable(pool.open_runs(self.now_s) for pool in self._pools), RUN_COLUMNS)

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> Memory:
        """What decides how it goes on from here, after `advance`; of the interval not read yet, nothing."""
        classes = self._classes
        return Memory(
            self.supply_temp_degc,
            [c.granted_gpus for c in classes],
            [c.waiting_to if isinstance(c, InferenceQueue) else 0.0 for c in classes],
            [c.look_s if isinstance(c, TrainingPool) else math.inf for c in classes],
            [c.keep() for c in classes],
            self._racks.down if self._racks is not None else 0,
        )

    def restore(self, memory: Memory) -> None:
        """Go on from what another facility kept; this one is new, and its time is that of the memory. Racks that are
        down stay so; when the next one fails or is repaired is drawn anew, as it may be without memory."""
        now_s, self.supply_temp_degc = self.now_s, self._clip(memory.supply_temp_degc)
        cohorts: list[Cohort] = []
        levels = (memory.granted_gpus, memory.jobs, memory.waiting_to, memory.look_s)
        for job_class, grant, kept, waiting_to, look_s in zip(self._classes, *levels, strict=True):
            job_class.granted_gpus = grant
            if isinstance(job_class, InferenceQueue):
                cohorts += job_class.restore(kept, now_s, waiting_to)
            else:
                job_class.restore(kept, now_s, look_s)
        for cohort in sorted(cohorts, key=lambda c: c.start_s):  # who started first ends first at equal ends
            self._await(cohort, now_s)
        self._busy = tuple([c.busy_gpus for c in self._classes])
        if self._racks is not None:
            self._racks.resume(memory.down_racks, now_s)
            self._up_gpus = self.gpus - memory.down_racks * self._site.gpus_per_rack
        self._look_for_crowd()
        self._set_alarm(now_s)

    # --- one instant --------------------------------------------------------------------------------------------

    def _settle(self, now_s: float) -> None:
        """Everything that happens at this instant; the module says in which order."""
        ended = self._ended
        for cohort in ended:
            cohort.queue.finish(cohort)
        if now_s >= self._alarm_s or self._news or self._regroup:
            self._settle_all(now_s)
        elif self._crowded or len(ended) != 1:  # inference ended and nothing else can have happened
            self._start_inference(now_s)
        elif ended[0].queue.queued_jobs:  # and no other class waits for these GPUs
            gpus = ended[0].gpus
            for cohort in ended[0].queue.start(now_s, math.inf):
                self._await(cohort, now_s)
                gpus -= cohort.gpus
            if not gpus and self._watch is None:  # the GPUs changed hands
                ended.clear()
                return
        ended.clear()
        busy = tuple([c.busy_gpus for c in self._classes])
        if busy != self._busy:
            self._account(now_s)
            self._busy = busy
        if self._watch is not None:
            self._watch(now_s, self._busy)

    def _settle_all(self, now_s: float) -> None:
        """What is due, released or new, and who holds which GPUs then."""
        self._news = False
        due = [pool for pool in self._pools if pool.next_s <= now_s]
        for pool in due:
            pool.finish(now_s)
        if self._racks is not None and self._racks.next_s <= now_s:
            self._change_racks(self._racks, now_s)
        for queue in self._queues:
            if queue.next_s <= now_s:
                queue.expire(now_s)
        for pool in due:
            pool.expire(now_s)
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
        free = self._up_gpus - sum([c.busy_gpus for c in self._classes])
        for queue in self._queues:
            if queue.queued_jobs:
                before = queue.busy_gpus
                for cohort in queue.start(now_s, free):
                    self._await(cohort, now_s)
                free -= queue.busy_gpus - before
        return free

    def _change_racks(self, racks: Racks, now_s: float) -> None:
        """Racks that fail now or are repaired."""
        size = self._site.gpus_per_rack
        while racks.next_s <= now_s:
            place = racks.change()
            if place is not None:
                self._strike(place * size, (place + 1) * size, now_s)
        self._up_gpus = self.gpus - racks.down * size
        self._look_for_crowd()
        self._regroup = True

    def _strike(self, low: int, high: int, now_s: float) -> None:
        """GPUs low..high-1 of those up fail. Jobs stand side by side on the GPUs, class after class, each class's as
        its `strike` has it, the idle GPUs last; a job fails with any of its GPUs."""
        first = 0
        for job_class in self._classes:
            after = first + job_class.busy_gpus
            if first < high and after > low:
                job_class.strike(low - first, high - first, now_s)
            first = after

    def _await(self, cohort: Cohort, now_s: float) -> None:
        self._env.schedule(_End(self._env, self._on_end, cohort), delay=cohort.end_s - now_s)

    def _cohort_ends(self, event: _End) -> None:
        self._ended.append(event.cohort)

    def _set_alarm(self, now_s: float) -> None:
        """Make sure of an event at the next deadline, release or end of training; a superseded one does no harm."""
        next_s = min([c.next_s for c in self._classes])
        if self._racks is not None:
            next_s = min(next_s, self._racks.next_s)
        if next_s < self._alarm_s or self._alarm_s <= now_s:
            self._alarm_s = next_s
            if next_s < math.inf:
                self._env.timeout(next_s - now_s)

    # --- inside -------------------------------------------------------------------------------------------------

    def _look_for_crowd(self) -> None:
        self._crowded = sum([max(c.granted_gpus, c.busy_gpus) for c in self._classes]) > self._up_gpus

    def _clip(self, supply_temp_degc: float) -> float:
        low, high = self._limits
        return min(max(supply_temp_degc, low), high)

    def _account(self, now_s: float) -> None:
        """The busy GPUs of the last instant stood until now."""
        if now_s > self._since_s:
            self._dwell_s[self._busy] = self._dwell_s.get(self._busy, 0.0) + (now_s - self._since_s)
            if self._segments is not None:
                self._segments.append((self._since_s, now_s, *self._remembered_kw(self._busy)))
            self._since_s = now_s

    def _integrate(self) -> None:
        """Energy and GPU time up to now, exact: power is constant while the busy GPUs are."""
        self._account(self.now_s)
        unknown = [busy for busy in self._dwell_s if busy not in self._power_memo]
        if len(unknown) >= _MANY:
            self._remember(unknown)
        for busy, seconds in self._dwell_s.items():
            for k, kw in enumerate(self._remembered_kw(busy)):
                self._energy_kws[k] += kw * seconds
            for k, gpus in enumerate(busy):
                self._busy_gpu_s[k] += gpus * seconds
        self._dwell_s.clear()

    def _remembered_kw(self, busy: tuple[int, ...]) -> tuple[float, ...]:
        """`_power_kw`, from memory where it was asked for before."""
        if busy not in self._power_memo:
            if len(self._power_memo) >= _MEMO_SIZE:
                self._power_memo.clear()
            self._power_memo[busy] = self._power_kw(busy)
        return self._power_memo[busy]

    def _remember(self, states: list[tuple[int, ...]]) -> None:
        """Power at many combinations of busy GPUs at once; the same numbers, for arrays are computed like floats."""
        if len(self._power_memo) + len(states) > _MEMO_SIZE:
            self._power_memo.clear()
        powers = self._power_kw(tuple(np.array(states, dtype=np.float64).T))
        self._power_memo.update(zip(states, zip(*(kw.tolist() for kw in powers), strict=True), strict=True))

    def _power_kw(self, busy: tuple[int, ...]) -> tuple[float, ...]:
        """IT, chiller and tower power, and losses if there are any, at these busy GPUs and the present supply air."""
        throughput = [gpu_throughput_to_per_s(n, xi) for n, xi in zip(busy, self._to_per_gpu_min, strict=True)]
        it_kw = it_power_kw(self._site.idle_kw, throughput, self._kw_per_to_s)
        it_kw = it_at_inlet_kw(it_kw, self.supply_temp_degc, self._cooling)
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, self.supply_temp_degc, self._cooling)
        if self._loses:
            return it_kw, chiller_kw, tower_kw, distribution_loss_kw(it_kw, self._cooling)
        return it_kw, chiller_kw, tower_kw

    def _reset(self) -> None:
        """Start the next interval."""
        self._read_s = self._since_s
        self._energy_kws = [0.0] * (4 if self._loses else 3)
        self._busy_gpu_s = [0.0] * len(self._classes)
        self._received = [0] * len(self._classes)
        self._clipped = 0
        for kept in (self._rows, self._segments):
            if kept:
                kept.clear()
        for job_class in self._classes:
            job_class.trim_to, job_class.finished, job_class.dropped = 0.0, 0, 0
            job_class.missed_to = job_class.failed_to = 0.0
            job_class.runs = []
