"""A figure over seeds in a study: all of them, their interquartile mean, and how far that may be off.

The interquartile mean is less moved by one odd seed than a mean and uses more of few seeds than a median; its interval
is a percentile bootstrap, as Agarwal et al. 2021, *Deep reinforcement learning at the edge of the statistical
precipice*, recommend. Of n seeds the bootstrap draws n again: with three, its 95 % interval is their whole range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cosim.seeds import stream

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """A figure over seeds: the values, their interquartile mean, and the ends of its bootstrap interval. NaN where
    there are no values; an interval needs two."""

    values: tuple[float, ...]
    iqm: float
    low: float
    high: float


def spread(values: Sequence[float] | np.ndarray) -> SeedSpread:
    """The spread of values over seeds; the same values give the same interval. NaN among them makes all NaN."""
    return _spread(tuple(float(value) for value in values))


@lru_cache(maxsize=4096)
def _spread(values: tuple[float, ...]) -> SeedSpread:
    x = np.array(values)
    if not len(x) or not np.isfinite(x).all():
        return SeedSpread(values, math.nan, math.nan, math.nan)
    centre = float(_iqm(x[None])[0])
    if len(x) < 2:
        return SeedSpread(values, centre, math.nan, math.nan)
    drawn = stream(0, 0, "study", "bootstrap").integers(len(x), size=(RESAMPLES, len(x)))
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(_iqm(x[drawn]), (tail, 1.0 - tail))
    return SeedSpread(values, centre, float(low), float(high))


def _iqm(x: np.ndarray) -> np.ndarray:
    """(rows,) means of the middle half of each row: a quarter of its values, rounded down, falls off at each end."""
    cut = x.shape[1] // 4
    return np.sort(x, axis=1)[:, cut:x.shape[1] - cut].mean(axis=1)


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation of two series, ties sharing their mean rank; NaN where one of them is constant."""
    a, b = _ranks(np.asarray(x, float)), _ranks(np.asarray(y, float))
    if len(a) < 2 or a.std() == 0.0 or b.std() == 0.0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(x: np.ndarray) -> np.ndarray:
    """0 for the least; equal values have the mean of their places."""
    _, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2.0)[where]
