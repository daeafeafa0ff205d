"""The grid alone: ms of one dispatch and its parts, over solvers and buses, beside the bare solver."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from time import process_time

import numpy as np

from benchmarks.measure import Found, Say, Size, number
from cosim.digest import Table
from cosim.errors import SolverError
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.conic import Limits, balance_rhs
from cosim.simulators.grid.dispatch.horizon import Ramps
from cosim.simulators.grid.dispatch.mci import MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch, Source
from cosim.simulators.grid.dispatch.solvers import SolverName
from cosim.simulators.grid.equations import radial_power_flow
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.feeder import BaseLoad, Feeder, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder

TABLE_I = {
    "substation": Source(0, 0.30),
    "gt6": Source(6, 0.35, 0.0, 500.0, -300.0, 300.0),
    "gt25": Source(25, 0.65, 0.0, 500.0, -300.0, 300.0),
    "gt30": Source(30, 0.90, 0.0, 500.0, -300.0, 300.0),
}


def branching(n_bus: int) -> LineList:
    """A 20 kV feeder of 4 MW in all, each bus hung on one a few places before it, so that it is about sqrt(n) deep."""
    rng = np.random.default_rng(n_bus)
    parents = [int(rng.integers(max(0, k - 1 - int(n_bus**0.5)), k)) for k in range(1, n_bus)]
    scale = 33.0 / n_bus
    return LineList(
        base_kv=20.0, lines=tuple(Line(a, k, 0.5 * scale, 0.4 * scale) for k, a in enumerate(parents, start=1)),
        loads=tuple(BaseLoad(k, 4000.0 / n_bus, 1500.0 / n_bus) for k in range(1, n_bus)))


def sources_of(n_bus: int) -> dict[str, Source]:
    return {"substation": Source(0, 0.30), **{
        f"gt{k}": Source(n_bus * k // 4, w, 0.0, 500.0, -300.0, 300.0) for k, w in ((1, 0.35), (2, 0.65), (3, 0.90))}}


def median_ms(call: Callable[[int], object], times: int) -> float:
    """Median milliseconds of call(k); the first three are left out."""
    taken = []
    for k in range(times + 3):
        begin = process_time()
        call(k)
        taken.append(process_time() - begin)
    return 1e3 * statistics.median(taken[3:])


def loads_of(feeder: Feeder, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(feeder.p_kw * s, feeder.q_kvar * s) for s in rng.uniform(0.3, 0.9, count)]


def measure_feeder(feeder: Feeder, sources: dict[str, Source], solver: SolverName, times: int) -> dict[str, float]:
    """Milliseconds by name: 'conic' the solver alone, 'solve' all that an interval needs, 'nci', 'mci'."""
    limits = Limits(1.0, 0.9, 1.1, 0.1)
    dispatch = Dispatch(feeder, sources, limits, solver)
    loads = loads_of(feeder, times + 3)
    results = [dispatch.solve(p, q) for p, q in loads]
    mci = MciOfDispatch(feeder, sources, limits, np.zeros(feeder.n_bus), [])
    return {
        "conic": median_ms(lambda k: dispatch._solver.solve(balance_rhs(feeder, *loads[k])), times),
        "solve": median_ms(lambda k: dispatch.solve(*loads[k]), times),
        "nci": median_ms(lambda k: dispatch.nci(results[k].p_from_kw, results[k].p_to_kw, results[k].p_source_kw,
                                                results[k].p_load_kw), times),
        "mci": median_ms(lambda k: mci.of(results[k]), times),
    }


def interval_ms(times: int) -> dict[str, float]:
    """A whole interval of `CefDispatch` in training (Clarabel, no AC check, no mci), and what of it the parts take."""
    grid, feeder = CefDispatch(), read_feeder("case33bw")
    grid.init("grid", 60.0, step_s=900.0, ac_check=False, mci=False, solver="clarabel", lambda_kw_per_kg_h=0.01,
              sources={n: {"node": s.node, "kg_per_kwh": s.kg_per_kwh, "p_min_kw": s.p_min_kw, "p_max_kw": s.p_max_kw,
                           "q_min_kvar": s.q_min_kvar, "q_max_kvar": s.q_max_kvar} for n, s in TABLE_I.items()},
              sites={f"aidc{b}": {"node": b} for b in (8, 28, 32)})
    grid.create(feeder.n_bus, "Bus", names=feeder.bus_names)
    grid.create(1, "Grid", names=["grid"])
    grid.describe()
    loads, rng = loads_of(feeder, times + 3), np.random.default_rng(1)
    inputs = [{name: {"p_load_kw": {f"profile.{name}": float(p[k])}, "q_load_kvar": {f"profile.{name}": float(q[k])}}
               for k, name in enumerate(feeder.bus_names)} for p, q in loads]
    for given in inputs:
        for bus in (8, 28, 32):
            p_kw = float(rng.uniform(100.0, 400.0))
            given[f"bus{bus}"]["p_load_kw"][f"aidc.aidc{bus}"] = p_kw
            given[f"bus{bus}"]["q_load_kvar"][f"aidc.aidc{bus}"] = 0.2 * p_kw
    result = grid._dispatch.solve(*loads[0])
    return {
        "interval": median_ms(lambda k: grid.step(15 * k, inputs[k], 15 * k + 15), times),
        "conic": median_ms(lambda k: grid._dispatch._solver.solve(balance_rhs(feeder, *loads[k])), times),
        "flow and nci": median_ms(lambda k: grid._dispatch.solve(*loads[k]), times),
        "settlement": median_ms(lambda k: grid._dispatch.settle(result, *loads[k]), times),
    }


def plan_ms(times: int, steps: int) -> float:
    """What ramp limits add to an interval of IEEE-33: a plan of so many intervals."""
    feeder = read_feeder("case33bw")
    sources = {n: s if n == "substation" else replace(s, ramp_kw_per_min=2.0) for n, s in TABLE_I.items()}
    dispatch = Dispatch(feeder, sources, Limits(1.0, 0.9, 1.1, 0.1), "clarabel")
    ramps, before = Ramps(dispatch, 15.0, steps), dispatch.solve(feeder.p_kw, feeder.q_kvar).p_source_kw
    loads = loads_of(feeder, times + 3 + steps)
    return median_ms(lambda k: ramps.boxes(before, 1, loads[k: k + steps]), times)


def ac_check_ms(times: int, confirms: bool) -> float:
    """A check of the 33 buses: one that the dispatch's voltages pass, or pandapower's power flow from its own start."""
    feeder = read_feeder("case33bw")
    check, none = AcCheck("case33bw", [], 1.0), np.zeros(0)
    loads = loads_of(feeder, times + 3)
    starts = [radial_power_flow(feeder.tree, (p + 1j * q) / feeder.base_kw, 1.0).v_pu if confirms else None
              for p, q in loads]
    return median_ms(lambda k: check.run(*loads[k], none, none, starts[k]), times)


def measure(size: Size, say: Say) -> Found:
    """A row per feeder and solver, then an interval's parts, plans and the AC check. Medians of CPU time."""
    found, rows, times = Found(), [], 20 if size.quick else 100
    cases = [("IEEE-33, Gurobi", "case33bw", TABLE_I, "gurobi"), ("IEEE-33, Clarabel", "case33bw", TABLE_I, "clarabel")]
    cases += [(f"{n} buses, Clarabel", branching(n), sources_of(n), "clarabel") for n in (() if size.quick
                                                                                         else (123, 1000))]
    for name, network, sources, solver in cases:
        say(f"dispatch: {name}")
        feeder = read_feeder(network)
        try:
            got = measure_feeder(feeder, sources, solver, times if feeder.n_bus < 500 else max(times // 5, 5))
        except SolverError as err:
            found.skipped.append(f"{name}: {err}")
            continue
        rows.append((name, *(number(ms) for ms in got.values()), f"{got['solve'] / got['conic']:.2f}"))
        found.figures |= {f"{name}: {part}, ms": ms for part, ms in got.items()}
        found.ratios[f"{name}: a dispatch, times the bare solver"] = got["solve"] / got["conic"]
    found.tables.append(Table("A dispatch: ms of CPU", ("feeder", "bare solver", "dispatch with power flow and NCI",
                                                        "NCI alone", "MCI of all buses", "times the solver"), rows))
    say("an interval of the grid's simulator, plans, AC check")
    parts = interval_ms(times)
    parts["flow and nci"] -= parts["conic"]
    whole = parts.pop("interval")
    parts["inputs and outputs"] = whole - sum(parts.values())
    more = {"an interval as it is learned on": whole, **{f"of it {name}": ms for name, ms in parts.items()}}
    more |= {f"a plan of {k} intervals": plan_ms(max(times // 5, 5), k) for k in ((2,) if size.quick else (2, 4, 16))}
    more |= {"an AC check": ac_check_ms(times, True), "pandapower's power flow": ac_check_ms(times, False)}
    found.figures |= {f"IEEE-33: {name}, ms": ms for name, ms in more.items()}
    found.ratios["IEEE-33: an interval as it is learned on, times the bare solver"] = whole / parts["conic"]
    found.tables.append(Table("IEEE-33 by Clarabel: ms of CPU", ("part", "ms"),
                              [(name, number(ms)) for name, ms in more.items()]))
    return found
