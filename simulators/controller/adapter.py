"""The agents on the bus: a workload manager that places jobs, and one agent per site that times and serves them.

A policy decides in ratios; here ratios become whole jobs, release times and GPUs (U22). Any object with the two
methods of `cosim.agents.fleet.decision.Policy` can take the place of `Controller.policy` before the first tick.

Rows of the model: A06, A07, B08, I13, I22, M13, U09, U14, U22.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from cosim.agents.fleet.allocation import (
    deal,
    gpu_blocks,
    largest_remainder,
    largest_remainder_carry,
    project_box,
    project_shares,
    project_simplex,
)
from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Policy
from cosim.agents.fleet.heuristics import GpuRule
from cosim.simulators.controller.deferral import Deferrals
from cosim.simulators.controller.params import (
    ControllerParams,
    check_mode,
    check_policy,
    facts_of,
    guard_min,
    policy_of,
)

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.ports import Batch, Port
from cosim.units import HOUR_S, format_time

Rows = list[list[list[int]]]
"""site -> class -> rows of the batch, ascending."""
Totals = tuple[list[list[int]], list[list[float]]]
"""Jobs and their work, TO, per site and class."""
Placed = tuple[list[list[float]], Rows, list[list[float]], Totals]
"""What `Controller._place` gives."""


class Controller(Adapter):
    """Once a minute: what arrived, prices, intensities and the sites' states in; jobs, GPUs and set points out.

    `site_carry` (M, N) and `deferral_carry` (N, Mtrain, H) are what rounding still owes; they are zero at the start
    and part of the run's state (decision 10).
    """

    PARAMS = ControllerParams
    MODELS = {
        "Manager": (
            Port("jobs", "in", "jobs that arrived in the last minute", kind="event", reduce="sum"),
            Port("price_usd_per_kwh", "in", "electricity price", default=0.0),
            Port("forecast_usd_per_kwh", "in", "price at now + deferral", dims=("lead",), default=0.0),
        ),
        "Agent": (
            Port("nci_kg_per_kwh", "in", "nodal carbon intensity at the site", default=0.0),
            Port("mci_kg_per_kwh", "in", "marginal carbon intensity at the site", default=math.nan, nullable=True),
            Port("p_kw", "in", "mean power of the last minute", sign="> 0 draws from the grid"),
            Port("queued_jobs", "in", "jobs waiting", dims=("job_class",)),
            Port("deferred_jobs", "in", "jobs not yet released", dims=("job_class",)),
            Port("running_jobs", "in", "jobs running", dims=("job_class",)),
            Port("pending_work_to", "in", "unfinished work of waiting and running jobs", dims=("job_class",)),
            Port("deferred_work_to", "in", "work of jobs not yet released", dims=("job_class",)),
            Port("late_jobs", "in", "training jobs that miss their deadline anyway", dims=("job_class",), default=0.0),
            Port("urgent_jobs", "in", "training jobs that can wait for less than an hour", dims=("job_class",),
                 default=0.0),
            Port("slack_min", "in", "time that training could stand still and meet its deadlines", default=1440.0),
            Port("free_gpu_ratio", "in", "share of idle GPUs in the last minute"),
            Port("jobs", "out", "jobs sent to the site, with release_s", kind="event", record=False),
            Port("gpus", "out", "GPUs granted to each class", dims=("job_class",)),
            Port("supply_temp_degc", "out", "supply air temperature set point"),
            Port("site_share", "out", "share of each class's arrivals meant for the site", dims=("job_class",)),
            Port("allocated_jobs", "out", "jobs sent to the site", dims=("job_class",)),
            Port("mean_deferral_s", "out", "mean deferral of the training jobs sent in this minute", nullable=True),
        ),
    }

    @classmethod
    def check_members(cls, member: str, given: ControllerParams, members: Mapping[str, Any]) -> None:
        """ScenarioError where other members' parameters do not go with the mode."""
        check_mode(member, given, members)

    def setup(self) -> None:
        """Check names, deferrals and eligibility; build the policy. ScenarioError when they do not fit."""
        p = self.params
        if len(self.entities["Manager"]) != 1:
            raise ScenarioError(f"{self.sid} has one workload manager; create one entity of Manager, not "
                                f"{len(self.entities['Manager'])}")
        for name in self.entities["Agent"]:
            if name not in p.sites:
                raise ScenarioError(f"{self.sid}: an agent is named like its site; {unknown('site', name, p.sites)}")
        without = sorted(set(p.sites) - set(self.entities["Agent"]))
        if without:
            raise ScenarioError(f"{self.sid}: no agent for site {', '.join(without)}; create one entity of Agent each")
        self._manager, self._sites, self._classes = self.entities["Manager"][0], list(p.sites), list(p.job_classes)
        self._facts = facts = facts_of(p, self.sid, self.step_s)
        odd = [lead for lead in facts.deferrals_s if abs(lead / self.step_s - round(lead / self.step_s)) > 1e-9]
        if odd:
            raise ScenarioError(f"{self.sid}.deferrals_s holds {odd[0]:g} s, which is no whole number of steps "
                                f"({self.step_s:g} s)")
        self.policy: Policy = policy_of(p, facts, self.stream("policy"))
        self._split, self._guarded_ticks = GpuRule(facts, p.drain_min), 0
        self._guard_min = guard_min(p, facts, self.step_s)
        self._deferrals = Deferrals(facts, p.long_deferrals, p.rounding, self.step_s)
        self._class_index = {name: m for m, name in enumerate(self._classes)}
        self._batch: Batch = {}
        self._by_class: list[list[int]] = []
        self._observed: tuple[float, Batch, Observation] | None = None
        self._placed: tuple[list[list[float]], Placed] | None = None
        self.site_carry = [[0.0] * len(self._sites) for _ in self._classes]
        self._now_s = 0.0
        self._shapes_known = False
        self._heard: Values | None = None

    @classmethod
    def check_horizon(cls, member: str, given: ControllerParams, step_s: float, until_s: float) -> None:
        """A policy that does not exist or does not fit, and deferrals that cannot be, end a run before anything has
        started or been said."""
        check_policy(given, member, step_s)

    @property
    def deferral_carry(self) -> list[list[list[float]]]:
        """(N, Mtrain, H) what rounding owes the release times."""
        return self._deferrals.owed

    @property
    def facts(self) -> FleetFacts:
        """What the policy was told of the fleet."""
        return self._facts

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes; leads in hours."""
        return {"job_class": list(self.params.job_classes),
                "lead": [f"{lead / HOUR_S:g}h" for lead in self.params.deferrals_s]}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """One decision: place the jobs, then operate the sites that know what they were given."""
        observation = self.observe(time_s, inputs)
        batch = self._batch
        shares, rows, self.site_carry, (jobs, work_to) = self._place(self.policy.place(observation))
        self._observed = self._placed = None
        operation = self.policy.operate(observation, jobs, work_to)
        release_s = [time_s] * len(batch.get("work_to", ()))
        outputs: Values = {self._manager: {}}
        for i, site in enumerate(self._sites):
            outputs[site] = {
                "mean_deferral_s": self._deferrals.release(i, operation.deferral_share[i], rows[i], batch, time_s,
                                                           release_s),
                "jobs": _select(batch, release_s, rows[i]),
                "gpus": self._gpus(i, operation.gpu_share[i], observation, jobs[i], work_to[i]),
                "supply_temp_degc": project_box(operation.supply_temp_degc[i], self.params.supply_temp_min_degc,
                                                self.params.supply_temp_max_degc),
                "site_share": [row[i] for row in shares],
                "allocated_jobs": [float(n) for n in jobs[i]],
            }
        return outputs

    def carry(self) -> dict[str, np.ndarray]:
        """What rounding owes at the end of a day."""
        return {**self._owed(), "deferred": self._deferrals.carry(self._now_s + self.step_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Owe what was owed. ModelError if it is for another fleet."""
        for name, array in self._owed().items():
            if name not in carry or carry[name].shape != array.shape:
                raise ModelError(f"{self.sid}: {name} to go on from must have shape {array.shape}; use that of a world "
                                 "with the same classes, sites and deferrals")
        self.site_carry = carry["site_carry"].tolist()
        self._deferrals.resume(carry)

    def preview(self, site_share: Matrix) -> tuple[list[list[int]], list[list[float]]]:
        """(jobs, work in TO), both (N, M), that `advance` would send for these shares in the minute observed last
        (decision 10); changes nothing."""
        return self._place(site_share)[3]

    def hear(self, inputs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Values:
        """What the next step will `read`, read before it: `inputs` are those that it gets from the bus."""
        self._heard = None
        self._heard = self.read(inputs)
        return self._heard

    def read(self, inputs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Values:
        """As of every adapter; what `hear` read is not read again."""
        heard, self._heard = self._heard, None
        return super().read(inputs) if heard is None else heard

    def observe(self, time_s: float, inputs: Values) -> Observation:
        """What the policy sees of `inputs`, before any action; changes nothing that a decision depends on."""
        manager, agents = inputs[self._manager], [inputs[site] for site in self._sites]
        batch = manager["jobs"]
        if self._observed and self._observed[0] == time_s and self._observed[1] is batch:
            return self._observed[2]  # looked at before this step
        self._batch, self._placed = batch, None
        self._by_class = by_class = self._rows_by_class(batch)
        forecast = manager["forecast_usd_per_kwh"]
        if isinstance(forecast, float):  # nobody is linked: the port's default, for every lead
            forecast = [forecast] * len(self._facts.deferrals_s)
        if not self._shapes_known:
            self._check_shapes(agents, forecast)
        self._now_s = time_s
        by_lead, by_time = self._deferrals.waiting(time_s)
        sizes = batch.get("work_to", ())
        observation = Observation(
            time_s=time_s,
            price_usd_per_kwh=manager["price_usd_per_kwh"],
            forecast_usd_per_kwh=forecast,
            nci_kg_per_kwh=[a["nci_kg_per_kwh"] for a in agents] if self.params.mode == "joint" else None,
            power_kw=[a["p_kw"] for a in agents],
            arrivals=[len(rows) for rows in by_class],
            arrivals_work_to=[sum([sizes[k] for k in rows]) for rows in by_class],
            queued_jobs=[a["queued_jobs"] for a in agents],
            deferred_jobs=[a["deferred_jobs"] for a in agents],
            running_jobs=[a["running_jobs"] for a in agents],
            pending_work_to=[a["pending_work_to"] for a in agents],
            deferred_work_to=[a["deferred_work_to"] for a in agents],
            late_jobs=self._per_class(agents, "late_jobs"),
            urgent_jobs=self._per_class(agents, "urgent_jobs"),
            slack_min=[a["slack_min"] for a in agents],
            free_gpu_ratio=[a["free_gpu_ratio"] for a in agents],
            site_carry=list(self.site_carry),
            deferral_carry=[list(rows) for rows in self.deferral_carry],
            mci_kg_per_kwh=self._mci(agents),
            deferred_by_lead=by_lead,
            deferred_by_time=by_time,
        )
        self._observed = (time_s, batch, observation)
        return observation

    def notes(self) -> list[str]:
        """Which checkpoint decided, where one did, and how often training had to be guarded."""
        about = getattr(getattr(self, "policy", None), "about", None)
        said = [f"{self.sid}: policy {about}"] if about else []
        if getattr(self, "_guarded_ticks", 0):
            limits = " to ".join(f"{x:g}" for x in sorted({min(self._guard_min), max(self._guard_min)}))
            said.append(f"{self.sid}: for {format_time(self._guarded_ticks * self.step_s)}, all sites together, "
                        f"training had less than guard_slack_min = {limits} min to spare and got the GPUs that "
                        "inference left, whatever the policy said")
        return said + (self._deferrals.notes(self.sid) if hasattr(self, "_deferrals") else [])

    # --- inside -------------------------------------------------------------------------------------------------

    def _rows_by_class(self, batch: Batch) -> list[list[int]]:
        """class -> rows of the batch, in arrival order."""
        by_class: list[list[int]] = [[] for _ in self._classes]
        index = self._class_index
        try:
            for k, name in enumerate(batch.get("job_class", ())):
                by_class[index[name]].append(k)
        except KeyError as err:
            raise ModelError(f"{self.sid}: a job's {unknown('job class', err.args[0], self._classes)}") from None
        return by_class

    def _mci(self, agents: list[dict[str, Any]]) -> list[float] | None:
        return None if self.params.mode == "power" else known([a["mci_kg_per_kwh"] for a in agents])

    def _owed(self) -> dict[str, np.ndarray]:
        return {"site_carry": np.array(self.site_carry), "deferral_carry": np.array(self.deferral_carry)}

    def _per_class(self, agents: list[dict[str, Any]], port: str) -> list[list[float]]:
        """(N, M) values; the port's default, where nobody is linked, for every class."""
        return [a[port] if isinstance(a[port], list) else [a[port]] * len(self._classes) for a in agents]

    def _totals(self, rows: Rows) -> Totals:
        """Jobs and their work, TO, per site and class."""
        sizes = self._batch.get("work_to", ())
        return ([[len(r) for r in of_site] for of_site in rows],
                [[sum([sizes[k] for k in r]) for r in of_site] for of_site in rows])

    def _check_shapes(self, agents: list[dict[str, Any]], forecast: list[float]) -> None:
        """What is linked here was made for the same classes and leads. ModelError if not."""
        vectors = [(site, port.name, agent[port.name], len(self._classes))
                   for site, agent in zip(self._sites, agents, strict=True)
                   for port in self.MODELS["Agent"]
                   if port.flow == "in" and port.dims and isinstance(agent[port.name], list)]
        vectors.append((self._manager, "forecast_usd_per_kwh", forecast, len(self._facts.deferrals_s)))
        for eid, port, value, length in vectors:
            if len(value) != length:
                raise ModelError(f"{self.sid}.{eid}.{port} has {len(value)} values, {length} are expected; job classes "
                                 "and deferrals must be the same in all members")
        self._shapes_known = True

    def _place(self, site_share: Matrix) -> Placed:
        """Shares on the simplex; whole jobs per site and class, U09, dealt in arrival order; what rounding owes after
        them; their totals."""
        asked = [list(row) for row in site_share]
        if self._placed and self._placed[0] == asked:
            return self._placed[1]  # asked for by `preview`
        shares = [project_simplex(row, ok) for row, ok in zip(asked, self._facts.eligible, strict=True)]
        rows: Rows = [[[] for _ in self._classes] for _ in self._sites]
        carry = list(self.site_carry)
        for m, arrived in enumerate(self._by_class):
            if not arrived:
                continue
            if self.params.rounding == "carry":
                counts, carry[m] = largest_remainder_carry(len(arrived), shares[m], carry[m])
            else:
                counts = largest_remainder(len(arrived), shares[m])
            mine = [of_site[m] for of_site in rows]
            for k, i in zip(arrived, deal(counts), strict=True):
                mine[i].append(k)
        placed = shares, rows, carry, self._totals(rows)
        self._placed = (asked, placed)
        return placed

    def _gpus(self, i: int, share: Any, observation: Observation, jobs: Sequence[int], work_to: Sequence[float]
              ) -> list[float]:
        """GPUs per class of a site: as the policy says, or by the rules' split while deadlines are close.

        jobs, work_to: (M,) what the site is sent in this minute
        """
        facts = self._facts
        if self._guard_min and observation.slack_min[i] < self._guard_min[i]:
            self._guarded_ticks += 1
            running, queued, pending = (x[i] for x in (observation.running_jobs, observation.queued_jobs,
                                                       observation.pending_work_to))
            share = self._split(facts.gpus[i], running, list(map(sum, zip(running, queued, jobs, strict=True))),
                                list(map(sum, zip(pending, work_to, strict=True))))
        return [float(g) for g in gpu_blocks(project_shares(share), facts.gpus[i], facts.gpus_per_block)]


def known(intensities: list[float]) -> list[float] | None:
    """Intensities at the sites, or None where nobody computes them for all."""
    return None if any(map(math.isnan, intensities)) else intensities


def _select(batch: Batch, release_s: list[float], rows: list[list[int]]) -> Batch:
    """The rows of one site, in arrival order, with their release times; {} if there are none."""
    mine = sorted([k for of_class in rows for k in of_class])
    if not mine:
        return {}
    of = itemgetter(*mine, mine[0])  # a tuple even of one row; its last place is left out
    chosen = {name: list(of(column)[:-1]) for name, column in batch.items()}
    chosen["release_s"] = list(of(release_s)[:-1])
    return chosen


if __name__ == "__main__":
    serve(Controller)
