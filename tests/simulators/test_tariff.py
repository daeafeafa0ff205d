"""The time-of-use tariff: its windows, their ends, and the forecast."""

import pytest
from worlds import run

from cosim.errors import ScenarioError
from cosim.params import validate
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.tariff import TimeOfUse, TimeOfUseParams, price_usd_per_kwh
from cosim.trace import Trace

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
@pytest.mark.rows("I19", "P05")
def test_ends_of_the_windows(boundary, expected, day):
    params = tariff(boundary=boundary)
    for minute, price in expected.items():
        assert price_usd_per_kwh(params, 86400.0 * day + 60.0 * minute) == price, minute


@pytest.mark.parametrize(("boundary", "peak_minutes"), [("half_open", 240), ("closed", 241), ("inclusive_hour", 300)])
@pytest.mark.rows("I19", "P05")
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


@pytest.mark.rows("S08")
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


def written(tmp_path, text: str) -> str:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    return str(path)


def test_a_table_of_prices_with_its_forecast(tmp_path):
    # 0.10 from 0 h, 0.30 from 2 h, 0.05 from 3 h; the last row lasts as long as the one before, to 4 h
    path = written(tmp_path, "time_h,price_usd_per_kwh\n0,0.10\n2,0.30\n3,0.05\n")
    simulator = started(prices=path, deferrals_s=["0h", "2h", "3h"])
    assert simulator.initial()["tou"] == {"price_usd_per_kwh": 0.10, "forecast_usd_per_kwh": [0.10, 0.30, 0.05]}
    assert simulator.notes() == []
    late = simulator.advance(2.5 * 3600.0, {})["tou"]
    assert late == {"price_usd_per_kwh": 0.30, "forecast_usd_per_kwh": [0.30, 0.05, 0.05]}
    (said,) = simulator.notes()
    assert said.endswith("it ends at 04:00, values to 05:30 were read; after it its last row is held")
    wrapped = started(prices=path, deferrals_s=["0h", "2h", "3h"], prices_overflow="wrap")
    assert wrapped.advance(2.5 * 3600.0, {})["tou"]["forecast_usd_per_kwh"] == [0.30, 0.10, 0.10]  # 0.5 h, 1.5 h
    strict = started(prices=path, prices_overflow="raise", deferrals_s=["2h"])
    assert strict.advance(3.0 * 3600.0, {})["tou"]["forecast_usd_per_kwh"] == [0.05]
    with pytest.raises(ScenarioError, match=r"prices.csv holds from 00:00 to 04:00; a value at 04:00 is asked for"):
        strict.advance(4.0 * 3600.0, {})


def test_prices_by_date_and_in_another_unit(tmp_path):
    path = written(tmp_path, "time,price_usd_per_mwh\n2026-05-01T00:00Z,90\n2026-05-01T01:00Z,-10\n")
    simulator = started(prices=path, scenario_start="2026-05-01T00:00:00", deferrals_s=["1h"])
    assert simulator.initial()["tou"] == {"price_usd_per_kwh": pytest.approx(0.09),
                                          "forecast_usd_per_kwh": [pytest.approx(-0.01)]}
    with pytest.raises(ScenarioError, match="has no column price_usd_per_kwh; it has cost"):
        started(prices=written(tmp_path, "time_s,cost\n0,1\n"))


def test_tou_shift_waits_for_the_cheapest_hours_of_a_table(tmp_path):
    # Cheap from 6 to 7 h: what comes before 1 h may be deferred by 6 h at most to be there.
    path = written(tmp_path, "time_h,price_usd_per_kwh\n0,0.2\n6,0.01\n7,0.2\n")
    scenario = override(find("ieee33"), {"tariff.prices": path, "controller.policy": "tou_shift"})
    with Trace(run(scenario, tmp_path / "t.h5", until_s=5400.0).path) as trace:
        forecast = trace["tariff/Tariff/forecast_usd_per_kwh"][:, 0]
        assert forecast[0].tolist() == [0.2, 0.2, 0.2, 0.01, 0.2, 0.2]
        deferred = trace["aidc/Site/deferred_jobs"][-1].sum()
    assert deferred > 0
