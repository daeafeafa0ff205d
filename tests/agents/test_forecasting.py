"""Forecasts of a signal: by hand, and by the properties that their error model states."""

from __future__ import annotations

import numpy as np
import pytest

from cosim import seeds
from cosim.agents.fleet.forecasting import (
    ErrorModel,
    accuracy,
    day_ahead,
    forecast_errors,
    innovations,
    perfect,
    persistence,
    with_error,
)


def test_persistence_repeats_what_is_now_for_every_signal():
    assert persistence([1.0, 2.0], 3).tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    assert persistence(4.0, 2).tolist() == [4.0, 4.0]


def test_the_day_before_at_the_same_time_by_hand():
    history = np.arange(10.0)  # four steps a day; now is step 9, the second of its day
    assert day_ahead(history, [0, 1, 2, 3, 4], 4).tolist() == [5.0, 6.0, 7.0, 8.0, 9.0]
    assert day_ahead(history, [5, 8], 4).tolist() == [6.0, 9.0]  # step 14: 10 has not been, 6 has
    assert day_ahead(history, [1], 4, days=2).tolist() == [(6.0 + 2.0) / 2]
    assert day_ahead(history, [1], 4, days=9).tolist() == [(6.0 + 2.0) / 2]  # there are no more days


def test_on_the_first_day_the_day_before_is_not_known_and_what_is_now_stands():
    assert day_ahead([3.0, 5.0], [0, 1, 3, 4], 4).tolist() == [5.0, 5.0, 3.0, 5.0]  # 3 steps ahead: step 0
    two = day_ahead([[1.0, 2.0], [3.0, 4.0]], [1], 4)
    assert two.tolist() == [[2.0], [4.0]]
    with pytest.raises(ValueError, match="0 values"):
        day_ahead([], [1], 4)


def test_a_signal_of_equal_days_is_forecast_without_error_once_a_day_has_passed():
    day = np.random.default_rng(0).random(8)
    series, ahead = np.tile(day, 4), np.arange(1, 9)
    for now in range(8, 24):
        assert np.array_equal(day_ahead(series[:now + 1], ahead, 8), perfect(series, now, ahead))


def test_perfect_is_the_future_and_holds_its_end():
    assert perfect([1.0, 2.0, 3.0], 1, [0, 1, 2]).tolist() == [2.0, 3.0, 3.0]


def test_the_standard_deviation_grows_with_the_lead_up_to_its_most():
    model = ErrorModel(std_1h_ratio=0.1, growth_exponent=0.5, std_max_ratio=0.25)
    assert model.std_ratio([0.0, 1.0, 4.0, 9.0]).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.25])


def test_errors_have_the_stated_deviation_and_are_unbiased_at_every_lead():
    std, rng = ErrorModel(std_1h_ratio=0.1).std_ratio(np.arange(1, 7)), seeds.stream(1, 0, "forecast", "nci")
    drawn = np.array([forecast_errors(innovations(rng, 6, 6, 0.8), std) for _ in range(4000)])
    assert drawn.std(axis=0) == pytest.approx(std, rel=0.05)
    assert np.abs(drawn.mean(axis=0)).max() < 4 * std.max() / np.sqrt(4000)


def test_a_later_forecast_of_the_same_time_has_an_error_of_which_the_earlier_one_knew_nothing_new():
    """The error of one time is a martingale: what is learned between two forecasts is independent of what is left."""
    std, rng, n = ErrorModel(std_1h_ratio=0.1).std_ratio(np.arange(1, 5)), seeds.stream(2, 0, "forecast", "nci"), 4000
    before, after = np.empty(n), np.empty(n)
    for k in range(n):
        news = innovations(rng, 5, 4, 0.5)
        before[k] = forecast_errors(news[:4], std)[2]  # three steps ahead
        after[k] = forecast_errors(news[1:], std)[1]  # the same time, a step later
    learned = before - after
    assert abs(np.corrcoef(learned, after)[0, 1]) < 4 / np.sqrt(n)
    assert learned.var() == pytest.approx(std[2] ** 2 - std[1] ** 2, rel=0.08)


def test_errors_come_from_the_seed_alone_however_many_rows_are_drawn_at_once():
    one, other = (seeds.stream(7, 0, "forecast", "nci") for _ in range(2))
    assert np.array_equal(innovations(one, 3, 4, 0.8), np.vstack([innovations(other, 1, 4, 0.8) for _ in range(3)]))


def test_an_error_of_the_value_keeps_night_dark_and_one_of_a_scale_does_not_depend_on_the_value():
    assert with_error([0.0, 100.0, 100.0], [0.5, 0.5, -2.0]).tolist() == [0.0, 150.0, 0.0]
    assert with_error([-0.1, 0.4], [0.5, 0.5], scale=0.2).tolist() == pytest.approx([0.0, 0.5])


def test_accuracy_by_hand():
    truth = [1.0, 2.0, 4.0]
    said = [[2.0, 9.0], [3.0, 9.0], [0.0, 0.0]]  # one and two steps ahead
    found = accuracy(said, truth, [1, 2])
    assert found.compared.tolist() == [2, 1]
    assert found.mae.tolist() == [0.5, 5.0]
    assert found.bias.tolist() == [-0.5, 5.0]


def test_what_cannot_be_compared_is_not():
    found = accuracy([[np.nan, 1.0], [1.0, 1.0]], [1.0, 1.0], [1, 5])
    assert found.compared.tolist() == [0, 0]
    assert np.isnan(found.mae).all()
