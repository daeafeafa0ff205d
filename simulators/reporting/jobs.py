"""Pictures of single jobs: when training arrived and ran, how long jobs waited against what they were allowed.

Rows: I33, K07, X03, X08.
"""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Heat, LineMark, Panel, Picture, Series, Spread, missing
from cosim.reporting.text import count, length, number, strong
from cosim.simulators.analysis.paths import PRICE
from cosim.simulators.reporting.data import FleetRun
from cosim.units import HOUR_S, MIN_S

_NO_TABLE = "The trace has no job table, so single jobs cannot be followed."
_QUANTILES = (("half", 50.0), ("95 %", 95.0), ("99 %", 99.0))
_MOST_CELLS = 48
_MOST_PRICES = 4
"""With more, as of a market, prices make no windows."""
_SHORTEST_MIN = 1e-2


def _of(run: FleetRun, classes: list[str]) -> np.ndarray:
    """Mask of the counted jobs of some classes: those that arrived in the counted time."""
    arrival_s = run.jobs["arrival_s"]
    counts = (arrival_s >= run.time.begin_s) & (arrival_s < run.time.end_s)
    return np.isin(run.jobs["job_class"], classes) & counts


def _lacks(run: FleetRun) -> str:
    needed = {"job_class", "arrival_s", "start_s", "end_s", "deadline_s", "outcome"}
    if not run.jobs:
        return _NO_TABLE
    gone = sorted(needed - run.jobs.keys())
    return f"The job table lacks {', '.join(gone)}." if gone else ""


def deferral(run: FleetRun) -> Picture:
    """Training jobs by the hour in which they arrived and the hour in which they first ran."""
    key = "deferral"
    if lacks := _lacks(run):
        return missing(key, lacks)
    names = [run.classes[k] for k in run.kinds.get("training", [])]
    if not names:
        return missing(key, "The scenario has no training jobs, so nothing can be put off.")
    use = _of(run, names)
    arrival, start = run.jobs["arrival_s"][use], run.jobs["start_s"][use]
    ran = np.isfinite(start)
    if not ran.any():
        return missing(key, f"None of the {count(len(start), 'training job')} in the trace began to run.")
    width = next(w for w in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 24 * 7, 24 * 365) if run.end_s / HOUR_S / w <= _MOST_CELLS)
    if run.end_s >= 12 * HOUR_S:
        width = max(width, 1)
    edges = np.arange(0.0, run.end_s + width * HOUR_S, width * HOUR_S)
    z = np.histogram2d(arrival[ran], start[ran], bins=(edges, edges))[0]
    heat = Heat(edges[:-1], (), np.where(z > 0, z, np.nan), "jobs", float(edges[-1]), y_s=edges[:-1],
                x_says="ran", y_says="arrived")
    rates = []
    lines: tuple[tuple[str, np.ndarray, LineMark], ...] = (("arrived", arrival, "dash"),
                                                           ("began to run", start[ran], "solid"))
    for words, times, mark in lines:
        rates.append(Series(words, edges[:-1], np.histogram(times, edges)[0] / width,
                            "muted" if mark == "dash" else "ink", float(edges[-1]), mark=mark, label=words))
    delay = start[ran] - arrival[ran]
    later = 100 * float((delay > HOUR_S).mean())
    says = (f"When training jobs arrived and when they first ran: half of {count(ran.sum(), 'job')} began within "
            f"{strong(length(float(np.median(delay))))} of arriving, {number(later, 2)} % more than an hour later")
    never = int((~ran).sum())
    says += f"; {count(never, 'job')} never ran." if never else "."
    panels = (Panel(f"Hour of arrival against hour of first run, cells of {length(width * HOUR_S)}", heat=heat,
                    size=1.9), Panel("Training jobs arriving and beginning", "jobs/h", tuple(rates), size=1.9))
    facts = [Fact("training jobs that began over an hour late", later, "%")]
    note = ""
    if {"release_s", "submit_s"} <= run.jobs.keys():
        note, more = _put_off(run, arrival, (run.jobs["release_s"][use] - run.jobs["submit_s"][use]) / HOUR_S)
        facts += more
    return Picture(key, says, panels, note, tuple(facts), columns=True)


def _put_off(run: FleetRun, arrival_s: np.ndarray, put_off_h: np.ndarray) -> tuple[str, list[Fact]]:
    """What the agents decided: mean and variance of the deferral, and apart from the others the mean of the jobs
    that arrived while power was dearest."""
    mean, spread = float(put_off_h.mean()), float(put_off_h.var())
    note = (f"The agents put training off by {number(mean)} h on average (variance {number(spread)} h\u00b2)"
            if put_off_h.any() else "The agents put no training off: what waits, waits for GPUs")
    facts = [Fact("mean deferral of training", mean, "h"), Fact("variance of the deferral", spread, "h2")]
    if run.has(PRICE):
        price = run.held(PRICE, arrival_s)[:, 0]
        facts += _by_price(price, put_off_h)
        dear = price == np.nanmax(run.get(PRICE))
        if dear.any() and not dear.all():
            facts.append(Fact("mean deferral of training that came at the dearest price", float(put_off_h[dear].mean()),
                              "h"))
            if put_off_h.any():
                note += (f"; by {number(facts[-1].value)} h where it arrived at the dearest price, "
                         f"{number(price[dear][0])} USD/kWh")
    return f"{note}.", facts


def _by_price(price: np.ndarray, put_off_h: np.ndarray) -> list[Fact]:
    """Mean and variance of the deferral by window of arrival, a window being all times of one price."""
    levels = np.unique(price[np.isfinite(price)])
    if not 1 < len(levels) <= _MOST_PRICES:
        return []
    facts = []
    for level in levels:
        mine, when = put_off_h[price == level], f"that came at {level:g} USD/kWh"
        facts += [Fact(f"mean deferral of training {when}", float(mine.mean()), "h"),
                  Fact(f"variance of the deferral of training {when}", float(mine.var()), "h2")]
    return facts


def waits(run: FleetRun) -> Picture:
    """Quantiles of the wait per class, beside its deadline."""
    key = "waits"
    if lacks := _lacks(run):
        return missing(key, lacks)
    rows, worst, facts = [], ("", 0.0, 0.0, 0.0, ""), []
    for kind, positions in run.kinds.items():
        ends = "end_s" if kind == "training" else "start_s"
        words = "arrival to finish" if kind == "training" else "arrival to start"
        for name in (run.classes[k] for k in positions):
            use = _of(run, [name])
            done = use & np.isfinite(run.jobs[ends]) & (run.jobs["outcome"] == "finished")
            if not done.any():
                continue
            wait = (run.jobs[ends][done] - run.jobs["arrival_s"][done]) / MIN_S
            limit = float(np.median(run.jobs["deadline_s"][done] - run.jobs["arrival_s"][done])) / MIN_S
            values = [float(v) for v in np.percentile(wait, [q for _, q in _QUANTILES])]
            rows.append(Spread(name, words, tuple((n, max(v, _SHORTEST_MIN)) for (n, _), v in
                                                  zip(_QUANTILES, values, strict=True)), limit))
            facts.append(Fact(f"{name}: 95 % waited less than", values[1], "min"))
            share = values[1] / limit
            if share >= worst[1]:
                worst = (name, share, values[1], limit, words)
    if not rows:
        return missing(key, "No job in the trace finished, so there are no waiting times.")
    name, _, wait, limit, words = worst
    says = (f"How long jobs took against what they are allowed: tightest is {name}, where 95 % needed at most "
            f"{strong(length(wait * MIN_S))} from {words}, of {length(limit * MIN_S)} allowed.")
    return Picture(key, says, (Panel("\u25cb half, \u25c6 95 %, \u25a0 99 % of the finished jobs; red: the limit",
                                     spreads=tuple(rows), size=0.5 + 0.28 * len(rows)),),
                   "Logarithmic scale. Training is held to its finish, inference to its start.", tuple(facts))
