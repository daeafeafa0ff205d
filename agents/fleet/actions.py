"""The joint action (26), (28) as arrays: which parts it has, where a fresh policy starts, and back to a `Decision`.

A row of the manager: one simplex over the sites per class. A row of a site: one simplex over the release times per
training class, one over classes (or kinds) + unused for its GPUs (29), one supply temperature. A fresh policy sends
jobs where the GPUs are, releases all but a few of its training jobs at once, splits GPUs as its sites' queues need them
(the rules' `GpuRule`, of which it learns the deviations; with Dirichlet shares, like the offered load with a quarter of
head-room) and supplies air near the top of the box, as an operator without prices and carbon would: the same for every
method.

Rows: A01-05, E26, E28.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cosim.agents.fleet.allocation import project_box, project_simplex
from cosim.agents.fleet.decision import Decision, FleetFacts, Matrix, Operation
from cosim.agents.fleet.pooling import per_class, per_sharer, sharers
from cosim.agents.learn.spec import Interval, Part, Simplex, smooth

_HEAD_ROOM = 1.25
_WARM = 0.99
"""Start of the supply temperature within its box: near the top, where the operator's own set point is."""
_DEFERRED = 0.1
"""Start share of all deferrals together: a fresh policy that defers half of its jobs drops many of them, as the longest
deferrals leave just the time that a job needs when it gets all its blocks at once; one that defers none never observes
what a deferral does."""
BY_KIND = "gpus by kind"
"""Part of a site's action that shares its GPUs out to training and inference, in place of `gpus`."""
_LEAST = 0.01
"""Smallest start share, of a class without offered load and of the unused GPUs."""


def manager_parts(facts: FleetFacts, classes: Sequence[str], around: Sequence[Sequence[str]] | None = None,
                  edge: float = 0.0) -> tuple[Part, ...]:
    """(26): one simplex per class over its eligible sites. around: for each class, columns of the manager; this and
    edge: see `Simplex`."""
    return tuple(
        Simplex(f"site of {name}", facts.n_sites, tuple(ok), tuple(project_simplex([float(g) for g in facts.gpus], ok)),
                None if around is None else tuple(around[m]), edge)
        for m, (name, ok) in enumerate(zip(classes, facts.eligible, strict=True)))


class SiteBase(NamedTuple):
    """Columns of a site around which it decides: for each training class those of its release times, of its GPUs, and
    of its temperature."""

    release: Sequence[Sequence[str]]
    gpus: Sequence[str]
    supply_temp: str


def site_parts(facts: FleetFacts, classes: Sequence[str], offered: Mapping[str, tuple[float, float]],
               sees_usual: bool, base: SiteBase | None = None, edge: float = 0.0) -> tuple[Part, ...]:
    """(28). offered: class -> (jobs/min, TO/job) of the whole fleet; classes without are taken as not offered;
    sees_usual: whether the site observes the `usual_gpu_columns`, around which it splits its GPUs where it has no
    base; edge: see `Simplex`."""
    leads, low, high = len(facts.deferrals_s), facts.supply_temp_low_degc, facts.supply_temp_high_degc
    *load, rest = gpu_start(facts, [offered.get(name, (0.0, 0.0)) for name in classes])
    start = (*per_sharer(facts, load), rest)
    gpus = base.gpus if base else usual_gpu_columns(facts, classes) if sees_usual else None
    return (*(_release(classes[m], leads, facts.deferrable[t] if facts.deferrable else (True,) * leads,
                       base.release[t] if base else None, edge)
              for t, m in enumerate(facts.train)),
            Simplex(BY_KIND if facts.gpu_shares == "kinds" else "gpus", len(start), None, start,
                    None if gpus is None else tuple(gpus), edge),
            Interval("supply_temp_degc", low, high, low + _WARM * (high - low), base.supply_temp if base else None))


def usual_gpu_columns(facts: FleetFacts, classes: Sequence[str]) -> list[str]:
    """Names of the columns with the shares that a site's GPUs usually get: the classes or kinds, and unused."""
    return [f"usual_gpus {name}" for name in (*sharers(facts, classes), "unused")]


def _release(job_class: str, leads: int, has: Sequence[bool], around: Sequence[str] | None, edge: float) -> Simplex:
    """Shares of the release times that a class has, a prefix of them all."""
    count = sum(has)
    start = None if leads == 1 else (1.0, *[0.0] * (leads - 1)) if count == 1 else (
        1.0 - _DEFERRED, *_deferred_shares(count - 1), *[0.0] * (leads - count))
    return Simplex(f"release of {job_class}", leads, None if count == leads else tuple(has), start,
                   None if around is None else tuple(around), edge)


def _deferred_shares(count: int) -> list[float]:
    """Start shares of the deferrals, shortest first, each half of the one before; their sum is _DEFERRED."""
    halves = [0.5**k for k in range(count)]
    return [_DEFERRED * x / sum(halves) for x in halves]


def gpu_start(facts: FleetFacts, offered: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """(M + 1,) shares of a site's GPUs: the classes' offered load on the fleet with head-room, and unused.

    Load is jobs/min x TO/job / (TO/(GPU min)) / GPUs of the fleet; a load above the fleet's is scaled down.
    """
    load = [jobs * work_to / speed / sum(facts.gpus)
            for (jobs, work_to), speed in zip(offered, facts.to_per_gpu_min, strict=True)]
    total = sum(load)
    room = min(_HEAD_ROOM, (1.0 - _LEAST) / total) if total else 1.0
    shares = [max(_LEAST, room * x) for x in load]
    shares.append(max(_LEAST, 1.0 - sum(shares)))
    return tuple(s / sum(shares) for s in shares)


def start_of(parts: Sequence[Part]) -> list[float]:
    """The action from which a fresh policy starts: equal shares, and the middle of the range where a part has no start
    of its own."""
    row: list[float] = []
    for part in smooth(parts):
        if isinstance(part, Simplex):
            row += part.start or project_simplex([1.0] * part.size, part.eligible or (True,) * part.size)
        else:
            row.append(0.5 * (part.low + part.high) if part.start is None else part.start)
    return row


def decision_of(facts: FleetFacts, rows: Sequence[Sequence[float]]) -> Decision:
    """The decision in the rows (n, A) of a joint action, the manager's first; padding is ignored."""
    n, classes, trains, leads = facts.n_sites, len(facts.kinds), len(facts.train), len(facts.deferrals_s)
    gpus = trains * leads
    unused = gpus + len(sharers(facts, facts.kinds))
    manager, sites = rows[0], rows[1:]
    return Decision(
        [manager[m * n:(m + 1) * n] for m in range(classes)],
        Operation([[row[t * leads:(t + 1) * leads] for t in range(trains)] for row in sites],
                  [per_class(facts, row[gpus:unused]) for row in sites],
                  [row[unused + 1] for row in sites]))


def leader_row(site_share: Matrix) -> list[float]:
    """The manager's row of a joint action, as `decision_of` reads it."""
    return [share for row in site_share for share in row]


def site_rows(facts: FleetFacts, operation: Operation) -> list[list[float]]:
    """The sites' rows of a joint action, as `decision_of` reads them; what no class gets of the GPUs is unused."""
    return [[*(share for row in deferral for share in row), *per_sharer(facts, gpus), max(0.0, 1.0 - sum(gpus)),
             temp_degc]
            for deferral, gpus, temp_degc in zip(operation.deferral_share, operation.gpu_share,
                                                 operation.supply_temp_degc, strict=True)]


def from_unit(parts: Sequence[Part], unit: np.ndarray) -> list[float]:
    """Any numbers in [0, 1], one per number of an action, as an action: shares divided by their sum over the eligible
    (equal ones if all are 0), intervals from low to high. ModelError on a number that is not finite."""
    row: list[float] = []
    values = [float(x) for x in unit]
    for part in smooth(parts):
        if isinstance(part, Simplex):
            mine = values[len(row):len(row) + part.size]
            row += project_simplex(mine, part.eligible or (True,) * part.size)
        else:
            row.append(project_box(part.low + (part.high - part.low) * values[len(row)], part.low, part.high))
    return row
