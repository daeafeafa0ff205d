"""An FMU as a member: `--use grid=model.fmu`, with `ports` that name its variables.

At every tick its inputs are set, it goes on by the member's step, and its outputs are read: those at the step's end, or
(`outputs_at` = start) those that stood before the tick's inputs. Units are those that the FMU states; what it measures
has to be what the port does. It is native code and begins every learner's day anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mosaik_api_v3.types import Meta
from pydantic import Field

from cosim.adapter import Adapter
from cosim.errors import ScenarioError
from cosim.hooks import Values
from cosim.neighbours.conversion import Conversion
from cosim.neighbours.fmi import Fmu, FmuVariable
from cosim.neighbours.mapping import (
    Signals,
    Wire,
    as_signal,
    check_shared,
    incoming,
    outgoing,
    ports_of,
    wires,
)
from cosim.params import params
from cosim.units import Seconds, whole_steps

_START = {"parameter", "structuralParameter", "input"}


@params
class FmuParams:
    """Which FMU, what its variables are called, and how it is begun and stepped."""

    path: Annotated[str, Field(pattern=r"(?i)\.fmu$", description="file, .fmu: FMI 2.0 or 3.0 for co-simulation")]
    ports: Annotated[Signals, Field(min_length=1, description="model -> port -> its variable: the name, or {name, "
                                    "unit}; an input of the FMU is an in port, any other variable an out port; null: "
                                    "an in port that the FMU does not get")]
    start_values: Annotated[dict[str, float], Field(default_factory=dict, description="parameters and first inputs by "
                                                    "their variable, in the FMU's own units")]
    communication_step_s: Annotated[Seconds | None, Field(gt=0, description="step of the FMU, a part of the "
                                                          "member's; null: the member's")] = None
    outputs_at: Annotated[Literal["end", "start"], Field(description="which outputs a tick gives: those at the end of "
                                                         "its step, or those before its inputs")] = "end"
    start_s: Annotated[float, Field(allow_inf_nan=False, description="the FMU's time at t = 0, s")] = 0.0
    tolerance: Annotated[float | None, Field(gt=0, le=1, description="of its solver, relative; null: its own")] = None


class FmuMember(Adapter):
    """A functional mock-up unit in a member's place."""

    PARAMS = FmuParams
    MODELS = {}
    params: FmuParams

    @classmethod
    def model_names(cls, given: Mapping[str, Any]) -> list[str] | None:
        """The models of `ports`."""
        return list(given["ports"]) if isinstance(given.get("ports"), Mapping) else None

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Read the FMU's description. ScenarioError for a port that it has no variable for, or of another kind."""
        super().init(sid, time_resolution, **params)
        self._fmu = Fmu(self.params.path, sid)
        self._own_step_s = self.params.communication_step_s or self.step_s
        self._steps = whole_steps(self.step_s, self._own_step_s)
        if not self._steps:
            raise ScenarioError(f"{sid}.communication_step_s = {self._own_step_s:g} does not divide the member's step "
                                f"of {self.step_s:g} s")
        self.adopt(ports_of(self.params.ports, self._flow, self._about))
        return self.meta

    def setup(self) -> None:
        """Load and initialise the FMU."""
        self._in: list[tuple[Wire, FmuVariable, Conversion]] = []
        self._out: list[tuple[Wire, FmuVariable, Conversion]] = []
        for wire in wires(self.params.ports, self.entities, self.sid, "ports"):
            variable = self._fmu.variable(wire.name, wire.path)
            inward = variable.causality == "input"
            if inward != (self._flow(wire.model, wire.port) == "in"):
                raise ScenarioError(f"{wire.path}: '{wire.name}' is {_a(variable.causality)}, and other entities have "
                                    "another kind of variable there")
            check_shared(wire, inward)
            (self._in if inward else self._out).append((wire, variable, wire.converted(variable.unit, variable.si)))
        start = {self._settable(name): value for name, value in self.params.start_values.items()}
        self._fmu.start(self.sid, start, self.params.start_s, self.params.tolerance)

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """What is run: file, model, version of FMI, token and SHA-256 of the file."""
        fmu = self._fmu
        return {"fmu": {"file": [fmu.path], "model": [str(fmu.model)], "fmi": [fmu.version], "token": [str(fmu.token)],
                        "sha256": [fmu.sha256]}}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """Set the inputs, step, read the outputs."""
        before = self._read() if self.params.outputs_at == "start" else None
        self._fmu.set({variable: outgoing(wire, convert, inputs) for wire, variable, convert in self._in})
        for k in range(self._steps or 1):
            self._fmu.step(self.params.start_s + time_s + k * self._own_step_s, self._own_step_s)
        return self._read() if before is None else before

    def notes(self) -> list[str]:
        """Which inputs the FMU did not get."""
        idle = [port for named in self.params.ports.values() for port, signal in named.items() if signal is None]
        return [f"{self.sid}: {self.params.path} takes no {', '.join(idle)}, which was linked and counts nowhere"
                ] if idle else []

    def finalize(self) -> None:
        """End the FMU."""
        if hasattr(self, "_fmu"):
            self._fmu.close()

    def _read(self) -> Values:
        out: Values = {eid: {} for eid in self._model_of}
        values = self._fmu.get([variable for _, variable, _ in self._out])
        for (wire, _, convert), value in zip(self._out, values, strict=True):
            incoming(wire, convert, value, out)
        return out

    def _flow(self, model: str, port: str) -> str:
        """By the FMU's causality of the variable, whose name may depend on the entity."""
        signal = as_signal(self.params.ports[model][port])
        if signal is None:
            return "in"
        variable = self._example(signal.name, f"{self.sid}.ports.{model}.{port}")
        if variable.causality in ("parameter", "structuralParameter", "independent"):
            raise ScenarioError(f"{self.sid}.ports.{model}.{port}: '{variable.name}' is {_a(variable.causality)}, "
                                "which does not change in a run; give it in start_values")
        return "in" if variable.causality == "input" else "out"

    def _about(self, model: str, port: str) -> str:
        signal = as_signal(self.params.ports[model][port])
        if signal is None:
            return f"taken, and not given to {self.params.path}"
        variable = self._example(signal.name, f"{self.sid}.ports.{model}.{port}")
        return variable.about or f"{signal.name} of {self.params.path}"

    def _example(self, template: str, where: str) -> FmuVariable:
        """The variable of a template; of one with {entity} or {number} the first that fits it."""
        if template in self._fmu.variables or "{" not in template:
            return self._fmu.variable(template, where)
        parts = template.replace("{number}", "{entity}").split("{entity}")
        for name in self._fmu.variables:
            if name.startswith(parts[0]) and name.endswith(parts[-1]) and len(name) > sum(map(len, parts)):
                return self._fmu.variable(name, where)
        return self._fmu.variable(template, where)

    def _settable(self, name: str) -> FmuVariable:
        where = f"{self.sid}.start_values"
        variable = self._fmu.variable(name, where)
        if variable.causality not in _START:
            raise ScenarioError(f"{where}: '{name}' is {_a(variable.causality)}, which cannot be set; parameters and "
                                "inputs can")
        return variable


def _a(causality: str) -> str:
    return {"output": "an output", "input": "an input", "independent": "the time", "local": "a local variable",
            "calculatedParameter": "a calculated parameter"}.get(causality, f"a {causality}")
