"""Which agent is credited with what of a step's reward, as one number or term by term.

The manager is credited with the reward (or as `manager_credit` has it), a site's agent with what came about at its
site. Split by term, what shaping adds stands with what it shapes: the usual power's cost with the cost, looming drops
with the drops of training jobs.

Rows: R01-06.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cosim.agents.fleet.rewards import Numbers, RewardWeights, reward_of, weighed, work_worth, work_worth_by_term


@dataclass(frozen=True, slots=True)
class RewardParts:
    """What the reward of one step is made of at some sites; numbers, or arrays (B,) of many steps at once.

    terms: the values of `rewards.TERMS`; hour_cost: that of the sites' usual power, see `rewards.hour_cost`; eased:
    site by site, by how much less looms after the step than before it, see `rewards.loom`
    """

    terms: Sequence[Numbers]
    hour_cost: Numbers
    eased: Sequence[Numbers]

    def shaped(self, objective: Numbers) -> Numbers:
        """What is learned from, where (32) is `objective`."""
        shaping = self.hour_cost
        for change in self.eased:
            shaping = shaping + change
        return objective + shaping


class SentWork(NamedTuple):
    """Work of one class that the manager's shares sent to a site beyond what the site did of it, TO, and what it is
    priced by: see `rewards.work_worth`."""

    added_to: Numbers
    kwh_per_to: float
    price_usd_per_kwh: Numbers
    kg_per_kwh: Numbers


@dataclass(frozen=True, slots=True)
class Credits:
    """The reward of one step of length `hours`, and whose doing it is.

    team: at all sites; sites: at each of `n_sites`, None where carbon is counted that no single site emits, so that all
    are credited with all; sent: what the manager is credited with beyond the reward, () for nothing
    """

    weights: RewardWeights
    sees_carbon: bool
    hours: float
    n_sites: int
    team: RewardParts
    sites: Sequence[RewardParts] | None
    sent: Sequence[SentWork] = ()

    def whole(self) -> tuple[Numbers, Numbers, list[Numbers] | None]:
        """((32), the reward to learn from, credits of the manager and of the sites' agents)."""
        objective = reward_of(self.team.terms, self.weights, self.sees_carbon)
        shaped = self.team.shaped(objective)
        if self.sites is None:
            return objective, shaped, None
        beyond = 0.0
        for sent in self.sent:
            beyond = beyond + sent.added_to * work_worth(sent.kwh_per_to, sent.price_usd_per_kwh, sent.kg_per_kwh,
                                                         self.hours, self.weights, self.sees_carbon)
        return objective, shaped, [shaped + beyond, *(
            site.shaped(reward_of(site.terms, self.weights, self.sees_carbon)) for site in self.sites)]

    def by_term(self) -> list[list[Numbers]]:
        """(2 + N, 6) the reward, then the credits, as summands in the order of `rewards.WEIGHED`."""
        team = self._summands(self.team)
        if self.sites is None:
            return [team] * (2 + self.n_sites)
        manager = list(team)
        for sent in self.sent:
            worths = work_worth_by_term(sent.kwh_per_to, sent.price_usd_per_kwh, sent.kg_per_kwh, self.hours,
                                        self.weights, self.sees_carbon)
            manager[:3] = [one + sent.added_to * worth for one, worth in zip(manager[:3], worths, strict=True)]
        return [team, manager, *map(self._summands, self.sites)]

    def _summands(self, parts: RewardParts) -> list[Numbers]:
        throughput, cost, carbon, train, inf, wait = weighed(parts.terms, self.weights, self.sees_carbon)
        return [throughput, cost + parts.hour_cost, carbon, train + sum(parts.eased), inf, wait]
