"""The jobs of another run as a workload: its trace's job table, job by job, at the same instants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.trace import Trace
from cosim.units import format_time
from simulators.fleet import BATCH_COLUMNS, JobClass
from simulators.workload.adapter import Arrivals


@params(kw_only=True)
class RecordedJobsParams:
    """Which trace's jobs, and what to do when they end before the run does."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1, description="job classes by name")]
    path: Annotated[str, Field(min_length=1, description="trace whose job table is replayed")]
    overflow: Annotated[Literal["raise", "hold"], Field(description="past its end: refuse, or go on without jobs")] = (
        "raise")


class RecordedJobs(Adapter):
    """Hands over the jobs of a trace as `Arrivals` did: same ids, instants, works and deadlines.

    What happened to them in that run (sites, releases, outcomes) is left behind.
    """

    PARAMS = RecordedJobsParams
    MODELS = Arrivals.MODELS

    @classmethod
    def check_horizon(cls, member: str, given: RecordedJobsParams, step_s: float, until_s: float) -> None:
        """ScenarioError when the recording ends before the run does."""
        with Trace(given.path) as trace:
            status, end_s = trace.attrs["status"], float(trace.attrs["until_s"])
        if status != "completed":
            raise ScenarioError(f"{given.path} is of a run that did not end (status {status}): jobs that were inside "
                                "are not in its table; choose a trace that is complete")
        if given.overflow == "raise" and end_s < until_s:
            raise ScenarioError(
                f"{given.path} holds jobs for {format_time(end_s)}, the run lasts {format_time(until_s)}; shorten it "
                f"by --until, or --set {member}.overflow=hold to go on without jobs")

    @classmethod
    def offered_jobs_per_min(cls, given: RecordedJobsParams) -> dict[str, tuple[float, float]]:
        """Mean rate (jobs/min) and mean work (TO/job) of every class in the table."""
        with Trace(given.path) as trace:
            jobs, minutes = trace.table("jobs"), float(trace.attrs["until_s"]) / 60.0
        works = {n: jobs["work_to"][jobs["job_class"] == n] for n in given.job_classes} if jobs else {}
        return {n: (len(work_to) / minutes, float(work_to.mean())) for n, work_to in works.items() if len(work_to)}

    def setup(self) -> None:
        """Read the table; ScenarioError for a trace without jobs, or with classes that the scenario does not have."""
        with Trace(self.params.path) as trace:
            jobs = trace.table("jobs")
        if not jobs:
            raise ScenarioError(f"{self.params.path} has no job table; choose a trace of a run with data centers")
        strange = sorted(set(jobs["job_class"]) - set(self.params.job_classes))
        if strange:
            raise ScenarioError(f"{self.params.path}: {unknown('job class', strange[0], self.params.job_classes)}")
        order = np.argsort(jobs["id"], kind="stable")
        self._columns = {name: jobs[name][order].tolist() for name in BATCH_COLUMNS}
        self._arrival_s = jobs["arrival_s"][order]
        if (np.diff(self._arrival_s) < 0).any():
            raise ScenarioError(f"{self.params.path}: its jobs are not numbered in arrival order")
        self._origin_s = self._now_s = 0.0
        names = list(self.params.job_classes)
        self._class = np.array([names.index(n) for n in self._columns["job_class"]])

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes."""
        return {"job_class": list(self.params.job_classes)}

    def carry(self) -> dict[str, np.ndarray]:
        """How much of the recording is over; the jobs of the last step come at the next world's first tick."""
        return {"origin_s": np.array(self._origin_s + self._now_s + self.step_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on where the recording was."""
        self._origin_s = float(carry.get("origin_s", 0.0))

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The jobs that arrived in the step that ends now."""
        self._now_s, at_s = time_s, self._origin_s + time_s
        first, end = np.searchsorted(self._arrival_s, (at_s - self.step_s, at_s))
        batch = {name: column[first:end] for name, column in self._columns.items()} if end > first else {}
        if batch and self._origin_s:
            batch |= {name: [t - self._origin_s for t in batch[name]] for name in ("arrival_s", "deadline_s")}
        arrived = np.bincount(self._class[first:end], minlength=len(self.params.job_classes)).astype(float).tolist()
        return {eid: {"jobs": batch, "arrived_jobs": arrived} for eid in self.entities["Arrivals"]}
