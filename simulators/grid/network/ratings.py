"""What the branches of a network may carry, as its file states it: currents of lines, apparent powers of transformers.

Rows: I25.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cosim.simulators.grid.equations import Complexes, Floats, Ints, sums
from cosim.simulators.grid.network.elements import NO_RATING_KA
from cosim.simulators.grid.network.feeder import Ratings
from cosim.units import KW_PER_MW

_A_PER_KA = 1e3
_LEGS = ("sn_hv_mva", "sn_mv_mva", "sn_lv_mva")


def row_ratings(net: Any, kinds: Sequence[str], indices: Sequence[int]) -> Ratings:
    """Ratings of the solver's rows; kinds, indices (n_row,) are the table and index of each.

    A line's is max_i_ka x df x parallel, a transformer's sn_mva x parallel (of a three-winding one that of the
    winding); NaN: none. Where a row states a max_loading_percent, that share of its rating is the limit.
    """
    seen: Counter[tuple[str, int]] = Counter()
    current, power = (np.full(len(kinds), np.nan) for _ in range(2))
    most = np.ones(len(kinds))
    for i, (kind, k) in enumerate(zip(kinds, indices, strict=True)):
        if kind not in ("line", "trafo", "trafo3w"):
            continue
        row = net[kind].loc[k]
        if kind == "line":
            current[i] = _line_a(row)
        else:
            column = "sn_mva" if kind == "trafo" else _LEGS[seen[kind, k]]
            seen[kind, k] += 1
            power[i] = KW_PER_MW * float(row[column]) * _positive(row.get("parallel"), 1.0)
        most[i] = _positive(row.get("max_loading_percent"), 100.0) / 100.0
    return Ratings(current, power, most)


def branch_ratings(rows: Ratings, z_pu: Complexes, merged: Ints, count: int) -> Ratings:
    """Ratings of `count` branches from those of the solver's rows, `merged` (n_row,) has the branch that each is part
    of. Of parallel rows, which share the current as their impedances z_pu (n_row,) have it, the one that is full first
    decides."""
    y = 1.0 / z_pu
    total = np.abs(sums(merged, y.real.copy(), count) + 1j * sums(merged, y.imag.copy(), count))
    single = np.bincount(merged, minlength=count)[merged] == 1
    share = np.where(single, 1.0, np.abs(y) / total[merged])
    rated_a, rated_kva = _least(rows.current_a / share, merged, count), _least(rows.power_kva / share, merged, count)
    most_a, most_kva = (_least(rated * rows.most_ratio / share, merged, count)
                        for rated in (rows.current_a, rows.power_kva))
    return Ratings(rated_a, rated_kva, np.where(np.isnan(rated_a), most_kva / rated_kva, most_a / rated_a))


def _line_a(line: Any) -> float:
    """A; NaN where the network states none, or a figure that stands for none."""
    ka = line.get("max_i_ka", math.nan)
    if ka is None or not 0.0 < ka < NO_RATING_KA:
        return math.nan
    return _A_PER_KA * float(ka) * _positive(line.get("df"), 1.0) * float(line.get("parallel", 1))


def _positive(value: Any, default: float) -> float:
    """A figure of a table, or `default` where it has none above 0."""
    return default if value is None or not math.isfinite(float(value)) or float(value) <= 0.0 else float(value)


def _least(values: Floats, merged: Ints, count: int) -> Floats:
    """(count,) the least value of each branch's rows; NaN where none has one."""
    out = np.full(count, np.inf)
    known = np.isfinite(values)
    np.minimum.at(out, merged[known], values[known])
    return np.where(np.isfinite(out), out, np.nan)
