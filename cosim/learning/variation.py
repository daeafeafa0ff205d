"""Training over randomised worlds: parameters of what is outside of the fleet, drawn anew for each environment and day.

A variation is a path as of `--set` and what its values are: 'LOW:HIGH', a float uniform between two bounds, or 'A|B|C',
one of them. A value follows from the environment's seed, the number of the day and the path alone (`cosim.seeds`), so
that a resumed run draws the same, twins meet the same world, and both engines play it. Agents' observations keep the
scales of the scenario as it is written.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cosim.drivers.resolve import Resolved, resolve
from cosim.errors import ScenarioError, listed
from cosim.imports import load
from cosim.scenario import Scenario, override
from cosim.seeds import stream

_HOW_RUN = ("simulator", "step_s", "entities", "adapter", "shared")


@dataclass(frozen=True)
class Variation:
    """path: 'member.field', or deeper; members: whose parameter it is: that member, and any that has the same; low and
    high: bounds of a float; choices: the values of another, () of a range."""

    path: str
    members: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    choices: tuple[Any, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The bounds, or all choices: what has to be allowed."""
        return self.choices or (self.low, self.high)

    def drawn(self, seed: int, episode: int) -> Any:
        """The value of an environment's day."""
        rng = stream(seed, episode, self.path.partition(".")[0], f"variation of {self.path}")
        if self.choices:
            return self.choices[int(rng.integers(len(self.choices)))]
        return float(rng.uniform(self.low, self.high))


def variation_of(path: str, text: str, copies: Sequence[str] = ()) -> Variation:
    """A variation from its text; copies: members that have the parameter, too. ScenarioError for one that is none."""
    members = (path.partition(".")[0], *copies)
    if "|" in text:
        return Variation(path, members, choices=tuple(_plain(part) for part in text.split("|")))
    low, colon, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        colon, bounds = "", (math.nan, math.nan)
    if not colon or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
        raise ScenarioError(f"--vary {path}={text}: give LOW:HIGH, two numbers of which the first is not the larger, "
                            "or choices A|B|C")
    return Variation(path, members, *bounds)


def variations_of(given: Mapping[str, str], scenario: Scenario) -> list[Variation]:
    """All variations of a training, in the order of their paths, each of their values checked.

    scenario: one that names an environment, whose class has `steers`, the members whose parameters agents are made
    for, and `copies`, member -> the one whose parameters it has. ScenarioError."""
    if not given:
        return []
    steering: Any = load(scenario.environment, "environment") if scenario.environment else None
    if not hasattr(steering, "steers") or not hasattr(steering, "copies"):
        raise ScenarioError(f"--vary: environment = {scenario.environment} does not say which members it steers "
                            "(`steers`, `copies`), so that nothing of the scenario can be varied; leave it out")
    outside = [name for name in scenario.members if name not in steering.steers and name not in steering.copies]
    found = []
    for path, text in sorted(given.items()):
        member, _, field = path.partition(".")
        if member not in outside or not field:
            raise ScenarioError(f"--vary {path}: fields of {listed(outside)} can be varied; agents are made for the "
                                "others")
        if field.partition(".")[0] in _HOW_RUN:
            raise ScenarioError(f"--vary {path}: it says how the member is run; vary one of its parameters")
        one = variation_of(path, text, [name for name, whose in steering.copies.items() if whose == member])
        for value in one.values:
            resolve(override(scenario, {path: value}))
        found.append(one)
    return found


def varied(resolved: Resolved, variations: list[Variation], seed: int, episode: int) -> Resolved:
    """The scenario of a day, whose simulators are begun with the drawn values; `scenario` and `params` stay as they
    are written, as agents' scales go by them."""
    if not variations:
        return resolved
    init_params = dict(resolved.init_params)
    for one in variations:
        fields, value = one.path.split(".")[1:], one.drawn(seed, episode)
        for name in one.members:
            if name in init_params:
                init_params[name] = _with(init_params[name], fields, value)
    return replace(resolved, init_params=init_params)


def _with(given: Mapping[str, Any], fields: list[str], value: Any) -> dict[str, Any]:
    """A copy of parameters in which the one at a path has this value."""
    first, *rest = fields
    return {**given, first: _with(given.get(first, {}), rest, value) if rest else copy.deepcopy(value)}


def _plain(text: str) -> Any:
    """A choice: JSON where it parses, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
