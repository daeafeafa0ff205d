"""Units of other tools: what 'kW', 'g/kWh' or 'K' of an FMU or a federate is in the unit of a port.

Names are taken as they are written: mW is no MW. A unit of an FMU may state its SI base units, which then count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cosim.errors import ScenarioError, unknown
from cosim.units import HOUR_S, KG_PER_LB, KW_PER_MW, MIN_S, unit_of

_ZERO_DEGC_K = 273.15
_J_PER_KWH = 3.6e6


class Measure(NamedTuple):
    """A unit as numbers: a value of it, times `factor`, plus `offset`, is in the base unit of its dimension
    (`cosim.units`)."""

    dimension: str
    factor: float
    offset: float = 0.0


def _of(dimension: str, **factors: float) -> dict[str, Measure]:
    return {name: Measure(dimension, factor) for name, factor in factors.items()}


_NAMES: dict[str, Measure] = {
    **_of("active power", W=1e-3, kW=1.0, MW=KW_PER_MW, GW=1e6),
    **_of("reactive power", var=1e-3, Var=1e-3, VAr=1e-3, kvar=1.0, kVar=1.0, kVAr=1.0, Mvar=KW_PER_MW, MVar=KW_PER_MW,
          MVAr=KW_PER_MW),
    **_of("energy", Wh=1e-3, kWh=1.0, MWh=KW_PER_MW, GWh=1e6, J=1 / _J_PER_KWH, kJ=1e3 / _J_PER_KWH,
          MJ=1e6 / _J_PER_KWH, GJ=1e9 / _J_PER_KWH),
    **_of("carbon intensity", **{"kg/kWh": 1.0, "g/kWh": 1e-3, "kg/MWh": 1e-3, "t/MWh": 1.0, "lb/MWh": KG_PER_LB * 1e-3,
                                 "kg/J": _J_PER_KWH}),
    **_of("carbon rate", **{"kg/h": 1.0, "g/h": 1e-3, "t/h": 1e3, "kg/s": HOUR_S, "g/s": 1e-3 * HOUR_S}),
    **_of("price", **{"USD/kWh": 1.0, "USD/MWh": 1e-3}),
    **_of("cost rate", **{"USD/h": 1.0}), **_of("money", USD=1.0),
    **_of("mass", kg=1.0, g=1e-3, t=1e3),
    **_of("time", s=1.0, ms=1e-3, min=MIN_S, h=HOUR_S, d=24 * HOUR_S),
    **_of("irradiance", **{"W/m2": 1.0, "W/m^2": 1.0, "kW/m2": 1e3, "kW/m^2": 1e3}),
    **_of("speed", **{"m/s": 1.0, "km/h": 1e3 / HOUR_S}), **_of("air flow", **{"m3/s": 1.0, "m3/h": 1 / HOUR_S}),
    **_of("angle", rad=1.0), **_of("per unit", pu=1.0, **{"p.u.": 1.0}),
    **_of("ratio", **{"1": 1.0, "-": 1.0, "%": 1e-2}),
    **_of("jobs", jobs=1.0), **_of("GPUs", GPU=1.0),
    **dict.fromkeys(("degC", "deg_C", "°C", "Celsius"), Measure("temperature", 1.0)),
    "K": Measure("temperature", 1.0, -_ZERO_DEGC_K), "degF": Measure("temperature", 5 / 9, -32 * 5 / 9),
}
_SI: dict[tuple[tuple[str, int], ...], Measure] = {
    (("kg", 1), ("m", 2), ("s", -3)): _NAMES["W"], (("kg", 1), ("m", 2), ("s", -2)): _NAMES["J"],
    (("K", 1),): _NAMES["K"], (("s", 1),): _NAMES["s"], (("kg", 1), ("s", -1)): _NAMES["kg/s"],
    (("m", -2), ("s", 2)): _NAMES["kg/J"], (("m", 1), ("s", -1)): _NAMES["m/s"],
    (("m", 3), ("s", -1)): _NAMES["m3/s"], (("kg", 1), ("s", -3)): _NAMES["W/m2"], (("rad", 1),): _NAMES["rad"],
    (("kg", 1),): _NAMES["kg"], (): _NAMES["1"],
}
"""Exponents of SI base units, sorted -> the coherent unit of these."""
SUMMED = {"active power", "reactive power", "energy", "money", "mass", "carbon rate", "cost rate", "jobs", "GPUs",
          "work", "throughput"}
"""Dimensions of what several entities have together: the sum of theirs."""


class SiUnit(NamedTuple):
    """The SI base units of a unit: value in these = `factor` x value + `offset`."""

    exponents: Mapping[str, int]
    factor: float = 1.0
    offset: float = 0.0


class Conversion(NamedTuple):
    """ours = theirs x factor + offset."""

    factor: float = 1.0
    offset: float = 0.0

    def ours(self, theirs: float) -> float:
        """A value of theirs in our unit."""
        return theirs * self.factor + self.offset

    def theirs(self, ours: float) -> float:
        """A value of ours in their unit."""
        return (ours - self.offset) / self.factor


def conversion(port: str, unit: str, si: SiUnit | None = None) -> Conversion:
    """From a unit of another tool, with its SI base units where they are known, to that of a port by its name.

    ScenarioError for a unit that is not known, one that measures something else, and a name that its own SI base units
    contradict.
    """
    ours = unit_of(port)
    name = "".join(unit.split()).replace("*", ".").replace("(", "").replace(")", "").replace("kW.h", "kWh").replace(
        "MW.h", "MWh").replace("W.h", "Wh")
    named, stated = _NAMES.get(name), _stated(si)
    found = named or stated
    if found is None:
        raise ScenarioError(f"{unknown('unit', unit, _NAMES)}; it is to be taken as {ours.symbol} of {port}")
    if named and stated and not _alike(named, stated):
        raise ScenarioError(f"unit '{unit}' is called so and says by its SI base units that it is another one "
                            f"(factor {si.factor if si else 1:g}, offset {si.offset if si else 0:g}); mend the one "
                            "that is wrong")
    if found.dimension != ours.dimension:
        raise ScenarioError(f"it is in {unit} ({found.dimension}), and {port} is in {ours.symbol} ({ours.dimension}); "
                            "the two must measure the same thing")
    return Conversion(found.factor / ours.factor, found.offset / ours.factor)


def _stated(si: SiUnit | None) -> Measure | None:
    if si is None:
        return None
    coherent = _SI.get(tuple(sorted((base, n) for base, n in si.exponents.items() if n)))
    return coherent and Measure(coherent.dimension, coherent.factor * si.factor,
                                coherent.factor * si.offset + coherent.offset)


def _alike(a: Measure, b: Measure) -> bool:
    powers = {"active power", "reactive power"}  # have the same SI base units
    kind = a.dimension == b.dimension or {a.dimension, b.dimension} == powers
    return kind and abs(a.factor - b.factor) <= 1e-6 * abs(a.factor) and abs(a.offset - b.offset) <= 1e-2
