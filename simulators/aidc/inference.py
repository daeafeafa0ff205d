"""Inference at a site: one first-in, first-out queue per class (18) with waiting-time deadlines (U13).

The queue holds state and answers questions about it; what time it is, and how many GPUs are free, the facility says.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from simulators.aidc.equations import gpu_throughput_to_per_s
from simulators.aidc.jobs import DROPPED, FINISHED, UNFINISHED, Job, Row, nearest_tick, row_of
from simulators.fleet import JobClass


@dataclass(slots=True, eq=False)
class Cohort:
    """Jobs of one class and size that started at one instant, and so end at one."""

    queue: InferenceQueue
    jobs: list[Job]
    work_to: float
    start_s: float
    end_s: float


class InferenceQueue:
    """Waiting and running jobs of one inference class.

    A job holds `gpus_per_block` GPUs from start to finish; nothing stops it, neither a smaller grant nor its
    deadline, which is that of its start.

    granted_gpus  GPUs the class may use; set by the facility
    busy_gpus     GPUs its running jobs hold; above `granted_gpus` for a while after the grant shrank
    next_s        no waiting job is due before this time (infinite: none waits)
    trim_to       work of finished jobs beyond their GPU time: what rounding their end to the clock leaves over
    """

    def __init__(self, name: str, site: str, job_class: JobClass) -> None:
        self.name, self.site = name, site
        self.granted_gpus = 0
        self.busy_gpus = 0
        self.next_s = math.inf
        self.trim_to = 0.0
        self._gpus_per_job = job_class.gpus_per_block
        self._to_per_s = gpu_throughput_to_per_s(job_class.gpus_per_block, job_class.to_per_gpu_min)
        self._waiting: OrderedDict[int, Job] = OrderedDict()  # ticket -> job; the ticket is the place in the line
        self._waiting_to = 0.0
        self._deadlines: list[tuple[float, int]] = []  # heap of (deadline, ticket); a served ticket stays until seen
        self._running: dict[Cohort, None] = {}  # in the order of their starts
        self._running_jobs = 0
        self._tickets = 0
        self._indexed = 0  # tickets below this one are in the heap, or were served before they got there

    # --- what happens -------------------------------------------------------------------------------------------

    def put(self, jobs: list[Job], now_s: float) -> None:
        """Jobs join the end of the line, in their order."""
        self._waiting.update(enumerate(jobs, self._tickets))
        self._tickets += len(jobs)
        self._waiting_to += math.fsum([job.work_to for job in jobs])
        if min([job.deadline_s for job in jobs]) <= now_s:
            self._index_newcomers()

    def finish(self, cohort: Cohort) -> list[Row]:
        """A cohort's jobs are done and give their GPUs back."""
        del self._running[cohort]
        number, start_s, end_s, work_to = len(cohort.jobs), cohort.start_s, cohort.end_s, cohort.work_to
        self._running_jobs -= number
        self.busy_gpus -= number * self._gpus_per_job
        self.trim_to += number * (work_to - self._to_per_s * (end_s - start_s))
        return [row_of(job, self.site, start_s, end_s, work_to, FINISHED) for job in cohort.jobs]

    def expire(self, now_s: float) -> list[Row]:
        """Drop the waiting jobs whose deadline is now or past, earliest deadline first."""
        dropped, waiting, deadlines = [], self._waiting, self._deadlines
        while deadlines and (deadlines[0][0] <= now_s or deadlines[0][1] not in waiting):
            job = waiting.pop(heappop(deadlines)[1], None)
            if job is not None:
                dropped.append(row_of(job, self.site, math.nan, now_s, 0.0, DROPPED))
                self._leave(job.work_to)
        self.next_s = deadlines[0][0] if deadlines else math.inf
        return dropped

    def start(self, now_s: float, free_gpus: int) -> list[Cohort]:
        """Start jobs from the head of the line, as the grant and the site's free GPUs allow."""
        waiting = self._waiting
        places = min(self.granted_gpus - self.busy_gpus, free_gpus) // self._gpus_per_job
        if places >= len(waiting):
            jobs = list(waiting.values())
            waiting.clear()
        elif places < 1:
            jobs = []
        else:
            jobs = [waiting.popitem(last=False)[1] for _ in range(places)]
        if self._indexed < self._tickets:
            self._index_newcomers()
        if len(jobs) == 1:
            return [self._run(jobs, jobs[0].work_to, now_s)]
        by_size: dict[float, list[Job]] = {}
        for job in jobs:
            by_size.setdefault(job.work_to, []).append(job)
        return [self._run(jobs, work_to, now_s) for work_to, jobs in by_size.items()]

    # --- how things stand ---------------------------------------------------------------------------------------

    @property
    def queued_jobs(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def running_jobs(self) -> int:
        """Jobs that hold GPUs."""
        return self._running_jobs

    @property
    def deferred_jobs(self) -> int:
        """0: inference is not deferred."""
        return 0

    def deferred_to(self) -> float:
        """0: inference is not deferred."""
        return 0.0

    def pending_to(self, now_s: float) -> float:
        """Work still to be done on waiting and running jobs, TO."""
        return self._waiting_to + math.fsum(
            len(cohort.jobs) * (cohort.work_to - self._to_per_s * (now_s - cohort.start_s))
            for cohort in self._running
        )

    def unfinished(self, now_s: float) -> Iterator[Row]:
        """Rows of the jobs inside: those running, then those waiting."""
        for cohort in self._running:
            done_to = self._to_per_s * (now_s - cohort.start_s)
            for job in cohort.jobs:
                yield row_of(job, self.site, cohort.start_s, math.nan, done_to, UNFINISHED)
        for job in self._waiting.values():
            yield row_of(job, self.site, math.nan, math.nan, 0.0, UNFINISHED)

    # --- inside -------------------------------------------------------------------------------------------------

    def _run(self, jobs: list[Job], work_to: float, now_s: float) -> Cohort:
        cohort = Cohort(self, jobs, work_to, now_s, nearest_tick(now_s + work_to / self._to_per_s))
        self._running[cohort] = None
        self._running_jobs += len(jobs)
        self.busy_gpus += len(jobs) * self._gpus_per_job
        self._leave(len(jobs) * work_to)
        return cohort

    def _leave(self, work_to: float) -> None:
        """Take work out of the line's sum; an empty line holds none, whatever rounding says."""
        self._waiting_to = self._waiting_to - work_to if self._waiting else 0.0

    def _index_newcomers(self) -> None:
        """Put the deadlines of jobs that came since the last look, and still wait, into the heap."""
        if self._waiting:
            oldest = next(iter(self._waiting))
            for ticket in range(max(self._indexed, oldest), self._tickets):
                heappush(self._deadlines, (nearest_tick(self._waiting[ticket].deadline_s), ticket))
            self.next_s = self._deadlines[0][0]
        self._indexed = self._tickets
