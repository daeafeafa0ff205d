"""Members that play another's outputs, from a trace or a table, against live others: yesterday's NCI for a new policy,
recorded power for a grid, prices from a CSV."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cosim.adapter import CreateResult, ExogenousAdapter, Meta, Values
from cosim.errors import ModelError, ScenarioError, listed, unknown
from cosim.params import params
from cosim.plausible import impossible
from cosim.ports import Port
from cosim.replay.recording import (
    check_step,
    end_s,
    next_sample_s,
    refuse_counts,
    refuse_lacking,
    refuse_others,
)
from cosim.replay.recording import notes as recording_notes
from cosim.scenario import Scenario
from cosim.tables.table import DataTable, TableOptions, split_name
from cosim.trace import Trace
from cosim.trace.series import played_from_s, rows_at, scenario_of
from cosim.units import MIN_S, Seconds, format_time

Overflow = Annotated[
    Literal["raise", "hold", "wrap"], Field(description="outside of what is there: refuse, hold it, repeat it")]


@params
class PlayerParams:
    """Which recording to play, and what to do when it ends before the run does."""

    path: Annotated[str, Field(min_length=1, description="trace to play from")]
    member: Annotated[str, Field(min_length=1, description="member of that trace whose outputs are played")]
    overflow: Overflow = "raise"
    scenario_start: Annotated[str, Field(description="date of t = 0; the run fills it in")] = "2026-01-01T00:00:00"
    scenario_warmup_s: Annotated[Seconds, Field(ge=0, description="of the run, which fills it in")] = 0.0


class PlaybackSimulator(ExogenousAdapter, ABC):
    """What plays levels, from wherever they are read: each holds from its sample to the next. Inputs of the member that
    is played are gone. In the worlds of a learner it goes on day after day."""

    MODELS: ClassVar[dict[str, tuple[Port, ...]]] = {}

    def init(self, sid: str, time_resolution: float = 1.0, *, step_s: float = MIN_S, seed: int = 0, episode: int = 0,
             **given: Any) -> Meta:
        """Read what is played. ScenarioError when it does not hold the member, TraceError when it is no trace."""
        super().init(sid, time_resolution, step_s=step_s, seed=seed, episode=episode, **given)
        self._values: dict[str, dict[str, np.ndarray]] = {}
        self._recorded: dict[str, list[str]] = {}
        self._labels: dict[str, list[str]] = {}
        self._fixed: dict[str, dict[str, list]] = {}
        self.adopt(self._open())
        return self.meta

    def labels(self) -> dict[str, list[str]]:
        """Axis labels of what is played."""
        return self._labels

    def tables(self) -> dict[str, dict[str, list]]:
        """Tables of the member that do not change over time."""
        return self._fixed

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The sample that holds at `time_s`."""
        return self._at(self.origin_s + time_s)

    @abstractmethod
    def _open(self) -> dict[str, tuple[Port, ...]]:
        """Read everything; the models and ports that can be played."""

    @abstractmethod
    def _row(self, model: str, time_s: float) -> int:
        """The row of a model's values that holds at a time, s."""

    def _at(self, time_s: float) -> Values:
        return {eid: values for model, eids in self.entities.items() if eids
                for eid, values in self._model_at(model, eids, time_s).items()}

    def _model_at(self, model: str, eids: list[str], time_s: float) -> Values:
        row = self._row(model, time_s)
        columns = [(eid, self._recorded[model].index(eid)) for eid in eids]
        return {eid: {name: data[row, k].tolist() for name, data in self._values[model].items()}
                for eid, k in columns}


class Player(PlaybackSimulator):
    """Plays one member of a trace: its models and ports are those that were recorded.

    Links that are shifted in time start with what they started with then; where the recording lacks it, with the
    first sample. `cosim.replay.recording` defines from when it is played; `wrap` repeats it from the end of its
    warm-up, at a whole number of its own steps.
    """

    PARAMS = PlayerParams
    params: PlayerParams

    @classmethod
    def check_horizon(cls, member: str, given: PlayerParams, step_s: float, until_s: float) -> None:
        """ScenarioError when the recording ends before the run does, or has another step."""
        with Trace(given.path) as trace:
            from_s = played_from_s(trace, given.scenario_warmup_s)
            for model in (m for m in trace.models() if m.split("/")[0] == given.member):
                length_s = end_s(trace, model, step_s) - from_s
                if length_s <= 0 or (given.overflow == "raise" and length_s < until_s):
                    raise _too_short(member, given.path, max(length_s, 0.0), until_s)
                if given.overflow == "hold" and length_s < until_s:
                    refuse_counts(member, given.path, trace.ports(model), f"ends at {format_time(length_s)} of")
            check_step(member, given, step_s, trace)

    @classmethod
    def check_scenario(cls, member: str, given: PlayerParams, scenario: Scenario) -> None:
        """ScenarioError for a recording of other entities than the scenario's."""
        with Trace(given.path) as trace:
            refuse_others(scenario, member, given.path, trace, given.member)

    def init(self, sid: str, time_resolution: float = 1.0, **given: Any) -> Meta:
        """As `PlaybackSimulator`."""
        self._times: dict[str, np.ndarray] = {}
        self._ends: dict[str, float] = {}
        self._initial: dict[tuple[str, str], list[float]] = {}
        self._from_s = self._again_s = 0.0
        self._over_s: float | None = None
        self._said: list[str] = []
        return super().init(sid, time_resolution, **given)

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Entities of the recording; ScenarioError for one that it does not have."""
        for name in names or ():
            if name not in self._recorded.get(model, ()):
                raise ScenarioError(f"{self.params.path} has no {self.params.member}.{name}: "
                                    f"{unknown('recorded entity', name, self._recorded.get(model, ()))}")
        return super().create(num, model, names, **model_params)

    def initial(self) -> Values:
        """What shifted links started with, else the first sample; in a later world, and of a recording that is not
        played from its begin, the last sample before."""
        if self._from_s or self.origin_s:
            return self._at(math.nextafter(self.origin_s, -math.inf))
        values = self._at(0.0)
        for (eid, port), numbers in self._initial.items():
            if port in values.get(eid, {}):
                values[eid][port] = numbers if isinstance(values[eid][port], list) else numbers[0]
        return values

    def step(self, time: int, inputs: dict, max_advance: int) -> int:
        """One tick; the next is when the recording changes, so that one that is not played from its begin, or not from
        a sample, keeps its instants."""
        super().step(time, inputs, max_advance)
        seconds = self._until_next_s(self.origin_s + time * self._resolution_s)
        steps = round(seconds / self._resolution_s)
        if abs(steps * self._resolution_s - seconds) > 1e-6:
            common = math.gcd(round(seconds), round(self._resolution_s))
            raise ScenarioError(f"{self.params.path}, played from {format_time(self._from_s)} on, has values between "
                                f"two bus steps of {self._resolution_s:g} s; --set resolution_s={common}")
        return time + steps

    def notes(self) -> list[str]:
        """From when the recording is played, and what was played after its end."""
        if self._over_s is None:
            return self._said
        after = ("its last sample is held, and what was counted in it (energies) is counted in every step again"
                 if self.params.overflow == "hold" else "it begins again, after its warm-up")
        return [*self._said, f"{self.sid} plays {self.params.path}, which ends at {format_time(self._over_s)} of this "
                             f"run; from then on {after}"]

    def _open(self) -> dict[str, tuple[Port, ...]]:
        """Read everything; the models and ports that can be played."""
        p = self.params
        models: dict[str, tuple[Port, ...]] = {}
        with Trace(p.path) as trace:
            self._from_s = played_from_s(trace, p.scenario_warmup_s)
            self._again_s = float(scenario_of(trace).get("warmup_s", 0.0))
            self._said = recording_notes(self.sid, trace, p.scenario_warmup_s, p.scenario_start)
            mine = [m for m in trace.models() if m.split("/")[0] == p.member]
            if not mine:
                raise ScenarioError(f"{p.path}: {unknown('recorded member', p.member, recorded_members(trace))}")
            for path in mine:
                model = path.split("/")[1]
                models[model] = tuple(self._read_port(trace, path, name) for name in trace.ports(path))
                self._times[model] = trace.time_s(path)
                self._ends[model] = end_s(trace, path, self.step_s)
                self._values[model] = {port.name: trace[f"{path}/{port.name}"] for port in models[model]}
                for name, values in self._values[model].items():
                    if (wrong := impossible(name, values)) is not None:
                        raise ScenarioError(f"{p.path}: {path}: {wrong}")
                self._recorded[model] = trace.names(path)
            before = trace.table("initial")
            for table in (t for t in trace.tables() if t.startswith(f"{p.member}.")):
                columns = trace.table(table)
                self._fixed[table.partition(".")[2]] = {name: values.tolist() for name, values in columns.items()}
        for source, value in zip(before.get("source", ()), before.get("value", ()), strict=True):
            member, _, port = source.partition(".")
            if member == p.member:
                eid, _, name = port.rpartition(".")
                self._initial.setdefault((eid, name), []).append(float(value))
        return models

    def _read_port(self, trace: Trace, path: str, name: str) -> Port:
        dims = trace.dims(f"{path}/{name}")
        for dim in dims:
            self._labels[dim] = trace.names(path, dim)
        about, units = trace.about(f"{path}/{name}")
        port = Port(name, "out", about, dims=dims, nullable=True)
        if units != port.unit:
            raise ScenarioError(f"{self.params.path}: {path}/{name} is in {units}, not in {port.unit} as its name says")
        return port

    def _begins_again_s(self, model: str) -> float:
        return self._again_s or min(0.0, float(self._times[model][0]))

    def _until_next_s(self, time_s: float) -> float:
        wraps = self.params.overflow == "wrap"
        return min(next_sample_s(self._times[model], self._ends[model], time_s + self._from_s, self.step_s,
                                 self._begins_again_s(model) if wraps else None) for model in self._times)

    def _row(self, model: str, time_s: float) -> int:
        times, over_s, time_s = self._times[model], self._ends[model], time_s + self._from_s
        if time_s >= over_s:
            if self.params.overflow == "raise":
                raise ModelError(f"the recording ends at {format_time(over_s)}; see {self.sid}.overflow")
            self._over_s = over_s - self._from_s
            begin_s = self._begins_again_s(model)
            if self.params.overflow == "wrap" and over_s > begin_s:
                time_s = begin_s + (time_s - begin_s) % (over_s - begin_s)
        return max(0, int(rows_at(times, time_s)))


@params
class TablePlayerParams:
    """Which table to play, as what, and what to do when it ends before the run does."""

    path: Annotated[str, Field(min_length=1, description="CSV or Parquet file; format: cosim.tables.table")]
    models: Annotated[dict[str, tuple[str, ...]], Field(
        description="model -> ports played; empty: one model, Table, with a port per column")] = Field({})
    axes: Annotated[dict[str, str], Field(description="vector port -> name of its axis")] = Field({})
    may_be_nan: Annotated[tuple[str, ...], Field(description="ports with gaps: NaN means 'not computed'")] = ()
    overflow: Overflow = "raise"
    unheard: Annotated[tuple[str, ...], Field(description="links left out: the table has no such column")] = ()
    without: Annotated[tuple[str, ...], Field(description="models left out: the table has no column of theirs")] = ()
    time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; null: UTC, "
                                           "with a note")] = None
    silent: Annotated[tuple[str, ...], Field(description="entities left out: the table has no column of theirs")] = ()
    scenario_start: Annotated[str | None, Field(description="date of t = 0; the run fills it in")] = None


class TablePlayer(PlaybackSimulator):
    """Plays a table's columns, each row at the time defined by `cosim.tables.axis`. A port is a column of its name; one
    of another unit of the same measure is converted."""

    PARAMS = TablePlayerParams
    params: TablePlayerParams

    @classmethod
    def check_horizon(cls, member: str, given: TablePlayerParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table that does not cover the run, as its overflow needs it."""
        table = _table(given, member)
        table.check(until_s)
        if given.overflow == "hold" and (table.axis.outside(0.0) or table.end_s < until_s):
            played = [name for ports in given.models.values() for name in ports] or table.ports()
            refuse_counts(member, given.path, played, "does not cover")

    @classmethod
    def check_scenario(cls, member: str, given: TablePlayerParams, scenario: Scenario) -> None:
        """ScenarioError for a table without a column for an entity whose link names it. Whom else a table leaves out,
        and entities beyond the scenario's are named in `notes`."""
        refuse_lacking(scenario, member, given.path, _table(given, member).columns)

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Entities by name; ScenarioError for one that has neither a column of its own nor a common one."""
        created = super().create(num, model, names, **model_params)
        have = self._recorded[model] = self.entities[model]
        self._values[model] = {port.name: self._table.values(here, have, factor, port.nullable)
                               for port in self.models[model] for here, factor in [self._matched(port.name)]}
        return created

    def initial(self) -> Values:
        """The last row before the run, if there is one, else the first; in a later world the last row before it."""
        return self._at(math.nextafter(self.origin_s, -math.inf))

    def notes(self) -> list[str]:
        """Links and columns of the table without effect, and rows that come and go between two steps."""
        out = [f"{self.sid} plays {self.params.path}, which has no column for link {link}: its target keeps its default"
               for link in self.params.unheard]
        if self.params.without:
            out.append(f"{self.sid} plays {self.params.path}, which has no column of "
                       f"{' or '.join(self.params.without)}: what the summary takes from there is left out")
        if self.params.silent:
            out.append(f"{self.params.path} has no column of {listed(self.params.silent)}: whom they served keeps its "
                       "default, or what others send it")
        out += [f"{self.sid}: {text}" for text in self._table.notes(0.0, self._high_s, self.step_s)]
        played = {(self._matched(port.name)[0], eid) for model, ports in self.models.items() for port in ports
                  for eid in (None, *self.entities[model])}
        idle = [name for name in self._table.columns if (split_name(name)[1], split_name(name)[0]) not in played]
        return out + ([f"{self.params.path}: nobody plays its columns {listed(idle)}"] if idle else [])

    def _open(self) -> dict[str, tuple[Port, ...]]:
        p = self.params
        self._table = table = _table(p, self.sid)
        self._high_s = 0.0
        models = p.models or {"Table": tuple(table.ports())}
        return {model: tuple(self._port(name) for name in names) for model, names in models.items()}

    def _row(self, model: str, time_s: float) -> int:
        self._high_s = max(self._high_s, time_s)
        return self._table.row(time_s) if time_s >= 0.0 else self._table.axis.row(time_s, "hold")

    def _matched(self, name: str) -> tuple[str, float]:
        """As `Table.match`; ScenarioError for a port without a column."""
        found = self._table.match(name)
        if found is None:
            raise ScenarioError(f"{self.params.path}: {unknown('column', name, self._table.columns)}")
        return found

    def _port(self, name: str) -> Port:
        here, _ = self._matched(name)
        labels = self._table.labels(here)
        axis = self.params.axes.get(name, f"{name}_label")
        if labels and self._labels.setdefault(axis, labels) != labels:
            raise ScenarioError(f"{self.params.path}: {name} has the labels {', '.join(labels)}; another port over "
                                f"{axis} has {', '.join(self._labels[axis])}")
        return Port(name, "out", f"{here} of {self.params.path}", dims=(axis,) if labels else (),
                    nullable=name in self.params.may_be_nan)


def _table(p: TablePlayerParams, member: str) -> DataTable:
    return DataTable(p.path, TableOptions(f"{member}.", p.scenario_start, p.time_zone, p.overflow))


def _too_short(member: str, path: str, end_s: float, until_s: float) -> ScenarioError:
    """The error for a recording that ends before the run does."""
    return ScenarioError(f"{path} holds {member} for {format_time(end_s)}, the run lasts {format_time(until_s)}; "
                         f"shorten it by --until, or --set {member}.overflow=hold (or wrap)")


def recorded_members(trace: Trace) -> list[str]:
    """Members that have recorded levels in a trace."""
    return sorted({m.split("/")[0] for m in trace.models()})
