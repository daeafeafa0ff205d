"""Results of a study's cells, looked up by the cases that figures and claims are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.fleet.rewards import RewardWeights, reward_of
from cosim.agents.study.plan import FIRST_SEED, LAMBDA_CELL, Case, Tier, bound_key
from cosim.tables.files import Columns, read_columns
from cosim.units import DAY_S, MIN_S

_MIN_PER_DAY = DAY_S / MIN_S


@dataclass(frozen=True)
class Results:
    """What finished cells returned, by key, and the folder that they wrote into."""

    results: Mapping[str, Mapping[str, Any]]
    cells: Path
    tier: Tier

    @property
    def seeds(self) -> range:
        """Seeds of the evaluations."""
        return range(FIRST_SEED, FIRST_SEED + self.tier.seeds)

    def of(self, case: Case) -> list[Mapping[str, Any]] | None:
        """One result per seed; None where one is missing."""
        found = [self.results.get(case.key(seed)) for seed in self.seeds]
        return None if None in found else [one for one in found if one is not None]

    def metric(self, case: Case, name: str) -> tuple[float, ...]:
        """A figure of Table II, `objective` or `dropped` (jobs of both kinds), per seed; () where the case was not
        run."""
        return tuple(_number(self._metric(one["metrics"], name)) for one in self.of(case) or ())

    @staticmethod
    def _metric(metrics: Mapping[str, Any], name: str) -> Any:
        if name == "objective":
            return objective(metrics)
        if name == "dropped":
            return _number(metrics["dropped_train"]) + _number(metrics["dropped_inf"])
        return metrics[name]

    def sites(self, case: Case, name: str) -> np.ndarray:
        """(seeds, sites) or (seeds,) of a figure of the sites; (0,) where the case was not run."""
        return np.array([np.array(one["sites"][name], float) for one in self.of(case) or ()])

    def names(self, case: Case) -> list[str]:
        """The sites."""
        found = self.of(case)
        return list(found[0]["sites"]["names"]) if found else []

    def bounded(self, world: str, name: str, of: str) -> tuple[float, ...]:
        """A metric per seed of a run of `uniform` from an empty fleet to an empty fleet (of: `metrics`), or what no
        policy can beat at its arrivals (`bounds`); () where it was not worked out."""
        found = [self.results.get(bound_key(world, seed)) for seed in self.seeds]
        return () if None in found else tuple(_number(one[of][name]) for one in found if one)

    def table(self, case: Case, name: str, k: int = 0) -> Columns | None:
        """A table that the case's cell wrote for the k-th seed: `quarters` or `starts`."""
        key = case.key(FIRST_SEED + k)
        return read_columns(self.cells / key / f"{name}.csv") if key in self.results else None

    @cached_property
    def sweep(self) -> Mapping[str, Any] | None:
        """The sweep over lambda: `lambdas`, `means`, `loss_mwh` and `emission_t` (means, lambdas), `thresholds`."""
        return self.results.get(LAMBDA_CELL)


def objective(metrics: Mapping[str, Any]) -> float:
    """(32) of a day from its figures, with the default weights and carbon counted, whatever a policy went by: what all
    are judged by."""
    weights = RewardWeights()
    terms = (_number(metrics["throughput"]) * 1e6 / weights.reference_to_per_min * _MIN_PER_DAY,
             _number(metrics["cost_usd"]), _number(metrics["co2_t"]), _number(metrics["dropped_train"]),
             _number(metrics["dropped_inf"]))
    return reward_of(terms, weights)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
