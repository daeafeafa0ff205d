"""How sure a mean is: the t interval, for everything that compares runs over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """(mean, half width of the t interval of the mean); half width NaN for fewer than two values."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return float(x.mean()), math.nan
    half = stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(half)
