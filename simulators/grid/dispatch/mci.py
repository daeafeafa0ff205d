"""mci of every bus for one dispatched interval: the adjoint's derivative, re-solves at kinks, and a status.

The nodal carbon intensity attributes what is emitted, the marginal one is the change. Moving load to a bus of low NCI
lowers the attributed emission; it lowers the emission of all sources only if the source that supplies the further load
is the cleaner one. With all turbines of the study at a limit that is the substation, at every bus: 100 kW moved from
AIDC3 to AIDC1 change the system by -0.03 to +0.23 kg/h; with a turbine strictly between its limits the same move saves
8-24 kg/h (lambda 0.01, light load) or 27-38 kg/h (lambda 0.1).

Rows: I31, Z04.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosim.errors import SolverError
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.marginal import STEP_KW, Marginal, MarginalCarbon
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.reduced import OperatingPoint
from cosim.simulators.grid.dispatch.results import OPTIMAL, DispatchResult, Injection
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.equations import Floats, Ints, generated_carbon
from cosim.simulators.grid.network.feeder import Feeder

DERIVATIVE, ONE_SIDED, NEAR_KINK, STALE, NO_VALUE = range(5)
"""Status of a bus's mci: the derivative, the same up and down; differences of dispatches with one kW more and less, at
a kink; the derivative, where a limit within one kW would change it and this bus is not re-solved; the value of an
earlier interval, because this one has no optimum to differentiate; NaN, because there is no earlier one either."""


@dataclass(frozen=True, slots=True, eq=False)
class Mci:
    """mci for one kW more, for one less, and its status, each (n_bus,)."""

    up_kg_per_kwh: Floats
    down_kg_per_kwh: Floats
    status: Ints

    def stale(self) -> Mci:
        """The same values in a later interval that has none of its own."""
        return Mci(self.up_kg_per_kwh, self.down_kg_per_kwh, np.where(self.status == NO_VALUE, NO_VALUE, STALE))


def no_mci(n_bus: int) -> Mci:
    """NaN everywhere."""
    return Mci(np.full(n_bus, np.nan), np.full(n_bus, np.nan), np.full(n_bus, NO_VALUE))


class MciOfDispatch:
    """mci of one feeder's dispatch, at changing loads.

    q_per_p  (n_bus,) kvar that come with each further kW at a bus: eta of (5) at a data centre
    resolve  positions of the buses that are dispatched anew, twice each, at a kink; moves: as in `Dispatch`
    """

    def __init__(self, feeder: Feeder, sources: Mapping[str, Source], limits: Limits, q_per_p: Floats,
                 resolve: Sequence[int], moves: NDArray[np.bool_] | None = None) -> None:
        # Differences of nearly equal figures: one solver for all three, and the one that leaves less noise.
        self._dispatch = Dispatch(feeder, sources, limits, "clarabel", moves=moves)
        self._marginal = MarginalCarbon(feeder, self._dispatch.sources, limits, self._dispatch.substation, q_per_p)
        self._q_per_p, self._resolve = q_per_p, resolve

    def reprice(self, usd_per_kwh: Floats) -> None:
        """Other prices (n_source,) of the sources' energy from now on."""
        self._dispatch.reprice(usd_per_kwh)
        self._marginal.recost(self._dispatch.problem.cost)

    def recolour(self, kg_per_kwh: Floats, marginal_kg_per_kwh: Floats) -> None:
        """Other intensities (n_source,) of the sources' energy from now on."""
        self._dispatch.recolour(kg_per_kwh, marginal_kg_per_kwh)
        self._marginal.recost(self._dispatch.problem.cost)
        self._marginal.resource(self._dispatch.sources)

    def make_available(self, p_max_pu: Floats) -> None:
        """Another most P (n_source,) of the sources from now on."""
        self._dispatch.make_available(p_max_pu)
        self._marginal.rebound(self._dispatch.problem.lower, self._dispatch.problem.upper)
        self._marginal.resource(self._dispatch.sources)

    def inject(self, injection: Injection | None) -> None:
        """Powers of batteries from now on: they are decided already, and answer nothing."""
        self._dispatch.inject(injection)

    def rebox(self, p_min_pu: Floats, p_max_pu: Floats) -> None:
        """Other limits (n_source,) of the sources' P from now on: what a ramp leaves is a limit like others."""
        self._dispatch.rebox(p_min_pu, p_max_pu)
        self._marginal.rebound(self._dispatch.problem.lower, self._dispatch.problem.upper)

    def of(self, result: DispatchResult) -> Mci | None:
        """mci around an optimum; None where the result is none, so that there is nothing to differentiate."""
        if result.status != OPTIMAL:
            return None
        marginal = self._at(result)
        up = marginal.mci_kg_per_kwh
        near = (marginal.spread_kg_per_kwh > 0.0) | result.curtailed_bus_kw.any()  # what is curtailed answers first
        status = np.where(near, NEAR_KINK, DERIVATIVE)
        down = up.copy()
        kinks = [at for at in self._resolve if near[at]]
        if kinks:
            self._at_kinks(result, kinks, up, down, status)
        status[np.isnan(up)] = NO_VALUE
        return Mci(up, down, status)

    def _at(self, result: DispatchResult) -> Marginal:
        feeder = self._dispatch.feeder
        base_kw, u = feeder.base_kw, (result.vm_pu / feeder.vm_ratio) ** 2
        return self._marginal.at(OperatingPoint(
            result.p_from_kw / base_kw - feeder.g_parent_pu * u[feeder.parent], result.q_from_kvar / base_kw, u,
            result.p_source_kw / base_kw, result.q_source_kvar / base_kw))

    def _at_kinks(self, result: DispatchResult, kinks: list[int], up: Floats, down: Floats, status: Ints) -> None:
        here = self._emission(result, 0, 0.0)
        for at in kinks:
            more, less = (self._emission(result, at, step) for step in (STEP_KW, -STEP_KW))
            if here is not None and more is not None and less is not None:
                up[at], down[at], status[at] = (more - here) / STEP_KW, (here - less) / STEP_KW, ONE_SIDED

    def _emission(self, result: DispatchResult, at: int, step_kw: float) -> float | None:
        """J2* with `step_kw` more at a bus, kg/h; None where the dispatch leaves its limits."""
        p_load, q_load = result.p_load_kw - result.curtailed_bus_kw, result.q_load_kvar.copy()
        p_load[at] += step_kw
        q_load[at] += step_kw * self._q_per_p[at]
        try:
            other = self._dispatch.solve(p_load, q_load)
        except SolverError:
            return None  # one kW more than can be carried: the bus keeps its derivative and says so
        if other.status != OPTIMAL:
            return None
        emission = generated_carbon(other.p_source_kw, self._dispatch.sources.marginal_kg_per_kwh)
        return emission + self._at(other).correction_kg_per_h
