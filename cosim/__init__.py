"""Discrete-event co-simulation of AI data centers, distribution grids and the agents that steer them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosim.imports import find_beside, refuse_shadows  # names of earlier versions resolve from here on

if TYPE_CHECKING:
    from cosim.adapter import Adapter
    from cosim.campaign.sweep import run_sweep
    from cosim.digest import Digest
    from cosim.errors import CosimError, ModelError, ScenarioError, SolverError, TraceError
    from cosim.experiment import Experiment
    from cosim.learning.environment import vector_env
    from cosim.ports import Port
    from cosim.report import write_page
    from cosim.request import find
    from cosim.result import Result
    from cosim.scenario import Link, Member, Scenario, override
    from cosim.simulation import simulate
    from cosim.trace import Trace
    from cosim.trust import available

__version__ = "0.1.0"
__all__ = ["Adapter", "CosimError", "Digest", "Experiment", "Link", "Member", "ModelError", "Port", "Result",
           "Scenario", "ScenarioError", "SolverError", "Trace", "TraceError", "__version__", "available", "find",
           "override", "run_sweep", "simulate", "vector_env", "write_page"]
_HOMES = {
    "Adapter": "cosim.adapter", "CosimError": "cosim.errors", "Digest": "cosim.digest",
    "Experiment": "cosim.experiment", "Link": "cosim.scenario", "Member": "cosim.scenario",
    "ModelError": "cosim.errors", "Port": "cosim.ports", "Result": "cosim.result", "Scenario": "cosim.scenario",
    "ScenarioError": "cosim.errors", "SolverError": "cosim.errors", "Trace": "cosim.trace",
    "TraceError": "cosim.errors", "available": "cosim.trust", "find": "cosim.request", "override": "cosim.scenario",
    "run_sweep": "cosim.campaign.sweep", "simulate": "cosim.simulation", "vector_env": "cosim.learning.environment",
    "write_page": "cosim.report"}
"""Where the public names are: each is imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cosim' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


find_beside(__path__)
refuse_shadows()
