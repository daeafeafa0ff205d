"""What errors, notes and warnings tell a user to set is there to be set, and helps."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from trees import nodes_of

from cosim.agents.learn.config import Learning
from cosim.commands.names import COMMANDS
from cosim.drivers.resolve import resolve
from cosim.params import field_names
from cosim.replay.members import PlayerParams, TablePlayerParams
from cosim.run import find
from cosim.scenario import Member, Scenario, override
from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.analysis.metrics import preflight
from cosim.simulators.controller.params import ControllerParams
from cosim.simulators.fleet import JobClass, Site
from cosim.simulators.forecast.adapter import Forecasts
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.carbon import CarbonFlow
from cosim.simulators.grid.opendss import OpenDss
from cosim.simulators.grid.params import GridParams
from cosim.simulators.grid.renewables import RenewablesParams
from cosim.simulators.grid.series import IntensitySeries
from cosim.simulators.profile import ForecastProfileParams
from cosim.simulators.tariff import TimeOfUse
from cosim.simulators.workload.adapter import Arrivals
from cosim.simulators.workload.azure_llm import AzureLlm
from cosim.simulators.workload.cluster import ClusterTrace
from cosim.simulators.workload.job_table import JobTable
from cosim.simulators.workload.recorded import RecordedJobs

REPO = Path(__file__).parents[1]
MEMBERS: dict[str, tuple[type, ...]] = {
    "workload": tuple(c.PARAMS for c in (Arrivals, AzureLlm, ClusterTrace, JobTable, RecordedJobs)),
    "grid": (GridParams, *(c.PARAMS for c in (AcPowerFlow, OpenDss, IntensitySeries, CarbonFlow))),
    "aidc": (DataCenters.PARAMS,), "controller": (ControllerParams,), "profile": (ForecastProfileParams,),
    "tariff": (TimeOfUse.PARAMS,), "learn": (Learning,),
    "renewables": (RenewablesParams,), "forecast": (Forecasts.PARAMS,)}
SHARED = {"job_classes": JobClass, "sites": Site}
PLACEHOLDER = "§"
PATH = r"[\w§]+(?:\.[\w§]+)+"
# what a user is told to set, and every other mention of a field of one of the study's members
SET = re.compile(rf"--set ({PATH})(?==|\s|$|[.,;:)])|\bset ({PATH})=")
NAMED = re.compile(rf"(?<![\w.])((?:{'|'.join([*MEMBERS, 'shared'])})\.[a-z§][\w§]*(?:\.[\w§]+)*)(?![\w§(\[*])")


@cache
def spoken() -> dict[str, str]:
    """'file:line' -> text of every string in an error, note, warning or description; what is put in is a '§'."""
    found = {}
    for path in sorted(p for folder in ("agents", "cosim", "simulators") for p in (REPO / folder).rglob("*.py")):
        silent: set[int] = set()  # docstrings, and parts of what is already seen: a walk meets the whole first
        for node in nodes_of(path):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(
                    node.body[0], ast.Expr):
                silent.add(id(node.body[0].value))
            if isinstance(node, ast.JoinedStr):
                silent.update(map(id, node.values))
                text = "".join(v.value if isinstance(v, ast.Constant) else PLACEHOLDER for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
                text = node.value
            else:
                continue
            if " " in text:
                found[f"{path.relative_to(REPO)}:{node.lineno}"] = text
    return found


def inner(annotation: Any) -> list[type]:
    """Parameter classes that a field's annotation may hold."""
    if get_origin(annotation) in (Annotated, Union, UnionType, dict, tuple, list):
        return [cls for part in get_args(annotation) for cls in inner(part)]
    return [annotation] if field_names(annotation) else []


def settable(path: str) -> bool:
    """Whether `--set` reaches a path in some scenario; '§' stands for any name, or any part of one."""
    member, *fields = path.split(".")
    if member == "shared":
        return fields[0] == PLACEHOLDER or fields[0] in SHARED and leaf(SHARED[fields[0]], fields[2:])
    every = [cls for classes in MEMBERS.values() for cls in classes] + [PlayerParams, TablePlayerParams]
    classes = [*MEMBERS.get(member, every), PlayerParams, TablePlayerParams]
    return fields[0] in field_names(Member) or any(leaf(cls, fields) for cls in classes)


def leaf(cls: type, fields: list[str]) -> bool:
    """Whether a class of parameters has a field, and that one the next, and so on."""
    if not fields:
        return True
    pattern = re.compile(re.escape(fields[0]).replace(PLACEHOLDER, ".*"))
    for name, field in cls.__pydantic_fields__.items():
        if pattern.fullmatch(name):
            nested = inner(field.annotation)
            rest = fields[1:]
            if not rest or not nested or any(leaf(c, rest) or leaf(c, rest[1:]) and rest[1:] for c in nested):
                return True
    return False


def test_the_resolver_knows_what_is_not_there():
    assert all(settable(p) for p in ("workload.rate_scale", "workload.columns.unit", "controller.reward.carbon",
                                     "§.prices_overflow", "shared.sites.NAME.racks", "grid.sources.gt6.p_max_kw"))
    assert not any(settable(p) for p in ("workload.strict", "workload.columns.units", "grid.lamda_kw_per_kg_h",
                                         "controller.carbon",
                                         "shared.sites.NAME.rack"))


def test_fields_that_messages_tell_to_set_exist():
    texts = spoken()
    told = {(where, a or b) for where, text in texts.items() for a, b in SET.findall(text)}
    told |= {(where, path) for where, text in texts.items() for path in NAMED.findall(text)}
    assert len(told) > 30
    wrong = sorted(f"{where}: {path}" for where, path in told if not settable(path) and not is_port(path))
    assert wrong == []


def test_commands_that_messages_name_exist():
    """In the one form that works wherever the package is installed."""
    texts = spoken()
    named = {(where, name) for where, text in texts.items()
             for name in re.findall(r"(?<![\w-])cosim (?!needs)([a-z][\w-]*)", text)}
    assert len(named) > 8
    assert not sorted(f"{where}: cosim {name}" for where, name in named if name not in COMMANDS)
    modules = {command.module.removesuffix(".command") for command in COMMANDS.values()}
    old = re.compile(rf"python -m cosim|(?<![\w.])(?:{'|'.join(map(re.escape, modules))})(?![\w.:])")
    wrong = {where: text for where, text in texts.items() if old.search(text.replace("%(python)s -m cosim.serve", ""))}
    assert not wrong


def is_port(path: str) -> bool:
    """member.port, as links and --map name it, is not set but linked."""
    member, name, *rest = path.split(".")
    models = {"grid": "grid/ports.py", "controller": "controller/adapter.py"}
    return not rest and member in models and f'"{name}"' in (REPO / "simulators" / models[member]).read_text()


SWF_LINE = "{} {} 0 36000 256 -1 -1 256 -1 -1 1 -1 -1 -1 -1 -1 -1 -1\n"
"""10 h on 256 GPUs: within its 7 days on the 16 that one job can use, so that load alone is what is too much."""


def heavy(tmp_path: Path, name: str) -> Scenario:
    """A scenario with far too much to do."""
    if name == "openb":
        trace = tmp_path / "heavy.swf"
        trace.write_text("".join(SWF_LINE.format(k, 60 * k) for k in range(100)))
        return override(find("openb"), {"workload.format": "swf", "workload.path": str(trace), "workload.begin_s": 0})
    if name == "azure_llm":
        trace = tmp_path / "heavy.csv"
        trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
            f"2026-01-01 00:00:{k % 60:02d},900000,900000\n" for k in range(900)))
        return override(find("azure_llm"), {"workload.path": str(trace), "workload.trace_rate_scale": 3})
    return override(find("ieee33"), {"workload.rate_scale": 2.0})


@pytest.mark.parametrize("name", ["ieee33", "openb", "azure_llm"])
def test_too_much_load_fits_with_what_the_warning_tells_to_set(tmp_path, name):
    """Of stochastic arrivals and of traces, whose rate is another field."""
    scenario = heavy(tmp_path, name)
    for _ in range(3):  # a class at a time, then all of them
        warnings = preflight(resolve(scenario, 3600.0)).warnings
        if not warnings:
            break
        told = dict(pair.rstrip(",").split("=") for w in warnings for pair in re.findall(r"--set (\S+=[\d.]+)", w))
        assert told
        scenario = override(scenario, told)
    ratio = preflight(resolve(scenario, 3600.0)).figures["offered_load_ratio"]
    assert not warnings
    assert 0.3 < ratio <= 0.95
