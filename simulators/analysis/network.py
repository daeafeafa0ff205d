"""The wide-area network from a trace: data moved, delays, energy and carbon of its own account; and their laws.

That energy is drawn between clients and sites, by no site and no bus: it is in no site's energy, cost or carbon and in
no figure of the grid, and stands beside them, at the intensity that the network was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.simulators.aidc.engine.jobs import tick_after
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.quantiles import quantiles
from cosim.simulators.wan import Wan
from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, scenario_of, step_s

RELATIVE, ALLOWED_S = 1e-9, 1e-6
_RATIOS = (0.5, 0.99)


def wan_of(trace: Trace) -> Wan | None:
    """The network of a run's data centers; None where jobs are there at once."""
    given = scenario_of(trace)["shared"].get("wan") or scenario_of(trace)["members"].get("aidc", {}).get(
        "params", {}).get("wan")
    return Wan(**given) if given and trace.has(f"{SITE}/network_gb") else None


@dataclass(frozen=True)
class NetworkFigures:
    """One class at one site, over the counted time. jobs: sent to it; delay_s: median and 99th percentile of their way,
    NaN without rows of single transfers."""

    job_class: str
    site: str
    jobs: float
    delay_s: tuple[float, ...]
    gb: float
    kwh: float
    co2_kg: float


def network_figures(trace: Trace) -> list[NetworkFigures]:
    """Per class and site; [] for a run without a network."""
    if wan_of(trace) is None:
        return []
    what, names, sites = counted(trace, SITE), trace.names(SITE, "job_class"), trace.names(SITE)
    received, gb, kwh, kg = (trace[f"{SITE}/{port}"][what.use][what.begins].sum(axis=0) for port in (
        "received_jobs", "network_gb", "network_kwh", "network_co2_kg"))
    delays = quantiles(lambda: _delays(trace), _RATIOS)
    return [NetworkFigures(name, site, float(received[k, m]), delays.get((name, site), (0, (np.nan,) * 2))[1],
                           float(gb[k, m]), float(kwh[k, m]), float(kg[k, m]))
            for m, name in enumerate(names) for k, site in enumerate(sites)]


def _delays(trace: Trace) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    if "transfers" not in trace.tables():
        return
    time = counted_time(trace)
    for block in trace.blocks("transfers", ("job_class", "site", "sent_s", "reached_s")):
        counts = (block["sent_s"] >= time.begin_s) & (block["sent_s"] < time.end_s)
        for name in trace.names(SITE, "job_class"):
            mine = counts & (block["job_class"] == name)
            for site in trace.names(SITE) if mine.any() else ():
                rows = mine & (block["site"] == site)
                yield (name, site), (block["reached_s"] - block["sent_s"])[rows]


def network_table(trace: Trace, digest: Digest) -> None:
    """What went over the network; nothing for a run without one."""
    figures, wan = network_figures(trace), wan_of(trace)
    if wan is None:
        return
    rows = [(f.job_class, f.site, f"{f.jobs:.0f}", *(f"{1e3 * s:.4g}" if np.isfinite(s) else "-" for s in f.delay_s),
             f"{f.gb:.4g}", f"{f.kwh:.4g}", f"{f.co2_kg:.4g}") for f in figures if f.jobs]
    digest.figures |= {"network_gb": sum(f.gb for f in figures), "network_energy_kwh": sum(f.kwh for f in figures),
                       "co2_network_kg": sum(f.co2_kg for f in figures)}
    digest.tables.append(Table(
        "Wide-area network", ("class", "site", "jobs sent", "way p50 ms", "p99", "GB", "kWh", "kg CO2"), rows,
        f"an account of its own, in no other figure: {wan.energy_kwh_per_gb:g} kWh/GB at {wan.carbon_kg_per_kwh:g} "
        "kg/kWh"))


def of_jobs(trace: Trace, job_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy, kWh, and carbon, kg, of the network for jobs by their ids: all of it, whenever they were sent; 0 where
    there is no network."""
    wan, kwh = wan_of(trace), np.zeros(len(job_id))
    if wan is None:
        return kwh, kwh.copy()
    order = np.argsort(job_id, kind="stable")
    ids = job_id[order]
    for block in trace.blocks("transfers", ("id", "network_kwh")):
        at = np.minimum(np.searchsorted(ids, block["id"]), max(len(ids) - 1, 0))
        mine = ids[at] == block["id"] if len(ids) else np.zeros(len(block["id"]), bool)
        kwh[order[at[mine]]] = block["network_kwh"][mine]
    return kwh, kwh * wan.carbon_kg_per_kwh


# --- laws -------------------------------------------------------------------------------------------------------------


def _needs_network(trace: Trace) -> Wan:
    needs_sites(trace)
    wan = wan_of(trace)
    if wan is None:
        raise NothingToCheck("no network (wan) is given")
    return wan


def account(trace: Trace) -> Finding:
    """Data, energy and carbon of the ticks: sums of the transfers, energy = data x energy per GB, carbon = energy x the
    network's intensity; relative."""
    wan = _needs_network(trace)
    gb, kwh, kg = (trace[f"{SITE}/network_{what}"] for what in ("gb", "kwh", "co2_kg"))
    off = {"energy of the data": _off(kwh, gb * wan.energy_kwh_per_gb),
           "carbon of the energy": _off(kg, kwh * wan.carbon_kg_per_kwh)}
    if "transfers" not in trace.tables():
        return _worst(off, RELATIVE, ("sums of single transfers, which have no row (aidc.job_log)",))
    times, names, sites = trace.time_s(SITE), trace.names(SITE, "job_class"), trace.names(SITE)
    sums = {"network_gb": np.zeros(gb.shape), "network_kwh": np.zeros(gb.shape), "received_jobs": np.zeros(gb.shape)}
    for block in trace.blocks("transfers"):
        tick = np.clip(np.searchsorted(times, block["sent_s"], side="right") - 1, 0, len(times) - 1)
        for k, site in enumerate(sites):
            for m, name in enumerate(names):
                mine = (block["site"] == site) & (block["job_class"] == name)
                for port, total in sums.items():
                    weight = block[port][mine] if port in block else np.ones(np.count_nonzero(mine))
                    total[:, k, m] += np.bincount(tick[mine], weight, len(times))
    for port, total in sums.items():
        off[f"{port} of the ticks"] = _off(trace[f"{SITE}/{port}"], total)
    return _worst(off, RELATIVE)


def ways(trace: Trace) -> Finding:
    """A job reaches its site when its way and its data's transfer take it there, is submitted then, moves what its
    class moves, and an answer's way back is that of its origin; s, or GB."""
    wan = _needs_network(trace)
    if "transfers" not in trace.tables():
        raise TraceError("no transfer has a row (aidc.job_log)")
    way, back = lru_cache(wan.delay_s), lru_cache(wan.latency)
    jobs = trace.table("jobs")
    order = np.argsort(jobs["id"], kind="stable")
    off = {"when a job reaches its site": 0.0, "when it is submitted": 0.0, "its data": 0.0, "jobs without a row": 0.0}
    origins: list[tuple[np.ndarray, np.ndarray]] = []
    for block in trace.blocks("transfers"):
        each = list(zip(block["origin"], block["site"], block["job_class"], strict=True))
        due_s = np.array([tick_after(sent + way(*one)) for sent, one in zip(block["sent_s"], each, strict=True)])
        gb = np.array([wan.moved_gb(*one) for one in each])
        at = np.minimum(np.searchsorted(jobs["id"][order], block["id"]), len(order) - 1)
        found = jobs["id"][order[at]] == block["id"]
        submit_s = jobs["submit_s"][order[at]]
        pieces = {"when a job reaches its site": block["reached_s"] - due_s, "its data": block["network_gb"] - gb,
                  "when it is submitted": (submit_s - block["reached_s"])[found], "jobs without a row": ~found * 1.0}
        off = {what: max(off[what], float(np.abs(values).max(initial=0.0))) for what, values in pieces.items()}
        origins.append((block["id"], np.array([back(one[0], one[1]) for one in each])))
    if "llm_requests" in trace.tables():
        ids, back_s = (np.concatenate(parts) for parts in zip(*origins, strict=True))
        order = np.argsort(ids, kind="stable")
        off["the way back of an answer"] = 0.0
        for block in trace.blocks("llm_requests", ("id", "return_s")):
            at = np.minimum(np.searchsorted(ids[order], block["id"]), len(ids) - 1)
            off["the way back of an answer"] = max(off["the way back of an answer"], float(np.abs(
                back_s[order[at]] - block["return_s"]).max(initial=0.0)))
    return _worst(off, ALLOWED_S)


def under_way(trace: Trace) -> Finding:
    """Jobs on their way at the end of a tick: those sent by then that reach their site later; and they are queued."""
    _needs_network(trace)
    transit, queued = trace[f"{SITE}/transit_jobs"], trace[f"{SITE}/queued_jobs"]
    off = {"more on their way than wait": float(np.maximum(transit - queued - trace[f"{SITE}/deferred_jobs"], 0.0)
                                                .max(initial=0.0))}
    if "transfers" not in trace.tables():
        return _worst(off, 0.0, ("single transfers, which have no row (aidc.job_log)",))
    ends = trace.time_s(SITE) + step_s(trace, "aidc")
    found = np.zeros((len(ends) + 1, *transit.shape[1:]))
    for block in trace.blocks("transfers", ("site", "job_class", "sent_s", "reached_s")):
        since = np.clip(np.searchsorted(ends, block["sent_s"], side="right"), 0, len(ends))
        until = np.searchsorted(ends, block["reached_s"], side="left")
        for k, site in enumerate(trace.names(SITE)):
            for m, name in enumerate(trace.names(SITE, "job_class")):
                mine = (block["site"] == site) & (block["job_class"] == name) & (until > since)
                np.add.at(found[:, k, m], since[mine], 1.0)
                np.add.at(found[:, k, m], until[mine], -1.0)
    off["jobs under way"] = float(np.abs(found.cumsum(axis=0)[:-1] - transit).max(initial=0.0))
    return _worst(off, 0.0)


def _off(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(found - expected) / max(float(np.abs(expected).max(initial=0.0)), 1e-12)).max(initial=0.0))


def _worst(off: dict[str, float], allowed: float, left_out: tuple[str, ...] = ()) -> Finding:
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], allowed, worst, left_out)
