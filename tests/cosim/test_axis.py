"""When a table's rows hold: origin, zones and their changes of clocks, what lies outside, gaps, typical years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.plausible import impossible, is_marginal, unusual
from cosim.run import find
from cosim.scenario import override
from cosim.tables.axis import Axis
from cosim.tables.dates import instants
from cosim.tables.table import DataTable, TableOptions, TableSeries

MIN_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0


def table(folder, rows, start="2026-01-01T00:00:00", clock="time", **reading) -> DataTable:
    path = folder / "t.csv"
    path.write_text("\n".join([f"{clock},p_kw", *(f"{at},{value}" for at, value in rows)]) + "\n")
    return DataTable(path, TableOptions("feed.", start, **reading))


def hourly(begin: str, hours: int, step_h: float = 1.0) -> list[tuple[str, int]]:
    first = datetime.fromisoformat(begin)
    return [((first + timedelta(hours=step_h * k)).isoformat(), k) for k in range(hours)]


def at(read: DataTable, *times_h: float) -> list[float]:
    held = TableSeries(read, "p_kw", "x", "feed.path")
    return [held.at(HOUR_S * t) for t in times_h]


def test_dates_count_from_the_runs_start_and_counts_from_its_begin(tmp_path):
    rows = hourly("2026-01-01T00:00+00:00", 72)
    assert at(table(tmp_path, rows, "2026-01-02T00:00:00"), 0.0, 1.5, 23.99) == [24, 25, 47]
    assert at(table(tmp_path, [(k, k) for k in range(72)], "2026-01-02T00:00:00", "time_h"), 0.0, 1.5) == [0, 1]


def test_a_table_of_another_time_is_refused_with_both_spans(tmp_path):
    rows = hourly("2024-01-01T00:00Z", 48)
    for how in ("hold", "raise"):
        with pytest.raises(ScenarioError, match=r"covers 2024-01-01T00:00Z to 2024-01-03T00:00Z, the run "
                           r"2026-01-01T00:00Z to 2026-01-01T03:00Z: .* start=2024-01-01, or --set feed.overflow=wrap"):
            table(tmp_path, rows, overflow=how).check(3 * HOUR_S)
    table(tmp_path, rows, overflow="wrap").check(3 * HOUR_S)
    later = table(tmp_path, hourly("2027-01-01T00:00Z", 48))
    with pytest.raises(ScenarioError, match="no row is of its time"):
        later.check(3 * HOUR_S)
    between = table(tmp_path, hourly("2025-12-01T00:00Z", 48) + hourly("2026-02-01T00:00Z", 48))
    with pytest.raises(ScenarioError, match="no row is of its time"):
        between.check(3 * HOUR_S)  # within its span, in a gap of two months
    with pytest.raises(ScenarioError, match="are these Unix times"):
        table(tmp_path, [(1700000000 + 3600 * k, 1) for k in range(5)], clock="time_s").check(DAY_S)


def test_before_and_after_a_table(tmp_path):
    rows = hourly("2026-01-01T02:00Z", 3)  # from 2 h to 5 h
    held = table(tmp_path, rows)
    assert at(held, 0.0, 2.0, 4.5, 9.0) == [0, 0, 2, 2]
    held.check(9 * HOUR_S)
    said = "\n".join(held.notes(0.0, 9 * HOUR_S, MIN_S))
    assert "begins at 2026-01-01T02:00Z; before it its first row is held" in said
    assert "ends at 2026-01-01T05:00Z, values to 2026-01-01T09:00Z were read; after it its last row is held" in said
    assert at(table(tmp_path, rows, overflow="wrap"), 0.0, 1.0, 2.0, 5.0, 9.0) == [1, 2, 0, 0, 1]
    strict = table(tmp_path, rows, overflow="raise")
    with pytest.raises(ScenarioError, match="begins 02:00 after the run does"):
        strict.check(4 * HOUR_S)
    for time_s in (0.0, 5 * HOUR_S):
        with pytest.raises(ScenarioError, match="holds from 2026-01-01T02:00Z to 2026-01-01T05:00Z; a value at"):
            strict.row(time_s)


def test_what_is_repeated_keeps_the_clock(tmp_path):
    days = table(tmp_path, hourly("2024-01-01T00:00Z", 48), overflow="wrap")
    assert [v % 24 for v in at(days, 0.0, 1.0, 2.0, 49.0)] == [0, 1, 2, 1]
    assert "repeated every 2d 00:00: the time of day is kept" in days.notes(0.0, HOUR_S, MIN_S)[-1]
    weeks = table(tmp_path, hourly("2024-01-01T00:00Z", 7 * 24), overflow="wrap")  # from a Monday; the run: Thursday
    assert at(weeks, 5.0) == [3 * 24 + 5]
    assert "and the day of the week" in weeks.notes(0.0, HOUR_S, MIN_S)[-1]
    odd = table(tmp_path, hourly("2024-01-01T00:00Z", 47), overflow="wrap")
    assert "the time of day is not kept" in odd.notes(0.0, HOUR_S, MIN_S)[-1]


def test_whole_years_repeat_by_the_calendar(tmp_path):
    """Rows of a day each, numbered from 1 January: 2024 has a 29 February, 2026 and 2025 have not, 2028 has."""
    leap = table(tmp_path, hourly("2024-01-01T00:00Z", 366, 24.0), "2026-02-28T00:00:00", overflow="wrap")
    assert at(leap, 0.0, 24.0) == [58, 60]
    common = table(tmp_path, hourly("2025-01-01T00:00Z", 365, 24.0), "2028-02-28T00:00:00", overflow="wrap")
    assert at(common, 0.0, 24.0, 48.0) == [58, 58, 59]
    two = table(tmp_path, hourly("2023-07-01T00:00Z", 731, 24.0), "2026-07-01T00:00:00", overflow="wrap")
    assert at(two, 0.0, -24.0) == [366, 365]  # 1 July 2026 is like 2024; 30 June 2026 like 2024
    assert "by month, day and time of day" in two.notes(0.0, HOUR_S, MIN_S)[-1]


@given(st.integers(1, 400), st.integers(-4000, 4000))
@settings(max_examples=60, deadline=None)
def test_wrapping_counts_is_arithmetic(rows, hour):
    axis = Axis(HOUR_S * np.arange(rows))
    assert axis.row(HOUR_S * hour, "wrap") == (hour % rows if rows > 1 else 0)


def test_local_times_over_both_changes_of_clocks(tmp_path):
    """Berlin, 26 October 2025: 25 hours, 02:00 twice; 29 March 2026: 23 hours, no 02:00."""
    walls = [0, 1, 2, 2, *range(3, 24)]
    rows = [(f"2025-10-26T{h:02d}:00:00", k) for k, h in enumerate(walls)]
    for order in (rows, rows[::-1]):
        autumn = table(tmp_path, order, "2025-10-25T00:00:00", time_zone="Europe/Berlin")
        assert np.diff(autumn.times_s).tolist() == [HOUR_S] * 24
        assert at(autumn, 22.0, 24.0, 25.0, 26.0) == [0, 2, 3, 4]
        assert autumn.notes(23 * HOUR_S, 26 * HOUR_S, MIN_S) == []
    with pytest.raises(ScenarioError, match="two rows for 2025-10-26T02:00Z; .* --set feed.time_zone=NAME"):
        table(tmp_path, rows, "2025-10-25T00:00:00").check(DAY_S)
    spring = [(f"2026-03-29T{h:02d}:00:00", h) for h in range(24) if h != 2]
    read = table(tmp_path, spring, "2026-03-28T00:00:00", time_zone="Europe/Berlin")
    assert read.axis.gaps == []
    assert at(read, 24.0, 25.0) == [1, 3]
    with pytest.raises(ScenarioError, match=r"t.csv, row 24: time = 2026-03-29 02:30:00 does not exist in Europe/B"):
        table(tmp_path, [*spring, ("2026-03-29T02:30:00", 9)], time_zone="Europe/Berlin").check(DAY_S)
    with pytest.raises(ScenarioError, match="feed.time_zone = 'CEST' is no time zone; give an IANA name"):
        table(tmp_path, spring, time_zone="CEST").check(DAY_S)


@given(st.sampled_from(["Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
       st.integers(0, 365 * 24), st.sampled_from([15, 30, 60]))
@settings(max_examples=60, deadline=None)
def test_what_a_zones_clock_shows_reads_back_as_the_instants(zone, hour, minutes):
    """Two days of wall-clock times, as a program in that zone would write them without an offset."""
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    steps = [first + timedelta(minutes=minutes * k) for k in range(2 * 24 * 60 // minutes)]
    local = [t.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat() for t in steps]
    if local[0] in local[1:] or steps[0].astimezone(ZoneInfo(zone)).fold:
        return  # it begins in one of two equal hours, and nothing before tells in which
    read = instants(local, ZoneInfo(zone))
    assert read.unix_s.tolist() == [t.timestamp() for t in steps]


def test_an_hour_that_stands_alone_where_clocks_go_back_by_half_an_hour():
    """Lord Howe, 5 April 2026: after 01:00 (UTC+11) comes, an hour later, 01:30 (UTC+10:30), not the one before it."""
    local = ["2026-04-05T00:00", "2026-04-05T01:00", "2026-04-05T01:30", "2026-04-05T02:30"]
    assert np.diff(instants(local, ZoneInfo("Australia/Lord_Howe")).unix_s).tolist() == [3600.0] * 3
    assert np.diff(instants(local[::-1], ZoneInfo("Australia/Lord_Howe")).unix_s).tolist() == [-3600.0] * 3
    irregular = ["2026-04-05T00:00", "2026-04-05T01:30", "2026-04-05T02:30"]
    assert np.diff(instants(irregular, ZoneInfo("Australia/Lord_Howe")).unix_s).tolist() == [5400.0, 5400.0], (
        "no step is usual: the first of the two")


def test_a_repeated_local_table_keeps_the_local_hour(tmp_path):
    """A winter's day of Los Angeles, numbered by the hour, in summer: noon there is 19:00 UTC, not 20:00."""
    rows = [(f"2026-01-05T{h:02d}:00", h) for h in range(24)]
    read = table(tmp_path, rows, "2026-07-01T00:00:00", time_zone="America/Los_Angeles", overflow="wrap")
    assert at(read, 19.0, 6.0, 7.0) == [12, 23, 0]


def test_zones_are_said(tmp_path):
    (said,) = table(tmp_path, hourly("2026-01-01T00:00", 5)).notes(0.0, HOUR_S, MIN_S)
    assert "dates without an offset are read as UTC; --set feed.time_zone=NAME" in said
    assert table(tmp_path, hourly("2026-01-01T00:00", 5), time_zone="UTC").notes(0.0, HOUR_S, MIN_S) == []
    assert table(tmp_path, hourly("2026-01-01T00:00+01:00", 5)).notes(0.0, HOUR_S, MIN_S) == []
    (said,) = table(tmp_path, hourly("2026-01-01T00:00Z", 5), time_zone="Europe/Berlin").notes(0.0, HOUR_S, MIN_S)
    assert "feed.time_zone has no effect" in said


def test_gaps_are_said_with_their_length(tmp_path):
    rows = [row for row in hourly("2026-01-01T00:00Z", 48) if row[1] not in range(2, 12)]
    (said,) = table(tmp_path, rows).notes(0.0, 6 * HOUR_S, MIN_S)
    assert "rows are 01:00 apart, but for 1 gap, the longest 11:00 from 2026-01-01T01:00Z; the row before" in said
    assert table(tmp_path, rows).notes(13 * HOUR_S, 20 * HOUR_S, MIN_S) == [], "the run does not come there"
    changes = table(tmp_path, [(0, 1), (11, 2), (15, 1), (24, 1)], clock="time_h")
    assert changes.notes(0.0, 20 * HOUR_S, MIN_S) == [], "rows at changes only have no usual distance"


def months(years: dict[int, int], days: int = 28, offset: str = "Z") -> list[tuple[str, int]]:
    """Six-hourly rows of whole months, each of its own year; the value is the month."""
    return [(f"{year}-{month:02d}-{day:02d}T{hour:02d}:00{offset}", month) for month, year in years.items()
            for day in range(1, days + 1) for hour in (0, 6, 12, 18)]


TYPICAL = dict(enumerate((2002, 1995, 1999, 2002, 1988, 2001, 1990, 1990, 2004, 1999, 1992, 1994), 1))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("offset", ["Z", "-08:00"])
def test_a_typical_year_counts_by_month_day_and_hour(tmp_path, order, offset):
    rows = months(TYPICAL, offset=offset)[::order]
    for start, month in (("2026-02-10", 2), ("1995-02-10", 2), ("2031-12-05", 12), ("1990-01-05", 1)):
        read = table(tmp_path, rows, start)
        read.check(DAY_S)
        assert at(read, 0.0, 23.0) == [month, month], start
    said = "\n".join(read.notes(0.0, DAY_S, MIN_S))
    assert "its years differ from month to month, as in a typical year" in said


def test_a_leap_day_in_a_typical_year_is_like_the_day_before(tmp_path):
    rows = [(at, at[8:10]) for at, _ in months({1: 2001, 2: 1999, 3: 1996}, 28)]
    read = table(tmp_path, rows, "2028-02-28T00:00:00")
    assert at(read, 0.0, 24.0, 48.0) == [28, 28, 1]
    assert [s for _, s in read.axis.gaps] == [3 * DAY_S + 6 * HOUR_S], "28 January to February; not the leap day"
    common = table(tmp_path, rows, "2027-02-28T00:00:00")
    assert at(common, 0.0, 24.0) == [28, 1]
    with pytest.raises(ScenarioError, match=r"covers 01-01T00:00 to 03-29T00:00, the run .* give a whole year"):
        table(tmp_path, rows, "2027-07-01T00:00:00").check(DAY_S)


def test_years_that_are_meant_are_no_typical_year(tmp_path):
    fiscal = table(tmp_path, hourly("2024-07-01T00:00Z", 365, 24.0))
    assert not fiscal.axis.typical
    twice = table(tmp_path, hourly("2020-01-01T00:00Z", 200, 24.0) + hourly("2023-01-01T00:00Z", 200, 24.0))
    assert not twice.axis.typical
    assert twice.axis.gaps[0][1] == pytest.approx((1096 - 199) * DAY_S)
    with pytest.raises(ScenarioError, match="are the same hour of a year; keep one of them"):
        table(tmp_path, [*months(TYPICAL), ("2003-01-01T00:00Z", 1)]).check(DAY_S)


@pytest.mark.parametrize(("name", "values", "says"), [
    ("nci_kg_per_kwh", [350.0, 420.0], "no fuel emits more than 3 kg/kWh.* in g/kWh or lb/MWh"),
    ("nci_kg_per_kwh", [-0.2, 0.3], "greater than or equal to 0"),
    ("mci_kg_per_kwh", [350.0], "a marginal intensity stays within"),
    ("price_usd_per_kwh", [68.2, 45.0], "in USD/MWh"),
    ("price_usd_per_kwh", [-68.2, 45.0], "price_usd_per_kwh = 45 USD/kWh: markets"),
    ("nci_g_per_kwh", [4000.0], "nci_g_per_kwh = 4000 g/kWh"),
])
def test_figures_that_cannot_be(name, values, says):
    found = impossible(name, np.array(values))
    assert found is not None
    assert says.split(".*")[0] in found
    assert says.split(".*")[-1] in found


def test_parameters_that_cannot_be_are_refused():
    for setting, says in (({"grid.sources.gt6.kg_per_kwh": 350.0}, "gt6.kg_per_kwh = 350.*in g/kWh or lb/MWh"),
                           ({"tariff.base_usd_per_kwh": 95.0}, "base_usd_per_kwh = 95.*are they in USD/MWh")):
        with pytest.raises(ScenarioError, match=says):
            resolve(override(find("ieee33"), setting))
    with pytest.raises(ScenarioError, match="start = .*a run begins at midnight UTC; leave out the offset"):
        find("ieee33").replace(start="2026-01-01T00:00:00-08:00")


def test_figures_that_can_be_pass(tmp_path):
    for name, values in (("nci_kg_per_kwh", [0.0, -1e-12, 0.9, np.nan]), ("mci_kg_per_kwh", [-0.4, 2.0]),
                         ("price_usd_per_mwh", [-500.0, 9000.0]), ("p_kw", [1e9]), ("nci_kg_per_kwh", [])):
        assert impossible(name, np.array(values)) is None
    assert "are they in USD/kWh?" in unusual("price_usd_per_mwh", np.array([0.05, 0.0, 0.12, 0.3]))
    assert unusual("price_usd_per_kwh", np.array([0.0, 0.0])) is None
    path = tmp_path / "t.csv"
    path.write_text("time_s,a.nci_kg_per_kwh,b.nci_kg_per_kwh\n0,0.4,410\n")
    with pytest.raises(ScenarioError, match="nci_kg_per_kwh = 410 kg/kWh"):
        DataTable(path, TableOptions("grid.", "2026-01-01")).values("nci_kg_per_kwh", ["a", "b"])


def test_the_start_that_a_refusal_names_is_one_that_helps(tmp_path):
    """The first midnight from which on the table has rows; none where there is no such midnight."""
    rows = hourly("2026-01-01T06:00Z", 24)
    for how in ("hold", "raise"):
        with pytest.raises(ScenarioError, match="no row is of its time; --set start=2026-01-02, or"):
            table(tmp_path, rows, overflow=how).check(2 * HOUR_S)
        table(tmp_path, rows, "2026-01-02T00:00:00", overflow=how).check(2 * HOUR_S)
    with pytest.raises(ScenarioError) as err:
        table(tmp_path, hourly("2026-01-01T06:00Z", 6), overflow="hold").check(2 * HOUR_S)
    assert "start=" not in str(err.value)
    with pytest.raises(ScenarioError, match="begins 06:00 after the run does; add a row for the start, --set feed"):
        table(tmp_path, rows, overflow="raise").check(8 * HOUR_S)


def test_a_typical_year_of_two_years_in_turn_counts_by_month(tmp_path):
    read = table(tmp_path, months({month: 2019 + month % 2 for month in range(1, 13)}), "2026-07-01T00:00:00")
    assert read.axis.typical
    assert at(read, 0.0) == at(table(tmp_path, months(TYPICAL), "2026-07-01T00:00:00"), 0.0)


@pytest.mark.parametrize(("step_s", "said"), [
    (60_000, True), (300_000, True), (3_600_000, True), (60, False), (3600, False), (21_600, False), (86_400, False)])
def test_seconds_that_look_like_milliseconds_are_asked_about(tmp_path, step_s, said):
    read = table(tmp_path, [(step_s * k, k) for k in range(24)], clock="time_s")
    at(read, 0.0, 0.5)
    assert ("is time_s in milliseconds?" in "".join(read.notes(0.0, 1800.0, 60.0))) == said


def test_whatever_says_marginal_is_marginal():
    for name in ("moer", "MarginalCO2", "marginalIntensity_g_per_kwh", "LMCE", "lme_kg_per_mwh", "grid.mci_g_per_kwh"):
        assert is_marginal(name), name
    for name in ("aoer", "carbon_intensity", "commercial_g_per_kwh", "mercury", "nci_kg_per_kwh"):
        assert not is_marginal(name), name
