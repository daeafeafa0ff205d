"""How long training could stand still and still do in time what has been taken on."""

from __future__ import annotations

from collections.abc import Iterable

Claim = tuple[float, float]
"""Deadline of a job, s, and the GPU time that is left of it, s at linear speed-up."""

USABLE_RATIO = 0.9
"""Share of the GPUs that training can count on: blocks, and agents that explore, leave some idle."""
MOST_S = 86400.0
"""Slack of a site without training jobs."""


def slack_s(claims: Iterable[Claim], gpus: float, now_s: float) -> float:
    """Time that training may stand still, s, if `gpus` GPUs work on nothing else thereafter, earliest deadline first.

    Work due by d needs (d - now) of every GPU; the least room over all deadlines is what can be lost. Below 0 some of
    it will be late by whatever order (preemptive jobs on one machine: Jackson 1955): -slack x gpus is the GPU time that
    is missing. Releases, and how many GPUs a job can use at once, are left out, so that it is an upper bound. At most
    MOST_S; -MOST_S where no GPU is left for work there is.
    """
    least_s, due_work_s = MOST_S, 0.0
    for due_s, left_gpu_s in sorted(claims):
        due_work_s += left_gpu_s
        least_s = min(least_s, due_s - now_s - due_work_s / gpus) if gpus > 0 else -MOST_S
    return max(least_s, -MOST_S)
