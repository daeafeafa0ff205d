"""AI data centres on the bus: one entity per site, jobs and commands in, power and what became of the jobs out.

Rows of the model: A06, L13, M09, M10, X02.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch, Port
from cosim.units import Seconds
from simulators.aidc.carried import pack, unpack
from simulators.aidc.equations import (
    CORRECTED,
    PRESETS,
    Cooling,
    aidc_power_kw,
    crac,
    distribution_loss_kw,
    it_at_inlet_kw,
    pue,
    reactive_power_kvar,
    water_kg_per_h,
)
from simulators.aidc.facility import Facility
from simulators.aidc.interval import Interval, State, resolved_kw
from simulators.aidc.racks import Racks
from simulators.aidc.slots import Reading, SlotFacility
from simulators.fleet import JobClass, Site


def _preset(value: Any) -> Any:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(unknown("cooling", value, PRESETS))
        return PRESETS[value]
    return value


CoolingChoice = Annotated[Cooling, BeforeValidator(_preset)]
"""A Cooling, or one of the presets by its name: corrected, literal, table2."""


@params
class AidcParams:
    """The fleet, its cooling plants and the window over which the grid sees its power."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1, description="job classes by name")]
    sites: Annotated[dict[str, Site], Field(min_length=1, description="sites by name; entities are named like them")]
    cooling: Annotated[CoolingChoice, Field(description="cooling plant, or corrected, literal, table2")] = CORRECTED
    site_cooling: Annotated[
        dict[str, CoolingChoice], Field(description="cooling plants of single sites, where they differ")
    ] = field(default_factory=dict)
    window_s: Annotated[Seconds, Field(gt=0, description="window of p_window_kw: the grid's step")] = 900.0
    job_log: Annotated[bool, Field(description="rows of single jobs, their GPUs; a run without is faster")] = True
    trace_step_s: Annotated[
        Seconds | None, Field(gt=0, description="step of the table `power`: power inside the tick; null: no table")
    ] = None
    initial_supply_temp_degc: Annotated[float, Field(description="supply temperature before the first command")] = 23.0
    rack_mean_up_s: Annotated[
        Seconds | None, Field(gt=0, description="mean time that a rack is up until it fails; null: none fails")
    ] = None
    rack_mean_down_s: Annotated[Seconds, Field(gt=0, description="mean time that a failed rack is down")] = 14400.0


def _power(name: str, about: str, window: str | None = None) -> Port:
    return Port(name, "out", about, sign="> 0 is drawn from the grid", window=window)


def _per_class(name: str, about: str) -> Port:
    return Port(name, "out", about, dims=("job_class",))


class DataCenters(Adapter):
    """AI data centres, one entity per site, one tick per minute; events between two ticks keep their true times.

    Jobs are conserved at every tick, per site and class: all received so far = queued + deferred + running now, plus
    all finished and dropped so far. A training job that has begun but holds no block counts as queued.
    """

    PARAMS = AidcParams
    MODELS = {
        "Site": (
            Port("jobs", "in", "jobs submitted now: id, job_class, arrival_s, work_to, deadline_s, release_s",
                 kind="event", reduce="sum"),
            Port("gpus", "in", "GPUs granted from now on, whole numbers", sign=">= 0", dims=("job_class",)),
            Port("supply_temp_degc", "in", "supply air temperature from now on"),
            _power("p_kw", "active power, mean over the tick (12)"),
            _power("q_kvar", "reactive power, mean over the tick (5)"),
            _power("p_window_kw", "active power, mean over the window that ends now", "window_s"),
            _power("q_window_kvar", "reactive power, mean over the window that ends now", "window_s"),
            _power("it_kw", "IT power, mean over the tick (13)"),
            _power("cooling_kw", "chiller and cooling tower, mean over the tick (U06)"),
            _power("chiller_kw", "chiller, mean over the tick (22)"),
            _power("tower_kw", "cooling-tower fans, mean over the tick (23)"),
            _power("loss_kw", "losses of UPS and PDU, and auxiliaries, mean over the tick"),
            Port("pue_cooling", "out", "PUE of the paper (U19), (IT + cooling) / IT, mean over the tick", sign=">= 1"),
            Port("pue", "out", "PUE with losses and auxiliaries, mean over the tick", sign=">= 1"),
            Port("water_kg_per_h", "out", "water that the cooling tower takes up, an upper estimate", sign=">= 0"),
            _per_class("work_to", "work done in the tick"),
            _per_class("busy_gpus", "GPUs in use, mean over the tick"),
            _per_class("granted_gpus", "GPUs granted during the tick"),
            _per_class("received_jobs", "jobs submitted at the start of the tick"),
            _per_class("finished_jobs", "jobs finished in the tick"),
            _per_class("dropped_jobs", "jobs dropped in the tick at their deadline"),
            _per_class("missed_work_to", "work done of jobs that were dropped in the tick, begun but late (M15)"),
            _per_class("failed_work_to", "work that failures of racks undid in the tick"),
            _per_class("queued_jobs", "released jobs that hold no GPU at the end of the tick"),
            _per_class("deferred_jobs", "training jobs not yet released at the end of the tick"),
            _per_class("running_jobs", "jobs that hold GPUs at the end of the tick"),
            _per_class("backlog_jobs", "queued and deferred jobs at the end of the tick"),
            _per_class("pending_work_to", "work left of queued and running jobs at the end of the tick"),
            _per_class("deferred_work_to", "work of deferred jobs at the end of the tick"),
            _per_class("late_jobs", "training jobs that miss their deadline whatever they are given"),
            _per_class("urgent_jobs", "training jobs that can wait for less than an hour and then still make it"),
            Port("up_gpus", "out", "GPUs of racks that have not failed at the end of the tick", sign=">= 0"),
            Port("free_gpu_ratio", "out", "share of the GPUs up and not in use at the end of the tick (U07)",
                 sign="0 to 1"),
            Port("supply_temp_degc", "out", "supply air temperature applied, within the limits of (24)"),
            Port("inlet_degc", "out", "inlet of the hottest rack (19)"),
            Port("outlet_degc", "out", "mean rack outlet at the mean IT power (20)"),
            Port("return_degc", "out", "return air at the mean IT power (21)"),
            Port("heat_imbalance_kw", "out", "heat removed beyond that of IT at the mean IT power (2.7)",
                 sign="> 0 is removed and was never given off"),
            Port("clipped_commands", "out", "supply temperatures of this tick that were out of limits", sign=">= 0"),
            Port("done_jobs", "out", "jobs finished or dropped in the tick; at the end those still inside",
                 kind="event", table="jobs"),
            Port("gpu_runs", "out", "GPUs that training jobs held until some time of the tick, since when; those of "
                 "inference are held from start to end", kind="event", table="gpu_runs"),
            Port("power", "out", "power inside the tick, means over aidc.trace_step_s, where that is set: site, time_s "
                 "(begin), p_kw, it_kw, cooling_kw", kind="event", table="power"),
        )
    }

    def setup(self) -> None:
        """One facility per entity; raises ScenarioError for names, windows and rack tables that do not fit."""
        self._sites = {eid: self._site(eid) for eid in self.entities["Site"]}
        self._last: Values = {}
        self._now_s = 0.0
        strangers = [name for name in self.params.site_cooling if name not in self.params.sites]
        if strangers:
            raise ScenarioError(unknown(f"site in {self.sid}.site_cooling", strangers[0], self.params.sites))

    def advance(self, time_s: float, inputs: Values) -> Values:
        """Submit, command, run to the end of the tick, report."""
        self._now_s = time_s + self.step_s
        self._last = {eid: site.tick(self._now_s, inputs[eid]) for eid, site in self._sites.items()}
        return self._last

    def initial(self) -> Values:
        """Every site idle at the initial supply temperature, or as its last tick left it before `resume`."""
        return {eid: self._last[eid] if eid in self._last else site.idle() for eid, site in self._sites.items()}

    def carry(self) -> dict[str, np.ndarray]:
        """The fleet between two ticks, for `resume` in another world (M07, I18); times relative to now.

        Arrays of numbers, and of names in `site` and `job_class`: `jobs/...` one row a job inside, `last/...` the ports
        of the last tick, `window_kw` (site, tick) what the means over the grid's window are made of; see `carried`.
        """
        last, sites = self.initial(), list(self._sites.values())
        return {
            "site": np.array(list(self._sites)),
            "job_class": np.array(list(self.params.job_classes)),
            "model": np.array(type(self).__name__),
            "window_kw": np.array([list(site.means_kw) for site in sites], dtype=np.float64),
            **pack([site.facility.keep() for site in sites], self._now_s),
            **{f"last/{name}": np.array([last[eid][name] for eid in self._sites]) for name in self._level_names()},
        }

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on, in a new world at time 0, from what `carry` gave; after `setup`, before `initial` and the first tick.

        Running on is bit for bit what it would have been, but for ids, and for when racks fail next, if they do: jobs
        carried over get negative ids, in the order of those they had. Raises ScenarioError if the sites, classes or
        simulator are not those of `carry`.
        """
        mine = {"site": list(self._sites), "job_class": list(self.params.job_classes), "model": type(self).__name__}
        for name, expected in mine.items():
            if name not in carry or carry[name].tolist() != expected:
                found = carry[name].tolist() if name in carry else "nothing"
                raise ScenarioError(f"{self.sid}: what is carried over is for {name} {found}, not {expected}; resume "
                                    "in a world of the same fleet")
        for k, (site, memory) in enumerate(zip(self._sites.values(), unpack(carry, mine["job_class"]), strict=True)):
            site.facility.restore(memory)
            site.means_kw.extend(carry["window_kw"][k].tolist())
        self._last = {
            eid: {name: carry[f"last/{name}"][k].tolist() for name in self._level_names()}
            | {"done_jobs": {}, "gpu_runs": {}, "power": {}}
            for k, eid in enumerate(self._sites)
        }

    def _level_names(self) -> list[str]:
        return [port.name for port in self.MODELS["Site"] if port.flow == "out" and port.kind == "level"]

    def labels(self) -> dict[str, list[str]]:
        """The job classes, in the scenario's order."""
        return {"job_class": list(self.params.job_classes)}

    def closing(self) -> dict[str, dict[str, Batch]]:
        """Jobs that are still inside, as rows with outcome 'unfinished', and the GPUs they hold."""
        if not self.params.job_log:
            return {}
        return {
            eid: {"done_jobs": site.facility.unfinished_rows(), "gpu_runs": site.facility.open_runs()}
            for eid, site in self._sites.items()
        }

    def notes(self) -> list[str]:
        """Which sites were commanded supply temperatures that (24) forbids."""
        return [
            f"{self.sid}.{eid}: {site.clipped} commanded supply temperatures were outside their limits and clipped"
            for eid, site in self._sites.items() if site.clipped
        ]

    def _site(self, eid: str) -> _SiteOnBus:
        given = self.params
        if eid not in given.sites:
            raise ScenarioError(unknown(f"entity of {self.sid}", eid, given.sites) + " (entities are named like sites)")
        ticks = round(given.window_s / self.step_s)
        if ticks < 1 or abs(ticks * self.step_s - given.window_s) > 1e-9 * given.window_s:
            raise ScenarioError(
                f"{self.sid}.window_s = {given.window_s:g} is not a whole number of its steps ({self.step_s:g} s)"
            )
        site, cooling = given.sites[eid], given.site_cooling.get(eid, given.cooling)
        for value in cooling.rack_values():
            if isinstance(value, tuple) and len(value) != site.racks:
                raise ScenarioError(f"{self.sid}: cooling of {eid} has {len(value)} racks, the site {site.racks}")
        if given.trace_step_s is not None:
            steps = round(self.step_s / given.trace_step_s)
            if steps < 1 or abs(steps * given.trace_step_s - self.step_s) > 1e-9 * self.step_s:
                raise ScenarioError(f"{self.sid}.trace_step_s = {given.trace_step_s:g} does not divide its step of "
                                    f"{self.step_s:g} s; give a whole part of it")
        engine = self._engine(eid, site, cooling)
        return _SiteOnBus(engine, site, cooling, ticks, given.job_log, given.trace_step_s)

    def _engine(self, eid: str, site: Site, cooling: Cooling) -> Facility | SlotFacility:
        given = self.params
        racks = None
        if given.rack_mean_up_s is not None:
            rng = self.stream(f"failures of racks at {eid}")
            racks = Racks(site.racks, given.rack_mean_up_s, given.rack_mean_down_s, rng)
        return Facility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, job_log=given.job_log,
                        resolve_power=given.trace_step_s is not None, racks=racks)


@params
class SlotParams(AidcParams):
    """Parameters of `SlotDataCenters`: those of `DataCenters`, and how (14) is read."""

    reading: Annotated[Reading, Field(description="number of executed jobs x of (14): fractional or integer")] = (
        "fractional")


class SlotDataCenters(DataCenters):
    """AI data centres by (14)-(18) as printed, in slots of one tick; ports as `DataCenters`, and two more.

    Jobs are conserved as there; a job is finished when all its work is done, dropped when it leaves with less. What the
    reading makes of the slot is x in `executed_jobs` and l in `lost_jobs`. `free_gpu_ratio` is U07 to the letter: the
    GPUs not granted.
    """

    PARAMS = SlotParams
    MODELS = {
        "Site": (
            *DataCenters.MODELS["Site"],
            _per_class("executed_jobs", "x of (14): jobs executed in the tick, whole or in part"),
            _per_class("lost_jobs", "l of (17), (18): jobs lost in the tick, less what of them was executed"),
        )
    }

    def advance(self, time_s: float, inputs: Values) -> Values:
        """As `DataCenters`: submit, command, execute one slot, report."""
        return self._with_slots(super().advance(time_s, inputs))

    def initial(self) -> Values:
        """As `DataCenters`; nothing is executed yet, or as before `resume`."""
        return super().initial() if self._last else self._with_slots(super().initial())

    def _with_slots(self, values: Values) -> Values:
        for eid, of_site in values.items():
            facility = self._sites[eid].facility
            of_site |= {"executed_jobs": list(facility.executed_jobs), "lost_jobs": list(facility.lost_jobs)}
        return values

    def notes(self) -> list[str]:
        """As `DataCenters`, and how often (14) could not be an equality (I04)."""
        return super().notes() + [
            f"{self.sid}.{eid}: in {site.facility.short_slots} slots (14) as an equality needs more jobs than there "
            "were; read as <="
            for eid, site in self._sites.items() if site.facility.short_slots
        ]

    def _engine(self, eid: str, site: Site, cooling: Cooling) -> SlotFacility:
        given = self.params
        beyond = [m for m, c in given.job_classes.items() if c.checkpoint_interval_s is not None or c.restart_s]
        if given.rack_mean_up_s is not None or beyond:
            raise ScenarioError(f"{self.sid}: the slot model knows no failures, checkpoints and restarts; leave "
                                "rack_mean_up_s, checkpoint_interval_s and restart_s out, or use DataCenters")
        return SlotFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, self.step_s,
                            given.reading)


_WORKS = ("work_to", "missed_work_to", "failed_work_to")
_COUNTS = ("received_jobs", "finished_jobs", "dropped_jobs")


class _SiteOnBus:
    """A facility, and what turns its intervals into the values of the ports."""

    def __init__(self, facility: Facility | SlotFacility, site: Site, cooling: Cooling, window_ticks: int,
                 job_log: bool, trace_step_s: float | None) -> None:
        self.facility, self.clipped, self._job_log, self._trace_step_s = facility, 0, job_log, trace_step_s
        self._site, self._cooling = site, cooling
        self.means_kw: deque[float] = deque(maxlen=window_ticks)

    def idle(self) -> dict[str, Any]:
        """The ports of an empty site that nobody has commanded yet."""
        supply_degc = self.facility.supply_temp_degc
        idle_kw = it_at_inlet_kw(self._site.idle_kw, supply_degc, self._cooling)
        plant = crac(idle_kw, supply_degc, self._cooling)
        powers = self._powers(idle_kw, plant.chiller_kw, plant.tower_kw, distribution_loss_kw(idle_kw, self._cooling))
        state = self.facility.state()
        nothing = [0] * len(state.granted_gpus)
        return {
            **powers,
            **self._window(powers["p_kw"]),
            **self._temperatures(idle_kw),
            "water_kg_per_h": water_kg_per_h(plant.cooling_load_kw + plant.chiller_kw),
            **{name: _floats(nothing) for name in (*_WORKS, "busy_gpus", *_COUNTS)},
            **self._levels(state),
            "clipped_commands": 0.0,
            "done_jobs": {},
            "gpu_runs": {},
            "power": {},
        }

    def tick(self, end_s: float, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Submit, command, run to the end of the tick, and report it."""
        facility = self.facility
        facility.submit(inputs["jobs"])
        facility.command(inputs["gpus"], inputs["supply_temp_degc"])
        facility.advance(end_s)
        did = facility.read_interval()
        self.clipped += did.clipped_commands
        powers = self._powers(did.it_kw, did.chiller_kw, did.tower_kw, did.loss_kw)
        self.means_kw.append(powers["p_kw"])
        return {
            **powers,
            **self._window(math.fsum(self.means_kw) / len(self.means_kw)),
            **self._temperatures(did.it_kw),
            "water_kg_per_h": self._water_kg_per_h(did),
            "work_to": did.work_to,
            "missed_work_to": did.missed_to,
            "failed_work_to": did.failed_to,
            "busy_gpus": did.busy_gpus,
            **{name: _floats(getattr(did, name)) for name in _COUNTS},
            **self._levels(facility.state()),
            "clipped_commands": float(did.clipped_commands),
            "done_jobs": did.left_jobs if self._job_log else {},
            "gpu_runs": did.runs if self._job_log else {},
            "power": {} if self._trace_step_s is None else self._resolved(did, end_s),
        }

    def _resolved(self, did: Interval, end_s: float) -> Batch:
        """Rows of the table `power`; a model of a site without events inside the tick has one power there."""
        begin_s = end_s - did.seconds
        segments = did.segments or [(begin_s, end_s, did.it_kw, did.chiller_kw, did.tower_kw, did.loss_kw)]
        times_s, kw = resolved_kw(segments, self._trace_step_s)
        return {
            "site": [self.facility.name] * len(times_s),
            "time_s": times_s.tolist(),
            "p_kw": kw.sum(axis=1).tolist(),
            "it_kw": kw[:, 0].tolist(),
            "cooling_kw": kw[:, 1:3].sum(axis=1).tolist(),
        }

    def _powers(self, it_kw: float, chiller_kw: float, tower_kw: float, loss_kw: float) -> dict[str, float]:
        cooling_kw = chiller_kw + tower_kw
        cooled_kw = aidc_power_kw(it_kw, cooling_kw)
        p_kw = cooled_kw + loss_kw
        return {
            "p_kw": p_kw,
            "q_kvar": reactive_power_kvar(p_kw, self._site.q_per_p_ratio),
            "it_kw": it_kw,
            "cooling_kw": cooling_kw,
            "chiller_kw": chiller_kw,
            "tower_kw": tower_kw,
            "loss_kw": loss_kw,
            "pue_cooling": pue(cooled_kw, it_kw) if it_kw else 1.0,
            "pue": pue(p_kw, it_kw) if it_kw else 1.0,
        }

    def _water_kg_per_h(self, did: Interval) -> float:
        """Water for the heat of the tick: the cooling load at its mean IT power, and the chiller's own."""
        load_kw = crac(did.it_kw, self.facility.supply_temp_degc, self._cooling).cooling_load_kw
        return water_kg_per_h(load_kw + did.chiller_kw)

    def _window(self, p_kw: float) -> dict[str, float]:
        return {"p_window_kw": p_kw, "q_window_kvar": reactive_power_kvar(p_kw, self._site.q_per_p_ratio)}

    def _temperatures(self, it_kw: float) -> dict[str, float]:
        plant = crac(it_kw, self.facility.supply_temp_degc, self._cooling)
        return {
            "supply_temp_degc": self.facility.supply_temp_degc,
            "inlet_degc": plant.inlet_degc,
            "outlet_degc": plant.outlet_degc,
            "return_degc": plant.return_degc,
            "heat_imbalance_kw": plant.cooling_load_kw - it_kw,
        }

    def _levels(self, state: State) -> dict[str, Any]:
        """What stands at the end of the tick."""
        gpus = self.facility.gpus
        backlog = [queued + deferred for queued, deferred in zip(state.queued_jobs, state.deferred_jobs, strict=True)]
        return {
            "granted_gpus": _floats(state.granted_gpus),
            "queued_jobs": _floats(state.queued_jobs),
            "deferred_jobs": _floats(state.deferred_jobs),
            "running_jobs": _floats(state.running_jobs),
            "backlog_jobs": _floats(backlog),
            "pending_work_to": state.pending_work_to,
            "deferred_work_to": state.deferred_work_to,
            "late_jobs": _floats(state.late_jobs),
            "urgent_jobs": _floats(state.urgent_jobs),
            "up_gpus": float(state.up_gpus),
            "free_gpu_ratio": max(1.0 - sum(state.busy_gpus) / gpus - (gpus - state.up_gpus) / gpus, 0.0),
        }


def _floats(counts: list[int]) -> list[float]:
    """Counts as the bus wants them."""
    return list(map(float, counts))


if __name__ == "__main__":
    serve(DataCenters)
