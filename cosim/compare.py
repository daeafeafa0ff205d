"""Where two traces first differ, as a phrase."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from cosim.errors import TraceError, first_line
from cosim.trace import DAMAGE, RESCUE, Trace
from cosim.units import format_time

Dataset = Any
"""An h5py dataset, as `Trace.datasets` gives them."""
_WIRING = ("wiring/", "initial/")
_LATER = ("initial/", "wiring/scale")
"""What came after the first traces of this schema, as all tables '<member>.<name>' did: one that lacks them is no other
run."""


def first_difference(a: str | os.PathLike, b: str | os.PathLike) -> str | None:
    """Where two traces first differ in a dataset (name, type, shape or any byte), as a phrase; None when they do not.

    First is what is there in one only, then another type or shape, then the earliest simulated time, then tables, last
    the wiring. Root attributes are not compared: created, driver, versions and wall_* differ between equal runs.
    """
    with Trace(a) as left, Trace(b) as right:
        first, second = left.datasets(), right.datasets()
        only = sorted(name for name in set(first) ^ set(second) if not _later(name))
        if only:
            return f"{only[0]} is in the {'first' if only[0] in first else 'second'} trace only"
        found = [(name.startswith(_WIRING), *difference) for name in first if name in second
                 if (difference := _compared(left, right, name, first[name], second[name]))]
        return min(found, key=lambda difference: difference[:2], default=(0, 0, None))[2]


def _compared(left: Trace, right: Trace, name: str, a: Dataset, b: Dataset) -> tuple[float, str] | None:
    """As `_unequal`; TraceError when a file is damaged where it is read."""
    try:
        return _unequal(name, a, b)
    except DAMAGE as err:
        raise TraceError(f"{left.path} and {right.path} cannot be compared: {name} is damaged in one of them "
                         f"({first_line(err)}); {RESCUE}") from None


def _later(name: str) -> bool:
    return name.startswith(_LATER) or "." in name.split("/")[0]


def _unequal(name: str, a: Dataset, b: Dataset) -> tuple[float, str] | None:
    """(simulated time, phrase) of the first difference of two datasets; the time is -inf for another type, shape or
    text, inf for a table's row."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return -math.inf, f"{name} is {a.dtype} {a.shape} and {b.dtype} {b.shape}"
    x, y = a[()], b[()]
    if x.dtype.hasobject:
        return None if list(x) == list(y) else (-math.inf, f"{name} holds other text")
    if x.tobytes() == y.tobytes():
        return None
    size = x.dtype.itemsize
    left, right = (np.frombuffer(v.tobytes(), f"V{size}") for v in (x, y))
    at = tuple(int(i) for i in np.unravel_index(int(np.flatnonzero(left != right)[0]), x.shape))
    scale = a.dims[0][0] if len(a.dims[0]) else None
    time_s = float(scale[at[0]]) if scale is not None and scale.name.endswith("/time_s") else math.inf
    return time_s, f"{name} at {_place(a, at)}: {x[at]} and {y[at]}"


def _place(data: Dataset, at: tuple[int, ...]) -> str:
    """An index in words: time, entity and label where the dataset has them."""
    axes = [axis[0] if len(axis) else None for axis in data.dims]
    words = []
    for index, axis in zip(at, axes, strict=True):
        if axis is None:
            words.append(f"row {index}")
        elif axis.name.endswith("/time_s"):
            words.append(format_time(int(axis[index])))
        else:
            words.append(axis.asstr()[index])
    return ", ".join(words)
