"""What all policies share: scoring a joint action in one pass, drawing one in the team's order.

Axes: B samples, n agents in the team's order (leaders first), E numbers per token; R the widest raw action; K terms of
the reward. `order` (B, n): which agent decides at which position; None: the team's order. Leaders stand at their own
positions in it. Values are (B, n), or (B, n, K) of a critic with an output per term.

Rows: B05, B06.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.blocks import SMALL_GAIN, AgentGroups, Init, ModulesOf, Output
from cosim.agents.learn.networks.distributions import Actions, Noise
from cosim.agents.learn.spec import AgentType, Simplex, TeamSpec
from cosim.errors import ScenarioError

ALL = slice(None)


@dataclass(frozen=True)
class JointAction:
    """A joint action as tensors in the team's order: action (B, n, A), raw (B, n, R), log_prob (B, n), value; log_prob
    is 0 where nothing was drawn (modes, frozen leaders)."""

    action: Tensor
    raw: Tensor
    log_prob: Tensor
    value: Tensor


class PolicyNetwork(nn.Module, ABC):
    """Base of the policies: distributions per type, the value's output layer, frozen leaders. terms: K, 0 for one value
    of their sum."""

    autoregressive = False
    outs: ModulesOf[Output]
    """A head per type."""
    fixed: Tensor
    learned: Tensor

    def __init__(self, spec: TeamSpec, config: Learning, seed: int, terms: int = 0):
        super().__init__()
        self.terms = terms
        self.spec, self.config, self.groups, self.init = spec, config, AgentGroups(spec), Init(seed, config.identity)
        self.actions = ModulesOf(
            Actions(k, config.simplex, config.std_start, config.std_min) for k in self.groups.kinds)
        self.n_raw = max(a.n_raw for a in self.actions)
        self.n_action = max(a.n_action for a in self.actions)
        self.value_output = self.value_layer(1)
        fixed, mask = _frozen(spec, self.groups, config, self.n_raw)
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("learned", mask, persistent=False)
        self.n_fixed = len(fixed)

    def value_layer(self, values: int) -> Output:
        """A fresh output layer of so many values, each of so many terms. All other layers are those of a critic without
        terms: the policies of a seed start as the same ones."""
        aside, one = self.init.copy(), Output(self.config.width, values, SMALL_GAIN, self.init)
        return Output(self.config.width, values * self.terms, SMALL_GAIN, aside) if self.terms else one

    def by_agent(self, token: Tensor) -> Tensor:
        """Values (B, n) or (B, n, K) of the critic's tokens (B, n, E)."""
        values = self.value_output(token)
        return values if self.terms else values.squeeze(-1)

    def heads(self) -> ModulesOf[Output]:
        """A fresh output layer per type; a new policy's means are the parts' `start`."""
        made = ModulesOf(Output(self.config.width, a.n_params, SMALL_GAIN, self.init) for a in self.actions)
        with torch.no_grad():
            for head, actions in zip(made, self.actions, strict=True):
                head.last.bias.copy_(actions.start)
        return made

    def context_layers(self) -> nn.ModuleDict:
        """A fresh layer per type that has a context, by its number: what is added to a follower's token."""
        return nn.ModuleDict({str(k): self.init.linear(len(kind.context), self.config.width, 1.0)
                              for k, kind in enumerate(self.groups.kinds) if kind.context})

    def params(self, tokens: Sequence[Tensor], observation: Tensor) -> list[Tensor]:
        """Parameters (B, n_k, P_k) per type from what its head is shown, (B, n_k, E)."""
        return [a.placed(out(token), self.groups.of(observation, k, len(a.kind.observation)))
                for k, (a, out, token) in enumerate(zip(self.actions, self.outs, tokens, strict=True))]

    @abstractmethod
    def value(self, observation: Tensor) -> Tensor:
        """(B, n) or (B, n, K) normalised value, estimated from each agent's token."""

    @abstractmethod
    def outputs(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[list[Tensor], Tensor]:
        """Parameters (B, n_k, P_k) per type, each agent given its predecessors' draws, and the value."""

    def start(self, observation: Tensor, order: Tensor | None, noise: Noise | None) -> Decoding:
        """Begin to draw a joint action; `noise` None: the modes."""
        params, value = self.outputs(observation, observation[..., :0], observation[..., :0], None)
        return ParallelDecoding(self, params, value, noise)

    def scores(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
               ) -> tuple[Tensor, Tensor, Tensor]:
        """(log_prob, entropy, value), the first two (B, n), of stored draws in the order they were drawn in."""
        return self._scored(observation, context, raw, order)

    def compile_scores(self) -> None:
        """`scores` compiled by torch from now on, for every shape of its arguments when it first comes.
        ScenarioError without a compiler."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise ScenarioError(f"learn.torch_compile needs a C++ compiler and there is no {compiler}; install one, "
                                "name yours in the variable CXX, or leave learn.torch_compile out")
        self._scored = torch.compile(self._scored, dynamic=False)  # type: ignore[method-assign]

    def _scored(self, observation: Tensor, context: Tensor, raw: Tensor, order: Tensor | None
                ) -> tuple[Tensor, Tensor, Tensor]:
        params, value = self.outputs(observation, context, raw, order)
        log_prob, entropy = [], []
        for k, actions in enumerate(self.actions):
            log_prob.append(actions.log_prob(params[k], self.groups.of(raw, k, actions.n_raw)))
            entropy.append(actions.entropy(params[k]))
        return self.groups.join(log_prob) * self.learned, self.groups.join(entropy) * self.learned, value


class Decoding(Protocol):
    """One joint action in the making: first `lead`, then `follow`."""

    def lead(self) -> Tensor:
        """(B, leaders, A) the leaders' actions."""
        ...

    def follow(self, context: Tensor) -> JointAction:
        """All actions, given the followers' context (B, n, C)."""
        ...


class ParallelDecoding:
    """Decoding of a policy whose agents act independently: the actions of all agents are sampled in one pass, without
    conditioning on the actions of others (the context is unused)."""

    def __init__(self, network: PolicyNetwork, params: list[Tensor], value: Tensor, noise: Noise | None):
        net, groups = network, network.groups
        batch, n = value.shape[:2]
        raw, action = value.new_zeros(batch, n, net.n_raw), value.new_zeros(batch, n, net.n_action)
        log_prob = value.new_zeros(batch, n)
        for k, actions in enumerate(net.actions):
            at = groups.select(k)
            drawn = actions.sample(params[k], None if noise is None else noise.at(ALL, at))
            raw[:, at, :actions.n_raw] = drawn
            if noise is not None:
                log_prob[:, at] = actions.log_prob(params[k], drawn)
        if net.n_fixed:
            raw[:, :net.n_fixed] = net.fixed
        for k, actions in enumerate(net.actions):
            drawn = groups.of(raw, k, actions.n_raw)
            action[:, groups.select(k), :actions.n_action] = actions.action(drawn, actions.unit(drawn))
        self.leaders = net.spec.leaders
        self.drawn = JointAction(action, raw, log_prob * net.learned, value)

    def lead(self) -> Tensor:
        """See Decoding."""
        return self.drawn.action[:, :self.leaders]

    def follow(self, context: Tensor) -> JointAction:
        """See Decoding."""
        return self.drawn


def _frozen(spec: TeamSpec, groups: AgentGroups, config: Learning, n_raw: int) -> tuple[Tensor, Tensor]:
    """((leaders, R) constant raw actions, (n,) 1 where an agent learns); no rows if all learn. ScenarioError."""
    learned = torch.ones(len(spec.agents))
    weights = config.frozen_leaders
    if weights is None:
        return torch.zeros(0, n_raw), learned
    if not spec.leaders or spec.leaders == len(spec.agents):
        raise ScenarioError(f"frozen_leaders: the team has {spec.leaders} leaders of {len(spec.agents)} agents; "
                            "leave it out")
    if min(weights) < 0 or not sum(weights) > 0:
        raise ScenarioError(f"frozen_leaders = {weights} must be >= 0 with at least one > 0")
    fixed = torch.zeros(spec.leaders, n_raw)
    for i in range(spec.leaders):
        learned[i] = 0.0
        raw = _constant(groups.kinds[groups.type_at[i]], weights, config.simplex)
        fixed[i, :len(raw)] = raw
    return fixed, learned


def _constant(kind: AgentType, weights: tuple[float, ...], simplex: str) -> Tensor:
    """Raw action whose every simplex holds `weights`; all else at its start."""
    start = tuple(max(w, 1e-9) for w in weights)
    for part in kind.action:
        if isinstance(part, Simplex) and part.size != len(weights):
            raise ScenarioError(f"frozen_leaders has {len(weights)} shares, but '{part.name}' has {part.size}")
    actions = Actions(AgentType(kind.name, kind.observation, tuple(
        replace(p, start=start) if isinstance(p, Simplex) else p for p in kind.action)), simplex)
    return actions.sample(actions.start, None).detach()
