"""The floors: a module imports only from lower ones, and each heavy library has one owner."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cosim", "simulators", "agents", "scenarios")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))

FLOORS = [
    {"cosim.errors", "cosim.digest"},
    {"cosim.units"},
    {"cosim.clock", "cosim.console", "cosim.dates", "cosim.plausible", "cosim.ports", "cosim.params", "cosim.seeds"},
    {"cosim.axis", "cosim.intact", "cosim.scenario", "cosim.tablefile", "cosim.trace"},
    {"cosim.compare", "cosim.recorder", "cosim.series", "cosim.table"},
    {"cosim.adapter"},
    {"cosim.resolve", "cosim.trust"},
    {"cosim.plan", "cosim.recording", "cosim.serve"},
    {"cosim.tap"},
    {"cosim.native", "cosim.replay"},
    {"cosim.wiring", "cosim.experiment", "cosim.reporting", "cosim.live"},
    {"cosim.reporting.chart", "cosim.reporting.text", "cosim.reporting.feeder"},
    {"cosim.reporting.data", "cosim.reporting.paper"},
    {"cosim.reporting.sites", "cosim.reporting.jobs", "cosim.reporting.events", "cosim.reporting.overview"},
    {"cosim.reporting.air", "cosim.reporting.carbon", "cosim.reporting.grid", "cosim.reporting.page"},
    {"cosim.reporting.sections"},
    {"cosim.report"},
    {"cosim.run", "cosim.conformance"},
    {"cosim.check", "cosim.inspection", "cosim.vector"},
    {"cosim.workers"},
    {"cosim.environment", "cosim.parallel"},
]
"""Of the frame, from the ground up. The other packages stand as a whole: cosim < agents < simulators < scenarios."""

OWNERS = {
    "simpy": {"simulators.aidc.events"},
    "pandapower": {"simulators.grid.netfile"},
    "gurobipy": {"simulators.grid.gurobi_solver"},
    "opendssdirect": {"simulators.grid.opendss"},
    "clarabel": {"simulators.grid.clarabel_solver"},
    "h5py": {"cosim.recorder", "cosim.trace"},
    "pettingzoo": {"cosim.parallel"},
    "gymnasium": {"cosim.parallel"},
    "plotly": {"cosim.reporting.page"},
    "matplotlib": {"cosim.reporting.paper"},
    "mosaik": {"cosim.wiring"},
    "rich": {"cosim.console", "cosim.live", "cosim.run"},
    "mosaik_api_v3": {"cosim.adapter", "cosim.serve", "cosim.wiring"},
    "torch": {"agents.networks.blocks", "agents.networks.distributions", "agents.networks.mat",
              "agents.networks.network", "agents.networks.parallel", "agents.ppo", "agents.team"},
    "safetensors": {"agents.checkpoint"},
}
AGENTS_MAY_USE = {"cosim.errors", "cosim.params", "cosim.seeds", "cosim.units"}
AGENTS_ROOF = {"agents.curves", "agents.evaluate", "agents.request", "agents.train", "agents.pretrained.__main__"}
SIMULATORS_ROOF = {"simulators.grid.sweep", "simulators.receipts"}
"""Command lines: they may use all of the frame, and nothing imports them."""
SIMULATORS_MAY_USE = {"cosim.adapter", "cosim.clock", "cosim.dates", "cosim.digest", "cosim.errors", "cosim.params",
                      "cosim.plausible", "cosim.ports", "cosim.recording", "cosim.resolve", "cosim.series",
                      "cosim.table", "cosim.trace", "cosim.units"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> list[tuple[str, ast.AST]]:
    """(imported module, statement), wherever in the file it stands."""
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            of_package = node.module in PACKAGES
            out += [(f"{node.module}.{a.name}" if of_package else node.module or "", node) for a in node.names]
    return out


def floor(module: str) -> int:
    for height, modules in enumerate(FLOORS):
        if module in modules:
            return height
    raise AssertionError(f"{module} has no floor; add it to FLOORS and to README's map")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    me = name_of(path)
    for target, _ in imports_of(path):
        package = target.split(".")[0]
        if package not in PACKAGES:
            continue
        mine = me.split(".")[0]
        if mine == "cosim":
            assert package == "cosim", f"{me} knows {target}: the frame knows no model"
            assert floor(target) < floor(me), f"{me} imports {target}, which is not below it"
        elif mine == "agents":
            if me in AGENTS_ROOF:
                assert package in ("agents", "cosim"), f"{me} imports {target}"
            else:
                assert package == "agents" or target in AGENTS_MAY_USE, f"{me} imports {target}"
                assert target not in AGENTS_ROOF, f"{me} imports the command line {target}"
        elif mine == "simulators":
            assert target not in SIMULATORS_ROOF, f"{me} imports the command line {target}"
            assert (package in ("simulators", "agents") or target in SIMULATORS_MAY_USE
                    or me in SIMULATORS_ROOF), f"{me} imports {target}"
        else:
            assert package == "scenarios" or target == "cosim.scenario", f"{me} imports {target}: name it by string"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_have_one_owner(path):
    me = name_of(path)
    for target, _ in imports_of(path):
        library = target.split(".")[0]
        if library in OWNERS:
            assert me in OWNERS[library], f"{me} imports {library}, which belongs to {OWNERS[library]}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_stand_at_the_top(path):
    inside = [n for f in ast.walk(ast.parse(path.read_text())) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
              for n in ast.walk(f) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert not inside, f"{name_of(path)}:{inside[0].lineno} hides an import inside a function"


def test_owners_exist():
    names = {name_of(p) for p in MODULES}
    assert {owner for owners in OWNERS.values() for owner in owners} <= names
    assert {m for modules in FLOORS for m in modules} <= names
    assert names >= AGENTS_ROOF | SIMULATORS_ROOF


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_eval_and_no_pickle(path):
    tree = ast.parse(path.read_text())
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not calls & {"eval", "exec", "__import__"}
    assert not {t.split(".")[0] for t, _ in imports_of(path)} & {"pickle", "dill", "marshal", "shelve"}


def test_every_package_is_installed():
    listed = (ROOT / "setup.cfg").read_text()
    for directory in {p.parent for p in MODULES}:
        package = ".".join(directory.relative_to(ROOT).parts)
        assert f"    {package}\n" in listed, f"setup.cfg does not list {package}"
