"""`ieee33` with a real inference load: the Azure LLM inference trace of 2023 beside the study's training jobs.

Needs the trace's CSV: --set workload.path=AzureLLMInferenceTrace_conv.csv (Azure/AzurePublicDataset on GitHub, CC-BY
4.0; cite Patel et al., Splitwise, ISCA 2024). Runs as long as the trace does, an hour, unless
--set workload.repeat=true and --until change that; --set workload.trace_rate_scale=50 stands for fifty such services.
"""

from cosim.scenario import Scenario
from cosim.scenarios._study import (
    ARRIVALS,
    JOB_CLASSES,
    SCENARIO_HOOKS,
    SHARED,
    SOURCES,
    TRAIN_RATE_SCALE,
    links,
    members,
)

# A request may wait 5 min; up to one of them passes before the workload manager's next decision.
_REQUEST = {"kind": "inf", "work_to": 600.0, "deadline_s": "5min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 1.68e-4}
_TRAINING = {name: row for name, row in JOB_CLASSES.items() if row["kind"] == "train"}

SCENARIO = Scenario(
    name="azure_llm", about="ieee33 under a real LLM inference trace; give it by --set workload.path=FILE.csv",
    until_s=None, shared={**SHARED, "job_classes": {**_TRAINING, "llm_request": _REQUEST}},
    members=members(
        grid={"sources": SOURCES}, profile={}, controller={"policy": "nci_priority"}, aidc={},
        workload={"trace_class": "llm_request", "arrivals": {name: ARRIVALS[name] for name in _TRAINING},
                  "train_rate_scale": TRAIN_RATE_SCALE},
        arrivals_class="AzureLlm"),
    links=links(), **SCENARIO_HOOKS)
