"""Limits on the nodal carbon intensity as part of the dispatch, where (10) is no longer an afterthought.

With a cap the intensities w are variables: at every bus, w times what flows in is what the sources there emit plus the
intensities of the senders times what they send. Which end sends is decided by the dispatch: every received power is
split into p+ - p- with p+ p- = 0, by binaries (big-M) or by a special ordered set (SOS1). The products w p+ make the
problem a nonconvex MIQCP, solved to a proven gap by Gurobi alone.

Rows: U01, U02.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cosim.errors import ScenarioError
from cosim.simulators.grid.dispatch.conic import ConicProblem, Sources
from cosim.simulators.grid.equations import Floats, Ints
from cosim.simulators.grid.network.feeder import Feeder

Formulation = Literal["big_m", "sos1"]
MOST_GAP_PU = 1e-6
"""A capped solution with a larger relaxation gap is refused: a cap can reward losses that do not occur."""
NEGLIGIBLE_KG_PER_KWH = 1e-5
"""So far above a cap is within the tolerance of solver and set points."""


@dataclass(frozen=True, slots=True, eq=False)
class NciLimits:
    """Highest intensity (n_cap,) kg/kWh at buses (n_cap,); formulation of "one direction of flow at a time"."""

    bus: Ints
    kg_per_kwh: Floats
    formulation: Formulation

    def excess(self, nci_kg_per_kwh: Floats) -> float:
        """By how much the cap that is exceeded most is exceeded, kg/kWh; 0 where that is within tolerance."""
        most = float((nci_kg_per_kwh[self.bus] - self.kg_per_kwh).max(initial=0.0))
        return most if most > NEGLIGIBLE_KG_PER_KWH else 0.0


def nci_limits(feeder: Feeder, caps: Mapping[str, float], formulation: Formulation, member: str) -> NciLimits | None:
    """Caps by bus, kg/kWh; None without any. ScenarioError for a bus that the feeder lacks, or iron losses."""
    if not caps:
        return None
    if feeder.g_lost_pu.any():
        raise ScenarioError(f"{member}.nci_cap_kg_per_kwh: {feeder.name} has transformers with iron losses, which the "
                            "caps' mixing does not hold; set pfe_kw to 0, or take away the caps")
    at = np.array([feeder.named(bus, f"{member}.nci_cap_kg_per_kwh") for bus in caps], dtype=np.int64)
    return NciLimits(at, np.array(list(caps.values())), formulation)


@dataclass(frozen=True, slots=True, eq=False)
class CarbonMixing:
    """(10) over the variables of a conic problem: what each bus mixes.

    Powers that arrive somewhere are x[p] - r x[l] at a branch's child and -x[p] at its parent; `sender` and `receiver`
    (2 n_branch,) are in this order. `swings` are the sources that may also take power.

    most_pu  no power is larger: twice all that is drawn
    """

    sender: Ints
    receiver: Ints
    swings: Ints
    nci_max: float
    most_pu: float


def mixing(feeder: Feeder, sources: Sources, p_load_kw: Floats) -> CarbonMixing:
    """What (10) needs beside the conic problem, at these loads (n_bus,)."""
    drawn = np.abs(p_load_kw).sum() / feeder.base_kw + np.maximum(-sources.p_min_pu, 0.0).sum()
    return CarbonMixing(
        sender=np.concatenate([feeder.parent, feeder.child]), receiver=np.concatenate([feeder.child, feeder.parent]),
        swings=np.flatnonzero(sources.p_min_pu < 0.0), nci_max=float(sources.kg_per_kwh.max()),
        most_pu=float(max(2.0 * drawn, np.maximum(sources.p_min_pu, 0.0).sum()) + 0.1))


def size(problem: ConicProblem, feeder: Feeder, sources: Sources, formulation: Formulation) -> int:
    """Variables of the capped problem."""
    splits = 2 * len(feeder.parent) + int(np.count_nonzero(sources.p_min_pu < 0.0))
    return problem.at.size + feeder.n_bus + (3 if formulation == "big_m" else 2) * splits
