"""The least that a simulated day costs: the libraries under it, bare, on what that day was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import h5py
import numpy as np
import simpy

from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.simulators.grid.dispatch.conic import ConicProblem, balance_rhs
from cosim.simulators.grid.dispatch.gurobi_solver import GurobiSolver
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.trace import Trace

MIN_S = 60.0
SOLVERS: dict[str, Callable[[ConicProblem], Any]] = {"gurobi": GurobiSolver, "clarabel": ClarabelSolver}


def events_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(arrival_s, end_s) of the jobs of a trace: two events each; end_s is NaN of those that did not end in it."""
    with Trace(path) as trace:
        jobs = trace.table("jobs") if "jobs" in trace.tables() else {}
        until_s = float(trace.attrs["until_s"])
    if not jobs:
        return np.zeros(0), np.zeros(0)
    ended = np.where(jobs["end_s"] <= until_s, jobs["end_s"], np.nan)
    order = np.argsort(jobs["arrival_s"], kind="stable")
    return jobs["arrival_s"][order], ended[order]


def simpy_s(arrival_s: np.ndarray, end_s: np.ndarray) -> tuple[float, int]:
    """CPU s of SimPy for an event with a callback at each arrival, which sets off one at the job's end, and how many
    events it had. Arrivals of a minute are scheduled at its beginning, as they reach a data center."""
    first_s = float(arrival_s.min()) if len(arrival_s) else 0.0
    starts = np.maximum(arrival_s - min(first_s, 0.0), 0.0)
    stays = np.maximum(end_s - arrival_s, 0.0)
    minute = (starts // MIN_S).astype(int)
    cuts = np.searchsorted(minute, np.arange(minute[-1] + 2)) if len(minute) else np.zeros(1, int)
    plan = [list(zip(starts[a:b].tolist(), stays[a:b].tolist(), strict=True)) for a, b in zip(cuts, cuts[1:],
                                                                                              strict=False)]
    env, met = simpy.Environment(), 0

    def end(_: simpy.Event) -> None:
        nonlocal met
        met += 1

    def arrive(event: simpy.Event) -> None:
        nonlocal met
        met += 1
        if event.value == event.value:
            env.timeout(event.value).callbacks.append(end)

    begin = process_time()
    for k, batch in enumerate(plan):
        now_s = env.now
        for at_s, stay_s in batch:
            env.timeout(max(at_s - now_s, 0.0), stay_s).callbacks.append(arrive)
        while env.peek() <= (k + 1) * MIN_S:
            env.step()
        if env.now < (k + 1) * MIN_S:
            env.timeout((k + 1) * MIN_S - env.now)
            env.step()
    while env.peek() < float("inf"):
        env.step()
    return process_time() - begin, met


@contextmanager
def noted_dispatches() -> Iterator[list[tuple[Dispatch, np.ndarray, np.ndarray]]]:
    """Within it every dispatch is noted: (which, P and Q of the buses in kW and kvar)."""
    noted: list[tuple[Dispatch, np.ndarray, np.ndarray]] = []
    solve = Dispatch.solve

    def noting(self: Dispatch, p_load_kw: np.ndarray, q_load_kvar: np.ndarray) -> Any:
        noted.append((self, p_load_kw.copy(), q_load_kvar.copy()))
        return solve(self, p_load_kw, q_load_kvar)

    Dispatch.solve = noting  # type: ignore[method-assign]
    try:
        yield noted
    finally:
        Dispatch.solve = solve  # type: ignore[method-assign]


class Problems:
    """The conic problems of a run's grid, one per interval, each solved as it stood, by a bare solver."""

    def __init__(self, noted: list[tuple[Dispatch, np.ndarray, np.ndarray]]) -> None:
        own = [one for one in noted if one[0] is noted[0][0]]  # the others are those of marginal intensities
        self.used = own[0][0].solver_name if own else ""
        self.problem = own[0][0].problem if own else None
        self.rhs = [balance_rhs(dispatch.feeder, p, q) for dispatch, p, q in own]
        self._built: dict[str, Any] = {}

    def solve_s(self, solver: str) -> float:
        """CPU s for all of them; the model is built once, before. Raises SolverError where the solver does not run."""
        if self.problem is None:
            return 0.0
        if solver not in self._built:
            self._built[solver] = SOLVERS[solver](self.problem)
        bare = self._built[solver]
        begin = process_time()
        for rhs in self.rhs:
            bare.solve(rhs)
        return process_time() - begin


class Arrays:
    """Everything that a trace holds, in memory, with how it is stored."""

    def __init__(self, path: Path) -> None:
        self.data: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        with Trace(path) as trace:
            for name, data in trace.datasets().items():
                filters = {"chunks": data.chunks, "compression": data.compression, "shuffle": data.shuffle,
                           "compression_opts": data.compression_opts, "fletcher32": data.fletcher32,
                           "maxshape": data.maxshape} if data.chunks else {}
                self.data[name] = (data[()], {"dtype": data.dtype, **filters})

    @property
    def size_bytes(self) -> int:
        """Of all numbers and texts, uncompressed."""
        return sum(array.nbytes for array, _ in self.data.values())

    def write_s(self, path: Path) -> float:
        """CPU s of h5py for the same datasets, with the same chunks and filters, each in one piece."""
        begin = process_time()
        with h5py.File(path, "w", libver=("earliest", "latest")) as file:
            for name, (array, stored) in self.data.items():
                file.create_dataset(name, data=array, **stored)
        return process_time() - begin
