"""What the operator's dispatch is given: network, sources, limits and weights (Table I).

Rows: M03.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cosim.params import params
from cosim.simulators.fleet import Site
from cosim.simulators.grid.battery import Battery
from cosim.simulators.grid.dispatch.nci_limits import Formulation
from cosim.simulators.grid.dispatch.solvers import SolverName
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.dispatch.varying import Value, may_vary
from cosim.simulators.grid.network.feeder import Network


@params
class GridParams:
    """The operator's network, sources and limits (Table I)."""

    sources: Annotated[dict[str, Source], Field(min_length=1, description="what feeds the network, by name; the first "
                                                "at the slack bus is the substation")]
    network: Annotated[Network, Field(description="pandapower's name, simbench:CODE, a file, or lines")] = "case33bw"
    network_sources: Annotated[dict[str, Annotated[Value, may_vary("kg_per_kwh")]], Field(
        description="kg/kWh of the network's own generators (gen, sgen, discharging storage), by name or as 'sgen3', "
        "'*' for all others, as kg_per_kwh of a source: they become sources, fixed unless controllable in the network")
    ] = field(default_factory=dict)
    lambda_kw_per_kg_h: Annotated[
        float, Field(ge=0, le=1e9, allow_inf_nan=False, description="lambda of (11), kW of loss per kg/h; 0: "
                     "power mode; with losses at 0.10 USD/kWh 0.01 is a carbon price of 1 USD/t")
    ] = 0.01
    loss_weight: Annotated[
        float, Field(ge=0, le=1e9, allow_inf_nan=False, description="weight of the losses; (11) has 1")
    ] = 1.0
    cost_kw_per_usd_h: Annotated[
        float, Field(ge=0, le=1e9, allow_inf_nan=False, description="weight of the sources' energy cost (their "
                     "usd_per_kwh), kW per USD/h; (11) has 0; lambda / this is the carbon price in USD/kg")
    ] = 0.0
    curtailment_weight: Annotated[
        float, Field(ge=0, le=1e9, allow_inf_nan=False, description="weight of what renewable sources have and do not "
                     "give, kW per kW")
    ] = 0.0
    nci_cap_kg_per_kwh: Annotated[dict[str, float], Field(
        description="bus -> highest NCI there, a constraint of the dispatch (Gurobi only, small feeders without a full "
        "licence), e.g. {bus8: 0.4}")] = field(default_factory=dict)
    nci_formulation: Annotated[Formulation, Field(description="how the direction of flows is written for the caps: "
                                              "big_m (binaries) or sos1")] = "big_m"
    time_limit_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="longest time of one solve, s; "
                                                "it makes results depend on the machine; null: none")] = None
    forecast_sigma_ratio: Annotated[float, Field(
        ge=0, lt=1, description="standard deviation of the base load's forecast error, relative: what is dispatched is "
        "base load x (1 + error), what is settled the base load; 0: forecast = actual")] = 0.0
    forecast_correlation: Annotated[float, Field(ge=0, lt=1, description="of an error with the one before")] = 0.0
    lookahead_steps: Annotated[int, Field(
        ge=1, le=96, description="intervals that are planned together where sources have ramp limits: the plan of the "
        "intervals to come, at their forecast base load (p_ahead_kw, else as now) and data centres as they are, says "
        "how far a source must ramp ahead; 1: none")] = 1
    v0_pu: Annotated[float | None, Field(gt=0, le=2, description="voltage at the substation, p.u.; null: as the "
                                         "network has it")] = None
    vm_min_pu: Annotated[float, Field(ge=0, description="lowest voltage of (7), p.u.")] = 0.9
    vm_max_pu: Annotated[float, Field(gt=0, le=2, description="highest voltage of (7), p.u.")] = 1.1
    line_limits: Annotated[Literal["none", "report", "ratings"], Field(
        description="ratings: what the network states of its branches (max_i_ka of lines, sn_mva of transformers, and "
        "what max_current_a and max_power_kva say in their place) is a constraint; report: how full they are is worked "
        "out, and limits nothing; none: ratings are not looked at")] = "none"
    max_current_a: Annotated[dict[str, Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None], Field(
        description="branch (a name of the axis 'line', e.g. 0-1) -> rated current of a line, A, in place of the "
        "network's; null: none")] = field(default_factory=dict)
    max_power_kva: Annotated[dict[str, Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None], Field(
        description="the same of apparent power, kVA, for transformers, or lines")] = field(default_factory=dict)
    batteries: Annotated[dict[str, Battery], Field(description="batteries on the feeder, by the names of the Battery "
                                                   "entities")] = field(default_factory=dict)
    solver: Annotated[SolverName, Field(description="auto: gurobi where it runs at this size, else clarabel; newton: "
                                        "steps in the set points, which agents learn on, and clarabel where their "
                                        "optimum is not proven")] = "auto"
    ac_check: Annotated[bool, Field(description="check every dispatch as an AC power flow")] = True
    settle: Annotated[bool, Field(description="settle every interval at its end; false: the _realised ports are "
                                  "NaN")] = True
    mci: Annotated[bool, Field(description="compute the marginal carbon intensity of every bus")] = True
    sites: Annotated[dict[str, Site], Field(description="data centres: their q_per_p_ratio counts in their bus's mci, "
                                            "and at a kink these buses are re-solved; none: all buses")] = field(
        default_factory=dict)

    scenario_start: Annotated[str | None, Field(description="date of t = 0, for tables with dates; the run fills it in"
                                                )] = None

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> GridParams:
        if self.vm_min_pu >= self.vm_max_pu:
            raise ValueError(f"vm_min_pu = {self.vm_min_pu:g} must be below vm_max_pu = {self.vm_max_pu:g}")
        if self.line_limits == "none" and (given := {**self.max_current_a, **self.max_power_kva}):
            raise ValueError(f"a rating of {next(iter(given))} is given and line_limits = none, which looks at none; "
                             "set line_limits to ratings, or to report")
        if twice := set(self.max_current_a) & set(self.max_power_kva):
            raise ValueError(f"{min(twice)} has max_current_a and max_power_kva; give one of them")
        if self.batteries and self.nci_cap_kg_per_kwh:
            raise ValueError("nci_cap_kg_per_kwh with batteries: the caps' mixing has no stored intensities; leave one "
                             "of them out")
        negative = [bus for bus, cap in self.nci_cap_kg_per_kwh.items() if cap < 0.0]
        if negative:
            raise ValueError(f"nci_cap_kg_per_kwh of {negative[0]} is {self.nci_cap_kg_per_kwh[negative[0]]:g}; a cap "
                             "is 0 or more")
        return self
