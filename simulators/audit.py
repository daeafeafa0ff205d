"""Conservation laws checked from a trace alone: no job, work, energy or carbon appears or is lost.

Each law is one function of the trace that gives the largest deviation from it; a law whose data the trace does not
hold (a foreign grid, say) is skipped and named as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.trace import Trace
from simulators.aidc.equations import air_kw_per_k, air_temperatures_degc, it_at_inlet_kw
from simulators.fleet import JobClass, Site
from simulators.grid.ports import ACTIVE_DEMAND
from simulators.metrics import summary
from simulators.plants import coolings, has_inertia, room_degc, served_degc

SITE = "aidc/Site"
RELATIVE, EXACT = 1e-9, 0.0


def verify(trace: Trace) -> Digest:
    """All laws: a table (law, largest deviation, tolerance, holds) and the names of those that are broken."""
    digest = Digest()
    rows = []
    for name, tolerance, law in LAWS:
        try:
            worst = law(trace)
        except TraceError as err:
            rows.append((name, "-", "-", f"skipped: {str(err).split(': ', 1)[-1].split(';')[0]}"))
            continue
        holds = worst <= tolerance  # NaN does not
        rows.append((name, f"{worst:.1e}", f"{tolerance:.0e}", "holds" if holds else "BROKEN"))
        if not holds:
            digest.broken.append(f"{name}: off by {worst:.3g}, allowed {tolerance:g}")
    digest.tables.append(Table("Conservation laws", ("law", "deviation", "allowed", ""), rows))
    return digest


def _jobs_every_minute(trace: Trace) -> float:
    change = trace[f"{SITE}/received_jobs"] - trace[f"{SITE}/finished_jobs"] - trace[f"{SITE}/dropped_jobs"]
    inside = sum(trace[f"{SITE}/{k}_jobs"] for k in ("queued", "deferred", "running"))
    return _largest(change.cumsum(axis=0) - inside)


def _jobs_reach_a_site(trace: Trace) -> float:
    arrived = trace["workload/Arrivals/arrived_jobs"][:, 0]
    received = trace[f"{SITE}/received_jobs"].sum(axis=1)
    both = min(len(arrived), len(received))
    return _largest(arrived[:both] - received[:both])


def _rows_match_counts(trace: Trace) -> float:
    """Rows of the job table against the minutes' counts, per site, class and outcome."""
    _refuse_cut_off(trace)
    jobs, worst = _jobs(trace), 0.0
    counts = {outcome: trace[f"{SITE}/{outcome}_jobs"].sum(axis=0) for outcome in ("finished", "dropped")}
    if trace.attrs["status"] == "completed":
        counts["unfinished"] = sum(trace[f"{SITE}/{k}_jobs"][-1] for k in ("queued", "deferred", "running"))
    for outcome, per_site in counts.items():
        for s, site in enumerate(trace.names(SITE)):
            for c, job_class in enumerate(trace.names(SITE, "job_class")):
                rows = ((jobs["outcome"] == outcome) & (jobs["site"] == site) & (jobs["job_class"] == job_class)).sum()
                worst = max(worst, abs(float(rows) - float(per_site[s, c])))
    return worst


def _work(trace: Trace) -> float:
    _refuse_cut_off(trace)
    done = trace[f"{SITE}/work_to"].sum()
    undone = trace[f"{SITE}/failed_work_to"].sum() if trace.has(f"{SITE}/failed_work_to") else 0.0
    return abs(done - undone - _jobs(trace)["done_to"].sum()) / max(done, 1.0)


def _finished_work(trace: Trace) -> float:
    jobs = _jobs(trace)
    finished = jobs["outcome"] == "finished"
    return _largest(jobs["done_to"][finished] / jobs["work_to"][finished] - 1.0)


def _it_energy(trace: Trace) -> float:
    """(13): idle power all the time, and a busy GPU's power (alpha x its speed) for as long as it is busy; more where
    inlets are warm (I12)."""
    shared = json.loads(trace.attrs["scenario"])["shared"]
    classes = [JobClass(**shared["job_classes"][n]) for n in trace.names(SITE, "job_class")]
    idle_kw = np.array([Site(**shared["sites"][n]).idle_kw for n in trace.names(SITE)])
    by_hand = idle_kw + trace[f"{SITE}/busy_gpus"] @ np.array([c.busy_kw_per_gpu for c in classes])
    supply_degc = served_degc(trace)
    for k, cooling in enumerate(coolings(trace)):
        by_hand[:, k] = it_at_inlet_kw(by_hand[:, k], supply_degc[:, k], cooling)
    return _largest(trace[f"{SITE}/it_kw"] / by_hand - 1.0)


def _heat(trace: Trace) -> float:
    """Heat given off = heat removed + heat stored in the room, every tick, over the heat given off."""
    removed_kw, it_kw = trace[f"{SITE}/heat_removed_kw"], trace[f"{SITE}/it_kw"]
    warmer_k = np.diff(room_degc(trace), axis=0) if has_inertia(trace) else np.zeros_like(it_kw)
    worst = 0.0
    for k, cooling in enumerate(coolings(trace)):
        given_kw = air_kw_per_k(cooling) * air_temperatures_degc(it_kw[:, k], 0.0, cooling)[1]
        given_kw = np.maximum(given_kw, 0.0)
        stored_kw = cooling.heat_capacity_kj_per_k * warmer_k[:, k] / _step_s(trace, "aidc")
        worst = max(worst, _largest((removed_kw[:, k] + stored_kw - given_kw) / np.maximum(given_kw, 1.0)))
    return worst


def _power_adds_up(trace: Trace) -> float:
    parts = trace[f"{SITE}/it_kw"] + trace[f"{SITE}/cooling_kw"]
    if trace.has(f"{SITE}/loss_kw"):
        parts = parts + trace[f"{SITE}/loss_kw"]
    return _largest(trace[f"{SITE}/p_kw"] / parts - 1.0)


def _windows(trace: Trace) -> float:
    """What the grid was told against the mean of the minutes of its step."""
    count = round(_step_s(trace, "grid") / _step_s(trace, "aidc"))
    p_kw = trace[f"{SITE}/p_kw"]
    whole = len(p_kw) // count
    if not whole:
        raise TraceError(f"{trace.path}: the run is shorter than a step of the grid")
    means = p_kw[: whole * count].reshape(whole, count, -1).mean(axis=1)
    return _largest(trace[f"{SITE}/p_window_kw"][count - 1:: count][:whole] / means - 1.0)


def _capacity(trace: Trace) -> float:
    shared = json.loads(trace.attrs["scenario"])["shared"]
    gpus = np.array([Site(**shared["sites"][n]).gpus for n in trace.names(SITE)])
    return max(0.0, float((trace[f"{SITE}/busy_gpus"].sum(axis=2) / gpus - 1.0).max(initial=0.0)))


def _power_balance(trace: Trace) -> float:
    """Sources = loads + losses, kW, at every interval: what the sources gave against what the lines lost and took."""
    p_from, p_to = trace["grid/Grid/p_from_kw"][:, 0], trace["grid/Grid/p_to_kw"][:, 0]
    return _largest((p_from + p_to).sum(axis=1) - trace["grid/Grid/loss_kw"][:, 0])


def _carbon(trace: Trace) -> float:
    """Generated = loads + losses at the sending node's intensity, kg/h; from the second interval on, since what was
    drawn before the first is not recorded. Intervals with unserved power or a forecast error are left out."""
    scenario = json.loads(trace.attrs["scenario"])
    given = scenario["members"]["grid"]["params"]
    sources = given.get("sources")
    if not sources:
        raise TraceError(f"{trace.path}: the grid's sources are not in the scenario")
    kg_per_kwh = {n: s["kg_per_kwh"] for n, s in sources.items()} | (given.get("network_sources") or {})
    intensity = np.array([kg_per_kwh[n] for n in trace.names("grid/Grid", "source")])
    nci, p_from, p_to = (trace[f"grid/{x}"] for x in ("Bus/nci_kg_per_kwh", "Grid/p_from_kw", "Grid/p_to_kw"))
    buses = trace.names("grid/Bus")
    ends = [[buses.index(f"bus{end}") for end in name.split("-")] for name in trace.names("grid/Grid", "line")]
    generated = trace["grid/Grid/p_source_kw"][:, 0] @ intensity
    loads, known = _bus_loads(trace, buses)
    errors = trace["grid/Grid/forecast_error_ratio"][:, 0] if trace.has("grid/Grid/forecast_error_ratio") else None
    worst = 0.0
    for k in range(1, len(nci)):
        flagged = trace["grid/Grid/unserved_kw"][k, 0] or trace["grid/Grid/status"][k, 0]
        if flagged or not known[k] or (errors is not None and errors[k]):
            continue
        lost = sum((p_from[k, 0, b] + p_to[k, 0, b]) * nci[k, i if p_from[k, 0, b] > 0 else j]
                   for b, (i, j) in enumerate(ends))
        worst = max(worst, abs(float(generated[k] - loads[k] @ nci[k] - lost)))
    return worst


def _bus_loads(trace: Trace, buses: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Demand at every bus and interval as the wiring brought it there, kW, shape (interval, bus); and at which
    intervals (interval,) all of it is in the trace: of a run that was cut off the members end at different times."""
    times, wiring = trace.time_s("grid/Grid"), trace.table("wiring")
    loads, known = np.zeros((len(times), len(buses))), np.ones(len(times), bool)
    for source, target, shift_s in zip(wiring["source"], wiring["target"], wiring["shift_s"], strict=True):
        member, eid, port = source.split(".", 2)
        if not target.startswith("grid.") or target.rpartition(".")[2] not in ACTIVE_DEMAND:
            continue
        model = next(m for m in trace.models() if m.startswith(f"{member}/") and eid in trace.names(m))
        at = np.searchsorted(trace.time_s(model), times - shift_s, side="right") - 1
        known &= times - shift_s < trace.time_s(model)[-1] + _step_s(trace, member)
        column = trace[f"{model}/{port}"][:, trace.names(model).index(eid)]
        loads[:, buses.index(target.split(".")[1])] += np.where(at >= 0, column[np.maximum(at, 0)], 0.0)
    return loads, known


def _summary(trace: Trace) -> float:
    """Figures that the run said of itself against those of its series, relative."""
    hook = json.loads(trace.attrs["scenario"]).get("summary")
    if "summary" not in trace.attrs or hook != f"{summary.__module__}:{summary.__name__}":
        raise TraceError(f"{trace.path}: the run has no summary by {summary.__module__}")
    said, found = Digest.from_json(str(trace.attrs["summary"])).figures, summary(trace).figures
    if said.keys() != found.keys():
        return float("inf")
    off = [abs(said[name] - found[name]) / max(abs(found[name]), 1e-9) for name in said
           if not (np.isnan(said[name]) and np.isnan(found[name]))]
    return max(off, default=0.0)


def _refuse_cut_off(trace: Trace) -> None:
    if trace.attrs["status"] == "running":
        raise TraceError(f"{trace.path}: the run was cut off before its last jobs were written")


def _jobs(trace: Trace) -> dict[str, np.ndarray]:
    jobs = trace.table("jobs")
    if not jobs:
        raise TraceError(f"{trace.path}: no job table")
    return jobs


def _step_s(trace: Trace, member: str) -> float:
    return json.loads(trace.attrs["scenario"])["members"][member]["step_s"]


def _largest(deviation: np.ndarray) -> float:
    return float(np.abs(deviation).max(initial=0.0))


LAWS: tuple[tuple[str, float, Callable[[Trace], float]], ...] = (
    ("arrived = queued + deferred + running + finished + dropped, every minute", EXACT, _jobs_every_minute),
    ("every arrival reaches one site in its minute", EXACT, _jobs_reach_a_site),
    ("job rows = counted outcomes, per site and class", EXACT, _rows_match_counts),
    ("work of the minutes = work of the jobs + undone by failures (relative)", RELATIVE, _work),
    ("a finished job has all its work done (relative)", RELATIVE, _finished_work),
    ("IT power = idle + busy GPUs x their power, (13) (relative)", RELATIVE, _it_energy),
    ("power = IT + cooling + losses, (12) (relative)", RELATIVE, _power_adds_up),
    ("heat given off = removed + stored in the room, (19)-(21) (relative)", RELATIVE, _heat),
    ("power told to the grid = mean of its minutes (relative)", RELATIVE, _windows),
    ("busy GPUs <= capacity (relative excess)", RELATIVE, _capacity),
    ("line ends differ by the losses, (1) (kW)", 1e-6, _power_balance),
    ("summary = figures of the series (relative)", RELATIVE, _summary),
    ("carbon generated = loads + losses at the sender's intensity, (10) (kg/h)", 1e-6, _carbon),
)
"""Name, largest deviation allowed, law."""
