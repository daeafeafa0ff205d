"""How long cells take: rates that were measured, and what they are worth on the machine at hand.

The rates are CPU seconds of one core on which a million additions of the interpreter take `REFERENCE_ADDITIONS_S`;
`python -m benchmarks day learn` measures the same. Where a folder holds finished cells of a kind, their own times
count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cosim.campaign.cells import Cell, CellState
from cosim.units import DAY_S, MIN_S

REFERENCE_ADDITIONS_S = 0.0356
_DAY_S = {"": 6.0, "myopic_oracle": 4.6}
"""CPU seconds of a simulated day with its trace and summary, '' of a team; other rules take `_RULE_DAY_S`."""
_RULE_DAY_S = 4.0
_STEPS_PER_S = 1488.0
"""Environment steps a CPU second of a MAT, learning included, 16 environments on the compiled engine, one process;
taken for all methods and presets."""
_START_S = 3.0
LAMBDA_S = 6.0


def with_estimates(cells: Sequence[Cell], states: Mapping[str, CellState]) -> list[Cell]:
    """The cells with their estimates, but for those whose kind the folder has finished already."""
    measured = {state.call for state in states.values() if state.state == "done"}
    slower = additions_s() / REFERENCE_ADDITIONS_S
    return [cell if cell.call in measured else replace(cell, estimate_s=_seconds(cell.call, cell.arguments) * slower)
            for cell in cells]


def _seconds(call: str, arguments: Mapping[str, Any]) -> float:
    """CPU seconds on the reference machine."""
    name = call.rpartition(":")[2]
    if name == "trained":
        steps = arguments["episodes"] * DAY_S / MIN_S
        return float(_START_S + steps / _STEPS_PER_S)
    if name == "cell":
        return LAMBDA_S
    if name == "followed":
        return float(_START_S + (arguments["days"] + 0.55) * _DAY_S["myopic_oracle"])
    days = arguments["days"] + arguments.get("warmup_days", 1.0)
    runs = 2 if arguments.get("signal_of") else 1
    return float(_START_S + runs * days * _DAY_S.get(arguments.get("policy", ""), _RULE_DAY_S))


def additions_s() -> float:
    """CPU seconds of a million additions of the interpreter, the least of three."""
    return min(_additions() for _ in range(3))


def _additions() -> float:
    began, total = time.process_time(), 0
    for k in range(1_000_000):
        total += k
    return time.process_time() - began
