"""From a scenario as written to one that can run: classes found, parameters checked, the horizon known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from cosim.adapter import Adapter
from cosim.clock import Clock
from cosim.drivers.remote import address_of
from cosim.errors import ScenarioError, cut, shown, unknown
from cosim.hooks import REQUIRED, Simulator
from cosim.imports import load
from cosim.limits import MOST_ENTITIES, check_steps
from cosim.params import field_names, validate
from cosim.scenario import DEFAULT_START, Member, Scenario

_LONGEST_NAME = 60


@dataclass(frozen=True)
class Resolved:
    """A scenario ready to run.

    scenario    with every parameter filled in and `until_s` set: what the trace stores
    classes     member -> class, for those that run in this process
    params      member -> validated parameters, for those built on cosim.adapter
    init_params member -> keyword arguments of the simulator's `init`
    """

    scenario: Scenario
    clock: Clock
    until: int
    classes: dict[str, type[Simulator]]
    params: dict[str, Any]
    init_params: dict[str, dict[str, Any]]
    entities: dict[str, dict[str, Any]]

    @property
    def remote(self) -> list[str]:
        """Members that run as another process."""
        return [name for name in self.scenario.members if name not in self.classes]


def at(resolved: Resolved, seed: int, episode: int) -> Resolved:
    """The same scenario at another seed and episode, without looking it all up again."""
    scenario = resolved.scenario.model_copy(update={"seed": seed, "episode": episode})
    init_params = {name: {**given, "seed": scenario.seed_of(name), "episode": episode} if "episode" in given else given
                   for name, given in resolved.init_params.items()}
    return replace(resolved, scenario=scenario, init_params=init_params)


def resolve(scenario: Scenario, until_s: float | None = None) -> Resolved:
    """Find the simulators, validate all parameters, fix the horizon (`until_s` overrides the scenario's).

    Raises ScenarioError naming the member and field.
    """
    scenario = completed(scenario)
    classes: dict[str, type[Simulator]] = {}
    adapters: dict[str, type[Adapter]] = {}
    params: dict[str, Any] = {}
    raw: dict[str, dict[str, Any]] = {}
    entities: dict[str, dict[str, Any]] = {}
    for name, member in scenario.members.items():
        cls = None if _is_remote(member.simulator) else _simulator(name, member.simulator)
        raw[name] = _given(scenario, name, cls)
        if cls is not None:
            classes[name] = cls
        if ours := _adapter(cls):
            adapters[name] = ours
            _refuse_of_variants(name, ours, raw[name])
            params[name] = validate(ours.PARAMS, raw[name], name)
        if ours or cls is None and member.adapter:
            raw[name].update(step_s=member.step_s, seed=scenario.seed_of(name), episode=scenario.episode)
        if name not in params:  # parameters of a foreign or remote simulator are checked nowhere else
            _refuse_nan(name, {**raw[name], "entities": dict(member.entities)})
    for name, member in scenario.members.items():
        entities[name] = {model: _names(scenario, name, spec, params) for model, spec in member.entities.items()
                          if spec != ()}
    unused = sorted(set(scenario.shared) - _tables_used(scenario))
    if unused:
        raise ScenarioError(f"shared table '{unused[0]}' is used by no member of {scenario.name}; remove it")
    clock = Clock(scenario.resolution_s)
    for name, member in scenario.members.items():
        clock.steps(member.step_s, f"{name}.step_s")
    horizon_s = _horizon(scenario, until_s, adapters, params)
    until = clock.steps(scenario.warmup_s + horizon_s, "warmup_s + until")
    check_steps(until, scenario.resolution_s)
    full = _filled(scenario, params, horizon_s)
    for name, ours in adapters.items():
        ours.check_horizon(name, params[name], scenario.members[name].step_s, scenario.warmup_s + horizon_s)
        ours.check_scenario(name, params[name], scenario)
    for name, ours in adapters.items():
        ours.check_members(name, params[name], params)
    return Resolved(full, clock, until, classes, params, raw, entities)


def completed(scenario: Scenario) -> Scenario:
    """The scenario with what it leaves open filled in: from the files that its members play; else the default start."""
    for name, member in scenario.members.items():
        ours = None if _is_remote(member.simulator) else _adapter(_simulator(name, member.simulator))
        if ours is not None and ours.completes.__func__ is not Adapter.completes.__func__:  # type: ignore[attr-defined]
            scenario = ours.completes(name, validate(ours.PARAMS, _given(scenario, name, ours), name), scenario)
    return scenario if scenario.start is not None else scenario.replace(start=DEFAULT_START)


def _refuse_of_variants(name: str, ours: type[Adapter], given: Mapping[str, Any]) -> None:
    """ScenarioError for a field that the simulator lacks and one of its variants has."""
    for field in (f for f in given if f not in field_names(ours.PARAMS)):
        for path in ours.VARIANTS:
            if field in field_names(load(path, f"variant of {ours.__name__}").PARAMS):
                raise ScenarioError(f"{name}.{field} is a field of {path.partition(':')[2]}, and {name} is "
                                    f"{ours.__name__}: --use {name}={path} has it")


def refuse_port_of_variants(name: str, cls: type[Simulator] | None, port: str, flow: str) -> None:
    """ScenarioError for a port that the simulator lacks and one of its variants has."""
    ours = _adapter(cls)
    for path in ours.VARIANTS if ours is not None else ():
        variant = load(path, f"variant of {cls.__name__}")  # type: ignore[union-attr]
        if any(p.name == port and p.flow in (flow, "both") for ports in variant.MODELS.values() for p in ports):
            raise ScenarioError(f"{name}.{port} is a port of {variant.__name__}, and {name} is "
                                f"{ours.__name__}: --use {name}={path} has it")  # type: ignore[union-attr]


def _adapter(cls: type[Simulator] | None) -> type[Adapter] | None:
    """The class, where it is built on cosim.adapter."""
    return cls if cls is not None and issubclass(cls, Adapter) else None


def _given(scenario: Scenario, name: str, cls: type[Simulator] | None) -> dict[str, Any]:
    """A member's parameters with the shared tables it takes and, where it declares them, the date of t = 0 and the
    warm-up."""
    member = scenario.members[name]
    wanted = _tables_of(scenario, member, cls)
    for table in wanted:
        if table not in scenario.shared:
            raise ScenarioError(f"{name}.shared: {unknown('shared table', table, scenario.shared)}")
    given = {**{t: scenario.shared[t] for t in wanted if t not in member.params}, **member.params}
    ours = _adapter(cls)
    wants = field_names(ours.PARAMS) if ours else ()
    said = {own: value for own, value in _filled_in(scenario).items() if own in wants}
    for own, value in said.items():
        if given.get(own) not in (None, value):
            raise ScenarioError(f"{name}.{own} = {shown(given[own])} has no effect, as the run fills it in: it is "
                                f"{value}, by {own.removeprefix('scenario_')}; leave it out, or --set "
                                f"{own.removeprefix('scenario_')}=...")
    return given | said


def _filled_in(scenario: Scenario) -> dict[str, Any]:
    """Parameters that the frame fills in for members that run here."""
    return {"scenario_start": scenario.start, "scenario_warmup_s": scenario.warmup_s}


def _refuse_nan(path: str, value: Any) -> None:
    """ScenarioError naming the parameter that is NaN or infinite, wherever in a tree it stands."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ScenarioError(f"{path} = {value!r}: a parameter is a finite number")
    for key, inner in (value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple)
                       else ()):
        _refuse_nan(f"{path}.{key}", inner)


def prune(scenario: Scenario, before: Scenario) -> Scenario:
    """A copy without the shared tables that only those members of `before` used that others have replaced."""
    idle = _tables_used(before) - _tables_used(scenario)
    return scenario.replace(shared={name: table for name, table in scenario.shared.items() if name not in idle})


def fit(scenario: Scenario, member: str) -> Scenario:
    """The scenario after a member's simulator was replaced: entities of models that the new simulator does not have are
    left out, for example the summary entity `Grid` where the new grid has buses only.

    Returned unchanged for a simulator in another process, whose models are not known before the start, and where no
    model matches, which the start reports as an error.
    """
    spec = scenario.members[member]
    if _is_remote(spec.simulator):
        return scenario
    cls = _simulator(member, spec.simulator)
    try:
        models = cls.model_names(spec.params) if issubclass(cls, Adapter) else cls().meta["models"]
        if models is None:
            return scenario
        entities = {model: names for model, names in spec.entities.items() if model in models}
    except Exception:  # foreign code: its start names what is wrong with it
        return scenario
    changed = spec.model_copy(update={"entities": entities or spec.entities})
    return scenario.replace(members={**scenario.members, member: changed})


def _tables_used(scenario: Scenario) -> set[str]:
    used = {link.pairs.partition(":")[0] for link in scenario.links if isinstance(link.pairs, str)}
    for name, member in scenario.members.items():
        used.update(_tables_of(scenario, member, None if _is_remote(member.simulator) else _simulator(
            name, member.simulator)))
        used.update(spec for spec in member.entities.values() if isinstance(spec, str))
    return used


def _tables_of(scenario: Scenario, member: Member, cls: type[Simulator] | None) -> tuple[str, ...]:
    """Shared tables that a member takes: those it lists, or those that its PARAMS declare."""
    if member.shared is not None:
        return member.shared
    ours = _adapter(cls)
    return tuple(f for f in field_names(ours.PARAMS) if f in scenario.shared) if ours else ()


def _simulator(member: str, path: str) -> type[Simulator]:
    what = f"simulator of member '{member}'"
    cls = load(path, what)
    missing = [m for m in REQUIRED if not callable(getattr(cls, m, None))]
    if isinstance(cls, type) and issubclass(cls, Adapter):
        missing += [declared for declared in ("MODELS", "PARAMS") if not hasattr(cls, declared)]
    if not isinstance(cls, type) or missing:
        raise ScenarioError(f"{what} '{path}' is no simulator: " + (
            f"it has no {', '.join(missing)}" if isinstance(cls, type) else "it is not a class") +
            "; write a subclass of mosaik_api_v3.Simulator or cosim.adapter.Adapter")
    return cls


def command_of(simulator: str) -> tuple[str, str] | None:
    """('cmd', command) or ('connect', address) of a remote simulator; None for one in this process. ScenarioError for
    an address or command that cannot work."""
    for kind in ("cmd", "connect"):
        if simulator.startswith(f"{kind}:") and (rest := simulator[len(kind) + 1 :].strip()):
            if kind == "connect" and address_of(rest) is None:
                raise ScenarioError(f"'{simulator}' is not an address; write connect: HOST:PORT, or [IPV6]:PORT")
            if kind == "cmd" and "%(addr)s" not in rest:
                raise ScenarioError(f"'{simulator}' does not say where to connect; write cmd: COMMAND %(addr)s")
            return kind, rest
    return None


def _is_remote(simulator: str) -> bool:
    return command_of(simulator) is not None


def _names(scenario: Scenario, member: str, spec: Any, params: Mapping[str, Any]) -> Any:
    """Entity names of a spec: as listed, those that a parameter implies, or the rows of a shared table; create
    parameters stay as they are."""
    if isinstance(spec, tuple):
        return _checked(member, list(spec))
    if not isinstance(spec, str):
        return dict(spec)
    if (implied := _implied(scenario, member, spec, params)) is not None:
        return _checked(member, implied)
    if spec not in scenario.shared:
        raise ScenarioError(f"{member}.entities: {unknown('shared table', spec, scenario.shared)}")
    table = scenario.shared[spec]
    if not isinstance(table, dict) or not _has_rows(table):
        raise ScenarioError(f"{member}.entities: '{spec}' is no table of rows, and no member that runs here knows "
                            f"which entities {shown(table)} has; list their names")
    if not table:
        raise ScenarioError(f"{member}.entities: shared table '{spec}' has no rows")
    return _checked(member, list(table))


def _has_rows(table: Any) -> bool:
    """Whether a value is a table of rows by name, and no other data."""
    return isinstance(table, dict) and all(isinstance(row, dict) for row in table.values())


def _implied(scenario: Scenario, member: str, of: str, params: Mapping[str, Any] | None = None) -> list[str] | None:
    """Entity names that a parameter implies: of the member's own class, else of the first other member's that has
    them (`Hooks.entity_names`); None where none does. params: validated parameters by member, where they are there."""
    for name in (member, *(other for other in scenario.members if other != member)):
        simulator = scenario.members[name].simulator
        ours = None if _is_remote(simulator) else _adapter(_simulator(name, simulator))
        if ours is None or ours.entity_names.__func__ is Adapter.entity_names.__func__:  # type: ignore[attr-defined]
            continue
        given = params[name] if params is not None else validate(ours.PARAMS, _given(scenario, name, ours), name)
        names = ours.entity_names(given, of)
        if names is not None:
            return names
    return None


def named_entities(scenario: Scenario, member: str) -> dict[str, list[str]]:
    """Model -> entity names of a member, where the scenario gives or implies them."""
    found = {}
    for model, spec in scenario.members[member].entities.items():
        if isinstance(spec, str):
            table = scenario.shared.get(spec)
            names = _implied(scenario, member, spec) or (list(table) if _has_rows(table) else [])  # type: ignore
        else:
            names = list(spec) if isinstance(spec, tuple) else []
        if names:
            found[model] = names
    return found


def written_out(scenario: Scenario, before: Scenario) -> Scenario:
    """The scenario with lists in place of entities that a parameter implied in the scenario `before` some simulators
    were replaced, where none that is left implies them (of a network, say, whose buses a recording plays)."""
    members = dict(scenario.members)
    for name, member in scenario.members.items():
        for model, spec in member.entities.items():
            if not isinstance(spec, str) or _has_rows(scenario.shared.get(spec)) or (
                    _implied(scenario, name, spec) is not None):
                continue
            known = _implied(before.replace(shared=scenario.shared), name, spec)
            if known is not None:
                members[name] = members[name].model_copy(
                    update={"entities": {**members[name].entities, model: tuple(known)}})
    return scenario if members == scenario.members else scenario.replace(members=members)


def _checked(member: str, names: list[str]) -> list[str]:
    """Entity names become paths on the bus and in the trace."""
    if len(names) > MOST_ENTITIES:
        raise ScenarioError(f"{member} has {len(names)} entities; at most {MOST_ENTITIES} are taken")
    for name in names:
        if not name.strip() or any(c in name for c in "./") or len(name.encode()) > _LONGEST_NAME:
            raise ScenarioError(f"{member}: an entity cannot be called '{cut(name)}'; a name has 1 to {_LONGEST_NAME} "
                                "bytes, no dot and no slash")
    return names


def _horizon(scenario: Scenario, until_s: float | None, adapters: dict[str, type[Adapter]],
             params: dict[str, Any]) -> float:
    horizon = until_s if until_s is not None else scenario.until_s
    if horizon is None:
        lengths = [ours.natural_horizon_s(params[name]) for name, ours in adapters.items()]
        known = [seconds for seconds in lengths if seconds is not None]
        if not known:
            raise ScenarioError(f"{scenario.name} has no end of its own; give one, for example --until 24h")
        horizon = min(known) - scenario.warmup_s
    if not horizon > 0:
        raise ScenarioError(f"until = {horizon:g} s; a run needs at least one step after its warm-up")
    return horizon


def _filled(scenario: Scenario, params: Mapping[str, Any], horizon_s: float) -> Scenario:
    """The scenario with defaults written out, so that a trace documents the run on its own."""
    data = scenario.model_dump()
    data["until_s"] = horizon_s
    known = {*scenario.shared, *_filled_in(scenario)}
    for name, value in params.items():
        dumped = TypeAdapter(type(value)).dump_python(value, mode="json")
        given = data["members"][name]["params"]
        data["members"][name]["params"] = {k: v for k, v in dumped.items() if k in given or k not in known}
    return Scenario(**data)
