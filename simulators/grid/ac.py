"""A grid without an optimiser: AC power flow of any network, fixed or merit-order set points, and the same carbon flow.

For meshed networks, several external grids and generators that hold a voltage, which the conic dispatch does not take.

Rows: E09, E10, Z03.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from cosim.adapter import Adapter, CreateResult, Meta, Values
from cosim.errors import ScenarioError, SolverError
from cosim.params import params
from cosim.plausible import Intensity
from cosim.ports import Port
from cosim.simulators.grid.dispatch.sources import other_voltage, own_intensities, tighter_limits
from cosim.simulators.grid.dispatch.surplus import EXPORT_KW, back_in_words
from cosim.simulators.grid.equations import Floats, Ints, generated_carbon, nodal_carbon_intensity
from cosim.simulators.grid.network.feeder import Network
from cosim.simulators.grid.network.powerflow import AcFlow, AcNetwork
from cosim.simulators.grid.network.radial import bus_entities
from cosim.simulators.grid.plausible import refuse_impossible, unit_hint
from cosim.simulators.grid.ports import DEMAND, PER_BUS, fixed_tables, per_bus
from cosim.units import format_time

OPTIMAL, HELD = 0.0, 2.0


@params
class AcSource:
    """A source with a set point; the first one at an external grid's bus is that grid, which balances, and so on where
    several external grids stand at one bus."""

    node: Annotated[int, Field(ge=0, description="bus number of the network")]
    kg_per_kwh: Annotated[Intensity, Field(allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
    p_set_kw: Annotated[float, Field(ge=0, allow_inf_nan=False, description="P when dispatch is fixed, kW")] = 0.0
    q_set_kvar: Annotated[float, Field(allow_inf_nan=False, description="Q, kvar; > 0 feeds the network")] = 0.0
    p_max_kw: Annotated[float, Field(ge=0, allow_inf_nan=False, description="most P in merit order, kW")] = 0.0
    price_usd_per_kwh: Annotated[float, Field(allow_inf_nan=False, description="place in merit order, USD/kWh")] = 0.0


@params
class AcGridParams:
    """A network, its sources, and how they are dispatched."""

    sources: Annotated[dict[str, AcSource], Field(min_length=1, description="by name; one at each external grid's bus")]
    network: Annotated[Network, Field(description="pandapower's name, simbench:CODE, a file, or lines")] = "case33bw"
    network_sources: Annotated[dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(
        description="kg/kWh of the network's own generators (gen, sgen, discharging storage), by name or as 'sgen3', "
        "'*' for all others: they run at the network's set points")] = field(default_factory=dict)
    closed_lines: Annotated[tuple[int, ...], Field(description="lines put into service, the switches at their ends "
                                                   "closed, e.g. ties that mesh it")] = ()
    dispatch: Annotated[Literal["fixed", "merit"], Field(
        description="fixed: p_set_kw; merit: cheapest first up to p_max_kw, until demand is met or the substation is "
        "the cheaper one")] = "fixed"
    v0_pu: Annotated[float | None, Field(gt=0, le=2, description="voltage at the external grids, p.u.; null: as the "
                                         "network has it")] = None
    vm_min_pu: Annotated[float, Field(ge=0, description="lowest voltage that is no violation, p.u.")] = 0.9
    vm_max_pu: Annotated[float, Field(gt=0, le=2, description="highest such voltage, p.u.")] = 1.1

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> AcGridParams:
        if self.vm_min_pu >= self.vm_max_pu:
            raise ValueError(f"vm_min_pu = {self.vm_min_pu:g} must be below vm_max_pu = {self.vm_max_pu:g}")
        return self


_BUS = (
    *DEMAND,
    Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next step, average, not marginal"),
    Port("vm_pu", "out", "voltage magnitude"),
)
_GRID = (
    Port("loss_kw", "out", "active power lost in all branches", sign="> 0 is lost"),
    Port("emission_kg_per_h", "out", "carbon that all sources emit, the substation included", sign="> 0 is emitted"),
    Port("p_source_kw", "out", "active power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("q_source_kvar", "out", "reactive power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("vm_min_pu", "out", "lowest voltage magnitude"),
    Port("vm_max_pu", "out", "highest voltage magnitude"),
    Port("voltage_violation_pu", "out", "largest distance of a voltage outside its limits", sign="> 0 is outside"),
    Port("status", "out", "0 solved, 2 held: no power flow, all outputs are those of the step before"),
    Port("unserved_kw", "out", "demand that the network does not carry: none, for nothing limits it",
         sign="> 0 is not served"),
    Port("p_from_kw", "out", "active power at the first end of each branch", sign="> 0 enters the branch",
         dims=("line",)),
    Port("p_to_kw", "out", "active power at the other end of each branch", sign="> 0 enters the branch",
         dims=("line",)),
    *PER_BUS,
)


class AcPowerFlow(Adapter):
    """pandapower's AC power flow with carbon emission flow (9), (10): radial or meshed, whatever pandapower models.

    Demand is what is linked to `Bus` entities, sources and the network's own generators stand at set points, external
    grids balance; nothing is optimised. Generators that hold a voltage (gen) do, without limit to their reactive power,
    as pandapower.runpp does by default.
    """

    PARAMS = AcGridParams
    MODELS = {"Bus": _BUS, "Grid": _GRID}

    @classmethod
    def entity_names(cls, given: AcGridParams, of: str) -> list[str] | None:
        """The buses of `network`."""
        return bus_entities(given.network) if of == "network" else None

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Validate the parameters and read the network, so that `create` can refuse a bus it does not have."""
        meta = super().init(sid, time_resolution, **params)
        p, given = self.params, self.params.sources
        self._network = plain = AcNetwork(p.network, [], p.v0_pu, p.closed_lines)
        feeding = [g for g in plain.generators if g.p_kw > 0.0]
        self._own_kg_per_kwh = own_intensities(plain.generators, feeding, p.network_sources, plain.name, sid)
        at = {name: plain.nodes.position(s.node, f"{sid}.sources.{name}.node", f"network {plain.name}")
              for name, s in given.items()}
        if twice := [g.name for g in plain.generators if g.name in given]:
            raise ScenarioError(f"{sid}.sources.{twice[0]} and a generator of network {plain.name} have one name; call "
                                "the source something else")
        self._slacks = self._balancing(at)
        self._others = np.setdiff1d(np.arange(len(given)), self._slacks)
        nodes = [s.node for s in given.values()]
        plain.add_sources([nodes[k] for k in self._others])
        self._bus_names = list(plain.nodes.names)
        return meta

    def _balancing(self, at: dict[str, int]) -> Ints:
        """(n_slack,) source that each external grid is: the first at its bus that is none yet, else the first there."""
        nodes, found = self._network.nodes, []
        for bus in self._network.slacks:
            here = [k for k, name in enumerate(at) if at[name] == nodes.of_bus[bus]]
            if not here:
                raise ScenarioError(f"{self.sid}: no source stands at bus {bus}, where the external grid is; add the "
                                    "substation to the sources")
            exact = [k for k in here if list(self.params.sources.values())[k].node == bus]
            found.append(next((k for k in exact + here if k not in found), here[0]))
        return np.array(found, dtype=np.int64)

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Buses by name ('bus8' is bus 8 of the network; without names the first `num`), or the one Grid."""
        if model == "Bus":
            names = names or self._bus_names[:num]
            for name in names:
                self._network.nodes.named(name, f"bus of {self.sid}")
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names, **model_params)

    def setup(self) -> None:
        network, given = self._network, self.params.sources
        self._at = {eid: network.nodes.named(eid, f"bus of {self.sid}") for eid in self.entities["Bus"]}
        own = network.generators
        at = [network.nodes.of_bus[s.node] for s in given.values()]
        self._source_bus = np.append(np.array(at, dtype=np.int64), network.generator_bus)
        self._intensity = np.array([*(s.kg_per_kwh for s in given.values()),
                                    *(self._own_kg_per_kwh[g.name] for g in own)])
        self._source_names = [*given, *(g.name for g in own)]
        self._own_kw = np.array([g.p_kw for g in own])
        self._q_set = np.array([s.q_set_kvar for s in given.values()])
        self._last: Values = {}
        self._held: list[float] = []
        self._back: list[tuple[float, list[float]]] = []

    def labels(self) -> dict[str, list[str]]:
        return {"source": self._source_names, "line": self._network.branches.names, "bus": self._bus_names}

    def tables(self) -> dict[str, dict[str, list]]:
        names, network = self._bus_names, self._network
        branches = network.branches
        return fixed_tables(
            {eid: names[at] for eid, at in self._at.items()},
            [(name, names[a], names[b]) for name, a, b in zip(branches.names, branches.from_bus, branches.to_bus,
                                                              strict=True)],
            [(name, names[at], w) for name, at, w in zip(self._source_names, self._source_bus, self._intensity.tolist(),
                                                         strict=True)],
            [names[at] for at in np.flatnonzero(network.draws)])

    def notes(self) -> list[str]:
        network, v0_pu = self._network, self.params.v0_pu
        lines = list(network.notes)
        if v0_pu is not None and network.file_v0_pu != [v0_pu]:
            lines.append(other_voltage(v0_pu, network.file_v0_pu))
        lines += tighter_limits(self.params.vm_min_pu, self.params.vm_max_pu, network.voltage_limits)
        lines = [f"{self.sid}: network {network.name}: {line}" for line in lines]
        if self._held:
            lines.append(f"{self.sid}: {len(self._held)} steps had no power flow and repeat the one before; first at "
                         f"{format_time(self._held[0])}")
        by_slack = [(name, [(at, kw[k]) for at, kw in self._back if kw[k] > EXPORT_KW])
                    for k, name in enumerate(list(self.params.sources)[s] for s in self._slacks)]
        return lines + [line for name, back in by_slack
                        for line in back_in_words(self.sid, name, back, len(self._slacks) - 1)]

    def advance(self, time_s: float, inputs: Values) -> Values:
        p_load, q_load = np.zeros(len(self._bus_names)), np.zeros(len(self._bus_names))
        for eid, at in self._at.items():  # closed switches may make several of these buses one
            p_load[at] += inputs[eid]["p_load_kw"]
            q_load[at] += inputs[eid]["q_load_kvar"]
        refuse_impossible(self.sid, format_time(time_s), {eid: inputs[eid]["p_load_kw"] for eid in self._at},
                          self._network.rated_kw)
        p_source = self._set_points(float(p_load.sum()) - float(self._own_kw.sum()))
        others = self._others
        flow = self._network.run(p_load, q_load, p_source[others], self._q_set[others])
        if flow is not None:
            if flow.p_slack_kw.min() < -EXPORT_KW:
                self._back.append((time_s, (-flow.p_slack_kw).tolist()))
            self._last = self._outputs_of(flow, p_load, p_source)
        elif self._last:
            self._held.append(time_s)
            self._last = {eid: dict(values) for eid, values in self._last.items()}
            for eid in self.entities["Grid"]:
                self._last[eid]["status"] = HELD
        else:
            hint = unit_hint(float(p_load.sum()), float(self._network.base_p_kw.sum()))
            raise SolverError(f"{self.sid} at {format_time(time_s)}: the AC power flow finds no solution at "
                              f"{p_load.sum():.0f} kW of demand; lower it or look at the network's impedances{hint}")
        return self._last

    def _set_points(self, demand_kw: float) -> Floats:
        """P of the scenario's sources, kW; the external grids' is what is left, before losses."""
        given = list(self.params.sources.values())
        if self.params.dispatch == "fixed":
            return np.array([s.p_set_kw for s in given])
        p_source, left = np.zeros(len(given)), demand_kw
        own_price = min(given[k].price_usd_per_kwh for k in self._slacks)
        for k in sorted(self._others, key=lambda k: given[k].price_usd_per_kwh):
            if given[k].price_usd_per_kwh > own_price:
                continue
            p_source[k] = min(given[k].p_max_kw, max(left, 0.0))
            left -= p_source[k]
        return p_source

    def _outputs_of(self, flow: AcFlow, p_load: Floats, p_set: Floats) -> Values:
        network, p_source, q_source = self._network, p_set.copy(), self._q_set.copy()
        p_source[self._slacks] = q_source[self._slacks] = 0.0  # several external grids may be one source
        np.add.at(p_source, self._slacks, flow.p_slack_kw)
        np.add.at(q_source, self._slacks, flow.q_slack_kvar)
        p_source, q_source = np.append(p_source, self._own_kw), np.append(q_source, flow.q_generator_kvar)
        p_net, branches = p_load + flow.p_drawn_kw, network.branches
        feeding = np.flatnonzero(p_net < 0.0)
        nci = nodal_carbon_intensity(
            len(p_load), branches.from_bus, branches.to_bus, flow.p_from_kw, flow.p_to_kw,
            np.concatenate([self._source_bus, feeding]), np.concatenate([p_source, -p_net[feeding]]),
            np.concatenate([self._intensity, np.zeros(len(feeding))])).tolist()
        low, high = float(flow.vm_pu.min()), float(flow.vm_pu.max())
        outputs: Values = {eid: {"nci_kg_per_kwh": nci[at], "vm_pu": float(flow.vm_pu[at])}
                           for eid, at in self._at.items()}
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                "loss_kw": flow.loss_kw, "emission_kg_per_h": generated_carbon(p_source, self._intensity),
                "p_source_kw": p_source.tolist(), "q_source_kvar": q_source.tolist(), "vm_min_pu": low,
                "vm_max_pu": high, "status": OPTIMAL, "unserved_kw": 0.0,
                "voltage_violation_pu": max(self.params.vm_min_pu - low, high - self.params.vm_max_pu, 0.0),
                "p_from_kw": flow.p_from_kw.tolist(), "p_to_kw": flow.p_to_kw.tolist(),
                **per_bus(p_net),
            }
        return outputs
