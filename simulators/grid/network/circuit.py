"""Electrical nodes and branches of a network: buses that closed switches join are one node, a star point is one, too.

Rows: I25.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from cosim.simulators.grid.equations import Ints
from cosim.simulators.grid.network.feeder import Nodes
from cosim.simulators.grid.network.files import Admittances

_LEGS = ("hv", "mv", "lv")


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
