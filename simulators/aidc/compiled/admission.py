"""Jobs at the door of the compiled fleet: checked, and put in the order of the lanes."""

from __future__ import annotations

import math

import numpy as np

from cosim.simulators.aidc.compiled.jit import SOURCES, entry
from cosim.simulators.aidc.compiled.records import ARRIVAL

FINE, NOWHERE, NOT_FINITE, NO_WORK, NOT_HERE, TOO_LATE = range(6)
"""What is wrong with a job."""


@entry(SOURCES)
def admit(lane, of, number, work_to, deadline_s, release_s, sites, facts, may):
    """Rows of `ARRIVAL` by lane, those of a lane in the order given; where those of each lane begin (L + 1,); how
    many there are per lane and class (L, M); and the first job that may not be, with what is wrong with it.

    The first six (J,) are the columns of `fleet.Jobs`; may (N, M): which class may run at which site
    """
    lanes, classes, n_sites = len(sites), facts.shape[1], len(facts)
    arriving, first = np.zeros((lanes, classes), np.int64), np.zeros(lanes + 1, np.int64)
    rows = np.empty(len(lane), ARRIVAL)
    for k in range(len(lane)):
        wrong = FINE
        if not (0 <= lane[k] < lanes and 0 <= of[k] < classes):
            wrong = NOWHERE
        elif not (math.isfinite(work_to[k]) and math.isfinite(deadline_s[k]) and math.isfinite(release_s[k])):
            wrong = NOT_FINITE
        elif not work_to[k] > 0.0:
            wrong = NO_WORK
        elif not may[lane[k] % n_sites, of[k]]:
            wrong = NOT_HERE
        elif release_s[k] > sites[lane[k]].now_s and not facts[0, of[k]].train:
            wrong = TOO_LATE
        if wrong != FINE:
            return rows, first, arriving, k, wrong
        arriving[lane[k], of[k]] += 1
        first[lane[k] + 1] += 1
    for k in range(lanes):
        first[k + 1] += first[k]
    place = first[:-1].copy()
    for k in range(len(lane)):
        row = rows[place[lane[k]]]
        place[lane[k]] += 1
        row.of, row.id, row.work_to = of[k], number[k], work_to[k]
        row.deadline_s, row.release_s = deadline_s[k], release_s[k]
    return rows, first, arriving, 0, FINE
