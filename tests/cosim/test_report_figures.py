"""The report's figures, and those on its map, are the trace's."""

import shutil

import numpy as np
import pytest
from rewritten import rewritten

from cosim.experiment import Experiment
from cosim.reporting.overview import overview
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.reporting import carbon, events, grid, jobs, sites
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sections import REPORT
from cosim.trace import Trace


@pytest.mark.parametrize(("line", "buses", "nodes"), [
    ("0-1", (b"bus0", b"bus1"), ["0", "1"]), ("north-feeder", (b"bus0", b"bus1"), ["bus0", "bus1"]),
    ("1-0", (b"bus0", b"bus1"), ["bus0", "bus1"])])
def test_the_grids_own_table_says_what_a_line_joins(traces, tmp_path, line, buses, nodes):
    """Whatever dashes its name has; the source of the substation stands at the bus of its own table."""
    path = tmp_path / "t.h5"
    with rewritten(path, traces["plain"]) as file:
        file["grid/Grid/line"][0] = line
        for column, value in zip(("name", "from_bus", "to_bus"), (line.encode(), *buses), strict=True):
            del file[f"grid.branches/{column}"]
            file[f"grid.branches/{column}"] = np.array([value])
    with Trace(path) as trace:
        _, network = grid.feeder_map(FleetRun(trace, "two_bus", {"aidc1": "site0"}))
    assert [name for name, _, _ in network.nodes] == nodes
    assert [mark.node for mark in network.marks] == [1, 0, 1]
    assert np.isfinite(network.level("nci_kg_per_kwh")).all()


def test_drawn_means_keep_the_energy(crowded):
    for width in (120.0, 900.0, 3600.0):
        times, means = crowded.means(SITE, crowded.get(f"{SITE}/p_kw"), width)
        minutes = np.diff(np.r_[times, crowded.end_s]) / 60.0
        assert (means[:, 0] * minutes).sum() == pytest.approx(crowded.get(f"{SITE}/p_kw").sum(), rel=1e-12)


def test_uses_of_power_add_up_and_are_the_hand_made_ones(plain):
    layers = dict(sites.uses(plain))
    assert np.allclose(sum(layers.values()), plain.get(f"{SITE}/p_kw"), rtol=1e-12)
    # 20 kW idle; 10 query GPUs and 2 training GPUs of 1 kW; chiller = IT / 4
    last = {name: float(kw[-1, 0]) for name, kw in layers.items()}
    by_hand = {"idle": 20.0, "training": 2.0, "inference": 10.0, "chiller": 8.0, "tower": 0.0}
    assert last == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.rows("K03")
def test_both_accounts_are_those_of_the_summary(crowded):
    figures = overview(crowded, REPORT).digest.figures
    assert carbon.attributed_kg(crowded).sum() == pytest.approx(figures["co2_attributed_kg"], rel=1e-12)
    assert carbon.emitted_kg(crowded).sum() == pytest.approx(figures["co2_system_kg"], rel=1e-12)
    ends = [panel.series[0].y[-1] * 1000 for panel in carbon.accounts(crowded).panels]
    assert ends == pytest.approx([figures["co2_attributed_kg"], figures["co2_system_kg"]], rel=1e-12)


def test_every_dropped_job_is_in_one_event(crowded):
    figures = overview(crowded, REPORT).digest.figures
    dropped = sum(v for name, v in figures.items() if name.startswith("dropped_"))
    picture = events.events(crowded)
    assert dropped > 0
    assert sum(e.count for e in picture.panels[0].events if e.kind == "dropped jobs") == dropped
    assert f"dropped jobs: {sum(e.kind == 'dropped jobs' for e in picture.panels[0].events)}" in picture.says


def test_nothing_wrong_is_said_with_what_was_watched(plain):
    assert "no events" in events.events(plain).says
    assert "drops" in events.events(plain).says


@pytest.mark.rows("X08")
def test_deferral_cells_count_every_training_job_that_ran(plain):
    heat = jobs.deferral(plain).panels[0].heat
    table = plain.jobs
    ran_ = np.isfinite(table["start_s"]) & (table["job_class"] == "train")
    assert np.nansum(heat.z) == ran_.sum() > 0
    rows, columns = np.nonzero(np.nan_to_num(heat.z))
    assert (columns >= rows).all(), "a job ran before it arrived"


@pytest.mark.long
@pytest.mark.rows("I33", "K07")
def test_deferral_is_what_was_decided_and_apart_for_the_dearest_price(tmp_path):
    """`tou_shift` under the study's tariff: whatever comes from 11 to 15 h waits for 19 h, 4 to 8 h later (I33)."""
    path = tmp_path / "shift.h5"
    scenario = override(find("ieee33"), {"controller.policy": "tou_shift", "grid.mci": "false",
                                         "grid.ac_check": "false", "workload.rate_scale": "0.2"})
    Experiment(scenario, "native", 13 * 3600.0, path).run()
    with Trace(path) as trace:
        facts = {f.name: f.value for f in jobs.deferral(FleetRun(trace, "", {})).facts}
        table = trace.table("jobs")
    use = np.isin(table["job_class"], ["llm", "vae"])
    hours = (table["release_s"] - table["submit_s"])[use] / 3600.0
    assert facts["mean deferral of training"] == pytest.approx(hours.mean())
    assert facts["variance of the deferral"] == pytest.approx(hours.var())
    dear = table["arrival_s"][use] >= 11 * 3600.0
    assert ((hours[dear] >= 4.0) & (hours[dear] <= 8.0)).all()
    assert facts["mean deferral of training that came at the dearest price"] == pytest.approx(hours[dear].mean())
    for when, mine in (("0.1", ~dear), ("0.3", dear)):
        assert facts[f"mean deferral of training that came at {when} USD/kWh"] == pytest.approx(hours[mine].mean())
        spread = facts[f"variance of the deferral of training that came at {when} USD/kWh"]
        assert spread == pytest.approx(hours[mine].var(), abs=1e-12)


def test_waits_are_quantiles_of_the_job_table(plain):
    spread = {s.name: s for s in jobs.waits(plain).panels[0].spreads}["query"]
    table = plain.jobs
    use = (table["job_class"] == "query") & (table["outcome"] == "finished")
    wait = (table["start_s"][use] - table["arrival_s"][use]) / 60.0
    assert dict(spread.quantiles)["95 %"] == pytest.approx(float(np.percentile(wait, 95)))
    assert spread.limit_min == pytest.approx(10.0)


@pytest.mark.rows("X04")
def test_the_map_carries_what_the_trace_says(plain):
    picture, network = grid.feeder_map(plain)
    assert not picture.missing
    assert [name for name, _, _ in network.nodes] == ["0", "1"]
    assert (network.flow_kw == plain.get("grid/Grid/p_from_kw")[:, 0]).all()
    assert (network.level("nci_kg_per_kwh") == plain.get("grid/Bus/nci_kg_per_kwh")).all()
    assert [(s.name, s.node, s.shape) for s in network.marks] == [
        ("aidc1", 1, "ring"), ("substation", 0, "square"), ("turbine", 1, "square")]
    assert network.marks[0].power_kw[-1] == pytest.approx(40.0)
    assert network.level("none") is None
    sums = {one.words: one.values for one in network.readouts}
    assert sums["sources"] == pytest.approx(plain.get("grid/Grid/p_source_kw")[:, 0].sum(axis=1))
    assert sums["losses"] == pytest.approx(plain.get("grid/Grid/loss_kw")[:, 0])


def test_loading_is_the_fuller_end_over_the_rating_once_a_trace_has_ratings(traces, tmp_path):
    rated = tmp_path / "rated.h5"
    shutil.copy(traces["plain"], rated)
    with Trace(rated) as trace:
        assert "names no ratings" in grid.loading(FleetRun(trace, "", {"aidc1": "site0"})).note
        kva = np.maximum(*(np.hypot(trace[f"grid/Grid/p_{end}_kw"], 3.0) for end in ("from", "to")))[:, 0, 0]
    with rewritten(rated) as file:
        samples = file["grid/Grid/p_from_kw"].shape
        for name, value in (("rating_kva", 80.0), ("q_from_kvar", 3.0), ("q_to_kvar", -3.0)):
            file["grid/Grid"].create_dataset(name, data=np.full(samples, value))
    with Trace(rated) as trace:
        picture = grid.loading(FleetRun(trace, "", {"aidc1": "site0"}))
    assert picture.facts[0].unit == "%"
    assert picture.facts[0].value == pytest.approx(100.0 * kva.max() / 80.0)
    assert picture.note == ""
