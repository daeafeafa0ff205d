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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from cosim.agents.fleet.actions import usual_gpu_columns
from cosim.agents.fleet.base import GPUS, RELEASE, SITE, SUPPLY, BaseColumns
from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.agents.fleet.heuristics import GpuRule, PolicyOptions
from cosim.agents.fleet.pooling import per_sharer, sharers
from cosim.agents.learn.spec import Column
from cosim.errors import ModelError, ScenarioError
from cosim.units import DAY_S, whole_steps

Values = Callable[[Observation], Iterable[float]]
ObservedForecast = Literal["nci", "mci", "load", "renewable"]
FORECASTS: dict[str, str] = {"nci": "nci_forecast_kg_per_kwh", "mci": "mci_forecast_kg_per_kwh",
                             "load": "load_forecast_kw", "renewable": "renewable_forecast_kw"}
"""A forecast that can be observed -> field of `Observation`, and of the columns."""
OF_SITES = ("nci", "mci")
"""Of these each site has its own."""
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
RELATIVE = "relative_"
"""Begins the names of columns of an intensity less its mean over the sites."""
USUAL_LEAST = 1e-3
USUAL_SHARE = "usual_share"
CLEAN_KG_PER_KWH = 0.2
"""A site whose carbon intensity is higher by this has e times less of the work in the usual shares by carbon."""
PACE_MIN = 240.0
"""A third of the study's deadline. At an even pace work that is not done now is done in the next hours, at their
prices, which a critic can distinguish from the present one; at full speed it is done in the next minute, at the
same."""
_USUAL: dict[str, Any] = {"low": math.log(USUAL_LEAST), "high": 0.0}
"""Logarithms of shares of a site's GPUs."""
_TRAIN_JOBS: dict[str, Any] = {"low": 0.0, "high": 500.0, "scale": "log"}
_SLACK_MIN: dict[str, Any] = {"low": -120.0, "high": 600.0}
_WORK_MIN: dict[str, Any] = {"low": 0.0, "high": 1440.0, "scale": "log", "unit": 0.1}
"""Work is seen as the minutes that all GPUs of the site would need for it."""


@dataclass(frozen=True)
class ObservationScope:
    """What a team is shown. classes, sites: their names; peak_kw: the largest site's power at full load, kW, about;
    arrivals_per_min: class -> mean arrivals, where known; nci, mci: whether intensities are shown; full: see above;
    forecasts: which are shown, at the deferrals; relative: whether each site's intensity less the mean over the sites
    is a column of its own."""

    classes: Sequence[str]
    sites: Sequence[str]
    peak_kw: float
    arrivals_per_min: Mapping[str, float]
    nci: bool
    mci: bool
    full: bool
    forecasts: Sequence[str] = ()
    relative: bool = False
    usual_shares: bool = False
    """Whether the manager has columns of the shares that go by carbon intensity alone, around which it then decides."""
    base_policy: str = ""
    """The rule of whose decision agents have columns, around which they then decide; '': none."""
    share_edge: float = 0.0
    """`cosim.agents.learn.spec.Simplex.edge` of all shares."""


def forecast_entries(facts: FleetFacts) -> list[int]:
    """Which entry of a forecast over the horizon each deferral is. ScenarioError for one that is none of them."""
    if not facts.horizon_steps:
        raise ScenarioError("forecasts are to be observed, and controller.horizon_s is null; give the horizon of the "
                            "linked forecasts")
    found = [whole_steps(lead, facts.horizon_step_s) for lead in facts.deferrals_s]
    for lead, entry in zip(facts.deferrals_s, found, strict=True):
        if entry is None or entry > facts.horizon_steps:
            raise ScenarioError(f"forecasts are observed at the deferrals, of which {lead:g} s is no entry of a "
                                f"horizon of {facts.horizon_steps} steps of {facts.horizon_step_s:g} s; make horizon_s "
                                "longer, or horizon_step_s a part of the deferrals")
    return [entry or 0 for entry in found]


class ObservationRow:
    """All numbers from which agents' observations are selected, in one row, computed once for all agents.

    at  name of a field of `Observation`, or of what follows from some -> where its numbers stand in the row, an array
        with the field's axes. Others: `backlog_jobs` (N, M) queued and deferred, `train_backlog_jobs` and
        `inf_backlog_jobs` (N,), `day` sine and cosine of the time of day, `usual_gpus` (N, M + 1), or (N, kinds + 1)
    """

    def __init__(self, facts: FleetFacts, sight: ObservationScope) -> None:
        self.at: dict[str, np.ndarray] = {}
        self._parts: list[Values] = []
        self._count = 0
        n, classes, trains, leads = facts.n_sites, len(facts.kinds), len(facts.train), len(facts.deferrals_s)
        self._add("price_usd_per_kwh", ())
        self._add("forecast_usd_per_kwh", (leads,))
        for name in (*["nci_kg_per_kwh"] * sight.nci, *["mci_kg_per_kwh"] * sight.mci, "power_kw", "free_gpu_ratio"):
            self._add(name, (n,))
        for name in _relatives(sight):
            self._add(name, (n,), _relative(name.removeprefix(RELATIVE)))
        if sight.usual_shares:
            by = attrgetter(usual_by(sight.mci))
            self._add(USUAL_SHARE, (n,), lambda o: usual_shares(by(o)))
        self._add("backlog_jobs", (n, classes), _backlog)
        for name, of in (("train_backlog_jobs", facts.train), ("inf_backlog_jobs", facts.inf)):
            self._add(name, (n,), _backlogs(of))
        self._add("arrivals", (classes,))
        self._add("day", (2,), _day)
        if sight.full:
            for name in ("queued_jobs", "running_jobs", "pending_work_to", "deferred_work_to", "late_jobs",
                         "urgent_jobs"):
                self._add(name, (n, classes))
            self._add("slack_min", (n,))
            self._add("site_carry", (classes, n))
            for name in ("deferral_carry", "deferred_by_lead", "deferred_by_time"):
                self._add(name, (n, trains, leads))
            self._add("usual_gpus", (n, len(sharers(facts, facts.kinds)) + 1), _usual_gpus(facts))
        self.base = base_of(facts, sight)
        if self.base is not None:
            self._parts.append(_base(self.base))
            for block in self.base.blocks:
                self._take(block.name, block.shape)
        entries = forecast_entries(facts) if sight.forecasts else []
        for name in sight.forecasts:
            shape = (n, leads) if name in OF_SITES else (leads,)
            self._add(FORECASTS[name], shape, _at_leads(name, entries))

    def __call__(self, seen: Observation) -> np.ndarray:
        """The row, float64."""
        row: list[float] = []
        for part in self._parts:
            row += part(seen)
        return np.array(row, np.float64)

    def _add(self, name: str, shape: tuple[int, ...], values: Values | None = None) -> None:
        """values: in the order of the axes; None: the observation has a field of this name."""
        self._parts.append(values or _field(name, len(shape)))
        self._take(name, shape)

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        """The next places of the row."""
        size = math.prod(shape)
        self.at[name] = np.arange(self._count, self._count + size).reshape(shape)
        self._count += size


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
    for name in _relatives(sight):
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
    for name in _relatives(sight):
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


def _at_leads(name: str, entries: Sequence[int]) -> Values:
    """Entries of a forecast, site by site where each has its own."""
    get = attrgetter(FORECASTS[name])

    def values(seen: Observation) -> list[float]:
        found = get(seen)
        if not len(found):
            raise ModelError(f"the forecast {FORECASTS[name]} is to be observed, and none is linked at every site")
        rows = found if name in OF_SITES else [found]
        return [row[entry] for row in rows for entry in entries]
    return values


def base_of(facts: FleetFacts, sight: ObservationScope) -> BaseColumns | None:
    """Columns of the rule around which the team decides, if there is one."""
    if not sight.base_policy:
        return None
    return BaseColumns(facts, sight.base_policy, sight.share_edge, sight.classes, sight.sites)


def _base(columns: BaseColumns) -> Values:
    def values(seen: Observation) -> list[float]:
        if seen.base is None:
            raise ModelError(f"what {columns.rule} decides is to be observed, and nothing has computed it")
        return [x for block in columns.of([seen.base]) for x in block.ravel().tolist()]
    return values


def _usual_gpus(facts: FleetFacts) -> Values:
    """Logarithms of shares, site by site: of inference, what `GpuRule` gives for what is queued and an equal part of
    what arrives; of training, what works it off in PACE_MIN, as far as there is room."""
    rule, n, train, inf = GpuRule(facts, PolicyOptions().drain_min), facts.n_sites, facts.train, facts.inf
    pace_to = [[x * gpus * PACE_MIN for x in facts.to_per_gpu_min] for gpus in facts.gpus]

    def values(seen: Observation) -> list[float]:
        new_jobs, new_to = [x / n for x in seen.arrivals], [x / n for x in seen.arrivals_work_to]
        out: list[float] = []
        for i, gpus in enumerate(facts.gpus):
            running = seen.running_jobs[i]
            work_to = [pending + new for pending, new in zip(seen.pending_work_to[i], new_to, strict=True)]
            jobs = [r + q + new for r, q, new in zip(running, seen.queued_jobs[i], new_jobs, strict=True)]
            share = [0.0] * len(new_jobs)
            for m, wanted in zip(inf, rule.inference(gpus, running, jobs, work_to), strict=True):
                share[m] = wanted / gpus
            trained = [work_to[m] / pace_to[i][m] for m in train]
            room = max(0.0, 1.0 - sum([share[m] for m in inf]))
            scale = min(1.0, room / sum(trained)) if any(trained) else 0.0
            for m, x in zip(train, trained, strict=True):
                share[m] = x * scale
            shown = [*per_sharer(facts, share), 1.0 - sum(share)]
            out += [math.log(max(x, USUAL_LEAST)) for x in shown]
        return out
    return values


def _field(name: str, axes: int) -> Values:
    """The numbers of a field of the observation, nested or not."""
    get, flat = attrgetter(name), chain.from_iterable
    by_axes: dict[int, Values] = {0: lambda o: (get(o),), 1: get, 2: lambda o: flat(get(o)),
                                  3: lambda o: flat(flat(get(o)))}
    return by_axes[axes]


def relative(values: Sequence[Any]) -> list[Any]:
    """Each less their mean; numbers, or arrays of many environments."""
    mean = sum(values) / len(values)
    return [x - mean for x in values]


def usual_by(marginal: bool) -> str:
    """The intensity by which work is usually shared out."""
    return "mci_kg_per_kwh" if marginal else "nci_kg_per_kwh"


def usual_shares(kg_per_kwh: Sequence[Any]) -> list[Any]:
    """Logarithms of shares that fall by e for every CLEAN_KG_PER_KWH; of numbers, or arrays of many environments."""
    above = np.array(kg_per_kwh, np.float64)
    weights = np.exp(-(above - above.min(axis=0)) / CLEAN_KG_PER_KWH)
    return list(np.log(np.maximum(weights / weights.sum(axis=0), USUAL_LEAST)))


def _relatives(sight: ObservationScope) -> list[str]:
    """Names of the columns of intensities less their mean."""
    shown = ["nci_kg_per_kwh"] * sight.nci + ["mci_kg_per_kwh"] * sight.mci
    return [RELATIVE + name for name in shown] if sight.relative else []


def _relative(name: str) -> Values:
    get = attrgetter(name)
    return lambda o: relative(get(o))


def _backlog(seen: Observation) -> list[float]:
    return [a + b for queued, deferred in zip(seen.queued_jobs, seen.deferred_jobs, strict=True)
            for a, b in zip(queued, deferred, strict=True)]


def _backlogs(classes: Sequence[int]) -> Values:
    return lambda o: [sum([queued[m] + deferred[m] for m in classes])
                      for queued, deferred in zip(o.queued_jobs, o.deferred_jobs, strict=True)]


def _day(seen: Observation) -> tuple[float, float]:
    angle = 2.0 * math.pi * seen.time_s / DAY_S
    return math.sin(angle), math.cos(angle)


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
