"""Parameters of the receding-horizon planner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cosim.params import params
from cosim.units import DAY_S, HOUR_S, MIN_S, Seconds

_MOST_SLOTS = 288


@params
class PlannerParams:
    """How far policy `mpc` plans, how finely, and what it keeps in hand."""

    horizon_s: Annotated[Seconds, Field(gt=0, le=2 * DAY_S, description="how far it plans, s")] = 16 * HOUR_S
    slot_s: Annotated[Seconds, Field(ge=MIN_S, le=DAY_S, description="length of a slot, after which it plans anew, s; "
                                     "divides a day")] = 15 * MIN_S
    usable_ratio: Annotated[float, Field(gt=0, le=1, description="share of a site's GPUs that it counts on")] = 1.0
    margin_min: Annotated[float | None, Field(ge=0, le=1440, description="so long before its deadline training is to "
                                              "be done, min; null: the guard's slack")] = None
    wait_ratio: Annotated[float, Field(ge=0, le=1, description="what an hour's wait of a GPU-hour costs, of its "
                                       "energy's mean worth: settles when what costs the same is done")] = 1e-3

    @model_validator(mode="after")
    def _slots_fit(self) -> PlannerParams:
        if DAY_S % self.slot_s:
            raise ValueError(f"slot_s = {self.slot_s:g} does not divide a day")
        if not 1 <= self.slots <= _MOST_SLOTS:
            raise ValueError(f"horizon_s / slot_s = {self.horizon_s:g} / {self.slot_s:g} makes {self.slots} slots; it "
                             f"takes 1 to {_MOST_SLOTS}")
        return self

    @property
    def slots(self) -> int:
        """Slots of a plan."""
        return int(self.horizon_s // self.slot_s)
