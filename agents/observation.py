"""What the manager and the sites' agents see as numbers, (25) and (27), and how learners scale it.

A `View` is a list of blocks, each the names of some columns and where an `Observation` has their numbers, so that the
two cannot part. Beyond the paper (`full`): the manager sees unfinished work per site and class and what rounding owes,
a site its inference queue, running jobs, unfinished work, what rounding owes its release times, how many of its
deferred jobs are of which deferral and when they are due, how many training jobs are late or nearly, and how its GPUs
would usually be split. Totals alone
(the paper's S09) hide whether work can still meet its deadline, so that a critic could charge a bad deferral only half
a day later, when the job is dropped.

Rows of the model: I26, S01-08, S10-12, S15, T09, U08, Z02.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.actions import usual_gpu_columns
from agents.decision import FleetFacts, Matrix, Observation
from agents.heuristics import GpuRule, PolicyOptions
from agents.spec import Column
from cosim.units import DAY_S

Values = Callable[[Observation], Sequence[float]]
_PRICE = {"low": -0.1, "high": 0.4}
_INTENSITY = {"low": 0.0, "high": 1.2}
_MARGINAL = {"low": -0.5, "high": 2.0}
_SHARE = {"low": 0.0, "high": 1.0}
_OWED = {"low": -10.0, "high": 10.0}
"""Jobs owed stay within 2, but jump every minute and matter little: a wide range keeps them small beside the others."""
_JOBS = {"low": 0.0, "high": 1e5, "scale": "log"}
_USUAL_LEAST = 1e-3
_PACE_MIN = 240.0
"""A third of the study's deadline. At an even pace work that is not done now is done in the next hours, at their
prices, which a critic can tell from the present one; at full speed it is done in the next minute, at the same."""
_USUAL = {"low": math.log(_USUAL_LEAST), "high": 0.0}
"""Logarithms of shares of a site's GPUs."""
_TRAIN_JOBS = {"low": 0.0, "high": 500.0, "scale": "log"}
_SLACK_MIN = {"low": -120.0, "high": 600.0}
_WORK_MIN = {"low": 0.0, "high": 1440.0, "scale": "log", "unit": 0.1}
"""Work is seen as the minutes that all GPUs of the site would need for it."""


@dataclass(frozen=True)
class Sight:
    """What a team is shown. classes, sites: their names; peak_kw: the largest site's power at full load, kW, about;
    arrivals_per_min: class -> mean arrivals, where known; nci, mci: whether intensities are shown; full: see above."""

    classes: Sequence[str]
    sites: Sequence[str]
    peak_kw: float
    arrivals_per_min: Mapping[str, float]
    nci: bool
    mci: bool
    full: bool


class View:
    """Columns of one agent and their values."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self._values: list[Values] = []

    def add(self, names: Sequence[str], values: Values, scales: Mapping[str, object]) -> None:
        """A block of columns on one scale."""
        self.columns += [Column(name, **scales) for name in names]
        self._values.append(values)

    def values(self, seen: Observation) -> list[float]:
        """One number per column."""
        out: list[float] = []
        for block in self._values:
            out += block(seen)
        return out


def manager_view(facts: FleetFacts, sight: Sight) -> View:
    """(25): price, intensities, four numbers per site, arrivals per class, time of day."""
    view, sites = View(), sight.sites
    view.add(["price_usd_per_kwh"], lambda o: (o.price_usd_per_kwh,), _PRICE)
    if sight.nci:
        view.add([f"nci_kg_per_kwh {s}" for s in sites], lambda o: o.nci_kg_per_kwh, _INTENSITY)
    if sight.mci:
        view.add([f"mci_kg_per_kwh {s}" for s in sites], lambda o: o.mci_kg_per_kwh, _MARGINAL)
    view.add([f"train_backlog_jobs {s}" for s in sites], _backlogs(facts.train), _TRAIN_JOBS)
    view.add([f"inf_backlog_jobs {s}" for s in sites], _backlogs(facts.inf), _JOBS)
    view.add([f"power_kw {s}" for s in sites], lambda o: o.power_kw, {"low": 0.0, "high": sight.peak_kw})
    view.add([f"free_gpu_ratio {s}" for s in sites], lambda o: o.free_gpu_ratio, _SHARE)
    _arrivals(view, sight)
    _time(view)
    if sight.full:
        for i, site in enumerate(sites):
            view.add([f"pending_min {site} {c}" for c in sight.classes],
                     _minutes("pending_work_to", facts, i, range(len(facts.kinds))), _WORK_MIN)
            view.add([f"deferred_min {site} {sight.classes[m]}" for m in facts.train],
                     _minutes("deferred_work_to", facts, i, facts.train), _WORK_MIN)
        view.add([f"slack_min {site}" for site in sites], lambda o: o.slack_min, _SLACK_MIN)
        view.add([f"site_carry {c} {s}" for c in sight.classes for s in sites],
                 lambda o: [x for row in o.site_carry for x in row], _OWED)
    return view


def site_view(facts: FleetFacts, sight: Sight, i: int) -> View:
    """(27) of site `i`, before the manager has acted: S13, S14 are the fleet's arrivals (decision 10)."""
    view = View()
    view.add(["price_usd_per_kwh"], lambda o: (o.price_usd_per_kwh,), _PRICE)
    view.add([f"price_usd_per_kwh +{lead:g}s" for lead in facts.deferrals_s], lambda o: o.forecast_usd_per_kwh, _PRICE)
    view.add([f"backlog_jobs {sight.classes[m]}" for m in facts.train],
             lambda o: [o.queued_jobs[i][m] + o.deferred_jobs[i][m] for m in facts.train], _TRAIN_JOBS)
    if sight.nci:
        view.add(["nci_kg_per_kwh"], _own("nci_kg_per_kwh", i), _INTENSITY)
    if sight.mci:
        view.add(["mci_kg_per_kwh"], _own("mci_kg_per_kwh", i), _MARGINAL)
    view.add(["power_kw"], _own("power_kw", i), {"low": 0.0, "high": sight.peak_kw})
    view.add(["free_gpu_ratio"], _own("free_gpu_ratio", i), _SHARE)
    _arrivals(view, sight)
    _time(view)
    if sight.full:
        view.add(usual_gpu_columns(sight.classes), _usual_gpus(facts, i), _USUAL)
        view.add([f"queued_jobs {sight.classes[m]}" for m in facts.inf],
                 lambda o: [o.queued_jobs[i][m] for m in facts.inf], _JOBS)
        view.add([f"running_jobs {c}" for c in sight.classes], lambda o: o.running_jobs[i],
                 {"low": 0.0, "high": float(max(facts.gpus)), "scale": "log"})
        view.add([f"pending_min {c}" for c in sight.classes],
                 _minutes("pending_work_to", facts, i, range(len(facts.kinds))), _WORK_MIN)
        view.add([f"deferred_min {sight.classes[m]}" for m in facts.train],
                 _minutes("deferred_work_to", facts, i, facts.train), _WORK_MIN)
        view.add([f"deferral_carry {sight.classes[m]} +{lead:g}s" for m in facts.train for lead in facts.deferrals_s],
                 lambda o: [x for row in o.deferral_carry[i] for x in row], _OWED)
        view.add(["slack_min"], _own("slack_min", i), _SLACK_MIN)
        for name in ("late_jobs", "urgent_jobs"):
            view.add([f"{name} {sight.classes[m]}" for m in facts.train], _trained(name, facts, i), _TRAIN_JOBS)
        for name in ("deferred_by_lead", "deferred_by_time"):
            view.add([f"{name} {sight.classes[m]} +{lead:g}s" for m in facts.train for lead in facts.deferrals_s],
                     _table(name, i), _TRAIN_JOBS)
    return view


def context_columns(sight: Sight) -> list[Column]:
    """What a site is told once the manager has acted: its jobs of this minute per class, and their work in minutes."""
    jobs = [Column(f"allocated_jobs {c}", **_arrival_scale(sight, c)) for c in sight.classes]
    return jobs + [Column(f"allocated_min {c}", **_WORK_MIN) for c in sight.classes]


def context_values(facts: FleetFacts, i: int, jobs: Sequence[Sequence[int]], work_to: Matrix) -> list[float]:
    """The values of `context_columns` of site `i`, from the jobs (N, M) and their work (N, M), TO."""
    return [*jobs[i], *(w / (xi * facts.gpus[i]) for w, xi in zip(work_to[i], facts.to_per_gpu_min, strict=True))]


class Scaler:
    """`agents.spec.scaled` for one row of many columns at once. Raw columns are left as they are."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._log = np.array([k for k, c in enumerate(columns) if c.scale == "log"], int)
        self._linear = np.array([k for k, c in enumerate(columns) if c.scale == "linear"], int)
        logs, lines = [columns[k] for k in self._log], [columns[k] for k in self._linear]
        self._unit = np.array([c.unit for c in logs])
        self._top = np.log1p(np.array([c.high for c in logs]) / self._unit)
        self._low = np.array([c.low for c in lines])
        self._range = np.array([c.high for c in lines]) - self._low

    def __call__(self, values: Sequence[float]) -> np.ndarray:
        """(columns,) float32."""
        x = np.array(values, np.float64)
        line = 2.0 * (x[self._linear] - self._low) / self._range - 1.0
        log = 2.0 * np.log1p(np.maximum(x[self._log], 0.0) / self._unit) / self._top - 1.0
        x[self._linear] = np.minimum(np.maximum(line, -1.0), 1.0)
        x[self._log] = np.minimum(log, 1.0)
        return x.astype(np.float32)


def _usual_gpus(facts: FleetFacts, i: int) -> Values:
    """Logarithms of shares: of inference, what `GpuRule` gives for what is queued and an equal part of what arrives; of
    training, what works it off in _PACE_MIN, as far as there is room."""
    rule, sites, classes = GpuRule(facts, PolicyOptions().drain_min), facts.n_sites, range(len(facts.kinds))
    pace_to = [x * facts.gpus[i] * _PACE_MIN for x in facts.to_per_gpu_min]

    def values(seen: Observation) -> list[float]:
        running, queued = seen.running_jobs[i], seen.queued_jobs[i]
        work_to = [seen.pending_work_to[i][m] + seen.arrivals_work_to[m] / sites for m in classes]
        jobs = [running[m] + queued[m] + seen.arrivals[m] / sites for m in classes]
        share = [0.0] * len(facts.kinds)
        for m, gpus in zip(facts.inf, rule.inference(facts.gpus[i], running, jobs, work_to), strict=True):
            share[m] = gpus / facts.gpus[i]
        trained = {m: work_to[m] / pace_to[m] for m in facts.train}
        room = max(0.0, 1.0 - sum([share[m] for m in facts.inf]))
        scale = min(1.0, room / sum(trained.values())) if any(trained.values()) else 0.0
        for m, x in trained.items():
            share[m] = x * scale
        return [math.log(max(x, _USUAL_LEAST)) for x in (*share, 1.0 - sum(share))]
    return values


def _trained(name: str, facts: FleetFacts, i: int) -> Values:
    return lambda o: [getattr(o, name)[i][m] for m in facts.train]


def _table(name: str, i: int) -> Values:
    return lambda o: [x for row in getattr(o, name)[i] for x in row]


def _own(name: str, i: int) -> Values:
    return lambda o: (getattr(o, name)[i],)


def _backlogs(classes: Sequence[int]) -> Values:
    return lambda o: [sum([queued[m] + deferred[m] for m in classes])
                      for queued, deferred in zip(o.queued_jobs, o.deferred_jobs, strict=True)]


def _minutes(name: str, facts: FleetFacts, i: int, classes: Sequence[int]) -> Values:
    speed = [(m, facts.to_per_gpu_min[m] * facts.gpus[i]) for m in classes]

    def values(seen: Observation) -> list[float]:
        work_to = getattr(seen, name)[i]
        return [work_to[m] / to_per_min for m, to_per_min in speed]
    return values


def _arrival_scale(sight: Sight, name: str) -> dict[str, object]:
    mean = sight.arrivals_per_min.get(name, 0.0)
    return {"low": 0.0, "high": max(8.0, 8.0 * mean), "scale": "log", "unit": max(1.0, mean)}


def _arrivals(view: View, sight: Sight) -> None:
    for m, name in enumerate(sight.classes):
        view.add([f"arrivals {name}"], lambda o, m=m: (o.arrivals[m],), _arrival_scale(sight, name))


def _time(view: View) -> None:
    view.add(["sin of day", "cos of day"],
             lambda o: (math.sin(2.0 * math.pi * o.time_s / DAY_S), math.cos(2.0 * math.pi * o.time_s / DAY_S)), {})
