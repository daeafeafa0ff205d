"""What a step's reward and credits are made of, term by term, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cosim.agents.fleet.credit import Credits, RewardParts, SentWork
from cosim.agents.fleet.rewards import TERMS, WEIGHED, RewardWeights, terms_with_weight

WEIGHTS = RewardWeights(c6_per_inf_wait_min=1e-4)


def parts(hour_cost, eased, **values):
    """Of values by name; the others are 0."""
    return RewardParts([values.get(name, 0.0) for name in TERMS], hour_cost, eased)


ONE = parts(0.03, [-0.1], throughput_ratio=0.5, cost_usd=4.0, carbon_t=0.01, dropped_train_jobs=1, dropped_inf_jobs=2,
            inf_wait_min=10.0)
OTHER = parts(0.01, [0.2], throughput_ratio=0.1, cost_usd=1.0, carbon_t=0.02)
BOTH = parts(0.04, [-0.1, 0.2], throughput_ratio=0.6, cost_usd=5.0, carbon_t=0.03, dropped_train_jobs=1,
             dropped_inf_jobs=2, inf_wait_min=10.0)
SENT = SentWork(7.2e6, 1e-6, 0.3, 0.4)
"""A tenth of the reference's minute, 7.2 kWh at 0.3 USD and 0.4 kg: 0.005, 0.0432 and 0.00288 of the reward."""
CREDITS = Credits(WEIGHTS, True, 1 / 60, 2, BOTH, [ONE, OTHER], [SENT])


def test_summands_are_weighed_and_shaping_stands_with_what_it_shapes():
    """0.05 x 0.5 of work, 0.02 x 4 less the usual 0.03, 1 x 0.01 t, a drop and what looms by 0.1 more, ..."""
    team, manager, one, other = CREDITS.by_term()
    assert one == pytest.approx([0.025, -0.05, -0.01, -1.1, -0.002, -0.001])
    assert other == pytest.approx([0.005, -0.01, -0.02, 0.2, 0.0, 0.0])
    assert team == pytest.approx([a + b for a, b in zip(one, other, strict=True)])
    assert [a - b for a, b in zip(manager, team, strict=True)] == pytest.approx([0.005, -0.0432, -0.00288, 0, 0, 0])


@pytest.mark.parametrize("credits", [CREDITS, replace(CREDITS, sees_carbon=False), replace(CREDITS, sent=()),
                                     replace(CREDITS, sites=None, sent=())])
def test_summands_add_up_to_the_reward_and_the_credits(credits):
    """Where no site has a credit of its own, everyone's is the reward."""
    objective, reward, credit = credits.whole()
    assert objective + 0.04 + 0.1 == pytest.approx(reward)
    assert [sum(row) for row in credits.by_term()] == pytest.approx([reward, *(credit or [reward] * 3)], rel=1e-12)


def test_many_steps_at_once_are_each_by_itself():
    def stacked(of):
        return RewardParts([np.array([x, 2 * x]) for x in of.terms], np.array([of.hour_cost] * 2),
                           [np.array([x, 0.0]) for x in of.eased])
    many = replace(CREDITS, team=stacked(BOTH), sites=[stacked(ONE), stacked(OTHER)],
                   sent=[SENT._replace(added_to=np.array([7.2e6, 0.0]))])
    for row, alone in zip(many.by_term(), CREDITS.by_term(), strict=True):
        assert [np.broadcast_to(x, 2)[0] for x in row] == pytest.approx(alone)
    assert many.whole()[2][0][1] == pytest.approx(2 * CREDITS.whole()[0] + 0.04)


@pytest.mark.parametrize(("weights", "kinds", "sees", "names"), [
    (WEIGHTS, ("train", "inf"), True, WEIGHED), (RewardWeights(), ("train", "inf"), True, WEIGHED[:5]),
    (WEIGHTS, ("train", "inf"), False, tuple(n for n in WEIGHED if n != "carbon_t")),
    (WEIGHTS, ("inf",), True, tuple(n for n in WEIGHED if n != "dropped_train_jobs")),
    (WEIGHTS, ("train",), True, WEIGHED[:4]), (RewardWeights(0, 0, 0, 0, 0), ("train", "inf"), True, ())])
def test_a_term_that_is_always_zero_is_none(weights, kinds, sees, names):
    assert terms_with_weight(weights, kinds, sees) == names
