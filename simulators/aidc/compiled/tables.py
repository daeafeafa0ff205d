"""The arrays of the compiled fleet: allocated, and enlarged.

Raises nothing: whatever comes finds room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosim.simulators.aidc.compiled.records import (
    CLASS,
    COHORT,
    DUE,
    FACT,
    JOB,
    NOBODY,
    SITE,
    TRAINEE,
    Tables,
)
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.fleet import JobClass, Site

_FIRST = 16
"""Places at the start; they double when they are taken."""


def empty_tables(job_classes: Mapping[str, JobClass], sites: Mapping[str, Site], n_envs: int) -> Tables:
    """Of `n_envs` environments without jobs, at time 0, nothing granted."""
    classes = list(job_classes.values())
    lanes, most = n_envs * len(sites), max(c.max_blocks for c in classes)
    trains = sum(c.kind == "train" for c in classes)
    speeds = np.zeros((2, len(classes), most + 1))
    for m, c in enumerate(classes):
        block_to_per_s = gpu_throughput_to_per_s(c.gpus_per_block, c.to_per_gpu_min)
        for k in range(c.max_blocks + 1):
            speeds[:, m, k] = c.speed_to_per_s(k), k * block_to_per_s - c.speed_to_per_s(k)
    tables = Tables(
        np.zeros(lanes, SITE), np.zeros((lanes, len(classes)), CLASS), _facts(classes, list(sites.values()), speeds[1]),
        speeds, np.zeros((lanes, 0), JOB), np.zeros((lanes, 0), COHORT),
        np.zeros((lanes, len(classes) - trains, 0), DUE), np.zeros((lanes, trains, 0), TRAINEE))
    of_site, of_class = tables.sites, tables.classes
    of_site["alarm_s"] = np.inf
    of_site["free_job"] = of_site["free_cohort"] = NOBODY
    of_site["up_gpus"] = np.tile([site.gpus for site in sites.values()], n_envs)
    of_site["rack_gpus"] = np.tile([site.gpus_per_rack for site in sites.values()], n_envs)
    for name in ("head", "tail", "first", "last"):
        of_class[name] = NOBODY
    of_class["next_s"] = of_class["look_s"] = np.inf
    of_class["tail_s"] = of_class["counted_s"] = -np.inf
    of_class["ordered"] = 1
    return tables


def with_room(tables: Tables, arriving: np.ndarray, failures: int = 0) -> Tables:
    """The same, with room for so many more jobs per lane and class (L, M), and for so many failures of racks at most in
    one lane."""
    classes, train = tables.classes, tables.facts["train"][0] == 1
    new_jobs = arriving[:, ~train].sum(axis=1)
    inside = int((tables.sites["jobs"] + new_jobs).max(initial=0))
    at_once = int((tables.facts["site_gpus"] // tables.facts["gpus_per_block"])[:, ~train].max(initial=0))
    changed: dict[str, np.ndarray] = {}
    if inside > tables.jobs.shape[1]:
        changed["jobs"] = _linked(tables.jobs, inside, tables.sites["free_job"])
    running = min(inside, at_once)
    if running > tables.cohorts.shape[1]:
        changed["cohorts"] = _linked(tables.cohorts, running, tables.sites["free_cohort"])
    dues = int((classes["dues"] + classes["queued"] + arriving)[:, ~train].max(initial=0)) + failures * at_once
    if dues > tables.dues.shape[2]:
        changed["dues"] = _longer(tables.dues, _more(tables.dues, dues))
    training = int((classes["active"] + classes["deferred"] + arriving)[:, train].max(initial=0))
    if training > tables.trainees.shape[2]:
        changed["trainees"] = _more_trainees(tables, training, train)
    return tables._replace(**changed) if changed else tables


def joined(rows: Sequence[Mapping[str, np.ndarray]], like: Tables) -> Tables:
    """Tables of environments one after the other, each with the room that the roomiest has; rows: per environment, its
    part of the tables that change; like: the others."""
    room = {name: max(of_env[name].shape[-1] for of_env in rows) for name in ("jobs", "cohorts", "dues", "trainees")}
    train, found = like.facts["train"][0] == 1, []
    for of_env in rows:
        own = like._replace(**of_env)
        changed: dict[str, np.ndarray] = {"dues": _longer(own.dues, room["dues"])}
        for name, free in (("jobs", "free_job"), ("cohorts", "free_cohort")):
            if own._asdict()[name].shape[1] < room[name]:
                changed[name] = _linked(getattr(own, name), room[name], own.sites[free])
        if own.trainees.shape[2] < room["trainees"]:
            changed["trainees"] = _more_trainees(own, room["trainees"], train)
        found.append(own._replace(**changed))
    return like._replace(**{name: np.concatenate([getattr(own, name) for own in found]) for name in rows[0]})


def _facts(classes: list[JobClass], sites: list[Site], lost: np.ndarray) -> np.ndarray:
    facts = np.zeros((len(sites), len(classes)), FACT)
    for n, site in enumerate(sites):
        numbers = {"train": 0, "inf": 0}
        for m, c in enumerate(classes):
            fact = facts[n, m]
            fact["train"], fact["place"], fact["site_gpus"] = c.kind == "train", numbers[c.kind], site.gpus
            numbers[c.kind] += 1
            fact["gpus_per_block"], fact["max_blocks"] = c.gpus_per_block, c.max_blocks
            fact["most"], fact["by_laxity"] = c.most_blocks(site.gpus), c.order == "llf"
            fact["to_per_s"] = gpu_throughput_to_per_s(c.gpus_per_block, c.to_per_gpu_min)
            fact["top_to_per_s"] = c.top_to_per_s(site.gpus)
            fact["gpu_s_per_to"] = c.gpus_per_block / c.speed_to_per_s(1)
            fact["restart_s"] = c.restart_s
            fact["cycle_s"] = (c.checkpoint_interval_s or 0.0) + c.checkpoint_cost_s
            fact["loses"] = bool(lost[m].any()) or c.restart_s > 0.0
    return facts


def _more(table: np.ndarray, least: int) -> int:
    """How many places a table gets that needs so many at least."""
    count = max(table.shape[-1], _FIRST)
    while count < least:
        count *= 2
    return count


def _longer(table: np.ndarray, count: int) -> np.ndarray:
    longer = np.zeros((*table.shape[:-1], count), table.dtype)
    longer[..., :table.shape[-1]] = table
    return longer


def _linked(table: np.ndarray, least: int, first_free: np.ndarray) -> np.ndarray:
    """A longer table (L, C), its new places before the free ones that there were."""
    old, count = table.shape[1], _more(table, least)
    longer = _longer(table, count)
    longer["after"][:, old:] = np.arange(old + 1, count + 1)
    longer["after"][:, -1] = first_free
    first_free[:] = old
    return longer


def _more_trainees(tables: Tables, least: int, train: np.ndarray) -> np.ndarray:
    """A longer table (L, Mtrain, C), its new places behind the free ones that there were."""
    old, count = tables.trainees.shape[2], _more(tables.trainees, least)
    longer = _longer(tables.trainees, count)
    taken = (tables.classes["active"] + tables.classes["deferred"])[:, train]
    at = (old - taken)[..., None] + np.arange(count - old)
    np.put_along_axis(longer["spare"], at, np.broadcast_to(np.arange(old, count), at.shape), axis=2)
    return longer
