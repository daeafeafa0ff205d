"""The study's figures from a trace: jobs, throughput (K01), cost (K02), both carbon accounts (K03), drops (K04),
efficiency (K05), PUE (K06), losses (K08), and the offered load before a run (I01).

Scenarios name `preflight` and `summary` by import string. Everything is read from the file, so that a trace from
another machine, or of a run that was killed, gives the same figures. Energies integrate minute means with dt (I20).

Rows of the model: I01, I02, I05, I20, K01-03, K08, P01.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.resolve import Resolved
from cosim.trace import Trace
from cosim.units import KG_PER_T
from simulators.fleet import JobClass, Site, may_run
from simulators.grid.minutes import minute_voltages
from simulators.held import at_times, counted, nci_at_site
from simulators.plants import cooling_table
from simulators.service import jobs_tables

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
        jobs_tables(trace, digest)
        _sites_table(trace, digest)
        cooling_table(trace, digest)
    _grid_table(trace, digest)
    return digest


def site_figures(trace: Trace) -> list[SiteFigures]:
    """Energy, cost and attributed carbon per site."""
    use, hours = counted(trace, SITE)
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
    use, hours = counted(trace, "grid/Grid")
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
