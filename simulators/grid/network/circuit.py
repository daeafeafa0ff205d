"""Electrical nodes and branches of a network, and a power flow by them: buses that closed switches join are one node, a
star point is one, too.

Rows: I25.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.simulators.grid.equations import Complexes, Floats, Ints
from cosim.simulators.grid.network.feeder import Nodes

_LEGS = ("hv", "mv", "lv")
TOLERANCE_PU = 1e-11
"""The largest mismatch of a bus, on the network's power base, where rounding permits; see `tolerance_pu`."""
ROUNDINGS = 16.0
"""Roundings that may add up in a bus's mismatch."""


@dataclass(frozen=True, slots=True, eq=False)
class Admittances:
    """A network as pandapower's solver has it: rows of buses that closed switches make one, and of branches.

    row_of       bus number -> row of every bus in service
    isolated     (n_row,) no external grid reaches it
    y_bus_pu     (n_row,) shunt admittances of the buses (shunts, wards), on `base_mva`
    p_bus_kw, q_bus_kvar  (n_row,) constant power drawn there by whatever the network's tables have
    kind, index  per branch row in service: table and index of its element; three rows for a three-winding transformer
    row          (n_branch,) its row in the solver's table
    from_row, to_row  (n_branch,) rows of its ends
    z_pu         (n_branch,) series impedance, behind an ideal transformer `ratio` : 1 at the first end
    y_from_pu, y_to_pu  (n_branch,) shunt admittances at its two ends, inside of the ideal transformer
    skewed       (n_branch,) its series impedance differs by direction
    ratio        (n_branch,) complex
    """

    base_mva: float
    row_of: dict[int, int]
    isolated: np.ndarray
    y_bus_pu: Complexes
    p_bus_kw: Floats
    q_bus_kvar: Floats
    kind: tuple[str, ...]
    index: tuple[int, ...]
    row: Ints
    from_row: Ints
    to_row: Ints
    z_pu: Complexes
    y_from_pu: Complexes
    y_to_pu: Complexes
    skewed: np.ndarray
    ratio: Complexes


def nodes_of(net: Admittances) -> Nodes:
    """The nodes of all buses in service and of all branches between them."""
    at_row: dict[int, int] = {}
    lowest: list[int] = []
    of_bus: dict[int, int] = {}
    for bus in sorted(net.row_of):
        row = net.row_of[bus]
        if row not in at_row:
            at_row[row] = len(lowest)
            lowest.append(bus)
        of_bus[bus] = at_row[row]
    names = [f"bus{b}" for b in lowest]
    taken: Counter[str] = Counter()
    for k, (a, b) in enumerate(zip(net.from_row.tolist(), net.to_row.tolist(), strict=True)):
        for row in (a, b):
            if row not in at_row:
                at_row[row] = len(names)
                kind = net.kind[k]
                name = f"{kind}{net.index[k]}"
                if kind not in ("trafo3w", "xward") or name in names:  # the latter have one inner node, met first
                    name += "end"
                taken[name] += 1
                names.append(name if taken[name] == 1 else f"{name}{taken[name]}")
    rows = np.array(sorted(at_row, key=at_row.__getitem__), dtype=np.int64)
    return Nodes(tuple(names), of_bus, tuple(lowest), rows)


def ends_of(net: Admittances, nodes: Nodes) -> tuple[Ints, Ints]:
    """(n_branch,) nodes at the first and at the other end of every branch row."""
    place = np.full(max(int(nodes.rows.max(initial=0)), int(net.from_row.max(initial=0)),
                        int(net.to_row.max(initial=0))) + 1, -1)
    place[nodes.rows] = np.arange(len(nodes))
    return place[net.from_row], place[net.to_row]


def branch_names(kinds: Sequence[str], from_node: Iterable[int], to_node: Iterable[int], labels: Sequence[str]
                 ) -> list[str]:
    """'0-1' for a line, 'trafo 3-4' for another kind, '0-1 #2' for the next of one name."""
    taken: Counter[str] = Counter()
    names = []
    for kind, a, b in zip(kinds, from_node, to_node, strict=True):
        name = ("" if kind == "line" else f"{kind} ") + f"{labels[a]}-{labels[b]}"
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name} #{taken[name]}")
    return names


def element_names(net: Admittances) -> list[str]:
    """'line 3' of every branch row, for messages; the legs of a three-winding transformer by their winding."""
    seen: Counter[tuple[str, int]] = Counter()
    names = []
    for element in zip(net.kind, net.index, strict=True):
        leg = f" ({_LEGS[seen[element]]})" if element[0] == "trafo3w" else ""
        seen[element] += 1
        names.append(f"{element[0]} {element[1]}{leg}")
    return names


@dataclass(frozen=True, slots=True, eq=False)
class AcFlow:
    """An AC power flow, by nodes and branches.

    vm_pu                (n_bus,) voltage magnitudes
    p_from_kw, p_to_kw   (n_branch,) active power entering at the first (a feeder's parent) and at the other end
    p_slack_kw, q_slack_kvar  (n_slack,) what the external grids deliver
    q_generator_kvar     (n_generator,) reactive power of the network's own generators that stay
    p_drawn_kw           (n_bus,) what the network's own shunts, wards, motors and charging storage draw
    loss_kw              sum of all branch losses
    """

    vm_pu: Floats
    p_from_kw: Floats
    p_to_kw: Floats
    p_slack_kw: Floats
    q_slack_kvar: Floats
    q_generator_kvar: Floats
    p_drawn_kw: Floats
    loss_kw: float

    @property
    def p_substation_kw(self) -> float:
        """What all external grids deliver."""
        return float(self.p_slack_kw.sum())


def tolerance_pu(solver: Admittances) -> float:
    """The tightest mismatch that rounding permits: powers of a bus are differences of |V|^2 times its admittances."""
    size = 1.0 / np.abs(solver.z_pu)
    at_row = np.bincount(np.concatenate([solver.from_row, solver.to_row]), np.concatenate([size, size]))
    return max(TOLERANCE_PU, ROUNDINGS * float(np.finfo(float).eps) * float(at_row.max(initial=0.0)))
