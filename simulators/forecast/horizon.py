"""The horizon of forecasts: how far ahead, in which steps; the same where it is made and where the future is known."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cosim.errors import ScenarioError
from cosim.units import MIN_S, Seconds, whole_steps

HORIZON = "horizon"
"""Name of the axis. Entry k is of k steps after the last multiple of the step at which it was made; entry 0 is now."""
MOST_STEPS = 1000

HorizonS = Annotated[Seconds, Field(gt=0, description="how far ahead forecasts reach, s; a whole number of steps of "
                                    "horizon_step_s")]
HorizonStepS = Annotated[Seconds, Field(gt=0, description="from one entry of a forecast to the next, s")]


def horizon_steps(member: str, horizon_s: float, horizon_step_s: float) -> int:
    """Steps ahead, the present one not counted. ScenarioError for a horizon that is no whole number of steps, or of
    more than MOST_STEPS."""
    steps = whole_steps(horizon_s, horizon_step_s)
    if not steps:
        raise ScenarioError(f"{member}.horizon_s = {horizon_s:g} is not a whole number of steps of horizon_step_s = "
                            f"{horizon_step_s:g} s")
    if steps > MOST_STEPS:
        raise ScenarioError(f"{member}.horizon_s = {horizon_s:g} is {steps} steps of {horizon_step_s:g} s, and "
                            f"{MOST_STEPS} is the most; make horizon_step_s longer")
    return steps


def leads_s(horizon_s: float, horizon_step_s: float) -> list[float]:
    """Leads of the entries, s, the first of them 0."""
    return [k * horizon_step_s for k in range(horizon_steps("", horizon_s, horizon_step_s) + 1)]


def labels(horizon_s: float, horizon_step_s: float) -> list[str]:
    """The axis, in minutes."""
    return [f"{lead / MIN_S:g}min" for lead in leads_s(horizon_s, horizon_step_s)]
