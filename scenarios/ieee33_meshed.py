"""`ieee33` with its five tie lines closed: a meshed network under AC power flow alone, its turbines in merit order.

No optimiser: the substation, at 0.10 USD/kWh, gives way to the two turbines that are cheaper. NCI follows the flows.
"""

from cosim.scenario import Member, rows_of
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_PRICES = {"substation": 0.10, "gt6": 0.08, "gt25": 0.09, "gt30": 0.12}
_SOURCES = {name: {"node": s["node"], "kg_per_kwh": s["kg_per_kwh"], "p_max_kw": s["p_max_kw"] or 0.0,
                   "q_set_kvar": 200.0 if s["node"] else 0.0, "price_usd_per_kwh": _PRICES[name]}
            for name, s in rows_of(_STUDY.members["grid"].params["sources"], "sources").items()}

SCENARIO = _STUDY.replace(
    name="ieee33_meshed", about="ieee33 with its tie lines closed: AC power flow of a mesh, turbines in merit order",
    members={**_STUDY.members, "grid": Member(
        simulator="cosim.simulators.grid.ac:AcPowerFlow", step_s=900, entities=_STUDY.members["grid"].entities,
        params={"sources": _SOURCES, "dispatch": "merit", "closed_lines": [32, 33, 34, 35, 36]})})
