"""Where to draw the nodes of a feeder: columns by distance from the substation, laterals on rows of their own.

Rows: X04.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


def parse(lines: Sequence[str]) -> list[tuple[str, str]] | None:
    """('0', '1') for each line named '0-1', 'trafo 0-1' or '0-1 #2'; None when a name has another form."""
    ends = [name.partition(" #")[0].rpartition(" ")[2].split("-") for name in lines]
    return [(p[0], p[1]) for p in ends] if ends and all(len(p) == 2 and all(p) for p in ends) else None


def layout(lines: Sequence[tuple[str, str]], root: str | None = None) -> dict[str, tuple[int, int]]:
    """node -> (column, row): column 0 is the root, row 0 the longest path from it, further rows above and below.

    What hangs on a path stays beside it, so that each feeder of a substation has a band of rows of its own. No two
    nodes share a place. Loops are cut where the breadth-first search meets them; parts without the root start in column
    0 below the rest.
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
    children: dict[str, list[str]] = {root: []}
    depth, queue = {root: 0}, deque([root])
    while queue:
        node = queue.popleft()
        for other in near[node]:
            if other not in depth:
                depth[other] = depth[node] + 1
                children[node].append(other)
                children[other] = []
                queue.append(other)
    return children, depth


@dataclass
class _Block:
    """A path with all that hangs on it, its head in row 0: node -> (column, row), and what else it covers."""

    places: dict[str, tuple[int, int]]
    taken: set[tuple[int, int]]

    def add(self, other: _Block, row: int, stem: set[tuple[int, int]]) -> None:
        """Take in another block, moved down by `row`, and the way to it."""
        self.places.update({node: (column, at + row) for node, (column, at) in other.places.items()})
        self.taken.update((column, at + row) for column, at in other.taken)
        self.taken.update(stem)


def _place(root: str, near: dict[str, list[str]], places: dict, taken: set, base: int) -> None:
    children, depth = _tree(root, near)
    order = {node: k for k, node in enumerate(depth)}
    reach: dict[str, int] = {}
    for node in reversed(depth):
        reach[node] = 1 + max((reach[c] for c in children[node]), default=0)
    block = _block(root, children, depth, reach, order)
    low = min((row for _, row in block.places.values()), default=0)
    shift = base - low if places else base
    places.update({node: (column, row + shift) for node, (column, row) in block.places.items()})
    taken.update((column, row + shift) for column, row in block.taken)


def _block(head: str, children: dict[str, list[str]], depth: dict[str, int], reach: dict[str, int],
           order: dict[str, int]) -> _Block:
    """The longest path from `head` in row 0, and every lateral, as a block that stays together, in the rows next to it
    that have room for it: those farthest out first, so that what hangs near the head goes around them."""
    trunk = [head]
    while children[trunk[-1]]:
        trunk.append(max(children[trunk[-1]], key=reach.__getitem__))
    on_trunk = set(trunk)
    made = _Block({node: (depth[node], 0) for node in trunk}, {(depth[node], 0) for node in trunk})
    laterals = sorted((-depth[node], -reach[child], order[child], child, node)
                      for node in trunk for child in children[node] if child not in on_trunk)
    stems: dict[str, set[tuple[int, int]]] = {}
    for _, _, _, child, parent in laterals:
        other = _block(child, children, depth, reach, order)
        own = stems.setdefault(parent, set())  # laterals of one node share their way
        row = _free_row(made.taken, other.taken, depth[parent], own)
        away = 1 if row > 0 else -1
        own.update((depth[parent], between) for between in range(away, row + away, away))
        made.add(other, row, own)
    return made


def _free_row(taken: set[tuple[int, int]], block: set[tuple[int, int]], column: int, own: set[tuple[int, int]]) -> int:
    """By how many rows to move a block so that it and its way to row 0, in `column`, find all places free but those of
    `own` for the way: as few as can be, above first."""
    def free(at: int) -> bool:
        away = 1 if at > 0 else -1
        way = ((column, between) for between in range(away, at + away, away))
        return (all(place not in taken or place in own for place in way)
                and all((c, row + at) not in taken for c, row in block))

    most = 2 + max(abs(row) for _, row in taken) + max(abs(row) for _, row in block)
    for distance in range(1, most):
        for at in (-distance, distance):
            if free(at):
                return at
    return -most
