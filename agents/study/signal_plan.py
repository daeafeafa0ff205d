"""What the study of a signal computes: the signals, the points at which they are compared, and the cells.

One rule, the myopic oracle, follows every signal, so that nothing but the signal differs: where jobs go and when
training runs. A forecast has another one, the planner `mpc`, which looks a day ahead. The weight of a signal is set so
that a kWh at its usual level is worth the same, whatever the signal is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from cosim.agents.recorded_jobs import settings_with
from cosim.agents.study.plan import FIRST_SEED
from cosim.campaign.cells import Cell
from cosim.request import find

_C2 = 0.02
_C3 = 4.0
"""A kWh at 0.1 USD and at 0.5 kg: 0.002 of (32) both."""
_CARBON = {"controller.reward.c2_per_usd": 0.0, "controller.reward.c3_per_t": _C3}
_MARGINAL = {**_CARBON, "controller.reward.carbon": "marginal"}
_OWN = "cosim.agents.study.own_effect:OwnEffect"


@dataclass(frozen=True, slots=True)
class FollowedSignal:
    """A signal: how it is called, who follows it, and the weights by which it is followed."""

    label: str
    policy: str
    settings: Mapping[str, Any]


SIGNALS = {
    "none": FollowedSignal("none", "myopic_oracle", {
        "controller.reward.c2_per_usd": 0.0, "controller.reward.c3_per_t": 0.0}),
    "price": FollowedSignal("price", "myopic_oracle", {
        "controller.reward.c2_per_usd": _C2, "controller.reward.c3_per_t": 0.0}),
    "nci": FollowedSignal("NCI", "myopic_oracle", _CARBON),
    "mci": FollowedSignal("MCI", "myopic_oracle", _MARGINAL),
    "mci_own": FollowedSignal("MCI and own effect", _OWN, _MARGINAL),
    "forecast": FollowedSignal("forecast of MCI", "mpc", _MARGINAL),
}
"""The first is what the others are compared with."""


@dataclass(frozen=True, slots=True)
class StudyFeeder:
    """A feeder and its sources: scenario, settings, the lambda that it has, and what it is."""

    scenario: str
    about: str
    lambda_kw_per_kg_h: float
    battery: str = ""


FEEDERS = {
    "ieee33": StudyFeeder("ieee33", "IEEE 33 nodes, three turbines at constant intensities, 77 % load", 0.01),
    "living": StudyFeeder("ieee33_living", "the same with two PV plants and upstream intensities that move, 52 % load",
                           0.1, "ieee33_storage"),
    "cigre": StudyFeeder("cigre_living", "the CIGRE medium-voltage feeder, three turbines of 2 MW, two PV plants", 0.1),
}


@dataclass(frozen=True, slots=True)
class Point:
    """Where signals are compared. load: times the arrivals; fleet: times GPUs and arrivals; battery: one on the
    feeder; jobs: which of them are recorded ones, as in `cosim.agents.recorded_jobs`; "" for none."""

    feeder: str
    lambda_kw_per_kg_h: float
    load: float = 1.0
    fleet: float = 1.0
    battery: bool = False
    jobs: str = ""

    @property
    def key(self) -> str:
        """In keys of cells and in tables of numbers."""
        return (f"{self.feeder}-lambda{self.lambda_kw_per_kg_h:g}-load{self.load:g}-fleet{self.fleet:g}"
                + ("-battery" if self.battery else "") + (f"-{self.jobs}" if self.jobs else ""))

    @property
    def label(self) -> str:
        """For people: the feeder and what differs from its usual point."""
        return ", ".join([self.feeder] + [self.change] * (self.change != "usual"))

    @property
    def change(self) -> str:
        """What differs from the feeder's usual point; `usual` for that one."""
        usual = Point(self.feeder, FEEDERS[self.feeder].lambda_kw_per_kg_h)
        apart = [f"lambda {self.lambda_kw_per_kg_h:g}"] * (self.lambda_kw_per_kg_h != usual.lambda_kw_per_kg_h)
        apart += [f"load x {self.load:g}"] * (self.load != 1.0) + [f"fleet x {self.fleet:g}"] * (self.fleet != 1.0)
        apart += ["battery"] * self.battery + [f"recorded {self.jobs}"] * bool(self.jobs)
        return ", ".join(apart) or "usual"


LAMBDAS, LOADS, FLEETS = (0.0, 0.01, 0.1), (0.6, 1.0), (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class SignalTier:
    """How much is computed: feeders, seeds, days of arrivals; whether factors are crossed or varied one by one; traces:
    of what there are recorded jobs -> their file, at each feeder's usual point, in a crossed tier at every lambda."""

    name: str
    about: str
    feeders: tuple[str, ...]
    seeds: int
    crossed: bool = False
    days: float = 1.0
    signals: tuple[str, ...] = tuple(SIGNALS)
    traces: Mapping[str, str] = field(default_factory=dict)


SIGNAL_TIERS = {tier.name: tier for tier in (
    SignalTier("quick", "three feeders, one factor at a time, one seed", tuple(FEEDERS), 1),
    SignalTier("full", "three feeders, all factors crossed, three seeds", tuple(FEEDERS), 3, True))}


def points(tier: SignalTier) -> Iterator[Point]:
    """Where the signals of a tier are compared, each feeder's usual point first."""
    for name in tier.feeders:
        feeder = FEEDERS[name]
        usual = Point(name, feeder.lambda_kw_per_kg_h)
        if tier.crossed:
            found = [usual, *(Point(name, lam, load, fleet) for lam, load, fleet in product(LAMBDAS, LOADS, FLEETS))]
        else:
            found = [usual, *(replace(usual, lambda_kw_per_kg_h=lam) for lam in LAMBDAS),
                     *(replace(usual, load=load) for load in LOADS), *(replace(usual, fleet=fleet) for fleet in FLEETS)]
        if feeder.battery:
            found.append(replace(usual, battery=True))
        lambdas = LAMBDAS if tier.crossed else (feeder.lambda_kw_per_kg_h,)
        found += [replace(usual, lambda_kw_per_kg_h=lam, jobs=jobs) for jobs in tier.traces for lam in lambdas]
        yield from dict.fromkeys(found)


def settings_at(point: Point) -> dict[str, Any]:
    """What is set in the feeder's scenario at a point."""
    racks, cooling = round(50 * point.fleet), {name: value * point.fleet for name, value in (
        ("fan_flow_m3_per_s", 21.5), ("tower_ref_kw", 6.0), ("tower_flow_m3_per_s", 11.0))}
    found: dict[str, Any] = {"grid.lambda_kw_per_kg_h": point.lambda_kw_per_kg_h,
                             "workload.rate_scale": point.load * point.fleet}
    if point.fleet != 1.0:
        for site in ("aidc1", "aidc2", "aidc3"):
            found |= {f"shared.sites.{site}.racks": racks, f"shared.sites.{site}.idle_kw": 100.0 * point.fleet}
        found |= {f"{member}.cooling": cooling for member in ("aidc", "controller")}
    if point.battery:
        found |= {"grid.max_current_a": {}, "grid.line_limits": "none"}
    return found


def signal_key(point: Point, signal: str, seed: int) -> str:
    """Key of a cell."""
    return f"{point.key}-{signal}-s{seed}"


def signal_cells(tier: SignalTier) -> list[Cell]:
    """The cells of a tier. ScenarioError for its traces."""
    cells = []
    for point in points(tier):
        feeder = FEEDERS[point.feeder]
        scenario = feeder.battery if point.battery else feeder.scenario
        settings = settings_at(point)
        if point.jobs:
            settings |= settings_with(find(scenario), point.jobs, tier.traces[point.jobs])
        for name in tier.signals:
            signal = SIGNALS[name]
            for seed in range(FIRST_SEED, FIRST_SEED + tier.seeds):
                arguments: dict[str, Any] = {
                    "scenario": scenario, "policy": signal.policy, "settings": {**settings, **signal.settings},
                    "seed": seed, "days": tier.days,
                    **({"bound": True} if name == "none" else {})}
                cells.append(Cell(signal_key(point, name, seed), "cosim.agents.study.followed:followed", arguments))
    return cells
