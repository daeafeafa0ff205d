"""Memory of a run, with and without its trace: MiB resident at its end and at most."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import ROOT, Found, Say, Size, number
from cosim.digest import Table

_RUN = """
import json, sys
from pathlib import Path
from benchmarks.resident import now_mib, peak_mib
from cosim.experiment import Experiment
from cosim.run import find
from cosim.units import parse_duration

scenario, driver, until, out = sys.argv[1:]
at_start, until_s = [], parse_duration(until)
def first(time, last):
    if not at_start:
        at_start.append(now_mib())
scenario = find(scenario)
if out == "-":
    scenario = scenario.replace(summary=None)
run = Experiment(scenario, driver, until_s, None if out == "-" else Path(out), on_progress=first)
run.run()
print(json.dumps({"start": at_start[0], "end": now_mib(), "peak": peak_mib()}))
"""


def resident_mib(scenario: str, driver: str, until: str, out: Path | None) -> dict[str, float]:
    """MiB of a process that runs a scenario: at its first step, at its end, at most. RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-c", _RUN, scenario, driver, until, str(out or "-")], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a run of {scenario} failed: {(done.stderr.strip() or 'no word').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: Size, say: Say) -> Found:
    """One process per row."""
    found, rows = Found(), []
    spans = [size.until, *(["6d"] if size.full else [])]
    with tempfile.TemporaryDirectory() as name:
        for until in spans:
            took = {}
            for traced in (False, True):
                say(f"memory: {size.scenario}, {until}, {'with' if traced else 'without'} a trace")
                took[traced] = mib = resident_mib(size.scenario, "native", until,
                                                  Path(name) / f"{until}.h5" if traced else None)
                what = f"{size.scenario} {until} native, {'with' if traced else 'without'} a trace"
                rows.append((what, *(number(mib[k]) for k in ("start", "end", "peak"))))
                found.figures |= {f"{what}: {k}, MiB": mib[k] for k in mib}
            found.ratios[f"{size.scenario} {until}: peak with a trace, times that without"] = \
                took[True]["peak"] / took[False]["peak"]
            found.ratios[f"{size.scenario} {until} with a trace: end, times the start"] = \
                took[True]["end"] / took[True]["start"]
    found.tables.append(Table("Memory: MiB resident", ("run", "first step", "end", "peak"), rows))
    return found
