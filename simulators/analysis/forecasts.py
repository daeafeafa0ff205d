"""How good forecasts were, from a trace alone, and the laws that their kinds are subject to.

A forecast over the horizon has what the signal is in its first entry, so that what came stands in the same series. One
that was made inside the counted time is compared with what came until the run's end.

Rows: U20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.agents.fleet.forecasting import Accuracy, accuracy, day_ahead
from cosim.digest import Digest, Table
from cosim.imports import today
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import largest
from cosim.simulators.forecast.signals import SIGNALS
from cosim.trace import Trace
from cosim.trace.series import counted, port_ref, scenario_of, standing, step_s
from cosim.units import DAY_S, HOUR_S, unit_of

_SIMULATOR = "cosim.simulators.forecast.adapter:Forecasts"
_SHOWN_H = (1.0, 4.0, 12.0, 24.0)
ALLOWED = 1e-9
"""Of a sum of plants, per unit of it."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """All forecasts of one signal of one entity: what it is called in `SIGNALS` and how it was made (its parameters),
    where it stands, entries (T, K + 1) made at times (T,), s, and the step of the horizon, s."""

    signal: str
    rules: dict[str, Any]
    member: str
    entity: str
    path: str
    values: np.ndarray
    time_s: np.ndarray
    step_s: float

    @property
    def ahead(self) -> np.ndarray:
        """(K,) leads in steps, the present one left out."""
        return np.arange(1, self.values.shape[1])

    def accuracy(self, trace: Trace) -> Accuracy:
        """By lead, of the forecasts that were made in the counted time."""
        made = np.where(counted(trace, self.path.rpartition("/")[0]).use[:, None], self.values[:, 1:], np.nan)
        return accuracy(made, self.values[:, 0], self.ahead)


def read_forecasts(trace: Trace) -> Iterator[Forecast]:
    """The forecasts of a trace, member by member; none of one that is played, whose kinds are not known."""
    for member, spec in scenario_of(trace)["members"].items():
        if today(spec["simulator"]) != _SIMULATOR:
            continue
        for name, signal in SIGNALS.items():
            path, rules = f"{member}/{signal.model}/{signal.forecast}", spec["params"].get(name)
            model = path.rpartition("/")[0]
            if rules is None or model not in trace.models() or not trace.has(path) or not len(trace.time_s(model)):
                continue
            values, every_s = trace[path], step_s(trace, member)
            for k, eid in enumerate(trace.names(model)):
                yield Forecast(name, rules, member, eid, path, values[:, k], trace.time_s(model).astype(float), every_s)


def forecasts_table(trace: Trace, digest: Digest) -> None:
    """Mean absolute error by lead and mean error of every forecast; figures of each signal over all entities and
    leads. None without a forecast."""
    rows: list[tuple[str, ...]] = []
    sums: dict[str, np.ndarray] = {}
    shown: tuple[float, ...] = ()
    for one in read_forecasts(trace):
        found, per_h = one.accuracy(trace), HOUR_S / one.step_s
        shown = shown or tuple(h for h in _SHOWN_H if round(h * per_h) <= len(one.ahead) and h * per_h >= 1.0)
        at = [round(h * per_h) - 1 for h in shown]
        mae = [_number(found.mae[k]) if k < len(found.mae) else "-" for k in at]
        total, count = np.nansum(found.mae * found.compared), found.compared.sum()
        off = np.nansum(found.bias * found.compared)
        rows.append((one.signal, one.entity, one.rules["kind"], unit_of(one.path.rpartition("/")[2]).symbol,
                     _number(float(np.nanmean(one.values[:, 0]))) if np.isfinite(one.values[:, 0]).any() else "-", *mae,
                     _number(off / count) if count else "-"))
        sums.setdefault(one.path.rpartition("/")[2], np.zeros(3))
        sums[one.path.rpartition("/")[2]] += (total, off, count)
    for port, (total, off, count) in sums.items():
        if count:
            stem, unit = port.split("_forecast_")
            digest.figures |= {f"{stem}_forecast_mae_{unit}": float(total / count), f"{stem}_forecast_bias_{unit}":
                               float(off / count)}
    if rows:
        digest.tables.append(Table(
            "Forecasts", ("of", "at", "kind", "unit", "mean", *(f"off by, {h:g} h ahead" for h in shown), "bias"),
            rows, "off by: mean absolute error, - where nothing came that could be compared; bias: mean error at all "
            "leads, > 0 forecasts too much"))


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.4g}"


# --- laws -------------------------------------------------------------------------------------------------------------


def forecasts(trace: Trace) -> Finding:
    """The first entry is what the signal is; persistence has it at all leads, day_ahead what was the day before, a
    perfect forecast what came, the plants' sum theirs. Off by, relative to the signal's largest."""
    worst, place = 0.0, ""
    left_out: set[str] = set()
    plants: dict[str, list[np.ndarray]] = {}
    any_there, wiring = False, trace.table("wiring")
    sources = dict(zip(map(str, wiring.get("target", ())), map(str, wiring.get("source", ())), strict=True))
    for one in read_forecasts(trace):
        any_there = True
        came = _linked(one, trace, sources.get(f"{one.member}.{one.entity}.{SIGNALS[one.signal].now}"))
        off = np.abs(np.nan_to_num(one.values - _expected(one, came, left_out)))
        size = max(largest(np.abs(np.nan_to_num(one.values[:, 0]))), 1e-3)
        if (here := largest(off) / size) > worst:
            worst, place = here, f"{one.path} of {one.entity}"
        if one.signal == "available":
            plants.setdefault(one.member, []).append(one.values)
    if not any_there:
        raise NothingToCheck("nothing is forecast")
    for member, values in plants.items():
        path = f"{member}/Feeder/renewable_forecast_kw"
        if trace.has(path):
            both = min(len(values[0]), len(trace[path]))
            total = np.sum([v[:both] for v in values], axis=0)
            apart = largest(np.abs(trace[path][:both, 0] - total)) / max(largest(total), 1e-3)
            if apart > worst:
                worst, place = apart, path
    return Finding(worst, ALLOWED, place, tuple(sorted(left_out)))


def _expected(one: Forecast, came: np.ndarray | None, left_out: set[str]) -> np.ndarray:
    """(T, K + 1) what the forecast must have, or as it is, where that is not known; came: (T,) the signal, or None."""
    said, kind = one.values, one.rules["kind"]
    expected, now = said.copy(), said[:, 0]
    if came is None:
        left_out.add(f"the present value of {one.signal} in a forecast, whose source is not recorded in its unit")
    else:
        expected[:, 0] = came
    if kind == "persistence":
        expected[:, 1:] = now[:, None]
    elif kind == "day_ahead":
        per_day = round(DAY_S / one.step_s)
        for t in range(len(said)):
            expected[t, 1:] = day_ahead(now[:t + 1], one.ahead, per_day, one.rules["days"])
    elif kind == "perfect" and one.rules["recorded"] is None:
        at = np.arange(len(said))[:, None] + one.ahead
        expected[:, 1:] = np.where(at < len(said), now[np.minimum(at, len(said) - 1)], said[:, 1:])
    else:
        left_out.add(f"{one.signal} as forecast by {one.member}: " + (
            "of another run" if kind == "perfect" else "with an error that is drawn"))
    return expected


def _linked(one: Forecast, trace: Trace, source: str | None) -> np.ndarray | None:
    """(T,) what a source of the wiring sent; None where that is not in the trace, or in another unit."""
    if source is None:
        return None
    member, eid, port = port_ref(source)
    for model in (m for m in trace.models() if m.startswith(f"{member}/") and eid in trace.names(m)):
        path = f"{model}/{port}"
        if trace.has(path) and not trace.dims(path) and unit_of(port) == unit_of(SIGNALS[one.signal].now):
            return standing(trace, path, one.time_s)[:, trace.names(model).index(eid)]
    return None
