"""A report of any run, whatever its simulators: every recorded port by what it measures, and what happened when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from cosim.reporting.chart import MARKS, SITE_COLOURS, Band, Fact, Heat, Panel, Picture, Section, Series, missing
from cosim.reporting.data import Run
from cosim.reporting.definition import Report
from cosim.reporting.text import count, length, listing, named, quantity, strong
from cosim.trace.series import weighted_mean
from cosim.units import MIN_S, unit_of

_MOST_LINES = SITE_COLOURS
"""With more entities or labels than this, a port is drawn as a table of colours."""
_MOST_ROWS = 40
_MOST_TILES = 6
_NO_EVENTS = ("wiring", "initial")
"""Tables that the frame writes of every run."""


def sections(runs: list[Run]) -> list[Section]:
    """A section per dimension, a picture in it per model; then the tables with a row per event."""
    dimensions: dict[str, dict[str, None]] = {}
    for run in runs:
        for model in run.models:
            for port in run.trace.ports(model):
                dimensions.setdefault(unit_of(port).dimension, {}).setdefault(model)
    out = []
    for n, (dimension, models) in enumerate(sorted(dimensions.items(), key=lambda d: d[0] == "ratio")):
        title = "Ratios and counts" if dimension == "ratio" else dimension[:1].upper() + dimension[1:]
        rows = [[_of_model(run, model, dimension, f"ports{n}_{m}") for run in runs] for m, model in enumerate(models)]
        out.append(Section(f"unit{n}", title, title, rows))
    tables = dict.fromkeys(name for run in runs for name in run.trace.tables() if name not in _NO_EVENTS)
    rows = [[_of_table(run, name, f"events{n}") for run in runs] for n, name in enumerate(tables)]
    return [*out, Section("events", "Events", "What happened, and when", rows)] if rows else out


def tiles(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """The first figures of a summary: (words, value)."""
    return [named(name, value) for name, value in list(figures.items())[:_MOST_TILES]]


# --- ports ------------------------------------------------------------------------------------------------------------


def _of_model(run: Run, model: str, dimension: str, key: str) -> Picture:
    """The ports of a model that measure the same thing, a panel each; those that never change are given in words."""
    panels, says, facts, still = [], [], [], []
    for port in run.trace.ports(model) if model in run.models else ():
        if unit_of(port).dimension != dimension:
            continue
        path = f"{model}/{port}"
        values, unit = run.get(path), unit_of(port).symbol
        known = values[np.isfinite(values)]
        if not known.size:
            still.append(f"{port} has no value")
        elif known.min() == known.max():
            still.append(f"{port} is {quantity(float(known[0]), unit)} throughout")
        else:
            panels.append(_panel(run, path))
            within = run.of_counted(path)
            within = within[np.isfinite(within)]
            says.append(f"{port} goes from {quantity(float(within.min()), unit)} to "
                        f"{strong(quantity(float(within.max()), unit))}" if within.size else
                        f"{port} has no value after the warm-up")
            mean = weighted_mean(run.of_counted(path), run.counts(path).hours)
            facts.append(Fact(f"{model}/{port}, mean", mean, "" if unit == "1" else unit))
    if not says and not still:
        return missing(key, f"This trace holds nothing of {model} in this unit.")
    note = f"{listing(still)}. " if still else ""
    text = f"{model}: {'; '.join(says or ['nothing changes'])}."
    return Picture(key, text, tuple(panels), (note + run.averaging(model)).strip(), tuple(facts), len(panels) > 1)


def _panel(run: Run, path: str) -> Panel:
    about, unit = run.trace.about(path)
    port = path.rpartition("/")[2]
    title = f"{port}: {about}" if about and about != port else port
    time, means = run.means(path)
    names, columns = _columns(run, path, means)
    unit = "" if unit == "1" else unit
    if len(names) > _MOST_LINES:
        keep = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_ROWS)).astype(int))
        shown = f" ({len(keep)} of {len(names)})" if len(keep) < len(names) else ""
        heat = Heat(time, tuple(names[k] for k in keep[::-1]), columns[:, keep[::-1]].T, unit, run.end_s)
        return Panel(title + shown, unit, heat=heat, size=1.4)
    lines = tuple(Series(name, time, columns[:, k], f"site{k}", run.end_s, mark=MARKS[k % 3], label=name)
                  for k, name in enumerate(names))
    return Panel(title, unit, lines, axis=path, zero=False, bands=_warmup(run))


def _columns(run: Run, path: str, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of entities, or of their labels, and values as (time, name)."""
    names = run.trace.names(path.rpartition("/")[0])
    dims = run.trace.dims(path)
    if dims:
        labels = [run.trace.names(path.rpartition("/")[0], dim) for dim in dims]
        for more in labels:
            names = [f"{name} {label}" if len(names) > 1 else label for name in names for label in more]
    return names, values.reshape(len(values), -1)


def _warmup(run: Run) -> tuple[Band, ...]:
    return (Band(0.0, min(run.warmup_s, run.end_s), 0.5, "warm-up"),) if run.warmup_s else ()


# --- events -----------------------------------------------------------------------------------------------------------


def _of_table(run: Run, name: str, key: str) -> Picture:
    """Rows of a table over time, by each of its columns of times."""
    table = run.trace.table(name)
    rows = len(next(iter(table.values()), ()))
    if not rows:
        return missing(key, f"This trace has no rows in its table '{name}'.")
    panels = tuple(_over_time(run, table))
    columns = ", ".join(table)
    text = f"{name}: {strong(count(rows, 'row'))} ({columns})."
    if not panels:
        return missing(key, f"{name}: {count(rows, 'row')} ({columns}); none of its columns is a time of the run.")
    note = f"Counted per {length(_width_s(run))}, the warm-up too." if run.warmup_s else (
        f"Counted per {length(_width_s(run))}.")
    return Picture(key, text, panels, note, (Fact(f"rows of {name}", float(rows), ""),), columns=len(panels) > 1)


def _width_s(run: Run) -> float:
    """Width of the stretches in which rows are counted: a hundred of them at most."""
    return MIN_S * next((w for w in (1, 5, 15, 30, 60, 180, 360, 1440) if run.end_s / (w * MIN_S) <= 100), 10080)


def _over_time(run: Run, table: Mapping[str, np.ndarray]) -> Iterator[Panel]:
    width = _width_s(run)
    edges = np.arange(0.0, run.end_s + width, width)
    for column, values in table.items():
        if not re.search(r"(^|_)s$", column) or values.dtype.kind not in "fiu" or unit_of(column).dimension != "time":
            continue
        inside = values[np.isfinite(values) & (values >= 0.0) & (values <= run.end_s)]
        if inside.size:
            line = Series(column, edges[:-1], np.histogram(inside, edges)[0].astype(float), "ink", run.end_s)
            yield Panel(f"Rows by {column}", "rows", (line,), size=0.8, bands=_warmup(run))


GENERAL = Report(sections, tiles=tiles)
"""The report of a scenario that names none."""
