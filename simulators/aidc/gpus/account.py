"""What GPUs of several types did in an interval: GPU time and energy by type and state, and by type and class.

All of it is constant between two events, so that the integrals are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.simulators.aidc.gpus.numbers import WorkOnType
from cosim.simulators.aidc.gpus.states import STATES, GpuGroup


@dataclass(frozen=True)
class GpuTick:
    """Means over an interval. By type, and in it by state: `state_gpus`, `state_kw` (hosts included). By type, and in
    it by class: `work_gpus` busy, `dynamic_kw` above their idle power. By type: `limit_kw`, the power limit, and
    `slowed_s`, for how long a limit slowed jobs. capped_s: for how long the site's cap did."""

    state_gpus: list[float]
    state_kw: list[float]
    work_gpus: list[float]
    dynamic_kw: list[float]
    limit_kw: list[float]
    slowed_s: list[float]
    capped_s: float


class GpuAccount:
    """Integrals over time of what was last noted.

    gpu_kw  what all GPUs and their hosts draw now
    """

    def __init__(self, types: int, classes: int, now_s: float) -> None:
        self._sizes = (types * len(STATES), types * len(STATES), types * classes, types * classes, types, types, 1)
        self.gpu_kw = 0.0
        self._now = np.zeros(sum(self._sizes))
        self._sums = np.zeros(sum(self._sizes))
        self._since_s = self._read_s = now_s

    def integrate(self, now_s: float) -> None:
        """What was noted stood until now."""
        if now_s > self._since_s:
            self._sums += self._now * (now_s - self._since_s)
            self._since_s = now_s

    def note(self, groups: Sequence[GpuGroup], works: Sequence[Sequence[WorkOnType]],
             uses: Sequence[Sequence[Sequence[tuple[int, float]]]], limits_kw: Sequence[float], capped: bool) -> None:
        """From now on; after `integrate`. works, uses: by class, then by type; a use is so many GPUs and the share of
        the class's power above idle that each draws."""
        gpus: list[float] = []
        powers: list[float] = []
        working: list[float] = []
        dynamic: list[float] = []
        slowed: list[float] = []
        for t, (group, limit_kw) in enumerate(zip(groups, limits_kw, strict=True)):
            figures, levels = works[0][t].figures, group.levels()
            of_class = [sum([n for n, _ in use[t]]) for use in uses]
            above = [sum([n * (work[t].kw(limit_kw, ratio) - figures.idle_kw) for n, ratio in use[t]])
                     for use, work in zip(uses, works, strict=True)]
            gpus += levels
            powers += [levels[0] * figures.awake_kw + sum(above), levels[1] * figures.awake_kw,
                       levels[2] * figures.waking, levels[3] * figures.asleep_kw]
            working += of_class
            dynamic += above
            slowed.append(float(any(n and work[t].draws_kw(ratio) > limit_kw
                                    for use, work in zip(uses, works, strict=True) for n, ratio in use[t])))
        self.gpu_kw = sum(powers)
        self._now = np.array([*gpus, *powers, *working, *dynamic, *limits_kw, *slowed, float(capped)])

    def read(self, now_s: float) -> GpuTick:
        """Means since the last read."""
        self.integrate(now_s)
        seconds = now_s - self._read_s
        parts = np.split(self._sums, np.cumsum(self._sizes)[:-1])
        gpus, kw, working, dynamic, limits_kw = ((part / seconds).tolist() for part in parts[:5])
        tick = GpuTick(gpus, kw, working, dynamic, limits_kw, parts[5].tolist(), float(parts[6][0]))
        self._sums, self._read_s = np.zeros(sum(self._sizes)), now_s
        return tick
