"""What a run says about itself: small tables, warnings and figures, made by a scenario's hooks, shown by the CLI."""

from __future__ import annotations

from dataclasses import dataclass, field


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
