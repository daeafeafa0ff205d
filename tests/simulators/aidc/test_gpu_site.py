"""A site with GPU types: power states, limits and sleep, by hand and against a plain reference."""

import math
import random

import pytest
from gpu_reference import OneType, Reference
from hypothesis import given, settings
from hypothesis import strategies as st
from small_site import CLASSES, PLAIN, batch
from typed_site import ASLEEP, FAST, ONE, SLOW, WAKING, ends, make, minute

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.gpus.states import SleepRules
from cosim.simulators.fleet import JobClass, Site

# --- types ----------------------------------------------------------------------------------------------------------


def test_jobs_take_the_fastest_free_gpus_and_draw_what_their_type_draws():
    did = minute(make(), [(k, "chat", 30, 500) for k in range(8)], chat=8)
    found = ends(did)
    assert [found[k] for k in range(8)] == [(0.0, 30.0, "fast")] * 6 + [(0.0, 60.0, "slow")] * 2
    # 10 beside; 6 fast 30 s busy at 4, then 30 s idle at 1; 2 slow busy at 1.5 all the time, 2 idle at 0.5
    assert did.it_kw == pytest.approx(10 + 6 * (4 + 1) / 2 + 2 * 1.5 + 2 * 0.5)
    assert did.work_to[0] == pytest.approx(8 * 30)


def test_the_efficient_ones_first_where_the_rule_says_so():
    cheap = {"fast": FAST | {"speed_ratio": 1.5}, "slow": SLOW | {"speed_ratio": 1.0}}
    # 4 kW at 1.5 is 2.67 kWs of a unit of work, 1.5 kW at 1 is 1.5
    did = minute(make(cheap, placement="efficient"), [(0, "chat", 30, 500)], chat=1)
    assert ends(did)[0] == (0.0, 30.0, "slow")
    did = minute(make(cheap, placement="fastest"), [(0, "chat", 30, 500)], chat=1)
    assert ends(did)[0] == (0.0, 20.0, "fast")


def test_a_class_with_speeds_of_its_own_and_a_need_of_memory():
    classes = {"chat": JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=60, kw_per_to_s=2.0,
                                gpu_speed_ratio={"slow": 2.0}),
               "big": JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=60, kw_per_to_s=1.0,
                               memory_gb=64, gpu_speed_ratio={"slow": 2.0})}
    did = minute(make(classes=classes), [(0, "chat", 30, 100), (1, "big", 30, 100)], chat=1, fit=1)
    assert ends(did) == {0: (0.0, 15.0, "slow"), 1: (0.0, 30.0, "fast")}
    # big draws half as much above idle as chat, which uses the whole range
    assert did.it_kw * 60 == pytest.approx(60 * (10 + 6 * 1.0 + 4 * 0.5) + 15 * (1.5 - 0.5) + 30 * (4 - 1) / 2)


def test_a_training_job_runs_on_one_type_and_moves_with_a_restart():
    classes = {"fit": JobClass(kind="train", work_to=480, deadline_s=9000, to_per_gpu_min=60, kw_per_to_s=2.0,
                               gpus_per_block=2, max_blocks=3, restart_s=8)}
    facility = make(classes=classes)
    facility.submit(batch(0.0, (0, "fit", 480, 9000), (1, "fit", 480, 8000)))
    facility.command([10], 23.0)
    facility.advance(0.0)
    # the one due first takes 6 fast GPUs (6 TO/s), the other 4 slow ones (2 TO/s)
    assert [c.busy_of for c in facility._classes] == [[6, 4]]
    facility.advance(80.0)  # the first is done; the other stays on its type: 160 done
    assert [c.busy_of for c in facility._classes] == [[0, 4]]
    facility.submit(batch(80.0, (2, "fit", 6000, 500)))  # due before it, fast ones are free
    facility.advance(80.0)
    assert [c.busy_of for c in facility._classes] == [[6, 4]]
    facility.command([6], 23.0)  # the one due later loses all
    facility.advance(100.0)
    assert [c.busy_of for c in facility._classes] == [[6, 0]]
    facility.command([10], 23.0)
    facility.advance(1000.0)
    did = facility.read_interval()
    rows = {k: row for k, *row in zip(*(did.left_jobs[name] for name in ("id", "end_s", "outcome")), strict=True)}
    # 320 left at 2 TO/s after a restart of 8 s from 100 s on; the fast ones stay with job 2, which is dropped at 500 s
    assert rows == {0: [268.0, "finished"], 1: [80.0, "finished"], 2: [500.0, "dropped"]}


def test_a_job_whose_type_is_taken_goes_on_at_another_after_a_restart():
    classes = {"fit": JobClass(kind="train", work_to=480, deadline_s=9000, to_per_gpu_min=60, kw_per_to_s=2.0,
                               gpus_per_block=2, max_blocks=3, restart_s=8)}
    facility = make(classes=classes)
    facility.submit(batch(0.0, (0, "fit", 480, 9000)))
    facility.command([10], 23.0)
    facility.advance(20.0)  # on the fast ones: 120 done
    facility.submit(batch(20.0, (1, "fit", 480, 500)))  # due before it: takes them
    facility.advance(300.0)
    # 360 left at 2 TO/s on the slow ones, 8 s later
    assert ends(facility.read_interval()) == {0: (0.0, 20 + 8 + 180.0, "slow"), 1: (20.0, 100.0, "fast")}


def test_a_host_is_drawn_while_its_gpu_is_awake():
    facility = make({"only": ONE["only"] | {"host_kw": 0.5, "waking_kw": 2.0}}, {"chat": CLASSES["chat"]},
                    sleep=SleepRules(after_s=30.0))
    did = minute(facility)
    assert did.it_kw * 60 == pytest.approx(60 * 10 + 10 * (30 * 1.5 + 30 * 0.25))
    did = minute(facility, [(0, "chat", 30, 500)], chat=1)
    assert did.it_kw * 60 == pytest.approx(60 * (10 + 9 * 0.25) + 20 * 2.0 + 30 * 3.5 + 10 * 1.5)


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_one_type_of_the_study_is_the_site_without_types(seed):
    """Same starts and ends (to the clock), work and power, whatever comes."""
    classes = {**CLASSES, "fit": JobClass(kind="train", work_to=480, deadline_s=900, to_per_gpu_min=60, kw_per_to_s=2.0,
                                          gpus_per_block=2, max_blocks=3, restart_s=5, speedup_exponent=0.9)}
    plain = Facility("site", Site(node=0, racks=1, gpus_per_rack=10, idle_kw=20.0), classes, PLAIN, 23.0)
    typed = make(ONE, classes)
    draw, count = random.Random(seed), 0
    for k in range(20):
        jobs = []
        for _ in range(draw.randrange(6)):
            name = draw.choice(["chat", "chat", "fit"])
            jobs.append((count, name, draw.choice([10, 30, 75] if name == "chat" else [200, 480]),
                         60 * k + draw.choice([100, 300, 900])))
            count += 1
        chat = draw.randrange(9)
        fit = 2 * draw.randrange((10 - chat) // 2 + 1)
        a, b = (minute(f, jobs, chat, fit) for f in (plain, typed))
        assert b.it_kw == pytest.approx(a.it_kw, rel=1e-12)
        for name in ("work_to", "busy_gpus", "finished_to", "missed_to"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), abs=1e-6), name
        assert plain.state()[:3] == typed.state()[:3]
        theirs, mine = ({row[0]: row[1:] for row in zip(*(d.left_jobs.get(c, ()) for c in (
            "id", "outcome", "start_s", "end_s", "done_to")), strict=True)} for d in (a, b))
        assert theirs.keys() == mine.keys()
        for job, row in theirs.items():
            assert mine[job][0] == row[0]
            assert mine[job][1:] == pytest.approx(row[1:], abs=1e-6, nan_ok=True)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_limit_changes_speed_and_power_of_what_runs_at_its_instant():
    facility = make(ONE, {"chat": CLASSES["chat"]})
    facility.submit(batch(0.0, (0, "chat", 30, 100)))
    facility.command([1], 23.0)
    facility.advance(10.0)
    facility.set_gpus([1.5], [math.nan])  # half of its 3 kW: half as fast
    facility.advance(30.0)
    facility.set_gpus([2.25], [math.nan])  # three quarters
    facility.advance(60.0)
    did = facility.read_interval()
    # 10 s at 1, 20 s at 0.5, 10 left at 0.75
    assert ends(did)[0][:2] == (0.0, pytest.approx(30 + 10 / 0.75, abs=1e-6))
    run_s = 10 / 0.75
    assert did.it_kw * 60 == pytest.approx(60 * (10 + 9) + 10 * 3 + 20 * 1.5 + run_s * 2.25 + (30 - run_s) * 1.0)
    assert did.work_to[0] == pytest.approx(30.0)
    assert facility.tick.slowed_s == pytest.approx([20 + run_s])
    assert facility.tick.limit_kw == pytest.approx([(10 * 3 + 20 * 1.5 + 30 * 2.25) / 60])


def test_a_limit_keeps_the_work_of_training_and_its_restart():
    classes = {"fit": JobClass(kind="train", work_to=480, deadline_s=9000, to_per_gpu_min=60, kw_per_to_s=2.0,
                               gpus_per_block=2, max_blocks=3, restart_s=20)}
    facility = make(ONE, classes)
    facility.submit(batch(0.0, (0, "fit", 480, 9000)))
    facility.command([6], 23.0)
    facility.advance(10.0)  # 60 done
    facility.command([0], 23.0)
    facility.advance(20.0)
    facility.command([6], 23.0)  # restarts until 40
    facility.advance(30.0)
    facility.set_gpus([1.5], [math.nan])
    facility.advance(60.0)  # from 40 on at 3 TO/s: 60 more
    facility.set_gpus([math.nan], [math.nan])
    facility.advance(200.0)
    assert ends(facility.read_interval())[0][1] == 60 + 360 / 6


def test_commanded_limits_are_kept_within_what_the_type_can():
    facility = make(ONE, {"chat": CLASSES["chat"]})
    facility.set_gpus([0.1], [math.nan])
    facility.advance(60.0)
    facility.read_interval()
    assert (facility.clipped_limits, facility.tick.limit_kw) == (1, [1.5])
    with pytest.raises(ModelError, match="11 only commanded to be awake; a whole number from 0 to 10"):
        facility.set_gpus([math.nan], [11])


def test_power_over_blocks_goes_by_its_table_and_so_does_the_limit():
    classes = {"fit": JobClass(kind="train", work_to=4800, deadline_s=9000, to_per_gpu_min=60, kw_per_to_s=2.0,
                               gpus_per_block=2, max_blocks=3, speedup_table=(1.0, 1.8, 2.4),
                               power_table=(1, 0.9, 0.8))}
    facility = make(ONE, classes)
    facility.submit(batch(0.0, (0, "fit", 4800, 9000)))
    facility.command([6], 23.0)
    facility.advance(60.0)
    did = facility.read_interval()
    assert did.it_kw == pytest.approx(10 + 10 * 1.0 + 6 * 0.8 * 2.0)
    assert did.work_to[0] == pytest.approx(60 * 2 * 2.4)
    facility.set_gpus([2.0], [math.nan])  # of 2.6 kW: 1/1.3 of the speed at 1/1.3 of the power
    facility.advance(120.0)
    did = facility.read_interval()
    assert did.it_kw == pytest.approx(10 + 4 * 1.0 + 6 * 2.0)
    assert did.work_to[0] == pytest.approx(60 * 2 * 2.4 / 1.3)
    facility.command([4], 23.0)  # on two blocks 2.8 kW
    facility.advance(180.0)
    assert facility.read_interval().work_to[0] == pytest.approx(60 * 2 * 1.8 * 2.0 / 2.8)


# --- sleep ----------------------------------------------------------------------------------------------------------


def test_idle_gpus_sleep_and_a_job_that_finds_none_waits_for_one_to_wake_up():
    facility = make(ONE, {"chat": CLASSES["chat"]}, sleep=SleepRules(after_s=30.0, keep_idle=2))
    did = minute(facility, [(0, "chat", 20, 500)], chat=1)
    # nine idle from 0 s, the tenth from 20 s on; at 30 s all but two of the ten may sleep: eight, of the nine
    assert [60 * n for n in facility.tick.state_gpus] == pytest.approx([20, 9 * 20 + 10 * 10 + 2 * 30, 0, 8 * 30])
    assert did.it_kw * 60 == pytest.approx(600 + 20 * 3 + (600 - 20 - 8 * 30) * 1.0 + 8 * 30 * 0.25)
    did = minute(facility, [(k, "chat", 20, 500) for k in range(1, 5)], chat=4)
    # two awake start at once, two wake up for 20 s
    found = ends(did)
    assert [found[k][0] - 60 for k in range(1, 5)] == [0.0, 0.0, 20.0, 20.0]
    # awake idle when they are done: four from 80/100 s on, of which two may sleep at 110 s, then 130 s
    busy, idle, waking, asleep = (60 * n for n in facility.tick.state_gpus)
    assert (busy, waking) == (pytest.approx(80), pytest.approx(40))
    assert asleep == pytest.approx(6 * 60 + 2 * 10)
    assert sum(facility.tick.state_gpus) == pytest.approx(10)


def test_gpus_sleep_and_wake_up_by_the_server():
    facility = make(ONE, {"chat": CLASSES["chat"]}, sleep=SleepRules(after_s=30.0, unit_gpus=4))
    minute(facility)
    assert facility.tick.state_gpus[ASLEEP] == pytest.approx(8 * 30 / 60)  # two whole servers of four
    minute(facility, [(k, "chat", 20, 500) for k in range(3)], chat=3)
    assert facility.tick.state_gpus[WAKING] == pytest.approx(4 * 20 / 60)  # for the third job, four


def test_training_wakes_up_what_its_grant_allows():
    facility = make(ONE, {"fit": CLASSES["fit"]}, sleep=SleepRules(after_s=1.0))
    minute(facility, seconds=60.0)
    facility.submit(batch(60.0, (0, "fit", 480, 900)))
    facility.command([4], 23.0)
    facility.advance(80.0)
    assert facility._groups[0].levels() == (4, 0, 0, 6)
    facility.advance(240.0)
    did = facility.read_interval()
    assert ends(did)[0][:2] == (80.0, 200.0)  # 4 TO/s


def test_how_many_are_awake_can_be_commanded():
    facility = make(ONE, {"chat": CLASSES["chat"]})
    facility.set_gpus([math.nan], [2])
    facility.submit(batch(0.0, *((k, "chat", 30, 500) for k in range(4))))
    facility.command([4], 23.0)
    facility.advance(0.0)
    # four are free when they come and run on, though two too many: six sleep
    assert facility._groups[0].levels() == (4, 0, 0, 6)
    facility.advance(30.0)
    assert facility._groups[0].levels() == (0, 2, 0, 8)
    facility.submit(batch(30.0, *((k, "chat", 30, 500) for k in range(4, 8))))
    facility.advance(30.0)
    assert facility._groups[0].levels() == (2, 0, 0, 8)  # nobody wakes one up beyond the command
    facility.set_gpus([math.nan], [3])
    facility.advance(50.0)
    assert facility._groups[0].levels() == (3, 0, 0, 7)
    facility.set_gpus([math.nan], [math.nan])
    facility.advance(50.0)
    assert facility._groups[0].levels() == (3, 0, 1, 6)  # by the rules the fourth job gets one


@given(st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_it_is_what_single_gpus_do_a_quarter_of_a_second_at_a_time(seed):
    """Starts, ends and energy to the last bit, under grants and limits that change while jobs run, with sleep."""
    draw = random.Random(seed)
    after_s, keep = draw.choice([None, 1.0, 7.0, 15.0]), draw.choice([0, 1])
    types = [OneType(6, 1.0, 1.0, 4.0, 0.25, 5.0), OneType(4, 0.5, 0.5, 1.5, 0.0, 2.0)]
    plain = Reference(types, [0, 1], after_s, keep)
    table = {"fast": FAST | {"wake_s": 5.0}, "slow": SLOW | {"wake_s": 2.0}}
    # half speed of a type at half the power above idle: the curve's point, by what is drawn in all
    table["fast"]["speed_curve"] = ((2.5 / 4, 0.5), (1.0, 1.0))
    table["slow"]["speed_curve"] = ((1.0 / 1.5, 0.5), (1.0, 1.0))
    sleep = None if after_s is None else SleepRules(after_s=after_s, keep_idle=keep)
    ours = make(table, {"chat": JobClass(kind="inf", work_to=8, deadline_s=1e6, to_per_gpu_min=60, kw_per_to_s=2.0)},
                sleep=sleep)
    seen, ids = {}, 0
    for _ in range(25):
        jobs = [(ids + k, "chat", draw.choice([1, 2, 8, 20]), 1e6) for k in range(draw.choice([0, 0, 1, 3, 9]))]
        ids += len(jobs)
        plain.line += [job[0] for job in jobs]
        plain.left |= {job[0]: float(job[2]) for job in jobs}
        plain.grant = draw.randrange(11)
        slow = [draw.random() < 0.5 for _ in types]
        for one, is_slow in zip(types, slow, strict=True):
            one.slow = is_slow
        # a limit to the last bit of the point: what is drawn is then the same number in both
        limits = [(2.5 if slow[0] else 4.0), (1.0 if slow[1] else 1.5)]
        ours.submit(batch(ours.now_s, *jobs) if jobs else {})
        ours.command([plain.grant], 23.0)
        ours.set_gpus(limits, [math.nan] * 2)
        to_s = ours.now_s + draw.choice([1, 3, 10, 30])
        plain.energy_kws = 0.0
        plain.advance(to_s)
        seconds = to_s - ours.now_s
        ours.advance(to_s)
        did = ours.read_interval()
        seen |= {k: row[:2] for k, row in ends(did).items()}
        assert (did.it_kw - 10.0) * seconds == pytest.approx(plain.energy_kws, rel=1e-12)
        assert [n for group in ours._groups for n in group.levels()] == [
            len(plain.of(state, t)) for t in range(2) for state in ("busy", "idle", "waking", "asleep")]
    assert {k: (plain.begun[k], end) for k, end in plain.ended.items()} == seen
