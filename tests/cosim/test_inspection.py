"""python -m cosim.trace: what it lists, exports and verifies is what the file holds."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rewritten import rewritten
from worlds import boxes, run

from cosim.run import find
from cosim.scenario import override
from cosim.trace import Trace
from cosim.trace.command import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """Two hours of ieee33 with drops: random commands."""
    scenario = override(find("ieee33"), {"controller.policy": "random"})
    return run(scenario, tmp_path_factory.mktemp("d") / "day.h5", until_s=7200.0).path


def test_ls(day, capsys):
    assert main(["ls", str(day)]) == 0
    said = capsys.readouterr().out
    assert "completed" in said
    assert "aidc/Site/p_kw" in said
    assert "120 x 3 x 4" in said


def test_as_a_module(day):
    program = [sys.executable, "-m", "cosim.trace"]
    done = subprocess.run([*program, "ls", day], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*program, "dif", day], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_diff(day, tmp_path, capsys):
    other = tmp_path / "o.h5"
    shutil.copy(day, other)
    assert main(["diff", str(day), str(other)]) == 0
    with rewritten(other) as f:
        f["aidc/Site/p_kw"][75, 2] += 1.0
    assert main(["diff", str(day), str(other)]) == 1
    assert "aidc/Site/p_kw at 01:15, aidc3:" in capsys.readouterr().out


def test_export_is_the_same_numbers(day, tmp_path):
    assert main(["export", str(day), "--out", str(tmp_path / "csv")]) == 0
    with (tmp_path / "csv" / "aidc.Site.csv").open() as file, Trace(day) as trace:
        rows = list(csv.DictReader(file))
        assert [float(r["aidc2.p_kw"]) for r in rows] == trace["aidc/Site/p_kw"][:, 1].tolist()
        assert [float(r["aidc3.work_to.vae"]) for r in rows] == trace["aidc/Site/work_to"][:, 2, 1].tolist()
        assert [int(r["time_s"]) for r in rows] == trace.time_s("aidc/Site").tolist()
    with (tmp_path / "csv" / "jobs.csv").open() as file, Trace(day) as trace:
        assert [int(r["id"]) for r in csv.DictReader(file)] == trace.table("jobs")["id"].tolist()
    assert main(["export", str(day), "--out", "/proc/nowhere"]) == 5


def test_an_export_has_time_stamps_and_units_wide_and_tidy(traces, tmp_path):
    path = str(traces["plain"])
    assert main(["export", path, "--out", str(tmp_path / "wide")]) == 0
    assert main(["export", path, "--out", str(tmp_path / "tidy"), "--tidy"]) == 0
    with (tmp_path / "wide" / "aidc.Site.csv").open() as file:
        wide = list(csv.DictReader(file))
    assert [row["time_utc"] for row in wide[:2]] == ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"]
    with (tmp_path / "wide" / "columns.csv").open() as file:
        units = {(row["table"], row["column"]): row["unit"] for row in csv.DictReader(file)}
    assert units["aidc/Site", "aidc1.p_kw"] == "kW"
    assert units["aidc/Site", "time_s"] == "s"
    assert set(units) >= {("aidc/Site", column) for column in wide[0]}
    with (tmp_path / "tidy" / "aidc.Site.csv").open() as file:
        tidy = list(csv.DictReader(file))
    power = [row for row in tidy if (row["entity"], row["port"]) == ("aidc1", "p_kw")]
    assert [row["value"] for row in power] == [row["aidc1.p_kw"] for row in wide]
    assert {row["unit"] for row in power} == {"kW"}
    labelled = [row["value"] for row in tidy if (row["port"], row["label"]) == ("work_to", "query")]
    assert labelled == [row["aidc1.work_to.query"] for row in wide]


@pytest.mark.parametrize("kind", ["frictionless", "croissant"])
def test_a_descriptor_names_every_file_and_column_with_its_unit(traces, tmp_path, kind):
    assert main(["export", str(traces["plain"]), "--out", str(tmp_path), "--describe", kind]) == 0
    names = {"frictionless": "datapackage.json", "croissant": "croissant.json"}
    data = json.loads((tmp_path / names[kind]).read_text())
    if kind == "frictionless":
        found = {r["path"]: (r["hash"].removeprefix("sha256:"), [f["name"] for f in r["schema"]["fields"]])
                 for r in data["resources"]}
        fields = next(r for r in data["resources"] if r["path"] == "aidc.Site.csv")["schema"]["fields"]
        power = next(f for f in fields if f["name"] == "aidc1.p_kw")
        assert (power["type"], power["unit"]) == ("number", "kW")
    else:
        of = {r["@id"]: [f["source"]["extract"]["column"] for f in r["field"]] for r in data["recordSet"]}
        found = {o["name"]: (o["sha256"], of[o["@id"].removeprefix("file-")]) for o in data["distribution"]}
    assert set(found) == {p.name for p in tmp_path.glob("*.csv")}
    for name, (digest, columns) in found.items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        with (tmp_path / name).open(newline="") as file:
            assert next(csv.reader(file)) == columns


def test_a_workbook_has_a_sheet_per_table(traces, tmp_path, capsys):
    call = ["export", str(traces["plain"]), "--out", str(tmp_path), "--format", "xlsx"]
    try:
        import xlsxwriter  # noqa: F401
    except ImportError:
        assert main(call) == 2
        assert "aidc-cosim[excel]" in capsys.readouterr().err
        return
    openpyxl = pytest.importorskip("openpyxl")
    assert main(call) == 0
    book = openpyxl.load_workbook(tmp_path / "plain.xlsx", read_only=True)
    head, first = list(book["aidc.Site"].iter_rows(max_row=2, values_only=True))
    with Trace(traces["plain"]) as trace:
        power = trace["aidc/Site/p_kw"][0, 0]
    assert dict(zip(head, first, strict=True))["aidc1.p_kw"] == pytest.approx(power, rel=1e-14), "Excel holds 15 digits"
    assert "columns" in book.sheetnames


def test_the_summary_is_a_file(traces, tmp_path, capsys):
    path = str(traces["plain"])
    assert main(["summary", path, "--out", str(tmp_path / "s.csv")]) == 0
    assert main(["summary", path, "--out", str(tmp_path / "s.json")]) == 0
    with Trace(path) as trace:
        figures = json.loads(trace.attrs["summary"])["figures"]
    with (tmp_path / "s.csv").open() as file:
        rows = {row["figure"]: (float(row["value"]), row["unit"]) for row in csv.DictReader(file)}
    assert rows["energy_kwh"] == (figures["energy_kwh"], "kWh")
    assert set(rows) == set(figures)
    data = json.loads((tmp_path / "s.json").read_text())
    assert data["figures"]["co2_system_kg"] == {"value": figures["co2_system_kg"], "unit": "kg"}
    assert data["status"] == "completed"
    capsys.readouterr()
    assert main(["summary", path]) == 0
    assert "Data centers" in capsys.readouterr().out
    for words in (["--out", "s.txt"], ["--out", str(tmp_path / "none" / "s.csv")]):
        assert main(["summary", path, *words]) == 2
    assert main(["export", path, "--out", str(tmp_path), "--parquet", "--format", "csv"]) == 2
    assert main(["export", path, "--out", str(tmp_path), "--format", "xlsx", "--describe", "croissant"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_verify_passes_an_honest_trace(day, capsys):
    assert main(["verify", str(day)]) == 0
    said = capsys.readouterr().out
    assert said.count("holds") == 40
    unseen = [line.removeprefix("not checked: ") for line in said.splitlines() if line.startswith("not checked")]
    named = ("tower power", "reactive power", "losses and voltages", "how large a marginal", "the comparison with the",
             "recorded, and part of no law")
    assert all(line.startswith(name) for line, name in zip(unseen, named, strict=True))


def spoil(path, dataset, change):
    """A run that wrote other numbers, sealed as its own."""
    with rewritten(path) as f:
        data = f[dataset]
        data[...] = change(data[...])


def plus_one_at(*index):
    def change(values):
        values[index] += 1
        return values
    return change


@pytest.mark.long(after=2)
@pytest.mark.parametrize(("dataset", "change", "law"), [
    ("aidc/Site/finished_jobs", plus_one_at(30, 0, 3), "every minute"),
    ("workload/Arrivals/arrived_jobs", plus_one_at(30, 0, 3), "reaches one site"),
    ("jobs/outcome", lambda v: v[::-1].copy(), "job rows"),
    ("aidc/Site/work_to", lambda v: v * (1 + 1e-8), "work of the minutes"),
    ("jobs/done_to", lambda v: v * (1 + 1e-8), "all its work done"),
    ("aidc/Site/it_kw", lambda v: v * (1 + 1e-7), "(13)"),
    ("aidc/Site/cooling_kw", lambda v: v * (1 + 1e-7), "(12)"),
    ("aidc/Site/p_window_kw", lambda v: v * (1 + 1e-8), "told to the grid"),
    ("aidc/Site/busy_gpus", lambda v: v * 5, "capacity"),
    ("grid/Grid/loss_kw", lambda v: v + 1e-5, "(1)"),
    ("grid/Bus/nci_kg_per_kwh", lambda v: v * (1 + 1e-6), "carbon"),
])
def test_verify_names_each_law_that_is_broken(day, tmp_path, capsys, dataset, change, law):
    path = tmp_path / "spoilt.h5"
    shutil.copy(day, path)
    spoil(path, dataset, change)
    assert main(["verify", str(path)]) == 1
    broken = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BROKEN")]
    assert any(law in line for line in broken)


@pytest.mark.long
def test_verify_of_a_foreign_grid_says_what_it_could_not_see(tmp_path, capsys):
    path = run(find("plug_pandapower"), tmp_path / "t.h5", until_s=1800.0).path
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.count("holds") == 27
    assert "no grid/Grid in the trace" in said


def test_what_has_no_laws_says_so(tmp_path, capsys):
    path = run(boxes(), tmp_path / "t.h5").path
    assert main(["verify", str(path)]) == 5
    assert "names no laws" in capsys.readouterr().err
    assert main(["ls", str(tmp_path / "none.h5")]) == 5


@pytest.mark.long(after=1)
@pytest.mark.parametrize("module", ["cosim.trace ls", "cosim.report"])
def test_a_reader_who_leaves_early_is_no_error_of_the_trace(day, tmp_path, module):
    shutil.copy(day, tmp_path / "t.h5")
    done = subprocess.run(f'"{sys.executable}" -u -m {module} t.h5 | true', shell=True, text=True, capture_output=True,
                          check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "cosim: " not in done.stderr
    assert "Error" not in done.stderr
