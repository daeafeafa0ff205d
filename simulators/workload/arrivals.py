"""Job arrivals: the rate of (39), whole jobs from it, and their instants. Pure functions; streams come from outside.

Rows: E39, I14, I15, M05, M06.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from cosim.params import params
from cosim.units import MIN_S

Counts = Literal["poisson", "round", "bernoulli"]
PhaseUnit = Literal["rad", "min"]


@params
class ArrivalRate:
    """Parameters of (39) for one job class: rate(t) = mean + A sin(2 pi t / Theta + phi) + eps_t, jobs/min."""

    mean_per_min: Annotated[float, Field(ge=0, le=1e12, description="mean rate, jobs/min")]
    amplitude_per_min: Annotated[float, Field(ge=0, le=1e12, description="A, jobs/min")] = 0.0
    period_min: Annotated[float, Field(ge=1e-3, description="Theta, min")] = 60.0
    phase: Annotated[float, Field(description="phi, in the unit that the member's phase_unit names")] = 0.0
    sigma_per_min: Annotated[float, Field(ge=0, le=1e12, description="standard deviation of eps, jobs/min")] = 0.0

    def scaled(self, factor: float) -> ArrivalRate:
        """Mean, amplitude and noise times `factor`; period and phase as they are."""
        return ArrivalRate(self.mean_per_min * factor, self.amplitude_per_min * factor, self.period_min,
                           self.phase, self.sigma_per_min * factor)


def rate_per_min(rate: ArrivalRate, time_min: np.ndarray, noise: np.ndarray, phase_unit: PhaseUnit) -> np.ndarray:
    """(39) at `time_min`, jobs/min; may be negative. noise: standard normal numbers, same shape.

    A phase in minutes moves the sine earlier by that much.
    """
    angle = 2.0 * np.pi * time_min / rate.period_min
    angle += rate.phase if phase_unit == "rad" else 2.0 * np.pi * rate.phase / rate.period_min
    return rate.mean_per_min + rate.amplitude_per_min * np.sin(angle) + rate.sigma_per_min * noise


def whole_jobs(expected: np.ndarray, rule: Counts, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers of jobs from expected ones; negative expectations count as 0. Same shape, int64.

    poisson    Poisson numbers: independent jobs, the right mean
    round      nearest whole number: 0 for ever below half a job per step, so no training job of Table I
    bernoulli  floor plus one with the fraction as probability: the right mean, least variance
    """
    expected = np.maximum(expected, 0.0)
    if rule == "poisson":
        return rng.poisson(expected)
    if rule == "round":
        return np.rint(expected).astype(np.int64)
    floor = np.floor(expected)
    return (floor + (rng.random(expected.shape) < expected - floor)).astype(np.int64)


def instants_s(counts: np.ndarray, first_s: float, step_s: float, rng: np.random.Generator) -> np.ndarray:
    """Arrival times, ascending, s: counts[k] of them uniform in [first_s + k step_s, first_s + (k + 1) step_s)."""
    start = first_s + step_s * np.repeat(np.arange(len(counts)), counts)
    times = start + step_s * rng.random(len(start))
    np.minimum(times, np.nextafter(start + step_s, 0.0), out=times)  # a sum may round up to the end, which is outside
    return np.sort(times)


def arrivals_of(
    rate: ArrivalRate, first_s: float, steps: int, step_s: float, rule: Counts, phase_unit: PhaseUnit,
    streams: Sequence[np.random.Generator], factors: np.ndarray | None = None, origin_s: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """One class in `steps` steps from `first_s` on: arrival times (s, ascending), and in which steps the rate was cut.

    streams: for noise, counts and instants, in this order, so that one cannot shift the other. The rate of a step is
    that at its start, times its factor of `factors` (steps,), if given; (39) began `origin_s` before time 0.
    """
    noise, number, instant = streams
    time_min = (origin_s + first_s + step_s * np.arange(steps)) / MIN_S
    per_min = rate_per_min(rate, time_min, noise.standard_normal(steps), phase_unit)
    if factors is not None:
        per_min = per_min * factors
    counts = whole_jobs(per_min * (step_s / MIN_S), rule, number)
    return instants_s(counts, first_s, step_s, instant), per_min < 0.0


@dataclass(frozen=True, slots=True)
class JobBlock:
    """The jobs of several steps in arrival order.

    arrival_s, class_index, work_to   one entry a job, float, int and float
    bounds                            (steps + 1,) jobs of step k are the slice bounds[k] : bounds[k + 1]
    per_class                         (steps, M) jobs of each class
    tokens                            (n, 2) of prompt and answer, int64, 0 for jobs that are no LLM requests; None: no
                                      class has them
    """

    arrival_s: np.ndarray
    class_index: np.ndarray
    work_to: np.ndarray
    bounds: list[int]
    per_class: list[list[float]]
    tokens: np.ndarray | None = None


class JobRows(NamedTuple):
    """Jobs as arrays, one entry each, in arrival order: id, number of the class, absolute times in s, work in TO;
    tokens as of `JobBlock`; number of the origin, where there is a network."""

    id: np.ndarray
    class_index: np.ndarray
    arrival_s: np.ndarray
    work_to: np.ndarray
    deadline_s: np.ndarray
    tokens: np.ndarray | None = None
    origin: np.ndarray | None = None


Source = tuple[int, np.ndarray, np.ndarray] | tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Class index, arrival times (s, ascending), works (TO); of LLM requests their tokens (n, 2)."""


def merge(sources: Sequence[Source], classes: int, first_s: float, steps: int, step_s: float) -> JobBlock:
    """Sources, their times in [first_s, first_s + steps * step_s), in one time order.

    On equal times the earlier source goes first.
    """
    tokens = None
    if any(len(source) > 3 for source in sources):
        tokens = np.concatenate([source[3] if len(source) > 3 else np.zeros((len(source[1]), 2), np.int64)
                                 for source in sources])
    times = np.concatenate([np.empty(0), *(source[1] for source in sources)])
    index = np.concatenate([np.empty(0, int), *(np.full(len(source[1]), source[0]) for source in sources)])
    works = np.concatenate([np.empty(0), *(source[2] for source in sources)])
    order = np.argsort(times, kind="stable")
    times, index = times[order], index[order]
    bounds = np.searchsorted(times, first_s + step_s * np.arange(steps + 1))
    bounds[0], bounds[-1] = 0, len(times)
    step = np.repeat(np.arange(steps), np.diff(bounds))
    per_class = np.bincount(step * classes + index, minlength=steps * classes).reshape(steps, classes)
    return JobBlock(times, index, works[order], bounds.tolist(), per_class.astype(float).tolist(),
                    None if tokens is None else tokens[order])
