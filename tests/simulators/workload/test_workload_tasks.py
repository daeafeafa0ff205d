"""Traces of batch jobs on clusters: three formats, malformed rows, streaming, and what is played from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cosim.errors import ScenarioError
from simulators.workload import tasks
from simulators.workload.adapter import Arrivals
from simulators.workload.cluster import ClusterTrace
from simulators.workload.tasks import TaskColumns, TaskFile

OPENB = ("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,"
         "scheduled_time\n")
SWF = "; Version: 2.2\n"
CLASSES = {
    "task": {"kind": "train", "work_to": 1.0, "deadline_s": "48h", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7},
    "chat": {"kind": "inf", "work_to": 600.0, "deadline_s": "1min", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7},
}


def pod(created, scheduled, deleted, gpus, milli):
    return f"p,1,1,{gpus},{milli},,LS,Running,{created},{deleted},{scheduled}\n"


def swf(submit, run, processors):
    return " ".join(map(str, [1, submit, 5, run, processors, -1, -1, processors, -1, -1, 1] + [-1] * 7)) + "\n"


def write(tmp_path, text, name="trace.txt"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def started(path, kind=ClusterTrace, seed=0, **params):
    simulator = kind()
    simulator.init("workload", 60.0, step_s=60.0, seed=seed, job_classes=CLASSES, path=path, trace_class="task",
                   **params)
    simulator.create(1, "Arrivals", ["all"])
    simulator.setup_done()
    return simulator


def play(simulator, minutes):
    """(arrival, work, deadline) of every task, and the minute it was handed over in."""
    out = []
    for k in range(minutes):
        simulator.step(k, {}, k + 1)
        jobs = simulator.get_data({"all": ["jobs", "arrived_jobs"]})["all"]["jobs"]
        if jobs:
            out += [(k, *row) for row in zip(jobs["arrival_s"], jobs["work_to"], jobs["deadline_s"], strict=True)]
    return out


def test_openb_by_hand(tmp_path):
    # half a GPU from 110 to 210 s: 50 GPU s; two whole ones from 100 to 160 s: 120; no GPU, never scheduled, never
    # deleted: none of them a task
    text = OPENB + pod(100, 110, 210, 1, 500) + pod(100, 100, 160, 2, 1000) + pod(120, 120, 900, 0, 0)
    text += pod(130, "", 900, 1, 1000) + pod(140, 150, "", 1, 1000) + pod(190, 190, 200, 8, 1000)
    file = TaskFile(write(tmp_path, text), "openb")
    assert list(file) == [(100.0, 50.0), (100.0, 120.0), (190.0, 80.0)]
    assert (file.survey.tasks, file.survey.idle, file.survey.malformed, file.survey.gpu_s) == (3, 3, 0, 250.0)
    assert list(TaskFile(file.path, "openb", begin_s=150.0)) == [(190.0, 80.0)]


def test_swf_by_hand(tmp_path):
    text = SWF + swf(0, 100, 4) + "; a comment\n\n" + swf(30, -1, 4) + swf(40, 10, 0) + swf(20, 7.5, 2)
    file = TaskFile(write(tmp_path, text), "swf")
    assert list(file) == [(0.0, 400.0), (20.0, 15.0)]
    assert (file.survey.idle, file.survey.malformed) == (2, 0)


def test_csv_by_a_column_map(tmp_path):
    text = "end,took,when,cards\n9,10,100,3\n9,20,50,0.5\n"
    path = write(tmp_path, text)
    columns = TaskColumns(submit_s="when", run_s="took", gpus="cards")
    assert list(TaskFile(path, "csv", columns)) == [(50.0, 10.0), (100.0, 30.0)]
    assert list(TaskFile(path, "csv", TaskColumns(submit_s="when", run_s="took"))) == [(50.0, 20.0), (100.0, 10.0)]
    with pytest.raises(ScenarioError, match="no column submit_s, run_s; its first line is 'end,took,when,cards'"):
        list(TaskFile(path, "csv"))


@pytest.mark.parametrize(("kind", "head", "good", "bad"), [
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), "p,1,1,1,1000\n"),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod("one", 1, 2, 1, 1000)),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod(1, 5, 2, 1, 1000)),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod(1, 1, "nan", 1, 1000)),
    ("swf", SWF, swf(1, 1, 1), "1 2 3\n"),
    ("swf", SWF, swf(1, 1, 1), swf(-1, 1, 1)),
    ("csv", "submit_s,run_s\n", "1,1\n", "1,-4\n"),
    ("csv", "submit_s,run_s\n", "1,1\n", "inf,4\n"),
])
def test_a_malformed_row_is_counted_and_located_or_refused(tmp_path, kind, head, good, bad):
    path = write(tmp_path, head + good + bad + good + bad)
    file = TaskFile(path, kind)
    assert len(list(file)) == 2
    assert (file.survey.malformed, file.survey.first_malformed_line) == (2, 3)
    with pytest.raises(ScenarioError, match="line 3: expected numbers >= 0"):
        list(TaskFile(path, kind, strict=True))


def test_a_file_without_tasks_or_no_file_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"has no task that used GPUs .*\(1 used none, 0 rows were malformed\)"):
        list(TaskFile(write(tmp_path, SWF + swf(1, -1, 1)), "swf"))
    with pytest.raises(ScenarioError, match="nowhere.csv cannot be read"):
        started(str(tmp_path / "nowhere.csv"))


def test_rows_stream_in_order_within_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "BUFFER_ROWS", 8)
    rng = np.random.default_rng(0)
    submit = np.arange(500.0)
    shuffled = np.concatenate([rng.permutation(part) for part in submit.reshape(-1, 4)])
    path = write(tmp_path, "submit_s,run_s\n" + "".join(f"{t},1\n" for t in shuffled))
    file = TaskFile(path, "csv")
    stream = iter(file)
    assert [next(stream)[0] for _ in range(3)] == [0.0, 1.0, 2.0]
    assert file.survey.tasks == 3  # and not 500: the rest of the file has not been read
    assert [t for t, _ in stream] == submit[3:].tolist()
    late = write(tmp_path, "submit_s,run_s\n" + "".join(f"{t},1\n" for t in [*range(10, 40), 0]), "late.csv")
    with pytest.raises(ScenarioError, match="a task of 0 s comes more than 8 rows late; sort"):
        list(TaskFile(late, "csv"))


def test_tasks_as_jobs_by_hand(tmp_path):
    # GPU seconds at 60 TO a GPU minute are TO; the first task comes at 0 s, the others 90 and 200 s later
    path = write(tmp_path, SWF + swf(1000, 100, 4) + swf(1090, 10, 1) + swf(1200, 10, 2) + swf(1210, -1, 2))
    day = 172800.0
    assert play(started(path, format="swf"), 6) == [
        (1, 0.0, 400.0, day), (2, 90.0, 10.0, day + 90.0), (4, 200.0, 20.0, day + 200.0)]
    assert [(k, t, w) for k, t, w, _ in play(started(path, format="swf", time_scale=2.0, trace_work_scale=0.5), 9)] == [
        (1, 0.0, 200.0), (4, 180.0, 5.0), (7, 400.0, 10.0)]
    # 200 s are four whole minutes with their last task: the second pass begins at 240 s
    again = play(started(path, format="swf", repeat=True), 600)  # past two blocks
    assert [t for _, t, _, _ in again] == [240.0 * n + t for n in range(150) for t in (0.0, 90.0, 200.0)][:len(again)]
    assert len(again) == 449  # of 150 passes in 599 minutes, only the last task of the last is still to come
    params = ClusterTrace.PARAMS(job_classes=CLASSES, path=path, trace_class="task", format="swf")
    assert ClusterTrace.natural_horizon_s(params) == 300.0
    assert ClusterTrace.offered_jobs_per_min(params) == {"task": (3 / 4, pytest.approx(430 / 3))}


def test_notes_tell_what_is_missing(tmp_path):
    path = write(tmp_path, SWF + swf(0, 100, 4) + "1 2\n" + swf(10, -1, 1))
    simulator = started(path, format="swf")
    play(simulator, 6)
    assert simulator.notes() == [
        f"workload: 1 malformed rows of {path} were left out, the first is line 3",
        f"workload: 1 rows of {path} used no GPU and are no tasks",
        "workload: the trace ended at 00:01; the remaining 4 min had no tasks from it",
    ]


def test_sampling_is_seeded_and_fair(tmp_path):
    path = write(tmp_path, "submit_s,run_s\n" + "".join(f"{k},{k + 1}\n" for k in range(3000)))
    one, same, other = (play(started(path, format="csv", seed=s, trace_rate_scale=0.1), 60) for s in (1, 1, 2))
    assert one == same != other
    assert abs(len(one) - 300) < 5 * (3000 * 0.1 * 0.9) ** 0.5  # binomial, five standard deviations
    assert len(play(started(path, format="csv", trace_rate_scale=2.0), 60)) == 6000


def test_class_of_the_trace_must_fit(tmp_path):
    path = write(tmp_path, SWF + swf(0, 1, 1))
    with pytest.raises(ScenarioError, match="'chat' is an inference class"):
        _of_class(path, "chat")
    with pytest.raises(ScenarioError, match="job class 'chap'"):
        _of_class(path, "chap")
    with pytest.raises(ScenarioError, match="has a rate for 'task'"):
        started(path, format="swf", arrivals={"task": {"mean_per_min": 1.0, "period_min": 60}})


def _of_class(path, name):
    simulator = ClusterTrace()
    simulator.init("workload", 60.0, step_s=60.0, job_classes=CLASSES, path=path, trace_class=name, format="swf")
    simulator.create(1, "Arrivals", ["all"])
    simulator.setup_done()


def test_rates_that_cannot_be_held_are_refused():
    simulator = Arrivals()
    simulator.init("workload", 60.0, step_s=60.0, job_classes=CLASSES, rate_scale=1e9,
                   arrivals={"chat": {"mean_per_min": 20.0, "period_min": 60}})
    simulator.create(1, "Arrivals", ["all"])
    with pytest.raises(ScenarioError, match=r"2e\+10 jobs of chat a minute on average, more than the 100000"):
        simulator.setup_done()


def test_batches_are_plain(tmp_path):
    simulator = started(write(tmp_path, SWF + swf(0, 1, 1)), format="swf")
    simulator.step(0, {}, 9)
    simulator.step(1, {}, 9)
    out = simulator.get_data({"all": ["jobs", "arrived_jobs"]})
    assert json.loads(json.dumps(out)) == out


def test_parquet_is_the_same_as_csv(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = TaskColumns(submit_s="when", run_s="took", gpus="cards")
    text = write(tmp_path, "when,took,cards\n5,10,2\n1,20,\n3,30,0.5\n9,0,1\n", "t.csv")
    table = arrow.table({"cards": [2.0, None, 0.5, 1.0], "when": [5, 1, 3, 9], "took": [10.0, 20.0, 30.0, 0.0]})
    path = str(tmp_path / "t.parquet")
    parquet.write_table(table, path)
    both = [TaskFile(p, "csv", columns) for p in (text, path)]
    assert list(both[0]) == list(both[1]) == [(3.0, 15.0), (5.0, 20.0)]
    assert [(f.survey.malformed, f.survey.idle) for f in both] == [(1, 1)] * 2
    assert both[1].survey.first_malformed_line == 2
    with pytest.raises(ScenarioError, match="no column gpus"):
        list(TaskFile(path, "csv", TaskColumns(submit_s="when", run_s="took", gpus="gpus")))
    with pytest.raises(ScenarioError, match="is no Parquet file"):
        list(TaskFile(write(tmp_path, "no", "no.parquet"), "csv", columns))
