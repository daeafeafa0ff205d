"""The examples do what they say: their figures are those of our own code, their rules hold in the trace."""

import importlib.util
import math
from pathlib import Path

import pytest

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.metrics import site_figures
from cosim.trace import Trace

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def module(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    path = tmp_path_factory.mktemp("hour") / "hour.h5"
    Experiment(find("ieee33"), "native", 3600.0, path).run()
    return path


@pytest.mark.long
def test_own_grid_is_clean_as_far_as_the_sun_reaches(tmp_path):
    """At noon 800 kW of sun (3000 x 0.8 / 3) meet the feeder's load; what is left is at 0.8 kg/kWh."""
    few = {"controller.policy": "uniform", "workload.rate_scale": 0.1}
    scenario = override(find(str(EXAMPLES / "own_grid.py")), {"grid.sun_kw": 800, **few})
    Experiment(scenario, "native", 12.25 * 3600.0, tmp_path / "sun.h5").run()
    with Trace(tmp_path / "sun.h5") as trace:
        at = list(trace.time_s("grid/Bus")).index(12 * 3600)
        nci = trace["grid/Bus/nci_kg_per_kwh"][at]
        midnight = trace["grid/Bus/nci_kg_per_kwh"][0]
        base = trace["profile/Load/p_kw"][list(trace.time_s("profile/Load")).index(12 * 3600)].sum()
        # what the grid was given at noon: the base load and each site's mean of the 15 minutes before
        sites = trace["aidc/Site/p_window_kw"][list(trace.time_s("aidc/Site")).index(12 * 3600 - 60)].sum()
    assert midnight == pytest.approx([0.8] * 33)
    assert nci == pytest.approx([0.8 * (1.0 - 800.0 / (base + sites))] * 33)


@pytest.mark.rows("U17")
def test_own_policy_sends_a_minute_to_one_site_the_cleanest_with_room(tmp_path, monkeypatch):
    """What a dispatch says of carbon stands for its fifteen minutes (U17)."""
    monkeypatch.syspath_prepend(EXAMPLES)
    scenario = override(find("ieee33"), {"controller.policy": "own_policy:CleanestFree"})
    Experiment(scenario, "native", 5400.0, tmp_path / "p.h5").run()
    with Trace(tmp_path / "p.h5") as trace:
        sent = trace["controller/Agent/site_share"].max(axis=2)
        free = trace["aidc/Site/free_gpu_ratio"]
        nci = trace["grid/Bus/nci_kg_per_kwh"][:, [8, 28, 32]].repeat(15, axis=0)
    for minute in range(1, 90):
        clean = min(range(3), key=lambda i: (free[minute - 1, i] < 0.05, nci[minute, i]))
        assert sent[minute].tolist() == [float(i == clean) for i in range(3)]


@pytest.mark.long
def test_reading_with_xarray_gives_the_figures_of_the_summary(hour):
    account = module("read_trace").account(str(hour))
    with Trace(hour) as trace:
        figures = site_figures(trace)
    assert list(account["entity"].values) == [f.name for f in figures]
    assert account["energy_kwh"].values == pytest.approx([f.energy_kwh for f in figures])
    assert account["cost_usd"].values == pytest.approx([f.cost_usd for f in figures])
    assert account["co2_kg"].values == pytest.approx([f.co2_kg for f in figures])


@pytest.mark.rows("I31", "K03", "Z04")
def test_the_two_accounts_part_ways_with_all_turbines_at_a_limit(capsys):
    """Z04, I31: the substation's 0.30 kg/kWh is then what a kW more or less makes, here or there, and losses aside a
    move saves nothing; with a turbine free at 0.90 it saves up to 100 kW x (0.90 - 0.30)."""
    module("average_or_marginal").main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "change" in line]
    changes = [[float(kg) for kg in words[1:]] for words in lines]
    (own_at_limits, system_at_limits), (own_free, system_free) = changes
    assert own_at_limits < -20
    assert math.isclose(system_at_limits, 0.0, abs_tol=0.5)
    assert own_free < -20
    assert -100 * (0.90 - 0.30) < system_free < -20


@pytest.mark.rows("Z04")
def test_a_living_day_has_hours_of_each_kind(capsys):
    """By night both intensities name a move that lowers both accounts; at 16 h the move by NCI lowers the books alone;
    at 18 h it raises what is emitted, where the move by MCI lowers it."""
    module("living_moves").main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    at = {int(words[0]): (float(words[10]), float(words[11]), float(words[15]), float(words[16])) for words in lines}
    by_nci, system_nci, _, system_mci = at[2]
    assert max(by_nci, system_nci) < -15.0
    assert system_mci == system_nci
    assert at[16][0] < -20.0
    assert abs(at[16][1]) < 2.0
    assert at[18][1] > 10.0
    assert at[18][3] < -10.0
