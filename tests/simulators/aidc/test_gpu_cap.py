"""A site with GPU types under a cap: GPUs are slowed before work is withheld, and nothing is above it."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_site import CLASSES, batch
from typed_site import BUSY, ONE, WAKING, ends, make, minute

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.capped import CapRules
from cosim.simulators.aidc.gpus.states import SleepRules
from cosim.simulators.fleet import JobClass


def cap_of(it_kw):
    """The cap at the meter that leaves so much for IT: cooling is a quarter of it."""
    return 1.25 * it_kw


def test_gpus_are_slowed_before_work_is_withheld_and_the_cap_is_kept_to_the_kw():
    facility = make(ONE, {"chat": CLASSES["chat"]})
    facility.submit(batch(0.0, *((k, "chat", 30, 500) for k in range(10))))
    facility.command([10], 23.0)
    facility.advance(0.0)
    facility.cap(cap_of(10 + 25.0))  # of 30 kW: each may draw 2.5 of 3, 5/6 of its speed
    facility.advance(60.0)
    did = facility.read_interval()
    assert all(end == pytest.approx(36.0, abs=1e-6) for _, end, _ in ends(did).values())
    assert did.it_kw * 60 == pytest.approx(36 * 35 + 24 * 20)
    assert facility.tick.capped_s == pytest.approx(36.0)
    facility.cap(cap_of(10 + 14.0))  # idle 10, and 4 for jobs at the lowest limit, 0.5 above idle: eight of them
    facility.submit(batch(60.0, *((k, "chat", 30, 500) for k in range(10, 20))))
    facility.advance(60.0)
    assert (facility._classes[0].busy_gpus, facility.held_gpus()) == (8, [2.0])
    facility.advance(119.0)
    assert facility.read_interval().it_kw == pytest.approx(24.0)


def test_without_slowing_work_is_withheld_at_once():
    facility = make(ONE, {"chat": CLASSES["chat"]}, slow_for_cap=False)
    facility.cap(cap_of(10 + 25.0))
    facility.submit(batch(0.0, *((k, "chat", 30, 500) for k in range(10))))
    facility.command([10], 23.0)
    facility.advance(0.0)
    assert facility._classes[0].busy_gpus == 7  # 2 kW each above idle, 15 kW for it


@pytest.mark.parametrize(("running", "held"), [("pause", [4, 6]), ("keep", [4, 6])])
def test_training_gives_way_as_without_types(running, held):
    facility = make(ONE, rules=CapRules(running=running), slow_for_cap=False)
    facility.submit(batch(0.0, *((k, "fit", 480, 900) for k in range(2)), *((k, "chat", 30, 500) for k in range(2, 6))))
    facility.command([4, 6], 23.0)
    facility.advance(0.0)
    assert [c.busy_gpus for c in facility._classes] == held
    facility.cap(cap_of(10 + 10 + 12.0))  # six GPUs
    facility.advance(1.0)
    assert [c.busy_gpus for c in facility._classes] == ([4, 2] if running == "pause" else [4, 6])


@given(st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_energy_and_gpus_are_conserved_and_the_cap_is_kept(seed):
    """States sum to the counts, power to the states', work to the jobs', whatever comes; no instant is above the cap.
    """
    draw = random.Random(seed)
    facility = make(sleep=SleepRules(after_s=draw.choice([1.0, 20.0, 90.0]), unit_gpus=draw.choice([1, 2])),
                    placement=draw.choice(["fastest", "efficient"]), resolve_power=True)
    done_to, work_to, count = 0.0, 0.0, 0
    for k in range(15):
        jobs = [(count + j, name := draw.choice(["chat", "fit"]), 30 if name == "chat" else 200,
                 60 * k + draw.choice([120, 600])) for j in range(draw.randrange(7))]
        count += len(jobs)
        chat = draw.randrange(9)
        cap = draw.choice([None, 30.0, 40.0])
        facility.cap(math.inf if cap is None else cap_of(cap))
        did = minute(facility, jobs, chat, 2 * draw.randrange((10 - chat) // 2 + 1))
        tick = facility.tick
        assert [sum(tick.state_gpus[:4]), sum(tick.state_gpus[4:])] == pytest.approx([6, 4])
        assert did.it_kw == pytest.approx(10 + sum(tick.state_kw), rel=1e-12)
        assert tick.state_gpus[BUSY] + tick.state_gpus[4] == pytest.approx(sum(did.busy_gpus))
        by_hand = (tick.state_gpus[BUSY] * 1.0 + sum(tick.dynamic_kw[:2])
                   + tick.state_gpus[4] * 0.5 + sum(tick.dynamic_kw[2:]))
        assert tick.state_kw[BUSY] + tick.state_kw[4] == pytest.approx(by_hand)
        if cap is not None:  # all ten GPUs at their lowest limits draw 25 kW with what is beside them
            assert max(segment[2] for segment in did.segments) <= cap + 1e-6
        done_to += sum(did.left_jobs.get("done_to", ()))
        work_to += sum(did.work_to)
    inside = sum(facility.unfinished_rows().get("done_to", ()))
    assert work_to == pytest.approx(done_to + inside, rel=1e-9, abs=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_nothing_is_begun_beyond_a_cap(seed):
    """Where even the lowest limits are not enough: above the cap is only inference that ran before, at its lowest
    limits, with training stopped; and no instant at which a job begins or a GPU wakes up is above it."""
    draw, seen = random.Random(seed), []
    classes = {**CLASSES, "talk": JobClass(kind="inf", work_to=40, deadline_s=200, to_per_gpu_min=60, kw_per_to_s=1.0)}
    unit = draw.choice([1, 2])
    facility = make(classes=classes, resolve_power=True, slow_for_cap=draw.random() < 0.7,
                    sleep=draw.choice([None, SleepRules(after_s=10.0, unit_gpus=unit)]),
                    watch=lambda now_s, busy: seen.append((now_s, busy, facility.gpu_kw + 10.0, sum(
                        group.levels()[WAKING] for group in facility._groups))))
    count, before = 0, (0.0, (0, 0, 0), 18.0, 0)
    for k in range(12):
        jobs = [(count + j, name := draw.choice(["chat", "talk", "fit"]), 200 if name == "fit" else 30,
                 60 * k + draw.choice([120, 600])) for j in range(draw.randrange(8))]
        count += len(jobs)
        cap = draw.choice([math.inf, 19.0, 20.5, 22.0, 26.0, 31.0])
        facility.cap(cap if cap == math.inf else cap_of(cap))
        facility.submit(batch(60.0 * k, *jobs) if jobs else {})
        grants = [draw.randrange(6), 2 * draw.randrange(3)]
        facility.command([*grants, draw.randrange(10 - sum(grants) + 1)], 23.0)
        seen.clear()
        facility.advance(60.0 * (k + 1))
        for now in seen:
            (_, then, _, woke), (_, busy, it_kw, wakes) = before, now
            before = now
            if it_kw <= cap + 1e-6:
                continue
            assert busy[1] == 0
            assert busy[0] <= then[0]
            assert busy[2] <= then[2]
            assert wakes <= woke


def test_what_does_not_go_with_types_is_refused():
    with pytest.raises(ModelError, match="slowed for a cap, not stopped"):
        make(rules=CapRules(running="stop"))
