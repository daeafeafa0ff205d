"""The study's figures from a trace: jobs, throughput, cost, both carbon accounts, drops,
efficiency, PUE, losses, and the offered load before a run.

Scenarios name `preflight` and `summary` by import string. Everything is read from the file, so that a trace from
another machine, or of a run that was killed, gives the same figures. Energies integrate minute means with dt.

Rows: I01, I02, I05, I20, K01-03, K05, K06, K08, P01, U20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.drivers.resolve import Resolved
from cosim.imports import load
from cosim.simulators.analysis.bill import demand_charges, demand_table, site_prices, tariff_of
from cosim.simulators.analysis.cooling import cooling_table
from cosim.simulators.analysis.flexibility import flexibility_tables
from cosim.simulators.analysis.flows import marginal_emission
from cosim.simulators.analysis.forecasts import forecasts_table
from cosim.simulators.analysis.gpu_states import gpus_table
from cosim.simulators.analysis.jobs import jobs_tables
from cosim.simulators.analysis.limiting import intervals, limit_rows, loading_rows
from cosim.simulators.analysis.network import network_table
from cosim.simulators.analysis.objective import objective_figures
from cosim.simulators.analysis.paths import GRID, SITE
from cosim.simulators.analysis.serving import serving_tables
from cosim.simulators.analysis.serving_limits import limits_table
from cosim.simulators.analysis.site_batteries import facility_kw, site_battery_table
from cosim.simulators.analysis.site_series import intensity_of
from cosim.simulators.analysis.storage import battery_table
from cosim.simulators.fleet import HasRates, JobClass, OffersLoad, PlaysFile, Site, may_run
from cosim.trace import Trace
from cosim.trace.series import (
    CountedSamples,
    counted,
    counted_time,
    over_counted,
    recording_of,
    scenario_of,
    step_s,
    weighted_mean,
)
from cosim.units import KG_PER_T, KW_PER_MW, MIN_S, TO_PER_GTO

COMPANIONS = {"report": "cosim.simulators.reporting.sections:REPORT",
              "contracts": "cosim.simulators.contracts:CONTRACTS"}
"""Report and checks of a scenario that names this summary, unless it names its own."""
OVERLOAD = 0.95
NEAR_PU = 0.01
"""A voltage so close to a limit is reported."""
_MOST_BUSES = 8
_PLAYED = {
    "grid": ("grid/Grid/emission_kg_per_h",
             "emissions, losses and voltages are those of the recorded run, which did not have this run's load; the "
             "data centers' CO2 is this run's energy at the recorded intensities",
             "its intensities do not answer to this run's load"),
    "aidc": ("aidc/Site/work_to",
             "jobs and energy of the data centers are those of the recorded run, whatever this run's agents did; their "
             "cost and CO2 are that energy at this run's prices and intensities",
             "their power is the recorded one, whatever this run's agents did"),
}
"""Member -> a port that a whole recording has, the line for one that has it, and for one that does not."""
_MINUTES = {"cosim.simulators.grid.adapter:CefDispatch": "cosim.simulators.analysis.voltages:minute_voltages"}
"""Grid -> function that computes its voltages at one-minute power. By string: its networks take seconds to import,
which other grids do not need."""


@dataclass(frozen=True)
class SiteFigures:
    """Totals of one site over the counted time.

    energy_kwh, it_kwh   all power; IT power alone
    cost_usd, co2_kg     energy at the price and at the site's NCI of each minute (R2, R3 with dt); demand charges, if
                         there are any, are part of the cost
    facility_kwh         energy that the facility used: all power, but for a battery behind the meter
    nci                  (mean over time, lowest, highest) NCI at the site, kg/kWh; NaN where the grid gives none
    gpu_use_ratio        mean of busy GPUs over time, of all
    """

    name: str
    energy_kwh: float
    it_kwh: float
    cost_usd: float
    co2_kg: float
    nci: tuple[float, float, float]
    facility_kwh: float
    gpu_use_ratio: float


# --- before the run -------------------------------------------------------------------------------------------------


def preflight(resolved: Resolved) -> Digest:
    """Offered load per class against the GPUs that may run it; a warning above 95 %."""
    workload = resolved.params.get("workload")
    fleet = resolved.params.get("aidc")
    offers: object = resolved.classes.get("workload")
    digest = Digest()
    if workload is None or fleet is None or not hasattr(fleet, "sites") or not isinstance(offers, OffersLoad):
        return digest
    total = sum(s.reference_gpus for s in fleet.sites.values())
    busy = 0.0
    rows = []
    has_runs = not hasattr(fleet, "reading")  # the slot model does a job in a minute
    offered = offers.offered_jobs_per_min(workload)
    for name, (rate_per_min, work_to) in offered.items():
        job_class = workload.job_classes[name]
        may = _eligible_gpus(job_class, fleet.sites)
        needed = rate_per_min * work_to / job_class.to_per_gpu_min
        busy += needed
        rows.append((name, f"{rate_per_min:.3g}", f"{work_to:.3g}", f"{needed:.1f}", f"{may:.0f}",
                     f"{100 * needed / may:.1f} %" if may else "no site"))
        if not may:
            digest.warnings.append(f"class {name} can run nowhere: no eligible site has a block of "
                                   f"{job_class.gpus_per_block} GPUs; its jobs will be dropped")
            continue
        run_min = _shortest_run_min(job_class, work_to, fleet.sites) if has_runs else 0.0
        digest.warnings += _late(resolved, name, job_class, run_min)
        if needed > OVERLOAD * may and run_min < job_class.deadline_s / MIN_S:
            digest.warnings.append(_overload(f"class {name}", needed, may, _rate_fields(resolved, name)))
    rows.append(("all", "", "", f"{busy:.1f}", f"{total:.0f}", f"{100 * busy / total:.1f} %"))
    note = offers.found_in_file(workload) if isinstance(offers, PlaysFile) else ""
    digest.tables.append(Table("Offered load", ("class", "jobs/min", "TO/job", "GPUs needed", "GPUs", "load"), rows,
                               note))
    digest.figures["offered_load_ratio"] = busy / total
    if busy > OVERLOAD * total and not digest.warnings:
        digest.warnings.append(_overload("the workload", busy, total, _rate_fields(resolved, None)))
    return digest


def _eligible_gpus(job_class: JobClass, sites: dict[str, Site]) -> float:
    """GPUs of the sites that may run a class and are large enough for one of its blocks; where they have types as many
    of the class's own speed as these are worth."""
    return sum(s.usable_gpus(job_class) for name, s in sites.items() if may_run(job_class, name))


def _rate_fields(resolved: Resolved, job_class: str | None) -> dict[str, float]:
    """Fields of the workload that a class's offered load goes with; {} for one that is as it was recorded."""
    cls: object = resolved.classes["workload"]
    fields = cls.rate_fields(resolved.params["workload"], job_class) if isinstance(cls, HasRates) else {}
    return {name: value for name, value in fields.items() if value > 0.0}


def _shortest_run_min(job_class: JobClass, work_to: float, sites: dict[str, Site]) -> float:
    """How long a training job of this size takes where it can run fastest, min; 0 for inference, which need only
    start."""
    if job_class.kind != "train":
        return 0.0
    top_to_per_s = max(s.top_to_per_s(job_class) for name, s in sites.items() if may_run(job_class, name))
    return work_to / top_to_per_s / MIN_S


def _late(resolved: Resolved, name: str, job_class: JobClass, run_min: float) -> list[str]:
    """The warning for a training class that cannot meet its deadline: never, or not where it waits for a decision."""
    due_min = job_class.deadline_s / MIN_S
    members = resolved.scenario.members
    every_min = members["controller"].step_s / MIN_S if "controller" in members and run_min else 0.0
    if run_min + every_min <= due_min:
        return []
    which = ("its jobs" if run_min >= due_min else f"with a decision every {every_min:.4g} min, "
             f"{100 * (run_min + every_min - due_min) / every_min:.0f} % of its jobs")
    return [f"class {name} needs {run_min:.4g} min on all the GPUs that one job can use, and is due {due_min:.4g} min "
            f"after its arrival; {which} will be dropped"]


def _overload(what: str, needed: float, gpus: float, rate_fields: dict[str, float]) -> str:
    """The warning, with values of the fields that bring the load to what fits."""
    fits = OVERLOAD * gpus / needed
    digits = {name: 2 - math.floor(math.log10(value * fits)) for name, value in rate_fields.items()}
    lower = " ".join(f"--set workload.{name}={math.floor(value * fits * 10**digits[name]) / 10**digits[name]:g}"
                     for name, value in rate_fields.items())
    return (f"{what} needs {needed:.0f} of {gpus:.0f} GPUs ({100 * needed / gpus:.0f} %); above {100 * OVERLOAD:.0f} % "
            f"jobs will be dropped; {f'lower it by {lower}, or ' if lower else ''}give the sites more racks "
            "(shared.sites.NAME.racks)")


# --- after the run --------------------------------------------------------------------------------------------------


def summary(trace: Trace) -> Digest:
    """Tables and figures of one run, from `warmup_s` on. Outputs of a played grid are the recorded run's, and its
    figures are called so (`recorded_co2_system_kg`): it did not answer to this run's load."""
    digest = Digest()
    if counted_time(trace).whole_warmup:
        digest.warnings.append("the run did not get beyond its warm-up: all figures are of the warm-up")
    for member, (port, what, less) in _PLAYED.items():
        if (path := recording_of(trace, member)) is not None:
            digest.warnings.append(f"{member} is played from {path}: {what if trace.has(port) else less}")
    if SITE not in trace.models():
        digest.warnings.append("the trace has no data centre (aidc/Site); only the grid is summarised")
    else:
        jobs_tables(trace, digest)
        serving_tables(trace, digest)
        limits_table(trace, digest)
        network_table(trace, digest)
        _sites_table(trace, digest)
        gpus_table(trace, digest)
        cooling_table(trace, digest)
        flexibility_tables(trace, digest)
        digest.figures |= objective_figures(trace)
    _grid_table(trace, digest)
    battery_table(trace, digest)
    site_battery_table(trace, digest)
    forecasts_table(trace, digest)
    return digest


def site_figures(trace: Trace) -> list[SiteFigures]:
    """Energy, cost and attributed carbon per site."""
    use, hours = counted(trace, SITE)[:2]
    p_kw, it_kw, used_kw = (values[use] for values in (trace[f"{SITE}/p_kw"], trace[f"{SITE}/it_kw"],
                                                       facility_kw(trace)))
    busy = trace[f"{SITE}/busy_gpus"][use].sum(axis=2)
    nothing = np.full(len(hours), np.nan)
    prices = site_prices(trace)
    sites = scenario_of(trace)["shared"]["sites"]
    demand: dict[str, float] = {}
    for charge in demand_charges(trace):
        demand[charge.site] = demand.get(charge.site, 0.0) + charge.usd
    out = []
    for k, name in enumerate(trace.names(SITE)):
        energy, where = p_kw[:, k] * hours, intensity_of(trace, name)
        w = nothing if where is None else over_counted(trace, where[0], SITE)[:, where[1]]
        span = (weighted_mean(w, hours), float(w.min()), float(w.max())) if w.size else (np.nan,) * 3
        out.append(SiteFigures(
            name, float(energy.sum()), float(it_kw[:, k] @ hours),
            float((energy * (nothing if prices is None else prices[:, k])).sum()) + demand.get(name, 0.0),
            float((energy * w).sum()), span, float(used_kw[:, k] @ hours),
            weighted_mean(busy[:, k], hours) / Site(**sites[name]).gpus))
    return out


def _sites_table(trace: Trace, digest: Digest) -> None:
    figures = site_figures(trace)
    rows = []
    for f in figures:
        mean, low, high = f.nci
        rows.append((f.name, f"{f.energy_kwh / KW_PER_MW:.3f}", _ratio(f.facility_kwh, f.it_kwh),
                     f"{100 * f.gpu_use_ratio:.0f} %", f"{f.cost_usd:.0f}", f"{f.co2_kg / KG_PER_T:.3f}",
                     f"{mean:.3f}", f"{low:.3f} .. {high:.3f}"))
    energy, it = sum(f.energy_kwh for f in figures), sum(f.it_kwh for f in figures)
    cost, co2 = sum(f.cost_usd for f in figures), sum(f.co2_kg for f in figures)
    rows.append(("all", f"{energy / KW_PER_MW:.3f}", _ratio(sum(f.facility_kwh for f in figures), it), "",
                 f"{cost:.0f}", f"{co2 / KG_PER_T:.3f}", _ratio(co2, energy), ""))
    use = counted(trace, SITE).use
    if use.any():
        digest.figures["peak_kw"] = float(trace[f"{SITE}/p_kw"][use].sum(axis=1).max())
    digest.figures |= {"energy_kwh": energy, "it_energy_kwh": it, "cost_usd": cost, "co2_attributed_kg": co2,
                       "mwh_per_t": energy / co2 if co2 else float("nan")}
    note = "t CO2 is attributed: energy x nodal carbon intensity (an average, not a marginal figure)"
    if trace.has(f"{SITE}/pue"):
        use, hours = counted(trace, SITE)[:2]
        digest.figures["pue_mean"] = weighted_mean(trace[f"{SITE}/pue"][use], hours)
        note += f"; PUE is energy over IT energy, the mean of all samples' own is {digest.figures['pue_mean']:.3f}"
    _per_served(digest)
    digest.tables.append(Table(
        "Data centers", ("site", "MWh", "PUE", "GPU use", "USD", "t CO2", "kg/kWh", "NCI range"), rows, note))
    if charges := demand_charges(trace):
        demand_table(charges, tariff_of(trace), digest)


def _per_served(digest: Digest) -> None:
    """Energy, cost and attributed carbon per work served, for comparisons in which not the same work is served."""
    served_gto = digest.figures.get("served_to", 0.0) / TO_PER_GTO
    if not served_gto:
        return
    per = {f"{name}_per_gto": digest.figures[name] / served_gto for name in ("energy_kwh", "cost_usd",
                                                                            "co2_attributed_kg")}
    digest.figures |= per
    kwh, usd, kg = (f"{value:.4g}" if np.isfinite(value) else "-" for value in per.values())
    digest.tables.append(Table("Per 1e9 TO served", ("kWh", "USD", "kg CO2 attributed"), [(kwh, usd, kg)]))


def _grid_table(trace: Trace, digest: Digest) -> None:
    """How the network stood. A grid need not have all of it: what it does not export makes no row."""
    if not trace.has(f"{GRID}/loss_kw") or not trace.has(f"{GRID}/emission_kg_per_h"):
        return
    what = use, hours, share, _ = counted(trace, GRID)
    column = {p: trace[f"{GRID}/{p}"][use][:, 0] for p in trace.ports(GRID)}
    emission, realised = _settled(trace, "emission_realised_kg_per_h", column["emission_kg_per_h"], use)
    loss, _ = _settled(trace, "loss_realised_kw", column["loss_kw"], use)
    figures = {
        "co2_system_kg": float(emission @ hours),
        "co2_dispatched_kg": float(column["emission_kg_per_h"] @ hours),
        "loss_kwh": float(loss @ hours),
        "settled_intervals": float(realised),
    }
    rows = [("CO2 of all sources (system account)", f"{figures['co2_system_kg'] / KG_PER_T:.3f} t")]
    if "p_source_kw" in column and (marginal := marginal_emission(trace)) is not None:
        figures["co2_marginal_kg"] = float(marginal[use] @ hours)
        rows.append(("the same at marginal intensities, to compare runs by",
                     f"{figures['co2_marginal_kg'] / KG_PER_T:.3f} t"))
    rows = [*rows, *_settlement_rows(trace, what, figures),
            ("line losses", f"{figures['loss_kwh'] / KW_PER_MW:.3f} MWh")]
    if "vm_min_pu" in column and use.any():
        figures |= {"vm_min_pu": float(column["vm_min_pu"].min()), "vm_max_pu": float(column["vm_max_pu"].max())}
        rows.append(("voltage", f"{figures['vm_min_pu']:.4f} .. {figures['vm_max_pu']:.4f} p.u."))
    if "relaxation_gap_pu" in column and use.any():
        figures["relaxation_gap_pu"] = float(column["relaxation_gap_pu"].max())
        rows.append(("largest relaxation gap", f"{figures['relaxation_gap_pu']:.1e} p.u."))
    for name, what_of in (("unserved", "unserved energy"), ("curtailed", "curtailed generation")):
        if f"{name}_kw" in column:
            figures[f"{name}_kwh"] = kwh = float(column[f"{name}_kw"] @ hours)
            if kwh:
                rows.append((what_of, f"{kwh / KW_PER_MW:.3f} MWh"))
    if "status" in column:
        figures["flagged_intervals"] = float(np.count_nonzero(column["status"]))
        rows.append(("flagged intervals", intervals(column["status"], what)))
    rows += [*loading_rows(trace, what, figures), *limit_rows(trace, what, figures)]
    rows += _voltage_rows(trace, figures)
    if np.any(column.get("inexact", 0.0)):
        figures["inexact_intervals"] = float(np.count_nonzero(column["inexact"]))
        rows.append(("intervals with an inexact relaxation", intervals(column["inexact"], what)))
    deviation = column.get("ac_dvm_pu", np.full(1, np.nan))
    if np.isfinite(deviation).any():
        rows.append(("largest deviation from AC power flow",
                     f"{np.nanmax(deviation):.1e} p.u., {np.nanmax(column['ac_dloss_kw']):.1e} kW"))
    rows += _marginal_rows(trace, what, figures)
    played = recording_of(trace, "grid")
    digest.figures |= figures if played is None else {f"recorded_{name}": value for name, value in figures.items()}
    digest.tables.append(Table("Grid" if played is None else "Grid, of the recorded run", ("", ""), rows))


def _voltage_rows(trace: Trace, figures: dict[str, float]) -> list[tuple[str, str]]:
    """For how long a voltage was outside its limits at one-minute power, and which buses came near them; none for
    a grid of which that is not known."""
    grid = scenario_of(trace)["members"].get("grid", {}).get("simulator")
    if grid not in _MINUTES or (minutes := load(_MINUTES[grid], "voltages")(trace)) is None:
        return []
    what, each_min = counted(trace, minutes.clock), step_s(trace, minutes.clock.split("/")[0]) / MIN_S
    figures["voltage_violation_min"] = float(what.share @ minutes.outside()[what.use]) * each_min
    near = minutes.near(NEAR_PU, what.use)
    figures["buses_near_limit"] = float(len(near))
    return [("minutes with a voltage outside its limits",
             f"{figures['voltage_violation_min']:.6g} of {what.share.sum() * each_min:.6g}"),
            (f"buses that came within {NEAR_PU:g} p.u. of them",
             f"{len(near)}: {', '.join(map(str, near[:_MOST_BUSES]))}{', ...' * (len(near) > _MOST_BUSES)}" if near
             else "none")]


def _settled(trace: Trace, port: str, dispatched: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, int]:
    """(values by interval, how many are realised): a grid settles an interval one step later; the last one, and any
    that it does not settle, stands as dispatched."""
    if not trace.has(f"{GRID}/{port}"):
        return dispatched, 0
    later = np.append(trace[f"{GRID}/{port}"][1:, 0], np.nan)[use]
    known = np.isfinite(later)
    return np.where(known, later, dispatched), int(known.sum())


def _settlement_rows(trace: Trace, what: CountedSamples, figures: dict[str, float]) -> list[tuple[str, str]]:
    """What was realised beside what was dispatched; none for a grid that does not settle."""
    if not figures["settled_intervals"]:
        return []
    excess = np.nan_to_num(np.append(trace[f"{GRID}/imbalance_kwh"][1:, 0], 0.0)[what.use])
    figures["imbalance_kwh"] = float(what.share @ np.abs(excess))
    return [("the same as dispatched", f"{figures['co2_dispatched_kg'] / KG_PER_T:.3f} t"),
            ("imbalance at the substation", f"{figures['imbalance_kwh'] / KW_PER_MW:.3f} MWh")]


def _marginal_rows(trace: Trace, what: CountedSamples, figures: dict[str, float]) -> list[tuple[str, str]]:
    """What one more kW would have emitted, and which sources would have supplied it; none for a grid without mci."""
    if not trace.has("grid/Bus/mci_kg_per_kwh") or not what.use.any():
        return []
    free = what.hours @ trace[f"{GRID}/marginal_sources"][what.use][:, 0] / what.hours.sum()
    by_name = zip(trace.names(GRID, "source"), free, strict=True)
    shares = [f"{name} {100 * share:.0f} %" for name, share in by_name if share > 0.0]
    rows = [("marginal sources (share of time)", ", ".join(shares) or "none")]
    mci = trace["grid/Bus/mci_kg_per_kwh"][what.use]
    if np.isfinite(mci).any():
        figures["mci_mean_kg_per_kwh"] = weighted_mean(mci, what.hours)
        rows.insert(0, ("marginal carbon intensity of the buses",
                        f"{np.nanmin(mci):.3f} .. {np.nanmax(mci):.3f} kg/kWh"))
    return rows


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.3f}" if b else "-"
