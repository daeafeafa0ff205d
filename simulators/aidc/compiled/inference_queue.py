"""Inference at a lane: `InferenceQueue` on records. A line is a list of jobs, linked by their places in the lane's
table.

Functions take a lane and the number m of a class in it; each does what the method of its name does there.
"""

from __future__ import annotations

import math

import numpy as np

from cosim.simulators.aidc.compiled.heaps import expect, index_newcomers, pop_due, take_end, waits
from cosim.simulators.aidc.compiled.jit import part
from cosim.simulators.aidc.compiled.records import DROPPED, FINISHED, NOBODY
from cosim.simulators.aidc.compiled.sums import add_exactly, nearest_tick, rounded, sort

# --- joining and leaving the line ------------------------------------------------------------------------------------


@part
def join(lane, m, job):
    """A job, which has a place already, goes to the end of the line."""
    site, line, jobs = lane.sites[lane.number], lane.classes[m], lane.jobs
    jobs[job].ticket, jobs[job].waits = site.tickets, 1
    site.tickets += 1
    jobs[job].before, jobs[job].after = line.tail, NOBODY
    if line.tail == NOBODY:
        line.head = job
    else:
        jobs[line.tail].after = job
    line.tail = job
    line.queued += 1


@part
def note_newcomers(lane, m, first, now_s):
    """What `put` does beside lining up: the jobs from `first` to the end of the line have just joined it."""
    line, jobs, partials = lane.classes[m], lane.jobs, lane.partials
    count, job = 0, first
    rises, least_s, tail_s = line.ordered == 1, math.inf, line.tail_s
    while job != NOBODY:
        deadline_s = jobs[job].deadline_s
        rises = rises and deadline_s >= tail_s
        tail_s, least_s = deadline_s, min(least_s, deadline_s)
        count = add_exactly(partials, count, jobs[job].work_to)
        job = jobs[job].after
    if line.ordered:
        line.tail_s = tail_s
        if not rises:
            line.ordered, line.indexed = 0, 0
    line.waiting_to += rounded(partials, count)
    if least_s <= now_s:
        line.next_s = now_s
        index_newcomers(lane, m)


@part
def new_job(lane, number, work_to, deadline_s):
    """A place for a job."""
    site, jobs = lane.sites[lane.number], lane.jobs
    job = site.free_job
    site.free_job = jobs[job].after
    site.jobs += 1
    jobs[job].id, jobs[job].work_to, jobs[job].deadline_s = number, work_to, deadline_s
    return job


@part
def _leave_line(lane, m, job):
    line, jobs = lane.classes[m], lane.jobs
    before, after = jobs[job].before, jobs[job].after
    if before == NOBODY:
        line.head = after
    else:
        jobs[before].after = after
    if after == NOBODY:
        line.tail = before
    else:
        jobs[after].before = before
    jobs[job].waits = 0
    line.queued -= 1


@part
def _forget_line(lane, m):
    """Nobody waits."""
    line = lane.classes[m]
    line.ordered, line.tail_s, line.next_s = 1, -math.inf, math.inf
    line.indexed, line.dues = lane.sites[lane.number].tickets, 0


@part
def note_left(lane, m, number, start_s, end_s, done_to, outcome):
    """A row for a job that leaves, where rows are kept."""
    if len(lane.left):
        site = lane.sites[lane.number]
        row = lane.left[site.row]
        site.row += 1
        row.lane, row.of, row.id = lane.number, m, number
        row.start_s, row.end_s, row.done_to, row.outcome = start_s, end_s, done_to, outcome


@part
def _free_job(lane, job):
    site = lane.sites[lane.number]
    lane.jobs[job].after = site.free_job
    site.free_job = job
    site.jobs -= 1


# --- what happens ----------------------------------------------------------------------------------------------------


@part
def expire(lane, m, now_s):
    """Drop the waiting jobs whose deadline is now or past, earliest deadline first."""
    line, jobs = lane.classes[m], lane.jobs
    if line.ordered:
        line.next_s = math.inf
        while line.queued:
            due_s = nearest_tick(jobs[line.head].deadline_s)
            if due_s > now_s:
                line.next_s = due_s
                break
            _drop(lane, m, line.head, now_s)
        return
    dues = lane.dues[lane.facts[m].place]
    while line.dues and (dues[0].due_s <= now_s or not waits(lane, dues[0].ticket, dues[0].job)):
        job = pop_due(lane, m)
        if job != NOBODY:
            _drop(lane, m, job, now_s)
    if not line.queued:
        _forget_line(lane, m)
    line.next_s = dues[0].due_s if line.dues else math.inf


@part
def _drop(lane, m, job, now_s):
    line = lane.classes[m]
    _leave_line(lane, m, job)
    line.dropped += 1
    line.waiting_to = line.waiting_to - lane.jobs[job].work_to if line.queued else 0.0
    note_left(lane, m, lane.jobs[job].id, math.nan, now_s, 0.0, DROPPED)
    _free_job(lane, job)


@part
def start(lane, m, now_s, free_gpus):
    """Start jobs from the head of the line, as the grant and the site's free GPUs allow."""
    line, fact, jobs = lane.classes[m], lane.facts[m], lane.jobs
    places = min(line.granted_gpus - line.busy_gpus, free_gpus) // fact.gpus_per_block
    number, newest = max(min(places, line.queued), 0), NOBODY
    for _ in range(number):
        job = line.head
        _leave_line(lane, m, job)
        cohort = _of_size(lane, newest, jobs[job].work_to)
        if cohort == NOBODY:
            cohort = _new_cohort(lane, m, jobs[job].work_to, now_s)
            newest = cohort if newest == NOBODY else newest
        _board(lane, cohort, job)
    if not line.queued:
        _forget_line(lane, m)
    elif not line.ordered:
        index_newcomers(lane, m)
    elif line.next_s == math.inf:
        line.next_s = nearest_tick(jobs[line.head].deadline_s)
    cohort = newest
    while cohort != NOBODY:
        _run(lane, m, cohort, now_s)
        cohort = lane.cohorts[cohort].after


@part
def _of_size(lane, cohort, work_to):
    """The first cohort of this size from `cohort` on, in the order of starts; NOBODY if there is none."""
    cohorts = lane.cohorts
    while cohort != NOBODY and cohorts[cohort].work_to != work_to:
        cohort = cohorts[cohort].after
    return cohort


@part
def _new_cohort(lane, m, work_to, now_s):
    """A cohort without jobs, the last to start."""
    site, line, cohorts = lane.sites[lane.number], lane.classes[m], lane.cohorts
    place = site.free_cohort
    cohort = cohorts[place]
    site.free_cohort = cohort.after
    cohort.of, cohort.jobs, cohort.work_to, cohort.start_s = m, 0, work_to, now_s
    cohort.first = cohort.last = cohort.after = NOBODY
    cohort.before = line.last
    if line.last == NOBODY:
        line.first = place
    else:
        cohorts[line.last].after = place
    line.last = place
    return place


@part
def _board(lane, cohort, job):
    mine, jobs = lane.cohorts[cohort], lane.jobs
    jobs[job].after = NOBODY
    if mine.last == NOBODY:
        mine.first = job
    else:
        jobs[mine.last].after = job
    mine.last = job
    mine.jobs += 1


@part
def _run(lane, m, cohort, now_s):
    """The cohort, complete, sets off."""
    line, fact, mine = lane.classes[m], lane.facts[m], lane.cohorts[cohort]
    mine.end_s = nearest_tick(now_s + mine.work_to / fact.to_per_s)
    line.busy_gpus += mine.jobs * fact.gpus_per_block
    line.waiting_to = line.waiting_to - mine.jobs * mine.work_to if line.queued else 0.0
    expect(lane, cohort)


@part
def finish(lane, cohort):
    """A cohort's jobs, which the heap of ends no longer has, are done and give their GPUs back."""
    mine, jobs = lane.cohorts[cohort], lane.jobs
    m = mine.of
    line, fact = lane.classes[m], lane.facts[m]
    line.finished += mine.jobs
    line.finished_to += mine.jobs * mine.work_to
    line.busy_gpus -= mine.jobs * fact.gpus_per_block
    line.trim_to += mine.jobs * (mine.work_to - fact.to_per_s * (mine.end_s - mine.start_s))
    job = mine.first
    while job != NOBODY:
        after = jobs[job].after
        note_left(lane, m, jobs[job].id, mine.start_s, mine.end_s, mine.work_to, FINISHED)
        _free_job(lane, job)
        job = after
    free_cohort(lane, m, cohort)


@part
def free_cohort(lane, m, cohort):
    """A cohort is over; its place is free."""
    site, line, cohorts = lane.sites[lane.number], lane.classes[m], lane.cohorts
    before, after = cohorts[cohort].before, cohorts[cohort].after
    if before == NOBODY:
        line.first = after
    else:
        cohorts[before].after = after
    if after == NOBODY:
        line.last = before
    else:
        cohorts[after].before = before
    cohorts[cohort].after = site.free_cohort
    site.free_cohort = cohort


@part
def strike(lane, m, low, high, now_s):
    """Jobs that hold one of the class's GPUs low..high-1, counted through its jobs in the order of their starts, lose
    what was done and go to the end of the line, their deadline as it was."""
    line, fact, cohorts = lane.classes[m], lane.facts[m], lane.cohorts
    each, first, newcomers = fact.gpus_per_block, 0, NOBODY
    place = line.first
    while place != NOBODY:
        mine = cohorts[place]
        number, after = mine.jobs, mine.after
        begin, end = max((low - first) // each, 0), max(min(-((first - high) // each), number), 0)
        if begin < end:
            line.busy_gpus -= (end - begin) * each
            line.failed_to += (end - begin) * fact.to_per_s * (now_s - mine.start_s)
            struck = _off_board(lane, m, place, begin, end)
            newcomers = struck if newcomers == NOBODY else newcomers
        first += number * each
        place = after
    if newcomers != NOBODY:
        note_newcomers(lane, m, newcomers, now_s)


@part
def _off_board(lane, m, cohort, begin, end):
    """Jobs begin..end-1 of a cohort go to the end of the line; the first of them. A cohort of none is no more."""
    cohorts, jobs = lane.cohorts, lane.jobs
    mine = cohorts[cohort]
    job, number, newcomer = mine.first, mine.jobs, NOBODY
    mine.first = mine.last = NOBODY
    mine.jobs = 0
    for k in range(number):
        after = jobs[job].after
        if begin <= k < end:
            join(lane, m, job)
            newcomer = job if newcomer == NOBODY else newcomer
        else:
            _board(lane, cohort, job)
        job = after
    if not mine.jobs:
        place = 0
        while cohorts[place].end != cohort:
            place += 1
        take_end(lane, place)
        free_cohort(lane, m, cohort)
    return newcomer


@part
def read_line(lane, m, reading, now_s):
    """`levels`."""
    line, fact, cohorts, partials = lane.classes[m], lane.facts[m], lane.cohorts, lane.partials
    count, cohort = 0, line.first
    while cohort != NOBODY:
        mine = cohorts[cohort]
        count = add_exactly(partials, count, mine.jobs * (mine.work_to - fact.to_per_s * (now_s - mine.start_s)))
        cohort = mine.after
    reading.queued, reading.deferred, reading.late, reading.urgent = line.queued, 0, 0, 0
    reading.running = line.busy_gpus // fact.gpus_per_block
    reading.pending_to, reading.deferred_to = line.waiting_to + rounded(partials, count), 0.0


@part
def shift_line(lane, m, by_s, id_by):
    """The jobs and cohorts of a class on a clock that is `by_s` behind, ids less by `id_by`; as `restore` leaves them.
    """
    line, jobs, cohorts = lane.classes[m], lane.jobs, lane.cohorts
    waiting_to = line.waiting_to
    _forget_line(lane, m)
    job = line.head
    while job != NOBODY:
        jobs[job].deadline_s -= by_s
        jobs[job].id -= id_by
        job = jobs[job].after
    if line.queued:
        line.indexed = jobs[line.head].ticket
        note_newcomers(lane, m, line.head, 0.0)
        index_newcomers(lane, m)
        line.next_s, job = math.inf, line.head
        while job != NOBODY:
            line.next_s = min(line.next_s, nearest_tick(jobs[job].deadline_s))
            job = jobs[job].after
    line.waiting_to = waiting_to
    cohort = line.first
    while cohort != NOBODY:
        mine = cohorts[cohort]
        mine.start_s -= by_s
        mine.end_s -= by_s
        job = mine.first
        while job != NOBODY:
            jobs[job].deadline_s -= by_s
            jobs[job].id -= id_by
            job = jobs[job].after
        cohort = mine.after


@part
def set_out_again(lane):
    """All running cohorts into an empty heap of ends: at equal ends the one that started first, then by class."""
    site, cohorts = lane.sites[lane.number], lane.cohorts
    count = site.running
    ranks, n = np.empty(count, lane.ranks.dtype), 0
    for m in range(len(lane.classes)):
        cohort = NOBODY if lane.facts[m].train else lane.classes[m].first
        while cohort != NOBODY:
            ranks[n].first, ranks[n].second, ranks[n].third = cohorts[cohort].start_s, n, 0.0
            ranks[n].place = cohort
            n += 1
            cohort = cohorts[cohort].after
    sort(ranks, count)
    site.running = site.started = 0
    for k in range(count):
        expect(lane, ranks[k].place)
