"""Exports of markets and carbon services are known by their columns, in the units and zones that they say."""

from __future__ import annotations

import gzip

import pytest

from cosim.errors import ScenarioError
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.grid.series import IntensitySeries
from cosim.simulators.tariff import TimeOfUse
from cosim.tables.dates import instant
from cosim.tables.services import service_of
from cosim.tables.table import DataTable, TableOptions

OLD = '''"MTU (CET/CEST)","Day-ahead Price [EUR/MWh]","Currency","BZN|DE-LU"
"26.10.2025 01:00 - 26.10.2025 02:00","60.5","EUR",""
"26.10.2025 02:00 - 26.10.2025 02:00","61.5","EUR",""
"26.10.2025 02:00 - 26.10.2025 03:00","62.5","EUR",""
"26.10.2025 03:00 - 26.10.2025 04:00","-","EUR",""
'''
NEW = '''"MTU (UTC)","Area","Sequence","Day-ahead Price (EUR/MWh)","Intraday Period (UTC)","Intraday Price (EUR/MWh)"
"25/10/2025 23:00:00 - 26/10/2025 00:00:00","BZN|DE-LU","Without Sequence","60.5","",""
"26/10/2025 00:00:00 - 26/10/2025 01:00:00","BZN|DE-LU","Without Sequence","61.5","",""
"26/10/2025 01:00:00 - 26/10/2025 02:00:00","BZN|DE-LU","Without Sequence","62.5","",""
'''
ENDS = '''"MTU (CET/CEST)","Area","Sequence","Day-ahead Price (EUR/MWh)"
"26/10/2025 01:00:00 (CEST) - 26/10/2025 02:00:00 (CEST)","BZN|DE-LU","Without Sequence","60.5"
"26/10/2025 02:00:00 (CEST) - 26/10/2025 02:00:00 (CET)","BZN|DE-LU","Without Sequence","61.5"
"26/10/2025 02:00:00 (CET) - 26/10/2025 03:00:00 (CET)","BZN|DE-LU","Without Sequence","62.5"
'''
ARCHIVE = ("DateTime(UTC)\tResolutionCode\tAreaCode\tAreaDisplayName\tPrice[Currency/MWh]\tCurrency\n"
           "2025-10-25 23:00:00\tPT60M\t10Y1\tDE-LU\t60.5\tEUR\n2025-10-26 00:00:00\tPT60M\t10Y1\tDE-LU\t61.5\tEUR\n"
           "2025-10-26 01:00:00\tPT60M\t10Y1\tDE-LU\t62.5\tEUR\n")
CAISO = '''INTERVALSTARTTIME_GMT,INTERVALENDTIME_GMT,OPR_DT,OPR_HR,NODE,LMP_TYPE,MW
2026-01-01T00:00:00-00:00,2026-01-01T01:00:00-00:00,2025-12-31,17,TH_NP15_GEN-APND,LMP,47.5
2026-01-01T00:00:00-00:00,2026-01-01T01:00:00-00:00,2025-12-31,17,TH_NP15_GEN-APND,MCC,1.5
2026-01-01T01:00:00-00:00,2026-01-01T02:00:00-00:00,2025-12-31,18,TH_NP15_GEN-APND,LMP,55.5
'''
MAPS = ("Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
        "Carbon intensity gCO₂eq/kWh (Life cycle),Data estimated\n"
        "2024-01-01 00:00:00,Germany,Germany,{zone},{a},400,false\n"
        "2024-01-01 01:00:00,Germany,Germany,{zone},{b},410,true\n")
WATTTIME = ("timestamp,{column},MOER version,frequency\n2024-01-01 00:00:00+00:00,{value},3.2,300\n"
            "2024-01-01 00:05:00+00:00,{value},3.2,300\n")
HOURS_UTC = [instant(f"2025-10-{t}:00") for t in ("25T23", "26T00", "26T01")]


def written(folder, text, name="t.csv"):
    path = folder / name
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def tariff(path, **params):
    member = TimeOfUse()
    member.init("tariff", 1.0, step_s=60.0, prices=path, **{"scenario_start": "2025-10-26", **params})
    member.create(1, "Tariff", names=["t"])
    member.setup_done()
    return member


def series(path, **params):
    grid = IntensitySeries()
    grid.init("grid", 60.0, step_s=900.0, path=path, **{"scenario_start": "2024-01-01", **params})
    grid.create(2, "Bus", names=["bus8", "bus32"])
    grid.setup_done()
    return grid


def at(grid, time_s):
    out = grid.advance(time_s, {bus: {"p_load_kw": 0.0} for bus in ("bus8", "bus32")})
    return [(out[bus]["nci_kg_per_kwh"], out[bus]["mci_kg_per_kwh"]) for bus in ("bus8", "bus32")]


@pytest.mark.parametrize("text", [OLD, NEW, ENDS, ARCHIVE], ids=["old", "new", "ends", "archive"])
def test_all_forms_of_entso_e_are_the_same_hours(tmp_path, text):
    """01:00 and both 02:00 of Brussels on the day of 25 hours: 23:00, 00:00 and 01:00 UTC. A price that is not there
    yet is no row."""
    table = DataTable(written(tmp_path, text), TableOptions("tariff.prices_", "2025-10-26"))
    assert table.unix_s.tolist() == HOURS_UTC
    (said,) = [note for note in table.notes(0.0, 0.0, 3600.0) if "read as" in note]
    assert "read as ENTSO-E day-ahead prices" in said
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError, match=r"is in EUR; --set tariff.prices_factor=RATE, USD per EUR, converts it"):
        tariff(path)
    member = tariff(path, prices_factor=1.1)
    assert [member.advance(t, {})["t"]["price_usd_per_kwh"] for t in (0.0, 3600.0)] == pytest.approx(
        [0.0615 * 1.1, 0.0625 * 1.1])


def test_of_several_zones_one_is_chosen(tmp_path):
    both = NEW + "".join(line.replace("BZN|DE-LU", "BZN|FR").replace(".5", ".0") + "\n" for line in
                         NEW.splitlines()[1:])
    path = written(tmp_path, both)
    with pytest.raises(ScenarioError, match=r"rows of several Area: BZN\|DE-LU, BZN\|FR; --set 'tariff.prices_where="):
        tariff(path, prices_factor=1.0)
    member = tariff(path, prices_factor=1.000001, prices_where={"area": "BZN|FR"})
    assert member.advance(0.0, {})["t"]["price_usd_per_kwh"] == pytest.approx(0.061, rel=1e-5)
    with pytest.raises(ScenarioError, match=r"no row has Area = BZN\|XX; there are BZN\|DE-LU, BZN\|FR"):
        tariff(path, prices_where={"Area": "BZN|XX"})


@pytest.mark.parametrize("form", ["plain", "gz", "mark", "lower"])
def test_caiso_has_prices_in_a_column_called_mw(tmp_path, form):
    text = {"plain": CAISO, "gz": gzip.compress(CAISO.encode()), "mark": "\ufeff" + CAISO,
            "lower": CAISO.split("\n", 1)[0].lower() + "\n" + CAISO.split("\n", 1)[1]}[form]
    member = tariff(written(tmp_path, text, "t.csv.gz" if form == "gz" else "t.csv"), scenario_start="2026-01-01")
    assert [member.advance(t, {})["t"]["price_usd_per_kwh"] for t in (0.0, 3600.0)] == pytest.approx([0.0475, 0.0555])
    assert any("MW (USD/MWh)" in note and "TH_NP15_GEN-APND" in note for note in member.notes()) or form == "lower"


def test_zones_of_a_file_each(tmp_path):
    """Direct intensities, 133.1 g/kWh; what else could be taken is said."""
    one = written(tmp_path, MAPS.format(zone="DE", a=133.1, b=140), "de.csv")
    other = written(tmp_path, MAPS.format(zone="FR", a=33, b=34), "fr.csv")
    grid = series(one, paths={"bus32": other})
    assert at(grid, 0.0) == [(pytest.approx(0.1331), pytest.approx(float("nan"), nan_ok=True)),
                             (pytest.approx(0.033), pytest.approx(float("nan"), nan_ok=True))]
    said = " ".join(grid.notes())
    assert "figures Carbon intensity gCO₂eq/kWh (direct), Zone id DE" in said
    assert "Zone id FR; Carbon intensity gCO₂eq/kWh (Life cycle) would be another choice" in said
    life = series(one, column="Carbon intensity gCO₂eq/kWh (Life cycle)")
    assert at(life, 0.0)[0][0] == pytest.approx(0.4)
    with pytest.raises(ScenarioError, match="grid.paths: unknown bus 'bus9'"):
        series(one, paths={"bus9": other})


@pytest.mark.parametrize(("column", "value", "kg_per_kwh"), [
    ("MOER", 950, 0.43091275), ("MOER (lb/MWh)", 950, 0.43091275), ("moer_g_per_kwh", 950, 0.95),
    ("MOER [kg/MWh]", 950, 0.95), ("co2_moer (lbs CO2/MWh)", 950, 0.43091275)])
def test_watttime_is_marginal_in_the_unit_of_its_name(tmp_path, column, value, kg_per_kwh):
    average = written(tmp_path, MAPS.format(zone="DE", a=133.1, b=140), "de.csv")
    path = written(tmp_path, WATTTIME.format(column=column, value=value))
    assert at(series(average, marginal_path=path), 0.0)[0] == (pytest.approx(0.1331), pytest.approx(kg_per_kwh))
    with pytest.raises(ScenarioError, match="is a marginal intensity, and CO2 .*; --set grid.marginal_path="):
        IntensitySeries.check_horizon("grid", IntensitySeries.PARAMS(path=path, scenario_start="2024-01-01"), 900, 300)


def test_a_column_of_units_says_them(tmp_path):
    """As the answers of WattTime's interface become a table."""
    average = written(tmp_path, MAPS.format(zone="DE", a=133.1, b=140), "de.csv")
    text = "point_time,value,units\n2024-01-01T00:00:00+00:00,950,lbs_co2_per_mwh\n"
    text += "2024-01-01T00:05:00+00:00,950,lbs_co2_per_mwh\n"
    assert at(series(average, marginal_path=written(tmp_path, text)), 0.0)[0][1] == pytest.approx(0.43091275)


@pytest.mark.parametrize("names", [["time", "price_usd_per_kwh"], ["timestamp", "value"], ["a", "b"], []])
def test_other_tables_are_of_no_service(names):
    assert service_of(names) is None


def test_rows_of_any_table_can_be_chosen(tmp_path):
    path = written(tmp_path, "time,site,price_usd_per_kwh\n2025-10-26,a,0.1\n2025-10-26,b,0.2\n")
    member = tariff(path, prices_where={"site": "b"})
    assert member.advance(0.0, {})["t"]["price_usd_per_kwh"] == 0.2
    assert any("rows of site = b" in note for note in member.notes())


def test_a_series_without_a_start_begins_with_its_file(tmp_path):
    path = written(tmp_path, MAPS.format(zone="DE", a=1, b=2))
    scenario = override(find("intensity_series"), {"grid.path": path})
    assert IntensitySeries.completes("grid", IntensitySeries.PARAMS(path=path), scenario).start == "2024-01-01T00:00:00"
