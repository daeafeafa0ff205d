"""The smallest loop, with numbers made for checking by hand: one line, one data center, one small turbine.

Every minute brings 10 queries of 1 GPU-minute and one training job of 2 GPU-minutes on a block of 2 GPUs, so that 12
GPUs of 1 kW each are busy all the time; cooling adds a quarter (COP 4, no tower); the tariff is flat at night.
"""

from cosim.scenario import Scenario
from cosim.scenarios._study import SCENARIO_HOOKS, links, members

_SPEED = {"to_per_gpu_min": 6.0e4, "kw_per_to_s": 1.0e-3}

SCENARIO = Scenario(
    name="two_bus", about="the smallest loop: one line, one data center, all checkable by hand", until_s="45min",
    shared={
        "job_classes": {
            "train": {"kind": "train", "work_to": 1.2e5, "deadline_s": "60min", "gpus_per_block": 2, **_SPEED},
            "query": {"kind": "inf", "work_to": 6.0e4, "deadline_s": "10min", **_SPEED},
        },
        "sites": {"aidc1": {"node": 1, "racks": 10, "gpus_per_rack": 8, "idle_kw": 20.0, "q_per_p_ratio": 0.2}},
        "deferrals_s": [0.0],
        "network": {"base_kv": 10.0, "base_mva": 1.0,
                    "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 1.0, "x_ohm": 2.0}],
                    "loads": [{"bus": 1, "p_kw": 60.0, "q_kvar": 20.0}]},
    },
    members=members(
        grid={"sources": {"substation": {"node": 0, "kg_per_kwh": 0.3, "p_min_kw": 0.0},
                          "turbine": {"node": 1, "kg_per_kwh": 0.2, "p_max_kw": 50.0, "q_min_kvar": 0.0,
                                      "q_max_kvar": 0.0}}},
        profile={"shape": [1.0] * 96},
        workload={"arrivals": {"train": {"mean_per_min": 1.0}, "query": {"mean_per_min": 10.0}}, "counts": "round"},
        controller={"policy": "uniform", "drain_min": 1.0},
        aidc={"cooling": {"supply_offset_degc": 4.0, "return_approach_degc": -4.0, "cop": [0.0, 0.0, 4.0],
                          "tower_ref_kw": 0.0}},
        arrivals_class="Arrivals"),
    links=links(), **SCENARIO_HOOKS)
