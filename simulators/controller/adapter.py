"""The agents on the bus: a workload manager that places jobs, and one agent per site that times and serves them.

A policy decides in ratios; here ratios become whole jobs, release times and GPUs (U22). Any object with the two
methods of `agents.decision.Policy` can take the place of `Controller.policy` before the first tick.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agents.allocation import (
    deal,
    gpu_blocks,
    largest_remainder,
    largest_remainder_carry,
    project_box,
    project_shares,
    project_simplex,
)
from agents.decision import FleetFacts, Observation
from agents.heuristics import POLICIES, PolicyOptions, make_policy
from cosim.adapter import Adapter, Values, serve
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch, Port
from cosim.resolve import load
from cosim.units import HOUR_S, Seconds
from simulators.fleet import JobClass, Site, may_run

Rows = list[list[list[int]]]
"""site -> class -> rows of the batch, ascending."""


def _ratio(value: Any) -> Any:
    """'1:2:7' as a list of numbers; everything else as it is."""
    return value.split(":") if isinstance(value, str) else value


@params(kw_only=True)
class ControllerParams:
    """Parameters of `Controller`."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1)]
    sites: Annotated[dict[str, Site], Field(min_length=1)]
    deferrals_s: Annotated[tuple[Seconds, ...], Field(min_length=1, description="Delta of training jobs, s (U15)")] = (
        tuple(h * HOUR_S for h in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)))
    policy: Annotated[str, Field(description="a rule's name, or package.module:Class of your own")] = "uniform"
    mode: Annotated[Literal["joint", "power"], Field(description="power: no carbon signal (B08, I22)")] = "joint"
    rounding: Annotated[Literal["carry", "stateless"], Field(description="largest remainder's memory (I13)")] = "carry"
    weights: Annotated[tuple[float, ...] | None, BeforeValidator(_ratio),
                       Field(description="of the sites, for policy static: 1:2:7 or a list")] = None
    drain_min: Annotated[float, Field(gt=0, description="inference queues are worked off in this time, min")] = 2.0
    fill_horizon_min: Annotated[
        float, Field(gt=0, description="unfinished work per GPU at which nci_priority calls a site full, min")] = 120.0
    supply_temp_degc: Annotated[float, Field(description="set point of the rule policies, degC")] = 23.0
    supply_temp_min_degc: Annotated[float, Field(description="lower end of (24)'s box, degC")] = 18.0
    supply_temp_max_degc: Annotated[float, Field(description="upper end of (24)'s box, degC")] = 23.0


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
            Port("p_kw", "in", "mean power of the last minute", sign="> 0 draws from the grid"),
            Port("queued_jobs", "in", "jobs waiting", dims=("job_class",)),
            Port("deferred_jobs", "in", "jobs not yet released", dims=("job_class",)),
            Port("running_jobs", "in", "jobs running", dims=("job_class",)),
            Port("pending_work_to", "in", "unfinished work of waiting and running jobs", dims=("job_class",)),
            Port("deferred_work_to", "in", "work of jobs not yet released", dims=("job_class",)),
            Port("free_gpu_ratio", "in", "share of idle GPUs in the last minute"),
            Port("jobs", "out", "jobs sent to the site, with release_s", kind="event", record=False),
            Port("gpus", "out", "GPUs granted to each class", dims=("job_class",)),
            Port("supply_temp_degc", "out", "supply air temperature set point"),
            Port("site_share", "out", "share of each class's arrivals meant for the site", dims=("job_class",)),
            Port("allocated_jobs", "out", "jobs sent to the site", dims=("job_class",)),
            Port("mean_deferral_s", "out", "mean deferral of the training jobs sent in this minute", nullable=True),
        ),
    }

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
        self._facts = facts = _facts(p, self.sid, self.step_s)
        self._train = facts.train
        self._any_lead = [True] * len(facts.deferrals_s)
        options = PolicyOptions(p.weights, p.drain_min, p.fill_horizon_min, p.supply_temp_degc)
        own = {p.policy: load(p.policy, f"{self.sid}.policy")} if ":" in p.policy else {}
        self.policy = make_policy(p.policy, facts, options, self.stream("policy"), p.mode == "joint", POLICIES | own)
        self.site_carry = [[0.0] * len(self._sites) for _ in self._classes]
        self.deferral_carry = [[[0.0] * len(facts.deferrals_s) for _ in self._train] for _ in self._sites]
        self._shapes_known = False

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
        batch = inputs[self._manager]["jobs"]
        by_class = self._rows_by_class(batch)
        observation = self._observe(time_s, inputs, batch, by_class)
        shares = [project_simplex(row, ok)
                  for row, ok in zip(self.policy.place(observation), self._facts.eligible, strict=True)]
        rows = self._place(shares, by_class)
        jobs = [[len(r) for r in of_site] for of_site in rows]
        sizes = batch.get("work_to", ())
        work_to = [[sum([sizes[k] for k in r]) for r in of_site] for of_site in rows]
        operation = self.policy.operate(observation, jobs, work_to)
        release_s = [time_s] * len(sizes)
        outputs: Values = {self._manager: {}}
        for i, site in enumerate(self._sites):
            outputs[site] = {
                "mean_deferral_s": self._defer(i, operation.deferral_share[i], rows[i], time_s, release_s),
                "jobs": _select(batch, release_s, rows[i]),
                "gpus": [float(g) for g in gpu_blocks(project_shares(operation.gpu_share[i]), self._facts.gpus[i],
                                                      self._facts.gpus_per_block)],
                "supply_temp_degc": project_box(operation.supply_temp_degc[i], self.params.supply_temp_min_degc,
                                                self.params.supply_temp_max_degc),
                "site_share": [row[i] for row in shares],
                "allocated_jobs": [float(n) for n in jobs[i]],
            }
        return outputs

    # --- inside -------------------------------------------------------------------------------------------------

    def _rows_by_class(self, batch: Batch) -> list[list[int]]:
        """class -> rows of the batch, in arrival order."""
        names = batch.get("job_class", ())
        by_class = [[k for k, name in enumerate(names) if name == wanted] for wanted in self._classes]
        if sum(map(len, by_class)) != len(names):
            stranger = next(name for name in names if name not in self._classes)
            raise ModelError(f"{self.sid}: a job's {unknown('job class', stranger, self._classes)}")
        return by_class

    def _observe(self, time_s: float, inputs: Values, batch: Batch, by_class: list[list[int]]) -> Observation:
        manager, agents = inputs[self._manager], [inputs[site] for site in self._sites]
        forecast = manager["forecast_usd_per_kwh"]
        if isinstance(forecast, float):  # nobody is linked: the port's default, for every lead
            forecast = [forecast] * len(self._facts.deferrals_s)
        if not self._shapes_known:
            self._check_shapes(agents, forecast)
        sizes = batch.get("work_to", ())
        return Observation(
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
            free_gpu_ratio=[a["free_gpu_ratio"] for a in agents],
            site_carry=list(self.site_carry),
            deferral_carry=[list(rows) for rows in self.deferral_carry],
        )

    def _check_shapes(self, agents: list[dict[str, Any]], forecast: list[float]) -> None:
        """What is linked here was made for the same classes and leads. ModelError if not."""
        vectors = [(site, port.name, agent[port.name], len(self._classes))
                   for site, agent in zip(self._sites, agents, strict=True)
                   for port in self.MODELS["Agent"] if port.flow == "in" and port.dims]
        vectors.append((self._manager, "forecast_usd_per_kwh", forecast, len(self._facts.deferrals_s)))
        for eid, port, value, length in vectors:
            if len(value) != length:
                raise ModelError(f"{self.sid}.{eid}.{port} has {len(value)} values, {length} are expected; job classes "
                                 "and deferrals must be the same in all members")
        self._shapes_known = True

    def _place(self, shares: list[list[float]], by_class: list[list[int]]) -> Rows:
        """Whole jobs per site and class: U09, then dealt in arrival order."""
        rows: Rows = [[[] for _ in self._classes] for _ in self._sites]
        for m, arrived in enumerate(by_class):
            if not arrived:
                continue
            if self.params.rounding == "carry":
                counts, self.site_carry[m] = largest_remainder_carry(len(arrived), shares[m], self.site_carry[m])
            else:
                counts = largest_remainder(len(arrived), shares[m])
            for k, i in zip(arrived, deal(counts), strict=True):
                rows[i][m].append(k)
        return rows

    def _defer(self, i: int, shares: Any, rows: list[list[int]], time_s: float, release_s: list[float]) -> float:
        """Write the release times of a site's training jobs (U10), earlier arrivals first; their mean deferral, s."""
        total_s, number = 0.0, 0
        for t, m in enumerate(self._train):
            jobs = rows[m]
            if not jobs:
                continue
            share = project_simplex(shares[t], self._any_lead)
            if self.params.rounding == "carry":
                counts, self.deferral_carry[i][t] = largest_remainder_carry(len(jobs), share, self.deferral_carry[i][t])
            else:
                counts = largest_remainder(len(jobs), share)
            leads = [lead for lead, n in zip(self._facts.deferrals_s, counts, strict=True) for _ in range(n)]
            for k, lead in zip(jobs, leads, strict=True):
                release_s[k] = time_s + lead
            total_s += math.fsum(leads)
            number += len(jobs)
        return total_s / number if number else math.nan


def _select(batch: Batch, release_s: list[float], rows: list[list[int]]) -> Batch:
    """The rows of one site, in arrival order, with their release times; {} if there are none."""
    mine = sorted([k for of_class in rows for k in of_class])
    if not mine:
        return {}
    chosen = {name: [column[k] for k in mine] for name, column in batch.items()}
    chosen["release_s"] = [release_s[k] for k in mine]
    return chosen


def _facts(p: ControllerParams, sid: str, step_s: float) -> FleetFacts:
    """What a policy is told; ScenarioError for deferrals, eligible sites or a temperature box that cannot be."""
    leads, classes = p.deferrals_s, p.job_classes.values()
    if leads[0] < 0 or any(b <= a for a, b in zip(leads, leads[1:], strict=False)):
        raise ScenarioError(f"{sid}.deferrals_s = {list(leads)} must ascend from 0 or more")
    for name, job_class in p.job_classes.items():
        if job_class.kind == "train" and leads[-1] > job_class.deadline_s:
            raise ScenarioError(f"{sid}.deferrals_s reaches {leads[-1]:g} s, past the deadline of {name} "
                                f"({job_class.deadline_s:g} s after arrival); leave the longest out")
        strangers = sorted(set(job_class.eligible_sites or ()) - set(p.sites))
        if strangers:
            raise ScenarioError(f"job_classes.{name}.eligible_sites: {unknown('site', strangers[0], p.sites)}")
        if job_class.eligible_sites == ():
            raise ScenarioError(f"job_classes.{name}.eligible_sites is empty; name a site, or leave it out for all")
    odd = [lead for lead in leads if abs(lead / step_s - round(lead / step_s)) > 1e-9]
    if odd:
        raise ScenarioError(f"{sid}.deferrals_s holds {odd[0]:g} s, which is no whole number of steps ({step_s:g} s)")
    low, high = p.supply_temp_min_degc, p.supply_temp_max_degc
    if not low <= p.supply_temp_degc <= high:
        raise ScenarioError(f"{sid}.supply_temp_degc = {p.supply_temp_degc:g} must lie in its box, {low:g} to {high:g}")
    return FleetFacts(
        kinds=tuple(c.kind for c in classes),
        gpus=tuple(s.gpus for s in p.sites.values()),
        to_per_gpu_min=tuple(c.to_per_gpu_min for c in classes),
        work_to=tuple(c.work_to for c in classes),
        deadline_s=tuple(c.deadline_s for c in classes),
        gpus_per_block=tuple(c.gpus_per_block for c in classes),
        max_blocks=tuple(c.max_blocks for c in classes),
        eligible=tuple(tuple(may_run(c, site) for site in p.sites) for c in classes),
        deferrals_s=leads,
        supply_temp_low_degc=low,
        supply_temp_high_degc=high,
    )


if __name__ == "__main__":
    serve(Controller)
