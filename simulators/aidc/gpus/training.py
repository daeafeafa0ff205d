"""Training on GPUs of several types: each job's blocks are of one type, the gang that it runs on.

Who gets blocks first is the order of the class (`edf`, `llf`), as without types. A job that holds blocks stays on their
type as long as it gets one there; one that holds none goes to the type on which it is fastest on the blocks that are to
be had (by the site's rule `efficient`: where a unit of its work takes the least energy). One that finds no block on its
type any more may go on at another, after `restart_s`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cosim.simulators.aidc.engine.jobs import Job, Row, nearest_tick
from cosim.simulators.aidc.engine.site_state import JobState
from cosim.simulators.aidc.engine.training import TrainingJob, TrainingPool
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.aidc.gpus.numbers import WorkOnType
from cosim.simulators.fleet import JobClass, Site

NOWHERE = -1


class TypedJob(TrainingJob):
    """A training job and the type that its blocks are of."""

    __slots__ = ("type",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.type = NOWHERE

    def rerate(self, speed_to_per_s: float, now_s: float) -> None:
        """The blocks that it holds do so much from now on; work left is as it was, and so is a restart under way."""
        self.done_to = self.done_at(now_s)
        self.from_s, self.speed_to_per_s = max(self.from_s, now_s), speed_to_per_s
        self.end_s = nearest_tick(self.from_s + max(self.job.work_to - self.done_to, 0.0) / speed_to_per_s)


class Share(NamedTuple):
    """What a job is to hold."""

    job: TypedJob
    type: int
    blocks: int


class Offered(NamedTuple):
    """What a pool may take. blocks: on each type, those it holds among them; order: types, best first; most: blocks in
    sum; room_kw: power for more than `kept`; kw_per_block: on each type; kept: whether a job keeps what it holds."""

    blocks: list[int]
    order: Sequence[int]
    most: int
    room_kw: float = math.inf
    kw_per_block: Sequence[float] = ()
    kept: bool = False


class TypedPool(TrainingPool):
    """A training pool whose jobs hold blocks of GPU types.

    busy_of  GPUs that its jobs hold, by type
    """

    JOB = TypedJob

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None, where: Site, fastest: bool
                 ) -> None:
        super().__init__(name, site, job_class, rows, where.gpus)
        self._types = list(where.gpu_types)
        self._power_ratios = [job_class.power_ratio(k) for k in range(self._max_blocks + 1)]
        self._same_power = job_class.power_table is None
        self._ratios = [[1.0] * (self._max_blocks + 1) for _ in self._types]
        self._fastest = fastest
        self.busy_of = [0] * len(self._types)
        self._top_to_per_s = where.top_to_per_s(job_class)
        self._most = max([job_class.most_blocks(t.count) for t in where.fitting_types(job_class).values()], default=0)
        self._linear_to_per_s = gpu_throughput_to_per_s(job_class.gpus_per_block, job_class.to_per_gpu_min)

    # --- what happens -------------------------------------------------------------------------------------------

    def set_speeds(self, ratios: Sequence[Sequence[float]], now_s: float) -> None:
        """From now on so fast on each type with 0, 1, ... blocks, over the class's speed on so many."""
        if ratios == self._ratios:
            return
        self.count(now_s)
        self._ratios = [list(of_type) for of_type in ratios]
        for job in self._active:
            if job.blocks:
                self._typed(job).rerate(self._speed_on(self._typed(job).type, job.blocks), now_s)
        self._look_ahead()

    def shares(self, offered: Offered, now_s: float) -> list[Share]:
        """Who is to hold what, in the order of the class; changes nothing."""
        left, most, room_kw, out = list(offered.blocks), offered.most, offered.room_kw, []
        for one in self._in_order(now_s):
            job = self._typed(one)
            at, blocks, room_kw = self._share_of(job, left, most, room_kw, offered)
            if blocks:
                left[at] -= blocks
                most -= blocks
            out.append(Share(job, at, blocks))
        return out

    def assign(self, shares: Sequence[Share], now_s: float) -> None:
        """The jobs hold this from now on."""
        self.count(now_s)
        for job, at, blocks in shares:
            if blocks != job.blocks or (blocks and at != job.type):
                self._note_run(job, now_s)
                if job.blocks and blocks and at != job.type:
                    job.run(0, 0.0, now_s)
                job.run(blocks, self._speed_on(at, blocks), now_s, self._restart_s)
                job.type = at if blocks else NOWHERE
        self._sum_up()
        self._stale = False
        self._look_s = self._next_look_s(now_s) if self._by_laxity else math.inf
        self._look_ahead()

    def count(self, now_s: float) -> None:
        """Put the work done until now, beyond GPU time at the class's own speed, into `trim_to`."""
        if now_s > self._counted_s:
            since_s = self._counted_s
            self._counted_s = now_s
            done_to = [job.speed_to_per_s * (now_s - max(job.from_s, since_s)) for job in self._active
                       if job.blocks and now_s > job.from_s]
            if self.held_blocks or done_to:
                self.trim_to += math.fsum(done_to) - self.held_blocks * self._linear_to_per_s * (now_s - since_s)

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> list[JobState]:
        """As of the class without types, by the last `count`; `group` of one that holds blocks is their type's number
        from 1 on. The speed is that of the limits in force, which the next world sets anew: work is counted up to here.
        """
        now_s = self._counted_s
        return [kept._replace(group=self._typed(job).type + 1, done_to=job.done_at(now_s),
                              from_s=max(job.from_s, now_s)) if kept.blocks else kept
                for kept, job in zip(super().keep(), (*self._active, *self._deferred), strict=True)]

    def restore(self, kept: list[JobState], now_s: float, look_s: float) -> None:
        """Into an empty pool, the jobs that `keep` gave, with the blocks they hold."""
        super().restore(kept, now_s, look_s)
        for one, state in zip(self._active, [k for k in kept if k.group >= 0], strict=True):
            job = self._typed(one)
            if job.blocks:
                job.type = state.group - 1
                job.rerate(self._speed_on(job.type, job.blocks), now_s)
        self._sum_up()
        self._look_ahead()

    # --- how things stand ---------------------------------------------------------------------------------------

    def uses_of(self, t: int) -> list[tuple[int, float]]:
        """(GPUs, share of the class's power above idle that each uses) on a type, by the blocks of their jobs."""
        if self._same_power:
            return [(self.busy_of[t], 1.0)]
        return [(job.blocks * self.gpus_per_block, self._power_ratios[job.blocks]) for job in self._active
                if job.blocks and self._typed(job).type == t]

    def speeds(self, works: Sequence[WorkOnType], limits_kw: Sequence[float]) -> list[list[float]]:
        """What `set_speeds` takes, under these limits."""
        if self._same_power:
            return [[work.speed(limit)] * len(self._power_ratios) for work, limit in zip(works, limits_kw, strict=True)]
        return [[work.speed(limit, ratio) for ratio in self._power_ratios]
                for work, limit in zip(works, limits_kw, strict=True)]

    def wants(self) -> list[tuple[int, int]]:
        """(type, GPUs) that jobs could use beyond what they hold, within the grant: of one without blocks NOWHERE."""
        left, out = self.wanted_blocks - self.held_blocks, []
        for job in self._active:
            more = min(self._most - job.blocks, left)
            if more > 0:
                left -= more
                out.append((self._typed(job).type, more * self.gpus_per_block))
        return out

    # --- inside -------------------------------------------------------------------------------------------------

    @staticmethod
    def _typed(job: TrainingJob) -> TypedJob:
        assert isinstance(job, TypedJob), "put makes these"
        return job

    def _share_of(self, job: TypedJob, left: list[int], most: int, room_kw: float, offered: Offered
                  ) -> tuple[int, int, float]:
        """(type, blocks) that a job gets of what is left, and the room that is left then."""
        def within(t: int) -> tuple[int, float]:
            held = job.blocks if offered.kept and t == job.type else 0
            blocks = min(self._max_blocks, left[t], most)
            each_kw = offered.kw_per_block[t] if offered.kw_per_block else 0.0
            if each_kw and room_kw < math.inf:
                blocks = min(blocks, held + max(math.floor(room_kw / each_kw + 1e-9), 0))
            return blocks, room_kw - each_kw * max(blocks - held, 0) if each_kw else room_kw
        if job.blocks and job.type in offered.order:
            blocks, room = within(job.type)
            if blocks:
                return job.type, blocks, room
        best, found = (NOWHERE, 0, room_kw), -1.0
        for t in offered.order:
            blocks, room = within(t)
            speed = self._speed_on(t, blocks)
            if blocks and (not self._fastest or speed > found):
                best, found = (t, blocks, room), speed
                if not self._fastest:
                    break
        return best

    def _speed_on(self, t: int, blocks: int) -> float:
        return self._speed_to_per_s[blocks] * self._ratios[t][blocks] if blocks else 0.0

    def _running_jobs(self) -> int:
        return sum([job.blocks > 0 for job in self._active])

    def _sum_up(self) -> None:
        """Blocks by type and in sum."""
        self.busy_of = [0] * len(self._types)
        for job in self._active:
            if job.blocks:
                self.busy_of[self._typed(job).type] += job.blocks * self.gpus_per_block
        self._allotted = sum([job.blocks for job in self._active])
        self.hold(self._allotted)

    def _note_run(self, job: TrainingJob, now_s: float) -> None:
        if self.rows is not None and job.blocks and now_s > job.since_s:
            self.runs.append((*self._run_of(job, now_s), self._types[self._typed(job).type]))

    def _run_of(self, job: TrainingJob, now_s: float) -> tuple:
        return job.job.id, self.site, job.since_s, now_s, float(job.blocks * self.gpus_per_block)

    def open_runs(self, now_s: float) -> Iterator[tuple]:
        """Runs of the jobs that hold blocks now, as if they ended now."""
        for job in self._active:
            if job.blocks and now_s > job.since_s:
                yield (*self._run_of(job, now_s), self._types[self._typed(job).type])

    def _take_out(self, jobs: list[TrainingJob], job: TrainingJob, now_s: float, done_to: float, outcome: str) -> None:
        if job.blocks:
            self.busy_of[self._typed(job).type] -= job.blocks * self.gpus_per_block
        super()._take_out(jobs, job, now_s, done_to, outcome)
