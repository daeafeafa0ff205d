"""Rooms that take time to warm: the exponential by hand, rest as the static plant, balances, alarms, load shed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.engine.interval import SiteInterval
from cosim.simulators.aidc.equations import air_kw_per_k, cooling_power_kw, crac, inlet_factor
from cosim.simulators.aidc.plant.ambient import OutdoorAir
from cosim.simulators.aidc.plant.cooling import CORRECTED, LITERAL, TABLE2, Cooling
from cosim.simulators.aidc.plant.thermal import Room, StaticPlant
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.reporting.air import air
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.events import events
from cosim.simulators.reporting.sites import uses
from cosim.trace import Trace

NOWHERE = OutdoorAir()
TAU_S = 8000.0 / 26.495525


def minute(*powers: tuple[float, float], cooling: Cooling = CORRECTED, set_degc: float = 23.0) -> SiteInterval:
    """A tick from 0 s on with (length, s; IT power, kW) one after the other, as a facility reports it."""
    segments, now_s = [], 0.0
    for length_s, kw in powers:
        segments.append((now_s, now_s + length_s, kw, *cooling_power_kw(kw, set_degc, cooling)[1:], 0.0))
        now_s += length_s
    mean_kw = sum(length_s * kw for length_s, kw in powers) / now_s
    nothing = ([],) * 8
    return SiteInterval(now_s, mean_kw, 0.0, 0.0, *nothing, 0, {}, {}, segments=tuple(segments))


def test_a_step_of_power_is_the_exponential_by_hand():
    # c rho Phi = 26.495 525 kW/K, C = 8000 kJ/K: tau = 301.937 78 s. From rest at 100 kW to 300 kW the return air goes
    # from 23.3 + 100/26.495525 = 27.074 222 to 23.3 + 300/26.495525 = 34.622 667 degC; after tau 1/e of 7.548 444 K is
    # left
    room = Room(CORRECTED, 100.0, 23.0, "cooling")
    assert room.return_degc == pytest.approx(27.074222, abs=1e-6)
    heat = room.tick(minute((TAU_S, 300.0)), TAU_S, 23.0, NOWHERE)
    assert heat.return_degc == pytest.approx(34.622667 - 7.548444 / math.e, abs=1e-5)
    # heat kept back: C dT = 8000 * 7.548 430 (1 - 1/e) kJ, over tau
    stored_kw = 8000.0 * 7.548444 * (1.0 - 1.0 / math.e) / TAU_S
    assert heat.heat_removed_kw == pytest.approx(300.0 + 26.495525 * 0.3 - stored_kw, abs=1e-4)
    assert heat.it_kw == pytest.approx(300.0, rel=1e-12)
    assert (heat.supply_degc, heat.inlet_degc, heat.alarms) == (23.0, 27.0, ())


def test_many_small_steps_are_one():
    # the course does not depend on where the time is cut
    once, often = (Room(CORRECTED, 100.0, 23.0, "cooling") for _ in range(2))
    whole = once.tick(minute((60.0, 350.0)), 60.0, 20.0, OutdoorAir(16.0))
    parts = [often.tick(minute((5.0, 350.0)), 5.0, 20.0, OutdoorAir(16.0)) for _ in range(12)]
    assert often.return_degc == pytest.approx(once.return_degc, rel=1e-13)
    for name in ("chiller_kw", "tower_kw", "heat_removed_kw", "loss_kw"):
        assert sum(getattr(h, name) for h in parts) / 12 == pytest.approx(getattr(whole, name), rel=1e-9)


PLANTS = {
    "corrected": CORRECTED, "literal": LITERAL, "table2": TABLE2,
    "economiser": replace(CORRECTED, loss_linear_ratio=0.04, cop_outside_degc=18.0),
    "fans": replace(CORRECTED, server_leakage_per_k=0.004, server_fan_ratio=0.1, server_fan_speed_per_k=0.05),
    "dry": replace(CORRECTED, heat_rejection="dry"),
    "racks": replace(CORRECTED, supply_offset_degc=(3.0, 4.0, 3.5), return_approach_degc=(-3.0, -3.5, -3.4)),
}


@pytest.mark.long(after=8)
@pytest.mark.parametrize("name", list(PLANTS))
@pytest.mark.parametrize("set_degc", [18.0, 21.7, 23.0])
def test_at_rest_it_is_the_static_plant(name, set_degc):
    cooling, outside = PLANTS[name], OutdoorAir(11.0, 14.0)
    served_kw = 300.0 * inlet_factor(set_degc, cooling)
    static = StaticPlant(cooling, True).tick(minute((60.0, served_kw)), 60.0, set_degc, outside)
    room = Room(cooling, 100.0, 20.0, "cooling")
    for _ in range(600):
        heat = room.tick(minute((60.0, served_kw)), 60.0, set_degc, outside)
    for field in ("it_kw", "chiller_kw", "tower_kw", "loss_kw", "heat_removed_kw", "supply_degc", "inlet_degc",
                  "outlet_degc", "return_degc", "water_kg_per_h", "free_ratio"):
        assert getattr(heat, field) == pytest.approx(getattr(static, field), rel=1e-9, abs=1e-9), field
    assert heat.imbalance_kw == pytest.approx(static.imbalance_kw, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    powers=st.lists(st.tuples(st.floats(0.01, 90.0), st.floats(100.0, 500.0)), min_size=1, max_size=12),
    sets=st.lists(st.floats(18.0, 23.0), min_size=1, max_size=4),
    capacity_kw=st.sampled_from([None, 180.0, 300.0]), wet_bulb_degc=st.sampled_from([math.nan, 5.0, 12.0, 25.0]),
    mass=st.floats(100.0, 20000.0),
)
def test_heat_given_off_is_removed_or_stored(powers, sets, capacity_kw, wet_bulb_degc, mass):
    cooling = replace(CORRECTED, capacity_kw=capacity_kw, heat_capacity_kj_per_k=mass, server_leakage_per_k=0.01)
    room, whole_s = Room(cooling, 100.0, 23.0, "cooling"), sum(length_s for length_s, _ in powers)
    given_kj = removed_kj = 0.0
    first_degc = room.return_degc
    for set_degc in sets:
        before = room.return_degc
        heat = room.tick(minute(*powers), whole_s, set_degc, OutdoorAir(wet_bulb_degc))
        given_kj += (heat.it_kw + 0.3 * air_kw_per_k(cooling)) * whole_s
        removed_kj += heat.heat_removed_kw * whole_s
        assert 0.0 <= heat.heat_removed_kw <= (capacity_kw or math.inf) * (1 + 1e-12)
        assert 0.0 <= heat.free_ratio <= 1.0
        assert heat.supply_degc <= max(set_degc, before, heat.return_degc)
        assert heat.inlet_degc >= heat.supply_degc + 4.0
        assert sum(s[1] - s[0] for s in heat.segments) == pytest.approx(whole_s, rel=1e-12)
    stored_kj = mass * (room.return_degc - first_degc)
    assert given_kj == pytest.approx(removed_kj + stored_kj, rel=1e-9)


def test_a_plant_at_its_capacity_by_hand():
    # 300 kW + 7.948 657 5 kW of offsets on a plant of 200 kW, at its capacity 200/26.495525 = 7.548 444 K above the set
    # point: from rest at 100 kW tau ln(200 / 107.948 66) = 186.193 s later. From there on T, and the supply air
    # with it, rise by 107.948 66/8000 K/s; 2 K above the set point of 21 degC it is too warm.
    room = Room(replace(CORRECTED, capacity_kw=200.0), 100.0, 21.0, "cooling")
    heat = room.tick(minute((600.0, 300.0), set_degc=21.0), 600.0, 21.0, NOWHERE)
    full_s = TAU_S * math.log(200.0 / 107.9486575)
    rise_k_per_s = 107.9486575 / 8000.0
    assert heat.supply_degc == pytest.approx(21.0 + (600.0 - full_s) * rise_k_per_s, abs=1e-5)
    assert heat.inlet_degc == pytest.approx(heat.supply_degc + 4.0)
    ((begin_s, end_s, warmest_degc),) = heat.alarms
    assert begin_s == pytest.approx(full_s + 2.0 / rise_k_per_s, abs=1e-3)
    assert (end_s, warmest_degc) == (600.0, pytest.approx(heat.supply_degc))


def test_a_warmer_set_point_lets_the_room_warm_before_the_plant_works():
    # at 18 degC and 100 kW the return air is 22.07 degC: with a set point of 23 there is nothing to cool until it is 23
    room = Room(CORRECTED, 100.0, 18.0, "cooling")
    heat = room.tick(minute((30.0, 100.0), set_degc=23.0), 30.0, 23.0, NOWHERE)
    assert (heat.heat_removed_kw, heat.chiller_kw, heat.tower_kw) == (0.0, 0.0, 0.0)
    assert heat.return_degc == pytest.approx(18.0 + 0.3 + 100.0 / 26.495525 + 30.0 * 107.9486575 / 8000.0, abs=1e-6)
    assert heat.supply_degc == heat.return_degc < 23.0


def test_servers_that_are_too_warm_are_shed_until_all_is_well():
    room = Room(replace(CORRECTED, capacity_kw=150.0), 100.0, 23.0, "cooling")
    inlets, tripped = [], []
    for _ in range(120):
        it_kw = 100.0 if room.tripped else 400.0
        heat = room.tick(minute((60.0, it_kw)), 60.0, 23.0, NOWHERE)
        inlets.append(heat.inlet_degc)
        tripped.append(room.tripped)
    assert 0 < sum(tripped) < 120
    for k in range(1, 120):
        if tripped[k] and not tripped[k - 1]:
            assert inlets[k] >= 45.0
        if not tripped[k] and tripped[k - 1]:
            assert inlets[k] <= 27.0 + 60.0 * 42.1 / 8000.0  # as warm as it was a minute ago
    assert max(inlets) < 45.0 + 60.0 * 258.0 / 8000.0 + 1e-9


@pytest.mark.parametrize(("change", "words"), [
    ({"capacity_kw": 90.0}, "capacity_kw = 90 is less than the 107.9 kW of heat that an idle site gives off at 45"),
    ({"return_approach_degc": -9.0}, "removes 32.48 kW less than nothing at idle power"),
])
def test_plants_that_cannot_be(change, words):
    with pytest.raises(ScenarioError, match=words):
        Room(replace(CORRECTED, **change), 100.0, 23.0, "cooling")


DAY = {"controller.policy": "nci_priority", "aidc.thermal": "first_order", "aidc.trace_step_s": 15.0,
       "aidc.cooling": {"server_leakage_per_k": 0.006, "server_fan_ratio": 0.08, "server_fan_speed_per_k": 0.03,
                        "loss_no_load_ratio": 0.01, "loss_linear_ratio": 0.03, "capacity_kw": 340.0},
       "aidc.ambient": {"wet_bulb_mean_degc": 13.0, "wet_bulb_swing_k": 5.0, "dry_bulb_mean_degc": 18.0,
                        "dry_bulb_swing_k": 7.0, "peak_h": 2.0}}


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.h5"
    result = Experiment(override(find("ieee33"), DAY), "native", 4 * 3600.0, path).run()
    with Trace(path) as trace:
        yield trace, result


@pytest.mark.long
def test_a_day_keeps_the_laws_with_alarms_and_shed_load(day):
    trace, result = day
    digest = verify(trace)
    assert not digest.broken
    (heat,) = (row for row in digest.tables[0].rows if row[0].startswith("heat given off"))
    assert heat[3] == "holds"
    site = {name: trace[f"aidc/Site/{name}"] for name in trace.ports("aidc/Site")}
    assert site["tripped"].any()
    assert (site["granted_gpus"][1:][site["tripped"][:-1] > 0] == 0).all()
    assert site["wet_bulb_degc"][120].tolist() == [18.0] * 3  # 02:00
    assert site["wet_bulb_degc"][0].tolist() == pytest.approx([13.0 + 5.0 * math.cos(math.pi / 6.0)] * 3)
    assert 0.0 <= site["free_cooling_ratio"].min() < site["free_cooling_ratio"].max() == 1.0
    alarms = trace.table("alarms")
    for k, name in enumerate(trace.names("aidc/Site")):
        mine = alarms["site"] == name
        lengths_s = (alarms["end_s"] - alarms["begin_s"])[mine]
        assert lengths_s.sum() == pytest.approx(site["inlet_alarm_s"][:, k].sum(), rel=1e-9)
        assert alarms["inlet_degc"][mine].max() == pytest.approx(site["inlet_degc"][:, k].max(), rel=1e-12)
        assert (alarms["racks"][mine] == 50).all()
    figures = result.digest.figures
    assert figures["inlet_alarm_s"] == pytest.approx(site["inlet_alarm_s"].sum())
    assert any("above their limit for" in note and ", load shed: " in note for note in result.notes)


def test_the_summary_and_the_report_tell_of_air_and_cooling(day):
    trace, result = day
    site = {name: trace[f"aidc/Site/{name}"] for name in trace.ports("aidc/Site")}
    figures = result.digest.figures
    assert figures["heat_removed_kwh"] == pytest.approx(site["heat_removed_kw"].sum() / 60)
    free_kwh = (site["heat_removed_kw"] * site["free_cooling_ratio"]).sum() / 60
    assert figures["free_cooling_kwh"] == pytest.approx(free_kwh)
    assert figures["water_kg"] == pytest.approx(site["water_kg_per_h"].sum() / 60)
    assert figures["pue_cooling"] == pytest.approx((site["it_kw"] + site["cooling_kw"]).sum() / site["it_kw"].sum())
    (table,) = (t for t in result.digest.tables if t.title == "Cooling")
    assert [row[0] for row in table.rows] == ["aidc1", "aidc2", "aidc3"]
    run = FleetRun(trace, "day", {name: f"site{k}" for k, name in enumerate(trace.names("aidc/Site"))})
    picture = air(run)
    facts = {fact.name: fact.value for fact in picture.facts}
    assert facts["warmest inlet"] == site["inlet_degc"].max()
    assert facts["inlets above their limit"] == pytest.approx(site["inlet_alarm_s"].sum() / 60)
    assert facts["cooled without the chiller"] == pytest.approx(100 * free_kwh / figures["heat_removed_kwh"])
    assert facts["water"] == pytest.approx(figures["water_kg"] / 1e3)
    assert [panel.title for panel in picture.panels][2:4] == ["Outside, wet bulb", "Outside, dry bulb"]
    kinds = {event.kind for event in events(run).panels[0].events}
    assert {"inlets too warm", "load shed"} <= kinds
    names = [name for name, _ in uses(run)]
    assert names[-3:] == ["chiller", "tower", "losses"]


def test_power_inside_the_ticks_is_the_ticks_power(day):
    trace, _ = day
    power = trace.table("power")
    for k, name in enumerate(trace.names("aidc/Site")):
        mine = power["site"] == name
        for column in ("p_kw", "it_kw", "cooling_kw"):
            per_tick = power[column][mine].reshape(-1, 4).mean(axis=1)
            assert per_tick == pytest.approx(trace[f"aidc/Site/{column}"][:, k], rel=1e-9)


def test_without_inertia_the_air_of_a_tick_is_that_of_its_mean_power(tmp_path):
    # at constant power and weather nothing tells the two apart
    path = tmp_path / "t.h5"
    Experiment(override(find("two_bus"), {"aidc.ambient": {"wet_bulb_mean_degc": 14.0}}), "native", 1800.0, path).run()
    with Trace(path) as trace:
        site = {name: trace[f"aidc/Site/{name}"][-1, 0] for name in trace.ports("aidc/Site")}
        plant = Cooling(return_approach_degc=-4.0, cop=(0.0, 0.0, 4.0), tower_ref_kw=0.0, wet_bulb_degc=14.0)
        by_hand = crac(32.0, 23.0, plant)
        assert site["chiller_kw"] == pytest.approx(by_hand.chiller_kw, rel=1e-12)
        assert (site["return_degc"], site["supply_temp_degc"]) == (pytest.approx(by_hand.return_degc), 23.0)
