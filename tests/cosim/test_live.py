"""The live view says what the trace says, in a terminal and without one, under both drivers, for strangers too."""

import io
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from worlds import GRIDLESS_PY, boxes

from cosim.clock import Clock
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.reporting.definition import LiveColumn, LiveTable, live_tables
from cosim.reporting.live import LiveBoard, RunSpeed, line, live_view, other_lines, picture
from cosim.run import find
from cosim.simulators.reporting.sections import REPORT
from cosim.trace import Trace

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["native", "mosaik"])
def watched(request, tmp_path):
    """(board after the run, its plan, its trace's path) of an hour of two_bus with too many jobs."""
    scenario = find("two_bus")
    scenario = scenario.replace(members={**scenario.members, "workload": scenario.members["workload"].model_copy(
        update={"params": {**scenario.members["workload"].params, "rate_scale": 12}})})
    experiment, board = Experiment(scenario, request.param, 3600.0, tmp_path / "t.h5"), LiveBoard(REPORT.live)
    experiment.control.on_record = board.update
    experiment.run()
    return board, experiment.control.plan, tmp_path / "t.h5"


@pytest.mark.long
def test_sites_are_shown_as_the_trace_has_them_and_drops_since_the_start(watched):
    board, plan, path = watched
    (site,) = board.rows(REPORT.live[0], plan)
    shown = site.values
    with Trace(path) as trace:
        assert site.name == "aidc1"
        assert shown["p_kw"] == trace["aidc/Site/p_kw"][-1, 0]
        assert shown["queued_jobs"] == trace["aidc/Site/queued_jobs"][-1, 0].sum()
        assert shown["running_jobs"] == trace["aidc/Site/running_jobs"][-1, 0].sum()
        assert shown["free_gpu_ratio"] == pytest.approx(100 - 100 * trace["aidc/Site/free_gpu_ratio"][-1, 0])
        assert shown["dropped_jobs"] == trace["aidc/Site/dropped_jobs"][:, 0].sum() > 0
        bus = trace.names("grid/Bus").index("bus1")
        assert shown["nci_kg_per_kwh"] == trace["grid/Bus/nci_kg_per_kwh"][-1, bus]


def test_a_scenario_without_data_centers_shows_what_there_is(tmp_path):
    experiment, board = Experiment(boxes(), "native", 3600.0), LiveBoard()
    experiment.control.on_record = board.update
    experiment.run()
    # the source gives slope x step + noise to two entities, somebody else's grid a voltage under a name with brackets
    said = {text.partition(":")[0]: text for text in other_lines(board)}
    assert said.keys() == {"src", "store", "grid", "late"}
    assert re.search(r"p_kw \d+\.?\d* to \d+", said["src"])
    assert "Vm[pu]" in said["grid"]


def test_a_site_nobody_sends_an_intensity_to_is_not_known():
    board = LiveBoard(REPORT.live)
    board.update("aidc", {"x": {"p_kw": 12.0}})
    (site,) = board.rows(REPORT.live[0], None)
    assert math.isnan(site.values["nci_kg_per_kwh"])
    assert math.isnan(site.values["free_gpu_ratio"])
    pace = RunSpeed(Clock(60.0), 90, time=45)
    assert line("mine", board, None, pace) == ("mine 00:45 of 01:30 (50 %): x 12 kW at not known kg/kWh, 0 queued, "
                                               "0 dropped")
    text = io.StringIO()
    Console(file=text, width=80).print(picture("mine", board, None, pace))
    assert "━" * 30 + "─" * 30 in text.getvalue()
    assert max(len(row) for row in text.getvalue().splitlines()) <= 80


def test_a_table_of_somebody_elses_adds_up_and_says_what_it_does_not_know():
    """By hand: 2 kW + 3 kW; 1 + 4 litres since the start, of which b gives none; b's level is not known."""
    table = LiveTable("tanks", "tank", needs="heat_kw", columns=(
        LiveColumn("heat", "heat_kw", ".1f", unit=" kW", total=True),
        LiveColumn("level", "level_ratio", scale=100.0, unit=" %"),
        LiveColumn("spilled", "spilled_l", absent=0.0, since_start=True, total=True, alarm=True)),
        line="{heat_kw:.0f} kW, {level_ratio:.0f} % full, {spilled_l:.0f} l spilled")
    board, text = LiveBoard((table,)), io.StringIO()
    board.update("tanks", {"a": {"heat_kw": 7.0, "level_ratio": 0.5, "spilled_l": [0.5, 0.5]}, "b": {"heat_kw": 3.0}})
    board.update("tanks", {"a": {"heat_kw": 2.0, "level_ratio": 0.25, "spilled_l": 4.0}, "b": {"heat_kw": 3.0}})
    board.update("pump", {"p": {"flow": 1.5}})
    pace = RunSpeed(Clock(60.0), 90, time=45)
    assert line("x", board, None, pace).partition(": ")[2] == (
        "a 2 kW, 25 % full, 5 l spilled; b 3 kW, not known % full, 0 l spilled")
    Console(file=text, width=80).print(picture("x", board, None, pace))
    rows = [re.split(r"\s{2,}", row.strip()) for row in text.getvalue().splitlines()[2:]]
    assert rows == [["tank", "heat", "level", "spilled"], ["a", "2.0 kW", "25 %", "5"],
                    ["b", "3.0 kW", "not known", "0"], ["all", "5.0 kW", "5"], ["pump: flow 1.5"]]
    with pytest.raises(ScenarioError, match="two columns of the live table of tanks are of one port"):
        LiveTable("tanks", "tank", "heat_kw", (table.columns[0],) * 2, "")


def test_without_a_terminal_it_ends_with_a_plain_line(capsys):
    experiment, text = Experiment(find("two_bus"), "native", 1800.0), io.StringIO()
    with live_view(experiment.control, "two_bus", experiment.resolved.until, Console(file=text, width=200),
                   live_tables(experiment.scenario.model_dump())):
        experiment.run()
    (said,) = text.getvalue().splitlines()
    assert said.startswith("two_bus 00:30 of 00:30 (100 %)")
    # two_bus draws 32 kW of IT and 8 of cooling once it runs
    assert "aidc1 40 kW" in said
    assert "\x1b" not in said


@pytest.mark.long(after=1)
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_in_a_terminal_it_draws_and_leaves_nothing_behind(driver, tmp_path):
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cosim.run", str(GRIDLESS_PY), "--live", "--quiet", "--driver", driver, "--out",
         str(tmp_path / "t.h5")], cwd=ROOT, stdout=subprocess.PIPE, stderr=child, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    said = b""
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:  # Linux says EIO once the other side is closed
            break
        if not block:
            break
        said += block
    os.close(parent)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert out == b""
    shown = said.decode()
    assert all(word in shown for word in ("gridless", "NCI kg/kWh", "GPUs busy", "aidc1", "\u2501"))
    assert shown.rstrip().endswith("\x1b[2K"), "the view is wiped when the run ends"
