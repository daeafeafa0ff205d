"""The fleet from one world into the next (M07, I18): a day cut anywhere goes on as if it had not been."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.errors import ScenarioError
from cosim.simulators.aidc.adapter import DataCenters, SlotDataCenters
from cosim.simulators.aidc.site import EVENTS

MIN_S, MINUTES = 60.0, 30
CLASSES = {
    "edf": {"kind": "train", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 47.1, "kw_per_to_s": 0.7,
            "gpus_per_block": 2, "max_blocks": 3},
    "chat": {"kind": "inf", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 61.3, "kw_per_to_s": 0.9},
    "llf": {"kind": "train", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 7.9, "kw_per_to_s": 1.5,
            "gpus_per_block": 3, "max_blocks": 2, "order": "llf", "speedup_exponent": 0.7},
    "wide": {"kind": "inf", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 13.7, "kw_per_to_s": 2.5,
             "gpus_per_block": 3},
}  # fmt: skip
CHECKPOINTS = {"checkpoint_interval_s": 40.0, "checkpoint_cost_s": 3.3, "restart_s": 21.7}
SITES = {"near": {"node": 1, "racks": 3, "gpus_per_rack": 8}, "far": {"node": 2, "racks": 2, "gpus_per_rack": 8}}
BLOCKS = (2, 1, 3, 1)
TIMES = ("arrival_s", "deadline_s", "release_s", "submit_s", "start_s", "end_s")


WARM = {"thermal": "first_order", "cooling": {
    "capacity_kw": 135.0, "server_leakage_per_k": 0.01, "heat_capacity_kj_per_k": 900.0, "cop_outside_degc": 15.0}}
"""A room whose plant is too small, in weather that changes by the minute."""


def world(simulator: type[DataCenters], job_log: bool = True, **plant) -> DataCenters:
    member = simulator()
    classes = CLASSES | ({"llf": CLASSES["llf"] | CHECKPOINTS} if simulator is DataCenters else {})
    member.init("aidc", 1.0, step_s=MIN_S, job_classes=classes, sites=SITES, window_s="7min", job_log=job_log, **plant)
    member.create(2, "Site", names=list(SITES))
    member.setup_done()
    return member


def story(seed: int) -> list[dict[str, dict]]:
    """Batches and commands of every minute and site; work of seconds to many minutes, times that no binary holds."""
    rng = np.random.default_rng(seed)
    names, ids, minutes = list(CLASSES), iter(range(10**6)), []
    for k in range(MINUTES):
        now_s, of_sites = k * MIN_S, {}
        for site, (_, spec) in zip(SITES, SITES.items(), strict=True):
            gpus, left = [], spec["racks"] * 8
            for block in BLOCKS:
                gpus.append(float(block * rng.integers(0, left // block + 1) if rng.random() < 0.9 else 0))
                left -= int(gpus[-1])
            jobs = [(names[rng.integers(4)], rng.exponential(150.0), rng.exponential(500.0), rng.exponential(300.0))
                    for _ in range(rng.poisson(4))]
            of_sites[site] = {
                "jobs": {
                    "id": [next(ids) for _ in jobs],
                    "job_class": [m for m, *_ in jobs],
                    "arrival_s": [now_s - 7.3] * len(jobs),
                    "work_to": [size for _, size, _, _ in jobs],
                    "deadline_s": [now_s + late for _, _, late, _ in jobs],
                    "release_s": [now_s + (later if CLASSES[m]["kind"] == "train" else 0.0)
                                  for m, _, _, later in jobs],
                } if jobs else {},
                "gpus": gpus,
                "supply_temp_degc": float(rng.choice([18.0, 20.5, 23.0])),
            }
        minutes.append(of_sites)
    return minutes


def play(simulator: type[DataCenters], minutes: list[dict[str, dict]], cuts: list[int],
         job_log: bool = True, **plant) -> list[dict[str, dict]]:
    """Outputs minute by minute, with a new world from each cut on; times put back to those of the first world."""
    seen, carry = [], None
    for begin, end in pairwise([0, *cuts, MINUTES]):
        member, shift_s = world(simulator, job_log, **plant), begin * MIN_S
        if carry is not None:
            member.resume(carry)
            before = {eid: ports | dict.fromkeys(EVENTS, {}) for eid, ports in seen[-1].items()}
            assert text(member.describe()["initial"]) == text(before)
        for k in range(begin, end):
            inputs = {}
            for site, given_ in minutes[k].items():
                jobs = {name: [v - shift_s for v in column] if name in TIMES else list(column)
                        for name, column in given_["jobs"].items()}
                inputs[site] = {name: {"controller.c": value} for name, value in (given_ | {"jobs": jobs}).items()}
            member.step(round(k * MIN_S - shift_s), inputs, 10**9)
            names = [p.name for p in member.MODELS["Site"] if p.flow == "out"]
            out = member.get_data({site: names for site in SITES})
            seen.append({eid: ports | {"done_jobs": put_back(ports["done_jobs"], shift_s), "gpu_runs": {}, "alarms": {}}
                         for eid, ports in out.items()})
        carry = member.carry()
        assert all(array.dtype.kind in "ifU" for array in carry.values())
    return seen


def text(values) -> str:
    """Values to compare bit for bit; NaN, where no weather is known, equals NaN."""
    return json.dumps(values, sort_keys=True)


def put_back(rows: dict[str, list], shift_s: float) -> dict[str, list]:
    """Rows without ids, in the first world's time; text, so that NaN equals NaN. Instants survive it exactly, the
    other times (of arrivals and deadlines, past by now) to a few ulp."""
    return {
        name: [repr(round(v + shift_s, 9)) if name in TIMES else v for v in column]
        for name, column in rows.items() if name != "id"
    }


@pytest.mark.long(after=1)
@pytest.mark.parametrize("simulator", [DataCenters, SlotDataCenters])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, MINUTES - 1), min_size=1, max_size=3, unique=True))
@pytest.mark.rows("I18")
def test_a_cut_changes_no_bit(simulator, seed, cuts):
    minutes = story(seed)
    if simulator is SlotDataCenters:  # its buckets reach as far as the class's deadline: nothing is deferred here
        for of_sites in minutes:
            for of_site in of_sites.values():
                of_site["jobs"].pop("release_s", None)
    whole, cut = (play(simulator, minutes, at) for at in ([], sorted(cuts)))
    for k, (one, other) in enumerate(zip(whole, cut, strict=True)):
        assert text(one) == text(other), f"minute {k}"


@pytest.mark.long
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, MINUTES - 1), min_size=1, max_size=3, unique=True))
def test_nor_does_it_in_a_room_with_weather(tmp_path_factory, seed, cuts):
    table = tmp_path_factory.mktemp("w") / "weather.csv"
    table.write_text("time_min,wet_bulb_degc\n" + "".join(f"{k},{10 + k % 7}\n" for k in range(MINUTES)))
    plant, minutes = WARM | {"ambient": {"table": str(table)}}, story(seed)
    whole, cut = (play(DataCenters, minutes, at, **plant) for at in ([], sorted(cuts)))
    assert {now["near"]["wet_bulb_degc"] for now in whole} == {10.0 + k for k in range(7)}
    for k, (one, other) in enumerate(zip(whole, cut, strict=True)):
        assert text(one) == text(other), f"minute {k}"


def test_the_story_leaves_every_kind_of_job_at_the_cuts():
    minutes = story(3)
    seen = play(DataCenters, minutes, [])
    for state in ("queued_jobs", "running_jobs"):
        assert all(max(now["near"][state][m] for now in seen) > 0 for m in range(4)), state
    assert max(now["near"]["deferred_jobs"][0] for now in seen) > 0
    assert sum(sum(now["near"]["dropped_jobs"]) for now in seen) > 0


def test_times_are_relative_to_the_cut_and_ids_negative_in_their_order():
    member = world(DataCenters)
    jobs = {"id": [7, 5, 9], "job_class": ["edf", "edf", "chat"], "arrival_s": [0.0] * 3, "work_to": [1e3, 1e3, 200.0],
            "deadline_s": [6e3, 5e3, 900.0], "release_s": [0.0, 300.0, 0.0]}
    inputs = {"jobs": {"c": jobs}, "gpus": {"c": [2.0, 1.0, 0.0, 0.0]}, "supply_temp_degc": {"c": 20.0}}
    idle = {"jobs": {"c": {}}, "gpus": {"c": [0.0] * 4}, "supply_temp_degc": {"c": 23.0}}
    member.step(0, {"near": inputs, "far": idle}, 60)
    carry = member.carry()
    # edf: 2 GPUs do 94.2 TO a minute, since 0 s; chat: 200 TO on one GPU take 195.759 s, so 135.759 s are left
    assert carry["jobs/id"].tolist() == [7, 5, 9]
    assert carry["jobs/group"].tolist() == [0, -1, 0]
    assert carry["jobs/since_s"][0] == -60.0
    assert carry["jobs/deadline_s"].tolist() == [5940.0, 4940.0, 840.0]
    assert carry["jobs/release_s"].tolist() == [-60.0, 240.0, -60.0]
    assert carry["jobs/end_s"][2] == pytest.approx(200 / 61.3 * 60 - 60, abs=1e-7)
    follow = world(DataCenters)
    follow.resume(carry)
    left = follow.closing()["near"]["done_jobs"]
    assert left["id"] == [-2, -3, -1]
    assert left["done_to"] == pytest.approx([94.2, 0.0, 61.3], rel=1e-12)
    assert text(json.loads(json.dumps(follow.initial()))) == text(follow.initial())


@pytest.mark.parametrize("simulator", [DataCenters, SlotDataCenters])
def test_without_a_job_log_all_but_the_rows_is_the_same(simulator):
    minutes = story(4)
    for of_sites in minutes:
        for of_site in of_sites.values():
            of_site["jobs"].pop("release_s", None)
    logged, silent = (play(simulator, minutes, [11], job_log=on) for on in (True, False))
    assert any(now["near"]["done_jobs"] for now in logged)
    assert text(silent) == text([{eid: ports | dict.fromkeys(EVENTS, {}) for eid, ports in now.items()}
                                 for now in logged])
    assert world(simulator, job_log=False).closing() == {}


def test_refuses_what_another_fleet_carried():
    carry = world(DataCenters).carry()
    with pytest.raises(ScenarioError, match="for model DataCenters, not SlotDataCenters"):
        world(SlotDataCenters).resume(carry)
    with pytest.raises(ScenarioError, match="for site .*'elsewhere'"):
        world(DataCenters).resume(carry | {"site": np.array(["near", "elsewhere"])})
    with pytest.raises(ScenarioError, match="lacks jobs/id"):
        world(DataCenters).resume({k: v for k, v in carry.items() if k != "jobs/id"})
