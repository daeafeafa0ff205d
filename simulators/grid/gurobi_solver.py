"""The conic dispatch in Gurobi, where it is installed and licensed for the size of the problem."""

from __future__ import annotations

import signal
from functools import cache

import numpy as np

from cosim.errors import SolverError
from simulators.grid.conic import ConicProblem, Solution
from simulators.grid.equations import Floats

try:
    import gurobipy
except ImportError:  # an extra; `GurobiSolver` then says so
    gurobipy = None

FREE_LICENCE_VARIABLES = 200
"""What the licence that comes with pip allows once a quadratic constraint is there (2000 without)."""
CONVERGENCE = 1e-10
"""BarQCPConvTol; the default 1e-6 leaves gaps of 1e-4 p.u. and NCI off by 2e-3 (I38). Without presolve, which has
nothing to remove here, the gap stays below 1e-7."""


class GurobiSolver:
    """One problem, built once and solved for changing right-hand sides.

    Raises SolverError with the reason when gurobipy, a licence, or a licence for this size is missing.
    """

    def __init__(self, problem: ConicProblem) -> None:
        if gurobipy is None:
            raise SolverError("gurobipy is not installed")
        try:
            self._build(problem)
            self._model.optimize()  # the licence is checked against the size here
        except gurobipy.GurobiError as err:
            if err.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED:
                raise SolverError(
                    f"the dispatch has {problem.at.size} variables and Gurobi's size-limited licence allows "
                    f"{FREE_LICENCE_VARIABLES} with quadratic constraints"
                ) from None
            raise SolverError(f"Gurobi does not run here: {err}") from None

    def _build(self, problem: ConicProblem) -> None:
        at = problem.at
        self._model = model = gurobipy.Model("dispatch", env=_environment())
        self._x = x = model.addMVar(at.size, lb=problem.lower, ub=problem.upper, obj=problem.cost)
        self._balance = model.addConstr(problem.equal @ x == problem.rhs)
        if len(problem.limit):
            model.addConstr(problem.below @ x <= problem.limit)
        rows = zip(range(at.p.start, at.p.stop), range(at.q.start, at.q.stop), range(at.l.start, at.l.stop),
                   at.u_parent.tolist(), strict=True)
        variables = x.tolist()
        for p, q, current, u in rows:
            model.addQConstr(variables[p] * variables[p] + variables[q] * variables[q]
                             <= variables[current] * variables[u])

    def solve(self, rhs: Floats) -> Solution:
        """Optimum for the equalities' right-hand side; only OPTIMAL counts as one."""
        self._balance.RHS = rhs
        self._model.reset()  # an answer depends on its own data only
        self._model.optimize()
        if self._model.Status == gurobipy.GRB.INTERRUPTED:  # Gurobi took a Ctrl-C that was meant for the run
            signal.raise_signal(signal.SIGINT)
            self._model.reset()
            self._model.optimize()
        status = self._model.Status
        return Solution(_STATUS.get(status, f"status {status}"),
                        np.array(self._x.X) if status == gurobipy.GRB.OPTIMAL else None)


_STATUS = {2: "OPTIMAL", 3: "INFEASIBLE", 4: "INF_OR_UNBD", 5: "UNBOUNDED", 12: "NUMERIC", 13: "SUBOPTIMAL"}


@cache
def _environment() -> object:
    """One silent environment per process: a licence is taken once."""
    env = gurobipy.Env(empty=True)
    for name, value in (("OutputFlag", 0), ("Threads", 1), ("BarQCPConvTol", CONVERGENCE), ("Presolve", 0)):
        env.setParam(name, value)
    env.start()
    return env
