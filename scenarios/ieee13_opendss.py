"""Two data centers on IEEE's 13-node feeder in OpenDSS, with a photovoltaic plant and a battery that can be set.

The feeder is unbalanced, with a regulator that OpenDSS steps (extra `opendss`); its values are the published ones. Its
own loads (3.5 MW) follow a daily curve of mean 0.7; plant and battery stand at bus 675. Both run by a timetable that
any member can overrule over `p_set_kw` of their entities. The day's series are made by formulas, as in `ieee33_living`.
A circuit of your own: cosim new mine.yaml --network FILE.dss --site NAME=BUS:GPUS.
"""

import math

from cosim.scenario import Member
from cosim.scenarios._study import study
from cosim.scenarios.ieee33_living import average_kg_per_kwh, day, pv_kw

SITES = {name: {"node": bus, "racks": 25, "idle_kw": 50.0} for name, bus in (("aidc1", "671"), ("aidc2", "633"))}


def _load(hour: float) -> float:
    """What the feeder's loads are multiplied by: highest in the early evening."""
    return 0.7 + 0.15 * math.cos(2.0 * math.pi * (hour - 18.0) / 24.0) + 0.06 * math.cos(math.pi * (hour - 19.0) / 6.0)


def _battery(hour: float) -> float:
    """It charges around noon and gives back in the evening, kW."""
    return -150.0 if 10.0 <= hour < 14.0 else 135.0 if 18.0 <= hour < 22.0 else 0.0


SOURCES = {"substation": {"bus": "650", "kg_per_kwh": 0.4},
           "pv675": {"bus": "675", "kg_per_kwh": 0.0, "p_set_kw": day(pv_kw(900.0, 12.0, 0.3), 1)}}
BATTERY = {"node": 675, "energy_max_kwh": 800.0, "p_charge_max_kw": 200.0, "p_discharge_max_kw": 200.0,
           "energy_start_kwh": 200.0, "start_kg_per_kwh": round(average_kg_per_kwh(0.0), 4)}

_STUDY = study("ieee13_opendss", "two data centers on IEEE's 13-node feeder in OpenDSS, PV and a battery to set (extra "
               "opendss)", sites=SITES, train_rate_scale=0.25, inf_size_scale=0.006)

SCENARIO = _STUDY.replace(
    shared={name: table for name, table in _STUDY.shared.items() if name != "network"},
    links=[link for link in _STUDY.links if not link.source.startswith("profile.")],
    members={
        **{name: member for name, member in _STUDY.members.items() if name != "profile"},
        "grid": Member(simulator="cosim.simulators.grid.opendss:OpenDss", step_s="15min",
                       entities={"Bus": "network", "Grid": ["grid"], "Source": ["pv675"], "Battery": "batteries"},
                       params={"master": "ieee13", "sources": SOURCES, "batteries": {"battery675": BATTERY},
                               "battery_set_kw": {"battery675": day(_battery, 1)}, "load_mult": day(_load, 4)})})
