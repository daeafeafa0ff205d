"""The report's pictures for print: a file per picture as it goes into a paper, drawn by matplotlib, the data behind it
as CSV, and the sentences in captions.txt."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cosim.errors import ScenarioError, unknown
from cosim.plaintext import file_name, visible
from cosim.reporting.behind import data_of
from cosim.reporting.chart import Maps, Panel, Picture, Section, Series, ranges
from cosim.reporting.comparison import MOST_APART, SeedGroup, overlaid
from cosim.reporting.paper_map import draw_maps
from cosim.reporting.style import COLOURS, DASH, FLAG, RAMP, STYLE, colour, points, powers, save, words
from cosim.reporting.text import MONTHS, at, unmarked
from cosim.tables.files import write_table
from cosim.units import DAY_S, HOUR_S, MIN_S

_TICKS_S = (*(n * MIN_S for n in (5, 15, 30)), *(n * HOUR_S for n in (1, 2, 3, 6, 12, 24, 48)))
_WIDE_IN = 5.0
"""From this width on, panels stand side by side."""
_PANEL_IN = 1.75
_LETTER_EM = 0.62
_LONG_S = 2.2 * DAY_S


@dataclass(frozen=True)
class PrintLayout:
    """How wide a figure is, in; the size of its type, pt; the date of t = 0, UTC (None: runs have different ones)."""

    width_in: float = 7.16
    font_pt: float = 8.0
    start: datetime | None = None


def draw(labels: Sequence[str], groups: Sequence[SeedGroup], maps: Maps | None, parts: Sequence[Section], folder: Path,
         formats: Sequence[str], layout: PrintLayout, only: Collection[str] = (), at_s: float | None = None
         ) -> list[Path]:
    """Write the pictures that can be drawn into `folder`, or `only` those named, with their data. Returns the paths.

    groups: of several runs, whose lines stand on one axis; of one run it is not read. only: keys of pictures or
    sections, or names of axes (`nci`). at_s: when the map shows the network, s from the start; None: in the middle of
    the run. Raises ScenarioError for a name that no picture has.
    """
    rows = chosen(maps, parts, only)
    folder.mkdir(parents=True, exist_ok=True)
    written, captions = [folder / "captions.txt"], []
    with matplotlib.rc_context({**STYLE, "font.size": layout.font_pt, "axes.titlesize": 1.06 * layout.font_pt}):
        for name, pictures in rows:
            says = [f"{label}: {p.says} {p.note}".strip() for label, p in zip(labels, pictures, strict=True)]
            captions.append("\n".join([f"[{name}]", *(visible(unmarked(line)) for line in says)]))
            path = folder / file_name(name)
            if maps and pictures is maps.pictures:
                if any(maps.networks):
                    figure = draw_maps(labels, maps.networks, at_s, layout.width_in, lambda t: _moment(t, layout.start))
                    written += save(figure, path, list(formats))
                continue
            for one, suffix in _drawn(pictures, labels, groups):
                written += save(_figure(one, layout), folder / f"{path.name}{suffix}", list(formats))
                written += _behind(one, folder, f"{path.name}{suffix}", layout)
    written[0].write_text("\n\n".join(captions) + "\n", encoding="utf-8")
    return written


def chosen(maps: Maps | None, parts: Sequence[Section], only: Collection[str]) -> list[tuple[str, list[Picture]]]:
    """(name, picture of each run) of what is drawn: all, or what `only` names: a picture, the pictures of a section, or
    the panels of an axis."""
    first = [row for row in (maps.pictures, maps.substitutes) if row] if maps else []
    rows = [(row[0].key, row) for row in [*first, *(p for s in parts for p in s.pictures)]]
    if not only:
        return rows
    of_axes: dict[str, list[Picture]] = {}
    for _, row in rows:
        for axis in dict.fromkeys(_axis(panel) for p in row for panel in p.panels if panel.axis):
            of_axes.setdefault(axis, [replace(p, panels=tuple(q for q in p.panels if _axis(q) == axis)) for p in row])
    out = []
    for name in dict.fromkeys(only):
        keyed = [row for row in rows if row[0] == name]
        section = [(row[0].key, row) for s in parts if s.key == name for row in s.pictures]
        found = keyed or section or ([(name, of_axes[name])] if name in of_axes else [])
        if not found:
            raise ScenarioError(unknown("figure", name, dict.fromkeys(
                [*(key for key, _ in rows), *(s.key for s in parts), *of_axes])))
        out += [row for row in found if row not in out]
    return out


def _axis(panel: Panel) -> str:
    """Name of a panel's axis as --only has it."""
    return panel.axis.rpartition("/")[2].replace(" ", "_")


def _drawn(pictures: Sequence[Picture], labels: Sequence[str], groups: Sequence[SeedGroup]
           ) -> list[tuple[Picture, str]]:
    """(picture, ending of its file's name): of several runs their lines on one axis, and of a few what has no lines."""
    if len(pictures) == 1:
        return [(pictures[0], "")] if pictures[0].panels else []
    out = [(one, "")] if (one := overlaid(pictures, groups)).panels else []
    if len(pictures) <= MOST_APART:
        apart = tuple(replace(panel, title=f"{label}: {panel.title}") for label, p in zip(labels, pictures, strict=True)
                      for panel in p.panels if panel.kind != "series")
        if apart:
            out.append((replace(pictures[0], panels=apart, missing=False), "-runs" if out else ""))
    return out


def _behind(picture: Picture, folder: Path, name: str, layout: PrintLayout) -> list[Path]:
    """The data of each panel as CSV, with its letter where there are several."""
    out = []
    for k, panel in enumerate(picture.panels):
        path = folder / f"{name}{f'-{_letter(k)}' if len(picture.panels) > 1 else ''}.csv"
        write_table(path, data_of(panel, layout.start))
        out.append(path)
    return out


def _letter(k: int) -> str:
    """'a' .. 'z', then 'aa'."""
    return chr(ord("a") + k) if k < 26 else _letter(k // 26 - 1) + _letter(k % 26)


def _figure(picture: Picture, layout: PrintLayout) -> Figure:
    """The panels of a picture, side by side where the figure is wide; a legend above where lines have no names."""
    panels, limits = picture.panels, ranges([picture])
    columns = 1
    if picture.columns and layout.width_in >= _WIDE_IN:
        columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    scale = layout.font_pt / 8.0
    tall = [_PANEL_IN * scale * max(p.size for p in panels[columns * row: columns * (row + 1)]) for row in range(rows)]
    figure = Figure(figsize=(layout.width_in, max(1.9, sum(tall) + (0.35 if picture.legend else 0.1))),
                    layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=tall)
    beside = all(map(_has_room, panels))
    for k, ax in enumerate(axes.flat):
        if k < len(panels):
            letter = f"({_letter(k)}) " if len(panels) > 1 else ""
            _panel(ax, panels[k], limits.get(id(panels[k])), layout, letter, beside)
        else:
            ax.set_axis_off()
    if picture.legend:
        lines = [Line2D([], [], color=colour(c), ls=DASH[mark]) for c, mark, _ in picture.legend]
        figure.legend(lines, [words(name, 40) for _, _, name in picture.legend], loc="outside upper left",
                      frameon=False, ncols=max(1, int(layout.width_in)), fontsize=points(0.9))
    return figure


def _panel(ax: Axes, panel: Panel, limits: tuple[float, float] | None, layout: PrintLayout, letter: str,
           beside: bool) -> None:
    across = max(12, int((layout.width_in / _columns(ax) - 0.9) / (_LETTER_EM * layout.font_pt / 72.0)))
    title, label = _titles(panel, beside)
    ax.set_title(textwrap.fill(words((letter + title).strip(), 120), across))
    {"series": _series, "heat": _heat, "spreads": _spreads, "events": _events}[panel.kind](ax, panel, layout)
    if label:
        ax.set_ylabel(textwrap.fill(words(label, 90), _letters_up(panel)))
    if limits and panel.kind == "series":
        if panel.log:
            ax.set_yscale("log")
            powers(ax.yaxis)
        ax.set_ylim(limits)
        _end_labels(ax, panel, limits)


def _letters_up(panel: Panel) -> int:
    """Letters that have room along the vertical axis, whatever their size: panels grow with it."""
    return max(12, int((_PANEL_IN * panel.size - 0.5) / (_LETTER_EM * 8.0 / 72.0)))


def _has_room(panel: Panel) -> bool:
    """Whether what is measured has room at the vertical axis, in two lines."""
    return panel.kind != "series" or len(f"{panel.quantity or panel.title} ({panel.unit})") <= 2 * _letters_up(panel)


def _titles(panel: Panel, beside: bool) -> tuple[str, str]:
    """(title, label of the vertical axis). beside: what is measured stands at the axis with its unit, and the title
    names the place alone; else the title has both."""
    if panel.kind != "series":
        return panel.title, ""
    measured, unit = panel.quantity or panel.title, f"({panel.unit})" if panel.unit else ""
    place = panel.title.removeprefix(f"{measured}: ") if panel.quantity else ""
    if beside:
        return place, f"{measured} {unit}".strip()
    return panel.title, panel.unit


def _columns(ax: Axes) -> int:
    grid = ax.get_gridspec()
    return grid.ncols if grid is not None else 1


def _moment(time_s: float, start: datetime | None) -> str:
    """A time with its date and zone, or since the start."""
    if start is None:
        return f"{at(time_s)} after the start"
    moment = start + timedelta(seconds=float(time_s))
    return f"{moment:%H:%M} on {moment.day} {MONTHS[moment.month - 1]} {moment.year}, UTC"


def _time_axis(ax: Axes, start_s: float, end_s: float, layout: PrintLayout) -> None:
    """Whole hours or days of the calendar; which day, and the zone, in the label."""
    span = end_s - start_s
    most = max(2, int(layout.width_in / _columns(ax) * 1.15 * 8.0 / layout.font_pt))
    step = next((s for s in _TICKS_S if span / s <= most), 7 * DAY_S)
    if span > _LONG_S:
        step = max(step, DAY_S)
    origin = layout.start
    since = 0.0 if origin is None else float(
        (origin - origin.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds())
    ticks = np.arange(np.ceil((start_s + since) / step) * step, end_s + since + 1, step) - since
    ax.set_xticks(ticks, [_tick(t, step, layout) for t in ticks])
    ax.set_xlim(start_s, end_s)
    if origin is None:
        ax.set_xlabel("time since the start" if step < DAY_S else "days since the start")
    else:
        first = origin + timedelta(seconds=start_s)
        day = f"{first.day} {MONTHS[first.month - 1]} {first.year}"
        ax.set_xlabel(f"{'time from' if span > DAY_S and step < DAY_S else 'time on'} {day} (UTC)" if step < DAY_S else
                      f"date, {first.year} (UTC)")


def _tick(time_s: float, step_s: float, layout: PrintLayout) -> str:
    if layout.start is None:
        return f"{time_s / DAY_S:g}" if step_s >= DAY_S else at(time_s % DAY_S)
    moment = layout.start + timedelta(seconds=float(time_s))
    return f"{moment:%H:%M}" if step_s < DAY_S else f"{moment.day} {MONTHS[moment.month - 1]}"


def _series(ax: Axes, panel: Panel, layout: PrintLayout) -> None:
    for band in panel.bands:
        ax.axvspan(band.start_s, band.end_s, color=COLOURS["band"], alpha=0.06 + 0.26 * band.strength, lw=0, zorder=0)
        ax.annotate(words(band.text), ((band.start_s + band.end_s) / 2, 1), xycoords=("data", "axes fraction"),
                    ha="center", va="top", fontsize=points(0.75), color=COLOURS["muted"], annotation_clip=True)
    low: np.ndarray | None = None
    for s in panel.series:
        time, y = (s.time_s, s.y) if s.joined else (np.r_[s.time_s, s.end_s], np.r_[s.y, s.y[-1:]])
        if s.area:
            base = np.zeros(len(y)) if low is None else low
            low = base + np.nan_to_num(y)
            ax.fill_between(time, base, low, step="post", color=colour(s.colour), lw=0.3, edgecolor="white",
                            label=words(s.name, 24))
        else:
            if s.reach:
                low_y, high_y = (one if s.joined else np.r_[one, one[-1:]] for one in s.reach)
                ax.fill_between(time, low_y, high_y, step=None if s.joined else "post", color=colour(s.colour),
                                alpha=0.18, lw=0)
            ax.plot(time, y, color=colour(s.colour), ls=DASH[s.mark], label=words(s.name, 24),
                    drawstyle="default" if s.joined else "steps-post")
    for rule in panel.rules:
        ax.axhline(rule.value, color=COLOURS["muted"], lw=0.7, ls="--")
        ax.annotate(words(rule.text), (1, rule.value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=points(0.8), color=COLOURS["muted"])
    starts = [float(s.time_s[0]) for s in panel.series if len(s.time_s)]
    if starts:
        _time_axis(ax, min(starts), max(s.end_s for s in panel.series), layout)


def _end_labels(ax: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    """Names of lines and of layers at their right ends, moved apart where they would cover one another."""
    def place(value: float) -> float:
        a, b = np.log10(limits) if panel.log else limits
        return float(((np.log10(value) if panel.log else value) - a) / (b - a))

    ends: list[tuple[float, Series]] = []
    low = 0.0
    for s in panel.series:
        finite = s.y[np.isfinite(s.y)]
        if not s.label or not finite.size:
            continue
        if s.area:
            ends.append((place(low + finite[-1] / 2), s))
            low += float(finite[-1])
        else:
            ends.append((place(finite[-1]), s))
    ends.sort(key=lambda e: e[0])
    size = 0.88 * matplotlib.rcParams["font.size"]
    tall_in = ax.get_window_extent().height / ax.figure.dpi
    gap, last, heights = 1.15 * size / 72.0 / max(tall_in, 0.3), -1.0, []
    for height, _ in ends:
        last = max(height, last + gap)
        heights.append(last)
    roof = 1.0
    for k in reversed(range(len(heights))):
        heights[k] = min(heights[k], roof)
        roof = heights[k] - gap
    for height, (_, s) in zip(heights, ends, strict=True):
        tone = colour(s.colour.partition("/")[0] if s.area else s.colour)
        ax.annotate(words(s.label, 24), (1.01, height), xycoords="axes fraction", va="center", fontsize=size,
                    color=tone)


def _heat(ax: Axes, panel: Panel, layout: PrintLayout) -> None:
    h = panel.heat
    assert h is not None, "the panel is of this kind"
    x = np.r_[h.x_s, h.end_s]
    y = np.arange(len(h.rows) + 1) - 0.5 if h.y_s is None else np.r_[h.y_s, h.end_s]
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(h.z), cmap=FLAG if h.scale == "flag" else RAMP, rasterized=True)
    _time_axis(ax, float(x[0]), float(x[-1]), layout)
    if h.y_s is None:
        every = max(1, len(h.rows) // 18)
        ax.set_yticks(range(0, len(h.rows), every), [words(row, 24) for row in h.rows[::every]])
    else:
        ax.set_yticks(ax.get_xticks(), [t.get_text() for t in ax.get_xticklabels()])
        ax.set(ylim=(y[0], y[-1]), xlabel=words(f"{h.x_says}, {ax.get_xlabel()}", 80), ylabel=words(h.y_says))
    if h.scale == "heat":
        said = h.unit if h.y_s is not None else f"{panel.title} ({h.unit})"
        ax.figure.colorbar(mesh, ax=ax, label=words(said, 40), pad=0.02, aspect=30)


def _spreads(ax: Axes, panel: Panel, layout: PrintLayout) -> None:
    marks = ("o", "D", "s")
    for k, row in enumerate(panel.spreads):
        values = [v for _, v in row.quantiles]
        ax.plot(values, [k] * len(values), color=COLOURS["ink"])
        for (_, value), mark in zip(row.quantiles, marks, strict=True):
            ax.plot(value, k, mark, color=COLOURS["ink"], mfc="white" if mark == "o" else None, ms=4.5)
        ax.plot(row.limit_min, k, "|", color=COLOURS["alarm"], ms=14, mew=1.8)
    ax.set_xscale("log")
    powers(ax.xaxis)
    ticks = [t for t in (1 / 60, 0.1, 1, 10, 60, 600, 5760) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    spans = {1 / 60: "1 s", 0.1: "6 s", 1: "1 min", 10: "10 min", 60: "1 h", 600: "10 h", 5760: "4 d"}
    ax.set_xticks(ticks, [spans[t] for t in ticks], minor=False)
    ax.set_xlabel("time taken")
    ax.set_yticks(range(len(panel.spreads)), [f"{words(r.name, 24)}\n{words(r.about)}" for r in panel.spreads])
    ax.set_ylim(-0.6, len(panel.spreads) - 0.4)


def _events(ax: Axes, panel: Panel, layout: PrintLayout) -> None:
    kinds = list(dict.fromkeys(e.kind for e in panel.events))
    top = max(e.count for e in panel.events) or 1.0
    ax.scatter([e.time_s for e in panel.events], [kinds.index(e.kind) for e in panel.events],
               s=[12 + 120 * e.count / top for e in panel.events], color=COLOURS["alarm"], alpha=0.6, lw=0)
    ax.set_yticks(range(len(kinds)), [words(kind) for kind in kinds])
    ax.set_ylim(-0.6, len(kinds) - 0.4)
    _time_axis(ax, 0.0, max(e.time_s for e in panel.events) + HOUR_S, layout)
