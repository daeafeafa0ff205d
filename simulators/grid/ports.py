"""Ports: those that every grid of this package has, so that one can take another's place, and those of the dispatch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cosim.ports import Port
from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.dispatch.results import DispatchResult, Settlement, marginal_sources
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.equations import Floats

OF_A_PHASE = "of a phase"
"""In the description of a voltage of one phase, where a bus's is the mean of its phases."""

DEMAND = (
    Port("p_load_kw", "in", "active demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid; < 0 is local generation, counted at 0 kg/kWh"),
    Port("q_load_kvar", "in", "reactive demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
)
"""What is drawn at a bus."""

PER_BUS = (
    Port("p_drawn_bus_kw", "out", "active power drawn at each bus: demand that is served, and what the network itself "
         "draws there", sign="> 0 is drawn", dims=("bus",)),
    Port("p_local_bus_kw", "out", "local generation at each bus that is none of the sources, counted at 0 kg/kWh: "
         "negative demand, for example", sign="> 0 feeds the network", dims=("bus",)),
)
"""What closes the balance of every bus, beside the sources and the branches: at each, sources + local generation - what
is drawn = what enters its branches."""


def per_bus(p_load_kw: Floats) -> dict[str, list[float]]:
    """The ports of `PER_BUS` where all that a bus draws, or feeds, is its net demand (n_bus,)."""
    return {"p_drawn_bus_kw": np.maximum(p_load_kw, 0.0).tolist(),
            "p_local_bus_kw": np.maximum(-p_load_kw, 0.0).tolist()}


def fixed_tables(entity_bus: Mapping[str, str], branches: Sequence[tuple[str, str, str]],
                 sources: Sequence[tuple[str, str, float]], own: Sequence[str] = ()) -> dict[str, dict[str, list]]:
    """What a trace keeps of a grid so that its laws can be checked from the file alone.

    entity_bus  name of each Bus entity -> its bus on the axis `bus`; several share one that switches make one
    branches    (name on the axis `line`, bus at its first end, at the other), sources (name on the axis `source`, bus,
                kg/kWh), each in its axis's order
    own         buses at which the network itself draws or feeds something, beyond the demand linked to its Bus entities
    """
    def columns(names: tuple[str, ...], rows: Sequence[tuple]) -> dict[str, list]:
        return {name: [row[k] for row in rows] for k, name in enumerate(names)}

    return {"buses": columns(("entity", "bus"), list(entity_bus.items())),
            "branches": columns(("name", "from_bus", "to_bus"), branches),
            "sources": columns(("name", "bus", "kg_per_kwh"), sources), "own": {"bus": list(own)}}


def own_limits(sources: Mapping[str, Source]) -> dict[str, list]:
    """Columns for a trace: the limits of the network's own generators, NaN: none, which no scenario states."""
    columns = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar")
    return {"name": list(sources), **{column: [
        math.nan if getattr(s, column) is None else float(getattr(s, column)) for s in sources.values()]
        for column in columns}}


SITE_DEMAND = (
    Port("p_site_kw", "in", "active demand of the data centers at the bus, mean of the interval that ended; p_load_kw "
         "is then the rest", reduce="sum", default=0.0, sign="> 0 is drawn from the grid"),
    Port("q_site_kvar", "in", "the same of their reactive demand", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
)
"""Of it what data centers draw, for a grid that separates it from the base load."""

ACTIVE_DEMAND, REACTIVE_DEMAND = ("p_load_kw", "p_site_kw"), ("q_load_kvar", "q_site_kvar")
"""Ports whose sum is the demand at a bus."""

DISPATCH_BUS = (
    *DEMAND,
    *SITE_DEMAND,
    Port("p_ahead_kw", "in", "forecast of the active base load in the intervals to come, for the look-ahead; none: as "
         "now", sign="> 0 is drawn from the grid", dims=("ahead",), default=math.nan),
    Port("q_ahead_kvar", "in", "the same of the reactive base load", sign="> 0 is drawn from the grid (inductive)",
         dims=("ahead",), default=math.nan),
    Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next dispatch, average, not marginal"),
    Port("vm_pu", "out", "voltage magnitude"),
    Port("mci_kg_per_kwh", "out", "marginal carbon intensity: emission of all sources for one more kW drawn here, "
         "re-dispatched; with the reactive power of a data centre", nullable=True),
    Port("mci_down_kg_per_kwh", "out", "the same for one kW less; differs at a kink", nullable=True),
    Port("mci_status", "out", "0 derivative, 1 kink: differences of dispatches 1 kW apart, 2 kink nearby: derivative, "
         "3 of an earlier interval, as this one has no optimum, 4 none"),
)
"""Of a bus that the dispatch serves."""

DISPATCH_GRID = (
    Port("price_usd_per_kwh", "in", "price of the substation's energy; none linked: its usd_per_kwh", default=math.nan),
    Port("loss_kw", "out", "active power lost in all lines", sign="> 0 is lost"),
    Port("cost_usd_per_h", "out", "what the sources' energy costs at their prices"),
    Port("curtailed_kw", "out", "what renewable sources have and do not give, and local generation that cannot go "
         "anywhere", sign="> 0 is not taken"),
    Port("curtailed_bus_kw", "out", "of it the local generation (negative demand) of each bus",
         sign="> 0 is not taken", dims=("bus",)),
    Port("emission_kg_per_h", "out", "carbon that all sources emit, the substation included", sign="> 0 is emitted"),
    Port("p_source_kw", "out", "active power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("q_source_kvar", "out", "reactive power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("marginal_sources", "out", "1 for a source whose active power is strictly between its limits, else 0",
         dims=("source",)),
    Port("relaxation_gap_pu", "out", "largest |l u - P^2 - Q^2| of the conic relaxation (6); 0 is exact"),
    Port("relaxation_gap_ratio", "out", "(l u - P^2 - Q^2) / max(l u, 1e-6) of each line; 0 is exact", dims=("line",)),
    Port("inexact", "out", "1 where the relaxation was not exact: the set points are a local optimum of the AC "
         "problem, or, with status 2, none was found"),
    Port("vm_min_pu", "out", "lowest voltage magnitude"),
    Port("vm_max_pu", "out", "highest voltage magnitude"),
    Port("status", "out", "0 all limits met, 1 elastic: a voltage outside its limits or power unserved, 2 held: no "
         "solution, all outputs are those of the interval before"),
    Port("unserved_kw", "out", "demand that the network cannot carry", sign="> 0 is not served"),
    Port("unserved_bus_kw", "out", "the same of each bus", sign="> 0 is not served", dims=("bus",)),
    Port("voltage_slack_bus_pu", "out", "distance of each bus's voltage outside its limits",
         sign="> 0 is above the highest, < 0 below the lowest", dims=("bus",)),
    Port("nci_cap_excess_kg_per_kwh", "out", "largest distance of an NCI above its cap, where no set points meet it",
         sign="> 0 is above"),
    Port("forecast_error_ratio", "out", "of the base load that was dispatched", sign="> 0: more than came"),
    Port("global_gap_ratio", "out", "of a dispatch under NCI caps, or whose relaxation is not exact, to its proven "
         "bound", nullable=True),
    Port("voltage_violation_pu", "out", "largest distance of a voltage outside its limits", sign="> 0 is outside"),
    Port("ac_dvm_pu", "out", "largest |voltage of the conic solution - of the AC power flow|", nullable=True),
    Port("ac_dloss_kw", "out", "|loss of the conic solution - of the AC power flow|", nullable=True),
    Port("ac_dnci_kg_per_kwh", "out", "largest |nci - nci from the flows of the AC power flow|", nullable=True),
    Port("emission_realised_kg_per_h", "out", "carbon that all sources emitted in the interval that ended, at its "
         "set points and the demand that came", sign="> 0 is emitted", nullable=True),
    Port("loss_realised_kw", "out", "active power lost in the interval that ended", sign="> 0 is lost", nullable=True),
    Port("p_substation_realised_kw", "out", "substation's power in the interval that ended",
         sign="> 0 feeds the network", nullable=True),
    Port("imbalance_kwh", "out", "energy from the substation in the interval that ended, beyond what was dispatched",
         sign="> 0 is more than dispatched", nullable=True),
    Port("vm_min_realised_pu", "out", "lowest voltage in the interval that ended", nullable=True),
    Port("vm_max_realised_pu", "out", "highest voltage in the interval that ended", nullable=True),
    Port("voltage_violation_realised_pu", "out", "largest distance of a voltage outside its limits in the interval "
         "that ended", sign="> 0 is outside", nullable=True),
    Port("p_from_kw", "out", "active power at the end of each line nearer to the substation",
         sign="> 0 enters the line, away from the substation", dims=("line",)),
    Port("p_to_kw", "out", "active power at the end of each line farther from the substation",
         sign="> 0 enters the line, toward the substation", dims=("line",)),
    *PER_BUS,
)
"""Of the dispatched feeder as a whole."""

LOADING = (
    Port("loading_ratio", "out", "current (of a transformer: apparent power) at the fuller end of each line over its "
         "rating, 1 is 100 %; NaN without a rating", dims=("line",), nullable=True),
    Port("loading_realised_ratio", "out", "the same in the interval that ended, at the demand that came",
         dims=("line",), nullable=True),
    Port("overload_ratio", "out", "by how much of its rating a line is above its limit at most; 0: none is",
         sign="> 0 is overloaded"),
)
"""Of the dispatched feeder as a whole, where ratings are looked at."""


def grid_values(result: DispatchResult, base_kw: float) -> dict[str, Any]:
    """The ports of `DISPATCH_GRID` that a dispatch's result has."""
    vm_pu = result.vm_pu.tolist()
    return {
        "loss_kw": result.loss_kw,
        "emission_kg_per_h": result.emission_kg_per_h,
        "p_source_kw": result.p_source_kw.tolist(),
        "q_source_kvar": result.q_source_kvar.tolist(),
        "marginal_sources": marginal_sources(result, base_kw),
        "relaxation_gap_pu": result.relaxation_gap_pu,
        "relaxation_gap_ratio": result.relaxation_gap_ratio.tolist(),
        "vm_min_pu": min(vm_pu),
        "vm_max_pu": max(vm_pu),
        "unserved_kw": float(result.unserved_kw.sum()),
        "unserved_bus_kw": result.unserved_kw.tolist(),
        "cost_usd_per_h": result.cost_usd_per_h,
        "curtailed_kw": result.curtailed_kw,
        "curtailed_bus_kw": result.curtailed_bus_kw.tolist(),
        "nci_cap_excess_kg_per_kwh": result.nci_cap_excess_kg_per_kwh,
        "global_gap_ratio": math.nan if result.global_gap_ratio is None else result.global_gap_ratio,
        "voltage_violation_pu": result.voltage_violation_pu,
        "p_from_kw": result.p_from_kw.tolist(),
        "p_to_kw": result.p_to_kw.tolist(),
    }


def loading_values(result: DispatchResult) -> dict[str, Any]:
    """The ports of `LOADING`."""
    assert result.loading_ratio is not None, "ratings are looked at"
    return {"loading_ratio": result.loading_ratio.tolist(), "overload_ratio": result.overload_ratio}


SOURCE = (
    Port("average_kg_per_kwh", "in", "its carbon intensity, average, where kg_per_kwh is linked", default=math.nan),
    Port("marginal_kg_per_kwh", "in", "the same of one more kWh of it", default=math.nan),
    Port("available_kw", "in", "the most it can give, what a renewable one has, where p_max_kw is linked",
         sign="> 0 feeds the network", default=math.nan),
    Port("available_forecast_kw", "in", "the same now and as forecast for each interval to come, for the look-ahead; "
         "none: as now", sign="> 0 feeds the network", dims=("horizon",), default=math.nan),
    Port("energy_usd_per_kwh", "in", "price of its energy, where usd_per_kwh is linked", default=math.nan),
)
"""Of a source by its name, whose values another member sends."""

VARYING = (
    Port("source_kg_per_kwh", "out", "carbon intensity of each source as dispatched, average", dims=("source",)),
    Port("source_marginal_kg_per_kwh", "out", "of one more kWh of it, which mci counts", dims=("source",)),
    Port("source_p_max_kw", "out", "the most each source can give, ramps aside; NaN: no limit",
         sign="> 0 feeds the network", dims=("source",), nullable=True),
    Port("source_usd_per_kwh", "out", "price of each source's energy", dims=("source",)),
)
"""Of a dispatched feeder whose sources' values vary."""


def source_values(sources: Sources, base_kw: float) -> dict[str, list[float]]:
    """The ports of `VARYING`."""
    most_kw = sources.available_pu * base_kw
    return {"source_kg_per_kwh": sources.kg_per_kwh.tolist(),
            "source_marginal_kg_per_kwh": sources.marginal_kg_per_kwh.tolist(),
            "source_p_max_kw": np.where(np.isfinite(most_kw), most_kw, np.nan).tolist(),
            "source_usd_per_kwh": sources.usd_per_kwh.tolist()}


REALISED = ("emission_realised_kg_per_h", "loss_realised_kw", "p_substation_realised_kw", "imbalance_kwh",
             "vm_min_realised_pu", "vm_max_realised_pu", "voltage_violation_realised_pu")
"""What is known of an interval only when it has ended."""


def realised_values(got: Settlement, imbalance_kwh: float) -> dict[str, Any]:
    """The ports of `REALISED`, and the loading where ratings are looked at."""
    out: dict[str, Any] = dict(zip(REALISED, (
        got.emission_kg_per_h, got.loss_kw, got.p_substation_kw, imbalance_kwh, float(got.vm_pu.min()),
        float(got.vm_pu.max()), got.voltage_violation_pu), strict=True))
    if got.loading_ratio is not None:
        out["loading_realised_ratio"] = got.loading_ratio.tolist()
    return out


def nothing_realised(n_branch: int, rated: bool) -> dict[str, Any]:
    """The same of an interval that is not settled."""
    out: dict[str, Any] = dict.fromkeys(REALISED, math.nan)
    return {**out, "loading_realised_ratio": [math.nan] * n_branch} if rated else out
