"""AI data centres on the bus: one entity per site, jobs and commands in, power and what became of the jobs out.

Rows: A06, L13, M09, M10, U07, X02.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, Meta, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.limits import BYTES_PER_NUMBER, check_memory
from cosim.params import params
from cosim.ports import Batch
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.racks import Racks
from cosim.simulators.aidc.engine.site_state import SiteState, pack, unpack
from cosim.simulators.aidc.engine.slots import Reading, SlotFacility
from cosim.simulators.aidc.inbound import NETWORK, Inbound
from cosim.simulators.aidc.plant.ambient import Ambient, OutdoorAir, Weather, check_cover
from cosim.simulators.aidc.plant.battery import BehindMeter, SiteBattery
from cosim.simulators.aidc.plant.cooling import BALANCED, Cooling, CoolingChoice, supply_limits_degc
from cosim.simulators.aidc.plant.thermal import Room, StaticPlant, Thermal
from cosim.simulators.aidc.ports import BATTERY, SITE, per_class
from cosim.simulators.aidc.site import EVENTS, SiteOnBus
from cosim.simulators.fleet import JobClass, Routing, Site
from cosim.simulators.wan import Network, check_same
from cosim.units import Seconds, format_time, whole_steps

_POWER_COLUMNS = 8
"""Of the table `power`, about."""


@params
class AidcParams:
    """The fleet, its cooling plants and the window over which its power is averaged for the grid."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1, description="job classes by name")]
    sites: Annotated[dict[str, Site], Field(min_length=1, description="sites by name; entities are named like them")]
    cooling: Annotated[
        CoolingChoice, Field(description="cooling plant, or balanced, corrected, literal, table2")] = BALANCED
    site_cooling: Annotated[
        dict[str, CoolingChoice], Field(description="cooling plants of single sites, where they differ")
    ] = field(default_factory=dict)
    thermal: Annotated[
        Thermal, Field(description="static: air is where it settles; first_order: the room takes time, see `thermal`")
    ] = "static"
    ambient: Annotated[Ambient | None, Field(description="outside temperatures; null: none are known")] = None
    site_ambient: Annotated[
        dict[str, Ambient], Field(description="outside temperatures of single sites, where they differ")
    ] = field(default_factory=dict)
    scenario_start: Annotated[
        str | None, Field(description="date of t = 0, for a table with dates; the run fills it in")] = None
    window_s: Annotated[Seconds, Field(gt=0, description="window of p_window_kw: the grid's step")] = 900.0
    batteries: Annotated[dict[str, SiteBattery], Field(
        description="batteries behind the meters of sites, by their names: p_kw is what the meter shows")] = field(
        default_factory=dict)
    job_log: Annotated[bool, Field(description="rows of single jobs, their GPUs; a run without is faster")] = True
    trace_step_s: Annotated[
        Seconds | None, Field(ge=0.001, description="step of the table `power`: power inside the tick; null: no table")
    ] = None
    initial_supply_temp_degc: Annotated[float, Field(description="supply temperature before the first command")] = 23.0
    routing: Routing = "handover"
    wan: Network = None
    rack_mean_up_s: Annotated[
        Seconds | None, Field(ge=60, description="mean time that a rack is up until it fails; null: none fails")
    ] = None
    rack_mean_down_s: Annotated[Seconds, Field(ge=1, description="mean time that a failed rack is down")] = 14400.0


class DataCenters(Adapter):
    """AI data centres, one entity per site, one tick per minute; events between two ticks keep their true times.

    Jobs are conserved at every tick, per site and class: all received so far = queued + deferred + running now, plus
    all finished and dropped so far. A training job that has begun but holds no block counts as queued.
    """

    PARAMS = AidcParams
    KINDS: ClassVar[tuple[str, ...]] = ("train", "inf")
    SITE_ON_BUS: ClassVar[type[SiteOnBus]] = SiteOnBus
    TYPED: ClassVar[bool] = False
    VARIANTS: ClassVar[tuple[str, ...]] = (
        "cosim.simulators.aidc.capped:CappedDataCenters", "cosim.simulators.aidc.llm.adapter:LlmDataCenters",
        "cosim.simulators.aidc.adapter:SlotDataCenters", "cosim.simulators.aidc.gpus.adapter:GpuDataCenters",
        "cosim.simulators.aidc.llm.capped:CappedLlmDataCenters")
    MODELS = {"Site": SITE}

    @classmethod
    def check_horizon(cls, member: str, given: AidcParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table of outside temperatures that does not cover the run."""
        if given.ambient is not None:
            check_cover(given.ambient, f"{member}.ambient", given.scenario_start, until_s)
        for site, ambient in given.site_ambient.items():
            check_cover(ambient, f"{member}.site_ambient.{site}", given.scenario_start, until_s)

    @classmethod
    def check_scenario(cls, member: str, given: AidcParams, scenario: Any) -> None:
        """ScenarioError for a class of a kind, or GPU types, that these data centers do not serve, and where the table
        `power` of `trace_step_s` would not fit into memory until it is written."""
        cls._check_kinds(member, given)
        if given.wan is not None:
            given.wan.check(f"{member}.wan", list(given.sites), list(given.job_classes))
        if given.trace_step_s is not None:
            rows = len(given.sites) * max(scenario.flush_s, scenario.members[member].step_s) / given.trace_step_s
            check_memory(f"{member}.trace_step_s = {given.trace_step_s:g}", rows * _POWER_COLUMNS, BYTES_PER_NUMBER,
                         "make it longer, or flush_s shorter")

    @classmethod
    def check_members(cls, member: str, given: AidcParams, members: Mapping[str, Any]) -> None:
        """ScenarioError where another member has another network, or none gives jobs their origins."""
        check_same(member, given.wan, members)

    @classmethod
    def _check_kinds(cls, member: str, given: AidcParams) -> None:
        for name, job_class in given.job_classes.items():
            if job_class.kind not in cls.KINDS:
                raise ScenarioError(f"job_classes.{name} is of kind {job_class.kind}, which {cls.__name__} does not "
                                    f"serve ({', '.join(cls.KINDS)}); set {member}.simulator to "
                                    "cosim.simulators.aidc.llm.adapter:LlmDataCenters")
        if cls.TYPED:
            return
        typed = [f"sites.{name}.gpu_types" for name, site in given.sites.items() if site.gpu_types]
        typed += [f"job_classes.{name}.{field}" for name, c in given.job_classes.items()
                  for field in ("memory_gb", "power_table", "gpu_speed_ratio") if getattr(c, field)]
        if typed:
            raise ScenarioError(f"{typed[0]}: to {cls.__name__} all GPUs of a site are alike; leave it out, or set "
                                f"{member}.simulator to cosim.simulators.aidc.gpus.adapter:GpuDataCenters")

    def init(self, sid: str, time_resolution: float = 1.0, **given: Any) -> Meta:
        """Validate the parameters; sites have ports of batteries where one of them has a battery, and of the network
        where there is one."""
        super().init(sid, time_resolution, **given)
        if more := (BATTERY if self.params.batteries else ()) + (NETWORK if self.params.wan is not None else ()):
            self.adopt({"Site": (*self.MODELS["Site"], *more)})
        return self.meta

    def setup(self) -> None:
        """One facility per entity; raises ScenarioError for kinds, names, windows and rack tables that do not fit."""
        self._check_kinds(self.sid, self.params)
        self._sites: dict[str, SiteOnBus] = {}
        self._last: Values = {}
        self._now_s = self._origin_s = 0.0
        for field_name in ("site_cooling", "site_ambient", "batteries"):
            for name in getattr(self.params, field_name):
                if name not in self.params.sites:
                    raise ScenarioError(unknown(f"site in {self.sid}.{field_name}", name, self.params.sites))
        self._sites = {eid: self._site(eid) for eid in self.entities["Site"]}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """Submit, command, run to the end of the tick, report."""
        self._now_s = time_s + self.step_s
        self._last = {eid: site.tick(self._now_s, self.step_s, inputs[eid], self.spare)
                      for eid, site in self._sites.items()}
        return self._last

    def initial(self) -> Values:
        """Every site idle at the initial supply temperature, or as its last tick left it before `resume`."""
        return {eid: self._last[eid] if eid in self._last else site.idle() for eid, site in self._sites.items()}

    def carry(self) -> dict[str, np.ndarray]:
        """The fleet between two ticks, for `resume` in another world; times relative to now.

        Arrays of numbers, and of names in `site` and `job_class`: `jobs/...` one row a job inside, `last/...` the ports
        of the last tick, `window_kw` (site, tick) what the means over the grid's window are made of, `origin_s` time
        gone by; see `carried`. An alarm that lasts ends here.
        """
        last, sites = self.initial(), list(self._sites.values())
        return {
            "site": np.array(list(self._sites)),
            "job_class": np.array(list(self.params.job_classes)),
            "model": np.array(type(self).__name__),
            "origin_s": np.array(self._origin_s + self._now_s),
            "window_kw": np.array([list(site.means_kw) for site in sites], dtype=np.float64),
            **({"battery_kwh": np.array([site.storage.energy_kwh if site.storage else 0.0 for site in sites])}
               if self.params.batteries else {}),
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
        self._origin_s = float(carry.get("origin_s", 0.0))
        for k, (site, memory) in enumerate(zip(self._sites.values(), unpack(carry, mine["job_class"]), strict=True)):
            self._restore(site, memory, carry)
            site.means_kw.extend(carry["window_kw"][k].tolist())
            if site.storage is not None and "battery_kwh" in carry:
                site.storage.energy_kwh = float(carry["battery_kwh"][k])
            if isinstance(site.plant, Room):
                site.plant.return_degc = float(carry["last/return_degc"][k])
                site.plant.tripped = bool(carry["last/tripped"][k])
            if site.weather is not None:
                site.weather.origin_s = self._origin_s
        self._last = {
            eid: {name: carry[f"last/{name}"][k].tolist() for name in self._level_names()}
            | {name: {} for name in (*EVENTS, *(("transfers",) if self.params.wan is not None else ()))}
            for k, eid in enumerate(self._sites)
        }

    def _restore(self, site: SiteOnBus, memory: SiteState, carry: Mapping[str, np.ndarray]) -> None:
        """Into a site, what `carry` has of it."""
        site.facility.restore(memory)

    def _level_names(self) -> list[str]:
        return [port.name for port in self.models["Site"] if port.flow == "out" and port.kind == "level"]

    def labels(self) -> dict[str, list[str]]:
        """The job classes, in the scenario's order."""
        return {"job_class": list(self.params.job_classes)}

    def closing(self) -> dict[str, dict[str, Batch]]:
        """Jobs that are still inside, as rows with outcome 'unfinished', the GPUs they hold, and alarms that last."""
        rows: dict[str, dict[str, Batch]] = {}
        for eid, site in self._sites.items():
            if self.params.job_log:
                rows[eid] = {"done_jobs": site.facility.unfinished_rows(), "gpu_runs": site.facility.open_runs()}
            if alarm := site.open_alarm():
                rows.setdefault(eid, {})["alarms"] = alarm
        return rows

    def notes(self) -> list[str]:
        """Which sites were commanded supply temperatures that (24) forbids, where inlets were too warm, and how tables
        of outside temperatures were read."""
        said = []
        for eid, site in self._sites.items():
            if site.clipped:
                said.append(f"{self.sid}.{eid}: {site.clipped} commanded supply temperatures were outside their limits "
                            "and clipped")
            if site.alarm_s:
                shed = f", load shed: {site.trips}" if site.trips else ""
                said.append(f"{self.sid}.{eid}: inlets were above their limit for {format_time(site.alarm_s)}, alarms: "
                            f"{site.alarms}{shed}; the plant's capacity_kw = {site.plant.cooling.capacity_kw:g} "
                            "was not enough")
        return said + list(dict.fromkeys(f"{self.sid}: {text}" for site in self._sites.values()
                                         if site.weather is not None for text in site.weather.notes(self.step_s)))

    def _site(self, eid: str) -> SiteOnBus:
        given = self.params
        if eid not in given.sites:
            raise ScenarioError(unknown(f"entity of {self.sid}", eid, given.sites) + " (entities are named like sites)")
        ticks = whole_steps(given.window_s, self.step_s)
        if not ticks:
            raise ScenarioError(
                f"{self.sid}.window_s = {given.window_s:g} is not a whole number of its steps ({self.step_s:g} s)"
            )
        site, cooling = given.sites[eid], given.site_cooling.get(eid, given.cooling)
        for value in cooling.rack_values():
            if isinstance(value, tuple) and len(value) != site.racks:
                raise ScenarioError(f"{self.sid}: cooling of {eid} has {len(value)} racks, the site {site.racks}")
        if given.trace_step_s is not None and not whole_steps(self.step_s, given.trace_step_s):
            raise ScenarioError(f"{self.sid}.trace_step_s = {given.trace_step_s:g} does not divide its step of "
                                f"{self.step_s:g} s; give a whole part of it")
        weather = self._weather(eid, cooling)
        plant = self._plant(eid, site, cooling, weather)
        inside = given.trace_step_s is not None or weather is not None or isinstance(plant, Room)
        engine = self._engine(eid, site, cooling, inside)
        made = self.SITE_ON_BUS(engine, plant, weather, site, ticks, given.job_log, given.trace_step_s)
        if given.wan is not None:
            made.inbound = Inbound(given.wan, eid, list(given.job_classes), given.job_log, given.routing == "arrival")
        if given.batteries:
            if given.trace_step_s is not None:
                raise ScenarioError(f"{self.sid}.trace_step_s = {given.trace_step_s:g} with {self.sid}.batteries: what "
                                    "they do inside a tick is not worked out; leave one of them out")
            made.has_storage = True
            made.storage = BehindMeter(given.batteries[eid]) if eid in given.batteries else None
        return made

    def _weather(self, eid: str, cooling: Cooling) -> Weather | None:
        given = self.params
        ambient = given.site_ambient.get(eid, given.ambient)
        owner = f"{self.sid}.site_ambient.{eid}" if eid in given.site_ambient else f"{self.sid}.ambient"
        if ambient is None:
            if cooling.heat_rejection == "dry" or (cooling.cop_outside_degc is not None
                                                   and cooling.wet_bulb_degc is None):
                what = "heat_rejection = 'dry'" if cooling.heat_rejection == "dry" else "cop_outside_degc"
                raise ScenarioError(f"{self.sid}: cooling of {eid} has {what} and no outside temperature is known; "
                                    f"give {owner}")
            return None
        if cooling.wet_bulb_degc is not None:
            raise ScenarioError(f"{self.sid}: {eid} has {owner} and a constant cooling.wet_bulb_degc = "
                                f"{cooling.wet_bulb_degc:g}; give one of them")
        weather = Weather(ambient, eid, owner, given.scenario_start)
        limit = "dry_bulb" if cooling.heat_rejection == "dry" else "wet_bulb"
        if not ambient.linked and math.isnan(getattr(weather.at(0.0, OutdoorAir()), f"{limit}_degc")):
            raise ScenarioError(f"{owner} knows no {limit} temperature, which limits the plant of {eid} "
                                f"(heat_rejection = '{cooling.heat_rejection}'); give {limit}_mean_degc, or a table "
                                f"with {limit}_degc")
        return weather

    def _plant(self, eid: str, site: Site, cooling: Cooling, weather: Weather | None) -> StaticPlant:
        given = self.params
        where = f"{self.sid}.site_cooling.{eid}" if eid in given.site_cooling else f"{self.sid}.cooling"
        if given.thermal == "first_order":
            return Room(cooling, site.rest_kw, self._first_supply_degc(cooling), where)
        if cooling.capacity_kw is not None:
            raise ScenarioError(f"{where}.capacity_kw = {cooling.capacity_kw:g} needs {self.sid}.thermal=first_order: "
                                "the static plant has no air that could get warmer")
        return StaticPlant(cooling, weather is not None)

    def _first_supply_degc(self, cooling: Cooling) -> float:
        low, high = supply_limits_degc(cooling)
        return min(max(self.params.initial_supply_temp_degc, low), high)

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> Facility | SlotFacility:
        given = self.params
        return Facility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, job_log=given.job_log,
                        resolve_power=inside, racks=self._racks(eid, site), at_arrival=given.routing == "arrival")

    def _racks(self, eid: str, site: Site) -> Racks | None:
        """The failures of a site's racks; None where none fails."""
        given = self.params
        if given.rack_mean_up_s is None:
            return None
        rng = self.stream(f"failures of racks at {eid}")
        return Racks(site.racks, given.rack_mean_up_s, given.rack_mean_down_s, rng)


@params
class SlotParams(AidcParams):
    """Parameters of `SlotDataCenters`: those of `DataCenters`, and how (14) is read."""

    reading: Annotated[Reading, Field(description="number of executed jobs x of (14): fractional or integer")] = (
        "fractional")


class SlotDataCenters(DataCenters):
    """AI data centres by (14)-(18) as printed, in slots of one tick; ports as `DataCenters`, and two more.

    Jobs are conserved as there; a job is finished when all its work is done, dropped when it leaves with less. What the
    reading makes of the slot is x in `executed_jobs` and l in `lost_jobs`. `free_gpu_ratio` is the
    share of GPUs not granted, as the paper defines it.
    """

    PARAMS = SlotParams
    MODELS = {
        "Site": (
            *DataCenters.MODELS["Site"],
            per_class("executed_jobs", "x of (14): jobs executed in the tick, whole or in part"),
            per_class("lost_jobs", "l of (17), (18): jobs lost in the tick, less what of them was executed"),
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
            facility = self._slots_of(eid)
            of_site |= {"executed_jobs": list(facility.executed_jobs), "lost_jobs": list(facility.lost_jobs)}
        return values

    def notes(self) -> list[str]:
        """As `DataCenters`, and how often (14) could not be an equality."""
        return super().notes() + [
            f"{self.sid}.{eid}: in {short} slots (14) as an equality needs more jobs than there "
            "were; read as <="
            for eid in self._sites if (short := self._slots_of(eid).short_slots)
        ]

    def _slots_of(self, eid: str) -> SlotFacility:
        facility = self._sites[eid].facility
        assert isinstance(facility, SlotFacility), "_engine makes these"
        return facility

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> SlotFacility:
        given = self.params
        if given.wan is not None:
            raise ScenarioError(f"{self.sid}.wan: the slot model takes its jobs once a slot; leave it out")
        if given.routing != "handover":
            raise ScenarioError(f"{self.sid}: the slot model takes its jobs once a slot; leave routing at handover")
        beyond = [m for m, c in given.job_classes.items() if c.checkpoint_interval_s is not None or c.restart_s]
        if given.rack_mean_up_s is not None or beyond:
            raise ScenarioError(f"{self.sid}: the slot model knows no failures, checkpoints and restarts; leave "
                                "rack_mean_up_s, checkpoint_interval_s and restart_s out, or use DataCenters")
        return SlotFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, self.step_s,
                            given.reading)


if __name__ == "__main__":
    serve(DataCenters)
