"""Sources as the scenario gives them: limits, capability, intensity and prices; and the same in p.u.

Rows: E08, M04, P02-04.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.dispatch.varying import Value, may_vary, number
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.elements import Generator
from cosim.simulators.grid.network.feeder import Feeder
from cosim.units import DAY_S, format_time

Capability = Literal["box", "circle", "power_factor"]
_SAME_PU = 1e-9
MAY_VARY = "; a number, a list of numbers over the day, a table {path: FILE.csv, ...}, or linked"
OTHERS = "*"
"""In place of a generator's name: all that are not named."""


@params
class Source:
    """Something that feeds the network: a generator, or the substation if it stands at the slack bus.

    Its power stays inside the box of its P and Q limits; with `capability` circle or power_factor inside that, too.
    """

    node: Annotated[int, Field(ge=0, description="bus number of the network")]
    kg_per_kwh: Annotated[Value, may_vary("kg_per_kwh"), Field(
        description="carbon intensity of its energy, kg/kWh, an average" + MAY_VARY)]
    p_min_kw: Annotated[float, Field(allow_inf_nan=False, description="least P, kW; < 0 lets it take power")] = 0.0
    p_max_kw: Annotated[Value | None, may_vary("p_max_kw"), Field(
        description="most P, kW; null: no limit" + MAY_VARY)] = None
    q_min_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="least Q, kvar; null: no limit")] = None
    q_max_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="most Q, kvar; null: no limit")] = None
    usd_per_kwh: Annotated[Value, may_vary("usd_per_kwh"), Field(
        description="price of its energy, USD/kWh, for a dispatch that weighs cost" + MAY_VARY)] = 0.0
    usd_per_kw2h: Annotated[float, Field(ge=0, allow_inf_nan=False, description="quadratic cost: this x P^2 in USD/h, "
                                         "USD/(kW^2 h)")] = 0.0
    renewable: Annotated[bool, Field(description="p_max_kw is there for the taking; what is not taken is curtailed and "
                                     "weighed by curtailment_weight")] = False
    capability: Annotated[Capability, Field(description="box: P and Q limits alone; circle: P^2 + Q^2 <= s_max_kva^2; "
                                            "power_factor: |Q| <= P tan(acos(power_factor_min))")] = "box"
    s_max_kva: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="rating for capability circle, kVA"
                                             )] = None
    power_factor_min: Annotated[float | None, Field(gt=0, le=1, description="for capability power_factor")] = None
    ramp_kw_per_min: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="most change of P, kW per "
                                                   "min, up and down; null: no limit")] = None
    marginal_kg_per_kwh: Annotated[Value | None, may_vary("marginal_kg_per_kwh"), Field(
        description="carbon intensity of one more kWh of it, for the marginal carbon intensity alone, e.g. of the grid "
        "upstream of the substation; null: kg_per_kwh, its average" + MAY_VARY)] = None

    @model_validator(mode="after")
    def _boxes_are_not_empty(self) -> Source:
        given = self.p_max_kw
        points = given if isinstance(given, tuple) else (given,) if isinstance(given, float | int) else ()
        for k, high in enumerate(points):
            if self.p_min_kw > high:
                at = f" at {format_time(DAY_S * k / len(points))}" if isinstance(given, tuple) else ""
                raise ValueError(f"p_min_kw = {self.p_min_kw:g} is above its maximum {high:g}{at}")
        if self.q_min_kvar is not None and self.q_max_kvar is not None and self.q_min_kvar > self.q_max_kvar:
            raise ValueError(f"q_min_kvar = {self.q_min_kvar:g} is above its maximum {self.q_max_kvar:g}")
        return self

    @model_validator(mode="after")
    def _capability_has_its_figure(self) -> Source:
        for kind, name in (("circle", "s_max_kva"), ("power_factor", "power_factor_min")):
            if (getattr(self, name) is not None) != (self.capability == kind):
                raise ValueError(f"capability = '{self.capability}' and {name} = {getattr(self, name)}: {name} belongs "
                                 f"to capability '{kind}', which needs it")
        if self.capability == "power_factor" and self.p_min_kw < 0:
            raise ValueError(f"p_min_kw = {self.p_min_kw:g} with capability 'power_factor', which is for P >= 0")
        if self.renewable and self.p_max_kw is None:
            raise ValueError("renewable needs p_max_kw, the power that is there for the taking")
        if self.ramp_kw_per_min is not None and self.p_max_kw is None:
            raise ValueError(f"ramp_kw_per_min = {self.ramp_kw_per_min:g} needs p_max_kw, the most P it may ramp to")
        return self


def all_sources(given: Mapping[str, Source], feeder: Feeder, kg_per_kwh: Mapping[str, Value], member: str
                ) -> dict[str, Source]:
    """The sources of a scenario and, after them, the network's own generators at the intensity (kg/kWh) given for each.

    ScenarioError as from `own_intensities`, or naming a name that is twice.
    """
    feeding = [g for g in feeder.generators if g.p_max_kw > 0.0]
    own = own_intensities(feeder.generators, feeding, kg_per_kwh, feeder.name, member)
    if twice := [name for name in own if name in given]:
        raise ScenarioError(f"{member}.sources.{twice[0]} and a generator of {feeder.name} have one name; call the "
                            "source something else")
    return {**given, **{
        g.name: Source(node=g.node, kg_per_kwh=own[g.name], p_min_kw=g.p_min_kw, p_max_kw=g.p_max_kw,
                       q_min_kvar=g.q_min_kvar, q_max_kvar=g.q_max_kvar) for g in feeder.generators}}


def own_intensities(generators: Sequence[Generator], feeding: Sequence[Generator], kg_per_kwh: Mapping[str, Value],
                    network: str, member: str) -> dict[str, Value]:
    """kg/kWh of every generator of a network from `network_sources`: by its name, else that of '*'.

    Those that are not `feeding` (condensers, for example) need none. ScenarioError naming generators without an
    intensity, or an intensity without a generator.
    """
    names = [g.name for g in generators]
    for name in kg_per_kwh:
        if name != OTHERS and name not in names:
            raise ScenarioError(f"{member}.network_sources: {unknown(f'generator of {network}', name, names)}")
    missing = [g for g in feeding if g.name not in kg_per_kwh and OTHERS not in kg_per_kwh]
    if missing:
        said = ", ".join(f"'{g.name}' (bus {g.node}, {g.p_kw:g} kW)" for g in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ScenarioError(f"network {network} has generator {said}{more} in service; give the kg/kWh of each in "
                            f"{member}.network_sources, by name or as '{OTHERS}' for all others, or take it out of "
                            "service in the network")
    return {g.name: kg_per_kwh.get(g.name, kg_per_kwh.get(OTHERS, 0.0)) for g in generators}


def other_voltage(v0_pu: float, of_file: Sequence[float]) -> str:
    """Note for a scenario that sets another voltage at the external grid than the network's file."""
    has = ", ".join(f"{v:g}" for v in of_file)
    return (f"voltage at the external grid is v0_pu = {v0_pu:g} of the scenario, not {has} p.u. as the network has it; "
            "take v0_pu away to use the network's")


def tighter_limits(vm_min_pu: float, vm_max_pu: float, of_file: Sequence[tuple[int, float, float]]) -> list[str]:
    """Note for a network that states narrower voltage limits for some bus than the scenario, whose limits hold for
    all; [] if it does not. of_file: (bus, lowest, highest), p.u., NaN: none."""
    low = [(least, bus) for bus, least, _ in of_file if least > vm_min_pu + _SAME_PU]
    high = [(most, bus) for bus, _, most in of_file if most < vm_max_pu - _SAME_PU]
    return [f"the file's {theirs} of {len(found)} bus{'es' if len(found) > 1 else ''} (bus {bus}: {limit:g} p.u.) is "
            f"not kept; {mine} = {value:g} of the scenario holds at all of them: --set {mine} of this member"
            for found, (limit, bus), theirs, mine, value in (
                (low, max(low, default=(0.0, 0)), "min_vm_pu", "vm_min_pu", vm_min_pu),
                (high, min(high, default=(0.0, 0)), "max_vm_pu", "vm_max_pu", vm_max_pu)) if found]


def in_pu(feeder: Feeder, sources: Mapping[str, Source]) -> Sources:
    """Sources on the feeder's base; ScenarioError naming one whose node is no bus of it, or a field that varies, for
    whose values at a time see `cosim.simulators.grid.dispatch.source_series`."""
    def limits(values: list[float | None], missing: float) -> Floats:
        return np.array([missing if v is None else v / feeder.base_kw for v in values], dtype=float)

    given = list(sources.values())

    def numbers(field: str, missing: float) -> Floats:
        return np.array([missing if getattr(s, field) is None else number(getattr(s, field), f"sources.{name}.{field}")
                         for name, s in sources.items()], dtype=float)

    kg_per_kwh = numbers("kg_per_kwh", math.nan)
    marginal = numbers("marginal_kg_per_kwh", math.nan)
    return Sources(
        bus=np.array([feeder.position(s.node, f"sources.{name}.node") for name, s in sources.items()], dtype=np.int64),
        kg_per_kwh=kg_per_kwh, marginal_kg_per_kwh=np.where(np.isnan(marginal), kg_per_kwh, marginal),
        p_min_pu=limits([s.p_min_kw for s in given], -np.inf), p_max_pu=numbers("p_max_kw", np.inf) / feeder.base_kw,
        q_min_pu=limits([s.q_min_kvar for s in given], -np.inf), q_max_pu=limits([s.q_max_kvar for s in given], np.inf),
        available_pu=numbers("p_max_kw", np.inf) / feeder.base_kw,
        usd_per_kwh=numbers("usd_per_kwh", 0.0),
        usd_per_kwh_pu=np.array([s.usd_per_kw2h * feeder.base_kw for s in given], dtype=float),
        renewable=np.array([s.renewable for s in given], dtype=bool),
        s_max_pu=limits([s.s_max_kva for s in given], np.inf),
        q_per_p_max=np.array([np.inf if s.power_factor_min is None else math.tan(math.acos(s.power_factor_min))
                              for s in given], dtype=float),
        ramp_pu_per_min=limits([s.ramp_kw_per_min for s in given], np.inf),
    )
