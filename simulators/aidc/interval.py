"""What a site tells of itself, whichever model of a site it is: the interval between two reads, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass

from cosim.ports import Batch
from cosim.units import HOUR_S


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened at a site between two reads; lists are per job class, powers and energies are drawn (>= 0).

    Means are integrals at true event times, divided by `seconds`. work_to includes the work of jobs that are dropped
    later; left_jobs are the rows of those that finished or were dropped, in the order in which they did.
    runs are GPUs that jobs held and now do not, or not as many: of training; of all jobs in the slot model. A job of
    inference in the facility holds its GPUs from start to end, which its row tells.
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
    clipped_commands: int
    left_jobs: Batch
    runs: Batch

    @property
    def it_kwh(self) -> float:
        """IT energy."""
        return self.it_kw * self.seconds / HOUR_S

    @property
    def cooling_kwh(self) -> float:
        """Energy of chiller and cooling tower."""
        return (self.chiller_kw + self.tower_kw) * self.seconds / HOUR_S


@dataclass(frozen=True, slots=True)
class State:
    """How a site stands now, per job class. queued + deferred + running are all the jobs inside."""

    queued_jobs: list[int]
    deferred_jobs: list[int]
    running_jobs: list[int]
    pending_work_to: list[float]
    deferred_work_to: list[float]
    busy_gpus: list[float]
    granted_gpus: list[int]
