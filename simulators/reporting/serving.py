"""Pictures of LLM serving: latencies against service levels, energy per token, replicas.

Rows: X08.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cosim.reporting.chart import MARKS, Fact, Panel, Picture, Rule, Series, missing
from cosim.reporting.text import listing, number, strong
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.quantiles import quantiles
from cosim.simulators.analysis.serving import (
    J_PER_KWH,
    class_kwh,
    good_ones,
    latencies,
    request_blocks,
    served_classes,
    serving_figures,
)
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import lines, warmup
from cosim.units import HOUR_S, MIN_S

_NOTHING = "The data centers of this run serve no language model."
_MOST_CELLS = 48


def serves(run: FleetRun) -> bool:
    """Whether there is anything to show."""
    return bool(served_classes(run.trace))


def _width_s(run: FleetRun) -> float:
    """Length of the cells that requests are gathered in: an hour, less of a short run."""
    return max(run.end_s / _MOST_CELLS, MIN_S) if run.end_s < 12 * HOUR_S else HOUR_S


def _over_time(run: FleetRun, name: str, serving: Serving, width_s: float
               ) -> tuple[list[dict[str, np.ndarray]], int, int]:
    """Of a class: median and 99th percentile of TTFT and TPOT per cell of arrival, ms, NaN for a cell without one;
    requests of the counted time, and those of them within their service level."""
    requests = good = 0
    cells = int(np.ceil(run.end_s / width_s))
    for _, _, rows in request_blocks(run.trace, {name: serving}, ()):
        ttft_s, tpot_s, _ = latencies(rows)
        counts = (rows["arrival_s"] >= run.time.begin_s) & (rows["arrival_s"] < run.time.end_s)
        requests += int(np.count_nonzero(counts))
        good += int(np.count_nonzero(good_ones(rows, serving, ttft_s, tpot_s)[counts]))

    def parts() -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        for _, _, rows in request_blocks(run.trace, {name: serving}, ()):
            cell = np.floor(rows["arrival_s"] / width_s).astype(int)
            for k, values in enumerate(latencies(rows)[:2]):
                for c in np.unique(cell):
                    here = values[cell == c]
                    yield (k, int(c)), here[np.isfinite(here)]
    found = quantiles(parts, (0.5, 0.99))
    shown = [{q: np.full(cells, np.nan) for q in ("p50", "p99")} for _ in range(2)]
    for (k, c), (_, values_s) in found.items():
        for q, value_s in zip(("p50", "p99"), values_s, strict=True):
            shown[k][q][c] = 1e3 * value_s
    return shown, requests, good


def latency(run: FleetRun) -> Picture:
    """TTFT and TPOT over the day, per class, beside their service levels."""
    key = "latency"
    classes = served_classes(run.trace)
    if not classes or "llm_requests" not in run.trace.tables():
        return missing(key, _NOTHING if not classes else "The trace has no table of LLM requests (aidc.job_log).")
    width_s = _width_s(run)
    time = np.arange(0.0, run.end_s, width_s)
    panels, said, facts = [], [], []
    for name, serving in classes.items():
        shown, requests, good = _over_time(run, name, serving, width_s)
        if not any(np.isfinite(found["p50"]).any() for found in shown) and not requests:
            continue
        for words, found, slo in (("time to first token", shown[0], serving.slo_ttft_s),
                                  ("time per output token", shown[1], serving.slo_tpot_s)):
            series = tuple(Series(q, time, y, "ink" if q == "p50" else "muted", run.end_s, mark=MARKS[k], label=q)
                           for k, (q, y) in enumerate(found.items()))
            rules = (Rule(1e3 * slo, f"SLO {1e3 * slo:g} ms"),) if slo is not None else ()
            panels.append(Panel(f"{name}: {words}", "ms", series, rules=rules, axis=f"{words} {name}", size=0.8,
                                bands=warmup(run)))
        if requests:
            said.append(f"{number(100.0 * good / requests, 4)} % of {name}")
            facts.append(Fact(f"requests of {name} within their service level", 100.0 * good / requests, "%"))
    says = f"Requests within both service levels: {strong(listing(said))}." if said else "No request arrived."
    note = f"Medians and 99th percentiles of the requests that arrived in each cell of {number(width_s / MIN_S)} min."
    return Picture(key, says, tuple(panels), note, tuple(facts), columns=True)


def energy(run: FleetRun) -> Picture:
    """Energy per output token over the day, and the replicas that are on."""
    key = "tokens"
    classes = served_classes(run.trace)
    if not classes:
        return missing(key, _NOTHING)
    what = run.counts(SITE)
    kwh, at = class_kwh(run.trace), run.time_s(SITE)[what.use]
    tokens = run.get(f"{SITE}/output_tokens")[what.use] * what.share[:, None, None]
    width_s = _width_s(run)
    cell = np.floor(at / width_s).astype(int)
    cells = int(np.ceil(run.end_s / width_s))
    time, series = np.arange(0.0, run.end_s, width_s), []
    for k, name in enumerate(classes):
        m = run.classes.index(name)
        joules, put_out = (np.bincount(cell, x[:, :, m].sum(axis=1), cells) for x in (J_PER_KWH * kwh, tokens))
        per = np.full(cells, np.nan)
        np.divide(joules, put_out, out=per, where=put_out > 0.0)
        series.append(Series(name, time, per, ("ink", "muted", "muted/45")[k % 3], run.end_s, mark=MARKS[k % 3],
                             label=name))
    panels = [Panel("Energy per output token", "J/token", tuple(series), axis="joules", bands=warmup(run))]
    for name in classes:
        m = run.classes.index(name)
        panels.append(Panel(f"Replicas of {name}", "replicas", lines(run, SITE, run.get(f"{SITE}/replicas")[:, :, m],
                                                                     run.sites), axis=f"replicas {name}", size=0.8,
                            bands=warmup(run)))
    figures = [f for f in serving_figures(run.trace) if f.site is None]
    said = [f"{number(f.joules_per_token)} J of {f.job_class}" for f in figures if np.isfinite(f.joules_per_token)]
    facts = tuple(Fact(f"energy per output token of {f.job_class}", f.joules_per_token, "J") for f in figures
                  if np.isfinite(f.joules_per_token))
    says = f"An output token took {strong(listing(said))}." if said else "No token was put out."
    note = ("With the share of idle and cooling energy of the GPUs that replicas hold, whether they have work or not. "
            f"{run.averaging(SITE)}")
    return Picture(key, says, tuple(panels), note, facts, columns=True)
