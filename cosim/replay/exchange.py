"""A scenario in which a trace or a table plays a member: what `--replay MEMBER=FILE` makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosim.drivers.resolve import command_of, named_entities
from cosim.errors import ScenarioError, TraceError, listed, unknown
from cosim.hooks import Hooks
from cosim.imports import load
from cosim.ports import Port
from cosim.replay.members import recorded_members
from cosim.replay.recording import check_shapes, refuse_events, sources_of, wanted_levels, with_columns
from cosim.scenario import DEFAULT_START, Member, Scenario
from cosim.tables.table import DataTable, TableOptions, is_table
from cosim.trace import Trace
from cosim.trace.series import scenario_of


def replay(scenario: Scenario, member: str, path: str) -> Scenario:
    """A copy in which `member` is played from the trace or table at `path`. What was linked to its inputs is unlinked.

    A simulator whose outputs are events names in REPLAYED_BY the class that plays them from a table of the trace. One
    that works out more from a table than the table holds (a forecast from prices) names its field for one in
    TABLE_FIELD, and plays itself.

    Raises ScenarioError for a member or column that is not there, TraceError for a file that is no trace.
    """
    if not path:
        raise ScenarioError(f"--replay {member}: write MEMBER=FILE, e.g. {member or 'grid'}=run.h5 or "
                            f"{member or 'tariff'}=prices.csv")
    if member not in scenario.members:
        raise ScenarioError(f"--replay {member}={path}: {unknown('member', member, scenario.members)}")
    cut = scenario.replace(links=tuple(link for link in scenario.links if link.target.split(".")[0] != member))
    return (_from_table if is_table(path) else _from_trace)(cut, member, path)


def _from_trace(scenario: Scenario, member: str, path: str) -> Scenario:
    old = scenario.members[member]
    with Trace(path) as trace:
        recorded = {m.split("/")[1]: trace.names(m) for m in trace.models() if m.split("/")[0] == member}
        if not recorded:
            raise TraceError(f"--replay {member}={path}: {unknown('recorded member', member, recorded_members(trace))}")
        then = scenario_of(trace).get("members", {}).get(member, {})
    hooks = _hooks_of(old, member)
    if hooks.REPLAYED_BY:
        return _played(scenario, member, {"simulator": hooks.REPLAYED_BY, "params": {"path": path},
                                          "shared": old.shared})
    refuse_events(hooks.MODELS, sources_of(scenario, member), member, path)
    changed: dict[str, Any] = {"simulator": "cosim.replay.members:Player", "step_s": then.get("step_s", old.step_s),
                               "params": {"path": path, "member": member},
                               "entities": {model: spec for model, spec in old.entities.items()
                                            if _gives(hooks.MODELS.get(model))}}
    specs = [*old.entities.values(), *then.get("entities", {}).values()]
    if then.get("names") or any(isinstance(spec, dict) for spec in specs):  # a foreign one, with its own names
        linked = {link.source for link in scenario.links}
        changed |= {"entities": recorded, "names": {ours: theirs for ours, theirs in then.get("names", {}).items()
                                                    if "*" in ours or f"{member}.{ours}" in linked}}
    return _played(scenario, member, changed)


def _gives(ports: Sequence[Port] | None) -> bool:
    """Whether a model has outputs, or may have some: one that only takes has no place in a recording."""
    return ports is None or any(port.flow != "in" for port in ports)


def _from_table(scenario: Scenario, member: str, path: str) -> Scenario:
    table, old = DataTable(path, TableOptions(f"{member}.", scenario.start or DEFAULT_START)), scenario.members[member]
    hooks, sources = _hooks_of(old, member), sources_of(scenario, member)
    declared = hooks.MODELS
    refuse_events(declared, sources, member, path)
    models: dict[str, tuple[str, ...]] = {}
    entities: dict[str, list[str]] = {}
    played: list[Port] = []
    silent: list[str] = []
    wanted = wanted_levels(old, declared, sources)
    named = named_entities(scenario, member)
    for model, ports in wanted.items():
        here = {p: found[0] for p in ports if (found := table.match(p.name))}
        had = named.get(model, [])
        names = with_columns(table, list(here.values()), had)
        if here and names:
            silent += [name for name in had if name not in names]
            models[model], entities[model] = tuple(p.name for p in here), names
            played += here
            check_shapes(table, here if declared else {})
    if not models and not (hooks.TABLE_FIELD and table.figure):
        wishes = ", ".join(dict.fromkeys(name for _, _, name in sources))
        if strangers := [e for model, ports in wanted.items() for p in ports if (found := table.match(p.name))
                         for e in table.entities(found[0]) or ()]:
            known = [name for model in wanted for name in named.get(model, [])]
            raise ScenarioError(f"--replay {member}={path}: {unknown(f'entity of {member}', strangers[0], known)}")
        raise ScenarioError(f"--replay {member}={path}: no column of it is an output of {member}; it has "
                            f"{listed(table.columns)}; wanted: {wishes}")
    have = {name for ports in models.values() for name in ports}
    unheard = [link for link, _, name in sources if not link.optional and name not in have]
    if unheard and (field := hooks.TABLE_FIELD):
        params = {**old.params, field: path, f"{field}_overflow": "raise"}
        return scenario.replace(members={**scenario.members, member: old.model_copy(update={"params": params})})
    kept = scenario.replace(links=tuple(link for link in scenario.links if link not in unheard))
    return _played(kept, member, {"simulator": "cosim.replay.members:TablePlayer", "entities": entities, "params": {
        "path": path, "models": models, "axes": {p.name: p.dims[0] for p in played if p.dims},
        "may_be_nan": [p.name for p in played if p.nullable],
        "unheard": [f"{link.source} -> {link.target}" for link in unheard],
        "without": [model for model in wanted if model not in models], "silent": silent}})


def _played(scenario: Scenario, member: str, changed: Mapping[str, Any]) -> Scenario:
    old = scenario.members[member]
    new = Member(**{**old.model_dump(), "names": {}, "adapter": None, "shared": (), **changed})
    return scenario.replace(members={**scenario.members, member: new})


def _hooks_of(member: Member, name: str) -> type[Hooks]:
    """What a member's class declares; nothing for one that runs elsewhere or is foreign."""
    cls = None if command_of(member.simulator) else load(member.simulator, f"member '{name}'")
    return cls if isinstance(cls, type) and issubclass(cls, Hooks) else _Unknown


class _Unknown(Hooks):
    MODELS = {}
