"""The command line, as a user meets it."""

import json
import os
import platform
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worlds import BOXES_PY, GRIDLESS_PY, steps_in

from cosim.params import fields_of
from cosim.run import available, find, main
from cosim.simulators.fleet import Site
from cosim.trace import Trace

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600
"""Ends what hangs; says nothing of how fast a machine is."""


def command(*arguments, cwd=ROOT, **options):
    return subprocess.run([sys.executable, "-m", "cosim.run", *map(str, arguments)], capture_output=True, text=True,
                          timeout=PATIENCE_S, cwd=cwd, check=False, **options)


@pytest.fixture
def start():
    """Starts runs in processes of their own, and leaves none behind. They take Ctrl-C even where the suite was started
    in the background, with the signal ignored: what is ignored is inherited."""
    running, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin(*arguments):
        running.append(subprocess.Popen([sys.executable, "-m", "cosim.run", *map(str, arguments)], text=True, cwd=ROOT,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return running[-1]

    yield begin
    signal.signal(signal.SIGINT, before)
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def test_a_run_prints_its_summary_and_stores_its_trace(tmp_path, capsys):
    out = tmp_path / "t.h5"
    assert main(["two_bus", "--out", str(out), "--driver", "native"]) == 0
    said = capsys.readouterr().out
    for word in ("Offered load", "Data centers", "voltage", "wall time", "bus", str(out)):
        assert word in said.replace("\n", "")
    with Trace(out) as trace:
        assert trace.attrs["status"] == "completed"
        assert json.loads(trace.attrs["versions"])["simpy"]
        assert json.loads(trace.attrs["versions"])["cpu"].startswith(platform.machine())
        assert json.loads(trace.attrs["versions"])["blas"]


def test_quiet_says_nothing(tmp_path, capsys):
    assert main(["two_bus", "--out", str(tmp_path / "t.h5"), "--quiet", "--driver", "native"]) == 0
    assert capsys.readouterr() == ("", "")


def test_list_and_show(capsys):
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert {line.split()[0] for line in said.splitlines() if line[0] != " "} >= set(available())
    assert main(["ieee33", "--show", "--driver", "native", "--set", "grid.lambda_kw_per_kg_h=0.1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "grid.lambda_kw_per_kg_h = 0.1  # kW/(kg/h); --set (0.01)" in shown
    assert "aidc.aidc3.p_window_kw -> grid.bus32.p_site_kw  (+60 s)" in shown
    assert "grid.bus8.nci_kg_per_kwh -> controller.aidc1.nci_kg_per_kwh" in shown


def test_what_show_prints_can_be_set(capsys):
    """Every 'member.field = value' line of --show is a valid --set, and sets what it says."""
    main(["two_bus", "--show", "--driver", "native"])
    lines = fields_in(capsys.readouterr().out)
    assert len(lines) > 60
    pairs = [line.split(" = ", 1) for line in lines]
    texts = [f"{path}={json.dumps(eval_literal(value))}" for path, value in pairs]
    arguments = [a for text in texts for a in ("--set", text)]
    assert main(["two_bus", "--show", "--driver", "native", *arguments]) == 0
    assert sorted(fields_in(capsys.readouterr().out)) == sorted(lines)


def test_show_has_every_field_with_its_default_its_unit_and_where_it_is_from(capsys):
    """Also what a scenario leaves to the sites' own defaults: ieee33 gives their nodes alone."""
    assert main(["ieee33", "--show", "--seed", "4", "--set", "shared.sites.aidc2.racks=60", "--until", "2h"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for line in ("shared.sites.aidc1.node = 8  # scenario", "shared.sites.aidc1.racks = 50  # default",
                 "shared.sites.aidc1.idle_kw = 100.0  # kW; default", "shared.sites.aidc2.racks = 60  # --set (50)",
                 "seed = 4  # --set (0)", "until_s = 7200.0  # s; --set (86400.0)", "resolution_s = 60.0  # s; default",
                 "aidc.window_s = 900.0  # s; default"):
        assert line in shown, line
    assert {f"shared.sites.aidc3.{name} = " for name in fields_of(Site)} <= {
        line.partition("= ")[0] + "= " for line in shown}


def fields_in(text):
    """The lines 'path = value', without what is told of them."""
    return [line.partition("  # ")[0] for line in text.splitlines() if " = " in line and not line.startswith("#")]


def eval_literal(text):
    import ast
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def test_every_scenario_loads_and_names_itself():
    assert {"ieee33", "ieee33_power", "ieee33_4", "ieee33_5", "table2", "azure_llm", "two_bus"} <= set(available())
    for name in available():
        assert find(name).name == name


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["iee33"], 2, "unknown scenario 'iee33'; did you mean 'ieee33'?"),
    ([], 2, "name a scenario"),
    (["nowhere/x.py"], 2, "no scenario file at nowhere/x.py"),
    (["two_bus", "--until", "-1h"], 2, "time '-1h' is negative"),
    (["two_bus", "--until=-1h"], 2, "time '-1h' is negative"),
    (["two_bus", "--until", "soon"], 2, "time 'soon' is not understood"),
    (["two_bus", "--until", "0s"], 2, "at least one step"),
    (["two_bus", "--until", "1e400h"], 2, "is too long; a duration is at most"),
    (["two_bus", "--set", "flush_s=Infinity"], 2, "flush_s"),
    (["two_bus", "--set", "start=2026-01-01T12:00:00"], 2, "a run begins at midnight"),
    (["two_bus", "--set", "grid.simulator=os:getcwd"], 2, "is no simulator: it is not a class"),
    (["two_bus", "--set", "grid.simulator=cosim.clock:Clock"], 2, "is no simulator: it has no init"),
    (["two_bus", "--set", "grid.simulator=cosim.adapter:Adapter"], 2, "it has no MODELS, PARAMS"),
    (["two_bus", "--set", "grid.simulator=connect: nowhere"], 2, "write connect: HOST:PORT"),
    (["two_bus", "--set", "grid.simulator=cmd: prog"], 2, "write cmd: COMMAND %(addr)s"),
    (["two_bus", "--set", 'shared.sites={"a.b": {"node": 1}}'], 2, "an entity cannot be called 'a.b'"),
    (["two_bus", "--set", "shared.sites.aidc1.idle_kw=NaN"], 2, "aidc1.idle_kw"),
    (["two_bus", "--set", "tariff.base_usd_per_kwh=Infinity"], 2, "tariff.base_usd_per_kwh"),
    (["two_bus", "--map", "grid.foo=P"], 2, "unknown port or entity 'foo'"),
    (["two_bus", "--rt-factor", "inf"], 2, "must be > 0 and finite"),
    (["two_bus", "--out", "x" * 300 + ".h5"], 5, "cannot write xxx"),
    (["two_bus", "--until", "90s"], 2, "not a whole number of bus steps"),
    (["two_bus", "--seed", "-3"], 2, "seed = -3"),
    (["two_bus", "--seed", "one"], 2, "invalid int value: 'one'"),
    (["two_bus", "--drivr", "native"], 2, "unrecognized arguments"),
    (["two_bus", "--driver", "helics"], 2, "invalid choice: 'helics'"),
    (["two_bus", "--set", "grid"], 2, "write member.field=value"),
    (["two_bus", "--set", "grid.lamda_kw_per_kg_h=1"], 2, "did you mean 'lambda_kw_per_kg_h'?"),
    (["two_bus", "--set", "grid.lambda_kw_per_kg_h=-1"], 2, "grid.lambda_kw_per_kg_h = -1"),
    (["two_bus", "--set", "controller.policy=unifrm"], 2, "did you mean 'uniform'?"),
    (["two_bus", "--set", "grid.simulator=no.such:Grid"], 2, "'no.such:Grid' cannot be imported"),
    (["azure_llm"], 2, "workload.path is required"),
    (["azure_llm", "--set", "workload.path=/no/such.csv"], 2, "/no/such.csv"),
    (["two_bus", "--out", "/proc/nowhere/t.h5"], 5, "cannot write /proc/nowhere/t.h5"),
])
def test_bad_input_gets_one_line_and_a_code(arguments, code, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1, "one line"
    assert "Traceback" not in printed
    assert "usage:" not in printed
    assert not list(tmp_path.rglob("*.h5")), "no trace of a run that never started"


def test_real_time_keeps_pace_and_reports_its_lag(tmp_path, capsys):
    """45 simulated minutes at 1/2640 s per s: 2640 s to the last step, 1 s by the wall clock, never less."""
    begin = time.monotonic()
    assert main(["two_bus", "--rt-factor", "0.00037879", "--out", str(tmp_path / "t.h5"), "--driver", "native"]) == 0
    assert time.monotonic() - begin >= 0.99
    assert "behind by at most" in capsys.readouterr().out
    assert main(["two_bus", "--rt-factor", "0", "--out", str(tmp_path / "u.h5")]) == 2
    assert "must be > 0" in capsys.readouterr().err


def test_installed_packages_announce_their_simulators(tmp_path, monkeypatch, capsys):
    info = tmp_path / "townsim-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: townsim\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cosim.simulators]\ntown-grid = townsim.grid:Grid\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--list"]) == 0
    assert "simulator town-grid: --use MEMBER=townsim.grid:Grid (from townsim)" in capsys.readouterr().out


def test_debug_shows_the_traceback(capsys):
    assert main(["iee33", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    out = tmp_path / "t.h5"
    arguments = ["two_bus", "--out", str(out), "--driver", "native", "--quiet"]
    assert main(arguments) == 0
    before = out.read_bytes()
    assert main(arguments) == 5
    assert out.read_bytes() == before
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force", "--until", "30min"]) == 0
    assert out.read_bytes() != before


def test_a_scenario_file_and_its_own_simulators(tmp_path):
    (tmp_path / "boxes.py").write_text(BOXES_PY.read_text())
    (tmp_path / "mine.py").write_text(
        "from cosim.scenario import Link, Member, Scenario\n"
        "SCENARIO = Scenario(name='mine', about='mine', until_s='10min', members={\n"
        "  'a': Member(simulator='boxes:Source', step_s=60, entities={'Source': ['s']}),\n"
        "  'b': Member(simulator='boxes:Store', step_s=60, entities={'Store': ['t']})},\n"
        "  links=[Link(source='a.p_kw', target='b.p_kw')])\n")
    done = command("mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (trace,) = (tmp_path / "results" / "mine").glob("*.h5")
    with Trace(trace) as opened:
        assert opened["b/Store/e_kwh"][-1, 0] == pytest.approx(sum(range(10)) / 60)
    done = command("mine.py", "--set", "b.fail_at_s=5min", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        3, "cosim: member 'b' (boxes:Store) failed at 00:05: RuntimeError: the store is full\n")
    (tmp_path / "broken.py").write_text("from cosim.scenario import Member\nMember(simulator='x:Y', step=3)\n")
    done = command("broken.py", "--quiet", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean" in done.stderr


@pytest.mark.long(after=1)
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_ctrl_c_keeps_what_was_computed(tmp_path, driver, start):
    out = tmp_path / "t.h5"
    process = start(GRIDLESS_PY, "--out", out, "--until", "3000d", "--driver", driver)
    wait_for(lambda: steps_in(out, "aidc/Site") >= 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("cosim: stopped by the user at ")
    assert [line.partition(":")[0] for line in said.splitlines() if "passed" not in line] == ["cosim"]
    with Trace(out) as trace:
        assert trace.attrs["status"] == "failed"
        assert "stopped by the user" in trace.attrs["error"]
        minutes = len(trace.time_s("aidc/Site"))
        assert minutes >= 60
        jobs = trace.table("jobs")
        assert len(jobs["id"]) == trace["aidc/Site/received_jobs"].sum(), "unfinished jobs have their rows, too"


def test_kill_9_leaves_whole_hours(tmp_path, start):
    out = tmp_path / "t.h5"
    process = start(GRIDLESS_PY, "--out", out, "--until", "3000d")
    wait_for(lambda: steps_in(out, "aidc/Site") >= 60)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    with Trace(out) as trace:
        assert trace.attrs["status"] == "running"
        assert len(trace.time_s("aidc/Site")) >= 60
        assert (trace["aidc/Site/p_kw"] >= 25).all(), "it idles at 25 kW"


@pytest.mark.long
def test_progress_bar_on_a_terminal_only(tmp_path):
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "cosim.run", str(GRIDLESS_PY), "--until", "1h",
                                "--out", str(tmp_path / "t.h5")], stdout=subprocess.DEVNULL, stderr=slave, cwd=ROOT,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:
            break
        if not block:
            break
        seen += block
    assert process.wait(PATIENCE_S) == 0
    assert b"gridless 0" in seen
    assert b"%" in seen
    assert "\x1b" not in command(GRIDLESS_PY, "--out", tmp_path / "u.h5").stderr
