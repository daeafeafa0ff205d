"""`Steering` of many worlds at once: observations, what becomes of their actions, and the reward, as arrays.

The rules are those of `Steering` and `ControlPipeline`: what can be shared with them is called (`terms_of`,
`loom`, the view's scaling), what is compiled a test holds to them. The data centers are the compiled ones.

Axes: B environments, n agents (the manager, then N sites), M classes, T of them training, H deferrals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from cosim.agents.fleet.credit import Credits, RewardParts, SentWork
from cosim.agents.fleet.heuristics import PolicyOptions, queue_drain_to
from cosim.agents.fleet.observation_row import (
    FORECASTS,
    RELATIVE,
    USUAL_SHARE,
    forecast_entries,
    relative,
    usual_by,
    usual_shares,
)
from cosim.agents.fleet.pooling import sharers
from cosim.agents.fleet.rewards import WEIGHED, StepOutcome, hour_cost, loom, terms_of
from cosim.errors import ModelError, ScenarioError
from cosim.simulators.aidc.compiled.fleet import CompiledFleet, FleetStep, Jobs
from cosim.simulators.aidc.compiled.records import plain, records
from cosim.simulators.controller.batched.base import BaseRules
from cosim.simulators.controller.batched.decisions import WAITING, ArrivedJobs, DecisionConstants, look, operate, place
from cosim.simulators.controller.batched.outside import PLAYED, Outside
from cosim.simulators.controller.batched.scope import LEVELS, SITE_LEVELS, lacking
from cosim.simulators.controller.params import PORTS, guard_min
from cosim.simulators.controller.steering import CONTROLLER, FLEET, GRID, NO_MCI, Steering
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.dispatch.newton import NewtonSolver, solve_together
from cosim.simulators.workload.arrivals import JobRows
from cosim.units import DAY_S

_OWN = ("site_carry", "owed", "jobs_so_far")
_WAITING = 64
"""Training jobs yet to be released, of one environment, that there is room for at the start."""


class BatchSteering:
    """The controllers and data centers of `n_envs` environments, in worlds that step all their other members.

    steering: of one started world of the scenario, and that world's simulators and plan. ScenarioError for what the
    compiled fleet does not support; see `lacks`.
    """

    plays = PLAYED

    def __init__(self, steering: Steering, simulators: Mapping[str, Any], plan: Any, n_envs: int) -> None:
        self.steering, self.view, self.facts = steering, steering.view, steering.facts
        self._params, self._weights, self.n_envs = steering.params, steering.params.reward, n_envs
        self._step_s = steering.controller.step_s
        self.fleet = CompiledFleet(simulators[FLEET].params, n_envs, self._step_s)
        self._rules = rules = _rules(steering, self._step_s)
        n, classes, leads = self.facts.n_sites, len(self.facts.kinds), len(rules.leads_s)
        self._site_carry = np.zeros((n_envs, classes, n))
        self._owed = np.zeros((n_envs, n, len(rules.train), leads))
        self._waiting, self._numbers = np.zeros((n_envs, _WAITING), WAITING), np.zeros(n_envs, np.int64)
        self._idle = idle = simulators[FLEET].initial()
        shapes = dict.fromkeys(LEVELS, (n_envs, n, classes)) | dict.fromkeys(SITE_LEVELS, (n_envs, n))
        # in one order in memory and of one type, here and below: what is compiled is compiled anew for every other
        self._state = {name: np.array(np.broadcast_to([idle[site][name] for site in self.facts.sites], shape), float,
                                      order="C") for name, shape in shapes.items()}
        observed = steering.params.observed_forecasts
        self._forecasts = {PORTS[name]: FORECASTS[name] for name in observed}
        self._entries = forecast_entries(self.facts) if observed else []
        self._links_in = Outside(self.facts, observed, simulators, plan, n_envs)
        self._outside, self.outside = self._links_in.levels, self._links_in.exogenous
        self.elsewhere = (*self.plays, *self.outside)
        self._supply = np.array([self._params.supply_temp_min_degc, self._params.supply_temp_max_degc])
        self._degc_at = len(rules.train) * leads + len(sharers(self.facts, self.facts.kinds)) + 1
        self._credits: Credits
        self._jobs_so_far, self._time_s = np.zeros(n_envs, np.int64), np.zeros(n_envs)
        self._placed: tuple[np.ndarray, tuple[np.ndarray, ...]] | None = None
        self._base = BaseRules([steering.base_rule() for _ in range(n_envs)], self.view.base,
                               steering.sees_carbon) if self.view.base else None
        sites = {name: i for i, name in enumerate(self.facts.sites)}
        self._links_out = [(c, c.source[2], sites[c.source[1]], round(simulators[c.target[0]].step_s / self._step_s))
                      for c in plan.connections if c.source[0] == FLEET and c.target[0] != CONTROLLER]

    @staticmethod
    def lacks(resolved: Any, plan: Any) -> list[str]:
        """What of a scenario's members and links it cannot do, each in a few words."""
        return lacking(resolved, plan)

    # --- what comes from outside --------------------------------------------------------------------------------

    def sends(self, time: int, b: int) -> tuple[list[Any], list[float]]:
        """Connections from the data centers of world b to members that step at the controller's step number `time`,
        and the values they get."""
        due = [(c, self._power(b, site, port)) for c, port, site, steps in self._links_out if time % steps == 0]
        return [c for c, _ in due], [value for _, value in due]

    def _power(self, b: int, site: int, port: str) -> float:
        """What a site of environment b has drawn over the grid's window, by the name of its port."""
        drawn = self.fleet.window(b, site)
        return self._idle[self.facts.sites[site]][port] if drawn is None else drawn[port == "q_window_kvar"]

    def ahead(self, time: int, world: Any) -> tuple[NewtonSolver, np.ndarray] | None:
        """A world is about to run on to the controller's step number `time`: the dispatch that is due then, None if
        there is none, or none that can be solved beside others."""
        grid = world.simulators.get(GRID)
        if isinstance(grid, CefDispatch) and world.run_to(GRID, time + 1) is not None:
            with suppress(Exception):  # the grid's own step will fail, too, and is named
                return grid.next_problem(time * self._step_s, grid.read(world.pending(GRID)))
        return None

    def solve(self, due: Sequence[tuple[NewtonSolver, np.ndarray] | None]) -> None:
        """Solve the dispatches of several worlds together; the grids find them when they step."""
        solve_together([problem for problem in due if problem is not None])

    def take(self, b: int, time: int, world: Any, first: int) -> None:
        """Jobs, prices and intensities of world b before the controller's step number `time`. first: of the worlds that
        meet the same from outside, the one that was taken from before all others; b itself where it is that one."""
        self._links_in.take(b, time, world, first)

    def observe(self, time_s: np.ndarray) -> np.ndarray:
        """(B, n, O) scaled observations of the moment `time_s` (B,) before the controllers' step."""
        outside, state = self._outside, self._state
        if (self._weights.carbon == "marginal" and self.steering.sees_carbon
                and np.isnan(outside["mci_kg_per_kwh"]).any()):
            raise ScenarioError(NO_MCI)
        self._arrived = arrived = _joined(self._links_in.rows)
        self._time_s, self._placed, classes = time_s, None, len(self.facts.kinds)
        at = arrived.env * classes + arrived.job_class
        arrivals = np.bincount(at, minlength=self.n_envs * classes).astype(float).reshape(-1, classes)
        work_to = np.bincount(at, arrived.work_to, self.n_envs * classes).astype(float).reshape(-1, classes)
        by_lead, by_time, usual = look(self._rules, time_s, self._waiting, self._numbers, state["running_jobs"],
                                       state["queued_jobs"], state["pending_work_to"], arrivals, work_to)
        backlog, angle = state["queued_jobs"] + state["deferred_jobs"], 2.0 * math.pi * time_s / DAY_S
        numbers = {
            **state, **outside, "power_kw": state["p_kw"], "backlog_jobs": backlog,
            "train_backlog_jobs": backlog[..., self._rules.train].sum(axis=2),
            "inf_backlog_jobs": backlog[..., self._rules.inf].sum(axis=2), "arrivals": arrivals,
            "day": np.stack([np.sin(angle), np.cos(angle)], axis=1), "site_carry": self._site_carry,
            "deferral_carry": self._owed, "deferred_by_lead": by_lead, "deferred_by_time": by_time,
            "usual_gpus": usual,
            **{field: outside[port][..., self._entries] for port, field in self._forecasts.items()}}
        places = self.view.places
        numbers |= {name: np.stack(relative(list(outside[name.removeprefix(RELATIVE)].T)), axis=1)
                    for name in places if name.startswith(RELATIVE)}
        if USUAL_SHARE in places:
            by = outside[usual_by(self._weights.carbon == "marginal")]
            numbers[USUAL_SHARE] = np.stack(usual_shares(list(by.T)), axis=1)
        if self._base is not None:
            numbers |= self._base.numbers(time_s, numbers | {"arrivals_work_to": work_to})
        rows = np.empty((self.n_envs, sum(at.size for at in places.values())))
        for name, at in places.items():
            rows[:, at.ravel()] = numbers[name].reshape(self.n_envs, -1)
        return self.view.observe_rows(rows)

    # --- what is done -------------------------------------------------------------------------------------------

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(B, n, C) scaled contexts, given the managers' actions (B, 1, A); changes nothing."""
        return self.view.context_rows(*self._place(leaders_action[:, 0])[2:])

    def step(self, action: np.ndarray, going: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Execute the joint actions (B, n, A) in the environments that are `going` (B,): rewards (B,), values of
        `Steering.terms` (B, terms), and credits (B, n) or None; those of others are of no use."""
        if not np.isfinite(action).all():
            raise ModelError("an action holds a number that is not finite")
        sites, carry, jobs, work_to = self._place(action[:, 0])
        arrived, state, rules = self._arrived, self._state, self._rules
        self._make_room(int((self._numbers + np.diff(arrived.first)).max()))
        acts = action[:, 1:].astype(np.float64)
        owed, numbers = self._owed.copy(), self._numbers.copy()
        release_s, gpus = operate(rules, acts, arrived, sites, self._time_s, owed, self._waiting, numbers,
                                  state["running_jobs"], state["queued_jobs"], state["pending_work_to"],
                                  state["slack_min"], jobs, work_to)
        mine = going[arrived.env]
        degc = np.clip(acts[..., self._degc_at], *self._supply)
        sent = Jobs(arrived.env * self.facts.n_sites + sites, arrived.job_class, arrived.id, arrived.work_to,
                    arrived.deadline_s, release_s)
        did = self.fleet.step(Jobs(*(column[mine] for column in sent)), gpus, degc, going)
        for kept, new in ((self._site_carry, carry), (self._owed, owed), (self._numbers, numbers)):
            kept[going] = new[going]
        ends = arrived.first[1:] - 1
        some = going & (np.diff(arrived.first) > 0)
        self._jobs_so_far[some] = arrived.id[ends[some]] + 1
        outcome = self._outcome(did, action[:, 0], work_to)
        for name in state:
            state[name][going] = getattr(did, name)[going]
        return outcome

    def by_term(self) -> np.ndarray:
        """(B, 1 + n, K) as `Steering.by_term`, of the step done last."""
        at, rows = [WEIGHED.index(name) for name in self.steering.credit_terms], self._credits.by_term()
        out = np.empty((self.n_envs, len(rows), len(at)))
        for i, row in enumerate(rows):
            for j, k in enumerate(at):
                out[:, i, j] = row[k]
        return out

    def next_day(self, envs: np.ndarray) -> None:
        """A new day begins in some environments; what is inside goes on, on a clock that stands at 0."""
        self.fleet.shift(envs, self._jobs_so_far[envs])
        self._jobs_so_far[envs] = 0
        for b in envs:
            self._waiting["release_s"][b, :self._numbers[b]] -= self._time_s[b] + self._step_s

    def state(self) -> list[dict[str, np.ndarray]]:
        """What each environment goes on from, but for what comes from outside, as arrays of plain numbers."""
        states = self.fleet.state()
        for b, of_env in enumerate(states):
            of_env |= {name: getattr(self, f"_{name}")[b].copy() for name in _OWN}
            of_env |= {f"now {name}": array[b].copy() for name, array in self._state.items()}
            of_env["waiting"] = plain(self._waiting[b, :self._numbers[b]])
        return states

    def restore(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from what environments gave as their `state`."""
        self.fleet.restore(states)
        for b, of_env in enumerate(states):
            for name in _OWN:
                getattr(self, f"_{name}")[b] = of_env[name]
            for name, array in self._state.items():
                array[b] = of_env[f"now {name}"]
            rows = records(of_env["waiting"], WAITING)
            self._numbers[b] = len(rows)
            self._make_room(len(rows))
            self._waiting[b, :len(rows)] = rows

    # --- inside -------------------------------------------------------------------------------------------------

    def _place(self, manager: np.ndarray) -> tuple[np.ndarray, ...]:
        """Site of each job, what rounding owes then, jobs and work per site and class, for the managers' actions."""
        if self._placed is None or not np.array_equal(self._placed[0], manager):
            shares = manager.astype(np.float64)
            if not np.isfinite(shares).all():
                raise ModelError("a manager's action holds a number that is not finite")
            self._placed = manager.copy(), place(self._rules, shares, self._arrived, self._site_carry)
        return self._placed[1]

    def _make_room(self, need: int) -> None:
        """For so many training jobs that wait in one environment."""
        if need > self._waiting.shape[1]:
            longer = np.zeros((self.n_envs, max(need, 2 * self._waiting.shape[1])), WAITING)
            longer[:, :self._waiting.shape[1]] = self._waiting
            self._waiting = longer

    def _outcome(self, did: FleetStep, manager: np.ndarray, sent_to: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        weights, sees, n = self._weights, self.steering.sees_carbon, self.facts.n_sites
        shared = weights.carbon == "system_difference" and sees
        self._credits = Credits(
            weights, sees, self.steering.hours, n, self._parts(did, range(n)),
            None if shared else [self._parts(did, (i,)) for i in range(n)],
            () if shared else self._sent(did, manager, sent_to))
        objective, shaped, credit = self._credits.whole()
        table = np.stack(np.broadcast_arrays(*self._credits.team.terms, objective), axis=1)
        return shaped, table, None if credit is None else np.stack(credit, axis=1)

    def _minute(self, did: FleetStep, sites: Sequence[int]) -> StepOutcome:
        """The minute that ended at some sites, in all environments."""
        outside, here = self._outside, list(sites)
        nci, mci, emission, baseline = (
            None if np.isnan(known).any() else known
            for known in (outside["nci_kg_per_kwh"], outside["mci_kg_per_kwh"], *outside["emission"].T))
        return StepOutcome(
            hours=self.steering.hours, price_usd_per_kwh=outside["price_usd_per_kwh"],
            power_kw=[did.p_kw[:, i] for i in here], work_to=did.work_to[:, here].sum(axis=(1, 2)),
            dropped_jobs=list(did.dropped_jobs[:, here].sum(axis=1).T.astype(float)),
            nci_kg_per_kwh=None if nci is None else [nci[:, i] for i in here],
            mci_kg_per_kwh=None if mci is None else [mci[:, i] for i in here],
            emission_kg_per_h=emission, baseline_kg_per_h=baseline,
            served_to=did.finished_work_to[:, here].sum(axis=(1, 2)) if self.steering.counts_served else math.nan,
            queued_jobs=list(did.queued_jobs[:, here].sum(axis=1).T.astype(float)))

    def _parts(self, did: FleetStep, sites: Sequence[int]) -> RewardParts:
        """As `Steering._parts`."""
        weights, gpus, here, seen = self._weights, self.facts.gpus, list(sites), self._state
        usual_kw = self.steering.usual_kw * sum([gpus[i] for i in here]) / sum(gpus) if weights.relative else 0.0
        return RewardParts(
            terms_of(self._minute(did, sites), self.facts.kinds, weights),
            hour_cost(self._outside["price_usd_per_kwh"], usual_kw, self.steering.hours, weights),
            [self._loom(i, seen["late_jobs"], seen["urgent_jobs"], seen["slack_min"])
             - self._loom(i, did.late_jobs, did.urgent_jobs, did.slack_min)
             for i in here] if self.steering.foresees else ())

    def _loom(self, i: int, late_jobs: np.ndarray, urgent_jobs: np.ndarray, slack_min: np.ndarray) -> np.ndarray:
        """(B,) of one site, as `Steering._loom`."""
        return loom(late_jobs[:, i].sum(axis=1), urgent_jobs[:, i].sum(axis=1), slack_min[:, i],
                    self.steering.jobs_per_min[i], self._weights)

    def _sent(self, did: FleetStep, manager: np.ndarray, sent_to: np.ndarray) -> list[SentWork]:
        """As `Steering._sent`; sent_to (B, N, M): work that the managers' actions sent."""
        weights, before, outside = self._weights, self._state, self._outside
        if weights.manager_credit == "all":
            return []
        shares = simplexes(manager, self._rules.eligible).transpose(0, 2, 1)
        added_to = (did.pending_work_to + did.deferred_work_to - before["pending_work_to"] - before["deferred_work_to"]
                    + shares * sent_to.sum(axis=1, keepdims=True) - sent_to)
        intensities = outside["mci_kg_per_kwh" if weights.carbon == "marginal" else "nci_kg_per_kwh"].copy()
        known, price = not np.isnan(intensities).any(), outside["price_usd_per_kwh"].copy()
        return [SentWork(added_to[:, i, m], kwh_per_to, price, intensities[:, i] if known else 0.0)
                for i in range(self.facts.n_sites) for m, kwh_per_to in enumerate(self.steering.kwh_per_to)]


def _joined(rows: Sequence[JobRows]) -> ArrivedJobs:
    """The jobs of all environments, one after the other."""
    counts = [len(of_env.id) for of_env in rows]
    return ArrivedJobs(np.concatenate([[0], np.cumsum(counts)]), np.repeat(np.arange(len(rows)), counts),
                       *(np.concatenate([getattr(of_env, name) for of_env in rows])
                     for name in ("id", "class_index", "work_to", "deadline_s")))


def simplexes(raw: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """(B, M, N) `allocation.project_simplex` of the managers' numbers (B, M N or more)."""
    (classes, n), count = eligible.shape, len(raw)
    shares = np.where(eligible, np.maximum(raw[:, :classes * n].reshape(count, classes, n).astype(float), 0.0), 0.0)
    total = shares.sum(axis=2, keepdims=True)
    return np.where(total > 0.0, shares / np.where(total > 0.0, total, 1.0),
                    eligible / eligible.sum(axis=1, keepdims=True))


def _rules(steering: Steering, step_s: float) -> DecisionConstants:
    p, facts = steering.params, steering.facts
    guard = guard_min(p, facts, step_s) or [-math.inf] * facts.n_sites
    leads, train = len(facts.deferrals_s), facts.train
    has = facts.deferrable or [[True] * leads] * len(train)
    return DecisionConstants(
        np.array(facts.eligible), np.array(train, np.int64), np.array(facts.inf, np.int64),
        np.array(facts.gpus_per_block), np.array(facts.max_blocks), np.array(facts.to_per_gpu_min),
        np.array(queue_drain_to(facts, p.drain_min)), np.array(queue_drain_to(facts, PolicyOptions().drain_min)),
        np.array(facts.gpus), np.array(guard, float),
        np.array(facts.deferrals_s, float), np.array(has, bool).reshape(len(train), leads),
        np.array(facts.top_to_per_s), p.long_deferrals != "as_printed", p.rounding == "carry", step_s,
        p.gpu_shares != "classes", p.gpu_shares == "kinds")
