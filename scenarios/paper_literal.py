"""Table I and equations (1)-(39) verbatim (model.md 5.4): what the paper's numbers do when nothing is corrected.

Inference is offered at eight times the capacity and a training job has one minute to do the work of ten hours, so
nearly everything is dropped (2.2, 2.3); the cooling as printed has a PUE of 4 to 53, more than the feeder can carry.
The run goes to its end and reports it: drops, PUE, elastic and held intervals. Column L of model.md 3 has the readings.

Rows: I01-03, I07-11, I13, I14, I19.
"""

from cosim.scenario import Scenario
from cosim.scenarios._study import (
    ARRIVALS,
    SCENARIO_HOOKS,
    SHARED,
    SITES,
    SOURCES,
    links,
    members,
)

_MEMBERS = members(
    grid={"sources": SOURCES},
    profile={},
    workload={"arrivals": ARRIVALS},  # I01, I02: sizes and rates of Table I; I14: Poisson
    controller={"policy": "nci_priority", "rounding": "stateless", "long_deferrals": "as_printed"},  # I13, U15
    aidc={"cooling": "literal", "reading": "fractional"},  # I03, I07-I11
    arrivals_class="Arrivals")

SCENARIO = Scenario(
    name="paper_literal", about="Table I and (1)-(39) verbatim: drops nearly everything, and says so",
    shared={**SHARED, "sites": SITES},
    members={
        **_MEMBERS,
        "tariff": _MEMBERS["tariff"].model_copy(update={"params": {"boundary": "closed"}}),  # I19
        "aidc": _MEMBERS["aidc"].model_copy(update={"simulator": "cosim.simulators.aidc.adapter:SlotDataCenters"}),
    },
    links=links(), **SCENARIO_HOOKS)
