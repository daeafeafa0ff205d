"""A public trace of LLM requests as the requests of a class of kind `llm`, beside stochastic arrivals of others."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import serve
from cosim.errors import ScenarioError
from cosim.params import params
from cosim.simulators.workload.azure_llm import AzureLlm
from cosim.simulators.workload.lengths import requests_to
from cosim.simulators.workload.llm_traces import Format, read_requests
from cosim.simulators.workload.traced import TracedParams
from cosim.simulators.workload.traces import TokenTrace


@params(kw_only=True)
class LlmRequestsParams(TracedParams):
    """Parameters of `LlmRequests`."""

    format: Annotated[Format, Field(description="layout of the trace: azure (2023, 2024), mooncake, burstgpt; auto: by "
                                    "its first line")] = "auto"


class LlmRequests(AzureLlm):
    """Requests of a trace with their tokens, for a class of kind `llm`; times, copies and repetition as of `AzureLlm`.

    `trace_work_scale` has no meaning here, and is refused: a request's work are its tokens.
    """

    PARAMS = LlmRequestsParams
    KIND: ClassVar[Literal["inf", "llm"]] = "llm"
    WHY = "a trace with tokens is served by a class of kind llm"

    @classmethod
    def _read(cls, params: Any) -> TokenTrace:
        return read_requests(params.path, params.format, params.max_left_out_ratio)

    @classmethod
    def _works_to(cls, trace: TokenTrace, params: Any) -> np.ndarray:
        job_class = params.job_classes.get(params.trace_class)
        if job_class is None or job_class.serving is None:  # `setup` says which are there
            return np.ones(len(trace.offset_s))
        tokens = cls._tokens(trace)
        assert tokens is not None, "they matter here"
        return requests_to(tokens, job_class.serving)

    @classmethod
    def _tokens(cls, trace: TokenTrace) -> np.ndarray | None:
        return np.column_stack([trace.context_tokens, trace.generated_tokens])

    def setup(self) -> None:
        """As `AzureLlm`; ScenarioError for a scale of work."""
        if self.params.trace_work_scale != 1.0:
            raise ScenarioError(f"{self.sid}.trace_work_scale = {self.params.trace_work_scale:g}: the work of LLM "
                                "requests follows from their tokens; leave it out, or scale how often they occur "
                                "(trace_rate_scale)")
        super().setup()


if __name__ == "__main__":
    serve(LlmRequests)
