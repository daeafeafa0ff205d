"""Functional mock-up units for co-simulation, FMI 2.0 and 3.0, through FMPy (extra `fmu`).

An FMU is native code: it runs in this process, and what it does wrong can end it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.errors import ModelError, ScenarioError, cut, first_line, listed, unknown
from cosim.imports import optional
from cosim.limits import is_file
from cosim.neighbours.conversion import SiUnit

_KINDS = {"Real": "Real", "Float64": "Float64", "Float32": "Float32", "Integer": "Integer", "Boolean": "Boolean",
          "Enumeration": "Integer", **{f"{u}Int{n}": f"{u}Int{n}" for u in ("", "U") for n in (8, 16, 32, 64)}}
"""FMI type of a variable -> what the functions that get and set it are called after. FMI 3.0's enumerations are 64 bits
wide, see `_call_name`."""
_WHOLE = {kind for kind in _KINDS if "Int" in kind} | {"Enumeration"}
_OPEN: dict[str, int] = {}
"""Instances of an FMU's token that are alive in this process."""
_LATEST = 3


@dataclass(frozen=True, eq=False)
class FmuVariable:
    """A variable of an FMU. unit: its name, '' where it has none; si: that unit's base units, where they are given."""

    name: str
    reference: int
    kind: str
    causality: str
    unit: str
    si: SiUnit | None
    about: str
    tunable: bool
    array: bool


class Fmu:
    """An FMU's description; `start` makes an instance, `close` ends it and removes its files. Not for threads.

    ScenarioError where the file is no FMU for co-simulation, or has no program for this system.
    """

    def __init__(self, path: str, owner: str) -> None:
        self.path, self.owner = path, owner
        if not is_file(path):
            raise ScenarioError(f"{owner}.path: no file at {cut(path)}, as seen from {Path.cwd()}")
        with optional("an FMU", "fmu"):
            import fmpy
        try:
            about = fmpy.read_model_description(path, validate=False)
            platforms = fmpy.supported_platforms(path)
        except Exception as err:  # of zip, XML, or what FMPy finds wrong
            raise ScenarioError(f"{owner}.path: {cut(path)} is no FMU that can be read: {first_line(err)}") from None
        self.version = str(about.fmiVersion)
        if about.coSimulation is None or self.version[:2] not in ("2.", "3."):
            kind = "FMI " + self.version if self.version[:2] not in ("2.", "3.") else "model exchange alone"
            raise ScenarioError(f"{owner}.path: {cut(path)} is for {kind}; export it for co-simulation by FMI 2.0 or "
                                "3.0")
        if fmpy.platform not in platforms:
            raise ScenarioError(f"{owner}.path: {cut(path)} has no program for this system ({fmpy.platform}), but for "
                                f"{listed(platforms)}; export it for this one, or compile its sources by fmpy compile")
        self.model, self.token = about.modelName, about.guid
        self._identifier = about.coSimulation.modelIdentifier
        self._single = bool(about.coSimulation.canBeInstantiatedOnlyOncePerProcess)
        units = {u.name: u.baseUnit for u in about.unitDefinitions}
        self.variables = {v.name: _variable(v, units) for v in about.modelVariables}
        self._instance: Any = None
        self._folder: str | None = None
        self._said: list[str] = []

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def variable(self, name: str, where: str) -> FmuVariable:
        """A variable of a number. ScenarioError, naming `where` in the scenario it stands, if there is none or it
        is no number."""
        if name not in self.variables:
            raise ScenarioError(f"{where}: {unknown(f'variable of {cut(self.path)}', name, self.variables)}")
        found = self.variables[name]
        if found.array or found.kind not in _KINDS:
            what = "an array" if found.array else f"of type {found.kind}"
            raise ScenarioError(f"{where}: '{name}' is {what}; a port takes one number")
        return found

    def start(self, instance: str, start_values: Mapping[FmuVariable, float], start_s: float,
              tolerance: float | None) -> None:
        """Load it and initialise it at `start_s`, with values in its own units. ModelError with its own messages."""
        if self._single and _OPEN.get(self.token):
            raise ScenarioError(f"{self.owner}: {cut(self.path)} can be there once in a process, and is there already; "
                                "run it as a process of its own (cosim serve)")
        with self._failing("to start"):
            self._instance = self._loaded(instance)
            _OPEN[self.token] = _OPEN.get(self.token, 0) + 1
            if self.version[0] == "2":
                self._instance.instantiate(callbacks=self._callbacks())
                self._instance.setupExperiment(tolerance=tolerance, startTime=start_s)
                self._set(start_values)
                self._instance.enterInitializationMode()
            else:
                self._instance.instantiate(logMessage=lambda _, status, category, text: self._hear(status, text))
                self._set(start_values)
                self._instance.enterInitializationMode(tolerance=tolerance, startTime=start_s)
            self._instance.exitInitializationMode()

    def set(self, values: Mapping[FmuVariable, float]) -> None:
        """Set inputs, in its own units."""
        with self._failing("to take its inputs"):
            self._set(values)

    def get(self, variables: Sequence[FmuVariable]) -> list[float]:
        """Values of variables, in its own units."""
        out = dict.fromkeys(variables, 0.0)
        with self._failing("to give its outputs"):
            for kind, of in _by_kind(variables).items():
                read = getattr(self._instance, f"get{self._call_name(kind)}")
                out.update(zip(of, map(float, read([v.reference for v in of])), strict=True))
        return [out[v] for v in variables]

    def step(self, time_s: float, step_s: float) -> None:
        """Go on by a communication step."""
        with self._failing(f"at {time_s:g} s in a step of {step_s:g} s"):
            done = self._instance.doStep(time_s, step_s)
            if done is not None and (done[1] or done[2]):
                raise ModelError("it ended the simulation" if done[1] else "it stopped inside the step")

    def close(self) -> None:
        """End the instance, which may have failed, and remove its files."""
        instance, self._instance = self._instance, None
        if instance is not None:
            if instance.component:
                with contextlib.suppress(Exception):  # after an error it may not be ended
                    instance.terminate()
                with contextlib.suppress(Exception):
                    instance.freeInstance()
            _OPEN[self.token] -= 1
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _loaded(self, instance: str) -> Any:
        import fmpy
        from fmpy.fmi2 import FMU2Slave
        from fmpy.fmi3 import FMU3Slave

        self._folder = tempfile.mkdtemp(prefix="cosim-fmu-")
        fmpy.extract(self.path, unzipdir=self._folder)
        cls = FMU2Slave if self.version[0] == "2" else FMU3Slave
        return cls(guid=self.token, unzipDirectory=self._folder, modelIdentifier=self._identifier,
                   instanceName=instance)

    def _callbacks(self) -> Any:
        """FMI 2.0's functions for an FMU, of which it may log by one."""
        from fmpy import calloc, fmi2, free

        made = fmi2.fmi2CallbackFunctions()
        made.logger = fmi2.fmi2CallbackLoggerTYPE(lambda _, name, status, category, text: self._hear(status, text))
        made.allocateMemory = fmi2.fmi2CallbackAllocateMemoryTYPE(calloc)
        made.freeMemory = fmi2.fmi2CallbackFreeMemoryTYPE(free)
        return made

    def _hear(self, status: int, text: bytes | None) -> None:
        if status and text:
            self._said = [*self._said[1 - _LATEST:], text.decode(errors="replace").strip()]

    @contextlib.contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        """ModelError with FMPy's reason and what the FMU has logged."""
        self._said = []
        try:
            yield
        except ScenarioError:
            raise
        except Exception as err:
            said = f"; it says: {cut('; '.join(self._said), 160)}" if self._said else ""
            raise ModelError(f"{self.owner}: {cut(self.path)} failed {doing}: {first_line(err)}{said}") from err

    def _set(self, values: Mapping[FmuVariable, float]) -> None:
        for kind, of in _by_kind(values).items():
            numbers: list[Any] = [values[v] for v in of]
            if kind in _WHOLE or kind == "Boolean":
                for variable, number in zip(of, numbers, strict=True):
                    if number != round(number) or (kind == "Boolean" and number not in (0.0, 1.0)):
                        raise ModelError(f"'{variable.name}' = {number:g} is not {kind}")
                numbers = [round(n) for n in numbers]
            write = getattr(self._instance, f"set{self._call_name(kind)}")
            write([v.reference for v in of], numbers)

    def _call_name(self, kind: str) -> str:
        return "Int64" if kind == "Enumeration" and self.version[0] == "3" else _KINDS[kind]


def _by_kind(variables: Iterable[FmuVariable]) -> dict[str, list[FmuVariable]]:
    out: dict[str, list[FmuVariable]] = {}
    for variable in variables:
        out.setdefault(variable.kind, []).append(variable)
    return out


def _variable(v: Any, units: Mapping[str, Any]) -> FmuVariable:
    unit = v.unit or (v.declaredType.unit if v.declaredType is not None else None) or ""
    base = units.get(unit)
    si = None if base is None else SiUnit(
        {name: int(getattr(base, name)) for name in ("kg", "m", "s", "A", "K", "mol", "cd", "rad")},
        float(base.factor), float(base.offset))
    return FmuVariable(v.name, int(v.valueReference), str(v.type), str(v.causality or "local"), unit, si,
                       " ".join((v.description or "").split()), v.variability == "tunable",
                       bool(v.dimensions) or bool(v.shape))
