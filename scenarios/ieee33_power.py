"""`ieee33` in power mode: no carbon in the dispatch's objective, none in observations.

Rows: B08, I22.
"""

from cosim.scenarios._study import study

SCENARIO = study("ieee33_power", "ieee33 without the carbon signal: agents see prices only", policy="uniform",
                 mode="power", lambda_kw_per_kg_h=0.0)
