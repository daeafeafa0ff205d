import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.units import finite, format_time, parse_duration, scale, unit_of, whole_steps


@pytest.mark.parametrize(("name", "symbol"), [
    ("p_load_kw", "kW"), ("price_usd_per_kwh", "USD/kWh"), ("nci_kg_per_kwh", "kg/kWh"), ("emission_kg_per_h", "kg/h"),
    ("lambda_kw_per_kg_h", "kW/(kg/h)"), ("P_load[MW]", "MW"), ("Vm[pu]", "p.u."), ("vm_pu", "p.u."),
    ("queued_jobs", "jobs"), ("rate_per_min", "1/min"), ("to_per_gpu_min", "TO/(GPU min)"), ("policy", "1"),
    ("free_gpu_ratio", "1"), ("kw_per_to_s", "kW/(TO/s)"), ("Q_load[MVar]", "Mvar"), ("supply_temp_degc", "degC"),
])
def test_the_suffix_of_a_name_is_its_unit(name, symbol):
    assert unit_of(name).symbol == symbol


def test_scale_follows_from_two_names():
    assert scale("p_load_kw", "P_load[MW]") == 1e-3
    assert scale("P[MW]", "p_kw") == 1e3
    assert scale("nci_kg_per_kwh", "NCI[g/kWh]") == 1e3
    with pytest.raises(ScenarioError, match="measure the same thing"):
        scale("p_kw", "vm_pu")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15min", 900), ("24h", 86400), ("1.5d", 129600),
                                               ("0s", 0)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "1 day", "-1h", "1e400h0", "nan s"])
def test_a_duration_that_is_not_one_is_refused(text):
    with pytest.raises(ScenarioError, match="time '"):
        parse_duration(text)


def test_times_for_people():
    assert format_time(4500) == "01:15"
    assert format_time(90061) == "1d 01:01:01"


def test_finite_names_the_culprit():
    assert finite("x", 2) == 2.0
    for bad in (float("nan"), float("inf"), None, "abc"):
        with pytest.raises(ModelError, match="grid.loss_kw"):
            finite("grid.loss_kw", bad)


@given(st.integers(0, 10**7), st.sampled_from([1.0, 15.0, 60.0, 900.0]))
def test_clock_is_exact_both_ways(steps, resolution_s):
    clock = Clock(resolution_s)
    assert clock.steps(clock.seconds(steps)) == steps


def test_clock_refuses_a_part_of_a_step():
    with pytest.raises(ScenarioError, match="grid.step_s = 90 s is not a whole number of bus steps of 60 s"):
        Clock(60).steps(90, "grid.step_s")
    with pytest.raises(ScenarioError, match="resolution_s"):
        Clock(0)


def test_unknown_suggests_the_nearest_name():
    said = unknown("field", "lamda_kw_per_kg_h", ["lambda_kw_per_kg_h", "step_s"])
    assert "did you mean 'lambda_kw_per_kg_h'?" in said
    assert "did you mean" not in unknown("field", "zzz", ["lambda_kw_per_kg_h"])
    assert "did you mean 'lambda-sweep'?" in unknown("command", "sweep", ["serve", "lambda-sweep"])
    assert "did you mean" not in unknown("field", "kw", ["p_load_kw", "p_site_kw"])
    assert "did you mean 'lambda_kw_per_kg_h'?" in unknown("field", "lamda", ["ac_check", "lambda_kw_per_kg_h"])
    assert "did you mean" not in unknown("field", "mean", ["ac_check", "lambda_kw_per_kg_h"])


@pytest.mark.parametrize(("time_s", "step_s", "steps"), [
    (900.0, 60.0, 15), (0.0, 60.0, 0), (0.3, 0.1, 3), (86400.0, 1 / 3, 259200), (90.0, 60.0, None), (60.0, 900.0, None),
    (1e-12, 60.0, None), (-60.0, 60.0, -1), (float("inf"), 60.0, None), (float("nan"), 60.0, None)])
def test_a_time_is_a_whole_number_of_steps_or_none(time_s, step_s, steps):
    assert whole_steps(time_s, step_s) == steps
