"""Three data centers on a medium-voltage network of 121 buses, with four photovoltaic plants, a battery and ratings.

The network is made up by formulas (`cosim.simulators.grid.network.rural`), and so are the day's series (as in
`ieee33_living`): it shows what a network of this size does, and stands for no place. The plants, of 3 and 2 MW, stand
at ends of feeders, data centers on three of these, the battery (2 MWh, 800 kW) beside the second plant. Ratings of all
lines are limits, voltages stay within 0.94 and 1.035 p.u., and what the sun gives beyond that is curtailed.
"""

from cosim.scenario import Link, Member
from cosim.scenarios._study import study
from cosim.scenarios.ieee33_living import average_kg_per_kwh, day, marginal_kg_per_kwh, pv_kw

SITES = {"aidc1": {"node": 10}, "aidc2": {"node": 31}, "aidc3": {"node": 97}}
_PLANTS = {"pv12": (12, 3000.0, 11.0, 0.25), "pv32": (32, 2000.0, 12.5, 0.35), "pv52": (52, 2000.0, 13.5, 0.3),
           "pv92": (92, 2000.0, 14.0, 0.2)}

SOURCES = {
    "substation": {"node": 0, "kg_per_kwh": day(average_kg_per_kwh, 4), "p_min_kw": -8000.0,
                   "marginal_kg_per_kwh": day(marginal_kg_per_kwh, 4)},
    **{name: {"node": node, "kg_per_kwh": 0.0, "p_max_kw": day(pv_kw(rated_kw, noon_h, clouds), 1),
              "q_min_kvar": -300.0, "q_max_kvar": 300.0, "renewable": True}
       for name, (node, rated_kw, noon_h, clouds) in _PLANTS.items()}}
BATTERY = {"node": 32, "energy_max_kwh": 2000.0, "p_charge_max_kw": 800.0, "p_discharge_max_kw": 800.0,
           "energy_start_kwh": 600.0, "start_kg_per_kwh": 0.3}

_STUDY = study("rural_mv", "three data centers on a made-up 10 kV network of 121 buses with PV, a battery and ratings",
               sites=SITES, lambda_kw_per_kg_h=0.1, train_rate_scale=0.42)
_GRID, _PROFILE = _STUDY.members["grid"], _STUDY.members["profile"]

SCENARIO = _STUDY.replace(
    shared={**_STUDY.shared, "network": "rural_mv", "lookahead_steps": 4},
    links=(*_STUDY.links, Link(source="profile.p_ahead_kw", target="grid.p_ahead_kw"),
           Link(source="profile.q_ahead_kvar", target="grid.q_ahead_kvar")),
    members={
        **_STUDY.members,
        "profile": Member(simulator="cosim.simulators.profile:ForecastProfile", step_s=900,
                          entities=_PROFILE.entities, params={"shape": "residential"}),
        "grid": _GRID.model_copy(update={
            "entities": {"Bus": "network", "Grid": ["grid"], "Battery": "batteries"},
            "params": {**_GRID.params, "sources": SOURCES, "batteries": {"battery32": BATTERY}, "vm_min_pu": 0.94,
                       "vm_max_pu": 1.035, "line_limits": "ratings", "curtailment_weight": 1.0}})})
