"""A day of weather that a scenario gives itself, repeated: read as a weather file is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from cosim.errors import ScenarioError
from cosim.simulators.grid.equations import Floats
from cosim.units import DAY_S, Unit

MOST_POINTS = 1440


@dataclass(frozen=True)
class _Rows:
    step_s: float

    def label(self, time_s: float) -> str:
        return f"{time_s / 60.0:g} min after midnight"


@dataclass(frozen=True)
class WeatherDay:
    """Columns of equally many values over a day from midnight, UTC, of the scenario's first date; each holds from its
    begin to the next. ScenarioError for columns of different lengths, or none.

    given   column -> values; where: the scenario's field; start: ISO date of t = 0
    """

    given: Mapping[str, Sequence[float]]
    where: str
    start: str
    place: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.given.values()}
        if len(lengths) != 1 or not 1 <= min(lengths) <= MOST_POINTS:
            raise ScenarioError(f"{self.where} has columns of {', '.join(map(str, sorted(lengths))) or 'no'} values; "
                                f"give all of them the same number, 1 to {MOST_POINTS}, over a day")

    @property
    def path(self) -> str:
        """What it is called in messages."""
        return self.where

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.given)

    @property
    def axis(self) -> _Rows:
        """How long a row holds."""
        return _Rows(DAY_S / self._count)

    @property
    def times_s(self) -> Floats:
        """When rows begin, s since midnight."""
        return np.arange(self._count, dtype=np.float64) * self.axis.step_s

    @property
    def unix_s(self) -> Floats:
        """The same as instants of the first day."""
        midnight = datetime.fromisoformat(self.start).replace(tzinfo=UTC)
        return midnight.timestamp() + self.times_s

    def numbers(self, column: str, unit: Unit) -> Floats:
        """A column."""
        return np.array(self.given[column], float)

    def row(self, time_s: float, *, forecast: bool = False) -> int:
        """The row that holds at a time, s since t = 0, which is at midnight."""
        return int(time_s % DAY_S // self.axis.step_s)

    def check(self, until_s: float) -> None:
        """It lasts as long as any run."""

    def notes(self, low_s: float, high_s: float, step_s: float) -> list[str]:
        """That a day is repeated, where the run is longer."""
        return [f"{self.where} is one day, and is repeated"] if high_s >= DAY_S else []

    @property
    def _count(self) -> int:
        return len(next(iter(self.given.values())))
