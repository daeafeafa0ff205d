"""Sweeps: points, common random numbers, tables; from the command line and from Python."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

import cosim
from cosim.campaign.points import checked_seeds, grid, plan_of, seeds_of, values_of
from cosim.campaign.statistics import interval
from cosim.campaign.sweep_table import frame_of, lines_of, statistics_of, uniform
from cosim.commands.main import main
from cosim.errors import ScenarioError

NOISE = "workload.arrivals.query.sigma_per_min"
RATE = "workload.rate_scale"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two points with three seeds, by the command."""
    out = tmp_path_factory.mktemp("sweep")
    words = ["sweep", "two_bus", "--set", f"{NOISE}=5", "--set", f"{RATE}=1,0.5", "--seeds", "0:3", "--until", "10min",
             "--jobs", "1", "--keep-traces", "--out", str(out)]
    assert main(words) == 0
    return out, words


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_every_figure_of_every_run_is_that_of_the_run_alone(swept, tmp_path):
    out, _ = swept
    alone = cosim.simulate("two_bus", until="10min", seed=2, set={NOISE: 5, RATE: 0.5}, out=tmp_path / "a.h5",
                           progress=False)
    found = {row["figure"]: row["value"] for row in rows(out / "runs.csv") if (row["point"], row["seed"]) == ("2", "2")}
    assert found.keys() == alone.figures.keys()
    for name, value in alone.figures.items():
        assert float(found[name] or "nan") == pytest.approx(value, rel=0, abs=0, nan_ok=True), name


def test_a_received_scenario_runs_no_code_of_others(tmp_path, capsys):
    path = tmp_path / "received.yaml"
    path.write_text("base: two_bus\nmembers:\n  x: {simulator: 'evil:Thing', step_s: 60, entities: {X: [a]}}\n")
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert f"add --trust {path}" in capsys.readouterr().err.replace("\n", "")


def test_means_intervals_and_paired_differences_are_those_of_the_runs(swept):
    out, _ = swept
    runs = [row for row in rows(out / "runs.csv") if row["figure"] == "energy_kwh"]
    one, two = (np.array([float(r["value"]) for r in runs if r["point"] == point]) for point in "12")
    assert len(set(one)) == 3
    row, = (row for row in rows(out / "table.csv") if (row["figure"], row["point"]) == ("energy_kwh", "2"))
    assert (row["unit"], row[RATE], row[NOISE], row["runs"], row["pairs"]) == ("kWh", "0.5", "5.0", "3", "3")
    low, high = stats.t.interval(0.95, 2, np.mean(two), stats.sem(two))
    assert [float(row[n]) for n in ("mean", "mean_low", "mean_high")] == pytest.approx([two.mean(), low, high])
    low, high = stats.t.interval(0.95, 2, np.mean(two - one), stats.sem(two - one))
    assert [float(row[n]) for n in ("difference", "difference_low", "difference_high")] == pytest.approx(
        [(two - one).mean(), low, high])


def test_parquet_holds_the_same_with_its_units(swept):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    table = parquet.read_table(swept[0] / "table.parquet")
    assert [str(v) for v in table["mean"].to_pylist()] == [row["mean"] for row in rows(swept[0] / "table.csv")]
    assert table.schema.field("figure").metadata[b"about"] == b"name in the summary of a run"
    assert table.schema.metadata[b"scenario"] == b"two_bus"


@pytest.mark.long
def test_a_sweep_that_grows_keeps_what_it_has_and_names_what_fails(swept, tmp_path, capsys):
    """One run finds a file where it makes its folder; the others are there."""
    out = tmp_path / "out"
    shutil.copytree(swept[0], out)
    words = [str(out) if word == str(swept[0]) else word for word in swept[1]]
    assert main([*words, "--dry-run"]) == 0
    assert "0 of 6 cells to compute" in capsys.readouterr().out
    cell = next(path for path in (out / "cells").iterdir() if path.name.startswith("0.5") and path.name.endswith("s1"))
    (cell / "result.json").unlink()
    (cell / "running").write_text("in the way")
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    more = [word.replace("=1,0.5", "=1,0.5,0.25").replace("0:3", "0:2") for word in words]
    assert main([*more, "--figures", "energy_kwh"]) == 1
    said = capsys.readouterr().out
    assert "5 of 6 runs are done, 3 of them from before" in said
    assert "rate_scale=0.25" in said
    assert "energy_kwh [kWh]" in said
    assert f"{cell.name} failed: internal error: FileExistsError" in said
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert {(row["point"], row["seed"]) for row in rows(out / "runs.csv")} == {
        ("1", "0"), ("1", "1"), ("2", "0"), ("3", "0"), ("3", "1")}
    assert {(row["point"], row["pairs"]) for row in rows(out / "table.csv")} == {("1", "0"), ("2", "1"), ("3", "2")}


def test_from_python_the_same_table(swept):
    out, _ = swept
    before = (out / "runs.csv").read_bytes()
    frame = cosim.run_sweep("two_bus", set={NOISE: 5, RATE: [1, 0.5]}, seeds=range(3), until="10min", out=out,
                            keep_traces=True, progress=False)
    assert before == (out / "runs.csv").read_bytes()
    found = frame[(frame.figure == "energy_kwh") & (frame.point == 2)].iloc[0]
    row, = (row for row in rows(out / "table.csv") if (row["figure"], row["point"]) == ("energy_kwh", "2"))
    assert (found["mean"], found["difference_high"]) == (float(row["mean"]), float(row["difference_high"]))
    assert frame.attrs["about"]["unit"].startswith("of the figure")
    runs = cosim.run_sweep("two_bus", set={NOISE: 5, RATE: [1, 0.5]}, seeds=range(3), until="10min", out=out,
                           keep_traces=True, per_seed=True, progress=False)
    assert set(runs.seed) == {0, 1, 2}


def test_a_picture_and_a_trace_on_request(swept, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    out, words = swept
    assert main([*words, "--plot", f"energy_kwh:{RATE}"]) == 0
    picture = out / f"energy_kwh over {RATE}.svg"
    assert str(picture) in capsys.readouterr().out.replace("\n", "")
    assert "energy_kwh [kWh]" in picture.read_text()
    traces = list((out / "cells").glob("*/trace.h5"))
    assert len(traces) == 6
    with cosim.Trace(traces[0]) as found:
        assert found.attrs["until_s"] == 600.0


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "grid.lamda_kw_per_kg_h=0,1"], "did you mean 'lambda_kw_per_kg_h'"),
    (["--set", "controller.policy=uniform,unifrom"], "point 2 of 2: "),
    (["--set", f"{RATE}=1,-1"], "point 2 of 2: "),
    (["--set", f"{RATE}=1,1.0"], "the value 1.0 twice"),
    (["--set", f"{RATE}=1,,2"], "has an empty value"),
    (["--set", f"{RATE}=[1"], "] is missing"),
    (["--set", "seed=1,2"], "seed is no field of a sweep"),
    (["--seeds", "5:0"], "are none"),
    (["--seeds", "a"], "write FIRST:END"),
    (["--seeds", "1,1"], "different whole numbers"),
    (["--jobs", "0"], "--jobs 0"),
    (["--set", f"{RATE}=1,2", "--plot", "energy_kwh:grid.x"], "unknown field of this sweep 'grid.x'"),
    (["--set", f"{RATE}=1,2", "--plot", "energy_kwh"], "write FIGURE:FIELD"),
    (["--address", "10.0.0.1:6379"], "goes with the engine 'ray'"),
    (["--plan", "none.yaml"], "no plan file at none.yaml")])
def test_a_wrong_request_is_one_line_before_any_run(words, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sweep", "two_bus", "--until", "2min", "--out", str(out), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(out.rglob("result.json"))


@pytest.mark.parametrize(("text", "found"), [
    ("0,0.01,1e-3", [0, 0.01, 0.001]), ("uniform,mpc", ["uniform", "mpc"]), ("[1,2],[3]", [[1, 2], [3]]),
    ('{"a":1,"b":[2,3]},null', [{"a": 1, "b": [2, 3]}, None]), ('"a,b",c', ["a,b", "c"]),
    ("sites:bus{node}", ["sites:bus{node}"]), ('"0.1"', ["0.1"]), ('["a\\"],b"]', [['a"],b']]), ("true, false",
                                                                                          [True, False])])
def test_values_of_a_field(text, found):
    assert values_of("a.b", text) == found


def test_grids_and_plans(tmp_path):
    assert grid({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert grid({}) == [{}]
    plan = tmp_path / "plan.csv"
    plan.write_text('a.x,b.y\n0.1,"[1,2]"\n0.2,text\n')
    assert plan_of(plan) == ({}, [{"a.x": 0.1, "b.y": [1, 2]}, {"a.x": 0.2, "b.y": "text"}])
    other = tmp_path / "plan.yaml"
    other.write_text("grid:\n  a.x: [1, 2]\npoints:\n  - {b.y: 3, c.z: no}\n")
    axes, points = plan_of(other)
    assert grid(axes, points) == [{"b.y": 3, "c.z": "no", "a.x": 1}, {"b.y": 3, "c.z": "no", "a.x": 2}]
    assert seeds_of("3:6") == [3, 4, 5]
    assert seeds_of("7") == [7]
    assert checked_seeds(np.arange(2)) == [0, 1]


@pytest.mark.parametrize(("name", "text", "said"), [
    ("p.csv", "a\n", "has no point"), ("p.csv", "a,a\n1,2\n", "names a field twice"),
    ("p.csv", "a,b\n1\n", "row 1 has 1 cells"), ("p.csv", "a,b\n1,\n", "empty cell"), ("p.csv", "a\n1\n1\n", "twice"),
    ("p.yaml", "gird: {}\n", "did you mean 'grid'"), ("p.yaml", "grid: {a: 1}\n", r"write field: \[value"),
    ("p.yaml", "points: {a: 1}\n", "write a list"), ("p.yaml", "grid: {}\n", "has no point"),
    ("p.yaml", "- 1\n", "a plan is grid:"), ("p.txt", "", "a plan ends in"),
    ("p.yaml", "points: [{a: 1}, {b: 1}]\n", "differ in their fields"),
    ("p.yaml", "grid: {a: [1]}\npoints: [{a: 2}]\n", "state it once")])
def test_what_is_no_plan_is_refused(name, text, said, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ScenarioError, match=said):
        grid(*plan_of(path))


def test_statistics_by_hand():
    """Two seeds: t = 12.7062, so the half width is t times half of the distance."""
    runs = {"point": [1, 1, 2, 2, 2], "a.b": ["x", "x", "y", "y", "y"], "seed": [0, 1, 0, 1, 2],
            "figure": ["f_kwh"] * 5, "unit": ["kWh"] * 5, "value": [1.0, 3.0, 2.0, 6.0, math.nan]}
    table = statistics_of(runs)
    assert table["mean"] == [2.0, 4.0]
    assert table["runs"] == [2, 2]
    assert table["mean_high"] == pytest.approx([2.0 + 12.7062, 4.0 + 2 * 12.7062], rel=1e-5)
    assert table["difference"][1] == 2.0
    assert table["difference_low"][1] == pytest.approx(2.0 - 12.7062, rel=1e-5)
    assert math.isnan(table["difference"][0])
    assert lines_of(runs, "f_kwh", "a.b", []) == {"": [("x", 2.0, pytest.approx(12.7062, rel=1e-5)),
                                                       ("y", 4.0, pytest.approx(25.4124, rel=1e-5))]}
    assert interval([5.0])[0] == 5.0
    assert math.isnan(interval([5.0])[1])
    assert all(map(math.isnan, interval([])))
    assert uniform([1, 2.5]) == [1.0, 2.5]
    assert uniform(["a", 1, [1, 2]]) == ["a", "1", "[1, 2]"]
    assert list(frame_of(table)["a.b"]) == ["x", "y"]


def test_the_manifest_has_settings_and_seed_of_each_run(swept):
    cells = json.loads((swept[0] / "manifest.json").read_text())["cells"]
    assert len(cells) == 6
    assert {(row["seed"], row["arguments"]["settings"][RATE]) for row in cells.values()} == {
        (seed, rate) for seed in range(3) for rate in (1, 0.5)}
