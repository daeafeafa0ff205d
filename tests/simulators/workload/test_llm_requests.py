"""Requests of language models: drawn lengths, and public traces in three layouts."""

import json

import numpy as np
import pytest

from cosim.errors import ScenarioError
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.workload.adapter import Arrivals
from cosim.simulators.workload.lengths import TokenLengths, requests_to
from cosim.simulators.workload.llm_requests import LlmRequests
from cosim.simulators.workload.llm_traces import read_requests

SERVING = {"model": "Llama-3.1-8B", "gpu": "H100", "gpus": 1, "input_tokens": 500, "output_tokens": 100}
CLASSES = {"chat": {"kind": "llm", "deadline_s": 60, "serving": SERVING},
           "search": {"kind": "inf", "work_to": 5, "deadline_s": 60, "to_per_gpu_min": 60, "kw_per_to_s": 1.0}}
AZURE = ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,374,44\n"
         "2024-05-10 00:00:30+00:00,20,5\n")
MOONCAKE = "".join(json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": [1]}) + "\n"
                   for t, i, o in ((0, 374, 44), (29990, 20, 5)))
BURSTGPT = ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,ChatGPT,374,44,418,Conversation log\n34.99,GPT-4,20,5,25,API log\n35,GPT-4,20,0,20,API log\n")


def started(kind, **params):
    simulator = kind()
    simulator.init("workload", 60.0, step_s=60.0, seed=3, job_classes=CLASSES, **params)
    simulator.create(1, "Arrivals", ["workload"])
    simulator.setup_done()
    return simulator


def batches(simulator, minutes):
    return [simulator.advance(60.0 * minute, {})["workload"]["jobs"] for minute in range(minutes + 1)]


def test_drawn_lengths_have_the_means_and_spreads():
    serving = Serving(**SERVING)
    tokens = TokenLengths().draw(40_000, serving, np.random.default_rng(1))
    assert tokens.min() >= 1
    assert tokens.sum(axis=1).max() <= serving.max_context_tokens
    assert tokens.mean(axis=0) == pytest.approx([500, 100], rel=0.03)
    assert np.log(tokens).std(axis=0) == pytest.approx([0.99, 0.86], rel=0.03)
    same = TokenLengths(0.0, 0.0).draw(3, serving, np.random.default_rng(1))
    assert same.tolist() == [[500, 100]] * 3
    assert requests_to(same, serving).tolist() == [serving.request_to(500, 100)] * 3


def test_batches_have_tokens_where_a_class_serves_and_no_other_column_else():
    rates = {"chat": {"mean_per_min": 5}, "search": {"mean_per_min": 5}}
    mine = batches(started(Arrivals, arrivals=rates), 3)[1]
    chat = [k for k, name in enumerate(mine["job_class"]) if name == "chat"]
    assert chat
    assert all((mine["input_tokens"][k] > 0) == (k in chat) for k in range(len(mine["id"])))
    serving = Serving(**SERVING)
    assert [mine["work_to"][k] for k in chat] == [
        pytest.approx(serving.request_to(mine["input_tokens"][k], mine["output_tokens"][k])) for k in chat]
    alone = batches(started(Arrivals, arrivals={"search": rates["search"]}), 3)[1]
    other = [k for k, name in enumerate(mine["job_class"]) if name == "search"]
    assert alone["arrival_s"] == [mine["arrival_s"][k] for k in other]  # a class more leaves the others as they are


def test_ahead_of_their_arrival_the_same_jobs_come_a_step_earlier():
    rates = {"chat": {"mean_per_min": 5}}
    after = batches(started(Arrivals, arrivals=rates), 3)
    ahead = batches(started(Arrivals, arrivals=rates, routing="arrival"), 3)
    assert after[0] == {}
    assert ahead[:3] == after[1:]
    assert all(60.0 * minute <= s < 60.0 * minute + 60.0 for minute, batch in enumerate(ahead)
               for s in batch["arrival_s"])


@pytest.mark.parametrize(("name", "text"), [("a.csv", AZURE), ("m.jsonl", MOONCAKE), ("b.csv", BURSTGPT)])
def test_three_layouts_of_one_trace(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    trace = read_requests(str(path))
    assert trace.offset_s == pytest.approx([0.0, 29.99], abs=1e-3)
    assert (trace.context_tokens.tolist(), trace.generated_tokens.tolist()) == ([374, 20], [44, 5])
    assert trace.left_out.rows == (name == "b.csv")  # an answer of no token is a request that failed
    simulator = started(LlmRequests, path=str(path), trace_class="chat")
    batch = batches(simulator, 1)[1]
    assert (batch["input_tokens"], batch["output_tokens"]) == ([374, 20], [44, 5])
    assert LlmRequests.offered_jobs_per_min(simulator.params)["chat"][0] == 2.0
    twice = started(LlmRequests, path=str(path), trace_class="chat", trace_rate_scale=2.0, repeat=True)
    assert [sorted(b["input_tokens"]) for b in batches(twice, 2)[1:]] == [[20, 20, 374, 374]] * 2


@pytest.mark.parametrize(("text", "said"), [
    ("", "none of the known layouts"), ("a,b\n1,2\n", "none of the known layouts"),
    ('{"timestamp": 0, "input_length": 5}\n', "has no request"),
    ('{"timestamp": 0, "input_length": 0, "output_length": 5}\n', "has no request: 1 without prompt"),
    ('{"timestamp": 0, "input_length": 5, "output_length": 5000000000}\n', "not whole numbers up to 1e+09"),
    ('{"timestamp": 0, "input_length": 5, "output_length": 5}\n{"timestamp": -1}\n', "1 of 2 rows would be left out"),
    ("Timestamp,Request tokens,Response tokens\n1,2.5,3\n", "are not whole numbers"),
    (AZURE.splitlines()[0] + "\n2024-05-10 00:00:00,5,0\n", "no request with a prompt and an answer"),
])
def test_traces_that_are_none(tmp_path, text, said):
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(ScenarioError) as err:
        read_requests(str(path))
    assert said in str(err.value)
    assert "\n" not in str(err.value)


def test_what_a_trace_cannot_be_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(AZURE)
    for changed, said in (({"trace_class": "search"}, "is an inference class"),
                          ({"trace_class": "nobody"}, "unknown job class"),
                          ({"trace_class": "chat", "trace_work_scale": 2.0}, "follows from their tokens"),
                          ({"trace_class": "chat", "lengths": {"search": {}}}, "class of kind llm")):
        with pytest.raises(ScenarioError, match=said):
            started(LlmRequests, path=str(path), **changed)
