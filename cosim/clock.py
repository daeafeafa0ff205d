"""Seconds and bus steps, with one rounding rule: a time is a whole number of bus steps, or it is an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cosim.errors import ScenarioError
from cosim.units import MIN_S, format_time, whole_steps


@dataclass(frozen=True, slots=True)
class Clock:
    """The bus clock: integer steps of `resolution_s` seconds from the scenario's start.

    Raises ScenarioError when the resolution is not positive.
    """

    resolution_s: float = MIN_S

    def __post_init__(self) -> None:
        if not self.resolution_s > 0:
            raise ScenarioError(f"resolution_s = {self.resolution_s} must be > 0")

    def steps(self, seconds: float, what: str = "time") -> int:
        """Bus steps in `seconds`; ScenarioError naming `what` unless they divide it, see `whole_steps`."""
        exact = seconds / self.resolution_s
        if not math.isfinite(exact):
            raise ScenarioError(f"{what} = {seconds:g} s is not a finite time")
        if (steps := whole_steps(seconds, self.resolution_s)) is None:
            raise ScenarioError(
                f"{what} = {seconds:g} s is not a whole number of bus steps of {self.resolution_s:g} s; "
                f"nearest: {max(1, round(exact)) * self.resolution_s:g} s"
            )
        return steps

    def seconds(self, steps: int) -> float:
        """Seconds from the start at bus step `steps`."""
        return steps * self.resolution_s

    def label(self, steps: int) -> str:
        """Simulated time at `steps` for people."""
        return format_time(self.seconds(steps))
