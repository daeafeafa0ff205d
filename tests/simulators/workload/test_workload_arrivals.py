"""Equation (39), whole jobs from it, and instants."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.simulators.workload.arrivals import ArrivalRate, arrivals_of, instants_s, merge, rate_per_min, whole_jobs

RATE = ArrivalRate(2.0, 1.0, 60.0, 0.0, 0.5)
LLM = ArrivalRate(0.0585, 0.0117, 120.0, 0.0, 0.0062)
VAE = ArrivalRate(0.0840, 0.0210, 90.0, 0.0, 0.0168)
DEEP_RESEARCH = ArrivalRate(16.5, 1.65, 60.0, 10.0, 0.825)
SEARCH = ArrivalRate(110.0, 8.25, 30.0, 5.0, 2.75)


def rng(seed=0):
    return np.random.default_rng(seed)


def three(seed):
    return rng(seed), rng(seed + 1000), rng(seed + 2000)


@pytest.mark.rows("E39")
def test_rate_by_hand():
    # sin(2 pi t / 60) at t = 0, 15, 45 is 0, 1, -1; one standard deviation of noise is 0.5
    times = np.array([0.0, 15.0, 45.0, 0.0])
    noise = np.array([0.0, 0.0, 0.0, 2.0])
    assert rate_per_min(RATE, times, noise, "rad") == pytest.approx([2.0, 3.0, 1.0, 3.0])


@pytest.mark.rows("I15", "P30")
def test_phase_in_radians_and_in_minutes():
    # a quarter of the period is pi/2 or 15 min: the sine starts at its top either way
    zero = np.zeros(1)
    in_rad = ArrivalRate(2.0, 1.0, 60.0, math.pi / 2)
    in_min = ArrivalRate(2.0, 1.0, 60.0, 15.0)
    assert rate_per_min(in_rad, zero, zero, "rad") == pytest.approx([3.0])
    assert rate_per_min(in_min, zero, zero, "min") == pytest.approx([3.0])


def test_phase_of_deep_research_is_35_5_minutes_early():
    # 10 rad = 10 - 2 pi = 3.717 rad, which is 3.717 / (2 pi) * 60 = 35.5 min (2.5 of the model notes)
    zero = np.zeros(1)
    shifted = ArrivalRate(16.5, 1.65, 60.0, (10.0 - 2 * math.pi) / (2 * math.pi) * 60.0)
    assert shifted.phase == pytest.approx(35.5, abs=0.05)
    assert rate_per_min(shifted, zero, zero, "min") == pytest.approx(rate_per_min(DEEP_RESEARCH, zero, zero, "rad"))


@pytest.mark.parametrize("rate", [LLM, VAE, DEEP_RESEARCH, SEARCH])
@pytest.mark.rows("I14", "M05")
def test_poisson_counts_have_the_mean_of_the_rate(rate):
    # 30 days hold whole periods, so the sine averages out; sd of the sum: Poisson sqrt(n mean) and noise sqrt(n) sigma
    steps = 30 * 1440
    times, _ = arrivals_of(rate, 0.0, steps, 60.0, "poisson", "rad", three(1))
    expected = steps * rate.mean_per_min
    sd = math.sqrt(expected + steps * rate.sigma_per_min**2)
    assert abs(len(times) - expected) < 4.5 * sd


@pytest.mark.parametrize("rate", [LLM, VAE])
@pytest.mark.rows("I14")
def test_rounding_gives_no_training_job_ever(rate):
    """2.5: rates of 0.05 to 0.10 jobs/min round to nothing."""
    times, _ = arrivals_of(rate, 0.0, 30 * 1440, 60.0, "round", "rad", three(2))
    assert len(times) == 0


def test_rounding_inference_is_the_nearest_number():
    assert whole_jobs(np.array([16.4, 16.6, 0.4]), "round", rng()).tolist() == [16, 17, 0]


@pytest.mark.rows("I14", "M05")
def test_bernoulli_is_floor_or_one_more_with_the_right_mean():
    expected = np.full(40000, 2.3)
    counts = whole_jobs(expected, "bernoulli", rng())
    assert set(counts.tolist()) == {2, 3}
    assert abs(counts.mean() - 2.3) < 4.5 * math.sqrt(0.3 * 0.7 / 40000)


@pytest.mark.parametrize("rule", ["poisson", "round", "bernoulli"])
@pytest.mark.rows("M06")
def test_negative_expectation_counts_as_nothing(rule):
    assert whole_jobs(np.array([-3.0, -0.1]), rule, rng()).tolist() == [0, 0]


@pytest.mark.rows("M06")
def test_clipped_steps_are_those_with_a_negative_rate():
    rate = ArrivalRate(0.0, 1.0, 4.0)  # sin at 0, 1, 2, 3 of 4 minutes: 0, 1, 0 (up to rounding), -1
    _, cut = arrivals_of(rate, 0.0, 8, 60.0, "poisson", "rad", three(3))
    assert cut[[1, 3, 5, 7]].tolist() == [False, True, False, True]


@pytest.mark.long
@given(st.lists(st.integers(0, 6), max_size=12), st.integers(0, 2**46), st.sampled_from([1.0, 60.0, 900.0]))
def test_instants_stay_in_their_step_in_order(counts, steps_before, step_s):
    first_s = steps_before * step_s  # up to times where a double resolves only seconds
    times = instants_s(np.array(counts, dtype=int), first_s, step_s, rng())
    edges = first_s + step_s * np.arange(len(counts) + 1)
    assert np.histogram(times, edges)[0].tolist() == counts if counts else len(times) == 0
    assert (np.diff(times) >= 0).all()
    assert not np.isin(times, edges[-1:]).any()  # the end is outside


def test_instants_are_uniform_in_their_step():
    times = instants_s(np.array([20000, 20000]), 600.0, 60.0, rng())
    for first_s, part in ((600.0, times[:20000]), (660.0, times[20000:])):
        # mean and standard deviation of a uniform number: 1/2 and 1/sqrt(12)
        assert part.mean() - first_s == pytest.approx(30.0, abs=4.5 * 60 / math.sqrt(12 * 20000))
        assert part.std() == pytest.approx(60 / math.sqrt(12), rel=0.02)


def test_an_instant_never_rounds_up_to_the_end_of_its_step():
    first_s = 60.0 * 2**46  # a double resolves half a second here: 1 of 240 sums is rounded to the end
    times = instants_s(np.array([5000]), first_s, 60.0, rng())
    assert times[-1] < first_s + 60.0


def test_merge_loses_no_job_to_rounded_edges():
    for first in range(200):  # steps of 0.1 s, whose edges are rounded, and jobs at the very end of each
        first_s, steps = first * 24.0, 240
        times = np.nextafter(first_s + 0.1 * np.arange(steps) + 0.1, 0.0)
        block = merge([(0, times, times)], 1, first_s, steps, 0.1)
        assert (block.bounds[0], block.bounds[-1]) == (0, steps)
        assert sum(n for n, in block.per_class) == steps


@pytest.mark.rows("I37", "M16")
def test_streams_do_not_shift_each_other():
    quiet = arrivals_of(SEARCH, 0.0, 100, 60.0, "round", "rad", (rng(1), rng(2), rng(3)))[0]
    other_counts_stream = arrivals_of(SEARCH, 0.0, 100, 60.0, "round", "rad", (rng(1), rng(99), rng(3)))[0]
    assert quiet.tolist() == other_counts_stream.tolist()  # rounding draws nothing from the counts' stream


def test_merge_is_one_time_order_with_the_earlier_source_first_on_ties():
    times = [np.array([1.0, 61.0]), np.array([1.0, 30.0])]
    block = merge([(2, times[0], np.array([5.0, 6.0])), (0, times[1], np.array([7.0, 8.0]))], 3, 0.0, 2, 60.0)
    assert block.arrival_s.tolist() == [1.0, 1.0, 30.0, 61.0]
    assert block.class_index.tolist() == [2, 0, 0, 2]
    assert block.work_to.tolist() == [5.0, 7.0, 8.0, 6.0]
    assert block.bounds == [0, 3, 4]
    assert block.per_class == [[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_merge_of_nothing():
    block = merge([], 2, 0.0, 3, 60.0)
    assert block.bounds == [0, 0, 0, 0]
    assert block.per_class == [[0.0, 0.0]] * 3
