"""Panels of studies for print: curves, bands, figures over seeds, days of sites, heat maps; a file per picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cosim.reporting.style import COLOURS, DASH, RAMP, STYLE, WIDTH_IN, powers, save, words

Curve = tuple[str, Sequence[float], Sequence[float]]
"""Name, x, y."""


def curves(path: Path, x_label: str, panels: Sequence[tuple[str, Sequence[Curve]]],
           marks: Sequence[float] = (), formats: Sequence[str] = ()) -> Path:
    """Write panels of (y label, curves) side by side over one x, logarithmic but for 0; the ending is the format.

    marks    per curve an x to mark, NaN for none
    formats  endings to write, in place of that of `path`
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (y_label, lines) in zip(axes, panels, strict=True):
            least = min((v for _, x, _ in lines for v in x if v > 0), default=1.0)
            for k, (name, x, y) in enumerate(lines):
                ax.plot(x, y, "o-", ms=2.5, color=COLOURS[f"site{k % 8}"], label=words(name))
                if k < len(marks) and np.isfinite(marks[k]):
                    ax.axvline(marks[k], color=COLOURS[f"site{k % 8}"], lw=0.7, ls=DASH["dot"])
            ax.set_xscale("symlog", linthresh=least)
            powers(ax.xaxis)
            ax.set(xlabel=x_label, ylabel=y_label, ylim=(0, None))
            ax.set_xlim(left=0)
        axes[0].legend(frameon=False, fontsize=7)
        return save(figure, path, list(formats) or [path.suffix[1:]])[0]


Band = tuple[str, Sequence[float], Sequence[float], Sequence[float]]
"""Name, x, y, and how far the band around y reaches to each side."""


def bands(path: Path, x_label: str, panels: Sequence[tuple[str, Sequence[Band]]],
          formats: Sequence[str] = ()) -> Path:
    """Write panels of (y label, curves with bands), two in a row, over one x; the ending is the format, unless
    `formats` has others."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.1 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for ax in axes.flat[len(panels):]:
            ax.set_visible(False)
        for ax, (y_label, lines) in zip(axes.flat, panels, strict=False):
            for k, (name, x, y, reach) in enumerate(lines):
                hue, centre, half = COLOURS[f"site{k % 8}"], np.asarray(y), np.asarray(reach)
                ax.plot(x, centre, color=hue, label=words(name))
                if half.any():
                    ax.fill_between(x, centre - half, centre + half, color=hue, alpha=0.15, lw=0)
            ax.set(title=y_label)
            ax.margins(x=0)
        for ax in axes[-1]:
            ax.set_xlabel(x_label)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
        return save(figure, path, list(formats) or [path.suffix[1:]])[0]


def means(path: Path, x_label: str, y_label: str, lines: Mapping[str, Sequence[tuple[Any, float, float]]]) -> Path:
    """Write lines of (x, mean, half width of its interval) by name; the ending is the format.

    Where any x is no number the axis has a place for each value, in the order in which they come.
    """
    values = list(dict.fromkeys(str(x) for line in lines.values() for x, _, _ in line))
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for line in lines.values() for x, _, _ in line)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
        ax = figure.subplots()
        for k, (name, line) in enumerate(lines.items()):
            xs = [x if numeric else values.index(str(x)) for x, _, _ in line]
            ordered = sorted(zip(xs, line, strict=True), key=lambda pair: pair[0])
            ax.errorbar([x for x, _ in ordered], [mean for _, (_, mean, _) in ordered],
                        [half for _, (_, _, half) in ordered], fmt="o-" if numeric else "o", ms=3.5, capsize=2.5,
                        color=COLOURS[f"site{k % 8}"], label=words(name))
        if not numeric:
            ax.set_xticks(range(len(values)), [words(value, 24) for value in values])
        ax.set(xlabel=words(x_label), ylabel=words(y_label))
        if any(lines):
            figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return save(figure, path, [path.suffix[1:]])[0]


@dataclass(frozen=True, slots=True)
class SeededFigure:
    """A figure over seeds: its name, all values, their centre, and the ends of its interval (NaN: none); hue: number of
    its colour."""

    name: str
    values: Sequence[float]
    centre: float
    low: float
    high: float
    hue: int = 0


def seeds(path: Path, panels: Sequence[tuple[str, Sequence[SeededFigure]]], formats: Sequence[str],
          columns: int = 3) -> Path:
    """Write panels of (title, figures over seeds), a line each: every seed as a point, the centre as a bar, the
    interval as a line. Panels of a row share their lines where they have the same."""
    columns = min(columns, len(panels))
    rows, most = -(-len(panels) // columns), max(len(lines) for _, lines in panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, rows * (0.17 * most + 0.55)), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(panels):]:
            ax.set_visible(False)
        for k, (title, lines) in enumerate(panels):
            ax = axes.flat[k]
            before = panels[k - 1][1] if k % columns else ()
            shared = [line.name for line in before] == [line.name for line in lines]
            for y, line in enumerate(lines):
                hue = COLOURS[f"site{line.hue % 8}"]
                ax.plot([line.low, line.high], [y, y], color=hue, lw=2.2, alpha=0.35, solid_capstyle="butt")
                ax.plot(line.values, [y] * len(line.values), "o", ms=2.6, mfc="none", mew=0.7, color=hue)
                ax.plot(line.centre, y, "|", ms=7, mew=1.6, color=hue)
            ax.set_title("\n".join(textwrap.wrap(words(title), 88 // columns)))
            reached = [x for line in lines for x in (line.low, line.high, *line.values)]
            if min(reached, default=0.0) < 0.0 < max(reached, default=0.0):
                ax.axvline(0.0, lw=0.8, color="#999999")
            ax.set_yticks(range(len(lines)), [] if shared else [words(line.name, 34) for line in lines], fontsize=7)
            ax.set_ylim(len(lines) - 0.4, -0.6)
            ax.tick_params(axis="y", length=0)
            ax.locator_params(axis="x", nbins=4)
            ax.grid(axis="y", lw=0.4, color="#e6e6e6")
            ax.set_axisbelow(True)
        return save(figure, path, list(formats))[0]


def hours(path: Path, columns: Sequence[str], panels: Sequence[Sequence[tuple[str, Sequence[Curve]]]],
          formats: Sequence[str]) -> Path:
    """Write rows of panels of (y label, curves over the hour of the day), a column per name in `columns`; those of a
    row share their y."""
    rows = len(panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.35 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, len(columns), squeeze=False, sharex=True, sharey="row")
        for j, name in enumerate(columns):
            axes[0, j].set_title(words(name))
            axes[-1, j].set_xlabel("hour of the day")
        for i, row in enumerate(panels):
            for j, (_, lines) in enumerate(row):
                for k, (name, x, y) in enumerate(lines):
                    axes[i, j].plot([*x, 24.0], [*y, y[-1]], color=COLOURS[f"site{k % 8}"],
                                    drawstyle="steps-post", label=words(name))
                axes[i, j].set_xlim(0, 24)
                axes[i, j].set_xticks(range(0, 25, 6))
            axes[i, 0].set_ylabel(words(row[0][0]), fontsize=7)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=5, frameon=False)
        return save(figure, path, list(formats))[0]


def clouds(path: Path, x_label: str, y_label: str, panels: Sequence[tuple[str, Sequence[Curve]]],
           formats: Sequence[str]) -> Path:
    """Write panels of (title, points by name) side by side."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (title, groups) in zip(axes, panels, strict=True):
            for k, (name, x, y) in enumerate(groups):
                ax.plot(x, y, "os^Dvph*"[k % 8], ms=2.6, mew=0, alpha=0.5, color=COLOURS[f"site{k % 8}"],
                        label=words(name))
            ax.set_title(words(title))
            ax.set_xlabel(words(x_label))
        axes[0].set_ylabel(words(y_label))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=5, frameon=False)
        return save(figure, path, list(formats))[0]


def grids(path: Path, x_label: str, y_label: str, panels: Sequence[tuple[str, np.ndarray]],
          edges: tuple[Sequence[float], Sequence[float]], unit: str, formats: Sequence[str]) -> Path:
    """Write panels of (title, values (y, x)) as heat maps side by side, on one scale; edges: (x, y) of their cells."""
    top = max((float(np.nanmax(z)) for _, z in panels if np.isfinite(z).any()), default=1.0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.4), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (title, z) in zip(axes, panels, strict=True):
            mesh = ax.pcolormesh(edges[0], edges[1], np.ma.masked_invalid(z), cmap=RAMP, vmin=0.0, vmax=top or 1.0,
                                 rasterized=True)
            ax.set_title(words(title))
            ax.set_xlabel(words(x_label))
            for axis, (low, *_, high) in zip((ax.xaxis, ax.yaxis), edges, strict=True):
                axis.set_ticks(np.linspace(low, high, 5))
        axes[0].set_ylabel(words(y_label))
        figure.colorbar(mesh, ax=list(axes), label=words(unit), pad=0.02, aspect=30)
        return save(figure, path, list(formats))[0]


def sizes(path: Path, x_label: str, y_label: str, groups: Sequence[Curve], formats: Sequence[str]) -> Path:
    """Write points by name over whole numbers, on a logarithmic axis of powers of ten."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN / 2, 2.3), layout="constrained")
        ax = figure.subplots()
        for k, (name, x, y) in enumerate(groups):
            exponents = np.log10(np.asarray(y, float))
            ax.plot(x, exponents, "o-", ms=3, color=COLOURS[f"site{k % 8}"], label=words(name))
        ax.set_xticks(sorted({int(v) for _, x, _ in groups for v in x}))
        ax.set(xlabel=words(x_label), ylabel=f"{words(y_label)}, power of ten", ylim=(0, None))
        ax.legend(frameon=False, fontsize=7)
        return save(figure, path, list(formats))[0]
