"""The controller's decision as pure functions: same arguments, same results, arguments left as they were."""

import copy

import numpy as np
import pytest
from test_vector import random_actions

from cosim.agents.fleet.actions import decision_of
from cosim.drivers.resolve import resolve
from cosim.learning.vector import Environment, learning_scenario
from cosim.scenario import override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33


@pytest.mark.parametrize("options", [{}, {"controller.rounding": "stateless", "controller.long_deferrals": "mask"}])
@pytest.mark.rows("I13", "U22")
def test_nothing_is_kept_between_the_calls(options):
    """Two minutes' functions, called again and in another order with other decisions between them, give what they gave;
    and what the adapter sends on the bus is what they give."""
    env, rng = Environment(resolve(learning_scenario(override(IEEE33, options))), seed=0), np.random.default_rng(1)
    controller, spec, before = env.steering.controller, env.steering.spec, []
    pipeline, facts = controller.pipeline, controller.facts

    def decided(situation, action):
        decision = decision_of(facts, action.tolist())
        placement = pipeline.place(situation, decision.site_share)
        return placement, pipeline.operate(situation, placement, decision.operation)

    for _ in range(20):
        action, situation = random_actions(spec, 1, rng)[0], env.steering._situation
        kept = copy.deepcopy(situation)
        first = decided(situation, action)
        other = decided(situation, random_actions(spec, 1, rng)[0])
        assert repr(decided(situation, action)) == repr(first)
        for old, old_action, gave in before:
            assert repr(decided(old, old_action)) == gave
        assert repr(situation) == repr(kept)
        before = [*before[-1:], (situation, action, repr(first))]
        env.step(action)
        _, (state, commands) = first
        assert repr(controller.state) == repr(state)
        sent = controller.get_data({site: ["jobs", "gpus", "supply_temp_degc"] for site in facts.sites})
        assert [list(sent[site].values()) for site in facts.sites] == [list(command[:3]) for command in commands]
    assert repr(other) != repr(first)
    assert controller.state.waiting != pipeline.initial().waiting
