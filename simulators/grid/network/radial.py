"""Networks as radial feeders: what the conic dispatch and the sweep can represent, and what is refused, by name.

Rows: E03, I25, P07, Z07.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.errors import ScenarioError
from cosim.simulators.grid.equations import Complexes, Floats, Ints, sums
from cosim.simulators.grid.network.circuit import element_names, ends_of, nodes_of
from cosim.simulators.grid.network.elements import (
    Generator,
    base_loads,
    check,
    own_generators,
    rated_kw,
    rows_in_service,
    understood,
    voltage_limits,
    without_generators,
    without_loads,
)
from cosim.simulators.grid.network.feeder import Feeder, LineList, Nodes, orient
from cosim.simulators.grid.network.files import Admittances, admittances, name_of, stamp_of, stored
from cosim.simulators.grid.network.ratings import ratings
from cosim.units import KW_PER_MW

BASE_MVA = 1.0
"""Power base of a named network; pandapower's own `sn_mva` is a matter of its solver."""
SAME_RATIO = 1e-9
"""Ratios that differ by no more drive no current around two parallel transformers."""
_ELSEWHERE = "the grid without an optimiser models it: cosim.simulators.grid.ac:AcPowerFlow"


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """The base load of a network: bus numbers in service, ascending, and what is drawn at each, kW and kvar."""

    bus_ids: tuple[int, ...]
    p_kw: Floats
    q_kvar: Floats


def read_loads(network: str | LineList) -> Loads:
    """The loads of any network, radial or not, bus by bus; ScenarioError naming an element without proper figures."""
    return _loads(network, stamp_of(network))


@lru_cache(maxsize=64)
def _loads(network: str | LineList, stamp: int) -> Loads:
    net = stored(network)
    check(net, name_of(network))
    buses = _buses(net)
    return Loads(tuple(buses), *base_loads(net, buses))


def read_feeder(network: str | LineList) -> Feeder:
    """The radial feeder that a parameter describes; ScenarioError naming the element that it cannot represent.

    Taken as pandapower converts them: lines (half-open ones, too), transformers of two and three windings with their
    taps, shifts and iron losses, impedances, shunts, and closed bus-bus switches, whose buses are one node. Parallel
    branches are one branch. Motors, wards and storage draw (or feed) the file's power. Refused: loops, several
    external grids, DC lines, extended wards, a star leg of negative impedance.
    """
    return _read(network, stamp_of(network))


@lru_cache(maxsize=64)
def _read(network: str | LineList, stamp: int) -> Feeder:
    base_mva = network.base_mva if isinstance(network, LineList) else BASE_MVA
    with understood(name_of(network)):
        return feeder_of(stored(network), name_of(network), base_mva)


def feeder_of(net: Any, name: str, base_mva: float = BASE_MVA) -> Feeder:
    """The feeder that a pandapower network in memory stands for; see `read_feeder` for what is accepted."""
    left_out = check(net, name)
    _refuse(net, name)
    buses = _buses(net)
    root_bus, v0_pu = _substation(net, name, buses)
    load_p, load_q = base_loads(net, buses)
    generators, bare = own_generators(net), copy.deepcopy(net)
    without_loads(bare)
    without_generators(bare, generators)
    solver = admittances(bare, base_mva)
    nodes = nodes_of(solver)
    root, (from_node, to_node) = nodes.of_bus[root_bus], ends_of(solver, nodes)
    z_of_rows = _impedances(net, solver, base_mva)
    branches = _merged(solver, z_of_rows, nodes, from_node, to_node, name)
    order, forward = orient(name, nodes, branches.from_node, branches.to_node, branches.elements, root)
    ratio = _ratios(len(nodes), branches, order, forward, root)
    scale = np.abs(ratio[branches.to_node]) ** 2
    z, y_from, y_to = branches.z_pu / scale, branches.y_from_pu * scale, branches.y_to_pu * scale
    parent = np.where(forward, branches.from_node, branches.to_node)
    child = np.where(forward, branches.to_node, branches.from_node)
    y_parent, y_child = np.where(forward, y_from, y_to), np.where(forward, y_to, y_from)
    y_bus = solver.y_bus_pu[nodes.rows] * np.abs(ratio) ** 2
    at, place = np.array([nodes.of_bus[b] for b in buses], dtype=np.int64), len(nodes)
    left_out += _unheld_voltages(generators)
    return Feeder(
        name=name, base_mva=base_mva, base_kv=float(net.bus.vn_kv.loc[root_bus]), v0_pu=v0_pu, nodes=nodes,
        substation=root, parent=parent, child=child, r_pu=z.real.copy(), x_pu=z.imag.copy(),
        b_pu=np.bincount(np.concatenate([parent, child]), np.concatenate([y_parent, y_child]).imag, place) + y_bus.imag,
        p_kw=sums(at, load_p, place), q_kvar=sums(at, load_q, place),
        g_parent_pu=y_parent.real.copy(), g_child_pu=y_child.real.copy(), g_bus_pu=y_bus.real.copy(),
        own_p_kw=solver.p_bus_kw[nodes.rows], own_q_kvar=solver.q_bus_kvar[nodes.rows], ratio=ratio,
        merged=branches.merged, forward=branches.same_way == forward[branches.merged], generators=generators,
        b_parent_pu=y_parent.imag.copy(), b_child_pu=y_child.imag.copy(),
        base_a=_base_a(net, nodes, parent, child, np.abs(ratio), KW_PER_MW * base_mva),
        ratings=ratings(net, solver.kind, solver.index, z_of_rows, branches.merged, len(parent)),
        left_out=tuple(left_out), rated_kw=rated_kw(net), voltage_limits=voltage_limits(net),
    )


def _buses(net: Any) -> list[int]:
    return sorted(int(b) for b in net.bus.index[net.bus.in_service.astype(bool)])


def _refuse(net: Any, name: str) -> None:
    """Refuse what only an AC power flow can represent."""
    for kind, why in (("dcline", "a DC line closes a loop and holds voltages"), ("xward", "an extended ward holds a "
                                                                                 "voltage")):
        for k, _ in rows_in_service(net, kind):
            raise ScenarioError(f"network {name} has {kind} {k} in service: {why}, which a radial dispatch does not "
                                f"model; {_ELSEWHERE}")
    if not any(next(rows_in_service(net, kind), None) for kind in ("line", "trafo", "trafo3w", "impedance")):
        raise ScenarioError(f"network {name} has no line in service; a feeder has at least one")


def _substation(net: Any, name: str, buses: list[int]) -> tuple[int, float]:
    """Bus and voltage of the one external grid."""
    grids = [("ext_grid", k, row) for k, row in rows_in_service(net, "ext_grid")]
    grids += [("gen", k, row) for k, row in rows_in_service(net, "gen") if bool(row.get("slack", False))]
    if len(grids) != 1 or int(grids[0][2].bus) not in buses:
        named = "".join(f", {kind} {k} at bus {int(row.bus)}" for kind, k, row in grids[:4])
        several = f"; {_ELSEWHERE}" if len(grids) > 1 else ""
        raise ScenarioError(f"network {name} has {len(grids)} external grids in service{named}; a radial feeder has "
                            f"one, at a bus in service: the substation{several}")
    return int(grids[0][2].bus), float(grids[0][2].vm_pu)


def _unheld_voltages(generators: tuple[Generator, ...]) -> list[str]:
    held = [g.name for g in generators if g.kind == "gen"]
    if not held:
        return []
    return [f"{', '.join(held[:4])}{' ...' if len(held) > 4 else ''} hold no voltage: their Q is dispatched"]


def _base_a(net: Any, nodes: Nodes, parent: Ints, child: Ints, ratio: Floats, base_kva: float) -> Floats:
    """(n_branch,) 1 p.u. of current, A, on the voltage level of an end that has buses, the parent first."""
    at = np.where(parent < len(nodes.lowest), parent, child)
    return np.array([base_kva / (3.0**0.5 * float(net.bus.vn_kv.loc[nodes.lowest[k]]) * ratio[k])
                     if k < len(nodes.lowest) else np.nan for k in at.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class _Branches:
    """Branches between different pairs of nodes, each maybe of several rows of the solver's.

    merged, same_way  (n_row,) which branch a row is part of, and whether it points the branch's way
    """

    from_node: Ints
    to_node: Ints
    z_pu: Complexes
    y_from_pu: Complexes
    y_to_pu: Complexes
    ratio: Complexes
    elements: list[str]
    merged: Ints
    same_way: NDArray[np.bool_]


def _impedances(net: Any, solver: Admittances, base_mva: float) -> Complexes:
    """Series impedances (n_row,); those of lines from their own figures, in the order of operations of old traces."""
    z = solver.z_pu.copy()
    for i, (kind, k) in enumerate(zip(solver.kind, solver.index, strict=True)):
        if kind == "line":
            line = net.line.loc[k]
            ohm = float(net.bus.vn_kv.loc[line.from_bus]) ** 2 / base_mva
            per_pu = float(line.length_km) / float(line.parallel) / ohm
            z[i] = complex(float(line.r_ohm_per_km) * per_pu, float(line.x_ohm_per_km) * per_pu)
    return z


def _merged(solver: Admittances, z_pu: Complexes, nodes: Nodes, from_node: Ints, to_node: Ints, name: str) -> _Branches:
    """Parallel rows as one; ScenarioError for rows that are no plain impedance, or that drive a current in circles."""
    elements = element_names(solver)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (a, b) in enumerate(zip(from_node.tolist(), to_node.tolist(), strict=True)):
        where = f"network {name}: {elements[i]} ({nodes.labels[a]}-{nodes.labels[b]})"
        if solver.skewed[i]:
            raise ScenarioError(f"{where} has another impedance in each direction, which a radial dispatch does not "
                                f"model; {_ELSEWHERE}")
        if not (z_pu[i].real >= 0.0 and z_pu[i].imag >= 0.0 and np.isfinite(z_pu[i])):
            raise ScenarioError(f"{where} has r + jx = {z_pu[i]:.3g} p.u.; the dispatch needs both finite and >= 0; "
                                f"{_ELSEWHERE}")
        if a == b:
            raise ScenarioError(f"{where} joins two buses that closed switches make one; open it or one of them, or "
                                f"{_ELSEWHERE}")
        groups.setdefault((min(a, b), max(a, b)), []).append(i)
    merged, same_way = np.zeros(len(z_pu), np.int64), np.ones(len(z_pu), bool)
    firsts: list[int] = []
    z: list[complex] = []
    y_from: list[complex] = []
    y_to: list[complex] = []
    for members in groups.values():
        first = members[0]
        for i in members:
            merged[i], same_way[i] = len(firsts), from_node[i] == from_node[first]
            _refuse_circulating(solver, elements, first, i, bool(same_way[i]), name)
        firsts.append(first)
        z.append(z_pu[first] if len(members) == 1 else 1.0 / np.sum(1.0 / z_pu[members]))
        alike = same_way[members]
        y_from.append(np.where(alike, solver.y_from_pu[members], solver.y_to_pu[members]).sum())
        y_to.append(np.where(alike, solver.y_to_pu[members], solver.y_from_pu[members]).sum())
    return _Branches(from_node[firsts], to_node[firsts], np.array(z), np.array(y_from), np.array(y_to),
                     solver.ratio[firsts], [elements[i] for i in firsts], merged, same_way)


def _refuse_circulating(solver: Admittances, elements: Sequence[str], first: int, i: int, alike: bool, name: str
                        ) -> None:
    off = solver.ratio[i] - solver.ratio[first] if alike else max(abs(solver.ratio[k] - 1.0) for k in (i, first))
    if abs(off) > SAME_RATIO:
        raise ScenarioError(f"network {name}: {elements[first]} and {elements[i]} join the same buses at different "
                            f"ratios, which drives a current around them; {_ELSEWHERE}")


def _ratios(n_node: int, branches: _Branches, order: Ints, forward: NDArray[np.bool_], root: int) -> Complexes:
    """(n_node,) what the transformers between the substation and a node multiply its voltage by."""
    ratio = np.ones(n_node, complex)
    for k in order:
        a, b, tap = branches.from_node[k], branches.to_node[k], branches.ratio[k]
        if forward[k]:
            ratio[b] = ratio[a] / tap
        else:
            ratio[a] = ratio[b] * tap
    return ratio
