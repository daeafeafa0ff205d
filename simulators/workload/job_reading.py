"""Reading a table of jobs of any known layout: its cells on their way to numbers, and which rows are no jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np

from cosim.errors import ScenarioError, listed
from cosim.simulators.workload.job_columns import NAMES, UNIT_S, JobColumns, Role, layout_of
from cosim.simulators.workload.job_files import JobCells, read_cells
from cosim.simulators.workload.job_log import JobLog
from cosim.simulators.workload.job_values import (
    Times,
    attempts_gpu_s,
    count,
    durations,
    is_missing,
    state_of,
    times,
    tres_gpus,
)
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, SkippedRows
from cosim.tables.dates import zone_of
from cosim.units import LONGEST_S

_AGREE_RATIO = 0.02
_MOST = (("time", LONGEST_S), ("GPUs", 1e6), ("GPU time in s", 1e11), ("work in TO", 1e14), ("tokens", 1e9),
         ("time until its deadline in s", LONGEST_S))
"""What of a job is read, and the largest of it."""
_THERE_AT_FIRST = "Alibaba GPU trace of 2025"


def read_job_log(path: str, given: Mapping[Role, str] | None = None, time_zone: str | None = None,
                 deadlines: str = "auto", completed_only: bool = False, max_left_out_ratio: float = LEFT_OUT_RATIO
                 ) -> JobLog:
    """The jobs of a file.

    given         role -> column, where a name is not known; time_zone: IANA name of dates without an offset
    deadlines     'at': instants, 'after': times after the arrival, 'auto': dates are instants, numbers are
                  instants where arrivals are numbers and none of them is before its job's, times after it else
    completed_only   only jobs that ended well; else all that ran, whatever became of them

    No jobs, and counted: rows that used no GPU, that never ran, parts of other rows. Left out, and more than
    `max_left_out_ratio` of them refused: what cannot be read, and rows that do not state what they used. ScenarioError
    for a file that cannot be read, an unknown layout, or one without a job.
    """
    zone = zone_of(time_zone, "workload.time_zone")
    layout: list[JobColumns] = []

    def choose(names: Sequence[str]) -> set[str]:
        layout.append(layout_of(names, path, given))
        return set(layout[0].columns.values())

    cells = read_cells(path, choose)
    columns = layout[0] if layout else _fixed(cells)
    return _Reading(path, cells, columns, zone, deadlines, completed_only, max_left_out_ratio).log()


def _fixed(cells: JobCells) -> JobColumns:
    """The roles in files whose form has them."""
    if cells.layout == "Philly":
        return JobColumns("Philly", {"id": "jobid", "arrival": "submitted_time", "state": "status", "gpus": "gpus",
                                     "gpu_seconds": "attempts"}, {}, ("vc", "user"))
    return JobColumns(cells.layout, {"id": "job", "job_class": "queue", "arrival": "submit", "run": "run",
                                     "gpus": "processors", "state": "status"}, {}, ())


class _Reading:
    """One file on its way from cells to numbers."""

    def __init__(self, path: str, cells: JobCells, columns: JobColumns, zone: ZoneInfo | None, deadlines: str,
                 completed_only: bool, max_left_out_ratio: float) -> None:
        self.path, self.cells, self.columns = path, cells, columns
        self.deadlines, self.completed_only, self.most = deadlines, completed_only, max_left_out_ratio
        self.rows, self.lost = len(cells.line), cells.left_out.rows + sum(cells.not_jobs.values())
        self.alive = np.ones(self.rows, bool)
        self.not_jobs: Counter[str] = Counter(cells.not_jobs)
        self.left_out: SkippedRows = cells.left_out
        self.taken: dict[Role, str] = {}
        self.doubts: list[str] = []
        zones = self._texts("time_zone")
        known = {text: zone_of(text.strip(), f"{path}: {columns.columns.get('time_zone')}") for text in set(zones)
                 if not is_missing(text)}
        self.zones = [known.get(text, zone) for text in zones] if zones else [zone] * self.rows

    # --- what a caller gets -------------------------------------------------------------------------------------

    def log(self) -> JobLog:
        """All of it, in order of arrival."""
        self._steps()
        arrival = self._arrival()
        state = self._states()
        gpus = self._gpus()
        run_s, ends = self._run_s(arrival)
        self._no_gpu_and_never_ran(gpus, run_s)
        self._no_arrival(arrival, ends)
        gpu_s, work_to, tokens = self._work(gpus, run_s)
        due = self._deadline(arrival)
        self._impossible(arrival.at_s, gpus, gpu_s, work_to, tokens.max(axis=1), due - arrival.at_s)
        self._left(state)
        order = np.flatnonzero(self.alive)
        order = order[np.argsort(arrival.at_s[order], kind="stable")]
        total = self.rows + self.lost
        if not len(order):
            raise ScenarioError(f"{self._line(total, 0)}: no row of it is a job")
        self.left_out.check(self.path, total, self.most)
        names = self._texts("id") or [f"row {n}" for n in self.cells.line]
        log = JobLog([names[k].strip() for k in order], self._of("job_class", order), self._of("priority", order),
                     self._of("origin", order), arrival.at_s[order], arrival.dated, gpus[order], gpu_s[order],
                     work_to[order], tokens[order], due[order], self.columns.layout, self._line(total, len(order)),
                     self.doubts)
        self._doubt(log)
        return log

    # --- columns ------------------------------------------------------------------------------------------------

    def _texts(self, role: Role) -> list[str]:
        column = self.columns.columns.get(role)
        return [] if column is None else self.cells.cells[column]

    def _of(self, role: Role, order: np.ndarray) -> list[str]:
        texts = self._texts(role)
        if texts and role not in self.taken:
            self.taken[role] = ""
        return [texts[k].strip() for k in order] if texts else [""] * len(order)

    def _arrival(self) -> Times:
        unit = self.columns.units.get("arrival", "")
        if self.columns.layout == "Mooncake" and not unit:
            unit = "ms"
        found = times(self._texts("arrival"), unit, self.zones)
        self._wrong(found.wrong)
        self.taken["arrival"] = found.said
        if found.unzoned and not found.unit:
            self.doubts.append(f"{found.unzoned} times without an offset are read as UTC; --set workload.time_zone="
                               "NAME (Asia/Shanghai, or UTC) says what they are")
        self.count_unit = found.unit
        return found

    def _other_times(self, role: Role, arrival: Times) -> np.ndarray | None:
        """Another column of times, on the arrival's scale; None where there is none, or it is of another kind."""
        if role not in self.columns.columns:
            return None
        if self.columns.columns[role] == self.columns.columns["arrival"]:
            return arrival.at_s
        found = times(self._texts(role), self.columns.units.get(role, "" if arrival.dated else arrival.unit),
                      self.zones)
        if np.isfinite(found.at_s).any() and found.dated != arrival.dated:
            raise ScenarioError(f"{self.path}: {self.columns.columns['arrival']} has {arrival.said}, and "
                                f"{self.columns.columns[role]} {found.said}; write both alike")
        self._wrong(found.wrong)
        self.taken[role] = found.said
        return found.at_s

    def _run_s(self, arrival: Times) -> tuple[np.ndarray, np.ndarray | None]:
        """(how long jobs ran, s, NaN where that is not known; when they ended)."""
        run_s = np.full(self.rows, np.nan)
        if "run" in self.columns.columns:
            unit = self.columns.units.get("run", "")
            if self.count_unit in ("ms", "us", "ns") and unit in ("", "s"):
                self.doubts.append(f"{self.columns.columns['run']} is taken in {self.count_unit}, as the times of "
                                   f"{self.columns.columns['arrival']} are; rename it (duration_s) if it is not")
                unit = self.count_unit
            run_s, wrong = durations(self._texts("run"), unit)
            self._wrong(wrong)
            self.taken["run"] = unit or "s"
        begin, end = self._other_times("start", arrival), self._other_times("end", arrival)
        if begin is None or end is None:
            return run_s, end
        if self.columns.layout == _THERE_AT_FIRST:
            self._there_at_first(arrival, begin, end)
        between = end - begin
        unknown = np.isnan(run_s)
        if (unknown & (between < 0.0)).any():
            self._wrong({int(k): "it ends before it begins" for k in np.flatnonzero(unknown & (between < 0.0))})
        return np.where(unknown, between, run_s), end

    def _there_at_first(self, arrival: Times, begin: np.ndarray, end: np.ndarray) -> None:
        """Of this trace an empty begin means that it was there at the first instant, an empty end at the last one."""
        known = np.concatenate([arrival.at_s, begin, end])
        last_s = float(np.nanmax(known)) if np.isfinite(known).any() else 0.0
        early, late = np.isnan(arrival.at_s), np.isnan(end)
        for values, where, value in ((arrival.at_s, early, 0.0), (begin, np.isnan(begin), 0.0), (end, late, last_s)):
            values[where] = value
        self.doubts.append(f"{early.sum()} instances without a creation_time were there when the trace began, and "
                           f"count from then on; {late.sum()} without a deletion_time count until its end")

    def _gpus(self) -> np.ndarray:
        """GPUs of each job; NaN where that is not known or there is no such column."""
        gpus = np.full(self.rows, np.nan)
        for k, text in enumerate(self._texts("gpus")):
            value = tres_gpus(text) if self.columns.tres else count(text)
            if value is not None:
                gpus[k] = value
            elif self.alive[k] and not is_missing(text):
                self._drop(k, "malformed", f"{self.columns.columns['gpus']} is '{text.strip()}', no number >= 0")
        if "gpus" in self.columns.columns:
            unknown = np.flatnonzero(np.isnan(gpus) & self.alive)
            for row in unknown.tolist():
                self._drop(row, "of unknown GPUs", f"{self.columns.columns['gpus']} is empty")
            self.taken["gpus"] = ""
        if self.columns.percent:
            gpus, self.taken["gpus"] = gpus / 100.0, "% of one"
        if self.columns.tres:
            self.taken["gpus"] = "gres/gpu"
        return gpus * self._times("gpu_milli", 1e-3) * self._times("instances", 1.0)

    def _times(self, role: Role, factor: float) -> np.ndarray:
        """What GPUs are multiplied by; 1 without such a column, or in its empty cells."""
        texts = self._texts(role)
        if not texts:
            return np.ones(self.rows)
        self.taken[role] = "times gpus"
        found = [1.0 / factor if is_missing(text) else count(text) for text in texts]
        self._wrong({k: f"{self.columns.columns[role]} is '{texts[k]}'" for k, value in enumerate(found)
                     if value is None})
        return np.array([np.nan if value is None else value * factor for value in found])

    def _work(self, gpus: np.ndarray, run_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """GPU time, work and tokens; the first of them that a row has counts."""
        nothing = np.full(self.rows, np.nan)
        work_to, gpu_s, tokens = self._numbers("work_to", "TO"), nothing.copy(), np.full((self.rows, 2), np.nan)
        if self.cells.layout == "Philly":
            gpu_s = self._philly()
        elif "gpu_seconds" in self.columns.columns:
            unit = self.columns.units.get("gpu_seconds", "s")
            gpu_s = self._numbers("gpu_seconds", f"GPU {unit}") * UNIT_S[unit]
        held = run_s * np.where(np.isnan(gpus), 1.0, gpus)
        self._agree(gpu_s, held)
        gpu_s = np.where(np.isnan(gpu_s), held, gpu_s)
        if "tokens" in self.columns.columns:
            tokens[:, 1] = self._numbers("tokens", "all counted as output")
            tokens[:, 0] = np.where(np.isnan(tokens[:, 1]), np.nan, 0.0)
        else:
            tokens[:, 0], tokens[:, 1] = self._numbers("input_tokens", ""), self._numbers("output_tokens", "")
            one = np.isfinite(tokens).any(axis=1)
            tokens[one] = np.nan_to_num(tokens[one])
        if self.columns.layout == "BurstGPT":
            self._count(tokens[:, 1] == 0.0, "that failed (no answer)")
        by_tokens = np.isnan(work_to) & np.isnan(gpu_s)
        tokens[~by_tokens] = np.nan
        gpu_s[np.isfinite(work_to)] = np.nan
        nothing_at_all = (work_to == 0.0) | (gpu_s == 0.0) | (np.nansum(tokens, axis=1) == 0.0) & np.isfinite(
            tokens).all(axis=1)
        self._count(self.alive & nothing_at_all, "of no work (0)")
        for k in np.flatnonzero(self.alive & by_tokens & np.isnan(tokens).any(axis=1)):
            self._drop(int(k), "of unknown work", "it says neither its work nor how long it ran")
        return gpu_s, work_to, tokens

    def _agree(self, gpu_s: np.ndarray, held: np.ndarray) -> None:
        both = self.alive & np.isfinite(gpu_s) & np.isfinite(held) & (held > 0.0) & (self.cells.layout != "Philly")
        off = both & (np.abs(gpu_s - held) > _AGREE_RATIO * held)
        if off.any() and "gpus" in self.columns.columns:
            line = self.cells.line[int(np.flatnonzero(off)[0])]
            self.doubts.append(f"{self.columns.columns['gpu_seconds']} is not run time x GPUs in {off.sum()} rows (the "
                               f"first is line {line}); {self.columns.columns['gpu_seconds']} counts")

    def _philly(self) -> np.ndarray:
        """GPU time of all attempts; NaN where one of them lacks its begin or end."""
        out = np.array([attempts_gpu_s(text) for text in self.cells.cells["attempts"]])
        self._count(out == 0.0, "that never ran")
        for k in np.flatnonzero(self.alive & ~(out >= 0.0)):
            self._drop(int(k), "of unknown GPU time", "an attempt has no begin or no end")
        self.taken["gpu_seconds"] = "sum over attempts"
        return out

    def _numbers(self, role: Role, said: str) -> np.ndarray:
        texts = self._texts(role)
        found = np.full(self.rows, np.nan)
        for k, text in enumerate(texts):
            if is_missing(text):
                continue
            value = count(text)
            if value is None:
                self._wrong({k: f"{self.columns.columns[role]} is '{text.strip()}', which is no number >= 0"})
            else:
                found[k] = value
        if texts:
            self.taken[role] = said
        return found

    def _deadline(self, arrival: Times) -> np.ndarray:
        if "deadline" not in self.columns.columns:
            return np.full(self.rows, np.nan)
        texts = self._texts("deadline")
        unit = self.columns.units.get("deadline", "")
        found = times(texts, unit, self.zones)
        at, kind = found.at_s, self.deadlines
        if kind == "auto":
            late = at[self.alive] >= arrival.at_s[self.alive]
            instants = found.dated or (not arrival.dated and bool(late[np.isfinite(at[self.alive])].all()))
            kind = "at" if instants else "after"
        if kind == "at" and found.dated != arrival.dated:
            raise ScenarioError(f"{self.path}: {self.columns.columns['deadline']} has {found.said} and "
                                f"{self.columns.columns['arrival']} {arrival.said}; --set workload.deadlines=after if "
                                "they are times after the arrival")
        if kind == "after":
            after, wrong = durations(texts, unit)
            at, found = arrival.at_s + after, replace(found, wrong=wrong, said=unit or "s")
        self._wrong(found.wrong)
        due = self.alive & (at <= arrival.at_s)
        for k in np.flatnonzero(due):
            self._drop(int(k), "due before they arrive", f"{self.columns.columns['deadline']} is '{texts[k].strip()}'")
        self.taken["deadline"] = f"{found.said}, {'as an instant' if kind == 'at' else 'after the arrival'}"
        return at

    # --- rows that are no jobs ----------------------------------------------------------------------------------

    def _steps(self) -> None:
        """Steps of Slurm's jobs (12.batch), which are in the lines of their jobs, and Philly's without attempts."""
        if self.columns.layout.startswith("Slurm"):
            self._count(np.array(["." in text for text in self._texts("id")], bool), "steps of jobs")
        if self.cells.layout == "Philly":
            never = [not text for text in self._texts("gpu_seconds")]
            self._count(np.array(never, bool), "that never ran (no attempt)")

    def _states(self) -> list[str]:
        texts = self._texts("state")
        if texts:
            self.taken["state"] = ""
        return [state_of(text) for text in texts]

    def _no_gpu_and_never_ran(self, gpus: np.ndarray, run_s: np.ndarray) -> None:
        self._count(self.alive & (gpus == 0.0), "without GPUs")
        self._count(self.alive & (run_s == 0.0), "that never ran (no run time)")
        if "start" in self.columns.columns and "run" not in self.columns.columns:
            begun = np.array([not is_missing(text) for text in self._texts("start")], bool)
            if self.columns.layout != _THERE_AT_FIRST:
                self._count(self.alive & ~begun, "that never ran (no start)")
        if "run" in self.columns.columns or "end" in self.columns.columns:
            given = np.zeros(self.rows, bool)
            for role in ("work_to", "gpu_seconds", "tokens", "input_tokens"):
                given |= np.array([not is_missing(text) for text in self._texts(role)] or [False] * self.rows, bool)
            for k in np.flatnonzero(self.alive & np.isnan(run_s) & ~given):
                self._drop(int(k), "of unknown run time", "it says neither how long it ran nor when it ended")

    def _no_arrival(self, arrival: Times, ends: np.ndarray | None) -> None:
        for k in np.flatnonzero(self.alive & np.isnan(arrival.at_s)):
            self._drop(int(k), "without arrival", f"{self.columns.columns['arrival']} is empty")

    def _impossible(self, *values: np.ndarray) -> None:
        """Rows with figures that no job has, most likely in another unit."""
        for (what, most), found in zip(_MOST, values, strict=True):
            for k in np.flatnonzero(self.alive & (np.abs(found) > most)):
                self._drop(int(k), "malformed", f"its {what}, {found[k]:.3g}, is beyond {most:g}")

    def _left(self, state: Sequence[str]) -> None:
        """What became of the jobs there: all that ran count, or those alone that ended well."""
        if not state:
            return
        kinds = Counter(kind for kind, here in zip(state, self.alive, strict=True) if here and kind != "completed")
        if self.completed_only:
            self._count(self.alive & np.array([kind != "completed" for kind in state], bool), "that did not complete")
        elif kinds:
            self.doubts.append(f"{', '.join(f'{n} {kind}' for kind, n in kinds.items())} jobs count with the GPU time "
                               "they had; --set workload.completed_only=true leaves them out")

    def _count(self, which: np.ndarray, what: str) -> None:
        which = which & self.alive
        if which.any():
            self.not_jobs[what] += int(which.sum())
            self.alive &= ~which

    def _wrong(self, wrong: Mapping[int, str]) -> None:
        for k, what in wrong.items():
            if self.alive[k]:
                self._drop(k, "malformed", what)

    def _drop(self, k: int, kind: str, what: str) -> None:
        self.alive[k] = False
        self.left_out.add(kind, self.cells.line[k], what)

    # --- for people ---------------------------------------------------------------------------------------------

    def _line(self, total: int, jobs: int) -> str:
        """What was taken as what, column by column, and which rows are no jobs."""
        roles = [role for role in NAMES if role in self.columns.columns]
        parts = []
        for role in roles:
            said = self.taken.get(role, "")
            parts.append(f"{role} = {self.columns.columns[role]}" + (f" ({said})" if said else ""))
        text = f"{self.path} is read as {self.columns.layout} ({self.cells.form}): {', '.join(parts)}"
        if self.columns.unused:
            text += f"; without use: {listed(self.columns.unused)}"
        out = [f"{n} {what}" for what, n in self.not_jobs.items()]
        if self.left_out.rows:
            out.append(self.left_out.about())
        return f"{text}; rows: {total}, jobs: {jobs}" + (f", no jobs: {', '.join(out)}" if out else "")

    def _doubt(self, log: JobLog) -> None:
        twice = [name for name, n in Counter(log.name).items() if n > 1]
        if twice:
            log.doubts.append(f"{len(twice)} ids stand in several rows ('{twice[0]}'); each row is a job")
        if "gpus" not in self.columns.columns and np.isfinite(log.gpu_s).any():
            log.doubts.append("no column of GPUs: every job had one")
        if any(log.priority):
            log.doubts.append(f"{self.columns.columns['priority']} has no effect: sites serve in the order of "
                              "deadlines and arrivals; it stays in the table of the jobs' names")
