import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from worlds import boxes, run

from cosim.errors import TraceError
from cosim.ports import Port
from cosim.scenario import Scenario
from cosim.trace import Trace, TraceWriter, first_difference

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


@pytest.mark.parametrize("pause_s", [0.4, 0.55, 0.7, 0.85, 1.0])
def test_kill_9_leaves_a_readable_trace(tmp_path, pause_s):
    """Flushing all the time; killed in mid-run, most likely inside a flush: opens, says running, every dataset reads
    and holds whole blocks. (A compressed chunk that is written twice would break here one time in six.)"""
    path = tmp_path / "t.h5"
    here = Path(__file__).parent
    code = ("from pathlib import Path\nfrom worlds import *\n"
            f"e = Experiment(boxes().replace(flush_s=600.0), 'native', 3e8, Path({str(path)!r}))\ne.run()")
    process = subprocess.Popen([sys.executable, "-c", code],
                               env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}"})
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(pause_s)
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
