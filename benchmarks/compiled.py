"""Speed of the compiled data centers beside those on SimPy: python -m benchmarks.compiled [--minutes N] [--json FILE]

A scenario is played as agents learn on it, by a fresh policy's actions; what its data centers are told and what that
costs there is noted. The compiled fleet is then told the same, in 1, 16, 64 and 256 environments at once. Figures are
CPU time of one minute of all sites of one environment, in one process; compiling, or reading what was compiled, is not
counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.aidc.compiled.fleet import CompiledFleet, Jobs

from cosim.drivers.resolve import resolve
from cosim.learning.environment import scenario_of
from cosim.learning.vector import Environment, learning_scenario

SIZES = (1, 16, 64, 256)


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


def as_arrays(told: dict[str, Any], classes: list[str], n_envs: int) -> tuple[Jobs, np.ndarray, np.ndarray]:
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
    return (Jobs(lanes, *(np.tile(column, n_envs) for column in rest)), np.tile(gpus, (n_envs, 1, 1)),
            np.tile(degc, (n_envs, 1)))


def compiled_s(given: Any, told: list[dict[str, Any]], n_envs: int) -> float:
    """CPU s a minute and environment of the compiled fleet."""
    fleet, spent_s = CompiledFleet(given, n_envs), 0.0
    for minute in told:
        arrays = as_arrays(minute, fleet.classes, n_envs)
        begin = process_time()
        fleet.step(*arrays)
        spent_s += process_time() - begin
    return spent_s / len(told) / n_envs


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description="compiled data centers beside those on SimPy")
    parser.add_argument("--scenario", default="ieee33", help="a scenario that agents learn on (default: ieee33)")
    parser.add_argument("--minutes", type=int, default=720, help="minutes from midnight (default: 720)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    params, told, simpy_s = played(given.scenario, given.minutes)
    compiled_s(params, told[:3], 2)
    figures = {"SimPy: us a minute": 1e6 * simpy_s}
    for n_envs in SIZES:
        seconds = compiled_s(params, told, n_envs)
        figures[f"compiled, {n_envs} at once: us a minute"] = 1e6 * seconds
        figures[f"compiled, {n_envs} at once: times faster"] = simpy_s / seconds
    for name, value in figures.items():
        print(f"{name:45} {value:10,.1f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
