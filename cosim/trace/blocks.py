"""Blocks of an HDF5 file that change in place, as writes in an order that is whole after each.

The layouts are those of the HDF5 File Format Specification 3.0: superblock version 0 (II.A), version 1 B-trees of
chunks (III.A.1). A block of another kind is refused: it has no such order.
"""

from __future__ import annotations

import struct

from cosim.trace.seal import END_OF_FILE, PAGE

_TREE, _CHUNKS = b"TREE", 1
_FANOUT = 64

Steps = list[tuple[int, bytes]]
"""(offset, bytes) to write, in order."""


def steps_in_place(at: int, old: bytes, new: bytes, extent: int | None) -> tuple[int, Steps] | None:
    """Rank of a changed block, lower ones are written first, and the writes that change it; None if there is no order
    in which a reader finds all old rows at every instant.

    at: offset of the block; extent: its rank if it is the object header of a dataset that grows, else None
    """
    if at == 0:
        rank, steps = -1, _in_a_page(at, old, new) if _same_but(old, new, END_OF_FILE) else None
    elif new[:4] == old[:4] == _TREE and new[4] == old[4] == _CHUNKS:
        rank, steps = 255 - new[5], _tree(at, old, new)
    else:
        rank, steps = 256 + (extent or 0), None if extent is None else _in_a_page(at, old, new)
    return None if steps is None else (rank, steps)


def _tree(at: int, old: bytes, new: bytes) -> Steps | None:
    """A node of a chunk index, to which children were added at its end, or which gave its last ones to a new node that
    its parent, written before, refers to. None: changed otherwise."""
    key = (len(new) - 24 - 8 * _FANOUT) // (_FANOUT + 1)
    if new[5] != old[5] or len(new) != 24 + 8 * _FANOUT + key * (_FANOUT + 1):
        return None
    before, after = (int.from_bytes(node[6:8], "little") for node in (old, new))
    last = 24 + before * (key + 8)  # the key that bounds the old last child
    end = 24 + after * (key + 8) + key
    at_once = _in_a_page(at, old[:end], new[:end])
    if at_once is not None and after >= before:
        return at_once
    siblings = _differing(at + 8, old[8:24], new[8:24])  # no reader looks there for a chunk
    count = _in_a_page(at + 6, old[6:8], new[6:8])
    if after < before:  # what stands behind the count is not looked at
        return None if count is None else [*siblings, *count]
    bound = _bound(at + last, old[last: last + key], new[last: last + key])
    if old[24:last] != new[24:last] or bound is None or count is None:
        return None
    children = _differing(at + last + key, old[last + key: end], new[last + key: end])
    # a bound rises before there is a child behind it, and sinks when what it cuts off is found there
    parts = (bound, count) if _place(old[last: last + key]) < _place(new[last: last + key]) else (count, bound)
    return [*siblings, *children, *parts[0], *parts[1]]


def _place(key: bytes) -> tuple[int, ...]:
    """Where a key stands: 8 bytes of size and filters, then the chunk's first element, a coordinate a dimension."""
    return struct.unpack(f"<{len(key) // 8 - 1}Q", key[8:])


def _bound(at: int, old: bytes, new: bytes) -> Steps | None:
    """Writes (offset, bytes) that change a key of a B-tree node from `old` to `new`, in an order that keeps the node
    valid if the process ends after any of them: after each write the key lies between its old and its new value, or
    above both. None where no such order exists."""
    fields = [slice(k, k + 8) for k in range(8, len(old), 8)]
    steps = _differing(at, old[:8], new[:8])  # of the chunk behind it, which no reader reaches yet
    if _place(old) < _place(new):  # the greatest digit first: by coordinate, in each from its last byte
        for field in fields:
            for begin, data in _differing(at + field.start, old[field], new[field]):
                cut = (begin // PAGE + 1) * PAGE - begin
                steps += [(begin + k, part) for k, part in ((cut, data[cut:]), (0, data[:cut])) if part]
        return steps
    for field in reversed(fields):
        moved = _in_a_page(at + field.start, old[field], new[field])
        if moved is None:
            return None
        steps += moved
    return steps


def _in_a_page(at: int, old: bytes, new: bytes) -> Steps | None:
    """One write of the bytes that differ; None when they reach from one page into another."""
    steps = _differing(at, old, new)
    return None if any(begin // PAGE != (begin + len(data) - 1) // PAGE for begin, data in steps) else steps


def _differing(at: int, old: bytes, new: bytes) -> Steps:
    """One write from the first byte that differs to the last; none when all are equal."""
    if old == new:
        return []
    differ = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    first, last = ((differ & -differ).bit_length() - 1) // 8, (differ.bit_length() - 1) // 8
    return [(at + first, new[first: last + 1])]


def _same_but(old: bytes, new: bytes, part: slice) -> bool:
    return old[8:9] == b"\0" and old[: part.start] == new[: part.start] and old[part.stop:] == new[part.stop:]
