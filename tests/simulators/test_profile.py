"""The base load profile: its shape, its day, and its loads."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosim.errors import ScenarioError
from cosim.simulators.profile import SHAPES, SLOTS, ForecastProfile, Profile

NETWORK = {
    "base_kv": 10.0,
    "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 1.0, "x_ohm": 1.0}],
    "loads": [{"bus": 1, "p_kw": 200.0, "q_kvar": 80.0}],
}
RAMP = [k / 10 for k in range(SLOTS)]


def started(names: list[str], **params: Any) -> Profile:
    profile = Profile()
    profile.init("profile", 60.0, step_s=900.0, network=NETWORK, **params)
    profile.create(len(names), "Load", names=names)
    profile.setup_done()
    return profile


def power(profile: Profile, minute: int) -> dict[str, float]:
    profile.step(minute, {}, minute + 15)
    return profile.get_data({"bus1": ["p_kw", "q_kvar"]})["bus1"]


@pytest.mark.rows("I24", "M01")
def test_the_shipped_shape():
    shape = SHAPES["ieee33_light"]
    assert len(shape) == 96
    assert math.fsum(shape) / 96 == pytest.approx(0.40, abs=1e-12)
    assert min(shape) == pytest.approx(0.28, abs=0.005)
    assert max(shape) == pytest.approx(0.53, abs=0.005)
    assert 2.0 <= shape.index(min(shape)) / 4 <= 5.0  # hours: lowest before dawn,
    assert 18.0 <= shape.index(max(shape)) / 4 <= 20.0  # highest in the evening
    steps = [abs(b - a) for a, b in zip(shape, shape[1:] + shape[:1], strict=True)]
    assert max(steps) < 0.02  # smooth, also over midnight


@pytest.mark.parametrize(("name", "least", "most", "low_h", "peak_h"), [
    ("residential", 0.28, 0.71, (2.0, 6.0), (18.0, 21.0)), ("commercial", 0.29, 0.67, (0.0, 5.0), (10.0, 14.0))])
def test_the_other_shapes(name: str, least: float, most: float, low_h: tuple, peak_h: tuple):
    shape = SHAPES[name]
    assert math.fsum(shape) / 96 == pytest.approx(0.45, abs=1e-12)
    assert (min(shape), max(shape)) == pytest.approx((least, most), abs=0.005)
    assert low_h[0] <= shape.index(min(shape)) / 4 <= low_h[1]
    assert peak_h[0] <= shape.index(max(shape)) / 4 <= peak_h[1]


def test_a_shape_from_a_file(tmp_path):
    file = tmp_path / "day.csv"
    file.write_text("time,factor\n" + "".join(f"{k},{v}\n" for k, v in enumerate(RAMP)))
    from_file, given = (started(["bus1"], shape=s) for s in (str(file), RAMP))
    assert [power(from_file, m) for m in (0, 15, 1425)] == [power(given, m) for m in (0, 15, 1425)]
    clock = [f"{k // 4:02d}:{k % 4 * 15:02d}" for k in range(96)]
    file.write_text("time,factor\n" + "".join(f"2026-01-01T{t},{v}\n" for t, v in zip(clock, RAMP, strict=True)))
    assert power(started(["bus1"], shape=str(file)), 15) == power(given, 15)
    file.write_text("time,factor\n" + "".join(f"{t},{v}\n" for t, v in zip(clock[24:] + clock[:24], RAMP, strict=True)))
    with pytest.raises(ScenarioError, match="line 2: time = '06:00' is not 00:00; a shape is one day in UTC"):
        started(["bus1"], shape=str(file))
    for text, message in (("factor\n1\n", "has 1 rows; a shape is 96"), ("x\n1\n", "has no column 'factor'; it has x"),
                          ("factor\n-1\n", "line 2: '-1' is no factor"), ("factor\n1\nabc\n", "line 3: 'abc'")):
        file.write_text(text)
        with pytest.raises(ScenarioError, match=message):
            started(["bus1"], shape=str(file))
    with pytest.raises(ScenarioError, match=r"no file at gone.csv"):
        started(["bus1"], shape="gone.csv")


@pytest.mark.rows("P07")
def test_a_slots_value_holds_for_its_quarter_of_an_hour_and_comes_back_every_day():
    profile = started(["bus0", "bus1"], shape=RAMP)
    assert power(profile, 0) == {"p_kw": 0.0, "q_kvar": 0.0}
    assert power(profile, 29) == pytest.approx({"p_kw": 20.0, "q_kvar": 8.0})  # second slot: factor 0.1
    assert power(profile, 30) == pytest.approx({"p_kw": 40.0, "q_kvar": 16.0})
    assert power(profile, 1439) == pytest.approx({"p_kw": 1900.0, "q_kvar": 760.0})
    assert power(profile, 1440 + 30) == power(profile, 30)
    assert profile.get_data({"bus0": ["p_kw"]}) == {"bus0": {"p_kw": 0.0}}


def test_mean_and_scale():
    # RAMP has mean 4.75; scaled to mean 0.5 and doubled, slot 38 (09:30) gives 3.8 * 0.5 / 4.75 * 2 = 0.8.
    assert power(started(["bus1"], shape=RAMP, mean=0.5, scale=2.0), 38 * 15)["p_kw"] == pytest.approx(160.0)
    day = [power(started(["bus1"], mean=0.75), 0)["p_kw"]]
    assert day == pytest.approx([200.0 * SHAPES["ieee33_light"][0] * 0.75 / 0.40])


@pytest.mark.rows("M01")
def test_a_run_says_which_base_load_it_had():
    """RAMP doubled: from 0 to 19, on average 9.5."""
    assert started(["bus1"], shape=RAMP, scale=2.0).notes() == [
        "profile: base load by shape 96 factors of the scenario, 9.500 of the network's own loads on average, 19.000 "
        "at the peak"]
    (said,) = started(["bus1"], mean=0.5).notes()
    assert "shape ieee33_light, 0.500 of the network's own loads on average" in said


@pytest.mark.parametrize(("params", "message"), [
    ({"shape": "ieee33"}, "profile.shape.* = 'ieee33': is no shape; allowed: ieee33_light, residential, commercial, a "
     ".csv file, or 96 factors"),
    ({"shape": RAMP[:95]}, "has 95 values; a shape is 96"),
    ({"shape": [-1.0, *RAMP[1:]]}, "finite factors >= 0"),
    ({"shape": [0.0] * 96, "mean": 0.4}, "zeros cannot be scaled"),
    ({"mean": -1.0}, "profile.mean = -1.0"),
])
def test_wrong_parameters_are_named(params: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        started(["bus1"], **params)


def test_loads_are_named_like_buses():
    with pytest.raises(ScenarioError, match="unknown bus of profile .*'bus2'"):
        started(["bus2"])


@pytest.mark.rows("Z06")
def test_a_forecast_is_what_comes_over_midnight_too():
    profile = ForecastProfile()
    profile.init("profile", 60.0, step_s=900.0, network=NETWORK, shape=RAMP, lookahead_steps=3)
    profile.create(1, "Load", names=["bus1"])
    profile.setup_done()
    assert profile.labels() == {"ahead": ["15min", "30min"]}
    # slots 94, 95, and the first of the next day: 9.4, 9.5 and 0.0 times the network's load
    now = profile.advance(94 * 900.0, {})["bus1"]
    whole = {port: value / 9.4 for port, value in now.items() if not port.endswith(("ahead_kw", "ahead_kvar"))}
    assert now["p_ahead_kw"] == pytest.approx([9.5 * whole["p_kw"], 0.0])
    assert now["q_ahead_kvar"] == pytest.approx([9.5 * whole["q_kvar"], 0.0])
    assert profile.advance(95 * 900.0, {})["bus1"]["p_kw"] == now["p_ahead_kw"][0]
    with pytest.raises(ScenarioError, match="profile.lookahead_steps = 1"):
        ForecastProfile().init("profile", 60.0, step_s=900.0, network=NETWORK, lookahead_steps=1)
