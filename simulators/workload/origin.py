"""When a recorded workload begins on a run's clock: with the run, or at its own dates."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from cosim.errors import ScenarioError
from cosim.tables.dates import instant, label
from cosim.units import DAY_S, HOUR_S, MIN_S

Origin = Annotated[Literal["first", "date"], Field(
    description="first: the trace's first row comes at t = 0; date: its dates are read against the run's start, as "
    "those of tables")]
ScenarioStart = Annotated[str | None, Field(description="date of t = 0; the run fills it in")]


def lead_s(origin: Origin, path: str, first_unix_s: float | None, start: str | None) -> float:
    """When the first row comes, s after t = 0 (negative: before it); first_unix_s: its instant, None for counts.

    ScenarioError for dates that are requested and missing.
    """
    if origin == "first":
        return 0.0
    if first_unix_s is None:
        raise ScenarioError(f"workload.origin = date, and the times of {path} are counts; --set workload.origin=first")
    if start is None:
        raise ScenarioError("workload.origin = date, and the date of t = 0 is not known; --set workload.scenario_start")
    return first_unix_s - instant(start)


def pass_s(last_s: float) -> float:
    """How long one pass of a trace is, s: whole minutes that hold its last row, `last_s` after its first."""
    return MIN_S * (math.floor(last_s / MIN_S) + 1)


def check_cover(path: str, lead: float, length_s: float, start: str | None, until_s: float | None,
                otherwise: str = "workload.origin=first") -> None:
    """ScenarioError for a trace of which nothing falls into a run until `until_s` (None: not known yet); otherwise:
    what else can be set."""
    if lead + length_s <= 0.0 or (until_s is not None and lead >= until_s):
        begin_s = instant(start)
        end = "" if until_s is None else f" to {label(begin_s + until_s)}"
        first_s = begin_s + lead
        midnight_s = first_s // DAY_S * DAY_S  # a run begins at one, and may have to reach the first row from there
        longer = f" and --until {math.ceil((first_s - midnight_s + MIN_S) / HOUR_S)}h or more" if (
            until_s is not None and first_s - midnight_s >= until_s) else ""
        raise ScenarioError(f"{path} covers {label(first_s)} to {label(first_s + length_s)}, the run "
                            f"{label(begin_s)}{end}: no row is of its time; --set "
                            f"start={label(first_s)[:10]}{longer}, or --set {otherwise}")


def note(origin: Origin, path: str, first_unix_s: float | None, start: str | None) -> list[str]:
    """That a trace with dates is not played at its dates, if it is not."""
    if origin == "date" or first_unix_s is None or start is None or first_unix_s == instant(start):
        return []
    return [f"the first row of {path}, of {label(first_unix_s)}, comes at the run's start, {label(instant(start))}; "
            "--set workload.origin=date reads its dates"]
