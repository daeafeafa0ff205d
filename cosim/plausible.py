"""Figures that cannot be: carbon intensities and prices in another unit than the stated one.

The one place for these bounds; tables, replays and parameters use them.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator

from cosim.units import SUFFIXES, Unit, unit_of


class Bounds(NamedTuple):
    """What figures of a dimension can be, and what the middle one of a table usually is, in the dimension's base unit;
    below, above: why those outside cannot be."""

    low: float
    high: float
    usual_low: float
    usual_high: float
    below: str
    above: str


INTENSITY = Bounds(0.0, 3.0, 0.003, 1.5, "an average intensity is greater than or equal to 0",
                   "no fuel emits more than 3 kg/kWh")
"""kg/kWh. Lignite in an old plant emits 1.2 to 1.5 kg per kWh delivered."""
MARGINAL = Bounds(-30.0, 30.0, 0.003, 1.5, *("a marginal intensity stays within 30 kg/kWh of zero",) * 2)
"""kg/kWh. Redispatch behind a congested line moves more than the one kWh, in either direction."""
PRICE = Bounds(-20.0, 20.0, 0.001, 1.0, *("markets cap prices below 20 USD/kWh either way",) * 2)
"""USD/kWh. The highest cap of a market is about 12 (Australia, 2024); the lowest floor -1."""
OUTSIDE_DEGC = Bounds(-60.0, 60.0, -40.0, 45.0, *("outside air has -60 to 60 degC",) * 2)
"""degC. Beyond it a column is in kelvin or degrees Fahrenheit."""

_NOISE = 1e-6  # what a solver leaves below zero, in the base unit
_MARGINAL = re.compile(r"marginal|(?<![a-z])(l?mci|l?mce|lme|[ls]?r?mer|moer|mef)(?![a-z])", re.IGNORECASE)
_CURRENCY = re.compile(r"(?<![a-z])(eur|gbp|chf|dkk|nok|sek|pln|czk|huf|ron|bgn|aud|nzd|cad|cny|jpy|inr|brl|zar|€|£|¥)"
                       r"(?![a-z])", re.IGNORECASE)
_PRICE = re.compile(r"(?:/|per)\s*([km]wh)\b", re.IGNORECASE)
_IN_WORDS = re.compile(r"\b(kg|g|lbs?|t)\s*(?:of\s+)?(?:co[2₂])?-?(?:eq|e)?\.?\s*(?:/|per)\s*([km]wh)\b", re.IGNORECASE)


def is_marginal(name: str) -> bool:
    """Whether the name of a port or column is that of a marginal intensity: of one more kWh, not of all that flow."""
    return _MARGINAL.search(name.replace("_", " ")) is not None


def _bounds_of(name: str, unit: Unit) -> Bounds | None:
    """The bounds of a port or column by its name and unit; None where nothing is known."""
    if unit.dimension == "carbon intensity":
        return MARGINAL if is_marginal(name) else INTENSITY
    return PRICE if unit.dimension == "price" else None


def impossible(name: str, values: np.ndarray, unit: Unit | None = None) -> str | None:
    """What is wrong with figures that cannot be, and which unit they are likely in; None if they can be.

    name: of the port or column; unit: of the values, that of the name by default. NaN is passed over.
    """
    unit = unit or unit_of(name)
    bounds, known = _bounds_of(name, unit), values[np.isfinite(values)]
    if bounds is None or not known.size:
        return None
    low, high = float(known.min()) * unit.factor, float(known.max()) * unit.factor
    if bounds.low - _NOISE <= low and high <= bounds.high:
        return None
    worst, why = (high, bounds.above) if high > bounds.high else (low, bounds.below)
    meant = _likely(unit, bounds, known)
    hint = f"; are they in {' or '.join(meant)}?" if meant else ""
    return f"{name} = {worst / unit.factor:g} {unit.symbol}: {why}{hint}"


def unusual(name: str, values: np.ndarray, unit: Unit | None = None) -> str | None:
    """What is odd about figures that can be, but that are hardly meant; None if nothing is."""
    unit = unit or unit_of(name)
    bounds, known = _bounds_of(name, unit), np.abs(values[np.isfinite(values) & (values != 0.0)])
    if bounds is None or not known.size:
        return None
    middle = float(np.median(known))
    if bounds.usual_low <= middle * unit.factor <= bounds.usual_high:
        return None
    meant = _likely(unit, bounds, known)
    hint = f"; are they in {' or '.join(meant)}?" if meant else ""
    usual = f"{bounds.usual_low / unit.factor:g} to {bounds.usual_high / unit.factor:g} {unit.symbol}"
    return f"the middle figure of {name} is {middle:g}, where {usual} is usual{hint}"


def _possible(name: str) -> AfterValidator:
    def check(value: float) -> float:
        if (wrong := impossible(name, np.array([value], dtype=np.float64))) is not None:
            raise ValueError(wrong.partition(": ")[2])
        return value
    return AfterValidator(check)


Intensity = Annotated[float, _possible("kg_per_kwh")]
"""A parameter in kg/kWh that can be."""
Price = Annotated[float, _possible("usd_per_kwh")]
"""A parameter in USD/kWh that can be."""


def stated_intensity(column: str) -> Unit | None:
    """The unit in the name of a carbon service's column; None where it has none.

    By its suffix, in words ('gCO2eq/kWh', 'lbs CO2 per MWh'), or because it is called MOER, which WattTime publishes in
    lb/MWh.
    """
    unit = unit_of(column)
    if unit.dimension == "carbon intensity":
        return unit
    said = _IN_WORDS.search(column)
    if said:
        return SUFFIXES.get(f"{said.group(1).lower().removesuffix('s')}_per_{said.group(2).lower()}")
    return SUFFIXES["lb_per_mwh"] if column.strip().lower() == "moer" else None


def stated_unit(column: str, dimension: str) -> Unit | None:
    """The unit of a dimension in the name of a column; None where it has none of it.

    Intensities as `stated_intensity`; prices also in words, per kWh or MWh of any currency ('Price (EUR/MWh)').
    """
    if dimension == "carbon intensity":
        return stated_intensity(column)
    unit = unit_of(column)
    if unit.dimension == dimension:
        return unit
    said = _PRICE.search(column) if dimension == "price" else None
    return SUFFIXES[f"usd_per_{said.group(1).lower()}"] if said else None


def foreign_currency(column: str) -> str | None:
    """The currency, other than USD, that the name of a column of prices states; None if it states none."""
    said = _CURRENCY.search(column.replace("_", " "))
    return said.group(1).upper() if said else None


def _likely(unit: Unit, bounds: Bounds, known: np.ndarray) -> list[str]:
    """Symbols of the units of the same kind in which the middle figure is usual, and none is impossible."""
    middle, low, high = float(np.median(np.abs(known))), float(known.min()), float(known.max())
    fits: dict[float, str] = {}
    for other in SUFFIXES.values():
        can_be = bounds.low <= low * other.factor and high * other.factor <= bounds.high
        usual = bounds.usual_low <= middle * other.factor <= bounds.usual_high
        if can_be and usual and other.dimension == unit.dimension and other.factor != unit.factor:
            fits.setdefault(other.factor, other.symbol)
    return list(fits.values())
