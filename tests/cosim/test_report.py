"""The report: its figures are the trace's, its words say what is missing, and one page holds it all."""

import base64
import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import GRIDLESS_PY, boxes, run

from cosim import report
from cosim.errors import ScenarioError, TraceError
from cosim.experiment import Experiment
from cosim.imports import load
from cosim.reporting.chart import Panel, Picture, Series, ranges
from cosim.reporting.content import content, read_as
from cosim.reporting.general import GENERAL
from cosim.reporting.overview import change, differences, labels, overview
from cosim.reporting.text import count, length, listing, named, number, quantity
from cosim.run import find, main
from cosim.scenario import Member, Scenario, override
from cosim.simulators.reporting import carbon, events, grid, jobs, sites
from cosim.simulators.reporting.data import SITE, FleetRun
from cosim.simulators.reporting.feeder import layout, parse
from cosim.simulators.reporting.sections import REPORT
from cosim.trace import Trace
from cosim.trace.writer import annotate

ROOT = Path(__file__).parents[2]


def ran(folder, name, until_s=None, **settings_):
    path = folder / f"{name}.h5"
    scenario = override(find("two_bus"), {k.replace("__", "."): str(v) for k, v in settings_.items()})
    Experiment(scenario, "native", until_s, out=path).run()
    return path


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return {"plain": ran(folder, "plain"),
            "crowded": ran(folder, "crowded", 3600.0, workload__rate_scale=12)}


@pytest.fixture
def plain(traces):
    with Trace(traces["plain"]) as trace:
        yield FleetRun(trace, "two_bus", {"aidc1": "site0"})


@pytest.fixture
def crowded(traces):
    with Trace(traces["crowded"]) as trace:
        yield FleetRun(trace, "two_bus", {"aidc1": "site0"})


def unpacked(page):
    """(head, arrays by their place) of a page, as its script reads them."""
    packed = re.search(r'id="data-gz">([^<]+)<', page).group(1)
    raw = gzip.decompress(base64.b64decode(packed))
    size = int.from_bytes(raw[:8], "little")
    head, body = json.loads(raw[8: 8 + size]), raw[8 + size:]
    return head, lambda place: np.frombuffer(body, f"<{place[0]}", place[2], place[1])


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (182353.0, "182\u202f353"), (0.56178, "0.562"), (-3.14159, "\u22123.14"),
    (7.5e-8, "7.5\u00d710\u207b\u2078"),
    (1e-5, "1\u00d710\u207b\u2075"), (float("nan"), "not known"), (2302.0, "2\u202f302"),
])
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_quantities_take_the_larger_unit_and_counts_their_noun():
    assert quantity(28423.0, "kWh") == "28.4\u00a0MWh"
    assert quantity(472.0, "kW") == "472\u00a0kW"
    assert quantity(15972.0, "kg", 4) == "15.97\u00a0t"
    assert count(1, "job") == "1 job"
    assert count(1234, "job") == "1\u202f234 jobs"
    assert (length(900), length(4320), length(3 * 86400)) == ("15 min", "1.20 h", "3 days")
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert named("co2_attributed_kg", 15972.0) == ("CO2 attributed", "15.97\u00a0t")
    assert named("flagged_intervals", 0.0) == ("flagged intervals", "0")
    assert (change(2.0, 2.5), change(0.0, 3.0, "jobs"), change(1.0, 1.0)) == ("+25\u202f%", "+3.00 jobs", "=")


# --- the map ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_tree_is_laid_out_by_distance_without_two_nodes_in_one_place(draws):
    parents = [draw % (k + 1) for k, draw in enumerate(draws)]
    lines = [(str(parent), str(k + 1)) for k, parent in enumerate(parents)]
    places = layout(lines, "0")
    assert len(set(places.values())) == len(places) == len(lines) + 1
    assert places["0"] == (0, 0)
    for a, b in lines:
        assert places[b][0] == places[a][0] + 1


def test_the_longest_path_is_the_middle_and_loops_are_drawn_too():
    # 0-1-2-3 with a lateral 1-4 and a tie 4-3: the tie does not move anybody
    places = layout(parse(["0-1", "1-2", "2-3", "1-4", "4-3"]), "0")
    assert [places[n] for n in "0123"] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert places["4"] == (2, -1)
    assert parse(["north", "south"]) is None
    assert parse(["trafo 0-1", "0-1 #2", "trafo3w 1-trafo3w0"]) == [("0", "1"), ("0", "1"), ("1", "trafo3w0")]


@pytest.mark.parametrize(("line", "buses", "nodes"), [
    ("0-1", (b"bus0", b"bus1"), ["0", "1"]), ("north-feeder", (b"bus0", b"bus1"), ["bus0", "bus1"]),
    ("1-0", (b"bus0", b"bus1"), ["bus0", "bus1"])])
def test_the_grids_own_table_says_what_a_line_joins(traces, tmp_path, line, buses, nodes):
    """Whatever dashes its name has; the source of the substation stands at the bus of its own table."""
    path = tmp_path / "t.h5"
    shutil.copy(traces["plain"], path)
    with h5py.File(path, "r+") as file:
        file["grid/Grid/line"][0] = line
        for column, value in zip(("name", "from_bus", "to_bus"), (line.encode(), *buses), strict=True):
            del file[f"grid.branches/{column}"]
            file[f"grid.branches/{column}"] = np.array([value])
    with Trace(path) as trace:
        _, network = grid.feeder_map(FleetRun(trace, "two_bus", {"aidc1": "site0"}))
    assert [name for name, _, _ in network.nodes] == nodes
    assert [mark.node for mark in network.marks] == [1, 0, 1]
    assert np.isfinite(network.level("nci_kg_per_kwh")).all()


# --- figures ----------------------------------------------------------------------------------------------------------


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
    with h5py.File(rated, "r+") as file:
        samples = file["grid/Grid/p_from_kw"].shape
        for name, value in (("rating_kva", 80.0), ("q_from_kvar", 3.0), ("q_to_kvar", -3.0)):
            file["grid/Grid"].create_dataset(name, data=np.full(samples, value))
    with Trace(rated) as trace:
        picture = grid.loading(FleetRun(trace, "", {"aidc1": "site0"}))
    assert picture.facts[0].unit == "%"
    assert picture.facts[0].value == pytest.approx(100.0 * kva.max() / 80.0)
    assert picture.note == ""


def test_the_page_takes_what_the_run_said_of_itself_and_needs_no_grid_library_for_it(traces, tmp_path):
    with Trace(traces["crowded"]) as trace:
        said = overview(FleetRun(trace, "", {"aidc1": "site0"}), REPORT).digest
        again = load(json.loads(trace.attrs["scenario"])["summary"], "summary")(trace)
    assert said == again
    code = ("import sys; from pathlib import Path; from cosim.report import write_page; "
            f"write_page([Path({str(traces['crowded'])!r})], Path({str(tmp_path / 'p.html')!r})); "
            "sys.exit('pandapower' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=600).returncode == 0


def test_notes_of_how_a_run_was_made_are_facts_and_all_others_warn(traces, tmp_path):
    path = tmp_path / "noted.h5"
    path.write_bytes(Path(traces["crowded"]).read_bytes())
    made = ["grid: dispatch solved by clarabel", "controller: policy mat from team.safetensors (sha256 0123456789ab)"]
    annotate(path, {"notes": json.dumps([*made, "grid: 2 intervals are elastic"])})
    with Trace(path) as trace:
        said = overview(FleetRun(trace, "", {"aidc1": "site0"}), REPORT)
    assert [text for name, text in said.facts if name == "note"] == made
    assert "grid: 2 intervals are elastic" in said.warnings
    assert not set(made) & set(said.warnings)


def test_panels_of_one_axis_share_their_range_between_runs():
    def picture(top):
        line = Series("x", np.array([0.0, 60.0]), np.array([0.0, top]), "ink", 120.0)
        return Picture("p", "says", (Panel("a", series=(line,), axis="kw"), Panel("b", series=(line,))))

    one, two = picture(1.0), picture(5.0)
    found = ranges([one, two])
    assert found[id(one.panels[0])] == found[id(two.panels[0])] == (0.0, pytest.approx(5.4))
    assert ranges([one])[id(one.panels[0])] == (0.0, pytest.approx(1.08))


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere_and_is_small(traces, tmp_path):
    path = report.write_page([traces["plain"]], tmp_path / "page.html")
    page = path.read_text()
    assert path.stat().st_size < 3_000_000
    shell = re.sub(r'<script type="text/plain"[^>]*>[^<]*</script>', "", page)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#|data:,)|@import|url\(|fetch\(|XMLHttpRequest", shell)
    for section in ("overview", "map", "signal", "power", "carbon", "gpus", "jobs", "network", "events", "trust"):
        assert f'id="{section}"' in page
    assert "completed" in page
    assert "uniform" in page
    assert "the smallest loop" in page


@pytest.mark.rows("X07")
def test_the_page_is_the_same_twice_and_holds_the_trace(traces, tmp_path, plain):
    pages = [report.write_page([traces["plain"]], tmp_path / f"{k}.html").read_bytes() for k in range(2)]
    assert pages[0] == pages[1]
    head, array = unpacked(pages[0].decode())
    flow = array(head["maps"][0]["flow"])
    assert flow == pytest.approx(plain.get("grid/Grid/p_from_kw").ravel(), rel=1e-6)
    power = next(p for p in head["plots"] if p["kind"] == "series" and p["unit"] == "kW" and not p["series"][0]["area"])
    assert array(power["series"][0]["y"]) == pytest.approx(plain.get(f"{SITE}/p_kw")[:, 0], rel=1e-6)


def test_several_runs_stand_side_by_side_with_their_differences(traces, tmp_path):
    page = report.write_page([traces["plain"], traces["crowded"]], tmp_path / "two.html").read_text()
    assert "2 runs compared" in page
    assert "rate_scale" in page
    assert "What was set differently" in page
    head, _ = unpacked(page)
    assert len(head["maps"]) == 2
    stacks = [p["range"] for p in head["plots"] if p["kind"] == "series" and p["series"][0]["area"]]
    assert len(stacks) == 4  # power and GPUs of each run
    assert stacks[0] == stacks[1]
    assert stacks[2] == stacks[3]


def test_runs_are_labelled_by_what_sets_them_apart():
    base = {"name": "a", "seed": 0, "members": {"controller": {"params": {"policy": "uniform"}}}}
    other = {"name": "a", "seed": 3, "members": {"controller": {"params": {"policy": "tou_shift"}}}}
    assert labels([base, other], ["x", "y"]) == ["seed 0, uniform", "seed 3, tou_shift"]
    assert labels([base, base], ["x", "y"]) == ["a, x", "a, y"]
    assert labels([base, {**other, "name": "b"}], ["x", "y"]) == ["a", "b"]


def test_long_lists_are_cut_when_they_are_shown_and_not_before():
    ones = [1.0] * 95
    rows = differences([{"shape": [*ones, last], "more": more} for last, more in ((1.0, {}), (2.0, {"a": 1}))])
    assert rows == [("shape", ["96 values, [1.0, 1.0, 1.0, 1.0, 1.0..."] * 2), ("more", ["{}", "-"]),
                    ("more.a", ["-", "1"])]


def test_a_killed_run_gives_a_page_that_says_so(tmp_path):
    path = tmp_path / "killed.h5"
    process = subprocess.Popen([sys.executable, "-m", "cosim.run", str(GRIDLESS_PY), "--until", "3000d", "--driver",
                                "native", "--quiet", "--out", str(path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not _minutes(path):
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    page = report.write_page([path]).read_text()
    assert "cut off" in page
    assert "of 3000 days; everything below covers only that part" in page
    assert "does not cope" not in page


def _minutes(path):
    try:
        with Trace(path) as trace:
            return len(trace.time_s(SITE))
    except (TraceError, KeyError, OSError, RuntimeError):
        return 0


def test_somebody_elses_world_gives_a_page_that_says_what_is_missing(tmp_path):
    path = tmp_path / "boxes.h5"
    run(boxes(), path)
    page = report.write_page([path]).read_text()
    assert "names no summary" in page
    assert "No map" not in page
    assert "data center" not in page.replace("AI data centers", "")
    head, array = unpacked(page)
    assert head["maps"] == []
    with Trace(path) as trace:
        for model in trace.models():
            for port in trace.ports(model):
                values = trace[f"{model}/{port}"]
                assert port in page
                if np.ptp(values):
                    drawn = [array(one["y"]) for p in head["plots"] for one in p.get("series", ())]
                    assert any(np.array_equal(y, values[:, 0].astype("f4")) for y in drawn), f"{model}/{port}"
        assert "ticks" in page


FOREIGN = """
from cosim.reporting.content import content, read_as
from cosim.reporting.general import GENERAL
from cosim.reporting.chart import Panel, Picture, Section, Series
from cosim.reporting.definition import Report
NO_REPORT = 1


def sections(runs):
    return [Section("power", "Mine", "My own", [[Picture("mine", f"Own words of {len(run.models)} models.",
            (Panel("own", "kW", (Series("a", run.time_s("src/Source"), run.get("src/Source/p_kw")[:, 0], "ink",
                                        run.end_s),)),)) for run in runs]])]


def broken(runs):
    return [run.nothing for run in runs]


REPORT, BROKEN = Report(sections), Report(broken)
"""


def test_a_scenario_names_its_own_report_which_runs_only_when_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "ownreport.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    paths = {}
    for name in ("REPORT", "BROKEN", "NO_REPORT"):
        paths[name] = tmp_path / f"{name}.h5"
        run(boxes().replace(report=f"ownreport:{name}"), paths[name])
    shy = report.write_page([paths["REPORT"]]).read_text()
    assert "ownreport" not in sys.modules
    assert "report cannot be had" in shy
    assert "Own words" not in shy
    page = report.write_page([paths["REPORT"]], trusted=[paths["REPORT"]]).read_text()
    assert "Own words of" in page
    assert "Active power" not in page
    for name, words in (("BROKEN", "does not cope with this: AttributeError"), ("NO_REPORT", "is a int; name a")):
        page = report.write_page([paths[name]], trusted=[paths[name]]).read_text()
        assert words in page
        assert "Active power" in page


def test_a_report_may_go_with_somebody_elses_summary_that_is_trusted(tmp_path, monkeypatch):
    """One that is not is left alone: what it said at the end of the run is in the trace, and nothing is lacking."""
    (tmp_path / "ownsummary.py").write_text(FOREIGN + "from cosim.digest import Digest\n"
                                            "COMPANIONS = {'report': 'ownsummary:REPORT'}\n"
                                            "def summary(trace):\n    return Digest(figures={'p_kw': 7.0})\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own.h5"
    run(boxes().replace(summary="ownsummary:summary"), path)
    del sys.modules["ownsummary"]
    shy = report.write_page([path]).read_text()
    assert "ownsummary" not in sys.modules
    assert "Active power" in shy
    assert 'class="warn">The scenario' not in shy
    page = report.write_page([path], trusted=[path]).read_text()
    assert "Own words of" in page
    assert "Active power" not in page


def test_runs_of_two_reports_have_the_sections_of_both(traces, tmp_path, monkeypatch):
    (tmp_path / "twinreport.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own.h5"
    run(boxes().replace(report="twinreport:REPORT"), path)
    page = report.write_page([traces["plain"], path], tmp_path / "p.html", trusted=[path]).read_text()
    assert "does not cope" in page  # the own report reads src/Source, which the other run lacks
    for section in ("map", "power", "unit0"):
        assert f'id="{section}"' in page
    again = report.write_page([path, path], tmp_path / "p.html", trusted=[path]).read_text()
    assert "does not cope" not in again
    assert again.count("Own words of") >= 2


def test_a_trace_of_version_0_1_has_the_report_that_goes_with_its_summary(traces, tmp_path):
    old = tmp_path / "old.h5"
    shutil.copy(traces["crowded"], old)
    with Trace(old) as trace:
        scenario = json.loads(trace.attrs["scenario"])
    for hook in ("report", "contracts"):
        assert scenario.pop(hook)
    annotate(old, {"scenario": json.dumps(scenario)})
    now, then = (report.write_page([path], tmp_path / "p.html").read_text() for path in (traces["crowded"], old))
    assert now == then
    both = report.write_page([traces["crowded"], old], tmp_path / "p.html").read_text()
    assert "What was set differently" not in both


def test_many_entities_are_a_table_of_colours_and_what_stands_still_is_told(tmp_path):
    names = [f"e{k}" for k in range(12)]
    members = {name: Member(simulator="boxes:Source", step_s=60, entities={"Source": names}, params={"slope_kw": slope})
               for name, slope in (("rising", 1.0), ("flat", 0.0))}
    run(Scenario(name="wide", about="many sources", until_s="1h", members=members), tmp_path / "wide.h5")
    with Trace(tmp_path / "wide.h5") as trace:
        (powers,) = [s for s in GENERAL.sections(read_as(GENERAL, [trace])) if s.title == "Active power"]
    ((rising,), (flat,)) = powers.pictures
    (panel,) = rising.panels
    assert panel.heat.rows == tuple(reversed(names))
    assert (panel.heat.z == np.arange(60.0)).all()
    assert "p_kw goes from 0\u00a0kW to" in rising.says
    assert rising.facts[0].value == pytest.approx(29.5)
    assert flat.panels == ()
    assert "p_kw is 0\u00a0kW throughout" in flat.note


# --- the command line -------------------------------------------------------------------------------------------------


def test_report_says_in_one_line_what_is_wrong(traces, tmp_path, capsys, monkeypatch):
    assert report.main([str(tmp_path / "none.h5")]) == TraceError.exit_code
    assert report.main([str(traces["plain"]), "--out", str(traces["plain"])]) == ScenarioError.exit_code
    monkeypatch.delitem(sys.modules, "cosim.reporting.paper", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report.main([str(traces["plain"]), "--figures", str(tmp_path)]) == ScenarioError.exit_code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "aidc-cosim[plot]" in said[2]
    assert "one of the traces" in said[1]
    shutil.copy(traces["plain"], tmp_path / "torn.h5")
    with h5py.File(tmp_path / "torn.h5", "r+") as file:
        file.attrs["scenario"] = "{"
    assert report.main([str(tmp_path / "torn.h5")]) == TraceError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert "torn.h5: JSONDecodeError" in line
    assert Trace(traces["plain"]).attrs["status"] == "completed"


def test_run_makes_the_report_and_prints_its_path(tmp_path, capsys):
    out = tmp_path / "two.h5"
    assert main(["two_bus", "--driver", "native", "--quiet", "--until", "15min", "--out", str(out), "--report"]) == 0
    assert f"report: {tmp_path / 'two.html'}" in capsys.readouterr().out
    assert (tmp_path / "two.html").read_text().startswith("<!doctype html>")


def test_figures_for_print(traces, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    written = report.write_figures([traces["crowded"]], tmp_path / "a", ["svg"])
    names = {p.stem for p in written}
    assert {"map", "power", "carbon", "gpus", "waits", "voltages", "lines", "events", "trust", "captions"} <= names
    early = report.write_figures([traces["crowded"]], tmp_path / "c", ["svg"], at_s=0.0)
    moved = {p.stem for p, q in zip(written, early, strict=True) if p.read_bytes() != q.read_bytes()}
    assert moved == {"map"}, "all others are the same bit by bit when they are drawn again, and so is"
    with Trace(traces["crowded"]) as trace:
        shown = content([trace])
        load("cosim.reporting.paper:draw", "drawing")([shown.runs[0].label], shown.maps, [], tmp_path / "b", ["svg"])
    assert (tmp_path / "b" / "map.svg").read_bytes() == (tmp_path / "a" / "map.svg").read_bytes()
    assert "00:00" in next(p for p in early if p.stem == "map").read_text()
    assert report.main([str(traces["crowded"]), "--at", "1h"]) == ScenarioError.exit_code
    assert "[power]" in written[0].read_text()
    assert "**" not in written[0].read_text()
