"""The data centers alone: jobs a second of a site beside bare SimPy, memory over jobs, and the compiled engine.

Jobs come 1000 a minute on 400 GPUs at 77 % load, with times of arrival inside the minute; sizes all equal, as in Table
I, and all different, as in a trace; and with a queue that never empties and drops (load 130 %).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from time import process_time

import numpy as np

from benchmarks import compiled
from benchmarks.floors import MIN_S, simpy_s
from benchmarks.measure import Found, Say, Size, least, number
from cosim.collector import few_collections
from cosim.digest import Table
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.fleet import JobClass, Site

GPUS, JOBS_PER_MIN = 400, 1000
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


def cost_s(gpus: int, count: int) -> float:
    """CPU s of a minute of a facility of so many GPUs at 77 % load, all sizes, from when it is full on."""
    per_min, warm = round(LARGE_JOBS_PER_MIN * gpus / LARGE_GPUS), 20  # a job takes 4.4 min on average
    site, spent_s = site_of(gpus), 0.0
    for k, (batch, _) in enumerate(minutes(warm + count, 0.77, False, 0, gpus, per_min)):
        begin = process_time()
        site.submit(batch)
        site.command([gpus], 23.0)
        site.advance((k + 1) * MIN_S)
        site.read_interval()
        spent_s += process_time() - begin if k >= warm else 0.0
    return spent_s / count


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


def floor_s(count: int, load: float, equal: bool) -> float:
    """CPU s of bare SimPy for an arrival and a departure per job, all of them served at once."""
    batches = list(minutes(count, load, equal))
    arrival_s = np.concatenate([np.array(batch["arrival_s"]) for batch, _ in batches]) + MIN_S
    return simpy_s(arrival_s, arrival_s + np.concatenate([service_s for _, service_s in batches]))[0]


CASES = {"equal sizes": (0.77, True), "all sizes": (0.77, False), "overload": (1.3, False)}


def _sites(found: Found, size: Size, say: Say) -> None:
    """Jobs a second of sites of several sizes, each with as many jobs per GPU."""
    rows, rate = [], {}
    for gpus in SIZES:
        say(f"a site of {gpus} GPUs: all sizes")
        count = max(10, (2000 if size.quick else 20_000) // (gpus // 20))
        per_min = round(LARGE_JOBS_PER_MIN * gpus / LARGE_GPUS)
        took = least(lambda gpus=gpus, count=count: cost_s(gpus, count), size.repeats)
        rate[gpus] = per_min / took.least_s
        rows.append((f"{gpus:,}".replace(",", " "), f"{per_min}", number(rate[gpus]), f"{took.spread:.2f}"))
        found.figures[f"a site of {gpus} GPUs, all sizes: jobs per CPU s"] = rate[gpus]
    few, many = SIZES[0], SIZES[-1]
    found.ratios[f"a site: jobs a second of {few} GPUs, times those of {many}"] = rate[few] / rate[many]
    found.tables.append(Table("A site by its GPUs, all sizes of jobs", ("GPUs", "jobs a minute", "jobs per CPU s",
                                                                        "spread"), rows))


def measure(size: Size, say: Say) -> Found:
    """Rates, memory, and the compiled engine where it is installed."""
    found, rows, count = Found(), [], 20 if size.quick else 200
    with few_collections():
        _sites(found, size, say)
    for name, (load, equal) in CASES.items():
        say(f"a site of {GPUS} GPUs: {name}")
        ours = least(lambda load=load, equal=equal: facility_s(count, load, equal), size.repeats)
        bare = least(lambda load=load, equal=equal: floor_s(count, load, equal), size.repeats)
        jobs, ratio = count * JOBS_PER_MIN, ours.least_s / bare.least_s
        rows.append((name, number(jobs / ours.least_s), number(jobs / bare.least_s), f"{ratio:.2f}",
                     f"{max(ours.spread, bare.spread):.2f}"))
        found.figures |= {f"a site, {name}: jobs per CPU s": jobs / ours.least_s,
                          f"a site, {name}: bare SimPy, jobs per CPU s": jobs / bare.least_s}
        found.ratios[f"a site, {name}: times bare SimPy"] = ratio
    found.tables.append(Table(f"A site of {GPUS} GPUs, {JOBS_PER_MIN} jobs a minute: jobs per CPU s",
                              ("jobs", "here", "bare SimPy", "times the floor", "spread"), rows))
    say("a site: memory over jobs")
    few, many = (peak_mib(n) for n in ((5, 20) if size.quick else (40, 400)))
    found.figures |= {"a site, few jobs: peak of Python, MiB": few, "a site, many jobs: peak of Python, MiB": many}
    found.ratios["a site: peak of Python's memory over many jobs, times that over few"] = many / few
    compiled.add(found, size, say)
    return found
