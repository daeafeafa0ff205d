"""A grid in OpenDSS: its power flow of a feeder of ours or of the user's own .dss file, and the same carbon flow.

Unbalanced networks count by the sum of their phases: carbon follows active power, whichever conductor carries it.

Rows: E09, E10, Z03.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cosim.simulators.grid.dispatch.surplus import EXPORT_KW, back_in_words
from cosim.simulators.grid.equations import Floats, generated_carbon, nodal_carbon_intensity
from cosim.simulators.grid.network import dss_scan as dssscan
from cosim.simulators.grid.network.feeder import Feeder, Network
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.ports import DEMAND, PER_BUS, fixed_tables
from pydantic import Field

from cosim.adapter import Adapter, CreateResult, Meta, Values
from cosim.errors import ScenarioError, SolverError, unknown
from cosim.limits import is_file
from cosim.params import params
from cosim.plausible import Intensity
from cosim.ports import Port
from cosim.units import format_time

try:
    import opendssdirect
except ImportError:  # an extra; `init` then says so
    opendssdirect = None

TOLERANCE = 1e-9
"""OpenDSS's own 1e-4 would show in the losses."""
PHASES, NEUTRAL, NO_GROUND = (1, 2, 3), 4, 1e4
SOURCE = "vsource.source"
_WATCHERS = frozenset({"monitor", "energymeter", "sensor", "fuse", "recloser", "relay"})


@params
class DssSource:
    """A source at a set point; the one at the circuit's source bus is the substation, which balances."""

    bus: Annotated[str, Field(min_length=1, description="name of its bus, e.g. bus6")]
    kg_per_kwh: Annotated[Intensity, Field(allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
    p_set_kw: Annotated[float, Field(ge=0, allow_inf_nan=False, description="P, kW; > 0 feeds the network")] = 0.0
    q_set_kvar: Annotated[float, Field(allow_inf_nan=False, description="Q, kvar; > 0 feeds the network")] = 0.0


@params
class OpenDssParams:
    """A circuit and its sources."""

    sources: Annotated[dict[str, DssSource], Field(min_length=1, description="by name; one at the source's bus")]
    network: Annotated[Network, Field(description="a radial network that is written out for OpenDSS")] = "case33bw"
    master: Annotated[str | None, Field(description="the user's own .dss file in its place; buses by their names "
                                        "there")] = None
    v0_pu: Annotated[float | None, Field(gt=0, le=2, description="voltage at the substation of `network`, p.u.; null: "
                                         "as the network has it")] = None


_GRID = (
    Port("loss_kw", "out", "active power lost in all lines and transformers", sign="> 0 is lost"),
    Port("emission_kg_per_h", "out", "carbon that all sources emit, the substation included", sign="> 0 is emitted"),
    Port("p_source_kw", "out", "active power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("vm_min_pu", "out", "lowest voltage magnitude of a phase"),
    Port("vm_max_pu", "out", "highest voltage magnitude of a phase"),
    Port("status", "out", "0 solved"),
    Port("p_from_kw", "out", "active power at the first end of each branch", sign="> 0 enters it", dims=("line",)),
    Port("p_to_kw", "out", "active power at the other end of each branch", sign="> 0 enters it", dims=("line",)),
    *PER_BUS,
)


class OpenDss(Adapter):
    """OpenDSS's power flow with carbon emission flow (9), (10): demand at `Bus` entities, sources at set points.

    Loads and generators in the user's file stay as they are; a generator there that is none of `sources` is taken for
    local generation at 0 kg/kWh.
    """

    PARAMS = OpenDssParams
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next step, average"),
                      Port("vm_pu", "out", "voltage magnitude, mean of the phases")), "Grid": _GRID}

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Validate the parameters and compile the circuit, so that `create` can refuse a bus it does not have."""
        meta = super().init(sid, time_resolution, **params)
        if opendssdirect is None:
            raise ScenarioError(f"{sid}: OpenDSS is not installed; pip install 'aidc-cosim[opendss]'")
        p = self.params
        text = Path(p.master) if p.master else _written_out(read_feeder(p.network), p.v0_pu)
        self._circuit = Circuit(text, sid)
        return meta

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Buses by their names in the circuit (without names the first `num`), or the one Grid."""
        if model == "Bus":
            names = names or self._circuit.buses[:num]
            for name in names:
                self._circuit.position(name, f"bus of {self.sid}")
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names, **model_params)

    def setup(self) -> None:
        """Loads of ours at the entities' buses, sources at theirs."""
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
        for k, (name, source) in enumerate(given.items()):
            if k != self._substation:
                circuit.add_load(f"cosim_source_{name}", int(self._source_bus[k]))
                circuit.draw(f"cosim_source_{name}", -source.p_set_kw, -source.q_set_kvar)

    def labels(self) -> dict[str, list[str]]:
        return {"source": list(self.params.sources), "line": self._circuit.branch_names,
                "bus": self._names}

    def tables(self) -> dict[str, dict[str, list]]:
        names, circuit = self._names, self._circuit
        return fixed_tables(
            {eid: names[at] for eid, at in self._at.items()},
            [(name, names[a], names[b]) for name, a, b in zip(circuit.branch_names, circuit.from_bus, circuit.to_bus,
                                                              strict=True)],
            [(name, names[at], s.kg_per_kwh)
             for (name, s), at in zip(self.params.sources.items(), self._source_bus, strict=True)],
            circuit.own_buses)

    def advance(self, time_s: float, inputs: Values) -> Values:
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
        if feeding := self._circuit.feeding:
            lines.append(f"{self.sid}: {', '.join(feeding[:4])}{' ...' * (len(feeding) > 4)} of the circuit feed it at "
                         "0 kg/kWh; one that is disabled there and stands in sources instead has an intensity")
        return lines

    def _outputs_of(self) -> Values:
        circuit = self._circuit
        p_from, p_to = circuit.flows_kw()
        n = len(circuit.buses)
        p_source = np.array([s.p_set_kw for s in self.params.sources.values()])
        p_source[self._substation] = circuit.substation_kw()
        drawn, local = circuit.own_kw()
        for eid, at in self._at.items():
            p_load = self._drawn[eid]
            drawn[at] += max(p_load, 0.0)
            local[at] -= min(p_load, 0.0)
        feeding = np.flatnonzero(local)
        nci = nodal_carbon_intensity(
            n + len(circuit.middles), circuit.from_bus, circuit.to_bus, p_from, p_to,
            np.concatenate([self._source_bus, feeding]), np.concatenate([p_source, local[feeding]]),
            np.concatenate([self._intensity, np.zeros(len(feeding))])).tolist()
        mean_pu, low, high = circuit.voltages_pu()
        nothing = [0.0] * len(circuit.middles)
        outputs: Values = {eid: {"nci_kg_per_kwh": nci[at], "vm_pu": mean_pu[at]} for eid, at in self._at.items()}
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                "loss_kw": float((p_from + p_to).sum()),
                "emission_kg_per_h": generated_carbon(p_source, self._intensity),
                "p_source_kw": p_source.tolist(), "vm_min_pu": low, "vm_max_pu": high, "status": 0.0,
                "p_from_kw": p_from.tolist(), "p_to_kw": p_to.tolist(),
                "p_drawn_bus_kw": [*drawn.tolist(), *nothing], "p_local_bus_kw": [*local.tolist(), *nothing],
            }
        return outputs


class Circuit:
    """One OpenDSS circuit in an engine of its own.

    buses, slack       names, and the position of the source's bus
    feeding            names of what stands at one bus and has fed it in some solution
    middles            what joins more than two buses: its middle is a bus behind those
    from_bus, to_bus   (n_branch,) positions of the ends of all that joins buses; branch_names theirs
    """

    def __init__(self, text: str | Path, sid: str) -> None:
        if isinstance(text, Path) and not is_file(text):
            raise ScenarioError(f"{sid}.master: no file at {text}; give the path of a .dss file")
        self._dss = dss = opendssdirect.dss.NewContext()
        for allow in (dss.Basic.AllowChangeDir, dss.Basic.AllowEditor, dss.Basic.AllowDOScmd, dss.Basic.AllowForms):
            allow(False)
        if isinstance(text, Path):
            names = dss.Executive
            dssscan.check(text, [names.Command(k) for k in range(1, names.NumCommands() + 1)],
                          [names.Option(k) for k in range(1, names.NumOptions() + 1)])
        try:
            for line in ["clear", f'redirect "{text}"'] if isinstance(text, Path) else ["clear", *text.splitlines()]:
                dss.Text.Command(line)
            dss.Text.Command(f"set tolerance={TOLERANCE:g} maxiterations=200 controlmode=static")
            dss.Solution.Solve()
        except opendssdirect.OpenDSSDirect.DSSException as err:
            raise ScenarioError(f"{sid}: OpenDSS refuses the circuit: {' '.join(str(err).split())}") from None
        self._sid = sid
        self.middles: list[Any] = []
        self.feeding: list[Any] = []
        self.buses = list(dss.Circuit.AllBusNames())
        self._place = {name: k for k, name in enumerate(self.buses)}
        self._series: list[tuple[str, list[int]]] = []
        self._shunts: list[tuple[str, int]] = []
        self._list()
        ends = [end for name, places in self._series for end in self._ends(name, list(dict.fromkeys(places)))]
        self.branch_names = [name for name, _, _ in ends]
        self.from_bus = np.array([a for _, a, _ in ends], dtype=np.int64)
        self.to_bus = np.array([b for _, _, b in ends], dtype=np.int64)
        dss.Circuit.SetActiveElement(SOURCE)
        self.slack = self._place[_bus_of(dss.CktElement.BusNames()[0])]

    def _list(self) -> None:
        """Sort what is enabled into what joins buses and what stands at one."""
        for name in self._dss.Circuit.AllElementNames():
            kind = name.partition(".")[0].lower()
            self._dss.Circuit.SetActiveElement(name)
            if kind in _WATCHERS or kind.endswith("control") or not self._dss.CktElement.Enabled():
                continue
            if kind in ("vsource", "isource") and name.lower() != SOURCE:
                raise ScenarioError(f"{self._sid}: the circuit has a second source, {name}, whose carbon nobody gives; "
                                    "disable it, or make it a generator")
            places = [self._place[_bus_of(end)] for end in self._dss.CktElement.BusNames()]
            if len(set(places)) > 1:
                self._series.append((name, places))
            elif name.lower() != SOURCE:
                self._shunts.append((name, places[0]))

    def _ends(self, name: str, places: list[int]) -> list[tuple[str, int, int]]:
        """(name, position, position) of the branches that an element is; a star's middle is one more bus."""
        label = name.removeprefix("Line.")
        if len(places) == 2:
            return [(label, places[0], places[1])]
        middle = len(self.buses) + len(self.middles)
        self.middles.append(label)
        return [(f"{label}.{self.buses[at]}", at, middle) for at in places]

    def position(self, bus: str, what: str) -> int:
        """Where a bus stands; ScenarioError for one that the circuit does not have."""
        if bus.lower() not in self._place:
            raise ScenarioError(unknown(what, bus, self.buses))
        return self._place[bus.lower()]

    def add_load(self, name: str, at: int) -> None:
        """A load of constant power at all phases of a bus, at first of 0: from each to the bus's own neutral (node 4),
        if it has one, else to ground, or between phases where the bus has no ground. ScenarioError where it cannot
        be."""
        dss, bus = self._dss, self.buses[at]
        dss.Circuit.SetActiveBus(bus)
        nodes, kv = sorted(dss.Bus.Nodes()), dss.Bus.kVBase()
        phases, others = [n for n in nodes if n in PHASES], [n for n in nodes if n not in PHASES]
        if not kv > 0.0:
            raise ScenarioError(f"{self._sid}: bus {bus} has no voltage base; end the circuit's file by 'set "
                                "voltagebases=[...]' (kV) and 'calcvoltagebases'")
        if not phases:
            raise ScenarioError(f"{self._sid}: bus {bus} has nodes {', '.join(map(str, nodes))} and none of the phases "
                                "1, 2, 3; nothing of ours can stand there")
        delta = not self._grounded(phases)
        if delta and len(phases) == 1:
            raise ScenarioError(f"{self._sid}: bus {bus} has phase {phases[0]} alone and no way to ground, as of a "
                                "three-wire delta feeder; name a bus with two phases or more")
        single = len(phases) == 1 or (delta and len(phases) == 2)
        where = [*phases, *([NEUTRAL] if NEUTRAL in others and not delta else [])]
        dss.Text.Command(
            f"new load.{name} bus1={'.'.join([bus, *map(str, where)])} phases={1 if single else len(phases)} "
            f"conn={'delta' if delta else 'wye'} kv={kv if len(phases) == 1 else kv * 3.0**0.5:.12g} model=1 "
            "kw=0 kvar=0 vminpu=0.1 vmaxpu=2")

    def _grounded(self, phases: list[int]) -> bool:
        """Whether the active bus's phases have a way to ground beside what OpenDSS adds so that nothing floats: what a
        fault to ground meets is not ten thousand times what one between phases does (one phase: it carries 1 kVA)."""
        bus = self._dss.Bus
        bus.ZscRefresh()
        nodes = list(bus.Nodes())
        z = np.array(bus.ZscMatrix()).reshape(-1, 2) @ [1.0, 1.0j]
        z = z.reshape(len(nodes), len(nodes))[np.ix_(*[[nodes.index(n) for n in phases]] * 2)]
        self._dss.Text.Command("init")  # what was injected to find it out is not where the next solution starts
        if len(phases) == 1:
            return 1000.0 * bus.kVBase() ** 2 >= abs(z[0, 0])
        between = abs(z[0, 0] + z[1, 1] - z[0, 1] - z[1, 0])
        return bool(abs(z[0, 0]) <= NO_GROUND * between)

    def draw(self, name: str, p_kw: float, q_kvar: float) -> None:
        """Another power of a load of ours; < 0 feeds."""
        self._dss.Loads.Name(name)
        self._dss.Loads.kW(p_kw)
        self._dss.Loads.kvar(q_kvar)

    def solve(self) -> bool:
        """The power flow; False where it does not converge."""
        self._dss.Solution.Solve()
        return bool(self._dss.Solution.Converged())

    def flows_kw(self) -> tuple[Floats, Floats]:
        """Active power entering each branch at its two ends, summed over conductors.

        An element that joins more than two buses is a star: what it loses is lost in the arms that feed it.
        """
        p_from, p_to = [], []
        for name, places in self._series:
            enters = self._by_bus(name, places)
            if len(enters) == 2:
                p_from.append(enters[0])
                p_to.append(enters[1])
                continue
            fed = sum(p for p in enters if p > 0.0)
            passed = 1.0 - sum(enters) / fed if fed else 1.0
            p_from += enters
            p_to += [-p * (passed if p > 0.0 else 1.0) for p in enters]
        return np.array(p_from), np.array(p_to)

    @property
    def own_buses(self) -> list[str]:
        """Where the circuit's own loads and all else that stands at one bus are."""
        return sorted({self.buses[at] for _, at in self._shunts})

    def own_kw(self) -> tuple[Floats, Floats]:
        """(n_bus,) what the circuit's own loads and all else that stands at one bus draw there, and what they feed."""
        drawn, fed = np.zeros(len(self.buses)), np.zeros(len(self.buses))
        for name, at in self._shunts:
            power = sum(self._terminals(name))
            if power > 0.0:
                drawn[at] += power
            else:
                fed[at] -= power
                if power < -EXPORT_KW and name not in self.feeding:
                    self.feeding.append(name)
        return drawn, fed

    def substation_kw(self) -> float:
        """What the circuit's source delivers."""
        return -sum(self._terminals(SOURCE))

    def _by_bus(self, name: str, places: list[int]) -> list[float]:
        """What enters an element at each of its buses, in the order of the first terminal there."""
        at: dict[int, float] = {}
        for place, power in zip(places, self._terminals(name), strict=True):
            at[place] = at.get(place, 0.0) + power
        return list(at.values())

    def _terminals(self, name: str) -> list[float]:
        self._dss.Circuit.SetActiveElement(name)
        element = self._dss.CktElement
        if not element.Enabled():
            return [0.0] * element.NumTerminals()
        power = np.array(element.Powers())[::2].reshape(element.NumTerminals(), -1)
        return power.sum(axis=1).tolist()

    def voltages_pu(self) -> tuple[list[float], float, float]:
        """Mean of the phases at every bus, and the lowest and highest of any phase."""
        mean, low, high = [], np.inf, -np.inf
        for bus in self.buses:
            self._dss.Circuit.SetActiveBus(bus)
            vm, nodes = np.array(self._dss.Bus.puVmagAngle())[::2], np.array(self._dss.Bus.Nodes())
            if np.isin(nodes, PHASES).any():  # a neutral conductor's voltage is none of a phase
                vm = vm[np.isin(nodes, PHASES)]
            mean.append(float(vm.mean()))
            low, high = min(low, float(vm.min())), max(high, float(vm.max()))
        return mean, low, high


def _bus_of(end: str) -> str:
    """'bus8.1.2.3' -> 'bus8'."""
    return end.partition(".")[0].lower()


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
