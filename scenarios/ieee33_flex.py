"""`ieee33` with a demand-response event: a quarter less for three hours at ten minutes' notice.

The event begins an hour after the dear hours, when the training that waited for their end runs. Sites keep their caps:
training gives blocks back first, then new inference waits; what runs of it is finished. A reduction is counted from the
mean power of the 15 min before the announcement. Payment and penalty per kWh are assumptions of the usual size of
emergency products.
"""

from cosim.scenario import Link, Member
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_AIDC = _STUDY.members["aidc"]
EVENT = {"start_s": "16h", "length_s": "3h", "notice_s": "10min", "reduce_percent": 25.0, "penalty_usd_per_kwh": 1.0,
         "payment_usd_per_kwh": 0.5}

SCENARIO = _STUDY.replace(
    name="ieee33_flex", about="ieee33 with a demand-response event: -25 % for 3 h at 10 min notice",
    members={
        **_STUDY.members,
        "flexibility": Member(simulator="cosim.simulators.flexibility.adapter:DemandResponse", step_s=60,
                              entities={"Site": "sites"}, params={"events": [EVENT]}),
        "aidc": _AIDC.model_copy(update={"simulator": "cosim.simulators.aidc.capped:CappedDataCenters",
                                         "params": {**_AIDC.params, "offer": {"holds_s": ["15min", "1h", "3h", "6h"]}}})
    },
    links=(*_STUDY.links,
           Link(source="aidc.p_kw", target="flexibility.p_kw", shift_s="step"),
           Link(source="flexibility.p_cap_kw", target="aidc.p_cap_kw"),
           *(Link(source=f"flexibility.{port}", target=f"controller.{port}")
             for port in ("event_start_min", "event_end_min", "event_cap_kw"))))
