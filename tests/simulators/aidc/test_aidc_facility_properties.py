"""What holds at a site whatever comes: laws over random batches and commands, and agreement with a second program.

The second program (`Slow`) is written for clearness, not for speed: exact fractions, no calendar of events, every list
scanned at every instant. Its job sizes make all event times binary fractions, so that both must agree exactly.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.equations import cooling_power_kw
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

SITE = Site(node=0, racks=2, gpus_per_rack=6, idle_kw=30.0)
SMOOTH = {  # 1 TO/s per job for a and b, 2 and 1 TO/s per block for c and d
    "c": JobClass(kind="train", work_to=9, deadline_s=9, to_per_gpu_min=60, kw_per_to_s=0.7, gpus_per_block=2,
                  max_blocks=2),
    "a": JobClass(kind="inf", work_to=9, deadline_s=9, to_per_gpu_min=60, kw_per_to_s=0.9),
    "b": JobClass(kind="inf", work_to=9, deadline_s=9, to_per_gpu_min=15, kw_per_to_s=2.5, gpus_per_block=4),
    "d": JobClass(kind="train", work_to=9, deadline_s=9, to_per_gpu_min=15, kw_per_to_s=1.5, gpus_per_block=4),
}  # fmt: skip
ROUGH = {  # speeds that no binary fraction holds
    "c": JobClass(kind="train", work_to=9, deadline_s=9, to_per_gpu_min=47.1, kw_per_to_s=0.7, gpus_per_block=2,
                  max_blocks=5),
    "a": JobClass(kind="inf", work_to=9, deadline_s=9, to_per_gpu_min=61.3, kw_per_to_s=0.9),
    "b": JobClass(kind="inf", work_to=9, deadline_s=9, to_per_gpu_min=13.7, kw_per_to_s=2.5, gpus_per_block=3),
    "d": JobClass(kind="train", work_to=9, deadline_s=9, to_per_gpu_min=7.9, kw_per_to_s=1.5, gpus_per_block=3,
                  max_blocks=2),
}  # fmt: skip
NAMES = list(SMOOTH)
BLOCKS = {"smooth": (2, 1, 1, 4), "rough": (2, 1, 1, 3)}
TICK_S = 60.0


@st.composite
def minutes(draw, blocks, real):
    """A few minutes, each a batch of jobs (class, size, seconds to the deadline, seconds to the release), grants, T."""
    number = st.floats(0.1, 250) if real else st.integers(1, 250)
    late = st.floats(-5, 400) if real else st.integers(-5, 400)
    job = st.tuples(st.sampled_from(NAMES), number, late, st.floats(0, 200) if real else st.integers(0, 200))
    plan = []
    for _ in range(draw(st.integers(1, 6))):
        left, grants = SITE.gpus, [0] * 4
        for k in draw(st.permutations(range(4))):
            grants[k] = draw(st.integers(0, left // blocks[k])) * blocks[k]
            left -= grants[k]
        plan.append((draw(st.lists(job, max_size=14)), grants, draw(st.sampled_from([18.0, 20.5, 23.0]))))
    return plan


def batch(jobs, first_id, now_s):
    """The batch of one minute; inference is released at once."""
    if not jobs:
        return {}
    return {
        "id": list(range(first_id, first_id + len(jobs))),
        "job_class": [m for m, *_ in jobs],
        "arrival_s": [now_s] * len(jobs),
        "work_to": [float(size) for _, size, _, _ in jobs],
        "deadline_s": [now_s + late for _, _, late, _ in jobs],
        "release_s": [now_s + later if SMOOTH[m].kind == "train" else now_s for m, _, _, later in jobs],
    }


def play(plan, classes):
    """Run a plan; per minute its interval and state, all rows, and the busy GPUs after every instant."""
    busy, seen, rows, ids = [], [], [], 0
    facility = Facility("site", SITE, classes, CORRECTED, 23.0, watch=lambda *now: busy.append(now))
    for k, (jobs, grants, supply_degc) in enumerate(plan):
        facility.submit(batch(jobs, ids, k * TICK_S))
        ids += len(jobs)
        facility.command(grants, supply_degc)
        facility.advance((k + 1) * TICK_S)
        did = facility.read_interval()
        seen.append((did, facility.state()))
        rows += as_rows(did.left_jobs)
    return seen, rows + as_rows(facility.unfinished_rows()), busy


def as_rows(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# --- agreement with a second program --------------------------------------------------------------------------------


class Slow:
    """The same site, written a second time."""

    def __init__(self):
        self.jobs, self.gone, self.busy, self.grants = [], [], [], dict.fromkeys(NAMES, 0)
        self.held = {m: 0 for m, c in SMOOTH.items() if c.kind == "train"}

    def submit(self, columns):
        for row in as_rows(columns):
            job = {k: Fraction(v) if k.endswith(("_s", "_to")) else v for k, v in row.items()}
            self.jobs.append({**job, "done": Fraction(0), "units": 0, "start": None})

    def speed(self, job):
        c = SMOOTH[job["job_class"]]
        return Fraction(c.to_per_gpu_min) / 60 * c.gpus_per_block * job["units"]

    def advance(self, now, end):
        self.settle(now)
        while now < end:
            times = [end] + [t for j in self.jobs for t in (j["deadline_s"], j["release_s"]) if now < t < end]
            times += [now + (j["work_to"] - j["done"]) / self.speed(j) for j in self.jobs if j["units"]]
            until = min(times)
            for job in self.jobs:
                job["done"] += self.speed(job) * (until - now)
            now = until
            self.settle(now)

    def leave(self, job, now, outcome):
        if job["job_class"] in self.held:
            self.held[job["job_class"]] -= job["units"]
        self.jobs.remove(job)
        self.gone.append({**job, "end": now, "outcome": outcome})

    def settle(self, now):
        for job in [j for j in self.jobs if j["done"] == j["work_to"]]:
            self.leave(job, now, "finished")
        for job in [j for j in self.jobs if j["deadline_s"] <= now]:
            if job["job_class"] in self.held or not job["units"]:
                self.leave(job, now, "dropped")
        active = {m: [j for j in self.jobs if j["job_class"] == m and j["release_s"] <= now] for m in NAMES}
        want = {m: min(self.grants[m] // SMOOTH[m].gpus_per_block, SMOOTH[m].max_blocks * len(active[m]))
                for m in self.held}  # fmt: skip
        for m in self.held:
            self.held[m] = min(self.held[m], want[m])
        for m in NAMES:
            if m not in self.held:
                self.start(active[m], m, now)
        for m in self.held:
            while self.held[m] < want[m] and self.free() >= SMOOTH[m].gpus_per_block:
                self.held[m] += 1
            left = self.held[m]
            for job in sorted(active[m], key=lambda j: (j["deadline_s"], j["id"])):
                job["units"] = min(left, SMOOTH[m].max_blocks)
                left -= job["units"]
                if job["units"] and job["start"] is None:
                    job["start"] = now
        self.busy.append((float(now), tuple(self.used(m) for m in NAMES)))

    def start(self, line, m, now):
        need = SMOOTH[m].gpus_per_block
        for job in line:
            if not job["units"]:
                if self.used(m) + need > self.grants[m] or self.free() < need:
                    return
                job["units"], job["start"] = 1, now

    def used(self, m):
        if m in self.held:
            return self.held[m] * SMOOTH[m].gpus_per_block
        return sum(j["units"] for j in self.jobs if j["job_class"] == m) * SMOOTH[m].gpus_per_block

    def free(self):
        return SITE.gpus - sum(self.used(m) for m in NAMES)


def moment(time_s):
    return None if math.isnan(time_s) else time_s


def changes(trajectory):
    """The last word of every instant, without those at which nothing changed."""
    last = list(dict(trajectory).items())
    return [last[0]] + [b for a, b in pairwise(last) if b[1] != a[1]]


@settings(max_examples=50, deadline=None)
@given(minutes(BLOCKS["smooth"], real=False))
@pytest.mark.rows("L12")
def test_agrees_exactly_with_a_second_program(plan):
    slow, ids = Slow(), 0
    for k, (jobs, grants, _) in enumerate(plan):
        slow.submit(batch(jobs, ids, k * TICK_S))
        ids += len(jobs)
        slow.grants = dict(zip(NAMES, grants, strict=True))
        slow.advance(Fraction(k * 60), Fraction(k * 60 + 60))
    _, rows, busy = play(plan, SMOOTH)
    inside = [{**job, "end": None, "outcome": "unfinished"} for job in slow.jobs]
    expected = {j["id"]: (j["start"], j["end"], j["done"], j["outcome"]) for j in slow.gone + inside}
    found = {r["id"]: (moment(r["start_s"]), moment(r["end_s"]), r["done_to"], r["outcome"]) for r in rows}
    assert found == expected
    assert changes(busy) == changes(slow.busy)


# --- laws -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
@pytest.mark.rows("E14", "U12")
def test_gpus_in_use_keep_capacity_and_grants_at_every_instant(plan):
    _, _, busy = play(plan, ROUGH)
    before = (0,) * 4
    for time_s, now in busy:
        grants = plan[min(math.ceil(time_s / TICK_S - 1e-12), len(plan)) - 1][1] if time_s % TICK_S else None
        assert sum(now) <= SITE.gpus
        for k, m in enumerate(NAMES):
            if grants is not None:
                # an inference class above its grant may only shrink; training never is above
                assert now[k] <= grants[k] or (ROUGH[m].kind == "inf" and now[k] <= before[k])
        before = now


@settings(max_examples=50, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
def test_jobs_are_conserved_every_minute_per_class(plan):
    seen, rows, _ = play(plan, ROUGH)
    received, left = [0] * 4, [0] * 4
    for (did, state), (jobs, *_) in zip(seen, plan, strict=True):
        assert did.received_jobs == [sum(m == name for m, *_ in jobs) for name in NAMES]
        for k in range(4):
            received[k] += did.received_jobs[k]
            left[k] += did.finished_jobs[k] + did.dropped_jobs[k]
            assert received[k] == left[k] + state.queued_jobs[k] + state.deferred_jobs[k] + state.running_jobs[k]
    assert sorted(r["id"] for r in rows) == list(range(sum(received)))


@settings(max_examples=50, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
def test_work_is_conserved(plan):
    seen, rows, _ = play(plan, ROUGH)
    for _, state in seen:
        for k in range(4):
            assert (state.pending_work_to[k] == 0.0) == (state.queued_jobs[k] + state.running_jobs[k] == 0)
            assert (state.deferred_work_to[k] == 0.0) == (state.deferred_jobs[k] == 0)
    for k, m in enumerate(NAMES):
        mine = [r for r in rows if r["job_class"] == m]
        done = math.fsum(r["done_to"] for r in mine)
        assert math.fsum(did.work_to[k] for did, _ in seen) == pytest.approx(done, rel=1e-9, abs=1e-9)
        assert all(r["done_to"] == r["work_to"] for r in mine if r["outcome"] == "finished")
        assert all(-1e-9 <= r["done_to"] < r["work_to"] for r in mine if r["outcome"] != "finished")
        state = seen[-1][1]
        inside = math.fsum(r["work_to"] - r["done_to"] for r in mine if r["outcome"] == "unfinished")
        assert state.pending_work_to[k] + state.deferred_work_to[k] == pytest.approx(inside, rel=1e-9, abs=1e-9)
        # and it is what the GPUs in use did, but for the clock's ticks
        gpu_s = math.fsum(did.busy_gpus[k] * did.seconds for did, _ in seen)
        assert gpu_s * ROUGH[m].to_per_gpu_min / 60 == pytest.approx(done, rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
def test_energy_is_the_integral_of_power(plan):
    seen, _, busy = play(plan, ROUGH)
    ends = [t for t, _ in busy[1:]] + [len(plan) * TICK_S]
    it_kws = cooling_kws = 0.0
    for (start_s, gpus), end_s in zip(busy, ends, strict=True):
        supply_degc = plan[min(int(start_s // TICK_S), len(plan) - 1)][2]
        it_kw = SITE.idle_kw + sum(n * c.busy_kw_per_gpu for n, c in zip(gpus, ROUGH.values(), strict=True))
        it_kws += it_kw * (end_s - start_s)
        cooling_kws += sum(cooling_power_kw(it_kw, supply_degc, CORRECTED)[1:]) * (end_s - start_s)
    assert math.fsum(did.it_kwh for did, _ in seen) == pytest.approx(it_kws / 3600, rel=1e-9)
    assert math.fsum(did.cooling_kwh for did, _ in seen) == pytest.approx(cooling_kws / 3600, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
def test_every_row_tells_a_possible_story(plan):
    _, rows, _ = play(plan, ROUGH)
    for r in rows:
        c = ROUGH[r["job_class"]]
        began = not math.isnan(r["start_s"])
        assert not began or r["start_s"] >= r["release_s"]
        if r["outcome"] == "finished" and c.kind == "inf":
            seconds = r["work_to"] / (c.to_per_gpu_min / 60 * c.gpus_per_block)
            assert r["end_s"] - r["start_s"] == pytest.approx(seconds, abs=1e-7)
            assert r["start_s"] < r["deadline_s"] + 1e-7
        elif r["outcome"] == "finished":
            assert r["end_s"] <= r["deadline_s"] + 1e-7
        elif r["outcome"] == "dropped":
            assert r["end_s"] == pytest.approx(max(r["deadline_s"], r["submit_s"]), abs=1e-7)
            assert not began or c.kind == "train"
    for m in ("a", "b"):  # first come, first served: ids are in order of coming
        starts = [r["start_s"] for r in sorted(rows, key=lambda r: r["id"]) if r["job_class"] == m]
        starts = [t for t in starts if not math.isnan(t)]
        assert starts == sorted(starts)


@settings(max_examples=40, deadline=None)
@given(minutes(BLOCKS["rough"], real=True))
def test_same_calls_same_numbers(plan):
    assert repr(play(plan, ROUGH)) == repr(play(plan, ROUGH))


@settings(max_examples=30, deadline=None)
@given(minutes(BLOCKS["smooth"], real=False), st.lists(st.sampled_from([0.25, 7.5, 11.0, 29.0]), max_size=5))
def test_stopping_in_between_changes_nothing(plan, pauses):
    whole = play(plan[:1], SMOOTH)
    facility = Facility("site", SITE, SMOOTH, CORRECTED, 23.0)
    jobs, grants, supply_degc = plan[0]
    facility.submit(batch(jobs, 0, 0.0))
    facility.command(grants, supply_degc)
    for at_s in accumulate(pauses):
        facility.advance(min(at_s, TICK_S))
    facility.advance(TICK_S)
    assert repr(facility.read_interval().left_jobs) == repr(whole[0][0][0].left_jobs)
    assert facility.state() == whole[0][0][1]
