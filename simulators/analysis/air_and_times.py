"""The air of the sites and the times of single jobs, checked from a trace alone.

Rows: E19, E20, E21, U06, M08.
"""

from __future__ import annotations

import numpy as np

from cosim.errors import TraceError, listed
from cosim.imports import today
from cosim.simulators.aidc.equations import air_temperatures_degc
from cosim.simulators.aidc.plant.cooling import mean_of_racks, per_rack
from cosim.simulators.analysis.balance import Finding
from cosim.simulators.analysis.cooling import coolings, has_inertia, needs_sites
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.fleet import JobClass
from cosim.trace import Trace
from cosim.trace.series import scenario_of

ALLOWED_K, ALLOWED_S, ALLOWED_RATIO = 1e-9, 1e-6, 1e-9
_WORKLOADS = "cosim.simulators.workload"


def air(trace: Trace) -> Finding:
    """Hottest inlet, mean outlet and return air at the supply air and the mean IT power, K; of rooms with inertia only
    what stands between outlet and return."""
    needs_sites(trace, "outlet_degc")
    supply, it_kw, inlet, outlet, back = (trace[f"{SITE}/{p}"] for p in (
        "supply_temp_degc", "it_kw", "inlet_degc", "outlet_degc", "return_degc"))
    off: dict[str, float] = {}
    left_out: tuple[str, ...] = ()
    if has_inertia(trace):
        left_out = ("inlet and supply air of rooms with inertia inside a tick, where they are highest in between",)
    for k, cooling in enumerate(coolings(trace)):
        name = trace.names(SITE)[k]
        if has_inertia(trace):
            off[name] = largest(back[:, k] - outlet[:, k] - mean_of_racks(cooling.return_approach_degc))
            continue
        by_hand = air_temperatures_degc(it_kw[:, k], supply[:, k], cooling)
        off[name] = largest(outlet[:, k] - by_hand[0], back[:, k] - by_hand[1],
                            inlet[:, k] - supply[:, k] - max(per_rack(cooling.supply_offset_degc)))
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_K * max(1.0, largest(outlet)), worst, left_out)


def cooling_parts(trace: Trace) -> Finding:
    """Cooling = chiller + tower fans, relative."""
    needs_sites(trace, "cooling_kw")
    whole = trace[f"{SITE}/cooling_kw"]
    parts = trace[f"{SITE}/chiller_kw"] + trace[f"{SITE}/tower_kw"]
    return Finding(largest((whole - parts) / np.maximum(np.abs(parts), 1e-3)), ALLOWED_RATIO)


def job_times(trace: Trace) -> Finding:
    """A job arrives, is submitted, is released, starts and ends in this order; a finished one keeps its deadline (of
    inference its start, of training its end); s by which one does not."""
    jobs = trace.table("jobs")
    if not len(jobs.get("id", ())):
        raise TraceError("no job has a row")
    classes = scenario_of(trace)["shared"].get("job_classes", {})
    late, finished = {}, jobs["outcome"] == "finished"
    for before, after in (("arrival_s", "release_s"), ("arrival_s", "submit_s"), ("submit_s", "release_s"),
                          ("submit_s", "end_s"), ("release_s", "start_s"), ("start_s", "end_s")):
        if "submit_s" in jobs or "submit_s" not in (before, after):  # traces of version 0.1 lack it
            late[f"{before} and {after}"] = jobs[before] - jobs[after]
    for name in sorted(set(jobs["job_class"])):
        mine, last = finished & (jobs["job_class"] == name), (
            "start_s" if classes.get(name, {}).get("kind") in ("inf", "llm") else "end_s")
        late[f"{last} and deadline_s of {name}"] = (jobs[last] - jobs["deadline_s"])[mine]
        late[f"start_s of {name}, which has finished"] = np.where(np.isnan(jobs["start_s"][mine]), np.inf, 0.0)
    off = {what: float(np.nanmax(values, initial=0.0)) for what, values in late.items()}
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_S, worst)


_OWN_DEADLINES = (f"{_WORKLOADS}.recorded:RecordedJobs", f"{_WORKLOADS}.job_table:JobTable")


def deadlines(trace: Trace) -> Finding:
    """Deadline = arrival + the time that the job's class allows, s; where that time is drawn for each job, no deadline
    is before its arrival."""
    jobs, scenario = trace.table("jobs"), scenario_of(trace)
    if not len(jobs.get("id", ())):
        raise TraceError("no job has a row")
    simulator = today(str(scenario["members"].get("workload", {}).get("simulator", "")))
    if not simulator.startswith(f"{_WORKLOADS}.") or simulator in _OWN_DEADLINES:
        raise TraceError("jobs come from a recording, a table or another package's workload, which may bring deadlines "
                         "of their own")
    off: dict[str, float] = {}
    drawn: list[str] = []
    for name in sorted(set(jobs["job_class"])):
        mine, job_class = jobs["job_class"] == name, JobClass(**scenario["shared"]["job_classes"][name])
        allowed_s = (jobs["deadline_s"] - jobs["arrival_s"])[mine]
        if job_class.patience == "fixed":
            off[name] = largest((allowed_s - job_class.deadline_s) / np.maximum(np.abs(jobs["arrival_s"][mine]), 1.0))
        else:
            off[name] = largest(np.minimum(allowed_s, 0.0))
            drawn.append(name)
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_RATIO, worst, (
        f"deadlines of {listed(drawn)}, each drawn at random",) if drawn else ())
