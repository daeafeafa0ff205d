"""Objects by import string, 'package.module:Name'; names of earlier versions resolve to those of today.

Version 0.1 installed `agents`, `simulators` and `scenarios` as packages of their own and had flatter folders. Scenario
files, traces and programs of then go on: `today` translates a name, and a finder makes `import agents.spec` give the
very module that `cosim.agents.learn.spec` is, unless another package of that name is installed. What was translated is
kept for a note of the run (`old_names`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from cosim.errors import CosimError, ScenarioError, cut, unknown

_ROOT = Path(__file__).resolve().parents[1]
_TOP = ("agents", "scenarios", "simulators")
"""Packages that stood beside `cosim`, and are inside it now."""
_MOVED = {
    "cosim.recorder": "cosim.trace.writer",
    "cosim.intact": "cosim.trace.journal",
    "cosim.seal": "cosim.trace.seal",
    "cosim.rescue": "cosim.trace.rescue",
    "cosim.compare": "cosim.trace.compare",
    "cosim.series": "cosim.trace.series",
    "cosim.inspection": "cosim.trace.command",
    "cosim.resolve": "cosim.drivers.resolve",
    "cosim.plan": "cosim.drivers.plan",
    "cosim.tap": "cosim.drivers.instrument",
    "cosim.native": "cosim.drivers.native",
    "cosim.wiring": "cosim.drivers.mosaik_bus",
    "cosim.remote": "cosim.drivers.remote",
    "cosim.dates": "cosim.tables.dates",
    "cosim.axis": "cosim.tables.axis",
    "cosim.tablefile": "cosim.tables.files",
    "cosim.table": "cosim.tables.table",
    "cosim.recording": "cosim.replay.recording",
    "cosim.vector": "cosim.learning.vector",
    "cosim.workers": "cosim.learning.workers",
    "cosim.parallel": "cosim.learning.pettingzoo",
    "cosim.environment": "cosim.learning.environment",
    "cosim.live": "cosim.reporting.live",
    "cosim.reporting.air": "cosim.simulators.reporting.air",
    "cosim.reporting.carbon": "cosim.simulators.reporting.carbon",
    "cosim.reporting.events": "cosim.simulators.reporting.events",
    "cosim.reporting.feeder": "cosim.simulators.reporting.feeder",
    "cosim.reporting.grid": "cosim.simulators.reporting.grid",
    "cosim.reporting.jobs": "cosim.simulators.reporting.jobs",
    "cosim.reporting.sections": "cosim.simulators.reporting.sections",
    "cosim.reporting.sites": "cosim.simulators.reporting.sites",
    "simulators.metrics": "cosim.simulators.analysis.metrics",
    "simulators.audit": "cosim.simulators.analysis.conservation",
    "simulators.balance": "cosim.simulators.analysis.balance",
    "simulators.flows": "cosim.simulators.analysis.flows",
    "simulators.service": "cosim.simulators.analysis.jobs",
    "simulators.plants": "cosim.simulators.analysis.cooling",
    "simulators.account": "cosim.simulators.analysis.job_carbon",
    "simulators.receipts": "cosim.simulators.analysis.receipts",
    "simulators.grid.minutes": "cosim.simulators.analysis.voltages",
    "simulators.grid.sweep": "cosim.simulators.analysis.lambda_sweep",
    "simulators.grid.elements": "cosim.simulators.grid.network.elements",
    "simulators.grid.feeder": "cosim.simulators.grid.network.feeder",
    "simulators.grid.netfile": "cosim.simulators.grid.network.files",
    "simulators.grid.netscan": "cosim.simulators.grid.network.file_scan",
    "simulators.grid.circuit": "cosim.simulators.grid.network.circuit",
    "simulators.grid.network": "cosim.simulators.grid.network.radial",
    "simulators.grid.powerflow": "cosim.simulators.grid.network.powerflow",
    "simulators.grid.dssscan": "cosim.simulators.grid.network.dss_scan",
    "simulators.grid.conic": "cosim.simulators.grid.dispatch.conic",
    "simulators.grid.gurobi_solver": "cosim.simulators.grid.dispatch.gurobi_solver",
    "simulators.grid.clarabel_solver": "cosim.simulators.grid.dispatch.clarabel_solver",
    "simulators.grid.caps": "cosim.simulators.grid.dispatch.nci_limits",
    "simulators.grid.dispatch": "cosim.simulators.grid.dispatch.dispatch",
    "simulators.grid.recovery": "cosim.simulators.grid.dispatch.recovery",
    "simulators.grid.horizon": "cosim.simulators.grid.dispatch.horizon",
    "simulators.grid.surplus": "cosim.simulators.grid.dispatch.surplus",
    "simulators.grid.reduced": "cosim.simulators.grid.dispatch.reduced",
    "simulators.grid.marginal": "cosim.simulators.grid.dispatch.marginal",
    "simulators.grid.mci": "cosim.simulators.grid.dispatch.mci",
    "simulators.grid.results": "cosim.simulators.grid.dispatch.results",
    "simulators.grid.sources": "cosim.simulators.grid.dispatch.sources",
    "simulators.grid.incidents": "cosim.simulators.grid.dispatch.findings",
    "simulators.aidc.cooling": "cosim.simulators.aidc.plant.cooling",
    "simulators.aidc.ambient": "cosim.simulators.aidc.plant.ambient",
    "simulators.aidc.thermal": "cosim.simulators.aidc.plant.thermal",
    "simulators.aidc.events": "cosim.simulators.aidc.engine.events",
    "simulators.aidc.facility": "cosim.simulators.aidc.engine.facility",
    "simulators.aidc.jobs": "cosim.simulators.aidc.engine.jobs",
    "simulators.aidc.carried": "cosim.simulators.aidc.engine.carried",
    "simulators.aidc.commands": "cosim.simulators.aidc.engine.commands",
    "simulators.aidc.inference": "cosim.simulators.aidc.engine.inference",
    "simulators.aidc.training": "cosim.simulators.aidc.engine.training",
    "simulators.aidc.slack": "cosim.simulators.aidc.engine.slack",
    "simulators.aidc.interval": "cosim.simulators.aidc.engine.interval",
    "simulators.aidc.racks": "cosim.simulators.aidc.engine.racks",
    "simulators.aidc.meter": "cosim.simulators.aidc.engine.meter",
    "simulators.aidc.slots": "cosim.simulators.aidc.engine.slots",
    "agents.decision": "cosim.agents.fleet.decision",
    "agents.heuristics": "cosim.agents.fleet.heuristics",
    "agents.oracle": "cosim.agents.fleet.oracle",
    "agents.allocation": "cosim.agents.fleet.allocation",
    "agents.observation": "cosim.agents.fleet.observation",
    "agents.actions": "cosim.agents.fleet.actions",
    "agents.rewards": "cosim.agents.fleet.rewards",
    "agents.policies": "cosim.agents.fleet.policies",
    "agents.learned": "cosim.agents.fleet.learned",
    "agents.teamview": "cosim.agents.fleet.team_arrays",
    "agents.spaces": "cosim.agents.fleet.spaces",
    "agents.spec": "cosim.agents.learn.spec",
    "agents.config": "cosim.agents.learn.config",
    "agents.rollout": "cosim.agents.learn.rollout",
    "agents.ppo": "cosim.agents.learn.ppo",
    "agents.team": "cosim.agents.learn.team",
    "agents.training": "cosim.agents.learn.training",
    "agents.checkpoint": "cosim.agents.learn.checkpoint",
    "agents.acting": "cosim.agents.learn.numpy_actor",
    "agents.shapes": "cosim.agents.learn.weight_shapes",
    "agents.coordinates": "cosim.agents.learn.action_maps",
    "agents.parallel_env": "cosim.agents.learn.parallel_env",
    "agents.networks.make": "cosim.agents.learn.networks.make",
    "agents.networks.distributions": "cosim.agents.learn.networks.distributions",
    "agents.networks.blocks": "cosim.agents.learn.networks.blocks",
    "agents.networks.network": "cosim.agents.learn.networks.network",
    "agents.networks.mat": "cosim.agents.learn.networks.mat",
    "agents.networks.parallel": "cosim.agents.learn.networks.parallel",
    "agents.networks": "cosim.agents.learn.networks",
}
"""Modules that were renamed as well: their names of version 0.1, and those of today."""
_SPLIT = {"cosim.replay": "cosim.replay.members"}
"""Modules that are packages today, as import strings name them."""
_LEFT = {"cosim.simulators.workload.adapter:AzureLlm": "cosim.simulators.workload.azure_llm"}
"""Classes that have left their module for another one."""

_NEEDED = ("clarabel", "gurobipy", "h5py", "mosaik", "mosaik_api_v3", "numpy", "pandapower", "pandas", "plotly",
           "pydantic", "pydantic_core", "rich", "safetensors", "scipy", "simpy", "torch")
_SHOWN = 2
_translated: dict[str, str] = {}


def today(name: str) -> str:
    """The present name of a module or of 'module:Name'; a name that is none of an earlier version comes back as it
    is."""
    module, colon, rest = name.partition(":")
    inside = module.split(".")[0] in _TOP
    if inside and _foreign(module):
        return name
    now = (_SPLIT.get(module) if colon else None) or _MOVED.get(module) or (f"cosim.{module}" if inside else module)
    if moved := _LEFT.get(f"{now}:{rest}"):
        _translated[name] = f"{moved}:{rest}"
        return _translated[name]
    if now == module:
        return name
    _translated[module] = now
    return f"{now}{colon}{rest}"


def old_names() -> list[str]:
    """A note on the names of version 0.1 that this process met; [] if there were none."""
    if not _translated:
        return []
    met = ", ".join(f"{then} is {now}" for then, now in sorted(_translated.items())[:_SHOWN])
    more = f" and {len(_translated) - _SHOWN} more" if len(_translated) > _SHOWN else ""
    return [f"names of version 0.1 stand for those of today: {met}{more}"]


def load(path: str, what: str) -> Any:
    """The object at 'package.module:Name'. Raises ScenarioError saying `what` could not be found and why."""
    path = today(path)
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ScenarioError(f"{what} '{cut(path)}' is not an import string; write package.module:Name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise ScenarioError(f"{what} '{path}' cannot be imported: {err}; install it, or check the name") from err
    except CosimError:
        raise
    except Exception as err:
        raise ScenarioError(f"{what} '{path}' fails on import: {type(err).__name__}: {err}") from err
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        place = getattr(module, "__file__", None)
        raise ScenarioError(f"{what} '{path}': {unknown(f'name in {module_name}', name, public)}"
                            + (f" (the module is {place})" if place else ""))
    return getattr(module, name)


def refuse_shadows() -> None:
    """ImportError naming a file beside the user's program that would be imported in place of a package that this one
    needs; under `python -m cosim.run` one line in place of a traceback."""
    here = Path(sys.path[0] or ".").resolve() if sys.path else Path()
    if here.name in ("site-packages", "dist-packages"):
        return
    for name in _NEEDED:
        for place in (here / f"{name}.py", here / name / "__init__.py"):
            if place.is_file():
                text = f"{place} hides the package {name}, which cosim needs; rename it"
                raise SystemExit(f"cosim: {text}") if sys.argv[:1] == ["-m"] else ImportError(text)


@contextmanager
def optional(what: str, extra: str) -> Iterator[None]:
    """For imports of what an extra brings: ScenarioError, with how to install it, where `what` cannot be had."""
    try:
        yield
    except ImportError as err:
        raise ScenarioError(f"{what} needs what is not installed here ({err}); install it with: "
                            f"pip install 'aidc-cosim[{extra}]'") from err


def hand_over(package: str) -> None:
    """Put the package of today in the place of its folder, which was found under its old name, in a clone."""
    sys.modules[package] = importlib.import_module(f"cosim.{package}")


def _foreign(module: str) -> bool:
    """Whether another package of this name would be imported: somebody's own `agents`, say."""
    top = module.split(".")[0]
    if top in sys.modules:
        return sys.modules[top] is not sys.modules.get(f"cosim.{top}")
    spec = PathFinder.find_spec(top)
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
    return spec is not None and places[:1] != [_ROOT / top]


class _OldNames(MetaPathFinder, Loader):
    """Modules under the names of version 0.1: the same objects as under those of today."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
                  ) -> ModuleSpec | None:
        if fullname.split(".")[0] not in _TOP and fullname not in _MOVED:
            return None
        now = today(fullname)
        if now == fullname or (real := importlib.util.find_spec(now)) is None:
            return None
        spec = ModuleSpec(fullname, self, origin=real.origin,
                          is_package=real.submodule_search_locations is not None)
        self._specs[fullname] = real
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(today(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it ran under its name of today, whose spec it keeps."""
        alias = module.__spec__
        module.__spec__ = self._specs[alias.name] if alias else None

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m agents.train`."""
        spec = importlib.util.find_spec(today(fullname))
        return spec.loader.get_code(spec.name) if spec and spec.loader else None  # type: ignore[attr-defined]


sys.meta_path.insert(0, _OldNames())
