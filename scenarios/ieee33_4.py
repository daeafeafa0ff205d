"""`ieee33` with a fourth data center, at node 20."""

from cosim.scenarios._study import SITES, study

SCENARIO = study("ieee33_4", "ieee33 with a fourth data center at node 20", sites={**SITES, "aidc4": {"node": 20}})
