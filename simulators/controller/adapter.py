"""The agents on the bus: a workload manager that places jobs, and one agent per site that times and serves them.

A policy decides in ratios; here ratios become whole jobs, release times and GPUs. Any object with the two
methods of `cosim.agents.fleet.decision.Policy` can take the place of `Controller.policy` before the first tick.

Rows: A06, A07, B08, I13, I22, M13, U09, U14, U22.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cosim.adapter import Adapter, Meta, Values, serve
from cosim.agents.fleet.decision import FleetFacts, Policy
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.ports import Port
from cosim.simulators.controller.params import (
    ControllerParams,
    batch_limits,
    check_forecasts,
    check_mode,
    check_policy,
    facts_of,
    policy_of,
)
from cosim.simulators.controller.pipeline import ControlPipeline, ControlState, Situation
from cosim.simulators.forecast.horizon import HORIZON
from cosim.units import HOUR_S, format_time, whole_steps

MAX_BATCH = Port("max_batch", "out", "sequences in a replica's batch at most; NaN: as the class says",
                 dims=("job_class",), nullable=True)


class Controller(Adapter):
    """Once a minute: what arrived, prices, intensities and the sites' states in; jobs, GPUs and set points out.

    `pipeline` decides, and `state` is all that one decision leaves to the next.
    """

    PARAMS = ControllerParams
    MODELS = {
        "Manager": (
            Port("jobs", "in", "jobs that arrived in the last minute; with routing = arrival, that will in this one",
                 kind="event", reduce="sum"),
            Port("price_usd_per_kwh", "in", "electricity price", default=0.0),
            Port("forecast_usd_per_kwh", "in", "price at now + deferral", dims=("lead",), default=0.0),
            Port("price_forecast_usd_per_kwh", "in", "price over the horizon", dims=(HORIZON,), default=math.nan),
            Port("p_load_forecast_kw", "in", "base load of the feeder over the horizon",
                 sign="> 0 is drawn from the grid", dims=(HORIZON,), default=math.nan),
            Port("renewable_forecast_kw", "in", "what all renewable plants can give over the horizon",
                 sign="> 0 feeds the network", dims=(HORIZON,), default=math.nan),
        ),
        "Agent": (
            Port("nci_kg_per_kwh", "in", "nodal carbon intensity at the site", default=0.0),
            Port("mci_kg_per_kwh", "in", "marginal carbon intensity at the site", default=math.nan, nullable=True),
            Port("nci_forecast_kg_per_kwh", "in", "nodal carbon intensity at the site over the horizon",
                 dims=(HORIZON,), default=math.nan),
            Port("mci_forecast_kg_per_kwh", "in", "marginal carbon intensity at the site over the horizon",
                 dims=(HORIZON,), default=math.nan, nullable=True),
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
            Port("event_start_min", "in", "time until the announced demand-response event starts, 0 while it lasts; "
                 "NaN: none", default=math.nan, nullable=True),
            Port("event_end_min", "in", "time until that event is over; NaN: none", default=math.nan, nullable=True),
            Port("event_cap_kw", "in", "cap of that event; NaN: none", sign=">= 0", default=math.nan, nullable=True),
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
        for name, other in members.items():
            if getattr(other, "routing", given.routing) != given.routing:
                raise ScenarioError(f"{member}.routing = {given.routing} and {name}.routing = {other.routing}; they "
                                    f"must be the same: --set {name}.routing={given.routing}, and so for all that "
                                    "have it")

    @classmethod
    def check_scenario(cls, member: str, given: ControllerParams, scenario: Any) -> None:
        """ScenarioError for forecasts to be observed that are not there, and rules on replicas that cannot be."""
        batch_limits(given, member)
        check_forecasts(member, given, scenario, scenario.members[member].step_s)

    def init(self, sid: str, time_resolution: float = 1.0, **given: Any) -> Meta:
        """Validate the parameters; agents have the port `max_batch` where batches are commanded."""
        super().init(sid, time_resolution, **given)
        limits = batch_limits(self.params, sid)
        self._batches = [float(limits.get(name, math.nan)) for name in self.params.job_classes] if limits else []
        if limits:
            self.adopt({**self.MODELS, "Agent": (*self.MODELS["Agent"], MAX_BATCH)})
        return self.meta

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
        odd = [lead for lead in facts.deferrals_s if whole_steps(lead, self.step_s) is None]
        if odd:
            raise ScenarioError(f"{self.sid}.deferrals_s holds {odd[0]:g} s, which is no whole number of steps "
                                f"({self.step_s:g} s)")
        self.policy: Policy = policy_of(p, facts, self.step_s, self.stream("policy"))
        self.pipeline = ControlPipeline(p, facts, self.step_s, self.sid)
        self.state: ControlState = self.pipeline.initial()
        self._now_s = 0.0
        self._shapes_known = False

    @classmethod
    def check_horizon(cls, member: str, given: ControllerParams, step_s: float, until_s: float) -> None:
        """Refuse, before a run starts, a policy that does not exist or does not fit, and deferrals that cannot be."""
        check_policy(given, member, step_s)

    @property
    def facts(self) -> FleetFacts:
        """Facts about the fleet that the policy was constructed with."""
        return self._facts

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes; leads in hours."""
        return {"job_class": list(self.params.job_classes),
                "lead": [f"{lead / HOUR_S:g}h" for lead in self.params.deferrals_s]}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """One decision: place the jobs, then operate the sites, given that placement."""
        situation = self.observe(time_s, inputs)
        placement = self.pipeline.place(situation, self.policy.place(situation.observation))
        operation = self.policy.operate(situation.observation, *placement.totals)
        self.state, commands = self.pipeline.operate(situation, placement, operation)
        self._now_s = time_s
        outputs: Values = {self._manager: {}}
        for i, (site, command) in enumerate(zip(self._sites, commands, strict=True)):
            outputs[site] = {
                "mean_deferral_s": command.mean_deferral_s,
                "jobs": command.jobs,
                "gpus": command.gpus,
                "supply_temp_degc": command.supply_temp_degc,
                "site_share": [row[i] for row in placement.shares],
                "allocated_jobs": [float(len(rows)) for rows in placement.rows[i]],
                **({"max_batch": self._batches} if self._batches else {}),
            }
        return outputs

    def carry(self) -> dict[str, np.ndarray]:
        """Remainders of rounding at the end of a day, and (jobs, 4) of the jobs still to be released: site, training
        class, time from then to the release, s, and deferral."""
        end_s = self._now_s + self.step_s
        rows = [(i, t, release_s - end_s, lead) for i, of_site in enumerate(self.state.waiting)
                for t, jobs in enumerate(of_site) for release_s, lead in jobs]
        arrived = dict(zip(("arrived_jobs", "arrived_to"), map(np.array, self.state.arrived), strict=True)
                       ) if self.state.arrived else {}
        return {**self._owed(), "deferred": np.array(rows, float).reshape(-1, 4), **arrived}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Owe what was owed. ModelError if it is for another fleet."""
        for name, array in self._owed().items():
            if name not in carry or carry[name].shape != array.shape:
                raise ModelError(f"{self.sid}: {name} to go on from must have shape {array.shape}; use that of a world "
                                 "with the same classes, sites and deferrals")
        waiting = self.pipeline.initial().waiting
        for i, t, release_s, lead in carry.get("deferred", np.empty((0, 4))).tolist():
            waiting[int(i)][int(t)].append((release_s, int(lead)))
        arrived = (carry["arrived_jobs"].tolist(), carry["arrived_to"].tolist()) if "arrived_jobs" in carry else None
        self.state = ControlState(carry["site_carry"].tolist(), carry["deferral_carry"].tolist(), waiting,
                                  arrived=arrived)

    def observe(self, time_s: float, inputs: Values) -> Situation:
        """What is known at `time_s`, from the values of all in ports; changes nothing. ModelError for values of other
        classes or leads."""
        agents = [inputs[site] for site in self._sites]
        if not self._shapes_known:
            self._check_shapes(inputs[self._manager], agents)
        return self.pipeline.observe(self.state, time_s, inputs[self._manager], agents)

    def notes(self) -> list[str]:
        """Which checkpoint decided, where one did, and how often training had to be guarded."""
        about = getattr(getattr(self, "policy", None), "about", None)
        said = [f"{self.sid}: policy {about}"] if about else []
        if not hasattr(self, "state"):
            return said
        if self.state.guarded:
            limits = " to ".join(f"{x:g}" for x in sorted({min(self.pipeline.guard_min), max(self.pipeline.guard_min)}))
            said.append(f"{self.sid}: for {format_time(self.state.guarded * self.step_s)}, all sites together, "
                        f"training had less than guard_slack_min = {limits} min to spare and got the GPUs that "
                        "inference left, whatever the policy said")
        return said + self.pipeline.deferrals.notes(self.sid, self.state.clipped, self.state.moved)

    # --- inside -------------------------------------------------------------------------------------------------

    def _owed(self) -> dict[str, np.ndarray]:
        return {"site_carry": np.array(self.state.site_carry),
                "deferral_carry": np.array(self.state.deferral_carry)}

    def _check_shapes(self, manager: dict[str, Any], agents: list[dict[str, Any]]) -> None:
        """What is linked here was made for the same classes, leads and horizon. ModelError if not."""
        expected = {"job_class": len(self._classes), "lead": len(self._facts.deferrals_s),
                    HORIZON: self._facts.horizon_steps + 1}
        for eid, given in ((self._manager, manager), *zip(self._sites, agents, strict=True)):
            for port in self.MODELS["Manager" if given is manager else "Agent"]:
                value = given[port.name] if port.flow == "in" and port.dims else None
                if isinstance(value, list) and len(value) != (length := expected[port.dims[0]]):
                    what = ("horizon_s and horizon_step_s" if port.dims == (HORIZON,) else "job classes and deferrals")
                    raise ModelError(f"{self.sid}.{eid}.{port.name} has {len(value)} values, {length} are expected; "
                                     f"{what} must be the same in all members")
        self._shapes_known = True


if __name__ == "__main__":
    serve(Controller)
