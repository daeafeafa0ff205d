"""Names of version 0.1: one module each, whatever it is imported by; other packages of these names are left alone."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cosim.errors import ScenarioError
from cosim.imports import load, today
from cosim.old_names import MODULES, OBJECTS
from cosim.run import main
from cosim.scenario import Scenario
from cosim.trace import Trace

ROOT = Path(__file__).parents[2]


def python(code, cwd):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("then", sorted(MODULES))
def test_every_old_module_has_one_of_today(then):
    now = today(then)
    assert now != then
    assert importlib.util.find_spec(now) is not None


@pytest.mark.parametrize(("then", "now"), [
    ("simulators.grid.adapter:CefDispatch", "cosim.simulators.grid.adapter:CefDispatch"),
    ("simulators.audit:verify", "cosim.simulators.analysis.conservation:verify"),
    ("agents.policies", "cosim.agents.fleet.policies"),
    ("scenarios.ieee33:SCENARIO", "cosim.scenarios.ieee33:SCENARIO"),
    ("simulators.workload.adapter:AzureLlm", "cosim.simulators.workload.azure_llm:AzureLlm"),
    ("cosim.simulators.workload.adapter:AzureLlm", "cosim.simulators.workload.azure_llm:AzureLlm"),
    ("cosim.simulators.workload.adapter:Arrivals", "cosim.simulators.workload.adapter:Arrivals"),
    ("cosim.replay:TracePlayer", "cosim.replay.members:TracePlayer"), ("cosim.intact", "cosim.trace.journal"),
    ("cosim.trace", "cosim.trace"), ("mine.grid:Grid", "mine.grid:Grid"), ("agentsmith.x:Y", "agentsmith.x:Y"),
    ("cmd: python -m x %(addr)s", "cmd: python -m x %(addr)s")])
def test_what_an_old_name_stands_for(then, now):
    assert today(then) == now


@pytest.mark.parametrize(("then", "now"), sorted(OBJECTS.items()))
def test_an_object_of_another_name_is_found_by_the_old_one(then, now):
    """As an import string and by an import statement; no object has the name of then today."""
    (old_module, _, old), (module, _, name) = then.partition(":"), now.partition(":")
    found = vars(importlib.import_module(module))[name]
    assert old not in vars(importlib.import_module(old_module))
    assert load(then, "object") is getattr(importlib.import_module(old_module), old) is found


def test_a_program_with_old_names_says_so(tmp_path):
    program = """
import cosim, cosim.imports, cosim.tables.table
from simulators.workload.adapter import Arrivals, AzureLlm
from cosim.table import Held
from agents.teamview import TeamView
print(Held is cosim.tables.table.TableSeries, TeamView.__name__, AzureLlm.__module__)
print(*cosim.imports.old_names())
"""
    done = python(program, tmp_path)
    first, note = done.stdout.splitlines()
    assert first.split() == ["True", "TeamArrays", "cosim.simulators.workload.azure_llm"], done.stderr
    assert "agents.teamview is cosim.agents.fleet.team_arrays" in note
    wrong = python("import cosim; from cosim.table import Nothing", tmp_path)
    assert "cannot import name 'Nothing'" in wrong.stderr


@pytest.mark.long(after=1)
@pytest.mark.parametrize("cwd", [ROOT, None], ids=["in the clone", "elsewhere"])
@pytest.mark.parametrize("first", ["", "import cosim; "])
def test_a_module_exists_once_by_both_names(tmp_path, cwd, first):
    """In the clone the folder `agents` is found by itself; elsewhere it is there by its old name once cosim is."""
    if cwd is None and not first:
        pytest.skip("there is no `agents` outside the clone before cosim is imported")
    code = (f"{first}import agents.spec, simulators.grid.elements, scenarios._study; "
            "import cosim.agents.learn.spec as a, cosim.simulators.grid.network.elements as e; "
            "print(agents.spec is a, simulators.grid.elements is e, a.__name__, a.__spec__.name)")
    done = python(code, cwd or tmp_path)
    assert done.stdout.split() == ["True", "True", *["cosim.agents.learn.spec"] * 2], done.stderr


def test_old_commands_run_in_the_clone():
    done = subprocess.run([sys.executable, "-m", "agents.spaces", "--table3"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hierarchical" in done.stdout


def test_a_copy_that_is_installed_runs_in_the_clone_as_well():
    """As after `pip install .`: nothing leads to the folders beside the clone's `cosim`, which Python finds first."""
    program = ("import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]; "
               "import cosim.scenarios.two_bus, cosim.agents.fleet.oracle; print(cosim.scenarios.two_bus.__file__)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert Path(done.stdout.strip()) == ROOT / "scenarios" / "two_bus.py", done.stderr


def test_another_package_of_that_name_is_not_ours(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("mine = True")
    (tmp_path / "agents" / "policies.py").write_text("Mine = dict")
    done = python("import cosim.imports as i, agents.policies; print(agents.mine, i.load('agents.policies:Mine', 'x'))",
                  tmp_path)
    assert done.stdout.split() == ["True", "<class", "'dict'>"], done.stderr


def test_a_scenario_by_old_names_is_todays(tmp_path, capsys):
    """A file of then runs, and its trace has the names of today; a run says what it read."""
    (tmp_path / "then.py").write_text(
        "from scenarios.two_bus import SCENARIO as two_bus\nfrom cosim.scenario import Scenario\n"
        "text = two_bus.to_json().replace('cosim.simulators.analysis.metrics', 'simulators.metrics')"
        ".replace('cosim.simulators.grid.', 'simulators.grid.')\nassert 'simulators.metrics:summary' in text\n"
        "SCENARIO = Scenario.from_json(text)\n")
    run = [str(tmp_path / "then.py"), "--until", "15min", "--driver", "native", "--out", str(tmp_path / "t.h5")]
    assert main(run) == 0
    assert "names of version 0.1 stand for those of today" in capsys.readouterr().out.replace("\n", " ")
    with Trace(tmp_path / "t.h5") as trace:
        scenario = Scenario.from_json(trace.attrs["scenario"])
        assert json.loads(trace.attrs["scenario"])["summary"] == "cosim.simulators.analysis.metrics:summary"
    assert scenario.members["grid"].simulator == "cosim.simulators.grid.adapter:CefDispatch"


def test_a_name_that_is_not_there_names_the_module_that_was_found(tmp_path, monkeypatch):
    """A module of somebody's that stands in the way of another is known by its path."""
    module = tmp_path / "stands_in_the_way.py"
    module.write_text("class Other: pass")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ScenarioError, match=f"{module.stem}.*{tmp_path}"):
        load(f"{module.stem}:Grid", "simulator")


@pytest.mark.parametrize("name", ["h5py.py", "simpy/__init__.py"])
def test_a_file_in_the_way_of_a_package_is_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    done = subprocess.run([sys.executable, "-m", "cosim.run", "--list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (f"cosim: {tmp_path / name} hides the package {name.split('/')[0].removesuffix('.py')}, "
                           "which cosim needs; rename it\n")
    assert "ImportError" in python("import cosim", tmp_path).stderr
