"""A critic with an output for each term of the reward."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teams import Split, collected, mixed_team, site_team

from cosim.agents.learn import checkpoint
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.ppo import Batch, ValueScale, prepare, value_loss
from cosim.agents.learn.rollout import Rollout
from cosim.agents.learn.spec import credit_terms
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import Training, TrainingPlan
from cosim.errors import ScenarioError
from cosim.learning.environment import vector_env
from cosim.scenario import override
from cosim.scenarios.two_bus import SCENARIO as TWO_BUS
from cosim.simulators.controller.steering import Steering

SMALL = {"rollout_steps": 6, "width": 16, "minibatches": 2, "epochs": 2, "kl_limit": None}


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), shared=st.booleans(), twins=st.sampled_from([1, 2]), discount=st.floats(0.5, 1.0))
def test_the_advantage_is_that_of_the_sum_of_the_terms(seed, shared, twins, discount):
    """Rewards, values and what is usual of three terms, and one number each that is their sum."""
    rng, spec = np.random.default_rng(seed), site_team(2)
    split, whole = Rollout(spec, 8, 4, 1, twins, shared, terms=3), Rollout(spec, 8, 4, 1, twins, shared)
    for name in ("credit", "value", "next_value"):
        getattr(split, name)[:] = rng.standard_normal((8, 4, 3, 3)) * [1.0, 10.0, 0.01]
        getattr(whole, name)[:] = getattr(split, name).sum(axis=3)
    split.truncated[:] = whole.truncated[:] = rng.random((8, 4)) < 0.2
    split.terminated[:] = whole.terminated[:] = (rng.random((8, 4)) < 0.1) & ~whole.truncated
    usual = rng.standard_normal((3, 3))
    advantage, target = split.advantages(discount, 0.8, 0.95, usual)
    wanted, sums = whole.advantages(discount, 0.8, 0.95, usual.sum(axis=1))
    assert target.shape == (8, 4, 3, 3)
    assert advantage == pytest.approx(wanted, abs=3e-4)
    assert target.sum(axis=3) == pytest.approx(sums, abs=3e-4)


@pytest.mark.parametrize(("method", "twins"), [("mappo", 1), *((method, 3) for method in METHODS)])
def test_one_term_is_the_critic_of_the_whole(method, twins):
    """Two updates from the same seed: the same weights, values and scale, to rounding."""
    teams = []
    for critic in ("one", "terms"):
        env = Split(("all",))
        env.twins = twins
        team = Team(env.spec, Learning(method=method, critic=critic, **SMALL), 4, terms=credit_terms(env))
        observation = env.reset()
        for _ in range(2):
            rollout, observation = collected(team, env, observation)
            team.learn(rollout)
        teams.append((team, team.value(observation)))
    (one, value), (terms, values) = teams
    assert values.shape == (*value.shape, 1)
    assert values[..., 0] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert terms.scale.state() == [pytest.approx(x, rel=1e-5) for x in one.scale.state()]
    for (name, a), b in zip(one.network.named_parameters(), terms.network.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("method", METHODS)
def test_a_seeds_policy_starts_as_the_same_one_whatever_its_critic(method):
    spec, rng = mixed_team(), np.random.default_rng(0)
    one, terms = (Team(spec, Learning(method=method, critic=critic), 7, terms=("a", "b"))
                  for critic in ("one", "terms"))
    assert one.terms == ()
    for (name, a), b in zip(one.network.named_parameters(), terms.network.parameters(), strict=True):
        assert name.startswith("value_output.last") or torch.equal(a, b), name
    seen, told = rng.standard_normal((4, 5, 7)), rng.standard_normal((4, 5, 2))
    steps = [team.act(seen, lambda _: told)[0] for team in (one, terms)]
    assert np.array_equal(steps[0].action, steps[1].action)
    assert [step.value.shape for step in steps] == [(4, 5), (4, 5, 2)]


@pytest.mark.parametrize(("credit", "learned"), [("own", [[-8.0, -1.0], [-2.0, -1.0], [-6.0, 0.0]]),
                                                 ("team", [[-8.0, -1.0]] * 3)])
def test_agents_learn_from_their_credits_terms(credit, learned):
    """Nobody's credit known, everyone learns from the reward's."""
    env = Split(("near", "far"))
    team = Team(env.spec, Learning(rollout_steps=1, credit=credit, critic="terms"), terms=env.credit_terms)
    step, told = team.act(env.reset(), env.context)
    outcome = env.step(step.action)
    by_term = np.broadcast_to(np.array([[-8.0, -1.0], [-8.0, -1.0], [-2.0, -1.0], [-6.0, 0.0]], "f"), (3, 4, 2))
    for of_site, wanted in ((by_term.sum(axis=2)[:, 1:], learned), (None, [[-8.0, -1.0]] * 3)):
        rollout = team.rollout(env.n_envs)
        rollout.add(env.reset(), told, step, replace(outcome, credit=of_site, by_term=by_term), None)
        assert rollout.credit[0, 0].tolist() == wanted


def test_each_term_of_an_agent_has_a_scale_of_its_own():
    """As of agents: memory 0.5, two returns 0 and 2 of one term, 10 and 10 of the other; a second agent has 1 and 5."""
    scale = ValueScale(0.5, terms=2)
    scale.update(np.array([[[0.0, 10.0], [1.0, 5.0]], [[2.0, 10.0], [1.0, 5.0]]]))
    mean, spread = scale.mean_spread
    assert mean.tolist() == [[1.0, 10.0], [1.0, 5.0]]
    assert spread.ravel() == pytest.approx([1.0, 1e-4, 1e-4, 1e-4])
    again = ValueScale(0.5, terms=2)
    for state in (ValueScale(0.5, terms=2).state(), scale.state()):
        again.restore(state)
    assert np.array_equal(again.mean_spread, scale.mean_spread)


def test_the_loss_is_the_mean_of_the_terms():
    """Twins' errors 3 and 1 of a term whose returns lie 0.5 about their mean count 4, as of one value; -1 and 1 of one
    where they lie 2 about it: differences of half a spread, 1/8 each."""
    config = Learning(method="mappo", value_loss="mse", value_clip=False)
    value, nothing = torch.tensor([[[3.0, -1.0]], [[1.0, 1.0]]]), torch.zeros(2, 1, 2)
    batch = Batch(nothing, nothing, nothing, None, nothing, nothing, nothing, nothing, 2, torch.tensor([0.5, 2.0]))
    assert value_loss(value, batch, config).item() == pytest.approx((4.0 + 0.125) / 2)
    assert batch.part(torch.tensor([0])).apart is batch.apart


def test_a_prepared_batch_has_values_by_term_and_one_advantage():
    env = Split(("near", "far"))
    team = Team(env.spec, Learning(critic="terms", **SMALL), terms=env.credit_terms)
    rollout, _ = collected(team, env, env.reset())
    batch = prepare(rollout, team.config, team.scale, team.network, team.device)
    assert [tuple(x.shape) for x in (batch.advantage, batch.value, batch.target)] == [(18, 3), (18, 3, 2), (18, 3, 2)]
    assert batch.advantage.std(0, correction=0).numpy() == pytest.approx(np.ones(3), abs=1e-4)
    figures = team.learn(rollout)
    assert set(figures) >= {"explained_variance", "explained_variance/near", "explained_variance/far"}


def test_a_team_whose_terms_are_not_its_environments_is_refused(tmp_path):
    env, config = Split(("near", "far")), Learning(critic="terms", width=16)
    team, path = Team(env.spec, config, terms=env.credit_terms), tmp_path / "t.safetensors"
    team.save(path)
    assert Team.load(path).terms == ("near", "far")
    for terms, said in ((("near", "cost"), "reward has near, cost"), ((), "reward has no terms")):
        with pytest.raises(ScenarioError, match=f"output for each of near, far, and the environment's {said}; begin"):
            Training(Team.load(path), Split(terms), TrainingPlan(tmp_path, 1))
    with pytest.raises(ScenarioError, match="critic = terms: these environments do not split their reward"):
        Team(env.spec, config)
    for other, said in (((Learning(width=16), ()), "of the terms near, far, this team one of their sum"),
                        ((config, ("far", "near")), "near, far, this team one of the terms far, near")):
        with pytest.raises(ScenarioError, match=said):
            Team(env.spec, other[0], terms=other[1]).begin_from(path)
    arrays, facts = checkpoint.read(path)
    for terms, width, said in (([], 1, "credit_terms = .. and learn.critic = terms"),
                               (["a", "b", "c"], 3, "tensor 'value_output.last"),
                               (["a", "b"], 5, "value_scale has 5 numbers, its team 3 agents and 2 terms")):
        scale = [0.5, [1.0] * width, [1.0] * width]
        checkpoint.write(tmp_path / "damaged", arrays,
                         facts | {"credit_terms": terms, "value_scale": scale, "usual_reward": scale})
        with pytest.raises(ScenarioError, match=said):
            Team.load(tmp_path / "damaged")


def test_worlds_that_do_not_split_their_reward_are_named(monkeypatch):
    """And of a reward without any weight there is no term."""
    nothing = {f"controller.reward.{name}": "0" for name in (
        "c1_per_reference", "c2_per_usd", "c3_per_t", "c4_per_train_job", "c5_per_inf_job")}
    env = vector_env(override(TWO_BUS, nothing), n_envs=1, workers=0, split=True)
    env.close()
    assert env.credit_terms == ()
    monkeypatch.delattr(Steering, "credit_terms")
    for engine in ("simpy", "compiled"):
        with pytest.raises(ScenarioError, match="two_bus: .*:Steering does not split its reward by term"):
            vector_env("two_bus", n_envs=1, workers=0, split=True, engine=engine)
