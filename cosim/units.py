"""Units: the suffix of a name is its only unit.

`price_usd_per_kwh` is in USD/kWh and `p_load_kw` in kW; a name without a known suffix is dimensionless. Conversions go
through the one table below, so that a link between `p_load_kw` and a foreign `P_load[MW]` needs no factor.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from cosim.errors import ModelError, ScenarioError, cut

MIN_S = 60.0
HOUR_S = 3600.0
DAY_S = 86400.0
MIN_PER_H = HOUR_S / MIN_S
LONGEST_S = 1000 * 366 * DAY_S
"""No duration is longer: a thousand years, so that every date of a run has a year of four digits."""
KW_PER_MW = 1000.0
"""And kvar per Mvar, kWh per MWh."""
KG_PER_T = 1000.0
TO_PER_GTO = 1e9
KG_PER_LB = 0.45359237  # the international pound, exactly
ROUNDING = 1e-9
"""Slack of what has to be whole: 0.29 * 100 is 28.999999999999996 in floating point and means 29."""


def whole_steps(time_s: float, step_s: float) -> int | None:
    """Steps in a time; None unless they are a whole number, to `ROUNDING` of a step or of the time, which is more."""
    exact = time_s / step_s
    if not math.isfinite(exact):
        return None
    steps = round(exact)
    return None if abs(exact - steps) > ROUNDING * max(1.0, abs(exact)) or (time_s and not steps) else steps


def not_negative(text: str | None, what: str, where: str) -> float:
    """The number >= 0 in a cell of a file; ScenarioError naming `where` it stands and `what` it should be."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise ScenarioError(f"{where}: '{text}' is no {what}; it must be a number >= 0")
    return value


class Unit(NamedTuple):
    """A unit: its symbol, the dimension it measures, and how many base units of that dimension it is."""

    symbol: str
    dimension: str
    factor: float


_DIMENSIONLESS = Unit("1", "ratio", 1.0)
# Suffix -> unit. The longest matching suffix wins.
SUFFIXES: dict[str, Unit] = {
    "usd_per_gto": Unit("USD/1e9 TO", "cost of work", 1.0),
    "kg_per_gto": Unit("kg/1e9 TO", "carbon of work", 1.0),
    "kwh_per_gto": Unit("kWh/1e9 TO", "energy of work", 1.0),
    "usd_per_kwh": Unit("USD/kWh", "price", 1.0),
    "usd_per_mwh": Unit("USD/MWh", "price", 1e-3),
    "kg_per_kwh": Unit("kg/kWh", "carbon intensity", 1.0),
    "g_per_kwh": Unit("g/kWh", "carbon intensity", 1e-3),
    "lb_per_mwh": Unit("lb/MWh", "carbon intensity", KG_PER_LB * 1e-3),
    "kg_per_mwh": Unit("kg/MWh", "carbon intensity", 1e-3),
    "t_per_mwh": Unit("t/MWh", "carbon intensity", 1.0),
    "kg_per_h": Unit("kg/h", "carbon rate", 1.0),
    "usd_per_kw": Unit("USD/kW", "price of power", 1.0),
    "usd_per_h": Unit("USD/h", "cost rate", 1.0),
    "kw_per_kg_h": Unit("kW/(kg/h)", "carbon weight", 1.0),
    "kw_per_to_s": Unit("kW/(TO/s)", "energy per work", 1.0),
    "to_per_gpu_min": Unit("TO/(GPU min)", "GPU speed", 1.0),
    "to_per_min": Unit("TO/min", "throughput", 1.0),
    "to_per_s": Unit("TO/s", "throughput", 60.0),
    "per_min": Unit("1/min", "rate", 1.0),
    "per_h": Unit("1/h", "rate", 1 / MIN_S),
    "kw": Unit("kW", "active power", 1.0),
    "mw": Unit("MW", "active power", 1e3),
    "w": Unit("W", "active power", 1e-3),
    "kvar": Unit("kvar", "reactive power", 1.0),
    "mvar": Unit("Mvar", "reactive power", 1e3),
    "var": Unit("var", "reactive power", 1e-3),
    "kwh": Unit("kWh", "energy", 1.0),
    "mwh": Unit("MWh", "energy", 1e3),
    "usd": Unit("USD", "money", 1.0),
    "kg": Unit("kg", "mass", 1.0),
    "tonne": Unit("t", "mass", 1e3),
    "pu": Unit("p.u.", "per unit", 1.0),
    "degc": Unit("degC", "temperature", 1.0),
    "w_per_m2": Unit("W/m2", "irradiance", 1.0),
    "m_per_s": Unit("m/s", "speed", 1.0),
    "m3_per_s": Unit("m3/s", "air flow", 1.0),
    "s": Unit("s", "time", 1.0),
    "min": Unit("min", "time", MIN_S),
    "h": Unit("h", "time", HOUR_S),
    "rad": Unit("rad", "angle", 1.0),
    "to": Unit("TO", "work", 1.0),
    "jobs": Unit("jobs", "jobs", 1.0),
    "gpus": Unit("GPU", "GPUs", 1.0),
    "ratio": _DIMENSIONLESS,
}
_MOST_PARTS = max(suffix.count("_") + 1 for suffix in SUFFIXES)
_BY_SYMBOL = {u.symbol.lower(): u for u in SUFFIXES.values()}


def unit_of(name: str) -> Unit:
    """The unit of a port, field or foreign attribute: `p_load_kw` -> kW, `P_load[MW]` -> MW, `nonsense` -> 1."""
    return split_unit(name)[1]


def split_unit(name: str) -> tuple[str, Unit]:
    """(what is measured, its unit) of a name: `p_load_kw` -> ('p_load', kW), `nonsense` -> ('nonsense', 1)."""
    bracket = re.search(r"\[([^\]]+)\]$", name)
    if bracket:
        symbol = bracket.group(1).lower().replace("p.u.", "pu")
        return name[:bracket.start()].strip(), _BY_SYMBOL.get(symbol) or SUFFIXES.get(symbol) or _DIMENSIONLESS
    parts = name.lower().split("_")
    for start in range(max(0, len(parts) - _MOST_PARTS), len(parts)):
        if start and parts[start - 1] == "per":
            continue
        unit = SUFFIXES.get("_".join(parts[start:]))
        if unit is not None:
            return "_".join(name.split("_")[:start]), unit
    return name, _DIMENSIONLESS


def scale(source: str, target: str) -> float:
    """Factor that turns a value named `source` into one named `target`; ScenarioError if they measure other things."""
    a, b = unit_of(source), unit_of(target)
    if a.dimension != b.dimension:
        raise ScenarioError(
            f"cannot link '{source}' [{a.symbol}, {a.dimension}] to '{target}' [{b.symbol}, {b.dimension}]; "
            "the two must measure the same thing"
        )
    return a.factor / b.factor


def finite(name: str, value: Any) -> float:
    """`value` as a float; ModelError naming it when it is not a finite number ('1' is text)."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ModelError(f"{name} = {value!r} is not a finite number")
    return number


_DURATION = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(s|min|h|d)\s*$", re.IGNORECASE)
_SECONDS = {"s": 1.0, "min": MIN_S, "h": HOUR_S, "d": DAY_S}


def parse_duration(text: str) -> float:
    """'90s', '15min', '24h' or '1.5d' in seconds; ScenarioError for anything else, and for a time that is negative or
    longer than LONGEST_S."""
    match = _DURATION.match(text)
    if not match:
        raise ScenarioError(f"time '{cut(text)}' is not understood; write a number and s, min, h or d, for example 24h")
    seconds = float(match.group(1)) * _SECONDS[match.group(2).lower()]
    if seconds < 0:
        raise ScenarioError(f"time '{cut(text)}' is negative; a duration is 0 or more")
    if seconds > LONGEST_S:
        raise ScenarioError(f"time '{cut(text)}' is too long; a duration is at most {LONGEST_S / DAY_S:g}d")
    return seconds


def format_time(seconds: float) -> str:
    """Simulated time for people: 4500 -> '01:15', 90061 -> '1d 01:01:01'."""
    days, rest = divmod(int(seconds), int(DAY_S))
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    clock = f"{hours:02d}:{minutes:02d}" + (f":{secs:02d}" if secs else "")
    return f"{days}d {clock}" if days else clock


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ScenarioError as err:
        raise ValueError(str(err)) from None


Seconds = Annotated[float, BeforeValidator(_seconds), Field(le=LONGEST_S)]
"""A pydantic field in seconds that also accepts '15min', '24h', ..."""
