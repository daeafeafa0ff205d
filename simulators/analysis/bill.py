"""What the sites pay, from a trace: energy at the price of each minute and site, and demand charges.

A demand charge is on the highest mean power over a metering interval of each billing period (a day or a month of the
calendar). A period that the counted time has a part of counts with that part, so that a day pays a thirtieth or so of
a monthly charge on its own peak. Each site has its own meter.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import PRICE, SITE, SITE_PRICE
from cosim.trace import Trace
from cosim.trace.series import PLAYERS, counted, counted_time, over_counted, scenario_of, spans
from cosim.units import DAY_S, HOUR_S, ROUNDING

_ALLOWED_USD = 1e-9


@dataclass(frozen=True)
class DemandCharge:
    """The demand charge of one site in one billing period: the highest metered mean, kW, the share of the period that
    counts, and what is to be paid."""

    site: str
    period: str
    peak_kw: float
    share: float
    usd: float


def site_prices(trace: Trace) -> np.ndarray | None:
    """Price at each site over what counts of the data centers' samples, USD/kWh, (k, site); None without a tariff."""
    names = trace.names(SITE)
    if SITE_PRICE.rpartition("/")[0] in trace.models() and trace.has(SITE_PRICE):
        theirs = trace.names(SITE_PRICE.rpartition("/")[0])
        values = over_counted(trace, SITE_PRICE, SITE)
        if set(names) <= set(theirs):
            return values[:, [theirs.index(name) for name in names]]
    if not trace.has(PRICE):
        return None
    return np.repeat(over_counted(trace, PRICE, SITE)[:, :1], len(names), axis=1)


def demand_charges(trace: Trace) -> list[DemandCharge]:
    """Demand charges by site and billing period; [] where the tariff has none, or is played from a recording."""
    given = tariff_of(trace)
    rates = {name: _rate(given, name) for name in trace.names(SITE)}
    if not any(rates.values()):
        return []
    what, (begin, end) = counted(trace, SITE), spans(trace, SITE)
    begin, end = begin[what.use], end[what.use]
    time, p_kw = counted_time(trace), trace[f"{SITE}/p_kw"][what.use]
    begin, end = np.maximum(begin, time.begin_s), np.minimum(end, time.end_s)
    first = datetime.fromisoformat(scenario_of(trace)["start"])
    interval = np.floor(begin / given["metering_s"] + ROUNDING).astype(int)
    edges = np.flatnonzero(np.r_[True, np.diff(interval) != 0])
    energy_kws = np.add.reduceat(p_kw * (end - begin)[:, None], edges)
    means_kw = energy_kws / np.add.reduceat(end - begin, edges)[:, None]
    begins = begin[edges]
    out = []
    for label, low_s, high_s in _periods(first, time.begin_s, time.end_s, given["billing"]):
        mine = (begins >= low_s) & (begins < high_s)
        if not mine.any():
            continue
        share = (min(high_s, time.end_s) - max(low_s, time.begin_s)) / (high_s - low_s)
        for k, (name, rate) in enumerate(rates.items()):
            peak = float(means_kw[mine, k].max())
            out.append(DemandCharge(name, label, peak, share, rate * peak * share))
    return out


def demand_table(charges: list[DemandCharge], given: dict[str, Any], digest: Digest) -> None:
    """The charges, and what they are in sum."""
    digest.figures["demand_charge_usd"] = float(sum(d.usd for d in charges))
    rows = [(d.period, d.site, f"{d.peak_kw:.1f}", f"{100 * d.share:.2f} %", f"{d.usd:.2f}") for d in charges[:40]]
    more = f"; {len(charges) - 40} more are in the figure" if len(charges) > 40 else ""
    digest.tables.append(Table(
        "Demand charge", ("period", "site", "peak kW", "of it counted", "USD"), rows,
        f"highest mean over {given['metering_s'] / 60:g} min; a period that the run has a part of is charged for that "
        f"part; part of the sites' USD{more}"))


def tariff_of(trace: Trace) -> dict[str, Any]:
    """The tariff's parameters; {} without one, and of one that is played."""
    member = scenario_of(trace)["members"].get("tariff", {})
    params = member.get("params", {})
    return params if member.get("simulator") not in PLAYERS and "demand_charge_usd_per_kw" in params else {}


def _rate(given: dict[str, Any], site: str) -> float:
    own = given.get("site_prices", {}).get(site, {}).get("demand_charge_usd_per_kw")
    return float(given.get("demand_charge_usd_per_kw") or 0.0) if own is None else float(own)


def _periods(first: datetime, begin_s: float, end_s: float, billing: str) -> list[tuple[str, float, float]]:
    """(label, begin, end) of the billing periods between two times, s since the run's start, which is at midnight."""
    out = []
    date = (first + timedelta(seconds=begin_s)).replace(hour=0, minute=0, second=0, microsecond=0)
    if billing == "month":
        date = date.replace(day=1)
    while (low_s := (date - first).total_seconds()) < end_s:
        days = calendar.monthrange(date.year, date.month)[1] if billing == "month" else 1
        out.append((date.strftime("%Y-%m" if billing == "month" else "%Y-%m-%d"), low_s, low_s + days * DAY_S))
        date += timedelta(days=days)
    return out


# --- law ------------------------------------------------------------------------------------------------------------


def bill(trace: Trace) -> Finding:
    """Cost in the run's summary = energy x price of each sample + peaks x charge, added up here one by one; USD,
    relative to it."""
    if SITE not in trace.models() or not trace.has(PRICE):
        raise NothingToCheck("no data center with a tariff")
    if "summary" not in trace.attrs or trace.attrs["status"] != "completed":
        raise TraceError(f"{trace.path}: the run has no summary")
    said = Digest.from_json(str(trace.attrs["summary"])).figures
    if "cost_usd" not in said:
        raise TraceError(f"{trace.path}: its summary has no cost_usd")
    what, (begin, end), time = counted(trace, SITE), spans(trace, SITE), counted_time(trace)
    prices, given, off = site_prices(trace), tariff_of(trace), {}
    assert prices is not None, "there is a tariff"
    energy_usd = demand_usd = 0.0
    first = datetime.fromisoformat(scenario_of(trace)["start"])
    for k, site in enumerate(trace.names(SITE)):
        metered: dict[tuple[str, int], list[float]] = {}
        spent: dict[str, float] = {}
        for p_kw, price, low_s, high_s in zip(trace[f"{SITE}/p_kw"][what.use, k].tolist(), prices[:, k].tolist(),
                                              begin[what.use].tolist(), end[what.use].tolist(), strict=True):
            low_s, high_s = max(low_s, time.begin_s), min(high_s, time.end_s)
            energy_usd += p_kw * price * (high_s - low_s) / HOUR_S
            if given:
                date = first + timedelta(seconds=low_s)
                period = f"{date:%Y-%m}" if given["billing"] == "month" else f"{date:%Y-%m-%d}"
                cell = metered.setdefault((period, int(low_s / given["metering_s"] + ROUNDING)), [0.0, 0.0])
                cell[0] += p_kw * (high_s - low_s)
                cell[1] += high_s - low_s
                spent[period] = spent.get(period, 0.0) + high_s - low_s
        for period, spent_s in spent.items():
            peak = max(kws / s for (of, _), (kws, s) in metered.items() if of == period)
            days = calendar.monthrange(*map(int, period.split("-")[:2]))[1] if given["billing"] == "month" else 1
            demand_usd += _rate(given, site) * peak * spent_s / (days * DAY_S)
    total = energy_usd + demand_usd
    off["cost_usd"] = np.array([abs(said["cost_usd"] - total) / max(abs(total), 1.0)])
    if demand_usd:
        off["demand_charge_usd"] = np.array([abs(said.get("demand_charge_usd", 0.0) - demand_usd) / demand_usd])
    if SITE_PRICE.rpartition("/")[0] in trace.models() and given:
        off["site_price_usd_per_kwh"] = _off_site_prices(trace, given)
    worst = max(off, key=lambda name: largest(off[name]))
    return Finding(largest(off[worst]), _ALLOWED_USD, worst)


def _off_site_prices(trace: Trace, given: dict[str, Any]) -> np.ndarray:
    """Sites' prices against the common one and what is added to it, where they have no windows of their own."""
    model = SITE_PRICE.rpartition("/")[0]
    common, said = trace[PRICE][:, 0], trace[SITE_PRICE]
    own = [given["site_prices"].get(name) or {} for name in trace.names(model)]
    adders = np.array([prices.get("adder_usd_per_kwh", 0.0) for prices in own])
    looked = np.array([prices.get("base_usd_per_kwh") is None for prices in own])
    return np.abs(said - common[: len(said), None] - adders) * looked
