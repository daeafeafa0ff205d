"""The floors: a module imports only from lower ones, and each heavy library has one owner."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cosim", "simulators", "agents", "scenarios")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))

FLOORS = [
    {"cosim.errors", "cosim.digest", "cosim.plaintext", "cosim.commands", "cosim.commands.names"},
    {"cosim.units", "cosim.imports"},
    {"cosim"},
    {"cosim.limits"},
    {"cosim.clock", "cosim.console", "cosim.tables.dates", "cosim.plausible", "cosim.ports", "cosim.params",
     "cosim.drivers.remote", "cosim.trace.inert", "cosim.trace.machine", "cosim.trace.seal", "cosim.seeds"},
    {"cosim.trace.supervised"},
    {"cosim.commands.main", "cosim.datafile", "cosim.progress", "cosim.tables.axis", "cosim.trace.journal",
     "cosim.scenario", "cosim.tables.files", "cosim.trace.reader"},
    {"cosim.trace"},
    {"cosim.hooks", "cosim.trace.compare", "cosim.trace.writer", "cosim.trace.series", "cosim.tables.table"},
    {"cosim.adapter", "cosim.trace.rescue"},
    {"cosim.drivers.event_loop", "cosim.drivers.resolve", "cosim.trust"},
    {"cosim.drivers.plan", "cosim.replay.recording", "cosim.result", "cosim.serve"},
    {"cosim.drivers.instrument"},
    {"cosim.drivers.native", "cosim.replay.members"},
    {"cosim.drivers.mosaik_bus", "cosim.reporting", "cosim.reporting.live"},
    {"cosim.experiment"},
    {"cosim.reporting.chart", "cosim.reporting.text", "cosim.reporting.feeder"},
    {"cosim.reporting.data", "cosim.reporting.paper"},
    {"cosim.reporting.sites", "cosim.reporting.jobs", "cosim.reporting.events", "cosim.reporting.overview"},
    {"cosim.reporting.air", "cosim.reporting.carbon", "cosim.reporting.grid", "cosim.reporting.page"},
    {"cosim.reporting.sections"},
    {"cosim.report", "cosim.request"},
    {"cosim.run", "cosim.conformance", "cosim.commands.new", "cosim.simulation"},
    {"cosim.check", "cosim.trace.command", "cosim.learning.vector"},
    {"cosim.__main__", "cosim.trace.__main__", "cosim.learning.workers"},
    {"cosim.learning.environment", "cosim.learning.pettingzoo"},
]
"""Of the frame, from the ground up. The other packages stand as a whole: cosim < agents < simulators < scenarios."""

OWNERS = {
    "simpy": {"cosim.simulators.aidc.engine.events"},
    "numba": {"cosim.simulators.aidc.compiled.jit"},
    "pandapower": {"cosim.simulators.grid.network.files"},
    "gurobipy": {"cosim.simulators.grid.dispatch.gurobi_solver"},
    "opendssdirect": {"cosim.simulators.grid.opendss"},
    "clarabel": {"cosim.simulators.grid.dispatch.clarabel_solver"},
    "h5py": {"cosim.trace.inert", "cosim.trace.writer", "cosim.trace.rescue", "cosim.trace.reader",
             "cosim.trace.supervised"},
    "pettingzoo": {"cosim.learning.pettingzoo"},
    "gymnasium": {"cosim.learning.pettingzoo"},
    "plotly": {"cosim.reporting.page"},
    "matplotlib": {"cosim.reporting.paper"},
    "mosaik": {"cosim.drivers.mosaik_bus"},
    "yaml": {"cosim.datafile"},
    "rich": {"cosim.console", "cosim.progress", "cosim.reporting.live"},
    "mosaik_api_v3": {"cosim.adapter", "cosim.hooks", "cosim.drivers.remote", "cosim.serve",
                      "cosim.drivers.mosaik_bus"},
    "torch": {"cosim.agents.learn.networks.blocks", "cosim.agents.learn.networks.distributions",
              "cosim.agents.learn.networks.mat", "cosim.agents.learn.networks.network",
              "cosim.agents.learn.networks.parallel", "cosim.agents.learn.ppo", "cosim.agents.learn.team"},
    "safetensors": {"cosim.agents.learn.checkpoint"},
}
LAZY = {"cosim.drivers.mosaik_bus", "pandas", "xarray"}
"""What may be imported inside a function: it brings a library that is heavy, or that only some install."""
AGENTS_MAY_USE = {"cosim.errors", "cosim.limits", "cosim.params", "cosim.seeds", "cosim.units"}
AGENTS_ROOF = {"cosim.agents.action_spaces", "cosim.agents.curves", "cosim.agents.evaluate", "cosim.agents.request",
               "cosim.agents.train", "cosim.agents.pretrained.__main__"}
SIMULATORS_ROOF = {"cosim.simulators.analysis.lambda_sweep", "cosim.simulators.analysis.receipts"}
"""Command lines: they may use all of the frame, and nothing imports them."""
SIMULATORS_MAY_USE = {"cosim.adapter", "cosim.clock", "cosim.digest", "cosim.drivers.resolve", "cosim.errors",
                      "cosim.imports", "cosim.limits", "cosim.params", "cosim.plausible", "cosim.ports",
                      "cosim.replay.recording", "cosim.tables.dates", "cosim.tables.table", "cosim.trace",
                      "cosim.trace.series", "cosim.units"}


def name_of(path: Path) -> str:
    """The name a file is imported by: all packages are inside `cosim`, wherever their folders stand."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "cosim" else ("cosim", *parts)).removesuffix(".__init__")


MODULE_NAMES = {name_of(path) for path in MODULES}


def package_of(module: str) -> str:
    """Which of the four packages a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in PACKAGES else parts[0]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All of a module's syntax tree, parsed once for all rules."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports_of(path: Path) -> list[str]:
    """Imported modules, wherever in the file they stand."""
    public = {id(inner) for node in nodes_of(path) if name_of(path) == "cosim" and isinstance(node, ast.If)
              and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)}  # imported when they are used
    return [target for node in nodes_of(path) if id(node) not in public for target in targets_of(node)]


def targets_of(node: ast.AST) -> list[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in MODULE_NAMES else node.module or "" for name in inside]
    return []


def floor(module: str) -> int:
    for height, modules in enumerate(FLOORS):
        if module in modules:
            return height
    raise AssertionError(f"{module} has no floor; add it to FLOORS and to README's map")


def goes_up(me: str, target: str) -> str:
    """Why a module of ours must not import another of ours; empty: it may."""
    mine, package = package_of(me), package_of(target)
    if target == "cosim.imports":
        return "" if mine != "cosim" or floor(target) < floor(me) else "which is not below it"
    if mine == "cosim":
        if package != "cosim":
            return "the frame knows no model"
        return "" if floor(target) < floor(me) else "which is not below it"
    if mine == "agents":
        if me in AGENTS_ROOF:
            return "" if package in ("agents", "cosim") else "which stands above"
        if target in AGENTS_ROOF:
            return "a command line"
        return "" if package == "agents" or target in AGENTS_MAY_USE else "which agents may not use"
    if mine == "simulators":
        if target in SIMULATORS_ROOF:
            return "a command line"
        may = package in ("simulators", "agents") or target in SIMULATORS_MAY_USE or me in SIMULATORS_ROOF
        return "" if may else "which simulators may not use"
    return "" if package == "scenarios" or target == "cosim.scenario" else "name it by string"


def test_imports_go_down():
    found = [(name_of(path), target) for path in MODULES for target in imports_of(path)
             if package_of(target) in PACKAGES]
    assert len(found) > 500
    assert not [f"{me} imports {target}: {why}" for me, target in found if (why := goes_up(me, target))]


def test_heavy_libraries_have_one_owner():
    found = [(name_of(path), target.split(".")[0]) for path in MODULES for target in imports_of(path)]
    assert not [f"{me} imports {library}, which belongs to {OWNERS[library]}" for me, library in found
                if library in OWNERS and me not in OWNERS[library]]


def test_imports_stand_at_the_top_unless_they_are_heavy():
    """Wherever one stands, it is an edge of the floors: `imports_of` sees all of a file."""
    inside = {(name_of(path), target) for path in MODULES for function in nodes_of(path)
              if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(function)
              for target in targets_of(node)}
    assert {target for _, target in inside} == LAZY


def test_owners_exist():
    names = {name_of(p) for p in MODULES}
    assert {owner for owners in OWNERS.values() for owner in owners} <= names
    assert {m for modules in FLOORS for m in modules} <= names
    assert names >= AGENTS_ROOF | SIMULATORS_ROOF


def test_no_eval_and_no_pickle():
    for path in MODULES:
        calls = {n.func.id for n in nodes_of(path) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec", "__import__"}, name_of(path)
        libraries = {target.split(".")[0] for target in imports_of(path)}
        assert not libraries & {"pickle", "dill", "marshal", "shelve"}, name_of(path)


def test_every_package_is_installed():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for directory in {p.parent for p in MODULES}:
        package = name_of(directory / "__init__.py")
        assert f"    {package}\n" in listed, f"setup.cfg does not list {package}"
