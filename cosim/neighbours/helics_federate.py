"""A member at the other end of a HELICS federation: `--use "grid=helics: COMMAND %(broker)s"`.

At every tick its inputs are published at the tick's time, and its outputs are what the federation has published until
`answer_s` later. The federates keep their own steps; who is to answer the same tick requests times with
HELICS_FLAG_WAIT_FOR_CURRENT_TIME_UPDATE, or a time within `answer_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mosaik_api_v3.types import Meta
from pydantic import Field

from cosim.adapter import Adapter
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.hooks import Values
from cosim.neighbours.conversion import Conversion
from cosim.neighbours.federation import Federation
from cosim.neighbours.mapping import Signals, Wire, check_shared, incoming, outgoing, ports_of, wires
from cosim.params import params
from cosim.units import Seconds, format_time, unit_of


@params
class HelicsParams:
    """Which federation, and which of its keys are what."""

    federate: Annotated[str, Field(pattern=r"^(cmd|connect):", description="cmd: COMMAND %(broker)s, which is started "
                                   "with a broker on this machine; or connect: HOST:PORT of a broker that is there")]
    publications: Annotated[Signals, Field(default_factory=dict, description="model -> in port -> the key under which "
                                           "it is published: the name, or {name, unit}; null: to nobody")]
    subscriptions: Annotated[Signals, Field(min_length=1, description="model -> out port -> the key whose values it "
                                            "gives: the name, or {name, unit} where its publisher states no unit")]
    first_values: Annotated[dict[str, float], Field(default_factory=dict, description="by key, in its unit: value "
                                                    "until something is published; without one, nothing is an error")]
    answer_s: Annotated[Seconds, Field(gt=0, description="time after a tick, in the federation, until which what is "
                                       "published is the tick's output; at most the member's step")] = 1.0
    name: Annotated[str, Field(min_length=1, description="of our federate")] = "cosim"
    others: Annotated[int, Field(ge=1, le=1000, description="federates that join a broker that is started here, beside "
                                 "ours")] = 1
    core: Annotated[Literal["zmq_ss", "zmq", "tcp_ss", "tcp"], Field(
        description="HELICS core type, the same for all federates")] = "zmq_ss"
    timeout_s: Annotated[Seconds, Field(gt=0, description="wall-clock seconds that an answer may take")] = 60.0


class HelicsMember(Adapter):
    """Federates of HELICS in a member's place."""

    PARAMS = HelicsParams
    MODELS = {}
    params: HelicsParams

    @classmethod
    def model_names(cls, given: Mapping[str, Any]) -> list[str] | None:
        """The models of `publications` and `subscriptions`."""
        tables = [given.get("publications") or {}, given.get("subscriptions")]
        return list({**tables[0], **tables[1]}) if all(isinstance(t, Mapping) for t in tables) else None  # type: ignore

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Read which ports there are; nothing is started yet."""
        super().init(sid, time_resolution, **params)
        p = self.params
        if p.answer_s > self.step_s:
            raise ScenarioError(f"{sid}.answer_s = {p.answer_s:g} is longer than the member's step of {self.step_s:g} "
                                "s")
        for model, named in p.subscriptions.items():
            if twice := [port for port in named if port in p.publications.get(model, {}) or named[port] is None]:
                raise ScenarioError(f"{sid}.subscriptions.{model}.{twice[0]} has no key, or is published, too; a port "
                                    "is an input or an output")
        self._federation = Federation(sid, p.federate, p.name, p.others, p.core, p.timeout_s)
        into = ports_of(p.publications, lambda *_: "in", lambda *_: "published to the federation")
        out = ports_of(p.subscriptions, lambda *_: "out", lambda *_: "as the federation publishes it")
        self.adopt({model: (*into.get(model, ()), *out.get(model, ())) for model in {**into, **out}})
        return self.meta

    def setup(self) -> None:
        """Start what is to be started, and join."""
        p = self.params
        publish = list(wires(p.publications, self.entities, self.sid, "publications"))
        subscribe = list(wires(p.subscriptions, self.entities, self.sid, "subscriptions"))
        for wire in (*publish, *subscribe):
            check_shared(wire, wire in publish)
        keys = [wire.name for wire in publish]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ScenarioError(f"{self.sid}.publications: '{twice[0]}' is published for several ports; give each a "
                                "key")
        for key in p.first_values:
            if key not in [wire.name for wire in subscribe]:
                raise ScenarioError(f"{self.sid}.first_values: "
                                    f"{unknown('key', key, [wire.name for wire in subscribe])}")
        self._publish: list[tuple[Wire, Conversion]] = []
        units: dict[str, str] = {}
        for wire in publish:
            units[wire.name] = wire.unit or unit_of(wire.port).symbol
            self._publish.append((wire, _checked(wire, wire.unit)))
        said = self._federation.start(units, list(dict.fromkeys(wire.name for wire in subscribe)))
        self._subscribe = [(wire, wire.converted(said[wire.name])) for wire in subscribe]
        self._standing: dict[str, float] = dict(p.first_values)
        self._fresh = dict.fromkeys(said, 0)
        self._ticks = 0

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Keys of the federation and their units."""
        rows = [(wire.name, f"{wire.model}.{wire.port}", "publication", wire.unit or unit_of(wire.port).symbol)
                for wire, _ in self._publish]
        rows += [(wire.name, f"{wire.model}.{wire.port}", "subscription", unit_of(wire.port).symbol)
                 for wire, _ in self._subscribe]
        return {"helics": {name: [row[k] for row in rows] for k, name in enumerate(("key", "port", "as", "unit"))}}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """Publish, let the federation go on by `answer_s`, read."""
        if time_s > 0.0:
            self._federation.go_to(time_s)
        self._federation.publish({wire.name: outgoing(wire, convert, inputs) for wire, convert in self._publish})
        self._federation.go_to(time_s + self.params.answer_s)
        self._ticks += 1
        for key, (value, fresh) in self._federation.read().items():
            if fresh:
                self._standing[key] = value
                self._fresh[key] += 1
            elif key not in self._standing:
                raise ModelError(f"{self.sid}: nothing was published to '{key}' until {self.params.answer_s:g} s after "
                                 f"the tick at {format_time(time_s)}; raise answer_s, or give first_values")
        out: Values = {eid: {} for eid in self._model_of}
        for wire, convert in self._subscribe:
            incoming(wire, convert, self._standing[wire.name], out)
        return out

    def notes(self) -> list[str]:
        """Keys that stood still in some ticks, and inputs that are not published."""
        if not self._ready or not hasattr(self, "_fresh"):
            return []
        still = [f"'{key}' in {count} of {self._ticks}" for key, count in self._fresh.items() if count < self._ticks]
        idle = [port for named in self.params.publications.values() for port, signal in named.items() if signal is None]
        return [*([f"{self.sid}: new values came to {', '.join(still[:4])} ticks; in the others what came before stood"]
                  if still else []),
                *([f"{self.sid}: {', '.join(idle)} is published to nobody, and counts nowhere"] if idle else [])]

    def finalize(self) -> None:
        """Leave the federation, and end what was started."""
        if hasattr(self, "_federation"):
            self._federation.close()


def _checked(wire: Wire, unit: str | None) -> Conversion:
    """The conversion of what is published; without a unit of its own it has that of the port."""
    return wire.converted(None) if unit else Conversion()
