"""Are the lower bounds in setup.cfg true? Installs exactly those versions and runs what touches them.

    python tests/lowest.py              # what everybody installs
    python tests/lowest.py learn plot   # the same with these extras, an environment for each
    python tests/lowest.py all          # everything
    python tests/lowest.py --list all   # installs nothing: the lowest versions, as a list of requirements

Each environment is a fresh one in a temporary folder, with a copy of the source, so that nothing is written here. The
interpreter that runs this is the one that is tried. Every package of the list stands at its lower bound, with a wheel
and not yanked; what those packages need in turn is chosen by pip. Then a part of the suite runs, in which no test may
be skipped and every package of the list has to be imported. It needs a package index; an environment takes 0.7 GB (the
extras `learn` and `test` 6 GB on Linux, where torch comes with CUDA) and some minutes. Exit code 0: the bounds are
true; 1: one of them is not.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CORE = "core"
RUNNERS = ("hypothesis", "packaging", "pytest", "pytest-xdist")
"""Of the extra `test`: what any part of the suite takes."""
LEFT = (".git", ".venv", "__pycache__", "*.egg-info", ".hypothesis", ".*_cache", "build", "dist", "site")
"""Not copied."""

SUBSETS = {
    CORE: ("tests/scenarios/test_two_bus.py", "tests/cosim/test_scenario.py", "tests/cosim/test_recording.py",
           "tests/cosim/test_live.py", "tests/agents/test_pretrained.py", "tests/simulators/aidc/test_aidc_thermal.py",
           "tests/simulators/grid/test_grid_horizon.py", "tests/simulators/grid/test_grid_surplus.py",
           "tests/simulators/grid/test_grid_ac.py", "tests/simulators/test_report_sites.py"),
    "audit": ("tests/test_bounds.py::test_the_list_is_one_that_an_audit_takes",),
    "browser": ("tests/cosim/test_report_browser.py",),
    "docs": ("tests/test_docs.py::test_the_site_builds_without_a_warning",),
    "excel": ("tests/simulators/grid/test_grid_netscan.py", "tests/simulators/grid/test_grid_network.py"),
    "fast": ("tests/simulators/aidc/test_compiled.py",),
    "learn": ("tests/agents/test_ppo.py", "tests/agents/test_acting.py", "tests/cosim/test_parallel.py",
              "tests/agents/test_training.py::test_tensorboard_has_the_figures_of_the_log"),
    "opendss": ("tests/simulators/grid/test_grid_opendss.py", "tests/simulators/grid/test_grid_dssscan.py"),
    "pandapower2": ("tests/scenarios/test_foreign_grid.py",),
    "parquet": ("tests/cosim/test_table.py", "tests/simulators/workload/test_workload_tasks.py"),
    "plot": ("tests/cosim/test_report.py", "tests/agents/test_curves.py"),
    "ray": ("tests/cosim/test_ray.py",),
    "fmu": ("tests/cosim/test_neighbours.py::test_an_fmu_gives_what_the_same_grid_in_python_gives",),
    "helics": ("tests/cosim/test_neighbours.py::test_a_federate_answers_the_same_tick_in_its_own_unit",),
    "simbench": ("tests/simulators/grid/test_grid_networks.py",),
    "store": ("tests/cosim/test_mirror.py",),
    "test": ("tests/cosim/test_trace.py::test_xarray_reads_labelled_data_with_dates",
             "tests/scenarios/test_elsewhere.py", "tests/scenarios/test_foreign_grid.py",
             "tests/agents/test_training.py::test_a_pettingzoo_environment_trains_and_resumes",
             "tests/agents/test_training.py::test_spaces_become_parts",
             "tests/test_notebooks.py::test_notebooks_run"),
    "xarray": ("tests/cosim/test_simulate.py",),
}
"""What runs with each extra installed: files and tests."""
COMMANDS = {"mypy": (sys.executable, "tests/typecheck.py"),
            "pip-audit": (sys.executable, "-m", "pip_audit", "--version"), "ruff": ("ruff", "check", ".")}
"""What is not imported but run."""


@cache
def declared() -> dict[str, list[Requirement]]:
    """What setup.cfg asks for: `core`, and each extra."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = {CORE: config["options"]["install_requires"], **config["options.extras_require"]}
    return {name: [Requirement(line) for line in lines.splitlines() if line] for name, lines in listed.items()}


def to_build() -> list[Requirement]:
    """What pyproject.toml asks for to build."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(line) for line in stated["build-system"]["requires"]]


def lowest(requirement: Requirement) -> str:
    """The lower bound's version; ValueError unless there is exactly one, stated as `>=`."""
    found = [s.version for s in requirement.specifier if s.operator == ">="]
    if len(found) != 1:
        raise ValueError(f"'{requirement}' has no lower bound of the form 'name>=version'")
    return found[0]


def pins(requirements: Iterable[Requirement]) -> list[str]:
    """`name==version` at the lower bounds."""
    return sorted({f"{r.name}=={lowest(r)}" for r in requirements})


def listed_for(extra: str) -> list[Requirement]:
    """What stands at its lower bound while an extra is tried: the core's, the extra's own, and what runs tests."""
    all_of = declared()
    runners = [r for r in all_of["test"] if r.name in RUNNERS]
    return [*all_of[CORE], *runners, *(all_of[extra] if extra != CORE else ())]


def attempt(extra: str, folder: Path) -> str:
    """Install and run; what failed, or nothing."""
    source, made = folder / "source", folder / "venv"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT))
    venv.create(made, with_pip=True, symlinks=os.name != "nt")
    python = str(made / ("Scripts" if os.name == "nt" else "bin") / "python")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COSIM_TEST_RAY": "1"}
    env["PATH"] = os.pathsep.join([str(Path(python).parent), env.get("PATH", "")])
    wanted = pins(listed_for(extra))
    wheels = ["--only-binary", ",".join(p.partition("==")[0] for p in wanted)]
    builders = pins(to_build())
    steps = {
        "installing what builds": ["-m", "pip", "install", "-q", *builders],
        "building": ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", "."],
        "removing what builds": ["-m", "pip", "uninstall", "-q", "-y", *(p.partition("==")[0] for p in builders)],
        "installing": ["-m", "pip", "install", "-q", *wheels, *wanted],
        "pip check": ["-m", "pip", "check"],
        "running": ["tests/lowest.py", "--inside", extra],
    }
    for what, step in steps.items():
        print(f"[{extra}] $ python", *step, flush=True)
        done = subprocess.run([python, *step], cwd=source, env=env, stderr=subprocess.PIPE, text=True)
        print(done.stderr, end="", file=sys.stderr, flush=True)
        if done.returncode:
            return f"{what} failed, exit code {done.returncode}"
        if "yanked version" in done.stderr:
            return "a version was withdrawn (yanked) by its authors"
    return ""


class Witness:
    """A pytest plugin: which tests were skipped."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that was skipped, and why."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(f"{report.nodeid}: {report.longrepr[-1]}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that was skipped, and why."""
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr[-1]}")


def inside(extra: str) -> list[str]:
    """In the environment: what is not as the bounds say."""
    wanted = listed_for(extra)
    wrong = [f"{r.name} is {there}, not at its lower bound" for r in wanted
             if not Requirement(f"x=={lowest(r)}").specifier.contains(there := importlib.metadata.version(r.name))]
    witness = Witness()
    if code := pytest.main(["-n", "0", "-m", "", "-p", "no:cacheprovider", *SUBSETS[extra]], plugins=[witness]):
        wrong.append(f"pytest: {pytest.ExitCode(code).name}")
    wrong += [f"skipped: {what}" for what in witness.skipped]
    found = importlib.metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    touched = {canonicalize_name(d) for module in loaded for d in found.get(module, ())}
    for requirement in wanted if extra == CORE else declared()[extra]:
        if command := COMMANDS.get(requirement.name):
            if subprocess.run(command).returncode:
                wrong.append(f"'{' '.join(command)}' failed")
        elif canonicalize_name(requirement.name) not in touched:
            wrong.append(f"no test imported {requirement.name}")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is named; 1 if any bound is false."""
    made = argparse.ArgumentParser(prog="tests/lowest.py", description="Are the lower bounds in setup.cfg true?")
    made.add_argument("extras", nargs="*", metavar="EXTRA", help=f"{', '.join(SUBSETS)}, or all (default: {CORE})")
    made.add_argument("--list", action="store_true", help="print the lowest versions and install nothing")
    made.add_argument("--inside", metavar="EXTRA", choices=SUBSETS, help=argparse.SUPPRESS)
    args = made.parse_args(argv)
    if args.inside:
        wrong = inside(args.inside)
        print(*wrong, sep="\n", file=sys.stderr)
        return int(bool(wrong))
    extras = list(SUBSETS) if args.extras == ["all"] else args.extras or [CORE]
    if unknown := sorted({*extras} - {*SUBSETS}):
        made.error(f"no extra called '{unknown[0]}'; there are: {', '.join(SUBSETS)}, all")
    if args.list:
        print(*pins(r for extra in {CORE, *extras} for r in declared()[extra]), sep="\n")
        return 0
    failed = {}
    for extra in extras:
        with tempfile.TemporaryDirectory(prefix="lowest-") as folder:
            failed[extra] = attempt(extra, Path(folder))
    for extra, what in failed.items():
        print(f"{extra}: {what or 'the lower bounds are true'}")
    return int(any(failed.values()))


if __name__ == "__main__":
    sys.exit(main())
