"""GPUs, models and measured curves that the project ships: published figures, as numbers, with their sources.

GPUs: the vendor's data sheets (memory, bandwidth, dense 16-bit peak, TDP of the SXM modules). Models: their published
configurations (layers, key-value heads, head dimension, parameters). Curves: a few batches per configuration from

    ML.ENERGY Benchmark v3, chat task (Apache-2.0 by its data card; J.-W. Chung et al., NeurIPS Datasets and Benchmarks
    2025): median inter-token latency, mean power of all GPUs, output tokens per second, at a steady batch
    splitwise-sim, data/perf_model.csv (MIT; P. Patel et al., Splitwise, ISCA 2024): time per token and prompt, and mean
    power as a share of TDP, which is taken as of each GPU's

Speed under a power limit (SPEED_CURVES), over the power and the speed without one:

    prefill, H100   splitwise-sim, data/perf_model.csv: a prompt takes 1.30 times as long on `h100-80gb-pcap`, H100 at
                    half of TDP (Splitwise); the factor is the same in all rows, so it is their summary of what they
                    measured. A prompt draws about TDP there, so that this is taken as half of its power without a
                    limit; between, a straight line is assumed
    prefill, A100   a training step's forward and backward pass, which is as bound by computing (`gpus.speed_curves`)
    decode          LLaMA-65B on A100 (S. Samsi et al., From words to watts, HPEC 2023): limits of 175 in place of 250 W
                    took 23 % of the energy and 6 to 7 % more time, prompts included, so 72 % of the power and 94 % of
                    the speed. Of H100 the same is assumed; Splitwise's file has no slower token at half of TDP there

Of B200 neither is published; a class gives its own.

Assumed, not measured: GPU_IDLE_RATIO; MEMORY_RATIO; PROMPT_TOKENS of the chat task, which its table does not have: by
Splitwise a prompt's token takes 153 us on two H100 of a 70B model, so half of that on four, where the benchmark's
prompts take 16 ms each. What a loaded model draws above a bare idle GPU: 26 to 50 W on A100 and H100 (S. S. Vadari, The
model parking tax, arXiv 2605.23918); the lower end is taken for A100, the upper one for the others.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from cosim.params import params
from cosim.simulators.aidc.gpus.equations import Curve
from cosim.simulators.aidc.gpus.speed_curves import A100_TRAINING
from cosim.simulators.aidc.llm.curves import Measured, ServingCurve, fit
from cosim.simulators.aidc.llm.equations import kv_bytes_per_token

GPU_IDLE_RATIO = 0.1
"""Bare idle power of a GPU over its TDP, assumed; it is part of a site's idle_kw."""
MEMORY_RATIO = 0.8
"""Share of the memory bandwidth that reading the KV cache reaches, assumed."""
PROMPT_TOKENS = 209.0


@params
class Gpu:
    """A kind of GPU."""

    memory_gb: Annotated[float, Field(gt=0, le=10_000, description="memory, 1e9 bytes")]
    bandwidth_gb_per_s: Annotated[float, Field(gt=0, le=1e6, description="memory bandwidth, 1e9 bytes/s")]
    peak_tflops: Annotated[float, Field(gt=0, le=1e6, description="dense 16-bit peak, 1e12 operations/s")]
    tdp_w: Annotated[float, Field(gt=0, le=1e5, description="thermal design power, W")]
    idle_w: Annotated[float, Field(ge=0, le=1e5, description="idle power without a model, W, part of the site's "
                                   "idle_kw")]
    loaded_w: Annotated[float, Field(ge=0, le=1e5, description="what a loaded model draws above that while it has no "
                                     "work, W")]


@params(kw_only=True)
class LlmModel:
    """A model as far as serving it needs to know."""

    parameters_billion: Annotated[float, Field(gt=0, le=1e6, description="parameters, 1e9")]
    active_parameters_billion: Annotated[float | None, Field(gt=0, le=1e6, description="of them used per token, 1e9; "
                                                             "null: all")] = None
    bytes_per_parameter: Annotated[float, Field(gt=0, le=8, description="2: 16 bits, 1: FP8, 0.5: 4 bits")] = 2.0
    layers: Annotated[int, Field(ge=1, le=10_000, description="layers")]
    kv_heads: Annotated[int, Field(ge=1, le=10_000, description="heads of keys and values (GQA)")]
    head_dim: Annotated[int, Field(ge=1, le=10_000, description="dimension of a head")]
    kv_bytes_per_value: Annotated[float, Field(gt=0, le=8, description="bytes of a value in the KV cache")] = 2.0

    @property
    def active_billion(self) -> float:
        """Parameters that a token uses, 1e9."""
        return self.parameters_billion if self.active_parameters_billion is None else self.active_parameters_billion

    @property
    def weights_gb(self) -> float:
        """Memory of the weights, 1e9 bytes."""
        return self.parameters_billion * self.bytes_per_parameter

    @property
    def kv_bytes(self) -> float:
        """Memory of one token in the KV cache, bytes."""
        return kv_bytes_per_token(self.layers, self.kv_heads, self.head_dim, self.kv_bytes_per_value)


_SHEETS = {"A100": (80, 2039, 312, 400, 26), "H100": (80, 3350, 989, 700, 50), "B200": (180, 8000, 2250, 1000, 50)}
"""GB, GB/s, TFLOPS, TDP in W, W of a loaded model above idle."""

GPUS = {name: Gpu(memory, bandwidth, peak, tdp, GPU_IDLE_RATIO * tdp, loaded)
        for name, (memory, bandwidth, peak, tdp, loaded) in _SHEETS.items()}


class SpeedCurves(NamedTuple):
    """Speed of prefill and of decode iterations over the power of a GPU, both over those without a limit."""

    prefill: Curve
    decode: Curve


_DECODE: Curve = ((0.72, 0.94), (1.0, 1.0))
SPEED_CURVES = {"A100": SpeedCurves(A100_TRAINING, _DECODE),
                "H100": SpeedCurves(((0.5, round(1.0 / 1.30, 3)), (1.0, 1.0)), _DECODE)}
"""By GPU; not of those of which none is published."""

MODELS = {
    "Llama-2-70B": LlmModel(parameters_billion=69.0, layers=80, kv_heads=8, head_dim=128),
    "Llama-3.1-8B": LlmModel(parameters_billion=8.03, layers=32, kv_heads=8, head_dim=128),
    "Llama-3.1-70B": LlmModel(parameters_billion=70.6, layers=80, kv_heads=8, head_dim=128),
    "Llama-3.1-405B-FP8": LlmModel(parameters_billion=405.9, bytes_per_parameter=1.0, layers=126, kv_heads=8,
                                   head_dim=128),
    "Qwen3-32B": LlmModel(parameters_billion=32.8, layers=64, kv_heads=8, head_dim=128),
    "Qwen3-30B-A3B": LlmModel(parameters_billion=30.5, active_parameters_billion=3.3, layers=48, kv_heads=4,
                              head_dim=128),
}


class Configuration(NamedTuple):
    """Measured points of a model on so many GPUs: (batch, ITL in ms, W, output tokens per request, output tokens/s)."""

    model: str
    gpu: str
    gpus: int
    points: tuple[tuple[float, float, float, float, float], ...]


_ML_ENERGY = (
    Configuration("Llama-3.1-8B", "H100", 1, (
        (8.0, 7.32, 486, 389, 1069.6), (31.9, 8.91, 560, 390, 3391.1), (63.9, 11.50, 610, 396, 5147.2),
        (127.6, 16.48, 669, 405, 7036.5), (255.2, 26.13, 691, 404, 9009.6), (510.9, 47.41, 688, 397, 9805.6))),
    Configuration("Llama-3.1-70B", "H100", 4, (
        (8.0, 16.57, 1765, 350, 469.7), (31.9, 20.05, 1794, 351, 1486.7), (63.8, 22.43, 2002, 352, 2510.5),
        (127.6, 27.87, 2184, 359, 3876.3), (255.3, 39.84, 2354, 349, 4915.1), (510.5, 73.89, 2493, 350, 5921.3))),
    Configuration("Llama-3.1-70B", "B200", 2, (
        (8.0, 16.36, 1698, 352, 475.7), (31.9, 18.68, 1735, 346, 1589.6), (63.8, 21.75, 1811, 346, 2597.8),
        (127.7, 27.30, 1913, 353, 3977.5), (255.3, 35.84, 1942, 361, 5372.4), (510.5, 63.74, 1932, 352, 7134.0))),
    Configuration("Llama-3.1-405B-FP8", "H100", 8, (
        (8.0, 33.20, 3260, 366, 233.3), (31.9, 36.33, 3744, 372, 785.7), (63.9, 39.32, 4162, 360, 1350.2),
        (127.7, 48.04, 4606, 361, 1895.9), (255.2, 66.90, 4875, 367, 2363.4))),
    Configuration("Qwen3-32B", "H100", 2, (
        (8.0, 15.06, 850, 631, 522.5), (31.9, 17.91, 944, 642, 1706.1), (63.9, 22.45, 974, 635, 2653.8),
        (127.8, 29.66, 1074, 624, 3905.3), (255.6, 44.45, 1178, 634, 5155.5))),
    Configuration("Qwen3-30B-A3B", "H100", 2, (
        (8.0, 9.36, 684, 901, 830.8), (32.0, 15.39, 833, 927, 2026.0), (63.9, 18.70, 895, 918, 3290.2),
        (127.9, 27.42, 900, 919, 4546.2), (255.8, 34.58, 955, 920, 7154.1), (511.1, 47.39, 953, 927, 9650.0))),
)

_SPLITWISE_STEPS = ((1, 54.8, 0.736), (2, 59.9, 0.745), (4, 60.5, 0.741), (8, 61.7, 0.762), (16, 65.5, 0.794))
"""Llama-2-70B on two A100, prompts of 512 and answers of 128 tokens: (batch, ms per token, mean power over TDP)."""
_SPLITWISE_PROMPT_S = 0.000362
"""There, per token of a prompt: 377 ms for 1024, 687 ms for 2048, 1481 ms for 4096."""


def measured() -> list[Measured]:
    """The benchmark's points that ship, as rows of a table of measurements."""
    return [Measured(c.model, c.gpu, c.gpus, batch, itl_ms / 1e3, watt, output, per_s, watt / per_s)
            for c in _ML_ENERGY for batch, itl_ms, watt, output, per_s in c.points]


def _curves() -> dict[tuple[str, str, int], ServingCurve]:
    made = {}
    for model, gpu, gpus in dict.fromkeys((row.model, row.gpu, row.gpus) for row in measured()):
        rows = [row for row in measured() if (row.model, row.gpu, row.gpus) == (model, gpu, gpus)]
        output = sum(row.output_tokens for row in rows) / len(rows)
        made[model, gpu, gpus] = curve_of(rows, MODELS[model], GPUS[gpu], PROMPT_TOKENS, PROMPT_TOKENS + output / 2.0,
                                          "ML.ENERGY Benchmark v3, chat")
    model, gpu, gpus = "Llama-2-70B", "A100", 2
    batch, step_ms, tdp_ratio = (list(column) for column in zip(*_SPLITWISE_STEPS, strict=True))
    watt = [gpus * GPUS[gpu].tdp_w * ratio for ratio in tdp_ratio]
    watt[2] = watt[1]  # 0.741 after 0.745: levelled
    made[model, gpu, gpus] = ServingCurve(
        batch=tuple(batch), step_s=tuple(ms / 1e3 for ms in step_ms), power_w=tuple(watt), context_tokens=512 + 64,
        context_s_per_token=_context_s(MODELS[model], GPUS[gpu], gpus), prefill_s_per_token=_SPLITWISE_PROMPT_S,
        prefill_power_w=gpus * GPUS[gpu].tdp_w, source="Splitwise (splitwise-sim, perf_model.csv)")
    return made


def _context_s(model: LlmModel, gpu: Gpu, gpus: int) -> float:
    """Time to read one token of the KV cache at MEMORY_RATIO of the bandwidth, s."""
    return model.kv_bytes / (gpus * gpu.bandwidth_gb_per_s * 1e9 * MEMORY_RATIO)


def curve_of(rows: list[Measured], model: LlmModel, gpu: Gpu, prompt_tokens: float, context_tokens: float, source: str
             ) -> ServingCurve:
    """The curve that is fitted to measured rows of one model on one kind of GPUs.

    prompt_tokens: mean per request in the measurement; context_tokens: mean in the KV cache per sequence.
    """
    fitted = fit(rows)
    return ServingCurve(batch=tuple(fitted.batch), step_s=tuple(fitted.step_s), power_w=tuple(fitted.power_w),
                        context_tokens=context_tokens, context_s_per_token=_context_s(model, gpu, rows[0].gpus),
                        prefill_s_per_token=fitted.prefill_s / prompt_tokens, source=source)


CURVES = _curves()
"""(model, GPU, GPUs of a replica) -> curve."""
