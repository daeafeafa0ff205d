"""Damaged traces: any byte that changed is found, said in one line, and what is whole can be saved."""

import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from worlds import GRIDLESS_PY

from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.report import main as report_main
from cosim.run import default_out, find, main
from cosim.scenario import override
from cosim.simulators.analysis.receipts import main as receipts_main
from cosim.trace import Trace
from cosim.trace import reader as reading
from cosim.trace import supervised as supervision
from cosim.trace.command import main as inspect_main
from cosim.trace.rescue import rescue
from cosim.trace.seal import BLOCK, check_seal
from cosim.trace.supervised import DAMAGE, supervised
from cosim.trace.writer import TraceWriter, _fletcher32, annotate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of 30 minutes, and its bytes."""
    path = tmp_path_factory.mktemp("whole") / "run.h5"
    Experiment(override(find("two_bus"), {"grid.mci": "false", "grid.ac_check": "false"}), "native", 1800.0, path).run()
    return path


def forked(module: str, path: str) -> tuple[str, str]:
    """As `supervised`, by a fork of this process: with all it has imported it starts at once."""
    child = os.fork()
    if not child:
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), suppress(*DAMAGE, TraceError):
                supervision.look(Path(path))
        finally:
            os._exit(0)
    for _ in range(150):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "", "" if status == 0 else f"crashes ({status})"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "", "hangs"


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out))
    if kind == "a bit":
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "a page":
        at -= at % 4096
        was = bytes(out[at: at + 4096])
        out[at: at + 4096] = bytes(len(was)) if any(was) else b"\xff" * len(was)
    else:
        del out[at % max(1, int.from_bytes(data[40:48], "little")):]  # before the seal: what HDF5 knows
    return bytes(out)


@pytest.mark.parametrize("kind", ["a bit", "a page", "the end"])
def test_every_command_says_in_one_line_that_a_byte_has_changed(whole, kind, tmp_path, capsys, monkeypatch):
    """170 places each; the end cut off takes the seal with it, and HDF5 itself sees that. One at a time through every
    command, the others through the reader they all share."""
    monkeypatch.chdir(tmp_path)
    data, rng, bad = whole.read_bytes(), random.Random(kind), tmp_path / "bad.h5"
    commands = [lambda: inspect_main(["ls", "bad.h5"]), lambda: inspect_main(["diff", "bad.h5", str(whole)]),
                lambda: inspect_main(["diff", str(whole), "bad.h5"]), lambda: inspect_main(["verify", "bad.h5"]),
                lambda: inspect_main(["export", "bad.h5", "--out", "e"]), lambda: report_main(["bad.h5"]),
                lambda: main(["bad.h5", "--quiet"]), lambda: receipts_main(["bad.h5"]),
                lambda: main(["two_bus", "--replay", "profile=bad.h5", "--until", "1min", "--quiet"])]
    for place in range(170):
        bad.write_bytes(damaged(data, kind, rng))
        with pytest.raises(TraceError, match="bad.h5") as err:
            Trace(bad)
        assert len(str(err.value)) < 400
        if place < (len(commands) if kind != "the end" else 2):
            assert commands[place]() == 5
            said = capsys.readouterr()
            assert (said.out, said.err.count("\n")) == ("", 1)
            assert "bad.h5" in said.err
        os.utime(bad, (place, place))  # the next one is another file
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.h5"]


def test_a_seal_knows_where(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    seal = check_seal(whole)
    assert seal.changed == ()
    assert seal.twice
    assert seal.size + 2 * (8 * seal.blocks + 48) + 4096 == len(data)
    data[BLOCK + 5] ^= 1
    data[3 * BLOCK] ^= 128
    (tmp_path / "t.h5").write_bytes(data)
    assert check_seal(tmp_path / "t.h5").changed == (1, 3)


@pytest.mark.long
def test_a_seal_is_no_hindrance(whole, tmp_path, monkeypatch):
    """Plain h5py opens a sealed file, also with any part of a seal; what is added to it is sealed again; another
    program that writes into it takes the seal off."""
    monkeypatch.setattr(supervision, "supervised", forked)
    data, size = whole.read_bytes(), check_seal(whole).size
    for length in (size, size + 1, len(data) - 1, len(data)):
        (tmp_path / "t.h5").write_bytes(data[:length])
        with h5py.File(tmp_path / "t.h5") as file:
            assert file.attrs["status"] == "completed"
        with Trace(tmp_path / "t.h5") as trace:
            assert trace.sealed == (length == len(data))
    annotate(tmp_path / "t.h5", {"note": "n" * 70000})
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.sealed
        assert len(trace.attrs["note"]) == 70000
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file.attrs["status"] = "failed"
    with Trace(tmp_path / "t.h5") as trace:
        assert not trace.sealed


@pytest.mark.parametrize("size", [1, 2, 7, 4096, 100_001])
@pytest.mark.parametrize("what", ["random", "zero", "ones"])
def test_our_checksum_is_hdf5s(tmp_path, size, what):
    """HDF5 itself accepts a chunk that carries ours, and refuses one with a bit changed."""
    data = {"random": random.Random(size).randbytes(size), "zero": bytes(size), "ones": b"\xff" * size}[what]
    for name, checksum in (("right", _fletcher32(data)), ("wrong", _fletcher32(bytes([data[0] ^ 1]) + data[1:]))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            made = file.create_dataset("x", (size,), "u1", chunks=(size,), fletcher32=True)
            made.id.write_direct_chunk((0,), data + checksum)
    with h5py.File(tmp_path / "right.h5") as file:
        assert file["x"][()].tobytes() == data
    with h5py.File(tmp_path / "wrong.h5") as file, pytest.raises(OSError, match="filter"):
        file["x"][()]


def test_a_killed_runs_numbers_are_guarded_too(whole, tmp_path):
    """Without a seal, as a kill leaves a file, each chunk's checksum tells; plain h5py hears of it as well."""
    with h5py.File(whole) as file:
        chunk = file["aidc/Site/p_kw"].id.get_chunk_info(0)
    data = bytearray(whole.read_bytes()[: check_seal(whole).size])
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    (tmp_path / "t.h5").write_bytes(data)
    with Trace(tmp_path / "t.h5") as trace:
        assert not trace.sealed
        with pytest.raises(TraceError, match="t.h5 is damaged: aidc/Site/p_kw cannot be read"):
            trace["aidc/Site/p_kw"]


def test_what_is_whole_is_saved(whole, tmp_path, capsys):
    """One chunk of a port and one of a table are lost; all else is as it was."""
    data = bytearray(whole.read_bytes())
    with h5py.File(whole) as file:
        for name in ("aidc/Site/p_kw", "jobs/work_to"):
            chunk = file[name].id.get_chunk_info(0)
            data[chunk.byte_offset + chunk.size // 2] ^= 4
        table_rows = len(file["jobs/work_to"])
    bad = tmp_path / "bad.h5"
    bad.write_bytes(data)
    assert inspect_main(["rescue", str(bad)]) == 1
    said = capsys.readouterr().out
    assert f"table jobs ({table_rows} of {table_rows} rows)" in said
    with Trace(whole) as before, Trace(tmp_path / "bad-rescued.h5") as after:
        assert after.sealed
        assert after.attrs["status"] == "failed"
        assert "aidc/Site/p_kw" in after.attrs["error"]
        assert after.attrs["scenario"] == before.attrs["scenario"]
        assert after.models() == before.models()
        for model in before.models():
            assert (after.time_s(model) == before.time_s(model)).all()
            assert after.names(model) == before.names(model)
            for port in before.ports(model):
                path = f"{model}/{port}"
                assert after.about(path) == before.about(path)
                if path == "aidc/Site/p_kw":
                    assert np.isnan(after[path]).all()
                else:
                    np.testing.assert_array_equal(after[path], before[path])
        for table in set(before.tables()) - {"jobs"}:
            for name, column in before.table(table).items():
                np.testing.assert_array_equal(after.table(table)[name], column)
    assert inspect_main(["rescue", str(bad)]) == 5, "what was saved once is not overwritten"


@pytest.mark.long
def test_a_whole_trace_is_rescued_as_it_is(whole, tmp_path):
    assert rescue(whole, tmp_path / "r.h5") == []
    with Trace(whole) as before, Trace(tmp_path / "r.h5") as after:
        for table in before.tables():
            for name, column in before.table(table).items():
                np.testing.assert_array_equal(after.table(table)[name], column)
        for model in before.models():
            for port in before.ports(model):
                np.testing.assert_array_equal(after[f"{model}/{port}"], before[f"{model}/{port}"])


@pytest.mark.long
def test_a_file_cut_short_is_rescued_as_far_as_it_goes(tmp_path):
    """A tenth of the file is gone: the hours before are as they were."""
    path = Experiment(find(str(GRIDLESS_PY)), "native", 21600.0, tmp_path / "run.h5").run().path
    data = path.read_bytes()
    (tmp_path / "bad.h5").write_bytes(data[: len(data) * 9 // 10])
    lost = rescue(tmp_path / "bad.h5", tmp_path / "r.h5")
    assert "bytes of the file" in lost[0]
    with Trace(path) as before, Trace(tmp_path / "r.h5") as after:
        times = after.time_s("aidc/Site")
        assert len(times) >= 120
        assert (times == before.time_s("aidc/Site")[: len(times)]).all()
        kept = after["aidc/Site/p_kw"]
        assert (kept[:120] == before["aidc/Site/p_kw"][:120]).all()
    (tmp_path / "text.h5").write_text("no trace at all" * 1000)
    with pytest.raises(TraceError, match="nothing can be saved"):
        rescue(tmp_path / "text.h5", tmp_path / "r2.h5")


def test_a_reader_that_hangs_or_crashes_is_left_alone(tmp_path, monkeypatch):
    """What HDF5 does on some damage, done on purpose by the child: said in one line by the reader itself, so by every
    command; and the file is not opened here."""
    monkeypatch.setattr(supervision, "PATIENCE_S", 3.0)
    monkeypatch.syspath_prepend(tmp_path)
    for how, code in (("hangs", "time.sleep(60)"), ("crashes", "os.abort()")):
        (tmp_path / f"it_{how}.py").write_text(
            f"import os, time\ndef main(argv):\n    print(argv[0], flush=True)\n    {code}\n")
        at, died = supervised(f"it_{how}", "a/B/p_kw")
        assert at == "a/B/p_kw"
        assert died.startswith(how)
    path = tmp_path / "t.h5"
    TraceWriter(path, attrs={}, start="2026-01-01T00:00:00")  # a run that was killed at once
    monkeypatch.setattr(supervision, "supervised", lambda *_: ("a/B/p_kw", "hangs (over 20 s)"))
    monkeypatch.setattr(reading, "_open", None)
    for _ in range(2):
        with pytest.raises(TraceError, match="HDF5 hangs .* when it reads a/B/p_kw; .*rescue"):
            Trace(path)


def test_the_child_imports_nothing_from_the_folder_it_is_run_in(tmp_path, monkeypatch):
    TraceWriter(tmp_path / "t.h5", attrs={}, start="2026-01-01T00:00:00")
    (tmp_path / "queue.py").write_text("open('ran', 'w')")
    (tmp_path / "h5py.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    with Trace("t.h5") as trace:
        assert trace.attrs["status"] == "running"
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A short trace without its seal, as a kill leaves one."""
    path = tmp_path_factory.mktemp("small") / "small.h5"
    Experiment(override(find(str(GRIDLESS_PY)), {}), "native", 120.0, path).run()
    return path.read_bytes()[: check_seal(path).size]


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_files_without_a_seal_end_in_one_line_at_most(small, part, tmp_path, capsys, monkeypatch):
    """28 files with bits flipped, pages lost or the end cut off, each through five commands: read, or refused in one
    line; no traceback, no hang."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervision, "supervised", forked)
    for place in range(part, 28, 4):
        rng = random.Random(place)
        data = small
        for _ in range(1 + 3 * (place % 2)):
            data = damaged(data, ("a bit", "a bit", "a page", "the end")[rng.randrange(4)], rng)
        Path("bad.h5").write_bytes(data)
        os.utime("bad.h5", (place, place))
        for run in (lambda: inspect_main(["ls", "bad.h5"]), lambda: inspect_main(["verify", "bad.h5"]),
                    lambda: report_main(["bad.h5", "--out", "p.html"]), lambda: main(["bad.h5", "--show"]),
                    lambda: main(["two_bus", "--replay", "tariff=bad.h5", "--until", "1min", "--show"])):
            code = run()
            said = capsys.readouterr()
            assert code in (0, 1, 2, 5), said
            assert said.err.count("\n") == (code in (2, 5)), (place, said)
            assert "Traceback" not in said.out + said.err


@pytest.mark.long(after=1)
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_disk_that_takes_no_more(tmp_path, driver):
    """A real limit of the system on a file's size in mid-run: one line that blames the disk, what was flushed is
    there."""
    words = [str(GRIDLESS_PY), "--until", "8h", "--driver", driver, "--set", "flush_s=1h", "--quiet", "--out", "f.h5"]
    code = f"import sys; from cosim.run import main; sys.exit(main({words}))"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "cosim: cannot write f.h5: File too large; what was written before is whole\n"
    with Trace(tmp_path / "f.h5") as trace:
        assert trace.attrs["status"] == "failed"
        assert trace.attrs["error"] == done.stderr.strip().removeprefix("cosim: ")
        assert len(trace.time_s("aidc/Site")) >= 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5"]


@pytest.mark.long
def test_a_terminal_that_closes_ends_a_run_as_ctrl_c_does(tmp_path):
    code = ("import sys, os, signal; from cosim import run; "
            "orig = run.Experiment.run\n"
            "def hung_up(self):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return orig(self)\n"
            "run.Experiment.run = hung_up\n"
            f"sys.exit(run.main([{str(GRIDLESS_PY)!r}, '--quiet', '--driver', 'native', '--out', 'f.h5']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)},
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    assert done.returncode == 130, done.stderr
    with Trace(tmp_path / "f.h5") as trace:
        assert trace.attrs["status"] == "failed"


def test_overwriting_keeps_who_may_read(tmp_path):
    out = tmp_path / "t.h5"
    words = ["two_bus", "--until", "2min", "--quiet", "--driver", "native", "--out", str(out)]
    assert main(words) == 0
    out.chmod(0o600)
    assert main([*words, "--force"]) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../../../x", "/etc/x", "..", ".hidden", "a/b", "x" * 500, "\x1b[31m", "a b"])
def test_a_scenarios_name_is_no_path(name):
    scenario = override(find("two_bus"), {}).replace(name=name)
    folder = default_out(scenario).parent
    assert folder.parent == Path("results")
    assert folder.name not in ("", ".", "..")
    assert len(folder.name) <= 100
