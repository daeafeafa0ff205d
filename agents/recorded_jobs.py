"""A scenario's jobs replaced by recorded ones at its own load, so that what differs is when jobs come and how large
each is: requests of an LLM service in place of an inference class, tasks of a GPU cluster in place of the training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.scenario import Scenario, rows_of
from cosim.tables.files import table_suffix
from cosim.units import DAY_S

_REQUESTS = "cosim.simulators.workload.azure_llm:AzureLlm"
_TASKS = "cosim.simulators.workload.cluster:ClusterTrace"
_HOUR_AS_A_DAY = 24.0
_PLAYED_DAYS = 28.0
"""Traces of clusters begin with months in which they fill up."""


def _offered(simulator: Any, scenario: Scenario, params: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Class -> (jobs/min, TO) that a workload offers."""
    made = simulator.PARAMS(**{"job_classes": scenario.shared["job_classes"], **params})
    return simulator.offered_jobs_per_min(made)


def _synthetic(scenario: Scenario) -> Mapping[str, Any] | None:
    """The parameters of the scenario's arrivals; None where they are not those of (39)."""
    member = scenario.members.get("workload")
    if member is None or not member.simulator.endswith(".workload.adapter:Arrivals"):
        return None
    return member.params


def _usual(scenario: Scenario, params: Mapping[str, Any], kind: str) -> dict[str, tuple[float, float]]:
    """Class of a kind -> (jobs/min, TO), of those that come."""
    offered = _offered(load(scenario.members["workload"].simulator, "member 'workload'"), scenario, params)
    rows = rows_of(scenario.shared["job_classes"], "job_classes")
    return {name: both for name, both in offered.items() if rows[name]["kind"] == kind and both[0] > 0.0}


def _settings(simulator: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"workload.simulator": simulator, **{f"workload.{name}": value for name, value in params.items()}}


def with_requests(scenario: Scenario, path: str) -> dict[str, Any] | None:
    """Settings with which the most frequent inference class comes as the requests of a trace (CSV of the Azure LLM
    inference trace): an hour of it is a day, which repeats, with that class's mean rate and mean work. None where the
    scenario has no such arrivals. ScenarioError for the trace."""
    params = _synthetic(scenario)
    usual = {} if params is None else _usual(scenario, params, "inf")
    if params is None or not usual:
        return None
    busiest = max(usual, key=lambda name: usual[name][0])
    fixed = {"path": path, "trace_class": busiest, "time_scale": _HOUR_AS_A_DAY, "repeat": True,
             "arrivals": {name: row for name, row in params["arrivals"].items() if name != busiest}}
    rate, work = _offered(load(_REQUESTS, "workload"), scenario, {**params, **fixed})[busiest]
    return _settings(_REQUESTS, {**fixed, "trace_rate_scale": usual[busiest][0] / rate,
                                 "trace_work_scale": usual[busiest][1] / work})


def with_tasks(scenario: Scenario, path: str) -> dict[str, Any] | None:
    """Settings with which the tasks of a cluster's trace (openb; SWF where the file is called so) are all the training
    that comes: each with the GPU time that it had, the last four weeks of the trace, repeated and on a time axis on
    which they offer as much work as the scenario's training. They are jobs of the class that may take most GPUs; a task
    that is longer than this class can do by its deadline is dropped. None where the scenario has no such arrivals.
    ScenarioError for the trace."""
    params = _synthetic(scenario)
    usual = {} if params is None else _usual(scenario, params, "train")
    if params is None or not usual:
        return None
    rows = rows_of(scenario.shared["job_classes"], "job_classes")
    widest = max(usual, key=lambda name: rows[name].get("gpus_per_block", 1) * rows[name].get("max_blocks", 1))
    tasks = load(_TASKS, "workload")
    fixed = {"path": path, "trace_class": widest, "repeat": True,
             "format": "swf" if table_suffix(path) == ".swf" else "openb",
             "arrivals": {name: row for name, row in params["arrivals"].items() if rows[name]["kind"] != "train"}}
    fixed["begin_s"] = max(0.0, tasks.last_task_s(tasks.PARAMS(job_classes=scenario.shared["job_classes"], **fixed))
                           - _PLAYED_DAYS * DAY_S)
    wanted, time_scale = sum(jobs * each for jobs, each in usual.values()), 1.0
    for _ in range(2):  # a pass ends on a whole minute, which matters where it is short
        rate, work = _offered(tasks, scenario, {**params, **fixed, "time_scale": time_scale})[widest]
        time_scale *= rate * work / wanted
    return _settings(_TASKS, {**fixed, "time_scale": time_scale})


RECORDED: Mapping[str, Callable[[Scenario, str], dict[str, Any] | None]] = {
    "requests": with_requests, "tasks": with_tasks}
"""What a trace is of -> the settings that put it in the place of a scenario's own jobs."""


def settings_with(scenario: Scenario, what: str, path: str) -> dict[str, Any]:
    """As RECORDED. ScenarioError where the scenario has no jobs that recorded ones could take the place of."""
    found = RECORDED[what](scenario, path)
    if found is None:
        raise ScenarioError(f"{scenario.name} has no arrivals whose place the {what} of {path} could take; leave "
                            f"--{what} out")
    return found


def add_recorded(p: argparse.ArgumentParser, when: str) -> None:
    """`--requests FILE` and `--tasks FILE`. when: what the help begins with."""
    p.add_argument("--requests", metavar="FILE", help=f"{when}the most frequent inference class as the requests of "
                   "this trace (CSV of the Azure LLM inference trace), at its usual load")
    p.add_argument("--tasks", metavar="FILE", help=f"{when}training as the tasks of this trace of a GPU cluster (CSV "
                   "of openb, or SWF), at its usual load")


def recorded_of(args: argparse.Namespace) -> dict[str, str]:
    """What a trace is of -> its file, of those that were given."""
    return {what: path for what in RECORDED if (path := getattr(args, what)) is not None}
