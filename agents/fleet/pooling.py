"""GPUs that the classes of a kind use together: what a site decides of its GPUs, and how those of a kind are divided.

The study's agent decides ratios of the classes (28), from which whole GPUs of each class follow (30), (31); the work of
a minute is limited by the GPUs of a kind (14), which its classes therefore use together:

    sum_m j_m x_m <= xi g dt,   g the sum of g_m over the classes m of the kind

Numbers of classes are their places in `FleetFacts.kinds`, as everywhere.

Rows: E14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from cosim.agents.fleet.allocation import gpu_blocks, project_shares
from cosim.agents.fleet.decision import FleetFacts, Vector
from cosim.agents.fleet.heuristics import share_blocks
from cosim.units import ROUNDING

GpuShares = Literal["classes", "pooled", "kinds"]
"""classes: a site decides shares of its GPUs for each class, and a class uses its own; pooled: the same, and the
classes of a kind use theirs together; kinds: it decides one share for training and one for inference, whose classes use
them together."""


def groups(facts: FleetFacts) -> list[tuple[int, ...]]:
    """The classes of each kind that there is, training first."""
    return [of_kind for of_kind in (facts.train, facts.inf) if of_kind]


def sharers(facts: FleetFacts, classes: Sequence[str]) -> list[str]:
    """Names of what a site's agent divides its GPUs among: the classes, or the kinds of which there are any."""
    if facts.gpu_shares != "kinds":
        return list(classes)
    return [facts.kinds[of_kind[0]] for of_kind in groups(facts)]


def per_sharer(facts: FleetFacts, shares: Vector) -> list[float]:
    """Shares of the classes (M,) as those of the `sharers`."""
    return per_kind(facts, shares) if facts.gpu_shares == "kinds" else list(shares)


def sharer_blocks(facts: FleetFacts) -> list[int]:
    """GPUs of a block of each of the `sharers`: a kind's are granted one by one, and divided in blocks afterwards."""
    return [1] * len(groups(facts)) if facts.gpu_shares == "kinds" else list(facts.gpus_per_block)


def per_kind(facts: FleetFacts, shares: Vector) -> list[float]:
    """Sums over the classes (M,) of each of the `groups`."""
    return [sum([shares[m] for m in of_kind]) for of_kind in groups(facts)]


def per_class(facts: FleetFacts, shares: Vector) -> list[float]:
    """Shares of the `sharers` as a row of the classes (M,): that of a kind stands at its first class, which is of no
    importance, as its classes use it together."""
    if facts.gpu_shares != "kinds":
        return list(shares)
    row = [0.0] * len(facts.kinds)
    for share, of_kind in zip(shares, groups(facts), strict=True):
        row[of_kind[0]] = share
    return row


def pool(facts: FleetFacts, shares: Vector, capacity: int) -> list[int]:
    """GPUs of each of the `groups` at a site with `capacity` GPUs, for shares (M,) of the classes: the sum of (30) or
    of (31), and with shares of kinds the whole GPUs of their sum. ModelError if a share is not finite."""
    gpus = gpu_blocks(per_sharer(facts, project_shares(shares)), capacity, sharer_blocks(facts))
    if facts.gpu_shares == "kinds":
        return gpus
    return [sum([gpus[m] for m in of_kind]) for of_kind in groups(facts)]


def divide(facts: FleetFacts, pools: Sequence[int], running_jobs: Vector, jobs: Vector, work_to: Vector) -> list[int]:
    """GPUs of the classes (M,), in whole blocks, of a site whose kinds have those of `pool`.

    Running inference jobs, which nothing stops, keep theirs. The rest goes to the classes of the kind in proportion to
    the GPU-minutes of their unfinished work, to none more than its jobs can use, and as long as a block is left to one
    that can use it.

    running_jobs, jobs, work_to: (M,) running jobs, all jobs that can run now, and their unfinished work, TO.
    """
    out = [0] * len(facts.kinds)
    for gpus, of_kind in zip(pools, groups(facts), strict=True):
        blocks = [facts.gpus_per_block[m] for m in of_kind]
        room = [math.ceil(jobs[m] - ROUNDING) * facts.max_blocks[m] * facts.gpus_per_block[m] for m in of_kind]
        held = [0 if facts.kinds[m] == "train" else math.ceil(running_jobs[m] - ROUNDING) * facts.gpus_per_block[m]
                for m in of_kind]
        kept = share_blocks(gpus, blocks, held, held)
        more = share_blocks(gpus - sum(kept), blocks, [r - k for r, k in zip(room, kept, strict=True)],
                            [work_to[m] / facts.to_per_gpu_min[m] for m in of_kind])
        for m, k, g in zip(of_kind, kept, more, strict=True):
            out[m] = k + g
    return out
