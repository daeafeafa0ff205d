"""What a process costs before it computes: imports, --help, --list, --show, a run of one minute."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from benchmarks.measure import Found, Say, Size, child_s, least, number
from cosim.digest import Table
from cosim.trust import available

REFERENCE = "import numpy"
"""What every start is compared with: the interpreter and numpy."""


def rows(size: Size, folder: Path) -> dict[str, list[str]]:
    """Name -> arguments of Python."""
    run = ["-m", "cosim.run"]
    out = ["--until", "1min", "--quiet", "--force", "--out", str(folder / "start.h5")]
    imports = ["import cosim.run"]
    if not size.quick:
        if size.scenario in available():
            imports.append(f"import cosim.experiment, cosim.scenarios.{size.scenario}")
        imports += [f"import {name}" for name in ("pandapower", "torch", "numba") if importlib.util.find_spec(name)]
    found = {"python": ["-c", "pass"], REFERENCE: ["-c", REFERENCE], **{text: ["-c", text] for text in imports},
             "--help": [*run, "--help"], "--list": [*run, "--list"],
             f"{size.scenario} --show": [*run, size.scenario, "--show"],
             f"{size.scenario}, 1 min, mosaik": [*run, size.scenario, *out]}
    if not size.quick:
        found[f"{size.scenario}, 1 min, native"] = [*run, size.scenario, "--driver", "native", *out]
        found["two_bus, 1 min, mosaik"] = [*run, "two_bus", *out]
    return found


def measure(size: Size, say: Say) -> Found:
    """CPU seconds of whole processes, the least of each after a first one, which leaves compiled modules behind: they
    are there where the framework is installed, whatever this shell says of writing bytecode."""
    found, lines, repeats = Found(), [], 1 if size.quick else size.repeats
    with tempfile.TemporaryDirectory() as name:
        took, env = {}, {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(name) / "compiled")}
        for what, arguments in rows(size, Path(name)).items():
            say(f"starting: {what}")
            child_s(arguments, env)
            took[what] = least(lambda arguments=arguments: child_s(arguments, env), repeats)
    reference_s = took[REFERENCE].least_s
    for what, one in took.items():
        ratio = one.least_s / reference_s
        lines.append((what, number(one.least_s), f"{ratio:.1f}", f"{one.spread:.2f}"))
        found.figures[f"{what}: CPU s"] = one.least_s
        if what not in ("python", REFERENCE) and not what.startswith(("import pandapower", "import torch",
                                                                      "import numba")):
            found.ratios[f"{what}: times '{REFERENCE}'"] = ratio
    found.tables.append(Table(f"Starting: CPU s of a process, least of {repeats}",
                              ("process", "CPU s", f"times '{REFERENCE}'", "spread"), lines))
    return found
