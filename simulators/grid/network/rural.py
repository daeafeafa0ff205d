"""A medium-voltage network that this project makes up, so that one of more than a hundred buses ships without a file.

`rural_mv()` is no real network and no measurement: six feeders of 20 buses each at 10 kV behind one substation, by the
formulas below. A feeder is a trunk of 12 buses with eight side lines; section lengths go from 0.3 to 1.1 km and loads
from 30 to 140 kW by a fixed pattern. Conductors have the figures of usual types (aluminium cables of 150 and 95 mm2,
an overhead line of 50 mm2), as manufacturers' tables and pandapower's standard types state them.

Rows: I25, P07.
"""

from __future__ import annotations

from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList

FEEDERS, TRUNK, SIDES = 6, 12, 8
PER_FEEDER = TRUNK + SIDES
_TRUNK_CABLE, _END_CABLE, _OVERHEAD = (0.206, 0.116, 319.0), (0.313, 0.132, 252.0), (0.642, 0.389, 210.0)
"""ohm/km, ohm/km, A."""
_STRONG = 5
"""Sections of a trunk of the larger cable."""
_KVAR_PER_KW = 0.25


def rural_mv() -> LineList:
    """Bus 0 is the substation; feeder f has its trunk at buses 20 f + 1 .. 20 f + 12, its side lines behind those."""
    lines, loads = [], []
    for feeder in range(FEEDERS):
        first = PER_FEEDER * feeder + 1
        for k in range(PER_FEEDER):
            bus = first + k
            if k < TRUNK:
                before, (r, x, amp) = (0 if k == 0 else bus - 1), (_TRUNK_CABLE if k < _STRONG else _END_CABLE)
            else:  # the side line j leaves the trunk at its bus 2 + j
                before, (r, x, amp) = first + 2 + (k - TRUNK), _OVERHEAD
            km = 0.3 + 0.1 * ((3 * bus + 5 * feeder) % 9)
            lines.append(Line(before, bus, round(r * km, 4), round(x * km, 4), amp))
            kw = 30.0 + 10.0 * ((7 * bus + 2 * feeder) % 12)
            loads.append(BaseLoad(bus, kw, round(_KVAR_PER_KW * kw, 1)))
    return LineList(base_kv=10.0, lines=tuple(lines), loads=tuple(loads))
