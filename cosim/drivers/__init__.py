"""From a scenario to a run: classes and parameters, connections, and the two drivers (a plain loop, the mosaik bus)."""
