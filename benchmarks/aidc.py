"""Speed of the data-centre simulator: python benchmarks/aidc.py [--json FILE]

1. The inference path of one site alone, jobs a second: a day of 1000 jobs a minute on 400 GPUs at 77 % load, by
   minutes, with times of arrival inside them; sizes all equal, as in Table I, and all different, as in a trace. Beside
   it, in the same run, SimPy's own floor: one plain event per arrival and one per departure, and nothing else.
2. The same with a queue that never empties and drops (load 130 %).
3. Cost of a minute of the whole adapter as sites grow, 1 to 100, at the same load per site; it should be linear.
4. A large site: 40 000 GPUs and ten million jobs a day, jobs a second and memory.
5. Memory: the peak while 40 and 400 thousand jobs go through; it should not grow with them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import process_time

import numpy as np
import simpy

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulators.aidc.adapter import DataCenters  # noqa: E402
from simulators.aidc.equations import CORRECTED  # noqa: E402
from simulators.aidc.facility import Facility  # noqa: E402
from simulators.fleet import JobClass, Site  # noqa: E402

MIN_S, GPUS, JOBS_PER_MIN, REPEATS = 60.0, 400, 1000, 3
LARGE_GPUS, LARGE_JOBS_PER_MIN = 40_000, 6945  # 10 000 800 jobs a day
SITE = Site(node=0, racks=50, gpus_per_rack=8)
CLASSES = {"request": JobClass(kind="inf", work_to=1.0, deadline_s=300.0, to_per_gpu_min=60.0, kw_per_to_s=0.7)}


def minutes(count: int, load: float, equal: bool, seed: int = 0, gpus: int = GPUS,
            per_min: int = JOBS_PER_MIN) -> Iterator[tuple[dict[str, list], np.ndarray]]:
    """Batches of one minute each, and the same jobs' service times, s; work in TO is service time in s."""
    rng = np.random.default_rng(seed)
    mean_s = load * gpus * MIN_S / per_min
    for k in range(count):
        arrival_s = np.sort(rng.random(per_min)) * MIN_S + (k - 1) * MIN_S
        service_s = np.full(per_min, mean_s) if equal else rng.exponential(mean_s, per_min)
        yield {
            "id": list(range(k * per_min, (k + 1) * per_min)),
            "job_class": ["request"] * per_min,
            "arrival_s": arrival_s.tolist(),
            "work_to": service_s.tolist(),
            "deadline_s": (arrival_s + 300.0).tolist(),
        }, service_s


def facility_s(count: int, load: float, equal: bool) -> float:
    """CPU seconds of the facility for so many minutes; making the batches is not counted."""
    batches = [batch for batch, _ in minutes(count, load, equal)]
    site = Facility("site", SITE, CLASSES, CORRECTED, 23.0)
    begin = process_time()
    for k, batch in enumerate(batches):
        site.submit(batch)
        site.command([GPUS], 23.0)
        site.advance((k + 1) * MIN_S)
        site.read_interval()
        site.state()
    return process_time() - begin


def large_site(count: int) -> tuple[float, float]:
    """CPU seconds of a facility of `LARGE_GPUS` for so many minutes at 77 % load, and the largest memory, MiB."""
    best = float("inf")
    for traced in (False, False, True):
        site = Facility("site", Site(node=0, racks=LARGE_GPUS // 8, gpus_per_rack=8), CLASSES, CORRECTED, 23.0)
        spent_s = 0.0
        if traced:
            tracemalloc.start()
        for k, (batch, _) in enumerate(minutes(count, 0.77, False, 0, LARGE_GPUS, LARGE_JOBS_PER_MIN)):
            begin = process_time()
            site.submit(batch)
            site.command([LARGE_GPUS], 23.0)
            site.advance((k + 1) * MIN_S)
            site.read_interval()
            spent_s += process_time() - begin
        best = best if traced else min(best, spent_s)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return best, peak / 2**20


def floor_s(count: int, load: float, equal: bool) -> float:
    """SimPy alone: one event with a callback per arrival, which sets off one per departure, with a callback."""
    arrivals = [(np.array(b["arrival_s"]) + MIN_S, s) for b, s in minutes(count, load, equal)]
    env, left = simpy.Environment(), []

    def depart(event: simpy.Event) -> None:
        left.append(event.value)

    def arrive(event: simpy.Event) -> None:
        env.timeout(event.value, event.value).callbacks.append(depart)

    plan = [(at.tolist(), service.tolist()) for at, service in arrivals]
    begin = process_time()
    for at, service in plan:
        now_s = env.now
        for a, s in zip(at, service, strict=True):
            env.timeout(max(a - now_s, 0.0), s).callbacks.append(arrive)
        until_s = now_s + MIN_S
        while env.peek() <= until_s:
            env.step()
        env.timeout(until_s - env.now)
        env.step()
    return process_time() - begin


def sites_ms(sites: int, count: int = 30) -> float:
    """CPU milliseconds of one minute of the adapter with so many sites of 1000 jobs a minute each."""
    names = [f"site{k}" for k in range(sites)]
    member = DataCenters()
    job_classes = {"request": {"kind": "inf", "work_to": 1.0, "deadline_s": 300.0, "to_per_gpu_min": 60.0,
                               "kw_per_to_s": 0.7}}
    member.init("aidc", time_resolution=60.0, step_s=60.0, job_classes=job_classes,
                sites={name: {"node": 0} for name in names})
    member.create(sites, "Site", names=names)
    member.setup_done()
    spent_s = 0.0
    for k, (batch, _) in enumerate(minutes(count, 0.77, True)):
        inputs = {name: {"jobs": {"c": {c: list(v) for c, v in batch.items()}}, "gpus": {"c": [float(GPUS)]},
                         "supply_temp_degc": {"c": 23.0}} for name in names}
        begin = process_time()
        member.step(k, inputs, 10**9)
        spent_s += process_time() - begin
    return 1e3 * spent_s / count


def peak_mib(count: int) -> float:
    """Largest memory while so many minutes of jobs go through, their rows read and let go, MiB."""
    tracemalloc.start()
    site = Facility("site", SITE, CLASSES, CORRECTED, 23.0)
    for k, (batch, _) in enumerate(minutes(count, 0.77, False)):
        site.submit(batch)
        site.command([GPUS], 23.0)
        site.advance((k + 1) * MIN_S)
        site.read_interval()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def measure(count: int) -> dict[str, float]:
    """All figures by name."""
    jobs, out = count * JOBS_PER_MIN, {}
    for name, load, equal in (("equal sizes", 0.77, True), ("all sizes", 0.77, False), ("overload", 1.3, False)):
        ours = min(islice((facility_s(count, load, equal) for _ in iter(int, 1)), REPEATS))
        least = min(islice((floor_s(count, load, equal) for _ in iter(int, 1)), REPEATS))
        out |= {f"{name}: jobs/s": jobs / ours, f"{name}: SimPy floor, jobs/s": jobs / least,
                f"{name}: times the floor": ours / least}
    large_s, large_mib = large_site(max(count // 4, 10))
    out |= {"large site: jobs/s": max(count // 4, 10) * LARGE_JOBS_PER_MIN / large_s, "large site: peak MiB": large_mib}
    for sites in (1, 3, 10, 30, 100):
        out[f"{sites} sites: ms a minute"] = sites_ms(sites)
    out |= {f"{n * JOBS_PER_MIN} jobs: peak MiB": peak_mib(n) for n in (40, 400)}
    return out


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description="speed of the data-centre simulator against SimPy's floor")
    parser.add_argument("--minutes", type=int, default=200, help="minutes of 1000 jobs for the rates")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    figures = measure(given.minutes)
    for name, value in figures.items():
        sys.stdout.write(f"{name:40} {value:12,.2f}\n")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
