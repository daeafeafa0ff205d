"""Replicas of language models by target utilisation, and the largest batch that keeps a service level: rules that act
on replicas in place of a policy's GPU shares, or beside them.

The autoscaler is that of Kubernetes for pods: as many replicas as bring what is in them to a target share of what they
hold, replicas = ceil(requests / (target x batch)); up at once (a new one is ready after its start-up time), down when
they were too many for a while (`keep_on_s`, the stabilization window), both of which the site keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from cosim.agents.fleet.heuristics import share_blocks
from cosim.params import params
from cosim.units import ROUNDING


@params(kw_only=True)
class Autoscale:
    """Parameters of the autoscaler."""

    target_ratio: Annotated[float, Field(
        gt=0, le=1, description="share of a replica's batch (max_batch, or what its KV cache holds of typical "
        "requests) that its requests are to fill")] = 0.6


def replicas_wanted(requests: float, batch: int, target_ratio: float, least: int) -> int:
    """Replicas for so many requests inside a site, running and waiting; batch: what one holds."""
    return max(least, math.ceil(requests / (target_ratio * batch) - ROUNDING))


def with_replicas(gpus: Sequence[float], wanted: Mapping[int, int], capacity: int, blocks: Sequence[int],
                  train: Sequence[int]) -> list[float]:
    """(M,) GPUs of a site's classes: those in `wanted` (class -> GPUs) as given there, the others of what is left.

    gpus: as the policy granted them, whole blocks; blocks: GPUs per block. Beyond `capacity` those in `wanted`
    share it in proportion, and of the others inference comes before training.
    """
    first = list(wanted)
    out = [0.0] * len(gpus)
    left = capacity
    others = [m for m in range(len(gpus)) if m not in wanted]
    groups = (first, [m for m in others if m not in train], [m for m in others if m in train])
    for group in groups:
        asked = [wanted.get(m, int(gpus[m])) for m in group]
        for m, given in zip(group, share_blocks(left, [blocks[m] for m in group], asked, asked), strict=True):
            out[m] = float(given)
            left -= given
    return out
