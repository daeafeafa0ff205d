"""What a site could draw less, for how long and by when: found by withholding it from a copy of its jobs.

Training. Of the power that its blocks draw now, the largest of LEVELS that can be withheld from now on for a time, so
that no more jobs miss their deadlines than without. Both are played to the last deadline with the jobs inside, no
further arrivals, on the GPUs that inference leaves now, shared out among the classes by the rules' split (in proportion
to the released work) whenever a job ends, is due or is released. It is available at once: blocks are given back.

Inference. A class whose jobs can all wait that long draws nothing once those that run have ended, which is by when it
is available. They can if, in the fluid of jobs that come as fast as they are done now and are worked off first come
first served after the hold on this class's share of the GPUs that are up (in proportion to the busy ones), no job
starts after the deadline: a job with the work W before it, W / GPUs after the hold. Later arrivals are due later, and
the queue shrinks where the class has more GPUs than are busy, so that those here now and the next to come decide.

The two are alternatives: what catches up with one needs the GPUs that the other would catch up on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from cosim.agents.fleet.heuristics import share_blocks
from cosim.params import params
from cosim.simulators.aidc.engine.inference import InferenceQueue
from cosim.simulators.aidc.engine.training import TrainingPool
from cosim.simulators.fleet import JobClass
from cosim.units import HOUR_S, MIN_S, ROUNDING, Seconds

LEVELS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the training power that are tried, from the largest."""


@params
class OfferRules:
    """When, and for how long a hold, the reduction that a site offers is worked out."""

    every_s: Annotated[Seconds, Field(gt=0, description="how often it is worked out; it stands until then")] = HOUR_S
    holds_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=24, description="for how long less is drawn"
                                                  )] = (0.25 * HOUR_S, HOUR_S, 3 * HOUR_S)

    def labels(self) -> list[str]:
        """The holds in minutes."""
        return [f"{hold_s / MIN_S:g}min" for hold_s in self.holds_s]


class Offer(NamedTuple):
    """Power that could be withheld, kW, for each hold, of training and of inference; and time until the inference that
    runs has ended, min."""

    train_kw: list[float]
    inf_kw: list[float]
    inf_by_min: float


def offer(pools: Mapping[str, TrainingPool], queues: Mapping[str, InferenceQueue], job_classes: Mapping[str, JobClass],
          site_gpus: int, up_gpus: int, now_s: float, rules: OfferRules) -> Offer:
    """What a site could draw less from now on; changes nothing."""
    left = up_gpus - sum(queue.busy_gpus for queue in queues.values())
    classes = {name: job_classes[name] for name in pools}
    train_kw = sum(pool.busy_gpus * classes[name].busy_kw_per_gpu for name, pool in pools.items())
    late = missed(pools, classes, site_gpus, left, now_s) if train_kw else 0
    most_kw = max((c.busy_kw_per_gpu for c in classes.values()), default=0.0)

    def withheld(hold_s: float) -> float:
        for level in LEVELS if train_kw else ():
            allowed = int((1.0 - level) * train_kw / most_kw + ROUNDING)
            if missed(pools, classes, site_gpus, left, now_s, hold_s, allowed) <= late:
                return level * train_kw
        return 0.0

    busy = sum(queue.busy_gpus for queue in queues.values())
    inf_kw = [sum(queue.busy_gpus * job_classes[name].busy_kw_per_gpu for name, queue in queues.items()
                  if queue.busy_gpus and _can_wait(queue, job_classes[name], hold_s, now_s,
                                                   up_gpus * queue.busy_gpus / busy)) for hold_s in rules.holds_s]
    ends_s = [kept.end_s for queue in queues.values() for kept in queue.keep() if kept.group >= 0]
    return Offer([withheld(hold_s) for hold_s in rules.holds_s], inf_kw, (max(ends_s, default=now_s) - now_s) / MIN_S)


def missed(pools: Mapping[str, TrainingPool], job_classes: Mapping[str, JobClass], site_gpus: int, gpus: int,
           now_s: float, hold_s: float = 0.0, allowed_gpus: int = 0) -> int:
    """Jobs inside that miss their deadlines if training has `allowed_gpus` for `hold_s`, and `gpus` from then on."""
    copies = []
    for name, pool in pools.items():
        copy = TrainingPool(name, pool.site, job_classes[name], None, site_gpus)
        copy.restore(pool.keep(), now_s, pool.look_s)
        copies.append(copy)
    blocks = [copy.gpus_per_block for copy in copies]
    room_of = [job_classes[name].max_blocks * job_classes[name].gpus_per_block for name in pools]
    hold_end_s, dropped = now_s + hold_s, 0
    while copies:
        for copy in copies:
            if copy.next_s <= now_s:
                copy.finish(now_s)
                copy.expire(now_s)
                copy.release(now_s)
        free = min(allowed_gpus, gpus) if now_s < hold_end_s else gpus
        levels = [copy.levels(now_s) for copy in copies]
        room = [(queued + running) * most for (queued, _, running, *_), most in zip(levels, room_of, strict=True)]
        work = [of_class[3] / job_classes[name].to_per_gpu_min for of_class, name in zip(levels, pools, strict=True)]
        for copy, given, block in zip(copies, share_blocks(max(free, 0), blocks, room, work), blocks, strict=True):
            copy.hold(given // block)
            copy.allot(now_s)
        after = [copy.next_s for copy in copies if copy.next_s < math.inf]
        if not after:
            break
        next_s = min(after)
        now_s = max(min(next_s, hold_end_s) if now_s < hold_end_s else next_s, now_s)
    for copy in copies:
        dropped += copy.dropped
    return dropped


def _can_wait(queue: InferenceQueue, job_class: JobClass, hold_s: float, now_s: float, gpus: float) -> bool:
    """Whether all of a class can wait so long, and be worked off on so many GPUs; see above."""
    if queue.busy_gpus > gpus:
        return False
    to_per_s, ahead_to = gpus * job_class.to_per_gpu_min / MIN_S, 0.0
    waiting: Sequence = [kept.job for kept in queue.keep() if kept.group < 0]
    for job in waiting:
        if now_s + hold_s + ahead_to / to_per_s > job.deadline_s:
            return False
        ahead_to += job.work_to
    return hold_s + ahead_to / to_per_s <= job_class.deadline_s
