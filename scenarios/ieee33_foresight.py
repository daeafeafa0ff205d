"""`ieee33_living` with weather, storage, limits, an event, and forecasts of all of it to plan with.

What the grid has varies as in `ieee33_living`, but the photovoltaic plants at nodes 14 and 31 stand in weather: a clear
midsummer day at 48 degrees north (Haurwitz's irradiance; B. Haurwitz, J. Meteorology 2 (1945) 154) under clouds by a
formula, one plant facing east, the other west. No figure of it is measured. A battery behind the first plant is planned
three hours ahead with the plants' forecast, which errs by 8 % an hour ahead and up to 25 % later; the trunk may carry
75 A. From 18 h on a fifth less is called for two hours at half an hour's notice, as the sun goes and the feeder's own
peak comes. About half of the GPUs are busy, so that training can wait.

Forecasts for a day ahead, every quarter of an hour: the price and the base load as they will be, the plants' power with
its error, and both intensities as at the same time of the day before, which on the first day is as now. `--set
forecast.nci={kind: perfect, recorded: RUN.h5}` has them as an earlier run made them.
"""

from __future__ import annotations

import math

import numpy as np

from cosim.scenario import Link, Member, rows_of
from cosim.scenarios import ieee33_flex, ieee33_storage

START, LATITUDE_DEG, LONGITUDE_DEG = "2026-06-21", 48.0, 0.0
DECLINATION_DEG = 23.44
"""Of the sun at midsummer."""
SLOTS = 96
EVENT = {"start_s": "18h", "length_s": "2h", "notice_s": "30min", "reduce_percent": 20.0, "penalty_usd_per_kwh": 1.0,
         "payment_usd_per_kwh": 0.5}
PV_ERROR = {"std_1h_ratio": 0.08, "growth_exponent": 0.5, "std_max_ratio": 0.25}


def clouds(hour: float) -> float:
    """Share of the sky, 0 to 1: a bank before noon, another in the afternoon, scattered ones between."""
    banks = 0.7 * math.exp(-(((hour - 10.5) / 0.8) ** 2)) + 0.6 * math.exp(-(((hour - 16.0) / 1.0) ** 2))
    return min(banks + 0.15 * (0.5 + 0.5 * math.sin(2.3 * hour) * math.sin(5.1 * hour)), 1.0)


def weather() -> dict[str, list[float]]:
    """96 values of each column over the day."""
    hours = (np.arange(SLOTS) + 0.5) * 24.0 / SLOTS
    latitude, declination = np.radians(LATITUDE_DEG), np.radians(DECLINATION_DEG)
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
        np.pi * (hours - 12.0) / 12.0)
    up = np.maximum(sine, 1e-3)
    clear = np.where(sine > 0.0, 1098.0 * up * np.exp(-0.057 / up), 0.0)
    covered = np.array([clouds(hour) for hour in hours])
    ghi, dni = clear * (1.0 - 0.7 * covered), np.where(sine > 0.05, 0.85 * clear / up * (1.0 - covered), 0.0)
    return {"ghi_w_per_m2": ghi.round(1).tolist(), "dni_w_per_m2": dni.round(1).tolist(),
            "dhi_w_per_m2": np.maximum(ghi - dni * up, 0.0).round(1).tolist(),
            "dry_bulb_degc": (21.0 - 6.0 * np.cos(2.0 * np.pi * (hours - 3.0) / 24.0)).round(2).tolist()}


_STORED, _FLEX = ieee33_storage.SCENARIO, ieee33_flex.SCENARIO
_GRID, _AIDC, _CONTROLLER = (_STORED.members[name] for name in ("grid", "aidc", "controller"))
_PLANTS = {"pv14": {"rated_dc_kw": 900.0, "rated_ac_kw": 750.0, "azimuth_deg": 95.0, "tilt_deg": 35.0},
           "pv31": {"rated_dc_kw": 900.0, "rated_ac_kw": 750.0, "azimuth_deg": 265.0, "tilt_deg": 35.0}}
_SOURCES = {name: {**row, "p_max_kw": "linked"} if name in _PLANTS else row
            for name, row in rows_of(_GRID.params["sources"], "sources").items()}
_FORECASTS = "cosim.simulators.forecast.adapter:Forecasts"


def _links() -> list[Link]:
    flex = [link for link in _FLEX.links if "flexibility." in link.source + link.target]
    pv = [Link(source="weather.available_kw", target="grid.available_kw"),
          Link(source="weather.available_kw", target="outlook.available_kw"),
          Link(source="weather.available_future_kw", target="outlook.available_future_kw"),
          Link(source="outlook.available_forecast_kw", target="grid.available_forecast_kw")]
    seen = [Link(source=f"grid.{port}", target=f"forecast.{port}", pairs="sites:bus{node}")
            for port in ("nci_kg_per_kwh", "mci_kg_per_kwh")]
    known = [Link(source="tariff.price_usd_per_kwh", target="forecast.price_usd_per_kwh"),
             Link(source="tariff.price_future_usd_per_kwh", target="forecast.price_future_usd_per_kwh"),
             Link(source="profile.p_all_kw", target="forecast.p_load_kw"),
             Link(source="profile.p_all_future_kw", target="forecast.p_load_future_kw")]
    told = [Link(source=f"forecast.{port}", target=f"controller.{port}", optional=True)
            for port in ("nci_forecast_kg_per_kwh", "mci_forecast_kg_per_kwh", "price_forecast_usd_per_kwh",
                         "p_load_forecast_kw")]
    return [*_STORED.links, *flex, *pv, *seen, *known, *told,
            Link(source="outlook.renewable_forecast_kw", target="controller.renewable_forecast_kw")]


SCENARIO = _STORED.replace(
    name="ieee33_foresight", start=START,
    about="a grid whose carbon lives, all of it: weather, a battery, limits, an event, forecasts to plan with",
    shared={**_STORED.shared, "lookahead_steps": 12, "horizon_s": "24h", "horizon_step_s": "15min"},
    links=_links(),
    members={
        **_STORED.members,
        "tariff": _STORED.members["tariff"].model_copy(update={"simulator": "cosim.simulators.tariff:KnownTariff"}),
        "profile": _STORED.members["profile"].model_copy(update={
            "entities": {**_STORED.members["profile"].entities, "Feeder": ["feeder"]}}),
        "weather": Member(simulator="cosim.simulators.grid.renewables:KnownRenewables", step_s=900,
                          entities={"Plant": list(_PLANTS)}, params={
                              "weather": weather(), "latitude_deg": LATITUDE_DEG, "longitude_deg": LONGITUDE_DEG,
                              "pv": _PLANTS}),
        "outlook": Member(simulator=_FORECASTS, step_s=900, entities={"Plant": list(_PLANTS), "Feeder": ["feeder"]},
                          params={"available": {"kind": "perfect_with_error", "error": PV_ERROR}}),
        "grid": _GRID.model_copy(update={
            "entities": {**_GRID.entities, "Source": list(_PLANTS)},
            "params": {**_GRID.params, "sources": _SOURCES, "max_current_a": {"0-1": 75.0}}}),
        "forecast": Member(simulator=_FORECASTS, step_s=900, entities={"Site": "sites", "Feeder": ["feeder"]}, params={
            "nci": {"kind": "day_ahead"}, "mci": {"kind": "day_ahead"}, "price": {"kind": "perfect"},
            "load": {"kind": "perfect"}}),
        "flexibility": _FLEX.members["flexibility"].model_copy(update={"params": {"events": [EVENT]}}),
        "aidc": _AIDC.model_copy(update={"simulator": _FLEX.members["aidc"].simulator,
                                         "params": {**_AIDC.params, **_FLEX.members["aidc"].params}}),
    })
