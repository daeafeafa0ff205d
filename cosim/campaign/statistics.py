"""Means over seeds, their intervals, and differences of pairs that met the same seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """(mean, half width of the t interval of the mean); half width NaN for fewer than two values, both for none."""
    x = np.asarray(values, float)
    if len(x) < 2:
        return (float(x[0]) if len(x) else math.nan), math.nan
    half = stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(half)


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Value less base of each seed that both have."""
    return [value - base[seed] for seed, value in values.items() if seed in base]
