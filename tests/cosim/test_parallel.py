"""A scenario as a PettingZoo ParallelEnv."""

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from cosim.errors import ScenarioError
from cosim.learning.environment import parallel_env
from cosim.scenario import override
from cosim.scenarios.two_bus import SCENARIO

TWO_BUS = override(SCENARIO, {"workload.counts": "poisson"})


def day(env, rng, seed=None):
    """One day of random actions: all that is returned, and the minutes it took."""
    seen = [env.reset(seed=seed)]
    while env.agents:
        actions = {agent: rng.uniform(0, 1, env.action_space(agent).shape) for agent in env.agents}
        seen.append(env.step(actions))
        for agent, observation in seen[-1][0].items():
            assert env.observation_space(agent).contains(observation), agent
        assert env.state_space.contains(env.state())
    return seen


def test_pettingzoos_own_test():
    """It raises AssertionError itself; 60 steps are a whole day of 45 and the start of the next."""
    env = parallel_env(TWO_BUS)
    parallel_api_test(env, num_cycles=60)
    assert set(env.agents) <= set(env.possible_agents)


def test_the_same_seed_gives_the_same_whole_day():
    env, other = parallel_env(TWO_BUS), parallel_env("two_bus")
    days = [day(e, np.random.default_rng(0), seed=3) for e in (env, env, parallel_env(TWO_BUS))]
    assert repr(days[0]) == repr(days[1]) == repr(days[2])
    assert repr(day(env, np.random.default_rng(0), seed=4)) != repr(days[0])
    assert env.possible_agents == other.possible_agents == ["manager", "aidc1"]
    assert env.action_space("aidc1") is env.action_space("aidc1")


@pytest.mark.rows("L04", "L15", "L17", "R06")
def test_a_day_is_truncated_at_its_end_and_pays_all_agents_the_same():
    env = parallel_env(TWO_BUS)
    seen = day(env, np.random.default_rng(1), seed=0)
    assert len(seen) == 1 + 45
    for minute, (_, rewards, terminations, truncations, infos) in enumerate(seen[1:], 1):
        assert not any(terminations.values())
        assert set(truncations.values()) == {minute == 45}
        assert rewards["manager"] == rewards["aidc1"]
        assert infos["aidc1"]["energy_kwh"] > 0.0
    with pytest.raises(ScenarioError, match="call reset"):
        env.step({})


@pytest.mark.rows("L03", "L20")
def test_the_next_day_goes_on_or_begins_empty():
    """After a whole day the jobs are still there; after a day that was left they are not."""
    env = parallel_env(TWO_BUS)
    last = day(env, np.random.default_rng(2), seed=0)[-1][0]
    goes_on, _ = env.reset()
    assert all(np.array_equal(goes_on[agent], last[agent]) for agent in last)
    assert env._env.episode == 1
    env.reset()
    assert env._env.episode == 2
    assert env._env.steering._seen.free_gpu_ratio == [1.0]


def test_an_action_of_the_wrong_size_is_refused():
    env = parallel_env(TWO_BUS)
    env.reset(seed=0)
    with pytest.raises(ScenarioError, match=r"the action of aidc1 has shape \(3,\), not \(5,\)"):
        env.step({"manager": np.zeros(2), "aidc1": np.zeros(3)})
    with pytest.raises(ScenarioError, match="the action of manager has none"):
        env.step({"aidc1": np.zeros(5)})
