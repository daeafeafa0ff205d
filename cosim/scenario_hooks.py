"""The hooks of a scenario: the fields in which it names code to be called, beside its members' simulators."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cosim.imports import load, today

HOOKS = ("preflight", "summary", "verify", "environment", "report", "contracts")
WITH_SUMMARY = ("report", "contracts")
"""Hooks that a scenario may leave out, and then has those that go with its summary."""


def hook_of(scenario: Mapping[str, Any], hook: str) -> str | None:
    """Import string of a hook of a scenario (as data); None where it has none.

    A scenario that leaves out one of WITH_SUMMARY, as all of version 0.1 do, has the one that the module of its summary
    names in COMPANIONS (hook -> import string). Imports that module; raises ScenarioError where it cannot be.
    """
    if text := scenario.get(hook):
        return str(text)
    if hook not in WITH_SUMMARY or not (summary := scenario.get("summary")):
        return None
    load(str(summary), "summary")
    module = sys.modules[today(str(summary)).partition(":")[0]]
    return getattr(module, "COMPANIONS", {}).get(hook)
