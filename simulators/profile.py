"""Base load of a feeder's buses: what the network file says, times a daily shape."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, field_validator

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError
from cosim.params import params
from cosim.ports import Port
from cosim.units import DAY_S
from simulators.grid.feeder import Network
from simulators.grid.network import read_feeder

SLOTS = 96
SLOT_S = DAY_S / SLOTS

# A day of a mixed residential and commercial feeder as 24 h and its first two overtones: (relative size, hour of the
# crest). The sum is lowest before dawn, rises to a morning shoulder and peaks in the evening.
_HARMONICS = ((0.24, 17.0), (0.12, 20.5), (0.03, 19.0))


def _light() -> tuple[float, ...]:
    """96 slot values of mean 0.40: 0.40 x (1 + sum of the harmonics), each at the middle of its quarter of an hour."""
    hours = [(slot + 0.5) * 24.0 / SLOTS for slot in range(SLOTS)]
    return tuple(
        0.40 * (1.0 + sum(size * math.cos(2.0 * math.pi * k * (hour - crest) / 24.0)
                          for k, (size, crest) in enumerate(_HARMONICS, start=1)))
        for hour in hours
    )


SHAPES: dict[str, tuple[float, ...]] = {"ieee33_light": _light()}
"""Daily shapes by name: 96 factors on the network's own loads. The paper prints no profile (I24); `ieee33_light` is
ours, of the form usual for a mixed feeder, and light enough (mean 0.40, 0.28 to 0.53) for the NCI that it reports."""


@params
class ProfileParams:
    """Which network's loads, and how they vary over the day."""

    network: Annotated[Network, Field(description="the grid's network: its loads are the base load")] = "case33bw"
    shape: Annotated[str | tuple[float, ...], Field(
        union_mode="left_to_right", description=f"name of a shape ({', '.join(SHAPES)}) or {SLOTS} factors >= 0, one "
        "per 15 min from midnight")] = "ieee33_light"
    mean: Annotated[float | None, Field(ge=0, allow_inf_nan=False, description="scale the shape to this daily mean; "
                                        "null: as it is")] = None
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False, description="further factor on the shape")] = 1.0

    @field_validator("shape")
    @classmethod
    def _shape_is_a_day(cls, shape: str | tuple[float, ...]) -> str | tuple[float, ...]:
        if isinstance(shape, str):
            if shape not in SHAPES:
                raise ValueError(f"is no shape; allowed: {', '.join(SHAPES)}, or {SLOTS} factors")
        elif len(shape) != SLOTS or not all(math.isfinite(v) and v >= 0.0 for v in shape):
            raise ValueError(f"has {len(shape)} values; a shape is {SLOTS} finite factors >= 0, one per 15 min")
        return shape

    @property
    def factors(self) -> tuple[float, ...]:
        """The 96 factors after `mean` and `scale`."""
        shape = SHAPES[self.shape] if isinstance(self.shape, str) else self.shape
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

    def setup(self) -> None:
        feeder = read_feeder(self.params.network)
        at = {eid: feeder.named(eid, self.sid) for eid in self.entities["Load"]}
        self._base = {eid: (float(feeder.p_kw[k]), float(feeder.q_kvar[k])) for eid, k in at.items()}
        self._factors = self.params.factors

    def advance(self, time_s: float, inputs: Values) -> Values:
        factor = self._factors[int(time_s % DAY_S // SLOT_S)]
        return {eid: {"p_kw": p * factor, "q_kvar": q * factor} for eid, (p, q) in self._base.items()}
