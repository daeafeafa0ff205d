"""Exports of markets and carbon services, known by their columns: ENTSO-E, CAISO OASIS, Electricity Maps, WattTime.

What such a file states of itself: which column has the times and in which zone, which one the figures and in which
unit, which rows are meant, and of which column a value has to be chosen where it has several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_ZONE_IN_NAME = re.compile(r"[\s_(\[]*(utc|gmt|cet/cest|wet/west|eet/eest)[)\]]*$", re.IGNORECASE)
_CLOCKS = ("time", "date", "datetime", "timestamp", "mtu", "intervalstarttime", "interval_start", "point_time",
           "date/time", "start", "starttime", "start time", "time_stamp", "hour_beginning")
ZONES = {"utc": "UTC", "gmt": "UTC", "cet/cest": "Europe/Brussels", "wet/west": "Europe/Lisbon",
         "eet/eest": "Europe/Athens"}
"""Zone as files name it, in lower case -> IANA name."""
NO_FIGURE = frozenset(("", "-", "n/e", "n/a", "na", "null", "none"))
"""Cells of such files, in lower case, that have no figure: a day that is not published yet."""


class Service(NamedTuple):
    """How a file is read.

    name      the service and what it exports, for people
    figure    column of the figures; label: what it is called here, with its unit
    rows      column -> the one value whose rows are meant
    choices   columns of which one value has to be chosen
    currency  column that names the currency of the prices; '' for none
    others    columns that could be taken instead
    """

    name: str
    figure: str
    label: str
    rows: dict[str, str]
    choices: tuple[str, ...]
    currency: str = ""
    others: tuple[str, ...] = ()


class _Names:
    """Columns of a file by their names without case."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by = {name.strip().lower(): name for name in names}

    def has(self, *names: str) -> bool:
        return all(name in self._by for name in names)

    def find(self, pattern: str) -> list[str]:
        return [name for low, name in self._by.items() if re.search(pattern, low)]

    def those(self, *names: str) -> tuple[str, ...]:
        return tuple(self._by[name] for name in names if name in self._by)


def _entso_e(names: _Names) -> Service | None:
    """The platform's tables, old (MTU, price, currency) and since 2024 (area, sequence), and files of its archive."""
    if names.find(r"^(mtu|time)\b") and (prices := names.find(r"^day-ahead price")):
        return Service("ENTSO-E day-ahead prices", prices[0], prices[0], {}, names.those("area", "sequence"))
    if names.has("resolutioncode", "currency") and (prices := names.find(r"^price\b")):
        choices = names.those("areacode", "mapcode", "areadisplayname", "contracttype", "sequence", "resolutioncode")
        return Service("ENTSO-E day-ahead prices (archive)", prices[0], "Price (per MWh)", {}, choices,
                       names.those("currency")[0])
    return None


def _caiso(names: _Names) -> Service | None:
    """Locational prices in USD/MWh, in a column called MW (day ahead), VALUE or PRC (real time)."""
    clock = names.find(r"^interval_?start(time)?_gmt$")
    figure = names.those("mw") or names.those("value") or names.those("prc")
    if not clock or not figure or not names.those("lmp_type", "node", "node_id"):
        return None
    rows = {column: "LMP" for column in names.those("lmp_type")}
    node = names.those("node") or names.those("node_id")
    return Service("CAISO OASIS locational prices", figure[0], f"{figure[0]} (USD/MWh)", rows,
                   (*node, *names.those("market_run_id")))


def _electricity_maps(names: _Names) -> Service | None:
    """Hourly intensities of a zone, direct and over the life cycle."""
    found = names.find(r"^carbon intensity\b.*gco.*/kwh")
    if not found or not names.find(r"^datetime"):
        return None
    direct = [name for name in found if "direct" in name.lower()]
    first = (direct or found)[0]
    return Service("Electricity Maps", first, first, {}, names.those("zone id"),
                   others=tuple(name for name in found if name != first))


def _watttime(names: _Names) -> Service | None:
    """Marginal intensities every five minutes, in lb/MWh where nothing else is stated."""
    if not names.find(r"^(timestamp|point_time)"):
        return None
    found = names.find(r"^(co2_)?moer\b(?! version)") or names.find(r"^(co2_)?moer_")
    if found:
        return Service("WattTime", found[0], found[0], {}, names.those("ba", "region"))
    if names.has("point_time", "value"):
        (value,) = names.those("value")
        return Service("WattTime", value, "MOER value", {}, names.those("region", "signal_type"))
    return None


_KNOWN: tuple[Callable[[_Names], Service | None], ...] = (_entso_e, _caiso, _electricity_maps, _watttime)


def service_of(names: Sequence[str]) -> Service | None:
    """The service whose export a file of these columns is; None: of none that is known."""
    found = _Names(names)
    return next((service for known in _KNOWN if (service := known(found)) is not None), None)


def clock_in(names: Sequence[str]) -> tuple[str, str | None] | None:
    """(column of times by its name, the zone in that name); None: no column is called like one.

    'Datetime (UTC)' is a datetime in UTC, 'INTERVALSTARTTIME_GMT' the begin of an interval, 'MTU (CET/CEST)' ENTSO-E's
    market time unit.
    """
    for name in names:
        said = _ZONE_IN_NAME.search(name)
        plain = (name[:said.start()] if said else name).strip().lower()
        if plain in _CLOCKS and (said or plain not in ("start", "starttime", "start time")):
            return name, ZONES[said[1].lower()] if said else None
    return None
