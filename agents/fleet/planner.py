"""The receding-horizon planner, policy `mpc`: every quarter of an hour a linear program over the next 16 hours, whose
first slot is followed until the next.

What it assumes: prices and intensities to come as `Outlook` has them, from linked forecasts or from yesterday, whatever
load it moves (a price taker: NCI answers to load, and the plan does not count that); arrivals at their mean of the last
24 h; inference worked off as it comes; training as a fluid in whole blocks, suspended and resumed without loss, at
linear speed; the plant in balance, at the supply air at which it draws least; caps of events that have been announced,
and none after; batteries behind meters left to their own rule. Nothing is deferred by a release: a released job can be
held back and called at any minute.

Rows: Z02.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cosim.agents.fleet.backlog import Backlog
from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Operation, Vector
from cosim.agents.fleet.fluid import possible_gpu_h, required_gpu_h, tangents
from cosim.agents.fleet.heuristics import GpuRule, PolicyOptions, check_knows_sites
from cosim.agents.fleet.oracle import DayMean
from cosim.agents.fleet.outlook import Outlook
from cosim.agents.fleet.planning import Fleet, FleetPlan, InferenceGroup, TrainingGroup, plan
from cosim.agents.fleet.worth import CountedCarbon, SupplyAir, worth_of_kwh
from cosim.units import HOUR_S, MIN_PER_H, MIN_S

Floats = NDArray[np.float64]
_FULL_RATIO = 0.98
"""A site of which the plan uses so much of what it counts on gives training all that inference leaves."""
_LEAST_GPU_H = 1e-6
"""Expected arrivals of a slot in which none are: by them the plan has a place for the next."""


class Mpc:
    """Where jobs go, how many GPUs training gets, and supply air: all by the plan of the slot."""

    needs_nci = False

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        self.check_fits(facts, options)
        assert options.energy is not None, "check_fits asks for it"
        self._facts, self._energy, self._weights, self._params = facts, options.energy, options.reward, options.planner
        self._split, self._air = GpuRule(facts, options.drain_min), SupplyAir(facts, options.energy)
        self._outlook = Outlook(self._params.slot_s, facts.deferrals_s, facts.horizon_step_s)
        self._backlog, self._arrivals = Backlog(facts), DayMean()
        self._carbon = CountedCarbon(options.reward, "mpc")
        self._margin_h = self._margins_h(options)
        self._training = self._grouped(facts.train)
        self._inference = self._grouped(facts.inf)
        self._fleet = self._make_fleet()
        self._gpu_h_per_to = [1.0 / (x * MIN_PER_H) for x in facts.to_per_gpu_min]
        self._seen: Observation | None = None
        self._slot, self._events = -1, ""
        self._step_s = MIN_S
        self.plan: FleetPlan | None = None
        self.plans = 0

    @staticmethod
    def check_fits(facts: FleetFacts, options: PolicyOptions) -> None:
        """ScenarioError without the sites' energy model and the jobs' speeds."""
        check_knows_sites("mpc", facts, options)

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares: of training what the plan sends next, of inference as it runs in this slot."""
        self._look(observation)
        assert self.plan is not None
        shares: list[Vector] = [()] * len(self._facts.kinds)
        for k, group in enumerate(self._training):
            for m in group:
                shares[m] = self.plan.training_share[k].tolist()
        for k, group in enumerate(self._inference):
            now = self.plan.inference_gpus[k, :, 0].clip(min=0.0)
            ok = np.array(self._facts.eligible[group[0]], float)
            some = now if now.sum() > 0.0 else ok
            row = (some / some.sum()).tolist()
            for m in group:
                shares[m] = row
        return shares

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """All released at once; inference as the other rules do it, training as planned, by deadline."""
        self._look(observation)
        assert self.plan is not None
        facts, classes = self._facts, range(len(self._facts.kinds))
        self._backlog.sent(allocated_jobs, allocated_work_to)
        now = [1.0] + [0.0] * (len(facts.deferrals_s) - 1)  # they ascend: the shortest
        shares, supply = [], []
        for i, capacity in enumerate(facts.gpus):
            running = observation.running_jobs[i]
            jobs = [running[m] + observation.queued_jobs[i][m] + allocated_jobs[i][m] for m in classes]
            work = [observation.pending_work_to[i][m] + allocated_work_to[i][m] for m in classes]
            gpus = [0.0] * len(classes)
            for m, g in zip(facts.inf, self._split.inference(capacity, running, jobs, work, i), strict=True):
                gpus[m] = g
            self._give_training(i, capacity - sum(gpus), gpus)
            shares.append([g / capacity for g in gpus])
            it_kw = self._energy.idle_kw[i] + sum(
                g * kw for g, kw in zip(gpus, self._energy.busy_kw_per_gpu, strict=True))
            supply.append(self._air.best_degc(i, it_kw))
        return Operation([[now] * len(facts.train)] * facts.n_sites, shares, supply)

    # --- what is known -------------------------------------------------------------------------------------------

    def _look(self, observation: Observation) -> None:
        """Take in what this step shows, and plan anew where a slot begins or an event is announced."""
        if self._seen is observation:
            return
        if self._seen is not None:
            self._step_s = observation.time_s - self._seen.time_s
        self._seen = observation
        self._outlook.see(observation)
        self._backlog.see(observation)
        self._arrivals.add(observation.time_s, [w * self._gpu_h_per_to[m] / (self._step_s / HOUR_S)
                                                for m, w in enumerate(observation.arrivals_work_to)])
        slot = int(observation.time_s // self._params.slot_s)
        events = repr(list(observation.event_cap_kw))
        if self.plan is None or slot != self._slot or events != self._events:
            self._slot, self._events = slot, events
            self.plan = self._make_plan(observation)
            self.plans += 1

    def _make_plan(self, observation: Observation) -> FleetPlan:
        p, facts = self._params, self._facts
        hours = np.full(p.slots, p.slot_s / HOUR_S)
        hours[0] -= (observation.time_s % p.slot_s) / HOUR_S
        ends_h = np.cumsum(hours)
        price = self._outlook.price_usd_per_kwh(p.slots)
        self._carbon.now(observation)  # or says what is missing
        signal = self._carbon.name(observation)
        carbon = self._outlook.intensity_kg_per_kwh(signal, p.slots) if signal else None
        worth = worth_of_kwh(self._weights, price, np.zeros((facts.n_sites, 1)) if carbon is None else carbon)
        coming = self._arrivals.mean(None)  # GPUs that each class keeps busy
        training = [self._group_of(group, ends_h, hours * sum(coming[m] for m in group)) for group in self._training]
        inference = [InferenceGroup(self._energy.busy_kw_per_gpu[group[0]], facts.eligible[group[0]],
                               np.full(p.slots, sum(coming[m] for m in group))) for group in self._inference]
        return plan(hours, worth, self._fleet, training, inference, self._caps_kw(observation, hours), p.wait_ratio)

    def _group_of(self, group: Sequence[int], ends_h: Floats, coming_gpu_h: Floats) -> TrainingGroup:
        facts, slot_h, first = self._facts, self._params.slot_s / HOUR_S, group[0]
        possible, required = [], []
        for i in range(facts.n_sites):
            work, gpus, due_h = self._backlog.claims(i, group)
            possible.append(possible_gpu_h(work, gpus, np.zeros(len(work)), ends_h))
            required.append(required_gpu_h(work, gpus, due_h - self._margin_h[i], ends_h))
        run_h = max((facts.work_to[m] / facts.top_to_per_s[i][m] / HOUR_S for m in group
                     for i in range(facts.n_sites) if facts.eligible[m][i] and facts.top_to_per_s[i][m]), default=0.0)
        due = int((facts.deadline_s[first] / HOUR_S - max(self._margin_h)) / slot_h)
        per_gpu_h = max(1.0 / (facts.work_to[m] * self._gpu_h_per_to[m]) for m in group)
        return TrainingGroup(self._energy.busy_kw_per_gpu[first], facts.eligible[first], np.array(possible),
                        np.array(required), coming_gpu_h + _LEAST_GPU_H, int(run_h / 2.0 / slot_h), max(due, 1),
                        10.0 * self._weights.c4_per_train_job * per_gpu_h)

    def _caps_kw(self, observation: Observation, hours: Floats) -> Floats:
        """(N, T) caps of the announced events, in every slot that an event has a part of."""
        caps = np.full((self._facts.n_sites, len(hours)), np.inf)
        ends = np.cumsum(hours) * MIN_PER_H
        for i, cap in enumerate(observation.event_cap_kw):
            if not math.isnan(cap):
                begin, end = observation.event_start_min[i], observation.event_end_min[i]
                caps[i, (ends > begin) & (ends - hours * MIN_PER_H < end)] = cap
        return caps

    # --- what is given -------------------------------------------------------------------------------------------

    def _give_training(self, site: int, free: float, gpus: list[float]) -> None:
        """Put into `gpus` (M,) what each training class gets of `free` GPUs: as many as planned, earliest deadline
        first."""
        assert self.plan is not None
        used = self.plan.training_gpus[:, site, 0].sum() + self.plan.inference_gpus[:, site, 0].sum()
        full = used >= _FULL_RATIO * self._fleet.gpus[site]
        queue = self._backlog.by_deadline(site)
        for k, group in enumerate(self._training):
            left = free if full else min(free, self.plan.training_gpus[k, site, 0])
            for _, m, wanted in queue:
                if m not in group:
                    continue
                block = self._facts.gpus_per_block[m]
                fits = block * int(min(wanted, left) / block + (1e-9 if full else 0.5))
                fits = min(fits, wanted, block * int(free / block + 1e-9))
                gpus[m] += fits
                left -= fits
                free -= fits
                if left <= 0.0:
                    break

    # --- what does not change ------------------------------------------------------------------------------------

    def _margins_h(self, options: PolicyOptions) -> list[float]:
        """(N,) how long before its deadline training is to be done."""
        given = self._params.margin_min
        if given is not None:
            return [given / MIN_PER_H] * self._facts.n_sites
        return [g / MIN_PER_H for g in options.guard_min or (0.0,) * self._facts.n_sites]

    def _grouped(self, classes: Sequence[int]) -> list[list[int]]:
        """Classes whose work is alike to the plan: power of a GPU, sites, and of training the deadline."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for m in classes:
            due = self._facts.deadline_s[m] if self._facts.kinds[m] == "train" else None
            groups.setdefault((self._energy.busy_kw_per_gpu[m], self._facts.eligible[m], due), []).append(m)
        return list(groups.values())

    def _make_fleet(self) -> Fleet:
        facts, idle, air = self._facts, self._energy.idle_kw, self._air
        top = max(self._energy.busy_kw_per_gpu)
        most = [idle[i] + g * top for i, g in enumerate(facts.gpus)]

        def drawn_kw(site: int) -> Callable[[Floats], Floats]:
            return lambda it_kw: np.array([air.least_kw(site, float(x)) for x in it_kw])
        cuts = [tangents(drawn_kw(i), idle[i], most[i]) for i in range(facts.n_sites)]
        full = [max(air.least_kw(i, kw), *(s * kw + c for s, c in cuts[i])) for i, kw in enumerate(most)]
        return Fleet(self._params.usable_ratio * np.array(facts.gpus, float), np.array(idle), cuts,
                     np.array(full) * (1.0 + 1e-9) + 1e-9)
