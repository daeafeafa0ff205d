"""`ieee33` with jobs of your own and no others: a table with a row per job, from a scheduler or a published log.

Needs the file: --set workload.path=FILE. CSV, Parquet, sacct -P, Standard Workload Format, and the layouts of Helios,
Philly, Acme, Alibaba, BurstGPT, Mooncake and Azure are known by their columns. The run begins at midnight UTC of the
first job and ends when the last one has, or is dropped; job classes are those of the file. Jobs reach their site as
they arrive, and what no decision grants is free for inference.
"""

from cosim.scenario import Scenario
from cosim.scenarios._study import SCENARIO_HOOKS, SHARED, SOURCES, links, members

SCENARIO = Scenario(
    name="jobs", about="ieee33 with jobs of your own from a table or a log; --set workload.path=FILE",
    start=None, until_s=None, shared={**SHARED, "job_classes": {}, "routing": "arrival"},
    members=members(grid={"sources": SOURCES}, profile={}, aidc={}, workload={}, arrivals_class="JobTable",
                    controller={"policy": "nci_priority", "spare_gpus": "inference"}),
    links=links(), **SCENARIO_HOOKS)
