"""Tokens of LLM requests: how many a prompt and an answer have, drawn or as recorded."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.params import params
from cosim.simulators.aidc.llm.serving import Serving

Sigma = Annotated[float, Field(ge=0, le=5)]


@params
class TokenLengths:
    """Lognormal lengths of prompts and answers, whose means are `input_tokens` and `output_tokens` of the class.

    The spreads are those of the logarithms in the Azure LLM inference trace of 2023, conversations (0.99 and 0.86; its
    means are 1155 and 211 tokens). Lengths are whole, 1 or more, and together at most the class's `max_context_tokens`.
    """

    input_sigma: Annotated[Sigma, Field(description="standard deviation of the logarithm of a prompt's tokens")] = 0.99
    output_sigma: Annotated[Sigma, Field(description="the same of an answer's")] = 0.86

    def draw(self, number: int, serving: Serving, rng: np.random.Generator) -> np.ndarray:
        """(number, 2) tokens of prompts and answers, int64."""
        sigma = np.array([self.input_sigma, self.output_sigma])
        means = np.array([math.log(serving.input_tokens), math.log(serving.output_tokens)])
        drawn = np.rint(np.exp(means - sigma**2 / 2.0 + sigma * rng.standard_normal((number, 2))))
        most = serving.max_context_tokens
        prompt = np.clip(drawn[:, 0], 1, most - 1)
        return np.column_stack([prompt, np.clip(drawn[:, 1], 1, most - prompt)]).astype(np.int64)


def requests_to(tokens: np.ndarray, serving: Serving) -> np.ndarray:
    """(n,) work of requests with (n, 2) tokens, TO: `Serving.request_to` of each."""
    given, asked = tokens[:, 0], tokens[:, 1]
    cached = np.minimum((given * serving.prefix_hit_ratio).astype(np.int64), given - 1)
    return serving.to_per_token * (given - cached + asked - 1)
