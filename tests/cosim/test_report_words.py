"""The report's words, its map of a tree, and what several runs share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.reporting.chart import Panel, Picture, Series, ranges
from cosim.reporting.overview import change, differences, labels
from cosim.reporting.text import alike, count, in_one_unit, length, listing, named, number, quantity
from cosim.simulators.reporting.feeder import layout, parse


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (182353.0, "182\u202f353"), (0.56178, "0.562"), (-3.14159, "\u22123.14"),
    (7.5e-8, "7.5\u00d710\u207b\u2078"),
    (1e-5, "1\u00d710\u207b\u2075"), (float("nan"), "not known"), (2302.0, "2\u202f302"),
])
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_quantities_take_the_larger_unit_and_counts_their_noun():
    assert quantity(28423.0, "kWh") == "28.4\u00a0MWh"
    assert quantity(472.0, "kW") == "472\u00a0kW"
    assert quantity(15972.0, "kg", 4) == "15.97\u00a0t"
    assert count(1, "job") == "1 job"
    assert count(1234, "job") == "1\u202f234 jobs"
    assert (length(900), length(4320), length(3 * 86400)) == ("15 min", "1.20 h", "3 days")
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert named("co2_attributed_kg", 15972.0) == ("CO2 attributed", "15.97\u00a0t")
    assert named("flagged_intervals", 0.0) == ("flagged intervals", "0")
    assert (change(2.0, 2.5), change(0.0, 3.0, "jobs"), change(1.0, 1.0)) == ("+25\u202f%", "+3.00 jobs", "=")


def test_what_stands_together_has_one_unit():
    assert alike([960.0, 2401.0], "kg") == ["0.96\u00a0t", "2.40\u00a0t"]
    assert alike([960.0, float("nan")], "kg") == ["960\u00a0kg", "-\u00a0kg"]
    assert in_one_unit([1.0, 10.0], "jobs") == ("jobs", ["1", "10"])
    assert quantity(12345.0, "kW") == "12\u202f345\u00a0kW", "power stays in the unit of the axes"


def test_runs_are_labelled_by_what_sets_them_apart():
    base = {"name": "a", "seed": 0, "members": {"controller": {"params": {"policy": "uniform"}}}}
    other = {"name": "a", "seed": 3, "members": {"controller": {"params": {"policy": "tou_shift"}}}}
    assert labels([base, other], ["x", "y"]) == ["seed 0, uniform", "seed 3, tou_shift"]
    assert labels([base, base], ["x", "y"]) == ["a, x", "a, y"]
    assert labels([base, {**other, "name": "b"}], ["x", "y"]) == ["a", "b"]


def test_long_lists_are_cut_when_they_are_shown_and_not_before():
    ones = [1.0] * 95
    rows = differences([{"shape": [*ones, last], "more": more} for last, more in ((1.0, {}), (2.0, {"a": 1}))])
    assert rows == [("shape", ["96 values, [1.0, 1.0, 1.0, 1.0, 1.0..."] * 2), ("more", ["{}", "-"]),
                    ("more.a", ["-", "1"])]


def test_panels_of_one_axis_share_their_range_between_runs():
    def picture(top):
        line = Series("x", np.array([0.0, 60.0]), np.array([0.0, top]), "ink", 120.0)
        return Picture("p", "says", (Panel("a", series=(line,), axis="kw"), Panel("b", series=(line,))))

    one, two = picture(1.0), picture(5.0)
    found = ranges([one, two])
    assert found[id(one.panels[0])] == found[id(two.panels[0])] == (0.0, pytest.approx(5.4))
    assert ranges([one])[id(one.panels[0])] == (0.0, pytest.approx(1.08))


# --- the map ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_tree_is_laid_out_by_distance_without_two_nodes_in_one_place(draws):
    parents = [draw % (k + 1) for k, draw in enumerate(draws)]
    lines = [(str(parent), str(k + 1)) for k, parent in enumerate(parents)]
    places = layout(lines, "0")
    assert len(set(places.values())) == len(places) == len(lines) + 1
    assert places["0"] == (0, 0)
    for a, b in lines:
        assert places[b][0] == places[a][0] + 1


def test_every_feeder_of_a_substation_has_a_band_of_rows_of_its_own():
    """Of three feeders, a path of four nodes with two laterals each, no row has nodes of two."""
    lines = [(a, b) for f in "abc" for a, b in (("0", f"{f}1"), *((f"{f}{k}", f"{f}{k + 1}") for k in range(1, 4)),
                                               (f"{f}2", f"{f}x"), (f"{f}3", f"{f}y"))]
    rows = {}
    for name, (_, row) in layout(lines, "0").items():
        if name != "0":
            rows.setdefault(name[0], set()).add(row)
    assert not rows["a"] & rows["b"] | rows["a"] & rows["c"] | rows["b"] & rows["c"]
    assert sum(map(len, rows.values())) <= 9


def test_the_longest_path_is_the_middle_and_loops_are_drawn_too():
    # 0-1-2-3 with a lateral 1-4 and a tie 4-3: the tie does not move anybody
    places = layout(parse(["0-1", "1-2", "2-3", "1-4", "4-3"]), "0")
    assert [places[n] for n in "0123"] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert places["4"] == (2, -1)
    assert parse(["north", "south"]) is None
    assert parse(["trafo 0-1", "0-1 #2", "trafo3w 1-trafo3w0"]) == [("0", "1"), ("0", "1"), ("1", "trafo3w0")]
