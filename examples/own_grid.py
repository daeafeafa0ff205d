"""A grid of one's own: clean power up to a limit that follows the sun, dirty power for the rest, no network.

    cosim run examples/own_grid.py --until 2h
"""

import math
from typing import Annotated

from pydantic import Field

from cosim.adapter import Adapter
from cosim.params import params
from cosim.ports import Port
from cosim.scenario import Member
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.simulators.grid.ports import DEMAND


@params
class SunParams:
    sun_kw: Annotated[float, Field(ge=0, description="most that the sun gives, kW")] = 3000.0
    dirty_kg_per_kwh: Annotated[float, Field(ge=0, description="intensity of all other power")] = 0.8


class SunGrid(Adapter):
    """One carbon intensity for every bus: what the sun does not cover is dirty."""

    PARAMS = SunParams
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "carbon intensity of what is consumed"))}

    def advance(self, time_s, inputs):
        load_kw = sum(given["p_load_kw"] for given in inputs.values())
        sun_kw = self.params.sun_kw * max(0.0, math.sin(2 * math.pi * (time_s / 86400.0 - 0.25)))
        dirty = max(0.0, 1.0 - sun_kw / load_kw) if load_kw > 0 else 0.0
        return {bus: {"nci_kg_per_kwh": dirty * self.params.dirty_kg_per_kwh} for bus in inputs}


_GRID = Member(simulator="own_grid:SunGrid", step_s="15min", entities={"Bus": "network"})
SCENARIO = IEEE33.replace(name="own_grid", about="three data centers under the sun",
                          members={**IEEE33.members, "grid": _GRID})
