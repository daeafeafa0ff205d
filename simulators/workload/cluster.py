"""Batch jobs of a real GPU cluster as training jobs, beside stochastic arrivals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.adapter import serve
from cosim.errors import ScenarioError
from cosim.params import params
from cosim.simulators.workload.adapter import BLOCK_STEPS, Scale, SizeScale, Source
from cosim.simulators.workload.layouts import TaskColumns
from cosim.simulators.workload.origin import lead_s, note, pass_s
from cosim.simulators.workload.tasks import Format, Survey, TaskFile
from cosim.simulators.workload.traced import Traced, TracedParams
from cosim.units import MIN_S, Seconds, format_time


@params(kw_only=True)
class ClusterTraceParams(TracedParams):
    """Parameters of `ClusterTrace`."""

    trace_class: Annotated[str, Field(min_length=1, description="training class that the tasks belong to")]
    format: Annotated[Format, Field(description="openb, swf, or csv with `columns`")] = "openb"
    columns: Annotated[TaskColumns, Field(description="columns of a csv")] = TaskColumns()
    begin_s: Annotated[Seconds, Field(ge=0, description="leave out what the trace has before this time, in its own "
                                      "count; of dates, since its first row")] = 0.0
    time_scale: Annotated[SizeScale, Field(description="times all times between tasks; 0.5 is twice as fast")] = 1.0
    trace_rate_scale: Annotated[Scale, Field(le=1000, description="mean number of times a task occurs")] = 1.0
    trace_work_scale: Annotated[SizeScale, Field(description="times the work of every task")] = 1.0
    repeat: Annotated[bool, Field(description="start again at the next whole minute after the last task")] = False


class ClusterTrace(Traced):
    """Tasks of a GPU-cluster trace as training jobs of one class, beside stochastic arrivals of others.

    The first task after `begin_s` comes at t = 0, or at its date (`origin`). The work of a task is the GPU time it took
    in the trace at the speed xi of the class's GPUs, times `trace_work_scale`; how many GPUs it runs on here is
    decided by its class and the agents, its deadline is that of its class. `trace_rate_scale` = k lets each task occur
    floor(k) times, and once more with the probability of the fraction, at the same instant. The file is read as a
    stream while the run goes on, after one pass for its length; the size scales of the stochastic classes do not apply
    to tasks.
    """

    PARAMS = ClusterTraceParams
    _ahead: tuple[float, float] | None
    """The task that comes next: when, s, and its GPU time, GPU s."""

    @classmethod
    def placed(cls, params: ClusterTraceParams) -> tuple[float, float]:
        """As of `Traced`."""
        survey = _survey_of(params)
        lead = lead_s(params.origin, params.path, survey.first_unix_s, params.scenario_start)
        return lead, _length_s(survey, params)

    @classmethod
    def last_task_s(cls, params: ClusterTraceParams) -> float:
        """When the last task of the trace was submitted, in the trace's own count. ScenarioError for the trace."""
        return _survey_of(params).last_s

    @classmethod
    def offered_jobs_per_min(cls, params: ClusterTraceParams) -> dict[str, tuple[float, float]]:
        """Those of the stochastic arrivals, and the trace's own while it lasts. ScenarioError as for the trace."""
        offered, survey = super().offered_jobs_per_min(params), _survey_of(params)
        if params.trace_class in params.job_classes:
            rate = params.trace_rate_scale * survey.tasks / (_length_s(survey, params) / MIN_S)
            offered[params.trace_class] = (rate, survey.gpu_s / survey.tasks * _to_per_gpu_s(params))
        return offered

    def setup(self) -> None:
        """Open the trace. ScenarioError if the class is not a training class of its own, or for the trace itself."""
        super().setup()
        p = self.params
        self._trace_class = self._class_of_trace(p.trace_class, "train", "tasks of a cluster are training")
        if p.trace_class in p.arrivals:
            raise ScenarioError(f"{self.sid}.arrivals has a rate for '{p.trace_class}', whose jobs come from the trace")
        self._survey = _survey_of(p)
        self._lead_s, _ = self.placed(p)
        self._copies = self.stream("copies of tasks")
        self._begin(0.0)

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """As `Arrivals`; the trace goes on where it was."""
        super().resume(carry)
        self._begin(self._origin_s)

    def notes(self) -> list[str]:
        """Rows left out, tasks that came, and whether the trace ran dry."""
        p, survey, reached_s = self.params, self._survey, self._origin_s + self._steps * self.step_s
        said = super().notes()
        said += [f"{self.sid}: {text}" for text in note(p.origin, p.path, survey.first_unix_s, p.scenario_start)]
        said += [f"{self.sid}: {line}" for line in _about(survey, p)]
        over_s = self._lead_s + _length_s(survey, p)
        if not p.repeat and reached_s > over_s:
            said.append(f"{self.sid}: the trace ended at {format_time(over_s)}; the remaining "
                        f"{(reached_s - over_s) / MIN_S:g} min had no tasks from it")
        return said

    def _sources(self, first_s: float) -> list[Source]:
        """As `Arrivals`, and the tasks of the block."""
        end_s = self._origin_s + first_s + BLOCK_STEPS * self.step_s
        times: list[float] = []
        gpu_s: list[float] = []
        while self._ahead is not None and self._ahead[0] < end_s:
            times.append(self._ahead[0])
            gpu_s.append(self._ahead[1])
            self._ahead = next(self._played, None)
        scale = self.params.trace_rate_scale
        copies = math.floor(scale) + (self._copies.random(len(times)) < scale % 1.0)
        works = np.array(gpu_s) * _to_per_gpu_s(self.params)
        at_s = self._in_world(np.array(times), first_s)
        return [*super()._sources(first_s), (self._trace_class, np.repeat(at_s, copies), np.repeat(works, copies))]

    def _begin(self, from_s: float) -> None:
        """Read up to the first task not before `from_s` after the start of the trace."""
        self._played = self._play(from_s)
        self._ahead = next((task for task in self._played if task[0] >= from_s), None)

    def _play(self, from_s: float) -> Iterator[tuple[float, float]]:
        """Times since t = 0 (s) and GPU times (GPU s), pass after pass under `repeat`; passes that end before `from_s`
        are left out."""
        p, length_s = self.params, _length_s(self._survey, self.params)
        passes = (from_s - self._lead_s) // length_s
        if not p.repeat:
            passes = max(passes, 0.0)  # before its dates there is nothing
        while p.repeat or not passes:
            shift_s = self._lead_s + passes * length_s
            for submit_s, gpu_s in _file_of(p):
                yield shift_s + (submit_s - self._survey.first_s) * p.time_scale, gpu_s
            passes += 1.0


def _file_of(p: ClusterTraceParams) -> TaskFile:
    return TaskFile(p.path, p.format, p.columns, p.begin_s, p.max_left_out_ratio)


def _survey_of(p: ClusterTraceParams) -> Survey:
    try:
        stamp = Path(p.path).stat().st_mtime_ns
    except OSError as err:
        raise ScenarioError(f"trace {p.path} cannot be read: {err}; give the file of the trace by path") from None
    return _survey(p.path, p.format, p.columns, p.begin_s, p.max_left_out_ratio, stamp)


@lru_cache(maxsize=16)
def _survey(path: str, kind: Format, columns: TaskColumns, begin_s: float, left_out_ratio: float, stamp: int) -> Survey:
    """One pass through the file as it was at `stamp`."""
    return TaskFile(path, kind, columns, begin_s, left_out_ratio).read()


def _about(survey: Survey, p: ClusterTraceParams) -> list[str]:
    """Rows of the trace that are no tasks, or counted with a doubt."""
    said = []
    if survey.left_out.rows:
        said.append(f"{survey.left_out.rows} rows of {p.path} were left out: {survey.left_out.about()}")
    if survey.before:
        said.append(f"{survey.before} rows of {p.path} are before begin_s = {p.begin_s:g} and not played")
    if survey.no_gpu or survey.never_ran:
        said.append(f"{survey.no_gpu} rows of {p.path} used no GPU and {survey.never_ran} never ran (no run time): no "
                    "tasks")
    if survey.parts:
        said.append(f"{survey.parts} lines of {p.path} are parts (status 2, 3, 4) of jobs that are counted by a line "
                    "of their own")
    if survey.requested:
        said.append(f"{survey.requested} tasks of {p.path} are counted with the processors requested (field 8), as the "
                    "allocated ones (field 5) are unknown")
    return said + [f"{p.path}: {line}" for line in survey.doubts]


def _length_s(survey: Survey, p: ClusterTraceParams) -> float:
    """How long one pass of the trace is, s."""
    return pass_s((survey.last_s - survey.first_s) * p.time_scale)


def _to_per_gpu_s(p: ClusterTraceParams) -> float:
    """Work of one GPU second of the trace, TO."""
    return p.job_classes[p.trace_class].to_per_gpu_min / MIN_S * p.trace_work_scale


if __name__ == "__main__":
    serve(ClusterTrace)
