"""A trace is whole at any instant: the file after every single write that reaches the disk is opened by plain h5py."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosim.errors import TraceError
from cosim.ports import Port
from cosim.trace import Trace, journal
from cosim.trace import writer as recorder
from cosim.trace.journal import JournaledFile
from cosim.trace.seal import PAGE
from cosim.trace.writer import TraceWriter, annotate

PORTS = [Port("p_kw", "out", "power"), Port("work_to", "out", "work", dims=("job_class",))]
NAMES = ["a", "b", "c"]


def writer_at(path, chunk=1, **options):
    writer = TraceWriter(path, attrs={"seed": 3}, start="2026-01-01T00:00:00", **options)
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
        self._put, self._replace = journal._put, os.replace
        monkeypatch.setattr(journal, "_put", self.put)
        monkeypatch.setattr(journal.os, "replace", self.replace)

    def put(self, file, at, data):
        self.writes += 1
        ends = [*range(-(-(at + 1) // PAGE) * PAGE, at + len(data), PAGE), at + len(data)]
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
    writer.finish("completed", attrs={"remarks": "n" * 9000})
    disk.flushed = 153
    annotate(path, {"digest": "s" * 20000})
    assert disk.images > 120
    assert disk.renames < 10
    with Trace(path) as trace:
        assert (trace.attrs["status"], len(trace.attrs["digest"])) == ("completed", 20000)
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
    put = journal._put

    def full(file, at, data):
        if at >= len(before):
            put(file, at, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        put(file, at, data)

    append(writer, range(10, 20))
    monkeypatch.setattr(journal, "_put", full)
    with pytest.raises(TraceError, match="t.h5: No space left on device; what was written before is whole"):
        writer.flush()
    assert (tmp_path / "t.h5").read_bytes() == before
    monkeypatch.setattr(journal, "_put", put)
    writer.finish("failed", "the disk is full")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["error"] == "the disk is full"
        assert trace.time_s("aidc/Site").tolist() == [60 * k for k in range(10)]
        assert trace["aidc/Site/p_kw"][:, 2].tolist() == list(range(10))


def test_where_no_copy_fits_attributes_are_written_in_place(tmp_path, monkeypatch):
    writer = writer_at(tmp_path / "t.h5")
    append(writer, range(10))
    writer.flush()
    real = journal.FileIO

    def full(path, mode):
        if Path(path).name.endswith(".new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode)

    monkeypatch.setattr(journal, "FileIO", full)
    writer.finish("failed", "the disk is full")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["error"] == "the disk is full"
        assert len(trace.time_s("aidc/Site")) == 10


def test_a_device_or_folder_is_never_replaced(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="no regular file"):
            JournaledFile.create(path, overwrite=True)
    (tmp_path / "real.h5").write_bytes(b"old")
    (tmp_path / "link.h5").symlink_to(tmp_path / "real.h5")
    TraceWriter(tmp_path / "link.h5", attrs={}, start="2026-01-01T00:00:00", overwrite=True).finish("completed")
    assert (tmp_path / "link.h5").is_symlink()
    with Trace(tmp_path / "real.h5") as trace:
        assert trace.attrs["status"] == "completed"


def test_with_fsync_nothing_that_a_flush_has_written_can_be_lost(tmp_path, monkeypatch):
    """A machine that loses its power may lose every write since the last fsync of its file, and a rename until its
    folder's. So: a file is synced as it is when it takes the place, the folder before the flush ends, and nothing but
    the seal, behind the end, is written into a file that stands."""
    path = tmp_path / "t.h5"
    synced, renamed, folders = {}, [], []
    fsync, replace, link, put = os.fsync, os.replace, os.link, journal._put

    def note_fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            folders.append(len(renamed))
        else:
            at = os.fstat(fd)
            synced[at.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()
        fsync(fd)

    def taking(old, new):
        assert synced[os.stat(old).st_ino] == Path(old).read_bytes()
        renamed.append(str(new))

    def note_put(file, at, data):
        assert not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino
        put(file, at, data)

    monkeypatch.setattr(journal.os, "fsync", note_fsync)
    monkeypatch.setattr(journal.os, "replace", lambda a, b: (taking(a, b), replace(a, b)))
    monkeypatch.setattr(journal.os, "link", lambda a, b: (taking(a, b), link(a, b)))
    monkeypatch.setattr(journal, "_put", note_put)
    writer = TraceWriter(path, attrs={}, start="2026-01-01T00:00:00", durable=True)
    writer.declare("aidc", "Site", NAMES, PORTS, {"job_class": ["x", "y"]}, 1)
    for first in range(0, 60, 20):
        append(writer, range(first, first + 20))
        writer.flush()
        assert folders[-1] == len(renamed)
        assert synced[path.stat().st_ino] == path.read_bytes()
    writer.finish("completed")
    assert len(renamed) >= 5
    assert synced[path.stat().st_ino] == path.read_bytes(), "the seal, too"
    with Trace(path) as trace:
        assert trace.sealed
        assert len(trace.time_s("aidc/Site")) == 60


class Windows:
    """Renames as Windows does them: no open file, and none to the name of an open one, nor is an open one unlinked;
    links: whether the file system has hard links, as NTFS has and FAT has not."""

    def __init__(self, monkeypatch, links):
        self.refused = 0
        self._replace, self._link, self._unlink = os.replace, os.link, Path.unlink
        monkeypatch.setattr(journal, "fcntl", None)
        monkeypatch.setattr(journal.os, "replace", self.replace)
        monkeypatch.setattr(journal.os, "link", self._link if links else self.no_links)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: self.unlink(path, missing_ok))

    def _names_of_open_files(self):
        return {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}

    def _refuse_open(self, path):
        if Path(path).exists() and os.path.realpath(path) in self._names_of_open_files():
            self.refused += 1
            raise PermissionError(errno.EACCES, "it is open", str(path))

    def no_links(self, old, new):
        raise OSError(errno.ENOTSUP, "no links")

    def unlink(self, path, missing_ok):
        self._refuse_open(path)
        self._unlink(path, missing_ok)

    def replace(self, old, new):
        self._refuse_open(old)
        self._refuse_open(new)
        self._replace(old, new)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_where_no_open_file_can_be_renamed(tmp_path, monkeypatch, links, durable):
    """The writer lets go of its own files; a reader who holds the old one makes the flush write in place."""
    monkeypatch.setattr(recorder, "_TABLE_CHUNK", 1)
    windows = Windows(monkeypatch, links)
    path = tmp_path / "t.h5"
    writer = writer_at(path, durable=durable)
    append(writer, range(20))
    writer.flush()
    check(path.read_bytes(), 20)
    assert windows.refused
    with path.open("rb") as reader:
        append(writer, range(20, 40))
        writer.extend("late", {"x": [1]})  # a new table: not by growth alone
        writer.flush(final=True)
        assert reader.read(4) == b"\x89HDF"
    check(path.read_bytes(), 40)
    append(writer, range(40, 60))
    writer.finish("completed")
    annotate(path, {"digest": "s" * 20000})
    with Trace(path) as trace:
        assert (trace.attrs["status"], len(trace.attrs["digest"])) == ("completed", 20000)
        assert len(trace.time_s("aidc/Site")) == 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.h5"]
    with pytest.raises(TraceError, match="exists"):
        writer_at(path)
    writer_at(path, overwrite=True).finish("completed")
    with Trace(path) as trace:
        assert len(trace.time_s("aidc/Site")) == 0


def test_where_there_are_no_locks(tmp_path, monkeypatch):
    """A network file system may have none: files are then written without, and two runs are not kept apart."""
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(journal.fcntl, "flock", no_locks)
    writer = writer_at(tmp_path / "t.h5")
    append(writer, range(5))
    writer.finish("completed")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.sealed
        assert len(trace.time_s("aidc/Site")) == 5


WITHOUT_POSIX = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
import gurobipy, h5py, mosaik, pandapower, rich  # others, while the system still has all
for name in ("fchmod", "fchown", "getuid", "geteuid", "getgid", "getpgid", "killpg", "setsid", "fork",
             "copy_file_range", "pread", "pwrite", "sched_getaffinity", "getloadavg", "sysconf", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGCHLD", "SIGPIPE"):
    delattr(signal, name)
from cosim.drivers import remote
class Elsewhere:
    platform = "win32"
    def __getattr__(self, name):
        return getattr(sys, name)
remote.sys = Elsewhere()
assert remote.child_options() == {}
from cosim.learning.shared import clear_abandoned
clear_abandoned()
from cosim.run import main
for driver in ("native", "mosaik"):
    assert main(["two_bus", "--until", "5min", "--driver", driver, "--quiet", "--out", sys.argv[1], "--force"]) == 0
from cosim.trace import Trace
with Trace(sys.argv[1]) as trace:
    assert trace.sealed and trace.attrs["status"] == "completed"
import selectors
selectors.DefaultSelector = selectors.SelectSelector = None  # which take no pipe on Windows
with open(sys.argv[1], "r+b") as file:  # without its seal, so that a child looks at it first
    file.truncate(os.path.getsize(sys.argv[1]) - 1)
with Trace(sys.argv[1]) as trace:
    assert not trace.sealed and trace.attrs["status"] == "completed"
from cosim.learning.environment import vector_env
env = vector_env("two_bus", n_envs=2, workers=2)
try:
    assert env.reset().shape[0] == 2
finally:
    env.close()
"""


@pytest.mark.long
def test_a_system_without_what_posix_alone_has(tmp_path):
    """No fcntl, no signals but those that every system has, none of the calls that Python has on POSIX alone: a run on
    either driver writes its trace, and environments step in two processes."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX, str(tmp_path / "t.h5")], cwd=Path(__file__).parent,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
