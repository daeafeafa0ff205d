"""Jobs of a data center as events: queues, training pools, racks, the energy meter; and the study's slot model."""
