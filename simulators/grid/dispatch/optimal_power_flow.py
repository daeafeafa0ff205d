"""The distribution system operator's dispatch: set points of the sources, the flows they cause, and the NCI.

The conic problem (1)-(8), (11) *decides* P and Q of every source but the substation. What is reported as flows,
voltages, losses, substation power and NCI is the exact AC power flow of the feeder at those set points (a backward-
forward sweep, `equations.radial_power_flow`), so that figures close to rounding and do not carry a solver's tolerance;
the conic solution's own voltages and loss are kept beside it, and their distance measures how tight the relaxation was.

Rows: E06, E07, E11, I06, I22, I23, I30, I38, U17, Z03.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cosim.errors import ScenarioError, SolverError
from cosim.simulators.grid.dispatch.branch_limits import BranchLimits, fullest, loading_ratio
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Limits, Solution, balance_rhs, elastic, strict
from cosim.simulators.grid.dispatch.gurobi_solver import NciLimitedGurobi
from cosim.simulators.grid.dispatch.nci_limits import MOST_GAP_PU, NciLimits
from cosim.simulators.grid.dispatch.newton import NewtonSolver
from cosim.simulators.grid.dispatch.recovery import best_corners, local_optimum
from cosim.simulators.grid.dispatch.reduced import OperatingPoint, ReducedDispatch
from cosim.simulators.grid.dispatch.results import (
    ELASTIC,
    NEGLIGIBLE_PU,
    NEGLIGIBLE_SHARE,
    OPTIMAL,
    DispatchResult,
    InexactRelaxation,
    snapped,
)
from cosim.simulators.grid.dispatch.set_points import SetPointFlows
from cosim.simulators.grid.dispatch.solvers import SolverName, choose, choose_nci_limited
from cosim.simulators.grid.dispatch.sources import Source, in_pu
from cosim.simulators.grid.dispatch.surplus import curtailed_kw, remedy
from cosim.simulators.grid.equations import (
    Floats,
    Ints,
    cone_gap,
    generated_carbon,
)
from cosim.simulators.grid.network.feeder import Feeder

GAP_RATIO, PHANTOM_PU = 1e-5, 1e-6
"""A relaxation with a larger relative gap on a branch is not exact, if that burns so much more than Ohm's law does: on
an all but unloaded line the gap is a solver's tolerance."""
ELASTIC_PHANTOM_PU = 1e-4
"""The same for the elastic form, whose penalties leave a solver less precision for losses."""
LOSS_PRICES = (10.0, 100.0, 1000.0)
"""What losses cost, times (11), where a first relaxation was not exact."""

NOTICED_KW = 1e-6
"""So much better another local optimum must be to take the place of the first one found."""



class Dispatch(SetPointFlows):
    """The dispatch of one feeder, built once and solved for changing loads.

    The first of `sources` at the feeder's slack bus is the substation; ScenarioError if there is none. `caps` are met
    where they can be; they need Gurobi. `solver_name` is the solver taken, `no_gurobi` why it is not Gurobi where
    'auto' left the choice, else ''. Sources whose most P `moves` (n_source,) may have it anywhere from the
    least on. Of `watched` branches the loading is worked out, of those in `limits` always.
    """

    def __init__(self, feeder: Feeder, sources: Mapping[str, Source], limits: Limits, solver: SolverName, *,
                 caps: NciLimits | None = None, time_limit_s: float | None = None,
                 moves: NDArray[np.bool_] | None = None, watched: BranchLimits | None = None) -> None:
        self.feeder, self.limits, self.caps, self.time_limit_s = feeder, limits, caps, time_limit_s
        self.source_names, self.capped_status, self._watched = list(sources), "", watched
        self.sources = in_pu(feeder, sources)
        at_slack = np.flatnonzero(self.sources.bus == feeder.substation)
        if not len(at_slack):
            raise ScenarioError(
                f"no source stands at bus {feeder.bus_ids[feeder.substation]}, the slack bus of {feeder.name}; "
                "add the substation to the sources"
            )
        self.substation = int(at_slack[0])
        self._problem = strict(feeder, self.sources, limits)
        self.moves = np.zeros(len(self.sources.bus), bool) if moves is None else moves
        self.solver_name, self._solver, self.no_gurobi = choose(solver, self._roomy(1.0), feeder, self.sources,
                                                                     self.substation, time_limit_s)
        self._capped = (None if caps is None else
                        choose_nci_limited(solver, self.problem, feeder, self.sources, caps, time_limit_s))
        self._reduced = ReducedDispatch(feeder, self.sources, limits, self.substation)
        self._dearer: dict[float, ClarabelSolver] = {}
        if self.moves.any():
            self._rebound()

    def solve(self, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult:
        """Dispatch at the demand (n_bus,) of every bus; negative demand is local generation at 0 kg/kWh.

        With caps that no set points meet, or not without losses that do not occur, the dispatch is that without caps,
        ELASTIC. Where the relaxation is not exact the set points are a local optimum of the AC problem. Falls back on
        the elastic form where the demand cannot be met within limits; SolverError if that fails, too,
        InexactRelaxation where only the relaxation has a solution. Local generation that cannot go anywhere is
        curtailed first (`cosim.simulators.grid.dispatch.surplus`).
        """
        fed_kw = 0.0 if self.injection is None else float(self.injection.p_kw.sum())
        lost = curtailed_kw(p_load_kw, self.sources, self.feeder.base_kw, fed_kw)
        if not lost.any():
            return self._solve(p_load_kw, q_load_kvar)
        result = self._solve(p_load_kw + lost, q_load_kvar)
        return replace(result, curtailed_bus_kw=lost, curtailed_kw=result.curtailed_kw + float(lost.sum()))

    def newton_problem(self, p_load_kw: Floats, q_load_kvar: Floats) -> tuple[NewtonSolver, Floats] | None:
        """Its solver and the right-hand side that `solve` will have at this demand, for `newton.solve_together`; None
        with another solver."""
        if not isinstance(self._solver, NewtonSolver):
            return None
        lost = curtailed_kw(p_load_kw, self.sources, self.feeder.base_kw)
        return self._solver, balance_rhs(self.feeder, p_load_kw + lost, q_load_kvar)

    def _solve(self, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult:
        if self._capped is not None:
            capped = self._solve_capped(self._capped, p_load_kw, q_load_kvar)
            if capped is not None:
                return capped
        result = self._solve_uncapped(p_load_kw, q_load_kvar)
        if self.caps is None:
            return result
        excess = self.caps.excess(result.nci_kg_per_kwh)
        return replace(result, status=ELASTIC if excess else result.status, nci_cap_excess_kg_per_kwh=excess)

    def _solve_capped(self, capped: NciLimitedGurobi, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult | None:
        """The optimum under the caps: of the relaxation if that is exact, else of the AC problem; None without one."""
        rhs = balance_rhs(self.feeder, p_load_kw, q_load_kvar)
        for exact in (False, True):
            answer = capped.solve(rhs, p_load_kw, exact=exact)
            self.capped_status = answer.status
            if answer.x is None:
                continue
            gap, _ = self._gaps(answer.x, self._problem)
            if float(np.abs(gap).max()) > MOST_GAP_PU:
                self.capped_status = "refused: only by losses that do not occur"
                continue
            result = self._evaluate(self._problem, answer.x, p_load_kw, q_load_kvar, np.zeros(self.feeder.n_bus))
            if result is not None and result.status == OPTIMAL and not capped.caps.excess(result.nci_kg_per_kwh):
                return replace(result, inexact=exact, global_gap_ratio=answer.gap)
        return None

    def _solve_uncapped(self, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult:
        answer = self._solver.solve(self._balance(p_load_kw, q_load_kvar))
        inexact = False
        if answer.x is not None:
            inexact = self._inexact(answer.x)
            served = np.zeros(self.feeder.n_bus)
            if inexact:
                result = self._recover(answer.x, p_load_kw, q_load_kvar)
            else:
                result = self._evaluate(self._problem, answer.x, p_load_kw, q_load_kvar, served)
            if result is not None:
                return result
        return self._solve_elastic(p_load_kw, q_load_kvar, answer, inexact)

    def _inexact(self, x: Floats, phantom_pu: float = PHANTOM_PU) -> bool:
        gap, ratio = self._gaps(x, self._problem)
        phantom = (self.feeder.r_pu + self.feeder.x_pu) * gap / x[self._problem.at.u_parent]
        return bool(ratio.max() > GAP_RATIO and phantom.sum() > phantom_pu)

    @staticmethod
    def _gaps(x: Floats, problem: ConicProblem) -> tuple[Floats, Floats]:
        """Absolute (p.u.) and relative gap of every branch."""
        at = problem.at
        gap = cone_gap(x[at.p], x[at.q], x[at.u_parent], x[at.l])
        return gap, gap / np.maximum(x[at.l] * x[at.u_parent], 1e-6)

    def _recover(self, relaxed: Floats, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult | None:
        """The best local optimum within all limits that is found from the relaxation, from that at dearer losses, and
        from the best corners of the controls' boxes; None if there is none. `global_gap_ratio` is the proven bound."""
        feeder, rhs, z = self.feeder, self._balance(p_load_kw, q_load_kvar), self._reduced.z
        starts, exact = [relaxed], None
        for price in LOSS_PRICES:
            if price not in self._dearer:
                cost = self._problem.cost.copy()
                cost[self._problem.at.l] *= price
                self._dearer[price] = ClarabelSolver(replace(self._problem, cost=cost), self.time_limit_s)
            x = self._dearer[price].solve(rhs).x
            if x is not None:
                starts.insert(0, x)
                if not self._inexact(x):
                    exact = x
                    break
        def flow(controls: Floats) -> OperatingPoint | None:
            x = np.zeros(self._problem.at.size)
            x[z] = controls
            at = self._problem.at
            state = self.flow(x[at.p_source] + 1j * x[at.q_source], p_load_kw + 1j * q_load_kvar)
            return None if state is None else state.point(feeder)

        boxes = self.sources.boxes_only
        corners = best_corners(self._reduced, flow, [x[z] for x in starts],
                               lambda controls: self.sources.capable(controls, self.substation))
        if boxes:
            found = [local_optimum(self._reduced, flow, start) for start in [*(x[z] for x in starts), *corners]]
        else:  # the local search has bounds only; the solution with dearer losses is feasible
            found = [*([] if exact is None else [exact[z]]), *corners]
        best: DispatchResult | None = None
        for controls in found:
            if controls is None:
                continue
            x = relaxed.copy()
            x[z] = controls
            result = self._evaluate(self._problem, x, p_load_kw, q_load_kvar, np.zeros(feeder.n_bus))
            if result is None or result.status != OPTIMAL:
                continue
            if best is None or result.objective_kw < best.objective_kw - NOTICED_KW:
                best = result
        if best is None:
            return None
        bound_kw = self._bound_kw(relaxed)
        return replace(best, inexact=True, global_gap_ratio=max(best.objective_kw - bound_kw, 0.0) / max(
            abs(best.objective_kw), feeder.base_kw * NEGLIGIBLE_PU))

    def _bound_kw(self, relaxed: Floats) -> float:
        """What the objective is at least, as the relaxation proves."""
        problem, limits = self._problem, self.limits
        had_pu = float(np.where(self.sources.renewable, self.sources.available_pu, 0.0).sum())
        worth = problem.cost @ relaxed + problem.quadratic @ relaxed**2 / 2.0
        return float(worth * problem.unit + limits.curtailment_weight * had_pu) * self.feeder.base_kw

    def _solve_elastic(
        self, p_load_kw: Floats, q_load_kvar: Floats, before: Solution, inexact: bool
    ) -> DispatchResult:
        shed = np.flatnonzero(p_load_kw > 0.0)
        problem = elastic(self.feeder, self.sources, self.limits, p_load_kw, q_load_kvar, shed)
        answer = ClarabelSolver(problem, self.time_limit_s).solve(self._balance(p_load_kw, q_load_kvar))
        result = None
        if answer.x is not None:
            share = np.zeros(self.feeder.n_bus)
            share[shed] = np.clip(answer.x[problem.at.unserved], 0.0, 1.0)
            share[share <= NEGLIGIBLE_SHARE] = 0.0
            result = self._evaluate(problem, answer.x, p_load_kw, q_load_kvar, share)
        if result is None or answer.x is None:
            full = self._overfull(p_load_kw, q_load_kvar, shed)
            raise (InexactRelaxation if inexact else SolverError)(
                f"the dispatch of {self.feeder.name} at {p_load_kw.sum():.0f} kW has no solution, nor with voltage "
                f"slack and unserved power: {full or self._remedy(p_load_kw, before, answer, inexact)}"
            )
        return replace(result, inexact=inexact or self._inexact(answer.x, ELASTIC_PHANTOM_PU))

    def _overfull(self, p_load_kw: Floats, q_load_kvar: Floats, shed: Ints) -> str | None:
        """Which branch's limit leaves no solution; None where there is none without these limits either."""
        limits = self.limits.branches
        if limits is None:
            return None
        problem = elastic(self.feeder, self.sources, replace(self.limits, branches=None), p_load_kw, q_load_kvar, shed)
        x, at = ClarabelSolver(problem, self.time_limit_s).solve(self._balance(p_load_kw, q_load_kvar)).x, problem.at
        if x is None:
            return None
        flow = self.flow(x[at.p_source] + 1j * x[at.q_source], p_load_kw + 1j * q_load_kvar)
        if flow is None:
            return None
        base_kw = self.feeder.base_kw
        loading = loading_ratio(self.feeder, limits, flow.enter / base_kw, flow.leave / base_kw, flow.v_pu)
        return (f"without limits of branches it has {fullest(limits, loading, self.feeder.line_names)}; raise that "
                "limit, or lower what sources and local generation must give")

    def _remedy(self, p_load_kw: Floats, before: Solution, answer: Solution, inexact: bool) -> str:
        """Likely cause: the time limit, sources whose least power is more than is drawn, or else the lines, with the
        solvers' status."""
        if any(a.status in ("TIME_LIMIT", "MaxTime") for a in (before, answer)):
            return f"the time limit of {self.time_limit_s:g} s ended it; raise it by --set grid.time_limit_s"
        return remedy(p_load_kw, self.sources, self.source_names, self.substation, self.feeder.base_kw) or (
            f"look at p_min_kw of the sources and at lines that cannot carry the demand ({self.solver_name}: "
            f"{_in_words(before, inexact)}; clarabel: {_in_words(answer)})")

    def _evaluate(
        self, problem: ConicProblem, x: Floats, p_load_kw: Floats, q_load_kvar: Floats, unserved: Floats
    ) -> DispatchResult | None:
        """The power flow that the set points in `x` cause; None when there is none that the substation's limits allow.

        The latter means a relaxation that is not exact: it burns surplus power in currents that do not flow.
        """
        feeder, sources, at = self.feeder, self.sources, problem.at
        p_served, q_served = p_load_kw * (1.0 - unserved), q_load_kvar * (1.0 - unserved)
        p_source = snapped(x[at.p_source], sources.p_min_pu, sources.p_max_pu)
        q_source = snapped(x[at.q_source], sources.q_min_pu, sources.q_max_pu)
        flow = self.flow(p_source + 1j * q_source, p_served + 1j * q_served)
        if flow is None or not self.substation_can(flow.source[self.substation] / feeder.base_kw):
            return None
        enter, leave, p_source, q_source = flow.enter, flow.leave, flow.source.real.copy(), flow.source.imag.copy()
        vm_pu, loss_kw = np.abs(flow.v_pu) * feeder.vm_ratio, float(np.sum(enter.real + leave.real))
        violation = self.violation(vm_pu)
        loading, overload = self.loading(flow)
        gap, gap_ratio = self._gaps(x, problem)
        weights, j2 = self.limits, float(p_source @ sources.kg_per_kwh)
        cost_usd_per_h = float(p_source @ sources.usd_per_kwh + p_source**2 @ sources.usd_per_kwh_pu / feeder.base_kw)
        given = np.where(sources.renewable, p_source, 0.0)
        had = np.where(sources.renewable, sources.available_pu * feeder.base_kw, 0.0)
        curtailed_kw = float((had - given).sum())
        return DispatchResult(
            status=ELASTIC if unserved.any() or violation > 0.0 or overload > 0.0 else OPTIMAL,
            p_from_kw=enter.real, p_to_kw=leave.real, q_from_kvar=enter.imag, q_to_kvar=leave.imag, v_pu=flow.v_pu,
            vm_pu=vm_pu,
            p_source_kw=p_source, q_source_kvar=q_source, p_load_kw=p_served, q_load_kvar=q_served,
            unserved_kw=p_load_kw * unserved, loss_kw=loss_kw,
            emission_kg_per_h=generated_carbon(p_source, sources.kg_per_kwh),
            objective_kw=weights.loss_weight * loss_kw + weights.lambda_kw_per_kg_h * j2
            + weights.cost_kw_per_usd_h * cost_usd_per_h + weights.curtailment_weight * curtailed_kw,
            cost_usd_per_h=cost_usd_per_h, curtailed_kw=curtailed_kw,
            nci_kg_per_kwh=self.nci(enter.real, leave.real, p_source, p_served + feeder.shunts_kw(vm_pu)),
            curtailed_bus_kw=np.zeros(feeder.n_bus), sources=sources,
            relaxation_gap_pu=float(np.abs(gap).max()), relaxation_gap_ratio=gap_ratio, inexact=False,
            conic_vm_pu=np.sqrt(np.maximum(x[at.u], 0.0)) * feeder.vm_ratio,
            conic_loss_kw=float(feeder.r_pu @ x[at.l] + feeder.g_lost_pu @ x[at.u]) * feeder.base_kw,
            voltage_violation_pu=violation, loading_ratio=loading, overload_ratio=overload,
        )

def _in_words(answer: Solution, inexact: bool = False) -> str:
    if inexact:
        return f"{answer.status}, but only by losses that do not occur: the relaxation is not exact"
    return answer.status if answer.x is None else f"{answer.status}, but not within the substation's limits"
