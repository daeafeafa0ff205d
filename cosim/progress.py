"""How far a command is, on standard error: a bar on a terminal, elsewhere a plain line every other second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cosim.console import Console, command_began, one_line, plain_console
from cosim.plaintext import visible
from cosim.units import HOUR_S, MIN_S

EVERY_S = 2.0
"""Seconds between plain lines; a command that is quicker prints none."""


@dataclass
class ProgressTask:
    """What a command does just now: `what` in words (or a function that puts `done` into words), `done` of `total`
    (None: not known), of which `before` was done when it began."""

    what: str | Callable[[float], str]
    total: float | None = None
    done: float = 0.0
    before: float = 0.0
    began: float = field(default_factory=monotonic)

    def at(self, done: float, what: str | None = None) -> None:
        """Note that so much of the total is done, and perhaps what is being done."""
        self.done, self.what = done, what or self.what

    @property
    def text(self) -> str:
        """What is being done, in one line that a terminal shows as it stands."""
        return visible(self.what if isinstance(self.what, str) else self.what(self.done))

    def line(self) -> str:
        """As plain text: share, time passed, time left."""
        passed = monotonic() - self.began
        parts = [f"{span(passed)} passed"]
        if self.total:
            parts.insert(0, f"{100.0 * self.done / self.total:.0f} %")
            if self.done > self.before:
                left = passed * (self.total - self.done) / (self.done - self.before)
                parts.append(f"about {span(left)} left")
        return one_line(f"{self.text}: {', '.join(parts)}")


@contextmanager
def working(what: str | Callable[[float], str], total: float | None = None, *, before: float = 0.0,
            quiet: bool = False) -> Iterator[ProgressTask]:
    """Show that something goes on until the block ends. Nothing else may be printed inside it.

    total: what `ProgressTask.at` counts up to; None: not known. before: what was done of it earlier. quiet: no output.
    """
    state = ProgressTask(what, total, before, before)
    console = plain_console(stderr=True)
    if quiet:
        yield state
    elif console.is_terminal:
        with _Bar(state, console):
            yield state
    else:
        ended, state.began = threading.Event(), command_began() or state.began
        printer = threading.Thread(target=_print_lines, args=(state, ended), daemon=True, name="progress")
        printer.start()
        try:
            yield state
        finally:
            ended.set()
            printer.join()


class _Bar(Progress):
    """rich's bar of one task, which is brought up to date whenever it is drawn, so that counting costs an
    assignment."""

    def __init__(self, state: ProgressTask, console: Console) -> None:
        self._state = state
        super().__init__(SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
                         TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console,
                         transient=True)
        self.add_task(state.text, total=state.total)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich draws."""
        for task in self.tasks:
            self.update(task.id, total=self._state.total, completed=self._state.done, description=self._state.text)
        return super().get_renderables()


def _print_lines(state: ProgressTask, ended: threading.Event) -> None:
    wait_s = max(EVERY_S - (monotonic() - state.began), 0.0)
    while not ended.wait(wait_s):
        wait_s = EVERY_S
        with suppress(OSError, ValueError):  # the reader is gone
            print(state.line(), file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """A time in the usual units: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < MIN_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
