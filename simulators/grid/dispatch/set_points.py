"""The AC power flow that a dispatch's set points cause: its loading, its intensities, and what an interval brought.

Rows: E06, E07, I30.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.simulators.grid.dispatch.branch_limits import BranchLimits, loading_ratio, overload_ratio
from cosim.simulators.grid.dispatch.changing import ChangingSources
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.reduced import OperatingPoint
from cosim.simulators.grid.dispatch.results import NEGLIGIBLE_PU, DispatchResult, Settlement
from cosim.simulators.grid.equations import (
    Complexes,
    Floats,
    generated_carbon,
    nodal_carbon_intensity,
    radial_power_flow,
)
from cosim.simulators.grid.network.feeder import Feeder


@dataclass(frozen=True, slots=True, eq=False)
class AcState:
    """The power flow that set points cause: what enters the branches' ends, voltages, all sources' P + jQ in kVA."""

    enter: Complexes
    leave: Complexes
    v_pu: Complexes
    source: Complexes

    def point(self, feeder: Feeder) -> OperatingPoint:
        """As the conic problem has it: what enters a branch behind its own conductance."""
        base_kw, u = feeder.base_kw, np.abs(self.v_pu) ** 2
        return OperatingPoint(self.enter.real / base_kw - feeder.g_parent_pu * u[feeder.parent],
                              self.enter.imag / base_kw, u, self.source.real / base_kw, self.source.imag / base_kw)


class SetPointFlows(ChangingSources):
    """What set points mean for the feeder: the power flows of a `Dispatch`.

    feeder, limits  the network and its limits; source_names, substation  the sources' names, and which balances
    """

    feeder: Feeder
    limits: Limits
    source_names: list[str]
    substation: int
    _watched: BranchLimits | None

    def flow(self, source_pu: Complexes, demand_kva: Complexes) -> AcState | None:
        """The power flow at the sources' set points (the substation's is ignored); None where there is none."""
        feeder = self.feeder
        source, demand = source_pu * feeder.base_kw, demand_kva.astype(complex)
        source[self.substation] = 0.0
        np.subtract.at(demand, self.sources.bus, source)
        if self.injection is not None:
            demand -= self.injection.at_bus_kw
        flow = radial_power_flow(feeder.tree, np.asarray(demand / feeder.base_kw, np.complex128), self.limits.v0_pu)
        if not flow.converged:
            return None
        enter, leave = flow.s_parent_pu * feeder.base_kw, flow.s_child_pu * feeder.base_kw
        slack = demand[feeder.substation] + enter[feeder.parent == feeder.substation].sum()
        own = feeder.g_bus_pu[feeder.substation] - 1j * feeder.b_pu[feeder.substation]
        slack += own * self.limits.v0_pu**2 * feeder.base_kw
        source[self.substation] = slack
        return AcState(enter, leave, flow.v_pu, source)

    def loading(self, flow: AcState) -> tuple[Floats | None, float]:
        """How full the branches are, and by how much the fullest is above its limit; None, 0 without ratings."""
        watched = self.limits.branches or self._watched
        if watched is None:
            return None, 0.0
        base_kw = self.feeder.base_kw
        loading = loading_ratio(self.feeder, watched, flow.enter / base_kw, flow.leave / base_kw, flow.v_pu)
        return loading, 0.0 if self.limits.branches is None else overload_ratio(watched, loading)

    def settle(self, result: DispatchResult, p_load_kw: Floats, q_load_kvar: Floats) -> Settlement | None:
        """The AC power flow at the set points of `result` and other demand (n_bus,); None where there is none.

        A bus that the dispatch served in part is served in the same part; what it curtailed is not there.
        """
        p_load_kw = p_load_kw + np.minimum(result.curtailed_bus_kw, np.maximum(-p_load_kw, 0.0))
        demanded = result.p_load_kw + result.unserved_kw
        part = np.where(result.unserved_kw > 0.0, result.p_load_kw / np.where(demanded == 0.0, 1.0, demanded), 1.0)
        source = np.asarray((result.p_source_kw + 1j * result.q_source_kvar) / self.feeder.base_kw, np.complex128)
        state = self.flow(source, part * (p_load_kw + 1j * q_load_kvar))
        if state is None:
            return None
        vm_pu, p_source = np.abs(state.v_pu) * self.feeder.vm_ratio, state.source.real
        return Settlement(
            p_substation_kw=float(p_source[self.substation]),
            loss_kw=float(np.sum(state.enter.real + state.leave.real)),
            emission_kg_per_h=generated_carbon(p_source, result.sources.kg_per_kwh), vm_pu=vm_pu,
            voltage_violation_pu=self.violation(vm_pu), loading_ratio=self.loading(state)[0])

    def nci(self, p_from_kw: Floats, p_to_kw: Floats, p_source_kw: Floats, p_net_kw: Floats) -> Floats:
        """(9) at the given branch flows and source powers; a bus that draws p_net_kw < 0 generates at 0 kg/kWh, a
        battery that discharges at its stored intensity."""
        feeder, bus, power, intensity = self.feeder, self.sources.bus, p_source_kw, self.sources.kg_per_kwh
        feeding = np.flatnonzero(p_net_kw < 0.0)
        if len(feeding):
            bus, power = np.concatenate([bus, feeding]), np.concatenate([power, -p_net_kw[feeding]])
            intensity = np.concatenate([intensity, np.zeros(len(feeding))])
        if (also := self.injection) is not None:
            bus, power = np.concatenate([bus, also.bus]), np.concatenate([power, also.p_kw])
            intensity = np.concatenate([intensity, also.kg_per_kwh])
        return nodal_carbon_intensity(
            feeder.n_bus, feeder.parent, feeder.child, p_from_kw, p_to_kw, bus, power, intensity
        )

    def substation_can(self, s_pu: complex) -> bool:
        """Whether P + jQ is inside the substation's box."""
        s, k = self.sources, self.substation
        return bool(s.p_min_pu[k] - NEGLIGIBLE_PU <= s_pu.real <= s.p_max_pu[k] + NEGLIGIBLE_PU
                    and s.q_min_pu[k] - NEGLIGIBLE_PU <= s_pu.imag <= s.q_max_pu[k] + NEGLIGIBLE_PU)

    def violation(self, vm_pu: Floats) -> float:
        others = np.delete(vm_pu, self.feeder.substation)
        excess = float(np.maximum(self.limits.v_min_pu - others, others - self.limits.v_max_pu).max())
        return excess if excess > NEGLIGIBLE_PU else 0.0
