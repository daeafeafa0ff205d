"""Demand-response events: what one is, a file of them, events that are drawn, and what cannot be.

An event calls for one site, or the fleet, to draw less than its baseline from start to end; it is announced `notice_s`
before. Times are seconds from the run's start.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from cosim.errors import ScenarioError, unknown
from cosim.limits import is_file, reading_text
from cosim.params import params, validate
from cosim.units import DAY_S, HOUR_S, ROUNDING, Seconds, format_time, split_unit, whole_steps

FLEET = "fleet"
"""In the column `site` of a file: all sites together."""
_TIMES = ("start", "length", "notice")
_TARGETS = ("reduce_kw", "reduce_percent", "cap_kw")
_OTHERS = ("site", *_TARGETS, "penalty_usd_per_kwh", "payment_usd_per_kwh")


@params
class DemandEvent:
    """One demand-response event, for one site or for the fleet together."""

    start_s: Annotated[Seconds, Field(ge=0, description="when less is to be drawn from")]
    length_s: Annotated[Seconds, Field(gt=0, description="for how long")]
    notice_s: Annotated[Seconds, Field(ge=0, description="how long before its start it is announced")] = 600.0
    site: Annotated[str | None, Field(description="the site; null: all sites together, in proportion to their "
                                      "baselines")] = None
    reduce_kw: Annotated[float | None, Field(gt=0, description="less than the baseline by so much")] = None
    reduce_percent: Annotated[float | None, Field(gt=0, le=100, description="less than the baseline by so much of it, "
                                                  "per cent")] = None
    cap_kw: Annotated[float | None, Field(ge=0, description="down to this firm service level, whatever the baseline")
                      ] = None
    penalty_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, description="of energy called and not delivered")] = 0.0
    payment_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, description="of energy called and delivered")] = 0.0

    @model_validator(mode="after")
    def _has_one_target(self) -> DemandEvent:
        given = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"an event has one target, {', '.join(_TARGETS[:-1])} or {_TARGETS[-1]}; this one has "
                             f"{' and '.join(given) or 'none'}")
        return self

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.start_s + self.length_s

    @property
    def announced_s(self) -> float:
        """When it is announced."""
        return self.start_s - self.notice_s

    def called_kw(self, baseline_kw: float, share: float) -> float:
        """Reduction that is called of a site with this baseline and share of the fleet's, kW; as large as it is
        called for, even where the site does not draw so much."""
        if self.cap_kw is not None:
            return max(baseline_kw - self.cap_kw * share, 0.0)
        if self.reduce_percent is not None:
            return baseline_kw * self.reduce_percent / 100.0
        assert self.reduce_kw is not None, "an event has a target"
        return self.reduce_kw * share

    def concerns(self, site: str) -> bool:
        """Whether it is for this site, alone or with the others."""
        return self.site is None or self.site == site


@params
class RandomEvents:
    """Events of the fleet that are drawn: the time from the end of one to the start of the next is exponential."""

    per_day: Annotated[float, Field(gt=0, le=24, description="how many a day in the long run, if none had a length")]
    length_s: Annotated[Seconds, Field(gt=0, description="for how long")] = 3 * HOUR_S
    notice_s: Annotated[Seconds, Field(ge=0, description="how long before its start each is announced")] = 600.0
    reduce_percent: Annotated[float, Field(gt=0, le=100, description="less than the baseline by so much, per cent")
                              ] = 25.0
    penalty_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, description="of energy called and not delivered")] = 0.0
    payment_usd_per_kwh: Annotated[float, Field(ge=0, le=1e3, description="of energy called and delivered")] = 0.0

    def following(self, free_s: float, step_s: float, rng: np.random.Generator) -> DemandEvent:
        """The next event, at a whole step, that is announced at or after `free_s`."""
        start_s = free_s + self.notice_s + rng.exponential(DAY_S / self.per_day)
        length_s = max(math.ceil(self.length_s / step_s - ROUNDING), 1) * step_s
        return DemandEvent(math.ceil(start_s / step_s) * step_s, length_s, self.notice_s,
                           reduce_percent=self.reduce_percent, penalty_usd_per_kwh=self.penalty_usd_per_kwh,
                           payment_usd_per_kwh=self.payment_usd_per_kwh)


Baseline = Literal["meter_before", "same_hours"]


@params
class BaselineRules:
    """What a reduction is counted from; the names are those of NAESB WEQ-015 and of the products that are settled so.

    meter_before  'Meter Before / Meter After': the mean power of the `before_s` that end with the announcement
    same_hours    'Baseline Type I', as in CAISO's 10-in-10: the mean power in the hours of the event on the last `days`
                  days without an event in these hours, or as many as there are; none of them adjusted to the day
    """

    kind: Annotated[Baseline, Field(description="meter_before or same_hours")] = "meter_before"
    before_s: Annotated[Seconds, Field(gt=0, description="meter_before: so long before the announcement")] = 900.0
    days: Annotated[int, Field(ge=1, le=366, description="same_hours: so many days")] = 10

    def days_of(self, event: DemandEvent, site: str, events: Sequence[DemandEvent]) -> list[int]:
        """same_hours: how many days back the days are that count for a site, nearest first."""
        found: list[int] = []
        back = 1
        while len(found) < self.days and event.start_s - back * DAY_S >= 0.0:
            begin_s, end_s = (t - back * DAY_S for t in (event.start_s, event.end_s))
            busy = any(e.concerns(site) and e.start_s < end_s and begin_s < e.end_s for e in events)
            if end_s <= event.announced_s and not busy:
                found.append(back)
            back += 1
        return found

    def lacking(self, event: DemandEvent, sites: Sequence[str], events: Sequence[DemandEvent]) -> str:
        """Why there is no baseline of an event; empty: there is one."""
        if event.announced_s < 0.0:
            return (f"is announced {format_time(-event.announced_s)} before the run starts; let it start at "
                    f"{format_time(event.notice_s)} or later, or give less notice")
        if self.kind == "meter_before" and event.announced_s < self.before_s:
            return (f"is announced at {format_time(event.announced_s)}, before there is a baseline of "
                    f"{format_time(self.before_s)}; let it start at {format_time(event.notice_s + self.before_s)} or "
                    "later, or take a shorter one")
        if self.kind == "same_hours" and not all(self.days_of(event, s, events) for s in sites if event.concerns(s)):
            return ("has no earlier day without an event in its hours to be compared with; let the run begin earlier, "
                    "or choose meter_before as its baseline.kind")
        return ""


class Placed(NamedTuple):
    """An event, and where it is written."""

    event: DemandEvent
    where: str


def read_events(path: str, field: str) -> list[Placed]:
    """The events of a CSV file, row by row; ScenarioError naming file and line.

    Columns: start, length and notice with their unit (`start_h`, `length_min`, `notice_s`), `site` (a name, `fleet` or
    nothing), one of `reduce_kw`, `reduce_percent`, `cap_kw` filled in each row, `penalty_usd_per_kwh` and
    `payment_usd_per_kwh`. What is not there has the default of `DemandEvent`.
    """
    if not is_file(path):
        raise ScenarioError(f"{field}: no file at {path}; give a CSV with columns start_h, length_h and "
                            f"{', '.join(_TARGETS[:-1])} or {_TARGETS[-1]}")
    with reading_text(path), Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = [(name, *_column(name or "", path)) for name in rows.fieldnames or ()]
        named = [ours for _, ours, _ in columns]
        if twice := [name for name in named if named.count(name) > 1]:
            raise ScenarioError(f"{path} has two columns for {twice[0]}; keep one")
        lacks = [name for name in ("start", "length") if f"{name}_s" not in named]
        if lacks:
            raise ScenarioError(f"{path} has no column for the {lacks[0]} of its events, such as {lacks[0]}_h; it has "
                                f"{', '.join(rows.fieldnames or ()) or 'none'}")
        placed = [Placed(_event(row, columns, f"{path}, line {rows.line_num}"), f"{path}, line {rows.line_num}")
                  for row in rows]
    if not placed:
        raise ScenarioError(f"{path} has no event: it is a header alone")
    return placed


def _column(name: str, path: str) -> tuple[str, float]:
    """(field of `DemandEvent`, factor) of a file's column."""
    if name.strip() in _OTHERS:
        return name.strip(), 1.0
    what, unit = split_unit(name.strip())
    if what in _TIMES and unit.dimension == "time":
        return f"{what}_s", unit.factor
    known = [*(f"{t}_h" for t in _TIMES), *_OTHERS]
    raise ScenarioError(f"{path}: {unknown('column', name, known)} (times in s, min or h)")


def _event(row: Mapping[str, Any], columns: Sequence[tuple[str, str, float]], where: str) -> DemandEvent:
    if None in row or None in row.values():
        raise ScenarioError(f"{where}: the row has not as many cells as there are columns")
    given: dict[str, Any] = {}
    for name, ours, factor in columns:
        text = row[name].strip()
        if not text or (ours == "site" and text == FLEET):
            continue
        if ours == "site":
            given[ours] = text
            continue
        try:
            given[ours] = float(text) * factor
        except ValueError:
            raise ScenarioError(f"{where}: {name} = '{text}' is no number") from None
    try:
        return validate(DemandEvent, given, "event")
    except ScenarioError as err:
        raise ScenarioError(f"{where}: {err}") from None


def check(placed: Sequence[Placed], sites: Sequence[str], step_s: float, rules: BaselineRules) -> None:
    """ScenarioError, naming where it is written, for an event of a site that is not there, one that does not begin and
    end with a step, one without a baseline, and one that overlaps another of the same site."""
    for event, where in placed:
        if event.site is not None and event.site not in sites:
            raise ScenarioError(f"{where}: {unknown('site', event.site, sites)}; for all of them leave it out")
        for what in ("start_s", "length_s", "notice_s"):
            if whole_steps(getattr(event, what), step_s) is None:
                raise ScenarioError(f"{where}: {what} = {getattr(event, what):g} is not a whole number of steps "
                                    f"({step_s:g} s)")
    events = [event for event, _ in placed]
    for event, where in placed:
        if what := rules.lacking(event, sites, events):
            raise ScenarioError(f"{where}: the event at {format_time(event.start_s)} {what}")
    for (a, here), (b, there) in _neighbours(placed, sites):
        if b.start_s < a.end_s:
            raise ScenarioError(f"{there}: the event at {format_time(b.start_s)} overlaps the one of {here}, which "
                                f"lasts until {format_time(a.end_s)}; a site has one event at a time")


def _neighbours(placed: Sequence[Placed], sites: Sequence[str]) -> Iterator[tuple[Placed, Placed]]:
    """Events of a site that follow one another."""
    for site in sites:
        mine = sorted((p for p in placed if p.event.concerns(site)), key=lambda p: p.event.start_s)
        yield from zip(mine, mine[1:], strict=False)
