"""A game with a known answer: what a team can represent, what no independent one can, and that it is learned."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teams import collected

from benchmarks.coordination import Course, Game, changed, course, played
from benchmarks.coordination import main as coordination
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.ppo import Batch, loss
from cosim.agents.learn.team import Team


def anonymous(method, n, seed, noise, **options):
    """A team of agents that do not know who they are, its weights off their small start, in double precision; the
    game they play (see `Game`): agents see the same, choose one of n, and win if all choices differ."""
    team = Team(Game(n, 128).spec, Learning(method=method, identity=False, **options), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in team.network.parameters():
            if p.dim() > 1 and p.requires_grad:
                p.add_(noise * torch.randn(p.shape, generator=generator))
    return team.network.double()


def outcomes(n):
    """((n^n, n, 1) every joint choice, (n^n,) whether it wins)."""
    raw = torch.cartesian_prod(*[torch.arange(n)] * n).double().unsqueeze(-1)
    return raw, (raw[:, :, 0].sort(1).values == torch.arange(n)).all(1)


def log_probs(network, raw, order=None):
    """(S, n) of each agent's choice, given its predecessors'."""
    seen = torch.ones_like(raw)
    return network.scores(seen, seen[..., :0], raw, order)[0]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_who_sees_the_choices_before_its_own_can_always_win(n):
    """The output layer solved for 0 where a choice is free and -30 where it is taken, on all orders of choices: the
    features of the masked decoder tell them apart, so that the equations have a solution, and e^-30 is left to lose."""
    network = anonymous("mat", n, seed=0, noise=0.1, width=64)
    raw, wins = outcomes(n)
    seen, head = [], network.outs[0].last
    hook = head.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    with torch.no_grad():
        log_probs(network, raw[wins])
    hook.remove()
    features = torch.cat((seen[0], torch.ones_like(seen[0][..., :1])), -1).flatten(0, 1)
    chosen = torch.nn.functional.one_hot(raw[wins][:, :, 0].long(), n).double()
    taken = chosen.cumsum(1) - chosen
    solved = torch.linalg.lstsq(features, -30.0 * taken.flatten(0, 1), driver="gelsd").solution
    orders = torch.stack([torch.arange(n).roll(k) for k in range(n)])
    with torch.no_grad():
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
        won = log_probs(network, raw[wins]).sum(1).exp()
        assert float(won.sum()) == pytest.approx(1.0, abs=1e-6)
        assert won.tolist() == pytest.approx([1 / math.factorial(n)] * math.factorial(n), abs=1e-6)
        for order in orders:  # whoever begins: agents are alike
            again = log_probs(network, raw[wins], order.expand(int(wins.sum()), -1))
            assert float(again.sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "mat"])
@settings(deadline=None, max_examples=10)
@given(n=st.integers(2, 4), seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 0.1, 0.5, 3.0]))
def test_without_it_no_weights_pass_the_bound_of_independent_agents(method, n, seed, noise):
    """n independent draws from one distribution all differ with probability n!/n^n at most (1/2, 2/9, 3/32)."""
    raw, wins = outcomes(n)
    with torch.no_grad():
        each = log_probs(anonymous(method, n, seed, noise, width=16), raw).exp()
    assert float(each.prod(1).sum()) == pytest.approx(1.0)
    assert float(each.prod(1)[wins].sum()) <= math.factorial(n) / n**n + 1e-9
    for choice in range(n):  # what the others choose moves nobody
        assert float(each[:, -1][raw[:, -1, 0] == choice].std()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 3])
def test_the_loss_falls_along_the_gradient_of_what_is_won(method, n):
    """Every joint choice once, its advantage (won or not, less the mean) weighed by its probability: the gradient of
    the loss is that of minus the probability to win, a share of 1/n as it is a mean over agents."""
    network = anonymous(method, n, seed=1, noise=0.1, width=16)
    raw, wins = outcomes(n)
    weights = [p for p in network.parameters() if p.requires_grad]
    probability = log_probs(network, raw).sum(1).exp()
    won = probability[wins].sum()
    ascent = torch.autograd.grad(won, weights, allow_unused=True, retain_graph=True)
    advantage = (len(raw) * probability * (wins.double() - won)).detach().unsqueeze(1).expand(-1, n)
    seen, nothing = torch.ones_like(raw), torch.zeros(len(raw), n).double()
    batch = Batch(seen, seen[..., :0], raw, None, log_probs(network, raw).detach(), advantage, nothing, nothing)
    total, _ = loss(network, batch, Learning(method=method, entropy=0.0, value_weight=0.0))
    descent = torch.autograd.grad(total, weights, allow_unused=True)
    slope = 0.0
    for up, down in zip(ascent, descent, strict=True):
        assert (up is None) <= (down is None or bool((down == 0).all()))
        if up is not None:
            assert torch.allclose(n * down, -up, atol=1e-12, rtol=1e-6)
            slope += float(up.abs().sum())
    assert slope > 1e-3, "there is something to climb"


def play(method, n, seed, ceiling):
    """Share of games won in the last 5 updates: where it passed 0.9, or at the ceiling."""
    env = Game(n, 128)
    team, won = Team(env.spec, changed(f"method={method}"), seed), []
    while len(won) < ceiling and (len(won) < 5 or np.mean(won[-5:]) <= 0.9):
        rollout, _ = collected(team, env, env.reset())
        won.append(rollout.reward.mean())
        team.learn(rollout)
    return float(np.mean(won[-5:]))


@pytest.mark.long
@pytest.mark.parametrize(("n", "seed"), [(2, 0), (3, 1)])
def test_coordination_is_learned(n, seed):
    """Until solved: some 10 and 20 updates, 200 at most. No policy without autoregression can pass 1/2 and 2/9."""
    assert play("mat", n, seed, ceiling=200) > 0.9


def test_a_course_is_what_was_won_in_five_updates():
    """Never more than nine tenths; and solved by five won, after which 1, 1, 1, 1, 0 and 1, 1, 1, 0, 0.5 are below."""
    assert course([0.8] * 5) == Course(None, pytest.approx(0.8), 1.0)
    assert course([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5]) == Course(6, pytest.approx(0.7), pytest.approx(2 / 3))


def test_changes_of_the_game_are_rows_of_its_table(capsys):
    assert coordination(["--players", "2", "--seeds", "1", "--updates", "5", "--only",
                         "entropy=0,kl_limit=0.02"]) == 0
    assert "entropy=0,kl_limit=0.02" in capsys.readouterr().out
    for argv, said in ((["entropy"], "changes nothing"), (["entropi=0"], "unknown field"),
                       (["--only"], "leaves nothing"), (["--players", "1"], "--players 1 must be >= 2")):
        assert coordination(argv) == 2
        assert said in capsys.readouterr().err


def test_one_more_update_is_that_of_each_change():
    """A team that wins all: the first setup goes on, the others from where it stood; without any gradient left (and no
    momentum, as it has not learned before) nothing moves, and every game is won again."""
    class Won(Game):
        def step(self, action):
            outcome = super().step(action)
            return replace(outcome, reward=np.ones_like(outcome.reward))

    team = Team(Won(2, 128).spec, changed("entropy=0,value_weight=0"), 0)
    before = [p.detach().clone() for p in team.network.parameters()]
    team.learn(played(team, Won(2, 128)))
    assert all(torch.equal(a, b) for a, b in zip(before, team.network.parameters(), strict=True))
    restless = Team(Won(2, 128).spec, changed("entropy=0.05,value_weight=0"), 0)
    restless.learn(played(restless, Won(2, 128)))
    assert any(not torch.equal(a, b) for a, b in zip(before, restless.network.parameters(), strict=True))
