"""A network in place of lists of its buses, and `cosim new --network`: what is written runs, and says what it is."""

import json

import numpy as np
import pandapower
import pytest
from worlds import run

from cosim.commands.main import main
from cosim.datafile import dump
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.request import changed, find
from cosim.scenario import override
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace

LINES = {"base_kv": 20.0, "lines": [{"from_bus": a, "to_bus": b, "r_ohm": 0.5, "x_ohm": 0.4, "max_current_a": 200.0}
                                    for a, b in ((3, 5), (5, 8), (8, 9), (5, 12))],
         "loads": [{"bus": 8, "p_kw": 500.0, "q_kvar": 100.0}, {"bus": 12, "p_kw": 300.0}], "substation": 3}


@pytest.fixture(scope="module")
def net():
    """Four buses in a row behind a transformer, a fifth that is out of service, PV, and a battery that charges."""
    net = pandapower.create_empty_network()
    for k in range(5):
        pandapower.create_bus(net, 110.0 if k == 0 else 20.0, in_service=k != 4)
    pandapower.create_ext_grid(net, 0)
    pandapower.create_transformer(net, 0, 1, "25 MVA 110/20 kV")
    for a, b in ((1, 2), (2, 3)):
        pandapower.create_line(net, a, b, 2.0, "NA2XS2Y 1x185 RM/25 12/20 kV")
    pandapower.create_load(net, 3, 2.0, 0.5, scaling=0.5)
    pandapower.create_sgen(net, 2, 0.3, name="roof", type="PV")
    pandapower.create_sgen(net, 3, 0.2, name="engine", type="CHP")
    pandapower.create_storage(net, 2, 0.4, 1.0, soc_percent=30.0, min_p_mw=-0.25, max_p_mw=0.2)
    return net


@pytest.fixture
def here(tmp_path, monkeypatch, net):
    monkeypatch.chdir(tmp_path)
    pandapower.to_json(net, "my.json")
    (tmp_path / "lines.yaml").write_text(dump(LINES, "yaml"))
    return tmp_path


def said(capsys, *words):
    """What `cosim new` prints of a request that is refused: one line."""
    assert main(["new", *words]) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    return out.err


# --- entities: "network" ---

def test_buses_follow_the_network_in_every_member():
    """33 of the feeder that ships; of a list of lines those that its lines name, in load, grid and wiring alike."""
    ieee33 = find("ieee33")
    assert resolve(ieee33).entities["grid"]["Bus"] == [f"bus{k}" for k in range(33)]
    near = override(ieee33, {"shared.network": LINES, "shared.sites": {"a": {"node": 8}}, "grid.sources": {
        "substation": {"node": 3, "kg_per_kwh": 0.3}}, "controller.policy": "uniform"})
    found = resolve(near).entities
    assert found["grid"]["Bus"] == found["profile"]["Load"] == ["bus3", "bus5", "bus8", "bus9", "bus12"]


def test_a_member_that_cannot_read_a_network_takes_its_buses_from_one_that_can():
    """A grid of the user's own, a grid that is played, a grid elsewhere: the base load's member knows the buses."""
    other = changed(find("ieee33"), use={"grid": "cmd: python -m x %(addr)s"})
    assert len(resolve(other).entities["grid"]["Bus"]) == 33
    with pytest.raises(ScenarioError, match=r"no member that runs here knows which entities 'case33bw' has; list"):
        resolve(override(other, {"profile.simulator": "cosim.simulators.tariff:TimeOfUse"}))


@pytest.mark.long
def test_where_grid_and_load_are_played_the_buses_are_written_out(tmp_path):
    """A recording of both holds their names; the scenario then lists them, and plays as the recording ran."""
    path = run(find("two_bus"), tmp_path / "t.h5", until_s=1800).path
    both = changed(find("two_bus"), replays={"grid": path, "profile": path})
    assert both.members["grid"].entities["Bus"] == both.members["profile"].entities["Load"] == ("bus0", "bus1")
    again = run(both, tmp_path / "again.h5", until_s=900).path
    with Trace(path) as first, Trace(again) as then:
        nci = [trace["grid/Bus/nci_kg_per_kwh"] for trace in (first, then)]
    np.testing.assert_array_equal(nci[0][:len(nci[1])], nci[1])


def test_show_says_which_entities_a_word_stands_for(capsys):
    assert main(["run", "two_bus", "--show"]) == 0
    assert "grid.entities.Bus = network  # 2: bus0 .. bus1" in capsys.readouterr().out


# --- a battery in the place of the network's storage ---

@pytest.mark.long
def test_a_battery_named_like_a_storage_takes_its_place(here):
    """The file's storage draws 400 kW; with a battery of its name nothing is drawn, in the feeder and in the check."""
    with_file, with_battery = read_feeder("my.json"), read_feeder("my.json", ["storage0"])
    at = with_file.nodes.of_bus[2]
    assert (with_file.own_p_kw[at], with_battery.own_p_kw[at]) == (400.0, 0.0)
    assert with_battery.batteries == (("storage0", 2),)
    none = np.zeros(0)
    p = np.zeros(with_file.n_bus)
    drawn = [AcCheck("my.json", [], batteries=names)._solving.run(p, p, none, none).p_substation_kw
             for names in ((), ("storage0",))]
    assert drawn[0] - drawn[1] == pytest.approx(400.0, rel=0.01)


# --- cosim new --network ---

def test_a_network_of_ones_own_becomes_a_scenario_that_runs(here, capsys):
    """All that the file has is in it: loads by a stated shape, generators as fixed, storage as a battery; sizes and the
    load offered are per GPU as in ieee33."""
    assert main(["new", "mine.yaml", "--network", "my.json", "--site", "a=3:400", "--site", "b=2:80"]) == 0
    out = capsys.readouterr().out
    assert "base load: 1000 kW in the file, times the daily shape ieee33_light (mean 0.40, peak 0.53)" in out
    assert "2 generators of the network (500 kW), 2 of them fixed" in out
    mine = find("mine.yaml")
    grid = mine.members["grid"].params
    assert grid["network_sources"] == {"engine": 0.3, "*": 0.0} or grid["network_sources"] == {"roof": 0.0, "*": 0.3}
    assert grid["batteries"]["storage0"] == {
        "node": 2, "energy_max_kwh": 1000.0, "energy_min_kwh": 0.0, "p_charge_max_kw": 200.0,
        "p_discharge_max_kw": 250.0, "energy_start_kwh": 300.0, "start_kg_per_kwh": 0.3}
    assert mine.shared["sites"]["b"] == {"node": 2, "racks": 10, "gpus_per_rack": 8, "idle_kw": 20.0}
    assert mine.members["workload"].params["rate_scale"] == pytest.approx(480 / 1200)
    with Trace(run(mine, "mine.h5", until_s=1800).path) as trace:
        names, p_kw = trace.names("grid/Grid", "source"), trace["grid/Grid/p_source_kw"][0, 0].tolist()
    sources = dict(zip(names, p_kw, strict=True))
    assert (sources["roof"], sources["engine"]) == (300.0, 200.0)


def test_code_and_json_say_the_same_as_yaml(here):
    made = {}
    for ending in ("yaml", "py", "json"):
        assert main(["new", f"x.{ending}", "--network", "lines.yaml", "--site", "a=9:100"]) == 0
        made[ending] = find(f"x.{ending}")
    assert made["yaml"] == made["py"] == made["json"]
    assert resolve(made["yaml"]).entities["grid"]["Bus"] == ["bus3", "bus5", "bus8", "bus9", "bus12"]


def test_a_bus_out_of_service_is_named_with_those_that_are_near(here, capsys):
    assert "--site a=4:400: bus 4 of my.json is out of service; the nearest in service: 1, 2, 3" in said(
        capsys, "no.yaml", "--network", "my.json", "--site", "a=4:400")


@pytest.mark.parametrize(("words", "says"), [
    (["--site", "a=7:400"], "bus 7 of lines.yaml is not there; it has 5, 3 to 12; the nearest in service: 5, 8, 9"),
    (["--site", "a=9:400", "--site", "a=8:80"], "a is given twice"),
    (["--site", "a=9:400kW"], "a whole number of GPUs above 0, got '400kW'"),
    (["--site", "a=9"], "write NAME=BUS:GPUS"),
    (["--site", "a=bus9:400"], "buses of lines.yaml are numbers, 3 to 12"),
    (["--site", "a=9:8"], "8 GPUs; a job of class llm needs 16 at once"),
    ([], "--network needs a data center"),
    (["--site", "a=9:400", "--from", "plug_pandapower"], "it has no grid that reads a network"),
    (["--site", "a=9:400", "--from", "ieee33_opendss"], "the grid of ieee33_opendss takes no such file; --from ieee33"),
])
def test_a_wrong_request_is_one_line_and_writes_nothing(here, capsys, words, says):
    assert says in said(capsys, "no.yaml", "--network", "lines.yaml", *words)
    assert not (here / "no.yaml").exists()


@pytest.mark.long
def test_a_network_that_cannot_be_is_refused_by_what_is_wrong(here, capsys, net):
    """Without external grid, with a loop, with storage that is no battery; a loop has a grid that takes it."""
    for name, change, says in (
            ("none", lambda n: n.ext_grid.__setitem__("in_service", False), "has 0 external grids in service"),
            ("loop", lambda n: pandapower.create_line(n, 3, 1, 1.0, "NA2XS2Y 1x185 RM/25 12/20 kV"),
             "--from ieee33_meshed makes a scenario with it"),
            ("empty", lambda n: n.storage.__setitem__("max_e_mwh", float("nan")),
             "storage 0 (bus 2) has no max_e_mwh above min_e_mwh")):
        other = pandapower.from_json_string(pandapower.to_json(net))
        change(other)
        pandapower.to_json(other, f"{name}.json")
        assert says in said(capsys, "no.yaml", "--network", f"{name}.json", "--site", "a=3:400")
    assert main(["new", "mesh.yaml", "--network", "loop.json", "--site", "a=3:400", "--from", "ieee33_meshed"]) == 0
    assert "storage of the network stays at its p_mw: storage0" in capsys.readouterr().out
    assert find("mesh.yaml").members["grid"].params["closed_lines"] == []
    assert "unknown field of a list of lines 'bus'" in said(
        capsys, "no.yaml", "--network", _written(here / "odd.yaml", {**LINES, "bus": 3}), "--site", "a=9:100")


def _written(path, data):
    path.write_text(json.dumps(data))
    return path.name
