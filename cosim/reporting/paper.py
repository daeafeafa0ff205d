"""The report's pictures for print: one file per picture, drawn by matplotlib, and their sentences in captions.txt."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosim.plaintext import visible
from cosim.reporting.chart import Maps, Network, Panel, Picture, Section, Series, ranges
from cosim.reporting.style import COLOURS, DASH, FLAG, RAMP, STYLE, WIDTH_IN, colour, powers, save, words
from cosim.reporting.text import at, unmarked
from cosim.trace.series import rows_at
from cosim.units import DAY_S, HOUR_S, MIN_S

_TICKS_S = (*(n * MIN_S for n in (5, 15, 30)), *(n * HOUR_S for n in (1, 2, 3, 6, 12, 24, 48)))
_PANEL_IN = 1.75


def draw(labels: list[str], maps: Maps | None, parts: list[Section], folder: Path, formats: list[str],
         at_s: float | None = None) -> list[Path]:
    """Write every picture that can be drawn into `folder`; several runs stand side by side. Returns the paths.

    at_s: when the map shows the feeder, s from the start; None: in the middle of the run
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, captions = [folder / "captions.txt"], []
    first = [row for row in (maps.pictures, maps.substitutes) if row] if maps else []
    rows = [*first, *(p for section in parts for p in section.pictures)]
    with matplotlib.rc_context(STYLE):
        for pictures in rows:
            says = [f"{label}: {p.says} {p.note}".strip() for label, p in zip(labels, pictures, strict=True)]
            captions.append("\n".join([f"[{pictures[0].key}]", *(visible(unmarked(line)) for line in says)]))
            if maps and pictures is maps.pictures:
                if any(maps.networks):
                    written += save(_map(labels, maps.networks, at_s), folder / "map", formats)
            elif any(p.panels for p in pictures):
                written += save(_figure(pictures, labels), folder / pictures[0].key, formats)
    written[0].write_text("\n\n".join(captions) + "\n", encoding="utf-8")
    return written


def _figure(pictures: list[Picture], labels: list[str]) -> Figure:
    """One run: panels as the picture defines. Several runs: a column each, panels below one another."""
    limits = ranges(pictures)
    most = max(len(p.panels) for p in pictures)
    wide = 1 if not pictures[0].columns else min(most, 3 if most != 4 else 2)
    columns, rows = (wide, -(-most // wide)) if len(pictures) == 1 else (len(pictures), most)
    sizes = [max((p.panels[k].size for p in pictures for k in range(len(p.panels)) if
                  (k // columns if len(pictures) == 1 else k) == row), default=1.0) for row in range(rows)]
    figure = Figure(figsize=(WIDTH_IN, max(1.9, _PANEL_IN * sum(sizes) + 0.5)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=sizes)
    for column, picture in enumerate(pictures):
        for k in range(rows * columns if len(pictures) == 1 else rows):
            ax = axes[divmod(k, columns)] if len(pictures) == 1 else axes[k, column]
            if k < len(picture.panels):
                _panel(ax, picture.panels[k], limits.get(id(picture.panels[k])))
            else:
                ax.set_axis_off()
                if picture.missing and k == 0:
                    ax.text(0, 0.5, textwrap.fill(words(picture.says, 600), 50), color=colour("muted"))
    if len(pictures) > 1:
        for ax, label in zip(axes[0], labels, strict=True):
            ax.set_title(f"{words(label)}\n{ax.get_title(loc='left')}")
    return figure


def _columns(ax: Axes) -> int:
    grid = ax.get_gridspec()
    return grid.ncols if grid is not None else 1


def _panel(ax: Axes, panel: Panel, limits: tuple[float, float] | None) -> None:
    title = f"{panel.title}, {panel.unit}" if panel.unit else panel.title
    ax.set_title(textwrap.fill(words(title, 120), 90 // _columns(ax)))
    {"series": _series, "heat": _heat, "spreads": _spreads, "events": _events}[panel.kind](ax, panel)
    if limits and panel.kind == "series":
        if panel.log:
            ax.set_yscale("log")
            powers(ax.yaxis)
        ax.set_ylim(limits)
        _end_labels(ax, panel, limits)


def _time_axis(ax: Axes, start_s: float, end_s: float) -> None:
    span = end_s - start_s
    most = 8 if _columns(ax) == 1 else 4
    step = next((s for s in _TICKS_S if span / s <= most), 7 * DAY_S)
    if span > 2.2 * DAY_S:
        step = max(step, DAY_S)
    ticks = np.arange(np.ceil(start_s / step) * step, end_s + 1, step)
    ax.set_xticks(ticks, [f"{t / DAY_S:g}d" if step >= DAY_S else at(t % DAY_S) for t in ticks])
    ax.set_xlim(start_s, end_s)


def _series(ax: Axes, panel: Panel) -> None:
    for band in panel.bands:
        ax.axvspan(band.start_s, band.end_s, color=COLOURS["band"], alpha=0.06 + 0.26 * band.strength, lw=0, zorder=0)
        ax.annotate(words(band.text), ((band.start_s + band.end_s) / 2, 1), xycoords=("data", "axes fraction"),
                    ha="center", va="top", fontsize=6, color=COLOURS["muted"], annotation_clip=True)
    low: np.ndarray | None = None
    for s in panel.series:
        time, y = (s.time_s, s.y) if s.joined else (np.r_[s.time_s, s.end_s], np.r_[s.y, s.y[-1:]])
        if s.area:
            base = np.zeros(len(y)) if low is None else low
            low = base + np.nan_to_num(y)
            ax.fill_between(time, base, low, step="post", color=colour(s.colour), lw=0.3, edgecolor="white",
                            label=words(s.name, 24))
        else:
            ax.plot(time, y, color=colour(s.colour), ls=DASH[s.mark], label=words(s.name, 24),
                    drawstyle="default" if s.joined else "steps-post")
    for rule in panel.rules:
        ax.axhline(rule.value, color=COLOURS["muted"], lw=0.7, ls="--")
        ax.annotate(words(rule.text), (1, rule.value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=6.5, color=COLOURS["muted"])
    starts = [float(s.time_s[0]) for s in panel.series if len(s.time_s)]
    if starts:
        _time_axis(ax, min(starts), max(s.end_s for s in panel.series))
    if low is not None:
        ax.legend(frameon=False, fontsize=6, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.14), handlelength=1,
                  columnspacing=0.8, borderpad=0)


def _end_labels(ax: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    """Names of lines at their right ends, moved apart where they would cover one another."""
    def place(value: float) -> float:
        a, b = np.log10(limits) if panel.log else limits
        return float(((np.log10(value) if panel.log else value) - a) / (b - a))

    ends: list[tuple[float, Series]] = []
    for s in panel.series:
        finite = s.y[np.isfinite(s.y)]
        if not s.area and s.label and finite.size:
            ends.append((place(finite[-1]), s))
    ends.sort(key=lambda e: e[0])
    gap, last, heights = 0.12, -1.0, []
    for height, _ in ends:
        last = max(height, last + gap)
        heights.append(last)
    roof = 1.0
    for k in reversed(range(len(heights))):
        heights[k] = min(heights[k], roof)
        roof = heights[k] - gap
    for height, (_, s) in zip(heights, ends, strict=True):
        ax.annotate(words(s.label, 24), (1.01, height), xycoords="axes fraction", va="center", fontsize=7,
                    color=colour(s.colour))


def _heat(ax: Axes, panel: Panel) -> None:
    h = panel.heat
    assert h is not None, "the panel is of this kind"
    x = np.r_[h.x_s, h.end_s]
    y = np.arange(len(h.rows) + 1) - 0.5 if h.y_s is None else np.r_[h.y_s, h.end_s]
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(h.z), cmap=FLAG if h.scale == "flag" else RAMP, rasterized=True)
    _time_axis(ax, float(x[0]), float(x[-1]))
    if h.y_s is None:
        every = max(1, len(h.rows) // 18)
        ax.set_yticks(range(0, len(h.rows), every), [words(row, 24) for row in h.rows[::every]])
    else:
        ax.set_yticks(ax.get_xticks(), [t.get_text() for t in ax.get_xticklabels()])
        ax.set(ylim=(y[0], y[-1]), xlabel=words(h.x_says), ylabel=words(h.y_says))
    if h.scale == "heat":
        ax.figure.colorbar(mesh, ax=ax, label=words(h.unit), pad=0.02, aspect=30)


def _spreads(ax: Axes, panel: Panel) -> None:
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
    ax.set_yticks(range(len(panel.spreads)), [f"{words(r.name, 24)}\n{words(r.about)}" for r in panel.spreads])
    ax.set_ylim(-0.6, len(panel.spreads) - 0.4)


def _events(ax: Axes, panel: Panel) -> None:
    kinds = list(dict.fromkeys(e.kind for e in panel.events))
    top = max(e.count for e in panel.events) or 1.0
    ax.scatter([e.time_s for e in panel.events], [kinds.index(e.kind) for e in panel.events],
               s=[12 + 120 * e.count / top for e in panel.events], color=COLOURS["alarm"], alpha=0.6, lw=0)
    ax.set_yticks(range(len(kinds)), [words(kind) for kind in kinds])
    ax.set_ylim(-0.6, len(kinds) - 0.4)
    _time_axis(ax, 0.0, max(e.time_s for e in panel.events) + HOUR_S)


# --- the map ----------------------------------------------------------------------------------------------------------


def _map(labels: list[str], networks: list[Network | None], at_s: float | None) -> Figure:
    """The maps at a time, or in the middle of the run, one below the other, coloured by the first level of the first
    that has one, on one scale."""
    shown = [(label, m) for label, m in zip(labels, networks, strict=True) if m]
    rows = [max(y for _, _, y in m.nodes) - min(y for _, _, y in m.nodes) + 1 for _, m in shown]
    figure = Figure(figsize=(WIDTH_IN, sum(max(2.2, 0.75 * r + 0.5) for r in rows)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    level = next((level for _, m in shown for level in m.levels), None)
    known = [v for _, m in shown if level and (v := m.level(level.key)) is not None]
    low, high = (min(float(np.nanmin(v)) for v in known), max(float(np.nanmax(v)) for v in known)) if known else (0, 1)
    widest = max(float(np.abs(m.flow_kw).max()) for _, m in shown) or 1.0
    for ax, (label, m) in zip(axes, shown, strict=True):
        moment = len(m.time_s) // 2 if at_s is None else max(0, int(rows_at(m.time_s, at_s)))
        xy = np.array([(x, -y) for _, x, y in m.nodes])
        found = m.level(level.key) if level else None
        values = found[moment] if found is not None else np.full(len(xy), np.nan)
        _network(ax, m, moment, widest, values > 0.5 * (low + high))
        dots = ax.scatter(*xy.T, c=values, cmap=RAMP, vmin=low, vmax=high, s=95, edgecolor="#888888", lw=0.6, zorder=3,
                          plotnonfinite=True)
        ax.set_title(f"{words(label)}, {at(m.time_s[moment])}")
        ax.set_axis_off()
    if known and level:
        figure.colorbar(dots, ax=list(axes), label=words(f"{level.short or level.title}, {level.unit}"), shrink=0.8,
                        pad=0.01, aspect=30)
    return figure


def _network(ax: Axes, m: Network, moment: int, widest: float, dark: np.ndarray) -> None:
    """Lines, names and marks; names of nodes that are `dark` are white."""
    xy = [(x, -y) for _, x, y in m.nodes]
    for k, (a, b) in enumerate(m.lines):
        kw, (x0, y0), (x1, y1) = float(m.flow_kw[moment, k]), xy[a], xy[b]
        ax.plot([x0, x0, x1], [y0, y1, y1], color="#a9b1bd", lw=0.6 + 6 * abs(kw) / widest,
                solid_capstyle="round", zorder=1)
        ax.plot((x0 + x1) / 2, y1, ">" if kw >= 0 else "<", color=COLOURS["ink"], ms=3.5, zorder=2)
    for k, (name, _, _) in enumerate(m.nodes):
        if len(m.nodes) <= 80:
            ax.text(*xy[k], words(name, 8), ha="center", va="center", fontsize=5.5, zorder=4,
                    color="white" if dark[k] else COLOURS["ink"])
    for mark in m.marks:
        side, marker = (1, "o") if mark.shape == "ring" else (-1, "s")
        (x, y), tone = xy[mark.node], colour(mark.colour)
        ax.plot(x, y, marker, ms=14, mfc="none", mec=tone, mew=1.3, zorder=2)
        ax.text(x, y + 0.32 * side, f"{words(mark.name, 24)}\n{mark.power_kw[moment]:.0f} kW", ha="center", fontsize=6,
                color=tone, va="bottom" if side > 0 else "top")
    columns, rows = zip(*xy, strict=True)
    ax.set(xlim=(min(columns) - 0.7, max(columns) + 0.7), ylim=(min(rows) - 0.9, max(rows) + 0.9))
