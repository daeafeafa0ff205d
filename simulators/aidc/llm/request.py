"""A request inside a replica, and the numbers that a replica computes with."""

from __future__ import annotations

import math
from typing import NamedTuple

from cosim.simulators.aidc.engine.jobs import Job, nearest_tick
from cosim.simulators.aidc.gpus.equations import limited_kw
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
    """What a replica computes with: `Serving` under a power limit, worked out once; powers above the GPUs' idle power,
    kW.

    base_s, batch_kw, context_s   by the number of sequences in the batch, from 0 on
    slow_from, slow_prefill   the least batch whose iterations the power limit slows, and whether it slows prefill
    """

    base_s: list[float]
    batch_kw: list[float]
    context_s: list[float]
    prefill_s: float
    prefill_kw: float
    ready_kw: float
    gpus: int
    max_batch: int
    kv_tokens: int
    batched_tokens: int
    chunked: bool
    full: bool
    slow_from: int = 10**9
    slow_prefill: bool = False


def numbers_of(serving: Serving, limit_kw: float | None = None) -> Numbers:
    """The numbers of a class; limit_kw: of a GPU, infinite for none; None: the class's own."""
    curve, gpu, limit = serving.the_curve, serving.the_gpu, serving.own_limit_kw if limit_kw is None else limit_kw
    idle_kw, most_kw, sizes = serving.gpus * gpu.idle_w / 1e3, serving.gpus * limit, range(serving.max_batch + 1)
    drawn_kw = [curve.decode_w(n) / 1e3 for n in sizes]
    ratio = [serving.decode_ratio(n, limit) for n in sizes]
    prefill_kw = curve.prefill_w / 1e3
    return Numbers([curve.base_s(n) / speed for n, speed in zip(sizes, ratio, strict=True)],
                   [max(limited_kw(kw, most_kw) - idle_kw, 0.0) for kw in drawn_kw],
                   [curve.context_s_per_token / speed for speed in ratio],
                   curve.prefill_s_per_token / serving.prefill_ratio(limit),
                   max(limited_kw(prefill_kw, most_kw) - idle_kw, 0.0),
                   serving.gpus * gpu.loaded_w / 1e3, serving.gpus, serving.max_batch, serving.kv_tokens,
                   serving.batched_tokens, serving.prefill == "chunked", serving.admission == "full",
                   next((n for n in sizes if drawn_kw[n] > most_kw), 10**9), prefill_kw > most_kw)
