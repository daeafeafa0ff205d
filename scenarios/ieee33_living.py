"""`ieee33` on a day on which its carbon lives: upstream intensities, two photovoltaic plants, time to shift.

The series are made here, by formulas of the shape that published days have, and are no measured data: upstream the sun
dips the average intensity around noon (0.20 kg/kWh) and the evening raises it (0.50), while the *marginal* plant is
coal at night (0.75), gas by day (0.40) and, for three hours around noon, a plant that is curtailed anyway (0.05).
Behind the first data center (node 14) a plant faces east, beside the third (node 31) one faces west; passing clouds
dent both. The dispatch weighs a kg/h as 0.1 kW of losses, so that turbines come and go with the intensity upstream.
About half of the GPUs are busy, so that training can wait for a better hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cosim.scenario import rows_of
from cosim.scenarios._study import SOURCES, study

SLOTS = 96


def _bump(hour: float, crest: float, width: float) -> float:
    """1 at the crest, falling off over `width` hours, over midnight too."""
    apart = (hour - crest + 12.0) % 24.0 - 12.0
    return math.exp(-((apart / width) ** 2))


def average_kg_per_kwh(hour: float) -> float:
    """Upstream of the substation, of all that is generated there."""
    return 0.40 - 0.21 * _bump(hour, 13.0, 3.5) + 0.12 * _bump(hour, 20.0, 2.5)


def marginal_kg_per_kwh(hour: float) -> float:
    """Of the plant upstream that answers one more kWh: coal, gas, or one that is curtailed anyway."""
    if hour < 6.0 or hour >= 23.0:
        return 0.75
    return 0.05 if 11.5 <= hour < 14.5 else 0.40


def pv_kw(rated_kw: float, noon_h: float, clouds: float) -> Callable[[float], float]:
    """What a plant has under a clear sky that is highest at `noon_h`, less what clouds take, by the hour."""
    def at(hour: float) -> float:
        clear = max(0.0, math.cos(math.pi * (hour - noon_h) / 13.0)) ** 1.3 if abs(hour - noon_h) < 6.5 else 0.0
        return rated_kw * clear * (1.0 - clouds * (0.5 + 0.5 * math.sin(2.3 * hour) * math.sin(5.1 * hour)))
    return at


def day(value: Callable[[float], float], digits: int) -> list[float]:
    """96 points, each at the middle of its quarter of an hour."""
    return [round(value((slot + 0.5) * 24.0 / SLOTS), digits) for slot in range(SLOTS)]


def _pv(node: int, rated_kw: float, noon_h: float, clouds: float) -> dict[str, object]:
    return {"node": node, "kg_per_kwh": 0.0, "p_max_kw": day(pv_kw(rated_kw, noon_h, clouds), 1), "q_min_kvar": 0.0,
            "q_max_kvar": 0.0, "renewable": True}


_LIVING = {**SOURCES, "substation": {**SOURCES["substation"], "kg_per_kwh": day(average_kg_per_kwh, 4),
                                     "marginal_kg_per_kwh": day(marginal_kg_per_kwh, 4)},
           "pv14": _pv(14, 700.0, 10.5, 0.3), "pv31": _pv(31, 700.0, 14.5, 0.3)}

_STUDY = study("ieee33_living", "ieee33 on a day whose carbon lives: upstream series, two PV plants, time to shift",
               lambda_kw_per_kg_h=0.1, train_rate_scale=0.42)
_GRID = _STUDY.members["grid"]

SCENARIO = _STUDY.replace(members={**_STUDY.members, "grid": _GRID.model_copy(
    update={"params": {**_GRID.params, "sources": rows_of(_LIVING, "sources")}})})
