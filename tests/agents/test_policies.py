"""A policy by its name: a rule, a team that ships, a checkpoint's path, a class of one's own; or one line that says why
not, before anything else is said."""

import json

import numpy as np
import pytest

from cosim.agents.evaluate import main as evaluate
from cosim.agents.fleet.policies import POLICIES, check_own, checkpoint_of
from cosim.agents.learn import checkpoint
from cosim.agents.pretrained import shipped
from cosim.errors import ScenarioError
from cosim.run import main as run


def test_a_name_is_a_rule_a_team_that_ships_or_a_path(tmp_path, monkeypatch):
    path = tmp_path / "team.safetensors"
    checkpoint.write(path, {"x": np.zeros(1)}, {})
    assert checkpoint_of(str(path)) == path
    assert checkpoint_of("ieee33_mat") == shipped()["ieee33_mat"]
    assert all(checkpoint_of(name) is None for name in (*POLICIES, "nobody", "", "package.module:Class"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uniform").write_text("a file called like a rule")
    assert checkpoint_of("uniform") is None


@pytest.mark.parametrize(("policy", "message"), [
    ("there/is/none", "there is no checkpoint at this path"),
    ("none.safetensors", "there is no checkpoint at this path"),
    ("notes.txt", "is no checkpoint; the name of one ends in .safetensors"),
    ("empty", "is a folder; name a checkpoint .* in it, there is none"),
    ("training", "in it: training/last.safetensors"),
])
def test_a_path_without_a_checkpoint_says_what_is_there(tmp_path, monkeypatch, policy, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    checkpoint.write(tmp_path / "training" / checkpoint.LAST, {"x": np.zeros(1)}, {})
    with pytest.raises(ScenarioError, match=message):
        checkpoint_of(policy)


def test_a_class_of_ones_own_has_what_a_policy_has():
    check_own("mine:Policy", POLICIES["uniform"])
    for other, why in ((json.dumps, "it is no class"), (dict, "it has no place, operate, needs_nci")):
        with pytest.raises(ScenarioError, match=f"policy 'mine:Other' is none: {why}"):
            check_own("mine:Other", other)


@pytest.mark.parametrize(("settings", "said"), [
    (["controller.policy=nci_prioritty"], "unknown policy 'nci_prioritty'; did you mean 'nci_priority'? allowed: "
     "carbon_time, ieee33_4_mat, ieee33_5_mat,"),
    (["controller.policy=no/such.safetensors"], "policy 'no/such.safetensors': there is no checkpoint at this path"),
    (["controller.policy=no_such_module:Policy"], "controller.policy 'no_such_module:Policy' cannot be imported"),
    (["controller.policy=static"], "policy static needs one weight >= 0 per site (3)"),
    (["controller.policy=nci_priority", "controller.mode=power"], "policy nci_priority decides by carbon intensity"),
    (["controller.mode=power"], "it was trained in joint mode, this is power mode"),
    (["controller.mode=power"], "power mode also needs lambda_kw_per_kg_h=0 of the grid"),
    (["controller.mode=power", "controller.policy=uniform"], "weighs it by grid.lambda_kw_per_kg_h: "
     "--set grid.lambda_kw_per_kg_h=0, or leave controller.mode at joint"),
    (["controller.mode=power", "controller.policy=uniform", "grid.lambda_kw_per_kg_h=0",
      'grid.nci_cap_kg_per_kwh={"bus8": 0.4}'], "--set grid.nci_cap_kg_per_kwh={}"),
])
@pytest.mark.rows("B08")
def test_a_run_refuses_in_one_line_before_it_says_anything(capsys, tmp_path, settings, said):
    trace = tmp_path / "run.h5"
    assert run(["ieee33", *[f"--set={s}" for s in settings], "--out", str(trace)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cosim: ")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not trace.exists()


@pytest.mark.parametrize(("argv", "said"), [
    (["nci_prioritty"], "unknown policy 'nci_prioritty'"),
    (["--days", "nan"], "--days nan"),
    (["--out", "no/such/folder/x.json"], "there is no folder no/such/folder"),
    (["--out", "x.xlsx"], "must end in .csv, .parquet, .tex, .json"),
    (["--open-loop", "--scenario", "ieee33", "--set", "x=1"], "x"),
    (["--scenario", "ieee3"], "unknown scenario 'ieee3'; did you mean 'ieee33'"),
])
def test_everything_is_looked_at_before_the_first_policy_is_evaluated(capsys, argv, said):
    assert evaluate(["uniform", *argv]) == 2
    assert said in capsys.readouterr().err
