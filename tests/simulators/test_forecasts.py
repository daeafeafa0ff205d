"""Forecasts on the bus: what each kind gives, what is refused before a run, and what goes on after a day.

Rows: U20.
"""

from __future__ import annotations

import math
import shutil

import h5py
import numpy as np
import pytest

from cosim.drivers.resolve import resolve
from cosim.errors import ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.forecasts import forecasts, read_forecasts
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.forecast.adapter import Forecasts
from cosim.simulators.grid.dispatch.source_series import foreseen
from cosim.trace import Trace

HOUR_S = 3600.0


def forecaster(entities=("a",), horizon_s=4 * HOUR_S, seed=0, **signals):
    """A member of hourly steps, started."""
    member = Forecasts()
    member.init("forecast", 60.0, step_s=HOUR_S, seed=seed, horizon_s=horizon_s, horizon_step_s=HOUR_S, **signals)
    names = {"Site": list(entities), "Plant": list(entities), "Feeder": ["feeder"]}
    for model, ports in member.models.items():
        if any(port.flow == "out" for port in ports):
            member.create(len(names[model]), model, names=names[model])
    member.describe()
    return member


def nci(member, hour, value):
    given = {"nci_kg_per_kwh": value, "nci_future_kg_per_kwh": math.nan}
    return member.advance(hour * HOUR_S, {"a": given})["a"]["nci_forecast_kg_per_kwh"]


def plant(member, hour, now, future=math.nan):
    given = {"a": {"available_kw": now, "available_future_kw": future}, "feeder": {}}
    return member.advance(hour * HOUR_S, given)["a"]["available_forecast_kw"]


def test_entry_k_is_k_steps_ahead_and_entry_0_is_now():
    member = forecaster(nci={"kind": "persistence"})
    assert member.describe()["labels"]["horizon"] == ["0min", "60min", "120min", "180min", "240min"]
    assert nci(member, 0, 0.4) == [0.4] * 5


def test_the_day_before_by_hand():
    """On the first day what is now; on the second the first one's values."""
    member = forecaster(nci={"kind": "day_ahead"})
    first = [nci(member, hour, hour / 100.0) for hour in range(24)]
    assert first[3] == [0.03] * 5
    assert first[22] == [0.22, 0.22, 0.0, 0.01, 0.02]  # from midnight on there is a day before
    assert nci(member, 24, 0.9) == [0.9, 0.01, 0.02, 0.03, 0.04]


def test_what_is_known_is_passed_on_and_with_an_error_it_differs_but_for_now_and_night():
    future = [100.0, 200.0, 0.0, 50.0, 80.0]
    assert plant(forecaster(available={"kind": "perfect"}), 0, 100.0, future) == future
    erring = {"kind": "perfect_with_error", "error": {"std_1h_ratio": 0.1}}
    made = plant(forecaster(available=erring), 0, 100.0, future)
    assert made[0] == 100.0
    assert made[2] == 0.0
    assert made != future
    assert made == plant(forecaster(available=erring), 0, 100.0, future)
    assert made != plant(forecaster(available=erring, seed=1), 0, 100.0, future)


def test_errors_shrink_as_their_time_comes_and_are_those_of_the_model():
    """Of 300 seeds, the error of the value four hours ahead, and an hour later of the same one."""
    erring = {"kind": "perfect_with_error", "error": {"std_1h_ratio": 0.1, "std_max_ratio": 1.0}}
    before, after = [], []
    for seed in range(300):
        member = forecaster(available=erring, seed=seed)
        before.append(plant(member, 0, 100.0, [100.0] * 5)[4] / 100.0 - 1.0)
        after.append(plant(member, 1, 100.0, [100.0] * 5)[3] / 100.0 - 1.0)
    assert np.std(before) == pytest.approx(0.2, rel=0.15)
    assert np.std(after) == pytest.approx(0.1 * math.sqrt(3), rel=0.15)
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(math.sqrt(3.0 / 4.0), abs=0.06)


def test_plants_add_up():
    member = forecaster(("a", "b"), available={"kind": "persistence"})
    given = {"available_future_kw": math.nan}
    out = member.advance(0.0, {"a": {"available_kw": 1.0, **given}, "b": {"available_kw": 2.0, **given}, "feeder": {}})
    assert out["feeder"]["renewable_forecast_kw"] == [3.0] * 5


def test_what_was_seen_goes_on_after_the_day():
    one, other = (forecaster(nci={"kind": "day_ahead"}) for _ in range(2))
    for hour in range(24):
        nci(one, hour, hour / 100.0)
    other.resume(one.carry())
    assert nci(other, 0, 0.9) == nci(one, 24, 0.9)


def test_an_intensity_that_is_not_computed_is_forecast_as_such():
    member = forecaster(mci={"kind": "persistence"})
    out = member.step(0, {"a": {"mci_kg_per_kwh": {"g": math.nan}}}, 100)
    assert out == 60
    assert all(map(math.isnan, member.get_data({"a": ["mci_forecast_kg_per_kwh"]})["a"]["mci_forecast_kg_per_kwh"]))


@pytest.mark.parametrize(("signals", "hint"), [
    ({"nci": {"kind": "persistence", "recorded": "run.h5"}}, "recorded = run.h5 has no effect with kind = persistence"),
    ({"nci": {"kind": "perfect", "error": {"std_1h_ratio": 0.2}}}, "an error has no effect with kind = perfect"),
    ({"nci": {"days": 3}}, "days = 3 has no effect"),
    ({"nci": {"kind": "prefect"}}, "kind"),
])
def test_what_would_have_no_effect_is_refused(signals, hint):
    with pytest.raises(ScenarioError, match=hint):
        forecaster(**signals)


def test_a_future_of_another_length_is_refused_by_name():
    with pytest.raises(ModelError, match=r"forecast.a.available_future_kw has 2 values, 5 are expected"):
        plant(forecaster(available={"kind": "perfect"}), 0, 1.0, [1.0, 2.0])


@pytest.mark.parametrize(("settings", "hint"), [
    ({"forecast.nci.kind": "perfect"}, r"forecast.nci.kind = perfect needs .* the loop makes it, so that .*"
     r"--set forecast.nci.kind=persistence --out FIRST.h5, then --set forecast.nci.recorded=FIRST.h5"),
    ({"outlook.available.recorded": "nowhere.h5"}, r"outlook.available.recorded: no trace at nowhere.h5"),
    ({"forecast.step_s": "5min"}, r"forecast.step_s = 300 is not horizon_step_s = 900"),
    ({"shared.horizon_s": "100s"}, r"horizon_s = 100 is not a whole number of steps"),
    ({"grid.lookahead_steps": 1}, r"lookahead_steps = 1 plans nothing"),
    ({"controller.observed_forecasts": ["nci", "nci"]}, "names nci twice"),
    ({"controller.observed_forecasts": ["nci"], "controller.deferrals_s": [0, 100], "tariff.deferrals_s": [0, 100]},
     "100 s is no entry of a horizon"),
])
def test_what_cannot_be_is_refused_before_the_run(settings, hint):
    with pytest.raises(ScenarioError, match=hint):
        resolve(override(find("ieee33_foresight"), settings), HOUR_S)


def test_a_signal_that_is_not_forecast_may_stay_linked():
    """In the shipped scenario, too: one that is switched off makes no port, and what is linked to it is left out."""
    member = forecaster(nci={"kind": "persistence"})
    assert [p.name for p in member.models["Site"] if p.flow == "out"] == ["nci_forecast_kg_per_kwh"]
    Experiment(override(find("ieee33_foresight"), {"forecast.load": None, "forecast.mci": None})).plan()


def test_observed_forecasts_need_a_link():
    with pytest.raises(ScenarioError, match=r"has mci, and nothing is linked to controller.mci_forecast_kg_per_kwh"):
        resolve(override(find("ieee33"), {"controller.observed_forecasts": ["mci"]}), HOUR_S)


# --- in a run ---------------------------------------------------------------------------------------------------------

QUICK = {"workload.rate_scale": 0.1, "grid.ac_check": False, "grid.mci": False, "grid.settle": False,
         "forecast.mci": None, "aidc.offer": None, "shared.lookahead_steps": 2}
"""A tenth of the jobs and no marginal intensities: the forecasts stay what they are."""


def run(path, settings=None, until_s=HOUR_S):
    Experiment(override(find("ieee33_foresight"), {**QUICK, **(settings or {})}), "native", until_s, path).run()
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return run(tmp_path_factory.mktemp("forecasts") / "first.h5")


@pytest.mark.long
def test_a_recorded_run_makes_a_perfect_forecast_and_its_error_is_none(first, tmp_path):
    """NCI of the first run, known in advance, has no error; as on the day before it has one, which the summary has."""
    again = run(tmp_path / "again.h5", {"forecast.nci.kind": "perfect", "forecast.nci.recorded": str(first)})
    with Trace(first) as then, Trace(again) as now:
        assert (then["grid/Bus/nci_kg_per_kwh"] == now["grid/Bus/nci_kg_per_kwh"]).all()
        by_name = {(f.signal, f.entity): f for f in read_forecasts(now)}
        known = by_name["nci", "aidc3"]
        for ahead in (1, 2, 3):
            assert known.values[0, ahead] == known.values[ahead, 0]
        assert summary(now).figures["nci_forecast_mae_kg_per_kwh"] == 0.0
        assert summary(then).figures["nci_forecast_mae_kg_per_kwh"] > 1e-4
        assert forecasts(now).worst == 0.0


def test_a_recording_that_is_too_short_or_has_no_such_forecast_is_refused(first):
    perfect = {"forecast.nci.kind": "perfect", "forecast.nci.recorded": str(first)}
    with pytest.raises(ScenarioError, match=r"lasts 1 h, this run 4 h"):
        resolve(override(find("ieee33_foresight"), perfect), 4 * HOUR_S)
    with pytest.raises(ScenarioError, match=r"has no forecast/Site/mci_forecast_kg_per_kwh"):
        resolve(override(find("ieee33_foresight"), {"forecast.mci.kind": "perfect",
                                                    "forecast.mci.recorded": str(first)}), 900.0)


@pytest.mark.long
def test_the_laws_see_a_forecast_that_is_not_what_its_kind_says(first, tmp_path):
    for member, port, at in (("forecast/Feeder", "price_forecast_usd_per_kwh", (1, 0, 2)),
                             ("forecast/Site", "nci_forecast_kg_per_kwh", (2, 1, 0)),
                             ("outlook/Feeder", "renewable_forecast_kw", (3, 0, 7))):
        other = tmp_path / f"{port}.h5"
        shutil.copy(first, other)
        with h5py.File(other, "r+") as file:
            file[f"{member}/{port}"][at] += 0.5
        with Trace(other) as trace:
            assert forecasts(trace).worst > 1e-4, port


def test_a_plan_takes_what_is_forecast_and_the_interval_what_is_there():
    came = {"pv": {"available_kw": 5.0, "available_forecast_kw": [5.0, 7.0, 9.0]},
            "wind": {"available_kw": 3.0, "available_forecast_kw": math.nan}}
    assert foreseen(came, 0, "grid") == came
    assert foreseen(came, 2, "grid")["pv"]["available_kw"] == 9.0
    assert foreseen(came, 2, "grid")["wind"] == came["wind"]
    with pytest.raises(ModelError, match=r"grid.pv.available_forecast_kw has 3 values, and the look-ahead goes 3"):
        foreseen(came, 3, "grid")
