"""A feasible dispatch where the conic relaxation is not exact: local optima of the AC problem by linearisation, and the
corners of the controls' boxes.

Rows: E06, I38.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from cosim.simulators.grid.dispatch.clarabel_solver import minimise_quadratic
from cosim.simulators.grid.dispatch.reduced import LinearizedFeeder, OperatingPoint, ReducedDispatch
from cosim.simulators.grid.equations import Floats, Ints

PENALTY = 1e3
"""Price of 1 p.u. of the largest limit passed, while on the way; far above what any limit is worth."""
FIRST_RADIUS_PU, LAST_RADIUS_PU = 0.5, 1e-9
MOST_STEPS = 100
FEASIBLE_PU = 1e-7
ALL_CORNERS = 8
"""Controls up to which all 2^n corners of their boxes are tried."""
FLATTEST = 1e-9
"""Least curvature given to a direction of the controls, so that every step is the only best one."""


def local_optimum(reduced: ReducedDispatch, flow: Callable[[Floats], OperatingPoint | None], start: Floats
                  ) -> Floats | None:
    """Controls (n_z,) that no small change improves, p.u.; None where none within limits is found from `start`.

    flow  the AC power flow at given controls, None where there is none. Sequential quadratic programming: each step
    minimises the cost and its curvature, limits linearised, inside a box that shrinks whenever the step disappoints.
    """
    z = np.clip(start, reduced.lower[reduced.z], reduced.upper[reduced.z])
    point, radius = flow(z), FIRST_RADIUS_PU
    prices = np.zeros(2 * len(reduced.limited))
    for _ in range(MOST_STEPS):
        if point is None or radius < LAST_RADIUS_PU or (linear := reduced.linear(point)) is None:
            break
        step, next_prices = _step(reduced, linear, prices, radius)
        trial = flow(np.clip(z + step, reduced.lower[reduced.z], reduced.upper[reduced.z]))
        if trial is None or _merit(reduced, trial) >= _merit(reduced, point):
            radius = min(radius, float(np.abs(step).max(initial=0.0))) / 4.0
            continue
        z = np.clip(z + step, reduced.lower[reduced.z], reduced.upper[reduced.z])
        point, prices = trial, next_prices
    if point is None or _passed(reduced, point) > FEASIBLE_PU:
        return None
    return z


def best_corners(reduced: ReducedDispatch, flow: Callable[[Floats], OperatingPoint | None], starts: Sequence[Floats],
                 inside: Callable[[Floats], Floats], most: int = 2) -> list[Floats]:
    """The best corners (n_z,) of the controls' boxes, best first, at most `most`: where losses pay, as at a negative
    price, the cost is concave in the controls and the optimum is a corner that no local search needs to find.

    Up to `ALL_CORNERS` controls every corner is tried; with more, from each start and from all at their lowest and
    highest, one control after the other goes to the end of its box that is better, until none is. Controls without two
    finite limits stay as in the first start. `inside` pulls controls to where the sources can be.
    """
    low, high = reduced.lower[reduced.z], reduced.upper[reduced.z]
    free = np.flatnonzero(np.isfinite(low) & np.isfinite(high) & (low < high))
    base = np.clip(starts[0], low, high)

    def merit(z: Floats) -> float:
        point = flow(z)
        return np.inf if point is None else _merit(reduced, point)

    def at_corner(upper: Sequence[bool]) -> Floats:
        z = base.copy()
        z[free] = np.where(upper, high[free], low[free])
        return inside(z)

    if len(free) <= ALL_CORNERS:
        corners = [at_corner(upper) for upper in product((False, True), repeat=len(free))]
        found = [(merit(z), z) for z in corners]
    else:
        begins = [at_corner([False] * len(free)), at_corner([True] * len(free)),
                  *(inside(np.clip(z, low, high)) for z in starts)]
        found = [_to_corner(merit, inside, z, free, low, high) for z in begins]
    found = [pair for pair in sorted(found, key=lambda pair: pair[0]) if np.isfinite(pair[0])]
    return [z for _, z in found[:most]]


def _to_corner(merit: Callable[[Floats], float], inside: Callable[[Floats], Floats], z: Floats, free: Ints,
               low: Floats, high: Floats) -> tuple[float, Floats]:
    """(merit, controls) where no single control is better at another end of its box."""
    z, here, better = z.copy(), merit(z), True
    while better:
        better = False
        for k in free:
            for end in (low[k], high[k]):
                trial = z.copy()
                trial[k] = end
                trial = inside(trial)
                if (there := merit(trial)) < here - FEASIBLE_PU:
                    z, here, better = trial, there, True
    return here, z


def _passed(reduced: ReducedDispatch, point: OperatingPoint) -> float:
    """By how much the limit of the state that is passed farthest is passed, p.u."""
    at = reduced.limited
    x = reduced.quantities(point)[at]
    return float(np.maximum(reduced.lower[at] - x, x - reduced.upper[at]).max(initial=0.0))


def _merit(reduced: ReducedDispatch, point: OperatingPoint) -> float:
    x = reduced.quantities(point)
    return float(reduced.cost @ x + reduced.quadratic @ x**2 / 2.0) + PENALTY * _passed(reduced, point)


def _step(reduced: ReducedDispatch, linear: LinearizedFeeder, prices: Floats, radius: float) -> tuple[Floats, Floats]:
    """The best step of the controls inside +-radius, and the prices (2 n_limited,) of the upper and lower limits."""
    at, n_z = reduced.limited, len(reduced.z)
    rows = reduced.place[at]
    of_state = prices[: len(at)] - prices[len(at):]
    hessian, _ = reduced.curvature(linear, rows, of_state)
    size, ways = np.linalg.eigh((hessian + hessian.T) / 2.0)
    quadratic = np.zeros((n_z + 1, n_z + 1))
    quadratic[:n_z, :n_z] = (ways * np.maximum(size, FLATTEST)) @ ways.T
    slope, one, x = linear.states[rows], np.ones((len(at), 1)), linear.x
    box, last = np.eye(n_z, n_z + 1), np.eye(1, n_z + 1, n_z)
    matrix = np.vstack([np.hstack([slope, -one]), np.hstack([-slope, -one]), box, -box, -last])
    low, high = reduced.lower[reduced.z] - x[reduced.z], reduced.upper[reduced.z] - x[reduced.z]
    limit = np.concatenate([reduced.upper[at] - x[at], x[at] - reduced.lower[at], np.minimum(high, radius),
                            np.minimum(-low, radius), [0.0]])
    finite = np.isfinite(limit)
    answer, multipliers = minimise_quadratic(quadratic, np.append(linear.gradient, PENALTY), matrix[finite],
                                             limit[finite])
    found = np.zeros(len(limit))
    found[finite] = multipliers
    return answer[:n_z], found[: 2 * len(at)]
