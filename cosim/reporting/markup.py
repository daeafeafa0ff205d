"""Pieces of HTML that all parts of the page share: text that stays text, tables that a phone can scroll, and terms that
are explained where they first stand."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from cosim.plaintext import kept_together, visible
from cosim.reporting.text import marked, power_of_ten, unmarked

_POWER = re.compile(r"(?<![\w.])([-\u2212]?\d+(?:\.\d+)?)e([+-]?\d{2,3})(?!\w)")
_MORE = "Scroll the table sideways for all its columns \u2192"


def text(words: str) -> str:
    """As text in the page, what is strong in it as strong."""
    return "".join(f"<strong>{plain(part)}</strong>" if matters else plain(part) for part, matters in marked(words))


def plain(words: str) -> str:
    """As text in the page, or in an attribute."""
    return html.escape(visible(unmarked(words).replace("\n", " ")), quote=True)


def cell(words: str) -> str:
    """As text in a table: a number is never apart from its unit, and has no hyphen at which a line may end."""
    return text(kept_together(_POWER.sub(lambda m: power_of_ten(m[1], int(m[2])), words)))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], changes: Sequence[Sequence[str]] = ()
          ) -> str:
    """A table whose first column stays in view while the others scroll.

    columns: heads, all '' for a table of pairs. changes: per row, below each cell after the first, in small print; ''
    for none.
    """
    head = "".join(f'<th scope="col"><span>{cell(c)}</span></th>' for c in columns)
    head = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    lines = []
    for k, (first, *rest) in enumerate(rows):
        small = changes[k] if changes else [""] * len(rest)
        cells = "".join(f"<td>{cell(c)}{f'<small>{cell(s)}</small>' if s else ''}</td>"
                        for c, s in zip(rest, small, strict=True))
        lines.append(f'<tr><th scope="row"><span>{cell(first)}</span></th>{cells}</tr>')
    pairs = "" if head else ' class="pairs"'
    return (f'<div class="sheet"><p class="title">{text(title)}</p><p class="more">{_MORE}</p>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{plain(title)}"><table{pairs}>{head}'
            f'<tbody>{"".join(lines)}</tbody></table></div></div>')


class Terms:
    """Words of the field with what they mean, each explained once: below what it first stands in."""

    def __init__(self, terms: Iterable[tuple[str, str]]) -> None:
        """terms: (word, meaning), in the order in which they are explained."""
        self._left = {word: (re.compile(rf"(?<![\w-]){re.escape(word)}(?!\w)"), means) for word, means in terms}

    def explained(self, *words: str) -> str:
        """A paragraph on the terms that stand in some texts and have not been explained before; '' for none."""
        shown = "\n".join(map(unmarked, words))
        found = [word for word, (pattern, _) in self._left.items() if pattern.search(shown)]
        said = "; ".join(f"<b>{plain(word)}</b>: {plain(self._left.pop(word)[1])}" for word in found)
        return f'<p class="note terms">{said}.</p>' if said else ""
