"""Gurobi's licence as it meets a user: what it allows, when it has ended, and what takes over."""

import os
import subprocess
import sys

import pytest

from cosim.simulators.grid.dispatch.gurobi_solver import FREE_LICENCE_VARIABLES
from cosim.trace import Trace

gurobipy = pytest.importorskip("gurobipy")
ENDED = "TYPE=PIP\nVERSION=13\nEXPIRATION=2020-01-01\nKEY=AAAAAAAA\nCKEY=AAAAAAAA\n"


def run(tmp_path, *settings):
    """15 min of two_bus where Gurobi's licence has ended: (exit code, what was said, trace)."""
    (tmp_path / "gurobi.lic").write_text(ENDED)
    out = tmp_path / "out.h5"
    done = subprocess.run(
        [sys.executable, "-m", "cosim.run", "two_bus", "--until", "15min", "--driver", "native", "--out", str(out),
         *settings], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "GRB_LICENSE_FILE": str(tmp_path / "gurobi.lic")})
    return done.returncode, done.stdout + done.stderr, out


@pytest.mark.long
def test_where_the_licence_has_ended_clarabel_takes_over_and_a_note_says_why(tmp_path):
    code, said, out = run(tmp_path)
    assert code == 0, said
    note = ("grid: clarabel in Gurobi's place, as solver = auto allows: Gurobi does not run here: License expired "
            "2020-01-01")
    assert note in said
    with Trace(out) as trace:
        assert note in trace.attrs["notes"]


def test_who_insists_on_gurobi_is_told_what_to_do(tmp_path):
    code, said, _ = run(tmp_path, "--set", "grid.solver=gurobi")
    assert code == 4
    assert "License expired 2020-01-01; use --set grid.solver=clarabel, which has no such limit" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("variables", "cones", "allowed"), [
    (FREE_LICENCE_VARIABLES, 1, True), (FREE_LICENCE_VARIABLES + 1, 1, False), (2000, 0, True), (2001, 0, False)])
def test_what_the_licence_of_pip_allows(variables, cones, allowed):
    """What docs and error messages say of it is what this version of gurobipy does."""
    with gurobipy.Env(params={"OutputFlag": 0}) as env, gurobipy.Model(env=env) as model:
        if model.LicenseExpiration > 21_000_000:
            pytest.skip("this machine has a licence without an end, and so without these limits")
        x = model.addVars(variables)
        for _ in range(cones):
            model.addQConstr(x[0] * x[0] <= 1.0)
        if allowed:
            model.optimize()
            assert model.Status == gurobipy.GRB.OPTIMAL
            return
        with pytest.raises(gurobipy.GurobiError) as failed:
            model.optimize()
        assert failed.value.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED
