"""A request inside a replica, and the numbers that a replica computes with."""

from __future__ import annotations

import math
from typing import NamedTuple

from cosim.simulators.aidc.engine.jobs import Job, nearest_tick
from cosim.simulators.aidc.llm.serving import Serving


class Request:
    """A request on its way through a site.

    job          as it was submitted
    input_tokens, output_tokens, cached_tokens   of its prompt, its answer, and of the prompt in the prefix cache
    start_s, first_s   admitted for the first time, first token; NaN: not yet
    token_s      its last token that did not come with those of its whole batch; NaN: none did
    return_s     time that its answer travels to the client
    generated    tokens of the answer so far
    computed     tokens through the model since it was last admitted for the first time or preempted
    prefilled    tokens of prompts computed, those computed again too
    gpu_s, energy_kws   its share so far, since `since_s`, not handed out yet
    """

    __slots__ = ("cached_tokens", "computed", "due_s", "energy_kws", "energy_mark", "finish_step", "first_s",
                 "generated", "gpu_mark", "gpu_s", "input_tokens", "job", "left", "needed", "output_tokens",
                 "preemptions", "prefilled", "return_s", "running", "since_s", "start_s", "token_s")

    def __init__(self, job: Job, input_tokens: int, output_tokens: int, cached_tokens: int) -> None:
        self.job = job
        self.input_tokens, self.output_tokens, self.cached_tokens = input_tokens, output_tokens, cached_tokens
        self.needed = input_tokens - cached_tokens + output_tokens - 1
        self.due_s = nearest_tick(job.deadline_s)
        self.start_s = self.first_s = self.since_s = self.token_s = math.nan
        self.generated = self.computed = self.prefilled = self.preemptions = self.left = self.finish_step = 0
        self.gpu_s = self.energy_kws = self.gpu_mark = self.energy_mark = self.return_s = 0.0
        self.running = False

    @property
    def context(self) -> int:
        """Tokens whose keys and values it needs when it is admitted."""
        return self.input_tokens + self.generated


class Numbers(NamedTuple):
    """What a replica computes with: `Serving`, worked out once; powers above the GPUs' idle power, kW.

    base_s, batch_kw   by the number of sequences in the batch, from 0 on
    """

    base_s: list[float]
    batch_kw: list[float]
    context_s: float
    prefill_s: float
    prefill_kw: float
    ready_kw: float
    gpus: int
    max_batch: int
    kv_tokens: int
    batched_tokens: int
    chunked: bool
    full: bool


def numbers_of(serving: Serving) -> Numbers:
    """The numbers of a class."""
    curve, gpu = serving.the_curve, serving.the_gpu
    idle_kw = serving.gpus * gpu.idle_w / 1e3
    sizes = range(serving.max_batch + 1)
    return Numbers([curve.base_s(n) for n in sizes], [max(curve.decode_w(n) / 1e3 - idle_kw, 0.0) for n in sizes],
                   curve.context_s_per_token, curve.prefill_s_per_token, max(curve.prefill_w / 1e3 - idle_kw, 0.0),
                   serving.gpus * gpu.loaded_w / 1e3, serving.gpus, serving.max_batch, serving.kv_tokens,
                   serving.batched_tokens, serving.prefill == "chunked", serving.admission == "full")
