"""Reading traces of batch jobs on GPU clusters, row by row: openb CSV, Standard Workload Format, CSV by a column map.

What is taken from a row is when the task was submitted and the GPU time it then took, GPUs x seconds. Files are read as
a stream: of millions of rows `BUFFER_ROWS` are in memory at a time, which is also how far rows may be out of order.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappushpop
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, TextIO

from pydantic import Field

from cosim.errors import ScenarioError
from cosim.params import params

BUFFER_ROWS = 65536

Format = Literal["openb", "swf", "csv"]

Row = tuple[float, float, float]
"""Submission (s), run time (s) and GPUs of a row."""

Task = tuple[float, float]
"""Time of submission in the file's own count, s, and GPU time, GPU s (> 0)."""


@params
class TaskColumns:
    """Names of the columns of a CSV of tasks. Its GPU time is run time x GPUs (without a column: one GPU)."""

    submit_s: Annotated[str, Field(min_length=1, description="column of the time of submission, s")] = "submit_s"
    run_s: Annotated[str, Field(min_length=1, description="column of the run time, s")] = "run_s"
    gpus: Annotated[str | None, Field(description="column of the number of GPUs, may be a fraction; null: one")] = None


@dataclass(slots=True)
class Survey:
    """What became of the rows read so far.

    tasks           rows that became tasks; `first_s`, `last_s` when they were submitted, `gpu_s` all their GPU time
    idle            rows in order that used no GPU: CPU only, never started, or still queued when the trace ended
    malformed       rows left out, and the line of the first of them (None: no such row)
    """

    tasks: int = 0
    first_s: float = math.nan
    last_s: float = math.nan
    gpu_s: float = 0.0
    idle: int = 0
    malformed: int = 0
    first_malformed_line: int | None = None


@dataclass(slots=True)
class TaskFile:
    """A trace of tasks: iterate for its tasks in order of submission; `survey` says what was read in the last pass.

    format   openb: alibaba/clusterdata, cluster-trace-gpu-v2023 (Weng et al., USENIX ATC 2023), GPUs =
             num_gpu x gpu_milli / 1000, run time = deletion - scheduling. swf: Standard Workload Format, Feitelson's
             Parallel Workloads Archive, 18 fields, `;` begins a comment; processors (field 5) count as GPUs, field 4 is
             the run time. csv: `columns`, with a header; a file called .parquet or .pq is Parquet with these columns
             (extra `parquet`), and its rows count from 1 where lines are named.
    begin_s  rows submitted before are left out
    strict   refuse malformed rows

    ScenarioError if the file cannot be read, lacks a column, has no task, or is out of order by more than the buffer.
    """

    path: str
    format: Format
    columns: TaskColumns = field(default_factory=TaskColumns)
    begin_s: float = 0.0
    strict: bool = False
    survey: Survey = field(default_factory=Survey)

    def __iter__(self) -> Iterator[Task]:
        self.survey = Survey()
        try:
            if Path(self.path).suffix.lower() in (".parquet", ".pq"):
                yield from self._in_order(self._tasks(self._parquet_rows()))
                self._check_some()
                return
            with Path(self.path).open(newline="", encoding="utf-8-sig", errors="replace") as file:
                yield from self._in_order(self._tasks(self._rows(file)))
        except (OSError, csv.Error) as err:
            raise ScenarioError(f"trace {self.path} cannot be read: {err}; give a file of format "
                                f"'{self.format}'") from None
        self._check_some()

    def _check_some(self) -> None:
        if not self.survey.tasks:
            raise ScenarioError(f"trace {self.path} has no task that used GPUs after begin_s = {self.begin_s:g} "
                                f"({self.survey.idle} used none, {self.survey.malformed} rows were malformed); look at "
                                "the format, the columns and begin_s")

    def read(self) -> Survey:
        """One pass through the whole file."""
        for _ in self:
            pass
        return self.survey

    # --- inside -------------------------------------------------------------------------------------------------

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
        elif submit_s < survey.last_s:
            raise ScenarioError(f"trace {self.path}: a task of {submit_s:g} s comes more than {BUFFER_ROWS} rows late; "
                                "sort the file by time of submission")
        survey.tasks, survey.last_s, survey.gpu_s = survey.tasks + 1, submit_s, survey.gpu_s + gpu_s
        return task

    def _tasks(self, rows: Iterator[tuple[int, Row | None]]) -> Iterator[Task]:
        survey = self.survey
        for line, values in rows:
            if values is None:
                survey.malformed += 1
                survey.first_malformed_line = survey.first_malformed_line or line
                if self.strict:
                    raise ScenarioError(f"trace {self.path}, line {line}: expected numbers >= 0 for submission, run "
                                        "time and GPUs; correct the row, or leave such rows out with strict=false")
                continue
            submit_s, run_s, gpus = values
            if submit_s < self.begin_s:
                continue
            if run_s > 0.0 and gpus > 0.0:
                yield submit_s, run_s * gpus
            else:
                survey.idle += 1

    def _rows(self, file: TextIO) -> Iterator[tuple[int, Row | None]]:
        """Line number, and submission (s), run time (s) and GPUs; None where the row is malformed."""
        if self.format == "swf":
            for line, text in enumerate(file, 1):
                if text.strip() and not text.lstrip().startswith(";"):
                    yield line, _swf(text.split())
            return
        reader = csv.reader(file, quoting=csv.QUOTE_NONE)
        header = [name.strip() for name in next(reader, [])]
        names = self._names()
        missing = [name for name in names if name not in header]
        if missing:
            raise ScenarioError(f"trace {self.path} has no column {', '.join(missing)}; its first line is "
                                f"'{','.join(header)[:80]}'")
        where, parse = [header.index(name) for name in names], _openb if self.format == "openb" else _mapped
        for row in reader:
            if row:
                good = len(row) == len(header)
                yield reader.line_num, parse([row[k] for k in where]) if good else None

    def _parquet_rows(self) -> Iterator[tuple[int, Row | None]]:
        """As `_rows`, of a Parquet file, batch by batch."""
        if self.format == "swf":
            raise ScenarioError(f"trace {self.path}: the format 'swf' is text; give format 'csv' and `columns`")
        if importlib.util.find_spec("pyarrow") is None:
            raise ScenarioError(f"{self.path}: Parquet needs pyarrow; install it (extra 'parquet'), or use CSV")
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        names, parse = self._names(), _openb if self.format == "openb" else _mapped
        try:
            file = parquet.ParquetFile(self.path)
        except arrow.ArrowException as err:
            raise ScenarioError(f"{self.path} is no Parquet file: {err}") from None
        with file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise ScenarioError(f"trace {self.path} has no column {', '.join(missing)}; it has "
                                    f"{', '.join(file.schema_arrow.names)}")
            number = 0
            for batch in file.iter_batches(BUFFER_ROWS, columns=names):
                for cells in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    number += 1
                    yield number, parse(["" if cell is None else str(cell) for cell in cells])

    def _names(self) -> list[str]:
        if self.format == "openb":
            return ["creation_time", "scheduled_time", "deletion_time", "num_gpu", "gpu_milli"]
        columns = self.columns
        return [columns.submit_s, columns.run_s, *([columns.gpus] if columns.gpus is not None else [])]


def _openb(fields: list[str]) -> tuple[float, float, float] | None:
    """A row of openb; a task that was never scheduled, or not deleted within the trace, has run for no time."""
    times = [_number(text) if text.strip() else 0.0 for text in fields[1:3]]
    created_s, gpus, milli = _number(fields[0]), _number(fields[3]), _number(fields[4])
    if None in (*times, created_s, gpus, milli) or (all(t.strip() for t in fields[1:3]) and times[1] < times[0]):
        return None
    return created_s, max(times[1] - times[0], 0.0) if fields[1].strip() else 0.0, gpus * milli / 1000.0


def _swf(fields: list[str]) -> tuple[float, float, float] | None:
    """A row of the Standard Workload Format; -1 is 'unknown', which counts as no time and no processor."""
    if len(fields) != 18:
        return None
    submit_s = _number(fields[1])
    run_s, processors = (0.0 if text == "-1" else _number(text) for text in (fields[3], fields[4]))
    return None if None in (submit_s, run_s, processors) else (submit_s, run_s, processors)


def _mapped(fields: list[str]) -> tuple[float, float, float] | None:
    values = [_number(text) for text in fields]
    return None if None in values else (values[0], values[1], values[2] if len(values) == 3 else 1.0)


def _number(text: str) -> float | None:
    """A finite number >= 0, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf else None
