"""A trace that leads out of its file, or unfolds to more than it is, is refused by every reader, by the object's name;
what it names is not opened."""

import ctypes
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.report import main as report_main
from cosim.run import find, main
from cosim.scenario import override
from cosim.simulators.analysis.receipts import main as receipts_main
from cosim.trace import Trace, file_scan
from cosim.trace.command import main as inspect_main
from cosim.trace.rescue import rescue
from cosim.trace.seal import check_seal

PORT = "aidc/Site/p_kw"
IN_OPEN, IN_NONBLOCK = 0x20, os.O_NONBLOCK


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run of ten minutes, without its seal, as somebody who changes a file leaves it."""
    path = tmp_path_factory.mktemp("honest") / "run.h5"
    Experiment(override(find("two_bus"), {"grid.mci": "false"}), "native", 600.0, path).run()
    size = check_seal(path).size
    path.write_bytes(path.read_bytes()[:size])
    return path


class Opened:
    """Whether a file is opened by anybody, as the kernel says."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(IN_NONBLOCK)
        assert self._libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN) >= 0

    def __bool__(self) -> bool:
        try:
            return bool(os.read(self._fd, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._fd)


def external_link(file, secret):
    file["aidc/Site/x"] = h5py.ExternalLink(str(secret), "/x")


def external_group(file, secret):
    file["x"] = h5py.ExternalLink(str(secret), "/")


def soft_link(file, secret):
    file["aidc/Site/x"] = h5py.SoftLink("/grid/Grid/loss_kw")


def soft_link_upwards(file, secret):
    file["aidc/x"] = h5py.SoftLink("/")


def hard_link_upwards(file, secret):
    file["aidc/x"] = file["/"]


def hard_link(file, secret):
    file["aidc/Site/x"] = file["grid/Grid/loss_kw"]


def external_storage(file, secret):
    raw = secret.with_name("raw.bin")
    file.create_dataset("aidc/Site/x", (10, 1), "f8", external=[(str(raw), 0, 80)])


def virtual(file, secret):
    layout = h5py.VirtualLayout(shape=(10, 1), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(10, 1))
    file.create_virtual_dataset("aidc/Site/x", layout)


def virtual_of_itself(file, secret):
    layout = h5py.VirtualLayout(shape=(10, 1), dtype="f8")
    layout[:] = h5py.VirtualSource(".", PORT, shape=(10, 1))
    file.create_virtual_dataset("aidc/Site/x", layout)


def object_references(file, secret):
    file.create_dataset("aidc/Site/x", data=[[file.ref]] * 10, dtype=h5py.ref_dtype)


def region_references(file, secret):
    file.create_dataset("jobs/x", (3,), dtype=h5py.regionref_dtype)


def reference_attribute(file, secret):
    file["aidc/Site"].attrs["x"] = file.ref


def lists(file, secret):
    made = file.create_dataset("aidc/Site/x", (10, 1), h5py.vlen_dtype(np.float64))
    made[0, 0] = np.zeros(10)


def records(file, secret):
    file.create_dataset("x", data=np.zeros(3, [("a", "f8"), ("b", "i4")]))


def a_type(file, secret):
    file["aidc/Site/x"] = np.dtype("f8")


def huge_shape(file, secret):
    file.create_dataset("aidc/Site/x", (10**9, 1000), "f8", chunks=(1, 1))


def huge_contiguous(file, secret):
    file.create_dataset("x/y", (10**9,), "f8")


def huge_chunk(file, secret):
    made = file.create_dataset("aidc/Site/x", (1, 1), "f8", maxshape=(None, None), chunks=(1 << 14, 1 << 14))
    assert made.id.get_storage_size() == 0


def gzip_twice(file, secret):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((1000,))
    made.set_deflate(9)
    made.set_deflate(9)
    h5py.h5d.create(file["aidc/Site"].id, b"x", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((1000,)), made)


def another_filter(file, secret):
    file.create_dataset("aidc/Site/x", data=np.zeros((10, 1)), chunks=(10, 1), compression="lzf")


def one_text_often(file, secret):
    """A megabyte of text in the file, which 40 000 entries share: 40 GB when they are read."""
    made = file.create_dataset("aidc/Site/x", (40_000,), h5py.string_dtype())
    made[0] = "y" * 1_000_000
    file.flush()
    at = made.id.get_offset()
    name = file.filename
    file.close()
    with open(name, "r+b") as raw:
        raw.seek(at)
        one = raw.read(16)
        raw.seek(at)
        raw.write(one * 40_000)


def one_text_in_attributes(file, secret):
    """The same in one attribute."""
    file["aidc/Site"].attrs["x"] = np.array(["y" * 1000] * 100, dtype=object)


def deep(file, secret):
    file["/".join("x" * 20)] = np.zeros(3)


ATTACKS = {
    external_link: ("aidc/Site/x", "a link into another file"), external_group: ("/x", "a link into another file"),
    soft_link: ("aidc/Site/x", "a soft link"), soft_link_upwards: ("aidc/x", "a soft link"),
    hard_link_upwards: ("aidc/x", "a hard link"), hard_link: ("x", "a hard link"),
    external_storage: ("aidc/Site/x", "in another file"), virtual: ("aidc/Site/x", "a virtual dataset"),
    virtual_of_itself: ("aidc/Site/x", "a virtual dataset"), object_references: ("aidc/Site/x", "references"),
    region_references: ("jobs/x", "references"), reference_attribute: ("attribute x of /aidc/Site", "references"),
    lists: ("aidc/Site/x", "lists of any length"), records: ("/x", "records"), a_type: ("aidc/Site/x", "a type"),
    huge_shape: ("aidc/Site/x", "unfolds to 7.45e+03 GiB from a file of"),
    huge_contiguous: ("x/y", "unfolds to 7.45 GiB"),
    huge_chunk: ("aidc/Site/x", "unfolds to 2 GiB"),
    gzip_twice: ("aidc/Site/x", "a filter twice"), another_filter: ("aidc/Site/x", "filter 32000"),
    one_text_often: ("aidc/Site/x", "shares its text"), one_text_in_attributes: ("attribute x", "100 texts"),
    deep: ("x/x/x", "deeper than 8 levels"),
}
READERS = {
    "ls": lambda bad, good: inspect_main(["ls", bad]),
    "verify": lambda bad, good: inspect_main(["verify", bad]),
    "diff": lambda bad, good: inspect_main(["diff", bad, good]),
    "diff, as the other": lambda bad, good: inspect_main(["diff", good, bad]),
    "export": lambda bad, good: inspect_main(["export", bad, "--out", "e"]),
    "report": lambda bad, good: report_main([bad]),
    "figures": lambda bad, good: report_main([bad, "--figures", "f"]),
    "receipts": lambda bad, good: receipts_main([bad]),
    "run": lambda bad, good: main([bad, "--quiet"]),
    "replay": lambda bad, good: main(["two_bus", "--replay", f"profile={bad}", "--until", "1min", "--quiet"]),
}


def attacked(honest, folder, attack):
    """(the file, the one it names, which holds what it is asked for)."""
    bad, secret = folder / "bad.h5", folder / "secret.h5"
    shutil.copy(honest, bad)
    (folder / "raw.bin").write_bytes(bytes(80))
    with h5py.File(secret, "w") as file:
        file["x"] = np.zeros((10, 1))
    with h5py.File(bad, "r+") as file:
        attack(file, secret)
    return bad, secret


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_refused_and_what_it_names_is_not_opened(honest, tmp_path, attack):
    bad, secret = attacked(honest, tmp_path, attack)
    watched = [Opened(secret), Opened(secret.with_name("raw.bin"))]
    where, what = ATTACKS[attack]
    with pytest.raises(TraceError) as err:
        Trace(bad)
    said = str(err.value)
    assert len(said) < 400
    assert said.startswith(f"{bad} is no trace of this program's: ")
    assert where in said
    assert what in said
    assert not any(watched)
    lost = rescue(bad, tmp_path / "saved.h5")
    assert where.startswith("attribute") or [text for text in lost if "x" in text.split(" ")[0]], lost
    with Trace(tmp_path / "saved.h5") as saved, Trace(honest) as good:
        assert (saved[PORT] == good[PORT]).all()
        assert not saved.has("aidc/Site/x")
    assert not any(watched)
    for watch in watched:
        watch.close()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", [external_group, external_storage],
                         ids=lambda attack: attack.__name__)
def test_every_reader_refuses_it_in_one_line(honest, tmp_path, capsys, monkeypatch, reader, attack):
    if reader == "figures":
        pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    monkeypatch.chdir(tmp_path)
    _, secret = attacked(honest, tmp_path, attack)
    watched = [Opened(secret), Opened(secret.with_name("raw.bin"))]
    before = sorted(tmp_path.iterdir())
    assert READERS[reader]("bad.h5", str(honest)) == 5
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"bad.h5 is no trace of this program's: /{ATTACKS[attack][0].lstrip('/')} " in said.err
    assert not any(watched)
    assert sorted(tmp_path.iterdir()) == before
    for watch in watched:
        watch.close()


def test_the_watch_sees_what_plain_h5py_does(honest, tmp_path):
    """The tests above can fail: HDF5 follows a link, and the kernel says so."""
    bad, secret = attacked(honest, tmp_path, external_link)
    watched = Opened(secret)
    assert not watched
    with h5py.File(bad) as file:
        assert file["aidc/Site/x"].shape == (10, 1)
    assert watched
    watched.close()


def test_what_shrinks_as_zlib_can_is_no_bomb(honest, tmp_path):
    """16 MiB of zeros in one chunk, a thousandth of it on the disk, and a last chunk of a single row."""
    path = tmp_path / "t.h5"
    shutil.copy(honest, path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("zeros/all", data=np.zeros(1 << 21), chunks=(1 << 21,), compression="gzip",
                            compression_opts=9, fletcher32=True, shuffle=True)
        file.create_dataset("zeros/one", data=np.zeros(1), maxshape=(None,), chunks=(1 << 17,), compression="gzip")
    with Trace(path) as trace:
        assert trace.tables().count("zeros") == 1


def test_a_bomb_that_is_stored_is_refused_where_memory_ends(honest, tmp_path, monkeypatch):
    path = tmp_path / "t.h5"
    shutil.copy(honest, path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("x/y", data=np.zeros(1 << 21), chunks=(1 << 18,), compression="gzip")
    Trace(path).__exit__()
    file_scan._passed.clear()
    monkeypatch.setattr(file_scan, "free_bytes", lambda: 1 << 22)
    with pytest.raises(TraceError, match="/x/y unfolds to 16 MiB"):
        Trace(path)


def test_a_file_that_changed_is_looked_through_again(honest, tmp_path):
    path = tmp_path / "t.h5"
    shutil.copy(honest, path)
    Trace(path).__exit__()
    with h5py.File(path, "r+") as file:
        soft_link(file, None)
    with pytest.raises(TraceError, match="a soft link"):
        Trace(path)
