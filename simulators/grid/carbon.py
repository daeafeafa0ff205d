"""Carbon for a grid without carbon: nodal carbon intensity from the bus powers that any power flow exports.

`CarbonFlow` is placed beside a foreign grid simulator and closes the loop; `FixedSources` gives that grid turbines.

Rows: E09, E10, U18.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ModelError, ScenarioError
from cosim.params import params
from cosim.plausible import Intensity
from cosim.ports import Port
from cosim.simulators.grid.equations import nodal_carbon_intensity, radial_power_flow
from cosim.simulators.grid.network.feeder import Network
from cosim.simulators.grid.network.radial import bus_entities, read_feeder


@params
class CarbonSource:
    """A source of the foreign grid: where it stands and what its energy carries."""

    node: Annotated[int, Field(ge=0, description="bus number of the network")]
    kg_per_kwh: Annotated[Intensity, Field(allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]


@params
class CarbonParams:
    """The foreign grid's topology (radial) and its sources."""

    sources: Annotated[dict[str, CarbonSource], Field(min_length=1, description="by name; one at the slack bus")]
    network: Annotated[Network, Field(description="pandapower's name, simbench:CODE, a file, or lines")] = "case33bw"
    v0_pu: Annotated[float | None, Field(gt=0, le=2, description="voltage at the substation, p.u.; null: as the "
                                         "network has it")] = None


class CarbonFlow(Adapter):
    """NCI by (9)/(10) on a radial network of known topology, from the net power drawn at every bus.

    Flows and losses are the exact AC power flow at those powers, so that the foreign grid need not export its lines.
    What the foreign grid reports at the slack bus itself is left out: there it is the power that the network takes.
    """

    PARAMS = CarbonParams
    MODELS = {
        "Bus": (
            Port("p_net_kw", "in", "net active power at the bus", sign="> 0 is drawn (load less generation)"),
            Port("q_net_kvar", "in", "net reactive power at the bus", sign="> 0 is drawn", default=0.0),
            Port("nci_kg_per_kwh", "out", "nodal carbon intensity, (9)"),
        ),
        "Source": (Port("p_kw", "in", "power of a source", sign="> 0 feeds the network"),),
        "Carbon": (
            Port("emission_kg_per_h", "out", "what all sources emit"),
            Port("loss_kw", "out", "line losses at the given bus powers"),
            Port("p_substation_kw", "out", "power of the substation", sign="> 0 feeds the network"),
        ),
    }

    @classmethod
    def entity_names(cls, given: CarbonParams, of: str) -> list[str] | None:
        """The buses of `network`."""
        return bus_entities(given.network) if of == "network" else None

    def setup(self) -> None:
        """Read the feeder; ScenarioError for a bus or source that it does not have, or no source at its slack bus."""
        p = self.params
        self._feeder = feeder = read_feeder(p.network)
        self._position = {eid: feeder.named(eid, self.sid) for eid in self.entities["Bus"]}
        nodes = {n: feeder.position(s.node, f"{self.sid}.sources.{n}.node") for n, s in p.sources.items()}
        self._substation = next((n for n, node in nodes.items() if node == feeder.substation), None)
        if self._substation is None:
            raise ScenarioError(f"{self.sid}: no source stands at bus {feeder.bus_ids[feeder.substation]}, the slack "
                                f"bus of {feeder.name}; add the substation to the sources")
        strange = sorted(set(self.entities["Source"]) ^ (set(nodes) - {self._substation}))
        if strange:
            raise ScenarioError(f"{self.sid}: entities of Source are the sources without the substation; wrong or "
                                f"missing: {', '.join(strange)}")
        self._names = list(nodes)
        self._nodes = np.array([nodes[n] for n in self._names])
        self._intensity = np.array([p.sources[n].kg_per_kwh for n in self._names])

    def advance(self, time_s: float, inputs: Values) -> Values:
        """One power flow and one carbon flow."""
        feeder = self._feeder
        s_pu = np.zeros(feeder.n_bus, complex)
        for eid, at in self._position.items():
            s_pu[at] += complex(inputs[eid]["p_net_kw"], inputs[eid]["q_net_kvar"]) / feeder.base_kw
        flow = radial_power_flow(feeder.tree, s_pu, feeder.voltage(self.params.v0_pu))
        if not flow.converged:
            raise ModelError(f"{self.sid}: {feeder.name} cannot carry the given bus powers; the power flow diverges")
        p_from, p_to = flow.s_parent_pu.real * feeder.base_kw, flow.s_child_pu.real * feeder.base_kw
        p_substation = float(p_from[feeder.parent == feeder.substation].sum())
        p_gen = np.array([p_substation if n == self._substation else inputs[n]["p_kw"] for n in self._names])
        nci = nodal_carbon_intensity(feeder.n_bus, feeder.parent, feeder.child, p_from, p_to, self._nodes, p_gen,
                                     self._intensity)
        total = {"emission_kg_per_h": float(np.maximum(p_gen, 0.0) @ self._intensity),
                 "loss_kw": float((p_from + p_to).sum()), "p_substation_kw": p_substation}
        return {**{eid: {"nci_kg_per_kwh": float(nci[at])} for eid, at in self._position.items()},
                **{eid: dict(total) for eid in self.entities["Carbon"]},
                **{eid: {} for eid in self.entities["Source"]}}


@params
class FixedSourcesParams:
    """Sources by name with their set points."""

    set_points_kw: Annotated[dict[str, float], Field(min_length=1, description="active power per source, kW")]


class FixedSources(Adapter):
    """Turbines that run at fixed set points, for a grid that takes generation as an input."""

    PARAMS = FixedSourcesParams
    MODELS = {"Source": (Port("p_kw", "out", "active power", sign="> 0 feeds the network"),)}

    def setup(self) -> None:
        """ScenarioError for an entity without a set point."""
        for eid in self.entities["Source"]:
            if eid not in self.params.set_points_kw:
                raise ScenarioError(f"{self.sid}.set_points_kw has no '{eid}'; give every entity of Source its power")

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The set points."""
        return {eid: {"p_kw": self.params.set_points_kw[eid]} for eid in self.entities["Source"]}
