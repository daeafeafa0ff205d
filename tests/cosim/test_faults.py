"""Whatever a member or the disk does: one clear line that names it, and a whole trace up to that point."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boxes import SourceParams
from hypothesis import example, given, settings
from hypothesis import strategies as st
from worlds import GRIDLESS_PY, boxes, run

from cosim.adapter import Adapter
from cosim.errors import CosimError, ScenarioError, TraceError
from cosim.ports import Port
from cosim.replay.exchange import replay
from cosim.run import main
from cosim.scenario import Link, Member, Scenario, override
from cosim.trace import Trace

LIAR_PY = Path(__file__).parents[1] / "liar.py"
HERE = "liar:Liar"
THERE = f'cmd: "%(python)s" "{LIAR_PY}" %(addr)s'


def lied_to(simulator=HERE, **params) -> Scenario:
    """A liar feeds a store."""
    return Scenario(name="lied", about="t", until_s="10min", flush_s="2min", members={
        "liar": Member(simulator=simulator, step_s=60, entities={"Feed": ["f0", "f1"]}, params=params, timeout_s=300),
        "store": Member(simulator="boxes:Store", step_s=60, entities={"Store": ["s"]})},
        links=[Link(source="liar.p_kw", target="store.p_kw")])


@pytest.mark.long(after=10)
@pytest.mark.parametrize("fault", ["nan", "infinite", "none", "text", "list", "wrong entity", "no dict", "backwards",
                                   "standstill", "half", "no step"])
@pytest.mark.parametrize("driver", ["native", "mosaik", "process"])
def test_a_lie_is_named_where_it_is_told(tmp_path, fault, driver):
    path = tmp_path / "t.h5"
    scenario = lied_to(THERE if driver == "process" else HERE, fault=fault)
    with pytest.raises(CosimError) as err:
        run(scenario, path, "native" if driver == "native" else "mosaik")
    said = str(err.value)
    assert "member 'liar'" in said
    assert "failed at 00:02" in said
    assert "\n" not in said
    with Trace(path) as trace:
        assert trace.attrs["status"] == "failed"
        assert trace.attrs["error"] == said
        assert trace["store/Store/p_seen_kw"][:, 0].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_member_without_entities_is_said(driver):
    with pytest.raises(CosimError, match="liar"):
        run(lied_to(fault="no entity"), None, driver)


WORDS = ["3.0", "time-based", "event-based", "Feed", "p_kw", "attrs", "models", "public", "params", "", "x"]
KEYS = ["api_version", "type", "models", "Feed", "attrs", "public", "params", "p_kw"]
META = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=8)


def how_it_ended(scenario, driver):
    """'completed', or the one error a run may end with."""
    try:
        return run(scenario, None, driver).status
    except CosimError as err:
        return str(err)


@given(META)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:Simulator liar is using an outdated API")
def test_random_meta_ends_in_one_line_or_a_run(meta):
    """Whatever a simulator says of itself: both drivers complete, or say in one line which member it was."""
    for driver in ("native", "mosaik"):
        said = how_it_ended(lied_to(meta=meta), driver)
        assert said == "completed" or (("liar" in said or "store" in said) and "\n" not in said)


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) |
    st.sampled_from(["", "1", "p_kw"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["f0", "f1", "p_kw", "x"]), inner,
                                                                max_size=3), max_leaves=6)


@given(ANSWERS)
@example({"f0": {"p_kw": "1"}, "f1": {"p_kw": 1}})
@settings(max_examples=60, deadline=None)
def test_any_answer_is_taken_or_named(answer):
    """Whatever get_data() gives: a number for both entities is taken, all else is said with member and time."""
    fits = isinstance(answer, dict) and all(isinstance(answer.get(f), dict) and isinstance(
        answer[f].get("p_kw"), (int, float)) for f in ("f0", "f1"))
    for driver in ("native", "mosaik"):
        said = how_it_ended(lied_to(answer=[answer]), driver)
        if fits:
            assert said == "completed"
        else:
            assert "member 'liar'" in said
            assert "failed at 00:02" in said
            assert "\n" not in said


def test_steps_that_do_not_divide_are_refused():
    with pytest.raises(ScenarioError, match="store.step_s = 90 s is not a whole number of bus steps"):
        run(override(boxes(), {"store.step_s": 90}), None)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount on this machine")
def test_a_full_disk_ends_the_run_with_a_whole_trace(small_disk):
    done = subprocess.run(
        [sys.executable, "-m", "cosim.run", GRIDLESS_PY, "--until", "300d", "--driver", "native", "--quiet", "--out",
         small_disk / "t.h5"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith(f"cosim: cannot write {small_disk}/t.h5: the disk has")
    assert done.stderr.count("\n") == 1
    with Trace(small_disk / "t.h5") as trace:
        assert trace.attrs["status"] == "failed"
        assert "the disk has" in trace.attrs["error"]
        minutes = len(trace.time_s("aidc/Site"))
        assert minutes > 60
        assert len(trace["aidc/Site/p_kw"]) == minutes


def test_too_little_room_is_said_before_the_file_breaks(tmp_path, monkeypatch):
    """The same where no disk can be made: the free space that is reported shrinks in mid-run."""
    usage = shutil.disk_usage(tmp_path)
    free = iter([10**9] * 4 + [10**6] * 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=next(free)))
    with pytest.raises(TraceError, match="the disk has 1.0 MB left"):
        run(boxes(), tmp_path / "t.h5")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["status"] == "failed"
        assert len(trace.time_s("src/Source")) == 90


def test_one_file_for_two_runs_is_refused(tmp_path, capsys):
    out = tmp_path / "t.h5"
    from cosim.experiment import Experiment
    first = Experiment(boxes(), "native", out=out)
    seen = []

    def second(time):
        if time == 60:
            seen.append(main(["two_bus", "--out", str(out), "--quiet", "--driver", "native"]))
            seen.append(main(["two_bus", "--out", str(out), "--quiet", "--driver", "native", "--force"]))

    first.control.on_progress = second
    first.run()
    assert seen == [5, 5]
    assert capsys.readouterr().err.count("\n") == 2
    with Trace(out) as trace:
        assert trace.attrs["name"] == "boxes"
        assert len(trace.time_s("src/Source")) == 180


@pytest.mark.long
def test_force_does_not_cut_a_trace_that_another_process_writes(tmp_path, capsys):
    """HDF5 empties a file that it is to overwrite before it asks for its lock, so that a refusal comes too late."""
    out = tmp_path / "t.h5"
    code = ("import sys\nfrom pathlib import Path\nfrom worlds import *\n"
            f"e = Experiment(boxes(), 'native', out=Path({str(out)!r}))\n"
            "e.control.on_progress = lambda time: time == 60 and (print('half', flush=True), sys.stdin.readline())\n"
            "e.run()")
    here = Path(__file__).parent
    first = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}"})
    try:
        assert first.stdout.readline() == "half\n"
        assert main(["two_bus", "--out", str(out), "--quiet", "--driver", "native", "--force"]) == 5
        assert "is open in another program" in capsys.readouterr().err
        first.communicate("on\n", timeout=600)
    finally:
        first.kill()
        first.wait()
    with Trace(out) as trace:
        assert (trace.attrs["name"], trace.attrs["status"]) == ("boxes", "completed")
        assert len(trace.time_s("src/Source")) == 180


def processes_with(mark):
    """Command lines of running processes that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it ended while we looked
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to look for processes")
@pytest.mark.parametrize(("does", "says"), [
    ("import time; time.sleep(600)", "it did not connect within 1 s"),
    ("import socket, sys, time; h, p = sys.argv[1].split(':'); s = socket.create_connection((h, int(p))); "
     "s.sendall(b'nonsense' * 9); time.sleep(600)", "store"),
])
def test_a_process_that_does_not_answer_is_named_and_ended(tmp_path, does, says, capfd):
    mark = f"mark-{tmp_path.name}"
    scenario = override(lied_to(), {"store.simulator": f'cmd: %(python)s -c "{does}" %(addr)s {mark}',
                                    "store.timeout_s": 1})
    with pytest.raises(CosimError, match="member 'store'") as err:
        run(scenario, None, "mosaik")
    assert says in str(err.value)
    assert not processes_with(mark)
    assert "Traceback" not in capfd.readouterr().err


def test_a_remote_adapter_that_was_not_told_its_step_is_refused():
    """It would run with its own default step and seed 0, and nobody would notice."""
    serve = f'cmd: %(python)s "{Path(__file__).parents[1] / "boxes.py"}" %(addr)s'
    with pytest.raises(ScenarioError, match="member 'store'.*set adapter=True"):
        run(override(lied_to(), {"store.simulator": serve}), None, "mosaik")


def test_a_trace_is_never_written_over_what_it_reads(tmp_path):
    first = run(boxes(), tmp_path / "t.h5").path
    with pytest.raises(TraceError, match="is read by this run"):
        run(replay(boxes(), "src", first), first, overwrite=True)
    assert main([str(first), "--trust", str(first), "--out", str(first), "--force"]) == 5
    with Trace(first) as trace:
        assert trace.attrs["status"] == "completed"


def test_many_lines_are_said_in_one(tmp_path, capsys):
    (tmp_path / "loud.py").write_text("raise ValueError('one\\ntwo\\nthree')\n")
    assert main([str(tmp_path / "loud.py")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "leaves.py").write_text("raise SystemExit(7)\n")
    assert main([str(tmp_path / "leaves.py")]) == 2
    assert "SystemExit: 7" in capsys.readouterr().err


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_member_that_exits_is_named(driver):
    with pytest.raises(CosimError, match="member 'store'.*failed at 00:15: SystemExit: 7"):
        run(boxes(die_at_s=900), None, driver)


class Sink(Adapter):
    """Takes power and gives nothing; `Summary` has no ports at all."""

    PARAMS = SourceParams
    MODELS = {"Sink": (Port("p_kw", "in", "power"),), "Summary": ()}

    def advance(self, time_s, inputs):
        return {}


class Mute(Sink):
    """Forgets to return; or, with a slope, names another port."""

    MODELS = {"Sink": (Port("p_kw", "in", "power"), Port("e_kwh", "out", "energy"))}

    def advance(self, time_s, inputs):
        return {"s": {"e_kw": 1.0}} if self.params.slope_kw == 2.0 else None


def test_what_an_adapter_gives_is_held_against_its_ports():
    """No outputs are fine where there are no ports; else nothing, or another name, is said."""
    sink = override(boxes(), {"late.simulator": "test_faults:Sink", "late.entities": {"Sink": ["s"], "Summary": ["x"]}})
    assert run(sink, None, until_s=900.0).status == "completed"
    mute = override(sink, {"late.simulator": "test_faults:Mute", "late.entities": {"Sink": ["s"]}})
    with pytest.raises(CosimError, match="member 'late'.*returned None, not a dict: entity -> port -> value"):
        run(mute, None, until_s=900.0)
    with pytest.raises(CosimError, match="late.s gave the wrong outputs; missing or unknown: e_kw, e_kwh"):
        run(override(mute, {"late.slope_kw": 2.0}), None, until_s=900.0)
