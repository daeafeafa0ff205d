"""Three sites that serve language models on a day on which the grid's carbon lives (that of `ieee33_living`).

Conversations on Llama-3.1-70B (4 x H100 a replica), long reasoning on Llama-3.1-405B in FP8 (8 x H100) and code
completion on Llama-3.1-8B (1 x H100), beside training that can wait. The workload is synthetic: lengths have the means
and spreads of the Azure LLM inference traces of 2023 (conversation, code), reasoning has long answers, and the rate
follows a day of a made shape, no measured one. A trace takes its place (docs/data-center.md). Requests are routed as
they arrive, by the shares of the minute; a site's GPUs are worked off within a minute, and it is full at a minute's
work per GPU. 16 racks of 8 H100 a site, 250 W of idle power a GPU with its host.
"""

from __future__ import annotations

from typing import Any

from cosim.scenario import Member, Scenario, rows_of
from cosim.scenarios._study import ARRIVALS, JOB_CLASSES, links
from cosim.scenarios.ieee33_living import SCENARIO as LIVING

H100: dict[str, Any] = {"gpu": "H100", "prefill": "chunked", "embodied_kg_per_gpu_h": None}
REQUESTS: dict[str, dict[str, Any]] = {
    "chat": {"kind": "llm", "deadline_s": "60s", "serving": {
        **H100, "model": "Llama-3.1-70B", "gpus": 4, "input_tokens": 1155, "output_tokens": 211, "slo_ttft_s": "1s",
        "slo_tpot_s": 0.05}},
    "reasoning": {"kind": "llm", "deadline_s": "5min", "serving": {
        **H100, "model": "Llama-3.1-405B-FP8", "gpus": 8, "input_tokens": 2000, "output_tokens": 2000,
        "slo_ttft_s": "5s", "slo_tpot_s": 0.1}},
    "code": {"kind": "llm", "deadline_s": "30s", "serving": {
        **H100, "model": "Llama-3.1-8B", "gpus": 1, "input_tokens": 2048, "output_tokens": 28, "slo_ttft_s": "1s",
        "slo_tpot_s": 0.05}},
}

HOURS = [0.45, 0.35, 0.30, 0.30, 0.35, 0.45, 0.65, 0.90, 1.15, 1.35, 1.45, 1.45, 1.40, 1.45, 1.50, 1.50, 1.45, 1.35,
         1.25, 1.20, 1.15, 1.05, 0.85, 0.70]
"""Times the mean rate of requests, by the hour: made, with a night at a fifth of the afternoon."""
RATES = {"chat": 160.0, "reasoning": 120.0, "code": 120.0}
_TRAINING = {"fine_tuning": JOB_CLASSES["vae"]}

_SITES = {name: {**site, "racks": 16, "idle_kw": 32.0}
          for name, site in rows_of(LIVING.shared["sites"], "sites").items()}


def _arrivals() -> dict[str, dict[str, Any]]:
    """Mean rates, jobs/min; requests and training alike follow the day."""
    return {**{name: {"mean_per_min": rate} for name, rate in RATES.items()}, "fine_tuning": ARRIVALS["vae"]}


def _members() -> dict[str, Member]:
    """The living study's simulators, with data centers that serve language models."""
    old = LIVING.members
    return {**old,
            "workload": old["workload"].model_copy(update={"params": {
                "arrivals": _arrivals(), "train_rate_scale": 0.3, "day_factors": HOURS,
                "lengths": {"code": {"input_sigma": 1.36, "output_sigma": 0.85}}}}),
            "controller": old["controller"].model_copy(update={"params": {
                "policy": "nci_priority", "drain_min": 1.0, "fill_horizon_min": 1.0}}),
            "aidc": old["aidc"].model_copy(update={
                "simulator": "cosim.simulators.aidc.llm.adapter:LlmDataCenters"})}


SCENARIO = Scenario(
    name="llm_day", about="LLM serving at three sites on the living grid: replicas, KV cache, TTFT, tokens",
    until_s="24h",
    shared={**LIVING.shared, "job_classes": {**REQUESTS, **_TRAINING}, "sites": _SITES, "routing": "arrival"},
    members=_members(), links=links(), summary=LIVING.summary, preflight=LIVING.preflight, verify=LIVING.verify,
    report=LIVING.report, contracts=LIVING.contracts, environment=LIVING.environment)
