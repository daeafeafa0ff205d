"""Voltages at one-minute power, from a trace: between two dispatches a data centre does not stand still.

Rows: E07, M09, P01.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cosim.params import field_names, validate
from cosim.simulators.analysis.flows import links_to
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.sources import all_sources
from cosim.simulators.grid.equations import Complexes, Floats, radial_voltages
from cosim.simulators.grid.network.feeder import Feeder
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.params import GridParams
from cosim.simulators.grid.ports import ACTIVE_DEMAND, REACTIVE_DEMAND
from cosim.trace import Trace
from cosim.trace.series import port_ref, scenario_of, standing

_AT_ONCE = 512
_BY_MINUTE = {"p_window_kw": "p_kw", "q_window_kvar": "q_kvar"}
"""A site's mean over the grid's step, and the minute means behind it."""


@dataclass(frozen=True, eq=False)
class MinuteVoltages:
    """Voltages (n_time, n_bus) of `buses`, NaN where there is no power flow, and the limits of (7), p.u.; a row for
    each sample of the recorded model `clock`, at `time_s` (n_time,)."""

    clock: str
    time_s: np.ndarray
    buses: tuple[str, ...]
    vm_pu: Floats
    vm_min_pu: float
    vm_max_pu: float

    def outside(self) -> np.ndarray:
        """(n_time,) whether a voltage is outside its limits by more than rounding, or there is no power flow."""
        low, high = self.vm_min_pu - 1e-9, self.vm_max_pu + 1e-9
        return np.asarray(~((self.vm_pu >= low) & (self.vm_pu <= high)).all(axis=1))

    def near(self, within_pu: float, use: np.ndarray) -> list[str]:
        """Buses that came closer than `within_pu` to a limit, or past it, in the samples that `use` (n_time,) marks."""
        room_pu = np.minimum(self.vm_pu - self.vm_min_pu, self.vm_max_pu - self.vm_pu)[use]
        return [bus for bus, close in zip(self.buses, (room_pu < within_pu).any(axis=0), strict=True) if close]


def minute_voltages(trace: Trace, member: str = "grid") -> MinuteVoltages | None:
    """AC power flow of every minute of a run: demand as it was, sources at the set points of their interval.

    None for a grid that is not `CefDispatch`, or whose demand has no minute figures. In an interval with unserved power
    all demand is counted.
    """
    scenario = scenario_of(trace)
    spec = scenario["members"].get(member)
    if spec is None or spec["simulator"] != f"{CefDispatch.__module__}:{CefDispatch.__name__}":
        return None
    params = _params(scenario, spec, member)
    feeder = read_feeder(params.network, params.batteries)
    wires = _wires(trace, member)
    clock = next((wire.model for wire in wires if wire.port in _BY_MINUTE), None)
    if clock is None:
        return None
    time_s = trace.time_s(clock)
    demand = _demand(trace, feeder, wires, time_s, member)
    demand += (feeder.own_p_kw + 1j * feeder.own_q_kvar)[:, None]
    if trace.has(path := f"{member}/Grid/curtailed_bus_kw"):
        demand += np.minimum(standing(trace, path, time_s)[:, 0].T, np.maximum(-demand.real, 0.0))
    demand -= _sources(trace, params, feeder, time_s, member)
    vm_pu = np.concatenate([
        np.abs(radial_voltages(feeder.tree, demand[:, k: k + _AT_ONCE] / feeder.base_kw, feeder.voltage(params.v0_pu)))
        for k in range(0, len(time_s), _AT_ONCE)], axis=1) * feeder.vm_ratio[:, None]
    return MinuteVoltages(clock, time_s, tuple(feeder.bus_names), vm_pu.T, params.vm_min_pu, params.vm_max_pu)


def _params(scenario: dict[str, Any], spec: dict[str, Any], member: str) -> GridParams:
    shared = {k: v for k, v in scenario["shared"].items() if k in field_names(GridParams)}
    return validate(GridParams, {**shared, **spec["params"]}, member)


class _DemandLink(NamedTuple):
    """A link to the grid's demand: `scale` times column `at` of a model's port, to a bus, as reactive power or as
    active."""

    model: str
    port: str
    at: int
    bus: str
    reactive: bool
    scale: float


def _wires(trace: Trace, member: str) -> list[_DemandLink]:
    out = []
    places = {(model.split("/")[0], eid): (model, at) for model in trace.models()
              for at, eid in enumerate(trace.names(model))}
    for link in links_to(trace, member):
        _, bus, into = link.target
        if into in (*ACTIVE_DEMAND, *REACTIVE_DEMAND):
            who, eid, port = port_ref(link.source)
            model, at = places[who, eid]
            out.append(_DemandLink(model, port, at, bus, into in REACTIVE_DEMAND, link.scale))
    return out


def _demand(trace: Trace, feeder: Feeder, wires: list[_DemandLink], time_s: np.ndarray, member: str) -> Complexes:
    demand = np.zeros((feeder.n_bus, len(time_s)), complex)
    columns: dict[tuple[str, str], np.ndarray] = {}
    for wire in wires:
        name = wire.model, _BY_MINUTE.get(wire.port, wire.port)
        if name not in columns:
            columns[name] = standing(trace, "/".join(name), time_s)
        values = wire.scale * columns[name][:, wire.at]
        demand[feeder.named(wire.bus, member)] += 1j * values if wire.reactive else values
    return demand


def _sources(trace: Trace, params: GridParams, feeder: Feeder, time_s: np.ndarray, member: str) -> Complexes:
    power = np.zeros((feeder.n_bus, len(time_s)), complex)
    p_kw, q_kvar = (standing(trace, f"{member}/Grid/{port}", time_s)[:, 0] for port in ("p_source_kw", "q_source_kvar"))
    values = p_kw + 1j * q_kvar
    given = all_sources(params.sources, feeder, params.network_sources, member)
    for k, (name, source) in enumerate(given.items()):
        power[feeder.position(source.node, f"sources.{name}.node")] += values[:, k]
    if trace.has(f"{member}/Battery/p_kw"):
        for column, name in zip(standing(trace, f"{member}/Battery/p_kw", time_s).T, trace.names(f"{member}/Battery"),
                                strict=True):
            power[feeder.position(params.batteries[name].node, f"batteries.{name}.node")] += column
    return power
