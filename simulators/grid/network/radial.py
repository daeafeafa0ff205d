"""Networks as radial feeders: what the conic dispatch and the sweep can represent, and what is refused, by name.

Rows: E03, I25, P07, Z07.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.errors import ScenarioError
from cosim.simulators.grid.equations import Complexes, Floats, Ints, sums
from cosim.simulators.grid.network.circuit import Admittances, element_names, ends_of, nodes_of
from cosim.simulators.grid.network.elements import understood
from cosim.simulators.grid.network.feeder import Feeder, LineList, Nodes, orient
from cosim.simulators.grid.network.ratings import branch_ratings
from cosim.simulators.grid.network.source import ELSEWHERE, Loads, RadialData, Storage, listed, name_of, stamp_of
from cosim.units import KW_PER_MW

SAME_RATIO = 1e-9
"""Ratios that differ by no more drive no current around two parallel transformers."""


def read_loads(network: str | LineList) -> Loads:
    """The loads of any network, radial or not, bus by bus; ScenarioError naming an element without proper figures."""
    return _loads(network, stamp_of(network))


@lru_cache(maxsize=64)
def _loads(network: str | LineList, stamp: int) -> Loads:
    if (given := listed(network)) is not None:
        return given.loads
    return _tables().loads_of(network)


def read_storages(network: str | LineList) -> tuple[Storage, ...]:
    """The storage units of any network that are in service."""
    return () if listed(network) is not None else _tables().storages_of(network)


def out_of_service(network: str | LineList) -> tuple[int, ...]:
    """Numbers of the buses of any network that are not in service."""
    return () if listed(network) is not None else _tables().out_of_service(network)


def _tables() -> Any:
    from cosim.simulators.grid.network import tables  # pandapower takes seconds

    return tables


def bus_entities(network: str | LineList) -> list[str]:
    """What entities at the buses of any network are called, in the order of their numbers: 'bus3' for bus 3, of all
    that are in service; ScenarioError as `read_loads`."""
    return [f"bus{bus}" for bus in read_loads(network).bus_ids]


def read_feeder(network: str | LineList, batteries: Collection[str] = ()) -> Feeder:
    """The radial feeder that a parameter describes; ScenarioError naming the element that it cannot represent.

    Taken as pandapower converts them: lines (half-open ones, too), transformers of two and three windings with their
    taps, shifts and iron losses, impedances, shunts, and closed bus-bus switches, whose buses are one node. Parallel
    branches are one branch. Motors, wards and storage draw (or feed) the file's power. Refused: loops, several
    external grids, DC lines, extended wards, a star leg of negative impedance. batteries: names of the scenario's; a
    storage of such a name ('storage3') is none of the feeder's.
    """
    return _read(network, stamp_of(network), frozenset(batteries))


@lru_cache(maxsize=64)
def _read(network: str | LineList, stamp: int, batteries: frozenset[str]) -> Feeder:
    return feeder_of(read_radial(network, batteries))


def read_radial(network: str | LineList, batteries: Collection[str] = ()) -> RadialData:
    """What a radial feeder is made of, before it is oriented; ScenarioError as `read_feeder`."""
    return _read_radial(network, stamp_of(network), frozenset(batteries))


@lru_cache(maxsize=64)
def _read_radial(network: str | LineList, stamp: int, batteries: frozenset[str]) -> RadialData:
    if (given := listed(network)) is not None:
        return given
    from cosim.simulators.grid.network import files, tables  # pandapower takes seconds

    with understood(name_of(network)):
        return tables.radial_data(files.stored(network), name_of(network), batteries=batteries)


def feeder_of(data: RadialData) -> Feeder:
    """The feeder that a network stands for; see `read_feeder` for what is accepted."""
    name, solver, buses = data.name, data.solver, data.loads.bus_ids
    with understood(name):
        nodes = nodes_of(solver)
        root, (from_node, to_node) = nodes.of_bus[data.root_bus], ends_of(solver, nodes)
        branches = _merged(solver, data.z_pu, nodes, from_node, to_node, name)
        order, forward = orient(name, nodes, branches.from_node, branches.to_node, branches.elements, root)
        ratio = _ratios(len(nodes), branches, order, forward, root)
    scale = np.abs(ratio[branches.to_node]) ** 2
    z, y_from, y_to = branches.z_pu / scale, branches.y_from_pu * scale, branches.y_to_pu * scale
    parent = np.where(forward, branches.from_node, branches.to_node)
    child = np.where(forward, branches.to_node, branches.from_node)
    y_parent, y_child = np.where(forward, y_from, y_to), np.where(forward, y_to, y_from)
    y_bus = solver.y_bus_pu[nodes.rows] * np.abs(ratio) ** 2
    at, place = np.array([nodes.of_bus[b] for b in buses], dtype=np.int64), len(nodes)
    return Feeder(
        name=name, base_mva=data.base_mva, base_kv=data.base_kv, v0_pu=data.v0_pu, nodes=nodes,
        substation=root, parent=parent, child=child, r_pu=z.real.copy(), x_pu=z.imag.copy(),
        b_pu=np.bincount(np.concatenate([parent, child]), np.concatenate([y_parent, y_child]).imag, place) + y_bus.imag,
        p_kw=sums(at, data.loads.p_kw, place), q_kvar=sums(at, data.loads.q_kvar, place),
        g_parent_pu=y_parent.real.copy(), g_child_pu=y_child.real.copy(), g_bus_pu=y_bus.real.copy(),
        own_p_kw=solver.p_bus_kw[nodes.rows], own_q_kvar=solver.q_bus_kvar[nodes.rows], ratio=ratio,
        merged=branches.merged, forward=branches.same_way == forward[branches.merged], generators=data.generators,
        b_parent_pu=y_parent.imag.copy(), b_child_pu=y_child.imag.copy(),
        base_a=_base_a(data, nodes, parent, child, np.abs(ratio)),
        ratings=branch_ratings(data.ratings, data.z_pu, branches.merged, len(parent)),
        left_out=data.left_out, rated_kw=data.rated_kw, voltage_limits=data.voltage_limits,
        batteries=data.batteries,
    )


def _base_a(data: RadialData, nodes: Nodes, parent: Ints, child: Ints, ratio: Floats) -> Floats:
    """(n_branch,) 1 p.u. of current, A, on the voltage level of an end that has buses, the parent first."""
    at = np.where(parent < len(nodes.lowest), parent, child)
    return np.array([KW_PER_MW * data.base_mva / (3.0**0.5 * data.base_kv_of[nodes.lowest[k]] * ratio[k])
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


def _merged(solver: Admittances, z_pu: Complexes, nodes: Nodes, from_node: Ints, to_node: Ints, name: str) -> _Branches:
    """Parallel rows as one; ScenarioError for rows that are no plain impedance, or that drive a current in circles."""
    elements = element_names(solver)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (a, b) in enumerate(zip(from_node.tolist(), to_node.tolist(), strict=True)):
        where = f"network {name}: {elements[i]} ({nodes.labels[a]}-{nodes.labels[b]})"
        if solver.skewed[i]:
            raise ScenarioError(f"{where} has another impedance in each direction, which a radial dispatch does not "
                                f"model; {ELSEWHERE}")
        if not (z_pu[i].real >= 0.0 and z_pu[i].imag >= 0.0 and np.isfinite(z_pu[i])):
            raise ScenarioError(f"{where} has r + jx = {z_pu[i]:.3g} p.u.; the dispatch needs both finite and >= 0; "
                                f"{ELSEWHERE}")
        if a == b:
            raise ScenarioError(f"{where} joins two buses that closed switches make one; open it or one of them, or "
                                f"{ELSEWHERE}")
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
                            f"ratios, which drives a current around them; {ELSEWHERE}")


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
