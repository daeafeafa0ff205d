"""Series of sites from a trace: the jobs that ended in its counted time, and the carbon intensity of a site's bus."""

from __future__ import annotations

import numpy as np

from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, port_ref, spans


def ended_jobs(trace: Trace, model: str, outcome: str) -> np.ndarray:
    """Jobs that were finished or dropped (`outcome`) in what counts of each sample of a model, (k, entity, job_class).

    A job counts where its instant lies. In a sample that is cut by an end of the counted time this is known from the
    job table; without a whole one, the sample's jobs count if it begins in the counted time.
    """
    return _ended(trace, model, f"{outcome}_jobs", outcome, False)


def finished_work_to(trace: Trace, model: str) -> np.ndarray:
    """Whole work of the jobs that finished in what counts of each sample, TO, (k, entity, job_class); see
    `ended_jobs`."""
    return _ended(trace, model, "finished_work_to", "finished", True)


def _ended(trace: Trace, model: str, port: str, outcome: str, work: bool) -> np.ndarray:
    time, what, (begin, end) = counted_time(trace), counted(trace, model), spans(trace, model)
    flows = trace[f"{model}/{port}"]
    out, places = flows[what.use], np.flatnonzero(what.use)
    whole = "jobs" in trace.tables() and trace.attrs["status"] != "running"
    for k, at in zip(np.flatnonzero(what.share < 1.0), places[what.share < 1.0], strict=True):
        if not whole:
            out[k] *= what.begins[k]
            continue
        until, before = flows[: at + 1].sum(axis=0), flows[:at].sum(axis=0)
        if end[at] > time.end_s:
            until = jobs_until(trace, model, outcome, time.end_s, work)
        if begin[at] < time.begin_s:
            before = jobs_until(trace, model, outcome, time.begin_s, work)
        out[k] = until - before
    return out


def jobs_until(trace: Trace, model: str, outcome: str, time_s: float, work: bool = False) -> np.ndarray:
    """Jobs that ended so up to an instant, or their `work`, TO, (entity, job_class), from the job table. What happens
    at the very edge of two samples may be in either one's count, so edges are no place for this."""
    sites, classes = trace.names(model), trace.names(model, "job_class")
    found = np.zeros((len(sites), len(classes)))
    for jobs in trace.blocks("jobs", ("site", "end_s", "outcome", "job_class", "work_to")):
        mine = (jobs["outcome"] == outcome) & (jobs["end_s"] <= time_s)
        for s, site in enumerate(sites):
            here = mine & (jobs["site"] == site)
            of_class = [here & (jobs["job_class"] == name) for name in classes]
            found[s] += [jobs["work_to"][rows].sum() if work else np.count_nonzero(rows) for rows in of_class]
    return found


def intensity_of(trace: Trace, site: str, port: str = "nci_kg_per_kwh") -> tuple[str, int] | None:
    """(path, column) of a carbon intensity at a site's bus: what a port of that bus is called and where it stands.

    Which bus that is comes from the run's own wiring: from where the site's NCI came. None where no NCI came, or the
    bus has no such port.
    """
    wiring = trace.table("wiring")
    for source, target in zip(wiring.get("source", ()), wiring.get("target", ()), strict=True):
        member, eid, linked = port_ref(source)
        if linked != "nci_kg_per_kwh" or port_ref(target).entity != site:
            continue
        for model in trace.models():
            if model.startswith(f"{member}/") and eid in trace.names(model) and trace.has(f"{model}/{port}"):
                return f"{model}/{port}", trace.names(model).index(eid)
    return None
