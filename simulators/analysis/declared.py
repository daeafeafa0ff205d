"""Sources that a grid of one's own declares, without flows: their power against what is drawn and lost, and their
carbon against what is attributed to it.

A grid declares them by `p_source_kw` of its entity `Grid`, an axis `source`, with their intensities in
`source_kg_per_kwh` or the table 'sources' of `tables()`; or by a model `Source`, an entity each, with `p_kw` and
`kg_per_kwh`. What is lost is `loss_kw` of `Grid`, nothing without it.

Rows: E10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import (
    ALLOWED_KW,
    ALLOWED_RATIO,
    BUS,
    GRID,
    MEMBER,
    carried,
    largest,
    links_to,
    refuse_replayed,
    where,
)
from cosim.simulators.grid.ports import ACTIVE_DEMAND
from cosim.trace import Trace

SOURCE = f"{MEMBER}/Source"
HOW = ("the grid declares no sources: give p_source_kw of Grid by source, with kg_per_kwh in the table 'sources', or "
       "p_kw and kg_per_kwh of a model Source")


@dataclass(frozen=True, eq=False)
class Declared:
    """A grid's record over (interval, source | bus), kW: what sources give, > 0 feeds, and what is drawn, > 0; kg/kWh
    of both; what is lost; and at which intervals all demand is in the trace."""

    time_s: np.ndarray
    power: np.ndarray
    kg_per_kwh: np.ndarray
    net: np.ndarray
    nci: np.ndarray
    loss: np.ndarray
    known: np.ndarray

    @property
    def allowed_kw(self) -> float:
        return ALLOWED_KW + ALLOWED_RATIO * largest(self.power, self.net)


def declared_power(trace: Trace) -> Finding:
    """Sources give what is drawn, less what is fed at the buses, and what is lost."""
    of = _declared(trace)
    off = np.abs(of.power.sum(axis=1) - of.net.sum(axis=1) - of.loss) * of.known
    return Finding(largest(off), of.allowed_kw, where(of.time_s, off), _left_out(of))


def declared_carbon(trace: Trace) -> Finding:
    """What sources emit is attributed to what is drawn at its bus's intensity; the rest is that of the losses, of which
    each kWh has an intensity between those of the sources, kg/h. A recorded emission is what the sources emit."""
    of = _declared(trace)
    gives = np.maximum(of.power, 0.0)
    taken = -np.minimum(of.power, 0.0).sum(axis=1)
    rest = (gives * of.kg_per_kwh).sum(axis=1) - (np.maximum(of.net, 0.0) * of.nci).sum(axis=1)
    cleanest, dirtiest = _range(of)
    other = of.loss + taken  # what sources take is drawn at an intensity that is not recorded
    off = np.maximum(np.maximum(other * cleanest - rest, rest - other * dirtiest), 0.0) * of.known
    if trace.has(f"{GRID}/emission_kg_per_h"):
        said = trace[f"{GRID}/emission_kg_per_h"][: len(off), 0]
        off = np.maximum(off, np.abs((gives * of.kg_per_kwh).sum(axis=1) - said))
    return Finding(largest(off), of.allowed_kw, where(of.time_s, off), (
        *_left_out(of), "carbon at single buses: the grid records no flows, so that only its total is checked"))


def declared_range(trace: Trace) -> Finding:
    """Where power is drawn the intensity is between those of the sources that give some; local generation has 0."""
    of = _declared(trace)
    cleanest, dirtiest = _range(of)
    drawn = of.net > ALLOWED_KW
    off = np.maximum(np.maximum(cleanest[:, None] - of.nci, of.nci - dirtiest[:, None]), 0.0) * drawn
    return Finding(largest(off), ALLOWED_RATIO, where(of.time_s, off, trace.names(BUS)))


def _range(of: Declared) -> tuple[np.ndarray, np.ndarray]:
    """(interval,) the lowest and the highest intensity of what feeds the network."""
    gives = of.power > 0.0
    low = np.where(gives, of.kg_per_kwh, np.inf).min(axis=1, initial=np.inf)
    high = np.where(gives, of.kg_per_kwh, -np.inf).max(axis=1, initial=-np.inf)
    local = (of.net < 0.0).any(axis=1) | ~gives.any(axis=1)
    return np.where(local, 0.0, low), np.where(gives.any(axis=1), high, 0.0)


def _declared(trace: Trace) -> Declared:
    if trace.has(f"{GRID}/p_from_kw"):
        raise NothingToCheck("the grid records flows")
    refuse_replayed(trace)
    if trace.has(f"{GRID}/p_source_kw"):
        power, model = trace[f"{GRID}/p_source_kw"][:, 0], GRID
        weight = _of_grid(trace, power)
    elif trace.has(f"{SOURCE}/p_kw") and trace.has(f"{SOURCE}/kg_per_kwh"):
        power, weight, model = trace[f"{SOURCE}/p_kw"], trace[f"{SOURCE}/kg_per_kwh"], SOURCE
    else:
        raise TraceError(HOW)
    if not trace.has(f"{BUS}/nci_kg_per_kwh"):
        raise TraceError("the grid exports no nci_kg_per_kwh")
    times, nci = trace.time_s(model), trace[f"{BUS}/nci_kg_per_kwh"]
    count = min(len(times), len(nci), len(power), len(weight))
    if not count:
        raise TraceError("the grid has no interval in the trace")
    net, known = _net(trace, times[:count])
    loss = trace[f"{GRID}/loss_kw"][:count, 0] if trace.has(f"{GRID}/loss_kw") else np.zeros(count)
    return Declared(times[:count], power[:count], weight[:count], net, nci[:count], loss, known)


def _of_grid(trace: Trace, power: np.ndarray) -> np.ndarray:
    """(interval, source) kg/kWh: as recorded, else of the table."""
    if trace.has(f"{GRID}/source_kg_per_kwh"):
        return trace[f"{GRID}/source_kg_per_kwh"][:, 0]
    table = trace.table(f"{MEMBER}.sources")
    if not {"name", "kg_per_kwh"} <= table.keys() or list(table["name"]) != trace.names(GRID, "source"):
        raise TraceError("the grid has p_source_kw and does not say what its sources emit: record source_kg_per_kwh, "
                         "or give tables() a table 'sources' with name and kg_per_kwh, in the order of the axis source")
    return np.tile(table["kg_per_kwh"].astype(float), (len(power), 1))


def _net(trace: Trace, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(interval, bus entity) what links brought, kW, and at which intervals all of it is in the trace."""
    place = {name: k for k, name in enumerate(trace.names(BUS))}
    net, known = np.zeros((len(times), len(place))), np.ones(len(times), bool)
    for link in links_to(trace, MEMBER):
        _, entity, port = link.target
        if port in ACTIVE_DEMAND and entity in place:
            column, there = carried(trace, link, times)
            net[:, place[entity]] += column
            known &= there
    if not known.any():
        raise TraceError("no interval whose demand is all in the trace")
    return net, known


def _left_out(of: Declared) -> tuple[str, ...]:
    missing = int((~of.known).sum())
    return (f"declared sources in {missing} of {len(of.known)} intervals, whose demand is not all in the trace",
            ) if missing else ()
