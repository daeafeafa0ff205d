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
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "carbon intensity of what is consumed")),
              "Grid": (Port("p_source_kw", "out", "what each source gives", sign="> 0 feeds", dims=("source",)),)}

    def labels(self):
        return {"source": ["sun", "dirty"]}

    def tables(self):  # by which cosim trace verify checks the carbon
        return {"sources": {"name": ["sun", "dirty"], "kg_per_kwh": [0.0, self.params.dirty_kg_per_kwh]}}

    def advance(self, time_s, inputs):
        loads_kw = [inputs[bus]["p_load_kw"] for bus in self.entities["Bus"]]
        drawn_kw, local_kw = sum(p for p in loads_kw if p > 0), -sum(p for p in loads_kw if p < 0)
        most_kw = self.params.sun_kw * max(0.0, math.sin(2 * math.pi * (time_s / 86400.0 - 0.25)))
        sun_kw = min(most_kw, max(0.0, drawn_kw - local_kw))
        dirty_kw = drawn_kw - local_kw - sun_kw  # < 0: what nobody here draws leaves the network
        nci = self.params.dirty_kg_per_kwh * max(0.0, dirty_kw) / drawn_kw if drawn_kw > 0 else 0.0
        return {**{bus: {"nci_kg_per_kwh": nci} for bus in self.entities["Bus"]},
                **{grid: {"p_source_kw": [sun_kw, dirty_kw]} for grid in self.entities["Grid"]}}


_GRID = Member(simulator="own_grid:SunGrid", step_s="15min", entities={"Bus": "network", "Grid": ["grid"]})
SCENARIO = IEEE33.replace(name="own_grid", about="three data centers under the sun",
                          members={**IEEE33.members, "grid": _GRID})
