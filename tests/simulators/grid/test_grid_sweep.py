"""Fig. 11(b)'s lambda sweep (P06): what rises, what falls, and that the threshold moves with the load."""

import numpy as np
import pytest

from cosim.simulators.analysis.lambda_sweep import main, sweep
from cosim.simulators.grid.dispatch.optimal_power_flow import Source
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.params import GridParams
from cosim.simulators.profile import ProfileParams

FLAT = ProfileParams(shape=(1.0,) * 96)


@pytest.mark.rows("E11", "K08", "P06", "X12")
def test_a_threshold_by_hand():
    # One line of r = 0.02 p.u. with 500 kW x load at its end and a turbine there, dearer in carbon by 0.6 kg/kWh: it
    # gives way from lambda x 0.6 = d loss / dP on, which is 2 r P to first order: lambda = P / 15, P in MW.
    net = LineList(base_kv=10.0, lines=(Line(0, 1, 2.0, 0.0),), loads=(BaseLoad(1, 500.0),))
    sources = {"up": Source(0, 0.3), "gt": Source(1, 0.9, 0.0, 1000.0, 0.0, 0.0)}
    lambdas = tuple(np.linspace(0.0, 0.1, 11))
    got = sweep(GridParams(sources=sources, network=net), FLAT, 0.0, lambdas, (0.5, 1.0, 2.0))
    # At lambda the line carries up to 15 lambda MW: a tenth of the saving is a tenth of the load on the line.
    assert got.thresholds() == pytest.approx([0.1 * p / 15 for p in (0.25, 0.5, 1.0)], rel=0.1)
    assert got.flagged == 0
    # At the last lambda all comes by the line: 24 h x (P + loss) x 0.3.
    assert got.emission_t[:, -1] == pytest.approx(24 * 0.3 * (np.array([0.25, 0.5, 1.0]) + got.loss_mwh[:, -1] / 24))


@pytest.mark.rows("X12")
def test_ieee33_by_one_command(capsys):
    assert main(["ieee33", "--lambda", "0,0.1,1", "--mean", "0.5,1"]) == 0
    out = capsys.readouterr().out.splitlines()
    rows = np.array([[float(v) for v in line.split()] for line in out[2:5]])
    assert rows[:, 0].tolist() == [0.0, 0.1, 1.0]
    assert (np.diff(rows[:, [1, 3]], axis=0) > 0.0).all()  # J1 of both levels
    assert (np.diff(rows[:, [2, 4]], axis=0) < 0.0).all()  # J2
    light, heavy = (float(v) for v in out[5].split()[1:])
    assert 0.0 < light < heavy < 1.0


def test_wrong_requests_are_named(capsys):
    assert main(["intensity_series"]) == 2
    assert "has no CefDispatch to sweep" in capsys.readouterr().err
    assert main(["ieee33", "--lambda", "-1"]) == 2
    assert main(["ieee33", "--figure", "sweep.gif"]) == 2
    assert "'sweep.gif' must end in .png, .svg, .pdf" in capsys.readouterr().err


def test_the_figure_has_a_curve_per_load_level(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    path = tmp_path / "sweep.svg"
    assert main(["two_bus", "--lambda", "0,0.1,1", "--mean", "0.5,1", "--figure", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"figure: {path}\n")
    drawn = path.read_text()
    for word in ("mean load 0.5", "mean load 1", "losses, MWh per day", "emission, t per day", "lambda, kW per kg/h"):
        assert word in drawn
