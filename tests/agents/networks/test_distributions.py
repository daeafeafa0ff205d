"""Distributions on simplexes, intervals and choices: densities, supports, starts, modes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cosim.agents.learn.action_maps import basis
from cosim.agents.learn.networks.distributions import Actions, Noise
from cosim.agents.learn.spec import AgentType, Choice, Interval, Simplex
from cosim.errors import ScenarioError


def actions_of(*parts, **options):
    return Actions(AgentType("kind", (), parts), **options)


def noise_of(actions, count, seed=0):
    rng = np.random.default_rng(seed)
    return Noise(torch.from_numpy(rng.standard_normal((count, actions.n_normal), np.float32)),
                 torch.from_numpy(rng.gumbel(size=(count, actions.n_gumbel)).astype(np.float32)), rng)


MIX = (Interval("t", 18.0, 23.0, 19.0), Simplex("s", 4, (True, False, True, True), (1.0, 0.0, 2.0, 5.0)),
       Choice("c", 3), Simplex("one", 2, (False, True)), Interval("u", -1.0, 1.0))


@pytest.mark.rows("L01")
def test_widths():
    """Raw: 2 intervals + (3 eligible - 1) + (1 eligible - 1) Gaussians + 1 choice = 5; params: 3 logits for it."""
    a = actions_of(*MIX)
    assert (a.n_normal, a.n_raw, a.n_params) == (4, 5, 7)
    assert (a.n_unit, a.n_action) == (2 + 4 + 2 + 3, 2 + 4 + 2 + 1)


@pytest.mark.parametrize("simplex", ["gaussian", "dirichlet"])
def test_a_fresh_policys_mode_is_the_start(simplex):
    """Shares 1:2:5 of the eligible are 0.125, 0.25, 0.625; an interval without a start begins in its middle."""
    a = actions_of(*MIX, simplex=simplex)
    raw = a.sample(a.start, None)
    action = a.action(raw, a.unit(raw)).detach().numpy()
    assert action == pytest.approx([19.0, 0.125, 0.0, 0.25, 0.625, 0.0, 0.0, 1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("simplex", ["gaussian", "dirichlet"])
@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.1, 200.0), seed=st.integers(0, 10**6))
def test_actions_stay_in_their_sets(simplex, scale, seed):
    a = actions_of(*MIX, simplex=simplex)
    rng = np.random.default_rng(seed)
    params = torch.from_numpy((scale * rng.standard_normal((20, a.n_params))).astype(np.float32))
    raw = a.sample(params, noise_of(a, 20, seed)).detach()
    action = a.action(raw, a.unit(raw)).numpy()
    assert np.isfinite(action).all()
    assert action[:, 0].min() >= 18.0
    assert action[:, 0].max() <= 23.0
    assert action[:, 1:5].min() >= 0
    assert np.abs(action[:, 1:5].sum(1) - 1).max() < 1e-5
    assert (action[:, 2] == 0).all()
    assert set(action[:, 5]) <= {0.0, 1.0, 2.0}
    assert (action[:, 6:8] == [0, 1]).all()
    assert np.isfinite(a.log_prob(params, raw).detach().numpy()).all()


def test_log_prob_agrees_with_scipy():
    """Two Gaussians of std 0.5 and a choice: the sum of their log densities; the choice's is its log-softmax."""
    a = actions_of(Interval("t", 0.0, 1.0), Choice("c", 3), Interval("u", 0.0, 1.0))
    params, raw = [0.3, -0.2, 1.0, 2.0, 3.0], [0.9, -1.0, 2.0]
    expected = (stats.norm.logpdf(0.9, 0.3, 0.5) + stats.norm.logpdf(-1.0, -0.2, 0.5)
                + 3.0 - math.log(math.e + math.e**2 + math.e**3))
    assert a.log_prob(torch.tensor(params), torch.tensor(raw)).item() == pytest.approx(expected, abs=1e-5)


def test_dirichlet_agrees_with_scipy():
    a = actions_of(Simplex("s", 3), simplex="dirichlet")
    alpha, share = np.array([0.7, 2.0, 3.5]), np.array([0.2, 0.3, 0.5], np.float32)
    params = torch.tensor(np.log(np.expm1(alpha - 0.02)), dtype=torch.float32)
    assert float(a.log_prob(params, torch.tensor(share))) == pytest.approx(stats.dirichlet.logpdf(
        share / share.sum(dtype=np.float64), alpha), abs=1e-4)
    assert float(a.entropy(params)) == pytest.approx(stats.dirichlet.entropy(alpha), abs=1e-4)


@pytest.mark.parametrize("simplex", ["gaussian", "dirichlet"])
def test_entropy_is_the_mean_of_minus_log_prob(simplex):
    """By 200 000 draws; the standard error of the mean is about sqrt(dims / 2 / count) = 0.004 here."""
    a = actions_of(*MIX, simplex=simplex)
    params = (a.start + 0.1).expand(200_000, -1)
    with torch.no_grad():
        raw = a.sample(params, noise_of(a, 200_000))
        assert float(-a.log_prob(params, raw).mean()) == pytest.approx(float(a.entropy(params[0])), abs=0.02)


def test_draws_have_the_frequencies_of_their_logits():
    a = actions_of(Choice("c", 3))
    with torch.no_grad():
        raw = a.sample(torch.tensor([0.0, 1.0, 2.0]).expand(100_000, -1), noise_of(a, 100_000))
    p = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert np.bincount(raw[:, 0].long().numpy(), minlength=3) / 1e5 == pytest.approx(p, abs=0.006)


def test_every_share_is_explored_alike():
    """From equal shares, noise reaches all shares with one variance: no last share, no idle direction."""
    a = actions_of(Simplex("s", 5))
    with torch.no_grad():
        raw = a.sample(a.start.expand(100_000, -1), noise_of(a, 100_000))
        spread = a.unit(raw).std(0).numpy()
    assert spread == pytest.approx(np.full(5, spread.mean()), rel=0.02)
    assert basis(5) @ basis(5).T == pytest.approx(np.eye(4), abs=1e-12)
    assert basis(5).sum(1) == pytest.approx(np.zeros(4), abs=1e-12)


def test_std_does_not_fall_below_its_floor():
    a = actions_of(Interval("t", 0.0, 1.0), std_min=0.1)
    torch.nn.init.constant_(a.log_std, -9.0)
    assert float(a.std()[0].detach()) == pytest.approx(0.1)


def test_a_ceiling_brings_down_what_is_above_it_alone():
    a = actions_of(Interval("t", 0.0, 1.0), Interval("u", 0.0, 1.0))
    with torch.no_grad():
        a.log_std.copy_(torch.tensor([0.8, 0.1]).log())
    a.limit_std(0.4)
    assert a.std()[0].tolist() == pytest.approx([0.4, 0.1])


@pytest.mark.parametrize(("part", "says"), [
    (Simplex("s", 2, (False, False)), "at least one"),
    (Simplex("s", 2, None, (1.0, 0.0)), "> 0 where eligible"),
    (Simplex("s", 2, None, (1.0,)), "2 entries"),
    (Interval("t", 1.0, 1.0), "must hold"),
    (Interval("t", 0.0, 1.0, 1.0), "must hold"),
])
def test_parts_that_cannot_be(part, says):
    with pytest.raises(ScenarioError, match=says):
        actions_of(part)
