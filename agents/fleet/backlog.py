"""The training jobs inside a site, as a policy can follow them: what was sent, and what has been done since.

A policy observes totals; of what was sent, classes, sizes and deadlines are known. Work done in a step, the difference
of two totals, goes to the jobs as the sites hand out blocks, earliest deadline first, to each as much as it can do on
all blocks it may use. What a total has beyond the jobs known (of a world that went on from another) is due at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.units import HOUR_S, MIN_S

Floats = NDArray[np.float64]
_EPS_RATIO = 1e-9


class TrackedJob:
    """A job, or several alike: left_to of their work is to be done until due_s; the last of them can be begun on
    `number` times the blocks of one."""

    __slots__ = ("due_s", "left_to", "number")

    def __init__(self, due_s: float, left_to: float, number: float) -> None:
        self.due_s, self.left_to, self.number = due_s, left_to, number


class Claims(NamedTuple):
    """Jobs as the planner takes them, (J,) each: GPU-hours left on the blocks they run on, how many GPUs they can use
    at the most, and hours until they are due."""

    work_gpu_h: Floats
    gpus: Floats
    due_h: Floats


class Backlog:
    """Training jobs by site and class; `see` and then `sent`, once a step."""

    def __init__(self, facts: FleetFacts) -> None:
        self._facts = facts
        n = facts.n_sites
        self._jobs: list[list[list[TrackedJob]]] = [[[] for _ in facts.kinds] for _ in range(n)]
        self._most = [[min(facts.max_blocks[m], facts.gpus[i] // facts.gpus_per_block[m]) * facts.gpus_per_block[m]
                       for m in range(len(facts.kinds))] for i in range(n)]
        self._time_s = 0.0

    def see(self, observation: Observation) -> None:
        """Bring the jobs up to what is left of them at each site."""
        passed_s, self._time_s = observation.time_s - self._time_s, observation.time_s
        for i, of_site in enumerate(self._jobs):
            for m in self._facts.train:
                inside_to = observation.pending_work_to[i][m] + observation.deferred_work_to[i][m]
                self._bring_up(of_site[m], inside_to, self._facts.top_to_per_s[i][m] * passed_s)

    def sent(self, jobs: Sequence[Sequence[float]], work_to: Sequence[Sequence[float]]) -> None:
        """Jobs (N, M) and their work (N, M), TO, that the sites are sent now; they arrived in the step before."""
        for i, of_site in enumerate(self._jobs):
            for m in self._facts.train:
                if jobs[i][m]:
                    of_site[m].append(TrackedJob(self._time_s + self._facts.deadline_s[m], work_to[i][m], jobs[i][m]))

    def claims(self, site: int, classes: Sequence[int]) -> Claims:
        """What the jobs of some classes at a site need from now on."""
        work, gpus, due = [], [], []
        for m in classes:
            top, most = self._facts.top_to_per_s[site][m], self._most[site][m]
            for job in self._jobs[site][m] if top else ():
                work.append(job.left_to / top * most / HOUR_S)
                gpus.append(most * job.number)
                due.append((job.due_s - self._time_s) / HOUR_S)
        return Claims(np.array(work), np.array(gpus), np.array(due))

    def by_deadline(self, site: int) -> list[tuple[float, int, int]]:
        """(due, s, class, GPUs that they can use) of the jobs at a site, earliest first."""
        found = []
        for m in self._facts.train:
            block, top = self._facts.gpus_per_block[m], self._facts.top_to_per_s[site][m]
            for job in self._jobs[site][m] if top else ():
                use = self._most[site][m] * max(1, round(job.number))
                minute = job.left_to / (top * MIN_S) * self._most[site][m]  # that would be done within the minute
                found.append((job.due_s, m, min(use, block * max(1, -(-int(minute) // block)))))
        return sorted(found)

    def _bring_up(self, jobs: list[TrackedJob], inside_to: float, most_to: float) -> None:
        """jobs: of one site and class, by deadline; most_to: what one of them can do in the time that has passed."""
        while jobs and jobs[0].due_s <= self._time_s:
            jobs.pop(0)
        done_to = sum(job.left_to for job in jobs) - inside_to
        eps_to = _EPS_RATIO * (inside_to + most_to) + 1e-12
        for limited in (True, False):
            for job in jobs if done_to > eps_to else ():
                step = min(done_to, job.left_to, most_to * job.number if limited else done_to)
                job.left_to -= step
                done_to -= step
        if done_to < -eps_to:
            jobs.insert(0, TrackedJob(self._time_s, -done_to, 1.0))
        jobs[:] = [job for job in jobs if job.left_to > eps_to]
