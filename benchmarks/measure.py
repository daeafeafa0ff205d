"""What the sections share: the CPU clock, repeats with their spread, exponents of growth, and what a section found."""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cosim.digest import Table

ROOT = Path(__file__).parents[1]
Say = Callable[[str], None]
"""Reports what is measured next."""


@dataclass(frozen=True)
class Size:
    """How much is measured. `name` is quick, normal or full; a baseline holds for one of them."""

    name: str = "normal"
    scenario: str = "ieee33"
    until: str = "24h"
    repeats: int = 3
    device: str = "cpu"
    workers: int = 0
    peers_python: str = sys.executable
    torch_compile: bool = False

    @property
    def full(self) -> bool:
        """Whether the long rows are measured too."""
        return self.name == "full"

    @property
    def quick(self) -> bool:
        """Whether everything is cut down to a minute."""
        return self.name == "quick"


@dataclass
class Found:
    """What a section found. figures: name with its unit -> value; ratios: name -> a figure in units of a floor or of a
    reference measured beside it, the smaller the better: what two machines can be compared by."""

    tables: list[Table] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def cpu_s() -> float:
    """CPU seconds, user and system, of this process and of those of its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Within it the framework's own split of a run (`Result.wall_s`, the steps of a training) counts CPU seconds of
    this process: every loaded module of `cosim` that reads `perf_counter` reads `process_time`."""
    modules = [m for name, m in list(sys.modules.items()) if name.partition(".")[0] == "cosim"
               and getattr(m, "perf_counter", None) is time.perf_counter]
    for module in modules:
        module.perf_counter = time.process_time
    try:
        yield
    finally:
        for module in modules:
            module.perf_counter = time.perf_counter


@dataclass(frozen=True)
class Timing:
    """The least of several repeats, s (other programs only ever add time), and the largest in units of it."""

    least_s: float
    spread: float


def least(call: Callable[[], float | None], repeats: int) -> Timing:
    """`call` some times. It returns its CPU seconds, or None to have them counted here."""
    spent = []
    for _ in range(repeats):
        gc.collect()
        begin = cpu_s()
        own = call()
        spent.append(cpu_s() - begin if own is None else own)
    return timing(spent)


def timing(spent: Sequence[float]) -> Timing:
    """Of repeats that were measured elsewhere."""
    return Timing(min(spent), max(spent) / min(spent) if min(spent) > 0 else 1.0)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """(b, r2) of costs = a sizes^b: least squares of the logarithms, and the share of their variance explained."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(costs, float))
    slope, offset = np.polyfit(x, y, 1)
    left, all_of_it = y - slope * x - offset, y - y.mean()
    return float(slope), float(1.0 - (left @ left) / (all_of_it @ all_of_it)) if all_of_it @ all_of_it > 0 else 1.0


def child_s(arguments: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """CPU seconds of a Python process with these arguments, from its start to its end, its output dropped.

    RuntimeError with its last line of error where it does not exit with 0.
    """
    begin = cpu_s()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, **(env or {})}, check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}: "
                           f"{(done.stderr.strip() or 'no word').splitlines()[-1]}")
    return cpu_s() - begin


def machine() -> str:
    """The machine and the Python that figures are of."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if not np.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}" \
        if abs(value) >= 1e-3 else f"{value:.1e}" if value else "0"
