"""The floors: a module imports only from lower ones, and each heavy library has one owner."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

from trees import nodes_of

from cosim.adapter import Adapter
from cosim.scenarios.ieee33 import SCENARIO as STUDY

ROOT = Path(__file__).parents[1]
PACKAGES = ("cosim", "simulators", "agents", "scenarios")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))

FLOORS = [
    {"cosim.campaign.statistics", "cosim.errors", "cosim.digest",
     "cosim.old_names", "cosim.plaintext", "cosim.commands",
     "cosim.commands.names"},
    {"cosim.units", "cosim.imports", "cosim.collector"},
    {"cosim"},
    {"cosim.limits", "cosim.scenario_hooks", "cosim.contracts"},
    {"cosim.trace.form"},
    {"cosim.clock", "cosim.console", "cosim.tables.dates", "cosim.tables.weather_files", "cosim.tables.services",
     "cosim.plausible",
     "cosim.ports", "cosim.params",
     "cosim.drivers.remote", "cosim.trace.file_scan", "cosim.trace.machine", "cosim.trace.seal", "cosim.seeds"},
    {"cosim.trace.supervised", "cosim.trace.blocks"},
    {"cosim.datafile", "cosim.progress", "cosim.tables.axis", "cosim.trace.journal",
     "cosim.scenario", "cosim.tables.files", "cosim.tables.workbook", "cosim.trace.reader"},
    {"cosim.trace", "cosim.tables.selection"},
    {"cosim.hooks", "cosim.trace.compare", "cosim.trace.descriptor",
     "cosim.trace.writer", "cosim.trace.series", "cosim.tables.table"},
    {"cosim.adapter", "cosim.trace.export", "cosim.trace.rescue", "cosim.neighbours", "cosim.neighbours.conversion",
     "cosim.neighbours.federation"},
    {"cosim.drivers.event_loop", "cosim.drivers.resolve", "cosim.trust", "cosim.neighbours.fmi",
     "cosim.neighbours.mapping"},
    {"cosim.neighbours.fmu", "cosim.neighbours.helics_federate"},
    {"cosim.drivers.plan", "cosim.replay.recording", "cosim.serve"},
    {"cosim.drivers.instrument"},
    {"cosim.drivers.native", "cosim.replay.members"},
    {"cosim.drivers.mosaik_bus", "cosim.reporting"},
    {"cosim.replay.exchange", "cosim.reporting.chart", "cosim.reporting.text"},
    {"cosim.reporting.behind", "cosim.reporting.data", "cosim.reporting.markup", "cosim.reporting.style"},
    {"cosim.reporting.panels", "cosim.reporting.paper_map"},
    {"cosim.reporting.definition"},
    {"cosim.reporting.general", "cosim.reporting.live", "cosim.reporting.overview"},
    {"cosim.reporting.comparison"},
    {"cosim.reporting.content", "cosim.reporting.folder", "cosim.reporting.heads"},
    {"cosim.reporting.page", "cosim.reporting.paper"},
    {"cosim.request"},
    {"cosim.report"},
    {"cosim.commands.main", "cosim.result"},
    {"cosim.experiment", "cosim.commands.show"},
    {"cosim.run", "cosim.conformance", "cosim.commands.new", "cosim.simulation"},
    {"cosim.learning.variation"},
    {"cosim.check", "cosim.trace.command", "cosim.learning.shared", "cosim.learning.vector"},
    {"cosim.__main__", "cosim.trace.__main__", "cosim.learning.batch", "cosim.learning.pettingzoo",
     "cosim.learning.lessons", "cosim.learning.workers"},
    {"cosim.learning.environment", "cosim.campaign.cells"},
    {"cosim.campaign.files"},
    {"cosim.campaign.perform"},
    {"cosim.campaign.local", "cosim.campaign.ray_driver"},
    {"cosim.campaign.ray_engine"},
    {"cosim.campaign.runner", "cosim.campaign.points", "cosim.campaign.point_run"},
    {"cosim.campaign.mirror", "cosim.campaign.sweep_table"},
    {"cosim.campaign.sweep"},
    {"cosim.campaign.sweep_command"},
]
"""Of the frame, from the ground up. The other packages stand as a whole: cosim < agents < simulators < scenarios."""

OWNERS = {
    "simpy": {"cosim.simulators.aidc.engine.events"},
    "numba": {"cosim.simulators.aidc.compiled.jit"},
    "pandapower": {"cosim.simulators.grid.network.files"},
    "gurobipy": {"cosim.simulators.grid.dispatch.gurobi_solver"},
    "opendssdirect": {"cosim.simulators.grid.opendss_circuit"},
    "clarabel": {"cosim.simulators.grid.dispatch.clarabel_solver"},
    "h5py": {"cosim.trace.file_scan", "cosim.trace.writer", "cosim.trace.rescue", "cosim.trace.reader",
             "cosim.trace.supervised"},
    "pettingzoo": {"cosim.learning.pettingzoo"},
    "gymnasium": {"cosim.learning.pettingzoo"},
    "plotly": {"cosim.reporting.page"},
    "matplotlib": {"cosim.reporting.panels", "cosim.reporting.paper", "cosim.reporting.paper_map",
                   "cosim.reporting.style"},
    "fmpy": {"cosim.neighbours.fmi"},
    "helics": {"cosim.neighbours.federation"},
    "mosaik": {"cosim.drivers.mosaik_bus"},
    "ray": {"cosim.campaign.ray_driver"},
    "fsspec": {"cosim.campaign.mirror"},
    "yaml": {"cosim.datafile"},
    "rich": {"cosim.console", "cosim.progress", "cosim.reporting.live"},
    "mosaik_api_v3": {"cosim.adapter", "cosim.hooks", "cosim.drivers.remote", "cosim.serve",
                      "cosim.neighbours.fmu", "cosim.neighbours.helics_federate",
                      "cosim.drivers.mosaik_bus"},
    "torch": {"cosim.agents.learn.networks.blocks", "cosim.agents.learn.networks.distributions",
              "cosim.agents.learn.networks.mat", "cosim.agents.learn.networks.network",
              "cosim.agents.learn.networks.parallel", "cosim.agents.learn.ppo", "cosim.agents.learn.team",
              "cosim.agents.train"},
    "safetensors": {"cosim.agents.learn.checkpoint"},
}
LAZY = {"cosim.agents.learn.team", "cosim.agents.learn.training", "cosim.agents.together", "cosim.drivers.mosaik_bus",
        "cosim.learning.pettingzoo", "cosim.report", "cosim.reporting.panels",
        "cosim.reporting.definition", "cosim.reporting.live", "cosim.reporting.paper", "cosim.request",
        "cosim.simulators.grid.network.files",
        "cosim.simulators.grid.network.powerflow", "cosim.simulators.grid.network.tables", "cosim.trust", "fmpy",
        "fmpy.fmi2", "fmpy.fmi3", "fsspec", "helics", "pandas",
        "pyarrow", "pyarrow.parquet", "scipy.optimize", "scipy.sparse", "simbench", "torch.utils.tensorboard", "xarray",
        "xlsxwriter", "xlsxwriter.exceptions"}
"""What may be imported inside a function: it is heavy, or brought by an extra, or brings a library of that kind."""
BY_NAME = {"cosim.agents.fleet.spaces"}
"""Edges that go up by a string: what was a command in version 0.1 starts the one of today."""
AGENTS_MAY_USE = {"cosim.errors", "cosim.limits", "cosim.params", "cosim.seeds", "cosim.units"}
AGENTS_ROOF = {"cosim.agents.action_spaces", "cosim.agents.comparison", "cosim.agents.curves", "cosim.agents.evaluate",
               "cosim.agents.probe", "cosim.agents.recorded_jobs", "cosim.agents.request", "cosim.agents.splits",
               "cosim.agents.together", "cosim.agents.train", "cosim.agents.train_request",
               "cosim.agents.pretrained.__main__",
               *(f"cosim.agents.study.{name}" for name in (
                   "claims", "command", "data", "days", "exhibits", "fixed_shares", "measures", "page", "paper", "plan",
                   "rates", "showing", "statistics", "verdicts", "work", "followed", "own_effect", "signal",
                   "signal_plan"))}
SIMULATORS_ROOF = {"cosim.simulators.analysis.lambda_sweep", "cosim.simulators.analysis.receipts",
                   "cosim.simulators.analysis.serving_curves", "cosim.simulators.own_network"}
"""Command lines: they may use all of the frame, and nothing imports them."""
SIMULATORS_MAY_USE = {"cosim.adapter", "cosim.clock", "cosim.digest", "cosim.drivers.resolve", "cosim.errors",
                      "cosim.hooks", "cosim.imports", "cosim.limits", "cosim.params", "cosim.plausible", "cosim.ports",
                      "cosim.replay.recording", "cosim.scenario", "cosim.tables.dates", "cosim.tables.files",
                      "cosim.tables.table", "cosim.trace", "cosim.trace.series", "cosim.units"}
DECLARE_WITH = {"cosim.simulators.reporting": {"cosim.reporting.chart", "cosim.reporting.data",
                                               "cosim.reporting.definition", "cosim.reporting.text"},
                "cosim.simulators.contracts": {"cosim.contracts"},
                "cosim.simulators.own_network_grid": {"cosim.datafile", "cosim.scenario"}}
"""Of the frame, what else the modules may use in which models say how they are shown and checked, and how a scenario is
made on a network."""


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
def imports_of(path: Path) -> list[str]:
    """Imported modules, wherever in the file they stand."""
    choices = [node for node in nodes_of(path) if isinstance(node, ast.If)] if name_of(path) == "cosim" else []
    public = {id(inner) for node in choices if ast.unparse(node.test) == "TYPE_CHECKING"
              for inner in ast.walk(node)}  # imported when they are used
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
        declares = any(me.startswith(part) and target in allowed for part, allowed in DECLARE_WITH.items())
        may = package in ("simulators", "agents") or target in SIMULATORS_MAY_USE or declares or me in SIMULATORS_ROOF
        return "" if may else "which simulators may not use"
    return "" if package == "scenarios" or target == "cosim.scenario" else "name it by string"


def test_imports_go_down():
    found = [(name_of(path), target) for path in MODULES for target in imports_of(path)
             if package_of(target) in PACKAGES]
    assert len(found) > 500
    assert not [f"{me} imports {target}: {why}" for me, target in found if (why := goes_up(me, target))]


GENERAL_WORDS = {"jobs", "gpus", "power", "status", "workload", "report"}
"""Names of ports, models and members that are words of their own: of units, of a run, of English."""
EXAMPLES = {"cosim.run": {"grid", "Bus", "p_load_kw"}, "cosim.scenario": {"grid", "p_load_kw"},
            "cosim.campaign.points": {"grid"}, "cosim.campaign.sweep_command": {"grid"},
            "cosim.check": {"grid", "aidc"}, "cosim.console": {"grid", "p_load_kw"},
            "cosim.replay.exchange": {"grid", "tariff"}, "cosim.tables.weather_files": {"dry_bulb_degc"},
            "cosim.trace.descriptor": {"profile"}}
"""In words for people: 'write member.port, for example grid.p_load_kw'; and what published weather files have."""


def words_of_models() -> set[str]:
    """Names of the ports and models of all our simulators, and of the members of our scenarios."""
    simulators = [module for module in MODULE_NAMES if module.startswith("cosim.simulators.")]
    for module in simulators:
        importlib.import_module(module)
    found, classes = set(STUDY.members), [Adapter]
    for cls in classes:
        classes += cls.__subclasses__()
        if cls.__module__ in MODULE_NAMES and cls.__module__.startswith("cosim.simulators."):
            found |= set(cls.MODELS) | {port.name for ports in cls.MODELS.values() for port in ports}
    return found - GENERAL_WORDS


def said_in(path: Path) -> dict[str, int]:
    """Words in the strings of a module -> line, without those of docstrings and comments."""
    nodes = nodes_of(path)
    about = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return {word: node.lineno for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in about for word in re.findall(r"\w+", node.value.replace("aidc-cosim", ""))}


def test_the_frame_knows_no_model():
    """No string of the frame names a port, a model or a member of ours; the report and the checks of these come by
    import strings of the scenario. Nor do the scripts of a page."""
    names = words_of_models()
    assert names >= {"nci_kg_per_kwh", "p_site_kw", "price_usd_per_kwh", "queued_jobs", "Site", "grid", "controller"}
    frame = {name_of(path): said_in(path) for path in MODULES if package_of(name_of(path)) == "cosim"}
    assert [words for module, words in frame.items() if module == "cosim.units"][0]["kg_per_kwh"]
    found = {f"{module}:{line}: {word}" for module, words in frame.items() if module != "cosim.old_names"
             for word, line in words.items() if word in names - EXAMPLES.get(module, set())}
    assert not found
    assert not {module for module, words in EXAMPLES.items() if not words <= frame[module].keys()}
    for path in (ROOT / "cosim").rglob("*.js"):
        assert not names & set(re.findall(r"\w+", path.read_text(encoding="utf-8"))), path


def test_what_shows_and_checks_models_stands_beside_them():
    """The other way round: these names are there, so that the test above can fail."""
    for module in ("reporting.sections", "reporting.data", "contracts"):
        path = next(path for path in MODULES if name_of(path) == f"cosim.simulators.{module}")
        assert said_in(path).keys() & words_of_models()


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


def test_no_import_hides_in_a_string():
    """What is imported by a name of data is somebody's choice; a name that stands in the code is an import."""
    hidden = {f"{name_of(path)}:{node.lineno}" for path in MODULES for node in nodes_of(path)
              if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
              and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("load", "import_module")
              and name_of(path) not in BY_NAME}
    assert not hidden


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


def test_no_class_name_is_used_twice():
    """Of two classes of one name nobody knows which is meant; a private one of the name is no better."""
    defined: dict[str, list[str]] = {}
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name.lstrip("_"), []).append(f"{name_of(path)}:{node.lineno}")
    assert len(defined) > 200
    assert not {name: places for name, places in defined.items() if len(places) > 1}
