"""The wiring of a run: every link as pairs of entity ports, and the order of the members inside one step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cosim.drivers.resolve import Resolved, refuse_port_of_variants
from cosim.errors import ScenarioError, listed, unknown
from cosim.plausible import is_marginal
from cosim.ports import Port
from cosim.scenario import Link, named_rows
from cosim.units import scale, unit_of


@dataclass
class MemberInterface:
    """What a started member offers: its entities, the ports of its models, and tables of what stays as it is.

    models   model -> entities
    ports    model -> port name -> ports: two where an input and an output share a name
    labels   axis -> names along it
    initial  entity -> port -> value before the first tick
    foreign  not built on cosim.adapter
    tables   name -> column -> values
    """

    models: dict[str, list[str]]
    ports: dict[str, dict[str, list[Port]]]
    labels: dict[str, list[str]] = field(default_factory=dict)
    initial: dict[str, dict[str, Any]] = field(default_factory=dict)
    foreign: bool = False
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def find(self, port: str, flow: str) -> tuple[str, Port] | None:
        """(model, port) of that name and flow; None if there is none. 'Model.port' names the model, too."""
        of_model, _, name = port.partition(".")
        models = [of_model] if name and of_model in self.models else list(self.models)
        port = name if models == [of_model] else port
        for model in models:
            for candidate in self.ports[model].get(port, []):
                if candidate.flow in (flow, "both"):
                    return model, candidate
        return None


@dataclass(frozen=True, slots=True)
class Connection:
    """One entity's out port to one entity's in port. `transform` is None when values pass as they are, else it
    multiplies them by `scale`."""

    source: tuple[str, str, str]
    target: tuple[str, str, str]
    shift: int
    initial: Any
    transform: Callable[[Any], Any] | None
    scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """All connections in a fixed order, and members sorted so that data of the same step flows forward."""

    connections: list[Connection]
    order: list[str]


def interface_from_describe(models: dict[str, list[str]], described: Mapping[str, Any]) -> MemberInterface:
    """Interface of a simulator built on cosim.adapter, from its `describe()`."""
    ports: dict[str, dict[str, list[Port]]] = {}
    for model, entries in described["ports"].items():
        table = ports.setdefault(model, {})
        for entry in entries:
            port = Port.from_json(entry)
            table.setdefault(port.name, []).append(port)
    return MemberInterface(models, ports, dict(described["labels"]), dict(described["initial"]),
                           tables=dict(described.get("tables", {})))


def interface_from_meta(models: dict[str, list[str]], meta: Mapping[str, Any]) -> MemberInterface:
    """Interface of any other mosaik simulator: META does not list which attributes are inputs, so each may be both."""
    ports: dict[str, dict[str, list[Port]]] = {}
    for model in models:
        attrs: list[str] = meta["models"].get(model, {}).get("attrs", [])
        ports[model] = {a: [Port(a, "both", a, reduce="sum", default=0.0)] for a in attrs}
    return MemberInterface(models, ports, foreign=True)


def make_plan(resolved: Resolved, interfaces: Mapping[str, MemberInterface]) -> Plan:
    """Expand all links and sort the members. Raises ScenarioError for a wiring that cannot work."""
    _check_names(resolved)
    connections: list[Connection] = []
    for link in resolved.scenario.links:
        connections += _expand(resolved, link, interfaces)
    _check_inputs(resolved, interfaces, connections)
    return Plan(connections, _order(resolved, connections))


def _check_names(resolved: Resolved) -> None:
    """Every plain name of a member's map is one of its linked ports or entities."""
    scenario = resolved.scenario
    for member, spec in scenario.members.items():
        linked = {end.split(".", 1)[1] for link in scenario.links for end in (link.source, link.target)
                  if end.split(".", 1)[0] == member}
        linked |= {link.or_port for link in scenario.links if link.or_port and link.target.split(".", 1)[0] == member}
        known = linked | {name for names in resolved.entities[member].values() for name in names}
        for ours in spec.names:
            if "*" not in ours and ours not in known:
                raise ScenarioError(f"--map {member}.{ours}: {unknown('port or entity', ours, linked)}")


def _expand(resolved: Resolved, link: Link, interfaces: Mapping[str, MemberInterface]) -> list[Connection]:
    (src, src_ours), (dst, dst_ours) = link.source.split(".", 1), link.target.split(".", 1)
    src_port, src_factor = _theirs(resolved, src, src_ours)
    dst_port, dst_factor = _theirs(resolved, dst, dst_ours)
    if link.or_port is not None and interfaces[dst].find(dst_port, "in") is None:
        dst_ours = link.or_port
        dst_port, dst_factor = _theirs(resolved, dst, dst_ours)
    if link.optional and interfaces[src].find(src_port, "out") is None:
        return []
    src_model, out = _find(resolved, interfaces, src, src_port, "out")
    dst_model, into = _find(resolved, interfaces, dst, dst_port, "in")
    shift_s = resolved.scenario.members[src].step_s if link.shift_s == "step" else link.shift_s
    shift = resolved.clock.steps(shift_s, f"shift_s of link {link.source} -> {link.target}")
    _check_steps(resolved, link, out, src, dst)
    _check_labels(resolved, link, (out, interfaces[src].labels), (into, interfaces[dst].labels))
    if is_marginal(src_port) and not is_marginal(dst_ours) and unit_of(dst_ours).dimension == "carbon intensity":
        fits = [p.name for ports in interfaces[dst].ports[dst_model].values() for p in ports
                if p.flow != "out" and is_marginal(p.name)]
        hint = f"link it to {listed(fits)}" if fits else f"leave the link out: {dst} takes no marginal intensity"
        raise ScenarioError(f"link {link.source} -> {link.target}: {src_port} is a marginal intensity, {dst_ours} an "
                            f"average one, by which CO2 is attributed; {hint}")
    # a factor stands for the unit of a name that has none: theirs = ours x factor
    factor = link.scale if link.scale is not None else (
        scale(src_ours if src_factor else src_port, dst_ours if dst_factor else dst_port)
        * (dst_factor or 1.0) / (src_factor or 1.0))
    transform = _transform(link, out, factor)
    pairs = _pairs(resolved, link, interfaces[src].models[src_model], interfaces[dst].models[dst_model])
    return [
        Connection((src, a, out.name), (dst, b, into.name), shift,
                   _initial(link, interfaces[src], a, out.name) if shift else None, transform, factor)
        for a, b in pairs
    ]


def _theirs(resolved: Resolved, member: str, ours: str) -> tuple[str, float | None]:
    """(name, factor) that a member's simulator has for our port; the factor is None unless given by '@'."""
    theirs, at, factor = resolved.scenario.members[member].names.get(ours, ours).partition("@")
    if not at:
        return theirs, None
    try:
        value = float(factor)
    except ValueError:
        value = 0.0
    if not (value and math.isfinite(value)):
        raise ScenarioError(f"--map {member}.{ours}={theirs}@{factor}: a factor is a number, and not 0")
    return theirs, value


def _entity_name(names: Mapping[str, str], ours: str) -> str:
    """A simulator's name of an entity, by the first pattern 'bus*' -> 'Bus-*' that fits; unchanged if none does."""
    for pattern, theirs in names.items():
        head, star, tail = pattern.partition("*")
        if star and ours.startswith(head) and ours.endswith(tail) and len(ours) > len(head) + len(tail):
            return theirs.replace("*", ours[len(head): len(ours) - len(tail)])
        if pattern == ours:
            return theirs
    return ours


def _find(resolved: Resolved, interfaces: Mapping[str, MemberInterface], member: str, port: str, flow: str
          ) -> tuple[str, Port]:
    found = interfaces[member].find(port, flow)
    if found is None:
        refuse_port_of_variants(member, resolved.classes[member], port, flow)
        names = [n for model in interfaces[member].models for n, ps in interfaces[member].ports[model].items()
                 if any(p.flow in (flow, "both") for p in ps)]
        raise ScenarioError(unknown(f"{flow} port of member '{member}'", port, names))
    return found


def _check_steps(resolved: Resolved, link: Link, out: Port, src: str, dst: str) -> None:
    members = resolved.scenario.members
    src_step, dst_step = members[src].step_s, members[dst].step_s
    where = f"link {link.source} -> {link.target}"
    if out.kind == "event" and src_step != dst_step:
        raise ScenarioError(f"{where}: events need equal steps, got {src_step:g} s and {dst_step:g} s")
    if out.window:
        window_s = getattr(resolved.params.get(src), out.window, dst_step)
        if window_s != dst_step:
            raise ScenarioError(
                f"{where}: {src}.{out.window} = {window_s:g} s, but {dst} steps every {dst_step:g} s; "
                f"make them equal: --set {src}.{out.window}={dst_step:g}")


def _check_labels(resolved: Resolved, link: Link, out: tuple[Port, dict[str, list[str]]],
                  into: tuple[Port, dict[str, list[str]]]) -> None:
    """ScenarioError where the labels of a vector (job classes, leads) differ between output and input. A single number,
    and a port without labels, fit anything."""
    theirs, mine = (labels.get(port.dims[0]) if port.dims else None for port, labels in (out, into))
    if out[0].dims != into[0].dims or theirs is None or mine is None or theirs == mine:
        return
    (src, dst), axis = (end.split(".")[0] for end in (link.source, link.target)), out[0].dims[0]
    there, here = (_collections(resolved, name, labels) for name, labels in ((src, theirs), (dst, mine)))
    alike = [f"{dst}.{field} and {src}.{field}" for field in here if field in there and here[field] != there[field]]
    alike += [f"shared.{field} (here {dst}.{field})" for field in here
              if field in resolved.scenario.shared and not hasattr(resolved.params.get(src), field)]
    mend = f"; make them so by {', '.join(alike)}" if alike else ""
    raise ScenarioError(f"link {link.source} -> {link.target}: {axis} is {listed(theirs)} ({len(theirs)}) of {src}, "
                        f"{listed(mine)} ({len(mine)}) of {dst}; they have to be the same{mend}")


def _collections(resolved: Resolved, member: str, labels: list[str]) -> dict[str, Any]:
    """A member's parameters that may be what its labels are of: as many entries, or entries of these names."""
    given = resolved.params.get(member)
    return {name: value for name, value in (vars(given) if given is not None else {}).items()
            if (isinstance(value, dict) and list(value) == labels)
            or (isinstance(value, (tuple, list)) and len(value) == len(labels))}


def _transform(link: Link, out: Port, factor: float) -> Callable[[Any], Any] | None:
    if factor == 1.0:
        return None
    if out.kind == "event":
        raise ScenarioError(f"link {link.source} -> {link.target}: a batch of events cannot be scaled")
    return lambda v: [x * factor for x in v] if isinstance(v, (list, tuple)) else v * factor


def _pairs(resolved: Resolved, link: Link, sources: list[str], targets: list[str]) -> list[tuple[str, str]]:
    where = f"link {link.source} -> {link.target}"
    here, there = (resolved.scenario.members[end.split(".")[0]].names for end in (link.source, link.target))
    if isinstance(link.pairs, dict):
        wanted = [(a, b) for a, bs in link.pairs.items() for b in ([bs] if isinstance(bs, str) else bs)]
    elif isinstance(link.pairs, str):
        named = _template_pairs(resolved, link.pairs, where)
        wanted = named if _rows_at_source(resolved, link, named, sources) else [(b, a) for a, b in named]
    elif len(sources) == 1 or len(targets) == 1:
        return _by_name_or_all(resolved, link, sources, targets)
    else:
        wanted = [(a, a) for a in (targets if any("*" in name for name in here) else sources)]
    wanted = [(_entity_name(here, a), _entity_name(there, b)) for a, b in wanted]
    known, reached = set(sources), set(targets)
    for a, b in wanted:
        if a not in known:
            raise ScenarioError(f"{where}: {unknown('source entity', a, sources)}")
        if b not in reached:
            raise ScenarioError(f"{where}: {unknown('target entity', b, targets)}")
    return wanted


def _by_name_or_all(resolved: Resolved, link: Link, sources: list[str], targets: list[str]) -> list[tuple[str, str]]:
    """Pairs where one end has a single entity: namesakes, as the scenario calls them; where there are none, all.

    ScenarioError for a source that a link by name leaves out, and where names differ by their number only ('bus9' and
    bus0 .. bus5) or in how they are written ('Bus_5' and bus5): one of a row whose counterpart is missing is not meant
    for all of the others.
    """
    src, dst = (end.split(".", 1)[0] for end in (link.source, link.target))
    here, there = (resolved.scenario.members[member].names for member in (src, dst))
    ours = [name for member in (src, dst) for names in resolved.entities[member].values() if isinstance(names, list)
            for name in names]
    pairs = [(_entity_name(here, name), _entity_name(there, name)) for name in (*sources, *targets, *ours)]
    known, reached = set(sources), set(targets)
    named = [(a, b) for a, b in dict.fromkeys(pairs) if a in known and b in reached]
    rows = {_row(name) for name in targets} - {None}
    placed = {a for a, _ in named}
    for name in sources:
        stray = name not in placed and not any("*" in pattern for pattern in here) if named else _row(name) in rows
        if stray:
            raise ScenarioError(
                f"link {link.source} -> {link.target}: {unknown('target entity', name, targets)}; entities are linked "
                f"by name: rename it, or say whom it serves by pairs={{'{name}': [...]}}")
    return named or [(a, b) for a in sources for b in targets]


def _row(name: str) -> str | None:
    """What 'bus1', 'Bus_2' and 'BUS-03' have in common: 'bus'; None for a name that does not end with a number."""
    found = re.fullmatch(r"(.*?)[\s_-]*\d+", name.casefold())
    return found[1] if found else None


def _rows_at_source(resolved: Resolved, link: Link, named: list[tuple[str, str]], sources: list[str]) -> bool:
    """Whether the rows of a table of pairs are the link's sources: those of the member whose entities are that table's
    (a site may be called like a bus); where this decides nothing, by their names."""
    src, dst = (resolved.scenario.members[end.split(".", 1)[0]] for end in (link.source, link.target))
    table = str(link.pairs).partition(":")[0]
    here, there = (table in member.entities.values() for member in (src, dst))
    return here if here != there else bool(named) and _entity_name(src.names, named[0][0]) in sources


def _template_pairs(resolved: Resolved, text: str, where: str) -> list[tuple[str, str]]:
    """'sites:bus{node}' -> [('aidc1', 'bus8'), ...]."""
    table_name, colon, template = text.partition(":")
    table = resolved.scenario.shared.get(table_name)
    if not colon or not isinstance(table, dict):
        raise ScenarioError(f"{where}: pairs '{text}' is not table:template, e.g. sites:bus{{node}}")
    try:
        return list(named_rows(table, template).items())
    except ValueError as err:
        raise ScenarioError(f"{where}: pairs '{text}' does not fit the rows of '{table_name}': {err}") from None


def _initial(link: Link, interface: MemberInterface, eid: str, port: str) -> Any:
    if isinstance(link.initial, dict):
        if eid not in link.initial:
            raise ScenarioError(f"link {link.source} -> {link.target}: initial has no value for {eid}; it has "
                                f"{', '.join(link.initial) or 'none'}")
        return link.initial[eid]
    if link.initial is not None:
        return link.initial
    if port in interface.initial.get(eid, {}):
        return interface.initial[eid][port]
    raise ScenarioError(f"link {link.source} -> {link.target} is shifted in time and {link.source.split('.')[0]} gives "
                        "no first value; add initial=... to the link")


def _check_inputs(resolved: Resolved, interfaces: Mapping[str, MemberInterface], connections: list[Connection]) -> None:
    sources: dict[tuple[str, str, str], list[str]] = {}
    for c in connections:
        sources.setdefault(c.target, []).append(".".join(c.source))
    for member, interface in interfaces.items():
        for model, eids in interface.models.items():
            ports = [p for ps in interface.ports[model].values() for p in ps if p.flow == "in"]
            for port in ports:
                for eid in eids:
                    given = sources.get((member, eid, port.name), [])
                    if len(given) > 1 and port.reduce == "one":
                        raise ScenarioError(f"{member}.{eid}.{port.name} takes one source, got {', '.join(given)}")
                    if not given and port.kind == "level" and port.default is None:
                        raise ScenarioError(f"{member}.{eid}.{port.name} has no source; link an output to "
                                            f"{member}.{port.name} in scenario {resolved.scenario.name}")


def _order(resolved: Resolved, connections: list[Connection]) -> list[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter({name: set() for name in resolved.scenario.members})
    for c in connections:
        if not c.shift:
            sorter.add(c.target[0], c.source[0])
    try:
        return list(sorter.static_order())
    except CycleError as err:
        raise ScenarioError(f"links form a loop within one step: {' -> '.join(err.args[1])}; delay one of them "
                            "by shift_s") from None
