"""A grid in OpenDSS: its power flow of a feeder or of the user's own .dss file, and the same carbon flow.

Unbalanced networks count by the sum of their phases: carbon follows active power, whichever conductor carries it.

Rows: E09, E10, Z03.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from cosim.adapter import Adapter, CreateResult, Meta, Values
from cosim.errors import ModelError, ScenarioError, SolverError, unknown
from cosim.params import params
from cosim.plausible import Intensity
from cosim.ports import Port
from cosim.simulators.grid.batteries import BATTERY, Batteries
from cosim.simulators.grid.battery import Battery
from cosim.simulators.grid.dispatch.surplus import EXPORT_KW, back_in_words
from cosim.simulators.grid.dispatch.varying import Value, Variable, may_vary
from cosim.simulators.grid.equations import generated_carbon, nodal_carbon_intensity
from cosim.simulators.grid.network.feeder import Feeder, Network
from cosim.simulators.grid.network.radial import bus_entities, read_feeder
from cosim.simulators.grid.opendss_circuit import Circuit, circuit_file, installed
from cosim.simulators.grid.ports import DEMAND, OF_A_PHASE, PER_BUS, fixed_tables
from cosim.units import HOUR_S, format_time

BY_TIME = "; a number, a list of numbers over the day, or a table {path: FILE.csv, ...}"


@params
class DssSource:
    """A source at a set point; the one at the circuit's source bus is the substation, which balances."""

    bus: Annotated[str, Field(min_length=1, description="name of its bus, e.g. bus6")]
    kg_per_kwh: Annotated[Intensity, Field(allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
    p_set_kw: Annotated[Value, may_vary("p_set_kw"), Field(description="P, kW; > 0 feeds the network" + BY_TIME)] = 0.0
    q_set_kvar: Annotated[float, Field(allow_inf_nan=False, description="Q, kvar; > 0 feeds the network")] = 0.0

    @model_validator(mode="after")
    def _feeds(self) -> DssSource:
        given = self.p_set_kw
        if any(p < 0.0 for p in (given if isinstance(given, tuple) else [given] if isinstance(given, float) else [])):
            raise ValueError("p_set_kw is below 0 somewhere; a source feeds the network, at 0 kW or more")
        return self


@params
class OpenDssParams:
    """A circuit and its sources."""

    sources: Annotated[dict[str, DssSource], Field(min_length=1, description="by name; one at the source's bus")]
    network: Annotated[Network, Field(description="a radial network that is written out for OpenDSS")] = "case33bw"
    master: Annotated[str | None, Field(description="the user's own .dss file in its place, or ieee13, IEEE's 13-node "
                                        "feeder; buses by their names there, as '671' or 'bus671'")] = None
    load_mult: Annotated[Value, may_vary("load_mult"), Field(
        description="what the circuit's own loads are multiplied by" + BY_TIME)] = 1.0
    batteries: Annotated[dict[str, Battery], Field(description="batteries on it, by the names of the Battery entities; "
                                                   "node: the bus's name")] = field(default_factory=dict)
    battery_set_kw: Annotated[dict[str, Annotated[Value, may_vary("battery_set_kw")]], Field(
        description="power of a battery where no member commands it, kW, > 0 discharges; none: it stands still"
        + BY_TIME)] = field(default_factory=dict)
    v0_pu: Annotated[float | None, Field(gt=0, le=2, description="voltage at the substation of `network`, p.u.; null: "
                                         "as the network has it")] = None
    scenario_start: Annotated[str | None, Field(description="date of t = 0, for tables with dates; the run fills it in"
                                                )] = None

    @model_validator(mode="after")
    def _batteries_are_known(self) -> OpenDssParams:
        for name in self.battery_set_kw:
            if name not in self.batteries:
                raise ValueError(f"battery_set_kw has {name}, and batteries has {', '.join(self.batteries) or 'none'}")
        return self


_SOURCE = (
    Port("p_set_kw", "in", "power that another member sets; none linked, or NaN: p_set_kw of the source",
         sign="> 0 feeds the network", default=math.nan),
    Port("q_set_kvar", "in", "the same of its reactive power", sign="> 0 feeds the network", default=math.nan),
)
_GRID = (
    Port("loss_kw", "out", "active power lost in all lines and transformers", sign="> 0 is lost"),
    Port("emission_kg_per_h", "out", "carbon that all sources emit, the substation included", sign="> 0 is emitted"),
    Port("p_source_kw", "out", "active power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("vm_min_pu", "out", f"lowest voltage magnitude {OF_A_PHASE}"),
    Port("vm_max_pu", "out", f"highest voltage magnitude {OF_A_PHASE}"),
    Port("status", "out", "0 solved"),
    Port("p_from_kw", "out", "active power at the first end of each branch", sign="> 0 enters it", dims=("line",)),
    Port("p_to_kw", "out", "active power at the other end of each branch", sign="> 0 enters it", dims=("line",)),
    *PER_BUS,
)


class OpenDss(Adapter):
    """OpenDSS's power flow with carbon emission flow (9), (10): demand at `Bus` entities, sources at set points.

    Loads and generators in the user's file stay as they are, but for `load_mult`; a generator there that is none of
    `sources` is taken for local generation at 0 kg/kWh. `Source` entities, called like sources, take set points from
    other members; so do `Battery` entities, which keep their limits and carry the carbon that they were charged with.
    Regulators and switched capacitors of the circuit act in every solution, from where the last one left them.
    """

    PARAMS = OpenDssParams
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next step, average"),
                      Port("vm_pu", "out", "voltage magnitude, mean of the phases")), "Grid": _GRID,
              "Source": _SOURCE, "Battery": BATTERY}

    @classmethod
    def entity_names(cls, given: OpenDssParams, of: str) -> list[str] | None:
        """The buses of `master`, or of `network`, or the batteries of `batteries`."""
        if of == "batteries":
            return list(given.batteries)
        if of != "network" or (given.master is not None and not installed()):
            return None
        if given.master is None:
            return bus_entities(given.network)
        return Circuit(circuit_file(given.master), "grid").entity_names

    @classmethod
    def check_horizon(cls, member: str, given: OpenDssParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table that does not cover the run."""
        for variable in _series(given, member).values():
            variable.check(until_s)

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Validate the parameters and compile the circuit, so that `create` can refuse a bus it does not have."""
        meta = super().init(sid, time_resolution, **params)
        if not installed():
            raise ScenarioError(f"{sid}: OpenDSS is not installed; pip install 'aidc-cosim[opendss]'")
        p = self.params
        text = circuit_file(p.master) if p.master else _written_out(read_feeder(p.network), p.v0_pu)
        self._circuit = Circuit(text, sid)
        return meta

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Buses by their names in the circuit (without names the first `num`), the one Grid, sources that others set,
        or batteries, by name."""
        if model == "Bus":
            names = names or self._circuit.buses[:num]
            for name in names:
                self._circuit.position(name, f"bus of {self.sid}")
        elif model in ("Source", "Battery"):
            known = list(self.params.sources if model == "Source" else self.params.batteries)
            for name in names or ():
                if name not in known:
                    raise ScenarioError(f"{self.sid}: {unknown(model.lower(), name, known)}")
            names = names or known[:num]
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names, **model_params)

    def setup(self) -> None:
        """Loads added at the entities' buses, sources at their own."""
        circuit, given = self._circuit, self.params.sources
        self._at = {eid: circuit.position(eid, f"bus of {self.sid}") for eid in self.entities["Bus"]}
        self._source_bus = np.array([circuit.position(s.bus, f"bus of {self.sid}.sources.{name}")
                                     for name, s in given.items()], dtype=np.int64)
        at_source = np.flatnonzero(self._source_bus == circuit.slack)
        if not len(at_source):
            raise ScenarioError(f"{self.sid}: no source stands at {circuit.buses[circuit.slack]}, the circuit's source "
                                "bus; add the substation to the sources")
        self._substation = int(at_source[0])
        self._intensity = np.array([s.kg_per_kwh for s in given.values()])
        self._names = [*circuit.buses, *circuit.middles]
        self._drawn = dict.fromkeys(self._at, 0.0)
        self._back: list[tuple[float, float]] = []
        for eid, at in self._at.items():
            circuit.add_load(f"cosim_{eid}", at)
        for k, name in enumerate(given):
            if k != self._substation:
                circuit.add_load(f"cosim_source_{name}", int(self._source_bus[k]))
        self._set_by_time = _series(self.params, self.sid)
        self._p_set = np.zeros(len(given))
        self._set_up_batteries()

    def _set_up_batteries(self) -> None:
        given, circuit = self.params.batteries, self._circuit
        if given and set(self.entities["Battery"]) != set(given):
            raise ScenarioError(f"{self.sid}.entities.Battery are the names of {self.sid}.batteries; --set "
                                f"{self.sid}.entities.Battery=batteries")
        at = np.array([circuit.position(str(b.node), f"bus of {self.sid}.batteries.{name}")
                       for name, b in given.items()], dtype=np.int64)
        self._batteries = Batteries(given, at, len(circuit.buses), self.step_s / HOUR_S)
        for name, bus in zip(given, at.tolist(), strict=True):
            circuit.add_load(f"cosim_battery_{name}", bus)

    def labels(self) -> dict[str, list[str]]:
        return {"source": list(self.params.sources), "line": self._circuit.branch_names,
                "bus": self._names}

    def tables(self) -> dict[str, dict[str, list]]:
        names, circuit = self._names, self._circuit
        made = fixed_tables(
            {eid: names[at] for eid, at in self._at.items()},
            [(name, names[a], names[b]) for name, a, b in zip(circuit.branch_names, circuit.from_bus, circuit.to_bus,
                                                              strict=True)],
            [(name, names[at], s.kg_per_kwh)
             for (name, s), at in zip(self.params.sources.items(), self._source_bus, strict=True)],
            circuit.own_buses)
        return {**made, "batteries": self._batteries.table(names)} if self._batteries.names else made

    def _set_points(self, time_s: float, inputs: Values) -> None:
        """Sources and batteries at what other members set, else at the scenario's value for the time."""
        self._p_set = np.array([self._set_by_time[name].at(time_s) for name in self.params.sources])
        for k, (name, source) in enumerate(self.params.sources.items()):
            given = inputs.get(name, {}) if name in self.entities["Source"] else {}
            p, q = float(given.get("p_set_kw", math.nan)), float(given.get("q_set_kvar", math.nan))
            self._p_set[k] = self._p_set[k] if math.isnan(p) else p
            if k != self._substation:
                if self._p_set[k] < 0.0:
                    raise ModelError(f"{self.sid}.sources.{name} is set to {self._p_set[k]:g} kW at "
                                     f"{format_time(time_s)}; a source feeds the network, at 0 kW or more")
                q = source.q_set_kvar if math.isnan(q) else q
                self._circuit.draw(f"cosim_source_{name}", -float(self._p_set[k]), -q)
        wanted = self._batteries.commands(inputs) if self._batteries.names else np.zeros(0)
        own = np.array([self._set_by_time[_BATTERY + name].at(time_s) if _BATTERY + name in self._set_by_time else 0.0
                        for name in self._batteries.names])
        self._battery_kw = self._batteries.possible_kw(np.where(np.isnan(wanted), own, wanted))
        for name, p in zip(self._batteries.names, self._battery_kw.tolist(), strict=True):
            self._circuit.draw(f"cosim_battery_{name}", -p, 0.0)
        self._circuit.scale_own_loads(self._set_by_time[_LOADS].at(time_s))

    def carry(self) -> dict[str, np.ndarray]:
        """What batteries hold."""
        return self._batteries.carry() if self._batteries.names else {}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on with what batteries hold."""
        self._batteries.resume(carry)

    def advance(self, time_s: float, inputs: Values) -> Values:
        self._set_points(time_s, inputs)
        for eid in self._at:
            self._drawn[eid] = inputs[eid]["p_load_kw"]
            self._circuit.draw(f"cosim_{eid}", self._drawn[eid], inputs[eid]["q_load_kvar"])
        if not self._circuit.solve():
            drawn = sum(inputs[eid]["p_load_kw"] for eid in self._at)
            raise SolverError(f"{self.sid} at {format_time(time_s)}: OpenDSS finds no power flow at {drawn:.0f} kW of "
                              "demand; lower it or look at the circuit's impedances")
        if (taken_kw := -self._circuit.substation_kw()) > EXPORT_KW:
            self._back.append((time_s, taken_kw))
        return self._outputs_of()

    def notes(self) -> list[str]:
        lines = back_in_words(self.sid, list(self.params.sources)[self._substation], self._back)
        lines += [f"{self.sid}: {text}" for v in self._set_by_time.values() for text in v.notes(self.step_s)]
        if feeding := self._circuit.feeding:
            lines.append(f"{self.sid}: {', '.join(feeding[:4])}{' ...' * (len(feeding) > 4)} of the circuit feed it at "
                         "0 kg/kWh; one that is disabled there and stands in sources instead has an intensity")
        return lines

    def _outputs_of(self) -> Values:
        circuit = self._circuit
        p_from, p_to = circuit.flows_kw()
        n = len(circuit.buses)
        p_source = self._p_set.copy()
        p_source[self._substation] = circuit.substation_kw()
        drawn, local = circuit.own_kw()
        for eid, at in self._at.items():
            p_load = self._drawn[eid]
            drawn[at] += max(p_load, 0.0)
            local[at] -= min(p_load, 0.0)
        feeding = np.flatnonzero(local)
        stored = self._batteries.injection(self._battery_kw)
        nci = nodal_carbon_intensity(
            n + len(circuit.middles), circuit.from_bus, circuit.to_bus, p_from, p_to,
            np.concatenate([self._source_bus, feeding, stored.bus]),
            np.concatenate([p_source, local[feeding], stored.p_kw]),
            np.concatenate([self._intensity, np.zeros(len(feeding)), stored.kg_per_kwh])).tolist()
        self._batteries.run(self._battery_kw, np.array(nci))
        mean_pu, low, high = circuit.voltages_pu()
        nothing = [0.0] * len(circuit.middles)
        outputs: Values = {eid: {"nci_kg_per_kwh": nci[at], "vm_pu": mean_pu[at]} for eid, at in self._at.items()}
        outputs.update(self._batteries.outputs())
        outputs.update({eid: {} for eid in self.entities["Source"]})
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                "loss_kw": float((p_from + p_to).sum()),
                "emission_kg_per_h": generated_carbon(p_source, self._intensity),
                "p_source_kw": p_source.tolist(), "vm_min_pu": low, "vm_max_pu": high, "status": 0.0,
                "p_from_kw": p_from.tolist(), "p_to_kw": p_to.tolist(),
                "p_drawn_bus_kw": [*drawn.tolist(), *nothing], "p_local_bus_kw": [*local.tolist(), *nothing],
            }
        return outputs


_BATTERY, _LOADS = "battery ", "own loads"


def _series(given: OpenDssParams, member: str) -> dict[str, Variable]:
    """What changes over time: set points of sources, of batteries, and the factor of the circuit's own loads."""
    out = {name: Variable(s.p_set_kw, f"{member}.sources.{name}.p_set_kw", name, "p_set_kw", given.scenario_start)
           for name, s in given.sources.items()}
    out |= {_BATTERY + name: Variable(value, f"{member}.battery_set_kw.{name}", name, "battery_set_kw",
                                      given.scenario_start) for name, value in given.battery_set_kw.items()}
    out[_LOADS] = Variable(given.load_mult, f"{member}.load_mult", "", "load_mult", given.scenario_start)
    if linked := [v.owner for v in out.values() if v.linked]:
        raise ScenarioError(f"{linked[0]} = linked: link an output to p_set_kw of the entity, and give a number for "
                            "when nothing comes")
    return out


def _written_out(feeder: Feeder, v0_pu: float | None) -> str:
    """A radial feeder as OpenDSS commands: balanced three-phase lines behind a stiff source."""
    others = {"line charging, shunts or magnetising currents": feeder.b_pu.any(),
              "iron losses or shunts": feeder.g_pu.any(),
              "transformers off their nominal ratio": (np.abs(feeder.ratio - 1.0) > 1e-9).any(),
              "motors, wards or storage": feeder.own_p_kw.any() or feeder.own_q_kvar.any(),
              "generators of its own": len(feeder.generators) > 0}
    for what, there in others.items():
        if there:
            raise ScenarioError(f"network {feeder.name} has {what}, which is not written out for OpenDSS; give your "
                                "own .dss file as `master`")
    v0_pu = feeder.voltage(v0_pu)
    ohm = feeder.base_kv**2 / feeder.base_mva
    root = feeder.bus_names[feeder.substation]
    lines = [f"new circuit.feeder bus1={root} basekv={feeder.base_kv:.12g} pu={v0_pu:.12g} phases=3 r1=0 x1=1e-6 r0=0 "
             "x0=1e-6"]
    for k, name in enumerate(feeder.line_names):
        a, b = feeder.bus_names[feeder.parent[k]], feeder.bus_names[feeder.child[k]]
        r, x = feeder.r_pu[k] * ohm, feeder.x_pu[k] * ohm
        lines.append(f"new line.{name} bus1={a} bus2={b} phases=3 r1={r:.12g} x1={x:.12g} r0={r:.12g} x0={x:.12g} c1=0 "
                     "c0=0 length=1 units=none")
    return "\n".join([*lines, f"set voltagebases=[{feeder.base_kv:.12g}]", "calcvoltagebases"])
