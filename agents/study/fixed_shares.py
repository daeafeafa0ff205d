"""The myopic oracle with the manager's shares fixed: what S-MAT is to MAT, without training."""

from __future__ import annotations

import numpy as np

from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation
from cosim.agents.fleet.heuristics import PolicyOptions, Static
from cosim.agents.fleet.oracle import MyopicOracle


class FixedShares(MyopicOracle):
    """Jobs go to the sites in the shares of `controller.weights`; what sites do with them is the oracle's."""

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        super().__init__(facts, options, rng)
        self._static = Static(facts, options, rng)

    def place(self, observation: Observation) -> Matrix:
        """(M, N) shares of the arrivals of each class."""
        super().place(observation)  # what arrives is its measure of a job's size, wherever it is sent
        return self._static.place(observation)
