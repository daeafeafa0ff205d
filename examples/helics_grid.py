"""A HELICS federation in the grid's place: the grid of own_grid.py as a federate in a process of its own.

    cosim run examples/helics_grid.py --until 2h

The run starts a broker on this machine and this file as the federate; its keys and units are its own.
"""

import math
import sys
from pathlib import Path

from cosim.scenario import Member
from cosim.scenarios.ieee33 import SCENARIO as IEEE33

STEP_S = 900.0
FEDERATE = f'helics: "%(python)s" "{Path(__file__).resolve()}" %(broker)s'
_GRID = Member(simulator=FEDERATE, step_s="15min", entities={"Bus": "network"},
               params={"publications": {"Bus": {"p_load_kw": {"name": "cosim/load", "unit": "MW"},
                                                "q_load_kvar": None}},
                       "subscriptions": {"Bus": {"nci_kg_per_kwh": "grid/nci"}}})
SCENARIO = IEEE33.replace(name="helics_grid", about="three data centers on a grid that is a HELICS federate",
                          members={**IEEE33.members, "grid": _GRID})


def federate(broker: str, end_s: float = math.inf, sun_mw: float = 3.0) -> None:
    """Join, and answer the load of every step with the carbon intensity of what is consumed, g/kWh."""
    import helics as h

    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, "zmq_ss")
    h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 --broker={broker} --loglevel=no_print")
    h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, STEP_S)
    h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_WAIT_FOR_CURRENT_TIME_UPDATE, True)  # answers the same tick
    grid = h.helicsCreateValueFederate("grid", info)
    nci = h.helicsFederateRegisterGlobalPublication(grid, "grid/nci", h.HELICS_DATA_TYPE_DOUBLE, "g/kWh")
    load = h.helicsFederateRegisterSubscription(grid, "cosim/load", "kW")  # HELICS converts from MW
    h.helicsFederateEnterExecutingMode(grid)
    time_s = 0.0
    while time_s < end_s:
        load_kw = h.helicsInputGetDouble(load)
        sun_kw = 1000.0 * sun_mw * max(0.0, math.sin(2 * math.pi * (time_s / 86400.0 - 0.25)))
        h.helicsPublicationPublishDouble(nci, 800.0 * max(0.0, 1.0 - sun_kw / load_kw) if load_kw > 0 else 0.0)
        time_s = h.helicsFederateRequestTime(grid, time_s + STEP_S)
        if not h.helicsInputIsUpdated(load):  # the run is over
            break
    h.helicsFederateDisconnect(grid)


if __name__ == "__main__":
    federate(sys.argv[1], *map(float, sys.argv[2:]))
