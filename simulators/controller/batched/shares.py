"""Ratios to whole things, compiled: what `allocation`, `heuristics.GpuRule` and `pooling` of `agents.fleet` do, on
arrays of one environment. Tests hold the two together.
"""

from __future__ import annotations

import math

import numpy as np

from cosim.simulators.aidc.compiled.jit import part
from cosim.units import ROUNDING

_DIGITS = 1e9
"""Scores are compared to 9 digits."""


@part
def project_simplex(raw, eligible, out):
    """`allocation.project_simplex`, into `out`."""
    total, count = 0.0, 0
    for k in range(len(out)):
        out[k] = raw[k] if eligible[k] and raw[k] > 0.0 else 0.0
        total += out[k]
        count += eligible[k]
    if total != 1.0:
        for k in range(len(out)):
            if total > 0.0:
                out[k] /= total
            else:
                out[k] = 1.0 / count if eligible[k] else 0.0


@part
def largest_remainder(total, shares, carry, counts):
    """`allocation.largest_remainder_carry`: whole numbers into `counts`, what is owed stays in `carry`. With a carry of
    zeros they are those of `largest_remainder`."""
    n, whole = len(counts), 0.0
    for k in range(n):
        whole += shares[k]
    scale, rest = total / whole, total
    fractions = np.empty(n)
    for k in range(n):
        quota = shares[k] * scale
        counts[k] = int(quota + ROUNDING)
        fraction = quota - counts[k]
        fractions[k] = fraction if fraction > ROUNDING else 0.0
        rest -= counts[k]
        carry[k] += fractions[k]
    for _ in range(rest):
        best = -1
        for k in range(n):
            if fractions[k] > 0.0 and (best < 0 or np.rint(carry[k] * _DIGITS) > np.rint(carry[best] * _DIGITS)):
                best = k
        if best < 0:
            return
        counts[best] += 1
        carry[best] -= 1.0
        fractions[best] = 0.0


@part
def deal(counts, out):
    """`allocation.deal`, into `out`: index k occurs counts[k] times, evenly interleaved."""
    given = np.zeros(len(counts), np.int64)
    for slot in range(len(out)):
        best, least = -1, math.inf
        for k in range(len(counts)):
            if given[k] < counts[k]:
                place = (2 * given[k] + 1) / (2 * counts[k])
                if place < least:
                    best, least = k, place
        out[slot] = best
        given[best] += 1


@part
def gpu_blocks(raw, capacity, blocks, out):
    """`allocation.gpu_blocks` of `allocation.project_shares`, into `out`."""
    total = 0.0
    for k in range(len(out)):
        total += max(raw[k], 0.0)
    by, after = (total, 0.0) if total > 1.0 else (1.0, 0.0)
    for k in range(len(out)):
        after += max(raw[k], 0.0) / by
    scale = capacity / after if after > 1.0 else float(capacity)
    for k in range(len(out)):
        out[k] = blocks[k] * int(max(raw[k], 0.0) / by * scale / blocks[k] + ROUNDING)


@part
def share_blocks(gpus, blocks, room, weights, given):
    """`heuristics.share_blocks`, into `given`."""
    n, wanted = len(given), 0
    active = np.zeros(n, np.bool_)
    for k in range(n):
        given[k] = 0
        active[k] = room[k] > 0 and weights[k] > 0
        wanted += room[k] if active[k] else 0
    if wanted <= gpus:
        for k in range(n):
            given[k] = room[k] if active[k] else 0
        return
    left, total = gpus, _sum_of(weights, active)
    some = True
    while some:
        some, was, of = False, left, total
        for k in range(n):
            if active[k] and was * weights[k] >= room[k] * of:
                given[k], active[k], some = room[k], False, True
                left -= room[k]
        total = _sum_of(weights, active)
    fractions = np.zeros(n)
    rest = left
    for k in range(n):
        if active[k]:
            exact = left * weights[k] / total / blocks[k]
            whole = int(exact + ROUNDING)
            given[k] = blocks[k] * whole
            fractions[k] = np.rint((exact - whole) * _DIGITS) / _DIGITS
            rest -= given[k]
    _fill(rest, blocks, room, active, fractions, given)


@part
def _fill(left, blocks, room, active, fractions, given):
    """What proportion leaves over, block by block in turn, largest fraction first."""
    order = np.empty(len(given), np.int64)
    count = 0
    for k in range(len(given)):
        if active[k]:
            j = count
            while j > 0 and fractions[order[j - 1]] < fractions[k]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = k
            count += 1
    while True:
        takers = 0
        for j in range(count):  # those that can still use a block, in order; the first gets one and goes to the end
            k = order[j]
            if blocks[k] <= left and given[k] < room[k]:
                order[takers] = k
                takers += 1
        if takers == 0:
            return
        first = order[0]
        given[first] += blocks[first]
        left -= blocks[first]
        for j in range(takers - 1):
            order[j] = order[j + 1]
        order[takers - 1] = first
        count = takers


@part
def _sum_of(values, which):
    total = 0.0
    for k in range(len(values)):
        if which[k]:
            total += values[k]
    return total


@part
def inference_gpus(capacity, inf, blocks, drain_to, running, jobs, work_to, need):
    """`GpuRule.inference`, into `need` (Minf,); the others are per class (M,), and `inf` marks those of inference."""
    n, wanted = len(inf), 0
    held = np.empty(n, np.int64)
    for k in range(n):
        m = inf[k]
        held[k] = blocks[m] * math.ceil(running[m] - ROUNDING)
        drain = blocks[m] * math.ceil(work_to[m] / drain_to[m] - ROUNDING)
        need[k] = max(held[k], min(drain, blocks[m] * math.ceil(jobs[m] - ROUNDING)))
        wanted += need[k]
    if wanted <= capacity:
        return
    mine, more, kept, extra = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for k in range(n):
        mine[k] = blocks[inf[k]]
    share_blocks(capacity, mine, held, held, kept)
    left = capacity
    for k in range(n):
        more[k] = need[k] - kept[k]
        left -= kept[k]
    share_blocks(left, mine, more, more, extra)
    for k in range(n):
        need[k] = kept[k] + extra[k]


@part
def divide(gpus, members, stops, blocks, most, to_per_gpu_min, running, jobs, work_to, out):
    """`pooling.divide` of one kind, whose classes are `members`, into `out` (M,); stops: whether running jobs can be
    stopped, as those of training."""
    n = len(members)
    mine, room, held = np.empty(n, np.int64), np.empty(n, np.int64), np.zeros(n, np.int64)
    kept, more, work = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        m = members[k]
        mine[k] = blocks[m]
        room[k] = math.ceil(jobs[m] - ROUNDING) * most[m] * blocks[m]
        work[k] = work_to[m] / to_per_gpu_min[m]
        if not stops:
            held[k] = math.ceil(running[m] - ROUNDING) * blocks[m]
    share_blocks(gpus, mine, held, held, kept)
    left = gpus
    for k in range(n):
        left -= kept[k]
        room[k] -= kept[k]
    share_blocks(left, mine, room, work, more)
    for k in range(n):
        out[members[k]] = kept[k] + more[k]


@part
def rule_gpus(capacity, inf, train, blocks, most, to_per_gpu_min, drain_to, running, jobs, work_to, shares):
    """`GpuRule`: shares (M,) of `capacity` GPUs, into `shares`. most (M,): blocks that one job can use."""
    need = np.empty(len(inf), np.int64)
    inference_gpus(capacity, inf, blocks, drain_to, running, jobs, work_to, need)
    left, n = capacity, len(train)
    for k in range(len(inf)):
        shares[inf[k]] = need[k] / capacity
        left -= need[k]
    mine, room, given, work = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        m = train[k]
        mine[k] = blocks[m]
        room[k] = math.ceil(jobs[m] - ROUNDING) * most[m] * blocks[m]
        work[k] = work_to[m] / to_per_gpu_min[m]
    share_blocks(left, mine, room, work, given)
    for k in range(n):
        shares[train[k]] = given[k] / capacity
