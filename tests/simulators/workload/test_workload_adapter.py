"""Arrivals and a trace as members of a co-simulation."""

from pathlib import Path

import numpy as np
import pytest

from cosim import seeds
from cosim.errors import ScenarioError
from cosim.params import validate
from cosim.simulators.fleet import BATCH_COLUMNS, OffersLoad
from cosim.simulators.workload.adapter import Arrivals, ArrivalsParams
from cosim.simulators.workload.azure_llm import AzureLlm, AzureLlmParams

SAMPLE = str(Path(__file__).parents[2] / "data" / "azure_llm_sample.csv")
CLASSES = {
    "llm": {"kind": "train", "work_to": 6.91e8, "deadline_s": "12h", "to_per_gpu_min": 6e4, "kw_per_to_s": 7e-4},
    "search": {"kind": "inf", "work_to": 1.5e7, "deadline_s": "15min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 2e-4},
    "chat": {"kind": "inf", "work_to": 600.0, "deadline_s": "1min", "to_per_gpu_min": 2.5e5, "kw_per_to_s": 2e-4},
}
LLM = {"mean_per_min": 0.2, "amplitude_per_min": 0.1, "period_min": 90, "sigma_per_min": 0.02}
SEARCH = {"mean_per_min": 20.0, "amplitude_per_min": 5.0, "period_min": 30, "phase": 5.0, "sigma_per_min": 1.0}
BOTH = {"llm": LLM, "search": SEARCH}


def started(kind=Arrivals, seed=0, episode=0, **params):
    simulator = kind()
    simulator.init("workload", 60.0, step_s=60.0, seed=seed, episode=episode, job_classes=CLASSES, **params)
    simulator.create(1, "Arrivals", ["all"])
    simulator.setup_done()
    return simulator


def play(simulator, minutes):
    """Batches of `minutes` ticks, and all of them as one table; every tick passes the base's own check."""
    batches, table = [], {name: [] for name in BATCH_COLUMNS}
    for k in range(minutes):
        simulator.step(k, {}, k + 1)
        out = simulator.get_data({"all": ["jobs", "arrived_jobs"]})["all"]
        batches.append(out["jobs"])
        for name, column in out["jobs"].items():
            table[name] += column
        assert sum(out["arrived_jobs"]) == len(out["jobs"].get("id", ()))
    return batches, table


def arrivals_of(table, name):
    return [t for t, c in zip(table["arrival_s"], table["job_class"], strict=True) if c == name]


def test_every_minute_brings_the_jobs_of_the_minute_before():
    batches, table = play(started(arrivals=BOTH, inf_size_scale=0.5), 600)  # more than two blocks of 240
    assert batches[0] == {}
    for k, batch in enumerate(batches[1:], 1):
        if batch:
            assert tuple(batch) == BATCH_COLUMNS
            assert all(60.0 * (k - 1) <= t < 60.0 * k for t in batch["arrival_s"])
    assert table["id"] == list(range(len(table["id"])))
    assert table["arrival_s"] == sorted(table["arrival_s"])
    for name, work, deadline_s in (("llm", 6.91e8, 43200.0), ("search", 0.75e7, 900.0)):
        rows = [k for k, c in enumerate(table["job_class"]) if c == name]
        assert {table["work_to"][k] for k in rows} == {work}
        assert all(table["deadline_s"][k] == table["arrival_s"][k] + deadline_s for k in rows)


def test_patience_may_be_exponential():
    """About 12 000 requests with a mean patience of 900 s: the mean within four standard errors (900 / sqrt n), a share
    1 - 1/e of them below it, and nothing else of the jobs is changed."""
    impatient = {**CLASSES, "search": {**CLASSES["search"], "patience": "exponential"}}
    simulator = Arrivals()
    simulator.init("workload", 60.0, step_s=60.0, seed=0, job_classes=impatient, arrivals=BOTH)
    simulator.create(1, "Arrivals", ["all"])
    simulator.setup_done()
    _, table = play(simulator, 600)
    _, usual = play(started(arrivals=BOTH), 600)
    assert all(table[name] == usual[name] for name in ("id", "arrival_s", "work_to", "job_class"))
    search = np.array(table["job_class"]) == "search"
    lasts_s = (np.array(table["deadline_s"]) - np.array(table["arrival_s"]))[search]
    n = len(lasts_s)
    assert n > 10_000
    assert lasts_s.mean() == pytest.approx(900.0, abs=4 * 900 / np.sqrt(n))
    assert (lasts_s < 900.0).mean() == pytest.approx(1 - np.exp(-1), abs=4 * 0.5 / np.sqrt(n))
    assert np.array_equal(np.array(table["deadline_s"])[~search], np.array(usual["deadline_s"])[~search])
    with pytest.raises(ScenarioError, match="patience of a training class is 'exponential'"):
        Arrivals().init("workload", 60.0, step_s=60.0, arrivals={}, job_classes={
            "llm": {**CLASSES["llm"], "patience": "exponential"}})


def test_values_are_plain_python():
    batch = play(started(arrivals=BOTH), 3)[0][2]
    assert [type(batch[name][0]) for name in BATCH_COLUMNS] == [int, str, float, float, float]


def test_same_seed_same_jobs_other_seed_or_episode_others():
    first = play(started(arrivals=BOTH), 300)[1]
    assert play(started(arrivals=BOTH), 300)[1] == first
    assert play(started(arrivals=BOTH, seed=1), 300)[1] != first
    assert play(started(arrivals=BOTH, episode=1), 300)[1] != first


@pytest.mark.rows("I37", "M16")
def test_a_class_does_not_shift_another():
    """Decision 8: neither a class more, nor another rate of it, nor its scale touches the others' arrivals."""
    llm = arrivals_of(play(started(arrivals={"llm": LLM}), 700)[1], "llm")
    assert len(llm) > 60
    for arrivals in (BOTH, {"search": {**SEARCH, "mean_per_min": 60.0}, "llm": LLM}):
        assert arrivals_of(play(started(arrivals=arrivals), 700)[1], "llm") == llm
    search = arrivals_of(play(started(arrivals=BOTH), 700)[1], "search")
    assert arrivals_of(play(started(arrivals=BOTH, train_rate_scale=0.3), 700)[1], "search") == search
    assert arrivals_of(play(started(arrivals=BOTH, train_size_scale=2, inf_size_scale=2), 700)[1], "llm") == llm


@pytest.mark.rows("I02")
def test_scales_multiply_mean_amplitude_and_sigma():
    params = validate(ArrivalsParams, {"job_classes": CLASSES, "arrivals": BOTH, "rate_scale": 0.5,
                                       "train_rate_scale": 0.7, "inf_size_scale": 0.02}, "workload")
    assert Arrivals.offered_jobs_per_min(params) == {"llm": (pytest.approx(0.07), 6.91e8), "search": (10.0, 3e5)}
    assert isinstance(Arrivals, OffersLoad), "the check before a run has the class"
    assert isinstance(Arrivals(), OffersLoad)
    scaled = {"llm": {**LLM, "mean_per_min": 0.07, "amplitude_per_min": 0.035, "sigma_per_min": 0.007}}
    by_scale = play(started(arrivals={"llm": LLM}, rate_scale=0.5, train_rate_scale=0.7), 700)[1]
    by_hand = play(started(arrivals=scaled), 700)[1]
    assert by_scale["arrival_s"] == by_hand["arrival_s"]


def test_mean_rate_over_two_days():
    # whole periods of 30 min; sd of the sum: sqrt(n (mean + sigma^2)) = sqrt(2880 * 21) = 246
    table = play(started(arrivals={"search": SEARCH}), 2881)[1]
    assert abs(len(table["id"]) - 57600) < 4.5 * 246


def test_rounding_brings_no_training_job(): # 2.5
    table = play(started(arrivals=BOTH, counts="round"), 1440)[1]
    assert arrivals_of(table, "llm") == []
    assert len(arrivals_of(table, "search")) == pytest.approx(20.0 * 1439, rel=0.01)


@pytest.mark.parametrize("minutes", [100, 241, 301])
@pytest.mark.rows("M06")
def test_clipping_is_counted_and_said(minutes):
    # a mean of 0 and noise alone: the rate is negative in exactly the steps with a negative normal number
    simulator = started(arrivals={"llm": {"mean_per_min": 0.0, "sigma_per_min": 1.0}})
    play(simulator, minutes)
    noise = seeds.stream(0, 0, "workload", "noise of llm").standard_normal(480)
    below = int((noise[: minutes - 1] < 0).sum())
    assert simulator.notes() == [f"workload: the arrival rate of llm was below 0 in {below} of {minutes - 1} steps and "
                                 "counted as 0 there"]


def test_nothing_to_say_without_clipping():
    simulator = started(arrivals={"search": SEARCH})
    assert simulator.notes() == []
    play(simulator, 50)
    assert simulator.notes() == []


def test_other_steps_than_a_minute_keep_the_rate():
    simulator = Arrivals()
    simulator.init("workload", 60.0, step_s=900.0, job_classes=CLASSES, arrivals={"search": SEARCH})
    simulator.create(1, "Arrivals", ["all"])
    simulator.setup_done()
    jobs = [len(simulator.advance(900.0 * k, {})["all"]["jobs"].get("id", ())) for k in range(193)]
    assert jobs[0] == 0
    # quarter hours alternate between the two halves of the 30-min sine, so its samples cancel; two days, as above
    assert abs(sum(jobs) - 57600) < 4.5 * 250


def test_errors_name_what_is_wrong():
    with pytest.raises(ScenarioError, match="unknown job class 'serch'; did you mean 'search'"):
        started(arrivals={"serch": SEARCH})
    simulator = Arrivals()
    simulator.init("workload", 60.0, job_classes=CLASSES, arrivals=BOTH)
    simulator.create(2, "Arrivals")
    with pytest.raises(ScenarioError, match="create one entity of Arrivals, not 2"):
        simulator.setup_done()
    with pytest.raises(ScenarioError, match=r"workload.arrivals.llm.*unknown field|unknown field of workload.arrivals"):
        started(arrivals={"llm": {"mean": 3.0}})


# --- the trace --------------------------------------------------------------------------------------------------------

TRACE = {"path": SAMPLE, "trace_class": "chat"}
OFFSETS_S = [0.0, 4.314579, 34.541877, 59.9999999, 60.0, 134.81941, 163.31941, 203.4428667]


def test_requests_come_at_their_times_with_the_work_of_their_tokens():
    batches, table = play(started(AzureLlm, **TRACE), 6)
    assert [len(b.get("id", ())) for b in batches] == [0, 4, 1, 2, 1, 0]
    assert table["arrival_s"] == pytest.approx(OFFSETS_S, abs=1e-6)
    assert table["id"] == list(range(8))
    assert set(table["job_class"]) == {"chat"}
    # 0.14 TO per token at peak: 1000 / 0.5 + 100 / 0.1 = 3000 tokens, and 0 / 0.5 + 40 / 0.1 = 400 tokens
    assert table["work_to"][0] == pytest.approx(420.0)
    assert table["work_to"][6] == pytest.approx(56.0)
    assert table["deadline_s"][1] == table["arrival_s"][1] + 60.0


def test_stochastic_arrivals_are_the_same_beside_a_trace():
    alone = play(started(arrivals=BOTH), 300)[1]
    beside = play(started(AzureLlm, arrivals=BOTH, **TRACE), 300)[1]
    for name in BOTH:
        assert arrivals_of(beside, name) == arrivals_of(alone, name)
    assert len(arrivals_of(beside, "chat")) == 8
    assert beside["id"] == list(range(len(beside["id"])))
    assert beside["arrival_s"] == sorted(beside["arrival_s"])


def azure(**params):
    return validate(AzureLlmParams, {"job_classes": CLASSES, **TRACE, **params}, "workload")


def test_length_and_load_of_the_trace():
    # the last request comes at 203.4 s: four minutes hold it; stretched by 10, 34 minutes; repeated, no end
    assert AzureLlm.natural_horizon_s(azure()) == 300.0
    assert AzureLlm.natural_horizon_s(azure(time_scale=10)) == 2100.0
    assert AzureLlm.natural_horizon_s(azure(repeat=True)) is None
    params = validate(ArrivalsParams, {"job_classes": CLASSES, "arrivals": BOTH}, "workload")
    assert Arrivals.natural_horizon_s(params) is None
    rate, work_to = AzureLlm.offered_jobs_per_min(azure(trace_rate_scale=0.5, trace_work_scale=10))["chat"]
    assert rate == 1.0  # 8 requests in 4 minutes, half of them
    context, generated = 8843, 833  # sums of the sample's columns
    assert work_to == pytest.approx(10 * 0.14 * (context / 0.5 + generated / 0.1) / 8)


def test_repeated_trace_starts_again_at_the_whole_minute():
    table = play(started(AzureLlm, repeat=True, **TRACE), 501)[1]  # 500 minutes: 125 passes, over block boundaries
    assert len(table["id"]) == 125 * 8
    assert table["arrival_s"][-8:] == pytest.approx([124 * 240.0 + t for t in OFFSETS_S], abs=1e-6)
    assert table["work_to"][:8] == table["work_to"][-8:]


def test_stretched_trace():
    assert play(started(AzureLlm, time_scale=10, **TRACE), 40)[1]["arrival_s"] == pytest.approx(
        [10 * t for t in OFFSETS_S], abs=1e-5)


def test_sampling_thins_and_multiplies():
    # mean 8 * 0.25 per seed, 200 seeds: 400 +- sqrt(200 * 8 * 0.25 * 0.75) = 17
    thinned = [play(started(AzureLlm, seed=s, trace_rate_scale=0.25, **TRACE), 5)[1] for s in range(200)]
    assert abs(sum(len(t["id"]) for t in thinned) - 400) < 4.5 * 17
    assert all(min(abs(a - b) for b in OFFSETS_S) < 1e-6 for t in thinned for a in t["arrival_s"])
    batches, table = play(started(AzureLlm, trace_rate_scale=3, **TRACE), 6)
    assert [len(b.get("id", ())) for b in batches] == [0, 12, 3, 6, 3, 0]  # three times each, in its own minute
    assert table["arrival_s"] == sorted(table["arrival_s"])
    assert sorted(set(table["work_to"])) == sorted(set(play(started(AzureLlm, **TRACE), 6)[1]["work_to"]))


def test_trace_notes(tmp_path):
    simulator = started(AzureLlm, **TRACE)
    play(simulator, 3)
    assert simulator.notes() == ["workload: 5 of the trace's 8 requests had arrived by the last step"]
    dry = started(AzureLlm, **TRACE)
    play(dry, 65)
    assert dry.notes() == ["workload: the trace ended at 00:04; the remaining 60 min had no requests from it"]
    path = tmp_path / "far.csv"
    path.write_text(Path(SAMPLE).read_text() + "2103-11-16 18:15:46,1,1\n")
    assert any("days from 00:03:23 on, more than half of the trace" in n for n in
               started(AzureLlm, path=str(path), trace_class="chat").notes())
    path = tmp_path / "bad.csv"
    path.write_text(Path(SAMPLE).read_text() + "broken\n")
    spoiled = started(AzureLlm, path=str(path), trace_class="chat", repeat=True, max_left_out_ratio=0.12)
    assert spoiled.notes() == [f"workload: 1 rows of {path} were left out: 1 malformed; the first is line 10: it has 1 "
                               "fields, the first line 3"]
    with pytest.raises(ScenarioError, match="line 10"):
        started(AzureLlm, path=str(path), trace_class="chat")


def test_trace_errors():
    with pytest.raises(ScenarioError, match="workload.path is required"):
        started(AzureLlm, trace_class="chat")
    with pytest.raises(ScenarioError, match="unknown job class 'chap'; did you mean 'chat'"):
        started(AzureLlm, path=SAMPLE, trace_class="chap")
    with pytest.raises(ScenarioError, match="'llm' is a training class"):
        started(AzureLlm, path=SAMPLE, trace_class="llm")
