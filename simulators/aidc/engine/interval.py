"""Results of a site, for every model of a site: the interval between two reads, and the state at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cosim.ports import Batch
from cosim.simulators.aidc.engine.jobs import Run
from cosim.units import HOUR_S

Segment = tuple[float, ...]
"""From when to when, s, and IT, chiller and cooling-tower power in between, kW, then losses if there are any; constant,
for no event came."""


class Tally:
    """What one job class counts between two reads of its site.

    trim_to       work beyond GPU time at the class's speed on one block: what rounding ends to the clock leaves over,
                  and, negative, what a speed-up below linear, checkpoints and restarts lose
    finished, dropped  jobs that left
    finished_to   whole work of the jobs that finished
    missed_to     work done of jobs dropped at their deadline; failed_to: work that failures of racks undid
    runs          GPUs that its jobs held, from when to when
    """

    def __init__(self) -> None:
        self.trim_to = self.finished_to = self.missed_to = self.failed_to = 0.0
        self.finished = self.dropped = 0
        self.runs: list[Run] = []

    def take(self) -> tuple[float, int, int, float, float, float, list[Run]]:
        """(trim_to, finished, dropped, finished_to, missed_to, failed_to, runs) since the last time."""
        taken = (self.trim_to, self.finished, self.dropped, self.finished_to, self.missed_to, self.failed_to,
                 self.runs)
        self.trim_to = self.finished_to = self.missed_to = self.failed_to = 0.0
        self.finished = self.dropped = 0
        if self.runs:
            self.runs = []
        return taken


class SiteInterval(NamedTuple):
    """What happened at a site between two reads; lists are per job class, powers and energies are drawn (>= 0).

    finished_to is the whole work of the jobs that finished in it, whenever it was done. missed_to is work done of jobs
    dropped in it, failed_to work that failures of racks undid; both are in work_to.
    Means are integrals at true event times, divided by `seconds`. work_to includes the work of jobs that are dropped
    later; left_jobs are the rows of those that finished or were dropped, in the order in which they did.
    runs are GPUs that jobs held and now do not, or not as many: of training; of all jobs in the slot model. A job of
    inference in the facility holds its GPUs from start to end, which its row records.
    loss_kw is lost on the way to the servers, with auxiliaries.
    segments are the power over the interval, without gaps; none if not requested.
    """

    seconds: float
    it_kw: float
    chiller_kw: float
    tower_kw: float
    work_to: list[float]
    busy_gpus: list[float]
    received_jobs: list[int]
    finished_jobs: list[int]
    dropped_jobs: list[int]
    finished_to: list[float]
    missed_to: list[float]
    failed_to: list[float]
    clipped_commands: int
    left_jobs: Batch
    runs: Batch
    segments: tuple[Segment, ...] = ()
    loss_kw: float = 0.0

    @property
    def it_kwh(self) -> float:
        """IT energy."""
        return self.it_kw * self.seconds / HOUR_S

    @property
    def cooling_kwh(self) -> float:
        """Energy of chiller and cooling tower."""
        return (self.chiller_kw + self.tower_kw) * self.seconds / HOUR_S


class State(NamedTuple):
    """How a site stands now, per job class. queued + deferred + running are all the jobs inside.

    late_jobs, urgent_jobs  training jobs of negative laxity, and of less than an hour's; see `TrainingPool.levels`
    up_gpus                 GPUs of the site's racks that have not failed
    slack_min               how long training could stand still, min; see `slack`
    """

    queued_jobs: list[int]
    deferred_jobs: list[int]
    running_jobs: list[int]
    pending_work_to: list[float]
    deferred_work_to: list[float]
    busy_gpus: list[float]
    granted_gpus: list[int]
    late_jobs: list[int]
    urgent_jobs: list[int]
    up_gpus: int
    slack_min: float


Levels = tuple[int, int, int, float, float, int, int, int, int]
"""Fields of `State` of one class, in its order."""


def resolved_kw(segments: Sequence[Segment] | np.ndarray, step_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Power in equal steps: their begins (n,), s, and means of IT, chiller and tower power (n, 3), kW,
    and of losses (n, 4) where segments have them.

    Means are differences of the energy at the steps' edges, which between two instants is linear, so that their energy
    is that of the segments. `step_s` divides the time from the first segment's begin to the last one's end.
    """
    table = np.array(segments)
    instants_s = np.append(table[:, 0], table[-1, 1])
    kws = table[:, 2:] * (table[:, 1] - table[:, 0])[:, None]
    energy_kws = np.vstack([np.zeros(kws.shape[1]), np.cumsum(kws, axis=0)])
    steps = round((instants_s[-1] - instants_s[0]) / step_s)
    edges_s = np.linspace(instants_s[0], instants_s[-1], steps + 1)
    at_edges = np.column_stack([np.interp(edges_s, instants_s, column) for column in energy_kws.T])
    return edges_s[:-1], np.diff(at_edges, axis=0) / step_s
