"""AC power flow of a network by pandapower's Newton method, at changing loads and set points: radial or meshed.

Rows: E03, Z03.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cosim.errors import ModelError, ScenarioError
from cosim.simulators.grid.equations import Complexes, Floats, Ints, sums
from cosim.simulators.grid.network.circuit import AcFlow, Admittances, branch_names, ends_of, nodes_of, tolerance_pu
from cosim.simulators.grid.network.elements import rated_kw, rows_in_service, voltage_limits
from cosim.simulators.grid.network.feeder import LineList, island
from cosim.simulators.grid.network.files import Solved, add_injections, admittances, solve, start_at, stored
from cosim.simulators.grid.network.parts import close_lines, take_apart
from cosim.simulators.grid.network.source import name_of, stamp_of
from cosim.units import KW_PER_MW

UNSEEN = 1e-6
"""A bus's powers balance to so many kW, or to that share of what passes it; else an element has been left out."""


@dataclass(frozen=True, eq=False)
class AcBranches:
    """Where the branches of a network stand: positions of their ends, and names such as '0-1' or 'trafo 3-4'."""

    from_bus: Ints
    to_bus: Ints
    names: list[str]


class AcNetwork:
    """AC power flow of a network as `pandapower.runpp` solves it by default, with everything that it models.

    The network's loads are taken out: demand is the caller's. Its generators stay, at the file's set points, unless
    `generators_stay` is false. `closed_lines` are put into service first and their switches closed. v0_pu: voltage of
    the external grids in place of the file's; batteries: as in `parts.take_apart`. Admittances are kept between runs
    (`recycle`); no run starts at the last one's voltages, so that a result depends on its own inputs only.

    nodes                   electrical nodes; arrays over buses are in their order
    branches                lines, transformers (three branches to a star point for three windings), impedances, ...
    slacks                  (n_slack,) bus numbers of the external grids, and of generators that are slack
    generators, generator_bus  the network's own that stay, and their nodes
    base_p_kw, base_q_kvar  (n_bus,) the network's own loads
    draws                   (n_bus,) whether the network itself draws something there, beside its loads
    file_v0_pu              voltages of the external grids as the file has them, each once
    notes                   what of the file is not run
    voltage_limits          (bus, lowest, highest) that the file states, see `elements.voltage_limits`
    rated_kw                what the branches at the external grids carry at most; None where it is not known
    """

    _net: Any

    def __init__(self, network: str | LineList, source_buses: Sequence[int], v0_pu: float | None = None,
                 closed_lines: Sequence[int] = (), *, generators_stay: bool = True, batteries: Collection[str] = ()
                 ) -> None:
        read = _as_read(network, stamp_of(network), v0_pu, tuple(closed_lines), generators_stay, frozenset(batteries))
        vars(self).update(vars(read))
        self._net = copy.deepcopy(read._net)  # of all that is kept the one thing that a run writes into
        self.add_sources(source_buses)

    def _read(self, network: str | LineList, v0_pu: float | None, closed_lines: tuple[int, ...],
              generators_stay: bool, batteries: frozenset[str]) -> None:
        """The network's own elements, without sources."""
        self.name = name = name_of(network)
        net = copy.deepcopy(stored(network))
        close_lines(net, name, closed_lines)
        parts = take_apart(net, name, batteries)
        self.notes, self.rated_kw, self.voltage_limits = parts.notes, rated_kw(net), voltage_limits(net)
        self.file_v0_pu = sorted({float(row.vm_pu) for _, row in rows_in_service(net, "ext_grid")})
        self._net = net = parts.loadless if generators_stay else copy.deepcopy(parts.bare)
        if v0_pu is not None:
            net.ext_grid["vm_pu"] = v0_pu
        net["_ppc"] = None  # a file may bring that of an earlier run
        own, buses = parts.generators, parts.loads.bus_ids
        self._solver = solver = admittances(parts.bare)
        self.nodes = nodes = nodes_of(solver)
        self._find_slacks(net, solver)
        at, n = np.array([nodes.of_bus[b] for b in buses], dtype=np.int64), len(nodes)
        self.base_p_kw, self.base_q_kvar = sums(at, parts.loads.p_kw, n), sums(at, parts.loads.q_kvar, n)
        self.generators = own if generators_stay else ()
        self.generator_bus = np.array([nodes.of_bus[g.node] for g in self.generators], dtype=np.int64)
        self._generator_kw = np.array([g.p_kw for g in self.generators])
        self._own_kw, self._g_mw = solver.p_bus_kw[nodes.rows], solver.y_bus_pu[nodes.rows].real * solver.base_mva
        self.draws = (self._own_kw != 0.0) | (self._g_mw != 0.0)
        self._source_bus = np.zeros(0, np.int64)
        self._dclines = [(k, nodes.of_bus[int(r.from_bus)], nodes.of_bus[int(r.to_bus)])
                         for k, r in rows_in_service(net, "dcline")]
        self._name_branches()
        self._first_sgen = len(net.sgen)
        add_injections(net, list(nodes.lowest), [])
        self._tolerance_pu = tolerance_pu(solver)
        # A DC line is two generators that exist during a run only; nothing can be kept from it.
        self._recycle = not self._dclines
        self._start: tuple[Floats, Floats] | None = None
        self._began = False

    def add_sources(self, buses: Sequence[int]) -> None:
        """Let further sources stand at these bus numbers; before the first run."""
        add_injections(self._net, [], list(buses))
        more = np.array([self.nodes.of_bus[b] for b in buses], dtype=np.int64)
        self._source_bus = np.append(self._source_bus, more)

    def _find_slacks(self, net: Any, solver: Admittances) -> None:
        nodes, grids = self.nodes, [("ext_grid", k, row) for k, row in rows_in_service(net, "ext_grid")]
        grids += [("gen", k, row) for k, row in rows_in_service(net, "gen") if bool(row.get("slack", False))]
        if not grids:
            raise ScenarioError(f"network {self.name} has 0 external grids in service; it must have one")
        self.slacks = [int(row.bus) for _, _, row in grids]
        self._slack_bus = np.array([nodes.of_bus[b] for b in self.slacks], dtype=np.int64)
        self._slack_rows = [(kind, k) for kind, k, _ in grids]
        cut = [b for b, row in solver.row_of.items() if solver.isolated[row]]
        if cut:
            raise ScenarioError(island(self.name, cut, self.slacks[0]))

    def _name_branches(self) -> None:
        solver, nodes = self._solver, self.nodes
        first, other = ends_of(solver, nodes)
        kinds = [*solver.kind, *("dcline" for _ in self._dclines)]
        first = np.append(first, np.array([a for _, a, _ in self._dclines], dtype=np.int64))
        other = np.append(other, np.array([b for _, _, b in self._dclines], dtype=np.int64))
        self.branches = AcBranches(first, other, branch_names(kinds, first.tolist(), other.tolist(), nodes.labels))

    def _base_start(self) -> tuple[Floats, Floats] | None:
        """Voltages, by the solver's rows, of the network at its own loads; None where that has no power flow."""
        if not self._recycle:
            return None
        self._inject(self.base_p_kw, self.base_q_kvar, np.zeros(len(self._source_bus)), np.zeros(len(self._source_bus)))
        found = solve(self._net, self._tolerance_pu, "auto", True)
        return None if found is None else (found.vm_pu, found.va_degree)

    def _inject(self, p_load_kw: Floats, q_load_kvar: Floats, p_source_kw: Floats, q_source_kvar: Floats) -> None:
        net, n = self._net, len(self.nodes.lowest)
        net.load["p_mw"], net.load["q_mvar"] = p_load_kw[:n] / KW_PER_MW, q_load_kvar[:n] / KW_PER_MW
        if len(self._source_bus):
            for column, values in (("p_mw", p_source_kw), ("q_mvar", q_source_kvar)):
                whole = net.sgen[column].to_numpy(float, copy=True)
                whole[self._first_sgen:] = values / KW_PER_MW
                net.sgen[column] = whole

    def run(self, p_load_kw: Floats, q_load_kvar: Floats, p_source_kw: Floats, q_source_kvar: Floats,
            v_start_pu: Complexes | None = None) -> AcFlow | None:
        """Power flow at loads (n_bus,) drawn and sources (n_source,) injected; None when Newton finds no solution.

        Newton starts at `v_start_pu` (n_bus,), by default at the network's state under its own loads; where that does
        not lead to a solution, as pandapower starts by default. ModelError where a bus's powers do not add up: an
        element that this class does not model.
        """
        if not self._began:
            self._began, self._start = True, self._base_start()
        self._inject(p_load_kw, q_load_kvar, p_source_kw, q_source_kvar)
        found = None
        if self._recycle and self._set_start(v_start_pu):
            found = solve(self._net, self._tolerance_pu, "auto", True)
        if found is None:
            found = solve(self._net, self._tolerance_pu, "auto", self._recycle)
        if found is None:
            return None
        return self._flow_of(found, p_load_kw, p_source_kw)

    def _set_start(self, v_start_pu: Complexes | None) -> bool:
        if v_start_pu is None:
            return self._start is not None and start_at(self._net, *self._start)
        size = len(self._solver.isolated)
        vm, va = np.ones(size), np.zeros(size)
        vm[self.nodes.rows], va[self.nodes.rows] = np.abs(v_start_pu), np.angle(v_start_pu, deg=True)
        return start_at(self._net, vm, va)

    def _flow_of(self, found: Solved, p_load_kw: Floats, p_source_kw: Floats) -> AcFlow:
        net, nodes, rows = self._net, self.nodes, self._solver.row
        p_from, p_to = found.p_from_kw[rows], found.p_to_kw[rows]
        if self._dclines:
            through = net.res_dcline.loc[[k for k, _, _ in self._dclines], ["p_from_mw", "p_to_mw"]].to_numpy(float)
            p_from, p_to = np.append(p_from, through[:, 0] * KW_PER_MW), np.append(p_to, through[:, 1] * KW_PER_MW)
        p_slack, q_slack = (KW_PER_MW * np.array([net[f"res_{kind}"].at[k, column] for kind, k in self._slack_rows])
                            for column in ("p_mw", "q_mvar"))
        vm_pu = found.vm_pu[nodes.rows]
        drawn = self._own_kw + self._g_mw * vm_pu**2 * KW_PER_MW
        flow = AcFlow(vm_pu, p_from, p_to, p_slack, q_slack, self._q_generator_kvar(), drawn,
                      float(np.sum(p_from + p_to)))
        self._refuse_unseen(flow, p_load_kw, p_source_kw)
        return flow

    def _q_generator_kvar(self) -> Floats:
        net, signs = self._net, {"storage": -KW_PER_MW}
        return np.array([signs.get(g.kind, KW_PER_MW) * float(net[f"res_{g.kind}"].at[g.index, "q_mvar"])
                         for g in self.generators])

    def _refuse_unseen(self, flow: AcFlow, p_load_kw: Floats, p_source_kw: Floats) -> None:
        n, branches = len(self.nodes), self.branches
        ends = np.concatenate([branches.from_bus, branches.to_bus])
        leaving = np.concatenate([flow.p_from_kw, flow.p_to_kw])
        fed = np.zeros(n)
        np.add.at(fed, self._slack_bus, flow.p_slack_kw)
        np.add.at(fed, self.generator_bus, self._generator_kw)
        np.add.at(fed, self._source_bus, p_source_kw)
        off = fed - p_load_kw - flow.p_drawn_kw - np.bincount(ends, leaving, n)
        passing = np.bincount(ends, np.abs(leaving), n) + np.abs(fed) + np.abs(p_load_kw)
        allowed = UNSEEN * np.maximum(passing, 1.0) + 10.0 * self._tolerance_pu * self._solver.base_mva * KW_PER_MW
        if (np.abs(off) > allowed).any():
            at = int(np.argmax(np.abs(off) - allowed))
            raise ModelError(f"network {self.name}: {off[at]:.6g} kW at {self.nodes.names[at]} belong to no element "
                             "that the carbon flow knows; take out what is special there")


@lru_cache(maxsize=16)
def _as_read(network: str | LineList, stamp: int, v0_pu: float | None, closed_lines: tuple[int, ...],
             generators_stay: bool, batteries: frozenset[str]) -> AcNetwork:
    """The network before sources and runs, read once in a process; never change it."""
    made = AcNetwork.__new__(AcNetwork)
    made._read(network, v0_pu, closed_lines, generators_stay, batteries)
    return made
