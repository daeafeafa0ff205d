"""What branches may carry, as constraints of the dispatch, and how full they are.

A line is limited by the current at both of its ends, its charging included, a transformer by its apparent power there.
A line without charging has one current, l of (6), and l <= l_max alone limits it. Elsewhere each end has a quantity of
its own, `full`: squared current |S|^2 / u, or squared power |S|^2, which a cone holds above its true value and a bound
below the limit. Both are convex, so that the relaxation stays what it is.

Rows: E06, E08.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from cosim.errors import ScenarioError, unknown
from cosim.simulators.grid.equations import Complexes, Floats, Ints
from cosim.simulators.grid.network.feeder import Feeder

OVERLOAD_RATIO = 1e-4
"""Within a solver's tolerance: a branch that much above its limit is at it."""
BINDING_RATIO = 1e-3
"""So near its limit a branch counts as limiting."""


@dataclass(frozen=True, slots=True, eq=False)
class BranchLimits:
    """Ratings and limits on the feeder's base.

    rated_pu, is_power  (n_branch,) rating, NaN without, and whether it is an apparent power, else a current
    most_ratio    (n_branch,) the share of it that is the limit
    most_l_pu     (n_branch,) limit of l where that alone limits the branch, else inf
    end_branch, at_child, most_full_pu  (n_end,) branch and end with a quantity of its own, and its limit
    """

    rated_pu: Floats
    is_power: np.ndarray
    most_ratio: Floats
    most_l_pu: Floats
    end_branch: Ints
    at_child: np.ndarray
    most_full_pu: Floats


@dataclass(frozen=True, slots=True, eq=False)
class EndRows:
    """Limited ends over the quantities x of a conic problem: P and Q there, (n_end, size), and the indices of `full`
    and of the squared voltage that it is multiplied by, -1 where it is an apparent power."""

    p: csr_array
    q: csr_array
    full: Ints
    u: Ints

    def powers(self, x: Floats) -> tuple[Floats, Floats]:
        """P and Q at the ends (n_end,), p.u."""
        return self.p @ x, self.q @ x

    def squared_voltage(self, x: Floats) -> Floats:
        """(n_end,) what `full` is multiplied by."""
        return np.where(self.u < 0, 1.0, x[self.u])


def branch_limits(feeder: Feeder, current_a: Mapping[str, float | None], power_kva: Mapping[str, float | None],
                  member: str, *, own: bool) -> BranchLimits:
    """The feeder's own ratings (`own`), with those that the scenario gives by branch in their place (None: no limit).

    ScenarioError naming a branch that does not exist, a transformer with a current, and a feeder without any rating.
    """
    n, names = len(feeder.parent), feeder.line_names
    a, kva, most = np.full(n, np.nan), np.full(n, np.nan), np.ones(n)
    if own:
        a, kva, most = feeder.ratings.current_a.copy(), feeder.ratings.power_kva.copy(), feeder.ratings.most_ratio
        most = np.where(np.isfinite(most), most, 1.0)
    for given, field in ((current_a, "max_current_a"), (power_kva, "max_power_kva")):
        for name, value in given.items():
            if name not in names:
                raise ScenarioError(f"{member}.{field}: {unknown(f'branch of {feeder.name}', name, names)}")
            k = names.index(name)
            if field == "max_current_a" and np.isfinite(feeder.ratings.power_kva[k]):
                raise ScenarioError(f"{member}.{field}: {name} is a transformer of {feeder.name}, which is limited by "
                                    f"its apparent power; give {member}.max_power_kva")
            a[k], kva[k], most[k] = np.nan, np.nan, 1.0
            (a if field == "max_current_a" else kva)[k] = np.nan if value is None else value
    if not np.isfinite(np.concatenate([a, kva])).any():
        raise ScenarioError(f"{member}.line_limits: network {feeder.name} states no ratings; give some by "
                            f"--set {member}.max_current_a.{names[0]}=AMPERES (or max_power_kva), or line_limits=none")
    is_power = np.isfinite(kva)
    return _on_base(feeder, np.where(is_power, kva / feeder.base_kw, a / feeder.base_a), is_power, most)


def _on_base(feeder: Feeder, rated_pu: Floats, is_power: np.ndarray, most_ratio: Floats) -> BranchLimits:
    rated = np.isfinite(rated_pu)
    own_y = (feeder.b_parent_pu != 0.0) | (feeder.b_child_pu != 0.0) | (feeder.g_parent_pu != 0.0) | (
        feeder.g_child_pu != 0.0)
    plain = rated & ~is_power & ~own_y
    limit = (rated_pu * most_ratio) ** 2
    inner = len(feeder.nodes.lowest)  # the power at a star point is nobody's rating
    ends = [(k, at_child) for k in np.flatnonzero(rated & ~plain)
            for at_child, bus in ((False, feeder.parent[k]), (True, feeder.child[k])) if bus < inner or not is_power[k]]
    end_branch = np.array([k for k, _ in ends], dtype=np.int64)
    return BranchLimits(rated_pu, is_power, most_ratio, np.where(plain, limit, np.inf), end_branch,
                        np.array([at_child for _, at_child in ends], dtype=bool), limit[end_branch])


def end_rows(feeder: Feeder, limits: BranchLimits | None, p: int, q: int, l: int, u: int, full: int, size: int  # noqa: E741
             ) -> EndRows:
    """Rows of the limited ends; p, q, l, u, full are where the quantities of each kind begin in x (size,).

    P of a branch is what enters it behind its own conductance; Q has none of its charging.
    """
    if limits is None or not len(limits.end_branch):
        nothing = csr_array((0, size))
        return EndRows(nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.int64))
    k, far, row = limits.end_branch, limits.at_child, np.arange(len(limits.end_branch))
    one, bus = np.ones(len(k)), np.where(far, feeder.child[k], feeder.parent[k])
    g = np.where(far, -feeder.g_child_pu[k], feeder.g_parent_pu[k])  # at the child what arrives, less what is lost
    b = np.where(far, feeder.b_child_pu[k], -feeder.b_parent_pu[k])

    def matrix(of: int, z: Floats, y: Floats) -> csr_array:
        values = np.concatenate([one, np.where(far, -z[k], 0.0), y])
        columns = np.concatenate([of + k, l + k, u + bus])
        made = csr_array(coo_array((values, (np.tile(row, 3), columns)), shape=(len(k), size)))
        made.eliminate_zeros()
        return made

    return EndRows(matrix(p, feeder.r_pu, g), matrix(q, feeder.x_pu, b), full + row,
                   np.where(limits.is_power[k], -1, u + bus))


def loading_ratio(feeder: Feeder, limits: BranchLimits, enter_pu: Complexes, leave_pu: Complexes, v_pu: Complexes
                  ) -> Floats:
    """(n_branch,) current or apparent power at the fuller end over the rating, NaN without one.

    enter_pu, leave_pu  power that enters each branch at its parent and at its child, of reactive power all but its
                        charging
    """
    u = np.abs(v_pu) ** 2
    inner = len(feeder.nodes.lowest)
    out = np.zeros(len(feeder.parent))
    for end, power, b in ((feeder.parent, enter_pu, feeder.b_parent_pu), (feeder.child, leave_pu, feeder.b_child_pu)):
        size = np.abs(power - 1j * b * u[end])
        filled = np.where(limits.is_power, np.where(end < inner, size, 0.0), size / np.sqrt(u[end]))
        out = np.maximum(out, filled)
    return out / limits.rated_pu


def overload_ratio(limits: BranchLimits, loading: Floats) -> float:
    """By how much of its rating the branch that is farthest above its limit is above it; 0 within tolerance."""
    excess = float(np.nan_to_num(loading - limits.most_ratio, nan=0.0).max(initial=0.0))
    return excess if excess > OVERLOAD_RATIO else 0.0


def binding(limits: BranchLimits, loading: Floats) -> np.ndarray:
    """(n_branch,) whether each is at its limit, or above it."""
    return np.nan_to_num(loading - limits.most_ratio, nan=-1.0) >= -BINDING_RATIO


def fullest(limits: BranchLimits, loading: Floats, names: list[str]) -> str:
    """The branch that is nearest its limit, or farthest above it, in words."""
    k = int(np.nan_to_num(loading / limits.most_ratio, nan=-1.0).argmax())
    of = "" if limits.most_ratio[k] == 1.0 else f" (limit {100 * limits.most_ratio[k]:.4g} %)"
    return f"branch {names[k]} at {100 * loading[k]:.4g} % of its rating{of}"


def rating_table(feeder: Feeder, limits: BranchLimits) -> dict[str, list]:
    """Columns for a trace: of every rated branch its rating, A or kVA (NaN in the other column), and its limit."""
    k = np.flatnonzero(np.isfinite(limits.rated_pu))
    power = limits.is_power[k]
    return {"name": [feeder.line_names[i] for i in k],
            "rated_a": np.where(power, np.nan, limits.rated_pu[k] * feeder.base_a[k]).tolist(),
            "rated_kva": np.where(power, limits.rated_pu[k] * feeder.base_kw, np.nan).tolist(),
            "limit_ratio": limits.most_ratio[k].tolist()}
