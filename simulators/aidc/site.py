"""A site on the bus: what becomes of a facility's minute and of its plant's as values of the ports."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from cosim.adapter import LazyOutputs
from cosim.ports import Batch
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.interval import SiteInterval, State, resolved_kw
from cosim.simulators.aidc.engine.slots import SlotFacility
from cosim.simulators.aidc.equations import aidc_power_kw, it_at_inlet_kw, pue, reactive_power_kvar
from cosim.simulators.aidc.inbound import Inbound
from cosim.simulators.aidc.plant.ambient import OutdoorAir, Weather
from cosim.simulators.aidc.plant.battery import BehindMeter
from cosim.simulators.aidc.plant.cooling import per_rack
from cosim.simulators.aidc.plant.thermal import Alarm, HeatBalance, StaticPlant
from cosim.simulators.fleet import Site

_WORKS = ("work_to", "finished_work_to", "missed_work_to", "failed_work_to")
_COUNTS = ("received_jobs", "finished_jobs", "dropped_jobs")
EVENTS = ("done_jobs", "gpu_runs", "power", "alarms")
_ALARM_COLUMNS = ("site", "begin_s", "end_s", "inlet_degc", "racks")


class SiteOnBus:
    """A facility with its plant, and what turns their ticks into the values of the ports.

    clipped       commanded supply temperatures that (24) forbids
    trips         how often an inlet was so warm that the site shed its load
    alarms        times at which an inlet was above its limit, those that are over; `alarm_s` how long together
    job_log, trace_step_s   parameters of the same names
    inbound       the network through which jobs come; None: they are there at once
    has_storage   whether sites have batteries behind their meters; storage: this one's, None without
    """

    storage: BehindMeter | None

    def __init__(self, facility: Facility | SlotFacility, plant: StaticPlant, weather: Weather | None, site: Site,
                 window_ticks: int, job_log: bool, trace_step_s: float | None) -> None:
        self.facility, self.plant, self.weather = facility, plant, weather
        self.clipped, self.trips, self.alarms, self.alarm_s = 0, 0, 0, 0.0
        self._job_log, self._trace_step_s, self._site = job_log, trace_step_s, site
        self.has_storage, self.storage = False, None
        self.inbound: Inbound | None = None
        self._open: Alarm | None = None  # the alarm that lasts
        self.means_kw: deque[float] = deque(maxlen=window_ticks)

    def idle(self) -> dict[str, Any]:
        """The ports of an empty site without commands so far."""
        set_degc = self.facility.supply_temp_degc
        idle_kw = it_at_inlet_kw(self._site.rest_kw, set_degc, self.plant.cooling)
        outside = OutdoorAir()
        if self.weather is not None and not self.weather.ambient.linked:
            outside = self.weather.at(0.0, outside)
        heat = self.plant.rest(idle_kw, set_degc, outside)
        powers = self._powers(heat)
        state = self.facility.state()
        nothing = [0] * len(state.granted_gpus)
        return {
            **powers,
            **self._battery(0.0),
            **self._window(powers["p_kw"]),
            **self._air(heat, set_degc, outside, self.plant.tripped),
            **{name: _floats(nothing) for name in (*_WORKS, "busy_gpus", *_COUNTS)},
            **self._inside(state),
            **self._held(state),
            "clipped_commands": 0.0,
            **{name: {} for name in EVENTS},
            **({} if self.inbound is None else self.inbound.read(0.0)),
        }

    def tick(self, end_s: float, step_s: float, inputs: Mapping[str, Any], spare: bool = False) -> dict[str, Any]:
        """Submit, command, run to the end of the tick, and report it.

        spare: leave what agents and the grid do not need until it is read
        """
        facility, plant = self.facility, self.plant
        outside = OutdoorAir(inputs["wet_bulb_degc"], inputs["dry_bulb_degc"])
        if self.weather is not None:
            outside = self.weather.at(end_s - step_s, outside)
        now_s = end_s - step_s
        facility.submit(inputs["jobs"] if self.inbound is None else self.inbound.sent(inputs["jobs"], now_s))
        gpus = inputs["gpus"]
        facility.command([0.0] * len(gpus) if plant.tripped else gpus, inputs["supply_temp_degc"])
        self.limit(inputs, outside)
        facility.advance(end_s)
        did, set_degc, was_tripped = facility.read_interval(), facility.supply_temp_degc, plant.tripped
        heat = None if spare and plant.metered else plant.tick(did, end_s, set_degc, outside)
        self.clipped += did.clipped_commands
        self.trips += plant.tripped and not was_tripped
        facility_kw, battery_kw = _power_kw(did if heat is None else heat), 0.0
        if self.storage is not None:
            battery_kw = self.storage.run(facility_kw, inputs["battery_set_kw"], end_s - step_s, step_s)
        p_kw = facility_kw - battery_kw
        self.means_kw.append(p_kw)
        state = facility.state()
        now = {
            "p_kw": p_kw,
            **self._battery(battery_kw),
            **self._window(math.fsum(self.means_kw) / len(self.means_kw)),
            "work_to": did.work_to,
            "finished_work_to": did.finished_to,
            "dropped_jobs": _floats(did.dropped_jobs),
            **self._inside(state),
            "alarms": {} if heat is None else self._alarms_over(heat.alarms, end_s),
            **({} if self.inbound is None else self.inbound.read(end_s)),
        }
        if not spare:
            assert heat is not None
            now.update(self._rest(did, heat, state, end_s, set_degc, outside, plant.tripped, battery_kw))
            return now

        tripped = plant.tripped  # as it is now, whenever the rest is computed

        def rest() -> dict[str, Any]:
            then = plant.tick(did, end_s, set_degc, outside) if heat is None else heat
            return self._rest(did, then, state, end_s, set_degc, outside, tripped, battery_kw)
        return LazyOutputs(now, rest)

    def _rest(self, did: SiteInterval, heat: HeatBalance, state: State, end_s: float, set_degc: float,
              outside: OutdoorAir, tripped: bool, battery_kw: float) -> dict[str, Any]:
        """The ports that neither the agents nor the grid need."""
        return {
            **self._powers(heat, battery_kw),
            **self._air(heat, set_degc, outside, tripped),
            "missed_work_to": did.missed_to,
            "failed_work_to": did.failed_to,
            "busy_gpus": did.busy_gpus,
            "received_jobs": _floats(did.received_jobs),
            "finished_jobs": _floats(did.finished_jobs),
            **self._held(state),
            "clipped_commands": float(did.clipped_commands),
            "done_jobs": did.left_jobs if self._job_log else {},
            "gpu_runs": did.runs if self._job_log else {},
            "power": {} if self._trace_step_s is None else self._resolved(did, heat, end_s, self._trace_step_s),
        }

    def limit(self, inputs: Mapping[str, Any], outside: OutdoorAir) -> None:
        """What else limits the tick that begins, after its commands; nothing here."""

    def open_alarm(self) -> Batch:
        """The alarm that lasts at the end of the run, as a row."""
        over, self._open = self._open, None
        return self._rows([over]) if over is not None else {}

    def _alarms_over(self, alarms: tuple[Alarm, ...], end_s: float) -> Batch:
        """Rows of the alarms that ended; one that lasts to the end of the tick may go on in the next."""
        self.alarm_s += math.fsum(end - begin for begin, end, _ in alarms)
        over: list[Alarm] = []
        for begin, end, degc in alarms:
            if self._open is not None and begin - self._open[1] < 1e-6:
                self._open = (self._open[0], end, max(self._open[2], degc))
                continue
            if self._open is not None:
                over.append(self._open)
            self._open = (begin, end, degc)
        if self._open is not None and end_s - self._open[1] > 1e-6:
            over.append(self._open)
            self._open = None
        return self._rows(over) if over else {}

    def _rows(self, alarms: list[Alarm]) -> Batch:
        """Alarms as rows of their table."""
        self.alarms += len(alarms)
        cooling, racks = self.plant.cooling, self._site.racks
        offsets, limits = per_rack(cooling.supply_offset_degc, racks), per_rack(cooling.inlet_max_degc, racks)
        rows = [(self.facility.name, begin, end, degc + max(offsets),
                 sum(degc + offset > limit for offset, limit in zip(offsets, limits, strict=True)))
                for begin, end, degc in alarms]
        return dict(zip(_ALARM_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))

    def _resolved(self, did: SiteInterval, heat: HeatBalance, end_s: float, step_s: float) -> Batch:
        """Rows of the table `power`; a model of a site without events inside the tick has one power there."""
        segments = heat.segments
        if not len(segments):
            segments = [(end_s - did.seconds, end_s, heat.it_kw, heat.chiller_kw, heat.tower_kw, heat.loss_kw)]
        times_s, kw = resolved_kw(segments, step_s)
        return {
            "site": [self.facility.name] * len(times_s),
            "time_s": times_s.tolist(),
            "p_kw": kw.sum(axis=1).tolist(),
            "it_kw": kw[:, 0].tolist(),
            "cooling_kw": kw[:, 1:3].sum(axis=1).tolist(),
        }

    def _battery(self, battery_kw: float) -> dict[str, float]:
        """Ports of the battery; {} where sites have none."""
        if not self.has_storage:
            return {}
        return {"battery_kw": battery_kw, "battery_soc_kwh": 0.0 if self.storage is None else self.storage.energy_kwh}

    def _powers(self, heat: HeatBalance, battery_kw: float = 0.0) -> dict[str, float]:
        """What the meter shows, and what it is made of; PUE is the facility's, without the battery."""
        cooling_kw = heat.chiller_kw + heat.tower_kw
        cooled_kw, facility_kw = aidc_power_kw(heat.it_kw, cooling_kw), _power_kw(heat)
        p_kw = facility_kw - battery_kw
        return {
            "p_kw": p_kw,
            "q_kvar": reactive_power_kvar(p_kw, self._site.q_per_p_ratio),
            "it_kw": heat.it_kw,
            "cooling_kw": cooling_kw,
            "chiller_kw": heat.chiller_kw,
            "tower_kw": heat.tower_kw,
            "loss_kw": heat.loss_kw,
            "pue_cooling": pue(cooled_kw, heat.it_kw) if heat.it_kw else 1.0,
            "pue": pue(facility_kw, heat.it_kw) if heat.it_kw else 1.0,
            "water_kg_per_h": heat.water_kg_per_h,
        }

    def _window(self, p_kw: float) -> dict[str, float]:
        return {"p_window_kw": p_kw, "q_window_kvar": reactive_power_kvar(p_kw, self._site.q_per_p_ratio)}

    def _air(self, heat: HeatBalance, set_degc: float, outside: OutdoorAir, tripped: bool) -> dict[str, float]:
        return {
            "supply_set_degc": set_degc,
            "supply_temp_degc": heat.supply_degc,
            "inlet_degc": heat.inlet_degc,
            "outlet_degc": heat.outlet_degc,
            "return_degc": heat.return_degc,
            "heat_removed_kw": heat.heat_removed_kw,
            "heat_imbalance_kw": heat.imbalance_kw,
            "inlet_alarm_s": math.fsum(end - begin for begin, end, _ in heat.alarms),
            "tripped": float(tripped),
            "wet_bulb_degc": outside.wet_bulb_degc,
            "dry_bulb_degc": outside.dry_bulb_degc,
            "free_cooling_ratio": heat.free_ratio,
        }

    def _inside(self, state: State) -> dict[str, Any]:
        """What is inside at the end of the tick."""
        gpus = self.facility.gpus
        return {
            "queued_jobs": _floats(state.queued_jobs),
            "deferred_jobs": _floats(state.deferred_jobs),
            "running_jobs": _floats(state.running_jobs),
            "pending_work_to": state.pending_work_to,
            "deferred_work_to": state.deferred_work_to,
            "late_jobs": _floats(state.late_jobs),
            "urgent_jobs": _floats(state.urgent_jobs),
            "slack_min": state.slack_min,
            "free_gpu_ratio": max(1.0 - sum(state.busy_gpus) / gpus - (gpus - state.up_gpus) / gpus, 0.0),
        }

    def _held(self, state: State) -> dict[str, Any]:
        """What else stands at the end of the tick."""
        backlog = [queued + deferred for queued, deferred in zip(state.queued_jobs, state.deferred_jobs, strict=True)]
        return {"granted_gpus": _floats(state.granted_gpus), "backlog_jobs": _floats(backlog),
                "up_gpus": float(state.up_gpus)}


def _power_kw(drawn: SiteInterval | HeatBalance) -> float:
    """What the site draws, losses included."""
    return aidc_power_kw(drawn.it_kw, drawn.chiller_kw + drawn.tower_kw) + drawn.loss_kw


def _floats(counts: list[int]) -> list[float]:
    """Counts as floats, the type of ports."""
    return list(map(float, counts))
