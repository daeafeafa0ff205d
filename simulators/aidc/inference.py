"""Inference at a site: one first-in, first-out queue per class (18) with waiting-time deadlines (U13).

The queue holds state and answers questions about it; what time it is, and how many GPUs are free, the facility says.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from operator import le

from simulators.aidc.carried import Kept
from simulators.aidc.equations import gpu_throughput_to_per_s
from simulators.aidc.jobs import DROPPED, FINISHED, TICKS_PER_S, UNFINISHED, Job, Row, Run, nearest_tick, row_of
from simulators.fleet import JobClass


class Cohort:
    """Jobs of one class and size that started at one instant, and so end at one."""

    __slots__ = ("end_s", "gpus", "jobs", "queue", "start_s", "work_to")

    def __init__(self, queue: InferenceQueue, jobs: list[Job], gpus: int, start_s: float, end_s: float) -> None:
        self.queue, self.jobs, self.gpus, self.start_s, self.end_s = queue, jobs, gpus, start_s, end_s
        self.work_to = jobs[0].work_to


class InferenceQueue:
    """Waiting and running jobs of one inference class.

    A job holds `gpus_per_block` GPUs from start to finish; nothing stops it, neither a smaller grant nor its
    deadline, which is that of its start.

    granted_gpus  GPUs the class may use; set by the facility
    busy_gpus     GPUs its running jobs hold; above `granted_gpus` for a while after the grant shrank
    next_s        no waiting job is due before this time (infinite: none waits)
    trim_to       work of finished jobs beyond their GPU time: what rounding their end to the clock leaves over
    failed_to     work undone by failures of racks; missed_to: 0, for who has begun misses no deadline
    runs          GPUs that jobs held until a failure of a rack; the facility takes them away
    finished, dropped  jobs that left; their rows go to `rows` unless that is None. The facility resets them
    """

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None = None) -> None:
        self.name, self.site, self.rows = name, site, rows
        self.granted_gpus = 0
        self.busy_gpus = 0
        self.next_s = math.inf
        self.trim_to = self.missed_to = self.failed_to = 0.0
        self.runs: list[Run] = []
        self.finished = self.dropped = 0
        self._gpus_per_job = job_class.gpus_per_block
        self._to_per_s = gpu_throughput_to_per_s(job_class.gpus_per_block, job_class.to_per_gpu_min)
        self._waiting: OrderedDict[int, Job] = OrderedDict()  # ticket -> job; the ticket is the place in the line
        self._waiting_to = 0.0
        self._running: dict[Cohort, None] = {}  # in the order of their starts
        self._tickets = 0
        self._ordered = True  # deadlines in the line rise from head to tail, so that no other order is kept
        self._tail_s = -math.inf  # no deadline in an ordered line is later
        self._deadlines: list[tuple[float, int]] = []  # else a heap of (deadline, ticket), served ones too
        self._looked = False  # whether `next_s` knows of all that wait
        self._indexed = 0  # tickets below this one are in the heap, or were served before they got there

    # --- what happens -------------------------------------------------------------------------------------------

    def put(self, jobs: list[Job], now_s: float) -> None:
        """Jobs join the end of the line, in their order."""
        deadlines = [job.deadline_s for job in jobs]
        self._note_order(deadlines)
        self._waiting.update(enumerate(jobs, self._tickets))
        self._tickets += len(jobs)
        self._looked = False
        self._waiting_to += math.fsum([job.work_to for job in jobs])
        if min(deadlines) <= now_s:
            self.next_s = now_s
            if not self._ordered:
                self._index_newcomers()

    def finish(self, cohort: Cohort) -> None:
        """A cohort's jobs are done and give their GPUs back."""
        del self._running[cohort]
        jobs, start_s, end_s, work_to = cohort.jobs, cohort.start_s, cohort.end_s, cohort.work_to
        number = len(jobs)
        self.finished += number
        self.busy_gpus -= cohort.gpus
        self.trim_to += number * (work_to - self._to_per_s * (end_s - start_s))
        if self.rows is not None:
            site = self.site
            for job in jobs:
                self.rows.append(row_of(job, site, start_s, end_s, work_to, FINISHED))

    def expire(self, now_s: float) -> None:
        """Drop the waiting jobs whose deadline is now or past, earliest deadline first."""
        waiting, deadlines = self._waiting, self._deadlines
        if self._ordered:
            while waiting and (due_s := nearest_tick(next(iter(waiting.values())).deadline_s)) <= now_s:
                self._drop(waiting.popitem(last=False)[1], now_s)
            self.next_s = due_s if waiting else math.inf
            return
        while deadlines and (deadlines[0][0] <= now_s or deadlines[0][1] not in waiting):
            job = waiting.pop(heappop(deadlines)[1], None)
            if job is not None:
                self._drop(job, now_s)
        self.next_s = deadlines[0][0] if deadlines else math.inf

    def start(self, now_s: float, free_gpus: float) -> list[Cohort]:
        """Start jobs from the head of the line, as the grant and the site's free GPUs allow."""
        waiting = self._waiting
        places = min(self.granted_gpus - self.busy_gpus, free_gpus) // self._gpus_per_job
        if places == 1 and len(waiting) > 1 and self._looked:  # one ended: the usual case, made short
            job = waiting.popitem(last=False)[1]
            return [self._run([job], job.work_to, now_s)]
        if places >= len(waiting):
            jobs = list(waiting.values())
            waiting.clear()
        else:
            jobs = [waiting.popitem(last=False)[1] for _ in range(places)]
        if not waiting:
            self._ordered, self._tail_s, self.next_s, self._indexed = True, -math.inf, math.inf, self._tickets
            self._deadlines.clear()
        elif not self._ordered:
            self._index_newcomers()
        elif self.next_s == math.inf:
            self.next_s = nearest_tick(next(iter(waiting.values())).deadline_s)
        self._looked = True
        if len(jobs) == 1:
            return [self._run(jobs, jobs[0].work_to, now_s)]
        by_size: dict[float, list[Job]] = {}
        for job in jobs:
            by_size.setdefault(job.work_to, []).append(job)
        return [self._run(jobs, work_to, now_s) for work_to, jobs in by_size.items()]

    def strike(self, low: int, high: int, now_s: float) -> None:
        """Jobs that hold one of the class's GPUs low..high-1, counted through its jobs in the order of their starts,
        lose what was done and go to the end of the line, their deadline as it was."""
        first, each = 0, self._gpus_per_job
        struck: list[Job] = []
        for cohort in self._running:
            number = len(cohort.jobs)
            hit = slice(max((low - first) // each, 0), max(min(-((first - high) // each), number), 0))
            jobs = cohort.jobs[hit]
            if jobs:
                del cohort.jobs[hit]  # a cohort of none stays until its end comes, which then does nothing
                cohort.gpus -= len(jobs) * each
                self.busy_gpus -= len(jobs) * each
                self.failed_to += len(jobs) * self._to_per_s * (now_s - cohort.start_s)
                if self.rows is not None and now_s > cohort.start_s:
                    self.runs += [(job.id, self.site, cohort.start_s, now_s, float(each)) for job in jobs]
                struck += jobs
            first += number * each
        if struck:
            self.put(struck, now_s)

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> list[Kept]:
        """The jobs inside: cohort by cohort in the order of their starts, then the line."""
        running = [Kept(job, k, cohort.start_s, cohort.end_s) for k, cohort in enumerate(self._running)
                   for job in cohort.jobs]
        return running + [Kept(job, -1) for job in self._waiting.values()]

    def restore(self, kept: list[Kept], now_s: float, waiting_to: float) -> list[Cohort]:
        """Into an empty queue, the jobs that `keep` gave; the cohorts that run, whose ends are the caller's to set."""
        groups: dict[int, list[Kept]] = {}
        for one in kept:
            groups.setdefault(one.group, []).append(one)
        line = [one.job for one in groups.pop(-1, [])]
        if line:
            self.put(line, now_s)
            self._index_newcomers()
            self.next_s = min(nearest_tick(job.deadline_s) for job in line)
        self._waiting_to = waiting_to
        for ones in groups.values():
            jobs = [one.job for one in ones]
            cohort = Cohort(self, jobs, len(jobs) * self._gpus_per_job, ones[0].start_s, ones[0].end_s)
            self._running[cohort] = None
            self.busy_gpus += cohort.gpus
        return list(self._running)

    @property
    def waiting_to(self) -> float:
        """Work of the line, TO."""
        return self._waiting_to

    # --- how things stand ---------------------------------------------------------------------------------------

    @property
    def queued_jobs(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def running_jobs(self) -> int:
        """Jobs that hold GPUs."""
        return self.busy_gpus // self._gpus_per_job

    @property
    def deferred_jobs(self) -> int:
        """0: inference is not deferred."""
        return 0

    def by_laxity(self, now_s: float) -> tuple[int, int]:
        """(0, 0): inference has no deadline for its end."""
        return 0, 0

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
        end_s = round((now_s + work_to / self._to_per_s) * TICKS_PER_S) / TICKS_PER_S  # nearest_tick, without the call
        number = len(jobs)
        gpus = number * self._gpus_per_job
        cohort = Cohort(self, jobs, gpus, now_s, end_s)
        self._running[cohort] = None
        self.busy_gpus += gpus
        # an empty line holds no work, whatever rounding says
        self._waiting_to = self._waiting_to - number * work_to if self._waiting else 0.0
        return cohort

    def _drop(self, job: Job, now_s: float) -> None:
        """A job that waited leaves."""
        self.dropped += 1
        self._waiting_to = self._waiting_to - job.work_to if self._waiting else 0.0
        if self.rows is not None:
            self.rows.append(row_of(job, self.site, math.nan, now_s, 0.0, DROPPED))

    def _note_order(self, deadlines: list[float]) -> None:
        """Whether deadlines still rise along the line once these have joined it."""
        if self._ordered:
            self._ordered = deadlines[0] >= self._tail_s and all(map(le, deadlines, deadlines[1:]))
            self._tail_s = deadlines[-1]
            if not self._ordered:
                self._indexed = next(iter(self._waiting), self._tickets)

    def _index_newcomers(self) -> None:
        """Put the deadlines of jobs that came since the last look, and still wait, into the heap."""
        if not self._ordered and self._indexed < self._tickets:
            oldest = next(iter(self._waiting))
            for ticket in range(max(self._indexed, oldest), self._tickets):
                heappush(self._deadlines, (nearest_tick(self._waiting[ticket].deadline_s), ticket))
            self.next_s = self._deadlines[0][0]
            self._indexed = self._tickets
