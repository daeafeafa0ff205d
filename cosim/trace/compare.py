"""Where two traces first differ, as a phrase, and by how much at most where they need not be equal."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.errors import TraceError, first_line
from cosim.trace.machine import Tolerance
from cosim.trace.reader import Trace
from cosim.trace.supervised import DAMAGE, RESCUE
from cosim.units import format_time, unit_of

Dataset = Any
"""An h5py dataset, as `Trace.datasets` gives them."""
_WIRING = ("wiring/", "initial/")
_LATER = ("initial/", "wiring/scale")
"""What came after the first traces of this schema, as all tables '<member>.<name>' did: one that lacks them is no other
run."""
_COUNTED = ("jobs", "GPUs", "ratio")
"""Dimensions of what is counted or is a state, where all its values are whole numbers."""


@dataclass(frozen=True)
class Comparison:
    """What two traces differ by.

    difference   the first that is beyond the tolerance, as a phrase; None: there is none
    equal        whether every byte that was compared is the same
    largest      the deviation of two numbers that is the largest part of what it may be, as a phrase; None: there is
                 none, or no tolerance
    """

    difference: str | None
    equal: bool
    largest: str | None

    def words(self, tolerance: Tolerance) -> list[str]:
        """What the tolerance was, why, and what was found; [] of what is equal anyway."""
        if self.equal:
            return []
        why = f"not made alike ({tolerance.why}), so that " if tolerance.why else ""
        said = [f"{why}numbers may differ by {tolerance.share:g} of their value or of their unit; counts, states and "
                "names have to be equal"]
        return said + ([f"largest deviation: {self.largest}"] if self.largest else [])


def first_difference(a: str | os.PathLike, b: str | os.PathLike) -> str | None:
    """Where two traces first differ in a dataset (name, type, shape or any byte), as a phrase; None when they do not.

    First is what is there in one only, then another type or shape, then the earliest simulated time, then tables, last
    the wiring. Root attributes are not compared: created, driver, versions and wall_* differ between equal runs.
    """
    return compare(a, b).difference


def compare(a: str | os.PathLike, b: str | os.PathLike, tolerance: Tolerance | None = None) -> Comparison:
    """As `first_difference`, of what is beyond the tolerance (None: every byte counts)."""
    with Trace(a) as left, Trace(b) as right:
        first, second = left.datasets(), right.datasets()
        only = sorted(name for name in set(first) ^ set(second) if not _later(name))
        found = [(name, _compared(left, right, name, first[name], second[name], tolerance))
                 for name in first if name in second]
    beyond = [(name.startswith(_WIRING), *one.first) for name, one in found if one and one.first]
    largest = max((one.largest for _, one in found if one and one.largest), default=(0.0, None))[1]
    difference = min(beyond, key=lambda difference: difference[:2], default=(0, 0, None))[2]
    if only:
        difference = f"{only[0]} is in the {'first' if only[0] in first else 'second'} trace only"
    return Comparison(difference, not only and all(one is None for _, one in found), largest)


@dataclass(frozen=True)
class _Unequal:
    """What two datasets differ by.

    first    (simulated time, phrase) of the first difference beyond the tolerance; the time is -inf for another type,
             shape or text, inf for a table's row
    largest  (part of what it may be, phrase) of the largest deviation
    """

    first: tuple[float, str] | None
    largest: tuple[float, str] | None = None


def _compared(left: Trace, right: Trace, name: str, a: Dataset, b: Dataset, tolerance: Tolerance | None
              ) -> _Unequal | None:
    """As `_unequal`; TraceError when a file is damaged where it is read."""
    try:
        return _unequal(name, a, b, tolerance)
    except DAMAGE as err:
        raise TraceError(f"{left.path} and {right.path} cannot be compared: {name} is damaged in one of them "
                         f"({first_line(err)}); {RESCUE}") from None


def _later(name: str) -> bool:
    return name.startswith(_LATER) or "." in name.split("/")[0]


def _unequal(name: str, a: Dataset, b: Dataset, tolerance: Tolerance | None) -> _Unequal | None:
    if a.dtype != b.dtype or a.shape != b.shape:
        return _Unequal((-math.inf, f"{name} is {a.dtype} {a.shape} and {b.dtype} {b.shape}"))
    x, y = a[()], b[()]
    if x.dtype.hasobject:
        return None if list(x) == list(y) else _Unequal((-math.inf, f"{name} holds other text"))
    if x.tobytes() == y.tobytes():
        return None
    size = x.dtype.itemsize
    left, right = (np.frombuffer(v.tobytes(), f"V{size}") for v in (x, y))
    beyond, largest = left != right, None
    if tolerance is not None and x.dtype.kind == "f" and not _exact(name, x, y):
        part = _part(x.ravel(), y.ravel(), tolerance.share)
        beyond = part > 1.0
        at = _index(int(np.argmax(part)), x.shape)
        largest = float(part.max()), f"{name} at {_place(a, at)}: {_by_how_much(name, float(x[at]), float(y[at]))}"
    if not beyond.any():
        return _Unequal(None, largest)
    at = _index(int(np.flatnonzero(beyond)[0]), x.shape)
    scale = a.dims[0][0] if len(a.dims[0]) else None
    time_s = float(scale[at[0]]) if scale is not None and scale.name.endswith("/time_s") else math.inf
    return _Unequal((time_s, f"{name} at {_place(a, at)}: {x[at]} and {y[at]}"), largest)


def _exact(name: str, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether values have to be equal in any case: counts, states, and how members are wired."""
    if name.startswith("wiring/"):
        return True
    counted = unit_of(name.rpartition("/")[2]).dimension in _COUNTED
    return counted and all(bool((v[np.isfinite(v)] % 1.0 == 0.0).all()) for v in (x, y))


def _part(x: np.ndarray, y: np.ndarray, share: float) -> np.ndarray:
    """|x - y| as part of what it may be: 0 of equals, infinite where only one is finite or there."""
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        part = np.abs(x - y) / (share * np.maximum(1.0, np.maximum(np.abs(x), np.abs(y))))
    return np.where(same, 0.0, np.where(np.isfinite(x) & np.isfinite(y), part, np.inf))


def _by_how_much(name: str, x: float, y: float) -> str:
    """Two numbers' deviation, absolute and relative."""
    unit, largest = unit_of(name.rpartition("/")[2]).symbol, max(abs(x), abs(y))
    if not (math.isfinite(x) and math.isfinite(y)):
        return f"{x} and {y}"
    relative = abs(x - y) / largest if largest else 0.0
    return f"{abs(x - y):.2g}{'' if unit == '1' else f' {unit}'}, {relative:.2g} of the value"


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


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
