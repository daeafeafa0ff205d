"""FMUs and HELICS federates as members: the same numbers as the same model in Python, units, and what goes wrong."""

import importlib.util
import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from worlds import run

from cosim.check import main as check_main
from cosim.errors import ModelError, ScenarioError
from cosim.neighbours.conversion import Conversion, SiUnit, conversion
from cosim.run import main
from cosim.scenario import Link, Member, Scenario
from cosim.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
HEAD = """
import os, signal, sys, time
import helics as h
info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetCoreTypeFromString(info, "zmq_ss")
h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 --broker={sys.argv[1]} --loglevel=no_print")
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, 60)
h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_WAIT_FOR_CURRENT_TIME_UPDATE, True)
fed = h.helicsCreateValueFederate("store", info)
out = h.helicsFederateRegisterGlobalPublication(fed, "store/seen", h.HELICS_DATA_TYPE_DOUBLE, UNIT)
got = h.helicsFederateRegisterSubscription(fed, "cosim/p", "kW")
h.helicsFederateEnterExecutingMode(fed)
time_s = 0.0
while True:
    FIRST
    h.helicsPublicationPublishDouble(out, 1000.0 * h.helicsInputGetDouble(got))
    time_s = h.helicsFederateRequestTime(fed, time_s + 60.0)
    if not h.helicsInputIsUpdated(got):
        break
h.helicsFederateDisconnect(fed)
"""


def example(name):
    spec = importlib.util.spec_from_file_location(f"neighbour_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def town(simulator, params, model="Store", names=("bus0", "bus1")):
    """Two growing loads into two buses, whose answer a meter reads."""
    return Scenario(name="town", about="t", until_s="5min", members={
        "load": Member(simulator="boxes:Source", step_s=60, entities={"Source": ["bus0", "bus1"]}),
        "grid": Member(simulator=simulator, step_s=60, entities={model: list(names)}, params=params)},
        links=[Link(source="load.p_kw", target="grid.p_kw")])


# --- units ------------------------------------------------------------------------------------------------------------

WATT = {"kg": 1, "m": 2, "s": -3}


@pytest.mark.parametrize(("port", "unit", "si", "expected"), [
    ("p_kw", "MW", None, (1e3, 0.0)), ("p_mw", "kW", None, (1e-3, 0.0)), ("p_kw", "W", SiUnit(WATT), (1e-3, 0.0)),
    ("nci_kg_per_kwh", "g/kWh", None, (1e-3, 0.0)), ("nci_g_per_kwh", "kg/(kW.h)", None, (1e3, 0.0)),
    ("e_kwh", "kW.h", None, (1.0, 0.0)), ("e_kwh", "MJ", None, (1 / 3.6, 0.0)),
    ("t_degc", "K", SiUnit({"K": 1}), (1.0, -273.15)), ("t_degc", "degF", None, (5 / 9, -160 / 9)),
    ("share_ratio", "%", None, (0.01, 0.0)), ("q_kvar", "Mvar", SiUnit(WATT, 1e6), (1e3, 0.0)),
    ("p_kw", "horsepower", SiUnit(WATT, 745.7), (0.7457, 0.0)),
    ("t_degc", "my_degC", SiUnit({"K": 1}, 1.0, 273.15), (1.0, 0.0)),
    ("nci_kg_per_kwh", "mine", SiUnit({"m": -2, "s": 2}, 1e-3 / 3.6e6), (1e-3, 0.0)),
])
def test_units_of_others_become_those_of_ports(port, unit, si, expected):
    found = conversion(port, unit, si)
    assert found == pytest.approx(Conversion(*expected), rel=1e-12)
    assert found.theirs(found.ours(7.0)) == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize(("port", "unit", "si", "says"), [
    ("p_kw", "mW", None, "unknown unit 'mW'; did you mean 'MW'?"), ("p_kw", "kvar", None, "the two must measure"),
    ("p_kw", "kWh", None, r"in kWh \(energy\), and p_kw is in kW \(active power\)"),
    ("p_kw", "kW", SiUnit(WATT, 1.0), "says by its SI base units that it is another one"),
    ("p_kw", "mine", SiUnit({"A": 1}), "unknown unit 'mine'"),
])
def test_units_that_do_not_fit_are_refused(port, unit, si, says):
    with pytest.raises(ScenarioError, match=says):
        conversion(port, unit, si)


# --- FMU --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def fmu(tmp_path_factory):
    """The example's FMU, compiled once."""
    pytest.importorskip("fmpy", reason="needs the extra 'fmu' (fmpy)")
    built = example("fmu_grid")
    if built.compiler() is None:
        pytest.skip("needs a C compiler")
    return built.build(tmp_path_factory.mktemp("fmu") / "sun.fmu")


FMU_PORTS = {"Bus": {"p_kw": "P_load", "nci_kg_per_kwh": "nci", "lost_ratio": "loss"}}


def test_an_fmu_gives_what_the_same_grid_in_python_gives(fmu, tmp_path):
    """All loads of a tick add up to its one input, in MW; its g/(kW.h) are the port's kg/kWh: own_grid.py's formula."""
    params = {"path": str(fmu), "ports": FMU_PORTS, "start_values": {"sun_max": 0.004}, "start_s": 10 * 3600.0}
    runs = [run(town("cosim.neighbours.fmu:FmuMember", params, "Bus"), tmp_path / f"{d}.h5", d).path
            for d in ("native", "mosaik")]
    with Trace(runs[0]) as trace, Trace(runs[1]) as other:
        load_kw = trace["load/Source/p_kw"].sum(axis=1)
        sun_kw = 4.0 * math.sin(2 * math.pi * (10 / 24 - 0.25))
        for k, drawn in enumerate(load_kw):
            sun_kw = 4.0 * math.sin(2 * math.pi * ((10 * 3600 + 60 * k) / 86400 - 0.25))
            expected = 0.8 * max(0.0, 1.0 - sun_kw / drawn) if drawn else 0.0
            assert trace["grid/Bus/nci_kg_per_kwh"][k] == pytest.approx([expected] * 2, rel=1e-12)
        assert trace["grid/Bus/nci_kg_per_kwh"][-1, 0] > 0.1
        assert (trace["grid/Bus/nci_kg_per_kwh"] == other["grid/Bus/nci_kg_per_kwh"]).all()
        assert list(trace.table("grid.fmu")["model"]) == ["SunGrid"]
        assert len(trace.table("grid.fmu")["sha256"][0]) == 64


def test_outputs_before_a_ticks_inputs_are_those_of_the_tick_before(fmu, tmp_path):
    series = {}
    for at in ("end", "start"):
        params = {"path": str(fmu), "ports": FMU_PORTS, "outputs_at": at, "communication_step_s": 20.0,
                  "start_values": {"P_load": 0.002, "sun_max": 0.0}}
        with Trace(run(town("x.fmu", {}, "Bus").replace(members={
                **town("x.fmu", {}, "Bus").model_dump()["members"],
                "grid": {"simulator": str(fmu), "step_s": 60, "entities": {"Bus": ["bus0", "bus1"]}, "params": {
                    key: value for key, value in params.items() if key != "path"}}}), tmp_path / f"{at}.h5").path) as t:
            series[at] = t["grid/Bus/nci_kg_per_kwh"][:, 0]
    assert list(series["start"][1:]) == list(series["end"][:-1])
    assert series["start"][0] == 0.0


@pytest.mark.parametrize(("change", "says"), [
    ({"ports": {"Bus": {"p_kw": "P_lod"}}}, "unknown variable of .*sun.fmu 'P_lod'; did you mean 'P_load'?"),
    ({"ports": {"Bus": {"p_kw": "P_{entity}"}}}, "unknown variable of .* 'P_"),
    ({"ports": {"Bus": {"p_kw": "sun_max"}}}, "'sun_max' is a parameter, .* give it in start_values"),
    ({"ports": {"Bus": {"q_kvar": "P_load"}}}, "P_load.*the two must measure the same thing"),
    ({"ports": {"Bus": {"p_kw": "P_load", "nci_kg_per_kwh": {"name": "nci", "unit": "kg/kWh"}}}}, "leave the unit out"),
    ({"ports": {"Bus": {"p_kw": "P_load", "e_kwh": "loss"}}}, "'loss' stands for 2 entities, .* give all of it"),
    ({"start_values": {"nci": 1.0}}, "'nci' is an output, which cannot be set"),
    ({"communication_step_s": 7.0}, "communication_step_s = 7 does not divide the member's step of 60 s"),
    ({"path": "none.fmu"}, "grid.path: no file at none.fmu"),
    ({"path": "model.zip"}, r"grid.path = 'model.zip': string should match pattern"),
])
def test_what_does_not_fit_an_fmu_is_said_before_it_runs(fmu, change, says):
    params = {"path": str(fmu), "ports": FMU_PORTS, **change}
    with pytest.raises(ScenarioError, match=says):
        run(town("cosim.neighbours.fmu:FmuMember", params, "Bus"), None)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("CoSimulation modelIdentifier", 'ModelExchange modelIdentifier', "is for model exchange alone; export it"),
    (' unit="MW"', "", "'P_load' states no unit; give it, e.g. "),
    ('factor="1e6"', 'factor="1e3"', "unit 'MW' is called so and says by its SI base units that it is another one"),
    ("</fmiModelDescription>", "", "is no FMU that can be read"),
])
def test_what_an_fmu_says_of_itself_counts(fmu, tmp_path, old, new, says):
    built = example("fmu_grid")
    assert old in built.DESCRIPTION
    path = built.build(tmp_path / "odd.fmu", built.DESCRIPTION.replace(old, new))
    with pytest.raises(ScenarioError, match=says):
        run(town("cosim.neighbours.fmu:FmuMember", {"path": str(path), "ports": FMU_PORTS}, "Bus"), None)


def test_an_fmu_that_fails_says_why_and_leaves_no_files(fmu, tmp_path, monkeypatch):
    """A load below zero is refused by it; the trace keeps what came before, and its unpacked files are gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "unpacked"))
    (tmp_path / "unpacked").mkdir()
    scenario = town("cosim.neighbours.fmu:FmuMember", {"path": str(fmu), "ports": FMU_PORTS}, "Bus")
    scenario = scenario.replace(links=[Link(source="load.p_kw", target="grid.p_kw", scale=-1.0)])
    with pytest.raises(ModelError, match=r"failed at 60 s in a step of 60 s: fmi2DoStep .*; it says: load below zero"):
        run(scenario, tmp_path / "t.h5")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["status"] == "failed"
        assert len(trace["grid/Bus/nci_kg_per_kwh"]) == 1
    assert not list((tmp_path / "unpacked").iterdir())


TANK = """<?xml version="1.0" encoding="UTF-8"?>
<fmiModelDescription fmiVersion="3.0" modelName="Tank" instantiationToken="{tank}">
 <CoSimulation modelIdentifier="tank"/>
 <UnitDefinitions><Unit name="W"><BaseUnit kg="1" m="2" s="-3"/></Unit>
  <Unit name="J"><BaseUnit kg="1" m="2" s="-2"/></Unit></UnitDefinitions>
 <ModelVariables>
  <Float64 name="inflow" valueReference="1" causality="input" start="0" unit="W"/>
  <Float64 name="level" valueReference="2" causality="output" initial="exact" start="0" unit="J"/>
  <Boolean name="open" valueReference="3" causality="input" variability="discrete" start="false"/>
  <Int32 name="count" valueReference="4" causality="output" variability="discrete"/>
  <Float64 name="table" valueReference="5" causality="local"><Dimension start="3"/></Float64>
 </ModelVariables>
 <ModelStructure><Output valueReference="2"/><Output valueReference="4"/></ModelStructure>
</fmiModelDescription>
"""


@pytest.fixture(scope="session")
def tank(fmu, tmp_path_factory):
    """An FMI 3.0 FMU with numbers of three types."""
    import fmpy

    folder = tmp_path_factory.mktemp("tank")
    library, headers = folder / "tank.so", Path(fmpy.__file__).with_name("c-code")
    source = Path(__file__).parents[1] / "data" / "tank3.c"
    needed = set(re.findall(r"FMI3_Export\s+fmi3\w+TYPE\s+(fmi3\w+);", (headers / "fmi3Functions.h").read_text()))
    idle = needed - set(re.findall(r"(fmi3\w+)\(fmi3", source.read_text()))  # have to be there
    (folder / "idle.c").write_text("".join(f"int {name}(void) {{ return 3; }}\n" for name in sorted(idle)))
    subprocess.run([example("fmu_grid").compiler(), "-shared", "-fPIC", f"-I{headers}", str(source),
                    str(folder / "idle.c"), "-o", str(library)], check=True)
    with zipfile.ZipFile(folder / "tank.fmu", "w") as file:
        file.writestr("modelDescription.xml", TANK)
        file.write(library, f"binaries/{fmpy.platform_tuple}/tank{fmpy.sharedLibraryExtension}")
    return folder / "tank.fmu"


def test_an_fmu_of_version_3_integrates_what_it_gets(tank, tmp_path):
    """kW go in as W; the level in J comes out as kWh: the sum of all minutes' power until the end of each."""
    ports = {"Store": {"p_kw": "inflow", "open_ratio": "open", "level_kwh": "level", "count_ratio": "count"}}
    scenario = town(str(tank), {"ports": ports, "communication_step_s": 20.0}, names=["all"])
    both = [*scenario.links, Link(source="load.p_kw", target="grid.open_ratio", scale=0.0, pairs={"bus0": "all"})]
    with Trace(run(scenario.replace(links=both), tmp_path / "t.h5").path) as trace:
        drawn = trace["load/Source/p_kw"].sum(axis=1)
        assert trace["grid/Store/level_kwh"][:, 0] == pytest.approx(drawn.cumsum() / 60.0, rel=1e-12)
        assert list(trace["grid/Store/count_ratio"][:, 0]) == [3.0, 6.0, 9.0, 12.0, 15.0]
        assert list(trace.table("grid.fmu")["fmi"]) == ["3.0"]
    full = scenario.replace(links=[Link(source="load.p_kw", target="grid.p_kw", scale=1e3), both[-1]])
    with pytest.raises(ModelError, match=r"failed at \d+ s in a step of 20 s: it ended the simulation"):
        run(full, None)
    half = scenario.replace(links=[scenario.links[0], both[-1].model_copy(update={"scale": 0.5})])
    with pytest.raises(ModelError, match="'open' = 0.5 is not Boolean"):
        run(half, None)
    with pytest.raises(ScenarioError, match="'table' is an array; a port takes one number"):
        run(town(str(tank), {"ports": {"Store": {"p_kw": "inflow", "e_kwh": "table"}}}, names=["all"]), None)


def test_an_fmu_from_the_command_line(fmu, tmp_path, monkeypatch, capsys):
    """--use takes the file; the summary entity that it has no ports for is left out; a trace that names it asks."""
    monkeypatch.chdir(tmp_path)
    ports = json.dumps({"Bus": {"p_load_kw": "P_load", "q_load_kvar": None, "nci_kg_per_kwh": "nci"}})
    use = ["--use", f"grid={fmu}", "--set", f"grid.ports={ports}"]
    assert main(["two_bus", *use, "--until", "15min", "--driver", "native", "--out", "t.h5"]) == 0
    assert "takes no q_load_kvar, which was linked and counts nowhere" in capsys.readouterr().out
    with Trace("t.h5") as trace:
        assert trace["grid/Bus/nci_kg_per_kwh"] == pytest.approx(0.8)  # at midnight
    assert main(["t.h5", "--quiet", "--out", "again.h5"]) == 2
    assert "nothing of it was run" in capsys.readouterr().err
    assert main(["t.h5", "--quiet", "--out", "again.h5", "--trust", "t.h5", "--driver", "native"]) == 0
    assert check_main(["grid", str(fmu), "--scenario", "two_bus", "--set", f"grid.ports={ports}"]) == 0
    assert "NCI lies between 0 and 3 kg/kWh" in capsys.readouterr().out


# --- HELICS -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def federate(tmp_path):
    """Writes a federate that sends back what it gets, in W, and does something first; the member that starts it."""
    pytest.importorskip("helics", reason="needs the extra 'helics'")

    def made(do="pass", unit='"W"', **params):
        path = tmp_path / "federate.py"
        path.write_text(HEAD.replace("FIRST", do).replace("UNIT", unit))
        return town(f"helics: {sys.executable} {path} %(broker)s", {
            "publications": {"Store": {"p_kw": {"name": "cosim/p", "unit": "MW"}}},
            "subscriptions": {"Store": {"seen_kw": "store/seen"}}, "timeout_s": 20.0, **params}, names=["all"]
            ).replace(links=[Link(source="load.p_kw", target="grid.p_kw")])
    return made


def test_a_federate_answers_the_same_tick_in_its_own_unit(federate, tmp_path):
    """Sent in MW, taken in kW (HELICS converts), sent back as W, which the port converts: what came is what went."""
    with Trace(run(federate(), tmp_path / "t.h5", "native").path) as trace:
        assert trace["grid/Store/seen_kw"][:, 0] == pytest.approx(trace["load/Source/p_kw"].sum(axis=1), rel=1e-12)
        assert trace["grid/Store/seen_kw"][3, 0] == pytest.approx(2 * 3.0)
        assert list(trace.table("grid.helics")["key"]) == ["cosim/p", "store/seen"]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("do", "says"), [
    ("if time_s >= 120: os.kill(os.getpid(), signal.SIGKILL)", r"federate.py.* failed at \d+ s: .* ended with code -9"),
    ("if time_s >= 120: raise SystemExit('the wind is gone')", ".* ended with code 1; its last line: the wind"),
    ("if time_s >= 120: break", "at 12[01] s: .*ended with code 0"),
    ("if time_s >= 120: time.sleep(60)", r"no answer within 1 s \(timeout_s\)"),
])
def test_a_federate_that_dies_is_named_and_the_trace_is_kept(federate, tmp_path, do, says):
    hangs = {"timeout_s": 1.0} if "sleep" in do else {}
    with pytest.raises(ModelError, match=says):
        run(federate(do, **hangs), tmp_path / "t.h5", "native")
    with Trace(tmp_path / "t.h5") as trace:
        assert trace.attrs["status"] == "failed"
        assert len(trace["grid/Store/seen_kw"]) in (2, 3)


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("unit", "change", "says"), [
    ('"degC"', {}, "'store/seen': it is in degC .temperature., and seen_kw is in kW"),
    ('""', {}, "'store/seen' states no unit; give it"),
    ('"W"', {"subscriptions": {"Store": {"seen_kw": "store/sen"}}}, "unknown publication 'store/sen'; did you mean"),
])
def test_keys_and_units_that_do_not_fit_are_refused(federate, unit, change, says):
    with pytest.raises(ScenarioError, match=says):
        run(federate(unit=unit, **change), None, "native")


@pytest.mark.parametrize(("simulator", "change", "says"), [
    ("helics: nobody %(broker)s", {}, "'nobody' cannot be started"),
    ("helics: python x.py", {}, r"does not say which broker to join; write cmd: COMMAND %\(broker\)s"),
    ("helics: connect: 127.0.0.1:9", {}, "no HELICS broker at 127.0.0.1:9"),
    ("helics: connect: nowhere", {}, "is no address; write connect: HOST:PORT"),
    ("helics: x %(broker)s", {"answer_s": 90.0}, "answer_s = 90 is longer than the member's step of 60 s"),
    ("helics: x %(broker)s", {"first_values": {"seen": 1.0}}, "unknown key 'seen'"),
    ("helics: x %(broker)s", {"publications": {"Store": {"p_kw": "a", "seen_kw": "b"}}}, "a port is an input or"),
])
def test_what_cannot_be_is_said_before_anything_is_started(federate, simulator, change, says):
    scenario = federate()
    params = {k: v for k, v in scenario.members["grid"].params.items() if k != "federate"}
    with pytest.raises((ScenarioError, ModelError), match=says):
        run(town(simulator, {**params, **change}, names=["all"]), None, "native")


def test_what_a_simulator_of_others_stands_for():
    """A file and a command are parameters of the members that play them; two of them contradict."""
    plays = Member(simulator="helics: python x.py %(broker)s", step_s=60, entities={"A": ["a"]})
    assert plays.simulator == "cosim.neighbours.helics_federate:HelicsMember"
    assert plays.params["federate"] == "cmd: python x.py %(broker)s"
    assert Member(simulator="my models/A.FMU", step_s=60, entities={"A": ["a"]}).params == {"path": "my models/A.FMU"}
    with pytest.raises(ValueError, match=r"simulator is a.fmu, and params.path = 'b.fmu'; give one"):
        Member(simulator="a.fmu", step_s=60, entities={"A": ["a"]}, params={"path": "b.fmu"})
