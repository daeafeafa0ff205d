"""Where to draw the nodes of a feeder: columns by distance from the substation, laterals on rows of their own.

Rows: X04.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence


def parse(lines: Sequence[str]) -> list[tuple[str, str]] | None:
    """('0', '1') for each line named '0-1', 'trafo 0-1' or '0-1 #2'; None when a name has another form."""
    pairs = [tuple(name.partition(" #")[0].rpartition(" ")[2].split("-")) for name in lines]
    return pairs if pairs and all(len(p) == 2 and all(p) for p in pairs) else None


def layout(lines: Sequence[tuple[str, str]], root: str | None = None) -> dict[str, tuple[int, int]]:
    """node -> (column, row): column 0 is the root, row 0 the longest path from it, further rows above and below.

    No two nodes share a place. Loops are cut where the breadth-first search meets them; parts without the root start in
    column 0 below the rest.
    """
    near: dict[str, list[str]] = {}
    for a, b in lines:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    places: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    starts = [root] if root in near else []
    for start in [*starts, *near]:
        if start not in places:
            base = max((row for _, row in places.values()), default=-1) + 1 if places else 0
            _place(start, near, places, taken, base)
    return places


def _tree(root: str, near: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """(children of each node, distance of each node from the root), breadth first."""
    children, depth, queue = {root: []}, {root: 0}, deque([root])
    while queue:
        node = queue.popleft()
        for other in near[node]:
            if other not in depth:
                depth[other] = depth[node] + 1
                children[node].append(other)
                children[other] = []
                queue.append(other)
    return children, depth


def _place(root: str, near: dict[str, list[str]], places: dict, taken: set, base: int) -> None:
    children, depth = _tree(root, near)
    order = {node: k for k, node in enumerate(depth)}
    reach = {}
    for node in reversed(depth):
        reach[node] = 1 + max((reach[c] for c in children[node]), default=0)
    paths = [(0, 0, root, base, None)]
    while paths:  # the longest lateral first: it gets the row next to its parent
        _, _, head, row, parent = heapq.heappop(paths)
        if parent is not None:
            row = _free_row(taken, depth[head], reach[head], row)
        trunk = [head]
        while children[trunk[-1]]:
            trunk.append(max(children[trunk[-1]], key=reach.get))
        for node in trunk:
            places[node] = (depth[node], row)
            taken.add(places[node])
        if parent is not None:
            away = 1 if row > places[parent][1] else -1
            taken.update((depth[parent], between) for between in range(places[parent][1] + away, row + away, away))
        for node in trunk:
            for child in children[node]:
                if child not in places:
                    heapq.heappush(paths, (-reach[child], order[child], child, row, node))


def _free_row(taken: set, column: int, length: int, row: int) -> int:
    """The row nearest to `row`, above first, where a path and its way down from its parent find all places free."""
    def free(at: int) -> bool:
        away = 1 if at > row else -1
        stem = all((column - 1, between) not in taken for between in range(row + away, at + away, away))
        return stem and all((column + k, at) not in taken for k in range(length))

    reach = 1 + max(abs(at - row) for _, at in taken)
    for distance in range(1, reach + 1):
        for at in (row - distance, row + distance):
            if free(at):
                return at
    return min(at for _, at in taken) - 1
