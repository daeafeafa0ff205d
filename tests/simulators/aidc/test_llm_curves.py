"""Curves of replicas from measurements: their fit, their reader, what ships, and what is refused."""

import json
import math
from statistics import median

import pytest

from cosim.errors import ScenarioError
from cosim.params import validate
from cosim.simulators.aidc.engine.events import EventClock
from cosim.simulators.aidc.engine.jobs import Job
from cosim.simulators.aidc.llm.curves import Measured, ServingCurve, fit, held_out
from cosim.simulators.aidc.llm.equations import kv_bytes_per_token, kv_capacity_tokens, not_falling
from cosim.simulators.aidc.llm.published import CURVES, GPUS, MODELS, PROMPT_TOKENS, measured
from cosim.simulators.aidc.llm.replica import Replica
from cosim.simulators.aidc.llm.request import Request, numbers_of
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.aidc.llm.tables import configurations, read_measured
from cosim.simulators.analysis.serving_curves import main
from cosim.simulators.fleet import JobClass

CURVE = {"batch": [1, 9, 17], "step_s": [0.010, 0.018, 0.030], "power_w": [1000, 1400, 1600],
         "prefill_s_per_token": 1e-4}
SERVING = {"model": "Llama-3.1-70B", "gpu": "H100", "gpus": 4}


def made(**changed):
    return JobClass(kind="llm", deadline_s=60, serving={**SERVING, **changed})


def test_curves_are_linear_between_points_and_go_on():
    curve = ServingCurve(**CURVE)
    assert [curve.iteration_s(b, 0) for b in (1, 5, 9, 13, 17, 25)] == pytest.approx(
        [0.010, 0.014, 0.018, 0.024, 0.030, 0.042])
    assert [curve.decode_w(b) for b in (1, 5, 17)] == pytest.approx([1000, 1200, 1600])
    read = ServingCurve(**CURVE, context_tokens=100, context_s_per_token=1e-6)
    assert read.iteration_s(9, 100) == pytest.approx(0.018)  # the point itself
    assert read.iteration_s(9, 1100) == pytest.approx(0.018 + 9 * 1000 * 1e-6)


def test_cache_of_a_70b_model_by_hand():
    """80 layers x 8 heads x 128 x keys and values x 2 bytes = 327 680 bytes a token; 4 x 80 GB x 0.9 - 141.2 GB."""
    assert kv_bytes_per_token(80, 8, 128, 2) == 327_680
    assert kv_capacity_tokens(80, 4, 0.9, 141.2, 327_680) == math.floor((288 - 141.2) * 1e9 / 327_680)


def test_levelling_is_least_squares():
    assert not_falling([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert not_falling([3, 2, 1]) == [2, 2, 2]


def test_a_fit_gives_back_what_made_the_table():
    """ITL 5 ms + 0.1 ms n, a prompt takes 20 ms, 100 tokens a request: held-out points are on the line."""
    rows = [Measured("m", "g", 1, n, itl := 0.005 + 1e-4 * n, 500.0 + n, 100.0, n / (itl + n / 100 * 0.02), 1.0)
            for n in (8, 16, 32, 64)]
    rows = [row._replace(joules=row.power_w / row.tokens_per_s) for row in rows]
    assert fit(rows).prefill_s == pytest.approx(0.02)
    for held in held_out(rows):
        assert (held.tpot_error, held.joules_error) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))


def test_what_ships_is_near_its_measurements():
    """Medians over the points that each fit was made without, at most a tenth; every curve's model fits its GPUs."""
    apart = [held for rows in configurations(measured()).values() for held in held_out(rows)]
    assert len(apart) > 20
    assert median(abs(h.tpot_error) for h in apart) <= 0.10
    assert median(abs(h.joules_error) for h in apart) <= 0.10
    for model, gpu, gpus in CURVES:
        serving = Serving(model=model, gpu=gpu, gpus=gpus, max_context_tokens=8192)
        assert serving.kv_tokens > 8192
        assert MODELS[model].weights_gb < gpus * GPUS[gpu].memory_gb


@pytest.mark.parametrize("batch", [32, 128])
def test_a_replica_kept_at_a_batch_is_as_fast_as_measured(batch):
    """End to end: the engine with as many requests inside as were measured, and their lengths; tokens per s and J per
    token within a tenth."""
    row = next(r for r in measured() if (r.model, r.gpu) == ("Llama-3.1-70B", "H100") and round(r.batch) == batch)
    serving = Serving(**SERVING, max_batch=batch)
    clock, numbers = EventClock(0.0, lambda event: None), numbers_of(serving)
    left, kws, since = [6 * batch], [0.0], [0.0, 0.0]

    def put(_=None):
        left[0] -= 1
        length = round(row.output_tokens * (0.5 + (left[0] * 0.618) % 1.0))  # all different, so that ends spread
        job = Job(left[0], "chat", clock.now, 1.0, 1e9, clock.now, clock.now)
        replica.put(Request(job, round(PROMPT_TOKENS), length, 0), clock.now)

    def power(now_s, *_):
        kws[0] += since[1] * (now_s - since[0])
        since[:] = now_s, replica.kw

    replica = Replica(numbers, clock, lambda *_: clock.signal(clock.now, [put]), lambda *_: None, lambda _: None,
                      power)
    for _ in range(batch):
        put()
    while left[0] > 0:
        clock.step()
    power(clock.now)
    tokens = replica.decoded + replica.prompts
    assert tokens / clock.now == pytest.approx(row.tokens_per_s, rel=0.1)
    idle_kw = serving.gpus * serving.the_gpu.idle_w / 1e3
    assert 1e3 * (kws[0] + idle_kw * clock.now) / tokens == pytest.approx(row.joules, rel=0.1)


def test_tables_in_both_layouts(tmp_path, capsys):
    csv, theirs = tmp_path / "own.csv", tmp_path / "theirs.json"
    csv.write_text("model;gpu;gpus;batch;itl_ms;power_w;output_tokens\nm;g;2;8;10;900;100\nm;g;2;16;12;950;100\n"
                   "m;g;2;32;16;990;100\n")
    theirs.write_text(json.dumps({"configurations": [
        {"model_id": "m", "gpu_model": "g", "num_gpus": 2, "avg_batch_size": b, "median_itl_ms": itl,
         "avg_power_watts": w, "avg_output_len": 100, "output_throughput_tokens_per_sec": b / itl * 1e3}
        for b, itl, w in ((8, 10, 900), (16, 12, 950), (32, 16, 990))]}))
    a, b = read_measured(str(csv)), read_measured(str(theirs))
    assert [row[:6] for row in a] == [row[:6] for row in b]
    assert [row.joules for row in a] == pytest.approx([row.joules for row in b])
    assert main([str(csv)]) == 0
    assert "within 10 %" in capsys.readouterr().out
    assert main([str(csv), "--curve"]) == 0
    curve = json.loads(capsys.readouterr().out)["m on 2 x g"]
    assert ServingCurve(**curve).iteration_s(16, curve["context_tokens"]) == pytest.approx(0.012)


@pytest.mark.parametrize(("text", "said"), [
    ("", "is empty"), ("a,b\n1,2\n", "has no column"), ("{", "is no JSON"), ('{"x": 1}', "no list `configurations`"),
    ("model,gpu,gpus,batch,itl_ms,power_w,output_tokens\nm,g,1,8,-1,9,9\n", "line 2: itl_ms = '-1'"),
    ("model,gpu,gpus,batch,itl_ms,power_w,output_tokens\nm,g,1,8\n", "line 2: it has 4 fields"),
    ("model,gpu,gpus,batch,itl_ms,power_w,output_tokens\nm,g,1.5,8,1,9,9\n", "no whole number"),
])
def test_tables_that_are_none(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError) as err:
        read_measured(str(path))
    assert said in str(err.value)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(("changed", "said"), [
    ({"gpu": "H99"}, "unknown GPU 'H99'"),
    ({"model": "Llama-9"}, "unknown model 'Llama-9'"),
    ({"gpus": 3}, "no measurements ship for Llama-3.1-70B on 3 x H100"),
    ({"gpus": 1, "curve": CURVE}, "weights of 141.2 GB do not fit into 72 GB"),
    ({"curve": {**CURVE, "step_s": [0.010, 0.009, 0.030]}}, "step_s falls from 0.01 to 0.009"),
    ({"curve": {**CURVE, "power_w": [1000, 900, 1600]}}, "power_w falls from 1000 to 900"),
    ({"curve": {**CURVE, "batch": [1, 1, 17]}}, "must ascend"),
    ({"curve": {**CURVE, "power_w": [1000, 1400]}}, "power_w has 2 points and batch 3"),
    ({"curve": {**CURVE, "context_tokens": 1000, "context_s_per_token": 1e-5}}, "make one of them smaller"),
    ({"curve": {**CURVE, "power_w": [100, 140, 160]}}, "below the GPUs' idle power"),
    ({"input_tokens": 0}, "greater than or equal to 1"),
    ({"output_tokens": 10**9}, "less than or equal to 10000000"),
    ({"output_tokens": 40_000}, "more than max_context_tokens = 32768"),
    ({"max_context_tokens": 5_000_000}, "the KV cache holds 447998 tokens"),
    ({"batched_tokens": 256}, "leaves no token for prompts"),
    ({"prefix_hit_ratio": 1.0}, "less than 1"),
    ({"beam": 4}, "unknown field of job_classes.chat.serving 'beam'"),
])
def test_what_cannot_be_served_is_one_line(changed, said):
    with pytest.raises(ScenarioError) as err:
        validate(JobClass, {"kind": "llm", "deadline_s": 60, "serving": {**SERVING, **changed}}, "job_classes.chat")
    assert said in str(err.value)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(("given", "said"), [
    ({"kind": "llm", "deadline_s": 60}, "needs `serving`"),
    ({"kind": "inf", "deadline_s": 60, "work_to": 1, "to_per_gpu_min": 1, "kw_per_to_s": 1, "serving": SERVING},
     "serving is of classes of kind llm"),
    ({"kind": "llm", "deadline_s": 60, "serving": SERVING, "work_to": 5.0}, "follows from `serving`"),
    ({"kind": "llm", "deadline_s": 60, "serving": SERVING, "slo_wait_s": 5.0}, "has no slo_wait_s"),
    ({"kind": "llm", "deadline_s": 60, "serving": SERVING, "patience": "exponential"}, "has no patience"),
])
def test_fields_that_do_not_go_together(given, said):
    with pytest.raises(ScenarioError) as err:
        validate(JobClass, given, "job_classes.chat")
    assert said in str(err.value)


def test_a_class_says_the_same_when_it_is_made_again():
    one = made(prefix_hit_ratio=0.5, input_tokens=1000, output_tokens=100)
    assert one.work_to == pytest.approx(2 * 70.6e9 * (500 + 99) / 1e12)
    assert one.gpus_per_block == 4
    again = JobClass(kind="llm", deadline_s=60, serving=one.serving, work_to=one.work_to,
                     to_per_gpu_min=one.to_per_gpu_min, kw_per_to_s=one.kw_per_to_s, gpus_per_block=4)
    assert again == one
