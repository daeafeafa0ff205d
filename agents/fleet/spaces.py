"""Sizes of the action spaces, (33)-(38): how much smaller the hierarchy is than one flat agent (Table III).

    cosim spaces

Rows: E33-38, I35, U21, X15.
"""

from __future__ import annotations

import sys
from math import comb

from cosim.errors import ScenarioError
from cosim.imports import load


def cardinalities(n_sites: int, gamma: int = 10, n_train: int = 2, n_inf: int = 2, n_deferrals: int = 6,
                  n_temperatures: int = 6) -> dict[str, int]:
    """Exact numbers of actions at a resolution of 1/gamma for ratios: `wm` (33), `aidc` (36), `flat` (37) and
    `hierarchical` (38).

    n_sites N, gamma (steps of a ratio), n_train and n_inf classes, n_deferrals H, n_temperatures (of 1 degC). All
    >= 1 except the classes, of which one kind may be 0; ScenarioError otherwise.
    """
    for name, value, least in (("n_sites", n_sites, 1), ("gamma", gamma, 1), ("n_train", n_train, 0),
                               ("n_inf", n_inf, 0), ("n_deferrals", n_deferrals, 1),
                               ("n_temperatures", n_temperatures, 1)):
        if value < least:
            raise ScenarioError(f"{name} = {value} must be >= {least}")
    wm = comb(n_sites + gamma - 1, gamma) ** (n_train + n_inf)
    deferral = comb(n_deferrals + gamma - 1, gamma) ** n_train
    gpus = comb(n_train + n_inf + gamma, gamma)
    aidc = gpus * deferral * n_temperatures
    return {"wm": wm, "aidc": aidc, "flat": wm * aidc**n_sites, "hierarchical": wm + n_sites * aidc}


def truncated(value: int, divisor: int = 1) -> str:
    """value / divisor with three digits, cut and not rounded, as the paper prints them: 5.75e52 for 5.7577e52."""
    exponent = len(str(value // divisor)) - 1
    digits = value * 100 // (divisor * 10**exponent)
    return f"{digits // 100}.{digits % 100:02d}e{exponent}"


def table3() -> str:
    """Table III: flat, hierarchical and their ratio for 2 to 5 sites."""
    lines = ["N  flat (37)  hierarchical (38)  ratio"]
    for n in range(2, 6):
        size = cardinalities(n)
        flat, hierarchical = size["flat"], size["hierarchical"]
        lines.append(f"{n}  {truncated(flat):9s}  {truncated(hierarchical):17s}  {truncated(flat, hierarchical)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(load("cosim.agents.action_spaces:main", "command")())
