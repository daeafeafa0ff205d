"""Demand response as a member: events become power caps of sites, and are announced to who steers them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params, validate
from cosim.ports import Port
from cosim.simulators.fleet import Site
from cosim.simulators.flexibility.events import (
    FLEET,
    BaselineRules,
    DemandEvent,
    Placed,
    RandomEvents,
    check,
    read_events,
)
from cosim.units import DAY_S, MIN_S, format_time, whole_steps

COLUMNS = ("event", "site", "scope", "announced_s", "start_s", "end_s", "baseline_kw", "called_kw", "cap_kw",
           "penalty_usd_per_kwh", "payment_usd_per_kwh")
"""Of the table `demand_response`: a row for every site of every event, as announced. scope: the site, or `fleet`."""


@params
class DemandResponseParams:
    """Which events are called, and from what a reduction is counted."""

    sites: Annotated[dict[str, Site], Field(min_length=1, description="sites by name; entities are named like them")]
    events: Annotated[str | tuple[DemandEvent, ...], Field(
        union_mode="left_to_right", description="a CSV file of events, or the events")] = ()
    random: Annotated[RandomEvents | None, Field(description="events that are drawn; null: none")] = None
    baseline: Annotated[BaselineRules, Field(description="what a reduction is counted from")] = BaselineRules()

    @field_validator("events", mode="before")
    @classmethod
    def _each_says_what_is_wrong(cls, events: Any) -> Any:
        """An event that cannot be is named, not that it is no file either."""
        for k, row in enumerate(events if isinstance(events, list | tuple) else ()):
            if isinstance(row, dict):
                try:
                    validate(DemandEvent, row, f"events.{k}")
                except ScenarioError as err:
                    raise ValueError(str(err)) from None
        return events

    def placed(self, member: str) -> list[Placed]:
        """The events that are given, and where they are written; ScenarioError for a file that cannot be read."""
        if isinstance(self.events, str):
            return read_events(self.events, f"{member}.events")
        return [Placed(event, f"{member}.events.{k}") for k, event in enumerate(self.events)]


@dataclass(frozen=True, slots=True)
class Announced:
    """An event of one site, known since its announcement; powers in kW."""

    event: DemandEvent
    baseline_kw: float
    called_kw: float
    cap_kw: float


class DemandResponse(Adapter):
    """Demand-response events of sites. With the announcement the baseline is worked out and the cap fixed.

    A fleet's target is shared in proportion to the sites' baselines. A site has one event at a time; of events to come
    its input is the next that is announced.
    """

    PARAMS = DemandResponseParams
    MODELS = {
        "Site": (
            Port("p_kw", "in", "mean power of the last step", sign="> 0 draws from the grid"),
            Port("p_cap_kw", "out", "the most that the site may draw from now on; NaN: no event", sign=">= 0",
                 nullable=True),
            Port("baseline_kw", "out", "power from which the reduction of the event is counted; NaN: no event",
                 nullable=True),
            Port("called_kw", "out", "reduction that is called", sign="> 0 draws less than the baseline"),
            Port("event_start_min", "out", "time until the announced event starts, 0 while it lasts; NaN: none is "
                 "announced", nullable=True),
            Port("event_end_min", "out", "time until the announced event is over; NaN: none", nullable=True),
            Port("event_cap_kw", "out", "cap of the announced event; NaN: none", sign=">= 0", nullable=True),
            Port("announced_events", "out", "events announced now, with baseline and cap", kind="event",
                 table="demand_response"),
        ),
    }

    @classmethod
    def check_horizon(cls, member: str, given: DemandResponseParams, step_s: float, until_s: float) -> None:
        """ScenarioError for events that cannot be, naming file and line; and for drawn events beside given ones."""
        placed = given.placed(member)
        if placed and given.random is not None:
            raise ScenarioError(f"{member} has events and random ones, which may overlap; leave one of them out")
        check(placed, list(given.sites), step_s, given.baseline)
        if given.random is not None and whole_steps(given.random.notice_s, step_s) is None:
            raise ScenarioError(f"{member}.random.notice_s = {given.random.notice_s:g} is not a whole number of steps "
                                f"({step_s:g} s)")

    def setup(self) -> None:
        """ScenarioError for an entity that is no site."""
        given = self.params
        for name in self.entities["Site"]:
            if name not in given.sites:
                raise ScenarioError(unknown(f"entity of {self.sid}", name, given.sites) + " (named like sites)")
        if without := sorted(set(given.sites) - set(self.entities["Site"])):
            raise ScenarioError(f"{self.sid}: no entity for site {', '.join(without)}; create one of Site each")
        self._sites, self._end_s = list(given.sites), 0.0
        self._rng = self.stream("events")
        self._events = sorted((event for event, _ in given.placed(self.sid)), key=lambda e: e.start_s)
        self._coming = list(self._events)
        self._announced: dict[str, list[Announced]] = {site: [] for site in self._sites}
        self._meter_kw: dict[str, list[float]] = {site: [] for site in self._sites}
        self._count = 0
        if given.random is not None:
            self._draw(0.0)

    def initial(self) -> Values:
        """No event."""
        return {site: self._values([], 0.0, {}) for site in self._sites}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """What is called now, and what is announced."""
        self._end_s = time_s + self.step_s
        if time_s > 0.0:  # before the first step nothing was metered
            for site in self._sites:
                self._meter_kw[site].append(inputs[site]["p_kw"])
        rows: dict[str, dict[str, list[Any]]] = {}
        while event := next((e for e in self._coming if e.announced_s <= time_s), None):
            self._coming.remove(event)
            self._announce(event, rows)
            if self.params.random is not None:
                self._draw(event.end_s)
        out = {}
        for site, known in self._announced.items():
            while known and known[0].event.end_s <= time_s:
                known.pop(0)
            out[site] = self._values(known, time_s, rows.get(site, {}))
        return out

    def notes(self) -> list[str]:
        """Events of which the run saw no end."""
        if not hasattr(self, "_coming"):
            return []
        later = [] if self.params.random is not None else [e for e in self._coming if e.start_s >= self._end_s]
        said = [f"{self.sid}: {len(later)} of {len(self._events)} events start after the run's end, the first at "
                f"{format_time(later[0].start_s)}; they were not called"] if later else []
        if any(a.event.end_s > self._end_s > a.event.start_s for known in self._announced.values() for a in known):
            said.append(f"{self.sid}: the run ends inside an event; what of it lies in the run is settled")
        return said

    # --- inside -------------------------------------------------------------------------------------------------

    def _draw(self, free_s: float) -> None:
        """The next drawn event; one that has no day to be compared with is drawn again, later."""
        drawn, rules = self.params.random, self.params.baseline
        assert drawn is not None, "there are drawn events"
        first_s = rules.before_s if rules.kind == "meter_before" else DAY_S
        event = drawn.following(max(free_s, first_s), self.step_s, self._rng)
        while rules.lacking(event, self._sites, self._events):
            event = drawn.following(event.end_s, self.step_s, self._rng)
        self._events.append(event)
        self._coming.append(event)

    def _announce(self, event: DemandEvent, rows: dict[str, dict[str, list[Any]]]) -> None:
        """Fix baseline and cap of the sites of an event, and write them down."""
        sites = [site for site in self._sites if event.concerns(site)]
        baseline_kw = {site: self._baseline_kw(event, site) for site in sites}
        total_kw = math.fsum(baseline_kw.values())
        for site in sites:
            base_kw, share = baseline_kw[site], baseline_kw[site] / total_kw if total_kw else 1.0 / len(sites)
            called_kw = event.called_kw(base_kw, share)
            cap_kw = max(base_kw - called_kw, 0.0) if event.cap_kw is None else event.cap_kw * share
            one = Announced(event, base_kw, called_kw, cap_kw)
            self._announced[site].append(one)
            self._announced[site].sort(key=lambda a: a.event.start_s)
            row = (float(self._count), site, event.site or FLEET, event.announced_s, event.start_s, event.end_s,
                   base_kw, called_kw, cap_kw, event.penalty_usd_per_kwh, event.payment_usd_per_kwh)
            mine = rows.setdefault(site, {name: [] for name in COLUMNS})
            for name, cell in zip(COLUMNS, row, strict=True):
                mine[name].append(cell)
        self._count += 1

    def _baseline_kw(self, event: DemandEvent, site: str) -> float:
        """Of a site, from what has been metered until the announcement."""
        rules, metered = self.params.baseline, self._meter_kw[site]
        if rules.kind == "meter_before":
            last = round(event.announced_s / self.step_s)
            return float(np.mean(metered[max(last - max(round(rules.before_s / self.step_s), 1), 0):last]))
        days = []
        for back in rules.days_of(event, site, self._events):
            first, last = (round((t - back * DAY_S) / self.step_s) for t in (event.start_s, event.end_s))
            days.append(np.mean(metered[first:last]))
        return float(np.mean(days))

    def _values(self, known: list[Announced], time_s: float, rows: dict[str, list[Any]]) -> dict[str, Any]:
        """Ports of a site with these events to come, or that last."""
        if not known:
            return {"p_cap_kw": math.nan, "baseline_kw": math.nan, "called_kw": 0.0, "event_start_min": math.nan,
                    "event_end_min": math.nan, "event_cap_kw": math.nan, "announced_events": rows}
        one = known[0]
        lasts = one.event.start_s <= time_s
        return {
            "p_cap_kw": one.cap_kw if lasts else math.nan,
            "baseline_kw": one.baseline_kw if lasts else math.nan,
            "called_kw": one.called_kw if lasts else 0.0,
            "event_start_min": max(one.event.start_s - time_s, 0.0) / MIN_S,
            "event_end_min": (one.event.end_s - time_s) / MIN_S,
            "event_cap_kw": one.cap_kw,
            "announced_events": rows,
        }


if __name__ == "__main__":
    serve(DemandResponse)
