"""How long training could stand still and still do in time what has been taken on."""

from __future__ import annotations

from collections.abc import Iterable

from cosim.units import DAY_S

Claim = tuple[float, float, float]
"""Time from now to the deadline of a job, s; GPU time that is left of it, s at linear speed-up; time from now to its
latest start, s: the deadline less what is left at the most blocks that it can use at the site."""

USABLE_RATIO = 0.9
"""Share of the GPUs that training can count on: blocks, and agents that explore, leave some idle."""
MOST_S = DAY_S
"""Slack of a site without training jobs."""


def slack_s(claims: Iterable[Claim], gpus: float) -> float:
    """Time that training may stand still, s, if `gpus` GPUs work on nothing else thereafter: the least of two bounds.

    Work: what is due in d s needs so long of every GPU at most; the least room over all deadlines is what can be lost
    (preemptive jobs on one machine, earliest deadline first: Jackson 1955). Jobs: each must begin by its latest start,
    however many GPUs are free. Below 0 some of it will be late by whatever order. An upper bound: jobs that each have
    room on their own may still be in each other's way on the blocks they can use, and what is yet to be released is
    taken as if it could begin now. At most MOST_S; -MOST_S where no GPU is left for work there is.
    """
    least_s, due_work_s = MOST_S, 0.0
    for due_s, left_gpu_s, last_start_s in sorted(claims):
        due_work_s += left_gpu_s
        least_s = min(least_s, due_s - due_work_s / gpus if gpus > 0 else -MOST_S, last_start_s)
    return max(least_s, -MOST_S)
