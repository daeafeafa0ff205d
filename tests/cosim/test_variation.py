"""Randomised worlds: what is drawn, from what it follows, what stays as written; both engines play the same."""

import numpy as np
import pytest

from cosim.drivers.resolve import at, resolve
from cosim.errors import ScenarioError
from cosim.learning.environment import vector_env
from cosim.learning.variation import variation_of, variations_of, varied
from cosim.learning.vector import learning_scenario
from cosim.request import find
from cosim.scenario import override

SMALL = override(find("two_bus"), {"until_s": 1800.0})


def test_values_lie_in_their_range_and_follow_from_seed_day_and_path():
    one, other = variation_of("workload.rate_scale", "0.7:1.2"), variation_of("profile.scale", "0.7:1.2")
    drawn = [one.drawn(1000 + k, 0) for k in range(200)]
    assert 0.7 <= min(drawn) < 0.72
    assert 1.18 < max(drawn) <= 1.2
    assert one.drawn(1000, 0) == drawn[0] != one.drawn(1000, 1)
    assert one.drawn(1000, 0) != other.drawn(1000, 0)
    shapes = variation_of("profile.shape", "ieee33_light|residential")
    assert {shapes.drawn(k, 0) for k in range(20)} == {"ieee33_light", "residential"}
    assert variation_of("a.b", "[1, 2]|null").choices == ([1, 2], None)


@pytest.mark.parametrize(("given", "said"), [
    ({"workload.rate_scale": "0.7"}, "give LOW:HIGH"), ({"workload.rate_scale": "1.2:0.7"}, "not the larger"),
    ({"workload.rate_scale": "0:nan"}, "give LOW:HIGH"),
    ({"aidc.window_s": "60:900"}, "agents are made for the others"),
    ({"shared.sites": "1:2"}, "agents are made for"), ({"workload": "1:2"}, "agents are made for"),
    ({"workload.step_s": "60:120"}, "says how the member is run"), ({"workload.rates": "1:2"}, "unknown field"),
    ({"workload.rate_scale": "-1:1"}, "workload.rate_scale = -1"),
])
def test_what_cannot_be_varied_is_refused(given, said):
    with pytest.raises(ScenarioError, match=said):
        variations_of(given, SMALL)


def test_simulators_begin_with_the_drawn_values_and_the_rest_stays():
    resolved = at(resolve(learning_scenario(SMALL)), 1000, 3)
    given = variations_of({"workload.rate_scale": "2:3", "grid.lambda_kw_per_kg_h": "0|0.1"}, SMALL)
    found = varied(resolved, given, 1000, 3)
    lambda_kw, scale = (one.drawn(1000, 3) for one in given)
    assert found.init_params["workload"]["rate_scale"] == scale
    assert found.init_params["grid"]["lambda_kw_per_kg_h"] == lambda_kw
    assert found.scenario is resolved.scenario
    assert found.params is resolved.params
    assert {k: v for k, v in found.init_params["workload"].items() if k != "rate_scale"} == {
        k: v for k, v in resolved.init_params["workload"].items() if k != "rate_scale"}
    assert varied(resolved, [], 1000, 3) is resolved


def course(env, steps, act):
    """Observations (steps + 1, B, n, O) from `reset` on and rewards (steps, B) of the actions that `act` gives."""
    seen, rewards = [env.reset()], []
    for _ in range(steps):
        action = act()
        env.context(action[:, :env.spec.leaders])
        outcome = env.step(action)
        seen.append(outcome.observation)
        rewards.append(outcome.reward)
    return np.array(seen), np.array(rewards)


def played(engine, vary, steps=40, workers=0):
    """Observations, rewards and the state after some steps of two pairs of twins; a day is half an hour."""
    env = vector_env(SMALL, n_envs=4, workers=workers, seed=0, twins=2, engine=engine, vary=vary)
    try:
        action = np.full((4, len(env.spec.agents), env.spec.widths[2]), 0.5, np.float32)
        return *course(env, steps, lambda: action), env.spec, env.state()
    finally:
        env.close()


@pytest.mark.long
def test_worlds_differ_twins_do_not_and_workers_play_the_same():
    vary = {"workload.rate_scale": "0.2:3", "tariff.base_usd_per_kwh": "0.05|0.25"}
    seen, rewards, spec, _ = played("simpy", vary)
    plain, _, as_written, _ = played("simpy", None)
    assert spec == as_written, "scales are those of the scenario"
    assert np.array_equal(seen[:, 0], seen[:, 1])
    assert np.array_equal(seen[:, 2], seen[:, 3])
    assert not np.array_equal(seen, plain)
    apart, rewards_apart, _, _ = played("simpy", vary, workers=2)
    assert np.array_equal(seen, apart)
    assert np.array_equal(rewards, rewards_apart)


def test_both_engines_draw_the_same_and_a_restored_one_goes_on_in_its_world():
    pytest.importorskip("numba")
    vary = {"workload.rate_scale": "0.2:3", "tariff.base_usd_per_kwh": "0.05|0.25"}
    seen, rewards, _, _ = played("simpy", vary)
    fast, fast_rewards, _, state = played("compiled", vary)
    assert fast == pytest.approx(seen, abs=1e-5)
    assert fast_rewards == pytest.approx(rewards, rel=1e-4, abs=1e-6)
    env = vector_env(SMALL, n_envs=4, workers=0, seed=0, twins=2, engine="compiled", vary=vary)
    try:
        assert np.array_equal(env.restore(state), fast[-1])
    finally:
        env.close()
