"""The study's figures from a trace: jobs, throughput (K01), cost (K02), both carbon accounts (K03), drops (K04),
efficiency (K05), PUE (K06), losses (K08), and the offered load before a run (I01).

Scenarios name `preflight` and `summary` by import string. Everything is read from the file, so that a trace from
another machine, or of a run that was killed, gives the same figures. Energies integrate minute means with dt (I20).

Rows of the model: I05, I32, M08, U20, X03, X12.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.resolve import Resolved
from cosim.trace import Trace
from cosim.units import HOUR_S, KG_PER_T, MIN_S
from simulators.fleet import JobClass, Site, may_run
from simulators.grid.minutes import minute_voltages

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


@dataclass(frozen=True)
class Waits:
    """How long the jobs of a class waited, at one site or at all (site None), counted from the end of the warm-up on.

    Inference waits from its arrival, which includes the time until the workload manager's next decision; training from
    its release, as deferral is a decision. Quantiles are over the jobs that began, s; NaN when none did.
    slo_missed_jobs  jobs that began later than their class's slo_wait_s or were dropped; None: the class has none
    """

    job_class: str
    site: str | None
    began_jobs: int
    p50_s: float
    p95_s: float
    p99_s: float
    slo_missed_jobs: int | None


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
        if not may:
            digest.warnings.append(f"class {name} can run nowhere: no eligible site has a block of "
                                   f"{job_class.gpus_per_block} GPUs; its jobs will be dropped")
        elif needed > OVERLOAD * may:
            digest.warnings.append(_overload(f"class {name}", needed, may))
    rows.append(("all", "", "", f"{busy:.1f}", f"{total}", f"{100 * busy / total:.1f} %"))
    digest.tables.append(Table("Offered load", ("class", "jobs/min", "TO/job", "GPUs needed", "GPUs", "load"), rows))
    digest.figures["offered_load_ratio"] = busy / total
    if busy > OVERLOAD * total and not digest.warnings:
        digest.warnings.append(_overload("the workload", busy, total))
    return digest


def eligible_gpus(job_class: JobClass, sites: dict[str, Site]) -> int:
    """GPUs of the sites that may run a class (U14) and are large enough for one of its blocks."""
    return sum(s.gpus for name, s in sites.items() if may_run(job_class, name) and s.gpus >= job_class.gpus_per_block)


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
    use, hours = _counted(trace, SITE)
    time_s = trace.time_s(SITE)[use]
    p_kw, it_kw = trace[f"{SITE}/p_kw"][use], trace[f"{SITE}/it_kw"][use]
    busy = trace[f"{SITE}/busy_gpus"][use].sum(axis=2)
    price = at_times(trace, "tariff/Tariff", "price_usd_per_kwh", time_s)
    sites = json.loads(trace.attrs["scenario"])["shared"]["sites"]
    out = []
    for k, name in enumerate(trace.names(SITE)):
        energy = p_kw[:, k] * hours
        w = nci_at_site(trace, name, time_s)
        span = (float(w.mean()), float(w.min()), float(w.max())) if w.size else (np.nan,) * 3
        out.append(SiteFigures(
            name, float(energy.sum()), float(it_kw[:, k] @ hours), float((energy * price).sum()),
            float((energy * w).sum()), span, float(busy[:, k].mean()) / Site(**sites[name]).gpus))
    return out


def waits(trace: Trace) -> list[Waits]:
    """Waits per class, at all sites together and then at each; [] for a trace without a job table."""
    jobs = trace.table("jobs")
    if not jobs:
        return []
    shared = json.loads(trace.attrs["scenario"])
    counted = jobs["arrival_s"] >= shared.get("warmup_s", 0.0)
    out = []
    for name in trace.names(SITE, "job_class"):
        job_class = JobClass(**shared["shared"]["job_classes"][name])
        of_class = counted & (jobs["job_class"] == name)
        start_s, site = jobs["start_s"][of_class], jobs["site"][of_class]
        wait_s = start_s - jobs["arrival_s" if job_class.kind == "inf" else "release_s"][of_class]
        dropped = jobs["outcome"][of_class] == "dropped"
        out.append(_waits(name, None, wait_s, dropped, job_class.slo_wait_s))
        out += [_waits(name, s, wait_s[site == s], dropped[site == s], job_class.slo_wait_s) for s in trace.names(SITE)]
    return out


def _waits(job_class: str, site: str | None, wait_s: np.ndarray, dropped: np.ndarray, slo_s: float | None) -> Waits:
    began = np.isfinite(wait_s)
    p50, p95, p99 = np.quantile(wait_s[began], (0.5, 0.95, 0.99)).tolist() if began.any() else (np.nan,) * 3
    missed = None if slo_s is None else int(np.count_nonzero(dropped | (wait_s > slo_s)))
    return Waits(job_class, site, int(np.count_nonzero(began)), p50, p95, p99, missed)


def nci_at_site(trace: Trace, site: str, time_s: np.ndarray) -> np.ndarray:
    """NCI at a site's bus at the given times, kg/kWh; NaN where the grid exports none."""
    return intensity_at_site(trace, site, time_s, "nci_kg_per_kwh")


def intensity_at_site(trace: Trace, site: str, time_s: np.ndarray, port: str) -> np.ndarray:
    """A carbon intensity of a site's bus (nci_kg_per_kwh, mci_kg_per_kwh) at the given times; NaN where there is none.

    Which bus that is comes from the run's own wiring: where the site's NCI came from.
    """
    wiring = trace.table("wiring")
    for source, target in zip(wiring.get("source", ()), wiring.get("target", ()), strict=True):
        member, eid, linked = source.split(".", 2)
        if linked == "nci_kg_per_kwh" and target.split(".")[1] == site:
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


def _counted(trace: Trace, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(mask of the samples that count, hours that each of those stands for).

    A sample holds until the next one; what counts of it lies between the end of the warm-up and the end of the run.
    """
    scenario = json.loads(trace.attrs["scenario"])
    times = trace.time_s(model).astype(float)
    step_s = scenario["members"][model.split("/")[0]]["step_s"]
    ends = np.append(times[1:], times[-1:] + step_s)
    begin, end = scenario.get("warmup_s", 0.0), float(trace.attrs.get("until_s", np.inf))
    hours = (np.minimum(ends, end) - np.maximum(times, begin)) / HOUR_S
    return hours > 0, hours[hours > 0]


def _jobs_table(trace: Trace, digest: Digest) -> None:
    use, hours = _counted(trace, SITE)
    classes = trace.names(SITE, "job_class")
    counts = {name: trace[f"{SITE}/{name}_jobs"][use] for name in
              ("received", "finished", "dropped", "queued", "deferred", "running")}
    totals = {name: counts[name].sum(axis=(0, 1)) for name in ("received", "finished", "dropped")}
    inside = sum(counts[name][-1].sum(axis=0) for name in ("queued", "deferred", "running"))
    work = trace[f"{SITE}/work_to"][use].sum(axis=1)
    minutes = float(hours.sum()) * HOUR_S / MIN_S
    rows = []
    waited = {w.job_class: w for w in waits(trace) if w.site is None}
    for k, name in enumerate(classes):
        rows.append((name, f"{totals['received'][k]:.0f}", f"{totals['finished'][k]:.0f}",
                     f"{totals['dropped'][k]:.0f}", f"{inside[k]:.0f}", f"{work[:, k].sum() / minutes / 1e6:.2f}",
                     f"{work[:, k].sum() / minutes / MIN_S / 1e3:.1f}", *_wait_cells(waited.get(name))))
        digest.figures |= {f"finished_{name}_jobs": float(totals["finished"][k]),
                           f"dropped_{name}_jobs": float(totals["dropped"][k]),
                           f"unfinished_{name}_jobs": float(inside[k]), **_wait_figures(waited.get(name))}
    done = float(work.sum()) / minutes
    rows.append(("all", *(f"{v.sum():.0f}" for v in (*totals.values(), inside)), f"{done / 1e6:.2f}",
                 f"{done / MIN_S / 1e3:.1f}", *[""] * 4))
    digest.figures |= {"throughput_to_per_min": done, **_lost_figures(trace, use)}
    scenario = json.loads(trace.attrs["scenario"])
    policy = scenario["members"].get("controller", {}).get("params", {}).get("policy")
    note = "unfinished jobs may have arrived in the warm-up" if scenario.get("warmup_s") else ""
    columns = ("class", "arrived", "finished", "dropped", "unfinished", "M TO/min", "k TO/s", "wait p50 s", "p95 s",
               "p99 s", "SLO missed")
    digest.tables.append(Table(f"Jobs under policy {policy}" if policy else "Jobs", columns, rows, note))


def _lost_figures(trace: Trace, use: np.ndarray) -> dict[str, float]:
    """Work done for nothing, TO (M15): of jobs begun and missed, and undone by failures of racks."""
    ports = {"missed_work_to": "lost_missed_to", "failed_work_to": "lost_failed_to"}
    return {figure: float(trace[f"{SITE}/{port}"][use].sum()) for port, figure in ports.items()
            if trace.has(f"{SITE}/{port}")}


def _wait_cells(w: Waits | None) -> tuple[str, str, str, str]:
    if w is None or not w.began_jobs:
        return "-", "-", "-", "-" if w is None or w.slo_missed_jobs is None else f"{w.slo_missed_jobs}"
    missed = "-" if w.slo_missed_jobs is None else f"{w.slo_missed_jobs}"
    return f"{w.p50_s:.0f}", f"{w.p95_s:.0f}", f"{w.p99_s:.0f}", missed


def _wait_figures(w: Waits | None) -> dict[str, float]:
    if w is None:
        return {}
    figures = {f"wait_p{p}_{w.job_class}_s": v for p, v in ((50, w.p50_s), (95, w.p95_s), (99, w.p99_s))
               if np.isfinite(v)}
    if w.slo_missed_jobs is not None:
        figures[f"slo_missed_{w.job_class}_jobs"] = float(w.slo_missed_jobs)
    return figures


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
    """How the network stood. A grid need not have all of it: what it does not export makes no row."""
    if not trace.has("grid/Grid/loss_kw") or not trace.has("grid/Grid/emission_kg_per_h"):
        return
    use, hours = _counted(trace, "grid/Grid")
    column = {p: trace[f"grid/Grid/{p}"][use][:, 0] for p in trace.ports("grid/Grid")}
    emission, realised = _settled(trace, "emission_realised_kg_per_h", column["emission_kg_per_h"], use)
    loss, _ = _settled(trace, "loss_realised_kw", column["loss_kw"], use)
    figures = {
        "co2_system_kg": float(emission @ hours),
        "co2_dispatched_kg": float(column["emission_kg_per_h"] @ hours),
        "loss_kwh": float(loss @ hours),
        "settled_intervals": float(realised),
    }
    rows = [("CO2 of all sources (system account)", f"{figures['co2_system_kg'] / KG_PER_T:.3f} t"),
            *_settlement_rows(trace, use, figures),
            ("line losses", f"{figures['loss_kwh'] / 1e3:.3f} MWh")]
    if "vm_min_pu" in column and use.any():
        figures |= {"vm_min_pu": float(column["vm_min_pu"].min()), "vm_max_pu": float(column["vm_max_pu"].max())}
        rows.append(("voltage", f"{figures['vm_min_pu']:.4f} .. {figures['vm_max_pu']:.4f} p.u."))
    if "relaxation_gap_pu" in column and use.any():
        figures["relaxation_gap_pu"] = float(column["relaxation_gap_pu"].max())
        rows.append(("largest relaxation gap", f"{figures['relaxation_gap_pu']:.1e} p.u."))
    if "unserved_kw" in column:
        figures["unserved_kwh"] = float(column["unserved_kw"] @ hours)
        if figures["unserved_kwh"]:
            rows.append(("unserved energy", f"{figures['unserved_kwh'] / 1e3:.3f} MWh"))
    if "status" in column:
        figures["flagged_intervals"] = float(np.count_nonzero(column["status"]))
        rows.append(("flagged intervals", f"{figures['flagged_intervals']:.0f} of {int(use.sum())}"))
    if (minutes := minute_voltages(trace)) is not None:
        outside = minutes.outside()[minutes.time_s >= trace.time_s("grid/Grid")[use][0]] if use.any() else np.empty(0)
        figures["voltage_violation_min"] = float(np.count_nonzero(outside))
        rows.append(("minutes with a voltage outside its limits",
                     f"{figures['voltage_violation_min']:.0f} of {len(outside)}"))
    if np.any(column.get("inexact", 0.0)):
        figures["inexact_intervals"] = float(np.count_nonzero(column["inexact"]))
        rows.append(("intervals with an inexact relaxation", f"{figures['inexact_intervals']:.0f}"))
    deviation = column.get("ac_dvm_pu", np.full(1, np.nan))
    if np.isfinite(deviation).any():
        rows.append(("largest deviation from AC power flow",
                     f"{np.nanmax(deviation):.1e} p.u., {np.nanmax(column['ac_dloss_kw']):.1e} kW"))
    digest.figures |= figures
    rows += _marginal_rows(trace, use, digest)
    digest.tables.append(Table("Grid", ("", ""), rows))


def _settled(trace: Trace, port: str, dispatched: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, int]:
    """(values by interval, how many are realised): a grid settles an interval one step later; the last one, and any
    that it does not settle, stands as dispatched."""
    if not trace.has(f"grid/Grid/{port}"):
        return dispatched, 0
    later = np.append(trace[f"grid/Grid/{port}"][1:, 0], np.nan)[use]
    known = np.isfinite(later)
    return np.where(known, later, dispatched), int(known.sum())


def _settlement_rows(trace: Trace, use: np.ndarray, figures: dict[str, float]) -> list[tuple[str, str]]:
    """What was realised beside what was dispatched; none for a grid that does not settle."""
    if not figures["settled_intervals"]:
        return []
    excess = np.append(trace["grid/Grid/imbalance_kwh"][1:, 0], 0.0)[use]
    figures["imbalance_kwh"] = float(np.nansum(np.abs(excess)))
    return [("the same as dispatched", f"{figures['co2_dispatched_kg'] / KG_PER_T:.3f} t"),
            ("imbalance at the substation", f"{figures['imbalance_kwh'] / 1e3:.3f} MWh")]


def _marginal_rows(trace: Trace, use: np.ndarray, digest: Digest) -> list[tuple[str, str]]:
    """What one more kW would have emitted, and which sources would have supplied it; none for a grid without mci."""
    if not trace.has("grid/Bus/mci_kg_per_kwh") or not use.any():
        return []
    free = trace["grid/Grid/marginal_sources"][use][:, 0].mean(axis=0)
    by_name = zip(trace.names("grid/Grid", "source"), free, strict=True)
    shares = [f"{name} {100 * share:.0f} %" for name, share in by_name if share > 0.0]
    rows = [("marginal sources (share of intervals)", ", ".join(shares) or "none")]
    mci = trace["grid/Bus/mci_kg_per_kwh"][use]
    if np.isfinite(mci).any():
        digest.figures["mci_mean_kg_per_kwh"] = float(np.nanmean(mci))
        rows.insert(0, ("marginal carbon intensity of the buses",
                        f"{np.nanmin(mci):.3f} .. {np.nanmax(mci):.3f} kg/kWh"))
    return rows


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.3f}" if b else "-"
