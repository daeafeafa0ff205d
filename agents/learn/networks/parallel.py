"""Policies whose agents do not observe each other's actions, nor what follows from them: they have no context.

`MatDec` takes the study's reading of MAT-Dec (decentralised decoders behind a shared encoder); in the MAT authors' code
that name keeps the encoder for the critic alone and gives the actors the raw observation. `Transformer` is parallel
attention with nothing shared between actor and critic. `Mappo` has no attention at all (Yu et al. 2022).

Rows: B02-04, T09, Z02.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.blocks import (
    HIDDEN_GAIN,
    SMALL_GAIN,
    AgentGroups,
    Encoder,
    FeedForward,
    Init,
    ModulesOf,
    Output,
)
from cosim.agents.learn.networks.network import PolicyNetwork
from cosim.agents.learn.spec import TeamSpec


class MatDec(PolicyNetwork):
    """Shared encoder; critic and one decoder per agent type on its tokens."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int):
        super().__init__(spec, config, seed)
        self.encoder = Encoder(spec, self.groups, config.width, config.heads, config.blocks, self.init)
        self.decoders = ModulesOf(
            nn.Sequential(*(FeedForward(config.width, self.init) for _ in range(config.blocks))) for _ in self.actions)
        self.outs = self.heads()

    def value(self, observation: Tensor) -> Tensor:
        """See Network."""
        return self.value_output(self.encoder(observation)).squeeze(-1)

    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """See Network."""
        token = self.encoder(observation)
        decoded = [decoder(token[:, self.groups.select(k)]) for k, decoder in enumerate(self.decoders)]
        return self.params(decoded, observation), self.value_output(token).squeeze(-1)


class Transformer(PolicyNetwork):
    """Parallel attention: one encoder for the actors, another for the critic."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int):
        super().__init__(spec, config, seed)
        shape = (config.width, config.heads, config.blocks)
        self.actor = Encoder(spec, self.groups, *shape, self.init)
        self.critic = Encoder(spec, self.groups, *shape, self.init)
        self.outs = self.heads()

    def value(self, observation: Tensor) -> Tensor:
        """See Network."""
        return self.value_output(self.critic(observation)).squeeze(-1)

    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """See Network."""
        token = self.actor(observation)
        tokens = [token[:, self.groups.select(k)] for k in range(len(self.outs))]
        return self.params(tokens, observation), self.value(observation)


class Mappo(PolicyNetwork):
    """Inputs of each type's actor: the agent's observation and index; of the critic: all observations."""

    def __init__(self, spec: TeamSpec, config: Learning, seed: int):
        super().__init__(spec, config, seed)
        widths = [len(k.observation) for k in self.groups.kinds]
        self.actors = ModulesOf(Mlp(w, config, self.init) for w in widths)
        self.who = self.init.identities(len(spec.agents), config.width)
        self.critic = Mlp(sum(widths[t] for t in self.groups.type_at), config, self.init)
        self.value_output = Output(config.width, len(spec.agents), SMALL_GAIN, self.init)
        self.outs = self.heads()

    def value(self, observation: Tensor) -> Tensor:
        """See Network; a number per agent, as they may be credited with different things."""
        seen = torch.cat([x.flatten(1) for x in self._parts(observation)], -1)
        return self.value_output(self.critic(seen))

    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """See Network."""
        hidden = [self.actors[k](x, self.who[self.groups.select(k)]) for k, x in enumerate(self._parts(observation))]
        return self.params(hidden, observation), self.value(observation)

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
