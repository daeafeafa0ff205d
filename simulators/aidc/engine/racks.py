"""Racks that fail and are repaired, as a process of its own: when, how many are down, and which one is hit.

Every rack is up for an exponential time of mean `mean_up_s`, then down for one of mean `mean_down_s`, independent of
all others: with u racks up and d down the next change comes after an exponential time of rate u / mean_up + d /
mean_down, and is a failure in proportion to the first term (two-state Markov availability model, e.g. K. S. Trivedi,
Probability and Statistics with Reliability, Queuing, and Computer Science Applications, 2nd ed. 2001, ch. 8; a share
mean_up / (mean_up + mean_down) is up in the long run). Being without memory, it needs no more than d to go on.
"""

from __future__ import annotations

import numpy as np

from cosim.simulators.aidc.engine.jobs import tick_after


class Racks:
    """The racks of one site; what fails when does not depend on what the site does.

    down    racks that are down
    next_s  when the next one fails or is repaired, on the facility's clock
    """

    def __init__(self, racks: int, mean_up_s: float, mean_down_s: float, rng: np.random.Generator,
                 now_s: float = 0.0) -> None:
        self._racks, self._up_s, self._down_s, self._rng = racks, mean_up_s, mean_down_s, rng
        self.resume(0, now_s)

    def resume(self, down: int, now_s: float) -> None:
        """Go on with so many racks down."""
        self.down = down
        self._draw(now_s)

    def change(self) -> int | None:
        """What happens at `next_s`: the place of the rack that fails among those up, or None for a repair."""
        up = self._racks - self.down
        failing = up / self._up_s
        kind, place = self._rng.random(2)
        fails = kind * (failing + self.down / self._down_s) < failing
        self.down += 1 if fails else -1
        self._draw(self.next_s)
        return min(int(place * up), up - 1) if fails else None

    def _draw(self, now_s: float) -> None:
        rate = (self._racks - self.down) / self._up_s + self.down / self._down_s
        self.next_s = tick_after(now_s + self._rng.exponential(1.0 / rate))
