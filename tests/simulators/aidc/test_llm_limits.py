"""Power limits of replicas: iterations and power by hand, caps of the site, what is refused."""

import math
import random

import pytest
from small_site import CLASSES, PLAIN, SITE, batch, requests

from cosim.errors import ModelError, ScenarioError
from cosim.params import validate
from cosim.run import find
from cosim.scenario import Link, Member, override
from cosim.simulators.aidc.capped import SlowingParams
from cosim.simulators.aidc.engine.capped import NO_CAP_KW, CapRules
from cosim.simulators.aidc.gpus.equations import limited_speed_ratio
from cosim.simulators.aidc.gpus.speed_curves import A100_TRAINING
from cosim.simulators.aidc.llm.capped import CappedLlmDataCenters
from cosim.simulators.aidc.llm.capped_facility import CappedServingFacility
from cosim.simulators.aidc.llm.published import SPEED_CURVES
from cosim.simulators.aidc.llm.request import numbers_of
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.analysis.serving_curves import main
from cosim.simulators.fleet import JobClass

CURVE = {"batch": [1, 11], "step_s": [0.010, 0.020], "power_w": [600, 1000], "prefill_s_per_token": 1e-3,
         "prefill_power_w": 1400}
SERVING = {"model": "Llama-3.1-8B", "gpu": "H100", "gpus": 2, "curve": CURVE, "startup_s": 30, "keep_on_s": 0,
           "max_context_tokens": 1000, "input_tokens": 100, "output_tokens": 100, "max_batch": 4,
           "decode_speed_curve": [[0.5, 0.5], [1, 1]], "prefill_speed_curve": [[0.3, 0.4], [1, 1]]}
CHAT_70B = {"model": "Llama-3.1-70B", "gpu": "H100", "gpus": 4}
CAPPED = "cosim.simulators.aidc.llm.capped:CappedLlmDataCenters"


def site(rules=None, slow_for_cap=True, at_arrival=False, **serving):
    chat = JobClass(kind="llm", deadline_s=60, serving={**SERVING, **serving})
    return CappedServingFacility("a", SITE, {"chat": chat, "fit": CLASSES["fit"]}, PLAIN, 20.0,
                                 rules or CapRules(), "cap", slow_for_cap, at_arrival=at_arrival), chat.serving


def meter_kw(busy_kw):
    """40 kW of idle power and a quarter for cooling."""
    return (40.0 + busy_kw) * 1.25


def test_numbers_under_a_limit_by_hand():
    """At 0.25 kW a GPU: a batch of 1 (0.3 kW) at 5/6 of its speed, of 4 (0.36 kW) at 25/36, prefill (0.7 kW) at
    0.4 + 0.6 x (25/70 - 0.3) / 0.7; power is the limit, less 70 W idle, on two GPUs."""
    serving = Serving(**SERVING)
    free, slow = numbers_of(serving, math.inf), numbers_of(serving, 0.25)
    assert free == numbers_of(serving)
    assert free.slow_from > 4
    assert not free.slow_prefill
    assert slow.base_s[1] == pytest.approx(0.010 * 6 / 5)
    assert slow.base_s[4] == pytest.approx(0.013 * 36 / 25)
    assert slow.prefill_s == pytest.approx(1e-3 / (0.4 + 0.6 * (25 / 70 - 0.3) / 0.7))
    assert slow.batch_kw[1:] == pytest.approx([0.36] * 4)
    assert slow.prefill_kw == pytest.approx(0.36)
    assert (slow.slow_from, slow.slow_prefill) == (0, True)
    some = numbers_of(serving, 0.33)
    assert (some.slow_from, some.batch_kw[:3]) == (3, free.batch_kw[:3])
    assert some.base_s[:3] == free.base_s[:3]


def test_the_plan_of_a_class_is_that_under_its_limit():
    free, slow = (Serving(**SERVING, **more, slo_tpot_s=0.0125, target_batch_ratio=1.0) for more in (
        {}, {"limit_kw": 0.3}))
    assert slow.gpu_s_per_request(4) == pytest.approx(2 * (100 * 0.013 * 36 / 30 / 4 + 100 * slow_prefill(0.3)))
    assert slow.busy_kw_per_gpu == pytest.approx(0.23)
    assert free.busy_kw_per_gpu == pytest.approx(0.29)
    assert (free.slo_batch, slow.slo_batch) == (3, 2)


def test_the_lowest_limit_within_a_service_level():
    """A batch of 4 takes 13 ms at 0.36 kW a GPU: 16 ms at 13/16 of the speed, and power; 30 ms at the lowest limit;
    12 ms never."""
    found = [Serving(**SERVING, slo_tpot_s=slo).slo_limit_kw(4) for slo in (0.016, 0.030, 0.012, None)]
    assert found == [pytest.approx(0.36 * 13 / 16), pytest.approx(0.21), None, None]


def slow_prefill(limit_kw):
    return 1e-3 / limited_speed_ratio(0.7, limit_kw, ((0.3, 0.4), (1.0, 1.0)))


def test_a_limit_holds_from_the_next_iteration_on():
    """A prompt of 0.11 s, then 50 iterations of 10 ms; at 0.205 s a limit of 0.25 kW: the 10th ends as it began, 40
    take 12 ms at 0.36 kW above idle."""
    facility, serving = site()
    facility.submit(requests(serving, (1, 0, 100, 51)))
    facility.command([2, 0], 20.0)
    facility.limit_power([math.nan, math.nan])
    facility.advance(0.205)
    facility.limit_power([0.25, math.nan])
    facility.advance(10.0)
    facility.read_interval()
    end_s = 0.11 + 0.1 + 40 * 0.012
    whole_kws = 0.46 * (0.01 + 0.1) + 1.26 * 0.1 + 0.36 * 0.48 + 0.1 * (10 - end_s)
    chat = facility.ticks["chat"]
    assert chat.dynamic_kw * 10 == pytest.approx(whole_kws)
    assert facility.limits.slowed_s == [pytest.approx(0.48), 0.0]
    assert facility.limits.limit_kw == [pytest.approx((0.7 * 0.205 + 0.25 * 9.795) / 10), 0.0]
    (row,) = zip(*facility.request_rows().values(), strict=True)
    assert row[8:11] == (0.0, pytest.approx(0.11), pytest.approx(end_s))
    gaps = facility.gap_rows()
    assert sum(n for low, n in zip(gaps["gap_from_s"], gaps["tokens"], strict=True) if low > 0.011) == 40


def test_commands_are_kept_within_what_a_class_can():
    facility, serving = site(limit_kw=0.5)
    assert serving.least_limit_kw == pytest.approx(0.21)  # 0.3 of a prompt's 0.7 kW
    for given, kept in ((0.6, 0.6), (0.1, 0.21), (2.0, 0.7), (math.nan, 0.5)):
        facility.limit_power([given, 9.0])
        facility.advance(facility.now_s + 1.0)
        facility.read_interval()
        assert facility.limits.limit_kw == [pytest.approx(kept), 0.0]
    assert facility.clipped_limits == 2
    other, _ = site(gpu="B200", decode_speed_curve=None, prefill_speed_curve=None, curve={**CURVE, "power_w": [
        800, 1000]})
    other.limit_power([math.nan, math.nan])
    with pytest.raises(ModelError, match="commanded of chat: no speed under a power limit is published for B200"):
        other.limit_power([0.5, math.nan])


def with_training(facility, serving):
    """A replica with one long answer, 0.46 kW above idle, and three blocks of training, 12 kW."""
    fit = batch(0.0, (9, "fit", 48000, 9000))
    facility.submit({**fit, "input_tokens": [0], "output_tokens": [0]})
    facility.submit(requests(serving, (1, 0, 100, 900)))
    facility.command([2, 6], 20.0)
    facility.advance(1.0)
    assert facility.read_interval().busy_gpus[1] == pytest.approx(6.0)


def test_replicas_are_slowed_before_training_gives_way():
    """12.4 kW: the replica's GPUs may draw 0.2 kW above idle, 0.27 in all, 9/10 of the speed."""
    facility, serving = site()
    with_training(facility, serving)
    facility.command([2, 6], 20.0)
    facility.cap(meter_kw(12.4))
    facility.advance(5.0)
    did = facility.read_interval()
    assert did.busy_gpus == pytest.approx([2.0, 6.0])
    assert facility.limits.capped_s == pytest.approx(4.0)
    assert facility.limits.limit_kw[0] == pytest.approx(0.27)
    assert facility.ticks["chat"].output_tokens == pytest.approx(4 / (0.010 / 0.9), abs=1.5)
    assert did.it_kw == pytest.approx(40 + 12.4, abs=0.001)  # but for an iteration of 10 ms
    facility.command([2, 6], 20.0)
    facility.cap(NO_CAP_KW)
    facility.advance(6.0)
    facility.read_interval()
    assert (facility.limits.capped_s, facility.limits.limit_kw[0]) == (0.0, pytest.approx(0.7))


@pytest.mark.parametrize(("slows", "left_kw", "blocks", "limit_kw"), [
    (True, 12.2, 2, 0.7), (False, 12.4, 2, 0.7), (False, 12.5, 3, 0.7), (True, 12.28, 3, 0.21)])
def test_training_gives_way_where_the_lowest_limits_are_not_enough(slows, left_kw, blocks, limit_kw):
    """0.28 kW of a replica at the lowest limits; without limits 0.46."""
    facility, serving = site(slow_for_cap=slows)
    with_training(facility, serving)
    facility.command([2, 6], 20.0)
    facility.cap(meter_kw(left_kw))
    facility.advance(5.0)
    assert facility.read_interval().busy_gpus == pytest.approx([2.0, 2.0 * blocks])
    assert facility.limits.limit_kw[0] == pytest.approx(limit_kw)


def test_a_request_that_comes_lowers_the_limits_until_the_next_tick():
    """At 2.25 s a second request's prompt may draw 1.26 kW above idle, and 1 kW is left: 0.57 kW a GPU from then on."""
    facility, serving = site(at_arrival=True)
    facility.submit(requests(serving, (1, 0, 100, 900), (2, 2.25, 100, 5)))
    facility.command([2, 0], 20.0)
    facility.advance(1.0)
    facility.read_interval()
    facility.command([2, 0], 20.0)
    facility.cap(meter_kw(1.0))
    facility.advance(2.0)
    facility.read_interval()
    assert facility.limits.limit_kw[0] == pytest.approx(0.7)
    facility.advance(2.75)
    facility.submit(requests(serving))  # nothing comes, and nothing is drawn that needs the limit any more
    facility.advance(3.0)
    facility.read_interval()
    assert facility.limits.limit_kw[0] == pytest.approx(0.25 * 0.7 + 0.75 * 0.57, abs=1e-4)
    assert facility.limits.slowed_s[0] == pytest.approx(0.1 / limited_speed_ratio(
        0.7, 0.57, serving.prefill_speed_curve) + 0.011, rel=0.01)
    facility.command([2, 0], 20.0)
    facility.advance(4.0)
    facility.read_interval()
    assert facility.limits.limit_kw[0] == pytest.approx(0.7)


def test_a_larger_batch_and_a_limit_in_the_instant_in_which_a_run_begins():
    """The prompt is through at 0.11 s: the next iteration takes 12 ms at 0.25 kW, and the second is admitted then."""
    facility, serving = site()
    facility.limit_batches([1.0, math.nan])
    facility.submit(requests(serving, (1, 0, 100, 500), (2, 0, 10, 5)))
    facility.command([2, 0], 20.0)
    facility.advance(0.11)
    facility.limit_batches([2.0, math.nan])
    facility.limit_power([0.25, math.nan])
    facility.advance(10.0)
    facility.read_interval()
    rows = facility.request_rows()
    assert dict(zip(rows["id"], rows["start_s"], strict=True))[2] == pytest.approx(0.11 + 0.012)


@pytest.mark.parametrize(("running", "replicas"), [("pause", 1), ("keep", 2)])
def test_replicas_without_power_go_off_with_their_last_request(running, replicas):
    """Two replicas of 0.28 kW at least, 0.3 kW: one takes nothing new, the one with less to do; no third is switched
    on."""
    facility, serving = site(CapRules(running=running))
    facility.submit(requests(serving, (1, 0, 10, 900), (2, 0, 10, 300)))
    facility.command([4, 0], 20.0)
    facility.advance(1.0)
    facility.read_interval()
    facility.command([6, 0], 20.0)
    facility.cap(meter_kw(0.3))
    facility.submit(requests(serving, (3, 1, 10, 20)))
    facility.advance(9.0)
    did = facility.read_interval()
    assert did.finished_jobs[0] == 2  # the new one is served where there is power
    assert facility.ticks["chat"].replicas == replicas
    assert facility.held_gpus()[0] > 0.0
    facility.command([6, 0], 20.0)
    facility.cap(NO_CAP_KW)
    facility.advance(10.0)
    facility.read_interval()
    assert facility.ticks["chat"].replicas == 3


def random_minute(rng, classes, now_s, first):
    """Jobs of all kinds, from id `first` on."""
    rows = []
    for k in range(rng.randint(0, 10)):
        name = rng.choice(list(classes))
        prompt, answer = (rng.randint(1, 300), rng.randint(1, 400)) if classes[name].kind == "llm" else (0, 0)
        work_to = classes[name].serving.request_to(prompt, answer) if prompt else rng.choice([10.0, 100.0])
        rows.append((first + k, name, now_s, work_to, now_s + rng.choice([5, 60, 900]), prompt, answer))
    columns = ("id", "job_class", "arrival_s", "work_to", "deadline_s", "input_tokens", "output_tokens")
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}


@pytest.mark.parametrize("slows", [True, False])
def test_within_the_cap_but_for_what_ends_as_it_began(slows):
    """Whatever comes and is commanded: what is drawn beyond the budget is drawn by iterations that began before, by
    replicas that go off with their last request, or by inference that runs and may not be stopped."""
    rng, seen = random.Random(7), 0
    small = {**SERVING, "gpus": 1, "curve": {**CURVE, "power_w": [300, 500], "prefill_power_w": 650}, "max_batch": 3}
    classes = {"chat": JobClass(kind="llm", deadline_s=60, serving=SERVING), "search": CLASSES["chat"],
               "small": JobClass(kind="llm", deadline_s=60, serving=small), "fit": CLASSES["fit"]}
    for world in range(8):
        rules = CapRules(gives_way=rng.choice([("train", "inf"), ("inf", "train")]))
        facility = CappedServingFacility("a", SITE, classes, PLAIN, 20.0, rules, "cap", slows)
        for tick in range(10):
            if jobs := random_minute(rng, classes, facility.now_s, 100 * tick):
                facility.submit(jobs)
            facility.command(rng.choice([[6, 2, 2, 0], [4, 0, 2, 4], [2, 2, 2, 4], [0, 1, 1, 6], [4, 0, 1, 4]]), 20.0)
            facility.limit_power([rng.choice([math.nan, 0.3, 0.5]), 0.0, rng.choice([math.nan, 0.25, 0.6]), 0.0])
            facility.cap(rng.choice([NO_CAP_KW, meter_kw(rng.uniform(0.0, 12.0))]))
            for _ in range(20):
                facility.advance(facility.now_s + 0.5)
                search, fit = (facility.state().busy_gpus[k] for k in (1, 3))
                replica_kw = sum(pool.kw for pool in facility.served)
                beyond_kw = 2.0 * (search + fit) + replica_kw - facility.budget_kw
                seen += facility.budget_kw < 2.0 * 12
                if beyond_kw > 1e-9 and 2.0 * search <= facility.budget_kw:
                    on = [replica for pool in facility.served for replica in pool.group]
                    ending_kw = sum(r.kw for r in on if r.state == "draining" or r._next is not None)
                    assert beyond_kw <= ending_kw + 1e-9, (world, tick)
            facility.read_interval()
    assert seen > 300


def test_replicas_give_way_as_inference():
    """The study has a training class of the name llm, which is no kind here."""
    classes = {"llm": CLASSES["fit"], "chat": JobClass(kind="llm", deadline_s=60, serving=SERVING),
               "search": CLASSES["chat"]}
    assert CapRules().ranked(classes, "cap") == [0, 1, 1]
    assert CapRules(gives_way=("chat", "train")).ranked(classes, "cap") == [1, 0, 2]


def test_what_ships_is_what_is_published():
    h100 = Serving(**CHAT_70B)
    assert h100.prefill_ratio(0.5 * h100.the_curve.prefill_w / 4e3) == pytest.approx(1 / 1.3, abs=0.001)
    assert h100.decode_ratio(64, 0.72 * h100.the_curve.decode_w(64) / 4e3) == 0.94
    assert h100.decode_ratio(8, h100.the_curve.decode_w(8) / 4e3) == 1.0
    assert h100.least_limit_kw == pytest.approx(0.72 * h100.the_curve.decode_w(256) / 4e3)
    assert SPEED_CURVES["A100"].prefill is A100_TRAINING
    assert Serving(model="Llama-3.1-70B", gpu="B200", gpus=2).not_limited.startswith("no speed under a power limit")


def test_the_command_prints_iterations_under_a_limit(capsys):
    """70B on H100, a batch of 128: 0.546 kW, 27.87 ms; 0.45 of it leaves 0.94 + 0.06 x (0.45/0.546 - 0.72) / 0.28."""
    assert main(["--model", "70B", "--limit-kw", "0.45"]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if " 128 " in line and "4 x H100" in line).split()
    speed = 0.94 + 0.06 * (0.45 / 0.546 - 0.72) / 0.28
    assert [float(x) for x in row[-5:-2]] == pytest.approx([27.87, 2184 * 0.02787 / 127.6, 0.45], rel=1e-3)
    assert [float(x) for x in row[-2:]] == pytest.approx([27.87 / speed, 1800 * 0.02787 / speed / 127.6], rel=1e-3)
    assert "left out: Llama-3.1-70B on 2 x B200: no speed under a power limit is published for B200" in said
    for words, wrong in ((["--limit-kw", "0.9"], "above the TDP of H100, 0.7 kW"),
                         (["--limit-kw", "nan"], "a number above 0"), (["--limit-kw", "0"], "a number above 0")):
        assert main(words) == 2
        assert wrong in capsys.readouterr().err


@pytest.mark.parametrize(("changed", "said"), [
    ({"limit_kw": 0.9}, "limit_kw = 0.9 lies outside 0.4238 to 0.7 kW, the GPU's TDP"),
    ({"limit_kw": 0.3}, "the speed curves begin at 0.5 of what prefill and 0.72 of what the largest batch draws"),
    ({"limit_kw": 0}, "greater than 0"),
    ({"gpu": "B200", "gpus": 2, "limit_kw": 0.5}, "no speed under a power limit is published for B200; give"),
    ({"gpu": "B200", "gpus": 2, "limit_kw": 0.5, "decode_speed_curve": [[1, 1]]}, "is published for B200; give"),
    ({"decode_speed_curve": [[0.5, 0.9], [0.4, 1.0], [1, 1]]}, "decode_speed_curve falls from [0.5, 0.9] to"),
    ({"prefill_speed_curve": [[0.5, 0.9], [0.7, 0.8], [1, 1]]}, "prefill_speed_curve falls from [0.5, 0.9] to"),
    ({"decode_speed_curve": [[0.5, 0.9]]}, "its last point is [1, 1]"),
    ({"prefill_speed_curve": [[0, 0.9], [1, 1]]}, "power and speed are above 0"),
    ({"prefill_speed_curve": []}, "prefill_speed_curve"),
])
def test_limits_that_cannot_be_are_one_line(changed, said):
    with pytest.raises(ScenarioError) as err:
        validate(JobClass, {"kind": "llm", "deadline_s": 60, "serving": {**CHAT_70B, **changed}}, "job_classes.chat")
    assert said in str(err.value)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(("more", "said"), [
    ({"aidc.cap": {"running": "stop"}}, "aidc.cap.running = stop: what runs is slowed for a cap, not stopped"),
    ({"aidc.offer": {}}, "aidc.offer: what could be drawn less is not worked out for replicas"),
    ({"aidc.rack_mean_up_s": 3600}, "racks do not fail at sites that serve language models"),
    ({f"shared.job_classes.{name}.serving.gpu": {
        "memory_gb": 80, "bandwidth_gb_per_s": 3350, "peak_tflops": 989, "tdp_w": 700, "idle_w": 70, "loaded_w": 50}
        for name in ("chat", "reasoning", "code")} | {f"shared.job_classes.{name}.serving.curve": {
            "batch": [1, 9], "step_s": [0.01, 0.02], "power_w": [3000, 4000], "prefill_s_per_token": 1e-4}
            for name in ("chat", "reasoning", "code")},
     "aidc.gpu_limit_set_kw is linked, but no class can have a limit: job_classes.chat.serving: no speed"),
])
def test_what_does_not_go_with_limits_is_said_before_the_run(more, said):
    day = override(find("llm_day"), {"aidc.simulator": CAPPED, **more})
    said_by = Member(simulator="gpu_commander:Commander", step_s=60, entities={"Site": "sites"}, params={
        "limits_kw": [[0.5]], "awake": [[-1]], "cap_kw": [-1]})
    scenario = day.replace(members={**day.members, "said": said_by}, links=(*day.links, Link(
        source="said.gpu_limit_set_kw", target="aidc.gpu_limit_set_kw")))
    member = scenario.members["aidc"]
    given = validate(SlowingParams, {"job_classes": scenario.shared["job_classes"], "sites": scenario.shared["sites"],
                                     "routing": "arrival", **member.params}, "aidc")
    with pytest.raises(ScenarioError) as err:
        CappedLlmDataCenters.check_scenario("aidc", given, scenario)
    assert said in str(err.value)
    assert "\n" not in str(err.value)
