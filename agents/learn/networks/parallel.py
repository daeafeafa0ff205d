"""Policies whose agents do not observe each other's actions. What follows from the leaders' for a follower, its
context, it observes with `context_for_all` alone.

`MatDec` takes the study's reading of MAT-Dec (decentralised decoders behind a shared encoder); in the MAT authors' code
that name keeps the encoder for the critic alone and gives the actors the raw observation. `Transformer` is parallel
attention, over agents or over each agent's own past, with nothing shared between actor and critic. `Mappo` has no
attention at all (Yu et al. 2022).

Rows: B02-04, T09, Z02.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.blocks import (
    HIDDEN_GAIN,
    AgentGroups,
    Encoder,
    FeedForward,
    Init,
    ModulesOf,
    OwnHistory,
)
from cosim.agents.learn.networks.distributions import Noise
from cosim.agents.learn.networks.network import Decoding, JointAction, ParallelDecoding, PolicyNetwork
from cosim.agents.learn.spec import TeamSpec


class Parallel(PolicyNetwork):
    """One token per agent from the observations, to which a follower's context is added before its head."""

    told: nn.ModuleDict

    def contexts(self) -> None:
        """Make the layers for contexts, after all others, so that those are the same with and without."""
        self.told = self.context_layers() if self.config.context_for_all else nn.ModuleDict()

    @abstractmethod
    def hidden(self, observation: Tensor) -> tuple[list[Tensor], Tensor]:
        """(tokens (B, n_k, E) per type, value)."""

    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """See Network."""
        tokens, value = self.hidden(observation)
        return self.params(self.informed(tokens, context), observation), value

    def informed(self, tokens: list[Tensor], context: Tensor) -> list[Tensor]:
        """The tokens with the followers' contexts (B, n, C) added; without columns nothing is."""
        if not self.told or not context.shape[-1]:
            return tokens
        out = list(tokens)
        for k, kind in enumerate(self.groups.kinds):
            if kind.context:
                follows = out[k].new_tensor([[float(i >= self.spec.leaders)] for i in self.groups.members[k]])
                out[k] = out[k] + self.told[str(k)](self.groups.of(context, k, len(kind.context))) * follows
        return out

    def start(self, observation: Tensor, order: Tensor | None, noise: Noise | None) -> Decoding:
        """See Network."""
        if not self.told:
            return super().start(observation, order, noise)
        return InformedDecoding(self, observation, noise)


class InformedDecoding:
    """Leaders first; then all again from the same noise, the followers with their contexts: no leader's token has
    changed, so that its action is the same."""

    def __init__(self, network: Parallel, observation: Tensor, noise: Noise | None):
        self._network, self._observation, self._noise = network, observation, noise
        self._tokens, self._value = network.hidden(observation)

    def lead(self) -> Tensor:
        """See Decoding."""
        return self._drawn(self._tokens).lead()

    def follow(self, context: Tensor) -> JointAction:
        """See Decoding."""
        return self._drawn(self._network.informed(self._tokens, context)).follow(context)

    def _drawn(self, tokens: list[Tensor]) -> ParallelDecoding:
        params = self._network.params(tokens, self._observation)
        return ParallelDecoding(self._network, params, self._value, self._noise)


class MatDec(Parallel):
    """Shared encoder; critic and one decoder per agent type on its tokens."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int, terms: int = 0):
        super().__init__(spec, config, seed, terms)
        self.encoder = Encoder(spec, self.groups, config.width, config.heads, config.blocks, self.init)
        self.decoders = ModulesOf(
            nn.Sequential(*(FeedForward(config.width, self.init) for _ in range(config.blocks))) for _ in self.actions)
        self.outs = self.heads()
        self.contexts()

    def value(self, observation: Tensor) -> Tensor:
        """See Network."""
        return self.by_agent(self.encoder(observation))

    def hidden(self, observation: Tensor) -> tuple[list[Tensor], Tensor]:
        """See Parallel."""
        token = self.encoder(observation)
        decoded = [decoder(token[:, self.groups.select(k)]) for k, decoder in enumerate(self.decoders)]
        return decoded, self.by_agent(token)


class Transformer(Parallel):
    """Parallel attention: one encoder for the actors, another for the critic. With `history_steps` the actors attend
    over their own past alone; the critic, which only training uses, over all agents with theirs."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int, terms: int = 0):
        super().__init__(spec, config, seed, terms)
        shape = (config.width, config.heads, config.blocks)
        steps = config.history_steps
        self.actor = (Encoder(spec, self.groups, *shape, self.init) if steps == 1 else
                      OwnHistory(spec, self.groups, steps, *shape, self.init))
        self.critic = Encoder(spec, self.groups, *shape, self.init)
        self.outs = self.heads()
        self.contexts()

    def value(self, observation: Tensor) -> Tensor:
        """See Network."""
        return self.by_agent(self.critic(observation))

    def hidden(self, observation: Tensor) -> tuple[list[Tensor], Tensor]:
        """See Parallel."""
        token = self.actor(observation)
        return [token[:, self.groups.select(k)] for k in range(len(self.outs))], self.value(observation)


class Mappo(Parallel):
    """Inputs of each type's actor: the agent's observation and index; of the critic: all observations."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int, terms: int = 0):
        super().__init__(spec, config, seed, terms)
        widths = [len(k.observation) for k in self.groups.kinds]
        self.actors = ModulesOf(Mlp(w, config, self.init) for w in widths)
        self.who = self.init.identities(len(spec.agents), config.width)
        self.critic = Mlp(sum(widths[t] for t in self.groups.type_at), config, self.init)
        self.value_output = self.value_layer(len(spec.agents))
        self.outs = self.heads()
        self.contexts()

    def value(self, observation: Tensor) -> Tensor:
        """See Network; numbers per agent, as they may be credited with different things."""
        seen = torch.cat([x.flatten(1) for x in self._parts(observation)], -1)
        values = self.value_output(self.critic(seen))
        return values.unflatten(-1, (-1, self.terms)) if self.terms else values

    def hidden(self, observation: Tensor) -> tuple[list[Tensor], Tensor]:
        """See Parallel."""
        hidden = [self.actors[k](x, self.who[self.groups.select(k)]) for k, x in enumerate(self._parts(observation))]
        return hidden, self.value(observation)

    def _parts(self, observation: Tensor) -> list[Tensor]:
        groups: AgentGroups = self.groups
        return [groups.of(observation, k, len(kind.observation)) for k, kind in enumerate(groups.kinds)]


class Mlp(nn.Module):
    """Linear, activation, norm, `blocks` + 1 times [on-policy: norm after the activation]."""

    def __init__(self, n_in: int, config: Learning, init: Init):
        super().__init__()
        sizes = [n_in] + [config.width] * config.blocks
        self.layers = ModulesOf(init.linear(n, config.width, HIDDEN_GAIN) for n in sizes)
        self.norms = ModulesOf(nn.LayerNorm(config.width) for _ in sizes)

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """(..., n_in) -> (..., E); the identity is added before the first activation."""
        for k, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = layer(x)
            x = norm(functional.silu(x + identity if k == 0 and identity is not None else x))
        return x
