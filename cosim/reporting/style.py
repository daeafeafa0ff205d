"""How pictures for print look: colours, lines, type, names as text, and files without dates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cosim.plaintext import visible
from cosim.reporting.text import number, unmarked

COLOURS = {"ink": "#1b1e23", "muted": "#666c76", "alarm": "#b3261e", "band": "#8b95a5", "site0": "#0068a8",
            "site1": "#bd4805", "site2": "#00805f", "site3": "#a34a86", "site4": "#8f6400", "site5": "#2b73b0",
            "site6": "#555555", "site7": "#747400"}
RAMP = LinearSegmentedColormap.from_list("carbon", ["#fdf0cd", "#fbc25a", "#ee8a23", "#c2500c", "#6d2604"])
FLAG = LinearSegmentedColormap.from_list("flag", ["#eeeeee", "#1b1e23"])
DASH = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.4))}
STYLE: dict[Any, Any] = {
          "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
          "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
          "text.parse_math": False, "text.usetex": False,  # names are text, dollars and all
          "svg.hashsalt": "aidc-cosim", "svg.fonttype": "none", "pdf.fonttype": 42}
WIDTH_IN = 7.2
"""Two columns of a page."""


def words(text: str, most: int = 60) -> str:
    """A name or sentence as it is drawn: what no font shows written out, what has no room cut off."""
    shown = visible(unmarked(text))
    shown = shown if len(shown) <= most else f"{shown[:most - 1]}\u2026"
    return f" {shown}" if shown.startswith("_") else shown  # a legend leaves out what begins so


def points(share: float) -> float:
    """A size of type as a share of the figure's own, pt."""
    return share * float(matplotlib.rcParams["font.size"])


def powers(axis: Axis) -> None:
    """Ticks of a logarithmic axis in figures: those of matplotlib are formulas, which names must not be."""
    axis.set_major_formatter(lambda value, _: number(value, 1))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path, formats: list[str]) -> list[Path]:
    """Without dates in the file, so that the same trace gives the same bytes."""
    out = []
    for ending in formats:
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {"Software": None})
        figure.savefig(path.with_suffix(f".{ending}"), dpi=200, metadata=date)
        out.append(path.with_suffix(f".{ending}"))
    return out


def colour(token: str) -> str:
    """The print colour of a token: 'site0', or 'site0/60' for 60 % of it on white; 'ramp/60' is of the scale."""
    name, _, percent = token.partition("/")
    share = float(percent or 100) / 100
    if name == "ramp":
        return to_hex(RAMP(share))
    red, green, blue = (share * c + 1 - share for c in to_rgb(COLOURS[name]))
    return to_hex((red, green, blue))
