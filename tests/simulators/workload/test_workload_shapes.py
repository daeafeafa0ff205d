"""Shape of the day and the week, and bursts: by hand, and in the long run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cosim.errors import CosimError
from cosim.simulators.workload.adapter import Arrivals
from cosim.simulators.workload.shapes import BurstPath, Bursts, shape_factors

H = 3600.0
CLASSES = {"chat": {"kind": "inf", "work_to": 1.0, "deadline_s": "1min", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7},
           "talk": {"kind": "inf", "work_to": 1.0, "deadline_s": "1min", "to_per_gpu_min": 60.0, "kw_per_to_s": 0.7}}
RATES = {"chat": {"mean_per_min": 6.0}, "talk": {"mean_per_min": 3.0}}


def counts(hours: float, seed: int = 3, **params) -> np.ndarray:
    """Jobs per minute and class."""
    member = Arrivals()
    member.init("workload", 60.0, step_s=60.0, seed=seed, job_classes=CLASSES, arrivals=RATES, **params)
    member.create(1, "Arrivals", ["all"])
    member.setup_done()
    out = []
    for k in range(int(hours * 60) + 1):
        member.step(k, {}, k + 1)
        out.append(member.get_data({"all": ["arrived_jobs"]})["all"]["arrived_jobs"])
    return np.array(out[1:])


@pytest.mark.rows("I16")
def test_shape_by_hand():
    # four parts of a day of 6 h each; the third day is a day off
    times = np.array([0.0, 6 * H - 1, 6 * H, 24 * H - 1e-6, 24 * H, 48 * H + 12 * H, 7 * 24 * H + 48 * H])
    day, week = (0.5, 1.0, 2.0, 0.5), (1.0, 1.0, 0.1, 1.0, 1.0, 1.0, 1.0)
    assert shape_factors(times, day, week).tolist() == pytest.approx([0.5, 0.5, 1.0, 0.5, 0.5, 0.2, 0.05])
    assert shape_factors(times, (), ()).tolist() == [1.0] * 7


def test_arrivals_follow_the_shape():
    # rates of 6/min: 0 before noon, doubled after; 24 h: 8640 jobs, Poisson: standard deviation 93
    jobs = counts(24, day_factors=[0.0, 2.0])[:, 0]
    assert jobs[:720].sum() == 0.0
    assert abs(jobs.sum() - 8640) < 4 * 93
    assert Arrivals.offered_jobs_per_min(Arrivals.PARAMS(
        job_classes=CLASSES, arrivals=RATES, day_factors=(0.0, 1.0)))["chat"][0] == 3.0


def test_bursts_leave_the_other_classes_alone():
    bursts = {"chat": {"ratio": 5.0, "mean_burst_s": "10min", "mean_calm_s": "50min"}}
    plain, with_bursts = counts(12), counts(12, bursts=bursts)
    assert (plain[:, 1] == with_bursts[:, 1]).all()
    assert (plain[:, 0] != with_bursts[:, 0]).any()


def test_factors_do_not_depend_on_the_cut():
    bursts = Bursts(4.0, 300.0, 900.0)
    whole = BurstPath(bursts, np.random.default_rng(1)).factors(0.0, 100, 60.0)
    path = BurstPath(bursts, np.random.default_rng(1))
    parts = np.concatenate([path.factors(0.0, 30, 60.0), path.factors(1800.0, 70, 60.0)])
    assert parts == pytest.approx(whole, rel=1e-12)


def test_long_run_mean_and_variance_of_bursts():
    # calm factor f = (900 + 300) / (900 + 4 * 300) = 4 / 7, in bursts 16 / 7: mean 1. At one instant the variance is
    # p (1 - p) (16/7 - 4/7)^2 = 0.1875 * 2.9388 = 0.55102; the mean over 10 s has next to the same: a correlation time
    # of 1 / (1/300 + 1/900) = 225 s takes 10 / (3 * 225) = 1.5 % of it. t intervals at 99 % over 30 days: 2.756
    days = [BurstPath(Bursts(4.0, 300.0, 900.0), np.random.default_rng(seed)).factors(0.0, 8640, 10.0)
            for seed in range(30)]
    for values, truth in (([d.mean() for d in days], 1.0), ([((d - 1.0) ** 2).mean() for d in days], 0.5429)):
        assert abs(np.mean(values) - truth) < 2.756 * np.std(values, ddof=1) / math.sqrt(30)
    assert np.std([d.mean() for d in days], ddof=1) < 0.1


@pytest.mark.parametrize(("given", "says"), [({"week_factors": [1.0] * 5}, "seven"),
                                             ({"bursts": {"chut": {"ratio": 2, "mean_burst_s": 1, "mean_calm_s": 1}}},
                                              "chat")])
def test_what_is_refused(given, says):
    with pytest.raises((CosimError, ValueError), match=says):
        counts(0, **given)
