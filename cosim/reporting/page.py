"""One self-contained HTML page: text and tables as they are, pictures as packed data that a script in it draws.

The page makes no request: plotly.js, our scripts and styles and all data are in it, the large parts compressed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from cosim.plaintext import visible
from cosim.reporting.chart import Heat, Maps, Network, Panel, Picture, Section, Series, ranges
from cosim.reporting.comparison import MOST_APART, overlaid, titled
from cosim.reporting.definition import Headline
from cosim.reporting.heads import Compared, facts_board, head
from cosim.reporting.markup import Terms, plain, text
from cosim.reporting.overview import Overview
from cosim.reporting.text import at, listing

_SCRIPTS = ("page.js", "plots.js", "map.js", "save.js", "boot.js")
_PANEL_PX = 190
_RAMP_STEPS = 4
_OPEN_SECTIONS = 2
"""Of several runs, in so many sections the charts are open; in the others they are folded away below their tables."""


class ColumnStore:
    """Arrays of the page: each once, as float32 (times float64), one after the other."""

    def __init__(self) -> None:
        self._at: dict[bytes, list] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def put(self, values: np.ndarray, kind: str = "f4") -> list:
        """[type, offset, length] of the array in the blob."""
        raw = np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()
        key = kind.encode() + raw
        if key not in self._at:
            self._at[key] = [kind, self._size, int(np.size(values))]
            padded = raw + bytes(-len(raw) % 8)
            self._parts.append(padded)
            self._size += len(padded)
        return self._at[key]

    def pack(self, head: dict[str, Any]) -> str:
        """Length of the JSON head (uint32), the head padded to 8 bytes, the arrays; compressed, as text."""
        text = json.dumps(_shown(head), separators=(",", ":"), allow_nan=False).encode()
        text += b" " * ((-len(text) - 8) % 8)
        return _packed(len(text).to_bytes(8, "little") + text + b"".join(self._parts))


@dataclass
class _Canvas:
    """What the pictures of a page share: what an event's time is shown in, terms that are not explained yet, the runs,
    its arrays, and the data of its plots."""

    shown_in: str
    terms: Terms
    labels: list[str]
    compared: Compared | None
    store: ColumnStore = field(default_factory=ColumnStore)
    plots: list[dict[str, Any]] = field(default_factory=list)


def _shown(value: Any) -> Any:
    """Data with all texts in it as they are to be seen."""
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def _packed(raw: bytes) -> str:
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js, packed, and how a policy names it."""
    code = get_plotlyjs()
    return _packed(code.encode()), _hash(code)


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _policy(*scripts: str) -> str:
    """What a browser lets this page do: run these scripts, and nothing else; load nothing. plotly sets styles and draws
    heat maps as images that are data, and saves a chart through one that it made itself; a style can load nothing
    either."""
    return (f"default-src 'none'; script-src {' '.join(scripts)}; style-src 'unsafe-inline'; img-src data: blob:; "
            "base-uri 'none'; form-action 'none'")


def _asset(name: str) -> str:
    return files("cosim.reporting").joinpath(name).read_text(encoding="utf-8")


def page(labels: list[str], views: list[Overview], maps: Maps | None, parts: list[Section], start: str, end_s: float,
         compared: Compared | None = None, terms: Iterable[tuple[str, str]] = ()) -> str:
    """The whole document. Lists have one entry per run.

    start: date of t = 0, UTC; '' where the runs have different ones, and axes count from their starts. end_s: where the
    longest run ends. compared: of several runs, else None. terms: (word, meaning), explained where they first stand.
    """
    title = f"{maps.title[:1].lower()}{maps.title[1:]} and all pictures" if maps else "all pictures"
    canvas = _Canvas(title, Terms(terms), labels, compared)
    body = [head(labels, views, compared, canvas.terms)]
    names = [("overview", "Overview"), *([("map", maps.short)] if maps else []), *((s.key, s.short) for s in parts)]
    body += [_map_section(labels, maps, canvas)] if maps else []
    for number, section in enumerate(parts):
        inner = "".join(_row(pictures, canvas, number < _OPEN_SECTIONS) for pictures in section.pictures)
        body.append(f'<section id="{section.key}"><h2>{text(section.title)}</h2>{inner}</section>')
    nav = "".join(f'<a href="#{key}">{text(short)}</a>' for key, short in names)
    data = {"plots": canvas.plots, "start": start, "end": end_s,
            "maps": [_map_data(m, canvas.store) for m in _drawn(maps, len(labels)) if m] if maps else []}
    title = views[0].title if compared is None else f"{len(labels)} runs compared: {titled(compared.groups)}"
    code, name = _plotly()
    script = "\n".join(_asset(n) for n in _SCRIPTS)
    return _DOCUMENT.format(
        policy=_policy(_hash(script), name), title=text(f"{title} - aidc-cosim"), css=_asset("page.css"), nav=nav,
        body="".join(body), plotly=code, data=canvas.store.pack(data), script=script)


_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{title}</title>
<style>{css}</style></head><body>
<nav aria-label="Sections"><div class="links">{nav}</div><button id="reset" type="button" hidden>Reset zoom</button>
<button id="theme" type="button">Dark</button></nav>
<main><noscript><p class="warn">The pictures need JavaScript; text and tables do not.</p></noscript>
<p class="warn" id="broken" hidden></p>{body}
<footer>Made by <code>cosim report</code> from the trace alone. Nothing on this page is loaded from elsewhere.
</footer></main>
<script type="text/plain" id="plotly-gz">{plotly}</script>
<script type="text/plain" id="data-gz">{data}</script>
<script>{script}</script></body></html>
"""


# --- pictures ---------------------------------------------------------------------------------------------------------


def _row(pictures: list[Picture], canvas: _Canvas, is_open: bool = True) -> str:
    """One picture: of one run as it is; of several what is compared as a table, and the lines of all on one axis, open
    or folded away under the charts' titles."""
    if canvas.compared is None:
        return _figure(pictures[0], ranges(pictures), canvas)
    groups, labels, few = canvas.compared.groups, canvas.labels, len(pictures) <= MOST_APART
    one = overlaid(pictures, groups)
    said = "".join(f'<div class="run"><p class="say"><b>{text(label)}</b>: {text(p.says)}</p>'
                   f'<p class="note">{text(p.note)}</p></div>' for label, p in zip(labels, pictures, strict=True))
    said = f'<div class="runs said n{min(len(pictures), 3)}">{said}</div>'
    words = said if few else f"<details><summary>In words, run by run</summary>{said}</details>"
    facts = facts_board([[Headline(f.name, f.value, f.unit) for f in p.facts] for p in pictures], groups)
    shown = (_figure(one, ranges([one]), canvas) if one.panels else "") + _apart(pictures, canvas, few)
    if is_open or 'class="plot"' not in shown:
        return f"{words}{facts}{shown}"
    number = shown.count('class="plot"')
    return (f'{words}{facts}<details class="charts"><summary>{number} chart{"s" * (number > 1)}</summary>{shown}'
            "</details>")


def _apart(pictures: list[Picture], canvas: _Canvas, few: bool) -> str:
    """What has no lines to draw on one axis: side by side for a few runs, else by name."""
    others = [replace(p, says="", note="", panels=tuple(q for q in p.panels if q.kind != "series")) for p in pictures]
    titles = list(dict.fromkeys(panel.title for p in others for panel in p.panels))
    if not titles:
        return ""
    if not few:
        return (f'<p class="note">Not drawn for more than {MOST_APART} runs: {text(listing(titles))}. A page of fewer '
                "runs has it.</p>")
    limits = ranges(others)
    inner = "".join(f'<div class="run"><p class="tag">{text(label)}</p>'
                    f"{_figure(replace(p, columns=False), limits, canvas)}</div>"
                    for label, p in zip(canvas.labels, others, strict=True) if p.panels)
    return f'<div class="runs n{min(len(others), 3)}">{inner}</div>'


def _figure(picture: Picture, limits: dict, canvas: _Canvas) -> str:
    if picture.missing:
        return f'<figure class="pic missing"><p>{text(picture.says)}</p></figure>'
    panels = "".join(_panel(p, picture, limits, canvas) for p in picture.panels)
    note = f"<figcaption>{text(picture.note)}</figcaption>" if picture.note else ""
    says = f'<p class="say">{text(picture.says)}</p>' if picture.says else ""
    told = canvas.terms.explained(picture.says, *(f"{p.title} {p.unit}" for p in picture.panels), picture.note)
    several = f" columns n{len(picture.panels)}" if picture.columns else ""
    return (f'<figure class="pic" data-key="{plain(picture.key)}">{says}{_legend(picture.legend)}'
            f'<div class="panels{several}">{panels}</div>{note}{told}</figure>')


def _legend(legend: tuple[tuple[str, str, str], ...]) -> str:
    """Names of lines that have no room at their ends."""
    marks = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
    rows = "".join(f'<li><b style="border-color:{_css(colour)};border-top-style:{marks[mark]}"></b>{text(name)}</li>'
                   for colour, mark, name in legend)
    return f'<ul class="legend">{rows}</ul>' if rows else ""


def _css(token: str) -> str:
    """A colour token as CSS."""
    name, _, percent = token.partition("/")
    if name == "ramp":
        step, share = divmod(float(percent) / 100 * _RAMP_STEPS, 1)
        above = min(step + 1, _RAMP_STEPS)
        return f"color-mix(in srgb,var(--ramp{above:.0f}) {100 * share:.0f}%,var(--ramp{step:.0f}))"
    return f"color-mix(in srgb,var(--{name}) {percent}%,var(--bg))" if percent else f"var(--{name})"


def _panel(panel: Panel, picture: Picture, limits: dict, canvas: _Canvas) -> str:
    number = len(canvas.plots)
    canvas.plots.append({**_panel_data(panel, limits, canvas.store), "key": picture.key, "title": panel.title})
    unit = f"<span>{text(panel.unit)}</span>" if panel.unit else ""
    swatch = panel.series[-1 if panel.series[-1].area else 0].colour.partition("/")[0] if panel.series else ""
    dot = f'<i style="background:var(--{swatch})"></i>' if panel.title and picture.columns and "site" in swatch and len(
        {s.colour.partition("/")[0] for s in panel.series} - {"ink", "muted"}) == 1 and not picture.legend else ""
    listed = _event_list(panel, canvas.shown_in) if panel.kind == "events" else ""
    stack = "".join(f'<li><i style="background:{_css(s.colour)}"></i>{text(s.name)}</li>'
                    for s in panel.series if s.area)
    below = f'<ul class="legend">{stack}</ul>' if stack else ""
    return (f'<div class="panel"><h4>{dot}<b>{text(panel.title)}</b>{unit}{_gets(f"plot{number}", panel.title)}</h4>'
            f'<div class="plot" id="plot{number}" role="img" '
            f'aria-label="{plain(panel.title)}: {plain(picture.says)}" '
            f'style="height:{panel.size * _PANEL_PX + 16:.0f}px"></div>{below}{listed}</div>')


def _gets(what: str, title: str) -> str:
    """The buttons that save a chart."""
    return '<span class="get">' + "".join(
        f'<button type="button" data-get="{kind}" data-of="{what}" aria-label="Save as {kind.upper()}: {plain(title)}">'
        f"{kind.upper()}</button>" for kind in ("csv", "png")) + "</span>"


def _event_list(panel: Panel, shown_in: str) -> str:
    rows = "".join(f'<li><button type="button" data-t="{e.time_s:.12g}"><time data-s="{e.time_s:.12g}">{at(e.time_s)}'
                   f"</time> <b>{text(e.where)}</b> {text(e.text)}</button></li>" for e in panel.events)
    hint = f'<p class="note">Choose one to see {text(shown_in)} at its time.</p>'
    return f'{hint}<ol class="events">{rows}</ol>'


def _panel_data(panel: Panel, limits: dict, store: ColumnStore) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": panel.kind, "unit": panel.unit, "log": panel.log,
                            "range": limits.get(id(panel)),
                            "bands": [[b.start_s, b.end_s, b.strength, b.text] for b in panel.bands],
                            "rules": [[r.value, r.text] for r in panel.rules]}
    if panel.series:
        data["series"] = [_series_data(s, store) for s in panel.series]
    elif panel.heat:
        data["heat"] = _heat_data(panel.heat, store)
    elif panel.spreads:
        data["spreads"] = [[s.name, s.about, [list(q) for q in s.quantiles], s.limit_min] for s in panel.spreads]
    else:
        data["events"] = [[e.time_s, e.kind, e.where, e.count, e.text] for e in panel.events]
    return data


def _series_data(s: Series, store: ColumnStore) -> dict[str, Any]:
    return {"name": s.name, "t": store.put(s.time_s, "f8"), "y": store.put(s.y), "colour": s.colour, "end": s.end_s,
            "area": s.area, "mark": s.mark, "label": s.label, "joined": s.joined,
            "reach": [store.put(one) for one in s.reach] if s.reach else None}


def _heat_data(h: Heat, store: ColumnStore) -> dict[str, Any]:
    return {"x": store.put(np.r_[h.x_s, h.end_s], "f8"), "rows": list(h.rows), "z": store.put(h.z), "n": h.z.shape[1],
            "unit": h.unit, "scale": h.scale, "x_says": h.x_says, "y_says": h.y_says,
            "y": None if h.y_s is None else store.put(np.r_[h.y_s, h.end_s], "f8")}


# --- the map ----------------------------------------------------------------------------------------------------------


def _map_section(labels: list[str], maps: Maps, canvas: _Canvas) -> str:
    """The maps of a few runs; of many that of the first."""
    several, few, out, drawn = len(labels) > 1, len(labels) <= MOST_APART, [], 0
    for label, picture, one in zip(labels, maps.pictures, _drawn(maps, len(labels)), strict=False):
        tag = f'<p class="tag">{text(label)}</p>' if several else ""
        if one is None:
            out.append(f'<div class="run">{tag}<figure class="pic missing"><p>{text(picture.says)}</p></figure></div>')
            continue
        out.append(f'<div class="run">{tag}<figure class="pic"><p class="say">{text(picture.says)}</p>'
                   f'<h4><span class="readout" id="readout{drawn}" aria-live="off"></span>'
                   f'{_gets(f"map{drawn}", maps.title)}</h4><div class="map" id="map{drawn}"></div>'
                   f"<figcaption>{text(picture.note)}</figcaption>"
                   f"{canvas.terms.explained(picture.says, *(f'{v.title} {v.unit}' for v in one.levels))}"
                   "</figure></div>")
        drawn += 1
    control = _CONTROL if drawn else ""
    rest = _row(maps.substitutes, canvas) if maps.substitutes else ""
    more = "" if few else f'<p class="note">The map is that of the first of {len(labels)} runs.</p>'
    return (f'<section id="map"><h2>{text(maps.title)}</h2>{control}'
            f'<div class="runs n{min(len(labels), 3)}">{"".join(out)}</div>{more}{rest}</section>')


def _drawn(maps: Maps, runs: int) -> list[Network | None]:
    """The maps that the page has."""
    return maps.networks if runs <= MOST_APART else maps.networks[:1]


_CONTROL = """<div class="control"><button id="play" type="button" aria-label="Play">&#9654;</button>
<input id="time" type="range" min="0" max="0" value="0" step="1" aria-label="Time of the run">
<output id="clock"></output></div>
<div class="keys"><div id="modes" role="tablist" aria-label="Colour of the nodes"></div><div id="scale"></div></div>"""


def _map_data(m: Network, store: ColumnStore) -> dict[str, Any]:
    return {"time_s": store.put(m.time_s, "f8"), "flow": store.put(m.flow_kw),
            "nodes": [{"name": name, "x": x, "y": y} for name, x, y in m.nodes],
            "lines": [list(ends) for ends in m.lines],
            "levels": [{"key": v.key, "title": v.title, "short": v.short, "unit": v.unit, "digits": v.digits,
                        "values": store.put(v.values)} for v in m.levels],
            "marks": [{"name": s.name, "node": s.node, "colour": s.colour, "shape": s.shape,
                       "kw": store.put(s.power_kw)} for s in m.marks],
            "readouts": [{"words": r.words, "unit": r.unit, "values": store.put(r.values)} for r in m.readouts]}
