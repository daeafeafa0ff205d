"""The page of a study: one file of HTML with its pictures inside, which loads nothing and runs no script."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from cosim.digest import Table
from cosim.plaintext import visible

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_WIDTH, _NARROW_PT = re.compile(r'<svg[^>]* width="([\d.]+)pt"'), 400.0
"""Of a picture; one that is narrower fills a column, not the page."""


@dataclass
class WorldVerdict:
    """A verdict as it is shown: on whom and where, the verdict, and what it rests on, a sentence each."""

    where: str
    verdict: str
    about: Sequence[str] = ()


@dataclass
class Statement:
    """A claim beside what was found. printed: what the paper prints for it."""

    about: str
    printed: str
    findings: list[WorldVerdict]


@dataclass
class Chapter:
    """A part of the page. pictures: (file of SVG, what it shows); files: relative to the page."""

    key: str
    title: str
    about: str = ""
    statements: list[Statement] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def page(title: str, about: Sequence[str], warnings: Sequence[str], counts: Sequence[tuple[str, int, str]],
         chapters: Sequence[Chapter], footer: str) -> str:
    """The document. counts: (verdict, how many, what it means), shown at the top."""
    nav = "".join(f'<a href="#{chapter.key}">{_text(chapter.title.partition(":")[0])}</a>' for chapter in chapters)
    tally = "".join(f'<li><b class="{_kind(verdict)}">{number}</b>{_text(verdict)}</li>'
                    for verdict, number, _ in counts)
    meaning = "".join(f"<p class=note><strong>{_text(verdict)}</strong>: {_text(what)}.</p>"
                      for verdict, _, what in counts)
    head = "".join(f'<p class="about">{_text(line)}</p>' for line in about)
    said = "".join(f'<p class="warn">{_text(line)}</p>' for line in warnings)
    css = files("cosim.agents.study").joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(map(_chapter, chapters))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
            f'content="light dark"><link rel="icon" href="data:,"><title>{_text(title)}</title><style>{css}</style>'
            '</head>\n'
            f'<body><nav aria-label="Parts">{nav}</nav>\n<main><h1>{_text(title)}</h1>{head}{said}'
            f'<ul class="counts">{tally}</ul>{meaning}\n{body}<footer>{_text(footer)}</footer></main></body></html>\n')


def _chapter(chapter: Chapter) -> str:
    about = f'<p class="about">{_text(chapter.about)}</p>' if chapter.about else ""
    claims = "".join(map(_statement, chapter.statements))
    claims = f'<ul class="claims">{claims}</ul>' if claims else ""
    figures = "".join(_figure(path, says) for path, says in chapter.pictures)
    linked = ", ".join(f'<a href="{_text(name)}">{_text(name)}</a>' for name in chapter.files)
    linked = f'<p class="files">Files: {linked}</p>' if linked else ""
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in chapter.notes)
    return (f'<section id="{chapter.key}"><h2>{_text(chapter.title)}</h2>{about}{notes}{claims}{figures}'
            f'{"".join(map(_sheet, chapter.tables))}{linked}</section>\n')


def _statement(statement: Statement) -> str:
    printed = f'<p class="printed">Printed: {_text(statement.printed)}</p>' if statement.printed else ""
    rows = "".join(
        f'<dt>{_text(found.where)}</dt><dd><span class="chip {_kind(found.verdict)}">{_text(found.verdict)}</span>'
        f'{"".join(f"<span class=parts>{_text(line)}</span>" for line in found.about)}</dd>'
        for found in statement.findings)
    return f'<li><p class="says">{_text(statement.about)}</p>{printed}<dl class="judged">{rows}</dl></li>'


def _sheet(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in table.columns)
    rows = "".join(f'<tr><th scope="row">{_text(row[0])}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in table.rows)
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (f'<div class="sheet"><p class="title">{_text(table.title)}</p><div class="scroll" tabindex="0" '
            f'role="region" aria-label="{_text(table.title)}"><table><thead><tr>{head}</tr></thead><tbody>{rows}'
            f'</tbody></table></div>'
            f'{note}</div>')


def _cell(text: str) -> str:
    word = ' class="text"' if text[:1].isalpha() else ""
    return f"<td{word}>{_text(text)}</td>"


def _figure(path: Path, says: str) -> str:
    text = path.read_text(encoding="utf-8")
    width = _WIDTH.search(text)
    narrow = ' class="narrow"' if width and float(width[1]) < _NARROW_PT else ""
    data = base64.b64encode(text.encode()).decode()
    return f'<figure{narrow}><img alt="{_text(says)}" src="data:image/svg+xml;base64,{data}"></figure>'


def _kind(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _text(words: str) -> str:
    return html.escape(visible(words.replace("\n", " ")), quote=True)


def counted(verdicts: Iterable[str], meanings: dict[str, str]) -> list[tuple[str, int, str]]:
    """How often each verdict was given, in the order of `meanings`, without those that were not."""
    given = list(verdicts)
    return [(name, given.count(name), what) for name, what in meanings.items() if name in given]
