"""Reading traces of batch jobs on GPU clusters, row by row: openb CSV, Standard Workload Format, CSV by a column map.

What is taken from a row is when the task was submitted and the GPU time it then took, GPUs x seconds. Files are read as
a stream: of millions of rows `BUFFER_ROWS` are in memory at a time, which is also how far rows may be out of order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappushpop
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

from cosim.errors import ScenarioError
from cosim.simulators.workload.layouts import OPENB_COLUMNS, Row, TaskColumns, mapped, openb, swf
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, SkippedRows, delimited, gap_note, likely_unit
from cosim.tables.files import open_text, parquet_rows, table_suffix
from cosim.units import DAY_S, MIN_S

BUFFER_ROWS = 65536

Format = Literal["openb", "swf", "csv"]

Task = tuple[float, float]
"""Time of submission in the file's own count, s, and GPU time, GPU s (> 0)."""

_LONGEST_MEAN_S, _LONG_MEAN_S = 60 * DAY_S, 2 * DAY_S
"""Tasks that run longer on average are none; that run longer are rare."""


@dataclass(slots=True)
class Survey:
    """What became of the rows read so far.

    tasks       rows that became tasks; `first_s`, `last_s` when they were submitted, `gpu_s` all their GPU time,
                `run_s` all their run time, `requested` those of them that are counted with the GPUs they had requested
    no_gpu      rows that used none, `never_ran` that they did not run: read right, and no tasks
    parts       lines of parts of jobs that have a line of their own (SWF)
    before      rows submitted before `begin_s`
    left_out    rows that may be tasks, and are none here
    doubts      what is odd about the trace as a whole
    gap_s       longest time without a task, and `gap_after_s` since the first one when it begins
    zero_unix_s the instant from which a trace with dates counts, None for counts
    """

    tasks: int = 0
    first_s: float = math.nan
    last_s: float = math.nan
    gpu_s: float = 0.0
    run_s: float = 0.0
    requested: int = 0
    no_gpu: int = 0
    never_ran: int = 0
    parts: int = 0
    before: int = 0
    left_out: SkippedRows = field(default_factory=SkippedRows)
    doubts: list[str] = field(default_factory=list)
    gap_s: float = 0.0
    gap_after_s: float = 0.0
    zero_unix_s: float | None = None

    @property
    def first_unix_s(self) -> float | None:
        """The instant of the first task; None where the trace has no dates."""
        return None if self.zero_unix_s is None else self.zero_unix_s + self.first_s

    @property
    def rows(self) -> int:
        """Rows that stand for a task, or could."""
        return self.tasks + self.no_gpu + self.never_ran + self.left_out.rows


@dataclass(slots=True)
class TaskFile:
    """A trace of tasks: iterate for its tasks in order of submission; `survey` counts what was read in the last pass.

    format   openb: alibaba/clusterdata, cluster-trace-gpu-v2023 (Weng et al., USENIX ATC 2023), GPUs =
             num_gpu x gpu_milli / 1000, run time = deletion - scheduling. swf: Standard Workload Format, Feitelson's
             Parallel Workloads Archive, 18 fields, `;` begins a comment; processors count as GPUs. csv: `columns`, with
             a header; a file called .parquet or .pq is Parquet with these columns (extra `parquet`), and its rows count
             from 1 where lines are named. Where the times of submission are dates, the file counts from its first row.
    begin_s  rows submitted before are left out
    max_left_out_ratio  share of the rows that may be neither tasks nor rows without GPUs

    ScenarioError if the file cannot be read, lacks a column, has no task, leaves out more rows than allowed, is out of
    order by more than the buffer, or its times cannot be in seconds.
    """

    path: str
    format: Format
    columns: TaskColumns = field(default_factory=TaskColumns)
    begin_s: float = 0.0
    max_left_out_ratio: float = LEFT_OUT_RATIO
    survey: Survey = field(default_factory=Survey)

    def __iter__(self) -> Iterator[Task]:
        self.survey = Survey()
        try:
            if table_suffix(self.path) in (".parquet", ".pq"):
                yield from self._in_order(self._tasks(self._parquet_rows()))
            else:
                with open_text(self.path, errors="replace") as file:
                    yield from self._in_order(self._tasks(self._rows(file)))
        except (OSError, EOFError) as err:
            raise ScenarioError(f"trace {self.path} cannot be read: {err}; give a file of format "
                                f"'{self.format}'") from None
        self._check()

    def read(self) -> Survey:
        """One pass through the whole file."""
        for _ in self:
            pass
        return self.survey

    # --- inside -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Checks that need all rows."""
        survey = self.survey
        if not survey.tasks:
            out = survey.left_out
            about = f"; {out.rows} rows are left out: {out.about()}" if out.rows else ""
            raise ScenarioError(f"trace {self.path} has no task that used GPUs after begin_s = {self.begin_s:g} "
                                f"({survey.before} rows are before it, {survey.no_gpu} used no GPU, {survey.never_ran} "
                                f"never ran{about}); look at workload.format, .columns and .begin_s")
        survey.left_out.check(self.path, survey.rows, self.max_left_out_ratio)
        mean_s, columns = survey.run_s / survey.tasks, self.columns
        if self.format == "csv" and mean_s > _LONG_MEAN_S:
            unit = columns.run_unit or columns.unit
            said = (f"its tasks run for {mean_s / DAY_S:.3g} days on average if {columns.run_s} is in {unit}, for "
                    f"{mean_s / 1000.0 / MIN_S:.3g} min if it is a thousandth of it")
            if mean_s > _LONGEST_MEAN_S:
                raise ScenarioError(f"trace {self.path}: {said}; give the unit by --set workload.columns.unit=ms (us, "
                                    "ns), or .run_unit where it is another than that of the submission")
            survey.doubts.append(f"{said}; workload.columns.unit and .run_unit say which")
        if gap := gap_note(survey.gap_s, survey.gap_after_s, survey.last_s - survey.first_s):
            survey.doubts.append(gap)

    def _in_order(self, tasks: Iterator[Task]) -> Iterator[Task]:
        heap = list(islice(tasks, BUFFER_ROWS))
        heapify(heap)
        for task in tasks:
            yield self._note(heappushpop(heap, task))
        while heap:
            yield self._note(heappop(heap))

    def _note(self, task: Task) -> Task:
        survey, (submit_s, gpu_s) = self.survey, task
        if not survey.tasks:
            survey.first_s = submit_s
        elif submit_s - survey.last_s > survey.gap_s:
            survey.gap_s, survey.gap_after_s = submit_s - survey.last_s, survey.last_s - survey.first_s
        elif submit_s < survey.last_s:
            raise ScenarioError(f"trace {self.path}: a task of {submit_s:g} s comes more than {BUFFER_ROWS} rows late; "
                                "sort the file by time of submission")
        survey.tasks, survey.last_s, survey.gpu_s = survey.tasks + 1, submit_s, survey.gpu_s + gpu_s
        return task

    def _tasks(self, rows: Iterator[tuple[int, Row]]) -> Iterator[Task]:
        survey, jobs, first = self.survey, _WholeJobs(), None
        for line, row in rows:
            if row.kind == "malformed":
                survey.left_out.add("malformed", line, row.wrong)
                continue
            self._check_time(row)
            if first is None:
                first, survey.zero_unix_s = row, row.submit_s if row.dated else None
            if row.dated != first.dated:
                mixed = ("date", "numbers") if row.dated else ("number", "dates")
                survey.left_out.add("malformed", line, "its time of submission is a {}, others are {}".format(*mixed))
                continue
            submit_s = row.submit_s - first.submit_s if row.dated else row.submit_s
            if submit_s < self.begin_s > 0.0:
                survey.before += 1
                continue
            jobs.see(row, line)
            if row.kind == "task":
                survey.requested += row.requested
                survey.run_s += row.run_s
                yield submit_s, row.run_s * row.gpus
            elif row.kind == "unknown":
                survey.left_out.add("of unknown GPU time", line, row.wrong)
            else:
                survey.no_gpu += row.kind == "no GPU"
                survey.never_ran += row.kind == "never ran"
                survey.parts += row.kind == "part"
        for line, wrong in jobs.orphans():
            survey.parts -= 1
            survey.left_out.add("parts without their whole", line, wrong)

    def _check_time(self, row: Row) -> None:
        """ScenarioError for a time of submission that cannot be a count of seconds."""
        if not row.dated and (unit := likely_unit(row.submit_s)):
            remedy = (f"--set workload.columns.unit={unit}" if self.format == "csv" else
                      f"write them in s, as traces of the format {self.format} have them")
            raise ScenarioError(f"trace {self.path}: {row.submit_s:.13g} s as a time of submission is in no century of "
                                f"ours; its numbers look like {unit} since 1970: {remedy}")

    def _rows(self, file: TextIO) -> Iterator[tuple[int, Row]]:
        """Line number and text of the line."""
        if self.format == "swf":
            for line, text in enumerate(file, 1):
                if text.strip() and not text.lstrip().startswith(";"):
                    yield line, swf(text.split())
            return
        names, parse = self._layout()
        header, lines = delimited(file, names, self.path, self._hint())
        where = [header.index(name) for name in names]
        for line, row in lines:
            if row is None or len(row) != len(header):
                wrong = "its quotes do not match" if row is None else (
                    f"it has {len(row)} fields, the first line {len(header)}")
                yield line, Row("malformed", wrong=wrong)
            else:
                yield line, parse([row[k] for k in where])

    def _parquet_rows(self) -> Iterator[tuple[int, Row]]:
        """As `_rows`, of a Parquet file, batch by batch."""
        if self.format == "swf":
            raise ScenarioError(f"trace {self.path}: the format 'swf' is text; give format 'csv' and `columns`")
        names, parse = self._layout()
        number = 0
        for _, columns in parquet_rows(Path(self.path), names, BUFFER_ROWS, self._hint()):
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, parse(["" if cell is None else str(cell) for cell in cells])

    def _layout(self) -> tuple[Sequence[str], Callable[[Sequence[str]], Row]]:
        """Names of the columns that are read, and the function that reads a row of them."""
        return (OPENB_COLUMNS, openb) if self.format == "openb" else (
            self.columns.names, partial(mapped, columns=self.columns))

    def _hint(self) -> str:
        """What to do about columns that are not there."""
        if self.format == "openb":
            return "; a file that is no openb trace takes --set workload.format=csv or swf"
        return ("; name them by --set workload.columns.submit_s=, .run_s= and .gpus= (null: every task had one GPU)")


class _WholeJobs:
    """Which parts of jobs have a whole beside them: SWF lists a preempted job once, then its parts."""

    def __init__(self) -> None:
        self._wholes: dict[str, None] = {}
        self._waiting: dict[str, list[tuple[int, str]]] = {}

    def see(self, row: Row, line: int) -> None:
        """One more row."""
        if row.kind != "part":
            if row.job:
                self._waiting.pop(row.job, None)
                self._wholes[row.job] = None
                if len(self._wholes) > BUFFER_ROWS:
                    del self._wholes[next(iter(self._wholes))]
        elif row.job not in self._wholes:
            self._waiting.setdefault(row.job, []).append((line, row.wrong))

    def orphans(self) -> Iterator[tuple[int, str]]:
        """Line and fault of the parts whose whole never came."""
        for parts in self._waiting.values():
            yield from parts
