"""A power cap at the meter: who is held back, what is touched, and that the site is within it, instant by instant."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_site import CLASSES, PLAIN, SITE, batch

from cosim.errors import ModelError, ScenarioError
from cosim.simulators.aidc.capped import CappedDataCenters, CappedParams
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.engine.capped import NO_CAP_KW, CappedFacility, CapRules, PowerBudget
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.equations import crac, distribution_loss_kw
from cosim.simulators.aidc.plant.cooling import CORRECTED, Cooling


class Site10:
    """A facility of 10 GPUs under a cap, and its GPUs in use after every event."""

    def __init__(self, cooling=PLAIN, **rules):
        self.busy = []
        self.facility = CappedFacility("site", SITE, CLASSES, cooling, 23.0, CapRules(**rules),
                                       watch=lambda t, busy: self.busy.append((t, busy)))

    def cap(self, busy_gpus):
        """A cap that so many busy GPUs just meet."""
        self.facility.cap((40.0 + 2.0 * busy_gpus) * 1.25)

    def rows(self, to_s):
        self.facility.advance(to_s)
        left = self.facility.read_interval().left_jobs
        names = ("id", "start_s", "end_s", "done_to", "outcome")
        return list(zip(*(left[n] for n in names), strict=True)) if left else []

    def at(self, time_s):
        return next(busy for t, busy in reversed(self.busy) if t <= time_s)


def test_training_gives_blocks_back_and_goes_on_where_it_was():
    site = Site10()
    site.facility.submit(batch(0.0, (1, "fit", 480, 900)))
    site.facility.command([4, 6], 23.0)
    assert site.rows(20.0) == []  # three blocks, 6 TO/s: 120 of 480 TO
    site.cap(2)
    assert site.rows(80.0) == []  # one block for a minute: 120 more
    assert site.at(80.0) == (0, 2)
    assert site.facility.held_gpus() == [0.0, 4.0]
    site.facility.cap(NO_CAP_KW)
    assert site.rows(200.0) == [(1, 0.0, 120.0, 480.0, "finished")]  # the other 240 at 6 TO/s


def test_training_gives_way_before_inference_and_takes_what_it_leaves():
    site = Site10()
    site.facility.submit(batch(0.0, (1, "fit", 4800, 9000), *((k, "chat", 30, 100) for k in range(2, 5))))
    site.facility.command([4, 6], 23.0)
    site.cap(5)
    site.facility.advance(10.0)
    assert site.at(10.0) == (3, 2)  # 5 GPUs: three chats, one block
    site.facility.advance(40.0)
    assert site.at(40.0) == (0, 4)  # the chats are over


def test_inference_gives_way_first_where_told():
    site = Site10(gives_way=("inf", "train"))
    site.facility.submit(batch(0.0, (1, "fit", 4800, 9000), *((k, "chat", 30, 100) for k in range(2, 5))))
    site.facility.command([4, 6], 23.0)
    site.cap(7)
    site.facility.advance(10.0)
    assert site.at(10.0) == (1, 6)
    assert site.facility.held_gpus() == [2.0, 0.0]
    # 1 runs 30 s, then the next: the third would start at 60 s, in time
    assert [row[:3] for row in site.rows(95.0)] == [(2, 0.0, 30.0), (3, 30.0, 60.0), (4, 60.0, 90.0)]


def test_who_waits_for_the_cap_is_dropped_at_its_deadline():
    site = Site10()
    site.facility.submit(batch(0.0, (1, "chat", 30, 100)))
    site.facility.command([4, 0], 23.0)
    site.cap(0)
    assert site.rows(120.0) == [(1, pytest.approx(math.nan, nan_ok=True), 100.0, 0.0, "dropped")]


@pytest.mark.parametrize(("running", "then"), [("keep", (2, 6)), ("pause", (2, 2)), ("stop", (2, 2))])
def test_what_may_happen_to_what_runs(running, then):
    site = Site10(running=running)
    site.facility.submit(batch(0.0, (1, "fit", 4800, 9000), (2, "chat", 60, 100), (3, "chat", 60, 100)))
    site.facility.command([4, 6], 23.0)
    site.facility.advance(10.0)
    assert site.at(10.0) == (2, 6)
    site.cap(4)
    site.facility.advance(20.0)
    assert site.at(20.0) == then


def test_running_inference_is_never_stopped_unless_told_and_then_the_last_started_first():
    jobs = ((2, "chat", 60, 100), (3, "chat", 60, 100))
    kept, stopped = Site10(), Site10(running="stop")
    for site in (kept, stopped):
        site.facility.command([4, 6], 23.0)
        for k, job in enumerate(jobs):
            site.facility.submit(batch(10.0 * k, job))
            site.facility.advance(10.0 * k + 5.0)
            site.facility.advance(10.0 * (k + 1))
        site.cap(1)
        site.facility.advance(30.0)
    assert (kept.at(30.0), stopped.at(30.0)) == ((2, 0), (1, 0))
    assert [row[:3] for row in kept.rows(150.0)] == [(2, 0.0, 60.0), (3, 10.0, 70.0)]
    stopped.facility.advance(150.0)
    did = stopped.facility.read_interval()
    assert did.left_jobs["id"] == [2, 3]
    assert did.left_jobs["start_s"] == [0.0, 60.0]  # what it had done in 10 s is lost
    assert did.failed_to == [10.0, 0.0]
    assert sum(did.work_to) == pytest.approx(60.0 + 60.0 + 10.0)


def test_who_is_not_named_never_gives_way():
    site = Site10(gives_way=("inf",))
    site.facility.submit(batch(0.0, (1, "fit", 4800, 9000), (2, "chat", 30, 100)))
    site.facility.command([4, 6], 23.0)
    site.cap(2)
    site.facility.advance(10.0)
    assert site.at(10.0) == (0, 6)


def test_one_class_of_a_kind_gives_way_before_the_other():
    classes = {**CLASSES, "tune": CLASSES["fit"]}
    for order, expected in ((("fit", "tune"), (0, 2, 4)), (("tune", "fit"), (0, 4, 2)), (("train",), (0, 4, 2))):
        facility = CappedFacility("site", SITE, classes, PLAIN, 23.0, CapRules(gives_way=order))
        facility.submit(batch(0.0, (1, "fit", 4800, 9000), (2, "tune", 4800, 9000)))
        facility.command([2, 4, 4], 23.0)
        facility.cap((40.0 + 2.0 * 6) * 1.25)
        facility.advance(10.0)
        assert tuple(map(round, facility.read_interval().busy_gpus)) == expected, order


def test_a_cap_below_the_idle_site_holds_all_back():
    site = Site10()
    site.facility.submit(batch(0.0, (1, "fit", 480, 900), (2, "chat", 30, 100)))
    site.facility.command([4, 6], 23.0)
    site.facility.cap(1.0)
    site.facility.advance(60.0)
    assert site.at(60.0) == (0, 0)


# --- the budget -----------------------------------------------------------------------------------------------------

LOSSY = Cooling(supply_offset_degc=4.0, return_approach_degc=-4.0, loss_no_load_ratio=0.02, loss_linear_ratio=0.03,
                loss_square_ratio=0.02, auxiliary_kw=4.0, server_leakage_per_k=0.003, server_reference_degc=22.0)


@pytest.mark.parametrize("cooling", [PLAIN, CORRECTED, LOSSY])
@pytest.mark.parametrize("supply_degc", [18.0, 23.0])
@given(cap_kw=st.floats(30.0, 90.0))
@settings(max_examples=25)
def test_the_budget_is_the_most_that_is_within_the_cap(cooling, supply_degc, cap_kw):
    budget = PowerBudget(SITE, CLASSES, cooling)
    drawn_kw = budget.site_kw(supply_degc, None)
    least, most, got = drawn_kw(0.0), drawn_kw(20.0), budget.of(cap_kw, supply_degc, None)
    if cap_kw >= most:
        assert got == NO_CAP_KW
    elif cap_kw <= least:
        assert got == 0.0
    else:
        assert drawn_kw(got) <= cap_kw < drawn_kw(got + 1e-9 * cap_kw + 1e-9)


def test_what_the_budget_reckons_with_is_what_the_meter_reads():
    for cooling in (PLAIN, CORRECTED, LOSSY):
        facility = CappedFacility("site", SITE, CLASSES, cooling, 21.0, CapRules())
        facility.submit(batch(0.0, (1, "fit", 4800, 9000)))
        facility.command([4, 6], 21.0)
        facility.advance(60.0)
        did = facility.read_interval()
        drawn_kw = PowerBudget(SITE, CLASSES, cooling).site_kw(21.0, None)(12.0)
        assert did.it_kw + did.chiller_kw + did.tower_kw + did.loss_kw == pytest.approx(drawn_kw, rel=1e-12)
        assert did.loss_kw == pytest.approx(distribution_loss_kw(did.it_kw, cooling))
        assert did.chiller_kw == pytest.approx(crac(did.it_kw, 21.0, cooling).chiller_kw)


# --- any course of jobs and caps ------------------------------------------------------------------------------------


@st.composite
def plans(draw):
    """Minutes of (jobs, grants, cap in busy GPUs or None)."""
    jobs = st.lists(st.tuples(st.sampled_from(["chat", "fit"]), st.integers(5, 400), st.integers(20, 600)), max_size=6)
    grants = st.sampled_from([[4, 6], [10, 0], [0, 10], [2, 8], [0, 0]])
    return draw(st.lists(st.tuples(jobs, grants, st.none() | st.integers(0, 9)), min_size=1, max_size=8))


def play(facility, plan, capped):
    rows, next_id, now_s = [], 0, 0.0
    for jobs, grants, cap in plan:
        facility.submit(batch(now_s, *[(next_id + k, name, work, now_s + due) for k, (name, work, due)
                                       in enumerate(jobs)]) if jobs else {})
        next_id += len(jobs)
        facility.command(grants, 23.0)
        if capped:
            facility.cap(NO_CAP_KW if cap is None else (40.0 + 2.0 * cap) * 1.25)
        now_s += 60.0
        facility.advance(now_s)
        rows.append(facility.read_interval())
    return rows


def rows_of(intervals):
    return [sorted(zip(*i.left_jobs.values(), strict=True), key=repr) if i.left_jobs else [] for i in intervals]


@settings(max_examples=30)
@given(plan=plans(), running=st.sampled_from(["keep", "pause", "stop"]),
       gives_way=st.sampled_from([("train", "inf"), ("inf", "train"), ("inf",), ("fit", "chat")]))
def test_within_the_cap_at_every_instant_but_for_what_may_not_be_touched(plan, running, gives_way):
    seen = []
    facility = CappedFacility("site", SITE, CLASSES, PLAIN, 23.0, CapRules(gives_way=gives_way, running=running),
                              watch=lambda t, busy: seen.append((t, busy)))
    done = play(facility, plan, capped=True)
    stops, holds_inference = running == "stop", {"inf", "chat"} & set(gives_way)
    holds_training = {"train", "fit"} & set(gives_way)
    before = (0, 0)
    for time_s, (chat, fit) in seen:
        cap = plan[min(int(time_s // 60), len(plan) - 1)][2]
        assert chat + fit <= 10
        if cap is not None and time_s % 60:  # at a full minute there are instants before the command and after
            fixed = (0 if stops and holds_inference else chat) + (fit if running == "keep" or not holds_training else 0)
            assert chat + fit <= max(fixed, cap), (time_s, chat, fit, cap)
            if holds_inference:
                assert chat <= before[0] or chat + fit <= cap, "nobody starts above the cap"
        before = (chat, fit)
    inside = facility.state()
    received = sum(len(jobs) for jobs, _, _ in plan)
    ended = sum(sum(i.finished_jobs) + sum(i.dropped_jobs) for i in done)
    assert received == ended + sum(map(sum, (inside.queued_jobs, inside.deferred_jobs, inside.running_jobs)))
    work = sum(sum(i.work_to) - sum(i.failed_to) for i in done)
    rows = [dict(zip(i.left_jobs, row, strict=True)) for i in done if i.left_jobs
            for row in zip(*i.left_jobs.values(), strict=True)]
    left = facility.unfinished_rows()
    done_to = sum(r["done_to"] for r in rows) + sum(left.get("done_to", []))
    assert work == pytest.approx(done_to, rel=1e-9, abs=1e-6)


@settings(max_examples=15)
@given(plan=plans())
def test_without_a_cap_or_with_one_that_binds_nobody_it_is_a_facility(plan):
    free = play(Facility("site", SITE, CLASSES, PLAIN, 23.0), plan, capped=False)
    none = play(CappedFacility("site", SITE, CLASSES, PLAIN, 23.0, CapRules()),
                [(jobs, grants, None) for jobs, grants, _ in plan], capped=True)
    assert none == free
    for rules in (CapRules(), CapRules(gives_way=("inf", "train")), CapRules(running="keep")):
        facility = CappedFacility("site", SITE, CLASSES, PLAIN, 23.0, rules)
        facility._budget._search = lambda *_: 20.0  # the budget of the full site: finite, and nobody is held back
        wide = play(facility, [(jobs, grants, 9) for jobs, grants, _ in plan], capped=True)
        assert rows_of(wide) == rows_of(free)
        assert [i.it_kw for i in wide] == pytest.approx([i.it_kw for i in free], rel=1e-12)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(ScenarioError, match=r"aidc\.cap\.gives_way: unknown kind or job class 'chta'; did you mean"):
        CapRules(gives_way=("chta",)).ranked(CLASSES, "aidc.cap")
    with pytest.raises(ScenarioError, match="names 'inf' twice"):
        CapRules(gives_way=("inf", "inf")).ranked(CLASSES, "aidc.cap")
    with pytest.raises(ModelError, match="p_cap_kw = -1; a cap is 0 or more"):
        Site10().facility.cap(-1.0)
    assert CappedDataCenters.PARAMS is CappedParams


def test_the_compiled_fleet_says_by_name_that_it_keeps_no_cap():
    given_ = CappedParams(job_classes=CLASSES, sites={"site": SITE}, job_log=False)
    assert unsupported(given_) == ["cap: it keeps no power cap"]
