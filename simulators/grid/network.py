"""Networks and their AC power flow: the only module that touches pandapower.

Rows of the model: E03, I25, P07, Z07.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandapower
import pandapower.networks
import pandapower.topology
from pandapower.auxiliary import LoadflowNotConverged

from cosim.errors import ScenarioError
from simulators.grid.elements import own_generators, trafos_in_service, transformers
from simulators.grid.equations import Complexes, Floats, Ints
from simulators.grid.feeder import Feeder, LineList, orient

BASE_MVA = 1.0
"""Power base of a named network; pandapower's own `sn_mva` is a matter of its solver."""

_READ = frozenset({"bus", "line", "load", "ext_grid", "switch", "trafo", "gen", "sgen"})
_NO_ELEMENTS = frozenset({"poly_cost", "pwl_cost", "measurement", "controller", "group"})
_REMEDY = {
    "trafo3w": "three-winding transformers are not modelled; write it as two of two windings",
}
_READERS = {".json": (pandapower.from_json, "pandapower.to_json"),
            ".xlsx": (pandapower.from_excel, "pandapower.to_excel")}
"""How a network file is read, by its ending, and what writes one."""
# Columns of pandapower's internal bus table (PYPOWER's order) where a power flow starts from.
_VM, _VA = 7, 8


def read_feeder(network: str | LineList) -> Feeder:
    """The feeder that a parameter describes; ScenarioError naming the element that our model cannot represent.

    Accepted: a radial network of lines, two-winding transformers at nominal ratio and constant-power loads with one
    external grid, once what is out of service and what is behind open switches is left out. A bus-bus switch must be
    open. Iron losses and magnetising currents of transformers are left out, and `Feeder.left_out` says so; a phase
    shift turns all voltages behind it alike and has no effect on a radial network.
    """
    return _read(network, _stamp(network))


@lru_cache(maxsize=16)
def _read(network: str | LineList, stamp: int) -> Feeder:
    base_mva = network.base_mva if isinstance(network, LineList) else BASE_MVA
    return feeder_of(_stored(network, stamp), _name(network), base_mva)


def feeder_of(net: pandapower.pandapowerNet, name: str, base_mva: float = BASE_MVA) -> Feeder:
    """The feeder that a pandapower network in memory stands for; see `read_feeder` for what is accepted."""
    _refuse_elements(net, name)
    buses = [int(b) for b in net.bus.index[net.bus.in_service.astype(bool)]]
    buses.sort()
    lines, trafos = _lines_in_service(net), trafos_in_service(net)
    if not lines and not trafos:
        raise ScenarioError(f"network {name} has no line in service; a feeder has at least one")
    _refuse_lines(net, name, lines, set(buses))
    table = net.line.loc[lines]
    ends = [(int(a), int(b)) for a, b in zip(table.from_bus, table.to_bus, strict=True)]
    ends += [(int(a), int(b)) for a, b in zip(net.trafo.hv_bus[trafos], net.trafo.lv_bus[trafos], strict=True)]
    grid = net.ext_grid[net.ext_grid.in_service.astype(bool)]
    if len(grid) != 1 or int(grid.bus.iloc[0]) not in buses:
        raise ScenarioError(f"network {name} has {len(grid)} external grids in service; it must have one, at a bus in "
                            "service: the substation")
    substation = int(grid.bus.iloc[0])
    oriented = orient(name, buses, ends, [*(f"line {k}" for k in lines), *(f"trafo {k}" for k in trafos)], substation)
    z_trafo, left_out = transformers(net, name, trafos, set(buses), base_mva)
    ohm = net.bus.vn_kv.loc[table.from_bus].to_numpy(float) ** 2 / base_mva
    per_pu = (table.length_km / table.parallel / ohm).to_numpy(float)
    p_kw, q_kvar = _base_loads(net, name, buses)
    return Feeder(
        name=name, base_mva=base_mva, base_kv=float(net.bus.vn_kv.loc[substation]), bus_ids=tuple(buses),
        substation=buses.index(substation), parent=oriented[:, 0].copy(), child=oriented[:, 1].copy(),
        r_pu=np.append(table.r_ohm_per_km.to_numpy(float) * per_pu, z_trafo.real),
        x_pu=np.append(table.x_ohm_per_km.to_numpy(float) * per_pu, z_trafo.imag),
        b_pu=_charging(net, table, oriented[: len(lines)], len(buses), ohm), p_kw=p_kw, q_kvar=q_kvar,
        generators=own_generators(net, name, set(buses)), left_out=left_out,
    )


@dataclass(frozen=True, slots=True, eq=False)
class AcFlow:
    """An AC power flow on a feeder's buses and branches, in their order.

    vm_pu                (n_bus,) voltage magnitudes
    p_from_kw, p_to_kw   (n_branch,) active power entering at the parent and at the child end
    p_substation_kw, q_substation_kvar  what the upstream grid delivers
    loss_kw              sum of all line losses
    """

    vm_pu: Floats
    p_from_kw: Floats
    p_to_kw: Floats
    p_substation_kw: float
    q_substation_kvar: float
    loss_kw: float


class AcCheck:
    """pandapower's Newton power flow of one network at changing loads and set points.

    The network is read once and its admittances are kept (`recycle`); no run starts at the last one's voltages, so
    that a result depends on its own inputs only.

    source_buses  the network's numbers of the buses where sources other than the substation stand
    """

    def __init__(self, network: str | LineList, source_buses: Sequence[int], v0_pu: float) -> None:
        self._feeder = read_feeder(network)
        net = copy.deepcopy(_stored(network, _stamp(network)))
        self._net, lines, trafos = net, _lines_in_service(net), trafos_in_service(net)
        net.line.loc[~net.line.index.isin(lines), "in_service"] = False
        net.trafo.loc[~net.trafo.index.isin(trafos), "in_service"] = False
        for column in ("pfe_kw", "i0_percent", "shift_degree"):  # see `read_feeder`
            net.trafo[column] = 0.0
        for kind in ("load", "sgen", "gen"):
            net[kind] = net[kind].iloc[0:0].copy()
        net.ext_grid["vm_pu"] = v0_pu
        net.ext_grid["va_degree"] = 0.0
        self._ids = ids = np.array(self._feeder.bus_ids)
        pandapower.create_loads(net, ids, p_mw=0.0, q_mvar=0.0)
        for bus in source_buses:
            pandapower.create_sgen(net, bus, p_mw=0.0, q_mvar=0.0)
        self._lines = net.line.index.get_indexer(lines)
        self._trafos = net.trafo.index.get_indexer(trafos)
        first = np.append(net.line.from_bus.to_numpy()[self._lines], net.trafo.hv_bus.to_numpy()[self._trafos])
        self._forward = first == ids[self._feeder.parent]
        self._buses = net.bus.index.get_indexer(ids)
        self._slack = int(np.flatnonzero(net.ext_grid.in_service.to_numpy())[0])
        self._run()

    def run(
        self,
        p_load_kw: Floats,
        q_load_kvar: Floats,
        p_source_kw: Floats,
        q_source_kvar: Floats,
        v_start_pu: Complexes | None = None,
    ) -> AcFlow | None:
        """Power flow at loads (n_bus,) drawn and sources (n_source,) injected; None when Newton finds no solution.

        Newton starts at `v_start_pu` (n_bus,), by default flat. Wherever it starts, it ends where pandapower's own
        admittances leave no bus a mismatch above 1e-11 p.u.; a start that is a solution is thereby confirmed.
        """
        net = self._net
        net.load["p_mw"], net.load["q_mvar"] = p_load_kw / 1000.0, q_load_kvar / 1000.0
        if len(net.sgen):
            net.sgen["p_mw"], net.sgen["q_mvar"] = p_source_kw / 1000.0, q_source_kvar / 1000.0
        if net._ppc is not None:
            start, rows = net._ppc["bus"], net._pd2ppc_lookups["bus"][self._ids]
            start[:, _VM], start[:, _VA] = 1.0, 0.0
            if v_start_pu is not None:
                start[rows, _VM], start[rows, _VA] = np.abs(v_start_pu), np.angle(v_start_pu, deg=True)
        try:
            self._run()
        except LoadflowNotConverged:
            net._ppc = None  # what is kept between runs is spoilt; the next run builds it anew
            return None
        flows = net.res_line[["p_from_mw", "p_to_mw"]].to_numpy()[self._lines] * 1000.0
        if len(self._trafos):
            of_trafos = net.res_trafo[["p_hv_mw", "p_lv_mw"]].to_numpy()[self._trafos] * 1000.0
            flows = np.concatenate([flows, of_trafos])
        p_from = np.where(self._forward, flows[:, 0], flows[:, 1])
        p_to = np.where(self._forward, flows[:, 1], flows[:, 0])
        p_sub, q_sub = net.res_ext_grid[["p_mw", "q_mvar"]].to_numpy()[self._slack] * 1000.0
        vm_pu = net.res_bus["vm_pu"].to_numpy()[self._buses]
        return AcFlow(vm_pu, p_from, p_to, float(p_sub), float(q_sub), float(np.sum(p_from + p_to)))

    def _run(self) -> None:
        recycle = {"bus_pq": True, "trafo": False, "gen": False}
        # numba would save 0.4 ms a run and cost seconds of compilation in every process.
        pandapower.runpp(self._net, init="flat", tolerance_mva=1e-11, numba=False, recycle=recycle)


@dataclass(frozen=True, eq=False)
class AcBranches:
    """Where the branches of a network stand: bus positions of their ends, and names such as '0-1' or 'trafo 3-4'."""

    from_bus: Ints
    to_bus: Ints
    names: list[str]


class AcNetwork:
    """AC power flow of any network of lines, two-winding transformers and one external grid, radial or meshed.

    The network's own loads, generators and storage are taken out: demand and sources are the caller's. `lines` are put
    into service first, whatever the network says.

    bus_ids       numbers of the buses in service, ascending; arrays over buses are in this order
    base_p_kw, base_q_kvar  (n_bus,) the network's own loads
    """

    def __init__(
        self, network: str | LineList, source_buses: Sequence[int], v0_pu: float, lines: Sequence[int]
    ) -> None:
        net, name = copy.deepcopy(_stored(network, _stamp(network))), _name(network)
        for k in lines:
            if k not in net.line.index:
                raise ScenarioError(f"network {name} has no line {k} to close; its lines are {net.line.index.min()} to "
                                    f"{net.line.index.max()}")
            net.line.loc[k, "in_service"] = True
        grid = net.ext_grid[net.ext_grid.in_service.astype(bool)]
        if len(grid) != 1:
            raise ScenarioError(f"network {name} has {len(grid)} external grids in service; it must have one")
        self.bus_ids = tuple(int(b) for b in sorted(net.bus.index[net.bus.in_service.astype(bool)]))
        self.slack_bus = int(grid.bus.iloc[0])
        place = {b: k for k, b in enumerate(self.bus_ids)}
        self.base_p_kw, self.base_q_kvar = _base_loads(net, name, list(self.bus_ids))
        for kind in ("load", "sgen", "gen", "storage", "motor", "ward", "xward"):
            net[kind] = net[kind].iloc[0:0].copy()
        net.ext_grid["vm_pu"], net.ext_grid["va_degree"] = v0_pu, 0.0
        _refuse_lines(net, name, _lines_in_service(net), set(self.bus_ids))
        cut = pandapower.topology.unsupplied_buses(net) & set(self.bus_ids)
        if cut:
            raise ScenarioError(f"network {name} has an island: bus {min(cut)} is not connected to the substation at "
                                f"bus {self.slack_bus}; connect or remove")
        pandapower.create_loads(net, self.bus_ids, p_mw=0.0, q_mvar=0.0)
        for bus in source_buses:
            pandapower.create_sgen(net, bus, p_mw=0.0, q_mvar=0.0)
        self._net, self._order = net, net.bus.index.get_indexer(self.bus_ids)
        trafos = net.trafo.index[net.trafo.in_service.astype(bool)]
        self._lines, self._trafos = net.line.index[net.line.in_service.astype(bool)], trafos
        ends = [*zip(net.line.from_bus[self._lines], net.line.to_bus[self._lines], strict=True),
                *zip(net.trafo.hv_bus[trafos], net.trafo.lv_bus[trafos], strict=True)]
        labels = [f"{a}-{b}" if k < len(self._lines) else f"trafo {a}-{b}" for k, (a, b) in enumerate(ends)]
        self.branches = AcBranches(np.array([place[int(a)] for a, _ in ends], dtype=np.int64),
                                   np.array([place[int(b)] for _, b in ends], dtype=np.int64), labels)
        self._slack_row = int(np.flatnonzero(net.ext_grid.in_service.to_numpy())[0])

    def run(self, p_load_kw: Floats, q_load_kvar: Floats, p_source_kw: Floats, q_source_kvar: Floats) -> AcFlow | None:
        """Power flow at loads (n_bus,) drawn and sources (n_source,) injected; None when Newton finds no solution."""
        net = self._net
        net.load["p_mw"], net.load["q_mvar"] = p_load_kw / 1000.0, q_load_kvar / 1000.0
        if len(net.sgen):
            net.sgen["p_mw"], net.sgen["q_mvar"] = p_source_kw / 1000.0, q_source_kvar / 1000.0
        try:
            pandapower.runpp(net, init="flat", tolerance_mva=1e-10, numba=False)
        except LoadflowNotConverged:
            return None
        line, trafo = net.res_line.loc[self._lines], net.res_trafo.loc[self._trafos]
        p_from = np.concatenate([line.p_from_mw, trafo.p_hv_mw]).astype(float) * 1000.0
        p_to = np.concatenate([line.p_to_mw, trafo.p_lv_mw]).astype(float) * 1000.0
        p_sub, q_sub = net.res_ext_grid[["p_mw", "q_mvar"]].to_numpy()[self._slack_row] * 1000.0
        vm_pu = net.res_bus["vm_pu"].to_numpy()[self._order]
        return AcFlow(vm_pu, p_from, p_to, float(p_sub), float(q_sub), float(np.sum(p_from + p_to)))


# --- reading ----------------------------------------------------------------------------------------------------------

def _name(network: str | LineList) -> str:
    return network if isinstance(network, str) else f"of {len(network.lines)} lines"


def _stamp(network: str | LineList) -> int:
    """What tells one state of a network file from the next; 0 for what is no file."""
    if not isinstance(network, str) or not network.endswith(tuple(_READERS)):
        return 0
    if not Path(network).is_file():
        raise ScenarioError(f"network file '{network}' does not exist; give the path of a pandapower .json or .xlsx")
    return Path(network).stat().st_mtime_ns


@lru_cache(maxsize=16)
def _stored(network: str | LineList, stamp: int) -> Any:
    """The pandapower network, read once (0.7 s for 33 buses); `stamp` belongs to the cache's key. Never change it."""
    if isinstance(network, LineList):
        return _from_lines(network)
    if (ending := Path(network).suffix) in _READERS:
        read, writer = _READERS[ending]
        try:
            return read(network)
        except ImportError as err:
            raise ScenarioError(f"network file '{network}' cannot be read: {err}; pip install openpyxl for Excel files"
                                ) from err
        except Exception as err:  # its parser raises whatever it stumbles over
            raise ScenarioError(f"network file '{network}' is not understood ({err}); write it by {writer}") from err
    makers = {name for name, made in inspect.getmembers(pandapower.networks, inspect.isfunction)
              if made.__module__.startswith("pandapower.networks.") and not name.startswith("_")}
    if network not in makers:
        near = difflib.get_close_matches(network, makers, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ScenarioError(
            f"unknown network '{network}'; {hint}allowed: a function of pandapower.networks such as 'case33bw', "
            "the path of a pandapower .json or .xlsx file, or a list of lines"
        )
    net = getattr(pandapower.networks, network)()
    if not isinstance(net, pandapower.pandapowerNet):
        raise ScenarioError(f"pandapower.networks.{network}() gives no single network; choose another")
    return net


def _from_lines(network: LineList) -> Any:
    net = pandapower.create_empty_network(sn_mva=network.base_mva)
    for bus in sorted({bus for line in network.lines for bus in (line.from_bus, line.to_bus)}):
        pandapower.create_bus(net, vn_kv=network.base_kv, index=bus)
    for line in network.lines:
        pandapower.create_line_from_parameters(
            net, line.from_bus, line.to_bus, length_km=1.0, r_ohm_per_km=line.r_ohm, x_ohm_per_km=line.x_ohm,
            c_nf_per_km=0.0, max_i_ka=99999.0,
        )
    for load in network.loads:
        if load.bus not in net.bus.index:
            raise ScenarioError(f"loads: bus {load.bus} is the end of no line; buses are those that lines name")
        pandapower.create_load(net, load.bus, p_mw=load.p_kw / 1000.0, q_mvar=load.q_kvar / 1000.0)
    if network.substation not in net.bus.index:
        raise ScenarioError(f"substation = {network.substation} is the end of no line; buses are those that lines name")
    pandapower.create_ext_grid(net, network.substation)
    return net


def _lines_in_service(net: Any) -> list[int]:
    """Indices of lines in service whose ends are closed."""
    switches = net.switch
    opened = set(switches.element[(switches.et == "l") & ~switches.closed.astype(bool)])
    return [int(k) for k in net.line.index[net.line.in_service.astype(bool)] if k not in opened]


def _charging(net: Any, table: Any, oriented: np.ndarray, n_bus: int, ohm: Floats) -> Floats:
    """Half of each line's shunt susceptance at either end, p.u."""
    farad = (table.c_nf_per_km * table.length_km * table.parallel).to_numpy(float) * 1e-9
    half = np.pi * float(net.f_hz) * farad * ohm
    return np.bincount(oriented.ravel(), np.repeat(half, 2), n_bus)


def _base_loads(net: Any, name: str, buses: list[int]) -> tuple[Floats, Floats]:
    """Base load per bus, kW and kvar."""
    load = net.load[net.load.in_service.astype(bool) & net.load.bus.isin(buses)]
    for column in ("const_z_p_percent", "const_z_q_percent", "const_i_p_percent", "const_i_q_percent"):
        if column in load and (bad := load.index[load[column].fillna(0.0) != 0.0]).size:
            raise ScenarioError(f"network {name}: load {bad[0]} has {column} = {load[column][bad[0]]:g}; only constant "
                                "power (0) is modelled")
    at = np.array([buses.index(b) for b in load.bus], dtype=np.int64)
    p = np.bincount(at, (load.p_mw * load.scaling).to_numpy(float) * 1000.0, len(buses))
    q = np.bincount(at, (load.q_mvar * load.scaling).to_numpy(float) * 1000.0, len(buses))
    if not np.isfinite(p + q).all():
        bad = buses[int(np.flatnonzero(~np.isfinite(p + q))[0])]
        raise ScenarioError(f"network {name}: the load at bus {bad} is not a finite number; correct or remove it")
    return p, q


def _refuse_elements(net: Any, name: str) -> None:
    """Refuse every kind of element in service that a feeder of lines and loads cannot stand for."""
    for kind, table in net.items():
        if kind in _READ or kind in _NO_ELEMENTS or kind.startswith(("_", "res_", "std_")):
            continue
        if "in_service" not in getattr(table, "columns", ()):
            continue
        active = table.index[table.in_service.astype(bool)]
        if len(active):
            remedy = _REMEDY.get(kind, "only lines, constant-power loads and one external grid are modelled")
            raise ScenarioError(f"network {name} has {kind} {active[0]} in service; {remedy}")
    joined = net.switch.index[(net.switch.et == "b") & net.switch.closed.astype(bool)]
    if len(joined):
        raise ScenarioError(f"network {name} has bus-bus switch {joined[0]} closed; merge the two buses or open it")


def _refuse_lines(net: Any, name: str, lines: list[int], buses: set[int]) -> None:
    """Refuse lines with an impedance or an end that makes no sense."""
    for k in lines:
        line = net.line.loc[k]
        r, x = line.r_ohm_per_km * line.length_km, line.x_ohm_per_km * line.length_km
        where = f"network {name}: line {k} ({int(line.from_bus)}-{int(line.to_bus)})"
        if not (r >= 0.0 and x >= 0.0 and np.isfinite(r + x)):
            raise ScenarioError(f"{where} has r = {r:g} ohm and x = {x:g} ohm; both must be finite and >= 0")
        if r == x == 0.0:
            raise ScenarioError(f"{where} has no impedance; merge its two buses")
        if not (line.c_nf_per_km >= 0.0 and line.get("g_us_per_km", 0.0) == 0.0):
            raise ScenarioError(f"{where} has c_nf_per_km = {line.c_nf_per_km:g}, g_us_per_km = {line.g_us_per_km:g}; "
                                "the first must be >= 0, the second 0 (shunt conductance is not modelled)")
        outside = {int(line.from_bus), int(line.to_bus)} - buses
        if outside:
            raise ScenarioError(f"{where} ends at bus {min(outside)}, which is out of service")
        kv = {float(net.bus.vn_kv.loc[b]) for b in (line.from_bus, line.to_bus)}
        if len(kv) > 1:
            raise ScenarioError(f"{where} joins buses of {min(kv):g} and {max(kv):g} kV; a line has one voltage")
