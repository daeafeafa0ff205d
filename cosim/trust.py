"""Code that a received file would run, and the consent it takes.

A trace, a checkpoint or a training run is data, but it names code: simulators, commands to start, hooks. Known are
simulators of this package, whatever its own scenarios name, and what installed packages announce by an entry point of a
group `cosim.simulators`, `cosim.hooks`, `cosim.policies` or `cosim.environments`. All else in a received file is shown
and refused, before anything of it is imported or started, unless that very file is trusted (`--trust FILE`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from os.path import realpath
from pathlib import Path
from typing import Any

from cosim.errors import ScenarioError, cut
from cosim.imports import file_in, today
from cosim.scenario import Scenario
from cosim.scenario_hooks import HOOKS, hook_of

SIMULATORS = "cosim.simulators"
"""Entry-point group by which installed packages announce simulators."""
GROUPS = (SIMULATORS, "cosim.hooks", "cosim.policies", "cosim.environments")
SCENARIOS = "cosim.scenarios"
_IMPORT = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
"""A text that may be an import string. In a member's parameters, where the purpose of a text is not known to the frame,
each such text counts as one, and so does a file that is code (`file.py:Name`, a model's .fmu)."""
_SHOWN, _LONGEST, _END = 3, 60, 24

Named = tuple[str, str]
"""Where a file names code, and what it names."""


def _named_code(scenario: Scenario) -> Iterator[Named]:
    """All that a scenario names to be imported or started: (field, text)."""
    for hook in HOOKS:
        if (text := getattr(scenario, hook)) is not None:
            yield hook, text
    for name, member in scenario.members.items():
        yield f"{name}.simulator", member.simulator
        yield from _imports_in(member.params, name)
    yield from _imports_in(scenario.shared, "shared")


def foreign(scenario: Scenario, replaced: Collection[str] = ()) -> list[Named]:
    """Names in a scenario that no installed package announces; `replaced`: members whose simulators something else
    chose."""
    return [(where, text) for where, text in _named_code(scenario)
            if where.split(".")[0] not in replaced and not is_known(where, text)]


def is_known(where: str, text: str) -> bool:
    """Whether the code named in a field is this package's own, or announced by an installed one."""
    text = today(text)
    if _is_file_of_code(text):  # cosim.py:Name is a file beside the user, and none of this package
        return False
    if text in _announced():
        return True
    ours = _IMPORT.fullmatch(text) is not None and text.startswith("cosim.")
    return (ours and where.endswith(".simulator")) or text in _shipped()


def is_foreign_text(where: str, text: str) -> bool:
    """Whether a text of a setting may name code, or holds such a text as JSON, that no installed package announces."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    return any(not is_known(path, inner) for path, inner in _imports_in(value, where))


def refuse_foreign(found: Collection[Named], path: str | Path, trusted: Collection[str | Path] = ()) -> None:
    """ScenarioError that shows what a received file would run, unless the file is among those trusted."""
    if not found or is_trusted(path, trusted):
        return
    shown = "; ".join(f"{where} = {cut(text, _LONGEST, _END)!r}" for where, text in list(found)[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ScenarioError(f"{path} would run code that neither this package nor an installed one announces: "
                        f"{shown}{more}; nothing of it was run. If you trust this file, add --trust {path}")


def is_trusted(path: str | Path, trusted: Collection[str | Path]) -> bool:
    """Whether a file is one of those named, whatever the spelling of its path."""
    return any(realpath(path) == realpath(other) for other in trusted)


def received_hook(path: Path, scenario: Mapping[str, Any], hook: str, trusted: Collection[str | Path]) -> str | None:
    """Import string of a hook of a trace's scenario (from its JSON); None where it has none. ScenarioError for one
    that is not known, unless the file is trusted. What goes with a summary that is not known is not looked for."""
    if text := str(scenario.get(hook) or ""):
        refuse_foreign([] if is_known(hook, text) else [(hook, text)], path, trusted)
    elif not is_known("summary", str(scenario.get("summary") or "")) and not is_trusted(path, trusted):
        return None
    return hook_of(scenario, hook)


def available() -> list[str]:
    """Names of the installed scenarios."""
    package = importlib.import_module(SCENARIOS)
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def _imports_in(value: Any, path: str) -> Iterator[Named]:
    """Texts that may be import strings or commands, wherever in a tree they stand."""
    if isinstance(value, str) and (_IMPORT.fullmatch(value.strip()) or value.strip().startswith(("cmd:", "connect:"))
                                   or _is_file_of_code(value)):
        yield path, value
    for key, inner in (value.items() if isinstance(value, dict) else enumerate(value)
                       if isinstance(value, list | tuple) else ()):
        yield from _imports_in(inner, f"{path}.{key}")


def _is_file_of_code(text: str) -> bool:
    return file_in(text) is not None or text.strip().lower().endswith(".fmu")


@lru_cache(maxsize=1)
def _announced() -> frozenset[str]:
    """Import strings that installed packages announce."""
    return frozenset(entry.value for group in GROUPS for entry in importlib.metadata.entry_points(group=group))


@lru_cache(maxsize=1)
def _shipped() -> frozenset[str]:
    """Import strings in the package's own scenarios; the commands there start programs of the reader's folder and are
    not among them."""
    found: set[str] = set()
    for name in available():
        scenario = getattr(importlib.import_module(f"{SCENARIOS}.{name}"), "SCENARIO", None)
        if isinstance(scenario, Scenario):
            found.update(text for _, text in _named_code(scenario) if _IMPORT.fullmatch(text))
    return frozenset(found)
