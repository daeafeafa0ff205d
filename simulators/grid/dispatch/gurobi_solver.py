"""The conic dispatch in Gurobi, where it is installed and licensed for the size of the problem.

Rows: I38, U02.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.sparse import csr_array, diags_array

from cosim.errors import SolverError
from cosim.simulators.grid.dispatch.conic import ConicProblem, Solution, Sources
from cosim.simulators.grid.dispatch.nci_limits import CarbonMixing, NciLimits, mixing, size
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.feeder import Feeder

try:
    import gurobipy
except ImportError:  # an extra; `GurobiSolver` then says so
    gurobipy = None  # type: ignore[assignment]

FREE_LICENCE_VARIABLES = 200
"""What the licence that comes with pip allows once a quadratic constraint is there (2000 without, and 2000 linear
constraints). It is for use outside production, and ends on the day that `LicenseExpiration` of a model has."""
CONVERGENCE = 1e-10
"""BarQCPConvTol; the default 1e-6 leaves gaps of 1e-4 p.u. and NCI off by 2e-3. Without presolve, which has
nothing to remove here, the gap stays below 1e-7."""


class GurobiSolver:
    """One problem, built once and solved for changing right-hand sides.

    Raises SolverError with the reason when gurobipy, a licence, or a licence for this size is missing.
    """

    def __init__(self, problem: ConicProblem, time_limit_s: float | None = None) -> None:
        if gurobipy is None:
            raise SolverError("gurobipy is not installed")
        try:
            self._build(problem)
            if time_limit_s is not None:
                self._model.Params.TimeLimit = time_limit_s
            self._model.optimize()  # the licence is checked against the size here
        except gurobipy.GurobiError as err:
            if err.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED:
                raise SolverError(_too_large("the dispatch", problem.at.size)) from None
            raise SolverError(f"Gurobi does not run here: {err}") from None

    def _build(self, problem: ConicProblem) -> None:
        self._model = gurobipy.Model("dispatch", env=_environment())
        self._x, self._balance = _conic(self._model, problem)

    def reprice(self, cost: Floats) -> None:
        """Another linear cost of x from now on."""
        self._x.setAttr("Obj", cost)

    def rebound(self, lower: Floats, upper: Floats) -> None:
        """Other bounds of x from now on."""
        self._x.setAttr("LB", lower)
        self._x.setAttr("UB", upper)

    def solve(self, rhs: Floats) -> Solution:
        """Optimum for the equalities' right-hand side; only OPTIMAL counts as one."""
        self._balance.setAttr("RHS", rhs)
        self._model.reset()  # an answer depends on its own data only
        _optimize(self._model)
        if self._model.Status == gurobipy.GRB.INTERRUPTED:  # Gurobi took a Ctrl-C that was meant for the run
            signal.raise_signal(signal.SIGINT)
            self._model.reset()
            _optimize(self._model)
        status = self._model.Status
        return Solution(_STATUS.get(status, f"status {status}"),
                        np.array(self._x.X) if status == gurobipy.GRB.OPTIMAL else None)


def _conic(model: gurobipy.Model, problem: ConicProblem, *, exact: bool = False
           ) -> tuple[gurobipy.MVar, gurobipy.MConstr]:
    """The conic problem in a model: its variables and its equalities. `exact`: the cones (6) as equalities."""
    at = problem.at
    x = model.addMVar(at.size, lb=problem.lower, ub=problem.upper, obj=problem.cost)
    balance = model.addConstr(problem.equal @ x == problem.rhs)
    if len(problem.limit):
        model.addConstr(problem.below @ x <= problem.limit)
    if problem.quadratic.any():
        model.setObjective(problem.cost @ x + 0.5 * (x @ (diags_array(problem.quadratic) @ x)))
    rows = zip(range(at.p.start, at.p.stop), range(at.q.start, at.q.stop), range(at.l.start, at.l.stop),
               at.u_parent.tolist(), strict=True)
    variables = x.tolist()
    for p, q, current, u in rows:
        power, of_current = variables[p] * variables[p] + variables[q] * variables[q], variables[current] * variables[u]
        model.addQConstr(power == of_current if exact else power <= of_current)
    for k, s_max in zip(problem.discs.tolist(), problem.s_max_pu.tolist(), strict=True):
        p, q = variables[at.p_source.start + k], variables[at.q_source.start + k]
        model.addQConstr(p * p + q * q <= s_max * s_max)
    _limit_ends(model, x, problem)
    return x, balance


def _limit_ends(model: gurobipy.Model, x: gurobipy.MVar, problem: ConicProblem) -> None:
    """|(P, Q)|^2 <= full x u, or full alone for an apparent power, at every limited end of a branch."""
    ends, variables = problem.ends, x.tolist()

    def power(rows: csr_array, k: int) -> gurobipy.LinExpr:
        own = slice(rows.indptr[k], rows.indptr[k + 1])
        return gurobipy.LinExpr(rows.data[own].tolist(), [variables[j] for j in rows.indices[own]])

    for k, (full, u) in enumerate(zip(ends.full.tolist(), ends.u.tolist(), strict=True)):
        p, q = power(ends.p, k), power(ends.q, k)
        model.addQConstr(p * p + q * q <= (variables[full] if u < 0 else variables[full] * variables[u]))


class NciLimitedGurobi:
    """The dispatch with NCI caps, (10) inside it: a nonconvex MIQCP, built anew for every interval.

    Raises SolverError with the reason when gurobipy, a licence, or a licence for this size is missing.
    """

    def __init__(self, problem: ConicProblem, feeder: Feeder, sources: Sources, caps: NciLimits,
                 time_limit_s: float | None) -> None:
        if gurobipy is None:
            raise SolverError("gurobipy is not installed, and NCI caps are a problem for Gurobi alone")
        self._problem, self._feeder, self._sources, self.caps = problem, feeder, sources, caps
        self._time_limit_s = time_limit_s
        try:
            model = self._model(problem.rhs, feeder.p_kw, exact=False)
            model.Params.TimeLimit = 0.0
            model.optimize()  # the licence is checked against the size here
        except gurobipy.GurobiError as err:
            if err.errno == gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED:
                count = size(problem, feeder, sources, caps.formulation)
                raise SolverError(f"{_too_large('the dispatch with NCI caps', count)}; take a feeder of about 15 buses "
                                  "or a full licence") from None
            raise SolverError(f"Gurobi does not run here: {err}") from None

    def reprice(self, cost: Floats) -> None:
        """Another linear cost of x from now on."""
        self._problem = replace(self._problem, cost=cost)

    def rebound(self, lower: Floats, upper: Floats) -> None:
        """Other bounds of x from now on."""
        self._problem = replace(self._problem, lower=lower, upper=upper)

    def resource(self, sources: Sources) -> None:
        """Sources with other limits and intensities from now on."""
        self._sources = sources

    def solve(self, rhs: Floats, p_load_kw: Floats, *, exact: bool) -> Solution:
        """Global optimum under the caps, with the gap to its proven bound; `exact` takes (6) as an equality."""
        model = self._model(rhs, p_load_kw, exact=exact)
        if self._time_limit_s is not None:
            model.Params.TimeLimit = self._time_limit_s
        _optimize(model)
        if model.Status == gurobipy.GRB.INTERRUPTED:
            signal.raise_signal(signal.SIGINT)
        status = _STATUS.get(model.Status, f"status {model.Status}")
        if model.Status != gurobipy.GRB.OPTIMAL:
            return Solution(status, None, gap=float(model.MIPGap) if model.SolCount else None)
        x = np.array(model.getAttr("X", model.getVars()[: self._problem.at.size]))
        return Solution(status, x, gap=float(model.MIPGap))

    def _model(self, rhs: Floats, p_load_kw: Floats, *, exact: bool) -> gurobipy.Model:
        model = gurobipy.Model("capped", env=_environment())
        for name, value in _GLOBAL.items():
            model.setParam(name, value)
        x, balance = _conic(model, self._problem, exact=exact)
        balance.setAttr("RHS", rhs)
        mix = mixing(self._feeder, self._sources, p_load_kw)
        self._carbon(model, x.tolist(), mix, np.maximum(-p_load_kw, 0.0) / self._feeder.base_kw)
        return model

    def _carbon(self, model: gurobipy.Model, x: list, mix: CarbonMixing, fed_pu: Floats) -> None:
        """(10) at every bus and the caps; `fed_pu` (n_bus,) is local generation at 0 kg/kWh."""
        at, feeder, sources = self._problem.at, self._feeder, self._sources
        highest = np.full(feeder.n_bus, mix.nci_max)
        highest[self.caps.bus] = np.minimum(self.caps.kg_per_kwh, mix.nci_max)
        w = model.addMVar(feeder.n_bus, lb=0.0, ub=highest).tolist()
        p, current = x[at.p], x[at.l]
        at_child = [p[k] - float(feeder.r_pu[k]) * current[k] for k in range(len(p))]
        arrives = self._positive(model, [*at_child, *(-power for power in p)], mix)
        injected = list(x[at.p_source])
        swings = self._positive(model, [injected[k] for k in mix.swings], mix)
        for k, power in zip(mix.swings.tolist(), swings, strict=True):
            injected[k] = power
        inflow = [gurobipy.LinExpr(float(f)) for f in fed_pu]
        carbon = [gurobipy.QuadExpr() for _ in range(feeder.n_bus)]
        for k, power in enumerate(injected):
            inflow[sources.bus[k]] += power
            carbon[sources.bus[k]] += float(sources.kg_per_kwh[k]) * power
        for h, i, power in zip(mix.sender.tolist(), mix.receiver.tolist(), arrives, strict=True):
            inflow[i] += power
            carbon[i] += w[h] * power
        for i in range(feeder.n_bus):
            model.addQConstr(w[i] * inflow[i] == carbon[i])

    def _positive(self, model: gurobipy.Model, powers: list, mix: CarbonMixing) -> list:
        """p+ of each power P = p+ - p-, p+ p- = 0, by binaries or SOS1."""
        n = len(powers)
        plus, minus = (model.addMVar(n, lb=0.0, ub=mix.most_pu).tolist() for _ in range(2))
        by_binary = self.caps.formulation == "big_m"
        forward = model.addMVar(n, vtype=gurobipy.GRB.BINARY).tolist() if by_binary else []
        for k, power in enumerate(powers):
            model.addConstr(plus[k] - minus[k] == power)
            if by_binary:
                model.addConstr(plus[k] <= mix.most_pu * forward[k])
                model.addConstr(minus[k] <= mix.most_pu * (1.0 - forward[k]))
            else:
                model.addSOS(gurobipy.GRB.SOS_TYPE1, [plus[k], minus[k]])
        return plus


_GLOBAL = {"FeasibilityTol": 1e-9, "IntFeasTol": 1e-9, "OptimalityTol": 1e-9, "MIPGap": 1e-9, "MIPGapAbs": 1e-10,
           "Presolve": -1}


def _optimize(model: gurobipy.Model) -> None:
    """SolverError with Gurobi's message where it stops, as when a licence ends during a run: another solver from
    there on would be another result."""
    try:
        model.optimize()
    except gurobipy.GurobiError as err:
        raise SolverError(f"Gurobi stopped: {err}; --set grid.solver=clarabel runs without a licence") from None


def _too_large(what: str, count: int) -> str:
    return (f"{what} has {count} variables and Gurobi's size-limited licence allows {FREE_LICENCE_VARIABLES} with "
            "quadratic constraints")


_STATUS = {2: "OPTIMAL", 3: "INFEASIBLE", 4: "INF_OR_UNBD", 5: "UNBOUNDED", 9: "TIME_LIMIT", 12: "NUMERIC",
           13: "SUBOPTIMAL"}


@cache
def _environment() -> gurobipy.Env:
    """One silent environment per process: a licence is taken once."""
    env = gurobipy.Env(empty=True)
    for name, value in (("OutputFlag", 0), ("Threads", 1), ("BarQCPConvTol", CONVERGENCE), ("Presolve", 0)):
        env.setParam(name, value)
    env.start()
    return env
