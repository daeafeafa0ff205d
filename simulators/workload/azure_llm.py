"""Requests of a real LLM service as inference jobs, beside stochastic arrivals."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import serve
from cosim.params import params
from cosim.simulators.workload.adapter import BLOCK_STEPS, Scale, SizeScale
from cosim.simulators.workload.arrivals import Source
from cosim.simulators.workload.origin import lead_s, note, pass_s
from cosim.simulators.workload.rows import gap_note
from cosim.simulators.workload.traced import Traced, TracedParams
from cosim.simulators.workload.traces import Requests, TokenTrace, TokenWork, read_azure_llm
from cosim.units import MIN_S, format_time


@params(kw_only=True)
class AzureLlmParams(TracedParams):
    """Parameters of `AzureLlm`."""

    path: Annotated[str, Field(min_length=1, description="CSV of the trace")]
    trace_class: Annotated[str, Field(description="inference class that the requests belong to")]
    time_scale: Annotated[SizeScale, Field(description="times the trace's time axis; 24: an hour becomes a day")] = 1
    trace_rate_scale: Annotated[Scale, Field(description="mean number of times a request occurs")] = 1.0
    trace_work_scale: Annotated[SizeScale, Field(description="times a request's work (one for many)")] = 1.0
    tokens: TokenWork = Field(default_factory=TokenWork)


class AzureLlm(Traced):
    """Requests of an Azure LLM inference trace as the jobs of one class, beside stochastic arrivals of others.

    The first request comes at t = 0, or at its date (`origin`). `time_scale` stretches the time between requests.
    `trace_rate_scale` = k lets each request occur floor(k) times, and once more with the probability of the fraction:
    0.1 is a sample of a tenth; repeated ones lie anywhere in the request's minute. Both leave the mix of requests as it
    is. With `repeat` the trace starts again at the next whole minute, each time with the same requests. The size scales
    do not apply to requests; their work comes from their tokens (`tokens`), times `trace_work_scale`. The run's t = 0
    is the start of its warm-up: with `warmup_s` the first requests are played in it and are not counted, and a run
    without an end of its own is that much shorter; `repeat` avoids it.
    """

    PARAMS: ClassVar[Any] = AzureLlmParams
    KIND: ClassVar[Literal["inf", "llm"]] = "inf"
    WHY: ClassVar[str] = "a request with GPUs of its own is inference; requests of language models are LlmRequests"

    @classmethod
    def _read(cls, params: Any) -> TokenTrace:
        return read_azure_llm(params.path, params.max_left_out_ratio)

    @classmethod
    def _works_to(cls, trace: TokenTrace, params: Any) -> np.ndarray:
        """Work of each request, TO."""
        return params.tokens.work_to(trace.context_tokens, trace.generated_tokens) * params.trace_work_scale

    @classmethod
    def _tokens(cls, trace: TokenTrace) -> np.ndarray | None:
        """What a request's tokens matter for beyond its work: nothing here."""
        return None

    @classmethod
    def placed(cls, params: AzureLlmParams) -> tuple[float, float]:
        """As of `Traced`."""
        trace = cls._read(params)
        lead = lead_s(params.origin, params.path, trace.first_unix_s, params.scenario_start)
        return lead, pass_s(trace.offset_s[-1] * params.time_scale)

    @classmethod
    def offered_jobs_per_min(cls, params: AzureLlmParams) -> dict[str, tuple[float, float]]:
        """Those of the stochastic arrivals, and the trace's own while it lasts. ScenarioError as for the trace."""
        offered = super().offered_jobs_per_min(params)
        trace = cls._read(params)
        minutes = pass_s(trace.offset_s[-1] * params.time_scale) / MIN_S
        rate = params.trace_rate_scale * len(trace.offset_s) / minutes
        work = float(cls._works_to(trace, params).mean())
        beside, its_work = offered.get(params.trace_class, (0.0, 0.0))
        total = rate + beside
        offered[params.trace_class] = (total, (rate * work + beside * its_work) / total if total else work)
        return offered

    def setup(self) -> None:
        """Read the trace. ScenarioError if the class is not an inference class, or the trace cannot be read."""
        super().setup()
        p = self.params
        self._trace_class = self._class_of_trace(p.trace_class, self.KIND, self.WHY)
        self._trace = self._read(p)
        self._requests = Requests.of(self._trace.offset_s * p.time_scale, self._works_to(self._trace, p),
                                     p.trace_rate_scale, self.stream("copies of requests"), self._tokens(self._trace))
        self._lead_s, _ = self.placed(p)

    def notes(self) -> list[str]:
        """Rows left out, requests that came, and whether the trace ran dry."""
        trace, requests, p = self._trace, self._requests, self.params
        said = super().notes()
        said += [f"{self.sid}: {text}" for text in note(p.origin, p.path, trace.first_unix_s, p.scenario_start)]
        if trace.left_out.rows:
            said.append(f"{self.sid}: {trace.left_out.rows} rows of {p.path} were left out: {trace.left_out.about()}")
        apart_s = np.diff(trace.offset_s, prepend=0.0)
        if gap := gap_note(apart_s.max(), trace.offset_s[apart_s.argmax() - 1], trace.offset_s[-1]):
            said.append(f"{self.sid}: {p.path}: {gap}")
        reached_s = self._origin_s + self._steps * self.step_s - self._lead_s
        if not p.repeat and reached_s > requests.length_s:
            over = format_time(requests.length_s + self._lead_s)
            said.append(f"{self.sid}: the trace ended at {over}; the remaining "
                        f"{(reached_s - requests.length_s) / MIN_S:g} min had no requests from it")
        elif not p.repeat:
            came = int(np.searchsorted(requests.offset_s, reached_s))
            said.append(f"{self.sid}: {came} of the trace's {len(requests.offset_s)} requests had arrived by the last "
                        "step")
        return said

    def _sources(self, first_s: float) -> list[Source]:
        begin_s = self._origin_s + first_s - self._lead_s
        requests = self._requests
        times, rows = requests.rows_between(begin_s, begin_s + BLOCK_STEPS * self.step_s, self.params.repeat)
        at_s = self._in_world(times + self._lead_s if self._lead_s else times, first_s)
        if requests.tokens is None:
            return [*super()._sources(first_s), (self._trace_class, at_s, requests.work_to[rows])]
        return [*super()._sources(first_s), (self._trace_class, at_s, requests.work_to[rows], requests.tokens[rows])]


if __name__ == "__main__":
    serve(AzureLlm)
