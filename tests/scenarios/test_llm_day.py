"""`llm_day` as a whole: both drivers, conservation laws, receipts, summary and page."""

import numpy as np
import pytest
from rewritten import rewritten

from cosim.experiment import Experiment
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.scenarios import llm_day
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.analysis.serving import serving_figures
from cosim.simulators.reporting import serving, sites, wan
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.wan import Wan
from cosim.trace import Trace
from cosim.trace.compare import first_difference

FEW = {"grid.ac_check": False, "workload.day_factors": [1.0], "workload.train_rate_scale": 8.0,
       "shared.job_classes.chat.serving.embodied_kg_per_gpu_h": 0.01}
UNTIL_S = 360.0


def scenario():
    return override(find("llm_day"), FEW)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("llm") / "day.h5"
    Experiment(scenario(), "native", UNTIL_S, path).run()
    with Trace(path) as trace:
        yield trace


def test_laws_hold_and_those_of_serving_are_checked(run):
    digest = verify(run)
    assert not digest.broken
    held = {row[0] for row in digest.tables[0].rows if row[3] == "holds"}
    for law in ("tokens of answers and prompts", "power of replicas = shares", "LLM requests arrive",
                "tokens with a latency", "network: ticks", "jobs and answers take", "jobs on their way",
                "every arrival reaches one site", "GPU time of the jobs", "IT power"):
        assert any(name.startswith(law) for name in held), law


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("path", "law"), [
    ("aidc/Site/prefill_tokens", "tokens of answers and prompts"),
    ("aidc/Site/output_tokens", "tokens of answers and prompts"),
    ("llm_requests/prefilled_tokens", "tokens of answers and prompts"),
    ("llm_gaps/tokens", "tokens with a latency"),
    ("aidc/Site/network_kwh", "network: ticks"),
    ("aidc/Site/transit_jobs", "jobs on their way"),
    ("transfers/reached_s", "jobs and answers take"),
    ("llm_requests/return_s", "jobs and answers take"),
    ("jobs/submit_s", "jobs and answers take"),
    ("llm_requests/first_token_s", "LLM requests arrive"),
    ("aidc/Site/llm_ready_kw", "power of replicas"),
])
def test_a_number_that_is_another_breaks_its_law(run, tmp_path, path, law):
    with rewritten(tmp_path / "other.h5", run.path) as file:
        data = file[path]
        at = np.unravel_index(np.nanargmax(data[()]), data.shape)
        data[at] = data[at] + 1.0 if "_s" not in path else 0.0
    with Trace(tmp_path / "other.h5") as other:
        assert [name for name in verify(other).broken if name.startswith(law)]


@pytest.mark.long
def test_mosaik_and_the_plain_loop_give_one_trace(run, tmp_path):
    Experiment(scenario(), "mosaik", UNTIL_S, tmp_path / "bus.h5").run()
    assert first_difference(run.path, tmp_path / "bus.h5") is None


def test_figures_against_the_tables(run):
    """Percentiles, goodput, tokens and energy of a class from the rows of its requests, one by one."""
    requests = run.table("llm_requests")
    chat = next(f for f in serving_figures(run) if (f.job_class, f.site) == ("chat", None))
    rows = [k for k in range(len(requests["id"])) if requests["job_class"][k] == "chat"]
    done = [k for k in rows if requests["outcome"][k] == "finished"]
    ttft = {k: requests["first_token_s"][k] + requests["return_s"][k] - requests["arrival_s"][k] for k in rows}
    tpot = {k: (requests["end_s"][k] - requests["first_token_s"][k]) / (requests["output_tokens"][k] - 1) for k in done
            if requests["output_tokens"][k] > 1}
    assert chat.requests == len(rows)
    assert chat.ttft_s[0] == pytest.approx(np.nanmedian(list(ttft.values())))
    assert chat.tpot_s[0] == pytest.approx(np.median(list(tpot.values())))
    assert chat.good == sum(ttft[k] <= 1.0 and tpot.get(k, 0.0) <= 0.05 for k in done)
    assert chat.output_tokens == sum(requests["generated_tokens"][k] for k in rows)
    assert chat.embodied_kg == pytest.approx(0.01 * run["aidc/Site/busy_gpus"][:, :, 0].sum() / 60.0)
    assert chat.joules_per_token == pytest.approx(3.6e6 * chat.energy_kwh / chat.output_tokens)
    assert summary(run).figures["good_chat_ratio"] == pytest.approx(chat.good / len(rows))


def test_inter_token_latencies_are_those_of_the_answers(run):
    """Their mean over the tokens is that of the answers' times per token, within a cell; percentiles are in order."""
    gaps, requests = run.table("llm_gaps"), run.table("llm_requests")
    for name in ("chat", "code"):
        mine = gaps["job_class"] == name
        low, high = (float(gaps[edge][mine] @ gaps["tokens"][mine]) for edge in ("gap_from_s", "gap_to_s"))
        done = (requests["job_class"] == name) & (requests["outcome"] == "finished")
        inside = (requests["job_class"] == name) & (requests["outcome"] == "unfinished")
        spent = float((requests["end_s"] - requests["first_token_s"])[done].sum())
        assert low <= spent + UNTIL_S * inside.sum()
        assert high >= spent
        figure = next(f for f in serving_figures(run) if (f.job_class, f.site) == (name, None))
        assert figure.itl_s == tuple(sorted(figure.itl_s))
        assert gaps["gap_from_s"][mine].min() <= figure.itl_s[0] <= figure.itl_s[2] <= gaps["gap_to_s"][mine].max()


def test_clients_wait_for_the_way_there_and_back(run):
    """No answer begins before both ways are done, and a request starts after the way there; by the matrix of the
    scenario."""
    given, sent, requests = Wan(**llm_day.WAN), run.table("transfers"), run.table("llm_requests")
    origin = dict(zip(sent["id"].tolist(), sent["origin"].tolist(), strict=True))
    assert set(origin.values()) > {"near_aidc1", "overseas"}
    for k, number in enumerate(requests["id"].tolist()):
        way_s = given.latency(origin[number], requests["site"][k])
        assert requests["return_s"][k] == way_s
        assert not requests["start_s"][k] < requests["arrival_s"][k] + way_s
    share = np.mean([origin[number] == "overseas" for number in requests["id"].tolist()])
    assert share == pytest.approx(0.2, abs=4 * (0.16 / len(requests["id"])) ** 0.5)


def test_the_network_has_an_account_of_its_own(run):
    """Energy of the receipts' jobs = of the ticks = of the summary; and it is in no other figure."""
    figures, accounts = summary(run).figures, job_footprints(run)
    kwh = run["aidc/Site/network_kwh"].sum()
    assert sum(account.network_kwh.sum() for account in accounts) == pytest.approx(kwh)
    assert figures["network_energy_kwh"] == pytest.approx(kwh)
    assert figures["co2_network_kg"] == pytest.approx(0.48 * kwh)
    assert figures["energy_kwh"] == pytest.approx(run["aidc/Site/p_kw"].sum() / 60.0)
    one = next(account for account in accounts if "chat" in account.job_class)
    chat = int(one.job_id[one.job_class == "chat"][0])
    assert one.of(chat)["network_kwh"] == pytest.approx(2e-5 * 0.06)


def test_receipts_answer_for_a_request(run):
    """The energy of single requests and of what no job carries is the site's."""
    energy = 0.0
    for account in job_footprints(run):
        energy += account.energy_kwh.sum()
        assert (account.dynamic_kwh >= 0.0).all()
        assert (account.dynamic_kwh[account.job_class == "reasoning"].sum() > 0.0) == (
            (account.job_class == "reasoning").any())
    assert energy == pytest.approx(run["aidc/Site/p_kw"].sum() / 60.0)


def test_the_page_shows_it(run):
    fleet = FleetRun(run, "", {"aidc1": "site0", "aidc2": "site1", "aidc3": "site2"})
    assert serving.serves(fleet)
    latency, tokens = serving.latency(fleet), serving.energy(fleet)
    assert [panel.title for panel in latency.panels][:2] == ["chat: time to first token", "chat: time per output token"]
    assert [rule.value for panel in latency.panels[:2] for rule in panel.rules] == [1000.0, 50.0]
    assert {fact.name for fact in tokens.facts} >= {"energy per output token of chat"}
    moved = wan.network(fleet)
    assert [fact.value for fact in moved.facts] == pytest.approx([
        run[f"aidc/Site/network_{what}"].sum() for what in ("gb", "kwh", "co2_kg")])
    layers = dict(sites.uses(fleet))
    assert sum(kw.sum() for kw in layers.values()) == pytest.approx(run["aidc/Site/p_kw"].sum())
    assert layers["inference"].sum() == pytest.approx(run["aidc/Site/llm_dynamic_kw"].sum())


def test_routing_as_jobs_arrive_waits_for_no_decision(run):
    """Prompts start when they arrive: the median is far below half a minute, and no request starts before it came."""
    requests = run.table("llm_requests")
    waited = requests["start_s"] - requests["arrival_s"]
    assert np.nanmin(waited) >= 0.0
    assert np.nanmedian(waited) < 1.0
    handed = run["workload/Arrivals/arrived_jobs"].sum()
    assert handed == len(run.table("jobs")["id"])


def test_the_same_requests_again(run, tmp_path):
    """Another run's requests, with their tokens, by the same policy: the same day to the last bit."""
    Experiment(replay(scenario(), "workload", run.path), "native", UNTIL_S, tmp_path / "again.h5").run()
    with Trace(tmp_path / "again.h5") as second:
        for port in ("p_kw", "output_tokens", "llm_dynamic_kw", "finished_jobs"):
            assert (second[f"aidc/Site/{port}"] == run[f"aidc/Site/{port}"]).all()
