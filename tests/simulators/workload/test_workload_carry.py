"""A workload that goes on in the next world is where it was: traces, recordings, the day and the week."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cosim.experiment import Experiment
from cosim.run import find
from cosim.simulators.workload.adapter import Arrivals
from cosim.simulators.workload.azure_llm import AzureLlm
from cosim.simulators.workload.cluster import ClusterTrace
from cosim.simulators.workload.recorded import RecordedJobs

CLASSES = {"task": {"kind": "train", "work_to": 1e3, "deadline_s": 600.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1e-3},
           "chat": {"kind": "inf", "work_to": 1.0, "deadline_s": 30.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1e-3}}
MINUTES = 30


def openb(tmp_path) -> str:
    rows = [f"{100 + 37 * k},{100 + 37 * k},{150 + 40 * k},1,{1000 - k}" for k in range(25)]  # 100 s to 988 s
    path = tmp_path / "tasks.csv"
    path.write_text("\n".join(["creation_time,scheduled_time,deletion_time,num_gpu,gpu_milli", *rows]) + "\n")
    return str(path)


def azure(tmp_path) -> str:
    rows = [f"2023-11-16 18:{15 + k * 41 // 60:02d}:{k * 41 % 60:02d}.25,{100 + k},{7 + k}" for k in range(23)]
    path = tmp_path / "requests.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return str(path)


def played(simulator, params: dict, cuts: list[int]) -> list[tuple[float, str, float, float]]:
    """(arrival, class, work, deadline) of all jobs on the first world's clock, with a new world from each cut on."""
    jobs, carry = [], None
    for episode, (begin, end) in enumerate(pairwise([0, *cuts, MINUTES])):
        member = simulator()
        member.init("workload", 1.0, step_s=60.0, episode=episode, **({"job_classes": CLASSES} | params))
        member.create(1, "Arrivals", names=["workload"])
        member.setup_done()
        if carry is not None:
            member.resume(carry)
        for k in range(end - begin):
            batch = member.advance(60.0 * k, {})["workload"]["jobs"]
            ids = batch.get("id", [])
            assert sorted(set(ids)) == ids
            columns = (batch.get(c, []) for c in ("arrival_s", "job_class", "work_to", "deadline_s"))
            jobs += [(t + 60.0 * begin, m, w, d + 60.0 * begin) for t, m, w, d in zip(*columns, strict=True)]
            assert all(60.0 * (k - 1) <= t < 60.0 * k for t in batch.get("arrival_s", []))
        carry = member.carry()
    return jobs


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("cuts", [[7], [1, 16], [20, 21]])
@pytest.mark.parametrize("kind", ["openb", "azure"])
def test_a_trace_goes_on(tmp_path, kind, cuts, repeat):
    simulator, params = {
        "openb": (ClusterTrace, {"path": openb(tmp_path), "trace_class": "task"}),
        "azure": (AzureLlm, {"path": azure(tmp_path), "trace_class": "chat"})}[kind]
    whole, cut = (played(simulator, params | {"repeat": repeat}, at) for at in ([], cuts))
    assert len(whole) == len(cut) > (25 if repeat else 20)
    for one, other in zip(whole, cut, strict=True):
        assert one[1:3] == other[1:3]
        assert (one[0], one[3]) == pytest.approx((other[0], other[3]), abs=1e-9)


@pytest.mark.long
def test_a_recording_goes_on(tmp_path):
    path = tmp_path / "t.h5"
    Experiment(find("two_bus"), "native", 1800.0, path).run()
    params = {"path": str(path), "overflow": "hold",
              "job_classes": {"train": CLASSES["task"], "query": CLASSES["chat"]}}
    whole, cut = (played(RecordedJobs, params, at) for at in ([], [9, 10]))
    assert len(whole) == len(cut) == 11 * (MINUTES - 1)
    assert whole == cut


def test_the_week_goes_on():
    # Nothing arrives but on the second day: worlds of a day each
    params = {"job_classes": CLASSES, "arrivals": {"chat": {"mean_per_min": 0.5}},
              "week_factors": [0, 1, 0, 0, 0, 0, 0]}
    arrived, carry = [], None
    for episode in range(3):
        member = Arrivals()
        member.init("workload", 1.0, step_s=3600.0, episode=episode, **params)
        member.create(1, "Arrivals", names=["workload"])
        member.setup_done()
        if carry is not None:
            member.resume(carry)
        arrived.append([sum(member.advance(3600.0 * k, {})["workload"]["arrived_jobs"]) for k in range(24)])
        carry = member.carry()
    assert sum(arrived[0]) == sum(arrived[2][1:]) == 0
    assert arrived[1][0] == 0 < arrived[2][0]  # the last hour of a day is heard of in the first of the next
    assert min(arrived[1][1:]) > 0


@pytest.mark.parametrize("simulator", [Arrivals, RecordedJobs])
def test_arrivals_end_and_those_before_stay_the_same(tmp_path, simulator):
    """The jobs of the first 10 min and 30 s, and none after."""
    params = {"job_classes": CLASSES, "arrivals": {"chat": {"mean_per_min": 5.0}}}
    if simulator is RecordedJobs:
        path = tmp_path / "t.h5"
        Experiment(find("two_bus"), "native", 1800.0, path).run()
        params = {"path": str(path), "overflow": "hold",
                  "job_classes": {"train": CLASSES["task"], "query": CLASSES["chat"]}}
    whole, ended, resumed = (played(simulator, params | more, at) for more, at in (
        ({}, []), ({"arrivals_end_s": 630.0}, []), ({"arrivals_end_s": 630.0}, [9, 10])))
    assert 0 < len(ended) < len(whole)
    assert ended == [job for job in whole if job[0] < 630.0]
    assert 540.0 < resumed[-1][0] < 630.0
