"""The study's figures from a trace: jobs, throughput (K01), cost (K02), both carbon accounts (K03), drops (K04),
efficiency (K05), PUE (K06), losses (K08), and the offered load before a run (I01).

Scenarios name `preflight` and `summary` by import string. Everything is read from the file, so that a trace from
another machine, or of a run that was killed, gives the same figures. Energies integrate minute means with dt (I20).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.resolve import Resolved
from cosim.trace import Trace
from cosim.units import HOUR_S, KG_PER_T, MIN_S
from simulators.fleet import JobClass, Site

OVERLOAD = 0.95
SITE, JOBS = "aidc/Site", "jobs"


@dataclass(frozen=True)
class SiteFigures:
    """Totals of one site over the counted time.

    energy_kwh, it_kwh   all power; IT power alone
    cost_usd, co2_kg     energy at the price and at the site's NCI of each minute (R2, R3 with dt)
    nci                  (mean, lowest, highest) NCI at the site, kg/kWh; NaN where the grid gives none
    """

    name: str
    energy_kwh: float
    it_kwh: float
    cost_usd: float
    co2_kg: float
    nci: tuple[float, float, float]
    gpu_use_ratio: float


# --- before the run -------------------------------------------------------------------------------------------------


def preflight(resolved: Resolved) -> Digest:
    """Offered load per class against the GPUs that may run it; a warning above 95 % (I01)."""
    workload = resolved.params.get("workload")
    fleet = resolved.params.get("aidc")
    digest = Digest()
    if not (hasattr(resolved.classes.get("workload"), "offered_jobs_per_min") and hasattr(fleet, "sites")):
        return digest
    total = sum(s.gpus for s in fleet.sites.values())
    busy = 0.0
    rows = []
    offered = resolved.classes["workload"].offered_jobs_per_min(workload)
    for name, (rate_per_min, work_to) in offered.items():
        job_class = workload.job_classes[name]
        may = eligible_gpus(job_class, fleet.sites)
        needed = rate_per_min * work_to / job_class.to_per_gpu_min
        busy += needed
        rows.append((name, f"{rate_per_min:.3g}", f"{work_to:.3g}", f"{needed:.1f}", f"{may}",
                     f"{100 * needed / may:.1f} %" if may else "no site"))
        if may and needed > OVERLOAD * may:
            digest.warnings.append(_overload(f"class {name}", needed, may))
    rows.append(("all", "", "", f"{busy:.1f}", f"{total}", f"{100 * busy / total:.1f} %"))
    digest.tables.append(Table("Offered load", ("class", "jobs/min", "TO/job", "GPUs needed", "GPUs", "load"), rows))
    digest.figures["offered_load_ratio"] = busy / total
    if busy > OVERLOAD * total and not digest.warnings:
        digest.warnings.append(_overload("the workload", busy, total))
    return digest


def eligible_gpus(job_class: JobClass, sites: dict[str, Site]) -> int:
    """GPUs of the sites that may run a class (U14)."""
    allowed = job_class.eligible_sites
    return sum(s.gpus for name, s in sites.items() if allowed is None or name in allowed)


def _overload(what: str, needed: float, gpus: int) -> str:
    return (f"{what} needs {needed:.0f} of {gpus} GPUs ({100 * needed / gpus:.0f} %); above {100 * OVERLOAD:.0f} % "
            "jobs will be dropped; lower it by --set workload.rate_scale=...")


# --- after the run --------------------------------------------------------------------------------------------------


def summary(trace: Trace) -> Digest:
    """Tables and figures of one run, from `warmup_s` on."""
    digest = Digest()
    if SITE not in trace.models():
        digest.warnings.append("the trace has no data centre (aidc/Site); only the grid is summarised")
    else:
        _jobs_table(trace, digest)
        _sites_table(trace, digest)
    _grid_table(trace, digest)
    return digest


def site_figures(trace: Trace) -> list[SiteFigures]:
    """Energy, cost and attributed carbon per site."""
    use, step_h = _counted(trace, SITE)
    time_s = trace.time_s(SITE)[use]
    p_kw, it_kw = trace[f"{SITE}/p_kw"][use], trace[f"{SITE}/it_kw"][use]
    busy = trace[f"{SITE}/busy_gpus"][use].sum(axis=2)
    price = at_times(trace, "tariff/Tariff", "price_usd_per_kwh", time_s)
    sites = json.loads(trace.attrs["scenario"])["shared"]["sites"]
    out = []
    for k, name in enumerate(trace.names(SITE)):
        energy = p_kw[:, k] * step_h
        w = nci_at_site(trace, name, time_s)
        span = (float(w.mean()), float(w.min()), float(w.max())) if w.size else (np.nan,) * 3
        out.append(SiteFigures(
            name, float(energy.sum()), float(it_kw[:, k].sum() * step_h), float((energy * price).sum()),
            float((energy * w).sum()), span, float(busy[:, k].mean()) / Site(**sites[name]).gpus))
    return out


def nci_at_site(trace: Trace, site: str, time_s: np.ndarray) -> np.ndarray:
    """NCI at a site's bus at the given times, kg/kWh; NaN where the grid exports none.

    Which bus that is comes from the run's own wiring: where the site's power went.
    """
    wiring = trace.table("wiring")
    for source, target in zip(wiring.get("source", ()), wiring.get("target", ()), strict=True):
        member, eid, port = source.split(".", 2)
        if port == "nci_kg_per_kwh" and target.split(".")[1] == site:
            model = next(m for m in trace.models() if m.startswith(f"{member}/") and eid in trace.names(m))
            return at_times(trace, model, port, time_s, eid)
    return np.full(time_s.shape, np.nan)


def at_times(trace: Trace, model: str, port: str, time_s: np.ndarray, entity: str | None = None) -> np.ndarray:
    """Values of a level port as they stood at `time_s` (held since their last sample), shape (time,)."""
    if not trace.has(f"{model}/{port}"):
        return np.full(time_s.shape, np.nan)
    column = trace.names(model).index(entity) if entity else 0
    at = np.searchsorted(trace.time_s(model), time_s, side="right") - 1
    return trace[f"{model}/{port}"][at, column]


def _counted(trace: Trace, model: str) -> tuple[np.ndarray, float]:
    """(mask of the samples after the warm-up, hours a sample stands for)."""
    member = model.split("/")[0]
    scenario = json.loads(trace.attrs["scenario"])
    step_s = scenario["members"][member]["step_s"]
    return trace.time_s(model) >= scenario.get("warmup_s", 0.0), step_s / HOUR_S


def _jobs_table(trace: Trace, digest: Digest) -> None:
    use, step_h = _counted(trace, SITE)
    classes = trace.names(SITE, "job_class")
    counts = {name: trace[f"{SITE}/{name}_jobs"][use] for name in
              ("received", "finished", "dropped", "queued", "deferred", "running")}
    totals = {name: counts[name].sum(axis=(0, 1)) for name in ("received", "finished", "dropped")}
    inside = sum(counts[name][-1].sum(axis=0) for name in ("queued", "deferred", "running"))
    work = trace[f"{SITE}/work_to"][use].sum(axis=1)
    minutes = len(work) * step_h * HOUR_S / MIN_S
    rows = []
    for k, name in enumerate(classes):
        rows.append((name, f"{totals['received'][k]:.0f}", f"{totals['finished'][k]:.0f}",
                     f"{totals['dropped'][k]:.0f}", f"{inside[k]:.0f}", f"{work[:, k].sum() / minutes / 1e6:.2f}",
                     f"{work[:, k].sum() / minutes / MIN_S / 1e3:.1f}"))
        digest.figures |= {f"finished_{name}_jobs": float(totals["finished"][k]),
                           f"dropped_{name}_jobs": float(totals["dropped"][k]),
                           f"unfinished_{name}_jobs": float(inside[k])}
    done = float(work.sum()) / minutes
    rows.append(("all", *(f"{v.sum():.0f}" for v in (*totals.values(), inside)), f"{done / 1e6:.2f}",
                 f"{done / MIN_S / 1e3:.1f}"))
    digest.figures["throughput_to_per_min"] = done
    digest.tables.append(Table("Jobs", ("class", "arrived", "finished", "dropped", "unfinished", "M TO/min", "k TO/s"),
                               rows))


def _sites_table(trace: Trace, digest: Digest) -> None:
    figures = site_figures(trace)
    rows = []
    for f in figures:
        mean, low, high = f.nci
        rows.append((f.name, f"{f.energy_kwh / 1e3:.3f}", _ratio(f.energy_kwh, f.it_kwh),
                     f"{100 * f.gpu_use_ratio:.0f} %", f"{f.cost_usd:.0f}", f"{f.co2_kg / KG_PER_T:.3f}",
                     f"{mean:.3f}", f"{low:.3f} .. {high:.3f}"))
    energy, it = sum(f.energy_kwh for f in figures), sum(f.it_kwh for f in figures)
    cost, co2 = sum(f.cost_usd for f in figures), sum(f.co2_kg for f in figures)
    rows.append(("all", f"{energy / 1e3:.3f}", _ratio(energy, it), "", f"{cost:.0f}", f"{co2 / KG_PER_T:.3f}",
                 _ratio(co2, energy), ""))
    digest.figures |= {"energy_kwh": energy, "it_energy_kwh": it, "cost_usd": cost, "co2_attributed_kg": co2}
    digest.tables.append(Table(
        "Data centers", ("site", "MWh", "PUE", "GPU use", "USD", "t CO2", "kg/kWh", "NCI range"), rows,
        note="t CO2 is attributed: energy x nodal carbon intensity (an average, not a marginal figure)"))


def _grid_table(trace: Trace, digest: Digest) -> None:
    if not trace.has("grid/Grid/loss_kw"):
        return
    use, step_h = _counted(trace, "grid/Grid")
    column = {p: trace[f"grid/Grid/{p}"][use][:, 0] for p in trace.ports("grid/Grid")}
    figures = {
        "co2_system_kg": float(column["emission_kg_per_h"].sum() * step_h),
        "loss_kwh": float(column["loss_kw"].sum() * step_h),
        "vm_min_pu": float(column["vm_min_pu"].min()),
        "vm_max_pu": float(column["vm_max_pu"].max()),
        "relaxation_gap_pu": float(column["relaxation_gap_pu"].max()),
        "flagged_intervals": float(np.count_nonzero(column["status"])),
        "unserved_kwh": float(column["unserved_kw"].sum() * step_h),
    }
    digest.figures |= figures
    rows = [
        ("CO2 of all sources (system account)", f"{figures['co2_system_kg'] / KG_PER_T:.3f} t"),
        ("line losses", f"{figures['loss_kwh'] / 1e3:.3f} MWh"),
        ("voltage", f"{figures['vm_min_pu']:.4f} .. {figures['vm_max_pu']:.4f} p.u."),
        ("largest relaxation gap", f"{figures['relaxation_gap_pu']:.1e} p.u."),
        ("flagged intervals", f"{figures['flagged_intervals']:.0f} of {int(use.sum())}"),
    ]
    deviation = column["ac_dvm_pu"]
    if np.isfinite(deviation).any():
        rows.append(("largest deviation from AC power flow",
                     f"{np.nanmax(deviation):.1e} p.u., {np.nanmax(column['ac_dloss_kw']):.1e} kW"))
    digest.tables.append(Table("Grid", ("", ""), rows))


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.3f}" if b else "-"
