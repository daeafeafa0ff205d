"""Intervals of a dispatch that did not go as they should, for the run's summary."""

from __future__ import annotations

from cosim.units import format_time

LOOSE_GAP_PU = 1e-3
"""A larger relaxation gap means that the conic optimum is not a physical state; the run's notes then state it."""

_SAID = {
    "elastic": "were elastic: a voltage left its limits, power went unserved, or an NCI is above its cap",
    "surplus": "have more local generation than is drawn and than the substation takes back, and curtail it",
    "capped": "are dispatched without the NCI caps, which no set points meet",
    "held": "had no solution and repeat the one before",
    "loose": f"have a relaxation gap above {LOOSE_GAP_PU:g} p.u.: the set points need not be optimal",
    "inexact": "have a relaxation that is not exact",
    "unsettled": "ended in a state that the AC power flow does not find, and are not settled",
    "unplanned": "have no plan of the intervals to come, only the ramps from the set points before",
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
