"""One trace as a report reads it: ports, what counts of them, means, and connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from cosim.reporting.text import MONTHS, at
from cosim.trace import Trace
from cosim.trace.series import (
    CountedSamples,
    CountedTime,
    counted,
    counted_time,
    recording_of,
    scenario_of,
    standing,
    step_s,
)
from cosim.units import DAY_S, HOUR_S, MIN_S

_BINS_S = (*(n * MIN_S for n in (1, 5, 15, 30)), *(n * HOUR_S for n in (1, 2, 3, 6, 12, 24)))
_MOST_BINS = 200


@dataclass
class Run:
    """A trace, read on demand. `colours` gives each name of `coloured` its colour, the same in all runs of a report.

    A report of another package derives from this a class with its own ports (`Report.reads`).
    """

    trace: Trace
    label: str
    colours: dict[str, str]
    _counted: dict[str, CountedSamples] = field(default_factory=dict)

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Root attributes."""
        return self.trace.attrs

    @cached_property
    def scenario(self) -> dict[str, Any]:
        """The scenario as data."""
        return scenario_of(self.trace)

    @cached_property
    def start(self) -> datetime:
        """The date of t = 0, UTC."""
        moment = datetime.fromisoformat(str(self.attrs["start"]))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def at(self, time_s: float) -> str:
        """A time of the run as its axes have it, UTC: '19:15', of a run that goes beyond a day '2 Jan 19:15'."""
        try:
            moment = self.start + timedelta(seconds=max(0.0, float(time_s)))
        except OverflowError:  # beyond the calendar
            return at(time_s)
        clock = f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"
        return clock if self.end_s <= DAY_S else f"{moment.day} {MONTHS[moment.month - 1]} {clock}"

    def params(self, member: str) -> dict[str, Any]:
        """Parameters of a member, {} when there is none."""
        return self.scenario["members"].get(member, {}).get("params", {})

    @property
    def coloured(self) -> list[str]:
        """Entities that keep a colour of their own through all pictures; here none."""
        return []

    @cached_property
    def models(self) -> list[str]:
        """Recorded models that hold at least one sample."""
        return [m for m in self.trace.models() if len(self.trace.time_s(m))]

    def has(self, path: str) -> bool:
        """Whether a port was recorded and has samples."""
        return path.rpartition("/")[0] in self.models and self.trace.has(path)

    def get(self, path: str) -> np.ndarray:
        """A port's values."""
        return self.trace[path]

    def first(self, *paths: str) -> str | None:
        """The first of several ports that is there."""
        return next((p for p in paths if self.has(p)), None)

    def time_s(self, path: str) -> np.ndarray:
        """Times of a model, or of a port's model."""
        return self.trace.time_s(path if path in self.models else path.rpartition("/")[0])

    def step_s(self, path: str) -> float:
        """How long a sample holds: the member's step."""
        return step_s(self.trace, path.split("/")[0])

    @cached_property
    def end_s(self) -> float:
        """Up to where the trace reaches, the run's end at most."""
        reached = max((float(self.trace.time_s(m)[-1]) + self.step_s(m) for m in self.models), default=0.0)
        return min(reached, float(self.attrs.get("until_s", reached)))

    @cached_property
    def time(self) -> CountedTime:
        """What counts of the run."""
        return counted_time(self.trace)

    @cached_property
    def warmup_s(self) -> float:
        """Time before the counted part."""
        return float(self.scenario.get("warmup_s", 0.0))

    def counts(self, path: str) -> CountedSamples:
        """What counts of the samples of a model, or of a port's model."""
        model = path if path in self.models else path.rpartition("/")[0]
        if model not in self._counted:
            self._counted[model] = counted(self.trace, model)
        return self._counted[model]

    def shares(self, path: str) -> np.ndarray:
        """Share of each sample that counts, (time,)."""
        return self._spread(path, "share")

    def hours(self, path: str) -> np.ndarray:
        """Counted hours that each sample stands for, (time,)."""
        return self._spread(path, "hours")

    def _spread(self, path: str, name: str) -> np.ndarray:
        what = self.counts(path)
        out = np.zeros(len(what.use))
        out[what.use] = getattr(what, name)
        return out

    def of_counted(self, path: str) -> np.ndarray:
        """A port's values at the samples that count, in whole or in part."""
        return self.get(path)[self.counts(path).use]

    def total(self, path: str, values: np.ndarray | None = None) -> np.ndarray:
        """Sums over the counted time of what each sample of a port brought: counts, works, energies."""
        what = self.counts(path)
        return np.tensordot(what.share, (self.get(path) if values is None else values)[what.use], 1)

    def integral(self, path: str, values: np.ndarray | None = None) -> np.ndarray:
        """Sums over the counted time of values (time, ...) times hours: kW to kWh."""
        what = self.counts(path)
        return np.tensordot(what.hours, (self.get(path) if values is None else values)[what.use], 1)

    def played(self, member: str) -> str:
        """A sentence to follow others where a member was played from a recording; '' where it was simulated."""
        path = recording_of(self.trace, member)
        return "" if path is None else (f" Of the recorded run: {member} is played from {path} and did not answer to "
                                        "this run.")

    # --- means --------------------------------------------------------------------------------------------------------

    def bin_s(self, path: str) -> float:
        """Width of the means that are drawn: the sample's own step where there are few."""
        step, span = self.step_s(path), self.end_s
        return next((b for b in _BINS_S if b >= step and b % step == 0 and span / b <= _MOST_BINS), step)

    def means(self, path: str, values: np.ndarray | None = None, width_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(times, values) as means over `bin_s`, along the first axis."""
        values = self.get(path) if values is None else values
        time, width = self.time_s(path), width_s or self.bin_s(path)
        if width <= self.step_s(path):
            return time.astype(float), values
        which = time // width
        first = np.flatnonzero(np.r_[True, np.diff(which) > 0])
        sizes = np.diff(np.r_[first, len(time)])
        total = np.add.reduceat(values, first, axis=0)
        return which[first] * width, total / sizes.reshape(-1, *[1] * (values.ndim - 1))

    def averaging(self, path: str) -> str:
        """A sentence about the means, '' when samples are drawn as they are."""
        width = self.bin_s(path)
        if width <= self.step_s(path):
            return ""
        return (f"Drawn as means over {width / MIN_S:g} min so that it stays readable; figures in the text use every "
                "sample.")

    # --- who is connected to what -------------------------------------------------------------------------------------

    @cached_property
    def wiring(self) -> list[tuple[str, str]]:
        """(source, target) of all connections, each member.entity.port."""
        table = self.trace.table("wiring")
        return list(zip(table.get("source", ()), table.get("target", ()), strict=True))

    def held(self, path: str, time_s: np.ndarray) -> np.ndarray:
        """Values as they stood at `time_s` (NaN before the first)."""
        return standing(self.trace, path, time_s)
