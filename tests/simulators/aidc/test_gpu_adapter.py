"""`GpuDataCenters` on the bus: what it refuses before a run, and a fleet that goes on in the next world."""

import math
import random

import numpy as np
import pytest

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.gpus.adapter import GpuDataCenters
from cosim.simulators.aidc.gpus.equations import level_within, limited_kw, limited_speed_ratio
from cosim.simulators.aidc.gpus.types import A100_TRAINING, PUBLISHED
from cosim.simulators.fleet import JobClass, Site

TYPES = "shared.sites.aidc1.gpu_types"
PLAIN = "cosim.simulators.aidc.adapter:DataCenters"
NEW = {"count": 400, "idle_kw": 0.04, "peak_kw": 0.35, "speed_ratio": 0.3, "memory_gb": 48}


def check(changes):
    """All checks before a run."""
    return resolve(override(find("ieee33_gpus"), changes))


@pytest.mark.parametrize(("changes", "says"), [
    ({TYPES: {"H1OO": {"count": 400}}}, "unknown GPU type 'H1OO'; did you mean 'H100'?"),
    ({TYPES: {"L40S": {"count": 400, "idle_kw": 0.04}}}, "of another give speed_ratio, peak_kw, memory_gb"),
    ({f"{TYPES}.H100.idle_kw": -1}, "greater than or equal to 0"),
    ({f"{TYPES}.H100.idle_kw": 0.8}, "idle_kw = 0.8 is above peak_kw = 0.7"),
    ({f"{TYPES}.H100.limit_kw": 0.05}, "limit_kw = 0.05 is below idle_kw = 0.07"),
    ({f"{TYPES}.H100.limit_kw": 0.2}, "limit_kw = 0.2 lies outside 0.3479 to 0.7 kW"),
    ({f"{TYPES}.H100.speed_curve": [[0.5, 0.9], [0.7, 0.8], [1, 1]]}, "speed_curve falls from"),
    ({f"{TYPES}.H100.speed_curve": [[0.5, 0.9], [0.5, 0.95], [1, 1]]}, "power must rise and speed must not fall"),
    ({f"{TYPES}.H100.speed_curve": [[0.5, 0.9]]}, "its last point is"),
    ({f"{TYPES}.H100.speed_curve": [[0.0, 0.5], [1, 1]]}, "power and speed are above 0"),
    ({f"{TYPES}.H100.wake_s": -5}, "greater than or equal to 0"),
    ({f"{TYPES}.H100.asleep_kw": 2}, "asleep_kw = 2 is above idle_kw"),
    ({f"{TYPES}.H100.count": 200}, "gpu_types have 300 GPUs in sum, and racks x gpus_per_rack = 50 x 8 = 400"),
    ({"shared.job_classes.llm.memory_gb": 100}, "no GPU that may run it has more than 80 GB"),
    ({"shared.job_classes.llm.gpu_speed_ratio": {"B300": 2}}, "unknown GPU type 'B300'"),
    ({"shared.job_classes.llm.power_table": [1, 0.9]}, "must start with 1 and have max_blocks = 6 entries"),
    ({"shared.job_classes.search.power_table": [1]}, "an inference class has no power_table"),
    ({TYPES: {}}, "sites.aidc1 has no gpu_types"),
    ({"aidc.cap.running": "stop"}, "what runs is slowed for a cap, not stopped"),
    ({"aidc.offer": {}}, "what could be drawn less is not worked out"),
    ({"aidc.rack_mean_up_s": 1000}, "racks do not fail where GPUs have types"),
    ({"aidc.sleep.after_s": 0}, "greater than or equal to 1"),
    ({"aidc.sleep.unit_gpus": 101}, "unit_gpus = 101 is more than the 100 A100 of aidc1"),
    ({"controller.policy": "mpc"}, "where GPUs have types nobody can"),
])
def test_bad_input_is_one_line_before_the_run(changes, says):
    with pytest.raises(ScenarioError) as refused:
        check(changes)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("changes", "says"), [
    ({"shared.sites.aidc2.gpu_types": {"L40S": NEW}}, "sites.aidc2.gpu_types"),
    ({"shared.job_classes.llm.memory_gb": 40}, "job_classes.llm.memory_gb"),
    ({"shared.job_classes.vae.power_table": [1, 1, 1, 1, 0.9]}, "job_classes.vae.power_table"),
    ({"shared.job_classes.llm.gpu_speed_ratio": {"A100": 0.5}}, "job_classes.llm.gpu_speed_ratio")])
def test_data_centers_without_types_refuse_them_by_name(changes, says):
    with pytest.raises(ScenarioError, match="all GPUs of a site are alike") as refused:
        resolve(override(find("ieee33"), changes))
    assert says in str(refused.value)


def test_the_compiled_engine_names_them():
    given = check({}).params["aidc"]
    assert any(why.startswith("gpu_types") for why in unsupported(given))


def test_published_figures_are_those_of_the_sources():
    assert PUBLISHED["H100"] == {"speed_ratio": 1.0, "idle_kw": 0.07, "peak_kw": 0.7, "memory_gb": 80, "host_kw": 0.35}
    assert PUBLISHED["A100"]["speed_ratio"] == pytest.approx(312 / 989, abs=1e-3)
    site = Site(node=0, racks=1, gpus_per_rack=8, gpu_types={"H100": {"count": 8}})
    assert site.rest_kw == pytest.approx(8 * 0.42)  # and no idle power of the study's beside it
    assert site.most_kw([]) == pytest.approx(8.4)  # a node of 8, as measured near full use


# --- equations --------------------------------------------------------------------------------------------------------


def test_speed_under_a_limit_is_linear_between_the_points():
    assert limited_speed_ratio(0.7, 0.7, A100_TRAINING) == 1.0
    assert limited_speed_ratio(0.7, 0.9, A100_TRAINING) == 1.0
    assert limited_speed_ratio(0.4, 0.4 * 0.727, A100_TRAINING) == pytest.approx(0.9)
    assert limited_speed_ratio(0.4, 0.4 * (0.727 + 0.896) / 2, A100_TRAINING) == pytest.approx((0.9 + 0.967) / 2)
    assert limited_speed_ratio(0.4, 0.1, A100_TRAINING) == 0.656


def test_the_level_within_a_budget_is_the_highest():
    """Against a search over fine levels, for random sets of busy GPUs."""
    draw = random.Random(1)
    for _ in range(200):
        busy = []
        for _ in range(draw.randrange(1, 5)):
            least = draw.uniform(0.1, 0.4)
            busy.append((draw.randrange(1, 50), draw.uniform(0.1, 1.0), least, least + draw.uniform(0.0, 0.6)))
        lowest, highest = (sum(n * limited_kw(kw, limit) for n, kw, limit in (
            (b[0], b[1], b[which]) for b in busy)) for which in (2, 3))
        budget = draw.uniform(lowest - 0.1, highest + 0.1)
        level = level_within(budget, busy)

        def drawn(x, busy=busy):
            return sum(n * limited_kw(kw, least + x * (most - least)) for n, kw, least, most in busy)

        assert drawn(level) <= budget + 1e-9 or level == 0.0
        assert level == 1.0 or drawn(min(level + 1e-4, 1.0)) > budget - 1e-9


# --- from one world to the next ---------------------------------------------------------------------------------------

CLASSES = {
    "chat": {"kind": "inf", "work_to": 30.0, "deadline_s": 300.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 2.0},
    "fit": {"kind": "train", "work_to": 480.0, "deadline_s": 900.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 2.0,
            "gpus_per_block": 2, "max_blocks": 2, "restart_s": 5.0}}
SITES = {"near": {"node": 1, "racks": 2, "gpus_per_rack": 8, "gpu_types": {
    "H100": {"count": 10, "wake_s": 90.0}, "A100": {"count": 6, "wake_s": 30.0}}}}


def world():
    member = GpuDataCenters()
    member.init("aidc", 1.0, step_s=60.0, job_classes=CLASSES, sites=SITES, window_s="5min",
                sleep={"after_s": 70.0, "unit_gpus": 2})
    member.create(1, "Site", names=["near"])
    member.setup_done()
    return member


def story(seed):
    """What comes to the site minute by minute; times of arrival are those of the minute."""
    draw, rows, ids = random.Random(seed), [], 0
    for _ in range(24):
        jobs = {name: [] for name in ("id", "job_class", "arrival_s", "work_to", "deadline_s")}
        for _ in range(draw.choice([0, 1, 5, 9])):
            name = draw.choice(["chat", "chat", "fit"])
            for column, value in zip(jobs, (ids, name, 0.0, draw.choice([20.0, 30.0, 75.0] if name == "chat" else [
                    200.0, 480.0]), 300.0 if name == "chat" else 900.0), strict=True):
                jobs[column].append(value)
            ids += 1
        chat = draw.randrange(12)
        rows.append((jobs, [float(chat), float(2 * draw.randrange((16 - chat) // 2 + 1))],
                     draw.choice([math.nan, 0.6, 0.4]), draw.choice([math.nan, math.nan, 14.0, 9.0])))
    return rows


def step(member, k, row, first_id):
    """One minute, numbered k in this world."""
    jobs, gpus, limit, cap = row
    now_s = 60.0 * k
    batch = {**jobs, "arrival_s": [now_s] * len(jobs["id"]), "id": [first_id + j for j in jobs["id"]],
             "deadline_s": [now_s + due for due in jobs["deadline_s"]]} if jobs["id"] else {}
    values = member.advance(now_s, {"near": {
        "jobs": batch, "gpus": gpus, "supply_temp_degc": 23.0, "wet_bulb_degc": math.nan, "dry_bulb_degc": math.nan,
        "p_cap_kw": cap, "gpu_limit_set_kw": [limit, math.nan], "awake_set_gpus": math.nan}})
    return values["near"]


@pytest.mark.parametrize("seed", range(6))
def test_a_world_cut_in_two_goes_on_as_one(seed):
    """To rounding: the clock of work of each type begins anew."""
    whole, rows, cut = world(), story(seed), 7 + 2 * seed
    expected = [step(whole, k, row, 0) for k, row in enumerate(rows)]
    first = world()
    for k, row in enumerate(rows[:cut]):
        step(first, k, row, 0)
    second = world()
    second.resume(first.carry())
    names = ("p_kw", "state_gpus", "state_kw", "work_to", "busy_gpus", "queued_jobs", "finished_jobs", "dropped_jobs",
             "gpu_limit_kw", "slowed_s", "pending_work_to")
    for k, row in enumerate(rows[cut:]):
        values = step(second, k, row, 0)
        for name in names:
            np.testing.assert_allclose(values[name], expected[cut + k][name], rtol=1e-6, atol=1e-5, err_msg=name)


def test_a_site_knows_what_its_types_are_worth():
    site = Site(node=0, racks=2, gpus_per_rack=8, gpu_types={"H100": {"count": 10}, "A100": {"count": 6}})
    wide = JobClass(kind="train", work_to=1.0, deadline_s=1.0, to_per_gpu_min=60.0, kw_per_to_s=1.0, gpus_per_block=4,
                    max_blocks=4, gpu_speed_ratio={"A100": 0.5})
    assert site.usable_gpus(wide) == 10 + 6 * 0.5
    assert site.top_to_per_s(wide) == 8.0  # two blocks of H100; one of A100 does 2 TO/s
    assert site.reference_gpus == pytest.approx(10 + 6 * 0.315)
