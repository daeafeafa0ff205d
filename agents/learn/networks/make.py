"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.mat import Mat
from cosim.agents.learn.networks.network import PolicyNetwork
from cosim.agents.learn.networks.parallel import Mappo, MatDec, Transformer
from cosim.agents.learn.spec import TeamSpec

NETWORKS: dict[str, Callable[[TeamSpec, Learning, int, int], PolicyNetwork]] = {
    "mat": Mat, "mat-dec": MatDec, "transformer": Transformer, "mappo": Mappo}


def make_network(spec: TeamSpec, config: Learning, seed: int, terms: int = 0) -> PolicyNetwork:
    """A fresh network of `config.method`; the same seed gives the same weights. terms: values that its critic has per
    agent, 0: one of their sum."""
    return NETWORKS[config.method](spec, config, seed, terms)
