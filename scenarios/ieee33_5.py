"""`ieee33` with two more data centers, at nodes 20 and 23."""

from cosim.scenarios._study import SITES, study

SCENARIO = study("ieee33_5", "ieee33 with two more data centers at nodes 20 and 23",
                 sites={**SITES, "aidc4": {"node": 20}, "aidc5": {"node": 23}})
