"""Weather files as they are published, the sun, plants and turbines, and their power in a dispatch.

Rows: Z04.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.params import validate
from cosim.scenario import Link, Member, rows_of
from cosim.scenarios.ieee33_power import SCENARIO as POWER
from cosim.simulators.aidc.plant.ambient import Ambient, Weather
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.grid.renewable_equations import (
    at_hub,
    density_kg_per_m3,
    on_a_plane,
    pv_kw,
    sun,
    wind_kw,
)
from cosim.simulators.grid.renewables import Renewables, RenewablesParams
from cosim.tables.table import DataTable, TableOptions
from cosim.trace import Trace

WEST, EAST = (f"LOCATION,Somewhere,-,-,made,000000,40.0,{lon:.1f},{zone:.1f},1600.0\n" + "X\n" * 7
              for lon, zone in ((-105.0, -7.0), (105.0, 7.0)))


def epw(path: Any, days: int = 2, place: str = WEST, **changed: str) -> str:
    """Two days in May: a triangle of sun from 6 to 18 h of its standard time, 20 degC, wind of the hour's number."""
    rows = []
    for day in range(1, days + 1):
        for hour in range(1, 25):
            sun_w = max(0.0, 900.0 * (1.0 - abs(hour - 12.5) / 6.0))
            cells = ["1995", "5", str(day), str(hour), "0", "flags", "20.0", "5.0", "40", "84000", "0", "0", "0",
                     f"{sun_w:.0f}", f"{sun_w * 0.8:.0f}", f"{sun_w * 0.3:.0f}", *["0"] * 5, str(hour % 20)]
            if hour == 12 and day == 1:
                cells = [changed.get(f"c{k}", cell) for k, cell in enumerate(cells)]
            rows.append(",".join(cells))
    path.write_text(place + "\n".join(rows) + "\n")
    return str(path)


def test_the_sun_is_where_an_almanac_has_it():
    """The example of I. Reda and A. Andreas, NREL/TP-560-34302: zenith 50.1116 and azimuth 194.3402 degrees, with a
    refraction of 0.0137; and the equator at the equinox's noon."""
    at = np.array([datetime(2003, 10, 17, 19, 30, 30, tzinfo=UTC).timestamp()])
    elevation, azimuth = sun(at, 39.742476, -105.1786)
    assert elevation[0] == pytest.approx(90.0 - 50.1116, abs=0.02)
    assert azimuth[0] == pytest.approx(194.3402, abs=0.02)
    noon = np.array([datetime(2026, 3, 20, 12, 7, 30, tzinfo=UTC).timestamp()])
    assert sun(noon, 0.0, 0.0)[0][0] == pytest.approx(90.0, abs=0.3)


def test_a_plane_a_plant_and_a_turbine_by_hand():
    """Flat: what a horizontal meter sees. Facing the sun at 30 degrees: the beam in full, 3/4 of the sky at tilt 60,
    and 0.2 x 1/4 of the ground."""
    one = np.array([1.0])
    sees = on_a_plane(700.0 * one, 1000.0 * one, 200.0 * one, 30.0 * one, 180.0 * one, 0.0, 180.0)
    assert sees[0] == pytest.approx(1000.0 * 0.5 + 200.0)
    tilted = on_a_plane(700.0 * one, 1000.0 * one, 200.0 * one, 30.0 * one, 180.0 * one, 60.0, 180.0)
    assert tilted[0] == pytest.approx(1000.0 + 200.0 * 0.75 + 700.0 * 0.2 * 0.25)
    away = on_a_plane(0.0 * one, 1000.0 * one, 0.0 * one, 30.0 * one, 0.0 * one, 90.0, 180.0)
    below = on_a_plane(0.0 * one, 1000.0 * one, 0.0 * one, -1.0 * one, 180.0 * one, 90.0, 180.0)
    assert (away[0], below[0]) == (0.0, 0.0)
    # 800 W/m2 and 20 degC: the cell is at 45 degC, 20 K above standard conditions, and 0.35 % per K
    gives = pv_kw(np.array([800.0, 1400.0, 0.0]), 20.0 * np.ones(3), 100.0, 90.0, -0.0035, 45.0, 0.1)
    assert gives == pytest.approx([100.0 * 0.8 * (1.0 - 0.0035 * 20.0) * 0.9, 90.0, 0.0])
    wind = wind_kw(np.array([2.9, 3.0, 6.0, 12.0, 24.0, 25.1]), np.full(6, 1.225), 1000.0, 3.0, 12.0, 25.0)
    assert wind == pytest.approx([0.0, 0.0, 1000.0 * (216 - 27) / (1728 - 27), 1000.0, 1000.0, 0.0])
    thin = wind_kw(np.array([6.0]), np.array([1.225 / 8.0]), 1000.0, 2.0, 12.0, 25.0)
    assert thin[0] == pytest.approx(1000.0 * (27 - 8) / (1728 - 8))  # an eighth of the density is half the speed
    assert at_hub(np.array([5.0]), 10.0, 80.0, 1.0 / 3.0)[0] == pytest.approx(10.0)
    assert density_kg_per_m3(np.array([101325.0]), np.array([15.0]))[0] == pytest.approx(1.225, abs=1e-4)


def test_an_epw_file_names_hours_by_their_end(tmp_path):
    """Hour 12 is 11:00 to 12:00 in standard time, 7 h behind UTC; the file is weather for a data center, too."""
    path = epw(tmp_path / "w.epw")
    table = DataTable(path, TableOptions("x.", "2026-05-01", overflow="hold"))
    assert table.place == {"latitude_deg": 40.0, "longitude_deg": -105.0, "altitude_m": 1600.0}
    assert datetime.fromtimestamp(table.unix_s[11], UTC) == datetime(1995, 5, 1, 18, tzinfo=UTC)
    weather = Weather(Ambient(table=path), "aidc1", "aidc.ambient", "1995-05-01")
    assert weather.at(43200.0, weather.at(43200.0, None)).dry_bulb_degc == 20.0  # type: ignore[arg-type]


def test_a_tmy3_file_says_the_same(tmp_path):
    header = ("Date (MM/DD/YYYY),Time (HH:MM),GHI (W/m^2),DNI (W/m^2),DHI (W/m^2),Dry-bulb (C),Dew-point (C),RHum (%),"
              "Pressure (mbar),Wspd (m/s)\n")
    (tmp_path / "t.csv").write_text('724666,"SOMEWHERE",CO,-7.0,40.0,-105.0,1600\n' + header
                                    + "05/01/1995,12:00,800,640,240,20.0,5.0,40,840,12\n"
                                    + "05/01/1995,24:00,0,0,0,-9900,5.0,40,840,4\n")
    table = DataTable(tmp_path / "t.csv", TableOptions("x.", "1995-05-01"))
    assert table.place["longitude_deg"] == -105.0
    at = [datetime.fromtimestamp(t, UTC) for t in table.unix_s]
    assert at == [datetime(1995, 5, 1, 18, tzinfo=UTC), datetime(1995, 5, 2, 6, tzinfo=UTC)]
    assert table.values("pressure_pa", ["x"])[0, 0] == 84000.0
    with pytest.raises(ScenarioError, match="row 2: dry_bulb_degc = '' is not a finite number"):
        table.values("dry_bulb_degc", ["x"])


PV = {"roof": {"rated_dc_kw": 100.0, "tilt_deg": 0.0}}


@pytest.mark.parametrize(("params", "says"), [
    ({"weather": "no.epw", "pv": PV}, "renewables.weather: no file at no.epw"),
    ({"weather": {"c13": "9999"}, "pv": PV}, "row 12: ghi_w_per_m2 = '' is not a finite number"),
    ({"weather": {"c6": "80"}, "pv": PV}, "dry_bulb_degc = 80 at .*; -60 to 60 are allowed"),
    ({"weather": {"c6": "warm"}, "pv": PV}, "w.epw, row 12: .* is no row of an EPW file"),
    ({"weather": {}, "pv": PV, "wind": {"roof": {"rated_kw": 1.0}}}, "pv and wind both have a plant roof"),
    ({"weather": {}, "wind": {"w": {"rated_kw": 1.0, "cut_in_m_per_s": 13.0}}}, "must ascend"),
    ({"weather": {}}, "there is no plant"),
    ({"weather": {}, "pv": PV, "until_s": 5 * 86400.0}, "w.epw"),
])
def test_bad_weather_is_refused_in_a_line(tmp_path, params, says):
    given = {"scenario_start": "1995-05-02", **params}
    until_s = given.pop("until_s", 3600.0)
    if isinstance(given["weather"], dict):
        given["weather"] = epw(tmp_path / "w.epw", **given["weather"])
    with pytest.raises(ScenarioError, match=says):
        checked(given, until_s)


def checked(given: dict[str, Any], until_s: float) -> None:
    """As a run does before it starts."""
    params = validate(RenewablesParams, given, "renewables")
    Renewables.check_horizon("renewables", params, 900.0, until_s)


def test_plants_feed_the_sources_of_a_dispatch(tmp_path):
    """Midnight UTC is 07:00 there: a flat plant in the 225 W/m2 of hour 8, and a turbine in 8 m/s at its hub. What the
    trace has as available is what the equations give, all of it is taken, and the laws hold."""
    grid = POWER.members["grid"]
    sources = {**rows_of(grid.params["sources"], "sources"),
               **{name: {"node": node, "kg_per_kwh": 0.0, "p_max_kw": "linked", "q_min_kvar": 0.0, "q_max_kvar": 0.0,
                         "renewable": True} for name, node in (("roof", 14), ("mill", 21))}}
    scenario = POWER.replace(
        start="1995-05-02", links=(*POWER.links, Link(source="renewables.available_kw",
                                                               target="grid.available_kw")),
        members={**POWER.members,
                 "grid": Member(simulator=grid.simulator, step_s=900, params={**grid.params, "sources": sources},
                                entities={**grid.entities, "Source": ["roof", "mill"]}),
                 "renewables": Member(simulator="cosim.simulators.grid.renewables:Renewables", step_s=900,
                                      entities={"Plant": ["roof", "mill"]}, params={
                                          "weather": epw(tmp_path / "w.epw", place=EAST), "pv": PV,
                                          "wind": {"mill": {"rated_kw": 200.0, "hub_m": 10.0}}})})
    for driver in ("native", "mosaik"):
        Experiment(scenario, driver, 1800.0, tmp_path / f"{driver}.h5").run()
    with Trace(tmp_path / "native.h5") as trace, Trace(tmp_path / "mosaik.h5") as other:
        has = trace["grid/Grid/source_p_max_kw"][:, 0]
        assert has.tobytes() == other["grid/Grid/source_p_max_kw"][:, 0].tobytes()
        middle = np.array([datetime(1995, 5, 2, 0, 30, tzinfo=UTC).timestamp()])
        seen = 180.0 * np.sin(np.radians(sun(middle, 40.0, 105.0)[0][0])) + 68.0
        plant = pv_kw(np.array([seen]), np.array([20.0]), 100.0, 100.0, -0.0035, 45.0, 0.17)
        density = density_kg_per_m3(np.array([84000.0]), np.array([20.0]))
        assert has[0, -2] == pytest.approx(plant[0])
        assert has[0, -1] == pytest.approx(wind_kw(np.array([8.0]), density, 200.0, 3.0, 12.0, 25.0)[0])
        assert trace["grid/Grid/p_source_kw"][:, 0][:, -2:] == pytest.approx(has[:, -2:], abs=0.02)
        assert not verify(trace).broken
