"""The top of the page: what ran, how it ended and its figures; of several runs, what differs and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosim.digest import Table
from cosim.reporting.comparison import MOST_APART, Board, SeedGroup, board, each_run, titled
from cosim.reporting.definition import Headline
from cosim.reporting.markup import Terms, table, text
from cosim.reporting.overview import Overview
from cosim.units import split_unit

_MOST_FIELDS = 12
_MOST_ROWS = 8
_MOST_BESIDE = 6
"""Up to so many groups, all figures stand side by side."""


@dataclass(frozen=True)
class Compared:
    """What several runs are: their groups, and the settings that are not equal, (field, value in each run)."""

    groups: list[SeedGroup]
    differences: list[tuple[str, list[str]]]


def head(labels: Sequence[str], views: Sequence[Overview], compared: Compared | None, terms: Terms) -> str:
    """The first section of the page, of one run or of several."""
    if compared is None:
        view = views[0]
        return f'<section id="overview" class="top">{_one(view, "h1", terms)}{_tables(view, terms)}</section>'
    groups = compared.groups
    of_runs = [view.headline for view in views]
    first = groups[0].label if len(groups) > 1 else ""
    shown = board(of_runs, groups)
    parts = [f'<section id="overview" class="top"><h1>{len(views)} runs compared</h1>'
             f'<p class="about">{text(titled(groups))}</p>', _warnings(labels, views),
             '<div class="stack">', _board("Headline figures" + (f", change from {first}" if first else ""), shown)]
    parts.append(terms.explained(*shown.columns))
    if any(len(g.runs) > 1 for g in groups):
        parts.append('<p class="note">\u00b1: half of the 95 % t interval of the mean over seeds; of a change, of the '
                     "differences seed by seed.</p>")
    parts.append(_settings(compared))
    if len(groups) < len(views):
        is_open = " open" if len(groups) == 1 else ""
        parts.append(f"<details{is_open}><summary>Every run</summary>"
                     f"{_board('Headline figures of every run', each_run(of_runs, labels))}</details>")
    parts.append(_every_figure(views, groups))
    if len(views) <= MOST_APART:
        parts += [f"<details><summary>{text(label)}: all its tables</summary>"
                  f'{_one(view, "h3", terms)}{_tables(view, terms)}</details>'
                  for label, view in zip(labels, views, strict=True)]
    return "".join([*parts, "</div></section>"])


def facts_board(of_runs: Sequence[Sequence[Headline]], groups: Sequence[SeedGroup]) -> str:
    """A table of what pictures are compared by, folded away where it is long; '' where there is nothing."""
    made = board(of_runs, groups)
    if len(made.columns) == 1:
        return ""
    return _folded("Side by side", _board("Side by side", made), len(groups))


def _board(title: str, made: Board) -> str:
    return table(title, made.columns, made.rows, made.changes)


def _one(view: Overview, tag: str, terms: Terms) -> str:
    badge = {"completed": "good", "failed": "bad"}.get(view.ending, "cut")
    facts = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in view.facts)
    tiles = "".join(f"<div><b>{text(value)}</b><span>{text(words)}</span></div>" for words, value in view.tiles)
    warned = "".join(f'<p class="warn">{text(w)}</p>' for w in view.warnings)
    said = terms.explained(*(words for words, _ in view.tiles), *(value for _, value in view.tiles))
    return (f'<{tag}>{text(view.title)} <span class="badge {badge}">{text(view.ending)}</span></{tag}>'
            f'<p class="about">{text(view.about)}</p>{warned}<div class="tiles">{tiles}</div>{said}'
            f'<dl class="facts">{facts}</dl>'
            f"<details><summary>Versions</summary><p>{text(view.versions)}</p></details>")


def _tables(view: Overview, terms: Terms) -> str:
    return '<div class="tables">' + "".join(_digest_table(t, terms) for t in view.digest.tables) + "</div>"


def _digest_table(one: Table, terms: Terms) -> str:
    note = f'<p class="note">{text(one.note)}</p>' if one.note else ""
    said = terms.explained(one.title, *one.columns, *(cell for row in one.rows for cell in row[:1]), one.note)
    return f"<div>{table(one.title, one.columns, one.rows)}{note}{said}</div>"


def _warnings(labels: Sequence[str], views: Sequence[Overview]) -> str:
    """Each warning once, with the runs that it is of."""
    of: dict[str, list[str]] = {}
    for label, view in zip(labels, views, strict=True):
        for warning in view.warnings:
            of.setdefault(warning, []).append(label)
    return "".join(f'<p class="warn">{text(_of_whom(whom, len(views)))}: {text(warning)}</p>'
                   for warning, whom in of.items())


def _of_whom(whom: Sequence[str], runs: int) -> str:
    if len(whom) == runs:
        return "All runs"
    return ", ".join(whom) if len(whom) <= MOST_APART else f"{', '.join(whom[:2])} and {len(whom) - 2} more runs"


def _settings(compared: Compared) -> str:
    """What was set differently, a row per group."""
    firsts = [g.runs[0] for g in compared.groups]
    fields = [(name, values) for name, values in compared.differences
              if name not in ("name", "about") and any(values[k] != values[firsts[0]] for k in firsts)]
    if not fields:
        return ""
    more = f'<p class="note">{len(fields) - _MOST_FIELDS} more settings differ.</p>' if len(
        fields) > _MOST_FIELDS else ""
    rows = [[g.label, *(values[g.runs[0]] for _, values in fields[:_MOST_FIELDS])] for g in compared.groups]
    heads = ["", *(name for name, _ in fields[:_MOST_FIELDS])]
    return _folded("What was set differently", f"<div>{table('What was set differently', heads, rows)}{more}</div>",
                   len(rows))


def _folded(title: str, shown: str, rows: int) -> str:
    """A part of the page as it is, or folded away under its title where it is long."""
    return shown if rows <= _MOST_ROWS else f"<details><summary>{title}</summary>{shown}</details>"


def _every_figure(views: Sequence[Overview], groups: Sequence[SeedGroup]) -> str:
    """All figures of the summaries, a row each, of a few groups."""
    named = dict.fromkeys(name for view in views for name in view.digest.figures)
    if len(groups) > _MOST_BESIDE or not named:
        return ""
    made = [[Headline(name, view.digest.figures[name], split_unit(name)[1].symbol) for name in named
             if name in view.digest.figures] for view in views]
    turned = board(made, groups)
    rows = [list(column) for column in zip(*([turned.columns[1:]] + [row[1:] for row in turned.rows]), strict=True)]
    changes = [list(column) for column in zip(*turned.changes, strict=True)]
    heads = ["", *(row[0] for row in turned.rows)]
    return (f"<details><summary>All figures</summary>{table('All figures of the summaries', heads, rows, changes)}"
            "</details>")
