"""Data centres as the bus sees them: ports, units, windows, tables and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import mosaik
import pytest
from mosaik.starters import PythonStarter
from pydantic import Field

from cosim.adapter import Adapter
from cosim.errors import ModelError, ScenarioError
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.aidc.equations import crac
from cosim.simulators.aidc.plant.cooling import BALANCED, LITERAL, TABLE2

JOB_CLASSES = {
    "llm": {"kind": "train", "work_to": 6.91e8, "deadline_s": "720min", "to_per_gpu_min": 6e4, "kw_per_to_s": 7e-4,
            "gpus_per_block": 16, "max_blocks": 6},
    "search": {"kind": "inf", "work_to": 3e5, "deadline_s": "15min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 1.68e-4},
}  # fmt: skip
SITES = {"aidc1": {"node": 8}, "aidc2": {"node": 28, "racks": 25, "idle_kw": 50.0, "q_per_p_ratio": 0.1}}
NO_JOBS = {"gpus": [0.0, 0.0], "supply_temp_degc": 23.0}


def data_centers(*, entities=("aidc1",), step_s=60.0, **more) -> DataCenters:
    member = DataCenters()
    member.init("aidc", 1.0, step_s=step_s, job_classes=JOB_CLASSES, sites=SITES, **more)
    member.create(len(entities), "Site", names=list(entities))
    member.setup_done()
    return member


def tick(member: DataCenters, minute: int, **inputs) -> dict:
    """One tick in mosaik's wire format, the same inputs at every site; all outputs."""
    by_source = {name: {"controller.c": value} for name, value in inputs.items()}
    sites = member.entities["Site"]
    assert member.step(minute * 60, dict.fromkeys(sites, by_source), minute * 60 + 60) == minute * 60 + 60
    return member.get_data({eid: [p.name for p in member.MODELS["Site"] if p.flow == "out"] for eid in sites})


def batch(*jobs: tuple) -> dict:
    names = ("id", "job_class", "arrival_s", "work_to", "deadline_s", "release_s")
    return dict(zip(names, map(list, zip(*jobs, strict=True)), strict=True))


@pytest.mark.rows("M10")
def test_idle_before_the_first_tick():
    # 100 kW at 23 degC: P_cool = 100 kW, chiller = that / 4.2392 = 23.589 36 kW, flow ratio = (100 + 23.589 36) kW /
    # 542.234 kW = 0.227 926, fans = 6 * 0.227 926^3 = 0.071 05 kW
    idle = data_centers(entities=("aidc1", "aidc2")).initial()
    one = idle["aidc1"]
    assert one["it_kw"] == 100.0
    assert one["chiller_kw"] == pytest.approx(23.58936, abs=1e-5)
    assert one["tower_kw"] == pytest.approx(0.07105, abs=1e-5)
    assert one["p_kw"] == one["p_window_kw"] == pytest.approx(123.66040, abs=1e-5)
    assert one["q_kvar"] == one["q_window_kvar"] == pytest.approx(0.2 * 123.66040, abs=1e-5)
    assert (one["supply_temp_degc"], one["inlet_degc"], one["free_gpu_ratio"]) == (23.0, 27.0, 1.0)
    assert one["backlog_jobs"] == one["work_to"] == one["busy_gpus"] == [0.0, 0.0]
    assert one["done_jobs"] == {}
    assert idle["aidc2"]["it_kw"] == 50.0
    assert idle["aidc2"]["q_kvar"] == pytest.approx(0.1 * idle["aidc2"]["p_kw"])


@pytest.mark.rows("M10", "U07")
def test_first_tick_without_jobs_is_the_idle_site():
    member = data_centers()
    idle, now = member.initial()["aidc1"], tick(member, 0, **NO_JOBS)["aidc1"]
    assert idle.keys() == now.keys() == {p.name for p in member.MODELS["Site"] if p.flow == "out"}
    assert now == idle


@pytest.mark.rows("A06", "L12", "L13", "U07", "X02")
def test_one_minute_of_training_and_inference_by_hand():
    # an LLM job on 2 of its 6 blocks: 32 GPUs * 6e4 = 1.92e6 TO in the minute.
    # three Search jobs on 2 GPUs: 72 s each, 2.5e5 TO a GPU in the minute; the third waits.
    # IT = 100 + 34 * 0.7 = 123.8 kW
    member = data_centers()
    jobs = batch(
        (1, "llm", -20.0, 6.91e8, 43180.0, 0.0),
        (2, "llm", -10.0, 6.91e8, 43190.0, 7200.0),
        *((k, "search", -5.0, 3e5, 895.0, 0.0) for k in (3, 4, 5)),
    )
    now = tick(member, 0, jobs=jobs, gpus=[32.0, 2.0], supply_temp_degc=20.0)["aidc1"]
    plant = crac(123.8, 20.0, BALANCED)
    assert now["it_kw"] == pytest.approx(123.8, rel=1e-12)
    assert now["cooling_kw"] == pytest.approx(plant.cooling_kw, rel=1e-12)
    assert now["p_kw"] == pytest.approx(123.8 + plant.cooling_kw, rel=1e-12)
    assert (now["inlet_degc"], now["supply_temp_degc"]) == (24.0, 20.0)
    assert now["outlet_degc"] == pytest.approx(plant.outlet_degc, rel=1e-12)
    assert now["return_degc"] == pytest.approx(plant.return_degc, rel=1e-12)
    assert now["work_to"] == pytest.approx([1.92e6, 5e5], rel=1e-12)
    assert now["busy_gpus"] == now["granted_gpus"] == [32.0, 2.0]
    assert now["free_gpu_ratio"] == pytest.approx(366 / 400)
    assert now["received_jobs"] == [2.0, 3.0]
    assert now["queued_jobs"] == [0.0, 1.0]
    assert now["deferred_jobs"] == [1.0, 0.0]
    assert now["backlog_jobs"] == [1.0, 1.0]
    assert now["running_jobs"] == [1.0, 2.0]
    assert now["pending_work_to"] == pytest.approx([6.91e8 - 1.92e6, 9e5 - 5e5], rel=1e-12)
    assert now["deferred_work_to"] == [6.91e8, 0.0]
    assert (now["finished_jobs"], now["dropped_jobs"], now["done_jobs"]) == ([0.0, 0.0], [0.0, 0.0], {})
    # next minute: 3 and 4 end at 72 s, 5 starts then
    after = tick(member, 1, gpus=[32.0, 2.0], supply_temp_degc=20.0)["aidc1"]
    assert after["finished_jobs"] == [0.0, 2.0]
    assert after["busy_gpus"] == pytest.approx([32.0, (2 * 12 + 48) / 60])
    done = after["done_jobs"]
    assert {name: done[name] for name in ("id", "site", "start_s", "end_s", "done_to", "outcome")} == {
        "id": [3, 4], "site": ["aidc1"] * 2, "start_s": [0.0] * 2, "end_s": [72.0] * 2, "done_to": [3e5] * 2,
        "outcome": ["finished"] * 2,
    }  # fmt: skip
    left = member.closing()["aidc1"]["done_jobs"]
    assert left["id"] == [1, 2, 5]
    assert left["outcome"] == ["unfinished"] * 3
    assert left["done_to"] == pytest.approx([3.84e6, 0.0, 48 * 2.5e5 / 60])
    assert left.keys() == done.keys()


@pytest.mark.rows("M09")
def test_window_is_the_mean_of_what_has_elapsed_then_rolls():
    member = data_centers(window_s="3min")
    seen = []
    for minute in range(6):
        now = tick(member, minute, gpus=[0.0, 0.0], supply_temp_degc=18.0 + minute % 5)["aidc1"]
        seen.append(now["p_kw"])
        last = seen[-3:]
        assert now["p_window_kw"] == pytest.approx(sum(last) / len(last), rel=1e-14)
        assert now["q_window_kvar"] == pytest.approx(0.2 * now["p_window_kw"], rel=1e-14)
    assert len(set(seen)) == 5


def test_every_port_carries_plain_values():
    member = data_centers(entities=("aidc1", "aidc2"))
    out = tick(member, 0, jobs=batch((1, "search", 0.0, 1e4, 9e2, 0.0)), gpus=[16.0, 4.0], supply_temp_degc=20.0)
    assert repr(json.loads(json.dumps(out))) == repr(out)  # NaN where no weather is known
    for port in member.MODELS["Site"]:
        value = out["aidc1"].get(port.name)
        if port.flow == "in" and port.name not in out["aidc1"]:
            continue
        if port.kind == "event":
            assert {type(column) for column in value.values()} <= {list}
            assert value or port.name in ("gpu_runs", "power", "alarms")  # no training gave GPUs back, no trace_step_s
        elif port.dims:
            assert [type(x) for x in value] == [float, float]
        else:
            assert type(value) is float
    described = member.describe()
    assert described["labels"] == {"job_class": ["llm", "search"]}
    assert json.dumps(json.loads(json.dumps(described))) == json.dumps(described)


@pytest.mark.parametrize("thermal", ["static", "first_order"])
def test_clipped_commands_are_counted_and_told(thermal):
    member = data_centers(thermal=thermal)
    first = tick(member, 0, gpus=[0.0, 0.0], supply_temp_degc=25.0)["aidc1"]
    assert (first["clipped_commands"], first["supply_set_degc"], first["inlet_degc"]) == (1.0, 23.0, 27.0)
    now = tick(member, 1, **NO_JOBS)["aidc1"]
    assert (now["clipped_commands"], now["supply_temp_degc"]) == (0.0, 23.0)
    assert member.notes() == [
        "aidc.aidc1: 1 commanded supply temperatures were outside their limits and clipped"
    ]  # fmt: skip


def test_cooling_by_name_and_by_site():
    leaky = {"fan_flow_m3_per_s": 10.0, "return_approach_degc": -3.7}
    member = data_centers(entities=("aidc1", "aidc2"), cooling="table2", site_cooling={"aidc2": leaky})
    idle = member.initial()
    assert idle["aidc1"]["cooling_kw"] == crac(100.0, 23.0, TABLE2).cooling_kw
    # 50 + 1006 * 1.225 * 10 * 0.3 / 1000 = 53.697 05 kW of heat, over a COP of 4.2392
    assert idle["aidc2"]["chiller_kw"] == pytest.approx(53.69705 / 4.2392, rel=1e-9)
    literal = data_centers(cooling="literal").initial()["aidc1"]
    assert literal["tower_kw"] == crac(100.0, 23.0, LITERAL).tower_kw


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"entities": ("aidc9",)}, r"unknown entity of aidc 'aidc9'; did you mean 'aidc2'\?.*named like sites"),
        ({"window_s": 90.0}, "window_s = 90 is not a whole number of its steps"),
        ({"window_s": 30.0}, "window_s = 30 is not a whole number of its steps"),
        ({"cooling": "litteral"}, r"unknown cooling 'litteral'; did you mean 'literal'\?"),
        ({"cooling": {"inlet_degc": 3}}, "unknown field of aidc.*'inlet_degc'"),
        ({"cooling": {"supply_offset_degc": [4.0, 4.0]}}, "cooling of aidc1 has 2 racks, the site 50"),
        ({"site_cooling": {"aidc7": {}}}, "unknown site in aidc.site_cooling 'aidc7'"),
    ],
)
def test_scenarios_that_do_not_fit_are_refused(more, said):
    with pytest.raises(ScenarioError, match=said):
        data_centers(**more)


def test_broken_commands_stop_the_run():
    member = data_centers()
    with pytest.raises(ModelError, match="aidc1: 2.5 GPUs granted to 'search'"):
        tick(member, 0, gpus=[16.0, 2.5], supply_temp_degc=20.0)
    with pytest.raises(ModelError, match="gpus has no source"):
        tick(member, 0, supply_temp_degc=20.0)


# --- on the bus -----------------------------------------------------------------------------------------------------


@params
class ScriptParams:
    """Commands by minute."""

    lines: Annotated[list[dict], Field(description="what to say, minute by minute")]


class Script(Adapter):
    """Says what it is told to, minute by minute."""

    PARAMS = ScriptParams
    MODELS = {
        "Script": (
            Port("jobs", "out", "jobs", kind="event"),
            Port("gpus", "out", "grants", dims=("job_class",)),
            Port("supply_temp_degc", "out", "set point"),
        )
    }

    def advance(self, time_s, inputs):
        return {"script": self.params.lines[int(time_s // 60)]}


class Ear(Adapter):
    """Keeps what it hears of a site."""

    PARAMS = ScriptParams
    MODELS = {"Ear": tuple(replace(p, flow="in") for p in DataCenters.MODELS["Site"] if p.flow == "out")}

    def __init__(self, heard):
        super().__init__()
        self.heard = heard

    def advance(self, time_s, inputs):
        self.heard.append(inputs["ear"])
        return {}


def test_same_numbers_on_mosaik_as_by_hand():
    def arrivals(k):
        return (k, "search", 60.0 * k, 3e5 + k, 60.0 * k + 900, 60.0 * k), (100 + k, "llm", 0.0, 9.6e5, 9e3, 0.0)

    lines = [
        {"jobs": batch(*arrivals(k)), "gpus": [16.0 * (k % 3), float(k % 2)], "supply_temp_degc": 18.0 + k}
        for k in range(6)
    ]
    heard: list[dict] = []
    with mosaik.World({}, cache=False, skip_greetings=True, configure_logging=False) as world:
        fleet = {"job_classes": JOB_CLASSES, "sites": SITES}
        (script,) = world.start(PythonStarter(Script), "script", lines=lines).Script.create(1, names=["script"])
        (site,) = world.start(PythonStarter(DataCenters), "aidc", **fleet).Site.create(1, names=["aidc1"])
        (ear,) = world.start(PythonStarter(Ear, args=(heard,)), "ear", lines=[]).Ear.create(1, names=["ear"])
        for port in Script.MODELS["Script"]:
            world.connect(script, site, port.name)
        for port in Ear.MODELS["Ear"]:
            world.connect(site, ear, port.name)
        world.run(until=360, print_progress=False)
    member = data_centers()
    assert heard == [tick(member, k, **line)["aidc1"] for k, line in enumerate(lines)]
    # an LLM job here is one block-minute; blocks per minute: 0, 1, 2, 0, 1, 2, so many jobs finish. Search jobs take
    # 72 s and start in minutes 1, 3 and 5, when the grant is 1: they finish in minutes 2 and 4, and after the end
    assert [now["finished_jobs"] for now in heard] == [[0, 0], [1, 0], [2, 1], [0, 0], [1, 1], [2, 0]]


def test_warm_servers_on_the_bus():
    # leakage 1 %/K; 23 + 4 is 5 K above the reference of 22: 100 kW idle become 105, at 18 degC they stay 100
    member = data_centers(cooling={"server_leakage_per_k": 0.01, "return_approach_degc": -3.7})
    assert member.initial()["aidc1"]["it_kw"] == pytest.approx(105.0, rel=1e-14)
    assert tick(member, 0, gpus=[0.0, 0.0], supply_temp_degc=18.0)["aidc1"]["it_kw"] == pytest.approx(100.0, rel=1e-14)
    now = tick(member, 1, jobs=batch((1, "llm", 0.0, 6.91e8, 43200.0, 60.0)), gpus=[32.0, 0.0], supply_temp_degc=23.0)
    assert now["aidc1"]["it_kw"] == pytest.approx(1.05 * (100.0 + 32 * 0.7), rel=1e-14)
    assert now["aidc1"]["heat_imbalance_kw"] == pytest.approx(1.006 * 1.225 * 21.5 * 0.3, rel=1e-9)


def test_power_by_the_second_by_hand_and_its_energy():
    # three Search jobs of 2.5 s: 10416.6 TO at 2.5e5 TO/min; two GPUs, so two end at 2.5 s and the third at 5 s
    size = 2.5e5 / 60 * 2.5
    jobs = batch(*((k, "search", 0.0, size, 900.0, 0.0) for k in range(3)))
    member = data_centers(entities=("aidc1", "aidc2"), trace_step_s="1s")
    first = tick(member, 0, jobs=jobs, gpus=[0.0, 2.0], supply_temp_degc=20.0)
    power = first["aidc1"]["power"]
    assert power["time_s"] == list(range(60))
    assert set(power["site"]) == {"aidc1"}
    assert power["it_kw"][:6] == pytest.approx([101.4, 101.4, 101.05, 100.7, 100.7, 100.0], abs=1e-6)
    for eid, now in first.items():
        for port in ("p_kw", "it_kw", "cooling_kw"):
            assert sum(now["power"][port]) / 60 == pytest.approx(now[port], rel=1e-12), (eid, port)
    later = tick(member, 1, gpus=[0.0, 0.0], supply_temp_degc=23.0)["aidc1"]
    assert later["power"]["time_s"][0] == 60.0
    assert later["power"]["p_kw"] == pytest.approx([later["p_kw"]] * 60, rel=1e-12)
    with pytest.raises(ScenarioError, match=r"trace_step_s = 7 does not divide its step of 60 s"):
        data_centers(trace_step_s="7s")
