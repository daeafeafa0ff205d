"""Which column of a table of jobs is what: roles by the names that schedulers and published logs give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cosim.errors import ScenarioError, listed, shown, unknown
from cosim.simulators.workload.layouts import SECONDS

Role = Literal["id", "job_class", "arrival", "start", "end", "run", "work_to", "gpu_seconds", "tokens", "input_tokens",
               "output_tokens", "gpus", "gpu_milli", "instances", "deadline", "priority", "origin", "state",
               "time_zone"]

NAMES: dict[Role, tuple[str, ...]] = {
    "id": ("id", "jobid", "jobidraw", "jobnumber", "job", "requestid", "taskid", "podid", "instancesn", "jobname",
           "name", "taskname", "uuid"),
    "job_class": ("jobclass", "class", "jobtype", "jobtypepublic", "workloadtype", "tasktype", "type", "kind",
                  "category", "logtype", "qos", "partition"),
    "arrival": ("arrival", "arrivaltime", "arrived", "arrivedat", "submit", "submittime", "submitted", "submittedtime",
                "submittedat", "submissiontime", "submission", "creationtime", "createtime", "created", "createdat",
                "timestamp", "datetime", "time", "date"),
    "start": ("start", "starttime", "started", "startedat", "scheduledtime", "begin", "begintime"),
    "end": ("end", "endtime", "ended", "endedat", "finish", "finishtime", "finished", "finishedat", "deletiontime",
            "completiontime", "stoptime"),
    "run": ("elapsedraw", "run", "runtime", "duration", "elapsed", "elapsedtime", "walltime", "runningtime",
            "executiontime", "exectime"),
    "work_to": ("workto",),
    "gpu_seconds": ("gpuseconds", "gpusecs", "gpusec", "gputime", "gpuhours", "gpuminutes"),
    "tokens": ("tokens", "totaltokens", "numtokens"),
    "input_tokens": ("contexttokens", "inputtokens", "prompttokens", "requesttokens", "inputlength", "promptlength",
                     "numprompttokens", "inputlen", "promptlen"),
    "output_tokens": ("generatedtokens", "outputtokens", "completiontokens", "responsetokens", "outputlength",
                      "answertokens", "numdecodetokens", "outputlen"),
    "gpus": ("gpus", "gpu", "ngpus", "numgpus", "numgpu", "gpunum", "gpucount", "gpurequest", "gpusrequested",
             "requestedgpus", "allocgpus", "reqgpus", "plangpu", "alloctres", "allocgres", "reqtres", "reqgres"),
    "gpu_milli": ("gpumilli",),
    "instances": ("instnum", "numinst", "workernum", "numworkers", "instances"),
    "deadline": ("deadline", "due", "duetime", "duedate", "dueat"),
    "priority": ("priority", "prio", "priorityclass"),
    "origin": ("origin", "clientregion", "sourceregion", "region"),
    "state": ("state", "status", "jobstate", "podphase"),
    "time_zone": ("timezone", "tz"),
}
"""Names of each role without case, spaces and underscores, the first that a table has is taken."""

_UNITS = {"s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms",
          "milliseconds": "ms", "us": "us", "ns": "ns", "min": "min", "mins": "min", "minutes": "min", "h": "h",
          "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "d": "d", "days": "d"}
UNIT_S: dict[str, float] = {**SECONDS, "d": 86400.0}
"""Seconds of each unit of time."""
_TIMES = ("arrival", "start", "end", "run", "gpu_seconds", "deadline")
_GPU_SECONDS = re.compile(r"gpu_(s|sec|secs|min|mins|h|hr|hrs|ms)$")
_TRES = ("alloctres", "reqtres", "allocgres", "reqgres")

_SIGNS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Azure LLM inference trace", frozenset({"timestamp", "contexttokens", "generatedtokens"})),
    ("BurstGPT", frozenset({"timestamp", "requesttokens", "responsetokens"})),
    ("Mooncake", frozenset({"timestamp", "inputlength", "outputlength"})),
    ("Alibaba openb (GPU trace of 2023)", frozenset({"numgpu", "gpumilli", "creationtime", "deletiontime"})),
    ("Alibaba GPU trace of 2025", frozenset({"instancesn", "gpurequest", "creationtime", "deletiontime"})),
    ("Alibaba GPU trace of 2026", frozenset({"workernum", "gpurequest", "submittime", "duration"})),
    ("Alibaba PAI (GPU trace of 2020)", frozenset({"plangpu", "starttime", "endtime"})),
    ("Acme (Seren, Kalos)", frozenset({"gpunum", "submittime", "duration", "gputime"})),
    ("Helios", frozenset({"vc", "gpunum", "submittime", "duration"})),
    ("Slurm accounting (sacct)", frozenset({"jobid", "submit", "state"})),
    ("Slurm accounting (sacct)", frozenset({"jobidraw", "submit", "state"})),
)
"""Published layouts and columns that mark them; of those that a table has, the first is its name."""


class Name(NamedTuple):
    """A column's name taken apart: plain without case, separators and unit; unit of time it states, '' for none."""

    plain: str
    unit: str
    whole: str


@dataclass(frozen=True)
class JobColumns:
    """What is read of a table of jobs.

    layout   its name for people
    columns  role -> column; units: role -> unit of time that the column's name states
    unused   columns that play no part
    """

    layout: str
    columns: Mapping[Role, str]
    units: Mapping[Role, str]
    unused: tuple[str, ...]

    def name_of(self, role: Role) -> str:
        """The plain name of a role's column; '' for none."""
        return plain(self.columns[role]).plain if role in self.columns else ""

    @property
    def percent(self) -> bool:
        """Whether its GPUs are hundredths of one (PAI's plan_gpu)."""
        return self.name_of("gpus") == "plangpu"

    @property
    def tres(self) -> bool:
        """Whether its GPUs stand in a list of Slurm's trackable resources."""
        return self.name_of("gpus") in _TRES


def plain(column: str) -> Name:
    """A name taken apart: 'Request tokens' -> requesttokens, 'submit_ms' -> submit in ms."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    snake = re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")
    whole = snake.replace("_", "")
    if (gpu := _GPU_SECONDS.match(snake)) is not None:
        return Name("gpuseconds", _UNITS[gpu[1]], whole)
    first, _, last = snake.rpartition("_")
    if first and last in _UNITS:
        return Name(first.replace("_", ""), _UNITS[last], whole)
    for word in ("hours", "minutes", "seconds"):
        if whole.startswith("gpu") and whole == f"gpu{word}":
            return Name(whole, _UNITS[word], whole)
    return Name(whole, "", whole)


def layout_of(names: Sequence[str], path: str, given: Mapping[Role, str] | None = None) -> JobColumns:
    """The roles of a table's columns, by their names and as `given`.

    ScenarioError, with what was found and what is needed, for a table whose columns do not state when jobs arrive and
    what work they are; for a column that is given and not there.
    """
    taken: dict[Role, str] = {}
    for role, column in (given or {}).items():
        found = next((n for n in names if n.strip().lower() == column.strip().lower()), None)
        if found is None:
            raise ScenarioError(f"workload.columns.{role}: {path}: {unknown('column', column, list(names))}")
        taken[role] = found
    apart = {name: plain(name) for name in names}
    for role, known in NAMES.items():
        if role in taken:
            continue
        free = [n for n in names if n not in taken.values()]
        for wanted in known:
            match = next((n for n in free if wanted in (apart[n].whole, _stem(apart[n], role))), None)
            if match is not None:
                taken[role] = match
                break
    _settle(taken, given or {})
    units = {role: apart[column].unit for role, column in taken.items() if role in _TIMES and apart[column].unit}
    plains = {n.whole for n in apart.values()} | {n.plain for n in apart.values()}
    layout = next((name for name, sign in _SIGNS if sign <= plains), "table of jobs")
    columns = JobColumns(layout, taken, units, tuple(n for n in names if n not in taken.values()))
    _check(columns, names, path)
    return columns


def _stem(name: Name, role: Role) -> str:
    """The name without its unit, for roles that have one."""
    return name.plain if role in _TIMES else ""


def _settle(taken: dict[Role, str], given: Mapping[Role, str]) -> None:
    """Roles that exclude each other: a start is the arrival where nothing else is; the sum of two counts of tokens."""
    if "arrival" not in taken and "start" in taken:
        taken["arrival"] = taken["start"]
    if "input_tokens" in taken and "output_tokens" in taken and "tokens" not in given:
        taken.pop("tokens", None)
    if "gpus" not in taken and "gpu_milli" in taken:
        del taken["gpu_milli"]


def _check(found: JobColumns, names: Sequence[str], path: str) -> None:
    have = found.columns
    work = ("work_to" in have or "gpu_seconds" in have or "tokens" in have or "input_tokens" in have
            or "output_tokens" in have or "run" in have or ("start" in have and "end" in have)
            or ("arrival" in have and "end" in have and have["arrival"] == have.get("start")))
    missing = [text for text, there in (("when a job arrives (arrival)", "arrival" in have),
                                        ("its work (work_to, gpu_seconds, tokens, or duration and gpus)", work))
               if not there]
    if missing:
        ours = ", ".join(f"{column} as {role}" for role, column in have.items()) or "none of them is known"
        raise ScenarioError(
            f"{path} has the columns {listed(names) if names else shown('')} ({ours}), and none for "
            f"{' nor '.join(missing)}; rename them, or say which they are: --set workload.columns.arrival=NAME, "
            ".work_to=, .gpu_seconds=, .tokens=, .run=, .gpus=")
