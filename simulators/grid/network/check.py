"""The dispatch's second opinion: whether its voltages are an AC power flow of the network as pandapower converts it.

Rows: E03, Z03.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cosim.simulators.grid.equations import Complexes, Floats, sums
from cosim.simulators.grid.network.circuit import AcFlow, Admittances, ends_of, tolerance_pu
from cosim.simulators.grid.network.feeder import LineList, Nodes
from cosim.simulators.grid.network.radial import read_feeder, read_radial
from cosim.units import KW_PER_MW

if TYPE_CHECKING:
    from cosim.simulators.grid.network.powerflow import AcNetwork

SAME_VOLTAGE_PU = 1e-12
"""Within so much the voltage at the substation is the one that is given."""


class BranchEquations:
    """Kirchhoff's and Ohm's laws of a network, branch by branch, at given voltages: no solver.

    Independent of how a feeder is oriented, its parallel branches merged and its transformers' ratios taken out.
    """

    def __init__(self, solver: Admittances, nodes: Nodes, slack: int) -> None:
        self._n, self._slack, self._base_kw = len(nodes), slack, solver.base_mva * KW_PER_MW
        self._from, self._to = ends_of(solver, nodes)
        self._ends = np.concatenate([self._from, self._to])
        series, tap = 1.0 / solver.z_pu, solver.ratio
        self._y_ff, self._y_tt = (series + solver.y_from_pu) / np.abs(tap) ** 2, series + solver.y_to_pu
        self._y_ft, self._y_tf = -series / np.conj(tap), -series / tap
        self._own_kva = solver.p_bus_kw[nodes.rows] + 1j * solver.q_bus_kvar[nodes.rows]
        self._y_bus = solver.y_bus_pu[nodes.rows]
        self._allowed_kw = tolerance_pu(solver) * self._base_kw

    def flow(self, v_pu: Complexes, s_net_kva: Complexes) -> AcFlow | None:
        """The power flow that voltages (n_bus,) are at net demands (n_bus,), the network's own draws aside; None where
        a bus but the slack has a mismatch beyond tolerance."""
        v_from, v_to = v_pu[self._from], v_pu[self._to]
        enter = v_from * np.conj(self._y_ff * v_from + self._y_ft * v_to) * self._base_kw
        leave = v_to * np.conj(self._y_tf * v_from + self._y_tt * v_to) * self._base_kw
        both = np.concatenate([enter, leave])
        vm_pu = np.abs(v_pu)
        drawn = self._own_kva + np.conj(self._y_bus) * (vm_pu**2 * self._base_kw)
        off = (s_net_kva + drawn + np.bincount(self._ends, both.real, self._n)
               + 1j * np.bincount(self._ends, both.imag, self._n))
        slack, off[self._slack] = off[self._slack], 0.0
        if not max(np.abs(off.real).max(), np.abs(off.imag).max()) <= self._allowed_kw:  # NaN is none, either
            return None
        p_from, p_to = enter.real, leave.real
        return AcFlow(vm_pu, p_from, p_to, np.array([slack.real]), np.array([slack.imag]), np.zeros(0), drawn.real,
                      float(np.sum(p_from + p_to)))


class AcCheck:
    """The AC power flow of a feeder that the dispatch models, by its buses and branches: an independent second opinion.

    source_buses  the network's numbers of the buses where sources other than the substation stand
    batteries     as in `read_feeder`
    """

    def __init__(self, network: str | LineList, source_buses: Sequence[int], v0_pu: float | None = None,
                 batteries: Collection[str] = ()) -> None:
        self._feeder = feeder = read_feeder(network, batteries)
        self._network, self._source_buses, self._v0_pu, self._batteries = network, list(source_buses), v0_pu, batteries
        self._source_at = np.array([feeder.nodes.of_bus[b] for b in source_buses], dtype=np.int64)
        self._equations = BranchEquations(read_radial(network, batteries).solver, feeder.nodes, feeder.substation)

    @cached_property
    def _solving(self) -> AcNetwork:
        from cosim.simulators.grid.network.powerflow import AcNetwork  # pandapower takes seconds

        return AcNetwork(self._network, self._source_buses, self._v0_pu, generators_stay=False,
                         batteries=self._batteries)

    def run(self, p_load_kw: Floats, q_load_kvar: Floats, p_source_kw: Floats, q_source_kvar: Floats,
            v_start_pu: Complexes | None = None) -> AcFlow | None:
        """Power flow at loads (n_bus,) drawn, own draws of the network aside; None when there is no solution.

        v_start_pu  (n_bus,) as the feeder has voltages. A start that leaves no bus a mismatch above tolerance, by the
        admittances that pandapower's solver has, is the solution; from any other, pandapower's Newton method starts.
        """
        feeder = self._feeder
        start = None if v_start_pu is None else v_start_pu * feeder.ratio
        flow = None
        if start is not None and abs(abs(start[feeder.substation]) - feeder.voltage(self._v0_pu)) <= SAME_VOLTAGE_PU:
            s_net = p_load_kw + 1j * q_load_kvar
            np.subtract.at(s_net, self._source_at, p_source_kw + 1j * q_source_kvar)
            flow = self._equations.flow(start, s_net)
        if flow is None:
            flow = self._solving.run(p_load_kw, q_load_kvar, p_source_kw, q_source_kvar, start)
        if flow is None:
            return None
        n = len(feeder.parent)
        p_from = sums(feeder.merged, np.where(feeder.forward, flow.p_from_kw, flow.p_to_kw), n)
        p_to = sums(feeder.merged, np.where(feeder.forward, flow.p_to_kw, flow.p_from_kw), n)
        return replace(flow, p_from_kw=p_from, p_to_kw=p_to, loss_kw=float(np.sum(p_from + p_to)))
