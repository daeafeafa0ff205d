"""What each job used and emitted: the energy and carbon of a data centre, minute by minute, shared among its jobs.

`cosim receipts` prints it.

The rule. In a tick of length dt a job that held GPUs for s GPU-seconds carries

    dynamic energy   s x alpha xi / 60, what these GPUs drew above idle (13), of an LLM request its share of its
                     replica's iterations; where servers need more as their inlets are warm, this and idle power by the
                     factor of the tick
    idle, cooling    s / (G dt) of the site's idle and of its cooling energy in the tick, G being the site's GPUs;
                     losses of UPS and PDU and auxiliaries, where a site has them, count as cooling

and what no job carries is `unallocated`: idle and cooling of unused GPUs, and replicas without work. Where GPUs have
types, dynamic energy is s times the mean power above idle, in the tick, of the GPUs that its class held of that type,
and a job carries the idle power of its own GPUs and their hosts beside its share of the site's `idle_kw`. Carbon is
each tick's energy times the intensity of that tick: attributed by NCI, and marginal by mci where the grid has it. So
the rows of finished, dropped and unfinished jobs and the unallocated row add up to the site's energy and carbon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.aidc.equations import inlet_factor
from cosim.simulators.analysis import network
from cosim.simulators.analysis.cooling import coolings, served_degc
from cosim.simulators.analysis.gpu_states import by_work, gpu_types, has_types, site_of
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.site_series import intensity_of
from cosim.simulators.fleet import JobClass, Site
from cosim.trace import Trace
from cosim.trace.series import CountedTime, counted, counted_time, over_counted, scenario_of, step_s
from cosim.units import HOUR_S

FIGURES = ("gpu_s", "energy_kwh", "dynamic_kwh", "idle_kwh", "cooling_kwh", "co2_kg", "co2_marginal_kg")
NETWORK_FIGURES = ("network_kwh", "co2_network_kg")
"""Names of a job's figures, and of those that it has where there is a network."""


@dataclass(frozen=True)
class JobFootprints:
    """The account of one site: arrays with one entry per job, in the order of the job table, then `unallocated`.

    job_id, job_class, outcome   of the job; of the last entry -1, 'unallocated' and ''
    gpu_s                        GPU-seconds; of the last entry those unused
    dynamic_kwh, idle_kwh, cooling_kwh
    co2_kg, co2_marginal_kg      by NCI and by mci of the ticks in which it ran; NaN where the grid has none
    network_kwh, co2_network_kg  of the wide-area network that brought it, beside the site's energy and carbon; 0 of
                                 `unallocated`, and of jobs that were sent before the counted time
    has_network                  whether there is one
    """

    site: str
    job_id: np.ndarray
    job_class: np.ndarray
    outcome: np.ndarray
    gpu_s: np.ndarray
    dynamic_kwh: np.ndarray
    idle_kwh: np.ndarray
    cooling_kwh: np.ndarray
    co2_kg: np.ndarray
    co2_marginal_kg: np.ndarray
    network_kwh: np.ndarray
    co2_network_kg: np.ndarray
    has_network: bool = False

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that this account has."""
        return FIGURES + NETWORK_FIGURES if self.has_network else FIGURES

    @property
    def energy_kwh(self) -> np.ndarray:
        """All of a job's energy."""
        return self.dynamic_kwh + self.idle_kwh + self.cooling_kwh

    def of(self, job_id: int) -> dict[str, float]:
        """One job's figures by name. Raises KeyError for a job that was not at the site."""
        rows = np.flatnonzero(self.job_id == job_id)
        if not rows.size:
            raise KeyError(f"job {job_id} was not at {self.site}")
        return {name: float(getattr(self, name)[rows[0]]) for name in self.figures}


@dataclass(frozen=True)
class _Uses:
    """Who held how many GPU-seconds in which tick, and what these drew above idle and, where GPUs have types, idle with
    their hosts, kW s: parallel arrays, several entries a job."""

    row: np.ndarray
    tick: np.ndarray
    gpu_s: np.ndarray
    dynamic_kws: np.ndarray
    own_idle_kws: np.ndarray


def job_footprints(trace: Trace, *, warmup: bool = False) -> list[JobFootprints]:
    """The account of every site over the counted time, in the trace's order of sites: of a job that ran before, what it
    used since, and of a tick that the counted time cuts every use in proportion. Jobs that used nothing in it and ended
    before it are left out. warmup: over the whole run, the warm-up included.

    Raises TraceError without a job table, or if the GPU time of the jobs is not that of the minutes (to 1e-6): the
    trace of a run that did not end, or one from another source.
    """
    jobs = trace.table("jobs")
    if not jobs:
        raise TraceError(f"{trace.path}: no job table")
    time = counted_time(trace)
    if warmup:
        time = CountedTime(0.0, time.end_s)
    return [_account(trace, name, k, jobs, time) for k, name in enumerate(trace.names(SITE))]


def _account(trace: Trace, name: str, k: int, jobs: dict[str, np.ndarray], time: CountedTime) -> JobFootprints:
    scenario = scenario_of(trace)
    site = Site(**scenario["shared"]["sites"][name])
    job_classes = {m: JobClass(**scenario["shared"]["job_classes"][m]) for m in trace.names(SITE, "job_class")}
    time_s, tick_s = trace.time_s(SITE), step_s(trace, SITE.split("/")[0])
    here = jobs["site"] == name
    mine = {column: values[here] for column, values in jobs.items()}
    uses = _uses(trace, name, mine, job_classes, time_s, tick_s)
    _agrees(trace, k, uses, tick_s, name)
    what = counted(trace, SITE, time)
    length_s = np.zeros(len(time_s))  # of each tick that counts
    length_s[what.use] = what.share * tick_s
    share = uses.gpu_s / (site.gpus * tick_s)
    counts = length_s[uses.tick] / tick_s
    uses = _Uses(uses.row, uses.tick, uses.gpu_s * counts, uses.dynamic_kws * counts, uses.own_idle_kws * counts)
    it_kwh, p_kwh = (trace[f"{SITE}/{port}"][:, k] * length_s / HOUR_S for port in ("it_kw", "p_kw"))
    factor = inlet_factor(served_degc(trace)[:, k], coolings(trace)[k]) * np.ones(len(time_s))
    common_kwh = idle_kwh = factor * site.idle_kw * length_s / HOUR_S
    if has_types(trace):
        idle_kwh = it_kwh - factor * trace[f"{SITE}/work_dynamic_kw"][:, k].sum(axis=1) * length_s / HOUR_S
    parts = {
        "dynamic_kwh": (uses.dynamic_kws / HOUR_S * factor[uses.tick], it_kwh - idle_kwh),
        "idle_kwh": (share * common_kwh[uses.tick] + uses.own_idle_kws / HOUR_S * factor[uses.tick], idle_kwh),
        "cooling_kwh": (share * (p_kwh - it_kwh)[uses.tick], p_kwh - it_kwh),
    }
    used_kwh, jobs_here = sum(use for use, _ in parts.values()), len(mine["id"])
    columns = {"gpu_s": _shared(uses.gpu_s, site.gpus * length_s, uses, jobs_here)}
    columns |= {what: _shared(use, total, uses, jobs_here) for what, (use, total) in parts.items()}
    for column, port in (("co2_kg", "nci_kg_per_kwh"), ("co2_marginal_kg", "mci_kg_per_kwh")):
        where, kg_per_kwh = intensity_of(trace, name, port), np.zeros(len(time_s))
        kg_per_kwh[what.use] = np.nan if where is None else over_counted(trace, where[0], SITE, time)[:, where[1]]
        columns[column] = _shared(used_kwh * kg_per_kwh[uses.tick], p_kwh * kg_per_kwh, uses, jobs_here)
    used = np.bincount(uses.row, uses.gpu_s, jobs_here) > 0.0
    there = np.append(~(mine["end_s"] <= time.begin_s) | used, True)
    named = (np.append(mine["id"], -1), np.append(mine["job_class"], "unallocated"), np.append(mine["outcome"], ""))
    sent = (mine["arrival_s"] >= time.begin_s) & (mine["arrival_s"] < time.end_s)
    for column, of_all in zip(NETWORK_FIGURES, network.of_jobs(trace, mine["id"]), strict=True):
        columns[column] = np.append(np.where(sent, of_all, 0.0), 0.0)
    figures: dict[str, Any] = {column: x[there] for column, x in columns.items()}
    return JobFootprints(name, *(x[there] for x in named), **figures | {
        "has_network": network.wan_of(trace) is not None})


def _shared(use: np.ndarray, total: np.ndarray, uses: _Uses, rows: int) -> np.ndarray:
    """Per job what it used, and at the end what is left of the total."""
    of_jobs = np.bincount(uses.row, use, rows)
    return np.append(of_jobs, (total - np.bincount(uses.tick, use, len(total))).sum())


def _uses(trace: Trace, site: str, jobs: dict[str, np.ndarray], job_classes: dict[str, JobClass], time_s: np.ndarray,
          tick_s: float) -> _Uses:
    """GPU time by job and tick: from the table of runs, and of jobs whose row has its GPUs from start to end."""
    end_s = float(time_s[-1]) + tick_s
    kw_per_gpu = np.zeros(len(jobs["id"]))
    for m, job_class in job_classes.items():
        kw_per_gpu[jobs["job_class"] == m] = 0.0 if job_class.kind == "llm" else job_class.busy_kw_per_gpu
    order = np.argsort(jobs["id"], kind="stable")

    def at_site(name: str, columns: tuple[str, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """A table's rows of the site, and the rows of the job table that they go with."""
        table = trace.table(name) or {c: np.empty(0) for c in columns}
        here = {column: values[table["site"] == site] for column, values in table.items()}
        rows = order[np.searchsorted(jobs["id"][order], here["id"])] if len(here["id"]) else np.empty(0, int)
        return here, rows

    runs, run_row = at_site("gpu_runs", ("id", "site", "start_s", "end_s", "gpus"))
    shares, share_row = at_site("llm_use", ("id", "site", "start_s", "end_s", "gpus", "dynamic_kw"))
    gpus = jobs["gpus"] if "gpus" in jobs else _unlogged(jobs, job_classes, run_row, runs["start_s"])
    whole = np.flatnonzero(np.isfinite(gpus) & np.isfinite(jobs["start_s"]))
    last_s = np.where(np.isfinite(jobs["end_s"]), jobs["end_s"], end_s)
    row = np.concatenate([run_row, whole, share_row])
    begin = np.concatenate([runs["start_s"], jobs["start_s"][whole], shares["start_s"]])
    end = np.concatenate([runs["end_s"], last_s[whole], shares["end_s"]])
    held = np.concatenate([runs["gpus"], gpus[whole], shares["gpus"]])
    if has_types(trace):
        return _typed(trace, site, jobs["job_class"][run_row], runs, _by_tick(
            np.arange(len(run_row)), runs["start_s"], runs["end_s"], runs["gpus"], np.zeros(len(run_row)),
            float(time_s[0]), tick_s), run_row)
    kw = np.concatenate([runs["gpus"] * kw_per_gpu[run_row], gpus[whole] * kw_per_gpu[whole], shares["dynamic_kw"]])
    return _by_tick(row, begin, end, held, kw, float(time_s[0]), tick_s)


def _typed(trace: Trace, site: str, job_class: np.ndarray, runs: dict[str, np.ndarray], pieces: _Uses,
           run_row: np.ndarray) -> _Uses:
    """Pieces of runs on GPU types, with what these drew: above idle the mean of their class and type in the tick."""
    k, types = trace.names(SITE).index(site), gpu_types(trace)
    figures = site_of(trace, site).gpu_types
    which = pieces.row
    at = np.array([types.index(t) for t in runs["gpu_type"]], dtype=int)[which]
    awake_kw = np.array([figures[t].awake_kw if t in figures else 0.0 for t in types])
    m = np.array([trace.names(SITE, "job_class").index(c) for c in job_class], dtype=int)[which]
    gpus, kw = (by_work(trace, port)[:, k] for port in ("work_gpus", "work_dynamic_kw"))
    each_kw = np.divide(kw, gpus, out=np.zeros_like(kw), where=gpus > 0.0)
    return _Uses(run_row[which], pieces.tick, pieces.gpu_s, pieces.gpu_s * each_kw[pieces.tick, at, m],
                 pieces.gpu_s * awake_kw[at])


def _unlogged(jobs: dict[str, np.ndarray], job_classes: dict[str, JobClass], run_row: np.ndarray,
              run_start_s: np.ndarray) -> np.ndarray:
    """The column `gpus` for the traces of version 0.1, which lack it: an inference job held those of its class, unless
    its last start is in the table of runs (earlier runs ended with a rack). `_agrees` refuses where this is not so."""
    gpus = np.full(len(jobs["id"]), np.nan)
    for m, job_class in job_classes.items():
        if job_class.kind == "inf":
            gpus[jobs["job_class"] == m] = job_class.gpus_per_block
    gpus[run_row[run_start_s >= jobs["start_s"][run_row]]] = np.nan
    return gpus


def _by_tick(row: np.ndarray, begin_s: np.ndarray, end_s: np.ndarray, gpus: np.ndarray, kw: np.ndarray,
             first_s: float, tick_s: float) -> _Uses:
    """Cut intervals at the ticks; what has no length, as a job that begins when the run ends, is left out."""
    some = end_s > begin_s
    row, begin_s, end_s, gpus, kw = row[some], begin_s[some], end_s[some], gpus[some], kw[some]
    first = np.floor((begin_s - first_s) / tick_s).astype(int)
    last = np.maximum(np.ceil((end_s - first_s) / tick_s).astype(int) - 1, first)
    number = last - first + 1
    which = np.repeat(np.arange(len(row)), number)
    tick = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number)
    start = first_s + tick * tick_s
    seconds = np.minimum(end_s[which], start + tick_s) - np.maximum(begin_s[which], start)
    return _Uses(row[which], tick, gpus[which] * seconds, kw[which] * seconds, np.zeros(len(which)))


def gpu_time_off(trace: Trace) -> dict[str, float]:
    """Per site by how much the GPU time of its jobs in a tick is not that of its busy GPUs, over the busiest tick's."""
    jobs, time_s, tick_s = trace.table("jobs"), trace.time_s(SITE), step_s(trace, SITE.split("/")[0])
    if not jobs:
        raise TraceError(f"{trace.path}: no job table")
    classes = scenario_of(trace)["shared"]["job_classes"]
    job_classes = {name: JobClass(**classes[name]) for name in trace.names(SITE, "job_class")}
    off = {}
    for k, name in enumerate(trace.names(SITE)):
        here = jobs["site"] == name
        mine = {column: values[here] for column, values in jobs.items()}
        deviation, busiest = _deviation(trace, k, _uses(trace, name, mine, job_classes, time_s, tick_s), tick_s)
        off[name] = float(deviation.max(initial=0.0)) / busiest
    return off


def _deviation(trace: Trace, k: int, uses: _Uses, tick_s: float) -> tuple[np.ndarray, float]:
    """(GPU-seconds of every tick that the jobs held more or less than were busy, those of the busiest tick)."""
    busy = trace[f"{SITE}/busy_gpus"][:, k]
    if trace.has(f"{SITE}/llm_ready_gpus"):
        busy = busy - trace[f"{SITE}/llm_ready_gpus"][:, k]
    busy_gpu_s = busy.sum(axis=1) * tick_s
    off = np.abs(np.bincount(uses.tick, uses.gpu_s, len(busy_gpu_s)) - busy_gpu_s)
    return off, max(float(busy_gpu_s.max(initial=0.0)), 1.0)


def _agrees(trace: Trace, k: int, uses: _Uses, tick_s: float, name: str) -> None:
    off, busiest = _deviation(trace, k, uses, tick_s)
    if off.max(initial=0.0) > 1e-6 * busiest:
        at = int(off.argmax())
        raise TraceError(f"{trace.path}: in tick {at} the jobs of {name} held {off[at]:.6g} GPU-seconds more or less "
                         f"than the site says; the account needs the trace of a run that ended (status completed)")
