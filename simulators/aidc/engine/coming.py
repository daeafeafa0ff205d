"""Jobs that were submitted to a site and are yet to arrive at it: later in the tick, or over a network."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from operator import itemgetter

from cosim.simulators.aidc.engine.jobs import Job, tick_after


class Coming:
    """They stand in the order in which they come in; at equal instants in the order in which they were put off."""

    def __init__(self) -> None:
        self._line: deque[tuple[float, int, Job]] = deque()  # instant, class

    def put_off(self, k: int, jobs: list[Job], now_s: float, reaches: Mapping[int, float]) -> list[Job]:
        """Jobs of a class that are here by now; the others come in when they arrive, or at the time that `reaches` has
        for their id."""
        times = [reaches[job.id] for job in jobs] if reaches else [job.arrival_s for job in jobs]
        here = [job for job, here_s in zip(jobs, times, strict=True) if here_s <= now_s]
        later = [(tick_after(here_s), k, job._replace(submit_s=here_s, release_s=max(job.release_s, here_s)))
                 for job, here_s in zip(jobs, times, strict=True) if here_s > now_s]
        if later:
            self._line = deque(sorted([*self._line, *later], key=itemgetter(0)))  # stable: in the order of classes
        return here

    def taken(self, now_s: float) -> list[tuple[int, Job]]:
        """(class, job) of those that come in by now."""
        found = []
        while self._line and self._line[0][0] <= now_s:
            _, k, job = self._line.popleft()
            found.append((k, job))
        return found

    @property
    def next_s(self) -> float:
        """When the next one comes in; inf: none does."""
        return self._line[0][0] if self._line else math.inf

    def jobs(self, k: int | None = None) -> list[Job]:
        """Those that are yet to come, of a class or of all."""
        return [job for _, of, job in self._line if k in (None, of)]

    def count(self, jobs: list[int], work_to: list[float]) -> None:
        """Add them, and their work, TO, to numbers per class."""
        for _, k, job in self._line:
            jobs[k] += 1
            work_to[k] += job.work_to
