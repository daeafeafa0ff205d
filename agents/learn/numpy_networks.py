"""The networks of `cosim.agents.learn.networks` on numpy: from an observation to logits, one agent after the other.

A network is made of its weights once; what a decision is in the middle of is a state that `start` gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.agents.learn.numpy_layers import (
    Affine,
    Gain,
    KeyedReading,
    NumpyAttention,
    NumpyFeed,
    Weights,
    normal,
    product,
    silu,
    spread,
)


@dataclass(frozen=True)
class TeamShape:
    """What a network depends on of its team.

    type_at  (n,) which type each agent is of
    leaders  how many agents decide before the others get their context
    logits   by type: matrix (Gaussians, A) from the means to the logits of an action
    blocks, history_steps   as in `cosim.agents.learn.config.Learning`
    """

    type_at: list[int]
    leaders: int
    logits: list[np.ndarray]
    blocks: int
    history_steps: int

    @property
    def types(self) -> range:
        """Numbers of the types."""
        return range(len(self.logits))

    def members(self, first: int = 0) -> list[tuple[int, list[int] | slice]]:
        """(type, its agents) of every type, from agent `first` on; a slice where they stand side by side."""
        out: list[tuple[int, list[int] | slice]] = []
        for kind in self.types:
            agents = [i for i, mine in enumerate(self.type_at) if mine == kind and i >= first]
            if agents:
                beside = slice(agents[0], agents[-1] + 1)
                out.append((kind, beside if len(agents) == beside.stop - beside.start else agents))
        return out


class _NumpyEncoder:
    """Tokens of all agents as rows of mean 0 and variance 1; see `NumpyAttention` for `gain`."""

    def __init__(self, weights: Weights, name: str, team: TeamShape) -> None:
        self._embed = [Affine(weights.linear(f"{name}.embed.{kind}")) for kind in team.types]
        self._identity, self._members, self._type_at = weights.raw[f"{name}.identity"], team.members(), team.type_at
        self._layers: list[NumpyAttention | NumpyFeed] = []
        self.gain = weights.gain(f"{name}.norm")
        for b in range(team.blocks):
            attention = NumpyAttention(weights, f"{name}.blocks.{b}.0", self.gain)
            feed = NumpyFeed(weights, f"{name}.blocks.{b}.1", attention.gain)
            self._layers += [attention, feed]
            self.gain = feed.gain

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """(n, E), of agents that attend to each other."""
        x = self._identity.copy()
        for kind, agents in self._members:
            embed = self._embed[kind]
            x[agents] += embed(observation[agents, :len(embed.weight)])
        return self._attended(x)

    def over_own_past(self, observation: np.ndarray, when: np.ndarray) -> np.ndarray:
        """(n, E), of agents that attend to their own last steps; when (steps, E): embeddings of these."""
        out = np.empty_like(self._identity)
        for i, kind in enumerate(self._type_at):
            embed = self._embed[kind]
            steps = observation[i, :len(when) * len(embed.weight)].reshape(len(when), -1)
            out[i] = self._attended(embed(steps) + self._identity[i] + when)[0]
        return out

    def _attended(self, x: np.ndarray) -> np.ndarray:
        x = normal(silu(x))
        for layer in self._layers:
            x = layer(x)
        return x


class _Head:
    """From a row of mean 0 and variance 1, which `tokens` makes a token, to logits of a type's actions."""

    def __init__(self, weights: Weights, kind: int, team: TeamShape, tokens: Gain) -> None:
        name, logits = f"outs.{kind}", team.logits[kind]
        first, last = weights.linear(f"{name}.first"), weights.linear(f"{name}.last")[:, :len(logits)]
        self._first = Affine(tokens.then(first))
        self._last = Affine(weights.gain(f"{name}.norm").then(product(last, logits)))
        told = weights.told(kind)
        self._told = None if told is None else Affine(product(told, first[:-1]))

    def __call__(self, x: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        inner = self._first(x)
        if context is not None and self._told is not None:
            inner += self._told(context[:len(self._told.weight)])
        return self._last(normal(silu(inner)))


class NumpyNetwork(ABC):
    """What the methods share: a state that `start` makes of the observation, from which agents are decided in turn."""

    @abstractmethod
    def __init__(self, weights: Weights, team: TeamShape) -> None: ...

    @abstractmethod
    def start(self, observation: np.ndarray) -> Any:
        """What the agents' logits are computed from, of an observation (n, O)."""

    @abstractmethod
    def inform(self, state: Any, context: np.ndarray) -> None:
        """The followers' context (n, C) is known."""

    @abstractmethod
    def logits(self, state: Any, i: int, kind: int) -> np.ndarray:
        """(A,) logits of agent i's action."""

    @abstractmethod
    def show(self, state: Any, i: int, kind: int, unit: np.ndarray) -> None:
        """Agent i has decided; (A,) its shares and positions in intervals, 0..1."""


@dataclass
class _Apart:
    """Rows (n, E) of all agents, and their contexts (n, C) once they are known."""

    rows: np.ndarray | list[np.ndarray]
    context: np.ndarray | None = None


class _NumpyParallel(NumpyNetwork):
    """A method whose agents' actions do not depend on each other; `heads` by type."""

    heads: list[_Head]

    def inform(self, state: _Apart, context: np.ndarray) -> None:
        state.context = context

    def logits(self, state: _Apart, i: int, kind: int) -> np.ndarray:
        return self.heads[kind](state.rows[i], None if state.context is None else state.context[i])

    def show(self, state: _Apart, i: int, kind: int, unit: np.ndarray) -> None:
        """No other agent depends on it."""


class _NumpyMatDec(_NumpyParallel):
    def __init__(self, weights: Weights, team: TeamShape) -> None:
        self._encoder, self._type_at = _NumpyEncoder(weights, "encoder", team), team.type_at
        self._feeds: list[list[NumpyFeed]] = []
        self.heads = []
        for kind in team.types:
            feeds, gain = [], self._encoder.gain
            for b in range(team.blocks):
                feeds.append(NumpyFeed(weights, f"decoders.{kind}.{b}", gain))
                gain = feeds[-1].gain
            self._feeds.append(feeds)
            self.heads.append(_Head(weights, kind, team, gain))

    def start(self, observation: np.ndarray) -> _Apart:
        rows = list(self._encoder(observation))
        for i, kind in enumerate(self._type_at):
            for feed in self._feeds[kind]:
                rows[i] = feed(rows[i])
        return _Apart(rows)


class _NumpyTransformer(_NumpyParallel):
    def __init__(self, weights: Weights, team: TeamShape) -> None:
        self._encoder = _NumpyEncoder(weights, "actor", team)
        self._when = weights.raw["actor.when"] if team.history_steps > 1 else None
        self.heads = [_Head(weights, kind, team, self._encoder.gain) for kind in team.types]

    def start(self, observation: np.ndarray) -> _Apart:
        if self._when is None:
            return _Apart(self._encoder(observation))
        return _Apart(self._encoder.over_own_past(observation, self._when))


class _NumpyMappo(_NumpyParallel):
    def __init__(self, weights: Weights, team: TeamShape) -> None:
        self._who, self._type_at = weights.raw["who"], team.type_at
        self._layers: list[list[Affine]] = []
        self.heads = []
        for kind in team.types:
            layers = [weights.linear(f"actors.{kind}.layers.{b}") for b in range(team.blocks + 1)]
            gains = [weights.gain(f"actors.{kind}.norms.{b}") for b in range(team.blocks + 1)]
            self._layers.append([Affine(layers[0]), *(Affine(gain.then(layer)) for gain, layer
                                                      in zip(gains, layers[1:], strict=False))])
            self.heads.append(_Head(weights, kind, team, gains[-1]))

    def start(self, observation: np.ndarray) -> _Apart:
        rows = []
        for i, kind in enumerate(self._type_at):
            first, *others = self._layers[kind]
            x = normal(silu(first(observation[i, :len(first.weight)]) + self._who[i]))
            for layer in others:
                x = normal(silu(layer(x)))
            rows.append(x)
        return _Apart(rows)


class _DecoderStep:
    """A block of MAT's decoder, one position at a time: attention over the actions so far, then over them again with
    the deciding agent's token as query. `stream` maps the rows that it takes to tokens, `gain` those that it gives."""

    def __init__(self, weights: Weights, name: str, stream: Gain) -> None:
        self.own = NumpyAttention(weights, f"{name}.own", stream)
        key, value = np.split(self.own.gain.then(weights.linear(f"{name}.key_value")), 2, axis=1)
        query, out = weights.linear(f"{name}.query"), weights.linear(f"{name}.out")
        self.reading = reading = KeyedReading(query, key, value, out, weights.heads)
        self.held = Affine(reading.key, reading.value)
        self._feed = NumpyFeed(weights, f"{name}.feed", weights.gain(f"{name}.norm"))
        self.gain = self._feed.gain

    def before(self) -> np.ndarray:
        """Map from the token of a deciding agent to its query and what is added to what that reads, side by side."""
        width = self.reading.width
        return np.hstack((self.reading.query, _unchanged(width).centred(self.reading.constant)))

    def __call__(self, token: np.ndarray, held: np.ndarray) -> np.ndarray:
        """(E,), given what `before` makes of a token, and keys and values of the positions so far."""
        width = self.reading.width
        return self._feed(spread(token[width:] + self.reading.one(token[:width], held)))


def _unchanged(width: int) -> Gain:
    return Gain(np.ones(width), np.zeros(width))


@dataclass
class _Stream:
    """Where a decision of `mat` is.

    tokens  (n, blocks, 2 E) of the agents, see `_DecoderStep.before`
    own, cross  per block (n, 2 E), keys and values of the agents that have decided, by their number
    last    (E,) the last action shown, of mean 0 and variance 1; not used before the first
    """

    tokens: np.ndarray
    own: list[np.ndarray]
    cross: list[np.ndarray]
    last: np.ndarray


class _NumpyMat(NumpyNetwork):
    def __init__(self, weights: Weights, team: TeamShape) -> None:
        self._encoder, stream = _NumpyEncoder(weights, "encoder", team), weights.gain("token_norm")
        self._blocks: list[_DecoderStep] = []
        for b in range(team.blocks):
            self._blocks.append(_DecoderStep(weights, f"blocks.{b}", stream))
            stream = self._blocks[-1].gain
        before = np.hstack([block.before() for block in self._blocks])
        self._before, self._told = Affine(self._encoder.gain.then(before)), []
        for kind, agents in team.members(team.leaders):
            if (told := weights.told(kind)) is not None:
                self._told.append((agents, Affine(product(told, before[:-1]))))
        self._heads = [_Head(weights, kind, team, stream) for kind in team.types]
        self._shown = [weights.linear(f"shown.{kind}").astype(np.float32) for kind in team.types]
        self._who = weights.raw["who"] + np.array([self._shown[kind][-1] for kind in team.type_at])
        self._begin(weights, len(team.type_at))

    def _begin(self, weights: Weights, agents: int) -> None:
        """Keys and values at the start of a decision: those of the first agent depend on weights alone."""
        width = self._who.shape[1]
        self._own, self._cross = ([np.zeros((agents, 2 * width), np.float32) for _ in self._blocks] for _ in range(2))
        first = NumpyAttention(weights, "blocks.0.own", _unchanged(width))
        self._cross[0][0] = self._blocks[0].held(first.step(weights.raw["begin"][0], self._own[0], 0))

    def start(self, observation: np.ndarray) -> _Stream:
        tokens = self._before(self._encoder(observation)).reshape(len(observation), len(self._blocks), -1)
        return _Stream(tokens, [x.copy() for x in self._own], [x.copy() for x in self._cross], self._who[0])

    def inform(self, state: _Stream, context: np.ndarray) -> None:
        for agents, told in self._told:
            state.tokens[agents] += told(context[agents, :len(told.weight)]).reshape(-1, *state.tokens.shape[1:])

    def logits(self, state: _Stream, i: int, kind: int) -> np.ndarray:
        x = state.last
        for b, block in enumerate(self._blocks):
            if i or b:  # else they are there from the beginning
                state.cross[b][i] = block.held(block.own.step(x, state.own[b], i))
            x = block(state.tokens[i, b], state.cross[b][:i + 1])
        return self._heads[kind](x)

    def show(self, state: _Stream, i: int, kind: int, unit: np.ndarray) -> None:
        if i + 1 < len(self._who):  # somebody is left to see it
            state.last = normal(silu(product(unit, self._shown[kind][:-1]) + self._who[i]))


NETWORKS: dict[str, type[NumpyNetwork]] = {"mat": _NumpyMat, "mat-dec": _NumpyMatDec,
                                           "transformer": _NumpyTransformer, "mappo": _NumpyMappo}
