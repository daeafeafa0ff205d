"""What jobs got, from a trace: how many finished, how long they waited, what work was done and what of it was lost.

Rows: K01, K04, M08, M15.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cosim.digest import Digest, Table
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.quantiles import quantiles
from cosim.simulators.analysis.site_series import ended_jobs, finished_work_to, jobs_until
from cosim.simulators.fleet import JobClass
from cosim.trace import Trace
from cosim.trace.series import (
    CountedSamples,
    counted,
    counted_time,
    scenario_of,
    spans,
)
from cosim.units import TO_PER_GTO

_MOST_SITES = 8
"""With more, waits by site are figures only."""


@dataclass(frozen=True)
class WaitTimes:
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


def waits(trace: Trace) -> list[WaitTimes]:
    """Waits per class, at all sites together and then at each; [] for a trace without a job table."""
    if "jobs" not in trace.tables():
        return []
    scenario, sites = scenario_of(trace), trace.names(SITE)
    classes = {name: JobClass(**scenario["shared"]["job_classes"][name]) for name in trace.names(SITE, "job_class")}
    missed: dict[tuple[str, str | None], int] = dict.fromkeys(product(classes, (None, *sites)), 0)
    bound = {name: c for name, c in classes.items() if c.slo_wait_s is not None}
    for name, site, wait_s, dropped in _of_blocks(trace, bound, sites) if bound else ():
        missed[name, site] += int(np.count_nonzero(dropped | (wait_s > bound[name].slo_wait_s)))
    found = quantiles(lambda: (((name, site), wait_s[np.isfinite(wait_s)])
                               for name, site, wait_s, _ in _of_blocks(trace, classes, sites)), (0.5, 0.95, 0.99))
    out = []
    for key in product(classes, (None, *sites)):
        began, (p50, p95, p99) = found.get(key, (0, (np.nan,) * 3))
        out.append(WaitTimes(*key, began, p50, p95, p99, None if classes[key[0]].slo_wait_s is None else missed[key]))
    return out


def _of_blocks(trace: Trace, classes: Mapping[str, JobClass], sites: Sequence[str]
               ) -> Iterator[tuple[str, str | None, np.ndarray, np.ndarray]]:
    """(class, site, waits, s, which were dropped) of the jobs that arrived in the counted time, at all sites (None) and
    at each, block by block of the table."""
    time = counted_time(trace)
    for jobs in trace.blocks("jobs", ("arrival_s", "release_s", "start_s", "job_class", "site", "outcome")):
        counts = (jobs["arrival_s"] >= time.begin_s) & (jobs["arrival_s"] < time.end_s)
        dropped = jobs["outcome"] == "dropped"
        here = {site: jobs["site"] == site for site in sites}
        for name, job_class in classes.items():
            mine = counts & (jobs["job_class"] == name)
            if not mine.any():
                continue
            wait_s = jobs["start_s"] - jobs["release_s" if job_class.kind == "train" else "arrival_s"]
            yield name, None, wait_s[mine], dropped[mine]
            for site in sites:
                rows = mine & here[site]
                yield name, site, wait_s[rows], dropped[rows]


def _job_counts(trace: Trace) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What became of jobs in the counted time: `received`, `finished` and `dropped` per class, and those inside at its
    end, each (class,). See `ended_jobs` for a tick that the counted time cuts."""
    time, what = counted_time(trace), counted(trace, SITE)
    totals = {name: ended_jobs(trace, SITE, name).sum(axis=(0, 1)) for name in ("finished", "dropped")}
    received = trace[f"{SITE}/received_jobs"][what.use][what.begins].sum(axis=(0, 1))
    last, tick_end_s = np.flatnonzero(what.use)[-1:], spans(trace, SITE)[1]
    inside = sum(trace[f"{SITE}/{name}_jobs"][last].sum(axis=(0, 1)) for name in ("queued", "deferred", "running"))
    if last.size and tick_end_s[last[0]] > time.end_s and "jobs" in trace.tables():
        for name in totals:  # they left after the end, in the same tick
            left = trace[f"{SITE}/{name}_jobs"][: last[0] + 1].sum(axis=0) - jobs_until(trace, SITE, name, time.end_s)
            inside = inside + left.sum(axis=0)
    return {"received": received, **totals}, inside


def served_to(trace: Trace) -> np.ndarray | None:
    """Work served, per class (class,), TO: the whole work of the jobs that finished in the counted time, also what was
    done in the warm-up, and nothing of those that were dropped or are unfinished. None where the trace lacks it.

    The one definition: of the summary, and with it of reports, `cosim.agents.evaluate` and the terms that learners log.
    """
    if trace.has(f"{SITE}/finished_work_to"):
        return finished_work_to(trace, SITE).sum(axis=(0, 1))
    if "jobs" not in trace.tables():
        return None
    time = counted_time(trace)  # data centers that do not count it: from their jobs
    return (jobs_until(trace, SITE, "finished", time.end_s, work=True)
            - jobs_until(trace, SITE, "finished", time.begin_s, work=True)).sum(axis=0)


def unfinished_to(trace: Trace) -> np.ndarray | None:
    """Work left of the jobs inside at the end of the last counted minute, per class (class,), TO; None where the trace
    lacks it."""
    paths = [f"{SITE}/{name}_work_to" for name in ("pending", "deferred")]
    last = np.flatnonzero(counted(trace, SITE).use)[-1:]
    return sum(trace[path][last].sum(axis=(0, 1)) for path in paths) if all(map(trace.has, paths)) else None


def jobs_tables(trace: Trace, digest: Digest) -> None:
    """What became of the jobs of each class; what work was lost; and, of a few sites, how long jobs waited at each."""
    what = counted(trace, SITE)
    classes, all_waits = trace.names(SITE, "job_class"), waits(trace)
    totals, inside = _job_counts(trace)
    left_to = unfinished_to(trace)
    left = ["-"] * (len(classes) + 1)
    if left_to is not None:
        left = [f"{x / TO_PER_GTO:.3f}" for x in (*left_to, left_to.sum())]
    work = what.share[:, None] * trace[f"{SITE}/work_to"][what.use].sum(axis=1)
    minutes = counted_time(trace).minutes
    rows: list[tuple[str, ...]] = []
    waited = {w.job_class: w for w in all_waits if w.site is None}
    for k, name in enumerate(classes):
        rows.append((name, f"{totals['received'][k]:.0f}", f"{totals['finished'][k]:.0f}",
                     f"{totals['dropped'][k]:.0f}", f"{inside[k]:.0f}", left[k],
                     f"{work[:, k].sum() / minutes / 1e6:.2f}", *_wait_cells(waited.get(name))))
        digest.figures |= {f"finished_{name}_jobs": float(totals["finished"][k]),
                           f"dropped_{name}_jobs": float(totals["dropped"][k]),
                           f"unfinished_{name}_jobs": float(inside[k]),
                           **({} if left_to is None else {f"unfinished_{name}_to": float(left_to[k])})}
    done = float(work.sum()) / minutes
    rows.append(("all", *(f"{v.sum():.0f}" for v in (*totals.values(), inside)), left[-1], f"{done / 1e6:.2f}",
                 *[""] * 4))
    digest.figures |= {"throughput_to_per_min": done, **{k: v for w in all_waits for k, v in _wait_figures(w).items()}}
    scenario = scenario_of(trace)
    policy = scenario["members"].get("controller", {}).get("params", {}).get("policy")
    note = "unfinished jobs may have arrived in the warm-up" if scenario.get("warmup_s") else ""
    columns = ("class", "arrived", "finished", "dropped", "unfinished", "left 1e9 TO", "M TO/min",
               "wait p50 s", "p95 s", "p99 s", "SLO missed")
    digest.tables.append(Table(f"Jobs under policy {policy}" if policy else "Jobs", columns, rows, note))
    _work_table(trace, what, work.sum(axis=0), digest)
    _waits_table(trace, all_waits, digest)


def _work_table(trace: Trace, what: CountedSamples, done_to: np.ndarray, digest: Digest) -> None:
    """Work served, and done for nothing, per class: of jobs begun and missed, and undone by failures of racks."""
    served = served_to(trace)
    if served is not None:
        digest.figures["served_to"] = float(served.sum())
    missed, failed = (what.share @ trace[path][what.use].sum(axis=1) if trace.has(path) else None
                      for path in (f"{SITE}/missed_work_to", f"{SITE}/failed_work_to"))
    if missed is None or served is None:
        return
    failed = np.zeros_like(missed) if failed is None else failed
    digest.figures |= {"lost_missed_to": float(missed.sum()), "lost_failed_to": float(failed.sum())}
    rows = []
    columns = (done_to, served, missed, failed)
    for name, *works in (*zip(trace.names(SITE, "job_class"), *columns, strict=True),
                         ("all", *(column.sum() for column in columns))):
        lost = sum(works[2:])
        rows.append((name, *(f"{w / TO_PER_GTO:.3f}" for w in works),
                     f"{100 * lost / works[0]:.2f} %" if works[0] else "-"))
    digest.tables.append(Table(
        "Work, 1e9 TO", ("class", "done", "served", "begun, then missed", "undone by failures", "lost"), rows,
        "served: all work of the jobs that finished, when it was done does not matter; nothing of others"))


def _waits_table(trace: Trace, all_waits: list[WaitTimes], digest: Digest) -> None:
    """How long jobs waited at each site."""
    sites = trace.names(SITE)
    if not 1 < len(sites) <= _MOST_SITES or not all_waits:
        return
    rows = [(w.job_class, w.site, f"{w.began_jobs}", *_wait_cells(w)) for w in all_waits if w.site is not None]
    digest.tables.append(Table("Waits by site", ("class", "site", "began", "wait p50 s", "p95 s", "p99 s",
                                                 "SLO missed"), rows))


def _wait_cells(w: WaitTimes | None) -> tuple[str, str, str, str]:
    if w is None or not w.began_jobs:
        return "-", "-", "-", "-" if w is None or w.slo_missed_jobs is None else f"{w.slo_missed_jobs}"
    missed = "-" if w.slo_missed_jobs is None else f"{w.slo_missed_jobs}"
    return f"{w.p50_s:.0f}", f"{w.p95_s:.0f}", f"{w.p99_s:.0f}", missed


def _wait_figures(w: WaitTimes) -> dict[str, float]:
    of = w.job_class if w.site is None else f"{w.job_class}_{w.site}"
    figures = {f"wait_p{p}_{of}_s": v for p, v in ((50, w.p50_s), (95, w.p95_s), (99, w.p99_s)) if np.isfinite(v)}
    if w.slo_missed_jobs is not None:
        figures[f"slo_missed_{of}_jobs"] = float(w.slo_missed_jobs)
    return figures
