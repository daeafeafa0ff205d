"""Networks as pandapower has them: read from files, made by name, converted and solved. The only owner of pandapower.

Rows: I25.
"""

from __future__ import annotations

import difflib
import inspect
import io
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandapower
import pandapower.control
import pandapower.networks
import pandapower.timeseries
import pandas
from pandapower.auxiliary import LoadflowNotConverged
from pandapower.io_utils import JSONSerializableClass
from pandapower.pypower import idx_brch, idx_bus

from cosim.errors import ScenarioError, cut
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network import file_scan as netscan
from cosim.simulators.grid.network.circuit import Admittances
from cosim.simulators.grid.network.feeder import LineList
from cosim.simulators.grid.network.file_scan import ConstructedObject, UnsafeFile
from cosim.simulators.grid.network.source import MADE, SIMBENCH, WRITERS, stamp_of
from cosim.units import KW_PER_MW

_TYPES = frozenset({
    ("pandapower.auxiliary", "pandapowerNet"), ("pandas.core.frame", "DataFrame"), ("pandas", "DataFrame"),
    ("pandas.core.series", "Series"), ("pandas", "Series"), ("numpy", "array"), ("builtins", "complex"),
    ("builtins", "tuple"), ("builtins", "set"), ("builtins", "frozenset"), ("networkx", "MultiGraph"),
    ("shapely", "Point"), ("shapely", "LineString"), ("shapely", "Polygon"),
    ("geopandas.geodataframe", "GeoDataFrame")})
"""Types (module, name) that networks are made of, beside numpy's numbers, pandas' indices and pandapower's controls."""
_ISOLATED = 4.0


def stored(network: str | LineList) -> Any:
    """The pandapower network, read once (0.7 s for 33 buses); never change it. ScenarioError if there is none."""
    return _stored(network, stamp_of(network))


@lru_cache(maxsize=64)
def _stored(network: str | LineList, stamp: int) -> Any:
    if isinstance(network, LineList):
        return _from_lines(network)
    if network in MADE:
        return _from_lines(MADE[network]())
    if Path(network).suffix in WRITERS:
        return _from_file(network)
    if network.startswith(SIMBENCH):
        return _from_simbench(network.removeprefix(SIMBENCH))
    makers = {name for name, made in inspect.getmembers(pandapower.networks, inspect.isfunction)
              if made.__module__.startswith("pandapower.networks.") and not name.startswith("_")}
    if network not in makers:
        near = difflib.get_close_matches(network, makers, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ScenarioError(
            f"unknown network '{network}'; {hint}allowed: a function of pandapower.networks such as 'case33bw', "
            "rural_mv, a SimBench code such as 'simbench:1-LV-rural1--0-sw', the path of a pandapower .json or .xlsx "
            "file, or a list of lines"
        )
    net = getattr(pandapower.networks, network)()
    if not isinstance(net, pandapower.pandapowerNet):
        raise ScenarioError(f"pandapower.networks.{network}() gives no single network; choose another")
    return net


def _from_file(network: str) -> Any:
    """The network that pandapower reads from a file, after every object in it was checked to be part of a network."""
    path, writer = Path(network), WRITERS[Path(network).suffix]
    try:
        if path.suffix == ".json":
            text = netscan.read_text(path)
            _check(netscan.constructed_objects(text))
            net = pandapower.from_json(io.StringIO(text))
        else:
            for cell in netscan.read_cells(path):
                _check(netscan.constructed_objects(cell, must=False))
            net = pandapower.from_excel(network)
    except UnsafeFile as err:
        raise netscan.refuse(network, err) from None
    except ImportError as err:
        raise ScenarioError(f"network file '{network}' cannot be read: {err}; pip install openpyxl for Excel files"
                            ) from err
    except Exception as err:  # its parser raises whatever it stumbles over
        raise ScenarioError(f"network file '{network}' is not understood ({err}); write it by {writer}") from err
    if not isinstance(net, pandapower.pandapowerNet):
        raise ScenarioError(f"network file '{network}' holds no network; write it by {writer}")
    return net


def _check(asked: Iterable[ConstructedObject]) -> None:
    """UnsafeFile for an object that is no part of a network."""
    for one in asked:
        if not _is_part(one):
            raise UnsafeFile(f"it names {one.module[:60]}.{one.name[:60]}, which is no part of a network")


def _is_part(asked: ConstructedObject) -> bool:
    """Whether a file may have this constructed. Only modules that are loaded already are looked at."""
    if (asked.module, asked.name) in _TYPES:
        return True
    package = asked.module.partition(".")[0]
    found = getattr(sys.modules.get(asked.module), asked.name, None)
    if not isinstance(found, type):
        return False
    if package == "pandapower":
        return issubclass(found, JSONSerializableClass | Enum)
    return ((asked.module == "numpy" and issubclass(found, np.number | np.bool_))
            or (package == "pandas" and issubclass(found, pandas.Index)))


def _from_simbench(code: str) -> Any:
    try:
        import simbench
    except ImportError as err:
        absent = isinstance(err, ModuleNotFoundError) and err.name == "simbench"
        raise ScenarioError("SimBench is not installed; pip install 'aidc-cosim[simbench]'" if absent else
                            f"SimBench cannot be loaded ({cut(str(err), 160)}); its version may not go with "
                            "pandapower's: pip install --upgrade 'aidc-cosim[simbench]'") from None
    codes = simbench.collect_all_simbench_codes()
    if code not in codes:
        near = difflib.get_close_matches(code, codes, n=1, cutoff=0.5)
        hint = f"did you mean '{SIMBENCH}{near[0]}'?" if near else "the codes are on simbench.de"
        raise ScenarioError(f"unknown network '{SIMBENCH}{code}'; {hint}")
    return simbench.get_simbench_net(code)


def _from_lines(network: LineList) -> Any:
    net = pandapower.create_empty_network(sn_mva=network.base_mva)
    for bus in sorted({bus for line in network.lines for bus in (line.from_bus, line.to_bus)}):
        pandapower.create_bus(net, vn_kv=network.base_kv, index=bus)
    for line in network.lines:
        pandapower.create_line_from_parameters(
            net, line.from_bus, line.to_bus, length_km=1.0, r_ohm_per_km=line.r_ohm, x_ohm_per_km=line.x_ohm,
            c_nf_per_km=0.0, max_i_ka=99999.0 if line.max_current_a is None else line.max_current_a / 1e3,
        )
    for load in network.loads:
        if load.bus not in net.bus.index:
            raise ScenarioError(f"loads: bus {load.bus} is the end of no line; buses are those that lines name")
        pandapower.create_load(net, load.bus, p_mw=load.p_kw / KW_PER_MW, q_mvar=load.q_kvar / KW_PER_MW)
    if network.substation not in net.bus.index:
        raise ScenarioError(f"substation = {network.substation} is the end of no line; buses are those that lines name")
    pandapower.create_ext_grid(net, network.substation)
    return net


# --- as the solver has it -------------------------------------------------------------------------------------------

def admittances(net: Any, base_mva: float | None = None) -> Admittances:
    """Convert a network; `net` is written to (it keeps the solver's tables). base_mva: in place of `net.sn_mva`."""
    if base_mva is not None:
        net.sn_mva = base_mva
    with suppress(LoadflowNotConverged):  # no step of Newton: the conversion alone, with the network's own options
        _run(net, init="flat", max_iteration=0)
    tables, lookups = net._ppc, net._pd2ppc_lookups
    bus, branch = tables["bus"], tables["branch"]
    at = lookups["bus"]
    row_of = {int(b): int(at[b]) for b in net.bus.index[net.bus.in_service.astype(bool)]}
    isolated = bus[:, idx_bus.BUS_TYPE] == _ISOLATED
    ends = branch[:, [idx_brch.F_BUS, idx_brch.T_BUS]].real.astype(np.int64)
    used = np.flatnonzero((branch[:, idx_brch.BR_STATUS] != 0) & ~isolated[ends].any(axis=1))
    kinds, indices = _elements(net, lookups["branch"], len(branch))
    column = {name: branch[used, getattr(idx_brch, name)].real for name in (
        "BR_R", "BR_X", "BR_R_ASYM", "BR_X_ASYM", "BR_G", "BR_B", "BR_G_ASYM", "BR_B_ASYM", "TAP", "SHIFT")}
    y = column["BR_G"] + 1j * column["BR_B"]
    tap = np.where(column["TAP"] == 0.0, 1.0, column["TAP"])
    return Admittances(
        base_mva=float(net.sn_mva), row_of=row_of, isolated=isolated,
        y_bus_pu=(bus[:, idx_bus.GS] + 1j * bus[:, idx_bus.BS]) / float(net.sn_mva),
        p_bus_kw=bus[:, idx_bus.PD] * KW_PER_MW, q_bus_kvar=bus[:, idx_bus.QD] * KW_PER_MW,
        kind=tuple(kinds[k] for k in used), index=tuple(indices[k] for k in used), row=used,
        from_row=ends[used, 0], to_row=ends[used, 1], z_pu=column["BR_R"] + 1j * column["BR_X"],
        y_from_pu=y / 2, y_to_pu=(y + column["BR_G_ASYM"] + 1j * column["BR_B_ASYM"]) / 2,
        skewed=(column["BR_R_ASYM"] != 0.0) | (column["BR_X_ASYM"] != 0.0),
        ratio=tap * np.exp(1j * np.deg2rad(column["SHIFT"])))


def _elements(net: Any, lookup: dict[str, tuple[int, int]], count: int) -> tuple[list[str], list[int]]:
    """Table and index of the element behind every branch row."""
    kinds, indices = [""] * count, [-1] * count
    for kind, (first, last) in lookup.items():
        if kind == "switch":
            numbers = [int(k) for k in net.switch.index[net._impedance_bb_switches]]
        else:
            numbers = [int(k) for k in net[kind].index] * (3 if kind == "trafo3w" else 1)
        kinds[first:last], indices[first:last] = [kind] * (last - first), numbers
    return kinds, indices


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A power flow by the solver's rows: voltages, and power entering every branch at its two ends, kW."""

    vm_pu: Floats
    va_degree: Floats
    p_from_kw: Floats
    p_to_kw: Floats


def solve(net: Any, tolerance_pu: float, init: str, recycle: bool) -> Solved | None:
    """pandapower.runpp with its defaults beside these; None where it finds no solution.

    tolerance_pu  largest mismatch of a bus on the base `net.sn_mva`: that is what pandapower compares its
                  `tolerance_mva` with
    recycle  keep the admittances of the run before, and start at `net`'s own table of voltages (`start_at`)
    """
    keep = {"recycle": {"bus_pq": True, "trafo": False, "gen": False}} if recycle else {}
    try:
        _run(net, init=init, tolerance_mva=tolerance_pu, **keep)
    except LoadflowNotConverged:
        net._ppc = None  # what is kept between runs is spoilt; the next run builds it anew
        return None
    bus, branch = net._ppc["bus"], net._ppc["branch"]
    return Solved(bus[:, idx_bus.VM].real, bus[:, idx_bus.VA].real, branch[:, idx_brch.PF].real * KW_PER_MW,
                  branch[:, idx_brch.PT].real * KW_PER_MW)


def _run(net: Any, **options: Any) -> None:
    """pandapower.runpp; ScenarioError with its own words where it refuses the network."""
    try:  # numba would save 0.4 ms a run and cost seconds of compilation in every process
        pandapower.runpp(net, algorithm="nr", numba=False, **options)
    except LoadflowNotConverged:
        raise
    except Exception as err:  # its checks raise warnings, its conversion whatever it stumbles over
        raise ScenarioError(f"pandapower refuses the network: {' '.join(str(err).split()) or type(err).__name__}; "
                            "correct what it names") from err


def start_at(net: Any, vm_pu: Floats, va_degree: Floats) -> bool:
    """Where the next recycled power flow starts, by the solver's rows; False where none can be recycled."""
    if net.get("_ppc") is None:
        return False
    net._ppc["bus"][:, idx_bus.VM], net._ppc["bus"][:, idx_bus.VA] = vm_pu, va_degree
    return True


def add_injections(net: Any, load_buses: list[int], source_buses: list[int]) -> None:
    """Loads and static generators of 0 at the given buses, after those that the network has."""
    if load_buses:
        pandapower.create_loads(net, load_buses, p_mw=0.0, q_mvar=0.0)
    for bus in source_buses:
        pandapower.create_sgen(net, bus, p_mw=0.0, q_mvar=0.0)
