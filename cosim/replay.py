"""Play a member's recorded outputs against live others: yesterday's NCI for a new policy, recorded power for a grid."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ModelError, ScenarioError, TraceError, unknown
from cosim.params import params
from cosim.ports import Port
from cosim.resolve import command_of, load
from cosim.scenario import Scenario
from cosim.trace import Trace
from cosim.units import format_time


@params
class PlayerParams:
    """Which recording to play, and what to do when it ends before the run does."""

    path: Annotated[str, Field(min_length=1, description="trace to play from")]
    member: Annotated[str, Field(min_length=1, description="member of that trace whose outputs are played")]
    overflow: Annotated[
        Literal["raise", "hold", "wrap"], Field(description="past the last sample: refuse, hold it, start again")
    ] = "raise"


class Player(Adapter):
    """Plays one member of a trace. Its models and ports are those that were recorded; its inputs are gone.

    A level holds from its sample to the next. What left the member before the run began is not recorded: links that
    are shifted in time start with the first sample. `wrap` repeats the recording at a whole number of its own steps.
    """

    PARAMS = PlayerParams
    MODELS: ClassVar[dict[str, tuple[Port, ...]]] = {}

    @classmethod
    def check_horizon(cls, member: str, given: PlayerParams, step_s: float, until_s: float) -> None:
        """ScenarioError when the recording ends before the run does."""
        with Trace(given.path) as trace:
            for model in (m for m in trace.models() if m.split("/")[0] == given.member):
                times = trace.time_s(model)
                end_s = float(times[-1]) + step_s if len(times) else 0.0
                if not len(times) or (given.overflow == "raise" and end_s < until_s):
                    raise ScenarioError(
                        f"{given.path} holds {given.member} for {format_time(end_s)}, the run lasts "
                        f"{format_time(until_s)}; shorten it by --until, or --set {member}.overflow=hold (or wrap)")

    def init(self, sid: str, time_resolution: float = 1.0, *, step_s: float = 60.0, seed: int = 0, episode: int = 0,
             **given: Any) -> dict:
        """Read the recording. ScenarioError when it does not hold the member, TraceError when it is no trace."""
        super().init(sid, time_resolution, step_s=step_s, seed=seed, episode=episode, **given)
        p = self.params
        self._times: dict[str, np.ndarray] = {}
        self._values: dict[str, dict[str, np.ndarray]] = {}
        self._recorded: dict[str, list[str]] = {}
        self._labels: dict[str, list[str]] = {}
        models: dict[str, tuple[Port, ...]] = {}
        with Trace(p.path) as trace:
            mine = [m for m in trace.models() if m.split("/")[0] == p.member]
            if not mine:
                raise ScenarioError(f"{p.path}: {unknown('recorded member', p.member, recorded_members(trace))}")
            for path in mine:
                model = path.split("/")[1]
                models[model] = tuple(self._read_port(trace, path, name) for name in trace.ports(path))
                self._times[model] = trace.time_s(path)
                self._values[model] = {port.name: trace[f"{path}/{port.name}"] for port in models[model]}
                self._recorded[model] = trace.names(path)
        self.adopt(models)
        return self.meta

    def create(self, num: int, model: str, names: list[str] | None = None) -> list[dict]:
        """Entities of the recording; ScenarioError for one that it does not have."""
        for name in names or ():
            if name not in self._recorded.get(model, ()):
                raise ScenarioError(f"{self.params.path} has no {self.params.member}.{name}: "
                                    f"{unknown('recorded entity', name, self._recorded.get(model, ()))}")
        return super().create(num, model, names)

    def labels(self) -> dict[str, list[str]]:
        """Axis labels as recorded."""
        return self._labels

    def initial(self) -> Values:
        """The first sample."""
        return self._at(0.0)

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The sample that holds at `time_s`."""
        return self._at(time_s)

    def _read_port(self, trace: Trace, path: str, name: str) -> Port:
        dims = trace.dims(f"{path}/{name}")
        for dim in dims:
            self._labels[dim] = trace.names(path, dim)
        about, units = trace.about(f"{path}/{name}")
        port = Port(name, "out", about, dims=dims, nullable=True)
        if units != port.unit:
            raise ScenarioError(f"{self.params.path}: {path}/{name} is in {units}, not in {port.unit} as its name says")
        return port

    def _at(self, time_s: float) -> Values:
        return {eid: values for model, eids in self.entities.items() if eids
                for eid, values in self._model_at(model, eids, time_s).items()}

    def _model_at(self, model: str, eids: list[str], time_s: float) -> Values:
        row = self._row(self._times[model], time_s)
        columns = [(eid, self._recorded[model].index(eid)) for eid in eids]
        return {eid: {name: data[row, k].tolist() for name, data in self._values[model].items()}
                for eid, k in columns}

    def _row(self, times: np.ndarray, time_s: float) -> int:
        end_s = float(times[-1]) + self.step_s
        if time_s >= end_s:
            if self.params.overflow == "raise":
                raise ModelError(f"the recording ends at {format_time(end_s)}; see {self.sid}.overflow")
            if self.params.overflow == "wrap":
                time_s = time_s % end_s
        return max(0, int(np.searchsorted(times, time_s, side="right")) - 1)


def replay(scenario: Scenario, member: str, path: str) -> Scenario:
    """A copy in which `member` is played from the trace at `path`. What was linked to its inputs is unlinked.

    A simulator whose outputs are events names in REPLAYED_BY who plays them from a table of the trace.

    Raises ScenarioError for a member that is not there, TraceError for a file that is no trace.
    """
    if member not in scenario.members:
        raise ScenarioError(f"--replay {member}={path}: {unknown('member', member, scenario.members)}")
    with Trace(path) as trace:
        if not any(m.startswith(f"{member}/") for m in trace.models()):
            raise TraceError(f"--replay {member}={path}: {unknown('recorded member', member, recorded_members(trace))}")
    old = scenario.members[member]
    own = None if command_of(old.simulator) else getattr(load(old.simulator, f"member '{member}'"), "REPLAYED_BY", None)
    changed = {"simulator": own, "params": {"path": str(path)}} if own else {
        "simulator": "cosim.replay:Player", "params": {"path": str(path), "member": member}, "shared": ()}
    played = old.model_copy(update={**changed, "names": {}, "adapter": None})
    kept = tuple(link for link in scenario.links if link.target.split(".")[0] != member)
    return scenario.replace(members={**scenario.members, member: played}, links=kept)


def recorded_members(trace: Trace) -> list[str]:
    """Members that have recorded levels in a trace."""
    return sorted({m.split("/")[0] for m in trace.models()})
