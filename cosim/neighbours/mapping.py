"""Ports of a member whose other side has names and units of its own: which signal stands for which port of which
entity, and the values of a tick in either direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from cosim.errors import ModelError, ScenarioError
from cosim.hooks import Values
from cosim.neighbours.conversion import SUMMED, Conversion, SiUnit, conversion
from cosim.params import params
from cosim.ports import Port
from cosim.units import unit_of

_NUMBER = re.compile(r"\d+$")


@params
class NamedSignal:
    """What the other side has for a port."""

    name: Annotated[str, Field(min_length=1, description="name there; {entity} in it is the entity's name, {number} "
                               "the number at its end (bus8: 8). Without either it is one signal for all entities: "
                               "of an input the sum, of an output the same value everywhere")]
    unit: Annotated[str | None, Field(min_length=1, description="unit there, e.g. MW or g/kWh; null: as it says "
                                      "itself")] = None


Signals = dict[str, dict[str, NamedSignal | str | None]]
"""Model -> port -> signal, or its name alone, or None: the port takes what it is linked to, and passes it to
no signal."""


@dataclass(frozen=True)
class Wire:
    """One signal and the ports that it stands for."""

    name: str
    unit: str | None
    model: str
    port: str
    ends: tuple[tuple[str, str], ...]
    path: str

    def converted(self, stated: str | None, si: SiUnit | None = None) -> Conversion:
        """The conversion to the port's unit. stated: the other side's unit, '' or None: none.

        ScenarioError naming the port's field, also where no side states a unit or both state different ones.
        """
        if not stated and not self.unit:
            if unit_of(self.port).dimension == "ratio":
                return Conversion()
            raise ScenarioError(f"{self.path}: '{self.name}' states no unit; give it, e.g. {{\"name\": "
                                f"\"{self.name}\", \"unit\": \"{unit_of(self.port).symbol}\"}}")
        if stated and self.unit and self.unit.strip() != stated.strip():
            raise ScenarioError(f"{self.path}.unit = {self.unit}, and '{self.name}' says that it is in {stated}; leave "
                                "the unit out")
        try:
            return conversion(self.port, stated or self.unit or "", si)
        except ScenarioError as err:
            raise ScenarioError(f"{self.path}: '{self.name}': {err.args[0]}") from None


def ports_of(signals: Signals, flow_of: Callable[[str, str], str], about: Callable[[str, str], str]
             ) -> dict[str, tuple[Port, ...]]:
    """Model -> ports. flow_of, about: of a model's port, 'in' or 'out', and a phrase."""
    return {model: tuple(_port(name, flow_of(model, name), about(model, name)) for name in named)
            for model, named in signals.items()}


def _port(name: str, flow: str, about: str) -> Port:
    if flow == "in" and unit_of(name).dimension in SUMMED:
        return Port(name, "in", about, reduce="sum", default=0.0)
    return Port(name, "in" if flow == "in" else "out", about)


def as_signal(given: NamedSignal | str | None) -> NamedSignal | None:
    """A signal that may be given by its name alone."""
    return NamedSignal(name=given) if isinstance(given, str) else given


def wires(signals: Signals, entities: Mapping[str, Sequence[str]], member: str, field: str,
          only: Collection[tuple[str, str]] | None = None) -> Iterator[Wire]:
    """The signals of all entities that were created. field: of the member, for errors; only: these ports of models.

    ScenarioError for a template that does not fit an entity's name, and for one signal in place of values of which
    each entity has its own.
    """
    for model, named in signals.items():
        for port, given in named.items():
            signal = as_signal(given)
            if signal is None or (only is not None and (model, port) not in only):
                continue
            path, names = f"{member}.{field}.{model}.{port}", list(entities.get(model, ()))
            by_name: dict[str, list[str]] = {}
            for entity in names:
                by_name.setdefault(_filled(signal.name, entity, path), []).append(entity)
            for name, of in by_name.items():
                yield Wire(name, signal.unit, model, port, tuple((entity, port) for entity in of), path)


def _filled(template: str, entity: str, path: str) -> str:
    if "{number}" not in template:
        return template.replace("{entity}", entity)
    found = _NUMBER.search(entity)
    if found is None:
        raise ScenarioError(f"{path}: '{entity}' ends with no number for {{number}} of '{template}'; use {{entity}}")
    return template.replace("{entity}", entity).replace("{number}", str(int(found.group())))


def check_shared(wire: Wire, inward: bool) -> None:
    """ScenarioError for one signal of several entities that each have a value of their own: an intensity taken in, a
    power given out."""
    dimension = unit_of(wire.port).dimension
    if len(wire.ends) > 1 and (dimension in SUMMED) != inward:
        why = f"what several have of it is no sum ({dimension})" if inward else (
            f"each of them would give all of it ({dimension})")
        raise ScenarioError(f"{wire.path}: '{wire.name}' stands for {len(wire.ends)} entities, and {why}; name one for "
                            "each by {entity} or {number}, or create one entity")


def outgoing(wire: Wire, convert: Conversion, inputs: Values) -> float:
    """What a signal gets of a tick's inputs, in its own unit: the sum over its entities."""
    return convert.theirs(sum(inputs[entity][port] for entity, port in wire.ends))


def incoming(wire: Wire, convert: Conversion, value: Any, into: Values) -> None:
    """Put a signal's value into a tick's outputs, in the ports' unit. ModelError for one that is no number."""
    number = convert.ours(float(value)) if isinstance(value, int | float) else float("nan")
    if number - number != 0.0:
        raise ModelError(f"'{wire.name}' = {value!r:.40} is not a finite number")
    for entity, port in wire.ends:
        into[entity][port] = number
