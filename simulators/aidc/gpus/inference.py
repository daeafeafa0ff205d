"""Inference on GPUs of several types, whose speed may change while jobs run.

All jobs of a class on one type run at one speed, so that the work that one does from its start to its end is what the
type's clock of work runs on by: a job that starts at w0 and has the size j ends when that clock is at w0 + j, whatever
happens to the speed in between. Changing the speed moves no entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

from cosim.simulators.aidc.engine.inference import InferenceQueue
from cosim.simulators.aidc.engine.interval import Levels
from cosim.simulators.aidc.engine.jobs import FINISHED, UNFINISHED, Job, Row, nearest_tick, row_of
from cosim.simulators.aidc.engine.site_state import JobState
from cosim.simulators.aidc.gpus.numbers import WorkOnType
from cosim.simulators.fleet import JobClass


class TypedCohort(NamedTuple):
    """Jobs of one size that started together on one type: they end when the clock of work is at `ends_to`."""

    ends_to: float
    number: int  # of the batch; of equal ends the first started is first
    begun_to: float
    start_s: float
    jobs: list[Job]


class TypedQueue(InferenceQueue):
    """An inference queue whose running jobs are on GPU types.

    busy_of   GPUs that its jobs hold, by type
    end_s     when a job ends next at the present speeds
    """

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None, types: Sequence[str],
                 now_s: float) -> None:
        super().__init__(name, site, job_class, rows)
        self._types = list(types)
        self.busy_of = [0] * len(types)
        self.end_s = math.inf
        self._batches: list[list[TypedCohort]] = [[] for _ in types]  # a heap each
        self._started = 0
        self._worked_to = [0.0] * len(types)  # the clocks of work, at `_since_s`
        self._since_s = [now_s] * len(types)
        self._speed_to_per_s = [0.0] * len(types)
        self._counted_s = now_s

    # --- what happens -------------------------------------------------------------------------------------------

    def set_speeds(self, ratios: Sequence[float], now_s: float) -> None:
        """From now on so fast on each type, over the class's to_per_gpu_min; after `count`."""
        for t, ratio in enumerate(ratios):
            speed = ratio * self._to_per_s
            if speed != self._speed_to_per_s[t]:
                self._worked_to[t] = self._clock_to(t, now_s)
                self._since_s[t], self._speed_to_per_s[t] = now_s, speed
        self._look_ahead()

    def finish_due(self, now_s: float) -> None:
        """Jobs whose work is done now leave; after `count`."""
        if now_s < self.end_s:
            return
        done: list[tuple[int, TypedCohort]] = []
        for t, heap in enumerate(self._batches):
            while heap and self._ends_s(t, heap[0]) <= now_s:
                done.append((t, heappop(heap)))
        each = self._gpus_per_job
        for t, batch in sorted(done, key=lambda of: of[1].number):
            number = len(batch.jobs)
            self.finished += number
            self.busy_of[t] -= number * each
            self.trim_to -= number * (self._clock_to(t, now_s) - batch.begun_to)
            whole_to = [job.work_to for job in batch.jobs]
            self.finished_to += math.fsum(whole_to)
            self.trim_to += math.fsum(whole_to)
            if self.rows is not None:
                for job in batch.jobs:
                    self.rows.append(row_of(job, self.site, batch.start_s, now_s, job.work_to, FINISHED))
                    self.runs.append((job.id, self.site, batch.start_s, now_s, float(each), self._types[t]))
        self.busy_gpus = sum(self.busy_of)
        self._look_ahead()

    def start_on(self, t: int, gpus: float, now_s: float) -> int:
        """Start jobs from the head of the line on free GPUs of a type, within the grant; GPUs taken."""
        places = int(min(self.granted_gpus - self.busy_gpus, gpus) // self._gpus_per_job)
        if places <= 0 or not self.queued_jobs:
            return 0
        jobs = self._take(places)
        self.look(now_s)
        by_size: dict[float, list[Job]] = {}
        for job in jobs:
            by_size.setdefault(job.work_to, []).append(job)
        begun_to = self._clock_to(t, now_s)
        for work_to, of_size in by_size.items():
            heappush(self._batches[t], TypedCohort(begun_to + work_to, self._started, begun_to, now_s, of_size))
            self._started += 1
            # an empty line holds no work, whatever rounding says
            self._waiting_to = self._waiting_to - len(of_size) * work_to if self.queued_jobs else 0.0
        taken = len(jobs) * self._gpus_per_job
        self.busy_of[t] += taken
        self.busy_gpus += taken
        self._look_ahead()
        return taken

    def look(self, now_s: float) -> None:
        """When the next of who waits is due, as `start` of the class without types has it."""
        super().start(now_s, 0.0)

    def count(self, now_s: float) -> None:
        """Put the work done until now, beyond GPU time at the class's own speed, into `trim_to`."""
        seconds = now_s - self._counted_s
        if seconds > 0.0:
            each = self._gpus_per_job
            for busy, speed in zip(self.busy_of, self._speed_to_per_s, strict=True):
                if busy and speed != self._to_per_s:
                    self.trim_to += busy / each * (speed - self._to_per_s) * seconds
            self._counted_s = now_s

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> list[JobState]:
        """The jobs inside: those running in the order of their starts, with the type as `group` and the work done by
        `_counted_s` as `done_to`, then the line."""
        running = sorted(((batch.number, t, batch) for t, heap in enumerate(self._batches) for batch in heap),
                         key=lambda of: of[0])
        out = [JobState(job, t, batch.start_s, done_to=self._clock_to(t, self._counted_s) - batch.begun_to)
               for _, t, batch in running for job in batch.jobs]
        return out + [JobState(job, -1) for job in self._who_waits()]

    def restore(self, kept: list[JobState], now_s: float, waiting_to: float) -> list[Any]:
        """Into an empty queue, the jobs that `keep` gave; no event is left to the caller."""
        super().restore([one for one in kept if one.group < 0], now_s, waiting_to)
        for one in (one for one in kept if one.group >= 0):
            t = one.group
            begun_to = self._clock_to(t, now_s) - one.done_to
            heappush(self._batches[t], TypedCohort(begun_to + one.job.work_to, self._started, begun_to, one.start_s,
                                                   [one.job]))
            self._started += 1
            self.busy_of[t] += self._gpus_per_job
        self.busy_gpus, self._counted_s = sum(self.busy_of), now_s
        self._look_ahead()
        return []

    # --- how things stand ---------------------------------------------------------------------------------------

    def uses_of(self, t: int) -> list[tuple[int, float]]:
        """(GPUs, share of the class's power above idle that each uses) on a type."""
        return [(self.busy_of[t], 1.0)]

    def speeds(self, works: Sequence[WorkOnType], limits_kw: Sequence[float]) -> list[float]:
        """What `set_speeds` takes, under these limits."""
        return [work.speed(limit) for work, limit in zip(works, limits_kw, strict=True)]

    def levels(self, now_s: float) -> Levels:
        """As of the class without types."""
        left_to = math.fsum([len(batch.jobs) * (batch.ends_to - self._clock_to(t, now_s))
                             for t, heap in enumerate(self._batches) for batch in heap])
        return (self.queued_jobs, 0, self.busy_gpus // self._gpus_per_job, self._waiting_to + left_to, 0.0,
                self.busy_gpus, self.granted_gpus, 0, 0)

    def unfinished(self, now_s: float) -> Iterator[Row]:
        """Rows of the jobs inside: those running, then those waiting."""
        for t, heap in enumerate(self._batches):
            for batch in sorted(heap, key=lambda b: b.number):
                for job in batch.jobs:
                    yield row_of(job, self.site, batch.start_s, math.nan, self._clock_to(t, now_s) - batch.begun_to,
                                 UNFINISHED)
        for job in self._who_waits():
            yield row_of(job, self.site, math.nan, math.nan, 0.0, UNFINISHED)

    def open_runs(self, now_s: float) -> Iterator[tuple]:
        """GPUs that its jobs hold now, since when, as runs that end now."""
        for t, heap in enumerate(self._batches):
            for batch in heap:
                for job in batch.jobs:
                    if now_s > batch.start_s:
                        yield job.id, self.site, batch.start_s, now_s, float(self._gpus_per_job), self._types[t]

    # --- inside -------------------------------------------------------------------------------------------------

    def _clock_to(self, t: int, now_s: float) -> float:
        return self._worked_to[t] + self._speed_to_per_s[t] * (now_s - self._since_s[t])

    def _ends_s(self, t: int, batch: TypedCohort) -> float:
        return nearest_tick(self._since_s[t] + max(batch.ends_to - self._worked_to[t], 0.0) / self._speed_to_per_s[t])

    def _look_ahead(self) -> None:
        self.end_s = min([self._ends_s(t, heap[0]) for t, heap in enumerate(self._batches) if heap], default=math.inf)
