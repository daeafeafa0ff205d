"""`ieee33` with the training load of a real GPU cluster: tasks of a trace beside the study's inference.

Needs the trace's file, --set workload.path=openb_pod_list_default.csv (alibaba/clusterdata on GitHub, trace
cluster-trace-gpu-v2023; cite Weng et al., USENIX ATC 2023), or one in the Standard Workload Format with
--set workload.format=swf. The openb trace begins with months of few tasks, so its last four weeks are played; a task
needs as much GPU time here as there, and has a week for it.
"""

from cosim.scenario import Scenario
from cosim.scenarios._study import (
    ARRIVALS,
    INF_SIZE_SCALE,
    JOB_CLASSES,
    SCENARIO_HOOKS,
    SHARED,
    SOURCES,
    links,
    members,
)

_TASK = {"kind": "train", "work_to": 1e8, "deadline_s": "168h", "to_per_gpu_min": 6.0e4, "kw_per_to_s": 7.0e-4,
         "gpus_per_block": 4, "max_blocks": 4}
_INFERENCE = {name: row for name, row in JOB_CLASSES.items() if row["kind"] == "inf"}

_MEMBERS = members(
    grid={"sources": SOURCES}, profile={}, controller={"policy": "nci_priority"}, aidc={},
    workload={"trace_class": "task", "begin_s": 10_500_000.0, "arrivals": {name: ARRIVALS[name] for name in _INFERENCE},
              "inf_size_scale": INF_SIZE_SCALE},
    arrivals_class="Arrivals")
_CLUSTER = _MEMBERS["workload"].model_copy(update={"simulator": "cosim.simulators.workload.cluster:ClusterTrace"})

SCENARIO = Scenario(
    name="openb", about="ieee33 with the tasks of a GPU cluster as training; --set workload.path=FILE.csv",
    until_s="24h", shared={**SHARED, "job_classes": {"task": _TASK, **_INFERENCE}},
    members={**_MEMBERS, "workload": _CLUSTER}, links=links(), **SCENARIO_HOOKS)
