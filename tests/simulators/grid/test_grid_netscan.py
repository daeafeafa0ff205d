"""Network files from somebody else: what they ask pandapower to construct is looked at before anything is imported."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from contextlib import suppress

import pandapower
import pandapower.control
import pandas
import pytest
from pandapower.io_utils import to_dict_of_dfs

from cosim.errors import ScenarioError
from cosim.simulators.grid.network import file_scan as netscan
from cosim.simulators.grid.network.files import stored

MARK = "trojan_of_netscan"


@pytest.fixture
def trojan(tmp_path, monkeypatch):
    """A module beside the file that leaves a mark when it is imported; the mark's path."""
    mark = tmp_path / "mark"
    (tmp_path / f"{MARK}.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass X: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    sys.modules.pop(MARK, None)


def small():
    net = pandapower.create_empty_network()
    for _ in range(2):
        pandapower.create_bus(net, vn_kv=10.0)
    pandapower.create_line_from_parameters(net, 0, 1, 1.0, 0.1, 0.1, 0.0, 1.0)
    pandapower.create_load(net, 1, 0.1)
    pandapower.create_ext_grid(net, 0)
    return net


def evil(name: str = "X", **more) -> dict:
    return {"_module": MARK, "_class": name, "_object": "X", **more}


def in_a_cell(value: object) -> dict:
    table = {"columns": ["object"], "index": [0], "data": [[value]]}
    return {"_module": "pandas.core.frame", "_class": "DataFrame", "orient": "split", "_object": json.dumps(table)}


ATTACKS = {
    "a class": json.dumps(evil()),
    "a function": json.dumps(evil("function")),
    "a function of the standard library": '{"_module": "os", "_class": "function", "_object": "system"}',
    "a builtin": '{"_module": "builtins", "_class": "eval", "_object": "1"}',
    "in a table's cell": json.dumps(in_a_cell(evil())),
    "as text in a table's cell": json.dumps(in_a_cell(json.dumps(evil("function")))),
    "in a network in a string": json.dumps({"_module": "pandapower.auxiliary", "_class": "pandapowerNet",
                                            "_object": json.dumps({"x": evil()})}),
    "in a string in a string": json.dumps(json.dumps(json.dumps(evil("function")))),
    "spelt with escapes": json.dumps(evil("function")).replace("_module", "\\u005fmodul\\u0065"),
    "said twice": f'{{"_module": "{MARK}", "_class": "function", "_object": "X", "_module": "pandas"}}',
    "in a control's state": json.dumps({"_module": "pandapower.control.controller.const_control",
                                        "_class": "ConstControl", "_object": json.dumps({"f": evil("function")})}),
    "in an array": json.dumps({"_module": "numpy", "_class": "array", "_object": [evil("function")]}),
    "in a set of arguments": json.dumps({"_module": "numpy", "_class": "float64", "_object": 1, "dtype": evil()}),
    "an argument": json.dumps({"_module": "pandas", "_class": "DataFrame", "_object": "{}", "engine": "x"}),
    "memory": '{"_module": "numpy", "_class": "void", "_object": 1000000000000}',
    "a module of pandapower that no network needs": json.dumps(
        {"_module": "pandapower.test.conftest", "_class": "X", "_object": "{}"}),
    "no name": '{"_module": ["os"], "_class": "X", "_object": 1}',
    "deep": "[" * 5000 + "]" * 5000,
    "deep strings": "[" * 70 + "]" * 70,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_json_that_asks_for_more_than_a_network_is_refused_before_it_is_loaded(attack, tmp_path, trojan):
    path = tmp_path / "net.json"
    path.write_text(ATTACKS[attack])
    before = set(sys.modules)
    with pytest.raises(ScenarioError, match="is refused: .*; nothing of it was loaded"):
        stored(str(path))
    assert not trojan.exists()
    assert set(sys.modules) == before


def test_the_attack_is_one(tmp_path, trojan):
    """pandapower alone imports the module that the file names."""
    path = tmp_path / "net.json"
    path.write_text(ATTACKS["a function"])
    with suppress(Exception):  # which one it ends in is pandapower's affair
        pandapower.from_json(str(path))
    assert trojan.exists()


def test_a_table_that_names_another_file_is_refused(tmp_path, trojan):
    (tmp_path / "other.json").write_text(json.dumps(in_a_cell(evil())))
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"_module": "pandas", "_class": "DataFrame", "_object": str(tmp_path / "other.json")}))
    with pytest.raises(ScenarioError, match="should be JSON is none"):
        stored(str(path))
    assert not trojan.exists()


@pytest.mark.long
@pytest.mark.parametrize("column", ["object", "geo"])
def test_an_excel_file_is_looked_at_alike(column, tmp_path, trojan):
    pytest.importorskip("openpyxl", reason="openpyxl is not installed (extra excel)")
    path = tmp_path / "net.xlsx"
    cells = {"bus": pandas.DataFrame({column: [json.dumps(evil("function"))], "vn_kv": [10.0]})}
    with pandas.ExcelWriter(path, engine="openpyxl") as book:
        for name, table in {**to_dict_of_dfs(small()), **cells}.items():
            table.to_excel(book, sheet_name=name)
    with pytest.raises(ScenarioError, match=rf"net.xlsx' is refused: it names {MARK}.function"):
        stored(str(path))
    assert not trojan.exists()


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(netscan, "LARGEST_MB", 0)
    pandapower.to_json(small(), str(tmp_path / "net.json"))
    with pytest.raises(ScenarioError, match="at most 0 are read"):
        stored(str(tmp_path / "net.json"))


@pytest.mark.parametrize(("rows", "spans"), [
    (b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>', "1048576 rows and 16384 columns"),
    (b'<row><c r="xfd1"><v>1</v></c></row>' + b"<row/>" * 999, "1000 rows and 16384 columns"),
    (b"<row r='99999999'/><row>" + b"<c><v>1</v></c>" * 7 + b"</row>", "100000000 rows and 7 columns")])
def test_a_few_cells_far_apart_are_not_unfolded(rows, spans, tmp_path):
    """A thousand bytes of Excel that a reader makes gigabytes of."""
    pytest.importorskip("openpyxl", reason="openpyxl is not installed (extra excel)")
    pandas.DataFrame({"a": [1.0]}).to_excel(tmp_path / "small.xlsx")
    with zipfile.ZipFile(tmp_path / "small.xlsx") as small_file, zipfile.ZipFile(tmp_path / "far.xlsx", "w") as far:
        for name in small_file.namelist():
            far.writestr(name, re.sub(b"(?s)<sheetData>.*</sheetData>", b"<sheetData>" + rows + b"</sheetData>",
                                      small_file.read(name)))
    with pytest.raises(ScenarioError, match=f"refused: a sheet of it spans {spans}"):
        stored(str(tmp_path / "far.xlsx"))


def test_pickles_are_not_read(tmp_path):
    pandapower.to_pickle(small(), str(tmp_path / "net.p"))
    with pytest.raises(ScenarioError, match="unknown network"):
        stored(str(tmp_path / "net.p"))


def test_what_pandapower_writes_of_a_network_is_read(tmp_path):
    """Controls, characteristics, graphs, tuples, names that look like JSON."""
    net = small()
    net.bus.loc[0, "name"] = "{feeder} [north]"
    source = pandapower.timeseries.DFData(pandas.DataFrame({"a": [1.0, 2.0]}))
    pandapower.control.ConstControl(net, "load", "p_mw", [0], profile_name=["a"], data_source=source)
    pandapower.control.SplineCharacteristic(net, [0, 1, 2], [0, 1, 4])
    net["graph"], net["pair"] = pandapower.topology.create_nxgraph(net), (1, 2)
    pandapower.to_json(net, str(tmp_path / "net.json"))
    read = stored(str(tmp_path / "net.json"))
    assert list(read.controller.index) == [0]
    assert read.pair == (1, 2)
    assert read.bus.name[0] == "{feeder} [north]"
    pandapower.runpp(read, numba=False)
    pandapower.runpp(net, numba=False)
    assert read.res_bus.vm_pu.tolist() == net.res_bus.vm_pu.tolist()
