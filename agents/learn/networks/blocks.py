"""Layers that the policies share: initialisation, attention over a few tokens, embeddings per agent type.

Activations are SiLU: the shape of GELU at a quarter of its cost on one row (a decode at batch 1 is all dispatch).
Attention over all positions is two batched products: for the handful of agents of a team, forward and backward take
three quarters of the time of torch's fused kernel, and half of that of writing it row by row.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosim.agents.learn.spec import AgentType, TeamSpec
from cosim.errors import ScenarioError

HIDDEN_GAIN = 2.0**0.5
SMALL_GAIN = 0.01
"""Orthogonal initialisation: sqrt(2) before an activation, 0.01 for attention's projections and outputs, biases 0."""
_IDENTITY_STD = 0.3


M = TypeVar("M", bound=nn.Module)


class ModulesOf(nn.ModuleList, Generic[M]):
    """A ModuleList whose type hints give the type of its modules."""

    if TYPE_CHECKING:
        def __init__(self, modules: Iterable[M]) -> None: ...

        def __getitem__(self, k: int) -> M: ...  # type: ignore[override]

        def __iter__(self) -> Iterator[M]: ...


class Init:
    """Makes initialised layers from one generator, so that a seed gives the same network on every machine."""

    def __init__(self, seed: int, identity: bool = True):
        self.identity = identity
        self.generator = torch.Generator().manual_seed(seed)

    def copy(self) -> Init:
        """One that draws what this one would draw next."""
        made = Init(0, self.identity)
        made.generator.set_state(self.generator.get_state())
        return made

    def linear(self, n_in: int, n_out: int, gain: float, parts: int = 1) -> nn.Linear:
        """A linear layer; each of `parts` equal blocks of outputs is orthogonal by itself."""
        with warnings.catch_warnings():  # torch finds a layer without inputs or outputs odd; here it is an empty part
            warnings.simplefilter("ignore")
            layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
        if not layer.weight.numel():
            nn.init.zeros_(layer.bias)
            return layer
        with torch.no_grad():
            for block in layer.weight.chunk(parts):
                nn.init.orthogonal_(block, gain, self.generator)
            layer.bias.zero_()
        return layer

    def table(self, rows: int, columns: int) -> nn.Parameter:
        """Embeddings: small normal numbers."""
        return nn.Parameter(torch.randn(rows, columns, generator=self.generator) * _IDENTITY_STD)

    def identities(self, agents: int, columns: int) -> nn.Parameter:
        """An embedding per agent; zeros that stay so where agents of one type must not differ."""
        if self.identity:
            return self.table(agents, columns)
        return nn.Parameter(torch.zeros(agents, columns), requires_grad=False)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(B, E): what one query (B, E) reads from m keys and values (B, m, E)."""
    batch, m, width = key.shape
    if m == 1:
        return value[:, 0]
    if heads == 1:
        weight = torch.softmax((query.unsqueeze(1) * key).sum(-1, keepdim=True) * width**-0.5, 1)
        return (weight * value).sum(1)
    q, k, v = query.view(batch, 1, heads, -1), key.view(batch, m, heads, -1), value.view(batch, m, heads, -1)
    weight = torch.softmax((q * k).sum(-1, keepdim=True) * (width // heads) ** -0.5, 1)
    return (weight * v).sum(1).reshape(batch, width)


def attend_all(query: Tensor, key: Tensor, value: Tensor, heads: int, hidden: Tensor | None = None) -> Tensor:
    """(B, n, E): the same for every position; `hidden` (n, n) or (B, n, n) is -inf where a row must not read a column,
    else 0."""
    if heads > 1:
        query, key, value = (_apart(x, heads) for x in (query, key, value))
        if hidden is not None and hidden.dim() == 3:
            hidden = hidden.repeat_interleave(heads, 0)
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(query.shape[-1] ** -0.5)
    if hidden is not None:
        scores += hidden
    read = torch.bmm(scores.softmax(-1), value)
    return read if heads == 1 else read.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def _apart(x: Tensor, heads: int) -> Tensor:
    """(B heads, n, E / heads) of (B, n, E)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def causal(n: int) -> Tensor:
    """(n, n) what hides later positions: 0 up to the diagonal, -inf above it."""
    return torch.full((n, n), -torch.inf).triu(1)


class FeedForward(nn.Module):
    """Two layers, one activation, residual and norm [MAT: as wide as the token]."""

    def __init__(self, width: int, init: Init):
        super().__init__()
        self.first, self.second = init.linear(width, width, HIDDEN_GAIN), init.linear(width, width, SMALL_GAIN)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return self.norm(x + self.second(functional.silu(self.first(x))))


class Attention(nn.Module):
    """Attention of tokens among themselves, residual and norm; whole, or position by position with a cache."""

    def __init__(self, width: int, heads: int, init: Init):
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv, self.out = init.linear(width, 3 * width, SMALL_GAIN, 3), init.linear(width, width, SMALL_GAIN)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, n, E) -> (B, n, E); hidden: see `attend_all`."""
        q, k, v = self.qkv(x).split(self.width, -1)
        return self.norm(x + self.out(attend_all(q, k, v, self.heads, hidden)))

    def step(self, x: Tensor, cache: Tensor, position: int) -> Tensor:
        """(B, E) -> (B, E) at `position`; cache (B, n, 2E) of earlier keys and values gains this one."""
        qkv = self.qkv(x)
        cache[:, position] = qkv[:, self.width:]
        k, v = cache[:, :position + 1].split(self.width, -1)
        return self.norm(x + self.out(attend(qkv[:, :self.width], k, v, self.heads)))


class Encoder(nn.Module):
    """Observations -> tokens: one embedding per type, an identity per agent, unmasked attention over the team.

    No norm on the raw observation: it would subtract what all columns share and undo their fixed scales.
    """

    def __init__(self, spec: TeamSpec, groups: AgentGroups, width: int, heads: int, blocks: int, init: Init):
        super().__init__()
        self.groups = groups
        self.embed = ModulesOf(init.linear(len(k.observation), width, HIDDEN_GAIN) for k in groups.kinds)
        self.identity = init.identities(len(spec.agents), width)
        self.norm = nn.LayerNorm(width)
        self.blocks = ModulesOf(
            nn.Sequential(Attention(width, heads, init), FeedForward(width, init)) for _ in range(blocks))

    def forward(self, observation: Tensor) -> Tensor:
        """(B, n, O) -> (B, n, E)."""
        x = self.groups.join([layer(self.groups.of(observation, t, layer.in_features))
                              for t, layer in enumerate(self.embed)])
        x = self.norm(functional.silu(x + self.identity))
        for block in self.blocks:
            x = block(x)
        return x


class OwnHistory(nn.Module):
    """Observations with history -> tokens: attention of each agent over its own last steps, not over those of others.

    An embedding per type and one of how long ago a step was; the token is the present step's.
    """

    def __init__(self, spec: TeamSpec, groups: AgentGroups, steps: int, width: int, heads: int, blocks: int,
                 init: Init):
        super().__init__()
        odd = [k.name for k in groups.kinds if len(k.observation) % steps]
        if odd:
            raise ScenarioError(f"history_steps = {steps}: '{odd[0]}' does not observe that many steps")
        self.groups, self.steps = groups, steps
        self.embed = ModulesOf(init.linear(len(k.observation) // steps, width, HIDDEN_GAIN) for k in groups.kinds)
        self.identity = init.identities(len(spec.agents), width)
        self.when = init.table(steps, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = ModulesOf(
            nn.Sequential(Attention(width, heads, init), FeedForward(width, init)) for _ in range(blocks))

    def forward(self, observation: Tensor) -> Tensor:
        """(B, n, O) -> (B, n, E)."""
        parts = [self.groups.of(observation, t, layer.in_features * self.steps).unflatten(-1, (self.steps, -1))
                 for t, layer in enumerate(self.embed)]
        x = self.groups.join([layer(part) for layer, part in zip(self.embed, parts, strict=True)])
        x = self.norm(functional.silu(x + self.identity.unsqueeze(1) + self.when))
        batch, n = x.shape[:2]
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return x[:, 0].unflatten(0, (batch, n))


class Output(nn.Module):
    """The last two layers of a value or an action: Linear, activation, norm, Linear [MAT]."""

    def __init__(self, width: int, n_out: int, gain: float, init: Init):
        super().__init__()
        self.first, self.norm = init.linear(width, width, HIDDEN_GAIN), nn.LayerNorm(width)
        self.last = init.linear(width, n_out, gain)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., n_out)."""
        return self.last(self.norm(functional.silu(self.first(x))))


class AgentGroups:
    """Which agents are of which type, and the way between arrays over the team and arrays per type."""

    def __init__(self, spec: TeamSpec):
        names = list(dict.fromkeys(kind for _, kind in spec.agents))
        self.kinds: list[AgentType] = [spec.types[name] for name in names]
        self.type_at = [names.index(kind) for _, kind in spec.agents]
        self.members = [[i for i, t in enumerate(self.type_at) if t == k] for k in range(len(names))]
        joined = [i for m in self.members for i in m]
        self.back = None if joined == sorted(joined) else [joined.index(i) for i in range(len(joined))]
        self.followers = sorted({self.type_at[i] for i in range(spec.leaders, len(spec.agents))})

    def of(self, x: Tensor, kind: int, columns: int) -> Tensor:
        """(B, n_k, columns) of the agents of one type; padding is left out here."""
        return x[:, self.select(kind), :columns]

    def select(self, kind: int) -> slice | Sequence[int]:
        """Index of the agents of one type; a slice where they stand together."""
        m = self.members[kind]
        return slice(m[0], m[-1] + 1) if m[-1] - m[0] + 1 == len(m) else m

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """(B, n, ...) from one array (B, n_k, ...) per type."""
        x = parts[0] if len(parts) == 1 else torch.cat(tuple(parts), 1)
        return x if self.back is None else x[:, self.back]
