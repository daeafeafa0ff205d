"""Jobs that come through a network: when they are there, what that moves, and that nothing is lost on the way."""

import math

import numpy as np
import pytest
from small_site import CLASSES, PLAIN, SITE

from cosim.drivers.resolve import resolve
from cosim.errors import ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.inbound import Inbound
from cosim.simulators.aidc.llm.facility import ServingFacility
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.fleet import JobClass
from cosim.simulators.wan import Wan
from cosim.simulators.workload.origins import Origins
from cosim.trace import Trace

GIVEN = {"latency_s": {"north": {"a": 0.02, "b": 0.25}, "a": {"b": 0.25}}, "shares": {"north": 3, "a": 1},
         "data_gb": {"chat": 5.0}, "bandwidth_gbps": {"north": {"a": 10, "b": 4}, "a": {"b": 8}}}
WAN = Wan(**GIVEN)


def rows(*jobs):
    """Each: id, class, arrival, work, deadline, origin."""
    names = ("id", "job_class", "arrival_s", "work_to", "deadline_s", "origin")
    return dict(zip(names, map(list, zip(*jobs, strict=True)), strict=True))


def facility(at_arrival=True):
    return Facility("a", SITE, CLASSES, PLAIN, 20.0, at_arrival=at_arrival)


def test_ways_by_hand():
    """5 GB at 10 Gbit/s are 4 s, at 4 Gbit/s 10 s, and nothing where they lie."""
    assert WAN.delay_s("north", "a", "chat") == pytest.approx(4.02)
    assert WAN.delay_s("north", "b", "chat") == pytest.approx(10.25)
    assert WAN.delay_s("north", "b", "fit") == 0.25
    assert WAN.delay_s("a", "a", "chat") == 0.0
    assert WAN.moved_gb("a", "a", "chat") == 0.0
    assert WAN.energy_kwh(5.0) == pytest.approx(0.3)
    assert WAN.shares_of("chat") == [0.75, 0.25]


@pytest.mark.parametrize("at_arrival", [True, False])
def test_a_job_is_there_when_its_data_are(at_arrival):
    """Arrives at 10 s, of a minute's batch; handed over at 0 or sent at 10; four seconds of transfer, 20 ms of way."""
    site, inbound = facility(at_arrival), Inbound(WAN, "a", list(CLASSES), True, at_arrival)
    sent_s = 10.0 if at_arrival else 0.0
    site.submit(inbound.sent(rows((1, "chat", 10.0, 60.0, 900.0, "north"), (2, "chat", 10.0, 60.0, 900.0, "a")), 0.0))
    site.command([4, 0], 20.0)
    site.advance(sent_s + 2.0)
    values = inbound.read(sent_s + 2.0)
    assert values["transit_jobs"] == [1.0, 0.0]
    assert values["network_gb"] == [5.0, 0.0]
    assert values["network_kwh"] == [pytest.approx(0.3), 0.0]
    assert values["network_co2_kg"] == [pytest.approx(0.3 * 0.48), 0.0]
    assert values["transfers"]["reached_s"] == [pytest.approx(sent_s + 4.02), sent_s]
    state = site.state()
    assert (state.queued_jobs[0], state.running_jobs[0]) == (1, 1)
    assert state.pending_work_to[0] > 60.0
    assert len(site.unfinished_rows()["id"]) == 2
    site.advance(900.0)
    left = site.read_interval().left_jobs
    begun = dict(zip(left["id"], left["start_s"], strict=True))
    assert begun == {1: pytest.approx(sent_s + 4.02, abs=1e-6), 2: sent_s}
    assert left["arrival_s"] == [10.0, 10.0]
    assert inbound.read(900.0)["transit_jobs"] == [0.0, 0.0]


def test_it_is_as_if_they_arrived_later():
    """A site to which jobs take their way does with them what a site does to which they come that much later."""
    rng = np.random.default_rng(4)
    ways = {"near": 0.5, "far": 31.0}
    wan = Wan(latency_s={name: {"a": way} for name, way in ways.items()}, shares={"near": 1})
    site, inbound, later = facility(), Inbound(wan, "a", list(CLASSES), True, True), facility()
    arrival = np.sort(rng.random(200)) * 300.0
    origin = rng.choice(list(ways), 200)
    reach = [math.ceil((t + ways[o]) * 2**26) / 2**26 for t, o in zip(arrival.tolist(), origin, strict=True)]
    begun = []
    for minute in range(36):
        for one, at, through in ((site, arrival, True), (later, np.array(reach), False)):
            mine = [k for k in range(200) if 60.0 * minute <= at[k] < 60.0 * (minute + 1)]
            batch = rows(*((k, "chat", float(at[k]), 30.0, 1e4, origin[k]) for k in mine)) if mine else {}
            one.submit(inbound.sent(batch, 60.0 * minute) if through else batch)
            one.command([3, 0], 20.0)
            one.advance(60.0 * (minute + 1))
            left = one.read_interval().left_jobs
            columns = (left.get(name, ()) for name in ("id", "start_s", "end_s"))
            begun.append({(k, through): (start_s, end_s) for k, start_s, end_s in zip(*columns, strict=True)})
    found = {key: times for part in begun for key, times in part.items()}
    assert len(found) == 400
    assert all(found[k, True] == found[k, False] for k in range(200))


def test_training_under_way_is_carried_over():
    """Data that take 400 s: the job is put off, and in the next world released when they are there."""
    wan = Wan(latency_s={"north": {"a": 0.0}}, shares={"north": 1}, data_gb={"fit": 500.0})
    site, inbound = facility(), Inbound(wan, "a", list(CLASSES), True, True)
    jobs = rows((1, "fit", 0.0, 4800.0, 9000.0, "north"), (2, "chat", 0.0, 60.0, 900.0, "north"))
    site.submit(inbound.sent(jobs, 0.0))
    site.command([0, 0], 20.0)
    site.advance(60.0)
    kept = site.keep()
    assert [len(jobs) for jobs in kept.jobs] == [1, 1]
    assert kept.jobs[1][0].job.release_s == pytest.approx(400.0)
    assert site.state().queued_jobs == [1, 1]


def test_requests_under_way_and_late_ones():
    """One that takes longer than its deadline is dropped when it is there; one under way goes on into another world."""
    chat = JobClass(kind="llm", deadline_s=60, serving={"model": "Llama-3.1-8B", "gpu": "H100", "gpus": 1})
    classes = {"chat": chat, "fit": CLASSES["fit"]}
    site = ServingFacility("a", SITE, classes, PLAIN, 20.0, at_arrival=True)
    wan = Wan(latency_s={"near": {"a": 1.0}, "far": {"a": 100.0}}, shares={"near": 1})
    inbound, work_to = Inbound(wan, "a", list(classes), True, True), chat.serving.request_to(100, 10)
    jobs = rows((1, "chat", 0.0, work_to, 60.0, "near"), (2, "chat", 0.0, work_to, 60.0, "far"),
                (3, "fit", 0.0, 4800.0, 9000.0, "far"))
    site.submit(inbound.sent({**jobs, "input_tokens": [100, 100, 0], "output_tokens": [10, 10, 0]}, 0.0))
    site.command([1, 0], 20.0)
    site.advance(60.0)
    assert site.state().queued_jobs == [1, 1]
    kept = site.keep()
    assert [len(of) for of in kept.jobs] == [1, 1]
    assert site.kept_tokens() == [(100, 10), (0, 0)]
    site.advance(120.0)
    left = site.read_interval().left_jobs
    assert dict(zip(left["id"], zip(left["outcome"], left["end_s"], strict=True), strict=True))[2] == ("dropped", 100.0)
    answers = site.request_rows()
    assert dict(zip(answers["id"], answers["return_s"], strict=True)) == {1: 1.0, 2: 100.0}


def test_shares_are_kept_and_a_class_has_its_own():
    wan = Wan(**{**GIVEN, "class_shares": {"fit": {"a": 1.0}}})
    origins = Origins(wan, ["chat", "fit"], lambda purpose: np.random.default_rng(len(purpose)))
    drawn = origins.of(np.repeat([0, 1], 4000))
    assert np.mean(drawn[:4000] == 0) == pytest.approx(0.75, abs=0.03)
    assert (drawn[4000:] == 1).all()


@pytest.mark.parametrize(("change", "said"), [
    ({"latency_s": {"north": {"aidc1": 0.1, "aidc2": 0.1}}}, "wan.latency_s.north has no aidc3"),
    ({"latency_s": {"north": {"aidc1": 0.1, "aidc2": 0.1, "aidc3": 0.1, "aidc9": 0.1}}}, "site 'aidc9'"),
    ({"latency_s": {"north": {"aidc1": -0.1, "aidc2": 0.1, "aidc3": 0.1}}}, "latency_s.north.aidc1"),
    ({"latency_s": {"north": {"aidc1": "1d", "aidc2": 0.1, "aidc3": 0.1}}}, "3600"),
    ({"shares": {"south": 1.0}}, "'south'"),
    ({"shares": {"north": 0.0}}, "all 0"),
    ({"bandwidth_gbps": 0.0}, "bandwidth_gbps"),
    ({"bandwidth_gbps": {"north": {"aidc1": 1.0, "aidc2": 1.0}}}, "wan.bandwidth_gbps.north has no aidc3"),
    ({"bandwidth_gbps": {"south": {"aidc1": 1.0}}}, "'south'"),
    ({"data_gb": {"serach": 1.0}}, "'serach'"),
    ({"data_gb": {"search": -1.0}}, "data_gb.search"),
    ({"class_shares": {"serach": {"north": 1.0}}}, "'serach'"),
    ({"energy_kwh_per_gb": -1.0}, "energy_kwh_per_gb"),
])
def test_a_network_that_cannot_be_is_refused_in_one_line(change, said):
    good = {"latency_s": {"north": {"aidc1": 0.1, "aidc2": 0.1, "aidc3": 0.1}}, "shares": {"north": 1.0}}
    scenario = find("ieee33")
    resolve(scenario.replace(shared={**scenario.shared, "wan": good}), 60.0)
    with pytest.raises(ScenarioError) as refused:
        resolve(scenario.replace(shared={**scenario.shared, "wan": {**good, **change}}), 60.0)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_both_ends_need_the_same_network():
    one = {"latency_s": {"north": {"aidc1": 0.1, "aidc2": 0.1, "aidc3": 0.1}}, "shares": {"north": 1.0}}
    with pytest.raises(ScenarioError, match=r"aidc\.wan and workload\.wan are not the same"):
        resolve(override(find("ieee33"), {"aidc.wan": one}), 60.0)
    inbound = Inbound(WAN, "a", list(CLASSES), True, True)
    with pytest.raises(ModelError, match="no column origin"):
        inbound.sent({"id": [1], "job_class": ["chat"], "arrival_s": [0.0]}, 0.0)
    with pytest.raises(ModelError, match="'mars'"):
        inbound.sent(rows((1, "chat", 0.0, 60.0, 900.0, "mars")), 0.0)
    scenario = find("paper_literal")
    with pytest.raises(ScenarioError, match="slot model"):
        Experiment(scenario.replace(shared={**scenario.shared, "wan": one}), "native", 60.0).plan()
    given = resolve(find("ieee33").replace(shared={**find("ieee33").shared, "wan": one}), 60.0).params["aidc"]
    assert any(text.startswith("wan:") for text in unsupported(given))


def test_the_study_has_none_and_takes_one(tmp_path):
    """Without: no port and no table of it. With one, jobs are handed over once a minute, and all laws hold."""
    scenario = override(find("ieee33"), {"controller.policy": "uniform", "grid.ac_check": False})
    one = {"latency_s": {"north": {"aidc1": 0.1, "aidc2": 0.2, "aidc3": 90.0}}, "shares": {"north": 1.0},
           "data_gb": {"search": 0.5}}
    Experiment(scenario, "native", 120.0, tmp_path / "without.h5").run()
    Experiment(scenario.replace(shared={**scenario.shared, "wan": one}), "native", 600.0, tmp_path / "with.h5").run()
    with Trace(tmp_path / "without.h5") as trace:
        assert not trace.has("aidc/Site/network_gb")
        assert "transfers" not in trace.tables()
    with Trace(tmp_path / "with.h5") as trace:
        digest = verify(trace)
        assert not digest.broken
        held = {row[0] for row in digest.tables[0].rows if row[3] == "holds"}
        assert {name for name in held if "network" in name or "on their way" in name} >= {
            "jobs and answers take their way through the network (s)",
            "jobs on their way = sent and not yet there; they wait"}
        assert trace["aidc/Site/transit_jobs"][:, 2].sum() > 0.0
        jobs = trace.table("jobs")
        far = (jobs["site"] == "aidc3") & np.isfinite(jobs["start_s"])
        assert (jobs["start_s"] - jobs["arrival_s"])[far].min() >= 90.0


def test_a_table_of_jobs_says_where_they_come_from(tmp_path):
    """The column's origin where a job has one, else one by the shares; one that the network lacks is refused."""
    rows = ["arrival,work_to,job_class,region", *(f"{k},2e6,search,{('far', 'near', '')[k % 3]}" for k in range(60))]
    (tmp_path / "jobs.csv").write_text("\n".join(rows) + "\n")
    scenario = find("ieee33")
    way = {"far": 30.0, "near": 0.0, "other": 7.0}
    wan = {"latency_s": {name: dict.fromkeys(("aidc1", "aidc2", "aidc3"), s) for name, s in way.items()},
           "shares": {"other": 1.0}}
    workload = scenario.members["workload"].model_copy(update={
        "simulator": "cosim.simulators.workload.job_table:JobTable", "params": {"path": str(tmp_path / "jobs.csv")}})
    mine = override(scenario.replace(shared={**scenario.shared, "wan": wan}, members={
        **scenario.members, "workload": workload}), {"controller.policy": "uniform", "grid.ac_check": False})
    Experiment(mine, "native", 180.0, tmp_path / "run.h5").run()
    with Trace(tmp_path / "run.h5") as trace:
        sent = trace.table("transfers")
        assert dict(zip(sent["id"].tolist(), sent["origin"].tolist(), strict=True)) == {
            k: ("far", "near", "other")[k % 3] for k in range(60)}
        assert [round(float(b - a)) for a, b in zip(sent["sent_s"], sent["reached_s"], strict=True)] == [
            way[origin] for origin in sent["origin"].tolist()]
        assert not verify(trace).broken
    (tmp_path / "jobs.csv").write_text("\n".join([*rows, "61,2e6,search,moon"]) + "\n")
    with pytest.raises(ScenarioError, match=r"unknown origin in wan\.latency_s 'moon'"):
        Experiment(mine, "native", 180.0, tmp_path / "again.h5").run()
