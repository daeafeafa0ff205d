"""Sources as the scenario gives them: limits, capability, intensity and prices; and the same in p.u."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from cosim.params import params
from simulators.grid.conic import Sources
from simulators.grid.equations import Floats
from simulators.grid.feeder import Feeder

Capability = Literal["box", "circle", "power_factor"]


@params
class Source:
    """Something that feeds the network: a generator, or the substation if it stands at the slack bus (P02-P04, E08).

    Its power stays inside the box of its P and Q limits; with `capability` circle or power_factor inside that, too.
    """

    node: Annotated[int, Field(ge=0, description="bus number of the network")]
    kg_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, description="carbon intensity of its energy, kg/kWh")]
    p_min_kw: Annotated[float, Field(allow_inf_nan=False, description="least P, kW; < 0 lets it take power")] = 0.0
    p_max_kw: Annotated[float | None, Field(allow_inf_nan=False, description="most P, kW; null: no limit")] = None
    q_min_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="least Q, kvar; null: no limit")] = None
    q_max_kvar: Annotated[float | None, Field(allow_inf_nan=False, description="most Q, kvar; null: no limit")] = None
    usd_per_kwh: Annotated[float, Field(ge=0, allow_inf_nan=False, description="price of its energy, USD/kWh, for a "
                                        "dispatch that weighs cost")] = 0.0
    usd_per_kw2h: Annotated[float, Field(ge=0, allow_inf_nan=False, description="quadratic cost: this x P^2 in USD/h, "
                                         "USD/(kW^2 h)")] = 0.0
    renewable: Annotated[bool, Field(description="p_max_kw is there for the taking; what is not taken is curtailed and "
                                     "weighed by curtailment_weight")] = False
    capability: Annotated[Capability, Field(description="box: P and Q limits alone; circle: P^2 + Q^2 <= s_max_kva^2; "
                                            "power_factor: |Q| <= P tan(acos(power_factor_min))")] = "box"
    s_max_kva: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="rating for capability circle, kVA"
                                             )] = None
    power_factor_min: Annotated[float | None, Field(gt=0, le=1, description="for capability power_factor")] = None
    marginal_kg_per_kwh: Annotated[float | None, Field(
        ge=0, allow_inf_nan=False, description="carbon intensity of one more kWh of it, for the marginal carbon "
        "intensity alone, e.g. of the grid upstream of the substation; null: kg_per_kwh, its average")] = None

    @model_validator(mode="after")
    def _boxes_are_not_empty(self) -> Source:
        for low, high, what in ((self.p_min_kw, self.p_max_kw, "p_min_kw"), (self.q_min_kvar, self.q_max_kvar,
                                                                             "q_min_kvar")):
            if low is not None and high is not None and low > high:
                raise ValueError(f"{what} = {low:g} is above its maximum {high:g}")
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
        return self


def in_pu(feeder: Feeder, sources: Mapping[str, Source]) -> Sources:
    """Sources on the feeder's base; ScenarioError naming one whose node is no bus of it."""
    def limits(values: list[float | None], missing: float) -> Floats:
        return np.array([missing if v is None else v / feeder.base_kw for v in values], dtype=float)

    given = list(sources.values())
    return Sources(
        bus=np.array([feeder.position(s.node, f"sources.{name}.node") for name, s in sources.items()], dtype=np.int64),
        kg_per_kwh=np.array([s.kg_per_kwh for s in given], dtype=float),
        marginal_kg_per_kwh=np.array([s.kg_per_kwh if s.marginal_kg_per_kwh is None else s.marginal_kg_per_kwh
                                      for s in given], dtype=float),
        p_min_pu=limits([s.p_min_kw for s in given], -np.inf), p_max_pu=limits([s.p_max_kw for s in given], np.inf),
        q_min_pu=limits([s.q_min_kvar for s in given], -np.inf), q_max_pu=limits([s.q_max_kvar for s in given], np.inf),
        usd_per_kwh=np.array([s.usd_per_kwh for s in given], dtype=float),
        usd_per_kwh_pu=np.array([s.usd_per_kw2h * feeder.base_kw for s in given], dtype=float),
        renewable=np.array([s.renewable for s in given], dtype=bool),
        s_max_pu=limits([s.s_max_kva for s in given], np.inf),
        q_per_p_max=np.array([np.inf if s.power_factor_min is None else math.tan(math.acos(s.power_factor_min))
                              for s in given], dtype=float),
    )
