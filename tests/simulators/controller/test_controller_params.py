"""What policies are told of the plant, and that the oracle drives the real data centers with it."""

import pytest

from cosim.agents.fleet import learned
from cosim.agents.fleet.policies import POLICIES
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.params import validate
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.equations import crac, inlet_factor
from cosim.simulators.aidc.plant.cooling import TABLE2
from cosim.simulators.controller.params import ControllerParams, energy_of
from cosim.trace import Trace

CLASSES = {"llm": {"kind": "train", "work_to": 6.91e8, "deadline_s": "12h", "to_per_gpu_min": 6e4, "kw_per_to_s": 7e-4}}
SITES = {"aidc1": {"node": 8, "idle_kw": 80.0}, "aidc2": {"node": 28}}


def energy(**cooling):
    return energy_of(validate(ControllerParams, {"job_classes": CLASSES, "sites": SITES, **cooling}, "controller"))


def test_a_site_draws_what_its_plant_says():
    usual, printed = energy(), energy(cooling="table2")
    assert usual.busy_kw_per_gpu == [pytest.approx(0.7)]  # 7e-4 kW/(TO/s) x 6e4 TO/min / 60
    assert usual.idle_kw == [80.0, 100.0]
    # 380 kW at COP 2.8052 (18 degC) or 4.2392 (23 degC), and a tower of at most 6 kW
    for supply_degc, cop in ((18.0, 2.8052), (23.0, 4.2392)):
        tower_kw = usual.site_kw(0, 380.0, supply_degc) - 380.0 - 380.0 / cop
        assert 3.8 < tower_kw < 5.3
    assert printed.site_kw(1, 300.0, 20.0) == pytest.approx(300.0 + crac(300.0, 20.0, TABLE2).cooling_kw)


def test_what_it_reckons_is_what_the_data_centers_draw(tmp_path):
    """Two hours of warm servers: its set point lies inside the box, and in every minute the power is as reckoned."""
    warm = {"server_leakage_per_k": 0.003, "server_fan_ratio": 0.08, "server_fan_speed_per_k": 0.06,
            "loss_linear_ratio": 0.03}
    scenario = override(find("two_bus"), {"controller.policy": "myopic_oracle", "aidc.cooling": warm,
                                          "controller.cooling": warm, "until_s": 7200.0})
    result = Experiment(scenario, "native", out=tmp_path / "run.h5").run()
    given = result.resolved.params["controller"]
    model = energy_of(given)
    with Trace(tmp_path / "run.h5") as trace:
        p_kw, it_kw, supply = (trace[f"aidc/Site/{name}"][:, 0] for name in ("p_kw", "it_kw", "supply_temp_degc"))
    assert 18.0 < supply.min() <= supply.max() < 23.0
    for drawn, it, t in zip(p_kw, it_kw, supply, strict=True):
        plain = it / inlet_factor(t, given.cooling)  # leakage and fans are in the trace's IT power
        assert drawn == pytest.approx(model.site_kw(0, plain, t), rel=2e-3)


def test_validating_makes_no_policy(monkeypatch):
    """A rule is made when the run starts, and a trained team's file is read once for both, unless it changes."""
    made = []

    class Counted(POLICIES["uniform"]):
        def __init__(self, *args):
            made.append("rule")
            super().__init__(*args)

    class Read(learned.ActingTeam):
        def __init__(self, path):
            made.append("file")
            super().__init__(path)

    monkeypatch.setitem(POLICIES, "uniform", Counted)
    monkeypatch.setattr(learned, "ActingTeam", Read)
    learned._read_team.cache_clear()
    for policy, expected in (("uniform", ["rule"]), ("ieee33_mat", ["file"])):
        scenario = override(find("ieee33"), {"controller.policy": policy})
        resolve(scenario)
        assert made == [x for x in expected if x == "file"]
        Experiment(scenario, "native", until_s=60.0).run()
        assert made == expected
        made.clear()


@pytest.mark.parametrize("explore", [False, True])
def test_a_checkpoint_that_does_not_fit_is_refused_before_the_start(explore):
    with pytest.raises(ScenarioError, match="does not fit this scenario: it was trained in joint mode"):
        resolve(override(find("ieee33"), {"controller.mode": "power", "controller.explore": explore,
                                          "grid.lambda_kw_per_kg_h": 0.0}))
