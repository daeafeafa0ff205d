"""Somebody else's simulator in a member's place: other names, other units, from the command line."""

import pytest
from worlds import STORE_CMD, boxes, run

from cosim.errors import ScenarioError
from cosim.run import main
from cosim.scenario import Link, Member, Scenario, override, plug, rename
from cosim.trace import Trace


def town(simulator="boxes:Store", **member) -> Scenario:
    """Two feeders into two buses, by name."""
    return Scenario(name="town", about="t", until_s="5min", members={
        "load": Member(simulator="boxes:Source", step_s=60, entities={"Source": ["bus0", "bus1"]}),
        "grid": Member(simulator=simulator, step_s=60, **{"entities": {"Store": ["bus0", "bus1"]}, **member}),
        "meter": Member(simulator="boxes:Store", step_s=60, entities={"Store": ["bus0", "bus1"]})},
        links=[Link(source="load.p_kw", target="grid.p_kw"),
               Link(source="grid.p_seen_kw", target="meter.p_kw")])


def foreign(scenario):
    scenario = plug(scenario, "grid", "boxes:Foreign")
    return override(scenario, {"grid.entities": {"Bus": ["x", "y"]}, "grid.step_size": 1})


def test_names_and_units_follow_the_map(tmp_path):
    names = {"grid.p_kw": "P_load[MW]", "grid.p_seen_kw": "P_load[MW]", "grid.bus*": "Bus-*"}
    scenario = rename(foreign(town()), names)
    for driver in ("native", "mosaik"):
        with Trace(run(scenario, tmp_path / f"{driver}.h5", driver).path) as trace:
            assert trace["meter/Store/p_seen_kw"][:, 1] == pytest.approx([0, 1, 2, 3, 4], rel=1e-12)
            assert trace["grid/Bus/P_load[MW]"][:, 0] == pytest.approx([0, 1e-3, 2e-3, 3e-3, 4e-3], rel=1e-12)


def test_a_name_without_a_unit_takes_a_factor(tmp_path):
    """'@0.001' says: theirs = ours x 0.001, on the way in and on the way out."""
    names = {"grid.p_kw": "P_load[MW]@0.5", "grid.p_seen_kw": "P_load[MW]@0.25", "grid.bus*": "Bus-*"}
    with Trace(run(rename(foreign(town()), names), tmp_path / "t.h5").path) as trace:
        assert trace["grid/Bus/P_load[MW]"][2, 0] == pytest.approx(2 * 0.5)
        assert trace["meter/Store/p_seen_kw"][2, 0] == pytest.approx(2 * 0.5 / 0.25)


@pytest.mark.parametrize(("names", "says"), [
    ({"grid.p_kw": "P_load[MW]"}, "unknown target entity 'bus0'"),
    ({"grid.p_kw": "Vm[pu]", "grid.bus*": "Bus-*"}, "the two must measure the same thing"),
    ({"grid.p_kw": "P_lod[MW]", "grid.bus*": "Bus-*"}, "did you mean 'P_load[MW]'?"),
    ({"grid.p_kw": "P_load[MW]@zero"}, "a factor is a number, and not 0"),
    ({"grd.p_kw": "P"}, "unknown member 'grd'; did you mean 'grid'?"),
    ({"grid": "P"}, "write member.port=theirs"),
])
def test_a_map_that_does_not_fit_says_why(names, says):
    with pytest.raises(ScenarioError) as err:
        run(rename(foreign(town()), names), None)
    assert says in str(err.value)


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "town.py").write_text("from test_plug import town\nSCENARIO = town()\n")
    arguments = ["town.py", "--use", "grid=boxes:Foreign", "--set", 'grid.entities={"Bus": ["x", "y"]}', "--set",
                 "grid.step_size=1", "--map", "grid.p_kw=P_load[MW]", "--map", "grid.p_seen_kw=P_load[MW]", "--map",
                 "grid.bus*=Bus-*", "--out", "t.h5", "--driver", "native"]
    assert main(arguments) == 0
    with Trace("t.h5") as trace:
        assert trace["meter/Store/p_seen_kw"][4, 0] == pytest.approx(4)
    capsys.readouterr()
    assert main(["town.py", "--use", "gird=boxes:Foreign"]) == 2
    assert "did you mean 'grid'?" in capsys.readouterr().err


def test_models_that_the_new_one_lacks_are_left_out(tmp_path, capsys):
    """The study's grid has a summary beside its buses; one that has buses alone takes its place as it is."""
    (tmp_path / "town.py").write_text(
        "from test_plug import town\n"
        "SCENARIO = town(entities={'Store': ['bus0', 'bus1'], 'Summary': ['grid']})\n")
    town_py, out = str(tmp_path / "town.py"), str(tmp_path / "t.h5")
    assert main([town_py, "--use", "grid=boxes:Store", "--out", out, "--driver", "native"]) == 0
    with Trace(out) as trace:
        assert trace.models() == ["load/Source", "grid/Store", "meter/Store"]
    capsys.readouterr()
    there = ["--use", f"grid={STORE_CMD}", "--set", "grid.adapter=true", "--out", out, "--force", "--quiet"]
    assert main([town_py, *there]) == 2
    assert "it has no model 'Summary'; if it needs none, --set grid.entities.Summary=[]" in capsys.readouterr().err
    assert main([town_py, *there, "--set", "grid.entities.Summary=[]"]) == 0


def test_plugging_keeps_the_rest_as_it_was():
    before = boxes()
    after = plug(before, "grid", "boxes:Store")
    assert after.members["grid"].params == {}
    assert {n: m for n, m in after.members.items() if n != "grid"} == {n: m for n, m in before.members.items() if
                                                                       n != "grid"}


@pytest.mark.parametrize(("settings", "says"), [
    ({"grid.step_size": float("nan")}, "grid.step_size = nan: a parameter is a finite number"),
    ({"grid.curve": [1.0, {"a": float("-inf")}]}, "grid.curve.1.a = -inf"),
    ({"grid.entities": {"Bus": {"vn_kv": float("nan")}}}, "grid.entities.Bus.vn_kv = nan"),
])
def test_a_foreign_simulator_is_given_no_nan(settings, says):
    with pytest.raises(ScenarioError) as err:
        run(override(foreign(town()), settings), None)
    assert says in str(err.value)


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_simulator_of_another_role_says_which_models_it_has(driver):
    with pytest.raises(ScenarioError, match="no model 'Store'|unknown model of Source 'Store'; .*allowed: Source"):
        run(town("boxes:Source"), None, driver)
