"""Members that are not in this process, and one more that nobody here wrote; all real, on the loopback address."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from worlds import run

from cosim.errors import CosimError
from cosim.run import find
from cosim.run import main as run_main
from cosim.scenario import Member
from cosim.serve import main as serve
from cosim.trace import Trace
from cosim.trace.compare import first_difference

SERVE = "%(python)s -m cosim.serve cosim.simulators.grid.adapter:CefDispatch %(addr)s"


def ieee33_with(simulator):
    """The study with its grid started another way."""
    scenario = find("ieee33")
    elsewhere = {"simulator": simulator, "adapter": True, "shared": ("network", "sites"), "timeout_s": 300.0}
    grid = scenario.members["grid"].model_copy(update=elsewhere)
    return scenario.replace(members={**scenario.members, "grid": grid})


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    return run(find("ieee33"), tmp_path_factory.mktemp("near") / "t.h5", until_s=2700.0).path


@pytest.mark.long
def test_the_grid_as_a_process_gives_the_same_bytes(tmp_path, near):
    far = run(ieee33_with(f"cmd: {SERVE}"), tmp_path / "t.h5", "mosaik", until_s=2700.0).path
    assert first_difference(near, far) is None


def free_port():
    """A socket bound to a port on which nobody listens."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    return probe


def reached(scenario, out):
    """The run's trace; None while the server has its port not open yet."""
    try:
        return run(scenario, out, "mosaik", until_s=2700.0).path
    except CosimError:
        return None


@pytest.mark.long
def test_the_grid_as_a_server_gives_the_same_bytes(tmp_path, near):
    for _ in range(10):  # a port that is free now may be somebody's when the server opens it
        with free_port() as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
            with pytest.raises(CosimError, match="member 'grid'.*nobody answers at"):
                run(ieee33_with(f"connect: {address}"), None, "mosaik", until_s=900.0)  # nobody listens there
        server = subprocess.Popen([sys.executable, "-m", "cosim.serve", "--remote",
                                   "cosim.simulators.grid.adapter:CefDispatch", address],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert "waits for a scenario" in server.stdout.readline()
            far = None
            while server.poll() is None and not far:
                far = reached(ieee33_with(f"connect: {address}"), tmp_path / "t.h5")
                time.sleep(0.1)
            if far:
                break
            assert "choose another address" in server.stderr.read()
        finally:
            if not far:
                server.kill()
                server.communicate()
    assert first_difference(near, far) is None
    assert server.wait(300) == 0


@pytest.mark.long(after=1)
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_mosaik_csv_as_the_price(tmp_path, driver):
    """A price that changes at its own times, from a package of somebody else."""
    table = tmp_path / "price.csv"
    table.write_text("Price\nDate,price_usd_per_kwh\n2026-01-01 00:00:00,0.10\n2026-01-01 00:20:00,0.25\n"
                     "2026-01-01 00:30:00,0.05\n")
    study = find("ieee33")
    tariff = Member(simulator="mosaik_csv:CSV", step_s=60, entities={"Price": {}},
                    params={"sim_start": "2026-01-01 00:00:00", "datafile": str(table)})
    links = tuple(link for link in study.links if "forecast" not in link.source)
    scenario = study.replace(members={**study.members, "tariff": tariff}, links=links)
    result = run(scenario, tmp_path / f"{driver}.h5", driver, until_s=2400.0)
    with Trace(result.path) as trace:
        assert trace.time_s("tariff/Price").tolist() == [0, 1200, 1800]
        assert trace["tariff/Price/price_usd_per_kwh"][:, 0].tolist() == [0.10, 0.25, 0.05]


PLUG_JS = Path(__file__).parents[2] / "examples" / "plug_grid.js"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js (node)")
def test_a_grid_in_another_language_by_the_command_it_says(tmp_path, monkeypatch, capsys):
    """Its bus sees the base load and the sites' powers of the interval before; hydro first (2000 kW, 0.02 kg/kWh), then
    gas (0.45): the intensity is their mean, here worked out from the trace."""
    command = re.search(r"cosim run (.*)", PLUG_JS.read_text()).group(1)
    monkeypatch.chdir(PLUG_JS.parents[1])
    out = tmp_path / "t.h5"
    rule = ["--set", "controller.policy=nci_priority"]
    assert run_main([*shlex.split(command), *rule, "--out", str(out), "--quiet"]) == 0
    with Trace(out) as trace:
        total = trace["profile/Load/p_kw"].sum(axis=1)
        total[0] += 3 * trace["aidc/Site/p_window_kw"][0].min()  # idle, all three alike
        total[1:] += trace["aidc/Site/p_window_kw"][14:-1:15].sum(axis=1)
        hydro = np.minimum(total, 2000.0)
        nci = (hydro * 0.02 + (total - hydro) * 0.45) / total
        assert trace["grid/Bus/nci_kg_per_kwh"] == pytest.approx(np.repeat(nci[:, None], 3, axis=1), rel=1e-12)
        assert nci.max() > 0.1, "gas is needed by day"
    assert run_main([*shlex.split(command), "--set", "grid.hydro_kw=many", "--out", str(tmp_path / "u.h5")]) == 3
    assert "member 'grid'" in (said := capsys.readouterr().err)
    assert "RangeError: hydro_kw = many must be a number > 0" in said


def test_serve_says_what_is_wrong(capsys):
    assert serve([]) == 2
    assert capsys.readouterr().err == ("cosim: the following arguments are required: PACKAGE.MODULE:CLASS, HOST:PORT; "
                                       "see cosim serve --help\n")
    assert serve(["no.such:Grid", "127.0.0.1:1"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
    assert serve(["json:JSONDecoder", "127.0.0.1:1"]) == 2
    assert "is no simulator" in capsys.readouterr().err
    assert serve(["boxes:Store", "nowhere"]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
    assert serve(["boxes:Store", "127.0.0.1:1"]) == 3
    assert "boxes:Store at 127.0.0.1:1" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(["--remote", "boxes:Store", f"127.0.0.1:{taken.getsockname()[1]}"]) == 3
    assert "choose another address" in capsys.readouterr().err
