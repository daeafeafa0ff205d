"""The grid without an optimiser: AC power flow of radial and meshed networks, with the carbon flow on top."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cosim.errors import ScenarioError, SolverError
from simulators.grid.ac import AcPowerFlow

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
