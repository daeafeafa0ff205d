"""Power and speed of a GPU under a power limit: pure functions of power, no clock. Powers in kW, >= 0, drawn."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

Curve = tuple[tuple[float, float], ...]
"""(power over the power without a limit, speed over the speed without one), rising, the last point (1, 1)."""


def draw_kw(idle_kw: float, peak_kw: float, use_ratio: float) -> float:
    """Power of a busy GPU without a limit: of what lies between idle and peak, the share that its job uses."""
    return idle_kw + use_ratio * (peak_kw - idle_kw)


def limited_kw(unlimited_kw: float, limit_kw: float) -> float:
    """Power of a busy GPU under a limit, which holds where the job would draw more."""
    return min(unlimited_kw, limit_kw)


def limited_speed_ratio(unlimited_kw: float, limit_kw: float, curve: Curve) -> float:
    """Speed under a limit over that without, 0 to 1, linear between the points of the curve; below its first point
    the speed of that point."""
    x = limit_kw / unlimited_kw if unlimited_kw > 0.0 else 1.0
    if x >= 1.0:
        return 1.0
    at = bisect_left(curve, (x,))
    if at == 0:
        return curve[0][1]
    (x0, y0), (x1, y1) = curve[at - 1], curve[at]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def kept_limit_kw(given_kw: float, own_kw: float, least_kw: float, most_kw: float) -> float:
    """Power limit in force where one is commanded: the nearest that can be kept; NaN, none commanded: the own one."""
    return own_kw if math.isnan(given_kw) else min(max(given_kw, least_kw), most_kw)


def limit_at_kw(level: float, least_kw: float, most_kw: float) -> float:
    """Power limit of a type at a level, 0: the least one, 1: the one in force."""
    return least_kw + level * (most_kw - least_kw)


def level_within(budget_kw: float, busy: Sequence[tuple[float, float, float, float]]) -> float:
    """The highest level, 0 to 1, at which busy GPUs draw a budget or less; 0 where even that draws more.

    busy: (GPUs, power of each without a limit, least limit, limit in force) per kind of work on a type. What they draw
    is min(limit, power) each, so piecewise linear in the level: exact between the levels at which a limit begins to
    bind.
    """
    def drawn_kw(level: float) -> float:
        return sum([n * limited_kw(kw, limit_at_kw(level, least, most)) for n, kw, least, most in busy])

    if drawn_kw(1.0) <= budget_kw:
        return 1.0
    bends = {0.0, 1.0}
    bends |= {(kw - least) / (most - least) for _, kw, least, most in busy if least < kw < most}
    above = 1.0
    for level in sorted(bends, reverse=True):
        low_kw = drawn_kw(level)
        if low_kw <= budget_kw:
            high_kw = drawn_kw(above)
            return level + (above - level) * (budget_kw - low_kw) / (high_kw - low_kw) if high_kw > low_kw else above
        above = level
    return 0.0
