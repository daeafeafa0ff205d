"""Cells as tasks of Ray: the same files as by processes; what is left, and who can reach it.

A cluster takes half a minute of processors to start and stop several times, so that these run on request alone:
COSIM_TEST_RAY=1 python -m pytest tests/cosim/test_ray.py
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from test_campaign import SQUARES, SUM, files_in

from cosim.campaign.cells import Cell
from cosim.campaign.runner import run_cells

pytestmark = pytest.mark.skipif(not os.environ.get("COSIM_TEST_RAY"),
                                reason="starts Ray clusters, which takes a minute: set COSIM_TEST_RAY=1")
PROGRAM = """
import sys
from pathlib import Path
from cosim.campaign.cells import Cell
from cosim.campaign.runner import run_cells
cells = [Cell(f"c{k}", "small_cells:in_steps", {"count": 4, "pause_s": 0.3}) for k in range(4)]
run_cells(cells, Path(sys.argv[1]), jobs=2, engine=sys.argv[2], progress=False)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home directory and temporary folder."""
    for variable in ("HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    assert not list((tmp_path / "HOME").iterdir())
    assert not list((tmp_path / "TMPDIR").iterdir())


def of_ray(out):
    """Processes of the campaign in a folder: id -> command, those below Ray's driver, which has the folder's log."""
    parents, commands = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if (place / "fd" / "2").readlink() == out / "ray.log":
                parents[int(place.name)] = -1
        except OSError:
            continue
    found = {pid for pid, parent in parents.items() if parent == -1}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in found}


def listening(pids):
    """Addresses, hexadecimal, on which processes accept connections."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(entry.readlink()))
            except OSError:
                continue
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_what_ray_raises_is_a_death_or_a_failure():
    exceptions = importlib.import_module("ray.exceptions")
    driver = importlib.import_module("cosim.campaign.ray_driver")
    for error, found in ((exceptions.WorkerCrashedError(), "died"), (exceptions.OutOfMemoryError("full"), "died"),
                         (exceptions.RuntimeEnvSetupError("no"), "failed")):
        future = Future()
        future.set_exception(error)
        assert driver._outcome(future).keys() == {found}


def test_the_same_files_as_by_processes_and_killed_workers_are_replaced(home):
    cells = [SUM, *SQUARES, Cell("once", "small_cells:killed_once"), Cell("always", "small_cells:always_killed"),
             Cell("wrong", "small_cells:wrong", {"how": "refused"})]
    by = {engine: run_cells(cells, home / engine, jobs=2, engine=engine, progress=False) for engine in ("local", "ray")}
    for key, local in by["local"].items():
        ray = by["ray"][key]
        assert (ray.state, ray.result, ray.identity) == (local.state, local.result, local.identity)
    assert by["ray"]["wrong"].error == "x = 1 is refused; take 2"
    assert "Ray worker ended by itself (WorkerCrashedError) (tried 2 times)" in by["ray"]["always"].error
    assert files_in(home / "local") == files_in(home / "ray")


def test_kill_9_leaves_nothing_and_the_same_command_goes_on(home):
    subprocess.run([sys.executable, "-c", PROGRAM, str(home / "whole"), "local"], check=True)
    torn, before = home / "torn", set(Path("/dev/shm").iterdir())
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(torn), "ray"]) as driver:
        log = torn / "steps.log"
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.01)
            assert driver.poll() is None
        processes = of_ray(torn)
        places = listening(processes)
        assert any("gcs_server" in command for command in processes.values())
        assert places <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
        driver.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while alive := [pid for pid in processes if Path(f"/proc/{pid}/exe").exists()]:  # of a zombie there is none
        assert time.monotonic() < until, [processes[pid] for pid in alive]
        time.sleep(0.1)
    assert set(Path("/dev/shm").iterdir()) <= before
    subprocess.run([sys.executable, "-c", PROGRAM, str(torn), "ray"], check=True)
    assert files_in(torn) == files_in(home / "whole")
    assert 16 <= len(log.read_text().splitlines()) <= 18
