"""A rule that counts what its own load does to the marginal intensity it goes by."""

from __future__ import annotations

import numpy as np

from cosim.agents.fleet.decision import FleetFacts, Observation, Vector
from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.oracle import MyopicOracle
from cosim.agents.fleet.rewards import RewardWeights
from cosim.agents.fleet.worth import CountedCarbon

_KEPT = 0.98
"""Of the weight of what was learned, from one reading to the next."""
_LEAST_KW = 5.0
"""A change of power from which something can be learned."""
_RIDGE_KW2 = 1e4
"""Weight of there being no effect, as that of a change of 100 kW."""
_MOST_KG_PER_KWH = 2.0


class OwnEffect(MyopicOracle):
    """The myopic oracle with marginal intensities as they would be with equal load at all sites."""

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        super().__init__(facts, options, rng)
        self._carbon: CountedCarbon = CarbonAtEqualLoad(options.reward, facts.n_sites)


class CarbonAtEqualLoad(CountedCarbon):
    """Marginal intensities of the sites, each moved along its own slope to the mean power of the sites.

    How a site's marginal intensity answers to its own power is learned while it runs: the slope by least squares
    through the changes from one reading to the next, older ones counting less. So load which has made a site look clean
    by leaving it does not come back for that reason. An attributed intensity stays as it is.
    """

    def __init__(self, weights: RewardWeights, n_sites: int) -> None:
        super().__init__(weights, "OwnEffect")
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._products = np.zeros(n_sites)
        self._squares = np.full(n_sites, _RIDGE_KW2)

    @property
    def slopes(self) -> np.ndarray:
        """(N,) what one kW more does to each site's marginal intensity, kg/kWh."""
        return self._products / self._squares

    def now(self, observation: Observation) -> Vector:
        """(N,) what one kWh adds to R3 at each site at equal load, kg."""
        found = super().now(observation)
        if self.name(observation) != "mci":
            return found
        mci, power_kw = np.array(found), np.array(observation.power_kw)
        if self._before is None or not np.array_equal(self._before[0], mci):  # the grid has dispatched anew
            if self._before is not None:
                self._learn(mci - self._before[0], power_kw - self._before[1])
            self._before = (mci, power_kw)
        at_mean = mci + self.slopes * (power_kw.mean() - power_kw)
        return [float(x) for x in np.clip(at_mean, 0.0, _MOST_KG_PER_KWH)]

    def _learn(self, change_kg_per_kwh: np.ndarray, change_kw: np.ndarray) -> None:
        moved = np.abs(change_kw) >= _LEAST_KW
        self._products = _KEPT * self._products + np.where(moved, change_kg_per_kwh * change_kw, 0.0)
        self._squares = np.maximum(_KEPT * self._squares, _RIDGE_KW2) + np.where(moved, change_kw**2, 0.0)
