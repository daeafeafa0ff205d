"""Rules that shift training by a signal, by hand: which window, which minutes, and what happens to who runs."""

import numpy as np
import pytest
from worlds import run

from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.policies import POLICIES
from cosim.errors import ModelError, ScenarioError
from cosim.run import find
from cosim.scenario import override
from cosim.trace import Trace

HOUR = 3600.0
# a job of 'fit' runs for two hours at the least: 4 blocks of 2 GPUs, 60 TO/(GPU min)
FACTS = FleetFacts(kinds=("train", "inf"), gpus=(20, 20), to_per_gpu_min=(60.0, 60.0), work_to=(57600.0, 60.0),
                   deadline_s=(12 * HOUR, 600.0), gpus_per_block=(2, 1), max_blocks=(4, 1),
                   eligible=((True, True), (True, True)), deferrals_s=(0.0, HOUR, 2 * HOUR, 3 * HOUR),
                   top_to_per_s=((8.0, 1.0), (8.0, 1.0)), classes=("fit", "chat"), sites=("a", "b"))


def seen(time_s=0.0, price=0.1, forecast=(0.1,) * 4, nci=(0.3, 0.6), running=0, mci=None):
    zeros = [[0.0, 0.0]] * 2
    return Observation(
        time_s=time_s, price_usd_per_kwh=price, forecast_usd_per_kwh=list(forecast),
        nci_kg_per_kwh=list(nci) if nci else None, power_kw=[1.0, 1.0], arrivals=[0, 0], arrivals_work_to=[0.0, 0.0],
        queued_jobs=[[2.0, 1.0]] * 2,
        deferred_jobs=zeros, running_jobs=[[float(running), 0.0]] * 2, pending_work_to=[[1e5, 60.0]] * 2,
        deferred_work_to=zeros, free_gpu_ratio=[0.0, 0.0], site_carry=zeros, deferral_carry=[], mci_kg_per_kwh=mci)


def policy(name, **options):
    return POLICIES[name](FACTS, PolicyOptions(**options), np.random.default_rng(0))


@pytest.mark.parametrize(("forecast", "lead"), [
    ((0.2, 0.2, 0.1, 0.3), 1),  # two hours from 1 h: 0.15; the lowest slot alone would be 2 h, whose window is 0.2
    ((0.2, 0.3, 0.1, 0.1), 2), ((0.1, 0.1, 0.1, 0.1), 0), ((0.4, 0.3, 0.2, 0.1), 3)])
def test_the_window_is_as_long_as_the_run(forecast, lead):
    assert policy("lowest_window").lead(seen(forecast=forecast)) == lead


def test_the_lowest_slot_is_that_of_tou_shift():
    assert policy("tou_shift").lead(seen(forecast=(0.2, 0.2, 0.1, 0.3))) == 2


def train_share(rule, **how):
    return [row[0] for row in rule.operate(seen(**how), [[0, 0]] * 2, [[0.0, 0.0]] * 2).gpu_share]


@pytest.mark.parametrize(("name", "running"), [("suspend_resume", 0.0), ("wait_below", 8 / 20)])
def test_training_works_below_the_threshold_only(name, running):
    rule = policy(name, signal_quantile=0.5)
    prices = [0.1, 0.3, 0.2, 0.1]  # medians of what was seen: 0.1, 0.2, 0.2, 0.15
    got = [train_share(rule, time_s=60.0 * k, price=p, running=1) for k, p in enumerate(prices)]
    assert [row[0] > running for row in got] == [True, False, True, True]
    assert got[1] == [running, running]
    free = policy("uniform")
    assert train_share(free, running=1)[0] == got[0][0] > 8 / 20


def test_each_site_has_its_own_signal_and_old_values_are_forgotten():
    rule = policy("suspend_resume", signal="nci", signal_quantile=0.0)
    assert train_share(rule, nci=(0.3, 0.6))[0] > 0.0
    later = train_share(rule, time_s=60.0, nci=(0.4, 0.5))
    assert later[0] == 0.0 < later[1]
    assert train_share(rule, time_s=86460.0, nci=(0.41, 0.41))[0] > 0.0  # 0.3 and 0.4 are a day old


def test_signals_that_are_not_there_are_named():
    with pytest.raises(ModelError, match="controller.signal = mci, and none is known: --set grid.mci=true"):
        train_share(policy("wait_below", signal="mci"))
    with pytest.raises(ScenarioError, match="power mode hides it"):
        train_share(policy("wait_below", signal="nci"), nci=None)
    assert train_share(policy("wait_below", signal="mci"), mci=[0.3, 0.4])[0] > 0.0
    rule = policy("wait_below", signal="mci")
    assert train_share(rule, mci=[0.3, 0.4]) == train_share(rule, time_s=60.0)  # an interval without one: the last


def test_inference_is_left_alone():
    observed, rule = seen(time_s=60.0, price=0.9), policy("suspend_resume")
    rule.works(seen())
    nothing = [[0, 0]] * 2, [[0.0, 0.0]] * 2
    assert [row[1] for row in rule.operate(observed, *nothing).gpu_share] == [
        row[1] for row in policy("uniform").operate(observed, *nothing).gpu_share]


def test_it_runs_in_the_study(tmp_path):
    """Prices that rise after 30 min: training that has begun is suspended, nobody misses a deadline."""
    (tmp_path / "p.csv").write_text("time_h,price_usd_per_kwh\n0,0.05\n0.5,0.5\n9,0.05\n")
    scenario = override(find("ieee33"), {"controller.policy": "suspend_resume",
                                         "tariff.prices": str(tmp_path / "p.csv")})
    with Trace(run(scenario, tmp_path / "t.h5", until_s=3600.0).path) as trace:
        busy = trace["aidc/Site/busy_gpus"][:, :, :2].sum(axis=(1, 2))
        assert busy[29] > 0.0
        assert (busy[30:] == 0.0).all()
        assert trace["aidc/Site/dropped_jobs"][:, :, :2].sum() == 0.0


@pytest.mark.parametrize(("forecast", "lead"), [
    # a run of 2 h: windows 0.25, 0.175, 0.125, 0.1; saved per hour 0, .075/3, .125/4, .15/5: the lowest is not worth it
    ((0.3, 0.2, 0.15, 0.1), 2), ((0.1, 0.1, 0.1, 0.1), 0), ((0.1, 0.2, 0.3, 0.4), 0),
    ((0.2, 0.2, 0.2, 0.1), 3)])  # 0.2, 0.2, 0.15, 0.1: .05/4 < .1/5
def test_a_job_weighs_what_it_saves_against_the_time_it_takes(forecast, lead):
    assert policy("carbon_time").lead(seen(forecast=forecast)) == lead


def test_the_lowest_window_of_an_intensity_is_that_of_yesterday_and_of_each_site():
    """Site a was clean from 3 h on, site b at once; on the first day nothing is known, and nothing waits."""
    rule = policy("lowest_window", signal="nci")
    for quarter in range(96):
        hour = quarter / 4
        assert rule.leads(seen(time_s=900.0 * quarter, nci=(0.1 if hour >= 3 else 0.5, 0.1))) == [0, 0]
    assert rule.leads(seen(time_s=24 * HOUR, nci=(0.5, 0.1))) == [3, 0]
    assert rule.operate(seen(time_s=24 * HOUR + 60.0, nci=(0.5, 0.1)), [[1, 0]] * 2, [[1e3, 0.0]] * 2
                        ).deferral_share == [[[0.0, 0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0, 0.0]]]


def test_a_window_of_an_unknown_signal_is_refused():
    with pytest.raises(ModelError, match="controller.signal = mci, and none is known"):
        policy("carbon_time", signal="mci").leads(seen())
