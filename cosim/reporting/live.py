"""The live view of a run: progress and speed, the tables that its scenario's report names, and ranges of all else.

It takes every record (`Control.on_record`) and draws a few times a second. Without a terminal it prints a line now and
then instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cosim.clock import Clock
from cosim.console import say
from cosim.drivers.instrument import Control
from cosim.drivers.plan import Plan
from cosim.plaintext import visible
from cosim.reporting.definition import LiveColumn, LiveTable

REDRAW_S = 0.5
"""Wall-clock seconds between two pictures of the terminal."""
LINE_S = 5.0
"""Wall-clock seconds between two plain lines."""
_MOST_RANGES, _BAR = 6, 60

Outputs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class LiveRow:
    """An entity of a table as it stands: port -> what its column shows, NaN for what is not known."""

    name: str
    values: dict[str, float]


@dataclass
class LiveBoard:
    """The latest outputs of every member and the lines shown of them. `update` is called after every step."""

    tables: tuple[LiveTable, ...] = ()
    latest: dict[str, Outputs] = field(default_factory=dict)
    summed: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """(member, entity, port) -> sum since the start, of the columns that are sums."""

    def __post_init__(self) -> None:
        self._counted = {table.member: tuple(c.port for c in table.columns if c.since_start) for table in self.tables}

    def update(self, member: str, data: Outputs) -> None:
        """Keep a member's outputs; add up what its tables show since the start."""
        self.latest[member] = data
        for port in self._counted.get(member, ()):
            for eid, ports in data.items():
                key = (member, eid, port)
                self.summed[key] = self.summed.get(key, 0.0) + _total(ports.get(port, 0.0))

    def rows(self, table: LiveTable, plan: Plan | None) -> list[LiveRow]:
        """The entities that give what the table needs; [] without any."""
        return [LiveRow(eid, {c.port: c.offset + c.scale * self._value(table.member, eid, c, plan)
                              for c in table.columns})
                for eid, ports in self.latest.get(table.member, {}).items() if table.needs in ports]

    def _value(self, member: str, eid: str, column: LiveColumn, plan: Plan | None) -> float:
        if column.since_start:
            return self.summed.get((member, eid, column.port), column.absent)
        if column.received:
            return self._received(plan, eid, column.port)
        ports = self.latest[member][eid]
        return _total(ports[column.port]) if column.port in ports else column.absent

    def _received(self, plan: Plan | None, eid: str, port: str) -> float:
        """What the run's wiring sends to a port of an entity of this name; NaN where nothing does."""
        for c in plan.connections if plan else ():
            if c.target[1:] == (eid, port):
                member, source, given = c.source
                value = self.latest.get(member, {}).get(source, {}).get(given)
                return math.nan if value is None else _total(value)
        return math.nan

    def others(self) -> list[tuple[str, list[tuple[str, float, float, int]]]]:
        """(member, [(port, lowest, highest, entities)]) of the scalar outputs of members that are in no table."""
        out = []
        shown = {table.member for table in self.tables if self.rows(table, None)}
        for member, data in self.latest.items():
            if member in shown:
                continue
            values: dict[str, list[float]] = {}
            for ports in data.values():
                for port, value in ports.items():
                    if isinstance(value, (int, float)) and math.isfinite(value):
                        values.setdefault(port, []).append(float(value))
            ranges = [(port, min(v), max(v), len(v)) for port, v in values.items()]
            if ranges:
                out.append((member, ranges))
        return out


def _total(value: Any) -> float:
    """A scalar, or the sum of a vector."""
    return sum(value) if type(value) is list else float(value)


@dataclass
class RunSpeed:
    """How far a run is and how fast: bus steps and wall-clock seconds since its first step."""

    clock: Clock
    until: int
    time: int = 0
    began: float = 0.0

    def tick(self, time: int) -> None:
        """A bus step begins."""
        if not self.began:
            self.began = perf_counter()
        self.time = time

    def speed(self) -> float:
        """Simulated seconds per wall-clock second."""
        wall = perf_counter() - self.began if self.began else 0.0
        return self.clock.seconds(self.time) / wall if wall > 0 else 0.0

    def left_s(self) -> float:
        """Wall-clock seconds to the end at this speed; NaN at the start."""
        speed = self.speed()
        return self.clock.seconds(self.until - self.time) / speed if speed else math.nan

    def words(self) -> str:
        """'06:45 of 24:00 (28 %), 5 200 x real time, 12 s left'"""
        share = 100 * self.time // max(self.until, 1)
        speed = self.speed()
        pace = f", {f'{speed:,.0f}'.replace(',', ' ')} x real time, {self.left_s():.0f} s left" if speed else ""
        return f"{self.clock.label(self.time)} of {self.clock.label(self.until)} ({share} %){pace}"


# --- pictures and lines -----------------------------------------------------------------------------------------------


def picture(name: str, board: LiveBoard, plan: Plan | None, pace: RunSpeed) -> Group:
    """What the terminal shows."""
    head = Text.assemble((visible(name), "bold"), "  ", pace.words())
    done = _BAR * pace.time // max(pace.until, 1)
    parts: list[Any] = [head, Text.assemble(("━" * done, "green"), ("─" * (_BAR - done), "dim"))]
    for table in board.tables:
        if rows := board.rows(table, plan):
            parts.append(_drawn(table, rows))
    parts += [Text(visible(line), overflow="ellipsis", no_wrap=True, style="dim") for line in other_lines(board)]
    return Group(*parts)


def _drawn(table: LiveTable, rows: list[LiveRow]) -> Table:
    out = Table(box=None, pad_edge=False, header_style="dim")
    out.add_column(table.title, justify="left")
    for column in table.columns:
        out.add_column(column.title, justify="right")
    for row in rows:
        out.add_row(Text(visible(row.name)), *(
            Text(_written(c, row.values[c.port]), style="red" if c.alarm and row.values[c.port] else "")
            for c in table.columns))
    if len(rows) > 1:
        out.add_row("all", *(_written(c, sum(row.values[c.port] for row in rows)) if c.total else ""
                             for c in table.columns))
    return out


def _written(column: LiveColumn, value: float) -> str:
    return f"{_Figure(value):{column.spec}}" + (column.unit if math.isfinite(value) else "")


class _Figure(float):
    """A number that is written in words where it is none."""

    def __format__(self, spec: str) -> str:
        return super().__format__(spec) if math.isfinite(self) else "not known"


def other_lines(board: LiveBoard) -> list[str]:
    """A line per further member: its outputs, as ranges where several entities have them."""
    out = []
    for member, ranges in board.others():
        parts = [f"{port} {low:.4g}" if low == high else f"{port} {low:.4g} to {high:.4g}"
                 for port, low, high, _ in ranges[:_MOST_RANGES]]
        more = f", {len(ranges) - _MOST_RANGES} more" if len(ranges) > _MOST_RANGES else ""
        out.append(f"{member}: {', '.join(parts)}{more}")
    return out


def line(name: str, board: LiveBoard, plan: Plan | None, pace: RunSpeed) -> str:
    """The same in one plain line."""
    said = [f"{row.name} {table.line.format(**{port: _Figure(value) for port, value in row.values.items()})}"
            for table in board.tables for row in board.rows(table, plan)] or other_lines(board)
    return f"{name} {pace.words()}: {'; '.join(said)}"


@contextmanager
def live_view(control: Control, name: str, until: int, console: Console | None = None,
              tables: tuple[LiveTable, ...] = ()) -> Iterator[None]:
    """Show a run while it goes on, on standard error: a picture in a terminal, plain lines elsewhere.

    Takes the control's `on_progress` and `on_record`. `until` is in bus steps; tables: those of the scenario's report.
    """
    console = console or Console(stderr=True)
    board, pace = LiveBoard(tables), RunSpeed(control.clock, until)
    control.on_record = board.update
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            def show() -> None:
                live.update(picture(name, board, control.plan, pace), refresh=True)

            control.on_progress = _paced(pace, REDRAW_S, 0.0, show)
            yield
            show()
        return
    control.on_progress = _paced(pace, LINE_S, LINE_S, lambda: say(console, line(name, board, control.plan, pace)))
    yield
    pace.tick(until)
    say(console, line(name, board, control.plan, pace))


def _paced(pace: RunSpeed, every_s: float, first_s: float, show: Callable[[], None]) -> Callable[[int], None]:
    """A progress callback that shows at most every `every_s` wall-clock seconds, from `first_s` after now on."""
    due = perf_counter() + first_s

    def progress(time: int) -> None:
        nonlocal due
        pace.tick(time)
        now = perf_counter()
        if time and now >= due:
            due = now + every_s
            show()

    return progress
