"""What is read of a network that pandapower has, as arrays: its loads, and all that makes a radial feeder.

Rows: I25, P07.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cosim.errors import ScenarioError
from cosim.simulators.grid.equations import Complexes
from cosim.simulators.grid.network.circuit import Admittances
from cosim.simulators.grid.network.elements import Generator, rated_kw, rows_in_service, voltage_limits
from cosim.simulators.grid.network.feeder import LineList
from cosim.simulators.grid.network.files import admittances, stored
from cosim.simulators.grid.network.parts import own_storages, take_apart
from cosim.simulators.grid.network.ratings import row_ratings
from cosim.simulators.grid.network.source import ELSEWHERE, Loads, RadialData, Storage, name_of, series_pu

BASE_MVA = 1.0
"""Power base of a named network; pandapower's own `sn_mva` is a matter of its solver."""


def loads_of(network: str | LineList) -> Loads:
    """The loads of any network, radial or not, bus by bus; ScenarioError naming an element without proper figures."""
    return take_apart(stored(network), name_of(network)).loads


def storages_of(network: str | LineList) -> tuple[Storage, ...]:
    """The storage units of any network that are in service."""
    return own_storages(stored(network))


def out_of_service(network: str | LineList) -> tuple[int, ...]:
    """Numbers of the buses of any network that are not in service."""
    net = stored(network)
    return tuple(sorted(int(b) for b in net.bus.index[~net.bus.in_service.astype(bool)]))


def radial_data(net: Any, name: str, base_mva: float = BASE_MVA, batteries: Collection[str] = ()) -> RadialData:
    """A pandapower network in memory as arrays; ScenarioError for what no radial feeder represents.

    batteries  names of the scenario's, as in `parts.take_apart`
    """
    parts = take_apart(net, name, batteries)
    _refuse(net, name)
    buses = list(parts.loads.bus_ids)
    root_bus, v0_pu = _substation(net, name, buses)
    solver = admittances(parts.bare, base_mva)
    return RadialData(
        name=name, base_mva=base_mva, base_kv=float(net.bus.vn_kv.loc[root_bus]), root_bus=root_bus, v0_pu=v0_pu,
        loads=parts.loads, solver=solver, z_pu=_impedances(net, solver, base_mva), generators=parts.generators,
        base_kv_of={b: float(net.bus.vn_kv.loc[b]) for b in buses}, ratings=row_ratings(net, solver.kind, solver.index),
        left_out=(*parts.notes, *_unheld_voltages(parts.generators)), rated_kw=rated_kw(net),
        voltage_limits=voltage_limits(net), batteries=tuple((s.name, s.bus) for s in parts.storages))


def _refuse(net: Any, name: str) -> None:
    """Refuse what only an AC power flow can represent."""
    for kind, why in (("dcline", "a DC line closes a loop and holds voltages"), ("xward", "an extended ward holds a "
                                                                                 "voltage")):
        for k, _ in rows_in_service(net, kind):
            raise ScenarioError(f"network {name} has {kind} {k} in service: {why}, which a radial dispatch does not "
                                f"model; {ELSEWHERE}")
    if not any(next(rows_in_service(net, kind), None) for kind in ("line", "trafo", "trafo3w", "impedance")):
        raise ScenarioError(f"network {name} has no line in service; a feeder has at least one")


def _substation(net: Any, name: str, buses: list[int]) -> tuple[int, float]:
    """Bus and voltage of the one external grid."""
    grids = [("ext_grid", k, row) for k, row in rows_in_service(net, "ext_grid")]
    grids += [("gen", k, row) for k, row in rows_in_service(net, "gen") if bool(row.get("slack", False))]
    if len(grids) != 1 or int(grids[0][2].bus) not in buses:
        several = f"; {ELSEWHERE}" if len(grids) > 1 else (
            ": add one by pandapower.create_ext_grid at the bus that the upstream grid feeds" if not grids else "")
        named = "".join(f", {kind} {k} at bus {int(row.bus)}" for kind, k, row in grids[:4])
        raise ScenarioError(f"network {name} has {len(grids)} external grids in service{named}; a radial feeder has "
                            f"one, at a bus in service: the substation{several}")
    return int(grids[0][2].bus), float(grids[0][2].vm_pu)


def _unheld_voltages(generators: tuple[Generator, ...]) -> list[str]:
    held = [g.name for g in generators if g.kind == "gen"]
    if not held:
        return []
    return [f"{', '.join(held[:4])}{' ...' if len(held) > 4 else ''} hold no voltage: their Q is dispatched"]


def _impedances(net: Any, solver: Admittances, base_mva: float) -> Complexes:
    """Series impedances (n_row,); those of lines from their own figures, in the order of operations of old traces."""
    z = solver.z_pu.copy()
    for i, (kind, k) in enumerate(zip(solver.kind, solver.index, strict=True)):
        if kind == "line":
            line = net.line.loc[k]
            z[i] = series_pu(float(line.r_ohm_per_km), float(line.x_ohm_per_km), float(line.length_km),
                             float(line.parallel), float(net.bus.vn_kv.loc[line.from_bus]), base_mva)
    return z
