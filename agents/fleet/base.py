"""A rule around whose decisions a team decides: what the rule does is in the team's observation, and in its means.

The team learns where to depart from the rule (residual policy learning: Silver et al. 2018; Johannink et al. 2019); a
fresh one does what the rule does. The rule decides on what is known before the team does, with its own shares of the
jobs, not those that the team's manager then sends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from cosim.agents.fleet.actions import SiteBase
from cosim.agents.fleet.decision import Decision, FleetFacts, Observation, Policy, Vector
from cosim.agents.fleet.pooling import per_sharer, sharer_blocks, sharers
from cosim.agents.learn.spec import BELOW, before_edge
from cosim.errors import ScenarioError
from cosim.units import DAY_S, ROUNDING

SITE, RELEASE, GPUS, SUPPLY = "base_site_share", "base_release_share", "base_gpu_share", "base_supply_temp"
EDGE = 0.02
"""Of shares around a rule's, unless another is given."""
LOGIT = 6.0
"""Of a position in an interval, at most: a 400th of it from its ends."""


class BaseBlock(NamedTuple):
    """Numbers (B, *shape) of B decisions in a team's observation."""

    name: str
    shape: tuple[int, ...]


class BaseColumns:
    """Columns of a rule's decision: logarithms of its shares as they stand before their edge, and the logit of its
    temperatures. ScenarioError for an edge that leaves no room."""

    def __init__(self, facts: FleetFacts, rule: str, edge: float, classes: Sequence[str], sites: Sequence[str]) -> None:
        self.rule, self._facts, self._edge = rule, facts, edge
        n, kinds, trains, leads = len(sites), len(classes), len(facts.train), len(facts.deferrals_s)
        shared = [*sharers(facts, classes), "unused"]
        check_edge(facts, edge)
        if not edge:
            raise ScenarioError("controller.share_edge = 0 leaves a rule's shares of 0 without a logarithm; leave it "
                                "out")
        self.blocks = (BaseBlock(SITE, (kinds, n)), BaseBlock(RELEASE, (n, trains, leads)),
                       BaseBlock(GPUS, (n, len(shared))), BaseBlock(SUPPLY, (n,)))
        self.scale: dict[str, Any] = {"low": math.log((1.0 - BELOW) * edge), "high": 0.0}
        self.supply_scale: dict[str, Any] = {"low": -LOGIT, "high": LOGIT}
        self._released = np.array(facts.deferrable or [[True] * leads] * trains).sum(axis=-1)
        self._eligible = np.array(facts.eligible).sum(axis=1)
        self.manager = [[f"{SITE} {rule} {c} {s}" for s in sites] for c in classes]
        self.site = SiteBase([[f"{RELEASE} {rule} {classes[m]} +{lead:g}s" for lead in facts.deferrals_s]
                              for m in facts.train],
                             [f"{GPUS} {rule} {c}" for c in shared], f"{SUPPLY} {rule}")

    def of(self, decisions: Sequence[Decision]) -> Iterator[np.ndarray]:
        """The blocks' numbers (B, *shape)."""
        edge, facts = self._edge, self._facts
        count = len(decisions)
        share, release, gpus, degc = (
            np.array(x, float).reshape(count, *block.shape) for x, block in zip(
                ([d.site_share for d in decisions], [d.operation.deferral_share for d in decisions],
                 [[within_grants(facts, i, row) for i, row in enumerate(d.operation.gpu_share)] for d in decisions],
                 [d.operation.supply_temp_degc for d in decisions]), self.blocks, strict=True))
        for shares, parts in ((share, self._eligible[:, None]), (release, self._released[:, None]),
                              (gpus, gpus.shape[-1])):
            zeros = parts - (shares > 0.0).sum(axis=-1, keepdims=True)
            yield np.log(before_edge(shares, parts, edge, zeros))
        low, high = facts.supply_temp_low_degc, facts.supply_temp_high_degc
        most = 1.0 / (1.0 + math.exp(-LOGIT))
        place = np.clip((degc - low) / (high - low), 1.0 - most, most)
        yield np.log(place / (1.0 - place))


def within_grants(facts: FleetFacts, site: int, gpu_share: Vector) -> list[float]:
    """Shares of a site's GPUs of the `sharers`, and what is unused, that grant the same whole blocks as `gpu_share`
    (M,) and stand half a block from where they would not: (30) and (31) round down, and shares of exactly k blocks
    lose one by the last digit. Less than half where the GPUs left over are too few."""
    row, capacity = per_sharer(facts, gpu_share), facts.gpus[site]
    unused = max(0.0, 1.0 - sum(row))
    room = [block / 2.0 / capacity if share > 0.0 else 0.0
            for share, block in zip(row, sharer_blocks(facts), strict=True)]
    part = min(1.0, unused / total) if (total := sum(room)) else 0.0
    return [*(share + part * more for share, more in zip(row, room, strict=True)), max(0.0, unused - part * total)]


def rule_in(columns: Sequence[str]) -> str:
    """The rule by whose decision a manager's columns are, '' if none is."""
    return next((name.split(" ")[1] for name in columns if name.startswith(f"{SITE} ")), "")


def check_edge(facts: FleetFacts, edge: float) -> None:
    """ScenarioError where shares have more parts than there is room for above their edge."""
    most = max(facts.n_sites, len(facts.kinds) + 1, len(facts.deferrals_s))
    if edge * most > 0.5:
        raise ScenarioError(f"share_edge = {edge:g} of {most} parts leaves less than half of a share; make it at most "
                            f"{0.5 / most:.2g}")


class BaseRule:
    """A rule that goes on from day to day of an environment, whose clock begins at 0 again: the rule's does not."""

    def __init__(self, rule: Policy) -> None:
        self._rule, self._day_s = rule, 0.0
        self._last_s = -math.inf
        self._decision: Decision

    def shown(self, observation: Observation) -> Observation:
        """The observation with what the rule decides."""
        return replace(observation, base=self.decide(observation))

    def decide(self, observation: Observation) -> Decision:
        """What the rule decides; once for a moment, however often it is seen."""
        time_s = observation.time_s
        if time_s != self._last_s:
            if time_s < self._last_s:
                self._day_s += math.ceil((self._last_s - time_s) / DAY_S) * DAY_S
            self._last_s = time_s
            self._decision = _decide(self._rule, replace(observation, time_s=time_s + self._day_s))
        return self._decision


def _decide(rule: Policy, seen: Observation) -> Decision:
    """Both stages, of which the second has as many whole jobs of each class as a site may get by rounding: with the
    fractions that are expected, sites would lack a GPU for a request now and then."""
    share, sites = rule.place(seen), range(len(seen.power_kw))
    jobs = [[math.ceil(row[i] * n - ROUNDING) for row, n in zip(share, seen.arrivals, strict=True)] for i in sites]
    work_to = [[n * to / total if total else 0.0 for n, to, total in zip(
        of_site, seen.arrivals_work_to, seen.arrivals, strict=True)] for of_site in jobs]
    return Decision(share, rule.operate(seen, jobs, work_to))
