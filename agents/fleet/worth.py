"""What energy is worth in units of (32), and the supply air at which a site draws least: for policies with a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosim.agents.fleet.decision import EnergyModel, FleetFacts, Observation, Vector
from cosim.agents.fleet.rewards import RewardWeights
from cosim.errors import ModelError
from cosim.units import KG_PER_T

TEMPERATURE_STEP_K = 0.25


def worth_of_kwh(weights: RewardWeights, price_usd_per_kwh: Any, kg_per_kwh: Any) -> Any:
    """What a kWh costs, floats or arrays."""
    return weights.c2_per_usd * price_usd_per_kwh + weights.c3_per_t * kg_per_kwh / KG_PER_T


class CountedCarbon:
    """The intensity that R3 counts, as far as a policy is shown it; while there is no marginal one, as where the grid
    can carry no kW more, the last one counts."""

    def __init__(self, weights: RewardWeights, policy: str) -> None:
        self._weights, self._policy = weights, policy
        self._last: Vector | None = None

    def name(self, observation: Observation) -> str | None:
        """`nci`, `mci`, or None in power mode, where c3 is 0."""
        if observation.nci_kg_per_kwh is None or not self._weights.c3_per_t:
            return None
        return "nci" if self._weights.carbon == "attributed" else "mci"

    def now(self, observation: Observation) -> Vector:
        """(N,) what one kWh adds to R3 at each site, kg; zeros in power mode. ModelError for a marginal intensity that
        has never been known."""
        name = self.name(observation)
        if name is None:
            return [0.0] * len(observation.power_kw)
        found = observation.nci_kg_per_kwh if name == "nci" else observation.mci_kg_per_kwh
        self._last = self._last if found is None else found
        if self._last is None:
            raise ModelError(f"policy {self._policy} with reward.carbon = {self._weights.carbon} decides by marginal "
                             "intensities and hears none: --set grid.mci=true, or --set "
                             "controller.reward.carbon=attributed")
        return self._last


class SupplyAir:
    """Temperatures of supply air that a site can choose from."""

    def __init__(self, facts: FleetFacts, energy: EnergyModel) -> None:
        low, high = facts.supply_temp_low_degc, facts.supply_temp_high_degc
        self._energy = energy
        self._degc = np.linspace(high, low, max(2, round((high - low) / TEMPERATURE_STEP_K) + 1))

    def best_degc(self, site: int, it_kw: float) -> float:
        """Where a site draws least at an IT power; the warmest of equals, degC."""
        return float(self._degc[int(np.argmin(np.round(self._drawn(site, it_kw), 9)))])

    def least_kw(self, site: int, it_kw: float) -> float:
        """What it draws there, kW."""
        return float(np.min(self._drawn(site, it_kw)))

    def _drawn(self, site: int, it_kw: float) -> Any:
        return self._energy.site_kw(site, it_kw, self._degc)
