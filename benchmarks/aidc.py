"""Speed of the data-centre simulator: python -m benchmarks.aidc [PART ...] [--minutes N] [--jobs N] [--json FILE]

Parts, all but `day` unless some are named:

rates   The inference path of one site alone, jobs a second: a day of 1000 jobs a minute on 400 GPUs at 77 % load, by
        minutes, with times of arrival inside them; sizes all equal, as in Table I, and all different, as in a trace;
        and with a queue that never empties and drops (load 130 %). Beside them, in the same run, SimPy's own floor: one
        plain event per arrival and one per departure, and nothing else.
sites   CPU time of a minute of the whole adapter as sites grow, 1 to 100, at the same load per site: linear.
gpus    Jobs a second as a site grows from 400 to 40 000 GPUs, at the same load per GPU: up to ten million jobs a day.
memory  The peak of Python's memory while 40 and 400 thousand jobs go through: it does not grow with them.
day     Ten million jobs (--jobs) through a site of 40 000 GPUs, some minutes: memory of the process along the way.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import numpy as np
import simpy

sys.path.insert(0, str(Path(__file__).parents[1]))

from cosim.simulators.aidc.adapter import DataCenters  # noqa: E402
from cosim.simulators.aidc.engine.facility import Facility  # noqa: E402
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site  # noqa: E402

MIN_S, GPUS, JOBS_PER_MIN, REPEATS = 60.0, 400, 1000, 3
LARGE_GPUS, LARGE_JOBS_PER_MIN = 40_000, 6945  # 10 000 800 jobs a day
SIZES = (400, 4_000, 40_000)
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


def site_of(gpus: int) -> Facility:
    """A site of so many GPUs, empty, all of them granted to the one class."""
    return Facility("site", Site(node=0, racks=gpus // 8, gpus_per_rack=8), CLASSES, CORRECTED, 23.0)


def jobs_per_s(gpus: int, jobs: int) -> float:
    """Rate of a facility of so many GPUs at 77 % load, all sizes, from when it is full on; making jobs not counted."""
    best, per_min = float("inf"), round(LARGE_JOBS_PER_MIN * gpus / LARGE_GPUS)
    warm = 20  # a job takes 4.4 min on average
    count = max(jobs // per_min, 10)
    for _ in range(REPEATS):
        site, spent_s = site_of(gpus), 0.0
        for k, (batch, _) in enumerate(minutes(warm + count, 0.77, False, 0, gpus, per_min)):
            begin = process_time()
            site.submit(batch)
            site.command([gpus], 23.0)
            site.advance((k + 1) * MIN_S)
            site.read_interval()
            spent_s += process_time() - begin if k >= warm else 0.0
        best = min(best, spent_s)
    return count * per_min / best


def day(jobs: int) -> dict[str, float]:
    """Memory of this process, MiB, at each tenth of so many jobs, and jobs a second over all, their making included."""
    site, out, count = site_of(LARGE_GPUS), {}, -(-jobs // LARGE_JOBS_PER_MIN)
    begin = process_time()
    for k, (batch, _) in enumerate(minutes(count, 0.77, False, 0, LARGE_GPUS, LARGE_JOBS_PER_MIN)):
        site.submit(batch)
        site.command([LARGE_GPUS], 23.0)
        site.advance((k + 1) * MIN_S)
        site.read_interval()
        site.state()
        if (k + 1) * 10 // count > k * 10 // count:
            out[f"{(k + 1) * LARGE_JOBS_PER_MIN} jobs: MiB"] = resident_mib()
    return out | {"day: jobs/s": count * LARGE_JOBS_PER_MIN / (process_time() - begin)}


def resident_mib() -> float:
    """Memory that this process holds now; where the system does not tell, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


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


def rates(count: int) -> dict[str, float]:
    """Jobs a second, SimPy's, and the ratio."""
    jobs, out = count * JOBS_PER_MIN, {}
    for name, load, equal in (("equal sizes", 0.77, True), ("all sizes", 0.77, False), ("overload", 1.3, False)):
        ours = min(facility_s(count, load, equal) for _ in range(REPEATS))
        least = min(floor_s(count, load, equal) for _ in range(REPEATS))
        out |= {f"{name}: jobs/s": jobs / ours, f"{name}: SimPy floor, jobs/s": jobs / least,
                f"{name}: times the floor": ours / least}
    return out


PARTS = {
    "rates": lambda given: rates(given.minutes),
    "sites": lambda given: {f"{n} sites: ms a minute": sites_ms(n) for n in (1, 3, 10, 30, 100)},
    "gpus": lambda given: {f"{n} GPUs: jobs/s": jobs_per_s(n, given.minutes * JOBS_PER_MIN) for n in SIZES},
    "memory": lambda given: {f"{n * JOBS_PER_MIN} jobs: peak MiB": peak_mib(n) for n in (40, 400)},
    "day": lambda given: day(given.jobs),
}


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description="speed of the data-centre simulator against SimPy's floor")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all but day")
    parser.add_argument("--minutes", type=int, default=200, help="minutes of 1000 jobs for the rates")
    parser.add_argument("--jobs", type=int, default=10_000_000, help="jobs of part day")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    figures: dict[str, float] = {}
    for part in given.parts or [part for part in PARTS if part != "day"]:
        found = PARTS[part](given)
        for name, value in found.items():
            print(f"{name:40} {value:12,.2f}", flush=True)
        figures |= found
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
