"""The myopic co-optimiser: a rule with the plant's equations and the reward's weights, for one minute only.

It takes what is worth most in (32) now, and nothing later counts but two estimates: what power costs on an average day,
and how likely a job is dropped when its site's queue is as long as it is.

Its inputs beyond those of the other rules: power of a busy GPU, power of a site by its IT power and supply temperature,
the weights of (32), and the carbon that R3 counts: NCI, or the marginal intensity. The grid holds both for its whole
step, so that they are exact for this minute. Not among its inputs: prices to come (their forecast is used only until a
day has been seen), how NCI responds to its own load, arrivals to come, restarts and checkpoints of jobs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Operation, Vector
from cosim.agents.fleet.heuristics import GpuRule, PolicyOptions, check_knows_sites
from cosim.agents.fleet.worth import CountedCarbon, SupplyAir, worth_of_kwh
from cosim.units import DAY_S, MIN_PER_H, MIN_S

QUANTA = 20
"""Parts in which a class's arrivals of a minute are placed, each where it costs least; no part is less than a job."""
_EPS = 1e-12


def drop_risk(fill: float) -> float:
    """How likely a job is dropped whose site holds `fill` of the work it can do until the job's deadline, 0 to 1.

    An estimate, not a law: none where nothing waits, certain where the time that is left is full, small in between,
    as a queue of half of it leaves room for what is to come.
    """
    return min(max(fill, 0.0), 1.0) ** 2


class DayMean:
    """Means over the last 24 h of what is given once a step; what has not been seen yet counts as `expected`."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, tuple[float, ...]]] = deque()
        self._sums: list[float] = []

    def add(self, time_s: float, values: Sequence[float]) -> None:
        """The values (K,) of the step that begins at `time_s`."""
        row = tuple(values)
        self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(row), row, strict=True)]
        self._seen.append((time_s, row))
        while self._seen[0][0] <= time_s - DAY_S:
            gone = self._seen.popleft()[1]
            self._sums = [a - b for a, b in zip(self._sums, gone, strict=True)]

    def mean(self, expected: Sequence[float] | None) -> list[float]:
        """(K,) means; `expected` (K,) holds for the part of 24 h before the first step, None: what has been seen."""
        count = len(self._seen)
        if expected is None:
            return [total / count for total in self._sums]
        span_s = self._seen[-1][0] - self._seen[0][0]
        step_s = span_s / (count - 1) if count > 1 else 0.0
        known = min(1.0, (span_s + step_s) / DAY_S)
        return [known * total / count + (1.0 - known) * e for total, e in zip(self._sums, expected, strict=True)]


class MyopicOracle:
    """Routing, GPU shares and supply temperatures that cost least now, in units of (32).

    Place: every part of the arrivals goes where energy, at price and carbon of now, plus the expected penalty of a drop
    is least. Inference first: it has the shorter deadline.
    Share: inference as the other rules do it. A training class runs where its GPU-minute is no dearer than on the mean
    of the last 24 h, or where the risk of a drop is worth more than the difference; else only its urgent jobs do.
    Time: nothing is deferred. A released job waits in the queue just as well, and can be called at any minute; to defer
    it gives that up and gains nothing as long as GPUs can be withheld.
    Temperature: the one at which the site draws least.
    """

    needs_nci = False

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        self.check_fits(facts, options)
        assert options.energy is not None, "check_fits asks for it"
        self.facts, self.energy, self.weights = facts, options.energy, options.reward
        self._split = GpuRule(facts, options.drain_min)
        self._inf, self._train = facts.inf, facts.train
        self._slack_min = [[max(1.0, d / MIN_S - _shortest_min(facts, i, m)) for m, d in enumerate(facts.deadline_s)]
                           for i in range(facts.n_sites)]
        self._job_gpu_min = [w / x for w, x in zip(facts.work_to, facts.to_per_gpu_min, strict=True)]
        self._air, self._carbon = SupplyAir(facts, self.energy), CountedCarbon(options.reward, "myopic_oracle")
        self._supply = [facts.supply_temp_high_degc] * facts.n_sites
        self._day = DayMean()
        self._seen: Observation | None = None
        self._now: Vector = ()
        self._usual: Vector = ()
        self._energy_kwh: list[list[float]] = []

    @staticmethod
    def check_fits(facts: FleetFacts, options: PolicyOptions) -> None:
        """ScenarioError without the sites' energy model and the jobs' speeds."""
        check_knows_sites("myopic_oracle", facts, options)

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares of the parts' places."""
        self._look(observation)
        energy_kwh, sites = self._energy_kwh, range(self.facts.n_sites)
        share: list[list[float]] = [[]] * len(self.facts.kinds)
        gpus = [float(g) for g in self.facts.gpus]
        for kind, penalty in ((self._inf, self.weights.c5_per_inf_job), (self._train, self.weights.c4_per_train_job)):
            backlog = [self._backlog_gpu_min(observation, i, kind) for i in sites]
            for m in kind:
                cost = [w * row[m] for w, row in zip(self._now, energy_kwh, strict=True)]
                full = [g * slack[m] for g, slack in zip(gpus, self._slack_min, strict=True)]
                share[m] = self._pour(m, observation, cost, penalty, backlog, full)
            gpus = [self._left_for_training(observation, i, share) for i in sites]
        return share

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """No deferral, GPUs to what is worth its power now, temperatures at which a site draws least."""
        self._look(observation)
        facts, energy_kwh = self.facts, self._energy_kwh
        row = [1.0] + [0.0] * (len(facts.deferrals_s) - 1)  # they ascend: the shortest
        released = facts.deferrals_s[0] == 0.0
        shares = []
        for i, capacity in enumerate(facts.gpus):
            ready = [released or m not in self._train for m in range(len(facts.kinds))]
            jobs = [observation.running_jobs[i][m] + observation.queued_jobs[i][m] + (n if ready[m] else 0)
                    for m, n in enumerate(allocated_jobs[i])]
            work = [observation.pending_work_to[i][m] + (w if ready[m] else 0.0)
                    for m, w in enumerate(allocated_work_to[i])]
            self._withhold(observation, i, energy_kwh[i], jobs, work)
            shares.append(self._split(capacity, observation.running_jobs[i], jobs, work, i))
            self._supply[i] = self._air.best_degc(i, self._it_kw(i, capacity, shares[-1]))
        return Operation([[row] * len(self._train)] * facts.n_sites, shares, list(self._supply))

    # --- what things cost ---------------------------------------------------------------------------------------

    def _look(self, observation: Observation) -> None:
        """Worth of a kWh at each site, now and on the mean of a day, in units of (32); and what work takes of them."""
        if self._seen is observation:
            return
        self._seen, carbon = observation, self._carbon_kg_per_kwh(observation)
        price, forecast = observation.price_usd_per_kwh, observation.forecast_usd_per_kwh
        self._day.add(observation.time_s, [price, *carbon])
        mean_price, *mean_carbon = self._day.mean([sum(forecast) / len(forecast), *carbon])
        self._now = [worth_of_kwh(self.weights, price, x) for x in carbon]
        self._usual = [worth_of_kwh(self.weights, mean_price, x) for x in mean_carbon]
        self._energy_kwh = self._kwh_per_gpu_min(observation)

    def _carbon_kg_per_kwh(self, observation: Observation) -> Vector:
        """(N,) what one kWh adds to R3; zeros in power mode, where c3 is 0."""
        return self._carbon.now(observation)

    def _kwh_per_gpu_min(self, observation: Observation) -> list[list[float]]:
        """(N, M) energy of one more busy GPU for a minute, cooling included, where each site stands now."""
        busy = self.energy.busy_kw_per_gpu
        mean_kw = sum(busy) / len(busy)
        out = []
        for i, gpus in enumerate(self.facts.gpus):
            it_kw = self.energy.idle_kw[i] + (1.0 - observation.free_gpu_ratio[i]) * gpus * mean_kw
            supply = self._supply[i]
            slope = self.energy.site_kw(i, it_kw + 1.0, supply) - self.energy.site_kw(i, it_kw, supply)
            out.append([float(slope) * kw / MIN_PER_H for kw in busy])
        return out

    def _it_kw(self, site: int, capacity: int, shares: Vector) -> float:
        return self.energy.idle_kw[site] + sum(
            s * capacity * kw for s, kw in zip(shares, self.energy.busy_kw_per_gpu, strict=True))

    # --- what is at risk ----------------------------------------------------------------------------------------

    def _backlog_gpu_min(self, observation: Observation, site: int, kind: Sequence[int]) -> float:
        pending, deferred = observation.pending_work_to[site], observation.deferred_work_to[site]
        return sum((pending[m] + deferred[m]) / self.facts.to_per_gpu_min[m] for m in kind)

    def _left_for_training(self, observation: Observation, site: int, share: Matrix) -> float:
        """GPUs of a site that inference, running or just sent (`share`, where known), leaves; at least 1."""
        facts, running = self.facts, observation.running_jobs[site]
        taken = 0.0
        for m in self._inf:
            sent = share[m][site] * observation.arrivals_work_to[m] / facts.to_per_gpu_min[m] if share else 0.0
            taken += max(running[m] * facts.gpus_per_block[m], sent)
        return max(1.0, facts.gpus[site] - taken)

    def _pour(self, m: int, observation: Observation, cost: Vector, penalty: float, backlog: list[float],
              full: Vector) -> list[float]:
        """(N,) shares of a class's arrivals; adds what it places to `backlog`.

        cost: (N,) of a GPU-minute's energy; full: (N,) GPU-minutes a site can do until the class's deadline.
        """
        facts, number = self.facts, observation.arrivals[m]
        work = observation.arrivals_work_to[m] / facts.to_per_gpu_min[m]
        if number:
            self._job_gpu_min[m] = max(work / number, _EPS)
        at_stake = penalty / self._job_gpu_min[m]
        parts = max(1, min(QUANTA, number))
        placed = [0.0] * facts.n_sites
        sites = [i for i in range(facts.n_sites) if facts.eligible[m][i]]
        def dear(i: int) -> float:
            return cost[i] + at_stake * drop_risk((backlog[i] + work / parts) / full[i])

        now = {i: dear(i) for i in sites}
        for _ in range(parts):
            best = min(now, key=now.__getitem__)
            placed[best] += 1.0 / parts
            backlog[best] += work / parts
            now[best] = dear(best)
        return placed

    def _withhold(self, observation: Observation, site: int, energy_kwh: Vector, jobs: list[float],
                  work_to: list[float]) -> None:
        """Leave in `jobs` and `work_to` of a training class only what is urgent, where waiting is worth more."""
        gpus = self._left_for_training(observation, site, ())
        backlog = sum(work_to[m] / self.facts.to_per_gpu_min[m] for m in self._train)
        for m in self._train:
            saved = (self._now[site] - self._usual[site]) * energy_kwh[m]
            at_stake = self.weights.c4_per_train_job / self._job_gpu_min[m]
            if saved <= _EPS + at_stake * drop_risk(backlog / (gpus * self._slack_min[site][m])) or not jobs[m]:
                continue
            urgent = min(jobs[m], observation.urgent_jobs[site][m]) if observation.urgent_jobs else 0
            work_to[m] *= urgent / jobs[m]
            jobs[m] = urgent


def _shortest_min(facts: FleetFacts, i: int, m: int) -> float:
    """How long a job of a training class takes at site i on all the blocks it can use there, min, for ever where none
    fits; an inference job need only start."""
    if facts.kinds[m] == "inf":
        return 0.0
    top_to_per_s = facts.top_to_per_s[i][m]
    return facts.work_to[m] / top_to_per_s / MIN_S if top_to_per_s else math.inf
