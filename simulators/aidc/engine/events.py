"""The clock of a site and what is set for a time on it: SimPy's environment and its events, as short as they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    from cosim.simulators.aidc.engine.inference import InferenceQueue
    from cosim.simulators.aidc.engine.jobs import Job

_NORMAL = 1
"""SimPy's usual priority: events of one instant come in the order in which they were set."""


class Cohort(simpy.Event):
    """Jobs of one class and size that started at one instant, and so end at one: the event of their end.

    gpus       GPUs that all of them hold
    work_to    of each, TO
    callbacks  what happens at the end; one list for all cohorts of a site, set by `EventClock.expect`
    """

    __slots__ = ("callbacks", "end_s", "gpus", "jobs", "queue", "start_s", "work_to")
    _ok = True  # an end cannot fail

    def __init__(self, queue: InferenceQueue, jobs: list[Job], gpus: int, work_to: float, start_s: float,
                 end_s: float) -> None:
        self.queue, self.jobs, self.gpus, self.work_to = queue, jobs, gpus, work_to
        self.start_s, self.end_s = start_s, end_s


class TimedSignal(simpy.Event):
    """Something is due at a time; see `EventClock.signal`."""

    __slots__ = ("callbacks",)
    _ok = True

    def __init__(self, callbacks: list[Callable[[Any], None]]) -> None:
        self.callbacks = callbacks


class EventClock(simpy.Environment):
    """A site's time, in s, and its events to come.

    on_end  called with every cohort at its end
    """

    def __init__(self, start_s: float, on_end: Callable[[Cohort], None]) -> None:
        super().__init__(start_s)
        self._on_end = [on_end]

    def expect(self, cohort: Cohort) -> None:
        """The cohort ends when its time has come. Exact: instants are whole ticks, see `TICKS_PER_S`."""
        cohort.callbacks = self._on_end
        self.schedule(cohort, _NORMAL, cohort.end_s - self._now)  # type: ignore[arg-type]  # a NewType of SimPy's

    def signal(self, time_s: float, callbacks: list[Callable[[Any], None]]) -> TimedSignal:
        """Call them with the signal when that instant, a whole tick, has come; one that is superseded still comes."""
        made = TimedSignal(callbacks)
        self.schedule(made, _NORMAL, time_s - self._now)  # type: ignore[arg-type]  # a NewType of SimPy's
        return made

    def rest_until(self, time_s: float) -> None:
        """Nothing is expected before that time."""
        self._now = time_s

    def wake_at(self, time_s: float) -> None:
        """Something is to be looked at then."""
        self.timeout(time_s - self._now)
