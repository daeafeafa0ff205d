"""A grid's flows, demand and intensities as a trace holds them, for the laws of `cosim.simulators.analysis.balance`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.analysis.paths import BATTERY, BUS, GRID
from cosim.simulators.grid.ports import ACTIVE_DEMAND, SITE_DEMAND
from cosim.trace import Trace
from cosim.trace.series import PLAYERS, PortRef, port_ref, rows_at, scenario_of, step_s

MEMBER = "grid"
ALLOWED_KW, ALLOWED_RATIO = 1e-6, 1e-7
"""What a balance may be off: a power flow ends at a mismatch, and a bus adds up flows of the size of the largest."""
HELD = 2.0
"""Status of an interval that repeats the one before."""


@dataclass(frozen=True, eq=False)
class Flows:
    """A grid's record: arrays over (interval, branch | bus | source), kW, and where each branch and source is.

    sources come first, then batteries, which take power where p_source < 0
    kg_per_kwh    of each source, kg/kWh, of a battery that of the energy in it
    n_source      how many are sources
    drawn, local  what is drawn at each bus, and fed there by no source, both >= 0
    held          intervals that repeat the one before, as the grid found no solution
    """

    time_s: np.ndarray
    buses: list[str]
    from_bus: np.ndarray
    to_bus: np.ndarray
    source_bus: np.ndarray
    kg_per_kwh: np.ndarray
    p_from: np.ndarray
    p_to: np.ndarray
    p_source: np.ndarray
    drawn: np.ndarray
    local: np.ndarray
    held: np.ndarray
    n_source: int

    @property
    def allowed_kw(self) -> float:
        return ALLOWED_KW + ALLOWED_RATIO * largest(self.p_from, self.p_to, self.p_source)

    def entering(self) -> np.ndarray:
        """(interval, bus) what enters the branches at each bus, less what arrives."""
        out = np.zeros_like(self.drawn)
        for k, (a, b) in enumerate(zip(self.from_bus, self.to_bus, strict=True)):
            out[:, a] += self.p_from[:, k]
            out[:, b] += self.p_to[:, k]
        return out


@dataclass(frozen=True, eq=False)
class Demand:
    """Demand as links brought it: (interval, bus) kW, all of it and that of data centers; the relative error
    (interval,) with which the rest was dispatched; and at which intervals all of it is in the trace."""

    total: np.ndarray
    of_sites: np.ndarray
    error: np.ndarray
    known: np.ndarray


def demand(trace: Trace) -> Demand:
    """Of every bus of the grid at every interval, from the run's wiring and what links carried before their first
    value."""
    times, place = trace.time_s(GRID), _entity_places(trace)
    buses = _names(trace, "bus")
    total, of_sites, known = np.zeros((len(times), len(buses))), np.zeros((len(times), len(buses))), np.ones(
        len(times), bool)
    for link in links_to(trace, MEMBER):
        _, bus, port = link.target
        if port not in ACTIVE_DEMAND or bus not in place:
            continue
        column, there = carried(trace, link, times)
        known &= there
        total[:, place[bus]] += column
        if port == SITE_DEMAND[0].name:
            of_sites[:, place[bus]] += column
    error = np.zeros(len(times))
    if trace.has(f"{GRID}/forecast_error_ratio"):
        error = trace[f"{GRID}/forecast_error_ratio"][:, 0]
    return Demand(total, of_sites, error, known)


class WiredLink(NamedTuple):
    """A connection of the run: from a port, as the table 'wiring' writes it, to a port; what arrives is `scale` times
    what left `shift_s` before."""

    source: str
    target: PortRef
    shift_s: float
    scale: float


def links_to(trace: Trace, member: str) -> Iterator[WiredLink]:
    """The connections to a member, in the order of the wiring."""
    wiring = trace.table("wiring")
    sources = wiring.get("source", ())
    scales = wiring.get("scale", np.ones(len(sources)))
    for source, target, shift_s, scale in zip(sources, wiring.get("target", ()), wiring.get("shift_s", ()), scales,
                                              strict=True):
        if (end := port_ref(target)).member == member:
            yield WiredLink(source, end, shift_s, scale)


def carried(trace: Trace, link: WiredLink, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a link brought at `times`, and whether each is in the trace: of a run cut off members end at different
    times."""
    times, (member, eid, port) = times - link.shift_s, port_ref(link.source)
    model = next((m for m in trace.models() if m.startswith(f"{member}/") and eid in trace.names(m)
                  and trace.has(f"{m}/{port}")), None)
    if model is None or not len(trace.time_s(model)):
        return np.zeros(len(times)), np.zeros(len(times), bool)
    sampled, values = trace.time_s(model), trace[f"{model}/{port}"][:, trace.names(model).index(eid)]
    at = rows_at(sampled, times)
    known = times < sampled[-1] + step_s(trace, member)
    before = trace.table("initial")
    first = [float(v) for s, v in zip(before.get("source", ()), before.get("value", ()), strict=True)
             if s == link.source]
    start = first[0] if first else 0.0
    return link.scale * np.where(at >= 0, values[np.maximum(at, 0)], start), known & ((at >= 0) | bool(first))


def read_flows(trace: Trace) -> Flows:
    """TraceError, with a reason, for a grid whose flows cannot be looked at."""
    needs(trace, "p_from_kw", "p_to_kw", "p_source_kw")
    branches, sources = trace.table(f"{MEMBER}.branches"), trace.table(f"{MEMBER}.sources")
    if not branches or not sources:
        raise TraceError(f"the trace does not say where the grid's branches and sources are (tables {MEMBER}.branches, "
                         f"{MEMBER}.sources: a simulator gives them by tables(), an older trace lacks them)")
    lines, names = trace.names(GRID, "line"), trace.names(GRID, "source")
    if list(branches["name"]) != lines or list(sources["name"]) != names:
        raise TraceError(f"tables {MEMBER}.branches and {MEMBER}.sources name other branches or sources than the flows")
    buses = _names(trace, "bus") if trace.has(f"{GRID}/bus") else sorted({*branches["from_bus"], *branches["to_bus"]})
    place = {b: k for k, b in enumerate(buses)}
    from_bus, to_bus, source_bus = (np.array([place[b] for b in column], dtype=np.int64)
                                    for column in (branches["from_bus"], branches["to_bus"], sources["bus"]))
    p_from, p_to, p_source = (trace[f"{GRID}/{p}"][:, 0] for p in ("p_from_kw", "p_to_kw", "p_source_kw"))
    if trace.has(f"{GRID}/p_drawn_bus_kw"):
        drawn, local = (trace[f"{GRID}/{p}"][:, 0] for p in ("p_drawn_bus_kw", "p_local_bus_kw"))
    else:
        refuse_replayed(trace)
        net = demand(trace).total
        drawn, local = np.maximum(net, 0.0), np.maximum(-net, 0.0)
    intensity, n_source = source_intensities(trace), len(source_bus)
    if trace.has(f"{BATTERY}/p_kw"):
        count = len(trace.time_s(GRID))
        p_source = np.hstack([p_source, trace[f"{BATTERY}/p_kw"][:count]])
        intensity = np.hstack([intensity, trace[f"{BATTERY}/stored_kg_per_kwh"][:count]])
        at = dict(zip(*(trace.table(f"{MEMBER}.batteries")[column] for column in ("name", "bus")), strict=True))
        source_bus = np.append(source_bus, [place[at[name]] for name in trace.names(BATTERY)])
    return Flows(trace.time_s(GRID), buses, from_bus, to_bus, source_bus, intensity, p_from, p_to, p_source, drawn,
                 local, held(trace), n_source)


def source_intensities(trace: Trace) -> np.ndarray:
    """(interval, source) kg/kWh: as recorded where they vary, else the one of the table of sources."""
    if trace.has(f"{GRID}/source_kg_per_kwh"):
        return trace[f"{GRID}/source_kg_per_kwh"][:, 0]
    once = trace.table(f"{MEMBER}.sources")["kg_per_kwh"].astype(float)
    return np.tile(once, (len(trace.time_s(GRID)), 1))


def substation(trace: Trace) -> int:
    """Position of the source at the bus to which no branch of the radial feeder leads."""
    branches, sources = trace.table(f"{MEMBER}.branches"), trace.table(f"{MEMBER}.sources")
    if not branches or not sources:
        raise TraceError(f"the trace does not say where the grid's branches and sources are (tables {MEMBER}.branches, "
                         f"{MEMBER}.sources)")
    roots = set(branches["from_bus"]) - set(branches["to_bus"])
    at = [k for k, bus in enumerate(sources["bus"]) if bus in roots]
    if len(at) != 1:
        raise TraceError("the trace does not say which source is the substation")
    return at[0]


def marginal_emission(trace: Trace) -> np.ndarray | None:
    """(interval,) kg/h of all sources at the intensities of one more kWh of each, the substation as it came where an
    interval was settled: two runs differ by what their difference in load makes be emitted. None for a grid without
    such intensities."""
    names, power = trace.names(GRID, "source"), trace[f"{GRID}/p_source_kw"][:, 0].copy()
    if trace.has(f"{GRID}/source_marginal_kg_per_kwh"):
        weights = trace[f"{GRID}/source_marginal_kg_per_kwh"][:, 0]
    else:
        given = grid_params(trace).get("sources") or {}
        own = [given.get(n, {}).get("marginal_kg_per_kwh") for n in names]
        if not any(w is not None for w in own):
            return None
        weights = np.where([w is None for w in own], source_intensities(trace), np.array(own, float))
    if trace.has(f"{GRID}/p_substation_realised_kw"):
        came, k = np.append(trace[f"{GRID}/p_substation_realised_kw"][1:, 0], np.nan), substation(trace)
        power[:, k] = np.where(np.isfinite(came), came, power[:, k])
    return (np.maximum(power, 0.0) * weights).sum(axis=1)


def held(trace: Trace) -> np.ndarray:
    """(interval,) whether it repeats the one before."""
    if not trace.has(f"{GRID}/status"):
        return np.zeros(len(trace.time_s(GRID)), bool)
    return trace[f"{GRID}/status"][:, 0] == HELD


def grid_params(trace: Trace) -> dict[str, Any]:
    """Parameters of the grid, as the scenario gives them; {} without any."""
    return scenario_of(trace)["members"].get(MEMBER, {}).get("params", {})


def intensities(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(position on the axis `bus`, (interval, entity) kg/kWh) of the Bus entities."""
    if not trace.has(f"{BUS}/nci_kg_per_kwh"):
        raise TraceError("the grid exports no nci_kg_per_kwh")
    place, names = _entity_places(trace), trace.names(BUS)
    lost = [n for n in names if n not in place]
    if lost:
        raise TraceError(f"the trace does not say which bus {lost[0]} is (table {MEMBER}.buses)")
    nci, count = trace[f"{BUS}/nci_kg_per_kwh"], len(trace.time_s(GRID))
    if len(nci) < count:
        raise TraceError("the trace ends inside a step of the grid")
    return np.array([place[n] for n in names], dtype=np.int64), nci[:count]


def _entity_places(trace: Trace) -> dict[str, int]:
    """Position on the axis `bus` of every Bus entity."""
    buses = {b: k for k, b in enumerate(_names(trace, "bus"))}
    table = trace.table(f"{MEMBER}.buses")
    named = dict(zip(table.get("entity", ()), table.get("bus", ()), strict=True)) or {b: b for b in buses}
    return {str(entity): buses[bus] for entity, bus in named.items() if bus in buses}


def _names(trace: Trace, axis: str) -> list[str]:
    if not trace.has(f"{GRID}/{axis}"):
        branches = trace.table(f"{MEMBER}.branches")
        return sorted({*branches.get("from_bus", ()), *branches.get("to_bus", ())})
    return trace.names(GRID, axis)


def by_source(flows: Flows, values: np.ndarray) -> np.ndarray:
    """(interval, source) -> (interval, bus)."""
    out = np.zeros_like(flows.drawn)
    for k, at in enumerate(flows.source_bus):
        out[:, at] += values[:, k]
    return out


def refuse_replayed(trace: Trace) -> None:
    simulator = scenario_of(trace)["members"][MEMBER]["simulator"]
    if simulator in PLAYERS:
        raise TraceError("the grid is a recording, whose flows are those of the demand that was recorded with it")


def needs(trace: Trace, *ports: str) -> None:
    if GRID not in trace.models():
        raise TraceError(f"the grid exports no flows (no {GRID} in the trace)")
    missing = [p for p in ports if not trace.has(f"{GRID}/{p}")]
    if missing:
        raise TraceError(f"the grid exports no {' and no '.join(missing)}")
    if not len(trace.time_s(GRID)):
        raise TraceError("the grid has no interval in the trace")


def largest(*arrays: np.ndarray) -> float:
    """The largest magnitude; NaN counts as infinite."""
    return max(float(np.nan_to_num(np.abs(a), nan=np.inf).max(initial=0.0)) for a in arrays)


def where(time_s: np.ndarray, off: np.ndarray, columns: list[str] | None = None) -> str:
    """Where the largest deviation is, in words."""
    if not off.size:
        return ""
    worst = np.unravel_index(int(np.nan_to_num(off, nan=np.inf).argmax()), off.shape)
    return f"at {int(time_s[worst[0]])} s" + (f", {columns[worst[1]]}" if columns and len(worst) > 1 else "")
