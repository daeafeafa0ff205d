"""One decision as three pure functions, observe, place and operate: a policy's ratios become jobs, release times, GPUs.

    situation = pipeline.observe(state, time_s, manager, sites)
    placement = pipeline.place(situation, policy.place(situation.observation))
    state, commands = pipeline.operate(situation, placement, policy.operate(situation.observation, *placement.totals))

Nothing is kept between the calls: all that one minute leaves to the next is in `ControlState`. The adapter on the bus
and the learning environment call the same functions.

Rows: A06, A07, I13, I22, U09, U14, U22.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from cosim.agents.fleet.allocation import (
    deal,
    gpu_blocks,
    largest_remainder,
    largest_remainder_carry,
    project_box,
    project_shares,
    project_simplex,
)
from cosim.agents.fleet.autoscaling import replicas_wanted, with_replicas
from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Operation
from cosim.agents.fleet.heuristics import GpuRule, share_blocks
from cosim.agents.fleet.pooling import divide, pool
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.ports import Batch
from cosim.simulators.controller.deferral import DeferralRules, ReleaseSchedule, Waiting, waiting_jobs
from cosim.simulators.controller.params import ControllerParams, batch_limits, guard_min

Values = Mapping[str, Any]


class ControlState(NamedTuple):
    """What the decisions so far leave to the next one.

    site_carry      (M, N) jobs that rounding owes each site, fractions of jobs
    deferral_carry  (N, Mtrain, H) jobs that rounding owes each release time
    waiting         (N, Mtrain) jobs sent and not yet released, oldest decision first
    clipped, moved  so far: jobs released earlier than chosen, choices of a deferral that the class does not have
    guarded         so far: decisions in which a site's training was guarded, all sites together
    arrived         with routing = arrival: jobs per class that were routed since the last decision, and their work, TO
    """

    site_carry: list[list[float]]
    deferral_carry: list[list[list[float]]]
    waiting: list[list[Waiting]]
    clipped: int = 0
    moved: int = 0
    guarded: int = 0
    arrived: tuple[list[int], list[float]] | None = None


class Situation(NamedTuple):
    """The start of a minute: the state, the jobs to be placed, their rows by class in arrival order, and the policy's
    observation. The jobs are those that have arrived, and with routing = arrival those to come, of which the
    observation has nothing."""

    state: ControlState
    batch: Batch
    rows_by_class: list[list[int]]
    observation: Observation


class Placement(NamedTuple):
    """Jobs at sites: shares (M, N) on the simplex; rows of the batch per site and class, ascending; `site_carry` after
    them; and `totals`, jobs and their work, TO, both (N, M), as far as they are known: with routing = arrival, what
    came in the last minute by these shares."""

    shares: list[list[float]]
    rows: list[list[list[int]]]
    site_carry: list[list[float]]
    totals: tuple[Sequence[Sequence[float]], list[list[float]]]


class SiteCommand(NamedTuple):
    """What one site gets for a minute: its jobs with `release_s`, GPUs per class (M,), supply air temperature, degC,
    and the mean deferral of its training jobs, s, NaN without any."""

    jobs: Batch
    gpus: list[float]
    supply_temp_degc: float
    mean_deferral_s: float


class ControlPipeline:
    """The rules by which a fleet's controller decides every `step_s`; constant once made."""

    def __init__(self, params: ControllerParams, facts: FleetFacts, step_s: float, sid: str) -> None:
        self._params, self._facts, self._sid = params, facts, sid
        self._split = GpuRule(facts, params.drain_min)
        self.guard_min = guard_min(params, facts, step_s)
        self.deferrals = DeferralRules(facts, params.long_deferrals, params.rounding, step_s)
        self._spare_to = [] if params.spare_gpus == "idle" else [
            m for m in facts.inf if not facts.jobs_per_block or facts.jobs_per_block[m] == 1]
        if params.spare_gpus != "idle" and facts.inf and not self._spare_to:
            raise ScenarioError(f"{sid}.spare_gpus = {params.spare_gpus}: all inference is of language models, whose "
                                "replicas take no spare GPUs; leave it at idle")
        self._class_index = {name: m for m, name in enumerate(facts.classes)}
        limits, classes = batch_limits(params, sid), list(params.job_classes.items())
        self._batch = {m: min(c.serving.full_batch, limits.get(name, c.serving.full_batch))
                       for m, (name, c) in enumerate(classes) if c.serving is not None}

    def initial(self) -> ControlState:
        """No remainders, no deferred jobs."""
        facts = self._facts
        return ControlState(
            [[0.0] * facts.n_sites for _ in facts.kinds],
            [[[0.0] * len(facts.deferrals_s) for _ in facts.train] for _ in facts.gpus],
            [[[] for _ in facts.train] for _ in facts.gpus])

    def observe(self, state: ControlState, time_s: float, manager: Values, sites: Sequence[Values]) -> Situation:
        """What is known at `time_s`, before any action.

        manager, sites: values of the in ports of `Controller`'s Manager and of its Agents, in the order of the sites.
        ModelError for a job of an unknown class.
        """
        batch = manager["jobs"]
        rows_by_class = self._rows_by_class(batch)
        forecast = manager["forecast_usd_per_kwh"]
        if isinstance(forecast, float):  # nothing is linked: the port's default, for every lead
            forecast = [forecast] * len(self._facts.deferrals_s)
        by_lead, by_time = waiting_jobs(state.waiting, self._facts.deferrals_s, time_s)
        mode = self._params.mode
        arrived, arrived_to = self._arrived(batch, rows_by_class) if self._params.routing == "handover" else (
            state.arrived or ([0] * len(self._facts.kinds), [0.0] * len(self._facts.kinds)))
        observation = Observation(
            time_s=time_s,
            price_usd_per_kwh=manager["price_usd_per_kwh"],
            forecast_usd_per_kwh=forecast,
            nci_kg_per_kwh=[a["nci_kg_per_kwh"] for a in sites] if mode == "joint" else None,
            power_kw=[a["p_kw"] for a in sites],
            arrivals=arrived,
            arrivals_work_to=arrived_to,
            queued_jobs=[a["queued_jobs"] for a in sites],
            deferred_jobs=[a["deferred_jobs"] for a in sites],
            running_jobs=[a["running_jobs"] for a in sites],
            pending_work_to=[a["pending_work_to"] for a in sites],
            deferred_work_to=[a["deferred_work_to"] for a in sites],
            late_jobs=self._per_class(sites, "late_jobs"),
            urgent_jobs=self._per_class(sites, "urgent_jobs"),
            slack_min=[a["slack_min"] for a in sites],
            free_gpu_ratio=[a["free_gpu_ratio"] for a in sites],
            site_carry=state.site_carry,
            deferral_carry=state.deferral_carry,
            mci_kg_per_kwh=None if mode == "power" else known([a["mci_kg_per_kwh"] for a in sites]),
            deferred_by_lead=by_lead,
            deferred_by_time=by_time,
            event_start_min=[a["event_start_min"] for a in sites],
            event_end_min=[a["event_end_min"] for a in sites],
            event_cap_kw=[a["event_cap_kw"] for a in sites],
            nci_forecast_kg_per_kwh=_over_horizon(sites, "nci_forecast_kg_per_kwh") if mode == "joint" else (),
            mci_forecast_kg_per_kwh=_over_horizon(sites, "mci_forecast_kg_per_kwh") if mode == "joint" else (),
            price_forecast_usd_per_kwh=_forecast(manager["price_forecast_usd_per_kwh"]),
            load_forecast_kw=_forecast(manager["p_load_forecast_kw"]),
            renewable_forecast_kw=_forecast(manager["renewable_forecast_kw"]),
        )
        return Situation(state, batch, rows_by_class, observation)

    def place(self, situation: Situation, site_share: Matrix) -> Placement:
        """Whole jobs per site and class for shares (M, N), dealt to the sites in arrival order.

        Shares are projected on the simplex over eligible sites. ModelError if one is not finite.
        """
        facts, carries = self._facts, self._params.rounding == "carry"
        shares = [project_simplex(row, ok) for row, ok in zip(site_share, facts.eligible, strict=True)]
        rows: list[list[list[int]]] = [[[] for _ in facts.kinds] for _ in facts.gpus]
        carry = list(situation.state.site_carry)
        for m, arrived in enumerate(situation.rows_by_class):
            if not arrived:
                continue
            if carries:
                counts, carry[m] = largest_remainder_carry(len(arrived), shares[m], carry[m])
            else:
                counts = largest_remainder(len(arrived), shares[m])
            if len(arrived) in counts:  # all of them go to one site
                rows[counts.index(len(arrived))][m] = list(arrived)
                continue
            add = [of_site[m].append for of_site in rows]
            for k, i in zip(arrived, deal(counts), strict=True):
                add[i](k)
        if self._params.routing == "arrival":
            seen = situation.observation
            expected = [[[row[i] * x for row, x in zip(shares, of_class, strict=True)] for i in range(facts.n_sites)]
                        for of_class in (seen.arrivals, seen.arrivals_work_to)]
            return Placement(shares, rows, carry, (expected[0], expected[1]))
        sizes = situation.batch.get("work_to", ())
        totals = ([[len(r) for r in of_site] for of_site in rows],
                  [[sum(map(sizes.__getitem__, r)) for r in of_site] for of_site in rows])
        return Placement(shares, rows, carry, totals)

    def operate(self, situation: Situation, placement: Placement, operation: Operation
                ) -> tuple[ControlState, list[SiteCommand]]:
        """The state after this minute, and a command for each site. ModelError if a share or set point is not
        finite."""
        before, batch, time_s, p = situation.state, situation.batch, situation.observation.time_s, self._params
        release_s = [time_s] * len(batch.get("work_to", ()))
        owed, waiting, commands = [], [], []
        clipped, moved, guarded = before.clipped, before.moved, before.guarded
        for i, rows in enumerate(placement.rows):
            released = self.deferrals.release(i, operation.deferral_share[i], rows, batch, time_s,
                                              before.deferral_carry[i])
            for k, due_s in released.release_s:
                release_s[k] = due_s
            owed.append(released.owed)
            waiting.append([[job for job in old if job[0] > time_s] + new
                            for old, new in zip(before.waiting[i], released.waiting, strict=True)])
            guards = bool(self.guard_min) and _slack_min(situation.observation, i) < self.guard_min[i]
            clipped, moved, guarded = clipped + released.clipped, moved + released.moved, guarded + guards
            if guards or p.gpu_shares == "classes":
                share = self._guarded_share(i, situation.observation, placement) if guards else operation.gpu_share[i]
                granted = gpu_blocks(project_shares(share), self._facts.gpus[i], self._facts.gpus_per_block)
            else:
                granted = self._pooled(i, operation, situation, placement, released)
            gpus = self._with_replicas(i, situation.observation, self._with_spare(i, granted))
            commands.append(SiteCommand(_select(batch, release_s, rows), gpus, project_box(
                operation.supply_temp_degc[i], p.supply_temp_min_degc, p.supply_temp_max_degc),
                released.mean_deferral_s))
        arrived = self._arrived(batch, situation.rows_by_class) if p.routing == "arrival" else None
        return ControlState(placement.site_carry, owed, waiting, clipped, moved, guarded, arrived), commands

    # --- inside -------------------------------------------------------------------------------------------------

    @staticmethod
    def _arrived(batch: Batch, rows_by_class: list[list[int]]) -> tuple[list[int], list[float]]:
        """(M,) jobs of a batch, and their work, TO."""
        sizes = batch.get("work_to", ())
        return [len(rows) for rows in rows_by_class], [sum(map(sizes.__getitem__, rows)) for rows in rows_by_class]

    def _rows_by_class(self, batch: Batch) -> list[list[int]]:
        """class -> rows of the batch, in arrival order."""
        by_class: list[list[int]] = [[] for _ in self._facts.kinds]
        add = {name: by_class[m].append for name, m in self._class_index.items()}
        try:
            for k, name in enumerate(batch.get("job_class", ())):
                add[name](k)
        except KeyError as err:
            raise ModelError(f"{self._sid}: a job's {unknown('job class', err.args[0], self._facts.classes)}") from None
        return by_class

    def _per_class(self, sites: Sequence[Values], port: str) -> list[list[float]]:
        """(N, M) values; the port's default, where nothing is linked, for every class."""
        return [a[port] if isinstance(a[port], list) else [a[port]] * len(self._facts.kinds) for a in sites]

    def _guarded_share(self, i: int, observation: Observation, placement: Placement) -> list[float]:
        """(M,) shares of a site's GPUs by the rules' split, which leaves to training what inference does not need."""
        sent_jobs, sent_to = (total[i] for total in placement.totals)
        running, queued, pending = (x[i] for x in (observation.running_jobs, observation.queued_jobs,
                                                   observation.pending_work_to))
        return self._split(self._facts.gpus[i], running, list(map(sum, zip(running, queued, sent_jobs, strict=True))),
                           list(map(sum, zip(pending, sent_to, strict=True))), i)

    def _with_replicas(self, i: int, seen: Observation, gpus: list[float]) -> list[float]:
        """(M,) GPUs, of classes of language models by the autoscaler where there is one."""
        facts, autoscale = self._facts, self._params.autoscale
        if autoscale is None:
            return gpus
        wanted = {}
        for m, batch in self._batch.items():
            if facts.eligible[m][i]:
                requests = seen.running_jobs[i][m] + seen.queued_jobs[i][m]
                wanted[m] = facts.gpus_per_block[m] * replicas_wanted(requests, batch, autoscale.target_ratio,
                                                                      facts.least_blocks[i][m])
        return with_replicas(gpus, wanted, facts.gpus[i], facts.gpus_per_block, facts.train)

    def _pooled(self, i: int, operation: Operation, situation: Situation, placement: Placement,
                released: ReleaseSchedule) -> list[int]:
        """(M,) GPUs of a site whose classes use those of their kind together, by the work that can run now."""
        facts, seen = self._facts, situation.observation
        new_jobs, new_to = self._sent_now(i, operation, situation, placement, released)
        running, queued, pending = seen.running_jobs[i], seen.queued_jobs[i], seen.pending_work_to[i]
        return divide(facts, pool(facts, operation.gpu_share[i], facts.gpus[i]), running,
                      list(map(sum, zip(running, queued, new_jobs, strict=True))),
                      list(map(sum, zip(pending, new_to, strict=True))))

    def _sent_now(self, i: int, operation: Operation, situation: Situation, placement: Placement,
                  released: ReleaseSchedule) -> tuple[list[float], list[float]]:
        """(M,) jobs sent to a site that are not deferred, and their work, TO; as far as they are known: with
        routing = arrival, what is expected of them."""
        jobs, work_to = (list(total[i]) for total in placement.totals)
        first_s, now_s = self._facts.deferrals_s[0], situation.observation.time_s
        at_once = {k for k, due_s in released.release_s if due_s <= now_s}
        for t, m in enumerate(self._facts.train):
            if self._params.routing == "arrival":
                shares = project_simplex(operation.deferral_share[i][t], [True] * len(self._facts.deferrals_s))
                part = 0.0 if first_s else shares[0]
                jobs[m], work_to[m] = part * jobs[m], part * work_to[m]
            else:
                mine = [k for k in placement.rows[i][m] if k in at_once]
                jobs[m], work_to[m] = len(mine), sum([situation.batch["work_to"][k] for k in mine])
        return jobs, work_to

    def _with_spare(self, i: int, gpus: list[int]) -> list[float]:
        """(M,) GPUs of a site with what is spare."""
        capacity, blocks = self._facts.gpus[i], self._facts.gpus_per_block
        if takers := self._spare_to:
            sizes, spare = [blocks[m] for m in takers], capacity - sum(gpus)
            room = [spare // size * size for size in sizes]
            for m, more in zip(takers, share_blocks(spare, sizes, room, [1.0] * len(takers)), strict=True):
                gpus[m] += more
        return [float(g) for g in gpus]


def _slack_min(observation: Observation, i: int) -> float:
    """How long training at a site could stand still of its own accord: less what an announced event may hold it back,
    which is its rest, or its length where it is still to come."""
    slack_min, end_min = observation.slack_min[i], observation.event_end_min[i]
    return slack_min if math.isnan(end_min) else slack_min - (end_min - observation.event_start_min[i])


def known(intensities: list[float]) -> list[float] | None:
    """Intensities at the sites, or None where they are not known for all."""
    return None if any(map(math.isnan, intensities)) else intensities


def _forecast(value: Any) -> Sequence[float]:
    """A forecast over the horizon, or () where nothing is linked."""
    return value if isinstance(value, list) else ()


def _over_horizon(sites: Sequence[Values], port: str) -> Matrix:
    """(N, K) forecasts of the sites; () where one of them has none."""
    found = [a[port] for a in sites]
    return found if all(isinstance(value, list) for value in found) else ()


def _select(batch: Batch, release_s: list[float], rows: list[list[int]]) -> Batch:
    """The rows of one site, in arrival order, with their release times; {} if there are none."""
    mine = sorted([k for of_class in rows for k in of_class])
    if not mine:
        return {}
    if len(mine) == len(release_s):  # all of them
        return {**{name: list(column) for name, column in batch.items()}, "release_s": list(release_s)}
    of = itemgetter(*mine, mine[0])  # a tuple even of one row; its last place is left out
    chosen = {name: list(of(column)[:-1]) for name, column in batch.items()}
    chosen["release_s"] = list(of(release_s)[:-1])
    return chosen
