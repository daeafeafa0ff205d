"""The multi-agent transformer (Wen et al. 2022) with typed agents, true random orders and contexts.

Encoder: tokens of all observations, whose values are the critic. Decoder: token i attends over the actions of positions
0..i-1 (masked) and is queried with the encoder's token of the agent at position i, plus the context that it received
after the leaders acted (its context).

Rows: B01, I27, L09, L14, T01-04, U16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.blocks import (
    SMALL_GAIN,
    Attention,
    Encoder,
    FeedForward,
    Init,
    ModulesOf,
    attend,
    attend_all,
    causal,
)
from cosim.agents.learn.networks.distributions import Noise
from cosim.agents.learn.networks.network import ALL, Decoding, JointAction, PolicyNetwork
from cosim.agents.learn.spec import TeamSpec


class Mat(PolicyNetwork):
    """Shared encoder, critic on the encoded observations, masked autoregressive decoder."""

    autoregressive = True
    follows: Tensor
    later: Tensor
    type_at: Tensor

    def __init__(self, spec: TeamSpec, config: Learning, seed: int, terms: int = 0):
        super().__init__(spec, config, seed, terms)
        width, init = config.width, self.init
        self.encoder = Encoder(spec, self.groups, width, config.heads, config.blocks, init)
        self.shown = ModulesOf(init.linear(a.n_unit, width, 1.0) for a in self.actions)
        self.told = self.context_layers()
        self.begin = init.table(1, width)
        self.who = init.identities(len(spec.agents), width)
        self.token_norm = nn.LayerNorm(width)
        self.blocks = ModulesOf(DecoderBlock(width, config.heads, init) for _ in range(config.blocks))
        self.outs = self.heads()
        follows = torch.tensor([0.0] * spec.leaders + [1.0] * (len(spec.agents) - spec.leaders))
        self.register_buffer("follows", follows.unsqueeze(-1), persistent=False)
        self.register_buffer("later", causal(len(spec.agents)), persistent=False)
        self.register_buffer("type_at", torch.tensor(self.groups.type_at), persistent=False)

    def value(self, observation: Tensor) -> Tensor:
        """See Network."""
        return self.by_agent(self.encoder(observation))

    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """See Network; one pass. Agents stay in the team's order, and a mask encodes the order of decisions."""
        token = self.encoder(observation)
        value = self.by_agent(token)
        asked = self.decision_token(token, context)
        shown = self.groups.join([layer(a.unit(self.groups.of(raw, k, a.n_raw)))
                                  for k, (a, layer) in enumerate(zip(self.actions, self.shown, strict=True))])
        stream, hidden = self.stream(self.token_norm(functional.silu(shown + self.who)), order)
        for block in self.blocks:
            stream = block(stream, asked, hidden)
        tokens = [stream[:, self.groups.select(k)] for k in range(len(self.outs))]
        return self.params(tokens, observation), value

    def stream(self, shown: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
        """((B, n, E) embedded action of each agent's predecessor, of the first `begin`; attention mask)."""
        if order is None:
            return torch.cat((self.begin.expand(len(shown), 1, -1), shown[:, :-1]), 1), self.later
        batch, n = order.shape
        place = order.argsort(1)
        shown = torch.where((place == n - 1).unsqueeze(-1), self.begin, shown)  # the last action conditions no other
        first_row = torch.arange(0, batch * n, n, device=order.device).unsqueeze(1)
        before = (order.gather(1, (place - 1) % n) + first_row).flatten()
        after = (order.gather(1, (place + 1) % n) + first_row).flatten()
        stream = _Permuted.apply(shown.flatten(0, 1), before, after).view_as(shown)
        return stream, self.later[place.unsqueeze(2), place.unsqueeze(1)]

    def decision_token(self, token: Tensor, context: Tensor) -> Tensor:
        """(B, n, E) the encoder's tokens, with the followers' contexts added."""
        if not self.told:
            return token
        told = []
        for k, kind in enumerate(self.groups.kinds):
            if kind.context:
                told.append(self.told[str(k)](self.groups.of(context, k, len(kind.context))))
            else:
                told.append(token.new_zeros(len(token), len(self.groups.members[k]), token.shape[-1]))
        return torch.addcmul(token, self.groups.join(told), self.follows)

    def show(self, kind: int, unit: Tensor, agent: int | Tensor) -> Tensor:
        """(b, E) embedding of an action of `agent` (an index, or one per row) for later agents."""
        return self.token_norm(functional.silu(self.shown[kind](unit) + self.who[agent]))

    def start(self, observation: Tensor, order: Tensor | None, noise: Noise | None) -> Decoding:
        """See Network; agent by agent, with caches of keys and values."""
        return MatDecoding(self, observation, order, noise)


class DecoderBlock(nn.Module):
    """Masked attention over the actions so far, then over them again with the deciding agent's token as query."""

    def __init__(self, width: int, heads: int, init: Init):
        super().__init__()
        self.heads, self.width = heads, width
        self.own = Attention(width, heads, init)
        self.query, self.out = init.linear(width, width, SMALL_GAIN), init.linear(width, width, SMALL_GAIN)
        self.key_value = init.linear(width, 2 * width, SMALL_GAIN, 2)
        self.norm, self.feed = nn.LayerNorm(width), FeedForward(width, init)

    def forward(self, stream: Tensor, asked: Tensor, hidden: Tensor) -> Tensor:
        """(B, n, E) of all agents; hidden: see `attend_all`."""
        k, v = self.key_value(self.own(stream, hidden)).split(self.width, -1)
        read = attend_all(self.query(asked), k, v, self.heads, hidden)
        return self.feed(self.norm(asked + self.out(read)))

    def step(self, x: Tensor, asked: Tensor, query: Tensor, cache: tuple[Tensor, Tensor], position: int) -> Tensor:
        """(B, E) of one position."""
        own, cross = cache
        cross[:, position] = self.key_value(self.own.step(x, own, position))
        k, v = cross[:, :position + 1].split(self.width, -1)
        return self.feed(self.norm(asked + self.out(attend(query, k, v, self.heads))))


class MatDecoding:
    """Positions one after the other; everything indexed by position until the end."""

    def __init__(self, net: Mat, observation: Tensor, order: Tensor | None, noise: Noise | None):
        self.net, self.order, self.noise, self.observation = net, order, noise, observation
        if order is not None:
            self.observation = _ordered(observation, order)
        self.token = net.encoder(observation)
        self.value = net.by_agent(self.token)
        batch, n, width = self.token.shape
        make = self.token.new_zeros
        self.raw, self.action = make(batch, n, net.n_raw), make(batch, n, net.n_action)
        self.log_prob = make(batch, n)
        self.caches = [(make(batch, n, 2 * width), make(batch, n, 2 * width)) for _ in net.blocks]
        self.last = net.begin.expand(batch, -1)

    def lead(self) -> Tensor:
        """See Decoding."""
        leaders = self.net.spec.leaders
        self._decide(self.token[:, :leaders], range(leaders))
        return self.action[:, :leaders]

    def follow(self, context: Tensor) -> JointAction:
        """See Decoding."""
        leaders, n = self.net.spec.leaders, self.token.shape[1]
        asked = self.net.decision_token(self.token, context)
        if self.order is not None:
            asked = _ordered(asked, self.order)
        self._decide(asked[:, leaders:], range(leaders, n))
        if self.order is None:
            return JointAction(self.action, self.raw, self.log_prob, self.value)
        back = self.order.argsort(1)
        return JointAction(_ordered(self.action, back), _ordered(self.raw, back), self.log_prob.gather(1, back),
                           self.value)

    def _decide(self, asked: Tensor, positions: range) -> None:
        if not positions:
            return
        queries = [block.query(asked) for block in self.net.blocks]
        for k, position in enumerate(positions):
            x = self.last
            for block, query, cache in zip(self.net.blocks, queries, self.caches, strict=True):
                x = block.step(x, asked[:, k], query[:, k], cache, position)
            self.last = self._draw(x, position)

    def _draw(self, x: Tensor, position: int) -> Tensor:
        """Draw the actions at a position; returns the token (B, E) that later positions see of them."""
        token = None
        for kind, rows in self._kinds(position):
            actions = self.net.actions[kind]
            raw = self._raw(kind, x[rows], rows, position)
            unit = actions.unit(raw)
            self.raw[rows, position, :actions.n_raw] = raw
            self.action[rows, position, :actions.n_action] = actions.action(raw, unit)
            agent = position if self.order is None else self.order[rows, position]
            shown = self.net.show(kind, unit, agent)
            if rows is ALL:
                return shown
            token = torch.zeros_like(x) if token is None else token
            token[rows] = shown
        assert token is not None, "somebody is of some type at every position"
        return token

    def _raw(self, kind: int, x: Tensor, rows: slice | Tensor, position: int) -> Tensor:
        actions = self.net.actions[kind]
        if position < self.net.n_fixed:
            return self.net.fixed[position, :actions.n_raw].expand(len(x), -1)
        seen = self.observation[rows, position, :len(actions.kind.observation)]
        params = actions.placed(self.net.outs[kind](x), seen)
        if self.noise is None:
            return actions.sample(params, None)
        raw = actions.sample(params, self.noise.at(rows, position))
        self.log_prob[rows, position] = actions.log_prob(params, raw)
        return raw

    def _kinds(self, position: int) -> list[tuple[int, slice | Tensor]]:
        """Which types decide at a position, and in which rows."""
        groups = self.net.groups
        if position < self.net.spec.leaders or self.order is None:
            return [(groups.type_at[position], ALL)]
        if len(groups.followers) == 1:
            return [(groups.followers[0], ALL)]
        here = self.net.type_at[self.order[:, position]]
        found = [(k, (here == k).nonzero().squeeze(-1)) for k in groups.followers]
        return [(k, rows) for k, rows in found if len(rows)]


class _Permuted(torch.autograd.Function):
    """Rows of x (N, E) in another order. As none is left out or read twice, the gradient's rows go back the same way;
    torch would otherwise add them up one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        """x[index]; x is also what [index][inverse] gives."""
        ctx.save_for_backward(inverse)
        return x[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """See the class."""
        return grad[ctx.saved_tensors[0]], None, None


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    """(B, n, ...) with the agents of each row in that row's order."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
