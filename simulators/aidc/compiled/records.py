"""What the compiled fleet is made of: records of sites, classes, jobs, and the arrays that hold them.

A lane is one site of one environment; lanes stand one after the other, environment by environment. Every array has the
lanes as its first axis, so that one lane's part is a view. Lists inside a lane (waiting, running jobs) are linked by
the places of their members in the lane's table; NOBODY ends them, and the free places are such a list, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NOBODY = -1
FINISHED, DROPPED = 0, 1
OUTCOMES = ("finished", "dropped")
"""What became of a job in a `LEFT` row."""

SITE = np.dtype([
    ("now_s", "f8"),
    ("alarm_s", "f8"),  # something is due then: a deadline, a release, an end of training
    ("since_s", "f8"),  # the GPUs in use stand since then
    ("up_gpus", "i8"), ("rack_gpus", "i8"),
    ("regroup", "i8"), ("news", "i8"),  # as of `Facility`; 0 or 1
    ("started", "i8"),  # cohorts so far: those that end at one instant do so in the order of their starts
    ("running", "i8"),  # cohorts in the heap of ends
    ("free_job", "i8"), ("free_cohort", "i8"),  # first of the free places
    ("jobs", "i8"), ("tickets", "i8"),  # inference jobs inside; tickets given so far, each once in a lane
    ("failure", "i8"), ("row", "i8"),  # next of the failures and repairs of this call, next row of who left
], align=True)  # fmt: skip

CLASS = np.dtype([
    ("granted_gpus", "i8"), ("busy_gpus", "i8"), ("next_s", "f8"),
    ("stood_gpus", "i8"), ("due", "i8"),  # busy since the lane's `since_s`; whether `next_s` has come
    # counted between two reads, as of `Tally`
    ("received", "i8"), ("finished", "i8"), ("dropped", "i8"),
    ("trim_to", "f8"), ("finished_to", "f8"), ("missed_to", "f8"), ("failed_to", "f8"), ("busy_gpu_s", "f8"),
    # of a line of inference: its ends, and as of `InferenceQueue`
    ("head", "i8"), ("tail", "i8"), ("queued", "i8"), ("waiting_to", "f8"),
    ("ordered", "i8"), ("tail_s", "f8"),
    ("indexed", "i8"), ("dues", "i8"),  # tickets below are in the heap of deadlines; its length
    ("first", "i8"), ("last", "i8"),  # cohorts that run, in the order of their starts
    # of a pool of training, as of `TrainingPool`
    ("held", "i8"), ("allotted", "i8"), ("stale", "i8"), ("look_s", "f8"), ("counted_s", "f8"),
    ("active", "i8"), ("deferred", "i8"),
], align=True)  # fmt: skip

FACT = np.dtype([  # of a class at a site, for good; place: its number among those of its kind
    ("train", "i8"), ("place", "i8"), ("site_gpus", "i8"), ("gpus_per_block", "i8"), ("max_blocks", "i8"),
    ("most", "i8"), ("by_laxity", "i8"), ("loses", "i8"), ("to_per_s", "f8"), ("top_to_per_s", "f8"),
    ("gpu_s_per_to", "f8"), ("restart_s", "f8"), ("cycle_s", "f8"),
], align=True)  # fmt: skip

JOB = np.dtype([  # of inference
    ("id", "i8"), ("work_to", "f8"), ("deadline_s", "f8"), ("ticket", "i8"), ("waits", "i8"),
    ("before", "i8"), ("after", "i8"),
], align=True)  # fmt: skip

COHORT = np.dtype([  # as of `events`: jobs of one class and size that started at one instant
    ("of", "i8"), ("jobs", "i8"), ("work_to", "f8"), ("start_s", "f8"), ("end_s", "f8"), ("number", "i8"),
    ("first", "i8"), ("last", "i8"),  # its jobs
    ("before", "i8"), ("after", "i8"),  # in the order of starts
    ("end", "i8"),  # of nobody: entry k of the heap of ends, a place, stands at place k
], align=True)  # fmt: skip

DUE = np.dtype([("due_s", "f8"), ("ticket", "i8"), ("job", "i8")], align=True)
"""A deadline of a line in which they do not rise."""

TRAINEE = np.dtype([  # as of `TrainingJob`
    ("id", "i8"), ("work_to", "f8"), ("deadline_s", "f8"), ("due_s", "f8"), ("ready_s", "f8"),
    ("done_to", "f8"), ("since_s", "f8"), ("from_s", "f8"), ("start_s", "f8"), ("end_s", "f8"),
    ("speed_to_per_s", "f8"), ("blocks", "i8"),
    # of nobody: entries k of three lists of places stand at place k: active jobs by deadline, deferred ones by release,
    # and free places
    ("active", "i8"), ("deferred", "i8"), ("spare", "i8"),
], align=True)  # fmt: skip

ARRIVAL = np.dtype([("of", "i8"), ("id", "i8"), ("work_to", "f8"), ("deadline_s", "f8"), ("release_s", "f8")],
                   align=True)
"""A job that is submitted: its class, id, TO, and absolute times on its lane's clock."""

FAILURE = np.dtype([("time_s", "f8"), ("place", "i8"), ("up_gpus", "i8")], align=True)
"""A rack that fails, by its place among those up, or is repaired (NOBODY); GPUs up from then on."""

LEFT = np.dtype([("lane", "i8"), ("of", "i8"), ("id", "i8"), ("start_s", "f8"), ("end_s", "f8"), ("done_to", "f8"),
                 ("outcome", "i8")], align=True)
"""A job that left a site."""

STOOD_LANE, STOOD_SECONDS, STOOD_AFTER, STOOD_GPUS = range(4)
"""Columns of rows with how long a combination of GPUs in use stood at a lane, in the order of their first times; the
row after it in its bucket; those of the classes come last."""

BUCKETS = 256
"""In which a lane finds a combination again."""

RANK = np.dtype([("first", "f8"), ("second", "f8"), ("third", "f8"), ("place", "i8")], align=True)
"""Somebody's place in an order: by the first number, then the second, then the third."""

READING = np.dtype([  # of a class, at the end of a call
    ("queued", "i8"), ("deferred", "i8"), ("running", "i8"), ("late", "i8"), ("urgent", "i8"),
    ("pending_to", "f8"), ("deferred_to", "f8"),
], align=True)  # fmt: skip


class Tables(NamedTuple):
    """State of all lanes; L lanes, M classes, N sites, K the most blocks of any class, C what fits in, which grows.

    sites (L,), classes (L, M), facts (N, M); speeds (2, M, K + 1): TO/s on 0 to K blocks, and what linear speed-up
    would do beyond it; jobs, cohorts (L, C); dues (L, Minf, C): heaps; trainees (L, Mtrain, C)
    """

    sites: np.ndarray
    classes: np.ndarray
    facts: np.ndarray
    speeds: np.ndarray
    jobs: np.ndarray
    cohorts: np.ndarray
    dues: np.ndarray
    trainees: np.ndarray


class Lane(NamedTuple):
    """One lane of `Tables`, whose fields have the lane's part but for `sites`, of all lanes; and what a call needs.

    number: the lane's; left: rows of the jobs that leave; partials: of exact sums; ranks: an order that is worked out;
    buckets (BUCKETS,): first row of combinations of GPUs in use, NOBODY if there is none
    """

    number: int
    sites: np.ndarray
    classes: np.ndarray
    facts: np.ndarray
    speeds: np.ndarray
    jobs: np.ndarray
    cohorts: np.ndarray
    dues: np.ndarray
    trainees: np.ndarray
    left: np.ndarray
    partials: np.ndarray
    ranks: np.ndarray
    buckets: np.ndarray


def plain(table: np.ndarray) -> np.ndarray:
    """Records as their bytes: an array of numbers with one more axis."""
    return np.ascontiguousarray(table).view(np.uint8).reshape(*table.shape, table.dtype.itemsize).copy()


def records(numbers: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Records from what `plain` made of them."""
    return np.frombuffer(np.ascontiguousarray(numbers).tobytes(), kind).reshape(numbers.shape[:-1]).copy()
