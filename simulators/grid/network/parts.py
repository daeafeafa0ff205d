"""A network taken apart: its loads, its generators, storage that a scenario runs as batteries, and what is left.

Tables are pandapower's; nothing here needs pandapower itself.

Rows: I25, P07.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cosim.errors import ScenarioError
from cosim.simulators.grid.network.elements import Generator, base_loads, check, own_generators, rows_in_service
from cosim.simulators.grid.network.source import Loads, Storage
from cosim.units import KW_PER_MW

_NAMED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Of a network.

    loads       its own, per bus in service
    generators  what of it feeds beside the external grids
    storages    storage that is in `batteries` of the scenario, and in none of the networks here
    notes       phrases on what of the file is taken otherwise
    loadless    the network without its loads; a copy
    bare        without its generators, too; a copy
    """

    loads: Loads
    generators: tuple[Generator, ...]
    storages: tuple[Storage, ...]
    notes: list[str]
    loadless: Any
    bare: Any


def take_apart(net: Any, name: str, batteries: Collection[str] = ()) -> Parts:
    """The parts of a network, which is left as it is; ScenarioError for an element without proper figures.

    batteries  names of the scenario's: a storage of such a name is one of them, and none of the network's
    """
    notes = check(net, name)
    buses = buses_in_service(net)
    loads = Loads(tuple(buses), *base_loads(net, buses))
    loadless = copy.deepcopy(net)
    for kind in ("load", "asymmetric_load"):
        loadless[kind] = loadless[kind].iloc[0:0].copy()
    taken = tuple(s for s in own_storages(net) if s.name in batteries)
    loadless["storage"] = loadless["storage"].drop(index=[s.index for s in taken])
    generators = own_generators(loadless)
    bare = copy.deepcopy(loadless)
    for kind in {g.kind for g in generators}:
        bare[kind] = bare[kind].drop(index=[g.index for g in generators if g.kind == kind])
    if taken:
        names = ", ".join(s.name for s in taken[:_NAMED]) + f" and {len(taken) - _NAMED} more" * (len(taken) > _NAMED)
        notes.append(f"{names}: batteries of the scenario in the place of the file's storage, whose p_mw counts "
                     "nowhere")
    return Parts(loads, generators, taken, notes, loadless, bare)


def buses_in_service(net: Any) -> list[int]:
    """Bus numbers, ascending."""
    return sorted(int(b) for b in net.bus.index[net.bus.in_service.astype(bool)])


def own_storages(net: Any) -> tuple[Storage, ...]:
    """The storage units in service, by what a battery in their place is called: 'storage3' for storage 3.

    Power limits are max_p_mw (charging) and min_p_mw where they leave it any, else sn_mva, else |p_mw|; None where a
    figure is not there.
    """
    found = []
    for k, row in rows_in_service(net, "storage"):
        figures = {column: _figure(row, column) for column in ("max_e_mwh", "min_e_mwh", "soc_percent", "max_p_mw",
                                                               "min_p_mw", "sn_mva", "p_mw", "q_mvar")}
        kw = {column: None if value is None else KW_PER_MW * _scaling(row) * value for column, value in figures.items()}
        size = kw["sn_mva"] or abs(kw["p_mw"] or 0.0) or None
        charge, discharge = kw["max_p_mw"] or 0.0, -(kw["min_p_mw"] or 0.0)
        found.append(Storage(
            name=f"storage{k}", index=k, bus=int(row.bus), p_kw=kw["p_mw"] or 0.0, q_kvar=kw["q_mvar"] or 0.0,
            energy_max_kwh=kw["max_e_mwh"], energy_min_kwh=kw["min_e_mwh"] or 0.0, soc_percent=figures["soc_percent"],
            p_charge_max_kw=charge if charge > 0.0 else size, p_discharge_max_kw=discharge if discharge > 0.0 else size,
            by_rating=min(charge, discharge) <= 0.0))
    return tuple(found)


def close_lines(net: Any, name: str, lines: tuple[int, ...]) -> None:
    """Put lines of `net` into service and close the switches at their ends; ScenarioError for one it does not have."""
    for k in lines:
        if k not in net.line.index:
            raise ScenarioError(f"network {name} has no line {k} to close; its lines are {net.line.index.min()} to "
                                f"{net.line.index.max()}")
        net.line.loc[k, "in_service"] = True
        net.switch.loc[(net.switch.et == "l") & (net.switch.element == k), "closed"] = True


def _figure(row: Any, column: str) -> float | None:
    value = row.get(column)
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _scaling(row: Any) -> float:
    return _figure(row, "scaling") or 1.0
