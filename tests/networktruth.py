"""What is right on a network: pandapower.runpp of the file itself, and proportional sharing worked out anew.

Nothing here uses the simulator: buses that closed switches join are fused by union-find, powers are read from the
result tables of each kind of element, and shares follow from one dense linear system.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandapower as pp

FED = {"ext_grid": ("p_mw", 1.0), "gen": ("p_mw", 1.0), "sgen": ("p_mw", 1.0), "asymmetric_sgen": ("p_mw", 1.0),
       "storage": ("p_mw", -1.0)}
"""Kinds that may feed: result column and sign."""
TWO_ENDS = {"line": ("from_bus", "to_bus", "p_from_mw", "p_to_mw"), "trafo": ("hv_bus", "lv_bus", "p_hv_mw", "p_lv_mw"),
            "impedance": ("from_bus", "to_bus", "p_from_mw", "p_to_mw"),
            "dcline": ("from_bus", "to_bus", "p_from_mw", "p_to_mw")}

NOISE_MW = 1e-9
"""So little is a solver's rounding: it colours no bus, and a bus that gets nothing else is not compared."""


@dataclass(frozen=True)
class Truth:
    """Per bus in service: voltage and intensity; losses of all branches, kW; what each feeding element gives, kW."""

    vm_pu: dict[int, float]
    nci_kg_per_kwh: dict[int, float]
    loss_kw: float
    fed_kw: dict[tuple[str, int], float]


def solved(net: Any) -> Any:
    """A copy with the results of pandapower's power flow at its defaults, as tight as it goes."""
    net = copy.deepcopy(net)
    for tolerance in (1e-10, 1e-9, 1e-8):
        try:
            pp.runpp(net, numba=False, tolerance_mva=tolerance)
        except pp.LoadflowNotConverged:
            continue
        return net
    raise pp.LoadflowNotConverged("not at 1e-8 MVA either")


def truth(net: Any, kg_per_kwh: dict[tuple[str, int], float]) -> Truth:
    """Solve `net` and trace it; kg_per_kwh of every element of FED that gives power."""
    net = solved(net)
    buses = [int(b) for b in net.bus.index[net.bus.in_service.astype(bool)]]
    root = _fused(net, buses)
    nodes = sorted(set(root.values()))
    place = {b: nodes.index(root[b]) for b in buses}
    deliveries, loss_mw, stars = [], 0.0, 0
    for kind, (first, other, p_first, p_other) in TWO_ENDS.items():
        for k in net[kind].index[net[kind].in_service.astype(bool)]:
            a, b = (place.get(int(net[kind].at[k, end])) for end in (first, other))
            p_a, p_b = (float(net[f"res_{kind}"].at[k, p]) for p in (p_first, p_other))
            loss_mw += np.nan_to_num(p_a) + np.nan_to_num(p_b)
            deliveries += [(a, b, -p_b)] if p_b < 0 else []
            deliveries += [(b, a, -p_a)] if p_a < 0 else []
    for k in net.trafo3w.index[net.trafo3w.in_service.astype(bool)]:
        star, stars = len(nodes) + stars, stars + 1
        power = {place[int(net.trafo3w.at[k, f"{w}_bus"])]: float(net.res_trafo3w.at[k, f"p_{w}_mw"])
                 for w in ("hv", "mv", "lv")}
        loss_mw += sum(power.values())
        deliveries += [(at, star, p) if p > 0 else (star, at, -p) for at, p in power.items() if p]
    for k in net.xward.index[net.xward.in_service.astype(bool)]:  # the loss of its inner branch
        row, vm = net.xward.loc[k], float(net.res_xward.at[k, "vm_pu"])
        loss_mw += float(net.res_xward.at[k, "p_mw"]) - float(row.ps_mw) - float(row.pz_mw) * vm**2
    for k in net.switch.index[(net.switch.et == "b") & net.switch.closed.astype(bool) & (net.switch.z_ohm > 0)]:
        a, b = place[int(net.switch.bus[k])], place[int(net.switch.element[k])]
        p_a, p_b = float(net.res_switch.at[k, "p_from_mw"]), float(net.res_switch.at[k, "p_to_mw"])
        loss_mw += p_a + p_b
        deliveries += [(a, b, -p_b)] if p_b < 0 else []
        deliveries += [(b, a, -p_a)] if p_a < 0 else []
    fed, injected, carbon = {}, np.zeros(len(nodes) + stars), np.zeros(len(nodes) + stars)
    for kind, (column, sign) in FED.items():
        for k in net[kind].index[net[kind].in_service.astype(bool)]:
            p = sign * float(net[f"res_{kind}"].at[k, column])
            if p > NOISE_MW:
                fed[kind, int(k)] = p * 1000.0
                injected[place[int(net[kind].at[k, "bus"])]] += p
                carbon[place[int(net[kind].at[k, "bus"])]] += p * kg_per_kwh[kind, int(k)]
    w = _shared(injected, carbon, [d for d in deliveries if d[2] > NOISE_MW])
    return Truth({b: float(net.res_bus.at[b, "vm_pu"]) for b in buses}, {b: float(w[place[b]]) for b in buses},
                 loss_mw * 1000.0, fed)


def branch_carbon(nci: np.ndarray, from_bus: np.ndarray, to_bus: np.ndarray, p_from: np.ndarray,
                  p_to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carbon flow rates (n_branch,) that enter each branch at `from_bus` and at `to_bus`, < 0 where they leave it.

    All of a branch's carbon has the intensity of the bus that sends it; the two ends add up to what is lost.
    """
    at_from = nci[from_bus] * np.maximum(p_from, 0.0) - nci[to_bus] * np.maximum(-p_from, 0.0)
    at_to = nci[to_bus] * np.maximum(p_to, 0.0) - nci[from_bus] * np.maximum(-p_to, 0.0)
    return at_from, at_to


def _fused(net: Any, buses: list[int]) -> dict[int, int]:
    root = {b: b for b in buses}

    def find(b: int) -> int:
        while root[b] != b:
            b = root[b]
        return b

    for k in net.switch.index[(net.switch.et == "b") & net.switch.closed.astype(bool)]:
        a, b = int(net.switch.bus[k]), int(net.switch.element[k])
        if a in root and b in root and not float(net.switch.get("z_ohm", {}).get(k, 0.0)) > 0.0:
            root[find(a)] = find(b)
    return {b: find(b) for b in buses}


def _shared(injected: np.ndarray, carbon: np.ndarray, deliveries: list[tuple[int, int, float]]) -> np.ndarray:
    """NaN where no source's power arrives."""
    n = len(injected)
    matrix = np.diag(injected.astype(float))
    for sender, receiver, p in deliveries:
        matrix[receiver, receiver] += p
        matrix[receiver, sender] -= p
    live = injected > 0.0
    while True:
        more = live.copy()
        for sender, receiver, _ in deliveries:
            more[receiver] |= live[sender]
        if (more == live).all():
            break
        live = more
    w, at = np.full(n, np.nan), np.flatnonzero(live)
    block = matrix[np.ix_(at, at)]
    scale = np.diag(block)
    w[at] = np.linalg.solve(block / scale[:, None], carbon[at] / scale)
    return w
