"""Training with a speed-up below linear: time, work and energy worked out by hand, and conserved whatever comes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.errors import ScenarioError
from cosim.params import validate
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

SITE = Site(node=0, racks=1, gpus_per_rack=12, idle_kw=40.0)
FIT = {"kind": "train", "work_to": 480, "deadline_s": 900, "to_per_gpu_min": 60, "kw_per_to_s": 2.0,
       "gpus_per_block": 2, "max_blocks": 3}  # a block does 2 TO/s and draws 4 kW


def facility(**changes):
    return Facility("site", SITE, {"fit": JobClass(**{**FIT, **changes})}, CORRECTED, 23.0)


def submit(site, works, first=0, deadline_s=1e6):
    site.submit({"id": list(range(first, first + len(works))), "job_class": ["fit"] * len(works),
                 "arrival_s": [site.now_s] * len(works), "work_to": works, "deadline_s": [deadline_s] * len(works)})


def minute(site, gpus):
    site.command([gpus], 23.0)
    site.advance(site.now_s + 60.0)
    return site.read_interval()


def test_three_blocks_at_nine_fifths_of_the_speed():
    site = facility(speedup_table=(1.0, 1.5, 1.8))
    submit(site, [480.0])
    # 3 blocks do 3.6 TO/s: 480 TO take 133 1/3 s, and 800 GPU-seconds instead of 480
    minutes = [minute(site, 6) for _ in range(3)]
    assert [m.work_to[0] for m in minutes] == pytest.approx([216, 216, 48])
    assert [m.busy_gpus[0] for m in minutes] == pytest.approx([6, 6, 6 * (13 + 1 / 3) / 60])
    assert minutes[2].left_jobs["end_s"] == pytest.approx([133 + 1 / 3])
    # 3 blocks draw 12 kW above idle: energy per TO is 3 / 1.8 of that of one block, 4 kW / (2 TO/s) = 2 kWs/TO
    above_idle_kws = sum((m.it_kw - 40.0) * 60 for m in minutes)
    assert above_idle_kws / 480 == pytest.approx(2.0 * 3 / 1.8)


def test_square_root_and_blocks_taken_away():
    site = facility(speedup_exponent=0.5)
    submit(site, [480.0, 480.0])
    did = minute(site, 8)  # the first has 3 blocks, the second 1
    assert did.work_to[0] == pytest.approx(60 * 2 * (math.sqrt(3) + 1))
    assert site.state().pending_work_to[0] == pytest.approx(960 - did.work_to[0])
    did = minute(site, 4)  # two blocks for the first
    assert did.work_to[0] == pytest.approx(60 * 2 * math.sqrt(2))
    did = minute(site, 0)
    assert did.work_to[0] == 0.0
    rows = site.unfinished_rows()
    assert rows["done_to"] == pytest.approx([120 * (math.sqrt(3) + math.sqrt(2)), 120])


@pytest.mark.parametrize(("exponent", "first"), [(1.0, 1), (0.5, 0)])
def test_least_laxity_reckons_with_the_speed_at_most(exponent, first):
    # 0 has 480 TO to do by 150 s, 1 has 100 TO by 85 s; on three blocks. Linear, 6 TO/s: they could wait until 70 s and
    # 68.3 s, so 1 begins. As a square root, 3.46 TO/s: until 11.4 s and 56.1 s, so 0 does.
    site = facility(speedup_exponent=exponent, order="llf")
    submit(site, [480.0], deadline_s=150.0)
    submit(site, [100.0], first=1, deadline_s=85.0)
    site.command([6], 23.0)
    site.advance(5.0)
    rows = site.unfinished_rows()
    assert {k for k, start_s in zip(rows["id"], rows["start_s"], strict=True) if start_s == 0.0} == {first}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.lists(st.floats(1, 900), max_size=4), st.integers(0, 6), st.floats(30, 400)),
                min_size=1, max_size=7), st.sampled_from([{"speedup_exponent": 0.6}, {"speedup_table": (1, 1.9, 2.1)}]),
       st.sampled_from(["edf", "llf"]))  # fmt: skip
def test_work_and_energy_are_conserved(plan, speedup, order):
    site, seen, rows, ids = facility(**speedup, order=order), [], [], 0
    for works, blocks, late_s in plan:
        submit(site, works, ids, site.now_s + late_s)
        ids += len(works)
        seen.append(minute(site, 2 * blocks))
        rows.append(seen[-1].left_jobs)
    rows.append(site.unfinished_rows())
    done_to = math.fsum(v for batch in rows for v in batch.get("done_to", ()))
    assert math.fsum(m.work_to[0] for m in seen) == pytest.approx(done_to, rel=1e-9, abs=1e-9)
    assert sorted(k for batch in rows for k in batch.get("id", ())) == list(range(ids))
    for m in seen:
        assert m.it_kw == pytest.approx(40 + 2.0 * m.busy_gpus[0], rel=1e-12)
        assert m.work_to[0] <= 60 * m.busy_gpus[0] * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize(("changes", "says"), [
    ({"speedup_table": (1.0, 2.0)}, "must start with 1 and have max_blocks = 3"),
    ({"speedup_table": (1.0, 0.9, 1.2)}, "must not fall"),
    ({"speedup_table": (1.0, 1.2, 2.0)}, "must not rise"),
    ({"speedup_exponent": 1.5}, "speedup_exponent"),
    ({"slo_wait_s": 5}, "only inference"),
    ({"kind": "inf", "max_blocks": 1, "order": "llf"}, "first in, first out"),
])  # fmt: skip
def test_what_is_no_speed_up_is_refused(changes, says):
    with pytest.raises(ScenarioError, match=says):
        validate(JobClass, {**FIT, **changes}, "job_classes.fit")
