"""What lies over the rate of (39): the shape of a day and of a week, and bursts. Both are off by default.

Rows: I16.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.params import params
from cosim.units import DAY_S, Seconds

WEEK_DAYS = 7


@params
class Bursts:
    """Arrivals by a two-state Markov-modulated Poisson process: calm and burst, each of exponential length.

    In a burst the rate is `ratio` times that of calm, and both are scaled so that the long-run mean stays that of (39).
    W. Fischer, K. Meier-Hellstern, The Markov-modulated Poisson process (MMPP) cookbook, Performance Evaluation 18
    (1993) 149.
    """

    ratio: Annotated[float, Field(ge=1, description="rate in a burst, in units of that in between")]
    mean_burst_s: Annotated[Seconds, Field(ge=1, description="mean length of a burst")]
    mean_calm_s: Annotated[Seconds, Field(ge=1, description="mean time between two bursts")]

    @property
    def calm_factor(self) -> float:
        """Factor of the rate between bursts; in one it is `ratio` times as much."""
        return (self.mean_calm_s + self.mean_burst_s) / (self.mean_calm_s + self.ratio * self.mean_burst_s)


class BurstPath:
    """Calm and burst as they follow each other, from a start drawn from the long-run shares, or from `resume`.

    on  whether the last block requested ended in a burst
    """

    def __init__(self, bursts: Bursts, rng: np.random.Generator) -> None:
        self._bursts, self._rng = bursts, rng
        self.resume(bool(rng.random() * (bursts.mean_burst_s + bursts.mean_calm_s) < bursts.mean_burst_s))

    def resume(self, on: bool) -> None:
        """Restart at time 0 in the given state; the remaining length is drawn anew, which is exact because lengths are
    exponential (memoryless)."""
        self.on, self._until_s = on, 0.0
        self._until_s += self._length_s()

    def factors(self, first_s: float, steps: int, step_s: float) -> np.ndarray:
        """Factor of the rate in each of `steps` steps from `first_s` on: its mean over the step, shape (steps,). Blocks
        of steps are requested one after the other."""
        end_s, edges_s, on = first_s + steps * step_s, [first_s], []
        while self._until_s < end_s:
            edges_s.append(self._until_s)
            on.append(self.on)
            self.on = not self.on
            self._until_s += self._length_s()
        edges_s.append(end_s)
        on.append(self.on)
        in_burst_s = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * on)])
        share = np.diff(np.interp(first_s + step_s * np.arange(steps + 1), edges_s, in_burst_s)) / step_s
        return self._bursts.calm_factor * (1.0 + (self._bursts.ratio - 1.0) * share)

    def _length_s(self) -> float:
        return float(self._rng.exponential(self._bursts.mean_burst_s if self.on else self._bursts.mean_calm_s))


def shape_factors(time_s: np.ndarray, day: tuple[float, ...], week: tuple[float, ...]) -> np.ndarray:
    """Factor of the rate at times since the start (a midnight), shape of `time_s`.

    day   factors of equal parts of a day from midnight on (24: hours), () for none; each holds until the next
    week  factors of the seven days, from the day of the start on, () for none
    """
    factors = np.ones(np.shape(time_s))
    if day:
        part = np.floor((time_s % DAY_S) / DAY_S * len(day)).astype(int)
        factors = factors * np.array(day)[np.minimum(part, len(day) - 1)]
    if week:
        factors = factors * np.array(week)[(time_s // DAY_S).astype(int) % WEEK_DAYS]
    return factors
