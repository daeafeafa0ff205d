"""Ports of a data centre on the bus.

Rows: X02.
"""

from __future__ import annotations

import math

from cosim.ports import Port


def power(name: str, about: str, window: str | None = None) -> Port:
    """A power that the site draws."""
    return Port(name, "out", about, sign="> 0 is drawn from the grid", window=window)


def per_class(name: str, about: str) -> Port:
    """One number per job class."""
    return Port(name, "out", about, dims=("job_class",))


BATTERY = (
    Port("battery_set_kw", "in", "power that another member commands of the site's battery; none linked, or NaN: its "
         "rule decides", sign="> 0 discharges, < 0 charges", default=math.nan, nullable=True),
    Port("battery_kw", "out", "power of the site's battery, mean over the tick, part of p_kw",
         sign="> 0 discharges, < 0 charges"),
    Port("battery_soc_kwh", "out", "energy in it at the end of the tick; 0 where the site has none", sign=">= 0"),
)
"""Of a site, where sites have batteries behind their meters."""

SITE = (
    Port("jobs", "in", "jobs submitted now: id, job_class, arrival_s, work_to, deadline_s, release_s",
         kind="event", reduce="sum"),
    Port("gpus", "in", "GPUs granted from now on, whole numbers", sign=">= 0", dims=("job_class",)),
    Port("supply_temp_degc", "in", "supply air temperature from now on"),
    Port("wet_bulb_degc", "in", "outside wet-bulb temperature, for ambient.linked", default=math.nan, nullable=True),
    Port("dry_bulb_degc", "in", "outside dry-bulb temperature, for ambient.linked", default=math.nan, nullable=True),
    power("p_kw", "active power, mean over the tick (12)"),
    power("q_kvar", "reactive power, mean over the tick (5)"),
    power("p_window_kw", "active power, mean over the window that ends now", "window_s"),
    power("q_window_kvar", "reactive power, mean over the window that ends now", "window_s"),
    power("it_kw", "IT power, mean over the tick (13)"),
    power("cooling_kw", "chiller and cooling tower, mean over the tick"),
    power("chiller_kw", "chiller, mean over the tick (22)"),
    power("tower_kw", "cooling-tower fans, mean over the tick (23)"),
    power("loss_kw", "losses of UPS and PDU, and auxiliaries, mean over the tick"),
    Port("pue_cooling", "out", "PUE of the paper, (IT + cooling) / IT, mean over the tick", sign=">= 1"),
    Port("pue", "out", "PUE with losses and auxiliaries, mean over the tick", sign=">= 1"),
    Port("water_kg_per_h", "out", "water that the cooling tower takes up, an upper estimate", sign=">= 0"),
    per_class("work_to", "work done in the tick"),
    per_class("busy_gpus", "GPUs in use, mean over the tick"),
    per_class("granted_gpus", "GPUs granted during the tick"),
    per_class("received_jobs", "jobs submitted at the start of the tick"),
    per_class("finished_jobs", "jobs finished in the tick"),
    per_class("dropped_jobs", "jobs dropped in the tick at their deadline"),
    per_class("finished_work_to", "work served: all work of the jobs that finished in the tick"),
    per_class("missed_work_to", "work done of jobs that were dropped in the tick, begun but late"),
    per_class("failed_work_to", "work that failures of racks undid in the tick"),
    per_class("queued_jobs", "released jobs that hold no GPU at the end of the tick"),
    per_class("deferred_jobs", "training jobs not yet released at the end of the tick"),
    per_class("running_jobs", "jobs that hold GPUs at the end of the tick"),
    per_class("backlog_jobs", "queued and deferred jobs at the end of the tick"),
    per_class("pending_work_to", "work left of queued and running jobs at the end of the tick"),
    per_class("deferred_work_to", "work of deferred jobs at the end of the tick"),
    per_class("late_jobs", "training jobs that miss their deadline whatever they are given"),
    per_class("urgent_jobs", "training jobs that can wait for less than an hour and then still make it"),
    Port("slack_min", "out", "time that training could stand still and meet its deadlines, if nine tenths of the GPUs "
         "that inference leaves work on it thereafter and no job on more blocks than it can use",
         sign="< 0: some of it will be late"),
    Port("up_gpus", "out", "GPUs of racks that have not failed at the end of the tick", sign=">= 0"),
    Port("free_gpu_ratio", "out", "share of the GPUs up and not in use at the end of the tick",
         sign="0 to 1"),
    Port("supply_set_degc", "out", "set point of the supply air, within the limits of (24)"),
    Port("supply_temp_degc", "out", "supply air: the set point; of first_order what the plant delivers at the end of "
         "the tick"),
    Port("inlet_degc", "out", "inlet of the hottest rack (19), the highest in the tick"),
    Port("outlet_degc", "out", "mean rack outlet (20) at the mean IT power; of first_order at the end of the tick"),
    Port("return_degc", "out", "return air (21) at the mean IT power; of first_order at the end of the tick"),
    Port("heat_removed_kw", "out", "heat that the plant takes out of the room, mean over the tick", sign=">= 0"),
    Port("heat_imbalance_kw", "out", "heat by (19)-(21) beyond that of IT at the mean IT power (2.7)",
         sign="> 0 is removed and was never given off"),
    Port("inlet_alarm_s", "out", "time of the tick for which an inlet was above its limit (24)", sign=">= 0"),
    Port("tripped", "out", "whether the site sheds its load from now on, an inlet having reached inlet_trip_degc",
         sign="0 or 1"),
    Port("wet_bulb_degc", "out", "outside wet-bulb temperature in the tick", nullable=True),
    Port("dry_bulb_degc", "out", "outside dry-bulb temperature in the tick", nullable=True),
    Port("free_cooling_ratio", "out", "share of the heat that left without the chiller", sign="0 to 1"),
    Port("clipped_commands", "out", "supply temperatures of this tick that were out of limits", sign=">= 0"),
    Port("done_jobs", "out", "jobs finished or dropped in the tick; at the end those still inside",
         kind="event", table="jobs"),
    Port("gpu_runs", "out", "GPUs that training jobs held until some time of the tick, since when; of "
         "inference those lost with a rack, all else is in the jobs' gpus", kind="event", table="gpu_runs"),
    Port("power", "out", "power inside the tick, means over aidc.trace_step_s, where that is set: site, time_s "
         "(begin), p_kw, it_kw, cooling_kw", kind="event", table="power"),
    Port("alarms", "out", "times at which inlets were above their limit (24): site, begin_s, end_s, highest inlet_degc "
         "of the hottest rack, racks above then", kind="event", table="alarms"),
)
