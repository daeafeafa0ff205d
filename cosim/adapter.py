"""Base of our simulators: mosaik's wire format on one side, typed ports and floats on the other.

A subclass declares MODELS (model -> ports) and PARAMS (a frozen pydantic dataclass), builds its engine in `setup` and
computes one tick in `advance`. The same object runs under mosaik, under the native driver and as a process of its own:

    class Battery(Adapter):
        PARAMS = BatteryParams
        MODELS = {"Battery": (Port("p_set_kw", "in", "set point"), Port("p_kw", "out", "power", sign="> 0 charges"))}

        def setup(self): self.store = {eid: 0.0 for eid in self.entities["Battery"]}
        def advance(self, time_s, inputs): return {eid: {"p_kw": inputs[eid]["p_set_kw"]} for eid in self.store}

    if __name__ == "__main__":
        serve(Battery)          # then "cmd: python battery.py %(addr)s" in a scenario
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mosaik_api_v3
import numpy as np
from mosaik_api_v3.types import CreateResult, Meta

from cosim import seeds
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.hooks import Hooks, Values
from cosim.params import validate
from cosim.ports import Port, concat, values_of
from cosim.units import MIN_S, whole_steps


class LazyOutputs(dict[str, Any]):
    """Outputs of one entity, some of which are computed when the first of them is read.

    now: those that are known, the same ones at every tick; rest: gives the others, whenever that is
    """

    def __init__(self, now: Mapping[str, Any], rest: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(now)
        self._rest = rest

    def __missing__(self, name: str) -> Any:
        rest = self._rest()
        self.update(rest)
        return rest[name]


class _OutputCheck:
    """What outputs of one entity have to be: numbers that are finite, by name, and lengths of vectors."""

    def __init__(self, finite: Sequence[Port], lengths: Mapping[str, int]) -> None:
        self.finite, self.lengths = [p.name for p in finite], lengths
        self._scalars, self._vectors = (values_of([p.name for p in finite if bool(p.dims) == long])
                                        for long in (False, True))
        self._measured, self._expected = values_of(list(lengths)), list(lengths.values())

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether all is well at a glance; False may also mean that it takes a closer look (a sum that overflows, a
        type that adds to no number). KeyError."""
        scalars, vectors = self._scalars(values), self._vectors(values)
        try:
            total = sum(scalars, 0.0) + sum(map(sum, vectors))
            return (total.__class__ is float and total - total == 0.0
                    and list(map(len, self._measured(values))) == self._expected)
        except TypeError:
            return False


class Adapter(Hooks, mosaik_api_v3.Simulator):
    """A time-based mosaik simulator with typed ports. See the module for how to write one, and `cosim.hooks` for all
    that a subclass may declare."""

    params: Any
    """An instance of PARAMS; a subclass that declares its type has it checked."""

    def __init__(self) -> None:
        super().__init__({})
        self._outputs: Values = {}
        self._ready = False
        self._lengths: dict[str, dict[str, int]] = {}
        self._checks: dict[str, _OutputCheck] = {}
        self.adopt(self.MODELS)

    def adopt(self, models: Mapping[str, tuple[Port, ...]]) -> None:
        """Offer these models and ports; for simulators that learn them in `init`, before any entity is created."""
        self.models, self.meta = dict(models), _meta_of(models)
        self.entities: dict[str, list[str]] = {model: [] for model in models}
        self._model_of: dict[str, str] = {}
        self._in_ports = {m: {p.name: p for p in ports if p.flow == "in"} for m, ports in models.items()}
        self._defaults = {m: {name: p.default for name, p in ports.items() if p.default is not None
                              and p.kind == "level"} for m, ports in self._in_ports.items()}
        self._sourced = {m: [name for name in ports if name not in self._defaults[m]]
                         for m, ports in self._in_ports.items()}
        self._out_names = {m: [p.name for p in ports if p.flow == "out"] for m, ports in models.items()}
        self._checks.clear()

    # --- what the bus calls -------------------------------------------------------------------------------------

    def init(self, sid: str, time_resolution: float = 1.0, *, step_s: float = MIN_S, seed: int = 0, episode: int = 0,
             **params: Any) -> Meta:
        """Validate `params` against PARAMS. `step_s` must be a whole number of bus steps (`time_resolution` s each)."""
        self.sid, self.step_s, self._resolution_s = sid, float(step_s), float(time_resolution)
        steps = whole_steps(self.step_s, self._resolution_s)
        if steps is None or steps < 1:
            raise ScenarioError(f"{sid}.step_s = {step_s:g} is not a whole number of bus steps ({time_resolution:g} s)")
        self._step_bus = steps
        self._seed, self._episode = int(seed), int(episode)
        self.params = validate(self.PARAMS, params, sid)
        return self.meta

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """`num` entities of `model`; `names` become their ids (default: the model's name and a number). ScenarioError
        for any other parameter."""
        if model not in self.entities:
            raise ScenarioError(f"{self.sid}: {unknown(f'model of {type(self).__name__}', model, self.entities)}")
        for strange in model_params:
            raise ScenarioError(f"{self.sid}: {unknown(f'parameter to create {model} with', strange, ['names'])}")
        have = self.entities[model]
        ids = list(names) if names else [f"{model}-{len(have) + k}" for k in range(num)]
        if len(ids) != num:
            raise ScenarioError(f"{self.sid}: {num} entities of {model} asked for with {len(ids)} names")
        for eid in ids:
            if eid in self._model_of:
                raise ScenarioError(f"{self.sid}: two entities are called '{eid}'; names are unique in a member")
            self._model_of[eid] = model
            have.append(eid)
        return [{"eid": eid, "type": model} for eid in ids]

    def setup_done(self) -> None:
        """Build the engine unless `describe` did already."""
        if not self._ready:
            self._ready = True
            self.setup()

    def describe(self) -> dict:
        """Ports, axis labels and initial outputs as plain data (an extra method on the bus)."""
        self.setup_done()
        labels = self.labels()
        self._lengths = {model: {p.name: len(labels[p.dims[0]]) for p in ports if p.flow == "out" and p.dims}
                         for model, ports in self.models.items() if self.entities[model]}
        self._checks.clear()
        return {
            "ports": {model: [p.to_json() for p in ports] for model, ports in self.models.items()},
            "labels": labels,
            "tables": self.tables(),
            "initial": self.initial(),
        }

    def step(self, time: int, inputs: dict, max_advance: int) -> int:
        """One tick: reduce and check inputs, `advance`, check outputs."""
        outputs = self.advance(time * self._resolution_s, self.read(inputs))
        self._check(outputs)
        self._outputs = outputs
        return time + self._step_bus

    def get_data(self, outputs: dict[str, list[str]]) -> dict:
        """Values of the last tick."""
        values, model_of, whole = self._outputs, self._model_of, self._out_names
        return {eid: values[eid] if values[eid].__class__ is dict and names == whole[model_of[eid]] else
                {name: values[eid][name] for name in names} for eid, names in outputs.items()}

    def stream(self, purpose: str) -> np.random.Generator:
        """This member's random stream for one purpose; all randomness of a simulator comes from here."""
        return seeds.stream(self._seed, self._episode, self.sid, purpose)

    def read(self, inputs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Values:
        """What `advance` gets, from what the bus gives `step`: one value for every in port of every entity."""
        out: Values = {}
        for eid, model in self._model_of.items():
            given, ports = inputs.get(eid) or {}, self._in_ports[model]
            out[eid] = values = self._defaults[model].copy()
            for name, by_source in given.items():
                if len(by_source) == 1:
                    (value,) = by_source.values()
                    # the most frequent cases, at once
                    if value - value == 0.0 if value.__class__ is float else _plainly_finite(value):
                        values[name] = value
                        continue
                if name in ports:
                    values[name] = self._reduce(eid, ports[name], by_source)
            for name in self._sourced[model]:
                if name not in values:
                    values[name] = self._reduce(eid, ports[name], None)
        return out

    # --- inside -------------------------------------------------------------------------------------------------

    def _reduce(self, eid: str, port: Port, by_source: Mapping[str, Any] | None) -> Any:
        if not by_source:
            if port.kind == "event":
                return {}
            if port.default is None:
                raise ModelError(f"{self.sid}.{eid}.{port.name} has no source; link an output to it")
            return port.default
        if len(by_source) == 1:
            (value,) = by_source.values()
        elif port.reduce == "one":
            raise ModelError(f"{self.sid}.{eid}.{port.name} takes one source, got {', '.join(sorted(by_source))}")
        elif port.kind == "event":
            return concat(by_source[s] for s in sorted(by_source))
        else:
            value = math.fsum(by_source[s] for s in sorted(by_source))
        if port.kind == "level" and not port.nullable:
            self._finite(eid, port.name, value)
        return value

    def _check(self, outputs: Values) -> None:
        if not isinstance(outputs, dict):
            raise ModelError(f"advance() of {self.sid} returned {outputs!r:.60}, not a dict: entity -> port -> value")
        for eid, model in self._model_of.items():
            names = self._out_names[model]
            if not names:
                continue
            values = outputs.get(eid)
            if not (isinstance(values, LazyOutputs) or isinstance(values, dict) and len(values) == len(names)):
                raise self._wrong(eid, names, values)
            check = self._checks.get(eid) or self._checked(eid, model, values)
            try:
                good = check.holds(values)
            except KeyError:
                raise self._wrong(eid, names, values) from None
            if not good:
                self._look_closer(eid, check, values)

    def _checked(self, eid: str, model: str, values: Mapping[str, Any]) -> _OutputCheck:
        """What can be checked of an entity's outputs: all of them; of `LazyOutputs` those that are known at once."""
        known = [p for p in self.models[model] if p.flow == "out"
                 and (p.name in values or not isinstance(values, LazyOutputs))]
        lengths = self._lengths.get(model, {})
        self._checks[eid] = check = _OutputCheck([p for p in known if p.kind == "level" and not p.nullable],
                                                 {p.name: lengths[p.name] for p in known if p.name in lengths})
        return check

    def _look_closer(self, eid: str, check: _OutputCheck, values: Mapping[str, Any]) -> None:
        """ModelError for the first output that is not finite, or not as long as its axis."""
        for name in check.finite:
            self._finite(eid, name, values[name])
        for name, length in check.lengths.items():
            if len(values[name]) != length:
                raise ModelError(f"{self.sid}.{eid}.{name} has {len(values[name])} values, not {length}")

    def _wrong(self, eid: str, names: list[str], values: Any) -> ModelError:
        given = values if isinstance(values, dict) else ()
        missing = ", ".join(sorted(set(names) ^ set(given)))
        return ModelError(f"{self.sid}.{eid} gave the wrong outputs; missing or unknown: {missing}")

    def _finite(self, eid: str, name: str, value: Any) -> None:
        try:
            good = all(map(math.isfinite, value)) if isinstance(value, (list, tuple)) else math.isfinite(value)
        except TypeError:
            good = False
        if not good:
            raise ModelError(f"{self.sid}.{eid}.{name} = {value!r} is not finite")


class ExogenousAdapter(Adapter):
    """An adapter whose outputs follow from the time alone, and whose time goes on in the next world (`carry`).

    origin_s  time gone by before this world, s: a table's time is origin_s + the world's
    """

    origin_s = 0.0
    _end_s = 0.0

    def step(self, time: int, inputs: dict, max_advance: int) -> int:
        """As `Adapter`; `max_advance` is the end of the world."""
        self._end_s = max_advance * self._resolution_s
        return super().step(time, inputs, max_advance)

    def carry(self) -> dict[str, np.ndarray]:
        """Time gone by until the end of this world."""
        return {"origin_s": np.array(self.origin_s + self._end_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on in time."""
        self.origin_s = float(carry.get("origin_s", 0.0))


def _plainly_finite(value: Any) -> bool:
    """Whether `value` is a finite float or a list of them, at a glance; False may also mean that it takes a closer
    look (a sum that overflows, another type)."""
    kind = value.__class__
    if kind is float:
        return value - value == 0.0
    if kind is list:
        try:
            total = sum(value)
        except TypeError:
            return False
        return total - total == 0.0
    return False


def _meta_of(models: Mapping[str, tuple[Port, ...]]) -> Meta:
    """mosaik's META for typed ports."""
    return {
        "api_version": "3.0",
        "type": "time-based",
        "models": {
            model: {"public": True, "params": ["names"], "attrs": list(dict.fromkeys(p.name for p in ports))}
            for model, ports in models.items()
        },
        "extra_methods": ["describe", "closing", "notes"],
    }


def serve(simulator: type[Adapter]) -> None:
    """Run a simulator as a process of its own (mosaik's `cmd` and `connect` members)."""
    mosaik_api_v3.start_simulation(simulator(), configure_logging=False)
