"""Scenarios as YAML and JSON files: what is written is read back, what is read is data, what is wrong has its place."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import boxes

from cosim.commands.main import main
from cosim.datafile import FORMATS, dump, read
from cosim.errors import ScenarioError
from cosim.request import find
from cosim.scenario import Link, override
from cosim.trace.compare import compare

TEXT = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), st.sampled_from(
    ["no", "on", "1:30", "2026-01-01", "1e3", "1e-5", "010", "0x1f", "null", "~", "", " ", "true", "True", ".inf", "-",
     "<<", "=", "a: b", "# c", "- x", "1_000", ".5", "1.", "+1", "&a", "*a", "!!str x", "\u2028", "\x85", "\ufeff"]))
DATA = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**63), TEXT,
                              st.floats(allow_nan=False, allow_infinity=False)),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


def written(folder, text, name="mine.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.dictionaries(TEXT, DATA, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / f"data.{kind}"
    path.write_bytes(dump(data, kind).encode())
    back = read(path)
    assert json.dumps(back) == json.dumps(data), "values, types and order"


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
def test_what_show_writes_runs_and_gives_the_same_trace(tmp_path, capsys, kind):
    """With overrides in it, whose texts and numbers stay what they are."""
    asked = ["--seed", "5", "--until", "30min", "--set", "controller.policy=nci_priority", "--set",
             "grid.solver=clarabel"]
    assert main(["run", "two_bus", *asked, "--show", "--format", kind]) == 0
    file = written(tmp_path, capsys.readouterr().out, f"mine.{kind}")
    for words, out in ((["two_bus", *asked], "a.h5"), ([file], "b.h5")):
        assert main(["run", *words, "--driver", "native", "--quiet", "--out", str(tmp_path / out)]) == 0
    assert compare(tmp_path / "a.h5", tmp_path / "b.h5").equal
    assert main(["run", "two_bus", "--format", kind]) == 2
    assert "goes with --show" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ieee33", "ieee33_climate", "azure_llm", "plug_pandapower"])
@pytest.mark.parametrize("kind", FORMATS)
def test_shipped_scenarios_are_the_same_from_a_file(tmp_path, name, kind):
    scenario = find(name)
    text = dump(scenario.model_dump(mode="json"), kind)
    assert find(written(tmp_path, text, f"m.{kind}"), trusted=[tmp_path / f"m.{kind}"]).to_json() == scenario.to_json()


def test_a_base_and_what_is_different(tmp_path):
    written(tmp_path, "base: two_bus\nname: middle\nset: {seed: 4, controller.policy: nci_priority}\n", "middle.yml")
    mine = written(tmp_path, 'base: middle.yml\nname: "mine"\nset:\n  grid.lambda_kw_per_kg_h: 1e-1\n  seed: 5\n')
    found = find(mine)
    assert found == override(find("two_bus"), {"controller.policy": "nci_priority", "grid.lambda_kw_per_kg_h": 0.1,
                                               "seed": 5}).replace(name="mine")
    same = written(tmp_path, "base: two_bus\nset:\n")
    assert find(same) == find("two_bus")
    texts = written(tmp_path, "base: two_bus\nset:\n  controller.note: '3'\n  controller.other: no\n")
    assert {k: find(texts).members["controller"].params[k] for k in ("note", "other")} == {"note": "3", "other": "no"}


def test_a_file_adds_members_and_links_to_its_base(tmp_path):
    """The base's own stay as they are; `set` reaches what is new, and so does a file that has this one as its base."""
    written(tmp_path, "base: two_bus\nsummary:\nmembers:\n  other: {simulator: 'cosim.simulators.tariff:TimeOfUse', "
            "step_s: 60, entities: {Market: [market]}, params: {base_usd_per_kwh: 0.2}}\n"
            "links:\n- {source: other.price_usd_per_kwh, target: controller.other_usd_per_kwh}\n"
            "set: {other.boundary: closed}\n", "middle.yaml")
    base, found = find("two_bus"), find(written(tmp_path, "base: middle.yaml\nset: {other.step_s: 5min}\n"))
    new = {"simulator": "cosim.simulators.tariff:TimeOfUse", "step_s": 300, "entities": {"Market": ["market"]},
           "params": {"base_usd_per_kwh": 0.2, "boundary": "closed"}}
    link = Link(source="other.price_usd_per_kwh", target="controller.other_usd_per_kwh")
    assert base.summary
    assert found == base.replace(
        summary=None, members={**base.members, "other": new}, links=[*base.links, link])


@pytest.mark.parametrize("text", [
    "base: two_bus\nsummary: own:summary\n",
    "base: two_bus\nmembers: {other: {simulator: 'own:Other', step_s: 60, entities: {A: [a]}}}\n"])
def test_what_a_file_adds_to_its_base_is_not_run_unless_trusted(tmp_path, text):
    with pytest.raises(ScenarioError, match="'own:.*; nothing of it was run"):
        find(written(tmp_path, text))
    assert find(tmp_path / "mine.yaml", trusted=[tmp_path / "mine.yaml"]).name == "two_bus"


@pytest.mark.parametrize(("text", "says"), [
    ("base: two_bus\nset:\n  seed: 1\n  seed: 2\n", "mine.yaml, line 4, column 3: 'seed' stands twice"),
    ("name: x\n  about: y\n", "mine.yaml, line 2, column 8: mapping values are not allowed here"),
    ("name: [1, 2\n", "mine.yaml, line 2, column 1: expected ',' or ']'"),
    ("name: &a x\nabout: *a\n", "mine.yaml, line 1, column 7: anchors and aliases (&, *) are not read"),
    ("name: !!python/object/apply:os.system [ls]\n", "mine.yaml, line 1, column 7: could not determine a constructor"),
    ("a: 1\n---\nb: 2\n", "mine.yaml, line 2, column 1: but found another document"),
    ("? [1]\n: 2\n", "mine.yaml, line 1, column 3: a key is a text"),
    ("seed: 1e999\n", "mine.yaml, line 1, column 7: 1e999 is too large a number"),
    ("", "mine.yaml holds None; a scenario is an object"),
    ("- 1\n", "mine.yaml holds [1]; a scenario is an object"),
    ("a: " + "[" * 300, "mine.yaml, line 1, column 43: it is nested deeper than 32 levels"),
    ("base: two_bus\nseed: 1\n", "mine.yaml: unknown field of a file with base 'seed'"),
    ("base: two_bus\nmembers: [grid]\n", "mine.yaml: members = ['grid']; write the members that are new, by name"),
    ("base: two_bus\nmembers: {grid: {}}\n", "mine.yaml: members: two_bus has 'grid' already; change its fields"),
    ("base: two_bus\nmembers: {other: {step_s: 60}}\n", "mine.yaml: two_bus.members.other.simulator"),
    ("base: two_bus\nlinks: {source: a.b}\n", "mine.yaml: links = {'source': 'a.b'}; write a list"),
    ("base: two_bus\nlinks: [{source: a.b, target: grid.p_load_kw}]\n", "mine.yaml: link a.b -> grid.p_load_kw"),
    ("base: two_bus\nsett: {}\n", "did you mean 'set'?"),
    ("base:\n", "mine.yaml: base is empty"),
    ("base: [two_bus]\n", "mine.yaml: base = ['two_bus']"),
    ("base: two_buss\n", "mine.yaml: unknown scenario 'two_buss'; did you mean 'two_bus'?"),
    ("base: mine.yaml\n", "they stand in a circle"),
    ("base: none.yaml\n", "none.yaml"),
    ("base: two_bus\nset: [seed]\n", "mine.yaml: set = ['seed']"),
    ("base: two_bus\nset: {controller: {policy: uniform}}\n", "mine.yaml: --set controller: name a field of the mem"),
    ("base: two_bus\nset: {seed: -1}\n", "mine.yaml: two_bus.seed = -1"),
    ("name: x\nabout: y\nmembrs: {}\n", "mine.yaml: unknown field of x 'membrs'; did you mean 'members'?"),
])
def test_a_bad_file_is_one_line_with_the_place(tmp_path, capsys, text, says):
    assert main(["run", written(tmp_path, text)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("text", "says"), [
    ('{"base": "two_bus",\n "set": {"seed": 1, "seed": 2}}', "'seed' stands twice in set"),
    ('{"base": "two_bus"', "line 1 column 19"), ('{"seed": NaN}', "NaN is no number of JSON"),
    ('{"seed": 1e999}', "1e999 is no number of JSON"), ("[" * 100_000, "nested deeper"), ("3", "holds 3"),
    ('{"name": "\\ud800"}', "half of a pair"),
])
def test_a_bad_json_file_too(tmp_path, capsys, text, says):
    assert main(["run", written(tmp_path, text, "mine.json")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_files_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    for name, says in (("latin.yaml", "is no UTF-8 text (byte 6)"), ("none.yaml", "no scenario file at"),
                       ("x.toml", "ends in .py, .yaml, .yml, .json, .h5"), (".", "a scenario is a name")):
        assert main(["run", f"{tmp_path}/{name}"]) == 2
        assert says in capsys.readouterr().err


def test_a_received_file_runs_nothing_that_is_not_trusted(tmp_path, capsys):
    """As of a trace: shown, refused, nothing imported; with --trust it runs, and modules beside it are found."""
    (tmp_path / "own_store.py").write_text(f"print('imported')\nimport sys\nsys.path.append({sys.path[0]!r})\n"
                                           "from boxes import Source, Store\n")
    scenario = boxes().replace(members={"src": boxes().members["src"].model_copy(update={
        "simulator": "own_store:Source"})}, links=(), until_s="10min")
    file = written(tmp_path, dump(scenario.model_dump(mode="json"), "yaml"))
    for words in (["run", file], ["run", file, "--show"], ["check", "src", "--scenario", file],
                  ["new", str(tmp_path / "n.yaml"), "--from", file]):
        assert main(words) == 2
        said = capsys.readouterr()
        assert "src.simulator = 'own_store:Source'; nothing of it was run. If you trust this file, add" in said.err
        assert said.out == ""
    assert "own_store" not in sys.modules
    assert main(["run", file, "--trust", file, "--driver", "native", "--quiet", "--out", str(tmp_path / "t.h5")]) == 0
    assert capsys.readouterr().out == "imported\n"
    del sys.modules["own_store"]


def test_a_base_that_is_code_is_not_run_unless_the_file_is_trusted(tmp_path, capsys):
    (tmp_path / "code.py").write_text("print('run')\nfrom cosim.scenarios.two_bus import SCENARIO\n")
    file = written(tmp_path, "base: code.py\nset: {seed: 7}\n")
    with pytest.raises(ScenarioError, match="base = 'code.py'; nothing of it was run"):
        find(file)
    assert capsys.readouterr().out == ""
    assert find(file, trusted=[file]).seed == 7


def test_new_makes_files_of_data_that_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine.yaml", "--from", "two_bus"]) == 0
    assert find("mine.yaml") == find("two_bus").replace(name="mine", about="two_bus with changes of my own")
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "all.yaml").write_text(text.replace("  # ", "  "))
    assert find("all.yaml").replace(name="mine") == find("mine.yaml"), "every line can be taken, and says what is"
    assert main(["new", "full.json", "--from", "mine.yaml"]) == 0
    assert find("full.json") == find("mine.yaml").replace(name="full")
    assert main(["run", "full.json", "--driver", "native", "--quiet", "--out", "t.h5", "--until", "15min"]) == 0
    assert main(["new", "again.yaml", "--from", "t.h5"]) == 0
    assert main(["run", "again.yaml", "--driver", "native", "--quiet", "--out", "u.h5"]) == 0
    assert compare("t.h5", "u.h5").equal
    capsys.readouterr()
    assert main(["new", "code.py", "--from", "mine.yaml"]) == 2
    assert "to start from a file, write a .yaml" in capsys.readouterr().err
