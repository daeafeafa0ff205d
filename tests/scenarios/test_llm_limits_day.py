"""`llm_day` with power limits and caps that another member commands: both drivers, conservation laws, summary, page;
and without commands the day that it is without limits."""

import numpy as np
import pytest
from rewritten import rewritten

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import Link, Member, override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.reporting import gpus
from cosim.simulators.reporting.data import FleetRun
from cosim.trace import Trace
from cosim.trace.compare import first_difference

UNTIL_S = 300.0
FEW = {"grid.ac_check": False, "workload.day_factors": [1.0], "workload.train_rate_scale": 8.0,
       "controller.policy": "uniform"}
NONE = [-1.0] * 4
SAID = {"limits_kw": [NONE, [0.5, -1, 0.55, -1], [0.1, 0.46, 0.5, -1], NONE, NONE], "cap_kw": [-1, -1, -1, 45.5, -1]}


def scenario(commands=True):
    day = override(find("llm_day"), {**FEW, "aidc.simulator": "cosim.simulators.aidc.llm.capped:CappedLlmDataCenters"})
    if not commands:
        return day
    said = Member(simulator="gpu_commander:ClassCommander", step_s=60, entities={"Site": "sites"}, params=SAID)
    return day.replace(members={**day.members, "said": said}, links=(*day.links, *(
        Link(source=f"said.{port}", target=f"aidc.{port}") for port in ("gpu_limit_set_kw", "p_cap_kw"))))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("limits") / "day.h5"
    Experiment(scenario(), "native", UNTIL_S, path).run()
    with Trace(path) as trace:
        yield trace


def test_laws_hold_and_limits_are_in_force(run):
    digest = verify(run)
    assert not digest.broken
    held = {row[0] for row in digest.tables[0].rows if row[3] == "holds"}
    for law in ("power limits of replicas", "power of replicas = shares", "tokens with a latency", "IT power",
                "beyond a cap"):
        assert any(name.startswith(law) for name in held), law
    limit, slowed, cap_s = (run[f"aidc/Site/{port}"] for port in ("gpu_limit_kw", "slowed_s", "cap_slowed_s"))
    assert limit[1, 0].tolist() == [0.5, 0.7, 0.55, 0.0]
    assert limit[2, 0, 0] == pytest.approx(0.4238, abs=1e-4)  # 0.1 is below what chat can keep
    assert (limit[[0, 4], :, :3] == 0.7).all()
    assert (slowed[:2, :, 1] == 0.0).all()
    assert slowed[2, :, 1].min() > 0.0
    assert cap_s[3].max() > 0.0
    assert (cap_s[[0, 1, 2, 4]] == 0.0).all()
    cap_kw, drawn_kw = run["aidc/Site/p_cap_kw"], run["aidc/Site/p_kw"]
    assert drawn_kw[2, 0] > cap_kw[3, 0]
    assert drawn_kw[3, 0] <= cap_kw[3, 0]
    assert run["aidc/Site/cap_excess_kw"][3] == pytest.approx(np.maximum(drawn_kw - cap_kw, 0.0)[3])


@pytest.mark.long
def test_mosaik_and_the_plain_loop_give_one_trace(run, tmp_path):
    Experiment(scenario(), "mosaik", UNTIL_S, tmp_path / "bus.h5").run()
    assert first_difference(run.path, tmp_path / "bus.h5") is None


@pytest.mark.long(after=2)
@pytest.mark.parametrize(("port", "value"), [("gpu_limit_kw", 0.43), ("slowed_s", 61.0), ("slowed_s", 1.0),
                                             ("llm_dynamic_kw", 1e3)])
def test_a_number_that_is_another_breaks_the_law(run, tmp_path, port, value):
    """0.43 kW is a limit that reasoning can keep not, and chat can."""
    with rewritten(tmp_path / "other.h5", run.path) as file:
        data = file[f"aidc/Site/{port}"]
        data[(1, 0, 1)[:data.ndim]] = value
    with Trace(tmp_path / "other.h5") as other:
        assert [name for name in verify(other).broken if name.startswith("power limits of replicas")]


@pytest.mark.long
def test_without_commands_it_is_the_day_without_limits(tmp_path):
    """Every number of the trace of `LlmDataCenters` is in that of the others, the same to the bit."""
    plain, capped = tmp_path / "plain.h5", tmp_path / "capped.h5"
    Experiment(override(find("llm_day"), FEW), "native", 60.0, plain).run()
    Experiment(scenario(commands=False), "native", 60.0, capped).run()
    with Trace(plain) as one, Trace(capped) as other:
        for port in one.ports("aidc/Site"):
            assert np.array_equal(one[f"aidc/Site/{port}"], other[f"aidc/Site/{port}"], equal_nan=True), port
        for name in one.tables():
            a, b = one.table(name), other.table(name)
            assert all(np.array_equal(a[c], b[c]) or np.array_equal(a[c], b[c], equal_nan=True) for c in a), name
        assert (other["aidc/Site/gpu_limit_kw"][:, :, :3] == 0.7).all()
        assert not other["aidc/Site/slowed_s"].any()


def test_receipts_summary_and_page_show_limits(run):
    digest = summary(run)
    table = next(t for t in digest.tables if t.title == "Power limits of LLM replicas")
    assert [row[:3] for row in table.rows][0] == ("chat", "aidc1", "0.7")
    assert digest.figures["slowed_chat_h"] == pytest.approx(run["aidc/Site/slowed_s"][:, :, 0].sum() / 3600.0)
    assert digest.figures["cap_slowed_h"] > 0.0
    fleet = FleetRun(run, "r", {})
    assert gpus.limited(fleet)
    assert not gpus.typed(fleet)
    picture = gpus.limits(fleet)
    assert {panel.title for panel in picture.panels} >= {"Power limit of chat", "Power limit of reasoning"}
    kwh = sum(float(f.energy_kwh.sum()) for f in job_footprints(run))  # of requests, jobs and what nobody used
    assert kwh == pytest.approx(run["aidc/Site/p_kw"].sum() / 60.0)


def test_limits_linked_to_data_centers_without_them_name_those_that_have_them(tmp_path):
    day = scenario()
    aidc = find("llm_day").members["aidc"]
    with pytest.raises(ScenarioError) as err:
        Experiment(day.replace(members={**day.members, "aidc": aidc}, links=[
            link for link in day.links if link.target != "aidc.p_cap_kw"]), "native", 60.0, tmp_path / "no.h5").run()
    assert str(err.value) == (
        "aidc.gpu_limit_set_kw is a port of CappedLlmDataCenters, and aidc is LlmDataCenters: --use "
        "aidc=cosim.simulators.aidc.llm.capped:CappedLlmDataCenters has it")


def test_capped_data_centers_name_those_that_serve_and_keep_caps():
    with pytest.raises(ScenarioError, match=r"does not serve \(train, inf\); set aidc\.simulator to cosim\.simulators\."
                                            r"aidc\.llm\.capped:CappedLlmDataCenters"):
        resolve(override(find("llm_day"), {"aidc.simulator": "cosim.simulators.aidc.capped:CappedDataCenters"}))
