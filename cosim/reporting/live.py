"""The live view of a run: carbon intensity, power, queues and drops per site, progress and speed, in a terminal.

It hears every record (`Control.on_record`) and draws a few times a second. Without a terminal it prints a line now and
then instead. It reads values by the names of their ports and knows no model: what it does not know it shows as ranges.
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

REDRAW_S = 0.5
"""Wall-clock seconds between two pictures of the terminal."""
LINE_S = 5.0
"""Wall-clock seconds between two plain lines."""
SITES, NCI = "aidc", "nci_kg_per_kwh"
_COUNTED = ("queued_jobs", "deferred_jobs", "running_jobs")
_MOST_RANGES, _BAR = 6, 60

Outputs = Mapping[str, Mapping[str, Any]]


@dataclass
class SiteView:
    """One data center as it stands: NCI kg/kWh and power kW (NaN: not known), busy GPUs as a share, jobs by state, and
    the jobs dropped since the start."""

    name: str
    nci_kg_per_kwh: float
    p_kw: float
    busy_ratio: float
    queued_jobs: int
    deferred_jobs: int
    running_jobs: int
    dropped_jobs: int


@dataclass
class Board:
    """The latest outputs of every member and what can be said of them. `hear` is called after every step."""

    latest: dict[str, Outputs] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def hear(self, member: str, data: Outputs) -> None:
        """Keep a member's outputs; add up the drops of a data center."""
        self.latest[member] = data
        if member == SITES:
            for eid, ports in data.items():
                if lost := int(_total(ports.get("dropped_jobs", 0))):
                    self.dropped[eid] = self.dropped.get(eid, 0) + lost

    def sites(self, plan: Plan | None) -> list[SiteView]:
        """The data centers that report a power; [] without any."""
        out = []
        for eid, ports in self.latest.get(SITES, {}).items():
            if "p_kw" not in ports:
                continue
            counts = {name: int(_total(ports.get(name, 0))) for name in _COUNTED}
            busy = 1.0 - _total(ports["free_gpu_ratio"]) if "free_gpu_ratio" in ports else math.nan
            out.append(SiteView(eid, self._nci(plan, eid), _total(ports["p_kw"]), busy,
                                dropped_jobs=self.dropped.get(eid, 0), **counts))
        return out

    def _nci(self, plan: Plan | None, site: str) -> float:
        """Carbon intensity that the run's wiring sends to a site's agent; NaN where nothing does."""
        for c in plan.connections if plan else ():
            if c.target[1:] == (site, NCI):
                member, eid, port = c.source
                value = self.latest.get(member, {}).get(eid, {}).get(port)
                return math.nan if value is None else _total(value)
        return math.nan

    def others(self) -> list[tuple[str, list[tuple[str, float, float, int]]]]:
        """(member, [(port, lowest, highest, entities)]) of the scalar outputs of all but the data centers."""
        out = []
        for member, data in self.latest.items():
            if member == SITES and any("p_kw" in ports for ports in data.values()):
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
class Pace:
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


def picture(name: str, board: Board, plan: Plan | None, pace: Pace) -> Group:
    """What the terminal shows."""
    head = Text.assemble((visible(name), "bold"), "  ", pace.words())
    done = _BAR * pace.time // max(pace.until, 1)
    parts: list[Any] = [head, Text.assemble(("━" * done, "green"), ("─" * (_BAR - done), "dim"))]
    sites = board.sites(plan)
    if sites:
        parts.append(_site_table(sites))
    parts += [Text(visible(line), overflow="ellipsis", no_wrap=True, style="dim") for line in other_lines(board)]
    return Group(*parts)


def _site_table(sites: list[SiteView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("site", "NCI kg/kWh", "power kW", "GPUs busy", "running", "queued", "put off", "dropped"):
        table.add_column(column, justify="left" if column == "site" else "right")
    for s in sites:
        table.add_row(Text(visible(s.name)), _number(s.nci_kg_per_kwh, 3), _number(s.p_kw, 1), _percent(s.busy_ratio),
                      str(s.running_jobs), str(s.queued_jobs), str(s.deferred_jobs),
                      Text(str(s.dropped_jobs), style="red" if s.dropped_jobs else ""))
    if len(sites) > 1:
        table.add_row("all", "", _number(sum(s.p_kw for s in sites), 1), "", str(sum(s.running_jobs for s in sites)),
                      str(sum(s.queued_jobs for s in sites)), str(sum(s.deferred_jobs for s in sites)),
                      str(sum(s.dropped_jobs for s in sites)))
    return table


def other_lines(board: Board) -> list[str]:
    """A line per further member: its outputs, as ranges where several entities have them."""
    out = []
    for member, ranges in board.others():
        parts = [f"{port} {low:.4g}" if low == high else f"{port} {low:.4g} to {high:.4g}"
                 for port, low, high, _ in ranges[:_MOST_RANGES]]
        more = f", {len(ranges) - _MOST_RANGES} more" if len(ranges) > _MOST_RANGES else ""
        out.append(f"{member}: {', '.join(parts)}{more}")
    return out


def line(name: str, board: Board, plan: Plan | None, pace: Pace) -> str:
    """The same in one plain line."""
    sites = board.sites(plan)
    said = [f"{s.name} {_number(s.p_kw, 0)} kW at {_number(s.nci_kg_per_kwh, 3)} kg/kWh, {s.queued_jobs} queued, "
            f"{s.dropped_jobs} dropped" for s in sites] or other_lines(board)
    return f"{name} {pace.words()}: {'; '.join(said)}"


def _number(value: float, places: int) -> str:
    return f"{value:.{places}f}" if math.isfinite(value) else "not known"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if math.isfinite(ratio) else "not known"


@contextmanager
def live_view(control: Control, name: str, until: int, console: Console | None = None) -> Iterator[None]:
    """Show a run while it goes on, on standard error: a picture in a terminal, plain lines elsewhere.

    Takes the control's `on_progress` and `on_record`. `until` is in bus steps.
    """
    console = console or Console(stderr=True)
    board, pace = Board(), Pace(control.clock, until)
    control.on_record = board.hear
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


def _paced(pace: Pace, every_s: float, first_s: float, show: Callable[[], None]) -> Callable[[int], None]:
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
