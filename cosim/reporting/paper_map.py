"""Maps of networks for print: nodes coloured by a level at a time, lines as wide as the power that they carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosim.reporting.chart import Network
from cosim.reporting.style import COLOURS, RAMP, colour, points, words
from cosim.trace.series import rows_at

_SPACIOUS_IN = 6.0
"""From this width on there is room for names in nodes."""
_FULL_IN = 7.2
"""Marks have their full size at this width."""


def draw_maps(labels: Sequence[str], networks: Sequence[Network | None], at_s: float | None, width_in: float,
              written: Callable[[float], str]) -> Figure:
    """The maps at a time, or in the middle of the run, one below the other, coloured by the first level of the first
    that has one, on one scale. written: makes a time (s) what the title has."""
    shown = [(label, m) for label, m in zip(labels, networks, strict=True) if m]
    rows = [max(y for _, _, y in m.nodes) - min(y for _, _, y in m.nodes) + 1 for _, m in shown]
    tall_in = width_in / _FULL_IN * sum(max(2.2, 0.75 * r + 0.5) for r in rows)
    figure = Figure(figsize=(width_in, tall_in), layout="constrained")
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
        _network(ax, m, moment, widest, values > 0.5 * (low + high), width_in)
        dots = ax.scatter(*xy.T, c=values, cmap=RAMP, vmin=low, vmax=high, s=95 * (width_in / _FULL_IN) ** 2,
                          edgecolor="#888888", lw=0.6, zorder=3,
                          plotnonfinite=True)
        ax.set_title(f"{words(label)}, {written(m.time_s[moment])}")
        ax.set_axis_off()
    if known and level:
        figure.colorbar(dots, ax=list(axes), label=words(f"{level.short or level.title}, {level.unit}"), shrink=0.8,
                        pad=0.01, aspect=30)
    return figure


def _network(ax: Axes, m: Network, moment: int, widest: float, dark: np.ndarray,
             width_in: float) -> None:
    """Lines, names and marks; names of nodes that are `dark` are white."""
    xy = [(x, -y) for _, x, y in m.nodes]
    for k, (a, b) in enumerate(m.lines):
        kw, (x0, y0), (x1, y1) = float(m.flow_kw[moment, k]), xy[a], xy[b]
        ax.plot([x0, x0, x1], [y0, y1, y1], color="#a9b1bd", lw=0.6 + 6 * abs(kw) / widest,
                solid_capstyle="round", zorder=1)
        ax.plot((x0 + x1) / 2, y1, ">" if kw >= 0 else "<", color=COLOURS["ink"], ms=3.5, zorder=2)
    for k, (name, _, _) in enumerate(m.nodes):
        if len(m.nodes) <= 80 and width_in >= _SPACIOUS_IN:
            ax.text(*xy[k], words(name, 8), ha="center", va="center", fontsize=points(0.69), zorder=4,
                    color="white" if dark[k] else COLOURS["ink"])
    for mark in m.marks:
        side, marker = (1, "o") if mark.shape == "ring" else (-1, "s")
        (x, y), tone = xy[mark.node], colour(mark.colour)
        ax.plot(x, y, marker, ms=14 * width_in / _FULL_IN, mfc="none", mec=tone, mew=1.3, zorder=2)
        ax.text(x, y + 0.32 * side, f"{words(mark.name, 24)}\n{mark.power_kw[moment]:.0f} kW", ha="center",
                fontsize=points(0.75), color=tone, va="bottom" if side > 0 else "top")
    columns, rows = zip(*xy, strict=True)
    ax.set(xlim=(min(columns) - 0.7, max(columns) + 0.7), ylim=(min(rows) - 0.9, max(rows) + 0.9))
