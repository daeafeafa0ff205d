"""The distribution grid on the bus: demand per bus in, nodal carbon intensity and the grid's state out."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from cosim.adapter import Adapter, Values
from cosim.errors import ScenarioError, SolverError
from cosim.params import params
from cosim.ports import Port
from cosim.units import format_time
from simulators.grid.conic import Limits
from simulators.grid.dispatch import ELASTIC, HELD, OPTIMAL, Dispatch, DispatchResult, SolverName, Source
from simulators.grid.feeder import Network
from simulators.grid.network import AcCheck, read_feeder

LOOSE_GAP_PU = 1e-3
"""A larger relaxation gap means that the conic optimum is not a physical state; the run's notes then say so."""


@params
class GridParams:
    """The operator's network, sources and limits (Table I)."""

    sources: Annotated[dict[str, Source], Field(min_length=1, description="what feeds the network, by name; the first "
                                                "at the slack bus is the substation")]
    network: Annotated[Network, Field(description="pandapower network's name, .json file, or lines")] = "case33bw"
    lambda_kw_per_kg_h: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="lambda of (11), kW of loss per kg/h; 0 is power mode")
    ] = 0.01
    v0_pu: Annotated[float, Field(gt=0, le=2, description="voltage at the substation, p.u.")] = 1.0
    vm_min_pu: Annotated[float, Field(ge=0, description="lowest voltage of (7), p.u.")] = 0.9
    vm_max_pu: Annotated[float, Field(gt=0, le=2, description="highest voltage of (7), p.u.")] = 1.1
    solver: Annotated[SolverName, Field(description="auto: gurobi where it runs at this size, else clarabel")] = "auto"
    ac_check: Annotated[bool, Field(description="run pandapower's AC power flow at every dispatch")] = True

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> GridParams:
        if self.vm_min_pu >= self.vm_max_pu:
            raise ValueError(f"vm_min_pu = {self.vm_min_pu:g} must be below vm_max_pu = {self.vm_max_pu:g}")
        return self


_BUS = (
    Port("p_load_kw", "in", "active demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid; < 0 is local generation, counted at 0 kg/kWh"),
    Port("q_load_kvar", "in", "reactive demand at the bus, summed over all that draw there", reduce="sum", default=0.0,
         sign="> 0 is drawn from the grid (inductive)"),
    Port("nci_kg_per_kwh", "out", "nodal carbon intensity until the next dispatch, average, not marginal"),
    Port("vm_pu", "out", "voltage magnitude"),
)
_GRID = (
    Port("loss_kw", "out", "active power lost in all lines", sign="> 0 is lost"),
    Port("emission_kg_per_h", "out", "carbon that all sources emit, the substation included", sign="> 0 is emitted"),
    Port("p_source_kw", "out", "active power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("q_source_kvar", "out", "reactive power of each source", sign="> 0 feeds the network", dims=("source",)),
    Port("relaxation_gap_pu", "out", "largest |l u - P^2 - Q^2| of the conic relaxation (6); 0 is exact"),
    Port("vm_min_pu", "out", "lowest voltage magnitude"),
    Port("vm_max_pu", "out", "highest voltage magnitude"),
    Port("status", "out", "0 all limits met, 1 elastic: a voltage outside its limits or power unserved, 2 held: no "
         "solution, all outputs are those of the interval before"),
    Port("unserved_kw", "out", "demand that the network cannot carry", sign="> 0 is not served"),
    Port("voltage_violation_pu", "out", "largest distance of a voltage outside its limits", sign="> 0 is outside"),
    Port("ac_dvm_pu", "out", "largest |voltage of the conic solution - of the AC power flow|", nullable=True),
    Port("ac_dloss_kw", "out", "|loss of the conic solution - of the AC power flow|", nullable=True),
    Port("ac_dnci_kg_per_kwh", "out", "largest |nci - nci from the flows of the AC power flow|", nullable=True),
    Port("p_from_kw", "out", "active power at the end of each line nearer to the substation",
         sign="> 0 enters the line, away from the substation", dims=("line",)),
    Port("p_to_kw", "out", "active power at the end of each line farther from the substation",
         sign="> 0 enters the line, toward the substation", dims=("line",)),
)


class CefDispatch(Adapter):
    """Second-order cone dispatch of a radial feeder with carbon emission flow, (1)-(11).

    Every step it takes the demand of each `Bus`, dispatches the sources, and holds each bus's NCI until the next step.
    `Grid` (one entity) tells how the network stands. A bus without an entity has no demand.
    """

    PARAMS = GridParams
    MODELS = {"Bus": _BUS, "Grid": _GRID}

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> dict:
        """Validate the parameters and read the network, so that `create` can refuse a bus it does not have."""
        meta = super().init(sid, time_resolution, **params)
        self._feeder = read_feeder(self.params.network)
        return meta

    def create(self, num: int, model: str, names: list[str] | None = None) -> list[dict]:
        """Buses by name ('bus8' is bus 8 of the network; without names the first `num`), or the one Grid."""
        if model == "Bus":
            names = list(names) if names else self._feeder.bus_names[:num]
            for name in names:
                self._feeder.named(name, self.sid)
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names)

    def setup(self) -> None:
        p = self.params
        limits = Limits(p.v0_pu, p.vm_min_pu, p.vm_max_pu, p.lambda_kw_per_kg_h)
        self._dispatch = Dispatch(self._feeder, p.sources, limits, p.solver)
        self._turbines = np.delete(np.arange(len(p.sources)), self._dispatch.substation)
        buses = [list(p.sources.values())[k].node for k in self._turbines]
        self._ac = AcCheck(p.network, buses, p.v0_pu) if p.ac_check else None
        self._at = {eid: self._feeder.named(eid, self.sid) for eid in self.entities["Bus"]}
        self._last: tuple[DispatchResult, tuple[float, float, float]] | None = None
        self._times: dict[str, list[float]] = {}

    def labels(self) -> dict[str, list[str]]:
        return {"source": list(self.params.sources), "line": self._feeder.line_names}

    def advance(self, time_s: float, inputs: Values) -> Values:
        p_load, q_load = np.zeros(self._feeder.n_bus), np.zeros(self._feeder.n_bus)
        for eid, at in self._at.items():
            p_load[at], q_load[at] = inputs[eid]["p_load_kw"], inputs[eid]["q_load_kvar"]
        try:
            result = self._dispatch.solve(p_load, q_load)
            self._last, status = (result, self._compare(result, time_s)), result.status
        except SolverError as err:
            if self._last is None:
                raise SolverError(f"{self.sid} at {format_time(time_s)}: {err}") from None
            status = HELD
        if status != OPTIMAL:
            self._note("elastic" if status == ELASTIC else "held", time_s)
        if self._last[0].relaxation_gap_pu > LOOSE_GAP_PU:
            self._note("loose", time_s)
        return self._outputs_of(*self._last, status)

    def notes(self) -> list[str]:
        said = {
            "elastic": "were elastic: a voltage left its limits or power went unserved",
            "held": "had no solution and repeat the one before",
            "loose": f"have a relaxation gap above {LOOSE_GAP_PU:g} p.u.: the set points need not be optimal",
            "no_ac": "have no AC check: the AC power flow found no solution",
        }
        lines = [f"{self.sid}: {len(times)} intervals {said[what]}; first at {format_time(times[0])}"
                 for what, times in self._times.items()]
        return [f"{self.sid}: dispatch solved by {self._dispatch.solver_name}", *lines]

    def _note(self, what: str, time_s: float) -> None:
        self._times.setdefault(what, []).append(time_s)

    def _compare(self, result: DispatchResult, time_s: float) -> tuple[float, float, float]:
        """|dV|, |dloss|, |dNCI| between the dispatch and the AC power flow at its set points; NaN if not computed."""
        nothing = (math.nan, math.nan, math.nan)
        if self._ac is None:
            return nothing
        p_source, q_source = result.p_source_kw, result.q_source_kvar
        ac = self._ac.run(
            result.p_load_kw, result.q_load_kvar, p_source[self._turbines], q_source[self._turbines], result.v_pu
        )
        if ac is None:
            self._note("no_ac", time_s)
            return nothing
        p_source = p_source.copy()
        p_source[self._dispatch.substation] = ac.p_substation_kw
        nci = self._dispatch.nci(ac.p_from_kw, ac.p_to_kw, p_source, result.p_load_kw)
        return (
            float(np.abs(result.conic_vm_pu - ac.vm_pu).max()),
            abs(result.conic_loss_kw - ac.loss_kw),
            float(np.abs(result.nci_kg_per_kwh - nci).max()),
        )

    def _outputs_of(self, result: DispatchResult, ac: tuple[float, float, float], status: int) -> Values:
        nci, vm_pu = result.nci_kg_per_kwh.tolist(), result.vm_pu.tolist()
        outputs: Values = {eid: {"nci_kg_per_kwh": nci[at], "vm_pu": vm_pu[at]} for eid, at in self._at.items()}
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                "loss_kw": result.loss_kw,
                "emission_kg_per_h": result.emission_kg_per_h,
                "p_source_kw": result.p_source_kw.tolist(),
                "q_source_kvar": result.q_source_kvar.tolist(),
                "relaxation_gap_pu": result.relaxation_gap_pu,
                "vm_min_pu": min(vm_pu),
                "vm_max_pu": max(vm_pu),
                "status": float(status),
                "unserved_kw": float(result.unserved_kw.sum()),
                "voltage_violation_pu": result.voltage_violation_pu,
                "ac_dvm_pu": ac[0],
                "ac_dloss_kw": ac[1],
                "ac_dnci_kg_per_kwh": ac[2],
                "p_from_kw": result.p_from_kw.tolist(),
                "p_to_kw": result.p_to_kw.tolist(),
            }
        return outputs
