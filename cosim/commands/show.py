"""cosim run SCENARIO --show: every field of a resolved scenario, with its unit, its default and where it is from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from cosim.drivers.plan import Plan
from cosim.drivers.resolve import Resolved
from cosim.params import default_at, fields_of
from cosim.scenario import Scenario, leaves
from cosim.units import unit_of

_FRAME = ("start", "until_s", "warmup_s", "resolution_s", "flush_s", "seed")
_LONGEST = 40


def shown_lines(before: Scenario, resolved: Resolved, plan: Plan, settings: Iterable[str]) -> Iterator[str]:
    """Lines 'path = value  # unit; where from', each of which --set takes; then the wiring.

    before: the scenario as it was found and changed, before defaults were filled in. settings: the paths that the
    command line set.
    """
    scenario = resolved.scenario
    data, given = scenario.model_dump(mode="json"), set(settings)
    yield f"# {scenario.name}: {scenario.about}"
    yield f"# order in a step: {' -> '.join(plan.order)}"
    yield ("# to read: value, then unit and where it is from (default, scenario, --set; the default in brackets where "
           "it is another)")
    yield "# --show --format yaml (or json) writes a scenario file that runs"
    for name in _FRAME:
        field = fields_of(Scenario)[name]
        known = "" if field.is_required() else field.get_default(call_default_factory=True)
        origin = "--set" if name in given else "default" if data[name] == known else "scenario"
        yield _line(name, data[name], origin, known)
    yield from (f"seeds.{name} = {seed}" for name, seed in data["seeds"].items())
    for table in data["shared"]:
        yield from _of_table(table, before, resolved, given)
    for name, member in data["members"].items():
        yield ""
        yield f"{name}.simulator = {member['simulator']}"
        yield f"{name}.step_s = {member['step_s']:g}"
        yield from (f"{name}.entities.{model} = {spec}{_in_short(resolved.entities[name][model])}"
                    for model, spec in member["entities"].items() if isinstance(spec, str))
        kind = type(resolved.params[name]) if name in resolved.params else None
        named = dict(leaves(before.members[name].params))
        for path, value in leaves(member["params"]):
            yield _line(f"{name}.{path}", value, _origin(f"{name}.{path}", path, named, given), _default(kind, path))
    yield from ("", "# wiring")
    for c in plan.connections:
        late = f"  (+{resolved.clock.seconds(c.shift):g} s)" if c.shift else ""
        yield f"{'.'.join(c.source)} -> {'.'.join(c.target)}{late}"


def _of_table(table: str, before: Scenario, resolved: Resolved, given: set[str]) -> Iterator[str]:
    """Fields of a shared table: those that the scenario gives, and what members fill in of each row."""
    named = dict(leaves(before.shared[table], table)) if table in before.shared else {}
    shown: dict[str, Any] = dict(named)
    defaults: dict[str, Any] = {}
    for value in resolved.params.values():
        if table not in fields_of(type(value)):
            continue
        full = TypeAdapter(type(value)).dump_python(value, mode="json")[table]
        for path, inner in leaves(full, table):
            if not any(path.startswith(f"{whole}.") for whole in named):  # a text that stands for a table is one value
                shown.setdefault(path, inner)
                defaults.setdefault(path, _default(type(value), path))
    for path in sorted(shown, key=lambda p: _place(p, named)):
        origin = _origin(f"shared.{path}", path, named, given)
        yield _line(f"shared.{path}", shown[path], origin, defaults.get(path, ""))


def _place(path: str, named: Mapping[str, Any]) -> tuple[int, int]:
    """Rows in the scenario's order, in each what is given before what is filled in."""
    order = list(named)
    row = ".".join(path.split(".")[:2])
    first = next((k for k, p in enumerate(order) if p == path or p.startswith(f"{row}.")), len(order))
    return first, order.index(path) if path in named else len(order)


def _origin(full: str, path: str, named: Mapping[str, Any], given: set[str]) -> str:
    """Where a value is from: the command line, the scenario, or its default."""
    if any(full == one or full.startswith(f"{one}.") for one in given):
        return "--set"
    return "scenario" if any(path == one or path.startswith(f"{one}.") for one in named) else "default"


def _default(kind: type | None, path: str) -> Any:
    return "" if kind is None else default_at(kind, tuple(path.split(".")))


def _line(path: str, value: Any, origin: str, default: Any) -> str:
    unit = unit_of(path.rpartition(".")[2]).symbol
    told = "" if unit == "1" else f"{unit}; "
    other = default != "" and origin != "default" and default != value
    text = str(default)
    return (f"{path} = {value}  # {told}{origin}"
            f"{f' ({text if len(text) <= _LONGEST else text[:_LONGEST - 3] + chr(0x2026)})' if other else ''}")


def _in_short(names: list[str]) -> str:
    """How many entities a word stands for, and the first and last of them."""
    return f"  # {len(names)}: {names[0]}{f' .. {names[-1]}' * (len(names) > 1)}"
