"""Forecasts of a signal from its past, or from its future and an error that grows with the lead time.

Pure functions on arrays; time and leads are the last axis, and steps are all of one length. Signals may have further
axes before it (sites, for example).

persistence         it stays as it is now
day_ahead           it is as at the same time of the day before, or as the mean of several days
perfect             it is what it will be
perfect + error     it is that, beside an error that is smaller the nearer the time is (`ErrorModel`)

The error follows the martingale model of forecast evolution (D. C. Heath, P. L. Jackson: Modeling the evolution of
demand forecasts, IIE Transactions 26 (1994) 17): between two forecasts of the same time one innovation becomes known,
independent of all before, so that later forecasts of it are better ones, and their errors are unbiased.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cosim.params import params

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


@params
class ErrorModel:
    """Standard deviation of a forecast's error by lead time: std_1h_ratio x hours^growth_exponent, std_max_ratio at
    most, of the true value or of `scale`."""

    std_1h_ratio: Annotated[float, Field(ge=0, le=10, description="at a lead of one hour")] = 0.05
    growth_exponent: Annotated[float, Field(ge=0, le=2, description="0.5: the variance grows in proportion to the "
                                            "lead")] = 0.5
    std_max_ratio: Annotated[float, Field(ge=0, le=10, description="at the longest leads")] = 0.3
    correlation_1h: Annotated[float, Field(ge=0, lt=1, description="of what becomes known at once of two times an hour "
                                           "apart: errors of neighbouring times are alike")] = 0.8
    scale: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="what the ratios are of, in the "
                                         "signal's unit; null: the true value, and a forecast of a power is not below "
                                         "0")] = None

    def std_ratio(self, lead_h: ArrayLike) -> Floats:
        """Standard deviation at these leads, h; 0 at lead 0."""
        hours = np.asarray(lead_h, float)
        grown = np.where(hours > 0.0, self.std_1h_ratio * np.maximum(hours, 0.0) ** self.growth_exponent, 0.0)
        return np.minimum(grown, self.std_max_ratio)


# --- from the past --------------------------------------------------------------------------------------------------


def persistence(now: ArrayLike, count: int) -> Floats:
    """(..., count) the value now (...) at every lead."""
    value = np.asarray(now, float)
    return np.repeat(value[..., None], count, axis=-1)


def day_ahead(history: ArrayLike, ahead: ArrayLike, steps_per_day: int, days: int = 1) -> Floats:
    """(..., H) mean over the last `days` days of what the signal was at the same time of day.

    history (..., T): its values, the last one now; ahead (H,): leads in steps, >= 0. A time that is more than a day
    ahead has the days that are over when the forecast is made. Days before the first value are left out; where none is
    left the value is that of now. ValueError for an empty history, or a day of no steps.
    """
    past, leads = np.asarray(history, float), np.asarray(ahead, np.int64)
    if not past.shape[-1] or steps_per_day < 1 or days < 1:
        raise ValueError(f"{past.shape[-1]} values, {steps_per_day} steps a day and {days} days; all are 1 or more")
    last = past.shape[-1] - 1
    first_day = np.maximum(-(-leads // steps_per_day), 1)
    at = last + leads - (first_day + np.arange(days)[:, None]) * steps_per_day
    known = at >= 0
    found = np.where(known, past[..., np.maximum(at, 0)], 0.0)
    count = known.sum(axis=0)
    mean = found.sum(axis=-2) / np.maximum(count, 1)
    return np.where(count > 0, mean, past[..., -1:])


# --- from the future ------------------------------------------------------------------------------------------------


def perfect(series: ArrayLike, now: int, ahead: ArrayLike) -> Floats:
    """(..., H) what a series (..., T) will be `ahead` (H,) steps after its step `now`; its last value after its end."""
    values = np.asarray(series, float)
    return values[..., np.clip(now + np.asarray(ahead, np.int64), 0, values.shape[-1] - 1)]


def innovations(rng: np.random.Generator, rows: int, count: int, correlation: float) -> Floats:
    """(rows, count) standard normal numbers; in a row, neighbours have this correlation. Row r is what becomes known of
    `count` times with step r, nearest first. Drawing rows one by one gives the same numbers."""
    out = rng.standard_normal((rows, count))
    for k in range(1, count):
        out[:, k] = correlation * out[:, k - 1] + math.sqrt(1.0 - correlation**2) * out[:, k]
    return out


def forecast_errors(news: ArrayLike, std: ArrayLike) -> Floats:
    """(H,) errors now of the forecasts 1 to H steps ahead, as ratios.

    news (H, H): `innovations` of the next H steps, row r of the step r + 1 ahead; std (H,): standard deviation at 1 to
    H steps, not falling. The error at lead k is the sum of what becomes known of that time until it has come.
    """
    rows, deviation = np.asarray(news, float), np.asarray(std, float)
    gained = np.sqrt(np.diff(deviation**2, prepend=0.0).clip(min=0.0))  # (H,) from lead j + 1 to lead j
    count = len(deviation)
    lead = np.add.outer(np.arange(count), np.arange(count))  # row r, column j: of the time r + j + 1 ahead
    return np.bincount(lead.ravel(), weights=(rows * gained).ravel())[:count].astype(np.float64)


def with_error(truth: ArrayLike, error: ArrayLike, scale: float | None = None) -> Floats:
    """What a forecast gives for true values (..., H) with errors (..., H) in units of `scale`, by default of the value
    itself; the latter keeps its sign."""
    value, off = np.asarray(truth, float), np.asarray(error, float)
    return value * np.maximum(1.0 + off, 0.0) if scale is None else value + off * scale


# --- how good it was ------------------------------------------------------------------------------------------------


class Accuracy(NamedTuple):
    """Of forecasts by lead (H,): mean absolute error and mean error (> 0: too much was forecast), in the signal's unit,
    NaN where no forecast can be compared; and how many were compared."""

    mae: Floats
    bias: Floats
    compared: Steps


def accuracy(forecast: ArrayLike, truth: ArrayLike, ahead: ArrayLike) -> Accuracy:
    """How far forecasts (T, H), made at steps 0 to T - 1 for `ahead` (H,) steps later, were from what came (T,).

    What is not finite in either, and what came after the last step, is not compared.
    """
    said, came, leads = np.asarray(forecast, float), np.asarray(truth, float), np.asarray(ahead, np.int64)
    at = np.arange(len(came))[:, None] + leads
    inside = at < len(came)
    off = said - came[np.minimum(at, len(came) - 1)]
    use = inside & np.isfinite(off)
    count: Any = use.sum(axis=0)
    off = np.where(use, off, 0.0)
    per = np.where(count > 0, count, np.nan)
    return Accuracy(np.abs(off).sum(axis=0) / per, off.sum(axis=0) / per, count)
