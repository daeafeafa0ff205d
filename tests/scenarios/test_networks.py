"""Whole networks as scenarios: IEEE's 13-node feeder against its published solution, and one of 121 buses."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from worlds import run

from cosim.commands.main import main
from cosim.drivers.resolve import resolve
from cosim.request import find
from cosim.scenario import Link, Member, override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.limiting import limits
from cosim.simulators.grid.equations import radial_power_flow
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.opendss_circuit import Circuit, circuit_file, installed
from cosim.trace import Trace
from cosim.trace.compare import first_difference

needs_opendss = pytest.mark.skipif(not installed(), reason="OpenDSS is not installed (extra opendss)")

PUBLISHED = {
    "rg60": (1.0625, 1.0500, 1.0687), "632": (1.0210, 1.0420, 1.0174), "633": (1.0180, 1.0401, 1.0148),
    "634": (0.9940, 1.0218, 0.9960), "645": (None, 1.0329, 1.0155), "646": (None, 1.0311, 1.0134),
    "671": (0.9900, 1.0529, 0.9778), "680": (0.9900, 1.0529, 0.9778), "684": (0.9881, None, 0.9758),
    "611": (None, None, 0.9738), "652": (0.9825, None, None), "675": (0.9835, 1.0553, 0.9758)}
"""Voltages by phase, p.u., of the solution that IEEE's subcommittee publishes, with the regulator at taps 10, 8, 11."""


def broken(path: Path) -> list[str]:
    """Laws that a trace breaks."""
    with Trace(path) as trace:
        return [text for text in map(str, verify(trace).warnings) if "BROKEN" in text]


# --- IEEE 13 ---

@needs_opendss
def test_the_13_node_feeder_has_the_published_voltages():
    """At the published taps every phase is within 0.003 p.u., and the substation gives 3577 kW."""
    lines = re.sub(r"new regcontrol.*", "", circuit_file("ieee13").read_text()).splitlines()
    circuit = Circuit("\n".join(line for line in lines if line and not line.startswith(("!", "clear"))), "grid")
    for k, tap in enumerate((10, 8, 11), 1):
        circuit._dss.Text.Command(f"transformer.reg{k}.taps=[1 {1.0 + 0.00625 * tap}]")
    assert circuit.solve()
    for bus, phases in PUBLISHED.items():
        circuit._dss.Circuit.SetActiveBus(bus)
        found = dict(zip(circuit._dss.Bus.Nodes(), circuit._dss.Bus.puVmagAngle()[::2], strict=True))
        for phase, published in enumerate(phases, 1):
            assert (phase in found) == (published is not None)
            if published is not None:
                assert found[phase] == pytest.approx(published, abs=3e-3)
    assert circuit.substation_kw() == pytest.approx(3577.0, rel=3e-3)


@needs_opendss
def test_plant_and_battery_of_the_13_node_feeder_can_be_set(tmp_path):
    """By their timetable: at noon the plant feeds and the battery charges. Energy, carbon and every bus's balance hold,
    and both drivers write the same bytes."""
    noon = override(find("ieee13_opendss"), {
        "grid.sources.pv675.p_set_kw": 600.0, "grid.battery_set_kw.battery675": [-150.0, 150.0] * 48})
    paths = [run(noon, tmp_path / f"{driver}.h5", until_s=3600, driver=driver).path for driver in ("native", "mosaik")]
    assert first_difference(*paths) is None
    assert broken(paths[0]) == []
    with Trace(paths[0]) as trace:
        assert trace["grid/Grid/p_source_kw"][:, 0, 1].tolist() == [600.0] * 4
        assert trace["grid/Battery/p_kw"][:, 0].tolist() == [-150.0, 150.0, -150.0, 150.0]
        nci, at = trace["grid/Bus/nci_kg_per_kwh"], trace.names("grid/Bus").index("bus675")
        soc = trace["grid/Battery/soc_kwh"][:, 0]
        stored = trace["grid/Battery/stored_kg"][:, 0]
    assert soc[1] - soc[0] == pytest.approx(150.0 * 0.25 * 0.95)
    assert stored[1] - stored[0] == pytest.approx(150.0 * 0.25 * 0.95 * nci[0, at])


@needs_opendss
def test_another_member_overrules_the_timetables(tmp_path):
    """Linked to `p_set_kw`, plant and battery run what they are sent; the battery not beyond its 200 kW."""
    scenario = find("ieee13_opendss")
    names = ("pv675", "battery675")
    sent = {f"of_{name}": Member(simulator="cosim.simulators.grid.carbon:FixedSources", step_s=900,
                                 entities={"Source": [name]}, params={"set_points_kw": {name: kw}})
            for name, kw in zip(names, (333.0, -500.0), strict=True)}
    links = [Link(source=f"of_{name}.p_kw", target=f"grid.{model}.p_set_kw")
             for name, model in zip(names, ("Source", "Battery"), strict=True)]
    linked = scenario.replace(members={**scenario.members, **sent}, links=[*scenario.links, *links])
    with Trace(run(linked, tmp_path / "t.h5", until_s=1800).path) as trace:
        assert trace["grid/Grid/p_source_kw"][:, 0, 1].tolist() == [333.0, 333.0]
        assert trace["grid/Battery/p_kw"][:, 0].tolist() == [-200.0, -200.0]


@needs_opendss
def test_own_loads_follow_their_factor_and_data_centers_do_not(tmp_path):
    """Twice the factor is about twice the load of the circuit (two of its loads depend on the voltage)."""
    power = {}
    for factor in (0.4, 0.8):
        half = override(find("ieee13_opendss"), {"grid.load_mult": factor, "grid.sources.pv675.p_set_kw": 0.0,
                                                 "grid.battery_set_kw": {}})
        with Trace(run(half, tmp_path / f"{factor}.h5", until_s=900).path) as trace:
            power[factor] = float(trace["grid/Grid/p_drawn_bus_kw"][0, 0].sum())
    sites_kw = 2 * power[0.4] - power[0.8]
    assert power[0.8] - power[0.4] == pytest.approx(0.4 * 3466.0, rel=0.02)
    assert 0.0 < sites_kw + 60.0 < 500.0


@needs_opendss
def test_what_cannot_be_set_is_one_line(tmp_path, capsys):
    for setting, says in (("grid.sources.pv675.p_set_kw=-5", "p_set_kw is below 0 somewhere"),
                          ("grid.battery_set_kw.b=5", "battery_set_kw has b, and batteries has battery675"),
                          ("grid.load_mult=linked", "grid.load_mult = linked"),
                          ("grid.batteries.battery675.node=999", "unknown bus of grid.batteries.battery675 '999'"),
                          ("shared.sites.aidc1.node=999", "unknown target entity 'bus999'")):
        words = ["run", "ieee13_opendss", "--until", "15min", "--set", setting, "--out", str(tmp_path / "n.h5")]
        assert main(words) == 2
        err = capsys.readouterr().err
        assert says in err, err


@needs_opendss
def test_a_circuit_of_ones_own_becomes_a_scenario(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.dss").write_text(circuit_file("ieee13").read_text())
    assert main(["new", "mine.yaml", "--network", "own.dss", "--site", "a=675:80"]) == 0
    assert "own.dss: 15 buses; a with 80 GPUs at bus 675" in capsys.readouterr().out
    assert resolve(find("mine.yaml")).entities["grid"]["Bus"][:2] == ["bus650", "busrg60"]
    with Trace(run(find("mine.yaml"), "mine.h5", until_s=900).path) as trace:
        assert np.isfinite(trace["grid/Bus/nci_kg_per_kwh"]).all()
    assert main(["new", "no.yaml", "--network", "own.dss", "--site", "a=67:80"]) == 2
    assert "unknown bus of own.dss (--site a=67:80) '67'" in capsys.readouterr().err


# --- 121 buses ---

@pytest.mark.long
def test_the_network_of_121_buses_is_a_tree_of_what_its_module_says():
    """Six feeders of 20 buses; pandapower's power flow of it, from the same lines, has the sweep's voltages."""
    feeder = read_feeder("rural_mv")
    assert (feeder.n_bus, int((feeder.parent == 0).sum())) == (121, 6)
    none = np.zeros(0)
    flow = AcCheck("rural_mv", [])._solving.run(feeder.p_kw, feeder.q_kvar, none, none)
    swept = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0)
    assert np.abs(swept.v_pu) == pytest.approx(flow.vm_pu, abs=1e-9)
    assert flow.p_substation_kw == pytest.approx(feeder.p_kw.sum() + flow.loss_kw)


@pytest.mark.long
def test_a_few_steps_of_121_buses_hold_all_laws(tmp_path):
    """At noon of its day: the plants' surplus goes upstream and the voltage at the end of a feeder is what limits."""
    scenario = find("rural_mv")
    noon = {f"grid.sources.{name}.p_max_kw": row["p_max_kw"][44]
            for name, row in scenario.members["grid"].params["sources"].items() if name != "substation"}
    path = run(override(scenario, noon), tmp_path / "t.h5", until_s=900).path
    assert broken(path) == []
    with Trace(path) as trace:
        assert len(trace.names("grid/Bus")) == 121
        assert trace["grid/Grid/p_source_kw"][:, 0, 0].max() < 0.0
        assert "highest voltage, bus12" in {one.words for one in limits(trace)}
        assert math.isclose(trace["grid/Grid/vm_max_pu"].max(), 1.035, abs_tol=1e-5)
