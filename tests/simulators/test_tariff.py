"""The time-of-use tariff: its windows, their ends, and the forecast."""

import pytest

from cosim.errors import ScenarioError
from cosim.params import validate
from simulators.tariff import TimeOfUse, TimeOfUseParams, price_usd_per_kwh

BASE, PEAK, OFF = 0.1, 0.3, 0.03
# a minute before, at, and a minute after every end: [11, 15) peak, [19, 23) off-peak
HALF_OPEN = {10 * 60 + 59: BASE, 11 * 60: PEAK, 14 * 60 + 59: PEAK, 15 * 60: BASE, 15 * 60 + 1: BASE,
             18 * 60 + 59: BASE, 19 * 60: OFF, 22 * 60 + 59: OFF, 23 * 60: BASE, 23 * 60 + 1: BASE, 0: BASE}
CLOSED = {**HALF_OPEN, 15 * 60: PEAK, 23 * 60: OFF}
INCLUSIVE = {**HALF_OPEN, 15 * 60: PEAK, 15 * 60 + 1: PEAK, 15 * 60 + 59: PEAK, 16 * 60: BASE,
             23 * 60: OFF, 23 * 60 + 1: OFF, 23 * 60 + 59: OFF, 24 * 60: BASE}


def tariff(**params):
    return validate(TimeOfUseParams, params, "tariff")


@pytest.mark.parametrize(("boundary", "expected"), [
    ("half_open", HALF_OPEN), ("closed", CLOSED), ("inclusive_hour", INCLUSIVE)])
@pytest.mark.parametrize("day", [0, 1, 9])
def test_ends_of_the_windows(boundary, expected, day):
    params = tariff(boundary=boundary)
    for minute, price in expected.items():
        assert price_usd_per_kwh(params, 86400.0 * day + 60.0 * minute) == price, minute


@pytest.mark.parametrize(("boundary", "peak_minutes"), [("half_open", 240), ("closed", 241), ("inclusive_hour", 300)])
def test_minutes_of_a_day(boundary, peak_minutes):
    """I19: the closed rule has one more minute per window, the inclusive one five hours instead of four."""
    params = tariff(boundary=boundary)
    prices = [price_usd_per_kwh(params, 60.0 * k) for k in range(1440)]
    assert prices.count(PEAK) == prices.count(OFF) == peak_minutes
    # a flat load pays (4 * 0.3 + 4 * 0.03 + 16 * 0.1) / 24 = 0.1217, with five-hour windows 0.1271 (2.6)
    if boundary != "closed":
        assert sum(prices) / 1440 == pytest.approx(0.1217 if peak_minutes == 240 else 0.1271, abs=5e-5)


def test_window_past_midnight_and_whole_day():
    night = {"start_h": 22, "end_h": 6, "price_usd_per_kwh": 0.05}
    params = tariff(windows=[night], base_usd_per_kwh=0.2)
    prices = {h: price_usd_per_kwh(params, 3600.0 * h) for h in (21.99, 22, 23.5, 24, 29.99, 30, 46)}
    assert list(prices.values()) == [0.2, 0.05, 0.05, 0.05, 0.05, 0.2, 0.05]
    always = tariff(windows=[{"start_h": 0, "end_h": 24, "price_usd_per_kwh": 0.4}])
    assert {price_usd_per_kwh(always, 1800.0 * k) for k in range(96)} == {0.4}


def test_the_first_window_that_holds_is_the_price():
    # under the closed rule both cover 15:00
    windows = [{"start_h": 11, "end_h": 15, "price_usd_per_kwh": 0.3},
               {"start_h": 15, "end_h": 17, "price_usd_per_kwh": 0.2}]
    assert price_usd_per_kwh(tariff(windows=windows, boundary="closed"), 15 * 3600.0) == 0.3
    assert price_usd_per_kwh(tariff(windows=windows), 15 * 3600.0) == 0.2


def started(**params):
    simulator = TimeOfUse()
    simulator.init("tariff", 60.0, step_s=60.0, **params)
    simulator.create(1, "Tariff", ["tou"])
    simulator.setup_done()
    return simulator


def test_forecast_at_14_h_over_midnight():
    simulator = started()
    assert simulator.labels() == {"lead": ["0h", "2h", "4h", "6h", "8h", "10h"]}
    simulator.step(14 * 60, {}, 14 * 60 + 1)
    out = simulator.get_data({"tou": ["price_usd_per_kwh", "forecast_usd_per_kwh"]})["tou"]
    # 14, 16, 18, 20, 22 h, and midnight of the next day
    assert out == {"price_usd_per_kwh": PEAK, "forecast_usd_per_kwh": [PEAK, BASE, BASE, OFF, OFF, BASE]}


def test_days_repeat_and_answers_are_fresh():
    simulator = started(deferrals_s=["1h", "90min"])
    first = simulator.advance(10.5 * 3600.0, {})["tou"]
    second = simulator.advance(10.5 * 3600.0 + 86400.0, {})["tou"]
    assert first == second == {"price_usd_per_kwh": BASE, "forecast_usd_per_kwh": [PEAK, PEAK]}
    assert first["forecast_usd_per_kwh"] is not second["forecast_usd_per_kwh"]
    assert simulator.initial()["tou"]["price_usd_per_kwh"] == BASE


def test_errors_name_what_is_wrong():
    with pytest.raises(ScenarioError, match="has no length"):
        tariff(windows=[{"start_h": 3, "end_h": 3, "price_usd_per_kwh": 1}])
    with pytest.raises(ScenarioError, match=r"windows.0.end_h = 25"):
        tariff(windows=[{"start_h": 3, "end_h": 25, "price_usd_per_kwh": 1}])
    with pytest.raises(ScenarioError, match="a lead is 0 or more"):
        started(deferrals_s=[-60.0])
    with pytest.raises(ScenarioError, match="boundary = 'open'"):
        tariff(boundary="open")
