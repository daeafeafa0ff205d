"""GPUs that the classes of a kind use together: whose they are, and how they are divided."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_vector import random_actions

from cosim.agents.fleet.actions import decision_of
from cosim.agents.fleet.decision import FleetFacts
from cosim.agents.fleet.pooling import divide, groups, per_class, per_kind, pool, sharers
from cosim.drivers.resolve import resolve
from cosim.errors import ModelError, ScenarioError
from cosim.learning.vector import Environment, learning_scenario
from cosim.scenario import override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.llm_day import SCENARIO as LLM_DAY

CLASSES = ("llm", "vae", "deep_research", "search")
POOLED = FleetFacts(
    kinds=("train", "train", "inf", "inf"), gpus=(400,), to_per_gpu_min=(6e4, 6e4, 2.5e5, 2.5e5), work_to=(1.0,) * 4,
    deadline_s=(7200.0,) * 4, gpus_per_block=(16, 8, 1, 1), max_blocks=(6, 5, 1, 1), eligible=((True,),) * 4,
    deferrals_s=(0.0,), gpu_shares="pooled")
KINDS = dataclasses.replace(POOLED, gpu_shares="kinds")


def work(llm_min, vae_min, deep_min, search_min):
    """Unfinished work in GPU-minutes, as TO."""
    return [x * speed for x, speed in zip((llm_min, vae_min, deep_min, search_min), POOLED.to_per_gpu_min, strict=True)]


@pytest.mark.rows("E14", "E30", "E31")
def test_the_gpus_of_a_kind_are_the_sum_of_its_classes():
    """Of 400: 120 are 7 blocks of 16, 80 ten of 8; 40.4 and 20 GPUs serve. Shares of 1.6 in sum count 1/1.6 of it."""
    assert pool(POOLED, [0.3, 0.2, 0.101, 0.05], 400) == [112 + 80, 40 + 20]
    assert pool(POOLED, [0.8, 0.0, 0.0, 0.8], 400) == [192, 200]
    assert pool(KINDS, per_class(KINDS, [0.499, 0.151]), 400) == [199, 60]
    with pytest.raises(ModelError, match="not all finite"):
        pool(POOLED, [math.nan, 0.0, 0.0, 0.0], 400)


@pytest.mark.rows("E14")
def test_training_is_divided_by_work_in_whole_blocks():
    """100 GPUs for work as 3 to 1: 75 are 4 blocks of 16 and 11 more, 25 are 3 of 8 and 1 more. Of the 12 that are left
    llm has the larger part of a block, which needs 16; so vae gets one of 8."""
    assert divide(POOLED, [100, 0], [0, 0, 0, 0], [1, 3, 0, 0], work(300.0, 100.0, 0, 0)) == [64, 32, 0, 0]


@pytest.mark.rows("E14")
def test_what_one_class_cannot_use_the_others_get():
    """One llm job can use 96 GPUs, whatever work it has; without work for vae the others stay idle."""
    assert divide(POOLED, [200, 0], [0, 0, 0, 0], [1, 9, 0, 0], work(9000.0, 90.0, 0, 0)) == [96, 104, 0, 0]
    assert divide(POOLED, [200, 0], [0, 0, 0, 0], [1, 0, 0, 0], work(9000.0, 0.0, 0, 0)) == [96, 0, 0, 0]


@pytest.mark.rows("E14")
def test_running_inference_keeps_its_gpus_and_the_rest_goes_by_work():
    """Of 20 GPUs 6 + 10 are in use; of 4 more deep_research gets 54/60, which is 3.6 and so all. Of 8 all are in use,
    as 6 to 10."""
    inside, todo_to = ([0, 0, 6, 10], [0, 0, 36, 12]), work(0, 0, 54.0, 6.0)
    assert divide(POOLED, [0, 20], *inside, todo_to) == [0, 0, 10, 10]
    assert divide(POOLED, [0, 8], *inside, todo_to) == [0, 0, 3, 5]
    assert divide(POOLED, [0, 60], *inside, todo_to) == [0, 0, 36, 12]


counts = st.lists(st.integers(0, 60), min_size=4, max_size=4)


@given(st.integers(0, 400), st.integers(0, 400), counts, counts, st.lists(st.floats(0.1, 1e4), min_size=4, max_size=4))
@pytest.mark.rows("E14")
def test_no_kind_gets_more_than_it_has_nor_idles_while_a_class_can_use_a_block(train, inf, running, waiting, minutes):
    jobs = [r + w for r, w in zip(running, waiting, strict=True)]
    todo_to = [j * x for j, x in zip(jobs, work(*minutes), strict=True)]
    given_to = divide(POOLED, [train, inf], running, jobs, todo_to)
    for gpus, of_kind in zip((train, inf), groups(POOLED), strict=True):
        left = gpus - sum(given_to[m] for m in of_kind)
        assert left >= 0
        for m in of_kind:
            block, most = POOLED.gpus_per_block[m], jobs[m] * POOLED.max_blocks[m] * POOLED.gpus_per_block[m]
            assert given_to[m] % block == 0
            assert given_to[m] <= most
            assert left < block or given_to[m] == most


def test_names_and_sums_are_those_of_the_kinds_that_there_are():
    assert sharers(KINDS, CLASSES) == ["train", "inf"]
    assert sharers(POOLED, CLASSES) == list(CLASSES)
    mixed = dataclasses.replace(KINDS, kinds=("inf", "train", "inf", "inf"))
    assert per_kind(mixed, [0.125, 0.25, 0.5, 0.0]) == [0.25, 0.625]
    assert per_class(mixed, [0.75, 0.25]) == [0.25, 0.75, 0.0, 0.0]
    serves = dataclasses.replace(KINDS, kinds=("inf",) * 4)
    assert (sharers(serves, CLASSES), groups(serves), pool(serves, [0.5, 0, 0, 0.25], 8)) == (
        ["inf"], [(0, 1, 2, 3)], [6])


# --- in the controller ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pooled", "kinds"])
@pytest.mark.rows("E14")
def test_a_controller_grants_a_kind_what_was_decided_for_it(how):
    """Half an hour of random decisions: of each kind no GPU more, and none idle that a job released now can use. Some
    jobs are deferred, which can use none."""
    scenario = override(IEEE33, {"controller.gpu_shares": how, "controller.guard_slack_min": "null"})
    env, rng = Environment(resolve(learning_scenario(scenario)), seed=0), np.random.default_rng(2)
    controller, facts, scarce, deferred = env.steering.controller, env.steering.facts, 0, 0
    for _ in range(30):
        action, situation = random_actions(env.steering.spec, 1, rng)[0], env.steering._situation
        decision, seen = decision_of(facts, action.tolist()), situation.observation
        placement = controller.pipeline.place(situation, decision.site_share)
        _, commands = controller.pipeline.operate(situation, placement, decision.operation)
        for i, command in enumerate(commands):
            now = [0] * 4
            columns = (command.jobs.get(name, ()) for name in ("job_class", "release_s"))
            for name, release_s in zip(*columns, strict=True):
                now[facts.classes.index(name)] += release_s <= seen.time_s
                deferred += release_s > seen.time_s
            room = [(seen.running_jobs[i][m] + seen.queued_jobs[i][m] + now[m]) * facts.max_blocks[m]
                    * facts.gpus_per_block[m] for m in range(4)]
            for gpus, of_kind in zip(pool(facts, decision.operation.gpu_share[i], facts.gpus[i]), groups(facts),
                                     strict=True):
                left = gpus - sum(command.gpus[m] for m in of_kind)
                assert left >= 0
                assert all(command.gpus[m] <= room[m] and (left < facts.gpus_per_block[m] or command.gpus[m] == room[m])
                           for m in of_kind)
                scarce += gpus < sum(room[m] for m in of_kind)
        env.step(action)
    assert scarce > 5
    assert deferred


def test_replicas_are_not_divided_anew_every_minute():
    with pytest.raises(ScenarioError, match=r"gpu_shares = kinds .* replicas of .*\(chat, reasoning, code\)"):
        resolve(override(LLM_DAY, {"controller.gpu_shares": "kinds"}))
