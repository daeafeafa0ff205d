"""Base load of a feeder's buses: the network file's loads times a daily shape.

Rows: I24, M01, P07, Z06.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, unknown
from cosim.limits import is_file, reading_text
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.forecast.horizon import HORIZON, HorizonS, HorizonStepS, horizon_steps, labels, leads_s
from cosim.simulators.grid.network.feeder import Network
from cosim.simulators.grid.network.radial import bus_entities, read_loads
from cosim.tables.dates import seconds_of_day
from cosim.tables.table import clock_of
from cosim.units import DAY_S, MIN_S, format_time, not_negative

SLOTS = 96
SLOT_S = DAY_S / SLOTS

# Days as 24 h and its first two overtones: (relative size, hour of the crest).
_MIXED = ((0.24, 17.0), (0.12, 20.5), (0.03, 19.0))
_RESIDENTIAL = ((0.33, 18.0), (0.22, 20.0), (0.06, 19.5))
_COMMERCIAL = ((0.42, 13.0), (0.08, 11.5), (0.05, 10.0))


def _day(mean: float, harmonics: tuple[tuple[float, float], ...]) -> tuple[float, ...]:
    """96 slot values: mean x (1 + sum of the harmonics), each at the middle of its quarter of an hour."""
    hours = [(slot + 0.5) * 24.0 / SLOTS for slot in range(SLOTS)]
    return tuple(
        mean * (1.0 + sum(size * math.cos(2.0 * math.pi * k * (hour - crest) / 24.0)
                          for k, (size, crest) in enumerate(harmonics, start=1)))
        for hour in hours
    )


SHAPES: dict[str, tuple[float, ...]] = {
    "ieee33_light": _day(0.40, _MIXED), "residential": _day(0.45, _RESIDENTIAL), "commercial": _day(0.45, _COMMERCIAL)}
"""Daily shapes by name: 96 factors on the network's own loads. The paper prints no profile; these are ours:
`ieee33_light` has the form usual for a mixed feeder, lowest before dawn with a morning shoulder and an evening peak,
and is light enough (mean 0.40, 0.28 to 0.53) for the NCI that the paper reports; `residential` (mean 0.45, 0.28 to
0.71) has a morning rise, a dip after noon and a sharp peak at 19:15; `commercial` (mean 0.45, 0.29 to 0.67) follows
office hours, with its peak at 11:30."""


def read_shape(path: str) -> tuple[float, ...]:
    """The 96 factors in column `factor` of a CSV file; ScenarioError naming the file and the line that is wrong."""
    if not is_file(path):
        raise ScenarioError(f"profile.shape: no file at {path}; give a CSV with a column `factor` and {SLOTS} rows")
    with reading_text(path), Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "factor" not in (rows.fieldnames or ()):
            raise ScenarioError(f"{path} has no column 'factor'; it has {', '.join(rows.fieldnames or ()) or 'none'}")
        lines = [(rows.line_num, row) for row in rows]
    values = [not_negative(row["factor"], "factor", f"{path}, line {number}") for number, row in lines]
    if len(values) != SLOTS:
        raise ScenarioError(f"{path} has {len(values)} rows; a shape is {SLOTS} factors, one per 15 min from midnight")
    if (clock := clock_of(list(lines[0][1]))) is not None:
        for slot, (number, row) in enumerate(lines):
            told_s = seconds_of_day(row[clock] or "")
            if told_s is not None and told_s != slot * SLOT_S:
                raise ScenarioError(f"{path}, line {number}: {clock} = '{row[clock]}' is not "
                                    f"{format_time(slot * SLOT_S)}; a shape is one day in UTC from midnight "
                                    "on, every 15 min; play other loads (p_kw, q_kvar) by --replay profile=FILE.csv")
    return tuple(values)


@params
class ProfileParams:
    """Which network's loads, and how they vary over the day."""

    network: Annotated[Network, Field(description="the grid's network: its loads are the base load")] = "case33bw"
    shape: Annotated[str | tuple[float, ...], Field(
        union_mode="left_to_right", description=f"name of a shape ({', '.join(SHAPES)}), a .csv file with a column "
        f"`factor`, or {SLOTS} factors >= 0, one per 15 min from midnight")] = "ieee33_light"
    mean: Annotated[float | None, Field(ge=0, le=1e6, allow_inf_nan=False, description="scale the shape to this daily "
                                        "mean; null: as it is")] = None
    scale: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, description="further factor on the shape")] = 1.0

    @field_validator("shape")
    @classmethod
    def _shape_is_a_day(cls, shape: str | tuple[float, ...]) -> str | tuple[float, ...]:
        if isinstance(shape, str):
            if shape not in SHAPES and not shape.endswith(".csv"):
                raise ValueError(f"is no shape; allowed: {', '.join(SHAPES)}, a .csv file, or {SLOTS} factors")
        elif len(shape) != SLOTS or not all(math.isfinite(v) and v >= 0.0 for v in shape):
            raise ValueError(f"has {len(shape)} values; a shape is {SLOTS} finite factors >= 0, one per 15 min")
        return shape

    @property
    def factors(self) -> tuple[float, ...]:
        """The 96 factors after `mean` and `scale`."""
        shape = self.shape
        if isinstance(shape, str):
            shape = SHAPES[shape] if shape in SHAPES else read_shape(shape)
        factor = self.scale
        if self.mean is not None:
            average = math.fsum(shape) / SLOTS
            if average == 0.0:
                raise ScenarioError(f"profile: a shape of zeros cannot be scaled to mean = {self.mean:g}")
            factor *= self.mean / average
        return tuple(value * factor for value in shape)


class Profile(Adapter):
    """The base load of one day, repeated: `Load` entities are named like the grid's buses ('bus1').

    Both P and Q of a bus follow the one shape; the value of a 15-minute slot holds from its start to its end.
    """

    PARAMS = ProfileParams
    MODELS = {
        "Load": (
            Port("p_kw", "out", "active base load", sign="> 0 is drawn from the grid"),
            Port("q_kvar", "out", "reactive base load", sign="> 0 is drawn from the grid (inductive)"),
        )
    }

    @classmethod
    def entity_names(cls, given: ProfileParams, of: str) -> list[str] | None:
        """The buses of `network`."""
        return bus_entities(given.network) if of == "network" else None

    def setup(self) -> None:
        loads = read_loads(self.params.network)
        place = {f"bus{b}": k for k, b in enumerate(loads.bus_ids)}
        for eid in self.entities["Load"]:
            if eid not in place:
                raise ScenarioError(unknown(f"bus of {self.sid}", eid, place))
        self._base = {eid: (float(loads.p_kw[place[eid]]), float(loads.q_kvar[place[eid]]))
                      for eid in self.entities["Load"]}
        self._elsewhere = {name: float(loads.p_kw[k]) for name, k in place.items()
                           if name not in self._base and (loads.p_kw[k] or loads.q_kvar[k])}
        self._factors = self.params.factors

    def notes(self) -> list[str]:
        """The base load used, which the paper does not print, and the network's loads that are not drawn."""
        shape = self.params.shape if isinstance(self.params.shape, str) else f"{SLOTS} factors of the scenario"
        mean, peak = math.fsum(self._factors) / SLOTS, max(self._factors)
        lines = [f"{self.sid}: base load by shape {shape}, {mean:.3f} of the network's own loads on average, "
                 f"{peak:.3f} at the peak"]
        if self._elsewhere:
            buses = list(self._elsewhere)
            said = ", ".join(buses[:4]) + (f" and {len(buses) - 4} more" if len(buses) > 4 else "")
            lines.append(f"{self.sid}: the network's load at {said} ({math.fsum(self._elsewhere.values()):g} kW) is "
                         "not drawn, for they are no entities of Load")
        return lines

    def advance(self, time_s: float, inputs: Values) -> Values:
        factor = self._factor(time_s)
        return {eid: {"p_kw": p * factor, "q_kvar": q * factor} for eid, (p, q) in self._base.items()}

    def _factor(self, time_s: float) -> float:
        return self._factors[int(time_s % DAY_S // SLOT_S)]


@params
class ForecastProfileParams(ProfileParams):
    """A profile and its forecast horizon."""

    lookahead_steps: Annotated[int, Field(ge=2, le=96, description="steps that a consumer plans together: the present "
                                          "one and lookahead_steps - 1 of forecast")] = 4
    horizon_s: HorizonS = DAY_S
    horizon_step_s: HorizonStepS = 900.0


class ForecastProfile(Profile):
    """A `Profile` that also exports a perfect forecast: of each bus for the next steps of a dispatch with a look-ahead,
    of the Feeder, all buses together, for a longer horizon."""

    PARAMS = ForecastProfileParams
    MODELS = {
        "Load": (
            *Profile.MODELS["Load"],
            Port("p_ahead_kw", "out", "active base load of the steps to come", sign="> 0 is drawn from the grid",
                 dims=("ahead",)),
            Port("q_ahead_kvar", "out", "reactive base load of the steps to come",
                 sign="> 0 is drawn from the grid (inductive)", dims=("ahead",)),
        ),
        "Feeder": (
            Port("p_all_kw", "out", "active base load of all buses", sign="> 0 is drawn from the grid"),
            Port("p_all_future_kw", "out", "the same now and at each step to come", sign="> 0 is drawn from the grid",
                 dims=(HORIZON,)),
        ),
    }

    @classmethod
    def check_horizon(cls, member: str, given: ForecastProfileParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a horizon that cannot be."""
        horizon_steps(member, given.horizon_s, given.horizon_step_s)

    def labels(self) -> dict[str, list[str]]:
        """Minutes from now."""
        ahead = {"ahead": [f"{s / MIN_S:g}min" for s in self._leads()]}
        given = self.params
        return ahead | ({HORIZON: labels(given.horizon_s, given.horizon_step_s)} if self.entities["Feeder"] else {})

    def advance(self, time_s: float, inputs: Values) -> Values:
        outputs, ahead = super().advance(time_s, inputs), [self._factor(time_s + s) for s in self._leads()]
        for eid, (p, q) in self._base.items():
            outputs[eid] |= {"p_ahead_kw": [p * f for f in ahead], "q_ahead_kvar": [q * f for f in ahead]}
        for eid in self.entities["Feeder"]:
            all_kw, given = math.fsum(p for p, _ in self._base.values()), self.params
            future = [all_kw * self._factor(time_s + s) for s in leads_s(given.horizon_s, given.horizon_step_s)]
            outputs[eid] = {"p_all_kw": future[0], "p_all_future_kw": future}
        return outputs

    def _leads(self) -> list[float]:
        return [k * self.step_s for k in range(1, self.params.lookahead_steps)]
