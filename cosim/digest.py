"""Summary of a run: small tables, warnings and figures, made by a scenario's hooks, shown by the CLI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Table:
    """A titled table of text cells; the first column is left-aligned, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass
class Digest:
    """Tables for people, warnings (one sentence each), figures by name with units in their names, and laws that a
    trace breaks."""

    tables: list[Table] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """As JSON text; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Digest:
        """A digest from `to_json`. Raises ValueError, KeyError, TypeError for other text."""
        data = json.loads(text)
        tables = [Table(_text(t["title"]), tuple(_texts(t["columns"])), [tuple(_texts(row)) for row in t["rows"]],
                        _text(t["note"])) for t in data["tables"]]
        for table in tables:
            if any(len(row) != len(table.columns) for row in table.rows):
                raise ValueError("a table whose rows are not as long as its head")
        figures = {name: _number(value) for name, value in dict(data["figures"]).items()}
        return cls(tables, _texts(data["warnings"]), figures, _texts(data["broken"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of a text")
    value.encode()  # ValueError for half of a surrogate pair
    return value


def _texts(values: object) -> list[str]:
    if not isinstance(values, list):
        raise TypeError(f"{type(values).__name__} in the place of a list")
    return [_text(value) for value in values]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} in the place of a number")
    return float(value)
