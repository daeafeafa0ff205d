"""One AI data centre slot by slot: (14)-(18) as printed, beside the event-driven facility.

In a slot of length dt the GPUs g of a class do xi g dt of work together, however many jobs that is (14). Training jobs
stand in buckets by the slots left until they are due (15), (16); a job is executed in the slot in which it is due, or
dropped at its end (17). Inference jobs queue, first in, first out, and are dropped at the end of the slot in which
their deadline falls (18). Nothing is executed early, and no job holds a GPU from one slot to the next.

Two readings of the number of executed jobs x. `fractional`: x is a real number, and so are the jobs dropped and the
length of the queue; a job in part executed keeps its part while it queues. `integer`: x is whole, what does not suffice
for one more job is left unused. (14) is read as <=: with fewer jobs than the GPUs could do, x is what there is.

Jobs are followed one by one all the same: one is finished when all its work is done, dropped when it leaves with less,
and these are what an interval counts; x and l in the chosen reading are `executed_jobs` and `lost_jobs`.

Rows: E14-18, I03, I04, U03, U04, U13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.commands import admitted, whole_grants
from cosim.simulators.aidc.engine.interval import SiteInterval, State
from cosim.simulators.aidc.engine.jobs import (
    DROPPED,
    FINISHED,
    RUN_COLUMNS,
    TICKS_PER_S,
    UNFINISHED,
    Job,
    Row,
    Run,
    batch_of,
    row_of,
)
from cosim.simulators.aidc.engine.site_state import JobState, SiteState
from cosim.simulators.aidc.engine.slack import MOST_S
from cosim.simulators.aidc.equations import cooling_power_kw, distribution_loss_kw, it_at_inlet_kw, it_power_kw
from cosim.simulators.aidc.plant.cooling import Cooling, supply_limits_degc
from cosim.simulators.fleet import JobClass, Site
from cosim.units import MIN_S, finite

Reading = Literal["fractional", "integer"]
"""Of the number of executed jobs x in (14)."""

_SLACK = 1e-9
"""Of a comparison of works: a job whose share of the slot's work is short of it by rounding only is executed."""


class SlotClass:
    """Jobs of one class: buckets B^h of training, or the queue Z of inference, and what is executed in a slot.

    granted_gpus  g of (14), set by the facility
    runs          GPUs that the jobs executed in the last slot held in the mean over it
    short         whether (14) as an equality would have needed more jobs than there were in the last slot
    """

    def __init__(self, name: str, site: str, job_class: JobClass, slot_s: float, reading: Reading) -> None:
        self.name, self.site = name, site
        self.granted_gpus = 0
        self.runs: list[Run] = []
        self.short = False
        self._deferrable = job_class.kind == "train"
        self._slot_s, self._whole = slot_s, reading == "integer"
        self._to_per_gpu = job_class.to_per_gpu_min * slot_s / MIN_S
        slots = math.ceil(job_class.deadline_s / slot_s - _SLACK) if self._deferrable else 0
        self._buckets: list[list[Job]] = [[] for _ in range(slots + 1)]  # B^0 .. B^tau; B^0 is the queue of inference
        self._done_to: dict[int, float] = {}  # work done of the job in part executed, by id: the first in the queue
        self._start_s: dict[int, float] = {}  # and when it began

    def put(self, jobs: list[Job], now_s: float) -> None:
        """n^h of (15): jobs come in, due in the slot that holds their release. ModelError past the last bucket."""
        for job in jobs:
            h = max(0, math.floor((job.release_s - now_s) / self._slot_s + _SLACK))
            if h >= len(self._buckets):
                raise ModelError(
                    f"{self.site}: job {job.id} of class '{self.name}' is released {h} slots from now; the buckets of "
                    f"(15) reach {len(self._buckets) - 1}, its class's deadline"
                )
            self._buckets[h].append(job)

    def execute(self, now_s: float) -> tuple[list[Row], float, float, float]:
        """(14), (17), (18): one slot from now on: rows of the jobs that left, x, l, and the work done, TO."""
        jobs, end_s = self._buckets[0], now_s + self._slot_s
        left_to = self._to_per_gpu * self.granted_gpus
        self.runs = []
        rows, executed, work_to, number = [], 0.0, 0.0, 0
        for job in jobs:
            todo_to = job.work_to - self._done_to.get(job.id, 0.0)
            if todo_to > left_to + _SLACK * job.work_to:
                break  # first in, first out: no job overtakes the one that does not fit
            start_s, _ = self._leave(job, now_s)
            self.runs.append((job.id, self.site, now_s, end_s, todo_to / self._to_per_gpu))
            rows.append(row_of(job, self.site, start_s, end_s, job.work_to, FINISHED))
            executed, work_to, number = executed + todo_to / job.work_to, work_to + todo_to, number + 1
            left_to = max(left_to - todo_to, 0.0)
        waiting = jobs[number:]
        self.short = not waiting and left_to > 0.0
        if waiting and left_to and not self._whole:
            job = waiting[0]
            self._start_s.setdefault(job.id, now_s)
            self._done_to[job.id] = self._done_to.get(job.id, 0.0) + left_to
            self.runs.append((job.id, self.site, now_s, end_s, left_to / self._to_per_gpu))
            executed, work_to = executed + left_to / job.work_to, work_to + left_to
        dropped = 0.0
        for job in self._expire(waiting, end_s):
            start_s, done_to = self._leave(job, math.nan)
            rows.append(row_of(job, self.site, start_s, end_s, done_to, DROPPED))
            dropped += 1.0 - done_to / job.work_to
        return rows, executed, dropped, work_to

    def shift(self) -> None:
        """(15), (16): one slot later. What is left in B^0 of training has been executed or dropped."""
        if self._deferrable:
            self._buckets = [*self._buckets[1:], []]

    def keep(self) -> list[JobState]:
        """The jobs inside, by bucket."""
        return [
            JobState(job, h, self._start_s.get(job.id, math.nan), done_to=self._done_to.get(job.id, 0.0))
            for h, bucket in enumerate(self._buckets) for job in bucket
        ]

    def restore(self, kept: list[JobState]) -> None:
        """Into empty buckets, the jobs that `keep` gave."""
        for one in kept:
            self._buckets[one.group].append(one.job)
            if not math.isnan(one.start_s):
                self._start_s[one.job.id], self._done_to[one.job.id] = one.start_s, one.done_to

    # --- how things stand ---------------------------------------------------------------------------------------

    @property
    def queued_jobs(self) -> int:
        """Jobs in B^0 or in the queue, in part executed or not."""
        return len(self._buckets[0])

    @property
    def deferred_jobs(self) -> int:
        """Sum of B^h, h >= 1."""
        return sum(map(len, self._buckets[1:]))

    def pending_to(self) -> float:
        """Work left of the jobs in B^0 or Z, TO."""
        return math.fsum([job.work_to for job in self._buckets[0]]) - math.fsum(self._done_to.values())

    def deferred_to(self) -> float:
        """Work of the jobs in B^h, h >= 1, TO."""
        return math.fsum(job.work_to for bucket in self._buckets[1:] for job in bucket)

    def unfinished(self) -> Iterator[Row]:
        """Rows of the jobs inside, by bucket."""
        for bucket in self._buckets:
            for job in bucket:
                start_s, done_to = self._start_s.get(job.id, math.nan), self._done_to.get(job.id, 0.0)
                yield row_of(job, self.site, start_s, math.nan, done_to, UNFINISHED)

    # --- inside -------------------------------------------------------------------------------------------------

    def _expire(self, waiting: list[Job], end_s: float) -> list[Job]:
        """Those of the jobs not executed that are dropped now: all of training (17), inference by its deadline;
        the others are what is left in B^0."""
        if self._deferrable:
            self._buckets[0] = []
            return waiting
        last_s = end_s + 0.5 / TICKS_PER_S  # a deadline at the slot's end is there, whatever its last digit says
        kept = [job for job in waiting if job.deadline_s > last_s]
        self._buckets[0] = kept
        return [job for job in waiting if job.deadline_s <= last_s] if len(kept) < len(waiting) else []

    def _leave(self, job: Job, begun_s: float) -> tuple[float, float]:
        """Forget a job: when it began (`begun_s` if it had not yet), and the work done of it, TO."""
        return self._start_s.pop(job.id, begun_s), self._done_to.pop(job.id, 0.0)


class SlotFacility:
    """A site in slots of `slot_s`, driven like a `Facility`: `submit`, `command`, and `advance` by one slot.

    The means of a slot are its powers: what is executed in it is spread evenly over it, as (13) has it.
    `executed_jobs` and `lost_jobs` are x and l of the last slot per class, `short_slots` counts slots in which (14) as
    an equality would have needed more jobs than there were.
    """

    def __init__(
        self,
        name: str,
        site: Site,
        job_classes: Mapping[str, JobClass],
        cooling: Cooling,
        supply_temp_degc: float,
        slot_s: float,
        reading: Reading = "fractional",
    ) -> None:
        self.name, self.gpus = name, site.gpus
        self.now_s, self.short_slots = 0.0, 0
        self.executed_jobs, self.lost_jobs = [0.0] * len(job_classes), [0.0] * len(job_classes)
        self._site, self._cooling, self._slot_s = site, cooling, slot_s
        self._job_classes = dict(job_classes)
        self._classes = {m: SlotClass(m, name, c, slot_s, reading) for m, c in job_classes.items()}
        self._limits = supply_limits_degc(cooling)
        self.supply_temp_degc = self._clip(supply_temp_degc)
        self._received = dict.fromkeys(job_classes, 0)
        self._clipped = 0
        self._did: SiteInterval | None = None

    def submit(self, batch: Mapping[str, list]) -> None:
        """Jobs arrive now; see `jobs_of` for the columns. ModelError as `admitted` has it, and past the last bucket."""
        for name, jobs in admitted(batch, self.name, self._job_classes, self.now_s).items():
            self._classes[name].put(jobs, self.now_s)
            self._received[name] += len(jobs)

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """From now on, GPUs per class and the supply temperature; as for `Facility`."""
        grants = whole_grants(gpus, self.name, self.gpus, self._job_classes)
        self.supply_temp_degc = self._clip(finite(f"{self.name}: supply_temp_degc", supply_temp_degc))
        self._clipped += self.supply_temp_degc != supply_temp_degc
        for slot_class, grant in zip(self._classes.values(), grants, strict=True):
            slot_class.granted_gpus = grant

    def advance(self, to_s: float) -> None:
        """Execute one slot; raises ModelError unless `to_s` is its end."""
        if abs(to_s - self.now_s - self._slot_s) > _SLACK * self._slot_s:
            raise ModelError(f"{self.name}: cannot advance from {self.now_s:g} s to {to_s:g} s; slots are "
                             f"{self._slot_s:g} s long and come one by one")
        rows: list[Row] = []
        finished, dropped, work_to = [], [], []
        for k, slot_class in enumerate(self._classes.values()):
            left, self.executed_jobs[k], self.lost_jobs[k], done_to = slot_class.execute(self.now_s)
            slot_class.shift()
            rows += left
            dropped.append(sum(row[-1] == DROPPED for row in left))
            finished.append(len(left) - dropped[-1])
            work_to.append(done_to)
        self.short_slots += any(c.short for c in self._classes.values())
        self._did = self._interval(rows, finished, dropped, work_to)
        self.now_s, self._clipped = to_s, 0
        self._received = dict.fromkeys(self._received, 0)

    def read_interval(self) -> SiteInterval:
        """The slot that was executed. Raises ModelError if none was since the last read."""
        did, self._did = self._did, None
        if did is None:
            raise ModelError(f"{self.name}: nothing to read, no slot was executed since {self.now_s:g} s")
        return did

    def state(self) -> State:
        """How things stand now; nothing runs between two slots, and the GPUs granted count as in use."""
        classes = self._classes.values()
        granted = [c.granted_gpus for c in classes]
        return State(
            queued_jobs=[c.queued_jobs for c in classes],
            deferred_jobs=[c.deferred_jobs for c in classes],
            running_jobs=[0] * len(classes),
            pending_work_to=[c.pending_to() for c in classes],
            deferred_work_to=[c.deferred_to() for c in classes],
            busy_gpus=list(map(float, granted)),
            granted_gpus=granted,
            late_jobs=[0] * len(classes),  # a slot's job is due in its minute: there is no laxity
            urgent_jobs=[0] * len(classes),
            up_gpus=self.gpus,
            slack_min=MOST_S / MIN_S,
        )

    def unfinished_rows(self) -> dict[str, list]:
        """Rows of the jobs that are inside now, class by class; outcome 'unfinished'."""
        return batch_of([row for c in self._classes.values() for row in c.unfinished()])

    def open_runs(self) -> dict[str, list]:
        """None: nothing runs between two slots."""
        return {}

    def keep(self) -> SiteState:
        """What decides how it goes on from here, between two slots."""
        classes = list(self._classes.values())
        return SiteState(self.supply_temp_degc, [c.granted_gpus for c in classes], [0.0] * len(classes),
                         [math.inf] * len(classes), [c.keep() for c in classes])

    def restore(self, memory: SiteState) -> None:
        """Go on from what another facility kept; this one is new, and its time is that of the memory."""
        self.supply_temp_degc = self._clip(memory.supply_temp_degc)
        for slot_class, grant, kept in zip(self._classes.values(), memory.granted_gpus, memory.jobs, strict=True):
            slot_class.granted_gpus = grant
            slot_class.restore(kept)

    # --- inside -------------------------------------------------------------------------------------------------

    def _interval(self, rows: list[Row], finished: list[int], dropped: list[int], work_to: list[float]) -> SiteInterval:
        """(13) and (20)-(23) at the throughput y = j x / (60 dt) of the slot."""
        classes = self._job_classes.values()
        throughput = [done_to / self._slot_s for done_to in work_to]
        it_kw = it_power_kw(self._site.idle_kw, throughput, [c.kw_per_to_s for c in classes])
        it_kw = it_at_inlet_kw(it_kw, self.supply_temp_degc, self._cooling)
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, self.supply_temp_degc, self._cooling)
        busy = [y * MIN_S / c.to_per_gpu_min for y, c in zip(throughput, classes, strict=True)]
        missed, served = ([math.fsum(r[10] for r in rows if r[1] == m and r[-1] == outcome) for m in self._job_classes]
                          for outcome in (DROPPED, FINISHED))
        return SiteInterval(self._slot_s, it_kw, chiller_kw, tower_kw, work_to, busy, list(self._received.values()),
                        finished, dropped, served, missed, [0.0] * len(missed), self._clipped, batch_of(rows),
                        batch_of([run for c in self._classes.values() for run in c.runs], RUN_COLUMNS),
                        loss_kw=distribution_loss_kw(it_kw, self._cooling))

    def _clip(self, supply_temp_degc: float) -> float:
        low, high = self._limits
        return min(max(supply_temp_degc, low), high)
