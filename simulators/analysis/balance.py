"""Power and carbon at every bus, checked from a trace alone: flows, demand and intensities against each
other, worked out here anew and not by the code that wrote them.

A grid takes part that exports its flows (`p_from_kw`, `p_to_kw`) and names their places in the tables 'grid.branches'
and 'grid.sources' of the trace, which a simulator gives by `tables()`.

Rows: E02, E04, E09, E10, U18, I29.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

import numpy as np
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import MatrixRankWarning, spsolve

from cosim.errors import TraceError, listed
from cosim.simulators.analysis.flows import (
    ALLOWED_KW,
    ALLOWED_RATIO,
    BUS,
    GRID,
    MEMBER,
    Flows,
    by_source,
    demand,
    grid_params,
    intensities,
    largest,
    needs,
    read_flows,
    refuse_replayed,
    substation,
    where,
)
from cosim.simulators.grid.ports import OF_A_PHASE
from cosim.trace import Trace

ALLOWED_KG_PER_KWH = 1e-7
ALLOWED_PU = 1e-12
FAINT_RATIO = 1e-7
"""A bus that less than this share of the largest flow reaches has the intensity of rounding noise."""


class NothingToCheck(TraceError):
    """A law about something that did not occur."""


@dataclass(frozen=True)
class Finding:
    """What a law found: the largest deviation, what is allowed, where it is, and what was not looked at, and why."""

    worst: float
    allowed: float
    where: str = ""
    left_out: tuple[str, ...] = ()


# --- laws -----------------------------------------------------------------------------------------------------------


def line_ends(trace: Trace) -> Finding:
    """Both ends of all branches add up to what is lost."""
    needs(trace, "p_from_kw", "p_to_kw", "loss_kw")
    p_from, p_to, loss = (trace[f"{GRID}/{p}"][:, 0] for p in ("p_from_kw", "p_to_kw", "loss_kw"))
    off = np.abs((p_from + p_to).sum(axis=1) - loss)
    return Finding(largest(off), ALLOWED_KW, where(trace.time_s(GRID), off))


def bus_power(trace: Trace) -> Finding:
    """At every bus sources + local generation = what is drawn + what enters its branches."""
    flows = read_flows(trace)
    off = np.abs(by_source(flows, flows.p_source) + flows.local - flows.drawn - flows.entering())
    left_out = () if trace.has(f"{GRID}/p_drawn_bus_kw") else (
        "what the network itself draws at its buses: the grid has no p_drawn_bus_kw, so that only its links count",)
    return Finding(largest(off), flows.allowed_kw, where(flows.time_s, off, flows.buses),
                   (*left_out, "reactive power and how voltages follow from flows: no reactive flows are recorded"))


def bus_demand(trace: Trace) -> Finding:
    """What a bus draws is what its links brought, less what is not served; a bus at which the network itself draws or
    feeds something is left out."""
    flows = read_flows(trace)
    needs(trace, "p_drawn_bus_kw", "p_local_bus_kw")
    refuse_replayed(trace)
    linked = demand(trace)
    net = flows.drawn - flows.local
    if trace.has(f"{GRID}/unserved_bus_kw"):
        net = net + trace[f"{GRID}/unserved_bus_kw"][:, 0]
    expected = linked.total + linked.error[:, None] * (linked.total - linked.of_sites)
    if trace.has(f"{GRID}/curtailed_bus_kw"):
        net = net - trace[f"{GRID}/curtailed_bus_kw"][:, 0]
    known = linked.known & ~flows.held
    if not known.any():
        raise TraceError("no interval whose demand is all in the trace")
    own = [str(b) for b in trace.table(f"{MEMBER}.own").get("bus", ())]
    looked = np.array([b not in own for b in flows.buses])
    off = np.abs(net - expected) * looked * known[:, None]
    left_out = []
    if own:
        left_out.append(f"demand of {listed(own)}, where the network draws or feeds something of its own")
    if (count := int((~known).sum())):
        left_out.append(f"demand of {count} of {len(known)} intervals, which repeat the one before or whose demand is "
                        "not all in the trace")
    return Finding(largest(off), flows.allowed_kw, where(flows.time_s, off, flows.buses), tuple(left_out))


def voltages(trace: Trace) -> Finding:
    """The lowest and highest voltage that the grid exports are those of its buses, or, where not all of them are
    recorded, no bus has one outside; p.u."""
    needs(trace, "vm_min_pu", "vm_max_pu")
    if not trace.has(f"{BUS}/vm_pu"):
        raise TraceError("the grid exports no vm_pu")
    vm, low, high = trace[f"{BUS}/vm_pu"], *(trace[f"{GRID}/{p}"] for p in ("vm_min_pu", "vm_max_pu"))
    count = min(len(vm), len(low))
    off = np.maximum(np.maximum(low[:count] - vm[:count], vm[:count] - high[:count]), 0.0)
    own = set(trace.names(GRID, "bus")) if trace.has(f"{GRID}/bus") else set()
    left_out: tuple[str, ...] = ()
    if any(OF_A_PHASE in text for text in trace.about(f"{GRID}/vm_min_pu")):
        left_out = ("whether a bus has the lowest and the highest voltage: these are of single phases, and a bus's is "
                    "their mean",)
    elif own and own == set(trace.table(f"{MEMBER}.buses").get("bus", ())):
        reached = np.hstack([vm[:count].min(axis=1, keepdims=True) - low[:count],
                             high[:count] - vm[:count].max(axis=1, keepdims=True)])
        off = np.hstack([off, np.abs(reached)])
    else:
        left_out = ("whether a bus has the lowest and the highest voltage: not all buses are recorded",)
    return Finding(largest(off), ALLOWED_PU, where(trace.time_s(GRID)[:count], off, [
        *trace.names(BUS), "the lowest of all", "the highest of all"]), left_out)


def emission(trace: Trace) -> Finding:
    """What is emitted is what each source gives times its intensity."""
    flows = read_flows(trace)
    needs(trace, "emission_kg_per_h")
    given = np.maximum(flows.p_source, 0.0)[:, : flows.n_source]  # a battery gives back what others emitted
    by_hand = (given * flows.kg_per_kwh[:, : flows.n_source]).sum(axis=1)
    off = np.abs(by_hand - trace[f"{GRID}/emission_kg_per_h"][:, 0])
    return Finding(largest(off), flows.allowed_kw, where(flows.time_s, off))


def bus_carbon(trace: Trace) -> Finding:
    """Every bus has the intensity of what arrives there, mixed: from its branches at that of the bus that sends it."""
    flows, (at, nci) = read_flows(trace), intensities(trace)
    mixed, inflow = _mixed(flows)
    clear = inflow > FAINT_RATIO * np.maximum(inflow.max(axis=1, keepdims=True), 1e-300)
    off = np.abs(nci - mixed[:, at]) * clear[:, at]
    left_out = []
    serving = (_outflow(flows) > 2.0 * FAINT_RATIO * inflow.max(axis=1, keepdims=True)) & ~clear
    if serving.any():
        return Finding(np.inf, ALLOWED_KG_PER_KWH, f"{where(flows.time_s, serving.astype(float), flows.buses)}: power "
                       "is drawn there or passed on, and none arrives")
    faint = sorted({flows.buses[b] for k, b in zip(*np.nonzero(~clear), strict=True) if b in at})
    if faint:
        left_out.append(f"the mix at {listed(faint)}, which draws nothing in some interval and nothing flows to (the "
                        "law below has it)")
    silent = sorted({flows.buses[b] for b in np.flatnonzero(flows.drawn.any(axis=0)) if b not in at})
    if silent:
        left_out.append(f"intensity of {listed(silent)}, which draws power and exports none")
    return Finding(largest(off), ALLOWED_KG_PER_KWH, where(flows.time_s, off, [flows.buses[b] for b in at]),
                   tuple(left_out))


def carbon_total(trace: Trace) -> Finding:
    """Carbon generated or given back by batteries = what is drawn or stored at the intensity of its bus + what branches
    lose at that of the end that sends, kg/h; both ends send where both feed the loss."""
    flows, (at, nci) = read_flows(trace), intensities(trace)
    mixed, inflow = _mixed(flows)
    everywhere = mixed.copy()
    everywhere[:, at] = nci
    taken = flows.drawn - by_source(flows, np.minimum(flows.p_source, 0.0))  # what a source takes is drawn
    of_branches = (np.maximum(flows.p_from, 0.0) * everywhere[:, flows.from_bus]
                   + np.maximum(flows.p_to, 0.0) * everywhere[:, flows.to_bus]
                   - np.maximum(-flows.p_from, 0.0) * everywhere[:, flows.to_bus]
                   - np.maximum(-flows.p_to, 0.0) * everywhere[:, flows.from_bus])
    generated = (np.maximum(flows.p_source, 0.0) * flows.kg_per_kwh).sum(axis=1)
    off = np.abs(generated - (taken * everywhere).sum(axis=1) - of_branches.sum(axis=1))
    return Finding(largest(off), flows.allowed_kw, where(flows.time_s, off))


def dead_buses(trace: Trace) -> Finding:
    """A bus that no power reaches has the intensity of a nearest one that some does reach, or 0 without one;
    where rounding noise reaches it, one between those of what stands there and is nearest."""
    flows, (at, nci) = read_flows(trace), intensities(trace)
    mixed, inflow = _mixed(flows)
    live = inflow > FAINT_RATIO * np.maximum(inflow.max(axis=1, keepdims=True), 1e-300)
    if live[:, at].all():
        raise NothingToCheck("no bus without power")
    near: list[list[int]] = [[] for _ in flows.buses]
    for a, b in zip(flows.from_bus, flows.to_bus, strict=True):
        near[a].append(b)
        near[b].append(a)
    off = np.zeros_like(nci)
    for k, j in zip(*np.nonzero(~live[:, at]), strict=True):
        bus = int(at[j])
        may = [mixed[k, b] for b in _nearest(bus, near, live[k])]
        if inflow[k, bus] > 0.0:  # rounding noise of a branch or a source: any mix of these
            may += flows.kg_per_kwh[k, flows.source_bus == bus].tolist()
            off[k, j] = max(min(may, default=0.0) - nci[k, j], nci[k, j] - max(may, default=0.0), 0.0)
        else:
            off[k, j] = min((abs(nci[k, j] - w) for w in may), default=abs(nci[k, j]))
    return Finding(largest(off), ALLOWED_KG_PER_KWH, where(flows.time_s, off, [flows.buses[b] for b in at]))


def curtailed(trace: Trace) -> Finding:
    """What renewable sources have and do not give, and the local generation that is not taken."""
    needs(trace, "curtailed_kw", "p_source_kw")
    given = grid_params(trace).get("sources") or {}
    names = trace.names(GRID, "source")
    renewable = np.array([bool(given.get(n, {}).get("renewable")) for n in names])
    at = np.flatnonzero(renewable)
    if trace.has(f"{GRID}/source_p_max_kw"):
        most = trace[f"{GRID}/source_p_max_kw"][:, 0]
    else:
        most = np.array([[given[n]["p_max_kw"] if r else np.nan for n, r in zip(names, renewable, strict=True)]], float)
    local = trace[f"{GRID}/curtailed_bus_kw"][:, 0].sum(axis=1) if trace.has(f"{GRID}/curtailed_bus_kw") else 0.0
    said = trace[f"{GRID}/curtailed_kw"][:, 0]
    if not (len(at) or np.any(local) or said.any()):
        raise NothingToCheck("nothing to curtail")
    by_hand = (most[:, at] - trace[f"{GRID}/p_source_kw"][:, 0][:, at]).sum(axis=1) + local
    off = np.abs(by_hand - said)
    return Finding(largest(off), ALLOWED_KW + ALLOWED_RATIO * largest(most[:, at]), where(trace.time_s(GRID), off))


def within_what_is_there(trace: Trace) -> Finding:
    """No source but the substation, whose power follows from the others', gives more than it has at that time."""
    needs(trace, "p_source_kw", "marginal_sources")  # of a dispatch: set points of others know no limits
    if trace.has(f"{GRID}/source_p_max_kw"):
        most = trace[f"{GRID}/source_p_max_kw"][:, 0]
    else:
        given = grid_params(trace).get("sources") or {}
        limits = [given.get(n, {}).get("p_max_kw") for n in trace.names(GRID, "source")]
        most = np.array([[np.nan if v is None else v for v in limits]], float)
    most = np.where(np.isnan(most), np.inf, most)
    most[:, substation(trace)] = np.inf
    if not np.isfinite(most).any():
        raise NothingToCheck("no source with a limit that is known")
    power = trace[f"{GRID}/p_source_kw"][:, 0]
    off = np.maximum(power - most, 0.0)
    return Finding(largest(off), ALLOWED_KW + ALLOWED_RATIO * largest(power), where(
        trace.time_s(GRID), off, trace.names(GRID, "source")))


# --- what they work out ----------------------------------------------------------------------------------------------


def _outflow(flows: Flows) -> np.ndarray:
    """(interval, bus) what is drawn at each bus and what it sends into branches, kW."""
    out = flows.drawn.copy()
    for k, (a, b) in enumerate(zip(flows.from_bus, flows.to_bus, strict=True)):
        out[:, a] += np.maximum(flows.p_from[:, k], 0.0)
        out[:, b] += np.maximum(flows.p_to[:, k], 0.0)
    return out


def _mixed(flows: Flows) -> tuple[np.ndarray, np.ndarray]:
    """Intensity of every bus as what arrives mixes, (interval, bus) kg/kWh, and how much that is, kW."""
    n = len(flows.buses)
    given = np.maximum(flows.p_source, 0.0)
    inflow = by_source(flows, given) + flows.local
    carbon = by_source(flows, given * flows.kg_per_kwh)
    mixed = np.zeros_like(inflow)
    for k in range(len(inflow)):
        at_to, at_from = flows.p_to[k] < 0.0, flows.p_from[k] < 0.0
        sender = np.concatenate([flows.from_bus[at_to], flows.to_bus[at_from]])
        receiver = np.concatenate([flows.to_bus[at_to], flows.from_bus[at_from]])
        power = np.concatenate([-flows.p_to[k][at_to], -flows.p_from[k][at_from]])
        np.add.at(inflow[k], receiver, power)
        faint = inflow[k] <= FAINT_RATIO * inflow[k].max()
        power = np.where(faint[sender] | faint[receiver], 0.0, power)
        total = np.where(faint, 1.0, inflow[k])
        arrives = coo_array((power, (receiver, sender)), shape=(n, n))
        with catch_warnings():  # what no mixture solves gives NaN, and a law that is broken
            simplefilter("ignore", MatrixRankWarning)
            mixed[k] = spsolve((diags_array(total) - arrives).tocsc(), np.where(faint, 0.0, carbon[k]))
    return mixed, inflow


def _nearest(start: int, near: list[list[int]], live: np.ndarray) -> list[int]:
    """The live buses that the fewest branches part from `start`."""
    distance, queue = {start: 0}, deque([start])
    found: list[int] = []
    while queue:
        bus = queue.popleft()
        if found and distance[bus] >= distance[found[0]]:
            break
        for other in near[bus]:
            if other not in distance:
                distance[other] = distance[bus] + 1
                queue.append(other)
                if live[other]:
                    found.append(other)
    return [b for b in found if distance[b] == distance[found[0]]]
