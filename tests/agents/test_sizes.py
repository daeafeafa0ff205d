"""Any number of sites: a team is made, learns, runs, and is refused where there are others or another mode."""

import json

import pytest

from cosim.agents.learn.checkpoint import LAST, LOG
from cosim.agents.train import main as train
from cosim.run import main as run

TINY = ["--updates", "1", "--envs", "1", "--workers", "0", "--set", "learn.rollout_steps=2", "--set", "learn.twins=1",
        "--set", "learn.width=8"]
POWER = ["--set", "controller.mode=power", "--set", "grid.lambda_kw_per_kg_h=0"]


def learn(tmp_path, scenario, method, mode, *more):
    out = tmp_path / f"{scenario}-{mode}"
    assert train([scenario, "--method", method, "--mode", mode, *TINY, *more, "--out", str(out)]) == 0
    line = json.loads((out / LOG).read_text())
    assert (line["update"], line["steps"]) == (1, 2)
    return str(out / LAST)


def ran(tmp_path, capsys, scenario, checkpoint, *settings):
    asked = ["--set", f"controller.policy={checkpoint}", *settings, "--out", str(tmp_path / "run.h5"), "--force"]
    code = run([scenario, "--driver", "native", "--until", "2min", "--quiet", *asked])
    return code, capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(("n", "other", "method", "mode"), [(4, 5, "mat", "joint"), (5, 4, "mappo", "power")])
@pytest.mark.rows("X13", "Z08")
def test_a_team_of_any_size_learns_runs_and_is_refused_elsewhere(tmp_path, capsys, n, other, method, mode):
    team = learn(tmp_path, f"ieee33_{n}", method, mode)
    capsys.readouterr()
    same, opposite = ([], POWER) if mode == "joint" else (POWER, [])
    assert ran(tmp_path, capsys, f"ieee33_{n}", team, *same) == (0, "")
    code, said = ran(tmp_path, capsys, f"ieee33_{other}", team, *same)
    theirs, here = (", ".join(["manager", *(f"aidc{k + 1}" for k in range(sites))]) for sites in (n, other))
    assert code == 2
    assert f"it has the agents {theirs}, here are {here}." in said
    code, said = ran(tmp_path, capsys, f"ieee33_{n}", team, *opposite)
    assert code == 2
    assert f"it was trained in {mode} mode, this is {'power' if mode == 'joint' else 'joint'} mode" in said


@pytest.mark.rows("Z08")
def test_a_site_more_is_a_setting(tmp_path, capsys):
    """Two sites and their manager on two_bus, which has one: no scenario has to be written for a size."""
    more = ["--set", "shared.sites.aidc2.node=1"]
    checkpoint = learn(tmp_path, "two_bus", "mat-dec", "joint", *more)
    assert ran(tmp_path, capsys, "two_bus", checkpoint, *more)[0] == 0
    code, said = ran(tmp_path, capsys, "two_bus", checkpoint)
    assert code == 2
    assert "it has the agents manager, aidc1, aidc2, here are manager, aidc1." in said
