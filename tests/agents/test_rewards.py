"""Reward (32) by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cosim.agents.fleet.decision import FleetFacts
from cosim.agents.fleet.rewards import (
    TERMS,
    RewardWeights,
    StepOutcome,
    hour_cost,
    jobs_per_min,
    loom,
    reward_of,
    terms_of,
    work_worth,
)

MINUTE = StepOutcome(hours=1 / 60, price_usd_per_kwh=0.3, power_kw=[300.0, 600.0], work_to=36e6,
                     dropped_jobs=[1, 0, 30, 5], nci_kg_per_kwh=[0.4, 0.9], mci_kg_per_kwh=[0.3, -0.1],
                     emission_kg_per_h=1200.0, baseline_kg_per_h=900.0, served_to=24e6)
KINDS = ("train", "train", "inf", "inf")


@pytest.mark.rows("I20", "R01-05")
def test_the_terms_of_a_minute():
    """900 kW for a minute are 15 kWh, at 0.3 USD/kWh 4.5 USD; 5 kWh x 0.4 + 10 kWh x 0.9 = 11 kg; all sources 20 kg."""
    terms = dict(zip(TERMS, terms_of(MINUTE, KINDS, RewardWeights()), strict=True))
    assert terms == pytest.approx({
        "throughput_ratio": 0.5, "cost_usd": 4.5, "carbon_t": 0.011, "dropped_train_jobs": 1, "dropped_inf_jobs": 35,
        "work_to": 36e6, "energy_kwh": 15.0, "attributed_t": 0.011, "system_t": 0.020,
        "served_to": 24e6, "inf_wait_min": 0.0})


def test_waits_are_priced_beside_the_drops():
    """20 search and 10 deep_research jobs wait for the minute, whatever training waits: 30 min at 1e-4 each."""
    waited, weights = replace(MINUTE, queued_jobs=[3, 4, 10, 20]), RewardWeights(c6_per_inf_wait_min=1e-4)
    terms = terms_of(waited, KINDS, weights)
    assert terms[-1] == pytest.approx(30.0)
    assert reward_of(terms, weights) == pytest.approx(reward_of(terms, RewardWeights()) - 3e-3)


def test_work_is_worth_its_throughput_less_its_energy():
    """72e6 TO on the study's GPUs are 1200 GPU-min of 0.7 kW x 1.25 / 60: 17.5 kWh, at 0.3 USD and 0.4 kg/kWh 5.25 USD
    and 7 kg; c1 = 0.05 less 0.02 x 5.25 less 5 x 0.007 = -0.09; without carbon -0.055."""
    weights = RewardWeights(c3_per_t=5.0)
    for sees, worth in ((True, -0.09), (False, -0.055)):
        assert 72e6 * work_worth(17.5 / 72e6, 0.3, 0.4, 1 / 60, weights, sees) == pytest.approx(worth)


@pytest.mark.parametrize(("carbon", "tonnes"), [
    ("attributed", 0.011),          # R3 as printed, with dt
    ("marginal", 0.0005),           # 5 kWh x 0.3 - 10 kWh x 0.1 = 0.5 kg
    ("system_difference", 0.005),   # (1200 - 900) kg/h for a minute = 5 kg
])
@pytest.mark.rows("B08", "E32", "I21", "M02", "R06")
def test_the_reward_is_the_weighted_sum(carbon, tonnes):
    """0.05 x 0.5 - 0.02 x 4.5 - 1 x carbon - 1 x 1 - 0.001 x 35 = -1.1 - carbon"""
    weights = RewardWeights(carbon=carbon)
    terms = terms_of(MINUTE, KINDS, weights)
    assert terms[2] == pytest.approx(tonnes)
    assert reward_of(terms, weights) == pytest.approx(-1.1 - tonnes)
    assert reward_of(terms, weights, sees_carbon=False) == pytest.approx(-1.1)


@pytest.mark.rows("R01-03")
def test_a_step_of_five_minutes_counts_the_same_rate():
    """The same power and the same work a minute for five minutes: equal R1, five times the energy."""
    long = StepOutcome(5 / 60, 0.3, [300.0, 600.0], 180e6, [0, 0, 0, 0])
    terms = dict(zip(TERMS, terms_of(long, KINDS, RewardWeights()), strict=True))
    assert (terms["throughput_ratio"], terms["energy_kwh"]) == pytest.approx((0.5, 75.0))
    assert terms["carbon_t"] == terms["system_t"] == 0.0


@pytest.mark.parametrize(("price", "nci", "gain"), [
    (0.1, 0.3, 4.1667e-5 - 2.9167e-5 - 4.375e-6),    # the usual price, the cleanest source: it pays
    (0.1, 0.9, 4.1667e-5 - 2.9167e-5 - 1.3125e-5),   # the dirtiest: about even
    (0.3, 0.3, 4.1667e-5 - 8.75e-5 - 4.375e-6),      # the peak: it waits if it can
])
def test_what_a_training_gpu_minute_is_worth(price, nci, gain):
    """The arithmetic of the module's docstring: 0.05 x 6e4 / 72e6 = 4.1667e-5; 0.7 kW x 1.25 / 60 = 0.0145833 kWh."""
    weights = RewardWeights()
    busy = StepOutcome(1 / 60, price, [0.7 * 1.25], 6e4, [0, 0], [nci])
    assert reward_of(terms_of(busy, ("train", "inf"), weights), weights) == pytest.approx(gain, abs=1e-8)


def test_a_drop_is_charged_when_it_looms():
    """c4 = 1: two late jobs and three urgent ones threaten 2 + 3 / 10; nothing where it is switched off."""
    assert loom(2, 3, 0.0, 0.1, RewardWeights()) == pytest.approx(2.3)
    assert loom(2, 3, 0.0, 0.1, RewardWeights(c4_per_train_job=10.0)) == pytest.approx(23.0)
    assert loom(2, 3, 0.0, 0.1, RewardWeights(looming=False)) == 0.0


def test_training_that_is_short_of_time_threatens_as_many_jobs_as_could_be_done_in_it():
    """Jobs of 60 000 and 120 000 TO on GPUs of 60 TO a minute: 1000 and 2000 GPU-minutes, so that 300 GPUs do 0.2 a
    minute; with 40 of 60 minutes left 20 are short, which are 4 jobs. Nothing where there is no training."""
    facts = FleetFacts(kinds=("train", "inf", "train"), gpus=(300, 100), to_per_gpu_min=(60.0, 60.0, 60.0),
                       work_to=(6e4, 6.0, 12e4), deadline_s=(1.0,) * 3, gpus_per_block=(1,) * 3, max_blocks=(1,) * 3,
                       eligible=((True, True),) * 3, deferrals_s=(0.0,))
    weights = RewardWeights(c4_per_train_job=2.0, loom_slack_min=60.0)
    assert jobs_per_min(facts, 0) == pytest.approx(0.2)
    assert loom(1, 0, 40.0, 0.2, weights) == pytest.approx(2.0 * (1 + 4))
    assert loom(0, 0, np.array([60.0, 1440.0, -10.0]), 0.2, weights) == pytest.approx([0.0, 0.0, 28.0])
    assert jobs_per_min(replace(facts, kinds=("inf",) * 3), 0) == 0.0


def test_a_dropped_llm_job_costs_more_than_it_saves():
    """11 517 GPU-minutes at the usual price and the dirtiest source save 4.23e-5 each, 0.487 in all; a drop costs 1."""
    weights = RewardWeights()
    saved = -reward_of(terms_of(
        StepOutcome(11517 / 60, 0.1, [0.7 * 1.25], 0.0, [0, 0], [0.9]), ("train", "inf"), weights), weights)
    assert saved == pytest.approx(0.487, abs=1e-3)
    assert saved < weights.c4_per_train_job


def test_what_an_hour_costs_does_not_depend_on_the_policy():
    """900 kW at 0.3 USD/kWh for a minute: 4.5 USD x 0.02 = 0.09, whatever was drawn."""
    assert hour_cost(0.3, 900.0, 1 / 60, RewardWeights()) == pytest.approx(0.09)
