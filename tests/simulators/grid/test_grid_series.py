"""Carbon intensity from a CSV: times, units, zones, gaps, and files that are not understood."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cosim.errors import ScenarioError
from cosim.params import validate
from cosim.plausible import stated_intensity
from cosim.simulators.grid.series import IntensitySeries, SeriesParams
from cosim.units import SUFFIXES

HEADER = "datetime,carbon_intensity,DE\n"
COLUMNS = {"time_column": "datetime", "column": "carbon_intensity", "unit": "g_per_kwh"}


def started(path, **params: Any) -> IntensitySeries:
    grid = IntensitySeries()
    grid.init("grid", 60.0, step_s=900.0, path=str(path), **{"scenario_start": "2026-01-01", **COLUMNS, **params})
    grid.create(2, "Bus", names=["bus8", "bus32"])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid


def at(grid: IntensitySeries, minute: int) -> dict:
    inputs = {"bus8": {"p_load_kw": {"a": 100.0, "b": 50.0}}, "bus32": {"p_load_kw": {"a": 200.0}}}
    grid.step(minute, inputs, minute + 15)
    return grid.get_data({"bus8": ["nci_kg_per_kwh"], "bus32": ["nci_kg_per_kwh"],
                          "grid": ["emission_kg_per_h", "p_load_total_kw"]})


@pytest.fixture
def hourly(tmp_path):
    path = tmp_path / "i.csv"
    path.write_text(HEADER + "2026-01-01T01:00:00Z,250,400\n2026-01-01T00:00:00Z,300,500\n"  # any order
                             "2026-01-01T02:00:00+00:00,200,100\n")
    return path


def test_a_figure_holds_until_the_next(hourly):
    grid = started(hourly)
    assert [at(grid, m)["bus8"]["nci_kg_per_kwh"] for m in (0, 59, 60, 119, 120)] == [0.3, 0.3, 0.25, 0.25, 0.2]


def test_zones_units_and_the_account(hourly):
    out = at(started(hourly, columns={"bus32": "DE"}, unit="g_per_kwh"), 0)
    assert (out["bus8"]["nci_kg_per_kwh"], out["bus32"]["nci_kg_per_kwh"]) == (0.3, 0.5)
    assert out["grid"] == pytest.approx({"emission_kg_per_h": 0.3 * 150 + 0.5 * 200, "p_load_total_kw": 350.0})


def test_units_are_converted_and_a_slip_is_refused(tmp_path, hourly):
    """950 lb/MWh is 950 x 0.45359237 / 1000 kg/kWh; 300 kg/kWh is no intensity but g/kWh."""
    path = tmp_path / "us.csv"
    path.write_text("timestamp,lbs CO2 per MWh,version\n2026-01-01 00:00:00+00:00,950,3.2\n"
                    "2026-01-01 00:05:00+00:00,948,3.2\n")
    service = {"time_column": "timestamp", "column": "lbs CO2 per MWh"}
    assert at(started(path, **service, unit="lb_per_mwh"), 0)["bus8"]["nci_kg_per_kwh"] == pytest.approx(0.43091275)
    with pytest.raises(ScenarioError, match="column 'lbs CO2 per MWh' is in lb/MWh, and grid.unit = g_per_kwh; .*lb"):
        started(path, **service, unit="g_per_kwh")
    with pytest.raises(ScenarioError, match="carbon_intensity = 300 kg/kWh: no fuel emits more .* in g/kWh or"):
        started(hourly, unit="kg_per_kwh")
    path.write_text("datetime,carbon_intensity\n2026-01-01T00:00Z,0.35\n")
    (said,) = started(path).notes()
    assert "the middle figure of carbon_intensity is 0.35, where 3 to 1500 g/kWh is usual; are they in kg/kWh?" in said


@pytest.mark.parametrize(("name", "kg_per_kwh"), [
    ("MOER", 0.43091275), ("moer_lb_per_mwh", 0.43091275), ("Marginal CO2 [g/kWh]", 0.95), ("co2_srmer", 0.95),
    ("mci_kg_per_mwh", 0.95)])
def test_a_marginal_series_is_no_average(tmp_path, name, kg_per_kwh):
    """It goes to the buses' mci, in the unit that it says or else `unit`; as NCI, by which CO2 is attributed, it is
    refused."""
    path = tmp_path / "m.csv"
    path.write_text(f"datetime,carbon_intensity,{name}\n2026-01-01T00:00Z,300,950\n2026-01-01T02:00Z,310,900\n")
    with pytest.raises(ScenarioError, match="is a marginal intensity, .*grid.marginal_column="):
        started(path, column=name)
    with pytest.raises(ScenarioError, match="is a marginal intensity"):
        started(path, columns={"bus32": name})
    grid, without = started(path, marginal_column=name), started(path)
    for one, expected in ((grid, pytest.approx(kg_per_kwh)), (without, pytest.approx(math.nan, nan_ok=True))):
        at(one, 0)
        out = one.get_data({"bus8": ["nci_kg_per_kwh", "mci_kg_per_kwh"]})["bus8"]
        assert out == {"nci_kg_per_kwh": 0.3, "mci_kg_per_kwh": expected}
    with pytest.raises(ScenarioError, match="grid.marginal_unit=" if kg_per_kwh < 0.9 else "."):
        started(path, marginal_column=name, marginal_unit="t_per_mwh")


@pytest.mark.parametrize(("column", "suffix"), [
    ("nci_kg_per_kwh", "kg_per_kwh"), ("CO2[g/kWh]", "g_per_kwh"),
    ("Carbon intensity gCO\u2082eq/kWh (direct)", "g_per_kwh"),
    ("lbs CO2 per MWh", "lb_per_mwh"), ("moer", "lb_per_mwh"), ("carbon_intensity", None), ("DE", None)])
def test_units_that_columns_say(column, suffix):
    assert stated_intensity(column) == (SUFFIXES[suffix] if suffix else None)


def test_rows_follow_the_runs_start(hourly):
    before = {"scenario_start": "2025-12-31T00:00:00"}
    assert at(started(hourly, **before), 1440 + 60)["bus8"]["nci_kg_per_kwh"] == 0.25
    assert at(started(hourly, **before, overflow="hold"), 0)["bus8"]["nci_kg_per_kwh"] == 0.3
    again = started(hourly, **before, overflow="wrap")  # every 3 h: 24 h earlier is row 0
    assert [at(again, m)["bus8"]["nci_kg_per_kwh"] for m in (0, 60, 120, 180)] == [0.3, 0.25, 0.2, 0.3]


def test_times_without_a_figure_are_told(hourly):
    with pytest.raises(ScenarioError, match="to 2026-01-01T03:00Z; a value at 2026-01-01T04:00Z is asked"):
        at(started(hourly), 240)
    params = validate(SeriesParams, {"path": str(hourly), "scenario_start": "2026-01-01", **COLUMNS}, "grid")
    with pytest.raises(ScenarioError, match="ends 03:00 after the run's start, .* 04:00; .*grid.overflow=hold"):
        IntensitySeries.check_horizon("grid", params, 900.0, 4 * 3600.0)


@pytest.mark.parametrize(("text", "params", "message"), [
    (HEADER, {}, "has no rows"),
    (HEADER + "2026-01-01T00:00:00Z,300,500\n", {"column": "carbon_intensty"}, "did you mean 'carbon_intensity'"),
    (HEADER + "yesterday,300,500\n", {}, "datetime = 'yesterday' is no ISO 8601 date"),
    (HEADER + "2026-01-01T00:00:00Z,,500\n", {}, "row 1: carbon_intensity = '' is not a finite number"),
    (HEADER + "2026-01-01T00:00:00Z,-1,500\n", {}, "carbon_intensity = -1 g/kWh: .* equal to 0"),
    (HEADER + "2026-01-01T00:00:00Z,nan,500\n", {}, "carbon_intensity = 'nan' is not a finite"),
    (HEADER + "2026-01-01T00:00:00Z,1,1\n2026-01-01T01:00:00+01:00,2,2\n", {}, "has two rows for 2026-01-01T00:00Z"),
    (HEADER + "2026-01-01T00:00:00Z,1,1\n", {"columns": {"bus9": "DE"}}, "unknown bus 'bus9'"),
])
def test_files_that_are_not_understood(tmp_path, text: str, params: dict, message: str):
    path = tmp_path / "i.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        started(path, **params)


def test_a_missing_file_says_how_to_give_one(tmp_path):
    with pytest.raises(ScenarioError, match="no file at .*none.csv; give the CSV by --set grid.path=FILE.csv"):
        started(tmp_path / "none.csv")
