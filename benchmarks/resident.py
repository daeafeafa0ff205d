"""Memory of this process, MiB resident: now, and at most so far."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def now_mib() -> float:
    """Now; NaN where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return float("nan")


def peak_mib() -> float:
    """At most so far."""
    try:  # getrusage would count the process that started this one, as it was then
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
