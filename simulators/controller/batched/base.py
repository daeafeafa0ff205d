"""What a rule decides in each of many environments, for a team that decides around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosim.agents.fleet.base import BaseColumns, BaseRule
from cosim.agents.fleet.decision import Observation

_AS_THEY_ARE = (
    "power_kw", "arrivals_work_to", "queued_jobs", "deferred_jobs", "running_jobs", "pending_work_to",
    "deferred_work_to", "free_gpu_ratio", "site_carry", "deferral_carry", "late_jobs", "urgent_jobs", "slack_min",
    "deferred_by_lead", "deferred_by_time", "price_usd_per_kwh", "forecast_usd_per_kwh")


class BaseRules:
    """The rules of environments, and their columns."""

    def __init__(self, rules: list[BaseRule], columns: BaseColumns, sees_carbon: bool) -> None:
        self._rules, self._columns, self._sees_carbon = rules, columns, sees_carbon

    def numbers(self, time_s: np.ndarray, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Name of a block -> (B, ...) its numbers. time_s: (B,) of this moment; known: fields of `Observation` but for
        those of events and forecasts over a horizon, (B, ...) each."""
        rows: dict[str, Any] = {name: known[name].tolist() for name in _AS_THEY_ARE}
        rows["arrivals"] = known["arrivals"].astype(int).tolist()
        for name in ("nci_kg_per_kwh", "mci_kg_per_kwh"):
            there = known[name] if self._sees_carbon else np.full((len(time_s), 1), np.nan)
            rows[name] = [None if np.isnan(x).any() else x.tolist() for x in there]
        decisions = []
        for b, (rule, now_s) in enumerate(zip(self._rules, time_s.tolist(), strict=True)):
            seen = Observation(time_s=now_s, **{name: of_all[b] for name, of_all in rows.items()})
            decisions.append(rule.decide(seen))
        return dict(zip((block.name for block in self._columns.blocks), self._columns.of(decisions), strict=True))
