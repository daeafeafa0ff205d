"""One self-contained HTML page: text and tables as they are, pictures as packed data that a script in it draws.

The page makes no request: plotly.js, our scripts and styles and all data are in it, the large parts compressed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from cosim.digest import Table
from cosim.plaintext import visible
from cosim.reporting.chart import Heat, Maps, Network, Panel, Picture, Section, Series, ranges
from cosim.reporting.overview import Overview, change, compared
from cosim.reporting.text import at, marked, quantity, unmarked

_SCRIPTS = ("page.js", "plots.js", "map.js", "boot.js")
_PANEL_PX = 190


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
    """What the pictures of a page share: its arrays, the data of its plots, and what an event's time is shown in."""

    shown_in: str
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
    heat maps as images that are data; a style can load nothing either."""
    return (f"default-src 'none'; script-src {' '.join(scripts)}; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'")


def _asset(name: str) -> str:
    return files("cosim.reporting").joinpath(name).read_text(encoding="utf-8")


def page(labels: list[str], views: list[Overview], maps: Maps | None, parts: list[Section],
         differences: list[tuple[str, list[str]]], span: tuple[str, float]) -> str:
    """The whole document. Lists have one entry per run; `span` is the date of t = 0 and the end in seconds."""
    several = len(labels) > 1
    title = f"{maps.title[:1].lower()}{maps.title[1:]} and all pictures" if maps else "all pictures"
    canvas = _Canvas(title)
    body = [_head(labels, views, differences)]
    names = [("overview", "Overview"), *([("map", maps.short)] if maps else []), *((s.key, s.short) for s in parts)]
    body += [_map_section(labels, maps, canvas)] if maps else []
    for section in parts:
        inner = "".join(_row(pictures, labels, canvas) for pictures in section.pictures)
        body.append(f'<section id="{section.key}"><h2>{_text(section.title)}</h2>{inner}</section>')
    nav = "".join(f'<a href="#{key}">{_text(title)}</a>' for key, title in names)
    data = {"plots": canvas.plots, "start": span[0], "end": span[1],
            "maps": [_map_data(m, canvas.store) for m in maps.networks if m] if maps else []}
    title = views[0].title if not several else f"{len(labels)} runs compared"
    code, name = _plotly()
    script = "\n".join(_asset(n) for n in _SCRIPTS)
    return _DOCUMENT.format(
        policy=_policy(_hash(script), name), title=_text(f"{title} - aidc-cosim"), css=_asset("page.css"), nav=nav,
        body="".join(body),
        plotly=code, data=canvas.store.pack(data), script=script)


_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{title}</title>
<style>{css}</style></head><body>
<nav aria-label="Sections"><div class="links">{nav}</div><button id="theme" type="button">Dark</button></nav>
<main><noscript><p class="warn">The pictures need JavaScript; text and tables do not.</p></noscript>
<p class="warn" id="broken" hidden></p>{body}
<footer>Made by <code>cosim report</code> from the trace alone. Nothing on this page is loaded from elsewhere.
</footer></main>
<script type="text/plain" id="plotly-gz">{plotly}</script>
<script type="text/plain" id="data-gz">{data}</script>
<script>{script}</script></body></html>
"""


def _text(words: str) -> str:
    """As text in the page, what is strong in it as strong."""
    return "".join(f"<strong>{_plain(part)}</strong>" if matters else _plain(part) for part, matters in marked(words))


def _plain(words: str) -> str:
    return html.escape(visible(unmarked(words).replace("\n", " ")), quote=True)


# --- the top ----------------------------------------------------------------------------------------------------------


def _head(labels: list[str], views: list[Overview], differences: list[tuple[str, list[str]]]) -> str:
    if len(views) == 1:
        return f'<section id="overview" class="top">{_one(views[0], "h1")}{_tables(views[0])}</section>'
    rows = [[name, *values, *deltas] for name, values, deltas in compared([v.digest.figures for v in views])]
    columns = ["", *labels, *(f"{label}, change" for label in labels[1:])]
    parts = [f'<section id="overview" class="top"><h1>{len(views)} runs compared</h1><p class="about">'
             f"{_text(' and '.join(labels))}: side by side on the same axes, changes from the first.</p>"
             f'<div class="runs n{min(len(views), 3)}">']
    parts += [f'<div class="run"><p class="tag">{_text(label)}</p>{_one(view, "h3")}<details><summary>All tables of '
              f"this run</summary>{_tables(view)}</details></div>" for label, view in zip(labels, views, strict=True)]
    parts.append('</div><div class="tables">')
    if differences:
        more = f'<p class="note">{len(differences) - 20} more settings differ.</p>' if len(differences) > 20 else ""
        shown = _table("What was set differently", ["", *labels], [[n, *v] for n, v in differences[:20]])
        parts.append(f"<div>{shown}{more}</div>")
    if rows:
        parts.append(f"<div>{_table('Figures', columns, rows)}</div>")
    return "".join([*parts, "</div></section>"])


def _one(view: Overview, tag: str) -> str:
    badge = {"completed": "good", "failed": "bad"}.get(view.ending, "cut")
    facts = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in view.facts)
    tiles = "".join(f"<div><b>{_text(value)}</b><span>{_text(words)}</span></div>" for words, value in view.tiles)
    warned = "".join(f'<p class="warn">{_text(w)}</p>' for w in view.warnings)
    return (f'<{tag}>{_text(view.title)} <span class="badge {badge}">{_text(view.ending)}</span></{tag}>'
            f'<p class="about">{_text(view.about)}</p>{warned}<div class="tiles">{tiles}</div>'
            f'<dl class="facts">{facts}</dl>'
            f"<details><summary>Versions</summary><p>{_text(view.versions)}</p></details>")


def _tables(view: Overview) -> str:
    return '<div class="tables">' + "".join(_digest_table(t) for t in view.digest.tables) + "</div>"


def _digest_table(table: Table) -> str:
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return f'<div>{_table(table.title, list(table.columns), [list(r) for r in table.rows])}{note}</div>'


def _table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(c)}</th>' for c in columns)
    head = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    lines = "".join(f'<tr><th scope="row">{_text(r[0])}</th>{"".join(f"<td>{_text(c)}</td>" for c in r[1:])}</tr>'
                    for r in rows)
    return f'<div class="scroll"><table><caption>{_text(title)}</caption>{head}<tbody>{lines}</tbody></table></div>'


# --- pictures ---------------------------------------------------------------------------------------------------------


def _row(pictures: list[Picture], labels: list[str], canvas: _Canvas) -> str:
    """One picture of each run: alone, or side by side under how they differ."""
    limits = ranges(pictures)
    if len(pictures) == 1:
        return _figure(pictures[0], limits, canvas, pictures[0].columns)
    inner = "".join(f'<div class="run"><p class="tag">{_text(label)}</p>{_figure(p, limits, canvas, False)}</div>'
                    for label, p in zip(labels, pictures, strict=True))
    return f'{_changes(pictures, labels)}<div class="runs n{min(len(pictures), 3)}">{inner}</div>'


def _changes(pictures: list[Picture], labels: list[str]) -> str:
    rows = []
    for fact in pictures[0].facts:
        found = [next((f.value for f in p.facts if f.name == fact.name), None) for p in pictures]
        values = [value for value in found if value is not None]
        if len(values) == len(found):
            rows.append([fact.name, *(quantity(v, fact.unit, 4) for v in values),
                         *(change(values[0], v, fact.unit) for v in values[1:])])
    columns = ["", *labels, *(f"{label}, change" for label in labels[1:])]
    return _table("Side by side", columns, rows) if rows else ""


def _figure(picture: Picture, limits: dict, canvas: _Canvas, columns: bool) -> str:
    if picture.missing:
        return f'<figure class="pic missing"><p>{_text(picture.says)}</p></figure>'
    panels = "".join(_panel(p, picture, limits, canvas) for p in picture.panels)
    note = f"<figcaption>{_text(picture.note)}</figcaption>" if picture.note else ""
    return (f'<figure class="pic" data-key="{picture.key}"><p class="say">{_text(picture.says)}</p>'
            f'<div class="panels{f" columns n{len(picture.panels)}" if columns else ""}">{panels}</div>{note}</figure>')


def _panel(panel: Panel, picture: Picture, limits: dict, canvas: _Canvas) -> str:
    number = len(canvas.plots)
    canvas.plots.append(_panel_data(panel, limits, canvas.store))
    unit = f"<span>{_text(panel.unit)}</span>" if panel.unit else ""
    swatch = panel.series[-1 if panel.series[-1].area else 0].colour.partition("/")[0] if panel.series else ""
    dot = f'<i style="background:var(--{swatch})"></i>' if panel.title and picture.columns and "site" in swatch and len(
        {s.colour.partition("/")[0] for s in panel.series} - {"ink", "muted"}) == 1 else ""
    listed = _event_list(panel, canvas.shown_in) if panel.kind == "events" else ""
    return (f'<div class="panel"><h4>{dot}{_text(panel.title)}{unit}</h4>'
            f'<div class="plot" id="plot{number}" role="img" '
            f'aria-label="{_plain(panel.title)}: {_plain(picture.says)}" style="height:{panel.size * _PANEL_PX:.0f}px">'
            f"</div>{listed}</div>")


def _event_list(panel: Panel, shown_in: str) -> str:
    rows = "".join(f'<li><button type="button" data-t="{e.time_s:.12g}"><time>{at(e.time_s)}</time> '
                   f"<b>{_text(e.where)}</b> {_text(e.text)}</button></li>" for e in panel.events)
    hint = f'<p class="note">Choose one to see {_text(shown_in)} at its time.</p>'
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
            "area": s.area, "mark": s.mark, "label": s.label, "joined": s.joined}


def _heat_data(h: Heat, store: ColumnStore) -> dict[str, Any]:
    return {"x": store.put(np.r_[h.x_s, h.end_s], "f8"), "rows": list(h.rows), "z": store.put(h.z), "n": h.z.shape[1],
            "unit": h.unit, "scale": h.scale, "x_says": h.x_says, "y_says": h.y_says,
            "y": None if h.y_s is None else store.put(np.r_[h.y_s, h.end_s], "f8")}


# --- the map ----------------------------------------------------------------------------------------------------------


def _map_section(labels: list[str], maps: Maps, canvas: _Canvas) -> str:
    several, out, drawn = len(labels) > 1, [], 0
    for label, picture, one in zip(labels, maps.pictures, maps.networks, strict=True):
        tag = f'<p class="tag">{_text(label)}</p>' if several else ""
        if one is None:
            out.append(f'<div class="run">{tag}<figure class="pic missing"><p>{_text(picture.says)}</p></figure></div>')
            continue
        out.append(f'<div class="run">{tag}<figure class="pic"><p class="say">{_text(picture.says)}</p>'
                   f'<p class="readout" id="readout{drawn}" aria-live="off"></p><div class="map" id="map{drawn}"></div>'
                   f"<figcaption>{_text(picture.note)}</figcaption></figure></div>")
        drawn += 1
    control = _CONTROL if drawn else ""
    rest = _row(maps.substitutes, labels, canvas) if maps.substitutes else ""
    return (f'<section id="map"><h2>{_text(maps.title)}</h2>{control}'
            f'<div class="runs n{min(len(labels), 3)}">{"".join(out)}</div>{rest}</section>')


_CONTROL = """<div class="control"><button id="play" type="button" aria-label="Play">&#9654;</button>
<input id="time" type="range" min="0" max="0" value="0" step="1" aria-label="Time of the run">
<output id="clock"></output>
<div id="modes" role="tablist" aria-label="Colour of the nodes"></div><div id="scale"></div></div>"""


def _map_data(m: Network, store: ColumnStore) -> dict[str, Any]:
    return {"time_s": store.put(m.time_s, "f8"), "flow": store.put(m.flow_kw),
            "nodes": [{"name": name, "x": x, "y": y} for name, x, y in m.nodes],
            "lines": [list(ends) for ends in m.lines],
            "levels": [{"key": v.key, "title": v.title, "short": v.short, "unit": v.unit, "digits": v.digits,
                        "values": store.put(v.values)} for v in m.levels],
            "marks": [{"name": s.name, "node": s.node, "colour": s.colour, "shape": s.shape,
                       "kw": store.put(s.power_kw)} for s in m.marks],
            "readouts": [{"words": r.words, "unit": r.unit, "values": store.put(r.values)} for r in m.readouts]}
