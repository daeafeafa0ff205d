"""The grid as a simulator on the bus: names, ports, held intervals, the AC check, and what it tells at the end."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosim.errors import ScenarioError, SolverError
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.ports import REALISED

TWO_BUSES = {
    "base_kv": 10.0,
    "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 2.0, "x_ohm": 4.0}],
    "loads": [{"bus": 1, "p_kw": 500.0, "q_kvar": 200.0}],
}
SUBSTATION = {"node": 0, "kg_per_kwh": 0.3}
TABLE_I = {
    "substation": SUBSTATION,
    **{f"gt{node}": {"node": node, "kg_per_kwh": w, "p_max_kw": 500.0, "q_min_kvar": -300.0, "q_max_kvar": 300.0}
       for node, w in ((6, 0.35), (25, 0.65), (30, 0.90))},
}


def started(buses: list[str], **params: Any) -> CefDispatch:
    """A grid with these Bus entities and one Grid called 'grid', as a driver sets it up."""
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, seed=1, **params)
    if buses:
        grid.create(len(buses), "Bus", names=buses)
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid


def tick(grid: CefDispatch, bus_time: int, loads: dict[str, dict[str, float]]) -> dict:
    """One step with `loads` as {bus: {source: kW}} and 0.4 kvar/kW, those of "aidc" at the data centers' ports; all
    outputs."""
    inputs: dict = {bus: {} for bus in loads}
    for bus, by_source in loads.items():
        for source, p in by_source.items():
            kind = "site" if source.startswith("aidc.") else "load"
            inputs[bus].setdefault(f"p_{kind}_kw", {})[source] = p
            inputs[bus].setdefault(f"q_{kind}_kvar", {})[source] = 0.4 * p
    assert grid.step(bus_time, inputs, bus_time + 15) == bus_time + 15
    wanted = {eid: [p.name for p in grid.MODELS[model] if p.flow == "out"]
              for model, eids in grid.entities.items() for eid in eids}
    return grid.get_data(wanted)


def two_buses(p: float) -> tuple[float, float]:
    """(u, loss in kW) at bus 1 of TWO_BUSES under p + 0.4j p p.u., as in test_grid_dispatch."""
    q = 0.4 * p
    b = 1.0 - 2 * (0.02 * p + 0.04 * q)
    u = (b + math.sqrt(b * b - 4 * (0.02**2 + 0.04**2) * (p * p + q * q))) / 2
    return u, 0.02 * (p * p + q * q) / u * 1000.0


@pytest.mark.rows("E04", "E05")
def test_demand_of_several_sources_adds_up():
    grid = started(["bus0", "bus1"], network=TWO_BUSES, sources={"substation": SUBSTATION})
    out = tick(grid, 0, {"bus1": {"profile": 300.0, "aidc": 200.0}})
    # As in test_grid_dispatch: 500 kW and 200 kvar over z = 0.02 + 0.04j p.u.
    b = 1.0 - 2 * (0.02 * 0.5 + 0.04 * 0.2)
    u = (b + math.sqrt(b * b - 4 * (0.02**2 + 0.04**2) * (0.5**2 + 0.2**2))) / 2
    loss = 0.02 * (0.5**2 + 0.2**2) / u * 1000
    assert {k: out["bus1"][k] for k in ("nci_kg_per_kwh", "vm_pu")} == pytest.approx(
        {"nci_kg_per_kwh": 0.3, "vm_pu": math.sqrt(u)}, abs=1e-9)
    assert out["grid"]["loss_kw"] == pytest.approx(loss, abs=1e-9)
    assert out["grid"]["p_from_kw"] == pytest.approx([500 + loss], abs=1e-9)
    assert out["grid"]["p_to_kw"] == pytest.approx([-500], abs=1e-9)
    assert out["grid"]["p_source_kw"] == pytest.approx([500 + loss], abs=1e-9)
    assert out["grid"]["vm_min_pu"] == out["bus1"]["vm_pu"]
    assert (out["grid"]["vm_max_pu"], out["grid"]["status"], out["grid"]["unserved_kw"]) == (1.0, 0.0, 0.0)


def test_outputs_are_plain_and_fresh():
    grid = started(["bus8", "bus28"], sources=TABLE_I)
    outs = [tick(grid, t, {"bus8": {"a": 200.0 + t}, "bus28": {"a": 300.0}}) for t in (0, 15)]
    for value in [v for ports in outs[0].values() for v in ports.values()]:
        for item in value if type(value) is list else [value]:
            assert type(item) is float
    assert len(outs[0]["grid"]["p_from_kw"]) == len(grid.labels()["line"]) == 32
    assert grid.labels()["source"] == ["substation", "gt6", "gt25", "gt30"]
    assert outs[0]["grid"]["p_from_kw"] is not outs[1]["grid"]["p_from_kw"]
    assert outs[0]["bus8"]["nci_kg_per_kwh"] != outs[1]["bus8"]["nci_kg_per_kwh"]


def test_the_ac_check_is_small_and_can_be_left_out():
    out = tick(started(["bus8"], sources=TABLE_I), 0, {"bus8": {"a": 400.0}})["grid"]
    assert 0.0 <= out["ac_dvm_pu"] <= 1e-6
    assert 0.0 <= out["ac_dloss_kw"] <= 1e-3
    assert 0.0 <= out["ac_dnci_kg_per_kwh"] <= 1e-6
    assert 0.0 <= out["relaxation_gap_pu"] <= 1e-6
    without = tick(started(["bus8"], sources=TABLE_I, ac_check=False), 0, {"bus8": {"a": 400.0}})["grid"]
    assert all(math.isnan(without[k]) for k in ("ac_dvm_pu", "ac_dloss_kw", "ac_dnci_kg_per_kwh"))
    assert without["loss_kw"] == out["loss_kw"]


def test_marginal_carbon_intensity_counts_what_a_data_centre_draws_with_each_kw():
    loads = {b: {"a": 700.0} for b in ("bus8", "bus28", "bus32")}
    eta = {"sites": {"aidc1": {"node": 8, "q_per_p_ratio": 0.2}}}
    with_q, without = (tick(started(["bus8", "bus28", "bus32"], sources=TABLE_I, **p), 0, loads) for p in (eta, {}))
    # Every turbine is at its limit: a kW more comes over the line from the substation, 0.2 kvar more with it.
    assert with_q["grid"]["marginal_sources"] == [1.0, 0.0, 0.0, 0.0]
    assert with_q["bus8"]["mci_kg_per_kwh"] > without["bus8"]["mci_kg_per_kwh"] + 1e-4 > 0.3
    assert with_q["bus28"] == without["bus28"]
    assert (with_q["bus8"]["mci_status"], with_q["bus8"]["mci_down_kg_per_kwh"]) == (
        0.0, with_q["bus8"]["mci_kg_per_kwh"])
    off = tick(started(["bus8"], sources=TABLE_I, mci=False), 0, {"bus8": {"a": 300.0}})["bus8"]
    assert (math.isnan(off["mci_kg_per_kwh"]), math.isnan(off["mci_down_kg_per_kwh"]), off["mci_status"]) == (
        True, True, 4.0)


@pytest.mark.rows("I31")
def test_the_substations_marginal_intensity_counts_in_mci_alone():
    """I31: consequential accounts may take another figure than the average of (11); the dispatch does not change."""
    loads = {b: {"a": 700.0} for b in ("bus8", "bus28", "bus32")}  # every turbine at its limit: the substation answers
    dearer = {**TABLE_I, "substation": {**SUBSTATION, "marginal_kg_per_kwh": 0.6}}
    grids = [started(list(loads), sources=s) for s in (TABLE_I, dearer)]
    average, marginal = (tick(g, 0, loads) for g in grids)
    assert marginal["bus8"]["mci_kg_per_kwh"] == pytest.approx(2.0 * average["bus8"]["mci_kg_per_kwh"], rel=1e-6)
    for port in ("nci_kg_per_kwh", "vm_pu"):
        assert marginal["bus8"][port] == average["bus8"][port]
    assert marginal["grid"]["emission_kg_per_h"] == average["grid"]["emission_kg_per_h"]
    assert "grid: mci counts substation at 0.6 kg/kWh, its marginal intensity; NCI and emission are at its average" in (
        grids[1].notes())
    assert not any("mci counts" in line for line in grids[0].notes())


def test_marginal_carbon_intensity_without_an_optimum_is_of_the_interval_before_and_says_so():
    grid = started(["bus8"], sources=TABLE_I)
    wild, calm = {"bus8": {"a": 15000.0}}, {"bus8": {"a": 300.0}}
    first, second, third = (tick(grid, 15 * k, loads)["bus8"] for k, loads in enumerate((wild, calm, wild)))
    assert math.isnan(first["mci_kg_per_kwh"])
    assert [o["mci_status"] for o in (first, second, third)] == [4.0, 0.0, 3.0]
    assert third["mci_kg_per_kwh"] == second["mci_kg_per_kwh"]


@pytest.mark.rows("M09")
def test_an_interval_is_settled_at_its_end_by_what_the_data_centre_drew():
    # Base load 300 kW then 350; the data centre draws 200 kW at the first dispatch and 260 in the interval after it.
    grid = started(["bus1"], network=TWO_BUSES, sources={"substation": SUBSTATION}, sites={"aidc1": {"node": 1}})
    first = tick(grid, 0, {"bus1": {"profile.bus1": 300.0, "aidc.aidc1": 200.0}})["grid"]
    second = tick(grid, 15, {"bus1": {"profile.bus1": 350.0, "aidc.aidc1": 260.0}})["grid"]
    u, loss = two_buses(0.560)
    assert math.isnan(first["emission_realised_kg_per_h"])
    assert math.isnan(first["imbalance_kwh"])
    assert second["loss_realised_kw"] == pytest.approx(loss, abs=1e-9)
    assert second["p_substation_realised_kw"] == pytest.approx(560.0 + loss, abs=1e-9)
    assert second["emission_realised_kg_per_h"] == pytest.approx(0.3 * (560.0 + loss), abs=1e-9)
    assert second["imbalance_kwh"] == pytest.approx((560.0 + loss - first["p_source_kw"][0]) / 4, abs=1e-9)
    assert second["vm_min_realised_pu"] == pytest.approx(math.sqrt(u), abs=1e-12)
    assert second["voltage_violation_realised_pu"] == 0.0
    assert second["p_source_kw"][0] == pytest.approx(610.0 + two_buses(0.610)[1], abs=1e-9)


def test_a_data_centre_is_told_by_its_port_whatever_it_is_called():
    """A load called like a site is base load, with the forecast's error; a site need not be known by name."""
    given = {"network": TWO_BUSES, "sources": {"substation": SUBSTATION}, "forecast_sigma_ratio": 0.1}
    named = started(["bus1"], **given, sites={"bus1": {"node": 1}, "aidc1": {"node": 1}})
    other = started(["bus1"], **given, sites={"s": {"node": 1}})
    for k, p in enumerate((200.0, 260.0)):
        of_named = tick(named, 15 * k, {"bus1": {"profile.bus1": 250.0, "houses.aidc1": 50.0, "aidc.x": p}})["grid"]
        of_other = tick(other, 15 * k, {"bus1": {"profile.x": 300.0, "aidc.y": p}})["grid"]
        assert str(of_named) == str(of_other)
        expected = 300.0 * (1.0 + of_named["forecast_error_ratio"]) + p
        assert of_named["p_source_kw"][0] - of_named["loss_kw"] == pytest.approx(expected, abs=1e-9)
    assert of_named["p_substation_realised_kw"] == pytest.approx(560.0 + two_buses_at(560.0), abs=1e-9)
    assert not any("p_site_kw" in note for note in named.notes())


def test_sites_that_draw_through_the_base_loads_port_are_said():
    grid = started(["bus1"], network=TWO_BUSES, sources={"substation": SUBSTATION}, sites={"aidc1": {"node": 1}})
    tick(grid, 0, {"bus1": {"profile.bus1": 300.0, "elsewhere.aidc1": 200.0}})
    assert any("nothing was drawn through p_site_kw" in note for note in grid.notes())


@pytest.mark.rows("Z06")
def test_a_forecast_error_is_dispatched_and_the_base_load_that_came_is_settled():
    """Z06: one relative error of the base load per interval, seeded; what data centers draw is known."""
    given = {"network": TWO_BUSES, "sources": {"substation": SUBSTATION}, "sites": {"aidc1": {"node": 1}}}
    loads = {"bus1": {"profile.bus1": 300.0, "aidc.aidc1": 200.0}}
    grid, twin = (started(["bus1"], **given, forecast_sigma_ratio=0.1, forecast_correlation=0.5) for _ in range(2))
    outs = [[tick(g, 15 * k, loads)["grid"] for k in range(40)] for g in (grid, twin)]
    assert [o["forecast_error_ratio"] for o in outs[0]] == [o["forecast_error_ratio"] for o in outs[1]]
    errors = [o["forecast_error_ratio"] for o in outs[0]]
    assert 0.04 < math.sqrt(math.fsum(e * e for e in errors) / 40) < 0.2
    for k, out in enumerate(outs[0]):
        expected = 500.0 + 300.0 * errors[k]
        assert out["p_source_kw"][0] - out["loss_kw"] == pytest.approx(expected, abs=1e-9)
        if k:
            assert out["p_substation_realised_kw"] == pytest.approx(500.0 + two_buses_at(500.0), abs=1e-9)
            assert out["imbalance_kwh"] == pytest.approx(
                (out["p_substation_realised_kw"] - outs[0][k - 1]["p_source_kw"][0]) / 4, abs=1e-9)
    exact = tick(started(["bus1"], **given), 0, loads)["grid"]
    assert exact["forecast_error_ratio"] == 0.0
    assert exact["p_source_kw"][0] == pytest.approx(500.0 + two_buses_at(500.0), abs=1e-9)


def two_buses_at(p_kw: float) -> float:
    return two_buses(p_kw / 1000.0)[1]


@pytest.mark.rows("Z06")
def test_what_was_dispatched_is_what_is_settled_when_nothing_changes():
    grid = started(["bus8", "bus28"], sources=TABLE_I, sites={"aidc1": {"node": 8}})
    loads = {"bus8": {"aidc.aidc1": 400.0, "profile.bus8": 100.0}, "bus28": {"profile.bus28": 300.0}}
    first, second = (tick(grid, t, loads)["grid"] for t in (0, 15))
    assert second["emission_realised_kg_per_h"] == pytest.approx(first["emission_kg_per_h"], abs=1e-9)
    assert second["loss_realised_kw"] == pytest.approx(first["loss_kw"], abs=1e-9)
    assert second["imbalance_kwh"] == pytest.approx(0.0, abs=1e-9)


def test_without_settlement_only_the_settled_ports_change():
    loads = {"bus8": {"aidc.aidc1": 400.0, "profile.bus8": 100.0}, "bus28": {"profile.bus28": 300.0}}
    settled, plain = (started(["bus8", "bus28"], sources=TABLE_I, settle=settle) for settle in (True, False))
    for t in (0, 15):
        one, other = tick(settled, t, loads)["grid"], tick(plain, t, loads)["grid"]
        left_out = {name for name in other if t and str(other[name]) == "nan" != str(one[name])}
        assert left_out == (set(REALISED) if t else set())
        assert str({k: v for k, v in one.items() if k not in REALISED}) == str(
            {k: v for k, v in other.items() if k not in REALISED})


def test_an_inexact_interval_is_flagged_and_a_surplus_that_nobody_takes_held():
    grid = started(["bus1"], network=TWO_BUSES, sources=MUST_RUN)
    outs = [tick(grid, 15 * k, {"bus1": {"a": p}})["grid"] for k, p in enumerate((1000.0, 100.0))]
    assert [(o["inexact"], o["status"]) for o in outs] == [(0.0, 0.0), (1.0, 2.0)]
    assert "grid: 1 intervals have a relaxation that is not exact; first at 00:15" in grid.notes()
    pv = {"up": {"node": 0, "kg_per_kwh": 0.9, "p_min_kw": -5000.0},
          "pv": {"node": 1, "kg_per_kwh": 0.0, "p_max_kw": 3000.0, "q_min_kvar": 0.0, "q_max_kvar": 0.0}}
    grid = started(["bus1"], network=TWO_BUSES, sources=pv, lambda_kw_per_kg_h=1.0, vm_max_pu=1.02)
    outs = [tick(grid, 15 * k, {"bus1": {"a": p}})["grid"] for k, p in enumerate((0.0, 2500.0))]
    assert [(o["inexact"], o["status"]) for o in outs] == [(1.0, 0.0), (0.0, 0.0)]
    assert outs[0]["vm_max_pu"] == pytest.approx(1.02, abs=1e-6)
    assert max(outs[0]["relaxation_gap_ratio"]) > 1e-2 > 1e-5 > max(outs[1]["relaxation_gap_ratio"])


MUST_RUN = {"substation": SUBSTATION, "gt": {"node": 1, "kg_per_kwh": 0.9, "p_min_kw": 400.0, "p_max_kw": 400.0}}


@pytest.mark.rows("I30")
def test_an_interval_without_a_solution_holds_the_last_one():
    # 400 kW must be made at bus 1 and the substation takes none back, so 100 kW of demand is no state at all.
    grid = started(["bus1"], network=TWO_BUSES, sources=MUST_RUN)
    first = tick(grid, 0, {"bus1": {"a": 1000.0}})
    held = tick(grid, 15, {"bus1": {"a": 100.0}})
    after = tick(grid, 30, {"bus1": {"a": 800.0}})
    # w1 = (0.3 (1000 - 400) + 0.9 * 400) / 1000 = 0.54, held; then (0.3 * 400 + 0.9 * 400) / 800 = 0.6.
    assert [o["bus1"]["nci_kg_per_kwh"] for o in (first, held, after)] == pytest.approx([0.54, 0.54, 0.6], abs=1e-6)
    assert [o["grid"]["status"] for o in (first, held, after)] == [0.0, 2.0, 0.0]
    assert held["grid"]["p_from_kw"] == first["grid"]["p_from_kw"]
    assert "grid: 1 intervals had no solution and repeat the one before; first at 00:15" in grid.notes()


def test_a_first_interval_without_a_solution_is_an_error():
    grid = started(["bus1"], network=TWO_BUSES, sources=MUST_RUN)
    with pytest.raises(SolverError, match="grid at 00:00: the dispatch .* has no solution"):
        tick(grid, 0, {"bus1": {"a": 100.0}})


@pytest.mark.rows("I30")
def test_elastic_intervals_are_flagged_and_counted():
    grid = started(["bus8", "bus28", "bus32"], sources=TABLE_I)
    calm = {b: {"a": 300.0} for b in ("bus8", "bus28", "bus32")}
    wild = {b: {"a": 5000.0} for b in calm}
    outs = [tick(grid, 15 * k, loads)["grid"] for k, loads in enumerate((calm, wild, wild, calm))]
    assert [o["status"] for o in outs] == [0.0, 1.0, 1.0, 0.0]
    assert outs[1]["unserved_kw"] > 1000.0
    assert outs[1]["voltage_violation_pu"] == pytest.approx(0.2, abs=1e-4)
    assert outs[0]["unserved_kw"] == outs[0]["voltage_violation_pu"] == 0.0
    assert outs[1]["ac_dvm_pu"] <= 1e-5
    assert grid.notes()[0].startswith("grid: dispatch solved by ")
    assert outs[0]["unserved_bus_kw"] == outs[0]["voltage_slack_bus_pu"] == [0.0] * 33
    assert math.fsum(outs[1]["unserved_bus_kw"]) == pytest.approx(outs[1]["unserved_kw"])
    assert min(outs[1]["voltage_slack_bus_pu"]) == -outs[1]["voltage_violation_pu"]
    (said,) = grid.notes()[1:]
    assert said.startswith("grid: 2 intervals were elastic: a voltage left its limits, power went unserved, a branch "
                           "is above its limit, or an NCI is above its cap; first at 00:15 (")
    worst = max(range(33), key=lambda k: outs[1]["unserved_bus_kw"][k])
    assert f"{outs[1]['unserved_bus_kw'][worst]:.0f} kW unserved at bus{worst}" in said
    assert said.endswith("p.u., below 0.9)")


def test_names_that_are_no_bus_are_refused():
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, sources=TABLE_I)
    with pytest.raises(ScenarioError, match=r"unknown bus of grid \(case33bw\) 'bus33'; did you mean 'bus3"):
        grid.create(1, "Bus", names=["bus33"])
    assert [e["eid"] for e in grid.create(3, "Bus")] == ["bus0", "bus1", "bus2"]
    with pytest.raises(ScenarioError, match="2 entities of Grid"):
        grid.create(2, "Grid")


@pytest.mark.parametrize(("params", "message"), [
    ({"sources": {"s": {"node": 0, "kg_per_kwh": -1}}}, "grid.sources.s.kg_per_kwh = -1: .*equal to 0"),
    ({"sources": {"s": {"node": 0, "kg_per_kw": 1}}}, "kg_per_kw.* did you mean 'kg_per_kwh'"),
    ({}, "grid.sources is required"),
    ({"sources": TABLE_I, "vm_min_pu": 1.2}, "vm_min_pu = 1.2 must be below vm_max_pu = 1.1"),
    ({"sources": TABLE_I, "solver": "cplex"}, "grid.solver = 'cplex'"),
    ({"sources": TABLE_I, "network": {"base_kv": 10.0, "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": -1.0,
                                                                    "x_ohm": 0.0}]}}, r"lines.0.r_ohm = -1.0"),
    ({"sources": TABLE_I, "network": "case34bw"}, "unknown network 'case34bw'"),
])
def test_wrong_parameters_are_named(params: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        CefDispatch().init("grid", 60.0, step_s=900.0, **params)
