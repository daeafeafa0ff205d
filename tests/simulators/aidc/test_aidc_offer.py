"""What a site says it could draw less, against withholding it: the same jobs under a real cap, and what is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_site import CLASSES, PLAIN, SITE, batch

from cosim.simulators.aidc.engine.capped import NO_CAP_KW, CappedFacility, CapRules
from cosim.simulators.aidc.engine.offer import LEVELS, OfferRules
from cosim.simulators.fleet import JobClass


def site_with(jobs, grants, classes=None, until_s=60.0):
    """A site that has worked on its jobs for a minute; job: id, class, work, deadline."""
    facility = CappedFacility("site", SITE, classes or CLASSES, PLAIN, 23.0, CapRules())
    facility.submit(batch(0.0, *jobs) if jobs else {})
    facility.command(grants, 23.0)
    facility.advance(until_s)
    facility.read_interval()
    return facility


def dropped(jobs, grants, hold_s, level):
    """Jobs dropped if this share of the training power is withheld, by a cap, and training gets all GPUs then."""
    facility = site_with(jobs, grants)
    busy_gpus = facility._pools[0].busy_gpus
    if hold_s:
        facility.cap((40.0 + 2.0 * (1.0 - level) * busy_gpus) * 1.25 + 1e-9)
    facility.command([0, 10], 23.0)
    facility.advance(60.0 + hold_s)
    facility.cap(NO_CAP_KW)
    facility.advance(1e5)
    return sum(facility.read_interval().dropped_jobs)


def test_by_hand_how_much_and_for_how_long():
    """2880 TO at 6 TO/s, three blocks: 480 s, of which 60 are done, due at 900 s: 420 s are left, 420 to spare."""
    facility = site_with([(1, "fit", 2880, 900)], [0, 6])
    rules = OfferRules(holds_s=(60.0, 420.0, 421.0, 630.0, 840.0))
    got = facility.offer(rules)
    # withheld whole for 420 s at most; of a share x the time is longer, as 6 GPUs x (1 - x) go on in whole blocks: at
    # three quarters none is left (1.5 GPUs), at a half one block: 2 TO/s for h and 6 for the rest, h = 630 s
    assert got.train_kw == [12.0, 12.0, 6.0, 6.0, 3.0]
    assert got.inf_kw == [0.0] * 5
    assert got.inf_by_min == 0.0


jobs_of_training = st.lists(st.tuples(st.integers(100, 4000), st.integers(120, 4000)), min_size=1, max_size=5)


@settings(max_examples=60)
@given(jobs=jobs_of_training, hold_s=st.sampled_from([60.0, 300.0, 900.0, 1800.0]))
def test_what_is_offered_can_be_withheld_and_the_next_more_cannot(jobs, hold_s):
    rows = [(k, "fit", work, due) for k, (work, due) in enumerate(jobs)]
    facility = site_with(rows, [0, 10])
    drawn_kw = 2.0 * facility._pools[0].busy_gpus
    before = facility.keep()
    (offered_kw,) = facility.offer(OfferRules(holds_s=(hold_s,))).train_kw
    assert facility.keep() == before  # asking changes nothing
    if not drawn_kw:
        assert offered_kw == 0.0
        return
    without = dropped(rows, [0, 10], 0.0, 0.0)
    shares = [*LEVELS, 0.0]
    level = offered_kw / drawn_kw
    assert level in shares
    if level:
        assert dropped(rows, [0, 10], hold_s, level) <= without
    for more in shares[: shares.index(level)]:
        assert dropped(rows, [0, 10], hold_s, more) > without


CHAT = {"chat": JobClass(kind="inf", work_to=9, deadline_s=120, to_per_gpu_min=60, kw_per_to_s=2.0)}


def held(hold_s, every_s=6.0, end_s=1200.0):
    """Jobs dropped if 4 of 10 GPUs' worth of a steady stream of chats starts nothing for so long, from 60 s on."""
    facility = CappedFacility("site", SITE, CHAT, PLAIN, 23.0, CapRules())
    now_s, job, dropped_jobs = 0.0, 0, 0
    while now_s < end_s:
        if now_s == 60.0 and hold_s is None:
            return facility.offer(OfferRules(holds_s=(60.0, 108.0, 119.0, 120.0, 180.0)))
        facility.submit(batch(now_s, *[(job + k, "chat", 9, now_s + 120.0) for k in range(4)]))
        facility.command([10], 23.0)
        if hold_s is not None:
            facility.cap(50.0 if 60.0 <= now_s < 60.0 + hold_s else NO_CAP_KW)
        now_s, job = now_s + every_s, job + 4
        facility.advance(now_s)
        dropped_jobs += sum(facility.read_interval().dropped_jobs)
    return dropped_jobs


def test_inference_waits_as_long_as_is_offered_and_no_longer():
    got = held(None)
    # four start every 6 s and take 9 s: at 60 s four are busy, until 63 s, and nobody waits; the next can for 120 s
    assert got.inf_kw == [8.0, 8.0, 8.0, 8.0, 0.0]
    assert got.inf_by_min == pytest.approx(0.05)
    assert got.train_kw == [0.0] * 5
    assert [held(h) > 0 for h in (60.0, 108.0, 114.0, 180.0)] == [False, False, False, True]


def test_who_waits_already_can_wait_for_less():
    jobs = [(k, "chat", 30, 100) for k in range(8)]
    facility = site_with(jobs, [2, 0], until_s=10.0)  # two run, six wait, due 100 s
    # 10 GPUs do 10 TO/s: the last of six begins 5 x 30 / 10 = 15 s after the hold, within 90 s
    rules = OfferRules(holds_s=(75.0, 76.0))
    assert facility.offer(rules).inf_kw == [4.0, 0.0]
    assert facility.offer(rules).inf_by_min == pytest.approx(20.0 / 60.0)
