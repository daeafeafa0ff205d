"""A trace is whole at any instant: the file after every single write that reaches the disk is opened by plain h5py."""

import errno
import io
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosim import intact, recorder
from cosim.errors import TraceError
from cosim.intact import IntactFile
from cosim.ports import Port
from cosim.recorder import TraceWriter, annotate
from cosim.trace import Trace

PORTS = [Port("p_kw", "out", "power"), Port("work_to", "out", "work", dims=("job_class",))]
NAMES = ["a", "b", "c"]


def writer_at(path, chunk=1):
    writer = TraceWriter(path, attrs={"seed": 3}, start="2026-01-01T00:00:00")
    writer.declare("aidc", "Site", NAMES, PORTS, {"job_class": ["x", "y"]}, chunk)
    writer.write_table("wiring", {"source": ["a"], "shift_s": [60.0]})
    return writer


def append(writer, rows):
    """Row k: p_kw is k for all, work_to k and 2 k; as many rows of a table."""
    for k in rows:
        writer.append("aidc", "Site", 60.0 * k, {n: {"p_kw": 1.0 * k, "work_to": [1.0 * k, 2.0 * k]} for n in NAMES})
        writer.extend("jobs", {"id": [k], "who": [f"job {k}"]})


def check(image, flushed):
    """What a plain HDF5 reader finds in a file with these bytes: all rows of the flushes that have ended, all right."""
    with h5py.File(io.BytesIO(image), "r") as f:
        assert f.attrs["status"] in ("running", "completed")
        site = f["aidc/Site"]
        times, power, work = (site[name][()] for name in ("time_s", "p_kw", "work_to"))
        assert len(power) >= len(times) >= flushed
        assert len(work) >= len(times)
        assert (times == 60 * np.arange(len(times))).all()
        assert (power == np.arange(len(power))[:, None]).all()
        assert (work[:, 0] == np.arange(len(work))[:, None] * [1, 2]).all()
        assert list(site["entity"].asstr()) == NAMES
        if flushed:
            ids, who = f["jobs/id"][()], f["jobs/who"][()]
            assert min(len(ids), len(who)) >= flushed
            assert (ids == np.arange(len(ids))).all()
            assert list(who) == [b"job %d" % k for k in range(len(who))]
        assert f["wiring/source"][0] == b"a"


class Disk:
    """Watches every write and rename; after each, and at every page of it, looks at the file as a kill leaves it."""

    def __init__(self, path, monkeypatch):
        self.path, self.images, self.renames, self.writes = path, 0, 0, 0
        self.flushed = 0
        self._seen = b""
        self._put, self._replace = intact._put, os.replace
        monkeypatch.setattr(intact, "_put", self.put)
        monkeypatch.setattr(intact.os, "replace", self.replace)

    def put(self, file, at, data):
        self.writes += 1
        ends = [*range(-(-(at + 1) // intact.PAGE) * intact.PAGE, at + len(data), intact.PAGE), at + len(data)]
        begin = at
        for end in ends:
            self._put(file, begin, data[begin - at: end - at])
            begin = end
            self.look()

    def replace(self, *names):
        self.renames += 1
        self._replace(*names)
        self.look()

    def look(self):
        image = self.path.read_bytes()
        if image != self._seen:
            check(image, self.flushed)
            self.images += 1
            self._seen = image


def test_every_write_leaves_a_whole_file(tmp_path, monkeypatch):
    """Indices are filled, split and grow a level (a node takes 64 chunks; here a row is one), tables begin in mid-run,
    the end adds attributes: after each write the file opens, with all that was flushed before, and nothing wrong."""
    monkeypatch.setattr(recorder, "_TABLE_CHUNK", 1)
    path = tmp_path / "t.h5"
    writer = writer_at(path)
    disk = Disk(path, monkeypatch)
    for first in range(0, 140, 20):
        append(writer, range(first, first + 20))
        writer.flush()
        disk.flushed = first + 20
    append(writer, range(140, 153))
    writer.finish("completed", attrs={"notes": "n" * 9000})
    disk.flushed = 153
    annotate(path, {"summary": "s" * 20000})
    assert disk.images > 150
    assert disk.renames < 10
    with Trace(path) as trace:
        assert (trace.attrs["status"], len(trace.attrs["summary"])) == ("completed", 20000)
        assert len(trace.time_s("aidc/Site")) == 153


def test_rows_are_added_in_place(tmp_path):
    """Only what changes the file's structure costs a copy of it, the 1st row of a dataset for example."""
    writer = writer_at(tmp_path / "t.h5", chunk=30)
    copies, before = 0, None
    for first in range(0, 6000, 60):
        append(writer, range(first, first + 60))
        writer.flush()
        copies += (tmp_path / "t.h5").stat().st_ino != before
        before = (tmp_path / "t.h5").stat().st_ino
    assert copies <= 8
    writer.finish("completed")
    assert [p.name for p in tmp_path.iterdir()] == ["t.h5"]


def test_a_disk_that_fills_up_in_a_write_keeps_what_was_there(tmp_path, monkeypatch):
    writer = writer_at(tmp_path / "t.h5")
    append(writer, range(10))
    writer.flush()
    before = (tmp_path / "t.h5").read_bytes()
    put = intact._put

    def full(file, at, data):
        if at >= len(before):
            put(file, at, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        put(file, at, data)

    append(writer, range(10, 20))
    monkeypatch.setattr(intact, "_put", full)
    with pytest.raises(TraceError, match="t.h5: No space left on device; what was written before is whole"):
        writer.flush()
    assert (tmp_path / "t.h5").read_bytes() == before
    monkeypatch.setattr(intact, "_put", put)
    writer.finish("failed", "the disk is full")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["error"] == "the disk is full"
        assert trace.time_s("aidc/Site").tolist() == [60 * k for k in range(10)]
        assert trace["aidc/Site/p_kw"][:, 2].tolist() == list(range(10))


def test_where_no_copy_fits_attributes_are_written_in_place(tmp_path, monkeypatch):
    writer = writer_at(tmp_path / "t.h5")
    append(writer, range(10))
    writer.flush()
    real = intact.FileIO

    def full(path, mode):
        if Path(path).name.endswith(".new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode)

    monkeypatch.setattr(intact, "FileIO", full)
    writer.finish("failed", "the disk is full")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["error"] == "the disk is full"
        assert len(trace.time_s("aidc/Site")) == 10


def test_a_device_or_folder_is_never_replaced(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="no regular file"):
            IntactFile.create(path, overwrite=True)
    (tmp_path / "real.h5").write_bytes(b"old")
    (tmp_path / "link.h5").symlink_to(tmp_path / "real.h5")
    TraceWriter(tmp_path / "link.h5", attrs={}, start="2026-01-01T00:00:00", overwrite=True).finish("completed")
    assert (tmp_path / "link.h5").is_symlink()
    with Trace(tmp_path / "real.h5") as trace:
        assert trace.attrs["status"] == "completed"
