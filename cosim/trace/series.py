"""Series read back from a trace: what stood when, and what of it counts.

One reading for summary, report, accounts, checks and replay. A sample holds from its time to the next of its model, the
last one for a step of its member. What counts lies between the end of the warm-up and the end of the run; a sample that
reaches beyond either counts with the part of it that lies inside, and its totals are spread evenly over its time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from cosim.errors import TraceError, unknown
from cosim.trace.reader import Trace
from cosim.units import HOUR_S, MIN_S

PLAYERS = ("cosim.replay.members:Player", "cosim.replay.members:TablePlayer")
"""Simulators that play a recording and have no response to inputs."""


_SCENARIOS: WeakKeyDictionary[Trace, dict[str, Any]] = WeakKeyDictionary()


@dataclass(frozen=True)
class CountedTime:
    """From begin_s to end_s, s since the run's start. whole_warmup: the run did not get beyond its warm-up, and all of
    it is taken instead."""

    begin_s: float
    end_s: float
    whole_warmup: bool = False

    @property
    def minutes(self) -> float:
        """Length in minutes."""
        return (self.end_s - self.begin_s) / MIN_S


class CountedSamples(NamedTuple):
    """What counts of a model's samples.

    use     (n,) which do, in whole or in part
    hours   (k,) that each of those stands for
    share   (k,) of its member's step that this is, 0 to 1: what part of what was counted over that step counts here
    begins  (k,) whether it begins in the counted time, as an event at a sample's begin does
    """

    use: np.ndarray
    hours: np.ndarray
    share: np.ndarray
    begins: np.ndarray


def scenario_of(trace: Trace) -> dict[str, Any]:
    """The scenario of a trace as data, read once; not to be changed. It has members and shared, if empty ones."""
    if trace not in _SCENARIOS:
        _SCENARIOS[trace] = json.loads(str(trace.attrs.get("scenario", '{"members": {}, "shared": {}}')))
    return _SCENARIOS[trace]


def step_s(trace: Trace, member: str) -> float:
    """The step of a member, s. TraceError where the trace's scenario has no such member."""
    members = scenario_of(trace)["members"]
    if member not in members:
        raise TraceError(f"{trace.path}: {unknown('member of its scenario', member, members)}")
    return float(members[member]["step_s"])


def counted_time(trace: Trace) -> CountedTime:
    """What counts of a run. One that did not complete ends where the first of its members does: they are written at
    different times, and sums over different times could not be set against each other."""
    scenario, attrs = scenario_of(trace), trace.attrs
    end_s = float(attrs.get("until_s", np.inf))
    if attrs["status"] != "completed" or not np.isfinite(end_s):
        steps = {name: float(member["step_s"]) for name, member in scenario["members"].items()}
        last = [(times[-1] + steps[member]) for model in trace.models()
                if (member := model.split("/")[0]) in steps and len(times := trace.time_s(model))]
        end_s = min(end_s, float(min(last, default=0.0)))
    begin_s = float(scenario.get("warmup_s", 0.0))
    return CountedTime(begin_s, end_s) if begin_s < end_s else CountedTime(0.0, end_s, begin_s > 0.0)


def spans(trace: Trace, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(begin, end) of each sample of a model, s, (n,)."""
    begin = trace.time_s(model).astype(float)
    return begin, np.append(begin[1:], begin[-1:] + step_s(trace, model.split("/")[0]))


def counted(trace: Trace, model: str, time: CountedTime | None = None) -> CountedSamples:
    """What counts of a model's samples; time: another time than the trace's counted one."""
    time, (begin, end) = time or counted_time(trace), spans(trace, model)
    inside_s = np.minimum(end, time.end_s) - np.maximum(begin, time.begin_s)
    use = inside_s > 0
    every_s = step_s(trace, model.split("/")[0])
    return CountedSamples(use, inside_s[use] / HOUR_S, inside_s[use] / every_s, begin[use] >= time.begin_s)


def rows_at(times_s: np.ndarray, time_s: np.ndarray | float) -> np.ndarray:
    """Position of the sample that stands at each time: the last not after it; -1 before the first."""
    return np.searchsorted(times_s, time_s, side="right") - 1


def standing(trace: Trace, path: str, time_s: np.ndarray) -> np.ndarray:
    """Values of a port 'member/Model/port' as they stood at each time, (time, entity[, dim]); NaN before the first."""
    return _filled(trace[path], rows_at(trace.time_s(path.rpartition("/")[0]), time_s))


def over_counted(trace: Trace, path: str, model: str, time: CountedTime | None = None) -> np.ndarray:
    """Means of a port over what counts of each sample of another model, (k, entity[, dim]), in the order of `counted`.

    Where the port keeps its value during a sample this is that value, unrounded.
    """
    time, (begin, end) = time or counted_time(trace), spans(trace, model)
    use = counted(trace, model, time).use
    begin, end = np.maximum(begin[use], time.begin_s), np.minimum(end[use], time.end_s)
    times, values = trace.time_s(path.rpartition("/")[0]), trace[path]
    first, last = rows_at(times, begin), np.searchsorted(times, end, side="left") - 1
    out = _filled(values, first)
    for k in np.flatnonzero((last > first) & (first >= 0)):
        inside = slice(first[k], last[k] + 1)
        weights = np.diff(np.r_[begin[k], times[first[k] + 1: last[k] + 1], end[k]])
        out[k] = np.tensordot(weights, values[inside], 1) / weights.sum()
    return out


def _filled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = values[np.maximum(rows, 0)] if len(values) else np.full((len(rows), *values.shape[1:]), np.nan)
    out[rows < 0] = np.nan
    return out


def weighted_mean(values: np.ndarray, hours: np.ndarray) -> float:
    """Mean over time of values (k, ...), weighted by `hours` (k,), of those that are numbers; NaN of none."""
    weights = np.where(np.isfinite(values), hours.reshape(-1, *[1] * (values.ndim - 1)), 0.0)
    total = weights.sum()
    return float((np.nan_to_num(values, posinf=0.0, neginf=0.0) * weights).sum() / total) if total else float("nan")


def columns_of(trace: Trace, model: str, port: str) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """(names, values over time) of everything in a port: (entity,), or (entity, label) where it has a further axis."""
    path = f"{model}/{port}"
    values, dims, names = trace[path], trace.dims(path), trace.names(model)
    if not dims:
        return [((entity,), values[:, k]) for k, entity in enumerate(names)]
    labels = trace.names(model, dims[0])
    return [((entity, label), values[:, k, j]) for k, entity in enumerate(names) for j, label in enumerate(labels)]


class PortRef(NamedTuple):
    """One end of a connection: an entity's port."""

    member: str
    entity: str
    port: str


def port_ref(text: str) -> PortRef:
    """An end as the table 'wiring' writes it, member.entity.port: members and ports have no dot, entities may."""
    member, _, rest = str(text).partition(".")
    return PortRef(member, *rest.rpartition(".")[::2])


def played_from_s(recording: Trace, warmup_s: float) -> float:
    """Time of a recording that is t = 0 of a run with a warm-up of `warmup_s`, s: see `cosim.replay.recording`."""
    return max(0.0, float(scenario_of(recording).get("warmup_s", 0.0)) - warmup_s)


def recording_of(trace: Trace, member: str) -> str | None:
    """The file that a member was played from; None for one that was simulated."""
    spec = scenario_of(trace).get("members", {}).get(member, {})
    return str(spec["params"].get("path", "")) if spec.get("simulator") in PLAYERS else None
