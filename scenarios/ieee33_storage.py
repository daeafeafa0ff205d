"""`ieee33_living` with a battery behind the first photovoltaic plant, and a rating of the trunk that binds.

The battery (1 MWh, 400 kW, 95 % each way; node 14) is planned four hours ahead by the dispatch's own objective, with
the profile's and the sources' values as their forecast, and ends the day as full as it began. The line at the
substation may carry 65 A (an assumption: the feeder states no ratings), which the afternoon would exceed.
"""

from __future__ import annotations

from cosim.scenario import Link
from cosim.scenarios import ieee33_living

_LIVING = ieee33_living.SCENARIO
_GRID, _PROFILE = _LIVING.members["grid"], _LIVING.members["profile"]

BATTERY = {"node": 14, "energy_max_kwh": 1000.0, "p_charge_max_kw": 400.0, "p_discharge_max_kw": 400.0,
           "energy_start_kwh": 300.0, "start_kg_per_kwh": 0.35}

SCENARIO = _LIVING.replace(
    name="ieee33_storage", about="ieee33_living with a battery that is planned ahead, and a full trunk",
    shared={**_LIVING.shared, "lookahead_steps": 16},
    links=(*_LIVING.links, Link(source="profile.p_ahead_kw", target="grid.p_ahead_kw"),
           Link(source="profile.q_ahead_kvar", target="grid.q_ahead_kvar")),
    members={
        **_LIVING.members,
        "profile": _PROFILE.model_copy(update={"simulator": "cosim.simulators.profile:ForecastProfile"}),
        "grid": _GRID.model_copy(update={
            "entities": {**_GRID.entities, "Battery": ["battery14"]},
            "params": {**_GRID.params, "batteries": {"battery14": BATTERY}, "line_limits": "ratings",
                       "max_current_a": {"0-1": 65.0}}})})
