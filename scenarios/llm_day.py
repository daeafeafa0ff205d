"""Three sites that serve language models on a day on which the grid's carbon lives (that of `ieee33_living`).

Conversations on Llama-3.1-70B (4 x H100 a replica), long reasoning on Llama-3.1-405B in FP8 (8 x H100) and code
completion on Llama-3.1-8B (1 x H100), beside training that can wait. The workload is synthetic: lengths have the means
and spreads of the Azure LLM inference traces of 2023 (conversation, code), reasoning has long answers, and the rate
follows a day of a made shape, no measured one. A trace takes its place (docs/data-center.md). Requests are routed as
they arrive, by the shares of the minute; a site's GPUs are worked off within a minute, and it is full at a minute's
work per GPU. Requests come from three regions over a network, and training data lie at the first site. 16 racks of 8
H100 a site, 250 W of idle power a GPU with its host.
"""

from __future__ import annotations

from typing import Any

from cosim.scenario import Link, Member, Scenario, rows_of
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


WAN: dict[str, Any] = {
    "latency_s": {"near_aidc1": {"aidc1": 0.005, "aidc2": 0.020, "aidc3": 0.035},
                  "near_aidc2": {"aidc1": 0.020, "aidc2": 0.005, "aidc3": 0.020},
                  "overseas": {"aidc1": 0.075, "aidc2": 0.080, "aidc3": 0.085},
                  "aidc1": {"aidc2": 0.020, "aidc3": 0.035}},
    "shares": {"near_aidc1": 0.5, "near_aidc2": 0.3, "overseas": 0.2},
    "class_shares": {"fine_tuning": {"aidc1": 1.0}},
    "data_gb": {"chat": 2e-5, "reasoning": 3e-5, "code": 3e-5, "fine_tuning": 200.0}, "bandwidth_gbps": 10.0}
"""Made: half of the clients live near the first site, a fifth across an ocean (one way 75 ms and more), and the data
that is tuned on, 200 GB a job, lies at the first site. A prompt is some 20 to 30 kB of text with its protocol."""

SCENARIO = Scenario(
    name="llm_day", about="LLM serving at three sites on the living grid: replicas, KV cache, TTFT, tokens",
    until_s="24h",
    shared={**LIVING.shared, "job_classes": {**REQUESTS, **_TRAINING}, "sites": _SITES, "routing": "arrival",
            "wan": WAN},
    members=_members(), links=[*links(), Link(source="controller.max_batch", target="aidc.max_batch", optional=True)],
     summary=LIVING.summary, preflight=LIVING.preflight, verify=LIVING.verify,
    report=LIVING.report, contracts=LIVING.contracts, environment=LIVING.environment)
