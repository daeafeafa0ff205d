"""The data centers of many environments at once: jobs and commands of a minute in as arrays, what came of them out.

The same model as `facility.Facility` with a static plant, job by job and event by event, in one compiled loop; SimPy's
remains the engine of the bus and of every trace. Fates of jobs, their times, counts, work, GPU time and slack are those
of `Facility` bit for bit, and so are powers (but for server fans, whose cube numpy may round otherwise); tests hold the
two to it.

Axes: B environments, N sites, M classes, in the orders of the parameters; L = B N lanes, site by site in each
environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cosim.errors import ModelError, ScenarioError
from cosim.simulators.aidc.adapter import AidcParams
from cosim.simulators.aidc.compiled.admission import FINE, NO_WORK, NOT_FINITE, NOT_HERE, NOWHERE, TOO_LATE, admit
from cosim.simulators.aidc.compiled.kernel import run, shift
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.aidc.compiled.records import (
    FAILURE,
    LEFT,
    NOBODY,
    READING,
    STOOD_GPUS,
    STOOD_LANE,
    STOOD_SECONDS,
    plain,
    records,
)
from cosim.simulators.aidc.compiled.tables import empty_tables, joined, with_room
from cosim.simulators.aidc.engine.racks import Racks
from cosim.simulators.aidc.equations import (
    aidc_power_kw,
    cooling_power_kw,
    distribution_loss_kw,
    gpu_throughput_to_per_s,
    inlet_factor,
    it_power_kw,
    reactive_power_kvar,
)
from cosim.simulators.aidc.plant.cooling import supply_limits_degc
from cosim.simulators.fleet import may_run
from cosim.units import format_time, whole_steps

_CHANGING = ("sites", "classes", "jobs", "cohorts", "dues", "trainees")
"""Tables that are not made of the parameters alone."""
_FIRST_ROWS = 16
"""Times a lane over which its GPUs in use stand, at the start; they double when they are taken."""


class Jobs(NamedTuple):
    """Jobs that are submitted now, (J,) each: the lane and class they go to, their id within the environment, work in
    TO, and deadline and release in s on the environment's clock. Those of one lane stand in the order in which they
    line up."""

    lane: np.ndarray
    job_class: np.ndarray
    id: np.ndarray
    work_to: np.ndarray
    deadline_s: np.ndarray
    release_s: np.ndarray


@dataclass(frozen=True, slots=True)
class FleetStep:
    """What a step came to; fields as the ports of `DataCenters` with the same names, (B, N) or, per class, (B, N, M).

    done_jobs  with `keep_rows`: a record array of `LEFT` rows, lane by lane; else empty
    """

    p_kw: np.ndarray
    q_kvar: np.ndarray
    it_kw: np.ndarray
    chiller_kw: np.ndarray
    tower_kw: np.ndarray
    loss_kw: np.ndarray
    supply_set_degc: np.ndarray
    free_gpu_ratio: np.ndarray
    slack_min: np.ndarray
    up_gpus: np.ndarray
    clipped_commands: np.ndarray
    work_to: np.ndarray
    busy_gpus: np.ndarray
    granted_gpus: np.ndarray
    received_jobs: np.ndarray
    finished_jobs: np.ndarray
    dropped_jobs: np.ndarray
    finished_work_to: np.ndarray
    missed_work_to: np.ndarray
    failed_work_to: np.ndarray
    queued_jobs: np.ndarray
    deferred_jobs: np.ndarray
    running_jobs: np.ndarray
    pending_work_to: np.ndarray
    deferred_work_to: np.ndarray
    late_jobs: np.ndarray
    urgent_jobs: np.ndarray
    done_jobs: np.ndarray


class CompiledFleet:
    """The sites of `n_envs` environments, each on its own clock, empty at time 0.

    racks: (L,) failures of each lane's racks, where they fail; keep_rows: whether `FleetStep.done_jobs` is filled.
    ScenarioError for parameters that are `unsupported`, and racks that do not go with them.
    """

    def __init__(self, given: AidcParams, n_envs: int, step_s: float = 60.0, keep_rows: bool = False,
                 racks: Sequence[Racks] | None = None) -> None:
        if n_envs < 1:
            raise ScenarioError(f"n_envs = {n_envs} must be >= 1")
        if beyond := unsupported(given):
            raise ScenarioError(f"the compiled fleet cannot do {beyond[0]}; use the fleet on SimPy")
        self.names, self.classes = list(given.sites), list(given.job_classes)
        self.n_envs, self.step_s, self.keep_rows = n_envs, step_s, keep_rows
        self._sites, self._job_classes = list(given.sites.values()), list(given.job_classes.values())
        self._shape = (n_envs, len(self._sites), len(self._job_classes))
        self._lanes = n_envs * len(self._sites)
        if (given.rack_mean_up_s is not None) != (racks is not None) or len(racks or ()) not in (0, self._lanes):
            raise ScenarioError(f"racks that fail: rack_mean_up_s = {given.rack_mean_up_s} and "
                                f"{'no' if racks is None else len(racks)} streams of failures; give one per lane, "
                                f"{self._lanes}, or neither")
        self._racks = list(racks or ())
        self._cooling = [given.site_cooling.get(name, given.cooling) for name in self.names]
        self._limits = np.array([supply_limits_degc(cooling) for cooling in self._cooling]).T
        self._kw_per_to_s = [c.kw_per_to_s for c in self._job_classes]
        self._to_per_gpu_min = np.array([c.to_per_gpu_min for c in self._job_classes])
        self._gpus = np.array([site.gpus for site in self._sites])
        self._blocks = np.array([c.gpus_per_block if c.kind == "train" else 1 for c in self._job_classes])
        self._may = np.array([[may_run(c, name) for c in self._job_classes] for name in self.names])
        ticks = whole_steps(given.window_s, step_s)
        if not ticks:
            raise ScenarioError(f"window_s = {given.window_s:g} is not a whole number of steps ({step_s:g} s)")
        self._window_kw, self._filled = np.zeros((ticks, *self._shape[:2])), np.zeros(n_envs, np.int64)
        self._tables = empty_tables(given.job_classes, given.sites, n_envs)
        self._stood = np.empty((_FIRST_ROWS * self._lanes, STOOD_GPUS + self._shape[2]))

    @property
    def now_s(self) -> np.ndarray:
        """(B,) the environments' times, s."""
        return self._tables.sites["now_s"].reshape(self._shape[:2])[:, 0].copy()

    def step(self, jobs: Jobs, gpus: np.ndarray, supply_temp_degc: np.ndarray,
             going: np.ndarray | None = None) -> FleetStep:
        """Submit, command, run a step, report: `jobs` arrive now, and from now on `gpus` (B, N, M) are granted and the
        supply air has the set point in degC (B, N). going (B,): environments that take the step, None: all; rows of
        others are not used.

        Raises ModelError as `commands.admitted` and `commands.whole_grants` do. A supply temperature outside its limits
        is clipped and counted.
        """
        arrivals, arrive, arriving = self._admitted(jobs)
        grants, supply = self._whole_grants(np.asarray(gpus)), np.asarray(supply_temp_degc, np.float64)
        if not np.isfinite(supply).all():
            raise ModelError("supply_temp_degc holds a number that is not finite")
        applied = np.minimum(np.maximum(supply, self._limits[0]), self._limits[1])
        begin_s, lanes = self._tables.sites["now_s"].copy(), self._lanes
        failures, fail = self._failures(begin_s + self.step_s)
        self._tables = tables = with_room(self._tables, arriving, int(np.diff(fail).max(initial=0)))
        inside = (tables.sites["jobs"].sum() + tables.classes["active"].sum() + tables.classes["deferred"].sum()
                  + len(arrivals))
        left = np.empty(int(inside) if self.keep_rows else 0, LEFT)
        readings, slack_min = np.empty((lanes, self._shape[2]), READING), np.empty(lanes)
        goes = np.ones(lanes, bool) if going is None else np.repeat(going, self._shape[1])
        self._stood, count, rows = run(tables, goes, arrivals, arrive, grants, failures, fail, begin_s + self.step_s,
                                       left, self._stood, readings, slack_min)
        powers = self._powers(self._stood[:count], applied)
        going = np.ones(self.n_envs, bool) if going is None else going
        return self._report(going, readings, slack_min, applied, applied != supply, powers, left[:rows])

    def window(self, env: int, site: int) -> tuple[float, float] | None:
        """`p_window_kw` and `q_window_kvar` of a site of an environment; None before its first step."""
        steps = min(int(self._filled[env]), len(self._window_kw))
        if not steps:
            return None
        p_kw = math.fsum(self._window_kw[:steps, env, site].tolist()) / steps
        return p_kw, reactive_power_kvar(p_kw, self._sites[site].q_per_p_ratio)

    def shift(self, envs: np.ndarray, jobs_before: np.ndarray, racks: Sequence[Racks] | None = None) -> None:
        """Begin a new day in some environments: their clocks are set to 0, and ids to below 0 by taking off
        `jobs_before`, one more than the largest so far; everything else goes on. What `DataCenters.carry` and `resume`
        do. racks: of their lanes, as new days have failures of their own."""
        n = self._shape[1]
        numbers = (np.asarray(envs)[:, None] * n + np.arange(n)).ravel()
        shift(self._tables, numbers, np.repeat(jobs_before, n), np.empty(0, LEFT))
        for lane, of_lane in zip(numbers, racks or (), strict=False):
            of_lane.resume(self._racks[lane].down, 0.0)
            self._racks[lane] = of_lane

    def state(self) -> list[dict[str, np.ndarray]]:
        """All that each environment goes on from, as arrays of plain numbers; failures of racks are their owner's."""
        n = self._shape[1]
        return [{name: plain(getattr(self._tables, name)[b * n:(b + 1) * n]) for name in _CHANGING}
                | {"window_kw": self._window_kw[:, b].copy(), "filled": self._filled[b].copy()}
                for b in range(self.n_envs)]

    def restore(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from what environments of the same parameters gave as their `state`."""
        kinds = {name: getattr(self._tables, name).dtype for name in _CHANGING}
        self._tables = joined([{name: records(state[name], kind) for name, kind in kinds.items()} for state in states],
                              self._tables)
        self._window_kw = np.stack([state["window_kw"] for state in states], axis=1)
        self._filled = np.array([int(state["filled"]) for state in states])

    # --- what comes from outside --------------------------------------------------------------------------------

    def _admitted(self, jobs: Jobs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `admission.admit`; ModelError for a job that may not be."""
        columns = [np.asarray(column).astype(kind, casting="same_kind", copy=False)
                   for column, kind in zip(jobs, (np.int64,) * 3 + (np.float64,) * 3, strict=True)]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            raise ModelError(f"columns of the jobs have shapes {[column.shape for column in columns]}; all (J,)")
        rows, first, arriving, k, wrong = admit(*columns, self._tables.sites, self._tables.facts, self._may)
        if wrong == NOWHERE:
            raise ModelError(f"a job for lane {columns[0][k]} of class {columns[1][k]}; there are {self._lanes} lanes "
                             f"and {self._shape[2]} classes")
        if wrong != FINE:
            why = {NOT_FINITE: f"has work_to = {columns[3][k]}, deadline_s = {columns[4][k]}, release_s = "
                               f"{columns[5][k]}; finite numbers only",
                   NO_WORK: f"has work_to = {columns[3][k]:g}; it must be positive",
                   NOT_HERE: "may not run here",
                   TOO_LATE: f"has release_s = {columns[5][k]:g}, later than now; inference is not deferred"}[wrong]
            raise ModelError(f"{self._where(columns[0][k])}: job {columns[2][k]} of class "
                             f"'{self.classes[columns[1][k]]}' {why}")
        return rows, first, arriving

    def _where(self, lane: int) -> str:
        env, site = divmod(int(lane), self._shape[1])
        return f"environment {env}, {self.names[site]}, {format_time(self._tables.sites['now_s'][lane])}"

    def _whole_grants(self, gpus: np.ndarray) -> np.ndarray:
        if gpus.shape != self._shape:
            raise ModelError(f"GPU grants have shape {gpus.shape}, not {self._shape}: environments, sites, classes")
        whole = np.where(np.isfinite(gpus), gpus, -1).astype(np.int64)
        bad = (whole != gpus) | (whole < 0) | (whole % self._blocks != 0)
        if bad.any():
            b, n, m = np.argwhere(bad)[0]
            raise ModelError(f"{self._where(b * self._shape[1] + n)}: {gpus[b, n, m]} GPUs granted to "
                             f"'{self.classes[m]}'; a whole number >= 0, of training a multiple of {self._blocks[m]}")
        if (over := whole.sum(axis=2) > self._gpus).any():
            b, n = np.argwhere(over)[0]
            raise ModelError(f"{self._where(b * self._shape[1] + n)}: {whole[b, n].sum()} GPUs granted in sum; the "
                             f"site has {self._gpus[n]}")
        return whole.reshape(self._lanes, -1)

    def _failures(self, to_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Racks that fail or are repaired until `to_s` (L,), lane by lane, and where those of each lane begin."""
        rows, fail = [], np.zeros(self._lanes + 1, np.int64)
        for lane, racks in enumerate(self._racks):
            site = self._sites[lane % self._shape[1]]
            while racks.next_s <= to_s[lane]:
                time_s, place = racks.next_s, racks.change()
                rows.append((time_s, NOBODY if place is None else place, site.gpus - racks.down * site.gpus_per_rack))
            fail[lane + 1] = len(rows)
        return np.array(rows, FAILURE), fail

    # --- what comes of it ---------------------------------------------------------------------------------------

    def _powers(self, stood: np.ndarray, supply: np.ndarray) -> np.ndarray:
        """(4, B, N) mean IT, chiller and tower power, and losses, kW."""
        lanes, out = stood[:, STOOD_LANE].astype(np.int64), np.zeros((4, self._lanes))
        site = lanes % self._shape[1]
        for cooling in dict.fromkeys(self._cooling):
            mine = np.flatnonzero(np.array([c == cooling for c in self._cooling])[site])
            lane, seconds, gpus = lanes[mine], stood[mine, STOOD_SECONDS], stood[mine, STOOD_GPUS:]
            idle_kw = np.array([s.idle_kw for s in self._sites])[site[mine]]
            throughput = gpu_throughput_to_per_s(gpus, self._to_per_gpu_min).T
            degc = supply.ravel()[lane]
            it_kw = it_power_kw(idle_kw, list(throughput), self._kw_per_to_s) * inlet_factor(degc, cooling)
            _, chiller_kw, tower_kw = cooling_power_kw(it_kw, degc, cooling)
            for row, kw in zip(out, (it_kw, chiller_kw, tower_kw, distribution_loss_kw(it_kw, cooling)), strict=True):
                row += np.bincount(lane, kw * seconds, self._lanes)
        return (out / self.step_s).reshape(4, *self._shape[:2])

    def _report(self, going: np.ndarray, readings: np.ndarray, slack_min: np.ndarray, supply: np.ndarray,
                clipped: np.ndarray, powers: np.ndarray, left: np.ndarray) -> FleetStep:
        shape, tables = self._shape, self._tables
        classes, now = tables.classes.reshape(shape), readings.reshape(shape)
        it_kw, chiller_kw, tower_kw, loss_kw = powers
        p_kw = aidc_power_kw(it_kw, chiller_kw + tower_kw) + loss_kw
        env = np.flatnonzero(going)
        self._window_kw[self._filled[env] % len(self._window_kw), env] = p_kw[env]
        self._filled[env] += 1
        ratio = np.array([site.q_per_p_ratio for site in self._sites])
        up = tables.sites["up_gpus"].reshape(shape[:2])
        busy = classes["busy_gpus"].sum(axis=2)
        free = np.maximum(1.0 - busy / self._gpus - (self._gpus - up) / self._gpus, 0.0)
        busy_gpu_s = classes["busy_gpu_s"]
        return FleetStep(
            p_kw, reactive_power_kvar(p_kw, ratio), it_kw, chiller_kw, tower_kw, loss_kw, supply, free,
            slack_min.reshape(shape[:2]), up.copy(), clipped,
            gpu_throughput_to_per_s(busy_gpu_s, self._to_per_gpu_min) + classes["trim_to"], busy_gpu_s / self.step_s,
            classes["granted_gpus"].copy(), classes["received"].copy(), classes["finished"].copy(),
            classes["dropped"].copy(), classes["finished_to"].copy(), classes["missed_to"].copy(),
            classes["failed_to"].copy(), now["queued"], now["deferred"], now["running"], now["pending_to"],
            now["deferred_to"], now["late"], now["urgent"], left)
