"""What is recorded of LLM serving: columns of its tables, and what a class did in a tick."""

from __future__ import annotations

from typing import NamedTuple

REQUEST_COLUMNS = (
    "id", "job_class", "site", "arrival_s", "input_tokens", "output_tokens",
    "generated_tokens",  # of the answer, at its end
    "prefilled_tokens",  # of the prompt, computed; with those computed again after a preemption
    "start_s",  # admitted to a batch for the first time, NaN: never
    "first_token_s",  # NaN: none came
    "end_s",  # NaN: it is still inside
    "preemptions", "outcome",
    "return_s",  # that an answer travels from the site to the client
)  # fmt: skip
USE_COLUMNS = ("id", "site", "start_s", "end_s", "gpus", "dynamic_kw")
"""A request's share of its replica in a piece of a tick: means of GPUs and of power above the GPUs' idle power."""
GAP_COLUMNS = ("site", "job_class", "time_s", "gap_from_s", "gap_to_s", "tokens")
"""Tokens of a tick, by how long after the one before of their answer they came, first tokens left out."""


class ServingTick(NamedTuple):
    """What a class did in a tick at a site; powers above the GPUs' idle power, means over the tick.

    dynamic_kw, ready_kw, ready_gpus   of all replicas; of it and of their GPUs, replicas without work
    prefill_tokens, output_tokens      of prompts computed, of answers put out
    replicas, starting_replicas, kv_ratio   at its end: on; of them not ready; KV cache in use
    slowed_s                           time for which a power limit slowed a replica
    """

    dynamic_kw: float
    ready_kw: float
    ready_gpus: float
    prefill_tokens: float
    output_tokens: float
    preemptions: float
    replicas: float
    starting_replicas: float
    kv_ratio: float
    slowed_s: float = 0.0
