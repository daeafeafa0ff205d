"""Work as a fluid: how much of it can and how much must be done by a time, and what a site's power is at the least.

Work is in GPU-hours, time in hours from now. A job of w GPU-hours on at most g GPUs, that has come and is due in d
hours, has done between max(0, w - g (d - t)) and min(w, g t) after t hours. Sums of these over jobs are what any
schedule keeps; that jobs are whole and preempt in blocks, they leave out. With one speed limit for all it is the
condition of earliest deadline first (J. R. Jackson, 1955).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Cuts = Sequence[tuple[float, float]]
"""Lines (kW per kW of IT power, kW) of which a site's power is the highest, or above it."""

_CUT_RATIO = 0.002


def possible_gpu_h(work_gpu_h: ArrayLike, gpus: ArrayLike, come_h: ArrayLike, time_h: ArrayLike) -> Floats:
    """(T,) what of jobs (J,) can be done until each time: `gpus` > 0 each at most, from when they come on."""
    work, most, come = (np.asarray(x, float) for x in (work_gpu_h, gpus, come_h))
    return _ramps(most, come, time_h) - _ramps(most, come + work / most, time_h)


def required_gpu_h(work_gpu_h: ArrayLike, gpus: ArrayLike, due_h: ArrayLike, time_h: ArrayLike) -> Floats:
    """(T,) what of jobs (J,) has to be done by each time if all of it is to be done when it is due."""
    work, most, due = (np.asarray(x, float) for x in (work_gpu_h, gpus, due_h))
    return _ramps(most, due - work / most, time_h) - _ramps(most, due, time_h)


def _ramps(slope: Floats, begin_h: Floats, time_h: ArrayLike) -> Floats:
    """(T,) sum over j of slope_j max(0, t - begin_j)."""
    order, time = np.argsort(begin_h, kind="stable"), np.asarray(time_h, float)
    begin, factor = begin_h[order], slope[order]
    begun = np.searchsorted(begin, time)
    sums = np.append(0.0, np.cumsum(factor))[begun]
    return sums * time - np.append(0.0, np.cumsum(factor * begin))[begun]


def tangents(power_kw: Callable[[Floats], Floats], low_kw: float, high_kw: float) -> list[tuple[float, float]]:
    """A site's power by its IT power as the highest of a few lines: chords of the convex hull of what it draws from
    below, which are off by a few tenths of a percent where it is convex."""
    if high_kw <= low_kw:
        return [(0.0, float(power_kw(np.array([low_kw]))[0]))]
    it = np.linspace(low_kw, high_kw, 65)
    x, y = lower_hull(it, power_kw(it))
    return thinned(x, y)


def lower_hull(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Corners of the lower convex hull of points whose x ascend (A. M. Andrew, 1979)."""
    kept: list[int] = []
    for k in range(len(x)):
        while len(kept) > 1 and ((y[kept[-1]] - y[kept[-2]]) * (x[k] - x[kept[-2]])
                                 >= (y[k] - y[kept[-2]]) * (x[kept[-1]] - x[kept[-2]])):
            kept.pop()
        kept.append(k)
    return x[kept], y[kept]


def thinned(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Lines through sides of a convex curve (slope, intercept), so few that the highest of them is nowhere more than
    0.2 % below it."""
    slopes = np.diff(y) / np.diff(x)
    lines = [(float(s), float(y[k] - s * x[k])) for k, s in enumerate(slopes)]
    chosen: list[tuple[float, float]] = []
    while True:
        top = np.max([s * x + c for s, c in chosen], axis=0) if chosen else np.full(len(x), -np.inf)
        missing = y - top
        worst = int(missing.argmax())
        if chosen and missing[worst] <= _CUT_RATIO * abs(y[worst]):
            return chosen
        chosen.append(lines[min(worst, len(lines) - 1)] if chosen else lines[len(lines) // 2])
