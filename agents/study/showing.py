"""What tables and figures of a study share: what one is, how numbers are shown, and what draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from cosim.agents.study.data import Results
from cosim.agents.study.plan import Case, cases
from cosim.agents.study.statistics import SeedSpread
from cosim.digest import Table
from cosim.imports import optional

Columns = dict[str, list[Any]]
Draw = Callable[[Path, Sequence[str]], Path]
HUES = {"team": 0, "stand-in": 1, "rule": 6, "bound": 2}


@dataclass
class Exhibit:
    """One table or figure. numbers: of its CSV; shown: tables for people; pictures: name -> what draws it."""

    part: str
    title: str
    numbers: Columns = field(default_factory=dict)
    shown: list[Table] = field(default_factory=list)
    pictures: dict[str, Draw] = field(default_factory=dict)


def number(value: float, digits: int) -> str:
    """A number as it is shown; '-' where there is none."""
    return "-" if not math.isfinite(value) else f"{value:,.{digits}f}"


def cell(over: SeedSpread, digits: int) -> str:
    """An interquartile mean with the ends of its interval."""
    if not math.isfinite(over.iqm):
        return "-"
    if not math.isfinite(over.low):
        return number(over.iqm, digits)
    return f"{number(over.iqm, digits)} [{number(over.low, digits)}, {number(over.high, digits)}]"


def panels_of() -> ModuleType:
    """What draws; ScenarioError without matplotlib."""
    with optional("a picture", "plot"):
        from cosim.reporting import panels
    return panels


NOTE = ("interquartile mean over {n} seeds [95 % bootstrap interval]; each run: a day after a day of warm-up, same "
        "arrivals")


def ran_of(part: str, results: Results) -> list[Case]:
    """Cases of a part that have been run, each once."""
    return [case for case in dict.fromkeys(cases(part, results.tier)) if results.of(case)]
