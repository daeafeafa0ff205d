"""The distribution system operator's dispatch: set points of the sources, the flows they cause, and the NCI.

The conic problem (1)-(8), (11) *decides* P and Q of every source but the substation. What is reported as flows,
voltages, losses, substation power and NCI is the exact AC power flow of the feeder at those set points (a backward-
forward sweep, `equations.radial_power_flow`), so that figures close to rounding and do not carry a solver's tolerance;
the conic solution's own voltages and loss are kept beside it, and their distance says how tight the relaxation was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from cosim.errors import ScenarioError, SolverError
from cosim.params import params
from simulators.grid.clarabel_solver import ClarabelSolver
from simulators.grid.conic import ConicProblem, Limits, Solution, Sources, balance_rhs, elastic, strict
from simulators.grid.equations import (
    Complexes,
    Floats,
    cone_gap,
    generated_carbon,
    nodal_carbon_intensity,
    radial_power_flow,
)
from simulators.grid.feeder import Feeder
from simulators.grid.gurobi_solver import GurobiSolver
from simulators.grid.recovery import local_optimum
from simulators.grid.reduced import OperatingPoint, Reduced

OPTIMAL, ELASTIC, HELD = 0, 1, 2
"""Status: all limits met; a voltage outside its limits or power unserved (I30); not solved, last values held."""
NEGLIGIBLE_PU, NEGLIGIBLE_SHARE = 1e-5, 1e-6
"""Within a solver's tolerance: a voltage or substation power that far outside its limits is inside, a set point that
near a limit is on it (else a generator at 1 W would colour a bus without load), and so small a share is served."""

GAP_RATIO, PHANTOM_PU = 1e-5, 1e-6
"""A relaxation with a larger relative gap on a branch is not exact, if that burns so much more than Ohm's law does: on
an all but unloaded line the gap is a solver's tolerance."""
ELASTIC_PHANTOM_PU = 1e-4
"""The same for the elastic form, whose penalties leave a solver less precision for losses."""
LOSS_PRICES = (10.0, 100.0, 1000.0)
"""What losses cost, times (11), where a first relaxation was not exact."""

SolverName = Literal["auto", "gurobi", "clarabel"]
_log = logging.getLogger(__name__)


@params
class Source:
    """Something that feeds the network: a generator, or the substation if it stands at the slack bus."""

    node: Annotated[int, Field(ge=0, description="bus number of the network")]
    kg_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
    p_min_kw: Annotated[float, Field(allow_inf_nan=False, description="least P, kW; < 0 lets it take power")] = 0.0
    p_max_kw: Annotated[float | None, Field(allow_inf_nan=False, description="most P, kW; null: no limit")] = None
    q_min_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="least Q, kvar; null: no limit")] = None
    q_max_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="most Q, kvar; null: no limit")] = None
    usd_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, description="price of its energy, USD/kWh, for a "
                                        "dispatch that weighs cost")] = 0.0

    @model_validator(mode="after")
    def _boxes_are_not_empty(self) -> Source:
        for low, high, what in ((self.p_min_kw, self.p_max_kw, "p_min_kw"), (self.q_min_kvar, self.q_max_kvar,
                                                                             "q_min_kvar")):
            if low is not None and high is not None and low > high:
                raise ValueError(f"{what} = {low:g} is above its maximum {high:g}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class DispatchResult:
    """One solved interval; arrays over buses, branches or sources in the feeder's and the sources' order.

    status                  OPTIMAL or ELASTIC
    p_from_kw, q_from_kvar  power entering each branch at its parent end; p_to_kw, q_to_kvar at its child end
    v_pu, vm_pu             complex voltages, the substation's at angle 0, and their magnitudes
    p_source_kw, q_source_kvar  > 0 feeds the network
    p_load_kw, q_load_kvar  demand that is served; unserved_kw (n_bus,) what is not
    loss_kw                 J1 of (11)
    emission_kg_per_h       what all sources that inject emit, J2 of (11)
    objective_kw            what is minimised, (11) by default: loss_kw + lambda x sum of intensity x power
    nci_kg_per_kwh          (9), of every bus
    relaxation_gap_pu       largest |l u - P^2 - Q^2| of the conic solution
    relaxation_gap_ratio    (n_branch,) (l u - P^2 - Q^2) / max(l u, 1e-6) of the conic solution
    inexact                 the relaxation was not exact; the set points are a local optimum of the AC problem
    conic_vm_pu, conic_loss_kw  voltages and loss as the conic solution has them
    voltage_violation_pu    largest distance of a voltage outside its limits, 0 if none
    """

    status: int
    p_from_kw: Floats
    p_to_kw: Floats
    q_from_kvar: Floats
    q_to_kvar: Floats
    v_pu: Complexes
    vm_pu: Floats
    p_source_kw: Floats
    q_source_kvar: Floats
    p_load_kw: Floats
    q_load_kvar: Floats
    unserved_kw: Floats
    loss_kw: float
    emission_kg_per_h: float
    objective_kw: float
    nci_kg_per_kwh: Floats
    relaxation_gap_pu: float
    relaxation_gap_ratio: Floats
    inexact: bool
    conic_vm_pu: Floats
    conic_loss_kw: float
    voltage_violation_pu: float


@dataclass(frozen=True, slots=True, eq=False)
class _AcState:
    """The power flow that set points cause: what enters the branches' ends, voltages, all sources' P + jQ in kVA."""

    enter: Complexes
    leave: Complexes
    v_pu: Complexes
    source: Complexes

    def point(self, base_kw: float) -> OperatingPoint:
        return OperatingPoint(self.enter.real / base_kw, self.enter.imag / base_kw, np.abs(self.v_pu) ** 2,
                              self.source.real / base_kw, self.source.imag / base_kw)


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """What happened at a dispatch's set points and the demand that came: the substation balances it.

    p_substation_kw  > 0 feeds the network; loss_kw, emission_kg_per_h as in `DispatchResult`
    vm_pu            (n_bus,) voltages; voltage_violation_pu the largest distance of one outside its limits
    """

    p_substation_kw: float
    loss_kw: float
    emission_kg_per_h: float
    vm_pu: Floats
    voltage_violation_pu: float


class Inexact(SolverError):
    """The relaxation has a solution and the feeder, as far as is known, has none."""


class Solver(Protocol):
    """What Gurobi and Clarabel have in common here."""

    def solve(self, rhs: Floats) -> Solution: ...


class Dispatch:
    """The dispatch of one feeder, built once and solved for changing loads.

    The first of `sources` at the feeder's slack bus is the substation; ScenarioError if there is none.
    """

    def __init__(self, feeder: Feeder, sources: Mapping[str, Source], limits: Limits, solver: SolverName) -> None:
        self.feeder, self.limits = feeder, limits
        self.source_names = list(sources)
        self.sources = _in_pu(feeder, sources)
        at_slack = np.flatnonzero(self.sources.bus == feeder.substation)
        if not len(at_slack):
            raise ScenarioError(
                f"no source stands at bus {feeder.bus_ids[feeder.substation]}, the slack bus of {feeder.name}; "
                "add the substation to the sources"
            )
        self.substation = int(at_slack[0])
        self._problem = strict(feeder, self.sources, limits)
        self.solver_name, self._solver = _choose(solver, self._problem)
        self._reduced = Reduced(feeder, self.sources, limits, self.substation)
        self._dearer: dict[float, ClarabelSolver] = {}

    def solve(self, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult:
        """Dispatch at the demand (n_bus,) of every bus; negative demand is local generation at 0 kg/kWh.

        Where the relaxation is not exact the set points are a local optimum of the AC problem. Falls back on the
        elastic form where the demand cannot be met within limits; SolverError if that fails, too, Inexact where only
        the relaxation pretended to a solution.
        """
        answer = self._solver.solve(balance_rhs(self.feeder, p_load_kw, q_load_kvar))
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
        """A local optimum within all limits, looked for from the relaxation at dearer losses; None if not found."""
        feeder, rhs, z = self.feeder, balance_rhs(self.feeder, p_load_kw, q_load_kvar), self._reduced.z
        starts = [relaxed]
        for price in LOSS_PRICES:
            if price not in self._dearer:
                cost = self._problem.cost.copy()
                cost[self._problem.at.l] *= price
                self._dearer[price] = ClarabelSolver(replace(self._problem, cost=cost))
            x = self._dearer[price].solve(rhs).x
            if x is not None:
                starts.insert(0, x)
                if not self._inexact(x):
                    break

        def flow(controls: Floats) -> OperatingPoint | None:
            x = np.zeros(self._problem.at.size)
            x[z] = controls
            at = self._problem.at
            state = self._flow(x[at.p_source] + 1j * x[at.q_source], p_load_kw + 1j * q_load_kvar)
            return None if state is None else state.point(feeder.base_kw)

        for start in starts:
            controls = local_optimum(self._reduced, flow, start[z])
            if controls is None:
                continue
            x = relaxed.copy()
            x[z] = controls
            result = self._evaluate(self._problem, x, p_load_kw, q_load_kvar, np.zeros(feeder.n_bus))
            if result is not None and result.status == OPTIMAL:
                return replace(result, inexact=True)
        return None

    def _solve_elastic(
        self, p_load_kw: Floats, q_load_kvar: Floats, before: Solution, inexact: bool
    ) -> DispatchResult:
        shed = np.flatnonzero(p_load_kw > 0.0)
        problem = elastic(self.feeder, self.sources, self.limits, p_load_kw, q_load_kvar, shed)
        answer = ClarabelSolver(problem).solve(problem.rhs)
        result = None
        if answer.x is not None:
            share = np.zeros(self.feeder.n_bus)
            share[shed] = np.clip(answer.x[problem.at.unserved], 0.0, 1.0)
            share[share <= NEGLIGIBLE_SHARE] = 0.0
            result = self._evaluate(problem, answer.x, p_load_kw, q_load_kvar, share)
        if result is None:
            raise (Inexact if inexact else SolverError)(
                f"the dispatch of {self.feeder.name} at {p_load_kw.sum():.0f} kW has no solution ({self.solver_name}: "
                f"{_in_words(before, inexact)}), nor with voltage slack and unserved power (clarabel: "
                f"{_in_words(answer)}); look at p_min_kw of the sources and at lines that cannot carry the demand"
            )
        return replace(result, inexact=inexact or self._inexact(answer.x, ELASTIC_PHANTOM_PU))

    def _flow(self, source_pu: Complexes, demand_kva: Complexes) -> _AcState | None:
        """The power flow at the sources' set points (the substation's is ignored); None where there is none."""
        feeder = self.feeder
        source, demand = source_pu * feeder.base_kw, demand_kva.astype(complex)
        source[self.substation] = 0.0
        np.subtract.at(demand, self.sources.bus, source)
        flow = radial_power_flow(feeder.tree, demand / feeder.base_kw, self.limits.v0_pu)
        if not flow.converged:
            return None
        enter, leave = flow.s_parent_pu * feeder.base_kw, flow.s_child_pu * feeder.base_kw
        slack = demand[feeder.substation] + enter[feeder.parent == feeder.substation].sum()
        slack -= 1j * feeder.b_pu[feeder.substation] * self.limits.v0_pu**2 * feeder.base_kw
        source[self.substation] = slack
        return _AcState(enter, leave, flow.v_pu, source)

    def _evaluate(
        self, problem: ConicProblem, x: Floats, p_load_kw: Floats, q_load_kvar: Floats, unserved: Floats
    ) -> DispatchResult | None:
        """The power flow that the set points in `x` cause; None when there is none that the substation's limits allow.

        The latter means a relaxation that is not exact: it burns surplus power in currents that do not flow.
        """
        feeder, sources, at = self.feeder, self.sources, problem.at
        p_served, q_served = p_load_kw * (1.0 - unserved), q_load_kvar * (1.0 - unserved)
        p_source = _snapped(x[at.p_source], sources.p_min_pu, sources.p_max_pu)
        q_source = _snapped(x[at.q_source], sources.q_min_pu, sources.q_max_pu)
        flow = self._flow(p_source + 1j * q_source, p_served + 1j * q_served)
        if flow is None or not self._substation_can(flow.source[self.substation] / feeder.base_kw):
            return None
        enter, leave, p_source, q_source = flow.enter, flow.leave, flow.source.real.copy(), flow.source.imag.copy()
        vm_pu, loss_kw = np.abs(flow.v_pu), float(np.sum(enter.real + leave.real))
        violation = self._violation(vm_pu)
        gap, gap_ratio = self._gaps(x, problem)
        weights, j2 = self.limits, float(p_source @ sources.kg_per_kwh)
        return DispatchResult(
            status=ELASTIC if unserved.any() or violation > 0.0 else OPTIMAL,
            p_from_kw=enter.real, p_to_kw=leave.real, q_from_kvar=enter.imag, q_to_kvar=leave.imag, v_pu=flow.v_pu,
            vm_pu=vm_pu,
            p_source_kw=p_source, q_source_kvar=q_source, p_load_kw=p_served, q_load_kvar=q_served,
            unserved_kw=p_load_kw * unserved, loss_kw=loss_kw,
            emission_kg_per_h=generated_carbon(p_source, sources.kg_per_kwh),
            objective_kw=weights.loss_weight * loss_kw + weights.lambda_kw_per_kg_h * j2
            + weights.cost_kw_per_usd_h * float(p_source @ sources.usd_per_kwh),
            nci_kg_per_kwh=self.nci(enter.real, leave.real, p_source, p_served),
            relaxation_gap_pu=float(np.abs(gap).max()), relaxation_gap_ratio=gap_ratio, inexact=False,
            conic_vm_pu=np.sqrt(np.maximum(x[at.u], 0.0)),
            conic_loss_kw=float(feeder.r_pu @ x[at.l]) * feeder.base_kw, voltage_violation_pu=violation,
        )

    def settle(self, result: DispatchResult, p_load_kw: Floats, q_load_kvar: Floats) -> Settlement | None:
        """The AC power flow at the set points of `result` and other demand (n_bus,); None where there is none.

        A bus that the dispatch served in part is served in the same part.
        """
        demanded = result.p_load_kw + result.unserved_kw
        part = np.where(result.unserved_kw > 0.0, result.p_load_kw / np.where(demanded == 0.0, 1.0, demanded), 1.0)
        source = (result.p_source_kw + 1j * result.q_source_kvar) / self.feeder.base_kw
        state = self._flow(source, part * (p_load_kw + 1j * q_load_kvar))
        if state is None:
            return None
        vm_pu, p_source = np.abs(state.v_pu), state.source.real
        return Settlement(
            p_substation_kw=float(p_source[self.substation]),
            loss_kw=float(np.sum(state.enter.real + state.leave.real)),
            emission_kg_per_h=generated_carbon(p_source, self.sources.kg_per_kwh), vm_pu=vm_pu,
            voltage_violation_pu=self._violation(vm_pu))

    def nci(self, p_from_kw: Floats, p_to_kw: Floats, p_source_kw: Floats, p_load_kw: Floats) -> Floats:
        """(9) at the given branch flows and source powers; a bus with negative demand generates at 0 kg/kWh."""
        feeder, bus, power, intensity = self.feeder, self.sources.bus, p_source_kw, self.sources.kg_per_kwh
        feeding = np.flatnonzero(p_load_kw < 0.0)
        if len(feeding):
            bus, power = np.concatenate([bus, feeding]), np.concatenate([power, -p_load_kw[feeding]])
            intensity = np.concatenate([intensity, np.zeros(len(feeding))])
        return nodal_carbon_intensity(
            feeder.n_bus, feeder.parent, feeder.child, p_from_kw, p_to_kw, bus, power, intensity
        )

    def _substation_can(self, s_pu: complex) -> bool:
        """Whether P + jQ is inside the substation's box."""
        s, k = self.sources, self.substation
        return bool(s.p_min_pu[k] - NEGLIGIBLE_PU <= s_pu.real <= s.p_max_pu[k] + NEGLIGIBLE_PU
                    and s.q_min_pu[k] - NEGLIGIBLE_PU <= s_pu.imag <= s.q_max_pu[k] + NEGLIGIBLE_PU)

    def _violation(self, vm_pu: Floats) -> float:
        others = np.delete(vm_pu, self.feeder.substation)
        excess = float(np.maximum(self.limits.v_min_pu - others, others - self.limits.v_max_pu).max())
        return excess if excess > NEGLIGIBLE_PU else 0.0


def _in_words(answer: Solution, inexact: bool = False) -> str:
    if inexact:
        return f"{answer.status}, but only by losses that do not occur: the relaxation is not exact"
    return answer.status if answer.x is None else f"{answer.status}, but not within the substation's limits"


def _snapped(values: Floats, lower: Floats, upper: Floats) -> Floats:
    """Set points inside their boxes, and on a limit that they all but touch."""
    values = np.where(values - lower <= NEGLIGIBLE_PU, lower, values)
    return np.where(upper - values <= NEGLIGIBLE_PU, upper, values)


def _in_pu(feeder: Feeder, sources: Mapping[str, Source]) -> Sources:
    def limits(values: list[float | None], missing: float) -> Floats:
        return np.array([missing if v is None else v / feeder.base_kw for v in values], dtype=float)

    given = list(sources.values())
    return Sources(
        bus=np.array([feeder.position(s.node, f"sources.{name}.node") for name, s in sources.items()], dtype=np.int64),
        kg_per_kwh=np.array([s.kg_per_kwh for s in given], dtype=float),
        p_min_pu=limits([s.p_min_kw for s in given], -np.inf), p_max_pu=limits([s.p_max_kw for s in given], np.inf),
        q_min_pu=limits([s.q_min_kvar for s in given], -np.inf), q_max_pu=limits([s.q_max_kvar for s in given], np.inf),
        usd_per_kwh=np.array([s.usd_per_kwh for s in given], dtype=float),
    )


def _choose(solver: SolverName, problem: ConicProblem) -> tuple[str, Solver]:
    """Gurobi where it runs and is not declined, else Clarabel, with a logged line when that was not asked for."""
    if solver == "clarabel":
        return "clarabel", ClarabelSolver(problem)
    try:
        return "gurobi", GurobiSolver(problem)
    except SolverError as err:
        if solver == "gurobi":
            raise SolverError(f"{err}; use --set grid.solver=clarabel, which has no such limit") from None
        _log.warning("grid: dispatch by clarabel, because %s", err)
        return "clarabel", ClarabelSolver(problem)
