"""A trained team as a policy of the controller: a checkpoint, by its path or by the name of one that ships."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.fleet.actions import BY_KIND, decision_of
from cosim.agents.fleet.base import BaseRule, rule_in
from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Operation
from cosim.agents.fleet.observation_row import FORECASTS, RELATIVE, USUAL_SHARE, ObservationScope, forecast_entries
from cosim.agents.fleet.team_arrays import MANAGER, TeamArrays
from cosim.agents.learn import checkpoint
from cosim.agents.learn.config import Learning
from cosim.agents.learn.history import Window, without_history
from cosim.agents.learn.numpy_actor import ActingTeam
from cosim.agents.learn.spec import AgentType, Choice, Interval, Simplex, TeamSpec, spec_from_dict
from cosim.errors import ScenarioError
from cosim.limits import is_file
from cosim.params import validate

_NCI, _MCI, _FULL = "nci_kg_per_kwh ", "mci_kg_per_kwh ", "site_carry "
"""Columns of the manager by which a spec states what its team observes."""


class LearnedPolicy:
    """Decides with the modes of a trained team's distributions.

    explorer: the checkpoint's `cosim.agents.learn.team.Team`, to draw actions as in training instead (that needs
    torch). rule: makes a rule by its name, for a team that decides around one's decisions.

    ScenarioError when the checkpoint's team has other sites, classes, release times or temperatures, or was trained in
    the other mode: the message names the difference.
    """

    needs_nci = False

    def __init__(self, path: str | Path, facts: FleetFacts, sees_nci: bool, explorer: Any = None,
                 rule: Callable[[str], BaseRule] | None = None) -> None:
        self._facts, self._team = facts, explorer or _team_of(path)
        self._deterministic = explorer is None
        trained = without_history(self._team.spec, self._team.history_steps)
        _check_fit(path, trained, facts, sees_nci)
        sight = _sight(trained, facts)
        self._view = TeamArrays(facts, sight, {}, trained)
        if sight.base_policy and rule is None:
            raise ScenarioError(f"checkpoint {path} decides around {sight.base_policy}, and cannot without it")
        self._base = rule(sight.base_policy) if rule and sight.base_policy else None
        self._past = Window(trained, self._team.history_steps, 1) if self._team.history_steps > 1 else None
        self._begun = False
        self.about = f"{self._team.method} from {Path(path).name} (sha256 {_digest(path)})"
        self._decoding: Any = None

    def place(self, observation: Observation) -> Matrix:
        """(M, N) the manager's shares."""
        shown = self._base.shown(observation) if self._base else observation
        self._decoding = self._team.begin(self._seen(self._view.observe(shown)[None]),
                                          deterministic=self._deterministic)
        row = self._decoding.lead()[0, 0].tolist()
        n = self._facts.n_sites
        return [row[m * n:(m + 1) * n] for m in range(len(self._facts.kinds))]

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """The sites' actions, given what the manager sent them."""
        if self._decoding is None:
            raise ScenarioError("operate() follows place() of the same minute")
        step = self._decoding.follow(self._view.context(allocated_jobs, allocated_work_to)[None])
        self._decoding = None
        return decision_of(self._facts, step.action[0].tolist()).operation

    def _seen(self, present: np.ndarray) -> np.ndarray:
        """(1, n, O) what the team observes: the present, and its past where it has one."""
        past = self._past
        if past is None:
            return present
        if self._begun:
            past.held = past.pushed(present)
        else:
            past.fill(present)
            self._begun = True
        return past.rows()


def check_checkpoint(path: str | Path, facts: FleetFacts, sees_nci: bool, explores: bool) -> str:
    """The rule around which the team of a checkpoint decides, '' if there is none. ScenarioError for one of which no
    `LearnedPolicy` can be made, without making one; the weights of one that explores are left to torch, which alone can
    run them."""
    if explores:
        trained = trained_spec(path)
    else:
        team = _team_of(path)
        trained = without_history(team.spec, team.history_steps)
    _check_fit(path, trained, facts, sees_nci)
    return _sight(trained, facts).base_policy


def _check_fit(path: str | Path, trained: TeamSpec, facts: FleetFacts, sees_nci: bool) -> None:
    """Raises ScenarioError, naming the difference, for a trained team that does not fit this fleet and mode."""
    sight = _sight(trained, facts)
    if sight.forecasts:
        _check_forecasts(path, sight.forecasts, facts)
    found = differences(trained, TeamArrays(facts, sight, {}).spec)
    if sight.nci != sees_nci:
        found.insert(0, "it was trained in {} mode, this is {} mode (controller.mode)".format(
            *(("joint", "power") if sight.nci else ("power", "joint"))))
    by_kind = any(part.name == BY_KIND for kind in trained.types.values() for part in kind.action)
    if by_kind != (facts.gpu_shares == "kinds"):
        there = "kinds" if by_kind else "classes or pooled"
        found.insert(0, f"it was trained with controller.gpu_shares = {there}, here it is {facts.gpu_shares}")
    if found:
        raise ScenarioError(f"checkpoint {path} does not fit this scenario: {'; '.join(found)}. Train one with "
                            "cosim train, or choose another controller.policy")


def _check_forecasts(path: str | Path, forecasts: Sequence[str], facts: FleetFacts) -> None:
    try:
        forecast_entries(facts)
    except ScenarioError as err:
        raise ScenarioError(f"checkpoint {path} observes forecasts of {', '.join(forecasts)}: {err}") from None


def differences(trained: TeamSpec, ours: TeamSpec) -> list[str]:
    """In what a trained team's spec is not the scenario's, a phrase each; [] when it fits. Ranges may differ."""
    theirs, here = trained.names, ours.names
    if theirs != here:
        return [f"it has the agents {', '.join(theirs)}, here are {', '.join(here)}"]
    if (trained.leaders, [kind for _, kind in trained.agents]) != (ours.leaders, [kind for _, kind in ours.agents]):
        return ["its agents have other types"]
    return [phrase for name in ours.types for phrase in _of_type(trained.types[name], ours.types[name])]


def _sight(trained: TeamSpec, facts: FleetFacts) -> ObservationScope:
    """What the team was shown, by the names of its manager's columns."""
    shown = [c.name for c in trained.types[MANAGER].observation] if MANAGER in trained.types else []

    def sees(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in shown)

    forecasts = [name for name, column in FORECASTS.items() if sees(f"{column} ")]
    edges = [part.edge for kind in trained.types.values() for part in kind.action if isinstance(part, Simplex)]
    return ObservationScope(facts.classes, facts.sites, 1.0, {}, sees(_NCI), sees(_MCI), sees(_FULL), forecasts,
                            sees(RELATIVE), sees(USUAL_SHARE), rule_in(shown), max(edges, default=0.0))


def trained_spec(path: str | Path) -> TeamSpec:
    """Specification of a checkpoint's team, of the present step; no weight is read."""
    _, about = checkpoint.read(path, prefix="none of the arrays/")
    try:
        steps = validate(Learning, about["config"], "learn").history_steps
        return without_history(spec_from_dict(about["spec"]), steps)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise ScenarioError(f"checkpoint '{path}' does not fit this version: {err}") from None


def _team_of(path: str | Path) -> ActingTeam:
    """The team of a checkpoint, read once for as long as its file stays as it is: checked first, then run."""
    if not is_file(path):
        raise ScenarioError(f"there is no checkpoint '{path}'")
    now = Path(path).stat()
    return _read_team(str(path), (now.st_mtime_ns, now.st_size, now.st_ino))


@lru_cache(maxsize=2)
def _read_team(path: str, stamp: tuple[int, ...]) -> ActingTeam:
    return ActingTeam(path)


def _of_type(theirs: AgentType, ours: AgentType) -> list[str]:
    out = []
    for what, a, b in (("sees", theirs.observation, ours.observation), ("is told", theirs.context, ours.context)):
        old, new = [c.name for c in a], [c.name for c in b]
        if old != new:
            only = [f"{', '.join(x for x in mine if x not in other) or 'nothing else'} {where}"
                    for mine, other, where in ((old, new, "there"), (new, old, "here"))]
            out.append(f"its {ours.name} {what} " + ", ".join(only))
    for then, now in zip(theirs.action, ours.action, strict=False):
        if _shape(then) != _shape(now):
            out.append(f"its {ours.name} decides {_shape(then)}, here it is {_shape(now)}")
    if len(theirs.action) != len(ours.action):
        out.append(f"its {ours.name} decides {len(theirs.action)} things, here {len(ours.action)}")
    return out


def _shape(part: Simplex | Interval | Choice) -> tuple[Any, ...]:
    """What of an action part must agree: all but where a fresh policy starts."""
    if isinstance(part, Interval):
        return (part.name, part.low, part.high)
    eligible = part.eligible if isinstance(part, Simplex) else None
    without = [f"number {k}" for k, ok in enumerate(eligible or (), 1) if not ok]
    return (part.name, part.size, f"all but {', '.join(without)}" if without else "all")


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
