"""A simulated day, by driver and policy: CPU seconds, their split, and their ratio to the day's floors."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.floors import SOLVERS, Arrays, Problems, events_of, noted_dispatches, simpy_s
from benchmarks.measure import Found, Say, Size, cpu_clock, least, number, timing
from cosim.digest import Table
from cosim.errors import ScenarioError, SolverError
from cosim.experiment import DRIVERS, Experiment
from cosim.run import find
from cosim.scenario import Scenario, override
from cosim.units import parse_duration

POLICIES = {"rule": "nci_priority", "team": "ieee33_mat"}
PARTS = ("start", "members", "bus", "trace", "summary")


def one_day(scenario: Scenario, driver: str, until_s: float, out: Path) -> dict[str, float]:
    """CPU s of a run with its trace and its summary: total, PARTS, and 'member NAME', its own start included."""
    gc.collect()
    with cpu_clock():
        begin = process_time()
        split = dict(Experiment(scenario, driver, until_s, out, overwrite=True).run().wall_s)
        total = process_time() - begin
    split["summary"] = total - split["total"]
    split["members"] = split["total"] - split["start"] - split["bus"] - split["trace"]
    return {**split, "total": total}


def policies(scenario: Scenario, skipped: list[str]) -> dict[str, Scenario]:
    """The scenario under a rule and under the trained team, where it has a controller; else as it is. Which of them it
    does not take goes into `skipped`, with why."""
    if "controller" not in scenario.members:
        return {"as it is": scenario}
    found = {}
    for name, policy in POLICIES.items():
        steered = override(scenario, {"controller.policy": policy})
        try:
            Experiment(steered, "native").plan()
            found[name] = steered
        except ScenarioError as err:
            skipped.append(f"{name} ({policy}): {err}")
    return found


def floors(path: Path, problems: Problems, folder: Path, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(CPU s by library, facts) of the floors under a run."""
    arrival_s, end_s = events_of(path)
    arrays = Arrays(path)
    took: dict[str, float] = {"SimPy": least(lambda: simpy_s(arrival_s, end_s)[0], repeats).least_s}
    skipped = []
    for solver in SOLVERS:
        try:
            took[solver] = least(lambda name=solver: problems.solve_s(name), repeats).least_s
        except SolverError as err:
            skipped.append(f"floor of {solver}: {err}")
    took["h5py"] = least(lambda: arrays.write_s(folder / "floor.h5"), repeats).least_s
    took["floors"] = took["SimPy"] + took.get(problems.used, 0.0) + took["h5py"]
    return took, {"events": simpy_s(arrival_s, end_s)[1], "problems": len(problems.rhs),
                  "solver": problems.used, "mib": arrays.size_bytes / 2**20, "skipped": skipped}


def measure(size: Size, say: Say) -> Found:
    """Runs in turns, so that what else the machine does falls on all; the least of each."""
    found, until_s = Found(), parse_duration(size.until)
    scenarios = policies(find(size.scenario), found.skipped)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for driver in DRIVERS:  # imports, and what is kept between runs, are the section 'start'
            say(f"warming up: {driver}")
            warm_s = min(until_s, 1800.0)
            for scenario in scenarios.values():
                one_day(scenario, driver, warm_s, folder / "warm.h5")
        for policy, scenario in scenarios.items():
            _measure_policy(size, policy, scenario, until_s, folder, found, say)
    return found


def _measure_policy(size: Size, policy: str, scenario: Scenario, until_s: float, folder: Path, found: Found,
                    say: Say) -> None:
    runs: dict[str, list[dict[str, float]]] = {driver: [] for driver in DRIVERS}
    for k in range(size.repeats):
        for driver in DRIVERS:
            say(f"{size.scenario}, {size.until}, {policy}, {driver}: {k + 1} of {size.repeats}")
            with noted_dispatches() as noted:
                runs[driver].append(one_day(scenario, driver, until_s, folder / "day.h5"))
    say("floors: bare SimPy, Gurobi, Clarabel, h5py")
    floor, facts = floors(folder / "day.h5", Problems(noted), folder, size.repeats)
    found.skipped += facts["skipped"]
    head, rows, members = f"{size.scenario} {size.until} {policy}", [], []
    for driver, taken in runs.items():
        best = min(taken, key=lambda one: one["total"])
        spread = timing([one["total"] for one in taken]).spread
        ratio = best["total"] / floor["floors"]
        rows.append((driver, number(best["total"]), *(number(best[part]) for part in PARTS), f"{ratio:.2f}",
                     f"{spread:.2f}"))
        members.append((driver, *(number(v) for k, v in best.items() if k.startswith("member "))))
        names = [k.removeprefix("member ") for k in best if k.startswith("member ")]
        found.figures |= {f"{head} {driver}: {part}, CPU s": best[part] for part in ("total", *PARTS)}
        found.figures |= {f"{head} {driver}: {name} with its start, CPU s": best[f"member {name}"] for name in names}
        found.figures[f"{head} {driver}: simulated days per CPU s"] = until_s / 86400.0 / best["total"]
        found.figures[f"{head} {driver}: largest of {size.repeats} runs, times the least"] = spread
        found.ratios[f"{head} {driver}: times its floors"] = ratio
    found.figures |= {f"{head} floor: {name}, CPU s": value for name, value in floor.items()}
    found.figures |= {f"{head} floor: {name}": facts[name] for name in ("events", "problems")}
    about = (f"floors {number(floor['floors'])} CPU s: SimPy {number(floor['SimPy'])} ({facts['events']:,} events), "
             f"{facts['solver'] or 'no solver'} {number(floor.get(facts['solver'], 0.0))} ({facts['problems']} conic "
             f"problems), h5py {number(floor['h5py'])} ({facts['mib']:.1f} MiB of arrays)")
    other = [f"{name} {number(floor[name])}" for name in SOLVERS if name in floor and name != facts["solver"]]
    about += f"; the same problems by {other[0]}" if other else ""
    found.tables += [
        Table(f"{head}: CPU s, least of {size.repeats} runs", ("driver", "total", *PARTS, "times floors", "spread"),
              rows, about),
        Table(f"{head}: CPU s by member, its start included", ("driver", *names), members)]
