"""The conic dispatch in Clarabel, an open interior-point solver without a size limit."""

from __future__ import annotations

import clarabel
import numpy as np
from scipy.sparse import csc_array, csc_matrix, vstack

from cosim.errors import SolverError
from simulators.grid.conic import ConicProblem, Solution
from simulators.grid.equations import Floats

TOLERANCE = 1e-9
ALMOST = 1e-6
"""What `AlmostSolved` guarantees; Clarabel's own 5e-5 would show in the NCI."""
_ACCEPTED = (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved)


class ClarabelSolver:
    """One problem, built once and solved for changing right-hand sides; the answer depends on these alone."""

    def __init__(self, problem: ConicProblem) -> None:
        self._n_equal = len(problem.rhs)
        matrix, self._b, cones = _standard_form(problem)
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        settings.presolve_enable = False  # it would forbid updates
        settings.chordal_decomposition_enable = False
        settings.direct_solve_method = "qdldl"  # its default depends on the platform
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
        settings.reduced_tol_gap_abs = settings.reduced_tol_gap_rel = settings.reduced_tol_feas = ALMOST
        no_square = csc_matrix((problem.at.size, problem.at.size))
        self._solver = clarabel.DefaultSolver(no_square, problem.cost, csc_matrix(matrix), self._b, cones, settings)

    def solve(self, rhs: Floats) -> Solution:
        """Optimum for the equalities' right-hand side; `AlmostSolved` (looser tolerance) counts as one."""
        self._b[: self._n_equal] = rhs
        self._solver.update(b=self._b)
        answer = self._solver.solve()
        good = answer.status in _ACCEPTED
        if not good:
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
    at, size = problem.at, problem.at.size
    identity = csc_array(np.eye(size))
    fixed = np.flatnonzero(problem.lower == problem.upper)
    low = np.flatnonzero((problem.lower > -np.inf) & (problem.lower < problem.upper))
    high = np.flatnonzero((problem.upper < np.inf) & (problem.lower < problem.upper))
    n_branch = len(at.u_parent)
    matrix = vstack([problem.equal, identity[fixed], problem.below, -identity[low], identity[high],
                     _cone_rows(problem)], format="csc")
    b = np.concatenate([problem.rhs, problem.upper[fixed], problem.limit, -problem.lower[low], problem.upper[high],
                        np.zeros(4 * n_branch)])
    n_zero = len(problem.rhs) + len(fixed)
    n_nonnegative = len(problem.limit) + len(low) + len(high)
    cones = [clarabel.ZeroConeT(n_zero), clarabel.NonnegativeConeT(n_nonnegative)]
    return matrix, b, cones + [clarabel.SecondOrderConeT(4)] * n_branch


def _cone_rows(problem: ConicProblem) -> csc_array:
    """-(l + u, 2P, 2Q, l - u) of every branch: |(2P, 2Q, l - u)| <= l + u is P^2 + Q^2 <= l u."""
    at, n = problem.at, len(problem.at.u_parent)
    rows = np.zeros((4 * n, at.size))
    k = np.arange(n)
    rows[4 * k, at.l.start + k] = rows[4 * k, at.u_parent] = rows[4 * k + 3, at.l.start + k] = -1.0
    rows[4 * k + 3, at.u_parent] = 1.0
    rows[4 * k + 1, at.p.start + k] = rows[4 * k + 2, at.q.start + k] = -2.0
    return csc_array(rows)
