"""Training and sweeping on a grid of one's own, in every mode; and what a received run may not start."""

import json
from pathlib import Path

import numpy as np
import pytest

from cosim.agents.evaluate import main as evaluate
from cosim.agents.request import checked, refuse_strangers, scenario_of, written
from cosim.agents.train import main
from cosim.campaign.cells import files_of
from cosim.campaign.sweep import run_sweep
from cosim.errors import ScenarioError
from cosim.learning.environment import vector_env

OWN = f"{Path(__file__).parents[2] / 'examples' / 'own_grid.py'}:SunGrid"


def request(scenario="two_bus", **changes):
    return checked({"scenario": scenario, "learn": {}, "settings": {}, "seed": 0, "envs": 2, **changes}, "request")


def test_power_mode_has_no_weight_of_carbon_where_the_grid_has_none():
    own, ours = (scenario_of(request(mode="power", use=use)) for use in ({"grid": OWN}, {}))
    assert [s.members["controller"].params["mode"] for s in (own, ours)] == ["power", "power"]
    assert "lambda_kw_per_kg_h" not in own.members["grid"].params
    assert ours.members["grid"].params["lambda_kw_per_kg_h"] == 0
    set_ = request(mode="power", settings={"grid.lambda_kw_per_kg_h": "0.3"})
    assert scenario_of(set_).members["grid"].params["lambda_kw_per_kg_h"] == 0.3
    assert scenario_of(request(mode="joint", use={"grid": OWN})).members["controller"].params["mode"] == "joint"


@pytest.mark.parametrize("mode", ["joint", "power"])
def test_environments_of_both_modes_step_on_it(mode):
    """In joint mode the grid's intensity is observed: a dirtier one looks different; in power mode it is not."""
    seen = []
    for dirty in ("0.3", "0.6"):
        made = scenario_of(request(mode=mode, use={"grid": OWN}, settings={"grid.dirty_kg_per_kwh": dirty}))
        worlds = vector_env(made, n_envs=2, workers=0)
        try:
            worlds.reset()
            action = np.full((2, len(worlds.spec.agents), worlds.spec.widths[2]), 0.5, np.float32)
            seen.append(worlds.step(action).observation)
        finally:
            worlds.close()
    assert np.isfinite(seen[0]).all()
    assert np.array_equal(*seen) == (mode == "power")


@pytest.mark.long
def test_policies_are_compared_on_it(tmp_path):
    """At night the sun gives nothing: twice the intensity of what is dirty is twice the attributed carbon."""
    emitted = []
    for dirty in ("0.3", "0.6"):
        out = tmp_path / f"{dirty}.json"
        assert evaluate(["uniform", "--scenario", "two_bus", "--use", f"grid={OWN}", "--set",
                         f"grid.dirty_kg_per_kwh={dirty}", "--set", "grid.sun_kw=40", "--seeds", "1", "--days", "0.004",
                         "--jobs", "1", "--out", str(out)]) == 0
        emitted.append(json.loads(out.read_text())["metrics"]["uniform"][0]["co2_t"])
    assert emitted[0] > 0.0
    assert emitted[1] == pytest.approx(2.0 * emitted[0], rel=1e-9)


def test_a_team_is_trained_on_it_and_a_received_run_of_it_asks_first(tmp_path, capsys):
    pytest.importorskip("torch", reason="needs the extra 'learn' (torch)")
    out = tmp_path / "run"
    asked = ["two_bus", "--use", f"grid={OWN}", "--set", "grid.sun_kw=40", "--mode", "power", "--envs", "2",
             "--workers", "0", "--out", str(out)]
    assert main([*asked, "--updates", "1"]) == 0
    capsys.readouterr()
    assert main(["--resume", str(out), "--updates", "1"]) == 2
    said = capsys.readouterr().err
    assert "nothing of it was run" in said
    assert "grid.simulator" in said
    assert main(["--resume", str(out), "--updates", "1", "--workers", "0", "--trust", str(out)]) == 0
    assert main(["--resume", str(out), "--use", f"grid={OWN}"]) == 2
    assert "leave out use" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [
    {"use": {"grid": "spy.py:Grid"}}, {"use": {"grid": "./a.fmu"}}, {"use": {"grid": "helics: true %(broker)s"}},
    {"use": {"grid": "cosim.neighbours.helics_federate:HelicsMember"}, "settings": {
        "grid.federate": "cmd: touch ran %(broker)s"}},
    {"use": {"grid": "cosim.neighbours.fmu:FmuMember"}, "settings": {"grid.path": "evil.fmu"}},
    {"settings": {"controller.policy": "./spy.py:Policy"}}, {"settings": {"grid.x": '{"y": ["spy:Grid"]}'}},
])
def test_what_a_received_run_would_start_is_refused(tmp_path, changes):
    with pytest.raises(ScenarioError, match="nothing of it was run"):
        refuse_strangers(request(**changes), tmp_path, ())
    refuse_strangers(request(**changes), tmp_path, (), drawn=True)  # looked at: nothing of these is loaded
    assert written(request(**changes)).members["grid"].simulator.endswith(":CefDispatch")


@pytest.mark.long
def test_a_sweep_takes_it_and_a_changed_file_is_another_run(tmp_path):
    (tmp_path / "own.py").write_text("from own_grid import SunGrid as Base\nclass Sun(Base):\n    pass\n")
    (tmp_path / "own_grid.py").write_text(Path(OWN.rpartition(":")[0]).read_text())
    table = run_sweep("two_bus", use={"grid": f"{tmp_path / 'own.py'}:Sun"}, set={"grid.dirty_kg_per_kwh": [0.4, 0.8]},
                      until="15min", out=tmp_path / "sweep", progress=False)
    carbon = table[table["figure"] == "co2_attributed_kg"]["mean"].to_numpy()
    assert carbon[1] == pytest.approx(2 * carbon[0], rel=1e-9)  # at night all power is dirty
    named = f"{tmp_path / 'own.py'}:Sun"
    before = files_of({"simulator": named})
    (tmp_path / "own.py").write_text("from own_grid import SunGrid as Base\nclass Sun(Base):\n    '''Other.'''\n")
    assert before.keys() == files_of({"simulator": named}).keys() == {named}
    assert before != files_of({"simulator": named})
