"""A key that a table does not have, at any depth of any member's parameters: the allowed ones and the nearest."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

import cosim.simulators
from cosim.adapter import Adapter
from cosim.errors import ScenarioError
from cosim.params import field_names, fields_of, validate
from cosim.request import find
from cosim.run import main
from cosim.scenario import Scenario
from cosim.simulators.grid.params import GridParams

SOURCES = {"substation": {"node": 0, "kg_per_kwh": 0.3}}


def all_params():
    """The parameters of every simulator of this package."""
    for module in pkgutil.walk_packages(cosim.simulators.__path__, "cosim.simulators."):
        if not {"compiled", "batched", "analysis"} & set(module.name.split(".")):  # which have no members
            importlib.import_module(module.name)
    classes = [Adapter]
    for cls in classes:
        classes += cls.__subclasses__()
    return {cls.PARAMS: None for cls in classes if hasattr(cls, "PARAMS") and cls.__module__.startswith("cosim.")}


def tables(kind: Any, wrap):
    """(fields of a table, function that puts a row of it into the parameters) of every table inside a type."""
    origin, inside = get_origin(kind), get_args(kind)
    if fields_of(kind):
        yield kind, wrap
        for name, field in fields_of(kind).items():
            yield from tables(field.annotation, lambda row, name=name: wrap({name: row}))
    elif origin is Annotated:
        yield from tables(inside[0], wrap)
    elif origin in (Union, UnionType):
        for one in inside:
            yield from tables(one, wrap)
    elif origin in (list, tuple, Sequence):
        yield from tables(inside[0], lambda row: wrap([row]))
    elif origin in (dict, Mapping):
        yield from tables(inside[1], lambda row: wrap({"any": row}))


def test_in_every_table_of_every_member():
    tried = 0
    for params in all_params():
        for kind, wrap in tables(params, lambda row: row):
            meant = field_names(kind)[0]
            with pytest.raises(ScenarioError) as failed:
                validate(params, wrap({f"{meant}x": 1}), "member")
            said = str(failed.value.args[0])
            assert said.startswith("unknown field of member"), said
            assert f"'{meant}x'; did you mean '{meant}'? allowed: {sorted(field_names(kind))[0]}" in said
            tried += 1
    assert tried > 100


@pytest.mark.parametrize(("given", "says"), [
    ({"network": {"lines": [{"from_bus": 0, "to_bos": 1}]}}, "grid.network.lines.0 'to_bos'; did you mean 'to_bus'?"),
    ({"sources": {"s": {"node": 0, "kg_per_kwh": {"pth": "x.csv"}}}},
     "grid.sources.s.kg_per_kwh 'pth'; did you mean 'path'? allowed: column, factor"),
    ({"sources": {"s": {"nod": 0, "kg_per_kwh": {"pth": "x.csv"}}}}, "grid.sources.s 'nod'; did you mean 'node'?"),
    ({"network": {"lines": [{"from_bus": 0, "to_bus": 1}]}}, "grid.network.base_kv is required and not given"),
    ({"network": [1]}, "grid.network = "),
])
def test_the_path_is_the_one_that_was_written(given, says):
    """Not with the names of types that a value may be of."""
    with pytest.raises(ScenarioError) as failed:
        validate(GridParams, {"sources": SOURCES, **given}, "grid")
    assert says in failed.value.args[0]


@pytest.mark.parametrize(("field", "value", "says"), [
    ("links", [{"source": "a.x", "targt": "b.y"}], "unknown field of s.links.0 'targt'; did you mean 'target'?"),
    ("members", {"a": {"simulater": "x:Y", "step_s": 60, "entities": {"A": ["a"]}}},
     "unknown field of s.members.a 'simulater'; did you mean 'simulator'?"),
    ("membrs", {}, "unknown field of s 'membrs'; did you mean 'members'?"),
])
def test_in_a_scenarios_own_tables(field, value, says):
    whole = {"name": "s", "about": "s", "members": {"a": {"simulator": "x:Y", "step_s": 60, "entities": {"A": ["a"]}}}}
    with pytest.raises(ScenarioError) as failed:
        Scenario(**{**whole, field: value})
    assert failed.value.args[0].startswith(says)


def test_on_the_command_line_and_in_a_file(tmp_path, capsys):
    lines = '[{"from_bus": 0, "to_bus": 1, "r_ohm": 1, "x_ohms": 2}]'
    assert main(["two_bus", "--set", f"shared.network.lines={lines}", "--out", str(tmp_path / "t.h5")]) == 2
    assert "network.lines.0 'x_ohms'; did you mean 'x_ohm'?" in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("base: two_bus\nset:\n  grid.sources:\n    substation: {node: 0, kg_per_kwh: "
                                        "0.3}\n    turbine: {node: 1, kg_per_kwh: 0.2, p_max_kv: 50}\n")
    assert main([str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "t.h5")]) == 2
    assert "unknown field of grid.sources.turbine 'p_max_kv'; did you mean 'p_max_kw'?" in capsys.readouterr().err
    assert find("two_bus").members["grid"].params["sources"].keys() == {"substation", "turbine"}
