"""The slot model (14)-(18): worked out by hand, against a second program in exact fractions, and as what the
event-driven facility tends to when jobs get small.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.errors import ModelError, ScenarioError
from cosim.simulators.aidc.adapter import DataCenters, SlotDataCenters
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.slots import SlotFacility
from cosim.simulators.aidc.equations import cooling_power_kw
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

SITE = Site(node=0, racks=1, gpus_per_rack=12, idle_kw=40.0)
CLASSES = {  # in a slot of 60 s a GPU does 10 TO of fit and 6 TO of chat
    "fit": JobClass(kind="train", work_to=40, deadline_s=240, to_per_gpu_min=10, kw_per_to_s=3.0, gpus_per_block=2),
    "chat": JobClass(kind="inf", work_to=9, deadline_s=120, to_per_gpu_min=6, kw_per_to_s=5.0),
}
SLOT_S = 60.0


def lengths_jobs(facility: SlotFacility) -> list[float]:
    """B^0 or Z of each class: jobs in the queue, less the executed part of the first."""
    return [len(c._buckets[0]) - sum(c._done_to.get(job.id, 0.0) / job.work_to for job in c._buckets[0][:1])
            for c in facility._classes.values()]


class Run:
    def __init__(self, reading, classes=CLASSES, site=SITE):
        self.facility = SlotFacility("site", site, classes, CORRECTED, 23.0, SLOT_S, reading)
        self.id = 0

    def slot(self, fit_gpus, chat_gpus, fit=(), chat=0):
        """One slot: `fit` are deferrals in slots, `chat` a number; (interval, state)."""
        now_s = self.facility.now_s
        names = ["fit"] * len(fit) + ["chat"] * chat
        self.facility.submit({
            "id": list(range(self.id, self.id + len(names))), "job_class": names, "arrival_s": [now_s] * len(names),
            "work_to": [self.facility._job_classes[m].work_to for m in names],
            "deadline_s": [now_s + self.facility._job_classes[m].deadline_s for m in names],
            "release_s": [now_s + SLOT_S * h for h in fit] + [now_s] * chat,
        })
        self.id += len(names)
        self.facility.command([fit_gpus, chat_gpus], 23.0)
        self.facility.advance(now_s + SLOT_S)
        return self.facility.read_interval(), self.facility.state()


def rows(did, *names):
    return list(zip(*(did.left_jobs[n] for n in names), strict=True)) if did.left_jobs else []


@pytest.mark.rows("E14-17", "U04")
def test_training_is_executed_in_its_due_slot_or_dropped():
    # 6 GPUs do 60 TO a slot: one job and a half
    run = Run("fractional")
    did, state = run.slot(6, 0, fit=[0, 0, 1, 4])
    assert (run.facility.executed_jobs, run.facility.lost_jobs) == ([1.5, 0], [0.5, 0])
    assert (did.received_jobs, did.finished_jobs, did.dropped_jobs) == ([4, 0], [1, 0], [1, 0])
    assert rows(did, "id", "start_s", "end_s", "done_to", "outcome") == [
        (0, 0, 60, 40, "finished"), (1, 0, 60, 20, "dropped"),
    ]  # fmt: skip
    # B^0 and B^3 hold one each: the shift (15) has taken place
    assert (state.queued_jobs, state.deferred_jobs) == ([1, 0], [1, 0])
    assert (state.pending_work_to, state.deferred_work_to) == ([40, 0], [40, 0])
    did, _ = run.slot(6, 0)
    assert (did.finished_jobs, did.dropped_jobs, did.work_to) == ([1, 0], [0, 0], [40, 0])  # <= of (14)
    assert did.busy_gpus == [4, 0]
    assert run.facility.short_slots == 1
    for expected in (0, 0, 1):
        did, _ = run.slot(6, 0)
        assert did.finished_jobs == [expected, 0]


@pytest.mark.rows("E14", "E17")
def test_the_integer_reading_leaves_what_does_not_make_a_job():
    run = Run("integer")
    did, _ = run.slot(6, 4, fit=[0, 0], chat=4)
    # 60 TO: one job of 40; 24 TO: two of 9
    assert (did.finished_jobs, did.dropped_jobs, did.work_to) == ([1, 2], [1, 0], [40, 18])
    assert rows(did, "id", "done_to", "outcome") == [
        (0, 40, "finished"), (1, 0, "dropped"), (2, 9, "finished"), (3, 9, "finished"),
    ]  # fmt: skip
    did, state = run.slot(0, 1)  # 6 TO are no job, in no slot
    assert (did.finished_jobs, did.work_to, did.dropped_jobs, state.queued_jobs) == ([0, 0], [0, 0], [0, 2], [0, 0])
    assert (run.facility.executed_jobs, run.facility.lost_jobs) == ([0, 0], [0, 2])


def test_the_fractional_reading_keeps_the_part_of_the_first_in_the_queue():
    run = Run("fractional")
    did, state = run.slot(0, 2, chat=2)  # 12 TO: one job, and 3 of the other's 9
    assert (did.finished_jobs, run.facility.executed_jobs) == ([0, 1], [0, pytest.approx(12 / 9)])
    assert (state.queued_jobs[1], state.pending_work_to[1]) == (1, 6)
    assert lengths_jobs(run.facility)[1] == pytest.approx(2 / 3)
    did, _ = run.slot(0, 1)  # the other 6
    assert rows(did, "id", "start_s", "end_s", "outcome") == [(1, 0, 120, "finished")]
    # begun and late: a third is lost with it
    run.slot(0, 1, chat=1)
    did, state = run.slot(0, 0)
    assert rows(did, "id", "start_s", "end_s", "done_to", "outcome") == [(2, 120, 240, 6, "dropped")]
    assert (did.dropped_jobs[1], run.facility.lost_jobs[1], state.queued_jobs[1]) == (1, pytest.approx(1 / 3), 0)


@pytest.mark.rows("E13", "U03")
def test_power_is_that_of_the_work_executed():
    did, _ = Run("fractional").slot(4, 2, fit=[0], chat=1)
    # fit: 40 TO in 60 s at 3 kW/(TO/s), chat: 9 TO in 60 s at 5 kW/(TO/s)
    it_kw = 40 + 3 * 40 / 60 + 5 * 9 / 60
    assert did.it_kw == pytest.approx(it_kw, rel=1e-12)
    assert (did.chiller_kw, did.tower_kw) == cooling_power_kw(did.it_kw, 23.0, CORRECTED)[1:]
    assert did.busy_gpus == [4, 1.5]


def test_what_the_slots_refuse():
    run = Run("fractional")
    with pytest.raises(ModelError, match="released 5 slots from now; the buckets of .15. reach 4"):
        run.slot(0, 0, fit=[5])
    with pytest.raises(ModelError, match="slots are 60 s long"):
        Run("integer").facility.advance(30.0)
    with pytest.raises(ModelError, match="nothing to read"):
        Run("integer").facility.read_interval()
    with pytest.raises(ModelError, match="13 GPUs granted in sum; the site has 12"):
        run.slot(4, 9)
    with pytest.raises(ScenarioError, match="reading"):
        SlotDataCenters().init("aidc", job_classes={"a": {"kind": "inf", "work_to": 1, "deadline_s": 1,
                                                          "to_per_gpu_min": 1, "kw_per_to_s": 1}},
                               sites={"s": {"node": 0}}, reading="whole")


def test_ports_are_those_of_the_event_driven_sites():
    event = DataCenters.MODELS["Site"]
    assert SlotDataCenters.MODELS["Site"][: len(event)] == event
    assert [p.name for p in SlotDataCenters.MODELS["Site"][len(event) :]] == ["executed_jobs", "lost_jobs"]


# --- (14)-(18) a second time, in numbers of jobs ----------------------------------------------------------------------


class Numbers:
    """B^h, Z and the rest as numbers of jobs, in exact fractions; Z by the slot of arrival."""

    def __init__(self, whole):
        self.whole = whole
        self.tau = {"fit": 4, "chat": 2}
        self.bucket = [Fraction(0)] * 5
        self.queue = []  # [slot, number left]
        self.now = 0

    def x(self, name, gpus, there):
        """(14) with <=."""
        c = CLASSES[name]
        most = Fraction(c.to_per_gpu_min) * gpus / Fraction(c.work_to)
        return min(Fraction(math.floor(most)) if self.whole else most, there)

    def slot(self, fit_gpus, chat_gpus, fit, chat):
        n = [fit.count(h) for h in range(5)]
        due = self.bucket[0] + n[0]
        x_fit = self.x("fit", fit_gpus, due)
        lost_fit = max(Fraction(0), due - x_fit)  # (17)
        self.bucket = [self.bucket[h + 1] + n[h + 1] for h in range(4)] + [Fraction(0)]  # (15), (16)
        self.queue.append([self.now, Fraction(chat)])
        length = sum(number for _, number in self.queue)
        x_chat = left = self.x("chat", chat_gpus, length)
        for cohort in self.queue:
            served = min(left, cohort[1])
            cohort[1] -= served
            left -= served
        self.now += 1
        lost_chat = sum(number for slot, number in self.queue if slot + 2 <= self.now)
        self.queue = [c for c in self.queue if c[0] + 2 > self.now]
        z = max(Fraction(0), length - x_chat - lost_chat)  # (18)
        assert z == sum(number for _, number in self.queue)
        return [x_fit, x_chat], [lost_fit, lost_chat], [self.bucket[0], z], sum(self.bucket[1:])


slots = st.lists(
    st.tuples(st.sampled_from([0, 2, 4, 6]), st.integers(0, 6), st.lists(st.integers(0, 4), max_size=5),
              st.integers(0, 9)), min_size=1, max_size=9)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(slots, st.booleans())
@pytest.mark.rows("E14-18", "I04", "U04", "U13")
def test_agrees_with_the_equations_in_numbers(plan, whole):
    run, numbers = Run("integer" if whole else "fractional"), Numbers(whole)
    received, gone = [0, 0], [0, 0]
    for step in plan:
        did, state = run.slot(*step)
        x, lost, queued, deferred = numbers.slot(*step)
        length = lengths_jobs(run.facility)
        assert run.facility.executed_jobs == pytest.approx([float(v) for v in x], abs=1e-9)
        assert run.facility.lost_jobs == pytest.approx([float(v) for v in lost], abs=1e-9)
        assert length == pytest.approx([float(v) for v in queued], abs=1e-9)
        assert state.deferred_jobs == [deferred, 0]
        for k in range(2):  # and no job appears or is lost
            received[k] += did.received_jobs[k]
            gone[k] += did.finished_jobs[k] + did.dropped_jobs[k]
            assert received[k] == gone[k] + state.queued_jobs[k] + state.deferred_jobs[k]
        assert did.work_to == pytest.approx([float(v * int(c.work_to)) for v, c in zip(x, CLASSES.values(),
                                                                                      strict=True)], abs=1e-6)


# --- the event-driven facility with small jobs ------------------------------------------------------------------------


def apart(parts):
    """Largest distance of the two models' work done and lost in any minute, jobs cut into `parts`; TO.

    A site of 120 GPUs; whole jobs take a GPU 40 s of inference, a block 50 s of training. What is to be trained is
    due in its minute, so that both models drop it at the minute's end; what waits is late after two minutes.
    """
    site = Site(node=0, racks=10, gpus_per_rack=12)
    classes = {
        "fit": JobClass(kind="train", work_to=100 / parts, deadline_s=60, to_per_gpu_min=60, kw_per_to_s=1,
                        gpus_per_block=2, max_blocks=30),
        "chat": JobClass(kind="inf", work_to=40 / parts, deadline_s=120, to_per_gpu_min=60, kw_per_to_s=1),
    }
    slot, event = Run("fractional", classes, site), Facility("site", site, classes, CORRECTED, 23.0)
    plan = [(60, 60, 20, 70), (40, 80, 31, 150), (100, 20, 40, 120), (20, 100, 50, 90), (60, 60, 0, 200),
            (60, 30, 66, 0), (0, 120, 5, 260), (120, 0, 90, 60), (30, 90, 11, 110)]
    worst = 0.0
    for fit_gpus, chat_gpus, fit, chat in plan:
        now_s, names = event.now_s, ["fit"] * fit * parts + ["chat"] * chat * parts
        event.submit({"id": list(range(len(names))), "job_class": names, "arrival_s": [now_s] * len(names),
                      "work_to": [classes[m].work_to for m in names],
                      "deadline_s": [now_s + classes[m].deadline_s for m in names]})
        event.command([fit_gpus, chat_gpus], 23.0)
        event.advance(now_s + SLOT_S)
        a, b = event.read_interval(), slot.slot(fit_gpus, chat_gpus, [0] * fit * parts, chat * parts)[0]
        left = (a.dropped_jobs, slot.facility.lost_jobs)
        lost = [[n * c.work_to for n, c in zip(jobs, classes.values(), strict=True)] for jobs in left]
        worst = max(worst, *(abs(p - q) for p, q in zip(a.work_to + lost[0], b.work_to + lost[1], strict=True)))
    return worst


@pytest.mark.long
def test_the_facility_tends_to_the_slots_as_jobs_get_small():
    distance = [apart(parts) for parts in (1, 2, 4, 8, 16)]
    assert distance[0] > 2000  # of some 6000 TO a minute: with whole jobs the two models are far apart
    assert all(b < 0.6 * a for a, b in zip(distance[1:], distance[2:], strict=False))  # first order in the job size
    assert distance[-1] < 0.12 * distance[0]
