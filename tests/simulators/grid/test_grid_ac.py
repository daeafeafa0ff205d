"""The grid without an optimiser: AC power flow of radial and meshed networks, with the carbon flow on top."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pandapower as pp
import pytest

from cosim.errors import ScenarioError, SolverError
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.network.powerflow import AcNetwork

SUBSTATION = {"node": 0, "kg_per_kwh": 0.3, "price_usd_per_kwh": 0.1}
TWO_BUSES = {"base_kv": 10.0, "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 2.0, "x_ohm": 4.0}]}
RING = {"base_kv": 10.0, "lines": [{"from_bus": a, "to_bus": b, "r_ohm": 1e-4, "x_ohm": 1e-3}
                                   for a, b in ((0, 1), (0, 2), (1, 2))]}


def started(buses: list[str], **params: Any) -> AcPowerFlow:
    grid = AcPowerFlow()
    grid.init("grid", 60.0, step_s=900.0, **params)
    grid.create(len(buses), "Bus", names=buses)
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid


def tick(grid: AcPowerFlow, bus_time: int, loads_kw: dict[str, float], q_per_p: float = 0.0) -> dict:
    inputs = {b: {"p_load_kw": {"x": p}, "q_load_kvar": {"x": q_per_p * p}} for b, p in loads_kw.items()}
    grid.step(bus_time, inputs, bus_time + 15)
    return grid.get_data({eid: [p.name for p in grid.MODELS[m] if p.flow == "out"]
                          for m, eids in grid.entities.items() for eid in eids})


@pytest.mark.rows("E09")
def test_two_buses_in_closed_form():
    # 500 kW and 200 kvar over z = 0.02 + 0.04j p.u., as in test_grid_dispatch.
    out = tick(started(["bus1"], network=TWO_BUSES, sources={"up": SUBSTATION}), 0, {"bus1": 500.0}, 0.4)
    b = 1.0 - 2 * (0.02 * 0.5 + 0.04 * 0.2)
    u = (b + math.sqrt(b * b - 4 * (0.02**2 + 0.04**2) * (0.5**2 + 0.2**2))) / 2
    loss = 0.02 * (0.5**2 + 0.2**2) / u * 1000
    assert out["bus1"] == pytest.approx({"nci_kg_per_kwh": 0.3, "vm_pu": math.sqrt(u)}, abs=1e-9)
    assert out["grid"]["loss_kw"] == pytest.approx(loss, abs=1e-6)
    assert out["grid"]["p_source_kw"] == pytest.approx([500 + loss], abs=1e-6)
    assert out["grid"]["emission_kg_per_h"] == pytest.approx(0.3 * (500 + loss), abs=1e-6)


def test_a_ring_shares_flows_and_carbon():
    # Three equal lines; 100 kW at 0.9 enter at bus 1, 300 kW are drawn at bus 2, the substation gives 200. Of each
    # injection 2/3 take the direct line: 0-1 carries 33.3, 0-2 166.7, 1-2 133.3.
    # w1 = (100 * 0.9 + 33.3 * 0.3) / 133.3 = 0.75; w2 = (166.7 * 0.3 + 133.3 * 0.75) / 300 = 0.5.
    grid = started(["bus0", "bus1", "bus2"], network=RING,
                   sources={"up": SUBSTATION, "gt": {"node": 1, "kg_per_kwh": 0.9, "p_set_kw": 100.0}})
    out = tick(grid, 0, {"bus2": 300.0})
    assert grid.labels()["line"] == ["0-1", "0-2", "1-2"]
    assert out["grid"]["p_from_kw"] == pytest.approx([100 / 3, 500 / 3, 400 / 3], abs=0.01)
    assert [out[f"bus{k}"]["nci_kg_per_kwh"] for k in range(3)] == pytest.approx([0.3, 0.75, 0.5], abs=1e-4)


@pytest.mark.parametrize(("demand_kw", "expected"), [
    (150.0, [150.0, 0.0, 0.0]), (450.0, [200.0, 250.0, 0.0]), (900.0, [200.0, 300.0, 0.0])])
def test_merit_order_takes_the_cheapest_first_and_nothing_dearer_than_the_substation(demand_kw, expected):
    sources = {"up": SUBSTATION, **{
        name: {"node": 1, "kg_per_kwh": 0.5, "p_max_kw": p, "price_usd_per_kwh": price}
        for name, p, price in (("a", 200.0, 0.05), ("b", 300.0, 0.08), ("c", 500.0, 0.2))}}
    out = tick(started(["bus1"], network=TWO_BUSES, sources=sources, dispatch="merit"), 0, {"bus1": demand_kw})["grid"]
    assert out["p_source_kw"][1:] == pytest.approx(expected)
    assert sum(out["p_source_kw"]) == pytest.approx(demand_kw + out["loss_kw"], abs=1e-6)


@pytest.mark.long
@pytest.mark.rows("E10", "U18")
def test_a_meshed_feeder_conserves_carbon():
    turbines = {f"gt{k}": {"node": k, "kg_per_kwh": w, "p_set_kw": 400.0, "q_set_kvar": 200.0}
                for k, w in ((6, 0.35), (25, 0.65), (30, 0.9))}
    buses = [f"bus{k}" for k in range(33)]
    grid = started(buses, sources={"up": SUBSTATION, **turbines}, closed_lines=[32, 33, 34, 35, 36])
    loads = {b: 60.0 + 5.0 * k for k, b in enumerate(buses)}
    out = tick(grid, 0, loads, 0.3)
    ends = grid._network.branches
    assert len(ends.names) == 37
    nci = np.array([out[b]["nci_kg_per_kwh"] for b in buses])
    p_from, p_to = np.array(out["grid"]["p_from_kw"]), np.array(out["grid"]["p_to_kw"])
    sender = np.where(p_from > 0, ends.from_bus, ends.to_bus)
    used = sum(nci[k] * loads[b] for k, b in enumerate(buses)) + nci[sender] @ (p_from + p_to)
    assert used == pytest.approx(out["grid"]["emission_kg_per_h"], abs=1e-6)
    assert (p_from + p_to).sum() == pytest.approx(out["grid"]["loss_kw"], abs=1e-9)


def test_transformers_are_branches():
    # 14 buses at three voltages: what the substation sends is what is drawn and lost, all at its intensity.
    with pytest.raises(ScenarioError, match=r"has generator 'gen0' \(bus 1, 40000 kW\) in service; give the kg/kWh"):
        AcPowerFlow().init("grid", 60.0, step_s=900.0, network="case14", sources={"up": SUBSTATION})
    grid = started(["bus8", "bus12"], network="case14", sources={"up": SUBSTATION}, network_sources={"gen0": 0.3})
    out = tick(grid, 0, {"bus8": 30000.0, "bus12": 20000.0})
    assert sum(name.startswith("trafo") for name in grid.labels()["line"]) == 5
    assert out["grid"]["p_source_kw"][:2] == pytest.approx([10000.0 + out["grid"]["loss_kw"], 40000.0], abs=1e-2)
    assert out["bus12"]["nci_kg_per_kwh"] == pytest.approx(0.3, abs=1e-12)


def test_a_step_without_a_power_flow_is_held_and_the_first_one_is_an_error():
    grid = started(["bus1"], network=TWO_BUSES, sources={"up": SUBSTATION})
    first = tick(grid, 0, {"bus1": 500.0})
    held = tick(grid, 15, {"bus1": 50000.0})
    assert held["bus1"] == first["bus1"]
    assert (first["grid"]["status"], held["grid"]["status"]) == (0.0, 2.0)
    assert grid.notes() == ["grid: 1 steps had no power flow and repeat the one before; first at 00:15"]
    with pytest.raises(SolverError, match="grid at 00:00: the AC power flow finds no solution at 50000 kW"):
        tick(started(["bus1"], network=TWO_BUSES, sources={"up": SUBSTATION}), 0, {"bus1": 50000.0})


@pytest.mark.parametrize(("params", "message"), [
    ({"sources": {"gt": {"node": 6, "kg_per_kwh": 0.3}}}, "no source stands at bus 0, where the external grid is"),
    ({"sources": {"up": SUBSTATION, "gt": {"node": 40, "kg_per_kwh": 0.3}}}, r"gt.node = 40 is not a bus.* 0 to 32"),
    ({"sources": {"up": SUBSTATION}, "closed_lines": [40]}, "has no line 40 to close; its lines are 0 to 36"),
    ({"sources": {"up": SUBSTATION}, "network": {"base_kv": 10.0, "lines": [
        {"from_bus": 0, "to_bus": 1, "r_ohm": 1.0, "x_ohm": 1.0}, {"from_bus": 2, "to_bus": 3, "r_ohm": 1.0,
                                                                    "x_ohm": 1.0}]}}, "island: buses 2, 3 are not con"),
    ({"sources": {"up": SUBSTATION}, "vm_min_pu": 1.2}, "vm_min_pu = 1.2 must be below"),
])
def test_wrong_requests_are_named(params: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        AcPowerFlow().init("grid", 60.0, step_s=900.0, **params)


@pytest.fixture
def switched(tmp_path) -> str:
    """10 kV: external grid at 0 (1.02 p.u.), 0 - 1 = 2 (a closed bus-bus switch) - 3, and a line 3 - 0 that a line
    switch opens; 300 kW at 3, -20 kW at 1, a fixed PV of 50 kW at 2."""
    net = pp.create_empty_network()
    pp.create_buses(net, 4, vn_kv=10.0)
    for a, b in ((0, 1), (2, 3), (3, 0)):
        pp.create_line_from_parameters(net, a, b, 1.0, 0.4, 0.3, 0.0, 1.0)
    pp.create_switch(net, 1, 2, et="b")
    pp.create_switch(net, 0, 2, et="l", closed=False)
    pp.create_load(net, 3, p_mw=0.3)
    pp.create_load(net, 1, p_mw=-0.02)
    pp.create_sgen(net, 2, p_mw=0.05, controllable=False, max_p_mw=0.25, name="PV")
    pp.create_ext_grid(net, 0, vm_pu=1.02)
    pp.to_json(net, str(tmp_path / "net.json"))
    return str(tmp_path / "net.json")


def test_buses_that_a_switch_joins_are_one_and_share_an_intensity(switched: str):
    # At the busbar 1 = 2: 50 kW at 0.1 from the sun, 20 at 0 of the negative load, the rest of 0.5; all of it goes on.
    grid = started(["bus0", "bus1", "bus2", "bus3"], network=switched, sources={"up": SUBSTATION | {"kg_per_kwh": 0.5}},
                   network_sources={"*": 0.1})
    assert grid.labels() == {"source": ["up", "PV"], "line": ["0-1", "1-3", "3-line2end"],
                             "bus": ["bus0", "bus1", "bus3", "line2end"]}
    assert grid.tables()["buses"]["bus"] == ["bus0", "bus1", "bus1", "bus3"]
    out = tick(grid, 0, {"bus1": -20.0, "bus3": 300.0})
    p_from, p_to = (np.array(out["grid"][k]) for k in ("p_from_kw", "p_to_kw"))
    assert out["grid"]["p_source_kw"] == pytest.approx([p_from[0], 50.0])
    expected = (-p_to[0] * 0.5 + 50.0 * 0.1) / (-p_to[0] + 50.0 + 20.0)
    assert [out[f"bus{k}"]["nci_kg_per_kwh"] for k in (1, 2, 3)] == pytest.approx([expected] * 3, abs=1e-12)
    assert p_from[1] == pytest.approx(-p_to[0] + 70.0, abs=1e-6)
    assert out["bus0"]["vm_pu"] == 1.02  # the file's, for the scenario says none
    assert grid.notes() == [f"grid: network {switched}: load 1 of negative power counts as local generation at 0 "
                            "kg/kWh; an sgen in its place can have an intensity"]


def test_demand_of_joined_buses_adds_up(switched: str):
    grid = started(["bus1", "bus2"], network=switched, sources={"up": SUBSTATION}, network_sources={"PV": 0.1})
    out = tick(grid, 0, {"bus1": 100.0, "bus2": 150.0})
    assert out["grid"]["p_source_kw"][0] == pytest.approx(200.0 + out["grid"]["loss_kw"], abs=1e-6)


def test_a_closed_line_has_its_switches_closed(switched: str):
    given = {"network": switched, "sources": {"up": SUBSTATION}, "network_sources": {"PV": 0.1}, "v0_pu": 1.0}
    ring = started(["bus3"], closed_lines=[2], **given)
    out = tick(ring, 0, {"bus3": 300.0})
    assert ring.labels()["line"] == ["0-1", "1-3", "3-0"]
    # Half the resistance one way as the other: with the 50 kW at the busbar 2/3 (300 - 25) kW come by the ring's line.
    assert -out["grid"]["p_from_kw"][2] == pytest.approx((300.0 * 2 - 50.0) / 3, abs=0.5)
    assert any("v0_pu = 1 of the scenario, not 1.02 p.u. as the network has it" in note for note in ring.notes())


@pytest.mark.long
@pytest.mark.parametrize(("own", "message"), [
    ({}, r"has generator 'PV' \(bus 2, 50 kW\) in service; give the kg/kWh of each in grid.network_sources"),
    ({"pv": 0.1}, r"unknown generator of .* 'pv'; did you mean 'PV'\? allowed: PV"),
])
def test_own_generators_need_an_intensity(switched: str, own: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        started(["bus3"], network=switched, sources={"up": SUBSTATION}, network_sources=own)


@pytest.mark.long
def test_every_external_grid_is_a_source(switched: str):
    net = pp.from_json(switched)
    pp.create_ext_grid(net, 3, vm_pu=1.02)
    pp.to_json(net, switched)
    given = {"network": switched, "network_sources": {"PV": 0.0}}
    with pytest.raises(ScenarioError, match="no source stands at bus 3, where the external grid is"):
        started(["bus3"], sources={"up": SUBSTATION}, **given)
    grid = started(["bus1", "bus3"], sources={"up": SUBSTATION, "other": {"node": 3, "kg_per_kwh": 0.8}}, **given)
    out = tick(grid, 0, {"bus1": 130.0, "bus3": 300.0})
    assert sum(out["grid"]["p_source_kw"]) == pytest.approx(430.0 + out["grid"]["loss_kw"], abs=1e-6)
    assert out["grid"]["p_source_kw"][1] > 250.0  # next door, at one voltage
    assert out["grid"]["emission_kg_per_h"] == pytest.approx(
        0.3 * out["grid"]["p_source_kw"][0] + 0.8 * out["grid"]["p_source_kw"][1])


@pytest.mark.long
def test_networks_that_are_read_once_run_apart(tmp_path):
    """Sources and runs of one leave another of the same file as it is, to the last bit; a changed file is read anew."""
    net, path = pp.create_empty_network(), tmp_path / "net.json"
    buses = [pp.create_bus(net, 10.0) for _ in range(2)]
    pp.create_ext_grid(net, buses[0])
    pp.create_line_from_parameters(net, *buses, 1.0, r_ohm_per_km=2.0, x_ohm_per_km=4.0, c_nf_per_km=0.0, max_i_ka=1.0)
    pp.to_json(net, str(path))

    def flow(network: AcNetwork, load_kw: float, source_kw: list[float]):
        found = network.run(np.array([0.0, load_kw]), np.zeros(2), np.array(source_kw), np.zeros(len(source_kw)))
        return found.vm_pu.tolist(), found.p_substation_kw

    alone = flow(AcNetwork(str(path), []), 300.0, [])
    first = AcNetwork(str(path), [1])
    assert flow(first, 900.0, [900.0])[1] == pytest.approx(0.0, abs=1e-6)
    second = AcNetwork(str(path), [])
    second.add_sources([1])
    flow(first, 500.0, [0.0])
    assert flow(second, 300.0, [0.0]) == alone
    assert flow(AcNetwork(str(path), [], 1.05), 300.0, [])[0][0] == 1.05
    net.line["r_ohm_per_km"] = 4.0
    pp.to_json(net, str(path))
    os.utime(path, ns=(0, 1))
    assert flow(AcNetwork(str(path), []), 300.0, [])[1] > alone[1] + 0.1
