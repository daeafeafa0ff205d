"""A folder of results: its traces with their headline figures, as a table for the terminal and as a page that leads to
the page of each."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cosim.digest import Digest, Table
from cosim.errors import CosimError, ScenarioError
from cosim.reporting.comparison import Board, each_run
from cosim.reporting.definition import Headline, report_named
from cosim.reporting.general import GENERAL
from cosim.reporting.markup import table, text
from cosim.reporting.overview import labels
from cosim.trace import Trace
from cosim.trace.series import scenario_of
from cosim.trust import received_hook

INDEX = "index.html"


@dataclass(frozen=True)
class Entry:
    """A trace of a folder: `ended` is its status, or that it cannot be read."""

    path: Path
    name: str
    seed: str
    created: str
    ended: str
    headline: list[Headline]
    scenario: dict[str, Any]


def traces_in(folder: Path) -> list[Path]:
    """The traces below a folder, by path. ScenarioError where there is none."""
    paths = sorted(path for path in folder.rglob("*.h5") if path.is_file())
    if not paths:
        raise ScenarioError(f"{folder} holds no trace (.h5); name a folder of results, or traces")
    return paths


def entries(paths: list[Path], trusted: Collection[str | Path] = (),
            progress: Callable[[float], None] = lambda done: None) -> list[Entry]:
    """What a list shows of some traces."""
    out = []
    for done, path in enumerate(paths):
        progress(done)
        out.append(_entry(path, trusted))
    return out


def _entry(path: Path, trusted: Collection[str | Path]) -> Entry:
    try:
        with Trace(path) as trace:
            attrs, scenario = trace.attrs, scenario_of(trace)
            digest = Digest.from_json(str(attrs["summary"])) if "summary" in attrs else Digest()
            try:
                hook = received_hook(path, scenario, "report", trusted)
                report = report_named(hook) if hook else GENERAL
            except CosimError:  # its own report is not needed for a list
                report = GENERAL
            ended = {"running": "cut off"}.get(str(attrs.get("status")), str(attrs.get("status")))
            created = str(attrs.get("created", ""))[:16].replace("T", " ")
            return Entry(path, str(attrs.get("name", "")), str(attrs.get("seed", "")), created, ended,
                         report.headline(digest.figures), scenario)
    except (CosimError, ValueError, KeyError, TypeError):
        return Entry(path, "", "", "", "cannot be read", [], {})


def listed(found: list[Entry], folder: Path) -> Table:
    """The entries as a table for the terminal, numbered from 1."""
    made = _figures(found)
    rows = [(f"{k} {e.path.relative_to(folder)}", *row)
            for k, (e, row) in enumerate(zip(found, made.rows, strict=True), 1)]
    return Table(f"Runs in {folder}", ("trace", "what", *made.columns[1:]), rows)


def index_page(found: list[Entry], folder: Path) -> str:
    """The entries as a page; a trace with a page beside it leads there."""
    made = _figures(found)
    rows = [[f"{k}  {e.path.relative_to(folder)}", row[0], e.seed, e.created, e.ended, *row[1:]]
            for k, (e, row) in enumerate(zip(found, made.rows, strict=True), 1)]
    shown = table("Runs", ["trace", "what", "seed", "created, UTC", "ended", *made.columns[1:]], rows)
    for k, entry in enumerate(found, 1):
        page = entry.path.with_suffix(".html")
        label = text(f"{k}  {entry.path.relative_to(folder)}")
        if page.is_file():
            to = html.escape(quote(os.path.relpath(page, folder)), quote=True)
            shown = shown.replace(f"<span>{label}</span>", f'<span><a href="{to}">{label}</a></span>', 1)
    css = files("cosim.reporting").joinpath("page.css").read_text(encoding="utf-8").replace(
        "@media screen{:root[data-theme=dark]{", "@media screen and (prefers-color-scheme:dark){:root{")
    return _DOCUMENT.format(css=css, title=text(f"{len(found)} runs in {folder.resolve().name}"), table=shown,
                            folder=text(str(folder)))


def _figures(found: list[Entry]) -> Board:
    """Headline figures, each run called by what sets it apart; how it ended, where that is not well."""
    read = [e for e in found if e.scenario]
    named = dict(zip(map(id, read), labels([e.scenario for e in read], [e.path.stem for e in read]), strict=True))
    well = ("completed", "")
    return each_run([e.headline for e in found], [", ".join(filter(None, (
        named.get(id(e), ""), "" if e.ended in well else e.ended))) for e in found])


_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{title}</title>
<style>{css}</style></head><body><main><section class="top"><h1>{title}</h1>
<p class="about">A trace with a page leads to it. <code>cosim report {folder} --pick 1</code> makes the page of the
first, <code>--pick 1,2</code> compares two.</p><div class="stack">{table}</div></section></main></body></html>
"""
