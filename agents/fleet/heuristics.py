"""Rule policies: what a learned one has to beat.

All but `random` split a site's GPUs by one rule (`GpuRule`) and differ only in where and when they send jobs.
`cosim.agents.fleet.policies` builds one by name.

Rows: Z02.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Matrix, Observation, Operation, Vector
from cosim.agents.fleet.planner_params import PlannerParams
from cosim.agents.fleet.rewards import RewardWeights
from cosim.errors import ModelError, ScenarioError
from cosim.units import MIN_S, ROUNDING


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Options of the rules.

    weights            (N,) relative shares of the sites, read by `static` alone
    drain_min          inference gets the GPUs that would work its queue off in this time, min
    fill_horizon_min   `nci_priority` calls a site full at this much unfinished work per GPU, min
    supply_temp_degc   supply air temperature, degC; the warmest is the cheapest in (19)-(24)
    signal, signal_quantile   what training waits for (price, nci, mci), and up to which quantile of its last 24 h it
                       works, read by `wait_below` and `suspend_resume`
    reward, energy     weights of (32), and what a site draws, read by `myopic_oracle` and `mpc`; None: not known
    planner            how `mpc` plans
    guard_min          (N,) slack of training below which the controller guards it, min; (): it does not
    """

    weights: tuple[float, ...] | None = None
    drain_min: float = 2.0
    fill_horizon_min: float = 120.0
    supply_temp_degc: float = 23.0
    reward: RewardWeights = RewardWeights()
    energy: EnergyModel | None = None
    signal: str = "price"
    signal_quantile: float = 0.3
    planner: PlannerParams = PlannerParams()
    guard_min: tuple[float, ...] = ()


def check_knows_sites(policy: str, facts: FleetFacts, options: PolicyOptions) -> None:
    """ScenarioError naming the policy, without the sites' energy model and the jobs' speeds."""
    if options.energy is None or not facts.top_to_per_s:
        raise ScenarioError(f"policy {policy} needs to know what a site draws and how fast jobs can run, and nobody "
                            "tells it (where GPUs have types nobody can: choose another policy there)")


def share_blocks(
    gpus: int, blocks: Sequence[int], room: Sequence[int], weights: Sequence[float]
) -> list[int]:
    """At most `gpus` GPUs in whole blocks, in proportion to `weights`, to no class more than its `room`.

    blocks: GPUs per block; room: GPUs a class can use, whole blocks. What proportion leaves over goes, largest
    fraction of a block first, to classes that can still use a block. A class of weight 0 gets nothing.
    """
    given = [0] * len(blocks)
    active = [k for k, r in enumerate(room) if r > 0 and weights[k] > 0]
    if sum(room[k] for k in active) <= gpus:
        for k in active:
            given[k] = room[k]
        return given
    left, total = gpus, sum(weights[k] for k in active)
    while full := [k for k in active if left * weights[k] >= room[k] * total]:
        for k in full:  # its proportion is more than it can use: the others share the difference
            given[k] = room[k]
            left -= room[k]
            active.remove(k)
        total = sum(weights[k] for k in active)
    fractions = {}
    for k in active:
        exact = left * weights[k] / total / blocks[k]
        given[k] = blocks[k] * int(exact + ROUNDING)
        fractions[k] = round(exact - int(exact + ROUNDING), 9)
    left -= sum(given[k] for k in active)
    order = sorted(active, key=lambda k: -fractions[k])
    while takers := [k for k in order if blocks[k] <= left and given[k] < room[k]]:
        given[takers[0]] += blocks[takers[0]]
        left -= blocks[takers[0]]
        order = takers[1:] + takers[:1]
    return given


def queue_drain_to(facts: FleetFacts, drain_min: float) -> list[float]:
    """(M,) work that one job's GPUs do while a queue is worked off: in `drain_min`, or in half the class's deadline if
    that is less, TO."""
    return [x * min(drain_min, t / MIN_S / 2.0) * b
            for x, t, b in zip(facts.to_per_gpu_min, facts.deadline_s, facts.gpus_per_block, strict=True)]


class GpuRule:
    """GPUs per class of one site, from what is queued and what has just been sent.

    Inference first: as many as work the queue off in `drain_min` (in half the class's deadline if that is less), at
    least those in use (running jobs, `jobs_per_block` on a block, keep their GPUs) and at most one job's GPUs per job;
    `least_blocks` in any case. Training classes share the rest in proportion to their released work, up to
    `max_blocks` per job.
    """

    def __init__(self, facts: FleetFacts, drain_min: float) -> None:
        self._facts = facts
        to = queue_drain_to(facts, drain_min)
        self._train, self._inf = facts.train, facts.inf
        self._train_blocks = [facts.gpus_per_block[m] for m in self._train]
        self._inf_blocks = [facts.gpus_per_block[m] for m in self._inf]
        self._inf_jobs = [facts.jobs_per_block[m] if facts.jobs_per_block else 1 for m in self._inf]
        self._least = [[of_site[m] for m in self._inf] for of_site in facts.least_blocks]
        self._serving = list(zip(self._inf, self._inf_blocks, self._inf_jobs, [to[m] for m in self._inf], strict=True))

    def __call__(self, capacity: int, running_jobs: Vector, jobs: Vector, work_to: Vector, site: int | None = None
                 ) -> list[float]:
        """(M,) shares of `capacity` GPUs. running_jobs, jobs, work_to: (M,) running jobs, all released jobs, and
        their unfinished work, TO, with those just sent and not deferred; site: whose least blocks count."""
        facts = self._facts
        gpus = [0] * len(facts.kinds)
        for m, g in zip(self._inf, self.inference(capacity, running_jobs, jobs, work_to, site), strict=True):
            gpus[m] = g
        room = [math.ceil(jobs[m] - ROUNDING) * facts.max_blocks[m] * facts.gpus_per_block[m] for m in self._train]
        work = [work_to[m] / facts.to_per_gpu_min[m] for m in self._train]
        for m, g in zip(self._train, share_blocks(capacity - sum(gpus), self._train_blocks, room, work), strict=True):
            gpus[m] = g
        return [g / capacity for g in gpus]

    def inference(self, capacity: int, running_jobs: Vector, jobs: Vector, work_to: Vector, site: int | None = None
                  ) -> list[int]:
        """GPUs of each inference class, in the order of `FleetFacts.inf`; arguments as those of a call."""
        ceil, held, need = math.ceil, [], []
        for m, block, each, drain_to in self._serving:
            busy, wanted = ceil(running_jobs[m] / each - ROUNDING), ceil(work_to[m] / drain_to - ROUNDING)
            most = ceil(jobs[m] - ROUNDING)
            wanted = most if wanted > most else wanted
            held.append(block * busy)
            need.append(block * (busy if busy > wanted else wanted))
        if site is not None and self._least:
            for k, blocks in enumerate(self._least[site]):
                held[k] = max(held[k], blocks * self._inf_blocks[k])
                need[k] = max(need[k], held[k])
        if sum(need) <= capacity:
            return need
        kept = share_blocks(capacity, self._inf_blocks, held, held)
        more = [n - h for n, h in zip(need, kept, strict=True)]
        extra = share_blocks(capacity - sum(kept), self._inf_blocks, more, more)
        return [k + e for k, e in zip(kept, extra, strict=True)]


class Uniform:
    """Every eligible site gets the same share; nothing is deferred. Also the base of the other rules."""

    needs_nci = False

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        self.facts, self.options = facts, options
        self._split = GpuRule(facts, options.drain_min)
        self._share = [_over(facts.eligible[m], [1.0] * facts.n_sites) for m in range(len(facts.kinds))]
        self._supply = [options.supply_temp_degc] * facts.n_sites
        leads, train = range(len(facts.deferrals_s)), facts.train
        self._deferral = [[[float(h == lead) for h in leads]] * len(train) for lead in leads]
        self._released = [[lead_s == 0.0 or m not in train for m in range(len(facts.kinds))]
                          for lead_s in facts.deferrals_s]

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares; the same every minute."""
        return self._share

    def lead(self, observation: Observation) -> int:
        """Index of the deferral that all training jobs of this minute get: the first."""
        return 0

    def leads(self, observation: Observation) -> list[int]:
        """(N,) the same at each site."""
        return [self.lead(observation)] * self.facts.n_sites

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """One release time for all of a site, GPUs by the rule, one supply temperature."""
        facts, classes = self.facts, range(len(self.facts.kinds))
        shares, deferrals = [], []
        for i, (capacity, lead) in enumerate(zip(facts.gpus, self.leads(observation), strict=True)):
            deferrals.append(self._deferral[lead])
            released = self._released[lead]
            running, queued, pending = (x[i] for x in (observation.running_jobs, observation.queued_jobs,
                                                       observation.pending_work_to))
            new_jobs, new_work = allocated_jobs[i], allocated_work_to[i]
            jobs = [running[m] + queued[m] + (new_jobs[m] if released[m] else 0) for m in classes]
            work = [pending[m] + (new_work[m] if released[m] else 0.0) for m in classes]
            shares.append(self._split(capacity, running, jobs, work, i))
        return Operation(deferrals, shares, self._supply)


class Static(Uniform):
    """Fixed shares, e.g. 1:2:7 or 1:1:8, whatever happens."""

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        super().__init__(facts, options, rng)
        self._share = self.check_fits(facts, options)

    @staticmethod
    def check_fits(facts: FleetFacts, options: PolicyOptions) -> list[list[float]]:
        """(M, N) the shares; ScenarioError unless the weights are some for this fleet."""
        weights = options.weights
        if weights is None or len(weights) != facts.n_sites or min(weights) < 0:
            raise ScenarioError(f"policy static needs one weight >= 0 per site ({facts.n_sites}), got {weights}; "
                                f"for example weights={':'.join('1' * facts.n_sites)}")
        return [_over(row, weights) for row in facts.eligible]


class TouShift(Uniform):
    """Uniform in space; a training job waits for the permitted time with the lowest price, the earliest of equals."""

    def lead(self, observation: Observation) -> int:
        """Index of the lowest forecast price among the deferrals that every class has."""
        has = self.facts.deferrable
        permitted = [h for h in range(len(self.facts.deferrals_s)) if all(of_class[h] for of_class in has)]
        return min(permitted, key=observation.forecast_usd_per_kwh.__getitem__)


class NciPriority(Uniform):
    """Cheapest carbon first: the site with the lowest intensity until it is full, then the next.

    Full is `fill_horizon_min` of unfinished work (released or not) per GPU. Inference is placed before training, both
    in GPU-minutes. When every eligible site is full the rest goes to all of them in proportion to their GPUs.
    """

    needs_nci = True

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares that fill the sites in the order of their intensity (lowest index first on ties)."""
        facts = self.facts
        order = sorted(range(facts.n_sites), key=self.intensity(observation).__getitem__)
        room = [max(0.0, self.options.fill_horizon_min * gpus - self._backlog_gpu_min(observation, i))
                for i, gpus in enumerate(facts.gpus)]
        share: list[list[float]] = [[]] * len(facts.kinds)
        for m in (*facts.inf, *facts.train):
            share[m] = self._pour(observation.arrivals_work_to[m] / facts.to_per_gpu_min[m], order, room,
                                  facts.eligible[m])
        return share

    def intensity(self, observation: Observation) -> Vector:
        """(N,) what decides the order, kg/kWh."""
        if observation.nci_kg_per_kwh is None:
            raise ScenarioError("this policy decides by carbon intensity, and none is observed")
        return observation.nci_kg_per_kwh

    def _backlog_gpu_min(self, observation: Observation, site: int) -> float:
        pending, deferred = observation.pending_work_to[site], observation.deferred_work_to[site]
        return sum((p + d) / speed for p, d, speed in zip(pending, deferred, self.facts.to_per_gpu_min, strict=True))

    def _pour(self, amount: float, order: Sequence[int], room: list[float], eligible: Sequence[bool]) -> list[float]:
        """Shares of `amount` GPU-minutes over the sites in `order`; takes what it places off `room`."""
        placed = [0.0] * len(room)
        left = amount or ROUNDING  # a class without arrivals still says where it would go
        for i in order:
            if eligible[i] and room[i] > 0.0:
                placed[i] = min(left, room[i])
                room[i] -= placed[i]
                left -= placed[i]
                if left <= 0.0:
                    break
        else:
            spill = _over(eligible, self.facts.gpus)
            placed = [p + left * s for p, s in zip(placed, spill, strict=True)]
        return _over(eligible, placed)


class MciPriority(NciPriority):
    """`NciPriority` by marginal intensity: what all sources emit more if a site draws one kW more; while there is none,
    as where the grid can carry no kW more, by the last one."""

    _last: Vector | None = None

    def intensity(self, observation: Observation) -> Vector:
        """(N,) marginal intensities, kg/kWh; ModelError if none has been computed."""
        self._last = self._last if observation.mci_kg_per_kwh is None else observation.mci_kg_per_kwh
        if self._last is None:
            raise ModelError("policy mci_priority decides by marginal intensities and hears none: --set "
                             "grid.mci=true, or link some to controller.mci_kg_per_kwh")
        return self._last


class Random:
    """Every share uniform on its simplex, every temperature uniform in its box: the floor of any comparison."""

    needs_nci = False

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        self.facts, self._rng = facts, rng
        self._deferrable = np.array(facts.deferrable, float) if facts.deferrable else 1.0

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares, a fresh draw every minute."""
        return [_over(row, self._rng.standard_exponential(len(row)).tolist()) for row in self.facts.eligible]

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """Release times, GPUs (a part of them unused) and temperatures, a fresh draw every minute."""
        facts, n = self.facts, self.facts.n_sites
        deferral = self._rng.standard_exponential((n, len(facts.train), len(facts.deferrals_s))) * self._deferrable
        gpus = self._rng.standard_exponential((n, len(facts.kinds) + 1))
        supply = self._rng.uniform(facts.supply_temp_low_degc, facts.supply_temp_high_degc, n)
        return Operation(
            (deferral / deferral.sum(axis=2, keepdims=True)).tolist(),
            (gpus / gpus.sum(axis=1, keepdims=True))[:, :-1].tolist(),
            supply.tolist(),
        )


def _over(eligible: Sequence[bool], weights: Vector) -> list[float]:
    """Weights as shares over the eligible sites; ScenarioError when none of them has any weight."""
    kept = [float(w) if ok else 0.0 for ok, w in zip(eligible, weights, strict=True)]
    total = sum(kept)
    if not total > 0.0:
        raise ScenarioError(f"weights {tuple(weights)} leave nothing for the eligible sites {tuple(eligible)}; "
                            "give one of them a weight above 0")
    return [w / total for w in kept]
