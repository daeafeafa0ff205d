"""A trained team that only acts: its checkpoint, the modes of its distributions, numpy and nothing else.

On one decision torch is mostly dispatch: this takes a fraction of its time, and a scenario runs a learned policy where
torch is not installed. It is the same network as `cosim.agents.learn.networks`, which stays the reference (a test
compares them).
The same observation gives the same action whatever the processor: see `cosim.agents.learn.numpy_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosim.agents.learn import checkpoint
from cosim.agents.learn.action_maps import LOGIT_MAX, ActionTables
from cosim.agents.learn.config import Learning
from cosim.agents.learn.numpy_layers import Weights, exponential, product
from cosim.agents.learn.numpy_networks import NETWORKS, TeamShape
from cosim.agents.learn.spec import AgentType, Choice, Simplex, TeamSpec, smooth, spec_from_dict, width
from cosim.agents.learn.weight_shapes import LEARNERS, acting_shapes
from cosim.errors import ScenarioError
from cosim.params import validate

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
            types = [self.spec.types[name] for name in kinds]
            choices = [p for k in types for p in k.action if isinstance(p, Choice)]
            if config.simplex != "gaussian" or choices:
                raise ScenarioError(f"checkpoint '{path}' draws choices or Dirichlet shares, which need torch: --set "
                                    "controller.explore=true")
            self.type_at, self.maps = [kinds.index(kind) for _, kind in self.spec.agents], [_Map(k) for k in types]
            self.weights = {n.removeprefix(_NETWORK): x for n, x in arrays.items() if n.startswith(_NETWORK)}
            checkpoint.check_weights(path, self.weights, acting_shapes(self.spec, config), LEARNERS)
            shape = TeamShape(self.type_at, self.spec.leaders, [m.logits for m in self.maps], config.blocks,
                              config.history_steps)
            self.network = NETWORKS[self.method](Weights(self.weights, config.heads), shape)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise ScenarioError(f"checkpoint '{path}' does not fit this version: {err}") from None
        self.low, self.span = (self._per_agent([getattr(m, name) for m in self.maps]) for name in ("low", "span"))

    def begin(self, observation: np.ndarray, deterministic: bool = True) -> _ActingDecision:
        """Begin a decision on observations (1, n, O): then `lead`, then `follow`."""
        if not deterministic or len(observation) != 1:
            raise ScenarioError("a team that only acts takes one observation and its modes; "
                                "use cosim.agents.learn.team.Team")
        return _ActingDecision(self, observation[0])

    def frozen(self, i: int) -> np.ndarray | None:
        """Constant unit action of a leader that does not learn; None: it decides."""
        weights = self._config.frozen_leaders
        if weights is None or i >= self.spec.leaders:
            return None
        return self.maps[self.type_at[i]].constant(np.asarray(weights, np.float32))

    def _per_agent(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """(n, A) of rows by type, padded with zeros."""
        out = np.zeros((len(self.type_at), self.spec.widths[2]), np.float32)
        for i, kind in enumerate(self.type_at):
            out[i, :len(rows[kind])] = rows[kind]
        return out


class _ActingDecision:
    """One joint action in the making, in the team's order."""

    def __init__(self, team: ActingTeam, observation: np.ndarray) -> None:
        self._team, self._state, self._observation = team, team.network.start(observation), observation
        self._unit = np.zeros_like(team.low)

    def lead(self) -> np.ndarray:
        """(1, leaders, A) the leaders' actions."""
        leaders = self._team.spec.leaders
        self._decide(range(leaders))
        return self._action(slice(0, leaders))

    def follow(self, context: np.ndarray) -> NumpyAction:
        """All actions, given the followers' context (1, n, C)."""
        self._team.network.inform(self._state, context[0])
        self._decide(range(self._team.spec.leaders, len(self._unit)))
        return NumpyAction(self._action(slice(None)))

    def _decide(self, agents: range) -> None:
        team, net = self._team, self._team.network
        for i in agents:
            kind = team.type_at[i]
            logits, unit = net.logits(self._state, i, kind), team.frozen(i)
            if unit is None:
                unit = team.maps[kind].unit(logits, self._observation[i])
            self._unit[i, :len(unit)] = unit
            net.show(self._state, i, kind, unit)

    def _action(self, agents: slice) -> np.ndarray:
        """(1, agents, A) in the parts' units."""
        team = self._team
        return (team.low[agents] + self._unit[agents] * team.span[agents])[None]


class _Map:
    """From the Gaussians' means of a type to what others see and to what is executed.

    logits  (Gaussians, A) matrix from the means to logits, one per number of an action
    """

    def __init__(self, kind: AgentType) -> None:
        self.kind = kind
        tables = ActionTables(kind.action_width, kind.observation)
        for part in smooth(kind.action):
            tables.add(part, dirichlet=False)
        self.logits = basis = np.reshape(tables.rows, (len(tables.rows), kind.action_width))
        self._within, self._extra, self._free, self.low, self.span = (
            x.astype(np.float32) for x in (tables.within, tables.extra, tables.free, tables.low, tables.span))
        self._start = product(np.array(tables.start), basis).astype(np.float32)
        self._around = None if tables.around is None else product(tables.around, basis).astype(np.float32)
        self._edge = tables.edge.astype(np.float32) if tables.edge.any() else None
        self._members, self._single = tables.members.astype(np.float32), (tables.count == 0).astype(np.float32)

    def unit(self, logits: np.ndarray, observation: np.ndarray | None = None) -> np.ndarray:
        """(A,) shares and positions in intervals, 0..1; the logits are moved to where the scaled observation points,
        see `cosim.agents.learn.spec.Simplex.around`."""
        if self._around is not None and observation is not None:
            logits = logits + product(observation[:len(self._around)], self._around)
        e = exponential(logits.clip(-LOGIT_MAX, LOGIT_MAX))
        e *= self._free
        unit = e / (product(e, self._within) + self._extra)
        if self._edge is not None:
            unit = np.maximum(unit - self._edge, 0.0)
            unit /= product(unit, self._members) + self._single
        return unit

    def constant(self, weights: np.ndarray) -> np.ndarray:
        """(A,) every simplex at `weights` over what is eligible, all else at its start."""
        unit, at = self.unit(self._start), 0
        for part in self.kind.action:
            if isinstance(part, Simplex):
                mine = np.maximum(weights, 1e-9) * self._free[at:at + part.size]
                unit[at:at + part.size] = mine / mine.sum()
            at += width(part)
        return unit
