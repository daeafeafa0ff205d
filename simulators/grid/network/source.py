"""What a parameter names as a network, what is read of one, and those that need no network library: lists of lines, and
the feeder that ships.

Rows: I25, Z07.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from cosim.errors import ScenarioError
from cosim.limits import is_file
from cosim.simulators.grid.equations import Complexes, Floats, sums
from cosim.simulators.grid.network.circuit import Admittances
from cosim.simulators.grid.network.elements import Generator
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList, Ratings
from cosim.simulators.grid.network.rural import rural_mv

SIMBENCH = "simbench:"
"""What the name of a SimBench network begins with, its code behind it."""
WRITERS = {".json": "pandapower.to_json", ".xlsx": "pandapower.to_excel"}
"""What writes a network file, by its ending."""
SHIPPED = frozenset({"case33bw"})
"""Networks of pandapower that stand in a file beside this module, as lines and loads: `NAME.json`."""
MADE = {"rural_mv": rural_mv}
"""Networks that are made by formulas, by name."""
ELSEWHERE = "the grid without an optimiser models it: cosim.simulators.grid.ac:AcPowerFlow"
"""What a message adds where a radial feeder cannot be made."""


def name_of(network: str | LineList) -> str:
    """What messages call a network."""
    return network if isinstance(network, str) else f"of {len(network.lines)} lines"


def stamp_of(network: str | LineList) -> int:
    """Time of the file's last change, ns; 0 for what is no file. ScenarioError without the file."""
    if not isinstance(network, str) or not network.endswith(tuple(WRITERS)):
        return 0
    if not is_file(network):
        raise ScenarioError(f"network file '{network}' does not exist; give the path of a pandapower .json or .xlsx")
    return Path(network).stat().st_mtime_ns


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """The base load of a network: bus numbers in service, ascending, and what is drawn at each, kW and kvar."""

    bus_ids: tuple[int, ...]
    p_kw: Floats
    q_kvar: Floats


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage unit of a network as its file has it: kW, kvar and kWh, p_kw > 0 charges; None: not stated.

    by_rating  a limit of its power is sn_mva, or |p_mw|, as the file's own limit leaves it none in that direction
    """

    name: str
    index: int
    bus: int
    p_kw: float
    q_kvar: float
    energy_max_kwh: float | None
    energy_min_kwh: float
    soc_percent: float | None
    p_charge_max_kw: float | None
    p_discharge_max_kw: float | None
    by_rating: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RadialData:
    """All that is read of a network with one external grid.

    base_mva, base_kv  what 1 p.u. is (base_kv: at the external grid)
    root_bus, v0_pu  bus number of the external grid, and its voltage
    loads            the network's own
    solver           admittances of the network without its loads and generators, on `base_mva`
    z_pu             (n_branch,) series impedances; those of lines from their own figures
    base_kv_of       bus number -> nominal voltage, kV
    ratings          of the solver's rows
    generators, left_out, rated_kw, voltage_limits, batteries  as `Feeder` has them
    """

    name: str
    base_mva: float
    base_kv: float
    root_bus: int
    v0_pu: float
    loads: Loads
    solver: Admittances
    z_pu: Complexes
    base_kv_of: Mapping[int, float]
    ratings: Ratings
    generators: tuple[Generator, ...] = ()
    left_out: tuple[str, ...] = ()
    rated_kw: float | None = None
    voltage_limits: tuple[tuple[int, float, float], ...] = ()
    batteries: tuple[tuple[str, int], ...] = ()


def listed(network: str | LineList) -> RadialData | None:
    """A network that needs no network library; None for any other. ScenarioError where its figures make no sense."""
    if isinstance(network, LineList):
        return _of_lines(network, name_of(network))
    if network in MADE:
        return _made(network)
    return _shipped(network) if network in SHIPPED else None


def series_pu(r_ohm: float, x_ohm: float, length: float, parallel: float, base_kv: float, base_mva: float) -> complex:
    """Series impedance of a line, p.u., of its figures per length."""
    per_pu = length / parallel / (base_kv**2 / base_mva)
    return complex(r_ohm * per_pu, x_ohm * per_pu)


@cache
def _made(name: str) -> RadialData:
    return _of_lines(MADE[name](), name)


@cache
def _shipped(name: str) -> RadialData:
    given = json.loads((resources.files(__package__) / f"{name}.json").read_text(encoding="utf-8"))
    lines = LineList(given["base_kv"], tuple(Line(*line) for line in given["lines"]),
                     tuple(BaseLoad(*load) for load in given["loads"]), substation=given["substation"])
    return _of_lines(lines, name, given["v0_pu"], tuple(given["vm_limits_pu"]))


def _of_lines(network: LineList, name: str, v0_pu: float = 1.0,
              vm_limits_pu: tuple[float, float] = (np.nan, np.nan)) -> RadialData:
    buses = sorted({bus for line in network.lines for bus in (line.from_bus, line.to_bus)})
    row_of = {bus: k for k, bus in enumerate(buses)}
    n, count = len(buses), len(network.lines)
    for load in network.loads:
        if load.bus not in row_of:
            raise ScenarioError(f"loads: bus {load.bus} is the end of no line; buses are those that lines name")
    if network.substation not in row_of:
        raise ScenarioError(f"substation = {network.substation} is the end of no line; buses are those that lines name")
    for k, line in enumerate(network.lines):
        if line.r_ohm == line.x_ohm == 0.0:
            raise ScenarioError(f"network {name}: line {k} ({line.from_bus}-{line.to_bus}) has no impedance; merge its "
                                "two buses, or join them by a bus-bus switch")
    ends = np.array([(row_of[line.from_bus], row_of[line.to_bus]) for line in network.lines], dtype=np.int64)
    z_pu = np.array([series_pu(line.r_ohm, line.x_ohm, 1.0, 1.0, network.base_kv, network.base_mva)
                     for line in network.lines])
    at = np.array([row_of[load.bus] for load in network.loads], dtype=np.int64)
    p_kw, q_kvar = (sums(at, np.array([getattr(load, unit) for load in network.loads], dtype=float), n)
                    for unit in ("p_kw", "q_kvar"))
    solver = Admittances(
        base_mva=network.base_mva, row_of=row_of, isolated=np.zeros(n, bool), y_bus_pu=np.zeros(n, complex),
        p_bus_kw=np.zeros(n), q_bus_kvar=np.zeros(n), kind=("line",) * count, index=tuple(range(count)),
        row=np.arange(count), from_row=ends[:, 0], to_row=ends[:, 1], z_pu=z_pu,
        y_from_pu=np.zeros(count, complex), y_to_pu=np.zeros(count, complex), skewed=np.zeros(count, bool),
        ratio=np.ones(count, complex))
    return RadialData(
        name=name, base_mva=network.base_mva, base_kv=network.base_kv, root_bus=network.substation, v0_pu=v0_pu,
        loads=Loads(tuple(buses), p_kw, q_kvar), solver=solver, z_pu=z_pu,
        base_kv_of=dict.fromkeys(buses, network.base_kv), ratings=Ratings(
            np.array([np.nan if line.max_current_a is None else line.max_current_a for line in network.lines]),
            np.full(count, np.nan), np.ones(count)),
        voltage_limits=tuple((bus, *vm_limits_pu) for bus in buses if bus != network.substation))
