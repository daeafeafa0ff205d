"""`ieee33` with plants and rooms as they are: weather, free cooling, servers whose power depends on temperature,
losses, inertia.

The outside wet bulb swings by 4 K around 14 degC, warmest at 15:00. Where it is cool enough a water-side economiser
takes the heat past the chiller, whose COP follows the weather. Servers leak more and turn their fans faster as their
inlets get warm, so that the warmest supply air is not the cheapest; the UPS loses 2 % without load and 3 % with it;
rooms take five minutes to warm, and a plant removes 450 kW at most. The figures are assumptions of the usual size, not
those of a site.
"""

from cosim.scenario import Member
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_AIDC, _CONTROLLER = _STUDY.members["aidc"], _STUDY.members["controller"]

COOLING = {"return_approach_degc": -4.0, "cop_outside_degc": 18.0, "capacity_kw": 450.0, "server_reference_degc": 22.0,
           "server_leakage_per_k": 0.003, "server_fan_ratio": 0.08, "server_fan_speed_per_k": 0.06,
           "loss_no_load_ratio": 0.02, "loss_linear_ratio": 0.03, "auxiliary_kw": 4.0}

SCENARIO = _STUDY.replace(
    name="ieee33_climate", about="ieee33 with weather, free cooling, leakage, UPS losses, rooms that take time to warm",
    members={
        **_STUDY.members,
        "controller": _CONTROLLER.model_copy(update={"params": {
            **_CONTROLLER.params, "policy": "nci_priority", "cooling": COOLING}}),
        "aidc": Member(simulator=_AIDC.simulator, step_s=_AIDC.step_s, entities=_AIDC.entities, params={
            **_AIDC.params, "thermal": "first_order", "cooling": COOLING,
            "ambient": {"wet_bulb_mean_degc": 14.0, "wet_bulb_swing_k": 4.0, "dry_bulb_mean_degc": 19.0,
                        "dry_bulb_swing_k": 7.0}})})
