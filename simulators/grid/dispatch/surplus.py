"""More local generation than is drawn and than the substation takes back: how much of it is curtailed, and in words.

Sources come first: the dispatch lowers them, renewable or not, to p_min_kw (or what their ramp leaves). What then is
too much is taken from negative demand, the same share of it at every bus that feeds. Losses are not counted on, so that
the substation covers them: what is left balances with every source at its least. Curtailed energy is neither supplied
nor emits anything; reactive power stays as it is.

Rows: E04, E08.
"""

from __future__ import annotations

import numpy as np

from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.equations import Floats
from cosim.units import format_time

EXPORT_KW = 1e-3
"""A substation that takes back more than this exports."""


def curtailed_kw(p_load_kw: Floats, sources: Sources, base_kw: float, fed_kw: float = 0.0) -> Floats:
    """Of the local generation at each bus (n_bus,), kW >= 0, what cannot go anywhere; p_load_kw (n_bus,) < 0 feeds.

    fed_kw  what batteries feed beside it, all together; < 0 where they draw
    """
    local = np.maximum(-p_load_kw, 0.0)
    total = float(local.sum())
    if not total:
        return local
    least_kw = float(sources.p_min_pu.sum()) * base_kw  # of the substation it is < 0 where it takes power back
    return local * min(max((least_kw + fed_kw - float(p_load_kw.sum())) / total, 0.0), 1.0)


def remedy(p_load_kw: Floats, sources: Sources, names: list[str], substation: int, base_kw: float) -> str | None:
    """What to do where all sources at their least, local generation apart, give more than is drawn; None elsewhere."""
    least = sources.p_min_pu * base_kw + 0.0  # no -0
    drawn = float(np.maximum(p_load_kw, 0.0).sum())
    spare = float(least.sum()) - drawn
    if spare <= 0.0:
        return None
    who = [f"{n} {kw:.0f} kW" for k, (n, kw) in enumerate(zip(names, least, strict=True)) if kw > 0 and k != substation]
    name = names[substation]
    if not who:
        return (f"{name} must give {least[substation]:.0f} kW (p_min_kw) and {drawn:.0f} kW are drawn; lower "
                f"grid.sources.{name}.p_min_kw")
    return (f"p_min_kw (or the ramp) makes {', '.join(who)} give more than is drawn ({drawn:.0f} kW) and than {name} "
            f"takes back (p_min_kw = {least[substation]:g}); lower theirs, or let it take more by --set "
            f"grid.sources.{name}.p_min_kw={np.floor(least[substation] - spare):g}")


def in_words(curtailed: Floats, p_load_kw: Floats, bus_names: list[str], substation: str) -> str:
    """Who feeds how much, how much of it is curtailed, and which field lets it flow out. p_load_kw: what is left."""
    feeding = np.flatnonzero(curtailed)
    fed = curtailed - np.minimum(p_load_kw, 0.0)
    shown = [f"{bus_names[k]} feeds {fed[k]:.0f} kW net" for k in feeding[:4]]
    more = f" and {len(feeding) - 4} more" if len(feeding) > 4 else ""
    return (f"negative demand: {', '.join(shown)}{more}, of which {curtailed.sum():.0f} kW are curtailed; to let it "
            f"flow out, lower grid.sources.{substation}.p_min_kw, e.g. to {-np.ceil(fed.sum()):g}")


def back_in_words(sid: str, substation: str, back: list[tuple[float, float]], others: int = 0) -> list[str]:
    """Note on a grid without limits of export: (time s, kW) of the steps in which its substation took power.

    others: further external grids, from which that power may come.
    """
    if not back:
        return []
    time_s, most = max(back, key=lambda step: step[1])
    return [f"{sid}: {substation} takes back power in {len(back)} steps, at most {most:.0f} kW at "
            f"{format_time(time_s)}: " + (
                "it comes from what is generated, or through the network from another external grid (as their voltages "
                "and angles have it), " if others else "more is generated than drawn, ")
            + "and nothing here limits or curtails it"]
