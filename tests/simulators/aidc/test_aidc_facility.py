"""What a site does, event by event, in scenarios small enough to be worked out by hand.

The site has 10 GPUs. An inference job of n TO takes n seconds on its one GPU ('chat') or on its three ('video'); a
training block of 2 GPUs does 2 TO/s, and a job uses at most three blocks.
"""

from __future__ import annotations

import math

import pytest

from cosim.errors import ModelError
from cosim.simulators.aidc.engine import meter as meter_module
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.equations import crac
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

SITE = Site(node=0, racks=1, gpus_per_rack=10, idle_kw=40.0)
CLASSES = {
    "chat": JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=60, kw_per_to_s=2.0),
    "video": JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=20, kw_per_to_s=6.0, gpus_per_block=3),
    "fit": JobClass(
        kind="train", work_to=480, deadline_s=900, to_per_gpu_min=60, kw_per_to_s=2.0, gpus_per_block=2, max_blocks=3
    ),
    "tune": JobClass(
        kind="train", work_to=480, deadline_s=900, to_per_gpu_min=60, kw_per_to_s=2.0, gpus_per_block=4, max_blocks=1,
        eligible_sites=("site",),
    ),
}  # fmt: skip
NEVER = 1e6


class Run:
    """A facility under test: submits single jobs, keeps all rows and the GPUs in use after every event."""

    def __init__(self) -> None:
        self.busy: list[tuple[float, tuple[int, ...]]] = []
        self.facility = Facility("site", SITE, CLASSES, CORRECTED, 23.0, watch=lambda t, busy: self._note(t, busy))

    def _note(self, time_s: float, busy: tuple[int, ...]) -> None:
        if not self.busy or self.busy[-1][1] != busy:
            self.busy.append((time_s, busy))

    def submit(self, *jobs: tuple) -> None:
        """Each job: id, class, work, deadline, and a release if it is not now."""
        now_s = self.facility.now_s
        columns = {
            "id": [j[0] for j in jobs],
            "job_class": [j[1] for j in jobs],
            "arrival_s": [now_s] * len(jobs),
            "work_to": [float(j[2]) for j in jobs],
            "deadline_s": [float(j[3]) for j in jobs],
            "release_s": [float(j[4]) if len(j) > 4 else now_s for j in jobs],
        }
        self.facility.submit(columns)

    def grant(self, chat: int = 0, video: int = 0, fit: int = 0, tune: int = 0) -> None:
        self.facility.command([chat, video, fit, tune], 23.0)

    def log(self, to_s: float) -> list[tuple]:
        """Run to `to_s`; (id, start, end, work done, outcome) of every job that left on the way."""
        self.facility.advance(to_s)
        batch = self.facility.read_interval().left_jobs
        names = ("id", "start_s", "end_s", "done_to", "outcome")
        return list(zip(*(batch[n] for n in names), strict=True)) if batch else []


@pytest.fixture
def run() -> Run:
    return Run()


def never(value: float) -> bool:
    return math.isnan(value)


# --- inference ------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E18")
def test_first_come_first_served_within_the_grant(run):
    run.grant(chat=2)
    run.submit((1, "chat", 30, NEVER), (2, "chat", 50, NEVER), (3, "chat", 5, NEVER), (4, "chat", 20, NEVER))
    # 1 and 2 start; 3 follows 1 at 30, 4 follows 3 at 35
    assert run.log(60) == [
        (1, 0, 30, 30, "finished"),
        (3, 30, 35, 5, "finished"),
        (2, 0, 50, 50, "finished"),
        (4, 35, 55, 20, "finished"),
    ]
    assert run.busy == [(0, (2, 0, 0, 0)), (50, (1, 0, 0, 0)), (55, (0, 0, 0, 0))]


@pytest.mark.rows("E18")
def test_head_of_the_line_holds_back_no_other_class(run):
    # video needs 3 GPUs and has a grant of 5: one job at a time, whatever chat does
    run.grant(chat=1, video=5)
    run.submit((1, "video", 20, NEVER), (2, "video", 20, NEVER), (3, "chat", 10, NEVER))
    assert run.log(60) == [(3, 0, 10, 10, "finished"), (1, 0, 20, 20, "finished"), (2, 20, 40, 20, "finished")]
    assert run.busy == [(0, (1, 3, 0, 0)), (10, (0, 3, 0, 0)), (40, (0, 0, 0, 0))]


@pytest.mark.rows("U13")
def test_waiting_jobs_leave_at_their_deadlines_in_any_order(run):
    run.grant(chat=1)
    run.submit((1, "chat", 90, NEVER), (2, "chat", 5, 50), (3, "chat", 5, 20.5), (4, "chat", 5, 200))
    log = run.log(60)
    assert [(i, end, done, outcome) for i, _, end, done, outcome in log] == [
        (3, 20.5, 0, "dropped"),
        (2, 50, 0, "dropped"),
    ]
    assert all(never(start) for _, start, *_ in log)
    assert run.log(120) == [(1, 0, 90, 90, "finished"), (4, 90, 95, 5, "finished")]


def test_deadline_comes_before_a_start_at_the_same_instant(run):
    run.grant(chat=1)
    run.submit((1, "chat", 30, NEVER), (2, "chat", 5, 30), (3, "chat", 5, 30.001))
    log = run.log(60)
    assert [(i, outcome) for i, *_, outcome in log] == [(1, "finished"), (2, "dropped"), (3, "finished")]
    assert log[2][1] == 30


def test_job_that_comes_after_its_deadline_is_dropped_at_once(run):
    run.facility.advance(60)
    run.grant(chat=5)
    run.submit((1, "chat", 5, 59), (2, "chat", 5, 60), (3, "chat", 5, 60.5))
    log = run.log(120)
    assert [(i, end, outcome) for i, _, end, _, outcome in log] == [
        (1, 60, "dropped"), (2, 60, "dropped"), (3, 65, "finished"),
    ]  # fmt: skip


def test_running_inference_finishes_through_a_smaller_grant_and_its_deadline(run):
    run.grant(chat=3)
    run.submit((1, "chat", 90, 10), (2, "chat", 100, 10), (3, "chat", 110, 10))
    assert run.log(60) == []
    run.grant(chat=1)
    run.submit((4, "chat", 10, NEVER))
    # 4 has to wait until no more than 0 of the others run: it starts when the third of them ends
    assert run.log(180) == [
        (1, 0, 90, 90, "finished"),
        (2, 0, 100, 100, "finished"),
        (3, 0, 110, 110, "finished"),
        (4, 110, 120, 10, "finished"),
    ]


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.rows("I03")
def test_blocks_taken_away_and_given_back_keep_progress(run):
    run.grant(fit=6)
    run.submit((1, "fit", 480, 900))
    assert run.log(60) == []  # 3 blocks, 6 TO/s: 360 TO done
    run.grant(fit=0)
    assert run.log(120) == []  # nothing
    state = run.facility.state()
    assert (state.queued_jobs, state.running_jobs) == ([0, 0, 1, 0], [0, 0, 0, 0])
    assert state.pending_work_to == [0, 0, 120, 0]
    run.grant(fit=4)
    assert run.log(180) == [(1, 0, 150, 480, "finished")]  # 2 blocks, 4 TO/s: 30 s for the last 120 TO
    assert run.busy == [(0, (0, 0, 6, 0)), (60, (0, 0, 0, 0)), (120, (0, 0, 4, 0)), (150, (0, 0, 0, 0))]


@pytest.mark.rows("I03")
def test_earliest_deadline_takes_the_blocks_it_can_use(run):
    run.grant(fit=8)
    run.submit((1, "fit", 600, 900))
    assert run.log(60) == []  # job 1 alone: 3 of 4 blocks, 360 TO done
    run.submit((2, "fit", 120, 300), (3, "fit", 40, 900))
    # from 60: job 2 has 3 blocks, job 1 has 1 (ties by id: before 3). 2 ends at 80; 1 has done 400 by then.
    # from 80: job 1 has 3 blocks, job 3 one: 3 needs 20 s, to 100; 1 has done 520. Then 80 TO at 6 TO/s: to 113 1/3.
    log = run.log(120)
    assert [(i, start, outcome) for i, start, *_, outcome in log] == [
        (2, 60, "finished"), (3, 80, "finished"), (1, 0, "finished"),
    ]  # fmt: skip
    assert [end for _, _, end, *_ in log] == [80, 100, pytest.approx(113 + 1 / 3, abs=1e-7)]
    assert run.busy[:3] == [(0, (0, 0, 6, 0)), (60, (0, 0, 8, 0)), (100, (0, 0, 6, 0))]


@pytest.mark.rows("I17", "M15")
def test_finish_at_the_deadline_counts_and_a_moment_later_does_not(run):
    run.grant(fit=4)
    run.submit((1, "fit", 200, 100), (2, "tune", 1, 1))
    assert run.log(100) == [(2, pytest.approx(math.nan, nan_ok=True), 1, 0, "dropped"), (1, 0, 50, 200, "finished")]
    run.submit((3, "fit", 200, 150), (4, "fit", 200, 199.5))
    # 3 has both blocks until 150, exactly its need; 4 then has 4 TO/s for 49.5 s: 198 of 200 TO
    assert run.log(240) == [(3, 100, 150, 200, "finished"), (4, 150, 199.5, 198, "dropped")]


def test_third_of_a_second_is_not_lost_at_a_deadline(run):
    # 100 TO at 6 TO/s take 16 2/3 s, no number of a binary clock; the same quotient as deadline is still met
    run.grant(fit=6)
    run.submit((1, "fit", 100, 100 / 6), (2, "fit", 100, 100 / 3 - 1e-6))
    assert [(i, outcome) for i, *_, outcome in run.log(60)] == [(1, "finished"), (2, "dropped")]


def test_release_defers_training(run):
    run.grant(fit=4)
    run.submit((1, "fit", 40, NEVER, 30), (2, "fit", 40, NEVER, 20), (3, "fit", 1, 25, 28))
    run.facility.advance(10)
    state = run.facility.state()
    assert (state.deferred_jobs, state.deferred_work_to) == ([0, 0, 3, 0], [0, 0, 81, 0])
    assert state.pending_work_to == [0, 0, 0, 0]
    log = run.log(60)
    assert [(i, end, outcome) for i, _, end, _, outcome in log] == [
        (3, 25, "dropped"), (2, 30, "finished"), (1, 40, "finished"),
    ]  # fmt: skip


def test_deferred_job_takes_blocks_by_deadline_at_its_release(run):
    run.grant(tune=4)
    run.submit((1, "tune", 400, 900), (2, "tune", 40, 500, 60))
    # a block of tune does 4 TO/s; job 2 interrupts job 1 from 60 to 70
    assert run.log(100) == [(2, 60, 70, 40, "finished")]
    assert run.log(180) == [(1, 0, 110, 400, "finished")]


# --- both -----------------------------------------------------------------------------------------------------------


def test_grants_move_at_once_between_training_classes(run):
    run.grant(fit=6, tune=4)
    run.submit((1, "fit", 900, 900), (2, "tune", 900, 900))
    run.facility.advance(60)
    run.grant(fit=2, tune=8)
    run.submit((3, "tune", 900, 950))
    run.facility.advance(120)
    assert run.busy == [(0, (0, 0, 6, 4)), (60, (0, 0, 2, 8))]


def test_gpus_of_a_shrunk_class_go_to_waiting_inference_first(run):
    run.grant(chat=10)
    run.submit(*((i, "chat", 70, NEVER) for i in range(3)), *((i, "chat", 90, NEVER) for i in range(3, 10)))
    run.facility.advance(60)
    run.grant(video=3, fit=4)
    run.submit((20, "video", 30, NEVER), (21, "fit", 60, NEVER))
    run.facility.advance(75)
    # 70: three GPUs come free, all for the waiting video job, though training could use two of them
    # 90: seven more: two blocks of fit
    log = run.log(120)
    assert log[-2:] == [(20, 70, 100, 30, "finished"), (21, 90, 105, 60, "finished")]
    assert run.busy == [
        (0, (10, 0, 0, 0)), (70, (7, 3, 0, 0)), (90, (0, 3, 4, 0)), (100, (0, 0, 4, 0)), (105, (0, 0, 0, 0)),
    ]  # fmt: skip


def test_gpus_that_come_free_at_one_instant_are_handed_over_together(run):
    run.grant(chat=10)
    run.submit(*((i, "chat", 150, NEVER) for i in range(2)), *((i, "chat", 300, NEVER) for i in range(2, 8)))
    run.facility.advance(60)
    run.submit((8, "chat", 90, NEVER), (9, "chat", 90, NEVER))
    run.facility.advance(120)
    run.grant(video=3, fit=4)
    run.submit((20, "video", 30, NEVER), (21, "fit", 60, NEVER))
    run.facility.advance(179)
    # two cohorts end at 150: four GPUs, three of them for video; one after the other would both go to training
    assert run.busy == [(0, (8, 0, 0, 0)), (60, (10, 0, 0, 0)), (150, (6, 3, 0, 0))]


def test_blocks_of_a_finished_job_are_free_gpus_like_others(run):
    run.grant(chat=7, fit=2)
    run.submit(*((i, "chat", 200, NEVER) for i in range(7)), (20, "fit", 180, 900), (21, "fit", 20, 950))
    run.facility.advance(60)
    run.grant(video=3, fit=2)
    run.submit((22, "video", 30, NEVER))
    # one GPU is free; with the two of job 20 at 90 the video job, within its grant, comes before job 21
    assert run.log(180) == [(20, 0, 90, 180, "finished"), (22, 90, 120, 30, "finished"), (21, 120, 130, 20, "finished")]


def test_training_waits_for_a_whole_free_block_and_classes_take_turns_in_order(run):
    run.grant(chat=10)
    run.submit(*((i, "chat", 60 + 5 * i, NEVER) for i in range(1, 11)))
    run.facility.advance(60)
    run.grant(fit=2, tune=4)
    run.submit((20, "fit", 30, NEVER), (21, "tune", 40, NEVER))
    run.facility.advance(120)
    # one GPU more every 5 s from 65; fit takes its 2 at 70 and is done at 85, tune gets 4 at 85, with those from
    # 75 and 80 and the two of fit and one of 85
    assert [(t, busy[2:]) for t, busy in run.busy if t in (65, 70, 80, 85, 95)] == [
        (65, (0, 0)), (70, (2, 0)), (80, (2, 0)), (85, (0, 4)), (95, (0, 0)),
    ]  # fmt: skip


def test_shrunk_training_makes_room_for_inference_at_once(run):
    run.grant(fit=6, tune=4)
    run.submit((1, "fit", 900, 900), (2, "tune", 900, 900))
    run.facility.advance(60)
    run.grant(chat=4, fit=2, tune=4)
    run.submit((3, "chat", 10, NEVER))
    assert run.log(120) == [(3, 60, 70, 10, "finished")]


# --- accounts -------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E13")
def test_power_and_work_are_integrals_at_true_event_times(run):
    # chat draws 2 kW a GPU (2 kW/(TO/s) at 1 TO/s). 2 GPUs for 15 s, 1 GPU from 15 to 45, none to 60:
    # IT = 40 + (4 * 15 + 2 * 30) / 60 = 42 kW; GPUs (2 * 15 + 30) / 60 = 1
    run.grant(chat=2)
    run.submit((1, "chat", 15, NEVER), (2, "chat", 45, NEVER))
    run.facility.advance(60)
    did = run.facility.read_interval()
    assert did.it_kw == pytest.approx(42.0, rel=1e-12)
    assert did.it_kwh == pytest.approx(42.0 / 60, rel=1e-12)
    assert did.busy_gpus == [1.0, 0, 0, 0]
    assert did.work_to == [60.0, 0, 0, 0]
    assert (did.received_jobs, did.finished_jobs, did.dropped_jobs) == ([2, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0])
    plants = [(crac(kw, 23.0, CORRECTED), seconds) for kw, seconds in ((44.0, 15), (42.0, 30), (40.0, 15))]
    assert did.chiller_kw == pytest.approx(sum(p.chiller_kw * s for p, s in plants) / 60, rel=1e-12)
    assert did.tower_kw == pytest.approx(sum(p.tower_kw * s for p, s in plants) / 60, rel=1e-12)
    assert did.cooling_kwh == pytest.approx(sum(p.cooling_kw * s for p, s in plants) / 3600, rel=1e-12)


def test_a_new_supply_temperature_acts_from_the_command_on(run):
    run.facility.advance(30)
    run.facility.command([0, 0, 0, 0], 18.0)
    run.facility.advance(60)
    expected = (crac(40.0, 23.0, CORRECTED).chiller_kw + crac(40.0, 18.0, CORRECTED).chiller_kw) / 2
    assert run.facility.read_interval().chiller_kw == pytest.approx(expected, rel=1e-12)


@pytest.mark.rows("E24", "P34")
def test_supply_temperature_outside_its_limits_is_clipped_and_counted(run):
    for given, applied in ((17.0, 18.0), (24.0, 23.0), (20.0, 20.0)):
        run.facility.command([0, 0, 0, 0], given)
        assert run.facility.supply_temp_degc == applied
    run.facility.advance(60)
    assert run.facility.read_interval().clipped_commands == 2


@pytest.mark.rows("M08")
def test_what_is_inside_at_the_end_is_unfinished(run):
    run.grant(chat=1, fit=2)
    run.submit((1, "chat", 90, NEVER), (2, "chat", 30, NEVER))
    run.submit((3, "fit", 900, 900), (4, "fit", 900, 950), (5, "fit", 900, 900, 600))
    run.facility.advance(60)
    rows = run.facility.unfinished_rows()
    assert rows["id"] == [1, 2, 3, 4, 5]
    assert rows["done_to"] == [60, 0, 120, 0, 0]
    assert [t if not never(t) else None for t in rows["start_s"]] == [0, None, 0, None, None]
    assert all(map(never, rows["end_s"]))
    assert set(rows["outcome"]) == {"unfinished"}
    assert rows["release_s"] == [0, 0, 0, 0, 600]
    state = run.facility.state()
    assert state.queued_jobs == [1, 0, 1, 0]
    assert state.deferred_jobs == [0, 0, 1, 0]
    assert state.running_jobs == [1, 0, 1, 0]
    assert state.pending_work_to == [30 + 30, 0, 780 + 900, 0]
    assert state.busy_gpus == [1, 0, 2, 0]


def test_tiny_jobs_end_and_the_clock_goes_on(run):
    # 1e-12 s is less than a tick of the clock: such a job ends at the instant at which it starts
    run.grant(chat=1, fit=2)
    run.submit(*((i, "chat", 1e-12, NEVER) for i in range(5)), (9, "fit", 1e-12, NEVER))
    log = run.log(60)
    assert sorted(i for i, *_ in log) == [0, 1, 2, 3, 4, 9]
    assert {(start, end, outcome) for _, start, end, _, outcome in log} == {(0, 0, "finished")}


def test_batch_without_releases_is_released_now(run):
    run.grant(fit=2)
    run.facility.submit({"id": [1], "job_class": ["fit"], "arrival_s": [-5.0], "work_to": [20.0], "deadline_s": [90.0]})
    assert run.log(60) == [(1, 0, 10, 20, "finished")]


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([11, 0, 0, 0], "11 GPUs granted in sum; the site has 10"),
        ([4, 4, 2, 4], "14 GPUs granted in sum"),
        ([-1, 0, 0, 0], "-1 GPUs granted to 'chat'"),
        ([0.5, 0, 0, 0], "0.5 GPUs granted to 'chat'"),
        ([math.nan, 0, 0, 0], "nan GPUs granted"),
        ([math.inf, 0, 0, 0], "inf GPUs granted"),
        ([0, 0, 3, 0], "3 GPUs granted to 'fit'; a multiple of its block of 2"),
        ([1, 1, 2], "3 GPU grants for 4 job classes"),
    ],
)
def test_impossible_grants_are_refused(run, gpus, said):
    with pytest.raises(ModelError, match=said):
        run.facility.command(gpus, 23.0)


def test_jobs_that_may_not_run_here_are_refused(run):
    elsewhere = Facility("other", SITE, CLASSES, CORRECTED, 23.0)
    batch = {"id": [7], "job_class": ["tune"], "arrival_s": [0.0], "work_to": [1.0], "deadline_s": [9.0]}
    run.facility.submit(batch)
    with pytest.raises(ModelError, match="other: job 7 of class 'tune' may not run here; allowed: chat, video, fit"):
        elsewhere.submit(batch)
    with pytest.raises(ModelError, match="job 7 of class 'cook' may not run here"):
        run.facility.submit({**batch, "job_class": ["cook"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"work_to": [0.0]}, "work_to of the job batch holds 0; it must be positive"),
        ({"deadline_s": [math.nan]}, "deadline_s of the job batch holds nan"),
        ({"arrival_s": [None]}, "arrival_s of the job batch holds None"),
        ({"release_s": [1.0]}, "release_s = 1, later than now"),
        ({"site": ["other"]}, "jobs for 'other'"),
        ({"work_to": [1.0, 2.0]}, "differ in length: 1 ids, not so work_to"),
    ],
)
def test_broken_batches_are_refused(run, change, said):
    batch = {"id": [7], "job_class": ["chat"], "arrival_s": [0.0], "work_to": [1.0], "deadline_s": [9.0]}
    with pytest.raises(ModelError, match=said):
        run.facility.submit({**batch, **change})
    with pytest.raises(ModelError, match="lacks work_to"):
        run.facility.submit({k: v for k, v in batch.items() if k != "work_to"})


def test_time_does_not_run_backwards(run):
    run.facility.advance(60)
    run.facility.read_interval()
    with pytest.raises(ModelError, match="cannot advance to 30 s, it is 60 s already"):
        run.facility.advance(30)
    with pytest.raises(ModelError, match="no time has passed since 60 s"):
        run.facility.read_interval()


def test_power_of_many_states_at_once_is_that_of_one_by_one(monkeypatch):
    # (13), (22), (23): arrays and floats are computed alike, bit for bit
    request = JobClass(kind="inf", work_to=1.0, deadline_s=300.0, to_per_gpu_min=61.3, kw_per_to_s=0.7)
    jobs = {"id": list(range(200)), "job_class": ["request"] * 200, "arrival_s": [0.0] * 200,
            "work_to": [0.1 + k**1.1 / 10 for k in range(200)], "deadline_s": [300.0] * 200}
    seen = []
    for many in (2, 10**9):
        monkeypatch.setattr(meter_module, "_MANY", many)
        facility = Facility("site", Site(node=0), {"request": request}, CORRECTED, 23.0)
        facility.submit(jobs)
        facility.command([400], 21.0)
        facility.advance(60.0)
        seen.append(facility.read_interval())
    assert seen[0] == seen[1]
    assert seen[0].finished_jobs == [200]
