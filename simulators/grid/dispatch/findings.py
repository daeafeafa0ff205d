"""Intervals of a dispatch that did not go as they should, for the run's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosim.simulators.grid.dispatch.results import DispatchResult
from cosim.simulators.grid.equations import Floats
from cosim.units import format_time

LOOSE_GAP_PU = 1e-3
"""A larger relaxation gap means that the conic optimum is not a physical state; the run's notes then state it."""

_SAID = {
    "elastic": "were elastic: a voltage left its limits, power went unserved, a branch is above its limit, or an NCI "
               "is above its cap",
    "surplus": "have more local generation than is drawn and than the substation takes back, and curtail it",
    "capped": "are dispatched without the NCI caps, which no set points meet",
    "held": "had no solution and repeat the one before",
    "loose": f"have a relaxation gap above {LOOSE_GAP_PU:g} p.u.: the set points need not be optimal",
    "inexact": "have a relaxation that is not exact",
    "unsettled": "ended in a state that the AC power flow does not find, and are not settled",
    "unplanned": "have no plan of the intervals to come, only the ramps from the set points before",
    "idle": "have no plan of the intervals to come: batteries that nobody commands take local generation that nobody "
            "draws, else stand still",
    "unproven": "have a plan in which batteries take directions that are not proven to be the best",
    "commands": "run a battery otherwise than it is commanded, as its limits, or what can be drawn, have it",
    "relieved": "run batteries otherwise than planned or commanded, as power went unserved or nothing else had a "
                "solution",
    "no_ac": "have no AC check: the AC power flow found no solution",
}


class FindingLog:
    """What happened how often, when first, and what more is known of the first time."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}
        self._first: dict[str, str] = {}

    def note(self, what: str, time_s: float, detail: str = "") -> None:
        """An interval at which it happened; `what` is one of the kinds above."""
        self._times.setdefault(what, []).append(time_s)
        self._first.setdefault(what, detail)

    def lines(self) -> list[str]:
        """A sentence per kind, in the order in which they first happened."""
        return [f"{len(times)} intervals {_SAID[what]}; first at {format_time(times[0])}"
                + (f" ({self._first[what]})" if self._first[what] else "") for what, times in self._times.items()]


def what_is_proven(gap_ratio: float | None) -> str:
    """Of an interval whose relaxation is not exact; gap_ratio: to the proven bound, None: not known."""
    if gap_ratio is None:
        return "the set points are not proven to be the best"
    return ("the set points are the best of the local optima and corners that were tried; the relaxation proves "
            f"that nothing is better by more than {100 * gap_ratio:.2g} % of the objective")


def which_limits(result: DispatchResult, slack_pu: Floats, limits_pu: tuple[float, float], names: Sequence[str],
                 caps: Mapping[str, float], full: str = "") -> str:
    """The worst of what an elastic interval could not keep, and where: unserved power, voltages, branches (`full`, in
    words), caps on NCI.

    slack_pu (n_bus,) is the signed distance outside the voltage limits (lowest, highest); names: of the buses
    """
    said, (low, high) = [], limits_pu
    if result.unserved_kw.any():
        at = int(result.unserved_kw.argmax())
        said.append(f"{result.unserved_kw[at]:.0f} kW unserved at {names[at]}")
    if result.voltage_violation_pu:
        at = int(np.abs(slack_pu).argmax())
        limit = f"below {low:g}" if result.vm_pu[at] < low else f"above {high:g}"
        said.append(f"{names[at]} at {result.vm_pu[at]:.3f} p.u., {limit}")
    said += [full] if full else []
    if result.nci_cap_excess_kg_per_kwh:
        nci = dict(zip(names, result.nci_kg_per_kwh.tolist(), strict=True))
        bus = max(caps, key=lambda bus: nci[bus] - caps[bus])
        said.append(f"{bus} is {result.nci_cap_excess_kg_per_kwh:.3f} kg/kWh above its cap of {caps[bus]:g}")
    return ", ".join(said)
