"""Pictures as data: what to draw, not how. `page` draws them in a browser, `paper` on paper.

Colours are names that a theme resolves: `site0`..`site7`, `ink`, `muted`, `alarm`; 'site0/60' is 60 % of the colour on
the background, 'ramp/60' the place at 60 % of the scale from little to much. Times are seconds since the run's start,
and every value holds from its time to the next ('steps'). Sentences mark the figure that matters by `text.strong`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

SITE_COLOURS = 8
NOISE = 1e-9
"""What is smaller, in the unit in which it is drawn, is rounding and no data; logarithmic panels are exempt."""
LineMark = Literal["solid", "dash", "dot"]
MARKS: tuple[LineMark, ...] = ("solid", "dash", "dot")
"""Dash patterns that distinguish lines without colour, in turn."""


@dataclass(frozen=True)
class Series:
    """One line, or one layer of a stack, over time.

    time_s (n,), y (n,): y[k] holds from time_s[k]; `end_s` closes the last step. NaN is a gap.
    area    a layer of the panel's stack, from bottom to top in the order given
    mark    'solid', 'dash' or 'dot': distinguishes lines without colour
    label   written at the line's end, in a stack's layer where it has room; '' for none
    joined  a straight line between the points instead of steps, for running totals
    reach   (lowest, highest) of what y is the mean of, each (n,), drawn as a band around it
    """

    name: str
    time_s: np.ndarray
    y: np.ndarray
    colour: str
    end_s: float
    area: bool = False
    mark: LineMark = "solid"
    label: str = ""
    joined: bool = False
    reach: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Band:
    """Background from start to end: strength 0..1 as shade, with a word at the top."""

    start_s: float
    end_s: float
    strength: float
    text: str = ""


@dataclass(frozen=True)
class Rule:
    """A horizontal line at a value, with a word on it: a limit, a capacity."""

    value: float
    text: str


@dataclass(frozen=True)
class Heat:
    """A table as colour: z (rows, columns); rows have names, columns start at x_s. `scale` heat, or flag for 0/1.

    `y_s` replaces row names where the rows are times too; x_says and y_says are then what happened at a column's and a
    row's time, 'ran' and 'arrived' for example.
    """

    x_s: np.ndarray
    rows: tuple[str, ...]
    z: np.ndarray
    unit: str
    end_s: float
    scale: Literal["heat", "flag"] = "heat"
    y_s: np.ndarray | None = None
    x_says: str = ""
    y_says: str = ""


@dataclass(frozen=True)
class Spread:
    """One row of a dot plot: named quantiles of a time in minutes, and the limit to which they are held."""

    name: str
    about: str
    quantiles: tuple[tuple[str, float], ...]
    limit_min: float


@dataclass(frozen=True)
class Event:
    """An incident: when (s), of which kind, where, how much, in words."""

    time_s: float
    kind: str
    where: str
    count: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Exactly one of series, heat, spreads, events is given.

    axis   panels of one axis name share their vertical range, also between runs; '' is the panel's own
    zero   the range begins at 0
    room   share of the range that is left free at the top
    size   height relative to the others
    quantity  what is measured, for the axis of a picture whose title names a place instead; '' where the title does
    """

    title: str
    unit: str = ""
    series: tuple[Series, ...] = ()
    heat: Heat | None = None
    spreads: tuple[Spread, ...] = ()
    events: tuple[Event, ...] = ()
    bands: tuple[Band, ...] = ()
    rules: tuple[Rule, ...] = ()
    axis: str = ""
    zero: bool = True
    log: bool = False
    room: float = 0.08
    size: float = 1.0
    quantity: str = ""

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next((n for n in ("heat", "spreads", "events") if getattr(self, n)), "series")


@dataclass(frozen=True)
class Fact:
    """A figure that runs are compared by."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Picture:
    """Panels under one sentence. With `missing`, no panels: the sentence names what the trace lacks.

    key      file name without its ending, the same in every run
    columns  panels stand side by side where there is room, else one above the other
    note     how it was made: averaging, conventions
    legend   (colour, mark, name) of lines whose names do not stand at their ends
    """

    key: str
    says: str
    panels: tuple[Panel, ...] = ()
    note: str = ""
    facts: tuple[Fact, ...] = ()
    columns: bool = False
    missing: bool = False
    legend: tuple[tuple[str, LineMark, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, a short form of it, and its pictures: pictures[k][r] is picture k of run r."""

    key: str
    short: str
    title: str
    pictures: list[list[Picture]] = field(default_factory=list)


@dataclass(frozen=True)
class NodeLevel:
    """What the nodes of a map can be coloured by: values (time, node), NaN where not known; `short` is its name in the
    line that reads out a node, '' where the unit suffices."""

    key: str
    title: str
    short: str
    unit: str
    values: np.ndarray
    digits: int = 3


@dataclass(frozen=True)
class Mark:
    """Something that stands at a node (its position in the map's nodes), with the power it draws or gives, (time,)."""

    name: str
    node: int
    power_kw: np.ndarray
    colour: str = "ink"
    shape: Literal["ring", "square"] = "square"


@dataclass(frozen=True)
class Readout:
    """A figure of the whole map at the chosen time, (time,), after its words; in kW it is written as power."""

    words: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class Network:
    """A map: nodes in places of their own, lines between them, and what is known of both over time.

    time_s   (t,)
    nodes    (name, column, row); row 0 is the middle, greater ones are below
    lines    positions of the two nodes of each line
    flow_kw  (t, line) what a line carries, > 0 from its first node to its second
    """

    time_s: np.ndarray
    nodes: list[tuple[str, int, int]]
    lines: list[tuple[int, int]]
    flow_kw: np.ndarray
    levels: tuple[NodeLevel, ...] = ()
    marks: tuple[Mark, ...] = ()
    readouts: tuple[Readout, ...] = ()

    def level(self, key: str) -> np.ndarray | None:
        """Values of a level, (time, node); None where there is none of that key."""
        return next((level.values for level in self.levels if level.key == key), None)


@dataclass(frozen=True)
class Maps:
    """The part of a report that shows networks: per run a sentence and a map, or None where there is nothing to draw;
    `substitutes` are pictures in the place of maps, one per run, or none."""

    short: str
    title: str
    pictures: list[Picture]
    networks: list[Network | None]
    substitutes: list[Picture] = field(default_factory=list)


def without_noise(pictures: list[Picture]) -> list[Picture]:
    """One picture of each run without the panels in which nothing exceeds rounding in any run; the note names them."""
    def quiet(panel: Panel) -> bool:
        if not panel.series or panel.log:
            return False
        return all(not np.nanmax(np.abs(s.y), initial=0.0, where=np.isfinite(s.y)) > NOISE for s in panel.series)

    loud = {p.title for picture in pictures for p in picture.panels if not quiet(p)}
    out = []
    for picture in pictures:
        gone = [p for p in picture.panels if p.title not in loud]
        note = "".join(f" Not drawn, as nothing in it exceeds rounding: {p.title}." for p in gone)
        out.append(replace(picture, panels=tuple(p for p in picture.panels if p not in gone),
                           note=(picture.note + note).strip()) if gone else picture)
    return out


def missing(key: str, what: str) -> Picture:
    """A picture that cannot be drawn: `what` is not in the trace."""
    return Picture(key, what, missing=True)


def ranges(pictures: Iterable[Picture]) -> dict[int, tuple[float, float]]:
    """id(panel) -> (low, high) of its vertical axis; panels of one `axis` in one picture key share it."""
    groups: dict[tuple[str, str], list[Panel]] = {}
    for picture in pictures:
        for k, panel in enumerate(p for p in picture.panels if p.series):
            groups.setdefault((picture.key, panel.axis or f"{k} {panel.title}"), []).append(panel)
    return {id(panel): _range(panels) for panels in groups.values() for panel in panels}


def _range(panels: list[Panel]) -> tuple[float, float]:
    values = np.concatenate([_extent(p) for p in panels])
    values = values[np.isfinite(values)]
    if panels[0].log:
        values = values[values > 0]
        if not values.size:
            return 1e-3, 1.0
        return float(values.min()) / 2, float(values.max()) * 8
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if panels[0].zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    if span <= NOISE * max(abs(low), abs(high)) or span <= NOISE:  # rounding makes no axis
        span = abs(high) if abs(high) > NOISE else 1.0
    return (low if panels[0].zero and low == 0.0 else low - 0.08 * span), high + panels[0].room * span


def _extent(panel: Panel) -> np.ndarray:
    layers = [s.y for s in panel.series if s.area]
    lines = [y for s in panel.series if not s.area for y in (s.y, *(s.reach or ()))]
    stack = [np.nansum(layers, axis=0)] if layers else []
    return np.concatenate([*stack, *lines, np.array([r.value for r in panel.rules])])
