"""The distribution grid on the bus: demand per bus in, nodal carbon intensity and the grid's state out.

Rows: E04, E05, M09, M10, U17, Z06.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cosim.adapter import Adapter, CreateResult, Meta, Values
from cosim.errors import ModelError, ScenarioError, SolverError, unknown
from cosim.simulators.grid.batteries import BATTERY, Batteries, battery_buses, check_batteries, dispatched
from cosim.simulators.grid.dispatch.branch_limits import binding, branch_limits, fullest, rating_table
from cosim.simulators.grid.dispatch.conic import Limits, Sources
from cosim.simulators.grid.dispatch.deviation import deviation
from cosim.simulators.grid.dispatch.findings import LOOSE_GAP_PU, FindingLog, what_is_proven, which_limits
from cosim.simulators.grid.dispatch.horizon import Ramps, StoredNow
from cosim.simulators.grid.dispatch.mci import MciOfDispatch, no_mci
from cosim.simulators.grid.dispatch.nci_limits import nci_limits
from cosim.simulators.grid.dispatch.newton import NewtonSolver
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import ELASTIC, HELD, NEGLIGIBLE_PU, DispatchResult, InexactRelaxation
from cosim.simulators.grid.dispatch.source_series import SourceSeries, check_foreseen, check_given, foreseen
from cosim.simulators.grid.dispatch.sources import Source, all_sources
from cosim.simulators.grid.dispatch.surplus import in_words
from cosim.simulators.grid.dispatch.varying import number_or_nan
from cosim.simulators.grid.equations import Complexes, Floats
from cosim.simulators.grid.lookahead import demand_ahead
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.radial import bus_entities, read_feeder
from cosim.simulators.grid.notes import dispatch_notes
from cosim.simulators.grid.params import GridParams
from cosim.simulators.grid.plausible import refuse_impossible, unit_hint
from cosim.simulators.grid.ports import (
    DISPATCH_BUS,
    DISPATCH_GRID,
    LOADING,
    SOURCE,
    VARYING,
    fixed_tables,
    grid_values,
    loading_values,
    nothing_realised,
    own_limits,
    per_bus,
    realised_values,
    source_values,
)
from cosim.units import HOUR_S, MIN_S, format_time


class CefDispatch(Adapter):
    """Second-order cone dispatch of a radial feeder with carbon emission flow, (1)-(11).

    Every step it takes the demand of each `Bus`, dispatches the sources, and holds each bus's NCI until the next step.
    `Grid` (one entity) exports the state of the network. A bus without an entity has no demand.

    The dispatch receives what data centres drew in the interval before, by ports of their own (`p_site_kw`,
    `q_site_kvar`): the demand of a bus is their sum with the base load. What the interval brought is known at its
    end: one step later the `_realised` ports settle it, by the AC power flow at the set points then in force, at its
    base load (dispatched with a forecast error, if there is one) and at what the data centres have drawn on average.
    They are NaN at the first step, and the last interval of a run is never settled.
    """

    PARAMS = GridParams
    MODELS = {"Bus": DISPATCH_BUS, "Grid": DISPATCH_GRID, "Source": SOURCE, "Battery": BATTERY}

    @classmethod
    def entity_names(cls, given: GridParams, of: str) -> list[str] | None:
        """The buses of `network`, or the batteries of `batteries`."""
        return list(given.batteries) if of == "batteries" else bus_entities(given.network) if of == "network" else None

    @classmethod
    def check_horizon(cls, member: str, given: GridParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table of a source that does not cover the run, or a source that cannot exist at a time of
        it."""
        check_given(given.sources, given.network_sources, member, given.scenario_start, until_s, step_s)

    @classmethod
    def check_scenario(cls, member: str, given: GridParams, scenario: Any) -> None:
        """ScenarioError for batteries that nothing would ever run, or that are no entities; and for a forecast that no
        plan takes."""
        check_foreseen(member, given.sources, given.lookahead_steps, scenario)
        check_batteries(member, given.batteries, given.lookahead_steps, scenario)

    def init(self, sid: str, time_resolution: float = 1.0, **params: Any) -> Meta:
        """Validate the parameters and read the network, so that `create` can refuse a bus it does not have."""
        super().init(sid, time_resolution, **params)
        self._feeder = read_feeder(self.params.network, self.params.batteries)
        self._sources = all_sources(self.params.sources, self._feeder, self.params.network_sources, sid)
        self._series = SourceSeries(self._sources, sid, self.params.scenario_start,
                                    frozenset(self._sources) - frozenset(self.params.sources))
        more = (*(VARYING if self._series.any else ()), *(LOADING if self.params.line_limits != "none" else ()))
        if more:
            self.adopt({**self.MODELS, "Grid": (*DISPATCH_GRID, *more)})
        self._seen = FindingLog()
        self._solved_by = ""
        return self.meta

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: Any
               ) -> list[CreateResult]:
        """Buses by name ('bus8' is bus 8 of the network; without names the first `num`), the one Grid, or sources of
        which something is linked, by name."""
        if model == "Bus":
            names = names or self._feeder.bus_names[:num]
            for name in names:
                self._feeder.named(name, self.sid)
        elif model == "Source":
            linked = list(dict.fromkeys(name for name, _ in sorted(self._series.linked)))
            if strange := [name for name in names or () if name not in linked]:
                raise ScenarioError(f"{self.sid}: {unknown('source with a field that is linked', strange[0], linked)}")
            names = names or linked[:num]
        elif model == "Battery":
            if strange := sorted(set(names or ()) ^ set(self.params.batteries)):
                raise ScenarioError(f"{self.sid}.entities.Battery are the names of {self.sid}.batteries; wrong or "
                                    f"missing: {', '.join(strange)}")
        elif (count := num + len(self.entities["Grid"])) > 1:
            raise ScenarioError(f"{self.sid}: {count} entities of Grid asked for; a member is one grid")
        return super().create(num, model, names, **model_params)

    def setup(self) -> None:
        p = self.params
        self._rated = None if p.line_limits == "none" else branch_limits(
            self._feeder, p.max_current_a, p.max_power_kva, self.sid, own=True)
        limits = Limits(self._feeder.voltage(p.v0_pu), p.vm_min_pu, p.vm_max_pu, p.lambda_kw_per_kg_h, p.loss_weight,
                        p.cost_kw_per_usd_h, p.curtailment_weight, self._rated if p.line_limits == "ratings" else None)
        steady, self._moves = self._series.steady(), self._series.varying["p_max_kw"]
        self._dispatch = Dispatch(self._feeder, steady, limits, p.solver, caps=nci_limits(
            self._feeder, p.nci_cap_kg_per_kwh, p.nci_formulation, self.sid),
                                  time_limit_s=p.time_limit_s, moves=self._moves, watched=self._rated)
        self._solved_by = self._dispatch.solver_name
        buses = [s.node for k, s in enumerate(self._sources.values()) if k != self._dispatch.substation]
        self._ac = AcCheck(p.network, buses, p.v0_pu, p.batteries) if p.ac_check else None
        self._at = {eid: self._feeder.named(eid, self.sid) for eid in self.entities["Bus"]}
        self._mci_of = self._make_mci(steady, limits) if p.mci and not p.nci_cap_kg_per_kwh else None
        self._batteries = Batteries(p.batteries, battery_buses(p.batteries, self._feeder, self.sid),
                                    self._feeder.n_bus, self.step_s / HOUR_S)
        self._ramps = Ramps(self._dispatch, self.step_s / MIN_S, p.lookahead_steps, self._batteries.rated,
                            self._batteries.bus if p.batteries else None)
        upstream = self._dispatch.source_names[self._dispatch.substation]
        if self._sources[upstream].ramp_kw_per_min is not None:
            raise ScenarioError(f"{self.sid}.sources.{upstream} has ramp_kw_per_min; the substation balances the "
                                "feeder and has none")
        self._held_steps, self._origin_s, self._now_s, self._end_s = 0, 0.0, 0.0, math.inf
        self._valued_s = math.nan
        self._mci = no_mci(self._feeder.n_bus)
        self._last: tuple[DispatchResult, tuple[float, float, float]] | None = None
        self._noise, self._error = self.stream("forecast"), 0.0
        self._own = self._feeder.own_p_kw + 1j * self._feeder.own_q_kvar
        self._drawn_by_sites = self._base = np.zeros(self._feeder.n_bus, complex)
        self._sites_drew = False

    def next_problem(self, time_s: float, inputs: Values) -> tuple[NewtonSolver, Floats] | None:
        """What the step at `time_s` with these inputs will solve, so that many grids' can be solved together
        (`dispatch.newton.solve_together`); None where that is not known before or another solver is at work."""
        if self.params.forecast_sigma_ratio or self._ramps.any or self._batteries.names:
            return None
        self._revalue(time_s, inputs)
        base, drawn = self._demand(inputs)
        s = base + drawn
        return self._dispatch.newton_problem(s.real, s.imag)

    def _demand(self, inputs: Values) -> tuple[Complexes, Complexes]:
        """(n_bus,) base load, and what data centers have drawn, kVA."""
        base, drawn = self._own.copy(), np.zeros(self._feeder.n_bus, complex)
        for eid, at in self._at.items():  # closed switches may make several of these buses one
            given = inputs[eid]
            base[at] += complex(given["p_load_kw"], given["q_load_kvar"])
            drawn[at] += complex(given["p_site_kw"], given["q_site_kvar"])
        return base, drawn

    def _revalue(self, time_s: float, inputs: Values) -> None:
        """What sources have, emit and cost from this interval on: their series, and the tariff's price at the
        substation. Once an interval."""
        if time_s == self._valued_s:
            return
        dispatch, at = self._dispatch, self._dispatch.substation
        sources = self._changed(time_s, inputs) if self._series.any else dispatch.sources
        prices = sources.usd_per_kwh.copy()
        for eid in self.entities["Grid"]:
            if not math.isnan(price := inputs[eid]["price_usd_per_kwh"]):
                if self._series.varying["usd_per_kwh"][at]:
                    raise ModelError(f"{self.sid}.sources.{dispatch.source_names[at]}.usd_per_kwh varies, and a price "
                                     f"is linked to {self.sid}.price_usd_per_kwh as well; leave one of them out")
                prices[at] = price
        for of in (dispatch, self._mci_of):
            if of is not None:
                of.recolour(sources.kg_per_kwh, sources.marginal_kg_per_kwh)
                of.make_available(sources.available_pu)
                of.reprice(prices)
        self._valued_s = time_s

    def _changed(self, time_s: float, inputs: Values, ahead: int = 0) -> Sources:
        """The sources as their series have them, or so many intervals ahead are forecast to have them."""
        linked = {name: inputs[name] for name in self.entities["Source"]}
        now = self._series.at(self._origin_s + time_s + ahead * self.step_s, foreseen(linked, ahead, self.sid),
                              forecast=ahead > 0)
        return self._series.changed(self._dispatch.sources, now, self._feeder.base_kw)

    def _make_mci(self, sources: Mapping[str, Source], limits: Limits) -> MciOfDispatch:
        eta = {self._feeder.position(site.node, f"sites.{name}.node"): site.q_per_p_ratio
               for name, site in self.params.sites.items()}
        q_per_p = np.zeros(self._feeder.n_bus)
        q_per_p[list(eta)] = list(eta.values())
        return MciOfDispatch(self._feeder, sources, limits, q_per_p, sorted(eta or self._at.values()), self._moves)

    def labels(self) -> dict[str, list[str]]:
        return {"source": list(self._sources), "line": self._feeder.line_names, "bus": self._feeder.bus_names}

    def tables(self) -> dict[str, dict[str, list]]:
        feeder, names = self._feeder, self._feeder.bus_names
        made = fixed_tables(
            {eid: names[at] for eid, at in self._at.items()},
            [(line, names[a], names[b]) for line, a, b in zip(feeder.line_names, feeder.parent, feeder.child,
                                                              strict=True)],
            [(name, names[feeder.position(s.node, name)], number_or_nan(s.kg_per_kwh))
             for name, s in self._sources.items()],
            [names[at] for at in np.flatnonzero((feeder.own_p_kw != 0.0) | (feeder.g_bus_pu != 0.0))])
        if self._rated is not None:
            made["limits"] = rating_table(feeder, self._rated)
        if own := {n: s for n, s in self._sources.items() if n not in self.params.sources}:
            made["own_limits"] = own_limits(own)
        if self._batteries.names:
            made["batteries"] = self._batteries.table(names)
        return made

    def step(self, time: int, inputs: dict, max_advance: int) -> int:
        """As `Adapter`; `max_advance` is the end of the world, where batteries hold what they have to."""
        self._end_s = max_advance * self._resolution_s
        return super().step(time, inputs, max_advance)

    def advance(self, time_s: float, inputs: Values) -> Values:
        self._now_s = time_s
        base, drawn = self._demand(inputs)
        p_load, q_load = (base + drawn).real, (base + drawn).imag
        refuse_impossible(self.sid, format_time(time_s), {e: p_load[at] for e, at in self._at.items()},
                          self._feeder.rated_kw)
        self._sites_drew = self._sites_drew or bool(drawn.any())
        self._drawn_by_sites = drawn
        settled = self._settle(time_s)
        self._base = base
        self._revalue(time_s, inputs)
        p_load, q_load = self._forecast(p_load, q_load)
        stored = None
        if self._batteries.names:
            stored = self._batteries.now(inputs, (self._end_s - time_s) / self.step_s, self.params.lookahead_steps)
        if self._ramps.any or stored is not None:
            self._tie(time_s, p_load, q_load, inputs, stored)
        try:
            result = self._dispatch.solve(p_load, q_load) if stored is None else dispatched(
                self._batteries, stored, self._ramps.battery_kw, (self._dispatch, self._mci_of), p_load, q_load,
                lambda what, detail: self._seen.note(what, time_s, detail))
            self._last, status = (result, self._compare(result, time_s)), result.status
            inexact = result.inexact
            mci = self._mci_of.of(result) if self._mci_of else None
        except SolverError as err:
            if self._last is None:
                hint = unit_hint(float(p_load.sum()), float(self._feeder.p_kw.sum()))
                raise SolverError(f"{self.sid} at {format_time(time_s)}: {err}{hint}") from None
            status, mci = HELD, None
            inexact = isinstance(err, InexactRelaxation)
        self._mci = mci or self._mci.stale()
        self._held_steps = self._held_steps + 1 if status == HELD else 0
        self._remember(time_s, status, inexact)
        return self._outputs_of(*self._last, status, inexact, settled)

    def _remember(self, time_s: float, status: int, inexact: bool) -> None:
        """Keep the figures of this interval for the summary."""
        assert self._last is not None, "there is a result, or an earlier one is held"
        last = self._last[0]
        if status == HELD:
            self._seen.note("held", time_s)
        elif status == ELASTIC:
            demand_kw = float((last.p_load_kw + last.unserved_kw).sum())
            self._seen.note("elastic", time_s, which_limits(
                last, self._slack(last.vm_pu), (self.params.vm_min_pu, self.params.vm_max_pu), self._feeder.bus_names,
                self.params.nci_cap_kg_per_kwh, self._overfull(last))
                            + unit_hint(demand_kw, float(self._feeder.p_kw.sum())))
        if status != HELD and last.curtailed_bus_kw.any():
            self._seen.note("surplus", time_s, in_words(
                last.curtailed_bus_kw, last.p_load_kw, self._feeder.bus_names,
                self._dispatch.source_names[self._dispatch.substation]))
        if status != HELD and last.nci_cap_excess_kg_per_kwh:
            self._seen.note("capped", time_s, self._dispatch.capped_status)
        if last.relaxation_gap_pu > LOOSE_GAP_PU:
            self._seen.note("loose", time_s)
        if inexact:
            self._seen.note("inexact", time_s, "" if status == HELD else what_is_proven(last.global_gap_ratio))

    def _overfull(self, result: DispatchResult) -> str:
        """The branch that a state outside the limits is due to, or that is beyond its own; "" without one."""
        limits = self._dispatch.limits.branches
        if limits is None or result.loading_ratio is None or not binding(limits, result.loading_ratio).any():
            return ""
        return fullest(limits, result.loading_ratio, self._feeder.line_names)

    def carry(self) -> dict[str, np.ndarray]:
        """Time gone by until the end of this world, where tables go on in it, and what batteries hold."""
        gone = {"origin_s": np.array(self._origin_s + self._now_s + self.step_s)} if self._series.any else {}
        return {**gone, **self._batteries.carry()} if self._batteries.names else gone

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on in time, and with what batteries hold."""
        self._origin_s = float(carry.get("origin_s", 0.0))
        self._batteries.resume(carry)

    def notes(self) -> list[str]:
        lines = dispatch_notes(
            self.params, self._feeder, seen=self._seen.lines(), series=self._series.notes(self.step_s),
            ran=self._last is not None, ramped=self._ramps.any, sites_drew=self._sites_drew)
        if self._solved_by and self._dispatch.no_gurobi:
            lines.insert(0, f"clarabel in Gurobi's place, as solver = auto allows: {self._dispatch.no_gurobi}")
        return [f"{self.sid}: {line}" for line in ([f"dispatch solved by {self._solved_by}"] * bool(self._solved_by)
                                                   + lines)]

    def _slack(self, vm_pu: Floats) -> Floats:
        """(n_bus,) signed distance outside the voltage limits; 0 inside them, by the dispatch's tolerance."""
        outside = np.maximum(vm_pu - self.params.vm_max_pu, 0.0) - np.maximum(self.params.vm_min_pu - vm_pu, 0.0)
        outside[self._feeder.substation] = 0.0
        return np.where(np.abs(outside) > NEGLIGIBLE_PU, outside, 0.0)

    def _forecast(self, p_load: Floats, q_load: Floats) -> tuple[Floats, Floats]:
        """What the operator expects to be drawn: the base load with one error everywhere, data centers as they were."""
        sigma, rho = self.params.forecast_sigma_ratio, self.params.forecast_correlation
        if sigma == 0.0:
            return p_load, q_load
        draw = float(self._noise.normal()) * sigma
        self._error = draw if self._last is None else rho * self._error + math.sqrt(1.0 - rho * rho) * draw
        self._error = max(self._error, -1.0)
        return p_load + self._error * self._base.real, q_load + self._error * self._base.imag

    def _tie(self, time_s: float, p_load: Floats, q_load: Floats, inputs: Values, stored: StoredNow | None) -> None:
        """Leave every source what its ramp and the plan of the intervals to come leave it, and plan the batteries."""
        steps = self.params.lookahead_steps
        demand = demand_ahead((p_load, q_load), self._own, self._drawn_by_sites, self._at, inputs, steps, self.sid)
        before = self._last[0].p_source_kw if self._last else None
        later = [self._changed(time_s, inputs, k) for k in range(1, steps)] if self._series.any else []
        low, high, planned = self._ramps.boxes(before, 1 + self._held_steps, demand, later, stored)
        if not planned:
            self._seen.note("unplanned" if self._ramps.any else "idle", time_s)
        if not self._ramps.proven:
            self._seen.note("unproven", time_s)
        if not self._ramps.any:
            return
        self._dispatch.rebox(low, high)
        if self._mci_of:
            self._mci_of.rebox(low, high)

    def _settle(self, time_s: float) -> dict[str, Any]:
        """The `_realised` ports: the interval that ends now."""
        rated = self._rated is not None
        unknown = nothing_realised(len(self._feeder.parent), rated)
        if self._last is None or not self.params.settle:
            return unknown
        ended = self._base + self._drawn_by_sites
        got = self._dispatch.settle(self._last[0], ended.real, ended.imag)
        if got is None:
            self._seen.note("unsettled", time_s)
            return unknown
        scheduled_kw = float(self._last[0].p_source_kw[self._dispatch.substation])
        return realised_values(got, (got.p_substation_kw - scheduled_kw) * self.step_s / HOUR_S)

    def _compare(self, result: DispatchResult, time_s: float) -> tuple[float, float, float]:
        """|dV|, |dloss|, |dNCI| between the dispatch and the AC power flow at its set points; NaN if not computed."""
        nothing = (math.nan, math.nan, math.nan)
        if self._ac is None:
            return nothing
        found = deviation(self._ac, self._dispatch, result)
        if found is None:
            self._seen.note("no_ac", time_s)
        return found or nothing

    def _outputs_of(
        self, result: DispatchResult, ac: tuple[float, float, float], status: int, inexact: bool,
        settled: dict[str, Any],
    ) -> Values:
        nci, vm_pu = result.nci_kg_per_kwh.tolist(), result.vm_pu.tolist()
        up, down, trust = (values.tolist() for values in (self._mci.up_kg_per_kwh, self._mci.down_kg_per_kwh,
                                                          self._mci.status.astype(float)))
        outputs: Values = {
            eid: {"nci_kg_per_kwh": nci[at], "vm_pu": vm_pu[at], "mci_kg_per_kwh": up[at],
                  "mci_down_kg_per_kwh": down[at], "mci_status": trust[at]}
            for eid, at in self._at.items()
        }
        outputs.update(self._batteries.outputs())
        for eid in self.entities["Grid"]:
            outputs[eid] = {
                **grid_values(result, self._feeder.base_kw),
                **settled,
                "inexact": float(inexact),
                "status": float(status),
                "voltage_slack_bus_pu": self._slack(result.vm_pu).tolist(),
                "forecast_error_ratio": self._error,
                **dict(zip(("ac_dvm_pu", "ac_dloss_kw", "ac_dnci_kg_per_kwh"), ac, strict=True)),
                **per_bus(result.p_load_kw + self._feeder.shunts_kw(result.vm_pu)),
                **(loading_values(result) if self._rated is not None else {}),
                **(source_values(result.sources, self._feeder.base_kw) if self._series.any else {}),
            }
        return outputs
