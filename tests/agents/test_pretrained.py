"""The teams that ship: they run their scenarios on numpy alone, and say how they were made."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cosim.agents.learn.numpy_actor import ActingTeam
from cosim.agents.pretrained import shipped
from cosim.agents.pretrained.__main__ import main
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override


def test_what_ships_is_small_and_told():
    for name, path in shipped().items():
        assert path.stat().st_size < 2e6
        facts = json.loads(path.with_suffix(".json").read_text())
        weights = ActingTeam(path).weights.values()
        assert facts["made"]["parameters"] == sum(w.size for w in weights), name
        assert f"--seed {facts['made']['seed']} " in facts["made"]["command"]
        assert len(facts["curve"]) > 5
        assert len(facts["evaluation"]["rows"][0]) == 1 + len(facts["evaluation"]["policies"])


@pytest.mark.parametrize("name", shipped())
def test_each_steers_the_scenario_that_it_learned_on(name):
    scenario = json.loads(shipped()[name].with_suffix(".json").read_text())["made"]["scenario"].split(",")[0]
    result = Experiment(override(find(scenario), {"controller.policy": name}), "native", 120.0).run()
    assert any(f"from {name}.safetensors" in note for note in result.notes)


def test_the_default_scenario_is_steered_by_it(tmp_path):
    result = Experiment(find("ieee33"), "native", 900.0, tmp_path / "run.h5").run()
    assert any("policy mat from ieee33_mat.safetensors" in note for note in result.notes)


def test_it_needs_no_torch(tmp_path):
    """Two minutes of the default scenario in a fresh process, which then knows no torch."""
    program = ("import sys; from cosim.run import main; "
               f"code = main(['ieee33', '--until', '2min', '--quiet', '--out', {str(tmp_path / 'run.h5')!r}]); "
               "sys.exit(code or 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_power_mode_is_refused_with_what_to_do():
    with pytest.raises(Exception, match="trained in joint mode, this is power mode"):
        Experiment(override(find("ieee33"), {"controller.mode": "power"}), "native", 60.0).run()


def test_the_command_shows_it(capsys):
    assert main(["ieee33_mat"]) == 0
    said = capsys.readouterr().out
    assert "cosim.agents.train ieee33 --method mat" in said
    assert "PUE" in said
    assert "not carbon-aware; price-aware" in said
    assert main(["ieee33_power_mat"]) == 0  # sees no carbon: there is nothing to probe
    assert "Probed" not in capsys.readouterr().out
    assert main(["ieee33_living_mat"]) == 0
    assert "carbon-aware (routes by nci)" in capsys.readouterr().out
    assert main(["nobody"]) == 2


@pytest.mark.rows("T09", "Z02")
def test_the_team_that_ships_is_not_decentralised():
    """What one site sees moves what the others do: a run needs all observations in one place."""
    for path in shipped().values():
        team = ActingTeam(path)
        shape = (1, len(team.spec.agents), team.spec.widths[0])
        context = np.zeros((*shape[:2], team.spec.widths[1]), np.float32)
        seen = [np.zeros(shape, np.float32) for _ in range(2)]
        seen[1][0, -1] = 1.0
        actions = []
        for observation in seen:
            decoding = team.begin(observation)
            decoding.lead()
            actions.append(decoding.follow(context).action[0])
        moved = np.abs(actions[0] - actions[1]).max(axis=1)
        assert team.method == "mat"
        decides = [team.frozen(k) is None for k in range(len(moved))]  # the shares of S-MAT's manager are fixed
        assert (moved[decides] > 1e-6).all()
        assert sum(decides) >= 3
