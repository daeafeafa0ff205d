"""The line of an inference class beside a plain list that does the same, and what it keeps of those who left."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.simulators.aidc.engine.inference import InferenceQueue
from cosim.simulators.aidc.engine.jobs import Job
from cosim.simulators.fleet import JobClass

CHAT = JobClass(kind="inf", work_to=1.0, deadline_s=100.0, to_per_gpu_min=60.0, kw_per_to_s=1.0)
STEP = st.one_of(
    st.tuples(st.just("put"), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=6)),
    st.tuples(st.just("start"), st.integers(0, 4)),
    st.tuples(st.just("relay"), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 9)),
)


def job_of(number: int, now_s: float, work_to: float, deadline_s: float) -> Job:
    return Job(number, "chat", now_s, work_to, deadline_s, now_s, now_s)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_a_line_is_first_in_first_out_whatever_the_order_of_deadlines(steps):
    """Those who wait are those of a plain list from which late jobs are struck out; who starts is its head."""
    queue, line, now_s, number, dropped = InferenceQueue("chat", "site", CHAT), [], 0.0, 0, 0
    for what, given_ in steps:
        if what == "put":
            jobs = [job_of(number + k, now_s, float(work), now_s + due) for k, (due, work) in enumerate(given_)]
            number += len(jobs)
            queue.put(jobs, now_s)
            assert queue.start(now_s, 0) == []  # as a site does at every instant at which jobs come
            line += jobs
        elif what == "wait":
            now_s += given_
            queue.expire(now_s)
            dropped += sum(job.deadline_s <= now_s for job in line)
            line = [job for job in line if job.deadline_s > now_s]
        elif what == "relay":
            one = next((c for c in queue._running if len(c.jobs) == 1), None)
            following = queue.relay(one, now_s) if one is not None else None
            if following is not None:
                assert following.jobs == [line.pop(0)]
                assert (following.start_s, following.end_s) == (now_s, now_s + following.work_to)
                assert following in queue._running
                assert one not in queue._running
        else:
            queue.granted_gpus = queue.busy_gpus + given_
            started = [job for cohort in queue.start(now_s, math.inf) for job in cohort.jobs]
            assert sorted(started) == line[:given_]
            del line[:given_]
        assert queue._who_waits() == line
        assert queue.queued_jobs == len(line)
        assert queue._waiting_to == math.fsum(job.work_to for job in line)
    assert queue.dropped == dropped


def test_a_line_forgets_who_left():
    """A thousand minutes of 100 jobs that wait for ten minutes each: the line holds a few of them, not all."""
    queue = InferenceQueue("chat", "site", CHAT)
    longest = 0
    for k in range(1000):
        queue.put([job_of(100 * k + j, 60.0 * k, 1.0, 60.0 * k + 3600.0) for j in range(100)], 60.0 * k)
        queue.granted_gpus = queue.busy_gpus + (100 if k >= 10 else 0)
        for cohort in queue.start(60.0 * k, math.inf):
            queue.finish(cohort)
        longest = max(longest, len(queue._line))
    assert queue.queued_jobs == 1000
    assert longest <= 2 * 1000 + 100
