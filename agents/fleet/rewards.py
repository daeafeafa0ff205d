"""The shared reward (32), term by term.

The weights fix what is worth doing. A busy GPU of the study trains 6e4 TO a minute and draws 0.7 kW, with
cooling (PUE 1.25) 0.0146 kWh a minute. At the usual price (0.1 USD/kWh, 0.3 to 0.9 kg/kWh) that is 0.02 x 0.00146 USD +
1 x 4.4e-6 to 1.3e-5 t = 3.4e-5 to 4.2e-5; the same minute earns c1 x 6e4 / 72e6 = 4.2e-5 with c1 = 0.05. So work pays
at the usual price and below it, not at the peak (0.3 USD/kWh: 9e-5 to 1e-4), where it is done only because an LLM job
that is dropped costs c4 = 1, and all its 11 517 GPU-minutes even at the usual price but 0.4 to 0.5. A large c1 would
drown what policies differ in: over days all of them serve what arrives, and R1 is mostly the arrivals' noise. It would
also make deferral a loss at any price, as what is done later counts less (discount).

Rows: E32, I20, I21, M02, R01-06.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from cosim.agents.fleet.decision import FleetFacts
from cosim.params import params
from cosim.units import KG_PER_T, MIN_PER_H

Carbon = Literal["attributed", "marginal", "system_difference"]
ManagerCredit = Literal["all", "sent"]
Weight = Annotated[float, Field(ge=0)]

TERMS = ("throughput_ratio", "cost_usd", "carbon_t", "dropped_train_jobs", "dropped_inf_jobs", "work_to", "energy_kwh",
         "attributed_t", "system_t", "served_to", "inf_wait_min")
"""What `terms_of` gives: R1 to R5 of (32), then figures to log that are not weighed, and last what c6 weighs."""

OBJECTIVE = "objective"
"""(32) as printed, logged beside TERMS; what is learned from is `relative` to the hour."""

_WAIT = TERMS.index("inf_wait_min")

WEIGHED = (*TERMS[:5], TERMS[_WAIT])
"""The terms that have a weight each, c1 to c6: what the reward is the sum of."""

_URGENT_DROPS = 0.1
"""Expected drops per urgent job: nearly all make it, and what looms should not move more than what happens."""


@params
class RewardWeights:
    """c1..c5 of (32), what R3 counts, and what learning adds. The same for all methods; fixed before training.

    The reference of R1 does not grow with the fleet: a GPU-minute keeps its worth against its energy for any N.
    """

    c1_per_reference: Annotated[Weight, Field(description="c1: per minute of `reference_to_per_min` done")] = 0.05
    c2_per_usd: Annotated[Weight, Field(description="c2: per USD of energy")] = 0.02
    c3_per_t: Annotated[Weight, Field(description="c3: per t of carbon; 0 in power mode")] = 1.0
    c4_per_train_job: Annotated[Weight, Field(description="c4: per dropped training job")] = 1.0
    c5_per_inf_job: Annotated[Weight, Field(description="c5: per dropped inference job")] = 1e-3
    c6_per_inf_wait_min: Annotated[Weight, Field(
        description="per minute that an inference job waits in a queue: a service level beyond (32), whose R5 prices "
        "only waits past the deadline, so that a team may let every job wait for almost that long; 0: as (32)")] = 0.0
    reference_to_per_min: Annotated[
        float, Field(gt=0, description="unit of R1, TO/min: Table I's 1200 GPUs, all training")] = 72e6
    carbon: Annotated[Carbon, Field(
        description="R3: attributed, energy x NCI; marginal, energy x mci; system_difference, what all sources emit "
        "less what they would without data centers")] = "attributed"
    relative: Annotated[bool, Field(
        description="learn from (32) less what the fleet's usual power costs at the minute's price: prices come from "
        "outside, so that no policy gains or loses by it, but the critic need not predict the tariff to a thousandth "
        "to see what an action did (Mao et al. 2019, input-driven baselines)")] = True
    looming: Annotated[bool, Field(
        description="learn from (32) with a drop charged when it looms: c4 per training job that has become late, a "
        "tenth of it per job that can wait for less than an hour, paid back when it ends or is dropped. "
        "Potential-based: the best policy stays what it is (Ng et al. 1999); else a deferral is charged half a day "
        "after it")] = True
    loom_slack_min: Annotated[float, Field(
        ge=0, description="drops loom, too, where the training at a site could stand still for less than this and meet "
        "its deadlines (slack_min): c4 for every job of mean size that its GPUs could do in the time that is short, "
        "paid back when slack returns. Jobs that each have hours left are late together where there are too many: no "
        "one of them is, until its last hour; 0: not; needs looming")] = 0.0
    manager_credit: Annotated[ManagerCredit, Field(
        description="what the manager learns from beside drops and waits. all: what the fleet draws, when it draws it, "
        "hours after the decision that sent the work and amid what the sites' agents do; sent: the energy of the work "
        "that its shares send, at the price and intensity of the minute in which they do, whichever site rounding "
        "gives a whole job to")] = "all"


Numbers = Any
"""A float, or an array (B,) of many minutes at once."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step gave; axes as in `cosim.agents.fleet.decision`.

    hours              length of the step, h
    price_usd_per_kwh  at its start
    power_kw           (N,) mean power of each site
    work_to            work done, all sites and classes, TO
    dropped_jobs       (M,) jobs dropped, all sites
    nci_kg_per_kwh     (N,) average intensity at the sites, None if unknown
    mci_kg_per_kwh     (N,) marginal intensity at the sites, None if unknown
    emission_kg_per_h  emission of all sources, None if unknown
    baseline_kg_per_h  their emission without data centers, None if unknown
    served_to          whole work of the jobs that finished, all sites and classes, TO; NaN if unknown
    queued_jobs        (M,) jobs in the queues of all sites at its end; () if unknown
    """

    hours: Numbers
    price_usd_per_kwh: Numbers
    power_kw: Sequence[Numbers]
    work_to: Numbers
    dropped_jobs: Sequence[Numbers]
    nci_kg_per_kwh: Sequence[Numbers] | None = None
    mci_kg_per_kwh: Sequence[Numbers] | None = None
    emission_kg_per_h: Numbers | None = None
    baseline_kg_per_h: Numbers | None = None
    served_to: Numbers = math.nan
    queued_jobs: Sequence[Numbers] = ()


def terms_of(minute: StepOutcome, kinds: Sequence[str], weights: RewardWeights) -> tuple[float, ...]:
    """The values of TERMS: R1 as a share of the reference, USD, t, jobs, jobs, TO, kWh, t, t, TO, min (energies
    with dt). The jobs of a queue wait for the whole step (Little's law). Unknown carbon and queues count as 0. Of many
    minutes at once where the numbers are arrays (B,). kinds: (M,) 'train' or 'inf'."""
    power_kw, hours = minute.power_kw, minute.hours
    energy_kwh = sum(power_kw) * hours
    attributed_t = _carbon_t(power_kw, minute.nci_kg_per_kwh, hours)
    system_t = _known(minute.emission_kg_per_h) * hours / KG_PER_T
    if weights.carbon == "attributed":
        carbon_t = attributed_t
    elif weights.carbon == "marginal":
        carbon_t = _carbon_t(power_kw, minute.mci_kg_per_kwh, hours)
    else:
        carbon_t = system_t - _known(minute.baseline_kg_per_h) * hours / KG_PER_T
    dropped = [sum([n for n, kind in zip(minute.dropped_jobs, kinds, strict=True) if kind == wanted])
               for wanted in ("train", "inf")]
    per_min = minute.work_to / (hours * MIN_PER_H)
    waits = [n for n, kind in zip(minute.queued_jobs, kinds, strict=bool(minute.queued_jobs)) if kind == "inf"]
    return (per_min / weights.reference_to_per_min, energy_kwh * minute.price_usd_per_kwh, carbon_t, *dropped,
            minute.work_to, energy_kwh, attributed_t, system_t, minute.served_to, sum(waits) * hours * MIN_PER_H)


def reward_of(terms: Sequence[float], weights: RewardWeights, sees_carbon: bool = True) -> float:
    """(32) of one step, less what waits cost (c6), from the values of TERMS, of which (32) alone needs the first five.
    sees_carbon: False is power mode, where c3 = 0.

    R1 counts per minute of the step; steps of the study are one minute long.
    """
    throughput, cost, carbon, train, inf, wait = weighed(terms, weights, sees_carbon)
    return throughput + cost + carbon + train + inf + wait


def weighed(terms: Sequence[Numbers], weights: RewardWeights, sees_carbon: bool = True) -> tuple[Numbers, ...]:
    """The summands of `reward_of`, in the order of WEIGHED and in units of the reward; all but the first are <= 0 where
    prices and intensities are >= 0."""
    throughput, cost, carbon, train, inf = terms[:5]
    return (weights.c1_per_reference * throughput, -weights.c2_per_usd * cost,
            -weights.c3_per_t * carbon if sees_carbon else 0.0,
            -weights.c4_per_train_job * train, -weights.c5_per_inf_job * inf,
            -weights.c6_per_inf_wait_min * terms[_WAIT] if weights.c6_per_inf_wait_min else 0.0)


def terms_with_weight(weights: RewardWeights, kinds: Sequence[str], sees_carbon: bool = True) -> tuple[str, ...]:
    """Those of WEIGHED that are not 0 whatever happens. kinds: (M,) 'train' or 'inf'."""
    train, inf = "train" in kinds, "inf" in kinds
    counts = (weights.c1_per_reference, weights.c2_per_usd, weights.c3_per_t and sees_carbon,
              weights.c4_per_train_job and train, weights.c5_per_inf_job and inf, weights.c6_per_inf_wait_min and inf)
    return tuple(name for name, weight in zip(WEIGHED, counts, strict=True) if weight)


def hour_cost(price_usd_per_kwh: Numbers, usual_kw: float, hours: float, weights: RewardWeights) -> Numbers:
    """What the fleet's usual power costs in a step at this price, in units of the reward (>= 0 for a price >= 0)."""
    return weights.c2_per_usd * price_usd_per_kwh * usual_kw * hours


def work_worth(kwh_per_to: float, price_usd_per_kwh: Numbers, kg_per_kwh: Numbers, hours: float,
               weights: RewardWeights, sees_carbon: bool) -> Numbers:
    """What doing a TO now would bring, in units of the reward: its part of R1 less its energy.

    The manager with `manager_credit` = sent gets it for what its shares add to a site, and gives it back for all that
    is done there. What remains is work sent, priced when it is sent; when sites do it cancels.
    """
    work, cost, carbon = _worths(price_usd_per_kwh, kg_per_kwh, hours, weights, sees_carbon)
    return work - kwh_per_to * (cost + carbon)


def work_worth_by_term(kwh_per_to: float, price_usd_per_kwh: Numbers, kg_per_kwh: Numbers, hours: float,
                       weights: RewardWeights, sees_carbon: bool) -> tuple[Numbers, ...]:
    """The same as its three parts: those of R1, of the cost and of the carbon."""
    work, cost, carbon = _worths(price_usd_per_kwh, kg_per_kwh, hours, weights, sees_carbon)
    return work, -kwh_per_to * cost, -kwh_per_to * carbon


def _worths(price_usd_per_kwh: Numbers, kg_per_kwh: Numbers, hours: float, weights: RewardWeights, sees_carbon: bool
            ) -> tuple[Numbers, ...]:
    """What a TO brings, and what a kWh costs, in money and in carbon."""
    return (weights.c1_per_reference / (hours * MIN_PER_H * weights.reference_to_per_min),
            weights.c2_per_usd * price_usd_per_kwh, weights.c3_per_t * kg_per_kwh / KG_PER_T if sees_carbon else 0.0)


def loom(late_jobs: Numbers, urgent_jobs: Numbers, slack_min: Numbers, jobs_per_min: float, weights: RewardWeights
         ) -> Numbers:
    """What training jobs at a site threaten to cost, in units of the reward (>= 0); its growth in a step is charged.

    late_jobs: that miss their deadline anyway; urgent_jobs: that can wait for less than an hour; slack_min: how long
    training could stand still; jobs_per_min: of `jobs_per_min`
    """
    if not weights.looming:
        return 0.0
    drops = late_jobs + _URGENT_DROPS * urgent_jobs
    if weights.loom_slack_min:
        drops = drops + jobs_per_min * np.maximum(weights.loom_slack_min - slack_min, 0.0)
    return weights.c4_per_train_job * drops


def jobs_per_min(facts: FleetFacts, site: int) -> float:
    """Training jobs of the classes' mean size that all GPUs of a site do in a minute; 0 without training."""
    sizes = [facts.work_to[m] / facts.to_per_gpu_min[m] for m in facts.train]
    return facts.gpus[site] * len(sizes) / sum(sizes) if sizes else 0.0


def _known(kg_per_h: float | None) -> float:
    return 0.0 if kg_per_h is None else kg_per_h


def _carbon_t(power_kw: Sequence[float], kg_per_kwh: Sequence[float] | None, hours: float) -> float:
    if kg_per_kwh is None:
        return 0.0
    return sum([p * w for p, w in zip(power_kw, kg_per_kwh, strict=True)]) * hours / KG_PER_T
