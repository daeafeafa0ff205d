"""A dispatch whose sources change from one interval to the next: prices, intensities, what is available, ramps.

Rows: E08, Z04.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Limits, Sources, balance_rhs, costs
from cosim.simulators.grid.dispatch.gurobi_solver import NciLimitedGurobi
from cosim.simulators.grid.dispatch.reduced import ReducedDispatch
from cosim.simulators.grid.dispatch.results import Injection
from cosim.simulators.grid.dispatch.solvers import Solver
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.feeder import Feeder

NARROWEST_PU = 1e-7
"""Between limits that leave a source one set point: room for an interior point."""


class ChangingSources:
    """The part of a dispatch that keeps its problem, its solvers and its reduced form at the sources as they are now.

    `sources` has the present limits, prices and intensities; those whose most P moves are named once, at the start.
    """

    feeder: Feeder
    limits: Limits
    sources: Sources
    _problem: ConicProblem
    moves: NDArray[np.bool_]
    _solver: Solver
    _capped: NciLimitedGurobi | None
    _reduced: ReducedDispatch
    _dearer: dict[float, ClarabelSolver]

    injection: Injection | None = None

    def inject(self, injection: Injection | None) -> None:
        """Powers of batteries that the dispatch counts with from now on; None: none."""
        self.injection = injection

    def _balance(self, p_load_kw: Floats, q_load_kvar: Floats) -> Floats:
        """The right-hand side of the balances, batteries included."""
        if self.injection is not None:
            p_load_kw = p_load_kw - self.injection.at_bus_kw
        return balance_rhs(self.feeder, p_load_kw, q_load_kvar)

    @property
    def problem(self) -> ConicProblem:
        """The conic problem at base load and the present prices."""
        return self._problem

    def reprice(self, usd_per_kwh: Floats) -> None:
        """Other prices (n_source,) of the sources' energy from now on."""
        if not np.array_equal(usd_per_kwh, self.sources.usd_per_kwh):
            self._recost(replace(self.sources, usd_per_kwh=usd_per_kwh))

    def recolour(self, kg_per_kwh: Floats, marginal_kg_per_kwh: Floats) -> None:
        """Other intensities (n_source,) of the sources' energy from now on, average and of one more kWh."""
        same = np.array_equal(kg_per_kwh, self.sources.kg_per_kwh)
        if not same or not np.array_equal(marginal_kg_per_kwh, self.sources.marginal_kg_per_kwh):
            self._recost(replace(self.sources, kg_per_kwh=kg_per_kwh, marginal_kg_per_kwh=marginal_kg_per_kwh))

    def _recost(self, sources: Sources) -> None:
        self.sources = sources
        cost, _ = costs(self.feeder, self.sources, self.limits, self._problem.at, self._problem.unit)
        self._problem = replace(self._problem, cost=cost)
        for solver in (self._solver, self._capped):
            if solver is not None:
                solver.reprice(cost)
        if self._capped is not None:
            self._capped.resource(sources)
        self._reduced.cost = cost
        self._dearer.clear()

    def make_available(self, p_max_pu: Floats) -> None:
        """Another most P (n_source,) of the sources from now on, of those that move."""
        if not np.array_equal(p_max_pu, self.sources.available_pu):
            self.sources = replace(self.sources, available_pu=p_max_pu)
            self.rebox(self.sources.p_min_pu, p_max_pu)

    def rebox(self, p_min_pu: Floats, p_max_pu: Floats) -> None:
        """Other limits (n_source,) of the sources' P from now on, inside those they came with."""
        if np.array_equal(p_min_pu, self.sources.p_min_pu) and np.array_equal(p_max_pu, self.sources.p_max_pu):
            return
        self.sources = replace(self.sources, p_min_pu=p_min_pu, p_max_pu=p_max_pu)
        lower, upper, at = self._problem.lower.copy(), self._problem.upper.copy(), self._problem.at
        lower[at.p_source], upper[at.p_source] = p_min_pu, p_max_pu
        self._problem = replace(self._problem, lower=lower, upper=upper)
        self._reduced.lower, self._reduced.upper = lower, upper
        self._rebound()

    def _rebound(self) -> None:
        roomy = self._roomy(NARROWEST_PU)
        for solver in (self._solver, self._capped):
            if solver is not None:
                solver.rebound(roomy.lower, roomy.upper)
        if self._capped is not None:
            self._capped.resource(self.sources)
        self._dearer.clear()

    def _roomy(self, room_pu: float) -> ConicProblem:
        """The problem with at least `room_pu` between the limits of sources that move, for a solver's sake: what is
        fixed where it is built stays so, and an interior point needs room."""
        upper, at = self._problem.upper.copy(), self._problem.at
        least = self._problem.lower[at.p_source] + room_pu
        upper[at.p_source] = np.where(self.moves, np.maximum(upper[at.p_source], least), upper[at.p_source])
        return replace(self._problem, upper=upper)
