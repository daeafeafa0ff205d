"""Jobs of one's own as a workload: a table with a row per job, in the layout of a scheduler or of a published log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch
from cosim.scenario import Scenario, rows_of
from cosim.simulators.fleet import ORIGIN, JobClass, Routing, Site
from cosim.simulators.wan import Network, Wan
from cosim.simulators.workload.adapter import JOB_NAMES, NAME_COLUMNS, Arrivals
from cosim.simulators.workload.job_classes import ClassRules, FileJobs, Kind, end_s, jobs_of
from cosim.simulators.workload.job_columns import NAMES, Role
from cosim.simulators.workload.job_log import JobLog
from cosim.simulators.workload.job_reading import read_job_log
from cosim.simulators.workload.origin import check_cover
from cosim.simulators.workload.origins import Origins
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, LeftOutRatio
from cosim.simulators.workload.traces import TokenWork
from cosim.tables.dates import instant, label
from cosim.units import DAY_S, HOUR_S, MIN_S, Seconds, format_time

_NO_LIMIT = 1_000_000
_TRAINING = JobClass(kind="train", work_to=1e8, deadline_s=24 * HOUR_S, to_per_gpu_min=6.0e4, kw_per_to_s=7.0e-4)
_INFERENCE = JobClass(kind="inf", work_to=600.0, deadline_s=300.0, to_per_gpu_min=2.5e5, kw_per_to_s=1.68e-4)


@params
class JobRoles:
    """Names of a table's columns by what they are; null: by the names that are known."""

    id: str | None = None
    job_class: str | None = None
    arrival: str | None = None
    start: str | None = None
    end: str | None = None
    run: Annotated[str | None, Field(description="how long it ran")] = None
    work_to: str | None = None
    gpu_seconds: str | None = None
    tokens: str | None = None
    input_tokens: str | None = None
    output_tokens: str | None = None
    gpus: str | None = None
    gpu_milli: Annotated[str | None, Field(description="thousandths of each of its GPUs")] = None
    instances: Annotated[str | None, Field(description="instances of so many GPUs each")] = None
    deadline: str | None = None
    priority: str | None = None
    origin: str | None = None
    state: str | None = None
    time_zone: Annotated[str | None, Field(description="IANA names of the zones of dates without an offset")] = None


@params(kw_only=True)
class JobTableParams:
    """The file and how it is read; what it leaves open."""

    path: Annotated[str, Field(min_length=1, description="file of jobs: CSV, Parquet, JSON lines, SWF, Philly's JSON")]
    job_classes: Annotated[dict[str, JobClass], Field(description="classes by name; those of the file that are not "
                                                      "among them are made, unless the scenario is run from a trace")
                           ] = Field(default_factory=dict)
    columns: Annotated[JobRoles, Field(description="which column is what, where its name does not tell")] = JobRoles()
    time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; null: UTC, "
                                           "with a note")] = None
    deadlines: Annotated[Literal["auto", "at", "after"], Field(
        description="at: deadlines are instants; after: times after the arrival; auto: dates are instants, numbers "
        "are, too, where arrivals are numbers and none is before its job's")] = "auto"
    begin_s: Annotated[Seconds, Field(ge=0, description="leave out jobs before this count, which is t = 0; where times "
                                      "are dates the scenario's start says so")] = 0.0
    completed_only: Annotated[bool, Field(description="leave out jobs that failed, were cancelled or have no end; else "
                                          "all that ran count")] = False
    kinds: Annotated[dict[str, Kind], Field(description="class of the file -> train or inf, where its name does not "
                                            "tell")] = Field(default_factory=dict)
    training: Annotated[JobClass, Field(description="pattern of the training classes that are made")] = _TRAINING
    inference: Annotated[JobClass, Field(description="pattern of the inference classes that are made")] = _INFERENCE
    deadline_run_ratio: Annotated[float, Field(ge=1, le=1e4, description="training without a deadline has at least so "
                                               "many times its shortest run time")] = 2.0
    tokens: TokenWork = Field(default_factory=TokenWork)
    sample_ratio: Annotated[float, Field(gt=0, le=1, description="share of the jobs that are played, evenly spread "
                                         "over all in the order of arrival; 1: all")] = 1.0
    max_left_out_ratio: LeftOutRatio = LEFT_OUT_RATIO
    arrivals_end_s: Annotated[Seconds | None, Field(ge=0, description="no job arrives from then on; null: as in the "
                                                    "file")] = None
    routing: Routing = "handover"
    wan: Network = None
    scenario_start: Annotated[str | None, Field(description="date of t = 0; the run fills it in")] = None
    classes_made: Annotated[tuple[str, ...], Field(description="those of job_classes that were made from the file; the "
                                                   "run fills it in")] = ()
    site_gpus: Annotated[int | None, Field(ge=1, description="GPUs of the largest site; the run fills it in")] = None


class JobTable(Adapter):
    """Hands over the jobs of a file and no others, each at its instant, with the file's ids in the table `job_names`.

    Dates are read against the scenario's start; a scenario whose start is open (null) begins at midnight UTC of the
    first job. Numbers count from t = 0. Classes that the scenario lacks are made from the file (`completes`).
    """

    PARAMS = JobTableParams
    REPLAYED_BY = "cosim.simulators.workload.recorded:RecordedJobs"
    MODELS = {"Arrivals": (*Arrivals.MODELS["Arrivals"], JOB_NAMES)}

    @classmethod
    def completes(cls, member: str, given: JobTableParams, scenario: Scenario) -> Scenario:
        """The scenario with the start and the job classes that follow from the file, where they are open."""
        given = replace(given, site_gpus=_most_gpus(scenario))
        log, jobs = _read(given)
        if scenario.start is None and log.dated:
            scenario = scenario.replace(start=label(float(log.arrival_s[0]) // DAY_S * DAY_S)[:10])
        own = {name: row for name, row in rows_of(scenario.shared.get("job_classes", {}), "job_classes").items()
               if name not in given.classes_made or name in jobs.classes}
        made = {name: TypeAdapter(JobClass).dump_python(job_class, mode="json", exclude_defaults=True)
                for name, job_class in jobs.classes.items() if name not in own}
        names = tuple(name for name in jobs.classes if name in made or name in given.classes_made)
        old = scenario.members[member]
        filled = old.model_copy(update={"params": {**old.params, "classes_made": names, "site_gpus": given.site_gpus}})
        return scenario.replace(shared={**scenario.shared, "job_classes": {**made, **own}},
                                members={**scenario.members, member: filled})

    @classmethod
    def natural_horizon_s(cls, given: JobTableParams) -> float:
        """Until the last job has ended by its deadline, in whole minutes, and one more."""
        log, jobs = _read(given)
        cls._cover(given, log, None)
        return MIN_S * (math.ceil((end_s(jobs) - _zero_s(log, given)) / MIN_S) + 1)

    @classmethod
    def check_horizon(cls, member: str, given: JobTableParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a file of which no job arrives in the run, nor on the day on which it begins."""
        cls._cover(given, _read(given)[0], until_s)

    @classmethod
    def _cover(cls, given: JobTableParams, log: JobLog, until_s: float | None) -> None:
        first_s, last_s = (float(log.arrival_s[k]) - _zero_s(log, given) for k in (0, -1))
        if 0.0 <= first_s < DAY_S:
            return  # of the day on which the run begins; `notes` counts those that it does not reach
        if log.dated:
            check_cover(given.path, first_s, last_s - first_s + MIN_S, given.scenario_start, until_s, "start=null")
        elif last_s < 0.0 or (until_s is not None and first_s >= until_s):
            said = f"from {format_time(first_s + given.begin_s)} to {format_time(last_s + given.begin_s)}"
            ends = "" if until_s is None else f" and ends at {format_time(given.begin_s + until_s)}"
            raise ScenarioError(f"jobs of {given.path} arrive {said}, the run begins at {format_time(given.begin_s)}"
                                f"{ends}: none of them is in it; --set workload.begin_s=, or a longer --until")

    @classmethod
    def found_in_file(cls, given: JobTableParams) -> str:
        """The file, its layout, its jobs and when they arrive."""
        log, _ = _read(given)
        first, last = (label(t) if log.dated else format_time(t) for t in (log.arrival_s[0], log.arrival_s[-1]))
        return (f"{given.path}: {log.layout}, jobs: {len(log)}, from {first} to {last}; notes after the run have the "
                "rest")

    @classmethod
    def offered_jobs_per_min(cls, given: JobTableParams) -> dict[str, tuple[float, float]]:
        """Mean rate (jobs/min) and mean work (TO/job) of every class until its last deadline."""
        _, jobs = _read(given)
        minutes = max((end_s(jobs) - float(jobs.arrival_s[0])) / MIN_S, 1.0)
        return {name: (np.count_nonzero(mine) / minutes, float(jobs.work_to[mine].mean())) for name in jobs.classes
                if (mine := jobs.class_names == name).any()}

    @classmethod
    def rate_fields(cls, given: JobTableParams, job_class: str | None) -> dict[str, float]:
        """The share of the jobs that are played."""
        return {"sample_ratio": given.sample_ratio}

    def setup(self) -> None:
        """Read the file. ScenarioError as `read_job_log`, and for classes that the scenario does not have."""
        given = self.params
        log, jobs = _read(given)
        for name in jobs.classes:
            if name not in given.job_classes:
                raise ScenarioError(f"{self.sid}: {given.path}: {unknown('job class', name, given.job_classes)}")
        zero_s, self._log, self._jobs = _zero_s(log, given), log, jobs
        self._arrival_s = jobs.arrival_s - zero_s
        end_s = np.inf if given.arrivals_end_s is None else given.arrivals_end_s
        self._before, self._end = np.searchsorted(self._arrival_s, (0.0, end_s)).tolist()
        self._columns = {"id": np.arange(len(jobs.names)), "job_class": jobs.class_names,
                         "arrival_s": self._arrival_s, "work_to": jobs.work_to, "deadline_s": jobs.deadline_s - zero_s}
        if given.wan is not None:
            self._columns[ORIGIN] = self._from_where(jobs, given.wan)
        self._class = np.array([list(given.job_classes).index(n) for n in jobs.class_names])
        self._origin_s, self._reached_s = 0.0, 0.0

    def _from_where(self, jobs: FileJobs, wan: Wan) -> np.ndarray:
        """Origins of the jobs: those of the file where it has them, else drawn by the network's shares. ScenarioError
        for one that the network does not have."""
        classes = list(self.params.job_classes)
        by_share = Origins(wan, classes, self.stream)
        origins = by_share.names[by_share.of(np.array([classes.index(name) for name in jobs.class_names]))]
        if any(jobs.origin):
            for k, origin in enumerate(jobs.origin):
                if origin and origin not in wan.latency_s:
                    raise ScenarioError(f"{self.sid}: {self.params.path}: job {jobs.names[k]}: "
                                        f"{unknown('origin in wan.latency_s', origin, wan.latency_s)}")
            origins = np.array([own or drawn for own, drawn in zip(jobs.origin, origins, strict=True)], object)
        return origins

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes."""
        return {"job_class": list(self.params.job_classes)}

    def carry(self) -> dict[str, np.ndarray]:
        """How much of the file is over; the jobs of the last step come at the next world's first tick."""
        return {"origin_s": np.array(self._origin_s + self._reached_s + self.step_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on where the file was."""
        self._origin_s = float(carry.get("origin_s", self._origin_s))

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The jobs that arrived in the step that ends now, or with routing = arrival will in the one that begins."""
        self._reached_s, at_s = time_s, self._origin_s + time_s
        if self.params.routing == "arrival":
            at_s += self.step_s
        first, end = np.searchsorted(self._arrival_s, (at_s - self.step_s, at_s))
        first, end = max(int(first), self._before), min(int(end), self._end)
        batch: Batch = {}
        names: Batch = {}
        if end > first:
            batch = {name: column[first:end].tolist() for name, column in self._columns.items()}
            if self._origin_s:
                batch |= {name: [t - self._origin_s for t in batch[name]] for name in ("arrival_s", "deadline_s")}
            names = dict(zip(NAME_COLUMNS, (list(batch["id"]), *(
                column[first:end] for column in (self._jobs.names, self._jobs.source_class, self._jobs.priority))),
                strict=True))
        counts = np.bincount(self._class[first:max(first, end)], minlength=len(self.params.job_classes))
        arrived = counts.astype(float).tolist()
        return {eid: {"jobs": batch, "arrived_jobs": arrived, "job_names": names}
                for eid in self.entities["Arrivals"]}

    def notes(self) -> list[str]:
        """What was taken as what, classes and deadlines, and which jobs are outside of the run."""
        said = [self._log.said, *self._jobs.said, *(f"{self.params.path}: {text}" for text in self._log.doubts)]
        if any(self._jobs.origin) and self.params.wan is None:
            said.append(f"where jobs of {self.params.path} come from has no effect: no network (wan) is given")
        if self._before:
            said.append(f"{self._before} jobs of {self.params.path} are before the run begins, and not played")
        end = self._origin_s + self._reached_s + (self.step_s if self.params.routing == "arrival" else 0.0)
        played = min(int(np.searchsorted(self._arrival_s, end)), self._end)
        if played < len(self._arrival_s):
            which = "workload.arrivals_end_s" if played == self._end else "the last step (a longer --until plays them)"
            said.append(f"{len(self._arrival_s) - played} jobs of {self.params.path} arrive after {which}, and are not "
                        "played")
        if not self._log.dated and self.params.scenario_start:
            said.append(f"times of {self.params.path} are counts from t = 0, {self.params.scenario_start[:10]}")
        return [f"{self.sid}: {text}" for text in said]


def _zero_s(log: JobLog, given: JobTableParams) -> float:
    """The instant of t = 0 on the file's scale."""
    if not log.dated:
        return given.begin_s
    if given.begin_s:
        raise ScenarioError(f"workload.begin_s = {given.begin_s:g}, and the times of {given.path} are dates; --set "
                            "start=DATE, from whose midnight on they are played")
    if given.scenario_start is None:
        raise ScenarioError(f"{given.path} has dates, and the date of t = 0 is not known; --set "
                            "workload.scenario_start")
    return instant(given.scenario_start)


def _most_gpus(scenario: Scenario) -> int | None:
    """GPUs of the largest site; None where the scenario has no table of sites."""
    sites = scenario.shared.get("sites")
    if not isinstance(sites, dict):
        return None
    return max((TypeAdapter(Site).validate_python(row).gpus for row in rows_of(sites, "sites").values()), default=None)


def _read(given: JobTableParams) -> tuple[JobLog, FileJobs]:
    try:
        stamp = Path(given.path).stat().st_mtime_ns
    except OSError as err:
        raise ScenarioError(f"{given.path} cannot be read: {err.strerror or err}; give a file of jobs by "
                            "--set workload.path=FILE") from None
    return _read_once(TypeAdapter(JobTableParams).dump_json(given).decode(), stamp)


@lru_cache(maxsize=2)
def _log(path: str, columns: JobRoles, time_zone: str | None, deadlines: str, completed_only: bool,
         left_out_ratio: float, _stamp: int) -> JobLog:
    """The file as it was at `_stamp`, read once whatever is made of it."""
    roles: dict[Role, str] = {role: column for role in NAMES if (column := getattr(columns, role)) is not None}
    return read_job_log(path, roles, time_zone, deadlines, completed_only, left_out_ratio)


@lru_cache(maxsize=4)
def _read_once(given_json: str, stamp: int) -> tuple[JobLog, FileJobs]:
    given = TypeAdapter(JobTableParams).validate_json(given_json)
    log = _log(given.path, given.columns, given.time_zone, given.deadlines, given.completed_only,
               given.max_left_out_ratio, stamp)
    if given.sample_ratio < 1.0:
        log = log.sample(given.sample_ratio)
    made = {name: c for name, c in given.job_classes.items() if name in given.classes_made}
    known = {name: c for name, c in given.job_classes.items() if name not in made}
    rules = ClassRules(given.training, given.inference, given.kinds, given.tokens, given.deadline_run_ratio,
                       given.site_gpus or _NO_LIMIT, known, made)
    return log, jobs_of(log, rules)


if __name__ == "__main__":
    serve(JobTable)
