"""What an iteration of a replica takes and draws over its batch: a curve through measured points, and its fit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from cosim.errors import ScenarioError
from cosim.params import params
from cosim.simulators.aidc.llm.equations import at, not_falling
from cosim.units import Seconds

Numbers = Annotated[tuple[float, ...], Field(min_length=1, max_length=1000)]
FALL_RATIO = 0.5
"""Measured time or power that falls by more than this share from one batch to a larger one is a mistake; less is
levelled, and what that costs shows in the errors."""


@params(kw_only=True)
class ServingCurve:
    """Time and power of one replica of a model on its GPUs, over the batch (sequences in an iteration).

    Between the points, which a table of measurements gives, both are linear in the batch; beyond them the first and the
    last piece go on. `power_w` is what the replica's GPUs draw together, their idle power included.
    """

    batch: Annotated[Numbers, Field(description="sequences in the batch, ascending")]
    step_s: Annotated[Numbers, Field(description="time of a decode iteration at these batches (the inter-token "
                                     "latency), s")]
    power_w: Annotated[Numbers, Field(description="power of the replica's GPUs in it, W")]
    context_tokens: Annotated[float, Field(ge=0, le=1e7, description="mean tokens in the KV cache per sequence at "
                                           "these points")] = 0.0
    context_s_per_token: Annotated[Seconds, Field(ge=0, le=1, description="time to read one token of the KV cache in "
                                                  "an iteration")] = 0.0
    prefill_s_per_token: Annotated[Seconds, Field(ge=0, le=1, description="time of one token of a prompt")]
    prefill_power_w: Annotated[float | None, Field(ge=0, description="power of the replica's GPUs while they prefill, "
                                                   "W; null: that of the largest batch")] = None
    source: Annotated[str, Field(description="where the points come from")] = "given in the scenario"

    @model_validator(mode="after")
    def _can_be(self) -> ServingCurve:
        points = len(self.batch)
        for name in ("step_s", "power_w"):
            if len(getattr(self, name)) != points:
                raise ValueError(f"{name} has {len(getattr(self, name))} points and batch {points}; give one for each")
        if self.batch[0] < 1 or any(b <= a for a, b in zip(self.batch, self.batch[1:], strict=False)):
            raise ValueError(f"batch = {list(self.batch)} must ascend from 1 or more")
        if min(self.step_s) <= 0 or min(self.power_w) <= 0:
            raise ValueError("step_s and power_w must be positive")
        for name in ("step_s", "power_w"):
            values = getattr(self, name)
            for a, b, x, y in zip(values, values[1:], self.batch, self.batch[1:], strict=False):
                if b < a:
                    raise ValueError(f"{name} falls from {a:g} to {b:g} between batch {x:g} and {y:g}; more sequences "
                                     "take no less time and power: correct the points, or have them fitted (cosim "
                                     "serving-curves)")
        own = [self.base_s(b) for b in self.batch]
        if own[0] <= 0 or any(b < a for a, b in zip(own, own[1:], strict=False)):
            raise ValueError(f"context_s_per_token = {self.context_s_per_token:g} at context_tokens = "
                             f"{self.context_tokens:g} takes more time than step_s grows by; make one of them smaller")
        return self

    def base_s(self, batch: float) -> float:
        """f(n): time of an iteration without what reading the KV cache takes, s; > 0."""
        own = [t - self.context_s_per_token * self.context_tokens * b
               for t, b in zip(self.step_s, self.batch, strict=True)]
        return max(at(batch, self.batch, own), 0.1 * own[0])

    def iteration_s(self, batch: float, context_tokens: float) -> float:
        """Time of a decode iteration of sequences with so many tokens each, s."""
        return self.base_s(batch) + self.context_s_per_token * batch * context_tokens

    def decode_w(self, batch: float) -> float:
        """Power in a decode iteration, W; > 0."""
        return max(at(batch, self.batch, self.power_w), 0.1 * self.power_w[0])

    @property
    def prefill_w(self) -> float:
        """Power while prompts are prefilled, W."""
        return self.power_w[-1] if self.prefill_power_w is None else self.prefill_power_w


class Measured(NamedTuple):
    """One measured configuration of a serving benchmark: a model on so many GPUs at a steady batch.

    batch           mean sequences in the batch
    itl_s           inter-token latency, median, s
    power_w         of all GPUs together, mean, W
    output_tokens   per request, mean
    tokens_per_s    output tokens of the whole replica; NaN: not measured, batch / itl_s then
    joules          per output token
    """

    model: str
    gpu: str
    gpus: int
    batch: float
    itl_s: float
    power_w: float
    output_tokens: float
    tokens_per_s: float
    joules: float

    @property
    def tpot_s(self) -> float:
        """Mean time per output token of a request, prompts of others that came in between included, s."""
        return self.batch / self.tokens_per_s


class Fitted(NamedTuple):
    """A curve's numbers from measured points: see `ServingCurve`; prefill_s is the time by which the prompt of one
    request holds up an iteration, s."""

    batch: list[float]
    step_s: list[float]
    power_w: list[float]
    prefill_s: float

    def tpot_s(self, batch: float, output_tokens: float) -> float:
        """Mean time per output token at a steady batch: each iteration carries batch / output_tokens prompts, s."""
        return at(batch, self.batch, self.step_s) + batch / output_tokens * self.prefill_s

    def joules(self, batch: float, output_tokens: float) -> float:
        """Energy per output token, J."""
        return at(batch, self.batch, self.power_w) * self.tpot_s(batch, output_tokens) / batch


def fit(points: Sequence[Measured]) -> Fitted:
    """A curve through measured points of one model on one kind of GPUs.

    Iterations take the median inter-token latency, which has no prompt in it as long as most iterations have none; what
    the mean takes longer is the prompts', batch / output_tokens of them per iteration, and the median over the points
    is prefill_s. Time and power that fall a little from one batch to the next are levelled (`not_falling`).
    ScenarioError for fewer than two batches, and for a fall by more than FALL_RATIO.
    """
    rows = sorted(points, key=lambda row: row.batch)
    what = f"{rows[0].model} on {rows[0].gpus} x {rows[0].gpu}" if rows else "the table"
    merged: list[Measured] = []
    for row in rows:
        if not merged or row.batch > merged[-1].batch:
            merged.append(row)
    if len(merged) < 2:
        raise ScenarioError(f"{what} has {len(merged)} measured batches; a curve takes two or more")
    for name in ("itl_s", "power_w"):
        for a, b in zip(merged, merged[1:], strict=False):
            if getattr(b, name) < (1.0 - FALL_RATIO) * getattr(a, name):
                raise ScenarioError(f"{what}: {name} falls from {getattr(a, name):g} to {getattr(b, name):g} between "
                                    f"batch {a.batch:g} and {b.batch:g}, more than noise; leave one of the rows out")
    per_request = [(row.tpot_s - row.itl_s) * row.output_tokens / row.batch for row in merged]
    return Fitted([row.batch for row in merged], not_falling([row.itl_s for row in merged]),
                  not_falling([row.power_w for row in merged]), max(median(per_request), 0.0))


class HeldOut(NamedTuple):
    """A measured point beside the value of the curve through the other points."""

    row: Measured
    tpot_s: float
    joules: float

    @property
    def tpot_error(self) -> float:
        """Relative deviation of the time per output token."""
        return self.tpot_s / self.row.tpot_s - 1.0

    @property
    def joules_error(self) -> float:
        """Relative deviation of the energy per output token."""
        return self.joules / self.row.joules - 1.0


def held_out(points: Sequence[Measured]) -> list[HeldOut]:
    """Every point but the smallest and the largest batch, each against the fit without it."""
    rows = sorted(points, key=lambda row: row.batch)
    found = []
    for k in range(1, len(rows) - 1):
        row, curve = rows[k], fit(rows[:k] + rows[k + 1:])
        found.append(HeldOut(row, curve.tpot_s(row.batch, row.output_tokens),
                             curve.joules(row.batch, row.output_tokens)))
    return found
