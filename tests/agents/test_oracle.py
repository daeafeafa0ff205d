"""The myopic oracle: every choice by hand, with a plant that draws 1.25 kW for each kW of IT power."""

import dataclasses

import numpy as np
import pytest

from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Observation
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.oracle import DayMean, drop_risk
from cosim.agents.fleet.policies import make_policy
from cosim.agents.fleet.rewards import RewardWeights
from cosim.errors import ModelError, ScenarioError

HOUR = 3600.0
# llm may be 120 min on 96 GPUs at best and has 720: 600 min of slack; search must start within 15 min
FACTS = FleetFacts(
    kinds=("train", "inf"), gpus=(400, 400), to_per_gpu_min=(6e4, 2.5e5), work_to=(6.912e8, 3e5),
    deadline_s=(12 * HOUR, 900.0), gpus_per_block=(16, 1), max_blocks=(6, 1), eligible=((True, True),) * 2,
    deferrals_s=(0.0, 2 * HOUR), top_to_per_s=((96e3, 2.5e5 / 60),) * 2)
JOB = 6.912e8 / 6e4  # 11520 GPU-min


def warm(site, it_kw, supply_temp_degc):
    return 1.25 * it_kw + 0.0 * supply_temp_degc


def oracle(site_kw=warm, facts=FACTS, sees_nci=True, **reward):
    options = PolicyOptions(reward=RewardWeights(**reward), energy=EnergyModel([0.7, 0.7], [100.0, 100.0], site_kw))
    return make_policy("myopic_oracle", facts, options, np.random.default_rng(0), sees_nci)


def minute(**fields):
    zeros = [[0.0, 0.0], [0.0, 0.0]]
    return dataclasses.replace(Observation(
        time_s=0.0, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1, 0.1], nci_kg_per_kwh=[0.3, 0.8],
        power_kw=[100.0] * 2, arrivals=[0, 0], arrivals_work_to=[0.0, 0.0], queued_jobs=zeros, deferred_jobs=zeros,
        running_jobs=zeros, pending_work_to=zeros, deferred_work_to=zeros, free_gpu_ratio=[1.0] * 2,
        site_carry=[[0.0] * 2] * 2, deferral_carry=[[[0.0] * 2]] * 2, urgent_jobs=zeros), **fields)


def pending(*gpu_min):
    """Training work at the two sites, given in GPU-minutes."""
    return [[g * 6e4, 0.0] for g in gpu_min]


def test_the_risk_of_a_drop_grows_from_none_to_certain():
    assert [drop_risk(x) for x in (-1.0, 0.0, 0.5, 1.0, 7.0)] == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_the_mean_of_a_day_counts_what_is_not_seen_as_expected():
    day = DayMean()
    day.add(0.0, [5.0])
    assert day.mean([2.0]) == [2.0]  # how long the first step holds is not known yet
    for hour in range(1, 6):
        day.add(hour * HOUR, [5.0])
    assert day.mean([1.0]) == pytest.approx([0.25 * 5.0 + 0.75 * 1.0])
    for hour in range(6, 36):
        day.add(hour * HOUR, [float(hour)])
    assert day.mean([1e9]) == pytest.approx([np.mean(np.arange(12, 36))])  # the last 24 of them


def test_work_goes_to_the_cleaner_site_until_a_queue_there_costs_more_than_carbon():
    # 0.5 kg/kWh x 0.7 kW x 1.25 / 60 = 7.29e-3 kg a GPU-min: 7.29e-6 in (32); a GPU-min of a job is worth 1 / 11520
    # of a drop, so the risk may be 0.084 higher: fill sqrt(0.084) = 0.2898 of 400 GPUs x 600 min = 69556 GPU-min
    new = {"arrivals": [1, 0], "arrivals_work_to": [6.912e8, 0.0]}
    edge = (0.5e-3 * 0.7 * 1.25 / 60 * JOB) ** 0.5 * 400 * 600
    assert edge == pytest.approx(69556, rel=1e-4)
    assert oracle().place(minute(pending_work_to=pending(edge - JOB - 1, -JOB), **new))[0] == [1.0, 0.0]
    assert oracle().place(minute(pending_work_to=pending(edge - JOB + 1, -JOB), **new))[0] == [0.0, 1.0]
    assert oracle(c3_per_t=0.0).place(minute(pending_work_to=pending(1.0, 0.0), **new))[0] == [0.0, 1.0]


def test_equal_sites_share_a_minute_of_inference():
    seen = minute(nci_kg_per_kwh=[0.5, 0.5], arrivals=[0, 100], arrivals_work_to=[0.0, 100 * 3e5])
    assert oracle().place(seen)[1] == pytest.approx([0.5, 0.5])


def test_inference_takes_its_gpus_from_what_training_can_count_on():
    # site 0 runs 300 search jobs: 100 GPUs are left; one llm job fills 11520 / 60000 there, 11520 / 240000 at site 1
    seen = minute(nci_kg_per_kwh=[0.5, 0.5], running_jobs=[[0.0, 300.0], [0.0, 0.0]], arrivals=[1, 0],
                  arrivals_work_to=[6.912e8, 0.0])
    assert oracle().place(seen)[0] == [0.0, 1.0]


def gpus(policy, seen):
    policy.place(seen)
    shares = policy.operate(seen, [[0, 0]] * 2, [[0.0, 0.0]] * 2).gpu_share
    return [round(400 * row[0]) for row in shares]


def test_training_waits_for_a_dear_hour_to_pass_unless_it_is_urgent_or_the_queue_is_long():
    jobs = [[40.0, 0.0], [40.0, 0.0]]
    usual = {"queued_jobs": jobs, "pending_work_to": pending(40 * JOB / 4, 40 * JOB / 4)}  # 115200 of 240000 GPU-min
    assert gpus(oracle(), minute(**usual)) == [400, 400]
    dear = minute(price_usd_per_kwh=0.3, **usual)
    assert gpus(oracle(), dear) == [0, 0]
    assert gpus(oracle(), dataclasses.replace(dear, urgent_jobs=[[2.0, 0.0], [0.0, 0.0]])) == [192, 0]
    # 0.02 x 0.2 USD/kWh x 0.01458 kWh = 5.83e-5 saved a GPU-min, 1 / 11520 at stake: worth it up to a fill of 0.8197
    edge = (0.02 * 0.2 * 0.7 * 1.25 / 60 * JOB) ** 0.5 * 400 * 600
    assert edge == pytest.approx(196740, rel=1e-3)
    long = dataclasses.replace(dear, pending_work_to=pending(edge - 10, edge + 10))
    assert gpus(oracle(), long) == [0, 400]


def test_nothing_is_deferred_and_a_policy_may_be_asked_to_operate_alone():
    operation = oracle().operate(minute(price_usd_per_kwh=0.3), [[1, 0]] * 2, [[6.912e8, 0.0]] * 2)
    assert operation.deferral_share == [[[1.0, 0.0]]] * 2


@pytest.mark.parametrize(("site_kw", "best"), [
    (lambda i, it_kw, t: it_kw * (1.3 - 0.01 * t), 23.0),
    (lambda i, it_kw, t: it_kw * (1.0 + 0.02 * (t - 20.0) ** 2), 20.0),
    (warm, 23.0),  # all alike: the warmest
])
def test_the_temperature_is_that_of_the_least_power(site_kw, best):
    seen = minute()
    policy = oracle(site_kw)
    policy.place(seen)
    assert policy.operate(seen, [[0, 0]] * 2, [[0.0, 0.0]] * 2).supply_temp_degc == [best] * 2


def test_carbon_is_what_the_reward_counts():
    seen = minute(arrivals=[0, 1], arrivals_work_to=[0.0, 3e5], mci_kg_per_kwh=[0.9, 0.1])
    assert oracle().place(seen)[1] == [1.0, 0.0]
    assert oracle(carbon="marginal").place(seen)[1] == [0.0, 1.0]
    assert oracle(carbon="system_difference").place(seen)[1] == [0.0, 1.0]
    with pytest.raises(ModelError, match="carbon = marginal.*hears none: --set grid.mci=true"):
        oracle(carbon="marginal").place(minute())
    blind = oracle(sees_nci=False)
    assert blind.place(minute(nci_kg_per_kwh=None, pending_work_to=[[0.0, 1e8], [0.0, 0.0]]))[1] == [0.0, 1.0]


def test_it_must_be_told_what_a_site_draws():
    with pytest.raises(ScenarioError, match="needs to know what a site draws"):
        make_policy("myopic_oracle", FACTS, PolicyOptions(), np.random.default_rng(0))
