"""Carbon intensity from a CSV: times, units, zones, gaps, and files that are not understood."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.errors import ScenarioError, SolverError
from simulators.grid.series import IntensitySeries

HEADER = "datetime,carbon_intensity,DE\n"
COLUMNS = {"time_column": "datetime", "column": "carbon_intensity", "unit": "g_per_kwh"}


def started(path, **params: Any) -> IntensitySeries:
    grid = IntensitySeries()
    grid.init("grid", 60.0, step_s=900.0, path=str(path), **{**COLUMNS, **params})
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
    assert at(started(hourly, unit="kg_per_kwh"), 0)["bus8"]["nci_kg_per_kwh"] == 300.0


def test_the_start_may_lie_anywhere_in_the_file_and_in_any_zone(hourly):
    assert at(started(hourly, start="2026-01-01T01:30:00"), 0)["bus8"]["nci_kg_per_kwh"] == 0.25
    assert at(started(hourly, start="2026-01-01T03:00:00+01:00"), 0)["bus8"]["nci_kg_per_kwh"] == 0.2


def test_times_without_a_figure_are_told(hourly):
    with pytest.raises(SolverError, match=r"no figure for 2026-01-01T04:00:00\+00:00 .*from 2026-01-01T00:00"):
        at(started(hourly), 240)
    with pytest.raises(SolverError, match="no figure for 2025-12-31T23:00"):
        at(started(hourly, start="2025-12-31T23:00:00Z"), 0)
    with pytest.raises(SolverError, match="max_gap_s = 1800 if it has gaps"):
        at(started(hourly, max_gap_s="30min"), 45)


@pytest.mark.parametrize(("text", "params", "message"), [
    (HEADER, {}, "has no rows"),
    (HEADER + "2026-01-01T00:00:00Z,300,500\n", {"column": "carbon_intensty"}, "did you mean 'carbon_intensity'"),
    (HEADER + "yesterday,300,500\n", {}, "line 2: 'yesterday' is no ISO 8601 time"),
    (HEADER + "2026-01-01T00:00:00Z,,500\n", {}, "line 2, carbon_intensity: '' is no carbon intensity"),
    (HEADER + "2026-01-01T00:00:00Z,-1,500\n", {}, "'-1' is no carbon intensity"),
    (HEADER + "2026-01-01T00:00:00Z,nan,500\n", {}, "'nan' is no carbon intensity"),
    (HEADER + "2026-01-01T00:00:00Z,1,1\n2026-01-01T01:00:00+01:00,2,2\n", {}, "has two rows for 2026-01-01T00:00:00"),
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
