"""Jobs of one's own: layouts are known by their columns, rules are counted and said, ids last to the receipts."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from cosim.errors import ScenarioError
from cosim.run import find
from cosim.run import main as run_main
from cosim.scenario import override
from cosim.simulators.analysis.receipts import main as receipts
from cosim.simulators.workload.job_classes import ClassRules, jobs_of
from cosim.simulators.workload.job_reading import read_job_log
from cosim.simulators.workload.job_table import JobTable, JobTableParams
from cosim.simulators.workload.traces import TokenWork
from cosim.tables.dates import instant
from cosim.trace import Trace
from cosim.trace.command import main as trace_main
from cosim.trace.compare import first_difference

FIVE = """id,job_class,arrival,gpu_seconds,gpus,deadline
a-17,training,2024-05-12T00:05:00+02:00,2400,8,2024-05-12T06:00:00+02:00
a-18,training,2024-05-12T02:01:00+02:00,600,1,2024-05-12T03:00:00+02:00
b-1,inference,2024-05-12T02:02:30+02:00,30,1,2024-05-12T02:10:00+02:00
b-2,inference,2024-05-12T02:03:30+02:00,45,1,
c-9,training,2024-05-12T02:04:00+02:00,1200,4,2024-05-12T04:00:00+02:00
"""
SACCT = """JobID|JobName|Partition|State|Submit|Start|End|ElapsedRaw|AllocTRES
1001|train|a100|COMPLETED|2023-03-01T08:02:29|2023-03-01T08:02:30|2023-03-01T09:02:30|3600|cpu=64,gres/gpu:a100=8,gres/gpu=8
1001.batch|batch||COMPLETED|2023-03-01T08:02:30|2023-03-01T08:02:30|2023-03-01T09:02:30|3600|cpu=64
1002|eval|a100|CANCELLED by 7|2023-03-01T08:03:29|Unknown|Unknown|0|billing=8,gres/gpu=1
1003_4|serve|h100|TIMEOUT|2023-03-01T08:05:29|2023-03-01T08:06:00|2023-03-01T08:16:00|600|cpu=8,gres/gpu:h100=2
1004|cpu|cpu|COMPLETED|2023-03-01T08:05:29|2023-03-01T08:06:00|2023-03-01T08:16:00|600|billing=8,cpu=8
"""
HELIOS = """job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue
2,ub,vcb,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:27,2020-06-09 18:45:36,249,0
3,uc,vcc,0,16,1,COMPLETED,2020-06-09 18:42:27,2020-06-09 18:42:27,2020-06-09 18:45:36,189,0
"""
ACME = """job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
5,ue,1,8,128,Other,COMPLETED,2023-03-01 00:02:29+08:00,2023-03-01 00:02:30+08:00,2023-03-01 01:02:30+08:00,3600,1,28800
6,uf,1,8,8,Other,CANCELLED,2023-03-01 00:03:29+08:00,,,0,0,0
"""
PAI = """job_name,task_name,inst_num,status,start_time,end_time,plan_cpu,plan_mem,plan_gpu,gpu_type
4b,tensorflow,3.0,Terminated,1295796.0,1295816.0,600.0,59.2,50.0,MISC
"""
OPENB = """name,cpu_milli,num_gpu,gpu_milli,qos,pod_phase,creation_time,deletion_time,scheduled_time
p-0,1,2,1000,LS,Running,100,700,200
p-1,1,1,460,BE,Failed,300,1300,300
p-2,1,1,460,BE,Pending,400,1300,
"""
OF_2025 = """instance_sn,role,app_name,gpu_request,creation_time,scheduled_time,deletion_time
i-1,HN,app_0,1,,,900
i-2,CN,app_1,0,100,100,200
i-3,HN,app_1,2,1000,1010,
i-4,HN,app_1,2,1000,1010,2010
"""
OF_2026 = """job_name,organization,gpu_model,cpu_request,gpu_request,worker_num,submit_time,duration,job_type
437260,57,A100,15,1,16,9589663,41060,Spot
"""
SWF = """; UnixStartTime: 1677600000
1 60 5 3600 8 -1 -1 8 -1 -1 1 1 1 1 3 1 -1 -1
1 60 5 1800 8 -1 -1 8 -1 -1 2 1 1 1 3 1 -1 -1
2 120 5 600 -1 -1 -1 4 -1 -1 0 1 1 1 3 1 -1 -1
"""
PHILLY = json.dumps([
    {"status": "Pass", "vc": "v", "jobid": "app_1", "submitted_time": "2017-10-07 01:11:39", "user": "u", "attempts": [
        {"start_time": "2017-10-07 01:12:00", "end_time": "2017-10-07 01:13:00", "detail": [{"gpus": ["g0", "g1"]}]},
        {"start_time": "2017-10-07 02:00:00", "end_time": "2017-10-07 02:10:00", "detail": [{"gpus": ["g0"]}]}]},
    {"status": "Killed", "vc": "v", "jobid": "app_2", "submitted_time": "2017-10-07 01:11:39", "user": "u",
     "attempts": []}])
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
140,ChatGPT,300,0,300,Conversation log
"""
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-12 00:00:00.009930+00:00,2399,6\n"
MOONCAKE = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'

LAYOUTS = {  # text, its name, (id, class, instant or count, GPUs, GPU s or tokens) of its jobs, what is said
    "sacct": (SACCT, "Slurm", [("1001", "a100", "2023-03-01T08:02:29", 8, 28800),
                               ("1003_4", "h100", "2023-03-01T08:05:29", 2, 1200)],
              "rows: 5, jobs: 2, no jobs: 1 steps of jobs, 1 without GPUs, 1 that never ran"),
    "helios": (HELIOS, "Helios", [("2", "", "2020-06-09T18:41:27", 4, 996)], "rows: 2, jobs: 1, no jobs: 1 with"),
    "acme": (ACME, "Acme", [("5", "Other", "2023-02-28T16:02:29", 8, 28800)], "gpu_seconds = gpu_time (GPU s)"),
    "pai": (PAI, "Alibaba PAI", [("4b", "", 1295796, 1.5, 30)], "gpus = plan_gpu (% of one), instances = inst_num"),
    "openb": (OPENB, "Alibaba openb", [("p-0", "LS", 100, 2, 1000), ("p-1", "BE", 300, 0.46, 460)],
              "rows: 3, jobs: 2, no jobs: 1 that never ran (no start)"),
    "2025": (OF_2025, "Alibaba GPU trace of 2025", [("i-1", "", 0, 1, 900), ("i-3", "", 1000, 2, 2000),
                                                    ("i-4", "", 1000, 2, 2000)], "no jobs: 1 without GPUs"),
    "2026": (OF_2026, "Alibaba GPU trace of 2026", [("437260", "Spot", 9589663, 16, 656960)], "instances = worker_num"),
    "swf": (SWF, "Standard Workload", [("1", "3", "2023-02-28T16:01:00", 8, 28800),
                                       ("2", "3", "2023-02-28T16:02:00", 4, 2400)], "1 parts of jobs"),
    "philly": (PHILLY, "Philly", [("app_1", "", "2017-10-07T01:11:39", 1, 720)], "1 that never ran"),
    "burst": (BURST, "BurstGPT", [("row 2", "Conversation log", 5, None, (472, 18))], "1 that failed (no answer)"),
    "azure": (AZURE, "Azure LLM", [("row 2", "", "2024-05-12T00:00:00.009930", None, (2399, 6))], "rows: 1, jobs: 1"),
    "mooncake": (MOONCAKE, "Mooncake", [("row 1", "", 27.482, None, (6955, 52))], "arrival = timestamp (ms)"),
}


def written(folder, text, name="jobs.csv"):
    path = folder / name
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text)
    return str(path)


def rows(log):
    """(id, class, arrival, GPUs, GPU s or tokens) of a log's jobs."""
    return [(n, c, a, None if np.isnan(g) else g, tuple(t) if np.isfinite(t).all() else s) for n, c, a, g, s, t in zip(
        log.name, log.job_class, log.arrival_s.tolist(), log.gpus.tolist(), log.gpu_s.tolist(), log.tokens.tolist(),
        strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_known_by_their_columns(tmp_path, layout):
    """Figures by hand: GPU time is run time x GPUs, of Philly that of all attempts, of the requests their tokens."""
    text, name, jobs, said = LAYOUTS[layout]
    log = read_job_log(written(tmp_path, text), max_left_out_ratio=0.5)
    assert f"is read as {name}" in log.said
    assert said in log.said
    wanted = [(i, c, instant(a) if isinstance(a, str) else a, g, w) for i, c, a, g, w in jobs]
    assert rows(log) == [pytest.approx(row) if not isinstance(row[4], tuple) else row for row in wanted]


def siblings(text):
    """The same table as others would write it."""
    lines = [line.split(",") for line in text.strip().split("\n")]
    turned = [line[::-1] for line in lines]
    yield "reversed", "\n".join(map(",".join, turned))
    yield "tabs", "\n".join(map("\t".join, lines)) + "\n\n"
    yield "bars", "\n".join("|".join([*line, ""]) for line in lines)  # as sacct -p
    yield "upper", "\n".join(map(";".join, [[name.upper() for name in lines[0]], *lines[1:]]))
    yield "mark", b"\xef\xbb\xbf" + text.encode()
    yield "utf16", text.encode("utf-16")
    yield "gz", gzip.compress(text.encode())
    yield "quoted", "\r\n".join(",".join(f'"{cell}"' for cell in line) for line in lines)
    yield "extra", "\n".join(",".join([f"more{k}" if k else "note", *line]) for k, line in enumerate(lines))


@pytest.mark.parametrize("layout", ["helios", "acme", "openb", "2026"])
def test_a_sibling_of_a_layout_gives_the_same_jobs(tmp_path, layout):
    text = LAYOUTS[layout][0]
    first = read_job_log(written(tmp_path, text))
    for name, other in siblings(text):
        log = read_job_log(written(tmp_path, other, f"{name}.csv{'.gz' if name == 'gz' else ''}"))
        assert rows(log) == rows(first), name


@pytest.mark.parametrize(("head", "cells", "arrival", "said"), [
    ("arrival", ("2024-05-12T01:00:00+02:00", "2024-05-12T01:01:00+02:00"), "2024-05-11T23:00:00", "with offsets"),
    ("submit_time", ("2024/05/12 01:00:00", "2024/05/12 01:01:00"), "2024-05-12T01:00:00", "UTC where they state"),
    ("arrival", ("1715475600", "1715475660"), "2024-05-12T01:00:00", "s since 1970"),
    ("arrival_ms", ("1715475600000", "1715475660000"), "2024-05-12T01:00:00", "ms since 1970"),
    ("arrival_min", ("60", "61"), 3600.0, "min"),
    ("Arrival (h)", ("1", "1.5"), 3600.0, "(h)"),
])
def test_times_in_the_forms_that_people_have(tmp_path, head, cells, arrival, said):
    text = f"id,{head},gpu_hours,gpus\na,{cells[0]},2,4\nb,{cells[1]},1,1\n"
    log = read_job_log(written(tmp_path, text))
    assert log.arrival_s[0] == (instant(arrival) if isinstance(arrival, str) else arrival)
    assert log.dated == isinstance(arrival, str)
    assert said in log.said
    assert log.gpu_s.tolist() == [7200.0, 3600.0]


def test_a_zone_for_all_and_zones_of_their_own(tmp_path):
    """02:30 does not exist in Berlin on 31 March 2024; 03:30 there is 01:30 in UTC."""
    text = "id,arrival,run,gpus\na,2024-03-31 01:30:00,60,1\nb,2024-03-31 02:30:00,60,1\nc,2024-03-31 03:30:00,60,1\n"
    log = read_job_log(written(tmp_path, text), time_zone="Europe/Berlin", max_left_out_ratio=0.5)
    assert log.arrival_s.tolist() == [instant("2024-03-31T00:30"), instant("2024-03-31T01:30")]
    assert "the first is line 3: time '2024-03-31 02:30:00' does not exist in Europe/Berlin" in log.said
    own = "id,arrival,time_zone,run,gpus\na,2024-01-01 09:00:00,Asia/Shanghai,60,1\nb,2024-01-01 01:00:00,,60,1\n"
    assert set(read_job_log(written(tmp_path, own)).arrival_s.tolist()) == {instant("2024-01-01T01:00")}


@pytest.mark.parametrize(("kind", "cells", "due"), [
    ("auto", ("3600", "4000"), (3600.0, 4000.0)), ("auto", ("3600", "30"), (3700.0, 230.0)),
    ("after", ("3600", "4000"), (3700.0, 4200.0))])
def test_deadlines_are_instants_or_times_after_the_arrival(tmp_path, kind, cells, due):
    """Jobs come at 100 and 200 s; a deadline of 30 is before the second: then all are times after it."""
    text = f"arrival,work_to,deadline\n100,1,{cells[0]}\n200,1,{cells[1]}\n"
    log = read_job_log(written(tmp_path, text), deadlines=kind)
    assert log.deadline_s.tolist() == list(due)
    assert ("as an instant" in log.said) == (due == (3600.0, 4000.0))


def test_states_and_what_each_rule_leaves_out(tmp_path):
    text = "id,submit,run,gpus,state\na,0,60,1,COMPLETED\nb,0,60,1,FAILED\nc,0,60,1,RUNNING\nd,0,0,1,CANCELLED\n"
    log = read_job_log(written(tmp_path, text))
    assert log.name == ["a", "b", "c"]
    assert log.doubts == ["1 failed, 1 running, pending or unknown jobs count with the GPU time they had; --set "
                          "workload.completed_only=true leaves them out"]
    assert read_job_log(written(tmp_path, text), completed_only=True).name == ["a"]


@pytest.mark.parametrize(("text", "says"), [
    ("foo,bar\n1,2\n", "has the columns foo, bar (none of them is known), and none for when a job arrives"),
    ("timestamp,MOER\n2026-01-01,2\n", r"(timestamp as arrival), and none for its work (work_to, gpu_seconds, tokens"),
    ("1,2,3\n4,5,6\n", "its first line, '1,2,3', has numbers; it must name the columns"),
    ("", "is empty"),
    ("id,arrival,gpu_seconds\na,2024-01-01,1\nb,yesterday,1\n", "1 of 2 rows would be left out .* line 3: time 'yes"),
    ("id,arrival,gpu_seconds,gpus\na,0,9,x\n", "no row of it is a job"),
    ("id,arrival,gpu_seconds,gpus\na,0,9,0\n", "rows: 1, jobs: 0, no jobs: 1 without GPUs: no row of it is"),
    ("arrival,work_to,deadline\n2024-01-01,1,90\n2024-01-01,1,2024-01-02\n", "duration '2024-01-02' is no number"),
])
def test_what_is_no_table_of_jobs_is_refused_in_a_line(tmp_path, text, says):
    with pytest.raises(ScenarioError) as err:
        read_job_log(written(tmp_path, text))
    said = str(err.value)
    assert all(part in said for part in says.split(" .* ")), said


def test_columns_that_are_not_known_can_be_named(tmp_path):
    path = written(tmp_path, "who,when,how_long,cards\nx,5,60,2\n")
    log = read_job_log(path, {"id": "who", "arrival": "when", "run": "how_long", "gpus": "Cards"})
    assert rows(log) == [("x", "", 5.0, 2.0, 120.0)]
    with pytest.raises(ScenarioError, match="columns.run: .*unknown column 'howlong'; did you mean 'how_long'"):
        read_job_log(path, {"arrival": "when", "run": "howlong"})


def test_a_header_beside_its_table_counts(tmp_path):
    """As the tables of PAI are published."""
    head, _, rest = PAI.partition("\n")
    (tmp_path / "pai_task_table.header").write_text(head + "\n")
    assert read_job_log(written(tmp_path, rest, "pai_task_table.csv")).gpu_s.tolist() == [30.0]


def classes_of(folder, text, **more):
    given = JobTableParams(path=written(folder, text))
    rules = ClassRules(given.training, given.inference, more.get("kinds", {}), TokenWork(), 2.0, 400,
                       more.get("known", {}), {})
    return jobs_of(read_job_log(given.path), rules)


def test_classes_are_those_of_the_file(tmp_path):
    """By name and GPUs; a speed of 6e4 TO per GPU and minute makes 60 s on 8 GPUs 4.8e5 TO."""
    text = ("id,job_class,arrival,run,gpus\na,ResNet-50,0,60,8\nb,ResNet-50,0,60,1\n"
            "c,online serving,0,60,1\nd,,0,60,600\n")
    jobs = classes_of(tmp_path, text)
    assert jobs.class_names.tolist() == ["resnet_50_8gpu", "resnet_50_1gpu", "online_serving", "job"]
    assert [c.kind for c in jobs.classes.values()] == ["train", "train", "inf", "train"]
    assert jobs.classes["resnet_50_8gpu"].gpus_per_block == 8
    assert jobs.work_to[0] == 4.8e5
    assert jobs.classes["job"].gpus_per_block == 400, "no site is larger"
    assert any("1 jobs had more than the 400 GPUs of the largest site" in text for text in jobs.said)
    other = classes_of(tmp_path, text, kinds={"online serving": "train"})
    assert {c.kind for c in other.classes.values()} == {"train"}


def test_many_classes_become_few_and_work_stays(tmp_path):
    lines = [f"{k},c{k % 5},0,60,{k + 1}" for k in range(40)]
    jobs = classes_of(tmp_path, "\n".join(["id,job_class,arrival,run,gpus", *lines]))
    assert len(jobs.classes) <= 12
    assert jobs.work_to.tolist() == [6e4 * (k + 1) for k in range(40)]
    assert all(c.gpus_per_block in (1, 2, 4, 8, 16, 32, 64) for c in jobs.classes.values())
    assert any("rounded up to powers of two" in text for text in jobs.said)


def test_a_job_without_a_deadline_has_time_to_run(tmp_path):
    """24 h of the pattern, or twice its run: 30 h take 60."""
    jobs = classes_of(tmp_path, "id,arrival,run_h,gpus\na,10,1,1\nb,20,30,1\n")
    assert (jobs.deadline_s - jobs.arrival_s).tolist() == [86400.0, 60 * 3600.0]
    assert any("2 of 2 jobs have no deadline: due 1d 00:00 (finish of training)" in text for text in jobs.said)


def test_a_scenario_begins_and_ends_with_its_file(tmp_path):
    path = written(tmp_path, FIVE)
    given = JobTableParams(path=path)
    scenario = JobTable.completes("workload", given, override(find("jobs"), {"workload.path": path}))
    assert scenario.start == "2024-05-11T00:00:00", "22:05 UTC of the day before"
    assert list(scenario.shared["job_classes"]) == ["training_8gpu", "training_1gpu", "inference", "training_4gpu"]
    assert JobTable.completes("workload", JobTableParams(path=path, job_classes=scenario.shared["job_classes"],
                                                         classes_made=list(scenario.shared["job_classes"])),
                              scenario).shared == scenario.shared, "a second look changes nothing"
    with pytest.raises(ScenarioError, match="covers 2024-05-11T22:05Z .* --set start=2024-05-11, or"):
        JobTable.natural_horizon_s(JobTableParams(path=path, scenario_start="2026-01-01"))


def test_five_lines_run_and_their_ids_last(tmp_path, capsys):
    """Nothing but the file's jobs, under both drivers; their ids in the receipts, and in a replay."""
    path = written(tmp_path, FIVE.replace("T00:05:00", "T02:00:00").replace("2400,8", "240,8"))
    outs = [tmp_path / f"{driver}.h5" for driver in ("native", "mosaik")]
    for out in outs:
        assert run_main(["jobs", "--set", f"workload.path={path}", "--until", "12min", "--driver", out.stem, "--out",
                         str(out), "--quiet"]) == 0
    assert first_difference(*outs) is None
    with Trace(outs[0]) as trace:
        assert sorted(trace.table("jobs")["id"].tolist()) == [0, 1, 2, 3, 4]
        assert trace.table("job_names")["name"].tolist() == ["a-17", "a-18", "b-1", "b-2", "c-9"]
        done = dict(zip(trace.table("jobs")["id"].tolist(), trace.table("jobs")["gpus"].tolist(), strict=True))
        assert done[2] == done[3] == 1.0
        inference = np.isin(trace.table("jobs")["id"], (2, 3))
        assert (trace.table("jobs")["start_s"] == trace.table("jobs")["arrival_s"])[inference].all(), "free GPUs"
        notes = json.loads(str(trace.attrs["notes"]))
    assert any("rows: 5, jobs: 5" in note for note in notes)
    assert receipts([str(outs[0]), "--job", "a-17", "--out", str(tmp_path / "r.csv")]) == 0
    assert "Job 0 (a-17) at aidc1" in capsys.readouterr().out
    assert "c-9" in (tmp_path / "r.csv").read_text()
    assert receipts([str(outs[0]), "--job", "nobody"]) == 2
    assert trace_main(["verify", str(outs[0])]) == 0
    again = tmp_path / "again.h5"
    assert run_main(["jobs", "--replay", f"workload={outs[0]}", "--set", "controller.policy=uniform", "--driver",
                     "native", "--until", "12min", "--out", str(again), "--quiet"]) == 0
    with Trace(again) as trace:
        assert trace.table("job_names")["name"].tolist() == ["a-17", "a-18", "b-1", "b-2", "c-9"]
    assert run_main([str(outs[0]), "--out", str(tmp_path / "same.h5"), "--driver", "native", "--quiet"]) == 0


@pytest.mark.parametrize(("row", "what"), [
    ("a,0,60,1e9,1,", "its GPUs, 1e+09, is beyond 1e+06"), ("a,0,60,1e5,,1e8", "its GPU time in s, 3.6e+11"),
    ("a,1e12,60,1,,", None), ("a,0,60,1,1e15,", "its work in TO, 1e+15, is beyond 1e+14")])
def test_figures_that_no_job_has_are_left_out(tmp_path, row, what):
    """A time of 1e12 is one in ms since 1970."""
    text = f"id,arrival,run,gpus,work_to,gpu_hours\n{row}\n"
    if what is None:
        assert read_job_log(written(tmp_path, text)).dated
        return
    good = "".join(f"g{k},0,60,1,,\n" for k in range(200))
    log = read_job_log(written(tmp_path, text + good))
    assert len(log) == 200
    assert what in log.said


def minutes(params, worlds, length, **more):
    """Minutes since the first world began at which jobs come, in worlds one after the other; their ids."""
    found, names, carry = [], [], None
    for k in range(worlds):
        member = JobTable()
        member.init("workload", 1.0, step_s=60.0, **params, **more)
        member.create(1, "Arrivals", names=["workload"])
        member.setup_done()
        if carry is not None:
            member.resume(carry)
        for minute in range(length // worlds):
            out = member.advance(60.0 * minute, {})["workload"]
            found += [t / 60.0 + k * (length // worlds) for t in out["jobs"].get("arrival_s", ())]
            names += out["job_names"].get("name", [])
            assert sum(out["arrived_jobs"]) == len(out["jobs"].get("id", ()))
        carry = member.carry()
    return found, names


@pytest.mark.parametrize("worlds", [1, 4])
def test_worlds_one_after_the_other_go_on_in_the_file(tmp_path, worlds):
    """Jobs at 0.5, 3 and 6.25 min, and one that arrives after the end; of one from before it is said."""
    text = "id,arrival,work_to\na,30,1e5\nb,180,1e5\nc,375,1e5\nd,4000,1e5\n"
    path = written(tmp_path, text)
    scenario = override(find("jobs"), {"workload.path": path})
    scenario = JobTable.completes("workload", JobTableParams(path=path), scenario)
    params = {**scenario.members["workload"].params, "job_classes": scenario.shared["job_classes"]}
    assert minutes(params, worlds, 12) == ([0.5, 3.0, 6.25], ["a", "b", "c"])
    assert minutes(params, worlds, 12, arrivals_end_s=200.0) == ([0.5, 3.0], ["a", "b"])
    assert minutes(params, 1, 12, begin_s=120.0) == ([1.0, 4.25], ["b", "c"])
    assert minutes(params, 1, 12, routing="arrival") == ([0.5, 3.0, 6.25], ["a", "b", "c"])


def test_parquet_has_its_types(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    at = np.array(["2024-05-12T01:00:00", "2024-05-12T01:00:30"], "datetime64[ms]")
    path = str(tmp_path / "jobs.parquet")
    parquet.write_table(arrow.table({"Id": [7, 8], "submit_time": arrow.array(at).cast(arrow.timestamp("ms", "UTC")),
                                     "duration": [60.0, None], "gpus": [2, 1]}), path)
    log = read_job_log(path, max_left_out_ratio=0.5)
    assert rows(log) == [("7", "", instant("2024-05-12T01:00"), 2.0, 120.0)]
    assert "1 of unknown run time; the first is line 2" in log.said


def test_a_share_of_the_jobs_is_spread_evenly(tmp_path):
    text = "id,arrival,work_to,origin,priority\n" + "".join(f"{k},{60 * k},1,o{k},p{k}\n" for k in range(10))
    log = read_job_log(written(tmp_path, text))
    for ratio, names in ((0.3, ["3", "6", "9"]), (0.5, ["1", "3", "5", "7", "9"]), (0.01, ["0"])):
        part = log.sample(ratio)
        assert part.name == names
        assert part.arrival_s.tolist() == [60.0 * int(name) for name in names]
        assert part.origin == [f"o{name}" for name in names]
        assert part.priority == [f"p{name}" for name in names]
        columns = [value for value in vars(part).values() if isinstance(value, list | np.ndarray)]
        assert {len(column) for column in columns if column is not part.doubts} == {len(names)}
        assert f"{len(names)} of 10 jobs are played, by workload.sample_ratio = {ratio:g}" in part.doubts
