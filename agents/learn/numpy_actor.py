"""A trained team that only acts: its checkpoint, the modes of its distributions, numpy and nothing else.

On one decision torch is mostly dispatch: this takes a fraction of its time, and a scenario runs a learned policy where
torch is not installed. It is the same network as `cosim.agents.learn.networks`, which stays the reference (a test
compares them).
No product here goes through a BLAS library, whose kernels for one processor and another differ in the last bits, which
may send a job elsewhere: the same observation gives the same action whatever the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.learn import checkpoint
from cosim.agents.learn.action_maps import LOGIT_MAX, ActionTables
from cosim.agents.learn.config import Learning
from cosim.agents.learn.spec import AgentType, Choice, Simplex, TeamSpec, smooth, spec_from_dict, width
from cosim.agents.learn.weight_shapes import LEARNERS, acting_shapes
from cosim.errors import ScenarioError
from cosim.params import validate

_EPS = np.float32(1e-5)
_NETWORK = "network/"


@dataclass(frozen=True)
class NumpyAction:
    """A joint action (1, n, A), rows padded with zeros."""

    action: np.ndarray


class ActingTeam:
    """The team of a checkpoint; `begin` as that of `cosim.agents.learn.team.Team`, for one environment.

    ScenarioError for a file that is none, and for a team with choices or Dirichlet shares, which only torch runs.
    """

    def __init__(self, path: str | Path) -> None:
        arrays, facts = checkpoint.read(path)
        try:
            self.spec: TeamSpec = spec_from_dict(facts["spec"])
            self._config = config = validate(Learning, facts["config"], "learn")
            self.method, self.history_steps = config.method, config.history_steps
            kinds = list(dict.fromkeys(kind for _, kind in self.spec.agents))
            self._types = [self.spec.types[name] for name in kinds]
            self._type_at = [kinds.index(kind) for _, kind in self.spec.agents]
            choices = [p for k in self._types for p in k.action if isinstance(p, Choice)]
            if config.simplex != "gaussian" or choices:
                raise ScenarioError(f"checkpoint '{path}' draws choices or Dirichlet shares, which need torch: --set "
                                    "controller.explore=true")
            self._maps, self.action_width = [_Map(kind) for kind in self._types], self.spec.widths[2]
            weights = {n.removeprefix(_NETWORK): x for n, x in arrays.items() if n.startswith(_NETWORK)}
            checkpoint.check_weights(path, weights, acting_shapes(self.spec, config), LEARNERS)
            self._net = _NETS[self.method](_Layers(weights, config.heads), self, config.blocks)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise ScenarioError(f"checkpoint '{path}' does not fit this version: {err}") from None

    def begin(self, observation: np.ndarray, deterministic: bool = True) -> _ActingDecision:
        """Begin a decision on observations (1, n, O): then `lead`, then `follow`."""
        if not deterministic or len(observation) != 1:
            raise ScenarioError("a team that only acts takes one observation and its modes; "
                                "use cosim.agents.learn.team.Team")
        return _ActingDecision(self, observation[0])

    def seen(self, observation: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(type, its columns) of every agent."""
        for i, kind in enumerate(self._type_at):
            yield kind, observation[i, :len(self._types[kind].observation)]

    def frozen(self, i: int) -> np.ndarray | None:
        """Constant unit action of a leader that does not learn; None: it decides."""
        weights = self._config.frozen_leaders
        if weights is None or i >= self.spec.leaders:
            return None
        return self._maps[self._type_at[i]].constant(np.asarray(weights, np.float32))


class _ActingDecision:
    """One joint action in the making, in the team's order."""

    def __init__(self, team: ActingTeam, observation: np.ndarray) -> None:
        self._team, self._net = team, team._net
        self._state, self._observation = self._net.start(observation), observation
        self._action = np.zeros((len(team.spec.agents), team.action_width), np.float32)

    def lead(self) -> np.ndarray:
        """(1, leaders, A) the leaders' actions."""
        leaders = self._team.spec.leaders
        self._decide(range(leaders), None)
        return self._action[None, :leaders]

    def follow(self, context: np.ndarray) -> NumpyAction:
        """All actions, given the followers' context (1, n, C)."""
        self._decide(range(self._team.spec.leaders, len(self._action)), context[0])
        return NumpyAction(self._action[None])

    def _decide(self, agents: range, context: np.ndarray | None) -> None:
        team = self._team
        for i in agents:
            kind = team._type_at[i]
            unit = team.frozen(i)
            params = self._net.params(self._state, i, kind, None if context is None else context[i])
            params = team._maps[kind].placed(params, self._observation[i])
            unit = team._maps[kind].unit(params) if unit is None else unit
            mine = team._maps[kind].action(unit)
            self._action[i, :len(mine)] = mine
            self._net.show(self._state, i, kind, unit)


class _Map:
    """From the Gaussians' means of a type to what others see and to what is executed."""

    def __init__(self, kind: AgentType) -> None:
        self.kind = kind
        tables = ActionTables(kind.action_width, kind.observation)
        for part in smooth(kind.action):
            tables.add(part, dirichlet=False)
        self._basis = np.reshape(tables.rows, (len(tables.rows), kind.action_width)).astype(np.float32)
        self._within, self._extra, self._free, self._low, self._span = (
            x.astype(np.float32) for x in (tables.within, tables.extra, tables.free, tables.low, tables.span))
        self._start = np.asarray(tables.start, np.float32)
        self._around = None if tables.around is None else tables.around.astype(np.float32)
        self._edge = tables.edge.astype(np.float32) if tables.edge.any() else None
        self._members, self._single = tables.members.astype(np.float32), (tables.count == 0).astype(np.float32)

    def placed(self, means: np.ndarray, observation: np.ndarray) -> np.ndarray:
        """Means moved to where the scaled observation points, see `cosim.agents.learn.spec.Simplex.around`."""
        return means if self._around is None else means + product(observation[:len(self._around)], self._around)

    def unit(self, means: np.ndarray) -> np.ndarray:
        """(A,) shares and positions in intervals, 0..1."""
        logits = product(means[:len(self._basis)], self._basis)
        e = exponential(np.clip(logits, -LOGIT_MAX, LOGIT_MAX)) * self._free
        unit = e / (product(e, self._within) + self._extra)
        if self._edge is not None:
            unit = np.maximum(unit - self._edge, 0.0)
            unit /= product(unit, self._members) + self._single
        return unit

    def action(self, unit: np.ndarray) -> np.ndarray:
        """(A,) in the parts' units."""
        return self._low + unit * self._span

    def constant(self, weights: np.ndarray) -> np.ndarray:
        """(A,) every simplex at `weights` over what is eligible, all else at its start."""
        unit, at = self.unit(self._start), 0
        for part in self.kind.action:
            if isinstance(part, Simplex):
                mine = np.maximum(weights, 1e-9) * self._free[at:at + part.size]
                unit[at:at + part.size] = mine / mine.sum()
            at += width(part)
        return unit


class _Layers:
    """The layers of `cosim.agents.learn.networks.blocks`, by the names of their weights; rows (m, E) or (E,)."""

    def __init__(self, weights: Mapping[str, np.ndarray], heads: int) -> None:
        w = {name: np.ascontiguousarray(x.T) if x.ndim == 2 else x for name, x in weights.items()}
        self._layers = {name.removesuffix(".weight"): (x, w[f"{name.removesuffix('.weight')}.bias"])
                        for name, x in w.items() if name.endswith(".weight")}
        self.raw, self.heads = weights, heads

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        weight, bias = self._layers[name]
        out = product(x, weight)
        out += bias
        return out

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        weight, bias = self._layers[name]
        part = np.float32(1.0 / len(weight))
        out = x - np.add.reduce(x, -1, keepdims=True) * part  # a third of the time of x.mean()
        out /= np.sqrt(np.add.reduce(out * out, -1, keepdims=True) * part + _EPS)
        out *= weight
        out += bias
        return out

    def attend(self, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        """(q, E): what queries (q, E) read from keys and values (m, E)."""
        if len(key) == 1:
            return value[[0] * len(query)]  # all of the weight is on it
        q, k, v = (x.reshape(len(x), self.heads, -1) for x in (query, key, value))
        scores = np.einsum("qhd,mhd->hqm", q, k)
        scores *= np.float32(q.shape[-1] ** -0.5)
        scores -= np.maximum.reduce(scores, -1, keepdims=True)
        weight = exponential(scores)
        weight /= np.add.reduce(weight, -1, keepdims=True)
        return np.einsum("hqm,mhd->qhd", weight, v).reshape(len(query), -1)

    def feed(self, name: str, x: np.ndarray) -> np.ndarray:
        inner = self.linear(f"{name}.second", silu(self.linear(f"{name}.first", x)))
        return self.norm(f"{name}.norm", x + inner)

    def output(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.linear(f"{name}.last", self.norm(f"{name}.norm", silu(self.linear(f"{name}.first", x))))

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        """Unmasked, of all rows among themselves."""
        q, k, v = np.split(self.linear(f"{name}.qkv", x), 3, -1)
        return self.norm(f"{name}.norm", x + self.linear(f"{name}.out", self.attend(q, k, v)))

    def encoder(self, name: str, team: ActingTeam, observation: np.ndarray, blocks: int) -> np.ndarray:
        """(n, E) tokens."""
        x = np.stack([self.linear(f"{name}.embed.{kind}", row) for kind, row in team.seen(observation)])
        x = self.norm(f"{name}.norm", silu(x + self.raw[f"{name}.identity"]))
        for b in range(blocks):
            x = self.feed(f"{name}.blocks.{b}.1", self.attention(f"{name}.blocks.{b}.0", x))
        return x


    def own_history(self, name: str, team: ActingTeam, observation: np.ndarray, blocks: int) -> np.ndarray:
        """(n, E) tokens of agents that attend over their own past."""
        out = []
        for i, (kind, row) in enumerate(team.seen(observation)):
            x = self.linear(f"{name}.embed.{kind}", row.reshape(team.history_steps, -1))
            x = self.norm(f"{name}.norm", silu(x + self.raw[f"{name}.identity"][i] + self.raw[f"{name}.when"]))
            for b in range(blocks):
                x = self.feed(f"{name}.blocks.{b}.1", self.attention(f"{name}.blocks.{b}.0", x))
            out.append(x[0])
        return np.stack(out)


def product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x @ matrix, summed in the order of the matrix's rows by numpy's own loops."""
    return np.einsum("i,ij->j" if x.ndim == 1 else "mi,ij->mj", x, matrix)


def exponential(x: np.ndarray) -> np.ndarray:
    """exp(x) in float32, by way of float64: what processors differ by is then below the rounding."""
    return np.exp(x, dtype=np.float64).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    """x times its logistic function."""
    e = exponential(-x)
    e += 1.0
    return np.divide(x, e, out=e)


class _Net:
    """What the methods share."""

    def __init__(self, layers: _Layers, team: ActingTeam, blocks: int) -> None:
        self.layers, self.team, self.blocks = layers, team, blocks

    def start(self, observation: np.ndarray) -> Any:
        """What the agents' parameters are computed from."""
        raise ScenarioError("a method says how it starts")

    def params(self, state: Any, i: int, kind: int, context: np.ndarray | None) -> np.ndarray:
        """Means of agent i's Gaussians."""
        return self.layers.output(f"outs.{kind}", self.informed(state[i], kind, context))

    def informed(self, token: np.ndarray, kind: int, context: np.ndarray | None) -> np.ndarray:
        """A token with a follower's context added, where the team has a layer for it."""
        name = f"told.{kind}"
        if context is None or f"{name}.weight" not in self.layers.raw:
            return token
        return token + self.layers.linear(name, context[:self.layers.raw[f"{name}.weight"].shape[1]])

    def show(self, state: Any, i: int, kind: int, unit: np.ndarray) -> None:
        """Agent i has decided; only `mat` passes its action on to the others."""


class _NumpyMatDec(_Net):
    def start(self, observation: np.ndarray) -> Any:
        tokens = self.layers.encoder("encoder", self.team, observation, self.blocks)
        out = []
        for token, (kind, _) in zip(tokens, self.team.seen(observation), strict=True):
            for b in range(self.blocks):
                token = self.layers.feed(f"decoders.{kind}.{b}", token)
            out.append(token)
        return out


class _NumpyTransformer(_Net):
    def start(self, observation: np.ndarray) -> Any:
        if self.team.history_steps > 1:
            return self.layers.own_history("actor", self.team, observation, self.blocks)
        return self.layers.encoder("actor", self.team, observation, self.blocks)


class _NumpyMappo(_Net):
    def start(self, observation: np.ndarray) -> Any:
        out = []
        for i, (kind, x) in enumerate(self.team.seen(observation)):
            for j in range(self.blocks + 1):
                x = self.layers.linear(f"actors.{kind}.layers.{j}", x)
                x = self.layers.norm(f"actors.{kind}.norms.{j}", silu(x + self.layers.raw["who"][i] if j == 0 else x))
            out.append(x)
        return out


@dataclass
class _Stream:
    """Where a decision of `mat` is.

    tokens  (n, E) of the encoder
    last    the last action shown
    own, cross  per block (n, 2 E), keys and values of the agents that have decided, by their number
    """

    tokens: np.ndarray
    last: np.ndarray
    own: list[np.ndarray]
    cross: list[np.ndarray]


class _NumpyMat(_Net):
    def start(self, observation: np.ndarray) -> _Stream:
        tokens = self.layers.encoder("encoder", self.team, observation, self.blocks)
        own, cross = ([np.zeros((len(tokens), 2 * tokens.shape[1]), np.float32) for _ in range(self.blocks)]
                      for _ in range(2))
        return _Stream(tokens, self.layers.raw["begin"][0], own, cross)

    def params(self, state: _Stream, i: int, kind: int, context: np.ndarray | None) -> np.ndarray:
        layers, x = self.layers, state.last
        asked = self.informed(state.tokens[i], kind, context)
        for b in range(self.blocks):
            x = self._step(state, b, i, x, asked)
        return layers.output(f"outs.{kind}", x)

    def _step(self, state: _Stream, b: int, i: int, x: np.ndarray, asked: np.ndarray) -> np.ndarray:
        layers, name, e = self.layers, f"blocks.{b}", len(x)
        qkv = layers.linear(f"{name}.own.qkv", x)
        state.own[b][i] = qkv[e:]
        kv = state.own[b][:i + 1]
        read = layers.attend(qkv[None, :e], kv[:, :e], kv[:, e:])[0]
        mine = layers.norm(f"{name}.own.norm", x + layers.linear(f"{name}.own.out", read))
        state.cross[b][i] = layers.linear(f"{name}.key_value", mine)
        kv = state.cross[b][:i + 1]
        read = layers.attend(layers.linear(f"{name}.query", asked)[None], kv[:, :e], kv[:, e:])[0]
        return layers.feed(f"{name}.feed", layers.norm(f"{name}.norm", asked + layers.linear(f"{name}.out", read)))

    def show(self, state: _Stream, i: int, kind: int, unit: np.ndarray) -> None:
        if i + 1 == len(state.tokens):
            return  # nobody is left to see it
        shown = self.layers.linear(f"shown.{kind}", unit) + self.layers.raw["who"][i]
        state.last = self.layers.norm("token_norm", silu(shown))


_NETS: dict[str, type[_Net]] = {"mat": _NumpyMat, "mat-dec": _NumpyMatDec, "transformer": _NumpyTransformer,
                                "mappo": _NumpyMappo}
