"""The demand that a look-ahead plans for: what is drawn now, and the forecasts of the intervals to come.

Rows: E08, Z06.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosim.adapter import Values
from cosim.errors import ModelError
from cosim.simulators.grid.equations import Complexes, Floats


def demand_ahead(now: tuple[Floats, Floats], own: Complexes, by_sites: Complexes, at: Mapping[str, int], inputs: Values,
                 steps: int, member: str) -> list[tuple[Floats, Floats]]:
    """(P, Q) of every bus (n_bus,), kW and kvar, of `steps` intervals: that of now, then base load as forecast, else as
    now, with data centers as they were.

    own, by_sites  (n_bus,) what the network itself and the data centers draw, kVA
    at             Bus entity -> its bus
    ModelError for a forecast that is shorter than the look-ahead.
    """
    ahead = [own.copy() for _ in range(steps - 1)]
    if ahead:
        for eid, bus in at.items():
            given = inputs[eid]
            p, q = (_forecast(given, port, eid, steps, member) for port in ("p_ahead_kw", "q_ahead_kvar"))
            for i, base in enumerate(ahead):
                base[bus] += complex(given["p_load_kw"] if p is None else p[i],
                                     given["q_load_kvar"] if q is None else q[i])
    return [now, *((s.real, s.imag) for s in (base + by_sites for base in ahead))]


def _forecast(given: Mapping[str, Any], port: str, eid: str, steps: int, member: str) -> list[float] | None:
    """The forecast of a bus's base load, None if not linked."""
    values = given[port]
    if not isinstance(values, list):
        return None
    if len(values) < steps - 1:
        raise ModelError(f"{member}.{eid}.{port} has {len(values)} values and lookahead_steps = {steps} needs "
                         f"{steps - 1}; give the profile the same lookahead_steps")
    return values
