"""What went wrong and when: drops, clipped commands, flagged dispatches, voltages outside limits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cosim.reporting.chart import Event, Fact, Panel, Picture
from cosim.reporting.text import count, number, strong
from cosim.simulators.analysis.paths import BUS, GRID, SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.units import MIN_S

_WATCHED = ((f"{SITE}/dropped_jobs", "drops"), (f"{SITE}/clipped_commands", "clipped commands"),
            (f"{SITE}/inlet_alarm_s", "inlets"),
            (f"{GRID}/status", "flagged dispatches"), (f"{BUS}/vm_pu", "voltages"))
_APART_S = 900.0
_MOST_EVENTS = 300
_FLAGS = {1: "limits not met", 2: "no solution, last values held"}


def events(run: FleetRun) -> Picture:
    """All events as marks on a time line; the page lists them beside it."""
    found = sorted(_all(run), key=lambda e: (e.time_s, e.kind, e.where))
    watched = [words for path, words in _WATCHED if run.has(path)]
    drops = sum(e.count for e in found if e.kind == "dropped jobs")
    facts = (Fact("events", float(len(found)), ""), Fact("dropped jobs in events", float(drops), "jobs"))
    if not found:
        if not watched:
            return Picture("events", "The trace records nothing that could raise an alarm.", missing=True)
        return Picture("events", f"Nothing went wrong: {strong('no events')} (watched: {', '.join(watched)}).",
                       note=(run.played("grid") + run.played("aidc")).strip(), facts=facts)
    shown = sorted(sorted(found, key=lambda e: -e.count)[:_MOST_EVENTS], key=lambda e: e.time_s)
    kinds = [f"{k}: {sum(e.kind == k for e in found)}" for k in dict.fromkeys(e.kind for e in found)]
    says = f"What went wrong, and when: {strong(count(len(found), 'event'))} ({', '.join(kinds)})."
    says += f" {count(drops, 'job')} dropped." if drops else ""
    note = f"What happens within {_APART_S / 60:g} min of the last is one event."
    note += " The warm-up is left out." if run.time.begin_s else ""
    note += f" The {_MOST_EVENTS} largest are shown." if len(found) > len(shown) else ""
    note += run.played("grid") + run.played("aidc")
    panel = Panel("Events over time", events=tuple(shown), size=0.45 + 0.18 * len({e.kind for e in shown}))
    return Picture("events", says, (panel,), note, facts)


def _all(run: FleetRun) -> Iterator[Event]:
    if run.has(f"{SITE}/dropped_jobs"):
        values = run.dropped_jobs()
        for s, site in enumerate(run.sites):
            for c, name in enumerate(run.classes):
                for start, end, total in _episodes(run, SITE, values[:, s, c]):
                    words = f"{count(total, f'{name} job')} dropped{_until(run, start, end)}"
                    yield Event(start, "dropped jobs", site, total, words)
    if run.has(f"{SITE}/clipped_commands"):
        values = run.get(f"{SITE}/clipped_commands") * (run.time_s(SITE) >= run.time.begin_s)[:, None]
        for s, site in enumerate(run.sites):
            for start, end, total in _episodes(run, SITE, values[:, s]):
                words = f"{count(total, 'supply temperature')} outside the limits, clipped{_until(run, start, end)}"
                yield Event(start, "clipped commands", site, total, words)
    yield from _of_inlets(run)
    yield from _of_grid(run)


def _of_inlets(run: FleetRun) -> Iterator[Event]:
    """Inlets above their limit, and load shed for it."""
    for port, kind, words in (("inlet_alarm_s", "inlets too warm", "an inlet above its limit"),
                              ("tripped", "load shed", "no GPUs granted, an inlet was at its trip temperature")):
        if not run.has(f"{SITE}/{port}"):
            continue
        values = run.get(f"{SITE}/{port}") * run.shares(SITE)[:, None]
        for s, site in enumerate(run.sites):
            for start, end, total in _episodes(run, SITE, values[:, s]):
                minutes = (total if port == "inlet_alarm_s" else total * run.step_s(SITE)) / MIN_S
                yield Event(start, kind, site, minutes,
                            f"{words} for {number(minutes, 2)} min{_until(run, start, end)}")


def _of_grid(run: FleetRun) -> Iterator[Event]:
    if run.has(f"{GRID}/status"):
        status = run.get(f"{GRID}/status")[:, 0]
        for code in sorted(set(status[status > 0].tolist())):
            for start, end, total in _episodes(run, GRID, (status == code).astype(float)):
                words = _FLAGS.get(int(code), f"status {code:g}")
                yield Event(start, "flagged dispatches", "grid", total, f"{count(total, 'dispatch')}: {words}"
                            .replace("dispatchs", "dispatches") + _until(run, start, end))
    if run.has(f"{GRID}/inexact"):
        for start, end, total in _episodes(run, GRID, run.get(f"{GRID}/inexact")[:, 0]):
            yield Event(start, "inexact dispatches", "grid", total, f"relaxation not exact{_until(run, start, end)}")
    for port, kind, words in (("unserved_kw", "unserved load", "not served"),
                              ("curtailed_kw", "curtailed generation", "of generation curtailed")):
        if not run.has(f"{GRID}/{port}"):
            continue
        kw = run.get(f"{GRID}/{port}")[:, 0]
        for start, end, total in _episodes(run, GRID, np.where(kw > 1e-3, kw * run.hours(GRID), 0.0)):
            yield Event(start, kind, "grid", total, f"{number(total)} kWh {words}{_until(run, start, end)}")
    limits = [run.params("grid").get(n) for n in ("vm_min_pu", "vm_max_pu")]
    if run.has(f"{BUS}/vm_pu") and all(isinstance(v, (int, float)) for v in limits):
        vm = run.get(f"{BUS}/vm_pu")
        outside = np.maximum(limits[0] - vm, vm - limits[1]).clip(min=0.0)
        outside[outside < 1e-6] = 0.0
        names = run.trace.names(BUS)
        for start, end, _ in _episodes(run, BUS, outside.max(axis=1)):
            part = outside[(run.time_s(BUS) > start - run.step_s(BUS)) & (run.time_s(BUS) < end)]
            worst = int(part.max(axis=0).argmax())
            yield Event(start, "voltage outside limits", names[worst], float((part > 0).sum()),
                        f"{number(part.max(), 2)} p.u. outside at {names[worst]}{_until(run, start, end)}")


def _episodes(run: FleetRun, model: str, values: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """(start, end, sum) of the stretches of the counted time in which values are above 0, joined over short gaps."""
    hits = np.flatnonzero((values > 0) & run.counts(model).use)
    if not hits.size:
        return
    time, step = run.time_s(model).astype(float), run.step_s(model)
    for group in np.split(hits, np.flatnonzero(np.diff(time[hits]) > max(step, _APART_S)) + 1):
        end_s = min(float(time[group[-1]]) + step, run.time.end_s)
        yield max(float(time[group[0]]), run.time.begin_s), end_s, float(values[group].sum())


def _until(run: FleetRun, start: float, end: float) -> str:
    return f", {run.at(start)} to {run.at(end)}" if end - start > _APART_S else ""
