"""The day of `ieee33_living` on another feeder: the CIGRE medium-voltage benchmark network.

The network and its loads are pandapower's `create_cigre_network_mv` (15 buses, 20 kV); its loads follow the profile.
The upstream series and the plants' shape are those of `ieee33_living`. The three turbines and the two photovoltaic
plants are assumptions: four times as large as there, since the feeder carries ten times as much, and beside the data
centers in the order of their intensities.
"""

from __future__ import annotations

from cosim.scenarios._study import SOURCES as STUDY_SOURCES
from cosim.scenarios.ieee33_living import SCENARIO as LIVING
from cosim.scenarios.ieee33_living import average_kg_per_kwh, day, marginal_kg_per_kwh, pv_kw

_NODES = {"aidc1": 4, "aidc2": 8, "aidc3": 13}
_GRID, _PROFILE = LIVING.members["grid"], LIVING.members["profile"]


def _turbine(node: int, kg_per_kwh: float) -> dict[str, object]:
    return {"node": node, "kg_per_kwh": kg_per_kwh, "p_min_kw": 0.0, "p_max_kw": 2000.0, "q_min_kvar": -1200.0,
            "q_max_kvar": 1200.0}


def _pv(node: int, noon_h: float) -> dict[str, object]:
    return {"node": node, "kg_per_kwh": 0.0, "p_max_kw": day(pv_kw(2800.0, noon_h, 0.3), 1), "q_min_kvar": 0.0,
            "q_max_kvar": 0.0, "renewable": True}


_UPSTREAM = {**STUDY_SOURCES["substation"], "kg_per_kwh": day(average_kg_per_kwh, 4),
             "marginal_kg_per_kwh": day(marginal_kg_per_kwh, 4)}
SOURCES = {"substation": _UPSTREAM, "gt4": _turbine(4, 0.35), "gt8": _turbine(8, 0.65),
           "gt13": _turbine(13, 0.90), "pv5": _pv(5, 10.5), "pv14": _pv(14, 14.5)}

SCENARIO = LIVING.replace(
    name="cigre_living", about="the day of ieee33_living on the CIGRE medium-voltage feeder",
    shared={**LIVING.shared, "network": "create_cigre_network_mv", "sites": {
        name: {"node": node} for name, node in _NODES.items()}},
    members={**LIVING.members,
             "grid": _GRID.model_copy(update={"entities": {"Bus": "network", "Grid": ["grid"]},
                                              "params": {**_GRID.params, "sources": SOURCES}}),
             "profile": _PROFILE.model_copy(update={"entities": {"Load": "network"}})})
