"""Speed of a GPU over its power, as measured and published: the curves of `equations.limited_speed_ratio`, and what
makes one."""

from __future__ import annotations

from cosim.simulators.aidc.gpus.equations import Curve

A100_TRAINING: Curve = ((0.497, 0.656), (0.517, 0.691), (0.568, 0.764), (0.614, 0.829), (0.727, 0.9), (0.896, 0.967),
                        (1.0, 1.0))
"""Perseus, GPT-3 175B on A100 SXM: forward and backward pass at 855, 900, 1005, 1095, 1200, 1305 MHz over 1410 MHz
(J.-W. Chung et al., SOSP 2024; Apache-2.0)."""


def check_curve(curve: Curve, what: str) -> None:
    """ValueError for a curve that does not rise from above 0 to [1, 1]; what: its name."""
    if curve[-1] != (1.0, 1.0):
        raise ValueError(f"{what} ends with {list(curve[-1])}; its last point is [1, 1], without a limit")
    for (power, speed), (more, faster) in zip(curve, curve[1:], strict=False):
        if not (power < more and speed <= faster):
            raise ValueError(f"{what} falls from {[power, speed]} to {[more, faster]}; power must rise and "
                             "speed must not fall")
    if not (curve[0][0] > 0.0 and curve[0][1] > 0.0):
        raise ValueError(f"{what} begins with {list(curve[0])}; power and speed are above 0")
