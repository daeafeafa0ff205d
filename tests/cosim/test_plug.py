"""Somebody else's simulator in a member's place: other names, other units, from the command line."""

import sys

import pytest
from worlds import STORE_CMD, boxes, run

from cosim.check import main as check_main
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.imports import file_in, today
from cosim.run import find, main
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


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """A folder 'my grids' with a class in a file, another module beside it, and annotations that are texts."""
    folder = tmp_path / "my grids"
    folder.mkdir()
    (folder / "doubled.py").write_text("FACTOR = 2.0\n")
    (folder / "own.py").write_text(
        "from __future__ import annotations\nimport doubled\nfrom boxes import Store, StoreParams\n"
        "from cosim.params import params\nclass Twice(Store):\n    PARAMS = StoreParams\n"
        "    def advance(self, time_s, inputs):\n        out = super().advance(time_s, inputs)\n"
        "        return {e: {**v, 'p_seen_kw': doubled.FACTOR * v['p_seen_kw']} for e, v in out.items()}\n"
        "class _Hidden:\n    pass\nclass Thrice(Twice):\n    pass\n")
    (tmp_path / "town.py").write_text("from test_plug import town\nSCENARIO = town()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("spelt", ["my grids/own.py", "{folder}/own.py", "./my grids/../my grids/own.py"])
def test_a_class_in_a_file_takes_a_members_place(own_file, spelt, capsys):
    use = f"grid={spelt.format(folder=own_file)}:Twice"
    assert main(["town.py", "--use", use, "--driver", "native", "--quiet", "--out", "t.h5"]) == 0
    with Trace("t.h5") as trace:
        assert trace["meter/Store/p_seen_kw"][3, 0] == pytest.approx(2 * 3)
    assert check_main(["grid", spelt.format(folder=own_file) + ":Twice", "--scenario", "town.py"]) in (0, 1)
    assert "runs 8 steps in the place of 'grid'" in capsys.readouterr().out
    # what the user types is consent; a path in a trace is not
    assert main(["t.h5", "--quiet", "--out", "again.h5"]) == 2
    said = capsys.readouterr().err
    assert "nothing of it was run" in said
    assert "own.py:Twice" in said
    assert main(["t.h5", "--quiet", "--out", "again.h5", "--trust", "t.h5"]) == 0


@pytest.mark.parametrize(("use", "says"), [
    ("my grids/own.py:Twise", "unknown name in my grids/own.py 'Twise'; did you mean 'Twice'? allowed: Thrice, Twice"),
    ("my grids/own.py", "names a file alone; write my grids/own.py:NAME, with one of Twice, Thrice"),
    ("my grids/own.py:", "names a file alone"),
    ("my grids/owm.py:Twice", "no file at my grids/owm.py, as seen from "),
    ("C:\\grids\\own.py:Twice", "no file at C:\\grids\\own.py"),
    ("my grids/own.py:doubled", "is no simulator: it is not a class"),
    ("my grids/own.py:_Hidden", "is no simulator: it has no init"),
])
def test_what_is_not_in_a_file_is_said_with_what_is(own_file, use, says, capsys):
    assert main(["town.py", "--use", f"grid={use}"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("text", "parts"), [
    ("own.py:Grid", ("own.py", "Grid")), ("C:\\a b\\own.py:Grid", ("C:\\a b\\own.py", "Grid")),
    ("C:/own.PY:Grid", ("C:/own.PY", "Grid")), ("C:\\own.py", ("C:\\own.py", "")), ("own.python:Grid", None),
    ("package.module:Grid", None), ("cmd: python own.py %(addr)s", None), ("agents.py:X", ("agents.py", "X")),
])
def test_a_file_and_a_name_are_parted_by_the_last_colon(text, parts):
    assert file_in(text) == parts
    assert today(text) == text


def test_a_file_that_fails_is_one_line_and_is_not_half_there(own_file, capsys):
    (own_file / "bad.py").write_text("class Early:\n    pass\n1 / 0\n")
    for _ in range(2):
        assert main(["town.py", "--use", "grid=my grids/bad.py:Early"]) == 2
        assert "fails on import: ZeroDivisionError" in capsys.readouterr().err


def test_a_field_of_a_variant_names_the_variant():
    """Data centers without a cap have no field for one; a field that no variant has is unknown."""
    for field, says in (("aidc.cap", "is a field of CappedDataCenters, .*: --use aidc=.*:CappedDataCenters has it"),
                        ("tariff.horizon_s", "--use tariff=.*:KnownTariff has it"),
                        ("aidc.cup", "unknown field of aidc")):
        with pytest.raises(ScenarioError, match=says):
            resolve(override(find("ieee33"), {field: 3600}))
