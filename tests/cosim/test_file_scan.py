"""A trace that leads out of its file, or unfolds to more than it is, is refused by every reader, by the object's name;
what it names is not opened."""

import ctypes
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from rewritten import rewritten
from worlds import boxes, run

from cosim.errors import TraceError
from cosim.report import main as report_main
from cosim.run import main
from cosim.simulators.analysis.receipts import main as receipts_main
from cosim.trace import Trace, file_scan, reader
from cosim.trace.command import main as inspect_main
from cosim.trace.rescue import rescue
from cosim.trace.seal import check_seal
from cosim.trace.writer import annotate

PORT = "store/Store/e_kwh"
IN_OPEN, IN_NONBLOCK = 0x20, os.O_NONBLOCK


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run of small simulators, without its seal, as somebody who changes a file leaves it."""
    path = run(boxes(), tmp_path_factory.mktemp("honest") / "run.h5", until_s=1800.0).path
    path.write_bytes(path.read_bytes()[:check_seal(path).size])
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


def external_link(file, secret, x):
    file[f"src/Source/{x}"] = h5py.ExternalLink(str(secret), "/x")


def external_group(file, secret, x):
    file[x] = h5py.ExternalLink(str(secret), "/")


def soft_link(file, secret, x):
    file[f"src/Source/{x}"] = h5py.SoftLink("/store/Store/e_kwh")


def soft_link_upwards(file, secret, x):
    file[f"src/{x}"] = h5py.SoftLink("/")


def hard_link_upwards(file, secret, x):
    file[f"src/{x}"] = file["/"]


def hard_link_around(file, secret, x):
    file[f"src/Source/{x}"] = file["src"]


def hard_link(file, secret, x):
    file[f"src/Source/{x}"] = file["src/Source/p_kw"]


def external_storage(file, secret, x):
    raw = secret.with_name("raw.bin")
    file.create_dataset(f"src/Source/{x}", (10, 1), "f8", external=[(str(raw), 0, 80)])


def virtual(file, secret, x):
    layout = h5py.VirtualLayout(shape=(10, 1), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(10, 1))
    file.create_virtual_dataset(f"src/Source/{x}", layout)


def virtual_of_itself(file, secret, x):
    layout = h5py.VirtualLayout(shape=(10, 1), dtype="f8")
    layout[:] = h5py.VirtualSource(".", PORT, shape=(10, 1))
    file.create_virtual_dataset(f"src/Source/{x}", layout)


def object_references(file, secret, x):
    file.create_dataset(f"src/Source/{x}", data=[[file.ref]] * 10, dtype=h5py.ref_dtype)


def region_references(file, secret, x):
    file.create_dataset(f"ticks/{x}", (3,), dtype=h5py.regionref_dtype)


def reference_attribute(file, secret, x):
    file["src/Source"].attrs[x] = file.ref


def lists(file, secret, x):
    made = file.create_dataset(f"src/Source/{x}", (10, 1), h5py.vlen_dtype(np.float64))
    made[0, 0] = np.zeros(10)


def records(file, secret, x):
    file.create_dataset(f"ticks/{x}", data=np.zeros(3, [("a", "f8"), ("b", "i4")]))


def complex_numbers(file, secret, x):
    file.create_dataset(f"src/Source/{x}", data=np.zeros((30, 2), complex))


def opaque(file, secret, x):
    file.create_dataset(f"src/Source/{x}", data=np.zeros((30, 2), "V8"))


def arrays_in_a_cell(file, secret, x):
    file.create_dataset(f"src/Source/{x}", (30, 2), np.dtype(("f8", (3,))))


def bits(file, secret, x):
    h5py.h5d.create(file["src/Source"].id, x.encode(), h5py.h5t.STD_B64LE, h5py.h5s.create_simple((30, 2)))


def a_type(file, secret, x):
    file[f"src/Source/{x}"] = np.dtype("f8")


def huge_shape(file, secret, x):
    file.create_dataset(f"src/Source/{x}", (10**9, 1000), "f8", chunks=(1, 1))


def huge_contiguous(file, secret, x):
    file.create_dataset(f"{x}/x", (10**9,), "f8")


def huge_chunk(file, secret, x):
    made = file.create_dataset(f"src/Source/{x}", (1, 1), "f8", maxshape=(None, None), chunks=(1 << 14, 1 << 14))
    assert made.id.get_storage_size() == 0


def gzip_twice(file, secret, x):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((1000, 2))
    made.set_deflate(9)
    made.set_deflate(9)
    h5py.h5d.create(file["src/Source"].id, x.encode(), h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((1000, 2)), made)


def another_filter(file, secret, x):
    file.create_dataset(f"src/Source/{x}", data=np.zeros((10, 2)), chunks=(10, 1), compression="lzf")


def one_text_often(file, secret, x):
    """A megabyte of text in the file, which 40 000 entries share: 40 GB when they are read."""
    made = file.create_dataset(f"src/Source/{x}", (40_000,), h5py.string_dtype())
    made[0] = "y" * 1_000_000
    file.flush()
    at = made.id.get_offset()
    with open(file.filename, "r+b") as raw:
        raw.seek(at)
        one = raw.read(16)
        raw.seek(at)
        raw.write(one * 40_000)


def one_text_in_attributes(file, secret, x):
    """The same in one attribute."""
    file["src/Source"].attrs[x] = np.array(["y" * 1000] * 100, dtype=object)


def many_attributes(file, secret, x):
    for k in range(1001):
        file["src/Source"].attrs[f"{x}{k}"] = k


def an_empty_attribute(file, secret, x):
    file["src/Source"].attrs[x] = h5py.Empty("S10")


def deep(file, secret, x):
    file["/".join([x] * 20)] = np.zeros(3)


def beside_all(file, secret, x):
    file[x] = np.zeros(3)


def a_scalar(file, secret, x):
    file[f"src/Source/{x}"] = 3.0


def no_space(file, secret, x):
    file[f"src/Source/{x}"] = h5py.Empty("f8")


def text_as_a_port(file, secret, x):
    file[f"src/Source/{x}"] = np.array([[b"y", b"y"]] * 30)


def numbers_as_an_axis(file, secret, x):
    file[f"src/Source/{x}"] = np.zeros(30)


def other_entities(file, secret, x):
    file[f"src/Source/{x}"] = np.zeros((30, 7))


def a_scalar_column(file, secret, x):
    file[f"ticks/{x}"] = 3


def a_wide_column(file, secret, x):
    file[f"ticks/{x}"] = np.zeros((360, 3))


def a_model_in_a_table(file, secret, x):
    file[f"ticks/{x}/p_kw"] = np.zeros((3, 1))


def a_column_beside_models(file, secret, x):
    file[f"src/{x}"] = np.zeros(3)


def no_times(file, secret, x):
    file[f"src/{x}/p_kw"] = np.zeros((3, 1))


def no_utf8(file, secret, x):
    h5py.h5g.create(file.id, x.encode() + b"\xff")


ATTACKS = {
    external_link: ("src/Source/x", "a link into another file"), external_group: ("/x", "a link into another file"),
    soft_link: ("src/Source/x", "a soft link"), soft_link_upwards: ("src/x", "a soft link"),
    hard_link_upwards: ("src/x", "a hard link) of the root"), hard_link: ("x", "a hard link"),
    hard_link_around: ("src/Source/x", "a hard link) of /src"),
    external_storage: ("src/Source/x", "in another file"), virtual: ("src/Source/x", "a virtual dataset"),
    virtual_of_itself: ("src/Source/x", "a virtual dataset"), object_references: ("src/Source/x", "references"),
    region_references: ("ticks/x", "references"), reference_attribute: ("attribute x of /src/Source", "references"),
    lists: ("src/Source/x", "lists of any length"), records: ("ticks/x", "records"), a_type: ("src/Source/x", "a type"),
    complex_numbers: ("src/Source/x", "records"), opaque: ("src/Source/x", "opaque bytes"),
    arrays_in_a_cell: ("src/Source/x", "a type"), bits: ("src/Source/x", "a type"),
    huge_shape: ("src/Source/x", "unfolds to 7.45e+03 GiB from a file of"),
    huge_contiguous: ("x/x", "unfolds to 7.45 GiB"),
    huge_chunk: ("src/Source/x", "unfolds to 2 GiB"),
    gzip_twice: ("src/Source/x", "a filter twice"), another_filter: ("src/Source/x", "filter 32000"),
    one_text_often: ("src/Source/x", "shares its text"), one_text_in_attributes: ("attribute x", "100 texts"),
    many_attributes: ("/src/Source", "attributes, and 1000 are the most"),
    an_empty_attribute: ("attribute x of /src/Source", "is empty"),
    deep: ("/x/x", "a model in which a group stands"), beside_all: ("/x", "belongs to no model and no table"),
    a_scalar: ("src/Source/x", "numbers in 0 dimensions"), no_space: ("src/Source/x", "no dimensions"),
    text_as_a_port: ("src/Source/x", "text of a fixed length in 2 dimensions"),
    numbers_as_an_axis: ("src/Source/x", "neither names along an axis nor a port"),
    other_entities: ("src/Source", "has 2 entities, but its port x has others"),
    a_scalar_column: ("ticks/x", "has 0 dimensions"), a_wide_column: ("ticks/x", "has 2 dimensions"),
    a_model_in_a_table: ("ticks", "both models and columns"),
    a_column_beside_models: ("src", "both models and columns"),
    no_times: ("src/x", "a model without entity and time_s"), no_utf8: ("x\ufffd", "no UTF-8 text"),
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


def attacked(honest, folder, *attacks):
    """(the file, the one it names, which holds what it is asked for); the k-th attack calls what it adds xk."""
    bad, secret = folder / "bad.h5", folder / "secret.h5"
    shutil.copy(honest, bad)
    (folder / "raw.bin").write_bytes(bytes(80))
    with h5py.File(secret, "w") as file:
        file["x"] = np.zeros((10, 1))
    with h5py.File(bad, "r+") as file:
        for k, attack in enumerate(attacks):
            attack(file, secret, f"x{k}" if k else "x")
    return bad, secret


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_refused_and_what_it_names_is_not_opened(honest, tmp_path, attack, monkeypatch):
    """By the reader itself; the process that looks at the file before does so by the same code."""
    monkeypatch.setattr(reader, "refuse_unreadable", lambda path: None)
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
    for watch in watched:
        watch.close()


@pytest.mark.long
def test_all_of_them_are_left_out_of_what_is_rescued(honest, tmp_path):
    """In one file: all that is the run's own is saved, nothing else, and nothing is opened."""
    bad, secret = attacked(honest, tmp_path, *ATTACKS)
    watched = [Opened(secret), Opened(secret.with_name("raw.bin"))]
    lost = rescue(bad, tmp_path / "saved.h5")
    assert not any(watched)
    for k, (attack, (where, _)) in enumerate(ATTACKS.items()):
        inside = where.startswith("attribute") or attack in (many_attributes, deep)
        assert inside or [text for text in lost if (f"x{k}" if k else "x") in text.split(" (")[0]], attack
    with Trace(tmp_path / "saved.h5") as saved, Trace(honest) as good:
        assert saved.models() == good.models()
        for model in good.models():
            assert saved.ports(model) == good.ports(model), lost
        assert (saved[PORT] == good[PORT]).all()
        assert saved.table("wiring").keys() == good.table("wiring").keys()
    for watch in watched:
        watch.close()


@pytest.fixture(scope="module")
def two(honest, tmp_path_factory):
    """Two of the files, each in a folder of its own with what it names."""
    out = {}
    for attack in (external_group, external_storage):
        out[attack] = tmp_path_factory.mktemp(attack.__name__)
        attacked(honest, out[attack], attack)
    return out


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", [external_group, external_storage],
                         ids=lambda attack: attack.__name__)
def test_every_reader_refuses_it_in_one_line(honest, two, capsys, monkeypatch, reader, attack):
    if reader == "figures":
        pytest.importorskip("matplotlib", reason="needs the extra 'plot'")
    folder = two[attack]
    monkeypatch.chdir(folder)
    watched = [Opened(folder / "secret.h5"), Opened(folder / "raw.bin")]
    before = sorted(folder.iterdir())
    assert READERS[reader]("bad.h5", str(honest)) == 5
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"bad.h5 is no trace of this program's: /{ATTACKS[attack][0].lstrip('/')} " in said.err
    assert not any(watched)
    assert sorted(folder.iterdir()) == before
    for watch in watched:
        watch.close()


def test_the_watch_sees_what_plain_h5py_does(honest, tmp_path):
    """The tests above can fail: HDF5 follows a link, and the kernel says so."""
    bad, secret = attacked(honest, tmp_path, external_link)
    watched = Opened(secret)
    assert not watched
    with h5py.File(bad) as file:
        assert file["src/Source/x"].shape == (10, 1)
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
    monkeypatch.setattr(reader, "refuse_unreadable", lambda path: None)
    Trace(path).__exit__()
    file_scan._passed.clear()
    monkeypatch.setattr(file_scan, "free_bytes", lambda: 1 << 22)
    with pytest.raises(TraceError, match="/x/y unfolds to 16 MiB"):
        Trace(path)


def test_a_file_that_changed_is_looked_through_again(honest, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "refuse_unreadable", lambda path: None)
    path = tmp_path / "t.h5"
    shutil.copy(honest, path)
    Trace(path).__exit__()
    with h5py.File(path, "r+") as file:
        soft_link(file, None, "x")
    with pytest.raises(TraceError, match="a soft link"):
        Trace(path)


def test_sealed_bytes_that_passed_pass_again_and_no_others(tmp_path, monkeypatch):
    """Read twice, with what this program adds, or as a copy: looked through once. What was sealed with a link is
    looked through, and so is what this program adds to that."""
    path, copy, bad = (tmp_path / f"{name}.h5" for name in ("run", "copy", "bad"))
    run(boxes(), path, until_s=1800.0)
    looks, through = [], file_scan.FileScan.through
    monkeypatch.setattr(file_scan.FileScan, "through", lambda self, file: looks.append(file) or through(self, file))
    Trace(path).__exit__()
    annotate(path, {"note": "added"})
    shutil.copy(path, copy)
    for again in (path, copy):
        Trace(again).__exit__()
    assert len(looks) == 1
    with rewritten(bad, of=path) as file:
        soft_link(file, None, "x")
    annotate(bad, {"note": "added"})
    for _ in range(2):
        with pytest.raises(TraceError, match="a soft link"):
            Trace(bad)
    assert len(looks) == 3
