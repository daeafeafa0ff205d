"""Summary of a run: small tables, warnings and figures, made by a scenario's hooks, shown by the CLI."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Table:
    """A titled table of text cells; the first column is left-aligned, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
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
        tables = [Table(t["title"], tuple(t["columns"]), [tuple(row) for row in t["rows"]], t["note"])
                  for t in data["tables"]]
        return cls(tables, list(data["warnings"]), dict(data["figures"]), list(data["broken"]))
