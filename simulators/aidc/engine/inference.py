"""Inference at a site: one first-in, first-out queue per class (18) with waiting-time deadlines.

The queue holds state; the facility passes in the time and the number of free GPUs.

Rows: E18, U13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush
from operator import le
from typing import cast

from cosim.simulators.aidc.engine.events import Cohort
from cosim.simulators.aidc.engine.interval import Levels, Tally
from cosim.simulators.aidc.engine.jobs import DROPPED, FINISHED, TICKS_PER_S, UNFINISHED, Job, Row, nearest_tick, row_of
from cosim.simulators.aidc.engine.site_state import JobState
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.fleet import JobClass


class InferenceQueue(Tally):
    """Waiting and running jobs of one inference class.

    A job holds `gpus_per_block` GPUs from start to finish; nothing stops it, neither a smaller grant nor its
    deadline, which is that of its start.

    granted_gpus  GPUs the class may use; set by the facility
    queued_jobs   jobs that wait
    busy_gpus     GPUs its running jobs hold; above `granted_gpus` for a while after the grant shrank
    next_s        no waiting job is due before this time (infinite: none waits)
    rows          rows of the jobs that leave are put there; None: nowhere

    Of the `Tally`, missed_to stays 0, as jobs that began miss no deadline, and runs are those that failures ended.
    """

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None = None) -> None:
        super().__init__()
        self.name, self.site, self.rows = name, site, rows
        self.granted_gpus = 0
        self.busy_gpus = 0
        self.next_s = math.inf
        self._gpus_per_job = job_class.gpus_per_block
        self._to_per_s = gpu_throughput_to_per_s(job_class.gpus_per_block, job_class.to_per_gpu_min)
        self.queued_jobs = 0
        self._line: list[Job | None] = []  # from `_head` on those who wait; None: was dropped out of order
        self._head = 0
        self._first_ticket = 0  # of the line's first place; a job's ticket never changes
        self._gaps = False  # whether the line has a None
        self._waiting_to = 0.0
        self._running: dict[Cohort, None] = {}  # in the order of their starts
        self._ordered = True  # deadlines in the line rise from head to tail, so that no other order is kept
        self._tail_s = -math.inf  # no deadline in an ordered line is later
        self._deadlines: list[tuple[float, int]] = []  # else a heap of (deadline, ticket), served ones too
        self._looked = False  # whether `next_s` is the least over all that wait
        self._indexed = 0  # tickets below this one are in the heap, or were served before they got there

    # --- what happens -------------------------------------------------------------------------------------------

    def put(self, jobs: list[Job], now_s: float) -> None:
        """Jobs join the end of the line, in their order."""
        line, head = self._line, self._head
        if 2 * head > len(line):  # forget who left; in the long run this costs as much as joining
            del line[:head]
            self._first_ticket += head
            self._head = 0
        deadlines = [job.deadline_s for job in jobs]
        self._note_order(deadlines)
        line += jobs
        self.queued_jobs += len(jobs)
        self._looked = False
        self._waiting_to += math.fsum([job.work_to for job in jobs])
        if (deadlines[0] if self._ordered else min(deadlines)) <= now_s:
            self.next_s = now_s
            if not self._ordered:
                self._index_newcomers()

    def finish(self, cohort: Cohort) -> None:
        """A cohort's jobs are done and give their GPUs back."""
        del self._running[cohort]
        jobs, start_s, end_s, work_to = cohort.jobs, cohort.start_s, cohort.end_s, cohort.work_to
        number = len(jobs)
        self.finished += number
        self.finished_to += number * work_to
        self.busy_gpus -= cohort.gpus
        self.trim_to += number * (work_to - self._to_per_s * (end_s - start_s))
        if self.rows is not None:
            site, each = self.site, float(self._gpus_per_job)
            self.rows += [  # `row_of`, without a call for each job of a cohort
                (id_, name, site, arrival_s, submit_s, release_s, start_s, end_s, deadline_s, own_to, work_to, each,
                 FINISHED)
                for id_, name, arrival_s, own_to, deadline_s, release_s, submit_s in jobs]

    def relay(self, cohort: Cohort, now_s: float) -> Cohort | None:
        """`finish` and `start` in one, where one job ends and the next in line takes its GPUs: what happens most at a
        busy site, made short. None, and nothing is done, where it is not as simple."""
        gpus = cohort.gpus
        if (self.queued_jobs < 2 or not self._looked or self._gaps or gpus != self._gpus_per_job
                or not 0 <= self.granted_gpus - self.busy_gpus < gpus):
            return None
        del self._running[cohort]
        start_s, end_s, work_to = cohort.start_s, cohort.end_s, cohort.work_to
        self.finished += 1
        self.finished_to += work_to
        self.trim_to += work_to - self._to_per_s * (end_s - start_s)
        if self.rows is not None:
            self.rows.append(row_of(cohort.jobs[0], self.site, start_s, end_s, work_to, FINISHED, float(gpus)))
        job = self._line[self._head]
        assert job is not None  # there are no gaps
        self._head += 1
        self.queued_jobs -= 1
        work_to = job.work_to
        self._waiting_to -= work_to
        end_s = round((now_s + work_to / self._to_per_s) * TICKS_PER_S) / TICKS_PER_S  # nearest_tick, without the call
        following = Cohort(self, [job], gpus, work_to, now_s, end_s)
        self._running[following] = None
        return following

    def expire(self, now_s: float) -> None:
        """Drop the waiting jobs whose deadline is now or past, earliest deadline first."""
        line, deadlines = self._line, self._deadlines
        if self._ordered:
            self.next_s = math.inf
            while self.queued_jobs:
                job = line[self._head]
                assert job is not None  # an ordered line has no gaps
                if (due_s := nearest_tick(job.deadline_s)) > now_s:
                    self.next_s = due_s
                    break
                self._head += 1
                self._drop(job, now_s)
            return
        while deadlines and (deadlines[0][0] <= now_s or not self._waits(deadlines[0][1])):
            ticket = heappop(deadlines)[1]
            if self._waits(ticket):
                place = ticket - self._first_ticket
                job, line[place] = line[place], None
                self._gaps = True
                assert job is not None  # it waits
                self._drop(job, now_s)
        if not self.queued_jobs:
            self._forget_line()
        while self._gaps and line[self._head] is None:
            self._head += 1
        self.next_s = deadlines[0][0] if deadlines else math.inf

    def start(self, now_s: float, free_gpus: float) -> list[Cohort]:
        """Start jobs from the head of the line, as the grant and the site's free GPUs allow."""
        places = int(min(self.granted_gpus - self.busy_gpus, free_gpus) // self._gpus_per_job)
        jobs = self._take(places)
        if not self.queued_jobs:
            self._forget_line()
        elif not self._ordered:
            self._index_newcomers()
        elif self.next_s == math.inf:
            head = self._line[self._head]
            assert head is not None  # an ordered line has no gaps
            self.next_s = nearest_tick(head.deadline_s)
        self._looked = True
        sizes = [job.work_to for job in jobs]
        if sizes and sizes.count(sizes[0]) == len(sizes):
            return [self._run(jobs, sizes[0], now_s)]
        by_size: dict[float, list[Job]] = {size: [] for size in sizes}
        for job, size in zip(jobs, sizes, strict=True):
            by_size[size].append(job)
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

    def keep(self) -> list[JobState]:
        """The jobs inside: cohort by cohort in the order of their starts, then the line."""
        running = [JobState(job, k, cohort.start_s, cohort.end_s) for k, cohort in enumerate(self._running)
                   for job in cohort.jobs]
        return running + [JobState(job, -1) for job in self._who_waits()]

    def restore(self, kept: list[JobState], now_s: float, waiting_to: float) -> list[Cohort]:
        """Into an empty queue, the jobs that `keep` gave; the cohorts that run, whose ends are the caller's to set."""
        groups: dict[int, list[JobState]] = {}
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
            cohort = Cohort(self, jobs, len(jobs) * self._gpus_per_job, jobs[0].work_to, ones[0].start_s,
                            ones[0].end_s)
            self._running[cohort] = None
            self.busy_gpus += cohort.gpus
        return list(self._running)

    @property
    def waiting_to(self) -> float:
        """Work of the line, TO."""
        return self._waiting_to

    # --- how things stand ---------------------------------------------------------------------------------------

    def levels(self, now_s: float) -> Levels:
        """The fields of `State` for the class; inference is not deferred, and has no deadline for its end."""
        to_per_s = self._to_per_s
        left_to = math.fsum([
            len(cohort.jobs) * (cohort.work_to - to_per_s * (now_s - cohort.start_s)) for cohort in self._running
        ])
        return (self.queued_jobs, 0, self.busy_gpus // self._gpus_per_job, self._waiting_to + left_to, 0.0,
                self.busy_gpus, self.granted_gpus, 0, 0)

    def unfinished(self, now_s: float) -> Iterator[Row]:
        """Rows of the jobs inside: those running, then those waiting."""
        for cohort in self._running:
            done_to = self._to_per_s * (now_s - cohort.start_s)
            for job in cohort.jobs:
                yield row_of(job, self.site, cohort.start_s, math.nan, done_to, UNFINISHED, float(self._gpus_per_job))
        for job in self._who_waits():
            yield row_of(job, self.site, math.nan, math.nan, 0.0, UNFINISHED)

    # --- inside -------------------------------------------------------------------------------------------------

    def _run(self, jobs: list[Job], work_to: float, now_s: float) -> Cohort:
        end_s = round((now_s + work_to / self._to_per_s) * TICKS_PER_S) / TICKS_PER_S  # nearest_tick, without the call
        number = len(jobs)
        gpus = number * self._gpus_per_job
        cohort = Cohort(self, jobs, gpus, work_to, now_s, end_s)
        self._running[cohort] = None
        self.busy_gpus += gpus
        # an empty line holds no work, whatever rounding says
        self._waiting_to = self._waiting_to - number * work_to if self.queued_jobs else 0.0
        return cohort

    def _take(self, places: int) -> list[Job]:
        """The first so many of the line, or all of it."""
        number, head = max(min(places, self.queued_jobs), 0), self._head
        if self._gaps:
            jobs: list[Job] = []
            while len(jobs) < number:
                if (job := self._line[head]) is not None:
                    jobs.append(job)
                head += 1
            self._head = head
        else:
            self._head = head + number
            jobs = cast(list[Job], self._line[head:head + number])
        self.queued_jobs -= number
        return jobs

    def _forget_line(self) -> None:
        """Nobody waits."""
        self._first_ticket += len(self._line)
        self._line.clear()
        self._head, self._gaps = 0, False
        self._ordered, self._tail_s, self.next_s, self._indexed = True, -math.inf, math.inf, self._first_ticket
        self._deadlines.clear()

    def _waits(self, ticket: int) -> bool:
        place = ticket - self._first_ticket
        return place >= self._head and self._line[place] is not None

    def _who_waits(self) -> list[Job]:
        return [job for job in self._line[self._head:] if job is not None]

    def _drop(self, job: Job, now_s: float) -> None:
        """A job that waited leaves."""
        self.dropped += 1
        self.queued_jobs -= 1
        self._waiting_to = self._waiting_to - job.work_to if self.queued_jobs else 0.0
        if self.rows is not None:
            self.rows.append(row_of(job, self.site, math.nan, now_s, 0.0, DROPPED))

    def _note_order(self, deadlines: list[float]) -> None:
        """Whether deadlines still rise along the line once these have joined it."""
        if self._ordered:
            self._ordered = deadlines[0] >= self._tail_s and all(map(le, deadlines, deadlines[1:]))
            self._tail_s = deadlines[-1]
            if not self._ordered:
                self._indexed = self._first_ticket + self._head

    def _index_newcomers(self) -> None:
        """Put the deadlines of jobs that came since the last look, and still wait, into the heap."""
        after = self._first_ticket + len(self._line)
        if not self._ordered and self._indexed < after:
            first = max(self._indexed, self._first_ticket + self._head)
            for ticket, job in enumerate(self._line[first - self._first_ticket:], first):
                if job is not None:
                    heappush(self._deadlines, (nearest_tick(job.deadline_s), ticket))
            self.next_s = self._deadlines[0][0]
            self._indexed = after
