"""Checkpoints, restarts and racks that fail: by hand, against conservation laws, and in the long run.

The site has 5 racks of 2 GPUs. A training block of 2 GPUs does 2 TO/s and a job uses at most three; an inference job of
n TO takes n seconds on one GPU.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.adapter import DataCenters, SlotDataCenters
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.racks import Racks
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.fleet import JobClass, Site
from cosim.trace import Trace

SITE = Site(node=0, racks=5, gpus_per_rack=2, idle_kw=40.0)
FIT = JobClass(kind="train", work_to=480, deadline_s=900, to_per_gpu_min=60, kw_per_to_s=2.0, gpus_per_block=2,
               max_blocks=3)
CHAT = JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=60, kw_per_to_s=2.0)


class Script(Racks):
    """Racks that do what they are told: (time, place of the failing one or None for a repair)."""

    def __init__(self, *events: tuple[float, int | None]) -> None:
        self.down, self._events = 0, list(events)
        self.next_s = self._events[0][0]

    def change(self) -> int | None:
        place = self._events.pop(0)[1]
        self.down += 1 if place is not None else -1
        self.next_s = self._events[0][0] if self._events else math.inf
        return place


def facility(job_class: JobClass, racks: Racks | None = None) -> Facility:
    return Facility("site", SITE, {"it": job_class}, CORRECTED, 23.0, racks=racks)


def submit(site: Facility, *jobs: tuple[int, float, float]) -> None:
    """Each job: id, work, deadline."""
    ids, works, dues = map(list, zip(*jobs, strict=True))
    site.submit({"id": ids, "job_class": ["it"] * len(ids), "arrival_s": [site.now_s] * len(ids),
                 "work_to": [float(w) for w in works], "deadline_s": [float(d) for d in dues]})


def ends(interval) -> list[tuple]:
    left = interval.left_jobs
    return list(zip(left["id"], left["start_s"], left["end_s"], left["outcome"], strict=True))


def test_checkpoints_cost_time_and_energy():
    # 15 s of writing after every 60 s of work: 6 TO/s become 4.8, so that 480 TO take 100 s instead of 80
    site = facility(replace(FIT, checkpoint_interval_s=60.0, checkpoint_cost_s=15.0))
    submit(site, (1, 480, 900))
    site.command([6], 23.0)
    site.advance(200.0)
    did = site.read_interval()
    assert ends(did) == [(1, 0.0, 100.0, "finished")]
    assert did.work_to == pytest.approx([480.0])
    assert did.busy_gpus[0] * 200.0 == pytest.approx(600.0)  # 6 GPUs for 100 s


def test_restart_draws_power_and_does_nothing():
    # 20 s at 6 TO/s = 120 TO; no GPU until 50 s; 10 s of restart; the 360 TO left take 60 s: done at 120 s
    site = facility(replace(FIT, restart_s=10.0))
    submit(site, (1, 480, 900))
    site.command([6], 23.0)
    site.advance(20.0)
    site.command([0], 23.0)
    site.advance(50.0)
    site.command([6], 23.0)
    site.advance(55.0)
    did = site.read_interval()
    assert did.work_to == pytest.approx([120.0])  # half of the restart is over, and nothing done in it
    site.command([4], 23.0)  # fewer blocks in the middle of a restart: it goes on, then 4 TO/s: 60 + 90 s
    site.advance(200.0)
    did = site.read_interval()
    assert ends(did) == [(1, 0.0, 150.0, "finished")]
    assert did.work_to == pytest.approx([360.0])
    assert did.busy_gpus[0] * 145.0 == pytest.approx(4 * 95.0)


def test_failed_rack_sends_training_back_to_its_checkpoint():
    # 10 GPUs: job 1 has 6 of them, job 2 four. At 50 s the rack of GPUs 0 and 1 fails: job 1 has done 300 TO, its last
    # checkpoint is that of 30 s: 180. 8 GPUs are left, of which job 1 gets 6 (its deadline is earlier), job 2 two.
    # Job 1: 300 TO at 6 TO/s: 100 s. Job 2: 200 + 100 TO until then, and 180 at 6 TO/s: 130 s.
    site = facility(replace(FIT, checkpoint_interval_s=30.0), Script((50.0, 0), (300.0, None)))
    submit(site, (1, 480, 800), (2, 480, 900))
    site.command([10], 23.0)
    site.advance(200.0)
    assert site.state().up_gpus == 8
    did = site.read_interval()
    assert ends(did) == [(1, 0.0, 100.0, "finished"), (2, 0.0, 130.0, "finished")]
    assert did.failed_to == pytest.approx([120.0])
    assert did.missed_to == [0.0]
    assert did.work_to == pytest.approx([960.0 + 120.0])
    site.advance(300.0)
    assert site.state().up_gpus == 10


def test_failed_rack_makes_inference_start_again_or_drop():
    # four jobs from 0 on; at 10 s the rack of the first two fails: job 1 begins again at 10 s, job 2 was due at 5 s
    site = facility(CHAT, Script((10.0, 0)))
    submit(site, (1, 30, 100), (2, 30, 5), (3, 30, 100), (4, 30, 100))
    site.command([4], 23.0)
    site.advance(60.0)
    did = site.read_interval()
    assert sorted(ends(did), key=lambda row: row[0])[0] == (1, 10.0, 40.0, "finished")
    assert [row[2:] for row in sorted(ends(did), key=lambda row: row[0])][1:] == [
        (10.0, "dropped"), (30.0, "finished"), (30.0, "finished")]
    assert did.failed_to == pytest.approx([20.0])
    assert did.work_to == pytest.approx([90.0 + 20.0])
    assert list(zip(did.runs["id"], did.runs["end_s"], did.runs["gpus"], strict=True)) == [(1, 10.0, 1.0),
                                                                                           (2, 10.0, 1.0)]


def test_capacity_falls_while_racks_are_down():
    # three racks of five fail on an idle site: of 10 jobs 4 run at once, 30 s each, until a rack comes back at 45 s
    site = facility(CHAT, Script((1.0, 4), (1.0, 3), (1.0, 2), (45.0, None)))
    site.advance(2.0)
    submit(site, *((k, 30, 1000) for k in range(10)))
    site.command([10], 23.0)
    site.advance(200.0)
    assert [row[1:3] for row in ends(site.read_interval())] == (
        [(2.0, 32.0)] * 4 + [(32.0, 62.0)] * 4 + [(45.0, 75.0)] * 2)


@pytest.mark.rows("M15")
def test_work_that_missed_its_deadline_is_lost():
    # 6 TO/s for 50 s, then the deadline: 300 TO done for nothing
    site = facility(FIT)
    submit(site, (1, 480, 50))
    site.command([6], 23.0)
    site.advance(100.0)
    did = site.read_interval()
    assert (did.missed_to, did.dropped_jobs) == (pytest.approx([300.0]), [1])


def test_long_run_share_of_racks_that_are_up():
    # mean up 9 h, down 1 h: 10 % down. 40 batches of 667 h of 20 racks; t interval at 99 %, 39 degrees: 2.708
    racks, now_s, shares = Racks(20, 32400.0, 3600.0, np.random.default_rng(5)), 0.0, []
    for k in range(40):
        end_s, down = (k + 1) * 2.4e6, 0.0
        while racks.next_s < end_s:
            down += racks.down * (racks.next_s - now_s)
            now_s = racks.next_s
            racks.change()
        down += racks.down * (end_s - now_s)
        now_s = end_s
        shares.append(down / 20 / 2.4e6)
    assert abs(np.mean(shares) - 0.1) < 2.708 * np.std(shares, ddof=1) / math.sqrt(40)
    assert np.std(shares, ddof=1) < 0.009


@pytest.mark.long
def test_laws_hold_when_many_racks_fail(tmp_path):
    checkpoints = {f"shared.job_classes.{m}.{name}": value for m in ("llm", "vae") for name, value in
                   (("checkpoint_interval_s", "20min"), ("checkpoint_cost_s", "1min"), ("restart_s", "90s"))}
    scenario = override(find("ieee33"), {"until_s": "4h", "aidc.rack_mean_up_s": "5h", "aidc.rack_mean_down_s": "2h",
                                     **checkpoints})
    path = tmp_path / "failing.h5"
    Experiment(scenario, out=path, driver="native").run()
    with Trace(path) as trace:
        assert not verify(trace).broken
        failed = trace["aidc/Site/failed_work_to"].sum(axis=(0, 1))
        assert (failed > 0).all()  # of every class
        assert trace["aidc/Site/up_gpus"].min() < 400
        for k, account in enumerate(job_footprints(trace)):
            kwh = trace["aidc/Site/p_kw"][:, k].sum() / 60.0
            assert account.energy_kwh.sum() == pytest.approx(kwh, rel=1e-9)


def test_racks_that_are_down_stay_so_in_the_next_world():
    def world() -> DataCenters:
        member = DataCenters()
        member.init("aidc", 1.0, step_s=60.0, job_classes={"it": {
            "kind": "inf", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1.0}},
            sites={"near": {"node": 1}}, rack_mean_up_s="30min", rack_mean_down_s="30min")
        member.create(1, "Site", names=["near"])
        member.setup_done()
        return member

    first, second = world(), world()
    for k in range(60):
        first.step(k * 60, {"near": {"gpus": {"c": [0.0]}, "supply_temp_degc": {"c": 23.0}}}, k * 60 + 60)
    up = first.initial()["near"]["up_gpus"]
    assert up < 320
    second.resume(first.carry())
    second.step(0, {"near": {"gpus": {"c": [400.0]}, "supply_temp_degc": {"c": 23.0}}}, 60)
    assert abs(second.initial()["near"]["up_gpus"] - up) < 80  # of 50 racks half is expected after an hour


def test_slot_model_refuses_them():
    member = SlotDataCenters()
    member.init("aidc", 1.0, step_s=60.0, job_classes={"it": {
        "kind": "inf", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1.0}},
        sites={"near": {"node": 1}}, rack_mean_up_s=3600.0)
    member.create(1, "Site", names=["near"])
    with pytest.raises(ScenarioError, match="slot model knows no failures"):
        member.setup_done()
