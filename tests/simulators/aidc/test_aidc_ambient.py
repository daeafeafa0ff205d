"""The air outside: a day's shape by hand, tables, links, and what plants make of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.errors import ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import Link, Member, override
from cosim.scenarios.ieee33_climate import COOLING
from cosim.simulators.aidc.equations import (
    cooling_power_kw,
    cop_outside,
    distribution_loss_kw,
    free_cooling_ratio,
    it_at_inlet_kw,
)
from cosim.simulators.aidc.plant.ambient import Ambient, OutdoorAir, Weather, wet_bulb_degc
from cosim.simulators.aidc.plant.cooling import CORRECTED, Cooling
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace

NOTHING = OutdoorAir()


def weather(start: str = "2026-01-01T00:00:00", **ambient) -> Weather:
    return Weather(Ambient(**ambient), "aidc1", "aidc.ambient", start)


def table(tmp_path, text: str) -> str:
    path = tmp_path / "weather.csv"
    path.write_text(text)
    return str(path)


def test_a_days_shape_by_hand():
    day = weather(wet_bulb_mean_degc=14.0, wet_bulb_swing_k=4.0, dry_bulb_mean_degc=19.0, dry_bulb_swing_k=7.0)
    assert day.at(15 * 3600.0, NOTHING) == (18.0, 26.0)  # the warmest hour
    assert day.at(27 * 3600.0, NOTHING) == pytest.approx((10.0, 12.0))  # twelve hours later
    assert day.at(9 * 3600.0, NOTHING) == pytest.approx((14.0, 19.0))
    assert math.isnan(weather(wet_bulb_mean_degc=14.0).at(0.0, NOTHING).dry_bulb_degc)


def test_wet_bulb_by_the_published_example_and_saturated_air():
    assert wet_bulb_degc(20.0, 0.5) == pytest.approx(13.7, abs=0.05)  # Stull 2011, section 2
    assert wet_bulb_degc(25.0, 1.0) == pytest.approx(25.0, abs=0.6)


@given(dry=st.floats(0.0, 50.0), humid=st.floats(0.05, 0.99))
def test_the_wet_bulb_is_below_the_dry_bulb_and_rises_with_humidity(dry, humid):
    assert wet_bulb_degc(dry, humid) <= dry
    assert wet_bulb_degc(dry, min(humid + 0.1, 0.99)) >= wet_bulb_degc(dry, humid) - 0.2  # the fit is within 1 K


def test_tables_hold_repeat_end_and_have_columns_per_site(tmp_path):
    path = table(tmp_path, "time_h,aidc1.wet_bulb_degc,aidc2.wet_bulb_degc,dry_bulb_degc\n0,10,4,20\n2,12,5,22\n")
    held, wrapped, strict = (weather(table=path, table_overflow=how) for how in ("hold", "wrap", "raise"))
    assert held.at(7100.0, NOTHING) == (10.0, 20.0)
    assert held.at(99999.0, NOTHING) == (12.0, 22.0)
    (said,) = held.notes(60.0)
    assert said.endswith("it ends at 04:00, values to 1d 03:46:39 were read; after it its last row is held")
    assert wrapped.at(4 * 3600.0 + 60.0, NOTHING) == (10.0, 20.0)
    with pytest.raises(ScenarioError, match="to 04:00; a value at 04:00 is asked for: .* set aidc.ambient.table_overf"):
        strict.at(14400.0, NOTHING)
    held.origin_s = 7200.0  # another world, two hours later
    assert held.at(0.0, NOTHING) == (12.0, 22.0)
    dated = table(tmp_path, "time,dry_bulb_degc,relative_humidity_ratio\n2026-05-01T00:00Z,20,0.5\n")
    found = weather(start="2026-05-01T00:00:00", table=dated).at(0.0, NOTHING)
    assert found == (wet_bulb_degc(20.0, 0.5), 20.0)


@pytest.mark.parametrize(("text", "words"), [
    ("time_h,humidity\n0,1\n", "neither wet_bulb_degc nor dry_bulb_degc; it has humidity"),
    ("time_h,wet_bulb_degc\n0,10\n1,285\n", "wet_bulb_degc = 285 at 01:00; -60 to 60 are allowed"),
    ("time_h,wet_bulb_degc,dry_bulb_degc\n0,10,9\n", "at 00:00 the wet bulb is 10 degC, above the dry bulb of 9"),
    ("time_h,dry_bulb_degc,relative_humidity_ratio\n0,10,50\n", "relative_humidity_ratio = 50 at 00:00; 0 to 1"),
    ("time_h,aidc7.wet_bulb_degc\n0,10\n", "unknown column 'wet_bulb_degc'"),
])
def test_tables_that_cannot_be(tmp_path, text, words):
    with pytest.raises(ScenarioError, match=words):
        weather(table=table(tmp_path, text))


@pytest.mark.parametrize(("ambient", "words"), [
    ({}, "no source"), ({"linked": True, "table": "x.csv"}, "table and linked"),
    ({"wet_bulb_swing_k": 2.0, "linked": True}, "wet_bulb_swing_k is 2 without wet_bulb_mean_degc"),
    ({"wet_bulb_mean_degc": 20.0, "dry_bulb_mean_degc": 21.0, "dry_bulb_swing_k": 5.0}, "rises above the dry bulb"),
])
def test_ambients_that_cannot_be(ambient, words):
    with pytest.raises(ValueError, match=words):
        Ambient(**ambient)


def test_cop_follows_the_weather_by_carnot():
    # 20 degC supply, evaporating at 10; 18 degC outside, condensing at 33: lift 23 K; at 7 degC 12; at 0 degC 5, so 10
    plant = replace(CORRECTED, cop_outside_degc=18.0)
    printed = 0.0068 * 400 + 0.008 * 20 + 0.458
    assert cop_outside(20.0, plant, 18.0) == pytest.approx(printed)
    assert cop_outside(20.0, plant, 7.0) == pytest.approx(printed * 23 / 12)
    assert cop_outside(20.0, plant, 0.0) == pytest.approx(printed * 23 / 10)
    assert cop_outside(20.0, plant, 41.0) == pytest.approx(printed * 23 / 46)
    assert cop_outside(20.0, plant, None) == cop_outside(20.0, CORRECTED, 7.0) == printed
    assert cop_outside(np.array([20.0]), plant, 7.0) == pytest.approx(printed * 23 / 12)


def test_the_supply_temperature_is_a_decision_where_servers_mind_the_heat():
    # at 300 kW and 14 degC outside the site draws least between the limits, not at one of them
    plant = Cooling(**COOLING)

    def power_kw(supply_degc: float) -> float:
        it_kw = it_at_inlet_kw(300.0, supply_degc, plant)
        _, chiller_kw, tower_kw = cooling_power_kw(it_kw, supply_degc, plant, 14.0)
        return it_kw + chiller_kw + tower_kw + distribution_loss_kw(it_kw, plant)

    best = min((18.0 + 0.1 * k for k in range(51)), key=power_kw)
    assert 19.0 < best < 22.5
    assert power_kw(best) < 0.995 * min(power_kw(18.0), power_kw(23.0))
    assert free_cooling_ratio(best, 33.0, plant, 14.0) > 0.5


def linked(tmp_path, unit: str = "wet_bulb_degc"):
    path = table(tmp_path, f"time_min,{unit}\n0,8\n3,12\n")
    smallest = find("two_bus")
    feed = Member(simulator="cosim.replay.members:TablePlayer", step_s=60, entities={"Table": ["feed"]},
                  params={"path": path, "overflow": "hold"})
    return override(smallest.replace(
        members={**smallest.members, "weather": feed},
        links=(*smallest.links, Link(source=f"weather.{unit}", target="aidc.wet_bulb_degc"))),
        {"aidc.ambient.linked": True, "until_s": "6min"})


@pytest.mark.long(after=1)
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_weather_over_the_bus(tmp_path, driver):
    path = tmp_path / "t.h5"
    Experiment(linked(tmp_path), driver, out=path).run()
    with Trace(path) as trace:
        assert trace["aidc/Site/wet_bulb_degc"][:, 0].tolist() == [8.0] * 3 + [12.0] * 3
        free = trace["aidc/Site/free_cooling_ratio"][:, 0]
        air = {name: trace[f"aidc/Site/{name}_degc"][:, 0] for name in ("supply_temp", "return")}
        by_hand = (air["return"] - trace["aidc/Site/wet_bulb_degc"][:, 0] - 10.0) / (air["return"] - air["supply_temp"])
        assert free == pytest.approx(np.clip(by_hand, 0.0, 1.0), rel=1e-9)
        assert not verify(trace).broken


def test_links_that_bring_nothing_or_nonsense(tmp_path):
    lonely = override(find("two_bus"), {"aidc.ambient.linked": True, "until_s": "2min"})
    with pytest.raises(ModelError, match="aidc.ambient.linked is set and nothing is linked"):
        Experiment(lonely, "native", out=tmp_path / "a.h5").run()
    kelvin = linked(tmp_path)
    table(tmp_path, "time_min,wet_bulb_degc\n0,281\n")
    with pytest.raises(ModelError, match="wet_bulb_degc = 281 came over the bus; -60 to 60 degC"):
        Experiment(kelvin, "native", out=tmp_path / "b.h5").run()


@pytest.mark.parametrize(("settings", "words"), [
    ({"aidc.cooling.capacity_kw": 300.0}, "capacity_kw = 300 needs aidc.thermal=first_order"),
    ({"aidc.cooling.heat_rejection": "dry"}, "no outside temperature is known; give aidc.ambient"),
    ({"aidc.cooling.heat_rejection": "dry", "aidc.ambient.wet_bulb_mean_degc": 9.0}, "knows no dry_bulb temperature"),
    ({"aidc.cooling.wet_bulb_degc": 9.0, "aidc.ambient.wet_bulb_mean_degc": 9.0}, "give one of them"),
    ({"aidc.site_ambient.aidc9.wet_bulb_mean_degc": 9.0}, "unknown site in aidc.site_ambient 'aidc9'"),
])
def test_plants_and_weather_that_do_not_fit(tmp_path, settings, words):
    with pytest.raises(ScenarioError, match=words):
        Experiment(override(find("two_bus"), settings), "native", 120.0, tmp_path / "t.h5").run()


def test_one_site_may_have_a_climate_of_its_own_and_dry_coolers_no_water(tmp_path):
    settings = {"controller.policy": "uniform", "aidc.site_ambient.aidc2.dry_bulb_mean_degc": 25.0,
                "aidc.site_cooling.aidc2": {"heat_rejection": "dry"}, "aidc.ambient.wet_bulb_mean_degc": 2.0}
    path = tmp_path / "t.h5"
    Experiment(override(find("ieee33"), settings), "native", 1800.0, path).run()
    with Trace(path) as trace:
        water, free = trace["aidc/Site/water_kg_per_h"][-1], trace["aidc/Site/free_cooling_ratio"][-1]
        assert (water > 0).tolist() == [True, False, True]
        assert free.tolist() == pytest.approx([1.0, free[1], 1.0])
        assert free[1] < 0.5
        assert np.isnan(trace["aidc/Site/wet_bulb_degc"][-1]).tolist() == [False, True, False]
        assert not verify(trace).broken
