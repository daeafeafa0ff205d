"""Results of a dispatch and its settlement, as data; and the error of an inexact relaxation.

Rows: E06, E07, I30.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.errors import SolverError
from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.equations import Complexes, Floats, Ints

OPTIMAL, ELASTIC, HELD = 0, 1, 2
"""Status: all limits met; a voltage outside its limits or power unserved; not solved, last values held."""

NEGLIGIBLE_PU, NEGLIGIBLE_SHARE = 1e-5, 1e-6
"""Within a solver's tolerance: a voltage or substation power that far outside its limits is inside, a set point that
near a limit is on it (else a generator at 1 W would colour a bus without load), and so small a share is served."""


@dataclass(frozen=True, slots=True, eq=False)
class DispatchResult:
    """One solved interval; arrays over buses, branches or sources in the feeder's and the sources' order.

    status                  OPTIMAL or ELASTIC
    p_from_kw, q_from_kvar  power entering each branch at its parent end; p_to_kw, q_to_kvar at its child end
    v_pu, vm_pu             complex voltages, the substation's at angle 0, and their magnitudes
    p_source_kw, q_source_kvar  > 0 feeds the network
    p_load_kw, q_load_kvar  demand that is served; unserved_kw (n_bus,) what is not
    loss_kw                 J1 of (11)
    emission_kg_per_h       what all sources that inject emit, J2 of (11)
    objective_kw            what is minimised, (11) by default: loss_kw + lambda x sum of intensity x power
    nci_kg_per_kwh          (9), of every bus
    relaxation_gap_pu       largest |l u - P^2 - Q^2| of the conic solution
    relaxation_gap_ratio    (n_branch,) (l u - P^2 - Q^2) / max(l u, 1e-6) of the conic solution
    inexact                 the relaxation was not exact; the set points are a local optimum of the AC problem
    conic_vm_pu, conic_loss_kw  voltages and loss as the conic solution has them
    voltage_violation_pu    largest distance of a voltage outside its limits, 0 if none
    cost_usd_per_h          what the sources' energy costs
    curtailed_kw            what renewable sources have and do not give, and curtailed_bus_kw
    curtailed_bus_kw        (n_bus,) local generation (negative demand) that cannot go anywhere
    nci_cap_excess_kg_per_kwh  largest distance of an NCI above its cap, 0 if none
    sources                 as they were: limits, intensities and prices
    loading_ratio           (n_branch,) current or apparent power over the rating, NaN without one; None: not looked at
    overload_ratio          largest loading above a branch's limit, 0 if none
    global_gap_ratio        of a capped dispatch, or an inexact one, to its proven bound, relative; None elsewhere
    """

    status: int
    p_from_kw: Floats
    p_to_kw: Floats
    q_from_kvar: Floats
    q_to_kvar: Floats
    v_pu: Complexes
    vm_pu: Floats
    p_source_kw: Floats
    q_source_kvar: Floats
    p_load_kw: Floats
    q_load_kvar: Floats
    unserved_kw: Floats
    loss_kw: float
    emission_kg_per_h: float
    objective_kw: float
    nci_kg_per_kwh: Floats
    relaxation_gap_pu: float
    relaxation_gap_ratio: Floats
    inexact: bool
    conic_vm_pu: Floats
    conic_loss_kw: float
    voltage_violation_pu: float
    cost_usd_per_h: float
    curtailed_kw: float
    curtailed_bus_kw: Floats
    sources: Sources
    nci_cap_excess_kg_per_kwh: float = 0.0
    global_gap_ratio: float | None = None
    loading_ratio: Floats | None = None
    overload_ratio: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Injection:
    """What is decided already when a dispatch begins: powers of batteries.

    at_bus_kw   (n_bus,) > 0 feeds the network
    bus, p_kw, kg_per_kwh  (n_battery,) where each stands, what it feeds (< 0: draws), and at what intensity
    """

    at_bus_kw: Floats
    bus: Ints
    p_kw: Floats
    kg_per_kwh: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """What happened at a dispatch's set points and the demand that came: the substation balances it.

    p_substation_kw  > 0 feeds the network; loss_kw, emission_kg_per_h as in `DispatchResult`
    vm_pu            (n_bus,) voltages; voltage_violation_pu the largest distance of one outside its limits
    loading_ratio    (n_branch,) as in `DispatchResult`
    """

    p_substation_kw: float
    loss_kw: float
    emission_kg_per_h: float
    vm_pu: Floats
    voltage_violation_pu: float
    loading_ratio: Floats | None = None


class InexactRelaxation(SolverError):
    """The relaxation has a solution and the feeder, as far as is known, has none."""


def snapped(values: Floats, lower: Floats, upper: Floats) -> Floats:
    """Set points inside their boxes, and on a limit that they all but touch."""
    values = np.where(values - lower <= NEGLIGIBLE_PU, lower, values)
    return np.where(upper - values <= NEGLIGIBLE_PU, upper, values)


def marginal_sources(result: DispatchResult, base_kw: float) -> list[float]:
    """1.0 for each source whose P stands strictly between its limits, else 0.0."""
    p_pu, sources = result.p_source_kw / base_kw, result.sources
    free = (p_pu > sources.p_min_pu + NEGLIGIBLE_PU) & (p_pu < sources.p_max_pu - NEGLIGIBLE_PU)
    return free.astype(float).tolist()
