"""Policies by name: the rules, the trained teams that ship, checkpoints by their path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from cosim.agents.fleet.decision import FleetFacts, Policy
from cosim.agents.fleet.heuristics import MciPriority, NciPriority, PolicyOptions, Random, Static, TouShift, Uniform
from cosim.agents.fleet.oracle import MyopicOracle
from cosim.agents.fleet.planner import Mpc
from cosim.agents.fleet.shifting import CarbonTime, LowestWindow, SuspendResume, WaitBelow
from cosim.agents.learn.checkpoint import BEST, LAST
from cosim.agents.pretrained import SUFFIX, shipped
from cosim.errors import ScenarioError, unknown
from cosim.imports import file_in
from cosim.limits import is_file


class PolicyMaker(Protocol):
    """A class of policies."""

    @property
    def needs_nci(self) -> bool: ...

    def __call__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> Policy:
        """One of a fleet."""
        ...


POLICIES: dict[str, PolicyMaker] = {
    "uniform": Uniform, "static": Static, "nci_priority": NciPriority, "mci_priority": MciPriority,
    "tou_shift": TouShift, "lowest_window": LowestWindow, "carbon_time": CarbonTime, "wait_below": WaitBelow,
    "suspend_resume": SuspendResume, "myopic_oracle": MyopicOracle, "mpc": Mpc, "random": Random,
}
"""Name -> class; called with (facts, options, rng)."""

_METHODS = ("place", "operate", "needs_nci")


def policy_class(name: str, sees_nci: bool = True, policies: Mapping[str, PolicyMaker] = POLICIES) -> PolicyMaker:
    """The class called `name` in `policies`; ScenarioError if there is none, or if it needs what it is not shown."""
    if name not in policies:
        raise ScenarioError(_nobody(name, policies))
    if policies[name].needs_nci and not sees_nci:
        blind = ", ".join(sorted(n for n, kind in policies.items() if not kind.needs_nci))
        raise ScenarioError(f"policy {name} decides by carbon intensity, which power mode hides: --set "
                            f"controller.mode=joint, or one of: {blind}")
    return policies[name]


def make_policy(
    name: str, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator, sees_nci: bool = True,
    policies: Mapping[str, PolicyMaker] = POLICIES,
) -> Policy:
    """The policy called `name` in `policies`; ScenarioError as `policy_class`, and as its class."""
    return policy_class(name, sees_nci, policies)(facts, options, rng)


def checkpoint_of(policy: str) -> Path | None:
    """The file that a policy's name stands for: a trained team's that ships, or the name itself where it is a path.

    None for anything else. ScenarioError for a path at which there is no checkpoint.
    """
    if policy in shipped():
        return shipped()[policy]
    if file_in(policy):  # a class in a .py file
        return None
    path = Path(policy)
    looks_like_one = "/" in policy or "\\" in policy or policy.endswith(SUFFIX)
    if not looks_like_one and (not policy or policy in POLICIES or not (is_file(path) or _is_folder(path))):
        return None
    if _is_folder(path):
        inside = next((path / name for name in (LAST, BEST) if is_file(path / name)), None)
        raise ScenarioError(f"policy '{policy}' is a folder; name a checkpoint ({SUFFIX}) in it" +
                            (f": {inside}" if inside else ", there is none"))
    if not is_file(path):
        raise ScenarioError(f"policy '{policy}': there is no checkpoint at this path; "
                            "cosim train makes one")
    if path.suffix != SUFFIX:
        raise ScenarioError(f"policy '{policy}' is no checkpoint; the name of one ends in {SUFFIX}")
    return path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long for a name
        return False


def check_own(path: str, made: object) -> None:
    """ScenarioError unless what an import string names is a policy's class (`cosim.agents.fleet.decision.Policy`)."""
    missing = [name for name in _METHODS if not hasattr(made, name)]
    if not isinstance(made, type) or missing:
        what = f"it has no {', '.join(missing)}" if isinstance(made, type) else "it is no class"
        raise ScenarioError(f"policy '{path}' is none: {what}; a policy has {', '.join(_METHODS)}")


def _nobody(name: str, policies: Mapping[str, object]) -> str:
    return unknown("policy", name, [*policies, *shipped()]) + (f", a checkpoint ({SUFFIX}), package.module:Class or "
                                                               "folder/file.py:Class of your own")
