"""How long training could stand still: by hand, against every order in which jobs can be served, and at a site."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.slack import MOST_S, slack_s
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

NEVER_BINDS = 1e9
JOBS = st.lists(st.tuples(st.integers(1, 20).map(float), st.integers(1, 60).map(float), st.integers(1, 3)),
                min_size=1, max_size=4)
"""Deadline, s; GPU time left, s; most GPUs it can use."""


@pytest.mark.parametrize(("claims", "room_s"), [
    ([], MOST_S),
    ([(100.0, 160.0)], 20.0),                   # 2 GPUs need 80 s of 100
    ([(100.0, 230.0)], -15.0),
    ([(200.0, 100.0), (100.0, 160.0)], 20.0),   # the second deadline has more room
    ([(100.0, 160.0), (110.0, 50.0)], 5.0),     # each alone has 20 s and more, together they need 105 of 110
])
def test_work_by_hand(claims, room_s):
    claims = [(*claim, NEVER_BINDS) for claim in claims]
    assert slack_s(claims, 2.0) == room_s


@pytest.mark.parametrize(("claims", "room_s"), [
    ([(100.0, 60.0, 40.0)], 40.0),                        # on one of 2 GPUs 60 s of work need 60 of 100
    ([(100.0, 60.0, 40.0), (300.0, 90.0, 210.0)], 40.0),
    ([(100.0, 160.0, 60.0)], 20.0),                       # work binds
    ([(300.0, 100.0, 250.0), (400.0, 10.0, -5.0)], -5.0), # one is late however many GPUs are free
])
def test_latest_starts_by_hand(claims, room_s):
    assert slack_s(claims, 2.0) == room_s


def test_without_gpus_there_is_none():
    assert slack_s([(100.0, 1.0, 99.0)], 0.0) == -MOST_S
    assert slack_s([], 0.0) == MOST_S


def _ends_in_time(jobs, gpus, rest_s):
    """Whether jobs served in this order after a rest are all in time: each takes, at every moment, as many of the GPUs
    that those before it leave as it can use. Fluid between the ends of jobs."""
    left = [work for _, work, _ in jobs]
    now_s = rest_s
    while any(x > 1e-9 for x in left):
        free, speed = float(gpus), []
        for x, (_, _, most) in zip(left, jobs, strict=True):
            speed.append(min(free, most) if x > 1e-9 else 0.0)
            free -= speed[-1]
        step_s = min(x / v for x, v in zip(left, speed, strict=True) if v > 0.0)
        now_s += step_s
        for k, v in enumerate(speed):
            left[k] -= v * step_s
            if v and left[k] <= 1e-9 and now_s > jobs[k][0] + 1e-6:
                return False
    return True


@given(JOBS, st.integers(1, 3))
def test_after_a_longer_rest_no_order_is_in_time(jobs, gpus):
    claims = [(due, work, due - work / most) for due, work, most in jobs]
    room_s = slack_s(claims, gpus)
    assert not any(_ends_in_time(order, gpus, room_s + 1e-3) for order in permutations(jobs))


@given(JOBS, st.integers(1, 3))
def test_where_one_bound_alone_counts_it_is_what_the_best_order_has(jobs, gpus):
    """A job that may use all GPUs, or one that is alone: after just so long a rest an order is in time."""
    for some in ([(due, work, gpus) for due, work, _ in jobs], jobs[:1]):
        claims = [(due, work, due - work / min(most, gpus)) for due, work, most in some]
        room_s = slack_s(claims, gpus)
        assert any(_ends_in_time(order, gpus, room_s) for order in permutations(some))


FIT = {"kind": "train", "work_to": 1.2e6, "deadline_s": 3600.0, "to_per_gpu_min": 1000.0, "kw_per_to_s": 1e-3,
       "gpus_per_block": 2, "max_blocks": 4}
"""1200 GPU-minutes: 600 min on a block, 150 min on four."""


def _site(gpus, jobs, **changes):
    """A site at 0 with jobs (deadline, min; release, min) of the class, nothing granted yet."""
    facility = Facility("site", Site(node=0, racks=1, gpus_per_rack=gpus), {"fit": JobClass(**{**FIT, **changes})},
                        CORRECTED, 23.0)
    due, release = zip(*jobs, strict=True)
    n = len(jobs)
    facility.submit({"id": list(range(n)), "job_class": ["fit"] * n, "arrival_s": [0.0] * n,
                     "work_to": [FIT["work_to"]] * n, "deadline_s": [60.0 * d for d in due],
                     "release_s": [60.0 * r for r in release]})
    facility.command([0.0], 23.0)
    facility.advance(0.0)
    return facility


@pytest.mark.parametrize(("gpus", "changes", "slack_min"), [
    (100, {}, 200 - 150.0),                            # work alone would leave 200 - 1200 / 90 = 186.7
    (4, {}, 200 - 1200 / 3.6),                         # two blocks, 300 min; nine tenths of 4 GPUs, 333
    (5, {"max_blocks": 9}, 200 - 300.0),               # two blocks again; nine tenths of 5 GPUs, 267
    (1, {}, -1440.0),                                  # no block fits
    (100, {"max_blocks": 1}, 200 - 600.0),
    (100, {"speedup_exponent": 0.5}, 200 - 300.0),     # s(4) = 2
    (100, {"speedup_table": [1.0, 1.5, 1.5, 1.5]}, 200 - 400.0),
    (100, {"checkpoint_interval_s": 540.0, "checkpoint_cost_s": 60.0}, 200 - 150 / 0.9),
])
def test_a_job_must_begin_so_early_that_all_blocks_it_can_use_suffice(gpus, changes, slack_min):
    """1200 GPU-minutes due in 200 min."""
    state = _site(gpus, [(200.0, 0.0)], **changes).state()
    assert state.slack_min == pytest.approx(slack_min)
    assert state.late_jobs == [slack_min < 0.0]


def test_a_release_after_the_latest_start_makes_a_job_late():
    """Due at 200 and 150 min of work: released at 50 it is just in time, at 60 it is 10 min late wherever it runs."""
    just = _site(100, [(200.0, 50.0)])
    assert (just.state().slack_min, just.state().late_jobs) == (pytest.approx(50.0), [0])
    late = _site(100, [(200.0, 60.0), (900.0, 0.0)])
    assert (late.state().slack_min, late.state().late_jobs) == (pytest.approx(-10.0), [1])
    late.advance(600.0)
    assert late.state().slack_min == pytest.approx(-10.0)  # until it is released no time is lost


def test_a_restart_takes_of_the_slack_once_blocks_are_taken_away():
    """After 30 min on 4 blocks 120 min of work are left, due in 170; without a block, 10 min of restart come first."""
    site = _site(100, [(200.0, 0.0)], restart_s=600.0)
    site.command([100.0], 23.0)
    site.advance(1800.0)
    assert site.state().slack_min == pytest.approx(50.0)
    site.command([0.0], 23.0)
    site.advance(1860.0)
    assert site.state().slack_min == pytest.approx(39.0)
