"""Jobs on their way through a site: the clock they are timed on, the batch they come in, the rows they end as."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import NamedTuple

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.simulators.fleet import BATCH_COLUMNS

TICKS_PER_S = 2.0**26
"""Instants of a facility are whole ticks of 2^-26 s (15 ns). Up to four years such numbers, their sums and
differences are exact in a float: `now + (at - now)` is `at`, a job that ends when its deadline falls due ends at the
same number, and an event fires at the time it was set for, not an ulp beside it."""

FINISHED, DROPPED, UNFINISHED = "finished", "dropped", "unfinished"


class Job(NamedTuple):
    """One job as it was submitted; times in absolute seconds, work in TO."""

    id: int
    job_class: str
    arrival_s: float
    work_to: float
    deadline_s: float
    release_s: float
    submit_s: float


_NUMBERS = (*BATCH_COLUMNS[2:], "release_s")

Row = tuple
"""One job as it left the site, or as it was left inside: a row of the trace's job table, see ROW_COLUMNS."""

ROW_COLUMNS = (
    "id", "job_class", "site", "arrival_s", "submit_s", "release_s",
    "start_s",  # first time it held GPUs, NaN if never
    "end_s",  # when it finished or was dropped, NaN if it is still inside
    "deadline_s", "work_to",
    "done_to",  # work done; of a dropped job it is lost
    "gpus",  # held from start_s to its end; NaN where the table of runs has them, or it never started
    "outcome",  # finished, dropped or unfinished
)  # fmt: skip


Run = tuple
"""GPUs that one job held from one time to another: a row of the trace's table of runs, see RUN_COLUMNS."""

RUN_COLUMNS = ("id", "site", "start_s", "end_s", "gpus")


def nearest_tick(time_s: float) -> float:
    """The instant of the clock nearest to a time: equal times stay equal, a job done at its deadline is in time."""
    return round(time_s * TICKS_PER_S) / TICKS_PER_S


def tick_after(time_s: float) -> float:
    """The first instant not before a time (releases: nothing starts early)."""
    return math.ceil(time_s * TICKS_PER_S) / TICKS_PER_S


def row_of(job: Job, site: str, start_s: float, end_s: float, done_to: float, outcome: str,
           gpus: float = math.nan) -> Row:
    """The row of a job that ends (or is left) in this state."""
    id_, name, arrival_s, work_to, deadline_s, release_s, submit_s = job
    return (id_, name, site, arrival_s, submit_s, release_s, start_s, end_s, deadline_s, work_to, done_to,
            gpus, outcome)


def jobs_of(batch: Mapping[str, list], site: str, now_s: float) -> list[Job]:
    """The jobs of a batch submitted to a site now.

    Columns: those of the workload (BATCH_COLUMNS) and `release_s`; without it every job is released now. A `site`
    column, if there is one, must name this site. Raises ModelError for other columns missing, of unequal length or
    with values that are no finite numbers, and for work that is not positive.
    """
    if not batch:
        return []
    missing = [name for name in BATCH_COLUMNS if name not in batch]
    if missing:
        raise ModelError(f"{site}: the job batch lacks {', '.join(missing)}; it has {', '.join(sorted(batch))}")
    rows = len(batch["id"])
    uneven = [name for name, column in batch.items() if len(column) != rows]
    if uneven:
        raise ModelError(f"{site}: columns of the job batch differ in length: {rows} ids, not so {', '.join(uneven)}")
    if "site" in batch and (strangers := set(batch["site"]) - {site}):
        raise ModelError(f"{site}: the job batch holds jobs for {', '.join(map(repr, sorted(strangers)))}")
    numbers = {name: batch[name] for name in _NUMBERS if name in batch}
    if not _all_finite(numbers.values()):
        _refuse_infinite(numbers, site)
    if min(batch["work_to"], default=1.0) <= 0:
        raise ModelError(f"{site}: work_to of the job batch holds {min(batch['work_to']):g}; it must be positive")
    columns = [batch[name] for name in BATCH_COLUMNS]
    release_s = batch["release_s"] if "release_s" in batch else repeat(now_s, rows)
    rows_of = zip(*columns, release_s, repeat(now_s, rows), strict=True)
    return list(map(tuple.__new__, repeat(Job), rows_of))  # `Job._make` without its check of their number


def reach_times(batch: Mapping[str, list]) -> dict[int, float]:
    """Id -> when the job comes in at the site, of a batch with the column `reaches_s`; {} of any other."""
    return dict(zip(batch["id"], batch["reaches_s"], strict=True)) if "reaches_s" in batch else {}


def batch_of(rows: Iterable[Row | Run], names: tuple[str, ...] = ROW_COLUMNS) -> Batch:
    """Rows as a batch of plain lists, one per name; {} if there are none."""
    columns = list(map(list, zip(*rows, strict=True)))
    return dict(zip(names, columns, strict=True)) if columns else {}


def _all_finite(columns: Iterable[list]) -> bool:
    """Whether a quick check of sums decides it; a sum that overflows, or another type than numbers, needs the full
    one."""
    try:
        return math.isfinite(sum(map(sum, columns)))
    except TypeError:
        return False


def _refuse_infinite(columns: Mapping[str, list], site: str) -> None:
    for name, column in columns.items():
        try:
            good = all(map(math.isfinite, column))
        except TypeError:
            good = False
        if not good:
            raise ModelError(f"{site}: {name} of the job batch holds {_first_bad(column)!r}; finite numbers only")


def _first_bad(column: list) -> object:
    return next(v for v in column if not isinstance(v, (int, float)) or not math.isfinite(v))
