"""The report: its words say what is missing, and one page holds it all."""

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
from worlds import GRIDLESS_PY, boxes, run, steps_in

from cosim import report
from cosim.errors import ScenarioError, TraceError
from cosim.imports import load
from cosim.reporting.content import read_as
from cosim.reporting.general import GENERAL
from cosim.reporting.overview import overview
from cosim.run import main
from cosim.scenario import Member, Scenario
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sections import REPORT
from cosim.trace import Trace
from cosim.trace.writer import annotate

ROOT = Path(__file__).parents[2]


def unpacked(page):
    """(head, arrays by their place) of a page, as its script reads them."""
    packed = re.search(r'id="data-gz">([^<]+)<', page).group(1)
    raw = gzip.decompress(base64.b64decode(packed))
    size = int.from_bytes(raw[:8], "little")
    head, body = json.loads(raw[8: 8 + size]), raw[8 + size:]
    return head, lambda place: np.frombuffer(body, f"<{place[0]}", place[2], place[1])


@pytest.mark.long
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
    assert "here with" not in page


def test_the_title_says_what_was_set_otherwise_than_in_the_shipped_scenario(traces, tmp_path):
    path = tmp_path / "t.h5"
    shutil.copy(traces["plain"], path)
    with Trace(path) as trace:
        data = json.loads(trace.attrs["scenario"])
    data["members"]["controller"]["params"]["policy"] = "tou_shift"
    annotate(path, {"scenario": json.dumps(data)})
    page = report.write_page([path]).read_text()
    assert "checkable by hand; here with controller.policy = tou_shift" in page


@pytest.mark.rows("X07")
def test_the_page_is_the_same_twice_and_holds_the_trace(traces, tmp_path, plain):
    pages = [report.write_page([traces["plain"]], tmp_path / f"{k}.html").read_bytes() for k in range(2)]
    assert pages[0] == pages[1]
    head, array = unpacked(pages[0].decode())
    flow = array(head["maps"][0]["flow"])
    assert flow == pytest.approx(plain.get("grid/Grid/p_from_kw").ravel(), rel=1e-6)
    power = next(p for p in head["plots"] if p["kind"] == "series" and p["unit"] == "kW" and not p["series"][0]["area"])
    assert array(power["series"][0]["y"]) == pytest.approx(plain.get(f"{SITE}/p_kw")[:, 0], rel=1e-6)


def test_several_runs_are_lines_on_one_axis_with_their_differences(traces, tmp_path):
    page = report.write_page([traces["plain"], traces["crowded"]], tmp_path / "two.html").read_text()
    assert "2 runs compared" in page
    assert "rate_scale" in page
    assert "What was set differently" in page
    head, array = unpacked(page)
    assert len(head["maps"]) == 2
    drawn = next(p for p in head["plots"] if p["title"] == "Power drawn")
    for line, name in zip(drawn["series"], ("plain", "crowded"), strict=True):
        with Trace(traces[name]) as trace:
            assert array(line["y"]) == pytest.approx(trace[f"{SITE}/p_kw"][:, 0], rel=1e-6)
    assert not any(s["area"] for p in head["plots"] for s in p.get("series", ()))


@pytest.mark.long
def test_a_killed_run_gives_a_page_that_says_so(tmp_path):
    path = tmp_path / "killed.h5"
    process = subprocess.Popen([sys.executable, "-m", "cosim.run", str(GRIDLESS_PY), "--until", "3000d", "--driver",
                                "native", "--quiet", "--out", str(path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not steps_in(path, SITE):
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    page = report.write_page([path]).read_text()
    assert "cut off" in page
    assert "of 3000 days; everything below covers only that part" in page
    assert "does not cope" not in page


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
    assert "torn.h5 is no trace of this program's: its attribute scenario is not what a run writes" in line
    assert Trace(traces["plain"]).attrs["status"] == "completed"


def test_run_makes_the_report_and_prints_its_path(tmp_path, capsys):
    out = tmp_path / "two.h5"
    assert main(["two_bus", "--driver", "native", "--quiet", "--until", "15min", "--out", str(out), "--report"]) == 0
    assert f"report: {tmp_path / 'two.html'}" in capsys.readouterr().out
    assert (tmp_path / "two.html").read_text().startswith("<!doctype html>")


@pytest.mark.long
def test_figures_for_print(traces, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    written = report.write_figures([traces["crowded"]], tmp_path / "a", ["svg"])
    names = {p.stem for p in written}
    assert {"map", "power", "carbon", "gpus", "waits", "voltages", "lines", "events", "captions"} <= names
    early = report.write_figures([traces["crowded"]], tmp_path / "c", ["svg"], at_s=0.0)
    moved = {p.stem for p, q in zip(written, early, strict=True) if p.read_bytes() != q.read_bytes()}
    assert moved == {"map"}, "all others are the same bit by bit when they are drawn again"
    assert "00:00 on 1 Jan 2026, UTC" in next(p for p in early if p.stem == "map").read_text()
    assert report.main([str(traces["crowded"]), "--at", "1h"]) == ScenarioError.exit_code
    assert "[power]" in written[0].read_text()
    assert "**" not in written[0].read_text()


def test_only_the_figures_that_are_wanted_as_wide_as_a_column_with_their_data(traces, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    call = [str(traces["crowded"]), "--figures", str(tmp_path), "--format", "svg", "--only", "nci,carbon",
            "--width", "single", "--font-size", "7"]
    assert report.main(call) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"captions.txt", "nci.svg", "nci.csv", "carbon.svg", "carbon-a.csv",
                                                    "carbon-b.csv"}
    drawn = (tmp_path / "nci.svg").read_text()
    assert 'width="252pt"' in drawn, "3.5 in"
    for words in ("kg/kWh", "Nodal carbon intensity", "time on 1 Jan 2026 (UTC)"):
        assert words in drawn
    assert re.search(r"font(-size)?: 7px", drawn)
    for letter in ("(a)", "(b)"):
        assert letter in (tmp_path / "carbon.svg").read_text()
    rows = (tmp_path / "nci.csv").read_text().splitlines()
    assert rows[0] == "time_s,time_utc,aidc1 [kg/kWh]"
    with Trace(traces["crowded"]) as trace:
        nci = trace["grid/Bus/nci_kg_per_kwh"][:, 1]
    assert [float(row.split(",")[2]) for row in rows[1:]] == nci.tolist()
    assert rows[2].startswith("900.0,2026-01-01T00:15:00Z,")
    for words, said in ((["--only", "ncii"], "did you mean 'nci'"), (["--width", "3"], "from 40 to 1000"),
                        (["--font-size", "no"], "points from 4 to 40"), (["--only", ","], "no name is given")):
        assert report.main([str(traces["crowded"]), "--figures", str(tmp_path), *words]) == ScenarioError.exit_code
        assert said in capsys.readouterr().err


def test_figures_of_several_runs_have_their_lines_on_one_axis(traces, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    both = [traces["plain"], traces["crowded"]]
    written = report.write_figures(both, tmp_path, ["svg"], only=["power", "waits"])
    assert [p.name for p in written] == ["captions.txt", "power.svg", "power.csv", "waits.svg", "waits-a.csv",
                                         "waits-b.csv"]
    head, first = (tmp_path / "power.csv").read_text().splitlines()[:2]
    assert head.count("[kW]") == 2
    with Trace(both[0]) as one, Trace(both[1]) as other:
        power = [t[f"{SITE}/p_kw"][0, 0] for t in (one, other)]
    assert [float(v) for v in first.split(",")[2:]] == pytest.approx(power)
