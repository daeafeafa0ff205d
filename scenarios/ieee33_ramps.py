"""`ieee33` with turbines that ramp slowly, and a dispatch that plans the next hour.

Each turbine changes by at most 2 kW a minute (30 kW per interval; an assumption, 0.4 % of its rating per minute). The
dispatch plans 4 intervals together; the profile forecasts its own values.
"""

from cosim.scenario import Link, Member, rows_of
from cosim.scenarios import ieee33

RAMP_KW_PER_MIN = 2.0
_STUDY = ieee33.SCENARIO
_GRID, _PROFILE = _STUDY.members["grid"], _STUDY.members["profile"]
_SOURCES = {name: s if name == "substation" else {**s, "ramp_kw_per_min": RAMP_KW_PER_MIN}
            for name, s in rows_of(_GRID.params["sources"], "sources").items()}

SCENARIO = _STUDY.replace(
    name="ieee33_ramps", about="ieee33 with ramp limits of 2 kW/min and an hour's look-ahead",
    shared={**_STUDY.shared, "lookahead_steps": 4},
    links=(*_STUDY.links, Link(source="profile.p_ahead_kw", target="grid.p_ahead_kw"),
           Link(source="profile.q_ahead_kvar", target="grid.q_ahead_kvar")),
    members={
        **_STUDY.members,
        "profile": Member(simulator="cosim.simulators.profile:ForecastProfile", step_s=_PROFILE.step_s,
                          entities=_PROFILE.entities, params=_PROFILE.params),
        "grid": Member(simulator=_GRID.simulator, step_s=_GRID.step_s, entities=_GRID.entities,
                       params={**_GRID.params, "sources": _SOURCES})})
