"""Ten million requests a day at ten sites in one process: CPU seconds and memory, with and without the job log.

Two kinds: `inf`, a job on its own GPU, at sites of 400 and of 40 000 GPUs (77 % of them in use, so that a job takes
26 s or 44 min), and `llm`, code completion on Llama-3.1-8B, one H100 a replica. Intensities come from a table: a feeder
of 33 buses does not carry such sites. Each row is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Found, Say, Size, cpu_clock, cpu_s, number
from benchmarks.resident import now_mib, peak_mib
from cosim.digest import Table
from cosim.experiment import Experiment
from cosim.scenario import Scenario
from cosim.scenarios import intensity_series, llm_day
from cosim.units import HOUR_S, MIN_S

SITES, PER_DAY, LOAD = 10, 10_000_000, 0.77
PER_MIN = PER_DAY / 1440.0
KINDS = {"inf, 400 GPUs a site": 400, "inf, 40 000 GPUs a site": 40_000, "llm, 400 GPUs a site": 400}


def day(kind: str, gpus: int, job_log: bool, folder: Path) -> Scenario:
    """The scenario; its table of intensities is put into `folder`."""
    table = folder / "intensity.csv"
    table.write_text("datetime,intensity\n2026-01-01T00:00:00,300\n2026-01-02T00:00:00,300\n", encoding="utf-8")
    held_s = LOAD * SITES * gpus * MIN_S / PER_MIN
    inf: dict[str, Any] = {"kind": "inf", "work_to": held_s, "deadline_s": 900.0, "to_per_gpu_min": 60.0,
                           "kw_per_to_s": 0.7}
    serves = kind.startswith("llm")
    old = intensity_series.SCENARIO
    members = dict(old.members)
    series = {"path": str(table), "time_column": "datetime", "column": "intensity", "unit": "g_per_kwh"}
    given = {"workload": {"arrivals": {"request": {"mean_per_min": PER_MIN}}}, "grid": series,
             "controller": {"policy": "uniform", "drain_min": 1.0}, "aidc": {"job_log": job_log}}
    for name, new in given.items():
        params = {} if name in ("workload", "aidc") else members[name].params
        members[name] = members[name].model_copy(update={"params": {**params, **new}})
    if serves:
        members["aidc"] = members["aidc"].model_copy(update={"simulator": llm_day.SCENARIO.members["aidc"].simulator})
    sites = {f"aidc{k + 1}": {"node": 1 + k, "racks": gpus // 8} for k in range(SITES)}
    shared = {**old.shared, "sites": sites, "job_classes": {"request": llm_day.REQUESTS["code"] if serves else inf},
              **({"routing": "arrival"} if serves else {})}
    return old.replace(name="scale", shared=shared, members=members, preflight=None)


def run_here(kind: str, log: bool, hours: float) -> dict[str, float]:
    """CPU s and MiB of one run in this process."""
    gpus = KINDS[kind]
    with tempfile.TemporaryDirectory() as name, cpu_clock():
        scenario, out = day(kind, gpus, log, Path(name)), Path(name) / "run.h5"
        at_start: list[float] = []

        def first(time: int, last: int) -> None:
            if not at_start:
                at_start.append(now_mib())
        begin = cpu_s()
        result = Experiment(scenario, "native", hours * HOUR_S, out, on_progress=first).run()
        spent = cpu_s() - begin
        requests = sum(result.figures[f"{what}_request_jobs"] for what in ("finished", "dropped", "unfinished"))
        return {"cpu_s": spent, "run_s": result.wall_s["total"], **{
            name: s for name, s in result.wall_s.items() if name.startswith("member ") or name in ("bus", "trace")},
            "requests": requests, "start_mib": at_start[0], "end_mib": now_mib(), "peak_mib": peak_mib(),
            "file_mib": out.stat().st_size / 2**20}


def in_a_process(kind: str, log: bool, hours: float) -> dict[str, float]:
    """`run_here` in a fresh process. RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-m", __name__, kind, "log" if log else "no log", str(hours)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind} failed: {(done.stderr.strip() or 'no word').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: Size, say: Say) -> Found:
    """A row per kind and log; a part of the day, but for `full`."""
    found, rows = Found(), []
    hours = 24.0 if size.full else 0.25 if size.quick else 2.0
    for kind in KINDS:
        peaks = {}
        for log in (True, False):
            what = f"{kind}, {'with' if log else 'without'} the job log"
            say(f"{what}, {hours:g} h")
            took = in_a_process(kind, log, hours)
            per_s = took["requests"] / took["cpu_s"]
            peaks[log] = took["peak_mib"]
            rows.append((what, number(took["requests"]), number(took["cpu_s"]), number(per_s),
                         *(number(took[f"{part}_mib"]) for part in ("start", "end", "peak", "file"))))
            found.figures |= {f"{what}: requests per CPU s": per_s, f"{what}: peak, MiB": took["peak_mib"],
                              f"{what}: CPU s": took["cpu_s"], f"{what}: requests": took["requests"]}
        found.ratios[f"{kind}: peak with the job log, times that without"] = peaks[True] / peaks[False]
    found.tables.append(Table(f"{PER_DAY:,} requests a day at {SITES} sites, {hours:g} h of it".replace(",", " "), (
        "run", "requests", "CPU s", "requests per CPU s", "MiB at the start", "end", "peak", "trace"), rows,
        "with a trace and the summary; requests that arrived"))
    return found


if __name__ == "__main__":
    print(json.dumps(run_here(sys.argv[1], sys.argv[2] == "log", float(sys.argv[3]))))
