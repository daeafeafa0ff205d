"""The public task of `benchmarks.spread`: the numbers of the package's, and what a program that works gets there."""

import numpy as np
import pytest

from benchmarks.spread import AGENTS, STEPS, Spread, assigned, main, trial
from cosim.agents.learn.parallel_env import team_of

spread_v3 = pytest.importorskip("mpe2.simple_spread_v3")


def test_it_is_the_task_of_the_package():
    """Agents and landmarks where one of mpe2's episodes has them, then random forces, among which agents collide: what
    agents see and get is the same to rounding."""
    env = spread_v3.parallel_env(N=AGENTS, max_cycles=STEPS, continuous_actions=True)
    worlds, collided = Spread(1, 0), False
    assert worlds.spec == team_of(env)
    worlds.reset()
    for seed in range(5):
        seen, _ = env.reset(seed=seed)
        inside = env.unwrapped.world
        worlds.place, worlds.landmark, worlds.speed = (
            np.array([[x for x in values]]) for values in ([a.state.p_pos for a in inside.agents],
                                                           [m.state.p_pos for m in inside.landmarks],
                                                           [a.state.p_vel for a in inside.agents]))
        rng = np.random.default_rng(seed)
        for _ in range(STEPS):
            forces = rng.random((AGENTS, 5)).astype(np.float32)
            seen, rewards, *_ = env.step(dict(zip(env.possible_agents, forces, strict=True)))
            mine = worlds.move(forces[None])[0]
            assert mine == pytest.approx(list(rewards.values()), abs=1e-9)
            np.testing.assert_allclose(worlds.seen()[0], list(seen.values()), atol=1e-6)
            collided = collided or bool(np.ptp(mine) > 0.0)
    assert collided


def test_an_episode_is_cut_off_after_its_steps_and_the_next_one_is_another():
    worlds = Spread(4, 3)
    first = worlds.reset()
    ends = []
    for _ in range(STEPS):
        outcome = worlds.step(np.zeros((4, AGENTS, 5), np.float32))
        ends.append(bool(outcome.truncated.all()))
        assert not outcome.terminated.any()
    assert ends == [False] * (STEPS - 1) + [True]
    assert not np.array_equal(outcome.observation, first)
    np.testing.assert_array_equal(outcome.final_observation[:, :, :2], 0.0)  # nothing pushed: agents stood still


def test_who_goes_to_its_own_landmark_gets_half_of_the_way():
    """Some -7, where standing still costs 25 steps of half of three distances."""
    still = trial(lambda world, _: np.zeros((world.n_envs, AGENTS, 5)))
    assert trial(lambda world, _: assigned(world)) > 0.4 * still
    assert still < -15.0


def test_the_table_has_a_row_for_each_change(capsys):
    assert main(["--updates", "1", "--seeds", "1", "entropy=0.1"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("as it is", "entropy=0.1", "assigned", "800 steps"))
    assert main(["--only"]) != 0
