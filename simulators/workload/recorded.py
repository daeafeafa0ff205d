"""The jobs of another run as a workload: its trace's job table, job by job, at the same instants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch
from cosim.replay.recording import notes as recording_notes
from cosim.scenario import DEFAULT_START, Scenario
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.fleet import BATCH_COLUMNS, ORIGIN, TOKEN_COLUMNS, JobClass, Routing
from cosim.simulators.wan import Network, Wan
from cosim.simulators.workload.adapter import JOB_NAMES, NAME_COLUMNS, Arrivals
from cosim.simulators.workload.lengths import requests_to
from cosim.trace import Trace
from cosim.trace.series import played_from_s, scenario_of
from cosim.units import MIN_S, Seconds, format_time


@params(kw_only=True)
class RecordedJobsParams:
    """Which trace's jobs, and what to do when they end before the run does."""

    job_classes: Annotated[dict[str, JobClass], Field(description="job classes by name")]
    path: Annotated[str, Field(min_length=1, description="trace whose job table is replayed")]
    overflow: Annotated[Literal["raise", "hold"], Field(description="past its end: refuse, or go on without jobs")] = (
        "raise")
    arrivals_end_s: Annotated[Seconds | None, Field(ge=0, description="no job arrives from then on; null: as recorded")
                              ] = None
    routing: Routing = "handover"
    wan: Network = None
    scenario_start: Annotated[str | None, Field(description="date of t = 0; the run fills it in")] = None
    scenario_warmup_s: Annotated[Seconds, Field(ge=0, description="of the run, which fills it in")] = 0.0


class RecordedJobs(Adapter):
    """Hands over the jobs of a trace as `Arrivals` did: same ids, works and deadlines, and the same instants since the
    counted time began (`cosim.replay.recording`).

    What happened to them in that run (sites, releases, outcomes) is left behind, and so are jobs of a warm-up that is
    not played: data centers begin empty.
    """

    PARAMS = RecordedJobsParams
    MODELS = {"Arrivals": (*Arrivals.MODELS["Arrivals"], JOB_NAMES)}

    @classmethod
    def completes(cls, member: str, given: RecordedJobsParams, scenario: Scenario) -> Scenario:
        """A scenario of no job classes takes those of the recording, and one of no start its start."""
        if scenario.shared.get("job_classes"):
            return scenario
        with Trace(given.path) as trace:
            then = scenario_of(trace)
        if scenario.start is None:
            scenario = scenario.replace(start=then["start"])
        classes = then.get("shared", {}).get("job_classes", {})
        return scenario.replace(shared={**scenario.shared, "job_classes": classes})

    @classmethod
    def natural_horizon_s(cls, given: RecordedJobsParams) -> float:
        """How long the recording is, s."""
        with Trace(given.path) as trace:
            return float(trace.attrs["until_s"]) - played_from_s(trace, given.scenario_warmup_s)

    @classmethod
    def check_horizon(cls, member: str, given: RecordedJobsParams, step_s: float, until_s: float) -> None:
        """ScenarioError when the recording ends before the run does."""
        with Trace(given.path) as trace:
            status = trace.attrs["status"]
            end_s = float(trace.attrs["until_s"]) - played_from_s(trace, given.scenario_warmup_s)
        if status != "completed":
            raise ScenarioError(f"{given.path} is of a run that did not end (status {status}): jobs that were inside "
                                "are not in its table; choose a trace that is complete")
        wanted_s = until_s if given.arrivals_end_s is None else min(given.arrivals_end_s, until_s)
        if given.overflow == "raise" and end_s < wanted_s:
            raise ScenarioError(
                f"{given.path} holds jobs for {format_time(end_s)}, the run lasts {format_time(wanted_s)}; shorten it "
                f"by --until, or --set {member}.overflow=hold to go on without jobs")

    @classmethod
    def offered_jobs_per_min(cls, given: RecordedJobsParams) -> dict[str, tuple[float, float]]:
        """Mean rate (jobs/min) and mean work (TO/job) of every class in the part of the table that is played."""
        with Trace(given.path) as trace:
            jobs, from_s = trace.table("jobs"), played_from_s(trace, given.scenario_warmup_s)
            minutes = (float(trace.attrs["until_s"]) - from_s) / MIN_S
        played = jobs["arrival_s"] >= from_s if jobs else None
        works = {n: jobs["work_to"][played & (jobs["job_class"] == n)] for n in given.job_classes} if jobs else {}
        return {n: (len(work_to) / minutes, float(work_to.mean())) for n, work_to in works.items() if len(work_to)}

    def setup(self) -> None:
        """Read the table; ScenarioError for a trace without jobs, or with classes that the scenario does not have."""
        given = self.params
        with Trace(given.path) as trace:
            jobs, from_s = trace.table("jobs"), played_from_s(trace, given.scenario_warmup_s)
            self._end_s = float(trace.attrs["until_s"])
            requests = trace.table("llm_requests") if self._served() else {}
            sent = trace.table("transfers") if given.wan is not None else {}
            named = trace.table("job_names")
            self._said = recording_notes(self.sid, trace, given.scenario_warmup_s,
                                         given.scenario_start or DEFAULT_START)
            then = scenario_of(trace).get("shared", {}).get("job_classes", {})
        if not jobs:
            raise ScenarioError(f"{self.params.path} has no job table; choose a trace of a run with data centers")
        strange = sorted(set(jobs["job_class"]) - set(self.params.job_classes))
        if strange:
            raise ScenarioError(f"{self.params.path}: {unknown('job class', strange[0], self.params.job_classes)}")
        self._note_jobs(jobs, from_s, then)
        end_s = np.inf if given.arrivals_end_s is None else from_s + given.arrivals_end_s
        played = (jobs["arrival_s"] >= from_s) & (jobs["arrival_s"] < end_s)
        jobs = {name: values[played] for name, values in jobs.items()}
        order = np.argsort(jobs["id"], kind="stable")
        columns = {name: jobs[name][order] for name in BATCH_COLUMNS}
        if self._served():
            columns |= self._tokens(columns, requests)
        if given.wan is not None:
            columns[ORIGIN] = self._from_where(columns["id"], sent, given.wan)
        self._columns = {name: values.tolist() for name, values in columns.items()}
        here = np.isin(named["id"], columns["id"]) if named else np.empty(0, bool)
        by_id = np.argsort(named["id"][here], kind="stable") if named else here
        self._names = {name: named[name][here][by_id] for name in NAME_COLUMNS} if named else {}
        self._arrival_s = jobs["arrival_s"][order]
        if (np.diff(self._arrival_s) < 0).any():
            raise ScenarioError(f"{self.params.path}: its jobs are not numbered in arrival order")
        self._origin_s, self._now_s = from_s, 0.0
        names = list(self.params.job_classes)
        self._class = np.array([names.index(n) for n in self._columns["job_class"]])

    def _served(self) -> dict[str, Serving]:
        """Classes of kind llm."""
        return {name: c.serving for name, c in self.params.job_classes.items() if c.serving is not None}

    def _tokens(self, jobs: Mapping[str, np.ndarray], requests: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tokens of the jobs, 0 of those that are no LLM requests, and the work that they are in this scenario.
        ScenarioError for a request whose tokens the recording lacks."""
        tokens, work_to = np.zeros((len(jobs["id"]), 2), np.int64), jobs["work_to"].copy()
        order = np.argsort(requests["id"], kind="stable") if len(requests.get("id", ())) else np.empty(0, int)
        for name, serving in self._served().items():
            mine = np.flatnonzero(jobs["job_class"] == name)
            if not mine.size:
                continue
            at = np.searchsorted(requests["id"][order], jobs["id"][mine]) if order.size else np.empty(0, int)
            if not order.size or (at >= len(order)).any() or (
                    requests["id"][order[at]] != jobs["id"][mine]).any():
                raise ScenarioError(f"{self.params.path} lacks the tokens of its requests of {name} (table "
                                    "llm_requests); choose the trace of a run in which they were served")
            tokens[mine] = np.column_stack([requests[column][order[at]] for column in TOKEN_COLUMNS])
            work_to[mine] = requests_to(tokens[mine], serving)
        return {**dict(zip(TOKEN_COLUMNS, tokens.T, strict=True)), "work_to": work_to}

    def _from_where(self, ids: np.ndarray, sent: Mapping[str, np.ndarray], wan: Wan) -> np.ndarray:
        """Origins of the jobs. ScenarioError for a job whose origin the recording lacks, or the network has not."""
        order = np.argsort(sent["id"], kind="stable") if len(sent.get("id", ())) else np.empty(0, int)
        at = np.searchsorted(sent["id"][order], ids) if order.size else np.empty(0, int)
        if len(ids) and (not order.size or (at >= len(order)).any() or (sent["id"][order[at]] != ids).any()):
            raise ScenarioError(f"{self.params.path} does not say where its jobs came from (table transfers), which "
                                f"{self.sid}.wan goes by; leave wan out, or choose the trace of a run with one")
        origins = sent[ORIGIN][order[at]].astype(object) if len(ids) else np.empty(0, object)
        strange = sorted(set(origins) - set(wan.origins))
        if strange:
            raise ScenarioError(f"{self.params.path}: {unknown('origin', strange[0], wan.origins)}")
        return origins

    def _note_jobs(self, jobs: Mapping[str, np.ndarray], from_s: float, then: Mapping[str, dict]) -> None:
        before = jobs["arrival_s"] < from_s
        if left := int(np.count_nonzero(before & ~(jobs["end_s"] <= from_s))):
            self._said.append(f"{self.sid}: {left} jobs that arrived in the recording's warm-up and were unfinished at "
                              "its end are left out; data centers begin empty")
        for name, job_class in self.params.job_classes.items():
            was = JobClass(**then[name]) if name in then else job_class
            fields = ("deadline_s",) if job_class.kind == "llm" else ("work_to", "deadline_s")
            other = [field for field in fields if getattr(was, field) != getattr(job_class, field)]
            if other:
                self._said.append(f"{self.sid}: jobs of {name} have {' and '.join(other)} of the recording, not of "
                                  "this scenario's job_classes")

    def notes(self) -> list[str]:
        """From when the recording is played, what of it is left out, and when it was over."""
        if self._origin_s + self._now_s <= self._end_s or self.params.arrivals_end_s is not None:
            return list(self._said)
        return [*self._said, f"{self.sid} plays {self.params.path}, which ends at "
                             f"{format_time(self._end_s - self._origin_s)} of this run; from then on no jobs arrive"]

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes."""
        return {"job_class": list(self.params.job_classes)}

    def carry(self) -> dict[str, np.ndarray]:
        """How much of the recording is over; the jobs of the last step come at the next world's first tick."""
        return {"origin_s": np.array(self._origin_s + self._now_s + self.step_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on where the recording was."""
        self._origin_s = float(carry.get("origin_s", self._origin_s))

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The jobs that arrived in the step that ends now, or with routing = arrival will in the one that begins."""
        self._now_s, at_s = time_s, self._origin_s + time_s
        if self.params.routing == "arrival":
            at_s += self.step_s
        first, end = np.searchsorted(self._arrival_s, (at_s - self.step_s, at_s))
        batch = {name: column[first:end] for name, column in self._columns.items()} if end > first else {}
        if batch and self._origin_s:
            batch |= {name: [t - self._origin_s for t in batch[name]] for name in ("arrival_s", "deadline_s")}
        arrived = np.bincount(self._class[first:end], minlength=len(self.params.job_classes)).astype(float).tolist()
        return {eid: {"jobs": batch, "arrived_jobs": arrived, "job_names": self._named(batch)}
                for eid in self.entities["Arrivals"]}

    def _named(self, batch: Batch) -> Batch:
        """What the jobs of a batch are called in the file that they are from first of all; {} where they have none."""
        if not batch or not self._names:
            return {}
        first, end = np.searchsorted(self._names["id"], (batch["id"][0], batch["id"][-1] + 1))
        return {name: column[first:end].tolist() for name, column in self._names.items()} if end > first else {}
