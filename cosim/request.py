"""A user's request: a scenario by its name or file, and what is changed in it.

Everywhere alike: a name of the list, a .py file (code, which is run), a .yaml or .json file, or a trace (.h5); the last
two are data and run nothing outside installed packages (`cosim.trust`). A file of data is a scenario in full, as
`cosim run SCENARIO --show --format yaml` writes it, or states what differs from another:

    base: ieee33            a name, or a file beside this one
    name: mine              optional, as are about, summary, report and the scenario's other import strings
    set:
      controller.policy: uniform
    members: {}             members that the base lacks, whole, by name
    links: []               links beside those of the base
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cosim.datafile import ENDINGS, read
from cosim.drivers.resolve import fit, prune, written_out
from cosim.errors import CosimError, ScenarioError, cut, shown, unknown
from cosim.imports import CODE, run_file, see_beside
from cosim.limits import is_file
from cosim.params import explain
from cosim.plaintext import file_name
from cosim.replay.exchange import replay
from cosim.scenario import Scenario, override, plug, rename
from cosim.scenario_hooks import HOOKS
from cosim.trace import Trace
from cosim.trust import SCENARIOS, available, foreign, is_trusted, refuse_foreign

TRACE = ".h5"
FILES = (CODE, *ENDINGS, TRACE)
"""Endings of the files that are scenarios."""
_REPLACED = ("name", "about", *HOOKS)
_ON_BASE = ("base", "set", "members", "links", *_REPLACED)
_MOST_BASES = 8

T = TypeVar("T", dict[str, Any], list[Any])


def find(name: str | Path, trusted: Collection[str | Path] = (), replaced: Collection[str] = ()) -> Scenario:
    """The scenario of a name in the list, of a .py file (code, which is run), of a YAML or JSON file, or of a trace.

    trusted: files that may name code of any kind; replaced: members in whose place another simulator is put anyway.
    Raises ScenarioError, also for a file of data that names code that no installed package announces (`cosim.trust`),
    and TraceError.
    """
    name = os.fspath(name)
    path = Path(name)
    if path.suffix == TRACE:
        return _from_trace(path, trusted, replaced)
    if path.suffix == CODE:
        return _from_code(path)
    if path.suffix.lower() in ENDINGS:
        return _from_data(path, trusted, replaced)
    if os.sep in name or path.suffix or is_file(path):
        there = "" if is_file(path) else "no scenario file at "
        raise ScenarioError(f"{there}{cut(name)}: a scenario is a name from cosim run --list, or a file that ends in "
                            f"{', '.join(FILES)}")
    names = available()
    if name not in names:
        raise ScenarioError(unknown("scenario", name, names))
    return shipped(name)


def shipped(name: str) -> Scenario:
    """The scenario of the list that has this name."""
    return _scenario_in(importlib.import_module(f"{SCENARIOS}.{name}"), name)


def is_code(name: str | Path) -> bool:
    """Whether reading the scenario named in this way runs a file."""
    return Path(name).suffix == CODE


def changed(scenario: Scenario, *, seed: int | None = None, use: Mapping[str, str] | None = None,
            settings: Mapping[str, Any] | None = None, replays: Mapping[str, str | os.PathLike[str]] | None = None,
            names: Mapping[str, str] | None = None) -> Scenario:
    """The scenario with all requested changes: `--seed`, `--use`, `--set`, `--replay` and `--map`.

    use: member -> simulator in its place; settings: path -> value (`cosim.scenario.override`); replays: member -> file
    that plays its outputs; names: our port or entity -> what the member's simulator calls it. Raises ScenarioError.
    """
    if seed is not None:
        scenario = scenario.replace(seed=seed)
    before, settings = scenario, dict(settings or {})
    for member, simulator in (use or {}).items():
        scenario = fit(plug(scenario, member, simulator), member)  # so that a table plays what is there
    early = {path: value for path, value in settings.items() if path == "start" or path.startswith("shared.")}
    if replays and early:  # a table's dates are read against the start, its columns by the entities of shared tables
        scenario = override(scenario, early)
    for member, path in (replays or {}).items():
        scenario = replay(scenario, member, os.fspath(path))
    asked = override(rename(scenario, names or {}), settings)
    for member in use or {}:  # of one whose models its parameters make
        if not any(path.startswith(f"{member}.entities") for path in settings):
            asked = fit(asked, member)
    return prune(written_out(asked, before), before) if use or replays else asked


def default_out(scenario: Scenario) -> Path:
    """results/<scenario>/<UTC time>.h5; of a name that is a path, what is left of it stays in that folder."""
    return Path("results") / file_name(scenario.name) / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%f}{TRACE}"


def _from_trace(path: Path, trusted: Collection[str | Path], replaced: Collection[str]) -> Scenario:
    with Trace(path) as trace:
        scenario = Scenario.from_json(str(trace.attrs.get("scenario", "")))
    refuse_foreign(foreign(scenario, replaced), path, trusted)
    return scenario


def _from_data(path: Path, trusted: Collection[str | Path], replaced: Collection[str], depth: int = 0) -> Scenario:
    """depth: how many files named this one as their base."""
    data = read(path)
    base, code = data.get("base"), []
    if base is not None and (not isinstance(base, str) or not base):
        raise ScenarioError(f"{path}: base = {shown(base)}; name a scenario or a file")
    if base and is_code(base):
        code.append(("base", base))
    refuse_foreign(code, path, trusted)  # before it is run
    try:
        scenario = _on_base(path, data, trusted, replaced, depth) if "base" in data else Scenario(**data)
    except ScenarioError as err:
        raise ScenarioError(str(err) if str(path) in str(err) else f"{path}: {err.args[0]}") from None
    refuse_foreign(foreign(scenario, replaced), path, trusted)
    if is_trusted(path, trusted):
        see_beside(path)
    return scenario


def _on_base(path: Path, data: Mapping[str, Any], trusted: Collection[str | Path], replaced: Collection[str],
             depth: int) -> Scenario:
    """The scenario of a file that contains only differences from its base."""
    if wrong := [key for key in data if key not in _ON_BASE]:
        raise ScenarioError(f"{unknown('field of a file with base', wrong[0], _ON_BASE)}; other fields stand in set, "
                            "as seed or member.field")
    if depth >= _MOST_BASES:
        raise ScenarioError(f"more than {_MOST_BASES} files stand on each other, or they stand in a circle")
    settings = _of_kind(data, "set", {}, "write member.field: value, a line each")
    members = _of_kind(data, "members", {}, "write the members that are new, by name")
    links = _of_kind(data, "links", [], "write a list of {source: member.port, target: member.port}")
    base = data["base"]
    if base is None:
        raise ScenarioError("base is empty; name a scenario or a file")
    there = Path(base)
    file = path.parent / there if there.suffix or os.sep in base else there
    scenario = (_from_data(file, trusted, replaced, depth + 1) if file.suffix.lower() in ENDINGS else
                find(file if file is not there else base, trusted, replaced))
    if there_already := sorted(members.keys() & scenario.members.keys()):
        raise ScenarioError(f"members: {scenario.name} has '{there_already[0]}' already; change its fields in set, as "
                            f"{there_already[0]}.step_s or {there_already[0]}.simulator")
    whole = scenario.model_dump()
    scenario = Scenario(**{**whole, "members": whole["members"] | members, "links": [*whole["links"], *links]})
    scenario = override(scenario, {key: json.dumps(value) for key, value in settings.items()})  # texts stay texts
    return scenario.replace(**{key: data[key] for key in _REPLACED if key in data})


def _of_kind(data: Mapping[str, Any], field: str, empty: T, advice: str) -> T:
    """A field of a file, which may be left out or empty. ScenarioError for one of another kind than `empty`."""
    value = empty if data.get(field) is None else data[field]
    if not isinstance(value, type(empty)):
        raise ScenarioError(f"{field} = {shown(value)}; {advice}")
    return value


def _from_code(path: Path) -> Scenario:
    if not is_file(path):
        raise ScenarioError(f"no scenario file at {path}")
    try:
        module = run_file(path, f"scenario_{path.stem}")
    except (CosimError, KeyboardInterrupt):
        raise
    except ValidationError as err:
        raise ScenarioError(explain(err, Scenario, str(path))) from err
    except (Exception, SystemExit) as err:
        raise ScenarioError(f"{path} fails: {type(err).__name__}: {err}") from err
    return _scenario_in(module, str(path))


def _scenario_in(module: Any, name: str) -> Scenario:
    scenario = getattr(module, "SCENARIO", None)
    if not isinstance(scenario, Scenario):
        raise ScenarioError(f"{name} has no SCENARIO = Scenario(...)")
    return scenario
