"""Whole jobs and whole blocks from shares: largest remainder with and without memory, dealing, blocks, projections."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.agents.fleet.allocation import (
    deal,
    gpu_blocks,
    largest_remainder,
    largest_remainder_carry,
    project_box,
    project_shares,
    project_simplex,
)
from cosim.errors import ModelError

weight = st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.integers(1, 9).map(float))
shares_of = st.lists(weight, min_size=1, max_size=7).filter(any)
raw = st.floats(-10, 10) | st.just(0.0)


def share(weights):
    return [w / sum(weights) for w in weights]


@given(st.integers(0, 5000), shares_of)
@pytest.mark.rows("U09-11")
def test_largest_remainder_is_whole_exact_and_within_one(total, weights):
    counts = largest_remainder(total, share(weights))
    assert sum(counts) == total
    for count, w in zip(counts, share(weights), strict=True):
        assert type(count) is int
        assert count >= 0
        assert abs(count - w * total) < 1
        assert w > 0 or count == 0  # an ineligible site has share 0 and gets nothing


@given(st.lists(st.tuples(st.integers(0, 40), st.lists(weight, min_size=4, max_size=4).filter(any)), max_size=60))
@pytest.mark.rows("U11")
def test_carry_keeps_every_property_whatever_happened_before(history):
    carry = [0.0] * 4
    asked, got = [0.0] * 4, [0] * 4
    for total, weights in history:
        before = list(carry)
        counts, fresh = largest_remainder_carry(total, share(weights), carry)
        assert carry == before  # the caller's state is not touched
        carry = fresh
        assert sum(counts) == total
        for k, w in enumerate(share(weights)):
            assert counts[k] >= 0
            assert abs(counts[k] - w * total) < 1
            assert w > 0 or counts[k] == 0
            asked[k] += w * total
            got[k] += counts[k]
        assert sum(carry) == pytest.approx(0.0, abs=1e-6)
        assert [a - g for a, g in zip(asked, got, strict=True)] == pytest.approx(carry, abs=1e-6)
        assert max(map(abs, carry)) < 3.0  # bounded by the number of sites less one, however the shares jump about


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 7), (1, 1, 8), (0.45, 0.33, 0.22), (0, 1, 1),
                                     (1, 1, 1, 2, 2, 3)])
@pytest.mark.rows("I13")
def test_single_jobs_follow_the_shares_in_the_long_run_with_carry(weights):
    """I13: error diffusion restores the ratios; at no time is a site more than one job off."""
    shares, carry, got = share(weights), [0.0] * len(weights), [0] * len(weights)
    for n in range(1, 1001):
        counts, carry = largest_remainder_carry(1, shares, carry)
        got = [g + c for g, c in zip(got, counts, strict=True)]
        assert all(abs(g - s * n) < 1 for g, s in zip(got, shares, strict=True))
    assert got == pytest.approx([1000 * s for s in shares], abs=1)


@pytest.mark.rows("I13")
def test_single_jobs_without_memory_all_go_to_the_largest_share():
    """I13, 2.4: with one arriving job the stateless rule is an argmax, with equal shares the lowest index."""
    def thousand(weights):
        got = [0] * len(weights)
        for _ in range(1000):
            got = [g + c for g, c in zip(got, largest_remainder(1, share(weights)), strict=True)]
        return got
    assert thousand((1, 2, 7)) == [0, 0, 1000]
    assert thousand((0.45, 0.33, 0.22)) == [1000, 0, 0]
    assert thousand((1, 1, 1)) == [1000, 0, 0]
    assert thousand((1, 1, 1, 2, 2, 3)) == [0, 0, 0, 0, 0, 1000]  # deferral: always the last slot


@pytest.mark.rows("U09")
def test_largest_remainder_by_hand():
    # 10 jobs at 0.45, 0.33, 0.22: quotas 4.5, 3.3, 2.2; floors leave one, the fraction 0.5 takes it
    assert largest_remainder(10, (0.45, 0.33, 0.22)) == [5, 3, 2]
    # 5 at 0.5, 0.3, 0.2: 2.5, 1.5, 1.0: equal fractions, the lower index first
    assert largest_remainder(5, (0.5, 0.3, 0.2)) == [3, 1, 1]
    # 0.29 * 100 is 28.999999999999996 in floating point
    assert largest_remainder(100, (0.29, 0.71)) == [29, 71]
    assert largest_remainder(0, (0.5, 0.5)) == [0, 0]


def test_carry_by_hand():
    # 1 at 0.5, 0.5: a tie, index 0; it is now overpaid by a half, so the next goes to index 1
    counts, carry = largest_remainder_carry(1, (0.5, 0.5), [0.0, 0.0])
    assert (counts, carry) == ([1, 0], [-0.5, 0.5])
    counts, carry = largest_remainder_carry(1, (0.5, 0.5), carry)
    assert (counts, carry) == ([0, 1], [0.0, 0.0])
    # 0.29 * 100 is 29 whole jobs and no fraction, however overpaid the index is
    assert largest_remainder_carry(100, (0.29, 0.355, 0.355), [-0.8, 0.4, 0.4])[0] == [29, 36, 35]
    # what is owed to index 1 does not bring it jobs that are not meant for it
    assert largest_remainder_carry(3, (1.0, 0.0), [-0.5, 0.5]) == ([3, 0], [-0.5, 0.5])


@pytest.mark.parametrize(("total", "shares"), [(-1, (1.0,)), (1, (0.0, 0.0)), (1, (1.5, -0.5)), (1, (math.nan, 1.0))])
def test_shares_that_cannot_be_are_refused(total, shares):
    with pytest.raises(ValueError, match="must be >= 0"):
        largest_remainder(total, shares)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_deal_gives_everyone_its_number_and_mixes_them(counts):
    order = deal(counts)
    assert [order.count(k) for k in range(len(counts))] == counts
    for n in range(1, len(order) + 1):  # in the first n, nobody is ahead or behind by more than its neighbours allow
        for k, count in enumerate(counts):
            assert abs(order[:n].count(k) - count * n / len(order)) <= len(counts) / 2 + 0.5


def test_deal_by_hand():
    assert deal((4, 2)) == [0, 1, 0, 0, 1, 0]  # places 1/8 3/8 5/8 7/8 and 1/4 3/4
    assert deal((0, 3, 0)) == [1, 1, 1]
    assert deal((1, 1, 1)) == [0, 1, 2]
    assert deal((0, 0)) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 64)), min_size=1, max_size=6), st.integers(1, 4096))
@pytest.mark.rows("E29-31", "P18")
def test_blocks_are_whole_and_fit(classes, capacity):
    shares = project_shares([s for s, _ in classes])
    sizes = [b for _, b in classes]
    gpus = gpu_blocks(shares, capacity, sizes)
    assert sum(gpus) <= capacity
    for g, s, b in zip(gpus, shares, sizes, strict=True):
        assert g >= 0
        assert g % b == 0
        assert s * capacity - b < g <= s * capacity + 1e-6


@given(st.data(), st.integers(1, 4096))
def test_gpus_survive_the_way_over_shares(data, capacity):
    """g / G and back is g, so that a policy that thinks in GPUs may answer in shares."""
    size = data.draw(st.integers(1, capacity))
    g = size * data.draw(st.integers(0, capacity // size))
    assert gpu_blocks([g / capacity, 1 - g / capacity], capacity, [size, capacity + 1]) == [g, 0]


@pytest.mark.rows("E30", "E31")
def test_blocks_by_hand():
    # (30), (31) with 400 GPUs: 0.45 -> 180 -> 11 blocks of 16; 0.29 -> 116 -> 14 of 8; 0.26 -> 104
    assert gpu_blocks((0.45, 0.29, 0.26), 400, (16, 8, 1)) == [176, 112, 104]
    assert gpu_blocks((0.29,), 100, (1,)) == [29]
    assert gpu_blocks((2.0, 2.0), 400, (1, 1)) == [200, 200]


@given(st.lists(st.tuples(raw, st.booleans()), min_size=1, max_size=7))
@pytest.mark.rows("A07")
def test_simplex_projection_of_anything(pairs):
    values, eligible = zip(*pairs, strict=True)
    if not any(eligible):
        with pytest.raises(ValueError, match="at least one"):
            project_simplex([-1.0] * len(eligible), eligible)
        return
    shares = project_simplex(values, eligible)
    assert sum(shares) == pytest.approx(1.0)
    assert all(s >= 0 and (ok or s == 0) for s, ok in zip(shares, eligible, strict=True))
    assert project_simplex(shares, eligible) == pytest.approx(shares)


@given(st.lists(raw | st.floats(0, 0.2), min_size=1, max_size=7))
@pytest.mark.rows("A07", "E29")
def test_share_projection_of_anything(values):
    shares = project_shares(values)
    assert sum(shares) <= 1 + 1e-12
    assert all(s >= 0 for s in shares)
    assert project_shares(shares) == pytest.approx(shares)
    if min(values) >= 0 and sum(values) <= 1:
        assert shares == values  # valid shares stay as they are


def test_projections_by_hand():
    assert project_simplex((3.0, -1.0, 1.0), (True, True, True)) == [0.75, 0.0, 0.25]
    assert project_simplex((3.0, 1.0), (False, True)) == [0.0, 1.0]
    assert project_simplex((-3.0, -1.0, 0.0), (True, False, True)) == [0.5, 0.0, 0.5]
    assert project_shares((1.5, 0.5, -3.0)) == [0.75, 0.25, 0.0]
    assert (project_box(17.0, 18.0, 23.0), project_box(20, 18.0, 23.0), project_box(99.0, 18.0, 23.0)) == (18, 20, 23)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(ModelError, match="not all finite"):
        project_simplex((bad, 1.0), (True, True))
    with pytest.raises(ModelError, match="not all finite"):
        project_shares((bad, 0.1))
    with pytest.raises(ModelError, match="not all finite"):
        project_box(bad, 18.0, 23.0)
