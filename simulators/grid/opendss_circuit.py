"""A circuit in an engine of OpenDSS: buses, what joins them, elements at them, and solutions."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from cosim.errors import ScenarioError, unknown
from cosim.limits import is_file
from cosim.simulators.grid import network
from cosim.simulators.grid.dispatch.surplus import EXPORT_KW
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network import dss_scan as dssscan

try:
    import opendssdirect
except ImportError:  # an extra; see `installed`
    opendssdirect = None

TOLERANCE = 1e-9
"""OpenDSS's own 1e-4 would show in the losses."""
PHASES, NEUTRAL, NO_GROUND = (1, 2, 3), 4, 1e4
SOURCE = "vsource.source"
SHIPPED = {"ieee13": "ieee13.dss"}
"""Circuits that ship, by name: files of `cosim.simulators.grid.network`."""
_BUS = "bus"
_WATCHERS = frozenset({"monitor", "energymeter", "sensor", "fuse", "recloser", "relay"})


def circuit_file(master: str) -> Path:
    """The file of a circuit: one that ships, by its name, or the path that is given."""
    return Path(str(resources.files(network) / SHIPPED[master])) if master in SHIPPED else Path(master)


def installed() -> bool:
    """Whether OpenDSS is there; without it there is no `Circuit`."""
    return opendssdirect is not None


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
        opendssdirect.dss.Basic.AllowChangeDir(False)  # a first context goes back to where the library was imported
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
        self.middles: list[str] = []
        self.feeding: list[str] = []
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

    @property
    def entity_names(self) -> list[str]:
        """What entities at its buses are called: as there, with 'bus' before a name that does not begin so."""
        return [name if name.startswith(_BUS) else _BUS + name for name in self.buses]

    def position(self, bus: str, what: str) -> int:
        """Where a bus stands, by its name or what an entity there is called; ScenarioError for one that the circuit
        does not have."""
        name = bus.lower()
        if name not in self._place:
            name = name.removeprefix(_BUS)
        if name not in self._place:
            raise ScenarioError(unknown(what, bus, self.buses))
        return self._place[name]

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
            "kw=0 kvar=0 vminpu=0.1 vmaxpu=2 status=fixed")

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
        """Set the power of an added load; < 0 feeds."""
        self._dss.Loads.Name(name)
        self._dss.Loads.kW(p_kw)
        self._dss.Loads.kvar(q_kvar)

    def scale_own_loads(self, factor: float) -> None:
        """Multiply the circuit's own loads, but those of fixed status, in the solutions to come."""
        self._dss.Solution.LoadMult(factor)

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
