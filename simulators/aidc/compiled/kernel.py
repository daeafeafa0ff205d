"""A minute of all lanes, compiled: `Facility` on records. What happens at one instant is there in `facility`, step by
step, and here in the same order; a lane has no other clock than its heap of ends and its alarm, and no short cut for an
instant at which one cohort ends.
"""

from __future__ import annotations

import math

import numpy as np

from cosim.simulators.aidc.compiled import inference_queue as queues
from cosim.simulators.aidc.compiled import pool as pools
from cosim.simulators.aidc.compiled.jit import SOURCES, borrowed, entry, part
from cosim.simulators.aidc.compiled.records import (
    BUCKETS,
    NOBODY,
    RANK,
    STOOD_AFTER,
    STOOD_GPUS,
    STOOD_LANE,
    STOOD_SECONDS,
    Lane,
)
from cosim.simulators.aidc.compiled.sums import nearest_tick
from cosim.simulators.aidc.engine.slack import USABLE_RATIO
from cosim.units import MIN_S

_PARTIALS = 64
"""Partials of an exact sum, at most: exponents of floats span 2100 bits, and each partial takes 53 of its own."""


@part
def _lane(tables, number, left, partials, ranks, buckets):
    """The parts of the tables that are one lane's."""
    here = number % len(tables.facts)
    return Lane(number, borrowed(tables.sites), borrowed(tables.classes)[number], borrowed(tables.facts)[here],
                borrowed(tables.speeds), borrowed(tables.jobs)[number], borrowed(tables.cohorts)[number],
                borrowed(tables.dues)[number], borrowed(tables.trainees)[number], borrowed(left), borrowed(partials),
                borrowed(ranks), borrowed(buckets))


# --- what comes from outside -----------------------------------------------------------------------------------------


@part
def _begin(lane):
    """Start the next interval."""
    for k in range(BUCKETS):
        lane.buckets[k] = NOBODY
    for m in range(len(lane.classes)):
        one = lane.classes[m]
        one.received = one.finished = one.dropped = 0
        one.trim_to = one.finished_to = one.missed_to = one.failed_to = one.busy_gpu_s = 0.0


@part
def _submit(lane, arrivals):
    """Jobs arrive now."""
    now_s = lane.sites[lane.number].now_s
    for m in range(len(lane.classes)):
        first, inference = NOBODY, not lane.facts[m].train
        for k in range(len(arrivals)):
            row = arrivals[k]
            if row.of != m:
                continue
            lane.classes[m].received += 1
            if inference:
                job = queues.new_job(lane, row.id, row.work_to, row.deadline_s)
                queues.join(lane, m, job)
                first = job if first == NOBODY else first
            else:
                pools.put(lane, m, row.id, row.work_to, row.deadline_s, row.release_s, now_s)
        if first != NOBODY:
            queues.note_newcomers(lane, m, first, now_s)


@part
def _command(lane, grants):
    """GPUs granted per class from now on."""
    site = lane.sites[lane.number]
    for m in range(len(lane.classes)):
        lane.classes[m].granted_gpus = grants[m]
    site.regroup = site.news = 1


# --- one instant -----------------------------------------------------------------------------------------------------


@part
def _settle(lane, now_s, failures):
    """Everything that happens at this instant."""
    site, some = lane.sites[lane.number], False
    while site.running and lane.cohorts[lane.cohorts[0].end].end_s <= now_s:
        queues.finish(lane, queues.take_end(lane, 0))
        some = True
    if now_s >= site.alarm_s or site.news or site.regroup and some:
        _settle_all(lane, now_s, failures)
    elif some:
        _start_inference(lane, now_s)


@part
def _settle_all(lane, now_s, failures):
    """Expiries, releases and arrivals, and the allocation of GPUs after them."""
    site, some = lane.sites[lane.number], False
    site.news = 0
    classes, facts = lane.classes, lane.facts
    for m in range(len(classes)):
        classes[m].due = facts[m].train and classes[m].next_s <= now_s
        if classes[m].due:
            some = True
            pools.finish(lane, m, now_s)
    if site.failure < len(failures) and failures[site.failure].time_s <= now_s:
        _change_racks(lane, now_s, failures)
    for m in range(len(classes)):
        if not facts[m].train and classes[m].next_s <= now_s:
            queues.expire(lane, m, now_s)
    for m in range(len(classes)):
        if classes[m].due:
            pools.expire(lane, m, now_s)
            pools.release(lane, m, now_s)
    _hand_out(lane, now_s, site.regroup == 1 or some)
    _set_alarm(lane, now_s, failures)


@part
def _hand_out(lane, now_s, regroup):
    """Who holds which GPUs from now on; without `regroup` training has no part in it."""
    site, classes, facts = lane.sites[lane.number], lane.classes, lane.facts
    if not regroup:
        _start_inference(lane, now_s)
        return
    for m in range(len(classes)):
        if facts[m].train:
            wanted = pools.wanted_blocks(lane, m)
            if wanted < classes[m].held:
                pools.hold(lane, m, wanted)
    free = _start_inference(lane, now_s)
    site.regroup = 0
    for m in range(len(classes)):
        if facts[m].train:
            wanted, held = pools.wanted_blocks(lane, m), classes[m].held
            if held < wanted:
                more = min(wanted - held, free // facts[m].gpus_per_block)
                pools.hold(lane, m, held + more)
                free -= more * facts[m].gpus_per_block
                if held + more < wanted:
                    site.regroup = 1
            pools.allot(lane, m, now_s)


@part
def _start_inference(lane, now_s):
    """Jobs of inference start; the GPUs that are free then."""
    classes, free = lane.classes, lane.sites[lane.number].up_gpus
    for m in range(len(classes)):
        free -= classes[m].busy_gpus
    for m in range(len(classes)):
        if not lane.facts[m].train and classes[m].queued:
            before = classes[m].busy_gpus
            queues.start(lane, m, now_s, free)
            free -= classes[m].busy_gpus - before
    return free


@part
def _change_racks(lane, now_s, failures):
    """Racks that fail now or are repaired. Jobs stand side by side on the GPUs, class after class."""
    site, classes, size = lane.sites[lane.number], lane.classes, lane.sites[lane.number].rack_gpus
    while site.failure < len(failures) and failures[site.failure].time_s <= now_s:
        change = failures[site.failure]
        site.failure += 1
        site.up_gpus = change.up_gpus
        first, low = 0, change.place * size
        for m in range(len(classes)):
            after = first + classes[m].busy_gpus
            if change.place != NOBODY and first < low + size and after > low:
                if lane.facts[m].train:
                    pools.strike(lane, m, low - first, low + size - first, now_s)
                else:
                    queues.strike(lane, m, low - first, low + size - first, now_s)
            first = after
    site.regroup = 1


@part
def _set_alarm(lane, now_s, failures):
    """When something is due next: a deadline, a release, an end of training."""
    site, next_s = lane.sites[lane.number], math.inf
    for m in range(len(lane.classes)):
        next_s = min(next_s, lane.classes[m].next_s)
    if site.failure < len(failures):
        next_s = min(next_s, failures[site.failure].time_s)
    if next_s < site.alarm_s or site.alarm_s <= now_s:
        site.alarm_s = next_s


# --- an interval -----------------------------------------------------------------------------------------------------


@part
def _advance(lane, to_s, failures, stood, count):
    """Run to `to_s` and through everything that happens at that instant. `stood`, which may be another then, gets
    how long each combination of GPUs in use stood; how many there are."""
    site = lane.sites[lane.number]
    now_s = site.now_s
    if site.news:
        _settle(lane, now_s, failures)
        stood, count = _note(lane, now_s, stood, count)
    while True:
        now_s = min(site.alarm_s, lane.cohorts[lane.cohorts[0].end].end_s if site.running else math.inf)
        if now_s > to_s:
            break
        _settle(lane, now_s, failures)
        stood, count = _note(lane, now_s, stood, count)
    site.now_s = to_s
    return _stood(lane, to_s, stood, count)


@part
def _note(lane, now_s, stood, count):
    """`Meter.note`, where GPUs in use have changed."""
    for m in range(len(lane.classes)):
        if lane.classes[m].stood_gpus != lane.classes[m].busy_gpus:
            stood, count = _stood(lane, now_s, stood, count)
            for k in range(len(lane.classes)):
                lane.classes[k].stood_gpus = lane.classes[k].busy_gpus
            break
    return stood, count


@part
def _stood(lane, now_s, stood, count):
    """The busy GPUs of the last instant stood until now."""
    site, classes, bucket = lane.sites[lane.number], lane.classes, 0
    seconds = now_s - site.since_s
    if not seconds > 0.0:
        return stood, count
    site.since_s = now_s
    for m in range(len(classes)):
        classes[m].busy_gpu_s += classes[m].stood_gpus * seconds
        bucket = (31 * bucket + classes[m].stood_gpus) % BUCKETS
    row = lane.buckets[bucket]
    while row != NOBODY and not _same(stood[row], classes):
        row = int(stood[row, STOOD_AFTER])
    if row == NOBODY:
        if count == len(stood):
            stood = _twice(stood)
        row = count
        count += 1
        stood[row, STOOD_LANE], stood[row, STOOD_SECONDS] = lane.number, 0.0
        stood[row, STOOD_AFTER], lane.buckets[bucket] = lane.buckets[bucket], row
        for m in range(len(classes)):
            stood[row, STOOD_GPUS + m] = classes[m].stood_gpus
    stood[row, STOOD_SECONDS] += seconds
    return stood, count


@part
def _same(row, classes):
    same = True
    for m in range(len(classes)):
        same = same and row[STOOD_GPUS + m] == classes[m].stood_gpus
    return same


@part
def _twice(rows):
    """The same rows with room for as many again."""
    more = np.empty((2 * len(rows), rows.shape[1]))
    for k in range(len(rows)):
        for m in range(rows.shape[1]):
            more[k, m] = rows[k, m]
    return more


@part
def _read(lane, readings):
    """How things stand now; the lane's slack, min."""
    site, claims, gpus = lane.sites[lane.number], 0, lane.sites[lane.number].up_gpus
    for m in range(len(lane.classes)):
        if lane.facts[m].train:
            pools.count(lane, m, site.now_s)
            claims = pools.read_pool(lane, m, readings[m], site.now_s, claims)
        else:
            queues.read_line(lane, m, readings[m], site.now_s)
            gpus -= lane.classes[m].busy_gpus
    return pools.slack_s(lane, claims, USABLE_RATIO * gpus) / MIN_S


@entry(SOURCES)
def run(tables, going, arrivals, arrive, grants, failures, fail, to_s, left, stood, readings, slack_min):
    """Lanes that are `going` (L,) from their now to `to_s` (L,): arrivals[arrive[l]:arrive[l + 1]] are submitted to
    lane l, then `grants` (L, M) hold, and failures[fail[l]:fail[l + 1]] come about. Into `readings` (L, M) and
    `slack_min` (L,) goes how things stand then, into `left`, unless it is empty, who left.

    `stood`, or a longer one, with what it was given, how many rows that are, and rows of `left`
    """
    partials, ranks = np.empty(_PARTIALS), np.empty(tables.trainees.shape[1] * tables.trainees.shape[2], RANK)
    count, row, buckets = 0, 0, np.empty(BUCKETS, np.int64)
    for number in range(len(tables.sites)):
        if not going[number]:
            continue
        lane, site = _lane(tables, number, left, partials, ranks, buckets), tables.sites[number]
        here = borrowed(failures)[fail[number]:fail[number + 1]]
        site.failure, site.row = 0, row
        _begin(lane)
        _submit(lane, borrowed(arrivals)[arrive[number]:arrive[number + 1]])
        _command(lane, grants[number])
        stood, count = _advance(lane, nearest_tick(to_s[number]), here, stood, count)
        slack_min[number] = _read(lane, borrowed(readings)[number])
        row = site.row
    return stood, count, row


@entry(SOURCES)
def shift(tables, numbers, id_by, left):
    """Set the clocks of some lanes to 0, with everything that is timed on them, and take `id_by` off their jobs'
    ids; they go on as facilities do that `restore` what others kept. left: an array as `run` has it."""
    partials, ranks, buckets = np.empty(_PARTIALS), np.empty(0, RANK), np.empty(0, np.int64)
    for k in range(len(numbers)):
        number = numbers[k]
        lane, site = _lane(tables, number, left, partials, ranks, buckets), tables.sites[number]
        by_s = site.now_s
        site.now_s, site.since_s, site.alarm_s, site.regroup, site.news = 0.0, 0.0, math.inf, 0, 0
        for m in range(len(lane.classes)):
            if lane.facts[m].train:
                pools.shift_pool(lane, m, by_s, id_by[k])
            else:
                queues.shift_line(lane, m, by_s, id_by[k])
            site.alarm_s = min(site.alarm_s, lane.classes[m].next_s)
        queues.set_out_again(lane)
