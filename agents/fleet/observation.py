"""Observations of the manager and the sites' agents as numbers, (25) and (27), and how learners scale it.

`ObservationRow` puts an `Observation` into one row. An `AgentObservation` is a list of blocks, each the names of some
columns and where their numbers stand in that row, so that the two cannot part. Beyond the paper (`full`) the manager
observes unfinished work per site and class and the remainder of rounding; a site its inference queue, running jobs,
unfinished work, the remainder of rounding of its release times, how many of its deferred jobs are of which deferral and
when they are due, how many training jobs are late or nearly, and how its GPUs would usually be split. Totals alone hide
whether work can still meet its deadline, so that a critic could charge a bad deferral only half a day later, when the
job is dropped.

Rows: E25, E27, I26, S01-12, S15, T09, U08.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cosim.agents.fleet.actions import usual_gpu_columns
from cosim.agents.fleet.base import GPUS, RELEASE, SITE, SUPPLY
from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.agents.fleet.observation_row import (
    FORECASTS,
    OF_SITES,
    USUAL_LEAST,
    USUAL_SHARE,
    ObservationRow,
    ObservationScope,
    relatives,
)
from cosim.agents.learn.spec import Column

_PRICE: dict[str, Any] = {"low": -0.1, "high": 0.4}
_INTENSITY: dict[str, Any] = {"low": 0.0, "high": 1.2}
_MARGINAL: dict[str, Any] = {"low": -0.5, "high": 2.0}
_APART: dict[str, Any] = {"low": -0.4, "high": 0.4}
"""Of an intensity less its mean over the sites, kg/kWh: sites differ by less than an intensity swings in a day."""
_FEEDER: dict[str, Any] = {"low": 0.0, "high": 1e5, "scale": "log", "unit": 100.0}
"""Powers of a whole feeder, kW."""
_FORECAST_SCALES = {"nci": _INTENSITY, "mci": _MARGINAL, "load": _FEEDER, "renewable": _FEEDER}
_SHARE: dict[str, Any] = {"low": 0.0, "high": 1.0}
_OWED: dict[str, Any] = {"low": -10.0, "high": 10.0}
"""Jobs owed stay within 2, but jump every minute and matter little: a wide range keeps them small beside the others."""
_JOBS: dict[str, Any] = {"low": 0.0, "high": 1e5, "scale": "log"}
_USUAL: dict[str, Any] = {"low": math.log(USUAL_LEAST), "high": 0.0}
"""Logarithms of shares of a site's GPUs."""
_TRAIN_JOBS: dict[str, Any] = {"low": 0.0, "high": 500.0, "scale": "log"}
_SLACK_MIN: dict[str, Any] = {"low": -120.0, "high": 600.0}
_WORK_MIN: dict[str, Any] = {"low": 0.0, "high": 1440.0, "scale": "log", "unit": 0.1}
"""Work is seen as the minutes that all GPUs of the site would need for it."""


class AgentObservation:
    """Columns of one agent, and where `ObservationRow` has what they show.

    at   places of the columns' numbers in the row
    per  what each number is divided by
    """

    def __init__(self, numbers: ObservationRow) -> None:
        self.columns: list[Column] = []
        self.at, self.per = np.zeros(0, int), np.zeros(0)
        self._numbers = numbers

    def add(self, names: Sequence[str], at: np.ndarray, scales: Mapping[str, Any],
            per: float | np.ndarray = 1.0) -> None:
        """A block of columns on one scale."""
        self.columns += [Column(name, **scales) for name in names]
        self.at = np.append(self.at, np.reshape(at, len(names)))
        self.per = np.append(self.per, np.broadcast_to(per, len(names)))

    def values(self, seen: Observation) -> np.ndarray:
        """One number per column."""
        return self._numbers(seen)[self.at] / self.per


def manager_view(facts: FleetFacts, sight: ObservationScope, numbers: ObservationRow | None = None) -> AgentObservation:
    """(25): price, intensities, four numbers per site, arrivals per class, time of day."""
    numbers = numbers or ObservationRow(facts, sight)
    view, at, sites = AgentObservation(numbers), numbers.at, sight.sites
    view.add(["price_usd_per_kwh"], at["price_usd_per_kwh"], _PRICE)
    if sight.nci:
        view.add([f"nci_kg_per_kwh {s}" for s in sites], at["nci_kg_per_kwh"], _INTENSITY)
    if sight.mci:
        view.add([f"mci_kg_per_kwh {s}" for s in sites], at["mci_kg_per_kwh"], _MARGINAL)
    for name in relatives(sight):
        view.add([f"{name} {s}" for s in sites], at[name], _APART)
    if sight.usual_shares:
        view.add([f"{USUAL_SHARE} {s}" for s in sites], at[USUAL_SHARE], _USUAL)
    if (base := numbers.base) is not None:
        view.add([name for row in base.manager for name in row], at[SITE], base.scale)
    view.add([f"train_backlog_jobs {s}" for s in sites], at["train_backlog_jobs"], _TRAIN_JOBS)
    view.add([f"inf_backlog_jobs {s}" for s in sites], at["inf_backlog_jobs"], _JOBS)
    view.add([f"power_kw {s}" for s in sites], at["power_kw"], {"low": 0.0, "high": sight.peak_kw})
    view.add([f"free_gpu_ratio {s}" for s in sites], at["free_gpu_ratio"], _SHARE)
    _arrivals(view, sight, at)
    if sight.full:
        train = list(facts.train)
        for i, site in enumerate(sites):
            per_min = _site_to_per_min(facts, i)
            view.add([f"pending_min {site} {c}" for c in sight.classes], at["pending_work_to"][i], _WORK_MIN, per_min)
            view.add([f"deferred_min {site} {sight.classes[m]}" for m in train], at["deferred_work_to"][i, train],
                     _WORK_MIN, per_min[train])
        view.add([f"slack_min {s}" for s in sites], at["slack_min"], _SLACK_MIN)
        view.add([f"site_carry {c} {s}" for c in sight.classes for s in sites], at["site_carry"], _OWED)
    for name in sight.forecasts:
        for i, site in enumerate(sites if name in OF_SITES else [""]):
            _add_forecast(view, facts, name, at[FORECASTS[name]][i] if site else at[FORECASTS[name]], site)
    return view


def site_view(facts: FleetFacts, sight: ObservationScope, i: int, numbers: ObservationRow | None = None
              ) -> AgentObservation:
    """(27) of site `i`, before the manager has acted: its last two entries are the fleet's arrivals."""
    numbers = numbers or ObservationRow(facts, sight)
    view, at, train, inf = AgentObservation(numbers), numbers.at, list(facts.train), list(facts.inf)
    trained = [sight.classes[m] for m in train]
    by_lead = [f"{c} +{lead:g}s" for c in trained for lead in facts.deferrals_s]
    view.add(["price_usd_per_kwh"], at["price_usd_per_kwh"], _PRICE)
    view.add([f"price_usd_per_kwh +{lead:g}s" for lead in facts.deferrals_s], at["forecast_usd_per_kwh"], _PRICE)
    view.add([f"backlog_jobs {c}" for c in trained], at["backlog_jobs"][i, train], _TRAIN_JOBS)
    if sight.nci:
        view.add(["nci_kg_per_kwh"], at["nci_kg_per_kwh"][i], _INTENSITY)
    if sight.mci:
        view.add(["mci_kg_per_kwh"], at["mci_kg_per_kwh"][i], _MARGINAL)
    for name in relatives(sight):
        view.add([name], at[name][i], _APART)
    if (base := numbers.base) is not None:
        view.add([name for row in base.site.release for name in row], at[RELEASE][i], base.scale)
        view.add(base.site.gpus, at[GPUS][i], base.scale)
        view.add([base.site.supply_temp], at[SUPPLY][i], base.supply_scale)
    view.add(["power_kw"], at["power_kw"][i], {"low": 0.0, "high": sight.peak_kw})
    view.add(["free_gpu_ratio"], at["free_gpu_ratio"][i], _SHARE)
    _arrivals(view, sight, at)
    if sight.full:
        per_min = _site_to_per_min(facts, i)
        view.add(usual_gpu_columns(facts, sight.classes), at["usual_gpus"][i], _USUAL)
        view.add([f"queued_jobs {sight.classes[m]}" for m in inf], at["queued_jobs"][i, inf], _JOBS)
        view.add([f"running_jobs {c}" for c in sight.classes], at["running_jobs"][i],
                 {"low": 0.0, "high": float(max(facts.gpus)), "scale": "log"})
        view.add([f"pending_min {c}" for c in sight.classes], at["pending_work_to"][i], _WORK_MIN, per_min)
        view.add([f"deferred_min {c}" for c in trained], at["deferred_work_to"][i, train], _WORK_MIN, per_min[train])
        view.add([f"deferral_carry {name}" for name in by_lead], at["deferral_carry"][i], _OWED)
        view.add(["slack_min"], at["slack_min"][i], _SLACK_MIN)
        for name in ("late_jobs", "urgent_jobs"):
            view.add([f"{name} {c}" for c in trained], at[name][i, train], _TRAIN_JOBS)
        for name in ("deferred_by_lead", "deferred_by_time"):
            view.add([f"{name} {column}" for column in by_lead], at[name][i], _TRAIN_JOBS)
    for name in sight.forecasts:
        _add_forecast(view, facts, name, at[FORECASTS[name]][i] if name in OF_SITES else at[FORECASTS[name]])
    return view


def context_columns(sight: ObservationScope) -> list[Column]:
    """Inputs of a site after the manager's action: its jobs of this minute per class, and their work in minutes."""
    jobs = [Column(f"allocated_jobs {c}", **_arrival_scale(sight, c)) for c in sight.classes]
    return jobs + [Column(f"allocated_min {c}", **_WORK_MIN) for c in sight.classes]


def context_per(facts: FleetFacts, i: int) -> np.ndarray:
    """What the columns of `context_columns` are divided by, of the jobs (M,) sent to site `i` and their work, TO."""
    return np.append(np.ones(len(facts.kinds)), _site_to_per_min(facts, i))


class Scaler:
    """`cosim.agents.learn.spec.scaled` for rows of many columns at once. Raw columns are left as they are.

    at: where the columns' numbers stand in the row; per: what each is divided by before; places: where each goes in the
    array that comes out, flat, of `size` numbers, the others 0. By default column k is number k of either.
    """

    def __init__(self, columns: Sequence[Column], at: np.ndarray | None = None, per: np.ndarray | None = None,
                 places: np.ndarray | None = None, size: int | None = None) -> None:
        count = len(columns)
        kinds = {kind: [k for k, c in enumerate(columns) if c.scale == kind] for kind in ("linear", "log", "raw")}
        order = np.array([k for of_kind in kinds.values() for k in of_kind], int)
        self._at = order if at is None else at[order]
        self._per = None if per is None else per[order]
        self._places, self._size = order if places is None else places[order], size or count
        lines, logs = ([columns[k] for k in kinds[kind]] for kind in ("linear", "log"))
        self._line, self._log = slice(0, len(lines)), slice(len(lines), len(lines) + len(logs))
        self._unit = np.array([c.unit for c in logs])
        self._top = np.log1p(np.array([c.high for c in logs]) / self._unit)
        self._low = np.array([c.low for c in lines])
        self._range = np.array([c.high for c in lines]) - self._low

    def __call__(self, row: Sequence[float] | np.ndarray) -> np.ndarray:
        """(size,) float32, or (B, size) of B rows."""
        x = np.asarray(row, np.float64)[..., self._at]
        if self._per is not None:
            x /= self._per
        line, log = x[..., self._line], x[..., self._log]
        line[:] = np.minimum(np.maximum(2.0 * (line - self._low) / self._range - 1.0, -1.0), 1.0)
        log[:] = np.minimum(2.0 * np.log1p(np.maximum(log, 0.0) / self._unit) / self._top - 1.0, 1.0)
        out = np.zeros((*x.shape[:-1], self._size), np.float32)
        out[..., self._places] = x
        return out


def _add_forecast(view: AgentObservation, facts: FleetFacts, name: str, at: np.ndarray, site: str = "") -> None:
    """Columns of a forecast at all deferrals but 0, whose value is there already."""
    later = [h for h, lead in enumerate(facts.deferrals_s) if lead > 0.0]
    view.add([" ".join(filter(None, (FORECASTS[name], site, f"+{facts.deferrals_s[h]:g}s"))) for h in later], at[later],
             _FORECAST_SCALES[name])


def _site_to_per_min(facts: FleetFacts, i: int) -> np.ndarray:
    """(M,) work that all GPUs of site `i` do in a minute, TO."""
    return np.array([speed * facts.gpus[i] for speed in facts.to_per_gpu_min])


def _arrival_scale(sight: ObservationScope, name: str) -> dict[str, Any]:
    mean = sight.arrivals_per_min.get(name, 0.0)
    return {"low": 0.0, "high": max(8.0, 8.0 * mean), "scale": "log", "unit": max(1.0, mean)}


def _arrivals(view: AgentObservation, sight: ObservationScope, at: Mapping[str, np.ndarray]) -> None:
    """Arrivals per class, and the time of day."""
    for m, name in enumerate(sight.classes):
        view.add([f"arrivals {name}"], at["arrivals"][m], _arrival_scale(sight, name))
    view.add(["sin of day", "cos of day"], at["day"], {})
