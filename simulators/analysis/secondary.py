"""Figures beside the accounts of power and carbon, checked from a trace alone: GPU time of single jobs, jobs that are
late or urgent, marginal intensities, the base load's reactive power.
"""

from __future__ import annotations

import numpy as np

from cosim.errors import TraceError
from cosim.imports import today
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.flows import BUS, largest, needs
from cosim.simulators.analysis.job_carbon import gpu_time_off
from cosim.simulators.analysis.paths import SITE
from cosim.trace import Trace
from cosim.trace.series import scenario_of

ALLOWED_RATIO = 1e-6
"""Of GPU time: starts and ends within a tick are added up as floats."""
_PROFILE = "cosim.simulators.profile:Profile"
_DERIVATIVE, _NONE = (0, 2), 4
"""States of a marginal intensity: a derivative, whose two sides are the same; there is none."""


def gpu_time(trace: Trace) -> Finding:
    """What the jobs of a site held of its GPUs in a tick is what were busy then, relative to the busiest tick."""
    needs_sites(trace)
    if trace.attrs["status"] != "completed":
        raise TraceError(f"{trace.path}: the run did not end, and jobs that still run have no row in gpu_runs")
    off = gpu_time_off(trace)
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_RATIO, worst)


def waiting_jobs(trace: Trace) -> float:
    """Late and urgent jobs are jobs that are at the site, each counted once: jobs beyond that, or less than none."""
    needs_sites(trace, "late_jobs", "urgent_jobs", "queued_jobs", "deferred_jobs", "running_jobs")
    late, urgent = trace[f"{SITE}/late_jobs"], trace[f"{SITE}/urgent_jobs"]
    there = sum(trace[f"{SITE}/{kind}_jobs"] for kind in ("queued", "deferred", "running"))
    return max(0.0, *(float(np.max(beyond, initial=0.0)) for beyond in (late + urgent - there, -late, -urgent)))


def marginal(trace: Trace) -> Finding:
    """A marginal intensity that is a derivative is the same for one kW more and for one less; where there is none, no
    number stands."""
    needs(trace)
    if not all(trace.has(f"{BUS}/{port}") for port in ("mci_kg_per_kwh", "mci_down_kg_per_kwh", "mci_status")):
        raise NothingToCheck("no marginal intensities")
    up, down, status = (trace[f"{BUS}/{port}"] for port in ("mci_kg_per_kwh", "mci_down_kg_per_kwh", "mci_status"))
    off = np.where(np.isin(status, _DERIVATIVE), np.abs(up - down), 0.0)
    off[np.isin(status, _DERIVATIVE) & ~(np.isfinite(up) & np.isfinite(down))] = np.inf
    off[(status == _NONE) & np.isfinite(up)] = np.inf
    off[~np.isin(status, range(_NONE + 1))] = np.inf
    return Finding(largest(off), 0.0, "", (
        "how large a marginal intensity is, which takes another dispatch", "the comparison with the AC power flow "
        "(ac_dvm_pu, ac_dloss_kw, ac_dnci_kg_per_kwh) and reactive power of sources, which take another power flow"))


def base_load(trace: Trace) -> float:
    """Active and reactive power of the base load follow one shape at all buses, relative to each bus's largest."""
    members = [name for name, member in scenario_of(trace)["members"].items() if today(member["simulator"]) == _PROFILE]
    models = [f"{name}/Load" for name in members if f"{name}/Load" in trace.models()]
    if not models:
        raise NothingToCheck("no base load by a shape")
    off = 0.0
    for model in models:
        p_kw, q_kvar = trace[f"{model}/p_kw"], trace[f"{model}/q_kvar"]
        total_kw = p_kw.sum(axis=1)
        peak = int(np.argmax(np.abs(total_kw)))
        if not total_kw[peak]:
            raise TraceError(f"no active power in {model}, and its shape is not recorded")
        for load in (p_kw, q_kvar):
            expected = np.outer(total_kw / total_kw[peak], load[peak])
            off = max(off, largest((load - expected) / np.maximum(np.abs(load[peak]), 1e-3)))
    return off
