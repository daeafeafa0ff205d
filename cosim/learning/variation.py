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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cosim.drivers.resolve import Resolved, resolve
from cosim.errors import ScenarioError, listed
from cosim.scenario import Scenario, override
from cosim.seeds import stream

STEERED = ("controller", "aidc")
"""Members that agents steer: their parameters are what agents are made for."""
_BASELINE, _GRID = "baseline", "grid"
"""A second dispatch without data centers, which some rewards need, has the grid's parameters."""


@dataclass(frozen=True)
class Variation:
    """path: 'member.field', or deeper; low and high: bounds of a float; choices: the values of another, () of a
    range."""

    path: str
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


def variation_of(path: str, text: str) -> Variation:
    """A variation from its text. ScenarioError for one that is none."""
    if "|" in text:
        return Variation(path, choices=tuple(_plain(part) for part in text.split("|")))
    low, colon, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        colon, bounds = "", (math.nan, math.nan)
    if not colon or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
        raise ScenarioError(f"--vary {path}={text}: give LOW:HIGH, two numbers of which the first is not the larger, "
                            "or choices A|B|C")
    return Variation(path, *bounds)


def variations_of(given: Mapping[str, str], scenario: Scenario) -> list[Variation]:
    """All variations of a training on a scenario, in the order of their paths, each of their values checked.
    ScenarioError."""
    found = [variation_of(path, text) for path, text in sorted(given.items())]
    for one in found:
        member = one.path.partition(".")[0]
        if member not in scenario.members or member in STEERED or "." not in one.path:
            outside = [name for name in scenario.members if name not in STEERED]
            raise ScenarioError(f"--vary {one.path}: fields of {listed(outside)} can be varied; agents are made for "
                                "the others")
        if one.path.split(".")[1] in ("simulator", "step_s", "entities", "adapter", "shared"):
            raise ScenarioError(f"--vary {one.path}: it says how the member is run; vary one of its parameters")
        for value in one.values:
            resolve(override(scenario, {one.path: value}))
    return found


def varied(resolved: Resolved, variations: list[Variation], seed: int, episode: int) -> Resolved:
    """The scenario of a day, whose simulators are begun with the drawn values; `scenario` and `params` stay as they
    are written, as agents' scales go by them."""
    if not variations:
        return resolved
    init_params = dict(resolved.init_params)
    for one in variations:
        member, *fields = one.path.split(".")
        value = one.drawn(seed, episode)
        for name in (member, _BASELINE) if member == _GRID else (member,):
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
