"""Discrete-event co-simulation of AI data centers, distribution grids and the agents that steer them."""

from cosim.imports import refuse_shadows  # names of earlier versions resolve from here on

__version__ = "0.1.0"

refuse_shadows()
