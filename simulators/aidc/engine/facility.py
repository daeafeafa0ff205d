"""One AI data centre, event by event: queues, GPU blocks and power between two commands.

Time is SimPy's (`events`). An inference cohort is the event of its own end; deadlines, releases and ends of training
jobs set an alarm each. All events of one instant fire first, then the facility settles, in this order:

1. completions   inference in the order of starts, then training: GPUs come free; what ends at its deadline is finished
   failures      with `racks`: those that fail take their jobs with them, see `_strike`
2. deadlines     waiting inference jobs and unfinished training jobs are dropped
3. releases      deferred training jobs become active
4. shrinking     training gives back blocks above its grant or its need; inference keeps its GPUs until its jobs end
5. starts        per inference class, in class order, jobs from the head of the line, within the grant, on free GPUs
6. growing       per training class, in class order, blocks within the grant, on free GPUs
7. allotting     each training class hands its blocks to its jobs, in the order of its class

So GPUs in use never exceed the site's, at no instant, though grants move at once and inference jobs do not.

Rows: E14, I03, I17, L12, M08, M15, U12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.simulators.aidc.engine.coming import Coming
from cosim.simulators.aidc.engine.commands import admitted, whole_grants
from cosim.simulators.aidc.engine.events import Cohort, EventClock
from cosim.simulators.aidc.engine.inference import InferenceQueue
from cosim.simulators.aidc.engine.interval import SiteInterval, State
from cosim.simulators.aidc.engine.jobs import (
    RUN_COLUMNS,
    UNFINISHED,
    Row,
    batch_of,
    nearest_tick,
    reach_times,
    row_of,
)
from cosim.simulators.aidc.engine.meter import Meter
from cosim.simulators.aidc.engine.racks import Racks
from cosim.simulators.aidc.engine.site_state import JobState, SiteState
from cosim.simulators.aidc.engine.slack import USABLE_RATIO, slack_s
from cosim.simulators.aidc.engine.training import TrainingPool
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.aidc.plant.cooling import Cooling, supply_limits_degc
from cosim.simulators.fleet import JobClass, Site
from cosim.units import MIN_S, finite

Watch = Callable[[float, tuple[float, ...]], None]
"""Called after every instant at which something happened, with the time in s and the GPUs in use per class."""


class Facility:
    """A site with its own SimPy clock, driven by `submit`, `command` and `advance`.

    Job classes keep the order of `job_classes`, which is that of every list per class. Nothing is granted before the
    first command. `supply_temp_degc` is the supply temperature applied; outside its limits (24) it is clipped. Without
    `job_log` the jobs that leave are counted and leave no rows. `resolve_power` puts power at every instant into the
    interval, beside its mean. With `racks` they fail and are repaired; one that is down has no GPUs to give, and its
    idle power stays. With `at_arrival` a job that is submitted before its `arrival_s` comes in then.
    """

    RUNS: ClassVar[tuple[str, ...]] = RUN_COLUMNS

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
        at_arrival: bool = False,
    ) -> None:
        self.name, self.gpus, self._up_gpus = name, site.gpus, site.gpus
        self._racks, self._at_arrival = racks, at_arrival
        self._coming = Coming()
        self._site, self._watch = site, watch
        self._job_classes = dict(job_classes)
        self._ended: list[Cohort] = []
        self._clock = EventClock(nearest_tick(start_s), self._ended.append)
        self._rows: list[Row] | None = [] if job_log else None
        self._classes = [self._class_of(m, c) for m, c in job_classes.items()]
        self._queues = [c for c in self._classes if isinstance(c, InferenceQueue)]
        self._pools = [c for c in self._classes if isinstance(c, TrainingPool)]
        self._to_per_gpu_min = [c.to_per_gpu_min for c in job_classes.values()]
        self._index = {m: k for k, m in enumerate(job_classes)}
        self._alarm_s = math.inf
        self._crowded = False  # grants and GPUs not yet given back exceed the site
        self._regroup = False  # training may have a use for other blocks than it holds
        self._news = False  # jobs or commands came in at this instant
        self._limits = supply_limits_degc(cooling)
        self._meter = Meter(site, job_classes, cooling, self._clip(supply_temp_degc), self.now_s, resolve_power)
        self._read_s = self.now_s
        self._reset()
        self._set_alarm(self.now_s)

    # --- what comes from outside --------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The facility's time, s."""
        return self._clock.now

    @property
    def supply_temp_degc(self) -> float:
        """Supply air applied, within its limits."""
        return self._meter.supply_temp_degc

    def submit(self, batch: Mapping[str, list]) -> None:
        """Jobs arrive now; see `jobs_of` for the columns. Those of a batch with `reaches_s` come in then. Raises
        ModelError as `admitted` does."""
        now_s, reaches = self.now_s, reach_times(batch)
        for name, jobs in admitted(batch, self.name, self._job_classes, now_s).items():
            k = self._index[name]
            self._received[k] += len(jobs)
            if self._at_arrival or reaches:
                jobs = self._coming.put_off(k, jobs, now_s, reaches)
            if jobs:
                self._classes[k].put(jobs, now_s)
        self._news = True

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """From now on, GPUs granted per class and the supply temperature.

        Raises ModelError as `whole_grants` does. A supply temperature outside its limits is clipped and counted.
        """
        grants = whole_grants(gpus, self.name, self.gpus, self._job_classes)
        if supply_temp_degc.__class__ is not float or supply_temp_degc - supply_temp_degc:  # NaN for infinite ones too
            supply_temp_degc = finite(f"{self.name}: supply_temp_degc", supply_temp_degc)
        applied_degc = self._clip(supply_temp_degc)
        self._clipped += applied_degc != supply_temp_degc
        if applied_degc != self.supply_temp_degc:
            self._meter.supply(applied_degc, self.now_s)
        for job_class, grant in zip(self._classes, grants, strict=True):
            job_class.granted_gpus = grant
        self._look_for_crowd()
        self._regroup = self._news = True

    def advance(self, to_s: float) -> None:
        """Run to `to_s` and through everything that happens at that instant."""
        clock, now_s, to_s = self._clock, self.now_s, nearest_tick(to_s)
        if to_s < now_s:
            raise ModelError(f"{self.name}: cannot advance to {to_s:g} s, it is {now_s:g} s already")
        ended, step, peek = self._ended, clock.step, clock.peek
        if self._news and peek() > now_s:
            self._settle(now_s)
        plain, next_s = self._is_plain(), peek()
        while next_s <= to_s:
            step()
            now_s, next_s = next_s, peek()
            if next_s > now_s:
                if plain and len(ended) == 1 and now_s < self._alarm_s:
                    end_s = self._pass_on(ended.pop(), now_s)
                    if end_s < next_s:
                        next_s = end_s
                elif ended or self._news or now_s >= self._alarm_s:  # else what was to be looked at is past already
                    self._settle(now_s)
                    plain, next_s = self._is_plain(), peek()
        clock.rest_until(to_s)

    # --- what can be read ---------------------------------------------------------------------------------------

    def read_interval(self) -> SiteInterval:
        """What happened since the last read. Raises ModelError if no time has passed."""
        seconds = self.now_s - self._read_s
        if not seconds:
            raise ModelError(f"{self.name}: nothing to read, no time has passed since {self._read_s:g} s")
        energy_kws, busy_gpu_s, segments = self._meter.read(self.now_s)
        for pool in self._pools:
            pool.count(self.now_s)
        taken = zip(*[c.take() for c in self._classes], strict=True)
        trim_to, finished, dropped, finished_to, missed_to, failed_to, runs = taken
        interval = SiteInterval(
            seconds,
            energy_kws[0] / seconds,
            energy_kws[1] / seconds,
            energy_kws[2] / seconds,
            [gpu_throughput_to_per_s(gpu_s, xi) + trim
             for gpu_s, xi, trim in zip(busy_gpu_s, self._to_per_gpu_min, trim_to, strict=True)],
            [gpu_s / seconds for gpu_s in busy_gpu_s],
            self._received,
            list(finished),
            list(dropped),
            list(finished_to),
            list(missed_to),
            list(failed_to),
            self._clipped,
            batch_of(self._rows) if self._rows else {},
            batch_of(chain(*runs), self.RUNS) if any(runs) else {},
            segments,
            energy_kws[3] / seconds,
        )
        self._read_s = self.now_s
        self._reset()
        return interval

    def state(self) -> State:
        """How things stand now."""
        now_s = self.now_s
        queued, deferred, running, pending_to, deferred_to, busy, granted, late, urgent = map(
            list, zip(*[c.levels(now_s) for c in self._classes], strict=True))
        self._coming.count(queued, pending_to)
        free_gpus = self._up_gpus - sum([c.busy_gpus for c in self._classes if not isinstance(c, TrainingPool)])
        claims = chain.from_iterable([pool.claims for pool in self._pools])
        return State(queued, deferred, running, pending_to, deferred_to, busy, granted, late, urgent, self._up_gpus,
                     slack_s(claims, USABLE_RATIO * free_gpus) / MIN_S)

    def unfinished_rows(self) -> Batch:
        """Rows of the jobs that are inside now, class by class; outcome 'unfinished'."""
        if self._rows is None:
            return {}
        under_way = [row_of(job, self.name, math.nan, math.nan, 0.0, UNFINISHED) for job in self._coming.jobs()]
        return batch_of(chain(chain.from_iterable(c.unfinished(self.now_s) for c in self._classes), under_way))

    def open_runs(self) -> Batch:
        """GPUs that training jobs hold now, since when, as runs that end now."""
        if self._rows is None:
            return {}
        return batch_of(chain.from_iterable(pool.open_runs(self.now_s) for pool in self._pools), self.RUNS)

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> SiteState:
        """What decides how it goes on from here, after `advance`; of the interval not read yet, nothing. Inference that
        is on its way is kept as if it waited."""
        classes = self._classes
        coming = [self._coming.jobs(k) for k in range(len(classes))]
        return SiteState(
            self.supply_temp_degc,
            [c.granted_gpus for c in classes],
            [c.waiting_to + sum([job.work_to for job in jobs]) if isinstance(c, InferenceQueue) else 0.0
             for c, jobs in zip(classes, coming, strict=True)],
            [c.look_s if isinstance(c, TrainingPool) else math.inf for c in classes],
            [c.keep() + [JobState(job, -1) for job in jobs] for c, jobs in zip(classes, coming, strict=True)],
            self._racks.down if self._racks is not None else 0,
        )

    def restore(self, memory: SiteState) -> None:
        """Go on from what another facility kept; this one is new, and its time is that of the memory. Racks that are
        down stay so; when the next one fails or is repaired is drawn anew, as it may be without memory."""
        now_s = self.now_s
        self._meter.supply(self._clip(memory.supply_temp_degc), now_s)
        cohorts: list[Cohort] = []
        levels = (memory.granted_gpus, memory.jobs, memory.waiting_to, memory.look_s)
        for job_class, grant, kept, waiting_to, look_s in zip(self._classes, *levels, strict=True):
            job_class.granted_gpus = grant
            if isinstance(job_class, InferenceQueue):
                cohorts += job_class.restore(kept, now_s, waiting_to)
            elif isinstance(job_class, TrainingPool):
                job_class.restore(kept, now_s, look_s)
        for cohort in sorted(cohorts, key=lambda c: c.start_s):  # who started first ends first at equal ends
            self._clock.expect(cohort)
        self._meter.note(self._busy(), now_s)
        if self._racks is not None:
            self._racks.resume(memory.down_racks, now_s)
            self._up_gpus = self.gpus - memory.down_racks * self._site.gpus_per_rack
        self._look_for_crowd()
        self._set_alarm(now_s)

    # --- one instant --------------------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Whether the end of one cohort concerns its own class alone, until `_settle` is next called."""
        return not (self._crowded or self._regroup or self._news) and self._watch is None

    def _pass_on(self, cohort: Cohort, now_s: float) -> float:
        """Fast path of an event at which one cohort of inference jobs ends and nothing else changes: its GPUs pass to
        the head of its queue. Returns the earliest end of the jobs started, s; inf where none starts."""
        queue, gpus, next_s = cohort.queue, cohort.gpus, math.inf
        if (following := queue.relay(cohort, now_s)) is not None:
            self._clock.expect(following)
            return following.end_s
        queue.finish(cohort)
        if queue.queued_jobs:
            for following in queue.start(now_s, math.inf):
                self._clock.expect(following)
                gpus -= following.gpus
                next_s = min(next_s, following.end_s)
        if gpus:  # else they changed hands
            self._meter.note(tuple([c.busy_gpus for c in self._classes]), now_s)
        return next_s

    def _settle(self, now_s: float) -> None:
        """Everything that happens at this instant; in the order given in the module's docstring."""
        for cohort in self._ended:
            cohort.queue.finish(cohort)
        self._ended.clear()
        if now_s >= self._alarm_s or self._news or self._regroup:
            self._settle_all(now_s)
        else:  # inference ended and nothing else can have happened
            self._start_inference(now_s)
        busy = self._busy()
        if busy != self._meter.busy:
            self._meter.note(busy, now_s)
        if self._watch is not None:
            self._watch(now_s, busy[:len(self._classes)])

    def _settle_all(self, now_s: float) -> None:
        """Expiries, releases and arrivals, and the allocation of GPUs after them."""
        self._news = False
        for k, job in self._coming.taken(now_s):
            self._classes[k].put([job], now_s)
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
        """Steps 4 to 7: allocation of the GPUs from now on; without `regroup` training keeps its own."""
        pools = [(pool, pool.wanted_blocks) for pool in self._pools] if regroup else []
        for pool, wanted in pools:
            if wanted < pool.held_blocks:
                pool.hold(wanted)
        free = self._start_inference(now_s)
        if regroup:
            self._regroup = False
        for pool, wanted in pools:
            if pool.held_blocks < wanted:
                more = min(wanted - pool.held_blocks, free // pool.gpus_per_block)
                pool.hold(pool.held_blocks + more)
                free -= more * pool.gpus_per_block
                self._regroup |= pool.held_blocks < wanted
            pool.allot(now_s)

    def _start_inference(self, now_s: float) -> int:
        """Step 5; the GPUs that are free then."""
        free = self._up_gpus - sum([c.busy_gpus for c in self._classes])
        for queue in self._queues:
            if queue.queued_jobs:
                before = queue.busy_gpus
                for cohort in queue.start(now_s, free):
                    self._clock.expect(cohort)
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

    def _set_alarm(self, now_s: float) -> None:
        """Make sure of an event at the next deadline, release or end of training; a superseded one does no harm."""
        next_s = self._next_s()
        if next_s < self._alarm_s or self._alarm_s <= now_s:
            self._alarm_s = next_s
            if next_s < math.inf:
                self._clock.wake_at(next_s)

    def _next_s(self) -> float:
        """When something is due that no cohort's end brings."""
        next_s = min([c.next_s for c in self._classes])
        if self._racks is not None:
            next_s = min(next_s, self._racks.next_s)
        return min(next_s, self._coming.next_s)

    # --- inside -------------------------------------------------------------------------------------------------

    def _class_of(self, name: str, job_class: JobClass) -> Any:
        """The engine of a class: queue, pool or what a facility of other kinds has, with what these have in common."""
        if job_class.kind == "train":
            return TrainingPool(name, self.name, job_class, self._rows, self.gpus)
        return InferenceQueue(name, self.name, job_class, self._rows)

    def _busy(self) -> tuple[float, ...]:
        """What the meter goes by: GPUs in use per class."""
        return tuple([c.busy_gpus for c in self._classes])

    def _look_for_crowd(self) -> None:
        self._crowded = sum([max(c.granted_gpus, c.busy_gpus) for c in self._classes]) > self._up_gpus

    def _clip(self, supply_temp_degc: float) -> float:
        low, high = self._limits
        return min(max(supply_temp_degc, low), high)

    def _reset(self) -> None:
        """Start the next interval."""
        self._received = [0] * len(self._classes)
        self._clipped = 0
        if self._rows:
            self._rows.clear()
