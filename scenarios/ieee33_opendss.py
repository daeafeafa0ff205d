"""`ieee33` on OpenDSS: the same feeder and sites, its three turbines at fixed set points (extra `opendss`).

A circuit of your own: --set grid.master=FILE.dss, with the names of its buses in a scenario file like this one.
"""

from cosim.scenario import Member, rows_of
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_SOURCES = {name: {"bus": f"bus{s['node']}", "kg_per_kwh": s["kg_per_kwh"], "p_set_kw": 250.0 if s["node"] else 0.0,
                   "q_set_kvar": 200.0 if s["node"] else 0.0}
            for name, s in rows_of(_STUDY.members["grid"].params["sources"], "sources").items()}

SCENARIO = _STUDY.replace(
    name="ieee33_opendss", about="ieee33 on OpenDSS's power flow, turbines at fixed set points (extra opendss)",
    members={**_STUDY.members, "grid": Member(
        simulator="cosim.simulators.grid.opendss:OpenDss", step_s=900, entities=_STUDY.members["grid"].entities,
        params={"sources": _SOURCES})})
