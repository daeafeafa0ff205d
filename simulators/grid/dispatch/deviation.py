"""How far a dispatch's conic solution is from the AC power flow of its network at the same set points.

Rows: U17.
"""

from __future__ import annotations

import numpy as np

from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import DispatchResult
from cosim.simulators.grid.network.check import AcCheck


def deviation(check: AcCheck, dispatch: Dispatch, result: DispatchResult) -> tuple[float, float, float] | None:
    """(|dV| in p.u., |dloss| in kW, |dNCI| in kg/kWh), the largest of all buses; None without a power flow."""
    feeder, others = dispatch.feeder, np.delete(np.arange(len(result.p_source_kw)), dispatch.substation)
    fed_kw = 0.0 if dispatch.injection is None else dispatch.injection.at_bus_kw
    ac = check.run(result.p_load_kw - feeder.own_p_kw - fed_kw, result.q_load_kvar - feeder.own_q_kvar,
                   result.p_source_kw[others], result.q_source_kvar[others], result.v_pu)
    if ac is None:
        return None
    p_source = result.p_source_kw.copy()
    p_source[dispatch.substation] = ac.p_substation_kw
    nci = dispatch.nci(ac.p_from_kw, ac.p_to_kw, p_source, result.p_load_kw + feeder.shunts_kw(ac.vm_pu))
    return (float(np.abs(result.conic_vm_pu - ac.vm_pu).max()), abs(result.conic_loss_kw - ac.loss_kw),
            float(np.abs(result.nci_kg_per_kwh - nci).max()))
