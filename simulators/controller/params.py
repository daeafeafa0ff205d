"""Parameters of a controller, the facts about the fleet for a policy, and construction of the policy.

Everything that can be refused without starting is refused when the parameters are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from cosim.agents.fleet.autoscaling import Autoscale
from cosim.agents.fleet.base import BaseRule
from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Policy
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.learned import LearnedPolicy, check_checkpoint
from cosim.agents.fleet.observation_row import FORECASTS, OF_SITES, ObservedForecast, forecast_entries
from cosim.agents.fleet.planner_params import PlannerParams
from cosim.agents.fleet.policies import POLICIES, PolicyMaker, check_own, checkpoint_of, make_policy, policy_class
from cosim.agents.fleet.pooling import GpuShares
from cosim.agents.fleet.rewards import RewardWeights
from cosim.errors import ScenarioError, unknown
from cosim.imports import file_in, load, optional
from cosim.params import params
from cosim.simulators.aidc.engine.slack import MOST_S
from cosim.simulators.aidc.equations import aidc_power_kw, cooling_power_kw, distribution_loss_kw, it_at_inlet_kw
from cosim.simulators.aidc.plant.cooling import BALANCED, CoolingChoice
from cosim.simulators.controller.deferral import LongDeferrals, permitted
from cosim.simulators.fleet import JobClass, Routing, Site, may_run
from cosim.simulators.forecast.horizon import horizon_steps
from cosim.units import HOUR_S, MIN_S, Seconds


def _ratio(value: Any) -> Any:
    """'1:2:7' as a list of numbers; everything else as it is."""
    return value.split(":") if isinstance(value, str) else value


def _guard(value: Any) -> Any:
    """Minutes as a number; ValueError beyond the slack of a site without training, where all sites always have less."""
    if value is None or value == "auto":
        return value
    try:
        minutes = float(value)
    except (TypeError, ValueError):
        minutes = math.nan
    if not 0.0 <= minutes <= MOST_S / MIN_S:
        raise ValueError(f"must be auto, null, or 0 to {MOST_S / MIN_S:g} min, the most that slack_min can be")
    return minutes


@params(kw_only=True)
class ControllerParams:
    """Parameters of `Controller`."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1)]
    sites: Annotated[dict[str, Site], Field(min_length=1)]
    deferrals_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100,
                                                       description="Delta of training jobs, s")] = (
        tuple(h * HOUR_S for h in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)))
    policy: Annotated[str, Field(description="a rule's name, a checkpoint (.safetensors, or the name of one that "
                                 "ships), or package.module:Class of your own")] = "uniform"
    explore: Annotated[bool, Field(description="a checkpoint draws its actions as in training, instead of taking the "
                                   "most likely ones")] = False
    mode: Annotated[Literal["joint", "power"], Field(
        description="power: carbon is neither seen nor counted in the reward, and no dispatch may weigh it: "
        "set grid.lambda_kw_per_kg_h=0, too")] = "joint"
    routing: Routing = "handover"
    rounding: Annotated[Literal["carry", "stateless"], Field(description="largest remainder's memory")] = "carry"
    weights: Annotated[tuple[float, ...] | None, BeforeValidator(_ratio),
                       Field(description="of the sites, for policy static: 1:2:7 or a list")] = None
    spare_gpus: Annotated[Literal["idle", "inference"], Field(
        description="GPUs that a decision grants to nobody. idle: without work until the next one, as in the study; "
        "inference: inference classes get them in equal parts, so that a request finds a free GPU when it comes; not "
        "language models, whose replicas would draw power for nothing")] = "idle"
    gpu_shares: Annotated[GpuShares, Field(
        description="what shares of a site's GPUs are of, and who uses them. classes: of classes, each for itself; "
        "pooled: of classes as well, and those of a kind (train, inf) use theirs together, as in (14); kinds: learned "
        "teams decide one share for each kind, whose classes use it together. GPUs used together are divided minute by "
        "minute by the work that can run")] = "classes"
    drain_min: Annotated[float, Field(ge=1e-3, le=1e6,
                                      description="inference queues are worked off in this time, min")] = 2.0
    long_deferrals: Annotated[LongDeferrals, Field(
        description="deferrals after which a training job has less time than its shortest run takes, on all blocks it "
        "can use at its site. clip: it is released a step before its latest start; mask: its class has no such "
        "deferral; refuse: the scenario is; as_printed: it is used, and the job dropped")] = "clip"
    guard_slack_min: Annotated[float | Literal["auto"] | None, BeforeValidator(_guard), Field(
        description="while training at a site could stand still for less than this and meet its deadlines (slack_min), "
        "it gets all GPUs that inference leaves by the rules' split, in place of the policy's; auto: the longest of "
        "the classes' shortest runs there, and a step; null: policies alone decide, as in the study")] = "auto"
    fill_horizon_min: Annotated[
        float, Field(ge=1e-3, le=1e6,
                     description="unfinished work per GPU at which nci_priority calls a site full, min")] = 120.0
    signal: Annotated[Literal["price", "nci", "mci"], Field(description="what training waits for under lowest_window, "
                                                            "carbon_time, wait_below and suspend_resume")] = "price"
    signal_quantile: Annotated[float, Field(
        ge=0, le=1, description="training works while the signal is at or below this quantile of its last 24 h")] = 0.3
    autoscale: Annotated[Autoscale | None, Field(
        description="replicas of classes of kind llm follow this rule, whatever GPUs the policy grants them; null: a "
        "grant of GPUs is a number of replicas")] = None
    max_batch: Annotated[dict[str, Annotated[int, Field(ge=1)] | Literal["slo"]], Field(
        description="commands of the largest batch of replicas, by class of kind llm: a number, or slo: the largest in "
        "which an iteration keeps slo_tpot_s; without, a class has its own max_batch")] = field(default_factory=dict)
    supply_temp_degc: Annotated[float, Field(description="set point of the rule policies, degC")] = 23.0
    supply_temp_min_degc: Annotated[float, Field(description="lower end of (24)'s box, degC")] = 18.0
    supply_temp_max_degc: Annotated[float, Field(description="upper end of (24)'s box, degC")] = 23.0
    observation: Annotated[Literal["paper", "full", "signals"], Field(
        description="what learners see: (25) and (27); also rounding carries and unfinished work; beside all that each "
        "site's carbon intensity less the mean over the sites")] = "full"
    usual_shares: Annotated[Literal["gpus", "clean"], Field(
        description="what the manager's shares start from in learning. gpus: the sites' GPUs; clean: shares that fall "
        "by e for every 0.2 kg/kWh, minute by minute, which it observes and adds its own to; a prior of a rule, no "
        "part of the study")] = "gpus"
    base_policy: Annotated[str, Field(
        description="a rule around whose decisions a team learns to decide: it observes them, and starts by doing the "
        "same; a prior of a rule, no part of the study. '': none")] = ""
    share_edge: Annotated[float | None, Field(ge=0, le=0.1, description="in learning, shares of a team's softmax that "
                                              "are below it become 0; null: 0.02 with base_policy, else 0")] = None
    horizon_s: Annotated[Seconds | None, Field(gt=0, description="how far ahead linked forecasts reach, s; null: none "
                                               "are linked")] = None
    horizon_step_s: Annotated[Seconds, Field(gt=0, description="from one entry of them to the next, s")] = 900.0
    observed_forecasts: Annotated[tuple[ObservedForecast, ...], Field(
        description="of the linked forecasts, what learners see at the deferrals: nci, mci, load, renewable")] = ()
    reward: Annotated[RewardWeights, Field(
        description="weights of (32), for learners, myopic_oracle and mpc")] = RewardWeights()
    planner: Annotated[PlannerParams, Field(description="how mpc plans")] = PlannerParams()
    cooling: Annotated[CoolingChoice | None, Field(
        description="cooling plant of all sites that myopic_oracle and mpc reckon with; give it what aidc has. null: "
        "balanced"
    )] = None


def check_policy(p: ControllerParams, sid: str, step_s: float) -> None:
    """ScenarioError for a policy that does not exist or does not fit the fleet, and as `facts_of`; makes none.

    What only shows when a policy's class is called, as one of the user's may be, is raised when the run starts.
    """
    facts, joint = facts_of(p, sid, step_s), p.mode == "joint"
    try:
        if (path := checkpoint_of(p.policy)) is not None:
            if base := check_checkpoint(path, facts, joint, p.explore):
                _check_rule(p, base, facts, step_s)
        else:
            _check_rule(p, p.policy, facts, step_s, POLICIES | _own(p.policy))
    except ScenarioError as err:
        raise err if joint else ScenarioError(f"{err}; power mode also needs lambda_kw_per_kg_h=0 of the grid"
                                              ) from None


def _check_rule(p: ControllerParams, name: str, facts: FleetFacts, step_s: float,
                policies: Mapping[str, PolicyMaker] = POLICIES) -> None:
    kind = policy_class(name, p.mode == "joint", policies)
    if hasattr(kind, "check_fits"):
        kind.check_fits(facts, _options(p, facts, step_s))


def base_rule_of(p: ControllerParams, facts: FleetFacts, step_s: float, rng: np.random.Generator, name: str
                 ) -> BaseRule:
    """The rule of this name for a team to decide around. ScenarioError for one that is none, or does not fit."""
    _check_rule(p, name, facts, step_s)
    return BaseRule(make_policy(name, facts, _options(p, facts, step_s), rng, p.mode == "joint"))


def check_mode(sid: str, p: ControllerParams, members: Mapping[str, Any]) -> None:
    """ScenarioError for power mode beside a member that weighs carbon; members: name -> parameters."""
    if p.mode == "joint":
        return
    off = {"lambda_kw_per_kg_h": "0", "nci_cap_kg_per_kwh": "{}"}
    weighs = [f"{name}.{field}" for name, given in members.items() for field in off if getattr(given, field, None)]
    if weighs:
        remedy = " ".join(f"--set {path}={off[path.rpartition('.')[2]]}" for path in weighs)
        raise ScenarioError(f"{sid}.mode = power leaves carbon out, and the dispatch weighs it by "
                            f"{' and '.join(weighs)}: {remedy}, or leave {sid}.mode at joint")


PORTS = {**FORECASTS, "load": "p_load_forecast_kw"}
"""Forecasts that learners can observe -> in ports of the controller."""


def check_forecasts(sid: str, p: ControllerParams, scenario: Any, step_s: float) -> None:
    """ScenarioError for forecasts to be observed that nothing links, at deferrals beyond the horizon, or of what the
    mode hides."""
    if not p.observed_forecasts:
        return
    linked = {link.target.rpartition(".")[2] for link in scenario.links if link.target.split(".")[0] == sid}
    for name in p.observed_forecasts:
        if p.observed_forecasts.count(name) > 1:
            raise ScenarioError(f"{sid}.observed_forecasts names {name} twice")
        if PORTS[name] not in linked:
            raise ScenarioError(f"{sid}.observed_forecasts has {name}, and nothing is linked to {sid}.{PORTS[name]}; "
                                "link a forecast to it, or leave it out")
        if p.mode == "power" and name in OF_SITES:
            raise ScenarioError(f"{sid}.observed_forecasts has {name}, and {sid}.mode = power hides carbon; leave it "
                                "out")
    try:
        forecast_entries(facts_of(p, sid, step_s))
    except ScenarioError as err:
        raise ScenarioError(f"{sid}.observed_forecasts: {err}") from None


def policy_of(p: ControllerParams, facts: FleetFacts, step_s: float, rng: np.random.Generator) -> Policy:
    """A rule, a class of the user's, or a trained team: torch is imported only for one that explores."""
    joint = p.mode == "joint"
    if (path := checkpoint_of(p.policy)) is not None:
        explorer = None
        if p.explore:
            with optional("controller.explore", "learn"):
                from cosim.agents.learn.team import Team
            explorer = Team.load(path)
            explorer.rng["sampling"] = rng
        return LearnedPolicy(path, facts, joint, explorer,
                             partial(base_rule_of, p, facts, step_s, rng))
    return make_policy(p.policy, facts, _options(p, facts, step_s), rng, joint, POLICIES | _own(p.policy))


def facts_of(p: ControllerParams, sid: str, step_s: float) -> FleetFacts:
    """What a policy that decides every `step_s` is constructed with; ScenarioError for deferrals, eligible sites or a
    temperature box that cannot be."""
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
    low, high = p.supply_temp_min_degc, p.supply_temp_max_degc
    if not low <= p.supply_temp_degc <= high:
        raise ScenarioError(f"{sid}.supply_temp_degc = {p.supply_temp_degc:g} must lie in its box, {low:g} to {high:g}")
    limits = batch_limits(p, sid)
    ahead = 0 if p.horizon_s is None else horizon_steps(sid, p.horizon_s, p.horizon_step_s)
    facts = FleetFacts(
        kinds=tuple("train" if c.kind == "train" else "inf" for c in classes),  # who waits for a start is inference
        gpus=tuple(s.gpus for s in p.sites.values()),
        to_per_gpu_min=tuple(c.to_per_gpu_min * mean_speed_ratio(c, p.sites) for c in classes),
        work_to=tuple(c.work_to for c in classes),
        deadline_s=tuple(c.deadline_s for c in classes),
        gpus_per_block=tuple(c.gpus_per_block for c in classes),
        max_blocks=tuple(c.max_blocks for c in classes),
        eligible=tuple(tuple(may_run(c, name) and (c.kind != "llm" or c.most_blocks(s.gpus) > 0) and s.has_type_for(c)
                             for name, s in p.sites.items()) for c in classes),
        deferrals_s=leads,
        supply_temp_low_degc=low,
        supply_temp_high_degc=high,
        classes=tuple(p.job_classes),
        sites=tuple(p.sites),
        horizon_steps=ahead,
        horizon_step_s=p.horizon_step_s if ahead else 0.0,
        gpu_shares=p.gpu_shares,
        top_to_per_s=tuple(tuple(s.top_to_per_s(c) for c in classes) for s in p.sites.values()),
        jobs_per_block=tuple(min(c.jobs_per_block, limits.get(name, c.jobs_per_block))
                             for name, c in p.job_classes.items()),
        least_blocks=tuple(tuple(c.least_blocks if may_run(c, name) and c.most_blocks(s.gpus) else 0 for c in classes)
                           for name, s in p.sites.items()),
    )
    return replace(facts, deferrable=permitted(facts, p.long_deferrals, step_s, sid))


def batch_limits(p: ControllerParams, sid: str) -> dict[str, int]:
    """Class -> the batch that is commanded. ScenarioError for a rule on replicas of a class that has none, GPUs used
    together where there are replicas, a batch beyond the class's own, and `slo` where there is none or no batch keeps
    it."""
    served = {name: c.serving for name, c in p.job_classes.items() if c.serving is not None}
    if p.autoscale is not None and not served:
        raise ScenarioError(f"{sid}.autoscale is for replicas of language models, and no class is of kind llm; leave "
                            "it out")
    if p.gpu_shares != "classes" and served:
        raise ScenarioError(f"{sid}.gpu_shares = {p.gpu_shares} divides GPUs anew every minute, and replicas of "
                            f"language models ({', '.join(served)}) take time to start; leave it at classes")
    out = {}
    for name, given in p.max_batch.items():
        if name not in served:
            raise ScenarioError(f"{sid}.max_batch: {unknown('class of kind llm', name, served)}")
        batch = served[name].slo_batch if given == "slo" else given
        if batch is None:
            raise ScenarioError(f"{sid}.max_batch.{name} = slo: the class has no slo_tpot_s, or a batch of one does "
                                "not keep it; give a number")
        if batch > served[name].max_batch:
            raise ScenarioError(f"{sid}.max_batch.{name} = {batch} is more than the class's own max_batch = "
                                f"{served[name].max_batch}; a command can make it smaller")
        out[name] = batch
    return out


def mean_speed_ratio(job_class: JobClass, sites: Mapping[str, Site]) -> float:
    """Mean speed of the GPUs that a class may run on, over its `to_per_gpu_min`; 1 where GPUs have no types, or none
    may run it. With it policies plan how many GPUs work takes."""
    here = [site for eid, site in sites.items() if may_run(job_class, eid) and site.has_type_for(job_class)]
    if not any(site.gpu_types for site in here):
        return 1.0
    return sum(site.usable_gpus(job_class) for site in here) / sum(site.eligible_gpus(job_class) for site in here)


def guard_min(p: ControllerParams, facts: FleetFacts, step_s: float) -> list[float]:
    """(N,) slack, min, below which training at a site is guarded; [] where nothing is.

    By default as long as one job can take that holds the GPUs which another needs, and the step until the guard looks
    again; at most the slack of a site without training.
    """
    given = p.guard_slack_min
    if given is None:
        return []
    if given != "auto":
        return [given] * facts.n_sites
    runs_s = [[facts.work_to[m] / facts.top_to_per_s[i][m] for m in facts.train
               if facts.eligible[m][i] and facts.top_to_per_s[i][m]] for i in range(facts.n_sites)]
    return [min(max(of_site) + step_s, MOST_S) / MIN_S if of_site else 0.0 for of_site in runs_s]


def energy_of(p: ControllerParams) -> EnergyModel | None:
    """What a site draws, by the equations of the data centers: (12), (13), (19)-(24) and what their plant loses. None
    where GPUs have types: what they draw depends on which of them are used, slowed and asleep."""
    if any(s.gpu_types for s in p.sites.values()):
        return None
    plant = p.cooling or BALANCED

    def site_kw(site: int, it_kw: float, supply_temp_degc: Any) -> Any:
        drawn_kw = it_at_inlet_kw(it_kw, supply_temp_degc, plant)
        _, chiller_kw, tower_kw = cooling_power_kw(drawn_kw, supply_temp_degc, plant)
        return aidc_power_kw(drawn_kw, chiller_kw + tower_kw) + distribution_loss_kw(drawn_kw, plant)

    return EnergyModel([c.busy_kw_per_gpu for c in p.job_classes.values()], [s.idle_kw for s in p.sites.values()],
                       site_kw)


def _own(policy: str) -> dict[str, PolicyMaker]:
    """A class of the user's by its import string; {} for a name that is none."""
    if ":" not in policy and not file_in(policy):
        return {}
    found = load(policy, "controller.policy")
    check_own(policy, found)
    return {policy: found}


def _options(p: ControllerParams, facts: FleetFacts, step_s: float) -> PolicyOptions:
    return PolicyOptions(p.weights, p.drain_min, p.fill_horizon_min, p.supply_temp_degc, p.reward, energy_of(p),
                         p.signal, p.signal_quantile, p.planner, tuple(guard_min(p, facts, step_s)))
