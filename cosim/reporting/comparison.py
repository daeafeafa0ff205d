"""Several runs as one: groups that differ in their seed alone, their headline figures, and the same signal of all of
them on one axis."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cosim.campaign.statistics import interval
from cosim.reporting.chart import MARKS, NOISE, SITE_COLOURS, LineMark, Panel, Picture, Series
from cosim.reporting.definition import Headline
from cosim.reporting.overview import change, labels
from cosim.reporting.text import count, in_one_unit, listing, number

_SEEDS = ("seed", "seeds", "episode")
_SUM = "sum"
_MOST_SIGNALS = 6
MOST_APART = 3
"""Up to so many runs, what cannot be drawn on one axis stands side by side, and each run's sentences above it."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one scenario that differ in their seed alone: positions in the list of runs, by seed; how it is drawn."""

    label: str
    runs: tuple[int, ...]
    seeds: tuple[int, ...]
    colour: str
    mark: LineMark


def groups_of(scenarios: Sequence[dict[str, Any]], paths: Sequence[str]) -> list[SeedGroup]:
    """The groups in the order of their first runs. A run again with the same seed is a group of its own."""
    found: dict[tuple[str, int], list[int]] = {}
    seen: dict[str, int] = {}
    for k, scenario in enumerate(scenarios):
        bare = json.dumps({key: value for key, value in scenario.items() if key not in _SEEDS}, sort_keys=True)
        whole = json.dumps(scenario, sort_keys=True)
        seen[whole] = seen.get(whole, -1) + 1
        found.setdefault((bare, seen[whole]), []).append(k)
    for runs in found.values():
        runs.sort(key=lambda k: scenarios[k].get("seed", 0))
    firsts = [runs[0] for runs in found.values()]
    named = [{**scenarios[k], **({"seed": 0, "seeds": {}, "episode": 0} if len(runs) > 1 else {})}
             for k, runs in zip(firsts, found.values(), strict=True)]
    names = labels(named, [paths[k] for k in firsts]) if len(firsts) > 1 else [str(scenarios[0]["name"])]
    several = len(firsts) > SITE_COLOURS
    out = []
    for k, (name, runs) in enumerate(zip(names, found.values(), strict=True)):
        colour = f"ramp/{45 + 55 * k // (len(firsts) - 1)}" if several else f"site{k}"
        seeds = tuple(scenarios[i].get("seed", 0) for i in runs)
        out.append(SeedGroup(name, tuple(runs), seeds, colour, "solid" if several else MARKS[k % 3]))
    return out


def titled(groups: Sequence[SeedGroup]) -> str:
    """What is compared, in a line: '2 x 5 seeds: uniform, nci_priority'."""
    runs = sum(len(g.runs) for g in groups)
    if len(groups) == 1:
        return f"{count(runs, 'seed')} of {groups[0].label}"
    names = listing([g.label for g in groups[:4]]) if len(groups) <= 4 else (
        f"{', '.join(g.label for g in groups[:3])} and {len(groups) - 3} more")
    sizes = {len(g.runs) for g in groups}
    if sizes == {1}:
        return names
    return f"{names}, {f'{min(sizes)} seeds each' if len(sizes) == 1 else count(runs, 'run') + ' in all'}"


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Board:
    """A table of figures: heads, rows of texts (the first of each names it), and below the cells what has changed."""

    columns: list[str]
    rows: list[list[str]]
    changes: list[list[str]]


def board(of_runs: Sequence[Sequence[Headline]], groups: Sequence[SeedGroup]) -> Board:
    """Figures of each group: the mean over its seeds with half of a 95 % t interval, and the difference from the first
    group, seed by seed where both have the same seeds. A figure that no run has is left out, one that a run
    lacks is a dash."""
    words = list(dict.fromkeys((h.words, h.unit) for run in of_runs for h in run))
    out = Board([""], [[_named(g)] for g in groups], [[] for _ in groups])
    for name, unit in words:
        values = [next((h.value for h in run if (h.words, h.unit) == (name, unit)), math.nan) for run in of_runs]
        if all(not abs(v) > NOISE for v in values if math.isfinite(v)):
            values = [v * 0.0 for v in values]  # rounding is no difference
        of_groups = [[values[k] for k in g.runs] for g in groups]
        spread = [interval(one) for one in of_groups]
        shown_in, texts = in_one_unit([v for pair in spread for v in pair], unit)
        out.columns.append(f"{name}, {shown_in}" if shown_in else name)
        for k, (mean, half) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
            out.rows[k].append(mean if half == "-" else f"{mean} \u00b1 {half}")
            out.changes[k].append("" if k == 0 else _difference(
                of_groups[0], of_groups[k], unit, groups[0].seeds == groups[k].seeds))
    return out


def each_run(of_runs: Sequence[Sequence[Headline]], names: Sequence[str]) -> Board:
    """The same, a row per run, without differences."""
    made = board(of_runs, [SeedGroup(name, (k,), (), "ink", "solid") for k, name in enumerate(names)])
    return replace(made, changes=[])


def _named(group: SeedGroup) -> str:
    return group.label if len(group.runs) == 1 else f"{group.label} ({len(group.runs)} seeds)"


def _difference(first: Sequence[float], other: Sequence[float], unit: str, paired: bool) -> str:
    """Of the means; with half of the interval of the differences seed by seed where they are of the same seeds."""
    a, b = float(np.mean(first)), float(np.mean(other))
    if math.isnan(a) or math.isnan(b):
        return ""
    text = change(a, b, unit)
    if not paired or len(first) < 2 or not text.endswith("%"):
        return text
    _, half = interval([y - x for x, y in zip(first, other, strict=True)])
    return f"{text.removesuffix('%').rstrip()} \u00b1 {number(100 * half / abs(a), 2)}\u202f%"


# --- signals ----------------------------------------------------------------------------------------------------------


def overlaid(pictures: Sequence[Picture], groups: Sequence[SeedGroup]) -> Picture:
    """The lines of one picture of all runs: a panel per signal, in it a line per group, the mean over its seeds with
    the range of them as a band. Of a stack it is the sum. What is no line is left out."""
    drawn = [p for p in pictures if not p.missing]
    signals = list(dict.fromkeys((panel.title, s) for p in drawn for panel in p.panels for s in _signals(panel)))
    panels = []
    for title, signal in signals:
        found = [next((panel for panel in p.panels if panel.title == title and signal in _signals(panel)), None)
                 for p in pictures]
        model = next(panel for panel in found if panel)
        lines = tuple(line for g in groups if (line := _line([found[k] for k in g.runs], signal, g)))
        if lines:
            alone = len(_signals(model)) == 1
            panels.append(replace(model, title=title if alone or signal == title else f"{title}: {signal}", bands=(),
                                  series=lines, axis=model.axis or title, room=0.08, size=min(model.size, 1.0),
                                  quantity=model.quantity or ("" if alone else title)))
    left = sum(max(0, len({s.name for s in panel.series}) - _MOST_SIGNALS)
               for panel in (drawn[0].panels if drawn else ()) if not any(s.area for s in panel.series))
    note = f"{count(left, 'further signal')} not shown, of more than {_MOST_SIGNALS} on an axis." if left else ""
    if any(s.area for p in drawn for panel in p.panels for s in panel.series):
        note = f"Of what is stacked in the picture of a single run, the sum. {note}".strip()
    if panels and any(len(g.runs) > 1 for g in groups):
        note = f"Lines are means over seeds, bands reach from the lowest to the highest of them. {note}".strip()
    return Picture(pictures[0].key, "", tuple(panels), note, columns=True,
                   legend=_legend(groups) if panels else ())


def _legend(groups: Sequence[SeedGroup]) -> tuple[tuple[str, LineMark, str], ...]:
    """Of many groups the first and the last: their colours go from one to the other in order."""
    if len(groups) <= SITE_COLOURS:
        return tuple((g.colour, g.mark, g.label) for g in groups)
    first, last = groups[0], groups[-1]
    between = f"{first.label}, then {len(groups) - 2} more, to"
    return (first.colour, "solid", between), (last.colour, "solid", last.label)


def _signals(panel: Panel) -> list[str]:
    """Names of what a panel draws as lines; one name for a stack."""
    if any(s.area for s in panel.series):
        return [_SUM]
    return list(dict.fromkeys(s.name for s in panel.series))[:_MOST_SIGNALS]


def _line(panels: Sequence[Panel | None], signal: str, group: SeedGroup) -> Series | None:
    """One signal of the runs of a group as a line."""
    found = [s for panel in panels if panel for s in [_signal(panel, signal)] if s is not None and len(s.time_s)]
    if not found:
        return None
    first = max(found, key=lambda s: len(s.time_s))
    end_s = max(s.end_s for s in found)
    alone = Series(group.label, first.time_s, first.y, group.colour, end_s, mark=group.mark, joined=first.joined)
    if len(found) == 1:
        return alone
    values = np.stack([_held(s, first.time_s) for s in found])
    known = np.isfinite(values).any(axis=0)
    mean, low, high = (np.full(len(first.time_s), np.nan) for _ in range(3))
    for out, of in ((mean, np.nanmean), (low, np.nanmin), (high, np.nanmax)):
        out[known] = of(values[:, known], axis=0)
    return replace(alone, y=mean, reach=(low, high))


def _signal(panel: Panel, signal: str) -> Series | None:
    if signal == _SUM and any(s.area for s in panel.series):
        layers = [s for s in panel.series if s.area]
        return replace(layers[0], y=np.nansum([s.y for s in layers], axis=0), area=False)
    return next((s for s in panel.series if s.name == signal), None)


def _held(series: Series, time_s: np.ndarray) -> np.ndarray:
    """A line's values as they stand at some times; NaN before it begins and after it ends."""
    if np.array_equal(series.time_s, time_s):
        return series.y
    if series.joined:
        return np.interp(time_s, series.time_s, series.y, left=np.nan, right=np.nan)
    at = np.searchsorted(series.time_s, time_s, side="right") - 1
    return np.where((at >= 0) & (time_s < series.end_s), series.y[np.maximum(at, 0)], np.nan)
