"""Training at a lane: `TrainingPool` on records. Active jobs, by deadline, and deferred ones, by release, are lists
of places in the class's table: jobs[jobs[k].active] is the k-th active job.

Functions take a lane and the number m of a class in it; each does what the method of its name does there.
"""

from __future__ import annotations

import math

from cosim.simulators.aidc.compiled.inference_queue import note_left
from cosim.simulators.aidc.compiled.jit import part
from cosim.simulators.aidc.compiled.records import DROPPED, FINISHED
from cosim.simulators.aidc.compiled.sums import add_exactly, nearest_tick, rounded, sort, tick_after
from cosim.simulators.aidc.engine.slack import MOST_S
from cosim.simulators.aidc.engine.training import LATE_S, URGENT_S
from cosim.units import ROUNDING

# --- one job ---------------------------------------------------------------------------------------------------------


@part
def done_at(job, now_s):
    """Work done until now, TO."""
    return job.done_to + job.speed_to_per_s * (now_s - job.from_s) if now_s > job.from_s else job.done_to


@part
def _laxity_s(job, now_s, top_to_per_s, restart_s):
    if top_to_per_s == 0.0:
        return -math.inf
    laxity_s = job.due_s - now_s - (job.work_to - done_at(job, now_s)) / top_to_per_s
    return laxity_s if job.blocks or math.isnan(job.start_s) else laxity_s - restart_s


@part
def _run(job, blocks, speed_to_per_s, now_s, restart_s):
    job.done_to = done_at(job, now_s)
    if job.blocks and blocks:
        job.from_s = max(job.from_s, now_s)
    else:
        job.from_s = now_s if math.isnan(job.start_s) else nearest_tick(now_s + restart_s)
    job.since_s, job.blocks, job.speed_to_per_s, job.end_s = now_s, blocks, speed_to_per_s, math.inf
    if blocks:
        if math.isnan(job.start_s):
            job.start_s = now_s
        left_s = max(job.work_to - job.done_to, 0.0) / speed_to_per_s
        job.end_s = nearest_tick(job.from_s + left_s)


# --- who is where ----------------------------------------------------------------------------------------------------


@part
def put(lane, m, number, work_to, deadline_s, release_s, now_s):
    """A job comes in, deferred until `release`, which is called for what is due now."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    place = jobs[len(jobs) - pool.active - pool.deferred - 1].spare
    job = jobs[place]
    job.id, job.work_to, job.deadline_s = number, work_to, deadline_s
    job.due_s, job.ready_s = nearest_tick(deadline_s), tick_after(release_s)
    job.done_to, job.speed_to_per_s, job.blocks = 0.0, 0.0, 0
    job.since_s = job.from_s = now_s
    job.start_s, job.end_s = math.nan, math.inf
    k = pool.deferred
    while k > 0:
        other = jobs[jobs[k - 1].deferred]
        if other.ready_s < job.ready_s or (other.ready_s == job.ready_s and other.id <= job.id):
            break
        jobs[k].deferred = jobs[k - 1].deferred
        k -= 1
    jobs[k].deferred = place
    pool.deferred += 1
    pool.next_s, pool.stale = now_s, 1


@part
def release(lane, m, now_s):
    """Deferred jobs whose release is now or past become active."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    ready = 0
    while ready < pool.deferred and jobs[jobs[ready].deferred].ready_s <= now_s:
        place = jobs[ready].deferred
        job, k = jobs[place], pool.active
        while k > 0:
            other = jobs[jobs[k - 1].active]
            if other.deadline_s < job.deadline_s or (other.deadline_s == job.deadline_s and other.id <= job.id):
                break
            jobs[k].active = jobs[k - 1].active
            k -= 1
        jobs[k].active = place
        pool.active += 1
        ready += 1
    if ready:
        pool.stale = 1
        pool.deferred -= ready
        for k in range(pool.deferred):
            jobs[k].deferred = jobs[k + ready].deferred


@part
def _take_out(lane, m, k, active, now_s, done_to, outcome):
    """The k-th active, or else deferred, job leaves, and its blocks are no longer held."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    if active:
        place = jobs[k].active
        pool.active -= 1
        for j in range(k, pool.active):
            jobs[j].active = jobs[j + 1].active
    else:
        place = jobs[k].deferred
        pool.deferred -= 1
        for j in range(k, pool.deferred):
            jobs[j].deferred = jobs[j + 1].deferred
    job = jobs[place]
    hold(lane, m, pool.held - job.blocks)
    pool.allotted -= job.blocks
    pool.stale = 1
    jobs[len(jobs) - pool.active - pool.deferred - 1].spare = place
    note_left(lane, m, job.id, job.start_s, now_s, done_to, outcome)


@part
def hold(lane, m, blocks):
    """Hold so many blocks from now on."""
    lane.classes[m].held = blocks
    lane.classes[m].busy_gpus = blocks * lane.facts[m].gpus_per_block


# --- what happens ----------------------------------------------------------------------------------------------------


@part
def count(lane, m, now_s):
    """Put what a speed-up below linear, checkpoints and restarts lost until now into `trim_to`."""
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    if not fact.loses or not now_s > pool.counted_s:
        return
    partials, n = lane.partials, 0
    for k in range(pool.active):
        n = add_exactly(partials, n, lane.speeds[1, m, jobs[jobs[k].active].blocks])
    lost_to_per_s = rounded(partials, n)
    if lost_to_per_s != 0.0:
        pool.trim_to -= lost_to_per_s * (now_s - pool.counted_s)
    if fact.restart_s != 0.0:
        n = 0
        for k in range(pool.active):
            job = jobs[jobs[k].active]
            if job.blocks and job.from_s > pool.counted_s:
                n = add_exactly(partials, n, job.speed_to_per_s * (min(now_s, job.from_s) - pool.counted_s))
        pool.trim_to -= rounded(partials, n)
    pool.counted_s = now_s


@part
def finish(lane, m, now_s):
    """Take out the jobs whose work is done now."""
    count(lane, m, now_s)
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    partials = lane.partials
    n, some = 0, False
    for k in range(pool.active):
        job = jobs[jobs[k].active]
        if job.end_s <= now_s:
            n, some = add_exactly(partials, n, job.work_to - done_at(job, now_s)), True
    if not some:
        return
    pool.trim_to += rounded(partials, n)
    n = k = 0
    while k < pool.active:
        job = jobs[jobs[k].active]
        if job.end_s > now_s:
            k += 1
            continue
        n = add_exactly(partials, n, job.work_to)
        pool.finished += 1
        _take_out(lane, m, k, True, now_s, job.work_to, FINISHED)
    pool.finished_to += rounded(partials, n)


@part
def expire(lane, m, now_s):
    """Drop the jobs, active or deferred, whose deadline is now or past; what was done of them is lost."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    for active in (True, False):
        k = 0
        while k < (pool.active if active else pool.deferred):
            job = jobs[jobs[k].active if active else jobs[k].deferred]
            if job.due_s > now_s:
                k += 1
                continue
            done_to = done_at(job, now_s)
            pool.missed_to += done_to
            pool.dropped += 1
            _take_out(lane, m, k, active, now_s, done_to, DROPPED)


@part
def strike(lane, m, low, high, now_s):
    """Jobs that hold one of the class's GPUs low..high-1, counted through its jobs by deadline, lose all they hold and
    go back to their last checkpoint."""
    count(lane, m, now_s)
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    first = 0
    for k in range(pool.active):
        job = jobs[jobs[k].active]
        gpus = job.blocks * fact.gpus_per_block
        if gpus and first < high and first + gpus > low:
            hold(lane, m, pool.held - job.blocks)
            pool.allotted -= job.blocks
            pool.failed_to += _fail(job, now_s, fact.cycle_s)
            pool.stale = 1
        first += gpus


@part
def _fail(job, now_s, cycle_s):
    done_to = done_at(job, now_s)
    if cycle_s:
        cycles = math.floor((now_s - job.from_s) / cycle_s + ROUNDING)
        job.done_to += job.speed_to_per_s * cycle_s * max(cycles, 0)
    else:
        job.done_to = done_to
    job.since_s = job.from_s = now_s
    job.blocks, job.speed_to_per_s, job.end_s = 0, 0.0, math.inf
    return max(done_to - job.done_to, 0.0)


@part
def wanted_blocks(lane, m):
    """Blocks it has a use for within its grant."""
    pool, fact = lane.classes[m], lane.facts[m]
    return min(pool.granted_gpus // fact.gpus_per_block, pool.active * fact.max_blocks)


@part
def allot(lane, m, now_s):
    """Hand the held blocks to the active jobs in their order, up to `max_blocks` each."""
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    if not pool.stale and pool.allotted == pool.held and now_s < pool.look_s:
        return
    count(lane, m, now_s)
    _rank(lane, m, now_s)
    left = pool.held
    for k in range(pool.active):
        job = jobs[lane.ranks[k].place]
        blocks = min(fact.max_blocks, left)
        left -= blocks
        if blocks != job.blocks:
            _run(job, blocks, lane.speeds[0, m, blocks], now_s, fact.restart_s)
    pool.allotted, pool.stale = pool.held, 0
    pool.look_s = _next_look_s(lane, m, now_s) if fact.by_laxity else math.inf
    _look_ahead(lane, m)


@part
def _rank(lane, m, now_s):
    """Who gets blocks first, in `ranks`."""
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    ranks = lane.ranks
    for k in range(pool.active):
        job = jobs[jobs[k].active]
        ranks[k].place = jobs[k].active
        if fact.by_laxity:
            ranks[k].first = _laxity_s(job, now_s, fact.top_to_per_s, fact.restart_s)
            ranks[k].second, ranks[k].third = job.deadline_s, job.id
    if fact.by_laxity:
        sort(ranks, pool.active)


@part
def _next_look_s(lane, m, now_s):
    """When the laxity of a job with fewer than `max_blocks` blocks runs out; a job too late already has none."""
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    least_s = math.inf
    if fact.top_to_per_s != 0.0:
        for k in range(pool.active):
            job = jobs[jobs[k].active]
            if job.blocks < fact.most:
                look_s = nearest_tick(now_s + _laxity_s(job, now_s, fact.top_to_per_s, fact.restart_s))
                if now_s < look_s < least_s:
                    least_s = look_s
    return least_s


@part
def _look_ahead(lane, m):
    """When something happens next by itself."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    next_s = pool.look_s
    for k in range(pool.active):
        next_s = min(next_s, jobs[jobs[k].active].end_s, jobs[jobs[k].active].due_s)
    for k in range(pool.deferred):
        next_s = min(next_s, jobs[jobs[k].deferred].due_s)
    if pool.deferred:
        next_s = min(next_s, jobs[jobs[0].deferred].ready_s)
    pool.next_s = next_s


# --- how things stand ------------------------------------------------------------------------------------------------


@part
def read_pool(lane, m, reading, now_s, claims):
    """`levels`; `claims` are in `ranks` already, and those of this class join them. How many there are then."""
    pool, fact, jobs = lane.classes[m], lane.facts[m], lane.trainees[lane.facts[m].place]
    partials, ranks = lane.partials, lane.ranks
    top_to_per_s, late, urgent, n = fact.top_to_per_s, 0, 0, 0
    for k in range(pool.active):
        job = jobs[jobs[k].active]
        left_to = job.work_to - done_at(job, now_s)
        n = add_exactly(partials, n, left_to)
        slack_s = _laxity_s(job, now_s, top_to_per_s, fact.restart_s)
        late += slack_s < -LATE_S
        urgent += slack_s < URGENT_S
        ranks[claims].first, ranks[claims].second = job.due_s - now_s, left_to * fact.gpu_s_per_to
        ranks[claims].third = slack_s
        claims += 1
    reading.pending_to = rounded(partials, n)
    n = 0
    for k in range(pool.deferred):
        job = jobs[jobs[k].deferred]
        n = add_exactly(partials, n, job.work_to)
        laxity_s = _laxity_s(job, now_s, top_to_per_s, 0.0)
        slack_s = laxity_s - max(job.ready_s - now_s, 0.0)
        late += slack_s < -LATE_S
        urgent += slack_s < URGENT_S
        ranks[claims].first, ranks[claims].second = job.due_s - now_s, job.work_to * fact.gpu_s_per_to
        ranks[claims].third = laxity_s if slack_s >= 0.0 else slack_s
        claims += 1
    reading.deferred_to = rounded(partials, n)
    running = -(-pool.allotted // fact.max_blocks)
    reading.queued, reading.deferred, reading.running = pool.active - running, pool.deferred, running
    reading.late, reading.urgent = late, urgent - late
    return claims


@part
def slack_s(lane, claims, gpus):
    """`slack.slack_s` of the claims in `ranks`."""
    ranks = lane.ranks
    sort(ranks, claims)
    least_s, due_work_s = MOST_S, 0.0
    for k in range(claims):
        due_work_s += ranks[k].second
        least_s = min(least_s, ranks[k].first - due_work_s / gpus if gpus > 0.0 else -MOST_S, ranks[k].third)
    return max(least_s, -MOST_S)


@part
def shift_pool(lane, m, by_s, id_by):
    """The jobs of a class on a clock that is `by_s` behind, ids less by `id_by`, as `restore` leaves them."""
    pool, jobs = lane.classes[m], lane.trainees[lane.facts[m].place]
    for k in range(pool.active + pool.deferred):
        job = jobs[jobs[k].active if k < pool.active else jobs[k - pool.active].deferred]
        job.id -= id_by
        job.deadline_s -= by_s
        job.due_s -= by_s
        job.ready_s -= by_s
        job.since_s -= by_s
        job.from_s -= by_s
        job.start_s -= by_s
        job.end_s -= by_s
    pool.counted_s, pool.look_s, pool.stale = 0.0, pool.look_s - by_s, 0
    _look_ahead(lane, m)
