"""A received file runs nothing that nobody announces, unless that file is trusted."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosim import trust
from cosim.agents.learn import checkpoint
from cosim.check import main as check_main
from cosim.experiment import Experiment
from cosim.report import main as report_main
from cosim.report import write_page
from cosim.run import available, find, main
from cosim.scenario import Member
from cosim.trace import Trace
from cosim.trace.command import main as inspect_main
from cosim.trace.seal import seal
from cosim.trust import foreign

SPY = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from boxes import Store as Evil
def hook(_):
    from cosim.digest import Digest
    return Digest()
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def spied(tmp_path, monkeypatch):
    """A folder with code beside which a trace lies; the code leaves a mark when it is imported or started."""
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("spy", None)
    yield tmp_path
    sys.modules.pop("spy", None)


@cache
def good_run() -> bytes:
    """The trace of two minutes of `two_bus`."""
    with tempfile.TemporaryDirectory() as folder:
        return Experiment(find("two_bus"), "native", 120.0, Path(folder) / "t.h5").run().path.read_bytes()


def received(folder: Path, members=None, sealed=True, **fields) -> Path:
    """A trace as somebody may send it: a good run's, whose scenario says something else; may be `sealed` so."""
    path = folder / "received.h5"
    scenario = find("two_bus")
    path.write_bytes(good_run())
    changed = scenario.replace(until_s=120.0, members={**scenario.members, **(members or {})}, **fields)
    with h5py.File(path, "r+") as file:
        file.attrs["scenario"] = changed.to_json()
        if "summary" in file.attrs:
            del file.attrs["summary"]
    if sealed:
        with FileIO(path, "r+") as file:
            seal(file, path.stat().st_size)
    return path


def swapped(simulator: str, **params) -> dict[str, Member]:
    old = find("two_bus").members["profile"]
    return {"profile": old.model_copy(update={"simulator": simulator, "params": {**old.params, **params}})}


MARK = "touch ran; true %(addr)s"
ATTACKS = {
    "a command": {"members": swapped(f"cmd: /bin/sh -c '{MARK}'")},
    "an address": {"members": swapped("connect: 127.0.0.1:9")},
    "a class": {"members": swapped("spy:Evil")},
    "a hook before": {"preflight": "spy:hook"},
    "a hook after": {"summary": "spy:hook"},
    "laws": {"verify": "spy:hook"},
    "an environment": {"environment": "spy:Evil"},
    "a class in a file": {"members": swapped("spy.py:Evil")},
    "a class in a file called like this package": {"members": swapped("cosim.py:Evil")},
    "a hook in a file": {"preflight": "./spy.py:hook"},
    "a file as a parameter": {"members": swapped("cosim.simulators.profile:LoadProfile", policy="./spy.py:Evil")},
    "a model that is a program": {"members": swapped("cosim.simulators.profile:LoadProfile", path="./Evil.FMU")},
    "a parameter": {"members": swapped("cosim.simulators.profile:LoadProfile", policy="spy:Evil")},
    "a function of ours": {"verify": "cosim.run:main"},
    "a function of Python's": {"summary": "os:remove"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_it_is_run_or_even_imported(spied, attack, monkeypatch, capsys):
    path = received(spied, **ATTACKS[attack])
    monkeypatch.chdir(spied)
    for call in (["run"], ["run", "--show"], ["check"]):
        code = (main([str(path), *call[1:]]) if call[0] == "run" else
                check_main(["grid", "--scenario", str(path)]))
        said = capsys.readouterr().err
        assert code == 2
        assert said.count("\n") == 1
        assert "nothing of it was run" in said
        assert f"--trust {path}" in said
        assert len(said) < 400 + 2 * len(str(path))
    assert not (spied / "ran").exists()
    assert "spy" not in sys.modules


def test_a_check_of_laws_refuses_foreign_laws_alone(spied, capsys):
    path = received(spied, verify="spy:hook")
    assert inspect_main(["verify", str(path)]) == 2
    assert "verify = 'spy:hook'" in capsys.readouterr().err
    assert not (spied / "ran").exists()
    assert inspect_main(["verify", str(path), "--trust", str(path)]) == 0
    assert (spied / "ran").exists()
    stranger = received(spied, members=swapped("spy:Evil"))
    assert inspect_main(["verify", str(stranger)]) == 0, "its own laws are known; its simulators are not needed"


def test_a_page_shows_what_it_may_and_says_what_it_did_not_run(spied):
    path = received(spied, summary="spy:hook")
    assert "nothing of it was run" in write_page([path]).read_text()
    assert not (spied / "ran").exists()
    assert "nothing of it was run" not in write_page([path], trusted=[path]).read_text()
    assert (spied / "ran").exists()


def test_consent_is_for_one_file(spied, monkeypatch, capsys):
    monkeypatch.chdir(spied)
    path = received(spied, preflight="spy:hook", sealed=False)
    other = spied / "other.h5"
    other.write_bytes(path.read_bytes())
    assert main(["other.h5", "--quiet", "--trust", str(path), "--out", "no.h5"]) == 2
    assert not (spied / "ran").exists()
    assert main(["received.h5", "--quiet", "--trust", str(path), "--out", "yes.h5", "--driver", "native"]) == 0
    assert (spied / "ran").exists()
    assert main(["received.h5", "--quiet", "--out", "again.h5"]) == 2, "consent is not remembered"


def test_a_member_that_is_replaced_need_not_be_trusted(spied, monkeypatch):
    monkeypatch.chdir(spied)
    path = received(spied, members=swapped("cmd: /bin/sh -c 'touch ran' %(addr)s"))
    profile = find("two_bus").members["profile"].simulator
    out = str(spied / "o.h5")
    assert main([str(path), "--use", f"profile={profile}", "--quiet", "--driver", "native", "--out", out]) == 0
    assert not (spied / "ran").exists()


def test_looking_at_a_file_and_replaying_from_it_is_safe(spied):
    path = received(spied, members=swapped("spy:Evil"), preflight="spy:hook", summary="spy:hook", verify="spy:hook")
    with Trace(path) as trace:
        assert trace.attrs["status"] == "completed"
    for call in (["ls", str(path)], ["diff", str(path), str(path)], ["export", str(path), "--out", str(spied / "e")]):
        assert inspect_main(call) == 0
    assert main(["two_bus", "--replay", f"profile={path}", "--until", "2min", "--quiet", "--driver", "native",
                 "--out", str(spied / "o.h5")]) == 0
    assert not (spied / "ran").exists()


def test_a_link_that_leads_to_itself_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop.h5").symlink_to("loop.h5")
    Path("loop.html").symlink_to("loop.html")
    Path("t.h5").write_bytes(good_run())
    for call in (lambda: main(["two_bus", "--until", "1min", "--driver", "native", "--quiet", "--out", "loop.h5"]),
                 lambda: report_main(["t.h5", "--out", "loop.html"]), lambda: inspect_main(["ls", "loop.h5"]),
                 lambda: main(["t.h5", "--trust", "loop.h5", "--out", "loop.h5", "--quiet", "--driver", "native"])):
        assert call() == 5
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Too many levels of symbolic links" in said or "no trace at" in said


def test_all_shipped_scenarios_are_known():
    for name in available():
        assert [(w, t) for w, t in foreign(find(name)) if not t.startswith(("cmd:", "connect:"))] == []


def test_what_an_installed_package_announces_is_known(monkeypatch):
    class Entry:
        value = "spy:Evil"

    monkeypatch.setattr(trust.importlib.metadata, "entry_points", lambda group: [Entry] * (group == trust.SIMULATORS))
    trust._announced.cache_clear()
    try:
        assert trust.is_known("grid.simulator", "spy:Evil")
        assert not trust.is_known("grid.simulator", "spy:Other")
    finally:
        monkeypatch.undo()
        trust._announced.cache_clear()


def test_a_folder_in_the_way_of_ours_is_not_ours(tmp_path):
    (tmp_path / "simulators").mkdir()
    (tmp_path / "simulators" / "__init__.py").write_text("raise SystemExit('ran')")
    code = ("from cosim.trust import is_known; import sys; "
            "print(*(is_known('profile.simulator', f'{top}simulators.profile:LoadProfile') for top in ('', 'cosim.')))")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


REQUEST = {"scenario": "two_bus", "env": None, "mode": None, "learn": {"method": "mat"}, "settings": {}, "seed": 0,
           "envs": 1, "episodes": 1, "updates": None}
REQUESTS = {
    "an environment": {"scenario": None, "env": "spy:hook"},
    "a scenario's file": {"scenario": "spy.py"},
    "a scenario's file elsewhere": {"scenario": "../spy.py"},
    "a setting": {"scenario": "ieee33", "settings": {"controller.policy": "spy:Evil"}},
    "a command": {"scenario": "ieee33", "settings": {"grid.simulator": f"cmd: /bin/sh -c '{MARK}'"}},
}


@pytest.mark.parametrize("attack", REQUESTS)
def test_a_received_training_run_runs_nothing(spied, attack, monkeypatch, capsys):
    pytest.importorskip("torch")
    from cosim.agents.curves import main as curves_main
    from cosim.agents.train import main as train_main

    monkeypatch.chdir(spied)
    checkpoint.write(spied / "run" / checkpoint.LAST, {"x": np.zeros(1)},
                     {"extra": {"request": {**REQUEST, **REQUESTS[attack]}}})
    line = '{"terms": {}, "steps": 1, "episodes": 0, "episode_reward": 0.0}\n'
    (spied / "run" / checkpoint.LOG).write_text(line)
    assert train_main(["--resume", "run"]) == 2
    assert "nothing of it was run" in capsys.readouterr().err
    curves_main(["run"])  # what it does not need it need not refuse
    assert not (spied / "ran").exists()
    assert "spy" not in sys.modules
