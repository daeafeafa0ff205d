"""Which solver dispatches: Gurobi where it runs at the problem's size, Clarabel where it does not."""

from __future__ import annotations

import logging
from typing import Literal, Protocol

from cosim.errors import SolverError
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, Solution, Sources
from cosim.simulators.grid.dispatch.gurobi_solver import GurobiSolver, NciLimitedGurobi
from cosim.simulators.grid.dispatch.nci_limits import NciLimits
from cosim.simulators.grid.dispatch.newton import NewtonSolver, SetPointNewton
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.feeder import Feeder

SolverName = Literal["auto", "gurobi", "clarabel", "newton"]
_log = logging.getLogger(__name__)


class Solver(Protocol):
    """What Gurobi and Clarabel have in common here."""

    def solve(self, rhs: Floats) -> Solution: ...

    def reprice(self, cost: Floats) -> None: ...

    def rebound(self, lower: Floats, upper: Floats) -> None: ...


def choose_nci_limited(solver: SolverName, problem: ConicProblem, feeder: Feeder, sources: Sources,
                       caps: NciLimits, time_limit_s: float | None) -> NciLimitedGurobi:
    """Gurobi for NCI caps, or a SolverError with the reason."""
    if solver in ("clarabel", "newton"):
        raise SolverError(f"NCI caps make the dispatch a nonconvex MIQCP, which {solver} does not solve: --set "
                          "grid.solver=gurobi, or --set grid.nci_cap_kg_per_kwh={} for none")
    return NciLimitedGurobi(problem, feeder, sources, caps, time_limit_s)


def choose(solver: SolverName, problem: ConicProblem, feeder: Feeder, sources: Sources, substation: int,
           time_limit_s: float | None) -> tuple[str, Solver, str]:
    """(name, solver, why not Gurobi): Gurobi where it runs and is not declined, else Clarabel, with a logged line when
    that was not the user's choice."""
    if solver == "clarabel":
        return "clarabel", ClarabelSolver(problem, time_limit_s), ""
    if solver == "newton":
        newton = SetPointNewton.made(problem, feeder, sources, substation)
        return ("clarabel, as newton takes boxes of sources and series impedances only" if newton is None else
                "newton, by clarabel where its optimum is not proven"), NewtonSolver(newton, problem, time_limit_s), ""
    try:
        return "gurobi", GurobiSolver(problem, time_limit_s), ""
    except SolverError as err:
        if solver == "gurobi":
            raise SolverError(f"{err}; use --set grid.solver=clarabel, which has no such limit") from None
        _log.warning("grid: dispatch by clarabel, because %s", err)
        return "clarabel", ClarabelSolver(problem, time_limit_s), str(err)
