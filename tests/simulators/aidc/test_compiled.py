"""The compiled fleet against the one on SimPy: the same jobs and commands, job by job and minute by minute."""

import math
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import cosim.units
from cosim.errors import ModelError, ScenarioError
from cosim.params import validate
from cosim.simulators.aidc.adapter import AidcParams
from cosim.simulators.aidc.compiled.fleet import CompiledFleet, Jobs
from cosim.simulators.aidc.compiled.jit import constants_of, entry, sources_of
from cosim.simulators.aidc.compiled.records import OUTCOMES
from cosim.simulators.aidc.compiled.sums import add_exactly, rounded
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.racks import Racks
from cosim.simulators.aidc.engine.site_state import pack, unpack
from cosim.simulators.aidc.plant.cooling import supply_limits_degc

TICK_S = 60.0
SITES = {"left": {"node": 1, "racks": 2, "gpus_per_rack": 6, "idle_kw": 30.0},
         "right": {"node": 2, "racks": 5, "gpus_per_rack": 2, "idle_kw": 12.0}}
SMOOTH = {  # 1 TO/s per job for a and b, 2 and 1 TO/s per block for c and d: times are binary fractions
    "c": {"kind": "train", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 60, "kw_per_to_s": 0.7,
          "gpus_per_block": 2, "max_blocks": 2},
    "a": {"kind": "inf", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 60, "kw_per_to_s": 0.9},
    "b": {"kind": "inf", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 15, "kw_per_to_s": 2.5, "gpus_per_block": 4},
    "d": {"kind": "train", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 15, "kw_per_to_s": 1.5,
          "gpus_per_block": 4},
}
ROUGH = {  # speeds that no binary fraction holds, a speed-up below linear, laxity, checkpoints, restarts
    "c": {"kind": "train", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 47.1, "kw_per_to_s": 0.7,
          "gpus_per_block": 2, "max_blocks": 5, "speedup_exponent": 0.8, "order": "llf"},
    "a": {"kind": "inf", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 61.3, "kw_per_to_s": 0.9},
    "b": {"kind": "inf", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 13.7, "kw_per_to_s": 2.5,
          "gpus_per_block": 3},
    "d": {"kind": "train", "work_to": 9, "deadline_s": 9, "to_per_gpu_min": 7.9, "kw_per_to_s": 1.5,
          "gpus_per_block": 3, "max_blocks": 2, "checkpoint_interval_s": 11.0, "checkpoint_cost_s": 1.3,
          "restart_s": 2.7},
}
CLASSES = {"smooth": SMOOTH, "rough": ROUGH}


def params(kind, **more):
    given = {"job_classes": CLASSES[kind], "sites": SITES, "job_log": False, "window_s": 3 * TICK_S,
             "cooling": "corrected", **more}
    return validate(AidcParams, given, "aidc")


def minutes(rng, given, count, smooth):
    """Random minutes of one environment: per site its jobs (class, size, deadline, release) and grants, set points."""
    classes, plan = list(given.job_classes.values()), []
    equal = rng.random() < 0.4  # all of a class as large, as in Table I
    sizes = rng.integers(1, 250, len(classes)).astype(float) if smooth else rng.uniform(0.1, 250, len(classes))
    fixed = rng.random() < 0.5  # deadlines rise along a line
    busy = rng.choice([2, 8, 30])
    number = 0
    for k in range(count):
        minute = []
        for site in given.sites.values():
            rows = []
            for _ in range(rng.integers(0, busy)):
                m = int(rng.integers(len(classes)))
                size = sizes[m] if equal else float(rng.integers(1, 250) if smooth else rng.uniform(0.1, 250))
                late = 170.0 if fixed else float(rng.integers(-5, 400) if smooth else rng.uniform(-5, 400))
                wait = float(rng.integers(0, 200) if smooth else rng.uniform(0, 200))
                train = classes[m].kind == "train"
                rows.append((m, number, size, k * TICK_S + late, k * TICK_S + wait * train * (rng.random() < 0.6)))
                number += 1
            left, grants = site.gpus, [0] * len(classes)
            for m in rng.permutation(len(classes)):
                block = classes[m].gpus_per_block if classes[m].kind == "train" else 1
                grants[m] = int(rng.integers(0, left // block + 1)) * block
                left -= grants[m]
            minute.append((rows, grants, float(rng.choice([17.0, 18.0, 20.5, 21.3, 23.0, 25.0]))))
        plan.append(minute)
    return plan


class OnSimPy:
    """The facilities of one environment; `step` gives what the compiled fleet's step holds of it."""

    def __init__(self, given, racks=None):
        self.given, self.names = given, list(given.job_classes)
        self.facilities = [
            Facility(name, site, given.job_classes, given.site_cooling.get(name, given.cooling),
                     given.initial_supply_temp_degc, racks=None if racks is None else racks[n])
            for n, (name, site) in enumerate(given.sites.items())]
        self.means_kw = [[] for _ in given.sites]
        self.rows = []

    def step(self, minute):
        out = []
        for n, (facility, (rows, grants, degc)) in enumerate(zip(self.facilities, minute, strict=True)):
            columns = list(zip(*rows, strict=True)) or [()] * 5
            batch = {"id": list(columns[1]), "job_class": [self.names[m] for m in columns[0]],
                     "arrival_s": list(columns[3]), "work_to": list(columns[2]), "deadline_s": list(columns[3]),
                     "release_s": list(columns[4])} if rows else {}
            facility.submit(batch)
            facility.command(grants, degc)
            facility.advance(facility.now_s + TICK_S)
            did, state = facility.read_interval(), facility.state()
            self.means_kw[n] = (self.means_kw[n] + [did.it_kw + (did.chiller_kw + did.tower_kw) + did.loss_kw])[-3:]
            left = did.left_jobs
            self.rows += list(zip(left.get("id", ()), [n] * len(left.get("id", ())), *(left.get(name, ()) for name in (
                "start_s", "end_s", "done_to", "outcome")), strict=True))
            out.append((did, state))
        return out


EXACT = {  # field of FleetStep -> of Interval or State
    "work_to": "work_to", "busy_gpus": "busy_gpus", "received_jobs": "received_jobs", "finished_jobs": "finished_jobs",
    "dropped_jobs": "dropped_jobs", "finished_work_to": "finished_to", "missed_work_to": "missed_to",
    "failed_work_to": "failed_to", "clipped_commands": "clipped_commands", "queued_jobs": "queued_jobs",
    "deferred_jobs": "deferred_jobs", "running_jobs": "running_jobs", "pending_work_to": "pending_work_to",
    "deferred_work_to": "deferred_work_to", "late_jobs": "late_jobs", "urgent_jobs": "urgent_jobs",
    "slack_min": "slack_min", "up_gpus": "up_gpus", "granted_gpus": "granted_gpus",
    "it_kw": "it_kw", "chiller_kw": "chiller_kw", "tower_kw": "tower_kw", "loss_kw": "loss_kw"}


def jobs_of(plans, k, n_sites):
    rows = [(b * n_sites + n, *row) for b, plan in enumerate(plans) for n, (rows, *_) in enumerate(plan[k])
            for row in rows]
    columns = [np.array(c) for c in zip(*rows, strict=True)] or [np.zeros(0, int)] * 6
    return Jobs(*columns)


def compare(fleet, worlds, plans, k):
    """Minute k in both; all that is told of it is the same."""
    gpus = np.array([[grants for _, grants, _ in plan[k]] for plan in plans])
    degc = np.array([[degc for *_, degc in plan[k]] for plan in plans])
    got = fleet.step(jobs_of(plans, k, len(fleet.names)), gpus, degc)
    for b, (world, plan) in enumerate(zip(worlds, plans, strict=True)):
        for n, (did, state) in enumerate(world.step(plan[k])):
            for name, theirs in EXACT.items():
                wanted = getattr(did, theirs, None)
                wanted = getattr(state, theirs) if wanted is None else wanted
                assert np.array_equal(getattr(got, name)[b, n], wanted), (k, b, n, name)
            window_kw = math.fsum(world.means_kw[n]) / len(world.means_kw[n])
            assert fleet.window(b, n) == (window_kw, 0.2 * window_kw)
            gpus, used = world.facilities[n].gpus, sum(state.busy_gpus)
            assert got.free_gpu_ratio[b, n] == max(1.0 - used / gpus - (gpus - state.up_gpus) / gpus, 0.0)
    return got


def fates(rows):
    """(id, site, start, end, done, outcome), in the order in which they left a site; NaN as None."""
    return [tuple(None if isinstance(x, float) and math.isnan(x) else x for x in row) for row in rows]


def check(given, seed, envs, count, smooth, **more):
    rng = np.random.default_rng(seed)
    plans = [minutes(rng, given, count, smooth) for _ in range(envs)]
    fleet, worlds = CompiledFleet(given, envs, TICK_S, keep_rows=True), [OnSimPy(given) for _ in range(envs)]
    found = [[] for _ in range(envs)]
    for k in range(count):
        got = compare(fleet, worlds, plans, k)
        for row in got.done_jobs:
            b, n = divmod(int(row["lane"]), len(fleet.names))
            found[b].append((int(row["id"]), n, *(float(row[c]) for c in ("start_s", "end_s", "done_to")),
                             OUTCOMES[row["outcome"]]))
    for mine, world in zip(found, worlds, strict=True):
        assert fates(mine) == fates(world.rows)
    return sum(map(len, found))


@pytest.mark.long(after=30)
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(40))
def test_every_job_meets_the_same_fate_at_the_same_time(kind, seed):
    given = params(kind, site_cooling={"right": "literal"})
    assert check(given, seed, envs=3, count=12, smooth=kind == "smooth") > 0


@pytest.mark.parametrize("seed", range(6))
def test_racks_fail_alike(seed):
    """Failures come from the same streams; minutes so long that a rack is down in half of them."""
    given = params("rough", rack_mean_up_s=120.0, rack_mean_down_s=60.0)
    streams = [lambda e=e, n=n: np.random.default_rng([seed, e, n]) for e in range(2) for n in range(2)]
    racks = [[Racks(site.racks, 120.0, 60.0, stream()) for site, stream in zip(
        [*given.sites.values()] * 2, streams, strict=True)] for _ in range(2)]
    plans = [minutes(np.random.default_rng([seed, e]), given, 15, False) for e in range(2)]
    fleet = CompiledFleet(given, 2, TICK_S, racks=racks[0])
    worlds = [OnSimPy(given, racks[1][2 * e:2 * e + 2]) for e in range(2)]
    undone = sum(compare(fleet, worlds, plans, k).failed_work_to.sum() for k in range(15))
    assert undone > 0


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("seed", range(6))
def test_a_day_goes_on_from_the_one_before(kind, seed):
    """At midnight, in one of two environments: the clock is set back, jobs go on, equal deadlines keep their order."""
    given, rng = params(kind), np.random.default_rng(seed)
    plans = [minutes(rng, given, 14, kind == "smooth") for _ in range(2)]
    for plan in plans:  # the clock of each day starts at 0
        for k in range(7, 14):
            for rows, *_ in plan[k]:
                rows[:] = [(m, number, size, due - 7 * TICK_S, release - 7 * TICK_S)
                           for m, number, size, due, release in rows]
    plans[1][7:] = minutes(rng, given, 7, kind == "smooth")
    fleet, worlds = CompiledFleet(given, 2, TICK_S), [OnSimPy(given) for _ in range(2)]
    for k in range(7):
        compare(fleet, worlds, plans, k)
    for b, world in enumerate(worlds):
        carried = pack([f.keep() for f in world.facilities], 7 * TICK_S)
        fresh = OnSimPy(given)
        fresh.means_kw = world.means_kw
        for facility, memory in zip(fresh.facilities, unpack(carried, list(given.job_classes)), strict=True):
            facility.restore(memory)
        worlds[b] = fresh
    fleet.shift(np.array([1]), np.array([10_000]))
    assert fleet.now_s.tolist() == [7 * TICK_S, 0.0]
    fleet.shift(np.array([0]), np.array([10_000]))
    for k in range(7, 14):
        compare(fleet, worlds, plans, k)


@pytest.mark.parametrize(("given", "name"), [
    ({"job_log": True}, "job_log"), ({"trace_step_s": 30.0}, "trace_step_s"), ({"thermal": "first_order"}, "thermal"),
    ({"ambient": {"wet_bulb_mean_degc": 15.0}}, "ambient"),
    ({"site_ambient": {"left": {"wet_bulb_mean_degc": 15.0}}}, "site_ambient.left")])
def test_what_it_cannot_do_is_refused_by_name(given, name):
    with pytest.raises(ScenarioError, match=f"cannot do {name}.*SimPy"):
        CompiledFleet(params("smooth", **given), 1)


def test_racks_need_their_streams():
    with pytest.raises(ScenarioError, match="one per lane, 2"):
        CompiledFleet(params("smooth", rack_mean_up_s=120.0), 1)
    with pytest.raises(ScenarioError, match="or neither"):
        CompiledFleet(params("smooth"), 1, racks=[None, None])


JOB = {"lane": [0], "job_class": [1], "id": [7], "work_to": [5.0], "deadline_s": [90.0], "release_s": [0.0]}


@pytest.mark.parametrize(("change", "said"), [
    ({"lane": [2]}, "2 lanes"), ({"lane": [-1]}, "lane -1"), ({"job_class": [4]}, "class 4"),
    ({"work_to": [0.0]}, "must be positive"), ({"work_to": [math.nan]}, "work_to = nan.*finite"),
    ({"deadline_s": [math.inf]}, "deadline_s = inf"), ({"release_s": [1.0]}, "class 'a' has release_s = 1, later"),
    ({"id": [7, 8]}, "shapes"),
    ({"lane": [1], "job_class": [0]}, "environment 0, right.*job 7 of class 'c' may not run here")])
def test_jobs_that_may_not_be_are_refused(change, said):
    classes = {**SMOOTH, "c": {**SMOOTH["c"], "eligible_sites": ("left",)}}
    fleet = CompiledFleet(params("smooth", job_classes=classes), 1)
    jobs = Jobs(**{name: np.array(column) for name, column in (JOB | change).items()})
    with pytest.raises(ModelError, match=said):
        fleet.step(jobs, np.zeros((1, 2, 4)), np.full((1, 2), 20.0))


@pytest.mark.parametrize(("grants", "said"), [
    ([1, 0, 0, 0], "multiple of 2"), ([0, 0.5, 0, 0], "0.5 GPUs"), ([0, -1, 0, 0], "-1"),
    ([2, 11, 0, 0], "13 GPUs granted in sum; the site has 12"), ([0, 0, 0], "shape"), ([0, math.nan, 0, 0], "nan")])
def test_grants_that_may_not_be_are_refused(grants, said):
    fleet = CompiledFleet(params("smooth"), 1)
    jobs = Jobs(**{name: np.array(column) for name, column in JOB.items()})
    with pytest.raises(ModelError, match=said):
        fleet.step(jobs, np.array([[grants, [0] * len(grants)]]), np.full((1, 2), 20.0))


def test_supply_air_beyond_its_limits_is_clipped_and_counted():
    given, none = params("smooth"), jobs_of([[[([], [], 0.0)] * 2]], 0, 2)
    fleet, (low, high) = CompiledFleet(given, 1), supply_limits_degc(given.cooling)
    got = fleet.step(none, np.zeros((1, 2, 4)), np.array([[low - 1, high]]))
    assert got.clipped_commands.tolist() == [[1, 0]]
    assert got.supply_set_degc.tolist() == [[low, high]]
    with pytest.raises(ModelError, match="supply_temp_degc"):
        fleet.step(none, np.zeros((1, 2, 4)), np.array([[math.nan, high]]))


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_who_does_not_use_it_does_not_import_numba():
    code = ("import sys, cosim.simulators.aidc.adapter, cosim.simulators.aidc.compiled.options, "
            "cosim.simulators.controller.steering, cosim.learning.vector; assert 'numba' not in sys.modules")
    assert python(code).returncode == 0


def test_without_numba_one_line_says_what_to_do():
    code = """
import sys
sys.modules["numba"] = None  # as if it were not installed
from cosim.errors import ScenarioError
from cosim.drivers.resolve import load
try:
    load("cosim.simulators.aidc.compiled.fleet:CompiledFleet", "fleet")
except ScenarioError as err:
    print(err)
"""
    said = python(code).stdout
    assert said.count("\n") == 1
    assert "needs numba" in said
    assert "pip install 'aidc-cosim[fast]'" in said


def test_what_cannot_be_kept_on_disk_is_compiled_anyway():
    space = {}
    exec("def add(a, b):\n    return a + b", space)  # numba finds no file that it comes from
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(space["add"])
    assert entry(1)(space["add"])(1, 2) == 3


@pytest.mark.parametrize("seed", range(30))
def test_sums_are_those_of_fsum(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(40) * 10.0 ** rng.integers(-20, 20, 40)
    numbers = np.append(numbers, [-x for x in numbers[:20]])
    partials, count = np.empty(64), 0
    for x in [*numbers, 2.0**-60, 1.0, 2.0**-53]:
        count = add_exactly.py_func(partials, count, x)
    assert rounded.py_func(partials, count) == math.fsum([*numbers, 2.0**-60, 1.0, 2.0**-53])


def test_what_is_kept_depends_on_the_modules_that_constants_come_from(tmp_path, monkeypatch):
    """numba builds their values into the code. Classes and functions, which no kernel takes from elsewhere, do not."""
    text = b"from cosim.units import (\n    HOUR_S,\n    unit_of,\n)\nfrom cosim.params import params\n"
    assert constants_of(text) == [Path(cosim.units.__file__)]
    (tmp_path / "others.py").write_text("SIZE = 1\n")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "one.py").write_text("from cosim.others import SIZE\n")
    monkeypatch.setattr(cosim, "__path__", [*cosim.__path__, str(tmp_path)])
    before = sources_of(tmp_path / "kernels")
    assert sources_of(tmp_path / "kernels") == before
    (tmp_path / "others.py").write_text("SIZE = 2\n")
    assert sources_of(tmp_path / "kernels") != before
