"""The conic dispatch in Clarabel, an open interior-point solver without a size limit."""

from __future__ import annotations

import clarabel
import numpy as np
from scipy.sparse import coo_array, csc_array, csc_matrix, csr_array, diags_array, eye_array, vstack

from cosim.errors import SolverError
from cosim.simulators.grid.dispatch.conic import ConicProblem, Solution
from cosim.simulators.grid.equations import Floats, Ints

TOLERANCE = 1e-9
ALMOST = 1e-6
"""What `AlmostSolved` guarantees; Clarabel's own 5e-5 would show in the NCI."""
_ACCEPTED = (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved)


class ClarabelSolver:
    """One problem, built once and solved for changing right-hand sides; the answer depends on these alone.

    Most problems need none of Clarabel's iterative refinement, which costs two fifths of its time: it is solved without
    first, and with it where that does not end at the full tolerance.
    """

    def __init__(self, problem: ConicProblem, time_limit_s: float | None = None) -> None:
        self._n_equal, self._cost, self._time_limit_s = len(problem.rhs), problem.cost, time_limit_s
        self._square = csc_matrix(diags_array(problem.quadratic))
        self._matrix, self._b, self._cones = _standard_form(problem)
        self._low, self._high, self._first_low = _bounded(problem)
        self._fast = self._solver(refine=False)
        self._careful: clarabel.DefaultSolver | None = None

    def _solver(self, *, refine: bool) -> clarabel.DefaultSolver:
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        settings.presolve_enable = False  # it would forbid updates
        settings.chordal_decomposition_enable = False
        settings.direct_solve_method = "qdldl"  # its default depends on the platform
        settings.iterative_refinement_enable = refine
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
        settings.reduced_tol_gap_abs = settings.reduced_tol_gap_rel = settings.reduced_tol_feas = ALMOST
        if self._time_limit_s is not None:
            settings.time_limit = self._time_limit_s
        return clarabel.DefaultSolver(self._square, self._cost, csc_matrix(self._matrix), self._b, self._cones,
                                      settings)

    def reprice(self, cost: Floats) -> None:
        """Another linear cost of x from now on."""
        self._cost = cost
        for solver in (self._fast, self._careful):
            if solver is not None:
                solver.update(q=cost)

    def rebound(self, lower: Floats, upper: Floats) -> None:
        """Other bounds of x from now on; what was fixed or without a bound stays so."""
        at = self._first_low
        self._b[at: at + len(self._low)] = -lower[self._low]
        at += len(self._low)
        self._b[at: at + len(self._high)] = upper[self._high]

    def solve(self, rhs: Floats) -> Solution:
        """Optimum for the equalities' right-hand side; `AlmostSolved` (looser tolerance) counts as one."""
        self._b[: self._n_equal] = rhs
        self._fast.update(b=self._b)
        answer = self._fast.solve()
        if answer.status != clarabel.SolverStatus.Solved:
            if self._careful is None:
                self._careful = self._solver(refine=True)
            self._careful.update(b=self._b)
            answer = self._careful.solve()
        if answer.status not in _ACCEPTED:
            return Solution(str(answer.status), None)
        return Solution(str(answer.status), np.array(answer.x), -np.array(answer.z[: self._n_equal]))


def minimise_quadratic(hessian: Floats, gradient: Floats, matrix: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """x that minimises gradient'x + x' hessian x / 2 under matrix x <= limit, and the limits' multipliers >= 0.

    The hessian is positive semidefinite, a solution exists. Raises SolverError with Clarabel's word if it finds none.
    """
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads, settings.direct_solve_method = False, 1, "qdldl"
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    solver = clarabel.DefaultSolver(csc_matrix(np.triu(hessian)), gradient, csc_matrix(matrix), limit,
                                    [clarabel.NonnegativeConeT(len(limit))], settings)
    answer = solver.solve()
    if answer.status not in _ACCEPTED:
        raise SolverError(f"a quadratic step has no solution (clarabel: {answer.status})")
    return np.array(answer.x), np.array(answer.z)


def _standard_form(problem: ConicProblem) -> tuple[csc_array, Floats, list]:
    """Clarabel's A x + s = b with s in zero, nonnegative and second-order cones, in this order."""
    at = problem.at
    identity = csr_array(eye_array(at.size, format="csr"))
    fixed = np.flatnonzero(problem.lower == problem.upper)
    low, high, _ = _bounded(problem)
    n_branch = len(at.u_parent)
    matrix = vstack([problem.equal, identity[fixed], problem.below, -identity[low], identity[high],
                     _cone_rows(problem), _disc_rows(problem), _end_rows(problem)], format="csc")
    matrix.sort_indices()
    discs = np.zeros(3 * len(problem.discs))
    discs[::3] = problem.s_max_pu
    b = np.concatenate([problem.rhs, problem.upper[fixed], problem.limit, -problem.lower[low], problem.upper[high],
                        np.zeros(4 * n_branch), discs, _end_constants(problem)])
    n_zero = len(problem.rhs) + len(fixed)
    n_nonnegative = len(problem.limit) + len(low) + len(high)
    cones = [clarabel.ZeroConeT(n_zero), clarabel.NonnegativeConeT(n_nonnegative)]
    cones += [clarabel.SecondOrderConeT(4)] * n_branch + [clarabel.SecondOrderConeT(3)] * len(problem.discs)
    cones += [clarabel.SecondOrderConeT(4)] * len(problem.ends.full)
    return matrix, b, cones


def _bounded(problem: ConicProblem) -> tuple[Ints, Ints, int]:
    """Variables with a lower and with an upper bound, the fixed ones aside, and where in b the first of them stands."""
    free = problem.lower < problem.upper
    first = len(problem.rhs) + int(np.count_nonzero(~free)) + len(problem.limit)
    return np.flatnonzero((problem.lower > -np.inf) & free), np.flatnonzero((problem.upper < np.inf) & free), first


def _disc_rows(problem: ConicProblem) -> csc_array:
    """(0, -P, -Q) of every source with a rating: |(P, Q)| <= s_max."""
    k, at = np.arange(len(problem.discs)), problem.at
    columns = np.concatenate([at.p_source.start + problem.discs, at.q_source.start + problem.discs])
    return csc_array(coo_array((-np.ones(2 * len(k)), (np.concatenate([3 * k + 1, 3 * k + 2]), columns)),
                               shape=(3 * len(k), at.size)))


def _end_rows(problem: ConicProblem) -> csc_array:
    """-(full + u, 2P, 2Q, full - u) of every limited end, u = 1 (a constant) for an apparent power: |(P, Q)|^2 <= full
    u."""
    ends, n = problem.ends, len(problem.ends.full)
    k, by_u = np.arange(n), np.flatnonzero(problem.ends.u >= 0)
    one, half = np.ones(n), np.ones(len(by_u))
    rows = np.concatenate([4 * k, 4 * k + 3, 4 * by_u, 4 * by_u + 3])
    columns = np.concatenate([ends.full, ends.full, ends.u[by_u], ends.u[by_u]])
    out = coo_array((np.concatenate([-one, -one, -half, half]), (rows, columns)), shape=(4 * n, problem.at.size))
    for shift, matrix in ((1, ends.p.tocoo()), (2, ends.q.tocoo())):
        out = out + coo_array((-2.0 * matrix.data, (4 * matrix.coords[0] + shift, matrix.coords[1])), shape=out.shape)
    return csc_array(out)


def _end_constants(problem: ConicProblem) -> Floats:
    """What stands beside `_end_rows`."""
    out = np.zeros((len(problem.ends.full), 4))
    out[problem.ends.u < 0] = [1.0, 0.0, 0.0, -1.0]
    return out.ravel()


def _cone_rows(problem: ConicProblem) -> csc_array:
    """-(l + u, 2P, 2Q, l - u) of every branch: |(2P, 2Q, l - u)| <= l + u is P^2 + Q^2 <= l u."""
    at, k, one = problem.at, np.arange(len(problem.at.u_parent)), np.ones(len(problem.at.u_parent))
    rows = np.concatenate([4 * k, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k + 3])
    columns = np.concatenate([at.l.start + k, at.u_parent, at.p.start + k, at.q.start + k, at.l.start + k, at.u_parent])
    values = np.concatenate([-one, -one, -2.0 * one, -2.0 * one, -one, one])
    return csc_array(coo_array((values, (rows, columns)), shape=(4 * len(k), at.size)))
