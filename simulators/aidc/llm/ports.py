"""Ports of a site that serves language models, beside those of every site."""

from __future__ import annotations

import math

from cosim.ports import Port
from cosim.simulators.aidc.ports import per_class

SERVING = (
    Port("max_batch", "in", "sequences in a replica's batch at most, from now on; NaN: as the class says",
         dims=("job_class",), default=math.nan, nullable=True),
    per_class("llm_dynamic_kw", "power of the class's replicas above their GPUs' idle power, mean over the tick"),
    per_class("llm_ready_kw", "of it that of replicas without work, starting ones too"),
    per_class("llm_ready_gpus", "GPUs of replicas without work, mean over the tick"),
    per_class("prefill_tokens", "tokens of prompts computed in the tick, those computed again too"),
    per_class("output_tokens", "tokens of answers put out in the tick"),
    per_class("preemptions", "requests whose KV cache was given up in the tick"),
    per_class("replicas", "replicas that are on at the end of the tick, starting and draining ones too"),
    per_class("starting_replicas", "of these not ready yet"),
    per_class("kv_cache_ratio", "share of the replicas' KV cache in use at the end of the tick"),
    Port("llm_requests", "out", "requests that left in the tick; at the end those still inside: tokens, times, "
         "preemptions", kind="event", table="llm_requests"),
    Port("llm_use", "out", "shares of requests in their replicas' GPUs and power, in pieces of at most a tick",
         kind="event", table="llm_use"),
    Port("llm_gaps", "out", "inter-token latencies: tokens of the tick per class, by how long after the one before of "
         "their answer they came", kind="event", table="llm_gaps"),
)

LIMITS = (
    Port("gpu_limit_set_kw", "in", "power limit of a GPU of each class's replicas that another member commands, from "
         "their next iterations on; none linked, or NaN: the class's own; of classes without replicas no matter",
         sign=">= 0", dims=("job_class",), default=math.nan, nullable=True),
    per_class("gpu_limit_kw", "power limit of a GPU of the class's replicas, mean over the tick; its TDP: none; 0 of "
              "classes without replicas"),
    per_class("slowed_s", "time of the tick for which a power limit slowed a replica of the class"),
    Port("cap_slowed_s", "out", "time of the tick for which the site's cap lowered power limits", sign=">= 0"),
)
"""Of sites whose replicas' GPUs have power limits, beside SERVING and those of a capped site."""
