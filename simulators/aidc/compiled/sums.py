"""Arithmetic of the compiled fleet that must be that of Python, bit for bit: ticks, exact sums, sorted lists."""

from __future__ import annotations

import numpy as np

from cosim.simulators.aidc.compiled.jit import part
from cosim.simulators.aidc.engine.jobs import TICKS_PER_S


@part
def nearest_tick(time_s):
    """`jobs.nearest_tick`: halves go to the even tick, as with Python's `round`."""
    return np.rint(time_s * TICKS_PER_S) / TICKS_PER_S


@part
def tick_after(time_s):
    """`jobs.tick_after`."""
    return np.ceil(time_s * TICKS_PER_S) / TICKS_PER_S


@part
def add_exactly(partials, count, x):
    """Add a number to an exact sum of `count` partials that do not overlap; how many there are then.

    J. R. Shewchuk, Adaptive precision floating-point arithmetic, 1997; as `math.fsum`.
    """
    kept = 0
    for k in range(count):
        y = partials[k]
        if abs(x) < abs(y):
            x, y = y, x
        high = x + y
        low = y - (high - x)
        if low != 0.0:
            partials[kept] = low
            kept += 1
        x = high
    if x != 0.0:
        partials[kept] = x
        kept += 1
    return kept


@part
def rounded(partials, count):
    """The exact sum as a float, rounded once, halves to even: what `math.fsum` gives."""
    if count == 0:
        return 0.0
    k = count - 1
    high, low = partials[k], 0.0
    while k > 0:
        k -= 1
        x, y = high, partials[k]
        high = x + y
        low = y - (high - x)
        if low != 0.0:
            break
    if k > 0 and (low < 0.0) == (partials[k - 1] < 0.0):  # on the way between two floats: what comes after decides
        twice = low * 2.0
        x = high + twice
        if x - high == twice:
            high = x
    return high


@part
def sort(ranks, count):
    """Put the first `count` records of `ranks` (RANK) into their order. Shell's method."""
    gap = 1
    while 3 * gap + 1 < count:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(gap, count):
            first, second, third, place, j = (ranks[k].first, ranks[k].second, ranks[k].third, ranks[k].place, k)
            while j >= gap and _later(ranks[j - gap], first, second, third):
                ranks[j] = ranks[j - gap]
                j -= gap
            ranks[j].first, ranks[j].second, ranks[j].third, ranks[j].place = first, second, third, place
        gap //= 3


@part
def _later(rank, first, second, third):
    if rank.first != first:
        return rank.first > first
    if rank.second != second:
        return rank.second > second
    return rank.third > third
