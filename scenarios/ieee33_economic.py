"""`ieee33` dispatched by cost: the sources' energy at fuel prices, and a carbon price.

The substation's energy costs the tariff's price. Everything is weighed in kW at 0.10 USD/kWh, the tariff's base
price: 1 USD/h is 10 kW, and a carbon price of 25 USD/t a lambda of 0.25 kW/(kg/h); (11)'s default of 0.01 is 1 USD/t.
Losses cost what the substation's energy does and have no weight of their own. Fuel prices are assumptions: gas 30 and
diesel 60 USD per MWh of heat. Efficiencies follow from the study's intensities and from the fuels' 0.202 and 0.267 kg
per kWh of heat (IPCC 2006: 56.1 and 74.1 kg/GJ): gt6 burns gas at 58 %, gt25 gas at 31 %, gt30 diesel at 30 %.
"""

from cosim.scenario import Link, Member, rows_of
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO
_GRID = _STUDY.members["grid"]
_HEAT = {"gt6": (0.030, 0.202), "gt25": (0.030, 0.202), "gt30": (0.060, 0.267)}
"""USD and kg per kWh of heat."""
USD_PER_KWH_UPSTREAM = 0.10
CARBON_USD_PER_T = 25.0
_KW_PER_USD_H = 1.0 / USD_PER_KWH_UPSTREAM


def _usd_per_kwh(name: str, kg_per_kwh: float) -> float:
    if name not in _HEAT:
        return USD_PER_KWH_UPSTREAM
    usd, kg = _HEAT[name]
    return round(usd * kg_per_kwh / kg, 4)


_SOURCES = {name: {**s, "usd_per_kwh": _usd_per_kwh(name, s["kg_per_kwh"])}
            for name, s in rows_of(_GRID.params["sources"], "sources").items()}

SCENARIO = _STUDY.replace(
    name="ieee33_economic", about="ieee33 dispatched by fuel prices and a carbon price of 25 USD/t",
    links=(*_STUDY.links, Link(source="tariff.price_usd_per_kwh", target="grid.price_usd_per_kwh")),
    members={**_STUDY.members, "grid": Member(
        simulator=_GRID.simulator, step_s=_GRID.step_s, entities=_GRID.entities,
        params={**_GRID.params, "sources": _SOURCES, "loss_weight": 0.0, "cost_kw_per_usd_h": _KW_PER_USD_H,
                "lambda_kw_per_kg_h": CARBON_USD_PER_T / 1000.0 * _KW_PER_USD_H})})
