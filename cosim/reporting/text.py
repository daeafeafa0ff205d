"""Numbers and times as people write them."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence

import numpy as np

from cosim.units import DAY_S, HOUR_S, MIN_S, format_time, unit_of

_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_LARGER = {"kWh": ("MWh", 1e3), "kg": ("t", 1e3), "TO/min": ("M TO/min", 1e6), "TO": ("M TO", 1e6)}

_MARK = secrets.token_hex(8)
"""Drawn anew by every process, so that no name in a trace can mark anything."""
_MARKED = re.compile(f"\x02{_MARK}(.*?)\x03{_MARK}", re.DOTALL)


def strong(words: str) -> str:
    """Words that matter in a sentence: `marked` shows them so, `unmarked` as they are."""
    return f"\x02{_MARK}{words}\x03{_MARK}"


def marked(sentence: str) -> list[tuple[str, bool]]:
    """A sentence in parts: (words, whether they are strong)."""
    return [(part, k % 2 == 1) for k, part in enumerate(_MARKED.split(sentence)) if part]


def unmarked(sentence: str) -> str:
    """A sentence without its marks."""
    return _MARKED.sub(r"\1", sentence)


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, thousands apart, a power of ten below 1e-4 and from 1e9 on: 182353 -> '182 353'."""
    if not math.isfinite(value):
        return "not known"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e9:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return power_of_ten(mantissa.removesuffix(".0"), int(power)).replace("-", "\u2212", 1)
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{places}f}".replace(",", "\u202f")
    return text.replace("-", "\u2212", 1)


def power_of_ten(mantissa: str, power: int) -> str:
    """'8.8', -9 -> '8.8×10⁻⁹'."""
    return f"{mantissa}\u00d710{str(power).translate(_RAISED)}"


def quantity(value: float, unit: str = "", digits: int = 3) -> str:
    """A number with its unit; energy, mass and work in the larger unit from a thousand on. Power stays in kW, as on the
    axes."""
    if unit in _LARGER and abs(value) >= 1e3:
        unit, factor = _LARGER[unit]
        value /= factor
    elif unit == "%":
        return f"{number(value, digits)}\u202f%"
    return f"{number(value, digits)}\u00a0{unit}" if unit and unit != "1" else number(value, digits)


def in_one_unit(values: Sequence[float], unit: str = "", digits: int = 4) -> tuple[str, list[str]]:
    """(unit, texts) of values that stand below one another: one unit and as many decimals for all, from the largest; a
    dash for what is not known."""
    top = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if unit in _LARGER and top >= 1e3:
        unit, factor = _LARGER[unit]
        values, top = [v / factor for v in values], top / factor
    if top and not 1e-4 <= top < 1e9:
        return unit, ["-" if not math.isfinite(v) else number(v, digits) for v in values]
    whole = all(v == round(v) for v in values if math.isfinite(v))
    places = 0 if whole or not top else max(0, digits - 1 - math.floor(math.log10(top)))
    return unit, ["-" if not math.isfinite(v) else f"{v:,.{places}f}".replace(",", "\u202f").replace("-", "\u2212", 1)
                  for v in values]


def alike(values: Sequence[float], unit: str = "", digits: int = 3) -> list[str]:
    """Quantities of one sentence or row, all in the unit that suits the largest."""
    shown_in, texts = in_one_unit(values, unit, digits)
    return [f"{text}\u00a0{shown_in}" if shown_in else text for text in texts]


def count(value: float, noun: str) -> str:
    """'1 job', '182 353 jobs'."""
    whole = round(value)
    return f"{whole:,}".replace(",", "\u202f") + f" {noun}{'' if whole == 1 else 's'}"


def named(name: str, value: float) -> tuple[str, str]:
    """A figure by its name as (words, value with unit): ('energy', '33.7 MWh') for energy_kwh."""
    unit = unit_of(name).symbol
    words = re.sub(r"_", " ", name)
    for suffix in ("usd per kwh", "kg per kwh", "to per min", "kwh", "usd", "kg", "pu", "jobs", "ratio", "kw", "s"):
        if words.endswith(f" {suffix}") and suffix != "jobs":
            words = words.removesuffix(f" {suffix}")
            break
    words = re.sub(r"\bco2\b", "CO2", re.sub(r"\bit\b", "IT", re.sub(r"^vm\b", "voltage", words)))
    if unit == "jobs":
        return words, count(value, "job").rpartition(" ")[0]
    if unit == "1" and value == round(value):
        return words, f"{value:.0f}"
    digits = 5 if unit == "p.u." and abs(value) > 0.1 else 4
    return words, quantity(value, "" if unit == "1" else unit, digits)


def length(seconds: float) -> str:
    """A duration in words: '15 min', '24 h', '3 days'."""
    if seconds >= 2 * DAY_S and seconds % DAY_S == 0:
        return f"{seconds / DAY_S:.0f} days"
    value, unit = ((seconds / HOUR_S, "h") if seconds >= HOUR_S else (seconds / MIN_S, "min") if seconds >= MIN_S
                   else (seconds, "s"))
    return f"{value:.0f} {unit}" if value == round(value) else f"{number(value)} {unit}"


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def at(time_s: float) -> str:
    """A time since the run's start: '18:45', '1d 06:00'. `Run.at` has its date."""
    return format_time(max(0.0, float(time_s)))


def listing(words: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def highest(values: np.ndarray) -> int:
    """Where the largest finite value stands; 0 when there is none."""
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0
