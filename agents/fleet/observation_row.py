"""What the manager and the sites' agents observe, as one row of numbers, computed once for all agents.

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

from cosim.agents.fleet.base import BaseColumns
from cosim.agents.fleet.decision import FleetFacts, Observation
from cosim.agents.fleet.heuristics import GpuRule, PolicyOptions
from cosim.agents.fleet.pooling import per_sharer, sharers
from cosim.errors import ModelError, ScenarioError
from cosim.units import DAY_S, whole_steps

Values = Callable[[Observation], Iterable[float]]
ObservedForecast = Literal["nci", "mci", "load", "renewable"]
FORECASTS: dict[str, str] = {"nci": "nci_forecast_kg_per_kwh", "mci": "mci_forecast_kg_per_kwh",
                             "load": "load_forecast_kw", "renewable": "renewable_forecast_kw"}
"""A forecast that can be observed -> field of `Observation`, and of the columns."""
OF_SITES = ("nci", "mci")
"""Of these each site has its own."""
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
        for name in relatives(sight):
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


def relatives(sight: ObservationScope) -> list[str]:
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
