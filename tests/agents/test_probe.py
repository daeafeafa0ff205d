"""What a policy is shown instead of what is, what its answers say, and the verdict: of rules whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cosim.agents import probe
from cosim.agents.evaluate import main
from cosim.agents.fleet import intervention as act
from cosim.agents.fleet.decision import Observation
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.ieee33_living import SCENARIO as LIVING

SIGNALS = act.Signals(np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), np.full((2, 3), 0.7), np.array([0.1, 0.3]),
                       np.array([[0.1] * 6, [0.3] * 6]))
SEEN = Observation(
    time_s=0.0, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1] * 6, nci_kg_per_kwh=[0.3, 0.6, 0.9],
    power_kw=[250.0, 125.0, 500.0], arrivals=[1, 17], arrivals_work_to=[6.91e8, 1.02e7],
    queued_jobs=[[1, 30], [0, 0], [0, 0]], deferred_jobs=[[0, 0]] * 3, running_jobs=[[5, 7]] * 3,
    pending_work_to=[[2.4e9, 1e8]] * 3, deferred_work_to=[[0.0, 0.0]] * 3, free_gpu_ratio=[0.0] * 3,
    site_carry=[[0.0] * 3] * 2, deferral_carry=[[[0.0] * 6]] * 3, mci_kg_per_kwh=[0.3, -0.2, 0.7],
    late_jobs=[[1, 0], [0, 0], [0, 0]], urgent_jobs=[[0, 3], [0, 0], [0, 0]], slack_min=[-20.0, 1440.0, 300.0])
SPAN = probe.Span(10 / 1440, 0.0)


def test_what_policies_are_shown():
    """NCI 0.3, 0.6, 0.9 and mci 0.3, -0.2, 0.7 at the sites; of the recording the second decision, or the first."""
    turned = act.exchanged(0, 2)(0, SEEN)
    assert (turned.nci_kg_per_kwh, turned.mci_kg_per_kwh) == ([0.9, 0.6, 0.3], [0.7, -0.2, 0.3])
    assert act.exchanged(0, 2, ["nci_kg_per_kwh"])(0, SEEN).mci_kg_per_kwh == SEEN.mci_kg_per_kwh
    assert act.recorded(SIGNALS)(1, SEEN).nci_kg_per_kwh == [0.4, 0.5, 0.6]
    assert act.recorded(SIGNALS, np.array([1, 0]))(1, SEEN).nci_kg_per_kwh == [0.1, 0.2, 0.3]
    assert act.constant(SIGNALS)(0, SEEN).nci_kg_per_kwh == pytest.approx([0.35] * 3)
    assert act.recorded(SIGNALS)(0, replace(SEEN, nci_kg_per_kwh=None)).nci_kg_per_kwh is None  # power mode
    later = act.other_prices(SIGNALS, np.array([1, 0]))(0, SEEN)
    assert (later.price_usd_per_kwh, later.forecast_usd_per_kwh) == (0.3, [0.3] * 6)
    assert act.flat_prices(SIGNALS)(0, SEEN).forecast_usd_per_kwh == pytest.approx([0.2] * 6)
    calm, urgent = act.no_deadlines(0, SEEN), act.all_urgent(0, SEEN)
    assert (calm.slack_min, sum(map(sum, calm.urgent_jobs)), sum(map(sum, calm.late_jobs))) == ([1440.0] * 3, 0, 0)
    assert (urgent.slack_min, urgent.urgent_jobs[0]) == ([0.0] * 3, [6, 37])  # queued 1 and 30, running 5 and 7


def test_farthest_sites():
    """On average 0.1 between neighbours and 0.2 between the first and the last."""
    assert probe.farthest(SIGNALS.nci_kg_per_kwh) == (0, 2)
    assert probe.farthest(np.array([[0.5, 0.1, 0.2]])) == (0, 1)


def minutes(share, nci, power_kw=(100.0, 100.0)):
    shown = act.Signals(np.array(nci, float), np.full((2, 2), math.nan), np.array([0.1, 0.1]), np.zeros((2, 6)))
    power = np.array([power_kw] * 2).T / 2
    return probe.Ran(shown, probe.Minutes(np.array(share, float), power, np.ones(2), shown), {}, {})


def test_responses_by_hand():
    """The first minute's intensities are exchanged, 0.4 apart, and 0.2 of the work goes the other way: 0.05 per 0.1
    kg/kWh. In another order both sites' means rise by 0.2 in one minute and fall by it in the other, and the fleet
    draws 3 kW less and 1 kW more: -(0.2 x 3 + 0.2 x 1) / (2 x 0.04) per kg/kWh are 1 % of 100 kW per 0.1."""
    shown = minutes([[0.6, 0.4], [0.5, 0.5]], [[0.2, 0.6], [0.4, 0.4]])
    runs = {"replayed": shown, "nci swapped": minutes([[0.4, 0.6], [0.5, 0.5]], [[0.6, 0.2], [0.4, 0.4]]),
            "nci shuffled": minutes([[0.6, 0.4]] * 2, [[0.4, 0.8], [0.2, 0.2]], (97.0, 101.0))}
    found = probe.responses([runs, runs])
    assert found.slopes["routes by nci"].values == pytest.approx([-0.05] * 2)
    assert found.slopes["waits by nci"].values == pytest.approx([-0.01] * 2)
    assert set(found.slopes) == {"routes by nci", "waits by nci"}  # no mci is known, no other run was made
    assert probe.within(np.array([[0.6, 0.4], [0.5, 0.5]]), np.array([[0.2, 0.6], [0.4, 0.5]])) == pytest.approx(-1.0)
    assert math.isnan(probe.within(np.full((2, 2), 0.5), np.array([[0.2, 0.6], [0.4, 0.5]])))


@pytest.mark.parametrize(("values", "aware"), [
    ((-0.05, -0.06, -0.07), True), ((-0.05, 0.05, -0.07), False), ((0.05, 0.06, 0.07), False),
    ((-0.005, -0.006, -0.007), False),  # beyond doubt, but too little
    ((-0.3,), False)])                  # one seed has no interval
def test_the_verdict_goes_by_sign_and_interval(values, aware):
    """t(0.975, 2) = 4.303: of -0.05, -0.06, -0.07 the interval is -0.06 +- 0.025, wholly below -0.01."""
    found = probe.Responses({"routes by nci": probe.Slope(values, -probe.ROUTES)}, {})
    assert probe.carbon_aware(found) == aware
    assert probe.words(found).startswith("carbon-aware (routes by nci)" if aware else "not carbon-aware")


def test_to_know_prices_or_deadlines_is_not_to_see_carbon():
    found = probe.Responses({"routes by nci": probe.Slope((0.0, 0.0), -0.01), "price": probe.Slope((-0.2, -0.3), -0.01),
                             "deadlines": probe.Slope((0.2, 0.21), 0.01)}, {})
    assert not probe.carbon_aware(found)
    assert probe.words(found) == "not carbon-aware; deadline-aware"  # of -0.2 and -0.3 the interval reaches 0


def runs(scenario, policy, names):
    return [probe.probe_one(scenario.to_json(), policy, seed, SPAN, names) for seed in (500, 501)]


@pytest.mark.long(after=2)
@pytest.mark.parametrize(("scenario", "policy", "aware"), [
    (LIVING, "nci_priority", True), (LIVING, "uniform", False), (IEEE33, "ieee33_mat", False),
    (LIVING, "ieee33_living_mat", True)])
def test_rules_and_teams_are_called_what_they_are(scenario, policy, aware):
    """Ten minutes of two seeds: the cleanest site is filled first, equal shares go by nothing."""
    found = probe.responses(runs(scenario, policy, ["replayed", "nci swapped"]))
    assert probe.carbon_aware(found) == aware
    assert (found.slopes["routes by nci"].values == (0.0, 0.0)) == (policy == "uniform")


def test_the_accounts_are_those_of_what_is():
    """Told everything wrong, `uniform` does what it did: nothing that it is shown enters a figure."""
    one = probe.probe_one(LIVING.to_json(), "uniform", 500, SPAN, ["true", "prices flat"])
    assert one["true"].brings == one["prices flat"].brings
    assert one["prices flat"].minutes.shown.price_usd_per_kwh.std() == 0.0


def test_tables_say_what_was_told_and_the_verdict():
    found = {policy: runs(LIVING, policy, ["true", "replayed", "nci swapped"]) for policy in ("nci_priority",)}
    does, brings, last = probe.tables(found, "").tables
    assert [row[0] for row in does.rows] == ["true", "replayed - true", "nci swapped - replayed"]
    assert does.columns[:4] == ("shown", "share aidc1", "share aidc2", "share aidc3")
    assert brings.columns[-1] == "all sources t/day"
    assert last.rows[-1] == ("verdict", "carbon-aware (routes by nci)")


@pytest.mark.parametrize("scenario", ["two_bus", "ieee33_power"])
def test_where_nothing_can_be_told_otherwise_it_says_so(scenario, capsys):
    assert main(["uniform", "--probe", scenario, "--seeds", "1", "--jobs", "1"]) != 0
    assert "two sites or more" in capsys.readouterr().err
