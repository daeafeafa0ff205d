"""Discrete-event co-simulation of AI data centers, distribution grids and the agents that steer them."""

import cosim.imports  # noqa: F401  (names of earlier versions resolve from here on)

__version__ = "0.1.0"
