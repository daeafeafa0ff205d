"""Conservation laws of LLM serving, from a trace: tokens, times, power of its requests; tables are read in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.serving import served_classes
from cosim.trace import Trace
from cosim.trace.series import step_s


def _needs_requests(trace: Trace) -> None:
    needs_sites(trace)
    if not served_classes(trace):
        raise NothingToCheck("no class of kind llm")
    if trace.attrs["status"] != "completed":
        raise TraceError(f"{trace.path}: the run did not end, and requests inside have no row")
    if "llm_requests" not in trace.tables():
        raise TraceError("no request has a row")


def _worst(off: Mapping[str, float], allowed: float) -> Finding:
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], allowed, worst)


def tokens(trace: Trace) -> Finding:
    """Tokens put out and tokens of prompts computed, preemptions, per site and class: sums of the ticks and of the
    requests; whole answers of those that finished."""
    _needs_requests(trace)
    names, sites, classes = trace.names(SITE, "job_class"), trace.names(SITE), served_classes(trace)
    ports = {"output_tokens": "generated_tokens", "prefill_tokens": "prefilled_tokens", "preemptions": "preemptions"}
    of_rows = dict.fromkeys(product(ports, classes, sites), 0.0)
    cut = dict.fromkeys(product(classes, sites), 0.0)
    columns = ("site", "job_class", "outcome", "output_tokens", *ports.values())
    for block in trace.blocks("llm_requests", columns):
        for name, site in product(classes, sites):
            mine = (block["site"] == site) & (block["job_class"] == name)
            for port, column in ports.items():
                of_rows[port, name, site] += float(block[column][mine].sum())
            ended = block["outcome"][mine] == "finished"
            whole = block["generated_tokens"][mine] == block["output_tokens"][mine]
            cut[name, site] += float(np.count_nonzero(ended != whole))
    of_ticks = {port: trace[f"{SITE}/{port}"].sum(axis=0) for port in ports}
    off = {f"{port} of {name} at {site}": abs(float(of_ticks[port][sites.index(site), names.index(name)]) - total)
           for (port, name, site), total in of_rows.items()}
    return _worst(off | {f"answers of {name} at {site}": number for (name, site), number in cut.items()}, 0.0)


def gaps(trace: Trace) -> Finding:
    """Tokens with an inter-token latency, per site and class: all that the requests have but their first ones."""
    _needs_requests(trace)
    sites, classes = trace.names(SITE), served_classes(trace)
    if "llm_gaps" not in trace.tables():
        raise TraceError("no table llm_gaps, which an older version does not write")
    off = dict.fromkeys(product(classes, sites), 0.0)
    for block in trace.blocks("llm_requests", ("site", "job_class", "generated_tokens", "first_token_s")):
        for name, site in off:
            mine = (block["site"] == site) & (block["job_class"] == name)
            off[name, site] += float(block["generated_tokens"][mine].sum()
                                     - np.count_nonzero(np.isfinite(block["first_token_s"][mine])))
    for block in trace.blocks("llm_gaps"):
        for name, site in off:
            mine = (block["site"] == site) & (block["job_class"] == name)
            off[name, site] -= float(block["tokens"][mine].sum())
    return _worst({f"{name} at {site}": abs(number) for (name, site), number in off.items()}, 0.0)


def request_times(trace: Trace) -> Finding:
    """A request arrives, is admitted, gives its first token and ends in this order, s by which one does not."""
    _needs_requests(trace)
    order = ("arrival_s", "start_s", "first_token_s", "end_s")
    off = {f"{before} and {after}": 0.0 for before, after in pairwise(order)}
    for block in trace.blocks("llm_requests", order):
        for before, after in pairwise(order):
            late = float(np.nanmax(block[before] - block[after], initial=0.0))
            off[f"{before} and {after}"] = max(off[f"{before} and {after}"], late)
    return _worst(off, 1e-6)


def serving_energy(trace: Trace) -> Finding:
    """Power of replicas above idle = shares of their requests + replicas without work, per tick, site and class,
    relative to the site's largest."""
    _needs_requests(trace)
    times, tick_s, names = trace.time_s(SITE), step_s(trace, "aidc"), trace.names(SITE, "job_class")
    classes, sites = list(served_classes(trace)), trace.names(SITE)
    known = [(block["id"], np.select([block["job_class"] == name for name in classes], range(len(classes)), -1)
              .astype(np.int16)) for block in trace.blocks("llm_requests", ("id", "job_class"))]
    ids, class_of = (np.concatenate(parts) for parts in zip(*known, strict=True))
    order = np.argsort(ids, kind="stable")
    ids, class_of = ids[order], class_of[order]
    shared = np.zeros((len(times), len(sites), len(classes)))
    for use in trace.blocks("llm_use"):
        of_class = class_of[np.searchsorted(ids, use["id"])]
        tick = np.clip(np.searchsorted(times, use["start_s"], side="right") - 1, 0, len(times) - 1)
        kws = use["dynamic_kw"] * (use["end_s"] - use["start_s"])
        for k, site in enumerate(sites):
            for c in range(len(classes)):
                mine = (use["site"] == site) & (of_class == c)
                shared[:, k, c] += np.bincount(tick[mine], kws[mine], len(times)) / tick_s
    off = {}
    for k, site in enumerate(sites):
        for c, name in enumerate(classes):
            all_kw, ready_kw = (trace[f"{SITE}/llm_{part}_kw"][:, k, names.index(name)] for part in ("dynamic",
                                                                                                   "ready"))
            off[f"{name} at {site}"] = largest(all_kw - ready_kw - shared[:, k, c]) / max(
                float(all_kw.max(initial=0.0)), 1e-3)
    return _worst(off, 1e-9)
