"""A grid in OpenDSS: its power flow of a feeder of ours or of the user's own .dss file, and the same carbon flow.

Unbalanced networks count by the sum of their phases: carbon follows active power, whichever conductor carries it.

Rows of the model: E09, E10, Z03.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, SolverError, unknown
from cosim.params import params
from cosim.ports import Port
from cosim.units import format_time
from simulators.grid.equations import Floats, generated_carbon, nodal_carbon_intensity
from simulators.grid.feeder import Feeder, Network
from simulators.grid.network import read_feeder
from simulators.grid.ports import DEMAND

try:
    import opendssdirect
except ImportError:  # an extra; `init` then says so
    opendssdirect = None

TOLERANCE = 1e-9
"""OpenDSS's own 1e-4 would show in the losses."""


@params
class DssSource:
    """A source at a set point; the one at the circuit's source bus is the substation, which balances."""

    bus: Annotated[str, Field(min_length=1, description="name of its bus, e.g. bus6")]
    kg_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
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
)


class OpenDss(Adapter):
    """OpenDSS's power flow with carbon emission flow (9), (10): demand at `Bus` entities, sources at set points.

    Loads and generators in the user's file stay as they are; a generator there that is none of `sources` is taken for
    local generation at 0 kg/kWh.
    """

    PARAMS = OpenDssParams
    MODELS = {"Bus": (*DEMAND, Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next step, average"),
                      Port("vm_pu", "out", "voltage magnitude, mean of the phases")), "Grid": _GRID}

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> dict:
        """Validate the parameters and compile the circuit, so that `create` can refuse a bus it does not have."""
        meta = super().init(sid, time_resolution, **params)
        if opendssdirect is None:
            raise ScenarioError(f"{sid}: OpenDSS is not installed; pip install 'aidc-cosim[opendss]'")
        p = self.params
        text = Path(p.master) if p.master else _written_out(read_feeder(p.network), p.v0_pu)
        self._circuit = Circuit(text, sid)
        return meta

    def create(self, num: int, model: str, names: list[str] | None = None) -> list[dict]:
        """Buses by their names in the circuit (without names the first `num`), or the one Grid."""
        if model == "Bus":
            names = list(names) if names else self._circuit.buses[:num]
            for name in names:
                self._circuit.position(name, f"bus of {self.sid}")
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names)

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
        for eid, at in self._at.items():
            circuit.add_load(f"cosim_{eid}", at)
        for k, (name, source) in enumerate(given.items()):
            if k != self._substation:
                circuit.add_load(f"cosim_source_{name}", int(self._source_bus[k]))
                circuit.draw(f"cosim_source_{name}", -source.p_set_kw, -source.q_set_kvar)

    def labels(self) -> dict[str, list[str]]:
        return {"source": list(self.params.sources), "line": self._circuit.branch_names}

    def advance(self, time_s: float, inputs: Values) -> Values:
        for eid in self._at:
            self._circuit.draw(f"cosim_{eid}", inputs[eid]["p_load_kw"], inputs[eid]["q_load_kvar"])
        if not self._circuit.solve():
            drawn = sum(inputs[eid]["p_load_kw"] for eid in self._at)
            raise SolverError(f"{self.sid} at {format_time(time_s)}: OpenDSS finds no power flow at {drawn:.0f} kW of "
                              "demand; lower it or look at the circuit's impedances")
        return self._outputs_of()

    def _outputs_of(self) -> Values:
        circuit = self._circuit
        p_from, p_to = circuit.flows_kw()
        n = len(circuit.buses)
        p_source = np.array([s.p_set_kw for s in self.params.sources.values()])
        p_source[self._substation] = circuit.substation_kw()
        injected = np.bincount(circuit.from_bus, p_from, n) + np.bincount(circuit.to_bus, p_to, n)
        known = np.bincount(self._source_bus, p_source, n)
        for eid, at in self._at.items():
            known[at] -= max(circuit.drawn_kw(f"cosim_{eid}"), 0.0)
        local = np.flatnonzero(injected - known > 1e-6)  # the circuit's own generators, and demand < 0
        nci = nodal_carbon_intensity(
            n, circuit.from_bus, circuit.to_bus, p_from, p_to, np.concatenate([self._source_bus, local]),
            np.concatenate([p_source, (injected - known)[local]]),
            np.concatenate([self._intensity, np.zeros(len(local))])).tolist()
        mean_pu, low, high = circuit.voltages_pu()
        outputs: Values = {eid: {"nci_kg_per_kwh": nci[at], "vm_pu": mean_pu[at]} for eid, at in self._at.items()}
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                "loss_kw": float((p_from + p_to).sum()),
                "emission_kg_per_h": generated_carbon(p_source, self._intensity),
                "p_source_kw": p_source.tolist(), "vm_min_pu": low, "vm_max_pu": high, "status": 0.0,
                "p_from_kw": p_from.tolist(), "p_to_kw": p_to.tolist(),
            }
        return outputs


class Circuit:
    """One OpenDSS circuit in an engine of its own.

    buses, slack       names, and the position of the source's bus
    from_bus, to_bus   (n_branch,) positions of the ends of lines, then two-winding transformers; branch_names theirs
    """

    def __init__(self, text: str | Path, sid: str) -> None:
        if isinstance(text, Path) and not text.is_file():
            raise ScenarioError(f"{sid}.master: no file at {text}; give the path of a .dss file")
        self._dss = dss = opendssdirect.dss.NewContext()
        try:
            dss.Basic.AllowChangeDir(False)
            for line in ["clear", f'redirect "{text}"'] if isinstance(text, Path) else ["clear", *text.splitlines()]:
                dss.Text.Command(line)
            dss.Text.Command(f"set tolerance={TOLERANCE:g} maxiterations=200 controlmode=static")
            dss.Solution.Solve()
        except opendssdirect.OpenDSSDirect.DSSException as err:
            raise ScenarioError(f"{sid}: OpenDSS refuses the circuit: {err}") from None
        self.buses = list(dss.Circuit.AllBusNames())
        self._place = {name: k for k, name in enumerate(self.buses)}
        self._branches = self._listed()
        ends = [self._ends(name) for name in self._branches]
        self.from_bus = np.array([a for a, _ in ends], dtype=np.int64)
        self.to_bus = np.array([b for _, b in ends], dtype=np.int64)
        self.branch_names = [name.removeprefix("Line.") for name in self._branches]
        dss.Circuit.SetActiveElement("Vsource.source")
        self.slack = self._place[_bus_of(dss.CktElement.BusNames()[0])]

    def _listed(self) -> list[str]:
        names = [name for name in self._dss.PDElements.AllNames()
                 if name.partition(".")[0].lower() in ("line", "transformer", "reactor")]
        return [name for name in names if self._two_ended(name)]

    def _two_ended(self, name: str) -> bool:
        self._dss.Circuit.SetActiveElement(name)
        return bool(self._dss.CktElement.Enabled()) and len(self._dss.CktElement.BusNames()) == 2

    def _ends(self, name: str) -> tuple[int, int]:
        self._dss.Circuit.SetActiveElement(name)
        a, b = (self._place[_bus_of(end)] for end in self._dss.CktElement.BusNames())
        return a, b

    def position(self, bus: str, what: str) -> int:
        """Where a bus stands; ScenarioError for one that the circuit does not have."""
        if bus.lower() not in self._place:
            raise ScenarioError(unknown(what, bus, self.buses))
        return self._place[bus.lower()]

    def add_load(self, name: str, at: int) -> None:
        """A load of constant power at all phases of a bus, at first of 0."""
        dss = self._dss
        dss.Circuit.SetActiveBus(self.buses[at])
        nodes, kv = sorted(n for n in dss.Bus.Nodes() if n in (1, 2, 3)), dss.Bus.kVBase()
        kv = kv if len(nodes) == 1 else kv * 3.0**0.5
        where = ".".join([self.buses[at], *map(str, nodes)])
        dss.Text.Command(f"new load.{name} bus1={where} phases={len(nodes)} conn=wye model=1 kv={kv:.12g} kw=0 kvar=0 "
                         "vminpu=0.1 vmaxpu=2")

    def draw(self, name: str, p_kw: float, q_kvar: float) -> None:
        """Another power of a load of ours; < 0 feeds."""
        self._dss.Loads.Name(name)
        self._dss.Loads.kW(p_kw)
        self._dss.Loads.kvar(q_kvar)

    def drawn_kw(self, name: str) -> float:
        """What a load of ours is set to."""
        self._dss.Loads.Name(name)
        return float(self._dss.Loads.kW())

    def solve(self) -> bool:
        """The power flow; False where it does not converge."""
        self._dss.Solution.Solve()
        return bool(self._dss.Solution.Converged())

    def flows_kw(self) -> tuple[Floats, Floats]:
        """Active power entering each branch at its two ends, summed over conductors."""
        ends = np.array([self._terminals(name) for name in self._branches])
        return ends[:, 0], ends[:, 1]

    def substation_kw(self) -> float:
        """What the circuit's source delivers."""
        return -self._terminals("Vsource.source")[0]

    def _terminals(self, name: str) -> tuple[float, float]:
        self._dss.Circuit.SetActiveElement(name)
        power = np.array(self._dss.CktElement.Powers())[::2].reshape(2, -1).sum(axis=1)
        return float(power[0]), float(power[1])

    def voltages_pu(self) -> tuple[list[float], float, float]:
        """Mean of the phases at every bus, and the lowest and highest of any phase."""
        mean, low, high = [], np.inf, -np.inf
        for bus in self.buses:
            self._dss.Circuit.SetActiveBus(bus)
            vm = np.array(self._dss.Bus.puVmagAngle())[::2]
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
    lines = [f"new circuit.feeder bus1={root} basekv={feeder.base_kv:.12g} pu={v0_pu:.12g} phases=3 r1=0 x1=1e-7 r0=0 "
             "x0=1e-7"]
    for k, name in enumerate(feeder.line_names):
        a, b = feeder.bus_names[feeder.parent[k]], feeder.bus_names[feeder.child[k]]
        r, x = feeder.r_pu[k] * ohm, feeder.x_pu[k] * ohm
        lines.append(f"new line.{name} bus1={a} bus2={b} phases=3 r1={r:.12g} x1={x:.12g} r0={r:.12g} x0={x:.12g} c1=0 "
                     "c0=0 length=1 units=none")
    return "\n".join([*lines, f"set voltagebases=[{feeder.base_kv:.12g}]", "calcvoltagebases"])
