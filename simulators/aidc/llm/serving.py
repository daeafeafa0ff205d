"""How a job class of kind `llm` is served: model, GPUs of a replica, batching, memory, service levels; checked whole.

A replica is one instance of the model on `gpus` GPUs (tensor parallel) with continuous batching: `replica` has the
rules. What follows from these parameters for the fleet (work of a request, speed and power of a GPU) is derived here,
so that policies and tables treat the class as they do any inference.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cosim.errors import unknown
from cosim.params import params
from cosim.simulators.aidc.gpus.equations import Curve, limited_kw, limited_speed_ratio
from cosim.simulators.aidc.gpus.speed_curves import check_curve
from cosim.simulators.aidc.llm.curves import ServingCurve
from cosim.simulators.aidc.llm.equations import kv_capacity_tokens, operations_to
from cosim.simulators.aidc.llm.published import CURVES, GPUS, MODELS, SPEED_CURVES, Gpu, LlmModel, SpeedCurves
from cosim.units import MIN_S, Seconds

MOST_TOKENS = 10_000_000
"""Of one request: far beyond any model's context."""
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
_HALVINGS = 50
_SpeedCurve = Annotated[Curve, Field(min_length=1, max_length=1000)]


@params(kw_only=True)
class Serving:
    """Parameters of LLM serving. Times and power come from `curve`, or for a model that ships from its measurements."""

    model: Annotated[str | LlmModel, Field(description=f"a model that ships ({', '.join(MODELS)}), or its numbers")]
    gpu: Annotated[str | Gpu, Field(description=f"kind of GPU ({', '.join(GPUS)}), or its numbers")]
    gpus: Annotated[int, Field(ge=1, le=1024, description="GPUs of one replica (tensor parallel)")]
    curve: Annotated[ServingCurve | None, Field(description="time and power of an iteration; null: the measurements "
                                                "that ship")] = None
    limit_kw: Annotated[float | None, Field(gt=0, le=100, description="power limit of a GPU (nvidia-smi -pl); null: "
                                            "none below its TDP")] = None
    prefill_speed_curve: Annotated[_SpeedCurve | None, Field(description=(
        "speed of prefill under a power limit: [power, speed] over those without one, rising, the last [1, 1]; null: "
        f"the one that ships for the GPU ({', '.join(SPEED_CURVES)})"))] = None
    decode_speed_curve: Annotated[_SpeedCurve | None, Field(description="the same of decode iterations")] = None
    max_batch: Annotated[int, Field(ge=1, le=100_000, description="sequences in a batch at most (max_num_seqs)")] = 256
    batched_tokens: Annotated[int, Field(ge=1, le=10_000_000, description="tokens of an iteration at most "
                                         "(max_num_batched_tokens): decode first, prompts with what is left")] = 2048
    prefill: Annotated[Literal["chunked", "separate"], Field(
        description="chunked: prompts are cut into what fits beside the decodes of an iteration; separate: iterations "
        "of whole prompts alone, in which decodes pause")] = "chunked"
    admission: Annotated[Literal["prompt", "full"], Field(
        description="KV cache a request must find free to be admitted. prompt: for its prompt, and when the cache is "
        "full the last admitted is preempted and recomputed later; full: for prompt and answer, so that none is")] = (
        "prompt")
    memory_ratio: Annotated[float, Field(gt=0, le=1, description="share of the GPUs' memory for weights and KV cache "
                                         "(gpu_memory_utilization)")] = 0.9
    max_context_tokens: Annotated[Tokens, Field(description="a request's prompt and answer together; longer ones are "
                                                "rejected")] = 32_768
    prefix_hit_ratio: Annotated[float, Field(ge=0, lt=1, description="share of each prompt whose keys and values are "
                                             "in the prefix cache: not computed again, but in memory")] = 0.0
    input_tokens: Annotated[Tokens, Field(description="typical prompt: mean of drawn ones, and what the rules plan "
                                          "with")] = 1024
    output_tokens: Annotated[Tokens, Field(description="typical answer, for the same")] = 256
    startup_s: Annotated[Seconds, Field(ge=0, le=86_400, description="time a replica takes from switched on to ready "
                                        "(weights are loaded)")] = 120.0
    keep_on_s: Annotated[Seconds, Field(ge=0, le=86_400, description="a replica is switched off when it was beyond "
                                        "every grant of this time (stabilization window of an autoscaler)")] = 300.0
    warm_start: Annotated[bool, Field(description="replicas of the first grant of a run are ready at once")] = True
    target_batch_ratio: Annotated[float, Field(gt=0, le=1, description="share of a replica's sequences that the rules "
                                               "plan with; what is left absorbs bursts")] = 0.5
    min_replicas: Annotated[int, Field(ge=0, le=10_000, description="replicas that the rules keep on at every site, so "
                                       "that a first request does not wait for startup_s")] = 1
    slo_ttft_s: Annotated[Seconds | None, Field(gt=0, description="service level: time to first token; null: none")] = (
        None)
    slo_tpot_s: Annotated[Seconds | None, Field(gt=0, description="service level: time per output token after the "
                                                "first, mean of a request; null: none")] = None
    embodied_kg_per_gpu_h: Annotated[float | None, Field(ge=0, le=100, description="embodied carbon of a GPU (with its "
                                                         "share of the server) per hour of its life, kg; null: not "
                                                         "counted")] = None

    @model_validator(mode="after")
    def _known(self) -> Serving:
        for what, name, table in (("model", self.model, MODELS), ("GPU", self.gpu, GPUS)):
            if isinstance(name, str) and name not in table:
                raise ValueError(f"{unknown(what, name, table)}; or give its numbers")
        if self.curve is None and not (isinstance(self.model, str) and isinstance(self.gpu, str)
                                       and (self.model, self.gpu, self.gpus) in CURVES):
            shipped = ", ".join(f"{m} on {k} x {g}" for m, g, k in CURVES)
            raise ValueError(f"no measurements ship for {self._what}; give `curve`, or one of: {shipped}")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Serving:
        gpu, model = self.the_gpu, self.the_model
        have_gb = gpu.memory_gb * self.gpus * self.memory_ratio
        if self.kv_tokens < 1:
            needs = math.ceil(model.weights_gb / (gpu.memory_gb * self.memory_ratio) + 1e-9)
            raise ValueError(f"{self._what}: weights of {model.weights_gb:g} GB do not fit into {have_gb:g} GB "
                             f"(memory_ratio = {self.memory_ratio:g} of {self.gpus} x {gpu.memory_gb:g} GB); it takes "
                             f"{max(needs, self.gpus + 1)} GPUs or more, or fewer bytes_per_parameter")
        if self.max_context_tokens > self.kv_tokens:
            raise ValueError(f"{self._what}: the KV cache holds {self.kv_tokens} tokens and one request may have "
                             f"max_context_tokens = {self.max_context_tokens}; make it smaller, or give the replica "
                             "more GPUs")
        if self.input_tokens + self.output_tokens > self.max_context_tokens:
            raise ValueError(f"input_tokens + output_tokens = {self.input_tokens + self.output_tokens} is more than "
                             f"max_context_tokens = {self.max_context_tokens}")
        if self.prefill == "chunked" and self.batched_tokens <= self.max_batch:
            raise ValueError(f"batched_tokens = {self.batched_tokens} leaves no token for prompts beside max_batch = "
                             f"{self.max_batch} decodes; make it larger")
        drawn = min(self.the_curve.power_w)
        if drawn < self.gpus * gpu.idle_w:
            raise ValueError(f"{self._what}: power_w = {drawn:g} is below the GPUs' idle power, {self.gpus} x "
                             f"{gpu.idle_w:g} W; power_w is of all GPUs of the replica")
        return self

    @model_validator(mode="after")
    def _limit_can_be(self) -> Serving:
        for name in ("prefill_speed_curve", "decode_speed_curve"):
            if (curve := getattr(self, name)) is not None:
                check_curve(curve, name)
        if self.limit_kw is not None:
            if (why := self.not_limited) is not None:
                raise ValueError(f"limit_kw = {self.limit_kw:g}: {why}, or leave limit_kw out")
            if not self.least_limit_kw <= self.limit_kw <= self.tdp_kw:
                prefill, decode = (curve[0][0] for curve in self.speeds)
                raise ValueError(f"limit_kw = {self.limit_kw:g} lies outside {self.least_limit_kw:.4g} to "
                                 f"{self.tdp_kw:g} kW, the GPU's TDP: the speed curves begin at {prefill:g} of what "
                                 f"prefill and {decode:g} of what the largest batch draws")
        return self

    @property
    def _what(self) -> str:
        model = self.model if isinstance(self.model, str) else "the model"
        gpu = self.gpu if isinstance(self.gpu, str) else "of its own kind"
        return f"{model} on {self.gpus} x {gpu}"

    @property
    def the_model(self) -> LlmModel:
        """The model's numbers."""
        return MODELS[self.model] if isinstance(self.model, str) else self.model

    @property
    def the_gpu(self) -> Gpu:
        """The GPU's numbers."""
        return GPUS[self.gpu] if isinstance(self.gpu, str) else self.gpu

    @property
    def the_curve(self) -> ServingCurve:
        """Time and power of an iteration."""
        return CURVES[self.model, self.gpu, self.gpus] if self.curve is None else self.curve  # type: ignore[index]

    # --- power limits -----------------------------------------------------------------------------------------------

    @property
    def speeds(self) -> SpeedCurves:
        """Speed over power, its own or as it ships; ValueError where there is neither."""
        ships = SPEED_CURVES.get(self.gpu) if isinstance(self.gpu, str) else None
        prefill, decode = (own or ships and ships[k] for k, own in enumerate((self.prefill_speed_curve,
                                                                              self.decode_speed_curve)))
        if not prefill or not decode:
            of = self.gpu if isinstance(self.gpu, str) else "a GPU of its own kind"
            raise ValueError(f"no speed under a power limit is published for {of}; give prefill_speed_curve and "
                             "decode_speed_curve")
        return SpeedCurves(prefill, decode)

    @property
    def not_limited(self) -> str | None:
        """Why its GPUs can have no power limit, and what to give; None: they can."""
        try:
            least_kw = self.least_limit_kw
        except ValueError as err:
            return str(err)
        if least_kw <= self.tdp_kw:
            return None
        return (f"by its curves {self._what} keeps no limit below {least_kw:.4g} kW, and the GPU's TDP is "
                f"{self.tdp_kw:g} kW; give speed curves that begin lower")

    @property
    def tdp_kw(self) -> float:
        """The highest power limit."""
        return self.the_gpu.tdp_w / 1e3

    @property
    def draw_kw(self) -> float:
        """The most that a GPU of a replica draws without a limit."""
        return max(self.the_curve.decode_w(self.max_batch), self.the_curve.prefill_w) / self.gpus / 1e3

    @cached_property
    def least_limit_kw(self) -> float:
        """The lowest power limit: the first points of its speed curves, and a loaded GPU without work. ValueError as
        `speeds`."""
        gpu, curve = self.the_gpu, self.the_curve
        watt = (self.speeds.decode[0][0] * curve.decode_w(self.max_batch) / self.gpus,
                self.speeds.prefill[0][0] * curve.prefill_w / self.gpus, gpu.idle_w + gpu.loaded_w)
        return max(watt) / 1e3

    def decode_ratio(self, batch: float, limit_kw: float) -> float:
        """Speed of decode iterations under a power limit over that without, 1 for an infinite one."""
        if limit_kw == math.inf:
            return 1.0
        return limited_speed_ratio(self.the_curve.decode_w(batch) / self.gpus, limit_kw * 1e3, self.speeds.decode)

    def prefill_ratio(self, limit_kw: float) -> float:
        """The same of prefill."""
        if limit_kw == math.inf:
            return 1.0
        return limited_speed_ratio(self.the_curve.prefill_w / self.gpus, limit_kw * 1e3, self.speeds.prefill)

    @property
    def own_limit_kw(self) -> float:
        """`limit_kw`; infinite: none."""
        return math.inf if self.limit_kw is None else self.limit_kw

    def slo_limit_kw(self, batch: int) -> float | None:
        """The lowest power limit at which an iteration of so many typical requests keeps `slo_tpot_s`, kW; None: none
        does, there is no such level, or no limit can be kept."""
        if self.slo_tpot_s is None or self.not_limited is not None:
            return None
        context = self.input_tokens + self.output_tokens / 2.0
        least_ratio = self.the_curve.iteration_s(batch, context) / self.slo_tpot_s
        low, high = self.least_limit_kw, self.tdp_kw
        if self.decode_ratio(batch, high) < least_ratio:
            return None
        if self.decode_ratio(batch, low) >= least_ratio:
            return low
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.decode_ratio(batch, middle) >= least_ratio else (middle, high)
        return high

    def iteration_s(self, batch: float, context_tokens: float) -> float:
        """Time of a decode iteration of sequences with so many tokens each under the class's own limit, s."""
        return self.the_curve.iteration_s(batch, context_tokens) / self.decode_ratio(batch, self.own_limit_kw)

    @property
    def kv_tokens(self) -> int:
        """Tokens that a replica's KV cache holds."""
        model, gpu = self.the_model, self.the_gpu
        return kv_capacity_tokens(gpu.memory_gb, self.gpus, self.memory_ratio, model.weights_gb, model.kv_bytes)

    def computed_tokens(self, input_tokens: int, output_tokens: int) -> int:
        """Tokens of a request that pass through the model: of the prompt what the prefix cache does not have, at least
        one, and of the answer all but the last, which the model's last pass puts out."""
        return input_tokens - self.cached_tokens(input_tokens) + output_tokens - 1

    def cached_tokens(self, input_tokens: int) -> int:
        """Tokens of a prompt that the prefix cache has."""
        return min(int(input_tokens * self.prefix_hit_ratio), input_tokens - 1)

    @property
    def to_per_token(self) -> float:
        """Work of one token through the model, TO."""
        return operations_to(self.the_model.active_billion, 1)

    def request_to(self, input_tokens: int, output_tokens: int) -> float:
        """Work of a request, TO."""
        return self.to_per_token * self.computed_tokens(input_tokens, output_tokens)

    @cached_property
    def full_batch(self) -> int:
        """Typical requests that a replica serves at once: max_batch, or what its KV cache holds of them."""
        per_request = self.input_tokens + self.output_tokens if self.admission == "full" else (
            self.input_tokens + self.output_tokens / 2.0)
        return max(1, min(self.max_batch, int(self.kv_tokens / per_request)))

    @property
    def slo_batch(self) -> int | None:
        """The largest batch in which an iteration with typical requests keeps `slo_tpot_s`; None: none does, or there
        is no such level."""
        if self.slo_tpot_s is None:
            return None
        context = self.input_tokens + self.output_tokens / 2.0
        kept = [n for n in range(1, self.max_batch + 1) if self.iteration_s(n, context) <= self.slo_tpot_s]
        return kept[-1] if kept else None

    @cached_property
    def planned_batch(self) -> int:
        """Requests per replica that the rules plan with."""
        return max(1, int(self.target_batch_ratio * self.full_batch))

    def gpu_s_per_request(self, batch: int) -> float:
        """GPU time of a typical request at a steady batch: its share of the iterations, and its prompt, s."""
        context = self.input_tokens + self.output_tokens / 2.0
        prompt = self.input_tokens - self.cached_tokens(self.input_tokens)
        return self.gpus * (self.output_tokens * self.iteration_s(batch, context) / batch
                            + prompt * self.the_curve.prefill_s_per_token / self.prefill_ratio(self.own_limit_kw))

    @property
    def to_per_gpu_min(self) -> float:
        """Speed of a GPU of a replica at `planned_batch`, TO/(GPU min): what policies plan with."""
        work = self.request_to(self.input_tokens, self.output_tokens)
        return work / self.gpu_s_per_request(self.planned_batch) * MIN_S

    @property
    def busy_kw_per_gpu(self) -> float:
        """Power of a GPU of a replica above idle at `planned_batch`, kW: what policies plan with."""
        drawn_w = limited_kw(self.the_curve.decode_w(self.planned_batch) / self.gpus, self.own_limit_kw * 1e3)
        return max(drawn_w - self.the_gpu.idle_w, 0.0) / 1e3

    @property
    def most_kw_per_gpu(self) -> float:
        """The most that a GPU of a replica draws above idle without a limit, kW."""
        return max(self.draw_kw - self.the_gpu.idle_w / 1e3, 0.0)
