"""The dispatch by Newton steps in the set points: an optimum of the conic problem, or Clarabel's."""

import numpy as np
import pytest

from cosim.scenarios._study import SOURCES
from cosim.simulators.grid.dispatch.branch_limits import BranchLimits
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs, strict
from cosim.simulators.grid.dispatch.newton import NewtonSolver, SetPointNewton, SourceTerms, solve_together
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.sources import Source, in_pu
from cosim.simulators.grid.network.radial import read_feeder

FEEDER = read_feeder("case33bw")
LIMITS = Limits(1.0, 0.9, 1.1, 0.01)
NARROW = BranchLimits(np.full(32, np.nan), np.zeros(32, bool), np.ones(32), np.full(32, 4.0), np.zeros(0, np.int64),
                      np.zeros(0, bool), np.zeros(0))
"""2 p.u. of current in every branch."""


def sources(**more):
    return {name: Source(**{**given, **(more if name != "substation" else {})}) for name, given in SOURCES.items()}


def loads(count, seed, scale=(0.1, 1.3)):
    """(count, n_bus) each of P and Q: base load, scaled everywhere and bus by bus, and three data centers."""
    rng = np.random.default_rng(seed)
    by = rng.uniform(*scale, (count, 1)) * rng.uniform(0.5, 1.5, (count, FEEDER.n_bus))
    p, q = FEEDER.p_kw * by, FEEDER.q_kvar * by
    site = rng.uniform(0.0, 500.0, (count, 3))
    p[:, [8, 28, 32]] += site
    q[:, [8, 28, 32]] += 0.2 * site
    return p, q


def setting(limits=LIMITS, **more):
    """(newton, clarabel, right-hand sides -> of loads) of one feeder."""
    given = in_pu(FEEDER, sources(**more))
    problem = strict(FEEDER, given, limits)
    return SetPointNewton.made(problem, FEEDER, given, 0), ClarabelSolver(problem), problem


def rows(p, q):
    return np.stack([balance_rhs(FEEDER, *pq) for pq in zip(p, q, strict=True)])


def solved(newton, problem, given):
    """At the prices and limits of one problem."""
    terms = SourceTerms.of(problem.at, problem.cost, problem.lower, problem.upper)
    return newton.solve(given, SourceTerms.columns([terms] * len(given)))


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.1])
def test_an_optimum_that_is_proven_is_clarabels(weight):
    """In objective, to the gap at which Clarabel stops; feasible to rounding, which Clarabel's is not."""
    newton, clarabel, problem = setting(Limits(1.0, 0.9, 1.1, weight))
    given = rows(*loads(24, 1))
    found = solved(newton, problem, given)
    proven = [(x.x, rhs) for x, rhs in zip(found, given, strict=True) if x is not None]
    assert len(proven) >= 20
    at = problem.at
    for x, rhs in proven:
        other = clarabel.solve(rhs).x
        assert problem.cost @ x == pytest.approx(problem.cost @ other, abs=2e-8)
        assert np.abs(problem.equal @ x - rhs).max() < 1e-12
        assert np.abs(x[at.p]**2 + x[at.q]**2 - x[at.l] * x[at.u_parent]).max() < 1e-12
        assert (x >= problem.lower).all()
        assert (x <= problem.upper).all()
        assert np.abs(x - other).max() < 2e-3


def test_no_set_point_nearby_is_better():
    """The objective of the AC power flow at set points around an optimum, by a step in each of them."""
    dispatch = Dispatch(FEEDER, sources(), LIMITS, "newton")
    p, q = (x[0] for x in loads(1, 3))
    best = dispatch.solve(p, q)
    for name in SOURCES:
        for field in ("p", "q"):
            if name == "substation":
                continue
            k = list(SOURCES).index(name)
            at = (best.p_source_kw if field == "p" else best.q_source_kvar)[k]
            low, high = (0.0, 500.0) if field == "p" else (-300.0, 300.0)
            for value in (max(at - 5.0, low), min(at + 5.0, high)):
                unit = "kw" if field == "p" else "kvar"
                box = {f"{field}_min_{unit}": value, f"{field}_max_{unit}": value}
                held = {**sources(), name: Source(**{**SOURCES[name], **box})}
                other = Dispatch(FEEDER, held, LIMITS, "newton").solve(p, q)
                assert other.objective_kw >= best.objective_kw - 1e-9


def test_many_at_once_are_those_of_one_by_one():
    newton, _, problem = setting()
    given = rows(*loads(70, 5, (0.2, 1.0)))
    for one, many in zip((solved(newton, problem, rhs[None])[0] for rhs in given), solved(newton, problem, given),
                         strict=True):
        assert (one is None) == (many is None)
        if one is not None:
            assert np.abs(one.x - many.x).max() < 1e-10


@pytest.mark.parametrize(("limits", "scale"), [
    (Limits(1.0, 0.985, 1.1, 0.01), 1.0),  # voltages at their limits
    (Limits(1.0, 0.9, 1.1, 0.01, branches=NARROW), 1.0),  # a branch at its limit
    (Limits(1.0, 0.9, 1.1, 0.01), 40.0),  # more than the feeder carries
])
def test_what_is_not_proven_is_clarabels(limits, scale):
    newton, clarabel, problem = setting(limits)
    given = rows(*(scale * x for x in loads(3, 2, (1.0, 1.3))))
    assert solved(newton, problem, given) == [None] * 3
    solver = NewtonSolver(newton, problem, None)
    for rhs in given:
        one, other = solver.solve(rhs), clarabel.solve(rhs)
        assert one.status == other.status
        assert one.x is other.x is None or np.array_equal(one.x, other.x)


def test_a_problem_of_another_kind_is_clarabels():
    for more in ({"capability": "power_factor", "power_factor_min": 0.9}, {"capability": "circle", "s_max_kva": 400.0}):
        assert setting(**more)[0] is None
    dispatch, other = (Dispatch(FEEDER, sources(capability="circle", s_max_kva=400.0), LIMITS, solver)
                       for solver in ("newton", "clarabel"))
    p, q = (x[0] for x in loads(1, 4))
    assert dispatch.solver_name.startswith("clarabel, as newton takes")
    assert np.array_equal(dispatch.solve(p, q).nci_kg_per_kwh, other.solve(p, q).nci_kg_per_kwh)


def test_intensities_are_those_of_clarabel_to_its_tolerance():
    """Clarabel stops within 1e-4 p.u. of the set points, about which the objective is flat; NCI is off by as much where
    little flows."""
    one, other = (Dispatch(FEEDER, sources(), LIMITS, solver) for solver in ("newton", "clarabel"))
    for p, q in zip(*loads(12, 6), strict=True):
        a, b = one.solve(p, q), other.solve(p, q)
        assert a.nci_kg_per_kwh == pytest.approx(b.nci_kg_per_kwh, rel=3e-4)
        assert a.objective_kw <= b.objective_kw + 1e-6


def test_what_was_solved_ahead_holds_for_its_own_problem_alone():
    p, q = loads(3, 7, (0.3, 0.9))
    solvers = [Dispatch(FEEDER, sources(), LIMITS, "newton") for _ in p]
    alone = [Dispatch(FEEDER, sources(), LIMITS, "newton").solve(*pq) for pq in zip(p, q, strict=True)]
    solve_together([d.newton_problem(*pq) for d, pq in zip(solvers, zip(p, q, strict=True), strict=True)])
    for k, dispatch in enumerate(solvers):
        assert len(dispatch._solver._ready) == 1
        assert dispatch.solve(p[k], q[k]).nci_kg_per_kwh == pytest.approx(alone[k].nci_kg_per_kwh, rel=1e-10)
        assert not dispatch._solver._ready
    solve_together([solvers[0].newton_problem(p[0], q[0])])
    cost = solvers[0].problem.cost.copy()
    cost[solvers[0].problem.at.p_source] += 1e-3
    solvers[0]._solver.reprice(cost)
    assert not solvers[0]._solver._ready


def test_feeders_whose_sources_cost_and_give_differently_are_solved_together():
    """Each as by itself: an intensity, a price and what is available are their own."""
    p, q = loads(40, 8, (0.3, 0.9))
    rng = np.random.default_rng(9)
    changes = [(rng.uniform(0.0, 1.0, len(SOURCES)), rng.uniform(0.2, 1.0)) for _ in p]

    def dispatches():
        made = []
        for kg_per_kwh, share in changes:
            dispatch = Dispatch(FEEDER, sources(), LIMITS, "newton", moves=np.ones(len(SOURCES), bool))
            dispatch.recolour(kg_per_kwh, kg_per_kwh)
            dispatch.make_available(np.where(np.arange(len(SOURCES)) == dispatch.substation, 1.0, share)
                                    * dispatch.sources.p_max_pu)
            made.append(dispatch)
        return made

    together, apart = dispatches(), dispatches()
    solve_together([d.newton_problem(*pq) for d, *pq in zip(together, p, q, strict=True)])
    assert sum(len(d._solver._ready) for d in together) >= 35
    for one, other, *pq in zip(together, apart, p, q, strict=True):
        a, b = one.solve(*pq), other.solve(*pq)
        assert a.p_source_kw == pytest.approx(b.p_source_kw, abs=1e-6)
        assert a.nci_kg_per_kwh == pytest.approx(b.nci_kg_per_kwh, rel=1e-9)
        clarabel = Dispatch(FEEDER, sources(), LIMITS, "clarabel", moves=np.ones(len(SOURCES), bool))
        clarabel.recolour(one.sources.kg_per_kwh, one.sources.kg_per_kwh)
        clarabel.make_available(one.sources.available_pu)
        assert a.objective_kw <= clarabel.solve(*pq).objective_kw + 1e-6
