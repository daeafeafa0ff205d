"""A trace or a table in the place of a member: its origin, the time from which it is played, and notes on both.

The rule for a trace. The counted time of a recording begins with that of the run. A run of a shorter warm-up, or of
none, plays the recording from so much later; a run of a longer one has the first of the recording's counted time in its
own warm-up. Dates are no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cosim.drivers.resolve import named_entities
from cosim.errors import ScenarioError, listed
from cosim.ports import Port
from cosim.scenario import Link, Member, Scenario, leaves, named_rows
from cosim.tables.table import DataTable, split_name
from cosim.trace import Trace
from cosim.trace.series import PLAYERS, played_from_s, rows_at, scenario_of, step_s
from cosim.units import format_time, unit_of

_LONGEST_DIFFERENCE = 120

Sources = list[tuple[Link, str | None, str]]
"""Links that leave a member: (link, model or None, port)."""


def refuse_others(scenario: Scenario, member: str, path: str, trace: Trace, recorded: str) -> None:
    """ScenarioError for a recording of other entities than the member's in a scenario, or one in which a link between
    tables' rows and the member's entities (data centers and buses, for example) paired others; it names those that
    differ.

    recorded: the member of the trace that is played
    """
    named = named_entities(scenario, member)
    for model, names in named.items():
        theirs = trace.names(f"{recorded}/{model}") if f"{recorded}/{model}" in trace.models() else names
        there, here = ([n for n in a if n not in b] for a, b in ((theirs, names), (names, theirs)))
        if there or here:
            raise ScenarioError(f"{member} plays {path}, whose {model} entities are not this scenario's; only there: "
                                f"{listed(there)}; only here: {listed(here)}")
    then, mine = scenario_of(trace).get("shared", {}), {n for names in named.values() for n in names}
    for link in scenario.links:
        if link.source.split(".")[0] != member or not isinstance(link.pairs, str):
            continue
        table, _, template = link.pairs.partition(":")
        ours, played = (_pairs(shared.get(table), template) for shared in (scenario.shared, then))
        if played is None or ours is None or ours == played or not set(ours.values()) <= mine:
            continue
        other = [f"{row} at {played.get(row, 'none')} there, {ours.get(row, 'none')} here" for row in {**played, **ours}
                 if played.get(row) != ours.get(row)]
        raise ScenarioError(f"{member} plays {path}, recorded with other {table}: "
                            f"{listed(other, _LONGEST_DIFFERENCE)}; record a run of this scenario")


def differing(scenario: Scenario) -> list[str]:
    """Notes on fields of shared tables that the recordings of a scenario's played members had otherwise."""
    out = []
    for name, member in scenario.members.items():
        if member.simulator != PLAYERS[0]:
            continue
        with Trace(str(member.params["path"])) as trace:
            then = scenario_of(trace).get("shared", {})
        fields = []
        for table in (t for t in then if t in scenario.shared):
            there, here = dict(leaves(then[table], table)), dict(leaves(scenario.shared[table], table))
            fields += [f"{field} = {there.get(field, 'none')} (here {here.get(field, 'none')})"
                       for field in {**there, **here} if there.get(field) != here.get(field)]
        if fields:
            out.append(f"{name} plays {member.params['path']}, recorded with {listed(fields, _LONGEST_DIFFERENCE)}")
    return out


def check_step(member: str, given: Any, every_s: float, trace: Trace) -> None:
    """ScenarioError for a member that is to be played at another step than that it was recorded with: what was counted
    per step would be counted wrongly."""
    recorded_s = _recorded_step_s(trace, given.member, every_s)
    if recorded_s != every_s:
        raise ScenarioError(f"{given.path} has {given.member} every {format_time(recorded_s)}, {member}.step_s = "
                            f"{every_s:g} s; --set {member}.step_s={recorded_s:g}")


def next_sample_s(times_s: np.ndarray, end_s: float, at_s: float, step_s: float, again_s: float | None) -> float:
    """How long after `at_s` a recording changes next, s: at its next sample, at its end when it begins again at
    `again_s`, else a step later."""
    if again_s is not None and at_s >= end_s > again_s:
        at_s = again_s + (at_s - again_s) % (end_s - again_s)
    later = int(rows_at(times_s, at_s)) + 1
    if later < len(times_s):
        return float(times_s[later]) - at_s
    return end_s - at_s if again_s is not None and at_s < end_s else step_s


def end_s(trace: Trace, model: str, every_s: float) -> float:
    """When the last sample of a recorded model ends, s; every_s: its step, where the trace does not record it."""
    times = trace.time_s(model)
    return float(times[-1]) + _recorded_step_s(trace, model.split("/")[0], every_s) if len(times) else 0.0


def notes(who: str, trace: Trace, warmup_s: float, start: str) -> list[str]:
    """Notes for a reader on a recording that is played."""
    then = scenario_of(trace)
    from_s, theirs_s = played_from_s(trace, warmup_s), float(then.get("warmup_s", 0.0))
    out = []
    if from_s:
        out.append(f"{who} plays {trace.path} from {format_time(from_s)} on, so that its counted time begins with this "
                   f"run's: what was at {format_time(from_s)} there is at {format_time(0.0)} here")
    if warmup_s > theirs_s:
        out.append(f"{who} plays {trace.path}, whose warm-up is shorter: the first {format_time(warmup_s - theirs_s)} "
                   "of what was counted there are warm-up here")
    if (date := str(trace.attrs.get("start", start))) != start:
        out.append(f"{who} plays {trace.path}, which begins on {date[:10]}, in a run that begins on {start[:10]}: by "
                   "time since the begin, not by date")
    return out


def _recorded_step_s(trace: Trace, member: str, otherwise_s: float) -> float:
    return step_s(trace, member) if member in scenario_of(trace).get("members", {}) else otherwise_s


# --- tables -----------------------------------------------------------------------------------------------------------


def sources_of(scenario: Scenario, member: str) -> Sources:
    """Links that leave a member."""
    return [(link, *split_name(link.source.partition(".")[2])[:2]) for link in scenario.links
            if link.source.split(".")[0] == member]


def wanted_levels(old: Member, declared: Mapping[str, tuple[Port, ...]], sources: Sources) -> dict[str, list[Port]]:
    """Models and levels that a table may play: what the member's class declares, or else what its links carry."""
    if declared:
        return {model: [p for p in declared[model] if p.flow == "out" and p.kind == "level"]
                for model in old.entities if model in declared}
    wanted: dict[str, dict[str, Port]] = {}
    for _, model, name in sources:
        wanted.setdefault(model or next(iter(old.entities)), {})[name] = Port(name, "out", name)
    return {model: list(ports.values()) for model, ports in wanted.items()}


def with_columns(table: DataTable, ports: list[str], names: list[str]) -> list[str]:
    """Which of `names` the table has columns for; without names, all entities that it names."""
    own = [table.entities(port) for port in ports]
    if None in own:
        return names
    found = dict.fromkeys(entity for entities in own for entity in entities or ())
    return [name for name in names if name in found] if names else list(found)


def check_shapes(table: DataTable, here: Mapping[Port, str]) -> None:
    """ScenarioError for a column whose name lacks a label, or has one too much."""
    for port, name in here.items():
        if bool(table.labels(name)) != bool(port.dims):
            form = f"ENTITY.{port.name}.LABEL, one for each {port.dims[0]}" if port.dims else f"ENTITY.{port.name}"
            raise ScenarioError(f"{table.path}: {port.name} needs columns called {form}")


def refuse_events(declared: Mapping[str, tuple[Port, ...]], sources: Sources, member: str, path: str) -> None:
    """ScenarioError where a link carries events of a member, which no level can stand for."""
    events = {p.name for ports in declared.values() for p in ports if p.kind == "event" and p.flow == "out"}
    lost = [link for link, _, name in sources if name in events]
    if lost:
        hears = ", ".join(dict.fromkeys(link.target.split(".")[0] for link in lost))
        raise ScenarioError(f"--replay {member}={path}: {lost[0].source} are events, and what is played are levels; "
                            f"replay who hears them ({hears}), or a workload from a trace")


def refuse_counts(member: str, path: str, ports: Iterable[str], why: str) -> None:
    """ScenarioError for a recording whose last sample is to be held and has jobs or work: the same ones would count in
    every step again."""
    if counts := [name for name in ports if unit_of(name).dimension in ("jobs", "work")]:
        raise ScenarioError(f"{member} plays {path}, which {why} this run; its {listed(counts)} count jobs and their "
                            "work, and cannot be held: shorten the run by --until, record a longer one, or --set "
                            f"{member}.overflow=wrap")


def refuse_lacking(scenario: Scenario, member: str, path: str, columns: Sequence[str]) -> None:
    """ScenarioError for a table that has columns for some of the entities that a link names, and not for others."""
    have = {name for names in named_entities(scenario, member).values() for name in names}
    for link in scenario.links:
        if link.source.split(".")[0] != member or not isinstance(link.pairs, (str, dict)):
            continue
        table, _, template = link.pairs.partition(":") if isinstance(link.pairs, str) else ("", "", "")
        rows = (_pairs(scenario.shared.get(table), template) or {}) if table else dict.fromkeys(link.pairs, "")
        wanted = rows if not table or have & set(rows) else rows.values()
        lacking = [name for name in wanted if name not in have]
        if lacking and have:
            raise ScenarioError(f"{member} plays {path}, which has no column of {listed(lacking)}, whom link "
                                f"{link.source} -> {link.target} needs; it has {listed(columns)}")


# --- inside -----------------------------------------------------------------------------------------------------------


def _pairs(table: Any, template: str) -> dict[str, str] | None:
    """None for a table that the template does not fit: the plan refuses this scenario's own, another's has no pairs."""
    try:
        return named_rows(table, template)
    except ValueError:
        return None
