"""Weather files as they are published, as columns: EPW (EnergyPlus) and TMY3 (NREL).

Both have an hour a row in standard time, which they name by its end; here a row's time is the beginning of its hour.
What a file marks as missing is an empty cell. Source: EnergyPlus, Auxiliary Programs, "EPW data dictionary"; S. Wilcox
and W. Marion, Users manual for TMY3 data sets, NREL/TP-581-43156 (2008).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime, timedelta

from cosim.errors import ScenarioError, shown

HOURS = 24
_EPW_HEADER = 8
_EPW = {"dry_bulb_degc": (6, 99.9, 1.0), "dew_point_degc": (7, 99.9, 1.0), "relative_humidity_ratio": (8, 999.0, 0.01),
        "pressure_pa": (9, 999999.0, 1.0), "ghi_w_per_m2": (13, 9999.0, 1.0), "dni_w_per_m2": (14, 9999.0, 1.0),
        "dhi_w_per_m2": (15, 9999.0, 1.0), "wind_speed_m_per_s": (21, 999.0, 1.0)}
"""Column -> (its place in a row, from this value on it is missing, factor)."""
_TMY3 = {"dry_bulb_degc": ("Dry-bulb (C)", 1.0), "dew_point_degc": ("Dew-point (C)", 1.0),
         "relative_humidity_ratio": ("RHum (%)", 0.01), "pressure_pa": ("Pressure (mbar)", 100.0),
         "ghi_w_per_m2": ("GHI (W/m^2)", 1.0), "dni_w_per_m2": ("DNI (W/m^2)", 1.0),
         "dhi_w_per_m2": ("DHI (W/m^2)", 1.0), "wind_speed_m_per_s": ("Wspd (m/s)", 1.0)}
_TMY3_MISSING = -9900.0
TMY3_HEADER = "Date (MM/DD/YYYY),Time (HH:MM)"
"""How the second line of a TMY3 file begins."""

Weather = tuple[list[str], dict[str, Sequence[str]], dict[str, float]]
"""Names of columns, their cells, and the place: latitude_deg, longitude_deg (> 0 is east), altitude_m."""


def read_epw(text: str, path: str) -> Weather:
    """The columns of an EPW file; ScenarioError naming the row that is none."""
    lines = list(csv.reader(io.StringIO(text)))
    place = lines[0] if lines else []
    if not place or place[0].strip().upper() != "LOCATION" or len(lines) <= _EPW_HEADER:
        raise ScenarioError(f"{path} is no EPW file: it has to begin with LOCATION and have {_EPW_HEADER} lines before "
                            "its rows")
    at = _place(place[6:10], path, (0, 1, 3), 2)
    rows = [row for row in lines[_EPW_HEADER:] if row]
    columns: dict[str, list[str]] = {name: [] for name in ("time", *_EPW)}
    for number, row in enumerate(rows, 1):
        try:
            year, month, day, hour = (int(cell) for cell in row[:4])
            columns["time"].append(_begin(datetime(year, month, day), hour, at[1]))
            for name, (k, missing, factor) in _EPW.items():
                value = float(row[k])
                columns[name].append("" if value >= missing else repr(value * factor))
        except (ValueError, IndexError):
            raise ScenarioError(f"{path}, row {number}: {shown(','.join(row)[:60])} is no row of an EPW file: year, "
                                "month, day, hour 1 to 24, minute, flags, and 22 figures or more") from None
    return list(columns), dict(columns), at[0]


def read_tmy3(text: str, path: str) -> Weather:
    """The columns of a TMY3 file; ScenarioError naming the row that is none."""
    first, _, rest = text.partition("\n")
    at = _place([cell.strip() for cell in next(csv.reader([first]))][3:7], path, (1, 2, 3), 0)
    reader = csv.DictReader(io.StringIO(rest))
    if absent := [name for name, _ in _TMY3.values() if name not in (reader.fieldnames or ())]:
        raise ScenarioError(f"{path} has no column {absent[0]}, which TMY3 files have")
    columns: dict[str, list[str]] = {name: [] for name in ("time", *_TMY3)}
    for number, row in enumerate(reader, 1):
        try:
            day = datetime.strptime(row["Date (MM/DD/YYYY)"], "%m/%d/%Y")
            columns["time"].append(_begin(day, int(row["Time (HH:MM)"].split(":")[0]), at[1]))
            for name, (theirs, factor) in _TMY3.items():
                value = float(row[theirs])
                columns[name].append("" if value <= _TMY3_MISSING else repr(value * factor))
        except (ValueError, TypeError, AttributeError):
            raise ScenarioError(f"{path}, row {number}: a date MM/DD/YYYY, a time 01:00 to 24:00 and figures are "
                                f"expected; it has {shown(row.get('Date (MM/DD/YYYY)'))}, "
                                f"{shown(row.get('Time (HH:MM)'))}") from None
    return list(columns), dict(columns), at[0]


def _place(cells: Sequence[str], path: str, where: tuple[int, int, int], zone: int) -> tuple[dict[str, float], float]:
    """(latitude, longitude, altitude by their places among the cells; offset of the standard time from UTC, h)."""
    try:
        latitude, longitude, altitude = (float(cells[k]) for k in where)
        offset_h = float(cells[zone])
    except (ValueError, IndexError):
        raise ScenarioError(f"{path}: its first line gives no latitude, longitude, zone and altitude") from None
    if abs(latitude) > 90.0 or abs(longitude) > 180.0 or abs(offset_h) > 14.0:
        raise ScenarioError(f"{path}: its first line gives latitude {latitude:g}, longitude {longitude:g} and zone "
                            f"{offset_h:g} h, which is no place")
    return {"latitude_deg": latitude, "longitude_deg": longitude, "altitude_m": altitude}, offset_h


def _begin(day: datetime, hour: int, offset_h: float) -> str:
    """The beginning of hour 1 to 24 as ISO text with its offset; ValueError for another hour."""
    if not 1 <= hour <= HOURS:
        raise ValueError(hour)
    minutes = round(abs(offset_h) * 60.0)
    at = day + timedelta(hours=hour - 1)
    return f"{at.isoformat()}{'-' if offset_h < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
