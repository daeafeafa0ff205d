"""Ports that every grid of ours has, so that one can take another's place."""

from __future__ import annotations

from cosim.ports import Port

DEMAND = (
    Port("p_load_kw", "in", "active demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid; < 0 is local generation, counted at 0 kg/kWh"),
    Port("q_load_kvar", "in", "reactive demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
)
"""What is drawn at a bus."""
