"""Advantages by two routes, the value's scale, the first step's ratios, gradients in pieces."""

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teams import Follow, collected, site_team

from benchmarks.coordination import Game
from cosim.agents.learn import ppo
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.ppo import Batch, MinibatchGradient, ValueScale, loss, normalised, prepare, value_loss
from cosim.agents.learn.rollout import Rollout, gae
from cosim.agents.learn.spec import Outcome
from cosim.agents.learn.team import Team
from cosim.errors import ScenarioError
from cosim.params import validate


def returns_by_definition(reward, value, next_value, terminated, truncated, discount, gae_lambda):
    """lambda-returns as their definition says: the weighted mean of k-step returns of one environment's time line."""
    steps = len(reward)
    out = np.zeros(steps)
    for t in range(steps):
        end = next((k for k in range(t, steps) if terminated[k] or truncated[k]), steps - 1)
        horizon = end - t + 1
        k_step = []
        for k in range(1, horizon + 1):
            gained = sum(discount**j * reward[t + j] for j in range(k))
            last = 0.0 if terminated[t + k - 1] else next_value[t + k - 1]
            k_step.append(gained + discount**k * last)
        out[t] = (1 - gae_lambda) * sum(gae_lambda ** (k - 1) * k_step[k - 1] for k in range(1, horizon)) \
            + gae_lambda ** (horizon - 1) * k_step[-1]
    return out


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), discount=st.floats(0.5, 1.0), gae_lambda=st.floats(0.0, 1.0))
@pytest.mark.rows("L18", "T06")
def test_gae_is_the_lambda_return_less_the_value(seed, discount, gae_lambda):
    rng = np.random.default_rng(seed)
    reward, value = rng.standard_normal((2, 12, 3))
    terminated, truncated = rng.random((2, 12, 3)) < 0.15
    truncated &= ~terminated
    next_value = np.where(terminated | truncated, rng.standard_normal((12, 3)), np.roll(value, -1, axis=0))
    next_value[-1] = rng.standard_normal(3)
    advantage, target = gae(reward, value, next_value, terminated, truncated, discount, gae_lambda)
    for b in range(3):
        line = [x[:, b] for x in (reward, value, next_value, terminated, truncated)]
        assert target[:, b] == pytest.approx(returns_by_definition(*line, discount, gae_lambda), abs=1e-4)
    assert advantage == pytest.approx(target - value, abs=1e-5)


def test_a_day_that_is_cut_off_counts_what_comes_after_it():
    """discount 0.5, lambda 1, values 0: truncated before a state worth 8, the two returns are 1 + .5 (1 + .5 * 8) = 3.5
    and 1 + 4 = 5; terminated there, 1.5 and 1; the next episode (reward 100) changes neither."""
    reward, zeros = np.array([[1.0], [1.0], [100.0]]), np.zeros((3, 1))
    over, next_value = np.array([[False], [True], [False]]), np.array([[0.0], [8.0], [0.0]])
    _, truncated = gae(reward, zeros, next_value, over & False, over, 0.5, 1.0)
    _, terminated = gae(reward, zeros, next_value, over, over & False, 0.5, 1.0)
    assert truncated[:2, 0].tolist() == [3.5, 5.0]
    assert terminated[:2, 0].tolist() == [1.5, 1.0]


@pytest.mark.rows("L16", "T07")
def test_rollout_takes_the_final_observations_value_where_a_day_was_cut_off():
    spec = site_team(2)
    team = Team(spec, Learning(rollout_steps=3))
    rollout = Rollout(spec, 3, 2, team.network.n_raw)
    seen, told = np.zeros((2, 3, 7), "f"), np.zeros((2, 3, 2), "f")
    for t in range(3):
        step = team.act(seen, lambda _: told)[0]
        step = type(step)(step.action, step.raw, step.log_prob, np.full((2, 3), t, "f"), step.order)
        cut = np.array([t == 1, False])
        outcome = Outcome(seen, np.zeros(2), {}, np.zeros(2, bool), cut, seen)
        rollout.add(seen, told, step, outcome, np.full((2, 3), 50 + t))
    rollout.end(np.full((2, 3), 9.0))
    assert rollout.next_value[:, 0, 0].tolist() == [1.0, 51.0, 9.0]
    assert rollout.next_value[:, 1, 2].tolist() == [1.0, 2.0, 9.0]


@pytest.mark.rows("T08")
def test_agents_learn_from_what_they_are_credited_with():
    """Site 1 gives 1 and site 2 gives 3; with shared credit both learn from 4, and so do they when nobody can say."""
    env = Follow()
    outcome = env.step(np.zeros((env.n_envs, 3, 4), "f"))
    credited = replace(outcome, reward=np.full(env.n_envs, 4.0),
                       credit=np.broadcast_to([4.0, 1.0, 3.0], (env.n_envs, 3)))
    for told_of, shared, learned in ((credited, False, [4.0, 1.0, 3.0]), (credited, True, [4.0] * 3),
                                     (replace(credited, credit=None), False, [4.0] * 3)):
        team = Team(env.spec, Learning(rollout_steps=1, credit="team" if shared else "own"))
        rollout = team.rollout(env.n_envs)
        step, told = team.act(env.reset(), env.context)
        rollout.add(env.reset(), told, step, told_of, None)
        assert rollout.credit[0, 0].tolist() == learned


def test_advantages_and_returns_have_a_lambda_each():
    """Credit 1, 2, 4 and values 0, discount 0.5, the end cut off: at lambda 0 what a step gave, at 1 all that came."""
    rollout = Rollout(site_team(2), 3, 1, 1)
    rollout.credit[:, 0] = np.array([[1.0], [2.0], [4.0]])
    rollout.truncated[-1] = True
    advantage, target = rollout.advantages(0.5, 0.0, 1.0)
    assert advantage[:, 0, 0].tolist() == [1.0, 2.0, 4.0]
    assert target[:, 0, 0].tolist() == [3.0, 4.0, 4.0]


@pytest.mark.rows("M12")
def test_value_scale_is_the_weighted_mean_of_rollouts():
    """memory 0.5 after returns (0, 2) and (4, 4): weights 1:2, mean (1 + 2 * 4) / 3 = 3, square (2 + 32) / 3. Agents
    have one each."""
    scale = ValueScale(0.5)
    assert [x.tolist() for x in scale.mean_spread] == [[0.0], [1.0]]
    scale.update(np.array([[0.0, 10.0], [2.0, 10.0]]))
    assert [x.tolist() for x in scale.mean_spread] == [[1.0, 10.0], pytest.approx([1.0, 1e-4])]
    scale.update(np.array([[4.0, 10.0], [4.0, 10.0]]))
    assert [x[0] for x in scale.mean_spread] == pytest.approx([3.0, math.sqrt(34 / 3 - 9)])
    again = ValueScale(0.5)
    again.restore(json.loads(json.dumps(scale.state())))
    assert np.array_equal(again.mean_spread, scale.mean_spread)


@pytest.mark.parametrize("value", [1.0, 0.9876543, -3.21e-3, 12345.678])
def test_where_nobody_did_better_nobody_has_an_advantage(value):
    """Equal advantages are 0 to the last digit, and ones that rounding alone tells apart stay far below the 1 that a
    spread has; others have mean 0 and spread 1."""
    same = np.full((7, 128, 3), value, np.float32)
    assert (normalised(same, same) == 0.0).all()
    rng = np.random.default_rng(0)
    rounded = same * np.float32(1.0) + np.spacing(same) * rng.integers(-1, 2, same.shape)
    assert np.abs(normalised(rounded - same, same)).max() < 0.3
    found = normalised(rng.normal(3.0, 0.1, same.shape).astype(np.float32), same / abs(value))
    assert found.mean(axis=(0, 1)) == pytest.approx(np.zeros(3), abs=1e-6)
    assert found.std(axis=(0, 1)) == pytest.approx(np.ones(3), abs=1e-5)


def test_twins_cancel_what_they_share():
    """Two pairs of twins, lambda 1: an hour's luck of 100 that both of a pair have leaves advantages as they are, and
    they sum to 0; what one of them gains by 3 is half its own and half its twin's loss."""
    env, rng = Game(2, 4), np.random.default_rng(0)
    reward = rng.standard_normal((5, 4)).astype(np.float32)

    def advantage(reward, twins):
        rollout = Rollout(env.spec, 5, 4, 1, twins)
        rollout.credit[:] = reward[:, :, None]
        rollout.shared = True
        rollout.truncated[-1] = True
        return rollout.advantages(0.9, 1.0, 1.0)[0][:, :, 0]

    plain = advantage(reward, 2)
    assert plain[:, 0] == pytest.approx(-plain[:, 1], abs=1e-5)
    assert advantage(reward + np.array([100.0, 100.0, 0.0, 0.0]), 2) == pytest.approx(plain, abs=1e-3)
    more = advantage(reward + np.array([3.0, 0.0, 0.0, 0.0]), 2) - plain
    assert more[-1] == pytest.approx([1.5, -1.5, 0.0, 0.0], abs=1e-5)
    assert np.abs(advantage(reward, 1)[:, 0] + advantage(reward, 1)[:, 1]).max() > 0.1


def test_the_critic_learns_a_common_error_and_differences_by_their_own_spread():
    """Errors 3 and 1 of two twins whose returns lie 0.5 about their mean: common 2, differences +-1, that is +-2
    spreads; 2^2 / 2 + 2^2 / 2 = 4 each. Without twins 9/2 and 1/2."""
    config = Learning(method="mappo", value_loss="mse", value_clip=False)
    value, nothing = torch.tensor([[3.0], [1.0]]), torch.zeros(2, 1)
    batch = Batch(nothing, nothing, nothing, None, nothing, nothing, nothing, nothing, twins=2, apart=0.5)
    assert value_loss(value, batch, config).item() == pytest.approx(4.0)
    assert value_loss(value, replace(batch, twins=1), config).item() == pytest.approx(2.5)


def test_a_minibatch_holds_whole_groups_of_twins():
    x = torch.arange(6.0).unsqueeze(1)
    batch = Batch(x, x, x, None, x, x, x, x, twins=2)
    assert batch.part(torch.tensor([2, 0])).raw.flatten().tolist() == [4.0, 5.0, 0.0, 1.0]


@pytest.mark.long(after=2)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.rows("L16", "L19", "T03", "T07")
def test_before_the_first_gradient_step_every_ratio_is_one(method):
    """Also after some updates, on the next rollout: order, context and draws are those of the rollout."""
    env = Follow()
    team = Team(env.spec, Learning(method=method, rollout_steps=16, learning_rate=5e-3))
    observation = env.reset()
    for _ in range(4):
        rollout, observation = collected(team, env, observation)
        batch = prepare(rollout, team.config, ValueScale(0.5), team.network, team.device)
        assert (batch.order is not None) == (method == "mat")
        log_prob, _, _ = team.network.scores(batch.observation, batch.context, batch.raw, batch.order)
        assert np.abs((log_prob - batch.log_prob).exp().detach().numpy() - 1).max() < 1e-5
        team.learn(rollout)


def test_noise_is_held_and_a_rollout_begins_with_its_own():
    """Of five steps a rollout: the first three, and the other two, have the same noise and the same order."""
    env = Follow()
    team, seen = Team(env.spec, Learning(rollout_steps=5, noise_steps=3)), env.reset()
    noise, orders = [], []
    for _ in range(2):
        team.rollout(env.n_envs)
        for _ in range(5):
            orders.append(team.begin(seen, deterministic=False).order)
            noise.append(team._held["noise"][1].normal)
    held = [True, True, False, True, False, True, True, False, True]
    for drawn in (noise, orders):
        assert [bool((a == b).all()) for a, b in zip(drawn, drawn[1:], strict=False)] == held
    with pytest.raises(ScenarioError, match="noise_steps = 3 needs simplex = gaussian"):
        validate(Learning, {"simplex": "dirichlet", "noise_steps": 3}, "learn")


@pytest.mark.parametrize("method", ["mat", "mappo"])
def test_values_alone_are_learned_at_first(method):
    """Of one update and the next: what only decides stays in the first, while the value's weights move in both."""
    env = Follow()
    team = Team(env.spec, Learning(method=method, rollout_steps=4, width=16, critic_first=1))
    seen, moved = env.reset(), []
    for _ in range(2):
        before = {name: x.detach().clone() for name, x in team.network.named_parameters()}
        rollout, seen = collected(team, env, seen)
        team.learn(rollout)
        moved.append({name for name, x in team.network.named_parameters() if not torch.equal(x, before[name])})
    deciding = {name for name in moved[1] if name.startswith(("outs.", "actors.", "actions.", "blocks."))}
    assert deciding
    assert not moved[0] & deciding
    assert any(name.startswith("value_output.") for name in moved[0])


@pytest.mark.long(after=2)
@pytest.mark.parametrize(("end", "progress", "ceiling"), [(0.1, 0.0, 0.4), (0.1, 0.5, 0.2), (0.1, 1.0, 0.1),
                                                         (None, 1.0, 0.4)])
def test_exploration_falls_by_a_constant_factor(end, progress, ceiling):
    """From 0.4 to 0.1: half-way there at their geometric mean. Without an end the first update leaves it at 0.4."""
    env = Follow()
    team = Team(env.spec, Learning(rollout_steps=16, std_start=0.4, std_end=end, learning_rate=1e-6))
    team.learn(collected(team, env, env.reset())[0], progress)
    stds = [std for actions in team.network.actions for std in actions.std()[0].tolist()]
    assert stds
    assert stds == pytest.approx([ceiling] * len(stds), rel=1e-4)


def test_no_epoch_begins_once_the_policy_has_moved_enough():
    env = Follow()
    for limit, epochs in ((None, 5), (1e3, 5), (1e-9, 1)):
        team = Team(env.spec, Learning(rollout_steps=16, minibatches=2, kl_limit=limit))
        assert team.learn(collected(team, env, env.reset())[0])["epochs"] == epochs


@pytest.mark.rows("L19", "T05", "T08")
def test_one_ratio_per_agent_is_clipped():
    """Advantage 1, clip 0.2: a ratio of 2 counts as 1.2; advantage -1: as 2. Halves of two agents, one each."""
    env = Game(2, 1)
    team = Team(env.spec, Learning(method="mappo", entropy=0.0, value_weight=0.0))
    raw, order = torch.zeros(1, 2, 1), None
    seen = torch.ones(1, 2, 1)
    log_prob, _, value = team.network.scores(seen, seen[..., :0], raw, order)
    batch = Batch(seen, seen[..., :0], raw, order, (log_prob - math.log(2)).detach(), torch.tensor([[1.0, -1.0]]),
                  value.detach(), value.detach())
    total, figures = loss(team.network, batch, team.config)
    assert total.item() == pytest.approx(-(1.2 - 2.0) / 2, abs=1e-5)
    assert figures["clipped"].item() == pytest.approx(1.0)


def batch_of(team, env):
    """A prepared batch of a rollout."""
    rollout, _ = collected(team, env, env.reset())
    return prepare(rollout, team.config, team.scale, team.network, team.device)


@pytest.mark.long(after=2)
@pytest.mark.parametrize("method", METHODS)
def test_pieces_of_a_minibatch_sum_to_its_gradient(method):
    """In float64 to its last digits; and bit for bit the same whether threads share them or not."""
    env = Follow(n_envs=6)
    team = Team(env.spec, Learning(method=method, rollout_steps=7, entropy=0.01))
    batch = batch_of(team, env)
    network = team.network.double()
    batch = Batch(*(x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
                    for x in vars(batch).values()))
    groups = torch.from_numpy(np.random.default_rng(0).permutation(len(batch))[:31])

    def gradient(pieces):
        found = MinibatchGradient(network, Learning(method=method, entropy=0.01, pieces=pieces))
        figures = found.gradient(batch, groups)
        return figures, [p.grad for p in found.weights]

    whole = gradient(1)
    for pieces in (2, 3, 64):  # of which 31 samples fill 31
        figures, slopes = gradient(pieces)
        for name, value in figures.items():
            assert torch.allclose(value, whole[0][name], rtol=1e-10, atol=1e-13), name
        for a, b in zip(slopes, whole[1], strict=True):
            assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.long
def test_numbers_do_not_depend_on_how_many_threads_share_the_pieces(monkeypatch):
    weights = []
    for pool in (None, ThreadPoolExecutor(2)):
        monkeypatch.setattr(ppo, "_threads", lambda pool=pool: pool)
        env = Follow(n_envs=4)
        team = Team(env.spec, Learning(rollout_steps=8, pieces=3))
        for _ in range(2):
            team.learn(collected(team, env, env.reset())[0])
        weights.append([p.detach().clone() for p in team.network.parameters()])
    pool.shutdown()
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_failure_in_a_thread_is_the_callers(monkeypatch):
    def halve(x):
        return 1 // x

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(ppo, "_threads", lambda: pool)
        assert ppo.beside(halve, [1, 1]) == [1, 1]
        with pytest.raises(ZeroDivisionError):
            ppo.beside(halve, [1, 0])


@pytest.mark.long
def test_compiled_scores_are_the_networks(monkeypatch):
    """Of draws of a small team, to rounding; without a compiler one line says what to do."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ScenarioError, match="needs a C.. compiler and there is no no-such-compiler; install"):
        Team(site_team(), Learning(torch_compile=True))
    monkeypatch.delenv("CXX")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    plain, compiled = (Team(site_team(), Learning(method="mappo", width=8, torch_compile=on)) for on in (False, True))
    seen, told, _ = plain.spec.widths
    rng, n = np.random.default_rng(0), len(plain.spec.agents)
    drawn = [torch.from_numpy(rng.standard_normal((6, n, width)).astype(np.float32)) for width in (seen, told)]
    drawn.append(torch.zeros(6, n, plain.network.n_raw))  # the first of every choice
    with torch.inference_mode():
        one, other = (team.network.scores(*drawn, None) for team in (plain, compiled))
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert plain.network.state_dict().keys() == compiled.network.state_dict().keys()
