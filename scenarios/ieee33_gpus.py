"""`ieee33_living` with GPUs of two types at every site, of which those without work sleep.

300 H100 and 100 A100 a site, published figures (`simulators/aidc/gpus/types.py`), with the share of their servers that
an awake GPU draws. A server of 8 goes to sleep when it had no job for ten minutes and takes five to wake up; 8 idle
GPUs of each type stay awake. `--set aidc.sleep=null` keeps all awake: what sleep is worth.
"""

from cosim.scenario import rows_of
from cosim.scenarios.ieee33_living import SCENARIO as LIVING

TYPES = {"H100": {"count": 300}, "A100": {"count": 100}}
_AIDC, _CONTROLLER = LIVING.members["aidc"], LIVING.members["controller"]
_SITES = {name: {**site, "gpu_types": TYPES} for name, site in rows_of(LIVING.shared["sites"], "sites").items()}

SCENARIO = LIVING.replace(
    name="ieee33_gpus", about="ieee33_living with H100 and A100 at each site, asleep when idle",
    shared={**LIVING.shared, "sites": _SITES, "routing": "arrival"},
    members={**LIVING.members, "controller": _CONTROLLER.model_copy(update={
        "params": {**_CONTROLLER.params, "spare_gpus": "inference"}}), "aidc": _AIDC.model_copy(update={
        "simulator": "cosim.simulators.aidc.gpus.adapter:GpuDataCenters",
        "params": {**_AIDC.params, "sleep": {"after_s": "10min", "keep_idle": 8, "unit_gpus": 8}}})})
