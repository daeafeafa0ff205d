"""Heaps of a lane: of the cohorts that run, by their ends, and of the deadlines of a line in which they do not rise."""

from __future__ import annotations

from cosim.simulators.aidc.compiled.jit import part
from cosim.simulators.aidc.compiled.records import NOBODY
from cosim.simulators.aidc.compiled.sums import nearest_tick

# --- the heap of ends: cohorts of all classes, by end, then by start -------------------------------------------------


@part
def _ends_before(cohorts, a, b):
    if cohorts[a].end_s != cohorts[b].end_s:
        return cohorts[a].end_s < cohorts[b].end_s
    return cohorts[a].number < cohorts[b].number


@part
def expect(lane, cohort):
    """`Clock.expect`: the cohort is the newest of those that run."""
    site, cohorts = lane.sites[lane.number], lane.cohorts
    cohorts[cohort].number = site.started
    site.started += 1
    k = site.running
    site.running += 1
    while k > 0 and _ends_before(cohorts, cohort, cohorts[(k - 1) // 2].end):
        cohorts[k].end = cohorts[(k - 1) // 2].end
        k = (k - 1) // 2
    cohorts[k].end = cohort


@part
def take_end(lane, place):
    """Take the cohort at a place of the heap out of it; 0: the one that ends first."""
    site, cohorts = lane.sites[lane.number], lane.cohorts
    taken = cohorts[place].end
    site.running -= 1
    count = site.running
    if place == count:
        return taken
    moved, k = cohorts[count].end, place
    while k > 0 and _ends_before(cohorts, moved, cohorts[(k - 1) // 2].end):
        cohorts[k].end = cohorts[(k - 1) // 2].end
        k = (k - 1) // 2
    while 2 * k + 1 < count:
        child = 2 * k + 1
        if child + 1 < count and _ends_before(cohorts, cohorts[child + 1].end, cohorts[child].end):
            child += 1
        if not _ends_before(cohorts, cohorts[child].end, moved):
            break
        cohorts[k].end = cohorts[child].end
        k = child
    cohorts[k].end = moved
    return taken


# --- the heap of deadlines, of a line in which they do not rise ------------------------------------------------------


@part
def _due_before(a, b):
    if a.due_s != b.due_s:
        return a.due_s < b.due_s
    return a.ticket < b.ticket


@part
def _push_due(lane, m, job):
    line, dues = lane.classes[m], lane.dues[lane.facts[m].place]
    due_s, ticket = nearest_tick(lane.jobs[job].deadline_s), lane.jobs[job].ticket
    k = line.dues
    line.dues += 1
    while k > 0:
        up = (k - 1) // 2
        if dues[up].due_s < due_s or (dues[up].due_s == due_s and dues[up].ticket < ticket):
            break
        dues[k] = dues[up]
        k = up
    dues[k].due_s, dues[k].ticket, dues[k].job = due_s, ticket, job


@part
def pop_due(lane, m):
    """The first of the heap leaves it; its job if it still waits, else NOBODY."""
    line, dues = lane.classes[m], lane.dues[lane.facts[m].place]
    ticket, job = dues[0].ticket, dues[0].job
    still = waits(lane, ticket, job)
    line.dues -= 1
    count, k = line.dues, 0
    while 2 * k + 1 < count:
        child = 2 * k + 1
        if child + 1 < count and _due_before(dues[child + 1], dues[child]):
            child += 1
        if not _due_before(dues[child], dues[count]):
            break
        dues[k] = dues[child]
        k = child
    dues[k] = dues[count]
    return job if still else NOBODY


@part
def waits(lane, ticket, job):
    """Whether the job that was given this ticket still waits; its place may be another's by now."""
    return lane.jobs[job].waits == 1 and lane.jobs[job].ticket == ticket


@part
def index_newcomers(lane, m):
    """Put the deadlines of jobs that came since the last look, and still wait, into the heap."""
    line, jobs = lane.classes[m], lane.jobs
    if line.ordered:
        return
    job = line.tail
    while job != NOBODY and jobs[job].ticket >= line.indexed:
        _push_due(lane, m, job)
        job = jobs[job].before
    line.next_s = lane.dues[lane.facts[m].place][0].due_s
    line.indexed = lane.sites[lane.number].tickets
