"""Somebody else's grid: mosaik-pandapower-2 from PyPI (extra `pandapower2`) solves the AC power flow, `carbon` beside
it turns its bus powers into NCI, and three turbines run at fixed set points.

What it takes to plug it in is all here: its names ('P_load[MW]', 'Bus-8'), its way to create a grid, its step in bus
units. Units convert by themselves. Its network brings its own loads at nominal size, so there is no profile.
"""

from cosim.scenario import Link, Member
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_BUSES = [f"bus{k}" for k in range(33)]
_TURBINES = {"gt6": (6, 0.35), "gt25": (25, 0.65), "gt30": (30, 0.90)}
_AT_BUS = {f"Bus-{k}": bus for k, bus in enumerate(_BUSES)}

SCENARIO = _STUDY.replace(
    name="plug_pandapower", about="ieee33 with mosaik-pandapower-2 as the grid and a carbon member beside it",
    members={
        **{name: _STUDY.members[name] for name in ("workload", "tariff", "controller", "aidc")},
        "turbines": Member(simulator="cosim.simulators.grid.carbon:FixedSources", step_s=900,
                           entities={"Source": list(_TURBINES)},
                           params={"set_points_kw": dict.fromkeys(_TURBINES, 400.0)}),
        "grid": Member(simulator="mosaik_components.pandapower:Simulator", step_s=900, params={"step_size": 15},
                       entities={"Grid": {"network_function": "case33bw"}}),
        "carbon": Member(simulator="cosim.simulators.grid.carbon:CarbonFlow", step_s=900,
                         entities={"Bus": "network", "Source": list(_TURBINES), "Carbon": ["carbon"]},
                         params={"sources": {"substation": {"node": 0, "kg_per_kwh": 0.30}} | {
                             name: {"node": node, "kg_per_kwh": w} for name, (node, w) in _TURBINES.items()}}),
    },
    links=[
        *(link for link in _STUDY.links if "grid" not in (link.source.split(".")[0], link.target.split(".")[0])),
        Link(source="aidc.p_window_kw", target="grid.P_load[MW]", pairs="sites:Bus-{node}", shift_s="step"),
        Link(source="aidc.q_window_kvar", target="grid.Q_load[MVar]", pairs="sites:Bus-{node}", shift_s="step"),
        Link(source="turbines.p_kw", target="grid.P_gen[MW]", pairs={n: f"Bus-{k}" for n, (k, _) in _TURBINES.items()}),
        Link(source="turbines.p_kw", target="carbon.p_kw"),
        Link(source="grid.Bus.P[MW]", target="carbon.p_net_kw", pairs=_AT_BUS),
        Link(source="grid.Bus.Q[MVar]", target="carbon.q_net_kvar", pairs=_AT_BUS),
        Link(source="carbon.nci_kg_per_kwh", target="controller.nci_kg_per_kwh", pairs="sites:bus{node}"),
    ])
