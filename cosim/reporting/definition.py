"""What a scenario's `report` names: which sections and maps its page has, and what its live view shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.reporting.chart import Maps, Section
from cosim.reporting.data import Run
from cosim.scenario_hooks import hook_of
from cosim.units import split_unit

_MOST_HEADLINES = 12


@dataclass(frozen=True)
class LiveColumn:
    """A column of the live view: a port's latest value of each entity, the sum of its labels where it has several.

    spec      how a number is written, as in format(): '.1f'
    unit      written after it
    scale, offset  what is shown is offset + scale x value
    absent    shown of an entity without the port
    received  the value is what the run's wiring sends to an entity of this name, from any source
    since_start  values are added up from the start of the run on
    total     the column has a sum over the entities
    alarm     anything but 0 is marked
    """

    title: str
    port: str
    spec: str = ".0f"
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    absent: float = math.nan
    received: bool = False
    since_start: bool = False
    total: bool = False
    alarm: bool = False


@dataclass(frozen=True)
class LiveTable:
    """The entities of a member in the live view, a row each: those that give the port `needs`. No two tables are of one
    member, no two columns of one port.

    line  what the columns show of one entity as plain text, ports in braces: '{heat_kw:.0f} kW, {level_kwh:.1f} kWh'
    """

    member: str
    title: str
    needs: str
    columns: tuple[LiveColumn, ...]
    line: str

    def __post_init__(self) -> None:
        ports = [c.port for c in self.columns]
        if len(set(ports)) < len(ports):
            raise ScenarioError(f"two columns of the live table of {self.member} are of one port ({', '.join(ports)})")


@dataclass(frozen=True)
class Headline:
    """A figure that runs are compared by first: what it is in words, its value and its unit."""

    words: str
    value: float
    unit: str = ""


def _every(figures: Mapping[str, float]) -> list[Headline]:
    """The first figures of a summary."""
    named = [(name, value, split_unit(name)) for name, value in figures.items()]
    return [Headline(words.replace("_", " "), value, "" if unit.symbol == "1" else unit.symbol)
            for _, value, (words, unit) in named[:_MOST_HEADLINES]]


@dataclass(frozen=True)
class Report:
    """What a page and the live view show of the runs of a scenario.

    sections  the pictures under their headings, of one run or of several side by side
    maps      the network that the page begins with; None: there is none
    reads     how a trace is read: `Run`, or a class derived from it
    tiles     the figures of a run's summary that stand at its top, (words, value with unit)
    headline  the figures of a run's summary by which runs are compared first, in order; by default the first dozen
    terms     (word, meaning) of the field's terms: each is explained below what it first stands in
    facts     (words, member, parameter) of what is shown of a run beside its seed and length
    made      parts of notes on how a run was made; a note with none of them is a warning
    live      tables of the live view
    """

    sections: Callable[[list[Any]], list[Section]]
    maps: Callable[[list[Any]], Maps] | None = None
    reads: type[Run] = Run
    tiles: Callable[[Mapping[str, float]], list[tuple[str, str]]] = lambda figures: []
    headline: Callable[[Mapping[str, float]], list[Headline]] = _every
    terms: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()
    made: tuple[str, ...] = ()
    live: tuple[LiveTable, ...] = ()

    def __post_init__(self) -> None:
        members = [table.member for table in self.live]
        if len(set(members)) < len(members):
            raise ScenarioError(f"two live tables are of one member ({', '.join(members)}); give one all columns")


def live_tables(scenario: Mapping[str, Any]) -> tuple[LiveTable, ...]:
    """The tables of the live view of a scenario (as data); () where it names no report. Raises ScenarioError."""
    hook = hook_of(scenario, "report")
    return report_named(hook).live if hook else ()


def report_named(text: str) -> Report:
    """The report at an import string. Raises ScenarioError for one that is not there, or is no `Report`."""
    found = load(text, "report")
    if not isinstance(found, Report):
        raise ScenarioError(f"report '{text}' is a {type(found).__name__}; name a cosim.reporting.definition.Report")
    return found
