"""The policies by name."""

from __future__ import annotations

from agents.config import Learning
from agents.networks.mat import Mat
from agents.networks.network import Network
from agents.networks.parallel import Mappo, MatDec, Transformer
from agents.spec import TeamSpec

NETWORKS = {"mat": Mat, "mat-dec": MatDec, "transformer": Transformer, "mappo": Mappo}


def make_network(spec: TeamSpec, config: Learning, seed: int) -> Network:
    """A fresh network of `config.method`; the same seed gives the same weights."""
    return NETWORKS[config.method](spec, config, seed)
