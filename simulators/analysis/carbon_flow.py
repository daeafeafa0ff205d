"""Outputs of a `CarbonFlow` beside a foreign grid, checked against the powers that were linked to it.

Rows: E09, E10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cosim.errors import TraceError
from cosim.imports import today
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import ALLOWED_KW, ALLOWED_RATIO, carried, largest, links_to, where
from cosim.trace import Trace
from cosim.trace.series import PortRef, scenario_of

_SIMULATOR = "cosim.simulators.grid.carbon:CarbonFlow"


@dataclass(frozen=True, eq=False)
class _Beside:
    """A CarbonFlow's record: arrays over (time, ...), kW. known: times at which all that was linked is in the trace.

    p_net      net demand of all buses but the slack bus, whose power is the network's; None: the entities' names do not
               show which bus that is
    p_source   of each source, the substation's as CarbonFlow works it out; kg_per_kwh of each
    """

    name: str
    time_s: np.ndarray
    p_net: np.ndarray | None
    p_source: np.ndarray
    kg_per_kwh: np.ndarray
    p_substation: np.ndarray
    known: np.ndarray


def carbon_beside(trace: Trace) -> Finding:
    """Of a CarbonFlow: the substation gives the net demand of all buses and the losses, kW; what is emitted is what
    each source gives at its intensity, kg/h; an intensity is not above that of the dirtiest source, kg/kWh."""
    found, left_out = [], ["carbon at single buses beside a grid that exports no flows"]
    for beside in _all_of(trace):
        known, of = beside.known, f"{beside.name}/Carbon"
        emitted = np.maximum(beside.p_source, 0.0) @ beside.kg_per_kwh
        nci = trace[f"{beside.name}/Bus/nci_kg_per_kwh"][: len(known)]
        above = np.maximum(np.maximum(nci - beside.kg_per_kwh.max(), -nci), 0.0).max(axis=1, initial=0.0)
        balance = np.zeros(len(known))
        if beside.p_net is not None:
            balance = beside.p_substation - trace[f"{of}/loss_kw"][:, 0] - beside.p_net
        else:
            left_out.append(f"demand and losses of {beside.name}, whose slack bus has another name")
        allowed = ALLOWED_KW + ALLOWED_RATIO * largest(beside.p_source)
        for what, off in (("power", balance), ("emission", emitted - trace[f"{of}/emission_kg_per_h"][:, 0]),
                          ("intensity", above)):
            off = np.where(known, np.abs(off), 0.0)
            found.append(Finding(largest(off), allowed, f"{what} of {beside.name} {where(beside.time_s, off)}"))
    worst = max(found, key=lambda finding: finding.worst / finding.allowed)
    return Finding(worst.worst, worst.allowed, worst.where, tuple(left_out))


def _all_of(trace: Trace) -> Iterator[_Beside]:
    members = [name for name, spec in scenario_of(trace)["members"].items() if today(spec["simulator"]) == _SIMULATOR
               and f"{name}/Carbon" in trace.models()]
    if not members:
        raise NothingToCheck("no CarbonFlow beside a grid")
    for name in members:
        yield _read(trace, name)


def _read(trace: Trace, name: str) -> _Beside:
    times = trace.time_s(f"{name}/Carbon")
    if not len(times):
        raise TraceError(f"{name} has no interval in the trace")
    given = scenario_of(trace)["members"][name]["params"]["sources"]
    links, p_net, known = list(links_to(trace, name)), np.zeros(len(times)), np.ones(len(times), bool)
    p_substation = trace[f"{name}/Carbon/p_substation_kw"][:, 0]
    power = dict.fromkeys(given, p_substation)
    slack = _slack(given, [link.target for link in links])
    for link in links:
        _, entity, port = link.target
        if port not in ("p_net_kw", "p_kw"):
            continue
        column, there = carried(trace, link, times)
        known &= there
        if port == "p_kw":
            power[entity] = column
        elif entity != slack:
            p_net += column
    if not known.any():
        raise TraceError(f"no interval of {name} whose powers are all in the trace")
    return _Beside(name, times, p_net if slack else None, np.column_stack(list(power.values())),
                   np.array([s["kg_per_kwh"] for s in given.values()]), p_substation, known)


def _slack(given: dict, ends: list[PortRef]) -> str:
    """The Bus entity at the slack bus, where the one source without an entity stands; '' if it is none. ends: where
    links arrive."""
    linked = {end.entity for end in ends if end.port == "p_kw"}
    nodes = {str(source["node"]) for source_name, source in given.items() if source_name not in linked}
    slack = [end.entity for end in ends if end.port == "p_net_kw" and end.entity.lstrip("bus") in nodes]
    return slack[0] if slack else ""
