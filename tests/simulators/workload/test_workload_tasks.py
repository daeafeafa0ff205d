"""Traces of batch jobs on clusters: three formats, malformed rows, streaming, and what is played from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cosim.errors import ScenarioError
from cosim.simulators.workload import tasks
from cosim.simulators.workload.adapter import Arrivals
from cosim.simulators.workload.cluster import ClusterTrace
from cosim.simulators.workload.layouts import TaskColumns
from cosim.simulators.workload.tasks import TaskFile

OPENB = ("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,"
         "scheduled_time\n")
SWF = "; Version: 2.2\n"
CLASSES = {
    "task": {"kind": "train", "work_to": 1.0, "deadline_s": "48h", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7},
    "chat": {"kind": "inf", "work_to": 600.0, "deadline_s": "1min", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7},
}


def pod(created, scheduled, deleted, gpus, milli):
    return f"p,1,1,{gpus},{milli},,LS,Running,{created},{deleted},{scheduled}\n"


def swf(submit, run, processors, requested=None, status=1, job=1):
    asked = processors if requested is None else requested
    return " ".join(map(str, [job, submit, 5, run, processors, -1, -1, asked, -1, -1, status] + [-1] * 7)) + "\n"


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
    # half a GPU from 110 to 210 s: 50 GPU s; two whole ones from 100 to 160 s: 120; no GPU, or never scheduled: none;
    # never deleted: it ran, but nobody knows for how long
    text = OPENB + pod(100, 110, 210, 1, 500) + pod(100, 100, 160, 2, 1000) + pod(120, 120, 900, 0, 0)
    text += pod(130, "", 900, 1, 1000) + pod(140, 150, "", 1, 1000) + pod(190, 190, 200, 8, 1000)
    file = TaskFile(write(tmp_path, text), "openb", max_left_out_ratio=0.17)
    assert list(file) == [(100.0, 50.0), (100.0, 120.0), (190.0, 80.0)]
    survey = file.survey
    assert (survey.tasks, survey.no_gpu, survey.never_ran, survey.gpu_s) == (3, 1, 1, 250.0)
    assert (survey.left_out.kinds, survey.left_out.first) == (
        {"of unknown GPU time": 1}, (6, "it has no deletion_time"))
    later = TaskFile(file.path, "openb", begin_s=150.0)
    assert list(later) == [(190.0, 80.0)]
    assert (later.survey.before, later.survey.left_out.rows) == (5, 0)
    with pytest.raises(ScenarioError, match=r"1 of 6 rows would be left out \(16.7 %.*max_left_out_ratio=0.167"):
        list(TaskFile(file.path, "openb"))


def test_swf_by_hand(tmp_path):
    text = SWF + swf(0, 100, 4) + "; a comment\n\n" + swf(30, -1, 4, status=5) + swf(40, 10, 0) + swf(20, 7.5, 2)
    file = TaskFile(write(tmp_path, text + swf(50, 0, 2) + swf(60, 0, -1)), "swf")
    assert list(file) == [(0.0, 400.0), (20.0, 15.0)]
    assert (file.survey.no_gpu, file.survey.never_ran, file.survey.left_out.rows) == (1, 3, 0)


def test_parts_of_a_preempted_job_are_not_counted_beside_it(tmp_path):
    """SWF 2.2: status 2, 3 and 4 are parts of the job whose whole has status 0, 1 or 5, before or after them."""
    whole = [swf(0, 100, 4, job=1), swf(10, 50, 2, status=0, job=2), swf(20, 30, 1, status=5, job=3)]
    parts = [swf(10, 20, 2, status=2, job=2), swf(10, 30, 2, status=4, job=2), swf(20, 30, 1, status=3, job=3)]
    for lines in (whole + parts, [whole[0], *parts, *whole[1:]]):
        file = TaskFile(write(tmp_path, SWF + "".join(lines)), "swf")
        assert list(file) == [(0.0, 400.0), (10.0, 100.0), (20.0, 30.0)]
        assert (file.survey.parts, file.survey.left_out.rows) == (3, 0)
    lost = swf(30, 9, 9, status=3, job=4)
    with pytest.raises(ScenarioError, match=r"1 of 4 rows .* 1 parts without their whole; the first is line 5: it is a "
                                            "part of job 4"):
        list(TaskFile(write(tmp_path, SWF + "".join(whole) + lost), "swf"))


def test_processors_that_are_not_known(tmp_path):
    """Those requested are counted where those allocated are unknown, and that is said; neither known: refused."""
    text = SWF + swf(0, 3600, -1, requested=8) + swf(60, 7200, -1, requested=16) + swf(3000, 3600, 8)
    path = write(tmp_path, text)
    file = TaskFile(path, "swf")
    assert sum(gpu_s for _, gpu_s in file) == 48 * 3600.0
    assert file.survey.requested == 2
    simulator = started(path, format="swf")
    assert any("2 tasks of" in note and "requested (field 8)" in note for note in simulator.notes())
    for bad in (swf(1, 60, -1), swf(1, 60, 0, requested=4), swf(1, -1, 4)):
        with pytest.raises(ScenarioError, match="1 of unknown GPU time; the first is line 5"):
            list(TaskFile(write(tmp_path, text + bad), "swf"))


HAND = [(0.0, 28800.0), (60.0, 600.0)]  # 8 GPUs for an hour, one for ten minutes


@pytest.mark.parametrize(("text", "columns"), [
    ('"job","submit_s","run_s","gpus"\n"train, phase 2","0","3600","8"\n"eval","60","600","1"\n', {}),
    ("job;submit_s;run_s;gpus\na;0;3600;8\nb;60;600;1\n", {}),
    ('job;"submit_s";run_s;gpus\n"a;1";0;3600;8\nb;60;600;1\n', {}),
    ("submit_s\trun_s\tgpus\n0\t3600\t8\n60\t600\t1\n", {}),
    ("submit_s, run_s, gpus\r\n0, 3600, 8\r\n60, 600, 1\r\n\r\n", {}),
    ("submit_s,run_s,gpus\n0,3600000,8\n60000,600000,1\n", {"unit": "ms"}),
    ("submit_s,run_s,gpus\n0,3600000,8\n60,600000,1\n", {"run_unit": "ms"}),
    ("submit_s,run_s,gpus\n0,60,8\n60,10,1\n", {"run_unit": "min"}),
    ("submit_s,run_s,gpus\n2023-03-01 00:02:29+08:00,3600,8\n2023-02-28T16:03:29Z,600,1\n", {}),
    ("submit_s,run_s,gpus\n2023-03-01,3600,8\n2023-03-01T00:01:00.000,600,1\n", {}),
    ("submit_s,run_s,gpus\n2023-03-01 00:01:00,600,1\n2023-03-01,3600,8\n", {}),
    ("submit_s,run_s,gpus\n0,3600,8\n60,600,1\n61,9,0\n62,0,4\n63,,0\n", {}),
])
def test_layouts_of_one_and_the_same_trace(tmp_path, text, columns):
    file = TaskFile(write(tmp_path, text), "csv", TaskColumns(**columns))
    first_s = list(file)[0][0]
    assert [(t - first_s, gpu_s) for t, gpu_s in file] == HAND


@pytest.mark.parametrize(("rows", "says"), [
    ("0,3600,8\n60,600,\n120,NA,2\n", r"2 of 3 rows would be left out \(66.7 %.*2 of unknown GPU time; the first is "
     "line 3: gpus is ''"),
    ("0,3600,8\n60,-1,1\n", "line 3: run_s is '-1'"),
    ("0,3600,8\n60,1 h,1\n", "1 malformed; the first is line 3: run_s is '1 h', which is no number"),
    ("0,3600,8\n60,3_600,1\n", "1 malformed"),
    ("0,3600,8\n3/1/2023,600,1\n", "submit_s = '3/1/2023' is neither a number >= 0 nor an ISO date"),
    ("0,3600,8\n2023-03-01,600,1\n", "its time of submission is a date, others are numbers"),
    ("2023-03-01,600,1\n7,3600,8\n", "its time of submission is a number, others are dates"),
    ('0,3600,8\n"60,600,1\n', "line 3: its quotes do not match"),
    ("0,3600,8\n60,600\n", "it has 2 fields, the first line 3"),
    ("1700000000000,3600000,8\n1700000060000,600000,1\n", "look like ms since 1970: --set workload.columns.unit=ms"),
    ("1.7e18,3600,8\n", "unit=ns"),
    ("0,36000000,8\n", "for 417 days on average if run_s is in s, .*--set workload.columns.unit=ms"),
])
def test_rows_that_cannot_be_counted_are_refused(tmp_path, rows, says):
    path = write(tmp_path, "submit_s,run_s,gpus\n" + rows)
    with pytest.raises(ScenarioError, match=says):
        list(TaskFile(path, "csv"))


def test_a_hundredth_of_the_rows_may_be_left_out_and_is_said(tmp_path):
    good, bad = "".join(f"{k},60,1\n" for k in range(99)), "100,60,\n"
    path = write(tmp_path, "submit_s,run_s,gpus\n" + good + bad)
    simulator = started(path, format="csv")
    assert any("1 rows of" in n and "were left out: 1 of unknown GPU time; the first is line 101: gpus is ''" in n
               for n in simulator.notes())
    with pytest.raises(ScenarioError, match="max_left_out_ratio is 0.009"):
        started(path, format="csv", max_left_out_ratio=0.009)
    more = write(tmp_path, "submit_s,run_s,gpus\n" + good + bad + bad)
    with pytest.raises(ScenarioError, match=r"--set workload.max_left_out_ratio=0.02$"):
        started(more, format="csv")
    assert len(play(started(more, format="csv", max_left_out_ratio=0.02), 3)) == 99


def test_a_time_far_from_all_others_is_doubted(tmp_path):
    rows = "".join(f"{k * 3600},60,1\n" for k in range(100))
    for last, said in ((4 * 86400, False), (30 * 86400, True), (1700000000, True)):
        simulator = started(write(tmp_path, f"submit_s,run_s,gpus\n{rows}{last},60,1\n", f"{last}.csv"), format="csv")
        assert any("days from 4d 03:00 on, more than half of the trace" in n for n in simulator.notes()) is said


def test_long_runs_are_doubted(tmp_path):
    path = write(tmp_path, "submit_s,run_s,gpus\n0,3600000,8\n60,600000,1\n")
    assert any("24.3 days on average if run_s is in s, for 35 min if it is a thousandth" in n
               for n in started(path, format="csv").notes())


def test_csv_by_a_column_map(tmp_path):
    text = "end,took,when,cards\n9,10,100,3\n9,20,50,0.5\n"
    path = write(tmp_path, text)
    columns = TaskColumns(submit_s="when", run_s="took", gpus="cards")
    assert list(TaskFile(path, "csv", columns)) == [(50.0, 10.0), (100.0, 30.0)]
    of_one = TaskColumns(submit_s="when", run_s="took", gpus=None)
    assert list(TaskFile(path, "csv", of_one)) == [(50.0, 20.0), (100.0, 10.0)]
    with pytest.raises(ScenarioError, match="no column submit_s, run_s, gpus; its first line is 'end,took,when,cards'; "
                                            "name them by --set workload.columns.submit_s=, .run_s= and .gpus="):
        list(TaskFile(path, "csv"))


@pytest.mark.parametrize(("kind", "head", "good", "bad"), [
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), "p,1,1,1,1000\n"),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod("one", 1, 2, 1, 1000)),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod(1, 5, 2, 1, 1000)),
    ("openb", OPENB, pod(1, 1, 2, 1, 1000), pod(1, 1, "nan", 1, 1000)),
    ("swf", SWF, swf(1, 1, 1), "1 2 3\n"),
    ("swf", SWF, swf(1, 1, 1), swf(-1, 1, 1)),
    ("csv", "submit_s,run_s,gpus\n", "1,1,1\n", "1,-4,1\n"),
    ("csv", "submit_s,run_s,gpus\n", "1,1,1\n", "inf,4,1\n"),
])
def test_a_malformed_row_is_counted_and_located_or_refused(tmp_path, kind, head, good, bad):
    path = write(tmp_path, head + good + bad + good + bad)
    file = TaskFile(path, kind, max_left_out_ratio=0.5)
    assert len(list(file)) == 2
    assert (file.survey.left_out.kinds, file.survey.left_out.first[0]) == ({"malformed": 2}, 3)
    with pytest.raises(ScenarioError, match="2 of 4 rows .*2 malformed; the first is line 3: .*max_left_out_ratio=0.5"):
        list(TaskFile(path, kind))


def test_a_file_without_tasks_or_no_file_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"has no task that used GPUs .*\(0 rows are before it, 0 used no GPU, 1"):
        list(TaskFile(write(tmp_path, SWF + swf(1, 0, 1)), "swf"))
    with pytest.raises(ScenarioError, match="nowhere.csv cannot be read"):
        started(str(tmp_path / "nowhere.csv"))


def test_rows_stream_in_order_within_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "BUFFER_ROWS", 8)
    rng = np.random.default_rng(0)
    submit = np.arange(500.0)
    shuffled = np.concatenate([rng.permutation(part) for part in submit.reshape(-1, 4)])
    path = write(tmp_path, "submit_s,run_s,gpus\n" + "".join(f"{t},1,1\n" for t in shuffled))
    file = TaskFile(path, "csv")
    stream = iter(file)
    assert [next(stream)[0] for _ in range(3)] == [0.0, 1.0, 2.0]
    assert file.survey.tasks == 3  # and not 500: the rest of the file has not been read
    assert [t for t, _ in stream] == submit[3:].tolist()
    late = write(tmp_path, "submit_s,run_s,gpus\n" + "".join(f"{t},1,1\n" for t in [*range(10, 40), 0]), "late.csv")
    with pytest.raises(ScenarioError, match="a task of 0 s comes more than 8 rows late; sort"):
        list(TaskFile(late, "csv"))


def test_tasks_as_jobs_by_hand(tmp_path):
    # GPU seconds at 60 TO a GPU minute are TO; the first task comes at 0 s, the others 90 and 200 s later
    path = write(tmp_path, SWF + swf(1000, 100, 4) + swf(1090, 10, 1) + swf(1200, 10, 2) + swf(1210, 0, 2))
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
    path = write(tmp_path, SWF + swf(-1, 9, 9) + swf(1, 9, 9) + swf(7, 100, 4) + "1 2\n" + swf(10, 0, 1))
    simulator = started(path, format="swf", begin_s=5.0, max_left_out_ratio=0.5)
    play(simulator, 6)
    assert simulator.notes() == [
        f"workload: 2 rows of {path} were left out: 2 malformed; the first is line 2: fields 2, 4, 5, 8 and 11 are "
        "'-1 9 9 9 1', not numbers >= 0 (or -1) and a status",
        f"workload: 1 rows of {path} are before begin_s = 5 and not played",
        f"workload: 0 rows of {path} used no GPU and 1 never ran (no run time): no tasks",
        "workload: the trace ended at 00:01; the remaining 4 min had no tasks from it",
    ]


def test_sampling_is_seeded_and_fair(tmp_path):
    path = write(tmp_path, "submit_s,run_s,gpus\n" + "".join(f"{k},{k + 1},1\n" for k in range(3000)))
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
    both = [TaskFile(p, "csv", columns, max_left_out_ratio=0.25) for p in (text, path)]
    assert list(both[0]) == list(both[1]) == [(3.0, 15.0), (5.0, 20.0)]
    assert [(f.survey.left_out.kinds, f.survey.never_ran) for f in both] == [({"of unknown GPU time": 1}, 1)] * 2
    assert both[1].survey.left_out.first == (2, "cards is ''")
    with pytest.raises(ScenarioError, match="no column gpus"):
        list(TaskFile(path, "csv", TaskColumns(submit_s="when", run_s="took", gpus="gpus")))
    with pytest.raises(ScenarioError, match="is no Parquet file"):
        list(TaskFile(write(tmp_path, "no", "no.parquet"), "csv", columns))
