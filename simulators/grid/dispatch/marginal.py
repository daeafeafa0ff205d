"""Marginal carbon intensity (mci): change of the emission of all sources for one more kW at a bus, re-dispatched.

The optimality conditions of the dispatch are linearised at its optimum, with the limits in force as equalities: that is
the KKT adjoint. The equations of the feeder are eliminated from it (`reduced`), so that one sparse factorisation and a
dense system no larger than the controls and their limits give every bus at once.

J2* is smooth only as long as the same limits are in force; `Marginal.spread_kg_per_kwh` measures where that ends too
soon.

Rows: I31, Z04.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosim.simulators.grid.dispatch.conic import Limits, Sources
from cosim.simulators.grid.dispatch.reduced import OperatingPoint, ReducedDispatch
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.feeder import Feeder

STEP_KW = 1.0
"""What 'one more kW' is: a limit that comes into or out of force within it makes a kink."""
AT_LIMIT_PU = 1e-5
"""So near a limit is on it."""
WATCH = 3.0
"""Limits on the state are watched from this many steps away; no voltage or substation power moves faster."""
MARGIN = 1.5
"""What a linear prediction of the reach of one step is multiplied by."""
MATTERS_KG_PER_KWH = 1e-3
"""A change of the limits in force that moves mci by no more than this is no kink."""
ILL_CONDITIONED = 1e12
MOST_CHANGES = 10
"""of the limits in force on the way from a solver's result to the optimum; none, as a rule."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Marginal:
    """mci (n_bus,) for the limits now in force, and how much another set of them within one kW would change it.

    The spread is 0 where nothing changes, inf where the conditions are singular or ill-conditioned, or a source has a
    rating or a least power factor, which they do not model (mci is NaN then).
    `correction_kg_per_h` leads from J2 at the point to J2 at the optimum, which a solver misses by its tolerance.
    """

    mci_kg_per_kwh: Floats
    spread_kg_per_kwh: Floats
    correction_kg_per_h: float


@dataclass(frozen=True, slots=True, eq=False)
class _Conditions:
    """The reduced conditions at a point; limits are those of the controls, then those of the state that are watched.

    hessian (n_z, n_z) of the Lagrangian and gradient (n_z,) of the cost, emission (n_z,) of J2
    slope (n_limit, n_z) of the limited quantities; room (n_limit,) to the nearer limit, side: -1 lower, 1 upper, 0 both
    by_demand (n_z + n_limit + 1, n_bus): how one more p.u. of demand moves gradient, limited quantities and J2
    """

    hessian: Floats
    gradient: Floats
    emission: Floats
    slope: Floats
    room: Floats
    side: Floats
    by_demand: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What follows from a set of limits in force, per p.u. of demand at each bus.

    mci (n_bus,); moves (n_limit, n_bus) of a limit's price where it is in force, else of the quantity that it limits;
    price (n_limit,) of the limits in force; step (n_z,) that the controls still are from the optimum
    """

    mci: Floats
    moves: Floats
    price: Floats
    step: Floats


class MarginalCarbon:
    """mci of one feeder with given sources, limits and lambda.

    q_per_p  (n_bus,) kvar that come with each further kW at a bus
    """

    def __init__(self, feeder: Feeder, sources: Sources, limits: Limits, substation: int, q_per_p: Floats) -> None:
        self._reduced, self._base_kw = ReducedDispatch(feeder, sources, limits, substation), feeder.base_kw
        self.resource(sources)
        self._q_per_p, self._n_bus, self._boxes_only = q_per_p, feeder.n_bus, sources.boxes_only

    def recost(self, cost: Floats) -> None:
        """Another linear cost of x, as in the conic problem."""
        self._reduced.cost = cost

    def resource(self, sources: Sources) -> None:
        """Sources with other intensities and limits from now on."""
        self._kg_per_kwh = sources.marginal_kg_per_kwh
        self._swings = (sources.p_min_pu < 0.0) & (sources.p_max_pu > 0.0)

    def rebound(self, lower: Floats, upper: Floats) -> None:
        """Other bounds of x, as in the conic problem."""
        self._reduced.lower, self._reduced.upper = lower, upper

    def at(self, point: OperatingPoint) -> Marginal:
        """mci at an optimum whose flows and voltages solve the power flow."""
        unknown, step = np.full(self._n_bus, np.inf), STEP_KW / self._base_kw
        nothing = Marginal(np.full(self._n_bus, np.nan), unknown, 0.0)
        here = self._conditions(point) if self._boxes_only else None
        if here is None:
            return nothing
        in_force, answer = _settled(here)
        if answer is None:
            return nothing
        spread = np.zeros(self._n_bus)
        for k in np.flatnonzero(_may_change(here, in_force, answer, step)):
            changed = in_force.copy()
            changed[k] = not in_force[k]
            other = _solve(here, changed)
            spread = np.maximum(spread, unknown if other is None else np.abs(other.mci - answer.mci))
        spread[spread <= MATTERS_KG_PER_KWH] = 0.0
        if (self._swings & (np.abs(point.p_source) <= WATCH * step)).any():  # what emits above 0 kW absorbs below
            spread = unknown
        return Marginal(answer.mci, spread, float(here.emission @ answer.step) * self._base_kw)

    def _conditions(self, point: OperatingPoint) -> _Conditions | None:
        reduced, linear = self._reduced, self._reduced.linear(point)
        if linear is None:
            return None
        x, lower, upper, n_z = linear.x, reduced.lower, reduced.upper, len(reduced.z)
        room = np.minimum(x - lower, upper - x) / reduced.scale
        watched = reduced.limited[room[reduced.limited] <= WATCH * STEP_KW / self._base_kw]
        limited, rows = np.concatenate([reduced.z, watched]), reduced.place[watched]
        side = np.where(upper - lower <= AT_LIMIT_PU, 0.0, np.where(x - lower <= upper - x, -1.0, 1.0))
        slope = np.concatenate([np.eye(n_z), linear.states[rows] / reduced.scale[watched, None]])
        on = room[limited] <= AT_LIMIT_PU
        price = np.linalg.lstsq(slope[on].T, -linear.gradient, rcond=None)[0]
        hessian, curved = reduced.curvature(linear, rows[on[n_z:]], (price[np.count_nonzero(on[:n_z]):]
                                                                         / reduced.scale[watched[on[n_z:]]]))
        carbon = np.zeros(len(x))
        carbon[reduced.at.p_source] = np.where(point.p_source > 0.0, self._kg_per_kwh, 0.0)
        right = np.zeros((len(reduced.y), n_z + len(rows) + 1))
        right[:, :n_z], right[:, -1] = curved, carbon[reduced.y]
        right[rows, n_z + np.arange(len(rows))] = 1.0 / reduced.scale[watched]
        shadow = linear.inverse.solve(right, "T")
        by_demand = shadow[: self._n_bus] + self._q_per_p[:, None] * shadow[self._n_bus: 2 * self._n_bus]
        by_demand = np.insert(by_demand.T, np.full(n_z, n_z), 0.0, axis=0)  # controls move by decision only
        emission = carbon[reduced.z] + linear.states.T @ carbon[reduced.y]
        return _Conditions(hessian, linear.gradient, emission, slope, room[limited], side[limited], by_demand)


def _solve(here: _Conditions, in_force: Flags) -> _Answer | None:
    """How controls and prices answer demand with these limits in force; None if that is not well determined."""
    n_z, active = len(here.hessian), here.slope[in_force]
    matrix = np.block([[here.hessian, active.T], [active, np.zeros((len(active), len(active)))]])
    if len(active) > n_z or (len(matrix) and np.linalg.cond(matrix) > ILL_CONDITIONED):
        return None
    of_gradient, of_limits, of_carbon = np.split(here.by_demand, [n_z, len(here.by_demand) - 1])
    right = np.zeros((len(matrix), 1 + here.by_demand.shape[1]))
    right[:n_z, 0], right[:n_z, 1:], right[n_z:, 1:] = here.gradient, of_gradient, of_limits[in_force]
    answer = -np.linalg.solve(matrix, right)
    moves = here.slope @ answer[:n_z, 1:] + of_limits
    moves[in_force] = answer[n_z:, 1:]
    price = np.zeros(len(in_force))
    price[in_force] = answer[n_z:, 0]
    return _Answer(of_carbon[0] + here.emission @ answer[:n_z, 1:], moves, price, answer[:n_z, 0])


def _settled(here: _Conditions) -> tuple[Flags, _Answer | None]:
    """The limits in force at the optimum near the point, which a solver's tolerance may hide, and what follows."""
    in_force = here.room <= AT_LIMIT_PU
    answer = _solve(here, in_force)
    for _ in range(MOST_CHANGES):
        if answer is None:
            break
        passed = np.where(in_force, 0.0, here.side * (here.slope @ answer.step) - here.room)
        wrong = np.where(in_force, -here.side * answer.price, 0.0)
        if passed.max(initial=0.0) > 0.0:
            in_force[passed.argmax()] = True
        elif wrong.max(initial=0.0) > 0.0:
            in_force[wrong.argmax()] = False
        else:
            break
        answer = _solve(here, in_force)
    return in_force, answer


def _may_change(here: _Conditions, in_force: Flags, answer: _Answer, step: float) -> Flags:
    """Mask of the inequality constraints whose activity can change within one step of demand (kW) at some bus: inactive
    ones that become active, and active ones whose multiplier reaches zero."""
    reach = np.abs(answer.moves).max(axis=1, initial=0.0) * MARGIN * step
    left = np.where(in_force, answer.price * here.side, here.room)
    return (left <= reach) & (here.side != 0.0)
