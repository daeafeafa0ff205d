"""Requirements on a member beside those of the bus on all: checks that the models declare and a scenario names.

A scenario's `contracts` is an import string of a mapping, member -> function from a `Trial` to its checks;
`cosim.check` runs them after the frame's own (`cosim.conformance`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.units import scale

Calls = list[tuple[int, dict[str, Any]]]
"""Bus step and inputs of each call of step()."""
Answers = list[dict[str, dict[str, Any]]]
"""Entity -> port -> value after each call."""


@dataclass(frozen=True)
class Check:
    """One line of the table: what was checked, whether it holds, and if not, why and what to do. One that could not be
    checked passes, with the reason."""

    what: str
    passed: bool
    reason: str = ""
    fix: str = ""
    checked: bool = True


@dataclass(frozen=True)
class Trial:
    """How a simulator behaved in a member's place.

    params   the member's parameters, None where its class declares none
    names    our port -> what this simulator calls it (Member.names)
    calls    what it was given in a run of the scenario
    answers  its outputs then
    others   what it gave to the same calls with all power scaled, by words such as 'zero'; without those it refused
    """

    params: Any
    names: Mapping[str, str]
    calls: Calls
    answers: Answers
    others: Mapping[str, Answers] = field(default_factory=dict)

    def values(self, ours: str, answers: Answers | None = None) -> list[float]:
        """All values of a port, in the unit of our name for it, also where this simulator has another name; of
        `answers`, those to the run of the scenario by default."""
        answers = self.answers if answers is None else answers
        theirs, at, factor = self.names.get(ours, ours).partition("@")
        theirs = theirs.rpartition(".")[2] if theirs not in {n for out in answers[0].values() for n in out} else theirs
        per = 1.0 / float(factor) if at else 1.0 if theirs == ours else scale(theirs, ours)
        found = [out[theirs] for answer in answers for out in answer.values() if theirs in out]
        numbers = [v for value in found for v in (value if isinstance(value, (list, tuple)) else [value])]
        return [v * per for v in numbers if isinstance(v, (int, float)) and math.isfinite(v)]


Contract = Callable[[Trial], Iterator[Check]]


def contracts_named(text: str) -> Mapping[str, Contract]:
    """The contracts at an import string. Raises ScenarioError for ones that are not there, or are no mapping."""
    found = load(text, "contracts")
    if not isinstance(found, Mapping):
        raise ScenarioError(f"contracts '{text}' is a {type(found).__name__}; name a mapping, member -> function from "
                            "a cosim.contracts.Trial to its checks")
    return found


def unchecked(what: str, reason: str) -> Check:
    """A check that could not be made."""
    return Check(what, True, reason, checked=False)


def that(what: str, passed: bool, reason: str, fix: str) -> Check:
    """A check with its reason and fix where it does not hold."""
    return Check(what, bool(passed), "" if passed else reason, "" if passed else fix)
