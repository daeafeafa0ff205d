"""What all workloads recorded elsewhere share: one class's jobs from a trace, beside stochastic arrivals of others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.simulators.workload.adapter import BLOCK_STEPS, Arrivals, ArrivalsParams, Scale, SizeScale
from cosim.simulators.workload.arrivals import ArrivalRate
from cosim.simulators.workload.origin import Origin, ScenarioStart, check_cover
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, LeftOutRatio
from cosim.units import MIN_S

_KINDS = {"train": "a training", "inf": "an inference", "llm": "an LLM serving"}


@params(kw_only=True)
class TracedParams(ArrivalsParams):
    """Parameters that all traces have: those of `Arrivals`, and the trace. `arrivals` are those beside it."""

    arrivals: Annotated[dict[str, ArrivalRate], Field(description="rates of (39) beside the trace")] = Field(
        default_factory=dict)
    path: Annotated[str, Field(min_length=1, description="file of the trace")]
    trace_class: Annotated[str, Field(min_length=1, description="class that the trace's jobs belong to")]
    repeat: Annotated[bool, Field(description="start the trace again when it ends")] = False
    time_scale: Annotated[SizeScale, Field(description="times the trace's time axis")] = 1.0
    trace_rate_scale: Annotated[Scale, Field(description="mean number of times a job of the trace occurs")] = 1.0
    trace_work_scale: Annotated[SizeScale, Field(description="times the work of every job of the trace")] = 1.0
    max_left_out_ratio: LeftOutRatio = LEFT_OUT_RATIO
    origin: Origin = "first"
    scenario_start: ScenarioStart = None


class Traced(Arrivals, ABC):
    """Base of recorded workloads: the jobs of a trace as those of one class, beside stochastic arrivals of others."""

    @classmethod
    @abstractmethod
    def placed(cls, params: Any) -> tuple[float, float]:
        """When the first job of the trace comes, s after t = 0, and how long one pass of the trace is, s.
        ScenarioError for a trace that cannot be read."""

    @classmethod
    def natural_horizon_s(cls, params: TracedParams) -> float | None:
        """Length of the trace in whole minutes and one more, in which its last jobs are handed over, s; None if it
        repeats. ScenarioError as for the trace itself."""
        if params.repeat:
            return None
        lead, length_s = cls.placed(params)
        check_cover(params.path, lead, length_s, params.scenario_start, None)
        return MIN_S * math.ceil((lead + length_s) / MIN_S) + MIN_S

    @classmethod
    def check_horizon(cls, member: str, given: TracedParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a trace of which nothing falls into the run."""
        if not given.repeat:
            check_cover(given.path, *cls.placed(given), given.scenario_start, until_s)

    @classmethod
    def rate_fields(cls, params: TracedParams, job_class: str | None) -> dict[str, float]:
        """As of `Arrivals`, and the trace's."""
        mine = {"trace_rate_scale": params.trace_rate_scale} if job_class in (None, params.trace_class) else {}
        return super().rate_fields(params, job_class) | mine

    def _class_of_trace(self, name: str, kind: str, why: str) -> int:
        """Index of the class that a trace's jobs are of; ScenarioError if it is none, or of the other kind."""
        classes = self.params.job_classes
        if name not in classes:
            raise ScenarioError(f"{self.sid}.trace_class: {unknown('job class', name, classes)}")
        if classes[name].kind != kind:
            raise ScenarioError(f"{self.sid}.trace_class = '{name}' is {_KINDS[classes[name].kind]} class; {why}")
        return self._names.index(name)

    def _in_world(self, times_s: np.ndarray, first_s: float) -> np.ndarray:
        """Times of a trace in the block that starts at `first_s`, on this world's clock."""
        if not self._origin_s:
            return times_s
        last_s = np.nextafter(first_s + BLOCK_STEPS * self.step_s, 0.0)
        return np.clip(times_s - self._origin_s, first_s, last_s)  # the difference is rounded
