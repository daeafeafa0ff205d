"""The study's data (Table I of the paper) and the wiring its scenarios share.

`study(...)` makes one scenario; the modules beside it differ only in what they pass. All values are parameters that
`--set` reaches; where the paper's own value cannot work, the comment states which decision replaced it.

Rows: B07, I25, M03, M04, P01-42, U17, X16, Z01, Z03, Z07, Z08.
"""

from __future__ import annotations

from typing import Any

from cosim.scenario import Link, Member, Scenario

HOURS = 3600.0

JOB_CLASSES: dict[str, dict[str, Any]] = {
    "llm": {"kind": "train", "work_to": 6.91e8, "deadline_s": "720min", "to_per_gpu_min": 6.0e4, "kw_per_to_s": 7.0e-4,
            "gpus_per_block": 16, "max_blocks": 6},
    "vae": {"kind": "train", "work_to": 2.88e8, "deadline_s": "720min", "to_per_gpu_min": 6.0e4, "kw_per_to_s": 7.0e-4,
            "gpus_per_block": 8, "max_blocks": 5},
    "deep_research": {"kind": "inf", "work_to": 3.01e7, "deadline_s": "30min", "to_per_gpu_min": 2.5e5,
                      "kw_per_to_s": 1.68e-4},
    "search": {"kind": "inf", "work_to": 1.5e7, "deadline_s": "15min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 1.68e-4},
}

ARRIVALS: dict[str, dict[str, Any]] = {
    "llm": {"mean_per_min": 0.0585, "amplitude_per_min": 0.0117, "period_min": 120, "sigma_per_min": 0.0062},
    "vae": {"mean_per_min": 0.0840, "amplitude_per_min": 0.0210, "period_min": 90, "sigma_per_min": 0.0168},
    "deep_research": {"mean_per_min": 16.5, "amplitude_per_min": 1.65, "period_min": 60, "phase": 10.0,
                      "sigma_per_min": 0.825},
    "search": {"mean_per_min": 110.0, "amplitude_per_min": 8.25, "period_min": 30, "phase": 5.0, "sigma_per_min": 2.75},
}

SITES = {"aidc1": {"node": 8}, "aidc2": {"node": 28}, "aidc3": {"node": 32}}

SOURCES: dict[str, dict[str, Any]] = {
    "substation": {"node": 0, "kg_per_kwh": 0.30, "p_min_kw": 0.0, "p_max_kw": None, "q_min_kvar": None,
                   "q_max_kvar": None},
    **{f"gt{node}": {"node": node, "kg_per_kwh": intensity, "p_min_kw": 0.0, "p_max_kw": 500.0, "q_min_kvar": -300.0,
                     "q_max_kvar": 300.0}
       for node, intensity in ((6, 0.35), (25, 0.65), (30, 0.90))},
}

DEFERRALS_S = [0.0, 2 * HOURS, 4 * HOURS, 6 * HOURS, 8 * HOURS, 10 * HOURS]

SHARED = {"job_classes": JOB_CLASSES, "sites": SITES, "deferrals_s": DEFERRALS_S, "network": "case33bw"}

SCENARIO_HOOKS = {"preflight": "cosim.simulators.analysis.metrics:preflight",
                  "summary": "cosim.simulators.analysis.metrics:summary",
                  "verify": "cosim.simulators.analysis.conservation:verify",
                  "report": "cosim.simulators.reporting.sections:REPORT",
                  "contracts": "cosim.simulators.contracts:CONTRACTS",
                  "environment": "cosim.simulators.controller.steering:Steering"}

# I02, I01: with Table I as printed the offered load is eight times the capacity; these two factors bring it to 77 %.
TRAIN_RATE_SCALE, INF_SIZE_SCALE = 0.7, 0.02

# Inputs from an AIDC to a grid and a controller are one of its steps old: the loop is closed here and nowhere else.
LATER = "step"


def links() -> list[Link]:
    """The closed loop of the study: connections and their delays."""
    state = ("p_kw", "queued_jobs", "deferred_jobs", "running_jobs", "pending_work_to", "deferred_work_to",
             "late_jobs", "urgent_jobs", "slack_min", "free_gpu_ratio")
    return [
        Link(source="profile.p_kw", target="grid.p_load_kw"),
        Link(source="profile.q_kvar", target="grid.q_load_kvar"),
        Link(source="aidc.p_window_kw", target="grid.p_site_kw", or_port="p_load_kw", pairs="sites:bus{node}",
             shift_s=LATER),
        Link(source="aidc.q_window_kvar", target="grid.q_site_kvar", or_port="q_load_kvar", pairs="sites:bus{node}",
             shift_s=LATER),
        Link(source="grid.nci_kg_per_kwh", target="controller.nci_kg_per_kwh", pairs="sites:bus{node}"),
        Link(source="grid.mci_kg_per_kwh", target="controller.mci_kg_per_kwh", pairs="sites:bus{node}", optional=True),
        Link(source="workload.jobs", target="controller.jobs"),
        Link(source="tariff.price_usd_per_kwh", target="controller.price_usd_per_kwh"),
        Link(source="tariff.forecast_usd_per_kwh", target="controller.forecast_usd_per_kwh"),
        *(Link(source=f"aidc.{port}", target=f"controller.{port}", shift_s=LATER) for port in state),
        *(Link(source=f"controller.{port}", target=f"aidc.{port}") for port in ("jobs", "gpus", "supply_temp_degc")),
    ]


_ARRIVALS = {"Arrivals": "cosim.simulators.workload.adapter:Arrivals",
             "JobTable": "cosim.simulators.workload.job_table:JobTable",
             "AzureLlm": "cosim.simulators.workload.azure_llm:AzureLlm"}


def members(*, grid: dict[str, Any], profile: dict[str, Any], workload: dict[str, Any], controller: dict[str, Any],
            aidc: dict[str, Any], arrivals_class: str) -> dict[str, Member]:
    """The study's simulators; entities of aidc and controller are the rows of shared.sites, those of profile and grid
    the buses of shared.network."""
    return {
        "workload": Member(simulator=_ARRIVALS[arrivals_class], step_s=60,
                           entities={"Arrivals": ["workload"]}, params=workload),
        "tariff": Member(simulator="cosim.simulators.tariff:TimeOfUse", step_s=60, entities={"Tariff": ["tariff"]}),
        "profile": Member(simulator="cosim.simulators.profile:Profile", step_s=900, entities={"Load": "network"},
                          params=profile),
        "grid": Member(simulator="cosim.simulators.grid.adapter:CefDispatch", step_s=900,
                       entities={"Bus": "network", "Grid": ["grid"]}, params=grid),
        "controller": Member(simulator="cosim.simulators.controller.adapter:Controller", step_s=60,
                             entities={"Manager": ["manager"], "Agent": "sites"}, params=controller),
        "aidc": Member(simulator="cosim.simulators.aidc.adapter:DataCenters", step_s=60, entities={"Site": "sites"},
                       params=aidc),
    }


def study(name: str, about: str, *, sites: dict[str, dict[str, Any]] = SITES, policy: str = "nci_priority",
          mode: str = "joint", lambda_kw_per_kg_h: float = 0.01, train_rate_scale: float = TRAIN_RATE_SCALE,
          inf_size_scale: float = INF_SIZE_SCALE, profile: dict[str, Any] | None = None,
          cooling: dict[str, Any] | str | None = None) -> Scenario:
    """One scenario of the study on the IEEE 33-node feeder (0-based buses)."""
    plant = {"cooling": cooling} if cooling else {}
    return Scenario(
        name=name, about=about, until_s="24h",
        shared={**SHARED, "sites": sites},
        members=members(
            grid={"sources": SOURCES, "lambda_kw_per_kg_h": lambda_kw_per_kg_h}, profile=profile or {},
            workload={"arrivals": ARRIVALS, "train_rate_scale": train_rate_scale, "inf_size_scale": inf_size_scale},
            controller={"policy": policy, "mode": mode, **plant}, aidc=plant,
            arrivals_class="Arrivals"),
        links=links(), **SCENARIO_HOOKS)
