"""A site with classes of kind llm: replicas, grants, power, drops; and jobs that come in as they arrive."""

import math

import pytest
from small_site import CLASSES, PLAIN, SITE, batch, requests

from cosim.errors import ModelError
from cosim.simulators.aidc.adapter import AidcParams
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.site_state import pack, unpack
from cosim.simulators.aidc.llm.facility import ServingFacility
from cosim.simulators.fleet import JobClass, Site

CURVE = {"batch": [1, 11], "step_s": [0.010, 0.020], "power_w": [600, 1000], "prefill_s_per_token": 1e-3,
         "prefill_power_w": 1400}
SERVING = {"model": "Llama-3.1-8B", "gpu": "H100", "gpus": 2, "curve": CURVE, "startup_s": 30, "keep_on_s": 0,
           "max_context_tokens": 1000, "input_tokens": 100, "output_tokens": 100, "max_batch": 4}
IDLE_KW = 40.0


def site(job_classes=None, **serving):
    chat = JobClass(kind="llm", deadline_s=60, serving={**SERVING, **serving})
    return ServingFacility("a", SITE, job_classes or {"chat": chat, "fit": CLASSES["fit"]}, PLAIN, 20.0), chat.serving


def test_power_of_one_request_by_hand():
    """Prompt of 100: an iteration of 10 ms and 100 ms of prefill; then 50 iterations of 10 ms at 600 W; idle after.

    Above the GPUs' idle power, 2 x 70 W: 0.46 kW decoding, 1.26 kW in prefill, 0.1 kW loaded and idle."""
    facility, serving = site()
    facility.submit(requests(serving, (1, 0, 100, 51)))
    facility.command([2, 0], 20.0)
    facility.advance(10.0)
    did, chat = facility.read_interval(), facility.ticks["chat"]
    whole_kws = 0.46 * (0.01 + 0.5) + 1.26 * 0.1 + 0.1 * (10 - 0.61)
    assert chat.dynamic_kw == pytest.approx(whole_kws / 10)
    assert chat.ready_kw == pytest.approx(0.1 * (10 - 0.61) / 10)
    assert chat.ready_gpus == pytest.approx(2 * (10 - 0.61) / 10)
    assert did.it_kw == pytest.approx(IDLE_KW + whole_kws / 10)
    assert did.chiller_kw == pytest.approx(did.it_kw / 4)
    assert (did.finished_jobs, did.busy_gpus[0]) == ([1, 0], 2.0)
    assert did.work_to[0] == pytest.approx(serving.request_to(100, 51))
    assert (chat.prefill_tokens, chat.output_tokens) == (100, 51)
    (row,) = zip(*facility.request_rows().values(), strict=True)
    assert row[8:11] == (0.0, pytest.approx(0.11), pytest.approx(0.61))
    (use,) = zip(*facility.use_rows().values(), strict=True)
    assert use[:5] == (1, "a", 0.0, pytest.approx(0.61), pytest.approx(2.0))


def test_a_commanded_batch_holds_from_the_next_iteration_on():
    """One at a time; from 1 s on four: the second is admitted with the iteration that ends next (10 ms each)."""
    facility, serving = site()
    facility.limit_batches([1.0, math.nan])
    facility.submit(requests(serving, (1, 0, 10, 500), (2, 0, 10, 5)))
    facility.command([2, 0], 20.0)
    facility.advance(1.0)
    state = facility.state()
    assert (state.running_jobs[0], state.queued_jobs[0]) == (1, 1)
    facility.limit_batches([math.nan, math.nan])
    facility.advance(20.0)
    facility.read_interval()
    rows = facility.request_rows()
    starts = dict(zip(rows["id"], rows["start_s"], strict=True))
    assert starts[1] == 0.0
    assert 1.0 <= starts[2] <= 1.01 + 1e-6
    for wrong in (0.0, 2.5, 5.0, math.inf):
        with pytest.raises(ModelError, match="a whole number from 1 to the class's own, 4"):
            facility.limit_batches([wrong, math.nan])


def test_a_replica_takes_time_to_start_and_waits_draw_no_tokens():
    facility, serving = site(warm_start=False)
    facility.submit(requests(serving, (1, 0, 10, 2)))
    facility.command([2, 0], 20.0)
    facility.advance(29.0)
    assert facility.state().queued_jobs == [1, 0]
    assert facility.read_interval().busy_gpus[0] == pytest.approx(2.0)
    assert facility.ticks["chat"].starting_replicas == 1
    facility.advance(31.0)
    assert facility.read_interval().finished_jobs == [1, 0]


def test_a_grant_that_shrinks_drains():
    """Two replicas, a long answer on each; a grant for one: the other ends what it has, takes nothing new, goes off."""
    facility, serving = site()
    facility.submit(requests(serving, (1, 0, 10, 500), (2, 0, 10, 700)))
    facility.command([4, 0], 20.0)
    facility.advance(1.0)
    facility.read_interval()
    facility.command([2, 0], 20.0)
    facility.submit(requests(serving, (3, 1, 10, 5)))
    facility.advance(2.0)
    did = facility.read_interval()
    assert (did.busy_gpus[0], did.finished_jobs) == (pytest.approx(4.0), [1, 0])
    facility.advance(20.0)
    assert facility.read_interval().finished_jobs == [2, 0]
    assert facility.ticks["chat"].replicas == 1


def test_kept_on_for_a_while():
    facility, _ = site(keep_on_s=300)
    on = []
    for minute in range(8):
        facility.command([4 if minute < 2 else 2, 0], 20.0)
        facility.advance(60.0 * (minute + 1))
        facility.read_interval()
        on.append(facility.ticks["chat"].replicas)
    assert on == [2, 2, 2, 2, 2, 2, 2, 1]  # granted until minute 1, kept for five more


def test_training_takes_what_replicas_leave_and_gives_it_back():
    """10 GPUs: training on 3 blocks of 2, then a grant of 4 replicas is theirs after training gave its blocks back."""
    facility, serving = site()
    fit = batch(0.0, (9, "fit", 4800, 9000))
    facility.submit({**fit, "input_tokens": [0], "output_tokens": [0]})
    facility.command([2, 6], 20.0)
    facility.advance(1.0)
    did = facility.read_interval()
    assert (did.busy_gpus, did.received_jobs) == (pytest.approx([2.0, 6.0]), [0, 1])
    facility.command([8, 2], 20.0)
    facility.advance(2.0)
    assert facility.read_interval().busy_gpus == pytest.approx([8.0, 2.0])
    assert facility.state().busy_gpus == [8, 2]


def test_who_is_not_admitted_in_time_is_dropped_at_the_deadline():
    facility, serving = site(max_batch=1)
    facility.submit(requests(serving, (1, 0, 10, 900), (2, 0, 10, 5), deadline=5.0))
    facility.command([2, 0], 20.0)
    facility.advance(20.0)
    did = facility.read_interval()
    assert (did.finished_jobs, did.dropped_jobs) == ([1, 0], [1, 0])
    rows = {row[0]: row for row in zip(*did.left_jobs.values(), strict=True)}
    assert rows[2][7] == 5.0
    assert facility.state().pending_work_to[0] == pytest.approx(0.0)


def test_too_long_is_rejected_at_once():
    facility, serving = site()
    facility.submit(requests(serving, (1, 0, 999, 2)))
    facility.command([2, 0], 20.0)
    facility.advance(1.0)
    assert facility.read_interval().dropped_jobs == [1, 0]
    assert facility.served[0].rejected == 1


@pytest.mark.parametrize(("changed", "said"), [
    ({"input_tokens": [0]}, "has 0 input and 5 output tokens"), ({"output_tokens": [1.5]}, "whole numbers of 1"),
    ({"work_to": [1.0]}, "its tokens are"), ({"release_s": [5.0]}, "is not deferred")])
def test_requests_that_are_none(changed, said):
    facility, serving = site()
    with pytest.raises(ModelError, match=said):
        facility.submit({**requests(serving, (1, 0, 10, 5)), **changed})
    with pytest.raises(ModelError, match="has no input_tokens"):
        facility.submit({name: column for name, column in requests(serving, (2, 0, 10, 5)).items()
                         if "tokens" not in name})


def test_what_else_cannot_be_is_said_by_name():
    chat = JobClass(kind="llm", deadline_s=60, serving=SERVING)
    params = AidcParams(job_classes={"chat": chat}, sites={"a": Site(node=0)}, job_log=False, routing="arrival")
    assert [text.split(":")[0] for text in unsupported(params)] == ["job_classes.chat.kind = llm", "routing = arrival"]


def test_the_next_day_begins_with_the_requests_inside():
    """One in the batch, one in line at the cut: both are served in the next world, and the power is a replica's."""
    facility, serving = site(max_batch=1)
    facility.submit(requests(serving, (1, 0, 10, 400), (2, 0, 20, 50)))
    facility.command([2, 0], 20.0)
    facility.advance(2.0)
    facility.read_interval()
    (memory,) = unpack(pack([facility.keep()], 2.0), ["chat", "fit"])
    tokens = dict(zip((-2, -1), facility.kept_tokens(), strict=True))
    assert tokens == {-2: (10, 400), -1: (20, 50)}
    later, _ = site(max_batch=1)
    later.restore(memory, tokens)
    later.advance(20.0)
    did = later.read_interval()
    assert (did.finished_jobs, later.state().queued_jobs) == ([2, 0], [0, 0])
    assert later.ticks["chat"].output_tokens == 450
    rows = {row[0]: row for row in zip(*later.request_rows().values(), strict=True)}
    assert rows[-2][8] == pytest.approx(-2.0)  # it had been admitted two seconds before


def test_requests_come_in_as_they_arrive():
    """Handed over at 0, of 10 s and 20 s: each is served when it comes, not before."""
    chat = JobClass(kind="llm", deadline_s=60, serving=SERVING)
    facility = ServingFacility("a", SITE, {"chat": chat}, PLAIN, 20.0, at_arrival=True)
    facility.submit(requests(chat.serving, (1, 10.0, 10, 1), (2, 20.0, 10, 1)))
    facility.command([2], 20.0)
    facility.advance(60.0)
    facility.read_interval()
    starts = facility.request_rows()["start_s"]
    assert starts == pytest.approx([10.0, 20.0], abs=1e-7)
    assert min(s - a for s, a in zip(starts, (10.0, 20.0), strict=True)) >= 0.0


def test_other_jobs_come_in_as_they_arrive_too():
    """Inference that arrives at 10 s starts then, training too; both were known to the site from 0 on."""
    facility = Facility("a", SITE, CLASSES, PLAIN, 20.0, at_arrival=True)
    jobs = batch(0.0, (1, "chat", 5, 110), (2, "fit", 40, 900), (3, "chat", 5, 130))
    jobs["arrival_s"] = [10.0, 12.5, 30.0]
    facility.submit(jobs)
    facility.command([2, 6], 20.0)
    facility.advance(60.0)
    did = facility.read_interval()
    rows = {row[0]: row for row in zip(*did.left_jobs.values(), strict=True)}
    assert [rows[k][6] for k in (1, 2, 3)] == pytest.approx([10.0, 12.5, 30.0], abs=1e-7)
    assert all(row[3] <= row[4] <= row[5] <= row[6] for row in rows.values())
    assert did.received_jobs == [2, 1]
    usual = Facility("a", SITE, CLASSES, PLAIN, 20.0)
    usual.submit(jobs)
    usual.command([2, 6], 20.0)
    usual.advance(60.0)
    assert math.isclose(usual.read_interval().left_jobs["start_s"][0], 0.0)
