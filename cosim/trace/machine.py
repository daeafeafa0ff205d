"""What the last bits of a number depend on: versions, processor, library of linear algebra; what to expect of a run
where these are others.

The same scenario and seed give the same bytes where all of them are the same. Elsewhere a number may differ by what
`tolerance` states, and a policy that stands between two choices may then choose otherwise, which no tolerance covers.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy

from cosim.errors import cut

_VERSIONS_OF = ("aidc-cosim", "mosaik", "mosaik-api-v3", "simpy", "pandapower", "gurobipy", "clarabel",
                "opendssdirect.py", "numpy", "scipy", "torch", "h5py", "pydantic")
MACHINE = ("cpu", "blas")
"""Of the names of `versions`: what is the machine's, and no package's."""
OTHER_MACHINE = 1e-9
"""What other kernels leave alike: values differ by up to 1e-13, residuals are differences of such."""
OTHER_VERSIONS = 1e-6
"""What another version of a solver leaves alike: interior-point methods stop that near to the optimum."""


class Tolerance(NamedTuple):
    """Two numbers agree when they differ by no more than `share` of the larger or `share` of their unit.

    Counts of jobs and GPUs, states, names, job ids and the times of samples agree only when they are equal.
    why: what else than the numbers is otherwise, in words
    """

    share: float
    why: str = ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make the numbers, and what of the processor the last bits depend on:
    its model and vector instructions, and the library of linear algebra with the kernel that a user chose for it."""
    out = {"python": platform.python_version()}
    out |= {package: _version(package) for package in _VERSIONS_OF}
    built = numpy.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    out["cpu"] = " ".join([platform.machine(), _model(), *built.get("SIMD Extensions", {}).get("found", [])])
    out["blas"] = " ".join([blas.get("name", "unknown"), blas.get("version", ""),
                            os.environ.get("OPENBLAS_CORETYPE", "")]).strip()
    return out


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def tolerance(first: Mapping[str, Any], second: Mapping[str, Any]) -> Tolerance | None:
    """What two runs may differ by, from their traces' root attributes; None where both ran on the same machine with the
    same versions, and have to be equal."""
    one, other = (_recorded(attrs) for attrs in (first, second))
    if not (one and other):
        return Tolerance(OTHER_VERSIONS, "one of them does not say on what machine and with which versions it was made")
    names = [n for n in {**one, **other} if one.get(n) != other.get(n)]
    if not names:
        return None
    why = ", ".join(f"{n} {cut(one.get(n, 'unknown'))} and {cut(other.get(n, 'unknown'))}" for n in names)
    return Tolerance(OTHER_MACHINE if set(names) <= set(MACHINE) else OTHER_VERSIONS, why)


def _recorded(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Versions recorded in a trace; {} where they are missing or unreadable."""
    try:
        found = json.loads(str(attrs.get("versions", "")))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _model() -> str:
    """The processor's name; solvers choose their kernels by more than its vector instructions."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
