"""Rows of a cluster trace, layout by layout: when a task was submitted, how long it ran, on what GPUs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from cosim.params import params
from cosim.simulators.workload.rows import instants
from cosim.units import HOUR_S, MIN_S

Unit = Literal["s", "ms", "us", "ns", "min", "h"]

SECONDS: dict[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": MIN_S, "h": HOUR_S}

OPENB_COLUMNS = ("creation_time", "scheduled_time", "deletion_time", "num_gpu", "gpu_milli")

SWF_FIELDS = 18
_PART, _CANCELLED = ("2", "3", "4"), "5"
_STATUS = ("-1", "0", "1", *_PART, _CANCELLED)
_MISSING = ("", "-", "-1", "na", "n/a", "nan", "none", "null")


@params
class TaskColumns:
    """Names of the columns of a CSV of tasks. Its GPU time is run time x GPUs (without a column: one GPU)."""

    submit_s: Annotated[str, Field(min_length=1, description="column of the time of submission: numbers in `unit`, or "
                                   "ISO dates (without an offset: UTC)")] = "submit_s"
    run_s: Annotated[str, Field(min_length=1, description="column of the run time, in `run_unit`")] = "run_s"
    gpus: Annotated[str | None, Field(description="column of the number of GPUs, may be a fraction; null: every task "
                                      "had one")] = "gpus"
    unit: Annotated[Unit, Field(description="unit of the numbers in both columns of time")] = "s"
    run_unit: Annotated[Unit | None, Field(description="unit of the run time; null: as `unit`")] = None

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [self.submit_s, self.run_s, *([self.gpus] if self.gpus is not None else [])]


class Row(NamedTuple):
    """Content of a row.

    kind       "task"; "no GPU", "never ran": it used none; "part" of a job that has a row of its own;
               "unknown": what it used is not known; "malformed"
    submit_s   when it was submitted, s in the file's own count, or since 1970 where `dated`
    run_s      how long it ran, s
    gpus       on how many GPUs; `requested`: as requested, where the number it got is not recorded
    job        number of the job (SWF)
    wrong      what is wrong with a row of the last two kinds
    """

    kind: str
    submit_s: float = math.nan
    run_s: float = 0.0
    gpus: float = 0.0
    dated: bool = False
    requested: bool = False
    job: str = ""
    wrong: str = ""


def openb(fields: Sequence[str]) -> Row:
    """A row of openb (`OPENB_COLUMNS`): a task that was never scheduled has not run; one without an end still did."""
    created, scheduled, deleted, gpus, milli = (text.strip() for text in fields)
    numbers = _numbers(created, scheduled or "0", deleted or "0", gpus, milli or "0")
    if numbers is None:
        return _malformed(f"'{','.join(fields)}' are not numbers >= 0")
    submit_s, begin_s, end_s, count, share = numbers
    if count == 0.0 or not scheduled:
        return _used(submit_s, 0.0, count)
    if share == 0.0:
        return Row("unknown", submit_s, wrong=f"num_gpu is {gpus} and gpu_milli '{milli}'")
    if not deleted:
        return Row("unknown", submit_s, wrong="it has no deletion_time")
    if end_s < begin_s:
        return _malformed(f"it ends at {end_s:g} s, before it begins at {begin_s:g} s")
    return _used(submit_s, end_s - begin_s, count * share / 1000.0)


def swf(fields: Sequence[str]) -> Row:
    """A line of the Standard Workload Format (2.2), where -1 is 'unknown'. Processors are those allocated (field 5),
    else those requested (field 8). Status (field 11): 2, 3 and 4 are parts of a job that has a line of its own."""
    if len(fields) != SWF_FIELDS:
        return _malformed(f"it has {len(fields)} fields, a line of SWF has {SWF_FIELDS}")
    job, submit, run, status = fields[0], fields[1], fields[3], fields[10]
    allocated, asked = fields[4], fields[7]
    values = _numbers(submit, run, allocated, asked, unknown=("-1", "-1.0"))
    if values is None or values[0] < 0.0 or status not in _STATUS:
        return _malformed(f"fields 2, 4, 5, 8 and 11 are '{submit} {run} {allocated} {asked} {status}', not numbers "
                          ">= 0 (or -1) and a status")
    submit_s, run_s, processors, requested = values
    if status in _PART:
        return Row("part", submit_s, job=job, wrong=f"it is a part of job {job}, which has no line of its own")
    if run_s == 0.0 or (run_s < 0.0 and status == _CANCELLED):
        return Row("never ran", submit_s, job=job)
    if run_s < 0.0:
        return Row("unknown", submit_s, job=job, wrong="its run time (field 4) is not known")
    if processors > 0.0 or (processors == 0.0 and requested <= 0.0):
        return _used(submit_s, run_s, processors, job=job)
    if processors < 0.0 < requested:
        return _used(submit_s, run_s, requested, job=job, requested=True)
    return Row("unknown", submit_s, job=job, wrong=f"it ran for {run_s:g} s on '{allocated}' processors (field 5) and "
               f"had asked for '{asked}' (field 8)")


def mapped(fields: Sequence[str], columns: TaskColumns) -> Row:
    """A row of a CSV: the cells of `columns.names`."""
    submit, run, gpus = (text.strip() for text in (*fields, "1")[:3])
    at, run_unit_s = number(submit), SECONDS[columns.run_unit or columns.unit]
    date = instants([submit]) if at is None else None
    if date is not None:
        submit_s = date.astype(np.int64).item() / 1e9
    elif at is not None:
        submit_s = at * SECONDS[columns.unit]
    else:
        return _malformed(f"{columns.submit_s} = '{submit}' is neither a number >= 0 nor an ISO date")
    run_s, count, dated = number(run), number(gpus), date is not None
    if count == 0.0:
        return Row("no GPU", submit_s, dated=dated)
    for name, text, value in ((columns.run_s, run, run_s), (columns.gpus, gpus, count)):
        if value is None:
            missing = text.lower() in _MISSING
            return Row("unknown" if missing else "malformed", submit_s, dated=dated,
                       wrong=f"{name} is '{text}'" + ("" if missing else ", which is no number >= 0"))
    assert run_s is not None
    assert count is not None
    return _used(submit_s, run_s * run_unit_s, count, dated=dated)


def number(text: str) -> float | None:
    """A finite number >= 0, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf and "_" not in text else None


def _numbers(*texts: str, unknown: Collection[str] = ()) -> list[float] | None:
    """`number` of each, -1 for what stands for 'unknown'; None if one of them is none."""
    found = [-1.0 if text in unknown else number(text) for text in texts]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _used(submit_s: float, run_s: float, gpus: float, dated: bool = False, requested: bool = False, job: str = ""
          ) -> Row:
    kind = "no GPU" if gpus == 0.0 else "never ran" if run_s == 0.0 else "task"
    return Row(kind, submit_s, run_s, gpus, dated, requested, job)


def _malformed(wrong: str) -> Row:
    return Row("malformed", wrong=wrong)
