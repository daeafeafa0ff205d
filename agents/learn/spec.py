"""Observations and actions of a team of agents, as data: the contract between environments and learners.

Everything that learns is written against `TeamSpec` and `VectorEnv`; nothing here depends on data centers, the bus or
torch. Axes: B environments side by side, n agents (leaders first), O, C and A the widest observation, context and
action of the team; rows of narrower agents are padded with zeros at the end and the padding means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from cosim.errors import ScenarioError


@dataclass(frozen=True)
class Column:
    """One number of an agent's observation, and the fixed range that scales it.

    linear: low..high becomes -1..1; log: 0..high becomes -1..1 by log(1 + x/unit), for counts and backlogs that span
    decades; raw: as it is. What lies outside is clipped (not with raw).
    """

    name: str
    low: float = -1.0
    high: float = 1.0
    scale: Literal["linear", "log", "raw"] = "linear"
    unit: float = 1.0


@dataclass(frozen=True)
class Simplex:
    """Shares >= 0 that sum to 1 over the eligible ones of `size`; ineligible ones are 0.

    start: what a fresh policy's mean is, positive where eligible; None: equal shares.
    around: names of the observation's columns that hold the logarithms of shares; a policy's own logits are added to
    them, so that a fresh one takes these actions, and `start` only counts where that cannot be (Dirichlet). None: none
    edge: the softmax's shares below it become 0, and the rest, each less it, is scaled to sum to 1: shares of 0 and 1
    are then decided by more than a limit. `around` has logarithms of shares before that, see `before_edge`.
    """

    name: str
    size: int
    eligible: tuple[bool, ...] | None = None
    start: tuple[float, ...] | None = None
    around: tuple[str, ...] | None = None
    edge: float = 0.0


@dataclass(frozen=True)
class Interval:
    """One number in [low, high]. start: a fresh policy's mean, None: the middle. around: as of `Simplex`, the name of a
    column with the logit of a position in the interval."""

    name: str
    low: float
    high: float
    start: float | None = None
    around: str | None = None


@dataclass(frozen=True)
class Choice:
    """One of `size` alternatives, as its index (a float in action arrays)."""

    name: str
    size: int


Part = Simplex | Interval | Choice


BELOW = 0.4
"""How far below its edge, as a part of it, a share of 0 is taken to stand: at the edge itself, rounding and the
smallest noise would make it more than nothing."""


def before_edge(shares: Any, count: Any, edge: Any, zeros: Any = 0) -> Any:
    """Shares over `count` eligible ones, `zeros` of them 0, from which a `Simplex` of this edge makes these: arrays or
    numbers, which sum to 1 as well."""
    return shares * (1.0 - (count - BELOW * zeros) * edge) + edge - (shares == 0.0) * BELOW * edge


def width(part: Part) -> int:
    """How many numbers of an action array the part takes."""
    return part.size if isinstance(part, Simplex) else 1


@dataclass(frozen=True)
class AgentType:
    """Agents of one type share networks' heads, encoders of actions and exploration.

    observation: columns before any agent acts; context: its further inputs once the leaders have acted (empty:
    nothing)
    """

    name: str
    observation: tuple[Column, ...]
    action: tuple[Part, ...]
    context: tuple[Column, ...] = ()

    @property
    def action_width(self) -> int:
        """Numbers in one action."""
        return sum(map(width, self.action))


@dataclass(frozen=True)
class TeamSpec:
    """Who is in the team. The first `leaders` agents always decide first, in this order; the others in any order.

    agents: (name, type name); types by name. ScenarioError for an empty team or an unknown type.
    """

    agents: tuple[tuple[str, str], ...]
    types: Mapping[str, AgentType] = field(default_factory=dict)
    leaders: int = 0

    def __post_init__(self) -> None:
        missing = sorted({kind for _, kind in self.agents} - set(self.types))
        if not self.agents:
            raise ScenarioError("a team needs at least one agent")
        if missing:
            raise ScenarioError(f"agents of unknown type {', '.join(missing)}; types are {', '.join(self.types)}")
        if not 0 <= self.leaders <= len(self.agents):
            raise ScenarioError(f"leaders = {self.leaders} must lie in 0..{len(self.agents)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Agents, leaders first."""
        return tuple(name for name, _ in self.agents)

    def type_of(self, index: int) -> AgentType:
        """Type of the agent at `index`."""
        return self.types[self.agents[index][1]]

    @property
    def widths(self) -> tuple[int, int, int]:
        """(O, C, A): widest observation, context and action."""
        kinds = [self.types[kind] for _, kind in self.agents]
        return (max(len(k.observation) for k in kinds), max(len(k.context) for k in kinds),
                max(k.action_width for k in kinds))


MOST_SHARES = 4096
"""Numbers in one agent's action; tables of their square are kept."""


def spec_to_dict(spec: TeamSpec) -> dict[str, Any]:
    """As plain JSON data; `spec_from_dict` reads it back."""
    types = {name: {"observation": [asdict(c) for c in kind.observation],
                    "context": [asdict(c) for c in kind.context],
                    "action": [{"part": type(p).__name__, **asdict(p)} for p in kind.action]}
             for name, kind in spec.types.items()}
    return {"agents": [list(a) for a in spec.agents], "leaders": spec.leaders, "types": types}


def spec_from_dict(data: Mapping[str, Any]) -> TeamSpec:
    """From `spec_to_dict`, also after a trip through JSON. KeyError or TypeError where it is none; ScenarioError for
    one that is too large."""
    types = {name: AgentType(name, tuple(Column(**c) for c in kind["observation"]),
                             tuple(_part(dict(p)) for p in kind["action"]), tuple(Column(**c) for c in kind["context"]))
             for name, kind in data["types"].items()}
    if wide := [name for name, kind in types.items() if kind.action_width > MOST_SHARES]:
        raise ScenarioError(f"agents of type '{wide[0]}' decide {types[wide[0]].action_width} numbers, at most "
                            f"{MOST_SHARES} are supported")
    return TeamSpec(tuple((name, kind) for name, kind in data["agents"]), types, data["leaders"])


def _part(data: dict[str, Any]) -> Part:
    """A part from its name and fields; lists become tuples again."""
    kind = {"Simplex": Simplex, "Interval": Interval, "Choice": Choice}[data.pop("part")]
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def smooth(parts: Sequence[Part]) -> list[Simplex | Interval]:
    """Parts that are numbers, of a type that has no choices. ScenarioError for one that has."""
    found = [part for part in parts if not isinstance(part, Choice)]
    if len(found) < len(parts):
        raise ScenarioError("choices are decided by torch's networks alone")
    return found


def scaled(values: Sequence[float] | np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """(..., len(columns)) raw values as float32 within -1..1 (not where a column is raw)."""
    x = np.asarray(values, np.float64)
    out = np.empty(x.shape, np.float32)
    for k, c in enumerate(columns):
        v = x[..., k]
        if c.scale == "linear":
            v = np.clip(2.0 * (v - c.low) / (c.high - c.low) - 1.0, -1.0, 1.0)
        elif c.scale == "log":
            v = np.clip(2.0 * np.log1p(np.maximum(v, 0.0) / c.unit) / np.log1p(c.high / c.unit) - 1.0, -1.0, 1.0)
        out[..., k] = v
    return out


@dataclass(frozen=True)
class Outcome:
    """What one step of B environments gave.

    observation (B, n, O) scaled, of the next step (after an automatic reset where an episode ended);
    reward (B,), shared by the team; terms: name -> (B,) the parts of the reward, unweighted, and figures to log;
    terminated, truncated (B,): episodes that ended for good, or by the clock;
    final_observation (B, n, O): as `observation`, but before the reset, for the value of a truncated episode;
    credit (B, n): the part of the reward that comes about where an agent acts, all of it for an agent that acts
    everywhere; None: unknown, everyone is credited with all;
    by_term (B, 1 + n, K): the reward, then the credits (the reward where there are none), as sums of the environment's
    `credit_terms`; None: not known
    """

    observation: np.ndarray
    reward: np.ndarray
    terms: Mapping[str, np.ndarray]
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: np.ndarray
    credit: np.ndarray | None = None
    by_term: np.ndarray | None = None


class Stepped(Protocol):
    """The fields of `Outcome`, as a protocol for any class."""

    @property
    def observation(self) -> np.ndarray: ...

    @property
    def reward(self) -> np.ndarray: ...

    @property
    def terms(self) -> Mapping[str, np.ndarray]: ...

    @property
    def terminated(self) -> np.ndarray: ...

    @property
    def truncated(self) -> np.ndarray: ...

    @property
    def final_observation(self) -> np.ndarray: ...

    @property
    def credit(self) -> np.ndarray | None: ...

    @property
    def by_term(self) -> np.ndarray | None: ...


class VectorEnv(Protocol):
    """B environments that step together. All arrays are float32 unless noted."""

    spec: TeamSpec
    n_envs: int
    twins: int
    """So many environments in a row meet the same outside world at the same moments; 1: each has its own."""

    def reset(self) -> np.ndarray:
        """(B, n, O) first observations."""
        ...

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C) scaled context of every agent, given the leaders' actions (B, leaders, A) of this step; changes
        nothing. Rows of the leaders are zeros; with C = 0 the array has no columns."""
        ...

    def step(self, action: np.ndarray) -> Stepped:
        """Execute the joint action (B, n, A), in the units of the specs' parts."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on from here in another process, as plain arrays."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from `state()`; the observations (B, n, O) of that moment, bit for bit."""
        ...

    def close(self) -> None:
        """End worker processes."""
        ...


def credit_terms(env: VectorEnv) -> tuple[str, ...]:
    """Names of the terms by which an environment's outcomes are split, its `credit_terms`; () where it has none."""
    return tuple(getattr(env, "credit_terms", ()))


@runtime_checkable
class TaughtEnv(Protocol):
    """A VectorEnv with a teacher: a policy that decides in each of its environments."""

    def lesson_lead(self) -> np.ndarray:
        """(B, leaders, A) the leaders' actions that the teacher chooses in this step."""
        ...

    def lesson(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, A) the joint actions that the teacher chooses, given the leaders' of this step."""
        ...
