"""Transformers and generators of a network's tables, as branches and sources of our model; or why they are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cosim.errors import ScenarioError
from simulators.grid.equations import Complexes
from simulators.grid.feeder import Generator

NOMINAL = 1e-6
"""So near to 1 a ratio is 1."""


def trafos_in_service(net: Any) -> list[int]:
    """Indices of two-winding transformers in service whose ends are closed."""
    switches = net.switch
    opened = set(switches.element[(switches.et == "t") & ~switches.closed.astype(bool)])
    return [int(k) for k in net.trafo.index[net.trafo.in_service.astype(bool)] if k not in opened]


def transformers(net: Any, name: str, trafos: list[int], buses: set[int], base_mva: float) -> tuple[Complexes, str]:
    """Series impedance (n_trafo,) p.u. from short-circuit voltages, and a sentence on what is left out, '' if nothing.

    ScenarioError naming a transformer off its nominal ratio, or with figures that make no sense.
    """
    z, iron_kw, magnetised = np.zeros(len(trafos), complex), 0.0, False
    for i, k in enumerate(trafos):
        trafo = net.trafo.loc[k]
        where = f"network {name}: trafo {k} ({int(trafo.hv_bus)}-{int(trafo.lv_bus)})"
        outside = {int(trafo.hv_bus), int(trafo.lv_bus)} - buses
        if outside:
            raise ScenarioError(f"{where} ends at bus {min(outside)}, which is out of service")
        _refuse_ratio(net, trafo, where)
        vk, vkr, s_mva = (float(trafo[c]) for c in ("vk_percent", "vkr_percent", "sn_mva"))
        if not (0.0 <= vkr <= vk and 0.0 < vk < math.inf and 0.0 < s_mva < math.inf):
            raise ScenarioError(f"{where} has vk_percent = {vk:g}, vkr_percent = {vkr:g}, sn_mva = {s_mva:g}; it must "
                                "be 0 <= vkr <= vk, and vk and sn above 0")
        at_rated = complex(vkr, math.sqrt(vk * vk - vkr * vkr)) / 100.0 * base_mva / (s_mva * float(trafo.parallel))
        z[i] = at_rated * (float(trafo.vn_lv_kv) / float(net.bus.vn_kv.loc[trafo.lv_bus])) ** 2
        iron_kw += float(trafo.pfe_kw) * float(trafo.parallel)
        magnetised |= float(trafo.i0_percent) != 0.0
    if iron_kw == 0.0 and not magnetised:
        return z, ""
    return z, f"iron losses ({iron_kw:g} kW) and magnetising currents of transformers are left out"


def _refuse_ratio(net: Any, trafo: Any, where: str) -> None:
    """Refuse what makes the voltage ratio differ from that of the buses: the branch model has none."""
    for position, neutral, step in (("tap_pos", "tap_neutral", "tap_step_percent"),
                                    ("tap2_pos", "tap2_neutral", "tap2_step_percent")):
        at, zero = _figure(trafo, position), _figure(trafo, neutral)
        moved = _figure(trafo, step) != 0.0 or _figure(trafo, step.replace("percent", "degree")) != 0.0
        if at != zero and moved:
            raise ScenarioError(f"{where} has {position} = {at:g}; only its {neutral} = {zero:g} is modelled")
    rated = float(trafo.vn_hv_kv) / float(trafo.vn_lv_kv)
    of_buses = float(net.bus.vn_kv.loc[trafo.hv_bus]) / float(net.bus.vn_kv.loc[trafo.lv_bus])
    if not abs(rated / of_buses - 1.0) <= NOMINAL:
        raise ScenarioError(f"{where} has vn_hv_kv / vn_lv_kv = {rated:g} between buses of ratio {of_buses:g}; only "
                            "the nominal ratio is modelled: set vn_kv of the buses behind it accordingly")


def _figure(row: Any, column: str) -> float:
    """A figure that a table may not have or leave empty: 0 then."""
    value = row.get(column)
    return 0.0 if value is None or not math.isfinite(float(value)) else float(value)


def own_generators(net: Any, name: str, buses: set[int]) -> tuple[Generator, ...]:
    """Static (sgen) and voltage-controlled (gen) generators in service; the latter's voltage is not held.

    P is between min_p_mw (else 0) and max_p_mw (else what it gives); Q between its limits, else as it is for an sgen,
    without limit for a gen. Named as in the network, or by kind and index ('sgen3') where that is no unique name.
    """
    found, taken = [], {}
    for kind in ("sgen", "gen"):
        table = net[kind]
        for k in table.index[table.in_service.astype(bool)]:
            row = table.loc[k]
            if int(row.bus) not in buses:
                raise ScenarioError(f"network {name}: {kind} {k} stands at bus {int(row.bus)}, which is out of service")
            scaling = float(row.get("scaling", 1.0))
            p_kw, q_kvar = (1000.0 * scaling * _figure(row, c) for c in ("p_mw", "q_mvar"))
            low, high = (_limit(row, c) for c in ("min_p_mw", "max_p_mw"))
            q_low, q_high = (_limit(row, c) for c in ("min_q_mvar", "max_q_mvar"))
            if kind == "sgen":
                q_low, q_high = q_kvar if q_low is None else q_low, q_kvar if q_high is None else q_high
            given = row.get("name")
            label = given if isinstance(given, str) and given and given not in taken else f"{kind}{k}"
            taken[label] = k
            found.append(Generator(label, int(row.bus), 0.0 if low is None else low, p_kw if high is None else high,
                                   q_low, q_high))
    return tuple(found)


def _limit(row: Any, column: str) -> float | None:
    """kW or kvar of a limit in MW or Mvar; None where the table has none."""
    value = row.get(column)
    return None if value is None or not math.isfinite(float(value)) else 1000.0 * float(value)
