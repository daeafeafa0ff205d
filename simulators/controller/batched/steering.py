"""`Steering` of many worlds at once: what agents see, what becomes of their actions, and the reward, as arrays.

The rules are those of `Steering`, `Controller` and `Deferrals`: what can be shared with them is called (`terms_of`,
`loom`, the view's scaling), what is compiled a test holds to them. The data centers are the compiled ones.

Axes: B environments, n agents (the manager, then N sites), M classes, T of them training, H deferrals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.rewards import Minute, hour_cost, loom, reward_of, terms_of
from cosim.simulators.aidc.adapter import AidcParams
from cosim.simulators.aidc.compiled.fleet import CompiledFleet, FleetStep, Jobs
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.controller.batched.decisions import WAITING, Arrived, Rules, look, operate, place
from cosim.simulators.controller.params import guard_min
from cosim.simulators.controller.steering import Steering

from cosim.errors import ModelError, ScenarioError
from cosim.units import DAY_S, MIN_S

_LEVELS = ("queued_jobs", "deferred_jobs", "running_jobs", "pending_work_to", "deferred_work_to", "late_jobs",
           "urgent_jobs")
"""Of the fleet's ports those that the controller hears, per class."""
_WAITING = 64
"""Training jobs yet to be released, of one environment, that there is room for at the start."""


class Heard(NamedTuple):
    """What comes from outside at the start of a minute: prices (B,) and (B, H), intensities (B, N), emissions of all
    sources with and without data centers (B,), NaN where nobody knows; and the jobs."""

    price_usd_per_kwh: np.ndarray
    forecast_usd_per_kwh: np.ndarray
    nci_kg_per_kwh: np.ndarray
    mci_kg_per_kwh: np.ndarray
    emission_kg_per_h: np.ndarray
    baseline_kg_per_h: np.ndarray
    arrived: Arrived


class BatchSteering:
    """The controllers and data centers of `n_envs` environments.

    steering: of one world of the scenario; given, idle: parameters of its data centers, and the ports of empty ones.
    ScenarioError for what the compiled fleet cannot do.
    """

    def __init__(self, steering: Steering, given: AidcParams, idle: Mapping[str, Mapping[str, Any]],
                 n_envs: int) -> None:
        if given.rack_mean_up_s is not None:
            raise ScenarioError(f"rack_mean_up_s = {given.rack_mean_up_s:g}: many worlds at once have no failures of "
                                "racks; leave it out, or learn on one world at a time")
        self.steering, self.view, self.facts = steering, steering.view, steering.facts
        self._params, self._weights, self.n_envs = steering.params, steering.params.reward, n_envs
        self._step_s = steering.hours * 3600.0
        self.fleet = CompiledFleet(given, n_envs, self._step_s)
        self._rules = rules = _rules(steering, self._step_s)
        n, classes, leads = len(self.facts.gpus), len(self.facts.kinds), len(rules.leads_s)
        self._site_carry = np.zeros((n_envs, classes, n))
        self._owed = np.zeros((n_envs, n, len(rules.train), leads))
        self._waiting, self._numbers = np.zeros((n_envs, _WAITING), WAITING), np.zeros(n_envs, np.int64)
        self._state = {name: np.array(np.broadcast_to([idle[site][name] for site in self.facts.sites], shape), float)
                       for name, shape in [*((name, (n_envs, n, classes)) for name in _LEVELS),
                                           *((name, (n_envs, n)) for name in ("slack_min", "free_gpu_ratio", "p_kw",
                                                                              "p_window_kw", "q_window_kvar"))]}
        self._supply = np.array([self._params.supply_temp_min_degc, self._params.supply_temp_max_degc])
        self._places = self.view.places
        self._jobs_so_far = np.zeros(n_envs, np.int64)
        self._placed: tuple[np.ndarray, tuple[np.ndarray, ...]] | None = None

    @staticmethod
    def lacks(given: AidcParams) -> list[str]:
        """What of the data centers' parameters it cannot do."""
        beyond = [] if given.rack_mean_up_s is None else ["rack_mean_up_s"]
        return unsupported(given) + beyond

    @property
    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean active and reactive power of the sites over the grid's window that ends now, (B, N) kW and kvar."""
        return self._state["p_window_kw"], self._state["q_window_kvar"]

    def observe(self, time_s: np.ndarray, heard: Heard) -> np.ndarray:
        """(B, n, O) scaled observations of the moment `time_s` (B,) before the controllers' step."""
        if self._weights.carbon == "marginal" and self.steering.sees_carbon and np.isnan(heard.mci_kg_per_kwh).any():
            raise ScenarioError("reward.carbon = marginal needs mci at every site and there is none: --set "
                                "controller.reward.carbon=attributed, or choose a grid that gives mci_kg_per_kwh")
        self._heard, self._time_s, self._placed = heard, time_s, None
        arrived, classes = heard.arrived, len(self.facts.kinds)
        env = np.repeat(np.arange(self.n_envs), np.diff(arrived.first))
        at = env * classes + arrived.job_class
        count = self.n_envs * classes
        arrivals = np.bincount(at, minlength=count).astype(float).reshape(-1, classes)
        work_to = np.bincount(at, arrived.work_to, count).reshape(-1, classes)
        state = self._state
        by_lead, by_time, usual = look(self._rules, time_s, self._waiting, self._numbers, state["running_jobs"],
                                       state["queued_jobs"], state["pending_work_to"], arrivals, work_to)
        backlog, angle = state["queued_jobs"] + state["deferred_jobs"], 2.0 * math.pi * time_s / DAY_S
        numbers = {
            **state, "price_usd_per_kwh": heard.price_usd_per_kwh, "forecast_usd_per_kwh": heard.forecast_usd_per_kwh,
            "nci_kg_per_kwh": heard.nci_kg_per_kwh, "mci_kg_per_kwh": heard.mci_kg_per_kwh, "power_kw": state["p_kw"],
            "backlog_jobs": backlog, "train_backlog_jobs": backlog[..., self._rules.train].sum(axis=2),
            "inf_backlog_jobs": backlog[..., self._rules.inf].sum(axis=2), "arrivals": arrivals,
            "day": np.stack([np.sin(angle), np.cos(angle)], axis=1), "site_carry": self._site_carry,
            "deferral_carry": self._owed, "deferred_by_lead": by_lead, "deferred_by_time": by_time,
            "usual_gpus": usual}
        rows = np.empty((self.n_envs, sum(at.size for at in self._places.values())))
        for name, at in self._places.items():
            rows[:, at.ravel()] = numbers[name].reshape(self.n_envs, -1)
        return self.view.observe_rows(rows)

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C) scaled contexts, given the managers' actions (B, 1, A); changes nothing."""
        return self.view.context_rows(*self._place(leaders_action[:, 0])[2:])

    def step(self, action: np.ndarray, going: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Execute the joint actions (B, n, A) in the environments that are `going` (B,): rewards (B,), values of
        `Steering.terms` (B, terms), and credits (B, n) or None; those of others are of no use."""
        if not np.isfinite(action).all():
            raise ModelError("an action holds a number that is not finite")
        sites, carry, jobs, work_to = self._place(action[:, 0])
        arrived, state, rules = self._heard.arrived, self._state, self._rules
        self._make_room()
        acts = action[:, 1:].astype(np.float64)
        owed, numbers = self._owed.copy(), self._numbers.copy()
        release_s, gpus = operate(rules, acts, arrived, sites, self._time_s, owed, self._waiting, numbers,
                                  state["running_jobs"], state["queued_jobs"], state["pending_work_to"],
                                  state["slack_min"], jobs, work_to)
        env = np.repeat(np.arange(self.n_envs), np.diff(arrived.first))
        mine = going[env]
        degc = np.clip(acts[..., len(rules.train) * len(rules.leads_s) + len(self.facts.kinds) + 1], *self._supply)
        sent = Jobs(env * len(self.facts.gpus) + sites, arrived.job_class, arrived.id, arrived.work_to,
                    arrived.deadline_s, release_s)
        did = self.fleet.step(Jobs(*(column[mine] for column in sent)), gpus, degc, going)
        for kept, new in ((self._site_carry, carry), (self._owed, owed), (self._numbers, numbers)):
            kept[going] = new[going]
        ends = arrived.first[1:] - 1
        some = going & (np.diff(arrived.first) > 0)
        self._jobs_so_far[some] = arrived.id[ends[some]] + 1
        outcome = self._outcome(did)
        for name in state:
            state[name][going] = getattr(did, name)[going]
        return outcome

    def next_day(self, envs: np.ndarray) -> None:
        """A new day begins in some environments; what is inside goes on, on a clock that stands at 0."""
        self.fleet.shift(envs, self._jobs_so_far[envs])
        self._jobs_so_far[envs] = 0
        for b in envs:
            self._waiting["release_s"][b, :self._numbers[b]] -= self._time_s[b] + self._step_s

    # --- inside -------------------------------------------------------------------------------------------------

    def _place(self, manager: np.ndarray) -> tuple[np.ndarray, ...]:
        """Site of each job, what rounding owes then, jobs and work per site and class, for the managers' actions."""
        if self._placed is None or not np.array_equal(self._placed[0], manager):
            shares = manager.astype(np.float64)
            if not np.isfinite(shares).all():
                raise ModelError("a manager's action holds a number that is not finite")
            self._placed = manager.copy(), place(self._rules, shares, self._heard.arrived, self._site_carry)
        return self._placed[1]

    def _make_room(self) -> None:
        """For as many training jobs that wait as may come."""
        need = int((self._numbers + np.diff(self._heard.arrived.first)).max())
        if need > self._waiting.shape[1]:
            longer = np.zeros((self.n_envs, max(need, 2 * self._waiting.shape[1])), WAITING)
            longer[:, :self._waiting.shape[1]] = self._waiting
            self._waiting = longer

    def _outcome(self, did: FleetStep) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        weights, sees, sites = self._weights, self.steering.sees_carbon, range(len(self.facts.gpus))
        terms = terms_of(self._minute(did, sites), self.facts.kinds, weights)
        objective = reward_of(terms, weights, sees)
        shaped = objective + self._shaping(did, sites)
        table = np.stack(np.broadcast_arrays(*terms, objective), axis=1)
        if weights.carbon == "system_difference" and sees:
            return shaped, table, None
        own = [reward_of(terms_of(self._minute(did, (i,)), self.facts.kinds, weights), weights, sees)
               + self._shaping(did, (i,)) for i in sites]
        return shaped, table, np.stack([shaped, *own], axis=1)

    def _minute(self, did: FleetStep, sites: Sequence[int]) -> Minute:
        """The minute that ended at some sites, in all environments."""
        heard, here = self._heard, list(sites)
        nci, mci, emission, baseline = (
            None if np.isnan(known).any() else known
            for known in (heard.nci_kg_per_kwh, heard.mci_kg_per_kwh, heard.emission_kg_per_h,
                          heard.baseline_kg_per_h))
        return Minute(
            hours=self.steering.hours, price_usd_per_kwh=heard.price_usd_per_kwh,
            power_kw=[did.p_kw[:, i] for i in here], work_to=did.work_to[:, here].sum(axis=(1, 2)),
            dropped_jobs=list(did.dropped_jobs[:, here].sum(axis=1).T.astype(float)),
            nci_kg_per_kwh=None if nci is None else [nci[:, i] for i in here],
            mci_kg_per_kwh=None if mci is None else [mci[:, i] for i in here],
            emission_kg_per_h=emission, baseline_kg_per_h=baseline,
            served_to=did.finished_work_to[:, here].sum(axis=(1, 2)) if self.steering.counts_served else math.nan)

    def _shaping(self, did: FleetStep, sites: Sequence[int]) -> np.ndarray:
        """As `Steering._shaping`."""
        weights, gpus, here, seen = self._weights, self.facts.gpus, list(sites), self._state
        usual_kw = self.steering.usual_kw * sum([gpus[i] for i in here]) / sum(gpus) if weights.relative else 0.0
        shaping = hour_cost(self._heard.price_usd_per_kwh, usual_kw, self.steering.hours, weights)
        if self.steering.foresees:
            for i in here:
                shaping = shaping + loom(seen["late_jobs"][:, i].sum(axis=1), seen["urgent_jobs"][:, i].sum(axis=1),
                                         weights) - loom(did.late_jobs[:, i].sum(axis=1),
                                                         did.urgent_jobs[:, i].sum(axis=1), weights)
        return shaping


def _rules(steering: Steering, step_s: float) -> Rules:
    p, facts = steering.params, steering.facts
    guard = guard_min(p, facts, step_s) or [-math.inf] * facts.n_sites
    leads, train = len(facts.deferrals_s), facts.train
    has = facts.deferrable or [[True] * leads] * len(train)

    def drain_to(minutes: float) -> np.ndarray:
        return np.array([x * min(minutes, t / MIN_S / 2.0) * b for x, t, b in zip(
            facts.to_per_gpu_min, facts.deadline_s, facts.gpus_per_block, strict=True)])

    return Rules(
        np.array(facts.eligible), np.array(train, np.int64), np.array(facts.inf, np.int64),
        np.array(facts.gpus_per_block), np.array(facts.max_blocks), np.array(facts.to_per_gpu_min),
        drain_to(p.drain_min), drain_to(PolicyOptions().drain_min), np.array(facts.gpus), np.array(guard, float),
        np.array(facts.deferrals_s, float), np.array(has, bool).reshape(len(train), leads),
        np.array(facts.top_to_per_s), p.long_deferrals != "as_printed", p.rounding == "carry", step_s)
