"""The compiled data centers beside those on SimPy, told the same.

A scenario is played as agents learn on it, by a fresh policy's actions; what its data centers are told and what that
costs there is noted. The compiled fleet is then told the same, in many environments at once. Figures are CPU time of a
minute of all sites of one environment, in one process; compiling, or reading what was compiled, is not counted.
"""

from __future__ import annotations

import importlib.util
from time import process_time
from typing import Any

import numpy as np

from benchmarks.measure import Found, Say, Size, number
from cosim.digest import Table
from cosim.drivers.resolve import resolve
from cosim.imports import load
from cosim.learning.environment import scenario_of
from cosim.learning.vector import Environment, learning_scenario
from cosim.simulators.aidc.adapter import DataCenters

SIZES = {"quick": (1, 16), "normal": (1, 16, 64), "full": (1, 16, 64, 256)}


class Noted(DataCenters):
    """Data centers that note what they are told, and what they cost."""

    told: list[dict[str, Any]] = []
    spent_s = 0.0

    def advance(self, time_s: float, inputs: dict[str, Any]) -> dict[str, Any]:
        """As `DataCenters`."""
        Noted.told.append(inputs)
        begin = process_time()
        done = super().advance(time_s, inputs)
        Noted.spent_s += process_time() - begin
        return done


def played(scenario: Any, minutes: int) -> tuple[Any, list[dict[str, Any]], float]:
    """The fleet's parameters, what it was told minute by minute, and CPU s a minute."""
    lean = learning_scenario(scenario_of(scenario))
    fleet = lean.members["aidc"].model_copy(update={"simulator": f"{Noted.__module__}:Noted"})
    resolved = resolve(lean.replace(members={**lean.members, "aidc": fleet}))
    env = Environment(resolved, seed=1)
    Noted.told, Noted.spent_s = [], 0.0
    action = env.steering.start()
    for _ in range(minutes):
        env.step(action)
    return resolved.params["aidc"], Noted.told, Noted.spent_s / minutes


def as_arrays(told: dict[str, Any], classes: list[str], n_envs: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """What one fleet was told, as told to so many at once."""
    index, columns = {name: m for m, name in enumerate(classes)}, [[] for _ in range(6)]
    for n, of_site in enumerate(told.values()):
        jobs = of_site["jobs"]
        count = len(jobs.get("id", ()))
        rows = ([n] * count, [index[name] for name in jobs.get("job_class", ())],
                *(jobs.get(name, ()) for name in ("id", "work_to", "deadline_s", "release_s")))
        for column, more in zip(columns, rows, strict=True):
            column += more
    lane, *rest = (np.array(column, np.int64 if k < 3 else np.float64) for k, column in enumerate(columns))
    lanes = (np.arange(n_envs)[:, None] * len(told) + lane).ravel()
    gpus = np.array([of_site["gpus"] for of_site in told.values()])
    degc = np.array([of_site["supply_temp_degc"] for of_site in told.values()])
    jobs_of = load("cosim.simulators.aidc.compiled.fleet:Jobs", "compiled fleet")
    return (jobs_of(lanes, *(np.tile(column, n_envs) for column in rest)), np.tile(gpus, (n_envs, 1, 1)),
            np.tile(degc, (n_envs, 1)))


def compiled_s(given: Any, told: list[dict[str, Any]], n_envs: int) -> float:
    """CPU s a minute and environment of the compiled fleet."""
    fleet, spent_s = load("cosim.simulators.aidc.compiled.fleet:CompiledFleet", "compiled fleet")(given, n_envs), 0.0
    for minute in told:
        arrays = as_arrays(minute, fleet.classes, n_envs)
        begin = process_time()
        fleet.step(*arrays)
        spent_s += process_time() - begin
    return spent_s / len(told) / n_envs


def add(found: Found, size: Size, say: Say) -> None:
    """Adds what is measured to `found`, or why nothing is."""
    if importlib.util.find_spec("numba") is None:
        found.skipped.append("the compiled data centers: numba is not installed (extra 'fast')")
        return
    say(f"data centers of {size.scenario} as they are learned on: SimPy")
    params, told, simpy_s = played(size.scenario, 30 if size.quick else 720)
    compiled_s(params, told[:3], 2)
    rows = [("SimPy", number(1e6 * simpy_s), "1")]
    found.figures["SimPy: us a minute"] = 1e6 * simpy_s
    for n_envs in SIZES[size.name]:
        say(f"data centers of {size.scenario} as they are learned on: compiled, {n_envs} at once")
        seconds = compiled_s(params, told, n_envs)
        rows.append((f"compiled, {n_envs} at once", number(1e6 * seconds), number(simpy_s / seconds)))
        found.figures[f"compiled, {n_envs} at once: us a minute"] = 1e6 * seconds
        found.ratios[f"compiled, {n_envs} at once: times SimPy"] = seconds / simpy_s
    found.tables.append(Table(f"All data centers of {size.scenario}, a minute of one environment",
                              ("engine", "us", "times faster"), rows))
