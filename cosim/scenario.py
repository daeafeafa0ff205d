"""A scenario, as frozen data: the simulators, how they are linked, and for how long they run.

    Scenario(
        name="two_bus", about="the smallest loop", until_s="45min",
        shared={"sites": {"aidc1": {"node": 1}}},
        members={"grid": Member(simulator="cosim.simulators.grid.adapter:CefDispatch", step_s="15min",
                                entities={"Bus": ["bus0", "bus1"], "Grid": ["grid"]})},
        links=[Link(source="aidc.p_window_kw", target="grid.p_load_kw", pairs="sites:bus{node}", shift_s=60)],
    )

It holds no objects and no code: simulators are import strings, so that a scenario goes to JSON, into a trace, and back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import to_jsonable_python

from cosim.errors import ScenarioError, cut, shown, unknown
from cosim.imports import today
from cosim.limits import MOST_DEPTH, refuse_odd
from cosim.params import explain, field_names
from cosim.units import DAY_S, HOUR_S, MIN_S, Seconds

Json = Annotated[dict[str, JsonValue], BeforeValidator(to_jsonable_python)]
DEFAULT_START = "2026-01-01T00:00:00"
_YEARS = range(1900, 2201)
_FRAME_FIELDS = ("seeds", "shared", "resolution_s", "flush_s", "start", "warmup_s", "until_s", "seed", "episode")


def _member_port(text: str) -> str:
    member, dot, port = text.partition(".")
    if not (member and dot and port):
        raise ValueError("write member.port, for example grid.p_load_kw")
    return text


def _date(text: str) -> str:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write an ISO date, for example 2026-01-01") from None
    if date.year not in _YEARS:
        raise ValueError(f"a run begins in a year from {_YEARS[0]} to {_YEARS[-1]}")
    if date.utcoffset():
        raise ValueError("a run begins at midnight UTC; leave out the offset, and give tables their time_zone")
    date = date.replace(tzinfo=None)
    if date.time() != time():
        raise ValueError("a run begins at midnight, as its prices and profiles do; leave out the time of day")
    return date.isoformat(timespec="seconds")


Date = Annotated[str, AfterValidator(_date)]
MemberPort = Annotated[str, AfterValidator(_member_port)]
ImportString = Annotated[str, AfterValidator(today)]
"""'package.module:Name'; names of earlier versions become those of today."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return refuse_odd(data)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, validated as a new one is: pydantic's own takes whatever it is given.
        Dictionaries are copied with or without `deep`."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | dict(update or {}))


def _fmu(simulator: str) -> str:
    return simulator if simulator.lower().endswith(".fmu") and not simulator.startswith(("cmd:", "connect:")) else ""


def _federate(simulator: str) -> str:
    """'helics: COMMAND' and 'helics: connect: HOST:PORT' as the parameter of the member that plays them."""
    kind, colon, rest = simulator.partition(":")
    rest = rest.strip()
    if kind != "helics" or not colon or not rest:
        return ""
    return rest if rest.startswith(("cmd:", "connect:")) else f"cmd: {rest}"


_PLAYED = ((_fmu, "cosim.neighbours.fmu:FmuMember", "path"),
           (_federate, "cosim.neighbours.helics_federate:HelicsMember", "federate"))
"""What may stand for a simulator -> the member that plays it, and its parameter for that."""


def rows_of(table: Any, name: str) -> dict[str, dict[str, Any]]:
    """Rows of a table in a scenario's data, by name. ScenarioError where it is none."""
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ScenarioError(f"'{name}' is no table of rows")
    return table


class Member(_Data):
    """One simulator of a scenario.

    `entities` lists what to create: model -> list of names, or the name of a shared table (one entity per row), or of a
    parameter that implies them ('network': its buses; `cosim.hooks.Hooks.entity_names`), or a dict of parameters for
    `create` (one entity; for simulators that are not built on cosim.adapter). `params` go to the
    simulator's `init`; fields it declares and that are not given here are taken from the scenario's `shared` tables.
    """

    simulator: ImportString = Field(description="'package.module:Class', 'folder/file.py:Class', "
                                    "'cmd: COMMAND %(addr)s' or 'connect: HOST:PORT'; also an .fmu file, and "
                                    "'helics: COMMAND %(broker)s'")
    step_s: Seconds = Field(gt=0, description="bus step of this member, s")
    entities: dict[str, tuple[str, ...] | str | Json] = Field(min_length=1)
    params: Json = {}
    shared: tuple[str, ...] | None = Field(None, description="shared tables it takes; null: those its PARAMS declare")
    names: dict[str, str] = Field({}, description="our port, or entity pattern with one *, -> theirs; '@0.001' scales")
    adapter: bool | None = Field(None, description="built on cosim.adapter; null: derived from the class")
    timeout_s: Seconds = Field(60, gt=0, description="wall-clock seconds a remote member may take for one answer")
    secret: str | None = Field(None, description="for 'connect: ...': environment variable with the secret that a "
                               "cosim serve elsewhere was given")

    @model_validator(mode="before")
    @classmethod
    def _neighbours(cls, data: Any) -> Any:
        """A file that is a model, and a federate, are parameters of the members that play them."""
        simulator = data.get("simulator") if isinstance(data, dict) else None
        for fits, plays, field in _PLAYED:
            if isinstance(simulator, str) and (found := fits(simulator.strip())):
                params = data.get("params") or {}
                if isinstance(params, dict) and params.get(field, found) != found:
                    raise ValueError(f"simulator is {found}, and params.{field} = {shown(params[field])}; give one")
                return {**data, "simulator": plays, "params": {**params, field: found}}
        return data


class Link(_Data):
    """Values of one out port to one in port, every pair of entities. 'member.Model.port' where two models share a name.

    pairs    None: by name; where no name is on both sides, all to the only entity, or the only one to all;
             'sites:bus{node}': the entity called like a row of the shared table to the one that the template names;
             {'aidc1': 'bus8'}: as listed
    shift_s  the value arrives this much later ('step': one step of the source); closes a loop
    initial  value before the first shifted one; None: the simulator's own `initial()`
    scale    factor on the way; None: from the two names' units
    optional left out, not an error, where the source has no such port
    or_port  port of the target for one that does not have the one named: grid.p_load_kw of a grid without p_site_kw
    """

    source: MemberPort
    target: MemberPort
    pairs: str | dict[str, str | tuple[str, ...]] | None = None
    shift_s: Literal["step"] | Seconds = 0
    initial: JsonValue = None
    scale: float | None = None
    optional: bool = False
    or_port: str | None = None


class Scenario(_Data):
    """A co-simulation as data. See the module for an example, `Member` and `Link` for their fields."""

    name: str = Field(min_length=1)
    about: str = Field(min_length=1, description="one line for --list")
    start: Date | None = Field(DEFAULT_START, description="date of t = 0, ISO 8601, taken as UTC; null: as the data "
                               "played say, else the default")
    until_s: Seconds | None = Field(DAY_S, gt=0, description="horizon; null: as long as the workload lasts")
    warmup_s: Seconds = Field(0.0, ge=0, description="run before until_s, kept out of the summary")
    resolution_s: Seconds = Field(MIN_S, ge=0.001, description="one bus step, s")
    flush_s: Seconds = Field(4 * HOUR_S, gt=0, description="simulated time between writes to the trace, at most: much "
                             "that waits is written before, and in real time what is an hour old")
    seed: int = Field(0, ge=0, lt=2**63)
    episode: int = Field(0, ge=0, lt=2**63, description="same seed, another day: its own random numbers")
    seeds: dict[str, Annotated[int, Field(ge=0, lt=2**63)]] = Field({}, description="member -> its own seed")
    shared: Json = {}
    members: dict[str, Member] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    preflight: ImportString | None = Field(None, description="'module:function' called before the run with the "
                                           "scenario")
    summary: ImportString | None = Field(None, description="'module:function' called after the run with its trace")
    verify: ImportString | None = Field(None, description="'module:function' that checks a trace's conservation laws")
    report: ImportString | None = Field(None, description="'module:NAME' of what its page and its live view show (a "
                                        "cosim.reporting.definition.Report); null: what goes with its summary, or "
                                        "every port by unit")
    contracts: ImportString | None = Field(None, description="'module:NAME' of what its members have to keep beside "
                                           "the frame's own checks, member -> checks (cosim check); null: what goes "
                                           "with its summary")
    environment: ImportString | None = Field(None, description="'module:Class' through which agents learn on it "
                                             "(cosim.learning.vector)")

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as err:
            raise ScenarioError(explain(err, Scenario, str(data.get("name", "scenario")), data)) from None

    def model_post_init(self, _: Any) -> None:
        """Refuses names that a command line could not distinguish, and links and seeds of members that are not
        there."""
        for name in self.members:
            if name in _FRAME_FIELDS or "." in name:
                raise ScenarioError(f"member '{name}' of {self.name}: this name is taken by the frame; choose another")
        named = [(f"seeds.{m}", m) for m in self.seeds]
        for link in self.links:
            named += [(f"link {link.source} -> {link.target}", end.split(".")[0]) for end in (link.source, link.target)]
        for where, member in named:
            if member not in self.members:
                raise ScenarioError(f"{where}: {unknown('member', member, self.members)}")

    def seed_of(self, member: str) -> int:
        """The seed of one member: its own if pinned, else the scenario's."""
        return self.seeds.get(member, self.seed)

    def to_json(self) -> str:
        """The scenario as JSON text; `from_json` reads it back."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """A scenario from `to_json`. Raises ScenarioError."""
        try:
            data = json.loads(text)
        except RecursionError:
            raise ScenarioError(f"scenario text is nested deeper than {MOST_DEPTH} levels") from None
        except (ValueError, TypeError) as err:
            raise ScenarioError(f"scenario text is not valid JSON: {err}") from None
        if not isinstance(data, dict):
            raise ScenarioError(f"scenario text is {shown(data)}; a scenario is an object with name, members, ...")
        return cls(**data)

    def replace(self, **fields: Any) -> Scenario:
        """A copy with some top-level fields changed, validated again."""
        return Scenario(**{**self.model_dump(), **fields})


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in a tree of dicts that is no dict, 'sites.aidc1.racks' for example, in its order; an
    empty dict is a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def named_rows(table: Any, template: str) -> dict[str, str]:
    """Row of a shared table -> what a template such as 'bus{node}' makes of its fields. ValueError with the reason for
    one that does not fit the table."""
    try:
        return {row: template.format_map(fields) for row, fields in table.items()}
    except (AttributeError, KeyError, ValueError, IndexError, TypeError) as err:
        raise ValueError(repr(err)) from None


def plug(scenario: Scenario, member: str, simulator: str) -> Scenario:
    """A copy with another simulator in a member's place. Its step, entities and links stay; its parameters and names
    are the new one's, by `--set` and `--map`. Raises ScenarioError."""
    if member not in scenario.members:
        raise ScenarioError(f"--use {member}={simulator}: {unknown('member', member, scenario.members)}")
    old = scenario.members[member]
    new = Member(simulator=simulator, step_s=old.step_s, entities=old.entities, timeout_s=old.timeout_s)
    return scenario.replace(members={**scenario.members, member: new})


def rename(scenario: Scenario, names: Mapping[str, str]) -> Scenario:
    """A copy with `names` applied: 'member.port' or 'member.entity*' -> what the member's simulator calls it."""
    members = dict(scenario.members)
    for path, theirs in names.items():
        member, dot, ours = path.partition(".")
        if not (dot and ours and theirs):
            raise ScenarioError(f"--map {path}={theirs}: write member.port=theirs, e.g. grid.p_load_kw='P_load[MW]'")
        if member not in members:
            raise ScenarioError(f"--map {path}={theirs}: {unknown('member', member, members)}")
        members[member] = members[member].model_copy(update={"names": {**members[member].names, ours: theirs}})
    return scenario.replace(members=members)


def override(scenario: Scenario, settings: Mapping[str, Any]) -> Scenario:
    """A copy with `settings` applied: path -> value, as `--set` gives them.

    Paths: 'member.field', 'member.field.key...', 'member.step_s', 'shared.table.row.field', 'seeds.member'. Values may
    be Python data or text (JSON where it parses, else the text itself). Raises ScenarioError.
    """
    data = scenario.model_dump()
    for path, value in settings.items():
        if path.count(".") > MOST_DEPTH:
            raise ScenarioError(f"--set {cut(path)}: a path has at most {MOST_DEPTH} dots")
        _set(data, path.split("."), _value(value), path)
    return Scenario(**data)


def _set(data: dict, parts: list[str], value: Any, path: str) -> None:
    head, *rest = parts
    if head in data["members"]:
        if not rest:
            raise ScenarioError(f"--set {path}: name a field of the member, for example {head}.step_s=60")
        member = data["members"][head]
        frame_field = rest[0] in field_names(Member) and rest[0] != "params"
        where = member if frame_field else member.setdefault("params", {})
    elif head in _FRAME_FIELDS:
        where, rest = data, parts
    else:
        raise ScenarioError(f"--set {cut(path)}: {unknown('member', head, [*data['members'], *_FRAME_FIELDS])}")
    if head == "shared" and len(rest) > 1:
        _known_table(data["shared"], rest[1], path)
    for part in rest[:-1]:
        where = where.setdefault(part, {})
        if not isinstance(where, dict):
            raise ScenarioError(f"--set {cut(path)}: '{cut(part)}' has no fields; it is {shown(where)}")
    where[rest[-1]] = value


def _known_table(shared: dict, table: str, path: str) -> None:
    if table not in shared:
        raise ScenarioError(f"--set {cut(path)}: {unknown('shared table', table, shared)}")


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return copy.deepcopy(to_jsonable_python(refuse_odd(value)))
    try:
        return json.loads(value)
    except ValueError:
        return value
    except RecursionError:
        raise ScenarioError(f"--set ...={cut(value)}: a value is nested at most {MOST_DEPTH} levels deep") from None
