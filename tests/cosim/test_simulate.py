"""`import cosim` and `cosim.simulate`: from a script, inside an event loop, and what a result gives."""

import ast
import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import BOXES_PY, STORE_CMD, remote, run

import cosim
from cosim.drivers.event_loop import beside_running_loop
from cosim.drivers.instrument import Stopped
from cosim.errors import ScenarioError, TraceError
from cosim.run import main
from cosim.trace import Trace
from cosim.trace.compare import compare

ROOT = Path(__file__).parents[2]
HEAVY = ("pandapower", "torch", "gurobipy", "clarabel", "pandas", "numpy", "h5py", "mosaik", "pydantic", "scipy",
         "rich")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Half an hour of the smallest loop, its file given as text."""
    out = tmp_path_factory.mktemp("simulate") / "t.h5"
    return cosim.simulate("two_bus", until="30min", seed=3, driver="native", out=str(out),
                          set={"controller.policy": "nci_priority"}, progress=False)


def test_importing_cosim_imports_nothing_heavy():
    code = f"import cosim, sys; print([name for name in {HEAVY} if name in sys.modules], cosim.__version__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said == f"[] {cosim.__version__}\n"


def test_public_names_are_what_type_checkers_see():
    assert set(cosim.__all__) == {*cosim._HOMES, "__version__"}
    assert set(cosim.__all__) <= set(dir(cosim))
    seen = {}
    for node in ast.parse((ROOT / "cosim" / "__init__.py").read_text()).body:
        if isinstance(node, ast.If):
            seen = {alias.name: item.module for item in node.body for alias in item.names}
    assert seen == cosim._HOMES
    for name, home in cosim._HOMES.items():
        assert getattr(cosim, name) is getattr(importlib.import_module(home), name)
        assert not (ROOT / "cosim" / f"{name}.py").exists(), "a function and a module of one name"
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        _ = cosim.simulat
    assert all((ROOT / folder / "py.typed").is_file() for folder in ("cosim", "agents", "simulators", "scenarios"))


def test_it_is_what_the_command_does(result, tmp_path):
    words = ["two_bus", "--until", "30min", "--seed", "3", "--set", "controller.policy=nci_priority", "--quiet",
             "--out", str(tmp_path / "c.h5")]
    assert main(words) == 0
    assert compare(result.path, tmp_path / "c.h5").equal
    assert (result.path.name, result.status, result.resolved.scenario.seed) == ("t.h5", "completed", 3)


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_it_runs_inside_an_event_loop(result, tmp_path, driver):
    async def notebook():
        return cosim.simulate("two_bus", until=1800, seed=3, driver=driver, out=tmp_path / "n.h5", progress=False,
                              set={"controller.policy": "nci_priority"})

    inside = asyncio.run(notebook())
    assert compare(result.path, inside.path).equal
    assert inside.figures == result.figures


@pytest.mark.long
def test_a_member_in_another_process_lives_as_long_as_a_run_inside_a_loop(tmp_path):
    async def notebook():
        return run(remote(), tmp_path / "n.h5", "mosaik")

    assert BOXES_PY.name in STORE_CMD
    inside, outside = asyncio.run(notebook()), run(remote(), tmp_path / "s.h5", "mosaik")
    assert compare(inside.path, outside.path).equal


def test_errors_inside_a_loop_are_those_of_a_script(tmp_path):
    async def notebook(**wrong):
        return cosim.simulate("two_bus", out=tmp_path / "e.h5", progress=False, **wrong)

    with pytest.raises(ScenarioError, match="did you mean 'uniform'"):
        asyncio.run(notebook(set={"controller.policy": "unifrm"}))
    with pytest.raises(ScenarioError, match="unknown driver"):
        asyncio.run(notebook(driver="helics"))
    asyncio.run(notebook(until="15min"))
    with pytest.raises(TraceError, match="exists"):
        asyncio.run(notebook(until="15min"))
    assert asyncio.run(notebook(until="15min", overwrite=True)).path == tmp_path / "e.h5"


def test_ctrl_c_inside_a_loop_ends_the_run_between_two_steps(monkeypatch):
    """The interrupt reaches the thread that waits; the run is asked to stop, and has stopped when it is raised."""
    stopped = []

    class Interrupted:
        """A future whose first wait is interrupted."""

        def __init__(self):
            self.asked = 0

        def set_result(self, _):
            raise AssertionError

        def set_exception(self, err):
            self.err = err

        def result(self):
            self.asked += 1
            if self.asked == 1:
                raise KeyboardInterrupt
            raise Stopped("stopped by the user at 00:10")

    monkeypatch.setattr("cosim.drivers.event_loop.Future", Interrupted)

    async def notebook():
        return beside_running_loop(lambda: 1 / 0, lambda: stopped.append(True))

    with pytest.raises(KeyboardInterrupt, match="stopped by the user at 00:10"):
        asyncio.run(notebook())
    assert stopped == [True]


def test_a_result_is_shown_short_and_as_html(result):
    assert "\n" not in repr(result)
    assert len(repr(result)) < 300
    assert repr(result).startswith("<Result: two_bus, 00:30 simulated, seed 3, completed in ")
    page = result._repr_html_()
    assert page.count("<table>") == len(result.digest.tables) > 2
    for table in result.digest.tables:
        assert table.title.replace("&", "&amp;") in page
    nasty = type(result)(None, "<script>", result.resolved, result.wall_s, ["<b>"], result.digest)
    assert "<script>" not in nasty._repr_html_()
    assert "<b>" not in nasty._repr_html_().partition("</b>")[2]


def test_the_summary_is_tidy(result):
    table = result.summary
    assert list(table.columns) == ["scenario", "seed", "figure", "value"]
    assert set(table["scenario"]) == {"two_bus"}
    assert dict(zip(table["figure"], table["value"], strict=True)) == pytest.approx(result.figures)
    assert table["figure"].is_unique
    assert result.figures["energy_kwh"] > 0


def test_pandas_and_xarray_hold_what_the_trace_does(result):
    with Trace(result.path) as trace:
        power, times, labels = trace["aidc/Site/p_kw"], trace.time_s("aidc/Site"), trace.dims("aidc/Site/busy_gpus")
        jobs, busy = trace.table("jobs"), trace["aidc/Site/busy_gpus"]
        models = trace.models()
    frame = result.to_pandas("aidc/Site/p_kw")
    assert list(frame.columns) == ["aidc1"]
    assert np.array_equal(frame["aidc1"].to_numpy(), power[:, 0])
    assert str(frame.index[1]) == "2026-01-01 00:01:00"
    whole = result.to_pandas("aidc/Site")
    assert np.array_equal(whole["p_kw", "aidc1", ""].to_numpy(), power[:, 0])
    assert result.to_pandas("jobs")["id"].tolist() == jobs["id"].tolist()
    data = result.to_xarray("aidc/Site")
    assert data["p_kw"].attrs["units"] == "kW"
    assert np.array_equal(data["p_kw"].sel(entity="aidc1").values, power[:, 0])
    assert data["time_s"].values.tolist() == times.tolist()
    assert data["busy_gpus"].dims == ("time_s", "entity", *labels)
    assert np.array_equal(data["busy_gpus"].values, busy)
    assert {group.removeprefix("/") for group in result.to_xarray().groups} >= set(models)
    for call in (lambda: result.to_pandas("aidc/Site/p_kv"), lambda: result.to_pandas("job"),
                 lambda: result.to_xarray("aidc/Sit")):
        with pytest.raises(TraceError, match="did you mean"):
            call()


def test_without_xarray_it_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ScenarioError, match="the extra 'xarray', or take to_pandas"):
        result.to_xarray()


def test_the_report_is_where_it_is_wanted(result, tmp_path):
    assert result.report(str(tmp_path / "p.html")) == tmp_path / "p.html"
    assert "two_bus" in (tmp_path / "p.html").read_text()


def test_without_a_trace_there_is_nothing_to_read(tmp_path):
    bare = run(cosim.find("two_bus"), None, until_s=900)
    assert (bare.path, bare.figures) == (None, {})
    assert "no trace" in repr(bare)
    with pytest.raises(TraceError, match="this run wrote no trace"):
        bare.to_pandas("jobs")


def test_scenarios_come_as_text_paths_and_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from cosim.scenarios.two_bus import SCENARIO\n")
    options = {"until": "15min", "driver": "native", "progress": False}
    results = [cosim.simulate(scenario, **options) for scenario in (
        "mine.py", Path("mine.py"), cosim.find(Path("mine.py")))]
    assert all(compare(results[0].path, other.path).equal for other in results[1:])
    assert results[0].path.parent == Path("results/two_bus")


def test_progress_and_warnings_go_to_standard_error(tmp_path, capsys):
    cosim.simulate("two_bus", until="15min", driver="native", out=tmp_path / "t.h5", set={"workload.rate_scale": 20})
    said = capsys.readouterr()
    assert said.out == ""
    assert "warning: " in said.err
