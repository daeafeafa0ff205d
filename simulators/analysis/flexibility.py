"""Demand response from a trace: what was called, what came, what it cost, and the laws that caps and events keep.

An event is settled on the means of the data centers' steps, in what of it lies in the counted time; the fleet's on the
sum of its sites, so that one may make up for another. Delivered is what the sites drew below their baseline, between
nothing and what was called; the rest of what was called is the shortfall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.simulators.aidc.engine.capped import SLACK_KW
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import CALLS, SITE
from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, recording_of, scenario_of, spans, step_s
from cosim.units import DAY_S, HOUR_S, MIN_S, format_time

MEMBER, TABLE = "flexibility", "demand_response"
_MOST_ROWS = 20
_ALLOWED_KW = 1e-9
"""Of means that are summed up in another order, and minutes that were worked out from seconds."""


@dataclass(frozen=True)
class Settled:
    """One event as settled; powers in kW, lists over the steps of the data centers in it.

    scope         `fleet`, or the site
    time_s        (n,) begins of the steps; hours: (n,) of them that count
    baseline_kw, called_kw   of the sites together
    achieved_kw   (n,) baseline less what was drawn
    rebound_kwh   energy above the baseline in a time as long as the event after its end, `rebound_h` of which the run
                  has
    """

    number: int
    scope: str
    sites: tuple[str, ...]
    announced_s: float
    start_s: float
    end_s: float
    baseline_kw: float
    called_kw: float
    penalty_usd_per_kwh: float
    payment_usd_per_kwh: float
    time_s: np.ndarray
    hours: np.ndarray
    achieved_kw: np.ndarray
    rebound_kwh: float
    rebound_h: float

    @property
    def called_kwh(self) -> float:
        """Energy called."""
        return self.called_kw * float(self.hours.sum())

    @property
    def delivered_kwh(self) -> float:
        """Energy called and delivered."""
        return float(np.clip(self.achieved_kw, 0.0, self.called_kw) @ self.hours)

    @property
    def shortfall_kwh(self) -> float:
        """Energy called and not delivered."""
        return max(self.called_kwh - self.delivered_kwh, 0.0)

    @property
    def compliance_ratio(self) -> float:
        """Delivered of called; 1 where nothing was called."""
        return self.delivered_kwh / self.called_kwh if self.called_kwh else 1.0

    @property
    def payment_usd(self) -> float:
        """For what was delivered."""
        return self.payment_usd_per_kwh * self.delivered_kwh

    @property
    def penalty_usd(self) -> float:
        """For what was not."""
        return self.penalty_usd_per_kwh * self.shortfall_kwh


def settled(trace: Trace) -> list[Settled]:
    """The events of a run that have begun in its counted time, in their order; [] without any."""
    rows = trace.table(TABLE) if TABLE in trace.tables() else {}
    if not rows or SITE not in trace.models():
        return []
    what, p_kw, names = counted(trace, SITE), trace[f"{SITE}/p_kw"], trace.names(SITE)
    begin, end = (edge[what.use] for edge in spans(trace, SITE))
    p_kw = p_kw[what.use]
    time = counted_time(trace)
    out = []
    for number in dict.fromkeys(rows["event"].tolist()):
        mine = {name: column[rows["event"] == number] for name, column in rows.items()}
        start_s, end_s = float(mine["start_s"][0]), float(mine["end_s"][0])
        at = [names.index(str(site)) for site in mine["site"]]
        drawn_kw, base_kw = p_kw[:, at].sum(axis=1), float(mine["baseline_kw"].sum())

        def hours_in(low_s: float, high_s: float) -> np.ndarray:
            """Time of each sample between two instants, within what counts, h."""
            low_s, high_s = max(low_s, time.begin_s), min(high_s, time.end_s)
            return np.maximum(np.minimum(end, high_s) - np.maximum(begin, low_s), 0.0) / HOUR_S

        within, after = hours_in(start_s, end_s), hours_in(end_s, 2.0 * end_s - start_s)
        inside = within > 0.0
        if inside.any():
            out.append(Settled(
                int(number), str(mine["scope"][0]), tuple(map(str, mine["site"])), float(mine["announced_s"][0]),
                start_s, end_s, base_kw, float(mine["called_kw"].sum()), float(mine["penalty_usd_per_kwh"][0]),
                float(mine["payment_usd_per_kwh"][0]), begin[inside], within[inside], base_kw - drawn_kw[inside],
                float(np.maximum(drawn_kw - base_kw, 0.0) @ after), float(after.sum())))
    return out


def flexibility_tables(trace: Trace, digest: Digest) -> None:
    """What the fleet offered, where its sites worked it out; what was called and what came of it."""
    _offer_table(trace, digest)
    if CALLS not in trace.models():
        return
    if (path := recording_of(trace, MEMBER)) is not None:
        digest.warnings.append(f"{MEMBER} is played from {path}: its caps are those of the recorded run, and no event "
                               "is settled")
        return
    events = settled(trace)
    if not events:
        digest.tables.append(Table("Demand response", ("", ""), [("events in the counted time", "none")]))
        return
    digest.figures |= {
        "dr_events": float(len(events)),
        **{f"dr_{name}": float(sum(getattr(e, name) for e in events))
           for name in ("called_kwh", "delivered_kwh", "shortfall_kwh", "rebound_kwh", "payment_usd", "penalty_usd")}}
    called = digest.figures["dr_called_kwh"]
    digest.figures["dr_compliance_ratio"] = digest.figures["dr_delivered_kwh"] / called if called else 1.0
    rows = [(format_time(e.start_s), format_time(e.end_s), f"{(e.start_s - e.announced_s) / MIN_S:g}", e.scope,
             f"{e.baseline_kw:.1f}", f"{e.called_kw:.1f}", f"{e.achieved_kw @ e.hours / e.hours.sum():.1f}",
             f"{e.achieved_kw.min():.1f}", f"{100 * e.compliance_ratio:.1f} %", f"{e.shortfall_kwh:.1f}",
             f"{e.rebound_kwh:.1f}", f"{e.payment_usd:.0f}", f"{e.penalty_usd:.0f}") for e in events[:_MOST_ROWS]]
    rules = scenario_of(trace)["members"][MEMBER]["params"]["baseline"]
    base = (f"mean of the {rules['before_s'] / MIN_S:g} min before the announcement"
            if rules["kind"] == "meter_before" else f"same hours of the last {rules['days']} days without an event")
    more = f"; {len(events) - _MOST_ROWS} more events are in the figures" if len(events) > _MOST_ROWS else ""
    digest.tables.append(Table(
        "Demand response", ("start", "end", "notice min", "for", "baseline kW", "called kW", "achieved kW", "least",
                            "complied", "short kWh", "rebound kWh", "paid USD", "penalty USD"), rows,
        f"baseline: {base} ({rules['kind']}); complied: energy delivered of energy called, step by step; rebound: "
        f"energy above the baseline in as long a time after the event; paid and penalty are in no other cost{more}"))
    _cost_to_jobs(trace, events, digest)


def _offer_table(trace: Trace, digest: Digest) -> None:
    """What all sites together could have drawn less, for each hold: least, mean and most over the counted time."""
    if SITE not in trace.models() or not trace.has(f"{SITE}/flex_train_kw"):
        return
    what = counted(trace, SITE)
    rows = []
    for k, hold in enumerate(trace.names(SITE, "hold")):
        cells: list[str] = []
        for of in ("train", "inf"):
            kw = trace[f"{SITE}/flex_{of}_kw"][what.use][:, :, k].sum(axis=1)
            known = np.isfinite(kw)
            if not known.any():
                return
            mean = float(kw[known] @ what.hours[known] / what.hours[known].sum())
            digest.figures[f"flex_{of}_{hold}_mean_kw"] = mean
            cells += [f"{kw[known].min():.0f}", f"{mean:.0f}", f"{kw[known].max():.0f}"]
        rows.append((hold, *cells))
    digest.tables.append(Table(
        "IT power that could have been withheld, kW", ("for", "training: least", "mean", "most", "inference: least",
                                                       "mean", "most"), rows,
        "of all sites, no deadline missed; of training at once, of inference once what runs has ended; not both"))


def _cost_to_jobs(trace: Trace, events: list[Settled], digest: Digest) -> None:
    """Waits and drops of the jobs that arrived in events, at their sites, beside those of all other jobs."""
    if "jobs" not in trace.tables():
        return
    shared, time = scenario_of(trace)["shared"]["job_classes"], counted_time(trace)
    found: dict[tuple[str, bool], list[np.ndarray]] = {}
    for jobs in trace.blocks("jobs", ("arrival_s", "release_s", "start_s", "job_class", "site", "outcome")):
        counts = (jobs["arrival_s"] >= time.begin_s) & (jobs["arrival_s"] < time.end_s)
        inside = np.zeros(len(counts), dtype=bool)
        for e in events:
            inside |= (jobs["arrival_s"] >= e.start_s) & (jobs["arrival_s"] < e.end_s) & np.isin(jobs["site"], e.sites)
        for name, given in shared.items():
            since_s = jobs["release_s" if given["kind"] == "train" else "arrival_s"]
            for called in (True, False):
                mine = counts & (jobs["job_class"] == name) & (inside == called)
                wait_s = np.where(jobs["outcome"][mine] == "dropped", np.inf, (jobs["start_s"] - since_s)[mine])
                found.setdefault((name, called), []).append(wait_s)
    rows = []
    for name in shared:
        cells: list[str] = []
        for called in (True, False):
            wait_s = np.concatenate(found[name, called]) if (name, called) in found else np.empty(0)
            began, dropped = wait_s[np.isfinite(wait_s)], int(np.isinf(wait_s).sum())
            mean = f"{began.mean():.0f}" if len(began) else "-"
            cells += [str(len(wait_s)), mean, f"{100 * dropped / len(wait_s):.2f} %" if len(wait_s) else "-"]
            digest.figures[f"dr_dropped_{name}_{'called' if called else 'other'}_jobs"] = float(dropped)
        rows.append((name, *cells))
    digest.tables.append(Table(
        "Jobs that arrived in an event, at its sites, against all others", (
            "class", "arrived", "mean wait s", "dropped", "others", "mean wait s", "dropped"), rows,
        "of one run, at other hours and sites, too; what the event alone changed: run again without it"))


# --- laws -----------------------------------------------------------------------------------------------------------


def caps(trace: Trace) -> Finding:
    """What is drawn beyond a cap, by hand; the cap of each site is the one that was called. kW."""
    if SITE not in trace.models() or not trace.has(f"{SITE}/p_cap_kw"):
        raise NothingToCheck("no site has a cap")
    cap, p_kw = trace[f"{SITE}/p_cap_kw"], trace[f"{SITE}/p_kw"]
    over = np.where(np.isnan(cap), 0.0, p_kw - np.nan_to_num(cap))
    off = {"cap_excess_kw": np.abs(np.where(over > SLACK_KW, over, 0.0) - trace[f"{SITE}/cap_excess_kw"])}
    if CALLS in trace.models() and trace.has(f"{CALLS}/p_cap_kw"):
        called = trace[f"{CALLS}/p_cap_kw"]
        count = min(len(called), len(cap))
        at = [trace.names(CALLS).index(site) for site in trace.names(SITE)]
        off["p_cap_kw"] = _apart(cap[:count], called[:count][:, at])
    return _worst(off, 0.0)


def calls(trace: Trace) -> Finding:
    """What was called is what had been announced, and baselines are what had been drawn before. kW, min."""
    if CALLS not in trace.models():
        raise NothingToCheck("no demand response")
    if recording_of(trace, MEMBER) is not None:
        raise TraceError(f"{MEMBER} is played from a recording")
    times, names = trace.time_s(CALLS).astype(float), trace.names(CALLS)
    hand = {port: np.full((len(times), len(names)), 0.0 if port == "called_kw" else np.nan)
            for port in ("p_cap_kw", "baseline_kw", "called_kw", "event_start_min", "event_end_min", "event_cap_kw")}
    rows = trace.table(TABLE) if TABLE in trace.tables() else {}
    for row in _rows(rows):
        k = names.index(row["site"])
        for port, value in (("p_cap_kw", "cap_kw"), ("baseline_kw", "baseline_kw"), ("called_kw", "called_kw")):
            hand[port][(times >= row["start_s"]) & (times < row["end_s"]), k] = row[value]
        earlier = [r["end_s"] for r in _rows(rows) if r["site"] == row["site"] and r["end_s"] <= row["start_s"]]
        known = (times >= max([row["announced_s"], *earlier])) & (times < row["end_s"])
        hand["event_cap_kw"][known, k] = row["cap_kw"]
        hand["event_start_min"][known, k] = np.maximum(row["start_s"] - times[known], 0.0) / MIN_S
        hand["event_end_min"][known, k] = (row["end_s"] - times[known]) / MIN_S
    off = {port: _apart(trace[f"{CALLS}/{port}"], by_hand) for port, by_hand in hand.items()}
    rules = scenario_of(trace)["members"][MEMBER]["params"]["baseline"]
    if SITE in trace.models():
        base = [abs(row["baseline_kw"] - _baseline_kw(trace, row, rules, rows)) for row in _rows(rows)]
        off["baseline_kw of the announcements"] = np.array(base or [0.0])
    return _worst(off, _ALLOWED_KW)


def _baseline_kw(trace: Trace, row: dict[str, Any], rules: dict[str, Any], rows: dict[str, np.ndarray]) -> float:
    """Of one site and event, from the data centers' own series."""
    times, k = trace.time_s(SITE).astype(float), trace.names(SITE).index(row["site"])
    p_kw = trace[f"{SITE}/p_kw"][:, k]
    if rules["kind"] == "meter_before":
        every_s = step_s(trace, MEMBER)
        before_s = max(round(rules["before_s"] / every_s), 1) * every_s
        return float(p_kw[(times >= row["announced_s"] - before_s) & (times < row["announced_s"])].mean())
    days: list[float] = []
    back = 0
    while len(days) < rules["days"] and row["start_s"] - (back + 1) * DAY_S >= 0.0:
        back += 1
        begin_s, end_s = row["start_s"] - back * DAY_S, row["end_s"] - back * DAY_S
        others = [r for r in _rows(rows) if r["site"] == row["site"] and r["start_s"] < end_s and r["end_s"] > begin_s]
        if end_s <= row["announced_s"] and not others:
            days.append(float(p_kw[(times >= begin_s) & (times < end_s)].mean()))
    return float(np.mean(days))


def _rows(rows: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [dict(zip(rows, cells, strict=True)) for cells in zip(*(c.tolist() for c in rows.values()), strict=True)]


def _apart(said: np.ndarray, by_hand: np.ndarray) -> np.ndarray:
    """How far numbers are apart; infinitely where one is none."""
    both, one = np.isnan(said) & np.isnan(by_hand), np.isnan(said) ^ np.isnan(by_hand)
    return np.where(both, 0.0, np.where(one, np.inf, np.abs(np.nan_to_num(said) - np.nan_to_num(by_hand))))


def _worst(off: dict[str, np.ndarray], allowed: float) -> Finding:
    what = max(off, key=lambda name: largest(off[name]))
    return Finding(largest(off[what]), allowed, what)
