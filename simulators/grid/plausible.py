"""Demand that no network of this size carries: most likely W, or kW, in a column of another unit."""

from __future__ import annotations

from collections.abc import Mapping

from cosim.errors import ModelError

IMPOSSIBLE_RATIO = 100.0
"""Demand above this many times what the network is rated for is no overload but another unit."""


def refuse_impossible(sid: str, when: str, p_load_kw: Mapping[str, float], rated_kw: float | None) -> None:
    """ModelError, with the likely unit, for demand (kW by bus) far above `rated_kw` (None: not known)."""
    total = sum(abs(p) for p in p_load_kw.values())
    if rated_kw is None or total <= IMPOSSIBLE_RATIO * rated_kw:
        return
    bus = max(p_load_kw, key=lambda name: abs(p_load_kw[name]))
    raise ModelError(f"{sid} at {when}: {total:.4g} kW are drawn, {total / rated_kw:.0f} times the {rated_kw:.4g} kW "
                     f"that the network's branches at its substation are rated for, most of it at {bus} "
                     f"({p_load_kw[bus]:.4g} kW); it looks like W given as kW: write it in kW, or call the column p_w")


def unit_hint(p_load_kw: float, own_kw: float) -> str:
    """What to add to an error or note of the grid where demand is out of proportion to the network's own loads, kW."""
    if own_kw <= 0.0 or p_load_kw <= IMPOSSIBLE_RATIO * own_kw:
        return ""
    return (f"; demand is {p_load_kw / own_kw:.0f} times the network's own loads ({own_kw:.4g} kW), as if W were given "
            "as kW")
