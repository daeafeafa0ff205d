"""Training at a site: one pool per class on whole blocks of GPUs (14)-(17).

A job may be deferred to a release time; released, it uses 1 to `max_blocks` blocks at once, at the speed s(k) of its
class; blocks can be taken away and given back at any time and progress is kept; what is not done at the deadline is
dropped. The pool holds state; the facility passes in the time and the number of blocks that may be held.

Blocks go to the jobs in one of two orders. `edf`: earliest deadline first, which misses nothing that can be met where
one job may use all blocks at linear speed-up. `llf`: least laxity first, the laxity being how long a job could still
wait if it then had `max_blocks` blocks to its end; it is looked at when jobs or held blocks change and when the
laxity of a job below `max_blocks` runs out, not in between, so that equal jobs do not swap blocks all the time.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator
from typing import ClassVar

from cosim.simulators.aidc.engine.interval import Levels, Tally
from cosim.simulators.aidc.engine.jobs import (
    DROPPED,
    FINISHED,
    UNFINISHED,
    Job,
    Row,
    Run,
    nearest_tick,
    row_of,
    tick_after,
)
from cosim.simulators.aidc.engine.site_state import JobState
from cosim.simulators.aidc.engine.slack import Claim
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.fleet import JobClass
from cosim.units import HOUR_S, ROUNDING

URGENT_S = HOUR_S
LATE_S = 1e-3
"""A job that makes it to the millisecond is not late: ends are rounded to the clock."""


class TrainingJob:
    """A training job and how far it is.

    due_s, ready_s  deadline and release on the facility's clock
    blocks          blocks it holds since `since_s`
    speed_to_per_s  at which they work
    done_to         work done until `since_s`
    from_s          it works from then on: `since_s`, or later if it has to restart first
    start_s, end_s  first time it held blocks (NaN: never yet), and when it will be done at this speed
    """

    __slots__ = ("blocks", "done_to", "due_s", "end_s", "from_s", "job", "ready_s", "since_s",
                 "speed_to_per_s", "start_s")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.due_s = nearest_tick(job.deadline_s)
        self.ready_s = tick_after(job.release_s)
        self.blocks = 0
        self.speed_to_per_s = 0.0
        self.done_to = 0.0
        self.since_s = self.from_s = job.submit_s
        self.start_s = math.nan
        self.end_s = math.inf

    def by_deadline(self) -> tuple[float, int]:
        """Sorting key: earliest deadline first, then id."""
        return self.job.deadline_s, self.job.id

    def by_release(self) -> tuple[float, int]:
        """Sorting key: earliest release first, then id."""
        return self.ready_s, self.job.id

    def laxity_s(self, now_s: float, top_speed_to_per_s: float, restart_s: float = 0.0) -> float:
        """How long it could wait from now on, and be in time at top speed; below 0 if it is late already. One that has
        begun and holds no block takes `restart_s` before it works. Minus infinity at no speed."""
        if not top_speed_to_per_s:
            return -math.inf
        laxity_s = self.due_s - now_s - (self.job.work_to - self.done_at(now_s)) / top_speed_to_per_s
        return laxity_s if self.blocks or math.isnan(self.start_s) else laxity_s - restart_s

    def run(self, blocks: int, speed_to_per_s: float, now_s: float, restart_s: float = 0.0) -> None:
        """Hold `blocks` blocks from now on, which together do `speed_to_per_s`; if it had begun and held none, work
        starts `restart_s` from now."""
        self.done_to = self.done_at(now_s)
        if self.blocks and blocks:
            self.from_s = max(self.from_s, now_s)
        else:
            self.from_s = now_s if math.isnan(self.start_s) else nearest_tick(now_s + restart_s)
        self.since_s, self.blocks, self.speed_to_per_s, self.end_s = now_s, blocks, speed_to_per_s, math.inf
        if blocks:
            if math.isnan(self.start_s):
                self.start_s = now_s
            left_s = max(self.job.work_to - self.done_to, 0.0) / speed_to_per_s
            self.end_s = nearest_tick(self.from_s + left_s)

    def done_at(self, now_s: float) -> float:
        """Work done until now, TO."""
        return self.done_to + self.speed_to_per_s * (now_s - self.from_s) if now_s > self.from_s else self.done_to

    def fail(self, now_s: float, cycle_s: float) -> float:
        """Lose its blocks, and the work since the last checkpoint, which is given back, TO. One was written when its
        blocks last changed, and one every `cycle_s` since it works on them (0: all the time)."""
        done_to, cycles = self.done_at(now_s), math.floor((now_s - self.from_s) / cycle_s + ROUNDING) if cycle_s else 0
        if cycle_s:
            self.done_to += self.speed_to_per_s * cycle_s * max(cycles, 0)
        else:
            self.done_to = done_to
        self.since_s = self.from_s = now_s
        self.blocks, self.speed_to_per_s, self.end_s = 0, 0.0, math.inf
        return max(done_to - self.done_to, 0.0)


class TrainingPool(Tally):
    """Deferred, waiting and running jobs of one training class.

    granted_gpus  GPUs the class may use, whole blocks; set by the facility
    held_blocks   blocks it holds; set by `hold`, handed to its jobs by `allot`
    busy_gpus     GPUs of these blocks
    next_s        when something happens by itself: a job ends, is due or is released (infinite: never)
    claims        deadline, GPU time left and latest start of every job inside, as of the last `levels`
    rows          rows of the jobs that leave are put there; None: nowhere, and no runs either

    site_gpus, GPUs of the whole site, limit how many blocks a job can ever use. The `Tally` is complete after `count`.
    """

    JOB: ClassVar[type[TrainingJob]] = TrainingJob

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None, site_gpus: int) -> None:
        super().__init__()
        self.name, self.site, self.rows = name, site, rows
        self.gpus_per_block = job_class.gpus_per_block
        self.granted_gpus = 0
        self.held_blocks = 0
        self.busy_gpus = 0
        self.next_s = math.inf
        self._max_blocks = job_class.max_blocks
        block_to_per_s = gpu_throughput_to_per_s(job_class.gpus_per_block, job_class.to_per_gpu_min)
        self._speed_to_per_s = [job_class.speed_to_per_s(k) for k in range(self._max_blocks + 1)]
        self._most, self._top_to_per_s = job_class.most_blocks(site_gpus), job_class.top_to_per_s(site_gpus)
        self._gpu_s_per_to = self.gpus_per_block / self._speed_to_per_s[1]
        self.claims: list[Claim] = []
        self._restart_s = job_class.restart_s
        self._cycle_s = (job_class.checkpoint_interval_s or 0.0) + job_class.checkpoint_cost_s
        self._lost_to_per_s = [k * block_to_per_s - speed for k, speed in enumerate(self._speed_to_per_s)]
        self._loses = any(self._lost_to_per_s) or self._restart_s > 0.0
        self._counted_s = -math.inf  # what the speed-up loses is counted up to here
        self._by_laxity = job_class.order == "llf"
        self._look_s = math.inf  # when a laxity runs out
        self._deferred: list[TrainingJob] = []  # by release
        self._active: list[TrainingJob] = []  # released, by deadline
        self._allotted = 0  # blocks its jobs hold
        self._stale = False  # who is active changed since the blocks were allotted

    # --- what happens -------------------------------------------------------------------------------------------

    def put(self, jobs: list[Job], now_s: float) -> None:
        """Jobs come in; all count as deferred until `release`, which the facility calls for what is due now."""
        for job in jobs:
            insort(self._deferred, self.JOB(job), key=TrainingJob.by_release)
        self.next_s, self._stale = now_s, True

    def finish(self, now_s: float) -> None:
        """Take out the jobs whose work is done now."""
        self.count(now_s)
        done = [job for job in self._active if job.end_s <= now_s]
        self.trim_to += math.fsum(job.job.work_to - job.done_at(now_s) for job in done)
        for job in done:
            self._take_out(self._active, job, now_s, job.job.work_to, FINISHED)
        self.finished += len(done)
        self.finished_to += math.fsum([job.job.work_to for job in done])

    def expire(self, now_s: float) -> None:
        """Drop the jobs, active or deferred, whose deadline is now or past; what was done of them is lost."""
        late = [(jobs, job) for jobs in (self._active, self._deferred) for job in jobs if job.due_s <= now_s]
        for jobs, job in late:
            done_to = job.done_at(now_s)
            self.missed_to += done_to
            self._take_out(jobs, job, now_s, done_to, DROPPED)
        self.dropped += len(late)

    def release(self, now_s: float) -> None:
        """Deferred jobs whose release is now or past become active."""
        while self._deferred and self._deferred[0].ready_s <= now_s:
            insort(self._active, self._deferred.pop(0), key=TrainingJob.by_deadline)
            self._stale = True

    def strike(self, low: int, high: int, now_s: float) -> None:
        """Jobs that hold one of the class's GPUs low..high-1, counted through its jobs by deadline, lose all they
        hold and go back to their last checkpoint."""
        self.count(now_s)
        first = 0
        for job in self._active:
            gpus = job.blocks * self.gpus_per_block
            if gpus and first < high and first + gpus > low:
                self._note_run(job, now_s)
                self.hold(self.held_blocks - job.blocks)
                self._allotted -= job.blocks
                self.failed_to += job.fail(now_s, self._cycle_s)
                self._stale = True
            first += gpus

    def hold(self, blocks: int) -> None:
        """Hold so many blocks from now on."""
        self.held_blocks = blocks
        self.busy_gpus = blocks * self.gpus_per_block

    def allot(self, now_s: float) -> None:
        """Hand the held blocks to the active jobs in their order, up to `max_blocks` each."""
        if not self._stale and self._allotted == self.held_blocks and now_s < self._look_s:
            return
        self.count(now_s)
        left = self.held_blocks
        for job in self._in_order(now_s):
            blocks = min(self._max_blocks, left)
            left -= blocks
            if blocks != job.blocks:
                self._note_run(job, now_s)
                job.run(blocks, self._speed_to_per_s[blocks], now_s, self._restart_s)
        self._allotted, self._stale = self.held_blocks, False
        self._look_s = self._next_look_s(now_s) if self._by_laxity else math.inf
        self._look_ahead()

    def count(self, now_s: float) -> None:
        """Put what a speed-up below linear, checkpoints and restarts lost until now into `trim_to`."""
        if self._loses and now_s > self._counted_s:
            lost_to_per_s = math.fsum(self._lost_to_per_s[job.blocks] for job in self._active)
            if lost_to_per_s:
                self.trim_to -= lost_to_per_s * (now_s - self._counted_s)
            if self._restart_s:
                self.trim_to -= math.fsum(job.speed_to_per_s * (min(now_s, job.from_s) - self._counted_s)
                                          for job in self._active if job.blocks and job.from_s > self._counted_s)
            self._counted_s = now_s

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> list[JobState]:
        """The jobs inside: released ones by deadline, then deferred ones by release."""
        return [
            JobState(j.job, group, j.start_s, j.end_s, j.since_s, j.done_to, j.blocks, j.from_s)
            for group, jobs in ((0, self._active), (-1, self._deferred)) for j in jobs
        ]

    def restore(self, kept: list[JobState], now_s: float, look_s: float) -> None:
        """Into an empty pool, the jobs that `keep` gave, with the blocks they hold."""
        for one in kept:
            job = self.JOB(one.job)
            job.blocks, job.speed_to_per_s = one.blocks, self._speed_to_per_s[one.blocks]
            job.start_s, job.end_s, job.since_s, job.done_to = one.start_s, one.end_s, one.since_s, one.done_to
            job.from_s = one.from_s
            (self._deferred if one.group < 0 else self._active).append(job)
        self._allotted = sum(job.blocks for job in self._active)
        self.hold(self._allotted)
        self._counted_s, self._look_s = now_s, look_s
        self._look_ahead()

    @property
    def look_s(self) -> float:
        """When a laxity runs out, and the order is looked at again."""
        return self._look_s

    # --- how things stand ---------------------------------------------------------------------------------------

    @property
    def wanted_blocks(self) -> int:
        """Blocks it has a use for within its grant."""
        return min(self.granted_gpus // self.gpus_per_block, len(self._active) * self._max_blocks)

    def levels(self, now_s: float) -> Levels:
        """The fields of `State` for the class.

        Late are jobs inside that miss their deadline even with the most blocks that they can use here from now (or from
        their release) to their end, urgent those that still make it but can wait less than `URGENT_S` for that. In a
        claim, the latest start of one that is late by its release is as long ago as it is late.
        """
        active, deferred, top = self._active, self._deferred, self._top_to_per_s
        if not active and not deferred:
            self.claims = []
            return 0, 0, 0, 0.0, 0.0, self.busy_gpus, self.granted_gpus, 0, 0
        running = self._running_jobs()
        left_to = [job.job.work_to - job.done_at(now_s) for job in active]
        if top and not self._restart_s:
            slack_s = [job.due_s - now_s - left / top for job, left in zip(active, left_to, strict=True)]
        else:
            slack_s = [job.laxity_s(now_s, top, self._restart_s) for job in active]
        per_to = self._gpu_s_per_to
        self.claims = [(job.due_s - now_s, left * per_to, spare_s)
                       for job, left, spare_s in zip(active, left_to, slack_s, strict=True)]
        for job in deferred:
            laxity_s = job.laxity_s(now_s, top)
            slack_s.append(laxity_s - max(job.ready_s - now_s, 0.0))
            self.claims.append((job.due_s - now_s, job.job.work_to * per_to,
                                laxity_s if slack_s[-1] >= 0.0 else slack_s[-1]))
        late = sum([s < -LATE_S for s in slack_s])
        return (len(active) - running, len(deferred), running, math.fsum(left_to),
                math.fsum([job.job.work_to for job in deferred]), self.busy_gpus, self.granted_gpus,
                late, sum([s < URGENT_S for s in slack_s]) - late)

    def unfinished(self, now_s: float) -> Iterator[Row]:
        """Rows of the jobs inside: the active ones by deadline, then the deferred by release."""
        for job in (*self._active, *self._deferred):
            done_to = job.done_at(now_s)
            yield row_of(job.job, self.site, job.start_s, math.nan, done_to, UNFINISHED)

    def open_runs(self, now_s: float) -> Iterator[Run]:
        """Runs of the jobs that hold blocks now, as if they ended now."""
        for job in self._active:
            if job.blocks and now_s > job.since_s:
                yield job.job.id, self.site, job.since_s, now_s, float(job.blocks * self.gpus_per_block)

    # --- inside -------------------------------------------------------------------------------------------------

    def _running_jobs(self) -> int:
        """Jobs that hold blocks: all but perhaps the last of them hold `max_blocks`."""
        return -(-self._allotted // self._max_blocks)

    def _note_run(self, job: TrainingJob, now_s: float) -> None:
        if self.rows is not None and job.blocks and now_s > job.since_s:
            self.runs.append((job.job.id, self.site, job.since_s, now_s, float(job.blocks * self.gpus_per_block)))

    def _in_order(self, now_s: float) -> list[TrainingJob]:
        """The active jobs, those first that get blocks first."""
        if not self._by_laxity:
            return self._active
        top, restart_s = self._top_to_per_s, self._restart_s
        return sorted(self._active, key=lambda job: (job.laxity_s(now_s, top, restart_s), *job.by_deadline()))

    def _next_look_s(self, now_s: float) -> float:
        """When the laxity of a job with fewer than `max_blocks` blocks runs out; a job too late already has none."""
        top, restart_s = self._top_to_per_s, self._restart_s
        if not top:
            return math.inf
        waits = [nearest_tick(now_s + j.laxity_s(now_s, top, restart_s)) for j in self._active if j.blocks < self._most]
        return min((t for t in waits if t > now_s), default=math.inf)

    def _look_ahead(self) -> None:
        """When something happens next by itself."""
        times_s = [self._look_s, *[job.end_s for job in self._active], *[job.due_s for job in self._active],
                   *[job.due_s for job in self._deferred]]
        if self._deferred:
            times_s.append(self._deferred[0].ready_s)
        self.next_s = min(times_s)

    def _take_out(self, jobs: list[TrainingJob], job: TrainingJob, now_s: float, done_to: float, outcome: str) -> None:
        """A job leaves, and its blocks are no longer held."""
        jobs.remove(job)
        self._note_run(job, now_s)
        self.hold(self.held_blocks - job.blocks)
        self._allotted -= job.blocks
        self._stale = True
        if self.rows is not None:
            self.rows.append(row_of(job.job, self.site, job.start_s, now_s, done_to, outcome))
