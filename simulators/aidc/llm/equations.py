"""Iterations of an LLM server in closed form: their times, the memory of their KV cache, and the work of a request.

An iteration computes one token of every sequence that decodes, and chunks of prompts. Its time is

    f(n) + c K + p T

n sequences in the batch (weights are read once, whatever n is, so that f grows slower than n), K tokens in the KV cache
that attention reads, T tokens of prompts that are prefilled. While the batch stays the same, K grows by n per iteration
and the times of iterations form an arithmetic series: a run of them needs no event in between. Attention within a
prompt, quadratic in its length, is part of p (a mean).

Iteration-level scheduling: G.-I. Yu et al., Orca, OSDI 2022; paged KV cache and preemption by recomputation: W. Kwon et
al., vLLM, SOSP 2023; chunked prefill: A. Agrawal et al., Sarathi-Serve, OSDI 2024. Pure functions, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TO = 1e12
"""Operations in 1 TO."""


def run_s(base_s: float, context_s: float, context_tokens: int, batch: int, steps: int) -> float:
    """Time of `steps` decode iterations of a batch, s.

    base_s: f(n); context_s: c, s per token in the cache; context_tokens: K at the first of them; batch: n.
    """
    return (steps * (base_s + context_s * context_tokens)
            + context_s * batch * (steps * (steps - 1) // 2))


def steps_within(base_s: float, context_s: float, context_tokens: int, batch: int, elapsed_s: float) -> int:
    """Iterations that are complete `elapsed_s` >= 0 after the first began: the largest n with run_s(n) <= elapsed_s."""
    if elapsed_s <= 0.0:
        return 0
    half = 0.5 * context_s * batch
    first = base_s + context_s * context_tokens - half
    steps = int(2.0 * elapsed_s / (first + math.sqrt(first * first + 4.0 * half * elapsed_s)))
    while run_s(base_s, context_s, context_tokens, batch, steps + 1) <= elapsed_s:
        steps += 1
    while steps and run_s(base_s, context_s, context_tokens, batch, steps) > elapsed_s:
        steps -= 1
    return steps


def steps_until(base_s: float, context_s: float, context_tokens: int, batch: int, elapsed_s: float) -> int:
    """The first iteration that ends at `elapsed_s` or later: the smallest n >= 1 with run_s(n) >= elapsed_s."""
    steps = steps_within(base_s, context_s, context_tokens, batch, elapsed_s)
    if steps and run_s(base_s, context_s, context_tokens, batch, steps) == elapsed_s:
        return steps
    return steps + 1


def kv_bytes_per_token(layers: int, kv_heads: int, head_dim: int, bytes_per_value: float) -> float:
    """Keys and values of one token in all layers, bytes."""
    return 2.0 * layers * kv_heads * head_dim * bytes_per_value


def kv_capacity_tokens(memory_gb: float, gpus: int, usable_ratio: float, weights_gb: float, bytes_per_token: float
                       ) -> int:
    """Tokens that fit beside the weights into the usable share of a replica's memory; below 0: the weights do not."""
    return math.floor((memory_gb * gpus * usable_ratio - weights_gb) * 1e9 / bytes_per_token)


def operations_to(active_parameters_billion: float, tokens: float) -> float:
    """Work of a forward pass of so many tokens, TO: 2 operations per active parameter and token (J. Kaplan et al.,
    Scaling laws for neural language models, 2020; attention left out)."""
    return 2.0 * active_parameters_billion * 1e9 * tokens / TO


def prefill_s_per_token(active_parameters_billion: float, peak_tflops: float, gpus: int, peak_ratio: float) -> float:
    """Time of a prompt's token where prefill reaches a share of the GPUs' peak, s."""
    return 2.0 * active_parameters_billion * 1e9 / (gpus * peak_tflops * 1e12 * peak_ratio)


def at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Piecewise linear through the points; beyond them the first and the last piece go on. One point: constant."""
    if len(xs) == 1:
        return ys[0]
    k = 0
    while k < len(xs) - 2 and x > xs[k + 1]:
        k += 1
    return ys[k] + (ys[k + 1] - ys[k]) * (x - xs[k]) / (xs[k + 1] - xs[k])


def not_falling(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The nearest sequence (least squares) that does not fall: isotonic regression by pooling adjacent violators
    (R. E. Barlow et al., Statistical Inference under Order Restrictions, 1972)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [value for value, _, number in pools for _ in range(number)]
