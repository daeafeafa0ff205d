"""The lists of dependencies say what the code imports, and their lower bounds are bounds. Whether the lowest versions
work is tried by tests/lowest.py, which installs them."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import lowest
import pytest
from packaging.utils import canonicalize_name
from trees import tree_of

ROOT = Path(__file__).parents[1]
SHIPPED = ("cosim", "agents", "simulators", "scenarios")
BESIDE = ("tests", "docs", "examples", "benchmarks")
NO_RUN = {"browser", "docs", "audit", "test"}
"""Extras of those who work on this, not of those who run it."""
PART_OF = {"yaml": "PyYAML", "griffe": "griffelib", "pydantic_core": "pydantic",
           "mosaik_components": "mosaik-pandapower-2", "opendssdirect": "opendssdirect-py"}
"""Import name -> distribution, where they differ by more than a dash."""
NOT_IMPORTED = {
    "openpyxl": ("simulators/grid/network/file_scan.py", 'engine="openpyxl"', "pandas reads Excel files with it"),
    "xlsxwriter": ("tests/simulators/grid/test_grid_network.py", "pp.to_excel", "pandapower writes them with it"),
    "h5netcdf": ("examples/read_trace.py", 'engine="h5netcdf"', "xarray reads traces with it"),
    "mkdocs-material": ("mkdocs.yml", "name: material", "mkdocs loads it"),
    "mkdocstrings-python": ("mkdocs.yml", "- mkdocstrings:", "mkdocs loads it"),
    "mypy": (".ci/run", "tests/typecheck.py", "a command, which imports it"),
    "ruff": (".ci/run", "ruff check", "a command"),
    "pytest-xdist": ("README.md", "pytest -n auto", "pytest loads it"),
    "pip-audit": ("SECURITY.md", "python -m pip_audit", "a command"),
}
"""What is declared and not imported: where it is used, by which words, and why."""
BY_NAME = {"import_module", "find_spec", "importorskip", "load"}
"""Functions that import by name."""


def top(module: str) -> str:
    return re.split(r"[.:]", module)[0]


def imported(tree: ast.AST, announced: bool) -> set[str]:
    """Top-level modules that a file imports, anywhere in it: by statement, by name and, as `module:Class`, by a string
    that a scenario holds (`announced`)."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports"
            found.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found |= {node.args[0].value} if name in BY_NAME else set()
        elif (announced and isinstance(node, ast.Constant) and isinstance(node.value, str)
              and re.fullmatch(r"[a-z_][\w.]*:[A-Z]\w*", node.value)):
            found.add(node.value)
    return {top(name) for name in found}


@cache
def third_party() -> dict[str, dict[Path, set[str]]]:
    """Folder -> file -> distributions it imports."""
    files = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in (*SHIPPED, *BESIDE)}
    own = {path.stem for folder in BESIDE for path in files[folder]} | {*SHIPPED, *BESIDE} | sys.stdlib_module_names
    return {folder: {path: {canonicalize_name(PART_OF.get(m, m)) for m in imported(
        tree_of(path), folder in SHIPPED) if m not in own} for path in paths}
        for folder, paths in files.items()}


def names(*groups: str) -> set[str]:
    """Distributions that setup.cfg declares in these groups."""
    return {canonicalize_name(r.name) for group in groups for r in lowest.declared()[group]}


@pytest.mark.parametrize("group", [*lowest.declared()])
def test_bounds_are_bounds_and_what_is_installed_keeps_them(group):
    for requirement in lowest.declared()[group]:
        assert requirement.specifier.contains(lowest.lowest(requirement)), f"{requirement}: nothing can be that"
        try:
            there = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            assert group not in (lowest.CORE, "test"), f"{requirement} is not installed"
            continue
        assert requirement.specifier.contains(there, prereleases=True), f"{requirement}, but {there} runs here"


def test_builders_have_a_lower_bound():
    assert [r.name for r in lowest.to_build()] == ["setuptools"]
    assert lowest.pins(lowest.to_build()) == [f"setuptools=={lowest.lowest(lowest.to_build()[0])}"]


def test_a_package_has_one_bound_in_all_lists():
    said = {}
    for requirements in lowest.declared().values():
        for r in requirements:
            assert said.setdefault(canonicalize_name(r.name), r.specifier) == r.specifier, f"{r.name} has two"


@pytest.mark.long
def test_what_runs_imports_what_installing_it_brings():
    extras = [*{*lowest.declared()} - NO_RUN - {lowest.CORE}]
    wrong = {(str(path.relative_to(ROOT)), name) for folder in SHIPPED
             for path, used in third_party()[folder].items() for name in used - names(lowest.CORE, *extras)}
    assert not wrong, "imported, but in no list of setup.cfg"


def test_what_stands_beside_imports_what_a_list_has():
    wrong = {(str(path.relative_to(ROOT)), name) for folder in BESIDE
             for path, used in third_party()[folder].items() for name in used - names(*lowest.declared())}
    assert not wrong, "imported, but in no list of setup.cfg"


@pytest.mark.long
def test_the_suite_starts_with_what_its_extra_brings():
    """Other extras' packages are imported inside of tests, or by pytest.importorskip."""
    there = names(lowest.CORE, "test")
    for path in third_party()["tests"]:
        tree = tree_of(path)
        first = ast.Module([n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
        used = {canonicalize_name(PART_OF.get(m, m)) for m in imported(first, False)}
        assert not used & (names(*lowest.declared()) - there), path.name


def test_what_is_declared_is_used():
    used = {name for files in third_party().values() for found in files.values() for name in found}
    announced = {canonicalize_name(PART_OF.get(m, m)) for path in third_party()["tests"]
                 for m in imported(tree_of(path), True)}
    for name, (path, words, _) in NOT_IMPORTED.items():
        assert words in (ROOT / path).read_text(encoding="utf-8"), f"{name}: {path} no longer has '{words}'"
    assert names(*lowest.declared()) - used - announced <= {*NOT_IMPORTED}
    assert {*NOT_IMPORTED} <= names(*lowest.declared())


def test_the_scan_sees_every_way_to_import():
    text = ("import one.a, two\nfrom three.b import c\ndef f():\n    import four\n    find_spec('five')\n"
            "    x.import_module('six.d')\n    load('seven.e:F', 'it')\nM = 'eight.g:Sim'\nN = 'nine:lower'\n")
    found = {"one", "two", "three", "four", "five", "six", "seven"}
    assert imported(ast.parse(text), False) == found
    assert imported(ast.parse(text), True) == found | {"eight"}


def test_every_list_has_a_part_of_the_suite_that_tries_its_lowest_versions():
    assert {*lowest.SUBSETS} == {*lowest.declared()}
    for subset in lowest.SUBSETS.values():
        for part in subset:
            path, _, test = part.partition("::")
            assert (f"def {test}(" if test else "def test_") in (ROOT / path).read_text(encoding="utf-8"), part
    assert {*lowest.RUNNERS} <= names("test")
    assert {canonicalize_name(name) for name in lowest.COMMANDS} <= {*NOT_IMPORTED}


@pytest.mark.parametrize(("line", "says"), [("numpy", None), ("numpy<3", None), ("numpy==2.1", None),
                                            ("numpy>=2.1", "2.1"), ("torch>=2.6,<2.14", "2.6")])
def test_lowest_version_of_a_requirement(line, says):
    requirement = lowest.Requirement(line)
    if says:
        assert lowest.lowest(requirement) == says
        return
    with pytest.raises(ValueError, match="has no lower bound"):
        lowest.lowest(requirement)


def test_the_lowest_versions_are_printed_as_a_list_of_requirements(capsys):
    assert lowest.main(["--list", "plot"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == lowest.pins([*lowest.declared()["core"], *lowest.declared()["plot"]])
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in printed)
    with pytest.raises(SystemExit, match="2"):
        lowest.main(["plots"])
    assert "no extra called 'plots'; there are: core, " in capsys.readouterr().err


def test_the_list_is_one_that_an_audit_takes(tmp_path, capsys):
    """Without asking the service of known holes, which needs network access: every line is understood and counted."""
    pytest.importorskip("pip_audit", reason="needs the extra 'audit' (pip-audit)")
    lowest.main(["--list", "all"])
    listed = capsys.readouterr().out
    (tmp_path / "lowest.txt").write_text(listed)
    argv = ["--dry-run", "--strict", "--progress-spinner", "off"]
    for more, count in ((["--no-deps", "--disable-pip", "-r", str(tmp_path / "lowest.txt")], len(listed.splitlines())),
                        (["--skip-editable"], None)):
        done = subprocess.run([sys.executable, "-m", "pip_audit", *argv, *more], capture_output=True, text=True,
                              check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        said = int(re.search(r"would have audited (\d+) packages", done.stderr).group(1))
        assert said == count if count else said > len(names(lowest.CORE))
