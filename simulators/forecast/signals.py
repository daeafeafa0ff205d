"""Which signals can be forecast, how each of them is, and the forecasts of one of them as time goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cosim.agents.fleet.forecasting import (
    ErrorModel,
    day_ahead,
    forecast_errors,
    innovations,
    perfect,
    persistence,
    with_error,
)
from cosim.params import params
from cosim.units import DAY_S, HOUR_S

Floats = NDArray[np.float64]
Kind = Literal["persistence", "day_ahead", "perfect", "perfect_with_error"]
PERFECT = ("perfect", "perfect_with_error")
MADE = ("nci", "mci")
"""Signals that the loop of grid and data centers makes, so that they are not known before."""


@params
class SignalForecast:
    """How one signal is forecast."""

    kind: Annotated[Kind, Field(
        description="persistence: as now; day_ahead: as at the same time of the day before; perfect: as it will be; "
        "perfect_with_error: that, and an error that grows with the lead")] = "persistence"
    days: Annotated[int, Field(ge=1, le=31, description="day_ahead: the mean of so many days")] = 1
    error: Annotated[ErrorModel, Field(description="perfect_with_error: its error")] = ErrorModel()
    recorded: Annotated[str | None, Field(
        description="perfect: the trace of an earlier run that had the same forecast, of any kind; null: another "
        "member says what will be (nobody can of nci and mci)")] = None

    @model_validator(mode="after")
    def _what_is_given_counts(self) -> SignalForecast:
        if self.recorded is not None and self.kind not in PERFECT:
            raise ValueError(f"recorded = {self.recorded} has no effect with kind = {self.kind}; leave it out, or set "
                             "kind to perfect")
        if self.error != ErrorModel() and self.kind != "perfect_with_error":
            raise ValueError(f"an error has no effect with kind = {self.kind}; leave it out, or set kind to "
                             "perfect_with_error")
        if self.days != 1 and self.kind != "day_ahead":
            raise ValueError(f"days = {self.days} has no effect with kind = {self.kind}; leave it out, or set kind to "
                             "day_ahead")
        return self


@dataclass(frozen=True, slots=True)
class Signal:
    """The model of a signal's ports, and their names: what it is now, what it will be, and the forecast."""

    model: str
    now: str
    future: str
    forecast: str


SIGNALS = {
    "nci": Signal("Site", "nci_kg_per_kwh", "nci_future_kg_per_kwh", "nci_forecast_kg_per_kwh"),
    "mci": Signal("Site", "mci_kg_per_kwh", "mci_future_kg_per_kwh", "mci_forecast_kg_per_kwh"),
    "price": Signal("Feeder", "price_usd_per_kwh", "price_future_usd_per_kwh", "price_forecast_usd_per_kwh"),
    "load": Signal("Feeder", "p_load_kw", "p_load_future_kw", "p_load_forecast_kw"),
    "available": Signal("Plant", "available_kw", "available_future_kw", "available_forecast_kw"),
}
"""Name of a parameter -> its ports."""


class Forecaster:
    """Forecasts of one signal of one entity, step after step; entry k of (count + 1,) is k steps ahead, entry 0 now.

    step_s  length of a step; rng: of the error; recorded (T,): what it will be at steps 0 to T - 1, where that is from
    an earlier run: after its end as on its last day
    """

    def __init__(self, rules: SignalForecast, count: int, step_s: float, rng: np.random.Generator,
                 recorded: Floats | None = None) -> None:
        self._rules, self._count, self._recorded = rules, count, recorded
        self._per_day = max(round(DAY_S / step_s), 1)
        self._ahead = np.arange(count + 1)
        self._keep = self._per_day * (rules.days + -(-count // self._per_day))
        self.seen = np.zeros(0)
        self._rng, step_h = rng, step_s / HOUR_S
        self._correlation = rules.error.correlation_1h ** step_h if rules.error.correlation_1h else 0.0
        self._std = rules.error.std_ratio(self._ahead[1:] * step_h)
        self._news = np.zeros((0, count))

    def step(self, step: int, now: float, future: Sequence[float] | None) -> Floats:
        """The forecast made at a step, where the signal is `now`. future: (count + 1,) what it will
        be, where that is known."""
        rules = self._rules
        if rules.kind == "persistence":
            return persistence(now, self._count + 1)
        if rules.kind == "day_ahead":
            self.seen = np.append(self.seen, now)[-self._keep:]
            made = day_ahead(self.seen, self._ahead, self._per_day, rules.days)
        else:
            made = np.array(future, float) if self._recorded is None else self._from_recording(step)
            if rules.kind == "perfect_with_error":
                missing = self._count - max(len(self._news) - 1, 0)
                self._news = np.vstack([self._news[1:], innovations(self._rng, missing, self._count,
                                                                    self._correlation)])
                made[1:] = with_error(made[1:], forecast_errors(self._news, self._std), rules.error.scale)
        made[0] = now
        return made

    def _from_recording(self, step: int) -> Floats:
        recorded = self._recorded
        assert recorded is not None, "it is looked up there"
        inside = perfect(recorded, step, self._ahead)
        beyond = step + self._ahead - (len(recorded) - 1)
        return np.where(beyond > 0, day_ahead(recorded, np.maximum(beyond, 0), self._per_day), inside)
