"""The distribution system operator's dispatch: set points of the sources, the flows they cause, and the NCI.

The conic problem (1)-(8), (11) *decides* P and Q of every source but the substation. What is reported as flows,
voltages, losses, substation power and NCI is the exact AC power flow of the feeder at those set points (a backward-
forward sweep, `equations.radial_power_flow`), so that figures close to rounding and do not carry a solver's tolerance;
the conic solution's own voltages and loss are kept beside it, and their distance says how tight the relaxation was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
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

OPTIMAL, ELASTIC, HELD = 0, 1, 2
"""Status: all limits met; a voltage outside its limits or power unserved (I30); not solved, last values held."""
NEGLIGIBLE_PU, NEGLIGIBLE_SHARE = 1e-5, 1e-6
"""Within a solver's tolerance: a voltage or substation power that far outside its limits is inside, a set point that
near a limit is on it (else a generator at 1 W would colour a bus without load), and so small a share is served."""

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
    objective_kw            loss_kw + lambda x sum of intensity x power
    nci_kg_per_kwh          (9), of every bus
    relaxation_gap_pu       largest |l u - P^2 - Q^2| of the conic solution
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
    conic_vm_pu: Floats
    conic_loss_kw: float
    voltage_violation_pu: float


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

    def solve(self, p_load_kw: Floats, q_load_kvar: Floats) -> DispatchResult:
        """Dispatch at the demand (n_bus,) of every bus; negative demand is local generation at 0 kg/kWh.

        Falls back on the elastic form where the demand cannot be met within limits; SolverError if that fails, too.
        """
        answer = self._solver.solve(balance_rhs(self.feeder, p_load_kw, q_load_kvar))
        if answer.x is not None:
            result = self._evaluate(self._problem, answer.x, p_load_kw, q_load_kvar, np.zeros(self.feeder.n_bus))
            if result is not None:
                return result
        return self._solve_elastic(p_load_kw, q_load_kvar, answer)

    def _solve_elastic(self, p_load_kw: Floats, q_load_kvar: Floats, before: Solution) -> DispatchResult:
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
            raise SolverError(
                f"the dispatch of {self.feeder.name} at {p_load_kw.sum():.0f} kW has no solution ({self.solver_name}: "
                f"{_in_words(before)}), nor with voltage slack and unserved power (clarabel: {_in_words(answer)}); "
                "look at p_min_kw of the sources and at lines that cannot carry the demand"
            )
        return result

    def _evaluate(
        self, problem: ConicProblem, x: Floats, p_load_kw: Floats, q_load_kvar: Floats, unserved: Floats
    ) -> DispatchResult | None:
        """The power flow that the set points in `x` cause; None when there is none that the substation's limits allow.

        The latter means a relaxation that is not exact: it burns surplus power in currents that do not flow.
        """
        feeder, sources, at = self.feeder, self.sources, problem.at
        p_served, q_served = p_load_kw * (1.0 - unserved), q_load_kvar * (1.0 - unserved)
        p_source = _snapped(x[at.p_source], sources.p_min_pu, sources.p_max_pu) * feeder.base_kw
        q_source = _snapped(x[at.q_source], sources.q_min_pu, sources.q_max_pu) * feeder.base_kw
        demand = p_served + 1j * q_served
        p_source[self.substation] = q_source[self.substation] = 0.0
        np.subtract.at(demand, sources.bus, p_source + 1j * q_source)
        flow = radial_power_flow(feeder.tree, demand / feeder.base_kw, self.limits.v0_pu)
        if not flow.converged:
            return None
        enter, leave = flow.s_parent_pu * feeder.base_kw, flow.s_child_pu * feeder.base_kw
        slack = demand[feeder.substation] + enter[feeder.parent == feeder.substation].sum()
        slack -= 1j * feeder.b_pu[feeder.substation] * self.limits.v0_pu**2 * feeder.base_kw
        if not self._substation_can(slack / feeder.base_kw):
            return None
        p_source[self.substation], q_source[self.substation] = slack.real, slack.imag
        vm_pu, loss_kw = np.abs(flow.v_pu), float(np.sum(enter.real + leave.real))
        violation = self._violation(vm_pu)
        gap = cone_gap(x[at.p], x[at.q], x[at.u_parent], x[at.l])
        j2 = float(p_source @ sources.kg_per_kwh)
        return DispatchResult(
            status=ELASTIC if unserved.any() or violation > 0.0 else OPTIMAL,
            p_from_kw=enter.real, p_to_kw=leave.real, q_from_kvar=enter.imag, q_to_kvar=leave.imag, v_pu=flow.v_pu,
            vm_pu=vm_pu,
            p_source_kw=p_source, q_source_kvar=q_source, p_load_kw=p_served, q_load_kvar=q_served,
            unserved_kw=p_load_kw * unserved, loss_kw=loss_kw,
            emission_kg_per_h=generated_carbon(p_source, sources.kg_per_kwh),
            objective_kw=loss_kw + self.limits.lambda_kw_per_kg_h * j2,
            nci_kg_per_kwh=self.nci(enter.real, leave.real, p_source, p_served),
            relaxation_gap_pu=float(np.abs(gap).max()), conic_vm_pu=np.sqrt(np.maximum(x[at.u], 0.0)),
            conic_loss_kw=float(feeder.r_pu @ x[at.l]) * feeder.base_kw, voltage_violation_pu=violation,
        )

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


def _in_words(answer: Solution) -> str:
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
