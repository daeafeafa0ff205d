import os
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
import xarray as xr
from worlds import boxes, run, steps_in

from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.ports import Port
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import Scenario, override
from cosim.trace import Trace, reader
from cosim.trace import writer as writer_module
from cosim.trace.compare import first_difference
from cosim.trace.writer import TraceWriter

PORTS = [Port("p_kw", "out", "power", sign="> 0 drawn"), Port("work_to", "out", "work", dims=("job_class",)),
         Port("hidden", "out", "not kept", record=False), Port("jobs", "out", "rows", kind="event", table="jobs")]


def write(path, count=5, **options):
    writer = TraceWriter(path, attrs={"seed": 3}, start="2026-01-01T00:00:00", **options)
    writer.declare("aidc", "Site", ["a", "b"], PORTS, {"job_class": ["x", "y", "z"]})
    for k in range(count):
        writer.append("aidc", "Site", 60.0 * k, {"a": {"p_kw": 1.0 * k, "work_to": [1.0, 2.0, k]},
                                                 "b": {"p_kw": 2.0 * k, "work_to": [0.0, 0.0, 0.0]}})
        writer.extend("jobs", {"id": [k], "job_class": ["x"], "arrival_s": [0.5 * k]})
        writer.flush() if k % 2 else None
    return writer


@pytest.mark.parametrize("work", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], 1.0, [1.0, 2.0, "x"]])
def test_a_vector_of_another_shape_is_refused_and_what_came_before_is_whole(tmp_path, work):
    writer = write(tmp_path / "t.h5", 4)
    good = {"p_kw": 1.0, "work_to": [1.0, 2.0, 3.0]}
    with pytest.raises(TraceError, match=r"cannot write .*: aidc\.a at 240 s: "):
        writer.append("aidc", "Site", 240.0, {"a": {**good, "work_to": work}, "b": good})
    writer.finish("failed", "a wrong shape")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace["aidc/Site/work_to"][:, 0].tolist() == [[1, 2, k] for k in range(4)]


def test_wide_rows_make_shorter_chunks(tmp_path):
    """HDF5 keeps 256 KiB of a dataset: a chunk fits there, or has 30 rows."""
    writer = TraceWriter(tmp_path / "t.h5", attrs={}, start="2026-01-01T00:00:00")
    for model, entities in (("Narrow", 1), ("Wide", 500), ("Widest", 5000)):
        writer.declare("m", model, [f"e{k}" for k in range(entities)], PORTS[:1], {}, 120)
    writer.finish("completed")
    with h5py.File(tmp_path / "t.h5") as f:
        assert [f[f"m/{model}/p_kw"].chunks[0] for model in ("Narrow", "Wide", "Widest")] == [120, 65, 30]


def test_layout_as_h5py_sees_it(tmp_path):
    write(tmp_path / "t.h5").finish("completed")
    with h5py.File(tmp_path / "t.h5") as f:
        assert set(f["aidc/Site"]) == {"time_s", "entity", "job_class", "p_kw", "work_to"}
        assert f["aidc/Site/work_to"].shape == (5, 2, 3)
        assert f["aidc/Site/work_to"].dtype == np.float64
        assert f["aidc/Site/p_kw"].attrs["units"] == "kW"
        assert f["aidc/Site/p_kw"].attrs["sign"] == "> 0 drawn"
        assert [d[0].name.split("/")[-1] for d in f["aidc/Site/work_to"].dims] == ["time_s", "entity", "job_class"]
        assert f.attrs["status"] == "completed"
        assert f["jobs/id"][:].tolist() == [0, 1, 2, 3, 4]


def test_xarray_reads_labelled_data_with_dates(tmp_path):
    write(tmp_path / "t.h5").finish("completed")
    with xr.open_dataset(tmp_path / "t.h5", group="aidc/Site", engine="h5netcdf") as data:
        assert data["p_kw"].sel(entity="b").values.tolist() == [0, 2, 4, 6, 8]
        assert data["work_to"].sel(entity="a", job_class="z").values.tolist() == [0, 1, 2, 3, 4]
        assert str(data["time_s"].values[1]) == "2026-01-01T00:01:00.000000000"


def test_reading_back(tmp_path):
    write(tmp_path / "t.h5").finish("completed")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.models() == ["aidc/Site"]
        assert trace.tables() == ["jobs"]
        assert trace.ports("aidc/Site") == ["p_kw", "work_to"]
        assert trace.names("aidc/Site", "job_class") == ["x", "y", "z"]
        assert trace["aidc/Site/p_kw"][:, 1].tolist() == [0, 2, 4, 6, 8]
        assert trace.table("jobs")["job_class"].tolist() == ["x"] * 5
        assert trace.table("none") == {}
        with pytest.raises(TraceError, match="did you mean 'p_kw'"):
            trace["aidc/Site/p_kv"]
        with pytest.raises(TraceError, match="unknown model 'aidc/Sit'"):
            trace.time_s("aidc/Sit")
        with pytest.raises(TraceError, match="unknown axis"):
            trace.names("aidc/Site", "line")


def schema_1(path, version=1):
    """A trace of schema 1 written out by hand, dataset by dataset: as files of that schema stand on people's disks,
    without attributes that came later. One member 'src' of two entities and a table."""
    scenario = boxes().replace(until_s=180.0)
    with h5py.File(path, "w") as f:
        f.attrs.update(format="aidc-cosim trace", schema_version=version, status="completed", error="", name="old",
                       start="2026-01-01T00:00:00", scenario=scenario.to_json(), seed=0, driver="native",
                       created="2026-01-01T00:00:00+00:00", until_s=180.0, versions="{}", notes="[]")
        group = f.create_group("src/Source")
        text = h5py.string_dtype("utf-8")
        group.create_dataset("time_s", data=np.array([0, 60, 120]), maxshape=(None,), chunks=(30,)).make_scale("time_s")
        group["time_s"].attrs["units"] = "seconds since 2026-01-01T00:00:00"
        for axis, names in {"entity": ["a", "b"], "kind": ["x", "y", "z"]}.items():
            group.create_dataset(axis, data=np.array(names, dtype=object), dtype=text).make_scale(axis)
        for name, unit, tail in (("p_kw", "kW", (2,)), ("work_to", "TO", (2, 3))):
            values = np.arange(3 * np.prod(tail), dtype="f8").reshape(3, *tail)
            data = group.create_dataset(name, data=values, maxshape=(None, *tail), chunks=(30, *tail),
                                        compression="gzip")
            data.attrs.update(units=unit, long_name=name)
            for axis, scale in enumerate(("time_s", "entity", "kind")[: len(tail) + 1]):
                data.dims[axis].attach_scale(group[scale])
        f.create_group("ticks").create_dataset("at_s", data=np.array([0.0, 60.0]), maxshape=(None,), chunks=(2048,))
        f["ticks"].create_dataset("who", data=np.array([b"a", b"b"], dtype="S16"), maxshape=(None,), chunks=(2048,))


def test_a_file_of_schema_1_is_read_and_played(tmp_path):
    old = tmp_path / "old.h5"
    schema_1(old)
    with Trace(old) as trace:
        assert trace.attrs["schema_version"] == 1
        assert trace.models() == ["src/Source"]
        assert trace.names("src/Source", "kind") == ["x", "y", "z"]
        assert trace["src/Source/work_to"][1, 1].tolist() == [9.0, 10.0, 11.0]
        assert trace.about("src/Source/p_kw") == ("p_kw", "kW")
        assert {name: column.tolist() for name, column in trace.table("ticks").items()} == {
            "at_s": [0.0, 60.0], "who": ["a", "b"]}
    with Trace(run(replay(boxes(), "src", str(old)), tmp_path / "t.h5", until_s=180.0).path) as trace:
        assert trace["src/Source/p_kw"].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("version", [2, 99, "draft"])
def test_a_file_of_a_newer_schema_is_refused_by_name(tmp_path, version):
    schema_1(tmp_path / "new.h5", version)
    with pytest.raises(TraceError, match=f"new.h5 has trace schema {version}; this version .* reads schemas up to 1"):
        Trace(tmp_path / "new.h5")


def test_h5web_finds_a_default_plot(tmp_path):
    """NeXus: an NXdata group names its signal, a dataset in it, and an axis per dimension ('.': none)."""
    path = run(boxes(), tmp_path / "t.h5").path
    with h5py.File(path) as f:
        for member in ("src/Source", "store/Store", "grid/Bus"):
            group = f[member]
            assert group.attrs["NX_class"] == "NXdata"
            assert group[group.attrs["signal"]].ndim == len(group.attrs["axes"]) == 2
            assert list(group.attrs["axes"]) == ["time_s", "."]
            assert len(group["time_s"]) == len(group[group.attrs["signal"]])
        member = f[f.attrs["default"]]  # from the root down to the plot that a viewer opens with
        assert (member.name, member.attrs["default"]) == ("/src", "Source")
        assert member["Source"].attrs["signal"] == "p_kw"


def test_a_viewer_opens_with_power(tmp_path):
    """Of all models the one that draws power and has most ports, of its ports the power."""
    writer = TraceWriter(tmp_path / "t.h5", attrs={}, start="2026-01-01T00:00:00")
    for member, ports in {"profile": ["q_kvar", "p_kw"], "aidc": ["supply_temp_degc", "p_kw", "pue"],
                          "grid": ["nci_kg_per_kwh", "vm_pu", "loss_kw", "cost_usd_per_h"]}.items():
        writer.declare(member, "M", ["a"], [Port(name, "out", "x") for name in ports], {})
    writer.finish("completed")
    with h5py.File(tmp_path / "t.h5") as f:
        assert (f.attrs["default"], f["aidc"].attrs["default"]) == ("aidc", "M")
        assert [f[m]["M"].attrs["signal"] for m in ("profile", "aidc", "grid")] == ["p_kw", "p_kw", "nci_kg_per_kwh"]


def test_a_bus_of_split_seconds_has_no_trace(tmp_path):
    """Times are whole seconds: two samples in one second would look like one."""
    scenario = override(boxes(), {"resolution_s": 0.5})
    with pytest.raises(TraceError, match="resolution_s = 0.5: a trace counts whole seconds"):
        run(scenario, tmp_path / "t.h5")
    assert not (tmp_path / "t.h5").exists()
    assert run(scenario.replace(until_s=900.0, members={**scenario.members, "grid": scenario.members["grid"].model_copy(
        update={"params": {"step_size": 1800}})}), None).status == "completed"


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="needs h5dump (hdf5-tools)")
def test_h5dump_reads_it(tmp_path):
    """The HDF Group's own program, whatever its version, prints the numbers that were written."""
    write(tmp_path / "t.h5").finish("completed")
    said = subprocess.run(["h5dump", "-d", "/aidc/Site/p_kw", tmp_path / "t.h5"], capture_output=True, text=True,
                          check=True).stdout
    assert [row.rstrip(", ") for row in re.findall(r"\(\d,0\): ([\d, ]+)", said)] == [f"{k}, {2 * k}" for k in range(5)]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    path = tmp_path / "t.h5"
    write(path).finish("completed")
    with pytest.raises(TraceError, match="exists; choose another --out, or --force"):
        write(path)
    write(path, count=1, overwrite=True).finish("completed")
    with Trace(path) as trace:
        assert len(trace.time_s("aidc/Site")) == 1


def test_what_is_no_trace_is_refused(tmp_path):
    with pytest.raises(TraceError, match="no trace at"):
        Trace(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(TraceError, match="not a readable HDF5 file"):
        Trace(tmp_path / "text.h5")
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(TraceError, match="not an aidc-cosim trace"):
        Trace(tmp_path / "other.h5")
    with pytest.raises(TraceError, match="cannot write"):
        write(Path("/proc/nowhere/t.h5"))
    write(tmp_path / "torn.h5").finish("completed")
    data = (tmp_path / "torn.h5").read_bytes()  # the superblock is left, the root group behind it is not
    (tmp_path / "torn.h5").write_bytes(data[:96] + bytes(len(data) - 96))
    with pytest.raises(TraceError, match="is damaged: what it is made of cannot be read .*object header.*rescue"):
        Trace(tmp_path / "torn.h5")


def test_text_that_does_not_fit_is_an_error_and_not_cut(tmp_path):
    writer = write(tmp_path / "t.h5")
    writer.flush(final=True)
    writer.extend("jobs", {"id": [9], "job_class": ["long" * 20], "arrival_s": [0.0]})
    with pytest.raises(TraceError, match="longer than this table's 16 bytes"):
        writer.flush(final=True)


def test_a_table_keeps_its_columns(tmp_path):
    writer = write(tmp_path / "t.h5")
    with pytest.raises(TraceError, match="has columns id"):
        writer.extend("jobs", {"other": [1]})


def test_first_difference_names_dataset_place_and_values(tmp_path):
    write(tmp_path / "a.h5").finish("completed")
    write(tmp_path / "b.h5", count=4).finish("completed")
    other = write(tmp_path / "c.h5", count=4)
    other.append("aidc", "Site", 240.0, {"a": {"p_kw": 4.0, "work_to": [1.0, 2.0, 4]},
                                         "b": {"p_kw": 8.5, "work_to": [0.0, 0.0, 0.0]}})
    other.extend("jobs", {"id": [4], "job_class": ["x"], "arrival_s": [2.0]})
    other.finish("completed")
    assert first_difference(tmp_path / "a.h5", tmp_path / "a.h5") is None
    shapes = "aidc/Site/p_kw is float64 (5, 2) and float64 (4, 2)"
    assert first_difference(tmp_path / "a.h5", tmp_path / "b.h5") == shapes
    assert first_difference(tmp_path / "a.h5", tmp_path / "c.h5") == "aidc/Site/p_kw at 00:04, b: 8.0 and 8.5"
    shutil.copy(tmp_path / "c.h5", tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file["aidc/Site/work_to"][2, 1, 0] = 7.0  # later in the file, earlier in the run
    said = "aidc/Site/work_to at 00:02, b, x: 0.0 and 7.0"
    assert first_difference(tmp_path / "a.h5", tmp_path / "d.h5") == said


def test_a_trace_documents_its_run(tmp_path):
    path = run(boxes().replace(seed=5), tmp_path / "t.h5", "mosaik").path
    with Trace(path) as trace:
        again = Scenario.from_json(trace.attrs["scenario"])
        assert again.seed == 5
        assert again.members["src"].params == {"slope_kw": 1.0, "noise_kw": 1.0}
        assert trace.attrs["driver"] == "mosaik"
        assert "h5py" in trace.attrs["versions"]
        wiring = trace.table("wiring")
        assert ("src.a.p_kw", "store.s1.p_kw") in zip(wiring["source"], wiring["target"], strict=True)
    replayed = run(again, tmp_path / "again.h5").path
    assert first_difference(path, replayed) is None


@pytest.mark.long(after=1)
@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.11, 0.17, 0.23])
def test_kill_9_leaves_a_readable_trace(tmp_path, pause_s):
    """Flushing all the time; killed in mid-run, most likely inside a flush: opens, says running, every dataset reads
    and holds whole blocks. (A compressed chunk that is written twice would break here one time in six.)"""
    path = tmp_path / "t.h5"
    here = Path(__file__).parent
    code = ("from pathlib import Path\nfrom worlds import *\n"
            f"e = Experiment(boxes().replace(flush_s=600.0), 'native', 3e8, Path({str(path)!r}))\ne.run()")
    process = subprocess.Popen([sys.executable, "-c", code],
                               env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}"})
    try:
        deadline = time.monotonic() + 600
        while steps_in(path, "src/Source") < 60 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.02)
        time.sleep(pause_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Trace(path) as trace:
        assert trace.attrs["status"] == "running"
        for model in trace.models():
            steps = len(trace.time_s(model))
            for port in trace.ports(model):
                values = trace[f"{model}/{port}"]
                assert len(values) == steps
                assert np.isfinite(values).all()
        assert trace.table("wiring")
        trace.table("ticks")


@pytest.mark.parametrize("texts", [["a", "bc", "", "a" * 16], ["", ""], ["Zürich", "a"], ["b" * 9]])
def test_texts_come_back_as_they_were_stored(texts: list[str]):
    stored = np.array([t.encode() for t in texts], dtype="S16")
    assert reader._text(stored).tolist() == texts == reader._text(np.repeat(stored, 2)[::2]).tolist()
    assert reader._text(stored[:0]).tolist() == []


def test_rows_that_are_many_are_written_before_their_time(tmp_path, monkeypatch):
    """With room for few, the table of jobs is on the disk before the hour is over; the trace holds the same."""
    flushes = []
    usual = TraceWriter.flush

    def noted(self, final=False):
        flushes.append(self.full)
        usual(self, final)
    scenario = override(find("two_bus"), {"grid.ac_check": False})
    Experiment(scenario, "native", 1200.0, tmp_path / "usual.h5").run()
    monkeypatch.setattr(TraceWriter, "flush", noted)
    monkeypatch.setattr(writer_module, "_MOST_WAITING", 500)
    Experiment(scenario, "native", 1200.0, tmp_path / "early.h5").run()
    assert sum(flushes) > 3
    assert first_difference(tmp_path / "usual.h5", tmp_path / "early.h5") is None
