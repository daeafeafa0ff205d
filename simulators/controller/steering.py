"""The study's scenarios as learning environments: the interface of `cosim.learning.vector` to a scenario.

The world stops where the controller is about to step. Its inputs become the observation, an action becomes its
policy's decision, and the same controller turns it into jobs and commands as on the bus. The reward comes from the
members' outputs of that minute.

Rows: L08, L15, U22.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from cosim.adapter import Adapter
from cosim.agents.fleet.actions import decision_of, from_unit, leader_row, site_rows, start_of
from cosim.agents.fleet.base import EDGE, BaseRule, check_edge
from cosim.agents.fleet.credit import Credits, RewardParts, SentWork
from cosim.agents.fleet.decision import Decision, Matrix, Observation, Operation, Policy
from cosim.agents.fleet.observation_row import ObservationScope
from cosim.agents.fleet.policies import POLICIES
from cosim.agents.fleet.rewards import (
    OBJECTIVE,
    TERMS,
    WEIGHED,
    RewardWeights,
    StepOutcome,
    hour_cost,
    jobs_per_min,
    loom,
    terms_of,
    terms_with_weight,
)
from cosim.agents.fleet.team_arrays import TeamArrays
from cosim.errors import ScenarioError, unknown
from cosim.hooks import Simulator
from cosim.simulators.controller.adapter import Controller
from cosim.simulators.controller.params import base_rule_of, check_policy, policy_of
from cosim.simulators.controller.pipeline import Situation, known
from cosim.simulators.fleet import OffersLoad
from cosim.units import HOUR_S

CONTROLLER, FLEET, GRID, WORKLOAD, BASELINE = "controller", "aidc", "grid", "workload", "grid_without_aidc"
TARIFF = "tariff"
_LOOMING = ("late_jobs", "urgent_jobs", "slack_min")
"""Ports from which drops are foreseen."""
_USUAL_PUE = 1.25
_COOLING_FACTOR = 1.4
"""Site power per IT power at full load that scales the power columns; more is clipped."""
NO_MCI = ("reward.carbon = marginal needs mci at every site and there is none: --set "
          "controller.reward.carbon=attributed, or choose a grid that gives mci_kg_per_kwh")
"""Error where the terms of the reward are not available."""


class ExternalPolicy:
    """A policy whose decision is set from outside for each minute."""

    needs_nci = False
    decision: Decision

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares of the decision that was set."""
        return self.decision.site_share

    def operate(self, observation: Observation, allocated_jobs: Any, allocated_work_to: Any) -> Operation:
        """The sites' actions of the decision that was set."""
        return self.decision.operation


class Steering:
    """One started world (`cosim.drivers.native.NativeWorld`) of a scenario with members named as in the study.

    Agents: the manager leads, then one per site, in the scenario's order. Several worlds of a scenario share a `spec`.
    ScenarioError when the scenario has no such members or cannot give what its reward counts.

    params, facts    of the controller; `view` is the team's observation
    usual_kw         power of the fleet when it works off what is offered
    sees_carbon      whether intensities are shown and carbon counts; hours: length of a step
    jobs_per_min     of each site, see `cosim.agents.fleet.rewards.jobs_per_min`
    foresees, counts_served   whether the fleet reports late jobs, which the reward counts; and served work
    """

    batch = "cosim.simulators.controller.batched.steering:BatchSteering"
    """Class that steps many worlds at once by the same rules."""

    steers = (CONTROLLER, FLEET)
    copies: ClassVar[Mapping[str, str]] = {BASELINE: GRID}
    """See `cosim.learning.vector`."""

    member = CONTROLLER
    terms = (*TERMS, OBJECTIVE)

    @staticmethod
    def prepare(scenario: Any, lean: bool) -> Any:
        """The scenario used for training: its own policy, which makes no decisions there, is replaced by a default one;
        `grid.solver` auto becomes newton, which needs no licence and solves many worlds' dispatches at once.

        lean: leave out what has no effect on observations: AC check, settlement, the job log, and marginal intensities
        unless the reward counts them.
        With reward.carbon = system_difference a second grid dispatches the base load alone.
        """
        members = dict(scenario.members)
        if CONTROLLER not in members or FLEET not in members:
            raise ScenarioError(f"{scenario.name} has no members {CONTROLLER} and {FLEET} to learn on")
        if TARIFF in members:
            refused = [name for name in ("site_prices", "demand_charge_usd_per_kw") if members[TARIFF].params.get(name)]
            if refused:
                raise ScenarioError(f"{TARIFF}.{refused[0]} is set, and the reward counts one price for all sites and "
                                    "no demand charge; leave it out to learn")
        carbon = _carbon_of(members[CONTROLLER].params)
        members[CONTROLLER] = _with(members[CONTROLLER], {**members[CONTROLLER].params, "policy": "uniform"})
        if GRID in members and members[GRID].simulator.endswith(":CefDispatch"):
            given = dict(members[GRID].params)
            if given.get("solver", "auto") == "auto":
                given["solver"] = "newton" if not given.get("nci_cap_kg_per_kwh") else "auto"
            if carbon == "marginal":
                given["mci"] = True
            if lean:
                given |= {"ac_check": False, "settle": False, "mci": carbon == "marginal"}
            members[GRID] = _with(members[GRID], given)
        if lean and members[FLEET].simulator.endswith((":DataCenters", ":CappedDataCenters", ":GpuDataCenters")):
            members[FLEET] = _with(members[FLEET], {**members[FLEET].params, "job_log": False})
        if carbon != "system_difference":
            return scenario.replace(members=members)
        return _with_baseline(scenario, members)

    def __init__(self, world: Any) -> None:
        self._world = world
        self.controller: Controller = world.simulators[CONTROLLER]
        if not isinstance(self.controller, Controller):
            raise ScenarioError(f"{CONTROLLER} is a {type(self.controller).__name__}; agents learn through "
                                f"{Controller.__module__}:{Controller.__name__}")
        self.controller.policy = self._policy = ExternalPolicy()
        self.params, self.facts = self.controller.params, self.controller.facts
        self._sites = list(self.params.sites)
        self.sees_carbon = self.params.mode == "joint"
        self.hours = self.controller.step_s / HOUR_S
        ports = world.simulators[FLEET].meta["models"]["Site"]["attrs"]
        self.foresees = _foresees(self.params.reward, world)
        self.jobs_per_min = [jobs_per_min(self.facts, i) for i in range(self.facts.n_sites)]
        self.counts_served = "finished_work_to" in ports
        self.kwh_per_to = [c.kw_per_to_s * _USUAL_PUE / HOUR_S for c in self.params.job_classes.values()]
        observed = ["p_kw", "work_to", "dropped_jobs", "queued_jobs", "pending_work_to", "deferred_work_to",
                    *["finished_work_to"] * self.counts_served,
                    *(_LOOMING[:3 if self.params.reward.loom_slack_min else 2] if self.foresees else ())]
        self._fleet_ports = dict.fromkeys(self._sites, observed)
        self._situation: Situation
        self._seen: Observation
        self._credits: Credits
        self._emission_kg_per_h: tuple[float | None, ...] = (None, None)
        self._intensities: tuple[list[float] | None, ...] = (None, None)
        self.view = self._make_view()
        self._base = self.base_rule() if self.view.base else None
        self.spec = self.view.spec
        self._width = self.spec.widths[2]

    def observe(self, time_s: float) -> np.ndarray:
        """(n, O) scaled observations of the moment before the controller's step."""
        controller = self.controller
        self._emission_kg_per_h = tuple(emission_of(self._world.simulators, name) for name in (GRID, BASELINE))
        inputs = controller.read(self._world.pending(CONTROLLER))
        self._intensities = tuple(known([inputs[site][port] for site in self._sites])
                                  for port in ("nci_kg_per_kwh", "mci_kg_per_kwh"))
        self._situation = controller.observe(time_s, inputs)
        self._seen = seen = self._situation.observation
        if self.params.reward.carbon == "marginal" and self.sees_carbon and seen.mci_kg_per_kwh is None:
            raise ScenarioError(NO_MCI)
        return self.view.observe(seen if self._base is None else self._base.shown(seen))

    def base_rule(self) -> BaseRule:
        """The rule around which a team learns, of one environment."""
        p, controller = self.params, self.controller
        return base_rule_of(p, self.facts, controller.step_s, controller.stream("base"), p.base_policy)

    @property
    def has_memory(self) -> bool:
        """Whether what is observed depends on a rule's memory, which no state has."""
        return self._base is not None

    def go_on_from(self, before: Steering) -> None:
        """A new day of an environment that was steered by `before`: the rule's memory goes on."""
        self._base = before._base

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """(n, C) scaled context, given the manager's action (1, A); changes nothing."""
        shares = self._split_shares(leaders_action[0].tolist())
        return self.view.context(*self.controller.pipeline.place(self._situation, shares).totals)

    def decide(self, action: np.ndarray) -> None:
        """What the controller's next step will do: the joint action (n, A)."""
        self._policy.decision = decision_of(self.facts, action.tolist())

    def outcome(self) -> tuple[float, tuple[float, ...], list[float] | None]:
        """(reward to learn from, values of `terms`, credit) of the minute decided last, once the world has run through
        it. The manager is credited with all, a site's agent with what came about at its site; None where carbon is
        counted that no single site emits."""
        weights, outputs = self.params.reward, self._world.simulators[FLEET].get_data(self._fleet_ports)
        fleet = [outputs[site] for site in self._sites]
        everywhere = range(len(fleet))
        shared = weights.carbon == "system_difference" and self.sees_carbon
        self._credits = Credits(
            weights, self.sees_carbon, self.hours, len(fleet), self._parts(fleet, everywhere),
            None if shared else [self._parts(fleet, (i,)) for i in everywhere], () if shared else self._sent(fleet))
        objective, shaped, credit = self._credits.whole()
        return shaped, (*self._credits.team.terms, objective), credit

    @property
    def credit_terms(self) -> tuple[str, ...]:
        """Names of the terms by which `by_term` splits credits: those that have a weight."""
        return terms_with_weight(self.params.reward, self.facts.kinds, self.sees_carbon)

    def by_term(self) -> list[list[float]]:
        """(1 + n, K) the reward and the credits of `outcome`, of which it is called after, as sums of `credit_terms`;
        of the reward where an agent is credited with all."""
        at = [WEIGHED.index(name) for name in self.credit_terms]
        return [[row[k] for k in at] for row in self._credits.by_term()]

    def teacher(self, policy: str) -> Policy:
        """A policy by its name, made as the controller makes its own. ScenarioError as the controller has it."""
        p, controller = replace(self.params, policy=policy), self.controller
        check_policy(p, CONTROLLER, controller.step_s)
        return policy_of(p, self.facts, controller.step_s, controller.stream("teacher"))

    def lesson_lead(self, teacher: Policy) -> np.ndarray:
        """(1, A) the manager's action that a policy chooses now."""
        return self._rows([leader_row(teacher.place(self._seen))])

    def lesson(self, teacher: Policy, leaders_action: np.ndarray) -> np.ndarray:
        """(n, A) the joint action that a policy chooses now, given the manager's (1, A); after `lesson_lead`."""
        manager = leaders_action[0].tolist()
        placed = self.controller.pipeline.place(self._situation, self._split_shares(manager))
        return self._rows([manager, *site_rows(self.facts, teacher.operate(self._seen, *placed.totals))])

    def _rows(self, rows: Sequence[Sequence[float]]) -> np.ndarray:
        out = np.zeros((len(rows), self._width), np.float32)
        for of_agent, row in zip(out, rows, strict=True):
            of_agent[:len(row)] = row
        return out

    def start(self) -> np.ndarray:
        """(n, A) the joint action from which a fresh policy starts."""
        out = np.zeros((len(self.spec.agents), self._width), np.float32)
        for k, row in enumerate(out):
            mine = start_of(self.spec.type_of(k).action)
            row[:len(mine)] = mine
        return out

    def from_unit(self, index: int, unit: np.ndarray) -> np.ndarray:
        """(A,) action of agent `index` from its numbers in [0, 1], see `cosim.agents.fleet.actions.from_unit`."""
        row = np.zeros(self._width, np.float32)
        parts = self.spec.type_of(index).action
        mine = from_unit(parts, unit)
        row[:len(mine)] = mine
        return row

    # --- inside -------------------------------------------------------------------------------------------------

    def _make_view(self) -> TeamArrays:
        p = self.params
        if p.usual_shares == "clean" and not self.sees_carbon:
            raise ScenarioError("controller.usual_shares = clean goes by carbon, which power mode hides: --set "
                                "controller.usual_shares=gpus")
        edge = p.share_edge if p.share_edge is not None else EDGE if p.base_policy else 0.0
        _check_base(p)
        offered = _offered(self._world)
        self.usual_kw = _usual_kw(p, offered)
        sight = ObservationScope(
            classes=list(p.job_classes), sites=self._sites,
            peak_kw=_COOLING_FACTOR * max(s.most_kw(p.job_classes.values()) for s in p.sites.values()),
            arrivals_per_min={name: rate for name, (rate, _) in offered.items()}, nci=self.sees_carbon,
            mci=self.sees_carbon and p.reward.carbon == "marginal", full=p.observation != "paper",
            forecasts=p.observed_forecasts, relative=p.observation == "signals",
            usual_shares=p.usual_shares == "clean", base_policy=p.base_policy, share_edge=edge)
        check_edge(self.facts, edge)
        return TeamArrays(self.facts, sight, offered)

    def _split_shares(self, row: list[float]) -> list[list[float]]:
        n = len(self._sites)
        return [row[m * n:(m + 1) * n] for m in range(len(self.facts.kinds))]

    def _minute(self, fleet: list[dict[str, Any]], sites: Sequence[int]) -> StepOutcome:
        """The minute that ended at some sites; fleet: what each site gave for it."""
        emission_kg_per_h, baseline_kg_per_h = self._emission_kg_per_h
        here = [fleet[i] for i in sites]
        nci_kg_per_kwh, mci_kg_per_kwh = (
            None if known is None else [known[i] for i in sites]
            for known in self._intensities)  # power mode hides them from the agents only (I22)
        return StepOutcome(
            hours=self.hours, price_usd_per_kwh=self._seen.price_usd_per_kwh, power_kw=[s["p_kw"] for s in here],
            work_to=sum([sum(s["work_to"]) for s in here]),
            dropped_jobs=[sum(of_class) for of_class in zip(*(s["dropped_jobs"] for s in here), strict=True)],
            nci_kg_per_kwh=nci_kg_per_kwh, mci_kg_per_kwh=mci_kg_per_kwh,
            emission_kg_per_h=emission_kg_per_h, baseline_kg_per_h=baseline_kg_per_h,
            served_to=sum([sum(s["finished_work_to"]) for s in here]) if self.counts_served else math.nan,
            queued_jobs=[sum(of_class) for of_class in zip(*(s["queued_jobs"] for s in here), strict=True)])

    def _parts(self, fleet: list[dict[str, Any]], sites: Sequence[int]) -> RewardParts:
        """What the minute's reward is made of at some sites: (32), the hour's usual cost given back, looming drops."""
        weights, seen, gpus = self.params.reward, self._seen, self.facts.gpus
        usual_kw = self.usual_kw * sum([gpus[i] for i in sites]) / sum(gpus) if weights.relative else 0.0
        return RewardParts(
            terms_of(self._minute(fleet, sites), self.facts.kinds, weights),
            hour_cost(seen.price_usd_per_kwh, usual_kw, self.hours, weights),
            [self._loom(i, seen.late_jobs[i], seen.urgent_jobs[i], seen.slack_min[i])
             - self._loom(i, **{name: fleet[i][name] for name in _LOOMING if name in fleet[i]})
             for i in sites] if self.foresees else ())

    def _loom(self, i: int, late_jobs: Sequence[float], urgent_jobs: Sequence[float], slack_min: float = 0.0) -> float:
        return float(loom(sum(late_jobs), sum(urgent_jobs), slack_min, self.jobs_per_min[i], self.params.reward))

    def _sent(self, fleet: list[dict[str, Any]]) -> list[SentWork]:
        """What the manager's credit has beyond the reward."""
        weights, seen = self.params.reward, self._seen
        if weights.manager_credit == "all":
            return []
        known = self._intensities[weights.carbon == "marginal"]
        placement = self.controller.pipeline.place(self._situation, self._policy.decision.site_share)
        sent = []
        for i, after in enumerate(fleet):
            kg_per_kwh = 0.0 if known is None else known[i]
            for m, kwh_per_to in enumerate(self.kwh_per_to):
                added_to = (after["pending_work_to"][m] + after["deferred_work_to"][m]
                            - seen.pending_work_to[i][m] - seen.deferred_work_to[i][m]
                            + placement.shares[m][i] * seen.arrivals_work_to[m] - placement.totals[1][i][m])
                sent.append(SentWork(added_to, kwh_per_to, seen.price_usd_per_kwh, kg_per_kwh))
        return sent


def _foresees(weights: RewardWeights, world: Any) -> bool:
    """Whether drops are charged when they loom: where the fleet's late and urgent jobs are linked to the controller.
    ScenarioError where slack is to be charged and is not linked."""
    known = {c.source[2] for c in world.plan.connections if c.source[0] == FLEET and c.target[0] == CONTROLLER}
    lacks = [port for port in _LOOMING if port not in known]
    if weights.loom_slack_min and not weights.looming:
        raise ScenarioError(f"{CONTROLLER}.reward.loom_slack_min = {weights.loom_slack_min:g} is a part of what looms, "
                            "and looming = false; leave one of them out")
    if weights.loom_slack_min and lacks:
        raise ScenarioError(f"{CONTROLLER}.reward.loom_slack_min = {weights.loom_slack_min:g} needs {lacks[0]} of "
                            f"{FLEET}, which is not linked to {CONTROLLER}; link it, or set 0")
    return weights.looming and not set(lacks) & set(_LOOMING[:2])


def _check_base(p: Any) -> None:
    """ScenarioError for a rule around which no team can learn."""
    if not p.base_policy:
        return
    if p.usual_shares == "clean":
        raise ScenarioError("controller.usual_shares = clean is a start of the manager's, and so is controller."
                            "base_policy; leave one of them out")
    if p.base_policy not in POLICIES or p.base_policy == "random":
        known = [name for name in POLICIES if name != "random"]
        raise ScenarioError(f"controller.base_policy: {unknown('rule', p.base_policy, known)}")


def _usual_kw(p: Any, offered: dict[str, tuple[float, float]]) -> float:
    """Power of the fleet when it works off what is offered."""
    busy = sum(rate * work_to / p.job_classes[name].to_per_gpu_min * p.job_classes[name].busy_kw_per_gpu
               for name, (rate, work_to) in offered.items())
    return _USUAL_PUE * (busy + sum(site.rest_kw for site in p.sites.values()))


def _carbon_of(controller_params: dict[str, Any]) -> str:
    reward = controller_params.get("reward", {})
    return reward.get("carbon", "attributed") if isinstance(reward, dict) else "attributed"


def _with(member: Any, params: dict[str, Any]) -> Any:
    return member.model_copy(update={"params": params})


def _with_baseline(scenario: Any, members: dict[str, Any]) -> Any:
    """A second dispatch of the same sources and network at the base load only."""
    if GRID not in members or not members[GRID].simulator.endswith(":CefDispatch"):
        raise ScenarioError("reward.carbon = system_difference needs the dispatch with and without data centers: "
                            "--set controller.reward.carbon=attributed, or choose a scenario whose grid is CefDispatch")
    members[BASELINE] = _with(members[GRID], {**members[GRID].params, "ac_check": False, "settle": False, "mci": False})
    fed = [link for link in scenario.links
           if link.target.startswith(f"{GRID}.") and not link.source.startswith(f"{FLEET}.")]
    return scenario.replace(members=members, links=(*scenario.links, *(
        link.model_copy(update={"target": BASELINE + link.target.removeprefix(GRID)}) for link in fed)))


def _offered(world: Any) -> dict[str, tuple[float, float]]:
    """Class -> (jobs/min, TO/job) of the workload, {} if unknown."""
    workload = world.simulators.get(WORKLOAD)
    if not isinstance(workload, Adapter) or not isinstance(workload, OffersLoad):
        return {}
    return workload.offered_jobs_per_min(world.resolved.params[WORKLOAD])  # as written, whatever a day varies


def emission_of(simulators: Mapping[str, Simulator], member: str) -> float | None:
    """kg/h of all sources of a dispatch; None where there is none or it does not have it."""
    grid = simulators.get(member)
    entities = grid.entities.get("Grid") if isinstance(grid, Adapter) else None
    if grid is None or not entities or "emission_kg_per_h" not in grid.meta["models"]["Grid"]["attrs"]:
        return None
    return grid.get_data({entities[0]: ["emission_kg_per_h"]})[entities[0]]["emission_kg_per_h"]
