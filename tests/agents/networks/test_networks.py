"""Policies: decoding and scoring agree, padding means nothing, order and context reach whom they should."""

import numpy as np
import pytest
import torch
from teams import mixed_team, site_team

from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.history import with_history
from cosim.agents.learn.networks.blocks import attend, attend_all, causal
from cosim.agents.learn.team import Team
from cosim.errors import ScenarioError
from cosim.params import validate

B = 6


def rough(team, seed=1):
    """Weights far from their small beginnings, so that agreement is no accident of gains of 0.01."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in team.network.parameters():
            if p.dim() > 1:
                p.add_(0.15 * torch.randn(p.shape, generator=generator))
    return team


def arrays_of(spec, seed=0, count=B):
    rng = np.random.default_rng(seed)
    seen, told, _ = spec.widths
    shape = (count, len(spec.agents))
    return rng.standard_normal((*shape, seen)).astype("f"), rng.standard_normal((*shape, told)).astype("f")


def scores(team, observation, context, step):
    order = torch.from_numpy(step.order) if team.network.autoregressive else None
    with torch.no_grad():
        return [x.numpy() for x in team.network.scores(team.tensor(observation), team.tensor(context),
                                                       team.tensor(step.raw), order)]


@pytest.mark.long(after=10)
@pytest.mark.parametrize("simplex", ["gaussian", "dirichlet"])
@pytest.mark.parametrize("spec", [mixed_team(), site_team()], ids=["mixed", "sites"])
@pytest.mark.parametrize(("method", "for_all"), [*((method, False) for method in METHODS), ("mat-dec", True),
                                                 ("transformer", True), ("mappo", True)])
@pytest.mark.rows("L06", "T02")
def test_decoding_step_by_step_is_scoring_in_one_pass(method, for_all, spec, simplex):
    """Permuted orders and contexts included; with several blocks and heads."""
    if for_all and simplex == "dirichlet":
        with pytest.raises(ScenarioError, match="context_for_all = true needs simplex = gaussian"):
            validate(Learning, {"simplex": simplex, "context_for_all": True}, "learn")
        return
    team = rough(Team(spec, Learning(method=method, blocks=2, heads=2, width=32, simplex=simplex,
                                     context_for_all=for_all)))
    observation, context = arrays_of(spec)
    step, _ = team.act(observation, lambda _: context)
    if method == "mat":
        assert len({tuple(row) for row in step.order}) > 1
    log_prob, _, value = scores(team, observation, context, step)
    assert np.abs(log_prob - step.log_prob).max() < 1e-5 * max(1.0, np.abs(step.log_prob).max())
    assert np.abs(value - step.value).max() < 1e-5


@pytest.mark.rows("T03")
def test_another_order_is_another_density():
    """What permuting in the update only would do: the same draws, scored in another order."""
    spec = site_team()
    team = rough(Team(spec, Learning()))
    observation, context = arrays_of(spec)
    step, _ = team.act(observation, lambda _: context, order=np.tile([0, 1, 2, 3], (B, 1)))
    other = type(step)(step.action, step.raw, step.log_prob, step.value, np.tile([0, 3, 2, 1], (B, 1)))
    assert np.abs(scores(team, observation, context, other)[0] - step.log_prob).max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_padding_means_nothing(method):
    spec = mixed_team()
    team = rough(Team(spec, Learning(method=method)))
    observation, context = arrays_of(spec)
    step, _ = team.act(observation, lambda _: context)
    before = scores(team, observation, context, step)
    observation, context, raw = observation.copy(), context.copy(), step.raw.copy()
    for i in range(5):
        kind, actions = spec.type_of(i), team.network.actions[team.network.groups.type_at[i]]
        observation[:, i, len(kind.observation):] = 1e6
        context[:, i, len(kind.context):] = -1e6
        raw[:, i, actions.n_raw:] = np.nan
    context[:, 0] = 1e6
    again = scores(team, observation, context, type(step)(step.action, raw, step.log_prob, step.value, step.order))
    for a, b in zip(before, again, strict=True):
        assert (a == b).all()


@pytest.mark.rows("B01", "I27", "L09", "L11", "L14", "T02", "U16")
def test_an_agent_sees_its_predecessors_and_nobody_else():
    """Changing the action at position 2 changes the densities at later positions only."""
    spec = site_team()
    team = rough(Team(spec, Learning(blocks=2)))
    observation, context = arrays_of(spec)
    order = np.tile([0, 2, 1, 3], (B, 1))
    step, _ = team.act(observation, lambda _: context, order=order)
    raw = step.raw.copy()
    raw[:, 1, :2] += 1.0
    changed = type(step)(step.action, raw, step.log_prob, step.value, order)
    moved = np.abs(scores(team, observation, context, changed)[0] - scores(team, observation, context, step)[0])
    assert moved[:, [0, 2]].max() == 0.0
    assert moved[:, [1, 3]].min() > 0


@pytest.mark.rows("L10", "S13-14")
@pytest.mark.parametrize("for_all", [False, True])
def test_context_reaches_followers_of_mat_alone_or_all(for_all):
    spec = site_team()
    observation, context = arrays_of(spec)
    for method in METHODS:
        team = rough(Team(spec, Learning(method=method, context_for_all=for_all)))
        a, b = (team.act(observation, lambda _, c=c: c, deterministic=True)[0] for c in (context, -context))
        assert (a.action[:, 0] == b.action[:, 0]).all(), "the leader acts before"
        assert (np.abs(a.action[:, 1:] - b.action[:, 1:]).max() > 1e-4) == (for_all or method == "mat")


def parameters_behind(team, result):
    """Names of the parameters that a result of the network depends on."""
    team.network.zero_grad()
    result.sum().backward()
    return {name for name, p in team.network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0.0}


@pytest.mark.parametrize(("method", "encoder"), [("mat", True), ("mat-dec", True), ("transformer", False),
                                                 ("mappo", False)])
@pytest.mark.rows("B01-04", "T01", "T04")
def test_actors_and_critic_share_the_encoder_or_nothing(method, encoder):
    """In mat and mat-dec, whose value is read off the encoder, the encoder and nothing else is common to both."""
    spec = site_team()
    team = rough(Team(spec, Learning(method=method)))
    observation, context = (torch.from_numpy(x) for x in arrays_of(spec))
    raw = torch.zeros(B, len(spec.agents), team.network.n_raw)
    actors = parameters_behind(team, team.network.scores(observation, context, raw, None)[0])
    critic = parameters_behind(team, team.network.value(observation))
    shared = {name for name, _ in team.network.named_parameters() if name.startswith("encoder.")}
    assert bool(shared) == encoder
    assert actors & critic == shared
    assert critic - shared


@pytest.mark.parametrize(("method", "for_all"), [*((method, False) for method in METHODS), ("mappo", True)])
@pytest.mark.rows("B02-04", "I27", "T01", "T09", "Z02")
def test_whose_observation_reaches_whose_action(method, for_all):
    """mappo alone can be executed site by site, on a site's own observation or that and the jobs that it was sent: by
    attention, all others' actions depend on what everybody sees."""
    spec = site_team()
    team = rough(Team(spec, Learning(method=method, context_for_all=for_all)))
    observation, context = arrays_of(spec)
    for agent in range(len(spec.agents)):
        other = observation.copy()
        other[:, agent] += np.arange(other.shape[2])
        a, b = (team.act(x, lambda _: context, deterministic=True)[0].action for x in (observation, other))
        moved = np.abs(a - b).max((0, 2))
        assert moved[agent] > 1e-4
        others = np.delete(moved, agent)
        assert (others == 0.0).all() if method == "mappo" else (others > 1e-5).all()


def test_attention_over_time_reaches_an_agents_own_past_and_nobody_elses():
    """Each of three steps of an agent's own moves its action; the critic, in training, has all of it."""
    spec = with_history(site_team(), 3)
    team = rough(Team(spec, Learning(method="transformer", history_steps=3, context_for_all=True)))
    observation, context = arrays_of(spec)

    def act(x):
        return team.act(x, lambda _: context, deterministic=True)[0]

    plain = act(observation)
    for agent in range(len(spec.agents)):
        width = len(spec.type_of(agent).observation) // 3
        for ago in range(3):
            other = observation.copy()
            other[:, agent, ago * width:(ago + 1) * width] += np.arange(1, width + 1)
            step = act(other)
            moved = np.abs(step.action - plain.action).max((0, 2))
            assert moved[agent] > 1e-4
            assert (np.delete(moved, agent) == 0.0).all()
            assert (step.value != plain.value).all()


@pytest.mark.rows("L07")
def test_the_manager_draws_its_shares():
    spec = site_team()
    team = rough(Team(spec, Learning()))
    observation, context = arrays_of(spec)
    drawn, again = (team.act(observation, lambda _: context)[0] for _ in range(2))
    mode = team.act(observation, lambda _: context, deterministic=True)[0]
    assert (drawn.action[:, 0] != again.action[:, 0]).any()
    assert drawn.action[:, 0, :3].sum(-1) == pytest.approx(np.ones(B))
    assert drawn.log_prob[:, 0].all()
    assert not mode.log_prob.any()


def test_agents_of_one_type_can_differ():
    spec = site_team()
    observation, context = arrays_of(spec)
    observation[:, 1:], context[:, 1:] = observation[:, 1:2], context[:, 1:2]
    for method in METHODS:
        team = rough(Team(spec, Learning(method=method)))
        action = team.act(observation, lambda _: context, deterministic=True)[0].action
        assert np.abs(action[:, 1] - action[:, 2]).max() > 1e-4, method


@pytest.mark.parametrize(("weights", "shares"), [((1, 2, 7), (1 / 8, 0, 7 / 8)), ((1, 1, 8), (1 / 9, 0, 8 / 9))])
@pytest.mark.rows("B05", "B06")
def test_leaders_shares_can_be_frozen(weights, shares):
    """S-MAT 1 and 2, over sites of which the second is not eligible."""
    spec = site_team()
    with pytest.raises(ScenarioError, match="'of' has 4"):
        Team(spec, Learning(frozen_leaders=weights))
    boss = type(spec.types["boss"])("boss", spec.types["boss"].observation, spec.types["boss"].action[:1])
    spec = type(spec)(spec.agents, {**spec.types, "boss": boss}, 1)
    for method in METHODS:
        team = Team(spec, Learning(method=method, frozen_leaders=weights))
        observation, context = arrays_of(spec)
        step, _ = team.act(observation, lambda _, c=context: c)
        assert step.action[:, 0, :3] == pytest.approx(np.tile(shares, (B, 1)), abs=1e-6)
        log_prob, entropy, _ = scores(team, observation, context, step)
        assert not np.any([log_prob[:, 0], entropy[:, 0], step.log_prob[:, 0]])


@pytest.mark.parametrize(("heads", "masked"), [(1, True), (2, True), (4, False)])
def test_attention_is_torchs(heads, masked):
    q, k, v = torch.randn(3, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    split = [x.view(5, 4, heads, -1).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*split, is_causal=masked).transpose(1, 2)
    expected = expected.reshape(5, 4, 8)
    for hidden in ((causal(4), causal(4).expand(5, 4, 4)) if masked else (None,)):
        assert torch.allclose(attend_all(q, k, v, heads, hidden), expected, atol=1e-6)
    rows = [attend(q[:, i], k[:, :m], v[:, :m], heads) for i, m in enumerate(range(1, 5) if masked else [4] * 4)]
    assert torch.allclose(torch.stack(rows, 1), expected, atol=1e-6)


@pytest.mark.rows("T03", "U16")
def test_orders_that_cannot_be():
    spec = site_team()
    observation, _ = arrays_of(spec)
    for order in ([1, 0, 2, 3], [0, 1, 1, 3], [0, 1, 2]):
        with pytest.raises(ScenarioError, match="leaders first"):
            Team(spec).begin(observation, np.tile(order, (B, 1)))


def positions_one_by_one(net, observation, context, raw, order):
    """`Mat.outputs` as its definition reads: agents put in their order, position i reads positions 0..i, and back."""
    def in_order(x, order):
        return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))

    def reads(layer, q, k, v, below):
        last = [i + 1 if below else q.shape[1] for i in range(q.shape[1])]
        return torch.stack([attend(q[:, i], k[:, :m], v[:, :m], layer.heads) for i, m in enumerate(last)], 1)

    def own(layer, x, below):
        q, k, v = layer.qkv(x).split(layer.width, -1)
        return layer.norm(x + layer.out(reads(layer, q, k, v, below)))

    def units(k):
        return net.actions[k].unit(net.groups.of(raw, k, net.actions[k].n_raw))

    token = net.groups.join([layer(net.groups.of(observation, t, layer.in_features))
                             for t, layer in enumerate(net.encoder.embed)])
    token = net.encoder.norm(torch.nn.functional.silu(token + net.encoder.identity))
    for attention, feed in net.encoder.blocks:
        token = feed(own(attention, token, False))
    shown = net.groups.join([layer(units(k)) for k, layer in enumerate(net.shown)])
    shown = in_order(net.token_norm(torch.nn.functional.silu(shown + net.who)), order)
    asked = in_order(net.decision_token(token, context), order)
    x = torch.cat((net.begin.expand(len(token), 1, -1), shown[:, :-1]), 1)
    for block in net.blocks:
        k, v = block.key_value(own(block.own, x, True)).split(block.width, -1)
        x = block.feed(block.norm(asked + block.out(reads(block, block.query(asked), k, v, True))))
    x = in_order(x, order.argsort(1))
    tokens = [x[:, net.groups.select(k)] for k in range(len(net.outs))]
    return net.params(tokens, observation), net.value_output(token).squeeze(-1)


@pytest.mark.parametrize(("spec", "heads"), [(mixed_team(), 1), (site_team(), 1), (site_team(), 2)])
def test_one_pass_is_position_by_position(spec, heads):
    """Outputs and gradients, in float64, where rounding cannot hide anything; the team's own order and random ones."""
    net = rough(Team(spec, Learning(blocks=2, heads=heads, width=16))).network.double()
    observation, context = (torch.from_numpy(x).double() for x in arrays_of(spec))
    rng, n = np.random.default_rng(3), len(spec.agents)
    raw = torch.from_numpy(rng.integers(0, 3, (B, n, net.n_raw))).double()
    own = np.tile(np.arange(n), (B, 1))
    for order in (None, torch.from_numpy(np.concatenate((own[:, :1], rng.permuted(own[:, 1:], axis=1)), 1))):
        told = (observation, context, raw)
        expected = positions_one_by_one(net, *told, torch.from_numpy(own) if order is None else order)
        found = net.outputs(*told, order)
        slopes = []
        for params, value in (found, expected):
            net.zero_grad()
            (sum((p * (k + 1.0)).square().sum() for k, p in enumerate(params)) + value.square().sum()).backward()
            slopes.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
        for a, b in zip((*found[0], found[1]), (*expected[0], expected[1]), strict=True):
            assert torch.allclose(a, b, rtol=0.0, atol=1e-12)
        assert slopes[0].keys() == slopes[1].keys()
        for name, slope in slopes[0].items():
            assert torch.allclose(slope, slopes[1][name], rtol=1e-9, atol=1e-12), name
