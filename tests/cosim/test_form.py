"""What has the form of HDF5 and not of a trace: refused in one line by its name, saved by `rescue` without it; numbers
that no run writes end in one line, too."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from worlds import boxes, run

from cosim.errors import LONGEST, TraceError
from cosim.experiment import Experiment
from cosim.report import main as report_main
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import LAWS, verify
from cosim.simulators.analysis.receipts import main as receipts_main
from cosim.trace import Trace, reader
from cosim.trace.command import main as inspect_main
from cosim.trace.rescue import rescue
from cosim.trace.seal import check_seal
from cosim.units import LONGEST_S


@pytest.fixture(autouse=True)
def no_child(monkeypatch):
    """HDF5 wrote these files, and does not crash on them."""
    monkeypatch.setattr(reader, "refuse_unreadable", lambda path: None)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run without its seal."""
    path = run(boxes(), tmp_path_factory.mktemp("honest") / "run.h5", until_s=1800.0).path
    path.write_bytes(path.read_bytes()[:check_seal(path).size])
    return path


def changed(source: Path, folder: Path, **attrs) -> Path:
    path = folder / "bad.h5"
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        for name, value in attrs.items():
            file.attrs[name] = value
    return path


WHOLE = json.loads(boxes().to_json())


def scenario(**fields) -> dict:
    return {"scenario": json.dumps({**WHOLE, **fields})}


def member(**fields) -> dict:
    return scenario(members={**WHOLE["members"], "src": {**WHOLE["members"]["src"], **fields}})


DIGEST = {"tables": [], "warnings": [], "figures": {}, "broken": []}
TABLE = {"title": "t", "columns": ["a"], "rows": [["1"]], "note": ""}
ODD = [
    ({"status": np.array(["a", "b"], dtype=object)}, "status is no text"), ({"scenario": 3}, "scenario is no text"),
    ({"name": np.bytes_(b"\xff")}, "name is no text"), ({"error": np.zeros((3, 3))}, "error is no text"),
    ({"seed": "x"}, "seed is no finite number"), ({"until_s": np.nan}, "until_s is no finite number"),
    ({"until_s": np.zeros(3)}, "until_s is no finite number"),
    ({"scenario": "[]"}, "is no scenario"), ({"scenario": "{"}, "is not what a run writes"),
    ({"scenario": "[" * 30_000}, "nested too deep"), ({"scenario": "9" * 5000}, "is not what a run writes"),
    (scenario(about=json.loads("[" * 50 + "]" * 50)), "nested deeper than 32 levels"),
    (scenario(about="\ud800"), "is no Unicode text"), (scenario(members=[]), "it has no members"),
    (scenario(shared=None), "it has no shared"), (scenario(name=3), "it has no name"),
    (scenario(members={"src": 3}), "its member src has no simulator"), (member(params=[]), "src has no params"),
    (member(step_s="1"), "its member src has no step_s"), (member(step_s=0), "step_s of its member src is no time"),
    (member(step_s=1e999), "step_s of its member src is no time"), (scenario(warmup_s="x"), "its warmup_s is no time"),
    ({"summary": "[]"}, "summary is not what a run writes"), ({"summary": "{}"}, "summary is not what a run writes"),
    *(({"summary": json.dumps({**DIGEST, **odd})}, "summary is not what a run writes") for odd in (
        {"tables": 3}, {"warnings": {}}, {"warnings": [3]}, {"figures": {"a": "x"}}, {"figures": [1]},
        {"figures": {"a": None}}, {"broken": "x"}, {"tables": [{**TABLE, "rows": [["a", "b"]]}]},
        {"tables": [{**TABLE, "rows": [3]}]}, {"tables": [{**TABLE, "title": None}]},
        {"tables": [{**TABLE, "note": "\ud800"}]})),
    ({"notes": "3"}, "notes is no list of texts"), ({"notes": "[3]"}, "notes is no list of texts"),
    ({"notes": "{"}, "notes is not what"), ({"versions": "[]"}, "versions is no list of versions"),
    ({"versions": '{"numpy": 1}'}, "versions is no list of versions"),
]


@pytest.mark.parametrize(("odd", "said"), ODD)
def test_an_attribute_that_no_run_writes_is_named(honest, tmp_path, odd, said):
    path = changed(honest, tmp_path, **odd)
    with pytest.raises(TraceError) as err:
        Trace(path)
    assert str(err.value).startswith(f"{path} is no trace of this program's: its attribute {next(iter(odd))} ")
    assert said in str(err.value)
    assert len(str(err.value)) <= LONGEST


@pytest.mark.parametrize("version", [0, -5, 1.5, "1", 2**40, np.array([1, 1])])
def test_a_schema_is_a_whole_number_that_is_known(honest, tmp_path, version):
    with pytest.raises(TraceError, match="has trace schema .* reads schemas up to 1"):
        Trace(changed(honest, tmp_path, schema_version=version))


def test_what_is_left_of_it_is_rescued(honest, tmp_path):
    path = changed(honest, tmp_path, notes="3", summary="[]", until_s="soon", mine="kept")
    lost = rescue(path, tmp_path / "saved.h5")
    assert sorted(text.split(" (")[0] for text in lost) == ["attribute notes", "attribute until_s"]
    with Trace(tmp_path / "saved.h5") as saved, Trace(honest) as good:
        assert saved.attrs["mine"] == "kept"
        assert saved.attrs["scenario"] == good.attrs["scenario"]
        assert (saved["store/Store/e_kwh"] == good["store/Store/e_kwh"]).all()


@pytest.mark.parametrize(("at", "time_s"), [(0, -1), (0, -2**62), (-1, 2**62), (-1, LONGEST_S + 1)])
def test_a_time_that_no_run_reaches_is_refused(honest, tmp_path, at, time_s):
    """A page of such a trace would have as many minutes as fit between."""
    path = changed(honest, tmp_path)
    with h5py.File(path, "r+") as file:
        file["src/Source/time_s"][at] = time_s
    with Trace(path) as trace, pytest.raises(TraceError, match="times of /src/Source are from .* no run goes beyond"):
        trace.time_s("src/Source")


@pytest.mark.parametrize("with_block", [b"", b"#!/bin/sh\n"])
def test_a_block_of_somebody_elses_before_the_file_is_none_of_ours(honest, tmp_path, with_block):
    """HDF5 looks for its signature behind a user block; so does `rescue`."""
    path = tmp_path / "bad.h5"
    path.write_bytes(with_block.ljust(512, b"\0") + honest.read_bytes())
    with Trace(path) as read, Trace(honest) as good:
        assert read.models() == good.models()
    rescue(path, tmp_path / "saved.h5")
    with Trace(tmp_path / "saved.h5") as saved, Trace(honest) as good:
        assert saved.models() == good.models()


# --- the right form, and numbers that no run writes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    path = tmp_path_factory.mktemp("loop") / "loop.h5"
    Experiment(override(find("two_bus"), {"grid.mci": "false"}), "native", 300.0, path).run()
    path.write_bytes(path.read_bytes()[:check_seal(path).size])
    return path


def fill(name, value):
    return lambda file: file[name].__setitem__(..., value)


def retype(name, kind):
    def change(file):
        count = len(file[name])
        del file[name]
        file[name] = np.zeros(count, kind)
    return change


def short(file):
    file["jobs/x"] = np.zeros(2)


def no_times(file):
    del file["aidc/Site/time_s"]
    file["aidc/Site/time_s"] = np.zeros(0)


def moved(file):
    file.move("aidc", "elsewhere")


STRANGE = {
    "infinite": fill("aidc/Site/p_kw", np.inf), "huge": fill("aidc/Site/p_kw", 1e308), "no numbers": fill(
        "aidc/Site/p_kw", np.nan), "jobs at no time": fill("jobs/arrival_s", np.inf), "text for times": retype(
        "jobs/arrival_s", "S1"), "numbers for sites": retype("jobs/site", "f8"), "a short column": short,
    "no samples": no_times, "another member": moved, "no bus": fill("grid.branches/from_bus", b"x"),
    "nobody": fill("wiring/source", b"..."), "no name": fill("jobs/site", b"\xff"),
}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("strange", STRANGE)
def test_numbers_that_no_run_writes_end_in_one_line(loop, tmp_path, strange, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(loop, "bad.h5")
    with h5py.File("bad.h5", "r+") as file:
        STRANGE[strange](file)
    for call in (lambda: inspect_main(["ls", "bad.h5"]), lambda: inspect_main(["verify", "bad.h5"]),
                 lambda: inspect_main(["diff", "bad.h5", str(loop)]),
                 lambda: inspect_main(["export", "bad.h5", "--out", "e"]), lambda: report_main(["bad.h5"]),
                 lambda: receipts_main(["bad.h5"])):
        code = call()
        said = capfd.readouterr()
        assert code in (0, 1, 5)
        assert said.err.count("\n") == (code == 5), said.err
        assert "internal" not in said.err


def test_a_law_that_cannot_be_worked_out_is_named_and_hides_no_other(loop, tmp_path):
    shutil.copy(loop, tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        retype("jobs/arrival_s", "S1")(file)
        file["grid/Grid/cost_usd_per_h"][...] += 1.0
    with Trace(tmp_path / "bad.h5") as trace:
        digest = verify(trace)
    assert "what it needs does not fit together" in digest.tables[0].note
    assert len(digest.tables[0].rows) == len(LAWS)
    assert any(law.startswith("cost = ") for law in digest.broken)
