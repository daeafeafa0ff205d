"""Deferrals that leave a job too little time: clipped, taken from a class, refused, or used as printed."""

import math

import numpy as np
import pytest

from cosim.agents.fleet.actions import site_parts
from cosim.agents.fleet.decision import FleetFacts
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.observation_row import ObservationScope
from cosim.agents.fleet.policies import make_policy
from cosim.agents.fleet.team_arrays import TeamArrays
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.params import validate
from cosim.run import find
from cosim.scenario import override
from cosim.scenarios._study import JOB_CLASSES
from cosim.simulators.controller.deferral import DeferralRules, latest_release_s, permitted, too_long, waiting_jobs
from cosim.simulators.controller.params import ControllerParams, facts_of, guard_min
from cosim.trace import Trace

MIN, HOUR = 60.0, 3600.0
STUDY = {"job_classes": JOB_CLASSES, "sites": {"a": {"node": 1}, "b": {"node": 2}}}
LLM_S, VAE_S = 6.91e8 / (96 * 6e4 / 60), 2.88e8 / (40 * 6e4 / 60)  # 119.97 and 120 min
FIT = {"kind": "train", "work_to": 1.2e6, "deadline_s": "5h", "to_per_gpu_min": 1000.0, "kw_per_to_s": 1e-3,
       "gpus_per_block": 2, "max_blocks": 4}  # 1200 GPU-minutes: 150 min on 8 GPUs


def params(**changes):
    return validate(ControllerParams, {**STUDY, **changes}, "controller")


def fit(gpus=100, leads=("0h", "1h", "2h", "3h"), step_s=MIN, mode="clip", **changes):
    """Parameters and facts of a site with one class."""
    p = params(job_classes={"fit": {**FIT, **changes}}, sites={"a": {"node": 1, "racks": 1, "gpus_per_rack": gpus}},
               deferrals_s=leads, long_deferrals=mode)
    return p, facts_of(p, "controller", step_s)


def one_job(facts, lead, time_s, arrival_s, deadline_s, work_to=1.2e6, mode="clip", step_s=MIN):
    """Release time of one job of the class, what `release` gives for it, and what is said."""
    rules = DeferralRules(facts, mode, "carry", step_s)
    batch = {"work_to": [work_to], "deadline_s": [deadline_s], "arrival_s": [arrival_s]}
    shares = [[float(h == lead) for h in range(len(facts.deferrals_s))]]
    released = rules.release(0, shares, [[0]], batch, time_s, [[0.0] * len(facts.deferrals_s)])
    ((row, release_s),) = released.release_s
    assert row == 0
    return release_s, released, rules.notes("controller", released.clipped, released.moved)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_the_shortest_runs_of_the_study_by_hand():
    facts = facts_of(params(), "controller", MIN)
    assert facts.top_to_per_s[0][:2] == (96e3, 40e3)
    assert pytest.approx(119.97 * MIN, abs=1.0) == LLM_S
    assert VAE_S == 120.0 * MIN
    assert latest_release_s(720 * MIN, 6.91e8, 96e3, MIN) == pytest.approx(599.03 * MIN, abs=1.0)
    assert set(too_long(facts, MIN)) == {(0, 5), (1, 5)}  # ten hours, and only they


@pytest.mark.rows("U10", "U15")
@pytest.mark.parametrize(("lead", "due_min", "release_min"), [
    (0, 300, 30.0),
    (1, 300, 90.0),          # 150 min of work, due at 300: 149 is the latest release
    (2, 300, 149.0),         # asked for 150
    (3, 300, 149.0),         # asked for 210
    (3, 361, 210.0),         # just in time
    (3, 360, 209.0),
    (3, 182, 31.0),
    (3, 170, 30.0),          # too late by now: at once
    (3, 20, 30.0),           # past its deadline as it comes
])
@pytest.mark.rows("U10", "U15")
def test_a_job_is_released_a_step_before_its_latest_start(lead, due_min, release_min):
    """Decided at 30 min; the deferral counts from then, the deadline from the arrival."""
    _, facts = fit()
    release_s, released, notes = one_job(facts, lead, 30 * MIN, 29.5 * MIN, due_min * MIN)
    assert (release_s, released.mean_deferral_s) == (release_min * MIN, (release_min - 30) * MIN)
    clipped = release_min < 30 + 60 * lead
    assert bool(notes) == clipped
    by_lead, by_time = waiting_jobs([released.waiting], facts.deferrals_s, 30 * MIN)
    assert sum(by_lead[0][0]) == sum(by_time[0][0]) == (release_min > 30)
    printed_s, _, silent = one_job(facts, lead, 30 * MIN, 29.5 * MIN, due_min * MIN, mode="as_printed")
    assert (printed_s, silent) == ((30 + 60 * lead) * MIN, [])


@pytest.mark.parametrize(("changes", "gpus", "step_s", "latest_min"), [
    ({}, 100, MIN, 149.0),
    ({}, 100, 15 * MIN, 135.0),                                        # the next decision is 15 min later
    ({"max_blocks": 1}, 100, MIN, -301.0),                             # 600 min on one block
    ({}, 5, MIN, -1.0),                                                # two blocks fit: 300 min
    ({}, 1, MIN, -math.inf),                                           # none fits
    ({"speedup_exponent": 0.5}, 100, MIN, -1.0),                       # s(4) = 2
    ({"speedup_table": [1.0, 2.0, 2.5, 3.0]}, 100, MIN, 99.0),
    ({"speedup_table": [1.0, 2.0, 2.5, 3.0]}, 7, MIN, 59.0),           # s(3) = 2.5: 240 min
    ({"checkpoint_interval_s": "9min", "checkpoint_cost_s": "1min"}, 100, MIN, 300 - 150 / 0.9 - 1),
])
def test_speed_ups_checkpoints_and_small_sites_count(changes, gpus, step_s, latest_min):
    _, facts = fit(gpus, ("0h", "5h"), step_s, **changes)
    assert latest_release_s(300 * MIN, 1.2e6, facts.top_to_per_s[0][0], step_s) == pytest.approx(latest_min * MIN)
    release_s, _, _ = one_job(facts, 1, 0.0, 0.0, 300 * MIN, step_s=step_s)
    assert release_s == pytest.approx(max(latest_min, 0.0) * MIN)


def test_a_larger_job_than_its_class_says_is_clipped_by_its_own_size():
    _, facts = fit(mode="refuse", leads=("0h", "2h"))
    assert one_job(facts, 1, 0.0, 0.0, 300 * MIN, mode="refuse")[0] == 120 * MIN
    release_s, _, notes = one_job(facts, 1, 0.0, 0.0, 300 * MIN, 1.6e6, mode="refuse")  # 200 min
    assert release_s == 99 * MIN
    assert "1 training job was to be released too late" in notes[0]


# --- what a class has -----------------------------------------------------------------------------------------------


@pytest.mark.rows("P20", "U15")
def test_refused_with_the_figures():
    with pytest.raises(ScenarioError, match=r"holds 36000 s \(10 h\), which leaves a job of llm 120 min, less up to 1 "
                                            r"min until the decision; its shortest run at a takes 119.97 min. Leave"):
        facts_of(params(long_deferrals="refuse"), "controller", MIN)
    facts_of(params(long_deferrals="refuse", deferrals_s=["0h", "8h"]), "controller", MIN)
    with pytest.raises(ScenarioError, match=r"holds 0 s \(0 h\), which leaves a job of fit 300 .* at a takes 600.00"):
        fit(mode="refuse", max_blocks=1)


def test_the_slowest_site_decides_what_is_refused_where_sites_differ():
    """On 24 GPUs one block of 16 fits: 12 h for an LLM; a site where none fits does not count."""
    small = {**STUDY["sites"], "c": {"node": 3, "racks": 3}}
    given = {"sites": small, "deferrals_s": ["0h", "8h"], "long_deferrals": "refuse"}
    with pytest.raises(ScenarioError, match=r"shortest run at c takes 719.79 min"):
        facts_of(params(**given), "controller", MIN)
    elsewhere = {name: {**c, "eligible_sites": ["a", "b"]} if c["kind"] == "train" else c
                 for name, c in JOB_CLASSES.items()}
    facts_of(params(**given, job_classes=elsewhere), "controller", MIN)
    facts_of(params(**{**given, "sites": {**STUDY["sites"], "c": {"node": 3, "racks": 1, "gpus_per_rack": 4}}}),
             "controller", MIN)


def test_refused_before_the_run():
    scenario = override(find("ieee33"), {"controller.long_deferrals": "refuse", "controller.policy": "uniform"})
    with pytest.raises(ScenarioError, match=r"controller.deferrals_s holds 36000 s"):
        resolve(scenario, 60.0)


def test_a_masked_deferral_is_in_nobodys_actions():
    facts = facts_of(params(long_deferrals="mask"), "controller", MIN)
    assert facts.deferrable == ((True,) * 5 + (False,),) * 2
    parts = site_parts(facts, facts.classes, {}, True)
    assert [(p.eligible, p.start[-1]) for p in parts[:2]] == [((True,) * 5 + (False,), 0.0)] * 2
    assert sum(parts[0].start) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    operation = make_policy("random", facts, PolicyOptions(), rng, True).operate(None, (), ())
    drawn = np.array(operation.deferral_share)
    assert (drawn[:, :, 5] == 0.0).all()
    assert (drawn[:, :, :5] > 0.0).all()
    clipped = facts_of(params(), "controller", MIN)
    sight = ObservationScope(facts.classes, facts.sites, 1.0, {}, True, False, True)
    ours, theirs = (TeamArrays(f, sight, {}).spec.types["site"].action[0] for f in (clipped, facts))
    assert (ours.eligible, theirs.eligible) == (None, (True,) * 5 + (False,))


def test_who_asks_for_a_masked_deferral_gets_the_longest_that_the_class_has():
    _, facts = fit(mode="mask")
    assert facts.deferrable == ((True, True, True, False),)  # after 2 h 180 of 300 min are left, after 3 h 120
    release_s, _, notes = one_job(facts, 3, 0.0, 0.0, 300 * MIN, mode="mask")
    assert release_s == 120 * MIN
    assert "1 times the policy chose a deferral" in notes[0]


def test_the_cheapest_deferral_that_a_class_has_is_chosen():
    facts = facts_of(params(long_deferrals="mask"), "controller", MIN)
    rule = make_policy("tou_shift", facts, PolicyOptions(), np.random.default_rng(0), True)

    class Seen:
        forecast_usd_per_kwh = (0.3, 0.2, 0.1, 0.2, 0.3, 0.05)

    assert rule.lead(Seen) == 2


def test_no_deferral_at_all_is_masked_where_only_the_first_can_be_met():
    _, facts = fit(mode="mask", max_blocks=1, leads=("1h", "2h"))
    assert facts.deferrable == ((True, False),)
    assert site_parts(facts, ("fit",), {}, True)[0].start == (1.0, 0.0)
    assert permitted(facts, "clip", MIN, "controller") == ((True, True),)


# --- the guard ------------------------------------------------------------------------------------------------------


def test_the_guard_is_the_longest_shortest_run_and_a_step():
    p = params()
    assert guard_min(p, facts_of(p, "controller", MIN), MIN) == [121.0, 121.0]
    p, facts = fit()
    assert guard_min(p, facts, MIN) == [151.0]
    assert guard_min(p, facts, 15 * MIN) == [165.0]
    p, facts = fit(gpus=5)
    assert guard_min(p, facts, MIN) == [301.0]
    p, facts = fit(gpus=1)
    assert guard_min(p, facts, MIN) == [0.0]
    p, facts = fit(deadline_s="90h", work_to=1.2e8)  # 10 days: a site without training has 1440 min and is not guarded
    assert guard_min(p, facts, MIN) == [1440.0]


@pytest.mark.parametrize(("given", "guard"), [("90", [90.0] * 2), (0.0, [0.0] * 2), (None, []),
                                              ("auto", [121.0] * 2)])
def test_the_guard_can_be_set_and_switched_off(given, guard):
    p = params(guard_slack_min=given)
    assert guard_min(p, facts_of(p, "controller", MIN), MIN) == guard


@pytest.mark.parametrize("given", [-1.0, 1441.0, "none", math.nan])
def test_a_guard_that_cannot_be_is_refused(given):
    with pytest.raises(ScenarioError, match="guard_slack_min"):
        params(guard_slack_min=given)


# --- end to end -----------------------------------------------------------------------------------------------------


class Latest:
    """All training as late as it can be asked for."""

    needs_nci = False

    def __init__(self, facts: FleetFacts, options, rng):
        self._rule = make_policy("uniform", facts, options, rng, True)
        self._rule.lead = lambda observation: len(facts.deferrals_s) - 1

    def place(self, observation):
        return self._rule.place(observation)

    def operate(self, observation, jobs, work_to):
        return self._rule.operate(observation, jobs, work_to)


WORLD = {
    "shared.job_classes.train.deadline_s": "20min", "shared.job_classes.train.work_to": 6e5,
    "shared.deferrals_s": [0.0, 480.0, 960.0], "controller.policy": f"{__name__}:Latest",
    "tariff.deferrals_s": [0.0, 480.0, 960.0],
}
"""A job takes 5 min on its block of 2 GPUs and has 20; after 16 min 4 would be left. 80 GPUs are more than enough."""


@pytest.mark.parametrize(("mode", "drops"), [("clip", False), ("mask", False), ("as_printed", True)])
@pytest.mark.rows("I17", "U15")
def test_all_jobs_deferred_as_far_as_they_can_be_and_none_dropped(tmp_path, mode, drops):
    scenario = override(find("two_bus"), {**WORLD, "controller.long_deferrals": mode})
    result = Experiment(scenario, "native", 3600.0, tmp_path / "run.h5").run()
    figures = result.digest.figures
    with Trace(tmp_path / "run.h5") as trace:
        jobs = trace.table("jobs")
    trained = jobs["job_class"] == "train"
    over = trained & (jobs["outcome"] != "unfinished")
    assert over.sum() > 10
    if drops:
        assert (jobs["outcome"][over] == "dropped").all()
        return
    assert figures["dropped_train_jobs"] == 0
    deferred_s = (jobs["release_s"] - jobs["submit_s"])[trained]
    assert (deferred_s > 0).all()
    # on one block 5 min are needed, and one more until the next decision: 14 min after the arrival at the latest
    latest_s = jobs["arrival_s"][trained] + 14 * MIN
    if mode == "clip":
        assert jobs["release_s"][trained] == pytest.approx(latest_s)
    else:
        assert (deferred_s == 480.0).all()
