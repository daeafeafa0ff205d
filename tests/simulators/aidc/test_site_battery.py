"""A battery behind a data center's meter: its rule by hand, its limits, and what of the site follows the meter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.plant.battery import BatteryHours, BehindMeter, SiteBattery
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.metrics import summary
from cosim.trace import Trace

LIMITS = {"energy_max_kwh": 100.0, "p_charge_max_kw": 40.0, "p_discharge_max_kw": 60.0, "energy_start_kwh": 50.0,
          "charge_efficiency_ratio": 0.8, "discharge_efficiency_ratio": 0.5}
HOUR_S = 3600.0


def battery(**more):
    return BehindMeter(SiteBattery(**{**LIMITS, **more}))


def test_a_command_is_followed_as_far_as_it_can_be():
    """20 kW for an hour at 0.5 takes 40 kWh out; then 10 kWh are left, 5 of which reach the meter."""
    mine = battery()
    assert mine.run(100.0, 20.0, 0.0, HOUR_S) == 20.0
    assert mine.energy_kwh == 10.0
    assert mine.run(100.0, 20.0, HOUR_S, HOUR_S) == 5.0
    assert mine.run(100.0, -30.0, 2 * HOUR_S, HOUR_S) == -30.0
    assert mine.energy_kwh == pytest.approx(24.0)


def test_nothing_is_exported_and_the_reserve_stays():
    assert battery().run(3.0, 60.0, 0.0, 60.0) == 3.0
    mine = battery(energy_min_kwh=45.0)
    assert mine.run(100.0, 60.0, 0.0, HOUR_S) == 2.5
    assert mine.energy_kwh == 45.0


def test_the_meter_is_kept_below_its_limit_and_what_is_left_below_charges():
    mine = battery(meter_max_kw=80.0)
    assert mine.run(90.0, math.nan, 0.0, 60.0) == 10.0
    assert mine.run(70.0, math.nan, 60.0, 60.0) == -10.0
    assert mine.run(10.0, math.nan, 120.0, 60.0) == -40.0


def test_hours_of_the_day_over_midnight_and_the_meter_first():
    hours = [{"start_h": 22.0, "end_h": 2.0, "p_kw": -30.0}, {"start_h": 12.0, "end_h": 13.0, "p_kw": 25.0}]
    mine = battery(hours=hours)
    at = [mine.run(100.0, math.nan, hour * HOUR_S, 60.0) for hour in (21.99, 22.0, 25.99, 26.0, 36.5)]
    assert at == [0.0, -30.0, -30.0, 0.0, 25.0]
    assert battery(hours=hours, meter_max_kw=110.0).run(100.0, math.nan, 22 * HOUR_S, 60.0) == -10.0
    assert BatteryHours(0.0, 24.0, 1.0).holds(1e5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 200), st.floats(-100, 100) | st.just(math.nan)), max_size=40))
def test_energy_is_conserved_inside_all_limits(ticks):
    mine = battery(meter_max_kw=90.0)
    stored = 50.0
    for k, (facility_kw, set_kw) in enumerate(ticks):
        p_kw = mine.run(facility_kw, set_kw, 900.0 * k, 900.0)
        stored += (-p_kw / 0.5 if p_kw > 0 else -p_kw * 0.8) / 4.0
        assert mine.energy_kwh == pytest.approx(stored, abs=1e-9)
        assert -1e-9 <= mine.energy_kwh <= 100.0 + 1e-9
        assert -40.0 <= p_kw <= min(60.0, facility_kw)


@pytest.mark.parametrize(("given", "hint"), [
    ({"energy_start_kwh": 120.0}, r"energy_start_kwh = 120 is not between energy_min_kwh = 0 and energy_max_kwh = 100"),
    ({"energy_min_kwh": 100.0}, "must be below energy_max_kwh"),
    ({"hours": [{"start_h": 3.0, "end_h": 3.0, "p_kw": 1.0}]}, "there is no time"),
])
def test_what_cannot_be_is_refused_before_a_run(given, hint):
    with pytest.raises(ScenarioError, match=hint):
        resolve(override(find("two_bus"), {"aidc.batteries": {"aidc1": {**LIMITS, **given}}}), HOUR_S)


def test_the_compiled_fleet_names_what_it_cannot_do():
    resolved = resolve(override(find("two_bus"), {"aidc.batteries": {"aidc1": LIMITS}, "aidc.job_log": False}), HOUR_S)
    assert unsupported(resolved.params["aidc"]) == ["batteries of aidc1: its sites have none behind their meters"]


def run(path, **more):
    Experiment(override(find("two_bus"), {"tariff.demand_charge_usd_per_kw": 10.0, **more}), "native", 2 * HOUR_S,
               path).run()
    return path


def test_meter_cost_demand_charge_and_carbon_follow_and_the_facility_is_what_it_was(tmp_path):
    """The same facility with and without: metered = facility - battery, and the bill and the carbon are the meter's."""
    sites = list(find("two_bus").shared["sites"])
    hours = [{"start_h": 0.0, "end_h": 1.0, "p_kw": -20.0}, {"start_h": 1.0, "end_h": 2.0, "p_kw": 15.0}]
    with Trace(run(tmp_path / "without.h5")) as plain, Trace(
            run(tmp_path / "with.h5", **{"aidc.batteries": {sites[0]: {**LIMITS, "hours": hours}}})) as trace:
        found = verify(trace)
        assert not found.broken, found.broken
        gave, metered = trace["aidc/Site/battery_kw"], trace["aidc/Site/p_kw"]
        facility = plain["aidc/Site/p_kw"]
        assert metered + gave == pytest.approx(facility)
        assert gave[:60, 0].tolist() == [-20.0] * 60
        assert gave[60:, 0].tolist() == [15.0] * 60
        assert not gave[:, 1:].any()
        assert trace["aidc/Site/battery_soc_kwh"][-1, 0] == pytest.approx(50.0 + 20.0 * 0.8 - 15.0 / 0.5)
        was, now = summary(plain).figures, summary(trace).figures
        prices = trace["tariff/Tariff/price_usd_per_kwh"][:, 0]
        means = metered.reshape(-1, 15, len(sites)).mean(axis=1)
        assert now["demand_charge_usd"] == pytest.approx(10.0 * means.max(axis=0).sum() * 2.0 / (31.0 * 24.0))
        assert now["cost_usd"] == pytest.approx((metered.sum(axis=1) / 60.0 * prices).sum() + now["demand_charge_usd"])
        assert now["energy_kwh"] == pytest.approx(was["energy_kwh"] + 20.0 - 15.0)
        assert now["facility_energy_kwh"] == pytest.approx(was["energy_kwh"])
        told = [of["aidc/Site/p_window_kw"][14:-15:15].sum() for of in (trace, plain)]  # to the later dispatches
        drawn = [of["grid/Grid/p_drawn_bus_kw"].sum() for of in (trace, plain)]
        assert drawn[0] - drawn[1] == pytest.approx(told[0] - told[1], abs=1e-4)
        assert np.isfinite(now["site_battery_co2_kg"])

