"""Members in other processes: strangers are turned away, nothing too large is taken, no process outlives its run."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worlds import boxes, run

from cosim.drivers import remote
from cosim.drivers.remote import BoundedReader, address_of, is_loopback, is_same_user
from cosim.errors import CosimError, ScenarioError
from cosim.learning import shared
from cosim.scenario import Link, Member, Scenario, override
from cosim.serve import main as serve
from cosim.trace.compare import first_difference

ROOT = Path(__file__).parents[2]
BOX = ROOT / "tests" / "boxes.py"
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "PYTHONUNBUFFERED": "1"}
SECRET = "correct horse battery"


def liar(code: str) -> str:
    """A command whose process connects and then does what `code` says with its socket s."""
    program = (f"import socket,sys,time;h,p=sys.argv[1].rsplit(':',1);s=socket.create_connection((h,int(p)));{code};"
               "time.sleep(600)")
    return f'cmd: %(python)s -c "{program}" %(addr)s'


def fed_by(simulator: str, timeout_s: float = 300.0, **more) -> Scenario:
    return Scenario(name="t", about="t", until_s="10min", members={
        "src": Member(simulator=simulator, step_s=60, entities={"Source": ["s"]}, timeout_s=timeout_s, adapter=True,
                      **more),
        "store": Member(simulator="boxes:Store", step_s=60, entities={"Store": ["s"]})},
        links=[Link(source="src.p_kw", target="store.p_kw")])


@pytest.mark.parametrize(("code", "said"), [
    ("s.sendall(b'\\xff\\xff\\xff\\xff')", "announced a message of 4295 MB; at most 268 MB are taken"),
    ("s.sendall(b'\\0\\0\\0\\2{{')", "no message of mosaik's protocol"),
    ("s.sendall(b'\\0\\0\\0\\2[]')", "no message of mosaik's protocol"),
    ("s.sendall(b'\\0\\0\\0\\7[1,9,9]')", "no message of mosaik's protocol"),
    ("s.sendall(b'GET / HTTP/1.1')", "at most 268 MB are taken"),
    ("s.close();sys.exit(0)", "its process ended or closed the connection"),
    ("os=__import__('os');os.fork() or time.sleep(600);os._exit(0)", "its process ended or closed the connection"),
])
def test_a_member_that_speaks_nonsense_is_heard_no_longer(code, said):
    """At once, though it would have 300 s; the last of them leaves a child that keeps the connection open."""
    with pytest.raises(CosimError, match=said):
        run(fed_by(liar(code)), None, "mosaik")


def test_a_slow_drip_is_cut_off():
    """A byte now and then of an answer that never ends does not count as an answer."""
    code = "s.sendall(b'\\0\\0\\1\\0');[(s.sendall(b' '),time.sleep(0.1)) for _ in range(500)]"
    with pytest.raises(CosimError, match="no answer within 1 s"):
        run(fed_by(liar(code), timeout_s=1.0), None, "mosaik")


def test_bytes_are_given_as_they_came():
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(b"defgh")
        bounded = BoundedReader(reader, b"abc", most=5)
        out = [await bounded.readexactly(n) for n in (2, 3, 1, 2)]
        with pytest.raises(ValueError, match="at most"):
            await bounded.readexactly(6)
        return out

    assert asyncio.run(read()) == [b"ab", b"cde", b"f", b"gh"]


@pytest.mark.parametrize(("text", "address"), [
    ("127.0.0.1:5678", ("127.0.0.1", 5678)), ("[::1]:5678", ("::1", 5678)), ("grid.example:1", ("grid.example", 1)),
    ("::1:5678", None), ("host", None), ("host:99999", None), ("a b:1", None), (":1", None), ("[]:1", None)])
def test_addresses(text, address):
    assert address_of(text) == address


def test_which_addresses_stay_on_this_machine():
    assert [is_loopback(h) for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "grid")
            ] == [True] * 4 + [False] * 4


def test_a_connection_has_an_owner(monkeypatch):
    """By the system's own table; for another user's eyes the same connection is a stranger's."""
    async def owner() -> list[bool]:
        met: asyncio.Future = asyncio.get_running_loop().create_future()

        async def on_connect(reader, writer):
            mine = is_same_user(writer)
            monkeypatch.setattr(remote.os, "getuid", lambda: os.geteuid() + 1)
            met.set_result([mine, is_same_user(writer)])
            writer.close()

        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        out = await met
        writer.close()
        server.close()
        return out

    found = asyncio.run(owner())
    assert found == ([True, False] if Path("/proc/net/tcp").is_file() else [True, True])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be another user")
def test_another_user_does_not_take_a_members_place(monkeypatch, tmp_path):
    """Somebody who watches for the port connects first, and answers nothing; the run meets its own child."""
    program = tmp_path / "raced.py"
    program.write_text(
        "import os, runpy, socket, sys, time\nhost, port = sys.argv[1].rsplit(':', 1)\n"
        "if not (child := os.fork()):\n    os.setuid(65534)\n"
        "    s = socket.create_connection((host, int(port)))\n    s.recv(1)\n    os._exit(0)\n"
        "os.waitpid(child, 0)\n"  # it was hung up on
        f"runpy.run_path({str(BOX)!r}, run_name='__main__')\n")
    simulator = f"cmd: %(python)s {program} %(addr)s"
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
    near = override(boxes(), {"until_s": 600.0})
    far = override(near, {"store.simulator": simulator, "store.adapter": True})
    assert run(far, tmp_path / "far.h5", "mosaik").status == "completed"


@contextlib.contextmanager
def served(*words, host="127.0.0.1", **env):
    """A server in a process of its own; gives its process and its address."""
    shown = f"[{host}]" if ":" in host else host
    command = [sys.executable, "-m", "cosim.serve", "--remote", *words, "boxes:Store", f"{shown}:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ENV, **env}) as p:
        try:
            yield p, p.stdout.readline().rpartition(" at ")[2].strip()
        finally:
            p.kill()


def test_strangers_do_not_end_a_server(tmp_path):
    """Who connects and hangs up, browses, or speaks another protocol is turned away; the scenario then gets the same
    bytes as from a simulator in its own process."""
    near = run(boxes(), tmp_path / "near.h5", "native").path
    with served() as (server, address):
        host, port = address_of(address)
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2{}", struct.pack(">I", 1 << 31), b"\0\0\0\7[0,0,0]"):
            with socket.create_connection((host, port)) as stranger:
                stranger.sendall(said)
        far = run(override(boxes(), {"store.simulator": f"connect: {address}", "store.adapter": True}),
                  tmp_path / "far.h5", "mosaik").path
        assert server.wait(60) == 0
        assert server.stderr.read().count("turned away 127.0.0.1: it is no scenario") >= 4
    assert first_difference(near, far) is None


def test_a_server_on_ipv6(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with served(host="::1") as (_, address):
        assert address.startswith("[::1]:")
        asked = override(boxes(), {"store.simulator": f"connect: {address}", "store.adapter": True})
        assert run(asked, tmp_path / "t.h5", "mosaik").status == "completed"


def test_a_secret_is_shared_or_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", SECRET)
    monkeypatch.setenv("OTHER", SECRET[::-1])
    with served("--secret", "MINE", MINE=SECRET) as (_, address):
        asked = override(boxes(), {"store.simulator": f"connect: {address}", "store.adapter": True})
        with pytest.raises(CosimError, match="it does not answer as cosim serve with a secret does|share this secret"):
            run(override(asked, {"store.secret": "OTHER"}), None, "mosaik")
        with pytest.raises(CosimError, match="the environment variable NONE is not set"):
            run(override(asked, {"store.secret": "NONE"}), None, "mosaik")
        assert run(override(asked, {"store.secret": "MINE"}), tmp_path / "t.h5", "mosaik").status == "completed"


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "somewhere"])
def test_nobody_is_served_beyond_this_machine_without_a_secret(host, capsys, monkeypatch):
    assert serve(["--remote", "boxes:Store", f"{host}:0"]) == 2
    assert "give --secret VARIABLE, or listen at 127.0.0.1" in capsys.readouterr().err
    monkeypatch.setenv("SHORT", "abc")
    assert serve(["--remote", "--secret", "SHORT", "boxes:Store", f"{host}:0"]) == 2
    assert "fewer than 16 characters" in capsys.readouterr().err


def gone(pid: int, patience_s: float = 60.0) -> bool:
    """Whether a process ends by itself (a zombie has ended)."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_no_member_outlives_a_run_that_is_killed(tmp_path):
    """The child would sleep for ten minutes, and hear nothing of a closed connection."""
    program = tmp_path / "member.py"
    program.write_text("import os, socket, sys, time\nhost, port = sys.argv[1].rsplit(':', 1)\n"
                       f"open({str(tmp_path / 'pid')!r} + '.new', 'w').write(str(os.getpid()))\n"
                       f"os.replace({str(tmp_path / 'pid')!r} + '.new', {str(tmp_path / 'pid')!r})\n"
                       "s = socket.create_connection((host, int(port)))\ntime.sleep(600)\n")
    code = ("from worlds import boxes\nfrom cosim.scenario import override\nfrom cosim.experiment import Experiment\n"
            f"Experiment(override(boxes(), {{'store.simulator': 'cmd: %(python)s {program} %(addr)s', "
            "'store.adapter': True}), 'mosaik').run()")
    tests = os.pathsep.join([ENV["PYTHONPATH"], str(ROOT / "tests" / "cosim")])
    with subprocess.Popen([sys.executable, "-c", code], env={**ENV, "PYTHONPATH": tests}) as running:
        while not (tmp_path / "pid").exists():
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(shared.fcntl is None, reason="no locks here")
def test_what_a_killed_training_left_is_cleared_at_the_next_start(tmp_path, monkeypatch):
    """A folder that a process held which was killed goes; one that is held, or new, or another program's, stays."""
    monkeypatch.setattr(shared, "_MEMORY", tmp_path)
    folders = {name: tmp_path / f"{prefix}{name}" for name, prefix in (
        ("killed", shared._PREFIX), ("held", shared._PREFIX), ("new", shared._PREFIX), ("other", "somebody-"))}
    for folder in folders.values():
        folder.mkdir()
        (folder / "observation").write_bytes(bytes(100))
    code = (f"import os, signal; from pathlib import Path; from cosim.learning import shared; "
            f"held = shared._hold(Path({str(folders['killed'])!r})); os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code], env=ENV, check=False).returncode == -signal.SIGKILL
    with shared._hold(folders["held"]):
        for name in ("killed", "held", "other"):
            os.utime(folders[name], (1.0, 1.0))
        shared.clear_abandoned()
        assert {name for name, folder in folders.items() if folder.exists()} == {"held", "new", "other"}


def test_errors_of_a_remote_reach_the_terminal_without_its_escapes(capsys):
    from cosim.console import fail
    fail(ScenarioError("member 'x' said: \x1b[2J\x1b]0;owned\x07 and\x00 more\n\nlines \u202e"))
    assert capsys.readouterr().err == "cosim: member 'x' said: \\x1b[2J\\x1b]0;owned\\x07 and\\x00 more lines \\u202e\n"
