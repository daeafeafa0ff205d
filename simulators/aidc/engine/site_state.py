"""What a fleet takes from one world into the next: the jobs inside its sites, as arrays of plain numbers.

A day of learning ends at midnight, the work does not. Times are relative to the moment of the cut, which is
the start of the next world. Instants are whole ticks of the clock and a deadline ahead is later than the cut, so the
shift rounds none of them, and running on is bit for bit the same as not having stopped.

Rows: I18.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cosim.errors import ScenarioError
from cosim.simulators.aidc.engine.jobs import Job


class JobState(NamedTuple):
    """One job inside a site; what a model of a site has no use for stays at its default.

    group  inference: -1 waits, else the number of the cohort it runs in; training: -1 deferred, 0 released;
           slots: the bucket h of (15)
    since_s, done_to, blocks  of training: it holds so many blocks since then, and this was done of it until then, TO
    from_s  of training: it works from then on, after a restart
    """

    job: Job
    group: int
    start_s: float = math.nan
    end_s: float = math.inf
    since_s: float = math.nan
    done_to: float = 0.0
    blocks: int = 0
    from_s: float = math.nan


@dataclass(frozen=True, slots=True)
class SiteState:
    """Everything of one site that decides what it does next; lists are per job class, jobs in the order they stand in.

    waiting_to  work of the line of inference as it was summed up, TO; `look_s` when training compares laxities again
    down_racks  racks that have failed
    """

    supply_temp_degc: float
    granted_gpus: list[int]
    waiting_to: list[float]
    look_s: list[float]
    jobs: list[list[JobState]]
    down_racks: int = 0


_JOB_NUMBERS = ("arrival_s", "work_to", "deadline_s", "release_s", "submit_s")
_KEPT_NUMBERS = ("start_s", "end_s", "since_s", "done_to", "from_s")
_JOB_TIMES = ("arrival_s", "deadline_s", "release_s", "submit_s")
_KEPT_TIMES = ("start_s", "end_s", "since_s", "from_s")


def pack(memories: Sequence[SiteState], now_s: float) -> dict[str, np.ndarray]:
    """Memories of sites as arrays, times relative to `now_s`: levels (site,) or (site, class), job columns (job,)."""
    kept = [(i, m, job) for i, memory in enumerate(memories) for m, jobs in enumerate(memory.jobs) for job in jobs]
    arrays = {
        "supply_temp_degc": np.array([memory.supply_temp_degc for memory in memories]),
        "down_racks": np.array([memory.down_racks for memory in memories], dtype=np.int64),
        "granted_gpus": np.array([memory.granted_gpus for memory in memories], dtype=np.int64),
        "waiting_to": np.array([memory.waiting_to for memory in memories], dtype=np.float64),
        "look_s": np.array([memory.look_s for memory in memories], dtype=np.float64) - now_s,
        "jobs/site": np.array([i for i, _, _ in kept], dtype=np.int64),
        "jobs/job_class": np.array([m for _, m, _ in kept], dtype=np.int64),
        "jobs/id": np.array([k.job.id for _, _, k in kept], dtype=np.int64),
    }
    for name in ("group", "blocks"):
        arrays[f"jobs/{name}"] = np.array([getattr(k, name) for _, _, k in kept], dtype=np.int64)
    for name in _JOB_NUMBERS:
        arrays[f"jobs/{name}"] = np.array([getattr(k.job, name) for _, _, k in kept], dtype=np.float64)
    for name in _KEPT_NUMBERS:
        arrays[f"jobs/{name}"] = np.array([getattr(k, name) for _, _, k in kept], dtype=np.float64)
    for name in (*_JOB_TIMES, *_KEPT_TIMES):
        arrays[f"jobs/{name}"] -= now_s
    return arrays


def unpack(arrays: Mapping[str, np.ndarray], job_classes: Sequence[str]) -> list[SiteState]:
    """The memories that `pack` packed, in a world whose time is 0.

    The jobs get new ids, negative and in the order of the old ones: the next world counts its own jobs from 0, and
    equal deadlines are still served by id. Raises ScenarioError if a column is missing.
    """
    lacking = [name for name in ("supply_temp_degc", "granted_gpus", "down_racks", "jobs/site", "jobs/id")
               if name not in arrays]
    if lacking:
        raise ScenarioError(f"what is carried over lacks {', '.join(lacking)}; pass on what carry() gave")
    old = arrays["jobs/id"]
    ids = np.empty(len(old), dtype=np.int64)
    ids[np.argsort(old, kind="stable")] = np.arange(-len(old), 0)
    columns = {name.removeprefix("jobs/"): column.tolist() for name, column in arrays.items() if name[:5] == "jobs/"}
    per_class: list[list[list[JobState]]] = [[[] for _ in job_classes] for _ in arrays["supply_temp_degc"]]
    for row, (i, m) in enumerate(zip(columns["site"], columns["job_class"], strict=True)):
        job = Job(int(ids[row]), job_classes[m], *(columns[name][row] for name in _JOB_NUMBERS))
        numbers = {name: columns[name][row] for name in (*_KEPT_NUMBERS, "blocks")}
        per_class[i][m].append(JobState(job, columns["group"][row], **numbers))
    levels = (arrays[name].tolist() for name in ("supply_temp_degc", "granted_gpus", "waiting_to", "look_s"))
    down = arrays["down_racks"].tolist()
    return [SiteState(supply_degc, granted, waiting_to, look_s, jobs, n) for
            supply_degc, granted, waiting_to, look_s, jobs, n in zip(*levels, per_class, down, strict=True)]
